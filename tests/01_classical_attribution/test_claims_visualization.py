"""What the text says about feature visualisation, computed again: the trained network, random ones, real digits.

Where an optimisation ends is decided by the last bits of its first steps, and those by the processor. So nothing here
asks for the numbers of one run: what is stated holds for each of several starts, as an order, a direction or an
interval that leaves room for other starts, and would not hold if the claim were false.
"""

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


def grey(seed):
    return 0.5 + 0.05 * torch.randn(10, 1, 8, 8, generator=seeded(seed))


class TestTenDigits:
    @pytest.mark.parametrize("start", [1, 11, 21])
    def test_more_certain_than_of_any_training_image_and_no_digit(self, cnn, digits, nearest, start):
        best = cnn(digits.train_images).amax(0).detach()
        assert best.mean() == pytest.approx(21.1, abs=0.1)
        held_out = nearest(digits.test_images)[0]
        assert held_out.mean() == pytest.approx(1.07, abs=0.01) and held_out.max() == pytest.approx(2.01, abs=0.01)
        real = total_variation(digits.test_images).mean()
        naive, penalised = (
            activation_maximization(logit_of(cnn, TEN), grey(start), **WALK, **weights)[0]
            for weights in ({}, {"tv_weight": 0.6, "l2_weight": 0.3})
        )
        for images in (naive, penalised):
            assert cnn(images).softmax(-1).diagonal().min() > 0.99
            assert (nearest(images)[1] == TEN).sum() >= 8
            assert nearest(images)[0].mean() > held_out.max(), "farther from all digits than any new digit is"
        logits = [cnn(images).diagonal().mean() for images in (naive, penalised)]
        assert logits[0] > 1.4 * best.mean() and 1.4 * best.mean() > logits[1] > best.mean()
        assert total_variation(penalised).mean() < 0.8 * real and total_variation(naive).mean() > 1.4 * real
        assert nearest(penalised)[0].mean() < nearest(naive)[0].mean() - 0.8

    def test_a_random_network_s_images_are_nearest_to_the_right_digit_by_chance(self, nearest):
        """Ten networks: 100 images, of which ten would be right by chance."""
        right = 0
        for seed in range(10):
            images, _ = activation_maximization(logit_of(random_digits_cnn(seed), TEN), grey(1), **WALK)
            right += int((nearest(images)[1] == TEN).sum())
        assert right <= 25


@pytest.mark.parametrize("seed", [2, 12, 22])
def test_noise_becomes_an_eight_in_ten_steps(cnn, digits, nearest, seed):
    noise, eights = torch.rand(100, 1, 8, 8, generator=seeded(seed)), torch.full((100,), 8)
    shares, walked = {}, {}
    for n_steps in (3, 10, 20):
        walked[n_steps], _ = activation_maximization(logit_of(cnn, eights), noise, n_steps=n_steps, step_size=0.03)
        shares[n_steps] = float((cnn(walked[n_steps]).softmax(-1)[:, 8] > 0.9999).float().mean())
    assert shares[3] < 0.15 and 0.85 < shares[10] < 0.98 and shares[20] > 0.98
    images = walked[10]
    assert nearest(images)[0].mean() > nearest(digits.test_images)[0].max() + 1
    assert (nearest(images)[1] == 8).float().mean() > 0.85 and (nearest(noise)[1] == 8).float().mean() < 0.3
    moved = (images - noise).pow(2).mean().sqrt()
    assert 0.2 < moved < 0.26 < 10 * 0.03, "about as far as ten steps of 0.03 can go"


def test_neighbours_in_images_made_of_waves():
    coefficients = torch.randn(1, 1, 48, 25, 2, generator=seeded(3))
    for decay, expected in ((0.0, -0.01), (1.0, 0.66), (2.0, 0.97)):
        image = fourier_to_images(coefficients, 48, decay=decay)
        flat = image - image.mean()
        assert (flat[..., 1:] * flat[..., :-1]).mean() / flat.pow(2).mean() == pytest.approx(expected, abs=0.01)


@pytest.fixture(scope="module", params=[0, 10], ids=["a start", "another start"])
def drawn(cnn, request):
    fifty, first = TEN.repeat(5), request.param
    starts = {
        "pixels": (0.2 * torch.randn(50, 1, 8, 8, generator=seeded(first + 4)), torch.sigmoid, 0.2),
        "waves": (0.2 * torch.randn(50, 1, 8, 5, 2, generator=seeded(first + 5)), from_waves, 0.1),
    }
    shifts = {"n_steps": 40, "generator": seeded(first + 6)}
    return {
        (name, shift): transform_robust_visualization(
            logit_of(cnn, fifty), start, to_images, max_shift=shift, step_size=size, **shifts
        )[0]
        for name, (start, to_images, size) in starts.items()
        for shift in (0, 1)
    }


