"""Helpers that checks of cases use, on a small case: which of two properties of a word does a toy model listen to?"""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from utils.course import feedback, runner
from utils.course.cases import (
    design_of,
    estimate,
    expect_enough,
    expect_function_of_input,
    expect_reported,
    lent,
)
from utils.course.checking import Answer, AnswerRaised, Mismatch, expect
from utils.course.manifest import Exercise
from utils.course.runner import run_checks

KEYS = {"pairs": "list", "changes": ("length", "capital"), "measure": "callable", "effect": "pair", "note": "text"}
DRAWN = np.random.default_rng(0)


def model(word: str) -> float:
    """Listens to a word's length, and not to its capital; a little differently for each word."""
    return len(word) + 0.01 * (sum(map(ord, word.lower())) % 7)


def reference(model):
    pairs = [(c * 3, c * 5) for c in "abcdef"]
    mean, half_width = estimate([model(b) - model(a) for a, b in pairs])
    return {
        "pairs": pairs,
        "changes": "length",
        "measure": lambda model, word: model(word),
        "effect": (mean, half_width),
        "note": "Two letters more, the same letter.",
    }


class ListensTo:
    exercise = "listens_to"

    def test_pairs(self, answer):
        "each pair changes the length and nothing else"
        pairs = design_of(answer, KEYS, model)["pairs"]
        expect_enough(pairs, 6, of="pairs")
        for a, b in pairs:
            expect(a.istitle() == b.istitle(), f"{a!r} and {b!r} differ in the capital as well.", actual=(a, b))

    def test_effect(self, answer):
        "the effect handed in is what the design gives"
        design = design_of(answer, KEYS, model)
        values = [
            expect_function_of_input(design["measure"], [(model, pair[i]) for pair in design["pairs"]]) for i in (0, 1)
        ]
        expect_reported(design["effect"], [b - a for a, b in zip(*values, strict=True)])


def designed(**changes):
    """The reference's design with something else in it."""
    return lambda model: reference(model) | changes


@pytest.fixture
def run(monkeypatch):
    """Run the case's checks on an answer, as a notebook does."""
    monkeypatch.setattr(runner, "check_class", lambda exercise: ListensTo)
    monkeypatch.setattr(runner, "exercises", dict)
    monkeypatch.setattr(runner, "wrong_answers", lambda exercise: [])
    monkeypatch.setattr(Exercise, "reference", property(lambda self: reference))
    fields = {"name": "listens_to", "module": __name__, "chapter": "01_mini", "part": "01_mini", "number": "01"}
    case = Exercise(**fields, points=4, difficulty=2, importance=5, minutes=20, hints=(), case=True)
    return lambda answer: run_checks(case, answer, seed=3)


def test_the_reference_passes(run):
    assert run(reference).status == "passed"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pairs": [("aaa", "aaaaa")] * 6}, "numbers 1 and 2"),
        ({"pairs": [("aaa", "aaaaa"), ("bbb", "bbbbb")]}, "has 2 pairs, and this question needs at least 6"),
        ({"pairs": [(c, c.upper() + c) for c in "abcdef"]}, "differ in the capital as well"),
        ({"changes": "colour"}, "needs one of 'length', 'capital'"),
        ({"changes": 3}, "needs one of 'length', 'capital'"),
        ({"measure": 3}, "Under 'measure' your design needs a function"),
        ({"measure": lambda model, word: float("nan")}, "one finite number"),
        ({"measure": lambda model, word: word}, "one finite number"),
        ({"measure": lambda model, word: DRAWN.normal()}, "more than its arguments"),
        ({"effect": (2.0, float("nan"))}, "a pair of finite numbers"),
        ({"effect": 2.0}, "a pair of finite numbers"),
        ({"effect": (5.0, 0.03)}, "you report 5"),
        ({"effect": (-2.0, 0.03)}, "you report -2"),
        ({"note": "  "}, "a text that says something"),
        ({"pairs": "aaa"}, "needs a list"),
    ],
)
def test_a_wrong_design_is_told_what_is_wrong_with_it(run, changes, said):
    report = run(designed(**changes))
    assert report.status == "failed"
    assert said in report.failures[0].note


