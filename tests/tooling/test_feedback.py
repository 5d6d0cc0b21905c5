"""What a report looks like: the order of its lines, the width, and HTML that carries no markup of the learner's."""

import re
from dataclasses import replace

import numpy as np
import pytest
import torch

from utils.course import feedback
from utils.course.build import course_of, read_masters
from utils.course.checking import Answer, Mismatch, expect_close, expect_raises
from utils.course.manifest import dump, find_exercise
from utils.course.runner import run_checks
from utils.course.values import article


@pytest.fixture(autouse=True)
def course(mini):
    (mini / "chapters").mkdir()
    (mini / "chapters" / "manifest.json").write_text(dump(course_of(read_masters())))


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
    text = " ".join(feedback.as_text(report).split())
    assert "This explains the check shown here. The other one that failed may have another cause." in text


def test_the_failure_that_the_diagnosis_explains_is_the_one_shown():
    report = report_on("double", "(x):\n    return 2 * (x.detach() if x.shape == (4,) else x + 1)")
    found = dict(feedback.rows(report))
    assert found["check"] == "gradients flow"
    assert found["also failed"] == "twice the input, for two shapes"


def test_a_diagnosis_of_some_checks_says_how_many():
    report = report_on("double", "(x):\n    return x * x")
    more = [*report.failures, replace(report.failures[0], check="another")]
    text = feedback.as_text(replace(report, failures=more))
    told = " ".join(text.split())
    assert "2 of the 3 checks that failed, the one shown here among them; the other one may have another cause." in told


def test_what_the_learners_code_did_not_return_is_called_found():
    labels = [label for label, _ in feedback.rows(report_on("double", "(x):\n    return 2 * x.detach()"))]
    assert "found" in labels and "returned" not in labels


def test_backticks_are_code_in_html_and_nothing_else_is():
    html = feedback.as_html(report_on("double", "(x):\n    print('`no`')\n    return 2 * x.detach()"))
    assert "<code>torch.no_grad</code>" in html and "`detach`" not in html
    assert "`no`" in html


@pytest.mark.parametrize("body", ["(x):\n    return x", "(x):\n    raise NotImplementedError"])
def test_a_graded_report_does_not_send_its_reader_on(monkeypatch, body):
    assert "move on" in feedback.as_text(report_on("double", body))
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    text = feedback.as_text(report_on("double", body))
    assert "move on" not in text and 'hint("double")' in text


def test_returned_and_expected_differ_in_the_digits_shown():
    found = dict(feedback.rows(report_on("double", "(x):\n    return (2 * x) * (1 + 2e-5)")))
    assert found["returned"] != found["expected"]
    pairs = [
        (torch.tensor([1.0, 1.00004]), torch.tensor([1.0, 1.0])),
        (torch.tensor(1.0 + 1e-9, dtype=torch.float64), torch.tensor(1.0, dtype=torch.float64)),
        ([torch.tensor([[2.00003]])], [torch.tensor([[2.0]])]),
        ({"a": (0.1, torch.zeros(9))}, {"a": (0.1, torch.ones(9) * 1e-3)}),
        ("x" * 500 + "a", "x" * 500 + "b"),
        (list(range(400)), list(range(401))),
        ("1", 1),
        (np.zeros(3), np.full(3, 1e-4)),
    ]
    for actual, expected in pairs:
        with pytest.raises(Mismatch) as caught:
            expect_close(actual, expected)
        assert caught.value.returned != caught.value.expected


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (
            (torch.randn(3, 4), torch.tensor([4, -1])),
            "f(stream=float32 tensor of shape (3, 4), positions=[4, -1] (int64))",
        ),
        ((torch.ones(2), torch.tensor([[1, 2]])), "f(stream=[1, 1] (float32), positions=[[1, 2]] (int64))"),
        ((torch.ones(2), torch.zeros(3)), "f(stream=[1, 1] (float32), positions=[0, 0, 0] (float32))"),
        ((torch.ones(2), torch.tensor([True, False])), "f(stream=[1, 1] (float32), positions=[True, False] (bool))"),
        ((torch.ones(2, device="meta"), None), "f(stream=float32 tensor of shape (2,) on meta, positions=None)"),
        ((0.5, {"f": len, "n": 3}), "f(stream=0.5, positions={'f': len, 'n': 3})"),
    ],
)
def test_a_call_shows_the_entries_that_matter(arguments, text):
    answer = Answer(lambda *args: None, reference=f)
    answer(*arguments)
    assert answer.last_call.text == text


def f(stream, positions):
    """What a reference with two arguments is called."""


def test_many_floats_hide_their_entries_and_whole_numbers_keep_theirs():
    answer = Answer(lambda *args: None, reference=f)
    answer(torch.arange(8) / 7, {"a": torch.zeros(8)})
    answer(torch.arange(8) * 1e-9 / 7, torch.arange(8) * 1e-9 / 3)
    assert answer.last_call.text == "f(stream=float32 (8,), positions=float32 (8,))"
    answer.reference = lambda *many: None
    answer(1, 2)
    assert answer.last_call.text == "<lambda>(1, 2)"


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


def test_a_single_value_is_not_counted():
    for actual, expected, note in (
        (torch.tensor(1.5), torch.tensor(1.0), "The value differs by 0.5."),
        (torch.tensor([torch.nan]), torch.tensor([1.0]), "The value differs, NaN or infinity on one side."),
        ([2], [1], "The only entry differs."),
        (torch.tensor([1.0, 3.0]), torch.tensor([1.0, 1.0]), "1 of 2 entries differ, the largest difference is 2."),
    ):
        with pytest.raises(Mismatch) as caught:
            expect_close(actual, expected)
        assert caught.value.note == note


def test_an_exception_on_good_input_says_that_none_was_expected():
    report = report_on("double", "(x):\n    raise ValueError('too large')")
    assert dict(feedback.rows(report))["expected"] == "no exception: this is good input"


def test_articles_follow_the_noun():
    assert [article(noun) for noun in ("IndexError", "ValueError")] == ["an IndexError", "a ValueError"]
    with pytest.raises(Mismatch, match="should raise an IndexError"):
        expect_raises(IndexError, Answer(lambda: 1))


def test_missing_return_is_named():
    assert "is a `return` missing?" in feedback.as_text(report_on("double", "(x):\n    2 * x"))
