"""Putting a feature in: a direction is set to a value, and the behaviour follows, or does not."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.patching.hooks import run_with_hooks


def steer_with_probe(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    name: str,
    directions: Float[Tensor, "direction d"],
    centre: Float[Tensor, "d"],
    doses: Float[Tensor, "dose"],
    metric: Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, "batch"]],
    positions: Int[Tensor, "batch"],
    *,
    hooks: Sequence[tuple[str, Callable[[Tensor], Tensor]]] = (),
) -> Float[Tensor, "direction dose batch"]:
    """Set where activations lie along a direction, and measure what the model then does; the same for controls.

    Let L be the length of the first direction, and u one of the directions, of whatever length, made a unit vector.
    Then the activation x at each prompt's position becomes

        x - ((x - centre) · u) u + dose · L / 2 · u.

    If the first direction is the difference of two classes' means, and ``centre`` lies half-way between them, dose 1
    puts every activation where the first class is on average, and dose -1 where the second is.

    Args:
        model: Any module.
        tokens: What it reads.
        name: Hook point [batch, pos, d].
        directions: The probe's in row 0, controls in the others; none of length 0.
        centre: Where dose 0 lies, for all of them.
        doses: One run each, for each direction.
        metric: From the model's output to a number for each prompt.
        positions: The one position of each prompt where it is done, counted from 0; everything else stays.
        hooks: Further changes to the same runs, as in ``run_with_hooks``; at ``name`` they act first.

    Returns:
        The metric for each direction, dose and prompt; without a graph.

    Raises:
        ValueError: If a position is outside the prompts (negative ones are), or a direction has length 0.

    Source: Turner et al. (2023), "Activation Addition"; they add a multiple of a direction, here the place along it is
    set.
    """
    # Given: positions and directions are checked.
    if bool(((positions < 0) | (positions >= tokens.shape[1])).any()):
        raise ValueError(f"positions must be from 0 to {tokens.shape[1] - 1}, got {positions.tolist()}")
    if bool((directions.norm(dim=1) == 0).any()):
        raise ValueError("a direction has length 0")
    # Yours: a run for each direction and dose.
    rows = torch.arange(len(tokens), device=tokens.device)
    half = directions[0].norm() / 2

    def setting(unit: Tensor, dose: Tensor) -> Callable[[Tensor], Tensor]:
        def place(activation: Tensor) -> Tensor:
            x = activation[rows, positions]
            along = (x - centre) @ unit
            return activation.index_put((rows, positions), x + (dose * half - along)[:, None] * unit)

        return place

    with torch.no_grad():
        return torch.stack([
            torch.stack([
                metric(run_with_hooks(model, tokens, [*hooks, (name, setting(unit, dose))])) for dose in doses
            ])
            for unit in directions / directions.norm(dim=1, keepdim=True)
        ])  # fmt: skip


def probe_vs_gradient_direction(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    name: str,
    direction: Float[Tensor, "d"],
    metric: Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, "batch"]],
    positions: Int[Tensor, "batch"],
) -> Float[Tensor, "batch"]:
    """How far a probe's direction points the way in which the behaviour would change most.

    Args:
        model: Any module; its weights need not ask for gradients.
        tokens: What it reads.
        name: Hook point [batch, pos, d].
        direction: The probe's, not 0; its length does not matter, its sign does.
        metric: From the model's output to a number for each prompt that depends on this prompt alone.
        positions: The one position of each prompt where the gradient is taken, counted from 0.

    Returns:
        For each prompt the cosine between ``direction`` and the gradient of the metric with respect to the activation;
        0 where the gradient is 0. Without a graph. Also where gradients are switched off; no weight's ``grad`` is
        changed, nor whether it asks for one.

    Source: Kim et al. (2018), "Interpretability Beyond Feature Attribution: Quantitative Testing with Concept
    Activation Vectors (TCAV)", for the gradient along a concept's direction.
    """
    with torch.enable_grad():
        kept = []

        def listen(activation: Tensor) -> Tensor:
            kept.append(activation.detach().requires_grad_())
            return kept[-1]

        total = metric(run_with_hooks(model, tokens, [(name, listen)])).sum()
        (gradient,) = torch.autograd.grad(total, kept[-1])
    there = gradient[torch.arange(len(tokens), device=tokens.device), positions]
    return nn.functional.cosine_similarity(there, direction[None], dim=1, eps=1e-30)
