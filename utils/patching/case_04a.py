"""The case of part 04a: what the stream at the last word of a landmark's name carries behind layer 1."""

import random
from collections.abc import Sequence

import torch
from torch import nn

from utils.course.cases import estimate
from utils.data.prompts import fact_prompt, named_landmark, token_id
from utils.data.world import landmarks
from utils.patching.hooks import run_with_cache
from utils.patching.sites import patch_site


def what_the_last_word_carries(model: nn.Module) -> dict[str, object]:
    """Design an experiment: what does the stream at the last word of a landmark's name carry behind layer 1?

    Three readings are open: "landmark" (all that is known of it can be had from here), "city" (its city and country,
    nothing else of it), "word" (the second word of its name, nothing else). A trial runs a prompt about one landmark
    with the stream of a donor, a text about another, and asks whether a fact that is true of the donor alone is said
    now. Where the two landmarks share all that a reading says is carried, or the fact is not part of it, this reading
    predicts that the fact does not come.

    Args:
        model: The course model.

    Returns:
        A dict with these keys:

        "same_city", "same_word": Lists of at least 10 trials, in which the two landmarks share their city, or the
            second word of their names. A trial is a tuple of four texts (prompt, donor, control, answer).
            Prompt, donor and control name one landmark each, once, and are alike before the name. The prompt ends where
            one of its landmark's facts (city, country, builder, material) is the next word, and the model says it. The
            answer is the same fact of the donor's landmark; it is no fact of the prompt's, nor of the control's. The
            control is another donor, and its landmark is not the prompt's. In a list each landmark has at most one
            prompt, and at least two wordings occur.
        "measure": A function ``measure(model, prompt, donor, answer)`` that returns a number, the larger the more the
            model says ``answer`` behind ``prompt`` while the stream behind layer 1, at the last word of the prompt's
            landmark's name, is the donor's at the last word of its own, and all else is left to the model. A trial's
            effect is this number less the one with the prompt as its own donor; the control's is had in the same way.
            On average over a list the control's effect is at most a third of the donor's, or not clear of 0.
        "effect_same_city", "effect_same_word": The mean of the list's effects, and the half-width of its 95 % interval.
        "verdict": "landmark", "city" or "word", the one reading that predicts for both lists whether the effect is
            there (its interval is above 0); "undecided" if no reading does, or more than one.
    """
    rng, site = random.Random(0), "blocks.1.hook_resid_post"

    def trials(shared: str, asked: str) -> list[tuple[str, str, str, str]]:
        found = []
        for i, landmark in enumerate(rng.sample(landmarks(), 12)):
            alike = [x for x in landmarks() if getattr(x, shared) == getattr(landmark, shared)]
            donor = rng.choice([x for x in alike if getattr(x, asked) != getattr(landmark, asked)])
            answer = getattr(donor, asked)
            control = rng.choice([x for x in landmarks() if x != landmark and getattr(x, asked) != answer])
            prompt, *donors = (fact_prompt(x, asked, i % 6).text for x in (landmark, donor, control))
            found.append((prompt, *donors, answer))
        return found

    def measure(model: nn.Module, prompt: str, donor: str, answer: str) -> float:
        at = torch.tensor([named_landmark(prompt)[1]])
        with torch.no_grad():
            _, cache = run_with_cache(model, model.to_tokens(donor), [site])
            logits = patch_site(model, model.to_tokens(prompt), site, cache[site], positions=at)
        return logits[0, -1].softmax(-1)[token_id(answer)].item()

    def effect(chosen: Sequence[tuple[str, str, str, str]]) -> tuple[float, float]:
        return estimate([measure(model, p, d, a) - measure(model, p, p, a) for p, d, _, a in chosen])

    same_city, same_word = trials("city", "builder"), trials("second", "city")
    city_effect, word_effect = effect(same_city), effect(same_word)
    there = tuple(mean - half_width > 0 for mean, half_width in (city_effect, word_effect))
    readings = {(True, True): "landmark", (False, True): "city", (False, False): "word"}
    return {
        "same_city": same_city,
        "same_word": same_word,
        "measure": measure,
        "effect_same_city": city_effect,
        "effect_same_word": word_effect,
        "verdict": readings.get(there, "undecided"),
    }
