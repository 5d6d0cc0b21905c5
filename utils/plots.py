"""The few plots that every chapter uses: labelled, colour-blind-safe, each shown with a text alternative.

Whiskers and shaded bands mean one thing: a 95 % confidence interval over the unit that was drawn independently, which
the caller names. Any other range (lowest to highest of five seeds, the middle 95 % of a null distribution) is a
``spread``: thin, without caps or shading, and called what it is. Text is shown as it is given, with every ``$`` in it.
"""

import base64
import html
import io
import math
from collections.abc import Iterable, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.artist import Artist
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

# Okabe and Ito's palette: distinguishable with every common colour-vision deficiency.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
DPI = 110

# Styles that tell apart levels, and kinds of spread.
DASHES = ("--", ":", "-.")
LONGEST_BETWEEN_CURVES = 4  # entries of a legend

Numbers = Sequence[float] | Tensor | np.ndarray
Ranges = Mapping[str, tuple[Numbers, Numbers]]


def show(figure: Figure, alt: str) -> None:
    """Display a figure in the notebook with the text alternative ``alt``, and close it.

    It is displayed as HTML, since JupyterLab gives no text alternative to outputs that are plain images.
    """
    from IPython.display import HTML, display

    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, bbox_inches="tight", metadata={"Software": None})
    plt.close(figure)
    display(HTML(image_tag(buffer.getvalue(), alt)))


def image_tag(data: bytes, alt: str) -> str:
    """A PNG file as an HTML element with its text alternative."""
    return f'<img alt="{html.escape(alt)}" src="data:image/png;base64,{base64.b64encode(data).decode()}">'


def plain_text(text: str) -> str:
    """Text that matplotlib draws as it stands: tokens may hold a ``$``, which would begin a formula."""
    return str(text).replace("$", r"\$")


def as_array(values: Numbers) -> np.ndarray:
    """Numbers in float64, from a tensor of any dtype on any device, an array, or a sequence of numbers or tensors."""
    if isinstance(values, Tensor):
        return values.detach().cpu().to(torch.float64).numpy()
    if isinstance(values, (list, tuple)) and any(isinstance(value, Tensor) for value in values):
        return np.stack([as_array(value) for value in values])
    return np.asarray(values, dtype=float)


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
    groups: Sequence[int] | None = None,
) -> None:
    """Show a matrix as colours.

    Args:
        values: Numbers [row, column]; what is not finite stays blank.
        title, alt, xlabel, ylabel, colour_label: Texts.
        xticks, yticks: Names of columns and rows.
        diverging: Centre the colours on zero.
        annotate: Write the numbers in.
        groups: How many rows each kind has, from the top; lines separate the kinds.
    """
    values = as_array(values)
    figure, axes = plt.subplots(figsize=(1.6 + 0.42 * max(6, values.shape[1]), 1.2 + 0.34 * max(4, values.shape[0])))
    limit = np.abs(values[np.isfinite(values)]).max(initial=0.0) or 1.0
    scale = {"cmap": "PuOr", "vmin": -limit, "vmax": limit} if diverging else {"cmap": "cividis"}
    image = axes.imshow(values, aspect="auto", **scale)
    for axis, labels in ((axes.xaxis, xticks), (axes.yaxis, yticks)):
        if labels is not None:
            axis.set_ticks(range(len(labels)), [plain_text(label) for label in labels])
    if xticks is not None and max(map(len, xticks), default=0) > 2:
        axes.tick_params(axis="x", rotation=60)
    if annotate:
        _write_numbers(axes, values, image)
    for edge in _edges(groups, len(values)):
        axes.axhline(edge, color="white", linewidth=4)
        axes.axhline(edge, color="black", linewidth=1)
    _name(axes, title=title, xlabel=xlabel, ylabel=ylabel)
    figure.colorbar(image, label=plain_text(colour_label))
    show(figure, alt)


