"""Three ways to take a part away, and they do not agree."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.patching.hooks import run_with_cache
from utils.patching.sites import patch_site


def zero_ablate(
    model: nn.Module, tokens: Int[Tensor, "batch pos"], name: str, *, head: int | None = None
) -> Float[Tensor, "batch pos d_vocab"]:
    """Run ``model`` with one part's activation set to zero at all positions.

    Args:
        model: Any module.
        tokens: What it reads.
        name: The hook point.
        head: One head, counted from 0, of an activation [batch, pos, head, d]; all of it if None.

    Returns:
        The ablated run's output; whether it has a graph is left open.

    Raises:
        ValueError: If the hook point is unknown or never runs, or there is no such head (a negative one, or one of
            an activation without heads).
    """
    with torch.no_grad():
        _, cache = run_with_cache(model, tokens, [name])
        return patch_site(model, tokens, name, torch.zeros_like(cache[name]), head=head)


def mean_ablate(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    name: str,
    others: Int[Tensor, "n pos"],
    *,
    head: int | None = None,
) -> Float[Tensor, "batch pos d_vocab"]:
    """Run ``model`` with one part's activation set to its mean, position by position, over other prompts.

    Args:
        model: Any module.
        tokens: What it reads.
        name: The hook point.
        others: The prompts to average over, as long as ``tokens``; with the same template, the mean keeps what the
            template alone tells.
        head: One head, counted from 0, of an activation [batch, pos, head, d]; all of it if None.

    Returns:
        The ablated run's output; whether it has a graph is left open.

    Raises:
        ValueError: If the prompts differ in length, the hook point is unknown or never runs, or there is no such head
            (a negative one, or one of an activation without heads).

    Source: Wang et al. (2022), section 2.1.
    """
    if others.shape[1] != tokens.shape[1]:
        raise ValueError(f"others have {others.shape[1]} positions, tokens have {tokens.shape[1]}")
    with torch.no_grad():
        _, cache = run_with_cache(model, others, [name])
        mean = cache[name].mean(dim=0)
        return patch_site(model, tokens, name, mean.expand(len(tokens), *mean.shape), head=head)


def resample_ablate(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    name: str,
    others: Int[Tensor, "n pos"],
    generator: torch.Generator,
    *,
    head: int | None = None,
) -> Float[Tensor, "batch pos d_vocab"]:
    """Run ``model`` with one part's activation as it is on another prompt, drawn at random for each prompt.

    Args:
        model: Any module.
        tokens: What it reads.
        name: The hook point.
        others: The prompts to draw from, with replacement, each equally likely; as long as ``tokens``. All positions
            of a prompt come from the same draw.
        generator: Draws them.
        head: One head, counted from 0, of an activation [batch, pos, head, d]; all of it if None.

    Returns:
        The ablated run's output; whether it has a graph is left open.

    Raises:
        ValueError: If the prompts differ in length, the hook point is unknown or never runs, or there is no such head
            (a negative one, or one of an activation without heads).

    Source: Chan et al. (2022), "Causal Scrubbing".
    """
    if others.shape[1] != tokens.shape[1]:
        raise ValueError(f"others have {others.shape[1]} positions, tokens have {tokens.shape[1]}")
    with torch.no_grad():
        _, cache = run_with_cache(model, others, [name])
        drawn = torch.randint(len(others), (len(tokens),), generator=generator)
        return patch_site(model, tokens, name, cache[name][drawn.to(others.device)], head=head)
