"""Small networks to try patching on: logic by hand, and a transformer with random weights and named hook points."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


class LogicNetwork(nn.Module):
    """Two parts that each look at one input, and an output that combines them.

    Hook points ``a`` and ``b`` carry the two inputs, 0 or 1; the output is a AND b, or a OR b, computed with ReLUs.

    Args:
        kind: "and" or "or".
    """

    def __init__(self, kind: str):
        super().__init__()
        if kind not in ("and", "or"):
            raise ValueError(f"kind must be 'and' or 'or', got {kind!r}")
        self.kind, self.a, self.b = kind, nn.Identity(), nn.Identity()

    def forward(self, inputs: Float[Tensor, "batch two"]) -> Float[Tensor, "batch"]:
        a, b = self.a(inputs[:, 0]), self.b(inputs[:, 1])
        return (a + b - 1).relu() if self.kind == "and" else 1 - (1 - a - b).relu()


class SmallAttention(nn.Module):
    """Causal heads whose results, before the output matrix, pass ``hook_z`` [batch, pos, head, d_head]."""

    def __init__(self, d_model: int, n_heads: int, d_head: int):
        super().__init__()
        self.W_Q, self.W_K, self.W_V = (nn.Parameter(torch.zeros(n_heads, d_model, d_head)) for _ in range(3))
        self.W_O = nn.Parameter(torch.zeros(n_heads, d_head, d_model))
        self.hook_z = nn.Identity()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        q, k, v = (x[:, None] @ W for W in (self.W_Q, self.W_K, self.W_V))
        z = self.hook_z(F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2))
        return z.flatten(2) @ self.W_O.flatten(0, 1)


class SmallMLP(nn.Module):
    """One hidden layer of tanh units, whose activations pass ``hook_post``; ``linear`` leaves the tanh out."""

    def __init__(self, d_model: int, d_mlp: int, linear: bool):
        super().__init__()
        self.W_in, self.b_in = nn.Parameter(torch.zeros(d_model, d_mlp)), nn.Parameter(torch.zeros(d_mlp))
        self.W_out, self.b_out = nn.Parameter(torch.zeros(d_mlp, d_model)), nn.Parameter(torch.zeros(d_model))
        self.linear, self.hook_post = linear, nn.Identity()

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        hidden = x @ self.W_in + self.b_in
        return self.hook_post(hidden if self.linear else hidden.tanh()) @ self.W_out + self.b_out


class SmallBlock(nn.Module):
    """Attention and an MLP on a residual stream without layer norms."""

    def __init__(self, d_model: int, n_heads: int, d_head: int, d_mlp: int, linear: bool):
        super().__init__()
        self.attn = SmallAttention(d_model, n_heads, d_head)
        self.mlp = SmallMLP(d_model, d_mlp, linear)
        self.hook_resid_pre, self.hook_attn_out, self.hook_mlp_out, self.hook_resid_post = (
            nn.Identity() for _ in range(4)
        )

    def forward(self, x: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        x = self.hook_resid_pre(x)
        x = x + self.hook_attn_out(self.attn(x))
        return self.hook_resid_post(x + self.hook_mlp_out(self.mlp(x)))


class SmallTransformer(nn.Module):
    """A transformer with ``transformer_lens``'s names and random weights that matter, for checks and toy examples.

    Args:
        generator: Draws all parameters.
        n_layers, d_model, n_heads, d_head, d_mlp, n_ctx, d_vocab: Sizes.
        linear: Leave out the MLPs' nonlinearity and zero all queries, so that the logits are a linear function of any
            activation.
    """

    def __init__(
        self,
        generator: torch.Generator,
        *,
        n_layers: int = 2,
        d_model: int = 6,
        n_heads: int = 3,
        d_head: int = 2,
        d_mlp: int = 7,
        n_ctx: int = 8,
        d_vocab: int = 11,
        linear: bool = False,
    ):
        super().__init__()
        self.W_E, self.W_pos = nn.Parameter(torch.zeros(d_vocab, d_model)), nn.Parameter(torch.zeros(n_ctx, d_model))
        self.W_U = nn.Parameter(torch.zeros(d_model, d_vocab))
        self.hook_embed, self.not_run = nn.Identity(), nn.Identity()
        self.blocks = nn.ModuleList(SmallBlock(d_model, n_heads, d_head, d_mlp, linear) for _ in range(n_layers))
        with torch.no_grad():
            for name, parameter in self.named_parameters():
                size = 0.7 if name.startswith("W_") else 1.2 / d_model**0.5
                parameter.copy_(size * torch.randn(parameter.shape, generator=generator))
            if linear:
                for block in self.blocks:
                    block.attn.W_Q.zero_()

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        x = self.hook_embed(self.W_E[tokens]) + self.W_pos[: tokens.shape[1]]
        for block in self.blocks:
            x = block(x)
        return x @ self.W_U
