"""The check of the case of part 04b: the pairs are read, the measure is tried, and the swaps are run again."""

import re
from functools import cache
from statistics import fmean

import torch

from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import Mismatch, expect, plain
from utils.data.corpus import words
from utils.data.prompts import ioi_prompts, token_id
from utils.data.world import ADJECTIVES, NAMES, PLACES, THINGS
from utils.models.course_model import load_course_model
from utils.patching.case_04b import gift_of, swap_heads, who_brings_the_name

LISTS = ("other_giver", "other_receiver")
HEAD = [(1, 3)]
LATER = [(layer, head) for layer in (2, 3) for head in range(4)]
EFFECTS = {
    "head_giver": ("other_giver", HEAD),
    "head_receiver": ("other_receiver", HEAD),
    "later_giver": ("other_giver", LATER),
    "later_receiver": ("other_receiver", LATER),
}
PREDICTIONS = {
    "chain": (True, False, True, True),
    "division": (True, False, False, True),
    "disturbance": (False, False, False, False),
}
KEYS = {
    **dict.fromkeys(LISTS, "list"),
    "measure": "callable",
    "control_heads": "list",
    **dict.fromkeys(EFFECTS, "pair"),
    "verdict": (*PREDICTIONS, "undecided"),
}
DRAWN = {word: "*" for kind in (NAMES, PLACES, THINGS, ADJECTIVES) for word in kind}


class TestWhoBringsTheName:
    exercise = "who_brings_the_name"

    def test_design(self, answer):
        "pairs that differ in one word, a measure of who is said, a control, and what the numbers say when run again"
        model = course_model()
        design = design_of(answer, KEYS, load_course_model())
        for name in LISTS:
            expect_pairs(design[name], name)
        expect_control(design["control_heads"])
        ways = {name: Way(model, design["measure"], design[name], name) for name in LISTS}
        for way in ways.values():
            way.expect_a_scale()
        for name, way in ways.items():
            expect_still(way.shares(design["control_heads"]), name)
        for key, (name, heads) in EFFECTS.items():
            expect_reported(design[key], ways[name].shares(heads), of=key, atol=1e-5)
        expect_verdict(design)


def expect_pairs(pairs, name):
    """Expect pairs that differ in one word, the giver's or the receiver's, in unlike sentences of both orders."""
    read = [expect_pair(pair, f'design["{name}"][{i}]', name) for i, pair in enumerate(pairs)]
    expect_enough([tuple(pair) for pair in pairs], 10, of=f"pairs in {name!r}")
    built = [" ".join(re.sub(r"^an$", "a", DRAWN.get(word, word)) for word in words(pair[0])) for pair in pairs]
    expect(
        len(set(built)) == len(built),
        f"In {name!r} several prompts are built alike. What a head does in one sentence it does there with all names: "
        "such prompts are no independent units, and the interval looks narrower than it is.",
        actual=("built alike", len(set(built)) == 1),
        returned=next((text for text in built if built.count(text) > 1), ""),
    )
    receiver_first = sum(prompt.receiver_first for prompt in read)
    expect(
        3 <= receiver_first <= len(read) - 3,
        f"In {name!r} all prompts, or nearly all, have one order of names. A head that fetches whoever is named first "
        "looks, in one order, like one that knows who gives.",
        actual=("one order", receiver_first in (0, len(read))),
        returned=f"{receiver_first} of {len(read)} with the receiver first",
    )


def expect_pair(pair, where, name):
    """Expect one pair to be as the docstring says; who gives and gets in its prompt."""
    expect(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(isinstance(text, str) for text in pair),
        "A pair is a tuple of two texts, prompt and donor.",
        actual="no pair",
        returned=f"{where} = {pair!r}"[:200],
    )
    try:
        prompt, donor = map(gift_of, pair)
    except ValueError as error:
        raise Mismatch(f"{where} can't be read: {error}.", actual="unreadable", returned=repr(pair)) from error
    before, after = map(words, pair)
    changed = [i for i, (a, b) in enumerate(zip(before, after, strict=False)) if a != b]
    expect(
        len(before) == len(after) and len(changed) == 1,
        "Prompt and donor should differ in one word. Where more differs, nobody knows which of it a head carried over.",
        actual=("differ", what_differs(before, after, prompt, donor)),
        returned=f"{where}: {len(changed) if len(before) == len(after) else 'the numbers of'} words of {pair!r}",
    )
    giver = (donor.giver, donor.receiver) == (prompt.receiver, prompt.giver)
    receiver = donor.giver == prompt.giver and donor.receiver != prompt.receiver
    wanted, what = {
        "other_giver": (giver, "the other of the same two people gives"),
        "other_receiver": (receiver, "the same person gives, beside another receiver"),
    }[name]
    expect(wanted, f"In the donors of {name!r} {what}.", actual=name, returned=f"{where} = {pair!r}")
    return prompt


