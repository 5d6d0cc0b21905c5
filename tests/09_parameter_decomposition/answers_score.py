"""Wrong answers for what a decomposition is judged by, each with its sentence, and right ones."""

import torch
from scipy.optimize import linear_sum_assignment

from utils.course.catalogue import right, wrong
from utils.spd.components import inputs_of_matrices
from utils.spd.gates import causal_importance
from utils.spd.score import Match

# mean_max_cosine_similarity


def cosines(W, components):
    return torch.cosine_similarity(components, W[None], dim=2)


@wrong(
    "mean_max_cosine_similarity",
    "You compare whole matrices. Each feature has its own row, and its own best component.",
)
def whole_matrices(W, components):
    return torch.cosine_similarity(components.flatten(1), W.flatten()[None], dim=1).max()


@wrong("mean_max_cosine_similarity", "You take the best over features for each component. It is the other way round.")
def best_over_features(W, components):
    return cosines(W, components).amax(1).mean()


@wrong("mean_max_cosine_similarity", "You leave out the sign: a row that points the opposite way is not a good one.")
def without_sign(W, components):
    return cosines(W, components).abs().amax(0).mean()


@wrong("mean_max_cosine_similarity", "Your score is an inner product: it grows with the lengths of both rows.")
def inner_product(W, components):
    return (components * W).sum(2).amax(0).mean()


@wrong("mean_max_cosine_similarity", "You divide by the feature's length alone: the score grows with the component's.")
def by_the_features_length(W, components):
    return ((components * W).sum(2) / W.norm(dim=1)).amax(0).mean()


@wrong("mean_max_cosine_similarity", "You compare columns. What a component does with a feature is its row.")
def columns(W, components):
    return torch.cosine_similarity(components, W[None], dim=1).amax(0).mean()


@wrong("mean_max_cosine_similarity", "You take one maximum over everything: each feature has a best cosine of its own.")
def best_of_all(W, components):
    return cosines(W, components).max()


@wrong("mean_max_cosine_similarity", "You average over components, too: a feature's score is that of its best one.")
def mean_over_components(W, components):
    return cosines(W, components).mean()


@right("mean_max_cosine_similarity")
def by_unit_rows(W, components):
    rows = components / components.norm(dim=2, keepdim=True).clamp(min=1e-12)
    each = torch.einsum("cfd,fd->fc", rows, W / W.norm(dim=1, keepdim=True))
    return each.max(dim=1).values.sum() / len(W)


# mean_l2_ratio


@wrong("mean_l2_ratio", "You take the longest row. The row counts that has the best cosine.")
def longest(W, components):
    return (components.norm(dim=2).amax(0) / W.norm(dim=1)).mean()


@wrong("mean_l2_ratio", "You divide the mean lengths: long features then count more than short ones.")
def ratio_of_means(W, components):
    best = cosines(W, components).argmax(0)
    return components[best, torch.arange(len(W))].norm(dim=1).mean() / W.norm(dim=1).mean()


@wrong("mean_l2_ratio", "Your ratio is upside down: the component's length belongs above.")
def upside_down(W, components):
    best = cosines(W, components).argmax(0)
    return (W.norm(dim=1) / components[best, torch.arange(len(W))].norm(dim=1)).mean()


@wrong("mean_l2_ratio", "You compare the norm of the whole component with the feature's row.")
def norm_of_the_whole(W, components):
    best = cosines(W, components).argmax(0)
    return (components[best].flatten(1).norm(dim=1) / W.norm(dim=1)).mean()


@wrong("mean_l2_ratio", "You choose the row with the largest inner product, which is often the longest.")
def by_inner_product(W, components):
    best = (components * W).sum(2).argmax(0)
    return (components[best, torch.arange(len(W))].norm(dim=1) / W.norm(dim=1)).mean()


@right("mean_l2_ratio")
def feature_by_feature(W, components):
    ratios = []
    for i, row in enumerate(W):
        each = components[:, i]
        best = max(range(len(each)), key=lambda c: torch.cosine_similarity(each[c], row, dim=0).item())
        ratios.append(each[best].norm() / row.norm())
    return torch.stack(ratios).mean()


# match_components


def matched(components, truth, cosine=None, ratio=None):
    found, wanted = components.flatten(1), truth.flatten(1)
    each = torch.cosine_similarity(wanted[:, None], found[None], dim=2)
    rows, columns = (torch.as_tensor(i) for i in linear_sum_assignment((cosine or (lambda c: c))(each).numpy(), True))
    partner, cosines, ratios = torch.full((len(truth),), -1), torch.zeros(len(truth)), torch.zeros(len(truth))
    partner[rows], cosines[rows] = columns, each[rows, columns]
    ratios[rows] = (ratio or (lambda f, w: f.norm(dim=1) / w.norm(dim=1)))(found[columns], wanted[rows])
    return Match(partner, cosines, ratios)


