"""Bounds and overlaps against scikit-learn, exact chances, known packings and simulation."""

import math

import numpy as np
import pytest
import torch
from scipy.special import betainc
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.random_projection import johnson_lindenstrauss_min_dim

from utils.superposition.packing import optimize_packing, welch_bound
from utils.superposition.room import (
    almost_orthogonal_dimension,
    jl_dimension,
    max_interference,
    random_directions,
    reading_error,
)


def chance_of_a_pair(d, epsilon):
    """That two random directions have an absolute cosine above epsilon: exact."""
    return betainc((d - 1) / 2, 0.5, 1 - epsilon**2)


@pytest.mark.parametrize("n", [2, 37, 10_000, 10**9])
@pytest.mark.parametrize("epsilon", [0.01, 0.1, 0.35, 0.9])
def test_the_lemma_is_scikit_learns_which_cuts_the_fraction_off(n, epsilon):
    assert jl_dimension(n, epsilon) == johnson_lindenstrauss_min_dim(n, eps=epsilon) + 1


def test_projections_keep_distances_as_the_lemma_promises():
    n, epsilon = 100, 0.5
    d = jl_dimension(n, epsilon)
    points = np.random.default_rng(0).normal(size=(n, 400))
    kept = 0
    for seed in range(20):
        map_ = np.random.default_rng(seed + 1).normal(size=(400, d)) / d**0.5
        before, after = (torch.pdist(torch.tensor(x)).square() for x in (points, points @ map_))
        kept += ((after / before - 1).abs() < epsilon).all().item()
    assert kept == 20  # the promise is a chance of 1/n: it is loose


def test_the_chance_of_a_pair_is_below_its_bound():
    for d in (2, 8, 64, 1024):
        for epsilon in (0.01, 0.1, 0.3, 0.7):
            exact = chance_of_a_pair(d, epsilon)
            assert exact <= 2 * math.exp(-d * epsilon**2 / 2)
            assert chance_of_a_pair(d + 1, epsilon) < exact


def test_the_union_bound_holds_in_simulation():
    n, epsilon, failure = 60, 0.4, 0.5
    d = almost_orthogonal_dimension(n, epsilon, failure)
    generator = torch.Generator().manual_seed(0)
    failed = [max_interference(random_directions(n, d, generator)) > epsilon for _ in range(200)]
    assert np.mean(failed) < failure
    assert np.mean(failed) == pytest.approx(1 - math.exp(-n * (n - 1) / 2 * chance_of_a_pair(d, epsilon)), abs=0.1)


def test_overlaps_are_scikit_learns():
    W = torch.randn(50, 9, generator=torch.Generator().manual_seed(0)).double()
    cosines = cosine_similarity(W.numpy())[~np.eye(50, dtype=bool)]
    assert max_interference(W) == pytest.approx(np.abs(cosines).max())
    assert max_interference(W, signed=True) == pytest.approx(cosines.max())


def test_random_directions_have_overlaps_of_the_exact_distribution():
    generator = torch.Generator().manual_seed(0)
    cosines = torch.cat([(random_directions(2, 5, generator).prod(0).sum()).view(1) for _ in range(4000)]).abs()
    for epsilon in (0.2, 0.5, 0.8):
        assert (cosines > epsilon).float().mean().item() == pytest.approx(chance_of_a_pair(5, epsilon), abs=0.03)


def test_packings_that_meet_the_bound():
    golden = (1 + 5**0.5) / 2
    icosahedron = torch.tensor(
        [[0, 1, golden], [0, 1, -golden], [1, golden, 0], [1, -golden, 0], [golden, 0, 1], [-golden, 0, 1]]
    )
    assert max_interference(icosahedron) == pytest.approx(welch_bound(6, 3), rel=1e-5)
    for d in (2, 5, 9):
        corners = torch.eye(d + 1) - 1 / (d + 1)  # a simplex, seen in one dimension more
        assert max_interference(corners) == pytest.approx(welch_bound(d + 1, d), rel=1e-4)
        assert max_interference(corners, signed=True) == pytest.approx(-1 / d, rel=1e-4)
        cross = torch.cat([torch.eye(d), -torch.eye(d)])
        assert max_interference(cross, signed=True) == pytest.approx(0, abs=1e-6)


def test_no_set_of_directions_is_below_the_bound():
    generator = torch.Generator().manual_seed(0)
    for n, d in ((5, 3), (20, 8), (12, 12), (9, 2)):
        for W in (random_directions(n, d, generator), optimize_packing(random_directions(n, d, generator), 100)):
            assert max_interference(W) >= welch_bound(n, d) - 1e-6
            cosines = (W @ W.T)[~torch.eye(n, dtype=torch.bool)]
            assert cosines.square().mean().sqrt() >= welch_bound(n, d) - 1e-6  # it bounds the root mean square, too


def test_known_packings_are_found():
    """The icosahedron's diagonals, the simplex; with signs the cross and the octahedron."""
    generator = torch.Generator().manual_seed(1)

    def best(n, d, signed=False):
        """Of three starts, made sharper in steps."""
        found = []
        for _ in range(3):
            W = random_directions(n, d, generator)
            for sharpness, lr in ((10, 0.05), (30, 0.02), (100, 0.01)):
                W = optimize_packing(W, 150, sharpness=sharpness, lr=lr, signed=signed)
            found.append(max_interference(W, signed=signed))
        return min(found)

    assert best(6, 3) == pytest.approx(1 / 5**0.5, abs=0.01)
    assert best(6, 5) == pytest.approx(0.2, abs=0.01)
    assert best(6, 3, signed=True) == pytest.approx(0, abs=0.02)
    assert best(5, 2, signed=True) == pytest.approx(math.cos(2 * math.pi / 5), abs=0.01)


def test_the_error_of_random_directions():
    """With k features of size 1 and random sign on, and unit directions: the root of k / d times (n - 1) / n."""
    n, d, k = 300, 50, 5
    generator = torch.Generator().manual_seed(0)
    on = torch.rand(2000, n, generator=generator).argsort(1) < k
    features = on * (2.0 * torch.randint(2, on.shape, generator=generator) - 1)
    found = reading_error(random_directions(n, d, generator), features)
    assert found == pytest.approx(math.sqrt(k / d * (n - 1) / n), rel=0.05)
