"""Checks for the loss of one batch and the training loop of stochastic parameter decomposition."""

import torch

from utils.course.checking import expect, expect_close
from utils.spd.components import RankOneComponents
from utils.spd.gates import ComponentGates

LOSSES = ("faithfulness", "stochastic", "layerwise", "minimality")


def drawn_seed(rng):
    return int(torch.randint(1_000_000, (), generator=rng))


def network(rng, sizes):
    """Two or three matrices with a bias and a ReLU behind the last."""
    names = ("first", "second", "third")[: len(sizes) - 1]
    weights = {name: torch.randn(a, b, generator=rng) for name, a, b in zip(names, sizes, sizes[1:], strict=False)}
    bias = torch.randn(sizes[-1], generator=rng)

    def forward(x, linear):
        for name in names:
            x = linear(name, x)
        return (x + bias).relu() + 0.1 * x

    return forward, weights


def parts(rng, weights, C, d_gate=5):
    """Components and gates with no parameter at 0; importances below 0, between and above 1 all occur."""
    components = {name: RankOneComponents(*W.shape, C) for name, W in weights.items()}
    gates = {name: ComponentGates(C, d_gate) for name in weights}
    with torch.no_grad():
        for module in (*components.values(), *gates.values()):
            for q in module.parameters():
                q.copy_(torch.randn(q.shape, generator=rng))
        for name in weights:
            gates[name].b_out.copy_(torch.linspace(-1.5, 2.5, C) + 0.1 * torch.randn(C, generator=rng))
    return components, gates


def generator(seed):
    return torch.Generator().manual_seed(seed)


def absolute(output, wanted):
    return (output - wanted).abs().sum()


class TestSpdLosses:
    exercise = "spd_losses"

    def given(self, rng, sizes=(4, 3, 5), C=6, batch=7):
        forward, weights = network(rng, sizes)
        components, gates = parts(rng, weights, C)
        return forward, weights, components, gates, torch.randn(batch, sizes[0], generator=rng)

    def test_values(self, answer, reference, rng):
        "faithfulness and both reconstruction losses, for two and three matrices and another distance"
        for sizes, C, batch, p, distance in (((4, 3, 5), 6, 7, 1.0, None), ((2, 6, 3, 4), 5, 9, 1.7, absolute)):
            given, seed = self.given(rng, sizes, C, batch), drawn_seed(rng)
            more = {} if distance is None else {"distance": distance}
            found = answer(*given, p=p, generator=generator(seed), **more)
            wanted = reference(*given, p=p, generator=generator(seed), **more)
            expect(
                isinstance(found, dict) and set(found) == set(LOSSES),
                f"A dict with the keys {', '.join(LOSSES)} is returned.",
                actual=sorted(found) if isinstance(found, dict) else type(found).__name__,
            )
            for name in LOSSES[:3]:
                expect_close(found[name], wanted[name], rtol=1e-4, atol=1e-5, note=f"The {name} loss differs.")

    def test_price(self, answer, reference, rng):
        "the minimality loss, with several exponents"
        given = self.given(rng)
        for p in (1.0, 1.7):
            found, wanted = (
                losses(*given, p=p, generator=generator(0))["minimality"] for losses in (answer, reference)
            )
            expect_close(found, wanted, rtol=1e-4, atol=1e-5, note="The minimality loss differs.")

    def test_gradients(self, answer, reference, rng):
        "gradients of each loss, for components and gates"
        given, seed = self.given(rng), drawn_seed(rng)
        learnt = {
            f"{kind} {key} of {name!r}": q
            for kind, modules in (("the gates'", given[3]), ("the components'", given[2]))
            for name, module in modules.items()
            for key, q in module.named_parameters()
        }
        pulls = []
        for losses in (answer, reference):
            found = losses(*given, p=0.9, generator=generator(seed))
            pulls.append({})
            for name in LOSSES:
                expect(found[name].requires_grad, f"The {name} loss has no gradient.", actual=("no gradient", name))
                pulls[-1][name] = torch.autograd.grad(
                    found[name], list(learnt.values()), allow_unused=True, retain_graph=True
                )
        for name in LOSSES:
            for place, a, b in zip(learnt, pulls[0][name], pulls[1][name], strict=True):
                zero = torch.zeros_like(learnt[place])
                expect_close(
                    zero if a is None else a, zero if b is None else b, rtol=1e-3, atol=1e-5,
                    note=f"The gradient of the {name} loss for {place} differs.",
                )  # fmt: skip

    def test_the_target_is_data(self, answer, rng):
        "no gradient reaches the network's own weights through what it puts out or what comes in"
        forward, weights, *rest = self.given(rng)
        leaves = {name: W.clone().requires_grad_() for name, W in weights.items()}
        found = answer(forward, leaves, *rest, p=1.0, generator=generator(0))
        pull = torch.autograd.grad(found["stochastic"] + found["minimality"], list(leaves.values()), allow_unused=True)
        expect(
            all(g is None or not g.any() for g in pull),
            "A gradient reaches the network's own weights: its output and the inputs of its matrices are data.",
            actual="through the target",
        )


