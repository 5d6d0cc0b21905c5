"""The case of part 06c: does a dictionary hold the features that the activations are made of?"""

from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from utils.superposition.planted import same_covariance, sparse_codes, unit_directions
from utils.superposition.recovery import compressed_recovery

N, D, N_FEATURES, N_ACTIVE = 200, 20, 80, 2


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


def does_it_hold_the_features(settings: dict[str, Setting]) -> dict[str, object]:
    """Design an experiment: does a dictionary hold the features that activations are made of, or explain them anyhow?

    Each setting is (x, dictionary): activations [n, d], and directions of length 1 as rows. Some of the dictionaries
    are those of sparse features from which the activations were made. Others have nothing to do with them, or the
    activations have no sparse features at all. Any dictionary with more directions than dimensions explains a good part
    of x. So what it explains is compared with what others like it do: controls, which know no more of x than its mean
    and covariance. Not all directions have the same variance in x, and a control that does not know that is too weak:
    directions along which x varies much explain more, whether or not they are features.

    Args:
        settings: "A", "B" and "C".

    Returns:
        A dict with these keys:

        "measure": A function ``measure(x, dictionary)`` that returns a number, the larger the better the dictionary
            suits the activations.
        "control": A function ``control(x, dictionary, seed)`` that returns another dictionary, of the same shape, with
            rows of length 1; another one for another seed. No row of it is one of the given directions, or its
            opposite, or an activation, and its rows lie no nearer to the given ones than the covariance makes them.
        "n_controls": How many are drawn for each setting, with seeds 0, 1 …; from 20 to 200.
        "z_A", "z_B", "z_C": For each setting, the measure of its dictionary less the mean over controls, in units of
            the standard deviation (n - 1) over controls.
        "verdict_A", "verdict_B", "verdict_C": "holds" if z is above 8, "does not" otherwise. (Not 2 or 3: features can
            lie a little better than random directions do without being those that are on.) The check also calls your
            function, measure and control with new settings, and looks whether this rule is kept and decides rightly.
    """

    def measure(x: Tensor, dictionary: Tensor) -> float:
        rest = x - compressed_recovery(x, dictionary, 2) @ dictionary
        return -rest.pow(2).sum().item()

    def control(x: Tensor, dictionary: Tensor, seed: int) -> Tensor:
        rows = same_covariance(x - x.mean(dim=0), len(dictionary), Generator().manual_seed(seed))
        return rows / rows.norm(dim=1, keepdim=True)

    design: dict[str, object] = {"measure": measure, "control": control, "n_controls": 20}
    for name, (x, dictionary) in settings.items():
        null = torch.tensor([measure(x, control(x, dictionary, seed)) for seed in range(20)])
        z = ((measure(x, dictionary) - null.mean()) / null.std()).item()
        design |= {f"z_{name}": z, f"verdict_{name}": "holds" if z > 8 else "does not"}
    return design
