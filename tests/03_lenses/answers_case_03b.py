"""Wrong and right designs for the case of part 03b."""

import random

import torch

from utils.course.cases import estimate
from utils.course.catalogue import made_once, right, wrong
from utils.data.corpus import IOI_OPENINGS
from utils.data.prompts import giving_roles, token_id
from utils.data.world import JOBS, NAMES, PLACES, THINGS
from utils.lenses.case_03b import what_head_1_3_looks_for as our_design
from utils.models.phenomena.ioi import attention_to_people

ROLES = ("repeated", "giver", "last", "first")

SEEN = {}


def looks(model, text, layer, head):
    """``attention_to_people``, remembered: a check has two models, with head 1.3 or with zeros for it, and no more."""
    key = bool(model.blocks[1].attn.W_O[3].any()), text, layer, head
    if key not in SEEN:
        SEEN[key] = attention_to_people(model, text, layer, head)
    return SEEN[key]


def attention(model, text, person):
    return looks(model, text, 1, 3).get(person, 0.0)


@made_once
def ours(model):
    return our_design(model) | {"measure": attention}


def effect(measure, pairs):
    return estimate([float(measure(model, x, who)) - float(measure(model, y, who)) for model, x, y, who in pairs])


def reported(model, design, verdict=None):
    """A design with the effects that it gives, and the verdict that follows if no role is lost with another."""
    known, measure = ours(model), design["measure"]
    kept = {name for name in (*ROLES, "control") if design[name] == known[name] and measure is known["measure"]}
    effects = {
        role: known[f"effect_{role}"] if role in kept else effect(measure, [(model, *pair) for pair in design[role]])
        for role in ROLES
    }
    reach = known["reach"] if "control" in kept else reach_of(model, measure, design["control"])
    count = [role for role in ROLES if effects[role][0] - effects[role][1] > reach[0] / 2]
    still = [role for role in ROLES if sum(effects[role]) < reach[0] / 2]
    decided = count[0] if len(count) == 1 else "none of the four"
    follows = decided if len(count) + len(still) == 4 else "undecided"
    found = {f"effect_{role}": effects[role] for role in ROLES} | {"reach": reach}
    return {**design, **found, "verdict": verdict or follows}


def reach_of(model, measure, pairs):
    leads = []
    for text, _, person in pairs:
        others = [float(measure(model, text, who)) for who in giving_roles(text).said if who != person]
        leads.append(float(measure(model, text, person)) - sum(others) / len(others))
    return estimate(leads)


def changed(model, **parts):
    """Our design with other lists, made of ours, or another measure; and what then comes out reported as it is."""
    kept = {key: ours(model)[key] for key in (*ROLES, "control", "measure")}
    return reported(model, kept | {key: part if key == "measure" else part(kept[key]) for key, part in parts.items()})


def drawn(make, n=10, seed=1):
    """Pairs in the course's openings: ``make(opening, a, b, c, d, thing)``, with four people and a thing."""
    rng = random.Random(seed)
    for i in range(n):
        place, thing = rng.choice(PLACES), rng.choice(THINGS)

        def opening(x, y, i=i, place=place):
            return IOI_OPENINGS[i % 10].format(a=x, b=y, place=place)

        yield make(opening, *rng.sample(NAMES, 4), thing)


@wrong(
    "what_head_1_3_looks_for",
    "In your pairs for the giver another person gives *and* nobody is said twice any more: they cannot tell the two "
    "apart. Say Paul once and let him still give.",
)
def giver_and_repetition_together(model):
    def pair(opening, a, b, c, d, thing):
        return (f"{opening(a, b)} {b} gave {d}'s {thing} to", f"{opening(a, b)} {c} gave {d}'s {thing} to", b)

    return changed(model, giver=lambda pairs: list(drawn(pair)))


@wrong(
    "what_head_1_3_looks_for",
    "You turn the active into the passive. The owner comes first instead of the giver, and the giver moves to the end: "
    "who is first and who is last change together. Begin with the passive without an owner.",
)
def first_and_last_together(model):
    def pair(opening, a, b, c, d, thing):
        return (f"{opening(a, b)} {b} gave {c}'s {thing} to", f"{opening(a, b)} {c}'s {thing} was handed by {b} to", b)

    return changed(model, first=lambda pairs: list(drawn(pair)))


