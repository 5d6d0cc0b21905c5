"""Checks for LIME: the neighbourhood, the kernel, the local fit."""

import math

import torch

from utils.attribution.lime import lime_neighbourhood
from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.course.values import close_entries, describe

EXACT = torch.float64


def normal(rng, *shape, dtype=EXACT):
    return torch.randn(shape, generator=rng, dtype=dtype)


def between(rng, low, high, *shape, dtype=EXACT):
    return low + (high - low) * torch.rand(shape, generator=rng, dtype=dtype)


def seeded(rng):
    """A function that makes generators which all begin alike."""
    seed = int(torch.randint(2**31, (), generator=rng))
    return lambda: torch.Generator().manual_seed(seed)


def bent_model(rng, n_features, dtype=EXACT):
    """A smooth function of the features that no linear model equals."""
    W, v = normal(rng, n_features, 4, dtype=dtype), normal(rng, 4, dtype=dtype)
    return lambda X: torch.tanh(X @ W) @ v + 2


class Recorder:
    """A model that remembers what it was asked and what it said."""

    def __init__(self, model):
        self.model, self.seen, self.said = model, None, None

    def __call__(self, X):
        self.seen, self.said = X.detach().clone(), self.model(X).detach()
        return self.said.clone()


def three(result, n_features):
    """The three parts of an explanation, or a mismatch that says what they should be."""
    whole = isinstance(result, tuple | list) and len(result) == 3
    expect(whole, "The function should return coefficients, intercept and fidelity.", actual=str(type(result)))
    expect_shape(result[0], (n_features,), "The coefficients have the wrong shape.")
    dtype = result[0].dtype
    b, fidelity = (torch.tensor(part, dtype=dtype) if isinstance(part, float) else part for part in result[1:])
    for part, name in ((b, "intercept"), (fidelity, "fidelity")):
        expect_shape(part, (), f"The {name} should be a single number.")
    return result[0], b, fidelity


def expect_about(found, wanted, atol, note, **mistakes):
    """Expect numbers that sampling moves by up to ``atol``; those that a mistake would give are called by its name.

    Which numbers were drawn differs from answer to answer. That they are, say, the variances can be told all the same.
    """
    expect_shape(found, tuple(wanted.shape))
    near = [name for name, value in mistakes.items() if (found - value).abs().max() < atol]
    expect(
        (found - wanted).abs().max() < atol,
        note,
        actual=near[0] if near else found,
        returned=f"{[round(value, 3) for value in found.tolist()]}",
        expected=f"{[round(value, 3) for value in wanted.tolist()]}, give or take {atol}",
    )


