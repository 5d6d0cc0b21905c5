"""Feature visualisation against closed forms, numpy's Fourier transform, finite differences and invariants."""

import math

import numpy as np
import pytest
import torch

from utils.attribution.visualization import (
    activation_maximization,
    deep_dream,
    diversity_loss,
    fourier_to_images,
    total_variation,
    transform_robust_visualization,
)
from utils.models.digits_cnn import load_digits_cnn
from utils.start.tools import record_activation


def normal(seed, *shape):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.fixture(scope="module")
def cnn():
    return load_digits_cnn()


def smooth(images):
    """A smooth score of each image that no shift leaves as it is."""
    weights = torch.linspace(-1, 2, images[0].numel(), dtype=images.dtype).view_as(images[0])
    return torch.sin(2 * images * weights).flatten(1).sum(1)


def slope(function, x, direction, step=1e-6):
    """The derivative along a direction, by central differences."""
    return (function(x + step * direction) - function(x - step * direction)) / (2 * step)


class TestTotalVariation:
    @pytest.mark.parametrize("shape", [(2, 3, 5, 4), (1, 1, 1, 6), (3, 2, 4, 1)])
    def test_numpy(self, shape):
        images = normal(0, *shape)
        expected = sum(np.abs(np.diff(images.numpy(), axis=axis)).sum(axis=(1, 2, 3)) for axis in (2, 3))
        torch.testing.assert_close(total_variation(images), torch.from_numpy(expected))

    def test_gradient(self):
        assert torch.autograd.gradcheck(total_variation, normal(1, 2, 1, 4, 3).requires_grad_())

    def test_monotone_images_cost_their_corners(self):
        rising = normal(2, 1, 1, 6, 1).sort(dim=2).values
        torch.testing.assert_close(total_variation(rising), (rising[:, 0, -1, 0] - rising[:, 0, 0, 0]))


class TestActivationMaximization:
    def test_a_linear_objective_goes_straight_into_the_corner(self):
        weights, start = normal(0, 1, 2, 3, 4), torch.rand(2, 2, 3, 4, dtype=torch.float64)
        found, scores = activation_maximization(
            lambda x: (x * weights).flatten(1).sum(1), start, n_steps=7, step_size=0.02
        )
        line = start + 7 * 0.02 * weights / weights.pow(2).mean().sqrt()
        torch.testing.assert_close(found, line.clamp(0, 1))
        torch.testing.assert_close(scores[0], (start * weights).sum((1, 2, 3)))
        corner, _ = activation_maximization(
            lambda x: (x * weights).flatten(1).sum(1), start, n_steps=400, step_size=0.1
        )
        torch.testing.assert_close(corner, (weights > 0).double().expand_as(corner))

    def test_the_step_is_the_gradient_of_the_penalised_score(self):
        start = 0.5 + 0.1 * normal(1, 1, 1, 3, 3)

        def penalised(x):
            return smooth(x) - 0.3 * total_variation(x) - 0.7 * x.pow(2).sum((1, 2, 3))

        found, _ = activation_maximization(smooth, start, n_steps=1, step_size=0.01, tv_weight=0.3, l2_weight=0.7)
        step = (found - start).flatten()
        slopes = torch.stack([slope(penalised, start, unit.view_as(start))[0] for unit in torch.eye(9).double()])
        torch.testing.assert_close(step, 0.01 * slopes / slopes.pow(2).mean().sqrt(), rtol=1e-5, atol=1e-8)

    @pytest.mark.parametrize("side", [8, 16, 32])
    def test_the_shipped_network_of_any_size_gets_surer(self, cnn, side):
        before = {name: value.clone() for name, value in cnn.state_dict().items()}
        start = 0.5 + 0.05 * torch.randn(10, 1, side, side, generator=torch.Generator().manual_seed(0))
        found, scores = activation_maximization(lambda x: cnn(x).diagonal(), start, n_steps=20, step_size=0.03)
        assert (cnn(found).diagonal() > scores[0] + 3).all() and found.min() >= 0 and found.max() <= 1
        assert all(torch.equal(value, before[name]) for name, value in cnn.state_dict().items())
        assert all(p.grad is None and p.requires_grad for p in cnn.parameters()) and not cnn._forward_hooks

    @pytest.mark.parametrize("size", [1e-40, 1e-25, 1.0, 1e19, 1e30])
    def test_a_step_is_as_long_for_any_gradient_of_float32(self, size):
        """The squares of these gradients are 0 or infinite in single precision."""
        images = torch.full((2, 1, 3, 4), 0.5)
        ascended, _ = activation_maximization(lambda x: size * x.flatten(1).sum(1), images, n_steps=1, step_size=0.125)
        options = {"max_shift": 1, "n_steps": 1, "step_size": 0.125, "generator": torch.Generator()}
        shifted, _ = transform_robust_visualization(
            lambda x: size * x.flatten(1).sum(1), images, torch.clone, **options
        )
        for found in (ascended, shifted):
            torch.testing.assert_close(found, images + 0.125)

    def test_works_without_gradients_around_it(self):
        start = torch.rand(1, 1, 4, 4, dtype=torch.float64)
        with torch.no_grad():
            inside, _ = activation_maximization(smooth, start, n_steps=3, step_size=0.05)
        outside, _ = activation_maximization(smooth, start, n_steps=3, step_size=0.05)
        assert torch.equal(inside, outside) and not outside.requires_grad


