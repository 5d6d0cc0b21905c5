"""Decompose the toy models of part 09b, five times each, and measure what comes out.

    OMP_NUM_THREADS=1 python -m utils.spd.make_toys [recipe ...]

Writes ``toys.json`` beside this file, and the components and gates themselves to ``toys.safetensors`` for the recipes
that the notebook looks into. Recipes that are not named stay as they are.
"""

import itertools
import json
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Generator, Tensor

from utils.spd.components import RankOneComponents, inputs_of_matrices
from utils.spd.gates import ComponentGates, causal_importance
from utils.spd.score import (
    ablate_the_rest,
    components_per_input,
    live_components,
    match_components,
    mean_l2_ratio,
    mean_max_cosine_similarity,
    recovered,
)
from utils.spd.side_by_side import train_side_by_side
from utils.spd.toys import ToyTarget, active_features, target_of, toy_target
from utils.spd.training import Decomposition

RESULTS, TENSORS = (Path(__file__).with_name(f"toys.{ending}") for ending in ("json", "safetensors"))
SEEDS = (0, 1, 2, 3, 4)
SMALL = {"C": 12, "price": 3e-3, "lr": 1e-2, "n_steps": 3000}
# target, probability of a feature in training, batch, settings of train_side_by_side
RECIPES: dict[str, tuple[dict[str, Any], float, int, dict[str, Any]]] = {
    "5-2": ({"n_features": 5, "d_hidden": 2}, 0.05, 64, SMALL),
    "5-2, hidden": ({"n_features": 5, "d_hidden": 2, "hidden": True}, 0.05, 64, SMALL),
    "40-10": (
        {"n_features": 40, "d_hidden": 10}, 0.02, 128, {"C": 60, "price": 4e-4, "lr": 1e-2, "n_steps": 4000},
    ),
    "untrained": ({"n_features": 5, "d_hidden": 2, "trained": False}, 0.05, 64, SMALL),
    "random start": ({"n_features": 5, "d_hidden": 2}, 0.05, 64, SMALL | {"at_examples": False}),
    "price too low": ({"n_features": 5, "d_hidden": 2}, 0.05, 64, SMALL | {"price": 1e-4}),
    "price too high": ({"n_features": 5, "d_hidden": 2}, 0.05, 64, SMALL | {"price": 3e-2}),
    "too few components": ({"n_features": 5, "d_hidden": 2}, 0.05, 64, SMALL | {"C": 4}),
}  # fmt: skip
KEPT = ("5-2", "random start", "price too low", "price too high", "too few components")


def load_target(name: str = "5-2") -> ToyTarget:
    """The toy model that the shipped decompositions are of. (Trained on another processor, it may come out turned.)"""
    tensors = load_file(TENSORS)
    return target_of(tensors[f"target/{name}/W"], tensors[f"target/{name}/b"])


def load_toys(recipe: str) -> list[Decomposition]:
    """The shipped decompositions of a recipe, one for each seed; their history is empty."""
    tensors: dict[tuple[int, str, str], dict[str, Tensor]] = {}
    for key, value in load_file(TENSORS).items():
        name, *rest = key.split("/")
        if name == recipe:
            run, kind, matrix, parameter = rest
            tensors.setdefault((int(run), kind, matrix), {})[parameter] = value.float()
    runs = sorted({run for run, _, _ in tensors})
    return [
        Decomposition(
            {m: _components(state) for (r, kind, m), state in tensors.items() if (r, kind) == (run, "components")},
            {m: _gates(state) for (r, kind, m), state in tensors.items() if (r, kind) == (run, "gates")},
            {},
        )
        for run in runs
    ]


def _components(state: Mapping[str, Tensor]) -> RankOneComponents:
    module = RankOneComponents(state["V"].shape[0], state["U"].shape[1], state["U"].shape[0])
    module.load_state_dict(state)
    return module.requires_grad_(False)


def _gates(state: Mapping[str, Tensor]) -> ComponentGates:
    module = ComponentGates(*state["W_in"].shape)
    module.load_state_dict(state)
    return module.requires_grad_(False)


