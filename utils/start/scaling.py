"""Two curves that can be fitted to the same losses: a power law and a sigmoid."""

import math

from jaxtyping import Float, Int
from torch import Tensor


def fit_power_law(
    x: Float[Tensor, " points"] | Int[Tensor, " points"], y: Float[Tensor, " points"]
) -> tuple[float, float]:
    """Fit the power law ``y = scale * x**exponent``, a straight line where both axes are logarithmic.

    The line is that of least squares in ``log y`` against ``log x``.

    Args:
        x: Positive numbers, at least two of them different; for example parameter counts. Integers are fine.
        y: A positive number for each of them; for example losses.

    Returns:
        ``(scale, exponent)``, two Python floats, computed in float64. The exponent of a falling curve is negative.

    Raises:
        ValueError: If ``x`` and ``y`` differ in shape, hold a number that is not positive, or all x are equal.

    Source: Kaplan et al. (2020), equation 1.1, with ``scale = N_c**alpha_N`` and ``exponent = -alpha_N``.
    """
    if x.shape != y.shape or x.unique().numel() < 2:
        raise ValueError(f"need a y for each x and two different x, got {tuple(x.shape)} x and {tuple(y.shape)} y")
    if not bool(((x > 0) & (y > 0)).all()):
        raise ValueError("a power law goes through positive x and y only")
    log_x, log_y = x.double().log(), y.double().log()
    centred = log_x - log_x.mean()
    exponent = (centred @ log_y / (centred @ centred)).item()
    return math.exp(log_y.mean().item() - exponent * log_x.mean().item()), exponent


def fit_sigmoid(
    x: Float[Tensor, " points"] | Int[Tensor, " points"], y: Float[Tensor, " points"], *, low: float, high: float
) -> tuple[float, float]:
    """Fit a sigmoid in log x: ``y = low + (high - low) / (1 + (x / midpoint)**steepness)``.

    Its odds, ``(high - y) / (y - low) = (x / midpoint)**steepness``, are a power law of x, and are fitted as one.

    Args:
        x: Positive numbers, at least two of them different. Integers are fine.
        y: A number between ``low`` and ``high`` for each of them.
        low: Where a falling curve ends.
        high: Where a falling curve begins.

    Returns:
        ``(midpoint, steepness)``, two Python floats, computed in float64. At the midpoint y is half-way between ``low``
        and ``high``; the steepness of a falling curve is positive.

    Raises:
        ValueError: If a y is not strictly between ``low`` and ``high``, all y are equal (there is no midpoint then),
            or x and y can't be fitted (as in ``fit_power_law``).
    """
    if not bool(((low < y) & (y < high)).all()) or y.unique().numel() < 2:
        raise ValueError(f"need different y strictly between low = {low} and high = {high}")
    y = y.double()
    scale, steepness = fit_power_law(x, (high - y) / (y - low))
    return scale ** (-1 / steepness), steepness
