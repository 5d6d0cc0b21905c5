"""Autoencoders that keep the k largest latents."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn


def topk_activation(pre: Float[Tensor, "*batch d_sae"], k: int) -> Float[Tensor, "*batch d_sae"]:
    """Keep each row's k largest entries, where they are above 0; all others become 0."""
    values, places = pre.topk(k, dim=-1)
    return torch.zeros_like(pre).scatter(-1, places, values.relu())


class TopKSAE(nn.Module):
    """z = TopK(x W_enc + b_enc), x̂ = z W_dec + b_dec: k latents are on, fewer where too few are above 0.

    Starts as ``SparseAutoencoder`` does.

    Source: Makhzani and Frey (2013), "k-Sparse Autoencoders"; Gao et al. (2024), "Scaling and evaluating sparse
    autoencoders", who also subtract b_dec from x before the encoder.
    """

    def __init__(self, d_in: int, d_sae: int, k: int, *, generator: torch.Generator | None = None):
        super().__init__()
        directions = torch.randn(d_sae, d_in, generator=generator)
        self.W_dec = nn.Parameter(directions / directions.norm(dim=1, keepdim=True))
        self.W_enc = nn.Parameter(self.W_dec.detach().T.clone())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(d_in))
        self.k = k

    def encode(self, x: Float[Tensor, "*batch d_in"]) -> Float[Tensor, "*batch d_sae"]:
        return topk_activation(x @ self.W_enc + self.b_enc, self.k)

    def decode(self, z: Float[Tensor, "*batch d_sae"]) -> Float[Tensor, "*batch d_in"]:
        return z @ self.W_dec + self.b_dec

    def forward(
        self, x: Float[Tensor, "*batch d_in"]
    ) -> tuple[Float[Tensor, "*batch d_in"], Float[Tensor, "*batch d_sae"]]:
        z = self.encode(x)
        return self.decode(z), z


def aux_k_loss(
    error: Float[Tensor, "batch d_in"],
    pre: Float[Tensor, "batch d_sae"],
    W_dec: Float[Tensor, "d_sae d_in"],
    dead: Bool[Tensor, " d_sae"],
    k_aux: int,
) -> Float[Tensor, ""]:
    """How badly the ``k_aux`` strongest dead latents explain what the living ones left over: mean squared error.

    0 where no latent is dead. The error is a constant: no gradient goes to the living latents through it.

    Source: Gao et al. (2024), section 2.4.
    """
    n_dead = int(dead.sum())
    if n_dead == 0:
        return error.new_zeros(())
    z = topk_activation(pre.masked_fill(~dead, -torch.inf), min(k_aux, n_dead))
    return (z @ W_dec - error.detach()).square().sum(dim=-1).mean()


def topk_objective(k_aux: int = 64, aux_coefficient: float = 1 / 32):
    """Squared error and the auxiliary loss, as ``train_sae`` calls it, for ``TopKSAE``."""

    def objective(sae, x, y, dead):
        x_hat, z = sae(x)
        error = y - x_hat
        pre = x @ sae.W_enc + sae.b_enc
        return error.square().sum(dim=-1).mean() + aux_coefficient * aux_k_loss(error, pre, sae.W_dec, dead, k_aux), z

    return objective
