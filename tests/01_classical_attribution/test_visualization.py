"""Checks for feature visualisation: total variation, ascent on pixels, Fourier images, shifts, diversity, DeepDream."""

import math

import torch
from torch import nn

from utils.course.checking import expect, expect_close, expect_raises, expect_same_gradients, expect_shape

# In float64 rounding is far below any mistake.
FLOAT64 = {"rtol": 1e-8, "atol": 1e-9}
# Ascent divides by the size of a gradient, and whoever adds 1e-7 to it against a division by zero is right as well.
ASCENT = {"rtol": 1e-5, "atol": 1e-5}
# `fftfreq` gives float32 unless asked, and that is no mistake: 1e-7 of waves that are some units high.
FREQUENCIES = {"rtol": 1e-5, "atol": 1e-5}
SHAPES = ((3, 2, 4, 6), (2, 1, 5, 3))
# One per cent of a step is what a docstring leaves to a number that is added against a division by zero.
WHOLE_STEP = {"rtol": 0.01, "atol": 0.0}
SIZES_OF_GRADIENTS = (1e-5, 1.0, 1e15)


def normal(rng, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=rng, dtype=dtype)


def pixels(rng, *shape):
    """Values well inside [0, 1]."""
    return 0.2 + 0.6 * torch.rand(shape, generator=rng, dtype=torch.float64)


class SmallNet(nn.Module):
    """One convolution and a tanh, for images of any size; smooth, and every place counts differently."""

    def __init__(self, rng, channels, kernels=3):
        super().__init__()
        self.kernel = nn.Parameter(normal(rng, kernels, channels, 3, 3))
        self.bias = nn.Parameter(normal(rng, kernels))
        self.mix = nn.Parameter(normal(rng, kernels, 6, 6))

    def forward(self, images):
        """What the layer makes of the images [batch, kernels, height, width]."""
        return torch.tanh(nn.functional.conv2d(images, self.kernel, self.bias, padding=1))


def score_of(net):
    """A score for each image that depends on where things are."""

    def objective(images):
        maps = net(images)
        return (maps * net.mix[:, : images.shape[2], : images.shape[3]]).flatten(1).sum(1)

    return objective


def straight_uphill(size):
    """Scores whose gradient is ``size`` at every pixel."""

    def objective(images):
        return size * images.flatten(1).sum(1)

    return objective


def wrong_scores(net):
    """Objectives that do not return one score for each of two images, in the shape [batch]; their names say what."""
    wrong = {
        "scores_of_shape_batch_pixels": lambda x: x.flatten(1),
        "scores_of_shape_batch_1": lambda x: score_of(net)(x)[:, None],
        "scores_of_shape_1": lambda x: score_of(net)(x).mean(0, keepdim=True),
        "one_score_without_a_dimension": lambda x: score_of(net)(x).sum(),
    }
    for name, objective in wrong.items():
        objective.__name__ = name
    return wrong.values()


def expect_whole_steps(steps):
    """Expect steps of 0.125 at every pixel, told by the root mean squares of the gradients that they were taken for."""
    shares = [((step / 0.125) - 1).abs().max().item() for step in steps.values()]
    tiny, first = next(iter(steps)), next(iter(steps.values()))
    if shares[1] <= 0.01 and bool((first < 0.99 * 0.125).all()) and bool((first >= 0).all()):
        expect(
            False,
            f"With a gradient whose root mean square is {tiny:g}, a step of size 0.125 was shorter than that, and with "
            "larger gradients it was not.",
            actual="no step for a tiny gradient" if not first.any() else "a short step for a tiny gradient",
            returned=f"a step of {first.mean():.3g}",
            expected="a step of 0.125, to within one per cent",
        )
    for size, step in steps.items():
        expect_close(
            step,
            torch.full_like(step, 0.125),
            note=f"With a gradient whose root mean square is {size:g}, a step of size 0.125 was of another length",
            **WHOLE_STEP,
        )


def layer_of(net):
    """Responses of some size, so that gradients are far above a number that is added to them for safety."""

    def activations(images):
        return 10 * net(images)

    return activations


