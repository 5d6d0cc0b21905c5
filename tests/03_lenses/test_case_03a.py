"""The check of the case of part 03a: the trials are read, and the design is run again on streams of our own."""

from functools import cache
from statistics import fmean

import pytest
import torch

from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import Mismatch, expect
from utils.data.corpus import encode, words
from utils.data.prompts import named_landmark, token_id
from utils.data.world import landmarks
from utils.lenses.case_03a import what_the_end_holds
from utils.lenses.stream import logit_lens, residual_stack
from utils.models.course_model import load_course_model

LISTS, FACTS = ("landmark", "question"), ("city", "country", "builder", "material")
KEYS = {
    "landmark": "list",
    "question": "list",
    "measure": "callable",
    "effect_landmark": "pair",
    "effect_question": "pair",
    "verdict": ("word", "question", "answer", "undecided"),
}
BEHIND_LAYER_1, LAST = 2, -1


class TestWhatTheEndHolds:
    exercise = "what_the_end_holds"

    def test_design(self, answer):
        "trials that tell the readings apart, a measure that sees the answer, and what the numbers say when run again"
        model = load_course_model()
        design = design_of(answer, KEYS, model)
        streams = {}
        for name in LISTS:
            expect_trials(model, design[name], name, streams)
        sites = [(name, site) for name in LISTS for site in (LAST, BEHIND_LAYER_1)]
        run = {(name, site): effects(model, design, name, streams, site) for name, site in sites}
        for name in LISTS:
            expect_seen_at_the_end(run[name, LAST][0], name)
        expect_still(*run["landmark", LAST], "behind the last layer, in 'landmark'")
        expect_still(*run["question", BEHIND_LAYER_1], "behind layer 1, in 'question'")
        expect_site(model, design, {name: run[name, BEHIND_LAYER_1][0] for name in LISTS}, streams)
        for name in LISTS:
            expect_reported(design[f"effect_{name}"], run[name, BEHIND_LAYER_1][0], of=f"effect_{name}")
        expect_verdict(design, *(run[key][0] for key in (("landmark", 2), ("question", 2), ("landmark", LAST))))


def expect_trials(model, trials, name, streams):
    """Expect trials that differ from each other, and in each two texts that differ as the list's name says.

    ``streams`` is filled: the stream at each text's last word, by site.
    """
    expect_enough(trials, 10, of=f"trials in {name!r}")
    named, wordings = [], set()
    for i, trial in enumerate(trials):
        where = f'design["{name}"][{i}]'
        expect(
            isinstance(trial, list | tuple) and len(trial) == 4 and all(isinstance(part, str) for part in trial),
            "A trial is a tuple of two texts and two words: text, other, answer, control.",
            actual=type(trial).__name__,
            returned=f"{where} = {trial!r}"[:200],
        )
        texts = [read(text, where) for text in trial[:2]]
        expect_same_ending(texts, where)
        streams |= {text: at_the_end(text) for text in trial[:2]}
        kinds = [asked(model, streams[text][LAST], *told) for text, told in zip(trial[:2], texts, strict=True)]
        if name == "landmark":
            expect_another_landmark(texts, kinds[0], trial, where)
        else:
            expect_another_question(texts, kinds, trial, where)
        named.append(texts[0][0])
        wordings.add(tuple(without_name(*texts[0])))
    twice = next((landmark.name for landmark in named if named.count(landmark) > 1), None)
    expect(
        twice is None,
        f"In {name!r} a landmark has several texts. What the model knows of it is right or wrong for all of them "
        "together: they are no independent units, and the interval looks narrower than it is.",
        actual=("several texts", name),
        returned=f"{twice} is named by more than one 'text'",
    )
    expect(
        len(wordings) > 1,
        f"All your texts in {name!r} have one wording. What they show may be a habit of this sentence.",
        actual=("one wording", name),
        returned=" ".join(next(iter(wordings))),
    )


@cache
def at_the_end(text):
    """The stream at a text's last word, by site; a check's own model, so that it is the same for every answer."""
    model = own_model()
    return residual_stack(model, model.to_tokens(text))[:, 0, -1]


@cache
def own_model():
    return load_course_model()


def read(text, where):
    """The landmark that a text names, the place of its name's last word, and all words behind `<bos>`."""
    try:
        encode(text)
        return (*named_landmark(text), words(text))
    except ValueError as error:
        raise Mismatch(f"{where} can't be read: {error}.", actual="unreadable", returned=repr(text)) from error


def without_name(_, last, said):
    return [*said[: last - 2], "…", *said[last:]]


def expect_same_ending(texts, where):
    said = [words_ for _, _, words_ in texts]
    shown = " / ".join(" ".join(words_) for words_ in said)
    expect(
        said[0][-1] == said[1][-1],
        "The two texts of a trial end in different words. Then 'word' predicts another reading, too, and a difference "
        "tells nothing about what came before.",
        actual="last word",
        returned=f"{where}: {shown}",
    )
    expect(
        len(said[0]) == len(said[1]),
        "The last words of a trial's two texts stand at different positions, and the position is added to the stream "
        "like the word: 'word' predicts another reading, too.",
        actual="position",
        returned=f"{where}: {shown}",
    )


