"""The picture of a lens and the table whose cells open: what they say, and that they survive odd words and pages."""

from html.parser import HTMLParser

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.cbook import is_math_text

from utils.lenses.figures import lens_figure, lens_table

VOCABULARY = ["<bos>", "Paris", 'a "quote"', "R&D", "the", "of"]


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.summaries, self.rest, self.tags, self.within = [], [], [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "details":
            self.cells.append([])
        if tag != "br":
            self.within.append(tag)

    def handle_endtag(self, tag):
        assert self.within.pop() == tag

    def handle_data(self, data):
        inside = {"summary": self.summaries, "details": self.cells[-1] if self.cells else None}
        inside.get(self.within[-1], self.rest).append(data)


@pytest.fixture
def logits():
    return torch.randn(3, 2, 6, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def table(logits):
    reader = Reader()
    reader.feed(lens_table(logits, ["<bos>", "R&D"], VOCABULARY, ["first", "middle", "last"], caption="A <caption>"))
    return reader


def test_a_cell_lists_its_five_likeliest_words_with_probabilities(table, logits):
    best = logits.softmax(-1).topk(5)
    expected = [
        [
            f"{VOCABULARY[i]} {p:.3f}"
            for i, p in zip(best.indices[site, position].tolist(), best.values[site, position].tolist(), strict=True)
        ]
        for site in (2, 1, 0)
        for position in range(2)
    ]
    assert table.cells == expected
    assert table.summaries == [cell[0].rsplit(" ", 1)[0] for cell in expected]


def test_the_last_site_is_on_top_and_words_are_escaped(table):
    assert table.rest == ["A <caption>", "site", "<bos>", "R&D", "last", "middle", "first"]


def test_a_cell_is_opened_without_a_mouse(table):
    """``details`` and its ``summary`` take the keyboard's focus in every browser; a ``title`` never does."""
    tags = [tag for tag, _ in table.tags]
    assert tags.count("td") == tags.count("details") == tags.count("summary") == 6
    assert not any("title" in attributes for _, attributes in table.tags)


def test_nothing_in_it_needs_more_than_a_cleaned_page_allows(table):
    for tag, attributes in table.tags:
        assert tag in {"table", "caption", "tr", "th", "td", "details", "summary", "br"}
        assert set(attributes) <= {"style"} | ({"scope"} if tag == "th" else set())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_every_dtype_is_drawn(logits, dtype, monkeypatch):
    monkeypatch.setattr("utils.lenses.figures.plots.show", lambda figure, alt: figure.canvas.draw())
    logits = logits.to(dtype).requires_grad_()
    lens_figure(logits, ["a", "b"], VOCABULARY, ["0", "1", "2"], title="t", alt="a")
    assert "<table" in lens_table(logits, ["a", "b"], VOCABULARY, ["0", "1", "2"], caption="c", n_shown=9)
    plt.close("all")


@pytest.mark.parametrize("word", ["$$", "$x$", "$", r"\$", "a_b^c", r"\frac", "{", "%"])
def test_words_that_look_like_formulas_are_words(logits, word, monkeypatch):
    shown = []

    def look(figure, alt):
        figure.canvas.draw()
        axes = figure.axes[0]
        labels = [*axes.texts, *axes.get_xticklabels(), *axes.get_yticklabels(), axes.title]
        shown.extend((label.get_text().replace(r"\$", "$"), is_math_text(label.get_text())) for label in labels)

    monkeypatch.setattr("utils.lenses.figures.plots.show", look)
    lens_figure(logits, [word] * 2, [word] * 6, [word] * 3, title=word, alt="a")
    plt.close("all")
    assert shown == [(word, False)] * (6 + 2 + 3 + 1)