@pytest.mark.parametrize(
    ("rename", "said"),
    [
        ({"measure": "mesure"}, "It has 'mesure': is that the one?"),
        ({"measure": "f"}, "Your design has no 'measure'."),
        ({}, "Nobody reads 'verdict'"),
    ],
)
def test_a_missing_misspelt_or_unknown_key_is_named(run, rename, said):
    def answer(model):
        design = {rename.get(key, key): value for key, value in reference(model).items()}
        return design if rename else design | {"verdict": "length"}

    assert said in run(answer).failures[0].note


def test_what_is_no_design_is_refused(run):
    for result, said in (([1, 2], "[1, 2]"), (None, "None")):
        failure = run(lambda model, result=result: result).failures[0]
        assert "A design is a dict" in failure.note and failure.returned == said


def test_another_measure_and_other_prompts_pass(run):
    def answer(model):
        pairs = [(c * 2, c * 9) for c in "ghijklm"]
        effect = estimate([torch.tensor(model(b) - model(a)) for a, b in pairs])
        return {
            "pairs": pairs,
            "changes": "length",
            "measure": lambda model, text: torch.tensor(model(text)),
            "effect": [np.float64(effect[0]), torch.tensor(effect[1])],
            "note": "Seven letters more.",
        }

    assert run(answer).status == "passed"


def test_the_same_fault_is_at_the_same_place_whatever_the_number_of_trials(run):
    """Otherwise a wrong design of the catalogue would be told only to designs with as many trials as it has."""
    places = [
        run(designed(pairs=[(c, c * 2) for c in letters], effect=(9.0, 0.0))).failures[0].place
        for letters in ("abcdef", "abcdefgh")
    ]
    assert places[0] == places[1]


def test_an_exception_in_a_measure_is_the_learners_and_says_what_was_called(run):
    report = run(designed(measure=lambda model, word: model(word).mean()))
    failure = next(f for f in report.failures if f.kind == "raised")
    assert failure.note.startswith("AttributeError")
    assert failure.call.text == "design[\"measure\"](model=model, word='aaa')"
    assert "case 01" in feedback.as_text(replace(report, failures=[failure]))


def test_a_measure_that_never_ends_or_leaves_the_process_is_one_failure(run):
    for line in (lambda model, word: exec("raise SystemExit(0)"), lambda model, word: exec("raise KeyboardInterrupt")):
        assert [f.kind for f in run(designed(measure=line)).failures] == ["raised"]


def test_a_measure_may_not_change_its_inputs():
    answer = Answer(lambda: {"parts": [{"f": lambda x: x.add_(1)}, 3]})
    design = design_of(answer, {"parts": "list"})
    with pytest.raises(Mismatch, match="changed its input `x` in place"):
        design["parts"][0]["f"](torch.zeros(2))
    assert answer.last_call.text == "design[\"parts\"][0]['f'](x=[0, 0] (float32))"
    assert design["parts"][1] == 3


def test_a_stub_in_a_design_is_not_attempted():
    def stub(x):
        raise NotImplementedError

    design = design_of(Answer(lambda: {"measure": stub}), {"measure": "callable"})
    with pytest.raises(Exception) as caught:
        design["measure"](1)
    assert not isinstance(caught.value, AnswerRaised)


def test_a_measure_that_remembers_is_noticed_whatever_the_order():
    seen = []

    def measure(x):
        seen.append(x)
        return len(set(seen))

    with pytest.raises(Mismatch, match="depends on more than its arguments"):
        expect_function_of_input(measure, [1, 2, 3])
    assert expect_function_of_input(lambda x: 2 * x, [1, 2, 3]) == [2.0, 4.0, 6.0]


