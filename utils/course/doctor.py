"""``mi doctor``: is this machine fit for the course? One sentence for each thing, and what to do where it is not.

Each finding is a function of what was measured, so that any machine can be tried on any other.
"""

import re
import sys
import time
import tomllib
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from shutil import disk_usage
from urllib.parse import urlsplit

from utils.course import paths
from utils.course.manifest import Exercise, parts

AGAIN = "`make lab` (or `python bootstrap.py`)"
DISK, MEMORY, ROOM = 1, 4, 3  # gigabytes: free disk, all memory, and the memory that a large notebook takes
GIGA = 1e9
PATIENCE = 30  # seconds for a kernel


@dataclass(frozen=True)
class Finding:
    """What was found: "fine", to "look" at, or to "mend" before the course works; with what to do, in a sentence."""

    status: str
    text: str


def diagnose() -> Iterator[Finding]:
    """Every finding about this machine, the quick ones first."""
    yield python(sys.version_info)
    there = packages(tested(), installed)
    yield there
    if there.status == "mend":
        return  # what follows would only say so again
    import psutil

    memory = psutil.virtual_memory()
    yield disk(disk_usage(paths.ROOT).free)
    yield working_memory(memory.total, memory.available)
    yield clock(time.time(), paths.MANIFEST.stat().st_mtime)
    yield proxy(urllib.request.getproxies(), urllib.request.proxy_bypass("localhost"))
    way = f"If a firewall or a VPN closes 127.0.0.1, open it; otherwise {AGAIN} sets the environment up again."
    yield attempt("The Jupyter kernel starts", start_kernel, way)
    way = f"{AGAIN} sets the environment up again."
    yield attempt("A check runs", lambda: run_a_check(parts()[0].exercises[0]), way)


def python(found: tuple) -> Finding:
    bootstrap = paths.load_file(paths.ROOT / "bootstrap.py")
    said = f"Python {bootstrap.dotted(found[:3])}"
    if bootstrap.supported(found):
        return Finding("fine", said)
    needed = f"{bootstrap.dotted(bootstrap.OLDEST)} or newer, and older than {bootstrap.dotted(bootstrap.TOO_NEW)}"
    return Finding("mend", f"{said}: the course needs {needed}. Install one, delete .venv, and run {AGAIN}.")


def tested() -> dict[str, str]:
    """The versions with which the course's own dependencies were tested."""
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    needed = {_plain(re.match(r"[\w.-]+", text)[0]) for text in project["dependencies"]}
    lines = (paths.ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = dict(line.split("==") for line in lines if re.match(r"[\w.-]+==", line))
    return {name: number for name, number in pinned.items() if _plain(name) in needed}


def _plain(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def packages(wanted: dict[str, str], find: Callable[[str], str | None]) -> Finding:
    """``find`` gives a package's version on this machine, or None."""
    found = {name: find(name) for name in wanted}
    missing = [name for name, number in found.items() if number is None]
    other = [f"{name} {found[name]}" for name in wanted if found[name] and found[name].split("+")[0] != wanted[name]]
    if missing:
        return Finding("mend", f"{_some(missing)} not installed: {AGAIN} installs what is missing.")
    if other:
        said = f"{_some(other)} not in the version that the course was tested with"
        return Finding("look", f"{said}: if something fails, {AGAIN} installs the tested ones.")
    return Finding("fine", f"all {len(wanted)} packages are there, in the versions that were tested")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return f"{shown} {'is' if len(names) == 1 else 'are'}"


def disk(free: int) -> Finding:
    said = f"{free / GIGA:.1f} GB of disk are free"
    if free < DISK * GIGA:
        return Finding(
            "mend", f"{said}: free some space, until there are {DISK} GB at least; notebooks can't be saved."
        )
    return Finding("fine", said)


def working_memory(total: int, available: int) -> Finding:
    said = f"{total / GIGA:.1f} GB of memory, {available / GIGA:.1f} of them free"
    if total < MEMORY * GIGA:
        return Finding("mend", f"{said}: {MEMORY} are needed; use another machine, or a server's JupyterLab.")
    if available < ROOM * GIGA:
        return Finding("look", f"{said}: a notebook takes up to {ROOM}; close other programs and notebooks first.")
    return Finding("fine", said)


def clock(now: float, made: float) -> Finding:
    """``made``: when the course's files were written, by this machine's clock."""
    said = time.strftime("%Y-%m-%d %H:%M", time.localtime(now))
    if now < made:
        return Finding(
            "mend",
            f"The clock says {said}, before the course's files were written: set it, or secure connections fail.",
        )
    return Finding("fine", f"the clock says {said}")


def proxy(proxies: dict[str, str], spares_localhost: bool) -> Finding:
    """``spares_localhost``: whether connections to this machine itself go past the proxy."""
    used = proxies.get("https") or proxies.get("http") or proxies.get("all")
    if not used:
        return Finding("fine", "no proxy")
    address = urlsplit(used if "//" in used else f"//{used}")
    name = f"{address.hostname}:{address.port}" if address.port else address.hostname  # without a password in it
    if not spares_localhost:
        return Finding(
            "look",
            f"The proxy {name} is used for this machine itself, too: set NO_PROXY=localhost,127.0.0.1, or JupyterLab "
            "may not reach its kernels.",
        )
    return Finding("fine", f"the proxy {name} is used for downloads; nothing else needs a network")


def attempt(what: str, run: Callable[[], None], way_out: str) -> Finding:
    """Whether something works at all; any exception is what was found."""
    try:
        run()
    except Exception as error:
        reason = (str(error).strip().splitlines() or [""])[-1][:200]
        return Finding("mend", f"{what}: no ({type(error).__name__}: {reason.rstrip('.')}). {way_out}")
    return Finding("fine", f"{what[0].lower()}{what[1:]}")


def start_kernel() -> None:
    """Start a kernel, let it import the course, and stop it; raises if that fails."""
    from jupyter_client.manager import start_new_kernel

    quiet = ["--IPKernelApp.log_level=ERROR"]
    kernel, client = start_new_kernel(startup_timeout=PATIENCE, kernel_name="python3", extra_arguments=quiet)
    try:
        reply = client.execute_interactive("import utils.course", timeout=PATIENCE, output_hook=lambda message: None)
    finally:
        client.stop_channels()
        kernel.shutdown_kernel(now=True)
    if reply["content"]["status"] != "ok":
        raise RuntimeError(f"in it, importing the course ends in {reply['content']['ename']}")


def run_a_check(exercise: Exercise) -> None:
    """Check one exercise's reference; raises if it does not pass."""
    from utils.course.feedback import headline
    from utils.course.runner import run_checks

    report = run_checks(exercise, exercise.reference)
    if report.status != "passed":
        raise RuntimeError(headline(report))
