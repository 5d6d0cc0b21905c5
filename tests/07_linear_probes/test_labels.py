"""Checks for the labels of tokens inside quotation marks."""

import torch

from utils.course.checking import expect_close

# In these texts " opens and closes, < opens and > closes.
CASES = {
    "the opening mark is inside, the closing one outside": {'ab"cd"e': "0011100"},
    "a quotation that is never closed goes on to the end": {'a"bc': "0111", '"a"b"c': "110011", 'ab"': "001"},
    "two quotations, and an empty one": {'"a"b"c"d': "11001100", '""a': "100", '""""': "1010"},
    "quotations inside quotations, where the marks tell opening from closing": {
        "<a<b>c>d": "11111100",
        "<<<a>>b>c": "111111100",
    },
    "a closing mark where nothing is open changes nothing": {"a>b<c>d": "0001100", ">>a<b>c": "0001100", ">": "0"},
    "marks of both kinds in one text": {'<a"b>c': "110000", '"a>b"c': "110011", '<<"a>b': "111100"},
}


def encoded(texts):
    return torch.tensor([[ord(letter) for letter in text] for text in texts])


def ids(*marks):
    return torch.tensor([ord(mark) for mark in marks], dtype=torch.long)


OPENING, CLOSING = ids("<", '"'), ids('"', ">")


def expect_cases(answer, title):
    for text, labels in CASES[title].items():
        wanted = torch.tensor([[label == "1" for label in labels]])
        expect_close(answer(encoded([text]), OPENING, CLOSING), wanted, note=f"In {text} the labels differ", dtype=True)


class TestInsideQuotesLabels:
    exercise = "inside_quotes_labels"

    def test_both_marks(self, answer):
        "the mark that opens is inside, the mark that closes is outside"
        expect_cases(answer, "the opening mark is inside, the closing one outside")

    def test_several(self, answer):
        "two quotations, an empty one"
        expect_cases(answer, "two quotations, and an empty one")

    def test_never_closed(self, answer):
        "a quotation that is never closed goes on to the end"
        expect_cases(answer, "a quotation that is never closed goes on to the end")

    def test_nested(self, answer):
        "quotations inside quotations"
        expect_cases(answer, "quotations inside quotations, where the marks tell opening from closing")

    def test_nothing_open(self, answer):
        "a closing mark where nothing is open"
        expect_cases(answer, "a closing mark where nothing is open changes nothing")

    def test_both_kinds(self, answer):
        "marks that open and close beside marks that do one of the two"
        expect_cases(answer, "marks of both kinds in one text")

    def test_rows(self, answer, reference, rng):
        "each row for itself, of several, with marks of any ids"
        for batch, pos in ((5, 12), (1, 9), (4, 1), (3, 0), (7, 30)):
            tokens = torch.randint(9, (batch, pos), generator=rng)
            marks = torch.randperm(9, generator=rng)
            for opening, closing in (
                (marks[:1], marks[:1]),
                (marks[:2], marks[2:4]),
                (marks[:3], marks[1:5]),
                (marks[:2], marks[:0]),
                (marks[:0], marks[:2]),
            ):
                expect_close(answer(tokens, opening, closing), reference(tokens, opening, closing), dtype=True)


def test_the_reference_on_the_table():
    from utils.probes.labels import inside_quotes_labels

    for title in CASES:
        expect_cases(inside_quotes_labels, title)
