"""The check of the case of part 02b: the trials are read in the head's pattern, and the changes are made again."""

import math
from collections import Counter
from statistics import fmean

import pytest
import torch

from utils.course.cases import design_of, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import Mismatch, expect, plain
from utils.data import corpus
from utils.models.course_model import CFG
from utils.transformer.attention import attention_pattern
from utils.transformer.case_02b import READS, beginnings, read_by_heads, says, trained_head, what_a_look_at_bos_is_for

VERDICTS = ("source", "rest", "valve", "undecided")
KEYS = {
    "head": "list",
    "trials": "list",
    "measure": "callable",
    "effect_silent": "pair",
    "effect_hidden": "pair",
    "verdict": VERDICTS,
}
LOOKS, IGNORES, ALIKE, ROUNDING = 0.5, 0.02, 0.1, 1e-4


class TestWhatALookAtBosIsFor:
    exercise = "what_a_look_at_bos_is_for"

    def test_design(self, answer):
        "trials in which only what the head looks at differs, and what the numbers say when run again"
        design = design_of(answer, KEYS)
        head = head_of(design)
        trials = [expect_trial(trial, head, i) for i, trial in enumerate(design["trials"])]
        expect_enough([trial[0] for trial in trials], 12, of="trials' texts")
        expect_enough([trial[2] for trial in trials], 12, of="trials' other texts")
        for texts, whose in (([t[0] for t in trials], "texts"), ([t[2] for t in trials], "other texts")):
            expect_variety(texts, whose)
        found = [changes(trial, head) for trial in trials]
        silent, hidden, control, word = (
            expect_function_of_input(design["measure"], [runs[i] for runs in found]) for i in range(4)
        )
        expect_a_measure(design["measure"], found, control, word)
        fetched = [w / 2 - s for w, s in zip(word, silent, strict=True)]
        kept_away = [h - 2 * s for h, s in zip(hidden, silent, strict=True)]
        expect_reported(design["effect_silent"], fetched, of="effect_silent")
        expect_reported(design["effect_hidden"], kept_away, of="effect_hidden")
        expect_verdict(design)


def head_of(design):
    head = [plain(number) for number in design["head"]]
    sizes = (CFG.n_layers, CFG.n_heads)
    fits = len(head) == 2 and all(
        isinstance(x, int) and not isinstance(x, bool) and 0 <= x < n for x, n in zip(head, sizes, strict=True)
    )
    expect(
        fits,
        f"A head is (layer, head), and the course model has {sizes[0]} layers of {sizes[1]} heads, counted from 0.",
        actual="head",
        returned=repr(design["head"]),
    )
    return tuple(head)


def expect_trial(trial, head, i):
    """Expect the head to look where the trial says it does, at the end of both texts; the trial, its numbers plain."""
    where = f'design["trials"][{i}]'
    expect(
        isinstance(trial, list | tuple) and len(trial) == 4,
        "A trial is a tuple (text, control, other, position).",
        actual="shape",
        returned=f"{where} = {trial!r}"[:200],
    )
    text, control, other, position = (plain(part) for part in trial)
    expect(
        isinstance(text, str) and isinstance(other, str),
        "In a trial (text, control, other, position) the first and the third are texts.",
        actual="texts",
        returned=f"{where} = {trial!r}"[:200],
    )
    weights, other_weights = at_the_end(text, head, where), at_the_end(other, head, where)
    expect_position(control, weights, "control", where)
    expect_position(position, other_weights, "position", where)
    at_bos, at_control, at_word = weights[0], weights[control], other_weights[position]
    expect(
        at_bos >= LOOKS - ROUNDING,
        f"At the end of this text the head has a weight of {at_bos:.2f} on <bos>: the question is about ends at which "
        "it has most of its weight there.",
        actual="not at bos",
        returned=f"{where}: {text!r}",
    )
    expect(
        control > 0 and at_control <= IGNORES + ROUNDING,
        f"Your control has a weight of {at_control:.2f}. A control is a word that the head does not look at, so that "
        "nothing should happen when it is silent.",
        actual=("control is looked at", at_control == max(weights)),
        returned=f"{where}: {word_at(control, text)}",
    )
    expect(
        position > 0,
        "In the other text, too, your position is that of <bos>. There it should be a word that is looked at.",
        actual="bos for a word",
        returned=f"{where}: {other!r}",
    )
    expect(
        abs(at_word - at_bos) <= ALIKE + ROUNDING,
        f"<bos> has a weight of {at_bos:.2f}, and the word that you compare it with {at_word:.2f}. They differ in two "
        "things, so that the weight alone could explain what you find: take pairs of the same weight.",
        actual=("weights differ", abs(max(other_weights[position + 1 : position + 2], default=0.0) - at_bos) <= ALIKE),
        returned=f"{where}: {word_at(0, text)}, and {word_at(position, other)}",
    )
    return text, control, other, position


