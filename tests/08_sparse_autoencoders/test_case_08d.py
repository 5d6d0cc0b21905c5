"""The check of the case of part 08d: the pushes are made again, on networks that the learner has not seen."""

import math
from functools import cache
from statistics import stdev

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from utils.course.cases import design_of, estimate, expect_enough, expect_reported
from utils.course.checking import expect
from utils.patching.hooks import run_with_hooks
from utils.sae.case_08d import DOSE, KINDS, LENGTH, N_WORDS, D, claim_network, whose_doing
from utils.sae.clamp import clamp_feature

EFFECTS = ("effect_latent", "effect_rest", "effect_random")
KEYS = {
    "texts": "list", "value": "number", "neighbours": "list", "random": "list",
    **dict.fromkeys(EFFECTS, "pair"),
    "verdict": (*KINDS, "undecided"),
}  # fmt: skip
SEEDS = (30, 31, 32, 35)


def test_the_seeds_are_of_all_kinds():
    assert {claim_network(seed).kind for seed in SEEDS} == set(KINDS)


class TestWhoseDoing:
    exercise = "whose_doing"

    def test_design(self, answer):
        "networks that you have not seen: the value, the neighbours, each push made again, and the verdict"
        for seed in SEEDS:
            design = design_of(answer, KEYS, seed)
            network = claim_network(seed)
            texts = expect_texts(design["texts"])
            expect_value(network, texts, design["value"])
            expect_neighbours(network, design["neighbours"])
            random = expect_random(network, design["random"])
            found, others = effects(network, texts, random), mistaken_effects(network, texts, random)
            for key in EFFECTS:
                expect_kind_of_number(key, design[key], found[key], {what: of[key] for what, of in others.items()})
                expect_reported(design[key], found[key], of=key, atol=2e-3)
            expect_verdict(design)


def activity(network, texts):
    return network.sae(network.W_E[texts].sum(1))[1][:, network.claimed]


def unit(network):
    return network.sae.W_dec / network.sae.W_dec.norm(dim=1, keepdim=True)


def true_neighbours(network):
    cosines = unit(network) @ unit(network)[network.claimed]
    return [i for i in range(len(cosines)) if i != network.claimed and abs(cosines[i]) >= 0.3]


def effects(network, texts, random, *, neighbours=None, own_length=False, one_length=False, after=False):
    """The effects of a design's pushes for each text."""
    z, before = activity(network, texts), network(texts)
    value = DOSE * z.max().item()
    length = (value - z).abs() * network.sae.W_dec[network.claimed].norm()
    if one_length:
        length = length.mean().expand(len(length))
    own = unit(network)[network.claimed]
    span = unit(network)[true_neighbours(network) if neighbours is None else neighbours]
    rest = own - own @ torch.linalg.pinv(span) @ span

    def of(hook):
        out = run_with_hooks(network, texts, [("hook_state", hook)])
        return out if after else out - before

    def push(direction):
        scale = 1 if own_length else direction.norm()
        return of(lambda x: x + length[:, None] * direction / scale)

    return {
        "effect_latent": of(clamp_feature(network.sae, network.claimed, value)).tolist(),
        "effect_rest": push(rest).tolist(),
        "effect_random": torch.stack([push(one) for one in random]).mean(0).tolist(),
    }


def expect_texts(rows) -> Tensor:
    right = all(isinstance(row, Tensor) and row.shape == (LENGTH,) and not row.is_floating_point() for row in rows)
    expect(
        bool(rows) and right, "The texts are to be a tensor [n, 5] of words' numbers.", actual="no texts",
        returned=f"{type(rows[0]).__name__ if rows else 'nothing'} as a row",
    )  # fmt: skip
    texts = torch.stack(list(rows))
    expect(bool(((texts >= 0) & (texts < N_WORDS)).all()), "Some words don't exist.", actual="other words")
    n_different = len(texts.unique(dim=0))
    expect(
        n_different == len(texts),
        "Some of your texts are the same. A copy adds no evidence.",
        actual="copies", returned=f"{n_different} different ones of {len(texts)}",
    )  # fmt: skip
    expect_enough(range(len(texts)), 60, of="texts")
    return texts


def expect_value(network, texts, value):
    largest = activity(network, texts).max().item()
    expect(largest > 0, "The latent is on in none of your texts, so that nothing is known of its size.", actual="off")
    expect(
        math.isclose(value, DOSE * largest, rel_tol=1e-3),
        "The latent is to be clamped to 10 times its largest value on your texts.", actual="value",
        returned=f"{value:.4g}", expected=f"{DOSE * largest:.4g}",
    )  # fmt: skip


