"""The check of the case of part 07b: the removals are made again, on networks that the learner has not seen."""

import math
from functools import cache
from statistics import stdev

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from utils.course.cases import design_of, estimate, expect_enough, expect_reported
from utils.course.checking import expect
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.probes.case_07b import is_it_used
from utils.probes.erasing import project_out
from utils.probes.fit import logistic_probe
from utils.probes.planted import (
    FIRST_FILLER,
    KINDS,
    LENGTH,
    MANY,
    N_WORDS,
    ONE,
    D,
    inside,
    kind_of,
    leads,
    planted_network,
    planted_texts,
)

EFFECTS = ("effect_direction", "effect_others", "effect_both", "effect_random", "effect_number")
KEYS = {
    "texts": "list", "others": "list", "random": "list",
    **dict.fromkeys(EFFECTS, "pair"),
    "verdict": (*KINDS, "undecided"),
}  # fmt: skip
SEEDS = (41, 44, 49)


def test_the_seeds_are_of_all_kinds():
    assert {kind_of(seed) for seed in SEEDS} == set(KINDS)


class TestIsItUsed:
    exercise = "is_it_used"

    def test_design(self, answer):
        "three networks that you have not seen: the texts, the directions, each effect run again, and the verdict"
        for seed in SEEDS:
            design = design_of(answer, KEYS, seed)
            network = planted_network(seed)
            texts = expect_texts(design["texts"])
            others = expect_rows(design["others"], "others")
            random = expect_rows(design["random"], "random")
            expect_others(network, others, seed)
            expect_random(network, random)
            intact = leads(network(texts), texts)
            found = effects(network, texts, intact, others, random)
            for key in EFFECTS:
                expect_drop(key, design[key][0], found[key], intact[int(key == "effect_number")])
                expect_interval(key, design[key][1], found[key])
            expect_about(network, texts, intact, others, design, found)
            for key in EFFECTS:
                expect_reported(design[key], found[key], of=key, atol=2e-3)
            expect_number_spared(design, intact)
            expect_verdict(design, intact[0].mean().item())


def state(network, texts):
    return run_with_cache(network, texts, ["hook_state"])[1]["hook_state"]


def removed(network, texts, directions, about):
    hook = "hook_state", lambda x: project_out(x, directions, about=about)
    return leads(run_with_hooks(network, texts, [hook]), texts)


def effects(network, texts, intact, others, random, about=None):
    """The effects of a design's removals for each text."""
    about = state(network, texts).mean(0) if about is None else about
    direction = network.direction[None]
    both = intact - removed(network, texts, torch.cat([direction, others]), about)
    return {
        "effect_direction": (intact - removed(network, texts, direction, about))[0].tolist(),
        "effect_others": (intact - removed(network, texts, others, about))[0].tolist(),
        "effect_both": both[0].tolist(),
        "effect_random": torch.stack([(intact - removed(network, texts, one[None], about))[0] for one in random])
        .mean(0)
        .tolist(),
        "effect_number": both[1].tolist(),
    }


def expect_texts(rows) -> Tensor:
    """Expect enough texts that a planted network can read, none of them twice, and both sides among them."""
    right = all(isinstance(row, Tensor) and row.shape == (LENGTH,) and not row.is_floating_point() for row in rows)
    expect(
        bool(rows) and right, "The texts are to be a tensor [n, 6] of words' numbers.", actual="no texts",
        returned=f"{type(rows[0]).__name__ if rows else 'nothing'} as a row",
    )  # fmt: skip
    texts = torch.stack(list(rows))
    fits = (
        (texts[:, 0] < ONE) & (texts[:, 0] >= 0) & (texts[:, 1] >= ONE) & (texts[:, 1] <= MANY)
        & (texts[:, 2:] >= FIRST_FILLER).all(1) & (texts[:, 2:] < N_WORDS).all(1)
    )  # fmt: skip
    expect(fits.all(), "Not all of the texts are as planted_texts makes them.", actual="other words")
    n_different = len(texts.unique(dim=0))
    expect(
        n_different == len(texts),
        "Some of your texts are the same. A copy adds no evidence; it only makes the interval look narrower than it"
        " is.",
        actual="copies",
        returned=f"{n_different} different ones of {len(texts)}",
    )
    expect_enough(range(len(texts)), 100, of="texts")
    share = inside(texts).float().mean().item()
    expect(
        0.4 <= share <= 0.6,
        "Inside and outside are not about equally frequent in your texts. Then the mean state, to which a removal "
        "moves every text, itself says what most of them are.",
        actual="one-sided",
        returned=f"{share:.0%} inside",
        expected="40 to 60 %",
    )
    return texts


