"""The case of part 09b: which flaw has a decomposition, if any?"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

N, D_IN, D_OUT, N_FEATURES, N_SPARE = 400, 20, 8, 14, 5


class Suspect(NamedTuple):
    """What the learner is given of a decomposition of one matrix.

    Attributes:
        x: What comes into the matrix.
        W: The matrix; the network's output is x @ W.
        V: What the components read.
        U: What they write.
        g: Their causal importance for each row of x.
    """

    x: Float[Tensor, "n d_in"]
    W: Float[Tensor, "d_in d_out"]
    V: Float[Tensor, "d_in C"]
    U: Float[Tensor, "C d_out"]
    g: Float[Tensor, "n C"]


def suspect(kind: str, seed: int) -> Suspect:
    """A matrix that carries 14 features, and a decomposition of it that is sound or has a flaw.

    Args:
        kind: "sound"; "split": two features have two components each, which share the weight; "shared": two features'
            components lack something that another feature's component does for them; "hidden": two components undo each
            other, and both are called unneeded.
        seed: Of everything random.
    """
    generator = Generator().manual_seed(seed)

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(shape, generator=generator)

    read = torch.linalg.qr(torch.randn(D_IN, D_IN, generator=generator)).Q[:, :N_FEATURES]
    write = torch.nn.functional.normalize(torch.randn(N_FEATURES, D_OUT, generator=generator), dim=1)
    alike = write[0] + 0.4 * torch.nn.functional.normalize(torch.randn(D_OUT, generator=generator), dim=0)
    write[1] = alike / alike.norm()  # two features that write nearly the same
    write = write * uniform(0.8, 1.2, N_FEATURES, 1)
    on = uniform(0, 1, N, N_FEATURES) < 0.12
    for first, second in ((2, 3), (4, 5)):  # features that often come together
        on[:, second] |= on[:, first] & (uniform(0, 1, N) < 0.7)
    x = (on * uniform(0.3, 1, N, N_FEATURES)) @ read.T
    V, U, needed = read.clone(), write.clone(), on.clone()
    if kind == "split":
        share = uniform(0.35, 0.65, 2, 1)
        U[6:8] *= share
        V, U = torch.cat([V, read[:, 6:8]], dim=1), torch.cat([U, write[6:8] * (1 - share)])
        needed = torch.cat([needed, on[:, 6:8]], dim=1)
    elif kind == "shared":
        for other, own in ((8, 10), (9, 11)):
            part = uniform(0.5, 0.9)
            V[:, own] += part * read[:, other]
            U[other] -= part * write[own]
            needed[:, own] |= on[:, other]
    elif kind == "hidden":
        directions = read @ torch.nn.functional.normalize(torch.randn(N_FEATURES, 1, generator=generator), dim=0)
        effect = 1.2 * torch.nn.functional.normalize(torch.randn(1, D_OUT, generator=generator), dim=1)
        V, U = torch.cat([V, directions, directions], dim=1), torch.cat([U, effect, -effect])
        needed = torch.cat([needed, torch.zeros(N, 2, dtype=torch.bool)], dim=1)
    n_spare = int(torch.randint(2, N_SPARE + 1, (), generator=generator))  # components that nothing needs, nearly 0
    V = torch.cat([V, 0.03 * torch.randn(D_IN, n_spare, generator=generator)], dim=1)
    U = torch.cat([U, 0.03 * torch.randn(n_spare, D_OUT, generator=generator)])
    needed = torch.cat([needed, torch.zeros(N, n_spare, dtype=torch.bool)], dim=1)
    V, U = (part + uniform(0.003, 0.01) * torch.randn(part.shape, generator=generator) for part in (V, U))
    g = needed * uniform(0.9, 1.0, *needed.shape)
    order = torch.randperm(len(U), generator=generator)
    return Suspect(x, read @ write, V[:, order], U[order], g[:, order])


def under_suspicion(seed: int) -> dict[str, Suspect]:
    """Four decompositions, A to D, in an order of the seed: one with each of three flaws, and one that is sound."""
    kinds = ("split", "shared", "hidden", "sound")
    order = torch.randperm(4, generator=Generator().manual_seed(seed)).tolist()
    return {name: suspect(kinds[i], 1000 + 4 * seed + i) for name, i in zip("ABCD", order, strict=True)}


def which_flaw(suspects: dict[str, Suspect], sound: list[Suspect]) -> dict[str, object]:
    """Design an examination of decompositions that needs no truth: which of three flaws has each, if any?

    The flaws: "split" (the weight of a feature is divided between two components that do the same), "shared" (a
    feature's own component lacks something, which the component of another feature does for it, so that the feature
    needs both), "hidden" (components that are called unneeded matter: set to magnitudes from 0 to 1, they change the
    output). A decomposition has one of them or none. A measure of a flaw has to stay put where a decomposition has
    another one. And it needs a control: sound decompositions, in which some features write nearly the same, some
    features often come together, and some components are nearly 0.

    A decomposition is a tuple (x, W, V, U, g): inputs [n, d_in]; the matrix [d_in, d_out], of a network whose output is
    x @ W; what the components read [d_in, C] and write [C, d_out]; their causal importance [n, C] for each input, from
    0 to 1, 0 where a component is called unneeded.

    Args:
        suspects: "A", "B", "C" and "D".
        sound: Twenty sound decompositions, of other matrices.

    Returns:
        A dict with these keys:

        "split", "shared", "hidden": For each flaw a function ``measure(decomposition)`` that returns a number, the
            larger the more of the flaw. It is a function of the decomposition alone; what it draws, it draws with a
            generator of its own, seeded.
        "sound_split", "sound_shared", "sound_hidden": For each flaw (low, high), the smallest and the largest value of
            its measure over the sound decompositions.
        "A", "B", "C", "D": For each suspect the verdict. A flaw stands out if the measure's value is above
            high + (high - low). The verdict is the flaw that stands out, or "none" if none of the three does. The
            check also runs your measures on new decompositions of each kind, and asks that exactly the right one
            stands out.
    """

    def split(given: Suspect) -> float:
        _, _, V, U, g = given
        live = (g > 0.1).any(dim=0)
        matrices = torch.nn.functional.normalize(torch.einsum("ic,co->cio", V, U)[live].flatten(1), dim=1)
        return ((matrices @ matrices.T).fill_diagonal_(0) > 0.9).float().sum().item()

    def shared(given: Suspect) -> float:
        on = (given[4] > 0.1).float()
        also = on.T @ on / on.sum(dim=0).clamp(min=1)[:, None]  # [j, k]: how often k is needed where j is
        return ((also > 0.95) & (also.T < 0.8)).float().sum().item()

    def hidden(given: Suspect) -> float:
        x, W, V, U, g = given
        masks = g + (1 - g) * torch.rand(g.shape, generator=torch.Generator().manual_seed(0))
        return ((x @ V * masks @ U - x @ V @ U).norm() / (x @ W).norm()).item()

    measures = {"split": split, "shared": shared, "hidden": hidden}
    design: dict[str, object] = dict(measures)
    for name, measure in measures.items():
        values = [measure(given) for given in sound]
        design[f"sound_{name}"] = (min(values), max(values))
    for name, given in suspects.items():
        verdict = "none"
        for flaw, measure in measures.items():
            low, high = design[f"sound_{flaw}"]
            if measure(given) > high + (high - low):
                verdict = flaw
        design[name] = verdict
    return design
