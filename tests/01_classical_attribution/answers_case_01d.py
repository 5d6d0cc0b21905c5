from functools import cache

import torch

from utils.attribution.case_01d import activations_of_pairs, ink_of, whose_discovery
from utils.course.catalogue import right, wrong
from utils.models.digits_cnn import digits_data, load_digits_cnn, random_digits_cnn

DATA = digits_data()
INK, LABELS = ink_of(DATA.test_images).tolist(), DATA.test_labels.tolist()


@cache
def ours():
    return whose_discovery()


def strengths(activations, labels):
    """|t| of each unit."""
    columns = activations - activations.mean(0)
    columns = columns / columns.norm(dim=0).clamp_min(1e-12)
    centred = labels - labels.mean()
    r = (centred / centred.norm()) @ columns
    return (r * ((len(labels) - 2) / (1 - r**2)).sqrt()).abs()


def strongest(activations, labels):
    return strengths(activations, labels).max().item()


def matched(digit, tolerance=0.5, partners=range(10)):
    free, pairs = [i for i, label in enumerate(LABELS) if label != digit and label in partners], []
    for number in (i for i, label in enumerate(LABELS) if label == digit):
        nearest = min(free, key=lambda other: abs(INK[other] - INK[number]))
        if abs(INK[nearest] - INK[number]) <= tolerance:
            pairs.append((number, nearest))
            free.remove(nearest)
    return pairs


def exchanged(n_pairs, n=20, seed=1):
    generator = torch.Generator().manual_seed(seed)
    first = torch.randint(2, (n, n_pairs), generator=generator).float()
    return list(torch.stack([first, 1 - first], dim=2).flatten(1))


def designed(digit=8, pairs=None, measure=strongest, labellings=None, seeds=tuple(range(20)), **changes):
    pairs = matched(digit) if pairs is None else pairs
    labellings = exchanged(len(pairs)) if labellings is None else labellings
    trained = activations_of_pairs(load_digits_cnn(), pairs)
    random = [activations_of_pairs(random_digits_cnn(seed), pairs) for seed in seeds]
    true = torch.tensor([1.0, 0.0]).repeat(len(pairs))
    own = measure(trained, true)
    p_shuffled = (1 + sum(measure(trained, row) >= own for row in labellings)) / (1 + len(labellings))
    p_random = (1 + sum(measure(each, true) >= own for each in random)) / (1 + len(seeds))
    shares = []
    for row in labellings[:10]:
        value = measure(trained, row)
        rivals = [measure(each, row) for each in random]
        shares.append(sum((rival > value) + 0.5 * (rival == value) for rival in rivals) / len(rivals))
    return {
        "digit": digit,
        "pairs": pairs,
        "measure": measure,
        "labellings": labellings,
        "random_seeds": list(seeds),
        "p_shuffled": p_shuffled,
        "p_random": p_random,
        "control": sum(shares) / len(shares),
        "verdict": "chance" if p_shuffled > 0.05 else "the images" if p_random > 0.05 else "the network",
    } | changes


@wrong(
    "whose_discovery",
    "You take the next images that show another digit, whatever their ink. Eights have more of it than most, and every "
    "unit that adds up ink then responds to eights. Look for partners of equal ink.",
)
def any_other_digit():
    eights, others = ([i for i, label in enumerate(LABELS) if (label == 8) == is_eight] for is_eight in (True, False))
    return designed(pairs=list(zip(eights, others, strict=False)))


@wrong(
    "whose_discovery",
    "Your eights are all compared with twos. A unit that knows twos would be found as well, and be called a unit for "
    "eights. Take partners of five digits or more.",
)
def twos_only():
    return designed(pairs=matched(8, partners=[2]))


@wrong(
    "whose_discovery",
    "You deal the labels out over all images, so that both of a pair may get the same. Pairs were matched for their "
    "ink, and a light image of one pair could not have stood for a dark one of another: exchange labels within pairs.",
)
def shuffled_over_all():
    pairs, generator = matched(8), torch.Generator().manual_seed(1)
    true = torch.tensor([1.0, 0.0]).repeat(len(pairs))
    return designed(pairs=pairs, labellings=[true[torch.randperm(len(true), generator=generator)] for _ in range(20)])