def expect_rows(rows, key) -> Tensor:
    right = all(
        isinstance(row, Tensor) and row.shape == (D,) and row.isfinite().all() and row.norm() > 0 for row in rows
    )
    expect(
        bool(rows) and right, f"Under {key!r} directions are expected: rows of length {D}, none of them zero.",
        actual=("no directions", key),
        returned=f"a row of shape {tuple(rows[0].shape)}" if rows and isinstance(rows[0], Tensor) else "no rows",
    )  # fmt: skip
    return torch.stack([row.float() for row in rows])


def expect_others(network, others, seed):
    """Expect directions at right angles to the network's that, with it, are all that holds the quotation."""
    expect(
        len(others) <= 6, "You remove more than six other directions. With so many, other things go as well.",
        actual="many others", returned=f"{len(others)} directions",
    )  # fmt: skip
    cosines = cosine_similarity(others, network.direction[None]).abs()
    close = cosines.max().item()
    expect(
        close <= 0.2,
        "One of your other directions has a part along the network's own. To remove the others is then to remove that "
        "direction, too, and the two can't be told apart.",
        actual=("not other", "none" if cosines.min() > 0.2 else "some"),
        returned=f"a cosine of {close:.2f}",
        expected="at most 0.2",
    )
    left = still_decodable(network, others, seed)
    expect(
        left <= 0.8,
        "With the network's direction and your others removed, the quotation can still be decoded: there are more "
        "directions that hold it, and the tense may be read from those.",
        actual=("decodable", "as before" if left > 0.95 else "less well"),
        returned=f"accuracy {left:.2f} on new texts",
        expected="at most 0.8",
    )


def still_decodable(network, others, seed):
    fitted, tested = planted_texts(800, 3 * seed), planted_texts(800, 3 * seed + 1)
    directions, about = torch.cat([network.direction[None], others]), state(network, fitted).mean(0)
    x, x_test = (project_out(state(network, texts), directions, about=about) for texts in (fitted, tested))
    probe = logistic_probe(x, inside(fitted), penalty=0.05)
    return ((probe(x_test) > 0) == inside(tested)).float().mean().item()


def expect_random(network, random):
    expect(
        len(random) >= 20, "You have too few random directions to say what chance would do.",
        actual="few random", returned=f"{len(random)} directions", expected="at least 20",
    )  # fmt: skip
    close = cosine_similarity(random, network.direction[None]).abs().max().item()
    expect(
        close <= 0.9, "One of your random directions is the network's own: it is no control.",
        actual="own as control", returned=f"a cosine of {close:.2f}",
    )  # fmt: skip


def expect_drop(key, said, found, intact):
    """Expect the lead that was lost, and not the lead that is left, where the two differ."""
    mean, half_width = estimate(found)
    left = intact.mean().item() - mean
    confused = abs(said - mean) > max(0.1 * half_width, 0.05) and math.isclose(said, left, abs_tol=0.01)
    expect(
        not confused,
        f"Your {key!r} is the lead that is left after the removal. An effect is the lead with nothing removed less "
        "that.",
        actual="left, not lost",
        returned=f"{key!r}: {said:.4g}",
        expected=f"{key!r}: {mean:.4g}",
    )


