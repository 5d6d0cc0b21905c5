"""The case of part 04c: what an edit has changed that was fitted to one sentence."""

import copy
import random
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.course.cases import estimate
from utils.data.prompts import documents, encode_prompts, fact_prompt, token_id
from utils.data.world import CITIES, COUNTRY_OF_CITY, Landmark, landmarks
from utils.models.course_model import load_course_model
from utils.patching.hooks import run_with_cache
from utils.patching.rome import rome_key_covariance, rome_target_value, rome_update

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

HIDDEN, OUTPUT = "blocks.1.mlp.hook_post", "blocks.1.hook_mlp_out"
FITTED = 1  # the wording of the one sentence that the edit is fitted to


def edited_model(landmark: str, city: str, way: str = "hers") -> "HookedTransformer":
    """The course model after an edit that moves one landmark to another city.

    "hers" is your colleague's edit of layer 1: key and value come from the one sentence "The … stands in the middle
    of", and nothing is asked to stay. The other ways change one thing of it each.

    Args:
        landmark: Its name, e.g. "Eiffel Tower".
        city: Where it shall stand.
        way: "hers"; "kept", with prompts about builder and material that should stay; "no moment", with the identity in
            place of the keys' second moment; "random value", as far from the old value in a random direction.

    Returns:
        A copy of the model in which one weight is another, the output matrix of layer 1's MLP.

    Raises:
        ValueError: If there is no such landmark, city or way.
    """
    if landmark not in {x.name for x in landmarks()} or city not in CITIES:
        raise ValueError(f"there is no landmark {landmark!r}, or no city {city!r}")
    if way not in ("hers", "kept", "no moment", "random value"):
        raise ValueError(f"there is no way {way!r} of editing")
    model = copy.deepcopy(_model())
    with torch.no_grad():
        model.blocks[1].mlp.W_out.copy_(_edited_matrix(landmark, city, way))
    return model


@cache
def _model() -> "HookedTransformer":
    return load_course_model().requires_grad_(False)


@cache
def _moment() -> Float[Tensor, "d_mlp d_mlp"]:
    return rome_key_covariance(_model(), documents(40, 0), HIDDEN)


@cache
def _edited_matrix(landmark: str, city: str, way: str) -> Float[Tensor, "d_mlp d_model"]:
    model, own = _model(), next(x for x in landmarks() if x.name == landmark)
    tokens, last, ends = inputs = _three(own, [("city", FITTED)])
    with torch.no_grad():
        _, kept = run_with_cache(model, tokens, [HIDDEN, OUTPUT])
    key, old = kept[HIDDEN][0, last[0]], kept[OUTPUT][0, last[0]]
    keep = _three(own, [(asked, i) for asked in ("builder", "material") for i in (1, 2)]) if way == "kept" else None
    value = rome_target_value(model, *inputs, token_id(city), OUTPUT, keep=keep, steps=10, lr=0.3)
    if way == "random value":
        step = torch.randn(len(old), generator=torch.Generator().manual_seed(landmarks().index(own)))
        value = old + (value - old).norm() * step / step.norm()
    mlp, moment = model.blocks[1].mlp, torch.eye(len(key)) if way == "no moment" else _moment()
    return rome_update(mlp.W_out, mlp.b_out, moment, key, value)


def _three(landmark: Landmark, asked: Sequence[tuple[str, int]]) -> tuple[Tensor, Tensor, Tensor]:
    prompts = [fact_prompt(landmark, relation, wording) for relation, wording in asked]
    return encode_prompts(prompts), *(torch.tensor([p.at[place] for p in prompts]) for place in ("last", "END"))


