"""The loss of a small toy model without sampling: which features are on is enumerated, their values are integrated."""

import itertools

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


def exact_loss(
    W: Float[Tensor, "models d_hidden features"],
    b: Float[Tensor, "models features"],
    p: Float[Tensor, "models"],
    importance: Float[Tensor, "models features"],
    n_nodes: int = 16,
) -> Float[Tensor, "models"]:
    """The mean over all x of the importance-weighted squared error of ReLU(W^T W x + b), summed over features.

    Each feature is on with probability p, independently, and then uniform between 0 and 1. A drawn sample would hold a
    handful of rows on which two rare features are on together, and these decide between the solutions.

    Args:
        W, b: Weights and biases of several models with few features; the work grows as (n_nodes + 1) ** features.
        p: Each model's probability that a feature is on.
        importance: Each model's importances.
        n_nodes: Nodes of the Gauss-Legendre rule along each feature that is on.

    Returns:
        Each model's loss, exact but for the kinks of the ReLU between nodes.
    """
    n_features = W.shape[-1]
    nodes, weights = (torch.tensor(a, dtype=W.dtype) for a in _gauss_legendre(n_nodes))
    total = torch.zeros(len(W), dtype=W.dtype)
    for on in itertools.product((False, True), repeat=n_features):
        values = torch.cartesian_prod(*(nodes if is_on else torch.zeros(1, dtype=W.dtype) for is_on in on))
        chance = torch.cartesian_prod(*(weights if is_on else torch.ones(1, dtype=W.dtype) for is_on in on))
        values, chance = values.reshape(-1, n_features), chance.reshape(-1, n_features).prod(dim=1)
        hidden = torch.einsum("bf,mdf->mbd", values, W)
        output = torch.relu(torch.einsum("mbd,mdf->mbf", hidden, W) + b[:, None])
        errors = ((output - values) ** 2 * importance[:, None]).sum(dim=-1) @ chance
        total += errors * p ** sum(on) * (1 - p) ** (n_features - sum(on))
    return total


def _gauss_legendre(n: int) -> tuple[list[float], list[float]]:
    """Nodes and weights on [0, 1]."""
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return ((nodes + 1) / 2).tolist(), (weights / 2).tolist()
