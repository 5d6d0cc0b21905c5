"""Checks for attribution maps: occlusion, gradients plain, smoothed and integrated, guided backprop, Grad-CAM."""

import torch
from torch import nn

from utils.course.checking import AnswerRaised, expect, expect_close, expect_raises, expect_shape

# float64 throughout, so that rounding is far below any wrong formula. Sums of some hundred terms stay within this.
EXACT = {"rtol": 1e-9, "atol": 1e-10}


def normal(rng, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=rng, dtype=dtype)


def with_random_weights(model, rng, bias=True):
    """Weights of moderate size, and biases that are not zero unless asked for; the global random state is not used."""
    model = model.to_empty(device="cpu").double()
    with torch.no_grad():
        for parameter in model.parameters():
            fan_in = max(1, parameter[0].numel())
            parameter.copy_(normal(rng, *parameter.shape) * (2 / fan_in) ** 0.5)
            if parameter.ndim == 1:
                parameter.mul_(0.3 if bias else 0.0)
    return model.eval()


def small_cnn(rng, *, channels=2, classes=4, in_place=False, bias=True):
    """Convolutions and ReLUs at two depths of nesting; takes images of any size from 4 by 4.

    ``in_place`` is for all ReLUs, or a tuple with one entry for each of the three.
    """
    first, second, third = in_place if isinstance(in_place, tuple) else 3 * (in_place,)
    with torch.device("meta"):
        model = nn.Sequential(
            nn.Conv2d(channels, 5, 3, padding=1, bias=bias),
            nn.ReLU(inplace=first),
            nn.Sequential(nn.MaxPool2d(2, ceil_mode=True), nn.Conv2d(5, 6, 2, bias=bias), nn.ReLU(inplace=second)),
            nn.AdaptiveAvgPool2d((2, 3)),
            nn.Flatten(),
            nn.Linear(36, 7, bias=bias),
            nn.ReLU(inplace=third),
            nn.Linear(7, classes, bias=bias),
        )
    return with_random_weights(model, rng, bias)


class Quadratic(nn.Module):
    """logit_c = (w_c . x)² / 2 + v_c . x, with the gradient (w_c . x) w_c + v_c."""

    def __init__(self, rng, shape, classes=3):
        super().__init__()
        size = torch.Size(shape).numel()
        self.w, self.v = (nn.Parameter(normal(rng, classes, size) / size**0.5) for _ in range(2))

    def forward(self, images):
        flat = images.flatten(1)
        return (flat @ self.w.T).square() / 2 + flat @ self.v.T

    def gradient(self, images, targets):
        w, v = self.w.detach()[targets], self.v.detach()[targets]
        return ((images.flatten(1) * w).sum(1, keepdim=True) * w + v).view_as(images)


class Pair(nn.Module):
    """A layer that puts out two things at once, as recurrent and attention layers do."""

    def forward(self, x):
        return x, 2 * x


class FirstOfPair(nn.Module):
    def __init__(self, rest):
        super().__init__()
        self.rest = rest

    def forward(self, pair):
        return self.rest(pair[0])


class Fails(nn.Module):
    """A last layer that raises."""

    def forward(self, x):
        raise RuntimeError("this model fails on purpose")


def images_and_targets(rng, batch=3, channels=2, height=5, width=7, classes=4):
    images = normal(rng, batch, channels, height, width)
    # Two images at least have different targets.
    return images, (torch.arange(batch) + torch.randint(classes, (), generator=rng)) % classes


class Recording:
    """A model that remembers what it was asked about."""

    def __init__(self, model):
        self.model, self.seen = model, []

    def __call__(self, images):
        self.seen.append(images.detach().clone())
        return self.model(images)