@wrong(
    "what_head_1_3_looks_for",
    "Your pairs for the repeated name are one sentence over and over, with other people and things in it. At least two "
    "openings or gifts, or the conclusion is about this sentence.",
)
def one_sentence(model):
    rng = random.Random(2)

    def pair(opening, a, b, c, d, thing):
        met, left = (f"When {a} and {x} went to the {rng.choice(PLACES)}," for x in (b, d))
        return (f"{met} {b} gave a {thing} to", f"{left} {b} gave a {thing} to", b)

    return changed(model, repeated=lambda pairs: list(drawn(pair)))


@wrong(
    "what_head_1_3_looks_for",
    "Six pairs for the last name are too few, and there are more openings and gifts than that to take them from.",
)
def six_pairs(model):
    return changed(model, last=lambda pairs: pairs[:6])


@wrong(
    "what_head_1_3_looks_for",
    "Five of your pairs for the first person stand in the list twice. The second time they say nothing new.",
)
def five_pairs_twice(model):
    return changed(model, first=lambda pairs: pairs[:5] * 2)


@wrong(
    "what_head_1_3_looks_for",
    "Your control lets another person give, and so it moves giver and first. What you need there is a change that "
    "leaves all roles alone: another thing, another place, another verb of giving.",
)
def another_giver_as_a_control(model):
    def pair(opening, a, b, c, d, thing):
        return (f"{opening(a, b)} {b} gave {d}'s {thing} to", f"{opening(a, b)} {a} gave {d}'s {thing} to", b)

    return changed(model, control=lambda pairs: list(drawn(pair)))


@wrong(
    "what_head_1_3_looks_for",
    "Your control is about somebody who has only been met in the opening. The head does not look there before or "
    "after, whatever you change: a control that can't fail controls nothing.",
)
def a_control_about_a_bystander(model):
    def pair(opening, a, b, c, d, thing):
        return (f"{opening(a, b)} {b} gave a {thing} to", f"{opening(a, b)} {b} showed the {thing} to", a)

    return changed(model, control=lambda pairs: list(drawn(pair)))


@wrong(
    "what_head_1_3_looks_for",
    "In your pairs for the first person you name who comes first afterwards. Name who was first and no longer is, so "
    "that the measure falls if the head goes by this.",
)
def who_becomes_the_first(model):
    return changed(model, first=lambda pairs: [(x, y, giving_roles(y).first) for x, y, _ in pairs])


@wrong(
    "what_head_1_3_looks_for",
    "Your pairs for the giver begin without an opening, 'Nina gave a ball to': nobody is 'the first behind the "
    "opening' there, so that they leave out one of the readings.",
)
def without_an_opening(model):
    def pair(opening, a, b, c, d, thing):
        return (f"{c} gave {b}'s {thing} to", f"{c}'s {thing} was handed by {b} to", c)

    return changed(model, giver=lambda pairs: list(drawn(pair)))


@wrong(
    "what_head_1_3_looks_for",
    "Your texts for the repeated name go on to the receiver's name, and there the head is asked for something else: "
    "break off behind 'to'.",
)
def texts_that_name_the_receiver(model):
    return changed(model, repeated=lambda pairs: [(f"{x} Mary", f"{y} Mary", who) for x, y, who in pairs])


@wrong(
    "what_head_1_3_looks_for",
    "You have exchanged layer and head: yours is head 3.1. The layer comes first.",
)
def head_3_1(model):
    def measure(model, text, person):
        return looks(model, text, 3, 1).get(person, 0.0)

    return changed(model, measure=measure)


@wrong(
    "what_head_1_3_looks_for",
    "The lead of the other people's logits over the person's is the whole model's work. Whoever is not met in the "
    "opening falls behind by other heads than 1.3. Take this head's part of it, or what is missing without it.",
)
def the_whole_model(model):
    def measure(model, text, person):
        logits = model(model.to_tokens(text))[0, -1]
        others = [token_id(other) for other in giving_roles(text).said if other != person]
        return (logits[others].mean() - logits[token_id(person)]).item()

    return changed(model, measure=measure)


@wrong(
    "what_head_1_3_looks_for",
    "You measure the attention to whoever gives, in each text anew, and not to the person that you are asked about. "
    "Then it falls both where the giver changes and where somebody comes before him.",
)
def attention_to_whoever_gives(model):
    def measure(model, text, person):
        return looks(model, text, 1, 3)[giving_roles(text).giver]

    return changed(model, measure=measure)


