"""The course as a submission sees it: all that a notebook needs, and of the exercises the signatures alone."""

import ast
import importlib.util
import json
import shutil
from collections import defaultdict
from functools import cache
from pathlib import Path

import utils
from utils.course import manifest, paths
from utils.course.manifest import Exercise

LEFT_OUT = ("__pycache__", "*.pyc", "grading", "build.py", "masters.py", "autograding.py", "work.py", "templates")
WHY = "is an exercise, and not available before yours is graded"


def make_view(folder: Path, chapter: str) -> Path:
    """Write the course's code into a folder: no bodies of a chapter's exercises, no hints, no tests, no solutions."""
    source = Path(utils.__file__).parent
    shutil.copytree(source, folder / "utils", ignore=shutil.ignore_patterns(*LEFT_OUT), dirs_exist_ok=True)
    grading = folder / "utils" / "grading"
    grading.mkdir()
    for name in ("__init__", "peer", "worker"):
        shutil.copy(source / "grading" / f"{name}.py", grading)
    shutil.copytree(source / "grading" / "encoding", grading / "encoding", ignore=shutil.ignore_patterns(*LEFT_OUT))
    names = defaultdict(set)
    for exercise in manifest.exercises().values():
        names[exercise.module] |= {exercise.name} if exercise.chapter == chapter else set()
    for module, hidden in names.items():
        origin = Path(importlib.util.find_spec(module).origin)
        target = folder.joinpath(*module.split(".")).with_suffix(".py")
        target.write_text(without_bodies(origin.read_text(encoding="utf-8"), hidden), encoding="utf-8")
    stripped = json.loads(paths.MANIFEST.read_text(encoding="utf-8"))
    for chapter in stripped:
        for part in chapter["parts"]:
            for exercise in part["exercises"]:
                exercise["hints"] = []
    (folder / "chapters").mkdir(exist_ok=True)
    (folder / "chapters" / "manifest.json").write_text(json.dumps(stripped), encoding="utf-8")
    return folder


def without_bodies(source: str, names: set[str]) -> str:
    """A module's text in which these functions, and the methods of these classes, do nothing but say why."""
    lines = source.splitlines()
    cuts = []
    for node in ast.parse(source).body:
        if getattr(node, "name", None) not in names:
            continue
        parts = [node] if not isinstance(node, ast.ClassDef) else node.body
        for part in parts:
            if isinstance(part, ast.FunctionDef):
                body = part.body[1:] if ast.get_docstring(part) is not None else part.body
                if body:
                    cuts.append((body[0].lineno, body[-1].end_lineno, body[0].col_offset, node.name))
                else:  # nothing but a docstring
                    continue
    for first, last, indent, name in sorted(cuts, reverse=True):
        lines[first - 1 : last] = [f"{' ' * indent}raise NotImplementedError({f'{name} {WHY}'!r})"]
    return "\n".join(lines) + "\n"


@cache
def source_of(exercise: Exercise) -> str:
    """The text of an exercise's reference, decorators and all, as it is revealed."""
    text = Path(importlib.util.find_spec(exercise.module).origin).read_text(encoding="utf-8")
    for node in ast.parse(text).body:
        if getattr(node, "name", None) == exercise.name:
            first = min([node.lineno, *(d.lineno for d in node.decorator_list)])
            return "\n".join(text.splitlines()[first - 1 : node.end_lineno]) + "\n"
    raise LookupError(f"{exercise.module} does not define {exercise.name}.")
