"""Prompts: answers, positions and labels are what they say, and come from what training leaves out."""

import pytest
import torch

from utils.data import corpus, prompts
from utils.data.prompts import Prompt
from utils.data.world import NAMES, WOMEN, landmarks


def _tokens(prompt: Prompt) -> list[str]:
    return [corpus.BOS, *corpus.words(prompt.text)]


@pytest.mark.parametrize("bystander", [False, True])
@pytest.mark.parametrize("held_out_templates", [False, True])
def test_ioi_prompts_name_the_receiver_once_and_the_giver_twice(bystander, held_out_templates):
    found = prompts.ioi_prompts(200, 0, bystander=bystander, held_out_templates=held_out_templates)
    assert len(found) == 200
    for i, prompt in enumerate(found):
        tokens = _tokens(prompt)
        assert [tokens[prompt.at[name]] for name in ("IO", "S1", "S2", "END")] == [
            prompt.answer, prompt.foil, prompt.foil, "to",
        ]  # fmt: skip
        assert tokens.count(prompt.answer) == 1 and tokens.count(prompt.foil) == 2
        assert sum(token in NAMES for token in tokens) == 3 + bystander
        assert corpus.is_held_out_pair(prompt.answer, prompt.foil)
        order, opening, gift = prompt.kind
        assert order == ("ABBA", "BABA")[i % 2] and (prompt.at["IO"] < prompt.at["S1"]) == (order == "ABBA")
        assert corpus.is_held_out_ioi_template(int(opening), int(gift)) == held_out_templates


@pytest.mark.parametrize("relation", list(corpus.PHRASINGS))
@pytest.mark.parametrize("company", [False, True])
def test_fact_prompts_ask_for_each_landmark_in_its_held_out_phrasing(relation, company):
    for landmark, prompt in zip(landmarks(), prompts.fact_prompts(relation, company=company), strict=True):
        tokens = _tokens(prompt)
        assert prompt.answer == getattr(landmark, relation)
        assert tokens[prompt.at["first"] : prompt.at["last"] + 1] == [landmark.first, landmark.second]
        assert prompt.at["END"] == len(tokens) - 1
        assert prompt.kind == (relation, str(corpus.held_out_phrasing(landmark, relation)))


def test_repeated_random_tokens_are_two_equal_halves():
    tokens = prompts.repeated_random_tokens(5, 11, seed=0)
    assert tokens.shape == (5, 23) and (tokens[:, 0] == 0).all()
    assert torch.equal(tokens[:, 1:12], tokens[:, 12:])


def test_quote_prompts_end_where_the_quotation_marks_say():
    for prompt in prompts.quote_prompts(200, 0):
        inside = prompt.text.count('"') % 2 == 1
        assert prompt.kind == ("inside" if inside else "outside",)
        forms = next(forms for forms in corpus.VERBS if prompt.answer in forms)
        assert (prompt.answer, prompt.foil) == (forms[1:] if inside else forms[:0:-1])


def test_date_prompts_cover_every_sum_once():
    seen, unseen = prompts.date_prompts(held_out=False), prompts.date_prompts(held_out=True)
    assert len(seen) + len(unseen) == 7 * 6 * 2 + 12 * 11 * 2 == len({p.text for p in seen + unseen})
    answers = {p.text: p.answer for p in seen + unseen}
    assert answers["Two days after Saturday is"] == "Monday"
    assert answers["Three months before January is"] == "October"


def test_gender_agreement_and_bracket_prompts():
    assert {p.text.split()[0]: p.answer for p in prompts.gender_prompts()} == {
        name: "she" if name in WOMEN else "he" for name in NAMES
    }
    assert all((p.answer == "are") == p.text.split()[1].endswith("s") for p in prompts.agreement_prompts()
               if p.text.split()[1] not in ("fox", "foxes"))  # fmt: skip
    for prompt in prompts.bracket_prompts(20, 0):
        opened = [token for token in corpus.words(prompt.text) if token in "([)]"]
        left = {"(": ")", "[": "]"}
        assert prompt.answer == left[opened[-1] if prompt.kind == ("inner",) else opened[0]]


def test_encoding_puts_bos_first_and_names_what_it_cannot_encode():
    ids = prompts.encode_prompts([Prompt("The cat", "is"), Prompt("Mary", "went")])
    assert ids.shape == (2, 3) and ids[:, 0].tolist() == [0, 0] and ids[1, 2] == 0
    with pytest.raises(ValueError, match="xylophone"):
        prompts.encode_prompts([Prompt("The xylophone", "is")])
    with pytest.raises(ValueError, match="no prompts"):
        prompts.encode_prompts([])
    with pytest.raises(ValueError, match="'Eiffel Tower' is 2 tokens"):
        prompts.token_id("Eiffel Tower")


def test_labels_of_a_text_that_was_labelled_by_hand():
    text = 'Mary said: "The baker likes Paris." Then the cat (a [red] one) slept.'
    tokens = torch.tensor([[0, *corpus.encode(text)]])
    labels = prompts.token_labels(tokens)
    words = [corpus.BOS, *corpus.words(text)]

    def marked(label: str) -> list[str]:
        return [word for word, mark in zip(words, labels[label][0].tolist(), strict=True) if mark]

    assert marked("inside quotes") == ['"', "The", "baker", "likes", "Paris", "."]
    assert marked("inside brackets") == ["(", "a", "[", "red", "]", "one"]
    assert marked("name") == marked("woman's name") == ["Mary"]
    assert marked("city") == ["Paris"] and marked("next: city") == ["likes"]
    assert marked("verb in the present") == ["likes"] and marked("job") == ["baker"]


def test_documents_are_not_those_of_training():
    assert torch.equal(prompts.documents(3, 1), prompts.documents(3, 1))
    assert not torch.equal(prompts.documents(3, 1), torch.from_numpy(corpus.corpus(3, 1)).long())
