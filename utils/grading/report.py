"""``mi report``: how a class did in a chapter, from what ``mi grade`` has written down."""

import ast
import html
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import nbformat

from utils.course import paths, progress
from utils.course.autograding import expect_regular_file, restored
from utils.course.catalogue import wrong_answers
from utils.course.manifest import Chapter, CourseError, Exercise
from utils.grading.batch import MAX_FILE, journal, read_record, read_submission
from utils.grading.submission import cells_to_run
from utils.grading.view import source_of

TELLING = 40  # nodes of syntax, below which two honest answers can well be the same
SHARED = 3  # exercises in which two submissions agree, from which on they are listed
COMMON = 3  # wrong answers shown for each exercise
STRUGGLING = 1 / 3  # who passes at most this share of at least so many exercises that they tried
TRIED = 3
PROGRESS = "progress.jsonl"  # a learner's own log, if it is handed in beside the notebooks


@dataclass(frozen=True)
class Row:
    """One exercise: how many tried it, how many passed, the misconceptions that were recognised, and hints.

    ``hints`` holds the number that each student read, of those who handed in their progress.
    """

    exercise: Exercise
    tried: int
    passed: int
    diagnoses: tuple[tuple[str, int], ...]
    unnamed: int  # wrong in a way that is not in the catalogue
    hints: tuple[int, ...]

    @property
    def rate(self) -> float:
        return self.passed / self.tried

    @property
    def hints_in_words(self) -> str:
        """How many read hints, and how many hints in all."""
        readers = sum(n > 0 for n in self.hints)
        return f"{sum(self.hints)} by {readers} of {len(self.hints)}" if self.hints else ""


@dataclass(frozen=True)
class Report:
    rows: list[Row]
    looks: list[tuple[str, str]]  # who needs a look, and why
    groups: list[tuple[tuple[str, ...], int]]  # students, and in how many exercises the answers of two are the same
    students: int


def make_report(chapter: Chapter) -> Report:
    """What became of a chapter's submissions.

    Raises:
        CourseError: If none is graded.
    """
    records = _records(chapter)
    if not records:
        raise CourseError(f"Nothing of {chapter.name} is graded: `mi grade {chapter.number}` comes first.")
    verdicts: dict[str, list[dict]] = defaultdict(list)
    looks, hints = [], {student: _hints(chapter, student) for student in records}
    for student, record in records.items():
        looks += [(student, why) for why in _reasons(record, hints[student], chapter)]
        for found in record["parts"].values():
            for verdict in found.get("verdicts", ()):
                verdicts[verdict["name"]].append(verdict)
    sources = {student: dict(_answers(chapter, student)) for student in records}
    ours = {exercise.name: _plain(source_of(exercise)) for exercise in chapter.exercises}
    for student, answers in sources.items():
        copied = [name for name, plain in answers.items() if plain == ours[name] and plain.count("(") >= TELLING]
        if copied:
            looks.append((student, f"our reference, word for word: {', '.join(copied)}"))
    known = [read for read in hints.values() if read is not None]
    rows = [_row(e, verdicts[e.name], tuple(read[e.name] for read in known)) for e in chapter.exercises]
    rows = [row for row in rows if row.tried]
    return Report(sorted(rows, key=lambda row: row.rate), sorted(looks), _groups(sources, ours), len(records))


def _records(chapter: Chapter) -> dict[str, dict]:
    """What is written down of each student's submission."""
    return {
        path.stem: record
        for path in sorted(journal(chapter).glob("*.json"))
        if (record := read_record(chapter, path.stem)) is not None
    }


def mistakes(chapter: Chapter) -> Counter[tuple[str, str]]:
    """How often each misconception was recognised in what is graded, by the exercise's name and its own."""
    found = [part for record in _records(chapter).values() for part in record["parts"].values()]
    verdicts = [verdict for part in found for verdict in part.get("verdicts", ())]
    return Counter((v["name"], v["diagnosis"]) for v in verdicts if v["status"] == "failed" and v["diagnosis"])


