"""Rewriting a transformer's weights so that they are easier to read and compute the same."""

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from utils.models.config import TransformerConfig


def fold_layer_norm(
    state: dict[str, Float[Tensor, "..."]],
    cfg: TransformerConfig,
) -> dict[str, Float[Tensor, "..."]]:
    """Move every layer norm's scale and shift into the weights and biases that read its output.

    A reader computes (x * w + b) @ W + c, where x is the normalised residual vector; that is x @ W' + c' with
    new W' and c'. Readers are W_Q, W_K, W_V (after ln1), W_in (after ln2) and W_U (after ln_final). Where ``cfg.d_mlp``
    is 0, there is no ln2 and no W_in.

    Args:
        state: A ``Transformer``'s state dict, with names such as ``blocks.0.attn.W_Q`` and ``ln_final.w``; left
            unchanged.
        cfg: Its sizes.

    Returns:
        A new state dict with the same names and dtypes, in which each layer norm has w = 1 and b = 0.

    Raises:
        ValueError: If ``cfg`` is that of a transformer with another ``positional_embedding_type`` than "standard" (as
            Llamas are), whose norms and readers are others.

    Source: Elhage et al. (2021), "Handling Layer Normalization"; ``transformer_lens``,
    ``fold_layer_norm``.
    """
    # Given: other kinds of transformers are refused.
    if getattr(cfg, "positional_embedding_type", "standard") != "standard":
        raise ValueError(
            "cfg is that of a transformer without position embeddings, and so of another kind: if its norms are RMS "
            "norms, they have no shift, and what reads them has no bias to take one"
        )
    # Yours: fold.
    state = dict(state)
    readers = [("ln_final", "unembed.W_U", "unembed.b_U")]
    for layer in range(cfg.n_layers):
        block = f"blocks.{layer}"
        readers += [(f"{block}.ln1", f"{block}.attn.W_{x}", f"{block}.attn.b_{x}") for x in "QKV"]
        if cfg.d_mlp:
            readers += [(f"{block}.ln2", f"{block}.mlp.W_in", f"{block}.mlp.b_in")]
    for norm, weight, bias in readers:
        w, b, matrix = state[f"{norm}.w"], state[f"{norm}.b"], state[weight]
        state[bias] = state[bias] + einsum(b, matrix, "d_model, ... d_model d_out -> ... d_out")
        state[weight] = matrix * w[:, None]
    for norm in {norm for norm, _, _ in readers}:
        state[f"{norm}.w"] = torch.ones_like(state[f"{norm}.w"])
        state[f"{norm}.b"] = torch.zeros_like(state[f"{norm}.b"])
    return state


def center_writing_weights(
    state: dict[str, Float[Tensor, "..."]],
    cfg: TransformerConfig,
) -> dict[str, Float[Tensor, "..."]]:
    """Take the mean over d_model out of everything that is written into the residual stream.

    Every reader sees the stream through a layer norm, which subtracts that mean first; so no output changes.
    The writers are W_E, W_pos, and in each block W_O, b_O, W_out and b_out, the last two unless ``cfg.d_mlp`` is 0.

    Args:
        state: A ``Transformer``'s state dict; left unchanged.
        cfg: Its sizes.

    Returns:
        A new state dict with the same names and dtypes, in which whatever is written has mean 0 over d_model.

    Raises:
        ValueError: If ``cfg`` is that of a transformer with another ``positional_embedding_type`` than "standard" (as
            Llamas are), whose norms may read the mean.

    Source: Elhage et al. (2021), "Handling Layer Normalization"; ``transformer_lens``,
    ``center_writing_weights``.
    """
    # Given: other kinds of transformers are refused.
    if getattr(cfg, "positional_embedding_type", "standard") != "standard":
        raise ValueError(
            "cfg is that of a transformer without position embeddings, and so of another kind: if its norms are RMS "
            "norms, they do not subtract the mean, and without it the model would compute something else"
        )
    # Yours: take the means out.
    state = dict(state)
    writers = ["embed.W_E", "pos_embed.W_pos"]
    in_block = ["attn.W_O", "attn.b_O"] + (["mlp.W_out", "mlp.b_out"] if cfg.d_mlp else [])
    for layer in range(cfg.n_layers):
        writers += [f"blocks.{layer}.{name}" for name in in_block]
    for name in writers:
        state[name] = state[name] - state[name].mean(dim=-1, keepdim=True)
    return state
