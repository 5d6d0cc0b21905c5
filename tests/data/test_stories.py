"""The templated corpus: seeded, within its vocabulary, with the regularities that the chapters rely on."""

import re
from collections import Counter

import pytest
import torch

from utils.data import stories as corpus
from utils.data.stories import ANIMALS, NAMES, PLACES, decode, encode, is_held_out, stories, vocabulary, words


def test_same_seed_same_lines_and_a_prefix_of_a_longer_run():
    assert stories(300, seed=1) == stories(300, seed=1)
    assert stories(300, seed=1) == stories(1000, seed=1)[:300]
    assert stories(300, seed=1) != stories(300, seed=2)
    assert stories(0, seed=1) == []


FROZEN = [
    "Alice likes frogs and Victor likes birds. So Alice feeds the frogs in the castle.",
    "Victor looked for Alice in the castle, but Alice was in the office.",
    "Alice likes horses and Victor likes rabbits. So Alice feeds the horses in the castle.",
]


def test_lines_are_frozen():
    assert stories(3, seed=0) == FROZEN


@pytest.mark.parametrize("held_out", [False, True])
def test_every_word_is_in_the_vocabulary_and_every_word_is_used(held_out):
    seen = {word for line in stories(6000, seed=3, held_out=held_out) for word in words(line)}
    assert seen == set(vocabulary()) - {"<bos>"}


def test_vocabulary_is_small_without_repeats_and_begins_with_bos():
    assert len(vocabulary()) == len(set(vocabulary())) < 200
    assert vocabulary()[0] == "<bos>"
    vocabulary().clear()
    assert vocabulary()


def test_encode_packs_behind_bos_and_decode_gives_the_words_back():
    lines = stories(400, seed=4)
    rows = encode(lines, n_ctx=17)
    assert rows.dtype == torch.int64 and rows.shape[1] == 17
    assert (rows[:, 0] == 0).all() and (rows[:, 1:] != 0).all()
    stream = words(" ".join(lines))
    assert [vocabulary()[i] for i in rows[:, 1:].flatten().tolist()] == stream[: rows.shape[0] * 16]
    assert len(stream) - rows.shape[0] * 16 < 16
    assert torch.equal(rows, encode(lines, n_ctx=17))


def test_a_line_goes_through_encode_and_decode():
    for line in stories(200, seed=5):
        (row,) = encode([line], n_ctx=len(words(line)) + 1)
        assert decode(row) == decode(row.tolist()) == "<bos> " + line


@pytest.mark.parametrize(
    ("lines", "n_ctx", "message"),
    [
        (["Anna went"], 3, "vocabulary: Anna"),
        (["Adam went"], 1, "at least 2"),
        (["Adam went"], 4, "do not fill"),
    ],
)
def test_encode_refuses_what_it_cannot_pack(lines, n_ctx, message):
    with pytest.raises(ValueError, match=message):
        encode(lines, n_ctx)


def test_held_out_combinations_of_name_and_place_do_not_occur_in_the_default_corpus():
    went = re.compile(rf"({'|'.join(NAMES)}) went to the ({'|'.join(PLACES)})")
    default = {pair for line in stories(20000, seed=6) for pair in went.findall(line)}
    other = {pair for line in stories(20000, seed=6, held_out=True) for pair in went.findall(line)}
    assert default and other and not default & other
    assert {is_held_out(*pair) for pair in default} == {False}
    assert {is_held_out(*pair) for pair in other} == {True}
    everyone = re.compile(rf"\b({'|'.join(NAMES)})\b")
    for line in stories(5000, seed=7):
        for place in re.findall(rf"\b({'|'.join(PLACES)})\b", line):
            assert not any(is_held_out(name, place) for name in everyone.findall(line))


def test_the_receiver_is_the_one_of_the_two_who_does_not_give():
    giving = re.compile(r"When (\w+) and (\w+) went to the \w+, (\w+) \w+ the \w+ to (\w+)\.")
    found = [match for line in stories(5000, seed=8) for match in giving.findall(line)]
    assert all({a, b} == {giver, receiver} and a != b for a, b, giver, receiver in found)
    first = Counter(a == giver for a, _, giver, _ in found)
    assert abs(first[True] / len(found) - 0.5) < 0.05  # who gives can't be told from the order alone


def test_verbs_and_articles_agree():
    for line in stories(5000, seed=9):
        for noun, verb in re.findall(r"\b(\w+) near the \w+ (is|are)", line):
            assert (verb == "is") == (noun in ANIMALS)
        for article, word in re.findall(r"\b(an|a) (\w+)", line):
            assert (article == "an") == (word[0] in "aeiou")


def test_scenes_repeat_names():
    rows = encode(stories(5000, seed=10), n_ctx=48)
    names = {vocabulary().index(name) for name in NAMES}
    found = [[i for i in row if i in names] for row in rows.tolist()]
    repeated = [len(row) > len(set(row)) for row in found]
    assert sum(repeated) / len(repeated) > 0.9
    assert corpus.BOS not in " ".join(stories(100, seed=10))
