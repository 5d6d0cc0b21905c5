"""Checks for circles that latents share."""

import math

import torch

from utils.course.checking import expect, expect_close, expect_shape


class TestCircleExplained:
    exercise = "circle_explained"

    def test_values(self, answer, reference, rng):
        "random values, of one column and of several, some with a circle in them"
        for n, k, signal in ((60, 1, 0.0), (80, 3, 1.0), (50, 2, 0.5), (40, 5, 0.2)):
            angles = 7 * torch.rand(n, generator=rng)
            weights = torch.randn(2, k, generator=rng)
            values = signal * torch.stack([angles.cos(), angles.sin()], 1) @ weights + 3
            values = values + torch.randn(n, k, generator=rng)
            held_out = torch.rand(n, generator=rng) < 0.4
            expect_close(float(answer(values, angles, held_out)), reference(values, angles, held_out), atol=1e-5)

    def test_known_values(self, answer, rng):
        "two coordinates hold all of a circle, one coordinate half of it, and a constant nothing"
        angles = 2 * math.pi * torch.arange(400) / 400
        held_out = torch.arange(400) % 2 == 0
        both = torch.stack([2 * angles.cos() + 5, angles.sin() - angles.cos()], 1)
        found = [float(answer(v, angles, held_out)) for v in (both, angles.sin()[:, None], torch.zeros(400, 1))]
        expect_close(found, [1.0, 0.5, 0.0], atol=1e-4)

    def test_more_columns_than_rows(self, answer, reference, rng):
        "more columns than rows to fit: of all exact solutions the one with the smallest weights"
        angles = 6 * torch.rand(24, generator=rng)
        held_out = torch.arange(24) % 3 == 0
        values = torch.randn(24, 40, generator=rng)
        expect_close(float(answer(values, angles, held_out)), reference(values, angles, held_out), atol=1e-4)


def signed(rows):
    """Rows in the sense in which their largest entry is above 0."""
    return rows * rows.gather(1, rows.abs().argmax(1, keepdim=True)).sign()


class TestPlaneOfLatents:
    exercise = "plane_of_latents"

    def test_values(self, answer, reference, rng):
        "the same plane, and the same directions but for their signs"
        for n, d_sae, d, k in ((50, 12, 7, 4), (30, 5, 3, 2), (80, 20, 10, 9)):
            z = torch.relu(torch.randn(n, d_sae, generator=rng) - 0.6).double()
            W_dec = torch.randn(d_sae, d, generator=rng).double()
            latents = torch.randperm(d_sae, generator=rng)[:k]
            found, ours = answer(z, W_dec, latents), reference(z, W_dec, latents)
            expect_shape(found, (2, d))
            expect_close(signed(found), signed(ours), atol=1e-6)

    def test_only_where_they_are_on(self, answer):
        "activations in which none of the group is on do not count"
        z = torch.zeros(304, 3).double()
        z[:4, :2] = torch.tensor([[10.0, 1.0], [10.0, 2.0], [11.0, 1.5], [10.5, 3.0]])
        z[4:, 2] = 5
        found = answer(z, torch.eye(3).double(), torch.tensor([0, 1]))
        expect(
            abs(float(found[0][1])) > abs(float(found[0][0])),
            "The first direction is where the group varies among the activations in which it is on.", actual="all rows",
        )  # fmt: skip

    def test_an_orthonormal_pair(self, answer, rng):
        "of length 1 and at right angles, whatever the decoder's lengths"
        z = torch.relu(torch.randn(40, 6, generator=rng)).double()
        W_dec = 5 * torch.randn(6, 4, generator=rng).double()
        found = answer(z, W_dec, torch.tensor([5, 0, 3]))
        expect_close(found @ found.T, torch.eye(2).double(), atol=1e-8)
