"""Looking at latents: where they are on, how strongly, what they write, and which feature they match.

``acts`` are one latent's activations on some documents, [doc, pos], none of them below 0; a latent is *on* where its
activation is above 0. A *place* is a document and a position in it, both counted from 0.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class Example(NamedTuple):
    """A place where a latent is on, and the window of words around it.

    Attributes:
        document, position: The place.
        start, stop: The window: positions from ``start`` up to but not including ``stop``.
        activation: At the place.
    """

    document: int
    position: int
    start: int
    stop: int
    activation: float


class LabelScores(NamedTuple):
    """How well each latent, taken as a detector, matches a label.

    Attributes:
        precision: Of the places where it is on, the share that has the label; 0 if it is on nowhere.
        recall: Of the places that have the label, the share where it is on; 0 if no place has it.
        f1: 2 · precision · recall / (precision + recall); 0 if both are 0.
    """

    precision: Float[Tensor, " latent"]
    recall: Float[Tensor, " latent"]
    f1: Float[Tensor, " latent"]


def max_activating_examples(
    acts: Float[Tensor, "doc pos"], n: int, *, before: int = 8, after: int = 4, per_document: int = 1
) -> list[Example]:
    """The places where a latent is strongest, at most a few of one document, with the words around them.

    Without the limit one document that says the same thing twenty times would fill the list, and one piece of evidence
    would look like twenty.

    Args:
        acts: The latent's activations.
        n: How many examples at most, at least 1.
        before, after: How many words of the window stand before the place, and behind it. At the ends of a document
            the window is shorter.
        per_document: How many examples of one document at most, at least 1.

    Returns:
        The examples, strongest first, each as an ``Example`` with Python's own numbers. Of equal activations the one of
        the earlier document comes first, and of one document the earlier position. Only places where the latent is on:
        there may be fewer than n, or none.

    Raises:
        ValueError: If ``n`` or ``per_document`` is smaller than 1.
    """
    if n < 1 or per_document < 1:
        raise ValueError(f"n is {n} and per_document {per_document}: both must be at least 1")
    found, taken = [], {}
    for place in acts.flatten().argsort(descending=True, stable=True).tolist():
        document, position = divmod(place, acts.shape[1])
        activation = acts[document, position].item()
        if len(found) == n or activation <= 0:
            break
        if taken.get(document, 0) < per_document:
            taken[document] = taken.get(document, 0) + 1
            start, stop = max(0, position - before), min(acts.shape[1], position + after + 1)
            found.append(Example(document, position, start, stop, activation))
    return found


def activation_levels(acts: Float[Tensor, "doc pos"], n_levels: int) -> Int[Tensor, "doc pos"]:
    """How strong each activation is among those of its latent: 0 where it is off, else its quantile, from 1 up.

    The m places where the latent is on are put in order of activation, weakest first; of equal activations the one of
    the earlier document comes first, and of one document the earlier position. The place with rank r (from 0) is of
    level  1 + floor(r · n_levels / m).  So all levels have the same number of places, to within one, and the zeros,
    which are most of all places, have a level of their own.

    Args:
        acts: The latent's activations.
        n_levels: How many levels there are above 0, at least 1.

    Returns:
        The level of each place. Where the latent is on in fewer places than there are levels, some levels are empty.

    Raises:
        ValueError: If ``n_levels`` is smaller than 1.
    """
    if n_levels < 1:
        raise ValueError(f"n_levels is {n_levels}: it must be at least 1")
    on = acts > 0
    order = acts[on].argsort(stable=True)
    ranks = torch.empty_like(order)
    ranks[order] = torch.arange(len(order))
    levels = torch.zeros_like(acts, dtype=torch.long)
    levels[on] = 1 + ranks * n_levels // max(1, len(order))
    return levels


def examples_by_quantile(
    acts: Float[Tensor, "doc pos"], n_levels: int, n: int, generator: torch.Generator
) -> list[Int[Tensor, "example 2"]]:
    """Places drawn at random from every level of activation, the zeros apart.

    Args:
        acts: The latent's activations.
        n_levels: How many levels, as ``activation_levels`` makes them.
        n: How many places of a level: all of them where it has no more.
        generator: Of the draw. Each place of a level is equally likely, and none is drawn twice; the same seed draws
            the same places.

    Returns:
        For each level, the strongest first, the places drawn: rows of (document, position), in any order. The level of
        the zeros is not among them.
    """
    levels = activation_levels(acts, n_levels)
    drawn = []
    for level in range(n_levels, 0, -1):
        places = (levels == level).nonzero()
        drawn.append(places[torch.randperm(len(places), generator=generator)[:n]])
    return drawn


def logit_effects(
    directions: Float[Tensor, "latent d"], ln_weight: Float[Tensor, " d"], W_U: Float[Tensor, "d vocab"]
) -> Float[Tensor, "latent vocab"]:
    """What a latent adds to the logits directly, for each unit of activation and of the final layer norm's divisor.

    The final layer norm takes the mean over dimensions away from what it reads, divides by a standard deviation,
    multiplies by ``ln_weight`` and adds a bias. All of this is linear but the division, and here that is left out. The
    bias is left out as well: a latent does not change it. So the direction, less its own mean over dimensions, is
    multiplied by ``ln_weight`` and by ``W_U``. From each latent's effects their mean over the vocabulary is taken
    away, since a number that is added to all logits changes no probability.

    Args:
        directions: Rows of the decoder.
        ln_weight: The final layer norm's weight; ones if it has been folded into ``W_U``.
        W_U: The unembedding.

    Returns:
        The effect on each word's logit.
    """
    centred = directions - directions.mean(dim=-1, keepdim=True)
    effects = (centred * ln_weight) @ W_U
    return effects - effects.mean(dim=-1, keepdim=True)


def latent_label_scores(
    z: Float[Tensor, "n latent"], labels: Bool[Tensor, " n"], threshold: float = 0.0
) -> LabelScores:
    """Precision, recall and F1 of every latent as a detector of a label.

    Args:
        z: Activations of all latents on n tokens.
        labels: Whether each token has the label.
        threshold: A latent says yes where its activation is above this number (not where it equals it).

    Returns:
        The three scores of each latent, from 0 to 1 and never NaN: a score whose denominator is 0 is 0.
    """
    says = (z > threshold).to(z.dtype)
    both = labels.to(z.dtype) @ says
    precision = both / says.sum(dim=0).clamp(min=1)
    recall = both / labels.sum().clamp(min=1)
    f1 = 2 * both / (says.sum(dim=0) + labels.sum()).clamp(min=1)
    return LabelScores(precision, recall, f1)
