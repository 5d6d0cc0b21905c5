"""The case of part 09a: which of its promises does a decomposition break?"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

N, N_FEATURES, D_OUT, N_SPARE = 300, 12, 8, 4
KINDS = ("unfaithful", "wasteful", "hidden", "none")


class Planted(NamedTuple):
    """What the learner is given: inputs, a network ReLU(x W), components of W, and each one's importance."""

    x: Float[Tensor, "n feature"]
    W: Float[Tensor, "feature d_out"]
    V: Float[Tensor, "feature C"]
    U: Float[Tensor, "C d_out"]
    g: Float[Tensor, "n C"]


def planted(kind: str, seed: int) -> Planted:
    """A network that writes each feature along a direction of its own, and a decomposition of it.

    Args:
        kind: "sound"; "unfaithful": some components write what others should, or are missing (by the seed);
            "wasteful": some features have two components that are needed together, halves or sum and difference;
            "hidden": some needed components are called unneeded, or two that cancel each other are; "many": sound, with
            many spare components and with more features on than usual.
        seed: Of everything random; an even and an odd one give the two forms of a fault.
    """
    generator = Generator().manual_seed(seed)
    second = bool(seed % 2)

    def between(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    often = between(0.08, 0.2) + (0.15 if kind == "many" else 0.0)
    on = torch.rand(N, N_FEATURES, generator=generator) < often
    on[torch.arange(N), torch.randint(N_FEATURES, (N,), generator=generator)] = True
    x = on * between(0.3, 3.0) * between(0.5, 1.5, N, N_FEATURES)
    W = torch.randn(N_FEATURES, D_OUT, generator=generator)
    noise = between(0.002, 0.01) * torch.randn(N_FEATURES, D_OUT, generator=generator)
    V, U = torch.eye(N_FEATURES), W + noise
    lowest = between(0.85, 0.95)
    g = on * (lowest + (1 - lowest) * torch.rand(N, N_FEATURES, generator=generator))
    some = torch.randperm(N_FEATURES, generator=generator)[:4]  # the features that a fault touches
    if kind == "unfaithful":
        U[some] = 0.0 * U[some] if second else U[some.roll(1)]
        g[:, some] *= 0.0 if second else 1.0
    elif kind == "wasteful":
        V, U, g = halved(V, U, g, some) if second else mixed(V, U, g, some)
    elif kind == "hidden" and not second:
        g[:, some] *= between(0.0, 0.3)
    n_spare = 30 if kind == "many" else int(torch.randint(3, 2 * N_SPARE, (), generator=generator))
    spare_V = torch.randn(N_FEATURES, n_spare, generator=generator) / N_FEATURES**0.5
    spare_U = 0.001 * (N_SPARE / n_spare) ** 0.5 * torch.randn(n_spare, D_OUT, generator=generator)  # many do no more
    if kind == "hidden" and second:
        spare_V = torch.cat([spare_V, torch.randn(N_FEATURES, 1, generator=generator).expand(-1, 2)], dim=1)
        pair = torch.randn(1, D_OUT, generator=generator)
        spare_U = torch.cat([spare_U, pair, -pair])
    V, U = torch.cat([V, spare_V], dim=1), torch.cat([U, spare_U])
    g = torch.cat([g, torch.zeros(N, V.shape[1] - g.shape[1])], dim=1)
    scale = between(0.5, 2.0, V.shape[1])  # how a component's length is shared by what it reads and what it writes
    order = torch.randperm(V.shape[1], generator=generator)
    return Planted(x, W, (V * scale)[:, order], (U / scale[:, None])[order], g[:, order])


def halved(V: Tensor, U: Tensor, g: Tensor, some: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Each of some components twice, with half of what it writes."""
    U = U.clone()
    U[some] *= 0.5
    return torch.cat([V, V[:, some]], dim=1), torch.cat([U, U[some]]), torch.cat([g, g[:, some]], dim=1)


def mixed(V: Tensor, U: Tensor, g: Tensor, some: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Pairs of some components replaced by sum and difference; needed if either was."""
    V, U, g = V.clone(), U.clone(), g.clone()
    a, b = some.chunk(2)
    V[:, a], V[:, b] = (V[:, a] + V[:, b]) / 2**0.5, (V[:, a] - V[:, b]) / 2**0.5
    U[a], U[b] = (U[a] + U[b]) / 2**0.5, (U[a] - U[b]) / 2**0.5
    g[:, a] = g[:, b] = torch.maximum(g[:, a], g[:, b])
    return V, U, g


def on_the_table(seed: int) -> dict[str, Planted]:
    """Six decompositions, A to F, in an order of the seed: the faults in one form or both, and one without a fault."""
    forms = (("unfaithful", seed % 2), ("wasteful", 0), ("wasteful", 1), ("hidden", 0), ("hidden", 1), ("many", 0))
    order = torch.randperm(6, generator=Generator().manual_seed(seed)).tolist()
    return {
        name: planted(forms[i][0], 10_000 + 20 * seed + 2 * i + forms[i][1])
        for name, i in zip("ABCDEF", order, strict=True)
    }


def which_promise_is_broken(suspects: dict[str, Planted], sound: list[Planted]) -> dict[str, object]:
    """Design an examination of decompositions: which of three promises does each break, if any?

    Six decompositions lie on the table, A to F, each of a network ReLU(x W) of its own. We know the networks: each
    input feature is a mechanism. The faults: "unfaithful" (the components don't add up to W), "wasteful" (inputs need
    more components than they have features that are on), "hidden" (the importances call something unneeded, and it is
    not: the output depends on which masks the unneeded get). A decomposition has one of them or none. Each comes in
    two forms. A measure of a fault has to stay put where a decomposition has another one. And it needs a control:
    sound decompositions, whose weights are off by up to one per cent, whose importances of needed components lie
    between 0.85 and 1, and which have spare components that do next to nothing. Inputs are larger in some networks
    than in others; that is no fault.

    A decomposition is a tuple (x, W, V, U, g): inputs [n, feature], 0 where a feature is off and positive where it is
    on; weights [feature, d_out]; what the components read [feature, C] and write [C, d_out]; importances [n, C].

    Args:
        suspects: "A" to "F".
        sound: Twenty sound decompositions, each of a network of its own.

    Returns:
        A dict with these keys:

        "unfaithful", "wasteful", "hidden": For each fault a function ``measure(decomposition)`` that returns a number,
            the larger the more of the fault. It is a function of the decomposition alone: random masks come from a
            generator that is seeded inside.
        "sound_unfaithful", "sound_wasteful", "sound_hidden": For each fault (low, high), the smallest and the largest
            value of its measure over the sound decompositions.
        "A", "B", "C", "D", "E", "F": For each suspect the verdict. A fault stands out if the measure's value is above
            high + (high - low). The verdict is the fault that stands out, or "none" if none of the three does. The
            check also runs your measures on new decompositions of each kind, and asks that exactly the right one
            stands out.
    """

    def unfaithful(given: Planted) -> float:
        _, W, V, U, _ = given
        return ((V @ U - W).square().sum() / W.square().sum()).item()

    def wasteful(given: Planted) -> float:
        return (given[4].sum() / (given[0] > 0).sum()).item()

    def hidden(given: Planted) -> float:
        x, _, V, U, g = given
        own = torch.relu(x @ V @ U)
        mask = g + (1 - g) * torch.rand(g.shape, generator=torch.Generator().manual_seed(0))
        return ((torch.relu((x @ V * mask) @ U) - own).square().sum() / own.square().sum()).item()

    measures = {"unfaithful": unfaithful, "wasteful": wasteful, "hidden": hidden}
    design: dict[str, object] = dict(measures)
    for name, measure in measures.items():
        values = [measure(given) for given in sound]
        design[f"sound_{name}"] = (min(values), max(values))
    for suspect, given in suspects.items():
        design[suspect] = "none"
        for name, measure in measures.items():
            low, high = design[f"sound_{name}"]
            if measure(given) > high + (high - low):
                design[suspect] = name
    return design
