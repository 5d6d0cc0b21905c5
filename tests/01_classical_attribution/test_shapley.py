"""Checks for Shapley values: coalitions and their values, exact values, the kernel, and two estimators."""

import itertools
import math

import torch

from utils.attribution.shapley import shapley_exact
from utils.course.checking import AnswerRaised, expect, expect_close, expect_raises, expect_shape

EXACT = torch.float64


def normal(rng, *shape, dtype=EXACT):
    return torch.randn(shape, generator=rng, dtype=dtype)


def seeded(rng):
    """A function that makes generators which all begin alike."""
    seed = int(torch.randint(2**31, (), generator=rng))
    return lambda: torch.Generator().manual_seed(seed)


def bent_model(rng, n_features, dtype=EXACT):
    """A smooth function in which all features interact."""
    W, v = normal(rng, n_features, 5, dtype=dtype), normal(rng, 5, dtype=dtype)
    return lambda X: torch.tanh(X @ W) @ v + X[:, 0] * X[:, -1] + 1


def additive_model(rng, n_features, dtype=EXACT):
    """A sum of functions of one feature each: whatever the order, a feature is due its own part."""
    a, b = normal(rng, n_features, dtype=dtype), normal(rng, n_features, dtype=dtype)
    return (
        lambda X: (torch.sin(2 * X) * a + X.square() * b).sum(-1) + 3,
        lambda X: torch.sin(2 * X) * a + X.square() * b,
    )


def case(rng, n_features, n_background, dtype=EXACT):
    """An input and a background; no column of it has mean zero."""
    background = normal(rng, n_background, n_features, dtype=dtype) + normal(rng, n_features, dtype=dtype)
    return normal(rng, n_features, dtype=dtype), background


class Counter:
    """A model that counts the rows it was asked about."""

    def __init__(self, model):
        self.model, self.rows = model, 0

    def __call__(self, X):
        self.rows += len(X)
        return self.model(X)


def alike(first, second):
    """Whether two results are the same but for rounding (which may depend on where in memory a tensor lies)."""
    both = isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor) and first.shape == second.shape
    return both and torch.allclose(first, second, rtol=1e-7, atol=1e-9)


def subsets(n):
    return torch.tensor(list(itertools.product([False, True], repeat=n)))


def constrained(members, weights, gains, total):
    """The weighted regression of gains on membership, under the constraint that the values add up to the total."""
    n = members.shape[1]
    system = torch.ones(n + 1, n + 1, dtype=EXACT)
    system[:n, :n] = members.T @ (weights[:, None] * members)
    system[n, n] = 0
    return torch.linalg.solve(system, torch.cat([members.T @ (weights * gains), total[None]]))[:n]


class TestCoalitionValues:
    exercise = "coalition_values"

    def test_ends(self, answer, rng):
        "with all features known it is the output at x, with none the mean output over the background"
        for n_features, n_background in ((4, 6), (3, 1), (1, 5)):
            model, (x, background) = bent_model(rng, n_features), case(rng, n_features, n_background)
            ends = torch.tensor([[True], [False]]).expand(2, n_features)
            wanted = torch.stack([model(x[None])[0], model(background).mean()])
            expect_close(answer(model, x, background, ends), wanted, note="Entry 0: all known. Entry 1: none")

    def test_by_hand(self, answer, rng):
        "a product of two features, worked out by hand"
        x, background = case(rng, 3, 4)
        members = torch.tensor([[1, 1, 0], [1, 0, 0], [0, 1, 1], [0, 0, 1]]).bool()
        b = background
        wanted = [x[0] * x[1], x[0] * b[:, 1].mean(), x[1] * b[:, 0].mean(), (b[:, 0] * b[:, 1]).mean()]
        expect_close(
            answer(lambda X: X[:, 0] * X[:, 1], x, background, members),
            torch.stack(wanted),
            note="For model(X) = X[:, 0] * X[:, 1], with known features {0, 1}, {0}, {1, 2}, {2}",
        )

    def test_values(self, answer, reference, rng):
        "the right value for coalitions in any number and order"
        for n_features, n_background, n_coalitions in ((5, 3, 11), (3, 7, 4), (6, 2, 1)):
            model, (x, background) = bent_model(rng, n_features), case(rng, n_features, n_background)
            members = torch.rand(n_coalitions, n_features, generator=rng) < 0.5
            expect_close(answer(model, x, background, members), reference(model, x, background, members), dtype=True)

    def test_without_gradients(self, answer, rng):
        "the model is called without gradients"
        (x, background), modes = case(rng, 3, 4), []

        def model(X):
            modes.append(torch.is_grad_enabled())
            return X.prod(1)

        answer(model, x, background, subsets(3))
        expect(
            modes and not any(modes),
            "Gradients were on while the model ran: it then keeps every intermediate result, for a backward pass that "
            "never comes.",
            actual=any(modes),
            returned="gradients on",
            expected="gradients off",
        )

    def test_rows(self, answer, rng):
        "what replaces the unknown features comes from one background row, not from several"
        x, _ = case(rng, 4, 1)
        step = normal(rng, 4).abs() + 0.5
        background = x + torch.arange(1, 6)[:, None] * step  # row k is x, moved by k steps in every feature

        def torn(X):
            """1 for an input whose features were moved by different numbers of steps (0: not at all)."""
            moved = ((X - x) / step).round()
            largest = moved.amax(1, keepdim=True)
            return ((moved != 0) & (moved != largest)).any(1).double()

        values = answer(torn, x, background, subsets(4))
        expect_shape(values, (16,))
        expect(
            (values == 0).all(),
            "The model was given inputs whose unknown features come from different background rows. In each input, "
            "those that are known should be x's, and all others those of a single row.",
            actual=values,
        )

    def test_dtype(self, answer, reference, rng):
        "the dtype is that of the model's output, and memory layout does not matter"
        single, double, (x, background) = (
            bent_model(rng, 4, torch.float32),
            bent_model(rng, 4),
            case(rng, 4, 3, torch.float32),
        )
        background, members = background.T.contiguous().T, subsets(4).T.contiguous().T
        for model, dtype in ((single, torch.float32), (lambda X: double(X.double()), EXACT)):
            values = answer(model, x, background, members)
            expect_shape(values, (16,))
            expect(values.dtype == dtype, f"This model puts out {dtype}.", actual=str(values.dtype))
            expect_close(values, reference(model, x, background, members))

    def test_empty_background(self, answer, rng):
        "an empty background is refused"
        x, background = case(rng, 3, 4)
        expect_raises(ValueError, answer, lambda X: X[:, 0], x, background[:0], subsets(3))

    def test_other_features(self, answer, rng):
        "a background or coalitions that do not have the features of x are refused, also where they would broadcast"
        x, background = case(rng, 3, 4)
        expect_raises(ValueError, answer, lambda X: X[:, 0], x, background[:, :1], subsets(3))
        expect_raises(ValueError, answer, lambda X: X[:, 0], x, background[0], subsets(3))
        expect_raises(ValueError, answer, lambda X: X[:, 0], x, background, subsets(1))

    def test_bad_model(self, answer, rng):
        "a model that returns something else than one number for each row is refused"
        x, background = case(rng, 3, 4)
        for model in (lambda X: X, lambda X: X[:, :1], lambda X: X.mean()):
            expect_raises(ValueError, answer, model, x, background, subsets(3))


