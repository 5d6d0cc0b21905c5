"""Dictionaries of what attention heads write, all heads of a layer together."""

import torch
from jaxtyping import Float
from torch import Tensor

from utils.sae.topk import TopKSAE


class AttentionOutputSAE(TopKSAE):
    """A ``TopKSAE`` of a layer's heads side by side: it reads and gives back ``hook_z``, [*batch, heads, d_head].

    Source: Kissane et al. (2024), "Interpreting Attention Layer Outputs with Sparse Autoencoders".
    """

    def __init__(self, n_heads: int, d_head: int, d_sae: int, k: int, *, generator: torch.Generator | None = None):
        super().__init__(n_heads * d_head, d_sae, k, generator=generator)

    def forward(
        self, x: Float[Tensor, "*batch heads d_head"]
    ) -> tuple[Float[Tensor, "*batch heads d_head"], Float[Tensor, "*batch d_sae"]]:
        """The reconstruction of all heads and the latents z."""
        x_hat, z = super().forward(x.flatten(-2))
        return x_hat.view_as(x), z


def head_attribution(
    x: Float[Tensor, "*batch heads d_head"], W_enc: Float[Tensor, "d_in d_sae"], latent: int
) -> Float[Tensor, "*batch heads"]:
    """How much each head gives to a latent's pre-activation: its part of x times its rows of the encoder's column.

    The heads stand side by side in the encoder: rows 0 to d_head - 1 of ``W_enc`` read head 0, the next d_head rows
    head 1, and so on, so that d_in = heads · d_head.

    Args:
        x: The heads' outputs before W_O (``hook_z``); any number of dimensions in front.
        W_enc: The encoder.
        latent: Which latent, from 0.

    Returns:
        A number for each head. Their sum and b_enc[latent] are the pre-activation.

    Source: Kissane et al. (2024), who weigh by the decoder's parts; by the encoder the sum is exact.
    """
    directions = W_enc[:, latent].reshape(x.shape[-2:])
    return (x * directions).sum(dim=-1)
