"""Gated autoencoders: one path decides which latents are on, another how strongly."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.sae.autoencoder import SparseAutoencoder


class GatedSAE(nn.Module):
    """One path says which latents are on, a second one how strongly; they share their directions.

    The gate's pre-activation is π = x W_enc + b_gate. The magnitude's is x W_mag + b_mag, where W_mag is W_enc with
    column i multiplied by exp(r_mag[i]). The latents are z = 1[π > 0] · ReLU(x W_mag + b_mag), entry by entry, and the
    call gives (z W_dec + b_dec, z).

    Args:
        d_in: Dimensions of an activation.
        d_sae: Number of latents.
        generator: Draws the starting weights.

    Attributes:
        W_enc: Parameter [d_in, d_sae].
        b_gate, b_mag, r_mag: Parameters [d_sae]; they start at 0, where both paths are the same.
        W_dec: Parameter [d_sae, d_in].
        b_dec: Parameter [d_in].

    Source: Rajamanoharan et al. (2024), "Improving Dictionary Learning with Gated Sparse Autoencoders", who also
    subtract b_dec from x before the encoder.
    """

    def __init__(self, d_in: int, d_sae: int, *, generator: torch.Generator | None = None):
        # Given: weights start as in the L1 autoencoder.
        super().__init__()
        start = SparseAutoencoder(d_in, d_sae, generator=generator)
        self.W_enc, self.W_dec, self.b_dec = start.W_enc, start.W_dec, start.b_dec
        self.b_gate = nn.Parameter(torch.zeros(d_sae))
        self.b_mag = nn.Parameter(torch.zeros(d_sae))
        self.r_mag = nn.Parameter(torch.zeros(d_sae))

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """The latents, none below 0."""
        projected = x @ self.W_enc
        on = projected + self.b_gate > 0
        return on * torch.relu(projected * self.r_mag.exp() + self.b_mag)

    def forward(
        self, x: Float[Tensor, "*batch d_in"]
    ) -> tuple[Float[Tensor, "*batch d_in"], Float[Tensor, "*batch d_sae"]]:
        """The reconstruction x̂ and the latents z."""
        z = self.encode(x)
        return z @ self.W_dec + self.b_dec, z


def gated_loss(
    x: Float[Tensor, "batch d_in"],
    x_hat: Float[Tensor, "batch d_in"],
    pi: Float[Tensor, "batch d_sae"],
    W_dec: Float[Tensor, "d_sae d_in"],
    b_dec: Float[Tensor, " d_in"],
    l1_coefficient: float,
) -> Float[Tensor, ""]:
    """‖x - x̂‖² + λ Σ_i ReLU(π_i) + ‖x - (ReLU(π) W_dec + b_dec)‖², a mean over the batch.

    The first term trains the magnitudes. The price is on the gate alone. The last one trains the gate, which gets no
    gradient through the first: it asks that the gate's own pre-activations reconstruct x through a decoder that is
    *frozen* there.

    Args:
        x: Activations.
        x_hat: Their reconstructions.
        pi: The gate's pre-activations, x W_enc + b_gate. Gradients flow into it from the second and third term.
        W_dec, b_dec: The decoder. In the third term it counts as a constant: no gradient flows into it.
        l1_coefficient: λ, the price.

    Returns:
        The loss, a sum over dimensions and latents and a mean over the batch.

    Source: Rajamanoharan et al. (2024), equation 8, for rows of W_dec of length 1.
    """
    gate = torch.relu(pi)
    error = (x - x_hat).square().sum(dim=-1)
    by_gate = (x - gate @ W_dec.detach() - b_dec.detach()).square().sum(dim=-1)
    return (error + l1_coefficient * gate.sum(dim=-1) + by_gate).mean()


def gated_objective(l1_coefficient: float):
    """The gated loss as ``train_sae`` calls it."""

    def objective(sae, x, y, dead):
        y_hat, z = sae(x)
        return gated_loss(y, y_hat, x @ sae.W_enc + sae.b_gate, sae.W_dec, sae.b_dec, l1_coefficient), z

    return objective
