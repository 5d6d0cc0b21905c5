"""Four tests of a candidate circuit. All of them ask one function: what does the model do with these parts alone?

``score(parts)`` runs a model in which ``parts``, a collection of edges (or heads, or what else circuits are made of),
are as they are and everything else is replaced, and returns the metric for each prompt. What the rest is replaced by,
on which prompts, and what is measured, is hidden in ``score``. F below is its mean over prompts; M has all parts.
"""

from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Tensor


def circuit_faithfulness(
    score: Callable[[frozenset], Float[Tensor, " prompt"]],
    circuit: Collection[Hashable],
    everything: Collection[Hashable],
) -> tuple[float, float]:
    """How much of what the model does its circuit does alone.

    With F(parts) the mean of ``score(parts)`` over prompts, C the circuit, M everything, and nothing kept in F(∅):

        share = (F(C) - F(∅)) / (F(M) - F(∅))        gap = |F(M) - F(C)|

    Args:
        score: From a frozenset of parts to the metric of each prompt when only these parts are kept.
        circuit: The candidate's parts.
        everything: All parts that can be kept.

    Returns:
        share: 1 for the whole model, 0 for nothing; below 0 and above 1 are possible.
        gap: In the metric's units.

    Raises:
        ValueError: If the circuit has a part that is not in ``everything``, or F(M) and F(∅) differ by less than 1e-6,
            so that there is nothing of which to have a share.

    Source: Wang et al. (2022), section 4, for the gap. The share, by which circuits are compared across metrics, is
    common in later work (Miller et al., 2024, discuss what it depends on).
    """
    if not set(circuit) <= set(everything):
        raise ValueError("the circuit has parts that the model has not")
    whole, kept, nothing = (score(frozenset(parts)).mean().item() for parts in (everything, circuit, ()))
    if abs(whole - nothing) < 1e-6:
        raise ValueError("the model with all parts scores as with none: there is nothing to have a share of")
    return (kept - nothing) / (whole - nothing), abs(whole - kept)


def circuit_completeness(
    score: Callable[[frozenset], Float[Tensor, " prompt"]],
    circuit: Sequence[Hashable],
    everything: Collection[Hashable],
    steps: int,
) -> tuple[list[Hashable], list[float]]:
    """Take parts of the circuit out of the circuit and out of the model alike, and look for where the two come apart.

    For a set K of the circuit's parts the incompleteness is |F(C \\ K) - F(M \\ K)|, F the mean of ``score`` over
    prompts. The search is greedy: K is empty at first, and each step adds the part of the circuit with which the
    incompleteness becomes largest, whether or not that is larger than before.

    Args:
        score: From a frozenset of parts to the metric of each prompt when only these parts are kept.
        circuit: The candidate's parts, each once. Of several that do equally well a step takes the first in this order.
        everything: All parts that can be kept.
        steps: How many parts to take out, from 0 to all of the circuit.

    Returns:
        removed: The parts in the order in which they were taken out.
        gaps: The incompleteness for the empty K, and after each step: ``steps + 1`` numbers, in the metric's units.

    Raises:
        ValueError: If the circuit has a part that is not in ``everything``, or there are not so many steps to go.

    Source: Wang et al. (2022), section 4.1, who try a random sample of the parts in each step, and we all of them.
    """
    whole, kept = frozenset(everything), frozenset(circuit)
    if not kept <= whole:
        raise ValueError("the circuit has parts that the model has not")
    if not 0 <= steps <= len(circuit):
        raise ValueError(f"steps must be from 0 to {len(circuit)}, got {steps}")

    def gap(without: frozenset) -> float:
        return abs(score(kept - without).mean().item() - score(whole - without).mean().item())

    removed, gaps = [], [gap(frozenset())]
    for _ in range(steps):
        left = [part for part in circuit if part not in removed]
        found = [gap(frozenset([*removed, part])) for part in left]
        gaps.append(max(found))
        removed.append(left[found.index(max(found))])
    return removed, gaps


def circuit_minimality(
    score: Callable[[frozenset], Float[Tensor, " prompt"]], circuit: Sequence[Hashable], largest: int
) -> dict[Hashable, tuple[frozenset, float]]:
    """For each part of the circuit: what else must be gone so that this part makes the largest difference?

    A part v is needed if there is a set K of the circuit's *other* parts without which it matters: the search goes
    through all K of at most ``largest`` parts and takes the one with the largest |F(C \\ K) - F(C \\ (K ∪ {v}))|,
    F the mean of ``score`` over prompts.

    Args:
        score: From a frozenset of parts to the metric of each prompt when only these parts are kept.
        circuit: The candidate's parts, each once.
        largest: The most parts that K may have; 0 leaves the empty K alone.

    Returns:
        For each part, in the circuit's order, K and the difference, in the metric's units. Of several K whose
        differences are exactly equal, one of the smallest.

    Raises:
        ValueError: If ``largest`` is negative.

    Source: Wang et al. (2022), section 4.2, who choose each K by what they know of the heads.
    """
    if largest < 0:
        raise ValueError(f"largest must be at least 0, got {largest}")
    kept, found = frozenset(circuit), {}
    for part in circuit:
        others = [other for other in circuit if other != part]
        best = frozenset(), -1.0
        for size in range(min(largest, len(others)) + 1):
            for chosen in map(frozenset, combinations(others, size)):
                without = score(kept - chosen).mean().item(), score(kept - chosen - {part}).mean().item()
                if abs(without[0] - without[1]) > best[1]:
                    best = chosen, abs(without[0] - without[1])
        found[part] = best
    return found


def circuit_generalization(
    scores: Mapping[str, Callable[[frozenset], Float[Tensor, " prompt"]]],
    circuit: Collection[Hashable],
    everything: Collection[Hashable],
    generator: torch.Generator,
    draws: int = 1000,
) -> dict[str, tuple[float, float, float]]:
    """The circuit's share on several kinds of prompts, each with a 95 % interval over its prompts.

    The share is that of faithfulness, a ratio of differences of *means*. Its interval is a bootstrap: as many prompts
    as there are, drawn with replacement, give one share; all that is measured on a prompt goes with it. The interval
    reaches from the 2.5th to the 97.5th percentile of ``draws`` such shares.

    Args:
        scores: For each kind of prompts, from a frozenset of parts to the metric of each prompt when only these parts
            are kept. The prompts of a kind are independent of each other.
        circuit: The candidate's parts.
        everything: All parts that can be kept.
        generator: Draws prompts.
        draws: How many times.

    Returns:
        For each kind (share, low, high), in the order of ``scores``. Shares below 0 and above 1 are possible.

    Source: Wang et al. (2022), section 4, for the question; Efron and Tibshirani (1993), "An Introduction to the
    Bootstrap", for the interval.
    """
    found = {}
    for kind, score in scores.items():
        whole, kept, nothing = (score(frozenset(parts)).double() for parts in (everything, circuit, ()))
        above, below = kept - nothing, whole - nothing
        drawn = torch.randint(len(below), (draws, len(below)), generator=generator)
        shares = above[drawn].mean(1) / below[drawn].mean(1)
        low, high = torch.quantile(shares, torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
        found[kind] = ((above.mean() / below.mean()).item(), low, high)
    return found