def expect_untouched(net):
    left = [name for name, parameter in net.named_parameters() if parameter.grad is not None]
    expect(
        not left,
        "After your call the model's parameters carry gradients, and an optimiser that comes next would take a step "
        "along them. Ask for the gradient of the image alone.",
        actual=left,
        expected="no parameter with a .grad",
    )
    thawed = [name for name, parameter in net.named_parameters() if not parameter.requires_grad]
    expect(not thawed, "Your call froze the model's parameters and left them so.", actual=thawed)
    expect(net.training, "Your call switched the model to evaluation mode and left it so.", actual="evaluation mode")


class TestTotalVariation:
    exercise = "total_variation"

    def test_shape(self, answer, rng):
        "one number for each image"
        for shape in (*SHAPES, (4, 1, 1, 1)):
            expect_shape(answer(normal(rng, *shape)), shape[:1])

    def test_values(self, answer, reference, rng):
        "all neighbours, down and across, in all channels"
        for shape in (*SHAPES, (2, 3, 1, 5), (2, 2, 4, 1)):
            images = normal(rng, *shape)
            expect_close(answer(images), reference(images), **FLOAT64)

    def test_what_does_not_count(self, answer, rng):
        "a constant image costs nothing, and brightness does not matter"
        flat = torch.full((2, 3, 4, 5), 0.7, dtype=torch.float64)
        expect_close(answer(flat), torch.zeros(2, dtype=torch.float64), note="Nothing changes in a constant image")
        images = normal(rng, 2, 3, 4, 5)
        expect_close(
            answer(images + 3), answer(images), note="Adding 3 to all pixels changed the total variation", **FLOAT64
        )
        expect_close(
            answer(-2 * images),
            2 * answer(images),
            note="An image with twice the contrast, inverted, has twice the total variation",
            **FLOAT64,
        )

    def test_ramp_and_step(self, answer):
        "a slow ramp from 0 to 1 costs as much as a sharp edge"
        ramp = torch.linspace(0, 1, 5, dtype=torch.float64).expand(1, 1, 3, 5)
        step = (torch.arange(5) > 2).double().expand(1, 1, 3, 5)
        for images in (ramp, step, ramp.mT, step.mT):
            wanted = torch.tensor([3.0], dtype=torch.float64)
            expect_close(answer(images), wanted, note="Three rows that go from 0 to 1 cost 3, however they do it")

    def test_gradients_and_dtype(self, answer, reference, rng):
        "gradients; float32 stays float32, and the memory layout does not matter"
        expect_same_gradients(answer, reference, normal(rng, 2, 2, 4, 3), rng=rng)
        images = normal(rng, 3, 2, 5, 4, dtype=torch.float32).transpose(2, 3)
        expect_close(answer(images), reference(images), dtype=True)

    def test_equal_neighbours(self, answer, rng):
        "the gradient is finite also where neighbours are equal"
        images = torch.randint(3, (2, 2, 5, 4), generator=rng).double().requires_grad_()
        found = answer(images)
        expect_shape(found, (2,))
        expect(found.requires_grad, "No gradient reaches the images.", actual="no graph")
        (gradient,) = torch.autograd.grad(found.sum(), images)
        expect(
            gradient.isfinite().all(),
            "Some neighbours in these images are equal, and there your gradient is not a number. One such pixel makes "
            "the whole image NaN in the first step.",
            actual="gradient not finite",
            returned=f"a gradient with {int((~gradient.isfinite()).sum())} entries that are not finite",
            expected="a finite gradient",
        )

    def test_bad_shape(self, answer, rng):
        "an image without a batch dimension is refused"
        expect_raises(ValueError, answer, normal(rng, 3, 4, 5))


