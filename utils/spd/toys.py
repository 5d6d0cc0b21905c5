"""Toy models of superposition as targets, with the decomposition that one would want."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from utils.spd.components import Forward
from utils.superposition.train import train_toy_models


class ToyTarget(NamedTuple):
    """A trained toy model of superposition, and its truth.

    Attributes:
        forward: x through "down" (and "hidden") and "up", a bias, a ReLU.
        weights: "down" [feature, d_hidden], its transpose "up" and, if there is one, "hidden" [d_hidden, d_hidden].
        truth: For "down" and "up" one matrix of rank one for each feature, [feature, d_in, d_out].
        b: The bias.
    """

    forward: Forward
    weights: dict[str, Float[Tensor, "d_in d_out"]]
    truth: dict[str, Float[Tensor, "feature d_in d_out"]]
    b: Float[Tensor, " feature"]


def toy_target(
    n_features: int, d_hidden: int, *, hidden: bool = False, trained: bool = True, seed: int = 0
) -> ToyTarget:
    """Train four toy models whose features are on one time in 20, and take the best.

    Args:
        n_features, d_hidden: Of the model.
        hidden: Whether an identity stands between the two matrices, as a third matrix to be decomposed.
        trained: False for the weights that a model starts from.
        seed: Of the training.
    """
    run = train_toy_models(n_features, d_hidden, torch.full((4,), 0.05), n_steps=3000 * trained, seed=seed)
    best = run.loss.argmin()
    return target_of(run.model.W[best].clone(), run.model.b[best].clone(), hidden)


def target_of(W: Float[Tensor, "d_hidden feature"], b: Float[Tensor, " feature"], hidden: bool = False) -> ToyTarget:
    """The target with these weights, with or without an identity between its matrices."""
    weights = {"down": W.T.contiguous(), **({"hidden": torch.eye(len(W))} if hidden else {}), "up": W}

    def forward(x: Tensor, linear: Callable[[str, Tensor], Tensor]) -> Tensor:
        h = linear("down", x)
        if hidden:
            h = linear("hidden", h)
        return (linear("up", h) + b).relu()

    features = torch.eye(len(b))
    truth = {
        "down": torch.einsum("fi,fo->fio", features, W.T),
        "up": torch.einsum("fi,fo->fio", W.T, features),
    }
    return ToyTarget(forward, weights, truth, b)


def active_features(
    n_features: int, batch: int, p: float = 0.05
) -> Callable[[Generator], Float[Tensor, "batch feature"]]:
    """A source of examples: each feature is on with probability p and then uniform between 0 and 1.

    An example with none gets one at random: from an example without features nothing can be learnt, and with rare
    features most examples are such.
    """

    def draw(generator: Generator) -> Tensor:
        on = torch.rand(batch, n_features, generator=generator) < p
        one = torch.randint(n_features, (batch, 1), generator=generator)
        on |= torch.zeros_like(on).scatter(1, one, True) & ~on.any(dim=1, keepdim=True)
        return on * torch.rand(batch, n_features, generator=generator)

    return draw
