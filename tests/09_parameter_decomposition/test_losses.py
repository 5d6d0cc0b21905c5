"""Checks for masks, the two reconstruction losses, and the price."""

from pathlib import Path

import torch

from utils.course.checking import expect, expect_close, expect_shape
from utils.course.paths import load_file

common = load_file(Path(__file__).with_name("common_09a.py"))


def one_sided(output, wanted):
    """A distance that tells its two arguments apart."""
    return (wanted.sigmoid() * (output - wanted)).square().sum() + output.sum()


def problem(rng, size):
    """A network with components, its output, and importances away from 0 and 1, as positional arguments.

    Importances come in another order than that in which the network multiplies: masks are drawn in theirs.
    """
    forward, weights, components, x = common.network(rng, *size)
    importances = {n: 0.1 + 0.8 * m for n, m in reversed(common.random_masks(rng, components, len(x)).items())}
    return forward, weights, components, x, common.own_output(forward, weights, x), importances


class TestSampleMasks:
    exercise = "sample_masks"

    def test_values(self, answer, reference, rng):
        "the masks of a generator, matrix after matrix"
        for shapes in (((4, 3), (4, 5)), ((2, 3, 2), (2, 3, 4)), ((1, 1), (1, 1))):
            g = {f"matrix {9 - i}": torch.rand(shape, generator=rng) for i, shape in enumerate(shapes)}
            seed = int(torch.randint(10**6, (), generator=rng))
            expect_close(answer(g, common.seeded(seed)), reference(g, common.seeded(seed)), rtol=1e-5, atol=1e-6)

    def test_without_generator(self, answer):
        "without a generator: other masks at each call"
        g = {"only": torch.zeros(3, 4)}
        first, second = answer(g)["only"], answer(g)["only"]
        expect(not torch.equal(first, second), "Two calls give the same masks.", actual="the same masks twice")

    def test_bounds(self, answer, rng):
        "anywhere from the importance to 1, with the mean half-way"
        g = {"only": torch.rand(5, generator=rng).expand(4000, 5).clone()}
        m = answer(g, rng)["only"]
        expect(
            bool(((m >= g["only"] - 1e-6) & (m <= 1 + 1e-6)).all()),
            "A mask lies outside [importance, 1].",
            actual=("outside", m.min(), m.max()),
        )
        error = (m.mean(0) - (1 + g["only"][0]) / 2).abs() / (1 - g["only"][0])
        expect(bool((error < 0.03).all()), "The masks' means are not half-way to 1.", actual=("mean", error.max()))

    def test_ends(self, answer, rng):
        "importance 1 is left alone, and below 0 (a shut gate's leak) the formula goes on"
        g = torch.tensor([[1.0, -0.01, 1.0]])
        m = answer({"only": g}, rng)["only"]
        expect_close(m[0, [0, 2]], torch.ones(2), note="Where the importance is 1, the mask is 1.")
        seed = int(torch.randint(10**6, (), generator=rng))
        m, r = answer({"only": g}, common.seeded(seed))["only"], torch.rand(g.shape, generator=common.seeded(seed))
        expect_close(m, g + (1 - g) * r, rtol=1e-5, atol=1e-6)

    def test_gradients(self, answer, rng):
        "gradients reach the importances"
        g, seed = torch.rand(4, 3, generator=rng).requires_grad_(), int(torch.randint(10**6, (), generator=rng))
        m = answer({"only": g}, common.seeded(seed))["only"]
        expect(m.requires_grad, "The masks carry no graph.", actual="requires_grad=False")
        r = torch.rand(g.shape, generator=common.seeded(seed))
        expect_close(torch.autograd.grad(m.sum(), g)[0], 1 - r, note="The gradient is 1 - r.", rtol=1e-4, atol=1e-5)


def expect_reconstruction_values(answer, reference, rng):
    for size in common.SIZES:
        given = problem(rng, size)
        seed = int(torch.randint(10**6, (), generator=rng))
        found = answer(*given, generator=common.seeded(seed))
        expect_shape(found, ())
        expected = reference(*given, generator=common.seeded(seed)).detach()
        expect_close(found.detach(), expected, rtol=1e-3, atol=1e-4)


def expect_another_distance(answer, reference, rng):
    given = problem(rng, (3, 4, 2, 5, 6))
    found = answer(*given, one_sided, common.seeded(3))
    expect_close(found.detach(), reference(*given, one_sided, common.seeded(3)).detach(), rtol=1e-3, atol=1e-4)


def expect_all_needed(answer, rng):
    forward, _, components, x, _, importances = problem(rng, (3, 4, 2, 5, 6))
    weights = {name: c.weight().detach() for name, c in components.items()}
    wanted = common.own_output(forward, weights, x)
    ones = {name: torch.ones_like(g) for name, g in importances.items()}
    found = answer(forward, weights, components, x, wanted, ones, generator=rng)
    expect_close(found.detach(), torch.zeros(()), atol=1e-6)


