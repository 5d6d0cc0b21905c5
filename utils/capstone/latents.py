"""Which latents of a dictionary match a feature, by data and by direction, beside chance."""

import torch
from jaxtyping import Bool, Float, Int
from scipy.stats import rankdata
from torch import Tensor


def match_latents(
    z: Float[Tensor, "n latent"],
    labels: Bool[Tensor, " n"],
    units: Int[Tensor, " n"],
    W_dec: Float[Tensor, "latent d"],
    direction: Float[Tensor, " d"],
    n_draws: int,
    generator: torch.Generator,
) -> dict[str, object]:
    """Match every latent with a feature in two ways, and say what the best match is worth.

    By data: the area under the ROC curve, that is, the chance that a text with the feature has a larger activation than
    one without; equal activations count half. By direction: the cosine of the latent's row of ``W_dec`` with the
    feature's direction. The best of many latents is large by chance, too, so each best match is compared with the best
    match of draws without meaning: labels shuffled *within* units for the one, random normal directions for the other.

    Args:
        z: Activations of all latents, a row for each text.
        labels: Whether each text has the feature; every unit has both.
        units: The independent unit that each text belongs to, such as its template.
        W_dec: The latents' directions, of any lengths above 0.
        direction: The feature's, such as a probe's; of any length above 0.
        n_draws: How many draws for each of the two, at least 1.
        generator: Of all draws.

    Returns:
        "auroc", "cosine": a number for each latent, in the dtype of z and of W_dec. "by_data", "by_cosine": the latent
        where it is largest (the first of equal ones). "p_data", "p_cosine": (1 + the number of draws whose largest
        value over all latents is at least that of the feature) / (1 + n_draws).

    Raises:
        ValueError: If only one label occurs in some unit, or ``n_draws`` is below 1.
    """
    if n_draws < 1 or any(labels[units == unit].unique().numel() < 2 for unit in units.unique()):
        raise ValueError("each unit needs texts with both labels, and at least one draw is to be made")
    ranks = torch.as_tensor(rankdata(z.numpy(), axis=0))  # from 1, equal ones share their mean rank
    n_present = int(labels.sum())

    def auroc(given: Bool[Tensor, " n"]) -> Float[Tensor, " latent"]:
        above = given.double() @ ranks - n_present * (n_present + 1) / 2
        return above / (n_present * (len(given) - n_present))

    def cosine(given: Float[Tensor, " d"]) -> Float[Tensor, " latent"]:
        return torch.nn.functional.normalize(W_dec, dim=1) @ (given / given.norm())

    by_data, by_cosine = auroc(labels), cosine(direction)
    reached = torch.zeros(2)
    for _ in range(n_draws):
        shuffled = labels.clone()
        for unit in units.unique():
            (places,) = (units == unit).nonzero(as_tuple=True)
            shuffled[places] = labels[places[torch.randperm(len(places), generator=generator)]]
        random = torch.randn(len(direction), generator=generator, dtype=direction.dtype)
        reached[0] += bool(auroc(shuffled).max() >= by_data.max() - 1e-9)
        reached[1] += bool(cosine(random).max() >= by_cosine.max())
    p_data, p_cosine = ((1 + reached) / (1 + n_draws)).tolist()
    return {
        "auroc": by_data.to(z.dtype), "by_data": int(by_data.argmax()), "p_data": p_data,
        "cosine": by_cosine, "by_cosine": int(by_cosine.argmax()), "p_cosine": p_cosine,
    }  # fmt: skip
