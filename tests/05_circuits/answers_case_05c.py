"""Wrong and right designs for the case of part 05c."""

import random

import torch

from utils.circuits.case_05c import EDGES, effects_of_pairs, what_an_edge_carries
from utils.course.cases import estimate
from utils.course.catalogue import made_once, right, wrong
from utils.data.prompts import giving_roles
from utils.data.world import NAMES, PLACES, THINGS

LISTS = ("giver", "receiver", "control")
WORDS = {(True, False): "giver", (False, True): "receiver", (True, True): "both", (False, False): "neither"}


@made_once
def our_design(model):
    return what_an_edge_carries(model)


def carries(pair):
    mean, half_width = pair
    return mean + half_width < -0.5 if mean + half_width < -0.5 or abs(mean) + half_width < 0.5 else None


def measured(model, design, interval=estimate, sign=1):
    """The design with what its pairs give."""
    for name in LISTS:
        effects = sign * effects_of_pairs(model, design[name], list(EDGES.values()))
        for edge, values in zip(EDGES, effects.tolist(), strict=True):
            design[f"{name}_{edge}"] = interval(values)
    for edge in EDGES:
        found = carries(design[f"giver_{edge}"]), carries(design[f"receiver_{edge}"])
        design[f"verdict_{edge}"] = WORDS.get(found, "undecided")
    return design


# A wrong design that is refused before its numbers are read keeps the numbers of ours.


@wrong(
    "what_an_edge_carries",
    "In 'receiver' you exchange both names. Then who gives is another person, too, and an edge that carries the giver "
    "moves as well: replace only the one who does not give.",
)
def both_names(model):
    design, rng = our_design(model), random.Random(0)
    pairs = []
    for clean, _ in design["receiver"]:
        old = list(giving_roles(clean).said)
        new = dict(zip(old, rng.sample([name for name in NAMES if name not in old], 2), strict=True))
        pairs.append((clean, " ".join(new.get(word, word) for word in clean.split())))
    return design | {"receiver": pairs}


@wrong(
    "what_an_edge_carries",
    "In 'giver' a stranger gives. Then the giver has changed, and so has who is there: let the other of the two give.",
)
def a_stranger_gives(model):
    design, rng = our_design(model), random.Random(1)
    pairs = []
    for clean, _ in design["giver"]:
        roles = giving_roles(clean)
        before, _, after = clean.rpartition(roles.giver)
        pairs.append((clean, before + rng.choice([x for x in NAMES if x not in roles.said]) + after))
    return design | {"giver": pairs}


@wrong(
    "what_an_edge_carries",
    "Your 'receiver' pairs leave the other person where she is: they change something else. Nothing is asked then "
    "about who she is.",
)
def another_thing_in_receiver(model):
    design = our_design(model)
    return design | {"receiver": design["control"]}


@wrong(
    "what_an_edge_carries",
    "Your control changes who is there. A control changes a word of which neither reading says that it matters.",
)
def control_with_people(model):
    design = our_design(model)
    return design | {"control": design["receiver"]}


@wrong("what_an_edge_carries", "You have too few pairs: an interval from so few says little.")
def few_pairs(model):
    design = our_design(model)
    return design | {name: design[name][:6] for name in LISTS}


@wrong(
    "what_an_edge_carries",
    "The one who gives is always named second in your texts (ABBA). An edge may do its work in one order only.",
)
def one_order(model):
    design = our_design(model)
    first = {clean for clean, _ in design["giver"] if next(iter(giving_roles(clean).said)) != giving_roles(clean).giver}
    return design | {name: [pair for pair in design[name] if pair[0] in first] for name in LISTS}


@wrong("what_an_edge_carries", "All your texts have one opening. What you find may be a habit of this sentence.")
def one_opening(model):
    design = {name: [] for name in LISTS}
    rng = random.Random(2)
    for i in range(14):
        a, b, c = rng.sample(NAMES, 3)
        place, (thing, other) = rng.choice(PLACES), rng.sample(THINGS, 2)
        giver, receiver = (a, b) if i % 2 else (b, a)
        text = f"When {a} and {b} went to the {place}, {giver} gave the {thing} to"
        before, _, after = text.rpartition(giver)
        design["giver"].append((text, before + receiver + after))
        design["receiver"].append((text, text.replace(receiver, c)))
        design["control"].append((text, text.replace(thing, other)))
    return measured(model, design)


@wrong(
    "what_an_edge_carries",
    "Your effects have the other sign: the clean run's metric less that with the edge cut. An edge that helps then "
    "looks like one that harms.",
)
def other_sign(model):
    return measured(model, our_design(model), sign=-1)


@wrong(
    "what_an_edge_carries",
    "Your half-widths are standard deviations of the pairs: they tell how much pairs differ, not how well the mean is "
    "known.",
)
def standard_deviations(model):
    def spread(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), values.std().item()

    return measured(model, our_design(model), interval=spread)


@wrong(
    "what_an_edge_carries",
    "Your half-widths are standard errors. A 95 % interval reaches about two of them to either side.",
)
def standard_errors(model):
    def spread(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), (values.std() / len(values) ** 0.5).item()

    return measured(model, our_design(model), interval=spread)


@wrong(
    "what_an_edge_carries",
    "You take the edge from head 3.3 for the giver's alone. It moves as much when the other person is somebody else: "
    "look at its second interval.",
)
def one_corruption_decides(model):
    return our_design(model) | {"verdict_3.3": "giver"}


@right("what_an_edge_carries")
def sentences_of_ones_own(model):
    """Two openings, other verbs, the place as the control."""
    design, rng = {name: [] for name in LISTS}, random.Random(7)
    for i in range(16):
        a, b, c = rng.sample(NAMES, 3)
        (place, elsewhere), thing = rng.sample(PLACES, 2), rng.choice(THINGS)
        giver, receiver = (a, b) if i % 2 else (b, a)
        opening = ("While", "After")[i // 2 % 2]
        text = f"{opening} {a} and {b} went to the {place}, {giver} {rng.choice(['gave', 'handed'])} a {thing} to"
        before, _, after = text.rpartition(giver)
        design["giver"].append((text, before + receiver + after))
        design["receiver"].append((text, text.replace(receiver, c)))
        design["control"].append((text, text.replace(place, elsewhere)))
    return measured(model, design)


@right("what_an_edge_carries")
def with_a_normal_interval(model):
    def interval(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), (1.96 * values.std() / len(values) ** 0.5).item()

    return measured(model, our_design(model), interval=interval)
