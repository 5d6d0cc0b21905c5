"""The check of the case of part 04a: the trials are read, the patch is watched, and the design is run again."""

import contextlib
from functools import cache
from pathlib import Path
from statistics import fmean

import torch

from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import Mismatch, expect, plain
from utils.course.paths import load_file
from utils.data.corpus import encode, words
from utils.data.prompts import named_landmark, token_id
from utils.data.world import landmarks
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
        expect_no_hooks(model)
        for name in SHARED:
            expect_trials(design[name], name)
            expect_known(design[name])
        for name in SHARED:
            for trial in (design[name][0], design[name][-1]):
                expect_the_patch(model, design["measure"], trial)
        moved = {name: run_again(model, design["measure"], design[name], name) for name in SHARED}
        expect_no_hooks(model)
        for name in SHARED:
            expect_reported(design[f"effect_{name}"], moved[name], of=f"effect_{name}")
        expect_verdict(design)


@cache
def own_model():
    """The check's own: nobody else gets hold of it."""
    return load_course_model().requires_grad_(False)


@cache
def said_behind(text):
    model = own_model()
    return model(model.to_tokens(text))[0, -1].argmax().item()


@cache
def streams_of(text):
    """A text's streams behind the layers, and under 0 the one before them."""
    model = own_model()
    names = ["blocks.0.hook_resid_pre", *(f"blocks.{i}.hook_resid_post" for i in range(len(model.blocks)))]
    return [stream[0] for stream in kept(model, model.to_tokens(text), names).values()]


def expect_no_hooks(model):
    left = sorted({name for name, *_ in hooks_on(model)})
    expect(
        not left,
        "Your measure leaves hooks on the model: every later run is changed by them.",
        actual="hooks",
        returned=f"hooks at {', '.join(left[:3])}{' and elsewhere' if len(left) > 3 else ''}",
    )


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
        returned=next((f"{x.name} in {prompted.count(x)} prompts" for x in prompted if prompted.count(x) > 1), ""),
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
    expect(
        donor != prompt,
        "A prompt and its donor are about the same landmark: the patch changes nothing.",
        actual="same landmark",
        returned=f"{where}: {told(prompt)} in both",
    )
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
        returned=f"{where}: {told(prompt)} in both",
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


def expect_known(trials):
    """Expect the model to answer each prompt with that fact of its landmark of which the donor's is the answer."""
    model = own_model()
    for prompt, donor, _, word in trials:
        landmark = named_landmark(prompt)[0]
        asked = FACTS[facts(named_landmark(donor)[0]).index(word)]
        wanted, said = getattr(landmark, asked), said_behind(prompt)
        other = [fact for fact in FACTS if token_id(getattr(landmark, fact)) == said]
        elsewhere = any(token_id(fact) == said for x in landmarks() for fact in facts(x))
        expect(
            said == token_id(wanted),
            f"A prompt should ask for the fact that is the answer, here the {asked}, and be answered by the model: "
            "else there is nothing that the donor's could take the place of.",
            actual=("not asked", asked, *(other or ["another landmark's fact" if elsewhere else "no fact"])),
            returned=f"{prompt!r}: {model.to_string(said)!r}, answer {word!r}",
            expected=repr(wanted),
        )


@contextlib.contextmanager
def watched(model, tokens):
    """What goes on in the model inside, row by row: this text's streams by site, as in ``streams_of``, and all logits.

    Only rows that begin with the text are its own; the streams of one run stand at one place of the lists.
    """
    read, streams, logits = [], [[] for _ in range(len(model.blocks) + 1)], []

    def listening(found):
        def listen(module, inputs):
            mine = [row[: len(tokens)].tolist() == tokens.tolist() for row in read[-1]]
            found.extend(stream.detach().clone() for stream, own in zip(inputs[0], mine, strict=True) if own)

        return listen

    norms = [*(block.ln1 for block in model.blocks), model.ln_final]
    handles = [
        model.embed.register_forward_pre_hook(lambda module, inputs: read.append(inputs[0])),
        *(norm.register_forward_pre_hook(listening(found)) for norm, found in zip(norms, streams, strict=True)),
        model.unembed.register_forward_hook(lambda module, inputs, output: logits.extend(output.detach().clone())),
    ]
    yield streams, logits
    for handle in handles:
        handle.remove()


def expect_the_patch(model, measure, trial):
    """Expect a run of the prompt that gives the logits of this patch, whatever the means."""
    prompt, donor, _, word = trial
    at, tokens, ours = named_landmark(prompt)[1], model.to_tokens(prompt), own_model()
    own, theirs = streams_of(prompt), streams_of(donor)[2]
    wanted = own[2].clone()
    wanted[at] = theirs[at]
    end = replaced(ours, tokens, STREAM, wanted[None])[0, -1]
    with watched(model, tokens[0]) as (streams, logits):
        measure(model, prompt, donor, word)
    expect_no_hooks(model)
    if any(len(run) >= len(wanted) and close(run[len(wanted) - 1], end) for run in logits):
        return
    expect(
        streams[2],
        "While your measure ran, the model never read the prompt: the answer is looked for somewhere else, and nothing "
        "was patched.",
        actual="prompt not run",
        returned=f"no run of {prompt!r}",
    )
    site, places = first_change(streams, own)
    read = f"{prompt!r}, whose name ends at position {at}"
    expect(
        places,
        "While your measure ran, every stream of the prompt was its own: nothing was patched, or something that prompt "
        "and donor share. Where the name's last word stands differs from wording to wording.",
        actual="own streams",
        returned=f"no change in {read}",
        expected=f"the donor's stream behind layer 1, at position {at}",
    )
    behind = f"behind layer {site - 1}" if site else "before layer 0"
    expect(
        site == 2,
        f"The first place at which your measure changes the prompt's stream is {behind}. The question is what the "
        "stream behind layer 1 carries.",
        actual=("another layer", site),
        returned=f"a change {behind}, at {listed(places)} of {read}",
        expected=f"a change behind layer 1, at position {at}",
    )
    where = (
        "also elsewhere" if at in places else {len(wanted) - 1: "end", at - 1: "word before"}.get(places[0], "other")
    )
    expect(
        places == [at],
        f"Your measure changes the stream behind layer 1 at {listed(places)}. The question is what the last word of "
        f"the name carries there, position {at}, and that position alone.",
        actual=where,
        returned=f"{listed(places)} of {model.to_str_tokens(prompt)}",
        expected=f"position {at}",
    )
    raise Mismatch(
        "Your measure changes the right position behind layer 1, but the prompt's logits are not those with the "
        "donor's whole stream there: another part of it is put in, or something else is changed as well.",
        actual="another patch",
        returned=f"another change at position {at} of {prompt!r}",
    )


def first_change(streams, own):
    """The first site at which one of a text's runs has another stream than its own, and the positions; of several runs,
    one that changes the stream behind layer 1 and nothing before it."""
    found = []
    for run in range(len(streams[2])):
        for site, (there, at_home) in enumerate(zip(streams, own, strict=True)):
            if run < len(there) and (places := differing(there[run], at_home)):
                found.append((site, places))
                break
    return min(found, key=lambda change: (change[0] != 2, len(change[1])), default=(None, []))


def listed(places):
    *most, last = map(str, places)
    return f"positions {', '.join(most)} and {last}" if most else f"position {last}"


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
