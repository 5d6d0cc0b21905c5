"""Wrong answers for Shapley values, each with the sentence for a learner who made the mistake, and right ones."""

import itertools
import math

import torch

from utils.attribution.shapley import coalition_values, shapley_exact, shapley_kernel_weights
from utils.course.catalogue import right, wrong

# coalition_values


def examined(x, background, coalitions):
    if background.ndim != 2 or not len(background) or background.shape[1] != len(x):
        raise ValueError("bad background")
    if coalitions.ndim != 2 or coalitions.shape[1] != len(x):
        raise ValueError("bad coalitions")


def outputs(model, rows):
    with torch.no_grad():
        out = model(rows)
    if out.shape != (len(rows),):
        raise ValueError("model must return one number a row")
    return out


@wrong(
    "coalition_values",
    "You replace unknown features by 0. Zero is a value like any other, often one that no input has; what 'not "
    "known' means is what the background is for.",
)
def replaced_by_zero(model, x, background, coalitions):
    examined(x, background, coalitions)
    return outputs(model, torch.where(coalitions, x, torch.zeros_like(x)))


@wrong(
    "coalition_values",
    "You replace unknown features by the background's mean and call the model once. The output at the mean is not"
    " the mean of the outputs, and the mean of all rows need not resemble any of them.",
)
def replaced_by_the_mean(model, x, background, coalitions):
    examined(x, background, coalitions)
    return outputs(model, torch.where(coalitions, x, background.mean(0)))


@wrong(
    "coalition_values",
    "Your coalitions are the wrong way round: what should be known is replaced, and the rest is x's.",
)
def known_and_unknown_exchanged(model, x, background, coalitions):
    return coalition_values(model, x, background, ~coalitions)


@wrong(
    "coalition_values",
    "You use one row of the background, the first, and the value depends on who happens to stand there.",
)
def first_row_only(model, x, background, coalitions):
    return coalition_values(model, x, background[:1], coalitions)


@wrong(
    "coalition_values",
    "Your outputs are sorted into the wrong groups before they are averaged: each mean mixes coalitions. Which of"
    " the two, coalition or background row, runs faster along the rows that you give the model?",
)
def mixed_up_groups(model, x, background, coalitions):
    examined(x, background, coalitions)
    rows = torch.where(coalitions[:, None], x, background).flatten(0, 1)
    return outputs(model, rows).reshape(len(background), len(coalitions)).mean(0)


@wrong(
    "coalition_values",
    "You add the outputs up instead of averaging them, so that a larger background makes everything larger.",
)
def summed(model, x, background, coalitions):
    return coalition_values(model, x, background, coalitions) * len(background)


@wrong(
    "coalition_values",
    "Each unknown feature of yours comes from another row of the background. That tears apart what belongs "
    "together in the background as well; the docstring takes all of them from one row.",
)
def torn_rows(model, x, background, coalitions):
    examined(x, background, coalitions)
    shifted = torch.stack([background[:, j].roll(j) for j in range(len(x))], dim=1)
    return coalition_values(model, x, shifted, coalitions)


@wrong(
    "coalition_values",
    "You take the median over the background. The value of a coalition is a mean, and the axioms (values of a sum"
    " are sums of values) hold for means only.",
)
def median_over_the_background(model, x, background, coalitions):
    examined(x, background, coalitions)
    rows = torch.where(coalitions[:, None], x, background).flatten(0, 1)
    return outputs(model, rows).reshape(len(coalitions), -1).median(1).values


@wrong(
    "coalition_values",
    "Your values are right, and bad input goes through: an empty background gives NaN, and one with a single "
    "column is silently repeated for every feature.",
)
def whatever_broadcasts(model, x, background, coalitions):
    rows = torch.where(coalitions[:, None, :], x, background).flatten(0, 1)
    with torch.no_grad():
        out = model(rows)
    return out.reshape(len(coalitions), len(background), -1).mean((1, 2))


@wrong(
    "coalition_values",
    "Your values are right, and you call the model with gradients on: it keeps what a backward pass would need, once "
    "for each coalition and background row, and no such pass will come.",
)
def with_gradients(model, x, background, coalitions):
    def asked(rows):
        with torch.enable_grad():
            return model(rows)

    return coalition_values(asked, x, background, coalitions)


@wrong(
    "coalition_values",
    "Your values are rounded to float32, which is what torch.zeros and torch.tensor give unless you say otherwise. "
    "They should have the dtype of the model's output.",
)
def in_float32(model, x, background, coalitions):
    return coalition_values(model, x, background, coalitions).float()


@wrong(
    "coalition_values",
    "You take the mean output over the background off. The value of the empty coalition is that mean, and not 0; "
    "whoever needs differences forms them later.",
)
def less_the_empty(model, x, background, coalitions):
    return coalition_values(model, x, background, coalitions) - outputs(model, background).mean()


@wrong(
    "coalition_values",
    "Your values are right, and in float64 whatever the model puts out. The docstring says whose dtype they should "
    "have.",
)
def always_float64(model, x, background, coalitions):
    return coalition_values(model, x, background, coalitions).double()


@wrong(
    "coalition_values",
    "You call a model that returns a column [row, 1] right, by flattening it. The docstring asks for one number a row "
    "and an error for all else: what has two dimensions may next time have two columns.",
)
def column_flattened(model, x, background, coalitions):
    def flat(rows):
        out = model(rows)
        return out[:, 0] if out.ndim == 2 and out.shape[1] == 1 else out

    return coalition_values(flat, x, background, coalitions)


@right("coalition_values")
def coalition_by_coalition(model, x, background, coalitions):
    if not background.shape[0] or background.shape[1:] != x.shape or coalitions.shape[1:] != x.shape:
        raise ValueError("bad input")
    values = []
    for members in coalitions:
        rows = background.clone()
        rows[:, members] = x[members]
        values.append(outputs(model, rows).mean())
    return torch.stack(values)


@right("coalition_values")
def background_row_by_row(model, x, background, coalitions):
    examined(x, background, coalitions)
    known = coalitions.to(x.dtype)
    return torch.stack([outputs(model, known * x + (1 - known) * row) for row in background]).mean(0)


# shapley_exact


