"""Cuts a session's notebook from a part: some exercises open, what they need given, and the prose that belongs to them.

Cells keep their ids and nbgrader's metadata, so that checks, hints, progress and grading take it for the part itself.
"""

import ast
import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_notebook

from utils.course.cells import boxed, grade_id, names_used_and_made, sections
from utils.course.manifest import CourseError, Part
from utils.course.masters import duration
from utils.course.paths import release_path, solution_path
from utils.course.plan import Step, schedule

NOT_FOR_A_ROOM = "## Stretch"


@dataclass(frozen=True)
class Session:
    """A notebook for a room, the sections of the part that are in it, and what is done in them, in order."""

    part: Part
    notebook: NotebookNode
    open: tuple[str, ...]
    given: tuple[str, ...]
    left_out: tuple[str, ...]
    sections: tuple[list[NotebookNode], ...]
    steps: tuple[Step, ...]

    @property
    def minutes(self) -> int:
        start, last = schedule(self.steps)[-1]
        return start + last.minutes


def cut(part: Part, chosen: Collection[str], given: Collection[str] = ()) -> Session:
    """A session in which the ``chosen`` exercises and questions are open.

    Args:
        part: What it is cut from.
        chosen: Names of exercises and questions.
        given: Exercises that are there as our implementations, also if the others don't need them.
    """
    names, exercises = [item.name for item in part.items], {exercise.name for exercise in part.exercises}
    chosen = [name for name in names if name in chosen and name not in given]
    if not chosen:
        raise CourseError(f"A session of part {part.key} needs an exercise that is open.")
    cells = _Cells(part, chosen)
    kept, left_out = _divide(cells, set(chosen), set(names))
    inside = cells.indices(kept)
    need = cells.needed(inside)
    given = {*given, *(grade_id(cells[i]) for i in need | inside)} & exercises - set(chosen)
    found: list[NotebookNode] = []
    for i, cell in enumerate(cells):
        name = grade_id(cell) or boxed(cell)
        if name in given:
            found += _given(cell, name) if grade_id(cell) else []
        elif i in inside and (name is None or name.removeprefix("check_") in chosen):
            found.append(cell)
        elif i in inside and boxed(cell):
            found[-1:] = _without_the_question(found[-1])
        elif i in need and not name:
            found += _prepared(cell)
    steps = tuple(_steps(part, kept, chosen))
    ordered_given = tuple(name for name in names if name in given)
    titles = tuple(section[0].source.splitlines()[0].lstrip("# ") for section in left_out)
    session = Session(part, new_notebook(cells=found), tuple(chosen), ordered_given, titles, tuple(kept), steps)
    session.notebook.metadata = cells.metadata
    _open_with_the_plan(session)
    return session


class _Cells(Sequence):
    """A learner's notebook, with what the cells of its solution use and make."""

    def __init__(self, part: Part, chosen: Collection[str]):
        notebook = nbformat.read(release_path(part.chapter, part.name), as_version=4)
        solution = nbformat.read(solution_path(part.chapter, part.name), as_version=4)
        self._cells, self.metadata = notebook.cells, notebook.metadata
        ours = {e.name for e in part.exercises} - set(chosen)  # these come with all that they need
        code = {c.id: names_used_and_made(c.source) for c in solution.cells if c.cell_type == "code"}
        asked = [code.get(cell.id, (set(), set())) for cell in self]
        self._uses = [set() if grade_id(c) in ours else used for c, (used, _) in zip(self, asked, strict=True)]
        self._makes = [made for _, made in asked]

    def __len__(self) -> int:
        return len(self._cells)

    def __getitem__(self, index: int) -> NotebookNode:
        return self._cells[index]

    def indices(self, some: Collection[list[NotebookNode]]) -> set[int]:
        ids = {cell.id for section in some for cell in section}
        return {i for i, cell in enumerate(self) if cell.id in ids}

    def needed(self, some: set[int]) -> set[int]:
        """Cells without which these can't run, and these.

        A name comes from the last cell before that makes it; a helper in the set-up may wait for one further on.
        """
        need, queue = set(some), list(some)
        while queue:
            here = queue.pop()
            for name in self._uses[here]:
                makers = [i for i in range(len(self)) if name in self._makes[i] and i != here]
                maker = max((i for i in makers if i < here), default=min(makers, default=here))
                if maker not in need:
                    need.add(maker)
                    queue.append(maker)
        return need