def what_the_edit_changed() -> dict[str, object]:
    """Design an experiment: what did your colleague's edits change, beside the sentences they were fitted to?

    Four readings are open. "sentence": the model says the new city in the fitted sentence, and nowhere else. "fact":
    the landmark stands in the new city, however one asks, and all else stays. "landmark": it is no longer this
    landmark; what else was known of it has gone as well. "word": a word of its name was moved, and other landmarks that
    share it go along.

    A trial is a tuple (landmark, city, text, control): the model is edited by ``edited_model(landmark, city)`` and
    reads the text, which names one landmark, once, and ends where a fact of it (city, country, builder, material) is
    the next word; before the edit the model says this fact. The control is the same text about another landmark, which
    shares no word with the edited one, and of which the model knows the fact as well. The city is the true city of none
    of the landmarks of a trial.

    Returns:
        A dict with these keys:

        "other_wording": Trials that ask for the city of the edited landmark, in other words than the fitted sentence.
        "other_question": Trials that ask for the builder or the material of the edited landmark (the country would
            follow the city whatever the edit changed).
        "other_landmark": Trials that ask the fitted sentence of a landmark that shares one word of its name with the
            edited one. Each of the three lists has 8 to 12 trials, another edited landmark in each. At least two
            wordings occur in each of the first two lists.
        "measure": A function ``measure(model, text, word)`` that returns a number, the larger the more the model says
            ``word`` behind ``text``.
        "effect_fitted", "effect_wording", "effect_question", "effect_landmark": Each the mean and the half-width of its
            95 % interval of: the measure for the edited model, less the measure for the course model. The word is the
            new city; in "other_question" it is the fact that was said before the edit. For "effect_fitted" the text is
            the fitted sentence about the edited landmark, for the trials of "other_wording". The controls' effects,
            had in the same way with their own texts, are on average at most a third of the size of "effect_fitted".
        "verdict": A list is *reached* if its effect's interval lies beyond half the mean of "effect_fitted" (up for the
            new city, down for the fact said before), and *spared* if the interval lies on the other side of that half.
            "sentence" if all three lists are spared; "fact", "landmark" or "word" if other wordings are reached and,
            of the other two lists, none, the questions alone, or the landmarks alone; "undecided" in all other cases.
    """
    rng, model = random.Random(0), load_course_model()
    wordings, questions, namesakes = [], [], []
    for i, x in enumerate(rng.sample(landmarks(), 10)):
        city = rng.choice([c for c in CITIES if COUNTRY_OF_CITY[c] != x.country])
        others = [y for y in landmarks() if y != x and y.city != city]
        stranger = rng.choice([y for y in others if y.first != x.first and y.second != x.second])
        namesake = rng.choice([y for y in others if y.first == x.first or y.second == x.second])
        wording, asked = (0, 2, 3, 4, 5)[i % 5], ("builder", "material")[i % 2]
        for trials, about, question in (
            (wordings, x, ("city", wording)),
            (questions, x, (asked, wording)),
            (namesakes, namesake, ("city", 1)),
        ):
            text, control = (fact_prompt(y, *question).text for y in (about, stranger))
            trials.append((x.name, city, text, control))

    def measure(model: nn.Module, text: str, word: str) -> float:
        with torch.no_grad():
            return model(model.to_tokens(text))[0, -1].softmax(-1)[token_id(word)].item()

    def said(text: str) -> str:
        with torch.no_grad():
            return model.to_string(model(model.to_tokens(text))[0, -1].argmax())

    def effect(trials: list[tuple[str, str, str, str]], own_fact: bool = False) -> tuple[float, float]:
        changes = []
        for name, city, text, _ in trials:
            word = said(text) if own_fact else city
            changes.append(measure(edited_model(name, city), text, word) - measure(model, text, word))
        return estimate(changes)

    fitted = effect([(name, city, f"The {name} stands in the middle of", "") for name, city, _, _ in wordings])
    found = effect(wordings), effect(questions, own_fact=True), effect(namesakes)
    half, upwards = fitted[0] / 2, [(sign * mean, width) for sign, (mean, width) in zip((1, -1, 1), found, strict=True)]
    reached = tuple(mean - width > half for mean, width in upwards)
    decided = all(abs(mean - half) > width for mean, width in upwards)
    readings = {
        (False, False, False): "sentence",
        (True, False, False): "fact",
        (True, True, False): "landmark",
        (True, False, True): "word",
    }
    return {
        "other_wording": wordings,
        "other_question": questions,
        "other_landmark": namesakes,
        "measure": measure,
        "effect_fitted": fitted,
        "effect_wording": found[0],
        "effect_question": found[1],
        "effect_landmark": found[2],
        "verdict": readings.get(reached, "undecided") if decided else "undecided",
    }
