"""Three ways to fit a linear probe: a direction and a bias.

All three say "present" where ``x @ direction + bias`` is above 0. ``x`` holds activations, a row for each token.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor


class Probe(NamedTuple):
    """A linear probe. ``probe(x)`` is its score: above 0 it says that the feature is present.

    Attributes:
        direction: What an activation is multiplied with, in units of score per unit of activation.
        bias: What is added.
    """

    direction: Float[Tensor, " d"]
    bias: Float[Tensor, ""]

    def __call__(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        return x @ self.direction + self.bias


def least_squares_probe(x: Float[Tensor, "n d"], labels: Bool[Tensor, " n"], penalty: float = 1e-3) -> Probe:
    """Fit the scores to +1 where the feature is present and -1 where it is not, by least squares.

    Minimises  mean((x @ direction + bias - y)²) + penalty · s² · |direction|²,  where y is ±1 and s² is the variance
    (with n) of the entries of x about their column's mean, averaged over columns. With s² in it, a penalty means the
    same whatever the unit of x; the bias is not penalised.

    Args:
        x: Activations.
        labels: Whether the feature is present; both must occur.
        penalty: Above 0.

    Returns:
        The probe, of x's dtype.

    Raises:
        ValueError: If only one label occurs.

    Source: Hastie, Tibshirani and Friedman (2009), "The Elements of Statistical Learning", sections 3.4.1 and 4.2.
    """
    if labels.all() or not labels.any():
        raise ValueError("only one of the two labels occurs")
    centre, y = x.double().mean(0), torch.where(labels, 1.0, -1.0).double()
    centred = x.double() - centre
    covariance = centred.T @ centred / len(x)
    ridge = penalty * covariance.diagonal().mean() * torch.eye(len(centre), dtype=torch.double)
    direction = torch.linalg.solve(covariance + ridge, centred.T @ (y - y.mean()) / len(x))
    return Probe(direction.to(x.dtype), (y.mean() - centre @ direction).to(x.dtype))


def logistic_probe(x: Float[Tensor, "n d"], labels: Bool[Tensor, " n"], penalty: float = 1e-3) -> Probe:
    """Logistic regression by Newton's method: the score is the log-odds that the feature is present.

    Minimises  mean(log(1 + exp(-y · score))) + penalty / 2 · s² · |direction|²,  with score = x @ direction + bias, y
    and s² as in ``least_squares_probe``. The minimum is unique. It is found to within 0.1 % of the direction's length,
    also where the two classes can be told apart without error.

    Args:
        x: Activations.
        labels: Whether the feature is present; both must occur.
        penalty: Above 0.

    Returns:
        The probe, of x's dtype.

    Raises:
        ValueError: If only one label occurs.

    Source: Hastie, Tibshirani and Friedman (2009), "The Elements of Statistical Learning", section 4.4.1.
    """
    if labels.all() or not labels.any():
        raise ValueError("only one of the two labels occurs")
    centre, target = x.double().mean(0), labels.double()
    centred = x.double() - centre
    scale = centred.square().mean().sqrt()
    inputs = torch.cat([centred / scale, torch.ones_like(centred[:, :1])], dim=1)
    ridge = penalty * torch.ones_like(inputs[0])
    ridge[-1] = 0.0  # the bias is free

    def loss(weights: Tensor) -> Tensor:
        scores = inputs @ weights
        return (
            torch.nn.functional.softplus(torch.where(labels, -scores, scores)).mean() + weights @ (ridge * weights) / 2
        )

    weights = torch.zeros_like(ridge)
    for _ in range(50):
        p = (inputs @ weights).sigmoid()
        gradient = inputs.T @ (p - target) / len(x) + ridge * weights
        hessian = (inputs.T * (p * (1 - p))) @ inputs / len(x) + ridge.diag()
        step, size = torch.linalg.solve(hessian, gradient), 1.0
        while size > 1e-6 and loss(weights - size * step) > loss(weights):
            size = size / 2
        weights = weights - size * step
        if step.norm() < 1e-7 * (1 + weights.norm()):
            break
    direction = weights[:-1] / scale
    return Probe(direction.to(x.dtype), (weights[-1] - centre @ direction).to(x.dtype))


def mass_mean_probe(x: Float[Tensor, "n d"], labels: Bool[Tensor, " n"]) -> Probe:
    """The difference of the two classes' means; the score is 0 halfway between them.

    Args:
        x: Activations.
        labels: Whether the feature is present; both must occur.

    Returns:
        The probe, of x's dtype. Its direction is the mean where the feature is present less the mean where it is not.

    Raises:
        ValueError: If only one label occurs.

    Source: Marks and Tegmark (2023), "The Geometry of Truth", section 5, without their correction by the covariance.
    """
    if labels.all() or not labels.any():
        raise ValueError("only one of the two labels occurs")
    present, absent = x[labels].mean(0), x[~labels].mean(0)
    direction = present - absent
    return Probe(direction, -(present + absent) @ direction / 2)
