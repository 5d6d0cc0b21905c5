"""Attribution by wiggling: cover a part of the image, and watch a logit."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor


def occlusion_map(
    model: Callable[[Tensor], Tensor],
    images: Float[Tensor, "batch channel height width"],
    targets: Int[Tensor, " batch"],
    *,
    patch: int = 1,
    stride: int = 1,
    baseline: float = 0.0,
    batch_size: int = 512,
) -> Float[Tensor, "batch height width"]:
    """How far the target's logit falls when a square of the image is covered.

    A square of ``patch`` by ``patch`` pixels is set to ``baseline`` in all channels. Its top left corner visits the
    rows 0, stride, 2 stride, … until the squares reach the bottom edge, and the columns likewise; at the edges a
    square may stick out and is cut off. The drop for one square P is

        drop(P) = logit_target(image) - logit_target(image with P covered),

    and a pixel's entry in the map is the mean drop over the squares that cover it. Weights and images are left as they
    were, their ``grad`` too.

    Args:
        model: From images [n, channel, height, width] to logits [n, class], in evaluation mode.
        images: Images [batch, channel, height, width].
        targets: The class whose logit is watched, for each image [batch].
        patch: Side of the square, in pixels, at least 1 and at most the smaller side of the image.
        stride: Step from one square to the next, in pixels, at least 1 and at most ``patch`` (no pixel is missed).
        baseline: What covered pixels are set to, in the units of the image.
        batch_size: At most this many images go through the model at a time, whole or covered.

    Returns:
        Map [batch, height, width] in the images' dtype and without a graph, in units of the logit. Positive: covering
        this pixel lowers the logit.

    Raises:
        ValueError: If the shapes of images and targets don't fit, or a size is out of its range.

    Source: Zeiler and Fergus (2014), "Visualizing and Understanding Convolutional Networks", section 4.2; the mean
    over squares as in captum's ``Occlusion``.
    """
    # Given: the inputs are checked.
    if images.ndim != 4 or targets.shape != images.shape[:1]:
        raise ValueError(
            "images must be [batch, channel, height, width] and targets [batch], "
            f"got {tuple(images.shape)} and {tuple(targets.shape)}"
        )
    height, width = images.shape[2:]
    if not 1 <= patch <= min(height, width):
        raise ValueError(f"patch must be between 1 and {min(height, width)}, got {patch}")
    if not 1 <= stride <= patch:
        raise ValueError(f"stride must be between 1 and patch = {patch}, got {stride}")
    if batch_size < 1:
        raise ValueError(f"batch_size must be at least 1, got {batch_size}")
    # Yours: cover one square after the other, and share each drop out among the pixels of its square.
    rows = torch.arange(0, height - patch + stride, stride, device=images.device)
    columns = torch.arange(0, width - patch + stride, stride, device=images.device)
    y, x = torch.arange(height, device=images.device), torch.arange(width, device=images.device)
    in_rows = (y >= rows[:, None]) & (y < rows[:, None] + patch)
    in_columns = (x >= columns[:, None]) & (x < columns[:, None] + patch)
    squares = (in_rows[:, None, :, None] & in_columns[None, :, None, :]).flatten(0, 1)
    drops = []
    with torch.no_grad():
        before = torch.cat([model(part) for part in images.split(batch_size)]).gather(1, targets[:, None])
        for part in squares.split(max(1, batch_size // len(images))):
            covered = torch.where(part[:, None, None], baseline, images).flatten(0, 1)
            logits = torch.cat([model(some) for some in covered.split(batch_size)])
            after = logits.gather(1, targets.repeat(len(part))[:, None]).view(len(part), len(images))
            drops.append(before - after.T)
    cover = squares.flatten(1).to(images.dtype)
    return (torch.cat(drops, dim=1) @ cover / cover.sum(dim=0)).view(-1, height, width)
