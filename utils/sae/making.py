"""Small dictionaries that take activations as they are, made in seconds."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.patching.hooks import run_with_cache
from utils.sae.topk import TopKSAE, topk_objective
from utils.sae.training import from_table, train_sae


def activations_at(
    model: nn.Module, tokens: Int[Tensor, "batch pos"], site: str, *, chunk: int = 64
) -> Float[Tensor, "batch*pos d"]:
    """What a site holds at all positions of texts, one row each."""
    with torch.no_grad():
        parts = [run_with_cache(model, part, [site])[1][site].flatten(0, 1) for part in tokens.split(chunk)]
    return torch.cat(parts)


def topk_dictionary(
    x: Float[Tensor, "n d"], d_sae: int, *, k: int, n_steps: int, lr: float = 2e-3, batch: int = 1024, seed: int = 0
) -> TopKSAE:
    """Train a TopK dictionary on activations scaled to a mean length of sqrt(d); the scale is then worked into it.

    Returns:
        A dictionary of the activations as they are, without gradients.
    """
    scale = math.sqrt(x.shape[1]) / x.norm(dim=1).mean()
    sae = TopKSAE(x.shape[1], d_sae, k, generator=torch.Generator().manual_seed(seed))
    train_sae(sae, from_table(x * scale, batch, seed=seed), topk_objective(), n_steps=n_steps, lr=lr)
    with torch.no_grad():
        sae.W_enc *= scale
        sae.W_dec /= scale
        sae.b_dec /= scale
    return sae.requires_grad_(False)
