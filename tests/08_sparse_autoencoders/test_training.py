"""Checks for what the training loop is made of."""

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape


def drawn_seed(rng):
    return int(torch.randint(1_000_000, (), generator=rng))


class TestBatchRows:
    exercise = "batch_rows"

    def test_a_round(self, answer, rng):
        "within a round no row comes twice, and as many batches as fit"
        for n_rows, batch_size in ((12, 4), (13, 4), (7, 7), (5, 1), (11, 6)):
            seed, per_round = drawn_seed(rng), n_rows // batch_size
            for turn in (0, 3):
                batches = [answer(turn * per_round + i, n_rows, batch_size, seed) for i in range(per_round)]
                for rows in batches:
                    expect_shape(rows, (batch_size,))
                    expect(
                        not rows.is_floating_point() and rows.min() >= 0 and rows.max() < n_rows,
                        "Row numbers are whole numbers from 0 to n_rows - 1.", actual=rows,
                    )  # fmt: skip
                all_rows = torch.cat(batches)
                expect(
                    len(all_rows.unique()) == len(all_rows),
                    "Within a round, a row comes twice.",
                    actual="twice", returned=f"rows of round {turn}: {all_rows.tolist()}",
                )  # fmt: skip

    def test_orders(self, answer, rng):
        "another order in each round, with each seed, and not that of the table"
        seed = drawn_seed(rng)
        first = answer(0, 300, 300, seed)
        for other, what in (
            (torch.arange(300), "the table itself"),
            (answer(1, 300, 300, seed), "the next round"),
            (answer(2, 300, 300, seed), "the round after next"),
            (answer(0, 300, 300, seed + 1), "another seed"),
        ):
            same = int((first == other).sum())
            expect(same < 30, f"The order is that of {what}.", actual=what, returned=f"{same} of 300 rows agree")
        for turn, a, b in ((1, seed, seed + 1), (2, seed, seed + 1), (1, 0, 1)):
            expect(
                int((answer(turn, 300, 300, a) == answer(0, 300, 300, b)).sum()) < 30,
                "A later round of one seed has the order of the first round of the next seed.",
                actual="shared order",
            )

    def test_left_out(self, answer, rng):
        "rows that don't fit are others in each round"
        seed = drawn_seed(rng)
        seen = torch.cat([answer(step, 5, 3, seed) for step in range(40)]).unique()
        expect(len(seen) == 5, "Some rows are never used, in 40 rounds.", actual=sorted(seen.tolist()))

    def test_of_the_step_alone(self, answer, rng):
        "asked again, in another order, a step has the same rows; the global generator is left alone"
        seed = drawn_seed(rng)
        forwards = [answer(step, 10, 3, seed) for step in range(7)]
        for step in (6, 2, 4, 0):
            expect_close(
                answer(step, 10, 3, seed), forwards[step],
                note="Asked again, a step has other rows: a run that was interrupted could not go on.",
            )  # fmt: skip

    def test_bad_input(self, answer):
        "a batch of no rows, or of more than there are, is refused"
        for n_rows, batch_size in ((4, 5), (4, 0), (4, -1)):
            expect_raises(ValueError, answer, 0, n_rows, batch_size)


class TestRemoveParallelGradient:
    exercise = "remove_parallel_gradient"

    def test_values(self, answer, reference, rng):
        "random gradients, rows of several lengths"
        for d_sae, d_in in ((5, 3), (2, 6), (1, 4), (4, 4)):
            gradient = torch.randn(d_sae, d_in, generator=rng).double()
            W_dec = torch.randn(d_sae, d_in, generator=rng).double()
            W_dec *= 3 * torch.rand(d_sae, 1, generator=rng).double() + 0.1
            found = answer(gradient, W_dec)
            expect_shape(found, (d_sae, d_in))
            expect_close(found, reference(gradient, W_dec), atol=1e-8)
            expect_close((found * W_dec).sum(1), torch.zeros(d_sae).double(), atol=1e-6, note="Not at right angles")

    def test_along_and_across(self, answer, rng):
        "a gradient along the row vanishes, one across it stays"
        W_dec = torch.tensor([[2.0, 0, 0], [0, 0, 0.5]]).double()
        expect_close(answer(1.7 * W_dec, W_dec), 0 * W_dec, atol=1e-8)
        across = torch.tensor([[0, 3.0, -1], [0.4, 2, 0]]).double()
        expect_close(answer(across, W_dec), across)


