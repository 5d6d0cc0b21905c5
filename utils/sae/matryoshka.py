"""Nested dictionaries: the first latents have to reconstruct by themselves, then more of them, then all."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from utils.sae.topk import BatchTopKSAE, aux_k_loss


def matryoshka_loss(
    x: Float[Tensor, "batch d_in"],
    z: Float[Tensor, "batch d_sae"],
    W_dec: Float[Tensor, "d_sae d_in"],
    b_dec: Float[Tensor, " d_in"],
    widths: Sequence[int],
) -> Float[Tensor, ""]:
    """Every prefix has to reconstruct: Σ_m ‖x - (Σ_{i<m} z_i W_dec[i] + b_dec)‖², a mean over the batch.

    Args:
        x: Activations.
        z: Their latents.
        W_dec, b_dec: The decoder. Gradients flow to it, and to z.
        widths: The prefixes' lengths m, each from 1 to d_sae, in any order. All of z counts only if d_sae is one.

    Returns:
        The loss: for each prefix a sum over dimensions, all with the same weight; a mean over the batch.

    Source: Bussmann et al. (2025), "Learning Multi-Level Features with Matryoshka Sparse Autoencoders", equation 6.
    """
    losses = [(x - z[:, :m] @ W_dec[:m] - b_dec).square().sum(dim=-1).mean() for m in widths]
    return torch.stack(losses).sum()


class MatryoshkaSAE(BatchTopKSAE):
    """A ``BatchTopKSAE`` that is trained by ``matryoshka_loss``: only its loss differs.

    Attributes:
        widths: Lengths of the prefixes, the last of which is d_sae.
    """

    def __init__(
        self, d_in: int, d_sae: int, k: int, widths: Sequence[int], *, generator: torch.Generator | None = None
    ):
        super().__init__(d_in, d_sae, k, generator=generator)
        self.widths = tuple(widths)


def matryoshka_objective(k_aux: int = 64, aux_coefficient: float = 1 / 32):
    """The matryoshka loss, over the number of prefixes so that its size stays, and the auxiliary loss."""

    def objective(sae, x, y, dead):
        y_hat, z = sae(x)
        loss = matryoshka_loss(y, z, sae.W_dec, sae.b_dec, sae.widths) / len(sae.widths)
        if aux_coefficient and dead.any():
            pre = x @ sae.W_enc + sae.b_enc
            loss = loss + aux_coefficient * aux_k_loss(y - y_hat, pre, sae.W_dec, dead, k_aux)
        return loss, z

    return objective
