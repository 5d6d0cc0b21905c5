"""Checks for the leaky hard sigmoids, the gates, and the importances that they give."""

from pathlib import Path

import torch

from utils.course.checking import expect, expect_close, expect_same_gradients, expect_shape
from utils.course.paths import load_file
from utils.spd.gates import ComponentGates

common = load_file(Path(__file__).with_name("common_09a.py"))
SIZES = ((3, 4, 5), (5, 2, 1), (1, 1, 2))  # C, d_gate, batch
SHAPES = ((7,), (2, 3), (1,), ())


def logits(rng, *shape):
    """Numbers on all three pieces, none within a hundredth of a corner."""
    x = 4 * torch.rand(shape, generator=rng) - 1.5
    for corner in (0.0, 1.0):
        x = torch.where((x - corner).abs() < 0.01, x + 0.02, x)
    return x


def random_gates(rng, C, d_gate):
    gates = ComponentGates(C, d_gate)
    gates.load_state_dict(random_state(rng, C, d_gate))
    return gates


def random_state(rng, C, d_gate):
    shapes = {"W_in": (C, d_gate), "b_in": (C, d_gate), "W_out": (C, d_gate), "b_out": (C,)}
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def expect_sigmoid_values(answer, reference, rng):
    for shape in SHAPES:
        x = logits(rng, *shape)
        found = answer(x)
        expect_shape(found, shape)
        expect_close(found, reference(x), rtol=1e-5, atol=1e-6)


def expect_sigmoid_far_outside(answer, reference):
    x = torch.tensor([-200.0, -30.0, 0.0, 1.0, 40.0, 300.0])
    expect_close(answer(x), reference(x), rtol=1e-5, atol=1e-6)


class TestLowerLeakyHardSigmoid:
    exercise = "lower_leaky_hard_sigmoid"

    def test_values(self, answer, reference, rng):
        "numbers below 0, between 0 and 1, and above, of any shape"
        expect_sigmoid_values(answer, reference, rng)

    def test_far(self, answer, reference):
        "far outside, and at the corners"
        expect_sigmoid_far_outside(answer, reference)

    def test_slopes(self, answer, reference, rng):
        "the slope of each of the three pieces"
        expect_same_gradients(answer, reference, logits(rng, 40), rng=rng)


class TestUpperLeakyHardSigmoid:
    exercise = "upper_leaky_hard_sigmoid"

    def test_values(self, answer, reference, rng):
        "numbers below 0, between 0 and 1, and above, of any shape"
        expect_sigmoid_values(answer, reference, rng)

    def test_far(self, answer, reference):
        "far outside, and at the corners"
        expect_sigmoid_far_outside(answer, reference)

    def test_slopes(self, answer, reference, rng):
        "the slope of each of the three pieces"
        expect_same_gradients(answer, reference, logits(rng, 40), rng=rng)


