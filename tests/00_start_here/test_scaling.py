"""Checks of the two fits with which chapter 00 extrapolates losses."""

import math
from typing import NamedTuple

import torch

from utils.course.checking import expect, expect_close, expect_raises


class PowerLaw(NamedTuple):
    """What is expected of a fit, with names for its two parts."""

    scale: float
    exponent: float


class Sigmoid(NamedTuple):
    midpoint: float
    steepness: float


def sizes(rng, n):
    """n different positive numbers over about three decades, in no order."""
    return 10 ** (1 + torch.arange(n) * 3 / n + 0.5 * torch.rand(n, generator=rng))[torch.randperm(n, generator=rng)]


def expect_float64(actual, expected):
    """Expect the right numbers, and then all of their digits: how float32 rounds depends on the order of operations."""
    expect_close(actual, expected, rtol=1e-4)
    expect(
        all(math.isclose(a, b, rel_tol=1e-9) for a, b in zip(actual, expected, strict=True)),
        "Only the first digits are right: part of the computation is in float32.",
        actual="the digits of float32",
        returned=str(actual),
        expected=str(tuple(expected)),
    )


def uniform(rng, low, high):
    return low + (high - low) * torch.rand((), generator=rng, dtype=torch.float64).item()


def power_law(x, scale, exponent):
    return scale * x.double() ** exponent


def sigmoid(x, midpoint, steepness, low, high):
    return low + (high - low) / (1 + (x.double() / midpoint) ** steepness)


class TestFitPowerLaw:
    exercise = "fit_power_law"

    def test_exact(self, answer, rng):
        "points on a power law give back its scale and exponent"
        for n, exponent in ((2, -uniform(rng, 0.1, 0.6)), (7, uniform(rng, 0.2, 0.9)), (5, -uniform(rng, 1.1, 1.5))):
            scale, x = uniform(rng, 2, 9), sizes(rng, n).double()
            expect_close(
                answer(x, power_law(x, scale, exponent)),
                PowerLaw(scale, exponent),
                rtol=1e-6,
                note=f"These {n} points lie on y = {scale:.4g} * x**{exponent:.4g} exactly.",
            )

    def test_noise(self, answer, reference, rng):
        "scattered points give the line of least squares in log y against log x"
        for n in (4, 9):
            x = sizes(rng, n).double()
            x[-1] = x[0]  # a size measured twice
            y = power_law(x, 8.0, -0.3) * torch.randn(n, generator=rng, dtype=torch.float64).mul(0.3).exp()
            expected = PowerLaw(*reference(x, y))
            expect_close(answer(x, y), expected, rtol=1e-6, note="These points scatter around a power law.")

    def test_units(self, answer, rng):
        "counting x in thousands changes the scale and leaves the exponent alone"
        x = sizes(rng, 6).double()
        y = power_law(x, 5.0, -0.4) * torch.randn(6, generator=rng, dtype=torch.float64).mul(0.2).exp()
        scale, exponent = answer(x, y)
        expected = PowerLaw(float(scale) * 1000 ** float(exponent), float(exponent))
        expect_close(
            answer(x / 1000, y),
            expected,
            rtol=1e-6,
            note="With x in thousands the exponent stays what it was, and the scale is multiplied by 1000**exponent.",
        )

    def test_inputs(self, answer, reference, rng):
        "integer x and float32 y are fitted in float64; two floats come back"
        x = (10**6 * sizes(rng, 5).double()).long()  # more digits than float32 holds
        y = (power_law(x, 7.0, -0.2) * torch.randn(5, generator=rng).mul(0.2).exp()).float()
        fitted = answer(x, y)
        expect(
            isinstance(fitted, tuple) and all(isinstance(number, float) for number in fitted),
            "Return a tuple of two Python floats; `.item()` turns a tensor of one number into one.",
            actual=[type(number).__name__ for number in fitted],
            expected="['float', 'float']",
        )
        expect_float64(fitted, PowerLaw(*reference(x, y)))

    def test_bad_input(self, answer, rng):
        "numbers without a logarithm are refused"
        x, y = sizes(rng, 4).double(), torch.rand(4, generator=rng).double() + 1
        expect_raises(ValueError, answer, x, y - y.max())
        expect_raises(ValueError, answer, x - x.min(), y)
        expect_raises(ValueError, answer, x, -y)

    def test_no_line(self, answer, rng):
        "lists that do not match and a single x are refused"
        x, y = sizes(rng, 4).double(), torch.rand(4, generator=rng).double() + 1
        expect_raises(ValueError, answer, x[:3], y)
        expect_raises(ValueError, answer, x[:1], y[:1])
        expect_raises(ValueError, answer, x[:1].repeat(2), y[:2])
        expect_raises(ValueError, answer, torch.full((5,), 7.0).double(), torch.cat([y, y[:1]]))
        expect_raises(ValueError, answer, x, y[:, None])


