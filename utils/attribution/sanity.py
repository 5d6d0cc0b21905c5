"""Sanity checks for attribution maps: destroy what the network has learnt, and see whether the maps notice."""

import math
from copy import deepcopy

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn


def map_similarity(
    first: Float[Tensor, "batch height width"],
    second: Float[Tensor, "batch height width"],
    *,
    window: int = 5,
) -> dict[str, Float[Tensor, " batch"]]:
    """How alike two attribution maps are, by three measures that need not agree.

    - "spearman": the correlation of the pixels' ranks; equal values share the mean of their ranks. 1: the same order,
      0: unrelated, -1: the opposite order.
    - "spearman_abs": the same for the absolute values, as if the sign of an attribution did not matter.
    - "ssim": structural similarity of the absolute values, each map divided by its largest (a map of zeros stays as it
      is). For each position of a window of N = window² pixels within the image,

          (2 m1 m2 + c1) (2 c12 + c2) / ((m1² + m2² + c1) (v1 + v2 + c2)),    c1 = 0.01², c2 = 0.03²,

      with the windows' means m, their variances v and their covariance c12 (divided by N - 1); the mean over all
      positions of the window.

    Args:
        first, second: Maps [batch, height, width].
        window: Side of the window of the structural similarity, odd, at least 3, at most the smaller side of the maps.

    Returns:
        Three tensors [batch], by name, without a graph. A map that is constant has no order: its rank correlations are
        NaN.

    Raises:
        ValueError: If the maps are not of one shape [batch, height, width], or the window does not fit.

    Source: Adebayo et al. (2018), "Sanity Checks for Saliency Maps", arXiv 1810.03292, section 3; Wang et al. (2004),
    "Image Quality Assessment: From Error Visibility to Structural Similarity", equation 13.
    """
    # Given: the inputs are checked.
    if first.ndim != 3 or first.shape != second.shape:
        raise ValueError(
            f"first and second must be [batch, height, width], got {tuple(first.shape)} and {tuple(second.shape)}"
        )
    if window % 2 == 0 or not 3 <= window <= min(first.shape[1:]):
        raise ValueError(f"window must be odd, from 3 to {min(first.shape[1:])}, got {window}")
    # Yours: ranks and their correlation, with and without the sign; then means, variances, covariances by windows.
    # In double precision: ranks of a large map, multiplied and added up, are too much for less.
    signed, sizes = ([change(m.detach().double()) for m in (first, second)] for change in (torch.clone, torch.abs))
    found = {}
    for name, maps in (("spearman", signed), ("spearman_abs", sizes)):
        centred = []
        for values in (m.flatten(1) for m in maps):
            ordered, order = values.sort(dim=1)
            twice = torch.searchsorted(ordered, ordered) + torch.searchsorted(ordered, ordered, right=True)
            ranks = torch.empty_like(order).scatter(1, order, twice)
            centred.append(ranks - ranks.double().mean(dim=1, keepdim=True))
        a, b = centred
        found[name] = (a * b).sum(dim=1) / (a.norm(dim=1) * b.norm(dim=1))
    largest = [m.amax(dim=(1, 2), keepdim=True) for m in sizes]
    x, y = (m / torch.where(top > 0, top, 1.0) for m, top in zip(sizes, largest, strict=True))
    parts = torch.stack([x, y, x * x, y * y, x * y], dim=1)
    mean_x, mean_y, xx, yy, xy = F.avg_pool2d(parts, window, stride=1).unbind(dim=1)
    unbiased = window**2 / (window**2 - 1)
    var_x, var_y, cov = (
        unbiased * (both - m1 * m2)
        for both, m1, m2 in ((xx, mean_x, mean_x), (yy, mean_y, mean_y), (xy, mean_x, mean_y))
    )
    likeness = (2 * mean_x * mean_y + 0.01**2) * (2 * cov + 0.03**2)
    likeness = likeness / ((mean_x**2 + mean_y**2 + 0.01**2) * (var_x + var_y + 0.03**2))
    found["ssim"] = likeness.mean(dim=(1, 2))
    return {name: values.to(first.dtype) for name, values in found.items()}


