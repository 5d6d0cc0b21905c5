"""The check of the case of part 06c: the controls are looked at, z is had again, and new settings are tried."""

import math
from statistics import fmean, stdev

import torch

from utils.course.cases import design_of, expect_function_of_input
from utils.course.checking import expect, expect_shape
from utils.superposition.case_06c import Setting, setting
from utils.superposition.planted import same_covariance

KIND_OF = {"A": "covariance", "B": "true", "C": "dense"}
NEW = {"true": 911, "covariance": 912, "turned": 913}
LARGEST = 200  # controls for each setting
KEYS = {
    "measure": "callable",
    "control": "callable",
    "n_controls": "number",
    **{f"z_{name}": "number" for name in KIND_OF},
    **{f"verdict_{name}": ("holds", "does not") for name in KIND_OF},
}


def controls_of(design, given, n):
    """The first n controls of a setting, each looked at."""
    x, dictionary = given
    found = [design["control"](x, dictionary, seed) for seed in range(n)]
    for control in found:
        expect_shape(control, tuple(dictionary.shape), "A control has another shape than the dictionary: with more or "
                     "fewer directions, it explains more or less for that alone.")  # fmt: skip
        expect(
            bool(((control.norm(dim=1) - 1).abs() < 1e-3).all()),
            "The directions of a control have other lengths than 1.", actual="length",
            returned=f"lengths from {control.norm(dim=1).min():.3g} to {control.norm(dim=1).max():.3g}",
        )  # fmt: skip
        same = (control @ dictionary.T).abs().amax(dim=1) > 0.9999
        expect(
            not bool(same.any()),
            "A control holds directions of the dictionary itself: where that is right, the control is, too, and "
            "nothing can stand out.",
            actual="same directions", returned=f"{int(same.sum())} of {len(same)} directions",
        )  # fmt: skip
        rows = (control @ (x / x.norm(dim=1, keepdim=True)).T).abs().amax(dim=1) > 0.9999
        expect(
            not bool(rows.any()),
            "A control holds activations themselves as directions: it knows more of x than its mean and covariance.",
            actual="activations", returned=f"{int(rows.sum())} of {len(rows)} directions",
        )  # fmt: skip
    again = design["control"](x, dictionary, 0)
    expect(
        torch.allclose(again, found[0], atol=1e-5),
        "Called again with the same seed, your control is another one.", actual="not of the seed",
    )  # fmt: skip
    expect(
        not torch.allclose(found[0], found[1], atol=1e-3),
        "Your control is the same for every seed: a single draw can't say how much controls differ.",
        actual="one control",
    )  # fmt: skip
    return found


def z_of(design, given, n):
    x, dictionary = given
    values = expect_function_of_input(
        design["measure"], [(x, candidate) for candidate in [dictionary, *controls_of(design, given, n)]]
    )
    own, null = values[0], values[1:]
    spread = stdev(null)
    expect(
        spread > 1e-6 * max(map(abs, values)) > 0,
        "Your measure is the same for all controls: it can't tell one dictionary from another (with enough directions, "
        "any of them explains all of x).",
        actual="no spread", returned=f"{own:.6g} for the dictionary, {null[0]:.6g} and {null[1]:.6g} for two controls",
    )  # fmt: skip
    return (own - fmean(null)) / spread


def nearness(control, dictionary):
    """How near the directions of a control lie to those of a dictionary: the mean of the largest absolute cosine."""
    return (control @ dictionary.T).abs().amax(dim=1).mean().item()


def expect_no_features(controls, given):
    """The controls of a true dictionary come no nearer to it than chance does, but for what the covariance brings."""
    x, dictionary = given
    chance = []
    for seed in range(20):
        rows = same_covariance(x - x.mean(dim=0), len(dictionary), torch.Generator().manual_seed(seed))
        chance.append(nearness(rows / rows.norm(dim=1, keepdim=True), dictionary))
    own = fmean(nearness(control, dictionary) for control in controls)
    expect(
        own < fmean(chance) + 0.1,
        "The directions of your controls lie nearer to those of the dictionary than directions drawn with x's "
        "covariance do. If the dictionary holds the features, your controls nearly hold them, too.",
        actual="near", returned=f"nearest cosine {own:.2f} on average", expected=f"about {fmean(chance):.2f}",
    )  # fmt: skip


