"""Wrong answers for the losses of a batch and for the training loop, each with its sentence, and right ones."""

import copy
import math

import torch
from torch import Tensor

from utils.course.catalogue import right, wrong
from utils.spd.components import RankOneComponents, inputs_of_matrices, masked_forward
from utils.spd.gates import ComponentGates, causal_importance
from utils.spd.losses import (
    faithfulness_loss,
    layerwise_reconstruction_loss,
    mean_squared_error,
    minimality_loss,
    sample_masks,
    stochastic_reconstruction_loss,
)
from utils.spd.training import Decomposition, spd_losses

# spd_losses


def losses_with(forward, weights, components, gates, x, p, distance, generator, *, which=(0, 1), swap=False, data=True,
                own=True, learn_V=True):  # fmt: skip
    wanted, inputs = inputs_of_matrices(forward, weights, x)
    if not own:
        inputs = inputs_of_matrices(forward, {name: part.weight() for name, part in components.items()}, x)[1]
    if data:
        wanted, inputs = wanted.detach(), {name: a.detach() for name, a in inputs.items()}
    read = {name: part.V if learn_V else part.V.detach() for name, part in components.items()}
    both = {name: causal_importance(gates[name], read[name], inputs[name]) for name in weights}
    lower, upper = ({name: pair[i] for name, pair in both.items()} for i in which)
    given = forward, weights, components, x, wanted, lower, distance, generator
    parts = {"faithfulness": faithfulness_loss(weights, components), "minimality": minimality_loss(upper, p)}
    if swap:
        parts["layerwise"] = layerwise_reconstruction_loss(*given)
        parts["stochastic"] = stochastic_reconstruction_loss(*given)
    else:
        parts["stochastic"] = stochastic_reconstruction_loss(*given)
        parts["layerwise"] = layerwise_reconstruction_loss(*given)
    return parts


@wrong(
    "spd_losses",
    "You exchange the two sigmoids: masks are made of the upper-leaky importances and the price is taken on the "
    "lower-leaky ones. Where a gate is shut, the mask then has no gradient that could open it.",
)
def sigmoids_exchanged(forward, weights, components, gates, x, *, p, distance=mean_squared_error, generator=None):
    return losses_with(forward, weights, components, gates, x, p, distance, generator, which=(1, 0))


@wrong(
    "spd_losses",
    "Your masks are made of the upper-leaky importances, as the price is. Where a gate is shut, the mask then has no "
    "gradient that could open it.",
)
def upper_for_both(forward, weights, components, gates, x, *, p, distance=mean_squared_error, generator=None):
    return losses_with(forward, weights, components, gates, x, p, distance, generator, which=(1, 1))


@wrong(
    "spd_losses",
    "Your price is taken on the lower-leaky importances, which are cut off at 1 and go below 0. It belongs to the "
    "upper-leaky ones.",
)
def price_on_the_lower(forward, weights, components, gates, x, *, p, distance=mean_squared_error, generator=None):
    return losses_with(forward, weights, components, gates, x, p, distance, generator, which=(0, 0))


@wrong(
    "spd_losses",
    "Your importances have no gradient that reaches V: what the gates read is learnt as well. Only the network's own "
    "run is data.",
)
def importances_without_V(forward, weights, components, gates, x, *, p, distance=mean_squared_error, generator=None):
    return losses_with(forward, weights, components, gates, x, p, distance, generator, learn_V=False)


@wrong(
    "spd_losses",
    "Your gates read what comes into a matrix when the network runs on its components. Let it run on its own weights: "
    "what is needed should not depend on how good the components are so far.",
)
def gates_read_the_components(
    forward, weights, components, gates, x, *, p, distance=mean_squared_error, generator=None
):
    return losses_with(forward, weights, components, gates, x, p, distance, generator, own=False)


@wrong(
    "spd_losses", "The layerwise loss draws its masks before the stochastic one: the docstring has them the other way."
)
def layerwise_first(forward, weights, components, gates, x, *, p, distance=mean_squared_error, generator=None):
    return losses_with(forward, weights, components, gates, x, p, distance, generator, swap=True)


@wrong("spd_losses", "You leave the distance out, so that every error is a mean of squares.")
def without_distance(forward, weights, components, gates, x, *, p, distance=mean_squared_error, generator=None):
    return losses_with(forward, weights, components, gates, x, p, mean_squared_error, generator)


@wrong("spd_losses", "The exponent has no say in your price.")
def without_exponent(forward, weights, components, gates, x, *, p, distance=mean_squared_error, generator=None):
    return losses_with(forward, weights, components, gates, x, 1.0, distance, generator)


