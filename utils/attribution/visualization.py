"""Feature visualisation: images that a unit responds to most, and what keeps them from being noise."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor


def total_variation(images: Float[Tensor, "batch channel height width"]) -> Float[Tensor, " batch"]:
    """How much each image changes from pixel to pixel: the sum of absolute differences between neighbours.

    TV(x) = sum over channels, rows i and columns j of |x[i+1, j] - x[i, j]| + |x[i, j+1] - x[i, j]|, with neighbours
    inside the image only.

    Args:
        images: Images [batch, channel, height, width]; a side of one pixel has no neighbours and adds nothing.

    Returns:
        One number for each image [batch], in units of the pixels. Gradients flow to the images, and are finite where
        neighbours are equal.

    Raises:
        ValueError: If ``images`` does not have four dimensions.

    Source: Rudin, Osher and Fatemi (1992), "Nonlinear total variation based noise removal algorithms", in its
    anisotropic form; as a regulariser of feature visualisation, Mahendran and Vedaldi (2015), arXiv 1412.0035.
    """
    if images.ndim != 4:
        raise ValueError(f"images must be [batch, channel, height, width], got shape {tuple(images.shape)}")
    vertical = (images[:, :, 1:] - images[:, :, :-1]).abs().flatten(1).sum(1)
    horizontal = (images[..., 1:] - images[..., :-1]).abs().flatten(1).sum(1)
    return vertical + horizontal


def activation_maximization(
    objective: Callable[[Float[Tensor, "batch channel height width"]], Float[Tensor, " batch"]],
    images: Float[Tensor, "batch channel height width"],
    *,
    n_steps: int,
    step_size: float,
    tv_weight: float = 0.0,
    l2_weight: float = 0.0,
    pixel_range: tuple[float, float] = (0.0, 1.0),
) -> tuple[Float[Tensor, "batch channel height width"], Float[Tensor, "step batch"]]:
    """Change the pixels of each image, step by step, so that ``objective`` grows.

    With J(x) = objective(x) - tv_weight * TV(x) - l2_weight * sum of x², and g the gradient of J with respect to the
    pixels, one step is

        x <- clip(x + step_size * g / rms(g)),    rms(g) = root of the mean of g² over the pixels of one image.

    So each image of the batch takes steps of its own, all of the same length. An image whose gradient is zero stays as
    it is, but for the clipping; with an rms(g) between 1e-5 and 1e15 it takes the whole step, to within one per cent
    (what is added to rms(g) against a division by zero has to be that small). Parameters of the model behind
    ``objective`` get no gradients.

    Args:
        objective: Takes the images, returns a score for each of them [batch].
        images: Where to start [batch, channel, height, width], also outside ``pixel_range``; not changed.
        n_steps: Number of steps, at least 1.
        step_size: Root-mean-square change of a pixel in one step, before clipping; in units of the pixels.
        tv_weight: Price of one unit of total variation.
        l2_weight: Price of one unit of the sum of squared pixels.
        pixel_range: Smallest and largest value that a pixel may take.

    Returns:
        The images after the last step and the scores (without the penalties) before each step [step, batch], both
        without a graph. The first scores are those of ``images`` as they are given.

    Raises:
        ValueError: If ``images`` is not four-dimensional, ``n_steps`` is below 1, ``objective`` does not return one
            score for each image, in the shape [batch], or ``pixel_range`` is empty (unless smallest < largest).

    Source: Erhan et al. (2009), "Visualizing higher-layer features of a deep network", section 3; with the L2 penalty,
    Simonyan et al. (2013), arXiv 1312.6034, equation 1; with total variation, Mahendran and Vedaldi (2015).
    """
    low, high = pixel_range
    if images.ndim != 4:
        raise ValueError(f"images must be [batch, channel, height, width], got shape {tuple(images.shape)}")
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}")
    if not low < high:
        raise ValueError(f"pixel_range must be (low, high) with low < high, got {pixel_range}")
    x, history = images.detach().clone(), []
    for _ in range(n_steps):
        x.requires_grad_()
        with torch.enable_grad():
            scores = objective(x)
            if scores.shape != x.shape[:1]:
                raise ValueError(f"objective must return one score for each image, got shape {tuple(scores.shape)}")
            penalty = tv_weight * total_variation(x) + l2_weight * x.pow(2).flatten(1).sum(1)
            (gradient,) = torch.autograd.grad((scores - penalty).sum(), x)
        largest = gradient.abs().flatten(1).amax(1).view(-1, 1, 1, 1)
        scaled = gradient / largest  # squares of tiny or of huge numbers would leave the range of float32
        rms = scaled.pow(2).flatten(1).mean(1).sqrt().view(-1, 1, 1, 1)
        x = (x.detach() + step_size * torch.where(largest > 0, scaled / rms, 0.0)).clamp(low, high)
        history.append(scores.detach())
    return x, torch.stack(history)


def fourier_to_images(
    coefficients: Float[Tensor, "batch channel height half_width 2"], width: int, *, decay: float = 1.0
) -> Float[Tensor, "batch channel height width"]:
    """Images from free Fourier coefficients, with high frequencies scaled down.

    Entry [..., v, u, :] is the real and the imaginary part of the wave with frequency f_y = v / height (from v >
    height / 2 on, minus 1: the order of ``torch.fft.fftfreq``) and f_x = u / width, in cycles per pixel. It is
    multiplied by

        1 / max(f, 1 / max(height, width))^decay,    f = sqrt(f_y² + f_x²),

    and the images are the inverse real Fourier transform of the products, with the factor that makes the transform
    keep lengths (``norm="ortho"``). Gradients flow to the coefficients.

    Args:
        coefficients: Real numbers [batch, channel, height, width // 2 + 1, 2].
        width: Width of the images; ``half_width`` does not tell whether it is even or odd.
        decay: Exponent; 1 gives random coefficients the spectrum of natural images, 0 leaves all frequencies alike.

    Returns:
        Images [batch, channel, height, width], in units of their own: squash them before they go into a model.

    Raises:
        ValueError: If ``coefficients`` does not have this shape.

    Source: Olah, Mordvintsev and Schubert (2017), "Feature Visualization", doi 10.23915/distill.00007, the section on
    preconditioning and parameterisation.
    """
    if coefficients.ndim != 5 or coefficients.shape[-2:] != (width // 2 + 1, 2):
        wanted = f"[batch, channel, height, {width // 2 + 1}, 2] for a width of {width}"
        raise ValueError(f"coefficients must be {wanted}, got shape {tuple(coefficients.shape)}")
    height, kind = coefficients.shape[2], {"dtype": coefficients.dtype, "device": coefficients.device}
    f_y, f_x = torch.fft.fftfreq(height, **kind), torch.fft.rfftfreq(width, **kind)
    frequency = (f_y[:, None] ** 2 + f_x**2).sqrt().clamp_min(1 / max(height, width))
    spectrum = torch.view_as_complex(coefficients.contiguous()) / frequency**decay
    return torch.fft.irfft2(spectrum, s=(height, width), norm="ortho")


def transform_robust_visualization(
    objective: Callable[[Float[Tensor, "batch channel height width"]], Float[Tensor, " batch"]],
    parameters: Float[Tensor, "batch ..."],
    to_images: Callable[[Float[Tensor, "batch ..."]], Float[Tensor, "batch channel height width"]],
    *,
    max_shift: int,
    n_steps: int,
    step_size: float,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "batch channel height width"], Float[Tensor, "step batch"]]:
    """Activation maximisation over any parametrisation of images, under random shifts.

    In each step the images are made from the parameters, the whole batch is shifted by one random number of pixels
    down and one to the right (what leaves at one edge comes back at the other), and the parameters p take a step

        p <- p + step_size * g / rms(g)

    along the gradient g of the shifted images' objective, its root mean square taken over the parameters of one image.
    An image whose gradient is zero stays as it is; with an rms(g) between 1e-5 and 1e15 it takes the whole step, to
    within one per cent (what is added to rms(g) against a division by zero has to be that small). Nothing is clipped;
    ``to_images`` keeps pixels in their range. Parameters of the model behind ``objective`` get no gradients.

    Args:
        objective: Takes images, returns a score for each of them [batch].
        parameters: Where to start, one row for each image: pixels, Fourier coefficients, anything; not changed.
        to_images: Makes images [batch, channel, height, width] from parameters, differentiably.
        max_shift: Largest shift, in pixels. The shifts of a step, first down and then right, are
            ``torch.randint(-max_shift, max_shift + 1, (2,), generator=generator)``.
        n_steps: Number of steps, at least 1.
        step_size: Root-mean-square change of a parameter in one step.
        generator: Where the shifts come from.

    Returns:
        The images (not shifted) that the last parameters make, and the scores of the shifted images before each step
        [step, batch], both without a graph.

    Raises:
        ValueError: If ``max_shift`` is negative, ``n_steps`` is below 1, or ``objective`` does not return one score for
            each image, in the shape [batch].

    Source: Mordvintsev, Olah and Tyka (2015), "Inceptionism" (jitter); Olah et al. (2017), "Feature Visualization",
    the section on transformation robustness.
    """
    if max_shift < 0:
        raise ValueError(f"max_shift must not be negative, got {max_shift}")
    if n_steps < 1:
        raise ValueError(f"n_steps must be at least 1, got {n_steps}")
    p, history = parameters.detach().clone(), []
    for _ in range(n_steps):
        p.requires_grad_()
        shifts = torch.randint(-max_shift, max_shift + 1, (2,), generator=generator, device=generator.device)
        with torch.enable_grad():
            scores = objective(to_images(p).roll(shifts.tolist(), dims=(-2, -1)))
            if scores.shape != p.shape[:1]:
                raise ValueError(f"objective must return one score for each image, got shape {tuple(scores.shape)}")
            (gradient,) = torch.autograd.grad(scores.sum(), p)
        one_each = (-1, *[1] * (p.ndim - 1))
        largest = gradient.abs().flatten(1).amax(1).view(one_each)
        scaled = gradient / largest  # squares of tiny or of huge numbers would leave the range of float32
        rms = scaled.pow(2).flatten(1).mean(1).sqrt().view(one_each)
        p = p.detach() + step_size * torch.where(largest > 0, scaled / rms, 0.0)
        history.append(scores.detach())
    with torch.no_grad():
        return to_images(p), torch.stack(history)


def diversity_loss(activations: Float[Tensor, "batch channel height width"]) -> Float[Tensor, ""]:
    """How alike the images of a batch look to a layer: the mean cosine similarity of their Gram matrices.

    The Gram matrix of image a, G_a[i, j] = sum over places of activation_i * activation_j, says which channels are
    active together, and not where. The loss is the mean over all pairs a ≠ b of

        (G_a · G_b) / (|G_a| |G_b|),    the matrices taken as vectors of channel² numbers.

    Args:
        activations: What the images make of a layer [batch, channel, height, width], at least two images.

    Returns:
        A number from 0 (no two images have anything in common) to 1 (all the same). An image without any activation
        is similar to none, and counts in the mean. A factor in front of one image's activations changes nothing, from
        1e-7 to 1e10. Gradients flow to the activations.

    Raises:
        ValueError: If ``activations`` is not four-dimensional or holds fewer than two images.

    Source: Olah et al. (2017), "Feature Visualization", the section on diversity; the Gram matrix as a description of
    texture, Gatys et al. (2015), arXiv 1505.07376.
    """
    if activations.ndim != 4 or len(activations) < 2:
        wanted = "[batch, channel, height, width] with at least two images"
        raise ValueError(f"activations must be {wanted}, got shape {tuple(activations.shape)}")
    # Length 1 twice: the Gram matrix of very faint activations is smaller than F.normalize takes for zero.
    places = F.normalize(activations.flatten(1), dim=1).view_as(activations).flatten(2)
    gram = F.normalize((places @ places.mT).flatten(1), dim=1)
    similarity = gram @ gram.T
    n_images = len(gram)
    return (similarity.sum() - similarity.diagonal().sum()) / (n_images * (n_images - 1))


def deep_dream(
    activations: Callable[[Float[Tensor, "batch channel height width"]], Float[Tensor, "batch ..."]],
    images: Float[Tensor, "batch channel height width"],
    *,
    n_octaves: int,
    octave_scale: float,
    n_steps: int,
    step_size: float,
    pixel_range: tuple[float, float] = (0.0, 1.0),
) -> Float[Tensor, "batch channel height width"]:
    """Show a layer more of whatever it sees in the images, from coarse to fine.

    Octave k = n_octaves - 1, …, 0 works at the size round(side / octave_scale^k). There the image is the original,
    resized, plus the detail that the coarser octaves have added, resized (zero at first). It then takes ``n_steps``
    steps

        x <- clip(x + step_size * g / rms(g)),    g = gradient of the mean of activations² of one image,

    and the new detail is x minus the resized original. All resizing is bilinear, with ``align_corners=False``. An image
    whose gradient is zero stays as it is, but for the clipping; with an rms(g) between 1e-5 and 1e15 it takes the whole
    step, to within one per cent (what is added to rms(g) against a division by zero has to be that small). Parameters
    of the model behind ``activations`` get no gradients.

    Args:
        activations: Takes images of any size, returns what a layer makes of them [batch, ...].
        images: Where to start [batch, channel, height, width], also outside ``pixel_range``; not changed.
        n_octaves: Number of sizes, at least 1.
        octave_scale: Ratio of two neighbouring sizes, above 1.
        n_steps: Steps in each octave; with 0 the images come back as they are.
        step_size: Root-mean-square change of a pixel in one step, before clipping.
        pixel_range: Smallest and largest value that a pixel may take.

    Returns:
        The images after the last octave, of the size of ``images``, without a graph.

    Raises:
        ValueError: If ``images`` is not four-dimensional, ``n_octaves`` is below 1, ``octave_scale`` is not above 1, or
            the coarsest octave would have a side of less than one pixel.

    Source: Mordvintsev, Olah and Tyka (2015), "Inceptionism: going deeper into neural networks".
    """
    if images.ndim != 4:
        raise ValueError(f"images must be [batch, channel, height, width], got shape {tuple(images.shape)}")
    if n_octaves < 1:
        raise ValueError(f"n_octaves must be at least 1, got {n_octaves}")
    if octave_scale <= 1:
        raise ValueError(f"octave_scale must be above 1, got {octave_scale}")
    sizes = [[round(side / octave_scale**k) for side in images.shape[2:]] for k in reversed(range(n_octaves))]
    if min(sizes[0]) < 1:
        raise ValueError(f"n_octaves is too large: the coarsest images would be {sizes[0]} pixels")
    detail = torch.zeros_like(images[..., :1, :1])
    for size in sizes:
        base = F.interpolate(images.detach(), size=size, mode="bilinear", align_corners=False)
        x = base + F.interpolate(detail, size=size, mode="bilinear", align_corners=False)
        for _ in range(n_steps):
            x.requires_grad_()
            with torch.enable_grad():
                response = activations(x).pow(2).flatten(1).mean(1)
                (gradient,) = torch.autograd.grad(response.sum(), x)
            largest = gradient.abs().flatten(1).amax(1).view(-1, 1, 1, 1)
            scaled = gradient / largest  # squares of tiny or of huge numbers would leave the range of float32
            rms = scaled.pow(2).flatten(1).mean(1).sqrt().view(-1, 1, 1, 1)
            x = (x.detach() + step_size * torch.where(largest > 0, scaled / rms, 0.0)).clamp(*pixel_range)
        detail = x.detach() - base
    return x.detach()
