import torch

from utils.attribution.case_01b import first_network, what_moves_the_share
from utils.attribution.shapley import shapley_exact, shapley_sampling
from utils.attribution.tumours import load_tumours
from utils.course.cases import estimate
from utils.course.catalogue import right, wrong

DATA = load_tumours()
REFERENCE = what_moves_the_share()
BENIGN, MALIGNANT = ((DATA.malignant == label).nonzero()[:, 0].tolist() for label in (0, 1))


def share_of(feature):
    def share(model, patient, background):
        return shapley_exact(model, patient, background)[DATA.features.index(feature)].item()

    return share


def designed(pairs, control_pairs, verdict="the class", measure=None, **changes):
    patient, measure = REFERENCE["patient"], measure or share_of("concave points")

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
    kept = [row for row in rows if row != REFERENCE["patient"]]
    return [[kept[i] for i in torch.randperm(len(kept), generator=generator)[:size]] for _ in range(n)]


@wrong(
    "what_moves_the_share",
    "Your second backgrounds are half benign and half malignant, so that only half of what you ask about changes. Draw "
    "each background from one class.",
)
def mixed_second():
    second = [a[:10] + b[:10] for a, b in zip(draws(BENIGN, 8, seed=1), draws(MALIGNANT, 8, seed=2), strict=True)]
    return designed(list(zip(draws(BENIGN, 8), second, strict=True)), REFERENCE["control_pairs"])


@wrong(
    "what_moves_the_share",
    "Your benign backgrounds have 40 rows and your malignant ones 12: class and size change together, and either would "
    "explain a change.",
)
def of_different_sizes():
    pairs = list(zip(draws(BENIGN, 8, size=40), draws(MALIGNANT, 8, size=12), strict=True))
    return designed(pairs, REFERENCE["control_pairs"])


@wrong(
    "what_moves_the_share",
    "You drew one pair of backgrounds and handed it in ten times. One draw is one unit: whether another draw would say "
    "the same is just what the interval is for.",
)
def one_draw():
    pair = REFERENCE["pairs"][0]
    return designed([pair] * 10, REFERENCE["control_pairs"], effect=(REFERENCE["effect"][0], 0.0))


@wrong(
    "what_moves_the_share",
    "Your control compares benign with malignant backgrounds again, and so changes what is on trial. A control leaves "
    "the class alone and changes only who was drawn.",
)
def control_of_two_classes():
    return designed(REFERENCE["pairs"], REFERENCE["pairs"], verdict="not shown")


@wrong(
    "what_moves_the_share",
    "The two backgrounds of your control pairs share most of their rows, so they could hardly have differed. Let them "
    "have no row in common.",
)
def control_of_near_copies():
    pairs = [(rows[:20], rows[1:21]) for rows in draws(BENIGN, 8, size=21)]
    return designed(REFERENCE["pairs"], pairs)


@wrong(
    "what_moves_the_share",
    "Your numbers show it and your verdict takes it back: the effect of the class is many times what another draw of "
    "patients does.",
)
def too_modest():
    return REFERENCE | {"verdict": "not shown"}


@wrong(
    "what_moves_the_share",
    "Your measure draws orders at random each time it is called, without a seed, so it gives another number for the "
    "same background. Use the exact values, or give each call a generator of the same seed.",
)
def drawn_anew():
    generator = torch.Generator().manual_seed(0)

    def share(model, patient, background):
        values, _ = shapley_sampling(model, patient, background, n_permutations=8, generator=generator)
        return values[DATA.features.index("concave points")].item()

    return designed(REFERENCE["pairs"], REFERENCE["control_pairs"], measure=share)


@right("what_moves_the_share")
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
def nothing_to_be_shown():
    """A measure that no background moves: the honest verdict is that nothing is shown."""

    def always_the_output(model, patient, background):
        return model(patient[None]).item()

    return designed(REFERENCE["pairs"], REFERENCE["control_pairs"], verdict="not shown", measure=always_the_output)
