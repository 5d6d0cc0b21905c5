"""Reads a learner's notebook and collects their answers without running its experiments."""

import linecache
from pathlib import Path
from typing import Any

import nbformat
from nbformat import NotebookNode

from utils.course.build import BuildError
from utils.course.cells import defined_names, grade_id, only_defines, plain_python
from utils.course.containment import (
    OUTPUT_LIMIT,
    BoundedText,
    Interrupted,
    Overtime,
    capture_output,
    limited_time,
    noted_interrupts,
)
from utils.course.manifest import Exercise, Part, Question
from utils.course.paths import release_path, solution_path, work_path
from utils.course.runner import TIME_LIMIT

SETUP = "the set-up cell"


def learner_notebook(part: Part) -> Path:
    """The learner's own copy of a part, or the released notebook where there is none."""
    own = work_path(part.chapter, part.name)
    return own if own.exists() else release_path(part.chapter, part.name)


def read_cells(path: Path) -> list[NotebookNode]:
    """The cells of a notebook of any version 4.

    Raises:
        BuildError: If the file is no notebook.
    """
    try:
        return nbformat.read(path, as_version=4).cells
    except FileNotFoundError as error:
        raise BuildError(f"There is no notebook {path}.") from error
    except Exception as error:  # nbformat raises many kinds for a damaged file
        raise BuildError(f"{path} can't be read as a notebook: {error}") from error


def collect_answers(part: Part, path: Path | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Define a notebook's answers.

    Runs the set-up cell, the exercise cells, and the learner's own cells that only import, define things or name
    constants; nothing else, so no experiment and no training.

    Args:
        part: Whose exercises to look for.
        path: The notebook; the learner's copy of the part if not given.

    Returns:
        The namespace that the cells left, and the error of each exercise whose cell failed (and that of the set-up
        cell, under ``SETUP``).

    Raises:
        BuildError: If the file is no notebook.
    """
    path = path or learner_notebook(part)
    names = {e.name for e in part.exercises}
    namespace: dict[str, Any] = {"__name__": "__main__"}
    failed: dict[str, str] = {}
    for number, cell in enumerate(read_cells(path), 1):
        if cell.cell_type != "code":
            continue
        source, released = plain_python(cell.source), grade_id(cell)
        exercise = released if released in names else next(iter(defined_names(source) & names), None)
        setup = "setup" in cell.metadata.get("tags", [])
        if not (exercise or setup or (released is None and only_defines(source))):
            continue
        error = _run(source, namespace, f"<{path.name}: {exercise or (SETUP if setup else f'cell {number}')}>")
        if error and (exercise or setup):
            failed[exercise or SETUP] = error
    return namespace, failed


def _run(source: str, namespace: dict[str, Any], filename: str) -> str | None:
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)  # for tracebacks
    try:
        with capture_output(BoundedText(OUTPUT_LIMIT)), noted_interrupts(), limited_time(TIME_LIMIT):
            exec(compile(source, filename, "exec"), namespace)
    except Overtime:
        return f"still running after {TIME_LIMIT:.0f} seconds"
    except Interrupted:
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        return f"{type(error).__name__}: {error}"
    return None


def missing_answer(exercise: Exercise, failed: dict[str, str]) -> str:
    """Why an exercise has no answer in the namespace."""
    reason = (
        f"its cell failed: {failed[exercise.name]}"
        if exercise.name in failed
        else "its cell is missing or defines another name"
    )
    return f"✗ {exercise.name}: {reason}"


def answer_in_words(question: Question) -> str:
    """The model answer and the rubric of a question, as they stand in the solution notebook."""
    cells = read_cells(solution_path(question.chapter, question.part))
    return next(cell.source for cell in cells if grade_id(cell) == question.name)
