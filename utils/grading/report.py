"""``mi report``: how a class did in a chapter, from what ``mi grade`` has written down."""

import ast
import html
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import nbformat

from utils.course import paths
from utils.course.autograding import restored
from utils.course.catalogue import wrong_answers
from utils.course.manifest import Chapter, CourseError, Exercise
from utils.grading.batch import journal, read_record, read_submission
from utils.grading.submission import cells_to_run
from utils.grading.view import source_of

TELLING = 40  # nodes of syntax, below which two honest answers can well be the same
SHARED = 3  # exercises in which two submissions agree, from which on they are listed
COMMON = 3  # wrong answers shown for each exercise


@dataclass(frozen=True)
class Row:
    """One exercise: how many tried it, how many passed, and the misconceptions that were recognised."""

    exercise: Exercise
    tried: int
    passed: int
    diagnoses: tuple[tuple[str, int], ...]

    @property
    def rate(self) -> float:
        return self.passed / self.tried


@dataclass(frozen=True)
class Report:
    rows: list[Row]
    looks: list[tuple[str, str]]  # who needs a look, and why
    groups: list[tuple[tuple[str, ...], int]]  # students, and in how many exercises their answers are the same
    students: int


def make_report(chapter: Chapter) -> Report:
    """What became of a chapter's submissions.

    Raises:
        CourseError: If none is graded.
    """
    records = {
        path.stem: record
        for path in sorted(journal(chapter).glob("*.json"))
        if (record := read_record(chapter, path.stem)) is not None
    }
    if not records:
        raise CourseError(f"Nothing of {chapter.name} is graded: `mi grade {chapter.number}` comes first.")
    verdicts: dict[str, list[dict]] = defaultdict(list)
    looks = []
    for student, record in records.items():
        for part, found in record["parts"].items():
            for trouble in ("unreadable", "broken"):
                if trouble in found:
                    looks.append((student, f"{part or 'the submission'}: {found[trouble]}"))
            for verdict in found.get("verdicts", ()):
                verdicts[verdict["name"]].append(verdict)
                if verdict["status"] == "broken":
                    looks.append((student, f"{verdict['name']}: a check broke, which is the course's fault"))
                elif " ended the process" in verdict["text"] or "still running after" in verdict["text"]:
                    looks.append((student, f"{verdict['name']}: its code ended its process, or did not end"))
    sources = {student: dict(_answers(chapter, student)) for student in records}
    for student, answers in sources.items():
        ours = {exercise.name: _plain(source_of(exercise)) for exercise in chapter.exercises}
        copied = [name for name, plain in answers.items() if plain == ours[name] and plain.count("(") >= TELLING]
        if copied:
            looks.append((student, f"our reference, word for word: {', '.join(copied)}"))
    rows = [_row(exercise, verdicts[exercise.name]) for exercise in chapter.exercises]
    rows = [row for row in rows if row.tried]
    return Report(sorted(rows, key=lambda row: row.rate), sorted(looks), _groups(sources, chapter), len(records))


def _row(exercise: Exercise, verdicts: list[dict]) -> Row:
    tried = [v for v in verdicts if v["status"] in ("passed", "failed")]
    named = Counter(v["diagnosis"] for v in tried if v["diagnosis"])
    passed = sum(v["status"] == "passed" for v in tried)
    return Row(exercise, len(tried), passed, tuple(named.most_common(COMMON)))


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


def _groups(sources: dict[str, dict[str, str]], chapter: Chapter) -> list[tuple[tuple[str, ...], int]]:
    """Students whose answers are the same in several exercises: long ones, and not our reference."""
    ours = {exercise.name: _plain(source_of(exercise)) for exercise in chapter.exercises}
    by_answer = defaultdict(list)
    for student, answers in sources.items():
        for name, plain in answers.items():
            if plain != ours[name] and plain.count("(") >= TELLING:
                by_answer[name, plain].append(student)
    shared = Counter(tuple(students) for students in by_answer.values() if len(students) > 1)
    return [(students, n) for students, n in shared.most_common() if n >= SHARED]


def as_text(report: Report) -> str:
    """The report for a shell."""
    lines = [f"{report.students} submissions", "", "exercise                        passed   most common mistakes"]
    for row in report.rows:
        mistakes = ", ".join(f"{name} ({n})" for name, n in row.diagnoses)
        lines.append(f"{row.exercise.name:<31} {row.passed:>3} of {row.tried:<3} {mistakes}".rstrip())
    lines += ["", "needs a look:"] + [f"  {student}: {why}" for student, why in report.looks] if report.looks else []
    if report.groups:
        lines += ["", "the same answers, but for names and layout (a reason to ask, no verdict):"]
        lines += [f"  {', '.join(students)}: in {n} exercises" for students, n in report.groups]
    return "\n".join(lines)


_STYLE = (
    "body{font:16px/1.5 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em;color:#222;background:#fff}"
    "table{border-collapse:collapse;width:100%}th,td{text-align:left;vertical-align:top;padding:.3em .8em .3em 0;"
    "border-bottom:1px solid #ccc}td:nth-child(2){white-space:nowrap}"
)


def as_page(report: Report, chapter: Chapter) -> str:
    """The report as a page that needs nothing else."""
    rows = []
    for row in report.rows:
        sentences = {entry.name: entry.sentence for entry in wrong_answers(row.exercise)}
        mistakes = "<br>".join(f"{n} × {html.escape(sentences.get(name) or name)}" for name, n in row.diagnoses)
        rows.append(
            f"<tr><th scope='row'>{html.escape(row.exercise.number)} {html.escape(row.exercise.name)}</th>"
            f"<td>{row.passed} of {row.tried}</td><td>{mistakes}</td></tr>"
        )
    looks = "".join(f"<li>{html.escape(student)}: {html.escape(why)}</li>" for student, why in report.looks)
    groups = "".join(f"<li>{html.escape(', '.join(names))}: in {n} exercises</li>" for names, n in report.groups)
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(chapter.title)}</title>"
        f"<style>{_STYLE}</style><h1>{html.escape(chapter.title)}</h1><p>{report.students} submissions, the hardest "
        "exercise first.</p><table><thead><tr><th>exercise</th><th>passed</th><th>common mistakes</th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
        + (f"<h2>Needs a look</h2><ul>{looks}</ul>" if looks else "")
        + (
            f"<h2>The same answers</h2><p>But for names and layout. A reason to ask, no verdict.</p><ul>{groups}</ul>"
            if groups
            else ""
        )
        + "</html>"
    )


def write_page(report: Report, chapter: Chapter) -> Path:
    path = paths.ROOT / "build" / f"report_{chapter.number}.html"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(as_page(report, chapter), encoding="utf-8")
    return path
