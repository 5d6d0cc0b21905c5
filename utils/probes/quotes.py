"""Texts with quotation marks, in sixteen frames: what the chapter's probes are fitted to and tested on.

The sentences are those of the course model's training text (``utils.data.corpus.talk``), drawn anew. There, verbs stand
in the present inside quotation marks and in the past outside, so that a verb gives away where it stands. With
``tense="swapped"`` it is the other way round, and with ``tense="random"`` each clause has its own.
"""

import random
import re
from typing import TYPE_CHECKING, Literal, NamedTuple

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from utils.data.corpus import encode, quote_clause
from utils.data.prompts import token_id
from utils.data.world import JOBS, NAMES
from utils.models.phenomena.quotes import balanced
from utils.probes.labels import inside_quotes_labels

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

# <in> and <out> are clauses inside and outside the marks. All frames are of kinds that training text has, too.
FRAMES = (
    '<who> said: "<in>." <out>.',
    '<who> answered: "<in>." <out> and <out>.',
    '<who> shouted: "<in> and <in>." <out>.',
    '<who> said: "<in>, but <in>." <out>.',
    '<who> answered: "<in> because <in>." <out>.',
    '<who> shouted: "<in>. <in>." <out>.',
    '<out>. <who> said: "<in>." <out>.',
    '<out>. <who> answered: "<in> and <in>." <out>.',
    '<out> and <out>. <who> shouted: "<in>." <out>.',
    '<out>, but <out>. <who> said: "<in>." <out>.',
    '<out>. <out>. <who> answered: "<in>." <out>.',
    '<out>. <who> shouted: "<in>, but <in>." <out> because <out>.',
    '<who> said: "<in>." <out>. <who> answered: "<in>." <out>.',
    '<who> answered: "<in> and <in>." <out>. <who> shouted: "<in>." <out>.',
    '<who> shouted: "<in>." <out>, but <out>. <who> said: "<in> because <in>." <out>.',
    '<out>. <who> said: "<in>." <out>. <who> answered: "<in>. <in>." <out>.',
)
QUOTE = torch.tensor([token_id('"')])  # the course model's vocabulary has one mark, which opens and closes


class QuoteTexts(NamedTuple):
    """Texts with their labels.

    Attributes:
        tokens: Behind `<bos>`; shorter texts are filled up with `<bos>` at the end.
        inside: Whether each token stands inside quotation marks, as in ``inside_quotes_labels``.
        words: Which tokens are part of the text: all but `<bos>` at both ends.
        frame: For each text the index of its frame in ``FRAMES``: the independent unit.
    """

    tokens: Int[Tensor, "text pos"]
    inside: Bool[Tensor, "text pos"]
    words: Bool[Tensor, "text pos"]
    frame: Int[Tensor, " text"]

    def frames_of(self, chosen: Bool[Tensor, "text pos"]) -> Int[Tensor, " n"]:
        """The frame of each chosen token, in the order of ``tokens[chosen]``."""
        return self.frame[:, None].expand_as(self.tokens)[chosen]


def quote_texts(n_per_frame: int, seed: int, *, tense: Literal["usual", "swapped", "random"] = "usual") -> QuoteTexts:
    """Texts in all sixteen frames, frame by frame.

    Args:
        n_per_frame: How many of each.
        seed: Seed of the draw.
        tense: "usual": present inside and past outside, as in training. "swapped": past inside and present outside.
            "random": drawn for each clause. In the last two nobody says "I", which in training is said inside only.
    """
    rng = random.Random(seed)
    rows = [[0, *encode(_filled(rng, frame, tense))] for frame in FRAMES for _ in range(n_per_frame)]
    longest = max(map(len, rows))
    tokens = torch.tensor([row + [0] * (longest - len(row)) for row in rows])
    frame = torch.arange(len(FRAMES)).repeat_interleave(n_per_frame)
    return QuoteTexts(tokens, inside_quotes_labels(tokens, QUOTE, QUOTE), tokens != 0, frame)


def evenly_by_word(texts: QuoteTexts, seed: int) -> Bool[Tensor, "text pos"]:
    """A random choice of tokens: of each word as many inside as outside, so that the word itself tells nothing.

    Quotation marks are left out, and so are words that are found on one side only, such as most verbs.
    """
    return balanced(texts.tokens, texts.inside & texts.words, seed) & texts.words


def residual_sites(model: "HookedTransformer") -> dict[str, str]:
    """The residual stream, by a short name: "embedding", and behind each layer, "layer 0", "layer 1" …"""
    behind = {f"layer {layer}": f"blocks.{layer}.hook_resid_post" for layer in range(model.cfg.n_layers)}
    return {"embedding": "blocks.0.hook_resid_pre"} | behind


def _filled(rng: random.Random, frame: str, tense: str) -> str:
    def part(found: re.Match) -> str:
        if found[1] == "who":
            return rng.choice((rng.choice(NAMES), f"the {rng.choice(JOBS)}"))
        inside = found[1] == "in"
        if tense == "usual":
            return quote_clause(rng, inside)
        present = not inside if tense == "swapped" else rng.random() < 0.5
        return quote_clause(rng, present, rng.choice((rng.choice(NAMES), f"the {rng.choice(JOBS)}")))

    text = re.sub("<(who|in|out)>", part, frame)
    return re.sub(r'(^|\. |\." |: ")([a-z])', lambda match: match[1] + match[2].upper(), text)
