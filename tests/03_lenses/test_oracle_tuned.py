"""The tuned lens against its formula, closed forms, and a stream whose translator is known."""

import torch
from torch import nn

from utils.lenses.controls import fit_bias_lens
from utils.lenses.measures import lens_kl
from utils.lenses.stream import logit_lens, residual_stack
from utils.lenses.tuned import TunedLens, train_tuned_lens
from utils.models.config import TransformerConfig
from utils.models.hooked import hooked_transformer
from utils.transformer.model import Transformer

CFG = TransformerConfig(d_model=8, n_layers=3, n_heads=2, d_head=3, d_mlp=6, n_ctx=6, d_vocab=15)


def random_model(seed):
    generator = torch.Generator().manual_seed(seed)
    return hooked_transformer(
        CFG, {name: 0.6 * torch.randn(p.shape, generator=generator) for name, p in Transformer(CFG).named_parameters()}
    )


def test_forward_is_belroses_formula():
    """Column vectors, as in the paper: (A + I) h + b, with one torch Linear for each site."""
    generator = torch.Generator().manual_seed(0)
    lens = TunedLens(3, 8)
    for parameter in lens.parameters():
        nn.init.normal_(parameter, generator=generator)
    stack = torch.randn(3, 4, 5, 8, generator=generator)
    out = lens(stack)
    for site in range(3):
        linear = nn.Linear(8, 8)
        linear.load_state_dict({"weight": lens.A[site].T + torch.eye(8), "bias": lens.b[site]})
        torch.testing.assert_close(out[site], linear(stack[site]))


def test_new_lens_is_the_logit_lens():
    model = random_model(1)
    stack = residual_stack(model, torch.randint(15, (4, 6), generator=torch.Generator().manual_seed(2)))
    torch.testing.assert_close(logit_lens(model, TunedLens(3, 8)(stack[:-1])), logit_lens(model, stack[:-1]))


def test_training_undoes_a_known_map():
    """Sites that hold the final stream, turned and shifted, have a translator with divergence 0."""
    model, generator = random_model(3), torch.Generator().manual_seed(4)
    final = torch.randn(40, 6, 8, generator=generator)
    turns = [torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q for _ in range(2)]
    stack = torch.stack([final @ turn + 1.0 for turn in turns] + [final])
    lens = TunedLens(2, 8)
    losses = train_tuned_lens(lens, model, stack, n_steps=400, n_rows=64, lr=0.03, generator=generator)
    assert losses.shape == (400, 2)
    assert (losses[-1] < 0.02 * losses[0]).all()


def test_the_best_bias_is_in_closed_form_without_a_norm():
    """With A held at 0, a linear reader and one fixed target, the optimum matches the target's distribution."""

    class Linear(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_final, self.unembed = nn.Identity(), nn.Module()
            self.unembed.W_U, self.unembed.b_U = nn.Parameter(torch.eye(4)), nn.Parameter(torch.zeros(4))

    target = torch.tensor([1.0, -1.0, 0.5, 0.0])
    stack = torch.stack([torch.zeros(5, 2, 4), target.expand(5, 2, 4)])
    lens = TunedLens(1, 4)
    train_tuned_lens(lens, Linear(), stack, n_steps=300, n_rows=4, lr=0.05, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(lens.b[0].softmax(-1), target.softmax(-1), rtol=1e-2, atol=1e-3)


def test_training_lowers_every_site_and_leaves_the_model_alone():
    model, generator = random_model(5), torch.Generator().manual_seed(6)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    stack, lens = residual_stack(model, torch.randint(15, (60, 6), generator=generator)), TunedLens(3, 8)
    train_tuned_lens(lens, model, stack, n_steps=150, n_rows=128, lr=0.02, generator=generator)
    with torch.no_grad():
        final = logit_lens(model, stack[-1])
        logit = lens_kl(logit_lens(model, stack[:-1]), final).mean((1, 2))
        tuned = lens_kl(logit_lens(model, lens(stack[:-1])), final).mean((1, 2))
    assert (tuned < logit).all()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())


def test_training_works_where_gradients_are_switched_off():
    model, generator = random_model(7), torch.Generator().manual_seed(8)
    stack = residual_stack(model, torch.randint(15, (9, 6), generator=generator))
    with torch.no_grad():
        losses = train_tuned_lens(TunedLens(3, 8), model, stack, n_steps=20, n_rows=54, lr=0.02, generator=generator)
    assert (losses[-1] < losses[0]).all()


def test_a_bias_only_lens_learns_a_shift_and_no_turn():
    """Sites that hold the final stream plus a vector can be mended by a bias; a turned stream can't."""
    model, generator = random_model(9), torch.Generator().manual_seed(10)
    final = torch.randn(40, 6, 8, generator=generator)
    turn = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    stack = torch.stack([final + torch.randn(8, generator=generator), final @ turn, final])
    lens = fit_bias_lens(model, stack, n_steps=300, n_rows=64, lr=0.03, generator=generator)
    with torch.no_grad():
        before, after = (
            lens_kl(logit_lens(model, guess), logit_lens(model, final)).mean((1, 2))
            for guess in (stack[:-1], lens(stack[:-1]))
        )
    assert after[0] < 0.05 * before[0]
    assert after[1] > 0.3 * before[1]
    assert (lens.A == 0).all()
    assert [name for name, _ in lens.named_parameters()] == ["b"]
