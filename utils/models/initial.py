"""The initial weights of the small side models."""

import math

import torch
from torch import nn

from utils.models.config import TransformerConfig
from utils.models.network import Network


def small_network(cfg: TransformerConfig, generator: torch.Generator) -> Network:
    """A ``Network`` with small initial weights everywhere; the course model's are larger, for its own reasons.

    Every matrix is normal with standard deviation 1/2 / sqrt(d_model), the two that write into the residual stream
    with 1 / sqrt(2 n_layers) of that. Large initial weights put off generalisation: Liu et al. (2022), "Omnigrok".

    Args:
        cfg: Sizes.
        generator: Draws the weights.
    """
    network = Network(cfg, torch.Generator())
    std = 0.5 / math.sqrt(cfg.d_model)
    for name, parameter in network.named_parameters():
        if parameter.ndim > 1:
            writes = name.endswith(("W_O", "W_out"))
            nn.init.normal_(parameter, std=std / math.sqrt(2 * cfg.n_layers) if writes else std, generator=generator)
    return network
