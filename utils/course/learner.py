"""Reads a learner's notebook and collects their answers without running its experiments."""

import ast
import linecache
from pathlib import Path
from typing import Any

import nbformat

from utils.course.build import BuildError
from utils.course.containment import OUTPUT_LIMIT, BoundedText, Overtime, capture_output, limited_time
from utils.course.manifest import Chapter, Exercise
from utils.course.paths import learner_path
from utils.course.runner import TIME_LIMIT

DEFINITIONS = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)


def collect_answers(chapter: Chapter, path: Path | None = None) -> tuple[dict[str, Any], dict[str, str]]:
    """Define a notebook's answers.

    Runs the set-up cell, the exercise cells, and the learner's own cells that only import or define things; nothing
    else, so no experiment and no training.

    Args:
        chapter: Whose exercises to look for.
        path: The notebook; the chapter's own if not given.

    Returns:
        The namespace that the cells left, and the error of each exercise whose cell failed.

    Raises:
        BuildError: If the file is no notebook.
    """
    path = path or learner_path(chapter.name)
    try:
        cells = nbformat.read(path, as_version=4).cells
    except FileNotFoundError as error:
        raise BuildError(f"There is no notebook {path}.") from error
    except Exception as error:  # nbformat raises many kinds for a damaged file
        raise BuildError(f"{path} can't be read as a notebook: {error}") from error
    names = {e.name for e in chapter.exercises}
    namespace: dict[str, Any] = {"__name__": "__main__"}
    failed: dict[str, str] = {}
    for cell in cells:
        exercise = cell.metadata.get("nbgrader", {}).get("grade_id")
        if cell.cell_type == "code" and (
            exercise in names or "setup" in cell.metadata.get("tags", []) or _only_defines(cell)
        ):
            error = _run(cell.source, namespace, f"<{path.name}: {exercise or cell.id}>")
            if error and exercise in names:
                failed[exercise] = error
    return namespace, failed


def _only_defines(cell: nbformat.NotebookNode) -> bool:
    """Whether a cell that is not part of the release imports and defines, and does nothing else."""
    if "nbgrader" in cell.metadata:
        return False
    try:
        body = ast.parse(cell.source).body
    except SyntaxError:
        return False
    return bool(body) and all(isinstance(node, DEFINITIONS) for node in body)


def _run(source: str, namespace: dict[str, Any], filename: str) -> str | None:
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)  # for tracebacks
    try:
        with capture_output(BoundedText(OUTPUT_LIMIT)), limited_time(TIME_LIMIT):
            exec(compile(source, filename, "exec"), namespace)
    except Overtime:
        return f"still running after {TIME_LIMIT:.0f} seconds"
    except Exception as error:
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
