"""Wrong and right designs for the case of part 02c."""

import random
from functools import lru_cache

import torch

from utils.course.cases import estimate
from utils.course.catalogue import made_once, right, wrong
from utils.data import corpus
from utils.data.corpus import IOI_OPENINGS
from utils.data.prompts import giving_roles
from utils.data.world import NAMES, PLACES, THINGS
from utils.transformer.case_02c import what_it_knows_of_the_receiver


@made_once
def our_design(model, finished):
    return what_it_knows_of_the_receiver(model, finished) | {"measure": probability}


def probability(model, text, answer):
    """The reference's measure, on forward passes that are remembered."""
    return logits_behind(model, text).softmax(-1)[corpus.encode(answer)[0]].item()


@lru_cache(maxsize=2048)
def logits_behind(model, text):
    with torch.no_grad():
        return model(torch.tensor([[0, *corpus.encode(text)]]))[0, -1]


def changed(model, finished, **parts):
    """Our design with parts of it replaced (a function of the part that was there), all numbers as they then are."""
    design = our_design(model, finished)
    reported = {key: design.pop(key) for key in list(design) if key.startswith(("effect", "finished", "verdict"))}
    design |= {key: parts[key](design[key]) for key in design.keys() & parts.keys()}
    measure, there = design["measure"], []
    for name in ("people", "giver"):
        for whose, which in (("effect", model), ("finished", finished)):
            moved = [measure(which, x, who) - measure(which, y, who) for x, y, who in design[name]]
            design[f"{whose}_{name}"] = estimate(moved)
        (mean, half), limit = design[f"effect_{name}"], design[f"finished_{name}"][0] / 10
        there.append(True if mean - half > limit else False if mean + half < limit else None)
    readings = {(False, False): "name", (True, False): "said", (True, True): "receiver"}
    design["verdict"] = readings.get(tuple(there), "undecided")
    return design | {key: parts[key](reported[key]) for key in reported.keys() & parts.keys()}


def drawn(make, n=20, seed=1):
    """``n`` trials from openings, people, places and things that are drawn anew."""
    rng = random.Random(seed)
    return [
        make(opening, *rng.sample(NAMES, 4), rng.sample(PLACES, 2), rng.choice(THINGS))
        for opening in (IOI_OPENINGS * 3)[:n]
    ]


@wrong(
    "what_it_knows_of_the_receiver",
    "In your 'giver' the changed texts are not about the same people as the first. That the model lets go of somebody "
    "who is no longer said shows that it looks at who is said, and no more: keep the people, and let the other one "
    "give.",
)
def two_others_in_giver(model, finished):
    def make(opening, a, b, c, d, places, thing):
        met, others = (opening.format(a=x, b=y, place=places[0]) for x, y in ((a, b), (c, d)))
        return f"{met} {a} gave a {thing} to", f"{others} {c} gave a {thing} to", b

    return changed(model, finished, giver=lambda trials: drawn(make))


@wrong(
    "what_it_knows_of_the_receiver",
    "In your 'giver' the changed texts have somebody more in them than the first: it is not among the same people any "
    "more that the giver changes. Let the one give who could receive in the first text.",
)
def a_third_one_gives(model, finished):
    def make(opening, a, b, c, d, places, thing):
        met = opening.format(a=a, b=b, place=places[0])
        return f"{met} {a} gave a {thing} to", f"{met} {c} gave a {thing} to", b

    return changed(model, finished, giver=lambda trials: drawn(make))


@wrong(
    "what_it_knows_of_the_receiver",
    "In your 'people' the giver changes along with the answer. Leave him who he is, and change only the other one.",
)
def another_giver_in_people(model, finished):
    def make(opening, a, b, c, d, places, thing):
        met, others = (opening.format(a=x, b=y, place=places[0]) for x, y in ((a, b), (c, d)))
        return f"{met} {a} gave a {thing} to", f"{others} {c} gave a {thing} to", b

    return changed(model, finished, people=lambda trials: drawn(make))


