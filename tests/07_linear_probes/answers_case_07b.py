"""Wrong and right designs for the case of part 07b."""

from functools import lru_cache

import torch

from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.probes.case_07b import is_it_used
from utils.probes.erasing import iterated_nullspace, project_out
from utils.probes.fit import least_squares_probe, logistic_probe
from utils.probes.planted import inside, leads, planted_network, planted_texts


@lru_cache(maxsize=8)
def _ours(seed):
    return is_it_used(seed)


def our_design(seed):
    return dict(_ours(seed))


def state(network, texts):
    return run_with_cache(network, texts, ["hook_state"])[1]["hook_state"]


def changed(seed, *, interval=estimate, about="mean", left=False, verdict=None, **parts):
    """Our design with parts of it replaced, and what then comes out reported as it is."""
    network, design = planted_network(seed), our_design(seed) | parts
    texts, others, random = design["texts"], design["others"], design["random"]
    mean, intact = state(network, texts).mean(0), leads(network(texts), texts)
    mean = mean if about == "mean" else torch.zeros_like(mean)

    def effect(directions):
        hook = "hook_state", lambda x: project_out(x, directions, about=mean)
        after = leads(run_with_hooks(network, texts, [hook]), texts)
        return after if left else intact - after

    direction = network.direction[None]
    both = effect(torch.cat([direction, others]))
    for name, values in (
        ("direction", effect(direction)[0]), ("others", effect(others)[0]), ("both", both[0]),
        ("random", torch.stack([effect(one[None])[0] for one in random]).mean(0)), ("number", both[1]),
    ):  # fmt: skip
        design[f"effect_{name}"] = interval(values.tolist())
    return design | {"verdict": verdict or verdict_of(design, intact[0].mean().item() / 2)}


def verdict_of(design, half):
    def hits(name):
        mean, width = design[f"effect_{name}"]
        return None if abs(mean - half) <= width else mean > half

    if hits("direction"):
        return "used"
    if hits("direction") is False and hits("others"):
        return "not used"
    several = hits("direction") is False and hits("others") is False and hits("both")
    return "one of several" if several else "undecided"


@wrong(
    "is_it_used",
    "You decide that the direction is used, and your numbers do not say so. That a feature can be decoded, at 97 % or "
    "at 100, tells what is there, and nothing about who reads it.",
)
def decodable_is_used(seed):
    return our_design(seed) | {"verdict": "used"}


@wrong(
    "is_it_used",
    "You decide that the direction is not used because its removal alone changes little. If the feature is there twice "
    "and either suffices, that is so as well: see what happens when all of them are gone.",
)
def no_effect_is_not_used(seed):
    verdict = our_design(seed)["verdict"]
    return our_design(seed) | {"verdict": "not used" if verdict == "one of several" else verdict}


@wrong(
    "is_it_used",
    "Your other directions hold next to nothing of the quotation: with them removed it is decoded as it was before, "
    'and "all together" is not all. Random directions are like that.',
)
def random_others(seed):
    network = planted_network(seed)
    others = torch.randn(3, len(network.direction), generator=torch.Generator().manual_seed(seed))
    return changed(seed, others=project_out(others, network.direction[None]))


@wrong(
    "is_it_used",
    "All of your other directions have a part along the network's own. A probe that is fitted to states which still "
    "have that direction makes use of it.",
)
def fitted_to_everything(seed):
    network, texts = planted_network(seed), planted_texts(600, seed)
    probe = least_squares_probe(state(network, texts), inside(texts))
    return changed(seed, others=probe.direction[None])


@wrong(
    "is_it_used",
    "Your other directions hold the quotation, and not all of it: with them removed it is decoded less well, and still "
    "too well. A classifier's direction is tilted, and what the tilt leaves is enough for the next probe. Which "
    "direction left nothing, when you took out three and asked anew?",
)
def one_classifier(seed):
    network, texts = planted_network(seed), planted_texts(800, seed)
    x = project_out(state(network, texts), network.direction[None], about=state(network, texts).mean(0))
    return changed(seed, others=logistic_probe(x, inside(texts)).direction[None])