def word_at(position, text):
    return f"position {position} ({[corpus.BOS, *corpus.words(text)][position]!r}) of {text!r}"


def at_the_end(text, head, where):
    try:
        corpus.encode(text)
        length = 1 + len(corpus.words(text))
        if not 2 <= length <= CFG.n_ctx:
            raise ValueError(f"with <bos> it has {length} tokens, and the model takes 2 to {CFG.n_ctx}")
    except ValueError as error:
        raise Mismatch(f"{where} can't be read: {error}.", actual="unreadable", returned=repr(text)[:200]) from error
    weights = trained_head(*head)
    _, stream = read_by_heads(text, head[0])
    return attention_pattern(stream, *(weights[name] for name in READS))[0, -1].tolist()


def expect_position(position, weights, name, where):
    expect(
        isinstance(position, int) and not isinstance(position, bool) and 0 <= position < len(weights),
        f"A position is a whole number from 0, which is <bos>, to {len(weights) - 1}, the last word of this text.",
        actual=f"{name} is no position",
        returned=f"{where}: {name} = {position!r}",
    )


def expect_variety(texts, whose):
    endings = Counter(tuple(corpus.words(text)[-3:]) for text in texts)
    ending, n = endings.most_common(1)[0]
    expect(
        n <= len(texts) / 2,
        f"{n} of your {len(texts)} {whose} end with the same words. What they show may be a habit of this sentence: "
        "take others as well.",
        actual="one ending",
        returned=" ".join(ending),
    )


def changes(trial, head):
    """What the model says before and after each of the four changes: <bos> silent, hidden, control and word silent."""
    text, control, other, position = trial
    before = says(text)
    return [
        (before, says(text, head, silent=0)),
        (before, says(text, head, hidden=0)),
        (before, says(text, head, silent=control)),
        (says(other), says(other, head, silent=position)),
    ]


def expect_a_measure(measure, found, control, word):
    """Expect nothing for no change, something for others, little for the control and for a small part of a change."""
    same = [number for (before, _), *_ in found for number in expect_function_of_input(measure, [(before, before)])]
    expect(
        max(map(abs, same)) <= 1e-3 * max(abs(fmean(word)), 1e-6),
        "Your measure does not give 0 where nothing has changed: before and after are the same tensor.",
        actual="not zero",
        returned=f"{max(same, key=abs):.4g}",
        expected="0",
    )
    expect_no_direction(measure, found, abs(fmean(word)))
    expect(
        fmean(control) <= fmean(word) / 4,
        f"Your measure moves with the control, too: {fmean(control):.3g} on average where a word that the head doesn't "
        f"look at is silent, and {fmean(word):.3g} where one is that it looks at.",
        actual="control moves",
        returned=f"{fmean(control):.4g}",
        expected=f"at most {fmean(word) / 4:.4g}",
    )
    pairs = [runs[3] for runs in found]
    slight = expect_function_of_input(
        measure, [(b, torch.logaddexp(b + math.log(0.95), a + math.log(0.05))) for b, a in pairs]
    )
    expect(
        fmean(slight) <= fmean(word) / 4,
        "Your measure hardly tells a twentieth of a change from the whole: it says that something has changed, and not "
        "how much.",
        actual="not graded",
        returned=f"{fmean(slight):.4g} for a twentieth of the change at a word",
        expected=f"at most a quarter of {fmean(word):.4g}, the whole",
    )