@wrong(
    "what_it_knows_of_the_receiver",
    "In your 'people' the answer is still said in the changed text, only in another place. 'said' predicts no change "
    "for that.",
)
def the_same_two_in_the_other_order(model, finished):
    def make(opening, a, b, c, d, places, thing):
        met, turned = (opening.format(a=x, b=y, place=places[0]) for x, y in ((a, b), (b, a)))
        return f"{met} {a} gave a {thing} to", f"{turned} {a} gave a {thing} to", b

    return changed(model, finished, people=lambda trials: drawn(make))


@wrong(
    "what_it_knows_of_the_receiver",
    "Your answers in 'giver' give in the first text. Nobody gives to himself, so ask about the other one.",
)
def asks_for_the_giver(model, finished):
    return changed(model, finished, giver=lambda trials: [(y, x, who) for x, y, who in trials])


@wrong(
    "what_it_knows_of_the_receiver",
    "Your texts in 'giver' also differ in other words than their people (a place, a thing, an article). Then these "
    "may make the difference: change the people and nothing else.",
)
def another_thing_as_well(model, finished):
    def make(opening, a, b, c, d, places, thing):
        met = opening.format(a=a, b=b, place=places[0])
        return f"{met} {a} gave a {thing} to", f"{met} {b} gave the {thing} to", b

    return changed(model, finished, giver=lambda trials: drawn(make))


@wrong(
    "what_it_knows_of_the_receiver",
    "Your texts in 'people' also differ in other words than their people (a place, a thing, an article). Then these "
    "may make the difference: change the people and nothing else.",
)
def another_place_as_well(model, finished):
    def make(opening, a, b, c, d, places, thing):
        met, others = (opening.format(a=a, b=x, place=place) for x, place in zip((b, c), places, strict=True))
        return f"{met} {a} gave a {thing} to", f"{others} {a} gave a {thing} to", b

    return changed(model, finished, people=lambda trials: drawn(make))


@wrong("what_it_knows_of_the_receiver", "Six trials in a list: too few for an interval that excludes anything.")
def six_trials(model, finished):
    return changed(model, finished, people=lambda trials: trials[:6])


@wrong(
    "what_it_knows_of_the_receiver",
    "Your trials in 'giver' are all made of one sentence. What you find may hold for this sentence alone.",
)
def one_sentence(model, finished):
    def make(opening, a, b, c, d, places, thing):
        met = IOI_OPENINGS[0].format(a=a, b=b, place=places[0])
        return f"{met} {a} gave a {thing} to", f"{met} {b} gave a {thing} to", b

    return changed(model, finished, giver=lambda trials: drawn(make))


@wrong(
    "what_it_knows_of_the_receiver",
    "Your measure adds up what the model expects of all names. That shows whether a name comes, whoever is said or "
    "gives: the finished model doesn't move either.",
)
def any_name(model, finished):
    ids = [corpus.encode(name)[0] for name in NAMES]

    def measure(model, text, answer):
        return logits_behind(model, text).softmax(-1)[ids].sum().item()

    return changed(model, finished, measure=lambda _: measure)


@wrong(
    "what_it_knows_of_the_receiver",
    "Your measure counts the answer in the text. That is a fact about the text: the model was not asked.",
)
def counts_in_the_text(model, finished):
    def measure(model, text, answer):
        return float(corpus.words(text).count(answer) - 2 * (giving_roles(text).giver == answer))

    return changed(model, finished, measure=lambda _: measure)


@wrong(
    "what_it_knows_of_the_receiver",
    "Your measure is the answer's bare logit. All logits behind a text may rise or fall together, which changes "
    "nothing that is expected: take the probability or its logarithm.",
)
def the_bare_logit(model, finished):
    def measure(model, text, answer):
        return logits_behind(model, text)[corpus.encode(answer)[0]].item()

    return changed(model, finished, measure=lambda _: measure)


@wrong(
    "what_it_knows_of_the_receiver",
    "Your measure compares the answer with the giver, whom it looks up in the text itself. So it moves when the text's "
    "giver changes, whatever the model makes of that: measure what the model expects of the answer alone.",
)
def less_the_giver(model, finished):
    def measure(model, text, answer):
        return probability(model, text, answer) - probability(model, text, giving_roles(text).giver)

    return changed(model, finished, measure=lambda _: measure)


