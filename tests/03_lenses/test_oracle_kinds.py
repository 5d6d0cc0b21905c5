"""The references on models of other kinds than the course's: the parts sum to what the model does, or are refused."""

from pathlib import Path

import pytest
import torch

from utils.course.paths import load_file
from utils.lenses.attribution import direct_logit_attribution, head_logit_attribution_by_position
from utils.lenses.measures import lens_entropy, lens_kl, lens_rank
from utils.lenses.stream import logit_lens, residual_components, residual_stack
from utils.models.config import TransformerConfig

hooked = load_file(Path(__file__).with_name("hooked.py"))
CFG = TransformerConfig(d_model=12, n_layers=3, n_heads=4, d_head=4, d_mlp=9, n_ctx=8, d_vocab=11, layer_norm_eps=0.01)
ROTARY = {"positional_embedding_type": "rotary", "rotary_dim": 4}
KINDS = {
    "like GPT-2": {},
    "like Llama": hooked.LLAMA,
    "like Pythia": ROTARY | {"parallel_attn_mlp": True},
    "like Bloom": {"positional_embedding_type": "alibi", "post_embedding_ln": True},
    "shortformer": {"positional_embedding_type": "shortformer"},
    "norms folded": {"normalization_type": "LNPre"},
    "RMS norms folded": {"normalization_type": "RMSPre"} | ROTARY,
    "like SmolLM2, folded": {"normalization_type": "RMSPre", "final_rms": True, "gated_mlp": True} | ROTARY,
    "an RMS norm at the end": {"final_rms": True},
    "shared values": {"n_key_value_heads": 2},
    "shared values, copied": {"n_key_value_heads": 2, "ungroup_grouped_query_attention": True},
    "attention alone": {"attn_only": True},
    "heads' results computed": {"use_attn_result": True},
}
# Rounding in half precision: a thousandth of a float16, a hundredth of a bfloat16, of numbers of size ten.
DTYPES = {torch.float32: 1e-4, torch.float64: 1e-4, torch.float16: 0.05, torch.bfloat16: 0.3}


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def no_biases(model):
    for name, parameter in model.named_parameters():
        if name.split(".")[-1].startswith(("b", "_b")):
            parameter.data.zero_()
    return model


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("kind", KINDS)
def test_everything_sums(kind, dtype, rng):
    model = hooked.random_model(rng, CFG, **KINDS[kind] | {"dtype": dtype})
    if kind == "like Llama":
        no_biases(model)
    tokens, rows, positions = hooked.random_tokens(rng, CFG, 3, 6), torch.arange(3), torch.tensor([5, 2, 4])
    answers, foils = torch.tensor([1, 2, 3]), torch.tensor([4, 5, 0])
    close = {"rtol": 0, "atol": DTYPES[dtype], "check_dtype": False}
    stack, parts = residual_stack(model, tokens), residual_components(model, tokens)
    with torch.no_grad():
        logits = model(tokens)
        torch.testing.assert_close(logit_lens(model, stack[-1]), logits, **close)
    torch.testing.assert_close(sum(value.double() for value in parts.values()), stack[-1], **close)
    assert ("pos_embed" in parts) == (model.cfg.positional_embedding_type == "standard")
    at = {name: value[rows, positions] for name, value in parts.items()}
    shares = direct_logit_attribution(model, at, answers, foils)
    last = logits[rows, positions]
    torch.testing.assert_close(sum(shares.values()), last[rows, answers] - last[rows, foils], **close)
    for layer, head in ((0, 1), (2, 3)):
        found = head_logit_attribution_by_position(model, tokens, layer, head, positions, answers, foils)
        torch.testing.assert_close(found.sum(-1), shares[f"head {layer}.{head}"], **close)
    assert bool((lens_kl(logit_lens(model, stack), logits) > -1e-6).all())
    assert bool(lens_entropy(logits).isfinite().all())
    assert bool((lens_rank(logits, logits.argmax(-1)) == 0).all())


def test_a_norm_behind_the_attention_is_refused(rng):
    options = {"normalization_type": "RMS", "use_normalization_before_and_after": True}
    model, tokens = hooked.random_model(rng, CFG, **options), hooked.random_tokens(rng, CFG, 3, 6)
    with pytest.raises(ValueError, match="do not sum to the stream"):
        residual_components(model, tokens)
    ids = torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match="do not sum to the stream"):
        head_logit_attribution_by_position(model, tokens, 0, 0, ids, ids, ids + 1)


def test_a_stream_too_long_for_the_squares_of_half_precision(rng):
    """300 squared is beyond float16's largest number, 65504."""
    model = hooked.random_model(rng, CFG, dtype=torch.float16)
    parts = {"long": 300.0 * torch.randn(2, 12, generator=rng), "short": torch.randn(2, 12, generator=rng)}
    ids = torch.tensor([0, 1])
    found = direct_logit_attribution(model, {name: value.half() for name, value in parts.items()}, ids, ids + 1)
    expected = direct_logit_attribution(model.float(), parts, ids, ids + 1)
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value, rtol=0.01, atol=0.01)
