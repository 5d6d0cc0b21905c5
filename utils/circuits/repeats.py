"""Repeated random tokens, and what a model's loss on them looks like along the sequence."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def repeated_random_tokens(
    n: int, period: int, candidates: Int[Tensor, " k"], first: int, generator: torch.Generator
) -> Int[Tensor, "n pos"]:
    """Rows of one fixed token, then ``period`` random ones, then the same ones again in the same order.

    The random tokens of a row are all different, so that each of them, when it comes again, has come exactly once
    before, and it is never in doubt which token followed.

    Args:
        n: How many rows.
        period: How many tokens are repeated, at least 1.
        candidates: Token ids to draw from, all different. Each is equally likely at each place; rows are independent.
        first: The token at position 0 of every row, such as ``<bos>``; it is drawn nowhere else.
        generator: Draws the tokens.

    Returns:
        Token ids, pos = 2 * period + 1: ``tokens[:, i] == tokens[:, i - period]`` for i > period.

    Raises:
        ValueError: If ``period`` is below 1, or there are fewer candidates (``first`` does not count) than ``period``.
    """
    allowed = candidates[candidates != first]
    if not 1 <= period <= len(allowed):
        raise ValueError(f"period must be between 1 and {len(allowed)}, the number of candidates, got {period}")
    order = torch.rand(n, len(allowed), generator=generator).argsort(dim=-1)
    drawn = allowed[order[:, :period]]
    return torch.cat([torch.full_like(drawn[:, :1], first), drawn, drawn], dim=1)


def loss_by_position(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos"]:
    """The loss in nats on each token, at the token's own position.

    Entry [b, i] is -log P(token i of row b | the tokens before it), which is read off the logits at position i - 1.
    Nobody predicts the first token: entry [b, 0] is NaN.

    Args:
        logits: A model's logits.
        tokens: The tokens that it was given.

    Returns:
        Losses, in the dtype of the logits.

    Raises:
        ValueError: If ``logits`` and ``tokens`` do not have the same batch and positions.
    """
    if logits.shape[:-1] != tokens.shape:
        raise ValueError(f"logits are for {tuple(logits.shape[:-1])} tokens, and there are {tuple(tokens.shape)}")
    log_probs = logits[:, :-1].log_softmax(dim=-1)
    losses = -log_probs.gather(-1, tokens[:, 1:, None])[:, :, 0]
    return torch.cat([torch.full_like(logits[:, :1, 0], torch.nan), losses], dim=1)


def in_context_learning_score(
    losses: Float[Tensor, "batch pos"], early: tuple[int, int], late: tuple[int, int]
) -> Float[Tensor, " batch"]:
    """By how much a row's tokens are better predicted late than early: mean loss late less mean loss early.

    Negative where the model gains by what it has read; 0 for a model that makes nothing of a longer context.

    Args:
        losses: Of ``loss_by_position``, in nats.
        early, late: Windows of positions (start, stop), stop not included. Olsson et al. take one position each, the
            50th and the 500th token.

    Returns:
        One score for each row, in nats.

    Raises:
        ValueError: If a window is empty, or not all of it lies between position 1 and the last one: the loss at
            position 0 is not defined.

    Source: Olsson et al. (2022), "In-context Learning and Induction Heads".
    """
    for start, stop in (early, late):
        if not 1 <= start < stop <= losses.shape[1]:
            raise ValueError(f"windows must lie in 1 to {losses.shape[1]} and not be empty, got {start} to {stop}")
    return losses[:, late[0] : late[1]].mean(dim=1) - losses[:, early[0] : early[1]].mean(dim=1)
