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
            (out == 0).all(), "All of these lie between -1 and 1, and the threshold is 1: all should be 0.", actual=out
        )

    def test_distance(self, answer, rng):
        "all others move by the threshold, towards zero, and keep their sign"
        x = normal(rng, 4, 9).abs() + 0.8
        for sign in (1, -1):
            out = answer(sign * x, 0.7)
            expect_close(
                out, sign * (x - 0.7), note=f"For {'positive' if sign > 0 else 'negative'} x beyond the threshold"
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

    def test_gradients(self, answer, reference, rng):
        "gradients pass where x is beyond the threshold, and nowhere else"
        expect_same_gradients(lambda x: answer(x, 0.5), lambda x: reference(x, 0.5), 2 * normal(rng, 30), rng=rng)

    def test_bad_input(self, answer, rng):
        "a threshold that is negative or NaN anywhere is refused"
        x = normal(rng, 3)
        expect_raises(ValueError, answer, x, -0.1)
        expect_raises(ValueError, answer, x, torch.tensor([0.1, -0.2, 0.3], dtype=EXACT))
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
            expect_close(got, wanted, note=f"After {n_steps} steps")

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

    def test_dtype_and_size(self, answer, reference, rng):
        "float32 stays float32; one feature, more features than samples, a constant column"
        X, y = table(rng, n_samples=30, n_features=3, dtype=torch.float32)
        got = pair(answer(X, y, 0.2, n_steps=60), (3,), ())
        expect_close(got, reference(X, y, 0.2, n_steps=60), rtol=1e-3, atol=1e-3)
        expect(got[0].dtype == torch.float32, "The dtype should follow X.", actual=str(got[0].dtype))
        for n_samples, n_features in ((20, 1), (5, 9)):
            X, y = table(rng, n_samples=n_samples, n_features=n_features)
            got = pair(answer(X, y, 0.1, n_steps=20), (n_features,), ())
            expect_close(got, reference(X, y, 0.1, n_steps=20))
        X, y = torch.full((8, 2), 3.0, dtype=EXACT), normal(rng, 8)
        wanted = torch.zeros(2, dtype=EXACT), y.mean()
        expect_close(
            pair(answer(X, y, 0.1, n_steps=20), (2,), ()), wanted, note="Columns that never vary explain nothing"
        )

    def test_bad_input(self, answer, rng):
        "samples that do not match, a penalty that is negative or NaN and a negative number of steps are refused"
        X, y = table(rng, n_samples=10, n_features=3)
        expect_raises(ValueError, answer, X, y[:-1], 0.1)
        expect_raises(ValueError, answer, X[:0], y[:0], 0.1)
        expect_raises(ValueError, answer, X, y, -0.1)
        expect_raises(ValueError, answer, X, y, math.nan)
        expect_raises(ValueError, answer, X, y, 0.1, n_steps=-1)
