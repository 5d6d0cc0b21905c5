"""Hooks and metrics against transformer_lens and closed forms."""

from pathlib import Path

import pytest
import torch

from utils.course.paths import load_file
from utils.patching.hooks import run_with_cache, run_with_hooks
from utils.patching.metrics import logit_difference, normalized_patching_metric

common = load_file(Path(__file__).with_name("common.py"))


@pytest.fixture(scope="module")
def model():
    return common.hooked_model(scale=1.0)


@pytest.fixture
def tokens():
    return torch.randint(17, (4, 7), generator=torch.Generator().manual_seed(1))


def test_cache_is_transformer_lens_cache(model, tokens):
    names = [name for name in model.hook_dict if "hook_attn_in" not in name and "mlp_in" not in name]
    _, theirs = model.run_with_cache(tokens)
    names = [name for name in names if name in theirs]
    logits, ours = run_with_cache(model, tokens, names)
    assert len(names) > 30
    torch.testing.assert_close(logits, model(tokens))
    for name in names:
        torch.testing.assert_close(ours[name], theirs[name], msg=name)


def test_hooks_are_transformer_lens_hooks(model, tokens):
    hooks = [("blocks.1.attn.hook_z", lambda z: z.flip(0)), ("blocks.2.hook_resid_pre", lambda x: 2 * x + 1)]
    theirs = model.run_with_hooks(tokens, fwd_hooks=[(name, lambda x, hook, f=f: f(x)) for name, f in hooks])
    torch.testing.assert_close(run_with_hooks(model, tokens, hooks), theirs)


def test_no_hook_is_left_after_an_exception(model, tokens):
    def burst(x):
        raise RuntimeError

    before = model(tokens)
    with pytest.raises(RuntimeError):
        run_with_hooks(model, tokens, [("hook_embed", torch.zeros_like), ("blocks.2.hook_mlp_out", burst)])
    assert not any(module._forward_hooks for module in model.modules())
    torch.testing.assert_close(model(tokens), before)


@pytest.mark.parametrize("name", ["blocks.0.hook_mlp_ouput", "blocks.0.attn.hook_result"])
def test_a_patch_that_would_do_nothing_is_refused(model, tokens, name):
    with pytest.raises(ValueError, match=name):
        run_with_hooks(model, tokens, [(name, lambda x: x)])


def test_logit_difference_is_the_log_of_the_odds():
    logits = torch.randn(5, 3, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    rows, at = torch.arange(5), torch.tensor([0, 1, 2, 0, 1])
    answers, foils = torch.tensor([0, 1, 2, 3, 4]), torch.tensor([7, 6, 5, 2, 0])
    p = logits.softmax(-1)[rows, at]
    odds = (p[rows, answers] / p[rows, foils]).log()
    torch.testing.assert_close(logit_difference(logits, answers, foils, at), odds)


def test_metric_by_hand():
    """Gaps 8 and 0.01, of which 4 and 0.1 come back: (4 + 0.1) / (8 + 0.01), and not the mean of 0.5 and 10."""
    clean, corrupted = torch.tensor([9.0, 1.01]).double(), torch.tensor([1.0, 1.0]).double()
    patched = corrupted + torch.tensor([4.0, 0.1]).double()
    assert normalized_patching_metric(patched, clean, corrupted).item() == pytest.approx(4.1 / 8.01)
