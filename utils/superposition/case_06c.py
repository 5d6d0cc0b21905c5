"""The case of part 06c: does a dictionary hold the features that the activations are made of?"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from utils.superposition.planted import same_covariance, sparse_codes, unit_directions
from utils.superposition.recovery import compressed_recovery

N, D, N_FEATURES, N_ACTIVE = 150, 16, 64, 2


class Setting(NamedTuple):
    """What the learner is given: activations, and a dictionary that somebody claims to be that of their features."""

    x: Float[Tensor, "n d"]
    dictionary: Float[Tensor, "features d"]


def setting(kind: str, seed: int) -> Setting:
    """Activations and a dictionary of unit rows, with a little noise on the activations.

    Args:
        kind: "true": sparse features, and their dictionary. "covariance": sparse features, and a dictionary drawn with
            the activations' covariance. "dense": activations without sparse features, of the same covariance, and the
            dictionary of the features. "turned": sparse features, and their dictionary, turned.
        seed: Of everything random.
    """
    generator = Generator().manual_seed(seed)
    stretch = torch.linspace(1, 0.1, D) * torch.linalg.qr(torch.randn(D, D, generator=generator))[0]
    truth = unit_directions(N_FEATURES, D, generator) @ stretch.T
    truth = truth / truth.norm(dim=1, keepdim=True)
    x = sparse_codes(N, N_FEATURES, N_ACTIVE, generator) @ truth + 0.02 * torch.randn(N, D, generator=generator)
    dictionary = truth[torch.randperm(N_FEATURES, generator=generator)]
    if kind == "covariance":
        dictionary = same_covariance(x, N_FEATURES, generator) - x.mean(dim=0)
    elif kind == "dense":
        x = same_covariance(x, N, generator)
    elif kind == "turned":
        dictionary = dictionary @ torch.linalg.qr(torch.randn(D, D, generator=generator))[0]
    return Setting(x, dictionary / dictionary.norm(dim=1, keepdim=True))