class TestFitSigmoid:
    exercise = "fit_sigmoid"

    def test_exact(self, answer, rng):
        "points on a sigmoid give back its midpoint and steepness"
        for n, low, high in ((2, 1.5, 6.0), (7, 0.0, 1.0), (5, -2.0, 3.0)):
            midpoint, steepness, x = uniform(rng, 30, 900), uniform(rng, 0.3, 0.9), sizes(rng, n).double()
            expect_close(
                answer(x, sigmoid(x, midpoint, steepness, low, high), low=low, high=high),
                Sigmoid(midpoint, steepness),
                rtol=1e-6,
                note=f"These {n} points lie on a sigmoid from {high} down to {low}, with its midpoint at "
                f"{midpoint:.4g} and a steepness of {steepness:.4g}.",
            )

    def test_rising(self, answer, rng):
        "a curve that rises has a negative steepness and the same midpoint"
        x, midpoint, steepness = sizes(rng, 6).double(), uniform(rng, 30, 900), -uniform(rng, 0.3, 0.9)
        expect_close(
            answer(x, sigmoid(x, midpoint, steepness, 0.2, 0.9), low=0.2, high=0.9),
            Sigmoid(midpoint, steepness),
            rtol=1e-6,
            note="This curve rises from 0.2 to 0.9.",
        )

    def test_noise(self, answer, reference, rng):
        "scattered points give the line of least squares through the logarithms of the odds"
        for n, low, high in ((4, 1.0, 7.0), (9, 0.1, 0.8)):
            x = sizes(rng, n).double()
            odds = (x / 150) ** 0.6 * torch.randn(n, generator=rng, dtype=torch.float64).mul(0.3).exp()
            y = low + (high - low) / (1 + odds)
            expect_close(
                answer(x, y, low=low, high=high),
                Sigmoid(*reference(x, y, low=low, high=high)),
                rtol=1e-6,
                note="These points scatter around a sigmoid.",
            )

    def test_half_way(self, answer, rng):
        "points that mirror each other have the midpoint between them"
        x, steepness = sizes(rng, 3).double().sort().values, uniform(rng, 0.4, 0.8)
        middle = x[1].item()
        y = sigmoid(x, middle, steepness, 2.0, 5.0)
        found = answer(torch.cat([x, middle**2 / x]), torch.cat([y, 7.0 - y]), low=2.0, high=5.0)
        expect_close(
            found[0],
            middle,
            rtol=1e-6,
            note="The points lie symmetrically around one x, at which y is half-way between low and high.",
        )

    def test_inputs(self, answer, reference, rng):
        "integer x and float32 y are fitted in float64; two floats come back"
        x = (10**6 * sizes(rng, 5).double()).long()  # more digits than float32 holds
        odds = (x / 5e7) ** 0.5 * torch.randn(5, generator=rng).mul(0.2).exp()
        y = 1 + 5 / (1 + odds)
        fitted = answer(x, y, low=1.0, high=6.0)
        expect(
            isinstance(fitted, tuple) and all(isinstance(number, float) for number in fitted),
            "Return a tuple of two Python floats.",
            actual=[type(number).__name__ for number in fitted],
            expected="['float', 'float']",
        )
        expect_float64(fitted, Sigmoid(*reference(x, y, low=1.0, high=6.0)))

    def test_bad_input(self, answer, rng):
        "a y on or outside the asymptotes, a level curve and an x of zero are refused"
        x = sizes(rng, 4).double()
        y = sigmoid(x, 100.0, 0.5, 1.0, 6.0)
        for outside in (1.0, 6.0, 7.5, 0.5):
            expect_raises(ValueError, answer, x, torch.cat([y[:3], y.new_tensor([outside])]), low=1.0, high=6.0)
        expect_raises(ValueError, answer, x, y, low=6.0, high=1.0)
        expect_raises(ValueError, answer, x, torch.full_like(y, 3.5), low=1.0, high=6.0)
        expect_raises(ValueError, answer, x, y[:1].repeat(4), low=1.0, high=6.0)
        expect_raises(ValueError, answer, x - x.min(), y, low=1.0, high=6.0)
