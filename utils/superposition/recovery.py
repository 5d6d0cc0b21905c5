"""Reading sparse features back from fewer dimensions, where their directions are known."""

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def relu_readout(
    x: Float[Tensor, "batch d"], dictionary: Float[Tensor, "features d"], threshold: float
) -> Float[Tensor, "batch features"]:
    """The cheapest reader: one linear layer and a ReLU, as in the encoder of a sparse autoencoder.

    The reading of feature i is ReLU(x · d_i / ‖d_i‖² - threshold). Without other features, noise and threshold,
    x = z d_i is read as z.

    Args:
        x: Activations.
        dictionary: The features' directions as rows, of any length but 0.
        threshold: What is subtracted from every reading.

    Returns:
        Readings, none below 0.
    """
    return torch.relu(x @ (dictionary / dictionary.pow(2).sum(dim=1, keepdim=True)).T - threshold)


def matching_pursuit(
    x: Float[Tensor, "batch d"], dictionary: Float[Tensor, "features d"], n_steps: int, nonnegative: bool = False
) -> Float[Tensor, "batch features"]:
    """Matching pursuit: again and again take the direction that fits best what is left, and subtract its share.

    One step, from the residual r, which begins as x: choose the i with the largest abs(r · d_i) / ‖d_i‖, add
    a = r · d_i / ‖d_i‖² to code i, and go on with r - a d_i. A direction may be chosen again.

    Args:
        x: Activations; each row is decomposed by itself.
        dictionary: Directions as rows, of any length but 0.
        n_steps: Number of steps, at least 0.
        nonnegative: Choose by the largest r · d_i / ‖d_i‖ itself, and take a = 0 where that is negative.

    Returns:
        Codes z with x ≈ z @ dictionary, of x's dtype.

    Source: Mallat and Zhang (1993), "Matching Pursuits with Time-Frequency Dictionaries".
    """
    length = dictionary.norm(dim=1)
    unit = dictionary / length[:, None]
    rows = torch.arange(len(x), device=x.device)
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype, device=x.device)
    for _ in range(n_steps):
        fits = (x - codes @ dictionary) @ unit.T
        chosen = (fits if nonnegative else fits.abs()).argmax(dim=1)
        share = fits[rows, chosen] / length[chosen]
        codes[rows, chosen] += share.clamp(min=0) if nonnegative else share
    return codes


def compressed_recovery(
    x: Float[Tensor, "batch d"], dictionary: Float[Tensor, "features d"], k: int
) -> Float[Tensor, "batch features"]:
    """Orthogonal matching pursuit: as matching pursuit, but after each choice all codes are fitted anew.

    One step: choose, among the directions not yet chosen, the i with the largest abs(r · d_i) / ‖d_i‖; set the codes of
    all chosen directions to the least-squares solution for x; the residual r is what they leave of x.

    Args:
        x: Activations; each row is decomposed by itself.
        dictionary: Directions as rows, of any length but 0.
        k: Number of steps, so that at most k codes of a row differ from 0; from 0 to the smaller of d and the number of
            features.

    Returns:
        Codes z with x ≈ z @ dictionary, of x's dtype. Where x has been explained before the last step, what is chosen
        afterwards has code 0, up to rounding.

    Raises:
        ValueError: If k is negative, or larger than d or the number of features.

    Source: Pati, Rezaiifar and Krishnaprasad (1993); Tropp and Gilbert (2007), "Signal Recovery From Random
    Measurements Via Orthogonal Matching Pursuit".
    """
    if not 0 <= k <= min(dictionary.shape):
        raise ValueError(f"k must lie between 0 and {min(dictionary.shape)}, got {k}")
    unit = dictionary / dictionary.norm(dim=1, keepdim=True)
    codes = torch.zeros(len(x), len(dictionary), dtype=x.dtype, device=x.device)
    chosen = torch.zeros(len(x), 0, dtype=torch.long, device=x.device)
    residual = x
    for _ in range(k):
        fits = (residual @ unit.T).abs().scatter(1, chosen, -1.0)  # -1: not again
        chosen = torch.cat([chosen, fits.argmax(dim=1, keepdim=True)], dim=1)
        atoms = dictionary[chosen].mT  # [batch, d, number chosen]
        solution = torch.linalg.lstsq(atoms, x[:, :, None]).solution
        residual = x - (atoms @ solution).squeeze(-1)
        codes = torch.zeros_like(codes).scatter(1, chosen, solution.squeeze(-1))
    return codes


def guaranteed_sparsity(dictionary: Float[Tensor, "features d"]) -> int:
    """The largest number of active features that orthogonal matching pursuit is certain to find, by coherence.

    With μ, the coherence, the largest absolute cosine between two directions, any x = z @ dictionary with at most
    k entries of z different from 0 is decomposed exactly in k steps if k < (1 + 1 / μ) / 2.

    Args:
        dictionary: At least two directions as rows, of any length but 0.

    Returns:
        The largest whole number k below (1 + 1 / μ) / 2 (where that is itself a whole number, rounding may decide), but
        at most the number of features; so it is that number if μ = 0.

    Source: Tropp (2004), "Greed is Good: Algorithmic Results for Sparse Approximation".
    """
    unit = dictionary / dictionary.norm(dim=1, keepdim=True)
    cosines = (unit @ unit.T).abs().fill_diagonal_(0)
    coherence = cosines.max().item()
    if coherence == 0:
        return len(dictionary)
    return min(len(dictionary), math.ceil((1 + 1 / coherence) / 2) - 1)


def support_recovered(
    codes: Float[Tensor, "batch features"], truth: Float[Tensor, "batch features"]
) -> Bool[Tensor, "batch"]:
    """Whether each row's codes point out the features that are truly on.

    They do if every feature that is on (not 0 in ``truth``) has a code of larger absolute value than every feature that
    is off, and none of the features that are on has code 0. The values themselves need not agree. So a reader is judged
    as if somebody had told it how many features are on.

    Args:
        codes: What a reader found.
        truth: What was put in. A row without active features counts as recovered.

    Returns:
        True or False for each row.
    """
    on = truth != 0
    size = codes.abs()
    weakest = size.masked_fill(~on, torch.inf).amin(dim=1)
    strongest_other = size.masked_fill(on, 0).amax(dim=1)
    return weakest > strongest_other


def dictionary_match(found: Float[Tensor, "n_found d"], truth: Float[Tensor, "n_true d"]) -> Float[Tensor, "n_true"]:
    """For each true direction the cosine with the direction of the other dictionary that is nearest to it.

    A feature that points the opposite way is another feature: it does not match.

    Args:
        found: Directions as rows, of any length but 0.
        truth: Directions as rows, of any length but 0.

    Returns:
        For each true direction its largest cosine, from -1 to 1. Several true directions may share one found one.

    Source: Sharkey, Braun and Millidge (2022), who average it, as "mean max cosine similarity".
    """
    found = found / found.norm(dim=1, keepdim=True)
    truth = truth / truth.norm(dim=1, keepdim=True)
    return (truth @ found.T).amax(dim=1)
