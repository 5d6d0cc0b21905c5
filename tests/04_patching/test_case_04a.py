"""The check of the case of part 04a: the trials are read, the patch is watched, and the design is run again."""

import contextlib
from pathlib import Path
from statistics import fmean

import torch

from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import Mismatch, expect, plain
from utils.course.paths import load_file
from utils.data.corpus import encode, words
from utils.data.prompts import named_landmark, token_id
from utils.models.course_model import load_course_model
from utils.patching.case_04a import what_the_last_word_carries

common = load_file(Path(__file__).with_name("common.py"))
hooks_on, kept, replaced = common.hooks_on, common.kept, common.replaced

VERDICTS = ("landmark", "city", "word", "undecided")
KEYS = {
    "same_city": "list",
    "same_word": "list",
    "measure": "callable",
    "effect_same_city": "pair",
    "effect_same_word": "pair",
    "verdict": VERDICTS,
}
FACTS = ("city", "country", "builder", "material")
SHARED = {"same_city": ("city", "stand in one city"), "same_word": ("second", "share the second word of their names")}
STREAM = "blocks.1.hook_resid_post"


class TestWhatTheLastWordCarries:
    exercise = "what_the_last_word_carries"

    def test_design(self, answer):
        "trials that tell the readings apart, the patch that is asked for, and what the numbers say when run again"
        model = load_course_model()
        design = design_of(answer, KEYS, model)
        for name in SHARED:
            expect_trials(design[name], name)
            expect_known(model, design[name])
        for name in SHARED:
            for trial in (design[name][0], design[name][-1]):
                expect_the_patch(model, design["measure"], trial)
        moved = {name: run_again(model, design["measure"], design[name], name) for name in SHARED}
        left = hooks_on(model)
        expect(not left, "Your measure leaves hooks on the model: every later run is changed by them.", actual="hooks")
        for name in SHARED:
            expect_reported(design[f"effect_{name}"], moved[name])
        expect_verdict(design)


def expect_trials(trials, name):
    """Expect trials that differ from each other and in which only the landmark differs, as the list's name says."""
    landmarks_of = [expect_trial(trial, f'design["{name}"][{i}]', name) for i, trial in enumerate(trials)]
    expect_enough(trials, 10, of=f"trials in {name!r}")
    prompted = [prompt for prompt, _, _ in landmarks_of]
    expect(
        len(set(prompted)) == len(prompted),
        f"In {name!r} a landmark has several prompts. Answers about one landmark are right or wrong together: they are "
        "no independent units, and the interval looks narrower than it is.",
        actual="several prompts",
    )
    wordings = {trial[0].replace(x.name, "…") for trial, x in zip(trials, prompted, strict=True)}
    expect(
        len(wordings) > 1,
        f"All your prompts in {name!r} have one wording. What they show may be a habit of this sentence.",
        actual="one wording",
        returned=next(iter(wordings)),
    )


def expect_trial(trial, where, name):
    """Expect one trial to be as the docstring says; the landmarks of its prompt, donor and control."""
    expect(
        isinstance(trial, list | tuple) and len(trial) == 4 and all(isinstance(text, str) for text in trial),
        "A trial is a tuple of four texts: prompt, donor, control, answer.",
        actual=type(trial).__name__,
        returned=f"{where} = {trial!r}"[:200],
    )
    (prompt, at), (donor, _), (control, _) = named = [read(text, where) for text in trial[:3]]
    before = [words(text)[: place - 2] for text, (_, place) in zip(trial[:3], named, strict=True)]
    expect(
        before[0] == before[1] == before[2],
        "Prompt, donor and control should be alike before the name: else the stream brings along where in the text it "
        "stood and what it had read, beside the landmark.",
        actual="before the name",
        returned=f"{where} = {trial!r}",
    )
    expect(donor != prompt, "A prompt and its donor are about the same landmark: the patch changes nothing.", actual=1)
    attribute, what = SHARED[name]
    expect(
        getattr(donor, attribute) == getattr(prompt, attribute),
        f"Prompt and donor in {name!r} should {what}. Where they do not, the reading that this list is to test has "
        "something to carry from one to the other, too, and an effect tells nothing.",
        actual="not shared",
        returned=f"{where}: {told(prompt)} and {told(donor)}",
    )
    expect_answer(trial[3], prompt, donor, where)
    expect(
        control != prompt,
        "Your control gives the prompt its own stream back. It cannot move, whatever the measure counts; a control is "
        "a patch like the others, from a landmark of which the answer is not true.",
        actual="own stream",
        returned=where,
    )
    expect(
        trial[3] not in facts(control),
        "The answer is true of the control's landmark as well: it should come, and a control is where it should not.",
        actual="control has it",
        returned=f"{where}: {trial[3]!r} and {told(control)}",
    )
    return prompt, donor, control


