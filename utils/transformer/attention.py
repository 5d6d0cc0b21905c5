"""Causal self-attention, from the mask to a whole layer of heads."""

import math

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor


def causal_mask(n_ctx: int, *, device: torch.device | str = "cpu") -> Float[Tensor, "query key"]:
    """Additive mask that hides the future from each query position.

    Entry (i, j) is 0 where query position i may attend to key position j (j <= i) and -inf where it may not.

    Args:
        n_ctx: Number of positions, at least 1.
        device: Where to put the mask.

    Returns:
        Mask [n_ctx, n_ctx], to be added to attention scores before the softmax.

    Raises:
        ValueError: If ``n_ctx`` is smaller than 1.

    Source: Vaswani et al. (2017), "Attention Is All You Need", section 3.2.3.
    """
    if n_ctx < 1:
        raise ValueError(f"n_ctx must be at least 1, got {n_ctx}")
    return torch.full((n_ctx, n_ctx), -torch.inf, device=device).triu(diagonal=1)


def softmax_rows(scores: Float[Tensor, "... query key"]) -> Float[Tensor, "... query key"]:
    """Turn each row of scores into non-negative weights that sum to one.

    Finite scores of any size give finite weights. An entry of -inf gets weight exactly 0; a row that is -inf
    throughout has no answer and becomes NaN, as in ``torch.softmax``.

    Args:
        scores: Scores; the last dimension is the one that the weights are shared out over.

    Returns:
        Weights of the same shape and dtype, through which gradients flow back to the scores.

    Source: Vaswani et al. (2017), equation 1; for the shift, Goodfellow et al. (2016), "Deep Learning",
    section 4.1.
    """
    shifted = scores - scores.amax(dim=-1, keepdim=True)
    weights = shifted.exp()
    return weights / weights.sum(dim=-1, keepdim=True)


def attention_scores(
    resid: Float[Tensor, "batch pos d_model"],
    W_Q: Float[Tensor, "d_model d_head"],
    W_K: Float[Tensor, "d_model d_head"],
    b_Q: Float[Tensor, "d_head"],
    b_K: Float[Tensor, "d_head"],
) -> Float[Tensor, "batch query key"]:
    """How well each position's query fits each position's key, for one head: scaled, and not masked.

    Args:
        resid: What the head reads [batch, pos, d_model].
        W_Q, W_K: Query and key weights [d_model, d_head].
        b_Q, b_K: Query and key biases [d_head].

    Returns:
        Scores [batch, query, key]: the dot product of query and key, divided by the square root of d_head. Their
        dtype is that of the arguments, and gradients flow back to all of them.

    Source: Vaswani et al. (2017), section 3.2.1.
    """
    queries = einsum(resid, W_Q, "batch pos d_model, d_model d_head -> batch pos d_head") + b_Q
    keys = einsum(resid, W_K, "batch pos d_model, d_model d_head -> batch pos d_head") + b_K
    scores = einsum(queries, keys, "batch query d_head, batch key d_head -> batch query key")
    return scores / math.sqrt(W_Q.shape[-1])


def attention_pattern(
    resid: Float[Tensor, "batch pos d_model"],
    W_Q: Float[Tensor, "d_model d_head"],
    W_K: Float[Tensor, "d_model d_head"],
    b_Q: Float[Tensor, "d_head"],
    b_K: Float[Tensor, "d_head"],
) -> Float[Tensor, "batch query key"]:
    """Where one head looks: for each query position, weights over itself and the positions before it.

    Args:
        resid: What the head reads [batch, pos, d_model].
        W_Q, W_K: Query and key weights [d_model, d_head].
        b_Q, b_K: Query and key biases [d_head].

    Returns:
        Pattern [batch, query, key]: each row sums to one, and every entry with key > query is exactly 0. Its dtype
        is that of the arguments, and gradients flow back to all that it depends on.

    Source: Vaswani et al. (2017), equation 1 and section 3.2.3.
    """
    # float16 ends at 65504, and dot products go beyond it: scores are made in float32 at least.
    wide = torch.promote_types(resid.dtype, torch.float32)
    scores = attention_scores(*(tensor.to(wide) for tensor in (resid, W_Q, W_K, b_Q, b_K)))
    mask = causal_mask(scores.shape[-1], device=scores.device)
    return softmax_rows(scores + mask.to(wide)).to(resid.dtype)


def qk_circuit(
    W_Q: Float[Tensor, "d_model d_head"],
    W_K: Float[Tensor, "d_model d_head"],
) -> Float[Tensor, "d_model d_model"]:
    """The one matrix that says which pairs of residual-stream vectors attract each other.

    Without biases and before the scale, the score of a query position with vector x for a key position with
    vector y is x @ qk_circuit(W_Q, W_K) @ y.

    Args:
        W_Q, W_K: Query and key weights of one head [d_model, d_head].

    Returns:
        Matrix [d_model, d_model] of rank at most d_head; rows: the query side, columns: the key side. Its dtype is
        that of the weights, and gradients flow back to both.

    Source: Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits", section "Attention
    Heads as Information Movement".
    """
    return einsum(W_Q, W_K, "d_query d_head, d_key d_head -> d_query d_key")


