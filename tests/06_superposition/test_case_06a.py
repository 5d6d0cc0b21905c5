"""The check of the case of part 06a: the test is tried on the layers that were given, and on others of their kinds."""

import random

import torch

from utils.course.cases import design_of, expect_function_of_input
from utils.course.checking import expect
from utils.superposition.case_06a import KINDS, NAMES, four_layers, layer, which_bases_are_privileged

KEYS = {
    "n_samples": "number",
    "measure": "callable",
    "in_another_basis": "callable",
    "n_bases": "number",
    **{f"p_{name}": "number" for name in NAMES},
    **{f"verdict_{name}": ("privileged", "not privileged") for name in NAMES},
}
GIVEN = 6  # the seed of the layers that the part works with
FRESH = {"relu": 8, "tanh": 8, "turned relu": 6, "gusts": 6}
N_FRESH_BASES = 39


def p_value(own, others):
    extreme = min(sum(other >= own for other in others), sum(other <= own for other in others))
    return min(1.0, 2 * (1 + extreme) / (1 + len(others)))


def expect_sizes(design):
    for key, low, high in (("n_samples", 200, 2000), ("n_bases", 39, 199)):
        expect(
            low <= design[key] <= high and design[key] == int(design[key]),
            f"{key!r} is a whole number from {low} to {high}.", actual=(key, design[key]),
            returned=f"{design[key]:g}",
        )  # fmt: skip


def expect_turned(activations, turned, where):
    """Expect the same samples, seen in another orthonormal basis; also about their mean."""
    fits = isinstance(turned, torch.Tensor) and turned.shape == activations.shape
    expect(
        fits, "In another basis there are as many samples and as many coordinates as before.", actual="shape",
        returned=f"{tuple(getattr(turned, 'shape', ()))} {where}", expected=str(tuple(activations.shape)),
    )  # fmt: skip
    ordered, had = turned.detach().double().sort(dim=0).values, activations.double().sort(dim=0).values
    reordered = torch.allclose(ordered, had, atol=1e-5) and not torch.allclose(turned, activations, atol=1e-5)
    expect(
        not reordered, "Your 'in_another_basis' leaves each unit the values that it had, and gives them to other "
        "samples: nothing is seen along another direction.",
        actual="other samples", returned=f"the same values in each unit, in another order, {where}",
    )  # fmt: skip
    before, after = (torch.pdist(x[:60].double()) for x in (activations, turned.detach()))
    off = ((after - before).abs().max() / before.mean()).item()
    expect(
        off < 1e-3, "Your 'in_another_basis' changes distances between samples: it is no change of basis, and what it "
        "does to your measure may come from that.",
        actual="distances", returned=f"distances off by up to {off:.2g} of their mean {where}", expected="the same",
    )  # fmt: skip


def basis_of(design, seed, n_units=24):
    """What the control does to points whose number in each coordinate is known: the rows of its matrix."""
    probe = torch.cat([torch.zeros(1, n_units), torch.eye(n_units), -torch.eye(n_units)])
    turned = design["in_another_basis"](probe, seed).detach()
    return (turned[1 : n_units + 1] - turned[n_units + 1 :]) / 2


def expect_random_bases(design):
    first = basis_of(design, 0)
    again = basis_of(design, 0)
    expect(
        torch.allclose(first, again, atol=1e-5),
        "Called again with the same seed, your 'in_another_basis' gives another basis.", actual="another",
    )  # fmt: skip
    bases = torch.stack([first, *(basis_of(design, seed) for seed in range(1, 39))])
    expect(
        (bases[1:] - first).abs().amax((1, 2)).min() > 1e-3,
        "Two of your bases are the same, whatever the seed is: 39 of them say no more than one.", actual="one basis",
    )  # fmt: skip
    # In a random basis of 24 dimensions an axis has no coordinate near 1: the largest is about 0.6 on average.
    largest = bases.abs().amax(-1).mean().item()
    expect(
        largest < 0.999,
        "Your other bases have the layer's own axes in another order, or with other signs: what is special about its "
        "directions is as special in them.",
        actual="the same axes", returned=f"of each axis on average {largest:.2f} on one new one", expected="about 0.45",
    )  # fmt: skip
    expect(
        largest < 0.7,
        "Your other bases have axes near the layer's own: what is special about those is nearly as special in them.",
        actual="near its own", returned=f"of each axis on average {largest:.2f} on one new one", expected="about 0.45",
    )  # fmt: skip
    centre = bases.mean(0).abs().max().item()
    fourth = (bases**4).mean().item() * 24 * 26 / 3  # 1 for bases of which each is as likely as any other
    expect(
        centre < 0.25 and 0.93 < fourth < 1.07,
        "Your bases are not drawn so that each is as likely as any other: some entries or directions are favoured.",
        actual="uneven", returned=f"a mean entry up to {centre:.2f}, fourth powers {fourth:.2f} times random ones",
        expected="near 0, and 1",
    )  # fmt: skip


