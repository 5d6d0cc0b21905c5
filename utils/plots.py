"""The few plots that every chapter uses: labelled, colour-blind-safe, each shown with a text alternative."""

import base64
import html
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
    """Display a figure in the notebook with the text alternative ``alt``, and close it.

    It is displayed as HTML, since JupyterLab gives no text alternative to outputs that are plain images.
    """
    from IPython.display import HTML, display

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    data = base64.b64encode(buffer.getvalue()).decode()
    display(HTML(f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{data}">'))


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
    x: Sequence[float] | Sequence[str] | None = None,
    bands: dict[str, tuple[Sequence[float], Sequence[float]]] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    horizontal: dict[str, float] | None = None,
) -> None:
    """Show named curves over ``x``: numbers, or names that stand side by side; 0, 1, 2 … if it is None.

    ``bands`` gives a (low, high) interval for a curve's name; ``horizontal`` draws named levels.
    """
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    named = x is not None and isinstance(x[0], str)
    for i, (name, values) in enumerate(series.items()):
        values = _array(values)
        positions = np.arange(len(values)) if x is None or named else _array(x)
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
    if named:
        axes.set_xticks(range(len(x)), x)
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


def grouped_bars(
    series: dict[str, Sequence[float] | Tensor],
    labels: Sequence[str],
    *,
    title: str,
    alt: str,
    xlabel: str,
    intervals: dict[str, tuple[Sequence[float], Sequence[float]]] | None = None,
) -> None:
    """Show several named lists of numbers as horizontal bars, side by side for each label, the first label on top.

    ``intervals`` gives a (low, high) pair of lists for a name.
    """
    figure, axes = plt.subplots(figsize=(6.8, 1.2 + (0.16 + 0.14 * len(series)) * len(labels)))
    thickness, rows = 0.8 / len(series), np.arange(len(labels))
    for i, (name, values) in enumerate(series.items()):
        values, places = _array(values), rows + (i - (len(series) - 1) / 2) * thickness
        axes.barh(places, values, height=thickness, color=COLOURS[i % len(COLOURS)], label=name)
        if intervals and name in intervals:
            low, high = map(_array, intervals[name])
            reach = np.stack([values - low, high - values]).clip(min=0)
            axes.errorbar(values, places, xerr=reach, fmt="none", ecolor="black", capsize=2, linewidth=0.9)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(rows, labels)
    axes.invert_yaxis()
    axes.set(title=title, xlabel=xlabel)
    if len(series) > 1:
        axes.legend(frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    show(figure, alt)


def images(
    grid: Sequence[Sequence[Tensor | np.ndarray | None]],
    *,
    alt: str,
    title: str = "",
    column_labels: Sequence[str] | None = None,
    row_labels: Sequence[str] | None = None,
    titles: Sequence[Sequence[str]] | None = None,
    diverging: bool | Sequence[bool] = False,
    scale: str = "each",
    size: float = 1.0,
) -> None:
    """Show rows of small pictures: images, attribution maps, visualisations.

    Args:
        grid: Rows of pictures, each [height, width] (or [3, height, width], colour in [0, 1]); None leaves a gap.
        alt: Text alternative.
        title: Above everything.
        column_labels, row_labels: Above the first row, and left of the first column.
        titles: A line above each picture, in rows like ``grid``; "" for none.
        diverging: Whether numbers have a sign: colours are centred on zero (orange below, purple above, white at
            zero). Otherwise white is zero or the least, black the greatest. A sequence says it column by column.
        scale: Which pictures share their colours: "each" has its own, those of a "row" or a "column", or "all".
        size: Width and height of a picture in inches.
    """
    n_columns = max(map(len, grid))
    signed = [diverging] * n_columns if isinstance(diverging, bool) else list(diverging)
    grid = [[None if picture is None else _array(picture) for picture in row] for row in grid]
    group = {"each": lambda r, c: (r, c), "row": lambda r, c: r, "column": lambda r, c: c, "all": lambda r, c: 0}[scale]
    cells = [(r, c, picture) for r, row in enumerate(grid) for c, picture in enumerate(row) if picture is not None]
    ranges = {}
    for r, c, picture in cells:
        key = (group(r, c), signed[c])
        low, high = ranges.get(key, (0.0, 0.0))
        ranges[key] = (min(low, float(np.nanmin(picture))), max(high, float(np.nanmax(picture))))
    figure, axes = plt.subplots(
        len(grid),
        n_columns,
        figsize=(n_columns * size + (1.2 if row_labels else 0.2), len(grid) * size * (1.25 if titles else 1.0) + 0.5),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for r, c, picture in cells:
        low, high = ranges[group(r, c), signed[c]]
        limit = max(-low, high) or 1.0
        colours = {"cmap": "PuOr", "vmin": -limit, "vmax": limit} if signed[c] else {"cmap": "gray_r"}
        colours = colours if signed[c] else colours | {"vmin": low, "vmax": high if high > low else low + 1}
        colour_picture = picture.ndim == 3
        axes[r, c].imshow(picture.transpose(1, 2, 0).clip(0, 1) if colour_picture else picture, **colours)
        axes[r, c].spines[:].set(visible=True, color="lightgrey")
        if titles and titles[r][c]:
            axes[r, c].set_title(titles[r][c], fontsize=8)
    for c, label in enumerate(column_labels or ()):
        above = axes[0, c].get_title()
        axes[0, c].set_title(f"{label}\n{above}" if above else label, fontsize=8)
    for r, label in enumerate(row_labels or ()):
        axes[r, 0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize=8)
    if title:
        figure.suptitle(title, fontsize=10)
    show(figure, alt)


def _array(values: Sequence[float] | Tensor | np.ndarray) -> np.ndarray:
    return np.asarray(values.detach().cpu() if isinstance(values, torch.Tensor) else values, dtype=float)
