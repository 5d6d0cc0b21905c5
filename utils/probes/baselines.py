"""What a probe could know without the network: the words themselves, as a table to fit a probe to."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def last_words(
    tokens: Int[Tensor, "text pos"], chosen: Bool[Tensor, "text pos"], n: int
) -> Float[Tensor, "row feature"]:
    """Which words stand at each chosen token and at the n - 1 places before it: a 1 for each word and place, else 0.

    Places before the beginning of a text count as its first token. A probe on this table is the best that a linear
    read-out of the last n words can do. Only words that occur have a column.
    """
    words, ids = tokens.unique(return_inverse=True)
    parts = []
    for back in range(n):
        place = (torch.arange(tokens.shape[1]) - back).clamp(min=0)
        parts.append(torch.nn.functional.one_hot(ids[:, place][chosen], len(words)))
    return torch.cat(parts, dim=1).float()


def words_so_far(tokens: Int[Tensor, "text pos"], chosen: Bool[Tensor, "text pos"]) -> Float[Tensor, "row feature"]:
    """How often each word has come up to and with each chosen token: the bag of words of what has been read."""
    words, ids = tokens.unique(return_inverse=True)
    return torch.nn.functional.one_hot(ids, len(words)).cumsum(1)[chosen].float()


def place_in_text(chosen: Bool[Tensor, "text pos"]) -> Float[Tensor, "row feature"]:
    """Which position each chosen token has: a 1 in its column."""
    return torch.eye(chosen.shape[1]).expand(*chosen.shape, -1)[chosen]
