"""The case of part 06a: four layers, and for each the question whether its coordinates are special."""

import random
from collections.abc import Callable

import torch
from jaxtyping import Float
from torch import Tensor

from utils.superposition.bases import random_rotation

N_UNITS = 24
KINDS = {"relu": True, "tanh": True, "turned relu": False, "gusts": False}  # and whether the basis is privileged
NAMES = "ABCD"

Layer = Callable[[int], Float[Tensor, "sample unit"]]


def layer(kind: str, seed: int) -> Layer:
    """A layer's activations on n inputs; asked again with the same n it says the same.

    Args:
        kind: "relu" or "tanh": 24 neurons with a nonlinearity each, on inputs of 12 numbers. "turned relu": the first,
            multiplied by a random rotation. "gusts": inputs, in a random basis, that are ten times larger now and then,
            all coordinates together.
        seed: Draws the weights, and the inputs.
    """
    generator = torch.Generator().manual_seed(seed)
    W, b = torch.randn(12, N_UNITS, generator=generator) / 12**0.5, 0.2 * torch.randn(N_UNITS, generator=generator)
    turn, spread = random_rotation(N_UNITS, seed), torch.linspace(0.3, 1.5, N_UNITS)

    def activations(n_samples: int) -> Float[Tensor, "sample unit"]:
        drawn = torch.Generator().manual_seed(seed + 1)
        inputs = torch.randn(n_samples, 12, generator=drawn)
        if kind == "gusts":
            strong = torch.where(torch.rand(n_samples, 1, generator=drawn) < 0.05, 10.0, 1.0)
            return strong * spread * torch.randn(n_samples, N_UNITS, generator=drawn) @ turn
        hidden = inputs @ W + b
        if kind == "tanh":
            return (6 * hidden).tanh()
        return hidden.relu() @ turn if kind == "turned relu" else hidden.relu()

    return activations


def four_layers(seed: int) -> dict[str, Layer]:
    """A layer of each kind, in random order, by the names "A", "B", "C" and "D"."""
    rng = random.Random(seed)
    kinds = rng.sample(sorted(KINDS), len(KINDS))
    return {name: layer(kind, rng.randrange(2**31)) for name, kind in zip(NAMES, kinds, strict=True)}


def which_bases_are_privileged(layers: dict[str, Layer]) -> dict[str, object]:
    """Design a test: does something in a layer treat its coordinates each for itself, so that they are special?

    A basis is called *privileged* here if the activations look different along its directions than along those of a
    random one: other bases of the same space are the control. What "look different" means is what you measure. Some
    layers have an elementwise nonlinearity (not always the same), some have none in this basis, and some have inputs
    that are wild in every basis. Your design has to do for other layers of these kinds as well, in any order.

    Args:
        layers: "A", "B", "C" and "D": each a function from a number of inputs to activations [sample, unit].

    Returns:
        A dict with

        - "n_samples": on how many inputs you look, at least 200 and at most 2,000;
        - "measure": a function ``measure(activations)`` from [sample, unit] to one number that depends on the basis;
        - "in_another_basis": a function ``in_another_basis(activations, seed)``: the same activations in a basis that
          is drawn at random, each orthonormal basis as likely as any other, another one for each seed. All distances
          between samples stay what they are;
        - "n_bases": how many bases you draw, at least 39 and at most 199; their seeds are 0, 1, 2 … n_bases - 1;
        - "p_A" … "p_D": for each layer, on ``layers[name](n_samples)``, how unusual its own basis is. Of the n bases, a
          have a measure at least as large as the layer's own, b one at most as large; p is the smaller of 1 and
          2 (1 + min(a, b)) / (1 + n): privileged bases may have a smaller measure, too;
        - "verdict_A" … "verdict_D": "privileged" if p is at most 0.05, else "not privileged".
    """
    n_samples, n_bases = 600, 79

    def measure(activations: Float[Tensor, "sample unit"]) -> float:
        """The units' kurtosis, on average."""
        squares = (activations - activations.mean(dim=0)).square()
        return (squares.square().mean(dim=0) / squares.mean(dim=0).square()).mean().item()

    def in_another_basis(activations: Float[Tensor, "sample unit"], seed: int) -> Float[Tensor, "sample unit"]:
        return activations @ random_rotation(activations.shape[1], seed)

    design = {
        "n_samples": n_samples, "measure": measure, "in_another_basis": in_another_basis, "n_bases": n_bases,
    }  # fmt: skip
    for name, activations_on in layers.items():
        activations = activations_on(n_samples)
        own = measure(activations)
        others = [measure(in_another_basis(activations, seed)) for seed in range(n_bases)]
        extreme = min(sum(other >= own for other in others), sum(other <= own for other in others))
        p = min(1.0, 2 * (1 + extreme) / (1 + n_bases))
        design |= {f"p_{name}": p, f"verdict_{name}": "privileged" if p <= 0.05 else "not privileged"}
    return design
