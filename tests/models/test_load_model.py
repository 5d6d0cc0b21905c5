"""The door to all models: what it opens, and what it says when a file is damaged, missing or out of reach."""

import hashlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import nbformat
import pytest
import torch
from huggingface_hub import constants
from nbclient import NotebookClient

from utils.course.paths import load_file
from utils.models import catalogue, hub
from utils.models.bundled import ModelFileError, write_model
from utils.models.catalogue import UnknownModel, load_model
from utils.models.config import TransformerConfig
from utils.models.hooked import load_gpt2_small
from utils.models.hub import ModelUnavailable
from utils.transformer.model import Transformer

hub_cache = load_file(Path(__file__).parent / "hub_cache.py")

SIZES = dict(d_model=8, n_layers=2, n_heads=2, d_head=4, d_mlp=12, n_ctx=6, d_vocab=300)
TINY_GPT2 = dict(std=0.3, n_embd=24, n_layer=2, n_head=3, n_positions=32, vocab_size=300)


def write_random(folder, seed=0, **changes):
    """A small model with random weights everywhere, as `mi train` writes one."""
    sizes = SIZES | changes
    torch.manual_seed(seed)
    model = Transformer(TransformerConfig(**sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    write_model(folder, sizes, model.state_dict())
    return model


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    """A folder that stands for the shipped course model's."""
    monkeypatch.setattr(catalogue, "BUNDLED", tmp_path)
    return tmp_path / "course-model"


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache, and no network: whoever asks for an address or a connection fails the test."""

    def refuse(*arguments, **options):
        pytest.fail(f"the network was asked for {arguments}")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path


def log_probs(model, tokens):
    with torch.no_grad():
        out = model(tokens)
    return (out if isinstance(out, torch.Tensor) else out.logits).log_softmax(-1)


class TestShipped:
    def test_a_shipped_model_computes_what_its_weights_say(self, shipped):
        ours, loaded = write_random(shipped), load_model("course-model")
        tokens = torch.randint(300, (3, 6))
        torch.testing.assert_close(loaded(tokens), ours(tokens), rtol=1e-4, atol=1e-4)

    def test_a_folder_of_ones_own_is_loaded_by_its_path(self, tmp_path):
        ours = write_random(tmp_path / "mine")
        for path in (tmp_path / "mine", str(tmp_path / "mine")):
            assert torch.equal(load_model(path).W_E, ours.embed["W_E"])

    def test_a_model_without_mlps_has_none(self, shipped):
        state = {name: x for name, x in write_random(shipped).state_dict().items() if ".mlp" not in name}
        state = {name: x for name, x in state.items() if ".ln2" not in name}
        write_model(shipped, SIZES | {"d_mlp": 0}, state)
        _, seen = load_model("course-model").run_with_cache(torch.tensor([[1, 2]]))
        assert not [name for name in seen if "mlp" in name] and "blocks.1.hook_attn_out" in seen

    def test_with_a_tokenizer_it_takes_text_behind_a_bos(self, shipped):
        write_random(shipped)
        hub_cache.write_tokenizer(shipped, 300, {"bos_token": hub_cache.END})
        model = load_model("course-model")
        assert model.to_str_tokens("a cat") == [hub_cache.END, "a", " ", "c", "a", "t"]
        assert model.to_tokens(["a", "cat"]).shape == (2, 4)
        assert model("a cat").shape == (1, 6, 300)

    def test_loading_changes_nothing_global(self, shipped):
        write_random(shipped)
        before, threads = torch.get_rng_state(), torch.get_num_threads()
        load_model("course-model")
        assert torch.equal(torch.get_rng_state(), before) and torch.is_grad_enabled()
        assert torch.get_num_threads() == threads

    def test_unknown_names_are_answered_with_the_known_ones(self):
        with pytest.raises(UnknownModel, match="no model 'gpt3', and no such folder. There are course-model, .*gpt2"):
            load_model("gpt3")
        with pytest.raises(UnknownModel, match=r"'digits-cnn' is no transformer; utils.*load_digits_cnn\(\) loads it"):
            load_model("digits-cnn")
        with pytest.raises(
            UnknownModel, match=r"'resnet-18' is no .*image_classifier.load_image_classifier\(\) loads it"
        ):
            load_model("resnet-18")


def cut_short(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-100])


def change_a_byte(folder):
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def anothers_weights(folder):
    write_random(folder.parent / "other", seed=1)
    (folder.parent / "other" / "model.safetensors").replace(folder / "model.safetensors")


def no_safetensors(folder):
    write_random(folder)
    about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    content = b"\xff" * about["bytes"]
    about["sha256"] = hashlib.sha256(content).hexdigest()
    (folder / "model.safetensors").write_bytes(content)
    (folder / "config.json").write_text(json.dumps(about))


def change_config(**changes):
    def damage(folder):
        about = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        about["config"] |= changes
        (folder / "config.json").write_text(json.dumps(about))

    return damage


def write(name, text):
    return lambda folder: (folder / name).write_text(text)


def remove(name):
    return lambda folder: (folder / name).unlink()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_short, r"model\.safetensors has [\d,]+ bytes where config\.json says"),
        (change_a_byte, r"model\.safetensors does not have the checksum"),
        (anothers_weights, r"model\.safetensors does not have the checksum"),
        (no_safetensors, r"model\.safetensors is not a safetensors file"),
        (remove("model.safetensors"), r"model\.safetensors cannot be read \(No such file"),
        (remove("config.json"), r"config\.json cannot be read \(No such file"),
        (write("config.json", '{"config": '), r"config\.json is not a model's config"),
        (write("config.json", '{"sizes": 3}'), r"config\.json is not a model's config"),
        (write("config.json", "[1]"), r"config\.json is not a model's config"),
        (change_config(d_model=9), r"config\.json does not describe a transformer with the weights beside it"),
        (change_config(n_layers=3), r"config\.json does not describe a transformer with the weights beside it"),
        (change_config(depth=3), r"config\.json does not describe a transformer .*depth"),
        (write("tokenizer.json", "{"), r"tokenizer\.json is not a tokenizer"),
    ],
)
def test_a_damaged_file_is_named(shipped, damage, message):
    write_random(shipped)
    damage(shipped)
    with pytest.raises(ModelFileError, match=message) as caught:
        load_model("course-model")
    assert str(shipped) in str(caught.value)


def test_a_tokenizer_without_a_bos_is_refused(shipped):
    write_random(shipped)
    hub_cache.write_tokenizer(shipped, 300, {})
    with pytest.raises(ModelFileError, match=r"tokenizer_config\.json names no bos_token"):
        load_model("course-model")


class TestCached:
    @pytest.mark.parametrize(("kept_as", "offline"), [("gpt2", True), ("openai-community/gpt2", False)])
    def test_gpt2_from_the_cache_is_gpt2(self, cache, monkeypatch, kept_as, offline):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", offline)
        theirs = hub_cache.random_gpt2(**TINY_GPT2)
        hub_cache.put_gpt2(cache, kept_as, theirs)
        ours, tokens = load_model("gpt2"), torch.randint(300, (3, 32))
        expected = log_probs(theirs, tokens)
        assert expected.std() > 0.5  # else nearly everything would agree
        torch.testing.assert_close(log_probs(ours, tokens), expected, rtol=0, atol=1e-4)
        assert ours.cfg.normalization_type == "LNPre" and not ours.training
        assert ours.to_str_tokens("a cat")[0] == hub_cache.END

    def test_unprocessed_for_the_learners_own_class(self, cache):
        theirs = hub_cache.random_gpt2(**TINY_GPT2)
        hub_cache.put_gpt2(cache, "gpt2", theirs)
        cfg, state, tokenizer = load_gpt2_small()
        ours, tokens = Transformer(cfg), torch.randint(300, (3, 32))
        ours.load_state_dict(state)
        torch.testing.assert_close(log_probs(ours, tokens), log_probs(theirs, tokens), rtol=0, atol=1e-4)
        assert tokenizer.decode(tokenizer("a cat")["input_ids"]) == "a cat"

    def test_pythia_from_the_cache_is_pythia(self, cache):
        theirs = hub_cache.random_pythia()
        hub_cache.put_pythia(cache, "EleutherAI/pythia-70m-deduped", theirs)
        ours, tokens = load_model("pythia-70m-deduped"), torch.randint(300, (3, 32))
        torch.testing.assert_close(log_probs(ours, tokens), log_probs(theirs.float(), tokens), rtol=0, atol=1e-4)
        assert ours.W_E.dtype == torch.float32

    def test_cut_short_or_incomplete_weights_are_named(self, cache):
        from safetensors.torch import load_file as read
        from safetensors.torch import save_file

        snapshot = hub_cache.put_gpt2(cache, "gpt2", hub_cache.random_gpt2(**TINY_GPT2))
        path = snapshot / "model.safetensors"
        tensors = read(path)
        cut_short(snapshot)
        with pytest.raises(ModelFileError, match=r"model\.safetensors cannot be loaded"):
            load_model("gpt2")
        del tensors["h.1.mlp.c_fc.weight"]
        save_file(tensors, path.resolve(), metadata={"format": "pt"})
        with pytest.raises(ModelFileError, match=r"model\.safetensors has no .*h\.1\.mlp\.c_fc\.weight"):
            load_model("gpt2")

    @pytest.mark.parametrize("file", ["config.json", "tokenizer.json"])
    def test_garbage_beside_the_weights_is_named(self, cache, file):
        snapshot = hub_cache.put_gpt2(cache, "gpt2", hub_cache.random_gpt2(**TINY_GPT2))
        (snapshot / file).write_text("{")
        with pytest.raises(ModelFileError, match="cannot be loaded") as caught:
            load_model("gpt2")
        assert str(snapshot) in str(caught.value)

    @pytest.mark.parametrize("missing", ["config.json", "model.safetensors", ("tokenizer.json", "vocab.json")])
    def test_an_incomplete_download_is_none(self, cache, missing):
        snapshot = hub_cache.put_gpt2(cache, "gpt2", hub_cache.random_gpt2(**TINY_GPT2))
        assert hub.cached_folder("gpt2") == snapshot
        for file in [missing] if isinstance(missing, str) else missing:
            (snapshot / file).unlink()
        assert hub.cached_folder("gpt2") is None

    @pytest.mark.slow
    def test_gpt2_small_of_its_true_size(self, cache):
        theirs = hub_cache.random_gpt2(std=0.05)
        tokens = torch.randint(50_257, (2, 40))
        expected = log_probs(theirs, tokens)
        assert expected.std() > 0.5
        hub_cache.put_gpt2(cache, "gpt2", theirs)
        del theirs
        ours = load_model("gpt2")
        torch.testing.assert_close(log_probs(ours, tokens), expected, rtol=0, atol=1e-4)
        assert (ours.cfg.n_layers, ours.cfg.d_model, ours.cfg.d_vocab, ours.cfg.n_ctx) == (12, 768, 50_257, 1024)
        assert ours.tokenizer.bos_token_id == 50_256


def test_stated_sizes_are_those_of_the_architectures():
    """Parameters, and the weights file: four bytes each and GPT-2's masks, or two and Pythia's masks of one byte."""
    from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig

    medium = GPT2Config(n_embd=1024, n_layer=24, n_head=16)
    pythia = GPTNeoXConfig(
        hidden_size=512, num_hidden_layers=6, num_attention_heads=8, intermediate_size=2048, vocab_size=50_304
    )
    for name, config, n_bytes, mask in (
        ("gpt2", GPT2Config(), 4, 12 * 4 * 1024**2),
        ("gpt2-medium", medium, 4, 24 * 4 * 1024**2),
        ("pythia-70m-deduped", pythia, 2, 6 * 2048**2),
    ):
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
        stated = catalogue.PRETRAINED[name]
        assert sum(parameter.numel() for parameter in model.parameters()) == stated.parameters, name
        assert round((n_bytes * stated.parameters + mask) / 1e6) == stated.megabytes, name


class TestOutOfReach:
    def test_one_sentence_when_offline(self, cache, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(ModelUnavailable, match="^The weights of 'gpt2' are not on this machine") as caught:
            load_model("gpt2")
        assert "\n" not in str(caught.value) and str(caught.value).count(".") == 1

    def test_a_hub_that_does_not_answer_costs_seconds(self, tmp_path, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{silent.getsockname()[1]}")
            start = time.monotonic()
            with pytest.raises(ModelUnavailable, match="cannot be reached"):
                hub.pretrained_folder("gpt2")
        assert time.monotonic() - start < 5

    @pytest.mark.parametrize("endpoint", ["hub.example.org", "localhost:8000", "", "ftp://example.org", "https://"])
    def test_an_endpoint_without_a_scheme_or_host_is_named_in_one_sentence(self, cache, monkeypatch, endpoint):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        for ask in (hub.hub_answers, catalogue.standings, lambda: load_model("gpt2"), lambda: hub.fetch("gpt2")):
            with pytest.raises(ModelUnavailable, match="HF_ENDPOINT, is .* has to begin with http://") as caught:
                ask()
            assert repr(endpoint) in str(caught.value) and "\n" not in str(caught.value)

    def test_mi_models_says_it_and_nothing_else(self, tmp_path):
        environment = os.environ | {"HF_ENDPOINT": "hub.example.org", "HF_HUB_CACHE": str(tmp_path)}
        environment.pop("HF_HUB_OFFLINE", None)
        command = "import sys; from utils.course.cli import main; sys.exit(main(['models']))"
        root = Path(catalogue.__file__).parents[2]
        ended = subprocess.run(
            [sys.executable, "-c", command], env=environment, cwd=root, capture_output=True, text=True, check=False
        )
        assert (ended.returncode, ended.stdout) == (1, "")
        assert ended.stderr.startswith("mi: The address of the Hugging Face hub") and ended.stderr.count("\n") == 1

    @pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
    @pytest.mark.parametrize("endpoint", ["http://localhost:port", "http://a b/", "http://" + "a" * 70 + ".org"])
    def test_other_addresses_that_lead_nowhere_are_no_answer(self, monkeypatch, endpoint):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        assert not hub.hub_answers()

    @pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
    def test_nor_is_what_something_else_than_a_web_server_says(self, monkeypatch):
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

        def babble():
            connection, _ = server.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(b"220 ready\r\n")

        with socket.create_server(("127.0.0.1", 0)) as server:
            monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.getsockname()[1]}")
            speaker = threading.Thread(target=babble)
            speaker.start()
            assert not hub.hub_answers()
            speaker.join()

    def test_nor_does_a_look_up_of_its_address_that_takes_long(self, monkeypatch):
        def look_up(*arguments, **options):
            time.sleep(6)
            raise socket.gaierror("no answer")

        monkeypatch.setattr(socket, "getaddrinfo", look_up)
        start = time.monotonic()
        assert not hub.hub_answers()
        assert time.monotonic() - start < 5

    def test_a_notebook_that_expects_it_goes_on(self, tmp_path, monkeypatch):
        monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        root = Path(catalogue.__file__).parents[2]
        monkeypatch.setenv("PYTHONPATH", str(root))
        first = (
            "from utils.models.catalogue import load_model\nfrom utils.models.hub import ModelUnavailable\n"
            "try:\n    model = load_model('gpt2')\nexcept ModelUnavailable as error:\n    print(error)"
        )
        cells = [nbformat.v4.new_code_cell(source) for source in (first, "print('and on')")]
        notebook = nbformat.v4.new_notebook(cells=cells)
        NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
        texts = ["".join(output["text"] for output in cell.outputs) for cell in notebook.cells]
        assert texts[0].startswith("The weights of 'gpt2' are not on this machine") and texts[1] == "and on\n"