class TestResampleDeadLatents:
    exercise = "resample_dead_latents"

    def given(self, rng, d_in, d_sae, batch, n_dead):
        weights = {
            "W_enc": torch.randn(d_in, d_sae, generator=rng),
            "b_enc": torch.randn(d_sae, generator=rng),
            "W_dec": torch.randn(d_sae, d_in, generator=rng),
            "b_dec": torch.randn(d_in, generator=rng),
        }
        x = 2 * torch.randn(batch, d_in, generator=rng)
        error = 0.5 + torch.rand(batch, generator=rng)
        dead = torch.zeros(d_sae, dtype=torch.bool)
        dead[torch.randperm(d_sae, generator=rng)[:n_dead]] = True
        return weights, x, error, dead

    def where(self, rows, x, b_dec):
        """The activation at whose direction each row is."""
        unit = torch.nn.functional.normalize(x - b_dec, dim=1)
        cosines = rows @ unit.T
        nearest = cosines.argmax(dim=1)
        expect_close(
            rows, unit[nearest], atol=1e-4,
            note="A new row of W_dec is not the direction of an activation less b_dec, of length 1.",
        )  # fmt: skip
        return nearest

    def test_new_ones(self, answer, rng):
        "rows, columns and biases of dead latents; the living ones stay"
        for d_in, d_sae, batch, n_dead in ((5, 7, 9, 3), (4, 3, 6, 2), (6, 5, 4, 4), (3, 2, 5, 1)):
            weights, x, error, dead = self.given(rng, d_in, d_sae, batch, n_dead)
            found = answer(*weights.values(), x, error, dead, torch.Generator().manual_seed(drawn_seed(rng)))
            expect(isinstance(found, tuple | list) and len(found) == 3, "Three tensors are returned.")
            W_enc, b_enc, W_dec = found
            for value, name in ((W_enc, "W_enc"), (b_enc, "b_enc"), (W_dec, "W_dec")):
                expect_shape(value, tuple(weights[name].shape))
            expect_close(W_enc[:, ~dead], weights["W_enc"][:, ~dead], note="A living latent's encoder changed.")
            expect_close(b_enc[~dead], weights["b_enc"][~dead], note="A living latent's bias changed.")
            expect_close(W_dec[~dead], weights["W_dec"][~dead], note="A living latent's row changed.")
            drawn = self.where(W_dec[dead], x, weights["b_dec"])
            expect(len(drawn.unique()) == n_dead, "An activation was drawn twice.", actual=drawn)
            length = 0.2 * weights["W_enc"][:, ~dead].norm(dim=0).mean()
            expect_close(
                W_enc[:, dead], length * W_dec[dead].T, atol=1e-4,
                note="A new column of W_enc is not the new row times a fifth of the living columns' mean length.",
            )  # fmt: skip
            expect_close(
                b_enc[dead], -(weights["b_dec"] @ W_enc[:, dead]), atol=1e-4,
                note="A new bias is not minus the product of b_dec and the new column.",
            )  # fmt: skip

    def test_none_dead(self, answer, rng):
        "nothing changes where no latent is dead"
        weights, x, error, dead = self.given(rng, 4, 6, 5, 0)
        found = answer(*weights.values(), x, error, dead, torch.Generator().manual_seed(0))
        for value, name in zip(found, ("W_enc", "b_enc", "W_dec"), strict=True):
            expect_close(value, weights[name])

    def test_badly_explained(self, answer, rng):
        "activations that are explained perfectly are never drawn"
        for _ in range(6):
            weights, x, error, dead = self.given(rng, 5, 8, 12, 4)
            error[torch.randperm(12, generator=rng)[:8]] = 0
            found = answer(*weights.values(), x, error, dead, torch.Generator().manual_seed(drawn_seed(rng)))
            drawn = self.where(found[2][dead], x, weights["b_dec"])
            expect(
                bool((error[drawn] > 0).all()),
                "An activation was drawn whose error is 0.",
                actual=error[drawn],
            )

    def test_shares(self, answer, rng):
        "how often: in proportion to the squared error"
        weights, x, error, dead = self.given(rng, 3, 2, 2, 1)
        error[:] = torch.tensor([2.0, 1.0])
        unit = torch.nn.functional.normalize(x - weights["b_dec"], dim=1)
        generator, hits = torch.Generator().manual_seed(drawn_seed(rng)), 0
        for _ in range(900):
            row = answer(*weights.values(), x, error, dead, generator)[2][dead][0]
            hits += int((unit @ row).argmax() == 0)
        share = hits / 900  # 1/2 if drawn evenly, 2/3 by the error, 4/5 by its square, 16/17 by its fourth power
        kinds = ((0.58, "evenly"), (0.735, "by the error"), (0.985, "more often"), (2.0, "always"))
        expect(
            abs(share - 0.8) < 0.06,
            "Of two activations with errors 2 and 1, the first should be drawn 8 times in 10.",
            actual=next(kind for limit, kind in kinds if share < limit), returned=f"{hits} of 900",
        )  # fmt: skip

    def test_generator(self, answer, rng):
        "the draws are the generator's"
        weights, x, error, dead = self.given(rng, 4, 5, 60, 2)
        seed = drawn_seed(rng)
        first, again, other = (
            answer(*weights.values(), x, error, dead, torch.Generator().manual_seed(s))[2]
            for s in (seed, seed, seed + 1)
        )
        expect(
            torch.allclose(again, first),
            "With the same generator, other activations were drawn.",
            actual="not the generator's",
        )
        more = [answer(*weights.values(), x, error, dead, torch.Generator().manual_seed(seed + s))[2] for s in (2, 3)]
        expect(
            any(not torch.equal(first, value) for value in (other, *more)),
            "Whatever the generator, the same activations are drawn.", actual="always the same",
        )  # fmt: skip