def cascading_randomization(
    model: nn.Module,
    layers: list[str],
    *,
    generator: torch.Generator,
    cascade: bool = True,
) -> list[nn.Module]:
    """Copies of a network in which more and more layers have been set back to before training.

    Copy k has the layers 0 … k of the list drawn anew (``cascade=True``), or layer k alone (``cascade=False``), and all
    others as trained. Each layer is drawn once: all copies in which it is random have the same weights there. A drawn
    layer's parameters of two or more dimensions are normal with mean 0 and variance 2 / fan_in, where fan_in is the
    number of inputs of one unit (the product of all dimensions but the first); parameters of one dimension named
    "bias" (within a block: "2.bias" and the like) are 0, all others of one dimension (the scale of a normalisation) 1.
    Buffers, such as the running mean and variance of a normalisation, stay as trained.

    Args:
        model: A trained network. It is left as it is.
        layers: Names of submodules with parameters, as in ``model.named_modules()``, in the order in which they are to
            be randomised: from the output to the input in the paper's test. None of them lies within another.
        generator: Source of the weights.
        cascade: Whether a copy keeps what the earlier copies have lost.

    Returns:
        A list with one network for each entry of ``layers``, in the mode (training or evaluation) of the original and
        with its frozen parameters frozen, none of them sharing weights with it or with each other.

    Raises:
        ValueError: If a name is given twice, or is not that of a submodule with parameters, or lies within another.

    Source: Adebayo et al. (2018), "Sanity Checks for Saliency Maps", arXiv 1810.03292, section 3; for the variance,
    He et al. (2015), "Delving Deep into Rectifiers", equation 10.
    """
    # Given: the inputs are checked.
    modules = dict(model.named_modules())
    for name in layers:
        if name not in modules or not list(modules[name].parameters()) or layers.count(name) > 1:
            raise ValueError(f"layers must name submodules with parameters, each once, got {name!r} in {layers}")
        if any(other != name and f"{other}.".startswith(f"{name}." if name else "") for other in layers):
            raise ValueError(f"layers must not lie within each other, got {layers}")
    # Yours: draw each layer once, then put the draws into copies.
    drawn = []
    for name in layers:
        state = {}
        for key, parameter in modules[name].named_parameters():
            if parameter.ndim > 1:
                noise = torch.randn(parameter.shape, generator=generator, device=generator.device)
                state[key] = noise.to(parameter) * math.sqrt(2 / parameter[0].numel())
            else:
                state[key] = torch.full_like(parameter, 0.0 if key.split(".")[-1] == "bias" else 1.0)
        drawn.append((name, state))
    copies = []
    for k in range(len(layers)):
        copy = deepcopy(model)
        for name, state in drawn[: k + 1] if cascade else drawn[k : k + 1]:
            copy.get_submodule(name).load_state_dict(state, strict=False)
        copies.append(copy)
    return copies


def label_randomization(labels: Int[Tensor, " n"], *, generator: torch.Generator) -> Int[Tensor, " n"]:
    """Give the training examples each other's labels, in random order.

    Every label occurs as often as before; which example has it says nothing any more.

    Args:
        labels: One class for each example [n].
        generator: Source of the order.

    Returns:
        The same labels in another order [n]; ``labels`` itself is left as it is.

    Raises:
        ValueError: If ``labels`` does not have exactly one dimension.

    Source: Adebayo et al. (2018), "Sanity Checks for Saliency Maps", arXiv 1810.03292, section 4.
    """
    if labels.ndim != 1:
        raise ValueError(f"labels must be [n], got {tuple(labels.shape)}")
    order = torch.randperm(len(labels), generator=generator, device=generator.device)
    return labels[order.to(labels.device)]
