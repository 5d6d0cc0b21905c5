"""What the checks and oracles of this chapter share: small models with random weights, and a count of hooks."""

import copy
from functools import cache

import torch

from utils.models.config import TransformerConfig
from utils.models.hooked import hooked_transformer
from utils.transformer.model import Transformer

# Sizes that can't stand in for one another.
CONFIGS = (
    TransformerConfig(d_model=10, n_layers=2, n_heads=3, d_head=4, d_mlp=7, n_ctx=6, d_vocab=13),
    TransformerConfig(d_model=6, n_layers=3, n_heads=2, d_head=5, d_mlp=9, n_ctx=5, d_vocab=8),
)


@cache
def blank_model(cfg):
    """A model of zeros, to be copied: making one anew takes ten times as long."""
    with torch.device("meta"):
        shapes = {name: p.shape for name, p in Transformer(cfg).named_parameters()}
    if cfg.d_mlp == 0:
        shapes = {name: shape for name, shape in shapes.items() if "mlp" not in name and "ln2" not in name}
    return hooked_transformer(cfg, {name: torch.zeros(shape) for name, shape in shapes.items()})


blank_model(CONFIGS[0])  # imports take seconds: here they are not on the clock of a check


def random_model(rng, cfg):
    """A model all of whose parameters, biases and gains included, are random and of a size that matters."""
    model = copy.deepcopy(blank_model(cfg))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=rng))
    return model


def random_tokens(rng, cfg, batch, pos):
    return torch.randint(cfg.d_vocab, (batch, pos), generator=rng)


def n_hooks(model):
    return sum(len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules())
