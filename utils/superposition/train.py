"""Training many toy models at once."""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from utils.superposition.toy import ToyModel, sample_features, toy_loss

Sampler = Callable[[int, torch.Generator], Float[Tensor, "model batch feature"]]


class ToyRun(NamedTuple):
    """Toy models after training, with what was recorded on the way.

    Attributes:
        model: The models, at their last step, without gradients.
        loss: Each model's loss on ``n_fresh`` examples that it was not trained on.
        steps: The steps after which something was recorded, 0 for the start.
        W: The weights at these steps.
        losses: The losses at these steps, all on the same fresh examples.
    """

    model: ToyModel
    loss: Float[Tensor, " model"]
    steps: list[int]
    W: Float[Tensor, "step model d_hidden feature"]
    losses: Float[Tensor, "step model"]


def train_toy_models(
    n_features: int,
    d_hidden: int,
    p: Float[Tensor, " model"] | Float[Tensor, "model feature"],
    *,
    importance: Float[Tensor, " feature"] | Float[Tensor, "model feature"] | None = None,
    sampler: Sampler | None = None,
    relu: bool = True,
    n_steps: int = 2000,
    batch: int = 256,
    lr: float = 1e-2,
    seed: int = 0,
    start: Float[Tensor, "model d_hidden feature"] | None = None,
    every: int | None = None,
    n_fresh: int = 8192,
) -> ToyRun:
    """Train as many models as ``p`` has rows, in one run: each step draws examples for all of them and moves all.

    Adam moves every weight by its own gradient alone, so that the sum of the losses trains each model as if it were
    alone. The learning rate falls to 0 along half a cosine.

    Args:
        n_features: Number of features of each model.
        d_hidden: Number of dimensions of each model.
        p: Probability that a feature is on, for each model [model] or each of its features [model, feature].
        importance: As for ``toy_loss``.
        sampler: ``sampler(batch, generator)`` draws the examples of all models in place of ``sample_features``; ``p``
            then only says how many models there are.
        relu: Whether the models end in a ReLU.
        n_steps: Number of steps.
        batch: Number of examples for each model and step.
        lr: Learning rate at the start.
        seed: Seed of the starting weights and of the examples.
        start: Weights to start from in place of random ones.
        every: Record weights and losses every so many steps (and at the start and the end); None for the end alone.
        n_fresh: Number of examples for each model to take its loss on; a multiple of 1024.

    Returns:
        The models, their losses, and what was recorded.
    """
    generator = torch.Generator().manual_seed(seed)
    model = ToyModel(len(p), n_features, d_hidden, relu=relu, generator=generator)
    if start is not None:
        model.W.data.copy_(start)
    draw = sampler or (lambda batch, generator: sample_features(n_features, batch, p, generator))
    fresh = draw(n_fresh, torch.Generator().manual_seed(seed + 1_000_000))
    optimiser = torch.optim.Adam(model.parameters(), lr=lr, betas=(0.9, 0.99))
    steps, weights, losses = [], [], []

    def record(step: int) -> None:
        with torch.no_grad():
            parts = [toy_loss(model(part), part, importance) for part in fresh.split(1024, dim=1)]
        losses.append(torch.stack(parts).mean(dim=0))
        steps.append(step)
        weights.append(model.W.detach().clone())

    for step in range(n_steps):
        if every and step % every == 0:
            record(step)
        for group in optimiser.param_groups:
            group["lr"] = lr * (1 + math.cos(math.pi * step / n_steps)) / 2
        features = draw(batch, generator)
        loss = toy_loss(model(features), features, importance).sum()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    record(n_steps)
    model.requires_grad_(False)
    return ToyRun(model, losses[-1], steps, torch.stack(weights), torch.stack(losses))
