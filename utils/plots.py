"""The few plots that every chapter uses: labelled, colour-blind-safe, each shown with a text alternative."""

import io
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

# Okabe and Ito's palette: distinguishable with every common colour-vision deficiency.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DPI = 110


def show(figure: Figure, alt: str) -> None:
    """Display a figure in the notebook with the text alternative ``alt``, and close it."""
    from IPython.display import Image, display

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    display(Image(buffer.getvalue(), alt=alt))


def heatmap(
    values: Tensor | np.ndarray,
    *,
    title: str,
    alt: str,
    xlabel: str = "",
    ylabel: str = "",
    xticks: Sequence[str] | None = None,
    yticks: Sequence[str] | None = None,
    diverging: bool = False,
    colour_label: str = "",
    annotate: bool = False,
) -> None:
    """Show a matrix as colours; ``diverging`` centres the colours on zero; ``annotate`` writes the numbers in."""
    values = _array(values)
    figure, axes = plt.subplots(figsize=(1.6 + 0.42 * max(6, values.shape[1]), 1.2 + 0.34 * max(4, values.shape[0])))
    limit = np.nanmax(np.abs(values[np.isfinite(values)])) if np.isfinite(values).any() else 1.0
    scale = {"cmap": "PuOr", "vmin": -limit, "vmax": limit} if diverging else {"cmap": "cividis"}
    image = axes.imshow(values, aspect="auto", **scale)
    for axis, labels in ((axes.xaxis, xticks), (axes.yaxis, yticks)):
        if labels is not None:
            axis.set_ticks(range(len(labels)), labels)
    if xticks is not None and max(map(len, xticks), default=0) > 2:
        axes.tick_params(axis="x", rotation=60)
    if annotate:
        _write_numbers(axes, values, image)
    axes.set(title=title, xlabel=xlabel, ylabel=ylabel)
    figure.colorbar(image, label=colour_label)
    show(figure, alt)


def _write_numbers(axes: plt.Axes, values: np.ndarray, image: plt.cm.ScalarMappable) -> None:
    for (row, column), value in np.ndenumerate(values):
        luminance = float(np.dot(image.cmap(image.norm(value))[:3], (0.299, 0.587, 0.114)))
        axes.text(
            column,
            row,
            f"{value:.2g}",
            ha="center",
            va="center",
            fontsize=8,
            color="black" if luminance > 0.5 else "white",
        )


def lines(
    series: dict[str, Sequence[float] | Tensor],
    *,
    title: str,
    alt: str,
    xlabel: str,
    ylabel: str,
    x: Sequence[float] | None = None,
    bands: dict[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    horizontal: dict[str, float] | None = None,
) -> None:
    """Show named curves; ``bands`` gives a (low, high) interval for a name; ``horizontal`` draws named levels."""
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    for i, (name, values) in enumerate(series.items()):
        values = _array(values)
        positions = np.arange(len(values)) if x is None else _array(x)
        axes.plot(
            positions,
            values,
            label=name,
            color=COLOURS[i % len(COLOURS)],
            marker=MARKERS[i % len(MARKERS)],
            markevery=max(1, len(values) // 10),
            markersize=5,
        )
        if bands and name in bands:
            low, high = map(_array, bands[name])
            axes.fill_between(positions, low, high, color=COLOURS[i % len(COLOURS)], alpha=0.2, linewidth=0)
    for i, (name, level) in enumerate((horizontal or {}).items()):
        axes.axhline(level, color="grey", linestyle=("--", ":", "-.")[i % 3], label=name)
    axes.set(
        title=title,
        xlabel=xlabel,
        ylabel=ylabel,
        xscale="log" if log_x else "linear",
        yscale="log" if log_y else "linear",
    )
    axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    show(figure, alt)


def bars(
    values: dict[str, float],
    *,
    title: str,
    alt: str,
    ylabel: str,
    intervals: dict[str, tuple[float, float]] | None = None,
    horizontal: dict[str, float] | None = None,
) -> None:
    """Show named numbers as bars, with (low, high) intervals where given."""
    figure, axes = plt.subplots(figsize=(1.6 + 0.8 * max(4, len(values)), 3.6))
    for i, (name, value) in enumerate(values.items()):
        axes.bar(i, value, color=COLOURS[0], width=0.7)
        if intervals and name in intervals:
            low, high = intervals[name]
            axes.errorbar(i, value, yerr=[[value - low], [high - value]], color="black", capsize=4)
    for i, (name, level) in enumerate((horizontal or {}).items()):
        axes.axhline(level, color="grey", linestyle=("--", ":", "-.")[i % 3], label=name)
    if horizontal:
        axes.legend(frameon=False)
    axes.set(title=title, ylabel=ylabel)
    axes.set_xticks(
        range(len(values)),
        list(values),
        rotation=30 if max(map(len, values)) > 8 else 0,
        ha="right" if max(map(len, values)) > 8 else "center",
    )
    axes.spines[["top", "right"]].set_visible(False)
    show(figure, alt)


def _array(values: Sequence[float] | Tensor | np.ndarray) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values, dtype=float)