def weighted_gains(model, x, background, weight):
    """Sum over coalitions without each feature of weight(size, M) times the gain."""
    n = len(x)
    if n > 16:
        raise ValueError("too many features")
    members = torch.tensor(list(itertools.product([False, True], repeat=n)))
    values = coalition_values(model, x, background, members)
    place = 2 ** torch.arange(n - 1, -1, -1)
    weights = torch.tensor([weight(s, n) for s in range(n)], dtype=values.dtype)
    shares = []
    for i in range(n):
        out = (~members[:, i]).nonzero()[:, 0]
        shares.append((weights[members[out].sum(1)] * (values[out + place[i]] - values[out])).sum())
    return torch.stack(shares)


@wrong(
    "shapley_exact",
    "All your coalitions count the same (that is the Banzhaf value). Coalitions of middling size are the most "
    "numerous, and so they drown out the rest; the values do not add up to the output.",
)
def banzhaf(model, x, background):
    return weighted_gains(model, x, background, lambda s, n: 1 / 2 ** (n - 1))


@wrong(
    "shapley_exact",
    "You only ask what is lost when a feature leaves the full coalition. Two features that can stand in for one "
    "another then both get nothing.",
)
def leave_one_out(model, x, background):
    return weighted_gains(model, x, background, lambda s, n: float(s == n - 1))


@wrong(
    "shapley_exact",
    "You only ask what each feature brings on its own, to the empty coalition. What features do together is then "
    "nobody's.",
)
def add_one_in(model, x, background):
    return weighted_gains(model, x, background, lambda s, n: float(s == 0))


@wrong(
    "shapley_exact",
    "Your weights of all coalitions without a feature add up to M and not to 1: M positions in the order are "
    "equally likely, and each has a share of 1 / M.",
)
def m_times_too_much(model, x, background):
    return weighted_gains(model, x, background, lambda s, n: 1 / math.comb(n - 1, s))


@wrong(
    "shapley_exact",
    "You choose |S| out of all M features. S is a coalition without the feature in question, so there are only M "
    "- 1 to choose from.",
)
def chosen_from_all(model, x, background):
    return weighted_gains(model, x, background, lambda s, n: 1 / (n * math.comb(n, s)))


@wrong(
    "shapley_exact",
    "Your weight is that of the coalition after the feature joined: in the formula, |S| counts the others alone.",
)
def size_with_the_feature(model, x, background):
    return weighted_gains(
        model, x, background, lambda s, n: math.factorial(s + 1) * math.factorial(max(0, n - s - 2)) / math.factorial(n)
    )


@wrong(
    "shapley_exact",
    "Your values are right and in the reverse order. Check which bit of a coalition's number stands for which feature.",
)
def reversed_features(model, x, background):
    return shapley_exact(model, x, background).flip(0)


@wrong(
    "shapley_exact",
    "You take what each feature loses on leaving and stretch that until the sum is right. One axiom is then met "
    "by force, and the others are lost.",
)
def stretched_to_fit(model, x, background):
    losses = leave_one_out(model, x, background)
    return losses * shapley_exact(model, x, background).sum() / losses.sum()


@wrong(
    "shapley_exact",
    "Your values are right, and more than sixteen features go through. Each one more doubles the number of coalitions; "
    "the docstring says where to stop.",
)
def no_limit(model, x, background):
    if len(x) <= 16:
        return shapley_exact(model, x, background)
    if not len(background):
        raise ValueError("empty background")
    return torch.zeros_like(x)


@wrong(
    "shapley_exact",
    "You refuse sixteen features. The docstring says 'at most 16', and that includes 16.",
)
def fewer_than_sixteen(model, x, background):
    if len(x) >= 16:
        raise ValueError("too many features")
    return shapley_exact(model, x, background)


@wrong(
    "shapley_exact",
    "Your values add up to the output at x itself: the value of the empty coalition is shared out too. They should "
    "share what sets this output apart from the background's.",
)
def with_the_base(model, x, background):
    base = coalition_values(model, x, background, torch.zeros(1, len(x), dtype=torch.bool))[0]
    return shapley_exact(model, x, background) + base / len(x)


@wrong(
    "shapley_exact",
    "Your gains have the wrong sign: what a feature brings is the value with it less the value without it.",
)
def loss_for_gain(model, x, background):
    return -shapley_exact(model, x, background)


@wrong(
    "shapley_exact",
    "You compare with the background's mean, one input that nobody is. The value of a coalition is the mean output "
    "over all rows of the background, which is another number.",
)
def against_the_mean(model, x, background):
    if len(x) > 16 or not len(background):
        raise ValueError("bad input")
    return shapley_exact(model, x, background.mean(0, keepdim=True))


@wrong(
    "shapley_exact",
    "You divide by the total, so that your values add up to 1. They should add up to what there is to share, in units "
    "of the output, and that may be small or negative.",
)
def shares_of_one(model, x, background):
    values = shapley_exact(model, x, background)
    return values / values.sum()


@wrong(
    "shapley_exact",
    "You take absolute values: how much, without the direction. A feature that lowers the output is due a negative "
    "share, or the shares don't add up.",
)
def sizes_only(model, x, background):
    return shapley_exact(model, x, background).abs()


@wrong(
    "shapley_exact",
    "You leave the empty coalition out: what a feature brings when it arrives first is missing.",
)
def never_first(model, x, background):
    return weighted_gains(model, x, background, lambda s, n: 1 / (n * math.comb(n - 1, s)) if s else 0.0)


@wrong(
    "shapley_exact",
    "Your second factorial is one too large: of M features, |S| came before and the feature itself takes a place, so "
    "that M - |S| - 1 come after.",
)
def factorial_too_large(model, x, background):
    def weight(s, n):
        return math.factorial(s) * math.factorial(n - s) / math.factorial(n)

    return weighted_gains(model, x, background, weight)


@wrong(
    "shapley_exact",
    "Your values are right, and in the dtype of x. The docstring asks for that of the model's output, which may be "
    "another.",
)
def values_in_the_dtype_of_x(model, x, background):
    return shapley_exact(model, x, background).to(x.dtype)


@right("shapley_exact")
def all_orders_of_few(model, x, background):
    """By its definition where there are few orders, by the sum over coalitions where there are many."""
    n = len(x)
    if n > 6:
        return by_factorials(model, x, background)
    orders = torch.tensor(list(itertools.permutations(range(n))))
    steps = torch.arange(n + 1)[:, None]
    before = orders.argsort(1)[:, None, :] < steps
    values = coalition_values(model, x, background, before.flatten(0, 1)).reshape(len(orders), n + 1)
    credit = torch.zeros(len(orders), n, dtype=values.dtype).scatter(1, orders, values.diff(dim=1))
    return credit.mean(0)


