"""A page for the browser with which a person can look at latents: one file, nothing to load from elsewhere."""

import html
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.sae.reading import activation_levels, examples_by_quantile, max_activating_examples


class Passage(NamedTuple):
    """Some words in a row, and the latent's activation at each."""

    words: Sequence[str]
    activations: Sequence[float]


class Card(NamedTuple):
    """What a dashboard shows of one latent.

    Attributes:
        name: Such as "latent 7".
        label: What somebody says of it.
        facts: One sentence with numbers, such as how often it is on.
        counts: The bars of its histogram: how many of its activations fall into each of some equal ranges.
        passages: By heading, in the order to be shown, passages in which it is on.
    """

    name: str
    label: str
    facts: str
    counts: Sequence[int]
    passages: Mapping[str, Sequence[Passage]]


def feature_dashboard(cards: Sequence[Card], title: str) -> str:
    """A self-contained HTML page about some latents.

    Texts may contain anything, also ``<`` and ``"``: whatever comes from the cards or the title is escaped by
    ``html.escape``, and nothing of it can become part of the page's own markup.

    The page begins with ``<!doctype html>`` and holds, for card number i from 0 on, in this order:

    - in the page's ``<nav>``, a link ``<a href="#latent-i">`` with the card's name;
    - in the page's ``<main>``, a ``<section id="latent-i">``. In it stand: an ``<h2>`` with the text ``name: label``;
      a ``<p class="facts">`` with the facts; for each count an element ``<i title="count">`` (the bars); and for each
      heading of ``passages`` an ``<h3>`` with the heading and, for each of its passages, a ``<p class="passage">``.
      In that, each word is a ``<span>`` with the word as its text. Its ``title`` is the activation with two decimals,
      and its ``style`` is ``background: rgba(255, 140, 0, A)``, where A is the activation as a share of the largest
      of all activations in the card's passages, with two decimals (0.00 where that is 0).

    Nothing on the page runs or is loaded from elsewhere: there is no ``<script>``, ``<link>`` or ``<img>``.

    Args:
        cards: The latents; there may be none.
        title: The page's title and first heading.

    Returns:
        The page.
    """
    # Given: the frame of the page, with its style and its links.
    style = (
        "body{font:16px/1.5 sans-serif;max-width:60rem;margin:auto;padding:1rem;color:#111;background:#fff}"
        ".bars{display:flex;align-items:end;height:4rem;gap:2px;border-bottom:1px solid #777}"
        ".bars i{flex:1;background:#2a6099;min-height:1px}.passage span{padding:0 2px;border-radius:3px}"
    )
    links = "".join(f'<li><a href="#latent-{i}">{html.escape(card.name)}</a></li>' for i, card in enumerate(cards))

    def page(sections: Sequence[str]) -> str:
        heading = html.escape(title)
        return (
            f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{heading}</title>'
            f"<style>{style}</style></head><body><h1>{heading}</h1><nav><ul>{links}</ul></nav>"
            f"<main>{''.join(sections)}</main></body></html>"
        )

    # Yours: a section for each card, and the page that holds them.
    sections = []
    for i, card in enumerate(cards):
        every = [a for group in card.passages.values() for passage in group for a in passage.activations]
        largest, tallest = max(every, default=0.0), max(card.counts, default=0) or 1
        bars = "".join(f'<i title="{count}" style="height: {100 * count / tallest:.0f}%"></i>' for count in card.counts)
        parts = [
            f"<h2>{html.escape(f'{card.name}: {card.label}')}</h2>",
            f'<p class="facts">{html.escape(card.facts)}</p><div class="bars">{bars}</div>',
        ]
        for heading, group in card.passages.items():
            parts.append(f"<h3>{html.escape(heading)}</h3>")
            for passage in group:
                spans = " ".join(
                    f'<span title="{a:.2f}" style="background: rgba(255, 140, 0, {a / largest if largest else 0:.2f})">'
                    f"{html.escape(word)}</span>"
                    for word, a in zip(passage.words, passage.activations, strict=True)
                )
                parts.append(f'<p class="passage">{spans}</p>')
        sections.append(f'<section id="latent-{i}">{"".join(parts)}</section>')
    return page(sections)


def card_of(
    name: str,
    label: str,
    acts: Float[Tensor, "doc pos"],
    tokens: Int[Tensor, "doc pos"],
    vocabulary: Sequence[str],
    *,
    n_levels: int = 4,
    n: int = 4,
    seed: int = 0,
) -> Card:
    """A latent's card: its strongest examples, examples of every quantile, and places where it is off."""

    def passage(document: int, start: int, stop: int) -> Passage:
        words = [vocabulary[i] for i in tokens[document, start:stop].tolist()]
        return Passage(words, acts[document, start:stop].tolist())

    generator = torch.Generator().manual_seed(seed)
    top = max_activating_examples(acts, n) if (acts > 0).any() else []
    passages = {"strongest": [passage(e.document, e.start, e.stop) for e in top]}
    for level, places in zip(range(n_levels, 0, -1), examples_by_quantile(acts, n_levels, n, generator), strict=True):
        passages[f"drawn from level {level} of {n_levels}"] = [
            passage(d, max(0, p - 8), min(acts.shape[1], p + 5)) for d, p in places.tolist()
        ]
    off = (activation_levels(acts, n_levels) == 0).nonzero()
    off = off[torch.randperm(len(off), generator=generator)[:n]]
    passages["off"] = [passage(d, max(0, p - 8), min(acts.shape[1], p + 5)) for d, p in off.tolist()]
    on = acts[acts > 0]
    counts = torch.histc(on, 20, 0, on.max().item()).long().tolist() if len(on) else [0] * 20
    facts = f"On at {len(on)} of {acts.numel()} places; largest activation {on.max().item() if len(on) else 0:.2f}."
    return Card(name, label, facts, counts, passages)
