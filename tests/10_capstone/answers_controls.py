"""Wrong answers for effects at an equal cost and for the refutation of a name, each with its sentence; right ones."""

import math

import numpy as np
import torch

from utils.course.cases import estimate
from utils.course.catalogue import right, wrong


def refuse(effect, cost, budget):
    if effect.shape != cost.shape or effect.ndim != 2 or effect.shape[1] < 1 or not budget > 0:
        raise ValueError("tables or budget")


def crossing(effect, cost, budget, zero=True, last=False, place=None, never=math.nan):
    refuse(effect, cost, budget)
    found = []
    for values, prices in zip(effect.tolist(), cost.tolist(), strict=True):
        points = ([(0.0, 0.0)] if zero else []) + list(zip(prices, values, strict=True))
        steps = [(left, right) for left, right in zip(points, points[1:], strict=False) if left[0] < budget <= right[0]]
        if not steps:
            at_first = points[0][1] if not zero and points[0][0] >= budget else None
            found.append(at_first if at_first is not None else points[-1][1] if never == "last" else never)
            continue
        (c0, e0), (c1, e1) = steps[-1 if last else 0]
        found.append(place(e0, e1) if place else e0 + (e1 - e0) * (budget - c0) / (c1 - c0))
    return torch.tensor(found, dtype=effect.dtype)


@wrong(
    "effect_at_equal_cost",
    "You take the effect at the first dose that costs too much, and don't go back to where the budget was reached.",
)
def dose_above(effect, cost, budget):
    return crossing(effect, cost, budget, place=lambda before, after: after)


@wrong(
    "effect_at_equal_cost",
    "You take the effect at the last dose within the budget: a direction that costs little is then held to less "
    "than it may spend.",
)
def dose_below(effect, cost, budget):
    return crossing(effect, cost, budget, place=lambda before, after: before)


@wrong(
    "effect_at_equal_cost",
    "Where the cost never reaches the budget you give the effect at the largest dose, as if the budget had been spent.",
)
def largest_dose(effect, cost, budget):
    return crossing(effect, cost, budget, never="last")


@wrong(
    "effect_at_equal_cost",
    "You forget dose 0: between it and the first dose effect and cost go in a straight line, too.",
)
def without_zero(effect, cost, budget):
    return crossing(effect, cost, budget, zero=False)


@wrong(
    "effect_at_equal_cost",
    "Where the cost falls and rises again you take the last dose at which it reaches the budget, and not the smallest.",
)
def last_crossing(effect, cost, budget):
    return crossing(effect, cost, budget, last=True)


@wrong(
    "effect_at_equal_cost",
    "You divide the effect at the largest dose by its cost. Neither grows in proportion to the dose.",
)
def ratio(effect, cost, budget):
    refuse(effect, cost, budget)
    found = effect[:, -1] / cost[:, -1] * budget
    return torch.where((cost >= budget).any(1), found, torch.nan)


@wrong(
    "effect_at_equal_cost",
    "A cost that is just the budget has reached it. You ask for more, and give NaN where it comes at the last dose.",
)
def more_than_budget(effect, cost, budget):
    found = crossing(effect, cost, budget)
    return torch.where((cost > budget).any(1), found, torch.nan)


@wrong(
    "effect_at_equal_cost",
    "You go in a straight line from the largest cost so far, and not from that of the dose before.",
)
def running_maximum(effect, cost, budget):
    refuse(effect, cost, budget)
    return crossing(effect, cost.cummax(1).values, budget)


@right("effect_at_equal_cost")
def by_crossings(effect, cost, budget):
    return crossing(effect, cost, budget)


@right("effect_at_equal_cost")
def with_numpy(effect, cost, budget):
    refuse(effect, cost, budget)
    found = []
    for values, prices in zip(effect.numpy(), cost.numpy(), strict=True):
        where = np.nonzero(prices >= budget)[0]
        if len(where) == 0:
            found.append(np.nan)
            continue
        stop = where[0] + 1
        prices, values = np.append(0, prices[:stop])[-2:], np.append(0, values[:stop])[-2:]
        found.append(np.interp(budget, prices, values))
    return torch.tensor(np.array(found), dtype=effect.dtype)


