"""Grades one notebook of a submission: its cells go to a worker, its exercises through the checks, in order."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from nbformat import NotebookNode

from utils.course import feedback
from utils.course.cells import defined_names, grade_id, only_defines, plain_python
from utils.course.checking import Mismatch
from utils.course.containment import Ended, Overtime
from utils.course.manifest import Exercise, Part, find_chapter
from utils.course.runner import TIME_LIMIT, Report, run_checks
from utils.grading.grader import Cell, Session
from utils.grading.worker import secret_seed

TOTAL_LIMIT = 40 * TIME_LIMIT  # seconds of computing for one notebook
MAX_SOURCE = 2**20  # characters of one cell


@dataclass(frozen=True)
class Verdict:
    """What became of one exercise.

    Its status is passed, failed, not attempted, reference, unreadable (as its notebook is), or broken (the course's own
    fault).
    """

    name: str
    status: str
    text: str
    diagnosis: str = ""
    seconds: float = 0.0


def cells_to_run(part: Part, cells: Sequence[NotebookNode], released: Sequence[NotebookNode]) -> list[Cell]:
    """Of a submission's cells: its set-up, its answers, and what the student has changed or added.

    Experiments as they were handed out are left out: they take minutes, and carry no points.
    """
    names = {exercise.name for exercise in part.exercises}
    handed_out = {cell.source for cell in released if cell.cell_type == "code"}
    setup = {cell.source for cell in released if "setup" in cell.metadata.get("tags", [])}
    found = []
    for number, cell in enumerate(cells, 1):
        if cell.cell_type != "code" or len(cell.source) > MAX_SOURCE:
            continue
        name = grade_id(cell)
        exercise = name if name in names else next(iter(sorted(defined_names(cell.source) & names)), None)
        is_setup = cell.source in setup or "setup" in cell.metadata.get("tags", [])
        is_check = name is not None and exercise is None
        if is_check or not (exercise or is_setup or only_defines(cell.source) or cell.source not in handed_out):
            continue
        label = f"{exercise or ('the set-up cell' if is_setup else 'cell')} [{number}]"
        found.append(Cell(label, without_checks(cell.source), exercise, is_setup))
    return found


def without_checks(source: str) -> str:
    """A cell without lines that only ask for a check or a hint: these have their own place."""
    return re.sub(r"^(check|hint)\(.*\)\s*(#.*)?$", "pass", plain_python(source), flags=re.MULTILINE)


def grade_part(
    part: Part,
    cells: list[Cell],
    spawn: Callable,
    seed: int,
    time_limit: float = TIME_LIMIT,
    total_limit: float = TOTAL_LIMIT,
) -> list[Verdict]:
    """Verdicts on all exercises of a part, in order.

    Args:
        part: Whose exercises.
        cells: The submission's, from ``cells_to_run``.
        spawn: Starts a worker.
        seed: All that a check draws follows from it.
        time_limit: Seconds of computing that one check, or one cell, allows the submission.
        total_limit: Seconds of computing for all of it.
    """
    course = find_chapter(part.chapter).parts
    here = next(i for i, p in enumerate(course) if p.name == part.name)
    earlier, later = ([e for p in parts for e in p.exercises] for parts in (course[:here], course[here + 1 :]))
    session = Session(cells, spawn, earlier, time_limit, total_limit)
    verdicts = []
    try:
        for exercise in part.exercises:
            if exercise.case:  # what a case may use of the course stands on later parts, too
                session.lend(later)
            verdicts.append(_grade(exercise, session, cells, secret_seed(seed, exercise.name) % 2**31, time_limit))
            session.reveal(exercise)
    finally:
        session.close()
    return verdicts


def _grade(exercise: Exercise, session: Session, cells: list[Cell], seed: int, time_limit: float) -> Verdict:
    before = session.seconds()
    try:
        answer = session.answer(exercise, seed)
        if answer == "reference":
            text = f"○ {exercise.name}: our reference, not an answer of your own: skipped, no points"
            return Verdict(exercise.name, "reference", text)
        if isinstance(answer, str):
            return Verdict(exercise.name, "not attempted", _why_missing(exercise, answer, session, cells))
        report = run_checks(exercise, answer, seed=seed, time_limit=time_limit)
    except Overtime:
        text = (
            f"✗ {exercise.name}: not checked, as the notebook had used up its time of {session.total_limit:g} seconds"
        )
        return Verdict(exercise.name, "failed", text)
    except Ended as ended:
        return Verdict(exercise.name, "failed", f"✗ {exercise.name}: your code {ended}")
    except Mismatch as nonsense:
        return Verdict(exercise.name, "failed", f"✗ {exercise.name}: {nonsense.note}")
    return Verdict(
        exercise.name,
        report.status,
        feedback.as_text(report) + _setup_note(session, cells, report),
        report.diagnosis.name if report.diagnosis else "",
        session.seconds() - before,
    )


def _why_missing(exercise: Exercise, found: str, session: Session, cells: list[Cell]) -> str:
    errors = [
        session.errors[cell.label] for cell in cells if cell.exercise == exercise.name and cell.label in session.errors
    ]
    if errors:
        return f"✗ {exercise.name}: its cell failed: {errors[-1]}"
    reason = "its cell is missing or defines another name" if found == "missing" else found
    return f"✗ {exercise.name}: {reason}"


def _setup_note(session: Session, cells: list[Cell], report: Report) -> str:
    """A set-up cell that failed is the likely reason of what follows."""
    if report.status == "passed":
        return ""
    errors = [session.errors[cell.label] for cell in cells if cell.setup and cell.label in session.errors]
    return f"\n  The set-up cell failed, so that what follows may miss its imports: {errors[0]}" if errors else ""