class TestShapleyExact:
    exercise = "shapley_exact"

    def test_efficiency(self, answer, rng):
        "the values add up to the output at x less the mean output over the background"
        for n_features, n_background in ((5, 3), (3, 6), (1, 4)):
            model, (x, background) = bent_model(rng, n_features), case(rng, n_features, n_background)
            shares = answer(model, x, background)
            expect_shape(shares, (n_features,))
            total = model(x[None])[0] - model(background).mean()
            expect_close(shares.sum(), total, rtol=1e-8, atol=1e-8, note="The sum of the values")

    def test_dummy(self, answer, rng):
        "a feature that the model ignores gets nothing, and one that only adds gets what it adds"
        inner, (x, background) = bent_model(rng, 3), case(rng, 5, 4)
        shares = answer(lambda X: inner(X[:, [0, 1, 4]]) + 7 * X[:, 3], x, background)
        expect_shape(shares, (5,))
        expect_close(shares[2], 0.0, atol=1e-8, note="Feature 2 is never looked at: its value should be 0")
        expect_close(
            shares[3],
            7 * (x[3] - background[:, 3].mean()),
            rtol=1e-8,
            atol=1e-8,
            note="Feature 3 enters as 7 * X[:, 3] alone",
        )

    def test_symmetry(self, answer, rng):
        "two features that do the same get the same; features that change places change values"
        W, (x, background) = normal(rng, 3), case(rng, 4, 3)
        x[1], background[:, 1] = x[2], background[:, 2]
        shares = answer(lambda X: torch.tanh(X[:, [0, 3]] @ W[:2] + W[2] * X[:, 1] * X[:, 2]), x, background)
        expect_shape(shares, (4,))
        expect_close(
            shares[1], shares[2], rtol=1e-8, atol=1e-8, note="Features 1 and 2 are equal in all and used alike"
        )
        model, order = bent_model(rng, 4), torch.tensor([2, 0, 3, 1])
        plain = answer(model, x, background)
        moved = answer(lambda X: model(X[:, order.argsort()]), x[order], background[:, order])
        expect_close(
            moved, plain[order], rtol=1e-8, atol=1e-8, note="The features were reordered, and the values should be too"
        )

    def test_linearity(self, answer, rng):
        "the values of a sum of two models are the sums of their values"
        first, second, (x, background) = bent_model(rng, 4), bent_model(rng, 4), case(rng, 4, 3)
        both = answer(lambda X: 2 * first(X) - 3 * second(X), x, background)
        parts = 2 * answer(first, x, background) - 3 * answer(second, x, background)
        expect_close(both, parts, rtol=1e-8, atol=1e-8, note="For the model 2 * f - 3 * g")

    def test_all_orders(self, answer, rng):
        "the mean gain at arrival over all orders, tried one by one"
        n_features = 4
        model, (x, background) = bent_model(rng, n_features), case(rng, n_features, 2)
        wanted = torch.zeros(n_features, dtype=EXACT)
        for order in itertools.permutations(range(n_features)):
            rows = background.clone()
            before = model(rows).mean()
            for feature in order:
                rows[:, feature] = x[feature]
                after = model(rows).mean()
                wanted[feature] += (after - before) / math.factorial(n_features)
                before = after
        expect_close(answer(model, x, background), wanted, note="Compared with the mean over all 24 orders of arrival")

    def test_values(self, answer, reference, rng):
        "the right value for several sizes and dtypes"
        for n_features, n_background, dtype in ((7, 3, EXACT), (2, 5, EXACT), (5, 2, torch.float32)):
            model, (x, background) = bent_model(rng, n_features, dtype), case(rng, n_features, n_background, dtype)
            loose = {"rtol": 1e-4, "atol": 1e-5} if dtype == torch.float32 else {}
            expect_close(answer(model, x, background), reference(model, x, background), dtype=True, **loose)

    def test_dtype_of_the_output(self, answer, rng):
        "the dtype is that of the model's output, whatever that of x"
        inner, (x, background) = bent_model(rng, 4), case(rng, 4, 3, torch.float32)
        shares = answer(lambda X: inner(X.double()), x, background)
        expect_shape(shares, (4,))
        expect(shares.dtype == EXACT, "x is float32, and this model puts out float64.", actual=str(shares.dtype))

    def test_sixteen(self, answer, rng):
        "sixteen features are not too many"
        x, background = case(rng, 16, 1)

        class AskedError(Exception):
            """The model was asked: then the features were not too many, and the rest need not be waited for."""

        def model(X):
            raise AskedError

        try:
            answer(model, x, background)
        except AnswerRaised as raised:
            if not isinstance(raised.__cause__, AskedError):
                raise
        else:
            expect(False, "For 16 features the model was never asked.", actual="never asked", returned="never asked")

    def test_seventeen(self, answer, rng):
        "more than sixteen features are refused"
        x, background = case(rng, 17, 1)
        expect_raises(ValueError, answer, lambda X: X[:, 0], x, background)

    def test_bad_background(self, answer, rng):
        "an empty background is refused"
        x, background = case(rng, 3, 1)
        expect_raises(ValueError, answer, lambda X: X[:, 0], x, background[:0])