@wrong("match_components", "Each true part takes the component that fits it best: two of them can share one.")
def best_for_each(components, truth):
    found, wanted = components.flatten(1), truth.flatten(1)
    best = torch.cosine_similarity(wanted[:, None], found[None], dim=2).max(1)
    return Match(best.indices, best.values, found[best.indices].norm(dim=1) / wanted.norm(dim=1))


@wrong("match_components", "Your sum of cosines is the smallest: the solver minimises unless told otherwise.")
def smallest_sum(components, truth):
    return matched(components, truth, cosine=lambda c: -c)


@wrong("match_components", "Your ratio is upside down: the component's norm belongs above.")
def ratio_upside_down(components, truth):
    return matched(components, truth, ratio=lambda f, w: w.norm(dim=1) / f.norm(dim=1))


@wrong("match_components", "You match by the size of the cosine: a component of the opposite sign does the opposite.")
def by_size(components, truth):
    return matched(components, truth, cosine=torch.abs)


@wrong("match_components", "You match by inner products: a long component wins over one that points the right way.")
def by_inner_products(components, truth):
    lengths = truth.flatten(1).norm(dim=1)[:, None] * components.flatten(1).norm(dim=1)
    return matched(components, truth, cosine=lambda c: c * lengths)


@wrong("match_components", "A true part without a partner is given component 0. It has none: -1.")
def zero_for_none(components, truth):
    match = matched(components, truth)
    return match._replace(partner=match.partner.clamp(min=0))


@wrong(
    "match_components", "You let the first true part choose, then the next: what is left for the last ones may be poor."
)
def first_come(components, truth):
    found, wanted = components.flatten(1), truth.flatten(1)
    each = torch.cosine_similarity(wanted[:, None], found[None], dim=2)
    partner, cosine = torch.full((len(truth),), -1), torch.zeros(len(truth))
    ratio, left = torch.zeros(len(truth)), each.clone()
    for i in range(min(len(truth), len(found))):
        partner[i] = left[i].argmax()
        cosine[i], ratio[i] = each[i, partner[i]], found[partner[i]].norm() / wanted[i].norm()
        left[:, partner[i]] = -9
    return Match(partner, cosine, ratio)


@right("match_components")
def with_unit_matrices(components, truth):
    lengths = components.flatten(1).norm(dim=1), truth.flatten(1).norm(dim=1)
    each = torch.einsum("nio,cio->nc", truth, components) / (lengths[1][:, None] * lengths[0].clamp(min=1e-12))
    pairs = dict(zip(*(part.tolist() for part in linear_sum_assignment(-each.numpy())), strict=True))
    partner = torch.tensor([pairs.get(i, -1) for i in range(len(truth))])
    has = partner >= 0
    cosine = torch.where(has, each[torch.arange(len(truth)), partner], torch.tensor(0.0))
    return Match(partner, cosine, torch.where(has, lengths[0][partner] / lengths[1], torch.tensor(0.0)))


# recovered


@wrong("recovered", "You look at directions only: a part whose length is wrong counts as found.")
def directions_only(components, truth, *, min_cosine=0.99, tolerance=0.05):
    return matched(components, truth).cosine > min_cosine


@wrong("recovered", "You look at lengths only: a part in another direction counts as found.")
def lengths_only(components, truth, *, min_cosine=0.99, tolerance=0.05):
    return (matched(components, truth).ratio - 1).abs() < tolerance


@wrong("recovered", "A partner that is too long goes through: the ratio has to lie within the tolerance on both sides.")
def too_long_goes_through(components, truth, *, min_cosine=0.99, tolerance=0.05):
    match = matched(components, truth)
    return (match.cosine > min_cosine) & (match.ratio > 1 - tolerance)


@wrong(
    "recovered", "A partner that is too short goes through: the ratio has to lie within the tolerance on both sides."
)
def too_short_goes_through(components, truth, *, min_cosine=0.99, tolerance=0.05):
    match = matched(components, truth)
    return (match.cosine > min_cosine) & (match.ratio < 1 + tolerance)


@wrong("recovered", "The right direction or the right length is enough for you. A part is found if both are right.")
def either(components, truth, *, min_cosine=0.99, tolerance=0.05):
    match = matched(components, truth)
    return (match.cosine > min_cosine) | ((match.ratio - 1).abs() < tolerance)


@wrong("recovered", "You take the cosine without its sign: a partner that does the opposite counts as found.")
def opposite_found(components, truth, *, min_cosine=0.99, tolerance=0.05):
    match = matched(components, truth)
    return (match.cosine.abs() > min_cosine) & ((match.ratio - 1).abs() < tolerance)