@wrong(
    "spd_losses",
    "You compute the importances without gradients, so that no gate ever learns. Only the network's own run is data.",
)
def importances_without_gradients(
    forward, weights, components, gates, x, *, p, distance=mean_squared_error, generator=None
):
    with torch.no_grad():
        wanted, inputs = inputs_of_matrices(forward, weights, x)
        both = {name: causal_importance(gates[name], components[name].V, inputs[name]) for name in weights}
    lower, upper = ({name: pair[i] for name, pair in both.items()} for i in (0, 1))
    given = forward, weights, components, x, wanted, lower, distance, generator
    return {
        "faithfulness": faithfulness_loss(weights, components),
        "stochastic": stochastic_reconstruction_loss(*given),
        "layerwise": layerwise_reconstruction_loss(*given),
        "minimality": minimality_loss(upper, p),
    }


@wrong(
    "spd_losses",
    "A gradient reaches the network's own weights, through its output or what comes into its matrices. Both are data: "
    "take them without gradients.",
)
def through_the_target(forward, weights, components, gates, x, *, p, distance=mean_squared_error, generator=None):
    return losses_with(forward, weights, components, gates, x, p, distance, generator, data=False)


@right("spd_losses")
def written_out(forward, weights, components, gates, x, *, p, distance=mean_squared_error, generator=None):
    seen = {}

    def look(name, a):
        seen[name] = a.detach()
        return a @ weights[name].detach()

    wanted = forward(x, look).detach()
    lower, upper = {}, {}
    for name, a in seen.items():
        lower[name], upper[name] = causal_importance(gates[name], components[name].V, a)
    at_once = masked_forward(forward, weights, components, x, sample_masks(lower, generator))
    masks = sample_masks(lower, generator)
    alone = [masked_forward(forward, weights, components, x, {name: masks[name]}) for name in weights]
    return {
        "minimality": minimality_loss(upper, p),
        "faithfulness": faithfulness_loss(weights, components),
        "layerwise": sum(distance(output, wanted) for output in alone) / len(alone),
        "stochastic": distance(at_once, wanted),
    }


@right("spd_losses")
def one_pass_each(forward, weights, components, gates, x, *, p, distance=mean_squared_error, generator=None):
    return losses_with(forward, weights, components, gates, x, p, distance, generator)


# train_spd


def trained(forward, weights, batches, *, C, price, n_steps, p=1.0, lr=1e-3, distance=mean_squared_error, weigh=None,
            seed=0, every=100, start=None, rate=None, clear=True, only=None,
            weighted_record=False, last=True, keep_gradients=False, ignore=(), kind=torch.optim.Adam,
            record=None):  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    if start is None or "start" in ignore:
        components = {name: RankOneComponents(*W.shape, C, generator=generator) for name, W in weights.items()}
        gates = {name: ComponentGates(C, generator=generator) for name in weights}
    else:
        components, gates = start
    factor = {"faithfulness": 1.0, "stochastic": 1.0, "layerwise": 1.0, **(weigh or {}), "minimality": price}
    if "weigh" in ignore:
        factor = {**dict.fromkeys(factor, 1.0), "minimality": price}
    modules = [*components.values(), *gates.values()]
    learnt = [q for m in (modules if only is None else [*only(components, gates)]) for q in m.parameters()]
    optimiser = kind(learnt, lr=lr)
    rate = rate or (lambda step: (1 + math.cos(math.pi * step / n_steps)) / 2)
    history = {name: [] for name in ("step", *factor)}
    for step in range(n_steps):
        for group in optimiser.param_groups:
            group["lr"] = lr * rate(step)
        losses = spd_losses(
            forward, weights, components, gates, batches(generator), p=p, distance=distance, generator=generator
        )
        if clear:
            optimiser.zero_grad()
        sum(factor[name] * loss for name, loss in losses.items()).backward()
        optimiser.step()
        if step % every == 0 or (last and step == n_steps - 1):
            history["step"].append(step)
            for name, loss in losses.items():
                history[name].append((record or Tensor.item)(loss) * (factor[name] if weighted_record else 1))
    for m in modules:
        m.requires_grad_(keep_gradients)
    return Decomposition(components, gates, history)


@wrong("train_spd", "Your learning rate stays where it begins. It falls to 0 along half a cosine.")
def constant_rate(forward, weights, batches, **settings):
    return trained(forward, weights, batches, rate=lambda step: 1.0, **settings)


@wrong(
    "train_spd", "Your learning rate falls along a straight line. Half a cosine stays high longer, then falls faster."
)
def straight_line(forward, weights, batches, **settings):
    return trained(forward, weights, batches, rate=lambda step: 1 - step / settings["n_steps"], **settings)


