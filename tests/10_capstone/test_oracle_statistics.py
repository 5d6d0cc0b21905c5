"""The references of part 10a's statistics against scipy, statsmodels and scikit-learn."""

import numpy as np
import pytest
import torch
from scipy.stats import permutation_test
from sklearn.metrics import roc_auc_score
from statsmodels.stats.multitest import multipletests

from utils.capstone.controls import effect_at_equal_cost
from utils.capstone.latents import match_latents
from utils.capstone.many import holm, sign_flip_test


def seeded(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("n", [2, 5, 9])
def test_sign_flips_are_scipys_exact_test(n):
    rows = torch.randn(4, n, generator=seeded(n)) + 0.3
    expected = [
        permutation_test(
            (row.double().numpy(),), np.mean, permutation_type="samples", alternative="greater", n_resamples=np.inf
        ).pvalue
        for row in rows
    ]
    assert sign_flip_test(rows).tolist() == pytest.approx(expected)


@pytest.mark.parametrize("n", [1, 2, 7, 32])
def test_holm_is_that_of_statsmodels(n):
    p = torch.rand(n, generator=seeded(n), dtype=torch.double) ** 5
    rejected, adjusted, *_ = multipletests(p.numpy(), alpha=0.1, method="holm")
    found = holm(p, 0.1)
    assert found[1].tolist() == pytest.approx(adjusted.tolist()) and found[0].tolist() == rejected.tolist()


def test_holm_keeps_its_level_and_finds_more_than_bonferroni():
    p = torch.rand(2000, 10, generator=seeded(0), dtype=torch.double)
    false = torch.stack([holm(row)[0].any() for row in p]).float().mean().item()
    assert false < 0.05 + 4 * (0.05 * 0.95 / 2000) ** 0.5
    p[:, :8] *= 1e-3
    assert all((holm(row)[0] | ~(10 * row <= 0.05)).all() for row in p)
    assert sum(holm(row)[0].sum().item() for row in p) > (10 * p <= 0.05).sum().item()


def test_areas_are_scikit_learns():
    units, labels = torch.arange(6).repeat_interleave(10), (torch.arange(10) % 3 == 0).repeat(6)
    z = torch.randn(60, 5, generator=seeded(1)).relu()
    found = match_latents(z, labels, units, torch.randn(5, 3), torch.randn(3), 1, seeded(2))
    assert found["auroc"].tolist() == pytest.approx([roc_auc_score(labels, column) for column in z.T])


def test_effects_at_equal_cost_are_numpys_interpolation():
    cost = torch.rand(3, 6, generator=seeded(3), dtype=torch.double).cumsum(1) + 0.01
    effect = torch.randn(3, 6, generator=seeded(4), dtype=torch.double)
    budget = 0.5 * cost[:, -1].min().item()
    expected = [
        np.interp(budget, [0, *price.tolist()], [0, *value.tolist()]) for price, value in zip(cost, effect, strict=True)
    ]
    assert effect_at_equal_cost(effect, cost, budget).tolist() == pytest.approx(expected)
