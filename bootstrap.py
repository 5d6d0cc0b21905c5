"""Make or update `.venv`, the Python environment of the course: `python3 bootstrap.py`.

Standard library only, in the syntax of Python 3.6: an old Python then gets a sentence with the way
out instead of a syntax error.
"""

import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
LOG = VENV / "install.log"
STAMP = VENV / "installed.txt"

# What IPython reads when a kernel of this environment starts.
KERNEL = VENV / "etc" / "ipython" / "ipython_kernel_config.py"
KERNEL_SETTINGS = """c = get_config()
c.InteractiveShellApp.exec_lines = ["__import__('mechinterp_course').own_packages_first()"]
"""

OLDEST, TOO_NEW = (3, 11), (3, 15)
# Gigabytes at the peak, as measured on Linux, with a margin: .venv and pip's copies of what it downloads.
SPACE, SPACE_WITH_CUDA = 4, 12

AGAIN = f"""Run the same command again: it goes on from what is there already.
All that pip said is in {LOG}."""
NETWORK = re.compile(
    "Retrying|ConnectionError|Connection (refused|reset|aborted|broken)|[Tt]imed out|TimeoutError"
    "|name resolution|getaddrinfo|IncompleteRead|SSLError|ProxyError"
)


class Stop(Exception):
    """The environment cannot be made; the text says what is missing and the way out."""


def dotted(version):
    return ".".join(str(part) for part in version)


def supported(version):
    return OLDEST <= tuple(version[:2]) < TOO_NEW


def other_python():
    """The name of a Python on this machine that would do, or None."""
    for minor in range(OLDEST[1], TOO_NEW[1]):
        name = f"python3.{minor}"
        if shutil.which(name) and subprocess.call([name, "-c", "import ensurepip"], stderr=subprocess.DEVNULL) == 0:
            return name
    return None


def check_python(version, other):
    if not supported(version) and other is None:
        raise Stop(
            f"This is Python {dotted(version[:3])}. The course needs Python {dotted(OLDEST)} or newer, and"
            f" older than {dotted(TOO_NEW)}, and none was found on this machine.\n"
            "Install one (python.org, your system's packages, conda and pyenv have them) and run the same"
            " command again."
        )


def check_modules(find=importlib.util.find_spec):
    missing = [name for name in ("venv", "ensurepip") if find(name) is None]
    if missing:
        python = f"python{dotted(sys.version_info[:2])}"
        raise Stop(
            f"{sys.executable} cannot make virtual environments: its module {' and '.join(missing)} is"
            f" missing.\nOn Debian and Ubuntu run `sudo apt install {python}-venv`, then the same command"
            " again. Elsewhere, install Python from python.org or conda, and use that one."
        )


def check_disk(free, cuda):
    """Stop if `free` bytes are too few."""
    needed = SPACE_WITH_CUDA if cuda else SPACE
    if free >= needed * 1e9:
        return
    text = f"Too little disk space: {free / 1e9:.1f} GB is free for {VENV}, about {needed} GB is needed.\n"
    if cuda and free >= SPACE * 1e9:
        text += (
            "Most of that is CUDA, which the ordinary build of torch for Linux brings along. The CPU build"
            f" is enough for this course and needs about {SPACE} GB in all: set the environment variable"
            ' PIP_EXTRA_INDEX_URL to the index of CPU builds (PyTorch\'s page "Get started" gives its address'
            " when you choose CPU) and run the same command again. Or free some space."
        )
    else:
        text += "Free some space, or move the course to a larger disk, and run the same command again."
    raise Stop(text)


def explain(output):
    """What went wrong in a failed install, in plain words, from what pip printed."""
    if "No space left on device" in output or "not enough space" in output:
        reason = "The disk is full. Free some space first."
    elif NETWORK.search(output):
        reason = (
            "The package index could not be reached. Check the network connection, and the proxy or mirror"
            " that pip is set to, where one is used."
        )
    else:
        reason = "pip could not install the course's packages."
        if "No matching distribution found" in output or "ResolutionImpossible" in output:
            reason = (
                "pip does not find a package in the version that the course was tested with. Check pip's"
                f" settings for a wrong or incomplete index: `{PYTHON} -m pip config list`."
            )
        error = re.search("^error.*", output, re.IGNORECASE | re.MULTILINE)
        reason += f"\npip: {error.group()}" if error else ""
    return f"{reason}\n{AGAIN}"


def activity(output):
    """What pip is doing, from the last line in its output that tells."""
    for line in reversed(output.splitlines()):
        file = re.match(r"\s*(Downloading|Using cached) (?:\S*/)?([^\s/]+?)-\d\S* (\(.*\))", line)
        if file:
            return "{} {} {}".format(file.group(1).lower(), *file.groups()[1:])
        if line.startswith("Installing collected packages"):
            return "unpacking"
        if "Retrying" in line:
            return "the network does not answer, trying again"
    return "looking up packages"


def show(line, last=False):
    """Progress that rewrites its own line on a terminal; elsewhere, as in a log, plain lines."""
    if sys.stdout.isatty():
        width = shutil.get_terminal_size().columns - 1
        print("\r" + line[:width].ljust(width), end="\n" if last else "", flush=True)
    else:
        print(line, flush=True)