@wrong("train_spd", "Your rate is one step ahead: step 0 has the whole of lr.")
def one_step_ahead(forward, weights, batches, **settings):
    def rate(step):
        return (1 + math.cos(math.pi * (step + 1) / settings["n_steps"])) / 2

    return trained(forward, weights, batches, rate=rate, **settings)


@wrong("train_spd", "AdamW shrinks all parameters a little in each step. Adam is asked for, without weight decay.")
def with_weight_decay(forward, weights, batches, **settings):
    return trained(forward, weights, batches, kind=torch.optim.AdamW, **settings)


@wrong("train_spd", "You leave the exponent out: it is 1 whatever `p` says.")
def exponent_ignored(forward, weights, batches, **settings):
    return trained(forward, weights, batches, **settings | {"p": 1.0})


@wrong("train_spd", "You leave the distance out, so that every error is a mean of squares.")
def distance_ignored(forward, weights, batches, **settings):
    return trained(forward, weights, batches, **settings | {"distance": mean_squared_error})


@wrong("train_spd", "Your history holds tensors. Numbers are asked for: `.item()` gives one.")
def history_of_tensors(forward, weights, batches, **settings):
    return trained(forward, weights, batches, record=Tensor.detach, **settings)


@wrong("train_spd", "You train a copy of the start that is given. It is to be trained in place.")
def start_copied(forward, weights, batches, *, start=None, **settings):
    return trained(forward, weights, batches, start=copy.deepcopy(start), **settings)


@wrong("train_spd", "Gradients of earlier steps are never cleared, and pile up.")
def never_cleared(forward, weights, batches, **settings):
    return trained(forward, weights, batches, clear=False, **settings)


@wrong("train_spd", "Your gates are not trained: the optimiser has the components' parameters only.")
def components_only(forward, weights, batches, **settings):
    return trained(forward, weights, batches, only=lambda components, gates: components.values(), **settings)


@wrong("train_spd", "You take every loss with weight 1, whatever `weigh` says.")
def unweighted(forward, weights, batches, **settings):
    return trained(forward, weights, batches, ignore=("weigh",), **settings)


@wrong("train_spd", "Your history holds the losses times their weights. Unweighted, runs with other weights compare.")
def weighted_history(forward, weights, batches, **settings):
    return trained(forward, weights, batches, weighted_record=True, **settings)


@wrong("train_spd", "The last step is missing in your history, unless it falls on a multiple of `every`.")
def without_the_last(forward, weights, batches, **settings):
    return trained(forward, weights, batches, last=False, **settings)


@wrong("train_spd", "You begin at random although a start is given.")
def start_ignored(forward, weights, batches, **settings):
    return trained(forward, weights, batches, ignore=("start",), **settings)


@wrong("train_spd", "What you return still asks for gradients: whoever uses it builds graphs for nothing.")
def gradients_left_on(forward, weights, batches, **settings):
    return trained(forward, weights, batches, keep_gradients=True, **settings)


@right("train_spd")
def without_fused(forward, weights, batches, **settings):
    return trained(forward, weights, batches, **settings)


@right("train_spd")
def with_a_scheduler(
    forward, weights, batches, *, C, price, p=1.0, n_steps, lr=1e-3, distance=mean_squared_error, weigh=None, seed=0,
    every=100, start=None,
):  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    components, gates = start or (
        {name: RankOneComponents(*W.shape, C, generator=generator) for name, W in weights.items()}, {}
    )  # fmt: skip
    if start is None:
        gates = {name: ComponentGates(C, generator=generator) for name in weights}
    learnt = torch.nn.ModuleList([*components.values(), *gates.values()])
    optimiser = torch.optim.Adam(learnt.parameters(), lr=lr)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda t: 0.5 * (1 + math.cos(math.pi * t / n_steps)))
    records = []
    for step in range(n_steps):
        found = spd_losses(
            forward, weights, components, gates, batches(generator), p=p, distance=distance, generator=generator
        )
        loss = price * found["minimality"]
        for name in ("faithfulness", "stochastic", "layerwise"):
            loss = loss + (weigh or {}).get(name, 1.0) * found[name]
        learnt.zero_grad()
        loss.backward()
        optimiser.step()
        scheduler.step()
        if step % every == 0 or step + 1 == n_steps:
            records.append({"step": step} | {name: float(value.detach()) for name, value in found.items()})
    learnt.requires_grad_(False)
    history = {name: [record[name] for record in records] for name in records[0]}
    return Decomposition(components, gates, history)
