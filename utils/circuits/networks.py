"""An attention-only transformer without norms, whose weights can be set by hand."""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def attention_only(
    state: dict[str, Tensor], tokens: Int[Tensor, "batch pos"]
) -> tuple[Float[Tensor, "batch pos d_vocab"], Float[Tensor, "layer batch head query key"]]:
    """Run the weights of an attention-only transformer: embeddings, layers of heads, unembedding, no norms, no biases.

    Args:
        state: Weights by the standard names, for layers 0, 1, …: "embed.W_E" [d_vocab, d_model],
            "pos_embed.W_pos" [n_ctx, d_model], "blocks.0.attn.W_Q", "….W_K", "….W_V" [head, d_model, d_head],
            "….W_O" [head, d_head, d_model], "unembed.W_U" [d_model, d_vocab]. All layers have as many heads.
        tokens: At most n_ctx tokens a row.

    Returns:
        The logits, and the attention probabilities of all heads.
    """
    resid = F.embedding(tokens, state["embed.W_E"]) + state["pos_embed.W_pos"][: tokens.shape[1]]
    future = torch.ones(tokens.shape[1], tokens.shape[1], dtype=torch.bool).triu(1)
    patterns = []
    while (name := f"blocks.{len(patterns)}.attn") + ".W_Q" in state:
        q, k, v = (torch.einsum("bpm,hmd->bhpd", resid, state[f"{name}.{which}"]) for which in ("W_Q", "W_K", "W_V"))
        scores = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(future, -torch.inf)
        patterns.append(scores.softmax(dim=-1))
        resid = resid + torch.einsum("bhpd,hdm->bpm", patterns[-1] @ v, state[f"{name}.W_O"])
    return resid @ state["unembed.W_U"], torch.stack(patterns)
