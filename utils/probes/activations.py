"""From texts to the table of activations that a probe is fitted to."""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from utils.patching.hooks import run_with_cache


def collect_activations(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    sites: Sequence[str],
    chosen: Bool[Tensor, "batch pos"],
    *,
    batch_size: int = 32,
) -> dict[str, Float[Tensor, "n d"]]:
    """What the model holds at some sites on the chosen tokens, a few texts at a time.

    All activations of all texts may not fit into memory. So ``batch_size`` texts are run at once, the chosen tokens are
    kept and the rest is let go, batch by batch: what is returned holds no memory but its own. No hook of yours stays on
    the model.

    Args:
        model: Any module whose submodules named in ``sites`` put out tensors [batch, pos, d].
        tokens: The texts, at least one.
        sites: Names of submodules, such as ``"blocks.0.hook_resid_post"``.
        chosen: Which tokens are wanted; it may be none of a text, or of all.
        batch_size: How many texts are run at once, at least 1; the last batch may be smaller.

    Returns:
        By site, in the order of ``sites``, a row for each chosen token: text by text, and from left to right in each,
        which is the order of ``tokens[chosen]``. Without a graph, whether or not gradients are switched on; the dtype
        is the model's.

    Raises:
        ValueError: If ``batch_size`` is smaller than 1, or ``chosen`` has not the shape of ``tokens``.
    """
    if batch_size < 1 or chosen.shape != tokens.shape:
        raise ValueError(f"batch_size is {batch_size}, tokens {tuple(tokens.shape)}, chosen {tuple(chosen.shape)}")
    parts = {site: [] for site in sites}
    for rows, wanted in zip(tokens.split(batch_size), chosen.split(batch_size), strict=True):
        with torch.no_grad():
            _, cache = run_with_cache(model, rows, sites)
        for site in sites:
            parts[site].append(cache[site][wanted])
    return {site: torch.cat(parts[site]) for site in sites}
