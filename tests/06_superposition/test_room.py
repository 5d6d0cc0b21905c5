"""Checks for how many directions have room, and for what their overlaps do together."""

import math

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape


class TestRandomDirections:
    exercise = "random_directions"

    def test_unit_rows(self, answer, rng):
        "rows of length 1, of the shape that was asked for"
        for n, d in ((5, 3), (1, 8), (7, 1), (40, 2)):
            found = answer(n, d, rng)
            expect_shape(found, (n, d))
            expect_close(found.norm(dim=-1), torch.ones(n), note="Not all rows have length 1.")

    def test_from_the_generator(self, answer):
        "the same generator gives the same directions, another one others"
        first, again, other = (answer(6, 4, torch.Generator().manual_seed(seed)) for seed in (5, 5, 6))
        expect_close(again, first, note="Two generators with one seed give different directions.")
        expect(not torch.equal(other, first), "Generators with different seeds give the same.", actual=other)

    def test_everywhere_on_the_sphere(self, answer, rng):
        "no direction is favoured: neither a half, nor the axes, nor the diagonals"
        found = answer(20_000, 3, rng)
        expect_shape(found, (20_000, 3))
        found = found / found.norm(dim=-1, keepdim=True)
        centre = found.mean(dim=0).abs().max().item()
        expect(
            centre < 0.03, "Their mean is far from 0: one side of the sphere is favoured.", actual="lopsided",
            returned=f"a mean with an entry of {centre:.3f}", expected="near 0",
        )  # fmt: skip
        second = (found.T @ found / len(found) - torch.eye(3, dtype=found.dtype) / 3).abs().max().item()
        expect(
            second < 0.015, "Some directions come more often than others: they lie near a plane, or near a line.",
            actual="flat", returned=f"mean products of coordinates off by up to {second:.3f}",
            expected="1/3 for each with itself, 0 for two different ones",
        )  # fmt: skip
        fourth = found.pow(4).mean().item()  # on the sphere in three dimensions a coordinate's mean 4th power is 1/5
        expect(
            abs(fourth - 0.2) < 0.006,
            "Some directions come more often than others: towards the corners of a cube, or along the axes.",
            actual="corners" if fourth < 0.2 else "axes",
            returned=f"coordinates with a mean fourth power of {fourth:.4f}", expected="0.2",
        )  # fmt: skip

    def test_independent(self, answer, rng):
        "fewer directions than dimensions: they know nothing of each other, and are not at right angles"
        n, d = 40, 60
        found = answer(n, d, rng)
        expect_shape(found, (n, d))
        found = found / found.norm(dim=-1, keepdim=True)
        square = (found @ found.T)[~torch.eye(n, dtype=torch.bool)].square().mean().item() * d  # has a mean of 1
        expect(
            square < 1.5, "Some rows are too close to each other, or to each other's opposites.", actual="alike",
            returned=f"a mean squared cosine of {square / d:.4f}", expected=f"about 1/{d} = {1 / d:.4f}",
        )  # fmt: skip
        expect(
            square > 0.5, "The rows keep away from each other: given the others, a row is not free.", actual="apart",
            returned=f"a mean squared cosine of {square / d:.4f}", expected=f"about 1/{d} = {1 / d:.4f}",
        )  # fmt: skip


class TestMaxInterference:
    exercise = "max_interference"

    def test_values(self, answer, reference, rng):
        "random rows of different lengths, with and without signs"
        for n, d in ((6, 3), (2, 5), (15, 40), (4, 1)):
            W = torch.randn(n, d, generator=rng) * (torch.rand(n, 1, generator=rng) + 0.2)
            for signed in (False, True):
                expect_close(answer(W, signed=signed), reference(W, signed=signed), rtol=1e-4, atol=1e-5)

    def test_known_sets(self, answer):
        "0 for axes; 1 for a pair that points away from each other; -1/2 and 1/2 for a triangle"
        expect_close(answer(torch.eye(3)), 0.0, atol=1e-5)
        expect_close(answer(torch.tensor([[2.0, 0.0], [-3.0, 0.0]])), 1.0, rtol=1e-4)
        angle = torch.arange(3) * 2 * math.pi / 3
        triangle = 3 * torch.stack([angle.cos(), angle.sin()], dim=1)
        expect_close(answer(triangle), 0.5, rtol=1e-4)
        expect_close(answer(triangle, signed=True), -0.5, rtol=1e-4)

    def test_the_same_direction_twice(self, answer):
        "two different rows may be one direction: 1"
        expect_close(answer(torch.tensor([[1.0, 2.0], [2.0, -1.0], [2.0, 4.0]])), 1.0, rtol=1e-4)

    def test_many_rows(self, answer, rng):
        "1,200 rows, the two that matter far apart"
        W = torch.randn(1200, 60, generator=rng)
        W[1150] = -(W[30] + 0.05 * torch.randn(60, generator=rng))
        cosine = torch.nn.functional.cosine_similarity(W[1150], W[30], dim=0).abs()
        expect_close(answer(W), cosine.item(), rtol=1e-3)

    def test_bad_input(self, answer):
        "a single row, and a row of zeros, are refused"
        expect_raises(ValueError, answer, torch.ones(1, 4))
        expect_raises(ValueError, answer, torch.tensor([[1.0, 2.0], [0.0, 0.0], [3.0, 1.0]]))


