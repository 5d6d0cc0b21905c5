"""Wrong answers for feature visualisation, each with the sentence for whoever made the mistake, and right ones."""

import math

import torch
import torch.nn.functional as F

from utils.attribution.visualization import total_variation
from utils.course.catalogue import right, wrong


def four_dimensional(images):
    if images.ndim != 4:
        raise ValueError("images must be [batch, channel, height, width]")


# total_variation


@wrong(
    "total_variation",
    "You squared the differences. Then an edge from 0 to 1 costs far more than the same change spread over five "
    "pixels, and an optimiser blurs every edge away. The docstring's formula has absolute values.",
)
def squared_differences(images):
    four_dimensional(images)
    down, across = images[:, :, 1:] - images[:, :, :-1], images[..., 1:] - images[..., :-1]
    return down.pow(2).flatten(1).sum(1) + across.pow(2).flatten(1).sum(1)


@wrong(
    "total_variation",
    "You take means over neighbours where the formula has sums. A sum is as many times larger as there are pairs in "
    "that direction, so a weight that was tuned with one does something else with the other.",
)
def mean_difference(images):
    four_dimensional(images)
    down, across = images[:, :, 1:] - images[:, :, :-1], images[..., 1:] - images[..., :-1]
    return down.abs().flatten(1).mean(1) + across.abs().flatten(1).mean(1)


@wrong(
    "total_variation",
    "You compare each pixel with the one below it only. Vertical stripes, which change from column to column, are "
    "free of charge then.",
)
def down_only(images):
    four_dimensional(images)
    return (images[:, :, 1:] - images[:, :, :-1]).abs().flatten(1).sum(1)


@wrong(
    "total_variation",
    "Your result is one number for the whole batch. Each image has its own total variation: which dimensions may be "
    "summed over, and which not?",
)
def whole_batch(images):
    four_dimensional(images)
    return (images[:, :, 1:] - images[:, :, :-1]).abs().sum() + (images[..., 1:] - images[..., :-1]).abs().sum()


@wrong(
    "total_variation",
    "With `roll`, the last row is compared with the first and the last column with the first one. They are no "
    "neighbours; the formula stays inside the image.",
)
def round_the_edge(images):
    four_dimensional(images)
    rolled = (images.roll(-1, dims) - images for dims in (2, 3))
    return sum(difference.abs().flatten(1).sum(1) for difference in rolled)


@wrong(
    "total_variation",
    "You took the length of the pair (down, across) at each pixel: the isotropic form, in which a diagonal edge costs "
    "less. It is a form of its own right, but the one asked for adds the two absolute values. Note that yours also "
    "drops the last row and column, and that its gradient is not a number where nothing changes.",
)
def isotropic(images):
    four_dimensional(images)
    down = images[:, :, 1:, :-1] - images[:, :, :-1, :-1]
    across = images[:, :, :-1, 1:] - images[:, :, :-1, :-1]
    return (down**2 + across**2).sqrt().flatten(1).sum(1)


@wrong(
    "total_variation",
    "You cut both differences to the same shape, so that the steps along the last row and down the last column are "
    "missing. They need not fit each other; add up each on its own.",
)
def last_row_and_column_lost(images):
    four_dimensional(images)
    down = images[:, :, 1:, :-1] - images[:, :, :-1, :-1]
    across = images[:, :, :-1, 1:] - images[:, :, :-1, :-1]
    return (down.abs() + across.abs()).flatten(1).sum(1)


@wrong(
    "total_variation",
    "Your differences keep their signs, so a rise and the fall after it cancel: what is left is how much the edges of "
    "the image differ.",
)
def signed(images):
    four_dimensional(images)
    down, across = images[:, :, 1:] - images[:, :, :-1], images[..., 1:] - images[..., :-1]
    return down.flatten(1).sum(1) + across.flatten(1).sum(1)


@wrong(
    "total_variation",
    "You took the length of the pair (down, across) at each pixel, with the last row and column filled up: the "
    "isotropic form, in which a diagonal edge costs less. The one asked for adds the two absolute values.",
)
def isotropic_filled_up(images):
    four_dimensional(images)
    down = F.pad(images[:, :, 1:] - images[:, :, :-1], (0, 0, 0, 1))
    across = F.pad(images[..., 1:] - images[..., :-1], (0, 1))
    return (down**2 + across**2 + 1e-12).sqrt().flatten(1).sum(1)


@wrong(
    "total_variation",
    "You have one number for each channel. The formula sums over the channels too: one number for each image.",
)
def one_for_each_channel(images):
    four_dimensional(images)
    return sum(images.diff(dim=dim).abs().sum(dim=(-2, -1)) for dim in (-2, -1))


@wrong(
    "total_variation",
    "You take the mean over the channels where the formula has the sum.",
)
def mean_over_channels(images):
    four_dimensional(images)
    return sum(images.diff(dim=dim).abs().sum(dim=(-2, -1)).mean(1) for dim in (-2, -1))


@wrong(
    "total_variation",
    "You divide by the number of pixels. The formula has a sum, so that a larger image of the same roughness costs "
    "more.",
)
def for_each_pixel(images):
    four_dimensional(images)
    return sum(images.diff(dim=dim).abs().sum(dim=(1, 2, 3)) for dim in (-2, -1)) / images[0].numel()


@wrong(
    "total_variation",
    "Every pair of neighbours counts twice in your sum, once from each side.",
)
def both_ways(images):
    four_dimensional(images)
    return 2 * sum(images.diff(dim=dim).abs().sum(dim=(1, 2, 3)) for dim in (-2, -1))


@wrong(
    "total_variation",
    "You compare each pixel with the one to its right only. Horizontal stripes, which change from row to row, are free "
    "of charge then.",
)
def across_only(images):
    four_dimensional(images)
    return images.diff(dim=-1).abs().sum(dim=(1, 2, 3))


@wrong(
    "total_variation",
    "You compare neighbours among the channels as well. A red pixel beside its own green is no roughness; only rows "
    "and columns have neighbours.",
)
def channels_as_neighbours(images):
    four_dimensional(images)
    return sum(images.diff(dim=dim).abs().sum(dim=(1, 2, 3)) for dim in (1, 2, 3))


@wrong(
    "total_variation",
    "An image without a batch dimension goes through, and its channels are taken for images. The docstring asks for a "
    "ValueError unless there are four dimensions.",
)
def any_number_of_dimensions(images):
    return sum(images.diff(dim=dim).abs().flatten(1).sum(1) for dim in (-2, -1))


@wrong(
    "total_variation",
    "No gradient reaches the images: something cuts them out of the graph (`detach`, `.item()`, `torch.no_grad`). "
    "Total variation is there to be made small by gradient descent.",
)
def out_of_the_graph(images):
    four_dimensional(images)
    return sum(images.detach().diff(dim=dim).abs().sum(dim=(1, 2, 3)) for dim in (-2, -1))


@wrong(
    "total_variation",
    "The numbers are right, and the gradient is not a number where neighbours are equal: the root of a square (or a "
    "length) has no slope at 0. `abs` has one there, 0.",
)
def root_of_each_square(images):
    four_dimensional(images)
    return sum(images.diff(dim=dim).square().sqrt().sum(dim=(1, 2, 3)) for dim in (-2, -1))


@wrong(
    "total_variation",
    "You took one length of all differences together: the root of the sum of all their squares. Each difference counts "
    "by its own absolute value.",
)
def length_of_all_differences(images):
    four_dimensional(images)
    return sum(images.diff(dim=dim).square().sum(dim=(1, 2, 3)) for dim in (-2, -1)).sqrt()


@right("total_variation")
def with_diff(images):
    four_dimensional(images)
    return sum(images.diff(dim=dim).abs().sum(dim=(1, 2, 3)) for dim in (-2, -1))


@right("total_variation")
def pixel_by_pixel(images):
    four_dimensional(images)
    height, width = images.shape[2:]
    total = images.new_zeros(len(images))
    for i in range(height):
        for j in range(width):
            if i + 1 < height:
                total = total + (images[:, :, i + 1, j] - images[:, :, i, j]).abs().sum(1)
            if j + 1 < width:
                total = total + (images[:, :, i, j + 1] - images[:, :, i, j]).abs().sum(1)
    return total


# What several answers share


def rms_of_each(gradient):
    return gradient.pow(2).flatten(1).mean(1).sqrt().view(-1, *[1] * (gradient.ndim - 1))


def unit_step(gradient):
    """The gradient at a root mean square of 1 for each image, or 0."""
    rms = rms_of_each(gradient)
    return torch.where(rms > 0, gradient / rms, 0.0)


