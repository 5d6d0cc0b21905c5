"""How much of a known truth a decomposition found, and what can be asked of one without the truth."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from utils.spd.components import Forward, RankOneComponents, inputs_of_matrices, masked_forward
from utils.spd.gates import ComponentGates, causal_importance


def mean_max_cosine_similarity(
    W: Float[Tensor, "feature d"], components: Float[Tensor, "C feature d"]
) -> Float[Tensor, ""]:
    """The paper's score of directions: for each feature the best cosine that any component reaches, and their mean.

    A feature's direction is its row of W. The same row of a component is what the component does with the feature. Two
    features may have their best cosine from one component.

    Args:
        W: The network's matrix.
        components: The components as matrices of its shape.

    Returns:
        From -1 to 1; the cosine of a row of zeros with anything is 0.

    Source: Bushnaq, Braun and Sharkey (2025), table 1. They write columns for our rows.
    """
    return torch.cosine_similarity(components, W[None], dim=2).amax(dim=0).mean()


def mean_l2_ratio(W: Float[Tensor, "feature d"], components: Float[Tensor, "C feature d"]) -> Float[Tensor, ""]:
    """The paper's score of lengths: how long the row with the best cosine is, against the feature's row of W.

    Args:
        W: The network's matrix, no row of zeros.
        components: The components as matrices of its shape.

    Returns:
        The mean over features of ‖row of the component that has the feature's best cosine‖ / ‖row of W‖.

    Source: Bushnaq, Braun and Sharkey (2025), table 1.
    """
    best = torch.cosine_similarity(components, W[None], dim=2).argmax(dim=0)
    rows = components[best, torch.arange(len(W))]
    return (rows.norm(dim=1) / W.norm(dim=1)).mean()


class Match(NamedTuple):
    """True parts and their partners.

    Attributes:
        partner: For each true part the number of its component, -1 for none.
        cosine: Of the two as matrices; 0 for none.
        ratio: The component's Frobenius norm over the true part's; 0 for none.
    """

    partner: Int[Tensor, " n"]
    cosine: Float[Tensor, " n"]
    ratio: Float[Tensor, " n"]


def match_components(components: Float[Tensor, "C d_in d_out"], truth: Float[Tensor, "n d_in d_out"]) -> Match:
    """Give each true part a component of its own, so that the sum of the cosines is as large as it can be.

    Matrices are compared as vectors of all their entries. No component is given twice; with fewer components than true
    parts, some go without.

    Args:
        components: As matrices. A matrix of zeros has cosine 0 with anything.
        truth: The true parts, none of them 0.

    Returns:
        A Match, a named tuple (partner, cosine, ratio).
    """
    found, wanted = components.flatten(1), truth.flatten(1)
    cosines = torch.cosine_similarity(wanted[:, None], found[None], dim=2)
    rows, columns = (torch.as_tensor(index) for index in linear_sum_assignment(cosines.numpy(), maximize=True))
    partner = torch.full((len(truth),), -1)
    cosine, ratio = torch.zeros(len(truth)), torch.zeros(len(truth))
    partner[rows] = columns
    cosine[rows] = cosines[rows, columns]
    ratio[rows] = found[columns].norm(dim=1) / wanted[rows].norm(dim=1)
    return Match(partner, cosine, ratio)


def recovered(
    components: Float[Tensor, "C d_in d_out"],
    truth: Float[Tensor, "n d_in d_out"],
    *,
    min_cosine: float = 0.99,
    tolerance: float = 0.05,
) -> Bool[Tensor, " n"]:
    """Which true parts were found: matched one to one, with the direction right and the length right.

    Args:
        components: As matrices.
        truth: The true parts, none of them 0.
        min_cosine: A partner's cosine has to be above it.
        tolerance: A partner's norm ratio has to lie within this of 1.

    Returns:
        True where both hold for the partner of ``match_components``.
    """
    match = match_components(components, truth)
    return (match.cosine > min_cosine) & ((match.ratio - 1).abs() < tolerance)


def live_components(importances: Float[Tensor, "*batch C"], threshold: float = 0.1) -> Bool[Tensor, " C"]:
    """Which components some input needs.

    Args:
        importances: Causal importances of the components, for any number of inputs.
        threshold: An input needs a component whose importance is above it.

    Returns:
        True for components that at least one input needs.
    """
    return (importances > threshold).flatten(0, -2).any(dim=0)


def components_per_input(
    forward: Forward,
    weights: Mapping[str, Float[Tensor, "d_in d_out"]],
    components: Mapping[str, RankOneComponents],
    gates: Mapping[str, ComponentGates],
    x: Tensor,
    threshold: float = 0.1,
) -> dict[str, Bool[Tensor, "*batch C"]]:
    """Which components each input needs.

    Args:
        forward: The network, as for ``inputs_of_matrices``.
        weights: The matrices by name.
        components: Components for each.
        gates: Their gates.
        x: Inputs of the network.
        threshold: A component is needed where its causal importance is above it.

    Returns:
        For each matrix true where a component is needed. Gates read what comes into the matrix when the network runs on
        its own weights.
    """
    inputs = inputs_of_matrices(forward, weights, x)[1]
    return {name: causal_importance(gates[name], components[name].V, a)[0] > threshold for name, a in inputs.items()}


def ablate_the_rest(
    forward: Forward,
    weights: Mapping[str, Float[Tensor, "d_in d_out"]],
    components: Mapping[str, RankOneComponents],
    x: Tensor,
    needed: Mapping[str, Bool[Tensor, "*batch C"]],
    magnitude: float | Mapping[str, Float[Tensor, "*batch C"]] = 0.0,
) -> Tensor:
    """Run the network on the components that each input needs, with the others at some magnitude.

    Args:
        forward: The network, as for ``inputs_of_matrices``.
        weights: The matrices by name.
        components: Components for each.
        x: Inputs of the network.
        needed: True where a component stays as it is, by name of matrix. A matrix that is not named multiplies by its
            own weights.
        magnitude: What the others are multiplied by: one number for all, or tensors by name of matrix.

    Returns:
        The output.
    """
    masks = {
        name: torch.where(keep, 1.0, magnitude if isinstance(magnitude, float | int) else magnitude[name])
        for name, keep in needed.items()
    }
    return masked_forward(forward, weights, components, x, masks)


def random_needed(
    needed: Bool[Tensor, "batch C"], live: Bool[Tensor, " C"], generator: torch.Generator | None = None
) -> Bool[Tensor, "batch C"]:
    """For each input a random set of as many components as it needs, to compare with: the null of the causal check.

    Args:
        needed: Which components each input needs; only live ones.
        live: Components to draw from, each set of the right size as likely as any other.
        generator: Source of the draws; None for torch's global one.

    Returns:
        True for the components drawn, for each input independently.
    """
    draws = torch.rand(needed.shape, generator=generator).masked_fill(~live, 2.0)
    order = draws.argsort(dim=1).argsort(dim=1)
    return order < needed.sum(dim=1, keepdim=True)