def what_differs(before, after, prompt, donor):
    """What kind of difference there is beyond one word."""
    strangers = not {prompt.giver, prompt.receiver} & {donor.giver, donor.receiver}
    if [word for word in before if word not in NAMES] != [word for word in after if word not in NAMES]:
        return "another scene" if strangers else "other words"
    if strangers:
        return "both people"
    if {prompt.giver, prompt.receiver} == {donor.giver, donor.receiver}:
        return "names moved"
    return "another giver" if donor.giver not in (prompt.giver, prompt.receiver) else "a name and more"


def expect_control(heads):
    good = all(
        isinstance(pair, list | tuple) and len(pair) == 2 and all(type(plain(i)) is int and 0 <= i < 4 for i in pair)
        for pair in heads
    )
    expect(good, "Control heads are pairs (layer, head), both from 0 to 3.", actual="no heads", returned=f"{heads}")
    suspects = [pair for pair in map(tuple, heads) if pair in HEAD + LATER]
    expect(
        not suspects,
        "There are heads under suspicion in your control: a control is to show what swapping does where nobody expects "
        "anything.",
        actual="suspects",
        returned=f"{suspects}",
    )
    expect_enough([tuple(pair) for pair in heads], 4, of="control heads")


@cache
def course_model():
    return load_course_model().requires_grad_(False)


RUNS = {}


def swapped(model, texts, donors, heads):
    """``swap_heads``, run once for the same texts, of which a learner tries several designs in a row.

    The model's weights are always the same: it is the check's own, and nobody else's.
    """
    key = tuple(texts), tuple(donors), tuple(heads)
    if key not in RUNS:
        if len(RUNS) > 100:
            RUNS.clear()
        RUNS[key] = swap_heads(model, texts, donors, heads)
    return RUNS[key].clone()


class Way:
    """For one list the way from the prompt's measure to the donor's, and how far a swap goes on it."""

    def __init__(self, model, measure, pairs, name):
        self.model, self.measure, self.name = model, measure, name
        self.prompts, self.donors = zip(*pairs, strict=True)
        self.own, self.whole = (swapped(model, texts, texts, []) for texts in (self.prompts, self.donors))
        self.said = [(gift_of(d).receiver, gift_of(p).receiver) for p, d in pairs]
        for logits, texts, which in ((self.own, self.prompts, 1), (self.whole, self.donors, 0)):
            for row, text, answers in zip(logits, texts, self.said, strict=True):
                expect(
                    int(row.argmax()) == token_id(answers[which]),
                    "The model does not answer one of your texts with the one who gets the gift; then there is no "
                    "choice of its that a head could be found to make.",
                    actual="not answered",
                    returned=f"{text!r}: {model.to_string(int(row.argmax()))!r}",
                    expected=repr(answers[which]),
                )
        self.start, self.end = self.measured(self.own), self.measured(self.whole)

    def measured(self, logits):
        return expect_function_of_input(
            self.measure, [(row.clone(), *answers) for row, answers in zip(logits, self.said, strict=True)]
        )

    def expect_a_scale(self):
        """Expect a measure that rises with the donor's answer, at half where both are equally likely."""
        expect(
            all(end - start > 1e-6 for start, end in zip(self.start, self.end, strict=True)),
            f"In {self.name!r} your measure is not larger behind the donor than behind the prompt. With the whole "
            "prompt exchanged the donor's answer is said; a measure of it has to show that.",
            actual="no way",
            returned=next(
                (
                    f"{start:.3g} behind {text!r}, {end:.3g} behind the donor"
                    for text, start, end in zip(self.prompts, self.start, self.end, strict=True)
                    if end - start <= 1e-6
                ),
                "",
            ),
        )
        scale = (self.own.logsumexp(-1, keepdim=True) + self.whole.logsumexp(-1, keepdim=True)) / 2
        half = torch.stack([self.own.softmax(-1), self.whole.softmax(-1)]).mean(0).log() + scale
        middle = fmean(self.along(half))
        expect(
            0.25 <= middle <= 0.75,
            "Where both answers are equally likely your measure is not about half-way. A logarithm of one answer's "
            "probability, for example, has gone most of the way when this answer is said one time in ten.",
            actual=("crooked", middle > 0.5),
            returned=f"{middle:.2f} of the way",
            expected="about 0.5",
        )
        others = fmean(share for shift in range(4) for share in self.along(elsewhere(self.model, self.said, shift)))
        expect(
            others <= 0.75,
            "Behind a scene about other people, in which neither answer fits, your measure is nearly where the donor's "
            "answer would bring it: it counts as arriving what is only the prompt's own answer going.",
            actual="counts the own answer",
            returned=f"{others:.2f} of the way",
            expected="at most 0.75",
        )

    def along(self, logits):
        return [(x - a) / (b - a) for x, a, b in zip(self.measured(logits), self.start, self.end, strict=True)]

    def shares(self, heads):
        return self.along(swapped(self.model, self.prompts, self.donors, [tuple(pair) for pair in heads]))


