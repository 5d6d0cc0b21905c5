"""The check of the case of part 02c: the people in every trial are read anew, and the design is run again."""

import copy
from functools import cache

import torch

from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported, lent
from utils.course.checking import Mismatch, expect, plain
from utils.data.corpus import words
from utils.data.prompts import giving_roles
from utils.data.world import ADJECTIVES, ANIMALS, JOBS, NAMES, PLACES, THINGS
from utils.models.course_model import checkpoint_steps
from utils.transformer.case_02c import course_transformer, what_it_knows_of_the_receiver

ASKED = ("people", "giver")
KEYS = {
    **dict.fromkeys((*ASKED, "control"), "list"),
    "measure": "callable",
    **{f"{whose}_{name}": "pair" for whose in ("effect", "finished") for name in ASKED},
    "verdict": ("name", "said", "receiver", "undecided"),
}
READINGS = {(False, False): "name", (True, False): "said", (True, True): "receiver"}
PEOPLE = (*NAMES, *JOBS)
MASKED = {
    word: mark
    for mark, kind in (("person", PEOPLE), ("place", PLACES), ("thing", (*THINGS, *ANIMALS)), ("", ADJECTIVES))
    for word in kind
}


class TestWhatItKnowsOfTheReceiver:
    exercise = "what_it_knows_of_the_receiver"

    def test_design(self, answer):
        "trials that change one thing each, a measure of what is expected, and what the numbers say when run again"
        model, finished, *deaf = models()
        with lent(model, finished, *deaf):
            design = design_of(answer, KEYS, model, finished)
            for name in (*ASKED, "control"):
                expect_trials(design[name], name)
            measure = design["measure"]
            expect_function_of_input(measure, [(model, t[0], t[2]) for name in ASKED for t in design[name][:3]])
            expect_of_the_model(measure, deaf, design)
            ours, theirs = (
                {name: effects(measure, which, design[name]) for name in ASKED} for which in (model, finished)
            )
            control = effects(measure, model, design["control"])
        expect_a_control_that_can_move(theirs)
        expect_at_rest(control, estimate(theirs["people"])[0])
        for name in ASKED:
            expect_reported(design[f"effect_{name}"], ours[name], of=f"effect_{name}")
            expect_reported(design[f"finished_{name}"], theirs[name], of=f"finished_{name}")
        expect_verdict(design)


@cache
def models():
    """The model that the question is about, the finished one, and three that expect the same behind every text."""
    model, finished = course_transformer(2000), course_transformer()
    kinds = ({"spread": 0}, {"spread": 24}, {"spread": 24, "louder": True})
    return model, finished, *(without_ears(finished, **kind) for kind in kinds)


def without_ears(finished, spread, louder=False):
    """A model with the same probabilities behind every text; ``louder`` adds a number of its own to a text's logits."""
    deaf = copy.deepcopy(finished)
    d_vocab = deaf.unembed["W_U"].zero_().shape[1]
    generator = torch.Generator().manual_seed(0)
    eighths = torch.randint(-spread, spread + 1, (d_vocab,), generator=generator) / 8  # exact, also moved

    def forward(tokens):
        level = (tokens.cumsum(-1) % 29 / 4)[..., None] if louder else torch.zeros(*tokens.shape, 1)
        return eighths + level

    deaf.forward = forward
    return deaf


def expect_trials(trials, name):
    for i, trial in enumerate(trials):
        expect_trial(trial, f'design["{name}"][{i}]', name)
    expect_enough(trials, 12, of=f"trials in {name!r}")
    expect(
        len({template(text) for trial in trials for text in trial[:2]}) > 1,
        f"All your trials in {name!r} are one sentence with other people and things in it. What they show may be a "
        "habit of this sentence: take at least two templates.",
        actual=("one template", name),
        returned=" ".join(template(trials[0][0])),
    )


def template(text):
    return tuple(mark for word in words(text) if (mark := MASKED.get(word, word)))


def expect_trial(trial, where, name):
    """Expect one trial to be as the docstring says."""
    expect(
        isinstance(trial, list | tuple) and len(trial) == 3 and all(isinstance(text, str) for text in trial),
        "A trial is a tuple of three texts: a text, the changed text, and the person who is asked about.",
        actual=("tuple", type(trial).__name__),
        returned=f"{where} = {trial!r}"[:200],
    )
    *texts, person = trial
    before, after = (read(text, where) for text in texts)
    told = f"{where}: {texts[0]!r}, {texts[1]!r}, {person!r}"
    expect(
        person in before.said and person != before.giver,
        "The answer of a trial is somebody who is said in the first text and does not give there: the one who could "
        "receive. Turn the trial around, or ask about another.",
        actual=("answer", name, person in before.said),
        returned=told,
    )
    if name == "control":
        expect_control(texts, [before, after], told)
        return
    expect(
        without_people(texts[0]) == without_people(texts[1]),
        f"The two texts of a trial in {name!r} differ in other words than their people. A change of the measure may be "
        "due to those.",
        actual=("other words", name),
        returned=told,
    )
    if name == "people":
        expect(
            before.giver == after.giver,
            "In a trial of 'people' another person gives in the changed text. Then 'receiver' has a reason of its own "
            "to predict a change, and 'said' another.",
            actual="people: giver changes",
            returned=told,
        )
        expect(
            person not in after.said,
            "In a trial of 'people' the answer is said in the changed text, too: nothing has changed that 'said' is "
            "about.",
            actual="people: still said",
            returned=told,
        )
    else:
        expect(
            before.said.keys() == after.said.keys(),
            "In a trial of 'giver' other people are said in the changed text. Then 'said' predicts the effect as well "
            "as 'receiver' does, and it can't tell them apart.",
            actual=("giver: people change", before.said.keys() < after.said.keys()),
            returned=told,
        )
        expect(
            after.giver == person,
            "In a trial of 'giver' the answer gives in the changed text: then he can't be the one who receives there, "
            "and 'receiver' predicts that the model lets go of him.",
            actual="giver: answer",
            returned=told,
        )


