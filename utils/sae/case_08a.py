"""The case of part 08a: what is wrong with a dictionary?"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from utils.sae.metrics import dead_fraction
from utils.superposition.planted import sparse_codes, unit_directions

N, D, N_FEATURES, N_ACTIVE, N_LOST = 400, 32, 40, 2, 12


class Dictionary(NamedTuple):
    """What the learner is given: activations, and the weights of a sparse autoencoder for them."""

    x: Float[Tensor, "n d"]
    W_enc: Float[Tensor, "d d_sae"]
    b_enc: Float[Tensor, " d_sae"]
    W_dec: Float[Tensor, "d_sae d"]
    b_dec: Float[Tensor, " d"]


def dictionary(kind: str, seed: int) -> Dictionary:
    """Planted features, and a dictionary for them that is sound or has a fault.

    Args:
        kind: "sound"; "shrunk": every latent gives 0.7 of what it should; "twice": some latents are near copies of
            others, with which they share a feature's value, in place of features of their own; "dead": some latents are
            never on; "narrow": as many latents are missing.
        seed: Of everything random.
    """
    generator = Generator().manual_seed(seed)
    truth = unit_directions(N_FEATURES, D, generator)
    n_near, n_rare = (int(torch.randint(0, 3, (), generator=generator)) for _ in range(2))
    near = truth[15 : 15 + n_near] + 0.8 * unit_directions(n_near, D, generator)  # features that are like others
    truth[18 : 18 + n_near] = near / near.norm(dim=1, keepdim=True)
    centre = 3 * torch.randn(D, generator=generator)
    x = (
        sparse_codes(N, N_FEATURES, N_ACTIVE, generator) @ truth
        + centre
        + 0.02 * torch.randn(N, D, generator=generator)
    )
    directions = truth + 0.1 * unit_directions(N_FEATURES, D, generator)
    directions = directions / directions.norm(dim=1, keepdim=True)
    n_lost = int(torch.randint(N_LOST - 3, N_LOST + 4, (), generator=generator)) if kind != "sound" else 0
    strength, threshold = torch.ones(N_FEATURES), torch.full((N_FEATURES,), 0.3)
    threshold[21 : 21 + n_rare] = 9.0
    if kind == "twice":
        copies = directions[-n_lost:] + 0.15 * unit_directions(n_lost, D, generator)
        directions[:n_lost] = copies / copies.norm(dim=1, keepdim=True)
        strength[:n_lost] = strength[-n_lost:] = 0.5
    elif kind == "dead":
        directions[:n_lost] = unit_directions(n_lost, D, generator)
        threshold[:n_lost] = 9.0
    elif kind == "narrow":
        directions, strength, threshold = directions[n_lost:], strength[n_lost:], threshold[n_lost:]
    # A latent reads its direction above a threshold, and is stretched so that on average it gives what is there.
    read = torch.relu((x - centre) @ directions.T - threshold)
    strength = strength * stretch(x - centre, read, directions, strength)
    strength = strength * (0.95 + 0.1 * torch.rand((), generator=generator)) * (0.7 if kind == "shrunk" else 1.0)
    W_enc = directions.T * strength
    order = torch.randperm(len(directions), generator=generator)
    W_enc, W_dec = W_enc[:, order], directions[order]
    b_enc = -(threshold * strength)[order] - centre @ W_enc
    return Dictionary(x, W_enc, b_enc, W_dec, centre)


def stretch(x: Tensor, read: Tensor, directions: Tensor, strength: Tensor) -> float:
    """By how much the reconstruction is to be multiplied to come nearest to x."""
    x_hat = (read * strength) @ directions
    return ((x * x_hat).sum() / x_hat.square().sum()).item()


def on_the_table(seed: int) -> dict[str, Dictionary]:
    """Four dictionaries, A to D, in an order of the seed: one with each of three faults, and one that is too narrow."""
    kinds = ("shrunk", "twice", "dead", "narrow")
    order = torch.randperm(4, generator=Generator().manual_seed(seed)).tolist()
    return {name: dictionary(kinds[i], 1000 + 4 * seed + i) for name, i in zip("ABCD", order, strict=True)}


def what_is_wrong(suspects: dict[str, Dictionary], sound: list[Dictionary]) -> dict[str, object]:
    """Design an examination of dictionaries: which of three faults has each, if any?

    Four dictionaries lie on the table, A to D, each with activations that it was trained for. They explain less of the
    variance than they should. The faults: "shrunk" (latents that are on give too little), "twice" (several latents for
    one feature, in nearly the same direction), "dead" (latents that are never on). A dictionary has one of them or
    none; in the latter case it may still be too small, which is none of the three. A measure of a fault has to stay put
    where a dictionary has another one. And it needs a control: sound dictionaries, which have features that lie near
    each other (cosines up to 0.85) and latents that are never on (up to two), by chance.

    A dictionary is a tuple (x, W_enc, b_enc, W_dec, b_dec): activations [n, d]; weights [d, d_sae] and [d_sae] of the
    encoder, z = ReLU(x W_enc + b_enc); weights [d_sae, d], rows of length 1, and [d] of the decoder.

    Args:
        suspects: "A", "B", "C" and "D".
        sound: Twenty sound dictionaries, each with activations of its own.

    Returns:
        A dict with these keys:

        "shrunk", "twice", "dead": For each fault a function ``measure(dictionary)`` that returns a number, the larger
            the more of the fault. It is a function of the dictionary alone.
        "sound_shrunk", "sound_twice", "sound_dead": For each fault (low, high), the smallest and the largest value of
            its measure over the sound dictionaries.
        "A", "B", "C", "D": For each suspect the verdict. A fault stands out if the measure's value is above
            high + (high - low). The verdict is the fault that stands out, or "none" if none of the three does. The
            check also runs your measures on new dictionaries of each kind, and asks that exactly the right one stands
            out.
    """

    def latents(given: Dictionary) -> Tensor:
        return torch.relu(given[0] @ given[1] + given[2])

    def shrunk(given: Dictionary) -> float:
        part = latents(given) @ given[3]
        return ((given[0] - given[4]) * part).sum().item() / part.square().sum().item()

    def twice(given: Dictionary) -> float:
        alive = given[3][(latents(given) > 0).any(dim=0)]
        cosines = (alive @ alive.T).fill_diagonal_(0)
        return (cosines > 0.9).float().sum().item()

    measures = {"shrunk": shrunk, "twice": twice, "dead": lambda given: dead_fraction(latents(given))}
    design: dict[str, object] = dict(measures)
    for name, measure in measures.items():
        values = [measure(given) for given in sound]
        design[f"sound_{name}"] = (min(values), max(values))
    for suspect, given in suspects.items():
        verdict = "none"
        for name, measure in measures.items():
            low, high = design[f"sound_{name}"]
            if measure(given) > high + (high - low):
                verdict = name
        design[suspect] = verdict
    return design
