"""What the checks and oracles of this chapter share: small models with random weights.

A lens needs a final norm and an unembedding of its model, and takes a ``SmallModel``, which is made in no time. Checks
of what a model does inside need a ``HookedTransformer``, from ``hooked.py``, whose library takes seconds to import.
"""

import torch
from torch import nn

from utils.models.config import TransformerConfig

# Sizes that can't stand in for one another; the two norms' eps differ, and the second is large enough to be seen.
CONFIGS = (
    TransformerConfig(d_model=10, n_layers=2, n_heads=3, d_head=4, d_mlp=7, n_ctx=6, d_vocab=13),
    TransformerConfig(d_model=6, n_layers=3, n_heads=2, d_head=5, d_mlp=9, n_ctx=5, d_vocab=8, layer_norm_eps=0.3),
)


class LayerNorm(nn.Module):
    """The norm of GPT-2."""

    def __init__(self, rng, d_model, eps):
        super().__init__()
        self.eps = eps
        self.w, self.b = (nn.Parameter(0.6 * torch.randn(d_model, generator=rng)) for _ in range(2))

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.w + self.b


class LayerNormPre(nn.Module):
    """A layer norm as it is when gain and bias have been folded into the unembedding."""

    def __init__(self, eps):
        super().__init__()
        self.eps = eps

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + self.eps).sqrt()


class RMSNorm(nn.Module):
    """The norm of Llama."""

    def __init__(self, rng, d_model, eps):
        super().__init__()
        self.eps, self.w = eps, nn.Parameter(0.6 * torch.randn(d_model, generator=rng))

    def forward(self, x):
        return x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt() * self.w


class RMSNormPre(nn.Module):
    """An RMS norm whose gain has been folded into the unembedding."""

    def __init__(self, eps):
        super().__init__()
        self.eps = eps

    def forward(self, x):
        return x / (x.square().mean(-1, keepdim=True) + self.eps).sqrt()


class Unembed(nn.Module):
    def __init__(self, rng, d_model, d_vocab):
        super().__init__()
        self.W_U = nn.Parameter(0.6 * torch.randn(d_model, d_vocab, generator=rng))
        self.b_U = nn.Parameter(0.6 * torch.randn(d_vocab, generator=rng))

    def forward(self, x):
        return x @ self.W_U + self.b_U


class SmallModel(nn.Module):
    """The two ends of a model with random weights and ``transformer_lens``'s names, and a norm in a block between."""

    def __init__(self, rng, cfg, norm=None):
        super().__init__()
        self.cfg, size, eps = cfg, cfg.d_model, cfg.layer_norm_eps
        self.embed = nn.ParameterDict({"W_E": 0.6 * torch.randn(cfg.d_vocab, size, generator=rng)})
        self.blocks = nn.ModuleList([nn.ModuleDict({"ln1": LayerNorm(rng, size, eps)})])
        self.ln_final, self.unembed = norm or LayerNorm(rng, size, eps), Unembed(rng, size, cfg.d_vocab)
        self.eval()

    @property
    def W_E(self):
        return self.embed["W_E"]

    @property
    def W_U(self):
        return self.unembed.W_U

    @property
    def b_U(self):
        return self.unembed.b_U