class TestLimeNeighbourhood:
    exercise = "lime_neighbourhood"

    def test_first_row(self, answer, rng):
        "one row for each sample, and the input itself in the first"
        for n_samples, n_features in ((7, 3), (1, 4), (5, 1)):
            x, scale = 3 * normal(rng, n_features), between(rng, 0.5, 2, n_features)
            rows = answer(x, scale, n_samples, generator=rng)
            expect_shape(rows, (n_samples, n_features))
            x_at = [i for i, row in enumerate(rows) if close_entries(row, x).all()]
            expect(
                0 in x_at,
                "Row 0 should be x.",
                actual=f"x in row {x_at[-1]}" if x_at else "x in no row",
                returned=f"row 0 = {describe(rows[0])}",
                expected=f"row 0 = {describe(x)}",
            )

    def test_centre(self, answer, rng):
        "the rows lie around x"
        x, scale = 20 + 5 * torch.rand(4, generator=rng, dtype=EXACT), torch.tensor([0.2, 1.0, 3.0, 8.0], dtype=EXACT)
        rows = answer(x, scale, 4000, generator=rng)
        expect_shape(rows, (4000, 4))
        # Of 4000 numbers the mean varies by 0.016 standard deviations: six times that.
        expect_about(
            (rows.mean(0) - x) / scale,
            torch.zeros(4, dtype=EXACT),
            0.1,
            "The mean of each feature over 4000 rows, less x, in units of scale",
            zero=-x / scale,
        )

    def test_size(self, answer, rng):
        "each feature varies by its own standard deviation"
        x, scale = 4 + torch.rand(4, generator=rng, dtype=EXACT), torch.tensor([0.2, 1.0, 3.0, 8.0], dtype=EXACT)
        rows = answer(x, scale, 4000, generator=rng)
        expect_shape(rows, (4000, 4))
        # Of 4000 numbers the standard deviation varies by 1.1 %: six times that, in logarithms.
        expect_about(
            (rows.std(0) / scale).log(),
            torch.zeros(4, dtype=EXACT),
            0.07,
            "The logarithm of each feature's standard deviation over 4000 rows, divided by its scale",
            unscaled=-scale.log(),
            variance=-scale.log() / 2,
            squared=scale.log(),
            proportional=x.log(),
        )

    def test_shape_of_the_noise(self, answer, rng):
        "normal noise"
        rows = answer(torch.zeros(3, dtype=EXACT), torch.ones(3, dtype=EXACT), 4000, generator=rng)
        expect_shape(rows, (4000, 3))
        # Of 12,000 numbers the share varies by 0.0043 (of 4,000 by 0.0074), and of uniform noise it is 0.423.
        expect_about(
            (rows.abs() > 1).double().mean()[None],
            torch.tensor([0.3173], dtype=EXACT),
            0.045,
            "Of normal noise, 31.7 % lies more than one scale away",
            uniform=1 - 3**-0.5,
        )

    def test_independent(self, answer, rng):
        "each row and each feature has noise of its own"
        rows = answer(torch.zeros(3, dtype=EXACT), torch.ones(3, dtype=EXACT), 4000, generator=rng)
        expect_shape(rows, (4000, 3))
        for sizes, what in ((rows[1:, 0], "Rows repeat one another"), (rows[1:, 0].abs(), "Rows mirror one another")):
            different = len(sizes.unique())
            note = f"{what}: each should have noise of its own."
            expect(different > 3900, note, actual=different, returned=f"{different} different ones among 3999")
        # The correlation of 4000 independent pairs varies by 0.016.
        mixed = torch.corrcoef(rows.T) - torch.eye(3, dtype=EXACT)
        expect(
            (mixed.abs() < 0.1).all(),
            "The noise of two features is correlated: each should have its own.",
            actual="the same noise for all features" if (mixed.abs() > 0.99).sum() == 6 else mixed,
            returned=f"a correlation of {mixed.abs().max():.2f}",
        )
        behind = torch.corrcoef(torch.stack([rows[1:-1, 0], rows[2:, 0]]))[0, 1]
        expect(behind.abs() < 0.1, "The noise of a row is correlated with that of the next.", actual=behind)
        rows = answer(torch.zeros(4000, dtype=EXACT), torch.ones(4000, dtype=EXACT), 3, generator=rng)
        expect_shape(rows, (3, 4000))
        both = torch.corrcoef(rows[1:])[0, 1]
        expect(
            both.abs() < 0.1,
            "With 3 rows for 4000 features, the noise of row 1 says something about that of row 2.",
            actual="rows that make up for one another" if both < -0.3 else both,
            returned=f"a correlation of {both:.2f}",
            expected="0, give or take 0.1",
        )

    def test_generator(self, answer, rng):
        "the generator decides: the same state gives the same rows, another one others"
        x, scale, start = normal(rng, 3), between(rng, 0.5, 2, 3), seeded(rng)
        first, again = (answer(x, scale, 6, generator=start()) for _ in range(2))
        expect(
            isinstance(first, torch.Tensor) and isinstance(again, torch.Tensor) and torch.equal(first, again),
            "Two calls with generators in the same state gave different rows: use the generator for all noise.",
        )
        other = start()
        torch.rand(1, generator=other)
        expect(
            not torch.equal(first, answer(x, scale, 6, generator=other)),
            "A generator in another state gave the same rows.",
        )

    def test_dtype(self, answer, rng):
        "the dtype is that of x, whatever that of scale"
        for x_dtype, scale_dtype in ((torch.float32, torch.float32), (EXACT, EXACT), (torch.float32, EXACT)):
            x, scale = normal(rng, 4, dtype=x_dtype), between(rng, 0.5, 2, 4, dtype=scale_dtype)
            rows = answer(x, scale, 5, generator=rng)
            expect_shape(rows, (5, 4))
            expect(
                rows.dtype == x_dtype,
                f"x is {x_dtype} (and scale {scale_dtype}); the rows should be as x.".replace("torch.", ""),
                actual=str(rows.dtype),
            )

    def test_bad_scale(self, answer, rng):
        "a scale that is 0, negative or NaN in one place is refused"
        x = normal(rng, 3)
        for value in (-1.0, 0.0, math.nan):
            expect_raises(ValueError, answer, x, torch.tensor([1.0, value, 1.0], dtype=EXACT), 5, generator=rng)

    def test_shape_of_scale(self, answer, rng):
        "a scale of another shape than x is refused, also one that would broadcast"
        x = normal(rng, 3)
        for scale in (torch.ones(1), torch.ones(()), torch.ones(2, 3), torch.ones(4)):
            expect_raises(ValueError, answer, x, scale.double(), 5, generator=rng)

    def test_no_samples(self, answer, rng):
        "no samples are refused"
        expect_raises(ValueError, answer, normal(rng, 3), torch.ones(3, dtype=EXACT), 0, generator=rng)


