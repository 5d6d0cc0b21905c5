"""Wrong and right designs for the case of part 09c."""

import torch

from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.spd.case_09c import importance_of, make_inputs, output_of, properties_of, verdict_of


def without(network, x):
    mask = torch.ones(network.V.shape[1])
    mask[network.component] = 0.0
    return (output_of(network, x, mask) - output_of(network, x)).norm().item()


def groups_of(network, n=16, seed=5):
    on = torch.rand(n, len(network.properties), generator=torch.Generator().manual_seed(seed)) < 0.5
    found = {}
    for name, on_a, on_b in (("A", True, False), ("B", False, True), ("control", False, False)):
        on[:, 0], on[:, 1] = on_a, on_b
        found[name] = make_inputs(network, on.clone(), seed + 1)
    return found


def designed(network, measure=without, groups=None):
    groups = groups or groups_of(network)
    values = {name: [measure(network, one) for one in x] for name, x in groups.items()}
    return {
        "with_A": groups["A"],
        "with_B": groups["B"],
        "control": groups["control"],
        "measure": measure,
        **{f"effect_{name}": estimate(v) for name, v in values.items()},
        "verdict": verdict_of(values["A"], values["B"], values["control"]),
    }


@wrong(
    "needed_for_what",
    "Your measure finds a need wherever A is or B is, as the gate does. That is the claim, not its test: a gate may "
    "open where nothing depends on the component. Change the mask, and look at the output.",
)
def the_gate(network):
    return designed(network, lambda network, x: importance_of(network, x)[network.component].item())


@wrong(
    "needed_for_what",
    "Your measure is how strongly the component is on, or how much it writes. Neurons come behind it, and it may write "
    "only to such as stay silent.",
)
def the_activation(network):
    return designed(network, lambda network, x: abs((x @ network.V)[network.component].item()))


@wrong(
    "needed_for_what",
    "Your inputs with A have B as well, as those of the examples do: whatever the component does there may be for "
    "either.",
)
def as_they_come(network):
    has = properties_of(network, network.examples)
    chosen = {"A": has[:, 0], "B": has[:, 1], "control": ~has[:, 0] & ~has[:, 1]}
    groups = {name: network.examples[which][:20] for name, which in chosen.items()}
    return designed(network, groups=groups)


@wrong("needed_for_what", "Your verdict is the claim, whatever your measure says.")
def the_claim(network):
    design = designed(network, lambda network, x: -without(network, x))
    return design | {"verdict": "A"}


@wrong(
    "needed_for_what",
    "Your verdict names one property where your measure counts for both. The rule asks of A and of B, each by itself.",
)
def the_larger(network):
    design = designed(network)
    return design | {"verdict": "A" if design["effect_A"][0] > design["effect_B"][0] else "B"}


@wrong("needed_for_what", "You have one input of a kind, many times over. Copies tell nothing new.")
def one_input(network):
    groups = {name: x[:1].repeat(16, 1) for name, x in groups_of(network).items()}
    return designed(network, groups=groups)


@wrong("needed_for_what", "Fewer than twelve inputs of a kind are too few to tell an effect from the spread.")
def few(network):
    return designed(network, groups=groups_of(network, n=4))


@wrong(
    "needed_for_what",
    "You report the standard deviation of the values in place of the half-width of their mean's 95 % interval.",
)
def spreads(network):
    design = designed(network)
    values = torch.tensor([without(network, one) for one in design["with_A"]])
    return design | {"effect_A": (values.mean().item(), values.std().item())}


@right("needed_for_what")
def halfway(network):
    """The component at one half in place of 0, by squares."""

    def measure(network, x):
        mask = torch.ones(network.V.shape[1])
        mask[network.component] = 0.5
        return (output_of(network, x, mask) - output_of(network, x)).square().sum().item()

    return designed(network, measure)


@right("needed_for_what")
def alone(network):
    """What the component does by itself, the others at 0."""

    def measure(network, x):
        mask = torch.zeros(network.V.shape[1])
        nothing = output_of(network, x, mask)
        mask[network.component] = 1.0
        return (output_of(network, x, mask) - nothing).abs().max().item()

    return designed(network, measure)


@right("needed_for_what")
def from_the_examples(network):
    """Inputs made of the examples, with A and B set by hand; the mean over several masks between 0 and 1."""
    has = properties_of(network, network.examples)
    has = has[torch.randperm(len(has), generator=torch.Generator().manual_seed(3))[:24]]
    groups = {}
    for name, on_a, on_b in (("A", True, False), ("B", False, True), ("control", False, False)):
        on = has.clone()
        on[:, 0], on[:, 1] = on_a, on_b
        groups[name] = make_inputs(network, on, seed=11)

    def measure(network, x):
        total = 0.0
        for magnitude in (0.0, 0.4, 0.8):
            mask = torch.ones(network.V.shape[1])
            mask[network.component] = magnitude
            total += (output_of(network, x, mask) - output_of(network, x)).abs().sum().item()
        return total

    return designed(network, measure, groups)