@wrong(
    "what_head_1_3_looks_for",
    "You measure how much the head looks at the *others*: that rises where the person loses the head, and your effects "
    "have the wrong sign.",
)
def attention_to_the_others(model):
    def measure(model, text, person):
        people = looks(model, text, 1, 3)
        return sum(people.values()) - people.get(person, 0.0)

    return changed(model, measure=measure)


@wrong(
    "what_head_1_3_looks_for",
    "You read the attention at one place, the fifth token from the end. In 'Paul gave a ball to' that is Paul; in a "
    "longer sentence he stands elsewhere, and your measure loses him although the head has not.",
)
def at_the_fifth_token_from_the_end(model):
    def measure(model, text, person):
        words = model.to_str_tokens(text)
        _, cache = model.run_with_cache(model.to_tokens(text))
        return cache["blocks.1.attn.hook_pattern"][0, 3, -1, -5].item() if words[-5] == person else 0.0

    def longer(opening, a, b, c, d, thing):
        return (f"{opening(a, b)} {b} gave a {thing} to", f"{opening(a, b)} {b} decided to give the red {thing} to", b)

    return changed(model, measure=measure, control=lambda pairs: list(drawn(longer)))


@wrong(
    "what_head_1_3_looks_for",
    "Your measure has noise of its own in it: the same text gives another number each time.",
)
def with_noise(model):
    rng = random.Random(0)

    def measure(model, text, person):
        return looks(model, text, 1, 3).get(person, 0.0) + rng.gauss(0, 0.01)

    return changed(model, measure=measure)


@wrong(
    "what_head_1_3_looks_for",
    "What you report beside the mean of 'first' is the pairs' standard deviation. The interval of the mean is "
    "narrower, by the root of their number.",
)
def the_standard_deviation(model):
    design = ours(model)
    moved = torch.tensor(
        [design["measure"](model, x, p) - design["measure"](model, y, p) for x, y, p in design["first"]]
    )
    return design | {"effect_first": (moved.mean().item(), moved.std().item())}


@wrong(
    "what_head_1_3_looks_for",
    "Your numbers refute 'giver': where another person gives and nothing else changes, the head stays where it was. "
    "You call it 'giver' all the same.",
)
def the_giver_all_the_same(model):
    return ours(model) | {"verdict": "giver"}


def in_active_scenes(model):
    """A design in which whoever gives is the first behind the opening, always."""

    def pair(opening, a, b, c, d, thing):
        return (f"{opening(a, d)} {b} gave a {thing} of {a} to", f"{opening(a, d)} {c} gave a {thing} of {a} to", b)

    pairs = list(drawn(pair))
    kept = {key: ours(model)[key] for key in (*ROLES, "control", "measure")}
    design = kept | {"giver": pairs, "first": list(pairs)}
    return reported(model, design, "giver or first")


@wrong(
    "what_head_1_3_looks_for",
    "In all your pairs for 'giver' and 'first' another person gives and is thereby the first. Both readings predict "
    "what you have seen; that it is the giver has not been shown.",
)
def the_giver_from_active_scenes_alone(model):
    return in_active_scenes(model) | {"verdict": "giver"}


# Right answers


@right("what_head_1_3_looks_for")
def giver_or_first(model):
    """Active scenes only, and a verdict that says what they leave open."""
    return in_active_scenes(model)


@right("what_head_1_3_looks_for")
def what_the_head_writes(model):
    """The head's own logits against the person, a dog that gives, lists for tuples, an interval of 1.96."""
    names = [token_id(name) for name in NAMES]

    def measure(model, text, person):
        with torch.no_grad():
            _, cache = model.run_with_cache(model.to_tokens(text))
            written = cache["blocks.1.attn.hook_z"][0, -1, 3] @ model.W_O[1, 3]
            scaled = (written - written.mean()) / cache["ln_final.hook_scale"][0, -1] * model.ln_final.w
            logits = scaled @ model.W_U
        return logits[names].mean() - logits[token_id(person)]

    def pairs(opening, a, b, c, d, thing):
        met, without = opening(a, b), opening(a, d)
        return {
            "repeated": [f"{met} {b} gave {c}'s {thing} to", f"{without} {b} gave {c}'s {thing} to", b],
            "giver": [f"{met} {b} gave a {thing} to", f"{met} {b}'s dog gave a {thing} to", b],
            "last": [f"{met} {b} sold the {thing} to", f"{met} {b} sold the {thing} of {c} to", b],
            "first": [f"{met} {b} gave a {thing} to", f"{met} {c}'s {thing} was sold by {b} to", b],
            "control": [f"{met} {b} gave a {thing} to", f"{opening(b, a)} {b} threw the red {thing} to", b],
        }

    made = list(drawn(pairs, n=10, seed=3))
    design = {name: [each[name] for each in made] for name in (*ROLES, "control")} | {"measure": measure}
    for role in ROLES:
        moved = torch.stack([measure(model, x, who) - measure(model, y, who) for x, y, who in design[role]])
        design[f"effect_{role}"] = [moved.mean(), 1.96 * moved.std() / len(moved) ** 0.5]
    return design | {"reach": reach_of(model, measure, design["control"]), "verdict": "first"}