def _divide(cells: _Cells, chosen: set[str], names: set[str]) -> tuple[list[list[NotebookNode]], list]:
    """The sections that are in a session, and those that are not.

    One without exercises stays if it needs no other that is left out, and goes on from one that is in.
    """
    opening, *rest = sections(list(cells))
    asks = [{grade_id(cell) for cell in section} & names for section in rest]
    kept = [opening, *(section for section, here in zip(rest, asks, strict=True) if here & chosen)]
    before = parent = True
    for section, here in zip(rest, asks, strict=True):
        head, stays = section[0].source, bool(here & chosen)
        if not here and head.splitlines()[0] != NOT_FOR_A_ROOM:
            follows = parent if head.startswith("###") else before or not _has_code(section)
            ready = cells.needed(cells.indices(kept))
            stays = follows and cells.needed(cells.indices([section])) <= ready | cells.indices([section])
            kept += [section] if stays else []
        before = stays if here else before
        parent = parent if head.startswith("###") else stays
    chosen_ids = {section[0].id for section in kept}
    return [s for s in (opening, *rest) if s[0].id in chosen_ids], [s for s in rest if s[0].id not in chosen_ids]


def _has_code(section: list[NotebookNode]) -> bool:
    return any(cell.cell_type == "code" for cell in section)


def _given(cell: NotebookNode, name: str) -> Iterator[NotebookNode]:
    (stub,) = (node for node in ast.parse(cell.source).body if getattr(node, "name", None) == name)
    says = (ast.get_docstring(stub) or "").partition("\n\n")[0]
    yield new_markdown_cell(f"**Given in this session: `{name}`.** {says}", id=f"given-{cell.id}"[:64])
    given = nbformat.from_dict(cell)
    given.source = f'{name} = reference("{name}")'
    yield given


def _prepared(cell: NotebookNode) -> Iterator[NotebookNode]:
    says = "*Prepared, from a section that this session leaves out: run it and go on.*"
    yield new_markdown_cell(says, id=f"prepared-{cell.id}"[:64])
    cell.metadata["jupyter"] = {"source_hidden": True}
    yield cell


def _without_the_question(cell: NotebookNode) -> list[NotebookNode]:
    """The prose above a question that is not asked, without the question: its last paragraphs, from bold on."""
    kept = re.sub(r"(^|\n\n)\*\*(?:(?!\n\n\*\*).)*\Z", "", cell.source, flags=re.DOTALL)
    cell.source = kept if kept != cell.source else ""
    return [cell] if cell.source else []


def _steps(part: Part, kept: Sequence[list[NotebookNode]], chosen: Collection[str]) -> Iterator[Step]:
    """One step for each section; the minutes of reading are shared out by words."""
    items = {item.name: item for item in part.items if item.name in chosen}
    reading = part.minutes_for(chosen) - sum(item.minutes for item in items.values())
    words = [sum(len(c.source.split()) for c in s if c.cell_type == "markdown" and not grade_id(c)) for s in kept]
    spent = [round(reading * sum(words[: i + 1]) / sum(words)) for i in range(len(words))]
    for section, before, after in zip(kept, [0, *spent], spent):  # noqa: B905  (one more ``before``)
        here = tuple(items[name] for cell in section if (name := grade_id(cell)) in items)
        minutes = after - before + sum(item.minutes for item in here)
        if minutes:
            title = section[0].source.splitlines()[0].lstrip("# ") if section is not kept[0] else "Opening and set-up"
            yield Step(title, minutes, after - before, here, section[0].id)


def _open_with_the_plan(session: Session) -> None:
    """Put the session's plan in the place of the part's, and let ``start`` count what is open."""
    cells = session.notebook.cells
    place = next(i for i, cell in enumerate(cells) if cell.source.startswith("**Time.**"))
    cells[place].source = plan_in_words(session)
    setup = next(cell for cell in cells if "setup" in cell.metadata.get("tags", []))
    asked = ", ".join(f'"{name}"' for name in session.open)
    setup.source = re.sub(r'^start\("(\w+)"\)', rf'start("\1", only=[{asked}])', setup.source, flags=re.MULTILINE)


def plan_in_words(session: Session) -> str:
    """What is open, given and left out in a session, and when."""
    part = session.part
    lines = [f"**This session** is cut from part {part.key} and takes {duration(session.minutes)}, breaks included."]
    if session.given:
        lines[0] += f" Given, as our implementations: {', '.join(f'`{name}`' for name in session.given)}."
    if session.left_out:
        sections = ", ".join(f"*{title}*" for title in session.left_out)
        lines[0] += f" Left out, and in the part for another day: {sections}."
    rows = [f"| {clock(start)} | {step.title} | {in_words(step)} |" for start, step in schedule(session.steps)]
    return "\n".join([*lines, "", "| time | section | what you do |", "| --- | --- | --- |", *rows])


def clock(minutes: int) -> str:
    """ "1:05"."""
    return f"{minutes // 60}:{minutes % 60:02d}"


def in_words(step: Step) -> str:
    """ "read 4 min; exercise 4.1 `run_with_hooks` 20 min"."""
    read = [f"read {step.reading} min"] if step.reading else []
    done = [f"{getattr(item, 'label', 'question')} `{item.name}` {item.minutes} min" for item in step.items]
    return "; ".join(read + done) or f"{step.minutes} min"
