"""The chapter's functions on another make of model: RMS norm, rotary positions, gated MLPs, no biases, shared keys.

Twice: with keys that heads share, and as SmolLM2 is loaded, with keys of their own and norms without parameters.
"""

import pytest
import torch
from torch.func import functional_call

from utils.patching.ablation import mean_ablate, resample_ablate, zero_ablate
from utils.patching.attribution import attribution_patching
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.patching.logic import denoise, noise
from utils.patching.metrics import logit_difference
from utils.patching.pitfall import embedding_patch_pitfall
from utils.patching.rome import rome_key_covariance, rome_target_value, rome_update
from utils.patching.sites import patch_site, patch_sweep
from utils.patching.steering import steer
from utils.patching.tracing import causal_trace

Z, STREAM, MLP = "blocks.1.attn.hook_z", "blocks.1.hook_resid_post", "blocks.0.hook_mlp_out"
CLOSE = {"rtol": 1e-4, "atol": 1e-5}


@pytest.fixture(scope="module", params=["RMS", "RMSPre"])
def model(request):
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    cfg = HookedTransformerConfig(
        n_layers=2, d_model=12, n_ctx=8, d_head=4, n_heads=4, d_mlp=10, d_vocab=15, act_fn="silu", gated_mlp=True,
        n_key_value_heads=2 if request.param == "RMS" else None, normalization_type=request.param, final_rms=True,
        positional_embedding_type="rotary", rotary_dim=4, seed=0, device="cpu",
    )  # fmt: skip
    model = HookedTransformer(cfg)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            bias = name.rsplit(".", 1)[-1].startswith(("b_", "_b_"))
            parameter.copy_(0 * parameter if bias else 0.5 * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture
def pair():
    return torch.randint(15, (2, 3, 6), generator=torch.Generator().manual_seed(1))


def metric(logits):
    return logits[:, -1, 3] - logits[:, -1, 5]


def cache_of(model, tokens, *names):
    with torch.no_grad():
        return run_with_cache(model, tokens, names)[1]


def test_keys_are_shared(model, pair):
    found = cache_of(model, pair[0], "blocks.1.attn.hook_q", "blocks.1.attn.hook_k", Z)
    assert [x.shape[2] for x in found.values()] == [4, model.cfg.n_key_value_heads or 4, 4]


def test_the_last_stream_is_the_other_run(model, pair):
    clean, corrupted = pair
    source = cache_of(model, clean, STREAM)[STREAM]
    for logits in (
        patch_site(model, corrupted, STREAM, source),
        denoise(model, clean, corrupted, [STREAM]),
        noise(model, corrupted, clean, [STREAM]),
    ):
        torch.testing.assert_close(logits, model(clean), **CLOSE)


@torch.no_grad()
def test_sweeps_are_patches_one_by_one(model, pair):
    clean, corrupted = pair
    source = cache_of(model, clean, Z, "blocks.0.attn.hook_z")
    heads = patch_sweep(model, corrupted, source, metric, over="head", max_rows=7)
    for i, name in enumerate(source):
        for head in range(4):
            torch.testing.assert_close(
                heads[i, head], metric(patch_site(model, corrupted, name, source[name], head=head)), **CLOSE
            )
    keys = cache_of(model, clean, "blocks.1.attn.hook_k")
    assert patch_sweep(model, corrupted, keys, metric, over="head").shape == (1, model.cfg.n_key_value_heads or 4, 3)


def test_heads_that_share_keys_are_not_swept_with_those_that_do_not(model, pair):
    if not model.cfg.n_key_value_heads:
        pytest.skip("every head has its own")
    found = cache_of(model, pair[0], "blocks.1.attn.hook_k", "blocks.1.attn.hook_q")
    for names in (list(found), list(found)[::-1]):
        with pytest.raises(ValueError, match="number of slots"):
            patch_sweep(model, pair[1], {name: found[name] for name in names}, metric, over="head")


@torch.no_grad()
def test_ablations(model, pair):
    clean, others = pair
    silenced = zero_ablate(model, clean, Z, head=3)
    change = {"blocks.1.attn.W_O": model.blocks[1].attn.W_O * (torch.arange(4) < 3)[:, None, None]}
    torch.testing.assert_close(silenced, functional_call(model, change, (clean,)), **CLOSE)
    one = others[:1]
    drawn = resample_ablate(model, clean, MLP, one, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, mean_ablate(model, clean, MLP, one), **CLOSE)


def test_attribution_is_the_finite_difference(model, pair):
    clean, corrupted = pair
    double, step = model.to(torch.float64), 1e-5
    try:
        found = attribution_patching(double, clean, corrupted, [MLP, Z], metric)
        own, target = (cache_of(double, x, MLP)[MLP] for x in (corrupted, clean))
        ends = [patch_sweep(double, corrupted, {MLP: own + h * (target - own)}, metric)[0] for h in (step, -step)]
    finally:
        model.to(torch.float32)
    torch.testing.assert_close((ends[0] - ends[1]).T / (2 * step), found[MLP], rtol=1e-5, atol=1e-8)
    assert found[Z].shape == (3, 6, 4)


def test_tracing_steering_and_the_pitfall(model, pair):
    tokens, ends = pair[0], torch.tensor([5, 4, 5])
    subject = torch.zeros(3, 6, dtype=torch.bool)
    subject[:, 1:3] = True
    found = causal_trace(
        model, tokens, subject, [STREAM], torch.full((1, 3), 5), metric, std=1.0, n_draws=2,
        generator=torch.Generator().manual_seed(0),
    )  # fmt: skip
    torch.testing.assert_close(found["restored"][0, 0], found["clean"], **CLOSE)
    direction = model.W_U[:, 3].detach()
    curve = steer(model, tokens, STREAM, direction, torch.tensor([0.0, 5.0]), metric, positions=torch.full((3,), 5))
    torch.testing.assert_close(curve[0], metric(model(tokens)).detach(), **CLOSE)
    assert (curve[1] > curve[0]).all()
    wins = int(((direction * getattr(model.ln_final, "w", 1.0)) @ model.W_U).argmax())
    share, divergence = embedding_patch_pitfall(model, tokens, ends, STREAM, direction, wins, 1000.0)
    assert share == 1.0
    assert (divergence > 0).all()
    answers, foils = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 6])
    assert logit_difference(model(tokens), answers, foils, ends).shape == (3,)


