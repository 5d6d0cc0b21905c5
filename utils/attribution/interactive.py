"""Cover a part of an image and watch the logits: a still picture, and the same with controls."""

import io

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor, nn

from utils.plots import COLOURS, DPI, image_tag


def occlusion_figure(
    model: nn.Module,
    image: Float[Tensor, "channel height width"],
    *,
    row: int,
    column: int,
    patch: int,
    baseline: float = 0.0,
) -> Figure:
    """The image with a covered square beside its logits, with and without the square.

    Args:
        model: From images [batch, channel, height, width] to logits [batch, class].
        image: One image [channel, height, width]; its channels are averaged for the picture.
        row, column: Top left corner of the square.
        patch: Side of the square in pixels; 0 covers nothing. What lies outside the image is cut off.
        baseline: What covered pixels are set to.
    """
    covered, before, after = _cover(model, image, row, column, patch, baseline)
    figure = Figure(figsize=(7.2, 2.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 2))
    left.imshow(
        covered.mean(dim=0).cpu().numpy(), cmap="gray_r", vmin=min(0.0, image.min().item()), vmax=image.max().item()
    )
    corner = (column - 0.5, row - 0.5)
    left.add_patch(Rectangle(corner, patch, patch, fill=False, edgecolor=COLOURS[1], linewidth=2))
    left.set(xticks=[], yticks=[], title=f"read as {after.argmax()} (whole: {before.argmax()})")
    positions = np.arange(len(before))
    right.bar(positions - 0.2, before, width=0.4, color=COLOURS[5], label="whole image")
    right.bar(positions + 0.2, after, width=0.4, color=COLOURS[1], label="square covered")
    right.axhline(0, color="grey", linewidth=0.8)
    right.set(xticks=positions, xlabel="class", ylabel="logit")
    right.spines[["top", "right"]].set_visible(False)
    right.legend(frameon=False, fontsize=8)
    return figure


def occlusion_text(
    model: nn.Module,
    image: Float[Tensor, "channel height width"],
    *,
    row: int,
    column: int,
    patch: int,
    baseline: float = 0.0,
) -> str:
    """What ``occlusion_figure`` shows, in words; its arguments."""
    _, before, after = _cover(model, image, row, column, patch, baseline)
    logits = ", ".join(f"{i} {b:.1f} and {a:.1f}" for i, (b, a) in enumerate(zip(before, after, strict=True)))
    return (
        f"The image with a square of {patch} by {patch} pixels at row {row}, column {column} set to {baseline:.3g}. "
        f"It is read as {after.argmax()}, the whole image as {before.argmax()}. "
        f"Logits of the classes, whole and covered: {logits}."
    )


def _cover(
    model: nn.Module, image: Tensor, row: int, column: int, patch: int, baseline: float
) -> tuple[Tensor, np.ndarray, np.ndarray]:
    """The covered image, and the logits without and with the square."""
    covered = image.detach().clone()
    covered[:, row : row + patch, column : column + patch] = baseline
    with torch.no_grad():
        before, after = model(torch.stack([image, covered])).cpu().numpy()
    return covered, before, after


def occlusion_explorer(model: nn.Module, image: Float[Tensor, "channel height width"]):
    """Controls for the square's place, size and grey level over ``occlusion_figure``; needs a live kernel.

    The controls are number fields, which take the arrow keys: ipywidgets ties a field to its label, but gives its
    sliders no name that a screen reader could say. The picture's text alternative follows the controls.

    Returns:
        An ipywidgets box: display it as the last line of a cell.
    """
    from ipywidgets import HTML, BoundedFloatText, BoundedIntText, HBox, VBox

    _, height, width = image.shape
    least = min(0.0, image.min().item())
    controls = {
        "row": BoundedIntText(value=height // 2, min=0, max=height - 1, description="row"),
        "column": BoundedIntText(value=width // 2, min=0, max=width - 1, description="column"),
        "patch": BoundedIntText(value=2, min=0, max=min(height, width), description="size"),
        "baseline": BoundedFloatText(value=0.0, min=least, max=image.max().item(), step=0.05, description="grey level"),
    }
    picture = HTML()

    def redraw(change: dict | None = None) -> None:
        settings = {name: control.value for name, control in controls.items()}
        buffer = io.BytesIO()
        occlusion_figure(model, image, **settings).savefig(buffer, format="png", dpi=DPI)
        picture.value = image_tag(buffer.getvalue(), occlusion_text(model, image, **settings))

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    return VBox([HBox([controls["row"], controls["column"]]), HBox([controls["patch"], controls["baseline"]]), picture])
