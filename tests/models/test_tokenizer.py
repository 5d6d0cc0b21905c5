"""The shipped tokenizer and the corpus' own words agree."""

import random

import pytest
import torch

from utils.data import corpus
from utils.models.tokenizer import save_tokenizer


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory):
    from transformers import PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tokenizer")
    save_tokenizer(folder)
    return PreTrainedTokenizerFast.from_pretrained(folder)


def test_ids_and_text_are_those_of_the_corpus(tokenizer):
    rng = random.Random(0)
    for _ in range(300):
        text = corpus.scene(rng)
        ids = corpus.encode(text)
        assert tokenizer(text)["input_ids"] == [0, *ids]
        assert tokenizer.decode(ids) == corpus.decode(ids) == text


def test_spaces_around_punctuation_do_not_matter(tokenizer):
    spaced, usual = 'Mary said : " I like John \'s hat . "', 'Mary said: "I like John\'s hat."'
    assert tokenizer(spaced)["input_ids"] == tokenizer(usual)["input_ids"]


def test_an_unknown_word_is_unk_and_bos_is_padding(tokenizer):
    rows = tokenizer(["The xylophone", "The old cat"], padding=True, return_tensors="pt")["input_ids"]
    assert rows[0].tolist()[:3] == [0, corpus.encode("The")[0], 1]
    assert torch.equal(rows[:, 0], torch.zeros(2, dtype=torch.long)) and rows[0, -1] == tokenizer.bos_token_id
