"""Corrections against statsmodels and scipy, the permutation maximum against all orders, and their error rates."""

import itertools

import numpy as np
import pytest
import torch
from scipy import stats
from statsmodels.stats.multitest import multipletests

from utils.attribution.multiple_testing import benjamini_hochberg, bonferroni, max_statistic_permutation

N_STUDIES, N_TESTS = 4000, 50
FALSE_ALARM = 1e-5  # of a test below, on each side


def some_p_values(seed, n_tests):
    uniform = torch.rand(n_tests, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(torch.arange(n_tests) % 3 == 0, uniform**8, uniform)


@pytest.mark.parametrize(("ours", "name"), [(bonferroni, "bonferroni"), (benjamini_hochberg, "fdr_bh")])
def test_statsmodels(ours, name):
    for seed in range(60):
        for n_tests, alpha in ((1, 0.05), (6, 0.1), (50, 0.05), (200, 0.3)):
            p = some_p_values(seed, n_tests)
            if seed % 3 == 0:
                p = (p * 20).round() / 20  # ties, zeros and ones
            rejected, adjusted, _, _ = multipletests(p.numpy(), alpha, name)
            found = ours(p, alpha)
            torch.testing.assert_close(found[1], torch.from_numpy(adjusted))
            clear = (found[1] - alpha).abs() > 1e-12  # where rounding can't decide
            assert torch.equal(found[0][clear], torch.from_numpy(rejected)[clear])


def test_scipy():
    p = torch.stack([some_p_values(seed, 30) for seed in range(12)]).view(3, 4, 30)
    expected = stats.false_discovery_control(p.numpy(), axis=-1, method="bh")
    torch.testing.assert_close(benjamini_hochberg(p)[1], torch.from_numpy(expected))


def test_a_p_value_at_its_limit_is_rejected_and_one_above_is_not():
    for n_tests in range(1, 80):
        for alpha in (0.05, 0.01, 0.1, 0.3):
            for k, reject in ((1, bonferroni), (1 + n_tests // 3, benjamini_hochberg)):
                at, rest = alpha * k / n_tests, [1.0] * (n_tests - k)
                for p, expected in ((at, k), (at * (1 + 1e-9), 0)):
                    found = reject(torch.tensor([p] * k + rest, dtype=torch.float64), alpha)[0]
                    assert int(found.sum()) == expected
    assert benjamini_hochberg(torch.tensor([0.05, 0.05, 0.05], dtype=torch.float64))[0].all()
    assert bonferroni(torch.tensor([0.05, 0.05, 0.05], dtype=torch.float64), 0.15)[0].all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_counts_beyond_what_it_can_hold(dtype):
    p = torch.full((70_000,), 0.5, dtype=dtype)
    rejected, adjusted = benjamini_hochberg(p)
    assert not rejected.any() and adjusted.dtype == dtype and (adjusted == 0.5).all()
    assert (bonferroni(p)[1] == 1).all()
    data = torch.zeros(6, 1, dtype=dtype)
    found = max_statistic_permutation(
        lambda y: y.to(dtype) @ data, torch.arange(6), n_permutations=3000, generator=torch.Generator().manual_seed(0)
    )
    assert found.dtype == dtype and found.item() == 1


def within(count, n, rate):
    """Whether a count is one that n trials at this rate give, up to the false-alarm rate."""
    return stats.binom.ppf(FALSE_ALARM, n, rate) <= count <= stats.binom.isf(FALSE_ALARM, n, rate)


@pytest.fixture(scope="module")
def p_and_real():
    z = torch.randn(N_STUDIES, N_TESTS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    real = torch.arange(N_TESTS) < 10
    return {shift: torch.special.erfc((z + shift * real).abs() / 2**0.5) for shift in (0, 3)}, real


class TestErrorRates:
    def test_without_effects_both_err_at_the_nominal_rate(self, p_and_real):
        """Independent tests: Bonferroni errs in 1 - (1 - 0.05 / m)^m of the studies, Benjamini-Hochberg in 5 %."""
        p = p_and_real[0][0]
        for rejected, rate in (
            (bonferroni(p)[0], 1 - (1 - 0.05 / N_TESTS) ** N_TESTS),
            (benjamini_hochberg(p)[0], 0.05),
            (p <= 0.05, 1 - 0.95**N_TESTS),
        ):
            assert within(int(rejected.any(1).sum()), N_STUDIES, rate)

    def test_with_effects_the_false_discovery_rate_is_that_of_the_theorem(self, p_and_real):
        """For independent tests it is exactly alpha times the share of true null hypotheses."""
        p, real = p_and_real[0][3], p_and_real[1]
        rejected = benjamini_hochberg(p)[0]
        proportion = (rejected & ~real).sum(1) / rejected.sum(1).clamp_min(1)
        error = float(proportion.double().std()) / N_STUDIES**0.5
        assert abs(float(proportion.double().mean()) - 0.05 * 0.8) < 4.5 * error
        assert (rejected & real).sum() > 1.5 * (bonferroni(p)[0] & real).sum()

    def test_the_permutation_maximum_errs_at_the_nominal_rate(self):
        """Tests that hang together; with 39 shuffles the chance of p <= 0.05 is 2 / 40 exactly."""
        n_studies, errors = 400, 0
        for seed in range(n_studies):
            generator = torch.Generator().manual_seed(seed)
            data = torch.randn(12, 6, generator=generator) + 2 * torch.randn(12, 1, generator=generator)
            labels = torch.randn(12, generator=generator)
            centred = data - data.mean(0)
            p = max_statistic_permutation(
                lambda y, x=centred: y @ x / x.norm(dim=0), labels, n_permutations=39, generator=generator
            )
            errors += bool((p <= 0.0501).any())
        assert within(errors, n_studies, 0.05)


def test_all_permutations():
    """With many random orders the p-values approach those of the complete list of 720."""
    generator = torch.Generator().manual_seed(1)
    data = torch.randn(6, 4, generator=generator, dtype=torch.float64)
    labels = torch.randn(6, generator=generator, dtype=torch.float64)
    orders = np.array(list(itertools.permutations(range(6))))
    null = torch.from_numpy(np.abs(labels.numpy()[orders] @ data.numpy()).max(axis=1))
    exact = (null[:, None] >= (labels @ data).abs() - 1e-12).double().mean(0)
    n = 3000
    found = max_statistic_permutation(lambda y: y @ data, labels, n_permutations=n, generator=generator)
    for ours, rate in zip(found.tolist(), exact.tolist(), strict=True):
        count = round(ours * (n + 1)) - 1
        assert within(count, n, rate)


def test_one_test_is_scipys_permutation_test():
    generator = torch.Generator().manual_seed(2)
    data = torch.randn(40, 1, generator=generator, dtype=torch.float64)
    labels = (torch.arange(40) % 2).double()

    def difference(y):
        return (data[y > 0.5].mean() - data[y < 0.5].mean()).view(1)

    n = 2000
    ours = max_statistic_permutation(difference, labels, n_permutations=n, generator=generator)
    theirs = stats.permutation_test(
        (data[1::2, 0].numpy(), data[0::2, 0].numpy()),
        lambda a, b, axis: a.mean(axis) - b.mean(axis),
        n_resamples=20_000,
        vectorized=True,
        rng=np.random.default_rng(0),
    )
    assert abs(float(ours) - theirs.pvalue) < 5 * (theirs.pvalue * (1 - theirs.pvalue) / n) ** 0.5 + 2 / n
