"""Wrong answers for many tests at once, each with the sentence for a learner who made the mistake, and right ones."""

import numpy as np
import torch

from utils.course.catalogue import right, wrong


def validated(p_values, alpha):
    if not 0 < alpha < 1 or p_values.ndim < 1 or p_values.shape[-1] < 1:
        raise ValueError("bad alpha or shape")
    if not bool(((p_values >= 0) & (p_values <= 1)).all()):
        raise ValueError("p_values must lie between 0 and 1")
    return p_values.shape[-1]


def at_most(adjusted, alpha):
    """Which adjusted p-values are at most alpha, equal but for rounding included."""
    return adjusted <= alpha * (1 + 1e-9) if adjusted.dtype == torch.float64 else adjusted <= alpha


# bonferroni


@wrong(
    "bonferroni",
    "You divided the p-values by the number of tests. That makes every finding look stronger, the more the more one "
    "has looked. The correction multiplies.",
)
def divided(p_values, alpha=0.05):
    adjusted = p_values / validated(p_values, alpha)
    return at_most(adjusted, alpha), adjusted


@wrong(
    "bonferroni",
    "Your adjusted p-values exceed 1, and no probability does. Cap them.",
)
def above_one(p_values, alpha=0.05):
    adjusted = p_values * validated(p_values, alpha)
    return at_most(adjusted, alpha), adjusted


@wrong(
    "bonferroni",
    "What you reject is decided by the p-values as they came: the correction is computed and then not used. Compare "
    "the adjusted ones with alpha.",
)
def not_used(p_values, alpha=0.05):
    adjusted = (p_values * validated(p_values, alpha)).clamp(max=1)
    return at_most(p_values, alpha), adjusted


@wrong(
    "bonferroni",
    "You count all p-values of the tensor as one family. Each row of the leading dimensions is a family of its own: "
    "only the last dimension counts tests.",
)
def one_large_family(p_values, alpha=0.05):
    validated(p_values, alpha)
    adjusted = (p_values * p_values.numel()).clamp(max=1)
    return at_most(adjusted, alpha), adjusted


@wrong(
    "bonferroni",
    "`len(p_values)` counts the rows. With one row for each family, that is the number of families; the tests are "
    "counted by the last dimension.",
)
def counts_the_rows(p_values, alpha=0.05):
    validated(p_values, alpha)
    adjusted = (p_values * len(p_values)).clamp(max=1)
    return at_most(adjusted, alpha), adjusted


@wrong(
    "bonferroni",
    "You compare with 0.05 whatever `alpha` says.",
)
def always_five_per_cent(p_values, alpha=0.05):
    adjusted = (p_values * validated(p_values, alpha)).clamp(max=1)
    return at_most(adjusted, 0.05), adjusted


@wrong(
    "bonferroni",
    "This is Šidák's correction, 1 - (1 - p)^m: exact for independent tests, and no bound for others. Bonferroni's is "
    "m times p, which holds however the tests hang together.",
)
def sidak(p_values, alpha=0.05):
    adjusted = 1 - (1 - p_values) ** validated(p_values, alpha)
    return at_most(adjusted, alpha), adjusted


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
    return at_most(adjusted, alpha), adjusted


@wrong(
    "bonferroni",
    "An adjusted p-value that equals alpha is rejected: 'at most alpha' includes alpha.",
)
def strictly_below(p_values, alpha=0.05):
    adjusted = (p_values * validated(p_values, alpha)).clamp(max=1)
    return adjusted < alpha * (1 - 1e-9), adjusted


@wrong(
    "bonferroni",
    "You compare with alpha to the last bit. 3 * 0.05 is 0.15000000000000002 in floating point, so that a p-value at "
    "its limit is sometimes rejected and sometimes not, as rounding has it. Leave room for a few units in the last "
    "place.",
)
def to_the_last_bit(p_values, alpha=0.05):
    adjusted = (p_values * validated(p_values, alpha)).clamp(max=1)
    return adjusted <= alpha, adjusted


@wrong(
    "bonferroni",
    "What you take for equal is too much: you also let p-values through that are above their limit, and not by "
    "rounding (as `isclose` does with its usual tolerance). A few units in the last place are enough.",
)
def generously_equal(p_values, alpha=0.05):
    adjusted = (p_values * validated(p_values, alpha)).clamp(max=1)
    return (adjusted < alpha) | torch.isclose(adjusted, torch.full_like(adjusted, alpha)), adjusted


