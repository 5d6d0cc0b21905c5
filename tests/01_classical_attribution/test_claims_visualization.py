"""What the text says about feature visualisation, computed again: the trained network, random ones, real digits."""

import pytest
import torch
import torch.nn.functional as F

from utils.attribution.visualization import (
    activation_maximization,
    deep_dream,
    diversity_loss,
    fourier_to_images,
    total_variation,
    transform_robust_visualization,
)
from utils.models.digits_cnn import digits_data, load_digits_cnn, random_digits_cnn
from utils.start.tools import record_activation

WALK = {"n_steps": 60, "step_size": 0.03}
TEN = torch.arange(10)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def logit_of(model, classes):
    return lambda images: model(images)[torch.arange(len(images)), classes]


def from_waves(z):
    return fourier_to_images(z, 8).sigmoid()


@pytest.fixture(scope="module")
def digits():
    return digits_data()


@pytest.fixture(scope="module")
def cnn():
    return load_digits_cnn().requires_grad_(False)


@pytest.fixture(scope="module")
def nearest(digits):
    def find(images):
        least, where = torch.cdist(images.flatten(1), digits.train_images.flatten(1)).min(1)
        return least, digits.train_labels[where]

    return find


def test_shuffled_pixels_are_always_rougher(digits):
    order = torch.rand(len(digits.test_images), 64, generator=seeded(0)).argsort(1)
    shuffled = digits.test_images.flatten(1).gather(1, order).view_as(digits.test_images)
    real, mixed = total_variation(digits.test_images), total_variation(shuffled)
    assert real.mean() == pytest.approx(26.7, abs=0.05) and mixed.mean() == pytest.approx(44.0, abs=0.5)
    assert (mixed > real).all() and len(real) == 445


@pytest.fixture(scope="module")
def grey():
    return 0.5 + 0.05 * torch.randn(10, 1, 8, 8, generator=seeded(1))


class TestTenDigits:
    def test_more_certain_than_of_any_training_image_and_no_digit(self, cnn, digits, nearest, grey):
        best = cnn(digits.train_images).amax(0).detach()
        assert best.mean() == pytest.approx(21.1, abs=0.1)
        held_out = nearest(digits.test_images)[0]
        assert held_out.mean() == pytest.approx(1.07, abs=0.01) and held_out.max() == pytest.approx(2.01, abs=0.01)
        for weights, logit, roughness, distance in (
            ({}, 32.3, 41.8, 3.50),
            ({"tv_weight": 0.6, "l2_weight": 0.3}, 22.5, 18.4, 2.30),
        ):
            images, _ = activation_maximization(logit_of(cnn, TEN), grey, **WALK, **weights)
            assert cnn(images).softmax(-1).diagonal().min() > 0.99
            assert cnn(images).diagonal().mean() == pytest.approx(logit, abs=1)
            assert total_variation(images).mean() == pytest.approx(roughness, abs=2)
            assert nearest(images)[0].mean() == pytest.approx(distance, abs=0.15)
            assert (nearest(images)[1] == TEN).sum() >= 9

    def test_a_random_network_s_images_are_nearest_to_the_right_digit_by_chance(self, nearest, grey):
        """Ten networks: 100 images, of which ten would be right by chance."""
        right = 0
        for seed in range(10):
            images, _ = activation_maximization(logit_of(random_digits_cnn(seed), TEN), grey, **WALK)
            right += int((nearest(images)[1] == TEN).sum())
        assert right <= 25


def test_noise_becomes_an_eight_in_ten_steps(cnn, nearest):
    noise, eights = torch.rand(100, 1, 8, 8, generator=seeded(2)), torch.full((100,), 8)
    shares = {}
    for n_steps in (3, 10, 20):
        images, _ = activation_maximization(logit_of(cnn, eights), noise, n_steps=n_steps, step_size=0.03)
        shares[n_steps] = float((cnn(images).softmax(-1)[:, 8] > 0.9999).float().mean())
        if n_steps == 10:
            assert nearest(images)[0].mean() == pytest.approx(3.37, abs=0.1)
            assert (nearest(images)[1] == 8).float().mean() == pytest.approx(0.94, abs=0.05)
            assert (images - noise).pow(2).mean().sqrt() == pytest.approx(0.23, abs=0.02)
    assert shares[3] > 0 and shares[10] == pytest.approx(0.92, abs=0.05) and shares[20] == 1


def test_neighbours_in_images_made_of_waves():
    coefficients = torch.randn(1, 1, 48, 25, 2, generator=seeded(3))
    for decay, expected in ((0.0, -0.01), (1.0, 0.66), (2.0, 0.97)):
        image = fourier_to_images(coefficients, 48, decay=decay)
        flat = image - image.mean()
        assert (flat[..., 1:] * flat[..., :-1]).mean() / flat.pow(2).mean() == pytest.approx(expected, abs=0.01)


