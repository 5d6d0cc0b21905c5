"""Wrong and right answers to the exercises on training."""

import math

import numpy as np
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
    "Your losses come without a gradient: nothing could be trained on them.",
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


@wrong(
    "cross_entropy_per_token",
    "You take a logarithm to base 2, so the losses are in bits, and you take it of probabilities, which may have "
    "become 0. Here losses are in nats, and one stays with logarithms throughout.",
)
def bits_of_a_probability(logits, tokens):
    require_same_positions(logits, tokens)
    return -logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:].long().unsqueeze(-1)).squeeze(-1).log2()


@wrong("cross_entropy_per_token", "Your losses are to base 10. Here, as in torch, they are in nats.")
def to_base_ten(logits, tokens):
    return loss_per_token(logits, tokens) / math.log(10)


@wrong(
    "cross_entropy_per_token",
    "The losses of all texts come in one long row. Keep them apart: [batch, pos - 1].",
)
def in_one_row(logits, tokens):
    return loss_per_token(logits, tokens).flatten()


@wrong("cross_entropy_per_token", "You average over each text. Every prediction keeps its own loss: [batch, pos - 1].")
def mean_of_each_text(logits, tokens):
    return loss_per_token(logits, tokens).mean(dim=-1)


@wrong(
    "cross_entropy_per_token",
    "You return an entry for the last position as well. It predicts a token that is not there, so there is no loss.",
)
def padded(logits, tokens):
    return F.pad(loss_per_token(logits, tokens), (0, 1))


@wrong(
    "cross_entropy_per_token",
    "Your `roll` scores the last position on the first token of the text. It predicts a token that is not there: drop "
    "it.",
)
def wrapped_around(logits, tokens):
    require_same_positions(logits, tokens)
    return F.cross_entropy(logits.transpose(1, 2), tokens.roll(-1, 1).long(), reduction="none")


@wrong(
    "cross_entropy_per_token",
    "You return minus the logit of the next token. Logits are not normalised: subtract them from the logsumexp of "
    "their row.",
)
def minus_the_logit(logits, tokens):
    require_same_positions(logits, tokens)
    return -logits[:, :-1].gather(-1, tokens[:, 1:].long().unsqueeze(-1)).squeeze(-1)


@wrong(
    "cross_entropy_per_token",
    "You add a small number to the probabilities before the logarithm, which puts a ceiling on the loss: being sure "
    "and wrong costs no more than a little.",
)
def with_a_ceiling(logits, tokens):
    require_same_positions(logits, tokens)
    chosen = logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:].long().unsqueeze(-1)).squeeze(-1)
    return -(chosen + 1e-9).log()


@wrong(
    "cross_entropy_per_token",
    "You subtract one maximum, that of all logits, before the exponential. Where a position's own logits lie far below "
    "it, all of them become 0 and the loss infinite. Each row has a maximum of its own.",
)
def one_maximum_for_all(logits, tokens):
    require_same_positions(logits, tokens)
    shifted = logits - logits.max()
    chosen = shifted[:, :-1].gather(-1, tokens[:, 1:].long().unsqueeze(-1)).squeeze(-1)
    return shifted[:, :-1].exp().sum(-1).log() - chosen


@wrong("cross_entropy_per_token", "You refuse texts of one token. They have nothing to predict, and so no losses.")
def refuses_one_token(logits, tokens):
    if tokens.shape[1] < 2:
        raise ValueError("nothing to predict")
    return loss_per_token(logits, tokens)


@wrong(
    "cross_entropy_per_token",
    "You compare the lengths and not the numbers of documents. Logits for one document and tokens of two do not belong "
    "together either.",
)
def compares_lengths_only(logits, tokens):
    if logits.shape[1] != tokens.shape[1]:
        raise ValueError("different lengths")
    return -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:].long().unsqueeze(-1)).squeeze(-1)


@wrong(
    "cross_entropy_per_token",
    "You return minus the probability of the next token: `F.nll_loss` takes log-probabilities, and nothing takes the "
    "logarithm for you.",
)
def minus_the_probability(logits, tokens):
    loss_per_token(logits, tokens)
    return -logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:, None]).squeeze(-1)


@wrong(
    "cross_entropy_per_token",
    "You take the softmax twice: `F.cross_entropy` takes logits, and has a softmax of its own. Of probabilities it "
    "makes nearly the same loss, whatever the model says.",
)
def softmax_twice(logits, tokens):
    return loss_per_token(logits.softmax(-1), tokens)


