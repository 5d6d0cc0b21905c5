"""Maps over a grid: which phase a model is in, and how often a reader succeeds."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from jaxtyping import Float, Int
from matplotlib.colors import ListedColormap
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from torch import Tensor

from utils import plots

PHASES = ("not represented", "dedicated", "superposed")
_PHASE_COLOURS = ("#DDDDDD", plots.COLOURS[5], plots.COLOURS[1])


def phase_maps(
    grids: Mapping[str, Int[Tensor, "n_p n_r"]],
    p: Float[Tensor, "n_p"],
    relative_importance: Float[Tensor, "n_r"],
    *,
    title: str,
    alt: str,
    borders: Sequence[tuple[Tensor, Tensor]] = (),
) -> None:
    """Show the phases of a grid of models side by side, with borders, lines (relative importance, p), over each."""
    figure, axes = plt.subplots(1, len(grids), figsize=(3.1 * len(grids) + 0.6, 4.1), sharey=True, squeeze=False)
    edges = [torch.cat([x[:1] ** 1.5 / x[1] ** 0.5, (x[1:] * x[:-1]).sqrt(), x[-1:] ** 1.5 / x[-2] ** 0.5])
             for x in (relative_importance, p)]  # fmt: skip
    for ax, (name, grid) in zip(axes[0], grids.items(), strict=True):
        ax.pcolormesh(
            *edges, grid, cmap=ListedColormap(_PHASE_COLOURS), vmin=0, vmax=2, edgecolors="white", linewidth=0.4
        )
        for r, at in borders:
            ax.plot(r, at, color="black", linewidth=1.8)
        ax.set(xscale="log", yscale="log", xlim=edges[0][[0, -1]].tolist(), ylim=edges[1][[0, -1]].tolist())
        ax.set_title(name, fontsize=10)
        ax.set_xlabel("importance of the extra feature")
    axes[0, 0].set_ylabel("probability that a feature is on")
    handles = [Patch(color=colour, label=name) for colour, name in zip(_PHASE_COLOURS, PHASES, strict=True)]
    if borders:
        handles.append(Line2D([], [], color="black", linewidth=1.8, label="border by theory"))
    figure.suptitle(title)
    figure.set_layout_engine("constrained")
    figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    plots.show(figure, alt)


def success_maps(
    panels: Mapping[str, Float[Tensor, "n_d n_k"]],
    dimensions: Sequence[int],
    active: Sequence[int],
    *,
    title: str,
    alt: str,
    guaranteed: float,
) -> None:
    """Show how often readers succeed, by dimension and number of active features, with the guarantee as a line."""
    figure, axes = plt.subplots(1, len(panels), figsize=(4.1 * len(panels) + 0.8, 3.6), sharey=True, squeeze=False)
    place = sum(k <= guaranteed for k in active) - 0.5
    for ax, (name, values) in zip(axes[0], panels.items(), strict=True):
        image = ax.imshow(values, cmap="cividis", vmin=0, vmax=1, aspect="auto", origin="lower")
        for (row, column), value in zip(
            torch.cartesian_prod(*map(torch.arange, values.shape)), values.flatten(), strict=True
        ):
            if value == value:
                ax.text(column, row, f"{value:.2f}", ha="center", va="center", fontsize=8,
                        color="black" if value > 0.55 else "white")  # fmt: skip
        ax.axvline(place, color=plots.COLOURS[1], linewidth=2.5)
        ax.set_title(name, fontsize=10)
        ax.set_xticks(range(len(active)), active)
        ax.set_yticks(range(len(dimensions)), dimensions)
        ax.set_xlabel("features that are on")
    axes[0, 0].set_ylabel("dimensions")
    figure.suptitle(title)
    figure.set_layout_engine("constrained")
    figure.colorbar(image, ax=axes, label="share of rows recovered")
    line = Line2D([], [], color=plots.COLOURS[1], linewidth=2.5, label="left of it: guaranteed by coherence")
    figure.legend(handles=[line], loc="outside lower center", frameon=False, fontsize=9)
    plots.show(figure, alt)
