"""The interventions against nnsight, an engine that traces a model instead of hooking it."""

import pytest
import torch
from nnsight import NNsight

from utils.models.config import TransformerConfig
from utils.models.hooked import hooked_transformer
from utils.patching.attribution import attribution_patching
from utils.patching.hooks import run_with_cache
from utils.patching.sites import patch_site, patch_sweep
from utils.transformer.model import Transformer

CFG = TransformerConfig(d_model=8, n_layers=3, n_heads=2, d_head=3, d_mlp=6, n_ctx=6, d_vocab=15)
CLOSE = {"atol": 1e-5, "rtol": 1e-4}
STREAM = "blocks.1.hook_resid_post"


@pytest.fixture(scope="module")
def model():
    generator = torch.Generator().manual_seed(0)
    names = Transformer(CFG).named_parameters()
    return hooked_transformer(CFG, {name: 0.6 * torch.randn(p.shape, generator=generator) for name, p in names})


@pytest.fixture(scope="module")
def pair():
    """Two batches of prompts, clean and corrupted."""
    return torch.randint(15, (2, 3, 6), generator=torch.Generator().manual_seed(1))


def of_first(logits):
    return logits[:, -1, 3] - logits[:, -1, 7]


def test_reading_an_activation(model, pair):
    traced = NNsight(model)
    with torch.no_grad(), traced.trace(pair[0]):
        stream = traced.blocks[1].hook_resid_post.output.save()
        logits = traced.output.save()
    result, cache = run_with_cache(model, pair[0], [STREAM])
    torch.testing.assert_close(cache[STREAM], stream)
    torch.testing.assert_close(result, logits)


def test_patching_a_position_and_sweeping(model, pair):
    traced, (clean, corrupted) = NNsight(model), pair
    with torch.no_grad():
        _, cache = run_with_cache(model, clean, [STREAM])
    effects = []
    for position in range(6):
        with torch.no_grad(), traced.trace(corrupted):
            traced.blocks[1].hook_resid_post.output[:, position] = cache[STREAM][:, position]
            logits = traced.output.save()
        ours = patch_site(model, corrupted, STREAM, cache[STREAM], positions=torch.full((3,), position))
        torch.testing.assert_close(ours, logits, **CLOSE)
        effects.append(of_first(logits))
    torch.testing.assert_close(patch_sweep(model, corrupted, cache, of_first)[0], torch.stack(effects), **CLOSE)


def test_patching_a_head(model, pair):
    traced, name, (clean, corrupted) = NNsight(model), "blocks.2.attn.hook_z", pair
    with torch.no_grad():
        _, cache = run_with_cache(model, clean, [name])
        with traced.trace(corrupted):
            traced.blocks[2].attn.hook_z.output[:, :, 1] = cache[name][:, :, 1]
            logits = traced.output.save()
        ours = patch_site(model, corrupted, name, cache[name], head=1)
    torch.testing.assert_close(ours, logits, **CLOSE)


def test_attribution_patching(model, pair):
    traced, (clean, corrupted) = NNsight(model), pair
    with torch.no_grad():
        _, cache = run_with_cache(model, clean, [STREAM])
    with traced.trace(corrupted):
        stream = traced.blocks[1].hook_resid_post.output.save()
        metric = of_first(traced.output).sum()
        with metric.backward():
            slope = stream.grad.save()
    expected = ((cache[STREAM] - stream) * slope).sum(-1)
    torch.testing.assert_close(
        attribution_patching(model, clean, corrupted, [STREAM], of_first)[STREAM], expected, **CLOSE
    )
