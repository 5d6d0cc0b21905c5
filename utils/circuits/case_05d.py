"""The case of part 05d: three circuits are offered for one network, and one of them is right."""

import random
from collections.abc import Collection, Sequence
from itertools import product
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from utils.circuits.graph import Edge
from utils.circuits.messages import run_with_edges, sender_outputs
from utils.circuits.planted import A_OFF, A_ON, B_OFF, B_ON, END, FILLERS, NO, YES, Planted, planted_circuit
from utils.course.cases import estimate

NEAR = 1.0  # nats; what the network says of its answer is worth 4
Pair = tuple[list[int], list[int]]


class Offer(NamedTuple):
    """A network and three circuits for it.

    Attributes:
        network: An "and" or an "or" of two inputs, of `planted_circuit`. Neither which of the two nor the circuit is
            told: ``kind`` is empty, and ``truth`` is False everywhere.
        places: Where in a prompt the two inputs stand, counted from 0.
        circuits: Edges by the names "A", "B" and "C".
    """

    network: Planted
    places: tuple[int, int]
    circuits: dict[str, list[Edge]]


def three_circuits(kind: str, seed: int) -> Offer:
    """A planted network and, in random order, its circuit, that without one input, and that with three edges more.

    Args:
        kind: "and" or "or".
        seed: Draws the network and what is offered.
    """
    network, rng = planted_circuit(kind, seed, noise=0.05), random.Random(seed)
    untold = network._replace(kind="", truth=torch.zeros_like(network.truth))
    first = network.clean[0].tolist()
    right = [edge for edge, true in zip(network.edges, network.truth.tolist(), strict=True) if true]
    heads = sorted({sender for sender, receiver in right if sender.startswith("a") and receiver.startswith("m")})
    lost = rng.choice(heads)
    small = [edge for edge in right if lost not in (edge[0], edge[1].removesuffix(".v"))]
    big = right + rng.sample([edge for edge in network.edges if edge not in right and edge[1][-1] not in "qk"], 3)
    offered = [rng.sample(circuit, len(circuit)) for circuit in (right, small, big)]
    rng.shuffle(offered)
    return Offer(untold, (first.index(A_ON), first.index(B_ON)), dict(zip("ABC", offered, strict=True)))


def pairs_of(
    offer: Offer, clean: tuple[bool, bool], corrupt: tuple[bool, bool], n: int, rng: random.Random
) -> list[Pair]:
    """Pairs of prompts for a network: the two inputs are on or off as it is said, and all else is the same in both.

    No two pairs are alike. There are at most 3,125; a ``ValueError`` tells who wants more.
    """
    width = offer.network.clean.shape[1]
    free = [i for i in range(width - 1) if i not in offer.places]
    pairs = []
    for fillers in rng.sample(list(product(FILLERS, repeat=len(free))), n):
        rows = [END] * width, [END] * width
        for row, (a, b) in zip(rows, (clean, corrupt), strict=True):
            for place, filler in zip(free, fillers, strict=True):
                row[place] = filler
            row[offer.places[0]], row[offer.places[1]] = (A_ON if a else A_OFF), (B_ON if b else B_OFF)
        pairs.append(rows)
    return pairs


def answers_to(
    network: Planted, pairs: Sequence[Pair], circuits: Sequence[Collection[Edge]], ablation: str
) -> Float[Tensor, "circuit pair"]:
    """The logit of yes less that of no on each pair's first prompt, when one circuit's edges alone are kept.

    The result is [circuit, pair]. The whole network is the circuit of all edges. To take an edge out of a circuit or of
    the network is to leave it out of the list: it then carries what ``ablation`` says.

    Args:
        network: Of an `Offer`.
        pairs: Two rows of tokens each.
        circuits: Collections of edges, each tried for itself. Other edges carry what ``ablation`` says.
        ablation: "zero"; "resample", what the edge carries on the pair's second prompt; "mean", the mean of that over
            all pairs.

    Raises:
        ValueError: If there is no such ablation.
    """
    if ablation not in ("zero", "mean", "resample"):
        raise ValueError(f"ablation must be 'zero', 'mean' or 'resample', got {ablation!r}")
    clean, corrupt = (torch.tensor([pair[i] for pair in pairs]) for i in range(2))
    replaced = sender_outputs(network.model, corrupt)
    if ablation != "resample":
        replaced = (replaced.mean(1, keepdim=True) * (ablation == "mean")).expand_as(replaced)
    kept = torch.tensor([[edge in circuit for edge in network.edges] for circuit in map(set, circuits)])
    logits = run_with_edges(network.model, clean, network.edges, kept, replaced)
    return logits[:, :, -1, YES] - logits[:, :, -1, NO]