def condition(model):
    """All that a method could leave changed in a model, by what it is."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    modules = list(model.modules())
    return {
        "Your function leaves a hook on the model: every later use of the model goes through it.": [
            len(getattr(m, kind)) for m in modules for kind in hooks
        ],
        "Your function leaves the model in another mode (training or evaluation) than before.": [
            m.training for m in modules
        ],
        "Your function leaves the ReLUs' `inplace` changed.": [getattr(m, "inplace", None) for m in modules],
        "Your function leaves `requires_grad` of the weights changed.": [p.requires_grad for p in model.parameters()],
        "Your function leaves gradients in the weights' `.grad`: the next training step would add them in.": [
            p.grad is not None for p in model.parameters()
        ],
        "Your function changes the model's weights.": [float(p.detach().sum()) for p in model.parameters()],
    }


def expect_unchanged(before, model):
    after = condition(model)
    for note, values in before.items():
        expect(after[note] == values, note, actual=note)


def expect_works_without_gradients(answer, model, images, targets, **settings):
    """For those that promise it: the same map where the caller has switched gradients off."""
    loud = answer(model, images, targets, **settings)
    with torch.no_grad():
        quiet = answer(model, images, targets, **settings)
    expect_close(quiet, loud, note="With gradients switched off around the call, the map is another one", **EXACT)


def expect_no_trace(answer, model, images, targets, *, detached=True, **settings):
    """A call under awkward conditions: frozen weights, weights with gradients, an input that asks for its gradient."""
    model.requires_grad_(False)
    before = condition(model)
    watched = images.clone().requires_grad_()
    plain = answer(model, images, targets, **settings)
    asked = images.requires_grad
    images.requires_grad_(False)
    expect(
        not asked,
        "Your function switches `requires_grad` on for the caller's own images and leaves it so; ask a copy of them.",
        actual="images.requires_grad",
    )
    loud = answer(model, watched, targets, **settings)
    expect_unchanged(before, model)
    expect(watched.grad is None, "Your function leaves a gradient in the images' `.grad`.", actual="images.grad")
    expect_close(loud, plain, note="For images that ask for gradients, the map is another one", **EXACT)
    model.requires_grad_(True)
    before = condition(model)
    found = answer(model, images, targets, **settings)
    expect_unchanged(before, model)
    weight = next(model.parameters())
    weight.grad = torch.ones_like(weight)
    answer(model, images, targets, **settings)
    kept = weight.grad is not None and bool((weight.grad == 1).all())
    weight.grad = None
    expect(
        kept,
        "A weight had a gradient before your call, and it is gone or changed after it: leave `.grad` alone.",
        actual="weight.grad",
    )
    if detached:
        expect(
            not found.requires_grad,
            "A graph for derivatives hangs on your map, and keeps every run of the model in memory. The map is to be "
            "looked at and not differentiated: let none arise, or cut it off.",
            actual="in the graph",
        )


def expect_each_alone(answer, model, images, targets, **settings):
    """An image's map does not depend on its neighbours in the batch."""
    together = answer(model, images, targets, **settings)
    for i in range(len(images)):
        alone = answer(model, images[i : i + 1], targets[i : i + 1], **settings)
        expect_shape(alone, (1, *together.shape[1:]))
        expect_close(together[i], alone[0], note="An image's map depends on the other images in the batch", **EXACT)


def expect_bad_shapes_refused(answer, model, rng, **settings):
    """A target missing, and one image without a batch dimension."""
    images, targets = images_and_targets(rng)
    expect_raises(ValueError, answer, model, images, targets[:1], **settings)
    expect_raises(ValueError, answer, model, images[0], targets[:2], **settings)


