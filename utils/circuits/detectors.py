"""Scores that say how much a head attends as heads of a certain kind do."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def previous_token_score(patterns: Float[Tensor, "batch head query key"]) -> Float[Tensor, "batch head"]:
    """How much each head attends to the token just before: the mean over the queries from position 2 on.

    Position 0 has no token before it, and position 1 little choice: of its two keys one is the token before.

    Args:
        patterns: Attention probabilities of one layer; at least 3 positions.

    Returns:
        For each text and head a number from 0 to 1.

    Raises:
        ValueError: If there are fewer than 3 positions.

    Source: Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits".
    """
    if patterns.shape[-1] < 3:
        raise ValueError(f"at least 3 positions are needed, got {patterns.shape[-1]}")
    return patterns.diagonal(offset=-1, dim1=-2, dim2=-1)[..., 1:].mean(dim=-1)


def duplicate_token_score(
    patterns: Float[Tensor, "batch head query key"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch head"]:
    """How much each head attends to earlier copies of the token it stands on.

    A query counts if its token has come before, at one or more earlier positions; what it gives to all of them is added
    up. The score is the mean over the queries that count.

    Args:
        patterns: Attention probabilities of one layer.
        tokens: The texts.

    Returns:
        For each text and head a number from 0 to 1; NaN for a text in which no token comes again.

    Source: Wang et al. (2022), "Interpretability in the Wild", section 3.
    """
    copies = (tokens[:, :, None] == tokens[:, None, :]).tril(diagonal=-1)  # [batch, query, key]
    given = (patterns * copies[:, None]).sum(dim=-1)
    counts = copies.any(dim=-1)
    return (given * counts[:, None]).sum(dim=-1) / counts.sum(dim=-1)[:, None]


def induction_score(
    patterns: Float[Tensor, "batch head query key"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch head"]:
    """How much each head attends to what came right after earlier copies of the token it stands on.

    Key k is sought by query i if k < i and tokens[k - 1] == tokens[i]. A query counts if it has at least one such key;
    what it gives to all of them is added up. The score is the mean over the queries that count.

    Args:
        patterns: Attention probabilities of one layer.
        tokens: The texts.

    Returns:
        For each text and head a number from 0 to 1; NaN for a text without a query that counts.

    Source: Olsson et al. (2022), "In-context Learning and Induction Heads", where the score is taken on repeated random
    tokens.
    """
    before = torch.cat([torch.full_like(tokens[:, :1], -1), tokens[:, :-1]], dim=1)
    sought = (tokens[:, :, None] == before[:, None, :]).tril(diagonal=-1)  # [batch, query, key]
    given = (patterns * sought[:, None]).sum(dim=-1)
    counts = sought.any(dim=-1)
    return (given * counts[:, None]).sum(dim=-1) / counts.sum(dim=-1)[:, None]
