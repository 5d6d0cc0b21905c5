"""Reading back against scikit-learn, and on dictionaries whose properties are known."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import hadamard
from sklearn.linear_model import orthogonal_mp

from utils.superposition.planted import same_covariance, sparse_codes, unit_directions, variance_explained
from utils.superposition.recovery import (
    compressed_recovery,
    dictionary_match,
    guaranteed_sparsity,
    matching_pursuit,
    relu_readout,
    support_recovered,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("k", [1, 3, 6])
@pytest.mark.parametrize(("n", "d"), [(40, 12), (30, 25), (10, 20)])
def test_compressed_recovery_is_scikit_learns(n, d, k):
    dictionary = unit_directions(n, d, generator()).double()
    length = 0.5 + torch.rand(n, 1, generator=generator(1)).double()
    x = torch.randn(20, d, generator=generator(2)).double()
    theirs = orthogonal_mp(dictionary.T.numpy(), x.T.numpy(), n_nonzero_coefs=k).T
    ours = compressed_recovery(x, length * dictionary, k) * length.T
    np.testing.assert_allclose(ours.numpy(), theirs, atol=1e-8)


def test_matching_pursuit_loses_energy_as_theory_says():
    """Each step takes away exactly the square of the largest product (Mallat and Zhang 1993)."""
    dictionary, x = unit_directions(30, 8, generator()).double(), torch.randn(10, 8, generator=generator(1)).double()
    for step in range(6):
        before = x - matching_pursuit(x, dictionary, step) @ dictionary
        after = x - matching_pursuit(x, dictionary, step + 1) @ dictionary
        largest = (before @ dictionary.T).abs().amax(1)
        torch.testing.assert_close(
            before.square().sum(1) - after.square().sum(1), largest.square(), atol=1e-5, rtol=1e-5
        )


def test_matching_pursuit_tends_to_an_exact_decomposition():
    dictionary, x = unit_directions(30, 6, generator()), torch.randn(5, 6, generator=generator(1))
    assert (x - matching_pursuit(x, dictionary, 200) @ dictionary).abs().max() < 1e-3


def test_the_guarantee_holds_for_every_choice_of_features():
    """Axes and Hadamard rows in 16 dimensions: 2 guaranteed, so all 496 pairs, and the worst values, are recovered."""
    dictionary = torch.cat([torch.eye(16), torch.tensor(hadamard(16)).float() / 4]).double()
    assert guaranteed_sparsity(dictionary) == 2
    pairs = torch.combinations(torch.arange(32))
    for values in ((1.0, 1.0), (1.0, -1.0), (1.0, 0.01)):
        codes = (
            torch.zeros(len(pairs), 32)
            .double()
            .scatter(1, pairs, torch.tensor([values]).expand(len(pairs), 2).double())
        )
        found = compressed_recovery(codes @ dictionary, dictionary, 2)
        torch.testing.assert_close(found, codes, atol=1e-8, rtol=0)


@pytest.mark.parametrize("d", [16, 64, 256])
def test_coherence_of_axes_and_hadamard_rows(d):
    dictionary = torch.cat([torch.eye(d), torch.tensor(hadamard(d)).float()])
    assert guaranteed_sparsity(dictionary) == math.ceil((1 + math.sqrt(d)) / 2) - 1


def test_a_readout_of_orthogonal_directions_is_exact():
    basis = torch.linalg.qr(torch.randn(12, 12, generator=generator()))[0] * 1.7
    codes = sparse_codes(20, 12, 4, generator(1))
    torch.testing.assert_close(relu_readout(codes @ basis, basis, 0.0), codes, atol=1e-5, rtol=1e-4)


def test_recovered_is_what_the_largest_codes_say():
    truth = sparse_codes(200, 20, 3, generator())
    codes = truth + 0.2 * torch.randn(200, 20, generator=generator(1))
    largest = codes.abs().topk(3, dim=1).indices.sort(1).values
    on = truth.topk(3, dim=1).indices.sort(1).values
    assert torch.equal(support_recovered(codes, truth), (largest == on).all(1))
    assert 0.2 < support_recovered(codes, truth).float().mean() < 0.95


def test_nearest_cosines_are_scipys():
    from scipy.spatial.distance import cdist

    found, truth = torch.randn(9, 5, generator=generator()), torch.randn(7, 5, generator=generator(1))
    nearest = 1 - cdist(truth.double().numpy(), found.double().numpy(), "cosine").min(1)
    np.testing.assert_allclose(dictionary_match(found, truth).numpy(), nearest, atol=1e-5)


def test_what_is_planted_is_as_said():
    codes = sparse_codes(3000, 10, 3, generator())
    assert ((codes != 0).sum(1) == 3).all() and codes[codes > 0].min() >= 0.5 and codes.max() <= 1.5
    assert (codes > 0).float().mean(0).sub(0.3).abs().max() < 0.04
    rows = torch.randn(500, 4, generator=generator()) @ torch.randn(4, 4, generator=generator(1)) + 2
    drawn = same_covariance(rows, 100_000, generator(2))
    torch.testing.assert_close(torch.cov(drawn.T), torch.cov(rows.T), atol=0.1, rtol=0.05)
    torch.testing.assert_close(drawn.mean(0), rows.mean(0), atol=0.05, rtol=0.02)
    assert variance_explained(rows, rows) == 1 and abs(variance_explained(rows, rows.mean(0).expand(500, 4))) < 1e-5
