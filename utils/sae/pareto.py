"""Which of many dictionaries are worth having: sparser or better than all others."""

from jaxtyping import Bool, Float
from torch import Tensor


def pareto_frontier(l0: Float[Tensor, " n"], quality: Float[Tensor, " n"]) -> Bool[Tensor, " n"]:
    """Which points no other point dominates.

    A point dominates another if it is at least as sparse (its L0 at most as large) *and* at least as good (its quality
    at least as large), and one of the two strictly. So equal points do not dominate each other.

    Args:
        l0: Latents that are on, on average: the fewer, the better.
        quality: Fraction of variance, loss recovered, or what else is better the larger it is.

    Returns:
        True for each point on the frontier, in the order of the points.
    """
    fewer, better = l0[:, None] <= l0, quality[:, None] >= quality  # [dominating, dominated]
    strictly = (l0[:, None] < l0) | (quality[:, None] > quality)
    return ~(fewer & better & strictly).any(dim=0)