def expect_of_the_basis(design, activations):
    """Expect a measure that a rotation changes."""
    values = expect_function_of_input(
        design["measure"], [(activations,), *((design["in_another_basis"](activations, seed),) for seed in range(5))]
    )
    spread = max(values) - min(values)
    expect(
        spread > 1e-4 * max(abs(v) for v in values),
        "Your measure gives the same in every basis: it asks for lengths or distances, which no rotation changes.",
        actual="same in every basis", returned=", ".join(f"{v:.4g}" for v in values[:3]),
    )  # fmt: skip


def measured(design, activations, n_bases):
    own, *others = (
        float(design["measure"](x))
        for x in (activations, *(design["in_another_basis"](activations, seed) for seed in range(n_bases)))
    )
    return own, others


class TestWhichBasesArePrivileged:
    exercise = "which_bases_are_privileged"

    def test_design(self, answer):
        "a change of basis and no more, drawn at random, and a measure that depends on the basis"
        layers = four_layers(GIVEN)
        design = design_of(answer, KEYS, layers)
        expect_sizes(design)
        for name in NAMES:
            activations = layers[name](int(design["n_samples"]))
            expect_turned(activations, design["in_another_basis"](activations, 3), f"in layer {name}")
        expect_random_bases(design)
        expect_of_the_basis(design, layers["A"](int(design["n_samples"])))

    def test_verdicts(self, answer):
        "p and verdict of each of the four layers, when your test is run again"
        layers = four_layers(GIVEN)
        design = design_of(answer, KEYS, layers)
        expect_sizes(design)
        n_bases = int(design["n_bases"])
        for name in NAMES:
            own, others = measured(design, layers[name](int(design["n_samples"])), n_bases)
            p, said = p_value(own, others), design[f"p_{name}"]
            one_sided = (1 + sum(other >= own for other in others)) / (1 + n_bases)
            extreme = min(sum(other >= own for other in others), sum(other <= own for other in others))
            kinds = {"larger only": one_sided, "without itself": min(1.0, 2 * extreme / n_bases)}
            kind = next((k for k, value in kinds.items() if abs(said - value) < 0.3 / (1 + n_bases)), "p")
            expect(
                abs(said - p) < 0.6 / (1 + n_bases),
                f"Run again, your test gives another p for layer {name}: 2 (1 + min(a, b)) / (1 + n), and 1 at most.",
                actual=kind, returned=f"{said:.4f}", expected=f"{p:.4f}",
            )  # fmt: skip
            follows = "privileged" if p <= 0.05 else "not privileged"
            expect(
                design[f"verdict_{name}"] == follows, f"Your verdict on layer {name} does not follow from its p.",
                actual=("verdict", design[f"verdict_{name}"]),
                returned=f"{design[f'verdict_{name}']!r}, with p = {said:.3f}", expected=repr(follows),
            )  # fmt: skip

    def test_other_layers(self, answer):
        "on other layers of the four kinds: finds each of the nonlinearities, and nothing where there is none"
        design = design_of(answer, KEYS, four_layers(GIVEN))
        expect_sizes(design)
        found = {}
        for kind, n in FRESH.items():
            ps = []
            for seed in range(1000, 1000 + n):
                ps.append(p_value(*measured(design, layer(kind, seed)(int(design["n_samples"])), N_FRESH_BASES)))
            found[kind] = sum(p <= 0.05 for p in ps)
        for kind, privileged in KINDS.items():
            if privileged:
                expect(
                    found[kind] >= 4,
                    f"Of {FRESH[kind]} other layers with a {kind} in each neuron your test finds {found[kind]}: your "
                    "measure does not see this kind.",
                    actual=("blind", kind), returned=f"{found[kind]} of {FRESH[kind]}", expected="at least 4",
                )  # fmt: skip
        false = found["turned relu"] + found["gusts"]
        expect(
            false < 6,
            f"Of 12 other layers whose basis is a random one your test calls {false} privileged.",
            actual=("false alarms", false), returned=f"{false} of 12", expected="about 1 in 20",
        )  # fmt: skip

    def test_other_order(self, answer):
        "p and verdict of four other layers, in another order"
        layers = four_layers(20)  # privileged where those that were given are not, and the other way round
        design = design_of(answer, KEYS, layers)
        expect_sizes(design)
        for name in NAMES:
            own, others = measured(design, layers[name](int(design["n_samples"])), int(design["n_bases"]))
            p = p_value(own, others)
            follows = "privileged" if p <= 0.05 else "not privileged"
            expect(
                design[f"verdict_{name}"] == follows,
                "Given four other layers, your verdicts do not follow from their p: the design was made for the layers "
                "that you had looked at.",
                actual=("others", design[f"verdict_{name}"]),
                returned=f"{design[f'verdict_{name}']!r}, p {p:.3f}",
                expected=repr(follows),
            )  # fmt: skip


def test_our_test_finds_the_two_nonlinearities_among_the_given_layers():
    design = which_bases_are_privileged(four_layers(GIVEN))
    kinds = random.Random(GIVEN).sample(sorted(KINDS), len(KINDS))
    for name, kind in zip(NAMES, kinds, strict=True):
        assert (design[f"verdict_{name}"] == "privileged") == KINDS[kind], kind