class TestShapleyKernelWeights:
    exercise = "shapley_kernel_weights"

    def test_by_hand(self, answer):
        "four features, worked out by hand: 1/4, 1/8, 1/4"
        # (4 - 1) / (C(4, s) s (4 - s)): 3 / (4 * 1 * 3), 3 / (6 * 2 * 2), 3 / (4 * 3 * 1)
        wanted = torch.tensor([0.25, 0.125, 0.25], dtype=EXACT)
        weights = answer(torch.tensor([1, 2, 3]), 4)
        expect_close(weights, wanted, note="For sizes 1, 2, 3 of 4 features")

    def test_dtype(self, answer):
        "the weights have the shape of sizes and are in float64"
        weights = answer(torch.tensor([[1, 2], [3, 0]]), 5)
        expect_shape(weights, (2, 2))
        expect(weights.dtype == EXACT, "The weights should be in float64.", actual=str(weights.dtype))

    def test_ends(self, answer):
        "infinite for the empty and the full coalition"
        for n_features in (1, 5):
            wanted = torch.full((2,), math.inf, dtype=EXACT)
            expect_close(answer(torch.tensor([0, n_features]), n_features), wanted)

    def test_symmetry(self, answer, rng):
        "a coalition and its complement weigh the same"
        n_features = int(torch.randint(6, 12, (), generator=rng))
        sizes = torch.arange(1, n_features)
        weights = answer(sizes, n_features)
        expect_shape(weights, (n_features - 1,))
        expect_close(weights, weights.flip(0), rtol=1e-6, atol=0, note=f"Sizes s and {n_features} - s of {n_features}")

    def test_sizes_together(self, answer):
        "all coalitions of size s together weigh (M - 1) / (s (M - s))"
        n_features = 9
        sizes = torch.arange(1, n_features)
        together = answer(sizes, n_features) * torch.tensor([math.comb(n_features, s) for s in sizes.tolist()])
        wanted = (n_features - 1) / (sizes * (n_features - sizes)).double()
        expect_close(together, wanted, rtol=1e-6, atol=0, note="The weight times the number of coalitions of that size")

    def test_values(self, answer, reference, rng):
        "the right value for any shape, also for many features"
        drawn = int(torch.randint(61, 500, (), generator=rng))
        for n_features, shape in ((6, (4, 5)), (25, (7,)), (60, (9,)), (2, ()), (drawn, (3, 10))):
            sizes = torch.randint(0, n_features + 1, shape, generator=rng)
            expect_close(answer(sizes, n_features), reference(sizes, n_features), rtol=1e-6, atol=0)

    def test_impossible_sizes(self, answer):
        "sizes that no coalition can have are refused"
        expect_raises(ValueError, answer, torch.tensor([1, 6]), 5)
        expect_raises(ValueError, answer, torch.tensor([-1, 2]), 5)

    def test_no_features(self, answer):
        "no features are refused"
        expect_raises(ValueError, answer, torch.tensor([0]), 0)