@wrong(
    "whose_discovery",
    "Your measure is a difference of activations, in their own unit. A trained network's activations are larger than a "
    "random one's, so it stands out with shuffled labels too. Divide by their spread, as t does.",
)
def difference_of_activations():
    def difference(activations, labels):
        return (activations[labels == 1].mean(0) - activations[labels == 0].mean(0)).abs().max().item()

    return designed(measure=difference)


@wrong(
    "whose_discovery",
    "Your p-value of the shuffled labels leaves out the ones: b / n in place of (1 + b) / (1 + n). It says 0, which "
    "twenty labellings cannot show: the true one is one of those that were possible.",
)
def without_the_ones():
    return designed(p_shuffled=0.0)


@wrong(
    "whose_discovery",
    "Your verdict rests on the shuffled labels alone. They only rule out chance: random networks respond to your digit "
    "as strongly, so what you found is in the images.",
)
def first_null_only():
    return designed(digit=3, verdict="the network")


@wrong(
    "whose_discovery",
    "Your measure gives the same number for labels that all units follow and for labels dealt out anew, so that "
    '"chance" is the only verdict that can come out. Either it does not use which image has which label, or it fits '
    "whatever labels it is given, as 144 units can.",
)
def never_looks_at_labels():
    return designed(measure=lambda activations, labels: (activations.std(0) > 0).float().mean().item())


@wrong(
    "whose_discovery",
    "All your random networks are drawn from one seed: it is one network, twenty times. Each network needs a seed of "
    "its own.",
)
def one_seed():
    return designed(seeds=(0,) * 20)


@wrong(
    "whose_discovery",
    "Your measure looks at few units, which were picked beforehand. If they are the trained network's best on these "
    "very labels, shuffled labels and random networks never had that choice: let the measure search all of them.",
)
def best_unit_beforehand():
    pairs = matched(8)
    trained = activations_of_pairs(load_digits_cnn(), pairs)
    best = strengths(trained, torch.tensor([1.0, 0.0]).repeat(len(pairs))).argmax()
    return designed(pairs=pairs, measure=lambda acts, labels: strengths(acts[:, best, None], labels).item())


@wrong(
    "whose_discovery",
    "The true labels are among your labellings. They are counted by the 1 in (1 + b) / (1 + n); the n labellings are "
    "all dealt out anew.",
)
def true_labels_among_them():
    pairs = matched(8)
    true = torch.tensor([1.0, 0.0]).repeat(len(pairs))
    return designed(pairs=pairs, labellings=[true, *exchanged(len(pairs))])


@right("whose_discovery")
def labellings_in_one_tensor():
    """Twenty pairs and a thousand labellings, some of which may be alike by chance: one tensor [row, image]."""

    def mean_r(activations, labels):
        columns = activations - activations.mean(0)
        centred = labels - labels.mean()
        r = (centred / centred.norm()) @ (columns / columns.norm(dim=0).clamp_min(1e-12))
        return r.abs().mean().item()

    rows = exchanged(20, 600, seed=4)
    rows[77] = rows[5]
    return designed(pairs=matched(8)[:20], measure=mean_r, labellings=torch.stack(rows))


@right("whose_discovery")
def threes_are_the_images():
    """Another digit, for which the strongest unit of some random networks is as good."""
    return designed(digit=3)


@right("whose_discovery")
def how_many_units():
    """Counts units, and hands in plain lists."""

    def count(activations, labels):
        return int((strengths(torch.as_tensor(activations), labels) > 2).sum())

    pairs = matched(5, tolerance=0.3)
    found = designed(digit=5, pairs=pairs, measure=count, labellings=exchanged(len(pairs), 30, seed=7))
    return found | {"labellings": [row.int().tolist() for row in found["labellings"]], "pairs": list(map(list, pairs))}


@right("whose_discovery")
def mean_over_units():
    """The mean size of the standardised difference of the hidden layer's units, and other seeds."""

    def mean_difference(activations, labels):
        hidden = activations[:, 80:]
        gap = hidden[labels == 1].mean(0) - hidden[labels == 0].mean(0)
        return (gap.abs() / hidden.std(0).clamp_min(1e-6)).mean()

    return designed(digit=9, measure=mean_difference, seeds=tuple(range(100, 125)))
