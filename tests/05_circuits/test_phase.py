"""Checks for when a quantity changes."""

import torch

from utils.course.checking import expect_close, expect_raises


class TestInductionPhaseChange:
    exercise = "induction_phase_change"

    def steps(self, rng, n):
        return torch.randint(1, 30, (n,), generator=rng).cumsum(0) - 1

    def test_straight(self, answer):
        "a straight line from 0 to 100: 10, 50 and 90"
        steps = torch.tensor([0, 25, 60, 100])
        expect_close(answer(steps, steps.double()), (10.0, 50.0, 90.0), atol=1e-6)
        expect_close(answer(steps, 7 - 2 * steps.double()), (10.0, 50.0, 90.0), atol=1e-6)

    def test_values(self, answer, reference, rng):
        "quantities that rise and that fall, at irregular steps"
        for n in (2, 6, 15):
            steps = self.steps(rng, n)
            values = torch.rand(n, generator=rng, dtype=torch.float64).cumsum(0)
            for quantity in (values, 3 - 5 * values):
                expect_close(answer(steps, quantity), reference(steps, quantity), atol=1e-6)

    def test_there_and_back(self, answer, reference, rng):
        "a quantity that goes to and fro, and further than where it ends: the first time counts"
        for _ in range(4):
            steps = self.steps(rng, 12)
            noise = torch.rand(12, generator=rng, dtype=torch.float64)
            # Through all shares behind the fourth point, back, up again, and back and up once more.
            values = torch.tensor(
                [0.0, -0.1, -0.1, -0.1, 0.2, 1.4, -0.1, 0.2, 0.7, 1.0, -0.1, 1.0], dtype=torch.float64
            )
            values[1:-1] += 0.15 * noise[1:-1]
            expect_close(answer(steps, values), reference(steps, values), atol=1e-6)

    def test_a_jump(self, answer):
        "all at once between two points: 10, 50 and 90 % of the step between them"
        found = answer(torch.tensor([0, 100, 110, 300]), torch.tensor([4.0, 4.0, 1.0, 1.0]))
        expect_close(found, (101.0, 105.0, 109.0), atol=1e-4)

    def test_bad_input(self, answer):
        "one point, steps that do not increase, unlike numbers of both, and a quantity that ends where it began"
        for steps, values in (
            ([3], [1.0]),
            ([0, 10, 10], [1.0, 2.0, 3.0]),
            ([0, 10, 5], [1.0, 2.0, 3.0]),
            ([0, 10, 20], [1.0, 2.0]),
            ([0, 10, 20], [1.0, 2.0, 1.0]),
        ):
            expect_raises(ValueError, answer, torch.tensor(steps), torch.tensor(values))
