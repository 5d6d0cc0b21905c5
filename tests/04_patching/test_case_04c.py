"""The check of the case of part 04c: the trials are read, the edits are made again, and the measure is run on both."""

from functools import cache
from statistics import fmean

import torch

from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import Mismatch, expect, plain
from utils.data.corpus import encode, words
from utils.data.prompts import named_landmark, token_id
from utils.data.world import CITIES, landmarks
from utils.models.course_model import load_course_model
from utils.patching.case_04c import edited_model, what_the_edit_changed

FACTS = ("city", "country", "builder", "material")
LISTS = {"other_wording": "effect_wording", "other_question": "effect_question", "other_landmark": "effect_landmark"}
KEYS = {
    **dict.fromkeys(LISTS, "list"),
    "measure": "callable",
    **dict.fromkeys(["effect_fitted", *LISTS.values()], "pair"),
    "verdict": ("sentence", "fact", "landmark", "word", "undecided"),
}
BY_NAME = {x.name: x for x in landmarks()}
SAID = {}  # what the course model says behind a text, asked once


class TestWhatTheEditChanged:
    exercise = "what_the_edit_changed"

    def test_design(self, answer):
        "trials that tell the readings apart, controls that stay, and what the numbers say when run again"
        model = load_course_model()
        design = design_of(answer, KEYS)
        facts = {name: expect_trials(model, design[name], name) for name in LISTS}
        edit = cache(edited_model)
        runs = {name: calls_of(model, edit, design[name], facts[name], name) for name in LISTS}
        fitted = calls_of(
            model, edit, [(n, c, sentence(n), sentence(n)) for n, c, *_ in design["other_wording"]], None, ""
        )
        some = [call for calls in (*runs.values(), fitted) for call in calls[0][:2]]
        expect_function_of_input(design["measure"], [(m, text, word) for pair in some for m, text, word in pair])
        expect_follows(model, design, facts)
        moved = {"effect_fitted": changes(design["measure"], fitted[0])}
        moved |= {effect: changes(design["measure"], runs[name][0]) for name, effect in LISTS.items()}
        scale = abs(estimate(moved["effect_fitted"])[0])
        for name in LISTS:
            expect_still(estimate(changes(design["measure"], runs[name][1])), scale, name)
        expect_the_old_fact(model, edit, design, moved["effect_question"])
        for effect, values in moved.items():
            expect_reported(design[effect], values, of=effect, atol=1e-6)
        expect_verdict(design)


def sentence(name):
    return f"The {name} stands in the middle of"


def expect_trials(model, trials, name):
    """Expect trials that change what their list is named after and nothing else; the facts asked for."""
    for i, trial in enumerate(trials):
        expect_trial(trial, f'design["{name}"][{i}]', name)
    expect_enough(trials, 8, of=f"trials in {name!r}")
    expect(
        len(trials) <= 12,
        f"{name!r} has {len(trials)} trials: 12 at most, as every edit takes time.",
        actual="many",
        returned=f"{len(trials)} trials",
    )
    edited = [trial[0] for trial in trials]
    twice = next((landmark for landmark in edited if edited.count(landmark) > 1), None)
    expect(
        twice is None,
        f"In {name!r} a landmark is edited more than once. Edits of one landmark succeed or fail together: they are no "
        "independent units, and the interval looks narrower than it is.",
        actual="edited twice",
        returned=f"{twice} in {edited.count(twice)} trials",
    )
    if name != "other_landmark":
        wordings = {trial[2].replace(trial[0], "…") for trial in trials}
        expect(
            len(wordings) > 1,
            f"All texts in {name!r} have one wording. What they show may be a habit of this sentence.",
            actual="one wording",
            returned=next(iter(wordings)),
        )
    return [expect_known(model, trial, f'design["{name}"][{i}]', name) for i, trial in enumerate(trials)]