class TestTrainSpd:
    exercise = "train_spd"

    def settings(self, rng):
        forward, weights = network(rng, (4, 2, 3))
        return forward, weights, lambda g: torch.rand(6, 4, generator=g)

    @staticmethod
    def expect_same(found, wanted, note=""):
        for name in wanted.components:
            for kind, ours, theirs in (
                ("components", found.components, wanted.components),
                ("gates", found.gates, wanted.gates),
            ):
                for key, q in theirs[name].named_parameters():
                    expect_close(
                        getattr(ours[name], key).detach(), q, rtol=2e-3, atol=2e-4,
                        note=note or f"After training, {key} of the {kind} of {name!r} differs.",
                    )  # fmt: skip

    def test_values(self, answer, reference, rng):
        "after a few steps, with a price, an exponent and a rate of their own"
        for C, n_steps, more in ((5, 6, {"lr": 0.02}), (3, 6, {"p": 2.5, "price": 2.0, "lr": 0.05})):
            given, seed = self.settings(rng), drawn_seed(rng)
            more = {"C": C, "n_steps": n_steps, "price": 0.3, "seed": seed, **more}
            self.expect_same(answer(*given, **more), reference(*given, **more))

    def test_weights_of_the_losses(self, answer, reference, rng):
        "each loss has its weight, those that are not named 1; another distance"
        given = self.settings(rng)
        for weigh in ({"stochastic": 7.0}, {"faithfulness": 20.0, "layerwise": 0.0}):
            more = {"C": 4, "n_steps": 3, "price": 0.1, "lr": 0.01, "weigh": weigh, "distance": absolute}
            self.expect_same(answer(*given, **more), reference(*given, **more))

    def test_rate(self, answer, reference, rng):
        "the learning rate falls along half a cosine"
        given = self.settings(rng)
        more = {"C": 4, "n_steps": 9, "price": 0.1, "lr": 0.1}
        self.expect_same(
            answer(*given, **more), reference(*given, **more),
            "After nine steps the parameters differ: is the rate of step t lr · (1 + cos(π t / n_steps)) / 2?",
        )  # fmt: skip

    def test_history(self, answer, reference, rng):
        "the losses as they were recorded, unweighted"
        given = self.settings(rng)
        for n_steps, every in ((7, 3), (4, 9)):
            more = {"C": 3, "n_steps": n_steps, "price": 0.2, "every": every, "weigh": {"stochastic": 3.0}}
            found, wanted = answer(*given, **more).history, reference(*given, **more).history
            expect(
                set(found) == set(wanted), "The history's keys are the losses' names and 'step'.",
                actual=sorted(found),
            )  # fmt: skip
            expect_close(list(found["step"]), wanted["step"], note="Other steps were recorded.")
            for name in LOSSES:
                expect(
                    not any(isinstance(v, torch.Tensor) for v in found[name]), "The history holds tensors.",
                    actual="tensors",
                )  # fmt: skip
                expect_close(
                    [float(v) for v in found[name]], wanted[name], rtol=5e-3, atol=1e-4,
                    note=f"The record of the {name} loss differs.",
                )  # fmt: skip

    def test_start(self, answer, rng):
        "given a start it goes on from there, in place; what comes back asks for no gradient"
        forward, weights, batches = self.settings(rng)
        components, gates = parts(rng, weights, 4)
        before = {name: part.V.detach().clone() for name, part in components.items()}
        found = answer(forward, weights, batches, C=4, n_steps=3, price=0.1, lr=1e-3, start=(components, gates))
        for name, V in before.items():
            moved = (found.components[name].V.detach() - V).abs().max()
            expect(
                0 < moved < 0.01, "Three small steps from the start given should move V a little.",
                actual=("start", "not at all" if moved == 0 else "far" if moved < 0.5 else "elsewhere"),
            )  # fmt: skip
            expect(
                torch.equal(components[name].V, found.components[name].V), "The start was not trained in place.",
                actual="a copy",
            )  # fmt: skip
            for module in (found.components[name], found.gates[name]):
                expect(
                    not any(q.requires_grad for q in module.parameters()),
                    "What is returned still asks for gradients.", actual="asks for gradients",
                )  # fmt: skip
