"""Reads a master (MyST Markdown) and turns it into the instructor's notebook, reference bodies put in.

A master's code cell with ``exercise`` in its metadata becomes three cells: a box with the exercise's facts, the
solution (nbgrader's markers around what the learner writes) and the check. A markdown cell with ``question`` becomes a
cell that is graded by hand.
"""

import ast
import importlib
import inspect
import re
import textwrap
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import jupytext
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from utils.course.manifest import Chapter, CourseError, Exercise

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
EXERCISE_KEYS = {"exercise", "points", "difficulty", "importance", "minutes", "hints"}
OPTIONAL_KEYS = {"may_change_inputs"}
QUESTION_KEYS = {"question", "points", "minutes"}


class MasterError(CourseError):
    """Something in a master is wrong; the message names the file and the line."""


@dataclass(frozen=True)
class Built:
    """What a master gives: the chapter's entry in the manifest, and the notebook, not yet executed."""

    chapter: Chapter
    notebook: NotebookNode


class Master:
    """One master file, and what its cells are turned into."""

    def __init__(self, path: Path):
        self.path = path
        self.chapter = path.stem
        self.text = path.read_text(encoding="utf-8")
        try:
            self.notebook = jupytext.reads(self.text, fmt="md:myst")
        except Exception as error:  # jupytext's own errors carry the line, but not the file
            raise MasterError(f"{path}: not a readable MyST notebook. {error}") from error
        self.exercises: list[Exercise] = []

    def build(self) -> Built:
        """Check the metadata and put the reference bodies in."""
        cells = [new for cell in self.notebook.cells for new in self._convert(cell)]
        _name_cells(cells)
        title = re.search(r"^# (.+)$", self.text, re.MULTILINE)
        if not title:
            raise MasterError(f"{self.path}: has no title (a line that begins with '# ').")
        metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
        chapter = Chapter(self.chapter, title[1].strip(), tuple(self.exercises))
        return Built(chapter, new_notebook(cells=cells, metadata=metadata))

    def _convert(self, cell: NotebookNode) -> Iterator[NotebookNode]:
        if "exercise" in cell.metadata:
            exercise = self._exercise(cell)
            self.exercises.append(exercise)
            yield new_markdown_cell(box(exercise), metadata={"editable": False, "deletable": False})
            yield new_code_cell(
                self._solution(exercise), metadata={"nbgrader": _nbgrader(exercise.name, solution=True)}
            )
            yield new_code_cell(
                f"check({exercise.name})",
                metadata={"nbgrader": _nbgrader(f"check_{exercise.name}", points=exercise.points, grade=True)},
            )
        elif "question" in cell.metadata:
            self._require(cell, cell.metadata["question"], QUESTION_KEYS, set())
            name, points, minutes = (cell.metadata[key] for key in ("question", "points", "minutes"))
            yield new_markdown_cell(
                f"**Question · {_count(points, 'point')} · about {_count(minutes, 'minute')}**, graded by hand."
            )
            yield new_markdown_cell(
                cell.source, metadata={"nbgrader": _nbgrader(name, points=points, grade=True, solution=True)}
            )
        elif cell.cell_type == "markdown":
            yield from map(new_markdown_cell, _sections(cell.source))
        else:
            tags = {"tags": list(cell.metadata.tags)} if "tags" in cell.metadata else {}
            yield new_code_cell(cell.source, metadata=tags)

    def _exercise(self, cell: NotebookNode) -> Exercise:
        path = cell.metadata["exercise"]
        self._require(cell, path, EXERCISE_KEYS, OPTIONAL_KEYS)
        module, _, name = path.rpartition(".")
        if cell.source.strip():
            raise MasterError(
                f"{self._at(path)}: the cell of {name} should be empty; the build puts the reference there."
            )
        values = dict(cell.metadata)
        for key, low, high in (("points", 1, 20), ("difficulty", 1, 5), ("importance", 1, 5), ("minutes", 1, 120)):
            if type(values[key]) is not int or not low <= values[key] <= high:
                wanted = f"a whole number from {low} to {high}"
                raise MasterError(f"{self._at(path)}: {key} of {name} should be {wanted}, not {values[key]!r}.")
        hints = values["hints"]
        if not isinstance(hints, list) or len(hints) < 2 or not all(isinstance(h, str) and h.strip() for h in hints):
            raise MasterError(f"{self._at(path)}: hints of {name} should be a list of at least two texts.")
        if name in {e.name for e in self.exercises}:
            raise MasterError(f"{self._at(path)}: {name} is an exercise of this chapter already.")
        number = f"{int(self.chapter[:2])}.{len(self.exercises) + 1}"
        return Exercise(
            name,
            module,
            self.chapter,
            number,
            values["points"],
            values["difficulty"],
            values["importance"],
            values["minutes"],
            tuple(hints),
            bool(values.get("may_change_inputs", False)),
        )

    def _require(self, cell: NotebookNode, path: str, keys: set[str], optional: set[str]) -> None:
        missing, unknown = keys - set(cell.metadata), set(cell.metadata) - keys - optional
        if missing or unknown:
            parts = [
                f"{what} {', '.join(sorted(names))}"
                for what, names in (("missing", missing), ("unknown", unknown))
                if names
            ]
            raise MasterError(f"{self._at(path)}: metadata of {path}: {'; '.join(parts)}.")

    def _solution(self, exercise: Exercise) -> str:
        path = f"{exercise.module}.{exercise.name}"
        try:
            module = importlib.import_module(exercise.module)
        except ModuleNotFoundError as error:
            raise MasterError(f"{self._at(path)}: there is no module {error.name} for the exercise {path}.") from error
        if not hasattr(module, exercise.name):
            raise MasterError(f"{self._at(path)}: {exercise.module} has no function or class called {exercise.name}.")
        return solution_source(module, exercise.name)

    def _at(self, text: str) -> str:
        """file:line of the first line that holds ``text`` as a metadata value."""
        pattern = re.compile(rf"(exercise:\s*|\"question\":\s*\"){re.escape(text)}\b")
        line = next((i for i, line in enumerate(self.text.splitlines(), 1) if pattern.search(line)), 1)
        return f"{self.path}:{line}"