@right("shapley_exact")
def by_factorials(model, x, background):
    def weight(s, n):
        return math.factorial(s) * math.factorial(n - s - 1) / math.factorial(n)

    return weighted_gains(model, x, background, weight)


@right("shapley_exact")
def with_a_dictionary(model, x, background):
    n = len(x)
    if n > 16:
        raise ValueError("too many features")
    every = [frozenset(c) for size in range(n + 1) for c in itertools.combinations(range(n), size)]
    members = torch.tensor([[i in c for i in range(n)] for c in every])
    value = dict(zip(every, coalition_values(model, x, background, members), strict=True))
    return torch.stack(
        [
            sum((value[c | {i}] - value[c]) / (n * math.comb(n - 1, len(c))) for c in every if i not in c)
            for i in range(n)
        ]
    )


# shapley_kernel_weights


def table(sizes, n_features, weight, ends=math.inf):
    if n_features < 1 or (sizes < 0).any() or (sizes > n_features).any():
        raise ValueError("bad input")
    inner = [weight(s, n_features) for s in range(1, n_features)]
    return torch.tensor([ends, *inner, ends], dtype=torch.float64)[sizes]


@wrong(
    "shapley_kernel_weights",
    "You leave out the factor M - s, and small coalitions outweigh large ones. What the model says about all "
    "features but one tells as much as what it says about one alone.",
)
def one_sided_kernel(sizes, n_features):
    return table(sizes, n_features, lambda s, n: (n - 1) / (math.comb(n, s) * s))


@wrong(
    "shapley_kernel_weights",
    "You leave out the number of coalitions of that size: this is what all of them weigh together, and yours is "
    "the weight of one.",
)
def weight_of_all_of_a_size(sizes, n_features):
    return table(sizes, n_features, lambda s, n: (n - 1) / (s * (n - s)))


@wrong(
    "shapley_kernel_weights",
    "Your numerator is M and not M - 1. The regression does not notice a common factor, but whoever adds these to"
    " other weights does.",
)
def numerator_m(sizes, n_features):
    return table(sizes, n_features, lambda s, n: n / (math.comb(n, s) * s * (n - s)))


@wrong(
    "shapley_kernel_weights",
    "The empty and the full coalition get no weight in your version: they are left out of the fit, where they "
    "should be fitted exactly.",
)
def ends_left_out(sizes, n_features):
    return table(sizes, n_features, lambda s, n: (n - 1) / (math.comb(n, s) * s * (n - s)), ends=0.0)


@wrong(
    "shapley_kernel_weights",
    "You write a million for infinity. Implementations often do that and get away with it; a weight is large only"
    " in comparison, and the docstring asks for the number itself.",
)
def a_million_at_the_ends(sizes, n_features):
    return table(sizes, n_features, lambda s, n: (n - 1) / (math.comb(n, s) * s * (n - s)), ends=1e6)


@wrong(
    "shapley_kernel_weights",
    "These are the weights of the gains in the sum over coalitions. The regression gives the same values from "
    "other weights, which is what its theorem is about.",
)
def weights_of_the_gains(sizes, n_features):
    return table(sizes, n_features, lambda s, n: math.factorial(s) * math.factorial(n - s - 1) / math.factorial(n))


@wrong(
    "shapley_kernel_weights",
    "You count coalitions of s out of M - 1 features. In the regression a coalition is any set of the M features.",
)
def coalitions_of_the_others(sizes, n_features):
    return table(sizes, n_features, lambda s, n: (n - 1) / (math.comb(n - 1, s) * s * (n - s)))


@wrong(
    "shapley_kernel_weights",
    "Your weights are right, and sizes that no coalition can have go through: -1 counts from the end of a table, "
    "or gives a weight of its own.",
)
def any_size(sizes, n_features):
    return shapley_kernel_weights(sizes.clamp(0, n_features), n_features)


@wrong(
    "shapley_kernel_weights",
    "Your weights are right, and no features at all go through. With M = 0 the only coalition is empty and full at "
    "once.",
)
def no_features_needed(sizes, n_features):
    return shapley_kernel_weights(sizes, n_features) if n_features else torch.full(sizes.shape, math.inf).double()


@wrong(
    "shapley_kernel_weights",
    "You divide by the sum of the weights. In the regression a common factor changes nothing, but the docstring's "
    "formula has none, and with infinite ends there is no sum.",
)
def adding_up_to_one(sizes, n_features):
    weights = shapley_kernel_weights(sizes, n_features)
    return weights / weights[weights.isfinite()].sum()


@wrong(
    "shapley_kernel_weights",
    "At the two ends your weight is 1. There the fit has to be exact, and only an infinite weight makes it so.",
)
def one_at_the_ends(sizes, n_features):
    return table(sizes, n_features, lambda s, n: (n - 1) / (math.comb(n, s) * s * (n - s)), ends=1.0)


@wrong(
    "shapley_kernel_weights",
    "At the two ends your weight is NaN, 0 divided by 0. There the fit has to be exact: infinite.",
)
def nan_at_the_ends(sizes, n_features):
    return table(sizes, n_features, lambda s, n: (n - 1) / (math.comb(n, s) * s * (n - s)), ends=math.nan)


@wrong(
    "shapley_kernel_weights",
    "Your numerator is 1 and not M - 1. The regression does not notice a common factor, but whoever adds these to "
    "other weights does.",
)
def numerator_one(sizes, n_features):
    return table(sizes, n_features, lambda s, n: 1 / (math.comb(n, s) * s * (n - s)))


@wrong(
    "shapley_kernel_weights",
    "Your weights are in float32, which is what torch makes of Python numbers unless you say otherwise: seven digits, "
    "where the docstring asks for float64.",
)
def weights_in_float32(sizes, n_features):
    return shapley_kernel_weights(sizes, n_features).float()


@right("shapley_kernel_weights")
def by_logarithms_of_factorials(sizes, n_features):
    if n_features < 1 or bool((sizes < 0).any()) or bool((sizes > n_features).any()):
        raise ValueError("bad input")
    s, n = sizes.double(), torch.tensor(float(n_features), dtype=torch.float64)
    log_count = torch.lgamma(n + 1) - torch.lgamma(s + 1) - torch.lgamma(n - s + 1)
    weights = (n - 1) / (log_count.exp() * s * (n - s))
    return torch.where((s == 0) | (s == n), math.inf, weights)


