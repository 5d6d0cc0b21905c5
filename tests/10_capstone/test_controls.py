"""Checks for effects at an equal cost, and for the test that could refute a name."""

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape


class TestEffectAtEqualCost:
    exercise = "effect_at_equal_cost"

    def tables(self, rng, n_directions, n_doses):
        effect = torch.randn(n_directions, n_doses, generator=rng).cumsum(1)
        return effect, (0.1 + torch.rand(n_directions, n_doses, generator=rng)).cumsum(1)

    def test_values(self, answer, reference, rng):
        "random tables of several sizes, budgets within the doses"
        for n_directions, n_doses in ((3, 5), (1, 4), (5, 2)):
            effect, cost = self.tables(rng, n_directions, n_doses)
            for budget in (0.3 * cost[:, -1].min().item(), 0.9 * cost[:, -1].min().item()):
                found = answer(effect, cost, budget)
                expect_shape(found, (n_directions,))
                expect_close(found, reference(effect, cost, budget), rtol=1e-3, atol=1e-4)

    def test_before_the_first_dose(self, answer):
        "a budget that is reached before the first dose: from 0 on in a straight line"
        found = answer(torch.tensor([[4.0, 5.0], [-2.0, 9.0]]), torch.tensor([[2.0, 3.0], [8.0, 9.0]]), 1.0)
        expect_close(found, torch.tensor([2.0, -0.25]), rtol=1e-4)

    def test_at_a_dose(self, answer):
        "a budget that is just a dose's cost"
        effect, cost = torch.tensor([[1.0, 5.0, 7.0]] * 2), torch.tensor([[0.5, 1.5, 4.0], [0.5, 1.0, 1.5]])
        expect_close(answer(effect, cost, 1.5), torch.tensor([5.0, 7.0]), rtol=1e-4)

    def test_first_crossing(self, answer):
        "a cost that falls again: the smallest dose counts"
        effect, cost = torch.tensor([[1.0, 2.0, 3.0, 4.0]] * 2), torch.tensor([[1.0, 3, 1, 5], [1.5, 1, 3, 5]])
        expect_close(answer(effect, cost, 2.0), torch.tensor([1.5, 2.5]), rtol=1e-4)

    def test_never_reached(self, answer):
        "NaN where the cost stays below the budget, and only there"
        found = answer(torch.tensor([[1.0, 9.0], [1.0, 9.0]]), torch.tensor([[0.5, 0.9], [1.0, 3.0]]), 2.0)
        expect(
            bool(found[0].isnan()), "A direction whose cost never reaches the budget has no effect at it: NaN.",
            actual=("no NaN", float(found[0])), returned=str(found.tolist()),
        )  # fmt: skip
        expect_close(found[1:], torch.tensor([5.0]), rtol=1e-4)

    def test_bad_input(self, answer, rng):
        "tables of different shapes, without a dose, or a budget of 0"
        effect, cost = self.tables(rng, 3, 4)
        expect_raises(ValueError, answer, effect, cost[:, :3], 0.5)
        expect_raises(ValueError, answer, effect[:, :0], cost[:, :0], 0.5)
        expect_raises(ValueError, answer, effect, cost, 0.0)


class TestRefutationTest:
    exercise = "refutation_test"

    def expect(self, answer, reference, named, others, *args):
        found = answer(named, others, *args)
        expect(
            isinstance(found, tuple) and len(found) == 2, "Two things are returned: (effects, verdict).",
            actual=type(found).__name__,
        )  # fmt: skip
        effects, verdict = reference(named, others, *args)
        expect(
            list(found[0]) == list(effects), "The effects have other keys, or another order.",
            actual=("keys", *found[0]), returned=str(list(found[0])), expected=str(list(effects)),
        )  # fmt: skip
        expect_close(dict(found[0]), effects, rtol=1e-3, atol=1e-5, note="An effect differs.")
        expect(
            found[1] == verdict, f"The verdict here is {verdict!r}.",
            actual=("verdict", verdict, found[1]), returned=repr(found[1]), expected=repr(verdict),
        )  # fmt: skip

    def around(self, rng, mean, width, n):
        "Values with this mean exactly, and this standard deviation."
        values = torch.randn(n, generator=rng).double()
        values = (values - values.mean()) / values.std()
        return mean + width * values

    def test_verdicts(self, answer, reference, rng):
        "a name that stands, one that is refuted, one that stays open"
        given = {(0.3, -0.4): 0.5, (0.3, 4.0): 0.5, (2.7, 0.1): 0.6, (2.4, 0.1): 1.5, (0.0, 0.0): 9.0}
        for others, width in given.items():
            n = int(torch.randint(6, 12, (), generator=rng))
            named = self.around(rng, 5.0, width, n)
            rivals = {f"other {i}": self.around(rng, mean, width, n + i) for i, mean in enumerate(others)}
            self.expect(answer, reference, named, rivals)

    def test_negative_rival(self, answer, reference, rng):
        "another property that moves the measure the other way counts as well"
        self.expect(answer, reference, self.around(rng, 5.0, 0.5, 8), {"last": self.around(rng, -16.0, 0.5, 8)})
        self.expect(answer, reference, self.around(rng, 5.0, 0.5, 8), {"last": self.around(rng, -2.3, 0.6, 8)})

    def test_no_effect(self, answer, reference, rng):
        "a named effect that may be 0, or is negative, refutes the name"
        rival = {"other": self.around(rng, 0.01, 0.01, 8)}
        self.expect(answer, reference, self.around(rng, 0.5, 2.0, 8), rival)
        self.expect(answer, reference, self.around(rng, -5.0, 0.5, 8), rival)

    def test_any_rival(self, answer, reference, rng):
        "one rival among several is enough, wherever it stands"
        strong, weak = self.around(rng, 4.0, 0.3, 8), self.around(rng, 0.1, 0.3, 8)
        self.expect(answer, reference, self.around(rng, 5.0, 0.5, 9), {"a": strong, "b": weak, "c": weak + 0.05})
        self.expect(answer, reference, self.around(rng, 5.0, 0.5, 9), {"a": weak, "b": weak + 0.05, "c": strong})

    def test_tolerance(self, answer, reference, rng):
        "the tolerance is the caller's"
        named, rival = self.around(rng, 5.0, 0.4, 8), {"other": self.around(rng, 1.5, 0.3, 7)}
        for tolerance in (0.1, 0.5, 0.9):
            self.expect(answer, reference, named, rival, tolerance)

    def test_limit(self, answer, reference, rng):
        "the limit is a share of the mean, however wide the named effect's interval is"
        self.expect(answer, reference, self.around(rng, 5.0, 1.2, 8), {"last": self.around(rng, 2.2, 0.1, 8)})

    def test_bad_input(self, answer, rng):
        "without another property there is no test; 'named' is taken"
        named = self.around(rng, 5.0, 0.4, 8)
        expect_raises(ValueError, answer, named, {})
        expect_raises(ValueError, answer, named, {"named": named})
