"""Checks for what a dictionary is judged by."""

import torch

from utils.course.checking import expect, expect_close, expect_shape


def latents(rng, batch, d_sae, share=0.4):
    on = torch.rand(batch, d_sae, generator=rng) < share
    return on * (0.01 + 3 * torch.rand(batch, d_sae, generator=rng))


class TestL0:
    exercise = "l0"

    def test_values(self, answer, reference, rng):
        "random latents, most of them 0"
        for batch, d_sae in ((4, 7), (9, 3), (1, 5), (6, 1)):
            z = latents(rng, batch, d_sae)
            expect_close(answer(z), reference(z), rtol=1e-4)

    def test_extremes(self, answer):
        "all on, none on, and a latent of next to nothing is on"
        expect_close(answer(torch.ones(3, 5)), 5.0)
        expect_close(answer(torch.zeros(3, 5)), 0.0)
        expect_close(answer(torch.full((2, 4), 1e-6)), 4.0)


class TestDeadFraction:
    exercise = "dead_fraction"

    def test_values(self, answer, reference, rng):
        "random latents, some of them never on"
        for batch, d_sae, share in ((4, 9, 0.2), (3, 12, 0.3), (1, 6, 0.5), (8, 1, 0.3)):
            z = latents(rng, batch, d_sae, share)
            expect_close(answer(z), reference(z), rtol=1e-4)

    def test_extremes(self, answer):
        "on once, and next to nothing, is alive"
        z = torch.zeros(5, 4)
        expect_close(answer(z), 1.0)
        z[2, 1] = 1e-6
        expect_close(answer(z), 0.75)
        expect_close(answer(torch.ones(2, 3)), 0.0)


class TestFractionVarianceExplained:
    exercise = "fraction_variance_explained"

    def test_values(self, answer, reference, rng):
        "random activations away from the origin, dimensions and rows of several sizes"
        for batch, d in ((5, 3), (3, 7), (8, 1)):
            sizes = 0.2 + 3 * torch.rand(d, generator=rng).double()
            x = sizes * torch.randn(batch, d, generator=rng).double() + 2 * torch.randn(d, generator=rng).double()
            x_hat = x + 0.5 * torch.randn(batch, d, generator=rng).double()
            expect_close(answer(x, x_hat), reference(x, x_hat), rtol=1e-4, atol=1e-5)

    def test_extremes(self, answer, rng):
        "perfect: 1; the mean: 0; worse: below 0"
        x = torch.randn(6, 4, generator=rng).double() + 3
        expect_close(answer(x, x.clone()), 1.0)
        expect_close(answer(x, x.mean(0).expand(6, 4).clone()), 0.0, atol=1e-6)
        expect(answer(x, -x) < 0, "What is farther off than the mean should score below 0.", actual=answer(x, -x))


class TestLossRecovered:
    exercise = "loss_recovered"

    def test_values(self, answer, reference, rng):
        "random losses"
        for _ in range(4):
            loss, more, most = torch.rand(3, generator=rng).double().tolist()
            given = (1 + loss, 1.2 + loss + more, 1.5 + loss + more + most)
            expect_close(answer(*given), reference(*given), rtol=1e-4)

    def test_extremes(self, answer):
        "nothing lost: 1; as bad as the ablation: 0; worse: below 0"
        expect_close(answer(1.5, 1.5, 7.0), 1.0)
        expect_close(answer(1.5, 7.0, 7.0), 0.0)
        expect_close(answer(2.0, 9.0, 6.0), -0.75)
        expect_close(answer(2.0, 1.5, 6.0), 1.125)

    def test_ablation_that_helps(self, answer):
        "the same scale where the ablated model is the better one"
        expect_close(answer(2.0, 2.0, 1.0), 1.0)
        expect_close(answer(3.0, 1.75, 1.0), 0.375)


class TestMatchedCosines:
    exercise = "matched_cosines"

    def directions(self, rng, n, d):
        return torch.randn(n, d, generator=rng).double() * (0.2 + 2 * torch.rand(n, 1, generator=rng).double())

    def test_values(self, answer, reference, rng):
        "random directions of several lengths, as many as true ones and more"
        for n_found, n_true, d in ((6, 4, 5), (9, 9, 3), (3, 1, 4), (20, 12, 6)):
            found, truth = self.directions(rng, n_found, d), self.directions(rng, n_true, d)
            result = answer(found, truth)
            expect_shape(result, (n_true,))
            expect_close(result, reference(found, truth), rtol=1e-4, atol=1e-5)

    def test_another_order(self, answer, rng):
        "the same directions in another order and of other lengths are all found"
        truth = self.directions(rng, 7, 5)
        found = (torch.rand(7, 1, generator=rng) + 0.3) * truth[torch.randperm(7, generator=rng)]
        expect_close(answer(found, truth), torch.ones(7).double(), atol=1e-5)

    def test_serves_once(self, answer):
        "a direction that was learnt twice serves once"
        truth = torch.eye(4).double()
        found = torch.cat([truth[:2], truth[:2]])
        expect_close(answer(found, truth).sort().values, torch.tensor([0.0, 0, 1, 1]).double(), atol=1e-6)

    def test_the_sum_decides(self, answer):
        "pairs are chosen so that the sum is largest, and not the best pair first"
        truth = torch.tensor([[1.0, 0.0], [0.8, 0.6]]).double()
        found = torch.tensor([[0.96, 0.28], [0.6, -0.8]]).double()  # the best single pair costs more than it gains
        cosines = truth @ found.T
        best = max(
            (cosines[0, 0] + cosines[1, 1], cosines[0, 0], cosines[1, 1]),
            (cosines[0, 1] + cosines[1, 0], cosines[0, 1], cosines[1, 0]),
        )
        expect_close(answer(found, truth), torch.stack(best[1:]), atol=1e-6)

    def test_opposite(self, answer):
        "an opposite direction is another one"
        truth = torch.eye(3).double()[:1]
        found = torch.tensor([[-5.0, 0, 0], [0.3, 0.4, 0]], dtype=torch.float64)
        expect_close(answer(found, truth), torch.tensor([0.6], dtype=torch.float64))