@right("shapley_kernel_weights")
def size_by_size(sizes, n_features):
    if n_features < 1:
        raise ValueError("no features")
    out = []
    for s in sizes.flatten().tolist():
        if not 0 <= s <= n_features:
            raise ValueError("no such size")
        product = math.comb(n_features, s) * s * (n_features - s)
        out.append((n_features - 1) / product if product else math.inf)
    return torch.tensor(out, dtype=torch.float64).reshape(sizes.shape)


# kernel_shap


def taken_whole(n_features, n_coalitions):
    """The coalitions of sizes that are taken whole, the other sizes, and how many coalitions are left for these."""
    n_all = 2**n_features - 2
    if n_coalitions is None and n_features > 16:
        raise ValueError("n_coalitions must be given")
    left = n_all if n_coalitions is None else min(n_coalitions, n_all)
    if left < min(2 * n_features + 2, n_all):
        raise ValueError("n_coalitions is too small")
    members, sizes = [], list(range(1, n_features))
    while sizes:
        ends = sorted({sizes[0], sizes[-1]})
        count = len(ends) * math.comb(n_features, ends[0])
        asked = left * len(ends) / (ends[0] * (n_features - ends[0])) / sum(1 / (s * (n_features - s)) for s in sizes)
        if ends[0] > 1 and asked < count - 1e-9:
            break
        members += [
            [i in c for i in range(n_features)] for s in ends for c in itertools.combinations(range(n_features), s)
        ]
        left, sizes = left - count, [s for s in sizes if s not in ends]
    return torch.tensor(members, dtype=torch.bool).reshape(-1, n_features), sizes, left


def of_sizes(sizes, n_features, generator):
    """A random coalition of each of these sizes."""
    ranks = torch.rand(len(sizes), n_features, generator=generator).argsort(1).argsort(1)
    return ranks < torch.as_tensor(sizes)[:, None]


def by_chance(sizes, n_features, n, generator):
    """Coalitions whose sizes have the chances 1 / (s (M - s))."""
    s = torch.tensor(sizes, dtype=torch.float64)
    drawn = torch.multinomial(1 / (s * (n_features - s)), n, replacement=True, generator=generator)
    return of_sizes(s[drawn], n_features, generator)


