"""Stochastic parameter decomposition: steps a second, and which share of the matrix-multiply bound that is.

    OMP_NUM_THREADS=1 python benchmarks/spd.py

For each size: steps a processor second of ``train_spd`` for one run and of ``train_side_by_side`` for five (best and
median of short runs). The bound: the floating-point operations of a step's matrix products, forward and backward, as
``torch.utils.flop_counter`` counts them, at the rate of one large product on this machine. What lies between the two is
the gates' GELUs, masks, Adam, and calling functions on small tensors.
"""

import statistics
import time

import torch
from torch.utils.flop_counter import FlopCounterMode

from utils.spd.components import RankOneComponents
from utils.spd.gates import ComponentGates
from utils.spd.side_by_side import train_side_by_side
from utils.spd.toys import ToyTarget, active_features, toy_target
from utils.spd.training import spd_losses, train_spd

SIZES = {"5 in 2": (5, 2, 12, 64), "5 in 2, paper's batch": (5, 2, 20, 4096), "40 in 10": (40, 10, 60, 128)}
STEPS, ROUNDS = 40, 5


def seconds(run) -> float:
    "Of the processor."
    start = time.process_time()
    run()
    return time.process_time() - start


def peak(n: int = 1024) -> float:
    "Operations a second of one large product."
    a, b = torch.randn(n, n), torch.randn(n, n)
    a @ b
    return 2 * n**3 / min(seconds(lambda: a @ b) for _ in range(6))


def operations(target: ToyTarget, C: int, x: torch.Tensor) -> int:
    "Of the matrix products of one step of one run."
    components = {name: RankOneComponents(*W.shape, C) for name, W in target.weights.items()}
    gates = {name: ComponentGates(C) for name in target.weights}
    with FlopCounterMode(display=False) as counter:
        sum(spd_losses(target.forward, target.weights, components, gates, x, p=1.0).values()).backward()
    return counter.get_total_flops()


def timed(given, runs: int, settings: dict) -> list[float]:
    "Seconds for a step of one run, of which there are one or several side by side."
    if runs == 1:
        times = [seconds(lambda: train_spd(*given, **settings)) for _ in range(ROUNDS)]
    else:
        times = [seconds(lambda: train_side_by_side(*given, seeds=range(runs), **settings)) for _ in range(ROUNDS)]
    return [time_ / settings["n_steps"] / runs for time_ in times]


def main():
    rate = peak()
    print(f"{torch.get_num_threads()} thread(s); a large product: {rate / 1e9:.0f} GFLOP a processor second")
    for name, (n, m, C, batch) in SIZES.items():
        target, draw = toy_target(n, m, trained=False), active_features(n, batch)
        bound = rate / operations(target, C, draw(torch.Generator().manual_seed(0)))
        settings = {"C": C, "price": 1e-3, "n_steps": STEPS if batch < 1000 else 4}
        for runs in (1, 5) if batch < 1000 else (1,):
            each = timed((target.forward, target.weights, draw), runs, settings)
            print(
                f"  {name:22} {runs} side by side: {1 / min(each):6.0f} steps of a run a second (median "
                f"{1 / statistics.median(each):.0f});  bound {bound:9.0f}, share {1 / min(each) / bound:.4f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
