"""What part 08a says of its experiments, measured again, on other seeds where they are said of any."""

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Generator

from utils.data.corpus import corpus
from utils.models.course_model import load_course_model
from utils.sae.autoencoder import SparseAutoencoder, l1_objective
from utils.sae.metrics import (
    dead_fraction,
    fraction_variance_explained,
    loss_recovered,
    matched_cosines,
    spliced_loss,
)
from utils.sae.training import fold_scale, from_table, scale_of, start_at_median, train_sae
from utils.superposition.planted import same_covariance, sparse_codes, unit_directions
from utils.superposition.toy import sample_features
from utils.superposition.train import train_toy_models

SITE = "blocks.2.hook_resid_post"


def recover(x, seed, price=0.3, resample_at=(), killed=0):
    d = x.shape[1]
    sae = SparseAutoencoder(d, 2 * d, generator=Generator().manual_seed(2000 + seed))
    start_at_median(sae, x[:2000])
    sae.b_enc.data[:killed] -= 5
    train_sae(
        sae, from_table(x, 256, seed=seed), l1_objective(price), n_steps=800, lr=5e-3, n_price_warmup=200,
        dead_after=10_000, resample_at=resample_at,
    )  # fmt: skip
    return sae.requires_grad_(False)


def planted(k, seed, paired=False):
    generator = Generator().manual_seed(seed)
    truth = unit_directions(64, 32, generator)
    codes = sparse_codes(8192, 64, k, generator)
    if paired:
        one = sparse_codes(8192, 32, 1, generator)
        other = (one > 0) * (0.5 + torch.rand(8192, 32, generator=generator))
        codes = torch.stack([one, other], dim=2).flatten(1)
    return truth, codes, codes @ truth


@pytest.mark.parametrize("seed", [11, 12])
def test_sparse_features_are_found_and_dense_ones_are_only_copied(seed):
    scores = {}
    for k in (2, 8):
        truth, _, x = planted(k, seed)
        sae = recover(x, seed)
        scores[k] = matched_cosines(sae.W_dec, truth).mean()
        assert 0.85 < fraction_variance_explained(x, sae(x)[0]) < 0.95
    chance = matched_cosines(unit_directions(64, 32, Generator().manual_seed(seed + 50)), truth).mean()
    assert scores[2] > 0.88 and scores[8] < 0.68 and 0.3 < chance < 0.44
    sae = recover(x, seed, price=0.9)
    assert matched_cosines(sae.W_dec, truth).mean() > scores[8] + 0.07
    assert fraction_variance_explained(x, sae(x)[0]) < 0.75  # the better dictionary, by the truth
    truth, _, x = planted(2, seed, paired=True)
    assert 0.6 < matched_cosines(recover(x, seed).W_dec, truth).mean() < 0.8


def refit(sae, x, z):
    on = (z > 0).float()
    atoms = sae.W_dec * on[:, :, None]
    gram = atoms @ atoms.mT + torch.diag_embed(1 - on) + 1e-4 * torch.eye(z.shape[1])
    return torch.linalg.solve(gram, (atoms @ (x - sae.b_dec)[:, :, None]))[:, :, 0].relu() * on


def test_latents_are_too_small_and_magnitudes_fitted_anew_are_less_so():
    truth, codes, x = planted(2, 13)
    sae = recover(x, 13)
    x, codes = x[:800], codes[:800]
    x_hat, z = sae(x)
    again = refit(sae, x, z)
    partner = torch.as_tensor(linear_sum_assignment((truth @ sae.W_dec.T).numpy(), maximize=True)[1])
    on = (codes > 0) & (z[:, partner] > 0)
    before, after = ((codes - values[:, partner])[on].mean() for values in (z, again))
    assert before > 0.2 and after < before / 2  # the law for a latent that is on alone: 0.15
    fve = [fraction_variance_explained(x, fit) for fit in (x_hat, again @ sae.W_dec + sae.b_dec)]
    assert fve[1] > fve[0] + 0.03


def test_features_that_a_toy_model_stored_are_found():
    run = train_toy_models(24, 12, torch.full((2,), 0.03), n_steps=1500, batch=256, seed=4)
    for i in range(2):
        stored = run.model.W[i].T
        features = sample_features(24, 16384, 0.06, Generator().manual_seed(70 + i))[0]
        found = matched_cosines(recover(features @ stored, i, price=0.2).W_dec, stored)
        chance = matched_cosines(unit_directions(24, 12, Generator().manual_seed(i)), stored)
        assert found.mean() > 0.85 and (found > 0.9).sum() >= 16
        assert chance.mean() < 0.65 and (chance > 0.9).sum() <= 3


def test_latents_started_anew_find_what_dead_ones_would_miss():
    truth, _, x = planted(2, 21)
    alone, anew = recover(x, 21, killed=20), recover(x, 21, killed=20, resample_at=(150, 300))
    assert dead_fraction(alone(x)[1]) > 0.28 and dead_fraction(anew(x)[1]) < 0.03
    found = [(matched_cosines(sae.W_dec, truth) > 0.9).float().mean() for sae in (alone, anew)]
    assert found[0] < 0.65 and found[1] > 0.75


@pytest.fixture(scope="module")
def course():
    model = load_course_model().requires_grad_(False)
    tokens = torch.as_tensor(corpus(240, seed=809_000)).long()
    with torch.no_grad():
        stream = model.run_with_cache(tokens, names_filter=[SITE])[1][SITE]
    return model, tokens[200:], stream[:200, 1:].flatten(0, 1), stream[200:, 1:].flatten(0, 1)


def test_the_course_model_against_gaussian_vectors(course):
    model, tokens, seen, fresh = course
    scale, trained = scale_of(seen), {}
    for name, x in (("own", seen), ("gauss", same_covariance(seen, len(seen), Generator().manual_seed(3)))):
        sae = SparseAutoencoder(128, 256, generator=Generator().manual_seed(7))
        start_at_median(sae, scale * x[:4000])
        batches = from_table(scale * x, 512, seed=7)
        train_sae(sae, batches, l1_objective(4.0), n_steps=300, lr=4e-3, n_price_warmup=80)
        fold_scale(sae, scale)
        trained[name] = sae.requires_grad_(False)
    own, foreign = (fraction_variance_explained(fresh, trained[name](fresh)[0]) for name in ("own", "gauss"))
    gauss = same_covariance(seen, len(fresh), Generator().manual_seed(4))
    theirs = fraction_variance_explained(gauss, trained["gauss"](gauss)[0])
    assert own > theirs + 0.15 and own > foreign + 0.1

    def spliced(change):
        return spliced_loss(model, tokens, SITE, lambda value: torch.cat([value[:, :1], change(value[:, 1:])], dim=1))

    intact, zero = spliced(lambda x: x), spliced(lambda x: 0 * x)
    mean = spliced(lambda x: seen.mean(0).expand_as(x))
    loss = {name: spliced(lambda x, sae=sae: sae(x)[0]) for name, sae in trained.items()}
    recovered = {name: loss_recovered(intact, value, zero) for name, value in loss.items()}
    assert recovered["own"] > recovered["gauss"] + 0.03
    assert abs(zero - mean) < 0.15 * zero
