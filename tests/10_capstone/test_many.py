"""Checks for the sign-flip test and for Holm's correction."""

import torch

from utils.course.checking import expect_close, expect_raises, expect_shape


class TestSignFlipTest:
    exercise = "sign_flip_test"

    def test_values(self, answer, reference, rng):
        "random differences, several sites and numbers of groups"
        for n_sites, n_groups in ((3, 5), (1, 8), (4, 2)):
            differences = torch.randn(n_sites, n_groups, generator=rng) + 0.4
            found = answer(differences)
            expect_shape(found, (n_sites,))
            expect_close(found, reference(differences), atol=1e-6, dtype=True)

    def test_by_hand(self, answer):
        "differences whose p-values can be counted"
        rows = torch.tensor([[0.5, 0.25, 0.125], [-0.5, -0.25, -0.125], [0.5, 0.25, -0.125], [0.125, 0.25, -0.5]])
        expect_close(answer(rows).double(), torch.tensor([1, 8, 2, 5]).double() / 8, atol=1e-6)

    def test_ties(self, answer, reference, rng):
        "equal means count, though sums in another order differ in the last bits; zeros, and all of them zero"
        for values in ([0.1, 0.1, 0.1, -0.1, 0.3], [0.0, 0.0, 0.1, 0.3], [0.0, 0.0, 0.1], [0.0, 0.0, 0.0]):
            rows = torch.tensor([values])[:, torch.randperm(len(values), generator=rng)]
            expect_close(answer(rows).double(), reference(rows), atol=1e-6)
        rows = torch.randint(-3, 6, (6, 10), generator=rng).double() / 10
        expect_close(answer(rows).double(), reference(rows), atol=1e-6)

    def test_larger(self, answer, reference, rng):
        "twelve groups, as a project has them"
        rows = 0.1 * torch.randn(5, 12, generator=rng) + torch.tensor([[-0.2], [0.0], [0.02], [0.05], [0.4]])
        expect_close(answer(rows).double(), reference(rows), atol=1e-6)

    def test_bad_input(self, answer, rng):
        "one group says nothing, and seventeen would take too long; sixteen would not"
        expect_shape(answer(torch.randn(1, 16, generator=rng)), (1,))
        for n_groups in (1, 17):
            expect_raises(ValueError, answer, torch.randn(2, n_groups, generator=rng))


class TestHolm:
    exercise = "holm"

    def expect(self, answer, reference, p, alpha):
        rejected, adjusted = answer(p, alpha)
        expected = reference(p, alpha)
        expect_shape(adjusted, tuple(p.shape))
        expect_close(adjusted, expected[1], rtol=1e-5, dtype=True, note="The adjusted p-values differ.")
        expect_close(rejected, expected[0])

    def test_values(self, answer, reference, rng):
        "random p-values in any order, several levels"
        for n, alpha in ((6, 0.05), (9, 0.2), (1, 0.1), (2, 0.5)):
            self.expect(answer, reference, torch.rand(n, generator=rng, dtype=torch.double) ** 4, alpha)

    def test_by_hand(self, answer):
        "four p-values that can be done by hand"
        p = torch.tensor([0.02, 0.01, 0.5, 0.012]).double()
        expect_close(answer(p, 0.05)[1], torch.tensor([0.04, 0.04, 0.5, 0.04]).double(), rtol=1e-6)

    def test_never_falls(self, answer, reference):
        "a larger p-value never gets a smaller adjusted one, and none is above 1"
        p = torch.tensor([0.3, 0.2, 0.21, 0.9, 0.04]).double()
        self.expect(answer, reference, p, 0.05)

    def test_equal(self, answer, reference):
        "equal p-values, one exactly at its limit, and 0 and 1"
        self.expect(answer, reference, torch.tensor([0.02, 0.5, 0.01, 0.02], dtype=torch.double), 0.05)
        self.expect(answer, reference, torch.tensor([1.0, 0.0, 0.2], dtype=torch.double), 0.05)
        self.expect(answer, reference, torch.tensor([0.05, 0.05, 0.05], dtype=torch.double), 0.15)
        self.expect(answer, reference, torch.tensor([0.125, 0.9], dtype=torch.double), 0.25)
        self.expect(answer, reference, torch.tensor([0.05 / 3, 0.9, 0.8], dtype=torch.double), 0.05)

    def test_single_precision(self, answer, rng):
        "the dtype of the p-values is kept"
        p = torch.rand(4, generator=rng)
        found = answer(p)[1]
        expect_close(found.dtype == torch.float32, True, note="The adjusted p-values have another dtype.")

    def test_bad_input(self, answer):
        "no test, a p-value outside [0, 1] or NaN, a level that is none"
        fine = torch.tensor([0.1, 0.2])
        for p in (torch.tensor([]), torch.tensor([0.1, 1.1]), torch.tensor([-0.1]), torch.tensor([0.1, torch.nan])):
            expect_raises(ValueError, answer, p)
        for alpha in (0.0, 1.0):
            expect_raises(ValueError, answer, fine, alpha)
