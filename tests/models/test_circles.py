"""Measures of circles, on points whose circles are known."""

import math

import pytest
import torch

from utils.models.circles import fourier_power, frequency_plane, principal_plane, remove_frequencies, ring


def circle(p, frequency, radius=1.0):
    angles = 2 * math.pi * frequency * torch.arange(p, dtype=torch.float64) / p
    return radius * torch.stack([angles.cos(), angles.sin()], dim=1)


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(5)


@pytest.fixture
def two_circles(rng):
    """Frequency 4 with radius 2 and frequency 9 with radius 1, in two orthogonal planes of twelve dimensions."""
    axes, _ = torch.linalg.qr(torch.randn(12, 4, generator=rng, dtype=torch.float64))
    return circle(23, 4, radius=2.0) @ axes[:, :2].T + circle(23, 9) @ axes[:, 2:].T + 3.0


def test_power_is_the_square_of_the_radius(two_circles):
    power = fourier_power(two_circles)
    assert power.shape == (11,)
    assert power[3].item() == pytest.approx(0.8) and power[8].item() == pytest.approx(0.2)
    assert power.sum().item() == pytest.approx(1.0)


def test_removing_a_circle_leaves_the_other_and_the_mean(two_circles):
    rest = remove_frequencies(two_circles, [4])
    assert fourier_power(rest)[8].item() == pytest.approx(1.0)
    torch.testing.assert_close(rest.mean(dim=0), two_circles.mean(dim=0))
    torch.testing.assert_close(remove_frequencies(two_circles, []), two_circles)


def test_the_principal_plane_holds_the_larger_circle(two_circles):
    found = ring(principal_plane(two_circles))
    assert found.frequency == 4
    assert found.share == pytest.approx(1.0) and found.radius_cv == pytest.approx(0.0, abs=1e-6)
    assert found.angle_error == pytest.approx(0.0, abs=1e-6)


def test_the_plane_of_a_frequency_holds_its_circle(two_circles):
    found = ring(frequency_plane(two_circles, 9))
    assert (found.frequency, round(found.share, 6)) == (9, 1.0)


def test_direction_and_turning_of_the_plane_do_not_matter(rng):
    plane = circle(17, 5) + 0.2 * torch.randn(17, 2, generator=rng, dtype=torch.float64)
    turn, _ = torch.linalg.qr(torch.randn(2, 2, generator=rng, dtype=torch.float64))
    for other in (plane @ turn, plane.flip(1), 7 * plane + 1):
        assert tuple(ring(other)) == pytest.approx(tuple(ring(plane)))


def test_an_ellipse_is_less_of_a_circle():
    ellipse = circle(31, 2) * torch.tensor([3.0, 1.0])
    found = ring(ellipse)
    assert found.share == pytest.approx((3 + 1) ** 2 / (2 * (3**2 + 1**2)))  # the two rotations that it is the sum of
    assert found.radius_cv > 0.2


def test_the_order_counts(rng):
    shuffled = circle(31, 2)[torch.randperm(31, generator=rng)]
    found = ring(shuffled)
    assert found.radius_cv == pytest.approx(0.0, abs=1e-6)
    assert found.share < 0.4 and found.angle_error > 30


def test_random_points_have_the_share_that_the_docstring_says(rng):
    shares = [ring(torch.randn(59, 2, generator=rng)).share for _ in range(300)]
    assert sum(shares) / 300 == pytest.approx(math.log(59) / 59, rel=0.3)


def test_a_fitted_plane_shows_a_ring_for_random_points(rng):
    points = torch.randn(59, 512, generator=rng)
    assert ring(frequency_plane(points, 7)).share > 0.7
    assert ring(principal_plane(points)).share < 0.4


@pytest.mark.parametrize("n", [1, 2, 8])
def test_an_even_number_of_points_is_refused(n):
    for function in (fourier_power, ring):
        with pytest.raises(ValueError, match=f"odd number of points, at least 3, got {n}"):
            function(torch.zeros(n, 2))


@pytest.mark.parametrize("frequency", [0, 4, -1])
def test_a_frequency_that_there_is_not_is_refused(frequency):
    with pytest.raises(ValueError, match=r"frequencies modulo 7 run from 1 to 3, got \[" + str(frequency)):
        remove_frequencies(torch.zeros(7, 2), [frequency])


def test_points_outside_a_plane_are_refused():
    with pytest.raises(ValueError, match=r"must be \[p, 2\], got \(7, 3\)"):
        ring(torch.zeros(7, 3))
