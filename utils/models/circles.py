"""Circles in activations: which frequency, how round, and what is left without it.

Everything is about points x_0 … x_(p-1), one for each residue modulo an odd p. A circle of frequency k is
x_a = r (cos 2πka/p, sin 2πka/p) in some plane; frequencies run from 1 to (p - 1) / 2.
"""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor


class Ring(NamedTuple):
    """How much points in a plane are a circle that is walked through in even steps.

    Attributes:
        frequency: Of the best-fitting circle.
        share: Part of the points' variance in the plane that this circle is; 1 for a perfect one. The best of p - 1
            circles fits even random points a little, about (ln p) / p.
        radius_cv: Standard deviation of the distances from the centre, divided by their mean.
        angle_error: Mean absolute difference from the angles of that circle, in degrees.
    """

    frequency: int
    share: float
    radius_cv: float
    angle_error: float


def fourier_power(points: Float[Tensor, "p d"]) -> Float[Tensor, " frequency"]:
    """Share of the points' variance at each frequency; entry i belongs to frequency i + 1.

    Raises:
        ValueError: If p is even or below 3.
    """
    _need_odd(points)
    power = torch.fft.rfft(points, dim=0)[1:].abs().square().sum(dim=-1)
    return power / power.sum()


def remove_frequencies(points: Float[Tensor, "p d"], frequencies: list[int]) -> Float[Tensor, "p d"]:
    """The points without their components at these frequencies; everything else, their mean too, stays.

    Raises:
        ValueError: If p is even or below 3, or a frequency is not in 1 … (p - 1) / 2.
    """
    p = _need_odd(points)
    if not all(1 <= k <= p // 2 for k in frequencies):
        raise ValueError(f"frequencies modulo {p} run from 1 to {p // 2}, got {frequencies}")
    spectrum = torch.fft.rfft(points, dim=0)
    spectrum[list(frequencies)] = 0
    return torch.fft.irfft(spectrum, n=p, dim=0)


def principal_plane(points: Float[Tensor, "p d"]) -> Float[Tensor, "p 2"]:
    """Coordinates in the plane of the two first principal components, which knows nothing of the points' order."""
    centred = points - points.mean(dim=0)
    U, S, _ = torch.linalg.svd(centred, full_matrices=False)
    return U[:, :2] * S[:2]


def frequency_plane(points: Float[Tensor, "p d"], frequency: int) -> Float[Tensor, "p 2"]:
    """Coordinates in the plane that the circle of this frequency spans: it was chosen by the points' order.

    With many dimensions such a plane shows a ring for random points, too, because it was fitted to show one.

    Raises:
        ValueError: If p is even or below 3, or the frequency is not in 1 … (p - 1) / 2.
    """
    circle = points - remove_frequencies(points, [frequency])
    _, _, Vh = torch.linalg.svd(circle, full_matrices=False)
    return (points - points.mean(dim=0)) @ Vh[:2].T


def ring(plane: Float[Tensor, "p 2"]) -> Ring:
    """The circle that fits points in a plane best, in either direction of rotation.

    Raises:
        ValueError: If p is even or below 3, or the points don't lie in a plane.
    """
    p = _need_odd(plane)
    if plane.shape[1] != 2:
        raise ValueError(f"the points must be [p, 2], got {tuple(plane.shape)}")
    z = torch.complex(*(plane - plane.mean(dim=0)).double().unbind(dim=1))
    spectrum = torch.fft.fft(z)
    best = int(spectrum.abs().argmax())
    turns = best * torch.arange(p, dtype=torch.float64) / p
    rotation = torch.exp(2j * math.pi * turns) * spectrum[best].sgn()
    power, radius = spectrum.abs().square(), z.abs()
    return Ring(
        frequency=min(best, p - best),
        share=float(power[best] / power.sum()),
        radius_cv=float(radius.std(correction=0) / radius.mean()),
        angle_error=float((z / rotation).angle().abs().mean().rad2deg()),
    )


def _need_odd(points: Tensor) -> int:
    """The number of points."""
    p = len(points)
    if p < 3 or p % 2 == 0:
        raise ValueError(f"there must be an odd number of points, at least 3, got {p}")
    return p