@wrong("recovered", "Several true parts count one component as theirs. They are to be matched one to one.")
def not_one_to_one(components, truth, *, min_cosine=0.99, tolerance=0.05):
    match = best_for_each(components, truth)
    return (match.cosine > min_cosine) & ((match.ratio - 1).abs() < tolerance)


@wrong("recovered", "Your bounds are fixed: the arguments have no say.")
def fixed_bounds(components, truth, *, min_cosine=0.99, tolerance=0.05):
    match = matched(components, truth)
    return (match.cosine > 0.99) & ((match.ratio - 1).abs() < 0.05)


@right("recovered")
def one_by_one(components, truth, *, min_cosine=0.99, tolerance=0.05):
    match = matched(components, truth)
    pairs = zip(match.cosine.tolist(), match.ratio.tolist(), strict=True)
    return torch.tensor([c > min_cosine and 1 - tolerance < r < 1 + tolerance for c, r in pairs])


# live_components


@wrong("live_components", "You ask that all inputs need a component. One is enough.")
def needed_by_all(importances, threshold=0.1):
    return (importances > threshold).flatten(0, -2).all(0)


@wrong(
    "live_components", "You take the mean importance: a component that few inputs need, and they wholly, looks dead."
)
def by_the_mean(importances, threshold=0.1):
    return importances.flatten(0, -2).mean(0) > threshold


@wrong("live_components", "Your threshold is 0, whatever it should be.")
def above_zero(importances, threshold=0.1):
    return (importances > 0).flatten(0, -2).any(0)


@wrong("live_components", "Your threshold is 0.1, whatever the argument says.")
def always_a_tenth(importances, threshold=0.1):
    return (importances > 0.1).flatten(0, -2).any(0)


@wrong("live_components", "An importance at the threshold counts for you. It has to be above it.")
def from_the_threshold_on(importances, threshold=0.1):
    return (importances >= threshold).flatten(0, -2).any(0)


@wrong("live_components", "You go over the first dimension only, so that inputs of two dimensions leave one behind.")
def first_dimension_only(importances, threshold=0.1):
    return (importances > threshold).any(0)


@right("live_components")
def by_the_largest(importances, threshold=0.1):
    return importances.reshape(-1, importances.shape[-1]).max(0).values > threshold


# components_per_input


def needed_with(forward, weights, components, gates, x, threshold, inputs=None):
    inputs = inputs_of_matrices(forward, weights, x)[1] if inputs is None else inputs
    return {n: causal_importance(gates[n], components[n].V, inputs[n])[0] > threshold for n in weights}


@wrong("components_per_input", "Your threshold is fixed: the argument has no say.")
def fixed_threshold(forward, weights, components, gates, x, threshold=0.1):
    return needed_with(forward, weights, components, gates, x, 0.1)


@wrong(
    "components_per_input",
    "Your gates read what comes into a matrix when the network runs on its components. Let it run on its own weights.",
)
def run_on_components(forward, weights, components, gates, x, threshold=0.1):
    inputs = inputs_of_matrices(forward, {n: c.weight() for n, c in components.items()}, x)[1]
    return needed_with(forward, weights, components, gates, x, threshold, inputs)


@wrong("components_per_input", "You compare the gates' outputs in absolute value: far below 0 is shut, not open.")
def in_absolute_value(forward, weights, components, gates, x, threshold=0.1):
    inputs = inputs_of_matrices(forward, weights, x)[1]
    return {n: gates[n](a @ components[n].V).abs() > threshold for n, a in inputs.items()}


@wrong("components_per_input", "An importance at the threshold counts for you. It has to be above it.")
def needed_from_the_threshold_on(forward, weights, components, gates, x, threshold=0.1):
    inputs = inputs_of_matrices(forward, weights, x)[1]
    return {n: causal_importance(gates[n], components[n].V, a)[0] >= threshold for n, a in inputs.items()}


@wrong("components_per_input", "You call needed what is read strongly. The gates say what is needed.")
def read_strongly(forward, weights, components, gates, x, threshold=0.1):
    inputs = inputs_of_matrices(forward, weights, x)[1]
    return {n: (a @ components[n].V).abs() > threshold for n, a in inputs.items()}


@right("components_per_input")
def before_the_sigmoid(forward, weights, components, gates, x, threshold=0.1):
    inputs = inputs_of_matrices(forward, weights, x)[1]
    return {n: gates[n](inputs[n] @ components[n].V) > threshold for n in weights}


# ablate_the_rest


def run_with(forward, weights, components, x, masks):
    def linear(name, a):
        return a @ components[name].V * masks[name] @ components[name].U if name in masks else a @ weights[name]

    return forward(x, linear)


