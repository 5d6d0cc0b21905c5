"""Checks for rank-one components, their faithfulness, and networks that run on masked components."""

from pathlib import Path

import torch

from utils.course.checking import expect, expect_close, expect_shape
from utils.course.paths import load_file

common = load_file(Path(__file__).with_name("common_09a.py"))
SIZES = ((3, 5, 4, 2), (6, 2, 7, 3), (1, 1, 1, 1))  # d_in, d_out, C, batch


def random_state(rng, d_in, d_out, C):
    return {"V": torch.randn(d_in, C, generator=rng), "U": torch.randn(C, d_out, generator=rng)}


def expect_gradients(found, wanted, names):
    """Each of these gradients is there and right."""
    for name, gradient, right in zip(names, found, wanted, strict=True):
        expect(gradient is not None, f"No gradient reaches {name}.", actual=("no gradient", name))
        expect_close(gradient, right, note=f"The gradient for {name} differs.", rtol=1e-3, atol=1e-4)


class TestRankOneComponents:
    exercise = "RankOneComponents"

    def test_parameters(self, answer):
        "two parameters, with the names and shapes of the docstring"
        for d_in, d_out, C, _ in SIZES:
            module = answer(d_in, d_out, C, generator=common.seeded(0))
            shapes = {name: tuple(value.shape) for name, value in module.state().items()}
            expect(
                shapes == {"V": (d_in, C), "U": (C, d_out)},
                "The parameters' names or shapes differ.",
                actual=sorted(shapes.items()), expected=f"V {(d_in, C)}, U {(C, d_out)}",
            )  # fmt: skip
            expect(
                sorted(module.parameter_names()) == ["U", "V"],
                "Both must be parameters, so that an optimiser finds them.",
                actual=sorted(module.parameter_names()),
            )

    def test_start(self, answer, reference):
        "where they start: as the docstring says, from the generator"
        for d_in, d_out, C, _ in SIZES:
            for seed in (0, 5):
                expected = reference(d_in, d_out, C, generator=common.seeded(seed)).state_dict()
                found = answer(d_in, d_out, C, generator=common.seeded(seed)).state()
                expect_close(found, dict(expected), note="They start elsewhere.")

    def test_sum(self, answer, rng):
        "what comes in times the sum of all components, if there is no mask"
        for d_in, d_out, C, batch in SIZES:
            state = random_state(rng, d_in, d_out, C)
            module = answer(d_in, d_out, C, generator=common.seeded(0))
            module.load(state)
            a = torch.randn(batch, d_in, generator=rng)
            found = module(a).detach()
            expect_shape(found, (batch, d_out))
            expect_close(found, a @ (state["V"] @ state["U"]), rtol=1e-4, atol=1e-4)

    def test_masks(self, answer, rng):
        "with masks: each component of each example is weighted by its own"
        for d_in, d_out, C, batch in SIZES:
            state = random_state(rng, d_in, d_out, C)
            module = answer(d_in, d_out, C, generator=common.seeded(0))
            module.load(state)
            a, mask = torch.randn(batch, d_in, generator=rng), 2 * torch.rand(batch, C, generator=rng)
            each = [row @ (state["V"] * m @ state["U"]) for row, m in zip(a, mask, strict=True)]
            expect_close(module(a, mask).detach(), torch.stack(each), rtol=1e-4, atol=1e-4)
            expect_close(module(a, 0 * mask).detach(), torch.zeros(batch, d_out), note="A mask of 0 takes all away.")

    def test_methods(self, answer, rng):
        "`weight` is the sum, `matrices` are the components one by one"
        for d_in, d_out, C, _ in SIZES:
            state = random_state(rng, d_in, d_out, C)
            module = answer(d_in, d_out, C, generator=common.seeded(0))
            module.load(state)
            each = torch.stack([torch.outer(state["V"][:, c], state["U"][c]) for c in range(C)])
            expect_close(module.method("matrices").detach(), each, rtol=1e-4, atol=1e-4)
            expect_close(module.method("weight").detach(), each.sum(0), rtol=1e-4, atol=1e-4)

    def test_more_dimensions(self, answer, rng):
        "also for [batch, position, dimension]"
        module = answer(4, 3, 6, generator=common.seeded(0))
        module.load(random_state(rng, 4, 3, 6))
        a, mask = torch.randn(2, 5, 4, generator=rng), torch.rand(2, 5, 6, generator=rng)
        flat = module(a.reshape(10, 4), mask.reshape(10, 6)).detach()
        expect_close(module(a, mask).detach(), flat.reshape(2, 5, 3), rtol=1e-4, atol=1e-4)

    def test_gradients(self, answer, reference, rng):
        "gradients reach both parameters and the mask"
        state = random_state(rng, 3, 4, 5)
        theirs, ours = answer(3, 4, 5, generator=common.seeded(0)), reference(3, 4, 5, generator=common.seeded(0))
        theirs.load(state)
        ours.load_state_dict(state)
        a, weigh = torch.randn(6, 3, generator=rng), torch.randn(6, 4, generator=rng)
        mask = torch.rand(6, 5, generator=rng).requires_grad_()
        named = dict(zip(theirs.parameter_names(), theirs.parameters(), strict=True))
        out = theirs(a, mask)
        expect(out.requires_grad, "The result carries no graph.", actual="requires_grad=False")
        found = torch.autograd.grad((out * weigh).sum(), [named["V"], named["U"], mask], allow_unused=True)
        wanted = torch.autograd.grad((ours(a, mask) * weigh).sum(), [ours.V, ours.U, mask])
        expect_gradients(found, wanted, ("V", "U", "the mask"))

    def test_gradients_of_methods(self, answer, rng):
        "gradients reach both parameters through `weight` and `matrices` as well"
        state = random_state(rng, 3, 4, 5)
        module = answer(3, 4, 5, generator=common.seeded(0))
        module.load(state)
        named = dict(zip(module.parameter_names(), module.parameters(), strict=True))
        weigh = torch.randn(3, 4, generator=rng)
        wanted = [weigh @ state["U"].T, state["V"].T @ weigh]
        for method in ("weight", "matrices"):
            found = module.method(method)
            expect(found.requires_grad, f"`{method}` carries no graph.", actual=("requires_grad=False", method))
            found = torch.autograd.grad((found * weigh).sum(), [named["V"], named["U"]], allow_unused=True)
            expect_gradients(found, wanted, ("V", "U"))


