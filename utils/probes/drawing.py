"""A text token by token, coloured by what a probe says of each."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from jaxtyping import Bool, Float
from matplotlib.cm import ScalarMappable
from matplotlib.patches import Rectangle
from torch import Tensor

from utils import plots

CHARACTERS = 74  # in a line
COLOURS = plt.get_cmap("PuOr")  # orange to purple, which the colour-blind can tell apart


def coloured_text(
    tokens: Sequence[str],
    inside: Bool[Tensor, " pos"],
    scores: Mapping[str, Float[Tensor, " pos"]],
    *,
    title: str,
    alt: str,
) -> None:
    """Draw one text, once for each probe: a word's colour is what the probe says, the black line below it the truth.

    Args:
        tokens: The words.
        inside: The truth; what is inside is underlined.
        scores: For each probe its scores, log-odds or the like: purple above 0, orange below, white at 0.
        title, alt: Title and text alternative.
    """
    lines = _lines(tokens)
    n_rows = len(lines) * len(scores)
    figure, axes = plt.subplots(figsize=(8.2, 0.75 + 0.36 * n_rows + 0.34 * len(scores)))
    y = 0.0
    for name, values in scores.items():
        axes.text(0, y, plots.plain_text(name), fontsize=9, fontweight="bold", va="center")
        y += 1.1
        for line in lines:
            for i, x in line:
                width, shade = len(tokens[i]) + 0.7, 0.5 + 0.3 * (2 * values[i].sigmoid().item() - 1)
                axes.add_patch(Rectangle((x - 0.35, y - 0.42), width, 0.84, color=COLOURS(shade), linewidth=0))
                axes.text(x, y, plots.plain_text(tokens[i]), family="monospace", fontsize=8.6, va="center")
                if inside[i]:
                    axes.plot([x - 0.35, x - 0.35 + width], [y + 0.46] * 2, color="black", linewidth=2.2)
            y += 1.25
        y += 0.3
    axes.set(xlim=(-1, CHARACTERS + 2), ylim=(y - 0.6, -0.8), title=title)
    axes.axis("off")
    key = figure.colorbar(ScalarMappable(plt.Normalize(0, 1), COLOURS), ax=axes, shrink=0.7, aspect=14, pad=0.01)
    key.set_ticks([0.0, 0.5, 1.0], labels=["outside", "0", "inside"], fontsize=8)
    plots.show(figure, alt)


def _lines(tokens: Sequence[str]) -> list[list[tuple[int, float]]]:
    """Which tokens stand in which line, and at which character each begins."""
    lines, x = [[]], 0.0
    for i, token in enumerate(tokens):
        if x + len(token) > CHARACTERS:
            lines.append([])
            x = 0.0
        lines[-1].append((i, x))
        x += len(token) + 1.2
    return lines
