"""Wrong and right designs for the case of part 10a."""

import itertools
import random

from utils.capstone.case_10a import BETWEEN, NOUNS, READS, sentence
from utils.course.cases import estimate
from utils.course.catalogue import right, wrong


def pairs_for(place, n=24, seed=1, contexts=None, change=None, words=None):
    rng, pairs = random.Random(seed + place), []
    contexts = contexts or list(itertools.product((False, True), repeat=2))
    for i in range(n):
        others = contexts[i % len(contexts)]
        single, many = (((*others[:place], own, *others[place:])) for own in (False, True))
        nouns = tuple(rng.sample(NOUNS, 3))
        between = words or (BETWEEN[i % 6], rng.choice(BETWEEN))
        first, second = (nouns, single, between), (nouns, many, between)
        pairs.append((sentence(*first), sentence(*(change(*second) if change else second))))
    return pairs


def designed(detectors, interval=estimate, verdict=None, **how):
    design = {name: pairs_for(place, **how) for place, name in enumerate(READS)}
    for letter, detect in detectors.items():
        effects = [interval([detect(b) - detect(a) for a, b in design[name]]) for name in READS]
        design[f"effect_{letter}"] = effects
        largest = max(range(3), key=lambda i: effects[i][0])
        decided = READS[largest] if effects[largest][0] > 1.75 else "any"
        design[letter] = verdict(effects) if verdict else decided
    return design


@wrong(
    "which_name_stands",
    "Your pairs change all nouns' numbers at once. Each of the four detectors rises on them, so they tell nothing.",
)
def all_at_once(detectors):
    return designed(
        detectors, change=lambda nouns, plural, between: (nouns, (True,) * 3, between), contexts=[(False, False)]
    )


@wrong(
    "which_name_stands",
    "Your pairs have other nouns in their second sentence. Detectors have tastes; what moved them is then left open.",
)
def other_nouns(detectors):
    return designed(detectors, change=lambda nouns, plural, between: (nouns[1:] + nouns[:1], plural, between))


@wrong(
    "which_name_stands",
    "In your pairs another noun is hardly ever plural. There a detector of any plural rises with each noun, and with "
    "another noun in the plural it would not: vary them.",
)
def others_singular(detectors):
    return designed(detectors, contexts=[(False, False)])


@wrong(
    "which_name_stands",
    "You have too few pairs: three of a kind say little about four detectors with tastes of their own.",
)
def too_few(detectors):
    return designed(detectors, n=4)


@wrong(
    "which_name_stands",
    "Your half-widths are standard deviations. An interval of the mean is narrower, by the root of the number of "
    "pairs.",
)
def deviations(detectors):
    def interval(values):
        mean, half = estimate(values)
        return mean, half * len(values) ** 0.5 / 2.07

    return designed(detectors, interval=interval)


@wrong(
    "which_name_stands",
    "All your pairs have the same two words between the nouns: one template, and nothing is known of others.",
)
def one_template(detectors):
    return designed(detectors, words=("near", "of"), n=16, seed=2)


@wrong(
    "which_name_stands",
    "You name each detector after the noun with the largest effect. One of them goes by any "
    "plural, and its three effects "
    "are alike.",
)
def largest_wins(detectors):
    return designed(detectors, verdict=lambda effects: READS[max(range(3), key=lambda i: effects[i][0])])


@wrong("which_name_stands", "Your verdict is the name that all four came with. It is what was to be tested.")
def the_given_name(detectors):
    return designed(detectors, verdict=lambda effects: "first")


@right("which_name_stands")
def other_pairs(detectors):
    return designed(detectors, n=40, seed=9)


@right("which_name_stands")
def seldom_plural(detectors):
    """The other nouns go together, and are plural in a quarter of the pairs."""
    return designed(detectors, n=32, contexts=[(False, False)] * 3 + [(True, True)])


@right("which_name_stands")
def normal_intervals(detectors):
    def interval(values):
        n = len(values)
        mean = sum(values) / n
        return [mean, 1.96 * (sum((v - mean) ** 2 for v in values) / (n - 1)) ** 0.5 / n**0.5]

    return designed(detectors, interval=interval, n=36, seed=4)
