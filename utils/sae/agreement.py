"""Two dictionaries beside each other, and dictionaries of networks that have learnt nothing."""

import math
from collections.abc import Mapping, Sequence

import torch
from jaxtyping import Bool, Float
from scipy.optimize import linear_sum_assignment
from scipy.special import stdtrit
from torch import Tensor


def dictionary_agreement(
    encoder_a: Float[Tensor, "d n_a"],
    decoder_a: Float[Tensor, "n_a d"],
    encoder_b: Float[Tensor, "d n_b"],
    decoder_b: Float[Tensor, "n_b d"],
    threshold: float = 0.7,
) -> Bool[Tensor, " n_a"]:
    """Which latents of dictionary a are in dictionary b as well.

    Latents are paired one to one, so that the sum of the pairs' cosines is largest: once by their decoder directions
    (rows of W_dec) and once by their encoder directions (columns of W_enc). A latent is shared if both pairings give it
    the same partner, and both cosines with this partner are at least the threshold.

    Args:
        encoder_a, decoder_a: W_enc and W_dec of the first dictionary; no direction is 0, and they are of any lengths.
        encoder_b, decoder_b: Those of the second, which has at least as many latents.
        threshold: From -1 to 1.

    Returns:
        For each latent of a whether it is shared.

    Source: Paulo and Belrose (2025), "Sparse Autoencoders Trained on the Same Data Learn Different Features".
    """
    partners, near = [], torch.ones(len(decoder_a), dtype=torch.bool)
    for a, b in ((decoder_a, decoder_b), (encoder_a.T, encoder_b.T)):
        cosines = (a / a.norm(dim=1, keepdim=True)) @ (b / b.norm(dim=1, keepdim=True)).T
        partner = torch.as_tensor(linear_sum_assignment(cosines.detach().numpy(), maximize=True)[1])
        near &= cosines[torch.arange(len(a)), partner] >= threshold
        partners.append(partner)
    return near & (partners[0] == partners[1])


def random_model_test(
    trained: Mapping[str, Sequence[float]], random: Mapping[str, Sequence[float]], *, confidence: float = 0.95
) -> dict[str, tuple[float, float, bool]]:
    """For each metric: does it tell dictionaries of the trained network from those of networks with random weights?

    The difference of the means is given with Welch's interval: its half-width is t · sqrt(v / n + v' / n'), with v and
    v' the variances (n - 1) and t the quantile of Student's distribution with the degrees of freedom

        (v / n + v' / n')² / ((v / n)² / (n - 1) + (v' / n')² / (n' - 1)).

    As many metrics are looked at as there are, each interval has the confidence 1 - (1 - confidence) / m for m metrics
    (Bonferroni).

    Args:
        trained: By metric, a value for each dictionary of the trained network; at least two.
        random: The same metrics, with a value for each random network; at least two. Not all values of a metric are
            equal.
        confidence: That all intervals hold together, at least.

    Returns:
        By metric, in the order of ``trained``: (mean of the trained less mean of the random, half-width, whether the
        interval leaves out 0).

    Raises:
        ValueError: If the two have not the same metrics.

    Source: the question is that of Heap et al. (2025), "Sparse Autoencoders Can Interpret Randomly Initialized
    Transformers"; Welch (1947) for the interval.
    """
    if set(trained) != set(random):
        raise ValueError(f"not the same metrics: {sorted(set(trained) ^ set(random))}")
    found = {}
    for name in trained:
        ours, others = (torch.tensor(values[name], dtype=torch.double) for values in (trained, random))
        parts = [(values.var() / len(values)).item() for values in (ours, others)]
        degrees = sum(parts) ** 2 / (parts[0] ** 2 / (len(ours) - 1) + parts[1] ** 2 / (len(others) - 1))
        quantile = float(stdtrit(degrees, 1 - (1 - confidence) / len(trained) / 2))
        difference, half_width = (ours.mean() - others.mean()).item(), quantile * math.sqrt(sum(parts))
        found[name] = (difference, half_width, abs(difference) > half_width)
    return found