class TestKernelShap:
    exercise = "kernel_shap"

    def test_exact(self, answer, rng):
        "with all coalitions it equals the exact Shapley values"
        for n_features, n_background in ((5, 3), (4, 6), (2, 4), (1, 3)):
            model, (x, background) = bent_model(rng, n_features), case(rng, n_features, n_background)
            wanted = shapley_exact(model, x, background)
            expect_close(answer(model, x, background), wanted, rtol=1e-7, atol=1e-7)

    def test_enough_for_all(self, answer, rng):
        "where n_coalitions is enough for all of them, all are used and nothing is drawn"
        model, (x, background) = bent_model(rng, 4), case(rng, 4, 3)
        wanted = shapley_exact(model, x, background)
        for n_coalitions in (14, 15):  # 2^4 - 2, and one more
            got = answer(model, x, background, n_coalitions=n_coalitions)
            expect_close(got, wanted, rtol=1e-7, atol=1e-7, note=f"With {n_coalitions} for the 14 coalitions there are")

    @staticmethod
    def run(answer, rng, n_features, n_coalitions):
        """Values of a run on a bent model, the model, and the coalitions that it was asked about but for the ends."""
        model, (x, background), seen = bent_model(rng, n_features), case(rng, n_features, 1), []

        def recorder(X):
            seen.append(x == X)
            return model(X)

        shares = answer(recorder, x, background, n_coalitions=n_coalitions, generator=rng)
        expect_shape(shares, (n_features,))
        members = torch.cat([torch.zeros(0, n_features, dtype=torch.bool), *seen])
        return shares, lambda S: model(torch.where(S, x, background)), members[members.any(1) & ~members.all(1)]

    def test_whole_sizes(self, answer, rng):
        "the smallest and the largest coalitions are all taken, as many sizes of them as the docstring's rule says"
        # For 8 features, size 2 (and 6) is worth taking whole once 122 are left: its share is 0.46, and there are 56.
        for n_coalitions, whole in ((60, (1, 7)), (137, (1, 7)), (140, (1, 2, 6, 7)), (161, (1, 2, 6, 7))):
            _, _, members = self.run(answer, rng, 8, n_coalitions)
            found = {size: len(members[members.sum(1) == size].unique(dim=0)) for size in range(1, 8)}
            expect(
                all(found[size] == math.comb(8, size) for size in whole),
                f"With n_coalitions={n_coalitions} for 8 features, all of sizes {whole} should be evaluated.",
                actual=found if min(found[size] for size in whole) else "some size not at all",
                returned=f"{[found[size] for size in whole]} of them",
                expected=f"{[math.comb(8, size) for size in whole]}",
            )
            again = sum((members.sum(1) == size).sum().item() - math.comb(8, size) for size in whole)
            expect(
                again == 0,
                f"With n_coalitions={n_coalitions} for 8 features, some of sizes {whole} were evaluated again: what is "
                "left should be drawn from the other sizes.",
                actual="whole sizes drawn again",
                returned=f"{again} of them again",
                expected="none",
            )

    def test_pairs(self, answer, rng):
        "each drawn coalition comes with its complement"
        for n_coalitions in (400, 401):
            _, _, members = self.run(answer, rng, 12, n_coalitions)
            rows = {tuple(row) for row in members.tolist()}
            alone = sum(tuple(not known for known in row) not in rows for row in rows)
            expect(
                alone == 0,
                f"With n_coalitions={n_coalitions} some coalitions were evaluated without their complements. Each draw "
                "should give two: a coalition, and all that is not in it.",
                actual="one without its complement" if alone == 1 else "coalitions without their complements",
                returned=f"{alone} of {len(rows)} without a complement",
            )

    def test_budget(self, answer, rng):
        "no more than n_coalitions are evaluated, and of what is left after whole sizes all but at most one"
        for n_features, n_coalitions in ((10, 80), (10, 81), (7, 41), (6, 14)):
            _, _, members = self.run(answer, rng, n_features, n_coalitions)
            expect(
                len(members) <= n_coalitions,
                f"With n_coalitions={n_coalitions} the model was asked about more coalitions than that, not counting "
                "the empty and the full one.",
                actual=f"{len(members) - n_coalitions} too many",
                returned=f"{len(members)} coalitions",
                expected=f"at most {n_coalitions}",
            )
            expect(
                len(members) < n_coalitions or n_coalitions % 2 == 0,
                f"With n_coalitions={n_coalitions}, an odd number, one coalition has no complement: half of what is "
                "left should be rounded down.",
                actual="one without its complement",
                returned=f"{len(members)} coalitions",
                expected=f"at most {n_coalitions - 1}",
            )
            expect(
                # An answer may ask about a coalition once and count how often it was drawn.
                len(members) >= min(n_coalitions - 1, 2 * n_features + 1),
                f"With n_coalitions={n_coalitions} the model was asked about far fewer coalitions.",
                actual=len(members),
            )

    def drawn_of_sixty(self, answer, rng):
        """The coalitions that were drawn in a run with 60 features, of which only sizes 1 and 59 are taken whole."""
        _, _, members = self.run(answer, rng, 60, 4000)
        members = members[(members.sum(1) > 1) & (members.sum(1) < 59)]
        different = len(members.unique(dim=0))
        note = "Of coalitions of sizes 2 to 58 of 60 features, some 3880 are drawn, nearly all of them different."
        expect(different > 2000, note, actual=different, returned=f"{different} different ones")
        return members

    def test_sizes(self, answer, rng):
        "the sizes of drawn coalitions have the chances 1 / (s (M - s))"
        sizes = self.drawn_of_sixty(answer, rng).sum(1)
        share = ((sizes == 2) | (sizes == 58)).double().mean().item()
        wanted = (2 / 116) / sum(1 / (s * (60 - s)) for s in range(2, 59))
        # 1940 draws: the share varies by 0.008, and is 0.009 lower if repeated ones are evaluated once. Were all sizes
        # equally likely, it would be 0.035.
        one = [1 / (s * (60 - s) * math.comb(60, s)) for s in range(2, 59)]
        wrong = {
            "all sizes equally likely": 2 / 57,
            "all coalitions equally likely": 0.0,
            "the weight of one coalition": 2 * one[0] / sum(one),
            "one end left out": wanted / (2 - wanted),
        }
        near = min(wrong, key=lambda name: abs(share - wrong[name]))
        next_share = ((sizes == 3) | (sizes == 57)).double().mean().item()
        known = abs(share - wrong[near]) < 0.02
        if near == "all sizes equally likely":  # and not a size off by one
            known = known and abs(next_share - wrong[near]) < 0.02
        expect(
            abs(share - wanted) < 0.05,
            "The share of sizes 2 and 58 among the coalitions that were drawn from sizes 2 to 58 of 60.",
            actual=near if known else share,
            returned=f"{share:.3f}",
            expected=f"{wanted:.3f}, give or take 0.05",
        )

    def test_all_of_a_size(self, answer, rng):
        "all coalitions of one size are equally likely"
        members = self.drawn_of_sixty(answer, rng)
        sizes = members.sum(1).double()
        wanted = (1 - 2 * sizes * (60 - sizes) / (60 * 59)).mean()
        for apart in (1, 7, 30):
            alike = (members == members.roll(apart, dims=1)).double().mean()
            expect(
                (alike - wanted).abs() < 0.02,  # it varies by 0.002
                f"Features that stand {apart} apart are in or out together more or less often than any others.",
                actual="features that go together",
                returned=f"in {alike:.3f} of the drawn coalitions",
                expected=f"{wanted:.3f}",
            )

    def test_least_squares(self, answer, rng):
        "whole sizes weigh as the kernel says, drawn coalitions alike; no other values with this sum fit better"
        shares, value, members = self.run(answer, rng, 9, 60)
        whole = (members.sum(1) == 1) | (members.sum(1) == 8)
        if len(members) != 60 or whole.sum() != 18:
            return  # an answer may ask about a coalition once and count how often it was drawn
        kernel = torch.tensor([8 / (math.comb(9, s) * s * (9 - s)) for s in members.sum(1).tolist()], dtype=EXACT)
        drawn = sum(8 / (s * (9 - s)) for s in range(2, 8)) / 42  # what all of these sizes weigh, for 42 draws
        gains = value(members) - value(torch.zeros(1, 9, dtype=torch.bool))
        total = (value(torch.ones(1, 9, dtype=torch.bool)) - value(torch.zeros(1, 9, dtype=torch.bool)))[0]
        Z, right = members.double(), torch.where(whole, kernel, drawn)
        free = torch.linalg.lstsq(right.sqrt()[:, None] * Z, (right.sqrt() * gains)[:, None]).solution[:, 0]
        # What was drawn differs from answer to answer; how it was weighed and the sum forced can be told all the same.
        mistakes = {
            "unconstrained": free,
            "shifted": free + (total - free.sum()) / 9,
            "stretched": free * total / free.sum(),
            "the rest to the last": torch.cat([free[:-1], (total - free[:-1].sum())[None]]),
            "the total not taken off": constrained(Z, right, gains + Z[:, -1] * total, total),
            **{
                name: constrained(Z, weights, gains, total)
                for name, weights in {
                    "the kernel for all": kernel,
                    "one for drawn ones": torch.where(whole, kernel, 1.0),
                    "all alike": torch.ones_like(kernel),
                    "counted by pairs": torch.where(whole, kernel, 2 * drawn),
                    "without M - 1": torch.where(whole, kernel, drawn / 8),
                    "an average kernel weight": torch.where(whole, kernel, kernel[~whole].mean()),
                    "squared": right**2,
                }.items()
            },
        }
        wanted = constrained(Z, right, gains, total)
        expect(
            (shares - wanted).abs().max() < 1e-6,
            "For the coalitions that you evaluated, the weighted regression under its constraint has another solution.",
            actual=next((name for name, other in mistakes.items() if (shares - other).abs().max() < 1e-6), shares),
            returned=f"{[round(value, 4) for value in shares.tolist()]}",
            expected=f"{[round(value, 4) for value in wanted.tolist()]}",
        )

    def test_constraint(self, answer, rng):
        "drawn or not, the values add up to the output at x less the mean output over the background"
        model, (x, background) = bent_model(rng, 9), case(rng, 9, 3)
        total = model(x[None])[0] - model(background).mean()
        shares = answer(model, x, background, n_coalitions=60, generator=rng)
        expect_shape(shares, (9,))
        off = (shares.sum() - total).abs()
        expect(
            off < 1e-9,
            "With 60 coalitions, the values don't add up to the output at x less the mean over the background.",
            actual="nearly the total" if off < 0.01 else "another sum",
            returned=f"a sum of {shares.sum():.10g}",
            expected=f"{total:.10g}",
        )

    def test_additive(self, answer, rng):
        "a sum of functions of one feature each is taken apart exactly, whatever is drawn"
        (model, parts), (x, background) = additive_model(rng, 8), case(rng, 8, 4)
        wanted = parts(x) - parts(background).mean(0)
        shares = answer(model, x, background, n_coalitions=100, generator=rng)
        expect_close(shares, wanted, rtol=1e-6, atol=1e-6, note="Each feature should get its own part, less its mean")

    def test_draws(self, answer, rng):
        "drawn coalitions lead to the Shapley values, and not to others"
        n_features = 11
        x, background = torch.ones(n_features, dtype=EXACT), torch.zeros(1, n_features, dtype=EXACT)
        price = 2 + 0.2 * torch.rand(2, generator=rng, dtype=EXACT)

        def votes(X):
            """All of features 3 to 10 together decide one thing, and any one of features 0 to 5 another."""
            return torch.stack([X[:, 3:].prod(1), 1 - (1 - X[:, :6]).prod(1)], dim=1) @ price

        runs = [answer(votes, x, background, n_coalitions=500, generator=rng) for _ in range(12)]
        for run in runs:
            expect_shape(run, (n_features,))
        wanted = torch.zeros(n_features, dtype=EXACT)
        wanted[3:] += price[0] / 8
        wanted[:6] += price[1] / 6
        off = (torch.stack(runs).mean(0) - wanted).abs().max()
        expect(
            off < 0.11,  # the mean of twelve runs varies by 0.018 an entry
            "The mean of twelve runs with 500 of the 2046 coalitions is too far from the Shapley values.",
            actual="too far from the Shapley values" if off.isfinite() else off,
            returned=f"off by {off:.3f}",
            expected="less than 0.11",
        )

    def test_generator(self, answer, rng):
        "the generator decides: the same state gives the same draws, another one others"
        (x, background), start = case(rng, 10, 3), seeded(rng)
        model = bent_model(rng, 10)
        first, again = (answer(model, x, background, n_coalitions=80, generator=start()) for _ in range(2))
        expect(
            alike(first, again),
            "Two calls with generators in the same state gave different values: use the generator for all draws.",
        )
        other = start()
        torch.rand(1, generator=other)
        expect(
            not alike(first, answer(model, x, background, n_coalitions=80, generator=other)),
            "A generator in another state gave the same values.",
        )

    def test_repeated_draws(self, answer, rng):
        "a coalition that is drawn twice counts twice"
        # Of 6 features, 12 coalitions are taken whole, and 9 pairs are drawn from 25. That all of them differ has a
        # chance of less than 0.23.
        share, repeats, dropped = sum(5 / (s * (6 - s)) for s in (2, 3, 4)), 0, 0
        ends = torch.tensor([[False], [True]]).expand(2, 6)
        for _ in range(12):
            shares, value, members = self.run(answer, rng, 6, 30)
            different = members.unique(dim=0)
            whole = (different.sum(1) == 1) | (different.sum(1) == 5)
            n_drawn = len(different) - int(whole.sum())
            if 0 < n_drawn < 18:
                empty, full = value(ends)
                kernel = [5 / (math.comb(6, s) * s * (6 - s)) for s in different.sum(1).tolist()]
                kernel, gains = torch.tensor(kernel, dtype=EXACT), value(different) - empty
                once = [
                    constrained(different.double(), torch.where(whole, kernel, share / n), gains, full - empty)
                    for n in (n_drawn, 18)
                ]
                repeats += 1
                dropped += any((shares - other).abs().max() < 1e-6 for other in once)
        expect(
            dropped == 0,
            "Where coalitions were drawn more than once, each of them counts once in your regression. Each draw should "
            "count.",
            actual="repeated draws dropped",
            returned=f"values as if each counted once, in {dropped} of {repeats} runs with repeated draws",
        )
        expect(
            repeats > 0,
            "In twelve runs with 9 draws from 25 pairs, no coalition ever came up twice: the draws are not "
            "independent.",
            actual="no repeated draws",
            returned="18 different coalitions in each run",
        )

    def test_dtype(self, answer, rng):
        "float32 stays float32; where x and the model's output differ, the output's dtype counts"
        model, (x, background) = bent_model(rng, 5, torch.float32), case(rng, 5, 3, torch.float32)
        wanted = shapley_exact(model, x, background)
        expect_close(answer(model, x, background), wanted, dtype=True, rtol=1e-3, atol=1e-4)
        inner = bent_model(rng, 5)
        shares = answer(lambda X: inner(X.double()), x, background)
        expect_shape(shares, (5,))
        expect(shares.dtype == EXACT, "x is float32, and this model puts out float64.", actual=str(shares.dtype))

    def test_too_many_features(self, answer, rng):
        "more than 16 features are refused if n_coalitions is not given"
        model, (x, background) = bent_model(rng, 17), case(rng, 17, 1)
        expect_raises(ValueError, answer, model, x, background)

    def test_no_generator(self, answer, rng):
        "drawing without a generator is refused"
        model, (x, background) = bent_model(rng, 20), case(rng, 20, 1)
        expect_raises(ValueError, answer, model, x, background, n_coalitions=50)

    def test_small_budget(self, answer, rng):
        "fewer than 2 M + 2 coalitions are refused, unless these are all there are"
        for n_features, least in ((12, 26), (5, 12), (3, 6), (2, 2)):
            model, (x, background) = bent_model(rng, n_features), case(rng, n_features, 1)
            expect_shape(answer(model, x, background, n_coalitions=least, generator=rng), (n_features,))
            for too_few in (least - 1, 0):
                expect_raises(ValueError, answer, model, x, background, n_coalitions=too_few, generator=rng)


