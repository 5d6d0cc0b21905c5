"""How well scores tell a circuit's edges from all others."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def edge_roc(
    scores: Float[Tensor, " edge"], truth: Bool[Tensor, " edge"]
) -> tuple[Float[Tensor, " points"], Float[Tensor, " points"]]:
    """The ROC curve of taking the edges with the highest scores: what it finds against what it takes by mistake.

    The first point is (0, 0), no edge taken. Then the threshold sinks; for each different score there is one point,
    at which all edges with this score or a higher one are taken. The last point is (1, 1).

    Args:
        scores: The higher, the sooner an edge is taken; finite.
        truth: Which edges belong to the circuit.

    Returns:
        false_positives: Share of the other edges that are taken.
        true_positives: Share of the circuit's edges that are taken.

    Raises:
        ValueError: If all edges belong to the circuit, or none does.
    """
    if bool(truth.all()) or not bool(truth.any()):
        raise ValueError("a ROC curve needs edges inside the circuit and outside")
    levels = scores.unique().flip(0)
    taken = (scores >= levels[:, None]).double()
    inside, outside = truth.double(), (~truth).double()
    start = torch.zeros(1, dtype=torch.float64, device=scores.device)
    false_positives = torch.cat([start, taken @ outside / outside.sum()])
    true_positives = torch.cat([start, taken @ inside / inside.sum()])
    return false_positives, true_positives
