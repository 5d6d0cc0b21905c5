"""How the directions lie in which a toy model stores its features."""

from collections import Counter
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

GROUPS = {  # how many features share how many dimensions, and their dimensionality
    (1, 1): "alone",
    (2, 1): "antipodal pair",
    (3, 2): "triangle",
    (4, 3): "tetrahedron",
    (5, 2): "pentagon",
    (6, 2): "hexagon",
    (8, 3): "square antiprism",
}


def interference_matrix(W: Float[Tensor, "*models d_hidden feature"]) -> Float[Tensor, "*models feature feature"]:
    """WᵀW: entry (i, j) is what one unit of feature j adds to output i, before bias and ReLU.

    On the diagonal stands what a feature adds to its own output, |W_i|², and everywhere else interference. Directions
    are taken as they are, and not scaled to length 1.

    Args:
        W: Weights; any dimensions in front stand for models.

    Source: Elhage et al. (2022), "Toy Models of Superposition", section 2.
    """
    return W.mT @ W


def feature_dimensionality(W: Float[Tensor, "*models d_hidden feature"]) -> Float[Tensor, "*models feature"]:
    """What share of a dimension each feature has for itself: D_i = |W_i|² / sum over j of (Ŵ_i · W_j)².

    Ŵ_i is W_i scaled to length 1, and the sum runs over all features, i included. So a feature that shares its
    direction with nobody has 1, one of an antipodal pair of equal length 1/2, and one of a pair in one direction also
    1/2. A feature whose direction is 0 has 0.

    Args:
        W: Weights; any dimensions in front stand for models.

    Returns:
        For each feature a number from 0 to 1. A model's numbers add up to at most ``d_hidden``.

    Source: Elhage et al. (2022), "Toy Models of Superposition", section 4.
    """
    sizes = W.norm(dim=-2)
    unit = W / torch.where(sizes == 0, 1.0, sizes).unsqueeze(-2)
    shared = (unit.mT @ W).square().sum(dim=-1)
    return sizes.square() / torch.where(sizes == 0, 1.0, shared)


def find_polygon(W: Float[Tensor, "2 feature"], min_size: float = 0.5, tolerance: float = 5.0) -> int:
    """How many corners the regular polygon has that the features of a model in the plane form.

    Features count whose directions are at least ``min_size`` long. k of them, k at least 2, form a regular polygon if,
    going round, the angle from each direction to the next is within ``tolerance`` of 360 / k degrees. (Two opposite
    directions are a polygon of 2 corners.) How long the directions are is of no further account.

    Args:
        W: Weights of one model of two dimensions.
        min_size: Length from which on a feature counts.
        tolerance: In degrees.

    Returns:
        The number of corners; 0 if the features that count form no regular polygon, or if there are fewer than 2.

    Raises:
        ValueError: If W is not [2, feature].
    """
    if W.ndim != 2 or W.shape[0] != 2:
        raise ValueError(f"W must be [2, feature], got shape {tuple(W.shape)}")
    x, y = W[:, W.norm(dim=0) >= min_size]
    k = len(x)
    if k < 2:
        return 0
    angles = torch.atan2(y, x).rad2deg().sort().values
    gaps = torch.cat([angles[1:], angles[:1] + 360]) - angles
    return k if bool(((gaps - 360 / k).abs() <= tolerance).all()) else 0


def superposition_vs_sparsity(
    train: Callable[[Float[Tensor, " model"]], Float[Tensor, "model d_hidden feature"]],
    p: Float[Tensor, " sparsity"],
    n_starts: int,
) -> Float[Tensor, "sparsity start"]:
    """How many features a model stores per dimension, |W|² / d_hidden, for each sparsity and several starts.

    |W|² is the sum of the squares of all weights. As a stored feature's direction has a length of about 1, it counts
    the features that are stored; d_hidden / |W|² is their dimensions per feature.

    Args:
        train: Trains a model for each entry of the probabilities that it is given, and returns their weights. It is
            called once, since many models train in hardly more time than one.
        p: The probabilities that a feature is on.
        n_starts: Number of models for each of them: model ``i * n_starts + s`` is start s at ``p[i]``.

    Returns:
        |W|² / d_hidden, a row for each probability.

    Source: Elhage et al. (2022), "Toy Models of Superposition", section 4.
    """
    W = train(p.repeat_interleave(n_starts))
    return (W.square().sum(dim=(1, 2)) / W.shape[1]).reshape(len(p), n_starts)


def named_groups(
    W: Float[Tensor, "d_hidden feature"], *, min_size: float = 0.5, min_overlap: float = 0.15, tolerance: float = 0.02
) -> Counter[str]:
    """What figures the stored features of one model form, and how often.

    Features that overlap belong to one group, and so does what overlaps with one of them (an overlap is a cosine of at
    least ``min_overlap``, of either sign). A group is known by how many features it has and how many dimensions they
    span, and gets its name if each of them has the dimensionality that a regular figure has: dimensions / features. A
    group that has no name, or other dimensionalities, is "something else".

    Args:
        W: Weights of one model.
        min_size: Features with shorter directions are not stored.
        min_overlap: As above.
        tolerance: How far off a dimensionality may be.
    """
    sizes = W.norm(dim=0)
    left = set(torch.nonzero(sizes >= min_size).flatten().tolist())
    unit, dimensionality = W / sizes.clamp(min=1e-9), feature_dimensionality(W)
    overlaps = interference_matrix(unit).abs() >= min_overlap
    found: Counter[str] = Counter()
    while left:
        group, waiting = [], [left.pop()]
        while waiting:
            i = waiting.pop()
            group.append(i)
            reached = {j for j in left if overlaps[i, j]}
            left -= reached
            waiting += reached
        spanned = int((torch.linalg.svdvals(unit[:, group]) > min_overlap).sum())
        regular = ((dimensionality[group] - spanned / len(group)).abs() <= tolerance).all()
        found[GROUPS.get((len(group), spanned), "something else") if regular else "something else"] += 1
    return found