class TestFaithfulnessLoss:
    exercise = "faithfulness_loss"

    def test_values(self, answer, reference, rng):
        "two matrices of different sizes, with components that don't add up to them"
        for size in common.SIZES:
            _, weights, components, _ = common.network(rng, *size)
            found = answer(weights, components)
            expect_shape(found, ())
            expect_close(found.detach(), reference(weights, components).detach(), rtol=1e-4, atol=1e-5)

    def test_one_matrix(self, answer, rng):
        "one matrix: the mean over its entries of the squared errors"
        made, W = common.random_components(rng, 4, 3, 5), torch.randn(4, 3, generator=rng)
        expected = (W - (made.V @ made.U).detach()).square().sum() / 12
        expect_close(answer({"only": W}, {"only": made}).detach(), expected, rtol=1e-4, atol=1e-5)

    def test_names(self, answer, reference, rng):
        "components belong to matrices by name, in whatever order they come"
        components = {name: common.random_components(rng, 4, 3, 5) for name in ("a", "b")}
        weights = {name: torch.randn(4, 3, generator=rng) for name in ("b", "a")}
        found = answer(weights, components).detach()
        expect_close(found, reference(weights, components).detach(), rtol=1e-4, atol=1e-5)

    def test_exact(self, answer, rng):
        "components that add up: 0"
        made = {"a": common.random_components(rng, 4, 3, 5), "b": common.random_components(rng, 2, 6, 3)}
        weights = {name: c.weight().detach() for name, c in made.items()}
        expect_close(answer(weights, made).detach(), torch.zeros(()), atol=1e-6)

    def test_gradients(self, answer, reference, rng):
        "its gradient reaches the components"
        _, weights, components, _ = common.network(rng, 3, 4, 2, 5, 1)
        found, parameters = answer(weights, components), common.parameters_of(components)
        expect(found.requires_grad, "The loss carries no graph.", actual="requires_grad=False")
        wanted = torch.autograd.grad(reference(weights, components), parameters)
        expect_gradients(torch.autograd.grad(found, parameters, allow_unused=True), wanted, ["V", "U"] * 2)


