"""Wrong and right answers to the exercises on attribution maps."""

from copy import deepcopy

import torch
import torch.nn.functional as F
from torch import nn

from utils.attribution.gradients import (
    gradient_saliency,
    input_x_gradient,
)
from utils.attribution.occlusion import occlusion_map
from utils.course.catalogue import right, wrong


def fitting(images, targets):
    if images.ndim != 4 or targets.shape != images.shape[:1]:
        raise ValueError("images must be [batch, channel, height, width] and targets [batch]")


def plain_gradient(model, images, targets):
    """As most people write it first: it needs gradients to be switched on."""
    inputs = images.detach().clone().requires_grad_()
    return torch.autograd.grad(model(inputs)[torch.arange(len(images)), targets].sum(), inputs)[0]


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
    "Your squares stop too early: where the stride does not come out even, the last rows or columns are never covered. "
    "Go on until the whole image has been visited, in both directions; a square may stick out.",
)
def stops_before_the_edge(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    def fitting(size, patch, stride):
        return range(0, size - patch + 1, stride)

    found = slow_occlusion(model, images, targets, patch, stride, baseline, batch_size, corners=fitting)
    return found.nan_to_num(0.0)


@wrong(
    "occlusion_map",
    "Your squares go on after one has reached the edge. Pixels there are then covered by squares of which only a strip "
    "is left in the image; stop at the first square that reaches the edge.",
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


@wrong(
    "occlusion_map",
    "Where squares overlap, the last one wins: you write its drop over those of the squares before it. A pixel's entry "
    "is the mean over all squares that cover it.",
)
def last_square_wins(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    found = torch.zeros_like(images[:, 0])

    def score(x):
        return in_parts(model, batch_size)(x).gather(1, targets[:, None])[:, 0]

    with torch.no_grad():
        before = score(images)
        for top in corners(images.shape[2], patch, stride):
            for left in corners(images.shape[3], patch, stride):
                square = (slice(None), slice(top, top + patch), slice(left, left + patch))
                covered = images.clone()
                covered[:, :, *square[1:]] = baseline
                found[square] = (before - score(covered))[:, None, None]
    return found


@wrong(
    "occlusion_map",
    "You divide by the number of all squares. A pixel's mean is over the squares that cover *it*: count them pixel by "
    "pixel, fewer at the edges than in the middle.",
)
def divided_by_all_squares(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    total = slow_occlusion(model, images, targets, patch, stride, baseline, batch_size, combine="sum")
    n_squares = len(corners(images.shape[2], patch, stride)) * len(corners(images.shape[3], patch, stride))
    return total / n_squares


@wrong(
    "occlusion_map",
    "You divide each drop by the number of pixels in its square. Every pixel under the square gets the whole drop; the "
    "mean is over squares.",
)
def drop_for_each_pixel(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return slow_occlusion(model, images, targets, patch, stride, baseline, batch_size) / patch**2


@wrong(
    "occlusion_map",
    "`stride` has no effect: your square moves by one pixel, whatever it says.",
)
def always_by_one(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return slow_occlusion(model, images, targets, patch, 1, baseline, batch_size)


@wrong(
    "occlusion_map",
    "`patch` has no effect: you cover single pixels, whatever it says.",
)
def always_one_pixel(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return slow_occlusion(model, images, targets, 1, 1, baseline, batch_size)


@wrong(
    "occlusion_map",
    "`baseline` is added to the covered pixels. It is the value that they are set to, so that nothing of what was "
    "there remains.",
)
def baseline_added(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    found, count = torch.zeros_like(images[:, 0]), torch.zeros(images.shape[2:], dtype=images.dtype)

    def score(x):
        return in_parts(model, batch_size)(x).gather(1, targets[:, None])[:, 0]

    with torch.no_grad():
        before = score(images)
        for top in corners(images.shape[2], patch, stride):
            for left in corners(images.shape[3], patch, stride):
                square = (slice(top, top + patch), slice(left, left + patch))
                covered = images.clone()
                covered[:, :, *square] += baseline
                found[:, *square] += (before - score(covered))[:, None, None]
                count[square] += 1
    return found / count


@wrong(
    "occlusion_map",
    "Where the last square would stick out, you push it back into the image. It then overlaps the one before it by "
    "more than the others do; the docstring lets it stick out and cuts it off.",
)
def last_square_pushed_back(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    def pushed(size, patch, stride):
        return [min(corner, size - patch) for corner in corners(size, patch, stride)]

    return slow_occlusion(model, images, targets, patch, stride, baseline, batch_size, corners=pushed)


@wrong(
    "occlusion_map",
    "Your map has no signs. Where covering a square *raises* the logit the entry is negative: that is a finding of its "
    "own, which absolute values make look like the opposite.",
)
def absolute_drops(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return slow_occlusion(model, images, targets, patch, stride, baseline, batch_size).abs()


@wrong(
    "occlusion_map",
    "Negative entries are cut off at zero. Where covering a square *raises* the logit the map should say so.",
)
def drops_cut_off_at_zero(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return slow_occlusion(model, images, targets, patch, stride, baseline, batch_size).clamp(min=0)


@wrong(
    "occlusion_map",
    "You divide each map by its largest entry. That loses the units: how far the logit falls is what tells a trained "
    "network's map from an untrained one's.",
)
def occlusion_scaled_to_one(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    found = slow_occlusion(model, images, targets, patch, stride, baseline, batch_size)
    return found / found.abs().amax(dim=(1, 2), keepdim=True)


@wrong(
    "occlusion_map",
    "Your map has a dimension too many, for the channel. All channels of a pixel are covered at once, so that there is "
    "one entry for each pixel: [batch, height, width].",
)
def occlusion_with_a_channel(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    return slow_occlusion(model, images, targets, patch, stride, baseline, batch_size)[:, None]


@wrong(
    "occlusion_map",
    "Covered images and their targets are repeated in different orders, the ones by `repeat` (or by broadcasting over "
    "squares) and the others by `repeat_interleave`. Drops are then read at another image's class.",
)
def targets_interleaved_with_squares(model, images, targets, *, patch=1, stride=1, baseline=0.0, batch_size=512):
    maps = []
    rows, columns = (corners(side, patch, stride) for side in images.shape[2:])
    squares = [(top, left) for top in rows for left in columns]
    run = in_parts(model, batch_size)
    with torch.no_grad():
        before = run(images).gather(1, targets[:, None])[:, 0]
        covered = []
        for top, left in squares:
            copy = images.clone()
            copy[:, :, top : top + patch, left : left + patch] = baseline
            covered.append(copy)
        after = run(torch.cat(covered)).gather(1, targets.repeat_interleave(len(squares))[:, None])
    drops = before - after.view(len(squares), len(images))
    for image_drops in drops.T:
        total, times = torch.zeros_like(images[0, 0]), torch.zeros_like(images[0, 0])
        for (top, left), drop in zip(squares, image_drops, strict=True):
            total[top : top + patch, left : left + patch] += drop
            times[top : top + patch, left : left + patch] += 1
        maps.append(total / times)
    return torch.stack(maps)


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


@wrong(
    "gradient_saliency",
    "Your function needs gradients to be switched on. Where the caller has switched them off (`torch.no_grad()` around "
    "a whole evaluation, say), nothing is recorded, and there is nothing to differentiate. `torch.enable_grad()` "
    "switches them on for the lines that are yours.",
)
def only_where_gradients_are_on(model, images, targets):
    inputs = images.detach().clone().requires_grad_()
    logits = model(inputs)
    if targets.min() < 0 or targets.max() >= logits.shape[1]:
        raise ValueError("no such class")
    return torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), inputs)[0]


@wrong(
    "gradient_saliency",
    "A target of -1 goes through: an index counts from the end then, and you explain the last class without anybody "
    "having asked. A target that is no class is to be refused with a ValueError.",
)
def minus_one_is_the_last_class(model, images, targets):
    with torch.enable_grad():
        inputs = images.detach().clone().requires_grad_()
        logits = model(inputs)
        if targets.max() >= logits.shape[1]:
            raise ValueError("no such class")
        return torch.autograd.grad(logits[torch.arange(len(images)), targets].sum(), inputs)[0]


@wrong(
    "gradient_saliency",
    "You do not look whether a target is a class of the model. PyTorch notices some of these in its own words (an "
    "IndexError or a RuntimeError), and -1 perhaps not at all; the docstring promises a ValueError.",
)
def targets_not_looked_at(model, images, targets):
    with torch.enable_grad():
        return plain_gradient(model, images, targets)


@wrong(
    "gradient_saliency",
    "You add up the channels. The exercise keeps one entry for each channel of each pixel.",
)
def saliency_of_all_channels(model, images, targets):
    return gradient_saliency(model, images, targets).sum(dim=1)


@wrong(
    "gradient_saliency",
    "You keep the largest absolute value over the channels, as for a picture. The exercise keeps one entry, with its "
    "sign, for each channel of each pixel.",
)
def largest_over_channels(model, images, targets):
    return gradient_saliency(model, images, targets).abs().amax(dim=1)


@wrong(
    "gradient_saliency",
    "Your values are right, but a graph hangs on them (`create_graph=True` makes one, and so does `torch.func.grad` "
    "where weights ask for gradients): it keeps the whole run of the model in memory. Cut it off.",
)
def differentiable_once_more(model, images, targets):
    with torch.enable_grad():
        inputs = images.detach().clone().requires_grad_()
        logits = model(inputs)
        if targets.min() < 0 or targets.max() >= logits.shape[1]:
            raise ValueError("no such class")
        return torch.autograd.grad(logits.gather(1, targets[:, None]).sum(), inputs, create_graph=True)[0]


@wrong(
    "gradient_saliency",
    "You divide each map by its largest entry. That loses the units: the entries should be in logits for each unit of "
    "brightness, and be comparable between images.",
)
def gradient_scaled_to_one(model, images, targets):
    found = gradient_saliency(model, images, targets)
    return found / found.abs().amax(dim=(1, 2, 3), keepdim=True)


@wrong(
    "gradient_saliency",
    "You multiply the gradient with the image. That is the method after this one; here the slope alone is asked for.",
)
def times_the_image_already(model, images, targets):
    return images * gradient_saliency(model, images, targets)


@wrong(
    "gradient_saliency",
    "You differentiate the logarithm of the probability. The other classes are in it, with the sign reversed; the "
    "exercise asks about the logit.",
)
def of_the_log_probability(model, images, targets):
    return gradient_of(lambda logits: logits.log_softmax(1).gather(1, targets[:, None]), model, images, targets)


@wrong(
    "gradient_saliency",
    "You freeze the model's weights and leave them so: nobody could train it any more. A function that only looks puts "
    "back what it changes; and there is no need to freeze anything.",
)
def freezes_the_model(model, images, targets):
    if isinstance(model, nn.Module):
        model.requires_grad_(False)
    return gradient_saliency(model, images, targets)


@wrong(
    "gradient_saliency",
    "Your gradient is in float32 although the images are in float64, so that its digits end early.",
)
def gradient_in_float32(model, images, targets):
    return gradient_saliency(model, images, targets).float()


@wrong(
    "gradient_saliency",
    "You leave it to `gather` to notice a target that is no class. It raises a RuntimeError of its own; the docstring "
    "promises a ValueError.",
)
def targets_left_to_gather(model, images, targets):
    if images.ndim != 4 or targets.shape != images.shape[:1]:
        raise ValueError("images and targets don't fit")
    with torch.inference_mode(False), torch.enable_grad():
        inputs, classes = images.detach().clone().requires_grad_(), targets.clone()
        return torch.autograd.grad(model(inputs).gather(1, classes[:, None]).sum(), inputs)[0]


@right("gradient_saliency")
def with_a_function_of_all_images(model, images, targets):
    def total(inputs):
        logits = model(inputs)
        if not bool(((targets >= 0) & (targets < logits.shape[1])).all()):
            raise ValueError("no such class")
        return logits[range(len(targets)), targets].sum()

    return torch.func.grad(total)(images.detach()).detach()


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
    "You drop the gradient's sign before multiplying: evidence against the class counts as evidence for it (and the "
    "other way round where a pixel is negative).",
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
    "You add up the channels, and one is left. The exercise keeps an entry for each channel of each pixel.",
)
def one_channel_left(model, images, targets):
    return input_x_gradient(model, images, targets).sum(dim=1, keepdim=True)


@wrong(
    "input_x_gradient",
    "You divide each map by its largest entry. That loses the units: the entries should be in logits, and be "
    "comparable between images.",
)
def scaled_to_one(model, images, targets):
    found = input_x_gradient(model, images, targets)
    return found / found.abs().amax(dim=(1, 2, 3), keepdim=True)


@wrong(
    "input_x_gradient",
    "You multiply with the gradient of the largest logit. The question is about the class in `targets`, also when the "
    "model prefers another one.",
)
def times_the_winner_s_gradient(model, images, targets):
    fitting(images, targets)
    return images * gradient_of(lambda logits: logits.amax(dim=1), model, images, targets)


@wrong(
    "input_x_gradient",
    "You multiply with the gradient of the probability. The entries should be in logits, so that they can add up to "
    "one.",
)
def times_the_probability_s_gradient(model, images, targets):
    fitting(images, targets)
    return images * gradient_of(lambda z: z.softmax(dim=1).gather(1, targets[:, None]), model, images, targets)


@wrong(
    "input_x_gradient",
    "Your entries are divided by the batch size: the gradient of a *mean* over the images, where the sum leaves each "
    "image its own.",
)
def times_the_mean_s_gradient(model, images, targets):
    return input_x_gradient(model, images, targets) / len(images)


@wrong(
    "input_x_gradient",
    "You drop the pixel's sign before multiplying. Pixels can be negative (normalised photographs are, half of the "
    "time), and what they contribute then turns round.",
)
def times_absolute_image(model, images, targets):
    return images.abs() * gradient_saliency(model, images, targets)


@wrong(
    "input_x_gradient",
    "Your values are right, but `backward()` also leaves gradients in the model's weights, and they would be added "
    "to at the next training step.",
)
def product_by_backward(model, images, targets):
    fitting(images, targets)
    inputs = images.detach().clone().requires_grad_()
    model(inputs).gather(1, targets[:, None]).sum().backward()
    return images * inputs.grad


@wrong(
    "input_x_gradient",
    "Images and targets that don't fit go through, or fail somewhere inside. A ValueError at the start names the "
    "mistake; `gradient_saliency` already raises it, if you hand the inputs on as they came.",
)
def product_of_anything(model, images, targets):
    images = images if images.ndim == 4 else images[None].expand(len(targets), *images.shape)
    return input_x_gradient(model, images, targets.expand(len(images)))


@wrong(
    "input_x_gradient",
    "You multiply with the gradient of the loss. It has the other sign, and the other classes are in it.",
)
def times_the_loss_gradient(model, images, targets):
    fitting(images, targets)
    return images * gradient_of(lambda z: F.cross_entropy(z, targets, reduction="sum"), model, images, targets)


@wrong(
    "input_x_gradient",
    "Negative entries are cut off at zero. They are evidence against the class, and without them the entries cannot "
    "add up to the logit.",
)
def product_cut_off_at_zero(model, images, targets):
    return input_x_gradient(model, images, targets).clamp(min=0)


@wrong(
    "input_x_gradient",
    "You multiply with the square of the image. One factor is enough: pixel times derivative.",
)
def image_twice(model, images, targets):
    return images * input_x_gradient(model, images, targets)


@right("input_x_gradient")
def product_with_a_plain_gradient(model, images, targets):
    fitting(images, targets)
    return images * plain_gradient(model, images, targets)


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


@wrong(
    "smoothgrad",
    "You take sigma for a share of the range of each image, as the paper's noise level is. The docstring gives it in "
    "units of pixel brightness: the noise is the same for a faint image and for a strong one.",
)
def sigma_as_a_share_of_the_range(model, images, targets, *, sigma, n_samples, generator):
    spread = images.amax((1, 2, 3), keepdim=True) - images.amin((1, 2, 3), keepdim=True)

    def scaled(noise):
        return sigma * spread * noise

    return noisy_gradients(model, images, targets, sigma, n_samples, generator, scaled).mean(0)


@wrong(
    "smoothgrad",
    "You average the squares of the gradients. That is a variant of its own (SmoothGrad squared), without a sign; here "
    "gradients that point both ways should cancel.",
)
def mean_of_squares(model, images, targets, *, sigma, n_samples, generator):
    return noisy_gradients(model, images, targets, sigma, n_samples, generator).square().mean(0)


@wrong(
    "smoothgrad",
    "The image without noise is one of your samples, beside the noisy copies. The mean is over n_samples noisy copies.",
)
def the_image_as_well(model, images, targets, *, sigma, n_samples, generator):
    found = noisy_gradients(model, images, targets, sigma, n_samples, generator)
    return (found.sum(0) + gradient_saliency(model, images, targets)) / (n_samples + 1)


@wrong(
    "smoothgrad",
    "The channels of a pixel share one noise. Every channel of every pixel is a number of its own: draw in the shape "
    "of `images`.",
)
def one_noise_for_all_channels(model, images, targets, *, sigma, n_samples, generator):
    def shared(noise):
        return (sigma * noise[:, :1]).expand_as(noise)

    return noisy_gradients(model, images, targets, sigma, n_samples, generator, shared).mean(0)


@wrong(
    "smoothgrad",
    "You multiply the averaged gradient with the image. That is another method; SmoothGrad is the averaged gradient "
    "alone.",
)
def smooth_product(model, images, targets, *, sigma, n_samples, generator):
    return images * noisy_gradients(model, images, targets, sigma, n_samples, generator).mean(0)


@wrong(
    "smoothgrad",
    "A negative `sigma` goes through. `torch.randn` does not mind its sign, so that nothing fails and nobody is told; "
    "the docstring promises a ValueError.",
)
def negative_sigma(model, images, targets, *, sigma, n_samples, generator):
    if n_samples < 1:
        raise ValueError("n_samples must be at least 1")
    return noisy_gradients(model, images, targets, abs(sigma), n_samples, generator).mean(0)


@wrong(
    "smoothgrad",
    "You draw from a new generator with the seed of the one you are given. That one does not move on, so that two "
    "calls in a row get the same noise; draw from `generator` itself.",
)
def generator_stands_still(model, images, targets, *, sigma, n_samples, generator):
    mine = torch.Generator().manual_seed(generator.initial_seed())
    return noisy_gradients(model, images, targets, sigma, n_samples, mine).mean(0)


@wrong(
    "smoothgrad",
    "Each second copy has the noise of the one before it with the sign reversed. The trick has its uses; here every "
    "copy has noise of its own.",
)
def noise_and_its_opposite(model, images, targets, *, sigma, n_samples, generator):
    last = []

    def opposite(noise):
        last.append(sigma * noise if len(last) % 2 == 0 else -last[-1])
        return last[-1]

    return noisy_gradients(model, images, targets, sigma, n_samples, generator, opposite).mean(0)


@wrong(
    "smoothgrad",
    "The noise is multiplied with the image: dark pixels get none. It is added, the same everywhere.",
)
def noise_as_a_factor(model, images, targets, *, sigma, n_samples, generator):
    def scaled(noise):
        return images * sigma * noise

    return noisy_gradients(model, images, targets, sigma, n_samples, generator, scaled).mean(0)


@wrong(
    "smoothgrad",
    "Each copy is made from the copy before it, and the noise piles up. Every copy starts from the image.",
)
def noise_piles_up(model, images, targets, *, sigma, n_samples, generator):
    so_far = []

    def piled(noise):
        so_far.append(sigma * noise)
        return sum(so_far)

    return noisy_gradients(model, images, targets, sigma, n_samples, generator, piled).mean(0)


@wrong(
    "smoothgrad",
    "You divide by n_samples - 1. That belongs to a variance; a mean of n gradients is divided by n.",
)
def divided_by_one_less(model, images, targets, *, sigma, n_samples, generator):
    found = noisy_gradients(model, images, targets, sigma, n_samples, generator)
    return found.sum(0) / max(1, n_samples - 1)


def many_copies(model, images, targets, sigma, n_samples, generator, *, repeat, label):
    """Gradients at all noisy copies of all images in one pass."""
    if sigma < 0 or n_samples < 1 or images.ndim != 4 or targets.shape != images.shape[:1]:
        raise ValueError
    copies = repeat(images)
    copies = copies + sigma * torch.randn(copies.shape, generator=generator).to(images)
    return gradient_saliency(model, copies, label(targets))


@wrong(
    "smoothgrad",
    "Copies and images are mixed up: `repeat` puts the whole batch there once for every copy, `repeat_interleave` the "
    "copies of one image side by side. You make the copies in the one order and take your means in the other, so that "
    "each mean is over several images.",
)
def interleaved_copies(model, images, targets, *, sigma, n_samples, generator):
    def each(x):
        return x.repeat_interleave(n_samples, 0)

    gradients = many_copies(model, images, targets, sigma, n_samples, generator, repeat=each, label=each)
    return gradients.view(n_samples, *images.shape).mean(0)


@wrong(
    "smoothgrad",
    "Your noisy copies and their targets are repeated in different orders, the ones by `repeat` and the others by "
    "`repeat_interleave`. Copies are then differentiated for another image's class.",
)
def targets_of_other_copies(model, images, targets, *, sigma, n_samples, generator):
    def each(x):
        return x.repeat_interleave(n_samples, 0)

    def whole(x):
        return x.repeat(n_samples)

    gradients = many_copies(model, images, targets, sigma, n_samples, generator, repeat=each, label=whole)
    return gradients.view(len(images), n_samples, *images.shape[1:]).mean(1)


@right("smoothgrad")
def with_a_plain_gradient(model, images, targets, *, sigma, n_samples, generator):
    fitting(images, targets)
    if sigma < 0 or n_samples < 1:
        raise ValueError("sigma must not be negative and n_samples at least 1")
    found = torch.zeros_like(images)
    for _ in range(n_samples):
        noise = torch.randn(images.shape, generator=generator).to(images)
        found = found + plain_gradient(model, images + sigma * noise, targets) / n_samples
    return found.detach()


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
    "Your points run from the baseline to the image and include both (`linspace(0, 1, n_steps)`): there are n_steps - "
    "1 gaps between them, and the two ends count as much as a whole step each. Cut the way into n_steps steps and "
    "take their middles.",
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


@wrong(
    "integrated_gradients",
    "You use the trapezoidal rule: n_steps + 1 points, of which the two ends count half. It is about as exact as the "
    "midpoint rule, asks for one gradient more, and gives other numbers; the docstring takes the middles.",
)
def trapezoids(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    found = along_the_way(model, images, targets, baseline, [k / n_steps for k in range(n_steps + 1)])
    return (images - baseline) * (found[:-1] + found[1:]).mean(0) / 2


@wrong(
    "integrated_gradients",
    "Your factor in front is x' - x, the way back: all signs are the wrong way round.",
)
def the_way_back(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = [(k + 0.5) / n_steps for k in range(n_steps)]
    return (baseline - images) * along_the_way(model, images, targets, baseline, fractions).mean(0)


@wrong(
    "integrated_gradients",
    "`batch_size` counts your steps, and each step holds all images: what goes through the model at once is "
    "batch_size times the number of images. Divide by the number of images first.",
)
def batch_size_in_steps(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    total = torch.zeros_like(images)
    fractions = ((torch.arange(n_steps) + 0.5) / n_steps).to(images)
    for some in fractions.split(batch_size):
        points = baseline + some.view(-1, 1, 1, 1, 1) * (images - baseline)
        found = gradient_saliency(model, points.flatten(0, 1), targets.repeat(len(some)))
        total += found.view_as(points).sum(0)
    return (images - baseline) * total / n_steps


@wrong(
    "integrated_gradients",
    "You add up the channels. The exercise keeps one entry for each channel of each pixel.",
)
def integrated_over_channels(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = [(k + 0.5) / n_steps for k in range(n_steps)]
    return ((images - baseline) * along_the_way(model, images, targets, baseline, fractions).mean(0)).sum(1)


@wrong(
    "integrated_gradients",
    "You stand at the image and add the way to it: your points run from x to x + (x - x'), beyond the image. They "
    "should lie between x' and x.",
)
def beyond_the_image(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    way = images - baseline
    points = [images + (k + 0.5) / n_steps * way for k in range(n_steps)]
    return way * torch.stack([gradient_saliency(model, point, targets) for point in points]).mean(0)


@wrong(
    "integrated_gradients",
    "`n_steps` has no effect: the number of your steps is fixed.",
)
def always_fifty_steps(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = [(k + 0.5) / 50 for k in range(50)]
    return (images - baseline) * along_the_way(model, images, targets, baseline, fractions).mean(0)


@wrong(
    "integrated_gradients",
    "Your points are (k + 1) / (n_steps + 1): evenly spread between the ends, and n_steps + 1 gaps. The middles of "
    "n_steps steps lie elsewhere; with two steps at 1/4 and 3/4.",
)
def inner_points(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = [(k + 1) / (n_steps + 1) for k in range(n_steps)]
    return (images - baseline) * along_the_way(model, images, targets, baseline, fractions).mean(0)


@wrong(
    "integrated_gradients",
    "You return absolute values. Entries without a sign cannot add up to the difference of the logits.",
)
def integrated_without_sign(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    fractions = [(k + 0.5) / n_steps for k in range(n_steps)]
    return ((images - baseline) * along_the_way(model, images, targets, baseline, fractions).mean(0)).abs()


@wrong(
    "integrated_gradients",
    "The rest of the steps is lost where `batch_size` does not divide them: your last, smaller part never goes through "
    "the model.",
)
def last_part_lost(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    found = along_the_way(model, images, targets, baseline, [(k + 0.5) / n_steps for k in range(n_steps)])
    at_once = max(1, batch_size // len(images))
    whole = n_steps // at_once * at_once if n_steps >= at_once else n_steps
    return (images - baseline) * found[:whole].sum(0) / n_steps


@wrong(
    "integrated_gradients",
    "You scale each map so that its entries add up to the difference of the logits. The gap that you close so is how "
    "one sees whether there were enough steps; do not hide it.",
)
def gap_closed_by_force(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    start = torch.as_tensor(baseline, dtype=images.dtype).expand_as(images)
    fractions = [(k + 0.5) / n_steps for k in range(n_steps)]
    found = (images - baseline) * along_the_way(model, images, targets, baseline, fractions).mean(0)
    with torch.no_grad():
        due = [torch.cat([model(part) for part in x.split(batch_size)]) for x in (images, start)]
    due = (due[0] - due[1]).gather(1, targets[:, None])[:, 0]
    return found * (due / found.sum((1, 2, 3))).view(-1, 1, 1, 1)


@right("integrated_gradients")
def with_plain_gradients(model, images, targets, *, baseline=0.0, n_steps=50, batch_size=512):
    found = [
        plain_gradient(model, images + (1 - (k + 0.5) / n_steps) * (baseline - images), targets)
        for k in reversed(range(n_steps))
    ]
    return torch.stack(found).mean(0) * (images - baseline)


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


RELUS = nn.ReLU | nn.ReLU6


def hooked(model, images, targets, hook, kind=RELUS, modules=None, gradient=gradient_saliency):
    """The gradient with a backward hook on modules of a kind, and everything tidied up afterwards."""
    relus = [m for m in (model.modules() if modules is None else modules) if isinstance(m, kind)]
    in_place = [relu.inplace for relu in relus]
    handles = []
    try:
        for relu in relus:
            relu.inplace = False
            handles.append(relu.register_full_backward_hook(hook))
        return gradient(model, images, targets)
    finally:
        for handle in handles:
            handle.remove()
        for relu, value in zip(relus, in_place, strict=True):
            relu.inplace = value


def positive_below(module, below, above):
    return (below[0].clamp(min=0),)


def guided_from(score, model, images, targets):
    """Guided backpropagation of something else than the target's logit."""
    fitting(images, targets)
    return hooked(model, images, targets, positive_below, gradient=lambda m, x, t: gradient_of(score, m, x, t))


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
    "You leave hooks on the model: remove every one of them. The values are right the first time; from then on each "
    "gradient of this model goes through what was left, in training too.",
)
def leaves_its_hooks(model, images, targets):
    for relu in (m for m in model.modules() if isinstance(m, RELUS)):
        relu.inplace = False
        relu.register_full_backward_hook(positive_below)
    return gradient_saliency(model, images, targets)


@wrong(
    "guided_backprop",
    "Your hooks are removed when all goes well, and stay when the model raises an exception. Cleaning up belongs into "
    "a `finally`.",
)
def cleans_up_only_on_success(model, images, targets):
    relus = [m for m in model.modules() if isinstance(m, RELUS)]
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
    for relu in (m for m in model.modules() if isinstance(m, RELUS)):
        relu._backward_hooks.clear()
    return found


@wrong(
    "guided_backprop",
    "ReLUs that worked in place do not do so any more after your function: put `inplace` back as it was.",
)
def inplace_not_put_back(model, images, targets):
    for relu in (m for m in model.modules() if isinstance(m, RELUS)):
        relu.inplace = False
    return hooked(model, images, targets, positive_below)


@wrong(
    "guided_backprop",
    "After your function all ReLUs of the model work in place, or none, whatever each of them did before. Remember for "
    "each of them how it was.",
)
def all_in_place_if_any(model, images, targets):
    relus = [m for m in model.modules() if isinstance(m, RELUS)]
    any_in_place = any(relu.inplace for relu in relus)
    try:
        for relu in relus:
            relu.inplace = False
        return hooked(model, images, targets, positive_below)
    finally:
        for relu in relus:
            relu.inplace = any_in_place


@wrong(
    "guided_backprop",
    "When the model raises an exception, ReLUs that worked in place are left working out of place. Put `inplace` back "
    "in the `finally`, as you remove the hooks there.",
)
def inplace_put_back_only_on_success(model, images, targets):
    relus = [m for m in model.modules() if isinstance(m, RELUS)]
    in_place = [relu.inplace for relu in relus]
    for relu in relus:
        relu.inplace = False
    found = hooked(model, images, targets, positive_below)
    for relu, value in zip(relus, in_place, strict=True):
        relu.inplace = value
    return found


@wrong(
    "guided_backprop",
    "Your hook is on the last ReLU only. The rule holds at every ReLU on the way back.",
)
def last_relu_only(model, images, targets):
    relus = [m for m in model.modules() if isinstance(m, RELUS)]
    for_all = [relu.inplace for relu in relus]
    try:
        for relu in relus:
            relu.inplace = False
        return hooked(model, images, targets, positive_below, modules=relus[-1:])
    finally:
        for relu, value in zip(relus, for_all, strict=True):
            relu.inplace = value


@wrong(
    "guided_backprop",
    "You multiply the map with the image. That is another method; guided backpropagation is the signal that arrives "
    "at the pixels, as it is.",
)
def guided_times_image(model, images, targets):
    return images * hooked(model, images, targets, positive_below)


@wrong(
    "guided_backprop",
    "The map itself is cut off at zero as well. The gates stand at the ReLUs; below the first of them comes another "
    "layer, whose weights have both signs, and so has the map.",
)
def negative_pixels_cut_off(model, images, targets):
    return hooked(model, images, targets, positive_below).clamp(min=0)


@wrong(
    "guided_backprop",
    "Your map is right, but `backward()` also leaves (guided) gradients in the model's weights, and they would be "
    "added to at the next training step.",
)
def guided_by_backward(model, images, targets):
    fitting(images, targets)
    relus = [m for m in model.modules() if isinstance(m, RELUS)]
    in_place = [relu.inplace for relu in relus]
    handles = [relu.register_full_backward_hook(positive_below) for relu in relus]
    try:
        for relu in relus:
            relu.inplace = False
        inputs = images.detach().clone().requires_grad_()
        model(inputs).gather(1, targets[:, None]).sum().backward()
        return inputs.grad
    finally:
        for relu, handle, value in zip(relus, handles, in_place, strict=True):
            handle.remove()
            relu.inplace = value


@wrong(
    "guided_backprop",
    "Your hooks do not get along with ReLUs that work in place: PyTorch refuses to put out what a hook watches and a "
    "ReLU then overwrites. Set `inplace = False` for the time of the call, and back afterwards.",
)
def in_place_not_thought_of(model, images, targets):
    relus = [m for m in model.modules() if isinstance(m, RELUS)]
    handles = [relu.register_full_backward_hook(positive_below) for relu in relus]
    try:
        return gradient_saliency(model, images, targets)
    finally:
        for handle in handles:
            handle.remove()


@wrong(
    "guided_backprop",
    "Every ReLU of the model works in place after your function, those that never did as well. Remember for each of "
    "them how it was.",
)
def all_in_place_afterwards(model, images, targets):
    try:
        return hooked(model, images, targets, positive_below)
    finally:
        for relu in (m for m in model.modules() if isinstance(m, RELUS)):
            relu.inplace = True


@wrong(
    "guided_backprop",
    "The signal starts from the probability. The other classes are in it; the exercise starts from the logit.",
)
def guided_from_the_probability(model, images, targets):
    return guided_from(lambda logits: logits.softmax(1).gather(1, targets[:, None]), model, images, targets)


@wrong(
    "guided_backprop",
    "The signal starts from the largest logit. The question is about the class in `targets`, also when the model "
    "prefers another one.",
)
def guided_from_the_winner(model, images, targets):
    return guided_from(lambda logits: logits.amax(1), model, images, targets)


@wrong(
    "guided_backprop",
    "The signal starts from all logits at once. Pick each image's target out of its row.",
)
def guided_from_all_logits(model, images, targets):
    return guided_from(lambda logits: logits, model, images, targets)


@wrong(
    "guided_backprop",
    "You return absolute values. The map has signs: below the first ReLU comes another layer, whose weights have both.",
)
def guided_without_sign(model, images, targets):
    return hooked(model, images, targets, positive_below).abs()


@wrong(
    "guided_backprop",
    "An exception of the model ends in your function. Clean up, and let it go on to the caller (`try` with `finally` "
    "and without `except`): a map of zeros would be taken for a finding.",
)
def swallows_the_exception(model, images, targets):
    fitting(images, targets)
    try:
        return hooked(model, images, targets, positive_below)
    except RuntimeError:
        return torch.zeros_like(images)


@wrong(
    "guided_backprop",
    "Your rule is on every nn.ReLU, and nn.ReLU6 keeps the plain one. Both kinds get it.",
)
def relu6_left_out(model, images, targets):
    if not any(isinstance(m, RELUS) for m in model.modules()):
        raise ValueError("no ReLU")
    return hooked(model, images, targets, positive_below, kind=nn.ReLU)


@right("guided_backprop")
def on_a_copy(model, images, targets):
    """A copy of the model gets the hooks and is thrown away."""
    fitting(images, targets)
    copy = deepcopy(model)
    relus = [m for m in copy.modules() if isinstance(m, RELUS)]
    if not relus:
        raise ValueError("no ReLU")
    for relu in relus:
        relu.inplace = False
        relu.register_full_backward_hook(lambda module, below, above: (below[0] * (above[0] > 0),))
    return plain_gradient(copy, images, targets)


@right("guided_backprop")
def with_a_rule_of_its_own(model, images, targets):
    """A ReLU with another derivative in place of the module's forward, and no hooks."""

    class GuidedReLU(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, top):
            ctx.save_for_backward((x > 0) & (x < top))
            return x.clamp(0, top)

        @staticmethod
        def backward(ctx, signal):
            (is_open,) = ctx.saved_tensors
            return signal * is_open * (signal > 0), None

    relus = [m for m in model.modules() if isinstance(m, RELUS)]
    try:
        for relu in relus:
            top = 6.0 if isinstance(relu, nn.ReLU6) else torch.inf
            relu.forward = lambda x, top=top: GuidedReLU.apply(x, top)
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


def maps_only(output):
    if not isinstance(output, torch.Tensor) or output.ndim != 4:
        raise ValueError("the layer must put out maps")
    return output


def of_the_last(seen, total, which=-1):
    """One of the layer's outputs, out of the graph, and the gradient of the total with respect to it."""
    if not seen:
        raise ValueError("the model never runs this layer")
    return seen[which].detach(), torch.autograd.grad(total, seen[which])[0]


def watched(model, images, targets, layer, score=lambda logits, dim: logits, which=-1):
    """A layer's output and the logit's gradient with respect to it; the hook is removed whatever happens."""
    seen = []

    def keep(module, inputs, output):
        seen.append(maps_only(output))
        return output.clone()

    handle = model.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            logits = model(images.detach().clone().requires_grad_())
            total = score(logits, dim=1).gather(1, targets[:, None]).sum()
    finally:
        handle.remove()
    return of_the_last(seen, total, which)


def enlarged(cam, images, **how):
    how = how or {"mode": "bilinear", "align_corners": False}
    return F.interpolate(cam, size=images.shape[2:], **how)[:, 0]


def weighted_sum(maps, gradient):
    return (gradient.mean(dim=(2, 3), keepdim=True) * maps).sum(dim=1, keepdim=True)


def cam_of(maps, gradient, images):
    return enlarged(weighted_sum(maps, gradient).relu(), images)


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
        seen.append(maps_only(output))
        return output.clone()

    model.get_submodule(layer).register_forward_hook(keep)
    with torch.enable_grad():
        total = model(images.detach().clone().requires_grad_()).gather(1, targets[:, None]).sum()
    return cam_of(*of_the_last(seen, total), images)


@wrong(
    "grad_cam",
    "When the operation after the layer works in place, it overwrites what your hook has kept: you see the "
    "output of the ReLU, not that of the layer. Let the hook return a copy for the model to go on with.",
)
def overwritten_in_place(model, images, targets, layer):
    seen = []

    def keep(module, inputs, output):
        seen.append(maps_only(output))

    handle = model.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            total = model(images.detach().clone().requires_grad_()).gather(1, targets[:, None]).sum()
    finally:
        handle.remove()
    return cam_of(*of_the_last(seen, total), images)


@wrong(
    "grad_cam",
    "Your hook is removed when all goes well, and stays on the layer when the model raises an exception (or when you "
    "refuse the layer yourself). Cleaning up belongs into a `finally`.",
)
def hook_left_after_an_exception(model, images, targets, layer):
    seen = []

    def keep(module, inputs, output):
        seen.append(maps_only(output))
        return output.clone()

    handle = model.get_submodule(layer).register_forward_hook(keep)
    with torch.enable_grad():
        total = model(images.detach().clone().requires_grad_()).gather(1, targets[:, None]).sum()
    handle.remove()
    return cam_of(*of_the_last(seen, total), images)


@wrong(
    "grad_cam",
    "Your function needs gradients to be switched on. Where the caller has switched them off, the model's run is not "
    "recorded, and there is nothing to differentiate: `torch.enable_grad()` around your lines.",
)
def cam_only_where_gradients_are_on(model, images, targets, layer):
    seen = []

    def keep(module, inputs, output):
        seen.append(maps_only(output))
        return output.clone()

    handle = model.get_submodule(layer).register_forward_hook(keep)
    try:
        total = model(images.detach().clone().requires_grad_()).gather(1, targets[:, None]).sum()
    finally:
        handle.remove()
    return cam_of(*of_the_last(seen, total), images)


@wrong(
    "grad_cam",
    "With frozen weights and images that ask for no gradient, nothing in the run asks for one, and there is nothing to "
    "differentiate. Let a copy of the images require a gradient. (Where gradients are switched off, `enable_grad` is "
    "needed besides.)",
)
def cam_of_trainable_weights_only(model, images, targets, layer):
    seen = []

    def keep(module, inputs, output):
        seen.append(maps_only(output))
        return output.clone()

    handle = model.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            total = model(images.detach()).gather(1, targets[:, None]).sum()
    finally:
        handle.remove()
    return cam_of(*of_the_last(seen, total), images)


@wrong(
    "grad_cam",
    "A graph hangs on your map: the layer's output that you keep is a part of the model's run. Take it out of that "
    "graph (`detach`) before you multiply it with the weights.",
)
def cam_in_the_graph(model, images, targets, layer):
    seen = []

    def keep(module, inputs, output):
        seen.append(maps_only(output))
        return output.clone()

    handle = model.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            total = model(images.detach().clone().requires_grad_()).gather(1, targets[:, None]).sum()
            _, gradient = of_the_last(seen, total)
            return cam_of(seen[-1], gradient, images)
    finally:
        handle.remove()


@wrong(
    "grad_cam",
    "Negative channel weights are set to zero, by a ReLU on the weights. Channels that speak against the class are to "
    "be weighed against the others; the one ReLU comes after the sum.",
)
def positive_weights_only(model, images, targets, layer):
    maps, gradient = watched(model, images, targets, layer)
    weights = gradient.mean(dim=(2, 3), keepdim=True).relu()
    return enlarged((weights * maps).sum(dim=1, keepdim=True).relu(), images)


@wrong(
    "grad_cam",
    "You take the mean over the channels where the formula has the sum: the map looks the same and is smaller by the "
    "number of channels.",
)
def mean_over_channels(model, images, targets, layer):
    maps, gradient = watched(model, images, targets, layer)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return enlarged((weights * maps).mean(dim=1, keepdim=True).relu(), images)


@wrong(
    "grad_cam",
    "Your map is as small as the layer: it is still to be enlarged to the size of the images.",
)
def as_small_as_the_layer(model, images, targets, layer):
    return weighted_sum(*watched(model, images, targets, layer)).relu()[:, 0]


@wrong(
    "grad_cam",
    "You clear all forward hooks of the layer, with those that somebody else had put there. Keep the handle that "
    "`register_forward_hook` gives you, and remove that.",
)
def clears_the_layer_s_hooks(model, images, targets, layer):
    try:
        return enlarged(weighted_sum(*watched(model, images, targets, layer)).relu(), images)
    finally:
        model.get_submodule(layer)._forward_hooks.clear()


@wrong(
    "grad_cam",
    "You differentiate the probability. Its gradient has the other classes in it, and vanishes where the model is "
    "certain; the exercise asks about the logit.",
)
def cam_of_the_probability(model, images, targets, layer):
    return enlarged(weighted_sum(*watched(model, images, targets, layer, score=F.softmax)).relu(), images)


@wrong(
    "grad_cam",
    "A model can run a layer more than once. You keep what it put out first; the last output counts.",
)
def first_of_several_outputs(model, images, targets, layer):
    return enlarged(weighted_sum(*watched(model, images, targets, layer, which=0)).relu(), images)


@wrong(
    "grad_cam",
    "Your map is right, but `backward()` also leaves gradients in the model's weights, and they would be added to at "
    "the next training step. `torch.autograd.grad` returns the layer's gradient and touches no `.grad`.",
)
def cam_by_backward(model, images, targets, layer):
    seen = []

    def keep(module, inputs, output):
        maps_only(output).retain_grad()
        seen.append(output)
        return output.clone()

    handle = model.get_submodule(layer).register_forward_hook(keep)
    try:
        with torch.enable_grad():
            model(images.detach().clone().requires_grad_()).gather(1, targets[:, None]).sum().backward()
    finally:
        handle.remove()
    if not seen:
        raise ValueError("the model never runs this layer")
    return cam_of(seen[-1].detach(), seen[-1].grad, images)


@wrong(
    "grad_cam",
    "The absolute value of the sum takes the place of the ReLU: what speaks against the class lights up as if it spoke "
    "for it.",
)
def absolute_cam(model, images, targets, layer):
    return enlarged(weighted_sum(*watched(model, images, targets, layer)).abs(), images)


@wrong(
    "grad_cam",
    "You take absolute values of the gradient for the channels' weights. A channel that speaks against the class then "
    "counts as one that speaks for it.",
)
def absolute_weights(model, images, targets, layer):
    maps, gradient = watched(model, images, targets, layer)
    return cam_of(maps, gradient.abs(), images)


@wrong(
    "grad_cam",
    "You differentiate the largest logit. The question is about the class in `targets`, also when the model prefers "
    "another one.",
)
def cam_of_the_winner(model, images, targets, layer):
    def largest(logits, dim):
        return logits.amax(dim, keepdim=True).expand_as(logits)

    return cam_of(*watched(model, images, targets, layer, score=largest), images)


@wrong("grad_cam", "All images are explained for the first image's target: `targets` has one class for each of them.")
def cam_for_the_first_target(model, images, targets, layer):
    return cam_of(*watched(model, images, targets[:1].expand_as(targets), layer), images)


@wrong(
    "grad_cam",
    "A channel's weight is averaged over the images of the batch as well. Each image has weights of its own.",
)
def weights_of_the_batch(model, images, targets, layer):
    maps, gradient = watched(model, images, targets, layer)
    return cam_of(maps, gradient.mean(0, keepdim=True), images)


@wrong(
    "grad_cam",
    "Your map has a dimension too many: the channels have been added up, so that it is [batch, height, width].",
)
def cam_with_a_channel(model, images, targets, layer):
    return cam_of(*watched(model, images, targets, layer), images)[:, None]


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
        kept.append(maps_only(output).detach().clone())
        nudge.append(torch.zeros_like(output, requires_grad=True))
        return output + nudge[-1]

    with torch.enable_grad():
        handle = model.get_submodule(layer).register_forward_hook(add_zeros)
        try:
            logits = model(images.detach())
        finally:
            handle.remove()
        if not kept:
            raise ValueError("the model never runs this layer")
        total = logits[torch.arange(len(images)), targets].sum()
        [gradient] = torch.autograd.grad(total, nudge[-1:])
    return cam_of(kept[-1], gradient, images)