def which_circuit_is_right(offer: Offer) -> dict[str, object]:
    """Design the trial of three circuits: A, B and C, offered for one network. One of them is right. Which?

    A circuit is right if it does what the network does, on all prompts and whatever is taken out of both, and if none
    of its edges is idle. The network says yes if both of its inputs are on, or if one of them is; which of the two is
    not told. Your design must do for both kinds of network, and for circuits in any order.

    A distance below is a mean over a test's pairs, with the half-width of its 95 % interval, in nats: the mean of
    |difference| pair by pair. It is *near* if it is below 1 with its interval, and *far* if above with its interval.

    Args:
        offer: The network (``offer.network``, all edges in ``offer.network.edges``) and the three circuits, lists of
            edges, in ``offer.circuits``.

    Returns:
        A dict with these keys:

        "tests": At least two tests, each a tuple (pairs, removed). ``pairs``: at least 12 pairs, no two alike, as
            ``pairs_of`` makes them: two rows of tokens which are the same but for what the inputs are. All pairs of a
            test have the same inputs in their first rows, and the same ones in their second. ``removed``: edges that
            are left out of the network's edges and out of the circuit on trial alike; may be empty.
        "ablation": "zero", "mean" or "resample", as in ``answers_to``.
        "distance_A", "distance_B", "distance_C": Of the distances, one for each test, between the network and the
            circuit (both without ``removed``), the one with the largest mean.
        "idlest_A", "idlest_B", "idlest_C": For each edge of the circuit, of the distances, one for each test, between
            the circuit without ``removed`` and the same without the edge as well, that with the largest mean: what the
            edge does at its best. Of these numbers the one with the smallest mean over the circuit's edges.
        "control": At least 5 random circuits, lists of edges drawn from all of the network's, each with as many edges
            as the circuit that you find right, and with one at least that none of the three has. No two are alike.
        "distance_control": Over the control circuits, each of which is one unit, the mean of their distances (largest
            of all tests, as above) and the half-width of its 95 % interval, which is next to 0 where they all do
            nothing. It is far: else your tests pass anything.
        "verdict": The name of the one circuit whose distance is near, and whose idlest edge is far. If there is not
            exactly one, the tests don't decide, and you need others.
    """
    rng, network = random.Random(0), offer.network
    on, off = True, False
    inputs = [((on, on), (off, off)), ((on, off), (off, off)), ((off, on), (off, off)), ((on, on), (on, off))]
    inputs += [((on, on), (off, on))]
    tests = [(pairs_of(offer, clean, corrupt, 12, rng), []) for clean, corrupt in inputs]

    def apart(ones: Sequence[Collection[Edge]], others: Sequence[Collection[Edge]]) -> list[tuple[float, float]]:
        """For each of the ones and the other beside it, the largest distance of all tests."""
        found = []
        for pairs, removed in tests:
            left = [set(circuit) - set(removed) for circuit in [*ones, *others]]
            answers = answers_to(network, pairs, left, "resample")
            found.append((answers[: len(ones)] - answers[len(ones) :]).abs().tolist())
        return [max(map(estimate, by_test)) for by_test in zip(*found, strict=True)]

    names, circuits = list(offer.circuits), list(offer.circuits.values())
    distances = dict(zip(names, apart(circuits, [network.edges] * 3), strict=True))
    idlest = {}
    for name, circuit in offer.circuits.items():
        idlest[name] = min(apart([circuit] * len(circuit), [set(circuit) - {edge} for edge in circuit]))
    (verdict,) = (name for name in names if sum(distances[name]) < NEAR and idlest[name][0] - idlest[name][1] > NEAR)
    control = [rng.sample(network.edges, len(offer.circuits[verdict])) for _ in range(10)]
    return {
        "tests": tests,
        "ablation": "resample",
        **{f"distance_{name}": value for name, value in distances.items()},
        **{f"idlest_{name}": value for name, value in idlest.items()},
        "control": control,
        "distance_control": estimate([mean for mean, _ in apart(control, [network.edges] * len(control))]),
        "verdict": verdict,
    }