def asked(model, end, landmark, _, said):
    """The kind of fact with which the model goes on."""
    with torch.no_grad():
        next_ = model.to_string(logit_lens(model, end).argmax())
    found = [kind for kind in FACTS if getattr(landmark, kind) == next_]
    expect(
        found,
        "A text should break off where a fact of its landmark is due, and the model should know it: here it goes on "
        "with something else, and there is no answer that a lens could find early.",
        actual="no fact is due",
        returned=f"{' '.join(said)!r} goes on with {next_!r}",
        expected=f"{landmark.city}, {landmark.country}, {landmark.builder} or {landmark.material}",
    )
    return found[0]


def expect_another_landmark(texts, kind, trial, where):
    (x, _, _), (y, _, _) = texts
    expect(
        x != y,
        "Both texts of a trial in 'landmark' name the same landmark.",
        actual="same landmark",
        returned=f"{where}: {trial[0]!r} and {trial[1]!r}",
    )
    expect(
        without_name(*texts[0]) == without_name(*texts[1]),
        "The two texts of a trial in 'landmark' differ in more than the landmark: what changes may come from the other "
        "words.",
        actual="other words",
        returned=f"{where}: {trial[0]!r} and {trial[1]!r}",
    )
    right = getattr(x, kind)
    expect_answer(trial[2], right, where)
    expect(
        getattr(y, kind) != right,
        "The answer is true of both landmarks: no reading predicts that the lens speaks more for it with the one.",
        actual="shared answer",
        returned=f"{where}: {right!r} for {x.name} and {y.name}",
    )
    expect(
        trial[3] not in (right, getattr(y, kind)),
        "The control is the right answer to one of the two texts. It moves for the same reason as the answer; a "
        "control is a word for which nothing should change.",
        actual="control is an answer",
        returned=f"{where}: {trial[3]!r}",
    )
    expect(
        trial[3] in words_of(kind),
        f"The control in 'landmark' should be of the answer's kind, here a {kind}: a word of another kind stays low "
        "with both texts, whatever your measure counts.",
        actual="control of another kind",
        returned=f"{where}: {trial[3]!r}",
    )


def expect_another_question(texts, kinds, trial, where):
    x, y = (landmark for landmark, _, _ in texts)
    expect(
        x == y,
        "The two texts of a trial in 'question' name different landmarks: the question and the landmark change "
        "together, and nobody can say which of them the reading follows.",
        actual="another landmark",
        returned=f"{where}: {trial[0]!r} and {trial[1]!r}",
    )
    expect(
        kinds[0] != kinds[1],
        f"Both texts of a trial in 'question' ask for the same thing, the {kinds[0]}: what changes is the wording.",
        actual="same question",
        returned=f"{where}: {trial[0]!r} and {trial[1]!r}",
    )
    expect_answer(trial[2], getattr(x, kinds[0]), where)
    third = [getattr(x, kind) for kind in FACTS if kind not in kinds]
    expect(
        trial[3] in third,
        "The control in 'question' should be a fact of the landmark that neither text asks for: for it nothing should "
        "change.",
        actual="control of no third kind",
        returned=f"{where}: {trial[3]!r}",
        expected=" or ".join(third),
    )


def expect_answer(said, right, where):
    expect(
        said == right,
        "The answer of a trial is the word with which the model goes on behind its first text.",
        actual="not the answer",
        returned=f"{where}: {said!r}",
        expected=repr(right),
    )


def words_of(kind):
    return {getattr(x, kind) for x in landmarks()}


def effects(model, design, name, streams, site, control=True):
    """Each trial's effect at a site, for the answer and for the control."""
    found = []
    for word in (2, 3) if control else (2,):
        calls = [(model, streams[text][site], trial[word]) for trial in design[name] for text in trial[:2]]
        values = expect_function_of_input(design["measure"], calls)
        found.append([here - there for here, there in zip(values[::2], values[1::2], strict=True)])
    return found


def expect_seen_at_the_end(moved, name):
    seen = sum(effect > 0 for effect in moved)
    expect(
        any(moved),
        f"Behind the last layer your measure gives the same number for both texts in every trial of {name!r}. Does it "
        "look at the stream that it is given?",
        actual=("no effect at the end", name),
        returned="0 for every effect",
    )
    expect(
        seen >= 0.9 * len(moved),
        f"Behind the last layer the model says the answer, and with your measure only {seen} of {len(moved)} trials in "
        f"{name!r} show it. A measure that can't see the answer where it is proves nothing where it sees none.",
        actual=("not seen at the end", name, seen),
        returned=f"{seen} of {len(moved)} effects above 0",
        expected="nine of ten at least",
    )


