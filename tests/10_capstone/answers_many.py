"""Wrong answers for the sign-flip test and for Holm's correction, each with its sentence, and right ones."""

import itertools
from functools import cache

import torch

from utils.course.catalogue import right, wrong


@cache
def patterns(n):
    return torch.tensor(list(itertools.product((1.0, -1.0), repeat=n)), dtype=torch.double)


def by_patterns(differences, reached=lambda sums, true, slack: sums >= true - slack, count=None):
    n = differences.shape[1]
    if not 2 <= n <= 16:
        raise ValueError("groups")
    values = differences.double()
    sums, true = patterns(n) @ values.T, values.sum(1)
    hits = reached(sums, true, 1e-6 * values.abs().sum(1)).double()
    return hits.mean(0) if count is None else count(hits)


@wrong(
    "sign_flip_test",
    "You ask for a mean above the true one. One that is equal, and the true pattern itself, counts: p is never 0.",
)
def strictly_above(differences):
    return by_patterns(differences, lambda sums, true, slack: sums > true + slack)


@wrong("sign_flip_test", "Your test is two-sided: a probe that is worse than the baseline is no discovery here.")
def two_sided(differences):
    return by_patterns(differences, lambda sums, true, slack: sums.abs() >= true.abs() - slack)


@wrong(
    "sign_flip_test",
    "You count the patterns whose mean is at most the true one: your p-value is large where the probe is better.",
)
def the_other_tail(differences):
    return by_patterns(differences, lambda sums, true, slack: sums <= true + slack)


@wrong(
    "sign_flip_test",
    "You add one above and below, as one does for random draws. Here all patterns were gone through.",
)
def added_one(differences):
    return by_patterns(differences, count=lambda hits: (1 + hits.sum(0)) / (1 + len(hits)))


@wrong("sign_flip_test", "You count only how many groups are above 0. How far they are matters as well.")
def sign_test(differences):
    return by_patterns(differences.sign())


@wrong("sign_flip_test", "One sign is flipped at a time. If signs are coins, all of them are thrown.")
def one_at_a_time(differences):
    if not 2 <= differences.shape[1] <= 16:
        raise ValueError("groups")
    values = differences.double()
    sums = torch.stack([values.sum(1), *(values.sum(1) - 2 * column for column in values.T)])
    return (sums >= sums[0] - 1e-9).double().mean(0)


@wrong(
    "sign_flip_test",
    "You compare sums as the computer rounds them: those that are equal, but were added in another order, come out "
    "unequal.",
)
def as_rounded(differences):
    n = differences.shape[1]
    if not 2 <= n <= 16:
        raise ValueError("groups")
    means = (patterns(n).float() * differences[:, None]).mean(2)
    return (means >= means[:, :1]).double().mean(1)


@wrong("sign_flip_test", "Sixteen groups can still be gone through, and you refuse them.")
def fewer_groups(differences):
    if differences.shape[1] > 15:
        raise ValueError("groups")
    return by_patterns(differences)


@wrong("sign_flip_test", "Your p-values are right, and in single precision. Double was asked for.")
def single_precision(differences):
    return by_patterns(differences).float()


@right("sign_flip_test")
def by_hand(differences):
    if not 2 <= differences.shape[1] <= 16:
        raise ValueError("groups")
    found = []
    for row in differences.double():
        sums = torch.zeros(1, dtype=torch.double)
        for value in row:
            sums = torch.cat([sums + value, sums - value])
        found.append((sums >= row.sum() - 1e-6 * row.abs().sum()).double().mean())
    return torch.stack(found)


@right("sign_flip_test")
def by_product(differences):
    return by_patterns(differences)


def refuse(p, alpha):
    if not 0 < alpha < 1 or len(p) < 1 or not ((p >= 0) & (p <= 1)).all():
        raise ValueError("p-values or level")


def by_steps(p, alpha, factor, running=True, cap=True, slack=1e-9):
    refuse(p, alpha)
    order = sorted(range(len(p)), key=lambda i: p[i].item())
    adjusted, most = torch.empty_like(p), 0.0
    for rank, i in enumerate(order):
        value = factor(rank, len(p)) * p[i].item()
        most = max(most, value) if running else value
        adjusted[i] = min(1.0, most) if cap else most
    return adjusted <= alpha * (1 + slack), adjusted


@wrong(
    "holm",
    "You multiply each p-value by the number of all tests. That is Bonferroni; Holm multiplies by the tests that "
    "are left.",
)
def bonferroni(p_values, alpha=0.05):
    return by_steps(p_values, alpha, lambda rank, m: m)


@wrong("holm", "Your adjusted p-values can fall where the p-values rise: the running maximum is missing.")
def no_maximum(p_values, alpha=0.05):
    return by_steps(p_values, alpha, lambda rank, m: m - rank, running=False)


@wrong("holm", "Your factors are one too small: the smallest p-value is to be multiplied by m, the largest by 1.")
def one_less(p_values, alpha=0.05):
    return by_steps(p_values, alpha, lambda rank, m: m - rank - 1)


@wrong(
    "holm",
    "This is Benjamini and Hochberg's factor, m / rank. It bounds the share of false discoveries, and not the "
    "chance of even one.",
)
def hochberg_factor(p_values, alpha=0.05):
    return by_steps(p_values, alpha, lambda rank, m: m / (rank + 1))


@wrong("holm", "Some of your adjusted p-values are above 1.")
def above_one(p_values, alpha=0.05):
    return by_steps(p_values, alpha, lambda rank, m: m - rank, cap=False)


@wrong("holm", "Your results are in the order of the sorted p-values, and not in that of the argument.")
def sorted_order(p_values, alpha=0.05):
    refuse(p_values, alpha)
    return by_steps(p_values.sort().values, alpha, lambda rank, m: m - rank)


@wrong("holm", "You put the p-values back with the order itself, and not with its inverse.")
def order_for_inverse(p_values, alpha=0.05):
    refuse(p_values, alpha)
    ordered, order = p_values.sort()
    adjusted = by_steps(ordered, alpha, lambda rank, m: m - rank)[1][order]
    return adjusted <= alpha * (1 + 1e-9), adjusted


@wrong("holm", "An adjusted p-value that is equal to the level is to be rejected as well.")
def strictly_below(p_values, alpha=0.05):
    return by_steps(p_values, alpha, lambda rank, m: m - rank, slack=-1e-9)


@wrong("holm", "Equal p-values share a rank with you, so that those behind them get too large a factor.")
def shared_ranks(p_values, alpha=0.05):
    refuse(p_values, alpha)
    ranks = p_values.unique(return_inverse=True)[1]
    products = (len(p_values) - ranks) * p_values
    adjusted = torch.stack([products[p_values <= p].max() for p in p_values]).clamp(max=1)
    return adjusted <= alpha * (1 + 1e-9), adjusted


@right("holm")
def step_by_step(p_values, alpha=0.05):
    return by_steps(p_values, alpha, lambda rank, m: m - rank)


@right("holm")
def by_comparing(p_values, alpha=0.05):
    """For each test the largest of what the tests up to it are multiplied to."""
    refuse(p_values, alpha)
    values = [max(((p_values >= other).sum() * other).item() for other in p_values if other <= p) for p in p_values]
    adjusted = torch.tensor(values, dtype=p_values.dtype).clamp(max=1)
    return adjusted <= alpha * (1 + 1e-9), adjusted
