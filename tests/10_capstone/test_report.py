"""The page about a project: it says what is missing, opens by itself, and can be read without its pictures."""

import re
from html.parser import HTMLParser

import pytest

from utils.capstone.protocol import audit_protocol
from utils.capstone.report import STEPS, protocol_report, write_report

VOID = {"meta", "img"}


@pytest.fixture(scope="module")
def record():
    n = 9
    return {
        "feature": "<b>bold</b> & more", "would_refute": "another \"property\"", "places": ["site a", "site <b>"],
        "chosen": 1, "folds": [([i for i in range(n) if i != k], [k]) for k in range(n)],
        "all_accuracy": [[0.5 + 0.01 * i for i in range(n)], [0.9 + 0.01 * i for i in range(n)]],
        "all_baseline": [[0.5] * n, [0.4] * n], "accuracy": [0.9 + 0.01 * i for i in range(n)], "baseline": [0.4] * n,
        "control": [0.5 + 0.02 * i for i in range(n)], "p": [0.01, 0.02], "p_adjusted": [0.02, 0.02],
        "reported": (0.9, 0.1), "random": [[0.0]] * 19, "push_lengths": [1.0, 1.0], "doses": [1.0, 2.0],
        "steered": [[1.0, 2.0], [0.1, 0.2], [-0.1, 0.0]],
        "effect": {"effect": 1.0, "low": 0.5, "high": 1.5, "p": 0.05},
        "refutation": {"named": (3.0, 0.2), "some <other>": (0.1, 0.2)}, "verdict": "stands",
    }  # fmt: skip


class Reader(HTMLParser):
    """Keeps what matters, and sees that every element is closed in its turn."""

    def __init__(self):
        super().__init__()
        self.open, self.tags, self.text = [], [], []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def read(page):
    reader = Reader()
    reader.feed(page)
    assert not reader.open
    return reader


def test_nothing_is_loaded_and_nothing_runs(record):
    reader = read(protocol_report(record, "A title"))
    names = {tag for tag, _ in reader.tags}
    assert not names & {"script", "link", "iframe"}
    for _, attributes in reader.tags:
        assert all(value.startswith("data:image/png;base64,") for key, value in attributes.items() if key == "src")
        assert "href" not in attributes and not any(key.startswith("on") for key in attributes)


def test_it_can_be_read_without_its_pictures(record):
    reader = read(protocol_report(record, "A title"))
    pictures = [attributes for tag, attributes in reader.tags if tag == "img"]
    assert len(pictures) == 3 and all(re.search(r"\d", picture["alt"]) for picture in pictures)
    assert ("html", {"lang": "en"}) in reader.tags
    heads = [attributes for tag, attributes in reader.tags if tag == "th"]
    assert heads and all(attributes["scope"] in ("row", "col") for attributes in heads)
    assert [tag for tag, _ in reader.tags if tag in ("h1", "h2", "h3")][:2] == ["h1", "h2"]
    assert [tag for tag, _ in reader.tags].count("caption") == [tag for tag, _ in reader.tags].count("table") == 2


def test_what_comes_from_the_record_is_escaped(record):
    page = protocol_report(record, "<script>alert(1)</script>")
    assert "<b>bold" not in page and "<script" not in page and "site <b>" not in page and "some <other>" not in page
    assert "<b>bold</b> & more" in "".join(read(page).text)


def test_it_says_what_is_missing(record):
    assert audit_protocol(record) == [] and "No step of the protocol is missing" in protocol_report(record, "t")
    for key, step in (("control", "control task"), ("p_adjusted", "correction"), ("refutation", "refutation")):
        page = protocol_report({k: v for k, v in record.items() if k != key}, "t")
        assert "What is missing" in page and f"<li>{step}: {STEPS[step]}</li>" in page
    assert list(STEPS) == audit_protocol({})
    read(protocol_report({}, "nothing at all"))


def test_it_is_written_as_one_file(record, tmp_path):
    path = write_report(record, "t", tmp_path / "page.html")
    assert path.read_text(encoding="utf-8") == protocol_report(record, "t") and list(tmp_path.iterdir()) == [path]
