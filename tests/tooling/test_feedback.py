"""What a report looks like: the order of its lines, the width, and HTML that carries no markup of the learner's."""

import re

import pytest

from utils.course import feedback
from utils.course.build import read_masters
from utils.course.manifest import dump, find_exercise
from utils.course.runner import run_checks


@pytest.fixture(autouse=True)
def course(mini):
    (mini / "chapters").mkdir()
    (mini / "chapters" / "manifest.json").write_text(dump(tuple(b.chapter for b in read_masters().values())))


def report_on(name, body):
    namespace = {}
    exec(f"def {name}{body}", namespace)
    return run_checks(find_exercise(name), namespace[name], seed=3)


def test_a_failure_says_things_in_the_order_a_reader_needs():
    text = feedback.as_text(report_on("double", "(x):\n    return x * x"))
    labels = [m[1].strip() for m in re.finditer(r"^  (\S.{11})", text, re.MULTILINE)]
    assert labels == ["check", "called with", "returned", "expected", "because", "diagnosis", "also failed", "next"]
    assert "double(x=float32 tensor of shape (3, 4))" in text and "seed 3" in text
    assert "exercise 1.1 · 2 points" in text.splitlines()[0]
    assert 'hint("double")' in text and 'double = reference("double")' in text


def test_expected_and_returned_show_the_first_row_that_differs():
    report = report_on("double", "(x):\n    y = 2 * x\n    y = y.clone()\n    y[-1] = 0\n    return y")
    row = next(value for label, value in feedback.rows(report) if label == "returned")
    assert row == "row 2 = [0, 0, 0, 0]"


def test_a_partial_diagnosis_says_so():
    body = "(x):\n    return 2 * (x.detach() if x.shape == (4,) else x + 1)"
    report = report_on("double", body)
    assert report.diagnosis.name == "detached" and not report.whole_diagnosis
    assert "For some of the checks" in feedback.as_text(report)


def test_lines_stay_narrow():
    report = report_on("double", "(x):\n    return x * x")
    assert max(map(len, feedback.as_text(report).splitlines())) <= feedback.WIDTH + 10


def test_html_escapes_what_the_learner_prints():
    html = feedback.as_html(report_on("double", "(x):\n    print('<script>alert(1)</script>')\n    return x * x"))
    assert "<script>" not in html and "&lt;script&gt;" in html


def test_html_says_in_words_what_its_colour_says():
    for body, word in (
        ("(x):\n    return 2 * x", "passed"),
        ("(x):\n    return x", "failed"),
        ("(x):\n    raise NotImplementedError", "not attempted"),
    ):
        assert word in feedback.as_html(report_on("double", body))


def test_missing_return_is_named():
    assert "is a `return` missing?" in feedback.as_text(report_on("double", "(x):\n    2 * x"))
