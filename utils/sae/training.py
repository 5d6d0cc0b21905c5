"""One training loop for all dictionaries, and what it is fed with."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from tqdm import tqdm

from utils.sae.autoencoder import geometric_median

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


def batch_rows(step: int, n_rows: int, batch_size: int, seed: int = 0) -> Int[Tensor, " batch_size"]:
    """Which rows of a table make up a step's batch, where the table is gone through in a new random order each round.

    A round has n_rows // batch_size steps: step 0 is the first of round 0. Within a round no row comes twice; rows that
    are too few for another batch are left out of that round (others in the next). The rows depend on the arguments
    alone, so that a run that was interrupted can go on at any step as if it had not been. torch's global generator is
    neither used nor moved.

    Args:
        step: From 0 on.
        n_rows: Number of rows of the table.
        batch_size: Number of rows of a batch.
        seed: Another one gives other orders, so that no round of one seed has the order of a round of another.

    Returns:
        Row numbers, whole numbers from 0 to n_rows - 1.

    Raises:
        ValueError: If ``batch_size`` is below 1 or above ``n_rows``.
    """
    if not 1 <= batch_size <= n_rows:
        raise ValueError(f"a batch has from 1 to {n_rows} rows, got {batch_size}")
    turn, place = divmod(step, n_rows // batch_size)
    order = torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed * 1_000_003 + turn))
    return order[place * batch_size : (place + 1) * batch_size]


def from_table(
    x: Float[Tensor, "n d_in"], batch_size: int, *, y: Float[Tensor, "n d_out"] | None = None, seed: int = 0
) -> Batches:
    """Batches from a table of activations, shuffled anew in each round; a step's batch depends on the step alone."""
    y = x if y is None else y

    def batch(step: int) -> tuple[Tensor, Tensor]:
        rows = batch_rows(step, len(x), batch_size, seed)
        return x[rows], y[rows]

    return batch


def streamed(
    chunk: Callable[[int], tuple[Float[Tensor, "n d_in"], Float[Tensor, "n d_out"]]], batch_size: int, *, seed: int = 0
) -> Batches:
    """Batches from chunks that are made when they are needed, shuffled within a chunk (all chunks of one size).

    One chunk is held at a time. A chunk should come from many documents: a batch can be no better mixed than its chunk.

    Args:
        chunk: Makes the chunk of a number, from 0 on: what the dictionary reads, and what it has to give back.
    """
    held, per_chunk = {}, 0

    def batch(step: int) -> tuple[Tensor, Tensor]:
        nonlocal per_chunk
        if not per_chunk:
            held[0] = chunk(0)
            per_chunk = len(held[0][0]) // batch_size
        number = step // max(1, per_chunk)
        if number not in held:
            held.clear()
            held[number] = chunk(number)
        x, y = held[number]
        rows = batch_rows(step, len(x), batch_size, seed)
        return x[rows], y[rows]

    return batch


def scale_of(x: Float[Tensor, "n d"]) -> float:
    """What activations are multiplied by so that their mean length is sqrt(d)."""
    return math.sqrt(x.shape[-1]) / x.norm(dim=-1).mean().item()


@torch.no_grad()
def start_at_median(sae: nn.Module, x: Float[Tensor, "n d"]) -> None:
    """Let ``b_dec`` begin at the geometric median, and ``b_enc`` so that the encoder reads x less that median."""
    sae.b_dec.copy_(geometric_median(x))
    sae.b_enc.copy_(-sae.b_dec @ sae.W_enc)


@torch.no_grad()
def fold_scale(sae: nn.Module, scale: float, scale_out: float | None = None) -> None:
    """Make a dictionary that was trained on ``scale * x`` (and ``scale_out * y``) take and give unscaled ones.

    Its latents stay as they are; the rows of ``W_dec`` are no longer of length 1.
    """
    scale_out = scale if scale_out is None else scale_out
    sae.W_enc *= scale
    sae.W_dec /= scale_out
    sae.b_dec /= scale_out