def pip_install(what, *packages):
    command = [str(PYTHON), "-m", "pip", "install", "--no-input"] + list(packages)
    # Variables instead of options hold for the tools that build packages, too. Temporary files go where
    # the space was checked: the usual place may be a small disk in memory.
    temporary = VENV / "tmp"
    temporary.mkdir(exist_ok=True)
    constraints = dict.fromkeys(("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"), "constraints.txt")
    start, shown = time.time(), 0
    with LOG.open("wb") as log:
        process = subprocess.Popen(
            command,
            cwd=str(ROOT),
            env=dict(os.environ, TMPDIR=str(temporary), **constraints),
            stdout=log,
            stderr=subprocess.STDOUT,
        )
        try:
            while process.poll() is None:
                seconds = int(time.time() - start)
                if sys.stdout.isatty() or seconds >= shown + 30:
                    shown = seconds
                    show(f"  {what}: {activity(read(LOG))}, {seconds // 60}:{seconds % 60:02d}")
                time.sleep(0.5)
        finally:
            process.terminate()
            process.wait()
            shutil.rmtree(str(temporary), ignore_errors=True)
    if process.returncode != 0:
        raise Stop(explain(read(LOG)))
    seconds = int(time.time() - start)
    show(f"  {what}: done in {seconds // 60}:{seconds % 60:02d}", last=True)


def read(path):
    return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""


def fingerprint():
    """What the environment was made for: this place, because it holds absolute paths, and these versions."""
    files = (ROOT / "pyproject.toml").read_bytes() + (ROOT / "constraints.txt").read_bytes()
    return f"{ROOT}\n{hashlib.sha256(files).hexdigest()}\n"


def usable():
    """Does the environment's Python start, has it pip, is its version supported?"""
    probe = f"import sys, pip; sys.exit(not {OLDEST} <= sys.version_info[:2] < {TOO_NEW})"
    return PYTHON.exists() and subprocess.call([str(PYTHON), "-c", probe], stderr=subprocess.DEVNULL) == 0


def make_venv():
    check_modules()
    print("  making .venv", flush=True)
    command = [sys.executable, "-m", "venv", "--clear", str(VENV)]
    made = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if made.returncode != 0:
        raise Stop(f"Python could not make {VENV}. It said:\n{made.stdout.strip()}")


def drop_half_installed():
    """Let pip install again what it was installing when it was stopped: it writes INSTALLER last."""
    for pattern in ("lib/python3*/site-packages/*.dist-info", "Lib/site-packages/*.dist-info"):
        for folder in VENV.glob(pattern):
            if not (folder / "INSTALLER").exists():
                shutil.rmtree(str(folder))


def takes_cuda():
    """Will pip take torch with CUDA? On Linux it does, unless it was pointed to another index."""
    settings = [str(PYTHON), "-m", "pip", "config", "list"]
    told = subprocess.run(settings, stdout=subprocess.PIPE, text=True).stdout
    return sys.platform == "linux" and "index-url" not in told and "find-links" not in told


def size(folder):
    return sum(
        os.lstat(os.path.join(where, name)).st_size for where, _, names in os.walk(str(folder)) for name in names
    )


def install():
    """Make or update the environment."""
    print("Setting up the course's Python environment. This happens once and takes some minutes.", flush=True)
    moved = STAMP.exists() and read(STAMP).splitlines()[0] != str(ROOT)
    if moved or not usable():
        make_venv()
    cuda = takes_cuda()
    if not STAMP.exists():
        check_disk(shutil.disk_usage(str(ROOT)).free + size(VENV), cuda)
    drop_half_installed()
    torch = re.search("^torch==.*$", read(ROOT / "constraints.txt"), re.MULTILINE).group()
    pip_install("torch with CUDA (2.7 GB to download)" if cuda else "torch (0.2 GB to download)", torch)
    pip_install("all other packages (0.3 GB to download)", "--editable", ".[test]")
    KERNEL.parent.mkdir(parents=True, exist_ok=True)
    KERNEL.write_text(KERNEL_SETTINGS, encoding="utf-8")
    STAMP.write_text(fingerprint(), encoding="utf-8")


def next_commands():
    if os.name == "nt":
        return (
            "Ready. Next: `.venv\\Scripts\\mi work` copies the notebooks to `work`, where you write;"
            " `.venv\\Scripts\\jupyter lab` opens the course;"
            ' `.venv\\Scripts\\pytest -m "not browser and not network and not slow"` runs its tests.'
        )
    return "Ready. Next: `make lab` opens the course; `make test` runs its tests."


def main():
    try:
        other = None if supported(sys.version_info) else other_python()
        check_python(sys.version_info, other)
        if other is not None:
            print(f"This is Python {dotted(sys.version_info[:3])}, going on with {other}.", flush=True)
            return subprocess.call([other, str(ROOT / "bootstrap.py")])
        if not usable() or read(STAMP) != fingerprint():
            install()
    except Stop as problem:
        print(f"\n{problem}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"\nStopped. {AGAIN}", file=sys.stderr)
        return 130
    if "MAKELEVEL" not in os.environ:  # make goes on by itself
        print(next_commands())
    return 0


if __name__ == "__main__":
    sys.exit(main())
