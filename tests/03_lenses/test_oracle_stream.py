"""The references that read the stream against transformer_lens and closed forms."""

import pytest
import torch

from utils.lenses.stream import logit_lens, residual_components, residual_stack
from utils.models.config import TransformerConfig
from utils.models.hooked import hooked_transformer
from utils.transformer.model import Transformer

CFG = TransformerConfig(d_model=12, n_layers=3, n_heads=2, d_head=5, d_mlp=9, n_ctx=7, d_vocab=11)


@pytest.fixture(scope="module")
def model():
    generator = torch.Generator().manual_seed(0)
    state = {name: 0.6 * torch.randn(p.shape, generator=generator) for name, p in Transformer(CFG).named_parameters()}
    return hooked_transformer(CFG, state)


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(CFG.d_vocab, (3, 6), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def cache(model, tokens):
    return model.run_with_cache(tokens)[1]


def test_stack_agrees_with_accumulated_resid(model, tokens, cache):
    theirs = cache.accumulated_resid(layer=-1, incl_mid=False)
    torch.testing.assert_close(residual_stack(model, tokens), theirs)


def test_components_agree_with_decompose_resid(model, tokens, cache):
    parts = residual_components(model, tokens)
    theirs, labels = cache.decompose_resid(layer=-1, mode="all", return_labels=True)
    theirs = dict(zip(labels, theirs, strict=True))
    torch.testing.assert_close(parts["embed"], theirs["embed"])
    torch.testing.assert_close(parts["pos_embed"], theirs["pos_embed"])
    for layer in range(CFG.n_layers):
        attention = parts[f"b_O {layer}"] + sum(parts[f"head {layer}.{h}"] for h in range(CFG.n_heads))
        torch.testing.assert_close(attention, theirs[f"{layer}_attn_out"])
        torch.testing.assert_close(parts[f"mlp {layer}"], theirs[f"{layer}_mlp_out"])


def test_heads_agree_with_stack_head_results(model, tokens, cache):
    parts = residual_components(model, tokens)
    theirs, labels = cache.stack_head_results(layer=-1, return_labels=True, incl_remainder=False)
    for label, value in zip(labels, theirs, strict=True):
        layer, head = label.removeprefix("L").split("H")
        torch.testing.assert_close(parts[f"head {layer}.{head}"], value.detach(), rtol=1e-4, atol=1e-5)


def test_components_sum_to_the_stream(model, tokens):
    total = torch.stack(list(residual_components(model, tokens).values())).sum(0)
    torch.testing.assert_close(total, residual_stack(model, tokens)[-1], rtol=1e-4, atol=1e-4)


def test_lens_is_the_model_at_the_last_site(model, tokens):
    read = logit_lens(model, residual_stack(model, tokens)[-1])
    torch.testing.assert_close(read, model(tokens), rtol=1e-5, atol=1e-5)


def test_lens_agrees_with_the_librarys_modules_at_every_site(model, tokens, cache):
    theirs = cache.accumulated_resid(layer=-1, incl_mid=False, apply_ln=False)
    expected = torch.stack([model.unembed(model.ln_final(site)) for site in theirs])
    torch.testing.assert_close(logit_lens(model, residual_stack(model, tokens)), expected, rtol=1e-5, atol=1e-5)


def test_lens_is_a_model_whose_later_blocks_write_nothing(model, tokens):
    """Skip a layer and the lens before it is the output: silence everything that layers 1 and 2 write."""

    def silence(value, hook):
        return torch.zeros_like(value)

    names = [f"blocks.{layer}.{part}" for layer in (1, 2) for part in ("hook_attn_out", "hook_mlp_out")]
    skipped = model.run_with_hooks(tokens, fwd_hooks=[(name, silence) for name in names])
    torch.testing.assert_close(logit_lens(model, residual_stack(model, tokens)[1]), skipped, rtol=1e-5, atol=1e-5)


def test_stack_restores_the_model(model, tokens):
    with pytest.raises(ValueError, match="tokens must be"):
        residual_stack(model, tokens[0])
    with pytest.raises(IndexError):
        residual_stack(model, tokens + CFG.d_vocab)
    assert not any(module._forward_hooks for module in model.modules())
