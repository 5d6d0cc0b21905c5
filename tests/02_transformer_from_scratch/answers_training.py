"""Wrong and right answers to the exercises on training."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from utils.course.catalogue import right, wrong
from utils.transformer.training import cross_entropy_per_token as loss_per_token


def require_same_positions(logits, tokens):
    if logits.shape[:-1] != tokens.shape:
        raise ValueError("logits and tokens differ in batch or pos")


# cross_entropy_per_token


@wrong(
    "cross_entropy_per_token",
    "You score position i on token i, the one that it has just read. A model that copies its "
    "input would be perfect by this measure. Position i predicts token i + 1.",
)
def no_shift(logits, tokens):
    require_same_positions(logits, tokens)
    return -logits.log_softmax(-1).gather(-1, tokens.long().unsqueeze(-1)).squeeze(-1)[:, :-1]


@wrong(
    "cross_entropy_per_token",
    "Your shift goes the other way: you score the prediction made at position i + 1 on token i, "
    "its own past. Drop the last row of logits and the first token.",
)
def shifted_back(logits, tokens):
    require_same_positions(logits, tokens)
    return -logits[:, 1:].log_softmax(-1).gather(-1, tokens[:, :-1].long().unsqueeze(-1)).squeeze(-1)


@wrong("cross_entropy_per_token", "This is the log probability, which is negative; the loss is minus that.")
def sign(logits, tokens):
    return -loss_per_token(logits, tokens)


@wrong(
    "cross_entropy_per_token",
    "You average. One number hides which tokens are hard; return the loss of every position, "
    "and let the caller average.",
)
def mean_only(logits, tokens):
    return loss_per_token(logits, tokens).mean()


@wrong(
    "cross_entropy_per_token",
    "Your softmax runs over the positions, not over the vocabulary. In [batch, pos, d_vocab] the "
    "candidates for one prediction lie along the last dimension.",
)
def over_positions(logits, tokens):
    require_same_positions(logits, tokens)
    return -logits.log_softmax(1)[:, :-1].gather(-1, tokens[:, 1:].long().unsqueeze(-1)).squeeze(-1)


@wrong(
    "cross_entropy_per_token",
    "Right for small logits, but the exp of a logit of 300 is infinite in float32. Subtract the "
    "row's maximum first, or use a function that does.",
)
def overflowing(logits, tokens):
    require_same_positions(logits, tokens)
    predictions, targets = logits[:, :-1], tokens[:, 1:].long()
    return predictions.exp().sum(-1).log() - predictions.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


@wrong(
    "cross_entropy_per_token",
    "You take the softmax first and its logarithm later. A probability below 1e-45 has become 0 by "
    "then, and its loss infinite. Stay with logarithms throughout.",
)
def log_of_softmax(logits, tokens):
    require_same_positions(logits, tokens)
    return -logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:].long().unsqueeze(-1)).squeeze(-1).log()


@wrong(
    "cross_entropy_per_token",
    "Your losses are in bits: base-2 logarithms. Here, as in torch, they are in nats.",
)
def in_bits(logits, tokens):
    return loss_per_token(logits, tokens) / math.log(2)


@wrong(
    "cross_entropy_per_token",
    "The values are right, but they come without a gradient: nothing could be trained on them.",
)
def no_gradient(logits, tokens):
    return loss_per_token(logits.detach(), tokens)


@wrong(
    "cross_entropy_per_token",
    "Logits for fewer positions or documents than there are tokens go through unnoticed, and the "
    "pairs that are then compared do not belong together. Refuse them.",
)
def unguarded(logits, tokens):
    losses = -logits.log_softmax(-1)
    pos = min(logits.shape[1], tokens.shape[1])
    return torch.stack(
        [losses[row % len(logits), torch.arange(pos - 1), tokens[row, 1:pos].long()] for row in range(len(tokens))]
    )


@right("cross_entropy_per_token")
def library(logits, tokens):
    require_same_positions(logits, tokens)
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")


@right("cross_entropy_per_token")
def by_loops(logits, tokens):
    require_same_positions(logits, tokens)
    rows = [
        [torch.logsumexp(row[i], 0) - row[i, int(ids[i + 1])] for i in range(len(ids) - 1)]
        for row, ids in zip(logits, tokens, strict=True)
    ]
    return torch.stack([torch.stack(row) for row in rows])


@right("cross_entropy_per_token")
def log_softmax_and_index(logits, tokens):
    require_same_positions(logits, tokens)
    batch, pos = torch.arange(tokens.shape[0])[:, None], torch.arange(tokens.shape[1] - 1)
    return -F.log_softmax(logits, dim=-1)[batch, pos, tokens[:, 1:].long()]


# lr_schedule


def check_schedule(step, n_warmup, n_steps):
    if step < 0 or n_warmup < 0 or n_warmup >= n_steps:
        raise ValueError("bad schedule")


def cosine(progress, max_lr, min_lr):
    return min_lr + (max_lr - min_lr) * 0.5 * (1 + math.cos(math.pi * progress))


@wrong(
    "lr_schedule",
    "Your warm-up starts at a rate of 0: the first batch is read, and its gradient computed, for nothing. "
    "Count the parts of the climb so that step 0 already has one.",
)
def starts_at_zero(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return float(max_lr * step / n_warmup)
    return cosine(min(1.0, (step - n_warmup) / (n_steps - n_warmup)), max_lr, min_lr)


@wrong(
    "lr_schedule",
    "Your climb has n_warmup parts, so it reaches max_lr one step early and stays for two steps. With "
    "n_warmup + 1 parts, step n_warmup is the one that reaches it.",
)
def arrives_early(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return float(max_lr * (step + 1) / n_warmup)
    return cosine(min(1.0, (step - n_warmup) / (n_steps - n_warmup)), max_lr, min_lr)


@wrong(
    "lr_schedule",
    "Your cosine runs from step 0, not from the end of the warm-up, so the rate jumps where the two meet.",
)
def cosine_from_zero(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return cosine(min(1.0, step / n_steps), max_lr, min_lr)


@wrong("lr_schedule", "Your descent ends at 0 whatever min_lr says. The cosine swings between min_lr and max_lr.")
def ignores_floor(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return cosine(min(1.0, (step - n_warmup) / (n_steps - n_warmup)), max_lr, 0.0)


@wrong(
    "lr_schedule",
    "You add min_lr to a cosine that already starts at max_lr, so the rate exceeds max_lr. The wave has "
    "height "
    "max_lr - min_lr.",
)
def floor_added(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return min_lr + cosine(min(1.0, (step - n_warmup) / (n_steps - n_warmup)), max_lr, 0.0)


@wrong(
    "lr_schedule",
    "After n_steps your cosine comes up again: a training that runs on a little longer would be shaken by a "
    "rising rate. Hold the progress at 1.",
)
def periodic(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return cosine((step - n_warmup) / (n_steps - n_warmup), max_lr, min_lr)


@wrong(
    "lr_schedule",
    "Your descent is a straight line. The cosine stays near max_lr at first, is steepest in the middle, and "
    "lands softly.",
)
def linear_decay(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return max_lr - (max_lr - min_lr) * min(1.0, (step - n_warmup) / (n_steps - n_warmup))


@wrong(
    "lr_schedule",
    "Your cosine goes through a whole period: down to min_lr by the middle, and up to max_lr at the end. "
    "Half a "
    "period is an angle of pi.",
)
def whole_period(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return min_lr if step >= n_steps else cosine(2 * (step - n_warmup) / (n_steps - n_warmup), max_lr, min_lr)


@wrong(
    "lr_schedule",
    "A schedule that makes no sense (a negative step, a warm-up as long as the training) goes through. "
    "Raise a "
    "ValueError instead.",
)
def unguarded_schedule(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    if step < n_warmup:
        return float(max_lr * (step + 1) / (n_warmup + 1))
    return cosine(min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup)), max_lr, min_lr)


@right("lr_schedule")
def with_torch(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    climb = torch.tensor((step + 1) / (n_warmup + 1), dtype=torch.float64)
    progress = torch.tensor((step - n_warmup) / (n_steps - n_warmup), dtype=torch.float64).clamp(0, 1)
    return (
        max_lr * climb
        if step < n_warmup
        else torch.lerp(
            torch.tensor(max_lr, dtype=torch.float64),
            torch.tensor(min_lr, dtype=torch.float64),
            (torch.pi * progress / 2).sin() ** 2,
        )
    ).item()


@right("lr_schedule")
def early_returns(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    if step < 0:
        raise ValueError("negative step")
    if n_warmup < 0 or n_steps <= n_warmup:
        raise ValueError("no room for the descent")
    if step >= n_steps:
        return float(min_lr)
    if step <= n_warmup:
        return (step + 1) * (max_lr / (n_warmup + 1))
    weight = math.cos(math.pi / 2 * (step - n_warmup) / (n_steps - n_warmup)) ** 2
    return weight * max_lr + (1 - weight) * min_lr


# train_step


def step_with(model, optimizer, tokens, lr, *, zero=True, clip=True, groups=slice(None), update=True):
    for group in optimizer.param_groups[groups]:
        group["lr"] = lr
    loss = loss_per_token(model(tokens), tokens).mean()
    if zero:
        optimizer.zero_grad()
    loss.backward()
    if clip:
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if update:
        optimizer.step()
    return loss


@wrong(
    "train_step",
    "Your gradients pile up: `backward` adds to what is in `.grad`, so from the second step on you also "
    "follow "
    "the gradients of earlier batches. Clear them before each backward pass.",
)
def accumulates(model, optimizer, tokens, lr):
    return step_with(model, optimizer, tokens, lr, zero=False).item()


@wrong(
    "train_step",
    "Your gradient is not clipped: one odd batch can throw the parameters far away. Scale all gradients down "
    "together when their joint norm exceeds 1.",
)
def unclipped(model, optimizer, tokens, lr):
    return step_with(model, optimizer, tokens, lr, clip=False).item()


@wrong(
    "train_step",
    "Your argument lr has no effect: the optimizer steps with the rate it was built with. Its rates live in "
    "`optimizer.param_groups`.",
)
def ignores_lr(model, optimizer, tokens, lr):
    return step_with(model, optimizer, tokens, lr, groups=slice(0, 0)).item()


@wrong(
    "train_step",
    "You set the rate of the first parameter group only. An optimizer may have several, each with its own.",
)
def first_group(model, optimizer, tokens, lr):
    return step_with(model, optimizer, tokens, lr, groups=slice(0, 1)).item()


@wrong(
    "train_step",
    "You clear the gradients between the backward pass and the step, so the optimizer finds none and the "
    "parameters stay where they are.",
)
def clears_too_late(model, optimizer, tokens, lr):
    loss = step_with(model, optimizer, tokens, lr, update=False)
    optimizer.zero_grad()
    optimizer.step()
    return loss.item()


@wrong(
    "train_step",
    "You sum the losses, so the size of a step depends on how many tokens the batch holds. Take their mean.",
)
def summed_loss(model, optimizer, tokens, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = loss_per_token(model(tokens), tokens).sum()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@wrong(
    "train_step",
    "You return the loss as a tensor. It keeps the graph of the whole forward pass alive for as long as it "
    "is "
    "kept, and a list of losses then fills the memory.",
)
def returns_tensor(model, optimizer, tokens, lr):
    return step_with(model, optimizer, tokens, lr)


@wrong(
    "train_step",
    "You return the loss after the step, at the price of a second forward pass, and on a batch that the "
    "model "
    "has just been fitted to.",
)
def loss_after(model, optimizer, tokens, lr):
    step_with(model, optimizer, tokens, lr)
    return loss_per_token(model(tokens), tokens).mean().item()


@wrong(
    "train_step",
    "You clip each entry of the gradient by itself, which bends its direction. Scale all of them by one factor.",
)
def clips_values(model, optimizer, tokens, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = loss_per_token(model(tokens), tokens).mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_value_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()


@wrong(
    "train_step",
    "You clip each parameter's gradient to norm 1 by itself. The norm that counts is that of all gradients "
    "together; otherwise the step leans towards the parameters with small gradients.",
)
def clips_each_parameter(model, optimizer, tokens, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = loss_per_token(model(tokens), tokens).mean()
    optimizer.zero_grad()
    loss.backward()
    for parameter in model.parameters():
        nn.utils.clip_grad_norm_(parameter, 1.0)
    optimizer.step()
    return loss.item()


@wrong(
    "train_step",
    "You clip the gradients of the optimizer's first parameter group and leave those of the others alone. The norm "
    "is that of all the model's gradients.",
)
def clips_the_first_group(model, optimizer, tokens, lr):
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = loss_per_token(model(tokens), tokens).mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], 1.0)
    optimizer.step()
    return loss.item()


@right("train_step")
def clipping_by_hand(model, optimizer, tokens, lr):
    model.zero_grad(set_to_none=True)
    logits = model(tokens)
    loss = F.cross_entropy(logits[:, :-1].flatten(0, 1), tokens[:, 1:].flatten())
    loss.backward()
    norm = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm()
    if norm > 1:
        for parameter in model.parameters():
            parameter.grad /= norm
    for group in optimizer.param_groups:
        group["lr"] = lr
    optimizer.step()
    return float(loss)


@right("train_step")
def clears_at_the_end_only(model, optimizer, tokens, lr):
    loss = step_with(model, optimizer, tokens, lr, zero=False)
    optimizer.zero_grad()
    return loss.item()


@right("train_step")
def clears_afterwards(model, optimizer, tokens, lr):
    optimizer.param_groups[:] = [{**group, "lr": lr} for group in optimizer.param_groups]
    optimizer.zero_grad()
    loss = loss_per_token(model(tokens), tokens).mean()
    loss.backward()
    nn.utils.clip_grad_norm_((p for group in optimizer.param_groups for p in group["params"]), max_norm=1.0)
    optimizer.step()
    optimizer.zero_grad()
    return loss.detach().item()