def ov_circuit(
    W_V: Float[Tensor, "d_model d_head"],
    W_O: Float[Tensor, "d_head d_model"],
) -> Float[Tensor, "d_model d_model"]:
    """The one matrix that says what a head writes for a position that it looks at.

    Without biases, a position with vector y that is attended to with weight one makes the head write
    y @ ov_circuit(W_V, W_O).

    Args:
        W_V: Value weights of one head [d_model, d_head].
        W_O: Output weights of one head [d_head, d_model].

    Returns:
        Matrix [d_model, d_model] of rank at most d_head; rows: what is read, columns: what is written. Its dtype is
        that of the weights, and gradients flow back to both.

    Source: Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits", section "Attention
    Heads as Information Movement".
    """
    return einsum(W_V, W_O, "d_read d_head, d_head d_write -> d_read d_write")


def attention_head(
    resid: Float[Tensor, "batch pos d_model"],
    W_Q: Float[Tensor, "d_model d_head"],
    W_K: Float[Tensor, "d_model d_head"],
    W_V: Float[Tensor, "d_model d_head"],
    W_O: Float[Tensor, "d_head d_model"],
    b_Q: Float[Tensor, "d_head"],
    b_K: Float[Tensor, "d_head"],
    b_V: Float[Tensor, "d_head"],
) -> Float[Tensor, "batch pos d_model"]:
    """What one causal attention head adds to the residual stream, without the layer's output bias.

    Args:
        resid: What the head reads [batch, pos, d_model].
        W_Q, W_K, W_V: Query, key and value weights [d_model, d_head].
        W_O: Output weights [d_head, d_model].
        b_Q, b_K, b_V: Query, key and value biases [d_head].

    Returns:
        The head's output [batch, pos, d_model], in the dtype of the arguments. Gradients flow back to all that it
        depends on.

    Source: Vaswani et al. (2017), section 3.2.2; Elhage et al. (2021), section "Attention Heads as
    Information Movement".
    """
    pattern = attention_pattern(resid, W_Q, W_K, b_Q, b_K)
    values = einsum(resid, W_V, "batch key d_model, d_model d_head -> batch key d_head") + b_V
    moved = einsum(pattern, values, "batch query key, batch key d_head -> batch query d_head")
    return einsum(moved, W_O, "batch query d_head, d_head d_model -> batch query d_model")


def multi_head_attention(
    resid: Float[Tensor, "batch pos d_model"],
    W_Q: Float[Tensor, "n_heads d_model d_head"],
    W_K: Float[Tensor, "n_heads d_model d_head"],
    W_V: Float[Tensor, "n_heads d_model d_head"],
    W_O: Float[Tensor, "n_heads d_head d_model"],
    b_Q: Float[Tensor, "n_heads d_head"],
    b_K: Float[Tensor, "n_heads d_head"],
    b_V: Float[Tensor, "n_heads d_head"],
    b_O: Float[Tensor, "d_model"],
) -> Float[Tensor, "batch pos d_model"]:
    """What a layer of causal attention heads adds to the residual stream: the sum of its heads and one bias.

    Args:
        resid: What all heads read [batch, pos, d_model].
        W_Q, W_K, W_V: Query, key and value weights [n_heads, d_model, d_head].
        W_O: Output weights [n_heads, d_head, d_model].
        b_Q, b_K, b_V: Query, key and value biases [n_heads, d_head].
        b_O: Output bias [d_model], added once.

    Returns:
        The layer's output [batch, pos, d_model], in the dtype of the arguments. Gradients flow back to all that it
        depends on.

    Source: Vaswani et al. (2017), section 3.2.2; Elhage et al. (2021), section "Attention Heads are
    Independent and Additive".
    """
    queries = einsum(resid, W_Q, "batch pos d_model, h d_model d_head -> batch h pos d_head") + b_Q[:, None]
    keys = einsum(resid, W_K, "batch pos d_model, h d_model d_head -> batch h pos d_head") + b_K[:, None]
    values = einsum(resid, W_V, "batch pos d_model, h d_model d_head -> batch h pos d_head") + b_V[:, None]
    # float16 ends at 65504, and dot products go beyond it: scores are made in float32 at least.
    wide = torch.promote_types(resid.dtype, torch.float32)
    scores = einsum(queries.to(wide), keys.to(wide), "batch h query d_head, batch h key d_head -> batch h query key")
    mask = causal_mask(resid.shape[1], device=resid.device).to(wide)
    pattern = softmax_rows(scores / math.sqrt(W_Q.shape[-1]) + mask).to(resid.dtype)
    moved = einsum(pattern, values, "batch h query key, batch h key d_head -> batch h query d_head")
    # One sum over h (heads) and d_head: equal to concatenating heads first, and to adding up their outputs.
    return einsum(moved, W_O, "batch h query d_head, h d_head d_model -> batch query d_model") + b_O
