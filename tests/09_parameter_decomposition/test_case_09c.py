"""The check of the case of part 09c: the experiment is run again, and its measure on networks of all four kinds."""

import torch

from utils.course.cases import design_of, expect_function_of_input, expect_reported
from utils.course.checking import expect
from utils.spd.case_09c import KINDS, claimed_network, make_inputs, properties_of, verdict_of

GROUPS = {"A": "with_A", "B": "with_B", "control": "control"}
HAS = {"A": (True, False), "B": (False, True), "control": (False, False)}
TOLD = {
    "A": "needed for A alone",
    "B": "needed for B alone",
    "either": "needed for A and for B",
    "neither": "active at A and at B, and writes where nothing follows",
}
KEYS = {
    **dict.fromkeys(GROUPS.values(), "list"),
    "measure": "callable",
    **{f"effect_{group}": "pair" for group in GROUPS},
    "verdict": KINDS,
}
NETWORKS = claimed_network("A", 909), claimed_network("either", 910)


def expect_inputs(network, group, inputs):
    """At least 12, each of the right kind and width, with the properties that are asked for."""
    name = GROUPS[group]
    expect(
        all(isinstance(one, torch.Tensor) and one.shape == network.properties.shape[1:] for one in inputs),
        f"Under {name!r} an entry is no input of the network: a tensor [n, {network.properties.shape[1]}] is "
        f"asked for.",
        actual=("shape", name),
    )
    expect(len(inputs) >= 12, f"Under {name!r} there are {len(inputs)} inputs: too few.", actual=("few", name))
    x = torch.stack(list(inputs))
    different = len(x.unique(dim=0))
    expect(
        different == len(x),
        f"Under {name!r} inputs come more than once: copies tell nothing new.",
        actual=("copies", name, "of one" if different == 1 else "of some"),
    )
    has = properties_of(network, x)[:, :2]
    wrong = (has != torch.tensor(HAS[group])).any(dim=1)
    expect(
        not wrong.any(),
        f"Under {name!r} {int(wrong.sum())} of {len(x)} inputs have A or B otherwise than asked for.",
        actual=("properties", name, "both" if has[wrong].all() else "other"),
    )


def values_on(measure, network, groups):
    return {
        group: expect_function_of_input(measure, [(network, one) for one in inputs]) for group, inputs in groups.items()
    }


class TestNeededForWhat:
    exercise = "needed_for_what"

    def test_design(self, answer):
        "inputs that tell A from B, the effects handed in, the verdict by the rule"
        for network in NETWORKS:
            design = design_of(answer, KEYS, network)
            groups = {group: design[name] for group, name in GROUPS.items()}
            for group, inputs in groups.items():
                expect_inputs(network, group, inputs)
            values = values_on(design["measure"], network, groups)
            for group in GROUPS:
                expect_reported(design[f"effect_{group}"], values[group], of=f"effect_{group}")
            follows = verdict_of(values["A"], values["B"], values["control"])
            expect(
                design["verdict"] == follows,
                f"By the rule your measure says {follows!r}, and your verdict is {design['verdict']!r}.",
                actual=("verdict", design["verdict"], follows),
            )

    def test_measure(self, answer):
        "the measure on new networks, whose component is needed for A, for B, for either or for neither"
        measure = design_of(answer, KEYS, NETWORKS[0])["measure"]
        for i, kind in enumerate(KINDS * 2):
            network = claimed_network(kind, 77_000 + i)
            groups = {}
            for group, (on_a, on_b) in HAS.items():
                on = torch.rand(16, len(network.properties), generator=torch.Generator().manual_seed(i)) < 0.4
                on[:, 0], on[:, 1] = on_a, on_b
                groups[group] = make_inputs(network, on, seed=88_000 + i)
            values = values_on(measure, network, groups)
            said = verdict_of(values["A"], values["B"], values["control"])
            expect(
                said == kind,
                f"On a new network whose component is {TOLD[kind]} your measure says {said!r}.",
                actual=("measure", said, kind),
            )
