"""The check of the case of part 06b: the measure is tried, the effects are had again, and on models trained anew."""

import math
from functools import cache
from statistics import fmean, stdev

import torch

from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported, lent
from utils.course.checking import expect
from utils.superposition.case_06b import FAMILIES, how_the_pair_was_given, one_model, toy_families

VERDICTS = ("together", "apart", "undecided")
KEYS = {
    "measure": "callable",
    "controls": "list",
    **{f"effect_{name}": "pair" for name in FAMILIES},
    **{f"verdict_{name}": VERDICTS for name in FAMILIES},
}
PLANTED = {"C": "together", "A": "apart"}


@cache
def given():
    return toy_families(seed=3)


@cache
def trained_anew():
    return toy_families(seed=11)


class TestHowThePairWasGiven:
    exercise = "how_the_pair_was_given"

    def test_design(self, answer):
        "a measure of direction, controls that differ in one thing, and what they say when run again and on new models"
        families = given()
        with lent(*(model for models in families.values() for model in models)):
            design = design_of(answer, KEYS, {name: list(models) for name, models in families.items()})
            controls = [pair_of(pair) for pair in design["controls"]]
            expect_enough([tuple(sorted(pair)) for pair in controls], 6, of="controls")
            measure = design["measure"]
            expect_same_in_another_basis(measure, families["B"][:4])
            for name in FAMILIES:
                pairs, effects = effects_in(measure, families[name], controls)
                key = f"effect_{name}"
                expect_difference(key, design[key][0], fmean(pairs), *estimate(effects))
                expect_interval(key, design[key][1], effects)
                expect_reported(design[key], effects, of=key, atol=1e-5)
        for name in FAMILIES:
            expect_verdict(name, design)
        anew = trained_anew()
        with lent(*(model for name in PLANTED for model in anew[name])):
            effects = {name: estimate(effects_in(measure, anew[name], controls)[1]) for name in PLANTED}
        expect_planted(effects)


def pair_of(pair):
    """One control, with what can be wrong with it."""
    whole = isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(i, int) for i in pair)
    expect(
        whole and len(set(pair)) == 2 and all(0 <= i < 8 for i in pair),
        "A control is a pair of two different features, by their numbers from 0 to 7.",
        actual="no pair",
        returned=f"{pair!r}"[:100],
    )
    expect(
        set(pair) != {0, 1},
        "The pair (0, 1) is among its own controls.",
        actual="the pair itself",
        returned=f"{pair!r}",
    )
    expect(
        len({0, 1} & set(pair)) == 1,
        "A control contains exactly one of features 0 and 1. Otherwise it differs from the pair in two "
        "things: in being "
        "no pair, and in whose features these are, which may be more or less important than the others.",
        actual="wrong features",
        returned=f"{pair!r}",
    )
    return tuple(pair)


def effects_in(measure, models, controls):
    """The measure of the pair, and what it is above the controls, for each model."""
    pairs = expect_function_of_input(measure, [(model, 0, 1) for model in models])
    items = [(model, i, j) for model in models for i, j in controls]
    others = expect_function_of_input(measure, items)
    n = len(controls)
    return pairs, [pair - fmean(others[k * n : (k + 1) * n]) for k, pair in enumerate(pairs)]


def expect_same_in_another_basis(measure, models):
    generator = torch.Generator().manual_seed(0)
    for model in models:
        turn = torch.linalg.qr(torch.randn(3, 3, generator=generator)).Q
        copy, turned = one_model(model.W[0], model.b[0]), one_model(turn @ model.W[0], model.b[0])
        for i, j in ((0, 1), (1, 5)):
            before, of_copy, after = expect_function_of_input(measure, [(model, i, j), (copy, i, j), (turned, i, j)])
            expect(
                math.isclose(before, of_copy, rel_tol=1e-2, abs_tol=1e-3),
                "A copy of a model has the same weights, and your measure says something else of it: it knows the "
                "models that it was given, and not what is in them.",
                actual="copy",
                returned=f"{of_copy:.3g} for the copy",
                expected=f"{before:.3g}, as for the model",
            )
            expect(
                math.isclose(before, after, rel_tol=1e-2, abs_tol=1e-3),
                "With the hidden dimensions turned, the model computes the same, and your measure says something else: "
                "it reads single dimensions, which have no meaning of their own here.",
                actual="basis",
                returned=f"{after:.3g} after turning",
                expected=f"{before:.3g}, as before",
            )


