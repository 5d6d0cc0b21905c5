"""Planted features: random directions and sparse codes, so that it is known what should be got back."""

import torch
from jaxtyping import Float
from torch import Generator, Tensor


def unit_directions(n: int, d: int, generator: Generator) -> Float[Tensor, "n d"]:
    """Random directions of length 1, all directions alike likely."""
    rows = torch.randn(n, d, generator=generator)
    return rows / rows.norm(dim=1, keepdim=True)


def sparse_codes(
    n: int, n_features: int, k: int, generator: Generator, low: float = 0.5, high: float = 1.5
) -> Float[Tensor, "n n_features"]:
    """Codes in which exactly k features are on in each row, drawn without replacement, uniform from low to high."""
    which = torch.rand(n, n_features, generator=generator).argsort(dim=1)[:, :k]
    values = low + (high - low) * torch.rand(n, k, generator=generator)
    return torch.zeros(n, n_features).scatter(1, which, values)


def variance_explained(x: Float[Tensor, "n d"], reconstruction: Float[Tensor, "n d"]) -> float:
    """1 less the squared error as a share of x's squared distance from its mean over rows."""
    return (1 - (x - reconstruction).pow(2).sum() / (x - x.mean(dim=0)).pow(2).sum()).item()


def same_covariance(like: Float[Tensor, "m d"], n: int, generator: Generator) -> Float[Tensor, "n d"]:
    """Random Gaussian rows with the mean and covariance of the given rows."""
    centred = like - like.mean(dim=0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(like))
    draw = torch.randn(n, like.shape[1], generator=generator) * values.clamp(min=0).sqrt()
    return like.mean(dim=0) + draw @ vectors.T
