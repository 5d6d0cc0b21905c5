"""The check of the case of part 05a: the texts are read, the measure is tried, and the effects are had again."""

from functools import cache
from statistics import fmean

from utils.circuits.case_05a import KIND_OF, what_a_repeat_goes_by
from utils.course.cases import design_of, expect_enough, expect_function_of_input, expect_reported
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
        expect_of_the_answer(model, design["measure"], trials, found["repeat"])
        for key in EFFECTS:
            name = key.removeprefix("effect_")
            effects = [a - b for a, b in zip(found[name], found["unrelated"], strict=True)]
            expect_reported(design[key], effects, of=key, atol=1e-5)
        mean, half_width = design["effect_repeat"]
        expect(
            mean > half_width,
            "Where the word comes again, your measure is not clearly larger than behind an unrelated word: it does not "
            "show that anything has been found, and so nothing can be lost.",
            actual="nothing found",
            returned=f"{mean:.3g} ± {half_width:.2g}",
        )
        expect_verdict(design)


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
    behind = [text[text.index(trial[4]) + 1] for trial in trials for text in [trial[0].split()]]
    others = expect_function_of_input(
        measure, [(model, trial[0], other) for trial, other in zip(trials, behind, strict=True)]
    )
    expect(
        fmean(found) > fmean(others),
        "Asked for the word that stands behind the answer, your measure is no smaller: it does not tell whether the "
        "model has found this word.",
        actual="of any word",
        returned=f"{fmean(found):.3g} for the answer, {fmean(others):.3g} for the word behind it",
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
