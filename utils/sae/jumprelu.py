"""Autoencoders with a threshold for each latent, learnt by a straight-through gradient."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.sae.autoencoder import SparseAutoencoder


class JumpReLUSAE(SparseAutoencoder):
    """A latent is its pre-activation where that lies above the latent's threshold, and 0 elsewhere.

    With θ = exp(log_threshold), ``jump(p)`` gives a pair: the latents z and the *steps* of pre-activations p. A step is
    1[p > θ], and z is p times it. The call gives (z W_dec + b_dec, z) for p = x W_enc + b_enc. A jump has no useful
    derivative by θ, so both are given one *by hand*. With the bandwidth ε and the kernel K(u) = 1[abs(u) < 1/2],

        d step / dθ = -K((p - θ) / ε) / ε          d step / dp = 0
        d z / dθ = -θ K((p - θ) / ε) / ε           d z / dp = 1[p > θ]

    Values are exact all the same; only gradients are made up.

    Args:
        d_in: Dimensions of an activation.
        d_sae: Number of latents.
        threshold: θ of every latent at the start, above 0.
        bandwidth: ε, above 0.
        generator: Draws the starting weights.

    Attributes:
        W_enc, b_enc, W_dec, b_dec: As those of ``SparseAutoencoder``.
        log_threshold: Parameter [d_sae]; its gradient is that by θ times θ.

    Source: Rajamanoharan et al. (2024), "Jumping Ahead: Improving Reconstruction Fidelity with JumpReLU Sparse
    Autoencoders", equations 11 and 12.
    """

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        *,
        threshold: float = 0.5,
        bandwidth: float = 0.5,
        generator: torch.Generator | None = None,
    ):
        # Given: weights as in the L1 autoencoder, and a threshold for each latent.
        super().__init__(d_in, d_sae, generator=generator)
        self.log_threshold = nn.Parameter(torch.full((d_sae,), math.log(threshold)))
        self.bandwidth = bandwidth

    def jump(
        self, pre: Float[Tensor, "*batch d_sae"]
    ) -> tuple[Float[Tensor, "*batch d_sae"], Float[Tensor, "*batch d_sae"]]:
        """The latents and the steps (1 where the pre-activation is above the threshold, 0 elsewhere)."""
        theta = self.log_threshold.exp()
        on = pre > theta
        near = (pre - theta).abs() < self.bandwidth / 2
        nothing = near * ((theta.detach() - theta) / self.bandwidth)
        return pre * on + theta.detach() * nothing, on + nothing

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        """The latents, none below 0."""
        # Given: the latents of the pre-activations.
        return self.jump(x @ self.W_enc + self.b_enc)[0]


def jumprelu_objective(l0_coefficient: float):
    """Squared error and λ for each latent that is on, as ``train_sae`` calls it: ‖x - x̂‖² + λ Σ_i 1[p_i > θ_i]."""

    def objective(sae, x, y, dead):
        z, on = sae.jump(x @ sae.W_enc + sae.b_enc)
        error = y - sae.decode(z)
        return (error.square().sum(dim=-1) + l0_coefficient * on.sum(dim=-1)).mean(), z

    return objective
