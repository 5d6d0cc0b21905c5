"""Checks for the comparison of two circuits."""

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape


def effects(rng, n_layers=3, n_heads=4):
    return torch.randn(n_layers, n_heads, generator=rng)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class TestCircuitOverlap:
    exercise = "circuit_overlap"

    def overlap(self, answer, first, second):
        found = answer(first, second, 0, generator())
        expect(
            isinstance(found, tuple) and len(found) == 2,
            "Two things are asked for: the overlap, and the draws.",
            actual=type(found).__name__,
        )
        return found[0]

    def test_values(self, answer, reference, rng):
        "random effects of both signs, in several sizes"
        for sizes in ((3, 4), (2, 5), (4, 1), (1, 6)):
            first, second = effects(rng, *sizes), effects(rng, *sizes)
            expect_close(self.overlap(answer, first, second), reference(first, second, 0, generator())[0], atol=1e-5)

    def test_the_same(self, answer, rng):
        "1 for the same effects, larger or smaller, and with the heads of each layer in another order"
        first = effects(rng)
        for second in (first, 7 * first, first[:, torch.randperm(4, generator=rng)]):
            expect_close(self.overlap(answer, first, second), 1.0, atol=1e-5)

    def test_nothing_in_common(self, answer, rng):
        "0 for opposite signs, and for effects in other layers"
        first = effects(rng).abs()
        expect_close(self.overlap(answer, first, -first), 0.0, atol=1e-5)
        first[0], second = 0.0, torch.zeros(3, 4)
        second[0] = 1.0
        expect_close(self.overlap(answer, first, second), 0.0, atol=1e-5)

    def test_by_hand(self, answer):
        "two layers of two heads: a = [3 1 | 2 -2] / 8, b = [1 1 | 4 2] / 8 have (1 + 1 + 2 + 0) / 8 in common"
        first, second = torch.tensor([[3.0, 1.0], [2.0, -2.0]]), torch.tensor([[1.0, 1.0], [4.0, 2.0]])
        expect_close(self.overlap(answer, first, second), 0.5 / 1.5, atol=1e-5)

    def test_draws(self, answer, rng):
        "each draw is the overlap of some dealing of the places, over all layers, and all dealings come"
        first, second = torch.tensor([[5.0, 1.0], [0.5, -2.0]]), torch.tensor([[4.0, -1.0], [2.5, 0.3]])
        orders = torch.cartesian_prod(*[torch.arange(4)] * 4)
        orders = [order for order in orders if len(set(order.tolist())) == 4]
        possible = torch.tensor([self.overlap(answer, first, second.flatten()[order].view(2, 2)) for order in orders])
        _, draws = answer(first, second, 600, rng)
        expect_shape(draws, (600,), note="Not as many draws as were asked for.")
        far = (draws[:, None].double() - possible.double()).abs().min(1).values.max()
        expect(
            far < 1e-4,
            "A draw is not the overlap of any dealing of the second model's effects.",
            actual="no dealing",
            returned=f"{far:.3g} away",
        )
        kinds = possible.double().mul(1e4).round().unique()
        seen = draws.double().mul(1e4).round().unique()
        expect(
            len(seen) >= len(kinds) - 1,
            "Some dealings never come: over all layers, each place is as likely as any.",
            actual="too few",
            returned=f"{len(seen)} of {len(kinds)} values",
        )
        mean, spread = possible.double().mean(), possible.double().std() / 600**0.5
        expect(
            (draws.double().mean() - mean).abs() < 5 * spread, "Your dealings are not equally likely.", actual="uneven",
            returned=f"mean {draws.double().mean():.3f}", expected=f"{mean:.3f}",
        )  # fmt: skip

    def test_the_generator_draws(self, answer, rng):
        "the same seed gives the same draws, another seed others"
        first, second = effects(rng), effects(rng)
        one, same, other = (answer(first, second, 20, generator(seed))[1] for seed in (1, 1, 2))
        expect_close(same, one, note="The same seed gives other draws")
        expect(
            not torch.equal(torch.as_tensor(one), torch.as_tensor(other)),
            "Another seed gives the same draws.",
            actual="same",
        )

    def test_bad_input(self, answer, rng):
        "two shapes, or a model without any effect"
        first = effects(rng)
        for a, b in ((first, first[:2]), (first, torch.zeros(3, 4)), (torch.zeros(3, 4), first), (first, first.T)):
            expect_raises(ValueError, answer, a, b, 3, generator())
