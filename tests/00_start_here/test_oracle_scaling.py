"""Chapter 00's fits against scipy's regression and its general least-squares solver."""

import secrets

import numpy as np
import pytest
import torch
from scipy import optimize, special, stats

from utils.start.scaling import fit_power_law, fit_sigmoid

LOW, HIGH = 1.2, 6.5


def noise(n):
    seed = secrets.randbelow(2**31)
    print(f"seed {seed}")
    return np.random.default_rng(seed).normal(scale=0.2, size=n)


def sizes(n):
    return np.geomspace(900, 8e5, n)


def test_a_scattered_power_law_is_fitted_as_by_scipy():
    x = sizes(8)
    y = 9.0 * x**-0.14 * np.exp(noise(8))
    scale, exponent = fit_power_law(torch.tensor(x), torch.tensor(y))
    line = stats.linregress(np.log(x), np.log(y))
    assert (scale, exponent) == pytest.approx((np.exp(line.intercept), line.slope), rel=1e-9)
    found = optimize.least_squares(lambda p: p[0] + p[1] * np.log(x) - np.log(y), (1.0, 0.0), xtol=1e-12, ftol=1e-12)
    assert (scale, exponent) == pytest.approx((np.exp(found.x[0]), found.x[1]), rel=1e-5)


def test_a_scattered_sigmoid_is_fitted_as_by_scipy():
    x = sizes(9)
    y = LOW + (HIGH - LOW) * special.expit(-0.5 * np.log(x / 5e3) + noise(9))
    midpoint, steepness = fit_sigmoid(torch.tensor(x), torch.tensor(y), low=LOW, high=HIGH)
    found = optimize.least_squares(
        lambda p: -p[1] * (np.log(x) - p[0]) - special.logit((y - LOW) / (HIGH - LOW)), (8.0, 1.0), xtol=1e-12
    )
    assert (midpoint, steepness) == pytest.approx((np.exp(found.x[0]), found.x[1]), rel=1e-5)


def test_curves_without_noise_are_those_that_scipy_finds_in_the_space_of_y():
    x = sizes(7)
    y = 9.0 * x**-0.14
    found, _ = optimize.curve_fit(lambda x, scale, exponent: scale * x**exponent, x, y, p0=(5.0, -0.1))
    assert fit_power_law(torch.tensor(x), torch.tensor(y)) == pytest.approx(tuple(found), rel=1e-5)

    def sigmoid(x, log_midpoint, steepness):
        return LOW + (HIGH - LOW) * special.expit(-steepness * (np.log(x) - log_midpoint))

    found, _ = optimize.curve_fit(sigmoid, x, sigmoid(x, 9.0, 0.6), p0=(8.0, 1.0))
    fitted = fit_sigmoid(torch.tensor(x), torch.tensor(sigmoid(x, 9.0, 0.6)), low=LOW, high=HIGH)
    assert fitted == pytest.approx((np.exp(found[0]), found[1]), rel=1e-5)


def test_far_beyond_its_midpoint_a_sigmoid_is_a_power_law_above_its_floor():
    x = torch.logspace(6, 9, 7, dtype=torch.float64)
    y = LOW + (HIGH - LOW) / (1 + (x / 10.0) ** 0.6)
    _, exponent = fit_power_law(x, y - LOW)
    assert exponent == pytest.approx(-0.6, abs=1e-3)


def test_a_level_curve_has_no_midpoint():
    with pytest.raises(ValueError, match="different y"):
        fit_sigmoid(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 3.0]), low=0.0, high=5.0)
