"""References of the mini course: two functions, one calling the other, a scaffolded one, and a module."""

import torch
from torch import Tensor, nn


def double(x: Tensor) -> Tensor:
    """Twice ``x``."""
    return 2 * x


def quadruple(x: Tensor) -> Tensor:
    """Four times ``x``, by doubling twice."""
    return double(double(x))


def scaffolded(x: Tensor, n: int) -> Tensor:
    """``x`` plus one, doubled ``n`` times."""
    # Given: the start
    result = x + 1

    # Yours: double it n times
    for _ in range(n):
        result = double(result)

    # Given: hand it back
    return result


class Scale(nn.Module):
    """Multiply by a weight and add a bias.

    Args:
        size: Number of features.
    """

    def __init__(self, size: int):
        # Given: two parameters
        super().__init__()
        self.w = nn.Parameter(torch.ones(size))
        self.b = nn.Parameter(torch.zeros(size))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., size] to w x + b."""
        return self.w * x + self.b


def triple(x: float) -> float:
    """Three times ``x``."""
    return 3 * x


def ninefold(x: float) -> float:
    """Nine times ``x``."""
    return triple(triple(x))


def does_it_grow() -> dict:
    """Does ``triple`` grow with its input?

    Returns:
        ``pairs``, at least three (smaller, larger) pairs, and ``verdict``, "yes" or "no".
    """
    return {"pairs": [(0, 1), (1, 2), (-2, 5)], "verdict": "yes"}