def with_complements(sizes, n_features, left, generator, draw=by_chance):
    half = draw(sizes, n_features, left // 2, generator)
    return torch.cat([half, ~half])


def chosen(x, n_coalitions, generator, *, draw=with_complements, weigh=None):
    """Coalitions and their weights: of whole sizes, and drawn ones, in which one thing can be set wrong."""
    n = len(x)
    members, sizes, left = taken_whole(n, n_coalitions)
    weights = shapley_kernel_weights(members.sum(1), n)
    if left:
        if generator is None:
            raise ValueError("generator must be given")
        more = draw(sizes, n, left, generator)
        share = (n - 1) * sum(1 / (s * (n - s)) for s in sizes) / len(more)
        more_weights = weigh(more, n, share) if weigh else torch.full((len(more),), share, dtype=torch.float64)
        members, weights = torch.cat([members, more]), torch.cat([weights, more_weights])
    return members, weights


def ends_and_values(model, x, background, members):
    ends = torch.zeros(2, len(x), dtype=torch.bool)
    ends[1] = True
    values = coalition_values(model, x, background, torch.cat([ends, members])).double()
    return values[0], values[1], values[2:]


def constrained(members, weights, gains, total):
    """The regression under its constraint, by a Lagrange multiplier."""
    n = members.shape[1]
    Z = members.double()
    system = torch.zeros(n + 1, n + 1, dtype=torch.float64)
    system[:n, :n] = Z.T @ (weights[:, None] * Z)
    system[n, :n] = system[:n, n] = 1
    target = torch.cat([Z.T @ (weights * gains), total.reshape(1)])
    return (torch.linalg.pinv(system) @ target)[:n]


def solved(model, x, background, members, weights):
    empty, full, values = ends_and_values(model, x, background, members)
    return constrained(members, weights, values - empty, full - empty).to(model(x[None]).dtype)


@wrong(
    "kernel_shap",
    "All coalitions count the same in your fit. Without the kernel, a regression gives some split of the output, "
    "and not Shapley's.",
)
def unweighted_fit(model, x, background, *, n_coalitions=None, generator=None):
    members, weights = chosen(x, n_coalitions, generator)
    return solved(model, x, background, members, torch.ones_like(weights))


@wrong(
    "kernel_shap",
    "You fit an intercept and put no constraint on the sum. The empty and the full coalition have infinite "
    "weight: the line has to pass through both.",
)
def no_constraint(model, x, background, *, n_coalitions=None, generator=None):
    members, weights = chosen(x, n_coalitions, generator)
    _, _, values = ends_and_values(model, x, background, members)
    Z = torch.cat([members.double(), torch.ones(len(members), 1, dtype=torch.float64)], dim=1)
    solution = torch.linalg.pinv(Z.T @ (weights[:, None] * Z)) @ (Z.T @ (weights * values))
    return solution[:-1].to(model(x[None]).dtype)


@wrong(
    "kernel_shap",
    "You fit without the constraint and multiply the result until the sum is right. That moves every value by the"
    " same factor; the constrained fit moves them by what costs least.",
)
def stretched_afterwards(model, x, background, *, n_coalitions=None, generator=None):
    members, weights = chosen(x, n_coalitions, generator)
    empty, full, values = ends_and_values(model, x, background, members)
    Z = members.double()
    free = torch.linalg.pinv(Z.T @ (weights[:, None] * Z)) @ (Z.T @ (weights * (values - empty)))
    total = full - empty
    return (free * total / free.sum() if len(x) > 1 else total[None]).to(model(x[None]).dtype)


@wrong(
    "kernel_shap",
    "You fit without the constraint and share what is missing from the sum equally. With all coalitions that is the "
    "same; drawn ones say more about some features than about others, and these should move less.",
)
def shifted_afterwards(model, x, background, *, n_coalitions=None, generator=None):
    members, weights = chosen(x, n_coalitions, generator)
    empty, full, values = ends_and_values(model, x, background, members)
    Z = members.double()
    free = torch.linalg.pinv(Z.T @ (weights[:, None] * Z)) @ (Z.T @ (weights * (values - empty)))
    return (free + (full - empty - free.sum()) / len(x)).to(model(x[None]).dtype)


@wrong(
    "kernel_shap",
    "You fit without the constraint and hand what is missing from the sum to the last feature. It then carries "
    "the errors of all the others.",
)
def rest_to_the_last(model, x, background, *, n_coalitions=None, generator=None):
    members, weights = chosen(x, n_coalitions, generator)
    empty, full, values = ends_and_values(model, x, background, members)
    Z = members.double()
    free = torch.linalg.pinv(Z.T @ (weights[:, None] * Z)) @ (Z.T @ (weights * (values - empty)))
    free[-1] = full - empty - free[:-1].sum()
    return free.to(model(x[None]).dtype)


@wrong(
    "kernel_shap",
    "You square the weights: rows that are multiplied by pi before a least-squares fit count with pi^2. Multiply "
    "by its root.",
)
def squared_weights(model, x, background, *, n_coalitions=None, generator=None):
    members, weights = chosen(x, n_coalitions, generator)
    return solved(model, x, background, members, weights**2)


@wrong(
    "kernel_shap",
    "Your values add up to the output at x itself. They share out what sets it apart from the background, so the "
    "value of the empty coalition has to be taken off.",
)
def without_the_base(model, x, background, *, n_coalitions=None, generator=None):
    members, weights = chosen(x, n_coalitions, generator)
    _, full, values = ends_and_values(model, x, background, members)
    return constrained(members, weights, values, full).to(model(x[None]).dtype)


@wrong(
    "kernel_shap",
    "You try all coalitions, whatever n_coalitions says. With 30 features that is a thousand million of them.",
)
def budget_ignored(model, x, background, *, n_coalitions=None, generator=None):
    _, _, left = taken_whole(len(x), n_coalitions)
    if left and generator is None:
        raise ValueError("generator must be given")
    if len(x) > 16:
        chosen_ones = chosen(x, 2 * n_coalitions, generator)
        return solved(model, x, background, *chosen_ones)
    return solved(model, x, background, *chosen(x, None, None))


@wrong(
    "kernel_shap",
    "Your drawn coalitions get the kernel's weight although they were drawn in proportion to it: it counts twice.",
)
def weighted_twice(model, x, background, *, n_coalitions=None, generator=None):
    def kernel(members, n, share):
        return shapley_kernel_weights(members.sum(1), n)

    return solved(model, x, background, *chosen(x, n_coalitions, generator, weigh=kernel))


@wrong(
    "kernel_shap",
    "Your drawn coalitions weigh 1 each. Alone that would do, as a common factor changes nothing; beside the sizes "
    "that are taken whole they have to weigh together what all coalitions of their sizes do.",
)
def drawn_weigh_one(model, x, background, *, n_coalitions=None, generator=None):
    def one(members, n, share):
        return torch.ones(len(members), dtype=torch.float64)

    return solved(model, x, background, *chosen(x, n_coalitions, generator, weigh=one))


@wrong(
    "kernel_shap",
    "Your drawn coalitions weigh twice what they should: you share the weight of their sizes among the pairs, and each "
    "pair is two coalitions.",
)
def shared_among_pairs(model, x, background, *, n_coalitions=None, generator=None):
    def double(members, n, share):
        return torch.full((len(members),), 2 * share, dtype=torch.float64)

    return solved(model, x, background, *chosen(x, n_coalitions, generator, weigh=double))


@wrong(
    "kernel_shap",
    "You draw from all coalitions of the remaining sizes with the same chance: most are of middling size, and the "
    "smaller and larger ones, which say more, hardly ever come up.",
)
def drawn_alike(model, x, background, *, n_coalitions=None, generator=None):
    def alike(sizes, n, count, generator):
        s = torch.tensor(sizes)
        chances = torch.tensor([float(math.comb(n, size)) for size in sizes], dtype=torch.float64)
        return of_sizes(s[torch.multinomial(chances, count, replacement=True, generator=generator)], n, generator)

    def draw(*args):
        return with_complements(*args, draw=alike)

    return solved(model, x, background, *chosen(x, n_coalitions, generator, draw=draw))


@wrong(
    "kernel_shap",
    "You draw all sizes with the same chance. A size's chance is what all its coalitions weigh together, 1 / (s (M - "
    "s)).",
)
def sizes_alike(model, x, background, *, n_coalitions=None, generator=None):
    def alike(sizes, n, count, generator):
        return of_sizes(torch.tensor(sizes)[torch.randint(len(sizes), (count,), generator=generator)], n, generator)

    def draw(*args):
        return with_complements(*args, draw=alike)

    return solved(model, x, background, *chosen(x, n_coalitions, generator, draw=draw))


@wrong(
    "kernel_shap",
    "You draw from all sizes, those included that have been taken whole already. These coalitions then count again.",
)
def drawn_from_all_sizes(model, x, background, *, n_coalitions=None, generator=None):
    def draw(sizes, n, left, generator):
        return with_complements(list(range(1, n)), n, left, generator)

    return solved(model, x, background, *chosen(x, n_coalitions, generator, draw=draw))


@wrong(
    "kernel_shap",
    "The features that you draw stand next to one another. A coalition of a given size can be any set of so "
    "many features, and each of these sets needs the same chance.",
)
def neighbours_together(model, x, background, *, n_coalitions=None, generator=None):
    def runs(sizes, n, count, generator):
        s = torch.tensor(sizes, dtype=torch.float64)
        drawn = s[torch.multinomial(1 / (s * (n - s)), count, replacement=True, generator=generator)]
        starts = torch.randint(n, (count, 1), generator=generator)
        return (torch.arange(n) - starts) % n < drawn[:, None]

    def draw(*args):
        return with_complements(*args, draw=runs)

    return solved(model, x, background, *chosen(x, n_coalitions, generator, draw=draw))


@wrong(
    "kernel_shap",
    "You draw every coalition on its own. The complement of each should follow it: where one happens to favour a "
    "feature, the other makes up for that.",
)
def without_complements(model, x, background, *, n_coalitions=None, generator=None):
    def draw(sizes, n, left, generator):
        return by_chance(sizes, n, left - left % 2, generator)

    return solved(model, x, background, *chosen(x, n_coalitions, generator, draw=draw))


@wrong(
    "kernel_shap",
    "Of an odd number you draw one coalition too many: half of it has to be rounded down, as each draw gives two.",
)
def one_too_many(model, x, background, *, n_coalitions=None, generator=None):
    def draw(sizes, n, left, generator):
        return with_complements(sizes, n, left + left % 2, generator)

    return solved(model, x, background, *chosen(x, n_coalitions, generator, draw=draw))


@wrong(
    "kernel_shap",
    "You draw as many *pairs* as there are coalitions left: each draw gives two, so it should be half as many.",
)
def twice_as_many(model, x, background, *, n_coalitions=None, generator=None):
    def draw(sizes, n, left, generator):
        return with_complements(sizes, n, 2 * left, generator)

    return solved(model, x, background, *chosen(x, n_coalitions, generator, draw=draw))


@wrong(
    "kernel_shap",
    "You draw all coalitions, and take no size whole. The features one by one, and all but one of them, weigh most and "
    "are few: drawing them over and again is a waste.",
)
def nothing_whole(model, x, background, *, n_coalitions=None, generator=None):
    members, _, left = taken_whole(len(x), n_coalitions)
    if not left:
        return solved(model, x, background, *chosen(x, n_coalitions, generator))
    if generator is None:
        raise ValueError("generator must be given")
    drawn = with_complements(list(range(1, len(x))), len(x), n_coalitions, generator)
    return solved(model, x, background, drawn, torch.ones(len(drawn), dtype=torch.float64))


@wrong(
    "kernel_shap",
    "You take the smallest and the largest coalitions and leave it at that: the other sizes are never asked, and what "
    "features do in larger groups is lost.",
)
def nothing_drawn(model, x, background, *, n_coalitions=None, generator=None):
    members, _, left = taken_whole(len(x), n_coalitions)
    if left and generator is None:
        raise ValueError("generator must be given")
    return solved(model, x, background, members, shapley_kernel_weights(members.sum(1), len(x)))


@wrong(
    "kernel_shap",
    "You draw with torch's global random numbers, for all or some of it: nobody can repeat your result. Hand the "
    "generator to everything that draws.",
)
def global_draws(model, x, background, *, n_coalitions=None, generator=None):
    own = torch.Generator().manual_seed(int(torch.randint(2**31, ())))
    return solved(model, x, background, *chosen(x, n_coalitions, generator and own))


@wrong(
    "kernel_shap",
    "Your values are right, and without a generator you draw all the same, with random numbers of your own "
    "choice. The docstring lists what to refuse.",
)
def own_generator(model, x, background, *, n_coalitions=None, generator=None):
    return solved(model, x, background, *chosen(x, n_coalitions, generator or torch.Generator().manual_seed(0)))


@wrong(
    "kernel_shap",
    "Your values are right, and a budget goes through that is too small to say anything about each feature. The "
    "docstring says where to stop.",
)
def any_budget(model, x, background, *, n_coalitions=None, generator=None):
    least = min(2 * len(x) + 2, 2 ** len(x) - 2)
    n_coalitions = n_coalitions if n_coalitions is None else max(n_coalitions, least)
    return solved(model, x, background, *chosen(x, n_coalitions, generator))


@wrong(
    "kernel_shap",
    "You leave the last column out of the regression and give its feature what is missing at the end. Its value has to "
    "be put into the line first: gains less z_M times the total, columns z_i - z_M.",
)
def last_left_out(model, x, background, *, n_coalitions=None, generator=None):
    members, weights = chosen(x, n_coalitions, generator)
    empty, full, values = ends_and_values(model, x, background, members)
    design = members[:, :-1].double()
    first = torch.linalg.pinv(design.T @ (weights[:, None] * design)) @ (design.T @ (weights * (values - empty)))
    return torch.cat([first, (full - empty - first.sum())[None]]).to(model(x[None]).dtype)


@wrong(
    "kernel_shap",
    "Your values are right, and in float64 whatever the model puts out. The docstring says whose dtype they should "
    "have.",
)
def left_in_float64(model, x, background, *, n_coalitions=None, generator=None):
    members, weights = chosen(x, n_coalitions, generator)
    empty, full, values = ends_and_values(model, x, background, members)
    return constrained(members, weights, values - empty, full - empty)


@wrong(
    "kernel_shap",
    "Beside the sizes that are taken whole, your drawn coalitions weigh too little by a factor of M - 1: all "
    "coalitions of size s together weigh (M - 1) / (s (M - s)), and you left the numerator out.",
)
def without_the_numerator(model, x, background, *, n_coalitions=None, generator=None):
    def light(members, n, share):
        return torch.full((len(members),), share / (n - 1), dtype=torch.float64)

    return solved(model, x, background, *chosen(x, n_coalitions, generator, weigh=light))


@wrong(
    "kernel_shap",
    "You draw sizes with the weight of *one* coalition of that size. All of them together weigh as many times that as "
    "there are, in proportion to 1 / (s (M - s)).",
)
def chance_of_one(model, x, background, *, n_coalitions=None, generator=None):
    def rare(sizes, n, count, generator):
        chances = torch.tensor([1 / (s * (n - s) * math.comb(n, s)) for s in sizes], dtype=torch.float64)
        drawn = torch.multinomial(chances, count, replacement=True, generator=generator)
        return of_sizes(torch.tensor(sizes)[drawn], n, generator)

    def draw(*args):
        return with_complements(*args, draw=rare)

    return solved(model, x, background, *chosen(x, n_coalitions, generator, draw=draw))


@wrong(
    "kernel_shap",
    "Your columns are z_i - z_M, and the gains are as they came. Whoever puts the last value in as the total less the "
    "others also has to take z_M times the total off the gains.",
)
def total_not_taken_off(model, x, background, *, n_coalitions=None, generator=None):
    members, weights = chosen(x, n_coalitions, generator)
    empty, full, values = ends_and_values(model, x, background, members)
    Z, total = members.double(), full - empty
    return constrained(members, weights, values - empty + Z[:, -1] * total, total).to(model(x[None]).dtype)


@wrong(
    "kernel_shap",
    "You add the full coalition to the regression with a large weight. The sum is then nearly right; the docstring's "
    "is exact.",
)
def large_weight_for_the_sum(model, x, background, *, n_coalitions=None, generator=None):
    members, weights = chosen(x, n_coalitions, generator)
    empty, full, values = ends_and_values(model, x, background, members)
    Z = torch.cat([members, torch.ones(1, len(x), dtype=torch.bool)]).double()
    weights, gains = torch.cat([weights, weights.new_tensor([1e6])]), torch.cat([values - empty, (full - empty)[None]])
    solution = torch.linalg.pinv(Z.T @ (weights[:, None] * Z)) @ (Z.T @ (weights * gains))
    return solution.to(model(x[None]).dtype)


@wrong(
    "kernel_shap",
    "Your values are right, and in the dtype of x. The docstring asks for that of the model's output, which may be "
    "another.",
)
def shares_in_the_dtype_of_x(model, x, background, *, n_coalitions=None, generator=None):
    return solved(model, x, background, *chosen(x, n_coalitions, generator)).to(x.dtype)


@wrong(
    "kernel_shap",
    "You fit without the constraint. The full coalition is not among those that are weighed, so nothing makes the "
    "values add up to what there is to share.",
)
def left_unconstrained(model, x, background, *, n_coalitions=None, generator=None):
    members, weights = chosen(x, n_coalitions, generator)
    empty, full, values = ends_and_values(model, x, background, members)
    Z = members.double()
    free = torch.linalg.pinv(Z.T @ (weights[:, None] * Z)) @ (Z.T @ (weights * (values - empty)))
    return (free if len(x) > 1 else (full - empty)[None]).to(model(x[None]).dtype)


@wrong(
    "kernel_shap",
    "You drop coalitions that were drawn before. A draw that repeats another one still counts: how often a coalition "
    "comes up stands for what it weighs.",
)
def repeats_dropped(model, x, background, *, n_coalitions=None, generator=None):
    def draw(*args):
        return with_complements(*args).unique(dim=0)

    return solved(model, x, background, *chosen(x, n_coalitions, generator, draw=draw))


@wrong(
    "kernel_shap",
    "One of the sizes to draw from never comes up as a draw, the smallest or the largest; it is there only as a "
    "complement, half as often as it should be. In a slice the end is not part of it.",
)
def one_end_left_out(model, x, background, *, n_coalitions=None, generator=None):
    def draw(sizes, n, left, generator):
        return with_complements(sizes[:-1] or sizes, n, left, generator)

    return solved(model, x, background, *chosen(x, n_coalitions, generator, draw=draw))


@wrong(
    "kernel_shap",
    "A generator that has moved on gives you the same draws again: you seed it anew, or take no more from it than its "
    "seed. Draw from it as it stands, or two calls with one generator are one.",
)
def from_the_seed(model, x, background, *, n_coalitions=None, generator=None):
    own = generator and torch.Generator().manual_seed(generator.initial_seed())
    return solved(model, x, background, *chosen(x, n_coalitions, own))


@right("kernel_shap")
def each_coalition_once(model, x, background, *, n_coalitions=None, generator=None):
    """Coalitions that were drawn several times are evaluated once, with the sum of their weights."""
    members, weights = chosen(x, n_coalitions, generator)
    if len(members):
        members, place = members.unique(dim=0, return_inverse=True)
        weights = torch.zeros(len(members), dtype=torch.float64).scatter_add(0, place, weights)
    return solved(model, x, background, members, weights)


@right("kernel_shap")
def by_a_lagrange_multiplier(model, x, background, *, n_coalitions=None, generator=None):
    return solved(model, x, background, *chosen(x, n_coalitions, generator))


@right("kernel_shap")
def by_elimination_and_least_squares(model, x, background, *, n_coalitions=None, generator=None):
    members, weights = chosen(x, n_coalitions, generator)
    empty, full, values = ends_and_values(model, x, background, members)
    total, root, Z = full - empty, weights.sqrt(), members.double()
    if len(x) == 1:
        return total[None]
    A = root[:, None] * (Z[:, 1:] - Z[:, :1])
    rest = torch.linalg.lstsq(A, (root * (values - empty - Z[:, 0] * total))[:, None]).solution[:, 0]
    return torch.cat([(total - rest.sum())[None], rest]).to(model(x[None]).dtype)


# shapley_sampling


def random_orders(n, n_features, generator):
    return torch.stack([torch.randperm(n_features, generator=generator) for _ in range(n)])


def credits_of(model, x, background, orders):
    """Gains of each feature at its arrival, for each order; orders[k, j] is the feature that comes j-th."""
    k, n = orders.shape
    rank = orders.argsort(1)
    members = rank[:, None, :] < torch.arange(n + 1)[:, None]
    values = coalition_values(model, x, background, members.flatten(0, 1)).reshape(k, n + 1)
    return (values[:, 1:] - values[:, :-1]).gather(1, rank)


def refuse(n_permutations):
    if n_permutations < 2:
        raise ValueError("n_permutations must be at least 2")


@wrong(
    "shapley_sampling",
    "Your standard errors are standard deviations: they say how much one order differs from another and do not "
    "shrink as orders are added. The mean of n of them is more certain than any one.",
)
def deviation_for_error(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    credits = credits_of(model, x, background, random_orders(n_permutations, len(x), generator))
    return credits.mean(0), credits.std(0)


@wrong(
    "shapley_sampling",
    "You divide by n and not by n - 1 in the standard deviation. The mean was taken from the same orders, and "
    "lies closer to them than the true one does.",
)
def divided_by_n(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    credits = credits_of(model, x, background, random_orders(n_permutations, len(x), generator))
    return credits.mean(0), credits.std(0, correction=0) / n_permutations**0.5


@wrong(
    "shapley_sampling",
    "You divide the standard deviation by n and not by its root: your intervals are far too narrow, and the exact"
    " value lies outside them.",
)
def divided_by_n_itself(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    credits = credits_of(model, x, background, random_orders(n_permutations, len(x), generator))
    return credits.mean(0), credits.std(0) / n_permutations


@wrong(
    "shapley_sampling",
    "You draw one order and use it every time. All its gains agree, so the standard error is 0, and the estimate "
    "is that of a single order.",
)
def one_order(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    orders = random_orders(1, len(x), generator).expand(n_permutations, -1)
    credits = credits_of(model, x, background, orders)
    return credits.mean(0), credits.std(0) / n_permutations**0.5


@wrong(
    "shapley_sampling",
    "Your orders are rotations of one another: each feature is at each place equally often, but who comes right after "
    "whom is nearly always the same. All orders need the same chance.",
)
def rotations(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    starts = torch.randint(len(x), (n_permutations, 1), generator=generator)
    credits = credits_of(model, x, background, (torch.arange(len(x)) + starts) % len(x))
    return credits.mean(0), credits.std(0) / n_permutations**0.5


@wrong(
    "shapley_sampling",
    "You average the gains by place in the order and not by feature: entry 0 is what the first to arrive gains, "
    "whoever that is.",
)
def by_place(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    orders = random_orders(n_permutations, len(x), generator)
    by_feature = credits_of(model, x, background, orders)
    gains = by_feature.gather(1, orders)
    return gains.mean(0), gains.std(0) / n_permutations**0.5


@wrong(
    "shapley_sampling",
    "You mix up an order and its inverse: 'who comes third' and 'at which place does feature 3 come' are two "
    "different lists, and gains end up with the wrong features.",
)
def order_for_rank(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    orders = random_orders(n_permutations, len(x), generator)
    gains = credits_of(model, x, background, orders).gather(1, orders)
    mixed = gains.gather(1, orders)
    return mixed.mean(0), mixed.std(0) / n_permutations**0.5


@wrong(
    "shapley_sampling",
    "You try each feature on random coalitions, with every coalition equally likely. In a random order all sizes "
    "are equally likely, and your estimates do not add up.",
)
def random_coalitions(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    members = torch.rand(n_permutations, 1, len(x), generator=generator) < 0.5
    diagonal = torch.eye(len(x), dtype=torch.bool)
    both = torch.cat([(members | diagonal).flatten(0, 1), (members & ~diagonal).flatten(0, 1)])
    values = coalition_values(model, x, background, both).reshape(2, n_permutations, len(x))
    gains = values[0] - values[1]
    return gains.mean(0), gains.std(0) / n_permutations**0.5


@wrong(
    "shapley_sampling",
    "You follow each order by its reverse. The estimates stay right, but the two are not independent, and your "
    "standard error counts them as if they were.",
)
def with_its_reverse(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    orders = random_orders((n_permutations + 1) // 2, len(x), generator)
    orders = torch.stack([orders, orders.flip(1)], 1).flatten(0, 1)[:n_permutations]
    credits = credits_of(model, x, background, orders)
    return credits.mean(0), credits.std(0) / n_permutations**0.5


@wrong(
    "shapley_sampling",
    "You try a hundred orders, whatever n_permutations says.",
)
def a_hundred_orders(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    credits = credits_of(model, x, background, random_orders(100, len(x), generator))
    return credits.mean(0), credits.std(0) / 10


@wrong(
    "shapley_sampling",
    "Your orders come from torch's global random numbers: nobody can repeat your result. Hand the generator on.",
)
def global_orders(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    credits = credits_of(model, x, background, random_orders(n_permutations, len(x), None))
    return credits.mean(0), credits.std(0) / n_permutations**0.5


@wrong(
    "shapley_sampling",
    "Your estimates are right, and a single order goes through: its standard error is 0 divided by 0.",
)
def one_is_enough(model, x, background, *, n_permutations, generator):
    credits = credits_of(model, x, background, random_orders(n_permutations, len(x), generator))
    variance = (credits - credits.mean(0)).square().sum(0) / (n_permutations - 1)
    return credits.mean(0), (variance / n_permutations).sqrt()


@wrong(
    "shapley_sampling",
    "Your standard errors are squared: the variance of a mean is the variance over n, and its standard error the root "
    "of that.",
)
def variance_of_the_mean(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    credits = credits_of(model, x, background, random_orders(n_permutations, len(x), generator))
    return credits.mean(0), credits.var(0) / n_permutations


@wrong(
    "shapley_sampling",
    "You divide the sample standard deviation by the root of n - 1. The n - 1 belongs inside, in the deviation; the "
    "mean is one of n orders.",
)
def root_of_n_minus_one(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    credits = credits_of(model, x, background, random_orders(n_permutations, len(x), generator))
    return credits.mean(0), credits.std(0) / (n_permutations - 1) ** 0.5


@wrong(
    "shapley_sampling",
    "The mean is over another number of orders than n_permutations. Count how many you draw.",
)
def one_order_more(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    credits = credits_of(model, x, background, random_orders(n_permutations + 1, len(x), generator))
    return credits.mean(0), credits.std(0) / (n_permutations + 1) ** 0.5


@wrong(
    "shapley_sampling",
    "Your orders keep a trace of the order of the columns. A shuffle that swaps each place with *any* other does that, "
    "and so does one that stops too early: not every order then has the same chance.",
)
def naive_shuffle(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    every = torch.arange(n_permutations)
    orders = torch.arange(len(x)).repeat(n_permutations, 1)
    for place in range(len(x)):
        other = torch.randint(len(x), (n_permutations,), generator=generator)
        orders[every, other], orders[:, place] = orders[:, place].clone(), orders[every, other].clone()
    credits = credits_of(model, x, background, orders)
    return credits.mean(0), credits.std(0) / n_permutations**0.5


@wrong(
    "shapley_sampling",
    "You draw no order twice. That makes the mean more exact than your standard error says; the docstring has every "
    "order drawn independently of the others.",
)
def without_replacement(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    orders = random_orders(n_permutations, len(x), generator)
    if len(x) <= 6 and n_permutations <= math.factorial(len(x)):
        every = torch.tensor(list(itertools.permutations(range(len(x)))))
        orders = every[torch.randperm(len(every), generator=generator)[:n_permutations]]
    credits = credits_of(model, x, background, orders)
    return credits.mean(0), credits.std(0) / n_permutations**0.5


@wrong(
    "shapley_sampling",
    "Your estimates are right, and in the dtype of x. The docstring asks for that of the model's output, which may be "
    "another.",
)
def estimates_in_the_dtype_of_x(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    credits = credits_of(model, x, background, random_orders(n_permutations, len(x), generator))
    return credits.mean(0).to(x.dtype), (credits.std(0) / n_permutations**0.5).to(x.dtype)


@right("shapley_sampling")
def with_permutations_from_randperm(model, x, background, *, n_permutations, generator):
    refuse(n_permutations)
    credits = credits_of(model, x, background, random_orders(n_permutations, len(x), generator))
    return credits.mean(0), (credits.var(0) / n_permutations).sqrt()


@right("shapley_sampling")
def order_by_order(model, x, background, *, n_permutations, generator):
    if not n_permutations >= 2:
        raise ValueError("n_permutations must be at least 2")
    credits = []
    for _ in range(n_permutations):
        order = torch.randperm(len(x), generator=generator)
        members = torch.zeros(len(x) + 1, len(x), dtype=torch.bool)
        for place, feature in enumerate(order):
            members[place + 1 :, feature] = True
        values = coalition_values(model, x, background, members)
        credit = torch.empty_like(values[1:])
        credit[order] = values.diff()
        credits.append(credit)
    credits = torch.stack(credits)
    return credits.mean(0), credits.std(0) / n_permutations**0.5