def train_sae(
    sae: nn.Module,
    batches: Batches,
    objective: Objective,
    *,
    n_steps: int,
    lr: float = 1e-3,
    n_warmup: int = 50,
    n_price_warmup: int = 0,
    decay_from: float = 0.8,
    dead_after: int = 20_000,
    resample_at: Sequence[int] = (),
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
        objective: The loss. With ``n_price_warmup`` it takes a fifth argument, the share of its price of sparsity.
        n_steps: Number of steps.
        lr: Highest learning rate.
        n_warmup: Steps until it is reached.
        n_price_warmup: Steps over which the share of the price rises to 1; 0 for no such share.
        decay_from: Share of the steps after which the learning rate falls.
        dead_after: Activations after which a latent that was not on for any of them counts as dead.
        resample_at: Steps before which dead latents start anew (``resample_dead_latents``), Adam's memory of them too.
        unit_norm: Whether rows of ``W_dec`` are kept at length 1.
        every: Steps between two records.
        progress: Title of a progress bar; None for none.
        checkpoint: A file to save progress to at each record and to go on from; None for neither.

    Returns:
        What was recorded.

    Raises:
        ValueError: If a batch is not of the dictionary's width.
        FloatingPointError: If a batch holds numbers that are not finite, or the loss is none; it names the step.
    """
    optimiser = torch.optim.Adam(sae.parameters(), lr=lr, betas=(0.9, 0.999))
    silent = torch.zeros(sae.W_dec.shape[0], device=sae.W_dec.device)  # activations since a latent was last on
    log, start = Log([], [], [], []), 0
    if checkpoint is not None and checkpoint.exists():
        saved = torch.load(checkpoint)
        sae.load_state_dict(saved["sae"])
        optimiser.load_state_dict(saved["optimiser"])
        silent, log, start = saved["silent"], Log(*saved["log"]), saved["step"]
    for step in tqdm(range(start, n_steps), desc=progress, disable=progress is None, initial=start, total=n_steps):
        rate = min(1.0, (step + 1) / n_warmup, (n_steps - step) / max(1.0, n_steps * (1 - decay_from)))
        for group in optimiser.param_groups:
            group["lr"] = lr * rate
        x, y = batches(step)
        if step == start:
            expect_width(sae, x, y)
        if step in resample_at:
            silent = resample(sae, optimiser, x, silent, dead_after, seed=step)
        price = (min(1.0, (step + 1) / n_price_warmup),) if n_price_warmup else ()
        loss, z = objective(sae, x, y, silent >= dead_after, *price)
        if not math.isfinite(loss.item()):
            finite = bool(x.isfinite().all() and y.isfinite().all())
            raise FloatingPointError(
                f"the loss is {loss.item()} at step {step}: a smaller learning rate may help"
                if finite
                else f"the activations of step {step} are not all finite numbers"
            )
        optimiser.zero_grad()
        loss.backward()
        if unit_norm:
            sae.W_dec.grad = remove_parallel_gradient(sae.W_dec.grad, sae.W_dec.data)
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
                unfinished = checkpoint.with_name(checkpoint.name + ".part")  # so that no half-written file is read
                torch.save(saved | {"log": tuple(log), "step": step + 1}, unfinished)
                unfinished.replace(checkpoint)
    return log


def expect_width(sae: nn.Module, x: Tensor, y: Tensor) -> None:
    for name, value, width in (("reads", x, sae.W_enc.shape[-2]), ("gives back", y, sae.W_dec.shape[-1])):
        if width not in (value.shape[-1], value[0].numel()):  # the heads of a layer are read side by side
            raise ValueError(f"the dictionary {name} {width} dimensions, and the batch has {value.shape[-1]}")


def remove_parallel_gradient(
    gradient: Float[Tensor, "d_sae d_in"], W_dec: Float[Tensor, "d_sae d_in"]
) -> Float[Tensor, "d_sae d_in"]:
    """Take out of each row's gradient what would only change the row's length.

    Args:
        gradient: Of the loss by ``W_dec``.
        W_dec: The decoder; its rows may have any length but 0.

    Returns:
        The gradient less its share along the row itself, for each row, so that it is at right angles to the row.

    Source: Bricken et al. (2023), appendix "Advice for training sparse autoencoders".
    """
    unit = W_dec / W_dec.norm(dim=-1, keepdim=True)
    return gradient - (gradient * unit).sum(dim=-1, keepdim=True) * unit


def resample_dead_latents(
    W_enc: Float[Tensor, "d_in d_sae"],
    b_enc: Float[Tensor, " d_sae"],
    W_dec: Float[Tensor, "d_sae d_in"],
    b_dec: Float[Tensor, " d_in"],
    x: Float[Tensor, "batch d_in"],
    error: Float[Tensor, " batch"],
    dead: Bool[Tensor, " d_sae"],
    generator: torch.Generator,
) -> tuple[Float[Tensor, "d_in d_sae"], Float[Tensor, " d_sae"], Float[Tensor, "d_sae d_in"]]:
    """Let dead latents start anew, each at an activation that the dictionary explains badly.

    For each dead latent an activation is drawn, no activation twice, with probability in proportion to its squared
    ``error``. With u, of length 1, the direction of x - b_dec, the latent's row of W_dec becomes u, and its column of
    W_enc becomes u times a fifth of the mean length of the living latents' columns. Its bias becomes what lets it read
    x - b_dec and no constant: minus the product of b_dec and its new column. Living latents stay as they are.

    Args:
        W_enc, b_enc, W_dec, b_dec: The dictionary; at least one latent is alive.
        x: Activations, at least as many as dead latents, none of them at b_dec.
        error: How badly each is explained, not negative: the squared length of what is left over; above 0 for at least
            as many activations as there are dead latents.
        dead: Which latents are dead; maybe none.
        generator: Source of the draws.

    Returns:
        New (W_enc, b_enc, W_dec); the arguments are not changed.

    Source: Bricken et al. (2023), appendix "Neuron resampling". They subtract b_dec before the encoder, so that their
    new bias is 0.
    """
    W_enc, b_enc, W_dec = W_enc.clone(), b_enc.clone(), W_dec.clone()
    n_dead = int(dead.sum())
    if n_dead:
        drawn = torch.multinomial(error.square(), n_dead, replacement=False, generator=generator)
        unit = torch.nn.functional.normalize(x[drawn] - b_dec, dim=1)
        W_dec[dead] = unit
        W_enc[:, dead] = 0.2 * W_enc[:, ~dead].norm(dim=0).mean() * unit.T
        b_enc[dead] = -b_dec @ W_enc[:, dead]
    return W_enc, b_enc, W_dec


@torch.no_grad()
def resample(
    sae: nn.Module, optimiser: torch.optim.Adam, x: Tensor, silent: Tensor, dead_after: int, seed: int
) -> Tensor:
    """Dead latents of an autoencoder, and Adam's memory of them, start anew; returns their silence, cut short."""
    dead = silent >= dead_after
    if not dead.any() or dead.all():
        return silent
    n_most = min(int(dead.sum()), len(x) // 2)
    dead[dead.nonzero().flatten()[n_most:]] = False  # no more than there are activations to draw
    generator = torch.Generator().manual_seed(seed)
    error = (x - sae(x)[0]).square().sum(dim=-1)
    new = resample_dead_latents(sae.W_enc, sae.b_enc, sae.W_dec, sae.b_dec, x, error, dead, generator)
    for parameter, value in zip((sae.W_enc, sae.b_enc, sae.W_dec), new, strict=True):
        parameter.copy_(value)
    for parameter, rows in ((sae.W_enc, (slice(None), dead)), (sae.b_enc, dead), (sae.W_dec, dead)):
        for name in ("exp_avg", "exp_avg_sq"):
            if parameter in optimiser.state:
                optimiser.state[parameter][name][rows] = 0
    return silent.masked_fill(dead, 0)
