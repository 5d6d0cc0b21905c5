"""Where a transformer's parameters and its attention's arithmetic go."""

from utils.models.config import TransformerConfig


def count_parameters(cfg: TransformerConfig) -> dict[str, int]:
    """How many numbers training can change, by the part of the transformer that they are in.

    Args:
        cfg: Sizes; no two of them need be related. Where ``d_mlp`` is 0, a block has neither MLP nor ln2.

    Returns:
        Counts over all layers, by group: "embed" (W_E), "pos_embed" (W_pos), "attention" (W_Q, W_K, W_V, W_O
        and their biases), "mlp" (W_in, b_in, W_out, b_out), "layer_norm" (every w and b, the final norm's
        too), "unembed" (W_U, b_U), and "total", their sum.

    Raises:
        ValueError: If ``cfg`` is that of a transformer with another ``positional_embedding_type`` than "standard" (as
            Llamas are), whose parts are others.

    Source: Kaplan et al. (2020), table 1, with the biases, norms and embeddings that it leaves out.
    """
    # Given: other kinds of transformers are refused.
    if getattr(cfg, "positional_embedding_type", "standard") != "standard":
        raise ValueError("cfg is that of a transformer without position embeddings: its parts are others than these")
    # Yours: count.
    all_heads = cfg.n_heads * cfg.d_head
    mlp = 2 * cfg.d_model * cfg.d_mlp + cfg.d_mlp + cfg.d_model if cfg.d_mlp else 0
    norms = 2 if cfg.d_mlp else 1
    counts = {
        "embed": cfg.d_vocab * cfg.d_model,
        "pos_embed": cfg.n_ctx * cfg.d_model,
        "attention": cfg.n_layers * (4 * cfg.d_model * all_heads + 3 * all_heads + cfg.d_model),
        "mlp": cfg.n_layers * mlp,
        "layer_norm": (norms * cfg.n_layers + 1) * 2 * cfg.d_model,
        "unembed": cfg.d_model * cfg.d_vocab + cfg.d_vocab,
    }
    return counts | {"total": sum(counts.values())}


def attention_flops(cfg: TransformerConfig, n_ctx: int) -> dict[str, int]:
    """Floating-point operations of one attention layer, all heads, in one forward pass over one sequence.

    A matrix product of [a, b] and [b, c] counts 2abc: a multiplication and an addition for each of its abc
    terms. Nothing else is counted (biases, scale, mask, softmax), and masked pairs are not left out, because
    the straightforward computation does not leave them out either.

    Args:
        cfg: Sizes; ``cfg.n_ctx`` is not used.
        n_ctx: Length of the sequence, at least 1; it may exceed ``cfg.n_ctx``.

    Returns:
        Counts by part: "qkv" (queries, keys and values from the residual stream), "scores" (queries times
        keys), "weighted_values" (pattern times values), "output" (by W_O back to the stream), and "total",
        their sum.

    Raises:
        ValueError: If ``n_ctx`` is smaller than 1.

    Source: Kaplan et al. (2020), section 2.1 and table 1.
    """
    if n_ctx < 1:
        raise ValueError(f"n_ctx must be at least 1, got {n_ctx}")
    all_heads = cfg.n_heads * cfg.d_head
    flops = {
        "qkv": 3 * 2 * n_ctx * cfg.d_model * all_heads,
        "scores": 2 * n_ctx * n_ctx * all_heads,
        "weighted_values": 2 * n_ctx * n_ctx * all_heads,
        "output": 2 * n_ctx * all_heads * cfg.d_model,
    }
    return flops | {"total": sum(flops.values())}