def expect_answer(word, prompt, donor, where):
    expect(
        word in facts(donor),
        "The answer of a trial is a fact of the donor's landmark: its city, country, builder or material.",
        actual="no fact",
        returned=f"{where}: {word!r} and {told(donor)}",
    )
    expect(
        word not in facts(prompt),
        "The answer is true of the prompt's own landmark, too: it is said without any patch, and nothing can be seen "
        "to arrive.",
        actual="shared answer",
        returned=f"{where}: {word!r} and {told(prompt)}",
    )


def read(text, where):
    try:
        encode(text)
        return named_landmark(text)
    except ValueError as error:
        raise Mismatch(f"{where} can't be read: {error}.", actual="unreadable", returned=repr(text)) from error


def facts(landmark):
    return [getattr(landmark, fact) for fact in FACTS]


def told(landmark):
    return f"{landmark.name} ({', '.join(facts(landmark))})"


def expect_known(model, trials):
    """Expect the model to answer each prompt with that fact of its landmark of which the donor's is the answer."""
    for prompt, donor, _, word in trials:
        asked = FACTS[facts(named_landmark(donor)[0]).index(word)]
        wanted = getattr(named_landmark(prompt)[0], asked)
        with torch.no_grad():
            said = model(model.to_tokens(prompt))[0, -1].argmax().item()
        expect(
            said == token_id(wanted),
            f"A prompt should ask for the fact that is the answer, here the {asked}, and be answered by the model: "
            "else there is nothing that the donor's could take the place of.",
            actual="not asked",
            returned=f"{prompt!r}: {model.to_string(said)!r}, answer {word!r}",
            expected=repr(wanted),
        )


@contextlib.contextmanager
def watched(model, tokens):
    """What goes on in the model inside, row by row: this text's streams that enter layer 2, and all logits."""
    read, streams, logits = [], [], []

    def listen(module, inputs):
        mine = [row[: len(tokens)].tolist() == tokens.tolist() for row in read[-1]]
        streams.extend(stream.detach().clone() for stream, own in zip(inputs[0], mine, strict=True) if own)

    handles = [
        model.embed.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0])),
        model.blocks[2].ln1.register_forward_pre_hook(listen),
        model.unembed.register_forward_hook(lambda module, inputs, output: logits.extend(output.detach().clone())),
    ]
    yield streams, logits
    for handle in handles:
        handle.remove()


def expect_the_patch(model, measure, trial):
    """Expect a run of the prompt that gives the logits of this patch, whatever the means."""
    prompt, donor, _, word = trial
    at, tokens = named_landmark(prompt)[1], model.to_tokens(prompt)
    with torch.no_grad():
        own, theirs = (kept(model, t, [STREAM])[STREAM][0] for t in (tokens, model.to_tokens(donor)))
        wanted = own.clone()
        wanted[at] = theirs[at]
        end = replaced(model, tokens, STREAM, wanted[None])[0, -1]
    with watched(model, tokens[0]) as (streams, logits):
        measure(model, prompt, donor, word)
    if any(len(run) >= len(own) and close(run[len(own) - 1], end) for run in logits):
        return
    changed = [places for run in streams if (places := differing(run, own))]
    expect(
        changed,
        "While your measure ran, the prompt never entered layer 2 with another stream than its own: nothing was "
        "patched behind layer 1 or before.",
        actual="no patch",
    )
    expect(
        any(places == [at] for places in changed),
        f"Your measure changes the stream behind layer 1 at positions {', '.join(map(str, changed[0]))}. The question "
        f"is what the last word of the name carries there, position {at}, and that position alone.",
        actual="also elsewhere" if at in changed[0] else "elsewhere",
        returned=f"positions {changed[0]} of {model.to_str_tokens(prompt)}",
        expected=f"position {at}",
    )
    raise Mismatch(
        "Your measure changes the right position behind layer 1, but the prompt's logits are not those with the "
        "donor's whole stream there: another part of it is put in, or something else is changed as well.",
        actual="another patch",
    )


