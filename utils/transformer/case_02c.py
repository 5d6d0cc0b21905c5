"""The case of part 02c: what a model in the middle of its training knows of who receives a present."""

import random

import torch
from torch import nn

from utils.course.cases import estimate
from utils.data import corpus
from utils.data.corpus import IOI_OPENINGS
from utils.data.world import NAMES, PLACES, THINGS
from utils.models.course_model import course_model_weights
from utils.transformer.model import Transformer


def course_transformer(step: int | None = None) -> Transformer:
    """The course model as chapter 02's own ``Transformer``: the finished one, or as it was after so many steps.

    Raises:
        ValueError: If there is no checkpoint after ``step`` steps.
    """
    cfg, weights = course_model_weights(step)
    model = Transformer(cfg)
    model.load_state_dict(weights)
    return model.requires_grad_(False)


def what_it_knows_of_the_receiver(model: nn.Module, finished: nn.Module) -> dict[str, object]:
    """Design an experiment: what does a model know of who receives, at the end of "…, Mary gave a ball to"?

    Three readings are open: "name" (that a person's name comes here), "said" (that it is one of the people said in this
    text), "receiver" (that it is one of these people who does not give). A trial is a text and a changed text, and asks
    how much more the model expects one person behind the first than behind the second.

    Args:
        model: The model after 2,000 steps of its training, which the question is about. It maps tokens [batch, pos] to
            logits [batch, pos, d_vocab].
        finished: The same model after all 10,000 steps. It knows who receives, and shows what a trial can show.

    Returns:
        A dict with these keys:

        "people", "giver", "control": Lists of at least 12 trials, with at least two templates in each list (sentences
            that differ in more than their people, places, things and adjectives). A trial is a tuple of three texts
            (text, changed, answer). Both texts end with "to" and have one giver, whom ``giving_roles(text).giver``
            names. The answer is a person who is said in ``text`` and does not give there. In "people" and "giver" the
            two texts differ in their people and in nothing else.
            "people": the giver is the same in both, and the answer is not said in ``changed``.
            "giver": the same people are said in both, and the answer is the giver in ``changed``.
            "control": the same people are said in the same order, so that no reading predicts a change, and something
            else differs.
        "measure": A function ``measure(model, text, answer)`` that returns a number, the larger the more the model
            expects ``answer`` as the next word, and the same for two texts behind which a model expects the same. A
            trial's effect is its measure of ``text`` less that of ``changed``.
        "effect_people", "effect_giver": The mean of the list's effects in ``model``, and the half-width of its 95 %
            interval. "finished_people", "finished_giver": the same in ``finished``. There both are clear of 0: trials
            that don't move a model which knows can't show that another doesn't.
        "verdict": An effect is there if its whole interval lies above a tenth of the mean in ``finished``, and is not
            there if the whole interval lies below. (The control's in ``model`` lies within a tenth of
            "finished_people" on both sides.) "name" if neither is there, "said" if people's alone is, "receiver" if
            both are, and "undecided" for the rest.
    """
    rng, design = random.Random(0), {"people": [], "giver": [], "control": []}
    for opening in IOI_OPENINGS * 2:
        a, b, c = rng.sample(NAMES, 3)
        place, other = rng.sample(PLACES, 2)
        end = rng.choice(("gave a {}", "handed the {}", "showed a {}")).format(rng.choice(THINGS)) + " to"
        met = opening.format(a=a, b=b, place=place)
        design["people"].append((f"{met} {a} {end}", f"{opening.format(a=a, b=c, place=place)} {a} {end}", b))
        design["giver"].append((f"{met} {a} {end}", f"{met} {b} {end}", b))
        design["control"].append((f"{met} {a} {end}", f"{opening.format(a=a, b=b, place=other)} {a} {end}", b))

    def measure(model: nn.Module, text: str, answer: str) -> float:
        tokens = torch.tensor([[0, *corpus.encode(text)]])
        with torch.no_grad():
            return model(tokens)[0, -1].softmax(-1)[corpus.encode(answer)[0]].item()

    def effect(which: nn.Module, name: str) -> tuple[float, float]:
        return estimate([measure(which, text, who) - measure(which, other, who) for text, other, who in design[name]])

    found = {name: (effect(model, name), effect(finished, name)) for name in ("people", "giver")}
    there = {name: mean - half > most / 10 for name, ((mean, half), (most, _)) in found.items()}
    open_ = [name for name, ((mean, half), (most, _)) in found.items() if abs(mean - most / 10) <= half]
    readings = {(False, False): "name", (True, False): "said", (True, True): "receiver"}
    return {
        **design,
        "measure": measure,
        **{f"effect_{name}": ours for name, (ours, _) in found.items()},
        **{f"finished_{name}": theirs for name, (_, theirs) in found.items()},
        "verdict": "undecided" if open_ else readings.get((there["people"], there["giver"]), "undecided"),
    }
