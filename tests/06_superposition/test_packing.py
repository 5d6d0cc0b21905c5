"""Checks for the bound on overlaps, and for directions that are spread by gradient descent."""

import math

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.superposition.room import max_interference, random_directions


def close(found, other):
    return torch.allclose(found, other, atol=1e-4)


class TestWelchBound:
    exercise = "welch_bound"

    def test_values(self, answer, reference):
        "several numbers of directions and dimensions, among them one"
        for n, d in ((4, 3), (5, 2), (7, 1), (100, 64), (10_000, 512), (2, 1)):
            expect_close(answer(n, d), reference(n, d))

    def test_known_sets(self, answer):
        "1/d for d + 1 directions, 1 over the root of 5 for the six diagonals of the icosahedron"
        expect_close(answer(9, 8), 1 / 8)
        expect_close(answer(6, 3), 1 / math.sqrt(5))

    def test_room_for_right_angles(self, answer):
        "0 for as many directions as dimensions, and for fewer"
        for n, d in ((4, 4), (2, 7)):
            expect_close(answer(n, d), 0.0)

    def test_bad_input(self, answer):
        "a single direction, and no dimension, are refused"
        for n, d in ((1, 3), (4, 0)):
            expect_raises(ValueError, answer, n, d)


class TestOptimizePacking:
    exercise = "optimize_packing"

    def test_unit_rows(self, answer, rng):
        "rows of length 1, no graph; the rows it began with stay as they are"
        start = 3 * torch.randn(5, 3, generator=rng)
        found = answer(start, 5)
        expect_shape(found, (5, 3))
        expect_close(found.norm(dim=-1), torch.ones(5), note="Not all rows have length 1.")
        expect(not found.requires_grad, "The result carries a graph.", actual="graph")

    def test_no_steps(self, answer, rng):
        "after no steps the rows are those of the start, at length 1"
        start = 3 * torch.randn(4, 3, generator=rng)
        unit = start / start.norm(dim=-1, keepdim=True)
        expect_close(answer(start, 0), unit)
        expect(not close(answer(start, 1), unit), "After one step no row has moved.", actual="not moved")

    def test_lengths_at_the_start(self, answer, rng):
        "the rows are brought to length 1 before the first step: whatever their lengths were, the steps are the same"
        start = random_directions(5, 3, rng)
        long = start * torch.tensor([[8.0], [3.0], [0.5], [6.0], [20.0]])
        expect_close(answer(long, 10), answer(start, 10), atol=1e-2, note="Longer rows at the start lead elsewhere.")

    def test_the_simplex(self, answer, rng):
        "d + 1 directions come near the best that is possible, 1/d"
        for d in (2, 4):
            found = answer(random_directions(d + 1, d, rng), 200)
            overlap = max_interference(found)
            expect(
                overlap < 1 / d + 0.03, "The largest overlap stays far from the smallest that is possible.",
                actual="overlap", returned=f"{overlap:.3f} for {d + 1} directions in {d} dimensions",
                expected=f"{1 / d:.3f}",
            )  # fmt: skip

    def test_signed(self, answer, rng):
        "with signs d + 1 directions come near -1/d, and three in a plane lie at 120 degrees"
        for d in (2, 4):
            start = random_directions(d + 1, d, rng)
            found = answer(start, 200, signed=True)
            overlap, far = max_interference(found, signed=True), "With signs the largest cosine stays far from the"
            expect(
                overlap < -1 / d + 0.03, f"{far} smallest that is possible.",
                actual="same" if overlap >= -1 / d + 0.03 and close(found, answer(start, 200)) else "signed",
                returned=f"{overlap:.3f} for {d + 1} directions in {d} dimensions",
                expected=f"{-1 / d:.3f}",
            )  # fmt: skip

    def test_pairs_may_be_opposite_only_with_signs(self, answer, rng):
        "four directions in a plane: a cross with signs, 45 degrees apart without"
        # Symmetric about no axis, and in the order in which they will lie: nothing has to get past anything.
        angles = torch.tensor([0.1, 1.4, 3.0, 4.9]) + 0.05 * torch.randn(4, generator=rng)
        start = torch.stack([angles.cos(), angles.sin()], dim=1)
        with_signs, without = answer(start, 200, signed=True), answer(start, 200)
        same, crossed = close(with_signs, without), max_interference(with_signs, signed=True)
        expect(
            crossed < 0.1,
            "With signs, four directions have room at right angles.",
            actual=("no cross", same),
            returned=f"{crossed:.3f}",
        )
        lines = max_interference(without)
        expect(
            lines < 0.76,
            "Without signs, opposite directions overlap fully.",
            actual=("no lines", same),
            returned=f"{lines:.3f}",
        )

    def test_sharpness_and_step_size(self, answer, rng):
        "what is asked for is used: a step size of almost 0 moves nothing, a softer maximum leads elsewhere"
        start = random_directions(6, 3, rng)
        still = answer(start, 3, lr=1e-7)
        expect_close(still, start, atol=1e-4, note="With a step size of 1e-7 the rows have moved.")
        as_default = answer(start, 3, sharpness=30.0, lr=0.02)
        expect_close(answer(start, 3), as_default, atol=1e-4, note="The defaults are not those of the stub.")
        small, large = answer(start, 3, lr=0.01), answer(start, 3, lr=0.05)
        expect(not torch.allclose(small, large, atol=1e-4), "Two step sizes give the same rows.", actual="lr")
        soft, sharp = answer(start, 10, sharpness=1.0), answer(start, 10, sharpness=100.0)
        expect(not torch.allclose(soft, sharp, atol=1e-4), "Two sharpnesses give the same rows.", actual="sharpness")

    def test_without_gradients(self, answer, rng):
        "works where gradients are switched off"
        start = random_directions(6, 3, rng)
        with torch.no_grad():
            found = answer(start, 60)
        overlap, before = max_interference(found), max_interference(start)
        expect(overlap < before, "Under no_grad the rows are no better than at the start.", actual="no gradients")
