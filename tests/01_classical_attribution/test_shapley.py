"""Checks for Shapley values: coalitions and their values, exact values, the kernel, and two estimators."""

import itertools
import math

import torch

from utils.attribution.shapley import shapley_exact
from utils.course.checking import expect, expect_close, expect_raises, expect_shape

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

    def test_bad_input(self, answer, rng):
        "an empty background, features that do not match, and a model with several outputs are refused"
        x, background = case(rng, 3, 4)
        expect_raises(ValueError, answer, lambda X: X[:, 0], x, background[:0], subsets(3))
        expect_raises(ValueError, answer, lambda X: X[:, 0], x, background[:, :1], subsets(3))
        expect_raises(ValueError, answer, lambda X: X[:, 0], x, background, subsets(1))
        expect_raises(ValueError, answer, lambda X: X, x, background, subsets(3))


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

    def test_bad_input(self, answer, rng):
        "more features than can be tried are refused, and an empty background"
        x, background = case(rng, 17, 1)
        expect_raises(ValueError, answer, lambda X: X[:, 0], x, background)
        expect_raises(ValueError, answer, lambda X: X[:, 0], x[:3], background[:0, :3])


class TestShapleyKernelWeights:
    exercise = "shapley_kernel_weights"

    def test_by_hand(self, answer):
        "four features, worked out by hand: 1/4, 1/8, 1/4"
        # (4 - 1) / (C(4, s) s (4 - s)): 3 / (4 * 1 * 3), 3 / (6 * 2 * 2), 3 / (4 * 3 * 1)
        wanted = torch.tensor([0.25, 0.125, 0.25], dtype=EXACT)
        weights = answer(torch.tensor([1, 2, 3]), 4)
        expect_close(weights, wanted, note="For sizes 1, 2, 3 of 4 features")

    def test_dtype(self, answer):
        "the weights are in float64"
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
        for n_features, shape in ((6, (4, 5)), (25, (7,)), (60, (9,)), (2, ())):
            sizes = torch.randint(0, n_features + 1, shape, generator=rng)
            expect_close(answer(sizes, n_features), reference(sizes, n_features), rtol=1e-6, atol=0)

    def test_bad_input(self, answer):
        "no features, and sizes that no coalition can have, are refused"
        expect_raises(ValueError, answer, torch.tensor([1, 6]), 5)
        expect_raises(ValueError, answer, torch.tensor([-1, 2]), 5)
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
    def drawn(answer, rng, n_features, n_coalitions):
        """Values of a run on a bent model, the model, and the coalitions that it was asked about but for the ends."""
        model, (x, background), seen = bent_model(rng, n_features), case(rng, n_features, 1), []

        def recorder(X):
            seen.append(x == X)
            return model(X)

        shares = answer(recorder, x, background, n_coalitions=n_coalitions, generator=rng)
        expect_shape(shares, (n_features,))
        members = torch.cat([torch.zeros(0, n_features, dtype=torch.bool), *seen])
        return shares, lambda S: model(torch.where(S, x, background)), members[members.any(1) & ~members.all(1)]

    def test_pairs(self, answer, rng):
        "each drawn coalition comes with its complement, and small and large ones as often as they should"
        _, _, members = self.drawn(answer, rng, 12, 800)
        rows = {tuple(row) for row in members.tolist()}
        alone = sum(tuple(not known for known in row) not in rows for row in rows)
        expect(
            alone == 0,
            "Some coalitions were evaluated without their complements. Each draw should give two: a coalition, and all "
            "that is not in it.",
            actual="coalitions without their complements",
            returned=f"{alone} of {len(rows)} without a complement",
        )
        if len(members) == 800:  # an answer may also ask about each coalition once and count how often it was drawn
            # Four hundred draws: the share varies by 0.024. Were all sizes equally likely, it would be 0.182.
            share = ((members.sum(1) == 1) | (members.sum(1) == 11)).double().mean().item()
            wanted = (2 / 11) / sum(1 / (s * (12 - s)) for s in range(1, 12))
            note = "The share of coalitions with 1 or 11 of 12 features, by the chances 1 / (s (M - s))"
            expect_close(share, wanted, rtol=0, atol=0.11, note=note)

    def test_least_squares(self, answer, rng):
        "drawn coalitions count alike, and no other values with the same sum fit them better"
        shares, value, members = self.drawn(answer, rng, 9, 60)
        if len(members) == 60:
            Z, gains = members.double(), value(members) - value(torch.zeros(1, 9, dtype=torch.bool))
            slope, free = Z.T @ (gains - Z @ shares), torch.linalg.lstsq(Z, gains[:, None]).solution[:, 0]
            # What was drawn differs from answer to answer; how the sum was forced can be told all the same.
            forced = {
                "shifted": (shares - free).diff(),
                "stretched": shares * free.sum() - free * shares.sum(),
                "the rest to the last": (shares - free)[:-1],
            }
            expect(
                (slope - slope.mean()).abs().max() < 1e-6,
                "Z.T @ residuals should be the same number for all features (Z: the 60 coalitions as rows of 0 and 1), "
                "or moving a little of one feature's value to another would make the squared error smaller.",
                actual=next((name for name, rest in forced.items() if rest.abs().max() < 1e-6), slope),
                returned=f"{slope.min():.4g} to {slope.max():.4g}",
                expected="one number",
            )

    def test_constraint(self, answer, rng):
        "drawn or not, the values add up to the output at x less the mean output over the background"
        model, (x, background) = bent_model(rng, 9), case(rng, 9, 3)
        total = model(x[None])[0] - model(background).mean()
        shares = answer(model, x, background, n_coalitions=60, generator=rng)
        expect_shape(shares, (9,))
        expect_close(shares.sum(), total, rtol=1e-7, atol=1e-7, note="With 60 drawn coalitions, the sum of the values")

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

        runs = [answer(votes, x, background, n_coalitions=1500, generator=rng) for _ in range(12)]
        for run in runs:
            expect_shape(run, (n_features,))
        wanted = torch.zeros(n_features, dtype=EXACT)
        wanted[3:] += price[0] / 8
        wanted[:6] += price[1] / 6
        # The mean of twelve runs has a standard deviation of 0.023 an entry.
        expect_close(
            torch.stack(runs).mean(0),
            wanted,
            rtol=0,
            atol=0.115,
            note="The mean of twelve runs with 1500 of the 2046 coalitions is too far from the Shapley values",
        )

    def test_budget(self, answer, rng):
        "no more than n_coalitions are evaluated, and two runs with generators in the same state agree"
        (x, background), start = case(rng, 10, 3), seeded(rng)
        model = Counter(bent_model(rng, 10))
        first = answer(model, x, background, n_coalitions=80, generator=start())
        expect(
            0 < model.rows <= 90 * 3,  # the ends, and a little to spare
            f"With n_coalitions=80 and 3 background rows, the model was asked about {model.rows} inputs.",
            actual=model.rows,
        )
        again = answer(model, x, background, n_coalitions=80, generator=start())
        same = alike(first, again)
        expect(
            same, "Two calls with generators in the same state gave different values: use the generator for all draws."
        )

    def test_dtype(self, answer, rng):
        "float32 stays float32"
        model, (x, background) = bent_model(rng, 5, torch.float32), case(rng, 5, 3, torch.float32)
        wanted = shapley_exact(model, x, background)
        expect_close(answer(model, x, background), wanted, dtype=True, rtol=1e-3, atol=1e-4)

    def test_bad_input(self, answer, rng):
        "too many features for all coalitions, a missing generator and fewer than two coalitions are refused"
        model, (x, background) = bent_model(rng, 20), case(rng, 20, 1)
        expect_raises(ValueError, answer, model, x, background)
        expect_raises(ValueError, answer, model, x, background, n_coalitions=50)
        expect_raises(ValueError, answer, model, x, background, n_coalitions=1, generator=rng)


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
        expect_close(
            got, parts(x) - parts(background).mean(0), rtol=1e-7, atol=1e-7, note="Each feature should get its part"
        )
        expect_close(error, torch.zeros(5, dtype=EXACT), atol=1e-7, note="Each standard error should be 0")

    def test_unbiased(self, answer, rng):
        "every order has the same chance: many of them give the exact values"
        x, background = torch.ones(4, dtype=EXACT), torch.zeros(1, 4, dtype=EXACT)
        a, b = 1 + torch.rand(2, generator=rng, dtype=EXACT)

        def model(X):
            return a * X[:, 0] * X[:, 1] * (1 - X[:, 3]) + b * X[:, 2] * X[:, 3] * X[:, 0] + X[:, 1] * X[:, 2]

        n = 2000
        got, error = self.pair(answer(model, x, background, n_permutations=n, generator=rng), 4)
        wanted, true_error = self.over_all_orders(model, x, background, n)
        # Six standard errors: one false alarm in a hundred million, for four features.
        expect_close(
            (got - wanted) / true_error,
            torch.zeros(4, dtype=EXACT),
            atol=6.0,
            note=f"Estimate less exact value, in standard errors, with {n} orders",
        )
        expect_close(
            error / true_error,
            torch.ones(4, dtype=EXACT),
            rtol=0.2,
            note="Your standard errors, divided by the true ones",
        )

    @staticmethod
    def over_all_orders(model, x, background, n):
        """Mean of the gains over all orders, and the standard error of a mean of n of them."""
        gains = torch.zeros(math.factorial(len(x)), len(x), dtype=EXACT)
        for k, order in enumerate(itertools.permutations(range(len(x)))):
            rows = background.clone()
            for feature in order:
                before = model(rows).mean()
                rows[:, feature] = x[feature]
                gains[k, feature] = model(rows).mean() - before
        return gains.mean(0), gains.std(0, correction=0) / math.sqrt(n)

    def test_standard_error(self, answer, rng):
        "the sample standard deviation (n - 1) over the root of n, worked out from the estimate"
        x, background = torch.ones(2, dtype=EXACT), torch.zeros(1, 2, dtype=EXACT)
        price = (1 + torch.rand((), generator=rng, dtype=EXACT)).item()
        for n in (2, 5, 12):
            got, error = self.pair(
                answer(lambda X: price * X[:, 0] * X[:, 1], x, background, n_permutations=n, generator=rng), 2
            )
            # Who comes last gets the whole price: feature 0 in a share p of the n orders.
            p = got[0].item() / price
            wanted = price * math.sqrt(max(0.0, p * (1 - p)) / (n - 1))
            expect_close(
                error,
                torch.full((2,), wanted, dtype=EXACT),
                rtol=1e-6,
                atol=1e-7,
                note=f"In {p:.0%} of {n} orders feature 0 got {price:.4g}, else 0; the standard error of that mean",
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

    def test_generator(self, answer, rng):
        "the generator decides, and n_permutations orders are tried"
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
        "float32 stays float32"
        (model, parts), (x, background) = additive_model(rng, 4, torch.float32), case(rng, 4, 3, torch.float32)
        got, _ = self.pair(answer(model, x, background, n_permutations=5, generator=rng), 4)
        expect_close(got, parts(x) - parts(background).mean(0), dtype=True, rtol=1e-3, atol=1e-4)

    def test_bad_input(self, answer, rng):
        "fewer than two orders are refused: one has no standard error"
        model, (x, background) = bent_model(rng, 3), case(rng, 3, 2)
        expect_raises(ValueError, answer, model, x, background, n_permutations=1, generator=rng)
        expect_raises(ValueError, answer, model, x, background[:0], n_permutations=5, generator=rng)
