"""The case of part 02a: whether the course model's embedding knows kinds of words, or how frequent words are."""

import random
from collections import Counter
from functools import cache

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from utils.course.cases import estimate
from utils.data import corpus, world
from utils.models.course_model import course_model_weights

N_DOCS = 2500
LISTS = {
    "woman": world.WOMEN,
    "man": world.MEN,
    "place": world.PLACES,
    "thing": world.THINGS,
    "adjective": world.ADJECTIVES,
    "animal": world.ANIMALS,
    "job": world.JOBS,
    "day": world.DAYS,
    "month": world.MONTHS,
    "number": world.NUMBERS,
    "city": world.CITIES,
    "country": tuple(dict.fromkeys(world.COUNTRY_OF_CITY.values())),
    "language": tuple(world.LANGUAGE_OF_COUNTRY.values()),
    "builder": world.BUILDERS,
    "material": world.MATERIALS,
    "first word of a landmark": world.FIRST_WORDS,
    "second word of a landmark": world.SECOND_WORDS,
    "verb, base form": tuple(base for base, _, _ in world.VERBS),
    "verb, third person": tuple(third for _, third, _ in world.VERBS),
    "verb, past": tuple(past for _, _, past in world.VERBS),
}


def trained_embedding() -> Float[Tensor, "d_vocab d_model"]:
    """The course model's W_E, one row for each word of ``corpus.vocabulary()``."""
    return _trained_embedding().clone()


@cache
def _trained_embedding() -> Float[Tensor, "d_vocab d_model"]:
    return course_model_weights()[1]["embed.W_E"]


@cache
def kind_of() -> dict[str, str]:
    """Each word of the course model's world, and the one kind that it is of; words of two kinds are left out."""
    found = Counter(word for words in LISTS.values() for word in words)
    known = set(corpus.vocabulary())
    return {word: kind for kind, words in LISTS.items() for word in words if found[word] == 1 and word in known}


@cache
def how_often() -> dict[str, float]:
    """How often each word of the vocabulary occurs in a thousand words of the course model's text."""
    counts = Counter(corpus.corpus(N_DOCS, corpus.HELD_OUT_SEED)[:, 1:].flatten().tolist())
    return {word: 1000 * counts[i] / counts.total() for i, word in enumerate(corpus.vocabulary())}


def what_the_embedding_knows() -> dict[str, object]:
    """Design an experiment: do words of one kind have similar rows in the course model's embedding, or words that are
    equally frequent?

    Words of one kind are often equally frequent, so that either would make them look alike. The two are told apart by
    triples in which only one of the two differs. A triple's effect is how much more similar its first word's row is to
    the second word's than to the third's.

    Returns:
        A dict with these keys:

        "kind": A list of at least 12 triples (word, alike, other): ``alike`` is of the word's kind and ``other`` is
            not, and in frequency ``other`` is at least as near to the word as ``alike`` is: by the ratio of the two
            frequencies, the larger by the smaller. The first words are of at least three kinds.
        "frequency": A list of at least 12 triples (word, near, far): ``near`` and ``far`` are of one kind, which may be
            the word's or not. ``near`` is at most 1.5 times as frequent as the word, or the other way round, and
            ``far`` at least 3 times, or the other way round. The second words are of at least two kinds.
            Kinds are those of ``kind_of()``, frequencies those of ``how_often()``, and in each list no word occurs
            twice.
        "measure": A function ``measure(x, y)`` of two rows [d_model] that returns a number, the larger the more similar
            they are. A row is more similar to itself than to any other row of its length, minus itself among them.
        "control": A function ``control(W_E)`` of the embedding that returns a matrix of its shape, in which a word's
            row can tell neither its kind nor its frequency. Its rows differ, and measured in it a list's effect is at
            most a third as large as in the embedding, or as near to 0 as chance leaves it: within one and a half times
            the half-width of its own interval.
        "effect_kind", "effect_frequency": The mean of the list's effects in the embedding, and the half-width of its
            95 % interval.
        "verdict": "kind", "frequency", "both" or "neither": the effects of which the interval is above 0.
    """
    kinds, often = kind_of(), how_often()
    row = {word: i for i, word in enumerate(corpus.vocabulary())}
    words = random.Random(0).sample(list(kinds), len(kinds))

    def ratio(x: str, y: str) -> float:
        return max(often[x] / often[y], often[y] / often[x])

    by_kind, by_frequency, taken = [], [], set()
    for word in words:
        same = [w for w in words if kinds[w] == kinds[word] and w not in {word, *taken}]
        others = [w for w in words if kinds[w] != kinds[word] and w not in taken]
        pairs = ((x, y) for x in same for y in others if ratio(word, y) <= ratio(word, x))
        of_its_kind = [first for first, _, _ in by_kind if kinds[first] == kinds[word]]
        if word not in taken and len(of_its_kind) < 5 and (pair := next(pairs, None)):
            by_kind.append((word, *pair))
            taken.update(by_kind[-1])

    taken = set()
    for near in words:
        for far in (w for w in words if kinds[w] == kinds[near] and ratio(w, near) >= 2):
            like_near = [w for w in words if ratio(w, near) <= 1.5 and ratio(w, far) >= 3 and w not in {near, *taken}]
            if like_near and not taken & {near, far}:
                by_frequency.append((like_near[0], near, far))
                taken.update(by_frequency[-1])

    def measure(x: Float[Tensor, "d_model"], y: Float[Tensor, "d_model"]) -> float:
        return F.cosine_similarity(x, y, dim=0).item()

    def effect(triples: list[tuple[str, str, str]]) -> tuple[float, float]:
        rows = [trained_embedding()[[row[word] for word in triple]] for triple in triples]
        return estimate([measure(x, y) - measure(x, z) for x, y, z in rows])

    effects = effect(by_kind), effect(by_frequency)
    there = tuple(mean > half_width for mean, half_width in effects)

    def control(W_E: Float[Tensor, "d_vocab d_model"]) -> Float[Tensor, "d_vocab d_model"]:
        return W_E[torch.randperm(len(W_E), generator=torch.Generator().manual_seed(0))]  # each row at another word

    return {
        "kind": by_kind,
        "frequency": by_frequency,
        "measure": measure,
        "control": control,
        "effect_kind": effects[0],
        "effect_frequency": effects[1],
        "verdict": {(True, True): "both", (True, False): "kind", (False, True): "frequency"}.get(there, "neither"),
    }
