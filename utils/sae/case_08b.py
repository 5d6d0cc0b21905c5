"""The case of part 08b: a dictionary was set up in four unusual ways, and one of them costs all the quality."""

import copy
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from utils.course.cases import estimate
from utils.sae.topk import BatchTopKSAE, set_threshold, topk_objective
from utils.sae.training import from_table, train_sae
from utils.superposition.planted import unit_directions

USUAL = {"k": 3, "threshold": 1.0, "aux": True, "lr": 0.02}
KNOBS = tuple(USUAL)
# What a colleague did, by which of it does the harm.
COLLEAGUES = {
    "threshold": {"k": 4, "threshold": 3.0, "aux": False, "lr": 0.03},
    "k": {"k": 1, "threshold": 0.95, "aux": False, "lr": 0.03},
    "lr": {"k": 4, "threshold": 0.95, "aux": False, "lr": 0.0001},
}


class Run(NamedTuple):
    """A trained dictionary, and activations that it has not been trained on."""

    sae: BatchTopKSAE
    x: Float[Tensor, "n d"]


class Setting(NamedTuple):
    """What the learner is given.

    Attributes:
        colleague: The colleague's settings by name.
        usual: The usual ones.
        run: ``run(settings, seed)`` trains a dictionary with any settings under these four names, and gives (sae, x):
            the dictionary and activations that it was not trained on. The seed decides data, start and batches.
    """

    colleague: dict[str, float]
    usual: dict[str, float]
    run: Callable[[dict[str, float], int], Run]


@lru_cache(maxsize=400)
def _trained(settings: tuple, seed: int) -> Run:
    k, threshold, aux, lr = settings
    generator = Generator().manual_seed(seed)
    truth = unit_directions(20, 12, generator)
    on = torch.rand(3000, 20, generator=generator) < 0.12
    x = (on * (0.5 + torch.rand(3000, 20, generator=generator))) @ truth
    x = x * 12**0.5 / x.norm(dim=1).mean()
    sae = BatchTopKSAE(12, 32, int(k), generator=generator)
    objective = topk_objective(8, 1 / 32 if aux else 0.0)
    batches = from_table(x[:2400], 64, seed=seed)
    train_sae(sae, batches, objective, n_steps=60, lr=lr, n_warmup=5, dead_after=640, every=60)
    set_threshold(sae, x[:2400])
    sae.threshold *= threshold
    return Run(sae.requires_grad_(False), x[2400:])


def run(settings: dict[str, float], seed: int) -> Run:
    """Train a dictionary with these settings; the seed decides data, start and batches."""
    sae, x = _trained(tuple(settings[knob] for knob in KNOBS), int(seed))
    return Run(copy.deepcopy(sae), x.clone())  # whatever is done to it, the next one is as it was trained


def setting(culprit: str) -> Setting:
    """A colleague's set-up, of which one setting does the harm: "threshold", "k" or "lr"."""
    return Setting(dict(COLLEAGUES[culprit]), dict(USUAL), run)


def which_setting_costs(given: Setting) -> dict[str, object]:
    """Design an experiment: four settings of a batch top-k dictionary are unusual. Which of them costs its quality?

    ``given.colleague`` and ``given.usual`` are dicts with the keys "k" (latents on average), "threshold" (what the
    threshold that was set after training is multiplied by), "aux" (whether the auxiliary loss is on) and "lr" (the
    learning rate). ``given.run(settings, seed)`` trains a dictionary and gives (sae, x), where x [n, d] are activations
    that it was not trained on; a few of them are 0, as no feature is on. ``sae(x)`` gives (reconstruction, latents), as
    it will be used: with its threshold. The colleague wants reconstructions of new activations, and they are bad.

    Change one setting at a time: with a seed, the *gain* of a setting is the measure of ``run`` with the colleague's
    settings but this one, which is set to its usual value, less the measure of ``run`` with all of the colleague's
    settings and the same seed.

    Args:
        given: The colleague's settings, the usual ones, and how to run others.

    Returns:
        A dict with these keys:

        "measure": A function ``measure(sae, x)`` that returns a number, the larger the better x is reconstructed. It
            depends on its arguments alone and leaves the dictionary as it is.
        "seeds": At least five different whole numbers, from 0 to 9.
        "gain_k", "gain_threshold", "gain_aux", "gain_lr": For each setting the pair (mean, half-width): the mean
            gain over seeds, and the half-width of its 95 % interval, as ``estimate`` gives them.
        "verdict": The name of the setting with the largest mean gain: "k", "threshold", "aux" or "lr". The check
            calls your function with other colleagues, whose trouble has another cause.
    """

    def measure(sae: BatchTopKSAE, x: Tensor) -> float:
        x_hat, _ = sae(x)
        return (1 - (x - x_hat).square().sum() / (x - x.mean(dim=0)).square().sum()).item()

    seeds = [0, 1, 2, 3, 4]
    before = [measure(*given.run(given.colleague, seed)) for seed in seeds]
    design: dict[str, object] = {"measure": measure, "seeds": seeds}
    gains = {}
    for knob, usual in given.usual.items():
        after = [measure(*given.run(given.colleague | {knob: usual}, seed)) for seed in seeds]
        gains[knob] = estimate([b - a for a, b in zip(before, after, strict=True)])
        design[f"gain_{knob}"] = gains[knob]
    return design | {"verdict": max(gains, key=lambda knob: gains[knob][0])}
