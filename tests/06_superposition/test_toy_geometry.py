"""Checks for what is read from a toy model's weights."""

import math

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape


def polygon(k, turn=0.3, sizes=None):
    """Directions [2, k] at equal angles."""
    angles = turn + 2 * math.pi * torch.arange(k) / k
    W = torch.stack([angles.cos(), angles.sin()])
    return W if sizes is None else W * sizes


def at_degrees(*degrees):
    angles = torch.tensor(degrees, dtype=torch.get_default_dtype()).deg2rad()
    return torch.stack([angles.cos(), angles.sin()])


SHAPES = ((2, 5), (3, 2, 4), (2, 1, 3, 6), (4, 3), (1, 1))


class TestInterferenceMatrix:
    exercise = "interference_matrix"

    def test_values(self, answer, reference, rng):
        "random weights of one model and of many"
        for shape in SHAPES:
            W = torch.randn(shape, generator=rng)
            expect_close(answer(W), reference(W), rtol=1e-4, atol=1e-5)

    def test_diagonal(self, answer):
        "on the diagonal the squared lengths, beside it the products, signs kept"
        W = torch.tensor([[2.0, -1.0, 0.0], [0.0, 1.0, 3.0]])
        expect_close(answer(W), torch.tensor([[4.0, -2.0, 0.0], [-2.0, 2.0, 3.0], [0.0, 3.0, 9.0]]))


