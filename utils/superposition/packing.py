"""Directions spread by intention: what is the best that can be had, and a way to come near it."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def welch_bound(n: int, d: int) -> float:
    """A number that the largest absolute cosine of n directions in d dimensions is never below.

    sqrt((n - d) / (d (n - 1))) for n > d, and 0 where the directions can be at right angles.

    Args:
        n, d: At least 2 directions, in at least one dimension.

    Raises:
        ValueError: If there are fewer than 2 directions, or no dimension.

    Source: Welch (1974), "Lower Bounds on the Maximum Cross Correlation of Signals".
    """
    if n < 2 or d < 1:
        raise ValueError(f"at least 2 directions in at least 1 dimension, got {n} in {d}")
    return math.sqrt(max(0, n - d) / (d * (n - 1)))


def optimize_packing(
    start: Float[Tensor, "n d"], n_steps: int, *, sharpness: float = 30.0, lr: float = 0.02, signed: bool = False
) -> Float[Tensor, "n d"]:
    """Spread directions by gradient descent, until no two overlap much.

    The largest overlap has a gradient for one pair only. So a smooth maximum over all pairs i != j is made smaller,

        L = log(sum of exp(sharpness * o_ij)) / sharpness,

    where o_ij is the absolute cosine of rows i and j, or with ``signed`` the cosine. The larger the sharpness, the
    nearer L is to the largest overlap, and the fewer pairs matter to it. The optimiser is left to you
    (``torch.optim.Adam`` does it). From random rows, 200 steps with the default values have to bring d + 1 directions
    in d dimensions to within 0.03 of the smallest overlap that is possible, for d up to 8.

    Args:
        start: The rows to begin with, of any length; left unchanged.
        n_steps: How many steps of the optimiser. 0 returns the rows of ``start``, at length 1.
        sharpness: See above.
        lr: Step size, of the rows at length 1, to which they are brought before the first step.
        signed: Let rows that point away from each other pass as not overlapping.

    Returns:
        Unit rows, without a graph. It works where gradients are switched off.

    Source: the smooth maximum is common; the same packings for lines with p-norms: Medra and Davidson (2014), "Flexible
    Codebook Design for Limited Feedback Systems via Sequential Smooth Optimization on the Grassmannian Manifold".
    """
    W = (start / start.norm(dim=-1, keepdim=True)).detach().clone().requires_grad_()
    optimizer = torch.optim.Adam([W], lr=lr)
    different = ~torch.eye(len(W), dtype=torch.bool)
    with torch.enable_grad():
        for _ in range(n_steps):
            directions = W / W.norm(dim=-1, keepdim=True)
            cosines = (directions @ directions.T)[different]
            overlaps = cosines if signed else cosines.abs()
            loss = (sharpness * overlaps).logsumexp(dim=0) / sharpness
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (W / W.norm(dim=-1, keepdim=True)).detach()
