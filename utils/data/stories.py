"""A small corpus of templated English, and a word-level vocabulary for it.

Sentences come in scenes: two people in one place. Names, jobs, things and animals come back, so a model
can lower its loss by looking back, and not only by learning which words are frequent: who gives tells who
gets, the second "the red" is followed by the thing that was red before, "the dogs near the cat" takes "are".

Everything is generated from a seed by Python's ``random``; nothing is downloaded.
"""

import random
import re
from collections.abc import Iterable, Sequence
from functools import cache

import torch
from jaxtyping import Int
from torch import Tensor

BOS = "<bos>"

NAMES = (
    "Adam",
    "Alice",
    "Ben",
    "Clara",
    "David",
    "Emma",
    "Fred",
    "Grace",
    "Henry",
    "Irene",
    "Jack",
    "Karen",
    "Leo",
    "Maria",
    "Nick",
    "Olga",
    "Paul",
    "Rosa",
    "Sam",
    "Tina",
    "Victor",
    "Wendy",
    "Yusuf",
    "Zoe",
)
PLACES = (
    "park",
    "market",
    "school",
    "garden",
    "kitchen",
    "library",
    "forest",
    "harbour",
    "station",
    "museum",
    "bakery",
    "village",
    "castle",
    "theatre",
    "hospital",
    "office",
)
THINGS = (
    "ball",
    "book",
    "cup",
    "drum",
    "flower",
    "hat",
    "key",
    "lamp",
    "letter",
    "map",
    "pear",
    "ring",
    "rope",
    "scarf",
    "spoon",
    "ticket",
)
ADJECTIVES = ("red", "green", "blue", "yellow", "small", "large", "new", "old", "heavy", "empty", "quiet", "ugly")
ANIMALS = ("dog", "cat", "bird", "horse", "rabbit", "duck", "goat", "frog")
JOBS = ("baker", "farmer", "painter", "teacher", "singer", "writer", "driver", "gardener")
VERBS = ("found", "painted", "lost", "cleaned", "opened", "sold", "wanted", "carried")
GIVING = ("gave", "showed", "handed", "offered")

TEMPLATES = (
    "{a} went to the {place}, and then {a} {verb} {article} {adjective} {thing}.",
    "When {a} and {b} went to the {place}, {a} {giving} the {thing} to {b}.",
    "When {a} and {b} went to the {place}, {b} {giving} the {thing} to {a}.",
    "{a} has {article} {adjective} {thing}, and {b} wants the {adjective} {thing} too.",
    "{a} is a {job_a} and {b} is a {job_b}. The {job_a} likes the {job_b}.",
    "{a} looked for {b} in the {place}, but {b} was in the {other_place}.",
    "The {animal} near the {other_animal}s is {adjective}, and the {other_animal}s are {other_adjective}.",
    "The {animal}s near the {other_animal} are {adjective}, and the {other_animal} is {other_adjective}.",
    "{a} likes {animal}s and {b} likes {other_animal}s. So {a} feeds the {animal}s in the {place}.",
    "Then {a} met {b}, because {a} {verb} the {thing} of {b}.",
)

HELD_OUT_EVERY = 6
SENTENCES_PER_SCENE = (3, 6)


def stories(n_sentences: int, seed: int, *, held_out: bool = False) -> list[str]:
    """Seeded sentences, in order: consecutive ones share a scene of two people and a place.

    Args:
        n_sentences: How many lines; each is one template filled in (one or two grammatical sentences).
        seed: Seed of the generator; the same seed gives the same lines.
        held_out: One in six combinations of a name and a place is kept out of the default corpus; with
            ``held_out=True`` every scene puts two people in a place where the default corpus never has them.
    """
    rng = random.Random(seed)
    lines = []
    while len(lines) < n_sentences:
        lines += _scene(rng, held_out)
    return lines[:n_sentences]


def is_held_out(name: str, place: str) -> bool:
    """Whether the default corpus never puts this person in this place."""
    return (NAMES.index(name) + PLACES.index(place)) % HELD_OUT_EVERY == 0