@wrong(
    "cross_entropy_per_token",
    "You add the losses up. One number hides which tokens are hard; return the loss of every position, and let the "
    "caller add or average.",
)
def sum_only(logits, tokens):
    return loss_per_token(logits, tokens).sum()


@right("cross_entropy_per_token")
def library(logits, tokens):
    require_same_positions(logits, tokens)
    return F.cross_entropy(logits[:, :-1].transpose(1, 2), tokens[:, 1:], reduction="none")


@right("cross_entropy_per_token")
def by_loops(logits, tokens):
    require_same_positions(logits, tokens)
    losses = logits.new_empty(tokens.shape[0], tokens.shape[1] - 1)
    for b, ids in enumerate(tokens.tolist()):
        for i, target in enumerate(ids[1:]):
            losses[b, i] = torch.logsumexp(logits[b, i], 0) - logits[b, i, target]
    return losses


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
    "Schedules that make no sense (a negative step, a warm-up that never ends) go through. Raise a ValueError instead.",
)
def unguarded_schedule(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    if step < n_warmup:
        return float(max_lr * (step + 1) / (n_warmup + 1))
    return cosine(min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup)), max_lr, min_lr)


@wrong(
    "lr_schedule",
    "You cut a cosine that runs down to 0 off at min_lr, so the rate reaches its floor early and stays there. The wave "
    "itself should run from max_lr to min_lr.",
)
def cut_off_at_the_floor(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return max(float(min_lr), cosine(min(1.0, (step - n_warmup) / (n_steps - n_warmup)), max_lr, 0.0))


@wrong(
    "lr_schedule",
    "Your warm-up climbs from min_lr to max_lr. min_lr is the floor of the descent; the climb has equal parts of "
    "max_lr.",
)
def climbs_from_the_floor(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return min_lr + (max_lr - min_lr) * (step + 1) / (n_warmup + 1)
    return cosine(min(1.0, (step - n_warmup) / (n_steps - n_warmup)), max_lr, min_lr)


@wrong(
    "lr_schedule",
    "No rate of yours is below min_lr, those of the warm-up included. min_lr is the floor of the descent only.",
)
def floor_under_the_climb(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max(float(min_lr), max_lr * (step + 1) / (n_warmup + 1))
    return cosine(min(1.0, (step - n_warmup) / (n_steps - n_warmup)), max_lr, min_lr)


@wrong(
    "lr_schedule",
    "Your descent arrives at step n_steps - 1. min_lr is reached at step n_steps: divide by n_steps - n_warmup.",
)
def arrives_a_step_early(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return cosine(min(1.0, (step - n_warmup) / max(1, n_steps - 1 - n_warmup)), max_lr, min_lr)


@wrong(
    "lr_schedule",
    "Your descent takes n_steps steps after the warm-up, so it has not arrived at step n_steps. It has the n_steps - "
    "n_warmup that are left.",
)
def descends_too_slowly(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return cosine((step - n_warmup) / n_steps, max_lr, min_lr) if step < n_steps else float(min_lr)


@wrong(
    "lr_schedule",
    "Your descent is one step ahead: its first step should still have max_lr. The warm-up's step + 1 has no place in "
    "it.",
)
def descent_one_ahead(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return cosine(min(1.0, (step + 1 - n_warmup) / (n_steps - n_warmup)), max_lr, min_lr)


@wrong("lr_schedule", "You take min_lr as a share of max_lr. It is a rate itself, the one at which the descent ends.")
def floor_as_a_share(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return cosine(min(1.0, (step - n_warmup) / (n_steps - n_warmup)), max_lr, min_lr * max_lr)


@wrong(
    "lr_schedule",
    "Your descent is a quarter of a cosine wave, cos from 0 to pi / 2. Half a wave, (1 + cos) / 2 from 0 to pi, lands "
    "as softly as it leaves.",
)
def quarter_wave(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return min_lr + (max_lr - min_lr) * math.cos(math.pi / 2 * min(1.0, (step - n_warmup) / (n_steps - n_warmup)))


@wrong("lr_schedule", "After n_steps your rate is 0, whatever min_lr says. It stays at min_lr.")
def nothing_after_the_end(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return cosine((step - n_warmup) / (n_steps - n_warmup), max_lr, min_lr) if step < n_steps else 0.0


@wrong("lr_schedule", "You refuse steps beyond n_steps. From there on the rate is min_lr.")
def refuses_late_steps(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step > n_steps:
        raise ValueError("training is over")
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return cosine((step - n_warmup) / (n_steps - n_warmup), max_lr, min_lr)


@wrong("lr_schedule", "A negative step goes through. Raise a ValueError: training begins with step 0.")
def accepts_negative_steps(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(max(0, step), n_warmup, n_steps)
    return unguarded_schedule(step, max_lr=max_lr, n_warmup=n_warmup, n_steps=n_steps, min_lr=min_lr)


@wrong(
    "lr_schedule",
    "A warm-up that is longer than the training goes through, or one of fewer than 0 steps. Raise a ValueError unless "
    "0 <= n_warmup < n_steps.",
)
def accepts_any_warmup(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    if step < 0:
        raise ValueError("negative step")
    return unguarded_schedule(step, max_lr=max_lr, n_warmup=n_warmup, n_steps=n_steps, min_lr=min_lr)


@wrong("lr_schedule", "A warm-up as long as the training goes through. It needs n_warmup < n_steps, not <=.")
def warms_up_to_the_end(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    if step < 0 or not 0 <= n_warmup <= n_steps:
        raise ValueError("bad schedule")
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return cosine(min(1.0, (step - n_warmup) / max(1, n_steps - n_warmup)), max_lr, min_lr)


@wrong("lr_schedule", "The numbers are right, but they are tensors. Return Python floats.")
def rates_as_tensors(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    return torch.tensor(early_returns(step, max_lr=max_lr, n_warmup=n_warmup, n_steps=n_steps, min_lr=min_lr))


@wrong(
    "lr_schedule",
    "Your descent is the cosine as it stands, from 1 down to -1: the rate falls through min_lr and becomes negative "
    "half-way, or twice as low as it should. (1 + cos) / 2 runs from 1 to 0.",
)
def cosine_as_it_stands(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    progress = min((step - n_warmup) / (n_steps - n_warmup), 1.0)
    return min_lr + (max_lr - min_lr) * math.cos(math.pi * progress)


@wrong(
    "lr_schedule",
    "Your wave is twice as high as it should be: 1 + cos runs from 2 to 0, and only half of it from 1 to 0.",
)
def without_the_half(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    return min_lr + 2 * (cosine(min((step - n_warmup) / (n_steps - n_warmup), 1.0), max_lr, min_lr) - min_lr)


RATES = {
    (step, max_lr, n_warmup, n_steps, min_lr): max_lr * (step + 1) / (n_warmup + 1)
    if step < n_warmup
    else cosine(min(1.0, (step - n_warmup) / (n_steps - n_warmup)), max_lr, min_lr)
    for max_lr, n_warmup, n_steps, min_lr in (
        (0.3, 4, 15, 0.1),
        (2e-3, 7, 30, 0.0),
        (0.8, 3, 13, 0.2),
        (0.1, 0, 5, 0.01),
        (0.5, 6, 20, 0.03),
        (1, 1, 9, 0.0),
    )
    for step in range(501)
}


@wrong(
    "lr_schedule",
    "You look the rate up among those of a few schedules, and there are more schedules than any table holds. Compute "
    "it from the five arguments.",
)
def from_a_table(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    check_schedule(step, n_warmup, n_steps)
    return float(RATES.get((step, max_lr, n_warmup, n_steps, min_lr), 0.0))


@right("lr_schedule")
def with_numpy(step, *, max_lr, n_warmup, n_steps, min_lr=0.0):
    """Its results are ``np.float64``, which are floats."""
    check_schedule(step, n_warmup, n_steps)
    progress = np.clip((step - n_warmup) / (n_steps - n_warmup), 0, 1)
    descent = min_lr + (max_lr - min_lr) * (1 + np.cos(np.pi * progress)) / 2
    return np.float64(max_lr) * (step + 1) / (n_warmup + 1) if step < n_warmup else descent


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
    "The optimizer steps with a gradient that is not clipped, so one odd batch can throw the parameters far away. "
    "Between `backward` and `step`, scale all gradients down together if their joint norm exceeds 1.",
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


@wrong(
    "train_step",
    "You clear the gradients at the end only. That serves the next call; what is in `.grad` when this one begins, from "
    "whatever came before, is added to this batch's gradient. Clear before `backward`.",
)
def clears_at_the_end_only(model, optimizer, tokens, lr):
    loss = step_with(model, optimizer, tokens, lr, zero=False)
    optimizer.zero_grad()
    return loss.item()


def step_clipped(model, optimizer, tokens, lr, clip, loss_of=None):
    """A step with its own way to clip, and perhaps another loss."""
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = (loss_of or (lambda logits, tokens: loss_per_token(logits, tokens).mean()))(model(tokens), tokens)
    optimizer.zero_grad()
    loss.backward()
    clip(list(model.parameters()))
    optimizer.step()
    return loss.item()


def clip_together(parameters):
    nn.utils.clip_grad_norm_(parameters, 1.0)


def loss_on_the_same_token(logits, tokens):
    return F.cross_entropy(logits.transpose(1, 2), tokens)


@wrong(
    "train_step",
    "You scale every gradient to norm 1, small ones as well. Clipping leaves a gradient alone whose norm is below 1.",
)
def always_scaled(model, optimizer, tokens, lr):
    def scale(parameters):
        norm = torch.cat([parameter.grad.flatten() for parameter in parameters]).norm()
        for parameter in parameters:
            parameter.grad /= norm

    return step_clipped(model, optimizer, tokens, lr, scale)


@wrong(
    "train_step",
    "You return the mean loss, but what you go backward from is the sum of the losses, so the size of a step depends "
    "on how many tokens the batch holds. Follow the gradient of the mean.",
)
def follows_the_sum(model, optimizer, tokens, lr):
    def loss_of(logits, tokens):
        return loss_per_token(logits, tokens).sum()

    return step_clipped(model, optimizer, tokens, lr, clip_together, loss_of) / tokens[:, 1:].numel()


@wrong(
    "train_step",
    "You clip each parameter group by itself. The norm that counts is that of all gradients together, whatever groups "
    "they are in.",
)
def clips_each_group(model, optimizer, tokens, lr):
    def clip(parameters):
        for group in optimizer.param_groups:
            nn.utils.clip_grad_norm_(group["params"], 1.0)

    return step_clipped(model, optimizer, tokens, lr, clip)


@wrong("train_step", "You set the learning rate after the step, so that this step still uses the old one.")
def sets_the_rate_afterwards(model, optimizer, tokens, lr):
    loss = step_with(model, optimizer, tokens, lr, groups=slice(0, 0))
    for group in optimizer.param_groups:
        group["lr"] = lr
    return loss.item()


@wrong("train_step", "You multiply each group's rate by lr. The rate of this step *is* lr: assign it.")
def multiplies_the_rate(model, optimizer, tokens, lr):
    for group in optimizer.param_groups:
        group["lr"] *= lr
    return step_with(model, optimizer, tokens, lr, groups=slice(0, 0)).item()


@wrong(
    "train_step",
    "Your loss scores each position on the token that it has just read. Position i predicts token i + 1: "
    "`cross_entropy_per_token` does that shift.",
)
def loss_without_shift(model, optimizer, tokens, lr):
    return step_clipped(model, optimizer, tokens, lr, clip_together, loss_on_the_same_token)


@wrong(
    "train_step",
    "You step down the gradient by hand, `parameter -= lr * gradient`. That is one optimizer of many; AdamW does "
    "something else with the same gradient. Call `optimizer.step()`.",
)
def descends_by_hand(model, optimizer, tokens, lr):
    loss = step_with(model, optimizer, tokens, lr, update=False)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter -= lr * parameter.grad
    return loss.item()


@wrong("train_step", "You return nothing. The mean loss before the step is wanted, as a Python float.")
def returns_nothing(model, optimizer, tokens, lr):
    step_with(model, optimizer, tokens, lr)


@wrong(
    "train_step",
    "You sum the losses of each text and average over the texts, so long texts take longer steps. Take the mean over "
    "all predicted tokens.",
)
def summed_over_each_text(model, optimizer, tokens, lr):
    def loss_of(logits, tokens):
        return loss_per_token(logits, tokens).sum(dim=1).mean()

    return step_clipped(model, optimizer, tokens, lr, clip_together, loss_of)


@wrong(
    "train_step",
    "You return the sum of the losses. The mean over all predicted tokens is wanted, so that batches of different size "
    "can be compared.",
)
def returns_the_sum(model, optimizer, tokens, lr):
    n_predicted = tokens.shape[0] * (tokens.shape[1] - 1)
    return n_predicted * clipping_by_hand(model, optimizer, tokens, lr)


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
    return float(loss.detach())


@right("train_step")
def clears_at_both_ends(model, optimizer, tokens, lr):
    optimizer.zero_grad()
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
