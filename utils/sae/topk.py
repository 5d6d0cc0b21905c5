"""Autoencoders that keep the largest latents: k for each activation, or k on average over a batch."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from utils.sae.autoencoder import SparseAutoencoder


def topk_activation(pre: Float[Tensor, "*batch d_sae"], k: int) -> Float[Tensor, "*batch d_sae"]:
    """Keep each row's k largest entries, where they are above 0; all others become 0.

    Args:
        pre: Pre-activations, of any number of dimensions; a row is along the last one.
        k: How many are kept, from 1 to d_sae.

    Returns:
        A new tensor of pre's shape. Gradients flow to the entries that are kept, and to no others.

    Source: Makhzani and Frey (2013), "k-Sparse Autoencoders"; the ReLU: Gao et al. (2024), section 2.3.
    """
    values, places = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, places, values.relu())


class TopKSAE(SparseAutoencoder):
    """z = TopK(x W_enc + b_enc), x̂ = z W_dec + b_dec: k latents are on, fewer where too few are above 0.

    Weights start, and are named, as those of ``SparseAutoencoder``.

    Source: Gao et al. (2024), "Scaling and evaluating sparse autoencoders", who also subtract b_dec from x before the
    encoder.
    """

    def __init__(self, d_in: int, d_sae: int, k: int, *, generator: torch.Generator | None = None):
        super().__init__(d_in, d_sae, generator=generator)
        self.k = k

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """The latents, none below 0."""
        return topk_activation(x @ self.W_enc + self.b_enc, self.k)


def aux_k_loss(
    error: Float[Tensor, "batch d_in"],
    pre: Float[Tensor, "batch d_sae"],
    W_dec: Float[Tensor, "d_sae d_in"],
    dead: Bool[Tensor, " d_sae"],
    k_aux: int,
) -> Float[Tensor, ""]:
    """How badly the ``k_aux`` strongest dead latents explain what the living ones left over: ‖e - z_dead W_dec‖².

    z_dead are, for each activation, the ``k_aux`` largest pre-activations among the dead latents (all of them, if fewer
    are dead), where they are above 0; all other entries are 0. No bias is added.

    Args:
        error: e = x - x̂, what the living latents left over. It counts as a constant: no gradient flows into it.
        pre: All latents' pre-activations, x W_enc + b_enc. Gradients flow to the entries of z_dead.
        W_dec: The decoder; gradients flow to the rows in use.
        dead: Which latents are dead.
        k_aux: At least 1.

    Returns:
        A sum over dimensions and a mean over the batch; 0 where no latent is dead.

    Source: Gao et al. (2024), section 2.4.
    """
    n_dead = int(dead.sum())
    if n_dead == 0:
        return error.new_zeros(())
    z = topk_activation(pre.masked_fill(~dead, -torch.inf), min(k_aux, n_dead))
    return (z @ W_dec - error.detach()).square().sum(dim=-1).mean()


class BatchTopKSAE(SparseAutoencoder):
    """Keeps the k · n largest pre-activations of a batch of n activations, or those above a threshold.

    With p = x W_enc + b_enc, the call gives (z W_dec + b_dec, z), where

    - while ``threshold`` is 0, as in training, z holds the k · n largest entries of p over all n activations and all
      latents together, where they are above 0, and 0 elsewhere: an activation may have more than k or fewer;
    - once ``threshold`` is above 0, z holds the entries of p above it, and 0 elsewhere: an activation's latents do not
      depend on which others are in the batch.

    Gradients flow to the entries that are kept.

    Args:
        d_in: Dimensions of an activation.
        d_sae: Number of latents.
        k: Latents on average.
        generator: Draws the starting weights.

    Attributes:
        W_enc, b_enc, W_dec, b_dec: As those of ``SparseAutoencoder``.
        threshold: Buffer, a scalar; it starts at 0, and ``set_threshold`` sets it after training.

    Source: Bussmann, Leask and Nanda (2024), "BatchTopK Sparse Autoencoders".
    """

    threshold: Float[Tensor, ""]

    def __init__(self, d_in: int, d_sae: int, k: int, *, generator: torch.Generator | None = None):
        # Given: weights as in the L1 autoencoder, and a threshold that is saved with them.
        super().__init__(d_in, d_sae, generator=generator)
        self.register_buffer("threshold", torch.zeros(()))
        self.k = k

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """The latents, none below 0."""
        # Given: pre-activations. Those below 0 are never kept.
        pre = torch.relu(x @ self.W_enc + self.b_enc)
        # Yours: return those above the threshold, or while it is 0, the batch's k · n largest.
        if self.threshold > 0:
            return pre * (pre > self.threshold)
        n = pre[..., 0].numel()
        values, places = pre.flatten().topk(self.k * n)
        return torch.zeros_like(pre).flatten().scatter(0, places, values).view_as(pre)


def set_threshold(sae: BatchTopKSAE, x: Float[Tensor, "n d_in"]) -> None:
    """Set the threshold so that on these activations as many latents are on as batch top-k would keep."""
    with torch.no_grad():
        pre = torch.relu(x @ sae.W_enc + sae.b_enc)
        kept = pre.flatten().topk(sae.k * len(x) + 1).values
        sae.threshold.copy_((kept[-2] + kept[-1]) / 2)


def topk_objective(k_aux: int = 64, aux_coefficient: float = 1 / 32):
    """‖y - ŷ‖² + α aux_k_loss, as ``train_sae`` calls it: for whatever has W_enc, b_enc and W_dec.

    Args:
        k_aux: How many dead latents, at most, are to explain an activation's error.
        aux_coefficient: α, the auxiliary loss's weight; 0 leaves it out.
    """

    def objective(sae, x, y, dead):
        y_hat, z = sae(x)
        error = y - y_hat
        loss = error.square().sum(dim=-1).mean()
        if aux_coefficient and dead.any():
            pre = x @ sae.W_enc[:, dead] + sae.b_enc[dead]  # the dead are all that this loss looks at
            loss = loss + aux_coefficient * aux_k_loss(error, pre, sae.W_dec[dead], dead[dead], k_aux)
        return loss, z

    return objective
