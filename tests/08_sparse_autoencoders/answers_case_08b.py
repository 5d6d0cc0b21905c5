"""Wrong and right designs for the case of part 08b."""

import random

import torch

from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.sae.metrics import dead_fraction, l0


def variance_explained(sae, x):
    x_hat, _ = sae(x)
    return (1 - (x - x_hat).square().sum() / (x - x.mean(0)).square().sum()).item()


def designed(given, measure=variance_explained, seeds=(0, 1, 2, 3, 4), change=None, summary=estimate, verdict=None):
    change = change or (lambda knob: (given.colleague, given.colleague | {knob: given.usual[knob]}))
    gains = {}
    for knob in given.usual:
        before, after = change(knob)
        values = [measure(*given.run(after, s)) - measure(*given.run(before, s)) for s in seeds]
        gains[knob] = summary(values)
    design = {"measure": measure, "seeds": list(seeds)} | {f"gain_{knob}": pair for knob, pair in gains.items()}
    return design | {"verdict": (verdict or (lambda found: max(found, key=lambda knob: found[knob][0])))(gains)}


@wrong(
    "which_setting_costs",
    "Your measure takes the batch's largest latents, as in training. What is used has a threshold, and that may be "
    "what is wrong.",
)
def as_in_training(given):
    def measure(sae, x):
        pre = torch.relu(x @ sae.W_enc + sae.b_enc)
        values, places = pre.flatten().topk(sae.k * len(x))
        z = torch.zeros_like(pre).flatten().scatter(0, places, values).view_as(pre)
        return (1 - (x - z @ sae.W_dec - sae.b_dec).square().sum() / (x - x.mean(0)).square().sum()).item()

    return designed(given, measure)


@wrong(
    "which_setting_costs",
    "Your measure counts latents that never fire. They are easy to see, and need not be what spoils the rest.",
)
def living_latents(given):
    def measure(sae, x):
        return -dead_fraction(sae(x)[1])

    return designed(given, measure)


@wrong(
    "which_setting_costs",
    "Your measure rewards few latents. The colleague's trouble is the reconstruction; a dictionary that says "
    "nothing has an L0 of 0.",
)
def sparsity(given):
    def measure(sae, x):
        return -l0(sae(x)[1])

    return designed(given, measure)


@wrong("which_setting_costs", "Your measure grows with the error: the larger, the worse.")
def error(given):
    def measure(sae, x):
        return (x - sae(x)[0]).square().sum(-1).mean().item()

    return designed(given, measure)


@wrong(
    "which_setting_costs",
    "You begin with the usual settings and break one: that is what a departure *could* cost. Asked is what mending "
    "it in the colleague's set-up gains.",
)
def broken_one_by_one(given):
    return designed(given, change=lambda knob: (given.usual | {knob: given.colleague[knob]}, given.usual))


@wrong("which_setting_costs", "You mend all other settings and leave one: three changes at once say nothing of one.")
def all_but_one(given):
    return designed(given, change=lambda knob: (given.colleague, given.usual | {knob: given.colleague[knob]}))


@wrong("which_setting_costs", "Three seeds are too few.")
def three_seeds(given):
    return designed(given, seeds=(0, 1, 2))


@wrong("which_setting_costs", "One seed counts twice with you: a copy is no evidence.")
def a_seed_twice(given):
    return designed(given, seeds=(0, 1, 2, 3, 3, 4))


@wrong(
    "which_setting_costs",
    "Your half-width is the standard deviation over seeds, not that of the mean's 95 % interval.",
)
def standard_deviation(given):
    def summary(values):
        values = torch.tensor(values)
        return values.mean().item(), values.std().item()

    return designed(given, summary=summary)


@wrong(
    "which_setting_costs",
    "You compare runs of different seeds: other data and another start, besides the setting. A gain is a difference "
    "at one seed.",
)
def unpaired(given):
    seeds = (0, 1, 2, 3, 4)
    gains = {}
    for knob, usual in given.usual.items():
        after = [variance_explained(*given.run(given.colleague | {knob: usual}, (s + 5) % 10)) for s in seeds]
        before = [variance_explained(*given.run(given.colleague, s)) for s in seeds]
        gains[knob] = estimate([a - b for a, b in zip(after, before, strict=True)])
    design = designed(given, seeds=seeds) | {f"gain_{knob}": pair for knob, pair in gains.items()}
    return design | {"verdict": max(gains, key=lambda knob: gains[knob][0])}


@wrong(
    "which_setting_costs",
    "Your verdict is that of the dead latents, the auxiliary loss. By your own gains another setting costs more.",
)
def the_dead(given):
    def verdict(gains):
        return "aux"

    return designed(given, verdict=verdict)


@wrong("which_setting_costs", "Your measure draws random numbers: called again, it says something else.")
def random_measure(given):
    def measure(sae, x):
        rows = torch.tensor(random.sample(range(len(x)), 50))
        return variance_explained(sae, x[rows])

    return designed(given, measure)


@wrong("which_setting_costs", "Your measure sets the dictionary's threshold and leaves it so.")
def changes_the_dictionary(given):
    def measure(sae, x):
        sae.threshold.fill_(0.9)
        return variance_explained(sae, x)

    return designed(given, measure)


@right("which_setting_costs")
def by_variance(given):
    return designed(given)


@right("which_setting_costs")
def by_error_and_more_seeds(given):
    def measure(sae, x):
        return -(x - sae(x)[0]).norm(dim=1).mean().item()

    return designed(given, measure, seeds=(9, 2, 5, 7, 1, 4))