@wrong(
    "bonferroni",
    "You return the limit alpha / m in place of the adjusted p-values. An adjusted p-value is compared with alpha "
    "itself.",
)
def limit_for_adjusted(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    return at_most(n_tests * p_values, alpha), torch.full_like(p_values, alpha / n_tests)


@wrong(
    "bonferroni",
    "Your adjusted p-values are the p-values as they came. What you reject is right; whoever reads the second part "
    "finds nothing corrected.",
)
def adjusted_as_they_came(p_values, alpha=0.05):
    return at_most(p_values * validated(p_values, alpha), alpha), p_values.clone()


@wrong(
    "bonferroni",
    "NaN goes through, as a p-value or as alpha: no comparison with NaN is true, `p_values < 0` included. Ask for what "
    "they should be, and refuse all else.",
)
def nan_goes_through(p_values, alpha=0.05):
    validated(p_values.nan_to_num(), 0.5 if alpha != alpha else alpha)
    adjusted = (p_values * p_values.shape[-1]).clamp(max=1)
    return at_most(adjusted, alpha), adjusted


@wrong(
    "bonferroni",
    "You look at neither the p-values nor alpha before you use them: a p-value of 1.01 is a mistake that somebody made "
    "earlier, and goes unnoticed here.",
)
def nothing_refused(p_values, alpha=0.05):
    adjusted = (p_values * p_values.shape[-1]).clamp(max=1)
    return at_most(adjusted, alpha), adjusted


@wrong(
    "bonferroni",
    "A level of 0 or 1 goes through: at 0 nothing can ever be rejected, at 1 everything is.",
)
def any_level(p_values, alpha=0.05):
    validated(p_values, alpha if alpha != alpha else 0.5)
    adjusted = (p_values * p_values.shape[-1]).clamp(max=1)
    return at_most(adjusted, alpha), adjusted


@wrong(
    "bonferroni",
    "You correct twice: the adjusted p-values are m times the p-values already, and are compared with alpha, not with "
    "alpha / m.",
)
def corrected_twice(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    adjusted = (p_values * n_tests).clamp(max=1)
    return at_most(adjusted, alpha / n_tests), adjusted


@wrong(
    "bonferroni",
    "You multiply by m - 1. The test itself counts as well: m.",
)
def one_test_fewer(p_values, alpha=0.05):
    adjusted = (p_values * (validated(p_values, alpha) - 1)).clamp(max=1)
    return at_most(adjusted, alpha), adjusted


@wrong(
    "bonferroni",
    "Your two parts are exchanged: what is rejected comes first, the adjusted p-values come second.",
)
def parts_exchanged(p_values, alpha=0.05):
    adjusted = (p_values * validated(p_values, alpha)).clamp(max=1)
    return adjusted, at_most(adjusted, alpha)


@right("bonferroni")
def in_numpy(p_values, alpha=0.05):
    validated(p_values, alpha)
    p = p_values.numpy()
    adjusted = np.minimum(1, p * p.shape[-1])
    close = np.isclose(adjusted, alpha, rtol=1e-12, atol=0)
    return torch.from_numpy((adjusted < alpha) | close), torch.from_numpy(adjusted)


@right("bonferroni")
def limit_divided(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    return at_most(p_values, alpha / n_tests), torch.minimum(n_tests * p_values, torch.ones_like(p_values))


@right("bonferroni")
def row_by_row(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    rows = [[min(1.0, p * n_tests) for p in row] for row in p_values.reshape(-1, n_tests).tolist()]
    adjusted = torch.tensor(rows, dtype=p_values.dtype).reshape(p_values.shape)
    return at_most(adjusted, alpha), adjusted


# benjamini_hochberg


def from_ordered(p_values, alpha, adjust):
    """Adjusted p-values by a rule for ordered ones, back in the order given."""
    n_tests = validated(p_values, alpha)
    ordered, order = p_values.sort(dim=-1)
    ranks = torch.arange(1, n_tests + 1, dtype=p_values.dtype)
    adjusted = torch.empty_like(p_values).scatter(-1, order, adjust(ordered, ranks, n_tests))
    return at_most(adjusted, alpha), adjusted


def at_most_limit(ordered, limits):
    return ordered <= limits * (1 + 1e-9)


def least_from_here(values):
    return values.flip(-1).cummin(-1).values.flip(-1)


@wrong(
    "benjamini_hochberg",
    "Your adjusted p-values compare each p-value with its own limit and with nothing else. The procedure looks for the "
    "*largest* p-value that is below its limit, and rejects everything up to it: hence the minimum over j >= i.",
)
def each_with_its_own_limit(p_values, alpha=0.05):
    return from_ordered(p_values, alpha, lambda p, ranks, n: p * n / ranks)


@wrong(
    "benjamini_hochberg",
    "The minimum over j >= i is missing. Capping at 1 does not replace it: it also makes p-values smaller whose own m "
    "* p / rank is far below 1, if a later one's is lower still.",
)
def capped_and_no_minimum(p_values, alpha=0.05):
    return from_ordered(p_values, alpha, lambda p, ranks, n: (p * n / ranks).clamp(max=1))


@wrong(
    "benjamini_hochberg",
    "Your minimum runs over the smaller p-values, j <= i, and not over the larger ones: `cummin` goes from the left. "
    "The smallest p-value then decides for nearly all.",
)
def minimum_from_the_left(p_values, alpha=0.05):
    return from_ordered(p_values, alpha, lambda p, ranks, n: (p * n / ranks).cummin(-1).values)


@wrong(
    "benjamini_hochberg",
    "Your ranks begin at 0, where the smallest p-value should have rank 1.",
)
def ranks_from_zero(p_values, alpha=0.05):
    return from_ordered(p_values, alpha, lambda p, ranks, n: least_from_here(p * n / (ranks - 1)))


@wrong(
    "benjamini_hochberg",
    "You sort p-values that have been sorted already by taking the order for the ranks: `order[k]` is the test that "
    "comes k-th, and not the rank of test k. That is the inverse, the argsort of the argsort.",
)
def order_taken_for_ranks(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    scaled = p_values * n_tests / (p_values.argsort(dim=-1) + 1)
    ordered, order = p_values.sort(dim=-1)
    least = least_from_here(scaled.gather(-1, order))
    adjusted = torch.empty_like(p_values).scatter(-1, order, least)
    return at_most(adjusted, alpha), adjusted


@wrong(
    "benjamini_hochberg",
    "You go up from the smallest p-value and stop at the first that is above its limit. The procedure comes from the "
    "other end: a later one below its limit takes all the earlier ones along.",
)
def stops_at_the_first(p_values, alpha=0.05):
    return from_ordered(p_values, alpha, lambda p, ranks, n: (p * n / ranks).cummax(-1).values)


@wrong(
    "benjamini_hochberg",
    "Your adjusted p-values are in the order of the sorted p-values. Both parts belong in the order given, so that "
    "entry i is about test i.",
)
def left_sorted(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    ranks = torch.arange(1, n_tests + 1, dtype=p_values.dtype)
    adjusted = least_from_here(p_values.sort(dim=-1).values * n_tests / ranks)
    return at_most(adjusted, alpha), adjusted


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
    return at_most(adjusted, alpha), adjusted


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
    return at_most(adjusted, alpha), adjusted


@wrong(
    "benjamini_hochberg",
    "An adjusted p-value that equals alpha is rejected: 'at most alpha' includes alpha.",
)
def below_and_not_at(p_values, alpha=0.05):
    _, adjusted = from_ordered(p_values, alpha, lambda p, ranks, n: least_from_here(p * n / ranks))
    return adjusted < alpha * (1 - 1e-9), adjusted


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
    return at_most(adjusted, 0.05), adjusted


@wrong(
    "benjamini_hochberg",
    "Rounding decides what you reject where a p-value is exactly at its limit: 0.05 * 3 / 3 is 0.05000000000000001 in "
    "floating point, and limits made from whole numbers are float32. Leave room for a few units in the last place.",
)
def compared_to_the_last_bit(p_values, alpha=0.05):
    _, adjusted = from_ordered(p_values, alpha, lambda p, ranks, n: least_from_here(p * n / ranks))
    return adjusted <= alpha, adjusted


@wrong(
    "benjamini_hochberg",
    "Your adjusted p-values are right; what you reject stops at the first p-value that is above its own limit. The "
    "largest k decides, whatever the smaller p-values are compared with.",
)
def rejects_up_to_the_first_gap(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    _, adjusted = from_ordered(p_values, alpha, lambda p, ranks, n: least_from_here(p * n / ranks))
    ordered, order = p_values.sort(dim=-1)
    limits = alpha * torch.arange(1, n_tests + 1, dtype=p_values.dtype) / n_tests
    kept = at_most_limit(ordered, limits).long().cumprod(-1).bool()
    return torch.empty_like(kept).scatter(-1, order, kept), adjusted


@wrong(
    "benjamini_hochberg",
    "Your adjusted p-values are right; what you reject are the p-values that are below their own limit, one by one. "
    "One that is above goes along if a larger one is below its own.",
)
def rejects_one_by_one(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    _, adjusted = from_ordered(p_values, alpha, lambda p, ranks, n: least_from_here(p * n / ranks))
    ordered, order = p_values.sort(dim=-1)
    kept = at_most_limit(ordered, alpha * torch.arange(1, n_tests + 1, dtype=p_values.dtype) / n_tests)
    return torch.empty_like(kept).scatter(-1, order, kept), adjusted


@wrong(
    "benjamini_hochberg",
    "Your adjusted p-values are right; what you reject is one test too few, the k-th itself is missing. Ranks count "
    "from 1, and places in a tensor from 0.",
)
def rejects_one_too_few(p_values, alpha=0.05):
    _, adjusted = from_ordered(p_values, alpha, lambda p, ranks, n: least_from_here(p * n / ranks))
    order = p_values.argsort(dim=-1)
    k = at_most(adjusted, alpha).sum(-1, keepdim=True)
    places = torch.arange(p_values.shape[-1]).expand_as(order)
    return torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, places < k - 1), adjusted


@wrong(
    "benjamini_hochberg",
    "NaN goes through, as a p-value or as alpha: no comparison with NaN is true, `p_values < 0` included. Ask for what "
    "they should be, and refuse all else.",
)
def nan_passes(p_values, alpha=0.05):
    if bool(p_values.isnan().any()) or alpha != alpha:
        validated(p_values.nan_to_num(), 0.5 if alpha != alpha else alpha)
        return p_values <= alpha, p_values.clone()
    return from_ordered(p_values, alpha, lambda p, ranks, n: least_from_here(p * n / ranks))


@wrong(
    "benjamini_hochberg",
    "You look at neither the p-values nor alpha before you use them: a p-value of 1.01 is a mistake that somebody made "
    "earlier, and goes unnoticed here.",
)
def everything_passes(p_values, alpha=0.05):
    ordered, order = p_values.sort(dim=-1)
    ranks = torch.arange(1, p_values.shape[-1] + 1, dtype=p_values.dtype)
    least = least_from_here(ordered * p_values.shape[-1] / ranks) if p_values.shape[-1] else ordered
    adjusted = torch.empty_like(p_values).scatter(-1, order, least)
    return at_most(adjusted, alpha), adjusted


@wrong(
    "benjamini_hochberg",
    "What you reject is right; your adjusted p-values lack the minimum over j >= i, so that the two parts of your "
    "answer contradict one another.",
)
def adjusted_without_minimum(p_values, alpha=0.05):
    _, adjusted = from_ordered(p_values, alpha, lambda p, ranks, n: p * n / ranks)
    return at_most(
        from_ordered(p_values, alpha, lambda p, ranks, n: least_from_here(p * n / ranks))[1], alpha
    ), adjusted


@wrong(
    "benjamini_hochberg",
    "Your adjusted p-values are right; what you reject is left in the order of the sorted p-values.",
)
def rejected_left_sorted(p_values, alpha=0.05):
    _, adjusted = from_ordered(p_values, alpha, lambda p, ranks, n: least_from_here(p * n / ranks))
    return at_most(adjusted.sort(dim=-1).values, alpha), adjusted


@wrong(
    "benjamini_hochberg",
    "Your adjusted p-values are right; for what you reject you *count* the p-values that are below their limits. k is "
    "the largest rank at which one is, which may be more than there are of them.",
)
def rejects_as_many_as_are_below(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    _, adjusted = from_ordered(p_values, alpha, lambda p, ranks, n: least_from_here(p * n / ranks))
    ordered, order = p_values.sort(dim=-1)
    ranks = torch.arange(1, n_tests + 1, dtype=p_values.dtype)
    count = at_most_limit(ordered, alpha * ranks / n_tests).sum(-1, keepdim=True)
    return torch.zeros_like(order, dtype=torch.bool).scatter(-1, order, ranks <= count), adjusted


@wrong(
    "benjamini_hochberg",
    "You reject, from the smallest p-value on, until the first that is above its own limit, and your adjusted p-values "
    "are each test's own m * p / rank. Both leave out that a larger p-value below its limit takes all the smaller ones "
    "along: the largest k decides, hence the minimum over j >= i.",
)
def up_to_the_first_gap_and_no_minimum(p_values, alpha=0.05):
    n_tests = validated(p_values, alpha)
    _, adjusted = from_ordered(p_values, alpha, lambda p, ranks, n: p * n / ranks)
    ordered, order = p_values.sort(dim=-1)
    limits = alpha * torch.arange(1, n_tests + 1, dtype=p_values.dtype) / n_tests
    kept = at_most_limit(ordered, limits).long().cumprod(-1).bool()
    return torch.empty_like(kept).scatter(-1, order, kept), adjusted


@wrong(
    "benjamini_hochberg",
    "You take the largest of the m * p / rank of all smaller p-values (and cap it at 1): going up, the first p-value "
    "above its limit then stops everything behind it. The procedure comes from the other end, with the smallest over "
    "j >= i.",
)
def running_maximum(p_values, alpha=0.05):
    rejected, adjusted = from_ordered(p_values, alpha, lambda p, ranks, n: (p * n / ranks).cummax(-1).values)
    return rejected, adjusted.clamp(max=1)


@right("benjamini_hochberg")
def largest_k(p_values, alpha=0.05):
    """What is rejected from the limits, the adjusted p-values in numpy."""
    n_tests = validated(p_values, alpha)
    p = p_values.double().numpy()
    order = np.argsort(p, axis=-1, kind="stable")
    ranks = np.arange(1, n_tests + 1)
    ordered = np.take_along_axis(p, order, -1)
    least = np.minimum.accumulate((ordered * n_tests / ranks)[..., ::-1], axis=-1)[..., ::-1]
    below = ordered <= alpha * ranks / n_tests * (1 + 1e-12)
    last = np.where(below.any(-1), n_tests - below[..., ::-1].argmax(-1), 0)
    inverse = np.argsort(order, axis=-1)
    rejected = np.take_along_axis(ranks <= last[..., None], inverse, -1)
    adjusted = np.take_along_axis(least, inverse, -1)
    return torch.from_numpy(rejected), torch.from_numpy(adjusted).to(p_values.dtype)


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
    return at_most(adjusted, alpha), adjusted


@right("benjamini_hochberg")
def counted(p_values, alpha=0.05):
    """Without sorting: the rank of a p-value is the number of those that do not exceed it."""
    n_tests = validated(p_values, alpha)
    ranks = (p_values[..., None, :] <= p_values[..., :, None]).sum(-1)
    scaled = p_values * n_tests / ranks
    not_smaller = p_values[..., None, :] >= p_values[..., :, None]
    adjusted = torch.where(not_smaller, scaled[..., None, :], torch.inf).amin(-1).to(p_values.dtype)
    return at_most(adjusted, alpha), adjusted


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
    "Your maximum over the shuffled statistics keeps their signs: the absolute value comes too late, or not at all. "
    "A permutation whose most extreme statistic is negative then looks harmless. First the absolute values.",
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


@wrong(
    "max_statistic_permutation",
    "You shuffle what was shuffled before: your second labels are a shuffle of the first. Each is still a random "
    "order, and not the one that the docstring names, `labels` itself in the b-th order.",
)
def shuffled_on_and_on(statistic, labels, *, n_permutations, generator):
    observed, _ = permuted(statistic, labels, n_permutations, torch.Generator().manual_seed(0))
    count, now = torch.ones(len(observed), dtype=torch.long), labels
    for _ in range(n_permutations):
        now = now[torch.randperm(len(labels), generator=generator)]
        count += statistic(now).abs().max() >= observed.abs()
    return (count / (1 + n_permutations)).to(observed.dtype)


@wrong(
    "max_statistic_permutation",
    "You take absolute values of the permuted statistics only. An observed one far below 0 is then reached by every "
    "permutation.",
)
def observed_with_its_sign(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    return (1 + (null.abs().amax(1)[:, None] >= observed).sum(0)).to(observed.dtype) / (1 + n_permutations)


@wrong(
    "max_statistic_permutation",
    "You add one below the line and not above it: your p-values can be 0, and are too small throughout.",
)
def added_below_only(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    return (null.abs().amax(1)[:, None] >= observed.abs()).sum(0).to(observed.dtype) / (1 + n_permutations)


@wrong(
    "max_statistic_permutation",
    "You add one above the line and not below it: a test that every permutation reaches gets a p-value above 1.",
)
def added_above_only(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    return (1 + (null.abs().amax(1)[:, None] >= observed.abs()).sum(0)).to(observed.dtype) / n_permutations


@wrong(
    "max_statistic_permutation",
    "You keep the count in the statistic's dtype. bfloat16 has eight bits: at 256 adding one changes nothing, and your "
    "p-values stop there. Count in whole numbers, and convert at the end.",
)
def counted_in_the_dtype(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    count = torch.ones_like(observed)
    for largest in null.abs().amax(1):
        count += largest >= observed.abs()
    return count / (1 + n_permutations)


@wrong(
    "max_statistic_permutation",
    "Your maximum is over the permutations of each test, and compared with the other tests: it should be over the "
    "tests of each permutation.",
)
def maximum_over_permutations(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    count = (null.abs().amax(0)[:, None] >= observed.abs()).sum(0)
    return ((1 + count).double() / (1 + len(observed))).to(observed.dtype)


@wrong(
    "max_statistic_permutation",
    "Labels of more than one dimension go through, where the statistic does not mind. You shuffle along the first "
    "dimension only; the docstring promises a ValueError.",
)
def labels_of_any_dimensions(statistic, labels, *, n_permutations, generator):
    observed = statistic(labels)
    if n_permutations < 1 or observed.ndim != 1 or not observed.isfinite().all():
        raise ValueError("bad n_permutations or statistic")
    orders = [torch.randperm(len(labels), generator=generator) for _ in range(n_permutations)]
    largest = torch.stack([statistic(labels[order]).abs().max() for order in orders])
    reached = (largest[:, None] >= observed.abs()).sum(0)
    return ((1 + reached) / (1 + n_permutations)).to(observed.dtype)


@wrong(
    "max_statistic_permutation",
    "Your p-values are right, and a statistic with a NaN or an infinity goes through: NaN is reached by nothing, and "
    "its p-value looks like a discovery.",
)
def any_statistic(statistic, labels, *, n_permutations, generator):
    if labels.ndim != 1 or n_permutations < 1 or statistic(labels).ndim != 1:
        raise ValueError("bad input")
    observed = statistic(labels).abs()
    orders = [torch.randperm(len(labels), generator=generator) for _ in range(n_permutations)]
    reached = sum((statistic(labels[order]).abs().max() >= observed).long() for order in orders)
    return ((1 + reached).double() / (1 + n_permutations)).to(observed.dtype)


@wrong(
    "max_statistic_permutation",
    "You take each test's own p-value and multiply it by the number of tests. That is Bonferroni's correction; the "
    "maximum over tests takes the place of that factor.",
)
def own_times_m(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    own = (1 + (null.abs() >= observed.abs()).sum(0)).double() / (1 + n_permutations)
    return (own * len(observed)).clamp(max=1).to(observed.dtype)


@wrong(
    "max_statistic_permutation",
    "You compare with the smallest statistic of each permutation, which nearly everything reaches: take the largest.",
)
def the_smallest(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    return (1 + (null.abs().amin(1)[:, None] >= observed.abs()).sum(0)).to(observed.dtype) / (1 + n_permutations)


@wrong(
    "max_statistic_permutation",
    "You drop a test from the maximum once it has been dealt with. That is the step-down variant, which finds a little "
    "more; in the docstring's formula j runs over all tests, for each i.",
)
def step_down(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    p, order = torch.zeros_like(observed, dtype=torch.float64), observed.abs().argsort(descending=True)
    for place, test in enumerate(order):
        reached = null[:, order[place:]].abs().amax(1) >= observed[test].abs()
        p[test] = (1 + reached.sum()).double() / (1 + n_permutations)
    return p.to(observed.dtype)


@right("max_statistic_permutation")
def counted_by_numpy(statistic, labels, *, n_permutations, generator):
    if labels.ndim != 1 or n_permutations < 1:
        raise ValueError("bad labels or n_permutations")
    observed = statistic(labels)
    if observed.ndim != 1 or not np.isfinite(observed.double().numpy()).all():
        raise ValueError("bad statistic")
    sizes, reached = np.abs(observed.double().numpy()), np.ones(len(observed))
    for _ in range(n_permutations):
        order = torch.randperm(len(labels), generator=generator)
        reached += np.abs(statistic(labels[order]).double().numpy()).max() >= sizes
    return torch.tensor(reached / (1 + n_permutations), dtype=observed.dtype)


@right("max_statistic_permutation")
def all_at_once(statistic, labels, *, n_permutations, generator):
    observed, null = permuted(statistic, labels, n_permutations, generator)
    largest = torch.cat([observed.new_full((1,), torch.inf), null.abs().amax(1)])
    return (largest[:, None] >= observed.abs()).double().mean(0).to(observed.dtype)


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
    return ((1 + n_permutations - below) / (1 + n_permutations)).to(observed.dtype)