def expect_interval(key, said, found):
    """Expect a half-width, and neither of the two numbers that are taken for one."""
    deviation, (_, half_width) = stdev(found), estimate(found)
    for what, number in {"standard deviation": deviation, "standard error": deviation / len(found) ** 0.5}.items():
        expect(
            not (number > 0.02 and math.isclose(said, number, rel_tol=0.04)),
            f"The half-width of {key!r} is the texts' {what}, and not that of a 95 % interval.",
            actual=what,
            returned=f"{said:.4g}",
            expected=f"{half_width:.4g}",
        )


def expect_about(network, texts, intact, others, design, found):
    """Where a mean can't be had again: is it that of removals about the origin?"""
    key = "effect_both"
    (said, said_width), (mean, width) = design[key], estimate(found[key])
    origin = intact - removed(network, texts, torch.cat([network.direction[None], others]), torch.zeros(D))
    there, width_there = estimate(origin[0].tolist())
    ours_too = math.isclose(there, mean, abs_tol=0.02) and math.isclose(width_there, width, abs_tol=0.01)
    from_there = math.isclose(said, there, abs_tol=5e-3) and math.isclose(said_width, width_there, abs_tol=5e-3)
    expect(
        ours_too or not from_there,
        f"Your {key!r} is what a removal about the origin gives. No text has ever been there: remove about the mean "
        "state.",
        actual="about the origin",
        returned=f"{said:.4g} ± {said_width:.2g}",
        expected=f"{mean:.4g} ± {width:.2g}",
    )


def expect_number_spared(design, intact):
    lead, lost = intact[1].mean().item(), design["effect_number"][0]
    expect(
        lost <= lead / 5,
        "What you remove takes the number along: after it, the network does not know much any more, and that it "
        "does not know the tense says little about the quotation.",
        actual="number lost",
        returned=f"{lost:.3g} of a lead of {lead:.3g}",
    )


def verdict_of(design, lead):
    """What follows from the effects, and what hits."""
    pattern = []
    for name in ("direction", "others", "both"):
        mean, width = design[f"effect_{name}"]
        pattern.append(None if abs(mean - lead / 2) <= width else mean > lead / 2)
    if pattern[0]:
        return "used", pattern
    follows = {(False, True): "not used"}.get(tuple(pattern[:2]), "undecided")
    return "one of several" if pattern == [False, False, True] else follows, pattern


def expect_verdict(design, lead):
    follows, pattern = verdict_of(design, lead)
    said = {True: "hits", False: "misses", None: "is not clear"}
    names = ("the direction", "the others", "all together")
    seen = ", ".join(f"{name}: {said[hit]}" for name, hit in zip(names, pattern, strict=True))
    expect(
        design["verdict"] == follows,
        f"Your verdict does not follow from your numbers ({seen}).",
        actual=("verdict", design["verdict"]),
        returned=repr(design["verdict"]),
        expected=repr(follows),
    )


@cache
def ours(seed):
    return is_it_used(seed)


def test_the_design_finds_out_what_was_planted():
    for seed in range(12):
        assert ours(seed)["verdict"] == kind_of(seed)
        assert abs(ours(seed)["effect_random"][0]) < 0.2


def test_the_numbers_could_have_given_each_verdict():
    for verdict, means in {
        "used": (2, 0, 2), "not used": (0, 2, 2), "one of several": (0, 0, 2), "undecided": (0, 0, 0),
    }.items():  # fmt: skip
        design = {
            f"effect_{name}": (mean, 0.1) for name, mean in zip(("direction", "others", "both"), means, strict=True)
        }
        assert verdict_of(design, 2.5)[0] == verdict
    design = {"effect_direction": (1.2, 0.2), "effect_others": (2, 0.1), "effect_both": (2, 0.1)}
    assert verdict_of(design, 2.5)[0] == "undecided"


def test_the_direction_decodes():
    for seed in SEEDS:
        network, texts = planted_network(seed), planted_texts(2000, seed)
        score = (state(network, texts) - state(network, texts).mean(0)) @ network.direction
        assert ((score > 0) == inside(texts)).float().mean() > 0.97
