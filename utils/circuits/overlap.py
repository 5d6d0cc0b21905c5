"""Whether two models do the same thing with the same parts."""

import torch
from jaxtyping import Float
from torch import Tensor


def circuit_overlap(
    first: Float[Tensor, "layer head"],
    second: Float[Tensor, "layer head"],
    n_draws: int,
    generator: torch.Generator,
) -> tuple[float, Float[Tensor, " draws"]]:
    """How far the effects of two models' heads lie in the same places, and how far they would by chance.

    The number of a head within its layer means nothing: two models may have the same circuit with the heads of a layer
    in another order. So each layer's effects are sorted, and the largest of the one model is compared with the largest
    of the other, down to the smallest. Each model's effects are first divided by the sum of their sizes,

        a = first / sum |first|,   b = second / sum |second|;

    what a pair has in common is min(|a|, |b|) if a and b have the same sign, and 0 if not. With c the sum of this over
    all pairs of all layers, overlap = c / (2 - c): what they have in common over what either has (Jaccard). It is 1 for
    equal effects in equal layers, and 0 for none in common.

    By chance: all of the second model's effects are dealt to places anew, over all layers, and the overlap is taken
    again.

    Args:
        first, second: The effect of each head; not all 0.
        n_draws: How many times places are dealt; 0 is allowed.
        generator: Deals them.

    Returns:
        The overlap, a Python float, and the overlaps of the draws, in the dtype of ``second``.

    Raises:
        ValueError: If the two have not the same shape, or one of them is 0 everywhere.
    """
    if first.shape != second.shape or not bool(first.abs().sum() > 0) or not bool(second.abs().sum() > 0):
        raise ValueError("two models of the same sizes are needed, each with some effect that is not 0")
    a, b = (x / x.abs().sum() for x in (first, second))

    def overlap(other: Float[Tensor, "layer head"]) -> Tensor:
        x, y = a.sort(dim=1).values, other.sort(dim=1).values
        common = torch.where(x * y > 0, torch.minimum(x.abs(), y.abs()), 0.0).sum()
        return common / (2 - common)

    draws = [overlap(b.flatten()[torch.randperm(b.numel(), generator=generator)].view_as(b)) for _ in range(n_draws)]
    return overlap(b).item(), torch.stack(draws) if draws else b.new_zeros(0)