class TestFourierToImages:
    @pytest.mark.parametrize(("height", "width"), [(6, 8), (5, 7), (1, 4), (9, 2)])
    def test_numpy(self, height, width):
        coefficients = normal(0, 2, 3, height, width // 2 + 1, 2)
        f = np.hypot(np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)[None])
        spectrum = coefficients.numpy()[..., 0] + 1j * coefficients.numpy()[..., 1]
        spectrum = spectrum / np.maximum(f, 1 / max(height, width)) ** 1.3
        expected = np.fft.irfft2(spectrum, s=(height, width), norm="ortho")
        torch.testing.assert_close(fourier_to_images(coefficients, width, decay=1.3), torch.from_numpy(expected))

    def test_gradient(self):
        start = normal(1, 1, 1, 4, 3, 2).requires_grad_()
        assert torch.autograd.gradcheck(lambda z: fourier_to_images(z, 5), start)

    @pytest.mark.parametrize("decay", [0.0, 1.0, 2.0])
    def test_the_spectrum_of_random_coefficients_falls_as_asked(self, decay):
        """Power against frequency on logarithmic axes has the slope -2 * decay; its standard error here is 0.01."""
        images = fourier_to_images(normal(2, 40, 1, 64, 33, 2), 64, decay=decay)
        power = torch.fft.rfft2(images).abs().pow(2).mean((0, 1))
        f = (torch.fft.fftfreq(64)[:, None] ** 2 + torch.fft.rfftfreq(64) ** 2).sqrt().double()
        inside = (f > 0.03) & (f < 0.45) & (torch.fft.rfftfreq(64) > 0)
        x, y = f[inside].log(), power[inside].log()
        slope = ((x - x.mean()) * (y - y.mean())).sum() / ((x - x.mean()) ** 2).sum()
        assert abs(slope + 2 * decay) < 0.06


class TestTransformRobustVisualization:
    def test_without_shifts_it_is_plain_ascent(self):
        start = 0.5 + 0.1 * normal(0, 2, 1, 4, 5)
        free = (-math.inf, math.inf)
        expected = activation_maximization(smooth, start, n_steps=5, step_size=0.02, pixel_range=free)
        generator = torch.Generator().manual_seed(0)
        found = transform_robust_visualization(
            smooth, start, torch.clone, max_shift=0, n_steps=5, step_size=0.02, generator=generator
        )
        torch.testing.assert_close(found, expected)

    def test_a_shifted_linear_objective_is_climbed_along_the_shifted_weights(self):
        weights, start = normal(1, 4, 5), normal(2, 1, 1, 4, 5)
        found, scores = transform_robust_visualization(
            lambda x: (x * weights).sum((1, 2, 3)),
            start,
            torch.clone,
            max_shift=2,
            n_steps=30,
            step_size=0.1,
            generator=torch.Generator().manual_seed(3),
        )
        generator, expected = torch.Generator().manual_seed(3), start[0, 0].clone()
        for n in range(30):
            down, right = torch.randint(-2, 3, (2,), generator=generator).tolist()
            rows, columns = (torch.arange(4) + down) % 4, (torch.arange(5) + right) % 5
            back = weights[rows][:, columns]  # pixel (i, j) stands at (i + down, j + right) when it is scored
            assert float(scores[n, 0]) == pytest.approx(float((expected * back).sum()))
            expected = expected + 0.1 * back / weights.pow(2).mean().sqrt()
        torch.testing.assert_close(found[0, 0], expected)


class TestDiversityLoss:
    def test_numpy(self):
        activations = normal(0, 4, 3, 5, 2)
        grams = [(a.reshape(3, 10) @ a.reshape(3, 10).T).ravel() for a in activations.numpy()]
        pairs = [
            a @ b / np.sqrt(a @ a) / np.sqrt(b @ b) for i, a in enumerate(grams) for j, b in enumerate(grams) if i != j
        ]
        assert float(diversity_loss(activations)) == pytest.approx(np.mean(pairs))

    def test_gradient(self):
        assert torch.autograd.gradcheck(diversity_loss, normal(1, 3, 2, 2, 3).requires_grad_())

    @pytest.mark.parametrize("factor", [1e-10, 1e-7, 1e10, 1e15])
    def test_strength_does_not_matter(self, factor):
        activations = normal(2, 3, 2, 4, 4).float()
        scaled = torch.cat([activations[:2], factor * activations[2:]])
        assert float(diversity_loss(scaled)) == pytest.approx(float(diversity_loss(activations)), rel=1e-5)

    def test_between_0_and_1(self):
        """Gram matrices are positive semi-definite, so their products are never negative."""
        for seed in range(20):
            assert 0 <= diversity_loss(normal(seed, 3, 2, 3, 3)) <= 1


class TestDeepDream:
    def test_one_octave_is_ascent_on_the_mean_square(self, cnn):
        images = torch.rand(2, 1, 12, 10, generator=torch.Generator().manual_seed(0))

        def maps(x):
            return record_activation(cnn, "relu2", x)

        expected, _ = activation_maximization(
            lambda x: maps(x).pow(2).flatten(1).mean(1), images, n_steps=4, step_size=0.02
        )
        found = deep_dream(maps, images, n_octaves=1, octave_scale=1.4, n_steps=4, step_size=0.02)
        torch.testing.assert_close(found, expected)

    def test_the_sizes_that_are_seen(self):
        seen = []

        def activations(x):
            seen.append(tuple(x.shape[2:]))
            return x

        deep_dream(activations, torch.rand(1, 1, 20, 31), n_octaves=3, octave_scale=1.5, n_steps=1, step_size=0.1)
        assert seen == [(9, 14), (13, 21), (20, 31)]

    def test_without_steps_nothing_changes(self):
        images = torch.rand(2, 3, 17, 13, dtype=torch.float64)
        found = deep_dream(torch.tanh, images, n_octaves=4, octave_scale=1.3, n_steps=0, step_size=0.1)
        torch.testing.assert_close(found, images)
