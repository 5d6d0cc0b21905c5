"""Checks for the Lasso and its proximal step."""

import math

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_same_gradients, expect_shape

EXACT = torch.float64


def normal(rng, *shape, dtype=EXACT):
    return torch.randn(shape, generator=rng, dtype=dtype)


def table(rng, *batch, n_samples, n_features, dtype=EXACT):
    """A table whose columns differ in mean and scale and are mildly correlated, and numbers that depend on it."""
    rotation = torch.linalg.qr(normal(rng, n_features, n_features, dtype=dtype)).Q
    spread = 0.8 + 0.8 * torch.rand(n_features, generator=rng, dtype=dtype)
    X = (normal(rng, *batch, n_samples, n_features, dtype=dtype) * spread) @ rotation
    X = X + 2 * normal(rng, n_features, dtype=dtype)
    w = 2 * normal(rng, n_features, dtype=dtype)
    y = X @ w + 3 + normal(rng, *batch, n_samples, dtype=dtype)
    return X, y


def correlations(X, y, w):
    """Mean product of each centred column with what the coefficients leave unexplained, which is centred too."""
    centred, rest = X - X.mean(0), y - y.mean()
    return centred.T @ (rest - centred @ w) / len(X)


def pair(result, w_shape, b_shape):
    """The two parts of an answer, or a mismatch that says what they should be."""
    both = isinstance(result, tuple | list) and len(result) == 2
    expect(
        both, "The function should return two tensors: the coefficients and the intercept.", actual=str(type(result))
    )
    expect_shape(result[0], w_shape, "The coefficients have the wrong shape.")
    expect_shape(torch.as_tensor(result[1]), b_shape, "The intercept has the wrong shape.")
    return result[0], torch.as_tensor(result[1])


class TestSoftThreshold:
    exercise = "soft_threshold"

    def test_dead_zone(self, answer, rng):
        "numbers nearer to zero than the threshold become exactly zero"
        x = 2 * torch.rand(3, 40, generator=rng) - 1
        out = answer(x, 1.0)
        expect_shape(out, (3, 40))
        expect(
            (out == 0).all(),
            "All of these lie between -1 and 1, and the threshold is 1: all should be 0.",
            actual=out,
            returned=next((f"{b:.4g} for x = {a:.4g}" for a, b in zip(x.ravel(), out.ravel(), strict=True) if b), ""),
            expected="0",
        )

    def test_distance(self, answer, rng):
        "all others move by the threshold, towards zero, and keep their sign"
        x = normal(rng, 4, 9).abs() + 0.8
        for sign in (1, -1):
            out = answer(sign * x, 0.7)
            expect_close(
                out, sign * (x - 0.7), note=f"For {'positive' if sign > 0 else 'negative'} x beyond the threshold"
            )

    def test_zero(self, answer, rng):
        "zero stays zero, whatever the threshold"
        x = normal(rng, 3, 5)
        x[:, 2] = 0
        for threshold in (0.0, 0.4):
            out = answer(x, threshold)
            expect_shape(out, (3, 5))
            expect(
                (out[:, 2] == 0).all(),
                "Where x is exactly 0, the result should be 0.",
                actual=out[:, 2],
                returned=f"{out[0, 2]:.4g}",
                expected="0",
            )

    def test_values(self, answer, reference, rng):
        "the right value for any shape, and for a threshold of zero"
        for shape, threshold in (((), 0.4), ((5,), 0.0), ((3, 4), 0.9), ((2, 3, 5), 1.7)):
            x = normal(rng, *shape)
            expect_close(answer(x, threshold), reference(x, threshold))

    def test_many_thresholds(self, answer, reference, rng):
        "a tensor of thresholds is lined up with x"
        x, threshold = normal(rng, 4, 3, 6), torch.rand(3, 1, generator=rng, dtype=EXACT)
        expect_close(answer(x, threshold), reference(x, threshold))

    def test_minimiser(self, answer, rng):
        "nothing near the result has a smaller (b - x)^2 / 2 + threshold * |b|"
        x, threshold = 2 * normal(rng, 50), 0.6

        def cost(b):
            return (b - x).square() / 2 + threshold * b.abs()

        out = answer(x, threshold)
        expect_shape(out, (50,))
        for step in (1e-3, -1e-3, 0.1, -0.1):
            worse = cost(out + step) >= cost(out)
            expect(worse.all(), f"Adding {step} to the result makes the cost smaller in places.", actual=out)

    def test_dtype(self, answer, reference, rng):
        "the dtype is that of x, and memory layout does not matter"
        for dtype in (torch.float32, EXACT):
            x = normal(rng, 6, 4, dtype=dtype).T
            expect_close(answer(x, 0.5), reference(x, 0.5), dtype=True)

    def test_dtype_of_threshold(self, answer, reference, rng):
        "the dtype is that of x, whatever that of the threshold"
        x, threshold = normal(rng, 4, 5, dtype=torch.float32), torch.rand(5, generator=rng, dtype=EXACT)
        out = answer(x, threshold)
        expect_close(out, reference(x, threshold))
        expect(
            out.dtype == x.dtype, "x is float32 and the threshold float64: the result should be as x.", actual=out.dtype
        )

    def test_gradients(self, answer, reference, rng):
        "gradients pass where x is beyond the threshold, and nowhere else"
        expect_same_gradients(lambda x: answer(x, 0.5), lambda x: reference(x, 0.5), 2 * normal(rng, 30), rng=rng)

    def test_negative_threshold(self, answer, rng):
        "a threshold that is negative anywhere is refused"
        x = normal(rng, 3)
        expect_raises(ValueError, answer, x, -0.1)
        expect_raises(ValueError, answer, x, torch.tensor([0.1, -0.2, 0.3], dtype=EXACT))

    def test_nan_threshold(self, answer, rng):
        "a threshold that is NaN anywhere is refused"
        x = normal(rng, 3)
        expect_raises(ValueError, answer, x, math.nan)
        expect_raises(ValueError, answer, x, torch.tensor([0.1, 0.2, math.nan], dtype=EXACT))