class TestOcclusionMap:
    exercise = "occlusion_map"

    def test_single_pixels(self, answer, reference, rng):
        "one pixel at a time, in all channels, on images that are not square"
        for height, width in ((4, 6), (5, 4)):
            model = small_cnn(rng)
            images, targets = images_and_targets(rng, height=height, width=width)
            expect_close(answer(model, images, targets), reference(model, images, targets), **EXACT)

    def test_overlapping_squares(self, answer, reference, rng):
        "squares that overlap, stick out at the edges, and cover with something other than zero"
        for patch, stride in ((3, 2), (4, 3)):
            model = small_cnn(rng)
            images, targets = images_and_targets(rng, height=5, width=6)
            settings = {"patch": patch, "stride": stride, "baseline": 0.7}
            expect_close(
                answer(model, images, targets, **settings), reference(model, images, targets, **settings), **EXACT
            )

    def test_linear_model(self, answer, rng):
        "for a linear model, a pixel's entry is weight times (value - baseline), added up over the channels"
        images, targets = images_and_targets(rng, classes=3)
        weights, biases = normal(rng, 3, images[0].numel()), normal(rng, 3)
        expected = (images - 0.4) * weights[targets].view_as(images)
        found = answer(lambda x: x.flatten(1) @ weights.T + biases, images, targets, baseline=0.4)
        expect_close(found, expected.sum(1), **EXACT)

    def test_batches(self, answer, rng):
        "each image for itself, and never more than batch_size images through the model at once"
        model = small_cnn(rng)
        images, targets = images_and_targets(rng, height=4, width=5)
        expect_each_alone(answer, model, images, targets, patch=2, stride=2)
        whole = answer(model, images, targets, patch=2, stride=2)
        for batch_size in (2, 7):
            recording = Recording(model)
            parts = answer(recording, images, targets, patch=2, stride=2, batch_size=batch_size)
            expect_close(parts, whole, note="The map depends on batch_size", **EXACT)
            largest = max(map(len, recording.seen), default=0)
            expect(
                largest <= batch_size,
                "More than batch_size images went through the model at once.",
                actual=largest,
                expected=f"at most {batch_size}",
            )

    def test_model(self, answer, rng):
        "the model is left as it was, and no graph hangs on the map"
        images, targets = images_and_targets(rng)
        expect_no_trace(answer, small_cnn(rng), images, targets, patch=2, stride=2)

    def test_dtype(self, answer, rng):
        "float32 in, float32 out"
        images, targets = images_and_targets(rng, height=4)
        found = answer(small_cnn(rng).float(), images.float(), targets, patch=2, stride=2, baseline=0.25)
        expect(found.dtype == torch.float32, "The dtype should follow the images.", actual=str(found.dtype))


class TestGradientSaliency:
    exercise = "gradient_saliency"

    def test_values(self, answer, reference, rng):
        "the derivative of the target's logit, sign and channels kept"
        for channels, height, width in ((2, 5, 7), (1, 8, 6)):
            model = small_cnn(rng, channels=channels)
            images, targets = images_and_targets(rng, channels=channels, height=height, width=width)
            expect_close(answer(model, images, targets), reference(model, images, targets), **EXACT)

    def test_closed_form(self, answer, rng):
        "a network of one hidden layer, whose gradient can be worked out on paper"
        images, targets = images_and_targets(rng, classes=3)
        with torch.device("meta"):
            first, second = nn.Linear(images[0].numel(), 6), nn.Linear(6, 3)
        model = with_random_weights(nn.Sequential(nn.Flatten(), first, nn.Tanh(), second), rng)
        with torch.no_grad():
            slopes = 1 - model[:3](images).square()  # of the tanh
            gradient = ((second.weight[targets] * slopes) @ first.weight).view_as(images)
        expect_close(answer(model, images, targets), gradient, **EXACT)

    def test_batches(self, answer, rng):
        "each image for itself, with its own target"
        expect_each_alone(answer, small_cnn(rng), *images_and_targets(rng))

    def test_dtype(self, answer, rng):
        "float32 in, float32 out"
        images, targets = images_and_targets(rng)
        found = answer(small_cnn(rng).float(), images.float(), targets)
        expect(found.dtype == torch.float32, "The dtype should follow the images.", actual=str(found.dtype))

    def test_model(self, answer, rng):
        "leaves nothing behind in weights or images, and no graph hangs on the map"
        expect_no_trace(answer, small_cnn(rng), *images_and_targets(rng))

    def test_gradients_off(self, answer, rng):
        "works where gradients are switched off"
        expect_works_without_gradients(answer, small_cnn(rng), *images_and_targets(rng))

    def test_no_such_class(self, answer, rng):
        "a target that is not a class of the model is refused"
        images, _ = images_and_targets(rng)
        for bad in (4, -1):
            for place in range(3):
                targets = torch.tensor([0, 1, 2]).index_fill(0, torch.tensor(place), bad)
                expect_raises(ValueError, answer, small_cnn(rng), images, targets)


