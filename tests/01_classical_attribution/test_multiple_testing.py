"""Checks for many tests at once: Bonferroni, Benjamini and Hochberg, the permutation maximum."""

import math

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape


def p_values(rng, *shape, dtype=torch.float64):
    """A mixture: most uniform, some very small; no two alike."""
    uniform = torch.rand(shape, generator=rng, dtype=dtype)
    small = torch.rand(shape, generator=rng, dtype=dtype) < 0.4
    return torch.where(small, uniform**6, uniform)


def with_one(rng, value):
    """Five p-values, of which one is this."""
    p = p_values(rng, 5)
    p[2] = value
    return p


def pair(result):
    """The two parts of an answer's result, refused if there are not two of the right kinds."""
    expect(
        isinstance(result, tuple | list) and len(result) == 2,
        "Return two things: what is rejected, and the adjusted p-values.",
        actual=result,
    )
    rejected, adjusted = result
    expect(
        isinstance(rejected, torch.Tensor) and rejected.dtype == torch.bool,
        "The first part should be a tensor of booleans: True where the hypothesis is rejected.",
        actual=rejected,
    )
    return rejected, adjusted


def expect_corrected(result, wanted, *, dtype=False):
    """Expect both parts; the adjusted p-values first, as what is rejected mostly follows from them."""
    rejected, adjusted = pair(result)
    expect_shape(adjusted, tuple(wanted[1].shape))
    if dtype:
        expect(
            adjusted.dtype == wanted[1].dtype,
            "The adjusted p-values should have the dtype of the p-values.",
            actual=("dtype", str(adjusted.dtype)),
            returned=str(adjusted.dtype),
            expected=str(wanted[1].dtype),
        )
    expect_close(adjusted, wanted[1], note="The adjusted p-values differ")
    expect_close(rejected, wanted[0], note="The adjusted p-values are right; what is rejected differs")


def expect_below(rejected, below, n_below, what):
    """Expect that of tests a thousandth below their limit and above it the former are rejected, which come first."""
    wanted = [i < n_below for i in range(len(rejected))]
    expect(
        rejected.tolist() == wanted,
        f"Of {len(rejected)} p-values {n_below} are {below:.6g}, a little below {what}, and the others are above their "
        "limits. Those below are to be rejected, and no others.",
        actual=("below", rejected.tolist()),
        returned=f"{int(rejected[:n_below].sum())} of those below rejected, {int(rejected[n_below:].sum())} others",
        expected=f"{n_below} of those below, no others",
    )


def expect_at_and_above(rejected, at, above, what):
    """Expect that of the first two tests the one at its limit is rejected, and the one a millionth above is not."""
    expect(
        bool(rejected[0]),
        f"A p-value of {at!r}, which is {what}, is at its limit and is not rejected, while one a little below would "
        "be: by rounding, the product is larger than alpha in the last bit. Leave room for that.",
        actual="kept at its limit",
        returned="not rejected",
        expected="rejected",
    )
    expect(
        not bool(rejected[1]),
        f"A p-value of {above!r} is a millionth above its limit and is rejected: that is more than rounding.",
        actual="rejected above its limit",
        returned="rejected",
        expected="not rejected",
    )


