"""The case of part 10b: the learner's own project, whose protocol is run again."""

import random

from torch import nn

from utils.capstone.protocol import run_protocol
from utils.course.cases import estimate
from utils.data.world import MEN, THINGS, WOMEN


def my_feature(model: nn.Module) -> dict[str, object]:
    """Your own project: a feature of the course model, gone through by the protocol.

    ``run_protocol(model, project)`` does all of it once "texts" to "others" are filled in; its docstring says how each
    of them is used. What the check can't judge (is the feature new, are the pairs what they claim to be, does the
    conclusion follow) is graded by the questions below.

    Args:
        model: The course model. (If your project is about SmolLM2, hand in a small one about the course model here, and
            let the questions and the report be about SmolLM2.)

    Returns:
        A dict with these keys:

        "feature", "would_refute": What you propose, and what would make you give it up. Texts.
        "texts": At least 32 texts, no two alike, that stop where the model should say one of the words.
        "present", "templates", "words": For each text whether the feature is present (True, False); the number of its
            template, at least eight templates and both labels in each; and the word on which the feature rests.
        "places": A list of 2 to 12 pairs (hook point, how many tokens before the end) where you looked, none twice.
        "chosen": The number, from 0, of the place that you report on.
        "up", "down": Lists of words between which the feature should decide; single words of the vocabulary.
        "named": At least eight pairs of texts that differ in the feature alone: absent, present.
        "others": A list of at least eight pairs of texts that differ in something else; the feature stays, so that none
            of them is in "named".
        "accuracy", "baseline": (mean, half-width of its 95 % interval over templates) of ``least_squares_probe`` on
            templates that it was not fitted to (``probe_by_layer``), at the chosen place; and of the same at
            "hook_embed", as many tokens before the end (0.5 for each template if the same word stands there always).
        "control": For each text a label without meaning, True or False, the same for the same word; both occur.
        "control_accuracy": As "accuracy", with these labels.
        "p_adjusted": Of the chosen place: ``sign_flip_test`` of accuracy less baseline over templates, for all your
            places, corrected by ``holm``.
        "random": At least 19 random directions, no two alike, as long as the direction removed, to within a hundredth.
        "effect": The cost of removing a direction at the chosen place, less the mean cost of the random ones
            (``amnesic_effect``, over templates): (effect, half-width). The direction is that of ``mass_mean_probe``
            fitted to the first half of your templates (in ascending order, of an odd number the middle one with them),
            and is removed about the mean of these texts; the cost is measured on the other half. The measure is the
            lead of "up" over "down" at the end (log of the summed probabilities), with a minus where the feature is
            absent.
        "effect_named", "effect_others": (mean, half-width over pairs) of the lead in the second text less that in the
            first.
        "verdict": That of ``refutation_test`` on these two: "stands", "refuted" or "open".
    """
    rng = random.Random(0)
    women, men = (rng.sample(names, 48) for names in (WOMEN, MEN))
    scenes = ("", "{other} found the cup (the red one) in the park. ", "{other} took the {thing} to the zoo. ")
    ends = ("{name} went home because", "{name} lost", "{name} opened the lamp, and", "{name} took")
    texts, present, templates, words = [], [], [], []
    named, others = [], []
    for number in range(12):
        scene, end = scenes[number // 4], ends[number % 4]
        for _ in range(4):
            woman, man, (other, another) = women.pop(), men.pop(), rng.sample(WOMEN[:20], 2)
            man_before, thing = rng.choice(MEN[:20]), rng.choice(THINGS)
            for is_woman, name in ((True, woman), (False, man)):
                texts.append((scene + end).format(other=other, thing=thing, name=name))
                present.append(is_woman)
                templates.append(number)
                words.append(name)
            after = "{other} lost the key. " + end
            named.append((after.format(other=other, name=man), after.format(other=other, name=woman)))
            others.append((after.format(other=man_before, name=woman), after.format(other=another, name=woman)))
    project = {
        "feature": "the person who acts is a woman", "would_refute": "the one named before counts half as much or more",
        "texts": texts, "present": present, "templates": templates, "words": words,
        "places": [(f"blocks.{layer}.hook_resid_post", 0) for layer in range(4)],
        "up": ["she", "her"], "down": ["he", "his"], "named": named, "others": {"someone else": others},
    }  # fmt: skip
    record = run_protocol(model, project)
    effect = record["effect"]
    return project | {
        "others": others, "chosen": record["chosen"], "control": record["control_labels"],
        **{key: estimate(record[key]) for key in ("accuracy", "baseline")},
        "control_accuracy": estimate(record["control"]), "p_adjusted": record["p_adjusted"][record["chosen"]],
        "random": record["directions"], "effect": (effect["effect"], effect["high"] - effect["effect"]),
        "effect_named": record["refutation"]["named"], "effect_others": record["refutation"]["someone else"],
        "verdict": record["verdict"],
    }  # fmt: skip
