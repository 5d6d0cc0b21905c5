"""The toy models against exact figures, closed forms, numpy and scikit-learn."""

import itertools
import math

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from utils.superposition.geometry import (
    feature_dimensionality,
    find_polygon,
    interference_matrix,
    named_groups,
    superposition_vs_sparsity,
)
from utils.superposition.pairs import sample_pairs
from utils.superposition.toy import ToyModel, best_linear_loss, sample_features, toy_loss
from utils.superposition.train import train_toy_models


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def polygon(k, turn=0.2):
    angles = turn + 2 * math.pi * torch.arange(k) / k
    return torch.stack([angles.cos(), angles.sin()])


def antiprism():
    """The square antiprism whose eight directions are a tight frame in three dimensions: z² = 1/3."""
    z, r = 1 / math.sqrt(3), math.sqrt(2 / 3)
    return torch.tensor(
        [[r * math.cos(a), r * math.sin(a), z * s] for s, turn in ((1, 0.0), (-1, math.pi / 4))
         for a in (turn + k * math.pi / 2 for k in range(4))]
    ).T  # fmt: skip


TETRAHEDRON = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).T / math.sqrt(3)


def test_moments_of_the_features():
    """Mean p / 2, mean square p / 3: those of a uniform number that is there with probability p."""
    p = torch.tensor([0.05, 0.5, 1.0])
    found = sample_features(4, 40_000, p, seeded(0))
    torch.testing.assert_close(found.mean((1, 2)), p / 2, atol=0.005, rtol=0)
    torch.testing.assert_close(found.square().mean((1, 2)), p / 3, atol=0.005, rtol=0)


@pytest.mark.parametrize("relu", [True, False])
def test_the_model_against_numpy(relu):
    model = ToyModel(3, 5, 2, relu=relu, generator=seeded(0))
    model.b.data.normal_(generator=seeded(1))
    features = torch.rand(3, 7, 5, generator=seeded(2))
    for x, W, b, found in zip(features.numpy(), model.W.detach().numpy(), model.b.detach().numpy(),
                              model(features).detach().numpy(), strict=True):  # fmt: skip
        expected = np.array([W.T @ (W @ row) + b for row in x])
        np.testing.assert_allclose(found, np.maximum(expected, 0) if relu else expected, rtol=1e-4, atol=1e-5)


def test_the_loss_where_nothing_is_stored():
    """W = 0, b = 0: each feature costs importance · p / 3."""
    p, importance = torch.tensor([[0.1, 0.4, 1.0]]), torch.tensor([1.0, 0.5, 0.2])
    features = sample_features(3, 100_000, p, seeded(0))
    loss = toy_loss(torch.zeros_like(features), features, importance)
    torch.testing.assert_close(loss, (importance * p / 3).sum(1), atol=0.003, rtol=0)


def test_as_features_become_rare_an_antipodal_pair_costs_nothing_beside_a_lost_feature():
    """Two features in one dimension, W = (1, -1), b = 0, are wrong only where both are on: p² of the time. Where both
    are on, the smaller is lost and the larger is short of it: twice the mean square of the smaller, 2 / 6."""
    for p in (0.3, 0.05):
        model = ToyModel(1, 2, 1, generator=seeded(0))
        model.W.data = torch.tensor([[[1.0, -1.0]]])
        features = sample_features(2, 400_000, p, seeded(1))
        torch.testing.assert_close(toy_loss(model(features), features)[0].item(), p * p / 3, atol=0.0, rtol=0.06)
        assert p * p / 3 <= p / 3


def test_the_linear_bound_is_pca():
    """scikit-learn's components on many examples leave over what the closed form says."""
    p = torch.tensor([0.9, 0.2, 0.6, 0.4, 1.0])
    x = sample_features(5, 100_000, p[None], seeded(0))[0].double().numpy()
    for d in (1, 2, 4):
        pca = PCA(d).fit(x)
        left = ((x - pca.inverse_transform(pca.transform(x))) ** 2).sum(1).mean()
        assert left == pytest.approx(best_linear_loss(p, d).item(), rel=0.03)


def test_linear_models_reach_the_bound_and_do_not_go_below():
    p, importance = torch.tensor([[0.5] * 5, [0.1] * 5]), 0.6 ** torch.arange(5.0)
    run = train_toy_models(5, 2, p, importance=importance, relu=False, n_steps=600, n_fresh=32 * 1024)
    torch.testing.assert_close(run.loss, best_linear_loss(p, 2, importance), rtol=0.1, atol=0)
    stored = run.model.W.norm(dim=1)
    assert (stored[:, :2] > 0.9).all() and (stored[:, 2:] < 0.1).all()


@pytest.mark.parametrize(
    ("W", "share"),
    [(polygon(k), 2 / k) for k in (3, 5, 6)] + [(polygon(2), 0.5), (TETRAHEDRON, 0.75), (antiprism(), 0.375)],
)
def test_exact_figures(W, share):
    torch.testing.assert_close(feature_dimensionality(1.3 * W), torch.full((W.shape[1],), share))


