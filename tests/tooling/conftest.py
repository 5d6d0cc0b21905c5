"""A small course of its own, in a temporary folder, for tests of the machinery."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utils.course import catalogue, manifest, paths, runner

HERE = Path(__file__).parent
collect_ignore = ["mini_course"]


@pytest.fixture
def mini(tmp_path, monkeypatch):
    """The mini course's folder, not yet built, with the machinery of this process pointed at it."""
    root = copy_mini_course(tmp_path / "course")
    monkeypatch.syspath_prepend(str(root))
    for name in ("chapters", "work", "solutions", "tests"):
        monkeypatch.setattr(paths, name.upper(), root / name)
    monkeypatch.setattr(paths, "ROOT", root)
    monkeypatch.setattr(paths, "MANIFEST", root / "chapters" / "manifest.json")
    monkeypatch.setattr(paths, "STATE", root / ".mi")
    forget_the_course()
    yield root
    forget_the_course()


def copy_mini_course(root: Path) -> Path:
    shutil.copytree(HERE / "mini_course", root, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(HERE.parents[1] / "nbgrader_config.py", root)
    return root


def forget_the_course() -> None:
    for cached in (manifest.chapters, catalogue.chapter_catalogue, runner.check_class, runner.references_beside):
        cached.cache_clear()
    for name in [n for n in sys.modules if re.match(r"course_file\.0[12]_|mini_references$", n)]:
        del sys.modules[name]


@pytest.fixture(scope="session")
def course_environment():
    """Environment of a subprocess that works on another course folder than this repository."""

    def environment(root: Path) -> dict[str, str]:
        python_path = os.pathsep.join([str(root), str(HERE.parents[1])])
        return os.environ | {"MI_ROOT": str(root), "MI_STATE": str(root / ".mi"), "PYTHONPATH": python_path}

    return environment


@pytest.fixture(scope="session")
def built_mini(tmp_path_factory, course_environment):
    """The mini course, built once by ``mi build`` in a process of its own. Tests copy it before they change it."""
    root = copy_mini_course(tmp_path_factory.mktemp("built") / "course")
    subprocess.run(
        [sys.executable, "-m", "utils.course.cli", "build"], cwd=root, env=course_environment(root), check=True
    )
    return root
