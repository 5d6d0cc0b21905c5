"""The sizes of a transformer, in the field's standard names."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TransformerConfig:
    """Sizes of a GPT-2-like, pre-layer-norm decoder. Field names are those of ``transformer_lens``.

    Attributes:
        d_model: Width of the residual stream.
        n_layers: Number of blocks.
        n_heads: Attention heads in each block.
        d_head: Width of one head's queries, keys and values.
        d_mlp: Hidden width of each MLP; 0 for blocks of attention alone, which have no ``ln2`` either.
        n_ctx: Longest sequence, in tokens.
        d_vocab: Number of tokens in the vocabulary.
        layer_norm_eps: Added to the variance inside each layer norm.
    """

    d_model: int
    n_layers: int
    n_heads: int
    d_head: int
    d_mlp: int
    n_ctx: int
    d_vocab: int
    layer_norm_eps: float = 1e-5


@dataclass(frozen=True)
class PlainConfig(TransformerConfig):
    """Sizes of a transformer without layer norms and with ReLUs in its MLPs, whose weights can be set by hand."""