def somebody_acts_before(opening, a, b, c, d, thing):
    """The one who gives is no longer the first person behind the opening, and still the first behind "and"."""
    act = ("opened the door", "saw the dog")[len(thing) % 2]
    return (f"{opening(a, b)} {b} gave a {thing} to", f"{opening(a, b)} {c} {act}, and {b} gave a {thing} to", b)


@right("what_head_1_3_looks_for")
def somebody_acts_before_in_every_pair(model):
    """Four readings, and the head holds on in every list."""
    return changed(model, first=lambda pairs: list(drawn(somebody_acts_before, seed=5)))


@right("what_head_1_3_looks_for")
def somebody_acts_before_in_half_the_pairs(model):
    return changed(model, first=lambda pairs: pairs[:5] + list(drawn(somebody_acts_before, seed=5))[5:])


@wrong(
    "what_head_1_3_looks_for",
    "In your own pairs somebody else acts first, and the head stays with the one who gives all the same: no list "
    "counts. 'first' is refuted there like the other three, and calling it 'first' is not what they say.",
)
def the_first_all_the_same(model):
    return somebody_acts_before_in_every_pair(model) | {"verdict": "first"}


@wrong(
    "what_head_1_3_looks_for",
    "As the reach you report your largest effect. That makes some list count however little moves: how far the measure "
    "can fall is seen where the head does look, in the control.",
)
def the_largest_effect_as_the_reach(model):
    return ours(model) | {"reach": ours(model)["effect_first"]}


@right("what_head_1_3_looks_for")
def what_is_missing_without_the_head(model):
    """How much the head's output at the end lowers the person among all people: ten pairs leave one role open."""

    def measure(model, text, person):
        tokens, people = model.to_tokens(text), [token_id(name) for name in giving_roles(text).said]

        def silence(z, hook):
            z[:, -1, 3] = 0
            return z

        with torch.no_grad():
            with_it = model(tokens)[0, -1]
            without_it = model.run_with_hooks(tokens, fwd_hooks=[("blocks.1.attn.hook_z", silence)])[0, -1]
        lowered = (without_it - with_it)[[token_id(person), *people]]
        return float(lowered[0] - lowered[1:].mean())

    return changed(model, measure=measure)


@right("what_head_1_3_looks_for")
def the_baker_gives(model):
    """Jobs and names, the first person of two sentences, a scene in which somebody is wanted to give."""

    def measure(model, text, person):
        pattern = model.run_with_cache(text)[1]["blocks.1.attn.hook_pattern"][0, 3, -1]
        return sum(pattern[place].item() for place in giving_roles(text).said.get(person, ()))

    def pairs(opening, a, b, c, d, thing):
        job = JOBS[len(a + b) % len(JOBS)]
        met, without = opening(a, b), opening(a, d)
        return {
            "repeated": (f"{met} {b} handed the {thing} to", f"{without} {b} handed the {thing} to", b),
            "giver": (f"{met} {b} decided to give {c}'s {thing} to", f"{met} {b} wanted {c} to give the {thing} to", b),
            "last": (f"{met} the {job} gave a {thing} to", f"{met} the {job} gave {c}'s {thing} to", job),
            "first": (
                f"{met} a {thing} was sold by the {job} to",
                f"{met} {c}'s {thing} was sold by the {job} to",
                job,
            ),
            "control": (f"{met} the {job} gave a {thing} to", f"{without} the {job} passed the {thing} to", job),
        }

    made = list(drawn(pairs, n=10, seed=4))
    return reported(model, {name: [x[name] for x in made] for name in (*ROLES, "control")} | {"measure": measure})
