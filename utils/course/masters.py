"""Reads a master (MyST Markdown) and turns it into the instructor's notebook, reference bodies put in.

A master is one part of a chapter. Its header says how many minutes reading takes and what the core path is. A code cell
with ``exercise`` (or ``case``) in its metadata becomes three cells: a box with the exercise's facts, the solution
(nbgrader's markers around what the learner writes) and the check. A markdown cell with ``question`` becomes a cell that
is graded by hand. A code cell with ``folded`` arrives closed, with a line above it that says what it does.
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

from utils.course.cells import boxed
from utils.course.manifest import CourseError, Exercise, Part, Question

BEGIN, END = "### BEGIN SOLUTION", "### END SOLUTION"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
EXERCISE_KEYS = {"points", "difficulty", "importance", "minutes", "hints"}
OPTIONAL_KEYS = {"may_change_inputs"}
QUESTION_KEYS = {"question", "points", "minutes"}
PART_KEYS = {"reading", "core"}


class MasterError(CourseError):
    """Something in a master is wrong; the message names the file and the line."""


@dataclass(frozen=True)
class Built:
    """What a master gives: the part's entry in the manifest, its chapter's title, and the notebook, not executed."""

    part: Part
    chapter_title: str
    notebook: NotebookNode


class Master:
    """One master file, and what its cells are turned into."""

    def __init__(self, path: Path, exercises_before: int = 0):
        """``exercises_before`` counts the exercises of the chapter's earlier parts: numbers run through a chapter."""
        self.path = path
        self.part, self.chapter = path.stem, path.parent.name
        self.key = self.part.split("_")[0]
        self.exercises_before = exercises_before
        self.text = path.read_text(encoding="utf-8")
        try:
            self.notebook = jupytext.reads(self.text, fmt="md:myst")
        except Exception as error:  # jupytext's own errors carry the line, but not the file
            raise MasterError(f"{path}: not a readable MyST notebook. {error}") from error
        self.exercises: list[Exercise] = []
        self.questions: list[Question] = []

    def build(self) -> Built:
        """Check the metadata and put the reference bodies in."""
        cells = [new for cell in self.notebook.cells for new in self._convert(cell)]
        title = re.search(r"^# (.+)$", self.text, re.MULTILINE)
        if not title:
            raise MasterError(f"{self.path}: has no title (a line that begins with '# ').")
        part, chapter_title = self._part(title[1].strip())
        first_code = next((i for i, cell in enumerate(cells) if cell.cell_type == "code"), len(cells))
        cells.insert(first_code, new_markdown_cell(time_box(part)))
        _name_cells(cells)
        metadata = {"kernelspec": KERNEL, "language_info": {"name": "python"}}
        return Built(part, chapter_title, new_notebook(cells=cells, metadata=metadata))

    def _part(self, title: str) -> tuple[Part, str]:
        header = dict(self.notebook.metadata.get("part", {}))
        chapter_title = header.pop("chapter", title.partition(" · ")[2] or title)
        if set(header) != PART_KEYS:
            raise MasterError(f"{self.path}: its header needs `part:` with {' and '.join(sorted(PART_KEYS))}.")
        reading, core = header["reading"], tuple(header["core"])
        if type(reading) is not int or not 0 <= reading <= 120:
            raise MasterError(f"{self.path}: reading should be a whole number of minutes to 120, not {reading!r}.")
        unknown = set(core) - {item.name for item in (*self.exercises, *self.questions)}
        if unknown:
            raise MasterError(f"{self.path}: core names {', '.join(sorted(unknown))}, which this part does not have.")
        exercises, questions = tuple(self.exercises), tuple(self.questions)
        return Part(self.part, self.chapter, title, reading, core, exercises, questions), chapter_title

    def _convert(self, cell: NotebookNode) -> Iterator[NotebookNode]:
        kind = next((kind for kind in ("exercise", "case") if kind in cell.metadata), None)
        if kind:
            exercise = self._exercise(cell, kind)
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
            question = self._question(cell)
            self.questions.append(question)
            yield new_markdown_cell(question_box(question, f"{self.key}.{len(self.questions)}"))
            yield new_markdown_cell(
                cell.source,
                metadata={"nbgrader": _nbgrader(question.name, points=question.points, grade=True, solution=True)},
            )
        elif cell.cell_type == "markdown":
            yield from map(new_markdown_cell, _sections(cell.source))
        else:
            metadata = {"tags": list(cell.metadata.tags)} if "tags" in cell.metadata else {}
            if "folded" in cell.metadata:
                yield new_markdown_cell(f"*Folded: {cell.metadata.folded}. A click on the dots below opens the code.*")
                metadata["jupyter"] = {"source_hidden": True}
            yield new_code_cell(cell.source, metadata=metadata)

    def _question(self, cell: NotebookNode) -> Question:
        name = cell.metadata["question"]
        self._require(cell, name, QUESTION_KEYS, set())
        return Question(name, self.chapter, self.part, cell.metadata["points"], cell.metadata["minutes"])

    def _exercise(self, cell: NotebookNode, kind: str) -> Exercise:
        path = cell.metadata[kind]
        self._require(cell, path, EXERCISE_KEYS | {kind}, OPTIONAL_KEYS)
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
            raise MasterError(f"{self._at(path)}: {name} is an exercise of this part already.")
        cases = sum(e.case for e in self.exercises)
        counted = self.exercises_before + len(self.exercises) - cases + 1
        return Exercise(
            name,
            module,
            self.chapter,
            self.part,
            self.key + "abcd"[cases] * (cases > 0) if kind == "case" else f"{int(self.chapter[:2])}.{counted}",
            values["points"],
            values["difficulty"],
            values["importance"],
            values["minutes"],
            tuple(hints),
            bool(values.get("may_change_inputs", False)),
            kind == "case",
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
        pattern = re.compile(rf"((?:exercise|case):\s*|\"question\":\s*\"){re.escape(text)}\b")
        line = next((i for i, line in enumerate(self.text.splitlines(), 1) if pattern.search(line)), 1)
        return f"{self.path}:{line}"


def box(exercise: Exercise) -> str:
    """The facts of an exercise, above its cell; a heading, so that a notebook's table of contents lists it."""

    def dots(n: int) -> str:
        return "●" * n + "○" * (5 - n) + f" {n}/5"

    return (
        f"#### {exercise.label.capitalize()} · `{exercise.name}`\n\n"
        f"> {_count(exercise.points, 'point')} · about {_count(exercise.minutes, 'minute')} · "
        f"difficulty {dots(exercise.difficulty)} · importance {dots(exercise.importance)} · "
        f'{len(exercise.hints)} hints: `hint("{exercise.name}")`'
    )


def question_box(question: Question, number: str) -> str:
    """The facts of a question in words, above the cell for its answer."""
    return (
        f"#### Question {number} · `{question.name}`\n\n"
        f"> {_count(question.points, 'point')} · about {_count(question.minutes, 'minute')} · in your own words, "
        f"graded by hand. On your own: write first, then compare with `mi solution {question.name}` and its rubric."
    )


def time_box(part: Part) -> str:
    """How long a part takes and what its core path is, above its first code cell: sums, so that they are right."""
    exercises = [e for e in part.exercises if not e.case]
    cases = [e for e in part.exercises if e.case]
    spent = [f"{duration(part.reading)} for reading and experiments"]
    for noun, items in (("exercise", exercises), ("case", cases), ("question", part.questions)):
        if items:
            spent.append(f"{duration(sum(item.minutes for item in items))} for {_count(len(items), noun)}")
    lines = [f"**Time.** About {duration(part.minutes)}: {', '.join(spent)}."]
    core = [item for item in (*exercises, *cases, *part.questions) if item.name in part.core]
    if core:
        named = ", ".join(f"{'' if isinstance(e, Question) else e.label + ' '}`{e.name}`" for e in core)
        lines.append(
            f"**The core path**, with half the time (about {duration(part.core_minutes)}): {named}. Take what you "
            'leave out with `name = reference("name")`; nothing further on waits for it.'
        )
    return "\n\n".join(lines)


def duration(minutes: int) -> str:
    """ "45 min", "2 h", "2 h 5 min"."""
    hours, rest = divmod(minutes, 60)
    return " ".join([f"{hours} h"] * (hours > 0) + [f"{rest} min"] * (rest > 0 or hours == 0))


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


def without_markers(source: str) -> str:
    """A solution cell's source, as one reads it."""
    return re.sub(rf"^\s*({BEGIN}|{END})\n?", "", source, flags=re.MULTILINE).rstrip()


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
        if boxed(cell):
            cell.id = f"box-{boxed(cell)}"[:64].replace("_", "-")
            continue
        if heading:
            section = re.sub(r"[^a-z0-9]+", "-", heading[1].lower()).strip("-")[:48] or "section"
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        base = re.sub(r"[^A-Za-z0-9_-]", "-", name)[:60] if name else section
        counts[base] += 1
        cell.id = base if name else f"{base}-{counts[base]}"
