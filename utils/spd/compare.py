"""The same mechanism seen by several methods: whatever writes its output as a sum of parts, in one table."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from utils.sae.metrics import fraction_variance_explained


class Parts(NamedTuple):
    """A mechanism's output as a sum: ``coefficients @ directions + offset`` for each input.

    Attributes:
        coefficients: How much of each part an input has.
        directions: What each part writes.
        offset: What is written for every input.
        needed: Which parts count as needed for each input.
    """

    coefficients: Float[Tensor, "n part"]
    directions: Float[Tensor, "part d"]
    offset: Float[Tensor, " d"]
    needed: Bool[Tensor, "n part"]


def strongest_parts(
    coefficients: Float[Tensor, "n part"], directions: Float[Tensor, "part d"], k: int
) -> Bool[Tensor, "n part"]:
    """For each input the k parts that write most: those with the largest |coefficient| · ‖direction‖.

    Args:
        coefficients: How much of each part an input has.
        directions: What each part writes, of any length.
        k: How many, from 1 to the number of parts.

    Returns:
        True for exactly k parts of each input.
    """
    size = coefficients.abs() * directions.norm(dim=1)
    return torch.zeros_like(size, dtype=torch.bool).scatter(1, size.topk(k, dim=1).indices, True)


def compare_decompositions(
    y: Float[Tensor, "n d"],
    decompositions: Mapping[str, Parts],
    cost: Callable[[Float[Tensor, "n d"]], float],
    generator: Generator,
) -> dict[str, dict[str, float]]:
    """Measure several decompositions of one mechanism's output with the same ruler.

    Args:
        y: The mechanism's own output.
        decompositions: By name, each for the same n inputs.
        cost: What it costs the network to have another output in place of y.
        generator: Source of one ``torch.randperm(n, generator=generator)`` for each decomposition, in their order.

    Returns:
        For each name a dict of numbers:

        "parts": how many there are;
        "alive": how many of them at least one input needs;
        "needed": how many an input needs, on average;
        "variance": the ``fraction_variance_explained`` of y by the needed parts and the offset, all others left out;
        "cost": the cost of that;
        "shuffled": the cost if each input keeps the parts that *another* needs, ``needed[permutation]``, at its own
            coefficients: the null.
    """
    table = {}
    for name, parts in decompositions.items():

        def only(kept: Bool[Tensor, "n part"], parts: Parts = parts) -> Tensor:
            return (parts.coefficients * kept) @ parts.directions + parts.offset

        permutation = torch.randperm(len(y), generator=generator)
        kept = only(parts.needed)
        table[name] = {
            "parts": len(parts.directions),
            "alive": int(parts.needed.any(dim=0).sum()),
            "needed": parts.needed.float().sum(dim=1).mean().item(),
            "variance": fraction_variance_explained(y, kept),
            "cost": cost(kept),
            "shuffled": cost(only(parts.needed[permutation])),
        }
    return table
