"""Weights in another basis and measures of single units, against transformer_lens, scipy and closed forms."""

import pytest
import torch
from scipy import stats

from utils.models.course_model import course_model_weights
from utils.models.hooked import hooked_transformer
from utils.superposition.bases import coordinate_kurtosis, neuron_selectivity, random_rotation, rotate_basis


@pytest.mark.parametrize("seed", [0, 1])
def test_transformer_lens_computes_the_same_with_turned_weights(seed):
    cfg, state = course_model_weights()
    tokens = torch.randint(2, cfg.d_vocab, (4, 20), generator=torch.Generator().manual_seed(seed))
    rotation = random_rotation(cfg.d_model, seed, keep_ones=True)
    before, after = hooked_transformer(cfg, state), hooked_transformer(cfg, rotate_basis(state, cfg, rotation))
    with torch.no_grad():
        logits, old = before.run_with_cache(tokens)
        turned, new = after.run_with_cache(tokens)
    assert (turned - logits).abs().max() < 1e-3
    for layer in range(cfg.n_layers):
        name = f"blocks.{layer}.hook_resid_post"
        assert (new[name] - old[name] @ rotation).abs().max() < 1e-3  # folding moves nothing in the stream
        name = f"blocks.{layer}.mlp.hook_post"
        assert (new[name] - old[name]).abs().max() < 1e-3


def test_a_layer_norm_commutes_with_what_keeps_the_ones_and_with_nothing_else():
    x = torch.randn(50, 32, generator=torch.Generator().manual_seed(0)) + 1.0
    norm = torch.nn.LayerNorm(32, elementwise_affine=False)
    for keep_ones, same in ((True, True), (False, False)):
        turn = random_rotation(32, 3, keep_ones=keep_ones)
        assert ((norm(x @ turn) - norm(x) @ turn).abs().max() < 1e-4) == same
    turn = random_rotation(32, 3)

    def rms(x):
        return x / x.square().mean(-1, keepdim=True).sqrt()

    assert (rms(x @ turn) - rms(x) @ turn).abs().max() < 1e-4


def test_rotations_are_drawn_like_scipys():
    ours = torch.stack([random_rotation(6, seed) for seed in range(3000)])
    assert (ours @ ours.mT - torch.eye(6)).abs().max() < 1e-5
    theirs = torch.tensor(stats.ortho_group(6, seed=1).rvs(3000))
    for i, j in ((0, 0), (2, 4)):
        assert stats.ks_2samp(ours[:, i, j], theirs[:, i, j]).pvalue > 1e-4
    assert ours.mean(0).abs().max() < 0.05
    kept = random_rotation(6, 1, keep_ones=True)
    assert (kept.sum(0) - 1).abs().max() < 1e-5 and (kept.sum(1) - 1).abs().max() < 1e-5


def test_kurtosis_is_scipys():
    x = torch.randn(200, 7, generator=torch.Generator().manual_seed(0)).double().exp()
    expected = torch.tensor(stats.kurtosis(x.numpy(), fisher=False))
    assert torch.allclose(coordinate_kurtosis(x), expected)


def test_selectivity_of_planted_units():
    classes = torch.arange(8).repeat_interleave(10)
    for m in range(1, 9):
        unit = (classes < m).double() * 100 + torch.rand(80, generator=torch.Generator().manual_seed(m)).double()
        assert neuron_selectivity(unit[:, None], classes, 10 * m).item() == pytest.approx(m)
    # 1 / sum p² of n_top independent draws from m equal classes: its inverse is 1/m + (1 - 1/m) / n_top on average.
    drawn = torch.rand(80_000, 1, generator=torch.Generator().manual_seed(0))
    found = neuron_selectivity(drawn.view(2000, 40), torch.arange(2000) % 8, 40)
    assert (1 / found).mean().item() == pytest.approx(1 / 8 + (7 / 8) / 40, abs=0.012)
