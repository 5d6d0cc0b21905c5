"""The classic picture of a lens, sites by tokens: as a figure, and as a table to point at."""

import html
from collections.abc import Sequence

import matplotlib.pyplot as plt
import numpy as np
from jaxtyping import Float
from torch import Tensor

from utils import plots


def lens_figure(
    logits: Float[Tensor, "site pos d_vocab"],
    words: Sequence[str],
    vocabulary: Sequence[str],
    sites: Sequence[str],
    *,
    title: str,
    alt: str,
) -> None:
    """Show the likeliest next word at every site and position; the colour is its probability.

    Args:
        logits: What a lens reads, the first site first; it is drawn at the bottom.
        words: The text, one for each position.
        vocabulary: The word of each token id.
        sites: Names of the sites.
        title, alt: Title and text alternative.
    """
    best = logits.softmax(-1).max(-1)
    figure, axes = plt.subplots(figsize=(1.6 + 0.95 * len(words), 1.2 + 0.45 * len(sites)))
    image = axes.imshow(best.values.detach().cpu(), aspect="auto", origin="lower", cmap="cividis", vmin=0, vmax=1)
    for (row, column), token in np.ndenumerate(best.indices.cpu().numpy()):
        bright = best.values[row, column] > 0.5
        axes.text(
            column, row, vocabulary[token], ha="center", va="center", fontsize=8, color="black" if bright else "white"
        )
    axes.set_xticks(range(len(words)), words)
    axes.set_yticks(range(len(sites)), sites)
    axes.set(title=title, xlabel="token that was read", ylabel="read behind")
    figure.colorbar(image, label="probability of the word in the cell")
    plots.show(figure, alt)


def lens_table(
    logits: Float[Tensor, "site pos d_vocab"],
    words: Sequence[str],
    vocabulary: Sequence[str],
    sites: Sequence[str],
    *,
    caption: str,
    n_shown: int = 5,
) -> str:
    """The same as an HTML table, the last site on top; a cell's ``title`` holds its likeliest words.

    The table needs no script and no network, and only attributes that JupyterLab keeps when it cleans a page's HTML
    (``title``, ``style``, ``scope``). Arguments are those of ``lens_figure``.

    Args:
        caption: Caption of the table.
        n_shown: How many words a cell's title holds.

    Returns:
        HTML, to be shown with ``IPython.display.HTML``.
    """
    best = logits.softmax(-1).topk(n_shown)
    style = "padding:2px 8px;border:1px solid #bbb;text-align:center"
    head = "".join(f'<th scope="col" style="{style}">{html.escape(word)}</th>' for word in words)
    lines = [f'<tr><th scope="col" style="{style}">site</th>{head}</tr>']
    for row in reversed(range(len(sites))):
        cells = []
        for column in range(len(words)):
            found = zip(best.indices[row, column].tolist(), best.values[row, column].tolist(), strict=True)
            listed = [f"{vocabulary[token]} {p:.3f}" for token, p in found]
            p = best.values[row, column, 0].item()
            shade = f"background-color:rgba(0,114,178,{0.6 * p:.2f})"
            first = html.escape(vocabulary[best.indices[row, column, 0]])
            told = "&#10;".join(html.escape(line, quote=True) for line in listed)
            cells.append(f'<td title="{told}" style="{style};{shade}">{first}</td>')
        lines.append(f'<tr><th scope="row" style="{style}">{html.escape(sites[row])}</th>{"".join(cells)}</tr>')
    return f'<table style="border-collapse:collapse"><caption>{html.escape(caption)}</caption>{"".join(lines)}</table>'
