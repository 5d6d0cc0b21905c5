"""The image for grading, as far as it can be tried without Docker: what is copied, installed and found in it."""

import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from utils.course.manifest import CourseError
from utils.grading import grader
from utils.grading.grader import Unprotected, Zygote

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docs" / "docker"


def instructions(word):
    return re.findall(rf"^{word} (.*)$", (FOLDER / "Dockerfile").read_text(), flags=re.MULTILINE)


@pytest.fixture
def copied(tmp_path):
    """A folder with what the image gets of the course."""
    (line,) = instructions("COPY")
    *sources, target = line.split()
    assert target == "./"
    for source in sources:
        shutil.copy(ROOT / source, tmp_path)
    return tmp_path


def test_what_is_copied_is_sent_and_nothing_else_is(copied):
    lines = (FOLDER / "Dockerfile.dockerignore").read_text().splitlines()
    assert lines[1] == "*"
    assert sorted(line.removeprefix("!") for line in lines[2:]) == sorted(path.name for path in copied.iterdir())


def test_what_is_copied_can_be_installed_and_brings_the_command(copied, tmp_path):
    installed = next(line for line in instructions("RUN") if line.startswith("pip install"))
    assert "--constraint constraints.txt" in installed and installed.endswith('".[cluster]"')
    wheels = tmp_path / "wheels"
    command = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir", wheels, copied]
    subprocess.run([sys.executable, *map(str, command)], check=True, capture_output=True)
    (wheel,) = wheels.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        text = {name: archive.read(name).decode() for name in names if ".dist-info/" in name}
    assert "mechinterp_course.py" in names and not any(name.startswith("utils") for name in names)
    assert "mi = mechinterp_course:main" in next(t for name, t in text.items() if name.endswith("entry_points.txt"))
    metadata = next(t for name, t in text.items() if name.endswith("METADATA"))
    assert {"torch", "nbgrader"} <= set(re.findall(r"^Requires-Dist: (\w+)", metadata, flags=re.MULTILINE))
    assert re.search(r'^Requires-Dist: distributed; extra == "cluster"', metadata, flags=re.MULTILINE)


def test_the_command_finds_the_mounted_course_by_its_pth_file(copied, tmp_path):
    line = next(line for line in instructions("RUN") if "course.pth" in line)
    program = re.fullmatch(r'python -c "(.*)"', line)[1].replace("site.getsitepackages()[0]", repr(str(tmp_path)))
    exec(program.replace("'/course\\n'", repr(f"{ROOT}\n")))
    assert (tmp_path / "course.pth").read_text() == f"{ROOT}\n"
    start = f"import site, sys; site.addsitedir({str(tmp_path)!r}); sys.argv = ['mi', 'grade', '--help']\n"
    start += "import mechinterp_course; mechinterp_course.main()"
    done = subprocess.run([sys.executable, "-I", "-c", start], cwd=tmp_path, text=True, capture_output=True)
    assert done.returncode == 0 and "--scheduler" in done.stdout, done.stderr


@pytest.mark.parametrize("inside", [True, False])
def test_in_a_container_it_says_where_a_missing_protection_may_be_found(mini, monkeypatch, tmp_path, inside):
    (tmp_path / ".dockerenv").touch()
    monkeypatch.setattr(grader, "CONTAINER_MARKS", (tmp_path / (".dockerenv" if inside else "none"),))
    monkeypatch.setattr(grader, "HERE", tmp_path)
    says = "s = socket.socket(fileno=os.dup(0))\ns.send(json.dumps({'missing': 'walls'}).encode())"
    (tmp_path / "zygote.py").write_text(f"import json, os, socket\n{says}")
    zygote = Zygote("01_mini")
    with pytest.raises(Unprotected) as error:
        zygote.wait()
    zygote.close()
    assert ("docs/docker/Dockerfile" in str(error.value)) == inside
    assert isinstance(error.value, CourseError)
