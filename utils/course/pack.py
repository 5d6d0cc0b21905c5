"""``mi pack``: one archive with all that a room without a network needs: the course, its packages, the real networks.

Packages are wheels for the system that is asked for. What they need there follows from their own metadata: pip reads
conditions such as ``sys_platform == "win32"`` for the machine that it runs on.
"""

import email
import json
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Callable
from functools import cache
from importlib import metadata
from pathlib import Path

from packaging.markers import default_environment
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from utils.course import paths
from utils.course.manifest import CourseError
from utils.models import packaged

BUILD = ["setuptools"]  # installs the course itself
KEYS = ("sys_platform", "platform_system", "os_name", "platform_machine")
MAC = [f"macosx_{number}_0_{kind}" for number in range(14, 10, -1) for kind in ("arm64", "universal2")]
GLIBC = [f"manylinux_2_{number}_x86_64" for number in range(34, 4, -1)]
# Of each system what stands in packages' conditions, and the names that its wheels go by.
SYSTEMS = {
    "linux": (("linux", "Linux", "posix", "x86_64"), [*GLIBC, "manylinux2014_x86_64", "linux_x86_64"]),
    "macos": (("darwin", "Darwin", "posix", "arm64"), MAC),
    "windows": (("win32", "Windows", "nt", "AMD64"), ["win_amd64"]),
}


def pack(system: str, python: str, say: Callable[[str], None] = print) -> Path:
    """Make the archive, in ``build``.

    Args:
        system: One of ``SYSTEMS``.
        python: The room's version of Python, e.g. "3.12".
        say: Receives a line for each step.
    """
    wheels = paths.ROOT / "build" / "wheels" / f"{system}-{python}"
    wheels.mkdir(parents=True, exist_ok=True)
    while missing := [one for one in needed(wheels, system, python) if not _wheel(wheels, _name(one))]:
        say(f"downloading wheels for {system}, Python {python}: {len(missing)}")
        download(missing, wheels, system, python)
    archive = paths.ROOT / "build" / f"mechinterp-course-{system}-py{python}.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_STORED) as file:
        file.write(paths.ROOT / "docs" / "pack" / "install.py", "install.py")
        file.writestr("pack.json", json.dumps({"system": system, "python": python}))
        for name in course_files():
            file.write(paths.ROOT / name, f"course/{name}", zipfile.ZIP_DEFLATED)
        for one in needed(wheels, system, python):
            file.write(wheel := _wheel(wheels, _name(one)), f"wheels/{wheel.name}")
        for name in packaged.PACKAGED:
            folder = packaged.cached_folder(name)
            say(f"{name}: {'packed' if folder else 'not here, so not packed; `mi models --fetch` gets it'}")
            for path in sorted(folder.rglob("*")) if folder else ():
                file.write(path, f"models/{name}/{path.relative_to(folder).as_posix()}")
    return archive


def needed(wheels: Path, system: str, python: str) -> list[str]:
    """Requirements, pinned where the course pins them, of the course and of all that it brings on such a machine."""
    conditions = dict(zip(KEYS, SYSTEMS[system][0], strict=True))
    environment = default_environment() | conditions | {"python_version": python, "python_full_version": f"{python}.0"}
    project = tomllib.loads((paths.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    waiting = list(map(Requirement, [*BUILD, *project["dependencies"], *project["optional-dependencies"]["test"]]))
    seen: set[tuple[str, str]] = set()
    while waiting:
        requirement = waiting.pop()
        name = canonicalize_name(requirement.name)
        for extra in {(name, extra) for extra in ("", *requirement.extras)} - seen:
            seen.add(extra)
            waiting += [
                child
                for child in requires(name, wheels)
                if not child.marker or child.marker.evaluate({**environment, "extra": extra[1]})
            ]
    constraints = (paths.ROOT / "constraints.txt").read_text(encoding="utf-8")
    pins = {canonicalize_name(name): line for line in constraints.splitlines() if (name := line.split("==")[0]) != line}
    return sorted({pins.get(name, name) for name, _ in seen})


def requires(name: str, wheels: Path) -> list[Requirement]:
    """What a package asks for: by its wheel, or as it is installed here; nothing is known of one that is neither."""
    wheel = _wheel(wheels, name)
    if wheel:
        with zipfile.ZipFile(wheel) as file:
            (said,) = (one for one in file.namelist() if re.fullmatch(r"[^/]+\.dist-info/METADATA", one))
            return [*map(Requirement, email.message_from_bytes(file.read(said)).get_all("Requires-Dist", []))]
    return _installed(name)


@cache
def _installed(name: str) -> list[Requirement]:
    try:
        return [*map(Requirement, metadata.requires(name) or [])]
    except metadata.PackageNotFoundError:
        return []


def _name(requirement: str) -> str:
    return canonicalize_name(requirement.split("==")[0])


def _wheel(wheels: Path, name: str) -> Path | None:
    return next((path for path in wheels.glob("*.whl") if parse_wheel_filename(path.name)[0] == name), None)


def download(requirements: list[str], wheels: Path, system: str, python: str) -> None:
    """Let pip download wheels; of a package that has none it builds one, which has to fit every system.

    Raises:
        CourseError: If pip can't, with what it said.
    """
    tags = [f"--platform={tag}" for tag in SYSTEMS[system][1]]
    into = [f"--dest={wheels}", f"--find-links={wheels}", f"--python-version={python}", "--only-binary=:all:", *tags]
    while True:
        outcome = _pip("download", "--no-deps", *into, *requirements)
        if outcome.returncode == 0:
            return
        without = re.search(r"No matching distribution found for (\S+)", outcome.stderr)
        before = set(wheels.glob("*.whl"))
        if without and _pip("wheel", "--no-deps", f"--wheel-dir={wheels}", without[1]).returncode == 0:
            made = set(wheels.glob("*.whl")) - before
            if made and all(path.name.endswith("-none-any.whl") for path in made):
                continue
            for path in made:
                path.unlink()
        raise CourseError(f"pip can't get all packages for {system}.\n{outcome.stderr.strip()[-500:]}")


def _pip(*arguments: str) -> subprocess.CompletedProcess:
    return subprocess.run([sys.executable, "-m", "pip", *arguments], capture_output=True, text=True)


def course_files() -> list[str]:
    """The files that belong to the course; a learner's own, and what is built, do not."""
    outcome = subprocess.run(["git", "ls-files", "-z"], cwd=paths.ROOT, capture_output=True, text=True)
    if outcome.returncode:
        raise CourseError(f"{paths.ROOT} is no clone, so git can't tell the course's files from yours: use a clone.")
    return [name for name in outcome.stdout.split("\0") if name and (paths.ROOT / name).is_file()]