@wrong(
    "what_it_knows_of_the_receiver",
    "Your measure is the loss on the answer, which is small where the answer is expected. Turn its sign.",
)
def the_loss(model, finished):
    def measure(model, text, answer):
        return -logits_behind(model, text).log_softmax(-1)[corpus.encode(answer)[0]].item()

    return changed(model, finished, measure=lambda _: measure)


@wrong(
    "what_it_knows_of_the_receiver",
    "Your measure draws random numbers, so that the same trial gives another number each time.",
)
def a_sample(model, finished):
    rng = random.Random(0)

    def measure(model, text, answer):
        p = probability(model, text, answer)
        return sum(rng.random() < p for _ in range(200)) / 200

    return changed(model, finished, measure=lambda _: measure)


@wrong(
    "what_it_knows_of_the_receiver",
    "Your control changes the order in which the people are said. Where somebody is said may well matter: change the "
    "place or the thing instead.",
)
def the_other_order_as_a_control(model, finished):
    def make(opening, a, b, c, d, places, thing):
        met, turned = (opening.format(a=x, b=y, place=places[0]) for x, y in ((a, b), (b, a)))
        return f"{met} {a} gave a {thing} to", f"{turned} {a} gave a {thing} to", b

    return changed(model, finished, control=lambda trials: drawn(make))


@wrong(
    "what_it_knows_of_the_receiver",
    "In your control another one of the people gives. That is what 'giver' is about, and 'receiver' predicts an "
    "effect: change the place or the thing instead.",
)
def another_giver_as_a_control(model, finished):
    return changed(model, finished, control=lambda trials: our_design(model, finished)["giver"])


@wrong(
    "what_it_knows_of_the_receiver",
    "In your control other people are said. That is what 'people' is about, and both 'said' and 'receiver' predict an "
    "effect: change the place or the thing instead.",
)
def other_people_as_a_control(model, finished):
    return changed(model, finished, control=lambda trials: our_design(model, finished)["people"])


@wrong(
    "what_it_knows_of_the_receiver",
    "What you report for 'people' beside the mean is the standard deviation of the trials. The interval of a mean is "
    "narrower by the root of their number.",
)
def the_standard_deviation(model, finished):
    design = our_design(model, finished)
    moved = [design["measure"](model, x, who) - design["measure"](model, y, who) for x, y, who in design["people"]]
    return changed(model, finished, effect_people=lambda pair: (pair[0], torch.tensor(moved).std().item()))


@wrong(
    "what_it_knows_of_the_receiver",
    "The right receiver comes out first in many of your texts, and you say 'receiver'. But he does so whoever gives: "
    "your own numbers for 'giver' say that it makes no difference.",
)
def convinced_by_right_answers(model, finished):
    return changed(model, finished, verdict=lambda _: "receiver")


@right("what_it_knows_of_the_receiver")
def in_nats(model, finished):
    def measure(model, text, answer):
        return logits_behind(model, text).log_softmax(-1)[corpus.encode(answer)[0]].item()

    return changed(model, finished, measure=lambda _: measure)


@right("what_it_knows_of_the_receiver")
def by_rank(model, finished):
    def measure(model, text, answer):
        logits = logits_behind(model, text)
        return -float((logits > logits[corpus.encode(answer)[0]]).sum().clamp(max=50))

    return changed(model, finished, measure=lambda _: measure)


@right("what_it_knows_of_the_receiver")
def with_a_bystander(model, finished):
    def people(opening, a, b, c, d, places, thing):
        texts = (f"{opening.format(a=x, b=a, place=places[0])} {a} showed the {thing} to" for x in (b, c))
        return *texts, b

    def giver(opening, a, b, c, d, places, thing):
        met = opening.format(a=a, b=b, place=places[0])
        return f"{met} {a} gave {c}'s {thing} to", f"{met} {b} gave {c}'s {thing} to", b

    def control(opening, a, b, c, d, places, thing):
        met = opening.format(a=a, b=b, place=places[0])
        return f"{met} {a} gave a {thing} to", f"{met} {a} gave a red {thing} to", b

    lists = {"people": people, "giver": giver, "control": control}
    return changed(model, finished, **{name: lambda _, make=make: drawn(make, 24) for name, make in lists.items()})