class TestInputXGradient:
    exercise = "input_x_gradient"

    def test_values(self, answer, reference, rng):
        "each pixel times its derivative, channel by channel"
        for channels, height, width in ((2, 5, 7), (1, 8, 6)):
            model = small_cnn(rng, channels=channels)
            images, targets = images_and_targets(rng, channels=channels, height=height, width=width)
            expect_close(answer(model, images, targets), reference(model, images, targets), **EXACT)

    def test_adds_up_without_biases(self, answer, rng):
        "for a ReLU network without biases, the entries add up to the logit"
        model = small_cnn(rng, bias=False)
        images, targets = images_and_targets(rng)
        found = answer(model, images, targets)
        expect_shape(found, tuple(images.shape))
        expect_close(
            found.sum((1, 2, 3)),
            model(images).detach()[torch.arange(3), targets],
            note="The entries do not add up to the logit",
            **EXACT,
        )

    def test_linear_model(self, answer, rng):
        "for a linear model: weight times pixel, negative ones too"
        images, targets = images_and_targets(rng, classes=3)
        weights, biases = normal(rng, 3, images[0].numel()), normal(rng, 3)
        found = answer(lambda x: x.flatten(1) @ weights.T + biases, images, targets)
        expect_close(found, images * weights[targets].view_as(images), **EXACT)

    def test_model(self, answer, rng):
        "the model and the images are left as they were"
        expect_no_trace(answer, small_cnn(rng), *images_and_targets(rng), detached=False)

    def test_bad_shapes(self, answer, rng):
        "images and targets that don't fit are refused"
        expect_bad_shapes_refused(answer, small_cnn(rng), rng)


