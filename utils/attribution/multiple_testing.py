"""What to make of many tests at once: two corrections of p-values, and a permutation test with one built in."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def bonferroni(
    p_values: Float[Tensor, "... test"], alpha: float = 0.05
) -> tuple[Bool[Tensor, "... test"], Float[Tensor, "... test"]]:
    """Bonferroni's correction: the probability of even one false discovery is at most ``alpha``.

    The adjusted p-value of test i of m is min(1, m * p_i). It is rejected if that is at most ``alpha``; equal but for
    rounding counts as equal, so that a p-value of exactly alpha / m is rejected whatever the last bits of the product
    are. This bounds the family-wise error rate whatever the dependence between the tests.

    Args:
        p_values: P-values [..., test]; each row of the leading dimensions is a family of its own.
        alpha: Level, strictly between 0 and 1.

    Returns:
        Which hypotheses are rejected [..., test], and the adjusted p-values [..., test] with the dtype of ``p_values``.

    Raises:
        ValueError: If there is no test, a p-value does not lie in [0, 1] (NaN does not), or ``alpha`` does not lie
            strictly between 0 and 1 (NaN does not).

    Source: Dunn (1961), "Multiple comparisons among means".
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
    if p_values.ndim < 1 or p_values.shape[-1] < 1:
        raise ValueError(f"p_values must hold at least one test, got shape {tuple(p_values.shape)}")
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError("p_values must lie between 0 and 1")
    adjusted = (p_values * p_values.shape[-1]).clamp(max=1)
    return adjusted <= alpha * (1 + 4 * torch.finfo(p_values.dtype).eps), adjusted


def benjamini_hochberg(
    p_values: Float[Tensor, "... test"], alpha: float = 0.05
) -> tuple[Bool[Tensor, "... test"], Float[Tensor, "... test"]]:
    """The Benjamini-Hochberg procedure: of what is rejected, a share of at most ``alpha`` is false on average.

    With the p-values of a family in order, p_(1) <= … <= p_(m), find the largest k with p_(k) <= alpha * k / m and
    reject the tests 1 to k of that order, whatever the smaller p-values among them are compared with. The same as a
    number for each test, the adjusted p-value

        adjusted_(i) = min over j >= i of  m * p_(j) / j ;

    a test is rejected if its adjusted p-value is at most ``alpha``; equal but for rounding counts as equal, so that a
    p-value of exactly alpha * k / m keeps its limit whatever the last bits of the product are. The false discovery rate
    is bounded for independent tests and for many kinds of positive dependence.

    Args:
        p_values: P-values [..., test], in any order; each row of the leading dimensions is a family of its own.
        alpha: Level, strictly between 0 and 1.

    Returns:
        Which hypotheses are rejected [..., test], and the adjusted p-values [..., test], both in the order of
        ``p_values``, the latter with its dtype.

    Raises:
        ValueError: If there is no test, a p-value does not lie in [0, 1] (NaN does not), or ``alpha`` does not lie
            strictly between 0 and 1 (NaN does not).

    Source: Benjamini and Hochberg (1995), "Controlling the false discovery rate", section 3.1.
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be between 0 and 1, got {alpha}")
    if p_values.ndim < 1 or p_values.shape[-1] < 1:
        raise ValueError(f"p_values must hold at least one test, got shape {tuple(p_values.shape)}")
    if not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError("p_values must lie between 0 and 1")
    n_tests = p_values.shape[-1]
    ordered, order = p_values.sort(dim=-1)
    ranks = torch.arange(1, n_tests + 1, device=p_values.device)
    by_rank = (ordered.double() * n_tests / ranks).to(p_values.dtype)  # half precision can't count to n_tests
    smallest_from_here = by_rank.flip(-1).cummin(-1).values.flip(-1)
    adjusted = torch.empty_like(p_values).scatter(-1, order, smallest_from_here)
    return adjusted <= alpha * (1 + 4 * torch.finfo(p_values.dtype).eps), adjusted


def max_statistic_permutation(
    statistic: Callable[[Tensor], Float[Tensor, " test"]],
    labels: Tensor,
    *,
    n_permutations: int,
    generator: torch.Generator,
) -> Float[Tensor, " test"]:
    """Adjusted p-values from permuted labels, by comparing each test with the largest of all.

    With T_i the statistic of test i on the true labels and T*_{b,i} on the b-th shuffled ones,

        p_i = (1 + number of b with  max over j of |T*_{b,j}|  >=  |T_i|) / (1 + n_permutations).

    Rejecting where p_i <= alpha makes even one false discovery with a probability of at most alpha, if samples can be
    exchanged under the null hypothesis. How the tests depend on one another is taken from the data.

    Args:
        statistic: Takes labels, returns one number for each test [test]; far from 0 on either side speaks against the
            null hypothesis.
        labels: A label for each sample [sample], of any dtype; not changed.
        n_permutations: How many times to shuffle, at least 1. The b-th labels are
            ``labels[torch.randperm(len(labels), generator=generator)]``.
        generator: Where the orders come from.

    Returns:
        Adjusted p-values [test], from 1 / (1 + n_permutations) to 1, in the dtype of the statistic. (The counts
        are not kept in that: bfloat16 cannot count beyond 256.)

    Raises:
        ValueError: If ``labels`` is not one-dimensional, ``n_permutations`` is below 1, or ``statistic`` returns
            something else than a row of finite numbers (NaN is not) for ``labels``.

    Source: Westfall and Young (1993), "Resampling-based multiple testing"; for brain images, Nichols and Holmes (2002);
    for the added ones, Phipson and Smyth (2010), "Permutation p-values should never be zero".
    """
    if labels.ndim != 1:
        raise ValueError(f"labels must be [sample], got shape {tuple(labels.shape)}")
    if n_permutations < 1:
        raise ValueError(f"n_permutations must be at least 1, got {n_permutations}")
    observed = statistic(labels).abs()
    if observed.ndim != 1 or not observed.isfinite().all():
        raise ValueError(f"statistic must return a row of finite numbers, got shape {tuple(observed.shape)}")
    reached = torch.ones_like(observed, dtype=torch.long)
    for _ in range(n_permutations):
        order = torch.randperm(len(labels), generator=generator, device=generator.device).to(labels.device)
        reached += statistic(labels[order]).abs().max() >= observed
    return (reached.double() / (1 + n_permutations)).to(observed.dtype)
