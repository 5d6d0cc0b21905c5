"""The case of part 10a: which name does a detector deserve?"""

import itertools
import random
import zlib
from collections.abc import Callable

import torch

from utils.capstone.controls import refutation_test
from utils.course.cases import estimate

NOUNS = ("dog", "cat", "bird", "horse", "rabbit", "duck", "goat", "frog", "cow", "key", "lamp", "boat")
BETWEEN = ("near", "behind", "beside", "of", "with", "above")
READS = ("first", "middle", "last")
NAMES = (*READS, "any")


def sentence(nouns: tuple[str, str, str], plural: tuple[bool, bool, bool], between: tuple[str, str]) -> str:
    """Three nouns, the first of which is the subject: "The dogs of the cat near the birds"."""
    a, b, c = (noun + "s" * many for noun, many in zip(nouns, plural, strict=True))
    return f"The {a} {between[0]} the {b} {between[1]} the {c}"


def detector(kind: str, seed: int) -> Callable[[str], float]:
    """A planted detector: a number for each sentence.

    It rises by 2 if the noun that it is named after is plural, or if any noun is; and a little with things that have
    nothing to do with number: which nouns there are, and what stands between them.
    """
    rng = random.Random(f"detector {kind} {seed}")
    taste = {word: 0.4 * rng.random() for word in (*NOUNS, *BETWEEN)}
    base = rng.uniform(-1, 1)

    def score(text: str) -> float:
        words = text.split()
        nouns = words[1::3]
        plural = [noun not in NOUNS for noun in nouns]
        found = any(plural) if kind == "any" else plural[READS.index(kind)]
        other = sum(taste.get(word.removesuffix("s") if word not in taste else word, 0.0) for word in words)
        noise = zlib.crc32(f"{seed} {text}".encode()) / 2**32 - 0.5
        return base + 2.0 * found + other + 0.3 * noise

    return score


def detectors(seed: int) -> dict[str, Callable[[str], float]]:
    """Four detectors, "A" to "D", one of each kind, in an order of the seed."""
    order = random.Random(seed).sample(NAMES, 4)
    return {letter: detector(kind, 100 * seed + i) for i, (letter, kind) in enumerate(zip("ABCD", order, strict=True))}


def which_name_stands(detectors: dict[str, Callable[[str], float]]) -> dict[str, object]:
    """Design the sentences that decide: which noun's number does a detector go by?

    All four detectors were called "the subject is plural", for all are high on "The dogs of the cats near the birds"
    and low on "The dog of the cat near the bird". In truth one goes by the *first* noun (the subject), one by the
    *middle* one, one by the *last* one; and one is high if *any* noun is plural.

    A sentence is "The NOUN WORD the NOUN WORD the NOUN": nouns from ``NOUNS`` (in the plural with an s behind), words
    from ``BETWEEN``, both of ``utils.capstone.case_10a``. A detector's *effect* on a pair is its value on the second
    sentence less that on the first. Detectors are also moved a little by nouns and words themselves.

    Args:
        detectors: Functions of a sentence, by letter.

    Returns:
        A dict with these keys:

        "first", "middle", "last": For each noun a list of at least 16 pairs (sentence, sentence), no pair twice. In
            both sentences all is the same but this noun's number: singular in the first, plural in the second. All
            detectors are tried on the same pairs. Of each of the two other nouns at least a quarter of the pairs have
            the singular, and at least a quarter the plural; and at least three different combinations of the two words
            occur.
        "effect_A", "effect_B", …: For each detector a list of three pairs (mean, half-width of its 95 % interval over
            pairs, as ``estimate`` gives it): its effect on the pairs of the first noun, of the middle one, of the last.
        "A", "B", …: For each detector the verdict: "first", "middle", "last", or "any".
    """
    rng = random.Random(0)
    design: dict[str, object] = {}
    for place, name in enumerate(READS):
        pairs = []
        for i, others in enumerate(itertools.product((False, True), (False, True), range(6))):
            *numbers, _ = others
            single, many = ((*numbers[:place], own, *numbers[place:]) for own in (False, True))
            nouns, between = tuple(rng.sample(NOUNS, 3)), (BETWEEN[i % 6], rng.choice(BETWEEN))
            pairs.append((sentence(nouns, single, between), sentence(nouns, many, between)))
        design[name] = pairs
    for letter, detect in detectors.items():
        found = [[detect(many) - detect(single) for single, many in design[name]] for name in READS]
        design[f"effect_{letter}"] = [estimate(values) for values in found]
        verdict = "any"
        for place, name in enumerate(READS):
            others = {other: found[i] for i, other in enumerate(READS) if i != place}
            tensors = {other: torch.tensor(values) for other, values in others.items()}
            if refutation_test(torch.tensor(found[place]), tensors)[1] == "stands":
                verdict = name
        design[letter] = verdict
    return design
