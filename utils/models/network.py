"""The course model's architecture in the form that trains quickest; its weights are saved under the standard names."""

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.models.config import TransformerConfig

MLP_PARAMETERS = ("ln2_w", "ln2_b", "W_in", "b_in", "W_out", "b_out")


class HeadDropout(NamedTuple):
    """Silences heads of the upper half of the layers at random, whole heads for whole documents.

    Attributes:
        share: How often.
        generator: Draws which.
    """

    share: float
    generator: torch.Generator

    def __call__(self, z: Float[Tensor, "batch head pos d"]) -> Float[Tensor, "batch head pos d"]:
        kept = torch.rand(z.shape[:2], generator=self.generator) >= self.share
        return z * (kept / (1 - self.share))[:, :, None, None]


class Network(nn.Module):
    """The transformer of chapter 02 with queries, keys and values in one matrix and PyTorch's fused attention.

    It computes what ``HookedTransformer`` and the learner's ``Transformer`` compute, and keeps nothing of it, which
    makes it quicker to train. ``standard_state`` gives the weights in the names and shapes of the other two.

    Args:
        cfg: Sizes; ``d_mlp = 0`` leaves the MLPs out.
        generator: Draws the initial weights, all normal. Two choices make the heads that find and copy earlier tokens
            form many times sooner. Embeddings have standard deviation 1, so that Adam's steps hardly turn them while
            those heads form. And W_U starts as a random rotation of W_E, so that one matrix of a head can copy every
            token; unrelated matrices would have to be brought together token by token.
    """

    def __init__(self, cfg: TransformerConfig, generator: torch.Generator):
        super().__init__()
        self.cfg = cfg
        width, inner = 0.6 / math.sqrt(cfg.d_model), cfg.n_heads * cfg.d_head
        writes = width / math.sqrt(2 * cfg.n_layers)

        def normal(*shape: int, std: float = width) -> nn.Parameter:
            return nn.Parameter(std * torch.randn(shape, generator=generator))

        self.W_E = normal(cfg.d_vocab, cfg.d_model, std=1.0)
        self.W_pos = normal(cfg.n_ctx, cfg.d_model, std=1.0)
        self.blocks = nn.ModuleList()
        for _ in range(cfg.n_layers):
            block = {
                "ln1_w": nn.Parameter(torch.ones(cfg.d_model)),
                "ln1_b": nn.Parameter(torch.zeros(cfg.d_model)),
                "W_QKV": normal(3 * inner, cfg.d_model),
                "b_QKV": nn.Parameter(torch.zeros(3 * inner)),
                "W_O": normal(cfg.d_model, inner, std=writes),
                "b_O": nn.Parameter(torch.zeros(cfg.d_model)),
            }
            if cfg.d_mlp:
                block |= {
                    "ln2_w": nn.Parameter(torch.ones(cfg.d_model)),
                    "ln2_b": nn.Parameter(torch.zeros(cfg.d_model)),
                    "W_in": normal(cfg.d_mlp, cfg.d_model),
                    "b_in": nn.Parameter(torch.zeros(cfg.d_mlp)),
                    "W_out": normal(cfg.d_model, cfg.d_mlp, std=writes),
                    "b_out": nn.Parameter(torch.zeros(cfg.d_model)),
                }
            self.blocks.append(nn.ParameterDict(block))
        self.ln_final_w = nn.Parameter(torch.ones(cfg.d_model))
        self.ln_final_b = nn.Parameter(torch.zeros(cfg.d_model))
        turn = torch.linalg.qr(torch.randn(cfg.d_model, cfg.d_model, generator=generator)).Q
        self.W_U = nn.Parameter(width * self.W_E.detach() @ turn)
        self.b_U = nn.Parameter(torch.zeros(cfg.d_vocab))

    def forward(
        self, tokens: Int[Tensor, "batch pos"], dropout: HeadDropout | None = None
    ) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits of the next token after every position."""
        cfg = self.cfg
        resid = F.embedding(tokens, self.W_E) + self.W_pos[: tokens.shape[1]]
        for layer, block in enumerate(self.blocks):
            normed = F.layer_norm(resid, (cfg.d_model,), block["ln1_w"], block["ln1_b"], cfg.layer_norm_eps)
            qkv = F.linear(normed, block["W_QKV"], block["b_QKV"])
            q, k, v = rearrange(qkv, "batch pos (three head d) -> three batch head pos d", three=3, head=cfg.n_heads)
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            if dropout is not None and layer >= cfg.n_layers // 2:
                z = dropout(z)
            resid = resid + F.linear(rearrange(z, "batch head pos d -> batch pos (head d)"), block["W_O"], block["b_O"])
            if cfg.d_mlp:
                normed = F.layer_norm(resid, (cfg.d_model,), block["ln2_w"], block["ln2_b"], cfg.layer_norm_eps)
                post = F.gelu(F.linear(normed, block["W_in"], block["b_in"]), approximate="tanh")
                resid = resid + F.linear(post, block["W_out"], block["b_out"])
        normed = F.layer_norm(resid, (cfg.d_model,), self.ln_final_w, self.ln_final_b, cfg.layer_norm_eps)
        return F.linear(normed, self.W_U, self.b_U)

    def standard_state(self) -> dict[str, Tensor]:
        """The weights by their standard names (``blocks.0.attn.W_Q`` [n_heads, d_model, d_head] …), as copies."""
        state = {
            "embed.W_E": self.W_E, "pos_embed.W_pos": self.W_pos, "ln_final.w": self.ln_final_w,
            "ln_final.b": self.ln_final_b, "unembed.W_U": self.W_U.T, "unembed.b_U": self.b_U,
        }  # fmt: skip
        for layer, block in enumerate(self.blocks):
            state |= {f"blocks.{layer}.{name}": value for name, value in self._standard_block(block).items()}
        return {name: value.detach().clone().contiguous() for name, value in state.items()}

    def _standard_block(self, block: nn.ParameterDict) -> dict[str, Tensor]:
        heads = {"three": 3, "head": self.cfg.n_heads}
        W_Q, W_K, W_V = rearrange(block["W_QKV"], "(three head d) d_model -> three head d_model d", **heads)
        b_Q, b_K, b_V = rearrange(block["b_QKV"], "(three head d) -> three head d", **heads)
        W_O = rearrange(block["W_O"], "d_model (head d) -> head d d_model", head=self.cfg.n_heads)
        standard = {"ln1.w": block["ln1_w"], "ln1.b": block["ln1_b"], "attn.b_O": block["b_O"]}
        standard |= {"attn.W_Q": W_Q, "attn.W_K": W_K, "attn.W_V": W_V, "attn.W_O": W_O}
        standard |= {"attn.b_Q": b_Q, "attn.b_K": b_K, "attn.b_V": b_V}
        if self.cfg.d_mlp:
            standard |= {"ln2.w": block["ln2_w"], "ln2.b": block["ln2_b"], "mlp.W_in": block["W_in"].T}
            standard |= {"mlp.b_in": block["b_in"], "mlp.W_out": block["W_out"].T, "mlp.b_out": block["b_out"]}
        return standard
