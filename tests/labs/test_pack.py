"""`mi pack`: what each machine needs, what is in the archive, and that it installs where there is no network."""

import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
from types import SimpleNamespace

import pytest

from utils.course import pack, paths
from utils.course.cli import main
from utils.course.manifest import CourseError

INSTALL = paths.ROOT / "docs" / "pack" / "install.py"
NO_NETWORK = shutil.which("unshare") and subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0

# Nothing but the machine itself is in reach, and that has to be switched on: a kernel listens at 127.0.0.1.
OWN_NETWORK = """
import fcntl, os, socket, struct, sys
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sH14x", b"lo", 1))  # SIOCSIFFLAGS, IFF_UP
os.execv(sys.argv[1], sys.argv[1:])
"""


def wheel(folder, name, number="1.0", tags="py3-none-any", requires=()):
    path = folder / f"{name}-{number}-{tags}.whl"
    with zipfile.ZipFile(path, "w") as file:
        lines = ["Metadata-Version: 2.1", f"Name: {name}", *(f"Requires-Dist: {one}" for one in requires)]
        file.writestr(f"{name}-{number}.dist-info/METADATA", "\n".join(lines))
    return path


def names(requirements):
    return {one.split("==")[0] for one in requirements}


def test_each_system_gets_what_its_packages_ask_for_there(tmp_path):
    found = {system: names(pack.needed(tmp_path, system, "3.12")) for system in pack.SYSTEMS}
    assert {"pywinpty", "colorama"} <= found["windows"] and "appnope" in found["macos"]
    assert not found["linux"] & {"pywinpty", "colorama", "appnope"}
    for one in found.values():
        assert {"torch", "jupyterlab", "setuptools", "nbgrader", "ruff"} <= one


def test_what_the_course_pins_is_pinned(tmp_path):
    constraints = (paths.ROOT / "constraints.txt").read_text().splitlines()
    pinned = [one for one in pack.needed(tmp_path, "linux", "3.11") if "==" in one]
    assert len(pinned) > 200 and set(pinned) <= set(constraints)


def test_a_wheel_that_is_there_says_itself_what_it_needs(tmp_path):
    conditions = [
        'cuda-lib>=2 ; sys_platform == "linux"',
        "extra-thing ; extra == 'more'",
        'old ; python_version < "3.12"',
    ]
    wheel(tmp_path, "torch", "2.13.0", requires=conditions)
    assert {"cuda-lib", "old"} <= names(pack.needed(tmp_path, "linux", "3.11"))
    later = names(pack.needed(tmp_path, "windows", "3.12"))
    assert not later & {"cuda-lib", "old", "extra-thing"}


@pytest.fixture
def pip(monkeypatch, tmp_path):
    """A pip that has wheels of some packages, and can build others with these tags."""
    calls = []

    def run(*arguments, there=("numpy",), builds=None):
        calls.append(arguments)
        if arguments[0] == "wheel":
            name = arguments[-1].split("==")[0]
            wheel(tmp_path, name, tags=builds[name])
            return SimpleNamespace(returncode=0, stderr="")
        asked = [one.split("==")[0] for one in arguments if not one.startswith("-")][1:]
        for name in asked:
            if name not in there and not pack._wheel(tmp_path, name):
                return SimpleNamespace(returncode=1, stderr=f"ERROR: No matching distribution found for {name}==1.0")
        return SimpleNamespace(returncode=0, stderr="")

    def with_(**more):
        monkeypatch.setattr(pack, "_pip", lambda *arguments: run(*arguments, **more))
        return calls

    return with_


def test_of_a_package_without_wheels_one_is_built(pip, tmp_path):
    calls = pip(builds={"lime": "py3-none-any"})
    pack.download(["numpy==1.0", "lime==1.0"], tmp_path, "windows", "3.12")
    assert [call[0] for call in calls] == ["download", "wheel", "download"]
    assert "--platform=win_amd64" in calls[0] and "--python-version=3.12" in calls[0]
    assert "lime==1.0" in calls[1]


def test_one_that_fits_this_machine_alone_is_refused_and_taken_away(pip, tmp_path):
    pip(builds={"lime": "cp311-cp311-linux_x86_64"})
    with pytest.raises(CourseError, match="can't get all packages for windows.\nERROR: No matching distribution"):
        pack.download(["lime==1.0"], tmp_path, "windows", "3.12")
    assert not list(tmp_path.glob("*.whl"))


