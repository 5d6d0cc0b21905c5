"""Every answer that the course knows, through the boundary between grader and worker: the same verdict as without.

Here the worker sees the whole course, tests and all: what is tried is the encoding, not the walls.
"""

import functools
import re
import secrets

import nbformat
import pytest

from utils.course import paths
from utils.course.catalogue import chapter_catalogue
from utils.course.manifest import chapters, find_chapter, parts
from utils.course.runner import run_checks
from utils.grading.batch import modules
from utils.grading.grader import Session
from utils.grading.submission import cells_to_run, grade_part

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def session(zygote_of):
    loaded = {module for chapter in chapters() for module in modules(chapter)}
    zygote = zygote_of("", loaded, walls=None, view=paths.ROOT)
    opened = Session([], lambda: zygote.spawn(0), [], 60, 1e6)
    yield opened
    opened.close()


def entries():
    """All of them; of a case, whose designs take up to half a minute each, one wrong one and one right one."""
    seen = set()
    for chapter in chapters():
        cases = {exercise.name for exercise in chapter.exercises if exercise.case}
        for entry in chapter_catalogue(chapter.name):
            kind = (entry.exercise, entry.sentence is None)
            if entry.exercise in cases and kind in seen:
                continue
            seen.add(kind)
            yield pytest.param(chapter.name, entry, id=f"{chapter.number}-{entry.exercise}-{entry.name}")


@pytest.mark.parametrize(("chapter", "entry"), list(entries()))
def test_answers_of_the_catalogue(session, chapter, entry):
    """Wrong ones are rejected, right ones accepted."""
    exercise = next(e for e in find_chapter(chapter).exercises if e.name == entry.exercise)
    (file,) = [
        path
        for path in paths.tests_folder(chapter).glob("answers_*.py")
        if re.search(rf"^(def|class) {entry.name}\b", path.read_text(), flags=re.MULTILINE)
        and f'("{entry.exercise}"' in path.read_text()
    ]
    source = f"""
from pathlib import Path
from utils.course.paths import load_file
{entry.exercise} = load_file(Path({str(file)!r})).{entry.name}"""
    seed = secrets.randbelow(2**31)
    error, _ = session.ready().ask("cell", label="answer", source=source)
    assert error is None
    answer = session.answer(exercise, seed)
    assert not isinstance(answer, str), answer
    report = run_checks(exercise, answer, seed=seed, diagnose=False, time_limit=60)
    wanted = "passed" if entry.sentence is None else "failed"
    assert report.status == wanted, (seed, [f"{f.check}: {f.kind}: {f.note} {f.trace}" for f in report.failures])


@pytest.mark.parametrize("part", [pytest.param(part, id=part.key) for part in parts()])
def test_our_own_solution_gets_full_marks_behind_the_walls(part, walled):
    zygote = walled(part.chapter)
    solution, released = (
        nbformat.read(path(part.chapter, part.name), as_version=4).cells
        for path in (paths.solution_path, paths.release_path)
    )
    cells = cells_to_run(part, solution, released)
    found = grade_part(part, cells, lambda: zygote.spawn(0), secrets.randbelow(2**31), 60, 600)
    assert [v.text for v in found if v.status != "passed"] == []


@pytest.fixture(scope="module")
def walled(zygote_of):
    return functools.cache(lambda chapter: zygote_of(chapter, modules(find_chapter(chapter))))
