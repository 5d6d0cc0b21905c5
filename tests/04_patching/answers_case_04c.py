"""Wrong and right designs for the case of part 04c."""

import random
from functools import cache

import torch

from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.data.prompts import fact_prompt, named_landmark, token_id
from utils.data.world import landmarks
from utils.models.course_model import load_course_model
from utils.patching.case_04c import edited_model, what_the_edit_changed

# A wrong design that is refused before its numbers are read keeps the numbers of ours.

LISTS = {"other_wording": "effect_wording", "other_question": "effect_question", "other_landmark": "effect_landmark"}
BY_NAME = {x.name: x for x in landmarks()}
after_the_edit = cache(edited_model)
_ours = cache(what_the_edit_changed)


def our_design():
    return dict(_ours())


def reported(design):
    """The design with the effects that its own trials and measure give, and what follows from them."""
    model, measure = load_course_model(), design["measure"]

    def effect(trials, own_fact=False):
        moved = []
        for name, city, text, _ in trials:
            with torch.no_grad():
                said = model.to_string(model(model.to_tokens(text))[0, -1].argmax())
            word = said if own_fact else city
            moved.append(float(measure(after_the_edit(name, city), text, word) - measure(model, text, word)))
        return estimate(moved)

    fitted = effect([(n, c, f"The {n} stands in the middle of", "") for n, c, *_ in design["other_wording"]])
    found = {key: effect(design[name], name == "other_question") for name, key in LISTS.items()}
    half, reached = fitted[0] / 2, []
    for sign, (mean, width) in zip((1, -1, 1), found.values(), strict=True):
        reached.append(None if abs(sign * mean - half) <= width else sign * mean > half)
    readings = {
        (False, False, False): "sentence",
        (True, False, False): "fact",
        (True, True, False): "landmark",
        (True, False, True): "word",
    }
    return design | {"effect_fitted": fitted} | found | {"verdict": readings.get(tuple(reached), "undecided")}


def asked(trials, relation, wordings, of=lambda trial: named_landmark(trial[2])[0]):
    """The trials with another question in their texts and controls."""
    return [
        (
            *trial[:2],
            *(
                fact_prompt(x, relation, wordings[i % len(wordings)]).text
                for x in (of(trial), named_landmark(trial[3])[0])
            ),
        )
        for i, trial in enumerate(trials)
    ]


@wrong(
    "what_the_edit_changed",
    "Your namesakes are asked in other wordings than the fitted one, so wording and landmark change together: if "
    "nothing moves, either may be why. Ask them the fitted sentence.",
)
def namesakes_in_other_words():
    design = our_design()
    return design | {"other_landmark": asked(design["other_landmark"], "city", (0, 3))}


@wrong(
    "what_the_edit_changed",
    "Your other questions ask for the city once more. That tells wordings apart, and nothing about what else is known "
    "of the landmark: ask for the builder or the material.",
)
def the_city_once_more():
    design = our_design()
    return design | {"other_question": asked(design["other_question"], "city", (0, 3, 4))}


@wrong(
    "what_the_edit_changed",
    "Your other wordings contain the very sentence that the edits were fitted to. There the new city had to come; a "
    "reading is in danger only where the edit was not asked for anything.",
)
def the_fitted_sentence_among_them():
    design = our_design()
    return design | {"other_wording": asked(design["other_wording"], "city", (1, 0))}


@wrong(
    "what_the_edit_changed",
    "Your namesakes share no word with the edited landmark. That they stay is what every reading predicts; only a "
    "landmark with the same first or second word can speak for 'word', or against it.",
)
def strangers_for_namesakes():
    design = our_design()
    trials = [(name, city, control, control) for name, city, _, control in design["other_landmark"]]
    return design | {"other_landmark": trials}


@wrong(
    "what_the_edit_changed",
    "Your controls share a word with the edited landmark. They may move for this very reason, which is what another "
    "list is there to find out: take landmarks that share no word.",
)
def namesakes_for_controls():
    rng, design = random.Random(2), our_design()
    trials = []
    for name, city, text, control in design["other_wording"]:
        kin = [x for x in landmarks() if x.second == BY_NAME[name].second and x.name != name and x.city != city]
        trials.append((name, city, text, control.replace(named_landmark(control)[0].name, rng.choice(kin).name)))
    return design | {"other_wording": trials}


@wrong(
    "what_the_edit_changed",
    "In your numbers the other wordings follow, and that is all your verdict looks at. The builder and the material "
    "have gone as well: not one fact was changed, but whatever was known of the landmark.",
)
def a_fact_by_paraphrase_alone():
    return our_design() | {"verdict": "fact"}


