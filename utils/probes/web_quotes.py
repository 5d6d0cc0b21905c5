"""Texts with quotation marks for a network that learnt from the web: ten frames in ordinary English."""

import random
from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

from utils.probes.labels import inside_quotes_labels
from utils.probes.quotes import QuoteTexts

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

# <say> takes the same sentences inside and outside the marks; <name> a person, <verb> a verb of saying.
WEB_FRAMES = (
    '<name> <verb>, "<say>." <say>.',
    '<say>. <name> <verb>, "<say>."',
    '"<say>," <name> <verb>. <say>.',
    '<say>. "<say>," <name> <verb>, and <say>.',
    '<name> <verb>, "<say>, but <say>." <say>.',
    '"<say>. <say>," <name> <verb>. Later <say>.',
    '<say> and <say>. Then <name> <verb>, "<say>."',
    '<name> <verb>, "<say>." <name> <verb>, "<say>." <say>.',
    '"<say>," <name> <verb>. "<say>." <say>.',
    'When <say>, <name> <verb>, "<say>," because <say>.',
)
SUBJECTS = (
    "the old man",
    "my sister",
    "the teacher",
    "a neighbour",
    "the doctor",
    "our captain",
    "the cook",
    "the girl",
)
ACTIONS = (
    "took the train to the city", "lost the key to the house", "had never seen the sea", "waited for the rain to stop",
    "bought three apples at the market", "forgot what day it was", "wanted to go home early",
    "found a letter on the table",
    "was tired of the long winter", "knew the way through the woods", "left the door open all night",
    "heard music from the next room",
)  # fmt: skip
WEB_NAMES = ("Mary", "John", "Sarah", "David", "Anna", "Peter", "Laura", "James")
SAYING = ("said", "replied", "whispered", "shouted")


def web_quote_texts(model: "HookedTransformer", n_per_frame: int, seed: int) -> QuoteTexts:
    """Texts in all ten frames, frame by frame, with the same kinds of sentences inside and outside the marks.

    ``words`` leaves out what gives the answer away by its spelling: the marks, and the word behind a mark, which has no
    space before it behind an opening one; and the network's own first token, whose activation is like no other.
    """
    rng = random.Random(seed)
    texts = [_filled(rng, frame) for frame in WEB_FRAMES for _ in range(n_per_frame)]
    rows = [model.to_tokens(text)[0] for text in texts]
    bos = rows[0][0].item()
    tokens = torch.full((len(rows), max(map(len, rows))), bos)
    for i, row in enumerate(rows):
        tokens[i, : len(row)] = row
    marks = _marks(model, tokens)
    inside = inside_quotes_labels(tokens, marks, marks)
    mark = torch.isin(tokens, marks)
    behind = torch.cat([torch.zeros_like(mark[:, :1]), mark[:, :-1]], dim=1)
    frame = torch.arange(len(WEB_FRAMES)).repeat_interleave(n_per_frame)
    return QuoteTexts(tokens, inside, (tokens != bos) & ~mark & ~behind, frame)


def _marks(model: "HookedTransformer", tokens: Int[Tensor, "text pos"]) -> Int[Tensor, " n"]:
    """The ids, among those that occur, of all tokens with a quotation mark in them, such as ``."``."""
    ids = tokens.unique()
    return ids[torch.tensor(['"' in model.to_string(i[None]) for i in ids])]


def _filled(rng: random.Random, frame: str) -> str:
    def sentence() -> str:
        return f"{rng.choice(SUBJECTS)} {rng.choice(ACTIONS)}"

    for slot, draw in (
        ("<say>", sentence),
        ("<name>", lambda: rng.choice(WEB_NAMES)),
        ("<verb>", lambda: rng.choice(SAYING)),
    ):
        while slot in frame:
            frame = frame.replace(slot, draw(), 1)
    return _capitals(frame)


def _capitals(text: str) -> str:
    """A capital letter at the beginning and behind each full stop, also where a mark stands in between."""
    letters, start = list(text), True
    for i, letter in enumerate(letters):
        if letter.isalpha():
            letters[i] = letter.upper() if start else letter
            start = False
        elif letter == "." or text[:i].endswith(", ") and letter == '"':
            start = True
    return "".join(letters)
