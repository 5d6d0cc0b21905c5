"""The four losses of stochastic parameter decomposition."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from utils.spd.components import Forward, RankOneComponents, masked_forward

Distance = Callable[[Tensor, Tensor], Tensor]  # (output with components, the network's own) -> one number


def mean_squared_error(output: Tensor, wanted: Tensor) -> Float[Tensor, ""]:
    """The mean over everything of the squared difference."""
    return (output - wanted).square().mean()


def faithfulness_loss(
    weights: Mapping[str, Float[Tensor, "d_in d_out"]], components: Mapping[str, RankOneComponents]
) -> Float[Tensor, ""]:
    """The squared error with which the components add up to the matrices, as a mean over all entries of all matrices.

    Args:
        weights: The matrices by name.
        components: Components for each.

    Returns:
        One number; its gradient reaches the components.

    Source: Bushnaq, Braun and Sharkey (2025). The lecture's form is the sum for one matrix, ‖W − ΣC‖²_F.
    """
    errors = [(components[name].weight() - W).square().sum() for name, W in weights.items()]
    return torch.stack(errors).sum() / sum(W.numel() for W in weights.values())


def minimality_loss(importances: Mapping[str, Float[Tensor, "*batch C"]], p: float) -> Float[Tensor, ""]:
    """The price of needing components: Σ g^p over all components of all matrices, as a mean over the batch.

    Args:
        importances: The upper-leaky causal importances by name of matrix, none below 0.
        p: The exponent.

    Returns:
        One number; its gradient reaches the importances. Where one is 0 the gradient is finite: 1e-12 is added to g
        before it is raised to the p.

    Source: Bushnaq, Braun and Sharkey (2025).
    """
    return sum((g + 1e-12).pow(p).sum(dim=-1).mean() for g in importances.values())


def sample_masks(
    importances: Mapping[str, Float[Tensor, "*batch C"]], generator: torch.Generator | None = None
) -> dict[str, Float[Tensor, "*batch C"]]:
    """Masks m = g + (1 − g) r with r uniform from 0 to 1: anywhere from a component's importance to 1.

    Args:
        importances: The lower-leaky causal importances by name of matrix.
        generator: Source of r, drawn matrix after matrix, in the order of ``importances``, by ``torch.rand(g.shape,
            generator=generator)``; None for torch's global one.

    Returns:
        Masks by name of matrix; gradients reach the importances.

    Source: Bushnaq, Braun and Sharkey (2025).
    """
    return {
        name: g + (1 - g) * torch.rand(g.shape, generator=generator, dtype=g.dtype) for name, g in importances.items()
    }


def stochastic_reconstruction_loss(
    forward: Forward,
    weights: Mapping[str, Float[Tensor, "d_in d_out"]],
    components: Mapping[str, RankOneComponents],
    x: Tensor,
    wanted: Tensor,
    importances: Mapping[str, Float[Tensor, "*batch C"]],
    distance: Distance = mean_squared_error,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """How far the output moves if all matrices are put together from masked components at once.

    Args:
        forward: The network, as for ``inputs_of_matrices``.
        weights: The matrices by name.
        components: Components for each.
        x: The network's input.
        wanted: The network's own output for x.
        importances: The lower-leaky causal importances by name of matrix.
        distance: ``distance(output, wanted)`` is one number.
        generator: For ``sample_masks``, which is called once.

    Returns:
        The distance. Its gradient reaches components and importances.

    Source: Bushnaq, Braun and Sharkey (2025), with S = 1 sample of the masks.
    """
    return distance(masked_forward(forward, weights, components, x, sample_masks(importances, generator)), wanted)


def layerwise_reconstruction_loss(
    forward: Forward,
    weights: Mapping[str, Float[Tensor, "d_in d_out"]],
    components: Mapping[str, RankOneComponents],
    x: Tensor,
    wanted: Tensor,
    importances: Mapping[str, Float[Tensor, "*batch C"]],
    distance: Distance = mean_squared_error,
    generator: torch.Generator | None = None,
) -> Float[Tensor, ""]:
    """How far the output moves if one matrix at a time is put together from masked components: a mean over matrices.

    All other matrices multiply by the network's own weights.

    Args:
        forward: The network, as for ``inputs_of_matrices``.
        weights: The matrices by name.
        components: Components for each.
        x: The network's input.
        wanted: The network's own output for x.
        importances: The lower-leaky causal importances by name of matrix.
        distance: ``distance(output, wanted)`` is one number.
        generator: For ``sample_masks``, which is called once, for all matrices.

    Returns:
        The mean of the distances, one for each matrix. Its gradient reaches components and importances.

    Source: Bushnaq, Braun and Sharkey (2025), with S = 1 sample of the masks.
    """
    masks = sample_masks(importances, generator)
    alone = [
        distance(masked_forward(forward, weights, components, x, {name: mask}), wanted) for name, mask in masks.items()
    ]
    return torch.stack(alone).mean()
