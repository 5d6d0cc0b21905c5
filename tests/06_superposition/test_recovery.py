"""Checks for reading sparse features back."""

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.superposition.planted import sparse_codes, unit_directions

SIZES = ((3, 6, 4), (1, 9, 5), (4, 3, 7), (2, 1, 3))  # batch, features, d


def directions(rng, n, d):
    """Directions of lengths between 0.5 and 2."""
    return unit_directions(n, d, rng) * (0.5 + 1.5 * torch.rand(n, 1, generator=rng))


class TestReluReadout:
    exercise = "relu_readout"

    def test_values(self, answer, reference, rng):
        "random activations, directions of several lengths, thresholds on both sides of 0"
        for batch, n, d in SIZES:
            x, dictionary = torch.randn(batch, d, generator=rng), directions(rng, n, d)
            for threshold in (0.0, 0.3, -0.2):
                expect_close(answer(x, dictionary, threshold), reference(x, dictionary, threshold))

    def test_one_feature(self, answer, rng):
        "one feature alone is read at its height, less the threshold, however long its direction is"
        dictionary = directions(rng, 5, 6)
        for threshold in (0.0, 2.0, 0.25):
            found = answer(1.5 * dictionary, dictionary, threshold)
            expect_close(found.diagonal(), torch.full((5,), max(1.5 - threshold, 0.0)))

    def test_never_negative(self, answer, rng):
        "no reading is below 0"
        found = answer(torch.randn(6, 4, generator=rng), directions(rng, 9, 4), 0.1)
        expect(bool((found >= 0).all()), "Some readings are negative.", actual=found.min())


class TestMatchingPursuit:
    exercise = "matching_pursuit"

    def test_values(self, answer, reference, rng):
        "random activations and directions of several lengths, after 0, 1, 2 and 5 steps"
        for batch, n, d in SIZES:
            x, dictionary = torch.randn(batch, d, generator=rng).double(), directions(rng, n, d).double()
            for n_steps in (0, 1, 2, 5):
                expect_close(answer(x, dictionary, n_steps), reference(x, dictionary, n_steps))

    def test_orthogonal(self, answer, rng):
        "orthogonal directions are read exactly, in as many steps as there are features on"
        basis = (
            torch.linalg.qr(torch.randn(6, 6, generator=rng).double())[0]
            * torch.tensor([1.0, 2, 0.5, 3, 1, 0.7])[:, None]
        )
        codes = torch.tensor([[1.5, 0, 0, -0.8, 0, 0], [0, 1.1, 2.0, 0, 0, 0]]).double()
        expect_close(answer(codes @ basis, basis, 2), codes, atol=1e-9)

    def test_one_step_and_the_choice(self, answer):
        "the choice goes by the angle, and not by how long a direction is"
        dictionary = torch.tensor([[10.0, 10.0], [0.0, 0.5]]).double()
        expect_close(answer(torch.tensor([[0.1, 1.0]]).double(), dictionary, 1), torch.tensor([[0.0, 2.0]]).double())

    def test_chosen_again(self, answer):
        "a direction may be chosen again, and what it gets is added"
        dictionary = torch.tensor([[1.0, 0.0], [0.8, 0.6]], dtype=torch.float64)
        found = answer(torch.ones(1, 2, dtype=torch.float64), dictionary, 3)
        expect_close(found, torch.tensor([[-0.12, 1.496]], dtype=torch.float64))

    def test_nonnegative(self, answer, reference, rng):
        "with `nonnegative`, opposite directions are told apart and no code is negative"
        pairs = torch.tensor([[1.0, 0], [-1, 0], [0, 2], [0, -2]]).double()
        codes = torch.tensor([[0, 1.0, 0.5, 0], [0.7, 0, 0, 0.9]]).double()
        expect_close(answer(codes @ pairs, pairs, 2, nonnegative=True), codes, atol=1e-9)
        against = torch.tensor([[1.0, 0], [0, 2], [0.6, 0.8]]).double()
        expect_close(
            answer(torch.tensor([[-1.0, -2.0]]).double(), against, 2, nonnegative=True), torch.zeros(1, 3).double(),
            note="Where every direction points against x, no code is above or below 0.",
        )  # fmt: skip
        for batch, n, d in SIZES:
            x, dictionary = torch.randn(batch, d, generator=rng).double(), directions(rng, n, d).double()
            found = answer(x, dictionary, 3, nonnegative=True)
            expect(bool((found >= 0).all()), "Some codes are negative.", actual=found.min())
            expect_close(found, reference(x, dictionary, 3, nonnegative=True))