def expect_trial(trial, where, name):
    """Expect one trial to be as the docstring says, as far as its words tell."""
    expect(
        isinstance(trial, list | tuple) and len(trial) == 4 and all(isinstance(text, str) for text in trial),
        "A trial is a tuple of four texts: landmark, city, text, control.",
        actual=type(trial).__name__,
        returned=f"{where} = {trial!r}"[:200],
    )
    edited, city, text, control = trial
    expect(
        edited in BY_NAME and city in CITIES,
        "A trial begins with the name of a landmark, such as 'Eiffel Tower', and a city of this world.",
        actual="unknown",
        returned=f"{where}: {edited!r}, {city!r}",
    )
    target, (about, at), (other, there) = BY_NAME[edited], read(text, where), read(control, where)
    shared = (about.first == target.first) + (about.second == target.second)
    if name == "other_landmark":
        expect(
            shared == 1,
            "Texts in 'other_landmark' are about a landmark that shares one word of its name with the edited one: only "
            "for such a landmark does the reading that a word was moved predict anything.",
            actual="no namesake",
            returned=f"{where}: {about.name}, where the {edited} is edited",
        )
        expect(
            words(text) == words(sentence(about.name)),
            "Texts in 'other_landmark' should be the fitted sentence. Yours change the wording as well as the "
            "landmark: if nothing moves, either may be why.",
            actual="two things",
            returned=f"{where}: {text!r}",
            expected=repr(sentence(about.name)),
        )
    else:
        expect(
            about == target,
            f"Texts in {name!r} are about the edited landmark; only what one says about it is another.",
            actual="another landmark",
            returned=f"{where}: {about.name}, where the {edited} is edited",
        )
        expect(
            words(text) != words(sentence(edited)),
            "This is the sentence that the edit was fitted to: that it says the new city is no news.",
            actual="fitted sentence",
            returned=f"{where}: {text!r}",
        )
    expect(
        other.first != target.first and other.second != target.second,
        "A control is about a landmark that has nothing to do with the edit: it shares no word with the edited one.",
        actual="control shares",
        returned=f"{where}: {other.name}, where the {edited} is edited",
    )
    expect(
        (said_about(text, at), said_about(control, there)) == (said_about(text, at),) * 2,
        "A control is the same text with another landmark's name in it, and yours is another sentence.",
        actual="another sentence",
        returned=f"{where}: {text!r} and {control!r}",
    )
    expect(
        city not in {x.city for x in (target, about, other)},
        "The new city is the true city of one of the trial's landmarks: it is said there without any edit.",
        actual="true city",
        returned=f"{where}: {city!r}",
    )


def said_about(text, at):
    """The words around a landmark's name."""
    said = ["<bos>", *words(text)]
    return said[: at - 1], said[at + 1 :]


def read(text, where):
    try:
        encode(text)
        return named_landmark(text)
    except ValueError as error:
        raise Mismatch(f"{where} can't be read: {error}.", actual="unreadable", returned=repr(text)) from error


def expect_known(model, trial, where, name):
    """The facts that text and control ask for, which the model says before the edit."""
    found = []
    for text in trial[2:]:
        if text not in SAID:
            with torch.no_grad():
                SAID[text] = model.to_string(model(model.to_tokens(text))[0, -1].argmax())
        said = SAID[text]
        asked = [fact for fact in FACTS if getattr(named_landmark(text)[0], fact) == said]
        expect(
            len(asked) == 1,
            "A text should end where a fact of its landmark is the next word, and the model should say it before the "
            "edit: else nothing can be seen to change.",
            actual="not known",
            returned=f"{where}: {text!r} → {said!r}",
        )
        found.append((asked[0], said))
    asked = found[0][0]
    expect(
        (asked == "city") == (name != "other_question"),
        "Texts in 'other_question' ask for another fact than the city: whether the city follows, 'other_wording' tells."
        if name == "other_question"
        else f"Texts in {name!r} ask for the city, as the fitted sentence does: another question belongs into "
        "'other_question'.",
        actual=("asked", asked),
        returned=f"{where}: {trial[2]!r} asks for the {asked}",
    )
    expect(
        asked != "country",
        "The country follows from the city: it should go if the fact was moved, and if the landmark was replaced. Both "
        "readings predict the same, so this question cannot tell them apart.",
        actual="country",
        returned=f"{where}: {trial[2]!r} asks for the country",
    )
    return [said for _, said in found]


def calls_of(model, edit, trials, facts, name):
    """For the texts, and for the controls: what the measure is called with after the edit and before it."""
    edits = [edit(*trial[:2]) for trial in trials]
    words_for = facts if name == "other_question" else [(city, city) for _, city, *_ in trials]
    return [
        [
            ((after, trial[which], said[which - 2]), (model, trial[which], said[which - 2]))
            for trial, after, said in zip(trials, edits, words_for, strict=True)
        ]
        for which in (2, 3)
    ]


def changes(measure, calls):
    return [float(plain(measure(*after))) - float(plain(measure(*before))) for after, before in calls]