def checked(scores, x):
    if scores.shape != x.shape[:1]:
        raise ValueError("objective must return one score for each image")
    return scores


def gradient_of(value, x):
    return torch.autograd.grad(value.sum(), x)[0]


def check_ascent(images, n_steps, pixel_range):
    four_dimensional(images)
    if n_steps < 1 or not pixel_range[0] < pixel_range[1]:
        raise ValueError("bad n_steps or pixel_range")


def ascend(
    objective,
    images,
    *,
    n_steps,
    step_size,
    tv_weight=0.0,
    l2_weight=0.0,
    pixel_range=(0.0, 1.0),
    step=unit_step,
    penalty_sign=-1.0,
    report_penalty=False,
    accept=None,
    squares=lambda x: x.pow(2).flatten(1).sum(1),
):
    """Activation maximisation with one thing or another done differently."""
    check_ascent(images, n_steps, pixel_range)
    x, history = images.clone(), []
    for _ in range(n_steps):
        x = x.detach().requires_grad_()
        scores = (accept or checked)(objective(x), x)
        penalty = tv_weight * total_variation(x) + l2_weight * squares(x)
        total = scores + penalty_sign * penalty
        x = (x + step_size * step(gradient_of(total, x))).clamp(*pixel_range)
        history.append((total if report_penalty else scores).detach())
    return x.detach(), torch.stack(history)


# activation_maximization


@wrong(
    "activation_maximization",
    "Your images walk downhill: they minimise the score. Optimisers subtract the gradient because they minimise a "
    "loss; here the score is to grow.",
)
def downhill(objective, images, **options):
    return ascend(objective, images, step=lambda g: -unit_step(g), **options)


@wrong(
    "activation_maximization",
    "You take the gradient as it is. How far an image moves then depends on how large the model's numbers happen to "
    "be, and no step size fits two models. Divide each image's gradient by its own root mean square.",
)
def raw_gradient(objective, images, **options):
    return ascend(objective, images, step=lambda g: g, **options)


@wrong(
    "activation_maximization",
    "You divide by the root mean square over the whole batch. An image whose gradient is large then takes all of the "
    "step, and the others hardly move: what an image becomes depends on its company.",
)
def rms_of_the_batch(objective, images, **options):
    return ascend(objective, images, step=lambda g: g / g.pow(2).mean().sqrt(), **options)


@wrong(
    "activation_maximization",
    "You divide by the gradient's length, the root of the *sum* of squares. The docstring divides by the root of their "
    "*mean*, so that `step_size` is what a typical pixel moves by, in small images and in large ones.",
)
def length_of_the_gradient(objective, images, **options):
    def step(gradient):
        length = gradient.flatten(1).norm(dim=1).view(-1, 1, 1, 1)
        return torch.where(length > 0, gradient / length, 0.0)

    return ascend(objective, images, step=step, **options)


@wrong(
    "activation_maximization",
    "You keep only the sign of the gradient, so that every pixel moves equally far, however little it matters. That is "
    "how some adversarial examples are made; the step asked for keeps the proportions.",
)
def sign_of_the_gradient(objective, images, **options):
    return ascend(objective, images, step=torch.sign, **options)


@wrong(
    "activation_maximization",
    "Your penalties are rewards: they are added to the score, so the images become as rough and as dark as they can. "
    "A price is subtracted.",
)
def penalties_added(objective, images, **options):
    return ascend(objective, images, penalty_sign=1.0, **options)


@wrong(
    "activation_maximization",
    "`l2_weight` has no effect in your function. The sum of squared pixels, times that weight, is to be subtracted "
    "from the score before the gradient is taken.",
)
def without_l2(objective, images, *, l2_weight=0.0, **options):
    return ascend(objective, images, **options)


@wrong(
    "activation_maximization",
    "`tv_weight` has no effect in your function. Total variation, times that weight, is to be subtracted from the "
    "score before the gradient is taken.",
)
def without_tv(objective, images, *, tv_weight=0.0, **options):
    return ascend(objective, images, **options)


@wrong(
    "activation_maximization",
    "The scores that you report have the penalties in them. They are a part of what is climbed and not of what is "
    "asked: keep the objective's own values.",
)
def reports_the_penalised_score(objective, images, **options):
    return ascend(objective, images, report_penalty=True, **options)


@wrong(
    "activation_maximization",
    "You clip the pixels to 0 and 1, whatever `pixel_range` says.",
)
def always_zero_to_one(objective, images, *, pixel_range=(0.0, 1.0), **options):
    check_ascent(images, 1, pixel_range)
    return ascend(objective, images, pixel_range=(0.0, 1.0), **options)


@wrong(
    "activation_maximization",
    "You clip once, after the last step. Between the steps pixels leave their range, the model is asked about images "
    "that cannot exist, and the gradients belong to those.",
)
def clipped_at_the_end(objective, images, *, pixel_range=(0.0, 1.0), **options):
    check_ascent(images, 1, pixel_range)
    found, history = ascend(objective, images, pixel_range=(-math.inf, math.inf), **options)
    return found.clamp(*pixel_range), history


@wrong(
    "activation_maximization",
    "An image without a gradient (a unit that is off whatever one does) makes you divide 0 by 0, and all its pixels "
    "become NaN. Let it stay as it is.",
)
def zero_by_zero(objective, images, **options):
    return ascend(objective, images, step=lambda g: g / rms_of_each(g), **options)


@wrong(
    "activation_maximization",
    "`backward()` gave gradients to the model's parameters as well, and they are still there: an optimiser that comes "
    "next would take a step along them. `torch.autograd.grad` asks for the gradient of the pixels and leaves the rest.",
)
def backward_through_everything(
    objective, images, *, n_steps, step_size, tv_weight=0.0, l2_weight=0.0, pixel_range=(0.0, 1.0)
):
    check_ascent(images, n_steps, pixel_range)
    x, history = images.clone(), []
    for _ in range(n_steps):
        x = x.detach().requires_grad_()
        scores = checked(objective(x), x)
        (scores - tv_weight * total_variation(x) - l2_weight * x.pow(2).flatten(1).sum(1)).sum().backward()
        x = (x.detach() + step_size * unit_step(x.grad)).clamp(*pixel_range)
        history.append(scores.detach())
    return x, torch.stack(history)


@wrong(
    "activation_maximization",
    "An objective that returns one score for the whole batch goes through. Its gradient mixes the images, and the "
    "history has a row too few dimensions; the docstring asks for a ValueError unless the scores are [batch].",
)
def one_score_for_the_batch(objective, images, **options):
    def accept(scores, x):
        if scores.ndim and scores.shape != x.shape[:1]:
            raise ValueError("objective must return one score for each image")
        return scores

    return ascend(objective, images, accept=accept, **options)


@wrong(
    "activation_maximization",
    "Scores of any shape go through, or of any with the right first dimension. An objective that returns something "
    "else than [batch] is to be refused with a ValueError, or its gradient is that of an accidental sum.",
)
def any_scores(objective, images, **options):
    return ascend(objective, images, accept=lambda scores, x: scores, **options)


@wrong(
    "activation_maximization",
    "You clip the images before the first step. The first scores are then not those of the images that you were given; "
    "clip after each step.",
)
def clipped_at_the_start(objective, images, *, pixel_range=(0.0, 1.0), **options):
    check_ascent(images, 1, pixel_range)
    return ascend(objective, images.clamp(*pixel_range), pixel_range=pixel_range, **options)


@wrong(
    "activation_maximization",
    "What keeps you from dividing by zero is not small beside the root mean square: where the gradients are around "
    "1e-5 (a certain network's, say), your steps are a part of `step_size`. Added to the root, 1e-8 is enough; inside "
    "the root, 1e-8 is as much as 1e-4 outside.",
)
def too_much_added(objective, images, **options):
    return ascend(objective, images, step=lambda g: g / (rms_of_each(g) + 3e-7), **options)


@wrong(
    "activation_maximization",
    "You take small gradients for zero, and leave their images where they are. Only a gradient of exactly zero points "
    "nowhere; a network that is very certain has gradients of 1e-5 and less.",
)
def small_taken_for_zero(objective, images, **options):
    def step(gradient):
        rms = rms_of_each(gradient)
        return torch.where(rms > 1e-4, gradient / rms, 0.0)

    return ascend(objective, images, step=step, **options)


@wrong(
    "activation_maximization",
    "Your penalty is the root of the sum of squares. The formula has the sum itself: its gradient grows with the "
    "pixels.",
)
def root_of_the_squares(objective, images, **options):
    return ascend(objective, images, squares=lambda x: x.flatten(1).norm(dim=1), **options)