class TestBonferroni:
    exercise = "bonferroni"

    def test_values(self, answer, reference, rng):
        "adjusted p-values, and what is rejected at 5 %"
        for n_tests in (1, 2, 7, 40):
            p = p_values(rng, n_tests)
            expect_corrected(answer(p), reference(p))

    def test_families(self, answer, reference, rng):
        "each row is a family of its own"
        for shape in ((3, 5), (2, 4, 3), (6, 1)):
            p = p_values(rng, *shape)
            expect_corrected(answer(p), reference(p))

    def test_level(self, answer, reference, rng):
        "alpha decides what is rejected, and nothing else"
        p = p_values(rng, 4, 12)
        for alpha in (0.3, 0.01, 0.75):
            expect_corrected(answer(p, alpha), reference(p, alpha))

    def test_exactly_at_the_level(self, answer):
        "an adjusted p-value that equals alpha is rejected, and none exceeds 1"
        p = torch.tensor([0.125, 0.75, 0.0625, 0.0, 1.0, 0.25, 0.5, 0.375], dtype=torch.float64)
        wanted = torch.tensor([1.0, 1.0, 0.5, 0.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
        expect_corrected(answer(p, 0.5), (wanted <= 0.5, wanted))

    def test_rounding(self, answer, rng):
        "a p-value of exactly alpha / m is rejected, whatever the last bits of m * p are; one a little above is kept"
        for n_tests in range(2, 42):
            thousandths = int(torch.randint(1, 900 // n_tests, (), generator=rng))
            alpha, at, above = thousandths * n_tests / 1000, thousandths / 1000, (1 + 1e-6) * thousandths / 1000
            below = torch.tensor([0.999 * at, *[1.0] * (n_tests - 1)], dtype=torch.float64)
            rejected, adjusted = pair(answer(below, alpha))
            expect_close(adjusted, (below * n_tests).clamp(max=1), note="The adjusted p-values differ")
            expect_shape(rejected, (n_tests,))
            expect_below(rejected, 0.999 * at, 1, f"alpha / {n_tests}, with alpha = {alpha}")
            p = torch.tensor([at, above, *[1.0] * (n_tests - 2)], dtype=torch.float64)
            rejected, adjusted = pair(answer(p, alpha))
            expect_close(adjusted, (p * n_tests).clamp(max=1), note="The adjusted p-values differ")
            expect_shape(rejected, (n_tests,))
            expect_at_and_above(rejected, at, above, f"alpha / {n_tests}, with alpha = {alpha}")

    def test_dtype_and_layout(self, answer, reference, rng):
        "the adjusted p-values have the dtype of the p-values, and the memory layout does not matter"
        for dtype in (torch.float32, torch.float64):
            p = p_values(rng, 6, 4, dtype=dtype).T
            expect_corrected(answer(p), reference(p), dtype=True)

    def test_bad_p_values(self, answer, rng):
        "p-values below 0 or above 1 are refused"
        for value in (-0.01, 1.01):
            expect_raises(ValueError, answer, with_one(rng, value))

    def test_nan(self, answer, rng):
        "a p-value or a level of NaN is refused"
        expect_raises(ValueError, answer, with_one(rng, math.nan))
        expect_raises(ValueError, answer, p_values(rng, 4), math.nan)

    def test_bad_level(self, answer, rng):
        "a level that is not strictly between 0 and 1 is refused"
        for alpha in (0.0, 1.0, 5.0):
            expect_raises(ValueError, answer, p_values(rng, 4), alpha)

    def test_no_test(self, answer):
        "families without a test are refused"
        expect_raises(ValueError, answer, torch.zeros(3, 0))


class TestBenjaminiHochberg:
    exercise = "benjamini_hochberg"

    def test_values(self, answer, reference, rng):
        "adjusted p-values, and what is rejected at 5 %, in the order that was given"
        for n_tests in (1, 2, 7, 40):
            p = p_values(rng, n_tests)
            expect_corrected(answer(p), reference(p))

    def test_families(self, answer, reference, rng):
        "each row is a family of its own"
        for shape in ((3, 5), (2, 4, 3), (6, 1)):
            p = p_values(rng, *shape)
            expect_corrected(answer(p), reference(p))

    def test_exactly_at_the_level(self, answer):
        "an adjusted p-value that equals alpha is rejected"
        p = torch.tensor([1.0, 0.25, 0.125, 0.875], dtype=torch.float64)
        # 4 * 0.125 / 1 and 4 * 0.25 / 2 are 0.5; the other two get 1.
        wanted = torch.tensor([1.0, 0.5, 0.5, 1.0], dtype=torch.float64)
        expect_corrected(answer(p, 0.5), (wanted <= 0.5, wanted))

    def test_rounding(self, answer, rng):
        "a p-value of exactly alpha k / m keeps its limit, whatever the last bits say; one a little above does not"
        for n_tests in range(3, 42):
            alpha = 0.01 + 0.3 * torch.rand((), generator=rng, dtype=torch.float64).item()
            k = int(torch.randint(1, n_tests - 1, (), generator=rng))
            at, above = alpha * k / n_tests, (1 + 1e-6) * alpha * (k + 1) / n_tests
            what = f"alpha * {k} / {n_tests} ({k} times), with alpha = {alpha}"
            below = torch.tensor([0.999 * at] * k + [1.0] * (n_tests - k), dtype=torch.float64)
            rejected, adjusted = pair(answer(below.flip(0), alpha))
            wanted = torch.tensor([0.999 * alpha] * k + [1.0] * (n_tests - k), dtype=torch.float64)
            expect_close(adjusted.flip(0), wanted, rtol=1e-6, note="The adjusted p-values differ")
            expect_shape(rejected, (n_tests,))
            expect_below(rejected.flip(0), 0.999 * at, k, what)
            p = torch.tensor([at] * k + [above] + [1.0] * (n_tests - k - 1), dtype=torch.float64)
            rejected, adjusted = pair(answer(p.flip(0), alpha))
            wanted = torch.tensor([alpha] * k + [above * n_tests / (k + 1)] + [1.0] * (n_tests - k - 1))
            expect_close(adjusted.flip(0), wanted.double(), rtol=1e-6, note="The adjusted p-values differ")
            expect_shape(rejected, (n_tests,))
            expect_at_and_above(rejected.flip(0)[k - 1 :], at, above, what)

    def test_equal_p_values(self, answer, reference, rng):
        "equal p-values take up as many ranks as they are, and the last of these counts for all"
        p = (8 * p_values(rng, 3, 12)).ceil() / 8
        expect_corrected(answer(p), reference(p))

    def test_step_up(self, answer, rng):
        "a p-value above its own limit is rejected if a larger one is below its own"
        p = torch.tensor([0.001, 0.03, 0.031, 0.034, 0.9, 0.036], dtype=torch.float64)
        order = torch.randperm(6, generator=rng)
        rejected, _ = pair(answer(p[order]))
        expect_close(
            rejected,
            (p < 0.04)[order],
            note="Of 0.001, 0.03, 0.031, 0.034, 0.036 and 0.9 the first five are rejected: 0.036 is below its limit "
            "0.05 * 5 / 6, so everything smaller goes with it",
        )

    def test_level(self, answer, reference, rng):
        "alpha decides what is rejected, and nothing else"
        p = p_values(rng, 4, 40)
        for alpha in (0.6, 0.01, 0.75):
            expect_corrected(answer(p, alpha), reference(p, alpha))

    def test_monotone(self, answer, rng):
        "a smaller p-value never gets a larger adjusted one; no p-value gets smaller; equals stay equal"
        p = p_values(rng, 30)
        p[7] = p[19]
        _, adjusted = pair(answer(p))
        expect_shape(adjusted, (30,))
        by_size = adjusted[p.argsort()]
        rounding = 1e-12
        expect((by_size.diff() >= -rounding).all(), "The order of some adjusted p-values is reversed.", actual=by_size)
        expect((adjusted >= p - rounding).all(), "Some adjusted p-value is below the p-value itself.", actual=adjusted)
        expect_close(adjusted[7], adjusted[19], note="Two equal p-values were adjusted differently")

    def test_dtype_and_layout(self, answer, reference, rng):
        "the adjusted p-values have the dtype of the p-values, and the memory layout does not matter"
        for dtype in (torch.float32, torch.float64):
            p = p_values(rng, 6, 4, dtype=dtype).T
            expect_corrected(answer(p), reference(p), dtype=True)

    def test_bad_p_values(self, answer, rng):
        "p-values below 0 or above 1 are refused"
        for value in (-0.01, 1.01):
            expect_raises(ValueError, answer, with_one(rng, value))

    def test_nan(self, answer, rng):
        "a p-value or a level of NaN is refused"
        expect_raises(ValueError, answer, with_one(rng, math.nan))
        expect_raises(ValueError, answer, p_values(rng, 4), math.nan)

    def test_bad_level(self, answer, rng):
        "a level that is not strictly between 0 and 1 is refused"
        for alpha in (0.0, 1.0, 5.0):
            expect_raises(ValueError, answer, p_values(rng, 4), alpha)

    def test_no_test(self, answer):
        "families without a test are refused"
        expect_raises(ValueError, answer, torch.zeros(3, 0))


def products_with(data):
    """Sum of label times value for each column: whole numbers stay exact."""

    def statistic(labels):
        return labels.to(data.dtype) @ data

    return statistic


class TestMaxStatisticPermutation:
    """1 + n_permutations is a power of two: their quotients are the same in float32 and in float64."""

    exercise = "max_statistic_permutation"

    def test_values(self, answer, reference, rng):
        "adjusted p-values for labels of numbers and of booleans"
        for n_samples, n_tests, n_permutations, unit in (
            (12, 5, 63, 1),
            (9, 1, 31, 1),
            (20, 8, 1, 1),
            (12, 5, 63, 1e-6),
        ):
            statistic = products_with(unit * torch.randn(n_samples, n_tests, generator=rng, dtype=torch.float64))
            labels = torch.randn(n_samples, generator=rng, dtype=torch.float64)
            for given in (labels, labels > 0):
                seed = int(torch.randint(2**31, (), generator=rng))
                options = {"n_permutations": n_permutations}
                expect_close(
                    answer(statistic, given, **options, generator=torch.Generator().manual_seed(seed)),
                    reference(statistic, given, **options, generator=torch.Generator().manual_seed(seed)),
                )

    def test_which_values(self, answer, rng):
        "the least is 1 over the number of permutations plus one, the largest is 1"
        data = torch.randn(60, 4, generator=rng, dtype=torch.float64)
        labels = torch.randn(60, generator=rng, dtype=torch.float64)
        data[:, 1], data[:, 2] = labels * 50, 0
        p = answer(products_with(data), labels, n_permutations=31, generator=torch.Generator().manual_seed(7))
        expect_shape(p, (4,))
        expect_close(p[1], torch.tensor(1 / 32).double(), note="No shuffled label does as well as the column of labels")
        expect_close(p[2], torch.tensor(1.0).double(), note="A statistic of 0 is reached by every permutation")

    def test_both_sides(self, answer, rng):
        "turning all statistics round changes nothing"
        data = torch.randn(15, 6, generator=rng, dtype=torch.float64)
        labels = torch.randn(15, generator=rng, dtype=torch.float64)
        options = {"n_permutations": 31}
        forwards = answer(products_with(data), labels, **options, generator=torch.Generator().manual_seed(9))
        expect_shape(forwards, (6,))
        backwards = answer(products_with(-data), labels, **options, generator=torch.Generator().manual_seed(9))
        expect_close(backwards, forwards, note="With all signs reversed, the p-values changed")

    def test_ties(self, answer, reference, rng):
        "a permutation that does exactly as well counts"
        # One label of five differs, so that every fifth order is as good as the true one; whole numbers tie exactly.
        data = torch.randint(-4, 5, (5, 3), generator=rng).double()
        labels = (torch.arange(5) == torch.randint(5, (), generator=rng)).long()
        options = {"n_permutations": 127}
        expect_close(
            answer(products_with(data), labels, **options, generator=torch.Generator().manual_seed(11)),
            reference(products_with(data), labels, **options, generator=torch.Generator().manual_seed(11)),
        )

    def test_dtype(self, answer, rng):
        "p-values in the dtype of the statistic"
        for dtype in (torch.float32, torch.float64):
            statistic = products_with(torch.randn(8, 3, generator=rng, dtype=dtype))
            found = answer(statistic, torch.arange(8), n_permutations=3, generator=torch.Generator().manual_seed(3))
            expect_shape(found, (3,))
            expect(
                found.dtype == dtype,
                f"The statistic is {dtype} and your p-values are not.".replace("torch.", ""),
                actual=str(found.dtype),
            )

    def test_counts(self, answer, rng):
        "counted right also where the statistic is in bfloat16, which cannot count beyond 256"
        data = torch.randn(8, 2, generator=rng).bfloat16()
        data[:, 1] = 0
        options = {"n_permutations": 1023, "generator": torch.Generator().manual_seed(5)}
        found = answer(products_with(data), torch.arange(8), **options)
        expect_shape(found, (2,))
        note = "A statistic of 0 is reached by each of 1023 permutations"
        expect_close(found[1], torch.tensor(1.0).bfloat16(), note=note, rtol=0.02, atol=0)

    def test_companions(self, answer, rng):
        "more tests that are looked at make every p-value larger or leave it"
        data = torch.randn(20, 30, generator=rng, dtype=torch.float64)
        labels = torch.randn(20, generator=rng, dtype=torch.float64)
        options = {"n_permutations": 127}
        few = answer(products_with(data[:, :2]), labels, **options, generator=torch.Generator().manual_seed(13))
        expect_shape(few, (2,))
        many = answer(products_with(data), labels, **options, generator=torch.Generator().manual_seed(13))
        expect((many[:2] >= few).all(), "With 28 more tests, a p-value became smaller.", actual=many[:2] - few)

    def test_generator(self, answer, rng):
        "the orders come from the generator, and from nowhere else"
        statistic = products_with(torch.randn(10, 3, generator=rng, dtype=torch.float64))
        labels, state = torch.randn(10, generator=rng, dtype=torch.float64), torch.get_rng_state()
        answer(statistic, labels, n_permutations=5, generator=torch.Generator().manual_seed(1))
        moved = not torch.equal(torch.get_rng_state(), state)
        torch.set_rng_state(state)
        expect(not moved, "Your orders come from torch's global random state; use `generator`.", actual="global state")

    def test_bad_labels(self, answer, rng):
        "labels in two dimensions are refused"
        data, labels = torch.randn(6, 3, generator=rng), torch.randn(6, generator=rng)
        options = {"n_permutations": 3, "generator": torch.Generator().manual_seed(0)}
        expect_raises(ValueError, answer, products_with(data), labels[None], **options)
        # With this statistic all goes well for a column of labels too, unless somebody looks at its shape.
        expect_raises(ValueError, answer, lambda y: y.flatten() @ data, labels[:, None], **options)

    def test_no_permutations(self, answer, rng):
        "fewer than one permutation are refused"
        data, labels = torch.randn(6, 3, generator=rng), torch.randn(6, generator=rng)
        generator = torch.Generator().manual_seed(0)
        expect_raises(ValueError, answer, products_with(data), labels, n_permutations=0, generator=generator)

    def test_bad_statistic(self, answer, rng):
        "statistics that are no row, or hold a NaN or an infinity, are refused"
        data, labels = torch.randn(6, 3, generator=rng), torch.randn(6, generator=rng)
        options = {"n_permutations": 3, "generator": torch.Generator().manual_seed(0)}
        spoilt = [torch.tensor([1.0, value, 1.0]) for value in (math.nan, math.inf)]
        for statistic in (
            lambda y: (y @ data)[None],
            lambda y: (y @ data).sum(),
            *(lambda y, factor=factor: y @ data * factor for factor in spoilt),
        ):
            expect_raises(ValueError, answer, statistic, labels, **options)
