"""The training references against torch's own loss, schedulers and update rules."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from utils.transformer.training import cross_entropy_per_token, lr_schedule, train_step


def test_loss_equals_torch():
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(3, 7, 11, generator=generator, dtype=torch.float64)
    tokens = torch.randint(11, (3, 7), generator=generator)
    expected = F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")
    torch.testing.assert_close(cross_entropy_per_token(logits, tokens), expected)


@pytest.mark.parametrize("n_warmup, n_steps, min_lr", [(5, 20, 0.0), (1, 9, 0.02), (0, 12, 0.1)])
@pytest.mark.filterwarnings("ignore:The epoch parameter in")
def test_schedule_equals_torch_schedulers(n_warmup, n_steps, min_lr):
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps - n_warmup, eta_min=min_lr)
    scheduler = cosine
    if n_warmup:
        optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=0.3)
        climb = torch.optim.lr_scheduler.LinearLR(optimizer, 1 / (n_warmup + 1), total_iters=n_warmup)
        cosine = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, n_steps - n_warmup, eta_min=min_lr)
        scheduler = torch.optim.lr_scheduler.SequentialLR(optimizer, [climb, cosine], [n_warmup])
    for step in range(n_steps):
        assert lr_schedule(step, max_lr=0.3, n_warmup=n_warmup, n_steps=n_steps, min_lr=min_lr) == pytest.approx(
            optimizer.param_groups[0]["lr"], rel=1e-9
        )
        optimizer.step()
        scheduler.step()


def test_first_adamw_step_by_hand():
    """The closed form of AdamW's first step: decay, then lr in the sign of the clipped gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 5), nn.Linear(5, 9)).double()
    tokens = torch.randint(9, (4, 6))
    before = [p.detach().clone() for p in model.parameters()]
    loss = F.cross_entropy(model(tokens)[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    norm = torch.cat([g.flatten() for g in gradients]).norm()
    gradients = [g * min(1.0, 1.0 / norm.item()) for g in gradients]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1.0, weight_decay=0.1, eps=1e-4)
    assert train_step(model, optimizer, tokens, 0.01) == pytest.approx(loss.item())
    for parameter, old, g in zip(model.parameters(), before, gradients, strict=True):
        torch.testing.assert_close(
            parameter.detach(), old * (1 - 0.01 * 0.1) - 0.01 * g / (g.abs() + 1e-4), rtol=1e-5, atol=1e-7
        )


def test_step_length_is_bounded_by_clipping():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Embedding(9, 5), nn.Linear(5, 9))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(20)
    before = copy.deepcopy(model)
    train_step(model, torch.optim.SGD(model.parameters(), lr=9.0), torch.randint(9, (4, 6)), 0.25)
    moved = torch.cat([(a - b).flatten() for a, b in zip(model.parameters(), before.parameters(), strict=True)]).norm()
    assert moved.item() == pytest.approx(0.25, rel=1e-3)
