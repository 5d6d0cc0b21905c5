"""Checks for many tests at once: Bonferroni, Benjamini and Hochberg, the permutation maximum."""

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape


def p_values(rng, *shape, dtype=torch.float64):
    """A mixture: most uniform, some very small; no two alike."""
    uniform = torch.rand(shape, generator=rng, dtype=dtype)
    small = torch.rand(shape, generator=rng, dtype=dtype) < 0.4
    return torch.where(small, uniform**6, uniform)


def bad_p_values(rng):
    for value in (-0.01, 1.01, float("nan")):
        p = p_values(rng, 5)
        p[2] = value
        yield p


def pair(result):
    """The two parts of an answer's result, refused if there are not two of the right kinds."""
    expect(
        isinstance(result, tuple) and len(result) == 2,
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


class TestBonferroni:
    exercise = "bonferroni"

    def test_values(self, answer, reference, rng):
        "adjusted p-values, and what is rejected at 5 %"
        for n_tests in (1, 2, 7, 40):
            p = p_values(rng, n_tests)
            pair(answer(p))
            expect_close(answer(p), reference(p))

    def test_families(self, answer, reference, rng):
        "each row is a family of its own"
        for shape in ((3, 5), (2, 4, 3), (6, 1)):
            p = p_values(rng, *shape)
            pair(answer(p))
            expect_close(answer(p), reference(p))

    def test_level(self, answer, reference, rng):
        "alpha decides what is rejected, and nothing else"
        p = p_values(rng, 4, 12)
        for alpha in (0.3, 0.01, 0.75):
            pair(answer(p, alpha))
            expect_close(answer(p, alpha), reference(p, alpha))

    def test_exactly_at_the_level(self, answer):
        "an adjusted p-value that equals alpha is rejected, and none exceeds 1"
        p = torch.tensor([0.125, 0.75, 0.0625, 0.0, 1.0, 0.25, 0.5, 0.375], dtype=torch.float64)
        rejected, adjusted = pair(answer(p, 0.5))
        wanted = torch.tensor([1.0, 1.0, 0.5, 0.0, 1.0, 1.0, 1.0, 1.0], dtype=torch.float64)
        expect_close(adjusted, wanted, note="With eight tests, each p-value counts eight times, and at most 1")
        expect_close(rejected, wanted <= 0.5, note="An adjusted p-value of exactly alpha is rejected")

    def test_dtype_and_layout(self, answer, reference, rng):
        "float32 stays float32, and the memory layout does not matter"
        p = p_values(rng, 6, 4, dtype=torch.float32).T
        pair(answer(p))
        expect_close(answer(p), reference(p), dtype=True)

    def test_bad_input(self, answer, rng):
        "impossible p-values and levels, and families without a test, are refused"
        for p in bad_p_values(rng):
            expect_raises(ValueError, answer, p)
        for alpha in (0.0, 1.0, 5.0):
            expect_raises(ValueError, answer, p_values(rng, 4), alpha)
        expect_raises(ValueError, answer, torch.zeros(3, 0))


class TestBenjaminiHochberg:
    exercise = "benjamini_hochberg"

    def test_values(self, answer, reference, rng):
        "adjusted p-values, and what is rejected at 5 %, in the order that was given"
        for n_tests in (1, 2, 7, 40):
            p = p_values(rng, n_tests)
            pair(answer(p))
            expect_close(answer(p), reference(p))

    def test_families(self, answer, reference, rng):
        "each row is a family of its own"
        for shape in ((3, 5), (2, 4, 3), (6, 1)):
            p = p_values(rng, *shape)
            pair(answer(p))
            expect_close(answer(p), reference(p))

    def test_exactly_at_the_level(self, answer):
        "an adjusted p-value that equals alpha is rejected"
        p = torch.tensor([1.0, 0.25, 0.125, 0.875], dtype=torch.float64)
        rejected, adjusted = pair(answer(p, 0.5))
        wanted = torch.tensor([1.0, 0.5, 0.5, 1.0], dtype=torch.float64)
        expect_close(adjusted, wanted, note="4 * 0.125 / 1 and 4 * 0.25 / 2 are 0.5; the other two get 1")
        expect_close(rejected, wanted <= 0.5, note="An adjusted p-value of exactly alpha is rejected")

    def test_equal_p_values(self, answer, reference, rng):
        "equal p-values take up as many ranks as they are, and the last of these counts for all"
        p = (8 * p_values(rng, 3, 12)).ceil() / 8
        pair(answer(p))
        expect_close(answer(p), reference(p))

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
            pair(answer(p, alpha))
            expect_close(answer(p, alpha), reference(p, alpha))

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
        "float32 stays float32, and the memory layout does not matter"
        p = p_values(rng, 6, 4, dtype=torch.float32).T
        pair(answer(p))
        expect_close(answer(p), reference(p), dtype=True)

    def test_bad_input(self, answer, rng):
        "impossible p-values and levels, and families without a test, are refused"
        for p in bad_p_values(rng):
            expect_raises(ValueError, answer, p)
        for alpha in (0.0, 1.0, 5.0):
            expect_raises(ValueError, answer, p_values(rng, 4), alpha)
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
        for n_samples, n_tests, n_permutations in ((12, 5, 63), (9, 1, 31), (20, 8, 1)):
            statistic = products_with(torch.randn(n_samples, n_tests, generator=rng, dtype=torch.float64))
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

    def test_bad_input(self, answer, rng):
        "labels in two dimensions, no permutations, and statistics that are no row of numbers are refused"
        data, labels = torch.randn(6, 3, generator=rng), torch.randn(6, generator=rng)
        generator = torch.Generator().manual_seed(0)
        good = {"n_permutations": 3, "generator": generator}
        expect_raises(ValueError, answer, products_with(data), labels[None], **good)
        expect_raises(ValueError, answer, products_with(data), labels, **(good | {"n_permutations": 0}))
        expect_raises(ValueError, answer, lambda y: (y @ data)[None], labels, **good)
        expect_raises(ValueError, answer, lambda y: y @ data / 0 * 0, labels, **good)
