"""The classic picture of a lens, sites by tokens: as a figure, and as a table whose cells open."""

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
    best = logits.detach().float().cpu().softmax(-1).max(-1)
    figure, axes = plt.subplots(figsize=(1.6 + 0.95 * len(words), 1.2 + 0.45 * len(sites)))
    image = axes.imshow(best.values.numpy(), aspect="auto", origin="lower", cmap="cividis", vmin=0, vmax=1)
    for (row, column), token in np.ndenumerate(best.indices.numpy()):
        colour = "black" if best.values[row, column] > 0.5 else "white"
        word = plots.plain_text(vocabulary[token])
        axes.text(column, row, word, ha="center", va="center", fontsize=8, color=colour)
    axes.set_xticks(range(len(words)), [plots.plain_text(word) for word in words])
    axes.set_yticks(range(len(sites)), [plots.plain_text(site) for site in sites])
    axes.set(title=plots.plain_text(title), xlabel="token that was read", ylabel="read behind")
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
    """The same as an HTML table, the last site on top; a cell opens, and lists its likeliest words.

    A cell is a ``details`` element: a click opens it, and so do the Tab and Enter keys, and a screen reader says that
    it can be opened. The table needs no script and no network, and only elements and attributes that JupyterLab keeps
    when it cleans a page's HTML. Arguments are those of ``lens_figure``.

    Args:
        caption: Caption of the table.
        n_shown: How many words a cell lists, at most.

    Returns:
        HTML, to be shown with ``IPython.display.HTML``.
    """
    best = logits.detach().float().softmax(-1).topk(min(n_shown, logits.shape[-1]))
    style = "padding:2px 8px;border:1px solid #bbb;text-align:center;vertical-align:top"
    head = "".join(f'<th scope="col" style="{style}">{html.escape(word)}</th>' for word in words)
    lines = [f'<tr><th scope="col" style="{style}">site</th>{head}</tr>']
    for row in reversed(range(len(sites))):
        cells = []
        for column in range(len(words)):
            found = zip(best.indices[row, column].tolist(), best.values[row, column].tolist(), strict=True)
            listed = [html.escape(f"{vocabulary[token]} {p:.3f}") for token, p in found]
            shade = f"background-color:rgba(0,114,178,{0.6 * best.values[row, column, 0].item():.2f})"
            first = html.escape(vocabulary[best.indices[row, column, 0]])
            opened = f"<details><summary>{first}</summary>{'<br>'.join(listed)}</details>"
            cells.append(f'<td style="{style};{shade}">{opened}</td>')
        lines.append(f'<tr><th scope="row" style="{style}">{html.escape(sites[row])}</th>{"".join(cells)}</tr>')
    return f'<table style="border-collapse:collapse"><caption>{html.escape(caption)}</caption>{"".join(lines)}</table>'
