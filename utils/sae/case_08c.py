"""The case of part 08c: is a latent what its label says?"""

import random
import zlib
from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from utils.course.cases import estimate
from utils.data.corpus import words
from utils.data.world import BUILDERS, CITIES, DAYS, LANGUAGE_OF_COUNTRY, NAMES, PLACES

COUNTRIES = tuple(LANGUAGE_OF_COUNTRY)
LABEL = "the word is the name of a city"
OTHERS = {"people": NAMES, "countries": COUNTRIES, "builders": BUILDERS, "days": DAYS, "places": PLACES}
KINDS = ("as labelled", "too narrow", "too wide", "something else")
# A latent: texts -> its activation at the last word of each.
Latent = Callable[[Sequence[str]], Float[Tensor, " n"]]


class DrawnLatent:
    """A latent made by hand that was labelled by somebody who had seen its strongest examples: all of them cities.

    ``latent(texts)`` gives its activation at the last word of each text, 0 where it is off.
    """

    def __init__(self, kind: str, variant: int, seed: int):
        rng = random.Random(seed)
        self._seed = seed
        in_place = {"in", "of", "near"}
        few = set(rng.sample(CITIES, len(CITIES) // 2))
        also = set(COUNTRIES if variant == 0 else BUILDERS)
        self._on = {
            "as labelled": lambda before, word: word in CITIES,
            "too narrow": (lambda before, word: word in CITIES and before == "in")
            if variant == 0
            else (lambda before, word: word in few),
            "too wide": lambda before, word: word in CITIES or word in also,
            "something else": (lambda before, word: before in in_place)
            if variant == 0
            else (lambda before, word: word in also or word in few),
        }[kind]

    def __call__(self, texts: Sequence[str]) -> Float[Tensor, " n"]:
        return torch.tensor([self._strength(text) for text in texts])

    def _strength(self, text: str) -> float:
        before, word = ["", *words(text)][-2:]
        if not self._on(before, word):
            return 0.0
        drawn = zlib.crc32(f"{self._seed} {before} {word}".encode()) / 2**32
        return 1 + drawn + 2 * (word in CITIES and before == "in")  # so the strongest are cities, whatever it is


def kind_of(seed: int) -> tuple[str, int]:
    """Which latent ``drawn_latent`` gives: what it is, and which of two such."""
    rng = random.Random(f"a latent {seed}")
    return rng.choice(KINDS), rng.randrange(2)


def drawn_latent(seed: int) -> DrawnLatent:
    """A latent of one of four kinds."""
    return DrawnLatent(*kind_of(seed), seed)


def is_it_what_it_says(latent: Latent) -> dict[str, object]:
    """Design an experiment: does a latent that was labelled "the word is the name of a city" switch on there, and only
    there?

    ``latent(texts)`` returns its activation at the last word of each text of a list, [n]; it is on where that is above
    0. Its strongest examples are cities. Your experiment puts words of both sorts behind the same beginnings: all of
    your words behind all of your beginnings. So from one text to another either the label alone changes and all else
    is the same, or all else changes and the label is the same. The check calls your function with other latents.

    Args:
        latent: The latent to be examined.

    Returns:
        A dict with these keys:

        "beginnings": At least 12 different beginnings of texts, in the course model's vocabulary (``encode`` takes
            them), each of at least one word. They end in at least 4 different words, none of which ends more than half
            of them: what the latent takes for a city may be whatever stands behind "in". At least 2 of them do end in
            "in", as the strongest examples do.
        "cities": At least 12 different names out of ``CITIES``.
        "others": At least 20 different words that are no cities. ``OTHERS`` names five kinds: people, countries,
            builders, days, places. At least a tenth of your words are of each kind.
        "false_negatives": Of the texts that end in a city, the share at which the latent is off. First its share for
            each beginning; then their mean, and the half-width of its 95 % interval over beginnings, as ``estimate``
            gives them: (mean, half-width).
        "false_positives": The same for the other words: the share at which the latent is on.
        "verdict": Call a share *large* if its mean is above 0.05. "as labelled" if neither is large; "too narrow" if
            only the false negatives are; "too wide" if only the false positives are; "something else" if both are.
    """
    beginnings = [
        f"{start} {end}"
        for start in ("Mary worked", "The sailor", "Peter said", "Then the cook")
        for end in ("in", "likes", "visited", "and")
    ]
    others = [word for kind in OTHERS.values() for word in kind[:5]]

    def shares_on(endings: Sequence[str]) -> list[float]:
        return [(latent([f"{text} {word}" for word in endings]) > 0).float().mean().item() for text in beginnings]

    negatives = estimate([1 - share for share in shares_on(CITIES)])
    positives = estimate(shares_on(others))
    verdicts = {
        (False, False): "as labelled", (True, False): "too narrow", (False, True): "too wide",
        (True, True): "something else",
    }  # fmt: skip
    return {
        "beginnings": beginnings,
        "cities": list(CITIES),
        "others": others,
        "false_negatives": negatives,
        "false_positives": positives,
        "verdict": verdicts[negatives[0] > 0.05, positives[0] > 0.05],
    }
