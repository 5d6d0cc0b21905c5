"""One dictionary for several layers."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.sae.topk import topk_activation


class MultiLayerSAE(nn.Module):
    """A crosscoder: every latent reads all layers and has a direction in each of them.

    z = TopK(Σ_l x[l] W_enc[l] + b_enc) is one code for all layers, and x̂[l] = z W_dec[:, l] + b_dec[l]. The call gives
    (x̂, z).

    Args:
        n_layers: Number of layers.
        d_in: Dimensions of an activation in each of them.
        d_sae: Number of latents.
        k: How many latents are on, as in ``topk_activation``.
        generator: Draws the starting weights.

    Attributes:
        W_enc: Parameter [n_layers, d_in, d_sae].
        b_enc: Parameter [d_sae].
        W_dec: Parameter [d_sae, n_layers, d_in]. How long a latent's direction is in each layer is learnt.
        b_dec: Parameter [n_layers, d_in].

    Source: Lindsey et al. (2024), "Sparse Crosscoders for Cross-Layer Features and Model Diffing", who have a ReLU and
    an L1 price weighed by the sum of the directions' lengths where we have TopK.
    """

    def __init__(self, n_layers: int, d_in: int, d_sae: int, k: int, *, generator: torch.Generator | None = None):
        # Given: a direction for all layers together of length 1; the encoder starts as the decoder's transpose.
        super().__init__()
        directions = torch.randn(d_sae, n_layers, d_in, generator=generator)
        self.W_dec = nn.Parameter(directions / directions.norm(dim=(1, 2), keepdim=True))
        self.W_enc = nn.Parameter(self.W_dec.detach().permute(1, 2, 0).clone())
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(n_layers, d_in))
        self.k = k

    def forward(
        self, x: Float[Tensor, "*batch layers d_in"]
    ) -> tuple[Float[Tensor, "*batch layers d_in"], Float[Tensor, "*batch d_sae"]]:
        """The reconstruction of every layer, and the latents z."""
        pre = torch.einsum("...ld,lds->...s", x, self.W_enc) + self.b_enc
        z = topk_activation(pre, self.k)
        return torch.einsum("...s,sld->...ld", z, self.W_dec) + self.b_dec, z


def multi_layer_objective():
    """The squared error, a sum over layers and dimensions, as ``train_sae`` calls it (with ``unit_norm=False``)."""

    def objective(sae, x, y, dead):
        y_hat, z = sae(x)
        return (y - y_hat).square().sum(dim=(-2, -1)).mean(), z

    return objective