class TestLimeKernelWeights:
    exercise = "lime_kernel_weights"

    def test_ends(self, answer, rng):
        "1 at x, and less with every step away from it"
        x, scale, way = normal(rng, 5), between(rng, 0.5, 2, 5), normal(rng, 5)
        rows = x + torch.arange(6)[:, None] * 0.3 * way
        weights = answer(x, rows, scale, 2.0)
        expect_shape(weights, (6,))
        expect_close(weights[0], 1.0, note="The weight of x itself should be 1")
        expect((weights.diff() < 0).all(), "A neighbour that is farther away should count less.", actual=weights)

    def test_width(self, answer, rng):
        "at a distance of kernel_width the weight has fallen to 1/e, in any direction"
        for n_features, width in ((4, 0.5), (9, 3.0)):
            x, scale = normal(rng, n_features), between(rng, 0.3, 3, n_features)
            ways = torch.nn.functional.normalize(normal(rng, 5, n_features), dim=-1)
            weights = answer(x, x + width * ways * scale, scale, width)
            expect_close(
                weights, torch.full((5,), 0.36787944117, dtype=EXACT), rtol=1e-8, note="Each weight should be 1/e"
            )

    def test_units(self, answer, rng):
        "the unit in which a feature is measured makes no difference"
        x, rows, scale = normal(rng, 4), normal(rng, 6, 4), between(rng, 0.5, 2, 4)
        factor = torch.tensor([1.0, 1000.0, 0.01, 1.0], dtype=EXACT)
        expect_close(
            answer(factor * x, factor * rows, factor * scale, 1.7),
            answer(x, rows, scale, 1.7),
            rtol=1e-8,
            note="Feature 1 in metres instead of kilometres (with its scale) should change no weight",
        )

    def test_values(self, answer, reference, rng):
        "the right value for tables of several sizes and dtypes"
        for n_samples, n_features, width, dtype in ((7, 3, 1.3, EXACT), (4, 8, 2.5, torch.float32), (1, 1, 0.7, EXACT)):
            x, rows = normal(rng, n_features, dtype=dtype), normal(rng, n_samples, n_features, dtype=dtype)
            given = x, rows, between(rng, 0.5, 2, n_features, dtype=dtype), width
            expect_close(answer(*given), reference(*given), dtype=True)

    def test_dtype(self, answer, reference, rng):
        "the dtype is that of the neighbours, whatever those of x and scale"
        x, rows, scale = normal(rng, 3), normal(rng, 5, 3, dtype=torch.float32), between(rng, 0.5, 2, 3)
        weights = answer(x, rows, scale, 1.5)
        expect_close(weights, reference(x, rows, scale, 1.5), rtol=1e-4, atol=1e-5)
        expect(
            weights.dtype == rows.dtype,
            "The neighbours are float32, x and scale float64: the weights should be as the neighbours.",
            actual=str(weights.dtype),
        )

    def test_bad_width(self, answer, rng):
        "a width that is 0 or negative is refused"
        x, rows = normal(rng, 3), normal(rng, 4, 3)
        for width in (-1.0, 0.0):
            expect_raises(ValueError, answer, x, rows, torch.ones(3, dtype=EXACT), width)

    def test_bad_scale(self, answer, rng):
        "a scale that is 0 or negative in one place is refused"
        x, rows = normal(rng, 3), normal(rng, 4, 3)
        for value in (-1.0, 0.0):
            expect_raises(ValueError, answer, x, rows, torch.tensor([1.0, value, 1.0], dtype=EXACT), 1.0)

    def test_nan(self, answer, rng):
        "a width or a scale of NaN is refused"
        x, rows = normal(rng, 3), normal(rng, 4, 3)
        expect_raises(ValueError, answer, x, rows, torch.ones(3, dtype=EXACT), math.nan)
        expect_raises(ValueError, answer, x, rows, torch.tensor([1.0, math.nan, 1.0], dtype=EXACT), 1.0)


