"""Prompts: answers, positions and labels are what they say, and come from what training leaves out."""

import random

import pytest
import torch

from utils.data import corpus, prompts
from utils.data.prompts import Prompt, giving_roles
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


@pytest.mark.parametrize("bystander", [False, True])
def test_in_the_passive_the_owner_comes_first_and_the_giver_second(bystander):
    found = prompts.passive_prompts(100, 0, bystander=bystander)
    for i, prompt in enumerate(found):
        tokens, roles = _tokens(prompt), giving_roles(prompt.text)
        assert corpus.is_held_out_pair(prompt.answer, prompt.foil) and tokens[-1] == "to"
        assert (prompt.at["IO"] < prompt.at["S1"]) == (i % 2 == 0) and prompt.kind[0] == ("ABBA", "BABA")[i % 2]
        assert roles.giver == prompt.foil and roles.giver_at == prompt.at["S2"]
        assert roles.first == tokens[prompt.at["OWNER"]] and roles.first_at == prompt.at["OWNER"]
        assert (roles.first == prompt.answer) != bystander and prompt.at["OWNER"] < prompt.at["S2"]
    assert len({prompt.kind for prompt in found}) > 50


def test_in_the_scenes_of_training_the_giver_is_first_behind_the_opening():
    for bystander in (False, True):
        for held_out in (False, True):
            for prompt in prompts.ioi_prompts(200, 1, bystander=bystander, held_out_templates=held_out):
                roles = giving_roles(prompt.text)
                assert roles.giver == roles.first == prompt.foil and roles.repeated == (prompt.foil,), prompt.text
                assert roles.giver_at == roles.first_at == prompt.at["S2"] and roles.end == prompt.at["END"]
                assert len(roles.said) == 2 + bystander and roles.said[prompt.answer] == (prompt.at["IO"],)
                assert roles.last_at == prompt.at["OWNER" if bystander else "S2"]
    rng = random.Random(0)
    for make, n in ((corpus.encounter, 300), (corpus.gift, 300), (corpus._three_friends, 100)):
        for _ in range(n):
            text = make(rng)
            roles = giving_roles(text)
            assert roles.giver == roles.first and roles.giver in roles.repeated, text
            behind = {place for places in roles.said.values() for place in places if place > roles.giver_at}
            assert behind and roles.last_at == max(behind), text


OPENING = "When Mary and Paul went to the park, "