def expect_difference(key, said, without, mean, half_width):
    """Expect that the controls have been subtracted, where that makes a difference."""
    far = abs(said - mean) > max(0.1 * half_width, 1e-3 * abs(mean), 1e-5)
    expect(
        not (far and math.isclose(said, without, rel_tol=1e-4, abs_tol=1e-5)),
        f"Your {key!r} is the mean of the measure itself, and that of the controls has not been subtracted.",
        actual="not subtracted",
        returned=f"{key!r}: {said:.6g}",
        expected=f"{key!r}: {mean:.6g} ± {half_width:.6g}",
    )


def expect_interval(key, said, effects):
    """Expect a half-width, and neither of the two numbers that are taken for one."""
    deviation, (_, half_width) = stdev(effects), estimate(effects)
    numbers = {"standard deviation": deviation, "standard error": deviation / len(effects) ** 0.5}
    for what, number in numbers.items():
        expect(
            not (number > 1e-4 and math.isclose(said, number, rel_tol=0.04)),
            f"The half-width of {key!r} is the models' {what}, and not that of a 95 % interval.",
            actual=what,
            returned=f"{said:.6g}",
            expected=f"{half_width:.6g}",
        )


def expect_verdict(name, design):
    mean, half_width = design[f"effect_{name}"]
    follows = "together" if mean - half_width > 0 else "apart" if mean + half_width < 0 else "undecided"
    said = design[f"verdict_{name}"]
    expect(
        said == follows,
        f"Your verdict on family {name} does not follow from your numbers: {mean:.3g} ± {half_width:.2g}.",
        actual=("verdict", said, follows),
        returned=repr(said),
        expected=repr(follows),
    )


def expect_planted(effects):
    """Expect that the measure finds what was planted in models that it has not seen."""
    (together, width_1), (apart, width_2) = effects["C"], effects["A"]
    alike = max(abs(number) for effect in (effects["C"], effects["A"]) for number in effect) < 1e-9
    found_together, found_apart = together - width_1 > 0, apart + width_2 < 0
    told = {
        "returned": f"{together:.3g} ± {width_1:.2g} for a pair always on together, {apart:.3g} ± {width_2:.2g} for "
        "one that never is",
        "expected": "an interval above 0, and one below",
    }
    expect(
        found_together or found_apart,
        "In models trained anew your measure finds neither the pair that was always on together nor the one that never "
        "was.",
        actual=("neither", together + width_1 < 0 < apart - width_2, alike), **told,
    )  # fmt: skip
    expect(
        found_together,
        "In models trained anew your measure does not find the pair that was always on together.",
        actual="together missed", **told,
    )  # fmt: skip
    expect(
        found_apart,
        "In models trained anew your measure does not find the pair that was never on together.",
        actual="apart missed", **told,
    )  # fmt: skip


def test_our_design_finds_what_was_planted():
    for seed in (0, 3, 11):
        design = how_the_pair_was_given(toy_families(seed))
        assert design["verdict_A"] == "apart" and design["verdict_C"] == "together"
        assert design["effect_C"][0] > 0.7 and design["effect_A"][0] < -0.35
        assert abs(design["effect_B"][0]) < 0.5 and abs(design["effect_D"][0]) < 0.5


def test_each_verdict_could_have_followed():
    for mean, width, verdict in ((1.0, 0.2, "together"), (-1.0, 0.2, "apart"), (0.1, 0.2, "undecided")):
        design = {"effect_A": (mean, width)}
        for said in VERDICTS:
            design["verdict_A"] = said
            if said == verdict:
                expect_verdict("A", design)
