"""Wrong and right designs for the case of part 08d."""

from functools import lru_cache

import torch

from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.patching.hooks import run_with_hooks
from utils.sae.case_08d import claim_network, claim_texts, whose_doing


@lru_cache(maxsize=8)
def _ours(seed):
    return whose_doing(seed)


def our_design(seed):
    return dict(_ours(seed))


def near(network, least=0.3):
    unit = network.sae.W_dec / network.sae.W_dec.norm(dim=1, keepdim=True)
    cosines = (unit @ unit[network.claimed]).abs()
    return [i for i in range(len(unit)) if i != network.claimed and cosines[i] >= least], cosines


def changed(
    seed, *, interval=estimate, own_length=False, one_length=False, after=False, dose=10, verdict=None, **parts
):
    """Our design with parts of it replaced, and what then comes out reported as it is."""
    network, design = claim_network(seed), our_design(seed) | parts
    texts, random = design["texts"], design["random"]
    z = network.sae(network.W_E[texts].sum(1))[1][:, network.claimed]
    value, before = dose * z.max().item(), network(texts)
    own = network.sae.W_dec[network.claimed]
    length = (value - z).abs() * own.norm()
    pushed = length.mean().expand(len(length)) if one_length else length
    unit = network.sae.W_dec / network.sae.W_dec.norm(dim=1, keepdim=True)
    span = unit[design["neighbours"]]
    rest = own - own @ torch.linalg.pinv(span) @ span

    def push(direction, length=pushed):
        scale = 1 if own_length else direction.norm()
        hook = "hook_state", lambda x: x + length[:, None] * direction / scale
        out = run_with_hooks(network, texts, [hook])
        return out if after else out - before

    by_chance = torch.stack([push(one) for one in random]).mean(0)
    for name, values in (("latent", push(own, length)), ("rest", push(rest)), ("random", by_chance)):
        design[f"effect_{name}"] = interval(values.tolist())
    return design | {"value": value, "verdict": verdict or verdict_of(design)}


def verdict_of(design):
    half = design["effect_latent"][0] / 2
    does = {
        name: None if abs(design[name][0] - half) <= design[name][1] else design[name][0] > half
        for name in ("effect_rest", "effect_random")
    }
    if does["effect_random"]:
        return "any direction"
    if does["effect_random"] is False and does["effect_rest"] is not None:
        return "the latent" if does["effect_rest"] else "a neighbour"
    return "undecided"


@wrong(
    "whose_doing",
    "You decide for the latent because clamping it works. It works in all three readings: what do the others predict?",
)
def it_works(seed):
    return our_design(seed) | {"verdict": "the latent"}


@wrong(
    "whose_doing",
    "You have looked for random directions only. That they do nothing leaves the neighbours: does the latent's part "
    "without them do it?",
)
def random_only(seed):
    verdict = our_design(seed)["verdict"]
    return our_design(seed) | {"verdict": "the latent" if verdict == "a neighbour" else verdict}


@wrong(
    "whose_doing",
    "You decide for a neighbour where any direction does it. If a random push does as much, neither latent is special.",
)
def neighbour_first(seed):
    verdict = our_design(seed)["verdict"]
    return our_design(seed) | {"verdict": "a neighbour" if verdict == "any direction" else verdict}


@wrong(
    "whose_doing",
    "You take out the nearest neighbour only. The word may be read along another one, and the latent's rest still "
    "holds that one's direction.",
)
def nearest_only(seed):
    network = claim_network(seed)
    neighbours, cosines = near(network)
    return changed(seed, neighbours=[max(neighbours, key=lambda i: cosines[i])])


@wrong(
    "whose_doing",
    "You name neighbours that are none. Without enough directions nothing of any latent is left.",
)
def everybody(seed):
    network = claim_network(seed)
    neighbours, cosines = near(network)
    return changed(seed, neighbours=[*neighbours, *cosines.argsort()[:6].tolist()])