@pytest.mark.parametrize(
    ("text", "giver", "first", "last", "repeated"),
    [
        (OPENING + "Paul gave a ball to", "Paul", "Paul", "Paul", "Paul"),
        (OPENING + "Paul gave a ball to Mary.", "Paul", "Paul", "Mary", "Mary Paul"),
        (OPENING + "Nina gave a ball to", "Nina", "Nina", "Nina", ""),
        (OPENING + "Nina gave Mary's ball to", "Nina", "Nina", "Mary", "Mary"),
        (OPENING + "the old baker gave the ball of Mary to", "baker", "baker", "Mary", "Mary"),
        ("When Mary and the baker went to the park, the baker threw a ball to", "baker", "baker", "baker", "baker"),
        (OPENING + "Nina's baker gave a ball to", "baker", "Nina", "baker", ""),
        (OPENING + "Paul decided to give the ball to", "Paul", "Paul", "Paul", "Paul"),
        (OPENING + "Mary wanted Paul to give a ball to", "Paul", "Mary", "Paul", "Mary Paul"),
        # the passive
        (OPENING + "a ball was handed by Paul to", "Paul", "Paul", "Paul", "Paul"),
        (OPENING + "Mary's ball was handed by Paul to", "Paul", "Mary", "Paul", "Mary Paul"),
        (OPENING + "the red ball of Nina was sold by the baker to", "baker", "Nina", "baker", ""),
        (OPENING + "Paul was thanked by Mary and gave a ball to", "Paul", "Paul", "Mary", "Mary Paul"),
        (OPENING + "a ball was handed to", None, None, "Paul", ""),
        (OPENING + "a ball was handed by Mary and Paul to", None, "Mary", "Paul", "Mary Paul"),
        # something between the giver and the verb
        (OPENING + "Paul, who met Nina, gave a ball to", "Paul", "Paul", "Nina", "Paul"),
        (OPENING + "Paul (not Nina [the cook]) gave a ball to", "Paul", "Paul", "cook", "Paul"),
        (OPENING + "the baker near Nina gave a ball to", "baker", "baker", "Nina", ""),
        (OPENING + "Paul thanked Mary and gave a ball to", "Paul", "Paul", "Mary", "Mary Paul"),
        # several sentences and clauses
        ("Mary and Paul met. The cook gave a ball to", "cook", "cook", "cook", ""),
        ("Nina met Carl. " + OPENING + "Paul gave a ball to", "Paul", "Paul", "Paul", "Paul"),
        (OPENING + "Paul gave a ball to Mary. Then Mary gave a cup to", "Mary", "Paul", "Mary", "Mary Paul"),
        (OPENING + "Paul gave a ball to Mary, and Mary gave a cup to", "Mary", "Paul", "Mary", "Mary Paul"),
        (OPENING + "Paul gave a ball to Mary and a cup to", "Paul", "Paul", "Mary", "Mary Paul"),
        (OPENING + "Nina smiled and Paul gave a ball to", "Paul", "Nina", "Paul", "Paul"),
        (OPENING + 'Nina said: "Paul gave a ball to', "Paul", "Nina", "Paul", "Paul"),
        ("Mary, Nina and Paul met at the park. Nina gave a ball to", "Nina", "Nina", "Nina", "Nina"),
        # encounters
        (OPENING + "Mary thanked", "Mary", "Mary", "Mary", "Mary"),
        (OPENING + "Nina went home with", "Nina", "Nina", "Nina", ""),
        # nobody gives alone, nobody gives, or nothing tells who
        (OPENING + "Mary and Paul gave a ball to", None, "Mary", "Paul", "Mary Paul"),
        (OPENING + "Paul's dog gave a ball to", None, "Paul", "Paul", "Paul"),
        (OPENING + "the dog of Nina gave a ball to", None, "Nina", "Nina", ""),
        (OPENING + "he gave a ball to", None, None, "Paul", ""),
        (OPENING + "Paul", None, "Paul", "Paul", "Paul"),
        (OPENING + "Paul opened the box near", None, "Paul", "Paul", "Paul"),
        ("Paul gave a ball to", "Paul", None, "Paul", ""),
        ("The Eiffel Tower is located in", None, None, None, ""),
        ("", None, None, None, ""),
    ],
)
def test_roles_of_texts_that_were_read_by_hand(text, giver, first, last, repeated):
    roles = giving_roles(text)
    assert (roles.giver, roles.first, roles.last, set(roles.repeated)) == (giver, first, last, set(repeated.split()))


def test_roles_of_any_words_are_people_at_their_positions():
    rng = random.Random(3)
    common = [*"and , . ' to by was who ( ) [ ] the gave met handed Mary Paul baker dog".replace("' ", "'s ").split()]
    for _ in range(2000):
        drawn = rng.choices((common, corpus.vocabulary()[2:]), (2, 1), k=rng.randint(0, 25))
        text = " ".join(rng.choice(some) for some in drawn)
        tokens, roles = [corpus.BOS, *corpus.words(text)], giving_roles(text)
        assert roles.end == len(tokens) - 1
        for person, places in roles.said.items():
            assert places == tuple(i for i, token in enumerate(tokens) if token == person)
        assert set(roles.repeated) == {person for person in roles.said if tokens.count(person) > 1}
        for role, place in ((roles.last, roles.last_at), (roles.giver, roles.giver_at), (roles.first, roles.first_at)):
            assert (role is None and place is None) or place in roles.said[role]
        assert roles.last_at == max((place for places in roles.said.values() for place in places), default=None)


def test_roles_name_the_words_that_are_not_known():
    with pytest.raises(ValueError, match="Zebedee, xylophone"):
        giving_roles("Zebedee gave the xylophone to")


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
