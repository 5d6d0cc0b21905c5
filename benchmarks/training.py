"""Tokens a second of the course model's training recipe, against a plain loop over a ``HookedTransformer``.

    python benchmarks/training.py

Each loop runs in fresh processes, for a few steps and for many; the difference of the two times leaves out the start.
Documents are generated on the way in both. The rounds alternate, so that a machine that slows down slows all of them.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import torch
from tqdm import tqdm

from utils.models.course_model import RECIPE, training_documents
from utils.models.hooked import hooked_transformer
from utils.models.network import Network
from utils.models.training import Stage, next_token_loss, train

FEW, MANY, ROUNDS = 10, 50, 3


def hooked_loop(n_steps: int, n_threads: int) -> None:
    """The loop that one would write first."""
    torch.set_num_threads(n_threads)
    model = hooked_transformer(RECIPE.cfg, Network(RECIPE.cfg, torch.Generator().manual_seed(0)).standard_state())
    optimizer = torch.optim.AdamW(model.parameters(), lr=RECIPE.stages[0].max_lr)
    tokens = torch.from_numpy(training_documents(RECIPE.batch * n_steps, 0, 0)).long()
    for batch in tokens.split(RECIPE.batch):
        next_token_loss(model(batch[:, :-1]), batch[:, 1:]).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()


def our_loop(n_steps: int, n_workers: int) -> None:
    """The recipe, cut short."""
    with tempfile.TemporaryDirectory() as folder:
        recipe = replace(RECIPE, stages=(Stage(n_steps, 1e-3, n_steps),), checkpoints=())
        train(recipe, training_documents, Path(folder), seed=0, n_workers=n_workers)


def tokens_per_second(loop, count: int) -> float:
    """Of ``loop(n_steps, count)`` in a process of its own."""
    seconds = []
    for n_steps in (FEW, MANY):
        process = multiprocessing.get_context("spawn").Process(target=loop, args=(n_steps, count))
        start = time.perf_counter()
        process.start()
        process.join()
        seconds.append(time.perf_counter() - start)
        if process.exitcode:
            raise RuntimeError(f"{loop.__name__}({n_steps}, {count}) failed")
    return (MANY - FEW) * RECIPE.batch * RECIPE.cfg.n_ctx / (seconds[1] - seconds[0])


def main() -> None:
    n_cores = os.cpu_count() or 1
    loops = {
        "HookedTransformer, one thread": (hooked_loop, 1),
        f"HookedTransformer, {n_cores} threads": (hooked_loop, n_cores),
        "ours, one process": (our_loop, 1),
        f"ours, {n_cores} processes": (our_loop, n_cores),
    }
    rates = {name: [] for name in loops}
    for _ in tqdm(range(ROUNDS), unit="round"):
        for name, loop in loops.items():
            rates[name].append(tokens_per_second(*loop))
    base = statistics.median(rates[f"HookedTransformer, {n_cores} threads"])
    for name, found in rates.items():
        median = statistics.median(found)
        print(f"{name:32} {median:8,.0f} tokens/s ({min(found):,.0f} to {max(found):,.0f})  {median / base:.2f}×")


if __name__ == "__main__":
    main()
