"""``mi report``: what it tells of a class, from verdicts that are written down here by hand."""

import json
from pathlib import Path

import pytest

from utils.course import paths
from utils.course.manifest import find_chapter
from utils.course.paths import load_file
from utils.grading import report
from utils.grading.batch import FORMAT, write_record

submissions = load_file(Path(__file__).parents[1] / "tooling" / "submissions.py")
MINI, RIGHT, Submission = submissions.MINI, submissions.RIGHT, submissions.Submission
SHORT = {"double": RIGHT["double"]}
LONG = {  # long enough to tell something, with places for names
    "double": """
def double(x):
    {a} = x + 0
    {b} = [{a}, {a}]
    {a} = sum({b}) if len({b}) == 2 else 2 * {a}
    return {a} if {b} else {a} + 0""",
    "quadruple": """
def quadruple(x):
    {a} = double(x) + 0
    {b} = [{a}, {a}]
    {a} = sum({b}) if len({b}) == 2 else 2 * {a}
    return {a} if {b} else {a} + 0""",
    "scaffolded": """
def scaffolded(x, n):
    {a} = x + 1
    for {b} in range(n):
        {a} = {a} + {a} if {b} >= 0 else 2 * {a}
    return {a} + 0 if n >= 0 else {a}""",
}


def written(names, **others):
    return {exercise: source.format(**names) for exercise, source in LONG.items()} | others


@pytest.fixture
def chapter(mini, monkeypatch, tmp_path):
    """A chapter whose submissions, and what is written down of them, lie in a folder of this test."""
    monkeypatch.setattr(paths, "STATE", tmp_path / ".mi")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    return find_chapter("01")


@pytest.fixture
def hand_in(chapter, mini, tmp_path):
    def graded(student, statuses, progress=None, answers=SHORT, **more):
        notebook = Submission(mini, **answers)
        notebook.course = tmp_path
        notebook.hand_in(student)
        if progress is not None:
            (tmp_path / "submitted" / student / MINI / "progress.jsonl").write_bytes(progress)
        verdicts = [
            {"name": name, "status": status, "text": text, "diagnosis": diagnosis, "seconds": 0}
            for name, (status, text, diagnosis) in statuses.items()
        ]
        record = {"format": FORMAT, "seed": 0, "written": True, "time": 0, "digest": ""}
        write_record(chapter, student, record | {"parts": {MINI: {"verdicts": verdicts} | more}})

    return graded


def events(**hints):
    lines = [json.dumps({"event": "hint", "exercise": name}) for name, n in hints.items() for _ in range(n)]
    return "\n".join([*lines, "not json", "[" * 50_000]).encode()


PASSED, FAILED = ("passed", "✓", ""), ("failed", "✗ wrong", "")
SQUARED = ("failed", "✗ wrong", "squared")


def test_exercises_by_rate_with_mistakes_by_name(chapter, hand_in):
    hand_in("a", {"double": SQUARED, "quadruple": PASSED})
    hand_in("b", {"double": SQUARED, "quadruple": FAILED})
    hand_in("c", {"double": FAILED, "quadruple": PASSED, "Scale": ("not attempted", "○", "")})
    found = report.make_report(chapter)
    assert [(row.exercise.name, row.passed, row.tried) for row in found.rows] == [("double", 0, 3), ("quadruple", 2, 3)]
    assert found.rows[0].diagnoses == (("squared", 2),) and found.rows[0].unnamed == 1
    assert "squared (2), others (1)" in report.as_text(found)
    page = report.as_page(found, chapter)
    assert "2 × <code>squared</code> You square the number." in page and "1 × none that the catalogue knows" in page
    assert "hints" not in page  # nobody has handed in a progress file


def test_hints_of_those_who_handed_in_their_progress(chapter, hand_in):
    hand_in("reader", {"double": FAILED}, progress=events(double=1, unknown=7))
    hand_in("thorough", {"double": FAILED}, progress=events(double=10**4))
    hand_in("none", {"double": PASSED}, progress=b"")
    hand_in("silent", {"double": PASSED})
    found = report.make_report(chapter)
    ladder = len(found.rows[0].exercise.hints)
    assert sorted(found.rows[0].hints) == [0, 1, ladder]
    assert f"{1 + ladder} by 2 of 3" in report.as_text(found)
    assert f"{1 + ladder} by 2 of 3" in report.as_page(found, chapter)
    assert found.looks == [("thorough", "double: read every hint, and it is still wrong")]


def test_a_progress_file_that_is_a_link_is_not_followed(chapter, hand_in, tmp_path):
    hand_in("linked", {"double": FAILED})
    (tmp_path / "elsewhere").write_bytes(events(double=9))
    (tmp_path / "submitted" / "linked" / MINI / "progress.jsonl").symlink_to(tmp_path / "elsewhere")
    assert report.make_report(chapter).rows[0].hints == ()


def test_who_needs_a_look_and_why(chapter, hand_in):
    hand_in("lost", {"double": FAILED, "quadruple": SQUARED, "scaffolded": PASSED, "Scale": ("not attempted", "", "")})
    hand_in("loops", {"double": ("failed", "✗ double: your code was still running after 3 seconds", "")})
    hand_in("ours", {"double": ("broken", "our fault", "")})
    hand_in("cut", {}, unreadable="it can't be read <script>")
    found = report.make_report(chapter)
    assert found.looks == [
        ("cut", "01_mini: it can't be read <script>"),
        ("loops", "double: its code ended its process, or did not end"),
        ("lost", "passed 1 of the 3 exercises that were tried"),
        ("ours", "double: a check broke, which is the course's fault"),
    ]
    assert "<script" not in report.as_page(found, chapter)


def test_groups_with_the_same_answers_but_for_names(chapter, hand_in):
    done = {"double": PASSED}
    hand_in("ann", done, answers=written({"a": "one", "b": "two"}))
    hand_in("bob", done, answers=written({"a": "x1", "b": "x2"}))
    double = LONG["double"].format(a="y", b="z") + "  # mine"
    hand_in("cem", done, answers=written({"a": "p", "b": "q"}, double=double))
    hand_in("dan", done, answers={"double": LONG["double"].format(a="y", b="z")})  # in one exercise alone
    hand_in("eve", done, answers=SHORT)
    hand_in("fay", done, answers=SHORT)  # alike, but too short to tell anything
    found = report.make_report(chapter)
    assert found.groups == [(("ann", "bob", "cem"), 3)]
    assert "ann, bob, cem: in 3 exercises" in report.as_text(found)