class TestSmoothgrad:
    exercise = "smoothgrad"

    def test_without_noise(self, answer, rng):
        "without noise, the plain gradient"
        images, targets = images_and_targets(rng, classes=3)
        model = Quadratic(rng, images.shape[1:])
        found = answer(model, images, targets, sigma=0.0, n_samples=3, generator=rng)
        expect_close(found, model.gradient(images, targets), **EXACT)

    def test_mean_of_gradients(self, answer, rng):
        "the mean, sign kept, of the gradients at exactly n_samples points"
        images, targets = images_and_targets(rng, batch=1, classes=3)
        model = Quadratic(rng, images.shape[1:])
        recording = Recording(model)
        # A power of two: sigma times float32 noise is then the same number in either precision.
        found = answer(recording, images, targets, sigma=4.0, n_samples=5, generator=rng)
        points = torch.cat(recording.seen) if recording.seen else images[:0]
        expect(
            len(points) == 5,
            "With n_samples=5, the model should be asked about five noisy copies.",
            actual=len(points),
            returned=f"asked about {len(points)} images",
            expected="5",
        )
        expected = model.gradient(points, targets.expand(5)).mean(0, keepdim=True)
        expect_close(found, expected, note="The result is not the mean of the gradients at the noisy copies", **EXACT)

    def test_noise(self, answer, rng):
        "normal noise around the image with standard deviation sigma, new for each pixel, copy and image"
        images, targets = images_and_targets(rng, batch=2, classes=3)
        recording = Recording(Quadratic(rng, images.shape[1:]))
        answer(recording, images, targets, sigma=0.25, n_samples=150, generator=rng)
        points = torch.cat(recording.seen)
        expect_shape(
            points, (300, *images.shape[1:]), "The model should be asked about n_samples copies of each image."
        )
        # Which copy belongs to which image is the answer's own affair; the other image is far away.
        owner = torch.stack([(points - image).flatten(1).norm(dim=1) for image in images]).argmin(0)
        noise = points - images[owner]
        n = noise.numel()  # 21,000: its mean and deviation are known to within 0.7 and 0.5 per cent of sigma
        expect(
            abs(noise.mean()) < 6 * 0.25 / n**0.5,
            "The noise does not have mean zero: the copies lie to one side.",
            actual=noise.mean(),
            returned=f"a mean of {noise.mean():.3g}",
            expected="about 0",
        )
        expect(
            abs(noise.std() - 0.25) < 0.01,
            "The standard deviation of the noise is not sigma.",
            actual=noise.std(),
            returned=f"a standard deviation of {noise.std():.3g}",
            expected="0.25",
        )
        fourth = (noise / noise.std()).pow(4).mean()  # 3 for normal noise, known to within 0.034; 1.8 for uniform
        expect(abs(fourth - 3) < 0.3, "The noise has the right width and is not normal.", actual=fourth)
        expect(noise.std(0).min() > 0.1, "All copies of an image have the same noise.", actual=noise.std(0).min())
        expect(
            noise.flatten(1).abs().amax(1).min() > 0,
            "One of the copies has no noise: it is the image itself.",
            actual="a copy without noise",
        )
        expect(
            noise.flatten(1).std(1).min() > 0.1,
            "All pixels of a copy get the same noise.",
            actual=noise.flatten(1).std(1).min(),
        )
        # 300 copies: two pixels that have nothing to do with each other are correlated by 0.06, and never by 0.5.
        together = torch.corrcoef(noise.flatten(1).T).fill_diagonal_(0).abs().max()
        expect(together < 0.5, "Some pixels share their noise, within a copy.", actual="pixels with the same noise")
        first, second = (noise[owner == i].flatten(1) for i in range(2))
        # Two noises of 70 pixels are 3 apart on average, and never below 1.
        expect(
            torch.cdist(first, -first).min() > 0.5,
            "The noise of some copies is that of others with the sign reversed: draw it anew for each copy.",
            actual="the same noise with the other sign",
        )
        nearest = torch.cdist(first, second).min()
        expect(
            nearest > 0.5,
            "The images of a batch get the same noise: draw it for each pixel of each image.",
            actual="the same noise in two images",
        )

    def test_generator(self, answer, rng):
        "all noise comes from the generator: one seed, one map"
        images, targets = images_and_targets(rng)
        model = small_cnn(rng)
        seed = int(torch.randint(10**6, (), generator=rng))

        def run(seed):
            return answer(model, images, targets, sigma=0.5, n_samples=2, generator=torch.Generator().manual_seed(seed))

        first, again, other = run(seed), run(seed), run(seed + 1)
        expect(
            torch.allclose(again, first, **EXACT),
            "The same generator seed gives another map: noise from elsewhere.",
            actual="another map",
        )
        expect(not torch.equal(first, other), "Another seed gives the same map.", actual="the same map")
        generator = torch.Generator().manual_seed(seed)
        one, two = (answer(model, images, targets, sigma=0.5, n_samples=2, generator=generator) for _ in range(2))
        expect(
            not torch.equal(one, two),
            "Two calls with one generator, one after the other, give the same map: draw from the generator itself, so "
            "that it moves on, and not from its seed.",
            actual="the generator stands still",
        )

    def test_model(self, answer, rng):
        "the model and the images are left as they were, and no graph hangs on the map"
        settings = {"sigma": 0.0, "n_samples": 2, "generator": rng}
        expect_no_trace(answer, small_cnn(rng), *images_and_targets(rng), **settings)

    def test_bad_settings(self, answer, rng):
        "a negative sigma, no samples, and targets that don't fit the images are refused"
        images, targets = images_and_targets(rng)
        for sigma, n_samples in ((-0.1, 3), (0.1, 0)):
            expect_raises(
                ValueError, answer, small_cnn(rng), images, targets, sigma=sigma, n_samples=n_samples, generator=rng
            )
        expect_bad_shapes_refused(answer, small_cnn(rng), rng, sigma=0.1, n_samples=2, generator=rng)