@wrong(
    "is_it_used",
    "Some of your other directions are free of the network's own, and some are not. If you took it out of the states "
    "once, before the first of several probes, rounding has left a trace, and each probe enlarges it: keep the "
    "network's direction among the rows that are removed in every turn.",
)
def removed_once(seed):
    network, texts = planted_network(seed), planted_texts(1000, seed)
    x = project_out(state(network, texts), network.direction[None], about=state(network, texts).mean(0))
    directions, _ = iterated_nullspace(x, inside(texts), x, inside(texts), 6, logistic_probe)
    return changed(seed, others=directions)


@wrong(
    "is_it_used",
    "You remove so many other directions that the network loses more than the quotation. Six are allowed.",
)
def twelve_others(seed):
    network, generator = planted_network(seed), torch.Generator().manual_seed(seed)
    more = project_out(torch.randn(11, len(network.direction), generator=generator), network.direction[None])
    return changed(seed, others=torch.cat([our_design(seed)["others"], more]))


@wrong(
    "is_it_used",
    "Among your other directions is the one that holds the number: after the removal the network does not know that "
    "either. Balance the number over inside and outside, or see what else changes along your directions.",
)
def number_along(seed):
    network = planted_network(seed)
    number = network.W_E[2:4].diff(dim=0)
    return changed(seed, others=torch.cat([our_design(seed)["others"], number]))


@wrong("is_it_used", "Five random directions are too few to say what chance would do.")
def few_random(seed):
    return changed(seed, random=our_design(seed)["random"][:5])


@wrong("is_it_used", "The network's own direction is among your random ones. A control must not be what it controls.")
def own_direction_among_them(seed):
    return changed(seed, random=torch.cat([our_design(seed)["random"], planted_network(seed).direction[None]]))


@wrong(
    "is_it_used",
    "Most of your texts stand on one side. The mean, to which a removal takes them, is then on that side as well, and "
    "the behaviour stays right although what it reads is gone.",
)
def mostly_inside(seed):
    texts = planted_texts(400, 7 * seed)
    order = inside(texts).int().argsort(descending=True)
    return changed(seed, texts=texts[order[:230]])


@wrong("is_it_used", "Your texts are fewer than a hundred: too few for the interval of so small a difference.")
def few_texts(seed):
    return changed(seed, texts=our_design(seed)["texts"][:50])


@wrong("is_it_used", "Some of your texts are copies of others. A copy adds no evidence.")
def copies(seed):
    return changed(seed, texts=our_design(seed)["texts"].repeat(2, 1))


@wrong(
    "is_it_used",
    "You report the lead that is left after a removal. Its effect is what has been lost: the lead before less the lead "
    "after.",
)
def what_is_left(seed):
    return changed(seed, left=True, verdict=our_design(seed)["verdict"])


@wrong(
    "is_it_used",
    "Your half-widths are the texts' standard deviations: they tell how much texts differ, not how well the mean is"
    " known.",
)
def standard_deviations(seed):
    def spread(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), values.std().item()

    return changed(seed, interval=spread)


@wrong("is_it_used", "Your half-widths are standard errors. A 95 % interval reaches about two of them to either side.")
def standard_errors(seed):
    def spread(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), (values.std() / len(values) ** 0.5).item()

    return changed(seed, interval=spread)


@wrong(
    "is_it_used",
    "Your removals are about the origin, far from all states that occur. The network is then off its path, and what it "
    "loses is not the quotation alone.",
)
def about_the_origin(seed):
    return changed(seed, about="origin")


@right("is_it_used")
def by_nullspace(seed):
    """Others by logistic probes, one after the other; other texts."""
    network, fitted = planted_network(seed), planted_texts(1200, 5 * seed)
    x, removed = state(network, fitted), network.direction[None]
    for _ in range(6):
        probe = logistic_probe(project_out(x, removed, about=x.mean(0)), inside(fitted))
        removed = torch.cat([removed, project_out(probe.direction, removed)[None]])
    return changed(seed, others=removed[1:], texts=planted_texts(400, 11 * seed))


@right("is_it_used")
def by_means_and_lists(seed):
    """The mean difference once more, of other texts; tensors as lists, an interval by 1.96."""
    network, texts = planted_network(seed), planted_texts(900, 13 * seed)
    x, y = state(network, texts), inside(texts)
    others = project_out((x[y].mean(0) - x[~y].mean(0))[None], network.direction[None])

    def interval(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), 1.96 * values.std().item() / len(values) ** 0.5

    design = changed(seed, others=others, texts=planted_texts(150, 17 * seed), interval=interval)
    return design | {key: list(design[key]) for key in ("texts", "others", "random")}
