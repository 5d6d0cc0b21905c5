"""The check of the case of part 05a: the texts are read, the measure is tried, and the effects are had again."""

import copy
import math
from functools import cache
from statistics import fmean, stdev

from utils.circuits.case_05a import KIND_OF, what_a_repeat_goes_by
from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import expect
from utils.models.course_model import load_course_model

VERSIONS = ("repeat", "similar", "moved", "unrelated")
EFFECTS = {f"effect_{name}": i for i, name in enumerate(VERSIONS[:3])}
KEYS = {
    "trials": "list",
    "measure": "callable",
    **dict.fromkeys(EFFECTS, "pair"),
    "verdict": ("word", "kind", "distance", "undecided"),
}


@cache
def course_model():
    return load_course_model().requires_grad_(False)


@cache
def without_layer_2():
    """The course model with heads of layer 2 that look everywhere alike."""
    model = copy.deepcopy(course_model())
    for query in (model.blocks[2].attn.W_Q, model.blocks[2].attn.b_Q):
        query.zero_()
    return model


class TestWhatARepeatGoesBy:
    exercise = "what_a_repeat_goes_by"

    def test_design(self, answer):
        "four versions that differ in one thing each, a measure of the answer, and what it says when run again"
        model = course_model()
        design = design_of(answer, KEYS, load_course_model())
        trials = design["trials"]
        for i, trial in enumerate(trials):
            expect_trial(trial, f'design["trials"][{i}]')
        expect_enough([tuple(trial) for trial in trials], 12, of="trials")
        answers = [trial[4] for trial in trials]
        expect(
            len(set(answers)) == len(answers),
            "Two trials share their answer. What the model does with one word it does in both: no second trial.",
            actual="answers again",
            returned=next((word for word in answers if answers.count(word) > 1), ""),
        )
        found = {
            name: expect_function_of_input(design["measure"], [(model, trial[i], trial[4]) for trial in trials])
            for i, name in enumerate(VERSIONS)
        }
        expect(
            not alike(found["repeat"], found["unrelated"]),
            "Behind 'repeat' and behind 'unrelated' your measure is the same in every trial. They differ in their last "
            "word: your measure does not depend on it.",
            actual="not of the last word",
        )
        expect_of_the_answer(model, design["measure"], trials, found["repeat"])
        for key in EFFECTS:
            name = key.removeprefix("effect_")
            effects = [a - b for a, b in zip(found[name], found["unrelated"], strict=True)]
            expect_difference(key, design[key][0], fmean(found[name]), *estimate(effects))
            expect_interval(key, design[key][1], effects)
            expect_reported(design[key], effects, of=key, atol=1e-5)
        expect_found(design, [(without_layer_2(), trial[0], trial[4]) for trial in trials], found["repeat"])
        expect_verdict(design)


def alike(values, others):
    return all(math.isclose(a, b, rel_tol=1e-6, abs_tol=1e-12) for a, b in zip(values, others, strict=True))


def expect_trial(trial, where):
    """Expect one trial to be as the docstring says."""
    expect(
        isinstance(trial, list | tuple) and len(trial) == 5 and all(isinstance(text, str) for text in trial),
        "A trial is a tuple of four texts and the answer, a word.",
        actual="no trial",
        returned=f"{where} = {trial!r}"[:200],
    )
    repeat, similar, moved, unrelated = (text.split() for text in trial[:4])
    answer = trial[4]
    strangers = sorted({word for text in (repeat, similar, moved, unrelated) for word in text} - KIND_OF.keys())
    expect(
        not strangers, "The texts are to consist of words of KIND_OF.", actual="strangers",
        returned=f"{where}: {', '.join(strangers[:3])}",
    )  # fmt: skip
    told = {"returned": f"{where} = {trial!r}"[:400]}
    expect(
        max(map(len, (repeat, similar, moved, unrelated))) <= 30,
        "The texts have more than 30 words. What the heads still find in long texts is another question.",
        actual="too long", **told,
    )  # fmt: skip
    word = repeat[-1] if repeat else ""
    expect(
        repeat[:-1].count(word) == 1 and len(repeat) - 1 - repeat.index(word) >= 2,
        "In 'repeat' the last word has not come exactly once before, at least two words back.",
        actual="no repeat", **told,
    )  # fmt: skip
    at = repeat.index(word)
    expect(
        repeat[at + 1] == answer and repeat.count(answer) == 1,
        "In 'repeat' the answer does not stand, once, behind the word that comes again.", actual="no answer", **told,
    )  # fmt: skip
    for name, text in (("similar", similar), ("unrelated", unrelated)):
        expect(
            text[:-1] == repeat[:-1],
            f"{name!r} should be 'repeat' with another last word, and differs in more. What else differs could be the "
            "reason as well.",
            actual=(name, "differs"), **told,
        )  # fmt: skip
        expect(text[-1] not in repeat, f"The last word of {name!r} has come before.", actual=(name, "has come"), **told)
    kinds = [KIND_OF[w] for w in repeat[:-1]]
    expect(
        KIND_OF[similar[-1]] == KIND_OF[word],
        "The last word of 'similar' is of another kind than the word that it stands for: then nothing is asked about "
        "kinds.",
        actual="not similar", **told,
    )  # fmt: skip
    expect(
        kinds.count(KIND_OF[word]) == 1,
        "There are other words of the repeated word's kind in the text: who goes by kinds would look at what followed "
        "them as well, and you would miss it.",
        actual="kind again", **told,
    )  # fmt: skip
    expect(
        KIND_OF[unrelated[-1]] not in kinds,
        "The last word of 'unrelated' is of a kind that is in the text: who goes by kinds finds something there, and "
        "your baseline is none.",
        actual="related", **told,
    )  # fmt: skip
    expect_moved(repeat, moved, at, told)