def masks_of(needed, magnitude, kept=1.0):
    values = {n: magnitude[n] if isinstance(magnitude, dict) else float(magnitude) for n in needed}
    return {n: torch.where(keep, torch.as_tensor(kept), torch.as_tensor(values[n])) for n, keep in needed.items()}


@wrong("ablate_the_rest", "The others are at 0 whatever `magnitude` says.")
def always_zero(forward, weights, components, x, needed, magnitude=0.0):
    return run_with(forward, weights, components, x, masks_of(needed, 0.0))


@wrong("ablate_the_rest", "You ablate what is needed and keep the rest.")
def the_wrong_ones(forward, weights, components, x, needed, magnitude=0.0):
    return run_with(forward, weights, components, x, masks_of({n: ~keep for n, keep in needed.items()}, magnitude))


@wrong("ablate_the_rest", "You multiply everything by the magnitude, what is needed as well.")
def everything(forward, weights, components, x, needed, magnitude=0.0):
    masks = {n: (magnitude[n] if isinstance(magnitude, dict) else magnitude) + 0.0 * keep for n, keep in needed.items()}
    return run_with(forward, weights, components, x, masks)


@wrong("ablate_the_rest", "A matrix that is not named multiplies by its components. It should keep its own weights.")
def components_everywhere(forward, weights, components, x, needed, magnitude=0.0):
    masks = masks_of(needed, magnitude)
    return run_with(
        forward, weights, components, x,
        {n: masks[n] if n in masks else torch.ones(len(c.U)) for n, c in components.items()},
    )  # fmt: skip


@wrong("ablate_the_rest", "A needed component is at 1 plus the magnitude: add the magnitude to the others alone.")
def added(forward, weights, components, x, needed, magnitude=0.0):
    values = {n: magnitude[n] if isinstance(magnitude, dict) else magnitude for n in needed}
    return run_with(forward, weights, components, x, {n: keep + values[n] for n, keep in needed.items()})


@right("ablate_the_rest")
def by_arithmetic(forward, weights, components, x, needed, magnitude=0.0):
    masks = {
        n: keep + ~keep * (magnitude[n] if isinstance(magnitude, dict) else magnitude) for n, keep in needed.items()
    }
    return run_with(forward, weights, components, x, masks)


# random_needed


def drawn(needed, live, generator, size=None):
    out = torch.zeros_like(needed)
    places = live.nonzero().flatten()
    for row, n in enumerate((needed.sum(1) if size is None else size).tolist()):
        out[row, places[torch.randperm(len(places), generator=generator)[: int(n)]]] = True
    return out


@wrong("random_needed", "You draw from all components, the dead ones too: leaving out a dead one costs nothing.")
def from_all(needed, live, generator=None):
    return drawn(needed, torch.ones_like(live), generator)


@wrong("random_needed", "You draw once for all inputs: those with the same needs get the same. Each should draw anew.")
def one_set(needed, live, generator=None):
    order = torch.rand(needed.shape[1], generator=generator).masked_fill(~live, 2.0).argsort().argsort()
    return order < needed.sum(1, keepdim=True)


@wrong(
    "random_needed",
    "Each component is drawn by itself: sets have the right size only on average, and a larger one does better.",
)
def each_by_itself(needed, live, generator=None):
    share = needed.sum(1, keepdim=True) / live.sum()
    return (torch.rand(needed.shape, generator=generator) < share) & live


@wrong("random_needed", "Your sets are one too large: ranks begin at 0.")
def one_too_many(needed, live, generator=None):
    order = torch.rand(needed.shape, generator=generator).masked_fill(~live, 2.0).argsort(1).argsort(1)
    return order <= needed.sum(1, keepdim=True)


@wrong("random_needed", "You avoid what the input needs. In a random set it has the same chance as the rest.")
def avoiding_the_needed(needed, live, generator=None):
    draws = torch.rand(needed.shape, generator=generator).masked_fill(needed, 1.0).masked_fill(~live, 2.0)
    return draws.argsort(1).argsort(1) < needed.sum(1, keepdim=True)


@wrong("random_needed", "You draw from torch's global generator, and not from the one given.")
def from_the_global(needed, live, generator=None):
    return drawn(needed, live, None)


@wrong("random_needed", "You hand the sets of the inputs round. A set that another input needs is no random one.")
def handed_round(needed, live, generator=None):
    order = torch.randperm(len(needed), generator=generator)
    return needed[order]


@right("random_needed")
def row_by_row(needed, live, generator=None):
    return drawn(needed, live, generator)


@right("random_needed")
def by_top(needed, live, generator=None):
    keys = torch.rand(needed.shape, generator=generator) - 2.0 * ~live
    ranked = keys.sort(dim=1, descending=True).values
    n = needed.sum(1)
    border = ranked.gather(1, (n - 1).clamp(min=0)[:, None])
    return (keys >= border) & (n > 0)[:, None]
