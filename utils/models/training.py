"""Training a small transformer on a few processor cores: one process a core, seeded, resumable.

Two processes with one thread each do about a third more than one process with two threads, because the small matrices
of such a model leave the second thread waiting most of the time. Each process works on its own documents, and PyTorch's
``DistributedDataParallel`` averages the gradients, so that all hold the same weights after every step.
"""

import json
import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from tqdm import tqdm

from utils.models.config import TransformerConfig
from utils.models.network import MLP_PARAMETERS, HeadDropout, Network

CHUNK = 100  # steps between two visits to the disk: documents are generated, and progress is saved, by the chunk


@dataclass(frozen=True)
class Stage:
    """Some steps along a cosine from ``max_lr`` down to 5 % of it.

    Attributes:
        n_steps: Optimiser steps.
        max_lr: Learning rate at the beginning.
        cosine_steps: Length of the whole cosine; a stage that is shorter ends before its learning rate is low.
        cosine_from: Where on the cosine it begins, in steps.
        goes_on: Whether the optimiser keeps its averages from the stage before. Otherwise it forgets them, and the
            learning rate warms up.
        mlps_rest: Whether the MLPs keep the weights that they have. Heads that work together form sooner so; MLPs would
            drown their weak signal with what they learn by heart.
        head_dropout: How often a head of the upper half of the layers is silent, drawn for each document. What would
            hang on one of them is then done by several.
    """

    n_steps: int
    max_lr: float
    cosine_steps: int
    cosine_from: int = 0
    goes_on: bool = False
    mlps_rest: bool = False
    head_dropout: float = 0.0


@dataclass(frozen=True)
class Recipe:
    """How to train; with a seed it fixes the run.

    Attributes:
        cfg: The model's sizes.
        stages: One after the other, each some multiple of `CHUNK` steps if another follows.
        batch: Documents a step, over all processes together.
        n_warmup: Steps of linear warm-up, where a stage has any.
        weight_decay: AdamW's, on matrices only.
        checkpoints: Steps after which the weights are kept.
    """

    cfg: TransformerConfig
    stages: tuple[Stage, ...]
    batch: int
    n_warmup: int = 20
    weight_decay: float = 0.05
    checkpoints: tuple[int, ...] = ()

    @property
    def n_steps(self) -> int:
        """Optimiser steps of all stages."""
        return sum(stage.n_steps for stage in self.stages)

    def position(self, step: int) -> tuple[int, int]:
        """Where the step that follows ``step`` finished ones belongs: the stage's index, and how many came before."""
        before = 0
        for i, stage in enumerate(self.stages):
            if step < before + stage.n_steps:
                return i, step - before
            before += stage.n_steps
        raise ValueError(f"The recipe has {self.n_steps} steps, there is none after {step}.")

    def lr(self, step: int) -> float:
        """Learning rate of the step that follows ``step`` finished ones."""
        index, done = self.position(step)
        stage = self.stages[index]
        cosine = 0.5 * (1 + math.cos(math.pi * (done + stage.cosine_from) / stage.cosine_steps))
        warmup = 1.0 if stage.goes_on else (done + 1) / self.n_warmup
        return stage.max_lr * min(1.0, warmup, 0.05 + 0.95 * cosine)


# (how many rows of n_ctx, seed, steps done) -> token ids, in that many rows, or in more and shorter ones. A function of
# a module: it is sent to the processes by its name.
Documents = Callable[[int, int, int], Int[np.ndarray, "rows pos"]]


def train(recipe: Recipe, documents: Documents, folder: Path, *, seed: int, n_workers: int) -> dict[str, Tensor]:
    """Train from scratch, or go on where an interrupted run in the same folder stopped.

    Args:
        recipe: Sizes and settings.
        documents: What to train on.
        folder: Where progress, the loss of every step and checkpoints go: ``progress.pt``, ``losses.json`` and
            ``step-N.pt`` for each of ``recipe.checkpoints``.
        seed: Draws weights and documents.
        n_workers: Processes, one thread each; ``recipe.batch`` must be a multiple of it. The result depends on it in
            its last bits, as sums are taken in another order and each process reads other documents.

    Returns:
        The trained weights under their standard names.

    Raises:
        ValueError: If the batch can't be shared out, or the folder holds progress of another run.
    """
    if n_workers < 1 or recipe.batch % n_workers:
        raise ValueError(f"A batch of {recipe.batch} documents can't be shared out to {n_workers} processes.")
    folder.mkdir(parents=True, exist_ok=True)
    run = json.dumps(asdict(recipe) | {"seed": seed, "n_workers": n_workers})
    progress = _load_progress(folder / "progress.pt")
    if progress is not None and progress["run"] != run:
        raise ValueError(f"{folder} holds the progress of another recipe or seed: delete it, or choose another folder.")
    with tempfile.TemporaryDirectory() as meeting:
        context = torch.multiprocessing.spawn(
            _worker, (n_workers, recipe, documents, folder, seed, run, f"{meeting}/store"), n_workers, join=False
        )
        while not context.join():
            pass
    return torch.load(folder / "progress.pt")["standard"]


