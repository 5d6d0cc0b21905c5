"""Adding a direction, more and more of it."""

from collections.abc import Callable

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.patching.hooks import run_with_hooks


def steer(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    name: str,
    direction: Float[Tensor, "d_model"],
    doses: Float[Tensor, "dose"],
    metric: Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, "batch"]],
    *,
    positions: Int[Tensor, "batch"] | None = None,
) -> Float[Tensor, "dose batch"]:
    """The dose-response curve of a direction that is added to an activation.

    Args:
        model: Any module.
        tokens: What it reads.
        name: Hook point [batch, pos, d_model].
        direction: What a dose of one adds; not normalised.
        doses: How much of it to add, one run each; negative ones take it away.
        metric: From logits to a number for each prompt.
        positions: The one position of each prompt where it is added, counted from 0; all of them if None.

    Returns:
        The metric for each dose and each prompt; without a graph, so that no run is kept in memory.

    Raises:
        ValueError: If the direction has not the activation's width, or a position is outside the prompts (negative ones
            are).

    Source: Turner et al. (2023), "Activation Addition: Steering Language Models Without Optimization".
    """
    # Given: the positions are checked.
    if positions is not None and bool(((positions < 0) | (positions >= tokens.shape[1])).any()):
        raise ValueError(f"positions must be from 0 to {tokens.shape[1] - 1}, got {positions.tolist()}")
    # Yours: a run for each dose.
    rows, results = torch.arange(len(tokens), device=tokens.device), []

    def adding(dose: Tensor) -> Callable[[Tensor], Tensor]:
        def add(activation: Tensor) -> Tensor:
            if activation.shape[-1:] != direction.shape:
                raise ValueError(f"direction has shape {tuple(direction.shape)}, {name!r} {tuple(activation.shape)}")
            if positions is None:
                return activation + dose * direction
            return activation.index_put((rows, positions), activation[rows, positions] + dose * direction)

        return add

    with torch.no_grad():
        for dose in doses:
            results.append(metric(run_with_hooks(model, tokens, [(name, adding(dose))])))
    return torch.stack(results)