@wrong("whose_doing", "You count the latent among its own neighbours.")
def itself(seed):
    network = claim_network(seed)
    return our_design(seed) | {"neighbours": [*near(network)[0], network.claimed]}


@wrong(
    "whose_doing",
    "Some of your pushes have the length of the direction that you happen to have. A random direction that is five "
    "times as long, or a rest that is shorter than the whole, is no comparison.",
)
def as_long_as_they_are(seed):
    return changed(seed, own_length=True)


@wrong(
    "whose_doing",
    "Your pushes have one length for all texts, the mean of the clamp's. The clamp adds less where the latent is on "
    "already, and on each text the pushes are to be as long as its own.",
)
def mean_length(seed):
    return changed(seed, one_length=True)


@wrong("whose_doing", "You report the logit after the push, and not by how much the push raises it.")
def what_comes_out(seed):
    return changed(seed, after=True, verdict=our_design(seed)["verdict"])


@wrong("whose_doing", "You clamp to another value than 10 times the largest.")
def smaller_dose(seed):
    return changed(seed, dose=2)


@wrong("whose_doing", "Five random directions are too few to say what chance would do.")
def few_random(seed):
    return changed(seed, random=our_design(seed)["random"][:5])


@wrong("whose_doing", "The latent's own direction is among your random ones.")
def own_among_them(seed):
    network = claim_network(seed)
    return changed(seed, random=torch.cat([our_design(seed)["random"], network.sae.W_dec[[network.claimed]]]))


@wrong("whose_doing", "Your texts are fewer than sixty.")
def few_texts(seed):
    network, texts = claim_network(seed), our_design(seed)["texts"]
    order = network.sae(network.W_E[texts].sum(1))[1][:, network.claimed].argsort(descending=True)
    return changed(seed, texts=texts[order[:40]])


@wrong("whose_doing", "Some of your texts are copies of others. A copy adds no evidence.")
def copies(seed):
    return changed(seed, texts=our_design(seed)["texts"].repeat(2, 1))


@wrong("whose_doing", "Your half-widths are the texts' standard deviations, which say how much texts differ.")
def standard_deviations(seed):
    def spread(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), values.std().item()

    return changed(seed, interval=spread, verdict=our_design(seed)["verdict"])


@wrong("whose_doing", "Your half-widths are standard errors. A 95 % interval reaches about two of them to either side.")
def standard_errors(seed):
    def spread(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), (values.std() / len(values) ** 0.5).item()

    return changed(seed, interval=spread)


@right("whose_doing")
def other_texts_and_lists(seed):
    """Other texts, thirty directions, tensors as lists, an interval by 1.96."""

    def interval(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), 1.96 * values.std().item() / len(values) ** 0.5

    random = torch.randn(30, 24, generator=torch.Generator().manual_seed(seed + 99)) * 3
    design = changed(seed, texts=claim_texts(400, seed + 5).unique(dim=0), random=random, interval=interval)
    return design | {key: list(design[key]) for key in ("texts", "random")}


@right("whose_doing")
def by_least_squares(seed):
    """The rest as the residual of a regression on the neighbours."""
    network = claim_network(seed)
    texts = claim_texts(120, seed + 11).unique(dim=0)
    z = network.sae(network.W_E[texts].sum(1))[1][:, network.claimed]
    if z.max() == 0:
        return our_design(seed)
    rows, own = network.sae.W_dec, network.sae.W_dec[network.claimed]
    cosines = torch.nn.functional.cosine_similarity(rows, own[None], dim=1).abs()
    neighbours = [i for i in (cosines >= 0.3).nonzero()[:, 0].tolist() if i != network.claimed]
    rest = own - rows[neighbours].T @ torch.linalg.lstsq(rows[neighbours].T, own[:, None]).solution[:, 0]
    return changed(seed, texts=texts, neighbours=torch.tensor(neighbours)) if rest.norm() > 0 else our_design(seed)