def _worker(
    rank: int, n_workers: int, recipe: Recipe, documents: Documents, folder: Path, seed: int, run: str, store: str
) -> None:
    torch.set_num_threads(1)  # this process is ours alone
    parent = os.getppid()
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=n_workers)
    network = Network(recipe.cfg, torch.Generator().manual_seed(seed))
    optimizer = make_optimizer(network, recipe)
    step, losses = 0, []
    progress = _load_progress(folder / "progress.pt")
    if progress is not None:
        network.load_state_dict(progress["network"])
        optimizer.load_state_dict(progress["optimizer"])
        step, losses = progress["step"], progress["losses"]
    parallel = torch.nn.parallel.DistributedDataParallel(network, gradient_as_bucket_view=True)
    bar = tqdm(total=recipe.n_steps, initial=step, unit="step", smoothing=0.05, disable=rank > 0)
    while step < recipe.n_steps:
        if os.getppid() != parent:  # killed: another run may be writing to the folder by now
            raise SystemExit("the process that started this one is gone")
        n_steps, share = min(CHUNK, recipe.n_steps - step), recipe.batch // n_workers
        chunk = chunk_seed(seed, step, rank)
        generator = torch.Generator().manual_seed(chunk)
        for batch in torch.from_numpy(documents(n_steps * share, chunk, step)).chunk(n_steps):
            losses.append(train_step(parallel, optimizer, batch.long(), recipe, step, generator))
            step += 1
            bar.update()
            bar.set_postfix(loss=f"{losses[-1]:.3f}", refresh=False)
            if rank == 0 and step in recipe.checkpoints:
                torch.save(network.standard_state(), folder / f"step-{step}.pt")
        if rank == 0:
            _save_progress(folder, run, step, losses, network, optimizer)
    bar.close()
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def train_step(
    network: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    tokens: Int[Tensor, "batch pos"],
    recipe: Recipe,
    step: int,
    generator: torch.Generator,
) -> float:
    """The recipe's step that follows ``step`` finished ones, on these documents.

    Returns:
        Their mean loss in nats per token, before the step.
    """
    index, done = recipe.position(step)
    stage = recipe.stages[index]
    if done == 0 and not stage.goes_on:
        optimizer.state.clear()
    for group in optimizer.param_groups:
        group["lr"] = 0.0 if group["mlp"] and stage.mlps_rest else recipe.lr(step)
    optimizer.zero_grad(set_to_none=False)  # the gradients live in buffers that are sent as they are
    dropout = HeadDropout(stage.head_dropout, generator) if stage.head_dropout else None
    loss = next_token_loss(network(tokens[:, :-1], dropout), tokens[:, 1:])
    loss.backward()
    torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimizer.step()
    return loss.item()


def next_token_loss(logits: Float[Tensor, "batch pos d_vocab"], targets: Int[Tensor, "batch pos"]) -> Float[Tensor, ""]:
    """Mean cross-entropy in nats per token."""
    return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


def make_optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW on four groups of parameters: matrices decay and vectors don't, the MLPs' and the others."""
    groups = []
    for mlp in (False, True):
        named = [(name, p) for name, p in network.named_parameters() if (name.split(".")[-1] in MLP_PARAMETERS) == mlp]
        for decay, n_dims in ((recipe.weight_decay, 2), (0.0, 1)):
            params = [p for _, p in named if p.ndim == n_dims]
            if params:
                groups.append({"params": params, "weight_decay": decay, "mlp": mlp})
    return torch.optim.AdamW(groups, lr=recipe.stages[0].max_lr, betas=(0.9, 0.98), fused=True)


def chunk_seed(seed: int, step: int, rank: int) -> int:
    """Every seed, chunk and process reads documents of its own; below `utils.data.corpus.HELD_OUT_SEED`."""
    return 10**9 * (seed % 900) + 100 * step + rank


def _load_progress(path: Path) -> dict | None:
    return torch.load(path) if path.exists() else None


def _save_progress(folder: Path, run: str, step: int, losses: list[float], network: Network, optimizer) -> None:
    """Replace the saved progress in one step, so that an interruption leaves the old or the new."""
    temporary = folder / "progress.part"
    torch.save(
        {"run": run, "step": step, "losses": losses, "network": network.state_dict(),
         "optimizer": optimizer.state_dict(), "standard": network.standard_state()},
        temporary,
    )  # fmt: skip
    os.replace(temporary, folder / "progress.pt")
    (folder / "losses.json").write_text(json.dumps([round(loss, 4) for loss in losses]), encoding="utf-8")