def test_the_archive_holds_the_course_its_packages_and_the_models(monkeypatch, tmp_path, capsys):
    model = tmp_path / "cache" / "smollm2-135m"
    model.mkdir(parents=True)
    (model / "weights").write_text("numbers")
    monkeypatch.setattr(pack.packaged, "cached_folder", lambda name: model if name == model.name else None)
    monkeypatch.setattr(pack, "needed", lambda *arguments: ["lime==1.0"])
    monkeypatch.setattr(pack, "download", lambda missing, wheels, *rest: wheel(wheels, "lime"))
    monkeypatch.setattr(pack, "course_files", lambda: ["bootstrap.py", "utils/__init__.py"])
    for name in ("bootstrap.py", "utils/__init__.py", "docs/pack/install.py"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(paths.ROOT / name, tmp_path / name)
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    assert main(["pack", "--system", "macos", "--python", "3.13"]) == 0
    said = capsys.readouterr().out
    assert "downloading wheels for macos, Python 3.13: 1" in said and "efficientnet-lite0: not here" in said
    with zipfile.ZipFile(tmp_path / "build" / "mechinterp-course-macos-py3.13.zip") as archive:
        assert sorted(archive.namelist()) == [
            "course/bootstrap.py",
            "course/utils/__init__.py",
            "install.py",
            "models/smollm2-135m/weights",
            "pack.json",
            "wheels/lime-1.0-py3-none-any.whl",
        ]
        assert json.loads(archive.read("pack.json")) == {"system": "macos", "python": "3.13"}


def test_the_course_s_files_are_those_that_git_knows(monkeypatch, tmp_path):
    files = pack.course_files()
    assert {"bootstrap.py", "constraints.txt", "chapters/manifest.json"} <= set(files)
    assert not [name for name in files if name.startswith((".venv/", "work/", "build/", "submitted/"))]
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    with pytest.raises(CourseError, match="is no clone"):
        pack.course_files()


def test_another_python_than_the_packed_one_is_told(tmp_path):
    shutil.copy(INSTALL, tmp_path)
    (tmp_path / "pack.json").write_text('{"system": "windows", "python": "2.7"}')
    outcome = subprocess.run([sys.executable, tmp_path / "install.py"], capture_output=True, text=True)
    assert outcome.returncode == 1 and "is for Python 2.7 on windows, and this is Python 3." in outcome.stdout


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.skipif(not NO_NETWORK, reason="a process can't be kept from the network here")
def test_an_archive_installs_in_an_empty_environment_without_a_network(tmp_path):
    """Takes ten minutes and 5 GB: everything is downloaded, packed, unpacked and installed."""
    archive = pack.pack("linux", ".".join(map(str, sys.version_info[:2])))
    room = tmp_path / "room"
    shutil.unpack_archive(archive, room)
    environment = {"HOME": str(tmp_path), "PATH": os.defpath}
    alone = ["unshare", "-rn", sys.executable, "-c", OWN_NETWORK]
    python = getattr(sys, "_base_executable", sys.executable)
    for command in ([python, "install.py"], ["course/.venv/bin/mi", "doctor"]):
        outcome = subprocess.run([*alone, *command], cwd=room, env=environment, capture_output=True, text=True)
        assert outcome.returncode == 0, outcome.stdout + outcome.stderr
    assert "This machine is ready." in outcome.stdout


class TestImage:
    """The image for a room, as far as it can be read without Docker."""

    folder = paths.ROOT / "docs" / "docker"

    def test_every_command_in_it_is_one_of_the_course_s(self, capsys):
        text = (self.folder / "room.Dockerfile").read_text()
        for command in re.findall(r"\bmi (\w+)", text):
            with pytest.raises(SystemExit, match="0"):
                main([command, "--help"])
        assert set(re.findall(r"--fetch ([\w-]+)", text)) == set(pack.packaged.PACKAGED)
        (first,) = re.findall(r"tree/work/([\w/]+\.ipynb)", text)
        assert (paths.CHAPTERS / first).exists()

    def test_what_is_a_person_s_own_is_not_sent(self):
        """Git and Docker are to leave out the same things, but for what Docker may have."""
        left_out = set((self.folder / "room.Dockerfile.dockerignore").read_text().splitlines()[1:])
        ignored = {line.strip("/") for line in (paths.ROOT / ".gitignore").read_text().splitlines()}
        own = {"work", "submitted", "autograded", "feedback", "exchange", "gradebook.db*", "grades.csv", ".mi", ".venv"}
        assert own <= ignored and own | {".git", "build"} <= left_out
