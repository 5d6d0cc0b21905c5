"""The sparse autoencoder of the lecture, and its loss."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class SparseAutoencoder(nn.Module):
    """Reads an activation as a sum of few directions out of many: z = ReLU(x W_enc + b_enc), x̂ = z W_dec + b_dec.

    Args:
        d_in: Dimensions of an activation.
        d_sae: Number of latents.
        generator: Draws the starting weights; None for torch's global one.

    Attributes:
        W_enc: Parameter [d_in, d_sae]; it starts as the transpose of W_dec.
        b_enc: Parameter [d_sae]; it starts at 0.
        W_dec: Parameter [d_sae, d_in], a direction for each latent; it starts as ``torch.randn(d_sae, d_in,
            generator=generator)`` with each row divided by its length.
        b_dec: Parameter [d_in]; it starts at 0.

    Source: Bricken et al. (2023), "Towards Monosemanticity", who also subtract b_dec from x before the encoder.
    """

    def __init__(self, d_in: int, d_sae: int, *, generator: torch.Generator | None = None):
        super().__init__()
        directions = torch.randn(d_sae, d_in, generator=generator)
        self.W_dec = nn.Parameter(directions / directions.norm(dim=1, keepdim=True))
        self.W_enc = nn.Parameter(self.W_dec.detach().T.clone())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """The latents, none below 0."""
        return torch.relu(x @ self.W_enc + self.b_enc)

    def decode(self, z: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        """The activation that the latents stand for."""
        return z @ self.W_dec + self.b_dec

    def forward(
        self, x: Float[Tensor, "*batch d_in"]
    ) -> tuple[Float[Tensor, "*batch d_in"], Float[Tensor, "*batch d_sae"]]:
        """The reconstruction x̂ and the latents z."""
        z = self.encode(x)
        return self.decode(z), z


def l1_sae_loss(
    x: Float[Tensor, "batch d_in"],
    x_hat: Float[Tensor, "batch d_in"],
    z: Float[Tensor, "batch d_sae"],
    W_dec: Float[Tensor, "d_sae d_in"],
    l1_coefficient: float,
) -> Float[Tensor, ""]:
    """Squared error plus the price of the latents, a mean over the batch: ‖x - x̂‖² + λ Σ_i z_i ‖W_dec[i]‖.

    The lecture writes ‖z‖₁ and keeps the rows of W_dec at length 1, where the two forms are the same. Weighed by the
    rows' lengths, the price can't be dodged by small latents with long rows.

    Args:
        x: Activations.
        x_hat: Their reconstructions.
        z: Their latents, none below 0.
        W_dec: The decoder.
        l1_coefficient: λ, the price.

    Returns:
        The loss, a sum over dimensions and latents and a mean over the batch.

    Source: Bricken et al. (2023); the weighing by rows: Conerly et al. (2024), "Update on how we train SAEs".
    """
    error = (x - x_hat).square().sum(dim=-1)
    return (error + l1_coefficient * z @ W_dec.norm(dim=-1)).mean()


def geometric_median(x: Float[Tensor, "n d"], n_steps: int = 100, eps: float = 1e-6) -> Float[Tensor, " d"]:
    """The point with the smallest sum of distances to the given ones, which no few far ones can drag along.

    Weiszfeld's algorithm: it starts at the mean, and each step moves to the mean of the points weighed by
    1 / max(distance to the present place, eps).

    Args:
        x: Points.
        n_steps: Number of steps, at least 0.
        eps: The distance that a nearer point counts as having, in units of x.

    Returns:
        The place after the last step.

    Source: Weiszfeld (1937); the use for b_dec: Bricken et al. (2023).
    """
    place = x.mean(dim=0)
    for _ in range(n_steps):
        weights = 1 / (x - place).norm(dim=1).clamp(min=eps)
        place = weights @ x / weights.sum()
    return place


def l1_objective(l1_coefficient: float):
    """The L1 loss as ``train_sae`` calls it; with a share of the price, for its warm-up."""

    def objective(sae, x, y, dead, share=1.0):
        x_hat, z = sae(x)
        return l1_sae_loss(y, x_hat, z, sae.W_dec, share * l1_coefficient), z

    return objective