class TestComponentGates:
    exercise = "ComponentGates"

    def test_parameters(self, answer):
        "four parameters, with the names and shapes of the docstring"
        for C, d_gate, _ in SIZES:
            module = answer(C, d_gate, generator=common.seeded(0))
            shapes = {name: tuple(value.shape) for name, value in module.state().items()}
            expected = {"W_in": (C, d_gate), "b_in": (C, d_gate), "W_out": (C, d_gate), "b_out": (C,)}
            expect(
                shapes == expected,
                "The parameters' names or shapes differ.",
                actual=sorted(shapes.items()), expected=str(expected),
            )  # fmt: skip
            expect(
                sorted(module.parameter_names()) == sorted(expected),
                "All four must be parameters, so that an optimiser finds them.",
                actual=sorted(module.parameter_names()),
            )

    def test_start(self, answer, reference):
        "where they start: as the docstring says, from the generator; 16 neurons if nothing is said"
        for C, d_gate, _ in SIZES:
            expected = reference(C, d_gate, generator=common.seeded(4)).state_dict()
            found = answer(C, d_gate, generator=common.seeded(4)).state()
            expect_close(found, dict(expected), note="They start elsewhere.")
        expect_shape(answer(3, generator=common.seeded(0)).state()["W_in"], (3, 16))

    def test_values(self, answer, reference, rng):
        "with random weights and biases: the MLPs' outputs, before any sigmoid"
        for C, d_gate, batch in SIZES:
            state = random_state(rng, C, d_gate)
            module, ours = answer(C, d_gate, generator=common.seeded(0)), reference(C, d_gate)
            module.load(state)
            ours.load_state_dict(state)
            h = torch.randn(batch, C, generator=rng)
            found = module(h).detach()
            expect_shape(found, (batch, C))
            expect_close(found, ours(h).detach(), rtol=1e-4, atol=1e-4)

    def test_separate(self, answer, rng):
        "a component's output depends on its own number alone"
        module = answer(4, 3, generator=common.seeded(0))
        module.load(random_state(rng, 4, 3))
        h = torch.randn(6, 4, generator=rng)
        changed = h.clone()
        changed[:, 2] += 1
        before, after = module(h).detach(), module(changed).detach()
        others = [0, 1, 3]
        expect_close(after[:, others], before[:, others], note="Another component's number changes this one's output.")

    def test_more_dimensions(self, answer, rng):
        "also for [batch, position, component]"
        module = answer(4, 3, generator=common.seeded(0))
        module.load(random_state(rng, 4, 3))
        h = torch.randn(2, 5, 4, generator=rng)
        expect_close(module(h).detach(), module(h.reshape(10, 4)).detach().reshape(2, 5, 4), rtol=1e-4, atol=1e-4)

    def test_gradients(self, answer, reference, rng):
        "gradients reach all four parameters and what comes in"
        state = random_state(rng, 3, 4)
        theirs, ours = answer(3, 4, generator=common.seeded(0)), reference(3, 4)
        theirs.load(state)
        ours.load_state_dict(state)
        h, weigh = torch.randn(5, 3, generator=rng).requires_grad_(), torch.randn(5, 3, generator=rng)
        named, out = dict(zip(theirs.parameter_names(), theirs.parameters(), strict=True)), theirs(h)
        expect(out.requires_grad, "The result carries no graph.", actual="requires_grad=False")
        names = sorted(state)
        found = torch.autograd.grad((out * weigh).sum(), [*(named[n] for n in names), h], allow_unused=True)
        wanted = torch.autograd.grad((ours(h) * weigh).sum(), [*(getattr(ours, n) for n in names), h])
        for name, gradient, right in zip([*names, "h"], found, wanted, strict=True):
            expect(gradient is not None, f"No gradient reaches {name}.", actual=("no gradient", name))
            expect_close(gradient, right, note=f"The gradient for {name} differs.", rtol=1e-3, atol=1e-4)


class TestCausalImportance:
    exercise = "causal_importance"

    def test_for_masks(self, answer, reference, rng):
        "the first of two: lower-leaky, for masks"
        self.expect_part(0, answer, reference, rng)

    def test_for_price(self, answer, reference, rng):
        "the second of two: upper-leaky, for the price"
        self.expect_part(1, answer, reference, rng)

    @staticmethod
    def expect_part(i, answer, reference, rng):
        """The i-th importances of random gates, in three sizes."""
        for C, d_gate, batch in ((30, 4, 5), (20, 2, 1), (1, 1, 40)):
            gates, V = random_gates(rng, C, d_gate), torch.randn(6, C, generator=rng)
            a = torch.randn(batch, 6, generator=rng)
            found = answer(gates, V, a)
            expect(
                isinstance(found, tuple) and len(found) == 2,
                "The result is a tuple of two: for masks, and for the price.",
                actual=type(found).__name__,
            )
            expect_shape(found[i], (batch, C))
            expect_close(found[i].detach(), reference(gates, V, a)[i].detach(), rtol=1e-4, atol=1e-4)

    def test_more_dimensions(self, answer, rng):
        "also for [batch, position, dimension]"
        gates, V = random_gates(rng, 4, 3), torch.randn(6, 4, generator=rng)
        a = torch.randn(2, 5, 6, generator=rng)
        flat = answer(gates, V, a.reshape(10, 6))
        for part, expected in zip(answer(gates, V, a), flat, strict=True):
            expect_close(part.detach(), expected.detach().reshape(2, 5, 4), rtol=1e-4, atol=1e-4)

    def test_gradients(self, answer, reference, rng):
        "gradients of both reach the gates and V"
        gates, V = random_gates(rng, 8, 3), torch.randn(6, 8, generator=rng).requires_grad_()
        a, weigh = torch.randn(12, 6, generator=rng), torch.randn(12, 8, generator=rng)
        inputs = [V, *gates.parameters()]
        for i, name in enumerate(("for masks", "for the price")):
            part = answer(gates, V, a)[i]
            expect(part.requires_grad, f"The importances {name} carry no graph.", actual=("no graph", i))
            found = torch.autograd.grad((part * weigh).sum(), inputs, allow_unused=True)
            wanted = torch.autograd.grad((reference(gates, V, a)[i] * weigh).sum(), inputs)
            for gradient, right in zip(found, wanted, strict=True):
                expect(gradient is not None, "The gates or V get no gradient.", actual=("no gradient", i))
                expect_close(gradient, right, note="A gradient differs.", rtol=1e-3, atol=1e-3)
