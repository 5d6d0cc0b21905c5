"""The mini course of ``tests/tooling`` with its workers, started once for all tests of grading."""

import sys
from pathlib import Path

import nbformat
import pytest

from utils.course import manifest, paths, runner
from utils.course.catalogue import chapter_catalogue
from utils.course.manifest import find_parts
from utils.course.paths import load_file
from utils.grading.grader import Cell, Unprotected, Zygote
from utils.grading.submission import grade_part

tooling = load_file(Path(__file__).parents[1] / "tooling" / "conftest.py")
course_environment, built_mini = tooling.course_environment, tooling.built_mini
submissions = load_file(Path(__file__).parents[1] / "tooling" / "submissions.py")


@pytest.fixture(scope="session")
def zygote_of():
    """Starts workers that are shut in, or leaves the test out where the kernel does not allow that."""
    started = []

    def start(chapter="01_mini", modules=(), **more):
        zygote = Zygote(chapter, tuple(modules), **more)
        started.append(zygote)
        try:
            zygote.wait()
        except Unprotected as error:
            pytest.skip(f"left out: {error}")
        return zygote

    yield start
    for zygote in started:
        zygote.close()


@pytest.fixture(scope="module")
def mini(built_mini):
    """This process's machinery, pointed at the mini course."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(built_mini))
        for name in ("chapters", "work", "solutions", "tests"):
            patch.setattr(paths, name.upper(), built_mini / name)
        patch.setattr(paths, "ROOT", built_mini)
        patch.setattr(paths, "MANIFEST", built_mini / "chapters" / "manifest.json")
        tooling.forget_the_course()
        yield built_mini
        tooling.forget_the_course()


@pytest.fixture(scope="module")
def mini_zygote(mini, zygote_of):
    return zygote_of()


@pytest.fixture(scope="module")
def graded(mini, mini_zygote):
    """Verdicts, by exercise, on a notebook of the mini course with these cells."""
    (part,) = find_parts("01_mini")

    def grade(*sources, seed=0, time_limit=20, total_limit=60, **answers):
        setup = "import torch\nfrom torch import nn\nfrom utils.course import check, hint, reference, start"
        cells = [Cell("the set-up cell [0]", setup, setup=True)]
        cells += [Cell(f"cell [{i}]", source) for i, source in enumerate(sources, 1)]
        cells += [Cell(f"{name} [{name}]", source, name) for name, source in answers.items()]
        found = grade_part(part, cells, lambda: mini_zygote.spawn(0), seed, time_limit, total_limit)
        return {verdict.name: verdict for verdict in found}

    return grade


__all__ = ["built_mini", "chapter_catalogue", "course_environment", "manifest", "nbformat", "runner", "sys"]
