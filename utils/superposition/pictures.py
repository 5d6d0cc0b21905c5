"""Directions in the plane as a picture, and a toy model under the reader's hand."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from matplotlib.figure import Figure
from torch import Tensor

from utils.plots import COLOURS, DPI, as_array, image_tag
from utils.superposition.geometry import feature_dimensionality, find_polygon
from utils.superposition.train import train_toy_models

SHAPES = {0: "no regular polygon", 2: "an antipodal pair", 3: "a triangle", 4: "a square: two antipodal pairs",
          5: "a pentagon", 6: "a hexagon"}  # fmt: skip


def directions_figure(
    weights: Sequence[Float[Tensor, "2 feature"]], titles: Sequence[str], *, columns: int = 5
) -> Figure:
    """Models of two dimensions side by side: each feature a line from the origin, with its number at the end.

    Args:
        weights: One model's weights for each picture.
        titles: What stands above each picture.
        columns: Pictures in a row.
    """
    rows = -(-len(weights) // columns)
    columns = min(columns, len(weights))
    figure = Figure(figsize=(1.55 * columns, 1.8 * rows), layout="constrained")
    for axes in figure.subplots(rows, columns, squeeze=False).flat:
        axes.axis("off")
    for axes, W, title in zip(figure.axes, weights, titles, strict=False):
        _draw_directions(axes, as_array(W), title)
    return figure


def _draw_directions(axes, W: np.ndarray, title: str) -> None:
    axes.add_patch(_circle())
    for i, (x, y) in enumerate(W.T):
        axes.plot([0, x], [0, y], color=COLOURS[0], linewidth=1.8)
        axes.plot([x], [y], "o", color=COLOURS[1], markersize=4)
        if np.hypot(x, y) > 0.25:
            axes.text(1.22 * x, 1.22 * y, str(i), ha="center", va="center", fontsize=8)
    axes.set(xlim=(-1.65, 1.65), ylim=(-1.65, 1.65), aspect="equal")
    axes.set_title(title, fontsize=9)


def _circle():
    from matplotlib.patches import Circle

    return Circle((0, 0), 1, fill=False, edgecolor="lightgrey", linewidth=0.8)


def _best_of_eight(n_features: int, p: float, seed: int) -> Tensor:
    run = train_toy_models(n_features, 2, torch.full((8,), p), n_steps=500, batch=256, lr=0.03, seed=seed)
    return run.model.W[run.loss.argmin()]


def toy_figure(n_features: int, p: float, seed: int = 0) -> tuple[Figure, str]:
    """The best of eight small models of two dimensions, trained now, and the same in words.

    Args:
        n_features: Number of features.
        p: Probability that each is on.
        seed: Of starts and examples.

    Returns:
        Its directions beside the features' dimensionalities, and a text alternative.
    """
    W = _best_of_eight(n_features, p, seed)
    dimensionality, stored = feature_dimensionality(W), int((W.norm(dim=0) >= 0.5).sum())
    shape = SHAPES.get(find_polygon(W), f"a regular polygon of {find_polygon(W)} corners")
    figure = Figure(figsize=(6.6, 2.7), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(1, 1.5))
    left.axis("off")
    _draw_directions(left, as_array(W), f"{stored} of {n_features} stored")
    right.bar(range(n_features), as_array(dimensionality), color=COLOURS[0])
    right.set(xticks=range(n_features), xlabel="feature", ylabel="dimensionality", ylim=(0, 1.05), title=shape)
    right.axhline(0.5, color="grey", linestyle="--", linewidth=0.8)
    right.axhline(0.4, color="grey", linestyle=":", linewidth=0.8)
    right.spines[["top", "right"]].set_visible(False)
    shares = ", ".join(f"{value:.2f}" for value in dimensionality.tolist())
    words = (
        f"{n_features} features in two dimensions, each on with probability {p:.3g}. {stored} are stored, as {shape}. "
        f"Dimensionalities of features 0 to {n_features - 1}: {shares}."
    )
    return figure, words


def toy_explorer():
    """Controls for the number of features and their probability over ``toy_figure``; needs a live kernel.

    Each change trains eight models, which takes about a second. The controls are number fields, which take the arrow
    keys and are tied to their labels; the picture's text alternative follows them.

    Returns:
        An ipywidgets box: display it as the last line of a cell.
    """
    from ipywidgets import HTML, BoundedFloatText, BoundedIntText, HBox, VBox

    controls = {
        "n_features": BoundedIntText(value=5, min=2, max=10, description="features"),
        "p": BoundedFloatText(value=0.05, min=0.01, max=1.0, step=0.05, description="p (on)"),
        "seed": BoundedIntText(value=0, min=0, max=99, description="seed"),
    }
    picture = HTML()

    def redraw(change: dict | None = None) -> None:
        figure, words = toy_figure(**{name: control.value for name, control in controls.items()})
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=DPI)
        picture.value = image_tag(buffer.getvalue(), words)

    for control in controls.values():
        control.observe(redraw, names="value")
    redraw()
    return VBox([HBox(list(controls.values())), picture])