class TestJitter:
    def test_jitter_trades_the_logit_in_its_place_for_the_logits_around(self, cnn, drawn):
        objective = logit_of(cnn, TEN.repeat(5))
        here = {key: float(objective(images).mean()) for key, images in drawn.items()}
        around = {
            key: torch.stack([objective(images.roll(s, d)) for s in (-1, 1) for d in (2, 3)]).mean(0)
            for key, images in drawn.items()
        }
        assert abs(here["pixels", 0] - here["waves", 0]) < 2, "waves give nearly the same logit"
        for name in ("pixels", "waves"):
            assert 0.65 < here[name, 1] / here[name, 0] < 0.88, "jitter costs about a quarter of it"
            assert around[name, 1].view(5, 10).mean(1).min() > around[name, 0].view(5, 10).mean(1).max()

    def test_smoother_and_no_more_like_digits(self, drawn, digits, nearest):
        rough = {key: float(total_variation(images).mean()) for key, images in drawn.items()}
        assert rough["pixels", 0] > rough["waves", 0] > rough["pixels", 1] > rough["waves", 1]
        assert rough["waves", 1] < 1.2 * total_variation(digits.test_images).mean()
        right = {key: float((nearest(images)[1] == TEN.repeat(5)).float().mean()) for key, images in drawn.items()}
        assert right["pixels", 0] > 0.95 and 0.7 < right["waves", 1] < right["pixels", 0]
        assert nearest(drawn["waves", 1])[0].mean() > nearest(drawn["pixels", 0])[0].mean() - 0.2

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
        of_random = torch.stack([total_variation(part).mean() for part in images])
        of_trained = total_variation(drawn["waves", 1]).view(5, 10).mean(1)
        assert of_random.max() > of_trained.min() and of_random.min() < of_trained.max(), "the intervals overlap"
        assert (nearest(torch.cat(images))[1] == TEN.repeat(5)).float().mean() < 0.3


@pytest.fixture(scope="module")
def channel(cnn, digits):
    """The channel of relu3 that varies most over the digits, and its mean activation in each training image."""
    with torch.no_grad():
        of_digits = record_activation(cnn, "relu3", digits.train_images).mean((2, 3))
    index = int(of_digits.std(0).argmax())
    return index, of_digits[:, index]


def test_the_channel_that_varies_most_is_on_for_every_digit(digits, channel):
    _, of_digits = channel
    by_digit = torch.stack([of_digits[digits.train_labels == digit].mean() for digit in range(10)])
    assert by_digit.argmax() == 7 and by_digit.max() == pytest.approx(1.18, abs=0.01) and by_digit.min() > 0.6
    assert of_digits.topk(6).values.mean() == pytest.approx(1.56, abs=0.01)


@pytest.mark.parametrize("seed", [7, 17, 27, 37])
def test_a_channel_has_more_than_one_way_of_being_on(cnn, digits, channel, seed):
    index, of_digits = channel
    active, likeness = {}, {}
    for weight in (0.0, 10.0):

        def objective(images, weight=weight):
            maps = record_activation(cnn, "relu3", images)
            return maps[:, index].mean((1, 2)) - weight * diversity_loss(maps)

        start = 0.5 * torch.randn(6, 1, 8, 5, 2, generator=seeded(seed))
        images, _ = transform_robust_visualization(
            objective, start, from_waves, max_shift=1, n_steps=80, step_size=0.1, generator=seeded(seed + 1)
        )
        maps = record_activation(cnn, "relu3", images).detach()
        active[weight], likeness[weight] = float(maps[:, index].mean()), float(diversity_loss(maps))
    assert active[0.0] > 1.3 * of_digits.topk(6).values.mean(), "more than the best training images"
    assert of_digits.mean() < active[10.0] < 0.85 * active[0.0], "charged: less, and still on"
    assert likeness[0.0] > 0.9 and likeness[10.0] < 0.85
    assert likeness[10.0] < likeness[0.0] - 0.1


@pytest.mark.parametrize("image", [8, 20])
def test_dreams_of_a_trained_and_of_a_random_network_grow_alike(cnn, digits, image):
    """Deep in the network the trained one can grow more than most random ones, and no more than the first of them."""
    picture = digits.test_images[image : image + 1]
    picture = F.interpolate(picture, size=(32, 32), mode="bilinear", align_corners=False)
    growth = {}
    for name, model in {"trained": cnn, **{seed: random_digits_cnn(seed) for seed in range(4)}}.items():
        for layer in ("relu1", "relu2", "relu3"):

            def maps(images, model=model, layer=layer):
                return record_activation(model, layer, images)

            dreamt = deep_dream(maps, picture, n_octaves=3, octave_scale=1.5, n_steps=8, step_size=0.03)
            with torch.no_grad():
                growth[name, layer] = float(maps(dreamt).pow(2).mean() / maps(picture).pow(2).mean())
    for layer in ("relu1", "relu2", "relu3"):
        of_random = [growth[seed, layer] for seed in range(4)]
        assert min(of_random) > 1.7, "any network's layer responds far more strongly to its dream"
        assert 0.85 * min(of_random) < growth["trained", layer] < 1.25 * max(of_random)