class TestCompressedRecovery:
    exercise = "compressed_recovery"

    def test_values(self, answer, reference, rng):
        "random activations and directions of several lengths"
        for batch, n, d in ((3, 8, 5), (1, 9, 6), (4, 4, 7)):
            x, dictionary = torch.randn(batch, d, generator=rng).double(), directions(rng, n, d).double()
            for k in (0, 1, 2, 4):
                expect_close(answer(x, dictionary, k), reference(x, dictionary, k), atol=1e-6)

    def test_sparse_codes_are_found(self, answer, rng):
        "three features of forty in 32 dimensions, with their values"
        dictionary, codes = directions(rng, 40, 32).double(), sparse_codes(5, 40, 2, rng).double()
        found = answer(codes @ dictionary, dictionary, 2)
        expect_close((found - codes).abs().amax(1).lt(1e-5).double().mean() > 0.5, torch.tensor(True))

    def test_least_squares(self, answer, rng):
        "what is left is orthogonal to every direction that was chosen"
        x, dictionary = torch.randn(4, 8, generator=rng).double(), directions(rng, 12, 8).double()
        found = answer(x, dictionary, 3)
        expect_shape(found, (4, 12))
        expect_close((found != 0).sum(1), torch.tensor([3, 3, 3, 3]), note="After 3 steps 3 codes differ from 0.")
        left = (x - found @ dictionary) @ dictionary.T
        expect_close(
            left[found != 0], torch.zeros(12).double(), atol=1e-6,
            note="What is left still has a share along directions that were chosen: fit all of them anew in each step.",
        )  # fmt: skip

    def test_explained_before_the_end(self, answer, rng):
        "where fewer features are on than there are steps, the rest have code 0"
        dictionary = torch.linalg.qr(torch.randn(6, 6, generator=rng).double())[0] * 1.7
        codes = torch.zeros(2, 6).double()
        codes[0, 2], codes[1, 4] = 1.3, -0.4
        expect_close(answer(codes @ dictionary, dictionary, 4), codes, atol=1e-8)

    def test_the_choice_goes_by_the_angle(self, answer):
        "and not by how long a direction is"
        dictionary = torch.tensor([[10.0, 10.0], [0.0, 0.5]]).double()
        expect_close(answer(torch.tensor([[0.1, 1.0]]).double(), dictionary, 1), torch.tensor([[0.0, 2.0]]).double())

    def test_bad_input(self, answer, rng):
        "more steps than dimensions or features, and fewer than none, are refused"
        for n, d, k in ((9, 4, 5), (3, 8, 4), (5, 5, -1)):
            expect_raises(ValueError, answer, torch.randn(2, d, generator=rng), directions(rng, n, d), k)


