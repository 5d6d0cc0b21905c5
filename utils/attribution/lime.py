"""LIME: a small linear model of a large one, near a single input."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor


def lime_neighbourhood(
    x: Float[Tensor, "feature"],
    scale: Float[Tensor, "feature"],
    n_samples: int,
    *,
    generator: torch.Generator,
) -> Float[Tensor, "sample feature"]:
    """Inputs around ``x``: x itself in the first row, and copies with normal noise of its own size for each feature.

    Each number of the noise is drawn independently of all others, in the other rows and in the other features.

    Args:
        x: The input to be explained.
        scale: Standard deviation of the noise for each feature, in the feature's units, above 0 (usually the standard
            deviation of the feature in the data).
        n_samples: Number of rows, at least 1.
        generator: Source of the noise.

    Returns:
        Rows [n_samples, feature] with the dtype and on the device of x (whatever those of scale); row 0 is x.

    Raises:
        ValueError: If ``scale`` does not have the shape of ``x`` or is not above 0 everywhere (NaN is not), or if
            ``n_samples`` is smaller than 1.

    Source: Ribeiro, Singh and Guestrin (2016), "Why should I trust you?", section 3.3. Their library does this for
    tables with ``sample_around_instance=True`` and ``discretize_continuous=False``; neither is its default.
    """
    if scale.shape != x.shape or not bool((scale > 0).all()):
        raise ValueError("scale must have the shape of x and be above 0 everywhere")
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples}")
    noise = torch.randn(n_samples, len(x), generator=generator, dtype=x.dtype, device=generator.device).to(x.device)
    noise[0] = 0
    return x + scale.to(x) * noise


def lime_kernel_weights(
    x: Float[Tensor, "feature"],
    neighbours: Float[Tensor, "sample feature"],
    scale: Float[Tensor, "feature"],
    kernel_width: float,
) -> Float[Tensor, "sample"]:
    """How much each neighbour counts in the local fit: 1 at ``x``, less with every step away from it.

    The weight is exp(-D^2 / kernel_width^2), where D is the Euclidean distance between a neighbour and x after each
    feature was divided by its scale.

    Args:
        x: The input to be explained.
        neighbours: Inputs around it, one a row.
        scale: Unit in which the distance along each feature is measured, above 0.
        kernel_width: Distance, in these units, at which the weight has fallen to 1/e, above 0.

    Returns:
        One weight for each neighbour, between 0 and 1, with the dtype of the neighbours.

    Raises:
        ValueError: If ``kernel_width`` is not above 0 (NaN is not), or ``scale`` not above 0 everywhere (NaN is not).

    Source: Ribeiro, Singh and Guestrin (2016), section 3.4. (Their library takes the square root of this.)
    """
    if not kernel_width > 0:
        raise ValueError(f"kernel_width must be above 0, got {kernel_width}")
    if not bool((scale > 0).all()):
        raise ValueError("scale must be above 0 everywhere")
    steps = (neighbours - x) / scale / kernel_width
    return (-steps.square().sum(dim=-1)).exp().to(neighbours.dtype)


def lime_explain(
    model: Callable[[Float[Tensor, "sample feature"]], Float[Tensor, "sample"]],
    x: Float[Tensor, "feature"],
    scale: Float[Tensor, "feature"],
    *,
    kernel_width: float,
    n_samples: int = 1000,
    ridge: float = 1.0,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "feature"], Float[Tensor, ""], Float[Tensor, ""]]:
    """Explain the model's output near ``x`` by a linear model, fitted to what the model says about the neighbours.

    The neighbours z are the rows of ``lime_neighbourhood(x, scale, n_samples, generator=generator)``, called once and
    used as they come. With u = (z - x) / scale and weights pi from ``lime_kernel_weights``, it minimises

        sum_z pi(z) (model(z) - b - u . w)^2 + ridge * ||w||^2

    over w and b. The intercept b is not penalised.

    Args:
        model: Takes inputs [sample, feature] and returns one number for each. It is called once, with all neighbours
            and without gradients.
        x: The input to be explained.
        scale: Size of the noise and unit of distance for each feature, above 0.
        kernel_width: Width of the neighbourhood, in units of scale.
        n_samples: Number of neighbours, x among them.
        ridge: Strength of the penalty, above 0.
        generator: Source of the noise; used by ``lime_neighbourhood`` alone.

    Returns:
        The coefficients w (change of the output per ``scale`` of each feature), the intercept b (what the linear model
        says at x), and the fidelity: the weighted R^2 of the fit, 1 - sum pi (model - fit)^2 / sum pi (model - m)^2,
        with m the weighted mean of the model's outputs. (Where all outputs are the same it is 0 / 0 and means nothing.)
        All three have the dtype of the model's outputs, which need not be that of x.

    Raises:
        ValueError: If ``ridge`` is not above 0 (NaN is not), if ``model`` does not return one number for each row, and
            what the two functions above raise.

    Source: Ribeiro, Singh and Guestrin (2016), equation 1 and section 3.4, with ridge in place of the Lasso, as in
    their library.
    """
    if not ridge > 0:
        raise ValueError(f"ridge must be above 0, got {ridge}")
    neighbours = lime_neighbourhood(x, scale, n_samples, generator=generator)
    weights = lime_kernel_weights(x, neighbours, scale, kernel_width)
    with torch.no_grad():
        outputs = model(neighbours)
    if outputs.shape != (n_samples,):
        raise ValueError(f"model must return one number for each of {n_samples} rows, got shape {tuple(outputs.shape)}")
    # In float64, as normal equations lose twice the digits. Less the output at x, what does not vary is exactly 0.
    weights, changes = weights.double(), outputs.double() - outputs[0].double()
    share, steps = weights / weights.sum(), (neighbours - x).double() / scale.double()
    mean_step, mean_change = share @ steps, share @ changes
    steps, changes = steps - mean_step, changes - mean_change
    gram = steps.T @ (share[:, None] * steps) + ridge / weights.sum() * torch.eye(len(x)).to(steps)
    w = torch.linalg.solve(gram, steps.T @ (share * changes))
    fidelity = 1 - share @ (changes - steps @ w).square() / (share @ changes.square())
    intercept = outputs[0].double() + mean_change - mean_step @ w
    return w.to(outputs.dtype), intercept.to(outputs.dtype), fidelity.to(outputs.dtype)
