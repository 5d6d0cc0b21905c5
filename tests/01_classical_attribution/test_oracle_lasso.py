"""The Lasso against scikit-learn, the conditions of its minimum, and a numerical minimiser."""

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import Lasso

from utils.attribution.lasso import lasso_ista, soft_threshold


@pytest.fixture(scope="module")
def tumours():
    data = load_breast_cancer()
    X = torch.tensor(data.data[:, :10])
    return (X - X.mean(0)) / X.std(0, correction=0) + torch.arange(10), 1.0 - torch.tensor(data.target).double()


def synthetic(seed, n_samples=70, n_features=8):
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(n_samples, n_features, generator=generator, dtype=torch.float64) * 1.3 + 2
    w = torch.randn(n_features, generator=generator, dtype=torch.float64)
    return X, X @ w - 1 + torch.randn(n_samples, generator=generator, dtype=torch.float64)


@pytest.mark.parametrize("x, threshold", [(2.3, 0.7), (-1.9, 0.5), (0.2, 0.9), (-0.4, 0.4), (1.1, 0.0)])
def test_soft_threshold_is_the_proximal_step(x, threshold):
    found = minimize_scalar(lambda b: (b - x) ** 2 / 2 + threshold * abs(b), bounds=(-5, 5), options={"xatol": 1e-9})
    ours = soft_threshold(torch.tensor(x, dtype=torch.float64), threshold)
    assert ours.item() == pytest.approx(found.x, abs=1e-4)


@pytest.mark.parametrize("penalty", [0.5, 0.1, 0.02])
@pytest.mark.parametrize("seed", [0, 1])
def test_agrees_with_scikit_learn(seed, penalty):
    X, y = synthetic(seed)
    theirs = Lasso(alpha=penalty, tol=1e-12, max_iter=100_000).fit(X.numpy(), y.numpy())
    w, b = lasso_ista(X, y, penalty, n_steps=3000)
    np.testing.assert_allclose(w, theirs.coef_, atol=1e-7)
    assert b.item() == pytest.approx(theirs.intercept_, abs=1e-6)
    assert ((w != 0).numpy() == (theirs.coef_ != 0)).all()


@pytest.mark.parametrize("penalty", [0.1, 0.02])
def test_agrees_with_scikit_learn_on_correlated_features(tumours, penalty):
    X, y = tumours
    theirs = Lasso(alpha=penalty, tol=1e-10, max_iter=100_000).fit(X.numpy(), y.numpy())
    w, b = lasso_ista(X, y, penalty, n_steps=40000)
    np.testing.assert_allclose(w, theirs.coef_, atol=1e-4)
    assert b.item() == pytest.approx(theirs.intercept_, abs=1e-3)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_constant_column_explains_nothing_whatever_its_rounded_mean(dtype):
    generator = torch.Generator().manual_seed(4)
    for n_samples in range(3, 60):
        value = 0.1 if n_samples % 2 else torch.rand((), generator=generator).item()
        column, y = (
            torch.full((n_samples, 1), value, dtype=dtype),
            torch.randn(n_samples, generator=generator).to(dtype),
        )
        w, b = lasso_ista(column, y, 0.0, n_steps=20)
        assert w.item() == 0
        assert b.item() == pytest.approx(y.mean().item(), abs=1e-6)


def test_a_batch_broadcasts_its_penalties():
    X, y = (torch.stack(parts).view(2, 3, *parts[0].shape) for parts in zip(*map(synthetic, range(6)), strict=True))
    penalty = torch.tensor([[0.3], [0.05]], dtype=torch.float64)
    w, b = lasso_ista(X, y, penalty, n_steps=50)
    assert w.shape == (2, 3, 8) and b.shape == (2, 3)
    alone, _ = lasso_ista(X[1, 2], y[1, 2], 0.05, n_steps=50)
    torch.testing.assert_close(w[1, 2], alone)


def test_half_precision_and_mixed_dtypes():
    X, y = synthetic(5)
    for dtype, margin in ((torch.float16, 0.01), (torch.bfloat16, 0.1), (torch.float32, 1e-4)):
        w, b = lasso_ista(X.to(dtype), y, 0.1, n_steps=200)
        assert w.dtype == b.dtype == dtype
        exact, _ = lasso_ista(X, y, 0.1, n_steps=200)
        torch.testing.assert_close(w.double(), exact, rtol=0, atol=margin)


def test_conditions_of_the_minimum(tumours):
    X, y = tumours
    w, b = lasso_ista(X, y, 0.05, n_steps=40000)
    left = (X - X.mean(0)).T @ (y - b - X @ w) / len(y)
    assert (left[w != 0] - 0.05 * w[w != 0].sign()).abs().max() < 1e-6
    assert left[w == 0].abs().max() <= 0.05 + 1e-9
    assert (y - b - X @ w).mean().abs() < 1e-9


def test_the_cost_never_rises():
    X, y = synthetic(2)

    def cost(n_steps):
        w, b = lasso_ista(X, y, 0.3, n_steps=n_steps)
        return ((y - b - X @ w).square().mean() / 2 + 0.3 * w.abs().sum()).item()

    costs = [cost(n_steps) for n_steps in range(12)]
    assert all(later <= earlier + 1e-12 for earlier, later in zip(costs, costs[1:], strict=False))
    assert costs[-1] < costs[0]


def test_without_a_penalty_it_is_least_squares():
    X, y = synthetic(3)
    w, b = lasso_ista(X, y, 0.0, n_steps=3000)
    design = torch.cat([X, torch.ones(len(X), 1, dtype=torch.float64)], dim=1)
    torch.testing.assert_close(torch.cat([w, b[None]]), torch.linalg.lstsq(design, y).solution, rtol=1e-6, atol=1e-6)