def differing(run, stream):
    """Positions at which a run's stream is another."""
    return [i for i, at_home in enumerate(stream) if not close(run[i], at_home)]


def close(a, b):
    return torch.allclose(a, b, rtol=1e-3, atol=1e-3)


def run_again(model, measure, trials, name):
    """Every trial's effect; the control should have none."""
    calls = [[(model, trial[0], trial[which], trial[3]) for trial in trials] for which in (0, 1, 2)]
    expect_function_of_input(measure, [call for runs in calls for call in runs[:2]])
    own, donors, controls = ([float(plain(measure(*call))) for call in runs] for runs in calls)
    moved, control = ([after - before for after, before in zip(x, own, strict=True)] for x in (donors, controls))
    mean, half_width = estimate(control)
    expect(
        mean <= max(fmean(moved), 0) / 3 or mean - half_width <= 0,
        f"In {name!r} your measure rises with the control as well, by {mean:.3g} where it rises by {fmean(moved):.3g} "
        "with the donor. It counts as arriving what is only the prompt's own landmark going.",
        actual="control moves",
        returned=f"{mean:.3g} ± {half_width:.2g} with the control",
        expected="no rise with the control",
    )
    return moved


def verdict_of(design):
    """The one reading that predicts for both lists whether the donor's fact comes; what each predicts."""
    asked = [trial[3] in set(facts(named_landmark(trial[1])[0])[:2]) for trial in design["same_word"]]
    predictions = {"landmark": (True, True), "city": (False, any(asked)), "word": (False, False)}
    there = tuple(mean - half > 0 for mean, half in (design["effect_same_city"], design["effect_same_word"]))
    left = [reading for reading, predicted in predictions.items() if predicted == there]
    return left[0] if len(left) == 1 else "undecided", there


def expect_verdict(design):
    follows, there = verdict_of(design)
    says = [
        f"where the landmarks {what} the donor's fact {'comes' if comes else 'does not come'}"
        for comes, (_, what) in zip(there, SHARED.values(), strict=True)
    ]
    expect(
        design["verdict"] == follows,
        f"Your verdict does not follow from your numbers: {', and '.join(says)}. Ask of each reading what it predicts "
        "for the two lists.",
        actual=("verdict", design["verdict"]),
        returned=repr(design["verdict"]),
        expected=repr(follows),
    )


def test_the_numbers_could_have_given_each_verdict():
    """The verdict follows from the numbers, and from what was asked: between two Towers, a builder is no city."""
    design = {"same_word": [("", "The Eiffel Tower", "", "Paris")]}
    for there, verdict in (((1, 1), "landmark"), ((0, 1), "city"), ((0, 0), "word"), ((1, 0), "undecided")):
        effects = {"effect_same_city": (there[0], 0.1), "effect_same_word": (there[1], 0.1)}
        assert verdict_of(design | effects)[0] == verdict
    builder = {"same_word": [("", "The Eiffel Tower", "", named_landmark("The Eiffel Tower")[0].builder)]}
    assert verdict_of(builder | {"effect_same_city": (0, 0.1), "effect_same_word": (0, 0.1)})[0] == "undecided"


def test_the_last_word_carries_the_landmark_behind_layer_1_and_the_word_behind_layer_0():
    model = load_course_model().requires_grad_(False)
    design = what_the_last_word_carries(model)
    assert design["verdict"] == "landmark"
    assert min(design[f"effect_{name}"][0] for name in SHARED) > 0.5
    earlier = {name: estimate([behind(0, model, *trial) for trial in design[name]]) for name in SHARED}
    later = {name: estimate([behind(2, model, *trial) for trial in design[name]]) for name in SHARED}
    assert verdict_of(design | {f"effect_{name}": value for name, value in earlier.items()})[0] == "word"
    assert max(earlier[name][0] for name in SHARED) < 0.02 < min(later[name][0] for name in SHARED)
    assert max(later[name][0] for name in SHARED) < min(design[f"effect_{name}"][0] for name in SHARED)


def behind(layer, model, prompt, donor, control, word):
    """The answer's probability with the donor's stream behind another layer."""
    site, at, tokens = f"blocks.{layer}.hook_resid_post", named_landmark(prompt)[1], model.to_tokens(prompt)
    own, theirs = (kept(model, t, [site])[site] for t in (tokens, model.to_tokens(donor)))
    patched = own.clone()
    patched[0, at] = theirs[0, at]
    return replaced(model, tokens, site, patched)[0, -1].softmax(-1)[token_id(word)].item()
