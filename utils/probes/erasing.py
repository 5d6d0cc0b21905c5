"""Taking a feature out of activations, and what the network then still does."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from utils.course.cases import estimate
from utils.patching.hooks import run_with_hooks
from utils.probes.fit import Probe


def project_out(
    x: Float[Tensor, "*batch d"], directions: Float[Tensor, "k d"], *, about: Float[Tensor, "d"] | None = None
) -> Float[Tensor, "*batch d"]:
    """Remove from each activation what it has along some directions, and leave the rest as it is.

    The result is x - P (x - about), where P projects onto the span of the directions. So all activations get the same
    coordinates in that span: those of ``about``.

    Args:
        x: Activations, of any number of dimensions.
        directions: Their span is removed. They may be of any length, need not be at right angles, and may depend on
            each other, up to the rounding of their dtype; a row of zeros adds nothing. With k = 0 nothing is removed.
        about: The point that stays where it is, such as the mean of the activations; the origin if None.

    Returns:
        Activations of the shape and dtype of x, as exact as that dtype; of lower precision than float32 is not asked.

    Raises:
        ValueError: If ``directions`` is not [k, d].

    Source: Ravfogel et al. (2020), "Null It Out: Guarding Protected Attributes by Iterative Nullspace Projection".
    """
    if directions.ndim != 2 or directions.shape[1] != x.shape[-1]:
        raise ValueError(f"directions have shape {tuple(directions.shape)}, activations {tuple(x.shape)}")
    unit = nn.functional.normalize(directions.double(), dim=1)
    span = torch.linalg.pinv(unit, rtol=1e-6) @ unit  # [d, d]
    offset = x.double() if about is None else x.double() - about.double()
    return x - (offset @ span).to(x.dtype)


def ablate_direction(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    names: Sequence[str],
    directions: Float[Tensor, "k d"],
    *,
    about: Float[Tensor, "d"] | None = None,
    positions: Int[Tensor, "batch"] | None = None,
    hooks: Sequence[tuple[str, Callable[[Tensor], Tensor]]] = (),
) -> Float[Tensor, "..."]:
    """Run a model while some directions are projected out of what it holds.

    Args:
        model: Any module.
        tokens: What it reads.
        names: Hook points; the directions are removed at each of them, from what arrives there. Where the same tensor
            is read elsewhere, past the hook point, it is as it was.
        directions: What to remove, as in ``project_out``.
        about: As in ``project_out``; the same at every hook point.
        positions: The one position of each prompt where to remove them, counted from 0; everything else stays. Hook
            points are [batch, pos, d] then. All positions if None.
        hooks: Further changes to the same run, as in ``run_with_hooks``; at a hook point of ``names`` they act first.

    Returns:
        What the model puts out. Gradients are left to the caller.

    Raises:
        ValueError: If a position is outside the prompts (negative ones are), and as ``run_with_hooks`` and
            ``project_out`` do.

    Source: Elazar et al. (2021), "Amnesic Probing: Behavioral Explanation with Amnesic Counterfactuals".
    """
    # Given: the positions are checked.
    if positions is not None and bool(((positions < 0) | (positions >= tokens.shape[1])).any()):
        raise ValueError(f"positions must be from 0 to {tokens.shape[1] - 1}, got {positions.tolist()}")
    # Yours: one hook, at every name.
    rows = torch.arange(len(tokens), device=tokens.device)

    def erase(activation: Tensor) -> Tensor:
        erased = project_out(activation, directions, about=about)
        if positions is None:
            return erased
        return activation.index_put((rows, positions), erased[rows, positions])

    return run_with_hooks(model, tokens, [*hooks, *((name, erase) for name in names)])


def amnesic_effect(
    intact: Float[Tensor, " n"],
    erased: Float[Tensor, " n"],
    random: Float[Tensor, "draw n"],
    units: Int[Tensor, " n"],
) -> dict[str, float]:
    """What removing a direction costs, beyond what removing random directions costs.

    Everything is averaged within units first, and then over units, so that each unit counts once however many prompts
    it has. A behaviour's cost is the measure with nothing removed less the measure with something removed.

    Args:
        intact: The measure of the behaviour for each prompt, with nothing removed; larger is better.
        erased: The same with the direction removed.
        random: The same with random directions removed, as many at a time as in ``erased``: a row for each draw.
        units: For each prompt, the number of the independent unit that it belongs to.

    Returns:
        "drop": the cost of removing the direction. "random": the cost of removing random ones, averaged over draws.
        "effect": "drop" - "random". "low", "high": the 95 % interval of "effect" over units (Student's t with one
        degree of freedom less than there are units). "p": (1 + the number of draws whose cost is at least "drop") /
        (1 + the number of draws).

    Raises:
        ValueError: If there are fewer than two units, or no draws.

    Source: Elazar et al. (2021), "Amnesic Probing", for the control by random directions; the interval and p are ours.
    """
    if units.unique().numel() < 2 or len(random) < 1:
        raise ValueError(f"{units.unique().numel()} units and {len(random)} draws are too few")
    costs = intact - torch.cat([erased[None], random])  # [1 + draws, n]
    by_unit = torch.stack([costs[:, units == unit].mean(1) for unit in units.unique()], dim=1)
    drop, *draws = by_unit.mean(1).tolist()
    effect, half_width = estimate((by_unit[0] - by_unit[1:].mean(0)).tolist())
    return {
        "drop": drop,
        "random": sum(draws) / len(draws),
        "effect": effect,
        "low": effect - half_width,
        "high": effect + half_width,
        "p": (1 + sum(cost >= drop for cost in draws)) / (1 + len(draws)),
    }


def iterated_nullspace(
    x: Float[Tensor, "n d"],
    labels: Bool[Tensor, " n"],
    x_test: Float[Tensor, "n_test d"],
    labels_test: Bool[Tensor, " n_test"],
    n_directions: int,
    fit: Callable[[Tensor, Tensor], Probe],
) -> tuple[Float[Tensor, "n_directions d"], Float[Tensor, " n_directions"]]:
    """Fit a probe, remove its direction, fit another to what is left, and so on.

    Args:
        x, labels: What each probe is fitted to.
        x_test, labels_test: What each probe is tested on.
        n_directions: How many probes, from 1 to d.
        fit: Makes a probe from activations and labels, e.g. ``logistic_probe``; its result has a ``direction``, and
            called with activations it gives scores, above 0 for "present".

    Returns:
        directions: Row i is the direction of probe i, without what earlier rows have of it, and of length 1. It points
            to where the feature is present.
        accuracy: For each probe the share of the test's labels that it gets right. Probe i is fitted and tested on
            activations from which rows 0 to i - 1 have been removed, about the mean of x in both cases.

    Raises:
        ValueError: If ``n_directions`` is not from 1 to d.

    Source: Ravfogel et al. (2020), "Null It Out", algorithm 1.
    """
    if not 1 <= n_directions <= x.shape[1]:
        raise ValueError(f"n_directions must be from 1 to {x.shape[1]}, got {n_directions}")
    removed, accuracy, centre = x[:0], [], x.mean(0)
    for _ in range(n_directions):
        probe = fit(project_out(x, removed, about=centre), labels)
        scores = probe(project_out(x_test, removed, about=centre))
        accuracy.append(((scores > 0) == labels_test).float().mean())
        new = project_out(probe.direction, removed)
        removed = torch.cat([removed, new[None] / new.norm()])
    return removed, torch.stack(accuracy)
