from functools import cache

import torch

from utils.attribution.case_01b import first_network, what_moves_the_share
from utils.attribution.shapley import shapley_exact, shapley_sampling
from utils.attribution.tumours import load_tumours
from utils.course.cases import estimate
from utils.course.catalogue import right, wrong

DATA = load_tumours()


@cache
def ours():
    return what_moves_the_share()


BENIGN, MALIGNANT = ((DATA.malignant == label).nonzero()[:, 0].tolist() for label in (0, 1))


def share_of(feature):
    def share(model, patient, background):
        return shapley_exact(model, patient, background)[DATA.features.index(feature)].item()

    return share


def designed(pairs, control_pairs, verdict="the class", measure=None, **changes):
    patient, measure = ours()["patient"], measure or share_of("concave points")

    def run(pairs):
        values = [
            [measure(first_network(), DATA.table[patient], DATA.table[list(rows)]) for rows in pair] for pair in pairs
        ]
        return [second - first for first, second in values]

    found = {
        "patient": patient,
        "pairs": pairs,
        "control_pairs": control_pairs,
        "measure": measure,
        "effect": estimate(run(pairs)),
        "control_effect": estimate(run(control_pairs)),
        "verdict": verdict,
    }
    return found | changes


def draws(rows, n, size=20, seed=0):
    generator = torch.Generator().manual_seed(seed)
    kept = [row for row in rows if row != ours()["patient"]]
    return [[kept[i] for i in torch.randperm(len(kept), generator=generator)[:size]] for _ in range(n)]


@wrong(
    "what_moves_the_share",
    "There are backgrounds of both classes in your pairs, so that only a part of what you ask about changes. Draw each "
    "background from one class.",
)
@cache
def mixed_second():
    second = [a[:10] + b[:10] for a, b in zip(draws(BENIGN, 8, seed=1), draws(MALIGNANT, 8, seed=2), strict=True)]
    return designed(list(zip(draws(BENIGN, 8), second, strict=True)), ours()["control_pairs"])


@wrong(
    "what_moves_the_share",
    "Your benign backgrounds have another number of rows than your malignant ones: class and size change together, and "
    "either would explain a change.",
)
@cache
def of_different_sizes():
    pairs = list(zip(draws(BENIGN, 8, size=40), draws(MALIGNANT, 8, size=12), strict=True))
    return designed(pairs, ours()["control_pairs"])


@wrong(
    "what_moves_the_share",
    "You handed a pair of backgrounds in more than once. One draw is one unit: whether another draw would say the same "
    "is just what the interval is for.",
)
@cache
def one_draw():
    pair = ours()["pairs"][0]
    return designed([pair] * 10, ours()["control_pairs"])


@wrong(
    "what_moves_the_share",
    "Your control compares benign with malignant backgrounds again, and so changes what is on trial. A control leaves "
    "the class alone and changes only who was drawn.",
)
@cache
def control_of_two_classes():
    return designed(ours()["pairs"], ours()["pairs"], verdict="not shown")


@wrong(
    "what_moves_the_share",
    "The two backgrounds of your control pairs have rows in common, and by these they cannot differ. Cut one draw in "
    "two, and they have none.",
)
@cache
def control_of_near_copies():
    pairs = [(rows[:20], rows[1:21]) for rows in draws(BENIGN, 8, size=21)]
    return designed(ours()["pairs"], pairs)


@wrong(
    "what_moves_the_share",
    "Your first backgrounds are malignant and your second ones benign. The experiment is a good one, and the change is "
    "counted from benign to malignant: turn the pairs round, and the sign with them.",
)
@cache
def malignant_first():
    return designed([pair[::-1] for pair in ours()["pairs"]], ours()["control_pairs"])


@wrong(
    "what_moves_the_share",
    "A background of your pairs comes again in another pair, with all its rows or nearly all. Pairs that share a "
    "background share its accidents, and the interval is narrower than it should be: draw both anew for each pair.",
)
@cache
def one_benign_for_all():
    benign = draws(BENIGN, 1)[0]
    return designed([(benign, rows) for rows in draws(MALIGNANT, 8)], ours()["control_pairs"])


