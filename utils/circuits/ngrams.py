"""Models that know which token follows which, and nothing else."""

from collections import Counter

import torch
from jaxtyping import Float, Int
from torch import Tensor


def ngram_log_probs(
    train: Int[Tensor, "rows train_pos"],
    tokens: Int[Tensor, "batch pos"],
    order: int,
    d_vocab: int,
    *,
    strength: float = 1.0,
) -> Float[Tensor, "batch pos"]:
    """Fit an n-gram model to ``train`` and take the log-probability that it gives to each token of ``tokens``.

    A model of order n predicts a token w from the n - 1 tokens before it, its history h, by counting. Where it has seen
    little it trusts the model of the next lower order, which knows the history without its oldest token, h':

        p_n(w | h) = (count(h, w) + strength * p_{n-1}(w | h')) / (count(h) + strength)

    with p_0 = 1 / d_vocab. count(h, w) is how often w follows h in ``train``, and count(h) how often anything does. A
    history does not reach over the beginning of a row: a token with fewer than n - 1 tokens before it is counted, and
    predicted, in the orders for which its row has a history, and in no higher ones.

    Args:
        train: What is counted; rows are texts of their own.
        tokens: What is predicted.
        order: n, at least 1 (each token by its frequency alone).
        d_vocab: Size of the vocabulary.
        strength: How many sightings the lower order is worth, above 0.

    Returns:
        Natural logarithms of probabilities, float64; also for the first token of a row, by its frequency.

    Raises:
        ValueError: If ``order`` is below 1, or ``strength`` is not above 0.

    Source: MacKay and Peto (1995), "A Hierarchical Dirichlet Language Model".
    """
    if order < 1 or strength <= 0:
        raise ValueError(f"order must be at least 1 and strength above 0, got {order} and {strength}")
    seen, followed = Counter(), Counter()
    for row in train.tolist():
        for i in range(len(row)):
            for n in range(1, min(order, i + 1) + 1):
                history = tuple(row[i - n + 1 : i])
                seen[history, row[i]] += 1
                followed[history] += 1
    log_probs = torch.empty(tokens.shape, dtype=torch.float64)
    for b, row in enumerate(tokens.tolist()):
        for i in range(len(row)):
            p = 1 / d_vocab
            for n in range(1, min(order, i + 1) + 1):
                history = tuple(row[i - n + 1 : i])
                p = (seen[history, row[i]] + strength * p) / (followed[history] + strength)
            log_probs[b, i] = p
    return log_probs.log()
