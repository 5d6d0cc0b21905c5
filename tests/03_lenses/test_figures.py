"""The table to point at: what it says, and that it survives where pages are cleaned."""

from html.parser import HTMLParser

import pytest
import torch

from utils.lenses.figures import lens_table

VOCABULARY = ["<bos>", "Paris", 'a "quote"', "R&D", "the", "of"]
# What JupyterLab's sanitiser keeps on any element, and what it keeps on a header cell.
KEPT = {"title", "style"}


class Reader(HTMLParser):
    def __init__(self):
        super().__init__()
        self.cells, self.rows, self.tags = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag == "td":
            self.cells.append(dict(attributes)["title"])

    def handle_data(self, data):
        self.rows.append(data)


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
    assert [title.split("\n") for title in table.cells] == expected


def test_the_last_site_is_on_top_and_words_are_escaped(table, logits):
    texts = [text for text in table.rows if text.strip()]
    top = [VOCABULARY[i] for i in logits.argmax(-1)[2].tolist()]
    assert texts[:7] == ["A <caption>", "site", "<bos>", "R&D", "last", *top]


def test_nothing_in_it_needs_more_than_a_cleaned_page_allows(table):
    for tag, attributes in table.tags:
        assert tag in {"table", "caption", "tr", "th", "td"}
        assert set(attributes) <= KEPT | ({"scope"} if tag == "th" else set())
