"""How many directions have room in a space if they need not be at right angles, only nearly."""

import math

import torch
from jaxtyping import Float
from torch import Tensor


def random_directions(n: int, d: int, generator: torch.Generator) -> Float[Tensor, "n d"]:
    """Directions drawn from the sphere, each point of it as likely as any other, independently.

    Args:
        n, d: How many, and in how many dimensions.
        generator: All that is random is drawn from it.

    Returns:
        Unit vectors, one a row.

    Source: Muller (1959), "A Note on a Method for Generating Points Uniformly on N-Dimensional Spheres".
    """
    directions = torch.randn(n, d, generator=generator)
    return directions / directions.norm(dim=-1, keepdim=True)


def max_interference(W: Float[Tensor, "n d"], *, signed: bool = False) -> float:
    """The largest overlap of two different rows: of all pairs the largest absolute cosine.

    Args:
        W: At least two directions, one a row, of any length; the length does not matter.
        signed: Take the largest cosine instead: rows that point away from each other then do not overlap, and the
            result may be negative.

    Raises:
        ValueError: If there are fewer than two rows, or a row is 0 throughout.
    """
    lengths = W.norm(dim=-1, keepdim=True)
    if len(W) < 2 or (lengths == 0).any():
        raise ValueError("at least two rows are needed, and none of length 0")
    directions, largest = W / lengths, -1.0
    for start in range(0, len(W), 1024):  # a part of the rows at a time, as n x n numbers may be many
        cosines = directions[start : start + 1024] @ directions.T
        rows = torch.arange(len(cosines))
        cosines = cosines if signed else cosines.abs()
        cosines[rows, start + rows] = -1.0  # a row and itself
        largest = max(largest, cosines.max().item())
    return largest


def jl_dimension(n: int, epsilon: float) -> int:
    """In how many dimensions n points have room with all squared distances kept to within a factor of 1 ± epsilon.

    The lemma of Johnson and Lindenstrauss, in the form of Dasgupta and Gupta: whatever the number of dimensions in
    which the points lie, a random projection to d of them will do, with a chance of at least 1/n, if
    d >= 4 ln n / (epsilon² / 2 - epsilon³ / 3).

    Args:
        n: Number of points, at least 2.
        epsilon: Above 0 and below 1.

    Returns:
        The smallest such whole number d.

    Raises:
        ValueError: If n or epsilon is out of its range.

    Source: Dasgupta and Gupta (2003), "An Elementary Proof of a Theorem of Johnson and Lindenstrauss".
    """
    if n < 2 or not 0 < epsilon < 1:
        raise ValueError(f"n must be at least 2 and epsilon between 0 and 1, got {n} and {epsilon}")
    return math.ceil(4 * math.log(n) / (epsilon**2 / 2 - epsilon**3 / 3))


def almost_orthogonal_dimension(n: int, epsilon: float, failure: float) -> int:
    """In how many dimensions n random directions are almost orthogonal, all of them, for sure enough.

    Two random directions have an absolute cosine above epsilon with a chance of at most 2 exp(-d epsilon² / 2). There
    are n (n - 1) / 2 pairs, and the chance that any of them is that bad is at most the sum of their chances.

    Args:
        n: Number of directions, at least 2.
        epsilon: The largest absolute cosine that is allowed; above 0 and below 1.
        failure: The chance that is left to a worse pair; above 0 and below 1.

    Returns:
        The smallest whole number d for which that sum of chances is at most ``failure``.

    Raises:
        ValueError: If an argument is out of its range.

    Source: Ball (1997), "An Elementary Introduction to Modern Convex Geometry", lemma 2.2, for the chance of one pair.
    """
    if n < 2 or not 0 < epsilon < 1 or not 0 < failure < 1:
        raise ValueError(f"out of range: n = {n}, epsilon = {epsilon}, failure = {failure}")
    return math.ceil(2 * math.log(n * (n - 1) / failure) / epsilon**2)


def reading_error(W: Float[Tensor, "feature d"], features: Float[Tensor, "sample feature"]) -> float:
    """How far off a reader is who takes each feature's value for the length along its direction.

    A sample's features are written into one vector, the sum of value times direction, which has d numbers. Read back is
    the scalar product of that vector with each direction.

    Args:
        W: A direction for each feature, one a row; taken as they are, of whatever length.
        features: The values, most of them 0.

    Returns:
        The root of the mean, over all samples and features, of (value read - value written)².

    Source: Elhage et al. (2022), "Toy Models of Superposition", whose linear model reads back in this way.
    """
    read = features @ W @ W.T
    return (read - features).square().mean().sqrt().item()