@cache
def other_scenes():
    return [prompt.text for prompt in ioi_prompts(40, 17)]


def elsewhere(model, said, shift):
    """For each pair the logits behind a scene about two other people."""
    scenes, texts = other_scenes(), []
    for i, names in enumerate(said):
        free = [text for text in scenes if not set(names) & set(words(text))]
        texts.append(free[(5 * i + 7 * shift) % len(free)])
    return swapped(model, texts, texts, [])


def expect_still(shares, name):
    mean, half_width = estimate(shares)
    expect(
        mean <= 0.25,
        f"In {name!r} your control moves as well: what the suspects do is then nothing of theirs.",
        actual="control moves",
        returned=f"{mean:.2f} ± {half_width:.2g} of the way",
        expected="at most 0.25",
    )


def verdict_of(design):
    """The one reading that predicts for all four shares whether the donor's answer comes."""
    comes = tuple(
        None if abs(mean - 0.5) <= half_width else mean > 0.5 for mean, half_width in (design[key] for key in EFFECTS)
    )
    return next((reading for reading, predicted in PREDICTIONS.items() if predicted == comes), "undecided"), comes


def expect_verdict(design):
    follows, comes = verdict_of(design)
    said = {True: "the donor's answer comes", False: "it does not", None: "it is not clear"}
    expect(
        design["verdict"] == follows,
        "Your verdict does not follow from your numbers: "
        + "; ".join(f"{key}: {said[value]}" for key, value in zip(EFFECTS, comes, strict=True))
        + ". Ask of each reading what it predicts for the four.",
        actual=("verdict", design["verdict"]),
        returned=repr(design["verdict"]),
        expected=repr(follows),
    )


def test_the_numbers_could_have_given_each_verdict():
    for verdict, predicted in PREDICTIONS.items():
        assert verdict_of({key: (float(x), 0.1) for key, x in zip(EFFECTS, predicted, strict=True)})[0] == verdict
    assert verdict_of(dict.fromkeys(EFFECTS, (0.5, 0.1)))[0] == "undecided"


def test_the_head_decides_and_the_later_heads_bring_the_names():
    model = load_course_model().requires_grad_(False)
    design = who_brings_the_name(model)
    assert design["verdict"] == "division"
    assert design["head_giver"][0] > 0.9 and design["later_receiver"][0] > 0.9
    assert abs(design["head_receiver"][0]) < 0.1 and design["later_giver"][0] < 0.4
    way = Way(model, lambda x, a, b: (x[token_id(a)] - x[token_id(b)]).item(), design["other_giver"], "other_giver")
    assert 0.2 < fmean(way.shares(LATER)) < 0.5
