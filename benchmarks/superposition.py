"""Toy models: what it gains to train many at once, and how often the figures of the paper form.

    OMP_NUM_THREADS=1 python benchmarks/superposition.py

Prints models trained per second, one after the other and a hundred at once, in one run; how many of ten tries (the best
of four starts each) and how many of forty runs give a pentagon; and the dimensionalities of features in models that are
in the range of a figure, beside random directions of the same lengths.
"""

import time
from collections import Counter

import torch

from utils.superposition.geometry import feature_dimensionality, find_polygon, named_groups
from utils.superposition.train import train_toy_models

# features, dimensions, 1 / p, and the dimensionality that is published for what forms there
FIGURES = (
    ("antipodal pairs", 8, 4, 4, 1 / 2),
    ("pentagon", 5, 2, 20, 2 / 5),
    ("square antiprism", 8, 3, 20, 3 / 8),
    ("triangle", 3, 2, 1.5, 2 / 3),
    ("tetrahedron", 4, 3, 1.5, 3 / 4),
)


def seconds(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def throughput(n_models=100, n_steps=200, batch=64):
    """The same models, examples and steps; few single ones, as each takes as long as the next."""
    settings = {"n_steps": n_steps, "batch": batch, "n_fresh": 1024}
    train_toy_models(5, 2, torch.full((2,), 0.05), n_steps=20, batch=batch)  # warm
    alone = min(
        seconds(lambda: [train_toy_models(5, 2, torch.tensor([0.05]), seed=s, **settings) for s in range(5)]) / 5
        for _ in range(3)
    )
    together = min(seconds(lambda: train_toy_models(5, 2, torch.full((n_models,), 0.05), **settings)) for _ in range(3))
    print(f"{n_models} models of 5 features in 2 dimensions, {n_steps} steps, batch {batch}")
    print(f"  one after the other: {1 / alone:7.1f} models a second")
    print(f"  all at once:         {n_models / together:7.1f} models a second, {n_models * alone / together:.0f} times")


def pentagons():
    for seed in (0, 100):
        run = train_toy_models(5, 2, torch.full((40,), 0.05), n_steps=1000, n_fresh=65_536, seed=seed)
        corners = [find_polygon(W) for W in run.model.W]
        best = [4 * k + int(i) for k, i in enumerate(run.loss.view(10, 4).argmin(1))]
        print(f"p = 0.05, seed {seed}: best of four {[corners[i] for i in best].count(5)} of 10 pentagons, "
              f"single runs {dict(Counter(corners))}")  # fmt: skip


def figures():
    print("dimensionalities of stored features, eight starts: median (middle 95 %), published; null; what formed")
    for name, n, m, inverse, published in FIGURES:
        W = train_toy_models(n, m, torch.full((8,), 1 / inverse), n_steps=1500, n_fresh=1024).model.W
        stored, D = W.norm(dim=1) > 0.5, feature_dimensionality(W)
        noise = torch.randn(W.shape, generator=torch.Generator().manual_seed(0))
        null = feature_dimensionality(W.norm(dim=1, keepdim=True) * torch.nn.functional.normalize(noise, dim=1))
        low, middle, high = D[stored].quantile(torch.tensor([0.025, 0.5, 0.975])).tolist()
        null_low, null_high = null[stored].quantile(torch.tensor([0.025, 0.975])).tolist()
        formed = sum((named_groups(w) for w in W), Counter())
        print(f"  {name:17}{middle:.3f} ({low:.3f} to {high:.3f}), {published:.3f}; random {null_low:.2f} to "
              f"{null_high:.2f}; {dict(formed)}")  # fmt: skip


if __name__ == "__main__":
    throughput()
    pentagons()
    figures()
