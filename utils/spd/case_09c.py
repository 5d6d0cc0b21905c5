"""The case of part 09c: for what is a component needed?"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from utils.course.cases import estimate

D, N_PROPERTIES, N_NEURONS, N_SILENT, N_OUT = 16, 6, 12, 4, 5
KINDS = ("A", "B", "either", "neither")


class Claimed(NamedTuple):
    """A network with components, and one of them on which a claim is made.

    Attributes:
        V: What the components read.
        U: What they write: into neurons.
        b: The neurons' bias.
        R: What the neurons write.
        gate: What the components' gates read.
        properties: Directions of the inputs' properties; 0 is A, 1 is B.
        component: The number of the component.
        examples: Inputs as they come.
    """

    V: Float[Tensor, "d C"]
    U: Float[Tensor, "C neuron"]
    b: Float[Tensor, " neuron"]
    R: Float[Tensor, "neuron d_out"]
    gate: Float[Tensor, "d C"]
    properties: Float[Tensor, "property d"]
    component: int
    examples: Float[Tensor, "n d"]


def output_of(network: Claimed, x: Float[Tensor, "*n d"], mask: Float[Tensor, "*n C"] | None = None) -> Tensor:
    """What the network puts out, with its components weighted by a mask; None for 1 throughout."""
    inner = x @ network.V
    return ((inner if mask is None else inner * mask) @ network.U + network.b).relu() @ network.R


def importance_of(network: Claimed, x: Float[Tensor, "*n d"]) -> Float[Tensor, "*n C"]:
    """What the gates say: how much each component is needed, from 0 to 1."""
    return (3 * (x @ network.gate) - 0.4).clamp(0, 1)


def properties_of(network: Claimed, x: Float[Tensor, "*n d"]) -> Bool[Tensor, "*n property"]:
    """Which properties inputs have."""
    return x @ network.properties.T > 0.35


def make_inputs(network: Claimed, on: Bool[Tensor, "n property"], seed: int) -> Float[Tensor, "n d"]:
    """New inputs that have these properties and no others, each in a strength of its own, and a little noise."""
    generator = Generator().manual_seed(seed)
    strength = 0.7 + 0.8 * torch.rand(on.shape, generator=generator)
    return (on * strength) @ network.properties + 0.03 * torch.randn(len(on), D, generator=generator)


def claimed_network(kind: str, seed: int) -> Claimed:
    """A network and its examples; the gate of the component in question opens at A and at B, whatever the kind.

    Args:
        kind: What the component is needed for: "A", "B", "either" of the two, or "neither": it is active at both, and
            writes only into neurons that stay silent.
        seed: Of everything random.
    """
    generator = Generator().manual_seed(seed)
    properties = torch.linalg.qr(torch.randn(D, N_PROPERTIES, generator=generator)).Q.T
    a, b = properties[:2]
    n_neurons = N_NEURONS + N_SILENT
    reads = {"A": [a, b], "B": [b, a], "either": [a + b], "neither": [a + b, a, b]}[kind]
    V = torch.stack([*reads, *properties[2:]], dim=1)
    U = 1.2 * torch.randn(V.shape[1], n_neurons, generator=generator)
    U[:, N_NEURONS:] *= 0.2
    bias = 0.3 * torch.rand(n_neurons, generator=generator)
    bias[N_NEURONS:] = -20.0
    if kind == "neither":
        U[0, :N_NEURONS], U[0, N_NEURONS:] = 0.0, 1.0
    gate = V.clone()
    gate[:, 0] = a + b
    order = torch.randperm(V.shape[1], generator=generator)
    R = torch.randn(n_neurons, N_OUT, generator=generator)
    on = torch.rand(300, N_PROPERTIES, generator=generator) < 0.4
    with_a = torch.rand(300, generator=generator) < 0.92
    on[:, 1] = torch.where(with_a, on[:, 0], on[:, 1])
    network = Claimed(
        V[:, order], U[order], bias, R, gate[:, order], properties, order.tolist().index(0), torch.empty(0)
    )
    return network._replace(examples=make_inputs(network, on, seed + 1))


def counts(values: list[float], control: list[float]) -> bool:
    """The rule: the mean lies above the control's mean by more than five of the control's standard deviations."""
    spread = torch.tensor(control).std().item()
    return sum(values) / len(values) > sum(control) / len(control) + 5 * spread + 1e-6


def verdict_of(with_a: list[float], with_b: list[float], control: list[float]) -> str:
    """What follows from the measure's values by the rule."""
    return {(True, False): "A", (False, True): "B", (True, True): "either", (False, False): "neither"}[
        counts(with_a, control), counts(with_b, control)
    ]


def needed_for_what(network: Claimed) -> dict[str, object]:
    """Design an experiment: for what is the component ``network.component`` needed?

    Somebody has looked at the examples and says: it is needed for inputs with property A. Its importance is high there.
    But in the examples A hardly ever comes without B; and an importance is what a gate *says*. The component may be
    needed for A, for B, for either of them, or for neither.

    There are ``output_of(network, x, mask)``, ``importance_of(network, x)``, ``properties_of(network, x)`` and
    ``make_inputs(network, on, seed)``.

    Args:
        network: A ``Claimed``: components, neurons, properties, examples.

    Returns:
        A dict with these keys:

        "with_A", "with_B", "control": Inputs [n, d] that have A and not B, B and not A, and neither; at least 12 of
            each, no two the same.
        "measure": A function ``measure(network, x)`` of a network and one input [d] that returns a number, the larger
            the more the network's output needs its component ``network.component`` for this input.
        "effect_A", "effect_B", "effect_control": For each group of inputs the measure's mean and the half-width of its
            95 % interval, a pair, as ``estimate`` gives them.
        "verdict": "A", "B", "either" or "neither". A property counts if the mean over its inputs is above the mean over
            the control by more than five standard deviations of the control's values. The check runs your experiment on
            two networks, and your measure on new ones of all four kinds.
    """

    def measure(network: Claimed, x: Tensor) -> float:
        mask = torch.ones(network.V.shape[1])
        mask[network.component] = 0.0
        return (output_of(network, x, mask) - output_of(network, x)).norm().item()

    n = 20
    others = torch.rand(n, len(network.properties), generator=Generator().manual_seed(0)) < 0.4
    design: dict[str, object] = {"measure": measure}
    values = {}
    for name, on_a, on_b in (("A", True, False), ("B", False, True), ("control", False, False)):
        on = others.clone()
        on[:, 0], on[:, 1] = on_a, on_b
        x = make_inputs(network, on, seed=1)
        values[name] = [measure(network, one) for one in x]
        design["control" if name == "control" else f"with_{name}"] = x
        design[f"effect_{name}"] = estimate(values[name])
    design["verdict"] = verdict_of(values["A"], values["B"], values["control"])
    return design
