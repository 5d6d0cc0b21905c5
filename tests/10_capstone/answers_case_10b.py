"""Wrong and right designs for the case of part 10b. The protocol is run once; each design changes one thing."""

import math
from functools import cache

import torch

from utils.capstone.case_10b import my_feature
from utils.capstone.number import number_sentences, tokens_of
from utils.capstone.protocol import run_protocol
from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.models.course_model import load_course_model
from utils.patching.hooks import run_with_cache
from utils.probes.fit import least_squares_probe


@cache
def honest():
    return my_feature(load_course_model().requires_grad_(False))


def changed(**other):
    return {**honest(), **other}


def state():
    """What the chosen place holds, and the labels."""
    model, design = load_course_model(), honest()
    site, back = design["places"][design["chosen"]]
    tokens, end = tokens_of(model, design["texts"])
    with torch.no_grad():
        cache_ = run_with_cache(model, tokens, [site])[1]
    return cache_[site][torch.arange(len(end)), end - back], torch.tensor(design["present"])


@wrong(
    "my_feature",
    "Your accuracy is as high as on the texts that a probe is fitted to. A probe of 128 numbers can learn ninety "
    "texts by heart: hold out whole templates, and take the probe that was asked for.",
)
def not_held_out(model):
    x, present = state()
    right_ = ((least_squares_probe(x, present)(x) > 0) == present).float().mean().item()
    return changed(accuracy=(right_, 0.0))


@wrong("my_feature", "Your p-value is that of one place, as if you had not looked at the others.")
def uncorrected(model):
    return changed(p_adjusted=honest()["p_adjusted"] / len(honest()["places"]))


@wrong(
    "my_feature",
    "Your control labels differ for the same word, or are all alike: such a task can't be learnt by heart, and "
    "says nothing about memory.",
)
def no_control(model):
    return changed(control=[True] * len(honest()["texts"]))


@wrong("my_feature", "Your control task is the feature itself, so that nothing is compared.")
def control_is_feature(model):
    return changed(control=list(honest()["present"]), control_accuracy=honest()["accuracy"])


@wrong("my_feature", "Your random directions are shorter than the direction. A shorter arrow proves nothing.")
def short_random(model):
    return changed(random=0.5 * honest()["random"])


@wrong("my_feature", "You have too few random directions for a p-value of 0.05.")
def few_random(model):
    return changed(random=honest()["random"][:8])


@wrong(
    "my_feature",
    "Your templates number the texts: each has one text and with it one label, and nothing is held out but single"
    " texts.",
)
def text_as_template(model):
    return changed(templates=list(range(len(honest()["texts"]))))


@wrong("my_feature", "Your verdict is the one that was hoped for, and not the one that the two effects give.")
def hoped_for(model):
    return changed(verdict="refuted" if honest()["verdict"] == "stands" else "stands")


@wrong(
    "my_feature",
    "The half-width of your effect is a standard error. An interval of 95 % is more than twice as wide.",
)
def standard_error(model):
    mean, half = honest()["effect"]
    return changed(effect=(mean, half / 2.2))


@wrong("my_feature", "Your random directions are copies of one. That is one draw, and not nineteen.")
def copies_of_one(model):
    return changed(random=honest()["random"][:1].repeat(19, 1))


@wrong("my_feature", "Pairs that are to differ in something else differ in the feature: you took the same for both.")
def the_same_pairs(model):
    return changed(others=honest()["named"], effect_others=honest()["effect_named"], verdict="refuted")


@right("my_feature")
def the_same_again(model):
    mean, half = honest()["accuracy"]
    return changed(accuracy=[mean, math.nextafter(half, 1)], random=list(honest()["random"]))


@right("my_feature")
def the_subjects_number(model):
    """10a's feature, by 10b's protocol; the name is refuted, which is a result."""
    sentences = number_sentences(2, seed=4)
    single = [text for text, many in zip(sentences.texts, sentences.subject, strict=True) if not many]
    scenes = list(dict.fromkeys(single))[:24]
    named, others = (
        [(f"{scene} is red. {first}", f"{scene} is red. {second}") for scene in scenes]
        for first, second in (
            ("The dog near the cat", "The dogs near the cat"),
            ("The dog beside the cat", "The dog beside the cats"),
        )
    )
    project = {
        "feature": "the subject is plural", "would_refute": "the last noun counts half as much or more",
        "texts": list(dict.fromkeys(sentences.texts)),
        "places": [("blocks.3.hook_resid_mid", 0), ("blocks.2.hook_resid_post", 0)],
        "up": ["are"], "down": ["is"], "named": named, "others": {"last": others},
    }  # fmt: skip
    kept = [sentences.texts.index(text) for text in project["texts"]]
    for key, values in (("present", sentences.subject), ("templates", sentences.templates)):
        project[key] = values[kept].tolist()
    project["words"] = [str(word) for word in sentences.word[kept].tolist()]
    record = run_protocol(model, project, seed=2)
    effect = record["effect"]
    return project | {
        "others": project["others"]["last"], "chosen": record["chosen"], "control": record["control_labels"],
        **{key: estimate(record[key]) for key in ("accuracy", "baseline")},
        "control_accuracy": estimate(record["control"]), "p_adjusted": record["p_adjusted"][record["chosen"]],
        "random": record["directions"], "effect": (effect["effect"], effect["high"] - effect["effect"]),
        "effect_named": record["refutation"]["named"], "effect_others": record["refutation"]["last"],
        "verdict": record["verdict"],
    }  # fmt: skip
