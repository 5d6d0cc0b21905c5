"""Wrong answers for many tests at once, each with the sentence for a learner who made the mistake, and right ones."""

import torch

from utils.course.catalogue import right, wrong


def validated(p_values, alpha):
    if not 0 < alpha < 1 or p_values.ndim < 1 or p_values.shape[-1] < 1:
        raise ValueError("bad alpha or shape")
    if not bool(((p_values >= 0) & (p_values <= 1)).all()):
        raise ValueError("p_values must lie between 0 and 1")
    return p_values.shape[-1]


# bonferroni


@wrong(
    "bonferroni",
    "You divided the p-values by the number of tests. That makes every finding look stronger, the more the more one "
    "has looked. The correction multiplies.",
)
def divided(p_values, alpha=0.05):
    adjusted = p_values / validated(p_values, alpha)
    return adjusted <= alpha, adjusted


@wrong(
    "bonferroni",
    "Your adjusted p-values exceed 1, and no probability does. Cap them.",
)
def above_one(p_values, alpha=0.05):
    adjusted = p_values * validated(p_values, alpha)
    return adjusted <= alpha, adjusted


@wrong(
    "bonferroni",
    "What you reject is decided by the p-values as they came: the correction is computed and then not used. Compare "
    "the adjusted ones with alpha.",
)
def not_used(p_values, alpha=0.05):
    adjusted = (p_values * validated(p_values, alpha)).clamp(max=1)
    return p_values <= alpha, adjusted


@wrong(
    "bonferroni",
    "You count all p-values of the tensor as one family. Each row of the leading dimensions is a family of its own: "
    "only the last dimension counts tests.",
)
def one_large_family(p_values, alpha=0.05):
    validated(p_values, alpha)
    adjusted = (p_values * p_values.numel()).clamp(max=1)
    return adjusted <= alpha, adjusted


@wrong(
    "bonferroni",
    "`len(p_values)` counts the rows. With one row for each family, that is the number of families; the tests are "
    "counted by the last dimension.",
)
def counts_the_rows(p_values, alpha=0.05):
    validated(p_values, alpha)
    adjusted = (p_values * len(p_values)).clamp(max=1)
    return adjusted <= alpha, adjusted


@wrong(
    "bonferroni",
    "You compare with 0.05 whatever `alpha` says.",
)
def always_five_per_cent(p_values, alpha=0.05):
    adjusted = (p_values * validated(p_values, alpha)).clamp(max=1)
    return adjusted <= 0.05, adjusted


@wrong(
    "bonferroni",
    "This is Šidák's correction, 1 - (1 - p)^m: exact for independent tests, and no bound for others. Bonferroni's is "
    "m times p, which holds however the tests hang together.",
)
def sidak(p_values, alpha=0.05):
    adjusted = 1 - (1 - p_values) ** validated(p_values, alpha)
    return adjusted <= alpha, adjusted