def box(exercise: Exercise) -> str:
    """The facts of an exercise, above its cell."""

    def dots(n: int) -> str:
        return "●" * n + "○" * (5 - n) + f" {n}/5"

    return (
        f"> **Exercise {exercise.number} · `{exercise.name}`** · {_count(exercise.points, 'point')} · "
        f"about {_count(exercise.minutes, 'minute')}  \n"
        f"> difficulty {dots(exercise.difficulty)} · importance {dots(exercise.importance)} · "
        f'{len(exercise.hints)} hints: `hint("{exercise.name}")`'
    )


def _sections(text: str) -> list[str]:
    """Prose, divided where a heading begins, so that a notebook's outline and its folding work."""
    parts, fenced = [[]], False
    for line in text.splitlines():
        fenced ^= line.startswith(("```", "~~~"))
        if re.match(r"#+ ", line) and not fenced:
            parts.append([])
        parts[-1].append(line)
    return [part for lines in parts if (part := "\n".join(lines).strip("\n"))]


def _count(n: int, noun: str) -> str:
    return f"{n} {noun}" + ("" if n == 1 else "s")


def _nbgrader(grade_id: str, points: int | None = None, grade: bool = False, solution: bool = False) -> dict[str, Any]:
    found = {
        "grade": grade,
        "grade_id": grade_id,
        "locked": grade and not solution,
        "schema_version": 3,
        "solution": solution,
        "task": False,
    }
    return found | ({"points": points} if points is not None else {})


def solution_source(module: ModuleType, name: str) -> str:
    """Source of a reference with nbgrader's markers around the parts that the learner writes."""
    source = textwrap.dedent(inspect.getsource(getattr(module, name)))
    lines, node = source.splitlines(), ast.parse(source).body[0]
    functions = (
        [node] if isinstance(node, ast.FunctionDef) else [n for n in node.body if isinstance(n, ast.FunctionDef)]
    )
    inserts: list[tuple[int, str]] = []
    for function in functions:
        inserts += _markers(function, lines)
    for index, line in sorted(inserts, reverse=True):
        lines.insert(index, line)
    return "\n".join(lines)


def _markers(function: ast.FunctionDef, lines: list[str]) -> list[tuple[int, str]]:
    """Where (before which line) the markers of one function go.

    Without comments ``# Given:`` and ``# Yours:`` at the body's indentation, the whole body is the learner's.
    """
    has_docstring = ast.get_docstring(function) is not None
    statements = function.body[1:] if has_docstring else function.body
    if not statements:
        return []
    first = function.body[0].end_lineno if has_docstring else statements[0].lineno - 1
    while not has_docstring and lines[first - 1].lstrip().startswith("#"):
        first -= 1  # comments above the first statement belong to the body
    last = function.end_lineno
    indent = " " * function.body[0].col_offset
    divisions = [
        (i, lines[i].strip()[:8]) for i in range(first, last) if re.match(rf"{indent}# (Given|Yours):", lines[i])
    ]
    parts = [(first, "# Yours:"), *divisions] if not divisions or divisions[0][0] > first else divisions
    found = []
    for (start, kind), (end, _) in zip(parts, [*parts[1:], (last, "")], strict=True):
        if kind == "# Yours:":
            start += (start, kind) in divisions  # the comment itself stays visible
            while end > start and not lines[end - 1].strip():
                end -= 1
            found += [(start, indent + BEGIN), (end, indent + END)]
    return found


def _name_cells(cells: list[NotebookNode]) -> None:
    """Ids from the content's place (section and count within it), so that a rebuild gives the same ones."""
    section, counts = "start", Counter()
    for cell in cells:
        heading = re.match(r"#+ (.+)", cell.source) if cell.cell_type == "markdown" else None
        if heading:
            section = re.sub(r"[^a-z0-9]+", "-", heading[1].lower()).strip("-")[:48] or "section"
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        base = re.sub(r"[^A-Za-z0-9_-]", "-", name)[:60] if name else section
        counts[base] += 1
        cell.id = base if name else f"{base}-{counts[base]}"