def expect_reconstruction_gradients(answer, reference, rng):
    *given, importances = problem(rng, (3, 4, 2, 5, 6))
    importances = {name: g.requires_grad_() for name, g in importances.items()}
    inputs = [*common.parameters_of(given[2]), *importances.values()]
    found = answer(*given, importances, generator=common.seeded(8))
    expect(found.requires_grad, "The loss carries no graph.", actual="requires_grad=False")
    found = torch.autograd.grad(found, inputs, allow_unused=True)
    wanted = torch.autograd.grad(reference(*given, importances, generator=common.seeded(8)), inputs)
    names = ["V", "U", "V", "U", "the importances", "the importances"]
    for name, gradient, right in zip(names, found, wanted, strict=True):
        expect(gradient is not None, f"No gradient reaches {name}.", actual=("no gradient", name))
        expect_close(gradient, right, note=f"The gradient for {name} differs.", rtol=1e-3, atol=1e-3)


class TestStochasticReconstructionLoss:
    exercise = "stochastic_reconstruction_loss"

    def test_values(self, answer, reference, rng):
        "random networks and importances, with the masks of a generator"
        expect_reconstruction_values(answer, reference, rng)

    def test_distance(self, answer, reference, rng):
        "another distance, of (output, wanted) in this order"
        expect_another_distance(answer, reference, rng)

    def test_all_needed(self, answer, rng):
        "components that add up, and importances of 1: the output stays"
        expect_all_needed(answer, rng)

    def test_gradients(self, answer, reference, rng):
        "its gradient reaches components and importances"
        expect_reconstruction_gradients(answer, reference, rng)


class TestLayerwiseReconstructionLoss:
    exercise = "layerwise_reconstruction_loss"

    def test_values(self, answer, reference, rng):
        "random networks and importances, with the masks of a generator"
        expect_reconstruction_values(answer, reference, rng)

    def test_distance(self, answer, reference, rng):
        "another distance, of (output, wanted) in this order"
        expect_another_distance(answer, reference, rng)

    def test_all_needed(self, answer, rng):
        "components that add up, and importances of 1: the output stays"
        expect_all_needed(answer, rng)

    def test_gradients(self, answer, reference, rng):
        "its gradient reaches components and importances"
        expect_reconstruction_gradients(answer, reference, rng)

    def test_one_matrix(self, answer, rng):
        "a network of one matrix: the distance on its masked components"
        W, made = torch.randn(3, 2, generator=rng), common.random_components(rng, 3, 2, 4)
        x, g = torch.randn(5, 3, generator=rng), torch.rand(5, 4, generator=rng)
        m = g + (1 - g) * torch.rand(g.shape, generator=common.seeded(2))
        expected = ((x @ made.V * m) @ made.U - x @ W).square().mean().detach()

        def forward(x, linear):
            return linear("only", x)

        given = (forward, {"only": W}, {"only": made}, x, x @ W, {"only": g})
        expect_close(answer(*given, generator=common.seeded(2)).detach(), expected, rtol=1e-3, atol=1e-4)


class TestMinimalityLoss:
    exercise = "minimality_loss"

    def test_values(self, answer, reference, rng):
        "two matrices with different numbers of components, at several exponents"
        for shapes in (((4, 3), (4, 5)), ((2, 3, 2), (2, 3, 4)), ((1, 1), (1, 2))):
            g = {f"matrix {i}": 1.2 * torch.rand(shape, generator=rng) for i, shape in enumerate(shapes)}
            for p in (1.0, 2.0, 0.5):
                found = answer(g, p)
                expect_shape(found, ())
                expect_close(found, reference(g, p), rtol=1e-4, atol=1e-5)

    def test_count(self, answer, rng):
        "with importances 0 and 1: how many are 1 for an input, whatever the exponent"
        on = (torch.rand(7, 6, generator=rng) < 0.4).float()
        for p in (1.0, 2.0):
            expect_close(answer({"a": on, "b": 1 - on}, p), torch.tensor(6.0), rtol=1e-4)

    def test_gradients(self, answer, reference, rng):
        "gradients reach the importances"
        g = {name: torch.rand(4, C, generator=rng).requires_grad_() for name, C in (("a", 3), ("b", 5))}
        for p in (2.0, 1.0):
            found = answer(g, p)
            expect(found.requires_grad, "The price carries no graph.", actual="requires_grad=False")
            found = torch.autograd.grad(found, list(g.values()), allow_unused=True)
            for gradient, right in zip(found, torch.autograd.grad(reference(g, p), list(g.values())), strict=True):
                expect(gradient is not None, "Importances get no gradient.", actual="no gradient")
                expect_close(gradient, right, note="A gradient differs.", rtol=1e-3, atol=1e-4)

    def test_at_zero(self, answer, reference, rng):
        "importances of 0 have finite gradients, also where p is below 1, and are no dead end"
        g = torch.rand(3, 4, generator=rng)
        g[0] = 0
        g.requires_grad_()
        gradient = torch.autograd.grad(answer({"only": g}, 0.5), g)[0]
        expect(bool(gradient.isfinite().all()), "At 0 your gradient is not finite.", actual="not finite")
        wanted = torch.autograd.grad(reference({"only": g}, 0.5), g)[0]
        expect_close(gradient, wanted, note="The gradient at 0 differs.", rtol=1e-3, atol=1e-4)