def expect_control(texts, roles, told):
    expect(
        texts[0] != texts[1],
        "Your control changes nothing at all, so it can't move.",
        actual="no control",
        returned=told,
        expected="two texts that differ",
    )
    kinds = (roles[0].said.keys() == roles[1].said.keys(), roles[0].giver == roles[1].giver)
    people = [[word for word in words(text) if word in PEOPLE] for text in texts]
    expect(
        people[0] == people[1],
        "Your control changes the people, or their order. A control is a change by which no reading predicts anything: "
        "the place, the thing, an adjective.",
        actual=("control changes people", *kinds),
        returned=told,
    )


def without_people(text):
    return [None if word in PEOPLE else word for word in words(text)]


def read(text, where):
    """The roles in a text that ends where the receiver comes, and has one giver."""
    try:
        roles = giving_roles(text)
    except ValueError as error:
        raise Mismatch(f"{where} can't be read: {error}.", actual="unreadable", returned=repr(text)) from error
    expect(
        words(text)[-1] == "to",
        'A text ends with "to", where the receiver\'s name comes next.',
        actual="end",
        returned=f"{where}: {text!r}",
    )
    expect(
        roles.giver is not None,
        "Nobody gives in one of your texts, or it is not clear who. Without a giver 'receiver' says nothing about it.",
        actual="no giver",
        returned=f"{where}: {text!r}",
    )
    return roles


def effects(measure, model, trials):
    """A list's effects, trial by trial."""
    found = []
    for text, changed, person in trials:
        before, after = (plain(measure(model, x, person)) for x in (text, changed))
        found.append(float(before) - float(after))
    return found


def expect_of_the_model(measure, deaf, design):
    told = (
        "Your measure moves even for a model that expects every word alike: it reads the texts, and not what the model "
        "expects behind them.",
        "Your measure moves even for a model that expects the same behind every text: it depends on the text by "
        "another way than what the model expects there.",
        "Your measure moves where all logits behind a text rise or fall together. That changes no probability, and so "
        "nothing that is expected: a logit says something beside the others only, as in a softmax.",
    )
    for model, note, what in zip(deaf, told, ("not the model", "another way", "the level of logits"), strict=True):
        largest = max(abs(x) for name in ASKED for x in effects(measure, model, design[name]))
        expect(largest < 1e-4, note, actual=what, returned=f"an effect of {largest:.3g}", expected="0")


def expect_a_control_that_can_move(theirs):
    for name, values in theirs.items():
        mean, half = estimate(values)
        told = {"returned": f"{mean:.3g} ± {half:.2g} in the finished model"}
        expect(
            mean + half >= 0,
            f"In the finished model your measure rises in {name!r} where the answer should be given up. It should be "
            "the larger, the more the model expects the answer: turn its sign.",
            actual=("sign", name),
            **told,
        )
        expect(
            mean - half > 0,
            f"The finished model knows who receives, and yet nothing moves in {name!r} there. Whatever another model "
            "does with these trials and this measure, a 0 would not show what it does not know.",
            actual=("no positive control", name),
            **told,
        )


def expect_at_rest(control, most):
    mean, half = estimate(control)
    expect(
        abs(mean) + half < most / 10,
        f"Your control moves as well, by {mean:.3g} ± {half:.2g}. No reading predicts that: the measure answers to "
        "something else that your texts differ in.",
        actual=("control moves", mean > 0),
        returned=f"{mean:.3g} ± {half:.2g}",
        expected=f"all of the interval within ±{most / 10:.3g}",
    )


def follows(design):
    """The verdict that the design's four numbers give, and what is said of each list."""
    there = {}
    for name in ASKED:
        (mean, half), limit = design[f"effect_{name}"], design[f"finished_{name}"][0] / 10
        there[name] = True if mean - half > limit else False if mean + half < limit else None
    return READINGS.get((there["people"], there["giver"]), "undecided"), there


def expect_verdict(design):
    verdict, there = follows(design)
    says = {True: "is there", False: "is not there", None: "is open"}
    told = " and ".join(f"the effect of {name!r} {says[found]}" for name, found in there.items())
    expect(
        design["verdict"] == verdict,
        f"Your verdict does not follow from your numbers: {told}.",
        actual=("verdict", design["verdict"], verdict),
        returned=repr(design["verdict"]),
        expected=repr(verdict),
    )


def test_the_verdict_could_have_been_another_one():
    """Our design on other checkpoints: who receives comes last, and fresh weights know nothing."""
    finished, verdicts, found = course_transformer(), {}, {}
    for step in (1000, 2000, 6000, 6800):
        assert step in checkpoint_steps()
        design = what_it_knows_of_the_receiver(course_transformer(step), finished)
        verdicts[step], found[step] = design["verdict"], design
    assert [verdicts[step] for step in (2000, 6000, 6800)] == ["said", "said", "receiver"]
    people = [found[step]["effect_people"][0] for step in (1000, 2000, 6000, 6800)]
    assert people == sorted(people)
    untrained = copy.deepcopy(finished)
    generator = torch.Generator().manual_seed(0)
    for name, weight in untrained.named_parameters():
        if ".W_" in name or name.startswith(("embed", "unembed", "pos_embed")):
            weight.copy_(0.02 * torch.randn(weight.shape, generator=generator))
    assert what_it_knows_of_the_receiver(untrained, finished)["verdict"] == "name"
