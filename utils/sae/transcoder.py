"""Dictionaries that give back something else than they read: what a layer makes of its input."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.sae.topk import topk_activation


class SkipTranscoder(nn.Module):
    """Reads an MLP's input and writes its output, through few latents and a linear path beside them.

    z = TopK(x W_enc + b_enc) and ŷ = z W_dec + b_dec + x W_skipᵀ; the call gives (ŷ, z). If ``skip`` is False, the last
    term is missing: a plain transcoder, whose W_skip is None.

    Args:
        d_in: Dimensions of what is read.
        d_sae: Number of latents.
        d_out: Dimensions of what is written.
        k: How many latents are on, as in ``topk_activation``.
        skip: Whether there is a linear path beside the latents.
        generator: Draws the starting weights.

    Attributes:
        W_enc: Parameter [d_in, d_sae].
        b_enc: Parameter [d_sae].
        W_dec: Parameter [d_sae, d_out].
        b_dec: Parameter [d_out].
        W_skip: Parameter [d_out, d_in]; it starts at 0. Only with ``skip``.

    Source: Dunefsky, Chlenski and Nanda (2024), "Transcoders Find Interpretable LLM Feature Circuits"; the linear path:
    Paulo, Shabalin and Belrose (2025), "Transcoders Beat Sparse Autoencoders for Interpretability".
    """

    def __init__(
        self,
        d_in: int,
        d_sae: int,
        d_out: int,
        k: int,
        *,
        skip: bool = True,
        generator: torch.Generator | None = None,
    ):
        # Given: the encoder and the decoder have different spaces, so neither starts as the other's transpose.
        super().__init__()
        enc = torch.randn(d_in, d_sae, generator=generator)
        dec = torch.randn(d_sae, d_out, generator=generator)
        self.W_enc = nn.Parameter(enc / enc.norm(dim=0, keepdim=True))
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(dec / dec.norm(dim=1, keepdim=True))
        self.b_dec = nn.Parameter(torch.zeros(d_out))
        self.W_skip = nn.Parameter(torch.zeros(d_out, d_in)) if skip else None
        self.k = k

    def forward(
        self, x: Float[Tensor, "*batch d_in"]
    ) -> tuple[Float[Tensor, "*batch d_out"], Float[Tensor, "*batch d_sae"]]:
        """What the layer is thought to write, and the latents z."""
        z = topk_activation(x @ self.W_enc + self.b_enc, self.k)
        y_hat = z @ self.W_dec + self.b_dec
        if self.W_skip is not None:
            y_hat = y_hat + x @ self.W_skip.T
        return y_hat, z
