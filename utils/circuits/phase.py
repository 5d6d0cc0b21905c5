"""When a quantity changes during training, and how suddenly."""

from jaxtyping import Float, Int
from torch import Tensor


def induction_phase_change(
    steps: Int[Tensor, " points"], values: Float[Tensor, " points"]
) -> tuple[float, float, float]:
    """The steps at which a quantity has first made 10 %, 50 % and 90 % of its way from its first to its last value.

    The way at a point is (value - first) / (last - first), whether the quantity rises or falls. It has made a share of
    the way at the first point where it is at least that share; between that point and the one before it, a straight
    line is assumed.

    Args:
        steps: Training steps, strictly increasing.
        values: The quantity at each of them.

    Returns:
        Three steps, as Python floats.

    Raises:
        ValueError: If there are fewer than two points, or not as many values as steps, the steps do not increase, or
            the first and the last value are equal.
    """
    if len(steps) < 2 or len(values) != len(steps) or bool((steps.diff() <= 0).any()):
        raise ValueError("at least two points are needed, a value for each step, and steps that increase")
    if values[-1] == values[0]:
        raise ValueError("the last value is the first one: there is no way to be made")
    at, way = steps.double(), ((values - values[0]) / (values[-1] - values[0])).double()
    found = []
    for share in (0.1, 0.5, 0.9):
        i = int((way >= share).int().argmax())
        between = (share - way[i - 1]) / (way[i] - way[i - 1])
        found.append((at[i - 1] + between * (at[i] - at[i - 1])).item())
    return tuple(found)
