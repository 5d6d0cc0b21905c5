"""When is it worth it to share a dimension: the phases of small toy models, and where theory puts their borders."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor


def pure_losses(
    p: Float[Tensor, "*shape"], relative_importance: Float[Tensor, "*shape"]
) -> Float[Tensor, "*shape solution"]:
    """The exact loss of three hand-made solutions for two features in one dimension.

    The features are independent; each is 0 with probability 1 - p, else uniform between 0 and 1. The model is
    ReLU(W^T W x + b), its loss the mean over x of (x_1 - x̂_1)² + r (x_2 - x̂_2)², where r is the relative importance
    of the second feature, the *extra* one. The solutions, in this order:

    0. *Not represented*, W = (1, 0): the extra feature is answered by its mean, b = (0, p / 2).
    1. *Dedicated*, W = (0, 1): the extra feature has the dimension, the first is answered by its mean, b = (p / 2, 0).
    2. *Superposed*, W = (1, -1) and b = (0, 0): both share the dimension, as an antipodal pair.

    Args:
        p: Probabilities that a feature is on, from 0 to 1.
        relative_importance: r, not negative; of a shape that broadcasts with that of ``p``.

    Returns:
        The three losses, along a new last axis.

    Source: after Elhage et al. (2022), "Toy Models of Superposition", "Superposition as a phase change".
    """
    variance = p / 3 - p**2 / 4
    ignored = relative_importance * variance
    dedicated = torch.ones_like(relative_importance) * variance
    both_on = (1 + relative_importance) * p**2 / 6
    return torch.stack([ignored, dedicated, both_on], dim=-1)


def analytic_boundary(p: Float[Tensor, "*shape"]) -> tuple[Float[Tensor, "*shape"], Float[Tensor, "*shape"]]:
    """Between which relative importances sharing is the best of the three solutions of ``pure_losses``.

    Args:
        p: Probabilities that a feature is on, above 0 and at most 1.

    Returns:
        (lower, upper): sharing has the smallest of the three losses if and only if the relative importance lies
        strictly between them. Where it never has, both are 1, where the other two solutions change places.

    Raises:
        ValueError: If some p is not above 0, or is above 1.
    """
    if not bool(((p > 0) & (p <= 1)).all()):
        raise ValueError("p must lie above 0 and be at most 1")
    lower = torch.where(p < 4 / 7, 2 * p / (4 - 5 * p), torch.ones_like(p))
    return lower, 1 / lower


def classify_phase(
    W: Float[Tensor, "models d_hidden features"], feature: int = -1, threshold: float = 0.5
) -> Int[Tensor, "models"]:
    """What each trained model does with one of its features.

    Its direction is the column W_i. The model does not represent it if ‖W_i‖ < threshold. If it does, the feature
    shares its direction if the other columns, projected onto it, have a length of at least the threshold,
    sqrt(Σ_{j≠i} (W_i · W_j)² / ‖W_i‖²) >= threshold, and has a dimension to itself otherwise.

    Args:
        W: Weights of several models, of any norm.
        feature: Which column is asked about; negative counts from the end.
        threshold: The length below which a column counts for nothing, above 0.

    Returns:
        For each model 0 (not represented), 1 (dedicated) or 2 (superposed).

    Source: the two quantities are those of Elhage et al. (2022), who draw them as a colour without a threshold.
    """
    columns = W.mT  # [models, features, d_hidden]
    mine = columns[:, feature]
    length = mine.norm(dim=-1)
    overlaps = (columns @ mine[:, :, None]).squeeze(-1)  # [models, features]
    overlaps[:, feature] = 0
    others = overlaps.norm(dim=-1) / length
    shared = torch.where(others >= threshold, 2, 1)
    return torch.where(length < threshold, 0, shared)


def phase_diagram(
    train: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
    p: Float[Tensor, "n_p"],
    relative_importance: Float[Tensor, "n_r"],
    n_features: int = 2,
    n_starts: int = 1,
) -> Int[Tensor, "n_p n_r"]:
    """Train a model in each cell of a grid, all in one batch, and say what it does with the last feature.

    Each cell is trained from ``n_starts`` random starts, and the start with the lowest loss counts.

    Args:
        train: ``train(p, importance)`` takes the probability of the features for each model, [models], and their
            importances, [models, n_features], trains all models, and returns their weights, [models, d_hidden,
            n_features], and final losses, [models]. It is called once; equal rows get different starts.
        p: The grid's probabilities.
        relative_importance: The grid's importances of the last feature; all others have importance 1.
        n_features: How many features each model has.
        n_starts: How many models are trained for each cell.

    Returns:
        For each cell the phase of the last feature as ``classify_phase`` gives it with its default threshold; rows are
        probabilities, columns are importances.
    """
    n_p, n_r = len(p), len(relative_importance)
    cells = torch.cartesian_prod(p, relative_importance).repeat_interleave(n_starts, dim=0)
    importance = torch.ones(len(cells), n_features, dtype=cells.dtype, device=cells.device)
    importance[:, -1] = cells[:, 1]
    W, losses = train(cells[:, 0], importance)
    best = losses.reshape(n_p * n_r, n_starts).argmin(dim=1)
    W = W.reshape(n_p * n_r, n_starts, *W.shape[1:])[torch.arange(n_p * n_r), best]
    return classify_phase(W).reshape(n_p, n_r)