class TestIntegratedGradients:
    """Mostly with 2, 4 or 8 steps: their middles are the same numbers in float32 and in float64."""

    exercise = "integrated_gradients"

    def test_values(self, answer, reference, rng):
        "the midpoint rule, for a few steps"
        for n_steps in (1, 2, 4):
            model = small_cnn(rng)
            images, targets = images_and_targets(rng)
            settings = {"n_steps": n_steps, "baseline": 0.6}
            expect_close(
                answer(model, images, targets, **settings), reference(model, images, targets, **settings), **EXACT
            )

    def test_baselines(self, answer, reference, rng):
        "a baseline for each image, or one of one colour for each channel"
        images, targets = images_and_targets(rng)
        for baseline in (normal(rng, *images.shape), normal(rng, 1, 2, 1, 1), normal(rng, 5, 7)):
            model = small_cnn(rng)
            settings = {"n_steps": 4, "baseline": baseline}
            expect_close(
                answer(model, images, targets, **settings), reference(model, images, targets, **settings), **EXACT
            )

    def test_completeness(self, answer, rng):
        "the entries add up to the difference of the logits, for a quadratic model with any number of steps"
        images, targets = images_and_targets(rng, classes=3)
        model, baseline = Quadratic(rng, images.shape[1:]), normal(rng, *images.shape[1:])
        with torch.no_grad():
            difference = (model(images) - model(baseline[None]))[torch.arange(3), targets]
        for n_steps in (1, 8):
            found = answer(model, images, targets, baseline=baseline, n_steps=n_steps)
            expect_shape(found, tuple(images.shape))
            expect_close(
                found.sum((1, 2, 3)),
                difference,
                note="The entries do not add up to the difference of the logits",
                **EXACT,
            )

    def test_linear_model(self, answer, rng):
        "for a linear model: weight times (pixel - baseline)"
        images, targets = images_and_targets(rng, classes=3)
        weights = normal(rng, 3, images[0].numel())
        found = answer(lambda x: x.flatten(1) @ weights.T, images, targets, baseline=-0.3, n_steps=3)
        expect_close(found, (images + 0.3) * weights[targets].view_as(images), **EXACT)

    def test_batches(self, answer, rng):
        "each image for itself, the same for any batch_size, and about batch_size images at once"
        model = small_cnn(rng)
        images, targets = images_and_targets(rng)
        expect_each_alone(answer, model, images, targets, n_steps=8)
        whole = answer(model, images, targets, n_steps=8)
        for batch_size in (1, 9):
            recording = Recording(model)
            parts = answer(recording, images, targets, n_steps=8, batch_size=batch_size)
            expect_close(parts, whole, note="The map depends on batch_size", **EXACT)
            largest = max(map(len, recording.seen), default=0)
            expect(
                largest <= batch_size + len(images),
                "Many more than batch_size images went through the model at once.",
                actual=largest,
                expected=f"about {batch_size}, and never less than one step of all {len(images)} images",
            )

    def test_model(self, answer, rng):
        "the model and the images are left as they were"
        expect_no_trace(answer, small_cnn(rng), *images_and_targets(rng), detached=False, n_steps=3)


