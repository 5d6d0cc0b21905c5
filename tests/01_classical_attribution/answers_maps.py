"""Wrong and right answers to the exercises on attribution maps."""

import torch
import torch.nn.functional as F
from torch import nn

from utils.attribution.gradients import (
    gradient_saliency,
    input_x_gradient,
)
from utils.attribution.occlusion import occlusion_map
from utils.course.catalogue import right, wrong


def gradient_of(score, model, images, targets):
    """Gradient of the sum of ``score(logits)`` with respect to the inputs; targets that are no class are refused."""
    with torch.enable_grad():
        inputs = images.detach().clone().requires_grad_()
        logits = model(inputs)
        if targets.min() < 0 or targets.max() >= logits.shape[1]:
            raise ValueError("no such class")
        return torch.autograd.grad(score(logits).sum(), inputs)[0]


# occlusion_map


def corners(size, patch, stride):
    return range(0, size - patch + stride, stride)


def in_parts(model, batch_size):
    return lambda images: torch.cat([model(part) for part in images.split(batch_size)])


def slow_occlusion(
    model,
    images,
    targets,
    patch,
    stride,
    baseline,
    batch_size,
    *,
    score=None,
    combine="mean",
    channels=None,
    corners=corners,
):
    """One square at a time; returns the drops, combined over the squares that cover a pixel."""
    score = score or (lambda logits: logits.gather(1, targets[:, None])[:, 0])
    height, width = images.shape[2:]
    total, count = torch.zeros_like(images[:, 0]), torch.zeros(height, width, dtype=images.dtype)
    logits_of = in_parts(model, batch_size)
    with torch.no_grad():
        before = score(logits_of(images))
        for top in corners(height, patch, stride):
            for left in corners(width, patch, stride):
                square = (slice(top, top + patch), slice(left, left + patch))
                covered = images.clone()
                covered[:, channels if channels is not None else slice(None), *square] = baseline
                total[:, *square] += (before - score(logits_of(covered)))[:, None, None]
                count[square] += 1
    return total / count if combine == "mean" else total


