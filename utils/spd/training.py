"""The training loop of stochastic parameter decomposition."""

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from utils.spd.components import Forward, RankOneComponents, inputs_of_matrices
from utils.spd.gates import ComponentGates, causal_importance
from utils.spd.losses import (
    Distance,
    faithfulness_loss,
    layerwise_reconstruction_loss,
    mean_squared_error,
    minimality_loss,
    stochastic_reconstruction_loss,
)


class Decomposition(NamedTuple):
    """A network's matrices as components, and the gates that say which are needed.

    Attributes:
        components: Components by name of matrix.
        gates: Their gates.
        history: For each loss its value at every recorded step, and "step" itself.
    """

    components: dict[str, RankOneComponents]
    gates: dict[str, ComponentGates]
    history: dict[str, list[float]]


def spd_losses(
    forward: Forward,
    weights: Mapping[str, Float[Tensor, "d_in d_out"]],
    components: Mapping[str, RankOneComponents],
    gates: Mapping[str, ComponentGates],
    x: Tensor,
    *,
    p: float,
    distance: Distance = mean_squared_error,
    generator: torch.Generator | None = None,
) -> dict[str, Float[Tensor, ""]]:
    """The four losses of one batch.

    The network's own output, and what comes into its matrices when it runs on its own weights, are the data: no
    gradient goes through them.

    Args:
        forward: The network, as for ``inputs_of_matrices``.
        weights: The matrices by name.
        components: Components for each.
        gates: Their gates.
        x: A batch of inputs.
        p: Exponent of the minimality loss.
        distance: Of two outputs.
        generator: Source of the masks; the stochastic loss draws first, the layerwise one next.

    Returns:
        "faithfulness", "stochastic", "layerwise" and "minimality", each unweighted, with gradients that reach
        components and gates. Masks are made of the lower-leaky importances, the price is taken on the upper-leaky ones.

    Source: Bushnaq, Braun and Sharkey (2025), section 2.
    """
    with torch.no_grad():
        wanted, inputs = inputs_of_matrices(forward, weights, x)
    both = {name: causal_importance(gates[name], components[name].V, inputs[name]) for name in weights}
    lower, upper = ({name: pair[i] for name, pair in both.items()} for i in range(2))
    return {
        "faithfulness": faithfulness_loss(weights, components),
        "stochastic": stochastic_reconstruction_loss(
            forward, weights, components, x, wanted, lower, distance, generator
        ),
        "layerwise": layerwise_reconstruction_loss(forward, weights, components, x, wanted, lower, distance, generator),
        "minimality": minimality_loss(upper, p),
    }


def train_spd(
    forward: Forward,
    weights: Mapping[str, Float[Tensor, "d_in d_out"]],
    batches: Callable[[torch.Generator], Tensor],
    *,
    C: int,
    price: float,
    p: float = 1.0,
    n_steps: int,
    lr: float = 1e-3,
    distance: Distance = mean_squared_error,
    weigh: Mapping[str, float] | None = None,
    seed: int = 0,
    every: int = 100,
    start: tuple[dict[str, RankOneComponents], dict[str, ComponentGates]] | None = None,
) -> Decomposition:
    """Decompose a network's matrices: Adam, the learning rate falling to 0 along half a cosine.

    Step t of T has the learning rate lr · (1 + cos(π t / T)) / 2. Each step draws a batch, then the masks, from one
    generator; the loss is the sum of the four, each times its weight.

    Args:
        forward: The network, as for ``inputs_of_matrices``.
        weights: The matrices by name.
        batches: ``batches(generator)`` draws a batch of inputs.
        C: Components for each matrix.
        price: Weight of the minimality loss.
        p: Its exponent.
        n_steps: Number of steps.
        lr: Learning rate at the start.
        distance: Of two outputs.
        weigh: Weights of the other losses, by name; 1 for those not named.
        seed: Of the starting values, the batches and the masks.
        every: Record the losses, before the step and unweighted, at step 0, at every so many steps, and at the last.
        start: Components and gates by name to go on from, which are trained in place; None for random ones.

    Returns:
        The decomposition, without gradients.

    Source: Bushnaq, Braun and Sharkey (2025), section 2 and appendix.
    """
    # Given: the starting values, and the weight of each loss.
    generator = torch.Generator().manual_seed(seed)
    if start is None:
        components = {name: RankOneComponents(*W.shape, C, generator=generator) for name, W in weights.items()}
        gates = {name: ComponentGates(C, generator=generator) for name in weights}
    else:
        components, gates = start
    weigh = {"faithfulness": 1.0, "stochastic": 1.0, "layerwise": 1.0, **(weigh or {}), "minimality": price}
    history: dict[str, list[float]] = {name: [] for name in ("step", *weigh)}
    # Yours: an optimiser for all parameters of components and gates; the steps; the record; then no gradients.
    parameters = [q for module in (*components.values(), *gates.values()) for q in module.parameters()]
    optimiser = torch.optim.Adam(parameters, lr=lr, fused=True)
    for step in range(n_steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * (1 + math.cos(math.pi * step / n_steps)) / 2
        losses = spd_losses(
            forward, weights, components, gates, batches(generator), p=p, distance=distance, generator=generator
        )
        optimiser.zero_grad()
        sum(weigh[name] * loss for name, loss in losses.items()).backward()
        optimiser.step()
        if step % every == 0 or step == n_steps - 1:
            for name, value in {"step": step, **losses}.items():
                history[name].append(value.item() if isinstance(value, Tensor) else value)
    for q in parameters:
        q.requires_grad_(False)
    return Decomposition(components, gates, history)
