"""From logits to text: choosing the next token, and doing so again and again."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor


def greedy(logits: Float[Tensor, "batch d_vocab"]) -> Int[Tensor, "batch"]:
    """The most probable token of each row.

    Args:
        logits: Scores of the next token, one row for each text.

    Returns:
        Token ids.
    """
    return logits.argmax(dim=-1)


def sample_temperature(
    logits: Float[Tensor, "batch d_vocab"], temperature: float, generator: torch.Generator
) -> Int[Tensor, "batch"]:
    """Draw one token for each row, independently, from softmax(logits / temperature).

    Args:
        logits: Scores of the next token; entries of -inf are never drawn.
        temperature: Above 0, and so small, perhaps, that logits / temperature overflows. Small values approach greedy
            choice, large ones the uniform distribution.
        generator: Source of all randomness; the global random state is neither read nor changed.

    Returns:
        Token ids.

    Raises:
        ValueError: If ``temperature`` is not above 0.

    Source: Ackley, Hinton and Sejnowski (1985), "A Learning Algorithm for Boltzmann Machines".
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be above 0, got {temperature}; greedy() is its limit")
    # Measured from the row's largest logit no quotient overflows, however cold it is.
    below = (logits - logits.amax(dim=-1, keepdim=True)).double()
    probabilities = (below / temperature).softmax(dim=-1).float()
    return torch.multinomial(probabilities, num_samples=1, generator=generator).squeeze(-1)


def top_k_filter(logits: Float[Tensor, "batch d_vocab"], k: int) -> Float[Tensor, "batch d_vocab"]:
    """Keep the k highest logits of each row, and what equals the lowest of them; the rest becomes -inf.

    Equal means equal: a logit below the k-th highest is removed, however small the difference.

    Args:
        logits: Scores of the next token.
        k: How many to keep, at least 1; a k beyond the vocabulary keeps everything.

    Returns:
        A new tensor; the entries that are kept have their old values and places.

    Raises:
        ValueError: If ``k`` is smaller than 1.

    Source: Fan, Lewis and Dauphin (2018), "Hierarchical Neural Story Generation", section 5.
    """
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    lowest_kept = logits.topk(min(k, logits.shape[-1]), dim=-1).values[:, -1:]
    return logits.masked_fill(logits < lowest_kept, -torch.inf)


def top_p_filter(logits: Float[Tensor, "batch d_vocab"], p: float) -> Float[Tensor, "batch d_vocab"]:
    """Keep the smallest set of most probable tokens whose probability is at least p; the rest becomes -inf.

    The token that makes the sum reach p belongs to the set, so at least one token is always kept; a sum that is p
    exactly has reached it. Smallest holds for equally probable tokens as well, in contrast to ``top_k_filter``: of four
    tokens with probability 1/4, p = 1/2 keeps two. Which two is left open.

    Args:
        logits: Scores of the next token.
        p: Probability to keep in each row, above 0 and at most 1; 1 keeps everything.

    Returns:
        A new tensor; the entries that are kept have their old values and places.

    Raises:
        ValueError: If not 0 < p <= 1.

    Source: Holtzman et al. (2020), "The Curious Case of Neural Text Degeneration", section 3.1.
    """
    if not 0 < p <= 1:
        raise ValueError(f"p must be above 0 and at most 1, got {p}")
    if p == 1:
        return logits.clone()
    wide = torch.promote_types(logits.dtype, torch.float32)  # in half precision a long sum stops growing
    probabilities, order = logits.softmax(dim=-1, dtype=wide).sort(dim=-1, descending=True)
    reached_before = probabilities.cumsum(dim=-1) - probabilities
    remove = torch.zeros_like(logits, dtype=torch.bool).scatter(-1, order, reached_before >= p)
    return logits.masked_fill(remove, -torch.inf)


def generate(
    model: Callable[[Int[Tensor, "batch pos"]], Float[Tensor, "batch pos d_vocab"]],
    tokens: Int[Tensor, "batch pos"],
    n_new_tokens: int,
    choose: Callable[[Float[Tensor, "batch d_vocab"]], Int[Tensor, "batch"]],
    n_ctx: int | None = None,
) -> Int[Tensor, "batch pos+n_new_tokens"]:
    """Continue texts one token at a time: predict, choose, append, repeat.

    Args:
        model: Maps tokens to logits.
        tokens: The prompts, all of one length, at least one token.
        n_new_tokens: How many tokens to append, at least 0.
        choose: Picks the next token of each row from the logits of the last position.
        n_ctx: Show the model only the last ``n_ctx`` tokens; without it, everything so far.

    Returns:
        The prompts and their continuations.

    Raises:
        ValueError: If there is no token to start from, ``n_new_tokens`` is negative, or ``n_ctx`` is below 1.
    """
    if tokens.shape[1] < 1 or n_new_tokens < 0:
        raise ValueError(f"need a token and n_new_tokens >= 0, got {tuple(tokens.shape)} and {n_new_tokens}")
    if n_ctx is not None and n_ctx < 1:
        raise ValueError(f"the model has to be shown at least one token, got n_ctx = {n_ctx}")
    with torch.no_grad():
        for _ in range(n_new_tokens):
            visible = tokens if n_ctx is None else tokens[:, -n_ctx:]
            next_token = choose(model(visible)[:, -1])
            tokens = torch.cat([tokens, next_token.unsqueeze(-1)], dim=-1)
    return tokens