def in_part(n_true, seed):
    """Features, and a dictionary that holds some of them; the other directions have x's covariance."""
    (x, truth), (_, other) = setting("true", seed), setting("covariance", seed)  # the same x
    return Setting(x, torch.cat([truth[:n_true], other[n_true:]]))


def expect_verdicts(design):
    for name in KIND_OF:
        said = design[f"z_{name}"]
        follows = "holds" if said > 8 else "does not"
        expect(
            design[f"verdict_{name}"] == follows,
            f"From z = {said:.3g} follows {follows!r}, and your verdict on {name} is another.",
            actual="verdict", returned=f"verdict_{name}: {design[f'verdict_{name}']!r}",
        )  # fmt: skip


class TestDoesItHoldTheFeatures:
    exercise = "does_it_hold_the_features"

    def test_design(self, answer):
        "controls that know no features, a measure of dictionaries, z had again, and the verdicts on new settings"
        settings = {name: setting(kind, 900 + i) for i, (name, kind) in enumerate(KIND_OF.items())}
        design = design_of(answer, KEYS, settings)
        n = design["n_controls"]
        expect(
            n == int(n) and 20 <= n <= LARGEST,
            f"Your design has {n} controls, and 'n_controls' should be a whole number from 20 to {LARGEST}: with fewer "
            "the standard deviation is hardly known.",
            actual="few controls" if n < 20 else "n_controls", returned=f"{n}",
        )  # fmt: skip
        n = int(n)
        for name in KIND_OF:
            z = z_of(design, settings[name], n)
            said = design[f"z_{name}"]
            expect(
                math.isclose(said, z, rel_tol=0.005, abs_tol=0.01),
                f"Run again, your design gives z = {z:.3g} for setting {name}, and you report {said:.3g}. (z is the "
                "measure less the controls' mean, over the standard deviation of the controls, n - 1.)",
                actual=("z", round(said - z, 3)), returned=f"z_{name} = {said:.4g}", expected=f"z_{name} = {z:.4g}",
            )  # fmt: skip
        expect_verdicts(design)
        expect_of_x(design["measure"], settings)
        for name, kind in KIND_OF.items():
            expect_decided(kind, design[f"z_{name}"])
        expect_no_features([design["control"](*settings["B"], seed) for seed in range(n)], settings["B"])
        others = {"A": in_part(8, 921), "B": in_part(16, 923), "C": setting("turned", 924)}
        expect_verdicts(design_of(answer, KEYS, others))
        for kind, seed in NEW.items():
            expect_decided(kind, z_of(design, setting(kind, seed), 20))


def expect_of_x(measure, settings):
    dictionary = settings["B"].dictionary
    own, other = expect_function_of_input(measure, [(settings[name].x, dictionary) for name in ("B", "A")])
    expect(
        not math.isclose(own, other, rel_tol=1e-6),
        "Your measure of a dictionary is the same for two sets of activations: it does not look at x.",
        actual="not of x", returned=f"{own:.6g} both times",
    )  # fmt: skip


def expect_decided(kind, z):
    told = {
        "actual": ("decided", kind, "high" if z > 8 else "low" if z < -8 else "between"),
        "returned": f"z = {z:.3g}",
    }
    if kind == "true":
        expect(
            z > 8,
            "On activations made from a dictionary's own directions your design does not see it: the measure is too "
            "weak (or grows the wrong way), or the control too strong.",
            **told,
        )  # fmt: skip
    elif kind == "covariance":
        expect(
            z <= 8,
            "Your design says of directions that were drawn at random, with the activations' covariance, that they are "
            "the features. They explain more than your controls only because they lie where x varies most: give the "
            "controls the same covariance.",
            **told,
        )  # fmt: skip
    else:
        expect(
            z <= 8,
            "Your design finds features in activations that have none (Gaussian, of the same covariance), or with a "
            "dictionary that has been turned away from them.",
            **told,
        )  # fmt: skip
