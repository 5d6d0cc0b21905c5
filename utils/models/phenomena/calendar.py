"""Weekdays and months: whether the model can count with them, and whether they lie on a ring.

A ring of n names in their order is a wave of one period: its share of the variance is what `ring` measures. Averaging
activations over all sums with one answer mixes neighbouring names and makes rings in any model, trained or not; here
the number of steps is fixed instead, and only the name to count from varies.

Source: Engels et al. (2024), "Not All Language Model Features Are One-Dimensionally Linear", arXiv 2405.14860.
"""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from utils.data.corpus import date_sentence
from utils.data.prompts import Prompt, date_prompts, token_id, words
from utils.data.world import DAYS, MONTHS
from utils.models.phenomena.lenses import activations, sites
from utils.models.phenomena.measuring import end_logits, share, to_batch, untrained

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

N_ORDERS = 2000
NAMES = {"day": DAYS, "month": MONTHS}


def measure(model: "HookedTransformer", seed: int = 0) -> dict[str, dict]:
    """Accuracy on date sums, and rings of names in the embedding, the unembedding and at the end of sums.

    Returns:
        "accuracy": by unit ("day", "month"), direction, and whether the sum was seen in training. "rings": by unit and
        place ("W_E", "W_U", and the sites of the residual stream), what `ring` gives, and "untrained", its share for a
        random model. "false rings": by unit and site, the `wave_share` of `averaged_by_answer`, of both
        models.
    """
    null = untrained(model, seed)
    found: dict[str, dict] = {"accuracy": accuracies(model), "rings": {}, "false rings": {}}
    for unit in NAMES:
        trained, random = places(model, unit), places(null, unit)
        found["rings"][unit] = {
            place: ring(points, seed) | {"untrained": wave_share(random[place]).mean().item()}
            for place, points in trained.items()
        }
        found["false rings"][unit] = {
            site: {
                "trained": wave_share(averaged_by_answer(trained[site])).item(),
                "untrained": wave_share(averaged_by_answer(random[site])).item(),
            }
            for site in sites(model)
            if site != "embed"
        }
    return found


def accuracies(model: "HookedTransformer") -> dict[str, dict]:
    """Share of sums whose answer is the most likely next word."""
    found = {}
    for kind, held_out in (("seen", False), ("unseen", True)):
        prompts = date_prompts(held_out=held_out)
        batch = to_batch(prompts)
        right = end_logits(model, batch).argmax(1) == batch.answers
        for unit, direction in sorted({prompt.kind for prompt in prompts}):
            of_kind = torch.tensor([prompt.kind == (unit, direction) for prompt in prompts])
            found[f"{unit} {direction}, {kind}"] = share(right[of_kind])
    return found


def places(model: "HookedTransformer", unit: str) -> dict[str, Float[Tensor, "sums n d_model"]]:
    """Points for the names of a unit, in calendar order, in several places of the model.

    "W_E" and "W_U" have one set of points. The sites of the residual stream, read at the end of "Two days after … is",
    have one for each number and direction, in which only the name to count from varies.
    """
    names = NAMES[unit]
    ids = torch.tensor([token_id(name) for name in names])
    weights = {"W_E": model.W_E[ids].detach()[None], "W_U": model.W_U[:, ids].detach().T[None]}
    batch = to_batch([_sum(unit, start, *kind) for kind in _kinds(unit) for start in range(len(names))])
    resid = activations(model, batch.tokens, sites(model))
    at_end = {site: value[batch.rows(), batch.at["END"]] for site, value in resid.items() if site != "embed"}
    return weights | {site: value.view(-1, len(names), value.shape[1]) for site, value in at_end.items()}


def averaged_by_answer(points: Float[Tensor, "sums n d_model"]) -> Float[Tensor, "1 n d_model"]:
    """Activations averaged over all sums with the same answer, among those that count forwards by up to half a round.

    An answer's mean is one over a window of the names before it, and windows of neighbours overlap: random points for
    the names already give a ring. What this shows is the averaging, not the model.

    Args:
        points: What `places` gives for a site: ordered as `_kinds`, "after" before "before".
    """
    n = points.shape[1]
    after = points[0::2][: n // 2]
    return torch.stack([part.roll(number, 0) for number, part in enumerate(after, start=1)]).mean(0, keepdim=True)


def _kinds(unit: str) -> list[tuple[int, str]]:
    return [(number, direction) for number in range(1, len(NAMES[unit])) for direction in ("after", "before")]


def _sum(unit: str, start: int, number: int, direction: str) -> Prompt:
    text, answer = date_sentence(NAMES[unit], unit, start, number, direction).rsplit(" ", 1)
    return Prompt(text, answer, None, {"END": len(words(text))})


def ring(points: Float[Tensor, "sums n d"], seed: int) -> dict[str, float]:
    """How much of a ring points in their order make, over several sets of points, and whether chance would do as well.

    Returns:
        "share": the mean `wave_share`. "chance": its mean over random orders of the names, the same order in every set;
        2 / (n - 1) in expectation. "p": how many of these orders reach the share. "in order": the mean `neighbours`
        over the sets.
    """
    n = points.shape[1]
    generator = torch.Generator().manual_seed(seed)
    orders = [torch.randperm(n, generator=generator) for _ in range(N_ORDERS)]
    gram = centred_gram(points)
    observed = wave_share(points).mean().item()
    by_chance = torch.stack([_wave_share(gram[:, order][:, :, order]).mean() for order in orders])
    return {
        "share": observed,
        "chance": by_chance.mean().item(),
        "p": (1 + (by_chance >= observed - 1e-6).sum().item()) / (1 + N_ORDERS),
        "in order": neighbours(points).mean().item(),
    }


def centred_gram(points: Float[Tensor, "sums n d"]) -> Float[Tensor, "sums n n"]:
    """Inner products of the points of each set around their mean."""
    centred = points - points.mean(1, keepdim=True)
    return centred @ centred.mT


def wave_share(points: Float[Tensor, "sums n d"]) -> Float[Tensor, " sums"]:
    """The share of the points' variance in waves of one period over their order: 1 for a regular polygon in order.

    With x̂(f) the discrete Fourier transform over the n points: ‖x̂(1)‖² · 2 / Σ_f ‖x̂(f)‖², f from 1 to n - 1.
    """
    return _wave_share(centred_gram(points))


def _wave_share(gram: Float[Tensor, "sums n n"]) -> Float[Tensor, " sums"]:
    n = gram.shape[1]
    steps = torch.arange(n)
    wave = (2 * torch.pi * (steps[:, None] - steps) / n).cos()
    return 2 / n * (gram * wave).sum((1, 2)) / gram.diagonal(dim1=1, dim2=2).sum(1)


def neighbours(points: Float[Tensor, "sums n d"]) -> Float[Tensor, " sums"]:
    """Share of names whose successor stands next to them around the plane of the first two principal components."""
    n = points.shape[1]
    centred = points - points.mean(1, keepdim=True)
    left, singular, _ = torch.linalg.svd(centred, full_matrices=False)
    plane = left[..., :2] * singular[..., None, :2]
    around = torch.atan2(plane[..., 1], plane[..., 0]).argsort(1)
    place = around.argsort(1)
    gap = (place - place.roll(-1, 1)) % n
    return ((gap == 1) | (gap == n - 1)).float().mean(1)