class TestGuidedBackprop:
    exercise = "guided_backprop"

    def test_values(self, answer, reference, rng):
        "every ReLU, also those inside other modules"
        for channels, height, width in ((2, 5, 7), (1, 8, 6)):
            model = small_cnn(rng, channels=channels)
            images, targets = images_and_targets(rng, channels=channels, height=height, width=width)
            expect_close(answer(model, images, targets), reference(model, images, targets), **EXACT)

    def test_relu6(self, answer, reference, rng):
        "every ReLU6, beside a ReLU"
        images, targets = images_and_targets(rng)
        with torch.device("meta"):
            layers = nn.Linear(70, 30), nn.ReLU6(), nn.Linear(30, 20), nn.ReLU(), nn.Linear(20, 4)
            model = nn.Sequential(nn.Flatten(), *layers)
        model = with_random_weights(model, rng)
        expect_close(answer(model, 3 * images, targets), reference(model, 3 * images, targets), **EXACT)

    def test_by_hand(self, answer, rng):
        "one layer, worked out on paper: a signal has to arrive positive and find its ReLU open"
        images, targets = images_and_targets(rng)
        with torch.device("meta"):
            model = nn.Sequential(nn.Flatten(), nn.Linear(70, 9), nn.ReLU(), nn.Linear(9, 4))
        model = with_random_weights(model, rng)
        below, above = model[1], model[3].weight.detach()[targets]
        open_ = below(images.flatten(1)).detach() > 0
        expected = (above.clamp(min=0) * open_) @ below.weight.detach()
        expect_close(answer(model, images, targets), expected.view_as(images), **EXACT)

    def test_batches(self, answer, rng):
        "each image for itself, with its own target"
        expect_each_alone(answer, small_cnn(rng), *images_and_targets(rng))

    def test_model(self, answer, rng):
        "no hook is left behind, the model is as it was, and no graph hangs on the map"
        expect_no_trace(answer, small_cnn(rng), *images_and_targets(rng))

    def test_hooks_of_others(self, answer, rng):
        "a hook that was there before stays"
        model = small_cnn(rng)
        model[1].register_full_backward_hook(lambda module, below, above: None)
        answer(model, *images_and_targets(rng))
        expect(
            len(model[1]._backward_hooks) == 1,
            "A hook that somebody else had put on a ReLU is gone after your call; remove your own handles only.",
            actual=len(model[1]._backward_hooks),
            expected="1 hook",
        )

    def test_bad_shapes(self, answer, rng):
        "images and targets that don't fit are refused"
        expect_bad_shapes_refused(answer, small_cnn(rng), rng)

    def test_in_place(self, answer, rng):
        "ReLUs that work in place: the same map, and these and no others in place again afterwards"
        seed = int(torch.randint(10**6, (), generator=rng))
        images, targets = images_and_targets(rng)
        expected = answer(small_cnn(torch.Generator().manual_seed(seed)), images, targets)
        for which in (True, (False, True, False), (True, False, True)):
            model = small_cnn(torch.Generator().manual_seed(seed), in_place=which)
            before = condition(model)
            found = answer(model, images, targets)
            expect_close(found, expected, note="With ReLUs that work in place, the map is another one", **EXACT)
            expect_unchanged(before, model)

    def test_failing_model(self, answer, rng):
        "a model that raises is cleaned up as well"
        images, targets = images_and_targets(rng)
        model = nn.Sequential(*small_cnn(rng, in_place=(False, True, True)), Fails())
        before = condition(model)
        try:
            answer(model, images, targets)
        except AnswerRaised as raised:
            expect(
                "on purpose" in str(raised.__cause__),
                "The model's own exception should come through.",
                actual=str(raised.__cause__),
            )
        else:
            expect(False, "The model raised an exception, and your function swallowed it.", actual="swallowed")
        expect_unchanged(before, model)


