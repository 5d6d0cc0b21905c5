"""Direct logit attribution against transformer_lens, the whole logit difference, and a derivative."""

import pytest
import torch

from utils.lenses.attribution import direct_logit_attribution, head_logit_attribution_by_position
from utils.lenses.stream import residual_components
from utils.models.config import TransformerConfig
from utils.models.hooked import hooked_transformer
from utils.transformer.model import Transformer

CFG = TransformerConfig(d_model=12, n_layers=3, n_heads=2, d_head=5, d_mlp=9, n_ctx=7, d_vocab=11)
ANSWERS, FOILS = torch.tensor([1, 5, 7, 2]), torch.tensor([3, 0, 10, 9])
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


@pytest.fixture(scope="module")
def model():
    generator = torch.Generator().manual_seed(0)
    state = {name: 0.6 * torch.randn(p.shape, generator=generator) for name, p in Transformer(CFG).named_parameters()}
    return hooked_transformer(CFG, state)


@pytest.fixture(scope="module")
def tokens():
    return torch.randint(CFG.d_vocab, (4, 6), generator=torch.Generator().manual_seed(1))


def at_end(parts):
    return {name: value[:, -1] for name, value in parts.items()}


def test_shares_sum_to_the_logit_difference(model, tokens):
    shares = direct_logit_attribution(model, at_end(residual_components(model, tokens)), ANSWERS, FOILS)
    logits, rows = model(tokens)[:, -1].detach(), torch.arange(4)
    torch.testing.assert_close(sum(shares.values()), logits[rows, ANSWERS] - logits[rows, FOILS], **CLOSE)


def test_heads_agree_with_logit_attrs(model, tokens):
    """The library's attribution leaves the norm's gain and bias out: it expects them to be folded."""
    shares = direct_logit_attribution(model, at_end(residual_components(model, tokens)), ANSWERS, FOILS)
    with torch.no_grad():
        folded = hooked_transformer(
            CFG, {k: v for k, v in model.state_dict().items() if "mask" not in k and "IGNORE" not in k}
        )
        folded.unembed.W_U.mul_(folded.ln_final.w[:, None])
        _, cache = folded.run_with_cache(tokens)
        stacked, labels = cache.stack_head_results(layer=-1, pos_slice=-1, return_labels=True, incl_remainder=False)
        found = cache.logit_attrs(
            stacked - stacked.mean(-1, keepdim=True), ANSWERS, FOILS, pos_slice=-1, has_batch_dim=True
        )
    for label, value in zip(labels, found, strict=True):
        layer, head = label.removeprefix("L").split("H")
        torch.testing.assert_close(shares[f"head {layer}.{head}"], value, **CLOSE)


def test_share_is_the_derivative_with_a_frozen_norm(model, tokens):
    """Scale one component by 1 + t under a frozen divisor: the logit difference is linear in t with slope its share."""
    parts = at_end(residual_components(model, tokens))
    total = sum(parts.values())
    divisor = (total.var(-1, unbiased=False, keepdim=True) + model.ln_final.eps).sqrt()
    shares = direct_logit_attribution(model, parts, ANSWERS, FOILS)
    t = torch.zeros((), requires_grad=True)
    x = total + t * parts["mlp 1"]
    normed = (x - x.mean(-1, keepdim=True)) / divisor * model.ln_final.w + model.ln_final.b
    logits, rows = normed @ model.W_U + model.b_U, torch.arange(4)
    difference = logits[rows, ANSWERS] - logits[rows, FOILS]
    slopes = torch.stack([torch.autograd.grad(d, t, retain_graph=True)[0] for d in difference])
    torch.testing.assert_close(slopes, shares["mlp 1"], **CLOSE)


def test_sources_sum_to_the_heads_share(model, tokens):
    positions, rows = torch.tensor([5, 2, 4, 0]), torch.arange(4)
    parts = {name: value[rows, positions] for name, value in residual_components(model, tokens).items()}
    shares = direct_logit_attribution(model, parts, ANSWERS, FOILS)
    for layer, head in ((0, 1), (2, 0)):
        found = head_logit_attribution_by_position(model, tokens, layer, head, positions, ANSWERS, FOILS)
        torch.testing.assert_close(found.sum(-1), shares[f"head {layer}.{head}"], **CLOSE)
        assert (found[torch.arange(6) > positions[:, None]] == 0).all()


def test_a_source_that_hands_over_nothing_has_no_share(model, tokens):
    """Silence the value at one position: with the final norm's divisor frozen, the head loses that position's share."""
    positions = torch.full((4,), 5)
    before = head_logit_attribution_by_position(model, tokens, 2, 1, positions, ANSWERS, FOILS)
    _, cache = model.run_with_cache(tokens)

    def silence(value, hook):
        value[:, 3, 1] = 0.0
        return value

    with model.hooks(fwd_hooks=[("blocks.2.attn.hook_v", silence)]), torch.no_grad():
        _, after = model.run_with_cache(tokens)
    lost = (cache["z", 2][:, 5, 1] - after["z", 2][:, 5, 1]) @ model.W_O[2, 1]
    read = (lost - lost.mean(-1, keepdim=True)) / cache["ln_final.hook_scale"][:, 5] * model.ln_final.w
    share = (read * (model.W_U[:, ANSWERS] - model.W_U[:, FOILS]).T).sum(-1)
    torch.testing.assert_close(share.detach(), before[:, 3], **CLOSE)