class TestShapleySampling:
    exercise = "shapley_sampling"

    @staticmethod
    def pair(result, n_features):
        both = isinstance(result, tuple | list) and len(result) == 2
        expect(both, "The function should return two tensors: estimates and standard errors.", actual=str(type(result)))
        expect_shape(result[0], (n_features,), "The estimates have the wrong shape.")
        expect_shape(result[1], (n_features,), "The standard errors have the wrong shape.")
        return result[0], result[1]

    def test_efficiency(self, answer, rng):
        "for any number of orders the estimates add up to the output at x less that of the background"
        for n_features, n_permutations in ((6, 2), (4, 9), (1, 3)):
            model, (x, background) = bent_model(rng, n_features), case(rng, n_features, 3)
            got, _ = self.pair(answer(model, x, background, n_permutations=n_permutations, generator=rng), n_features)
            total = model(x[None])[0] - model(background).mean()
            expect_close(got.sum(), total, rtol=1e-8, atol=1e-8, note=f"With {n_permutations} orders, the sum")

    def test_additive(self, answer, rng):
        "where no features interact every order says the same: exact, with standard errors of zero"
        (model, parts), (x, background) = additive_model(rng, 5), case(rng, 5, 4)
        got, error = self.pair(answer(model, x, background, n_permutations=6, generator=rng), 5)
        wanted = parts(x) - parts(background).mean(0)
        exact = torch.allclose(got, wanted, rtol=1e-7, atol=1e-7)
        # Which orders were drawn differs from answer to answer. That gains went to the wrong features can be told.
        mixed = not exact and abs(got.sum() - wanted.sum()) < 1e-7
        expect(
            exact,
            "Each feature should get its own part, less its mean: no feature makes a difference to another's.",
            actual="the right sum, and not one for each feature" if mixed else got,
            returned=f"{[round(value, 4) for value in got.tolist()]}",
            expected=f"{[round(value, 4) for value in wanted.tolist()]}",
        )
        expect_close(error, torch.zeros(5, dtype=EXACT), atol=1e-7, note="Each standard error should be 0")

    def test_unbiased(self, answer, rng):
        "every order has the same chance: many of them give the exact values"
        x, background = torch.ones(4, dtype=EXACT), torch.zeros(1, 4, dtype=EXACT)
        a, b = 1 + torch.rand(2, generator=rng, dtype=EXACT)

        def model(X):
            return a * X[:, 0] * X[:, 1] * (1 - X[:, 3]) + b * X[:, 2] * X[:, 3] * X[:, 0] + X[:, 1] * X[:, 2]

        n, seen = 2000, []

        def recorder(X):
            seen.append(X == 1)
            return model(X)

        got, error = self.pair(answer(recorder, x, background, n_permutations=n, generator=rng), 4)
        members = torch.cat([torch.zeros(0, 4, dtype=torch.bool), *seen]).unique(dim=0)
        members = members[members.any(1) & ~members.all(1)]
        twos = members[members.sum(1) == 2]
        turning = len(members) == 12 and len(twos) == 4 and bool((twos.sum(0) == 2).all())
        expect(
            len(members) == 14,
            f"In {n} orders of 4 features, some sets of features never came first: not every order has its chance.",
            actual="rotations of one order" if turning else len(members),
            returned=f"{len(members)} sets that came first",
            expected="14",
        )
        gains, orders = self.over_all_orders(model, x, background)
        wanted, spread = gains.mean(0), gains.std(0, correction=0)
        by_place = gains.gather(1, orders)
        mistakes = {
            "places for features": by_place.mean(0),
            "the order for its inverse": by_place.gather(1, orders).mean(0),
            "all coalitions alike": self.banzhaf(model),
        }
        # Six standard errors: one false alarm in a hundred million, for four features. A mistake's may be larger.
        margin = 6 * spread / math.sqrt(n)
        near = [name for name, value in mistakes.items() if ((got - value).abs() < 2 * margin.max()).all()]
        expect(
            ((got - wanted).abs() <= margin).all(),
            f"With {n} orders, some estimate is more than six standard errors from the exact value.",
            actual=near[0] if near else got,
            returned=f"{[round(value, 4) for value in got.tolist()]}",
            expected=f"{[round(value, 4) for value in wanted.tolist()]}",
        )
        ratio = error / spread * math.sqrt(n)
        mistakes = {
            "standard deviations": ratio / math.sqrt(n),
            "divided by n": ratio * math.sqrt(n),
            "variances": error / spread.square() * n,
        }
        near = [name for name, value in mistakes.items() if (value - 1).abs().max() < 0.3]
        expect(
            ((ratio - 1).abs() < 0.2).all(),
            f"With {n} orders, some standard error is far from the true one.",
            actual=near[0] if near else ratio,
            returned=f"{[round(value, 5) for value in error.tolist()]}",
            expected=f"{[round(value, 5) for value in (spread / math.sqrt(n)).tolist()]}",
        )
        self.expect_no_trace_of_the_columns(answer, rng)

    def expect_no_trace_of_the_columns(self, answer, rng):
        """Where a column stands in the table says nothing about when it arrives."""
        n, n_features = 1500, 30
        x, background = torch.ones(n_features, dtype=EXACT), torch.zeros(1, n_features, dtype=EXACT)

        def model(X):
            """Who arrives after k others is credited with k."""
            return X.sum(1) * (X.sum(1) - 1) / 2

        places, _ = self.pair(answer(model, x, background, n_permutations=n, generator=rng), n_features)
        expect_close(places.sum(), 435.0, note="All gains together, 0 + 1 + ... + 29")
        centred = torch.arange(n_features, dtype=EXACT) - (n_features - 1) / 2
        # The rank correlation of an order with the columns varies by 1 / sqrt(29); that of 1500 in the mean, by 0.0048.
        correlation = (centred @ (places - places.mean()) / centred.square().sum()).item()
        expect(
            abs(correlation) < 0.029,
            f"In {n} orders of {n_features} features, the time of arrival is correlated with the place of the column.",
            actual="a trace of the columns" if 0 < correlation < 0.3 else correlation,
            returned=f"a correlation of {correlation:.3f}",
            expected="0, give or take 0.029",
        )

    @staticmethod
    def banzhaf(model):
        """Each feature's gain, averaged over all coalitions of the three others alike."""
        members = subsets(4)
        gains = []
        for i in range(4):
            without = members[~members[:, i]]
            with_it = without.clone()
            with_it[:, i] = True
            gains.append((model(with_it.double()) - model(without.double())).mean())
        return torch.stack(gains)

    @staticmethod
    def over_all_orders(model, x, background):
        """The gain of each feature in each order [order, feature], and the orders themselves [order, place]."""
        orders = list(itertools.permutations(range(len(x))))
        gains = torch.zeros(len(orders), len(x), dtype=EXACT)
        for k, order in enumerate(orders):
            rows = background.clone()
            for feature in order:
                before = model(rows).mean()
                rows[:, feature] = x[feature]
                gains[k, feature] = model(rows).mean() - before
        return gains, torch.tensor(orders)

    def test_standard_error(self, answer, rng):
        "the sample standard deviation (n - 1) over the root of n, worked out from the estimate"
        x, background = torch.ones(2, dtype=EXACT), torch.zeros(1, 2, dtype=EXACT)
        price = (1 + torch.rand((), generator=rng, dtype=EXACT)).item()
        for n in (5, 6, 12):  # with n = 2, dividing by n and by the root of n - 1 is the same
            got, error = self.pair(
                answer(lambda X: price * X[:, 0] * X[:, 1], x, background, n_permutations=n, generator=rng), 2
            )
            # Who comes last gets the whole price: feature 0 in a share p of the n orders.
            p = got[0].item() / price
            expect(
                abs(p * n - round(p * n)) < 1e-6,
                f"One of two features gets {price:.4g} in each of {n} orders: a mean over {n} of them is a multiple of "
                f"{price / n:.4g}.",
                actual="another number of orders",
                returned=f"{got[0]:.6g}",
            )
            deviation = price * math.sqrt(max(0.0, p * (1 - p)))
            wanted = deviation / math.sqrt(n - 1)
            mistakes = {
                "n in place of n - 1": deviation / math.sqrt(n),
                "a standard deviation": deviation * math.sqrt(n / (n - 1)),
                "divided by n": deviation / math.sqrt(n * (n - 1)),
                "a standard deviation, with n": deviation,
                "a variance": deviation**2 / (n - 1),
                "the root of n - 1": deviation * math.sqrt(n) / (n - 1),
            }
            near = [name for name, value in mistakes.items() if (error - value).abs().max() < 1e-6]
            expect(
                (error - wanted).abs().max() < 1e-6,
                f"In {p:.0%} of {n} orders feature 0 got {price:.4g}, else 0; the standard error of that mean differs.",
                actual=near[0] if near else error,
                returned=f"{error[0]:.6g}",
                expected=f"{wanted:.6g}",
            )

    def test_independent(self, answer, rng):
        "one order says nothing about another"
        x, background = torch.ones(12, dtype=EXACT), torch.zeros(1, 12, dtype=EXACT)
        got, _ = self.pair(
            answer(lambda X: (X[:, ::2] * X[:, 1::2]).sum(1), x, background, n_permutations=40, generator=rng), 12
        )
        # Whoever of two comes last gets their 1. In 40 orders that is 20 times each with a chance of 0.125; for all six
        # pairs at once, four in a million.
        expect(
            not torch.allclose(got, torch.full_like(got, 0.5), rtol=0, atol=1e-9),
            "Of each two features, either one came last in exactly half of the orders. Orders that are drawn "
            "independently do not balance so well.",
            actual="balanced orders",
            returned="0.5 for every feature",
        )
        exact = 0
        for _ in range(5):
            model, (x, background) = bent_model(rng, 3), case(rng, 3, 2)
            got, _ = self.pair(answer(model, x, background, n_permutations=6, generator=rng), 3)
            exact += bool((got - shapley_exact(model, x, background)).abs().max() < 1e-9)
        # Six orders drawn from six are all different with a chance of 0.015.
        expect(
            exact < 5,
            "With 6 orders of 3 features you get the exact values every time: no order ever comes twice. Orders that "
            "are drawn independently do repeat.",
            actual="without replacement",
            returned="the exact values, five times out of five",
        )

    def test_generator(self, answer, rng):
        "the generator decides, and the model is asked no more than n_permutations orders need"
        model, (x, background), start = Counter(bent_model(rng, 5)), case(rng, 5, 2), seeded(rng)
        first, _ = self.pair(answer(model, x, background, n_permutations=30, generator=start()), 5)
        expect(
            30 * 4 * 2 <= model.rows <= 30 * 10 * 2,
            f"With 30 orders of 5 features and 2 background rows, the model was asked about {model.rows} inputs.",
            actual=model.rows,
        )
        again, _ = self.pair(answer(model, x, background, n_permutations=30, generator=start()), 5)
        expect(alike(first, again), "Two calls with generators in the same state gave different values.")
        other = start()
        torch.rand(1, generator=other)
        different, _ = self.pair(answer(model, x, background, n_permutations=30, generator=other), 5)
        expect(not alike(first, different), "A generator in another state gave the same values.")

    def test_dtype(self, answer, rng):
        "estimates and standard errors have the dtype of the model's output"
        for dtype in (torch.float32, EXACT):
            (model, _), (x, background) = additive_model(rng, 4, dtype), case(rng, 4, 3, dtype)
            parts = self.pair(answer(model, x, background, n_permutations=5, generator=rng), 4)
            for part, name in zip(parts, ("estimates", "standard errors"), strict=True):
                expect(
                    part.dtype == dtype,
                    f"The model puts out {dtype}; the {name} should be as that.".replace("torch.", ""),
                    actual=str(part.dtype),
                )
        (model, _), (x, background) = additive_model(rng, 4), case(rng, 4, 3, torch.float32)
        parts = self.pair(answer(lambda X: model(X.double()), x, background, n_permutations=5, generator=rng), 4)
        for part, name in zip(parts, ("estimates", "standard errors"), strict=True):
            expect(
                part.dtype == EXACT,
                f"x is float32 and the model puts out float64; the {name} should be as what it puts out.",
                actual=str(part.dtype),
            )

    def test_one_order(self, answer, rng):
        "fewer than two orders are refused: one has no standard error"
        model, (x, background) = bent_model(rng, 3), case(rng, 3, 2)
        for n_permutations in (1, 0):
            expect_raises(ValueError, answer, model, x, background, n_permutations=n_permutations, generator=rng)

    def test_two_orders(self, answer, rng):
        "two orders are enough"
        model, (x, background) = bent_model(rng, 3), case(rng, 3, 2)
        _, error = self.pair(answer(model, x, background, n_permutations=2, generator=rng), 3)
        expect(error.isfinite().all(), "With two orders the standard errors should be numbers.", actual=error)

    def test_bad_background(self, answer, rng):
        "an empty background is refused"
        model, (x, background) = bent_model(rng, 3), case(rng, 3, 2)
        expect_raises(ValueError, answer, model, x, background[:0], n_permutations=5, generator=rng)
