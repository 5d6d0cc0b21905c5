"""Scores of sets of parts that need no network: what the tests of a circuit are tried on."""

from itertools import combinations

import torch


class SetFunction:
    """A number for each prompt, from which parts are kept: random weights for parts, for pairs and for triples of them.

    Args:
        generator: Draws the weights.
        parts: Any hashable things.
        n: Prompts.
        sign: -1 turns the whole round, so that keeping more tends to give less.
    """

    def __init__(self, generator, parts, n, sign=1.0):
        self.n = n
        groups = [frozenset(group) for size in range(4) for group in combinations(parts, size)]
        size_of = {0: 2.0, 1: 1.0, 2: 0.6, 3: 0.3}
        self.weights = {
            group: sign * (size_of[len(group)] * torch.randn(n, generator=generator) + (0.8 if len(group) == 1 else 0))
            for group in groups
        }
        self.asked = []

    def __call__(self, kept):
        kept = frozenset(kept)
        self.asked.append(kept)
        return sum((weight for group, weight in self.weights.items() if group <= kept), torch.zeros(self.n))


def mean_of(score, parts):
    return score(frozenset(parts)).mean().item()


EDGES = (
    ("embed", "a0.0.v"),
    ("a0.0", "m0"),
    ("embed", "a0.1.v"),
    ("a0.1", "m0"),
    ("m0", "logits"),
    ("a0.0", "logits"),
    ("embed", "logits"),
)