def _write_numbers(axes: plt.Axes, values: np.ndarray, image: ScalarMappable) -> None:
    for (row, column), value in np.ndenumerate(values):
        luminance = float(np.dot(image.cmap(image.norm(value))[:3], (0.299, 0.587, 0.114)))
        axes.text(
            column,
            row,
            f"{value:.2g}",
            ha="center",
            va="center",
            fontsize=8,
            color="black" if luminance > 0.5 or not np.isfinite(value) else "white",
        )


def lines(
    series: Mapping[str, Numbers],
    *,
    title: str,
    alt: str,
    xlabel: str,
    ylabel: str,
    x: Numbers | Sequence[str] | None = None,
    bands: Ranges | None = None,
    unit: str | None = None,
    spread: Mapping[str, Ranges] | None = None,
    log_x: bool = False,
    log_y: bool = False,
    horizontal: Mapping[str, float] | None = None,
    vertical: Mapping[str, float] | None = None,
) -> None:
    """Show named curves.

    Args:
        series: The curves by name.
        title, alt, xlabel, ylabel: Texts.
        x: Where the values stand: numbers, or names side by side; 0, 1, 2 … if it is None.
        bands: 95 % confidence intervals (low, high) by a curve's name, shaded.
        unit: What the intervals are taken over, as in "landmarks"; the legend says it. Required with ``bands``.
        spread: Any other range: what it is called, as in "lowest to highest of 5 seeds", and its (low, high) by a
            curve's name; thin lines.
        log_x, log_y: Logarithmic axes. Where a value is 0 or less, the y-axis is linear below the least positive one.
        horizontal: Levels by name.
        vertical: Places on the x-axis by name, such as where a fit ends.

    Raises:
        ValueError: ``bands`` without ``unit``; a range for a curve that is not there, or whose low end is the upper.
    """
    figure, axes = plt.subplots(figsize=(6.4, 3.8))
    curves = {name: as_array(values) for name, values in series.items()}
    named = x is not None and isinstance(x[0], str)
    places = np.arange(len(x)) if named else None if x is None else as_array(x)
    at = {name: np.arange(len(values)) if places is None else places for name, values in curves.items()}
    colour = {name: COLOURS[i % len(COLOURS)] for i, name in enumerate(curves)}
    key = []
    for i, (name, values) in enumerate(curves.items()):
        style = {"marker": MARKERS[i % len(MARKERS)], "markevery": max(1, len(values) // 10), "markersize": 5}
        key += [(curve, name) for curve in axes.plot(at[name], values, color=colour[name], **style)]
    key += _levels(axes, horizontal)
    for name, place in (vertical or {}).items():
        key.append((axes.axvline(place, color="grey", linewidth=0.9, linestyle=":"), name))
    for name, low, high in _ranges(bands, curves):
        axes.fill_between(at[name], low, high, color=colour[name], alpha=0.2, linewidth=0)
    if bands:
        key.append((Patch(color="grey", alpha=0.3, linewidth=0), _interval_over(unit)))
    for (kind, ranges), style in zip((spread or {}).items(), DASHES[1:] + DASHES[:1], strict=False):
        for name, low, high in _ranges(ranges, curves):
            for edge in (low, high):
                axes.plot(at[name], edge, color=colour[name], linewidth=0.9, linestyle=style)
        key.append((Line2D([], [], color="grey", linewidth=0.9, linestyle=style), kind))
    _name(axes, title=title, xlabel=xlabel, ylabel=ylabel)
    if log_x:
        axes.set_xscale("log")
    if log_y:
        _logarithmic_y(axes, np.concatenate(list(curves.values())))
    if named:
        axes.set_xticks(places, [plain_text(label) for label in x])
    _finish(axes, key)
    show(figure, alt)


def bars(
    values: Mapping[str, float],
    *,
    title: str,
    alt: str,
    ylabel: str,
    intervals: Mapping[str, tuple[float, float]] | None = None,
    unit: str | None = None,
    spread: Mapping[str, Mapping[str, tuple[float, float]]] | None = None,
    horizontal: Mapping[str, float] | None = None,
) -> None:
    """Show named numbers as bars; a bar of 0 is a line.

    ``intervals`` are 95 % confidence intervals over ``unit`` by a bar's name, and ``spread`` is any other range by what
    it is called and a bar's name; ``horizontal`` gives levels by name. Raises as ``lines`` does.
    """
    figure, axes = plt.subplots(figsize=(1.6 + 0.8 * max(4, len(values)), 3.6))
    heights = {name: as_array(value) for name, value in values.items()}
    places = dict(zip(heights, range(len(heights)), strict=True))
    _zero_line(axes.axhline)
    for name, height in heights.items():
        axes.bar(places[name], height, width=0.7, **_filled(COLOURS[0]))
    key = _levels(axes, horizontal)
    for name, low, high in _ranges(intervals, heights):
        axes.errorbar(places[name], (low + high) / 2, yerr=(high - low) / 2, **_whisker(capsize=4))
    if intervals:
        key.append((_whisker_sample(), _interval_over(unit)))
    for kind, ranges in (spread or {}).items():
        for name, low, high in _ranges(ranges, heights):
            axes.vlines(places[name], low, high, **_thin())
        key.append((Line2D([], [], **_thin()), kind))
    _name(axes, title=title, ylabel=ylabel)
    long = max(map(len, values)) > 8
    axes.set_xticks(
        range(len(values)),
        [plain_text(name) for name in values],
        rotation=30 if long else 0,
        ha="right" if long else "center",
    )
    _finish(axes, key)
    show(figure, alt)


def grouped_bars(
    series: Mapping[str, Numbers],
    labels: Sequence[str],
    *,
    title: str,
    alt: str,
    xlabel: str,
    intervals: Ranges | None = None,
    unit: str | None = None,
    spread: Mapping[str, Ranges] | None = None,
    groups: Sequence[int] | None = None,
) -> None:
    """Show several named lists of numbers as horizontal bars, side by side for each label, the first label on top.

    A bar of 0 is a line. ``intervals`` are 95 % confidence intervals over ``unit`` by name, and ``spread`` is any other
    range by what it is called and by name, each a (low, high) pair of lists. ``groups`` says how many labels each kind
    has, from the top, and lines separate the kinds. Raises as ``lines`` does.
    """
    figure, axes = plt.subplots(figsize=(6.8, 1.2 + (0.16 + 0.14 * len(series)) * len(labels)))
    lengths = {name: as_array(values) for name, values in series.items()}
    thickness, rows = 0.8 / len(series), np.arange(len(labels))
    at = {name: rows + (i - (len(series) - 1) / 2) * thickness for i, name in enumerate(lengths)}
    _zero_line(axes.axvline)
    drawn = [
        axes.barh(at[name], values, height=0.9 * thickness, **_filled(COLOURS[i % len(COLOURS)]))
        for i, (name, values) in enumerate(lengths.items())
    ]
    key = list(zip(drawn, lengths, strict=True)) if len(series) > 1 else []
    for name, low, high in _ranges(intervals, lengths):
        axes.errorbar((low + high) / 2, at[name], xerr=(high - low) / 2, **_whisker(capsize=2))
    if intervals:
        key.append((_whisker_sample(), _interval_over(unit)))
    for kind, ranges in (spread or {}).items():
        for name, low, high in _ranges(ranges, lengths):
            axes.hlines(at[name], low, high, **_thin())
        key.append((Line2D([], [], **_thin()), kind))
    for edge in _edges(groups, len(labels)):
        axes.axhline(edge, color="grey", linewidth=0.8)
    axes.set_yticks(rows, [plain_text(label) for label in labels])
    axes.invert_yaxis()
    _name(axes, title=title, xlabel=xlabel)
    _finish(axes, key)
    show(figure, alt)


def _name(axes: plt.Axes, **texts: str) -> None:
    axes.set(**{what: plain_text(text) for what, text in texts.items()})


def _finish(axes: plt.Axes, key: list[tuple[Artist, str]]) -> None:
    """The legend: between the curves; below the axes if it is long or would lie on a curve, and always below bars."""
    axes.spines[["top", "right"]].set_visible(False)
    if not key:
        return
    handles, names = zip(*key, strict=True)
    names = [plain_text(name) for name in names]
    if not axes.patches and len(names) <= LONGEST_BETWEEN_CURVES:
        legend = axes.legend(handles, names, frameon=False)
        if not _lies_on_a_curve(legend, axes):
            return
        legend.remove()
    figure = axes.figure
    side_by_side = len(names) > LONGEST_BETWEEN_CURVES and max(map(len, names)) < 4.5 * figure.get_figwidth()
    n_columns = 2 if side_by_side else 1
    n_rows = math.ceil(len(names) / n_columns)
    figure.set_size_inches(figure.get_figwidth(), figure.get_figheight() + 0.22 * n_rows)
    figure.set_layout_engine("constrained")
    figure.legend(handles, names, frameon=False, loc="outside lower center", ncols=n_columns)


def _lies_on_a_curve(legend: Legend, axes: plt.Axes) -> bool:
    axes.figure.draw_without_rendering()  # which gives it its place
    box = legend.get_window_extent()
    paths = (line.get_transform().transform_path(line.get_path()) for line in axes.lines)
    return any(path.intersects_bbox(box, filled=False) for path in paths)


def _levels(axes: plt.Axes, horizontal: Mapping[str, float] | None) -> list[tuple[Artist, str]]:
    return [
        (axes.axhline(as_array(level).item(), color="grey", linestyle=DASHES[i % len(DASHES)]), name)
        for i, (name, level) in enumerate((horizontal or {}).items())
    ]


def _ranges(given: Ranges | None, drawn: Mapping[str, np.ndarray]) -> Iterable[tuple[str, np.ndarray, np.ndarray]]:
    for name, (low, high) in (given or {}).items():
        if name not in drawn:
            raise ValueError(f"a range is given for {name!r}, and drawn are only {', '.join(map(repr, drawn))}")
        low, high = as_array(low), as_array(high)
        if (low > high).any():
            raise ValueError(f"a range of {name!r} has its low end above its high end: {low} and {high}")
        yield name, low, high


def _interval_over(unit: str | None) -> str:
    if not unit:
        raise ValueError(
            "whiskers and bands are 95 % confidence intervals: say over which independent unit, as in"
            ' unit="landmarks". Give any other range as spread={"what it is": {name: (low, high)}}.'
        )
    if unit.endswith("s"):
        return f"95 % interval over {unit}"
    ends_in_consonant_and_y = unit.endswith("y") and unit[-2:-1] not in "aeiou"
    return f"95 % interval over {f'{unit[:-1]}ies' if ends_in_consonant_and_y else f'{unit}s'}"


def _filled(colour: str) -> dict:
    """A bar with an outline, which is what is seen of a bar of length 0; above the line at zero."""
    return {"color": colour, "edgecolor": colour, "linewidth": 2, "zorder": 2.5}


def _zero_line(line) -> None:
    line(0, color="black", linewidth=0.8)


def _whisker(capsize: float) -> dict:
    return {"fmt": "none", "ecolor": "black", "capsize": capsize, "linewidth": 1.2, "zorder": 3}


def _whisker_sample() -> Line2D:
    return Line2D([], [], color="black", linewidth=1.2, marker="|", markersize=7)


def _thin() -> dict:
    return {"color": "black", "linewidth": 0.7, "zorder": 3}


def _edges(groups: Sequence[int] | None, n_rows: int) -> list[float]:
    """Where the lines between groups of rows go, in rows."""
    if groups is None:
        return []
    if sum(groups) != n_rows:
        raise ValueError(f"groups of {list(groups)} rows are {sum(groups)} rows; there are {n_rows}")
    return [float(end) - 0.5 for end in np.cumsum(groups)[:-1]]


def _logarithmic_y(axes: plt.Axes, values: np.ndarray) -> None:
    positive = values[values > 0]
    if len(positive) and (values <= 0).any():
        axes.set_yscale("symlog", linthresh=positive.min())
    else:
        axes.set_yscale("log")


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
    """Show rows of small pictures: images, attribution maps, visualisations, with a key to their colours.

    The numbers that a picture's colours span stand below it, or, where all share one scale, in the key.

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
    grid = [[None if picture is None else as_array(picture) for picture in row] for row in grid]
    cells = [(r, c, picture) for r, row in enumerate(grid) for c, picture in enumerate(row) if picture is not None]
    norms = _norms(cells, signed, scale)
    keys = {signed[c]: norms[r, c] for r, c, picture in cells if picture.ndim == 2}
    height = len(grid) * size * (1.25 if titles else 1.0) + 0.5 + 0.45 * len(keys)
    height += 0.15 * len(grid) if scale != "all" else 0.0
    figure, axes = plt.subplots(
        len(grid),
        n_columns,
        figsize=(n_columns * size + (1.2 if row_labels else 0.2), height),
        squeeze=False,
        layout="constrained",
    )
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.spines[:].set_visible(False)
    for r, c, picture in cells:
        _picture(axes[r, c], picture, norms[r, c], signed[c], scale != "all")
        if titles and titles[r][c]:
            axes[r, c].set_title(plain_text(titles[r][c]), fontsize=8)
    for c, label in enumerate(column_labels or ()):
        above = axes[0, c].get_title()
        axes[0, c].set_title(f"{plain_text(label)}\n{above}" if above else plain_text(label), fontsize=8)
    for r, label in enumerate(row_labels or ()):
        axes[r, 0].set_ylabel(plain_text(label), rotation=0, ha="right", va="center", fontsize=8)
    if title:
        figure.suptitle(plain_text(title), fontsize=10)
    for sign, norm in keys.items():
        _colour_key(figure, norm, sign, numbers=scale == "all")
    show(figure, alt)


def _norms(
    cells: list[tuple[int, int, np.ndarray]], signed: list[bool], scale: str
) -> dict[tuple[int, int], Normalize]:
    """What each picture's colours span, by row and column."""
    group = {"each": lambda r, c: (r, c), "row": lambda r, c: r, "column": lambda r, c: c, "all": lambda r, c: 0}[scale]
    ranges = {}
    for r, c, picture in cells:
        low, high = ranges.get((group(r, c), signed[c]), (0.0, 0.0))
        finite = picture[np.isfinite(picture)]
        ranges[group(r, c), signed[c]] = (float(finite.min(initial=low)), float(finite.max(initial=high)))
    norms = {}
    for r, c, _ in cells:
        low, high = ranges[group(r, c), signed[c]]
        limit = max(-low, high) or 1.0
        norms[r, c] = Normalize(-limit, limit) if signed[c] else Normalize(low, high if high > low else low + 1)
    return norms


def _picture(axes: plt.Axes, picture: np.ndarray, norm: Normalize, signed: bool, numbers: bool) -> None:
    axes.spines[:].set(visible=True, color="lightgrey")
    if picture.ndim == 3:
        axes.imshow(picture.transpose(1, 2, 0).clip(0, 1))
        return
    axes.imshow(picture, cmap="PuOr" if signed else "gray_r", norm=norm)
    if numbers:
        span = f"±{_short(norm.vmax)}" if signed else f"{_short(norm.vmin)} to {_short(norm.vmax)}"
        axes.set_xlabel(span, fontsize=7, color="dimgrey", labelpad=2)


def _short(number: float) -> str:
    return f"{number:.0f}" if 100 <= abs(number) < 1e5 else f"{number:.2g}"


def _colour_key(figure: Figure, norm: Normalize, signed: bool, *, numbers: bool) -> None:
    """A strip of the colours below all pictures: with numbers, or with words where each picture has its own."""
    mappable = ScalarMappable(norm, "PuOr" if signed else "gray_r")
    strip = figure.colorbar(
        mappable, ax=[axes for axes in figure.axes if axes.get_label() != "<colorbar>"], location="bottom", shrink=0.6
    )
    ticks = [norm.vmin, 0.0, norm.vmax] if signed else [norm.vmin, norm.vmax]
    words = ["negative", "0", "positive"] if signed else ["least", "greatest"]
    strip.set_ticks(ticks, labels=[_short(tick) for tick in ticks] if numbers else words, fontsize=7)
