"""Rank, entropy and divergence against scipy and torch."""

import numpy as np
import scipy.stats
import torch
from scipy.special import softmax

from utils.lenses.measures import lens_entropy, lens_kl, lens_rank


def random_logits(seed, *shape):
    return 3 * torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_rank_agrees_with_scipy():
    logits = random_logits(0, 6, 4, 19).round()  # rounded, so that there are ties
    target = torch.randint(19, (4,), generator=torch.Generator().manual_seed(1))
    ranks = scipy.stats.rankdata(-logits.numpy(), method="min", axis=-1) - 1
    expected = np.take_along_axis(ranks, target.expand(6, 4)[..., None].numpy(), axis=-1)[..., 0]
    np.testing.assert_array_equal(lens_rank(logits, target).numpy(), expected)


def test_entropy_agrees_with_scipy():
    logits = random_logits(2, 5, 7, 23)
    expected = scipy.stats.entropy(softmax(logits.numpy(), axis=-1), axis=-1)
    np.testing.assert_allclose(lens_entropy(logits).numpy(), expected, rtol=1e-12)


def test_kl_agrees_with_scipy_and_torch():
    logits, final = random_logits(3, 4, 5, 17), random_logits(4, 5, 17)
    p, q = softmax(final.numpy(), axis=-1), softmax(logits.numpy(), axis=-1)
    np.testing.assert_allclose(lens_kl(logits, final).numpy(), scipy.stats.entropy(p, q, axis=-1), rtol=1e-10)
    torch_kl = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=final), torch.distributions.Categorical(logits=logits)
    )
    torch.testing.assert_close(lens_kl(logits, final), torch_kl)


def test_kl_gradient():
    logits, final = random_logits(5, 3, 6).requires_grad_(), random_logits(6, 3, 6)
    [gradient] = torch.autograd.grad(lens_kl(logits, final).sum(), logits)
    torch.testing.assert_close(gradient, logits.softmax(-1) - final.softmax(-1))