class TestJLDimension:
    exercise = "jl_dimension"

    def test_values(self, answer, reference):
        "from two points to a billion, from a tenth of a per cent to ninety per cent"
        for n in (2, 10, 10_000, 10**9):
            for epsilon in (0.001, 0.1, 0.3, 0.9):
                expect_close(answer(n, epsilon), reference(n, epsilon))

    def test_whole_number(self, answer):
        "7895 for 10,000 points and a tenth: the smallest whole number that suffices"
        found = answer(10_000, 0.1)
        expect(found == int(found), "A number of dimensions is whole.", actual=found)
        expect_close(found, 7895)

    def test_bad_input(self, answer):
        "one point, and epsilon of 0, 1 or less than 0, are refused"
        for n, epsilon in ((1, 0.1), (10, 0.0), (10, 1.0), (10, -0.1)):
            expect_raises(ValueError, answer, n, epsilon)


class TestAlmostOrthogonalDimension:
    exercise = "almost_orthogonal_dimension"

    def test_values(self, answer, reference):
        "few and many directions, tight and loose, sure and less sure"
        for n in (2, 10, 5000, 10**9):
            for epsilon in (0.01, 0.1, 0.5):
                for failure in (0.5, 0.001):
                    expect_close(answer(n, epsilon, failure), reference(n, epsilon, failure))

    def test_smallest(self, answer):
        "the sum of the chances is small enough in the dimension that is returned, and not in one less"
        for n, epsilon, failure in ((3, 0.2, 0.1), (700, 0.07, 0.01), (10**6, 0.3, 0.5)):
            d = answer(n, epsilon, failure)
            expect(d == int(d), "A number of dimensions is whole.", actual=d)
            total, less = (n * (n - 1) * math.exp(-k * epsilon**2 / 2) for k in (d, d - 1))
            expect(total <= failure * (1 + 1e-9), "The chances of all pairs add up to more.", actual=("too few", d))
            expect(less > failure, "One dimension less would do.", actual=("too many", d))

    def test_bad_input(self, answer):
        "each argument out of its range"
        for args in ((1, 0.1, 0.5), (9, 0.0, 0.5), (9, 1.0, 0.5), (9, -0.2, 0.5), (9, 0.1, 0.0), (9, 0.1, 1.0)):
            expect_raises(ValueError, answer, *args)


class TestReadingError:
    exercise = "reading_error"

    def test_values(self, answer, reference, rng):
        "random directions and sparse features of several sizes"
        for n, d, samples in ((9, 4, 30), (3, 5, 1), (1, 2, 8), (6, 1, 4)):
            W = torch.randn(n, d, generator=rng)
            features = torch.randn(samples, n, generator=rng) * (torch.rand(samples, n, generator=rng) < 0.5)
            features[0, 0] = 1.5
            expect_close(answer(W, features), reference(W, features), rtol=1e-4, atol=1e-6)

    def test_right_angles(self, answer, rng):
        "0 where the directions are at right angles and of length 1"
        features = torch.randn(6, 3, generator=rng)
        expect_close(answer(torch.eye(5)[[0, 3, 4]], features), 0.0, atol=1e-5)

    def test_one_active_feature(self, answer):
        "with one feature on, each other reader hears the overlap, and none else"
        W = torch.tensor([[1.0, 0.0], [0.6, 0.8], [-0.8, 0.6]])
        expect_close(answer(W, torch.tensor([[2.0, 0.0, 0.0]])), math.sqrt((1.2**2 + 1.6**2) / 3), rtol=1e-4)

    def test_the_length_matters(self, answer):
        "a direction of length 2 is read as four times what was written"
        expect_close(answer(torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0], [1.0]])), 3.0, rtol=1e-4)