@wrong(
    "what_moves_the_share",
    "The backgrounds of your control pairs hold benign and malignant tumours side by side. Draw each control pair from "
    "one class, so that it differs from your pairs in that alone.",
)
@cache
def control_of_mixed_backgrounds():
    mixed = [a + b for a, b in zip(draws(BENIGN, 8), draws(MALIGNANT, 8), strict=True)]
    return designed(ours()["pairs"], [(rows[::2], rows[1::2]) for rows in mixed])


@wrong(
    "what_moves_the_share",
    "Your control's backgrounds are larger than those of your pairs. A large background hardly depends on who was "
    "drawn, so this control would be quiet even if the draw explained your effect.",
)
@cache
def large_control():
    both = [(rows[:60], rows[60:]) for rows in draws(BENIGN, 8, size=120)]
    return designed(ours()["pairs"], both)


@wrong(
    "what_moves_the_share",
    "Your measure does not ask the model that it is handed: it calls one by name, or looks at rows alone. Whoever "
    "wants to repeat your experiment with another network gets the old numbers.",
)
@cache
def network_by_name():
    def share(_, patient, background):
        return share_of("concave points")(first_network(), patient, background)

    return designed(ours()["pairs"], ours()["control_pairs"], measure=share)


@wrong(
    "what_moves_the_share",
    "Your measure does not look at the patient that it is handed: it takes one from outside. For another patient it "
    "would give the old numbers.",
)
@cache
def patient_by_name():
    def share(model, _, background):
        return share_of("concave points")(model, DATA.table[ours()["patient"]], background)

    return designed(ours()["pairs"], ours()["control_pairs"], measure=share)


@wrong(
    "what_moves_the_share",
    "Your measure answers to whatever the model reads, as an output does, or the sum of all shares. The question is "
    "about the share of one feature: choose one.",
)
@cache
def mean_output():
    def base(model, patient, background):
        return model(background).mean().item()

    return designed(ours()["pairs"], ours()["control_pairs"], measure=base)


@wrong(
    "what_moves_the_share",
    "Your numbers show it and your verdict takes it back: the effect of the class is many times what another draw of "
    "patients does.",
)
@cache
def too_modest():
    return ours() | {"verdict": "not shown"}


@wrong(
    "what_moves_the_share",
    "Your measure draws orders at random each time it is called, without a seed, so it gives another number for the "
    "same background. Use the exact values, or give each call a generator of the same seed.",
)
@cache
def drawn_anew():
    generator = torch.Generator().manual_seed(0)

    def share(model, patient, background):
        values, _ = shapley_sampling(model, patient, background, n_permutations=8, generator=generator)
        return values[DATA.features.index("concave points")].item()

    return designed(ours()["pairs"], ours()["control_pairs"], measure=share)


@right("what_moves_the_share")
@cache
def of_another_feature_by_sampled_orders():
    """The share of concavity, from seeded orders; malignant control pairs; tuples in place of lists."""

    def share(model, patient, background):
        generator = torch.Generator().manual_seed(0)
        values, _ = shapley_sampling(model, patient, background, n_permutations=32, generator=generator)
        return values[DATA.features.index("concavity")].item()

    both = draws(MALIGNANT, 9, size=30, seed=3)
    control_pairs = tuple((tuple(rows[:15]), tuple(rows[15:])) for rows in both)
    pairs = tuple(zip(draws(BENIGN, 9, size=15), draws(MALIGNANT, 9, size=15, seed=4), strict=True))
    return designed(pairs, control_pairs, measure=share)


@right("what_moves_the_share")
@cache
def nothing_to_be_shown():
    """A feature whose share the class does not move for this patient: the honest verdict is that nothing is shown."""
    share = share_of("fractal dimension")
    return designed(ours()["pairs"], ours()["control_pairs"], verdict="not shown", measure=share)
