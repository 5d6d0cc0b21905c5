"""Sentences of part 10a: two nouns, of which the first is the subject, each in the singular or the plural."""

import itertools
import random
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn

from utils.data.corpus import _plural
from utils.data.world import ANIMALS

# Scenes to stand before the sentence, one for each template, and the word between its two nouns.
LEADS = (
    "", "The water of the spring is cold.", "Many know the Eiffel Tower.", "In order: Monday, Tuesday, Wednesday.",
    "Greg lost his ring near the park.", "The Rose Gate is made of steel.", "One day after Monday is Tuesday.",
    "The people of Peru speak Quechua.", "Turn left at the Palace, then right at the bank.",
    "Anna rose early and painted a rose.", "The ring of the phone was loud, so Nora lost the ring.",
    "Paris is a city in France.",
)  # fmt: skip
BETWEEN = ("near", "behind", "beside")
# For SmolLM2: sentences with places for the two nouns, and nouns as (singular, plural).
ENGLISH = (
    "The {x} near the {y}", "I think that the {x} next to the {y}", "We all know that the {x} beside the {y}",
    "In the morning the {x} above the {y}", "Nobody said that the {x} with the {y}", "Look, the {x} from the {y}",
    "Yesterday we heard that the {x} of the {y}", "She told me that the {x} behind the {y}",
)  # fmt: skip
NOUNS = tuple(
    (noun, noun + "s") for noun in ["key", "dog", "boy", "teacher", "car", "house", "tree", "book", "king", "bird"]
)  # one token each, with the space before it


class Sentences(NamedTuple):
    """Sentences that stop before their verb.

    Attributes:
        texts: As they are written.
        subject, last: Whether the first noun, which is the subject, and the last noun are plural.
        templates: The template of each, from 0 up.
        word: The subject's form, numbered.
    """

    texts: list[str]
    subject: Bool[Tensor, " n"]
    last: Bool[Tensor, " n"]
    templates: Int[Tensor, " n"]
    word: Int[Tensor, " n"]


def animal(i: int, plural: bool) -> str:
    return _plural(ANIMALS[i]) if plural else ANIMALS[i]


def number_sentences(n_each: int, seed: int, *, as_read: bool = False, between: tuple[str, ...] = BETWEEN) -> Sentences:
    """Sentences of the course model's world, such as "The dogs near the cat"; twelve templates.

    Args:
        n_each: How many of each template and each combination of the two numbers.
        seed: Of the two animals, which are never the same.
        as_read: Only the combinations that the model has read in training: the last noun of the other number.
        between: What stands between the nouns, one after the other.
    """
    frames = [
        (f"{lead} The {{x}} {between[i % len(between)]} the {{y}}".strip(), 10, animal) for i, lead in enumerate(LEADS)
    ]
    return _sentences(frames, n_each, seed, as_read)


def english_sentences(n_each: int, seed: int) -> Sentences:
    """Sentences for a network that reads English, in eight templates; as ``number_sentences``."""
    return _sentences([(frame, len(NOUNS), lambda i, plural: NOUNS[i][plural]) for frame in ENGLISH], n_each, seed)


def _sentences(frames: list, n_each: int, seed: int, as_read: bool = False) -> Sentences:
    rng, rows = random.Random(seed), []
    for template, (frame, n_nouns, form) in enumerate(frames):
        for subject, last in itertools.product((False, True), repeat=2):
            if as_read and subject == last:
                continue
            for _ in range(n_each):
                x, y = rng.sample(range(n_nouns), 2)
                text = frame.format(x=form(x, subject), y=form(y, last))
                rows.append((text, subject, last, template, 2 * x + subject))
    texts, *columns = zip(*rows, strict=True)
    return Sentences(list(texts), *map(torch.tensor, columns))


def tokens_of(model: nn.Module, texts: list[str]) -> tuple[Int[Tensor, "n pos"], Int[Tensor, " n"]]:
    """Token ids behind the model's own beginning, filled up at the end; and the position of each text's last token."""
    rows = [model.to_tokens(text)[0] for text in texts]
    longest = max(map(len, rows))
    filled = [torch.cat([row, row.new_zeros(longest - len(row))]) for row in rows]
    return torch.stack(filled), torch.tensor([len(row) - 1 for row in rows])