class TestGuaranteedSparsity:
    exercise = "guaranteed_sparsity"

    def test_values(self, answer, reference, rng):
        "random directions of several lengths"
        tried = [directions(rng, n, d).double() for n, d in ((5, 4), (12, 100), (14, 1000), (20, 4000), (30, 400))]
        expect_close([float(answer(dictionary)) for dictionary in tried], [float(reference(d)) for d in tried])

    def test_identity_and_hadamard(self, answer):
        "the axes and the rows of a Hadamard matrix: a coherence of 1 / sqrt(d)"
        hadamard, found = torch.ones(1, 1).double(), []
        for d in (2, 4, 8, 16, 32, 64):
            hadamard = torch.cat([torch.cat([hadamard, hadamard], 1), torch.cat([hadamard, -hadamard], 1)])
            if d in (4, 16, 64):  # there the bound is no rounding question
                found.append(float(answer(torch.cat([torch.eye(d).double() * 3, hadamard]))))
        expect_close(found, [1.0, 2.0, 4.0])

    def test_nearly_opposite_directions(self, answer):
        "two nearly opposite directions are nearly the same line: one feature is certain, and not three"
        found = []
        for sign in (-1, 1):
            dictionary = torch.tensor([[1.0, 0.0, 0.0], [sign * 1.8, 0.87178, 0.0], [0.0, 0.0, 1.0]])
            found.append(float(answer(dictionary)))
        expect_close(found, [1.0, 1.0])

    def test_not_more_than_there_are(self, answer):
        "nearly orthogonal directions: never more features than there are"
        dictionary = torch.tensor([[1.0, 0.0, 0.0], [0.01, 1.0, 0.0], [0.0, 0.0, 2.0]])
        expect_close(float(answer(dictionary)), 3.0)

    def test_orthogonal(self, answer):
        "orthogonal directions: all of them"
        expect_close(float(answer(torch.eye(5)[:4] * 3.0)), 4.0)


class TestSupportRecovered:
    exercise = "support_recovered"

    def test_values(self, answer, reference, rng):
        "random codes, where a part of the rows is right"
        for batch, n, k in ((40, 9, 3), (1, 5, 1), (30, 4, 2)):
            truth = sparse_codes(batch, n, k, rng)
            codes = truth + 0.3 * torch.randn(batch, n, generator=rng)
            expect_close(answer(codes, truth), reference(codes, truth))

    def test_by_hand(self, answer):
        "values need not agree; a feature that is missed, one too many that is stronger, a tie, a negative code"
        truth = torch.tensor([[1.0, 0, 2, 0]]).expand(9, 4)
        codes = torch.tensor(
            [
                [0.1, 0, 0.2, 0],
                [1, 0.5, 2, 0],
                [1, 1.5, 2, 0],
                [1, 0, 0, 0],
                [1, 1, 2, 0],
                [-1, 0, 2, 0.3],
                [1, -1.5, 2, 0],
                [2, 0, 1, 1],
                [2, 1, 1, 0],
            ]
        )
        expect_close(answer(codes, truth), torch.tensor([True, True, False, False, False, True, False, False, False]))

    def test_rows_of_different_sparsity(self, answer):
        "rows with none, one, and all features on; a true code may be negative"
        truth = torch.tensor([[0.0, 0, 0], [0, 1, 0], [1, -2, 3], [1, 2, 3]])
        codes = torch.tensor([[0.3, 0, 0], [0.1, 0.2, 0], [1, 1, 1], [1, 0, 2]])
        expect_close(answer(codes, truth), torch.tensor([True, True, True, False]))


class TestDictionaryMatch:
    exercise = "dictionary_match"

    def test_values(self, answer, reference, rng):
        "random directions of several lengths and numbers"
        for n_found, n_true, d in ((5, 3, 4), (2, 7, 3), (1, 1, 6), (4, 1, 2)):
            found, truth = directions(rng, n_found, d), directions(rng, n_true, d)
            expect_close(answer(found, truth), reference(found, truth))

    def test_itself(self, answer, rng):
        "1 for the same directions in another order and of another length"
        truth = directions(rng, 6, 5)
        expect_close(answer(truth[torch.randperm(6, generator=rng)] * 2.5, truth), torch.ones(6))

    def test_opposite(self, answer):
        "an opposite direction is no match"
        expect_close(
            answer(torch.tensor([[-2.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 3.0]])), torch.tensor([-1.0, 0.0])
        )
