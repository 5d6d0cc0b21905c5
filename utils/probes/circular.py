"""Features that go round: probes with two dimensions, rotations, and how much of a ring is one."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor


class CircularProbe(NamedTuple):
    """A probe with two outputs, read as a point in a plane. ``probe(x)`` is the angle of that point, in radians.

    Attributes:
        weights: What an activation is multiplied with.
        bias: What is added.
    """

    weights: Float[Tensor, "d 2"]
    bias: Float[Tensor, "2"]

    def __call__(self, x: Float[Tensor, "*batch d"]) -> Float[Tensor, "*batch"]:
        cos, sin = (x @ self.weights + self.bias).unbind(-1)
        return torch.atan2(sin, cos)


def circular_probe(
    x: Float[Tensor, "n d"], steps: Int[Tensor, " n"], period: int, penalty: float = 1e-3
) -> CircularProbe:
    """Fit a point on the unit circle to each activation: step s of a round of ``period`` steps is at 2π s / period.

    Minimises  mean(|x @ weights + bias - (cos, sin)|²) + penalty · s² · |weights|²,  where s² is the variance (with n)
    of the entries of x about their column's mean, averaged over columns, as in ``least_squares_probe``; the bias is not
    penalised.

    Args:
        x: Activations, at least two different ones.
        steps: The step that each belongs to; any integers, of which only the remainder by ``period`` matters.
        period: How many steps go round, at least 3.
        penalty: Above 0.

    Returns:
        The probe, of x's dtype.

    Raises:
        ValueError: If ``period`` is below 3.

    Source: Engels et al. (2024), "Not All Language Model Features Are One-Dimensionally Linear". The penalty
    is ours.
    """
    if period < 3:
        raise ValueError(f"a round has at least 3 steps, got {period}")
    angles = 2 * math.pi * steps.double() / period
    targets = torch.stack([angles.cos(), angles.sin()], dim=1)
    centre = x.double().mean(0)
    centred = x.double() - centre
    covariance = centred.T @ centred / len(x)
    ridge = penalty * covariance.diagonal().mean() * torch.eye(len(centre), dtype=torch.double)
    weights = torch.linalg.solve(covariance + ridge, centred.T @ (targets - targets.mean(0)) / len(x))
    return CircularProbe(weights.to(x.dtype), (targets.mean(0) - centre @ weights).to(x.dtype))


def rotate_in_plane(
    x: Float[Tensor, "*batch d"], plane: Float[Tensor, "2 d"], angle: float, centre: Float[Tensor, "d"]
) -> Float[Tensor, "*batch d"]:
    """Turn activations about a point in a plane, and leave all that is outside the plane as it is.

    Args:
        x: Activations, of any number of dimensions.
        plane: Two directions of length 1 at right angles.
        angle: In radians; a positive one turns the first direction towards the second.
        centre: The point that stays.

    Returns:
        Activations of the shape and dtype of x.

    Raises:
        ValueError: If an entry of ``plane @ plane.T`` is more than 0.001 off those of the identity.
    """
    if bool(((plane @ plane.T - torch.eye(2, dtype=plane.dtype)).abs() > 1e-3).any()):
        raise ValueError("the two directions of the plane are not of length 1 and at right angles")
    first, second = ((x - centre) @ plane.T).unbind(-1)
    cos, sin = math.cos(angle), math.sin(angle)
    turned = torch.stack([cos * first - sin * second, sin * first + cos * second], dim=-1)
    return x + (turned - torch.stack([first, second], dim=-1)) @ plane


def ring_score(points: Float[Tensor, "n d"], frequency: int = 1) -> Float[Tensor, ""]:
    """The share of the points' variance that a walk round a circle explains, in the order in which they are given.

    With m(f) = Σ_a x_a exp(-2πi f a / n), the vector of Fourier coefficients at frequency f, it is

        2 |m(frequency)|² / (|m(1)|² + … + |m(n - 1)|²).

    It is 1 for a regular polygon whose corners are given in order, and for any other ellipse walked through in such
    steps. Points in random order have 2 / (n - 1) on average.

    Args:
        points: In the order of the round; the last is followed by the first. Not all equal.
        frequency: How many times the points go round, from 1 to (n - 1) // 2.

    Returns:
        A number from 0 to 1.

    Raises:
        ValueError: If ``frequency`` is not from 1 to (n - 1) // 2, which also asks for three points.

    Source: Nanda et al. (2023), "Progress Measures for Grokking", for the Fourier basis.
    """
    n = len(points)
    if not 1 <= frequency <= (n - 1) // 2:
        raise ValueError(f"with {n} points a frequency is from 1 to {(n - 1) // 2}, got {frequency}")
    power = torch.fft.fft(points - points.mean(0), dim=0).abs().square().sum(1)
    return 2 * power[frequency] / power[1:].sum()


def frequency_plane(points: Float[Tensor, "n d"], frequency: int) -> Float[Tensor, "2 d"]:
    """Two directions of length 1 at right angles between which points turn, the first towards the second, in order.

    They are the pair nearest to the waves' own, which need not be of one length and at right angles.
    """
    turns = 2 * math.pi * frequency * torch.arange(len(points), dtype=points.dtype) / len(points)
    waves = torch.stack([turns.cos(), turns.sin()]) @ (points - points.mean(0))
    left, _, right = torch.linalg.svd(waves, full_matrices=False)
    return left @ right