def _reasons(record: dict, hints: Counter | None, chapter: Chapter) -> Iterator[str]:
    """Why somebody should look at a submission, as far as what is written down of it tells."""
    tried = passed = 0
    ladder = {exercise.name: len(exercise.hints) for exercise in chapter.exercises}
    for part, found in record["parts"].items():
        for trouble in ("unreadable", "broken"):
            if trouble in found:
                yield f"{part or 'the submission'}: {found[trouble]}"
        for verdict in found.get("verdicts", ()):
            name, status = verdict["name"], verdict["status"]
            tried, passed = tried + (status in ("passed", "failed")), passed + (status == "passed")
            if status == "broken":
                yield f"{name}: a check broke, which is the course's fault"
            elif " ended the process" in verdict["text"] or "still running after" in verdict["text"]:
                yield f"{name}: its code ended its process, or did not end"
            elif status == "failed" and hints and 0 < ladder.get(name, 0) <= hints[name]:
                yield f"{name}: read every hint, and it is still wrong"
    if tried >= TRIED and passed <= STRUGGLING * tried:
        yield f"passed {passed} of the {tried} exercises that were tried"


def _row(exercise: Exercise, verdicts: list[dict], hints: tuple[int, ...]) -> Row:
    tried = [v for v in verdicts if v["status"] in ("passed", "failed")]
    failed = [v for v in tried if v["status"] == "failed"]
    named = Counter(v["diagnosis"] for v in failed if v["diagnosis"])
    common = tuple(named.most_common(COMMON))
    return Row(exercise, len(tried), len(tried) - len(failed), common, len(failed) - named.total(), hints)


def _hints(chapter: Chapter, student: str) -> Counter | None:
    """How many hints of each exercise a student read, if their progress was handed in; it is their own word."""
    path = paths.ROOT / "submitted" / student / chapter.name / PROGRESS
    try:
        expect_regular_file(path, levels=3)
        with path.open("rb") as file:
            events = progress.events_in(file.read(MAX_FILE))
    except (ValueError, OSError):
        return None
    counted = Counter(event["exercise"] for event in events if event["event"] == "hint")
    return Counter({e.name: min(counted[e.name], len(e.hints)) for e in chapter.exercises})


def _answers(chapter: Chapter, student: str) -> Iterator[tuple[str, str]]:
    """A submission's answers, each in a form that spelling and layout do not change."""
    for part in chapter.parts:
        path = paths.ROOT / "submitted" / student / chapter.name / f"{part.name}.ipynb"
        try:
            cells = read_submission(path)
        except (ValueError, OSError):
            continue
        released = nbformat.read(paths.release_path(chapter.name, part.name), as_version=4).cells
        cells = restored(cells, [cell for cell in released if "nbgrader" in cell.metadata])
        handed_out = {_plain(cell.source) for cell in released if cell.cell_type == "code"}
        for cell in cells_to_run(part, cells, released):
            plain = _plain(cell.source)
            if cell.exercise and plain and plain not in handed_out:
                yield cell.exercise, plain