def expect_no_direction(measure, found, size):
    """Expect a change to count as one whichever words gain by it, and also where they only change places."""
    turned = [(after, before) for runs in found for before, after in runs]
    lowest = min(expect_function_of_input(measure, [(b, a) for runs in found for b, a in runs] + turned))
    expect(
        lowest >= -1e-3 * size,
        "Your measure is below 0 for some changes: those that raise what others lower. Then changes cancel in the mean "
        "over the trials, though each of them is felt. Measure how large a change is, not in which direction it goes.",
        actual="negative",
        returned=f"{lowest:.4g}",
        expected="at least 0",
    )
    moved = fmean(expect_function_of_input(measure, [(runs[3][0], runs[3][0].flip(0)) for runs in found]))
    expect(
        moved > 1e-3 * size,
        "Your measure gives 0 where all words exchange their probabilities with others. Then something else is "
        "expected, which should be felt: compare word by word.",
        actual="blind to which word",
        returned=f"{moved:.4g} on average for distributions in the reverse order of words",
        expected="more than 0",
    )


def expect_verdict(design):
    fetched, kept_away = (sign(design[f"effect_{name}"]) for name in ("silent", "hidden"))
    follows = "undecided"
    if fetched < 0:
        follows = "source"
    elif fetched > 0 and kept_away:
        follows = "valve" if kept_away > 0 else "rest"
    words = {1: "is above 0", -1: "is below 0", 0: "holds 0"}
    expect(
        design["verdict"] == follows,
        f"Your verdict does not follow from your numbers: the first effect's interval {words[fetched]}, the second's "
        f"{words[kept_away]}.",
        actual=("verdict", design["verdict"], follows),
        returned=repr(design["verdict"]),
        expected=repr(follows),
    )


def sign(effect):
    mean, half_width = effect
    return (mean > half_width) - (mean < -half_width)


def test_the_changes_are_those_that_the_docstring_names():
    """Silent and hidden against a run in which the head's whole pattern and values are written out."""
    text, head = "The Eiffel Tower is located in", (3, 1)
    weights = trained_head(*head)
    _, stream = read_by_heads(text, 3)
    pattern = attention_pattern(stream, *(weights[name] for name in READS))[0, -1]
    assert pattern[0] > 0.9
    before = says(text)
    assert before.argmax().item() == corpus.encode("Paris")[0]
    torch.testing.assert_close(before.exp().sum(), torch.tensor(1.0))
    assert (says(text, head, silent=0) - before).abs().max() > 1e-3
    assert (says(text, head, hidden=0) - before).abs().max() > 10 * (says(text, head, silent=6) - before).abs().max()


@pytest.mark.parametrize(("head", "silent"), [((4, 0), 0), ((3, 4), 0), ((-1, 0), 0), ((3, 1), 7), ((3, 1), -1)])
def test_a_change_that_would_do_nothing_is_refused(head, silent):
    with pytest.raises(IndexError):
        says("The Eiffel Tower is located in", head, silent=silent)


def test_other_heads_give_other_verdicts():
    """The verdict could have been another one: for head 2.2 `<bos>` hands over as much as words do."""
    design = what_a_look_at_bos_is_for()
    assert design["verdict"] == "valve"
    head, measure, fetched = (2, 2), design["measure"], []
    ends = [(text, torch.tensor(at_the_end(text, head, ""))) for text in beginnings(200, seed=0)]
    words_ = [(text, w) for text, w in ends if w.argmax() > 0]
    for text, w in ends:
        if w[0] >= LOOKS:
            other, there = min(words_, key=lambda end: abs(end[1].max() - w[0]))
            after = says(other, head, silent=there.argmax().item())
            fetched.append(measure(says(other), after) / 2 - measure(says(text), says(text, head, silent=0)))
    assert len(fetched) >= 10
    assert fmean(fetched) < 0
