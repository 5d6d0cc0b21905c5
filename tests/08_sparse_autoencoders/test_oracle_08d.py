"""References of part 08d against closed forms, libraries and constructions of which the answer is known."""

import math

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment
from scipy.stats import ttest_ind

from utils.sae.agreement import dictionary_agreement, random_model_test
from utils.sae.autoencoder import SparseAutoencoder
from utils.sae.circle import circle_explained, plane_of_latents
from utils.sae.clamp import clamp_feature, same_length, side_effects
from utils.sae.splitting import feature_absorption, feature_splitting, tree, tree_samples


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_with_orthogonal_latents_a_clamped_latent_reads_its_value():
    sae = SparseAutoencoder(8, 8).requires_grad_(False)
    basis = torch.linalg.qr(torch.randn(8, 8, generator=generator()))[0]
    sae.W_dec.copy_(basis)
    sae.W_enc.copy_(basis.T)
    x = torch.randn(4, 5, 8, generator=generator(1))
    z, after = sae.encode(x), sae.encode(clamp_feature(sae, 3, 2.5)(x))
    off = x @ basis[3] < 0  # there the latent is 0 and the activation's part along it below 0
    torch.testing.assert_close(after[..., 3][~off], torch.full_like(after[..., 3][~off], 2.5))
    torch.testing.assert_close(after[..., :3], z[..., :3], atol=1e-5, rtol=1e-4)


def test_side_effects_of_a_known_change():
    """Two words of probability 1/2 each among the others: raising one by log 3 moves a quarter."""
    before = torch.tensor([[[0.0, 0.0, -50.0]] * 2])
    after = before + torch.tensor([math.log(3), 0, 0])
    found = side_effects(before, after, torch.tensor([[0, 1]]), torch.tensor([2]))
    assert abs(found["others"] - 0.25) < 1e-6 and abs(found["loss"] - math.log(2)) < 1e-6
    assert same_length(torch.tensor([3.0, 4, 0]), 7, generator()).norm(dim=1).sub(5).abs().max() < 1e-5


def test_a_planted_split_and_planted_absorption():
    small = torch.linalg.qr(torch.randn(10, 10, generator=generator()))[0][:4]
    large = small.repeat_interleave(3, 0) + 0.05 * torch.randn(12, 10, generator=generator(1))
    assert torch.equal(feature_splitting(small, large), torch.arange(4).repeat_interleave(3))
    parents = tree(2, 2)
    on = tree_samples(parents, 4000, generator=generator(2))
    z = on.float()
    assert feature_absorption(z, on, torch.arange(6), parents)[2:].abs().max() == 0
    z[on[:, 2], 0] = 0  # the first child has taken over
    found = feature_absorption(z, on, torch.arange(6), parents)
    assert found[:2].isnan().all() and found[2:].tolist() == [1, 0, 0, 0]


def test_agreement_is_at_most_that_of_the_decoders():
    a, b = (torch.randn(40, 6, generator=generator(s)) for s in (0, 1))
    cosines = np.corrcoef(np.c_[a, -a], np.c_[b, -b])[:40, 40:]  # rows of mean 0: correlations are cosines
    rows, partners = linear_sum_assignment(-cosines)
    alone = torch.as_tensor(cosines[rows, partners] >= 0.7)
    both = dictionary_agreement(a.T, a, b.T, b)
    assert torch.equal(both, alone)


def test_welch_is_scipys_and_errs_as_often_as_promised():
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(400):
        trained, random = ({n: rng.normal(size=size).tolist() for n in "abc"} for size in (3, 5))
        found = random_model_test(trained, random)
        low, high = ttest_ind(trained["a"], random["a"], equal_var=False).confidence_interval(1 - 0.05 / 3)
        assert abs(found["a"][0] - (low + high) / 2) < 1e-9 and abs(found["a"][1] - (high - low) / 2) < 1e-6
        wrong += any(apart for *_, apart in found.values())
    assert wrong < 35  # at most 20 expected


def test_arcs_share_a_circle():
    angles = 2 * math.pi * torch.arange(600) / 600
    held_out = torch.rand(600, generator=generator()) < 0.5
    centres = 2 * math.pi * torch.arange(12) / 12
    z = torch.relu((angles[:, None] - centres).cos() - 0.8)
    single = max(circle_explained(z[:, [i]], angles, held_out) for i in range(12))
    assert single < 0.25 and circle_explained(z, angles, held_out) > 0.98
    W_dec = torch.zeros(12, 7)
    W_dec[:, 2:4] = torch.stack([centres.cos(), centres.sin()], 1)
    plane = plane_of_latents(z, W_dec, torch.arange(12))
    torch.testing.assert_close(plane.T @ plane, torch.eye(7) * torch.tensor([0.0, 0, 1, 1, 0, 0, 0]), atol=1e-4, rtol=0)
