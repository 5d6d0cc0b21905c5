"""The loss of a language model, a learning-rate schedule, and one step of training."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def cross_entropy_per_token(
    logits: Float[Tensor, "batch pos d_vocab"], tokens: Int[Tensor, "batch pos"]
) -> Float[Tensor, "batch pos-1"]:
    """Loss of every next-token prediction: entry (b, i) is -log p(tokens[b, i + 1] | tokens[b, :i + 1]).

    Args:
        logits: The model's output for ``tokens``; row i of a document is the prediction made at position i.
        tokens: The tokens that the model read.

    Returns:
        Losses in nats, at least 0, in the dtype of the logits, with gradients to them. The last position predicts a
        token that is not there, so it has no entry; texts of one token give a tensor [batch, 0].

    Raises:
        ValueError: If ``logits`` and ``tokens`` do not agree in batch and pos.

    Source: Radford et al. (2018), "Improving Language Understanding by Generative Pre-Training", equation 1.
    """
    if logits.shape[:-1] != tokens.shape:
        raise ValueError(f"logits for {tuple(logits.shape[:-1])} positions, but tokens {tuple(tokens.shape)}")
    predictions, targets = logits[:, :-1], tokens[:, 1:].long()
    chosen = predictions.gather(-1, targets.unsqueeze(-1)).squeeze(-1)
    return predictions.logsumexp(dim=-1) - chosen


def lr_schedule(step: int, *, max_lr: float, n_warmup: int, n_steps: int, min_lr: float = 0.0) -> float:
    """Learning rate of one training step: a linear warm-up, then half a cosine wave down.

    Args:
        step: Which step, counted from 0.
        max_lr: The highest rate, reached at step ``n_warmup``.
        n_warmup: Steps before that one. They climb in equal parts: step s < n_warmup has
            ``max_lr * (s + 1) / (n_warmup + 1)``, so that not even step 0 is wasted on a rate of zero.
        n_steps: Where the cosine ends. From this step on the rate is ``min_lr``.
        min_lr: The lowest rate of the descent.

    Returns:
        The learning rate as a Python float.

    Raises:
        ValueError: If ``step`` is negative, or not 0 <= n_warmup < n_steps.

    Source: Loshchilov and Hutter (2017), "SGDR", equation 5, for one descent; for a warm-up, Vaswani et al.
    (2017), section 5.3.
    """
    if step < 0 or not 0 <= n_warmup < n_steps:
        raise ValueError(f"need step >= 0 and 0 <= n_warmup < n_steps, got {step=}, {n_warmup=}, {n_steps=}")
    if step < n_warmup:
        return max_lr * (step + 1) / (n_warmup + 1)
    progress = min((step - n_warmup) / (n_steps - n_warmup), 1.0)
    return min_lr + (max_lr - min_lr) * (1 + math.cos(math.pi * progress)) / 2


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, tokens: Int[Tensor, "batch pos"], lr: float
) -> float:
    """Take one optimisation step on one batch: the model's parameters change.

    The step follows the gradient of this batch alone, whatever is left in ``.grad`` when it begins. The gradient is
    clipped: if the norm of all gradients together exceeds 1, all of them are scaled down so that it is 1
    (``torch.nn.utils.clip_grad_norm_``).

    Args:
        model: Maps tokens [batch, pos] to logits [batch, pos, d_vocab].
        optimizer: Holds the model's parameters; each of its parameter groups gets the rate ``lr``.
        tokens: The batch.
        lr: Learning rate of this step.

    Returns:
        Mean loss per predicted token, in nats, before the step, as a Python float.

    Source: Pascanu et al. (2013), "On the difficulty of training recurrent neural networks", algorithm 1, for
    clipping.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr
    loss = cross_entropy_per_token(model(tokens), tokens).mean()
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return loss.item()