class TestActivationMaximization:
    exercise = "activation_maximization"

    def test_values(self, answer, reference, rng):
        "images and scores after a few steps"
        for shape in SHAPES:
            objective, images = score_of(SmallNet(rng, shape[1])), pixels(rng, *shape)
            expect_close(
                answer(objective, images, n_steps=4, step_size=0.04),
                reference(objective, images, n_steps=4, step_size=0.04),
                **ASCENT,
            )

    def test_total_variation_costs(self, answer, reference, rng):
        "total variation is a price; the scores are reported without it"
        objective, images = score_of(SmallNet(rng, 2)), pixels(rng, 2, 2, 4, 5)
        options = {"n_steps": 3, "step_size": 0.03, "tv_weight": 0.7}
        expect_close(answer(objective, images, **options), reference(objective, images, **options), **ASCENT)

    def test_squares_cost(self, answer, reference, rng):
        "so is the sum of squares, alone and together with total variation"
        objective, images = score_of(SmallNet(rng, 1)), pixels(rng, 3, 1, 5, 4)
        for weights in ({"l2_weight": 0.4}, {"tv_weight": 0.3, "l2_weight": 0.9}):
            options = {"n_steps": 4, "step_size": 0.03} | weights
            expect_close(answer(objective, images, **options), reference(objective, images, **options), **ASCENT)

    def test_images_apart(self, answer, rng):
        "an image becomes the same alone and in company"
        net, images = SmallNet(rng, 1), pixels(rng, 3, 1, 5, 4)
        size = torch.tensor([0.2, 1.0, 30.0], dtype=torch.float64)

        def objective(x):
            return score_of(net)(x) * size[: len(x)]

        together = answer(objective, images, n_steps=2, step_size=0.05)[0]
        expect_shape(together, tuple(images.shape))
        alone = answer(objective, images[:1], n_steps=2, step_size=0.05)[0]
        expect_close(
            together[:1],
            alone,
            note="The first image came out differently with two others in the batch, whose scores are larger",
            **ASCENT,
        )

    def test_uphill(self, answer, rng):
        "with small steps, every score rises at every step"
        objective, images = score_of(SmallNet(rng, 2)), pixels(rng, 3, 2, 5, 5)
        scores = answer(objective, images, n_steps=5, step_size=1e-4)[1]
        expect_shape(scores, (5, 3), "The scores should be [step, batch].")
        expect((scores.diff(dim=0) > 0).all(), "Some score fell although the steps were tiny.", actual=scores)
        expect_close(scores[0], objective(images).detach(), note="The first row should be the scores at the start")

    def test_range(self, answer, reference, rng):
        "pixels stay in the range that was asked for, at every step"
        objective, images = score_of(SmallNet(rng, 2)), pixels(rng, 2, 2, 4, 4)
        for pixel_range in ((0.0, 1.0), (-1.5, 2.0), (0.1, 0.9)):
            options = {"n_steps": 4, "step_size": 0.6, "pixel_range": pixel_range}
            # Steps this long magnify what is added to a small gradient; pixels out of range are off by far more.
            found, wanted = answer(objective, images, **options), reference(objective, images, **options)
            expect_close(found, wanted, rtol=1e-3, atol=1e-3)

    def test_sizes_of_gradients(self, answer, rng):
        "a step is as long for tiny gradients as for huge ones"
        images, steps = pixels(rng, 2, 1, 4, 5).float(), {}
        for size in SIZES_OF_GRADIENTS:
            found = answer(straight_uphill(size), images, n_steps=1, step_size=0.125)[0]
            expect_shape(found, tuple(images.shape))
            steps[size] = found - images
        expect_whole_steps(steps)

    def test_starts_out_of_range(self, answer, reference, rng):
        "the first scores are those of the images as they are given, also where these lie out of range"
        objective, images = score_of(SmallNet(rng, 1)), 3 * pixels(rng, 2, 1, 4, 4)
        for n_steps in (1, 3):
            found = answer(objective, images, n_steps=n_steps, step_size=0.05)
            expect_close(found, reference(objective, images, n_steps=n_steps, step_size=0.05), **ASCENT)

    def test_no_gradient(self, answer, rng):
        "an image that no change can improve stays as it is, and spoils no other"
        net, images = SmallNet(rng, 1), pixels(rng, 2, 1, 4, 4)

        def objective(x):
            return score_of(net)(x) * torch.tensor([0.0, 1.0], dtype=torch.float64)

        found = answer(objective, images, n_steps=2, step_size=0.05)[0]
        expect_shape(found, tuple(images.shape))
        expect_close(found[0], images[0], note="The first image's score is 0 whatever its pixels are")
        expect(found[1].isfinite().all(), "The second image is no longer finite.", actual=found[1])

    def test_model_left_alone(self, answer, rng):
        "the model keeps its mode and gets no gradients; the result has no graph"
        net = SmallNet(rng, 1)
        images, scores = answer(score_of(net), pixels(rng, 2, 1, 4, 4), n_steps=2, step_size=0.1)
        expect_untouched(net)
        expect(
            not images.requires_grad and not scores.requires_grad,
            "What you return still carries a graph: the images or the scores require gradients.",
            actual=(images.requires_grad, scores.requires_grad),
        )

    def test_bad_input(self, answer, rng):
        "a missing batch dimension, no steps, an empty range and a score too many are refused"
        objective, images = score_of(SmallNet(rng, 1)), pixels(rng, 2, 1, 4, 4)
        expect_raises(ValueError, answer, objective, images[0], n_steps=1, step_size=0.1)
        expect_raises(ValueError, answer, objective, images, n_steps=0, step_size=0.1)
        for empty in ((1.0, 0.0), (0.5, 0.5)):
            expect_raises(ValueError, answer, objective, images, n_steps=1, step_size=0.1, pixel_range=empty)
        for wrong in wrong_scores(SmallNet(rng, 1)):
            expect_raises(ValueError, answer, wrong, images, n_steps=1, step_size=0.1)


