"""Where decompositions begin, and several of them in one run."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Generator, Tensor, nn

from utils.spd.components import Forward, RankOneComponents, inputs_of_matrices
from utils.spd.gates import ComponentGates
from utils.spd.training import Decomposition, train_spd

Parts = tuple[dict[str, RankOneComponents], dict[str, ComponentGates]]


def start_at_random(weights: Mapping[str, Float[Tensor, "d_in d_out"]], C: int, generator: Generator) -> Parts:
    """The starting values of ``train_spd``."""
    components = {name: RankOneComponents(*W.shape, C, generator=generator) for name, W in weights.items()}
    return components, {name: ComponentGates(C, generator=generator) for name in weights}


def start_at_examples(
    forward: Forward,
    weights: Mapping[str, Float[Tensor, "d_in d_out"]],
    batches: Callable[[Generator], Tensor],
    C: int,
    generator: Generator,
) -> Parts:
    """Components that read what comes in at C examples, and write what the matrix makes of it; random gates.

    The examples are chosen far apart, as for k-means: the first at random, then again and again the one whose largest
    cosine with those chosen is smallest; once that exceeds 0.5, at random. Together the components come near the
    matrix.
    """
    components, gates = start_at_random(weights, C, generator)
    x = torch.cat([batches(generator) for _ in range(8)])
    x = x[far_apart(torch.nn.functional.normalize(x, dim=1), C)]
    for name, a in inputs_of_matrices(forward, weights, x)[1].items():
        V = torch.nn.functional.normalize(a, dim=1)
        components[name].V.data = V.T.contiguous()
        components[name].U.data = V @ weights[name] * weights[name].shape[0] / C
    return components, gates


def far_apart(unit: Float[Tensor, "n d"], C: int) -> list[int]:
    """Which C rows of length 1 to take: far from each other while there are such, then the first of the others."""
    chosen = [0]
    nearest = unit @ unit[0]
    for _ in range(C - 1):
        nearest[chosen] = 2.0
        apart = nearest.min() < 0.5
        chosen.append(int(nearest.argmin() if apart else (nearest < 2.0).nonzero()[0]))
        nearest = torch.maximum(nearest, unit @ unit[chosen[-1]])
    return chosen


def train_side_by_side(
    forward: Forward,
    weights: Mapping[str, Float[Tensor, "d_in d_out"]],
    batches: Callable[[Generator], Float[Tensor, "batch d"]],
    *,
    seeds: Sequence[int],
    C: int,
    at_examples: bool = True,
    weigh: Mapping[str, float] | None = None,
    **settings: Any,
) -> list[Decomposition]:
    """Decompose the same matrices from several starting points, in little more time than from one.

    Small matrices leave the processor waiting for Python. Stacked, V is [run, d_in, C], and every line of
    ``spd_losses`` stays as it is. Each run has starting values, batches and masks of its own, and its gradients are
    those that it would have alone, as runs share nothing.

    Args:
        forward, weights, batches, C, weigh: As for ``train_spd``.
        seeds: Of the starting values; together they seed batches and masks.
        at_examples: Whether to start at examples; otherwise at random.
        settings: Other arguments of ``train_spd``.

    Returns:
        The decompositions. The history, which they share, is the mean over runs.
    """
    generators = [Generator().manual_seed(seed) for seed in seeds]
    starts = [
        start_at_examples(forward, weights, batches, C, generator)
        if at_examples
        else start_at_random(weights, C, generator)
        for generator in generators
    ]
    components = {name: stacked([start[0][name] for start in starts], ()) for name in weights}
    gates = {name: stacked([start[1][name] for start in starts], (1,)) for name in weights}

    def batch(generator: Generator) -> Tensor:
        return torch.stack([batches(generator) for _ in seeds])

    # The faithfulness loss adds up over runs where the others take a mean.
    share = {**(weigh or {})}
    share["faithfulness"] = share.get("faithfulness", 1.0) / len(seeds)
    found = train_spd(forward, weights, batch, C=C, weigh=share, seed=sum(seeds), start=(components, gates), **settings)
    history = found.history | {"faithfulness": [value / len(seeds) for value in found.history["faithfulness"]]}
    return [
        Decomposition(
            {name: alone(part, i) for name, part in components.items()},
            {name: alone(part, i) for name, part in gates.items()},
            history,
        )
        for i in range(len(seeds))
    ]


def stacked(modules: list[nn.Module], between: tuple[int, ...]) -> nn.Module:
    """The first module with the parameters of all in one tensor, [run, *between, *shape]."""
    first, names = modules[0], [name for name, _ in modules[0].named_parameters()]
    for name, values in [(name, [module.get_parameter(name).detach() for module in modules]) for name in names]:
        together = torch.stack(values)
        setattr(first, name, nn.Parameter(together.reshape(len(modules), *between, *together.shape[1:])))
    return first


def alone(module: nn.Module, run: int) -> nn.Module:
    """One run's module out of stacked ones."""
    if isinstance(module, RankOneComponents):
        one: nn.Module = RankOneComponents(module.V.shape[-2], module.U.shape[-1], module.V.shape[-1])
    else:
        one = ComponentGates(*module.W_in.shape[-2:])
    one.load_state_dict(
        {name: value[run].reshape(one.get_parameter(name).shape) for name, value in module.named_parameters()}
    )
    return one.requires_grad_(False)
