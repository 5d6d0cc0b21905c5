"""Patches, sweeps, ablations and attribution against transformer_lens.patching, truth tables and exact sweeps."""

import itertools
import warnings
from pathlib import Path

import pytest
import torch

from utils.course.paths import load_file
from utils.patching.ablation import mean_ablate, resample_ablate, zero_ablate
from utils.patching.attribution import attribution_patching
from utils.patching.hooks import run_with_cache
from utils.patching.logic import denoise, noise
from utils.patching.networks import LogicNetwork, SmallTransformer
from utils.patching.sites import patch_site, patch_sweep

common = load_file(Path(__file__).with_name("common.py"))


@pytest.fixture(scope="module")
def model():
    return common.hooked_model()


@pytest.fixture(scope="module")
def prompts():
    return torch.randint(17, (2, 4, 7), generator=torch.Generator().manual_seed(1))


def metric(logits):
    return logits[:, -1, 3] - logits[:, -1, 5]


@pytest.fixture(scope="module")
def library():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from transformer_lens import patching
    return patching


@pytest.mark.parametrize(
    ("point", "function"),
    [
        ("hook_resid_pre", "get_act_patch_resid_pre"),
        ("hook_attn_out", "get_act_patch_attn_out"),
        ("hook_mlp_out", "get_act_patch_mlp_out"),
    ],
)
@torch.no_grad()
def test_position_sweeps_are_transformer_lens_sweeps(model, prompts, library, point, function):
    clean, corrupted = prompts
    theirs = getattr(library, function)(model, corrupted, model.run_with_cache(clean)[1], lambda z: metric(z).mean())
    _, cache = run_with_cache(model, clean, [f"blocks.{layer}.{point}" for layer in range(3)])
    ours = patch_sweep(model, corrupted, cache, metric, max_rows=20).mean(-1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_head_sweep_is_transformer_lens_sweep(model, prompts, library):
    clean, corrupted = prompts
    cache = model.run_with_cache(clean)[1]
    theirs = library.get_act_patch_attn_head_out_all_pos(model, corrupted, cache, lambda z: metric(z).mean())
    _, cache = run_with_cache(model, clean, [f"blocks.{layer}.attn.hook_z" for layer in range(3)])
    ours = patch_sweep(model, corrupted, cache, metric, over="head").mean(-1)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_single_heads_at_single_positions(model, prompts, library):
    clean, corrupted = prompts
    cache = model.run_with_cache(clean)[1]
    theirs = library.get_act_patch_attn_head_out_by_pos(model, corrupted, cache, lambda z: metric(z).mean())
    for layer, position, head in itertools.product(range(3), (0, 6), range(2)):
        name = f"blocks.{layer}.attn.hook_z"
        logits = patch_site(model, corrupted, name, cache[name], positions=torch.full((4,), position), head=head)
        torch.testing.assert_close(metric(logits).mean(), theirs[layer, position, head], rtol=1e-4, atol=1e-5)


def test_truth_tables():
    """Denoising finds what is sufficient, noising what is necessary; computed from Boolean logic alone."""
    gates = {"and": all, "or": any}
    for kind, a, b, c, d in itertools.product(gates, *[(0, 1)] * 4):
        network, gate = LogicNetwork(kind), gates[kind]
        clean, corrupted = torch.tensor([[a, b]]).float(), torch.tensor([[c, d]]).float()
        for names in ([], ["a"], ["b"], ["a", "b"]):
            restored = gate([a if "a" in names else c, b if "b" in names else d])
            broken = gate([c if "a" in names else a, d if "b" in names else b])
            assert denoise(network, clean, corrupted, names).item() == restored
            assert noise(network, clean, corrupted, names).item() == broken


@torch.no_grad()
def test_ablations_are_edits_of_the_weights():
    """To silence a head is to zero its output matrix; on one other prompt mean and resampling agree."""
    generator = torch.Generator().manual_seed(0)
    model = SmallTransformer(generator)
    tokens, one = torch.randint(11, (3, 5), generator=generator), torch.randint(11, (1, 5), generator=generator)
    silenced = zero_ablate(model, tokens, "blocks.1.attn.hook_z", head=2)
    mean = mean_ablate(model, tokens, "blocks.0.hook_mlp_out", one)
    drawn = resample_ablate(model, tokens, "blocks.0.hook_mlp_out", one, generator)
    torch.testing.assert_close(mean, drawn)
    model.blocks[1].attn.W_O[2] = 0
    torch.testing.assert_close(silenced, model(tokens))


@torch.no_grad()
def test_ablations_by_transformer_lens_hooks(model, prompts):
    """Zero and mean ablation of one head by the library's hooks; resampling gives some other prompt's activation."""
    tokens, others = prompts
    name = "blocks.1.attn.hook_z"
    _, cache = model.run_with_cache(others)

    def run(value):
        def write(z, hook):
            return torch.cat([z[:, :, :1], value.expand_as(z)[:, :, 1:]], dim=2)

        return model.run_with_hooks(tokens, fwd_hooks=[(name, write)])

    torch.testing.assert_close(zero_ablate(model, tokens, name, head=1), run(torch.zeros(1)))
    torch.testing.assert_close(mean_ablate(model, tokens, name, others, head=1), run(cache[name].mean(0)))
    drawn = resample_ablate(model, tokens, name, others, torch.Generator().manual_seed(0), head=1)
    candidates = torch.stack([run(z) for z in cache[name]])
    distance = (candidates - drawn).abs().amax((2, 3)).min(0).values
    torch.testing.assert_close(distance, torch.zeros(len(tokens)), rtol=0, atol=1e-5)


@torch.no_grad()
def test_mean_ablation_is_the_mean_of_resamplings_where_all_is_linear():
    generator = torch.Generator().manual_seed(0)
    model = SmallTransformer(generator, linear=True).double()
    tokens, others = torch.randint(11, (2, 4, 6), generator=generator)
    single = [resample_ablate(model, tokens, "blocks.0.hook_mlp_out", one[None], generator) for one in others]
    mean = mean_ablate(model, tokens, "blocks.0.hook_mlp_out", others)
    torch.testing.assert_close(mean, torch.stack(single).mean(0))


def test_attribution_is_exact_on_a_linear_model():
    generator = torch.Generator().manual_seed(0)
    names = ["blocks.0.hook_attn_out", "blocks.1.hook_mlp_out"]
    clean, corrupted = torch.randint(11, (2, 3, 6), generator=generator)
    linear = SmallTransformer(generator, linear=True).double()
    _, cache = run_with_cache(linear, clean, names)
    change = patch_sweep(linear, corrupted, cache, metric) - metric(linear(corrupted)).detach()
    found = attribution_patching(linear, clean, corrupted, names, metric)
    torch.testing.assert_close(torch.stack(list(found.values())).transpose(1, 2), change, rtol=1e-8, atol=1e-9)


def test_attribution_is_the_finite_difference(prompts):
    """A small part of the step from corrupted to clean, taken exactly and both ways, is that part of the estimate."""
    clean, corrupted = prompts
    double = common.hooked_model().to(torch.float64)
    name, step = "blocks.1.hook_attn_out", 1e-4
    found = attribution_patching(double, clean, corrupted, [name], metric)[name]
    own, target = (run_with_cache(double, x, [name])[1][name].detach() for x in (corrupted, clean))
    there, back = (patch_sweep(double, corrupted, {name: own + h * (target - own)}, metric)[0] for h in (step, -step))
    torch.testing.assert_close((there - back).T / (2 * step), found, rtol=1e-6, atol=1e-9)