def test_dimensionalities_add_up_to_the_rank_at_most():
    """By Cauchy and Schwarz; with equality if every direction is an eigenvector of W Wᵀ."""
    for seed, (d, n) in itertools.product(range(5), ((2, 5), (4, 3), (20, 80))):
        W = torch.randn(d, n, generator=seeded(seed)) * torch.rand(n, generator=seeded(seed + 100))
        assert feature_dimensionality(W).sum() <= min(d, n) + 1e-3
    for W in (polygon(5), antiprism(), torch.block_diag(polygon(3), polygon(2))):
        assert feature_dimensionality(W).sum().item() == pytest.approx(torch.linalg.matrix_rank(W).item(), abs=1e-4)


def test_turning_and_scaling_change_no_dimensionality():
    W = torch.randn(3, 7, generator=seeded(0))
    turn = torch.linalg.qr(torch.randn(3, 3, generator=seeded(1))).Q
    torch.testing.assert_close(feature_dimensionality(2.5 * turn @ W), feature_dimensionality(W))
    torch.testing.assert_close(interference_matrix(turn @ W), interference_matrix(W), atol=1e-5, rtol=1e-4)


def test_the_welch_bound_holds_and_the_simplex_meets_it():
    """n unit directions in d dimensions: the largest |cosine| is at least sqrt((n - d) / (d (n - 1)))."""
    for W in (polygon(3), TETRAHEDRON, torch.nn.functional.normalize(torch.randn(4, 9, generator=seeded(2)), dim=0)):
        d, n = W.shape
        cosines = interference_matrix(W).fill_diagonal_(0).abs().max().item()
        bound = math.sqrt((n - d) / (d * (n - 1)))
        assert cosines >= bound - 1e-6
        if n == d + 1:
            assert cosines == pytest.approx(bound, abs=1e-6)


def test_polygons_by_their_complex_roots():
    for k in range(2, 10):
        roots = np.roots([1, *[0] * (k - 1), -1])
        W = torch.tensor(np.stack([roots.real, roots.imag]) * 1.1, dtype=torch.float32)
        assert find_polygon(W) == k
        if k > 2:
            assert find_polygon(W[:, 1:]) == 0


def test_named_groups():
    W = torch.block_diag(polygon(5), torch.tensor([[1.0, -1.0]]), antiprism(), torch.eye(1), TETRAHEDRON)
    assert dict(named_groups(1.1 * W)) == {
        "pentagon": 1, "antipodal pair": 1, "square antiprism": 1, "alone": 1, "tetrahedron": 1,
    }  # fmt: skip
    crooked = torch.tensor([[1.0, -0.5, -0.5], [0.0, 0.4, -1.2]])
    assert dict(named_groups(crooked)) == {"something else": 1}
    assert not named_groups(torch.zeros(2, 3))


def test_the_counts_per_dimension():
    p = torch.tensor([1.0, 2.0])
    found = superposition_vs_sparsity(lambda p: p[:, None, None] * torch.ones(len(p), 2, 3), p, 2)
    torch.testing.assert_close(found, torch.tensor([[3.0, 3.0], [12.0, 12.0]]))


def test_correlations_of_the_pairs():
    """Of being on: 1 together, -p / (1 - p) apart, 0 independent."""
    for p in (0.1, 0.5):
        on = (sample_pairs(["together", "apart", "independent"], 50_000, p, seeded(0))[0] != 0).double()
        found = [np.corrcoef(on[:, k], on[:, k + 1])[0, 1] for k in (0, 2, 4)]
        assert found == pytest.approx([1, -p / (1 - p), 0], abs=0.02)


def test_models_trained_together_are_trained_alone():
    """The same model on the same examples goes the same way, whoever trains beside it."""
    drawn = [torch.rand(1, 32, 4, generator=seeded(i)) for i in range(20)]
    fresh = torch.rand(1, 1024, 4, generator=seeded(99))
    start = torch.randn(3, 2, 4, generator=seeded(5))

    def sampler_for(n):
        rest = iter([fresh, *drawn])  # the fresh examples are drawn first
        return lambda batch, generator: next(rest).expand(n, -1, -1)

    settings = {"n_steps": 20, "batch": 32, "n_fresh": 1024}
    alone = train_toy_models(4, 2, torch.ones(1), start=start[1:2], sampler=sampler_for(1), **settings)
    beside = train_toy_models(4, 2, torch.ones(3), start=start, sampler=sampler_for(3), **settings)
    torch.testing.assert_close(beside.model.W[1:2], alone.model.W, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(beside.loss[1:2], alone.loss, rtol=1e-3, atol=1e-4)


def test_what_a_run_records():
    run = train_toy_models(4, 2, torch.tensor([0.2, 0.5]), n_steps=25, batch=16, every=10, n_fresh=1024)
    assert run.steps == [0, 10, 20, 25] and run.W.shape == (4, 2, 2, 4) and run.losses.shape == (4, 2)
    assert torch.equal(run.W[-1], run.model.W) and torch.equal(run.losses[-1], run.loss)
    assert not run.model.W.requires_grad
