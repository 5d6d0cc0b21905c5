"""The instructor's sheet: what a session's exercises, questions and figures have elsewhere, on one page of its own."""

import re
from collections import Counter
from functools import cache

import pytest

from utils.course import sheet
from utils.course.catalogue import wrong_answers
from utils.course.manifest import exercises, find_parts
from utils.course.plan import named
from utils.course.session import cut
from utils.course.sheet import MISTAKES, as_page, predictions, without_docstring


@cache
def page(key="04a", text="4.1-4.5, case 04a, nothing_restores", seen=()):
    (part,) = find_parts(key)
    return as_page(cut(part, named(part, text)), Counter(dict(seen)))


def test_it_is_one_file_that_asks_for_no_other():
    sources = re.findall(r"\b(?:src|href)=['\"]([^'\"]*)", page())
    assert any(source.startswith("data:image/png;base64,") for source in sources)
    assert all(source.startswith(("data:", "https://")) for source in sources)  # https: a paper's link in prose
    assert "<script" not in page() and "@import" not in page()


def test_each_open_exercise_has_its_mistakes_and_our_answer():
    said = page()
    for name in ("run_with_hooks", "logit_difference", "patch_site"):
        known = wrong_answers(exercises()[name])
        assert f"{min(MISTAKES, len(known))} of {len(known)} mistakes that its checks know" in said
        assert all(f"<code>{entry.name}</code>" in said for entry in known[:MISTAKES])
    assert "raise NotImplementedError" not in said and "BEGIN SOLUTION" not in said
    assert "def run_with_hooks(" in said and "def denoise(" not in said


def test_what_a_class_got_wrong_comes_first():
    last = wrong_answers(exercises()["patch_site"])[-1].name
    said = page(seen=((("patch_site", last), 3),))
    listed = said.split("<code>patch_site</code>, 20 minutes")[1].split("<ul>")[1]
    assert listed.startswith(f"<li>3 × <code>{last}</code>")
    assert "those met most often in what is graded here first" in said


def test_questions_predictions_and_figures_are_there_with_what_is_said_of_them():
    said = page()
    assert "where the stream behind layer 1 makes it say Paris? (&lt;bos&gt;, The, Silver" in said
    assert "A number without an effect does not say whether there was a patch." in said
    (words,) = re.findall(r"<h3>Question · <code>nothing_restores</code>.*?(?=<h2>|</html>)", said, re.DOTALL)
    assert "Two directions." in words and "Rubric." in words
    assert "Ask the room" in said and "What would have changed your mind?" not in said


def test_formulas_are_drawn_and_code_is_left_alone():
    assert sheet._markdown("a $x_1 * y * z$ and `$HOME`").count("<math") == 1
    assert "<code>$HOME</code>" in sheet._markdown("a $x_1 * y * z$ and `$HOME`")
    assert "<em>" not in sheet._markdown("a $x * y * z$")


@pytest.mark.parametrize(
    ("source", "asked"),
    [
        ('predict("a", ...)\nx = 1', [("a", [])]),
        ('predict("a", ..., options=["b", "c"])\npredict("d", 3)', [("a", ["b", "c"]), ("d", [])]),
        ('predict("a", ..., options=[*names])', [("a", ["[*names]"])]),
        ("%matplotlib inline\nprint(1)", []),
    ],
)
def test_predictions_are_read_from_a_cell(source, asked):
    assert predictions(source) == asked


def test_an_answer_is_shown_without_its_docstring():
    assert without_docstring('def f(x):\n    """Says."""\n    return x') == "def f(x):\n    return x"
    assert without_docstring("def f(x):\n    return x") == "def f(x):\n    return x"