@wrong(
    "bonferroni",
    "This is Holm's step-down procedure: the smallest p-value counts m times, the next m - 1 times. It is valid and "
    "rejects more, but it is another procedure; here every p-value counts m times.",
)
def holm(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    ordered, order = p_values.sort(dim=-1)
    factors = torch.arange(n_tests, 0, -1, dtype=p_values.dtype)
    adjusted = torch.empty_like(p_values).scatter(-1, order, (ordered * factors).cummax(-1).values.clamp(max=1))
    return adjusted <= alpha, adjusted


@wrong(
    "bonferroni",
    "An adjusted p-value that equals alpha is rejected: 'at most alpha' includes alpha.",
)
def strictly_below(p_values, alpha=0.05):
    adjusted = (p_values * validated(p_values, alpha)).clamp(max=1)
    return adjusted < alpha, adjusted


@right("bonferroni")
def limit_divided(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    return p_values <= alpha / n_tests, torch.minimum(n_tests * p_values, torch.ones_like(p_values))


@right("bonferroni")
def row_by_row(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    rows = [[min(1.0, p * n_tests) for p in row] for row in p_values.reshape(-1, n_tests).tolist()]
    adjusted = torch.tensor(rows, dtype=p_values.dtype).reshape(p_values.shape)
    return adjusted <= alpha, adjusted


# benjamini_hochberg


def from_ordered(p_values, alpha, adjust):
    """Adjusted p-values by a rule for ordered ones, back in the order given."""
    n_tests = validated(p_values, alpha)
    ordered, order = p_values.sort(dim=-1)
    ranks = torch.arange(1, n_tests + 1, dtype=p_values.dtype)
    adjusted = torch.empty_like(p_values).scatter(-1, order, adjust(ordered, ranks, n_tests))
    return adjusted <= alpha, adjusted


def least_from_here(values):
    return values.flip(-1).cummin(-1).values.flip(-1)


@wrong(
    "benjamini_hochberg",
    "You compare each p-value with its own limit and with nothing else. The procedure looks for the *largest* p-value "
    "that is below its limit, and rejects everything up to it: hence the minimum over j >= i in the formula.",
)
def each_with_its_own_limit(p_values, alpha=0.05):
    return from_ordered(p_values, alpha, lambda p, ranks, n: (p * n / ranks).clamp(max=1))


@wrong(
    "benjamini_hochberg",
    "You go up from the smallest p-value and stop at the first that is above its limit. The procedure comes from the "
    "other end: a later one below its limit takes all the earlier ones along.",
)
def stops_at_the_first(p_values, alpha=0.05):
    return from_ordered(p_values, alpha, lambda p, ranks, n: (p * n / ranks).cummax(-1).values.clamp(max=1))


@wrong(
    "benjamini_hochberg",
    "Your results are in the order of the sorted p-values. Put them back, so that entry i belongs to test i.",
)
def left_sorted(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    ranks = torch.arange(1, n_tests + 1, dtype=p_values.dtype)
    adjusted = least_from_here(p_values.sort(dim=-1).values * n_tests / ranks)
    return adjusted <= alpha, adjusted


@wrong(
    "benjamini_hochberg",
    "To put the results back, you indexed with the order itself. `order[k]` says where the k-th smallest came *from*; "
    "you need the way back: `scatter`, or the argsort of the argsort.",
)
def order_taken_for_its_inverse(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    ordered, order = p_values.sort(dim=-1)
    ranks = torch.arange(1, n_tests + 1, dtype=p_values.dtype)
    adjusted = least_from_here(ordered * n_tests / ranks).gather(-1, order)
    return adjusted <= alpha, adjusted


@wrong(
    "benjamini_hochberg",
    "You multiply by m and do not divide by the rank: that is Bonferroni's correction, which bounds the chance of even "
    "one false discovery. Here the k-th smallest p-value is compared with k times as much.",
)
def bonferroni_again(p_values, alpha=0.05):
    return from_ordered(p_values, alpha, lambda p, ranks, n: (p * n).clamp(max=1))


@wrong(
    "benjamini_hochberg",
    "You have a further factor, the sum of 1 / k. That is Benjamini and Yekutieli's variant for any dependence, which "
    "rejects less.",
)
def benjamini_yekutieli(p_values, alpha=0.05):
    def adjust(p, ranks, n):
        return least_from_here(p * n / ranks * (1 / ranks).sum()).clamp(max=1)

    return from_ordered(p_values, alpha, adjust)


@wrong(
    "benjamini_hochberg",
    "Your ranks run the wrong way: the smallest p-value has rank 1, not rank m.",
)
def ranks_reversed(p_values, alpha=0.05):
    return from_ordered(p_values, alpha, lambda p, ranks, n: least_from_here(p * n / ranks.flip(0)).clamp(max=1))


@wrong(
    "benjamini_hochberg",
    "You treat all p-values of the tensor as one family. Sort, rank and minimise along the last dimension only.",
)
def families_together(p_values, alpha=0.05):
    validated(p_values, alpha)
    _, adjusted = from_ordered(p_values.flatten(), alpha, lambda p, ranks, n: least_from_here(p * n / ranks))
    adjusted = adjusted.reshape(p_values.shape)
    return adjusted <= alpha, adjusted


@wrong(
    "benjamini_hochberg",
    "An adjusted p-value that equals alpha is rejected: 'at most alpha' includes alpha.",
)
def below_and_not_at(p_values, alpha=0.05):
    _, adjusted = from_ordered(p_values, alpha, lambda p, ranks, n: least_from_here(p * n / ranks))
    return adjusted < alpha, adjusted


@wrong(
    "benjamini_hochberg",
    "You give equal p-values the lowest of the ranks that they take up. The minimum runs over all j >= i, so that the "
    "last of equals counts for all of them.",
)
def equals_at_the_lowest_rank(p_values, alpha=0.05):
    def adjust(p, ranks, n):
        lowest = 1 + (p[..., None, :] < p[..., :, None]).sum(-1)
        return least_from_here(p * n / lowest).clamp(max=1)

    return from_ordered(p_values, alpha, adjust)


@wrong(
    "benjamini_hochberg",
    "`alpha` has no effect on what you reject.",
)
def five_per_cent_always(p_values, alpha=0.05):
    _, adjusted = from_ordered(p_values, alpha, lambda p, ranks, n: least_from_here(p * n / ranks))
    return adjusted <= 0.05, adjusted


@right("benjamini_hochberg")
def walk_down(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    adjusted = torch.empty_like(p_values).reshape(-1, n_tests)
    for row, p in zip(adjusted, p_values.reshape(-1, n_tests), strict=True):
        least = 1.0
        for rank, test in zip(range(n_tests, 0, -1), p.argsort(descending=True).tolist(), strict=True):
            least = min(least, p[test].item() * n_tests / rank)
            row[test] = least
    adjusted = adjusted.reshape(p_values.shape)
    return adjusted <= alpha, adjusted


@right("benjamini_hochberg")
def counted(p_values, alpha=0.05):
    """Without sorting: the rank of a p-value is the number of those that do not exceed it."""
    n_tests = validated(p_values, alpha)
    ranks = (p_values[..., None, :] <= p_values[..., :, None]).sum(-1)
    scaled = p_values * n_tests / ranks
    not_smaller = p_values[..., None, :] >= p_values[..., :, None]
    adjusted = torch.where(not_smaller, scaled[..., None, :], torch.inf).amin(-1).to(p_values.dtype)
    return adjusted <= alpha, adjusted


# max_statistic_permutation


def permuted(statistic, labels, n_permutations, generator):
    """What the statistic is under shuffled labels [permutation, test], after checking what came in."""
    if labels.ndim != 1 or n_permutations < 1:
        raise ValueError("bad labels or n_permutations")
    observed = statistic(labels)
    if observed.ndim != 1 or not observed.isfinite().all():
        raise ValueError("statistic must return a row of finite numbers")
    orders = [torch.randperm(len(labels), generator=generator) for _ in range(n_permutations)]
    return observed, torch.stack([statistic(labels[order]) for order in orders])


@wrong(
    "max_statistic_permutation",
    "You compare each test with its own permutations. That gives each test a p-value of its own, as if it were the "
    "only one; nothing is corrected. Compare it with the largest statistic of *all* tests in each permutation.",
)
def each_by_itself(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    return (1 + (null.abs() >= observed.abs()).sum(0)).to(observed.dtype) / (1 + n_permutations)


@wrong(
    "max_statistic_permutation",
    "Your p-values can be 0. The true labels are one of the possible orders too: count them, above and below the line.",
)
def zero_is_possible(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    return (null.abs().amax(1)[:, None] >= observed.abs()).sum(0).to(observed.dtype) / n_permutations


@wrong(
    "max_statistic_permutation",
    "You look at large positive statistics only. Far below 0 speaks against the null hypothesis as well: take absolute "
    "values of the observed and of the permuted ones.",
)
def one_side_only(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    return (1 + (null.amax(1)[:, None] >= observed).sum(0)).to(observed.dtype) / (1 + n_permutations)


@wrong(
    "max_statistic_permutation",
    "You take the maximum before the absolute value. A permutation whose most extreme statistic is negative then looks "
    "harmless. First the absolute values, then the maximum.",
)
def maximum_first(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    return (1 + (null.amax(1).abs()[:, None] >= observed.abs()).sum(0)).to(observed.dtype) / (1 + n_permutations)


@wrong(
    "max_statistic_permutation",
    "A permutation that does exactly as well as the true labels counts against them: >=, and not >.",
)
def ties_do_not_count(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    return (1 + (null.abs().amax(1)[:, None] > observed.abs()).sum(0)).to(observed.dtype) / (1 + n_permutations)


@wrong(
    "max_statistic_permutation",
    "You compare only the largest observed statistic with the permutations, and give every test its p-value. That "
    "answers whether there is anything at all, and not where.",
)
def only_the_best(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    count = (null.abs().amax(1) >= observed.abs().max()).sum()
    return ((1 + count).to(observed.dtype) / (1 + n_permutations)).expand(len(observed)).clone()


@wrong(
    "max_statistic_permutation",
    "Your values are right, and in float32 whatever the statistic is in: a count divided by a whole number is. Bring "
    "the count to the statistic's dtype before you divide.",
)
def counts_divided_as_they_are(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    return (1 + (null.abs().amax(1)[:, None] >= observed.abs()).sum(0)) / (1 + n_permutations)


@wrong(
    "max_statistic_permutation",
    "You draw labels with replacement: some occur twice and others not at all. That is a bootstrap. A permutation uses "
    "each label once.",
)
def with_replacement(statistic, labels, *, n_permutations, generator):
    observed, _ = permuted(statistic, labels, n_permutations, torch.Generator().manual_seed(0))
    count = torch.ones_like(observed)
    for _ in range(n_permutations):
        drawn = labels[torch.randint(len(labels), (len(labels),), generator=generator)]
        count += statistic(drawn).abs().max() >= observed.abs()
    return count / (1 + n_permutations)


@wrong(
    "max_statistic_permutation",
    "You count the permutations that stay *below* the observed statistic, so that strong effects get large p-values. "
    "Count those that reach it.",
)
def counted_below(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    return (1 + (null.abs().amax(1)[:, None] < observed.abs()).sum(0)).to(observed.dtype) / (1 + n_permutations)


@right("max_statistic_permutation")
def all_at_once(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    largest = torch.cat([observed.new_full((1,), torch.inf), null.abs().amax(1)])
    return (largest[:, None] >= observed.abs()).to(observed.dtype).mean(0)


@right("max_statistic_permutation")
def brought_to_the_dtype_last(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    reached = (null.abs().amax(1)[:, None] >= observed.abs()).sum(0)
    return ((1 + reached) / (1 + n_permutations)).to(observed.dtype)


@right("max_statistic_permutation")
def sorted_maxima(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    maxima = null.abs().amax(1).sort().values
    below = torch.searchsorted(maxima, observed.abs().contiguous())
    return (1 + n_permutations - below).to(observed.dtype) / (1 + n_permutations)