def test_an_edit_of_a_gated_mlp_writes_the_value(model, pair):
    tokens, hidden = pair[0], "blocks.0.mlp.hook_post"
    covariance = rome_key_covariance(model, pair.flatten(0, 1), hidden)
    at = torch.tensor([2, 1, 3])
    value = rome_target_value(model, tokens, at, torch.full((3,), 5), 7, MLP, steps=5)
    key, mlp = cache_of(model, tokens, hidden)[hidden][0, 2], model.blocks[0].mlp
    matrix = rome_update(mlp.W_out.detach(), mlp.b_out.detach(), covariance, key, value)
    assert not mlp.b_out.any()
    torch.testing.assert_close(key @ matrix, value, rtol=1e-3, atol=1e-4)


def test_a_submodule_that_hands_on_a_tuple_is_refused_in_one_sentence():
    class Network(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.lstm = torch.nn.Embedding(5, 3), torch.nn.LSTM(3, 3, batch_first=True)

        def forward(self, tokens):
            return self.lstm(self.embed(tokens))[0]

    network, tokens = Network(), torch.zeros(2, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="'lstm' puts out a tuple"):
        run_with_cache(network, tokens, ["lstm"])
    with pytest.raises(ValueError, match="'lstm' puts out a tuple"):
        run_with_hooks(network, tokens, [("lstm", lambda x: x)])
    assert run_with_cache(network, tokens, ["embed"])[1]["embed"].shape == (2, 4, 3)


def test_a_pattern_is_no_activation_of_positions(model, pair):
    name = "blocks.1.attn.hook_pattern"
    pattern = cache_of(model, pair[0], name)
    with pytest.raises(ValueError, match=r"\[batch, pos\]"):
        patch_site(model, pair[1], name, pattern[name], head=1)
    with pytest.raises(ValueError, match=r"\[batch, pos"):
        patch_sweep(model, pair[1], pattern, metric)
    assert patch_site(model, pair[1], name, pattern[name]).shape == (3, 6, 15)


@torch.inference_mode()
def test_in_inference_mode(model, pair):
    """Also with prompts and activations that were made in it; what cannot be fitted there says so."""
    clean, corrupted = pair.clone()
    cache = run_with_cache(model, clean, [MLP])[1]
    exact = patch_sweep(model, corrupted, cache, metric)
    patched = patch_site(model, corrupted, MLP, cache[MLP], positions=torch.tensor([2, 2, 2]))
    torch.testing.assert_close(metric(patched), exact[0, 2], **CLOSE)
    estimate = attribution_patching(model, clean, corrupted, [MLP], metric)[MLP]
    with torch.inference_mode(False):
        wanted = attribution_patching(model, pair[0].clone(), pair[1].clone(), [MLP], metric)[MLP]
    torch.testing.assert_close(estimate, wanted, **CLOSE)
    with pytest.raises(RuntimeError, match="inference_mode"):
        rome_target_value(model, clean, torch.tensor([1, 1, 1]), torch.tensor([5, 5, 5]), 3, MLP, steps=1)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    generator = torch.Generator().manual_seed(0)
    W, b, keys, key, value = (torch.randn(*s, generator=generator) for s in ((5, 3), (3,), (40, 5), (5,), (3,)))
    case = W, b, keys.T @ keys / 40 + 0.1 * torch.eye(5), key, value
    found = rome_update(*(x.to(dtype) for x in case))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), rome_update(*case), rtol=0.05, atol=0.05)


def test_the_second_moment_of_half_precision_keys_does_not_overflow():
    """Sums of 2,000 squares of 20 are 800,000, where float16 ends at 65,504; their mean is 400."""
    network = torch.nn.Sequential(torch.nn.Embedding(3, 2)).to(torch.float16)
    with torch.no_grad():
        network[0].weight.copy_(20 * torch.tensor([[1.0, -1.0], [-1.0, 1.0], [1.0, 1.0]]))
    tokens = torch.arange(2001).reshape(29, 69) % 3
    moment = rome_key_covariance(network, tokens, "0", ridge=0.0)
    assert moment.dtype == torch.float16
    torch.testing.assert_close(moment.diagonal().float(), torch.full((2,), 400.0), rtol=1e-2, atol=0)