def test_estimate_is_students_interval():
    from scipy import stats

    values = [1.0, 4.0, 2.0, 8.0, 5.0]
    mean, half_width = estimate(values)
    low, high = stats.t.interval(0.95, 4, loc=np.mean(values), scale=stats.sem(values))
    assert mean == pytest.approx(4.0)
    assert (mean - half_width, mean + half_width) == pytest.approx((low, high))
    assert estimate([3.0, 3.0, 3.0]) == (3.0, 0.0)
    for few in ([], [1.0]):
        with pytest.raises(Mismatch, match="at least two independent units"):
            estimate(few)


def test_what_is_reported_has_to_follow_from_the_values():
    values = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0]
    mean, half_width = estimate(values)
    normal = half_width / 2.3646 * 1.96
    for right in ((mean, half_width), (mean + 0.09 * half_width, half_width), (mean, normal)):
        expect_reported(right, values)
    deviation = half_width / 2.3646 * math.sqrt(8)
    for wrong, said in (
        ((mean + 0.11 * half_width, half_width), f"a mean of 4.5 ± {half_width:.2g}"),
        ((mean, half_width / 2.3646), "The half-width of its 95 % interval over 8 units is 2.05"),
        ((mean, deviation), "you report 2.45"),
        ((mean, 2 * half_width), "The mean agrees"),
    ):
        with pytest.raises(Mismatch) as caught:
            expect_reported(wrong, values)
        assert said in caught.value.note


def test_a_report_on_one_of_several_effects_names_it():
    for wrong, said in (
        ((2.0, 1.0), "for 'effect_word', and you report 2"),
        ((4.5, 9.0), "The mean of 'effect_word' agrees."),
    ):
        with pytest.raises(Mismatch, match=said) as caught:
            expect_reported(wrong, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0], of="effect_word")
        assert caught.value.returned.startswith("'effect_word': ")
    expect_reported((1e-4, 0.0), [0.0, 0.0, 0.0], atol=1e-3)


def test_units_without_any_spread_have_an_interval_of_nothing():
    expect_reported((2.0, 0.0), [2.0, 2.0, 2.0])
    expect_reported((0.0, 0.0), [0.0, 0.0, 0.0])
    with pytest.raises(Mismatch):
        expect_reported((2.0, 0.5), [2.0, 2.0, 2.0])


def test_units_are_compared_by_value():
    expect_enough([torch.tensor([1, 2]), torch.tensor([1, 3])], 2, of="prompts")
    with pytest.raises(Mismatch, match="Two of your prompts are the same"):
        expect_enough([torch.tensor([1, 2]), torch.tensor([1, 2])], 2, of="prompts")


def watch(model):
    model[0].register_forward_hook(lambda module, inputs, output: 2 * output)


def watch_all(model):
    model.register_forward_pre_hook(lambda module, inputs: inputs)


def change(model):
    with torch.no_grad():
        model[0].weight.add_(1)


def put_another_in_its_place(model):
    model[0].weight = torch.nn.Parameter(torch.zeros(2, 2))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (watch, "hooks at 0"),
        (watch_all, "hooks at Sequential"),
        (change, "changed weights at 0.weight"),
        (put_another_in_its_place, "changed weights at 0.weight"),
    ],
)
def test_a_model_that_is_lent_comes_back_as_it_was(spoil, said):
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.ReLU())
    before = model(torch.ones(2))
    with pytest.raises(Mismatch, match="leaves") as told, lent(model):
        spoil(model)
    assert told.value.returned == said
    assert torch.equal(model(torch.ones(2)), before)
    with pytest.raises(Mismatch, match="something else"), lent(model):  # what was found first is told
        spoil(model)
        expect(False, "something else")
    assert torch.equal(model(torch.ones(2)), before)


def test_a_model_that_was_only_run_is_no_matter():
    model = torch.nn.Linear(2, 2)
    with lent(model):
        model(torch.ones(2)).sum().backward()