def judge(named, others, tolerance, passes=None, within=None, above=None, interval=estimate):
    if not others or "named" in others:
        raise ValueError("others")
    effects = {"named": interval(named.tolist())} | {name: interval(v.tolist()) for name, v in others.items()}
    mean, width = effects["named"]
    rivals = [effect for name, effect in effects.items() if name != "named"]
    limit = tolerance * mean
    passes = passes or (lambda m, h, limit: abs(m) - h > limit)
    within = within or (lambda m, h, limit: abs(m) + h <= limit)
    above = above or (lambda m, h: m - h > 0)
    if not above(mean, width) or any(passes(m, h, limit) for m, h in rivals):
        return effects, "refuted"
    return effects, "stands" if all(within(m, h, limit) for m, h in rivals) else "open"


@wrong(
    "refutation_test",
    "A property that moves the measure the other way slips through: compare the size of its effect, whatever the sign.",
)
def signed(named, others, tolerance=0.5):
    return judge(named, others, tolerance, lambda m, h, limit: m - h > limit, lambda m, h, limit: m + h <= limit)


@wrong(
    "refutation_test",
    "You compare means alone. Whether an effect passes the limit is sure only if its whole interval does.",
)
def means_alone(named, others, tolerance=0.5):
    return judge(named, others, tolerance, lambda m, h, limit: abs(m) > limit, lambda m, h, limit: abs(m) <= limit)


@wrong(
    "refutation_test",
    "You call a name refuted as soon as another effect could pass the limit. What is not sure either way is open.",
)
def too_strict(named, others, tolerance=0.5):
    return judge(named, others, tolerance, lambda m, h, limit: abs(m) + h > limit)


@wrong(
    "refutation_test",
    "You ask only whether another property has any effect at all. In a network everything has one; the question "
    "is how large.",
)
def any_effect(named, others, tolerance=0.5):
    return judge(named, others, tolerance, lambda m, h, limit: abs(m) - h > 0)


@wrong("refutation_test", "You don't ask whether the named property has an effect of its own that is surely above 0.")
def no_own_effect(named, others, tolerance=0.5):
    return judge(named, others, tolerance, above=lambda m, h: True)


@wrong(
    "refutation_test",
    "You look at the mean of the other properties' effects. One strong rival is enough, and the mean hides it.",
)
def mean_of_rivals(named, others, tolerance=0.5):
    effects, _ = judge(named, others, tolerance)
    rivals = [effects[name] for name in others]
    m = sum(abs(r[0]) for r in rivals) / len(rivals)
    h = sum(r[1] for r in rivals) / len(rivals)
    (mean, width), limit = effects["named"], tolerance * effects["named"][0]
    if mean - width <= 0 or m - h > limit:
        return effects, "refuted"
    return effects, "stands" if m + h <= limit else "open"


@wrong("refutation_test", "The tolerance that the caller gives is not used.")
def fixed_tolerance(named, others, tolerance=0.5):
    return judge(named, others, 0.5)


@wrong("refutation_test", "Your half-widths are standard errors, not those of a 95 % interval.")
def standard_error(named, others, tolerance=0.5):
    def interval(values):
        values = torch.tensor(values, dtype=torch.double)
        return values.mean().item(), values.std().item() / len(values) ** 0.5

    return judge(named, others, tolerance, interval=interval)


@wrong("refutation_test", "You never say 'open': what is not surely above the limit need not surely stay within it.")
def never_open(named, others, tolerance=0.5):
    effects, verdict = judge(named, others, tolerance)
    return effects, "refuted" if verdict == "refuted" else "stands"


@wrong(
    "refutation_test",
    "Your limit is a share of the lower end of the named effect's interval. It is one of its mean.",
)
def lower_limit(named, others, tolerance=0.5):
    mean, width = estimate(named.tolist())
    return judge(named, others, tolerance * (mean - width) / mean)


@wrong("refutation_test", "Your effects are sorted by name. The named one comes first, the others in their own order.")
def by_name(named, others, tolerance=0.5):
    effects, verdict = judge(named, others, tolerance)
    return dict(sorted(effects.items(), reverse=True)), verdict


@right("refutation_test")
def by_ends(named, others, tolerance=0.5):
    """With the ends of the intervals of sizes."""
    if not others or "named" in others:
        raise ValueError("others")
    effects = {name: estimate(values.tolist()) for name, values in [("named", named), *others.items()]}
    limit = tolerance * effects["named"][0]
    lows = [abs(effects[name][0]) - effects[name][1] for name in others]
    highs = [abs(effects[name][0]) + effects[name][1] for name in others]
    refuted = effects["named"][0] <= effects["named"][1] or max(lows) > limit
    return effects, "refuted" if refuted else "stands" if max(highs) <= limit else "open"


@right("refutation_test")
def with_the_judge(named, others, tolerance=0.5):
    return judge(named, others, tolerance)