def measured(target: ToyTarget, found: Decomposition, x: Tensor) -> dict[str, Any]:
    """Scores with the truth, and what can be known without."""
    forward, weights, truth, _ = target
    output, inputs = inputs_of_matrices(forward, weights, x)
    matrices = {name: part.matrices() for name, part in found.components.items()}
    needed = components_per_input(forward, weights, found.components, found.gates, x)
    g = {n: causal_importance(found.gates[n], found.components[n].V, a)[0].clamp(min=0) for n, a in inputs.items()}
    result: dict[str, Any] = {
        "MMCS": mean_max_cosine_similarity(weights["down"], matrices["down"]).item(),
        "ML2R": mean_l2_ratio(weights["down"], matrices["down"]).item(),
        "live": {name: int(live_components(values).sum()) for name, values in g.items()},
        "needed": {name: keep.sum(dim=1).float().mean().item() for name, keep in needed.items()},
    }
    for name, true in truth.items():
        match = match_components(matrices[name], true)
        result[name] = {
            "cosine": [round(v, 4) for v in match.cosine.tolist()],
            "ratio": [round(v, 4) for v in match.ratio.tolist()],
            "recovered": int(recovered(matrices[name], true).sum()),
        }
    masks = {n: v + (1 - v) * torch.rand(v.shape, generator=Generator().manual_seed(5)) for n, v in g.items()}
    wrong = ablate_the_rest(forward, weights, found.components, x, {n: v > 2 for n, v in g.items()}, masks) - output
    on = torch.cat([values[values > 0.1] for values in g.values()])
    full = [(part.weight() - weights[name]).norm() / weights[name].norm() for name, part in found.components.items()]
    return result | {
        "error of the sum": torch.stack(full).max().item(),
        "error under random masks": (wrong.square().mean() / output.square().mean()).item(),
        "undecided": (on < 0.9).float().mean().item(),
    }


def agreement(found: list[Decomposition], target: ToyTarget, x: Tensor, name: str) -> float:
    """Of the live components of two runs, which share has a partner in the other, by the bounds of ``recovered``."""
    a = inputs_of_matrices(target.forward, target.weights, x)[1][name]
    live = []
    for run in found:
        part = run.components[name]
        live.append(part.matrices()[live_components(causal_importance(run.gates[name], part.V, a)[0])])
    pairs = [
        recovered(one, other).sum().item() / max(len(one), len(other), 1)
        for one, other in itertools.combinations(live, 2)
        if len(one) and len(other)
    ]
    return sum(pairs) / len(pairs) if pairs else 0.0


def make(recipe: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Results of a recipe's runs, and their tensors."""
    about, p, batch, settings = RECIPES[recipe]
    target = toy_target(**about)
    begun = time.process_time()
    found = train_side_by_side(
        target.forward,
        target.weights,
        active_features(about["n_features"], batch, p),
        seeds=SEEDS,
        every=500,
        **settings,
    )
    seconds = time.process_time() - begun
    x = active_features(about["n_features"], 2000)(Generator().manual_seed(77))
    results = {
        "p": p, "batch": batch, **settings, "seeds": SEEDS, "processor seconds": round(seconds, 1),
        "runs": [measured(target, run, x) for run in found],
        "agreement": {name: agreement(found, target, x, name) for name in target.weights},
        "history": found[0].history,
    }  # fmt: skip
    tensors = {
        f"{recipe}/{i}/{kind}/{name}/{key}": value.half().contiguous()
        for i, run in enumerate(found)
        for kind, modules in (("components", run.components), ("gates", run.gates))
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }
    if recipe == "5-2":
        tensors |= {"target/5-2/W": target.weights["up"].contiguous(), "target/5-2/b": target.b}
    return results, tensors


def main(names: list[str]) -> None:
    """Make the recipes named and write both files."""
    results = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
    tensors = load_file(TENSORS) if TENSORS.exists() else {}
    for name in names:
        results[name], new = make(name)
        if name in KEPT:
            tensors |= new
        print(name, results[name]["processor seconds"], [run["down"]["recovered"] for run in results[name]["runs"]],
              [run["up"]["recovered"] for run in results[name]["runs"]], flush=True)  # fmt: skip
        RESULTS.write_text(
            json.dumps({n: results[n] for n in RECIPES if n in results}, indent=1) + "\n", encoding="utf-8"
        )
        save_file(tensors, TENSORS)


if __name__ == "__main__":
    main(sys.argv[1:] or list(RECIPES))