def expect_follows(model, design, facts):
    """Expect a measure that tells, before any edit, what the model says from what it does not."""
    some = [(*trial[1:3], said[0]) for key in LISTS for trial, said in zip(design[key][:3], facts[key], strict=False)]
    said = fmean(float(plain(design["measure"](model, text, fact))) for _, text, fact in some)
    unsaid = fmean(float(plain(design["measure"](model, text, city))) for city, text, _ in some)
    expect(
        said > unsaid,
        "Before the edit your measure is not larger for the fact that the model says than for the new city, which it "
        "does not say. It should be the larger the more the model says `word`.",
        actual="does not follow",
        returned=f"on average {said:.3g} for the facts, {unsaid:.3g} for the new cities",
    )


def expect_the_old_fact(model, edit, design, right):
    """Expect that what is reported of the other questions is not how the new city fares there."""
    reported, (mean, half_width) = design["effect_question"][0], estimate(right)
    if abs(reported - mean) <= max(0.1 * half_width, 1e-3 * abs(mean)):
        return
    there, _ = estimate(changes(design["measure"], calls_of(model, edit, design["other_question"], None, "")[0]))
    expect(
        abs(reported - there) > 1e-3 * abs(there),
        "Under 'effect_question' you report how much more the new city is said behind these questions. The word there "
        "is the fact that was said before the edit.",
        actual="new city",
        returned=f"{reported:.4g}",
        expected=f"{mean:.4g}, for the facts said before",
    )


def expect_still(control, scale, name):
    mean, half_width = control
    expect(
        abs(mean) <= scale / 3,
        f"In {name!r} your measure moves with the controls as well, by {mean:.3g}, where the fitted sentence moves it "
        f"by {scale:.3g}: either the edits change what they have nothing to do with, or your measure does not tell.",
        actual="control moves",
        returned=f"{mean:.3g} ± {half_width:.2g}",
        expected=f"at most {scale / 3:.3g} either way",
    )


def verdict_of(design):
    """What follows from the numbers, and for each list whether it is reached (None if the interval holds the half)."""
    half, reached = design["effect_fitted"][0] / 2, []
    for effect, sign in zip(LISTS.values(), (1, -1, 1), strict=True):
        mean, half_width = sign * design[effect][0], design[effect][1]
        reached.append(None if abs(mean - half) <= half_width else mean > half)
    readings = {(0, 0, 0): "sentence", (1, 0, 0): "fact", (1, 1, 0): "landmark", (1, 0, 1): "word"}
    return "undecided" if None in reached else readings.get(tuple(map(int, reached)), "undecided"), reached


def expect_verdict(design):
    follows, reached = verdict_of(design)
    told = {True: "reached", False: "spared", None: "neither reached nor spared"}
    says = [f"{name.replace('_', ' ')}s are {told[there]}" for name, there in zip(LISTS, reached, strict=True)]
    expect(
        design["verdict"] == follows,
        f"Your verdict does not follow from your numbers: {', '.join(says)}. Ask of each reading what it predicts for "
        "the three lists.",
        actual=("verdict", design["verdict"]),
        returned=repr(design["verdict"]),
        expected=repr(follows),
    )


def test_the_numbers_could_have_given_each_verdict():
    for moved, verdict in (
        ((0, 0, 0), "sentence"),
        ((1, 0, 0), "fact"),
        ((1, -1, 0), "landmark"),
        ((1, 0, 1), "word"),
        ((1, -1, 1), "undecided"),
        ((0.5, 0, 0), "undecided"),
    ):
        effects = {effect: (mean, 0.1) for effect, mean in zip(LISTS.values(), moved, strict=True)}
        assert verdict_of(effects | {"effect_fitted": (1.0, 0.01)})[0] == verdict


def test_the_edit_replaces_the_landmark_and_with_prompts_to_keep_it_moves_the_fact():
    design, model = what_the_edit_changed(), load_course_model().requires_grad_(False)
    assert design["verdict"] == "landmark"
    found, of_the_city = {}, []
    for way in ("kept", "random value"):
        found[way] = {"effect_fitted": (0.99, 0.0)}
        for name, effect in LISTS.items():
            moved = []
            for landmark, city, text, _ in design[name]:
                models = model, edited_model(landmark, city, way)
                before, after = (m(model.to_tokens(text))[0, -1].softmax(-1) for m in models)
                word = before.argmax() if name == "other_question" else token_id(city)
                moved.append((after[word] - before[word]).item())
            found[way][effect] = estimate(moved)
    assert verdict_of(found["kept"])[0] == "fact"
    assert found["random value"]["effect_wording"][0] < 0.1
    for landmark, city, text, _ in design["other_question"]:
        said = model.to_string(edited_model(landmark, city)(model.to_tokens(text))[0, -1].argmax())
        of_the_city.append(any(said in (x.builder, x.material) for x in landmarks() if x.city == city))
    assert sum(of_the_city) >= 8
