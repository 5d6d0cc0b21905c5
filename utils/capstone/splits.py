"""Holding out what is independent."""

import math

import torch
from jaxtyping import Bool, Int
from torch import Tensor


def split_by_template(
    templates: Int[Tensor, " n"], labels: Bool[Tensor, " n"], share: float, generator: torch.Generator
) -> Bool[Tensor, " n"]:
    """Which texts are held out, whole templates at a time.

    Of m templates  floor(share · m + 1/2)  are held out, but at least one, and at least one is left to fit to. Each
    template is held out with the same chance.

    Args:
        templates: For each text the number of its template: any integers.
        labels: For each text whether the feature is present.
        share: The share of the templates to hold out, above 0 and below 1.
        generator: Of the draw. The same seed holds out the same templates.

    Returns:
        True for texts that are held out.

    Raises:
        ValueError: If there are fewer than two templates; if ``share`` is not between 0 and 1; or if a template has
            texts of one label only, for then the template itself tells the label.
    """
    names = templates.unique()
    if len(names) < 2 or not 0 < share < 1:
        raise ValueError(f"there are {len(names)} templates, and share is {share}")
    for name in names:
        if labels[templates == name].unique().numel() < 2:
            raise ValueError(f"all texts of template {name.item()} have the same label")
    n_held_out = min(max(1, math.floor(share * len(names) + 0.5)), len(names) - 1)
    held_out = names[torch.randperm(len(names), generator=generator)[:n_held_out]]
    return torch.isin(templates, held_out)