class TestFeatureDimensionality:
    exercise = "feature_dimensionality"

    def test_values(self, answer, reference, rng):
        "random weights of unequal lengths, one model and many"
        for shape in SHAPES:
            W = torch.randn(shape, generator=rng) * (0.3 + torch.rand(shape[-1], generator=rng))
            expect_close(answer(W), reference(W), rtol=1e-4, atol=1e-5)

    def test_figures(self, answer):
        "alone 1, antipodal pair 1/2, triangle 2/3, pentagon 2/5, tetrahedron 3/4, at any length"
        tetrahedron = torch.tensor([[1.0, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]).T
        for W, share in (
            (torch.eye(3), 1.0),
            (polygon(2), 1 / 2),
            (polygon(3), 2 / 3),
            (polygon(5), 2 / 5),
            (tetrahedron, 3 / 4),
        ):
            for size in (1.0, 0.4, 2.5):
                expect_close(answer(size * W), torch.full((W.shape[1],), share), rtol=1e-4, atol=1e-5)

    def test_unequal_lengths(self, answer):
        "a long feature takes more of a shared direction than a short one"
        W = torch.tensor([[2.0, -1.0, 0.0], [0.0, 0.0, 0.5]])
        expect_close(answer(W), torch.tensor([4 / 5, 1 / 5, 1.0]))

    def test_not_stored(self, answer):
        "0 for a feature whose direction is 0, and for all of a model that stores nothing; the others as they are"
        W = torch.zeros(2, 2, 3)
        W[0, :, 0], W[0, :, 2] = torch.tensor([1.0, 0.0]), torch.tensor([-1.0, 0.0])
        found = answer(W)
        expect_shape(found, (2, 3))
        expect(not found.isnan().any(), "A feature that is not stored has NaN.", actual=found)
        expect_close(found, torch.tensor([[0.5, 0.0, 0.5], [0.0, 0.0, 0.0]]))

    def test_small(self, answer):
        "a feature that is hardly stored has little, unless it has its direction for itself"
        W = torch.tensor([[1.0, 0.001, 0.0], [0.0, 0.0, 0.001]])
        expect_close(answer(W), torch.tensor([1.0, 1e-6, 1.0]), rtol=1e-3, atol=1e-8)


class TestFindPolygon:
    exercise = "find_polygon"

    def test_regular(self, answer, rng):
        "regular polygons of 2 to 8 corners, turned at random, in any order of their features, and of any lengths"

        def drawn(k, sizes):
            turn = 6.3 * torch.rand((), generator=rng)
            return polygon(k, turn, sizes)[:, torch.randperm(k, generator=rng)]

        for k in (*range(3, 9), 2):
            found = answer(polygon(k))
            expect(
                int(found) == k,
                f"A regular polygon of {k} corners, in order, is taken for something else.",
                actual=found,
                expected=str(k),
            )
        for k in range(2, 9):
            found = answer(drawn(k, torch.ones(k)))
            expect(
                int(found) == k,
                f"A regular polygon of {k} corners is taken for something else.",
                actual=found,
                expected=str(k),
            )
        for k in range(2, 9):
            found = answer(drawn(k, torch.linspace(0.6, 1.6, k)))
            expect(
                int(found) == k,
                f"A regular polygon of {k} corners is taken for something else, where its directions differ in length.",
                actual=found,
                expected=str(k),
            )

    def test_not_stored(self, answer):
        "features count from min_size on, and shorter ones do not"
        octagon = polygon(8, sizes=torch.tensor([1.0, 0.3]).repeat(4))
        found = answer(octagon)
        expect(
            int(found) == 4,
            "Of an octagon every other direction is shorter than min_size, and a square should be left.",
            actual=found,
            expected="4",
        )
        W = torch.cat([polygon(5), 0.3 * at_degrees(10, 200)], dim=1)
        for min_size, corners in ((0.5, 5), (0.2, 0), (1.5, 0)):
            found = answer(W, min_size)
            expect(
                int(found) == corners,
                f"With min_size {min_size} the count of corners differs.",
                actual=found,
                expected=str(corners),
            )
        expect(int(answer(W)) == 5, "By default features from 0.5 on count.", actual="default min_size")
        square = torch.cat([torch.eye(2), -torch.eye(2)], dim=1)
        for min_size in (0.5, 2.0):
            found = answer(min_size * square, min_size)
            expect(
                int(found) == 4,
                "Features that are exactly as long as min_size should count.",
                actual=found,
                expected="4",
            )

    def test_irregular(self, answer):
        "0 for corners at wrong angles, for one missing, and for two in one direction"
        for degrees in (
            (0, 72, 144, 216),  # a pentagon without its last corner: only the way back is too long
            (0, 60, 180, 240),
            (0, 0, 120, 240),
            (10, 20),
            (0, 90, 180, 300),
        ):
            found = answer(at_degrees(*degrees))
            expect(
                int(found) == 0,
                f"Directions at {', '.join(map(str, degrees))} degrees are taken for a regular polygon.",
                actual=found,
                expected="0",
            )

    def test_tolerance(self, answer):
        "as regular as the tolerance asks for: what counts is the gap from one to the next"
        expect(int(answer(at_degrees(0, 72, 144, 216, 288))) == 5, "A regular pentagon should pass.", actual="0 of 5")
        crooked = at_degrees(0, 10, 144, 216, 288)
        expect(int(answer(crooked)) == 0, "A gap that is 62 degrees off passes.", actual="62 of 5")
        W = at_degrees(0, 75, 144, 216, 288)  # gaps of 75 and 69
        expect(int(answer(W)) == 5, "Gaps that are 3 degrees off should pass 5.", actual="refused at 3 of 5")
        W = at_degrees(0, 76, 144, 216, 288)  # gaps of 76 and 68
        expect(int(answer(W)) == 5, "Gaps within 5 degrees should pass.", actual="refused at 4 of 5")
        wide = at_degrees(0, 84, 144, 216, 288)
        expect(int(answer(wide)) == 0, "A gap that is 12 degrees off passes.", actual="12 of 5")
        for degrees, gaps in (
            ((0, 68, 136, 204, 282), "78 and 78"),
            ((0, 68, 146, 214, 292), "78 here and 78 there"),  # each direction has one near neighbour
            ((90, 166, 242, 318, 34), "56"),  # and four of 76
            ((0, 64, 136, 208, 284), "64"),  # 4.9 in the mean of the squares
        ):
            found = answer(at_degrees(*degrees))
            expect(int(found) == 0, f"Of five gaps, {gaps} degrees are more than 5 off, and pass.", actual=gaps)
        for turn in range(0, 360, 60):  # wherever one begins to count
            drifting = at_degrees(*(turn + x for x in (0, 76, 152, 220, 288)))  # the third corner is 8 off
            expect(int(answer(drifting)) == 5, "Each gap is within 5 degrees.", actual="drift refused")
            adding_up = at_degrees(*(turn + x for x in (0, 76, 140, 216, 288)))  # the second gap is 8 off
            expect(int(answer(adding_up)) == 0, "A gap that is 8 degrees off passes.", actual="8 of 5")
            for inner, odd in ((70, "wide"), (74, "narrow")):  # the one gap that is left over is 8 degrees off
                uneven = at_degrees(*(turn + inner * i for i in range(5)))
                expect(int(answer(uneven)) == 0, f"One gap is 8 degrees too {odd}, and passes.", actual=(odd, turn))
        W = at_degrees(0, 76, 144, 216, 288)
        expect(int(answer(W, tolerance=3.0)) == 0, "Gaps that are 4 degrees off should not pass 3.", actual="4 of 3")
        expect(int(answer(wide, 0.5, 13.0)) == 5, "With a tolerance of 13 it should pass.", actual="12 of 13")

    def test_few(self, answer):
        "0 for one stored feature or none"
        for W in (torch.tensor([[1.0, 0.1], [0.0, 0.0]]), torch.zeros(2, 4), torch.tensor([[1.0], [1.0]])):
            expect(int(answer(W)) == 0, "Fewer than two stored features form no polygon.", actual=answer(W))

    def test_bad_input(self, answer):
        "weights that are not [2, feature] are refused"
        for shape in ((3, 5), (2, 2, 5), (5,)):
            expect_raises(ValueError, answer, torch.ones(shape))


class TestSuperpositionVsSparsity:
    exercise = "superposition_vs_sparsity"

    def test_values(self, answer, rng):
        "the sum of squares per dimension, in the right row and place"
        for n_sparsities, n_starts, d_hidden, n_features in ((3, 4, 2, 5), (1, 2, 3, 2), (4, 1, 2, 3), (2, 5, 1, 1)):
            p = torch.rand(n_sparsities, generator=rng)
            weights = torch.randn(n_sparsities * n_starts, d_hidden, n_features, generator=rng)

            def train(asked, weights=weights, p=p, n_starts=n_starts):
                expect_close(
                    asked, torch.cat([x.expand(n_starts) for x in p]),
                    note="The probabilities that train was called with differ.",
                )  # fmt: skip
                return weights.clone()

            expected = weights.square().sum((1, 2)).view(n_sparsities, n_starts) / d_hidden
            expect_close(answer(train, p, n_starts), expected, rtol=1e-4, atol=1e-5)

    def test_one_call(self, answer):
        "all models are trained in one call"
        calls = []

        def train(asked):
            calls.append(len(asked))
            return torch.ones(len(asked), 2, 3)

        answer(train, torch.tensor([0.1, 0.2, 0.3]), 2)
        expect(len(calls) == 1, "train is called more than once.", actual=("calls", len(calls)))

    def test_known(self, answer):
        "one stored feature for each dimension gives 1, antipodal pairs give 2"
        for W, stored in ((torch.eye(3), 1.0), (torch.cat([torch.eye(3), -torch.eye(3)], dim=1), 2.0)):

            def train(asked, W=W):
                return W.expand(len(asked), -1, -1)

            expect_close(answer(train, torch.tensor([0.5, 0.1]), 3), torch.full((2, 3), stored))