def waves(rng, batch, channels, height, width):
    """Fourier coefficients in float32, small enough for images of size one."""
    return 0.03 * normal(rng, batch, channels, height, width // 2 + 1, 2, dtype=torch.float32)


class TestFourierToImages:
    exercise = "fourier_to_images"

    def test_shape(self, answer, rng):
        "even and odd widths, from as many coefficients"
        for height, width in ((4, 6), (5, 7), (8, 3), (1, 1)):
            coefficients = waves(rng, 2, 3, height, width)
            expect_shape(answer(coefficients, width), (2, 3, height, width))

    def test_one_wave(self, answer, rng):
        "one coefficient makes one wave, of the right size"
        height, width, decay = 6, 9, 1.5
        for v, u in ((1, 2), (4, 1), (2, 3)):
            amplitude = 0.1 * normal(rng, 1).item()
            coefficients = torch.zeros(1, 1, height, width // 2 + 1, 2)
            coefficients[0, 0, v, u, 0] = amplitude
            f_y, f_x = (v if v <= height / 2 else v - height) / height, u / width
            rows, columns = torch.arange(height)[:, None], torch.arange(width)
            wave = torch.cos(2 * math.pi * (f_y * rows + f_x * columns)).double()
            wanted = 2 * amplitude / math.sqrt(height * width) / max(math.hypot(f_y, f_x), 1 / width) ** decay * wave
            expect_close(
                answer(coefficients, width, decay=decay)[0, 0],
                wanted,
                note=f"A single coefficient at row {v}, column {u} should make one cosine, of this size",
                **FREQUENCIES,
            )

    def test_values(self, answer, reference, rng):
        "all frequencies together, for several exponents"
        for height, width in ((12, 3), (4, 6), (5, 7)):
            coefficients = waves(rng, 2, 2, height, width)
            for decay in (1.0, 0.0, 1.7):
                expect_close(
                    answer(coefficients, width, decay=decay), reference(coefficients, width, decay=decay), **FREQUENCIES
                )
            expect_close(answer(coefficients, width), reference(coefficients, width), **FREQUENCIES)

    def test_round_trip(self, answer, rng):
        "with decay 0, the Fourier coefficients of an image give the image back"
        for height, width in ((6, 8), (7, 5)):
            images = normal(rng, 2, 3, height, width, dtype=torch.float32)
            coefficients = torch.view_as_real(torch.fft.rfft2(images, norm="ortho"))
            expect_close(
                answer(coefficients, width, decay=0.0),
                images,
                note="The coefficients are those that torch.fft.rfft2 with norm='ortho' gives of an image",
                **FREQUENCIES,
            )

    def test_gradients_and_dtype(self, answer, reference, rng):
        "gradients reach the coefficients; float32 stays float32"
        coefficients = normal(rng, 2, 1, 4, 3, 2, dtype=torch.float32)
        expect_same_gradients(answer, reference, coefficients, 5, rng=rng, rtol=1e-4, atol=1e-4)
        coefficients = normal(rng, 2, 1, 4, 3, 2, dtype=torch.float32).transpose(0, 1)
        expect_close(answer(coefficients, 4), reference(coefficients, 4), rtol=1e-4, atol=1e-4, dtype=True)

    def test_bad_shape(self, answer, rng):
        "coefficients that don't fit the width are refused"
        expect_raises(ValueError, answer, normal(rng, 1, 1, 4, 4, 2), 9)
        expect_raises(ValueError, answer, normal(rng, 1, 1, 4, 5, 3), 9)
        expect_raises(ValueError, answer, normal(rng, 1, 1, 4, 4), 6)


class TestTransformRobustVisualization:
    exercise = "transform_robust_visualization"

    def test_values(self, answer, reference, rng):
        "pixels behind a sigmoid, shifted by up to two places"
        for shape in SHAPES:
            objective, start = score_of(SmallNet(rng, shape[1])), normal(rng, *shape)
            options = {"max_shift": 2, "n_steps": 4, "step_size": 0.1}
            seed = int(torch.randint(2**31, (), generator=rng))
            expect_close(
                answer(objective, start, torch.sigmoid, **options, generator=torch.Generator().manual_seed(seed)),
                reference(objective, start, torch.sigmoid, **options, generator=torch.Generator().manual_seed(seed)),
                **ASCENT,
            )

    def test_other_parameters(self, answer, reference, rng):
        "parameters that are not pixels: each image a mixture of seven, or of pairs of numbers"
        mixed = normal(rng, 7, 2, 4, 5)

        def to_images(weights):
            return torch.sigmoid(weights.tanh() @ mixed.flatten(1)).unflatten(1, (2, 4, 5))

        def from_pairs(pairs):
            return torch.sigmoid(pairs[..., 0] * pairs[..., 1])

        options = {"max_shift": 1, "n_steps": 4, "step_size": 0.2}
        for start, make in ((normal(rng, 3, 7), to_images), (normal(rng, 2, 2, 4, 5, 2), from_pairs)):
            objective = score_of(SmallNet(rng, 2))
            seed = int(torch.randint(2**31, (), generator=rng))
            expect_close(
                answer(objective, start, make, **options, generator=torch.Generator().manual_seed(seed)),
                reference(objective, start, make, **options, generator=torch.Generator().manual_seed(seed)),
                **ASCENT,
            )

    def test_sizes_of_gradients(self, answer, rng):
        "a step is as long for tiny gradients as for huge ones"
        start = pixels(rng, 2, 1, 4, 5).float()
        options, steps = {"max_shift": 1, "n_steps": 1, "step_size": 0.125, "generator": rng}, {}
        for size in SIZES_OF_GRADIENTS:
            found = answer(straight_uphill(size), start, torch.clone, **options)[0]
            expect_shape(found, tuple(start.shape))
            steps[size] = found - start
        expect_whole_steps(steps)

    def test_nothing_clipped(self, answer, reference, rng):
        "parameters and images of any size"
        objective, start = score_of(SmallNet(rng, 1)), 3 * normal(rng, 2, 1, 4, 4)
        options = {"max_shift": 1, "n_steps": 2, "step_size": 0.1}
        found, wanted = (
            f(objective, start, lambda p: 2 * p, **options, generator=torch.Generator().manual_seed(4))
            for f in (answer, reference)
        )
        expect_close(found, wanted, **ASCENT)

    def test_returned_image_is_in_place(self, answer, rng):
        "with steps of length 0, what comes back is what was given, unshifted"
        start = pixels(rng, 2, 1, 5, 6)
        found = answer(
            score_of(SmallNet(rng, 1)),
            start,
            torch.clone,
            max_shift=3,
            n_steps=3,
            step_size=0.0,
            generator=torch.Generator().manual_seed(1 + int(torch.randint(2**31, (), generator=rng))),
        )[0]
        expect_close(found, start, note="The steps have length 0, and yet the returned images are not the given ones")

    def test_no_shift(self, answer, reference, rng):
        "with max_shift = 0 nothing moves, and the scores rise"
        objective, start = score_of(SmallNet(rng, 1)), normal(rng, 2, 1, 4, 4)
        options = {"max_shift": 0, "n_steps": 5, "step_size": 1e-4}
        scores = answer(objective, start, torch.sigmoid, **options, generator=torch.Generator().manual_seed(0))[1]
        expect_shape(scores, (5, 2), "The scores should be [step, batch].")
        expect((scores.diff(dim=0) > 0).all(), "Some score fell although the steps were tiny.", actual=scores)

    def test_images_apart(self, answer, rng):
        "an image becomes the same alone and in company; one without gradient stays"
        net, start = SmallNet(rng, 1), normal(rng, 3, 1, 4, 4)
        size = torch.tensor([0.1, 0.0, 20.0], dtype=torch.float64)

        def objective(x):
            return score_of(net)(x) * size[: len(x)]

        options = {"max_shift": 1, "n_steps": 2, "step_size": 0.3}
        together = answer(objective, start, torch.sigmoid, **options, generator=torch.Generator().manual_seed(5))[0]
        expect_shape(together, tuple(start.shape))
        alone = answer(objective, start[:1], torch.sigmoid, **options, generator=torch.Generator().manual_seed(5))[0]
        expect_close(together[:1], alone, note="The first image came out differently in company", **ASCENT)
        expect_close(together[1], start[1].sigmoid(), note="The second image's score is 0 whatever it shows", **ASCENT)

    def test_model_left_alone(self, answer, rng):
        "the model keeps its mode and gets no gradients; torch's global random state is not used"
        net, state = SmallNet(rng, 1), torch.get_rng_state()
        images, scores = answer(
            score_of(net),
            normal(rng, 2, 1, 4, 4),
            torch.sigmoid,
            max_shift=1,
            n_steps=2,
            step_size=0.1,
            generator=torch.Generator().manual_seed(3),
        )
        moved = not torch.equal(torch.get_rng_state(), state)
        torch.set_rng_state(state)
        expect_untouched(net)
        expect(not moved, "Your shifts come from torch's global random state; use `generator`.", actual="global state")
        expect(
            not images.requires_grad and not scores.requires_grad,
            "What you return still carries a graph: the images or the scores require gradients.",
            actual=(images.requires_grad, scores.requires_grad),
        )

    def test_bad_input(self, answer, rng):
        "a negative shift, no steps and a score too many are refused"
        objective, start = score_of(SmallNet(rng, 1)), normal(rng, 2, 1, 4, 4)
        good = {"max_shift": 1, "n_steps": 1, "step_size": 0.1, "generator": torch.Generator().manual_seed(0)}
        expect_raises(ValueError, answer, objective, start, torch.sigmoid, **(good | {"max_shift": -1}))
        expect_raises(ValueError, answer, objective, start, torch.sigmoid, **(good | {"n_steps": 0}))
        for wrong in wrong_scores(SmallNet(rng, 1)):
            expect_raises(ValueError, answer, wrong, start, torch.sigmoid, **good)


class TestDiversityLoss:
    exercise = "diversity_loss"

    def test_values(self, answer, reference, rng):
        "the mean over all pairs of different images"
        for shape in ((3, 2, 4, 5), (2, 4, 3, 1), (5, 3, 1, 2)):
            activations = normal(rng, *shape)
            expect_close(answer(activations), reference(activations), **FLOAT64)

    def test_extremes(self, answer, rng):
        "1 for the same image in different strengths, 0 for images with no channel in common"
        image = normal(rng, 1, 3, 4, 4)
        same = torch.cat([image, 5 * image, 0.01 * image])
        expect_close(answer(same), torch.tensor(1.0).double(), note="Three strengths of one image: 1", **FLOAT64)
        apart = torch.zeros(3, 3, 4, 4, dtype=torch.float64)
        for i in range(3):
            apart[i, i] = normal(rng, 4, 4)
        expect_close(answer(apart), torch.tensor(0.0).double(), note="No channel in common: 0", **FLOAT64)

    def test_places(self, answer, rng):
        "moving an image's contents about changes nothing"
        activations = normal(rng, 3, 2, 4, 5)
        moved = activations.clone()
        moved[0] = activations[0].flatten(1)[:, torch.randperm(20, generator=rng)].unflatten(1, (4, 5))
        expect_close(
            answer(moved),
            answer(activations),
            note="The places of one image were shuffled, alike in all channels, and the loss changed",
            **FLOAT64,
        )

    def test_silence(self, answer, rng):
        "an image without activation resembles none, and the loss stays a number"
        activations = normal(rng, 2, 3, 4, 4)
        activations[1] = 0
        expect_close(answer(activations), torch.tensor(0.0).double(), note="The second image is silent", **FLOAT64)
        heard = normal(rng, 3, 3, 4, 4)
        with_silence = torch.cat([heard, torch.zeros(1, 3, 4, 4, dtype=torch.float64)])
        expect_close(
            answer(with_silence),
            answer(heard) / 2,
            note="Beside three images a silent one: of the six pairs now three have a similarity of 0, and all count",
            **FLOAT64,
        )

    def test_strengths(self, answer, rng):
        "very faint and very strong images count like others, in float32 too"
        image = normal(rng, 1, 3, 4, 4, dtype=torch.float32)
        for factor in (1e-7, 1e10):
            expect_close(
                answer(torch.cat([image, factor * image])),
                torch.tensor(1.0),
                note=f"An image and {factor:g} times the same image are alike: 1",
                rtol=1e-4,
                atol=1e-4,
            )

    def test_gradients_and_dtype(self, answer, reference, rng):
        "gradients; float32 stays float32, and the memory layout does not matter"
        expect_same_gradients(answer, reference, normal(rng, 3, 2, 3, 4), rng=rng, **FLOAT64)
        activations = normal(rng, 3, 5, 2, 4, dtype=torch.float32).transpose(1, 3)
        expect_close(answer(activations), reference(activations), rtol=1e-4, atol=1e-5, dtype=True)

    def test_bad_shape(self, answer, rng):
        "a single image has nothing to differ from, and activations need places"
        expect_raises(ValueError, answer, normal(rng, 1, 3, 4, 4))
        expect_raises(ValueError, answer, normal(rng, 3, 4, 4))


class TestDeepDream:
    exercise = "deep_dream"

    def test_values(self, answer, reference, rng):
        "one octave, and several with sizes that are no whole numbers"
        for shape, n_octaves, scale in (((2, 2, 5, 6), 1, 1.4), ((2, 1, 10, 7), 3, 1.5), ((1, 3, 11, 6), 2, 1.8)):
            activations, images = layer_of(SmallNet(rng, shape[1])), pixels(rng, *shape)
            options = {"n_octaves": n_octaves, "octave_scale": scale, "n_steps": 2, "step_size": 0.02}
            expect_close(answer(activations, images, **options), reference(activations, images, **options), **ASCENT)

    def test_nothing_added(self, answer, rng):
        "without steps the image comes back as it was, fine lines and all, in range or not"
        for images in (pixels(rng, 2, 1, 8, 9), 3 * pixels(rng, 2, 1, 8, 9) - 1):
            found = answer(layer_of(SmallNet(rng, 1)), images, n_octaves=3, octave_scale=1.4, n_steps=0, step_size=0.1)
            expect_close(
                found, images, note="With n_steps = 0 no detail is added, and yet the image is another one", **ASCENT
            )

    def test_sizes_of_gradients(self, answer, rng):
        "a step is as long for tiny gradients as for huge ones"
        images, steps = 0.5 * torch.ones(2, 1, 4, 5), {}
        options = {"n_octaves": 1, "octave_scale": 1.5, "n_steps": 1, "step_size": 0.125}
        # The mean of squares of 20 pixels of 0.5 has a gradient of 0.05.
        for size in (2e-2, 1.0, 1e7):
            found = answer(lambda x, size=size: size * x, images, **options)
            expect_shape(found, tuple(images.shape))
            steps[0.05 * size**2] = found - images
        expect_whole_steps(steps)

    def test_more_of_it(self, answer, rng):
        "the layer responds more strongly than before"
        net, images = SmallNet(rng, 2), pixels(rng, 3, 2, 6, 6)
        found = answer(layer_of(net), images, n_octaves=1, octave_scale=1.5, n_steps=3, step_size=1e-4)
        expect_shape(found, tuple(images.shape))
        before, after = (net(x).pow(2).flatten(1).mean(1).detach() for x in (images, found))
        expect((after > before).all(), "The layer's mean square should have grown.", actual=after - before)

    def test_negative_activations(self, answer, rng):
        "what is negative counts like what is positive: it becomes more negative"
        images = pixels(rng, 2, 1, 4, 5)
        options = {"n_octaves": 1, "octave_scale": 1.5, "n_steps": 1, "step_size": 1e-3}
        found = answer(lambda x: -x, images, **options)
        expect_shape(found, tuple(images.shape))
        expect(
            (found > images).all(),
            "This layer hands on the pixels with a minus. Its squares grow if each pixel does, and some pixel of yours "
            "did not.",
            actual="smaller" if bool((found < images).all()) else "some did not grow",
        )

    def test_images_apart(self, answer, rng):
        "an image becomes the same alone and in company; one without gradient stays"
        net, images = SmallNet(rng, 1), pixels(rng, 3, 1, 6, 6)
        size = torch.tensor([0.1, 0.0, 20.0], dtype=torch.float64).view(-1, 1, 1, 1)

        def activations(x):
            return net(x) * size[: len(x)]

        options = {"n_octaves": 2, "octave_scale": 1.5, "n_steps": 2, "step_size": 0.05}
        together = answer(activations, images, **options)
        expect_shape(together, tuple(images.shape))
        alone = answer(activations, images[:1], **options)
        expect_close(together[:1], alone, note="The first image came out differently in company", **ASCENT)
        expect_close(together[1], images[1], note="The layer ignores the second image, which should stay", **ASCENT)

    def test_range(self, answer, reference, rng):
        "pixels stay in the range that was asked for"
        activations, images = layer_of(SmallNet(rng, 2)), pixels(rng, 2, 2, 6, 5)
        for pixel_range in ((0.0, 1.0), (0.1, 0.85), (-2.0, 3.0)):
            options = {
                "n_octaves": 2,
                "octave_scale": 1.4,
                "n_steps": 3,
                "step_size": 0.5,
                "pixel_range": pixel_range,
            }
            # Steps this long magnify what is added to a small gradient; pixels out of range are off by far more.
            found, wanted = answer(activations, images, **options), reference(activations, images, **options)
            expect_close(found, wanted, rtol=1e-3, atol=1e-3)

    def test_model_left_alone(self, answer, rng):
        "the model keeps its mode and gets no gradients; the result has no graph"
        net = SmallNet(rng, 1)
        found = answer(layer_of(net), pixels(rng, 2, 1, 6, 6), n_octaves=2, octave_scale=1.5, n_steps=2, step_size=0.1)
        expect_untouched(net)
        expect(not found.requires_grad, "The images you return still carry a graph.", actual=found.requires_grad)

    def test_bad_input(self, answer, rng):
        "no batch, no octave, a scale of one, and octaves that shrink to nothing are refused"
        activations, images = layer_of(SmallNet(rng, 1)), pixels(rng, 2, 1, 6, 6)
        good = {"n_octaves": 1, "octave_scale": 1.5, "n_steps": 1, "step_size": 0.1}
        expect_raises(ValueError, answer, activations, images[0], **good)
        for change in ({"n_octaves": 0}, {"octave_scale": 1.0}, {"n_octaves": 9, "octave_scale": 2.0}):
            expect_raises(ValueError, answer, activations, images, **(good | change))
