"""The course model's text: what it holds, what it leaves out, and that nothing in it moves."""

import hashlib
import random
from collections import Counter

import numpy as np
import pytest

from utils.data import corpus
from utils.data.world import (
    DAYS,
    FIRST_WORDS,
    MEN,
    MONTHS,
    NAMES,
    SECOND_WORDS,
    WOMEN,
    landmarks,
)

N_SCENES = 30_000


@pytest.fixture(scope="module")
def scenes() -> list[str]:
    rng = random.Random(0)
    return [corpus.scene(rng) for _ in range(N_SCENES)]


def test_a_seed_fixes_the_documents_and_another_seed_gives_others():
    documents = corpus.corpus(20, 3)
    assert documents.shape == (20, corpus.N_CTX)
    assert np.array_equal(documents, corpus.corpus(20, 3))
    assert not np.array_equal(documents, corpus.corpus(20, 4))
    assert (documents[:, 0] == 0).all() and (documents[:, 1:] > 1).all(), "<bos> first and only there, never <unk>"


def test_the_vocabulary_is_what_the_text_uses(scenes):
    used = {word for text in scenes for word in corpus.words(text)}
    listed = corpus.vocabulary()
    assert len(set(listed)) == len(listed)
    assert used == set(listed) - {corpus.BOS, corpus.UNKNOWN}


def test_the_facts_never_move():
    """The shipped weights know these facts; a change of the world asks for new weights."""
    facts = "\n".join(f"{x.name}: {x.city}, {x.builder}, {x.material}" for x in landmarks())
    assert hashlib.sha256(facts.encode()).hexdigest()[:16] == "bbfa4c9acfb2c545"
    eiffel = next(x for x in landmarks() if x.name == "Eiffel Tower")
    assert (eiffel.city, eiffel.country) == ("Paris", "France")


@pytest.mark.parametrize("relation", ["city", "builder", "material"])
@pytest.mark.parametrize(("part", "members"), [("first", FIRST_WORDS), ("second", SECOND_WORDS)])
def test_one_word_of_a_landmark_does_not_tell_the_answer(relation, part, members):
    for word in members:
        answers = Counter(getattr(x, relation) for x in landmarks() if getattr(x, part) == word)
        assert max(answers.values()) / answers.total() <= 0.2, word


def test_people_that_are_held_out_never_meet_over_a_gift(scenes):
    met = 0
    for sentence in _sentences(scenes):
        people = [word for word in corpus.words(sentence) if word in NAMES]
        if len(set(people)) < 2 or not any(gift.split()[1] in sentence for gift in corpus.IOI_GIFTS):
            continue
        met += 1
        for i, a in enumerate(people):
            assert not any(corpus.is_held_out_pair(a, b) for b in people[:i] if b != a), sentence
    assert met > N_SCENES / 10
    pairs = [(a, b) for i, a in enumerate(NAMES) for b in NAMES[:i]]
    assert 0.08 < np.mean([corpus.is_held_out_pair(*pair) for pair in pairs]) < 0.12


def test_held_out_combinations_of_opening_and_gift_never_occur(scenes):
    seen = set()
    for sentence in _sentences(scenes):
        for i, opening in enumerate(corpus.IOI_OPENINGS):
            before, between = opening.split("{a}")[0], opening.split("{b}")[1].split("{")[0]
            if not sentence.startswith(before) or between not in sentence:
                continue
            behind = sentence.split(", ", 1)[1]
            seen |= {(i, j) for j, gift in enumerate(corpus.IOI_GIFTS) if f" {gift.split()[1]} " in behind}
    held_out = {(i, j) for i in range(10) for j in range(8) if corpus.is_held_out_ioi_template(i, j)}
    assert len(held_out) == 10
    assert seen == {(i, j) for i in range(10) for j in range(8)} - held_out


def test_a_fact_is_never_stated_in_its_held_out_phrasing(scenes):
    text = " ".join(scenes)
    stated = 0
    for landmark in landmarks():
        for relation in corpus.PHRASINGS:
            unseen = corpus.held_out_phrasing(landmark, relation)
            sentences = [corpus.fact_sentence(landmark, relation, i) for i in range(6)]
            assert sentences[unseen] not in text
            stated += sum(sentence in text for i, sentence in enumerate(sentences) if i != unseen)
    assert stated > 0.85 * 120 * 4 * 5


def test_held_out_dates_are_never_said(scenes):
    text = " ".join(scenes)
    said = 0
    for names, unit, most in ((DAYS, "day", 6), (MONTHS, "month", 11)):
        for start in range(len(names)):
            for number in range(1, most + 1):
                for direction in ("after", "before"):
                    sentence = corpus.date_sentence(names, unit, start, number, direction)
                    if corpus.is_held_out_date(names, start, number, direction):
                        assert sentence not in text
                    else:
                        said += sentence in text
    assert said > 150


def test_inside_quotation_marks_verbs_are_in_the_present_and_outside_in_the_past(scenes):
    now = {now for _, now, _ in corpus.VERBS}
    past = {past for _, _, past in corpus.VERBS}
    talks = [text for text in scenes if '"' in text]
    assert len(talks) > N_SCENES / 20
    for text in talks:
        for i, part in enumerate(text.split('"')):
            found = set(corpus.words(part))
            assert not found & ((past - {"left"}) if i % 2 else now - {"watches"}), text


def test_pronouns_fit_the_names(scenes):
    for text in scenes:
        if text.endswith(" because she was tired.") or text.endswith(" because he was tired."):
            assert (text.split()[0] in WOMEN) == (" she " in text)
    assert not set(WOMEN) & set(MEN)


def test_repeated_documents_repeat():
    for row in corpus.corpus(30, 5, share_repeated=1.0):
        body = row[1:]
        assert any((body[period:] == body[:-period]).all() for period in range(4, 45))


def test_a_word_outside_the_vocabulary_is_named():
    with pytest.raises(ValueError, match="vocabulary: Nobody, xylophone"):
        corpus.encode("Nobody gave the xylophone to Mary.")


def _sentences(scenes: list[str]) -> list[str]:
    return [sentence + "." for text in scenes for sentence in text.split(". ")]