def expect_neighbours(network, said):
    numbers = [int(i) for i in said]
    right = set(true_neighbours(network))
    expect(
        network.claimed not in numbers, "The claimed latent is among its own neighbours: without them nothing is left.",
        actual="itself",
    )  # fmt: skip
    missing, extra = right - set(numbers), set(numbers) - right
    expect(
        not missing,
        "You have missed a neighbour. What you take for the latent's own part still holds that one's direction, and if "
        "the word is read along it you will call the latent the cause.",
        actual=("missing", len(numbers) > 0), returned=f"{len(numbers)} neighbours", expected=f"{len(right)}",
    )  # fmt: skip
    expect(
        not extra,
        "Some of your neighbours are no neighbours: their cosine with the latent is below 0.3. Take out enough "
        "directions and nothing is left that could do anything.",
        actual="far", returned=f"{len(numbers)} neighbours", expected=f"{len(right)}",
    )  # fmt: skip


def expect_random(network, rows) -> Tensor:
    right = all(
        isinstance(row, Tensor) and row.shape == (D,) and row.isfinite().all() and row.norm() > 0 for row in rows
    )
    expect(
        bool(rows) and right, f"Random directions are rows of length {D}, none of them zero.", actual="no directions"
    )
    random = torch.stack([row.float() for row in rows])
    expect(
        len(random) >= 20, "You have too few random directions to say what chance would do.", actual="few random",
        returned=f"{len(random)} directions", expected="at least 20",
    )  # fmt: skip
    close = cosine_similarity(random, unit(network)[network.claimed][None]).abs().max().item()
    expect(
        close <= 0.9, "One of your random directions is the latent's own: it is no control.", actual="own as control",
        returned=f"a cosine of {close:.2f}",
    )  # fmt: skip
    return random


def mistaken_effects(network, texts, random):
    """What is reported in the place of effects, by the mistake."""
    return {
        what: effects(network, texts, random, **{what: True}) for what in ("after", "own_length", "one_length")
    }  # fmt: skip


def expect_kind_of_number(key, said, found, others):
    """Expect an effect at the clamp's length with a half-width, and not what is taken for one."""
    (mean, half_width), deviation = estimate(found), stdev(found)
    notes = {
        "after": f"Your {key!r} is the logit after the push. An effect is that less the logit without it.",
        "own_length": f"Your {key!r} comes from pushes of another length. A shorter or longer push proves nothing: all "
        "have the length of the clamp's.",
        "one_length": f"Your {key!r} comes from pushes that are equally long on all texts. The clamp's are not: where "
        "the latent is on already, it adds less. On each text a push is as long as the clamp's on this text.",
    }
    for what, wrong in others.items():
        there, there_width = estimate(wrong)
        confused = math.isclose(said[0], there, rel_tol=2e-3, abs_tol=2e-3) and abs(there - mean) > 0.05
        if what == "one_length":  # the mean hardly differs, so the half-width has to be this mistake's as well
            widths = (there_width, 1.96 * stdev(wrong) / len(wrong) ** 0.5)
            by_rounding = {"rel_tol": 2e-6, "abs_tol": 2e-5}
            confused = math.isclose(said[0], there, **by_rounding) and abs(there - mean) > 2e-4
            confused = confused and any(math.isclose(said[1], width, **by_rounding) for width in widths)
        expect(
            not confused, notes[what], actual=what, returned=f"{key!r}: {said[0]:.6g}",
            expected=f"{key!r}: {mean:.6g}",
        )  # fmt: skip
    for what, number in {"standard deviation": deviation, "standard error": deviation / len(found) ** 0.5}.items():
        expect(
            not (half_width > 0.01 and math.isclose(said[1], number, rel_tol=0.04)),
            f"The half-width of {key!r} is the texts' {what}, and not that of a 95 % interval.",
            actual=what, returned=f"{said[1]:.4g}", expected=f"{half_width:.4g}",
        )  # fmt: skip


def verdict_of(design):
    half = design["effect_latent"][0] / 2

    def does_it(key):
        mean, width = design[key]
        return None if abs(mean - half) <= width else mean > half

    chance, rest = does_it("effect_random"), does_it("effect_rest")
    if chance:
        return "any direction"
    if chance is False and rest is not None:
        return "the latent" if rest else "a neighbour"
    return "undecided"


def expect_verdict(design):
    follows = verdict_of(design)
    expect(
        design["verdict"] == follows, "Your verdict does not follow from your numbers.",
        actual=("verdict", design["verdict"], follows), returned=repr(design["verdict"]), expected=repr(follows),
    )  # fmt: skip


@cache
def ours(seed):
    return whose_doing(seed)


def test_the_design_finds_out_what_was_planted():
    for seed in range(40):
        assert ours(seed)["verdict"] == claim_network(seed).kind
        assert len(ours(seed)["neighbours"]) == 2


def test_the_numbers_could_have_given_each_verdict():
    for verdict, means in {
        "the latent": (2, 1.6, 0), "a neighbour": (2, 0, 0), "any direction": (2, 2, 2), "undecided": (2, 1.05, 0),
    }.items():  # fmt: skip
        assert verdict_of({key: (mean, 0.1) for key, mean in zip(EFFECTS, means, strict=True)}) == verdict