class TestLassoISTA:
    exercise = "lasso_ista"

    def test_optimal(self, answer, rng):
        "after many steps no coefficient can improve: all remaining correlations are at most the penalty"
        for n_samples, n_features, penalty in ((80, 5, 0.8), (120, 7, 0.3)):
            X, y = table(rng, n_samples=n_samples, n_features=n_features)
            w, _ = pair(answer(X, y, penalty, n_steps=200), (n_features,), ())
            left = correlations(X, y, w)
            active = w != 0
            expect_close(
                left[active],
                penalty * w[active].sign(),
                atol=1e-4,
                note="Where a coefficient is not 0, its column should keep a correlation of exactly penalty with what "
                "is left to explain, with the coefficient's sign",
            )
            expect(
                (left[~active].abs() <= penalty + 1e-4).all(),
                "A coefficient is 0 although its column is correlated with the rest by more than the penalty.",
                actual=left,
            )

    def test_zeros(self, answer, rng):
        "at the largest correlation every coefficient is zero; a little below, one is not"
        X, y = table(rng, n_samples=50, n_features=6)
        largest = correlations(X, y, torch.zeros(6, dtype=EXACT)).abs().max().item()
        w, b = pair(answer(X, y, 1.001 * largest, n_steps=50), (6,), ())
        expect_close(w, torch.zeros(6, dtype=EXACT), note=f"With penalty {1.001 * largest:.4g} all should be 0")
        expect_close(b, y.mean(), note="With all coefficients 0, the intercept should be the mean of y")
        w, _ = pair(answer(X, y, 0.98 * largest, n_steps=50), (6,), ())
        expect((w != 0).any(), f"With penalty {0.98 * largest:.4g} at least one should not be 0.", actual=w)

    def test_steps(self, answer, reference, rng):
        "the right step size: after 0, 1 and 4 steps from zero it is where it should be"
        X, y = table(rng, n_samples=40, n_features=5)
        for n_steps in (0, 1, 4):
            wanted = reference(X, y, 0.2, n_steps=n_steps)
            got = pair(answer(X, y, 0.2, n_steps=n_steps), (5,), ())
            expect_close(got, wanted, note=f"After {n_steps} step{'s' if n_steps != 1 else ''}")

    def test_intercept(self, answer, reference, rng):
        "a constant added to y or to a column changes the intercept and nothing else"
        X, y = table(rng, n_samples=45, n_features=4)
        w, b = pair(answer(X, y, 0.3, n_steps=50), (4,), ())
        up = pair(answer(X, y + 10, 0.3, n_steps=50), (4,), ())
        expect_close(up, (w, b + 10), rtol=1e-8, atol=1e-8, note="10 was added to y: b should rise by 10, and w stay")
        shift = torch.tensor([5.0, 0, -3, 0], dtype=EXACT)
        moved = pair(answer(X + shift, y, 0.3, n_steps=50), (4,), ())
        wanted = (w, b - shift @ w)
        expect_close(
            moved, wanted, rtol=1e-8, atol=1e-8, note="5 was added to column 0 and -3 to column 2: w should stay"
        )

    def test_batch(self, answer, reference, rng):
        "a batch of tables, each with its own penalty, gives what they give one by one"
        X, y = table(rng, 2, 3, n_samples=30, n_features=4)
        penalty = 0.1 + torch.rand(2, 3, generator=rng, dtype=EXACT)
        w, b = pair(answer(X, y, penalty, n_steps=30), (2, 3, 4), (2, 3))
        for i, j in ((0, 0), (0, 2), (1, 1)):
            wanted = reference(X[i, j], y[i, j], penalty[i, j].item(), n_steps=30)
            expect_close((w[i, j], b[i, j]), wanted, note=f"Table ({i}, {j}) of the batch differs from itself alone")

    def test_broadcast_penalty(self, answer, reference, rng):
        "a penalty for each row of a batch of tables, [2, 1] for [2, 3]"
        X, y = table(rng, 2, 3, n_samples=30, n_features=4)
        penalty = 0.1 + torch.rand(2, 1, generator=rng, dtype=EXACT)
        w, b = pair(answer(X, y, penalty, n_steps=30), (2, 3, 4), (2, 3))
        for i, j in ((0, 1), (1, 2)):
            wanted = reference(X[i, j], y[i, j], penalty[i, 0].item(), n_steps=30)
            expect_close((w[i, j], b[i, j]), wanted, note=f"Table ({i}, {j}) should have the penalty of row {i}")

    def test_all_steps(self, answer, reference, rng):
        "n_steps steps are taken, also where each of them is tiny"
        X, y = table(rng, n_samples=40, n_features=4)
        X[:, 3] = X[:, 0] + 0.05 * normal(rng, 40)  # two near copies: what tells them apart is found slowly
        for n_steps, unit in ((60, 1.0), (300, 1.0), (60, 1e-9)):
            w, b = pair(answer(X, unit * y, unit * 0.02, n_steps=n_steps), (4,), ())
            wanted = reference(X, y, 0.02, n_steps=n_steps)
            expect_close((w / unit, b / unit), wanted, rtol=1e-6, atol=1e-6, note=f"After {n_steps} steps, y in {unit}")

    def test_dtype(self, answer, reference, rng):
        "coefficients and intercept have the dtype of X"
        X, y = table(rng, n_samples=30, n_features=3)
        for X_dtype, y_dtype in ((torch.float32, torch.float32), (torch.float32, EXACT), (EXACT, torch.float32)):
            given = X.to(X_dtype), y.to(y_dtype)
            got = pair(answer(*given, 0.2, n_steps=60), (3,), ())
            expect_close(got, reference(*given, 0.2, n_steps=60), rtol=1e-3, atol=1e-3)
            for part, name in zip(got, ("coefficients", "intercept"), strict=True):
                expect(
                    part.dtype == X_dtype,
                    f"X is {X_dtype}, y {y_dtype}: the {name} should be as X.".replace("torch.", ""),
                    actual=str(part.dtype),
                )

    def test_dtype_of_penalty(self, answer, reference, rng):
        "coefficients and intercept have the dtype of X, whatever that of a tensor of penalties"
        X, y = table(rng, 2, n_samples=30, n_features=3, dtype=torch.float32)
        penalty = 0.1 + torch.rand(2, generator=rng, dtype=EXACT)
        got = pair(answer(X, y, penalty, n_steps=30), (2, 3), (2,))
        expect_close(got, reference(X, y, penalty, n_steps=30), rtol=1e-3, atol=1e-3)
        for part, name in zip(got, ("coefficients", "intercepts"), strict=True):
            expect(
                part.dtype == X.dtype,
                f"X is float32 and the penalty float64: the {name} should be as X.",
                actual=str(part.dtype),
            )

    def test_size(self, answer, reference, rng):
        "one feature; more features than samples"
        for n_samples, n_features in ((20, 1), (5, 9)):
            X, y = table(rng, n_samples=n_samples, n_features=n_features)
            got = pair(answer(X, y, 0.1, n_steps=20), (n_features,), ())
            expect_close(got, reference(X, y, 0.1, n_steps=20))

    def test_constant_table(self, answer, rng):
        "a table whose columns never vary explains nothing"
        X, y = torch.full((8, 2), 3.0, dtype=EXACT), normal(rng, 8)
        for penalty in (0.1, 0.0):
            w, b = pair(answer(X, y, penalty, n_steps=20), (2,), ())
            expect_close(w, torch.zeros(2, dtype=EXACT), note="Columns that never vary explain nothing")
            expect_close(b, y.mean(), note="With all coefficients 0, the intercept should be the mean of y")

    def test_constant_column(self, answer, reference, rng):
        "a column that never varies gets 0 and changes nothing else"
        for n_samples, value in ((10, 0.1), (30, -7.3)):
            X, y = table(rng, n_samples=n_samples, n_features=3)
            X = X * torch.tensor([1.0, 0.0, 1.0], dtype=EXACT) + torch.tensor([0.0, value, 0.0], dtype=EXACT)
            w, b = pair(answer(X, y, 0.05, n_steps=40), (3,), ())
            others = reference(X[:, [0, 2]], y, 0.05, n_steps=40)
            expect_close(w[1], 0.0, note=f"Column 1 is {value} in every row: its coefficient should be 0")
            expect_close((w[[0, 2]], b), others, note="A constant column should not change the fit of the others")

    def test_rounded_mean(self, answer, rng):
        "columns that never vary get 0, also where rounding makes their mean another number"
        y = normal(rng, 8)
        w, _ = pair(answer(torch.full((8, 2), 3.0, dtype=EXACT), y, 0.0, n_steps=40), (2,), ())
        expect_close(w, torch.zeros(2, dtype=EXACT), note="The only columns are 3 in every row: all should be 0")
        found = []
        for n_samples in (23, 31, 38, 47, 55, 71):
            X = (0.05 + torch.rand(8, generator=rng, dtype=EXACT)).repeat(n_samples, 1)
            found.append(pair(answer(X, normal(rng, n_samples), 0.0, n_steps=40), (8,), ())[0])
        found = torch.stack(found)
        expect(
            (found.abs() < 1e-9).all(),
            "All columns are constant, and some coefficient is not 0. The mean of n equal numbers is, after rounding, "
            "not always that number: what is left after centring is not 0 either, and divided by its own square it is "
            "large.",
            actual="rounding taken for variation" if found.isfinite().all() else found,
            returned=f"a coefficient of size {found.abs().max():.3g}",
            expected="0",
        )

    def test_samples(self, answer, rng):
        "samples that do not match, or none, are refused"
        X, y = table(rng, n_samples=10, n_features=3)
        expect_raises(ValueError, answer, X, y[:-1], 0.1)
        expect_raises(ValueError, answer, X, y[:1], 0.1)
        expect_raises(ValueError, answer, X[:0], y[:0], 0.1)

    def test_negative_penalty(self, answer, rng):
        "a penalty that is negative anywhere is refused"
        X, y = table(rng, 2, n_samples=10, n_features=3)
        expect_raises(ValueError, answer, X[0], y[0], -0.1)
        expect_raises(ValueError, answer, X, y, torch.tensor([0.1, -0.1], dtype=EXACT))

    def test_negative_steps(self, answer, rng):
        "a negative number of steps is refused"
        X, y = table(rng, n_samples=10, n_features=3)
        expect_raises(ValueError, answer, X, y, 0.1, n_steps=-1)

    def test_nan_penalty(self, answer, rng):
        "a penalty of NaN is refused"
        X, y = table(rng, n_samples=10, n_features=3)
        expect_raises(ValueError, answer, X, y, math.nan)