@wrong(
    "activation_maximization",
    "Your penalty is the mean of the squared pixels where the docstring has their sum: the same weight then does less "
    "the larger the image is.",
)
def mean_of_the_squares(objective, images, **options):
    return ascend(objective, images, squares=lambda x: x.pow(2).flatten(1).mean(1), **options)


@wrong(
    "activation_maximization",
    "Your scores are those after each step. The docstring asks for the scores before it, so that the first row says "
    "where the walk began.",
)
def scores_after_the_step(objective, images, **options):
    found, history = ascend(objective, images, **options)
    return found, torch.cat([history[1:], objective(found).detach()[None]])


@wrong(
    "activation_maximization",
    "The scores that you return still carry a graph, and with it every run of the model. Keep `scores.detach()`.",
)
def scores_in_the_graph(objective, images, **options):
    found, history = ascend(objective, images, **options)
    with torch.enable_grad():
        return found, history + 0 * objective(found.clone().requires_grad_())


@wrong(
    "activation_maximization",
    "You divide by the gradient's largest entry. The docstring divides by the root mean square, so that `step_size` is "
    "what a typical pixel moves by, and not the most that any does.",
)
def largest_entry_of_the_gradient(objective, images, **options):
    def step(gradient):
        return gradient / gradient.abs().amax((1, 2, 3), keepdim=True).clamp_min(1e-30)

    return ascend(objective, images, step=step, **options)


@wrong(
    "activation_maximization",
    "You divide by the mean of the absolute values. The docstring has the root of the mean of the squares.",
)
def mean_size_of_the_gradient(objective, images, **options):
    def step(gradient):
        return gradient / gradient.abs().mean((1, 2, 3), keepdim=True).clamp_min(1e-30)

    return ascend(objective, images, step=step, **options)


@wrong(
    "activation_maximization",
    "You divide by the standard deviation, which leaves the gradient's mean out. The root mean square does not: rms² "
    "is variance plus mean².",
)
def deviation_of_the_gradient(objective, images, **options):
    def step(gradient):
        deviation = gradient.flatten(1).std(1).view(-1, 1, 1, 1)
        return torch.where(deviation > 0, gradient / deviation, 0.0)

    return ascend(objective, images, step=step, **options)


@wrong(
    "activation_maximization",
    "Your root mean square is taken for each channel by itself. It is over all pixels of one image, in all channels.",
)
def rms_of_each_channel(objective, images, **options):
    def step(gradient):
        rms = gradient.pow(2).mean((2, 3), keepdim=True).sqrt()
        return torch.where(rms > 0, gradient / rms, 0.0)

    return ascend(objective, images, step=step, **options)


@wrong(
    "activation_maximization",
    "Your penalty is half of the sum of squares, as in some optimisers. The docstring has the whole sum.",
)
def half_of_the_squares(objective, images, **options):
    return ascend(objective, images, squares=lambda x: 0.5 * x.pow(2).flatten(1).sum(1), **options)


@wrong(
    "activation_maximization",
    "You use an optimiser with a memory (Adam, momentum). A step depends on this step's gradient alone.",
)
def steps_with_momentum(objective, images, **options):
    velocity = []

    def step(gradient):
        velocity.append(unit_step(gradient) + (0.9 * velocity[-1] if velocity else 0))
        return velocity[-1]

    return ascend(objective, images, step=step, **options)


@wrong(
    "activation_maximization",
    "The gradients of all steps so far add up in yours: `x.grad` keeps what is there, and the next `backward()` adds "
    "to it. Empty it before each step, or ask `torch.autograd.grad`.",
)
def gradients_add_up(objective, images, **options):
    total = []

    def step(gradient):
        total.append(gradient + (total[-1] if total else 0))
        return unit_step(total[-1])

    return ascend(objective, images, step=step, **options)


@wrong(
    "activation_maximization",
    "Your scores are [batch, step]. The docstring has a row for each step: [step, batch].",
)
def a_row_for_each_image(objective, images, **options):
    found, history = ascend(objective, images, **options)
    return found, history.T


@wrong(
    "activation_maximization",
    "Your scores are a list. The docstring asks for one tensor [step, batch]: `torch.stack`.",
)
def scores_in_a_list(objective, images, **options):
    found, history = ascend(objective, images, **options)
    return found, list(history)


@right("activation_maximization")
def backward_into_the_image(
    objective, images, *, n_steps, step_size, tv_weight=0.0, l2_weight=0.0, pixel_range=(0.0, 1.0)
):
    check_ascent(images, n_steps, pixel_range)
    x, history = torch.nn.Parameter(images.clone()), []
    for _ in range(n_steps):
        x.grad = None
        scores = checked(objective(x), x)
        loss = -(scores - tv_weight * total_variation(x) - l2_weight * (x * x).sum((1, 2, 3))).sum()
        loss.backward(inputs=[x])
        with torch.no_grad():
            for image, gradient in zip(x, x.grad, strict=True):
                if gradient.any():
                    image -= step_size * gradient / gradient.square().mean().sqrt()
            x.clamp_(*pixel_range)
        history.append(scores.detach())
    return x.detach(), torch.stack(history)


@right("activation_maximization")
def as_much_added_as_allowed(objective, images, **options):
    return ascend(objective, images, step=lambda g: g / (rms_of_each(g) + 1e-7), **options)


@right("activation_maximization")
def a_little_added_to_the_rms(objective, images, **options):
    return ascend(objective, images, step=lambda g: g / (rms_of_each(g) + 1e-8), **options)


@right("activation_maximization")
def penalties_by_hand(objective, images, *, tv_weight=0.0, l2_weight=0.0, **options):
    """The L2 gradient written down instead of derived."""
    four_dimensional(images)
    if tv_weight or not l2_weight:
        return ascend(objective, images, tv_weight=tv_weight, l2_weight=l2_weight, **options)
    low, high = options.get("pixel_range", (0.0, 1.0))
    x, history = images.clone(), []
    for _ in range(options["n_steps"]):
        x = x.detach().requires_grad_()
        scores = objective(x)
        x = (x + options["step_size"] * unit_step(gradient_of(scores, x) - 2 * l2_weight * x)).clamp(low, high)
        history.append(scores.detach())
    return x.detach(), torch.stack(history)


# fourier_to_images


def frequencies(height, width, like):
    f_y = torch.fft.fftfreq(height, dtype=like.dtype, device=like.device)
    f_x = torch.fft.rfftfreq(width, dtype=like.dtype, device=like.device)
    return (f_y[:, None] ** 2 + f_x**2).sqrt()