def expect_site(model, design, found, streams):
    """Expect that what is reported, where it is not what the stream behind layer 1 gives, is not another site's."""
    if all(is_reported(design[f"effect_{name}"], found[name]) for name in LISTS):
        return
    for site in range(len(next(iter(streams.values())))):
        there = {name: effects(model, design, name, streams, site, control=False)[0] for name in LISTS}
        where = f"behind layer {site - 1}" if site else "before layer 0"
        expect(
            site == BEHIND_LAYER_1 or not all(is_reported(design[f"effect_{name}"], there[name]) for name in LISTS),
            f"Your numbers are those of the stream {where}, and the question is about the stream behind layer 1.",
            actual=("site", site),
            returned=f"{where}: " + ", ".join("{:.3g} ± {:.2g}".format(*estimate(there[name])) for name in LISTS),
            expected="behind layer 1: " + ", ".join("{:.3g} ± {:.2g}".format(*estimate(found[name])) for name in LISTS),
        )


def is_reported(said, values):
    try:
        expect_reported(said, values)
    except Mismatch:
        return False
    return True


def expect_still(moved, control, where):
    mean, half = estimate(control)
    expect(
        mean < fmean(moved) or mean - half <= 0,
        f"Your control moves as much as the answer, {where}: by {mean:.3g}, and the answer by {fmean(moved):.3g}. What "
        "your measure shows of the answer, it shows of a word that is not due as well.",
        actual=("control moves", where),
        returned=f"{mean:.3g} ± {half:.2g} for the control",
        expected="less than the answer, or no clear rise",
    )


def verdict_of(by_landmark, by_question, at_the_end):
    (mean, half), (asked_mean, asked_half) = estimate(by_landmark), estimate(by_question)
    least = fmean(at_the_end) / 10
    if max(map(abs, [*by_landmark, *by_question])) < 1e-6:
        return "word"
    if mean - half > least:
        return "answer"
    return "question" if mean + half < least and asked_mean - asked_half > 0 else "undecided"


def expect_verdict(design, by_landmark, by_question, at_the_end):
    follows = verdict_of(by_landmark, by_question, at_the_end)
    (mean, half), (asked_mean, asked_half) = estimate(by_landmark), estimate(by_question)
    expect(
        design["verdict"] == follows,
        f"Your verdict does not follow from your numbers. Another landmark changes the reading by {mean:.3g} ± "
        f"{half:.2g}, where a tenth of what it does behind the last layer is {fmean(at_the_end) / 10:.3g}; another "
        f"question changes it by {asked_mean:.3g} ± {asked_half:.2g}.",
        actual=("verdict", design["verdict"]),
        returned=repr(design["verdict"]),
        expected=repr(follows),
    )


@pytest.fixture(scope="module")
def model():
    return load_course_model()


def test_the_reading_is_the_word_then_the_question_then_the_answer(model):
    """The same trials and the same measure give each of the three verdicts, at one site or another."""
    design = what_the_end_holds(model)
    streams = {
        text: residual_stack(model, model.to_tokens(text))[:, 0, -1]
        for name in LISTS
        for trial in design[name]
        for text in trial[:2]
    }
    by_list = {site: [effects(model, design, name, streams, site)[0] for name in LISTS] for site in (0, 2, 3, 4)}
    found = {site: verdict_of(*moved, by_list[4][0]) for site, moved in by_list.items()}
    assert found == {0: "word", 2: "question", 3: "answer", 4: "answer"}
    assert design["verdict"] == "question"
    assert design["effect_landmark"][0] == pytest.approx(0, abs=0.2)
    assert design["effect_question"][0] == pytest.approx(4, abs=1)


def test_undecided_is_what_the_numbers_say_when_the_interval_holds_the_tenth():
    wide = [-2.0, 4.0] * 5
    assert verdict_of(wide, [3.0, 4.0] * 5, [10.0] * 10) == "undecided"
    assert verdict_of([0.0, 0.1] * 5, wide, [10.0] * 10) == "undecided"


def test_behind_layer_1_the_same_cities_stand_on_top_whatever_the_landmark(model):
    tops = []
    for name in ("The Eiffel Tower", "The Lion Museum", "The Silver Theatre"):
        stream = residual_stack(model, model.to_tokens(f"{name} is located in"))[BEHIND_LAYER_1, 0, -1]
        with torch.no_grad():
            tops.append(sorted(model.unembed(model.ln_final(stream)).topk(3).indices.tolist()))
    assert tops == [sorted(map(token_id, ("Cork", "Paris", "Dublin")))] * 3


def test_a_control_that_rises_with_the_answer_is_told():
    with pytest.raises(Mismatch, match="Your control moves as much"):
        expect_still([1.0, 1.2] * 5, [1.1, 1.3] * 5, "behind the last layer")
