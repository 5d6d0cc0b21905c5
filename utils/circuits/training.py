"""Training a small attention-only model, with a look at it every few steps."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.models.induction import (
    MAX_LR,
    attention_patterns,
    induction_config,
    repeated_sequences,
    train_step,
)
from utils.models.initial import small_network

Measure = Callable[[Tensor, Tensor, list[Tensor]], dict[str, float]]


def training_history(
    seed: int, measure: Measure, *, n_layers: int = 2, n_steps: int = 200, every: int = 10
) -> tuple[Int[Tensor, " points"], dict[str, Float[Tensor, " points"]]]:
    """Train as ``utils.models.induction.train_induction`` does, and measure what one likes on 64 new sequences.

    Args:
        seed: Draws weights and sequences.
        measure: ``measure(tokens, logits, patterns)``, with the attention [batch, head, query, key] of each layer.
        n_layers: 2, or 1 for the null.
        n_steps: Optimiser steps.
        every: Steps between two measurements; the last is at the end.

    Returns:
        The steps, and for each name that ``measure`` returns its values.
    """
    generator = torch.Generator().manual_seed(seed)
    network = small_network(induction_config(n_layers), generator)
    optimizer = torch.optim.Adam(network.parameters(), lr=MAX_LR, betas=(0.9, 0.98), fused=True)
    tokens, _ = repeated_sequences(64, generator)
    steps, points = [], []
    for step in range(n_steps + 1):
        if step % every == 0 or step == n_steps:
            with torch.no_grad():
                patterns = [layer.transpose(0, 1) for layer in attention_patterns(network, tokens)]
                points.append(measure(tokens, network(tokens), patterns))
            steps.append(step)
        if step < n_steps:
            lr = MAX_LR * min(1.0, (step + 1) / 20)
            train_step(network, optimizer, repeated_sequences(64, generator)[0], lr=lr)
    return torch.tensor(steps), {name: torch.tensor([float(p[name]) for p in points]) for name in points[0]}
