"""Decoding with a cache: reuse the keys and values of tokens that were read before."""

import math

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn


def kv_cache_step(
    model: nn.Module,
    token: Int[Tensor, "batch"],
    cache: list[tuple[Tensor, Tensor]] | None,
) -> tuple[Float[Tensor, "batch d_vocab"], list[tuple[Tensor, Tensor]]]:
    """Read one more token of each text: what ``model`` would say there, without reading the past again.

    Args:
        model: A ``Transformer`` with at least one block; where its ``cfg.d_mlp`` is 0, its blocks have no ``ln2`` and
            no ``mlp``.
        token: The token at the new position.
        cache: For each layer the keys and the values (biases included) of all earlier positions, both
            [batch, n_heads, pos, d_head]; None at position 0.

    Returns:
        logits: The model's prediction at the new position, in the dtype of its weights.
        cache: The same as the argument, one position longer; the argument itself is left as it was.

    Raises:
        ValueError: If the cache already holds as many positions as the model has position embeddings, or the model has
            none (``model.cfg.positional_embedding_type`` is not "standard", as in Llamas).

    Source: Shazeer (2019), "Fast Transformer Decoding: One Write-Head is All You Need", section 2.4.
    """
    # Given: other kinds of transformers are refused.
    if getattr(model.cfg, "positional_embedding_type", "standard") != "standard":
        raise ValueError(
            "the model has no position embeddings: it is of another kind, which tells positions inside attention, and "
            "this step would leave them out"
        )
    # Yours: embed, go through the blocks with the old keys and values in front, unembed.
    position = 0 if cache is None else cache[0][0].shape[2]
    if position >= model.pos_embed.W_pos.shape[0]:
        raise ValueError(f"the model has no embedding for position {position}")
    resid = (model.embed.W_E[token] + model.pos_embed.W_pos[position]).unsqueeze(1)
    new_cache = []
    for layer, block in enumerate(model.blocks):
        attn, x = block.attn, block.ln1(resid)
        query, keys, values = (
            einsum(x, W, "batch pos d_model, head d_model d_head -> batch head pos d_head") + b.unsqueeze(1)
            for W, b in ((attn.W_Q, attn.b_Q), (attn.W_K, attn.b_K), (attn.W_V, attn.b_V))
        )
        if cache is not None:
            keys = torch.cat([cache[layer][0], keys], dim=2)
            values = torch.cat([cache[layer][1], values], dim=2)
        new_cache.append((keys, values))
        # One query, and everything in the cache is its past: there is nothing to mask.
        wide = torch.promote_types(query.dtype, torch.float32)  # dot products go beyond float16
        scores = query.to(wide) @ keys.to(wide).transpose(-1, -2) / math.sqrt(query.shape[-1])
        moved = scores.softmax(dim=-1).to(values.dtype) @ values
        out = einsum(moved, attn.W_O, "batch head pos d_head, head d_head d_model -> batch pos d_model")
        resid = resid + out + attn.b_O
        resid = resid + block.mlp(block.ln2(resid)) if model.cfg.d_mlp else resid
    return (model.ln_final(resid) @ model.unembed.W_U + model.unembed.b_U).squeeze(1), new_cache