class TestLimeExplain:
    exercise = "lime_explain"

    def test_linear_model(self, answer, rng):
        "a linear model is explained by its own coefficients, times scale"
        for n_features in (3, 6):
            v, x, scale = normal(rng, n_features), 2 * normal(rng, n_features), between(rng, 0.3, 3, n_features)
            result = answer(
                lambda X, v=v: X @ v - 4, x, scale, kernel_width=2.5, n_samples=300, ridge=1e-9, generator=rng
            )
            w, b, fidelity = three(result, n_features)
            expect_close(
                w, v * scale, rtol=1e-5, atol=1e-6, note="For model(X) = X @ v - 4 the coefficients should be v * scale"
            )
            expect_close(
                b, x @ v - 4, rtol=1e-5, atol=1e-5, note="The intercept should be what the linear model says at x"
            )
            expect_close(fidelity, 1.0, atol=1e-6, note="A linear model is fitted perfectly: the fidelity should be 1")

    def test_without_gradients(self, answer, rng):
        "the model is called without gradients"
        x, modes = normal(rng, 3), []

        def model(X):
            modes.append(torch.is_grad_enabled())
            return X.square().sum(1)

        answer(model, x, torch.ones(3, dtype=EXACT), kernel_width=1.5, n_samples=20, generator=rng)
        expect(
            modes and not any(modes),
            "Gradients were on while the model ran: it then keeps every intermediate result, for a backward pass that "
            "never comes.",
            actual=modes,
            returned="gradients on",
            expected="gradients off",
        )

    def test_best_fit(self, answer, rng):
        "no other line is better: the weighted residuals are balanced against the ridge"
        for n_features, width, ridge in ((4, 1.5, 0.7), (6, 3.0, 2.5)):
            model, x, scale = (
                Recorder(bent_model(rng, n_features)),
                normal(rng, n_features),
                between(rng, 0.4, 1.5, n_features),
            )
            w, b, _ = three(
                answer(model, x, scale, kernel_width=width, n_samples=80, ridge=ridge, generator=rng), n_features
            )
            expect(
                model.seen is not None and model.seen.shape == (80, n_features),
                "The model should be asked about all neighbours in one call.",
            )
            u = (model.seen - x) / scale
            pi = (-u.square().sum(1) / width**2).exp()
            rest = pi * (model.said - b - u @ w)
            expect_close(
                rest.sum(),
                0.0,
                rtol=0,
                atol=1e-7,
                note="The weighted residuals should add up to 0, or another intercept would be better",
            )
            expect_close(
                u.T @ rest,
                ridge * w,
                rtol=1e-6,
                atol=1e-7,
                note="u.T @ (weights * residuals) should equal ridge * w, or another w would be better",
            )

    def test_neighbourhood(self, answer, rng):
        "the model is asked about the rows that lime_neighbourhood draws, x first"
        x, scale, start = normal(rng, 4), between(rng, 0.5, 2, 4), seeded(rng)
        model = Recorder(bent_model(rng, 4))
        given, alone = start(), start()
        answer(model, x, scale, kernel_width=2.0, n_samples=30, generator=given)
        expect_close(
            model.seen, lime_neighbourhood(x, scale, 30, generator=alone), note="The rows that the model was given"
        )
        expect(
            torch.equal(given.get_state(), alone.get_state()),
            "The generator has moved on by more, or less, than one call of lime_neighbourhood moves it.",
            actual="the generator is used otherwise",
            returned="a generator in another state",
        )

    def test_values(self, answer, reference, rng):
        "coefficients, intercept and fidelity for several sizes, widths and penalties"
        for n_features, n_samples, width, ridge in ((3, 50, 1.2, 1.0), (7, 40, 3.0, 0.2), (1, 30, 0.8, 4.0)):
            model, x, scale = bent_model(rng, n_features), normal(rng, n_features), between(rng, 0.4, 1.5, n_features)
            start = seeded(rng)
            options = {"kernel_width": width, "n_samples": n_samples, "ridge": ridge}
            got = three(answer(model, x, scale, **options, generator=start()), n_features)
            expect_close(got, reference(model, x, scale, **options, generator=start()), rtol=1e-7, atol=1e-9)

    def test_defaults(self, answer, reference, rng):
        "1000 neighbours and a ridge of 1 where nothing else is said"
        model, x, scale = bent_model(rng, 4), normal(rng, 4), between(rng, 0.4, 1.5, 4)
        start = seeded(rng)
        got = three(answer(model, x, scale, kernel_width=1.5, generator=start()), 4)
        expect_close(got, reference(model, x, scale, kernel_width=1.5, generator=start()), rtol=1e-7, atol=1e-9)

    def test_dtype(self, answer, reference, rng):
        "coefficients, intercept and fidelity have the dtype of the model's outputs"
        single, double = torch.float32, EXACT
        for x_dtype, out_dtype in ((single, single), (single, double), (double, single)):
            inner, x = bent_model(rng, 4, x_dtype), normal(rng, 4, dtype=x_dtype)

            def model(X, inner=inner, out_dtype=out_dtype):
                return inner(X).to(out_dtype)

            start, options = seeded(rng), {"kernel_width": 1.5, "n_samples": 200}
            got = three(answer(model, x, torch.ones_like(x), **options, generator=start()), 4)
            wanted = reference(model, x, torch.ones_like(x), **options, generator=start())
            expect_close(got, wanted, rtol=1e-3, atol=1e-3)
            for part, name in zip(got, ("coefficients", "intercept", "fidelity"), strict=True):
                expect(
                    part.dtype == out_dtype,
                    f"x is {x_dtype} and the model puts out {out_dtype}; the {name} should be as what it puts "
                    "out.".replace("torch.", ""),
                    actual=str(part.dtype),
                )

    def test_bad_ridge(self, answer, rng):
        "a ridge that is 0, negative or NaN is refused"
        x, scale = normal(rng, 3), torch.ones(3, dtype=EXACT)
        for ridge in (-1.0, 0.0, math.nan):
            expect_raises(ValueError, answer, lambda X: X[:, 0], x, scale, kernel_width=1.0, ridge=ridge, generator=rng)

    def test_bad_model(self, answer, rng):
        "a model that returns something else than one number for each row is refused"
        x, scale = normal(rng, 3), torch.ones(3, dtype=EXACT)
        for model in (lambda X: X, lambda X: X[:, :1], lambda X: X.mean()):
            expect_raises(ValueError, answer, model, x, scale, kernel_width=1.0, generator=rng)

    def test_bad_neighbourhood(self, answer, rng):
        "what lime_neighbourhood and lime_kernel_weights refuse is refused"
        x, scale = normal(rng, 3), torch.ones(3, dtype=EXACT)
        expect_raises(ValueError, answer, lambda X: X[:, 0], x, 0 * scale, kernel_width=1.0, generator=rng)
        expect_raises(ValueError, answer, lambda X: X[:, 0], x, scale, kernel_width=0.0, generator=rng)
