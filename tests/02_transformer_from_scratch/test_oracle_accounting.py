"""Counts against the modules themselves, PyTorch's own counter, and published numbers."""

from dataclasses import asdict, replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from utils.models.config import TransformerConfig
from utils.models.llama import LlamaConfig
from utils.transformer.accounting import attention_flops, count_parameters
from utils.transformer.model import Attention, Transformer

CFG = TransformerConfig(d_model=12, n_layers=3, n_heads=3, d_head=5, d_mlp=20, n_ctx=9, d_vocab=17)
GPT2_SMALL = TransformerConfig(d_model=768, n_layers=12, n_heads=12, d_head=64, d_mlp=3072, n_ctx=1024, d_vocab=50257)
OPERATIONS = ("qkv", "scores", "weighted_values", "output")


@pytest.mark.parametrize("cfg", [CFG, GPT2_SMALL, replace(CFG, n_layers=1, n_heads=1), replace(CFG, d_mlp=0)])
def test_parameters_of_the_module(cfg):
    with torch.device("meta"):
        sizes = {name: parameter.numel() for name, parameter in Transformer(cfg).named_parameters()}
    groups = {
        "embed": "embed.",
        "pos_embed": "pos_embed.",
        "unembed": "unembed.",
        "layer_norm": "ln",
        "attention": "attn.",
        "mlp": "mlp.",
    }
    found = {group: 0 for group in groups}
    for name, size in sizes.items():
        inner = name.split(".", 2)[2] if name.startswith("blocks.") else name
        (group,) = [group for group, start in groups.items() if inner.startswith(start)]
        found[group] += size
    assert count_parameters(cfg) == found | {"total": sum(sizes.values())}


def test_gpt2_small_is_the_published_size():
    """124,439,808 parameters in the published checkpoint, which shares W_E with W_U and has no b_U."""
    counts = count_parameters(GPT2_SMALL)
    assert counts["total"] - counts["unembed"] == 124_439_808


def test_parts_of_other_transformers_are_not_counted_wrong():
    llama = LlamaConfig(**asdict(CFG), n_key_value_heads=1, rotary_base=10_000.0, tied=True)
    with pytest.raises(ValueError, match="without position embeddings: its parts are others"):
        count_parameters(llama)


@pytest.mark.parametrize("n_ctx", [2, 4, 30])  # at length 1 einsum multiplies without a matrix product
@pytest.mark.parametrize("cfg", [CFG, replace(CFG, n_heads=2, d_head=8)])
def test_flops_of_the_module(cfg, n_ctx):
    with FlopCounterMode(display=False) as counter:
        Attention(cfg)(torch.randn(1, n_ctx, cfg.d_model, generator=torch.Generator().manual_seed(0)))
    counted = attention_flops(cfg, n_ctx)
    assert counted["total"] == counter.get_total_flops() == sum(counted[part] for part in OPERATIONS)


def test_quadratic_part_overtakes_at_twice_the_width():
    for cfg in (CFG, GPT2_SMALL):
        flops = attention_flops(cfg, 2 * cfg.d_model)
        assert flops["qkv"] + flops["output"] == flops["scores"] + flops["weighted_values"]