@pytest.fixture(scope="module")
def drawn(cnn):
    fifty = TEN.repeat(5)
    starts = {
        "pixels": (0.2 * torch.randn(50, 1, 8, 8, generator=seeded(4)), torch.sigmoid, 0.2),
        "waves": (0.2 * torch.randn(50, 1, 8, 5, 2, generator=seeded(5)), from_waves, 0.1),
    }
    return {
        (name, shift): transform_robust_visualization(
            logit_of(cnn, fifty), start, to_images, max_shift=shift, n_steps=40, step_size=size, generator=seeded(6)
        )[0]
        for name, (start, to_images, size) in starts.items()
        for shift in (0, 1)
    }


class TestJitter:
    def test_jitter_trades_the_logit_in_its_place_for_the_logits_around(self, cnn, drawn):
        objective, moved = logit_of(cnn, TEN.repeat(5)), {}
        for key, here, around in (
            (("pixels", 0), 32.7, 13.7),
            (("pixels", 1), 24.8, 16.0),
            (("waves", 0), 31.9, 14.7),
            (("waves", 1), 25.4, 16.6),
        ):
            moved[key] = torch.stack([objective(drawn[key].roll(s, d)) for s in (-1, 1) for d in (2, 3)]).mean(0)
            assert objective(drawn[key]).mean() == pytest.approx(here, abs=0.5)
            assert moved[key].mean() == pytest.approx(around, abs=0.5)
        for name in ("pixels", "waves"):
            assert moved[name, 1].view(5, 10).mean(1).min() > moved[name, 0].view(5, 10).mean(1).max()

    def test_smoother_and_no_more_like_digits(self, drawn, nearest):
        rough = {key: float(total_variation(images).mean()) for key, images in drawn.items()}
        assert rough["waves", 1] == pytest.approx(27.3, abs=1)
        assert rough["pixels", 0] > rough["waves", 0] > rough["waves", 1]
        assert rough["pixels", 1] > rough["waves", 1]
        right = {key: float((nearest(images)[1] == TEN.repeat(5)).float().mean()) for key, images in drawn.items()}
        assert right["pixels", 0] == 1 and right["waves", 1] == pytest.approx(0.86, abs=0.07)
        assert nearest(drawn["waves", 1])[0].mean() > nearest(drawn["pixels", 0])[0].mean() - 0.1

    def test_a_random_network_s_images_are_as_smooth_and_right_by_chance(self, drawn, nearest):
        images = []
        for seed in range(5):
            start = 0.2 * torch.randn(50, 1, 8, 5, 2, generator=seeded(5))[10 * seed : 10 * seed + 10]
            images.append(
                transform_robust_visualization(
                    logit_of(random_digits_cnn(seed), TEN),
                    start,
                    from_waves,
                    max_shift=1,
                    n_steps=40,
                    step_size=0.1,
                    generator=seeded(6),
                )[0]
            )
        assert max(total_variation(part).mean() for part in images) > total_variation(drawn["waves", 1]).mean() - 1.5
        assert (nearest(torch.cat(images))[1] == TEN.repeat(5)).float().mean() < 0.3


def test_a_channel_has_more_than_one_way_of_being_on(cnn, digits):
    with torch.no_grad():
        of_digits = record_activation(cnn, "relu3", digits.train_images).mean((2, 3))
    channel = int(of_digits.std(0).argmax())
    by_digit = torch.stack([of_digits[digits.train_labels == digit, channel].mean() for digit in range(10)])
    assert by_digit.argmax() == 7 and by_digit.max() == pytest.approx(1.18, abs=0.01) and by_digit.min() > 0.6
    assert of_digits[:, channel].topk(6).values.mean() == pytest.approx(1.56, abs=0.01)
    found = {}
    for weight in (0.0, 10.0):

        def objective(images, weight=weight):
            maps = record_activation(cnn, "relu3", images)
            return maps[:, channel].mean((1, 2)) - weight * diversity_loss(maps)

        start = 0.5 * torch.randn(6, 1, 8, 5, 2, generator=seeded(7))
        images, _ = transform_robust_visualization(
            objective, start, from_waves, max_shift=1, n_steps=80, step_size=0.1, generator=seeded(8)
        )
        maps = record_activation(cnn, "relu3", images).detach()
        found[weight] = (float(maps[:, channel].mean()), float(diversity_loss(maps)))
    assert found[0.0] == pytest.approx((2.38, 0.96), abs=0.1)
    assert found[10.0] == pytest.approx((1.68, 0.75), abs=0.15)
    assert found[10.0][1] < found[0.0][1] - 0.1


def test_dreams_of_a_trained_and_of_a_random_network_grow_alike(cnn, digits):
    picture = F.interpolate(digits.test_images[8:9], size=(32, 32), mode="bilinear", align_corners=False)
    for model, expected in ((cnn, (2.3, 2.2, 3.3)), (random_digits_cnn(0), (2.3, 2.3, 2.3))):
        for layer, growth in zip(("relu1", "relu2", "relu3"), expected, strict=True):

            def maps(images, model=model, layer=layer):
                return record_activation(model, layer, images)

            dreamt = deep_dream(maps, picture, n_octaves=3, octave_scale=1.5, n_steps=8, step_size=0.03)
            with torch.no_grad():
                assert maps(dreamt).pow(2).mean() / maps(picture).pow(2).mean() == pytest.approx(growth, abs=0.25)
