"""Small ``HookedTransformer``s with random weights, GPT-2-like or not, and a count of hooks."""

import copy
import warnings
from functools import cache
from pathlib import Path

import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from utils.course.paths import load_file

CONFIGS = load_file(Path(__file__).with_name("common.py")).CONFIGS
# RMS norm, rotary positions, gated MLPs, and two heads to a value: what Llama does otherwise than GPT-2.
LLAMA = {
    "normalization_type": "RMS",
    "positional_embedding_type": "rotary",
    "rotary_dim": 4,
    "gated_mlp": True,
    "n_key_value_heads": 2,
}


@cache
def blank_model(cfg, options=()):
    """A model to be copied: making one anew takes ten times as long."""
    sizes = {name: getattr(cfg, name) for name in ("d_model", "n_layers", "n_heads", "d_head", "n_ctx", "d_vocab")}
    defaults = {"normalization_type": "LN", "act_fn": "gelu_pytorch_tanh", "attn_only": cfg.d_mlp == 0}
    whole = HookedTransformerConfig(
        **sizes, d_mlp=cfg.d_mlp or None, eps=cfg.layer_norm_eps, device="cpu", **(defaults | dict(options))
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return HookedTransformer(whole).eval()


blank_model(CONFIGS[0])  # imports take seconds: here they are not on the clock of a check


def random_model(rng, cfg, **options):
    """A model all of whose parameters, biases and gains included, are random and of a size that matters.

    ``options`` are those of ``HookedTransformerConfig``.
    """
    model = copy.deepcopy(blank_model(cfg, tuple(sorted(options.items()))))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=rng))
    return model


def random_tokens(rng, cfg, batch, pos):
    return torch.randint(cfg.d_vocab, (batch, pos), generator=rng)


def n_hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