def _plain(source: str) -> str:
    """A definition's syntax: no comments, docstrings, annotations or layout, and local names by their order."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return ""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            if ast.get_docstring(node) is not None:
                node.body = node.body[1:] or [ast.Pass()]
            if isinstance(node, ast.FunctionDef):
                node.returns = None
        elif isinstance(node, ast.arg):
            node.annotation = None
            node.arg = names.setdefault(node.arg, f"v{len(names)}")
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.setdefault(node.id, f"v{len(names)}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Name):
            node.id = names.get(node.id, node.id)
    return ast.dump(tree)


def _groups(sources: dict[str, dict[str, str]], ours: dict[str, str]) -> list[tuple[tuple[str, ...], int]]:
    """Students any two of whom, in a chain, have the same answers in several exercises: long ones, and not ours."""
    by_answer = defaultdict(list)
    for student, answers in sources.items():
        for name, plain in answers.items():
            if plain != ours[name] and plain.count("(") >= TELLING:
                by_answer[name, plain].append(student)
    shared = Counter(pair for students in by_answer.values() for pair in combinations(sorted(students), 2))
    groups: list[set[str]] = []
    for pair in [pair for pair, n in shared.items() if n >= SHARED]:
        touched = [group for group in groups if group & set(pair)]
        groups = [group for group in groups if group not in touched] + [set(pair).union(*touched)]
    found = [(tuple(sorted(g)), max(shared[pair] for pair in combinations(sorted(g), 2))) for g in groups]
    return sorted(found, key=lambda group: (-group[1], group[0]))


def as_text(report: Report) -> str:
    """The report for a shell."""
    with_hints = any(row.hints for row in report.rows)
    hints = f"{'hints read':<14} " if with_hints else ""
    lines = [f"{report.students} submissions", "", f"{'exercise':<31} passed      {hints}most common mistakes"]
    for row in report.rows:
        mistakes = [f"{name} ({n})" for name, n in row.diagnoses] + ([f"others ({row.unnamed})"] if row.unnamed else [])
        hints = f"{row.hints_in_words:<14} " if with_hints else ""
        passed = f"{row.passed:>3} of {row.tried:<3}"
        lines.append(f"{row.exercise.name:<31} {passed}  {hints}{', '.join(mistakes)}".rstrip())
    lines += ["", "needs a look:"] + [f"  {student}: {why}" for student, why in report.looks] if report.looks else []
    if report.groups:
        lines += ["", "the same answers, but for names and layout (a reason to ask, no verdict):"]
        lines += [f"  {', '.join(students)}: in {n} exercises" for students, n in report.groups]
    return "\n".join(lines)


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:70em;margin:2em auto;padding:0 1em;color:#222;background:#fff}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.4em 1em .4em 0;"
    "border-bottom:1px solid #ccc}thead th{white-space:nowrap}tbody th{font-weight:600}.n{white-space:nowrap}"
    "meter{width:6em;height:1em;vertical-align:middle}ul{margin:0;padding-left:1.1em}code{font-size:.9em}"
)


def as_page(report: Report, chapter: Chapter) -> str:
    """The report as a page that needs nothing else."""
    with_hints = any(row.hints for row in report.rows)
    hints = "<th scope='col'>hints read</th>" if with_hints else ""
    rows = "".join(_row_of_page(row, with_hints) for row in report.rows)
    looks = "".join(f"<li>{html.escape(student)}: {html.escape(why)}</li>" for student, why in report.looks)
    groups = "".join(f"<li>{html.escape(', '.join(names))}: in {n} exercises</li>" for names, n in report.groups)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(chapter.title)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(chapter.title)}</h1><p>{report.students} submissions, the hardest "
        f"exercise first.</p><table><thead><tr><th scope='col'>exercise</th><th scope='col'>passed</th>{hints}"
        f"<th scope='col'>most common mistakes</th></tr></thead><tbody>{rows}</tbody></table>"
        + (f"<h2>Needs a look</h2><ul>{looks}</ul>" if looks else "")
        + (
            f"<h2>The same answers</h2><p>But for names and layout. A reason to ask, no verdict.</p><ul>{groups}</ul>"
            if groups
            else ""
        )
        + "</html>"
    )


def _row_of_page(row: Row, with_hints: bool) -> str:
    sentences = {entry.name: entry.sentence for entry in wrong_answers(row.exercise)}
    mistakes = [
        f"{n} × <code>{html.escape(name)}</code> {html.escape(sentences.get(name) or '')}" for name, n in row.diagnoses
    ]
    mistakes += [f"{row.unnamed} × none that the catalogue knows"] if row.unnamed else []
    listed = f"<ul>{''.join(f'<li>{one}</li>' for one in mistakes)}</ul>" if mistakes else ""
    hints = f"<td class='n'>{row.hints_in_words}</td>" if with_hints else ""
    return (
        f"<tr><th scope='row'>{html.escape(row.exercise.number)} {html.escape(row.exercise.name)}</th>"
        f"<td class='n'><meter value='{row.rate:.3f}' aria-label='share that passed'></meter> "
        f"{row.passed} of {row.tried}</td>{hints}<td>{listed}</td></tr>"
    )


def write_page(report: Report, chapter: Chapter) -> Path:
    path = paths.ROOT / "build" / f"report_{chapter.number}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_page(report, chapter), encoding="utf-8")
    return path