@wrong(
    "occlusion_map",
    "The sign is the wrong way round: you subtract the logit of the whole image from that of the covered one. A "
    "pixel that the class needs should come out positive, so that the map shows how far the logit falls.",
)
def rise_in_place_of_fall(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return -slow_occlusion(model, images, targets, patch, stride, baseline, batch_size)


@wrong(
    "occlusion_map",
    "You add up the drops of all squares that cover a pixel. A pixel in the middle is covered more often than one at "
    "the edge, so that the map is brighter there for any model; take the mean over the squares.",
)
def sum_over_squares(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return slow_occlusion(model, images, targets, patch, stride, baseline, batch_size, combine="sum")


@wrong(
    "occlusion_map",
    "You watch a probability where the logit was asked for. After the softmax a class can fall because another one "
    "has risen, and a very certain model hardly moves at all.",
)
def watches_the_probability(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    def score(logits):
        return logits.softmax(dim=1).gather(1, targets[:, None])[:, 0]

    return slow_occlusion(model, images, targets, patch, stride, baseline, batch_size, score=score)


@wrong(
    "occlusion_map",
    "You watch the largest logit of each image. The question is about the class in `targets`, also when the model "
    "prefers another one.",
)
def watches_the_winner(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return slow_occlusion(
        model, images, targets, patch, stride, baseline, batch_size, score=lambda logits: logits.amax(dim=1)
    )


@wrong("occlusion_map", "All images are judged by the first image's target: `targets` has one class for each of them.")
def first_target_for_all(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return slow_occlusion(model, images, targets[:1].expand_as(targets), patch, stride, baseline, batch_size)


@wrong(
    "occlusion_map",
    "Covered pixels are always set to zero in your version: the argument `baseline` has no effect.",
)
def always_black(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return slow_occlusion(model, images, targets, patch, stride, 0.0, batch_size)


@wrong(
    "occlusion_map",
    "Only the first channel is covered. The other channels still show the model what was there.",
)
def first_channel_only(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return slow_occlusion(model, images, targets, patch, stride, baseline, batch_size, channels=0)


@wrong(
    "occlusion_map",
    "Squares stay covered: each new one is added to those before, and the drops are those of an ever emptier image. "
    "Start from the whole image each time.",
)
def never_uncovered(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    height, width = images.shape[2:]
    covered = images.clone()

    def score(x):
        return in_parts(model, batch_size)(x).gather(1, targets[:, None])[:, 0]

    total, count = torch.zeros_like(images[:, 0]), torch.zeros(height, width, dtype=images.dtype)
    with torch.no_grad():
        for top in corners(height, patch, stride):
            for left in corners(width, patch, stride):
                square = (slice(top, top + patch), slice(left, left + patch))
                covered[:, :, *square] = baseline
                total[:, *square] += (score(images) - score(covered))[:, None, None]
                count[square] += 1
    return total / count


@wrong(
    "occlusion_map",
    "Your squares stop before the edge when the last one would stick out, so that the last rows or columns are never "
    "covered. Go on until the whole image has been visited.",
)
def stops_before_the_edge(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    def fitting(size, patch, stride):
        return range(0, size - patch + 1, stride)

    found = slow_occlusion(model, images, targets, patch, stride, baseline, batch_size, corners=fitting)
    return found.nan_to_num(0.0)


@wrong(
    "occlusion_map",
    "Your corners go on over the whole side (`range(0, height, stride)`), also after a square has reached the edge. "
    "Pixels there are then covered by squares of which only a strip is left in the image; stop at the first square "
    "that reaches the edge.",
)
def goes_on_after_the_edge(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    def everywhere(size, patch, stride):
        return range(0, size, stride)

    return slow_occlusion(model, images, targets, patch, stride, baseline, batch_size, corners=everywhere)


@wrong(
    "occlusion_map",
    "The values are right, but somewhere the whole batch goes through the model at once, whatever `batch_size` says: a "
    "large batch of large images would not fit into memory. The run on the uncovered images counts as well.",
)
def ignores_batch_size(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return slow_occlusion(model, images, targets, patch, stride, baseline, len(images))


@wrong(
    "occlusion_map",
    "The values are right, but your runs of the model are recorded for derivatives that nobody asks for: memory fills "
    "up with every square. Switch gradients off for all of it.",
)
def recorded_for_nothing(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return occlusion_map(
        model, images, targets, patch=patch, stride=stride, baseline=baseline, batch_size=batch_size
    ) + 0 * sum(p.sum() for p in getattr(model, "parameters", list)())


@wrong(
    "occlusion_map",
    "Your map is in float32 although the images are in float64, so that its digits end early: `torch.zeros(...)` makes "
    "float32 unless told otherwise. Give it the images' dtype (and device).",
)
def float32_on_the_way(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return occlusion_map(
        model, images, targets, patch=patch, stride=stride, baseline=baseline, batch_size=batch_size
    ).float()


@right("occlusion_map")
def square_by_square(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    maps = []
    for image, target in zip(images[:, None], targets[:, None], strict=True):
        maps.append(slow_occlusion(model, image, target, patch, stride, baseline, batch_size))
    return torch.cat(maps)


@right("occlusion_map")
def with_a_moving_mask(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    _, _, height, width = images.shape
    masks = []
    for top in corners(height, patch, stride):
        for left in corners(width, patch, stride):
            mask = torch.zeros(height, width, dtype=images.dtype)
            mask[top : top + patch, left : left + patch] = 1
            masks.append(mask)
    masks = torch.stack(masks)
    with torch.no_grad():
        maps = []
        for image, target in zip(images, targets, strict=True):
            covered = image * (1 - masks[:, None]) + baseline * masks[:, None]
            logits = torch.cat([model(part)[:, target] for part in covered.split(batch_size)])
            drops = model(image[None])[0, target] - logits
            maps.append((drops[:, None, None] * masks).sum(0) / masks.sum(0))
    return torch.stack(maps)


# gradient_saliency


@wrong(
    "gradient_saliency",
    "You take the absolute value, as some pictures in papers do. The sign says whether more ink here helps or hurts; "
    "whoever does not want it can drop it later.",
)
def without_sign(model, images, targets):
    return gradient_saliency(model, images, targets).abs()


@wrong(
    "gradient_saliency",
    "You differentiate the probability. Its gradient is the logit's times something that is nearly zero for a certain "
    "model, minus the other classes' gradients; the exercise asks about the logit.",
)
def of_the_probability(model, images, targets):
    return gradient_of(lambda logits: logits.softmax(dim=1).gather(1, targets[:, None]), model, images, targets)


@wrong(
    "gradient_saliency",
    "You differentiate the loss. The map then has the other sign, and the other classes are in it as well.",
)
def of_the_loss(model, images, targets):
    return gradient_of(lambda logits: F.cross_entropy(logits, targets, reduction="sum"), model, images, targets)


@wrong(
    "gradient_saliency",
    "You differentiate the largest logit. The question is about the class in `targets`, also when the model prefers "
    "another one.",
)
def of_the_winner(model, images, targets):
    return gradient_of(lambda logits: logits.amax(dim=1), model, images, targets)


@wrong(
    "gradient_saliency",
    "You differentiate the sum of all logits of an image. Pick each image's target out of its row first.",
)
def of_all_logits(model, images, targets):
    return gradient_of(lambda logits: logits, model, images, targets)


@wrong(
    "gradient_saliency",
    "`logits[:, targets]` picks *all* targets from *every* row: each image is differentiated for its neighbours' "
    "classes too. You want one entry from each row.",
)
def targets_of_the_whole_batch(model, images, targets):
    return gradient_of(lambda logits: logits[:, targets], model, images, targets)


@wrong(
    "gradient_saliency",
    "Your values are right, but `zero_grad` wipes out the gradients that the weights had before your call; in the "
    "middle of a training step they would be missed. `torch.autograd.grad` touches no `.grad` at all.",
)
def wipes_the_weights_gradients(model, images, targets):
    found = gradient_saliency(model, images, targets)
    if isinstance(model, nn.Module):
        model.zero_grad()
    return found


@wrong(
    "gradient_saliency",
    "Your values are right, but you ask the caller's own images for gradients, and `requires_grad` stays on: whatever "
    "is done with them later is recorded. Ask a copy.",
)
def asks_the_caller_s_images(model, images, targets):
    found = gradient_saliency(model, images, targets)
    images.requires_grad_()
    return found


@wrong(
    "gradient_saliency",
    "You take the mean over the batch before differentiating, so that every gradient is divided by the batch size: "
    "an image's map depends on how many others there are. The sum leaves each image its own gradient.",
)
def of_the_batch_mean(model, images, targets):
    return gradient_saliency(model, images, targets) / len(images)


@wrong(
    "gradient_saliency",
    "Your values are right, but `backward()` also leaves gradients in the model's weights, and they would be added "
    "to at the next training step. `torch.autograd.grad` returns the gradient of what you ask for and nothing else.",
)
def leaves_gradients_in_the_weights(model, images, targets):
    with torch.enable_grad():
        inputs = images.detach().clone().requires_grad_()
        logits = model(inputs)
        if targets.min() < 0 or targets.max() >= logits.shape[1]:
            raise ValueError("no such class")
        logits.gather(1, targets[:, None]).sum().backward()
    return inputs.grad


@wrong(
    "gradient_saliency",
    "Every image of the batch is differentiated for the first image's target.",
)
def saliency_for_the_first_target(model, images, targets):
    return gradient_of(lambda logits: logits[:, targets[0]], model, images, targets)


@right("gradient_saliency")
def one_image_at_a_time(model, images, targets):
    maps = []
    with torch.enable_grad():
        for image, target in zip(images, targets.tolist(), strict=True):
            inputs = image[None].detach().clone().requires_grad_()
            logits = model(inputs)[0]
            if not 0 <= target < len(logits):
                raise ValueError(f"no class {target}")
            maps.append(torch.autograd.grad(logits[target], inputs)[0])
    return torch.cat(maps)


@right("gradient_saliency")
def with_a_one_hot_signal(model, images, targets):
    with torch.enable_grad():
        inputs = images.detach().requires_grad_()
        logits = model(inputs)
        if not (targets.min() >= 0 and targets.max() < logits.shape[1]):
            raise ValueError("no such class")
        signal = F.one_hot(targets, logits.shape[1]).to(logits.dtype)
        return torch.autograd.grad(logits, inputs, grad_outputs=signal)[0]


# input_x_gradient


@wrong(
    "input_x_gradient",
    "This is the gradient alone: it is not multiplied with the pixels. A derivative says what a change would do, and "
    "here the question is what the pixel as it is contributes.",
)
def only_the_gradient(model, images, targets):
    return gradient_saliency(model, images, targets)


@wrong(
    "input_x_gradient",
    "You drop the gradient's sign before multiplying: evidence against the class counts as evidence for it.",
)
def times_absolute_gradient(model, images, targets):
    return images * gradient_saliency(model, images, targets).abs()


@wrong(
    "input_x_gradient",
    "You return absolute values. With their signs the entries can add up to the logit; without them they cannot.",
)
def absolute_product(model, images, targets):
    return input_x_gradient(model, images, targets).abs()


@wrong(
    "input_x_gradient",
    "The image's mean is subtracted before multiplying. That is a different question (compared with a grey image?), "
    "and pixels of value zero no longer get zero.",
)
def centred_image(model, images, targets):
    gradient = gradient_saliency(model, images, targets)
    return (images - images.mean(dim=(1, 2, 3), keepdim=True)) * gradient


@wrong(
    "input_x_gradient",
    "You add up the channels. The exercise keeps one entry for each channel of each pixel.",
)
def channels_added(model, images, targets):
    return input_x_gradient(model, images, targets).sum(dim=1)


@wrong(
    "input_x_gradient",
    "You divide each map by its largest entry. That loses the units: the entries should be in logits, and be "
    "comparable between images.",
)
def scaled_to_one(model, images, targets):
    found = input_x_gradient(model, images, targets)
    return found / found.abs().amax(dim=(1, 2, 3), keepdim=True)


@right("input_x_gradient")
def by_scaling_each_pixel(model, images, targets):
    """The derivative with respect to a factor in front of each pixel, at one."""
    if images.ndim != 4 or targets.shape != images.shape[:1]:
        raise ValueError("images and targets don't fit")
    with torch.enable_grad():
        images = images.detach()
        factors = torch.ones_like(images, requires_grad=True)
        logits = model(factors * images)
        return torch.autograd.grad(logits[torch.arange(len(images)), targets].sum(), factors)[0]


@right("input_x_gradient")
def product_image_by_image(model, images, targets):
    if images.ndim != 4:
        raise ValueError("images must be [batch, channel, height, width]")
    maps = [gradient_saliency(model, x[None], t[None])[0] * x for x, t in zip(images, targets, strict=True)]
    return torch.stack(maps).detach()


# smoothgrad


def noisy_gradients(model, images, targets, sigma, n_samples, generator, noise_like=None):
    """The gradients at noisy copies [sample, batch, channel, height, width], drawn as the docstring says."""
    if sigma < 0 or n_samples < 1:
        raise ValueError("sigma must not be negative and n_samples at least 1")
    found = []
    for _ in range(n_samples):
        noise = torch.randn(images.shape, generator=generator).to(images)
        noise = sigma * noise if noise_like is None else noise_like(noise)
        found.append(gradient_saliency(model, images + noise, targets))
    return torch.stack(found)


@wrong(
    "smoothgrad",
    "Your noise is added to the gradient, and it averages out again: you get the plain gradient, slightly shaken. It "
    "belongs on the image, before the gradient is taken.",
)
def noise_on_the_gradient(model, images, targets, *, sigma, n_samples, generator):
    if sigma < 0 or n_samples < 1:
        raise ValueError
    gradient = gradient_saliency(model, images, targets)
    noise = [torch.randn(images.shape, generator=generator).to(images) for _ in range(n_samples)]
    return gradient + sigma * torch.stack(noise).mean(0)


@wrong(
    "smoothgrad",
    "sigma is taken for the variance: your noise has the standard deviation sqrt(sigma).",
)
def sigma_as_variance(model, images, targets, *, sigma, n_samples, generator):
    if sigma < 0:
        raise ValueError
    return noisy_gradients(model, images, targets, sigma**0.5, n_samples, generator).mean(0)


@wrong(
    "smoothgrad",
    "You average absolute values. Gradients that point both ways under a little noise should cancel; that is the whole "
    "effect of the method.",
)
def mean_of_absolute_values(model, images, targets, *, sigma, n_samples, generator):
    return noisy_gradients(model, images, targets, sigma, n_samples, generator).abs().mean(0)


@wrong("smoothgrad", "You add up the gradients and do not divide by n_samples: twice the samples, twice the map.")
def sum_of_gradients(model, images, targets, *, sigma, n_samples, generator):
    return noisy_gradients(model, images, targets, sigma, n_samples, generator).sum(0)


@wrong(
    "smoothgrad",
    "The noise is drawn once, before the loop, and every copy gets the same: n_samples equal gradients average to one "
    "of them.",
)
def one_noise_for_all(model, images, targets, *, sigma, n_samples, generator):
    if sigma < 0 or n_samples < 1:
        raise ValueError
    noise = sigma * torch.randn(images.shape, generator=generator).to(images)
    copies = [gradient_saliency(model, images + noise, targets) for _ in range(n_samples)]
    return torch.stack(copies).mean(0)


@wrong(
    "smoothgrad",
    "Your noise has no batch dimension: all images of the batch get the same. Draw it in the shape of `images`, or "
    "what one image's map owes to its noise turns up in its neighbours' maps as well.",
)
def one_noise_for_the_batch(model, images, targets, *, sigma, n_samples, generator):
    def shared(noise):
        return (sigma * noise[:1]).expand_as(noise)

    return noisy_gradients(model, images, targets, sigma, n_samples, generator, shared).mean(0)


@wrong(
    "smoothgrad",
    "You average the noisy images first and take one gradient there. The noise averages out in the image, before the "
    "model has seen it; average gradients.",
)
def gradient_of_the_mean_image(model, images, targets, *, sigma, n_samples, generator):
    if sigma < 0 or n_samples < 1:
        raise ValueError
    noise = torch.stack([torch.randn(images.shape, generator=generator) for _ in range(n_samples)]).to(images)
    return gradient_saliency(model, images + sigma * noise.mean(0), targets)


@wrong(
    "smoothgrad",
    "Your noise is uniform, from 0 to sigma, so that all copies are brighter than the image. `torch.rand` draws from 0 "
    "to 1; normal noise comes from `torch.randn`.",
)
def uniform_noise(model, images, targets, *, sigma, n_samples, generator):
    if sigma < 0 or n_samples < 1:
        raise ValueError
    total = 0
    for _ in range(n_samples):
        noise = sigma * torch.rand(images.shape, generator=generator).to(images)
        total = total + gradient_saliency(model, images + noise, targets)
    return total / n_samples


@wrong(
    "smoothgrad",
    "The noisy copies are clamped to the range from 0 to 1. At pixels near the ends of the range half of the noise is "
    "lost, and the mean of what is left is no longer the pixel.",
)
def clamped_copies(model, images, targets, *, sigma, n_samples, generator):
    def clamped(noise):
        return (images + sigma * noise).clamp(0, 1) - images

    return noisy_gradients(model, images, targets, sigma, n_samples, generator, clamped).mean(0)


@wrong(
    "smoothgrad",
    "Your noise does not come from `generator`: the same seed gives another map each time, and nobody can repeat your "
    "figure.",
)
def noise_from_elsewhere(model, images, targets, *, sigma, n_samples, generator):
    fresh = torch.Generator()
    fresh.seed()
    return noisy_gradients(model, images, targets, sigma, n_samples, fresh).mean(0)


@right("smoothgrad")
def all_copies_at_once(model, images, targets, *, sigma, n_samples, generator):
    if sigma < 0 or n_samples < 1:
        raise ValueError("sigma must not be negative and n_samples at least 1")
    noise = torch.randn((n_samples, *images.shape), generator=generator, dtype=images.dtype)
    copies = (images + sigma * noise).flatten(0, 1)
    return gradient_saliency(model, copies, targets.repeat(n_samples)).view_as(noise).mean(0)


@right("smoothgrad")
def running_mean(model, images, targets, *, sigma, n_samples, generator):
    if not sigma >= 0 or n_samples <= 0:
        raise ValueError("sigma must not be negative and n_samples at least 1")
    mean = torch.zeros_like(images)
    for i in range(n_samples):
        copies = torch.normal(images, sigma, generator=generator)
        mean = mean + (gradient_saliency(model, copies, targets) - mean) / (i + 1)
    return mean.detach()


# integrated_gradients


def along_the_way(model, images, targets, baseline, fractions):
    """The gradients at the given fractions of the way [step, batch, channel, height, width]."""
    start = torch.as_tensor(baseline, dtype=images.dtype)
    return torch.stack([gradient_saliency(model, start + a * (images - start), targets) for a in fractions])


@wrong(
    "integrated_gradients",
    "The factor (x - x') in front is missing: you return the mean gradient along the way, in logits for each unit of "
    "brightness, and not what the way has brought in logits.",
)
def without_the_factor(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    return along_the_way(model, images, targets, baseline, [(k + 0.5) / n_steps for k in range(n_steps)]).mean(0)


@wrong(
    "integrated_gradients",
    "The factor in front is the image x; it should be the way from the baseline, x - x'. Only for a black baseline are "
    "they the same.",
)
def image_as_the_factor(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = [(k + 0.5) / n_steps for k in range(n_steps)]
    return images * along_the_way(model, images, targets, baseline, fractions).mean(0)


@wrong(
    "integrated_gradients",
    "Your points are a * x: the line starts at a black image, whatever the baseline is. They should lie between x' and "
    "x.",
)
def line_from_black(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = [(k + 0.5) / n_steps for k in range(n_steps)]
    return (images - baseline) * along_the_way(model, images, targets, 0.0, fractions).mean(0)


@wrong(
    "integrated_gradients",
    "You use the left ends of the steps, a = k / n_steps: the baseline is among the points and the image is not. Take "
    "the middles of the steps.",
)
def left_ends(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = [k / n_steps for k in range(n_steps)]
    return (images - baseline) * along_the_way(model, images, targets, baseline, fractions).mean(0)


@wrong(
    "integrated_gradients",
    "You use the right ends of the steps, a = (k + 1) / n_steps: with a single step this is the gradient at the image. "
    "Take the middles of the steps.",
)
def right_ends(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = [(k + 1) / n_steps for k in range(n_steps)]
    return (images - baseline) * along_the_way(model, images, targets, baseline, fractions).mean(0)


@wrong(
    "integrated_gradients",
    "Your points run from the baseline to the image and include both (`linspace(0, 1, n_steps)`): they are n_steps - 1 "
    "steps apart, and the two ends count as much as a whole step each. Cut the way into n_steps steps and take their "
    "middles.",
)
def both_ends(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = torch.linspace(0, 1, n_steps).tolist()
    return (images - baseline) * along_the_way(model, images, targets, baseline, fractions).mean(0)


@wrong(
    "integrated_gradients",
    "The values are right, but all steps of all images go through the model at once: `batch_size` has no effect, and "
    "with fifty steps a batch becomes fifty times as large.",
)
def all_steps_at_once(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = ((torch.arange(n_steps) + 0.5) / n_steps).to(images).view(-1, 1, 1, 1, 1)
    points = baseline + fractions * (images - baseline)
    found = gradient_saliency(model, points.flatten(0, 1), targets.repeat(n_steps))
    return (images - baseline) * found.view_as(points).mean(0)


@wrong(
    "integrated_gradients",
    "You take a mean for each part of the steps, and then the mean of those. The last part is smaller than the others, "
    "so that its steps count for more; add up the parts, and divide by n_steps at the end.",
)
def mean_of_means(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = [(k + 0.5) / n_steps for k in range(n_steps)]
    found = along_the_way(model, images, targets, baseline, fractions)
    means = [part.mean(0) for part in found.split(max(1, batch_size // len(images)))]
    return (images - baseline) * torch.stack(means).mean(0)


@wrong(
    "integrated_gradients",
    "You add up the gradients of all steps and do not divide by their number: twice the steps, twice the map.",
)
def sum_over_steps(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = [(k + 0.5) / n_steps for k in range(n_steps)]
    return (images - baseline) * along_the_way(model, images, targets, baseline, fractions).sum(0)


@wrong(
    "integrated_gradients",
    "Absolute gradients are averaged. A gradient that changes its sign along the way has to cancel, or the entries "
    "cannot add up to the difference of the logits.",
)
def absolute_gradients(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = [(k + 0.5) / n_steps for k in range(n_steps)]
    return (images - baseline) * along_the_way(model, images, targets, baseline, fractions).abs().mean(0)


@wrong(
    "integrated_gradients",
    "Images and targets have come out of step: the points run step by step through the batch, while your targets are "
    "repeated image by image. Compare `repeat` with `repeat_interleave`.",
)
def targets_out_of_step(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    total = torch.zeros_like(images)
    fractions = (torch.arange(n_steps) + 0.5) / n_steps
    for some in fractions.split(max(1, batch_size // len(images))):
        points = baseline + some.to(images).view(-1, 1, 1, 1, 1) * (images - baseline)
        found = gradient_saliency(model, points.flatten(0, 1), targets.repeat_interleave(len(some)))
        total += found.view_as(points).sum(0)
    return (images - baseline) * total / n_steps


@right("integrated_gradients")
def step_by_step(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = [(k + 0.5) / n_steps for k in range(n_steps)]
    return (images - baseline) * along_the_way(model, images, targets, baseline, fractions).mean(0)


@right("integrated_gradients")
def fractions_in_single_precision(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    total, way = torch.zeros_like(images), images - baseline
    for some in ((torch.arange(n_steps) + 0.5) / n_steps).split(max(1, batch_size // len(images))):
        points = baseline + some[:, None, None, None, None] * way
        found = gradient_saliency(model, points.flatten(0, 1), targets.repeat(len(some)))
        total += found.view_as(points).sum(0)
    return way * total / n_steps


@right("integrated_gradients")
def image_by_image(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    starts = torch.as_tensor(baseline, dtype=images.dtype).expand_as(images)
    fractions = (2 * torch.arange(n_steps, dtype=images.dtype) + 1) / (2 * n_steps)
    maps = []
    for image, start, target in zip(images, starts, targets, strict=True):
        points = torch.lerp(start[None], image[None], fractions[:, None, None, None])
        gradients = [gradient_saliency(model, part, target.repeat(len(part))) for part in points.split(batch_size)]
        maps.append(torch.cat(gradients).mean(0) * (image - start))
    return torch.stack(maps).detach()


# guided_backprop


def hooked(model, images, targets, hook, kind=nn.ReLU, modules=None):
    """The gradient with a backward hook on modules of a kind, and everything tidied up afterwards."""
    relus = [m for m in (model.modules() if modules is None else modules) if isinstance(m, kind)]
    in_place = [relu.inplace for relu in relus]
    handles = []
    try:
        for relu in relus:
            relu.inplace = False
            handles.append(relu.register_full_backward_hook(hook))
        return gradient_saliency(model, images, targets)
    finally:
        for handle in handles:
            handle.remove()
        for relu, value in zip(relus, in_place, strict=True):
            relu.inplace = value


def positive_below(module, below, above):
    return (below[0].clamp(min=0),)


@wrong(
    "guided_backprop",
    "This is the plain gradient: your hook changes nothing. A hook has to return the new signal, in a tuple.",
)
def hook_without_effect(model, images, targets):
    return hooked(model, images, targets, lambda module, below, above: None)


@wrong(
    "guided_backprop",
    "Your rule looks at the signal from above only and lets it through closed ReLUs as well: that is the "
    "'deconvnet'. Guided backprop asks for both, a positive signal and an open ReLU.",
)
def deconvnet(model, images, targets):
    return hooked(model, images, targets, lambda module, below, above: (above[0].clamp(min=0),))


@wrong(
    "guided_backprop",
    "You take the plain gradient and cut its negative values off at the end. The rule has to work at every ReLU on the "
    "way, where it also decides what reaches the layers below.",
)
def clamped_at_the_end(model, images, targets):
    return gradient_saliency(model, images, targets).clamp(min=0)


@wrong(
    "guided_backprop",
    "Your rule keeps the negative signals and drops the positive ones.",
)
def negative_signals(model, images, targets):
    return hooked(model, images, targets, lambda module, below, above: (below[0].clamp(max=0),))


@wrong(
    "guided_backprop",
    "The signals' absolute values are passed on. A negative signal should be stopped, and not turned round.",
)
def absolute_signals(model, images, targets):
    return hooked(model, images, targets, lambda module, below, above: (below[0].abs(),))


@wrong(
    "guided_backprop",
    "Only ReLUs that are direct children of the model get your hook. Those inside blocks of the model keep the plain "
    "rule; `modules()` finds them at every depth.",
)
def direct_children_only(model, images, targets):
    return hooked(model, images, targets, positive_below, modules=list(model.children()))


@wrong(
    "guided_backprop",
    "Your hooks stay on the model. The values are right the first time; from then on every gradient of this model is a "
    "guided one, in training too.",
)
def leaves_its_hooks(model, images, targets):
    for relu in (m for m in model.modules() if isinstance(m, nn.ReLU)):
        relu.inplace = False
        relu.register_full_backward_hook(positive_below)
    return gradient_saliency(model, images, targets)


@wrong(
    "guided_backprop",
    "Your hooks are removed when all goes well, and stay when the model raises an exception. Cleaning up belongs into "
    "a `finally`.",
)
def cleans_up_only_on_success(model, images, targets):
    relus = [m for m in model.modules() if isinstance(m, nn.ReLU)]
    in_place = [relu.inplace for relu in relus]
    handles = []
    for relu in relus:
        relu.inplace = False
        handles.append(relu.register_full_backward_hook(positive_below))
    found = gradient_saliency(model, images, targets)
    for handle in handles:
        handle.remove()
    for relu, value in zip(relus, in_place, strict=True):
        relu.inplace = value
    return found


@wrong(
    "guided_backprop",
    "You clear all backward hooks of the ReLUs, with those that somebody else had put there. Keep the handles that "
    "`register_full_backward_hook` gives you, and remove these.",
)
def clears_all_hooks(model, images, targets):
    found = hooked(model, images, targets, positive_below)
    for relu in (m for m in model.modules() if isinstance(m, nn.ReLU)):
        relu._backward_hooks.clear()
    return found


@wrong(
    "guided_backprop",
    "ReLUs that worked in place do not do so any more after your function: put `inplace` back as it was.",
)
def inplace_not_put_back(model, images, targets):
    for relu in (m for m in model.modules() if isinstance(m, nn.ReLU)):
        relu.inplace = False
    return hooked(model, images, targets, positive_below)


@right("guided_backprop")
def with_a_rule_of_its_own(model, images, targets):
    """A ReLU with another derivative in place of the module's forward, and no hooks."""

    class GuidedReLU(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.clamp(min=0)

        @staticmethod
        def backward(ctx, signal):
            (x,) = ctx.saved_tensors
            return signal * (x > 0) * (signal > 0)

    relus = [m for m in model.modules() if isinstance(m, nn.ReLU)]
    try:
        for relu in relus:
            relu.forward = GuidedReLU.apply
        return gradient_saliency(model, images, targets)
    finally:
        for relu in relus:
            vars(relu).pop("forward", None)


@right("guided_backprop")
def rule_from_above(model, images, targets):
    """The same rule, from the signal above: it passes where it is positive, and where the plain rule lets anything."""

    def rule(module, below, above):
        return (torch.where(above[0] > 0, below[0], torch.zeros_like(below[0])),)

    return hooked(model, images, targets, rule)


# grad_cam


def watched(model, images, targets, layer):
    """A layer's output and the logit's gradient with respect to it; the hook is removed whatever happens."""
    seen = []

    def keep(module, inputs, output):
        seen.append(output)
        return output.clone()

    handle = model.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            total = model(images.detach().clone().requires_grad_()).gather(1, targets[:, None]).sum()
    finally:
        handle.remove()
    if seen[-1].ndim != 4:
        raise ValueError("the layer must put out maps")
    return seen[-1].detach(), torch.autograd.grad(total, seen[-1])[0]


def enlarged(cam, images, **how):
    how = how or {"mode": "bilinear", "align_corners": False}
    return F.interpolate(cam, size=images.shape[2:], **how)[:, 0]


def weighted_sum(maps, gradient):
    return (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True)


@wrong(
    "grad_cam",
    "The ReLU is missing: places that speak against the class come out negative. Grad-CAM shows what speaks for it.",
)
def cam_without_relu(model, images, targets, layer):
    return enlarged(weighted_sum(*watched(model, images, targets, layer)), images)


@wrong(
    "grad_cam",
    "Your ReLU comes before the sum over channels, so that channels that speak against the class are dropped where "
    "they should be weighed against the others.",
)
def relu_before_the_sum(model, images, targets, layer):
    maps, gradient = watched(model, images, targets, layer)
    return enlarged((gradient.mean(dim=(2, 3), keepdim=True) * maps).relu().sum(dim=1, keepdim=True), images)


@wrong(
    "grad_cam",
    "Your ReLU comes after the enlargement. Between a positive and a negative place, the interpolation then mixes the "
    "two before anything is cut off; cut off first.",
)
def relu_after_enlarging(model, images, targets, layer):
    return enlarged(weighted_sum(*watched(model, images, targets, layer)), images).relu()


@wrong(
    "grad_cam",
    "The gradient is multiplied with the channels place by place. In Grad-CAM each channel has one weight, the mean of "
    "its gradient over all places.",
)
def place_by_place(model, images, targets, layer):
    maps, gradient = watched(model, images, targets, layer)
    return enlarged((gradient * maps).sum(dim=1, keepdim=True).relu(), images)


@wrong(
    "grad_cam",
    "A channel's weight is the sum of its gradient over all places; it should be the mean. The map looks the same and "
    "has other units, which depend on the size of the layer.",
)
def summed_gradient(model, images, targets, layer):
    maps, gradient = watched(model, images, targets, layer)
    return enlarged((gradient.sum(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True).relu(), images)


@wrong(
    "grad_cam",
    "You enlarge with `align_corners=True`, which puts the middles of the corner cells onto the corners of the image: "
    "the whole map is stretched outwards.",
)
def corners_aligned(model, images, targets, layer):
    cam = weighted_sum(*watched(model, images, targets, layer)).relu()
    return enlarged(cam, images, mode="bilinear", align_corners=True)


@wrong(
    "grad_cam",
    "You enlarge with the nearest neighbour (the default of `F.interpolate`); bilinear was asked for.",
)
def nearest_neighbour(model, images, targets, layer):
    return enlarged(weighted_sum(*watched(model, images, targets, layer)).relu(), images, mode="nearest")


@wrong(
    "grad_cam",
    "Each map is divided by its largest value. A picture may do that; the function should keep the units, or a map "
    "that is nearly zero throughout looks as definite as any other.",
)
def scaled_cam(model, images, targets, layer):
    found = enlarged(weighted_sum(*watched(model, images, targets, layer)).relu(), images)
    return found / found.amax(dim=(1, 2), keepdim=True).clamp(min=1e-30)


@wrong(
    "grad_cam",
    "Your forward hook stays on the layer: every later run of the model goes through it and keeps another output "
    "alive.",
)
def leaves_its_hook(model, images, targets, layer):
    seen = []

    def keep(module, inputs, output):
        seen.append(output)
        return output.clone()

    model.get_submodule(layer).register_forward_hook(keep)
    with torch.enable_grad():
        total = model(images.detach().clone().requires_grad_()).gather(1, targets[:, None]).sum()
    if seen[-1].ndim != 4:
        raise ValueError("the layer must put out maps")
    gradient = torch.autograd.grad(total, seen[-1])[0]
    return enlarged(weighted_sum(seen[-1].detach(), gradient).relu(), images)


@wrong(
    "grad_cam",
    "When the operation after the layer works in place, it overwrites what your hook has kept: you see the "
    "output of the ReLU, not that of the layer. Let the hook return a copy for the model to go on with.",
)
def overwritten_in_place(model, images, targets, layer):
    seen = []
    handle = model.get_submodule(layer).register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        with torch.enable_grad():
            total = model(images.detach().clone().requires_grad_()).gather(1, targets[:, None]).sum()
    finally:
        handle.remove()
    if seen[-1].ndim != 4:
        raise ValueError("the layer must put out maps")
    gradient = torch.autograd.grad(total, seen[-1])[0]
    return enlarged(weighted_sum(seen[-1].detach(), gradient).relu(), images)


@right("grad_cam")
def cam_image_by_image(model, images, targets, layer):
    maps = []
    for image, target in zip(images[:, None], targets[:, None], strict=True):
        kept, gradient = watched(model, image, target, layer)
        height, width = kept.shape[2:]
        weights = gradient.sum(dim=(2, 3)) / (height * width)
        maps.append(enlarged(torch.einsum("bk,bkij->bij", weights, kept).clamp(min=0)[:, None], image))
    return torch.cat(maps).detach()


@right("grad_cam")
def with_a_nudge(model, images, targets, layer):
    """Differentiates with respect to zeros that are added to the layer's output."""
    nudge, kept = [], []

    def add_zeros(module, inputs, output):
        kept.append(output.detach().clone())
        nudge.append(torch.zeros_like(output, requires_grad=True))
        return output + nudge[0]

    with torch.enable_grad():
        handle = model.get_submodule(layer).register_forward_hook(add_zeros)
        try:
            logits = model(images.detach())
        finally:
            handle.remove()
        if kept[0].ndim != 4:
            raise ValueError("the layer must put out maps")
        total = logits[torch.arange(len(images)), targets].sum()
        [gradient] = torch.autograd.grad(total, nudge)
    return enlarged(weighted_sum(kept[0], gradient).relu(), images)
