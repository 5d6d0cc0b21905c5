"""The case of part 05c: whether an edge is the behaviour's, or one corruption's."""

import random
from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.circuits.edge_scores import edge_patching
from utils.course.cases import estimate
from utils.data.prompts import Prompt, encode_prompts, giving_roles, ioi_prompts, token_id
from utils.data.world import NAMES, THINGS
from utils.patching.metrics import logit_difference

EDGES = {"1.3": ("a1.3", "logits"), "2.2": ("a2.2", "logits"), "3.3": ("a3.3", "logits")}


def effects_of_pairs(
    model: nn.Module, pairs: Sequence[tuple[str, str]], edges: Sequence[tuple[str, str]]
) -> Float[Tensor, "edge pair"]:
    """The exact effect of each edge on each pair of texts (clean, corrupt).

    It is the change of the logit difference, in nats, behind the end of the clean text: of the person there who does
    not give over the one who does.

    Raises:
        ValueError: If two texts of a pair differ in length, or a clean text does not name two people of whom one gives.
    """
    people = []
    for clean, corrupt in pairs:
        roles = giving_roles(clean)
        others = [person for person in roles.said if person != roles.giver]
        if roles.giver is None or len(others) != 1 or roles.end != giving_roles(corrupt).end:
            named = ", ".join(roles.said)
            raise ValueError(
                "two people, one of whom gives, and texts of one length are needed; "
                f"{clean!r} names {named or 'nobody'} (a job counts as a person)"
            )
        people.append((others[0], roles.giver, roles.end))
    tokens = encode_prompts([Prompt(text, "") for pair in zip(*pairs, strict=True) for text in pair])
    answers, foils = (torch.tensor([token_id(row[i]) for row in people]) for i in (0, 1))
    ends = torch.tensor([row[2] for row in people])
    return edge_patching(
        model, *tokens.split(len(pairs)), edges, lambda logits: logit_difference(logits, answers, foils, ends)
    )


def what_an_edge_carries(model: nn.Module) -> dict[str, object]:
    """Design an experiment: what do three edges carry, who gives, or who the other person is?

    The edges are those of ``EDGES``: from heads 1.3, 2.2 and 3.3 straight to the logits. A pair of texts (clean,
    corrupt) differs in one word, and its effect on an edge is that of ``effects_of_pairs``: an edge that carries what
    this word changes has a negative effect.

    Args:
        model: The course model.

    Returns:
        A dict with these keys:

        "giver", "receiver", "control": Lists of at least 12 pairs of texts, chosen before their effects are seen. A
            clean text names two people and no third (a job, "a singer", counts as a person, too), breaks off behind
            "to", and one of the two, who is said twice, gives. In "giver" the corrupt text
            has the other of the two as its giver. In "receiver" the other person, who does not give, is replaced by
            somebody who is not in the clean text; the giver stays. In "control" the word that is changed is no
            person. In each pair exactly one word differs. No list has a clean text twice. Each of the three lists has
            both orders, the giver named first in some clean texts and second in others, and clean texts that begin
            with different words.
        "giver_1.3", "giver_2.2", "giver_3.3", "receiver_1.3", …, "control_3.3": For each list and edge the mean of the
            effects over the pairs, in nats, and the half-width of its 95 % interval: nine pairs of numbers. Those of
            the control lie, interval included, between -0.5 and 0.5.
        "verdict_1.3", "verdict_2.2", "verdict_3.3": An edge carries what a list changes if the whole interval lies
            below -0.5, and does not if it lies between -0.5 and 0.5. "giver" if it carries who gives and not who the
            other is, "receiver" if the other way round, "both" or "neither"; "undecided" if one of its two intervals
            says neither of the two.
    """
    rng, design = random.Random(0), {"giver": [], "receiver": [], "control": []}
    for prompt in ioi_prompts(24, seed=3):
        text, receiver, giver = prompt.text, prompt.answer, prompt.foil
        before, _, after = text.rpartition(giver)  # the giver is said for the second time where he gives
        stranger = rng.choice([name for name in NAMES if name not in (receiver, giver)])
        thing = next(word for word in text.split() if word in THINGS)
        design["giver"].append((text, before + receiver + after))
        design["receiver"].append((text, text.replace(receiver, stranger)))
        design["control"].append((text, text.replace(thing, rng.choice([x for x in THINGS if x != thing]))))

    carried = {}
    for name in ("giver", "receiver", "control"):
        effects = effects_of_pairs(model, design[name], list(EDGES.values()))
        for edge, values in zip(EDGES, effects, strict=True):
            mean, half_width = design[f"{name}_{edge}"] = estimate(values)
            decided = mean + half_width < -0.5 or abs(mean) + half_width < 0.5
            carried[name, edge] = (mean + half_width < -0.5) if decided else None
    words = {(True, False): "giver", (False, True): "receiver", (True, True): "both", (False, False): "neither"}
    for edge in EDGES:
        design[f"verdict_{edge}"] = words.get((carried["giver", edge], carried["receiver", edge]), "undecided")
    return design
