"""Could the circuit be another one: random circuits that look like it, and the circuit found on other prompts."""

from collections.abc import Callable, Hashable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def random_circuits(
    circuit: Sequence[Hashable],
    everything: Sequence[Hashable],
    kind: Callable[[Hashable], Hashable],
    n: int,
    generator: torch.Generator,
) -> list[frozenset]:
    """Draw circuits that are like a given one in all that ``kind`` says, and random in everything else.

    Each has as many parts of each kind as the circuit. For each kind they are drawn from all parts of that kind,
    without replacement, each equally likely, and those of the circuit itself are among them.

    Args:
        circuit: The candidate's parts, each once.
        everything: All parts, each once.
        kind: What a part has in common with those that may stand in for it, such as the kind of its receiver; called
            for any part. ``lambda part: None`` matches the number of parts alone.
        n: How many circuits, drawn independently.
        generator: Draws them.

    Returns:
        ``n`` sets of as many parts as the circuit has.

    Raises:
        ValueError: If the circuit has a part that is not in ``everything``.

    Source: Shi et al. (2024), "Hypothesis Testing the Circuit Hypothesis in LLMs", for random circuits as the null.
    """
    if not set(circuit) <= set(everything):
        raise ValueError("the circuit has parts that the model has not")
    pools, wanted = {}, {}
    for part in everything:
        pools.setdefault(kind(part), []).append(part)
    for part in circuit:
        wanted[kind(part)] = wanted.get(kind(part), 0) + 1
    found = []
    for _ in range(n):
        drawn = set()
        for name, number in wanted.items():
            order = torch.randperm(len(pools[name]), generator=generator)[:number]
            drawn |= {pools[name][i] for i in order.tolist()}
        found.append(frozenset(drawn))
    return found


def bootstrap_circuit(
    effects: Float[Tensor, "prompt part"], size: int, draws: int, generator: torch.Generator
) -> tuple[Float[Tensor, " part"], Float[Tensor, " draw"]]:
    """Find the circuit again on prompts drawn anew, and see how much of it stays.

    The circuit of some prompts is the ``size`` parts whose mean effect over these prompts is largest in absolute value.
    A draw takes as many prompts as there are, with replacement.

    Args:
        effects: What each part alone does to the metric, on each prompt.
        size: How many parts a circuit has, from 1 to all.
        draws: How many times the circuit is found again.
        generator: Draws the prompts.

    Returns:
        share: For each part, in which share of the draws it is in the circuit.
        overlap: For each draw the Jaccard index of its circuit and that of all prompts together: the parts that are in
            both, by the parts that are in either; 1 if they are the same.

    Raises:
        ValueError: If there is no circuit of this size.
    """
    n_prompts, n_parts = effects.shape
    if not 1 <= size <= n_parts:
        raise ValueError(f"size must be from 1 to {n_parts}, got {size}")
    prompts = torch.randint(n_prompts, (draws, n_prompts), generator=generator).to(effects.device)
    means = torch.stack([effects[drawn].mean(dim=0) for drawn in prompts])
    inside = torch.zeros_like(means).scatter(1, means.abs().topk(size, dim=1).indices, 1.0)
    full = torch.zeros_like(means[0]).scatter(0, effects.mean(dim=0).abs().topk(size).indices, 1.0)
    shared = inside @ full
    return inside.mean(dim=0), shared / (2 * size - shared)