class TestMaskedForward:
    exercise = "masked_forward"

    def test_values(self, answer, reference, rng):
        "both matrices on masked components; masks differ by example"
        for size in common.SIZES:
            forward, weights, components, x = common.network(rng, *size)
            masks = common.random_masks(rng, components, len(x))
            found = answer(forward, weights, components, x, masks)
            expected = reference(forward, weights, components, x, masks).detach()
            expect_shape(found, tuple(expected.shape))
            expect_close(found.detach(), expected, rtol=1e-4, atol=1e-4)

    def test_some(self, answer, reference, rng):
        "a matrix that has no mask multiplies by its own weights, and not by its components"
        forward, weights, components, x = common.network(rng, 3, 4, 2, 5, 6)
        masks = common.random_masks(rng, components, len(x))
        for some in ({}, {"first": masks["first"]}, {"second": masks["second"]}):
            expected = reference(forward, weights, components, x, some).detach()
            expect_close(answer(forward, weights, components, x, some).detach(), expected, rtol=1e-4, atol=1e-4)

    def test_none_left(self, answer, rng):
        "masks of 0 throughout take all components of a matrix away"
        forward, weights, components, x = common.network(rng, 3, 4, 2, 5, 6)
        found = answer(forward, weights, components, x, {"second": torch.zeros(len(x), 6)}).detach()
        expect_close(found, torch.zeros(len(x), 2))

    def test_whole(self, answer, rng):
        "masks of 1 and components that add up: the network's own output"
        forward, _, components, x = common.network(rng, 3, 4, 2, 5, 6)
        weights = {name: c.weight().detach() for name, c in components.items()}
        masks = {name: torch.ones(len(x), c.V.shape[1]) for name, c in components.items()}
        own = common.own_output(forward, weights, x)
        expect_close(answer(forward, weights, components, x, masks).detach(), own, rtol=1e-4, atol=1e-4)

    def test_another_network(self, answer, rng):
        "a network that multiplies by one matrix twice, on inputs [batch, position, dimension]"
        W, made = torch.randn(3, 3, generator=rng), common.random_components(rng, 3, 3, 4)
        x, mask = torch.randn(2, 5, 3, generator=rng), torch.rand(2, 5, 4, generator=rng)

        def forward(x, linear):
            return x + linear("only", torch.relu(linear("only", x)))

        def times(a):
            return (a @ made.V.detach() * mask) @ made.U.detach()

        found = answer(forward, {"only": W}, {"only": made}, x, {"only": mask}).detach()
        expect_close(found, x + times(torch.relu(times(x))), rtol=1e-4, atol=1e-4)

    def test_gradients(self, answer, reference, rng):
        "its gradient reaches components and masks"
        forward, weights, components, x = common.network(rng, 3, 4, 2, 5, 6)
        masks = {name: m.requires_grad_() for name, m in common.random_masks(rng, components, len(x)).items()}
        inputs = [*common.parameters_of(components), *masks.values()]
        weigh = torch.randn(len(x), 2, generator=rng)
        found = answer(forward, weights, components, x, masks)
        expect(found.requires_grad, "The output carries no graph.", actual="requires_grad=False")
        found = torch.autograd.grad((found * weigh).sum(), inputs, allow_unused=True)
        wanted = torch.autograd.grad((reference(forward, weights, components, x, masks) * weigh).sum(), inputs)
        expect_gradients(found, wanted, ["V", "U", "V", "U", "a mask", "a mask"])