def expect_moved(repeat, moved, at, told):
    pair = repeat[at : at + 2]
    rest = repeat[:at] + repeat[at + 2 :]
    there = next((i for i in range(len(moved) - 2) if moved[i : i + 2] == pair), None)
    expect(
        there is not None and moved[:there] + moved[there + 2 :] == rest,
        "In 'moved' the pair of the repeated word and its answer should stand at another place, and all other words in "
        "the order of 'repeat'.",
        actual="not moved", **told,
    )  # fmt: skip
    expect(
        abs(there - at) >= 3,
        "The pair has been moved by less than three words: who counts back a little inexactly would still find it.",
        actual="hardly moved", **told,
    )  # fmt: skip


def expect_of_the_answer(model, measure, trials, found):
    """Expect a measure of this word, and not of what goes on in the text."""

    def further(steps):
        """What the measure says of the word so many behind the answer; behind the last but one, of the first."""
        items = []
        for trial in trials:
            words = trial[0].split()[:-1]
            items.append((model, trial[0], words[(words.index(trial[4]) + steps) % len(words)]))
        return expect_function_of_input(measure, items)

    others = further(1)
    larger = fmean(found) > fmean(others)
    what = "of another word"
    if not larger and alike(found, others):
        what = "of any word"
    elif not larger:
        highest = [one > max(rest) for one, *rest in zip(others, found, *map(further, (2, 3, 4)), strict=True)]
        what = "of the word behind" if fmean(highest) > 0.8 else what
    expect(
        larger,
        "Asked for the word that stands behind the answer, your measure is no smaller: it does not tell whether the "
        "model has found this word.",
        actual=what,
        returned=f"{fmean(found):.3g} for the answer, {fmean(others):.3g} for the word behind it",
    )


def expect_difference(key, said, without, mean, half_width):
    """Expect that the measure of 'unrelated' has been subtracted, where that makes a difference."""
    far = abs(said - mean) > max(0.1 * half_width, 1e-3 * abs(mean), 1e-5)
    expect(
        not (far and math.isclose(said, without, rel_tol=1e-4, abs_tol=1e-5)),
        f"Your {key!r} is the mean of the measure itself, and that of 'unrelated' has not been subtracted.",
        actual="not subtracted",
        returned=f"{key!r}: {said:.6g}",
        expected=f"{key!r}: {mean:.6g} ± {half_width:.6g}",
    )


def expect_interval(key, said, effects):
    """Expect a half-width, and neither of the two numbers that are taken for one."""
    deviation, (_, half_width) = stdev(effects), estimate(effects)
    numbers = {"standard deviation": deviation, "standard error": deviation / len(effects) ** 0.5}
    for what, number in numbers.items():
        expect(
            not (number > 1e-4 and math.isclose(said, number, rel_tol=0.04)),
            f"The half-width of {key!r} is the trials' {what}, and not that of a 95 % interval.",
            actual=what,
            returned=f"{said:.6g}",
            expected=f"{half_width:.6g}",
        )


def expect_found(design, again, found):
    """Expect that the answer is found in 'repeat'; else ask whether layer 2 has to do with the measure at all."""
    mean, half_width = design["effect_repeat"]
    enough = mean > half_width
    elsewhere = not enough and alike(found, expect_function_of_input(design["measure"], again))
    expect(
        enough,
        "Where the word comes again, your measure is not clearly larger than behind an unrelated word: it does not "
        "show that anything has been found, and so nothing can be lost.",
        actual=("nothing found", elsewhere),
        returned=f"{mean:.3g} ± {half_width:.2g}",
    )


def verdict_of(design):
    """What follows from the three effects, and which versions keep the answer."""
    repeat, similar, moved = (design[key] for key in EFFECTS)
    half = repeat[0] / 2
    keeps = tuple(None if abs(mean - half) <= width else mean > half for mean, width in (similar, moved))
    readings = {(False, True): "word", (True, True): "kind", (True, False): "distance"}
    return readings.get(keeps, "undecided"), keeps


def expect_verdict(design):
    follows, keeps = verdict_of(design)
    said = {True: "keeps the answer", False: "loses it", None: "is not clear"}
    expect(
        design["verdict"] == follows,
        "Your verdict does not follow from your numbers: "
        f"similar {said[keeps[0]]}, moved {said[keeps[1]]}. Ask of each reading what it predicts for the two.",
        actual=("verdict", design["verdict"]),
        returned=repr(design["verdict"]),
        expected=repr(follows),
    )


def test_the_numbers_could_have_given_each_verdict():
    for verdict, (similar, moved) in {"word": (0, 1), "kind": (1, 1), "distance": (1, 0), "undecided": (0, 0)}.items():
        numbers = {"effect_repeat": (1.0, 0.1), "effect_similar": (similar, 0.1), "effect_moved": (moved, 0.1)}
        assert verdict_of(numbers)[0] == verdict
    assert (
        verdict_of({"effect_repeat": (1, 0.2), "effect_similar": (0.5, 0.1), "effect_moved": (1, 0)})[0] == "undecided"
    )


def test_the_heads_go_by_the_word():
    design = what_a_repeat_goes_by(course_model())
    assert design["verdict"] == "word" and len(design["trials"]) == 20
    assert design["effect_repeat"][0] > 0.75 and design["effect_moved"][0] > 0.75
    assert abs(design["effect_similar"][0]) < 0.2
