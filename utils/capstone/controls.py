"""Two controls: a push that costs as much, and a property that should not matter."""

from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from utils.course.cases import estimate


def effect_at_equal_cost(
    effect: Float[Tensor, "direction dose"], cost: Float[Tensor, "direction dose"], budget: float
) -> Float[Tensor, " direction"]:
    """The wanted effect of each direction at the dose at which its side effect reaches the same budget.

    At dose 0 effect and cost are 0, and between the doses measured both go in straight lines. The dose is the smallest
    at which the cost is at least ``budget``.

    Args:
        effect: The wanted effect of each direction at each dose; doses ascend from left to right and are above 0.
        cost: The side effect at the same doses.
        budget: The side effect at which directions are compared, above 0.

    Returns:
        The effect of each direction there; NaN for a direction whose cost never reaches the budget.

    Raises:
        ValueError: If the two tables have different shapes, there is no dose, or the budget is not above 0.
    """
    if effect.shape != cost.shape or effect.ndim != 2 or effect.shape[1] < 1 or not budget > 0:
        raise ValueError(f"effect is {tuple(effect.shape)}, cost {tuple(cost.shape)}, and budget {budget}")
    effect, cost = (torch.cat([torch.zeros_like(table[:, :1]), table], dim=1) for table in (effect, cost))
    found = []
    for value, price in zip(effect, cost, strict=True):
        reached = (price >= budget).nonzero()[:, 0].tolist()
        if not reached:
            found.append(torch.full_like(value[0], torch.nan))
            continue
        right = reached[0]  # at least 1, as the cost at dose 0 is 0
        share = (budget - price[right - 1]) / (price[right] - price[right - 1])
        found.append(value[right - 1] + share * (value[right] - value[right - 1]))
    return torch.stack(found)


def refutation_test(
    named: Float[Tensor, " unit"], others: Mapping[str, Float[Tensor, " unit"]], tolerance: float = 0.5
) -> tuple[dict[str, tuple[float, float]], str]:
    """Does a measure follow the property that it is named after, and nothing else as much?

    Let (mean, h) be an effect's mean over units and the half-width of its 95 % interval, as ``estimate`` gives them,
    and limit = tolerance · (mean of the named property's effect). The name

    - is "refuted" if the named effect's interval does not lie above 0 (mean - h <= 0), or if another property's effect,
      whatever its sign, surely passes the limit (abs(mean) - h > limit);
    - "stands" if it is not refuted, and every other effect surely stays within it (abs(mean) + h <= limit);
    - is "open" in all other cases.

    Args:
        named: For each independent unit, by how much the measure rises when the named property is varied and everything
            else is kept; at least two units.
        others: The same for other properties, each varied with the named one kept; at least one.
        tolerance: How much of the named effect another may have.

    Returns:
        effects: (mean, half-width) under "named", and for each other property under its name, in the order of
            ``others``.
        verdict: "stands", "refuted" or "open".

    Raises:
        ValueError: If ``others`` is empty, or has a property called "named".
    """
    if not others or "named" in others:
        raise ValueError("at least one other property is needed, and none of them may be called 'named'")
    effects = {name: estimate(values.tolist()) for name, values in {"named": named, **others}.items()}
    mean, half_width = effects["named"]
    limit = tolerance * mean
    rivals = [effects[name] for name in others]
    if mean - half_width <= 0 or any(abs(value) - width > limit for value, width in rivals):
        return effects, "refuted"
    within = all(abs(value) + width <= limit for value, width in rivals)
    return effects, "stands" if within else "open"