@wrong(
    "what_the_edit_changed",
    "The half-widths that you hand in are standard deviations over the edits: how much edits differ, and not how well "
    "their mean is known. `estimate` gives the interval.",
)
def spread_in_place_of_intervals():
    design = our_design()
    spread = {}
    for name in ("effect_fitted", *LISTS.values()):
        mean, half = design[name]
        spread[name] = (mean, half * 10**0.5 / 2.262)
    return design | spread


@wrong(
    "what_the_edit_changed",
    "Your measure draws the next word and says whether it is the one. Drawn again it may be another: read the "
    "probability off instead.",
)
def the_word_that_was_drawn():
    generator = torch.Generator().manual_seed(0)

    def measure(model, text, word):
        with torch.no_grad():
            drawn = torch.multinomial((model(model.to_tokens(text))[0, -1] / 20).softmax(-1), 1, generator=generator)
        return model.to_string(drawn) == word or torch.rand((), generator=generator).item()

    return our_design() | {"measure": measure}


@wrong(
    "what_the_edit_changed",
    "`word` has no say in your measure, or the wrong one: it does not tell the fact that the model says from a city "
    "that it doesn't. Where the old fact is lost such a number may rise, and the verdict is turned around.",
)
def whatever_the_word():
    course_model = load_course_model()

    @cache
    def fact(text):
        with torch.no_grad():
            return course_model(course_model.to_tokens(text))[0, -1].argmax()

    def measure(model, text, word):
        with torch.no_grad():
            return 1 - model(model.to_tokens(text))[0, -1].softmax(-1)[fact(text)].item()

    return our_design() | {"measure": measure}


@wrong(
    "what_the_edit_changed",
    "In the other questions you follow the new city, which nobody asks for there. Whether the builder is lost shows in "
    "how much less the old fact is said: `word` is the fact from before the edit.",
)
def the_new_city_in_the_questions():
    design, model, moved = our_design(), load_course_model(), []
    for name, city, text, _ in design["other_question"]:
        moved.append(design["measure"](after_the_edit(name, city), text, city) - design["measure"](model, text, city))
    return design | {"effect_question": estimate(moved), "verdict": "fact"}


@wrong(
    "what_the_edit_changed",
    "Under 'effect_question' you hand in how probable the old fact is after the edit. An effect is a change: take off "
    "what it was before.",
)
def what_is_left():
    design, model, left = our_design(), load_course_model(), []
    for name, city, text, _ in design["other_question"]:
        with torch.no_grad():
            said = model.to_string(model(model.to_tokens(text))[0, -1].argmax())
        left.append(design["measure"](after_the_edit(name, city), text, said))
    return design | {"effect_question": estimate(left)}


@wrong(
    "what_the_edit_changed",
    "One landmark, moved to many cities: however often it is edited, it is one unit, and the interval says nothing "
    "about other landmarks.",
)
def one_landmark_many_cities():
    design = our_design()
    (name, first_city, *_), rest = design["other_wording"][0], design["other_wording"][1:]
    cities = [first_city, *sorted({trial[1] for trial in rest} - {first_city, BY_NAME[name].city})]
    trials = []
    for i in range(10):
        city = cities[i % len(cities)]
        wording = (0, 2, 3, 4, 5)[i // len(cities)]
        strangers = [x for x in landmarks() if not {x.first, x.second} & set(name.split()) and x.city != city]
        texts = (fact_prompt(x, "city", wording).text for x in (BY_NAME[name], strangers[i]))
        trials.append((name, city, *texts))
    return design | {"other_wording": trials}


@wrong(
    "what_the_edit_changed",
    "Your other questions ask for the country. It follows from the city, so that it goes in either case, whether the "
    "fact was moved or the landmark replaced. Ask for what has nothing to do with the place: builder or material.",
)
def by_country():
    design = our_design()
    return design | {"other_question": asked(design["other_question"], "country", (0, 4))}


@right("what_the_edit_changed")
def by_the_word_that_is_said():
    """Eight edits, lists for tuples, builders alone, and a measure that is 1 where the word is the likeliest."""
    design = our_design()
    kept = {name: [list(trial) for trial in design[name][:8]] for name in LISTS}
    kept["other_question"] = [list(trial) for trial in asked(kept["other_question"], "builder", (0, 3, 5))]

    def measure(model, text, word):
        with torch.no_grad():
            return float(model(model.to_tokens(text))[0, -1].argmax() == token_id(word))

    return reported(design | kept | {"measure": measure})


@right("what_the_edit_changed")
def in_nats():
    """Nine edits, and the verdict that log-probabilities give."""
    design = our_design()
    kept = {name: design[name][1:] for name in LISTS}

    def measure(model, text, word):
        with torch.no_grad():
            return model(model.to_tokens(text))[0, -1].log_softmax(-1)[token_id(word)]

    return reported(design | kept | {"measure": measure})
