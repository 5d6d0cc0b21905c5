"""Attribution by differentiating: the gradient of a logit with respect to the pixels, plain, smoothed, integrated."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor


def gradient_saliency(
    model: Callable[[Tensor], Tensor],
    images: Float[Tensor, "batch channel height width"],
    targets: Int[Tensor, " batch"],
) -> Float[Tensor, "batch channel height width"]:
    """The derivative of each image's target logit with respect to its pixels, with its sign.

        S(x) = d logit_target(x) / dx

    Works also within ``torch.no_grad()``, and leaves weights and images as they were: their ``grad``, and whether they
    require one.

    Args:
        model: From images [batch, channel, height, width] to logits [batch, class], in evaluation mode: an image's
            logits depend on that image only.
        images: Images [batch, channel, height, width].
        targets: The class whose logit is differentiated, for each image [batch].

    Returns:
        Gradient [batch, channel, height, width], without a graph, in the images' dtype and in logits for each unit of
        pixel brightness.

    Raises:
        ValueError: If the shapes of images and targets don't fit, or a target is not a class of the model.

    Source: Simonyan et al. (2013), "Deep Inside Convolutional Networks", section 3 (they show the absolute value).
    """
    # Given: the inputs are checked.
    if images.ndim != 4 or targets.shape != images.shape[:1]:
        raise ValueError(
            "images must be [batch, channel, height, width] and targets [batch], "
            f"got {tuple(images.shape)} and {tuple(targets.shape)}"
        )
    # Yours: one forward and one backward pass for the whole batch.
    with torch.inference_mode(False), torch.enable_grad():  # the first, and the copies, for callers in inference mode
        inputs, classes = images.detach().clone().requires_grad_(), targets.clone()
        logits = model(inputs)
        if targets.min() < 0 or targets.max() >= logits.shape[1]:
            raise ValueError(f"targets must be between 0 and {logits.shape[1] - 1}, got {targets.tolist()}")
        [gradient] = torch.autograd.grad(logits.gather(1, classes[:, None]).sum(), inputs)
    return gradient


def input_x_gradient(
    model: Callable[[Tensor], Tensor],
    images: Float[Tensor, "batch channel height width"],
    targets: Int[Tensor, " batch"],
) -> Float[Tensor, "batch channel height width"]:
    """Each pixel times the derivative of the target logit with respect to it.

    For a model without biases whose only non-linearities are ReLUs and max-pooling, the entries add up to the logit.
    Weights and images are left as they were, their ``grad`` too.

    Args:
        model: From images [batch, channel, height, width] to logits [batch, class], in evaluation mode.
        images: Images [batch, channel, height, width].
        targets: The class whose logit is differentiated, for each image [batch].

    Returns:
        Attributions [batch, channel, height, width], in logits.

    Raises:
        ValueError: If the shapes of images and targets don't fit.

    Source: Shrikumar et al. (2017), "Learning Important Features Through Propagating Activation Differences",
    arXiv 1704.02685, section 2 (as the method to improve on).
    """
    return images * gradient_saliency(model, images, targets)


def smoothgrad(
    model: Callable[[Tensor], Tensor],
    images: Float[Tensor, "batch channel height width"],
    targets: Int[Tensor, " batch"],
    *,
    sigma: float,
    n_samples: int,
    generator: torch.Generator,
) -> Float[Tensor, "batch channel height width"]:
    """The gradient, averaged over noisy copies of each image.

        S(x) = 1 / n * sum over i of d logit_target(x + noise_i) / dx,    noise_i normal, independent for each pixel
                                                                          of each copy, with standard deviation sigma

    Weights and images are left as they were, their ``grad`` too.

    Args:
        model: From images [n, channel, height, width] to logits [n, class], in evaluation mode.
        images: Images [batch, channel, height, width].
        targets: The class whose logit is differentiated, for each image [batch].
        sigma: Standard deviation of the noise, in units of pixel brightness, not negative.
        n_samples: Noisy copies of each image, at least 1.
        generator: Source of all noise, such as ``torch.randn(images.shape, generator=generator)`` for each copy,
            brought to the images' dtype.

    Returns:
        Averaged gradient [batch, channel, height, width], without a graph, in logits for each unit of pixel brightness.

    Raises:
        ValueError: If sigma is negative, or n_samples below 1, or the shapes of images and targets don't fit.

    Source: Smilkov et al. (2017), "SmoothGrad: removing noise by adding noise", arXiv 1706.03825, section 2.
    """
    if not sigma >= 0:
        raise ValueError(f"sigma must not be negative, got {sigma}")
    if n_samples < 1:
        raise ValueError(f"n_samples must be at least 1, got {n_samples}")
    total = torch.zeros_like(images)
    for _ in range(n_samples):
        noise = torch.randn(images.shape, generator=generator, device=generator.device)
        total += gradient_saliency(model, images + sigma * noise.to(images), targets)
    return total / n_samples


def integrated_gradients(
    model: Callable[[Tensor], Tensor],
    images: Float[Tensor, "batch channel height width"],
    targets: Int[Tensor, " batch"],
    *,
    baseline: Float[Tensor, "..."] | float = 0.0,
    n_steps: int = 50,
    batch_size: int = 512,
) -> Float[Tensor, "batch channel height width"]:
    """The gradient, averaged along the straight line from a baseline to each image, times the way to go.

        IG(x) = (x - x') * mean over k of d logit_target(x' + a_k (x - x')) / dx,    a_k = (k + 1/2) / n_steps,

    for k = 0 … n_steps - 1: the midpoint rule for the paper's integral over a from 0 to 1. With many steps, the
    entries of one image add up to logit_target(x) - logit_target(x'). Weights and images are left as they were, their
    ``grad`` too.

    Args:
        model: From images [n, channel, height, width] to logits [n, class], in evaluation mode.
        images: Images x [batch, channel, height, width].
        targets: The class whose logit is differentiated, for each image [batch].
        baseline: The point x' to start from: a number, or a tensor that broadcasts against ``images``.
        n_steps: Points on the line, at least 1.
        batch_size: About this many images go through the model at a time (never less than one step of all images).

    Returns:
        Attributions [batch, channel, height, width], in logits.

    Raises:
        ValueError: If n_steps or batch_size is below 1, or the shapes of images and targets don't fit.

    Source: Sundararajan et al. (2017), "Axiomatic Attribution for Deep Networks", arXiv 1703.01365, equations 1 and 3.
    """
    # Given: the inputs are checked.
    if images.ndim != 4 or targets.shape != images.shape[:1]:
        raise ValueError(
            "images must be [batch, channel, height, width] and targets [batch], "
            f"got {tuple(images.shape)} and {tuple(targets.shape)}"
        )
    if n_steps < 1 or batch_size < 1:
        raise ValueError(f"n_steps and batch_size must be at least 1, got {n_steps} and {batch_size}")
    # Yours: gradients at the midpoints of the steps, their mean, and the factor in front.
    way = images - baseline
    fractions = (torch.arange(n_steps, dtype=images.dtype, device=images.device) + 0.5) / n_steps
    total = torch.zeros_like(images)
    for some in fractions.split(max(1, batch_size // len(images))):
        points = baseline + some.view(-1, 1, 1, 1, 1) * way
        gradients = gradient_saliency(model, points.flatten(0, 1), targets.repeat(len(some)))
        total += gradients.view_as(points).sum(dim=0)
    return way * total / n_steps
