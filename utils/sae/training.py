"""One training loop for all dictionaries."""

import math
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from tqdm import tqdm

# The batch of a step: what the dictionary reads, and what it has to give back (the same, for an autoencoder).
Batches = Callable[[int], tuple[Float[Tensor, "batch d_in"], Float[Tensor, "batch d_out"]]]
# (dictionary, x, y, which latents are dead) -> the loss, and the latents that it was taken at
Objective = Callable[
    [nn.Module, Float[Tensor, "batch d_in"], Float[Tensor, "batch d_out"], Bool[Tensor, " d_sae"]],
    tuple[Float[Tensor, ""], Float[Tensor, "batch d_sae"]],
]


class Log(NamedTuple):
    """What was recorded every ``every`` steps.

    Attributes:
        steps: Which.
        loss: The objective on that step's batch.
        l0: Latents above 0 for an activation of it, on average.
        dead: Share of latents that have not been on for the last ``dead_after`` activations.
    """

    steps: list[int]
    loss: list[float]
    l0: list[float]
    dead: list[float]


def from_table(
    x: Float[Tensor, "n d_in"], batch_size: int, *, y: Float[Tensor, "n d_out"] | None = None, seed: int = 0
) -> Batches:
    """Batches from a table of activations, shuffled anew in each round; a step's batch depends on the step alone."""
    y = x if y is None else y
    per_round = len(x) // batch_size
    order = {}

    def batch(step: int) -> tuple[Tensor, Tensor]:
        turn, place = divmod(step, per_round)
        if turn not in order:
            order.clear()
            order[turn] = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed * 1_000_003 + turn))
        rows = order[turn][place * batch_size : (place + 1) * batch_size]
        return x[rows], y[rows]

    return batch


def streamed(
    chunk: Callable[[int], tuple[Float[Tensor, "n d_in"], Float[Tensor, "n d_out"]]], batch_size: int, *, seed: int = 0
) -> Batches:
    """Batches from chunks that are made when they are needed, shuffled within a chunk (all chunks of one size).

    Args:
        chunk: Makes the chunk of a number, from 0 on: what the dictionary reads, and what it has to give back.
    """
    held, per_chunk = {}, 0

    def batch(step: int) -> tuple[Tensor, Tensor]:
        nonlocal per_chunk
        if not per_chunk:
            held[0] = chunk(0)
            per_chunk = len(held[0][0]) // batch_size
        number, place = divmod(step, per_chunk)
        if number not in held:
            held.clear()
            held[number] = chunk(number)
        x, y = held[number]
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed * 1_000_003 + number))
        rows = order[place * batch_size : (place + 1) * batch_size]
        return x[rows], y[rows]

    return batch


def train_sae(
    sae: nn.Module,
    batches: Batches,
    objective: Objective,
    *,
    n_steps: int,
    lr: float = 1e-3,
    n_warmup: int = 50,
    decay_from: float = 0.8,
    dead_after: int = 20_000,
    unit_norm: bool = True,
    every: int = 50,
    progress: str | None = None,
    checkpoint: Path | None = None,
) -> Log:
    """Train any dictionary: a module whose call gives (reconstruction, latents) and that has a decoder ``W_dec``.

    Adam; the learning rate rises over ``n_warmup`` steps and falls to 0 in a straight line from the share
    ``decay_from`` of the steps on.

    Args:
        sae: Trained in place.
        batches: The batch of a step.
        objective: The loss.
        n_steps: Number of steps.
        lr: Highest learning rate.
        n_warmup: Steps until it is reached.
        decay_from: Share of the steps after which it falls.
        dead_after: Activations after which a latent that was not on for any of them counts as dead.
        unit_norm: Whether rows of ``W_dec`` are kept at length 1.
        every: Steps between two records.
        progress: Title of a progress bar; None for none.
        checkpoint: A file to save progress to at each record and to go on from; None for neither.

    Returns:
        What was recorded.

    Raises:
        FloatingPointError: If the loss is no longer a number; it names the step.
    """
    optimiser = torch.optim.Adam(sae.parameters(), lr=lr, betas=(0.9, 0.999))
    silent = torch.zeros(sae.W_dec.shape[0])  # activations since a latent was last on
    log, start = Log([], [], [], []), 0
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint)
        sae.load_state_dict(saved["sae"])
        optimiser.load_state_dict(saved["optimiser"])
        silent, log, start = saved["silent"], Log(*saved["log"]), saved["step"]
    for step in tqdm(range(start, n_steps), desc=progress, disable=progress is None):
        rate = min(1.0, (step + 1) / n_warmup, (n_steps - step) / max(1.0, n_steps * (1 - decay_from)))
        for group in optimiser.param_groups:
            group["lr"] = lr * rate
        x, y = batches(step)
        loss, z = objective(sae, x, y, silent >= dead_after)
        if not math.isfinite(loss.item()):
            raise FloatingPointError(f"the loss is {loss.item()} at step {step}: a smaller learning rate may help")
        optimiser.zero_grad()
        loss.backward()
        if unit_norm:
            remove_parallel_gradient(sae.W_dec)
        optimiser.step()
        if unit_norm:
            sae.W_dec.data /= sae.W_dec.data.norm(dim=-1, keepdim=True)
        on = (z > 0).reshape(-1, len(silent)).any(dim=0)
        silent = torch.where(on, 0, silent + len(x))
        if step % every == 0 or step == n_steps - 1:
            log.steps.append(step)
            log.loss.append(loss.item())
            log.l0.append((z > 0).sum(dim=-1).float().mean().item())
            log.dead.append((silent >= dead_after).float().mean().item())
            if checkpoint is not None:
                saved = {"sae": sae.state_dict(), "optimiser": optimiser.state_dict(), "silent": silent}
                torch.save(saved | {"log": tuple(log), "step": step + 1}, checkpoint)
    return log


def remove_parallel_gradient(W_dec: nn.Parameter) -> None:
    """Take out of each row's gradient what would only change the row's length."""
    unit = W_dec.data / W_dec.data.norm(dim=-1, keepdim=True)
    W_dec.grad -= (W_dec.grad * unit).sum(dim=-1, keepdim=True) * unit