class TestGradCam:
    exercise = "grad_cam"

    def test_values(self, answer, reference, rng):
        "at a layer of any name, enlarged to images that are not square"
        for layer, height, width in 2 * (("0", 5, 7), ("2.1", 9, 6), ("2", 8, 11), ("2.2", 6, 4)):
            model = small_cnn(rng)
            images, targets = images_and_targets(rng, height=height, width=width)
            expect_close(answer(model, images, targets, layer), reference(model, images, targets, layer), **EXACT)

    def test_by_hand(self, answer, rng):
        "a layer of the image's size, its mean, a linear layer: the map is the weighted sum of the channels"
        images, targets = images_and_targets(rng)
        with torch.device("meta"):
            model = nn.Sequential(nn.Conv2d(2, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4))
        model = with_random_weights(model, rng)
        maps, weights = model[0](images).detach(), model[3].weight.detach()[targets]
        expected = (weights[:, :, None, None] * maps).sum(1).relu() / 35
        expect_close(answer(model, images, targets, "0"), expected, **EXACT)

    def test_batches(self, answer, rng):
        "each image for itself, with its own target"
        expect_each_alone(answer, small_cnn(rng), *images_and_targets(rng), layer="2.1")

    def test_model(self, answer, rng):
        "no hook is left behind, the model is as it was, and no graph hangs on the map"
        expect_no_trace(answer, small_cnn(rng), *images_and_targets(rng), layer="2.1")

    def test_gradients_off(self, answer, rng):
        "works where gradients are switched off, with frozen weights"
        model = small_cnn(rng).requires_grad_(False)
        expect_works_without_gradients(answer, model, *images_and_targets(rng), layer="2.1")

    def test_hooks_of_others(self, answer, rng):
        "a hook that was there before stays"
        model = small_cnn(rng)
        model[2][1].register_forward_hook(lambda module, inputs, output: None)
        answer(model, *images_and_targets(rng), "2.1")
        expect(
            len(model[2][1]._forward_hooks) == 1,
            "A hook that somebody else had put on the layer is gone after your call; remove your own handle only.",
            actual=len(model[2][1]._forward_hooks),
            expected="1 hook",
        )

    def test_flat_layer(self, answer, rng):
        "a layer that puts out no maps, or that the model never runs, is refused, and no hook stays on it"
        for layer in ("4", "5", "idle", "pair"):
            model = small_cnn(rng)
            if layer == "idle":
                model.forward = model[:].forward  # without the layer that is added now
                model.add_module("idle", nn.Conv2d(2, 2, 1))
            elif layer == "pair":
                model = nn.Sequential()
                model.add_module("pair", Pair())
                model.add_module("head", FirstOfPair(small_cnn(rng)))
            before = condition(model)
            expect_raises(ValueError, answer, model, *images_and_targets(rng), layer)
            expect_unchanged(before, model)

    def test_layer_run_twice(self, answer, reference, rng):
        "a layer that the model runs twice: its last output counts"
        model = small_cnn(rng, channels=5)
        twice = nn.Sequential(nn.Conv2d(2, 5, 1), model[0], model[1], model[0], *model[1:])
        twice[1] = twice[3] = with_random_weights(nn.Conv2d(5, 5, 3, padding=1, device="meta"), rng)
        images, targets = images_and_targets(rng)
        with_random_weights(twice[:1], rng)
        expect_close(answer(twice, images, targets, "1"), reference(twice, images, targets, "1"), **EXACT)

    def test_in_place(self, answer, reference, rng):
        "a ReLU in place after the layer must not overwrite what you keep of it"
        model = small_cnn(rng, in_place=True)
        images, targets = images_and_targets(rng)
        expect_close(answer(model, images, targets, "0"), reference(model, images, targets, "0"), **EXACT)

    def test_failing_model(self, answer, rng):
        "a model that raises is cleaned up as well"
        images, targets = images_and_targets(rng)
        model = nn.Sequential(*small_cnn(rng), Fails())
        before = condition(model)
        try:
            answer(model, images, targets, "0")
        except AnswerRaised as raised:
            expect(
                "on purpose" in str(raised.__cause__),
                "The model's own exception should come through.",
                actual=str(raised.__cause__),
            )
        else:
            expect(False, "The model raised an exception, and your function swallowed it.", actual="swallowed")
        expect_unchanged(before, model)