def _scene(rng: random.Random, held_out: bool) -> list[str]:
    place, other_place = rng.sample(PLACES, 2)
    allowed = [name for name in NAMES if is_held_out(name, place) == held_out and not is_held_out(name, other_place)]
    if not allowed:  # the two places share their held-out people
        return []
    people = rng.sample(allowed, 2)
    jobs = dict(zip(people, rng.sample(JOBS, 2), strict=True))
    n_sentences = rng.randint(*SENTENCES_PER_SCENE)
    return [_sentence(rng, people, jobs, place, other_place) for _ in range(n_sentences)]


def _sentence(rng: random.Random, people: list[str], jobs: dict[str, str], place: str, other_place: str) -> str:
    a, b = rng.sample(people, 2)
    animal, other_animal = rng.sample(ANIMALS, 2)
    adjective, other_adjective = rng.sample(ADJECTIVES, 2)
    return rng.choice(TEMPLATES).format(
        a=a,
        b=b,
        job_a=jobs[a],
        job_b=jobs[b],
        place=place,
        other_place=other_place,
        thing=rng.choice(THINGS),
        verb=rng.choice(VERBS),
        giving=rng.choice(GIVING),
        animal=animal,
        other_animal=other_animal,
        adjective=adjective,
        other_adjective=other_adjective,
        article="an" if adjective[0] in "aeiou" else "a",
    )


def words(text: str) -> list[str]:
    """The text's word-level tokens: words, and punctuation on its own."""
    return re.findall(r"<bos>|\w+|[^\w\s]", text)


@cache
def _vocabulary() -> tuple[str, ...]:
    fixed = {word for template in TEMPLATES for word in words(re.sub(r"\{\w+\}s?", "", template))}
    plurals = tuple(animal + "s" for animal in ANIMALS)
    return (
        BOS,
        *sorted(fixed | {"a", "an"}),
        *NAMES,
        *PLACES,
        *THINGS,
        *ADJECTIVES,
        *ANIMALS,
        *plurals,
        *JOBS,
        *VERBS,
        *GIVING,
    )


def vocabulary() -> list[str]:
    """All word-level tokens; a token's place in the list is its id. ``<bos>`` is 0."""
    return list(_vocabulary())


def encode(sentences: Iterable[str], n_ctx: int) -> Int[Tensor, "n_docs n_ctx"]:
    """Token ids of the sentences, packed end to end into rows of ``n_ctx``, each behind a ``<bos>``.

    A row may begin or end in the middle of a sentence; words at the very end that do not fill a row are left
    out. One sentence of ``n_ctx - 1`` words is one row, which is how to encode a prompt.

    Raises:
        ValueError: If ``n_ctx`` is below 2, a word is not in the vocabulary, or the words do not fill a row.
    """
    if n_ctx < 2:
        raise ValueError(f"n_ctx must be at least 2 (a <bos> and one word), got {n_ctx}")
    ids = {word: i for i, word in enumerate(_vocabulary())}
    stream = [word for sentence in sentences for word in words(sentence)]
    unknown = sorted(set(stream) - set(ids))
    if unknown:
        raise ValueError(f"Not in the vocabulary: {', '.join(unknown)}")
    n_docs = len(stream) // (n_ctx - 1)
    if n_docs == 0:
        raise ValueError(f"{len(stream)} words do not fill a row of n_ctx - 1 = {n_ctx - 1}")
    body = torch.tensor([ids[word] for word in stream[: n_docs * (n_ctx - 1)]]).reshape(n_docs, n_ctx - 1)
    return torch.cat([torch.full((n_docs, 1), ids[BOS]), body], dim=1)


def decode(ids: Tensor | Sequence[int]) -> str:
    """The text of a row of token ids, punctuation attached to the word before it."""
    found = [_vocabulary()[i] for i in (ids.tolist() if isinstance(ids, Tensor) else ids)]
    return re.sub(r" ([.,])", r"\1", " ".join(found))