def from_spectrum(coefficients, width, scale, **options):
    if coefficients.ndim != 5 or coefficients.shape[-2:] != (width // 2 + 1, 2):
        raise ValueError("coefficients do not fit the width")
    spectrum = torch.view_as_complex(coefficients.contiguous()) * scale(coefficients.shape[2])
    return torch.fft.irfft2(spectrum, **({"s": (coefficients.shape[2], width), "norm": "ortho"} | options))


@wrong(
    "fourier_to_images",
    "All your frequencies count alike: `decay` has no effect. Divide each coefficient by its frequency to that power.",
)
def all_alike(coefficients, width, *, decay=1.0):
    return from_spectrum(coefficients, width, lambda height: 1.0)


@wrong(
    "fourier_to_images",
    "You multiply by the frequency where it should be a division: fine detail is amplified, and smooth shapes are "
    "suppressed.",
)
def amplifies_detail(coefficients, width, *, decay=1.0):
    def scale(height):
        return frequencies(height, width, coefficients).clamp_min(1 / max(height, width)) ** decay

    return from_spectrum(coefficients, width, scale)


@wrong(
    "fourier_to_images",
    "Your images lose a column whenever the width is odd: the width is taken to be even, as the inverse transform does "
    "unless it is told. `s=(height, width)` tells it.",
)
def even_widths_only(coefficients, width, *, decay=1.0):
    def scale(height):
        return 1 / frequencies(height, width, coefficients).clamp_min(1 / max(height, width)) ** decay

    return from_spectrum(coefficients, width, scale, s=(coefficients.shape[2], 2 * (width // 2) or 1))


@wrong(
    "fourier_to_images",
    "You take row v to be the frequency v / height. From the middle on the rows hold negative frequencies: the last "
    "row is a slow wave, one cycle per image, and you treat it as the fastest.",
)
def no_negative_frequencies(coefficients, width, *, decay=1.0):
    def scale(height):
        f_y = torch.arange(height, dtype=coefficients.dtype) / height
        f_x = torch.fft.rfftfreq(width, dtype=coefficients.dtype)
        return 1 / (f_y[:, None] ** 2 + f_x**2).sqrt().clamp_min(1 / max(height, width)) ** decay

    return from_spectrum(coefficients, width, scale)


@wrong(
    "fourier_to_images",
    "Your `decay` works like twice its value. f_y² + f_x² without the root is the square of the frequency; nor should "
    "the exponent be doubled, as it would be for the power of a wave instead of its height.",
)
def squared_frequency(coefficients, width, *, decay=1.0):
    def scale(height):
        squared = frequencies(height, width, coefficients) ** 2
        return 1 / squared.clamp_min(1 / max(height, width) ** 2) ** decay

    return from_spectrum(coefficients, width, scale)


@wrong(
    "fourier_to_images",
    "Your lower limit for the frequency is one cycle along the *shorter* side. In an image that is not square, the "
    "slowest waves along the longer side are then held back too.",
)
def limit_of_the_shorter_side(coefficients, width, *, decay=1.0):
    def scale(height):
        return 1 / frequencies(height, width, coefficients).clamp_min(1 / min(height, width)) ** decay

    return from_spectrum(coefficients, width, scale)


@wrong(
    "fourier_to_images",
    "You set the coefficient of frequency 0 aside, so that no image has a mean. It gets the factor of the limit, "
    "max(height, width)^decay, like the slowest wave.",
)
def no_mean(coefficients, width, *, decay=1.0):
    def scale(height):
        factor = 1 / frequencies(height, width, coefficients).clamp_min(1 / max(height, width)) ** decay
        factor[0, 0] = 0
        return factor

    return from_spectrum(coefficients, width, scale)


@wrong(
    "fourier_to_images",
    "Your inverse transform divides by the number of pixels, PyTorch's default. With norm='ortho' it divides by the "
    "root of that number only, and your images are too faint by as much.",
)
def default_norm(coefficients, width, *, decay=1.0):
    def scale(height):
        return 1 / frequencies(height, width, coefficients).clamp_min(1 / max(height, width)) ** decay

    return from_spectrum(coefficients, width, scale, norm="backward")


@wrong(
    "fourier_to_images",
    "The first coefficient has frequency 0, and you divide by it: the mean becomes infinite and every pixel NaN. "
    "Frequencies below 1 / max(height, width) count as that.",
)
def divided_by_zero(coefficients, width, *, decay=1.0):
    return from_spectrum(coefficients, width, lambda height: 1 / frequencies(height, width, coefficients) ** decay)


@wrong(
    "fourier_to_images",
    "You take the first number of each pair for the imaginary part. It is the real one: the pairs are those of "
    "`torch.view_as_real`.",
)
def parts_exchanged(coefficients, width, *, decay=1.0):
    def scale(height):
        return 1 / frequencies(height, width, coefficients).clamp_min(1 / max(height, width)) ** decay

    return from_spectrum(coefficients.flip(-1), width, scale)


@wrong(
    "fourier_to_images",
    "Your frequencies are in cycles per image and not per pixel: all images come out smaller, by the side to the power "
    "`decay`.",
)
def cycles_per_image(coefficients, width, *, decay=1.0):
    def scale(height):
        f_y = torch.fft.fftfreq(height, 1 / height, dtype=coefficients.dtype)
        f_x = torch.fft.rfftfreq(width, 1 / width, dtype=coefficients.dtype)
        return 1 / (f_y[:, None] ** 2 + f_x**2).sqrt().clamp_min(1) ** decay

    return from_spectrum(coefficients, width, scale)


@wrong(
    "fourier_to_images",
    "Your frequency is the sum |f_y| + |f_x|. The docstring has the length of the pair, the root of the sum of "
    "squares: a slanted wave is no faster than an upright one.",
)
def sum_of_frequencies(coefficients, width, *, decay=1.0):
    def scale(height):
        f_y = torch.fft.fftfreq(height, dtype=coefficients.dtype).abs()
        f_x = torch.fft.rfftfreq(width, dtype=coefficients.dtype)
        return 1 / (f_y[:, None] + f_x).clamp_min(1 / max(height, width)) ** decay

    return from_spectrum(coefficients, width, scale)


@wrong(
    "fourier_to_images",
    "A small number is added to the frequencies against the division by zero. The docstring has a lower limit, "
    "1 / max(height, width): below it all frequencies count as that, and above it as they are.",
)
def number_added_to_the_frequency(coefficients, width, *, decay=1.0):
    return from_spectrum(
        coefficients, width, lambda height: 1 / (frequencies(height, width, coefficients) + 1e-3) ** decay
    )


@wrong(
    "fourier_to_images",
    "Your images are squashed already (a sigmoid at the end). The docstring leaves that to the caller: with decay 0, "
    "the coefficients of an image give the image back.",
)
def squashed_already(coefficients, width, *, decay=1.0):
    def scale(height):
        return 1 / frequencies(height, width, coefficients).clamp_min(1 / max(height, width)) ** decay

    return from_spectrum(coefficients, width, scale).sigmoid()


@wrong(
    "fourier_to_images",
    "No gradient reaches the coefficients: something cuts them out of the graph (`detach`, or new numbers made from "
    "them). They are what an optimiser is to turn.",
)
def waves_out_of_the_graph(coefficients, width, *, decay=1.0):
    def scale(height):
        return 1 / frequencies(height, width, coefficients).clamp_min(1 / max(height, width)) ** decay

    return from_spectrum(coefficients.detach(), width, scale)


@wrong(
    "fourier_to_images",
    "`decay` has no effect: your exponent is always 1.",
)
def decay_of_one(coefficients, width, *, decay=1.0):
    def scale(height):
        return 1 / frequencies(height, width, coefficients).clamp_min(1 / max(height, width))

    return from_spectrum(coefficients, width, scale)


@wrong(
    "fourier_to_images",
    "Only the frequency across counts in your function. Waves that run down the image are scaled as if they were slow.",
)
def frequency_across_only(coefficients, width, *, decay=1.0):
    def scale(height):
        f_x = torch.fft.rfftfreq(width, dtype=coefficients.dtype)
        return 1 / f_x.clamp_min(1 / max(height, width)).expand(height, -1) ** decay

    return from_spectrum(coefficients, width, scale)


@wrong(
    "fourier_to_images",
    "Your lower limit for the frequency is one cycle along the width. It is one along the *longer* side, which can be "
    "the height.",
)
def limit_of_the_width(coefficients, width, *, decay=1.0):
    def scale(height):
        return 1 / frequencies(height, width, coefficients).clamp_min(1 / width) ** decay

    return from_spectrum(coefficients, width, scale)


@wrong(
    "fourier_to_images",
    "Your inverse transform divides by nothing (norm='forward'): the images come out too large, by the root of the "
    "number of pixels. With norm='ortho' the transform keeps lengths.",
)
def forward_norm(coefficients, width, *, decay=1.0):
    def scale(height):
        return 1 / frequencies(height, width, coefficients).clamp_min(1 / max(height, width)) ** decay

    return from_spectrum(coefficients, width, scale, norm="forward")


@right("fourier_to_images")
def frequencies_in_single_precision(coefficients, width, *, decay=1.0):
    if coefficients.ndim != 5 or coefficients.shape[-2:] != (width // 2 + 1, 2):
        raise ValueError("coefficients do not fit the width")
    height = coefficients.shape[2]
    f = torch.hypot(torch.fft.fftfreq(height)[:, None], torch.fft.rfftfreq(width)).clamp(min=1 / max(height, width))
    spectrum = torch.view_as_complex(coefficients.contiguous()) / f.to(coefficients.device) ** decay
    return torch.fft.irfft2(spectrum, s=(height, width), norm="ortho")


@right("fourier_to_images")
def real_and_imaginary_apart(coefficients, width, *, decay=1.0):
    if coefficients.ndim != 5 or coefficients.shape[-2:] != (width // 2 + 1, 2):
        raise ValueError("coefficients do not fit the width")
    height = coefficients.shape[2]
    limited = frequencies(height, width, coefficients).clip(min=1 / max(height, width))
    scaled = coefficients * (limited**-decay).to(coefficients.dtype)[..., None]
    spectrum = torch.complex(scaled[..., 0], scaled[..., 1])
    return torch.fft.irfft(torch.fft.ifft(spectrum, dim=-2), n=width, dim=-1) * math.sqrt(height * width)


@right("fourier_to_images")
def one_axis_after_the_other(coefficients, width, *, decay=1.0):
    if coefficients.ndim != 5 or coefficients.shape[-2:] != (width // 2 + 1, 2):
        raise ValueError("coefficients do not fit the width")
    height = coefficients.shape[2]
    scale = torch.ones(height, width // 2 + 1, dtype=coefficients.dtype)
    for v in range(height):
        for u in range(width // 2 + 1):
            cycles = math.hypot(min(v, height - v) / height, u / width)
            scale[v, u] = max(cycles, 1 / max(height, width)) ** -decay
    spectrum = torch.view_as_complex((coefficients * scale[..., None]).contiguous())
    return torch.fft.irfft(torch.fft.ifft(spectrum, dim=-2, norm="ortho"), n=width, dim=-1, norm="ortho")


# transform_robust_visualization


def ascend_shifted(
    objective,
    parameters,
    to_images,
    *,
    max_shift,
    n_steps,
    step_size,
    generator,
    draw=None,
    step=unit_step,
    limit=lambda p: p,
    finish=lambda images, shifts: images,
    accept=None,
    begin=lambda p: p,
    move=None,
):
    """Ascent under shifts with one thing or another done differently."""
    if max_shift < 0 or n_steps < 1:
        raise ValueError("bad max_shift or n_steps")
    p, history = begin(parameters.clone()), []
    for number in range(n_steps):
        p = p.detach().requires_grad_()
        shifts = torch.randint(-max_shift, max_shift + 1, (2,), generator=generator).tolist()
        if draw is not None:
            shifts = draw(number, shifts)
        moved = to_images(p).roll(shifts, dims=(-2, -1)) if move is None else move(p, shifts)
        scores = (accept or checked)(objective(moved), p)
        p = limit(p + step_size * step(gradient_of(scores, p)))
        history.append(scores.detach())
    return finish(to_images(p).detach(), shifts), torch.stack(history)


@wrong(
    "transform_robust_visualization",
    "Nothing is shifted in your function. The network always sees the image in the same place, and details that are "
    "right for single pixels survive.",
)
def never_shifted(objective, parameters, to_images, **options):
    return ascend_shifted(objective, parameters, to_images, draw=lambda number, shifts: [0, 0], **options)


@wrong(
    "transform_robust_visualization",
    "Your shifts go to the right only. Draw two numbers in each step: the first is down, the second to the right.",
)
def sideways_only(objective, parameters, to_images, **options):
    return ascend_shifted(objective, parameters, to_images, draw=lambda number, shifts: [0, shifts[1]], **options)


@wrong(
    "transform_robust_visualization",
    "Your two shifts are swapped: of the two numbers drawn, the first is down (dimension -2), the second to the right "
    "(dimension -1).",
)
def swapped(objective, parameters, to_images, **options):
    return ascend_shifted(objective, parameters, to_images, draw=lambda number, shifts: shifts[::-1], **options)


@wrong(
    "transform_robust_visualization",
    "You draw the shift once, before the loop. One shift for all steps is as good as none: the image adapts to it. "
    "Draw a new one in every step.",
)
def one_shift_for_all(objective, parameters, to_images, **options):
    first = []

    def draw(number, shifts):
        first.append(shifts)
        return first[0]

    return ascend_shifted(objective, parameters, to_images, draw=draw, **options)


@wrong(
    "transform_robust_visualization",
    "The upper end of `torch.randint` is not included, so that you never shift by +max_shift, and the images drift to "
    "one side.",
)
def upper_end_left_out(objective, parameters, to_images, *, max_shift, n_steps, step_size, generator):
    if max_shift < 0 or n_steps < 1:
        raise ValueError("bad max_shift or n_steps")
    p, history = parameters.clone(), []
    for _ in range(n_steps):
        p = p.detach().requires_grad_()
        shifts = torch.randint(-max_shift, max(max_shift, 1 - max_shift), (2,), generator=generator).tolist()
        scores = checked(objective(to_images(p).roll(shifts, dims=(-2, -1))), p)
        p = p + step_size * unit_step(gradient_of(scores, p))
        history.append(scores.detach())
    return to_images(p).detach(), torch.stack(history)


@wrong(
    "transform_robust_visualization",
    "The images that you return are still shifted, by what the last step happened to draw. Make them once more from "
    "the parameters.",
)
def returned_shifted(objective, parameters, to_images, **options):
    return ascend_shifted(
        objective, parameters, to_images, finish=lambda images, shifts: images.roll(shifts, dims=(-2, -1)), **options
    )


@wrong(
    "transform_robust_visualization",
    "The root mean square that you divide by is the whole batch's. Each image has parameters of its own and takes "
    "steps of its own length.",
)
def batch_rms(objective, parameters, to_images, **options):
    return ascend_shifted(objective, parameters, to_images, step=lambda g: g / g.pow(2).mean().sqrt(), **options)


@wrong(
    "transform_robust_visualization",
    "You clip the parameters to [0, 1]. They are no pixels: Fourier coefficients are negative half of the time. "
    "Keeping pixels in their range is the business of `to_images`.",
)
def parameters_clipped(objective, parameters, to_images, **options):
    return ascend_shifted(objective, parameters, to_images, limit=lambda p: p.clamp(0, 1), **options)


@wrong(
    "transform_robust_visualization",
    "Where no change of the parameters helps, you divide 0 by 0 and get an image of NaN. Let it stay as it is.",
)
def nan_without_gradient(objective, parameters, to_images, **options):
    return ascend_shifted(objective, parameters, to_images, step=lambda g: g / rms_of_each(g), **options)


@wrong(
    "transform_robust_visualization",
    "You call `backward()`, which leaves gradients on the model's parameters. Ask `torch.autograd.grad` for those of "
    "the image's parameters alone.",
)
def gradients_left_behind(objective, parameters, to_images, *, max_shift, n_steps, step_size, generator):
    if max_shift < 0 or n_steps < 1:
        raise ValueError("bad max_shift or n_steps")
    p, history = parameters.clone(), []
    for _ in range(n_steps):
        p = p.detach().requires_grad_()
        shifts = torch.randint(-max_shift, max_shift + 1, (2,), generator=generator).tolist()
        scores = checked(objective(to_images(p).roll(shifts, dims=(-2, -1))), p)
        scores.sum().backward()
        p = p.detach() + step_size * unit_step(p.grad)
        history.append(scores.detach())
    return to_images(p), torch.stack(history)


@wrong(
    "transform_robust_visualization",
    "Your shifts go the other way: up and to the left. A positive number is down, or to the right, as in `torch.roll`.",
)
def the_other_way(objective, parameters, to_images, **options):
    return ascend_shifted(
        objective, parameters, to_images, draw=lambda number, shifts: [-shift for shift in shifts], **options
    )


@wrong(
    "transform_robust_visualization",
    "One number is drawn and used for both directions, so that the images move along a diagonal only. Draw two.",
)
def along_the_diagonal(objective, parameters, to_images, **options):
    return ascend_shifted(objective, parameters, to_images, draw=lambda number, shifts: 2 * shifts[:1], **options)


@wrong(
    "transform_robust_visualization",
    "The gradient is taken as it is, so that the length of a step depends on the model's numbers. Divide each image's "
    "by its root mean square.",
)
def gradient_as_it_is(objective, parameters, to_images, **options):
    return ascend_shifted(objective, parameters, to_images, step=lambda g: g, **options)


@wrong(
    "transform_robust_visualization",
    "Your parameters walk downhill: the scores fall. They should grow.",
)
def down_under_shifts(objective, parameters, to_images, **options):
    return ascend_shifted(objective, parameters, to_images, step=lambda g: -unit_step(g), **options)


@wrong(
    "transform_robust_visualization",
    "An objective that returns one score for the whole batch goes through. The docstring asks for a ValueError unless "
    "the scores are [batch].",
)
def one_score_under_shifts(objective, parameters, to_images, **options):
    def accept(scores, p):
        if scores.ndim and scores.shape != p.shape[:1]:
            raise ValueError("objective must return one score for each image")
        return scores

    return ascend_shifted(objective, parameters, to_images, accept=accept, **options)


@wrong(
    "transform_robust_visualization",
    "Scores of any shape go through, or of any with the right first dimension. An objective that returns something "
    "else than [batch] is to be refused with a ValueError.",
)
def any_scores_under_shifts(objective, parameters, to_images, **options):
    return ascend_shifted(objective, parameters, to_images, accept=lambda scores, p: scores, **options)


@wrong(
    "transform_robust_visualization",
    "The parameters are clipped to [0, 1] before the first step. They need be no pixels, and nothing is clipped here.",
)
def start_clipped(objective, parameters, to_images, **options):
    return ascend_shifted(objective, parameters, to_images, begin=lambda p: p.clamp(0, 1), **options)


@wrong(
    "transform_robust_visualization",
    "What keeps you from dividing by zero is not small beside the root mean square: where the gradients are around "
    "1e-5 (a certain network's, say), your steps are a part of `step_size`. Added to the root, 1e-8 is enough; inside "
    "the root, 1e-8 is as much as 1e-4 outside.",
)
def added_too_much(objective, parameters, to_images, **options):
    return ascend_shifted(objective, parameters, to_images, step=lambda g: g / (rms_of_each(g) + 3e-7), **options)


@wrong(
    "transform_robust_visualization",
    "What you return still carries a graph: the images and the scores are to be looked at and not differentiated.",
)
def returned_in_the_graph(objective, parameters, to_images, **options):
    images, history = ascend_shifted(objective, parameters, to_images, **options)
    return images.requires_grad_(), history


@wrong(
    "transform_robust_visualization",
    "You shift the parameters. They need not have places at all; it is the images made from them that are moved.",
)
def parameters_shifted(objective, parameters, to_images, **options):
    return ascend_shifted(
        objective,
        parameters,
        to_images,
        move=lambda p, shifts: to_images(p.roll(shifts, dims=(-2, -1)) if p.ndim > 2 else p),
        **options,
    )


@wrong(
    "transform_robust_visualization",
    "What leaves the image at one edge is lost in your function, and zeros come in at the other. The docstring lets it "
    "come back there, as `torch.roll` does.",
)
def zeros_come_in(objective, parameters, to_images, **options):
    def move(p, shifts):
        images = to_images(p)
        down, across = shifts
        room = max(abs(down), abs(across))
        height, width = images.shape[2:]
        wide = F.pad(images, (room, room, room, room))
        return wide[:, :, room - down :][..., :height, room - across :][..., :width]

    return ascend_shifted(objective, parameters, to_images, move=move, **options)


@wrong(
    "transform_robust_visualization",
    "Each image of the batch gets a shift of its own. In a step the whole batch is shifted by the same two numbers.",
)
def a_shift_for_each_image(objective, parameters, to_images, *, max_shift, generator, **options):
    def move(p, shifts):
        moved = []
        for i, image in enumerate(to_images(p)):
            if i:
                shifts = torch.randint(-max_shift, max_shift + 1, (2,), generator=generator).tolist()
            moved.append(image.roll(shifts, dims=(-2, -1)))
        return torch.stack(moved)

    return ascend_shifted(
        objective, parameters, to_images, max_shift=max_shift, generator=generator, move=move, **options
    )


@wrong(
    "transform_robust_visualization",
    "Your root mean square leaves out the last of the parameters' dimensions. Parameters can have any number of them, "
    "and the mean is over all but the batch.",
)
def rms_over_three_dimensions(objective, parameters, to_images, **options):
    def step(gradient):
        rms = gradient.pow(2).mean(tuple(range(1, min(4, gradient.ndim))), keepdim=True).sqrt()
        return torch.where(rms > 0, gradient / rms, 0.0)

    return ascend_shifted(objective, parameters, to_images, step=step, **options)


@wrong(
    "transform_robust_visualization",
    "The gradients of all steps so far add up in yours: `grad` keeps what is there, and the next `backward()` adds to "
    "it. Empty it before each step, or ask `torch.autograd.grad`.",
)
def gradients_add_up_under_shifts(objective, parameters, to_images, **options):
    total = []

    def step(gradient):
        total.append(gradient + (total[-1] if total else 0))
        return unit_step(total[-1])

    return ascend_shifted(objective, parameters, to_images, step=step, **options)


@wrong(
    "transform_robust_visualization",
    "You divide by the gradient's length, the root of the *sum* of squares. The docstring divides by the root of their "
    "*mean*, so that `step_size` is what a typical parameter moves by, however many there are.",
)
def length_under_shifts(objective, parameters, to_images, **options):
    def step(gradient):
        length = gradient.flatten(1).norm(dim=1).view(-1, *[1] * (gradient.ndim - 1))
        return torch.where(length > 0, gradient / length, 0.0)

    return ascend_shifted(objective, parameters, to_images, step=step, **options)


@right("transform_robust_visualization")
def a_little_added(objective, parameters, to_images, **options):
    return ascend_shifted(objective, parameters, to_images, step=lambda g: g / (rms_of_each(g) + 1e-8), **options)


@right("transform_robust_visualization")
def two_rolls(objective, parameters, to_images, *, max_shift, n_steps, step_size, generator):
    if max_shift < 0:
        raise ValueError("max_shift must not be negative")
    if n_steps < 1:
        raise ValueError("n_steps must be at least 1")
    p = torch.nn.Parameter(parameters.clone())
    history = torch.zeros(n_steps, len(parameters), dtype=parameters.dtype)
    for number in range(n_steps):
        down, right_ = torch.randint(-max_shift, max_shift + 1, (2,), generator=generator)
        seen = torch.roll(torch.roll(to_images(p), int(right_), -1), int(down), -2)
        scores = objective(seen)
        if scores.shape != (len(parameters),):
            raise ValueError("objective must return one score for each image")
        p.grad = None
        scores.sum().backward(inputs=[p])
        with torch.no_grad():
            for row, gradient in zip(p, p.grad, strict=True):
                if gradient.any():
                    row += step_size * gradient / (gradient**2).mean() ** 0.5
        history[number] = scores.detach()
    return to_images(p).detach(), history


@right("transform_robust_visualization")
def objective_moved_instead(objective, parameters, to_images, *, max_shift, n_steps, step_size, generator):
    """Rows and columns taken in another order, by index, which gives the same shifted image."""
    if max_shift < 0 or n_steps < 1:
        raise ValueError("bad max_shift or n_steps")
    p, history = parameters.clone(), []
    for _ in range(n_steps):
        p = p.detach().requires_grad_()
        down, across = torch.randint(-max_shift, max_shift + 1, (2,), generator=generator).tolist()
        images = to_images(p)
        rows = (torch.arange(images.shape[2]) - down) % images.shape[2]
        columns = (torch.arange(images.shape[3]) - across) % images.shape[3]
        scores = checked(objective(images[:, :, rows][..., columns]), p)
        p = p + step_size * unit_step(gradient_of(scores, p))
        history.append(scores.detach())
    return to_images(p).detach(), torch.stack(history)


# diversity_loss


def enough(activations):
    if activations.ndim != 4 or len(activations) < 2:
        raise ValueError("activations must be [batch, channel, height, width] with at least two images")


def grams(activations):
    """Of images of length 1, so that the Gram matrix of a faint image is not lost."""
    places = F.normalize(activations.flatten(1), dim=1).view_as(activations).flatten(2)
    return (places @ places.mT).flatten(1)


def normalised_grams(activations):
    return F.normalize(grams(activations), dim=1)


def longest(activations):
    top = activations.detach().abs().amax((1, 2, 3), keepdim=True)
    return torch.where(top > 0, top, torch.ones_like(top))


def mean_of_pairs(similarity):
    n = len(similarity)
    return (similarity.sum() - similarity.diagonal().sum()) / (n * (n - 1))


@wrong(
    "diversity_loss",
    "Each image is compared with itself as well. Such a similarity is 1 for every image with any activation, so small "
    "batches look alike whatever they show.",
)
def with_oneself(activations):
    enough(activations)
    unit = normalised_grams(activations)
    return (unit @ unit.T).mean()


@wrong(
    "diversity_loss",
    "You return the sum over all pairs. The loss is their mean, so that a weight means the same for four images and "
    "for ten.",
)
def sum_over_pairs(activations):
    enough(activations)
    unit = normalised_grams(activations)
    similarity = unit @ unit.T
    return similarity.sum() - similarity.diagonal().sum()


@wrong(
    "diversity_loss",
    "You compare the activations themselves, place by place. Then the same picture moved by one pixel counts as "
    "another, and the cheapest way to be diverse is to shift. Compare the Gram matrices, which know no places.",
)
def place_by_place(activations):
    enough(activations)
    flat = F.normalize(activations.flatten(1), dim=1)
    return mean_of_pairs(flat @ flat.T)


@wrong(
    "diversity_loss",
    "Your Gram matrices are [place, place]: which places look alike. They should be [channel, channel]: which channels "
    "are active together, summed over places.",
)
def gram_of_places(activations):
    enough(activations)
    places = F.normalize(activations.flatten(1), dim=1).view_as(activations).flatten(2)
    unit = F.normalize((places.mT @ places).flatten(1), dim=1)
    return mean_of_pairs(unit @ unit.T)


@wrong(
    "diversity_loss",
    "Your Gram matrices are not brought to length 1 before they are compared. The loss then falls when all activations "
    "fall, and that is not diversity.",
)
def without_lengths(activations):
    enough(activations)
    places = activations.flatten(2)
    raw = (places @ places.mT).flatten(1)
    return mean_of_pairs(raw @ raw.T)


@wrong(
    "diversity_loss",
    "Your sign is reversed: this is what one would maximise. A loss is made small, and it is 1 when all images are the "
    "same.",
)
def reversed_sign(activations):
    enough(activations)
    unit = normalised_grams(activations)
    return -mean_of_pairs(unit @ unit.T)


@wrong(
    "diversity_loss",
    "You averaged over the places first and compared the channels' means. Which channels are active *together* is lost "
    "in that.",
)
def channel_means(activations):
    enough(activations)
    means = F.normalize(activations.mean((2, 3)), dim=1)
    return mean_of_pairs(means @ means.T)


@wrong(
    "diversity_loss",
    "You take the diagonal for n ones. An image without any activation has 0 there, not 1, and your loss falls below "
    "0; subtract the diagonal that there is.",
)
def one_for_each_image(activations):
    enough(activations)
    unit = normalised_grams(activations)
    n = len(unit)
    return ((unit @ unit.T).sum() - n) / (n * (n - 1))


@wrong(
    "diversity_loss",
    "An image without any activation makes you divide 0 by 0. It is similar to none: let its similarity be 0.",
)
def zero_length(activations):
    enough(activations)
    unit = grams(activations)
    unit = unit / unit.norm(dim=1, keepdim=True)
    return mean_of_pairs(unit @ unit.T)


@wrong(
    "diversity_loss",
    "Very faint images come out too far apart: `F.normalize` divides by 1e-12 at least, `cosine_similarity` by 1e-8, "
    "and the Gram matrix of activations of 1e-7 is as small as that. Bring the activations of each image to length 1 "
    "before you multiply them.",
)
def faint_images_lost(activations):
    enough(activations)
    places = activations.flatten(2)
    unit = F.normalize((places @ places.mT).flatten(1), dim=1)
    return mean_of_pairs(unit @ unit.T)


@wrong(
    "diversity_loss",
    "A small number is added to the length that you divide by. Beside a faint image's Gram matrix it is not small: the "
    "cosine comes out below 1 where two images are alike.",
)
def number_added_to_the_length(activations):
    enough(activations)
    places = activations.flatten(2)
    raw = (places @ places.mT).flatten(1)
    unit = raw / (raw.norm(dim=1, keepdim=True) + 1e-8)
    return mean_of_pairs(unit @ unit.T)


@wrong(
    "diversity_loss",
    "Pairs with a silent image are left out of your mean. They count, with a similarity of 0: an image that excites "
    "nothing resembles none.",
)
def silent_images_left_out(activations):
    enough(activations)
    heard = normalised_grams(activations)
    heard = heard[heard.norm(dim=1) > 0]
    return mean_of_pairs(heard @ heard.T) if len(heard) > 1 else activations.sum() * 0


@wrong(
    "diversity_loss",
    "You divide by n² where there are n (n - 1) pairs of different images: the loss of n equal images is below 1.",
)
def divided_by_all_pairs(activations):
    enough(activations)
    unit = normalised_grams(activations)
    similarity = unit @ unit.T
    return (similarity.sum() - similarity.diagonal().sum()) / len(unit) ** 2


@wrong(
    "diversity_loss",
    "You subtract the channels' means before multiplying: that is a covariance. The Gram matrix is made of the "
    "activations as they are.",
)
def covariance_for_gram(activations):
    enough(activations)
    centred = activations - activations.mean((2, 3), keepdim=True)
    unit = normalised_grams(centred)
    return mean_of_pairs(unit @ unit.T)


@wrong(
    "diversity_loss",
    "No gradient reaches the activations: something cuts them out of the graph (`detach`, `torch.no_grad`, numbers "
    "taken out with `.item()`). The loss is there to be differentiated.",
)
def loss_out_of_the_graph(activations):
    enough(activations)
    unit = normalised_grams(activations.detach())
    return mean_of_pairs(unit @ unit.T)


@wrong(
    "diversity_loss",
    "You add up each pair once (above the diagonal) and divide by the number of pairs in both orders: half of the "
    "mean.",
)
def half_of_the_pairs(activations):
    enough(activations)
    unit = normalised_grams(activations)
    n = len(unit)
    return (unit @ unit.T).triu(1).sum() / (n * (n - 1))


@wrong(
    "diversity_loss",
    "You compare each image with the next one only. The mean is over all pairs.",
)
def with_the_next_one(activations):
    enough(activations)
    unit = normalised_grams(activations)
    return (unit * unit.roll(1, 0)).sum(1).mean()


@wrong(
    "diversity_loss",
    "You compare all images with the first one only. The mean is over all pairs.",
)
def with_the_first_one(activations):
    enough(activations)
    unit = normalised_grams(activations)
    return (unit[1:] @ unit[0]).mean()


@wrong(
    "diversity_loss",
    "You bring each channel to length 1 before multiplying. How strongly a channel is active beside the others is lost "
    "then; only the whole image, or its Gram matrix, is brought to length 1.",
)
def channels_of_length_one(activations):
    enough(activations)
    unit = normalised_grams(F.normalize(activations.flatten(2), dim=2).view_as(activations))
    return mean_of_pairs(unit @ unit.T)


@wrong(
    "diversity_loss",
    "You return one minus the similarity. That is diversity; the loss is the likeness, which is to become small.",
)
def diversity_for_likeness(activations):
    enough(activations)
    unit = normalised_grams(activations)
    return 1 - mean_of_pairs(unit @ unit.T)


@right("diversity_loss")
def pair_by_pair(activations):
    enough(activations)
    each = [torch.einsum("chw,dhw->cd", a, a).flatten() for a in activations / longest(activations)]
    pairs = [
        F.cosine_similarity(each[a], each[b], dim=0, eps=1e-12)
        for a in range(len(each))
        for b in range(a + 1, len(each))
    ]
    return torch.stack(pairs).mean()


@right("diversity_loss")
def upper_triangle(activations):
    enough(activations)
    scaled = activations / longest(activations)
    each = torch.einsum("nchw,ndhw->ncd", scaled, scaled).flatten(1)
    lengths = each.pow(2).sum(1).clamp_min(1e-24).sqrt()
    similarity = each @ each.T / (lengths[:, None] * lengths)
    first, second = torch.triu_indices(len(each), len(each), offset=1)
    return similarity[first, second].mean()


# deep_dream


def resized(images, size):
    return F.interpolate(images, size=size, mode="bilinear", align_corners=False)


def mean_square(maps):
    return maps.pow(2).flatten(1).mean(1)


def dream(
    activations,
    images,
    *,
    n_octaves,
    octave_scale,
    n_steps,
    step_size,
    pixel_range=(0.0, 1.0),
    response=mean_square,
    step=unit_step,
    side_at=lambda side, scale, k: round(side / scale**k),
    keep_detail=True,
    keep_base=True,
    resize=resized,
    begin=lambda x: x,
):
    """DeepDream with one thing or another done differently."""
    four_dimensional(images)
    if n_octaves < 1 or octave_scale <= 1 or round(min(images.shape[2:]) / octave_scale ** (n_octaves - 1)) < 1:
        raise ValueError("bad n_octaves or octave_scale")
    detail, x = torch.zeros_like(images[..., :1, :1]), None
    for k in reversed(range(n_octaves)):
        size = [max(1, side_at(side, octave_scale, k)) for side in images.shape[2:]]
        base = resize(images, size)
        x = base + resize(detail, size) if keep_base or x is None else resize(x, size)
        x = begin(x)
        for _ in range(n_steps):
            x = x.detach().requires_grad_()
            x = (x + step_size * step(gradient_of(response(activations(x)), x))).clamp(*pixel_range)
        x = x.detach()
        detail = x - base if keep_detail else torch.zeros_like(base)
    return x


@wrong(
    "deep_dream",
    "From octave to octave you enlarge the whole image. What was fine in the original is gone after the first octave, "
    "and comes back blurred. Enlarge only the detail that was added, and put it on the original at the new size.",
)
def enlarges_everything(activations, images, **options):
    return dream(activations, images, keep_base=False, **options)


@wrong(
    "deep_dream",
    "Each of your octaves begins with the original again, so that what the coarser ones added is lost. Carry the "
    "detail over.",
)
def forgets_the_detail(activations, images, **options):
    return dream(activations, images, keep_detail=False, **options)


@wrong(
    "deep_dream",
    "You maximise the mean of the activations. Negative ones are then driven up as well, and what the layer already "
    "sees gets no more weight than what it does not. With the mean of their squares, what is strong becomes stronger.",
)
def mean_of_activations(activations, images, **options):
    return dream(activations, images, response=lambda maps: maps.flatten(1).mean(1), **options)


@wrong(
    "deep_dream",
    "You maximise the square of the mean, in which activations of different signs cancel, and a strong one counts no "
    "more than a weak one. Square first, then take the mean.",
)
def square_of_the_mean(activations, images, **options):
    return dream(activations, images, response=lambda maps: maps.flatten(1).mean(1).square(), **options)


@wrong(
    "deep_dream",
    "You take the gradient as it is, so that the length of a step depends on the size of the layer's numbers and of "
    "the octave. Divide each image's gradient by its root mean square.",
)
def steps_of_any_length(activations, images, **options):
    return dream(activations, images, step=lambda g: g, **options)


@wrong(
    "deep_dream",
    "Your root mean square is taken over the whole batch: an image that the layer hardly sees hardly moves in company, "
    "and moves well alone.",
)
def company_matters(activations, images, **options):
    return dream(activations, images, step=lambda g: g / g.pow(2).mean().sqrt(), **options)


@wrong(
    "deep_dream",
    "You cut the octaves' sizes down to whole pixels where the docstring rounds them.",
)
def sizes_cut_down(activations, images, **options):
    return dream(activations, images, side_at=lambda side, scale, k: int(side / scale**k), **options)


@wrong(
    "deep_dream",
    "You take each octave's size from the rounded size of the one above it, and the roundings add up. The docstring "
    "divides the original's side by octave_scale^k and rounds once.",
)
def sizes_from_sizes(activations, images, **options):
    def side_at(side, scale, k):
        for _ in range(k):
            side = round(side / scale)
        return side

    return dream(activations, images, side_at=side_at, **options)


@wrong(
    "deep_dream",
    "Your octaves are of no use to `octave_scale`: every one has the size of the image. The coarsest is smaller by "
    "octave_scale to the power n_octaves - 1.",
)
def octaves_of_one_size(activations, images, **options):
    return dream(activations, images, side_at=lambda side, scale, k: side, **options)


@wrong(
    "deep_dream",
    "You clip the pixels to 0 and 1, whatever `pixel_range` says.",
)
def zero_to_one_always(activations, images, *, pixel_range=(0.0, 1.0), **options):
    return dream(activations, images, **options)


@wrong(
    "deep_dream",
    "Where the layer does not react at all you divide 0 by 0, and the image becomes NaN. Let it stay as it is.",
)
def nan_where_nothing_reacts(activations, images, **options):
    return dream(activations, images, step=lambda g: g / rms_of_each(g), **options)


@wrong(
    "deep_dream",
    "You resize with `align_corners=True`. Coarse and fine pixels then lie in other places than the docstring has "
    "them.",
)
def dream_with_corners_aligned(activations, images, **options):
    def resize(x, size):
        return F.interpolate(x, size=size, mode="bilinear", align_corners=True)

    return dream(activations, images, resize=resize, **options)


@wrong(
    "deep_dream",
    "You resize with the nearest neighbour (the default of `F.interpolate`); bilinear was asked for.",
)
def dream_of_nearest_neighbours(activations, images, **options):
    return dream(activations, images, resize=lambda x, size: F.interpolate(x, size=size), **options)


@wrong(
    "deep_dream",
    "The step goes downhill: the layer responds less and less.",
)
def nightmare(activations, images, **options):
    return dream(activations, images, step=lambda g: -unit_step(g), **options)


@wrong(
    "deep_dream",
    "The images are clipped before the first step of an octave, or without any. The docstring clips after a step: with "
    "`n_steps` = 0 the images come back as they are.",
)
def clipped_before_the_steps(activations, images, *, pixel_range=(0.0, 1.0), **options):
    return dream(activations, images, pixel_range=pixel_range, begin=lambda x: x.clamp(*pixel_range), **options)


@wrong(
    "deep_dream",
    "Nothing is clipped: pixels leave `pixel_range`, and the layer is asked about images that cannot exist.",
)
def nothing_clipped(activations, images, *, pixel_range=(0.0, 1.0), **options):
    return dream(activations, images, pixel_range=(-math.inf, math.inf), **options)


@wrong(
    "deep_dream",
    "What keeps you from dividing by zero is not small beside the root mean square: where the gradients are around "
    "1e-5 (a certain network's, say), your steps are a part of `step_size`. Added to the root, 1e-8 is enough; inside "
    "the root, 1e-8 is as much as 1e-4 outside.",
)
def dream_with_too_much_added(activations, images, **options):
    return dream(activations, images, step=lambda g: g / (rms_of_each(g) + 3e-7), **options)


@wrong(
    "deep_dream",
    "What you return still carries a graph: the images are to be looked at and not differentiated.",
)
def dream_in_the_graph(activations, images, **options):
    return dream(activations, images, **options).requires_grad_()


@wrong(
    "deep_dream",
    "You round the octaves' sizes up where the docstring rounds them to the nearest whole number.",
)
def sizes_rounded_up(activations, images, **options):
    return dream(activations, images, side_at=lambda side, scale, k: math.ceil(side / scale**k), **options)


@wrong(
    "deep_dream",
    "You maximise the mean of the absolute values. The docstring has the mean of the squares, in which what is strong "
    "counts for more.",
)
def mean_of_absolute_activations(activations, images, **options):
    return dream(activations, images, response=lambda maps: maps.abs().flatten(1).mean(1), **options)


@wrong(
    "deep_dream",
    "You clip once, at the end. Between the steps pixels leave their range, and the layer is asked about images that "
    "cannot exist.",
)
def dream_clipped_at_the_end(activations, images, *, pixel_range=(0.0, 1.0), **options):
    found = dream(activations, images, pixel_range=(-math.inf, math.inf), **options)
    return found.clamp(*pixel_range) if options["n_steps"] else found


@wrong(
    "deep_dream",
    "You resize with bicubic interpolation; bilinear was asked for.",
)
def bicubic_dream(activations, images, **options):
    def resize(x, size):
        return F.interpolate(x, size=size, mode="bicubic", align_corners=False)

    return dream(activations, images, resize=resize, **options)


@right("deep_dream")
def with_a_little_added(activations, images, **options):
    return dream(activations, images, step=lambda g: g / (rms_of_each(g) + 1e-8), **options)


@right("deep_dream")
def sizes_first(activations, images, *, n_octaves, octave_scale, n_steps, step_size, pixel_range=(0.0, 1.0)):
    four_dimensional(images)
    if n_octaves < 1:
        raise ValueError("n_octaves must be at least 1")
    if octave_scale <= 1:
        raise ValueError("octave_scale must be above 1")
    height, width = images.shape[2:]
    sizes = [(round(height / octave_scale**k), round(width / octave_scale**k)) for k in range(n_octaves)][::-1]
    if min(sizes[0]) < 1:
        raise ValueError("too many octaves")
    detail = None
    for size in sizes:
        base = resized(images, size)
        x = base if detail is None else base + resized(detail, size)
        for _ in range(n_steps):
            x = torch.nn.Parameter(x.detach().clone())
            (0.5 * activations(x).square().flatten(1).mean(1)).sum().backward(inputs=[x])
            moved = []
            for image, gradient in zip(x.detach(), x.grad, strict=True):
                scale = gradient.square().mean().sqrt()
                moved.append(image + step_size * gradient / scale if scale > 0 else image)
            x = torch.stack(moved).clip(*pixel_range)
        detail = x.detach() - base
    return (base + detail).detach()


@right("deep_dream")
def recursive(activations, images, *, n_octaves, octave_scale, n_steps, step_size, pixel_range=(0.0, 1.0)):
    """Each octave asks the next coarser one for its detail."""
    four_dimensional(images)
    if n_octaves < 1 or not octave_scale > 1 or round(min(images.shape[-2:]) / octave_scale ** (n_octaves - 1)) < 1:
        raise ValueError("bad n_octaves or octave_scale")

    def dreamt(k):
        """The original at the size of octave k, and what was added to it."""
        size = [round(side / octave_scale**k) for side in images.shape[-2:]]
        base = resized(images, size)
        x = base if k == n_octaves - 1 else base + resized(dreamt(k + 1)[1], size)
        for _ in range(n_steps):
            x = x.detach().requires_grad_()
            x = x + step_size * unit_step(gradient_of(activations(x).square().mean(dim=(1, 2, 3)), x))
            x = x.clamp(*pixel_range)
        return base, x.detach() - base

    base, detail = dreamt(0)
    return base + detail
