"""Chapter 00's claims about forecasts, on the losses that ship."""

import math

import pytest
import torch

from utils.models.size_variants import load_size_variants
from utils.start.scaling import fit_power_law, fit_sigmoid

FLOORS = [i / 10 for i in range(65)]


@pytest.fixture(scope="module")
def runs():
    variants = load_size_variants()
    return [v for v in variants if v.seed == 0], [v for v in variants if v.seed == 1]


def fitted(kind, x, y, at, d_vocab, floors=FLOORS):
    """Error of the best floor (root mean square, nats) and the value at ``at``."""
    high = math.log(d_vocab)

    def curve(floor, at):
        if kind == "power law":
            scale, exponent = fit_power_law(x, y - floor)
            return floor + scale * at.double() ** exponent
        midpoint, steepness = fit_sigmoid(x, y, low=floor, high=high)
        return floor + (high - floor) / (1 + (at.double() / midpoint) ** steepness)

    errors = {f: (curve(f, x) - y).pow(2).mean().sqrt().item() for f in floors if f < y.min() - 0.02}
    floor = min(errors, key=errors.get)
    return errors[floor], curve(floor, at).item()


def test_three_curves_that_fit_five_sizes_alike_forecast_different_losses(runs):
    first, again = runs
    size = torch.tensor([v.parameters_without_embeddings for v in first])
    loss = torch.tensor([v.losses[-1] for v in first], dtype=torch.float64)
    x, y, d_vocab = size[:5], loss[:5], first[0].d_vocab
    straight, straight_forecast = fitted("power law", x, y, size[-1], d_vocab, floors=[0.0])
    power, power_forecast = fitted("power law", x, y, size[-1], d_vocab)
    sigmoid, sigmoid_forecast = fitted("sigmoid", x, y, size[-1], d_vocab)
    gaps = torch.tensor([a.losses[-1] - b.losses[-1] for a, b in zip(first, again, strict=False)])
    between_seeds = (gaps.square().mean() / 2).sqrt().item()
    assert max(straight, power, sigmoid) < between_seeds
    assert abs(power - sigmoid) < 0.01 < straight - power
    assert straight_forecast + 0.1 < loss[-1] < power_forecast - 0.1 < sigmoid_forecast - 0.1


@pytest.mark.parametrize("seed", [0, 1])
def test_along_training_the_curve_that_fits_better_forecasts_worse(runs, seed):
    run = runs[seed][0]
    tokens, loss = torch.tensor(run.tokens[:-1]), torch.tensor(run.losses[:-1], dtype=torch.float64)
    early = (tokens < 80_000) & (loss < math.log(run.d_vocab))
    (power, power_forecast), (sigmoid, sigmoid_forecast) = (
        fitted(kind, tokens[early], loss[early], tokens[-1], run.d_vocab) for kind in ("power law", "sigmoid")
    )
    assert sigmoid < 0.8 * power
    assert abs(sigmoid_forecast - loss[-1]) > 1 > 3 * abs(power_forecast - loss[-1])
