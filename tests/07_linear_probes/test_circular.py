"""Checks for probes of two dimensions, rotations and rings."""

import math

import torch

from utils.course.checking import expect_close, expect_raises, expect_shape

CLOSE = {"rtol": 1e-3, "atol": 1e-4}


def polygon(n, times=1, radius=1.0):
    """n points on a circle, in steps of `times` rounds."""
    angles = 2 * math.pi * times * torch.arange(n) / n
    return radius * torch.stack([angles.cos(), angles.sin()], dim=1)


def embedded(points, d, rng):
    """Points of a plane somewhere in d dimensions."""
    return points @ torch.linalg.qr(torch.randn(d, 2, generator=rng))[0].T + torch.randn(d, generator=rng)


class TestCircularProbe:
    exercise = "circular_probe"

    def test_values(self, answer, reference, rng):
        "noisy rounds of several periods, weak and strong penalties"
        for n, d, period in ((40, 6, 7), (30, 9, 12), (12, 3, 5)):
            steps = torch.randint(-3, 3 * period, (n,), generator=rng)
            x = embedded(polygon(period, radius=4.0)[steps % period], d, rng) + torch.randn(n, d, generator=rng)
            for penalty in (1e-3, 0.7):
                probe, ours = answer(x, steps, period, penalty), reference(x, steps, period, penalty)
                expect_close(probe.weights, ours.weights, **CLOSE)
                expect_close(probe.bias, ours.bias, **CLOSE)

    def test_default(self, answer, reference, rng):
        "the penalty's default"
        steps = torch.arange(20)
        x = torch.randn(20, 5, generator=rng)
        expect_close(answer(x, steps, 6).weights, reference(x, steps, 6).weights, **CLOSE)

    def test_reads_the_angle(self, answer, rng):
        "on a circle without noise the probe reads each step's angle, counted anticlockwise from (1, 0)"
        for period in (3, 7, 12):
            steps = torch.arange(2 * period)
            x = embedded(polygon(period)[steps % period], 6, rng)
            angles = answer(x, steps, period, 1e-6)(x)
            off = torch.remainder(angles - 2 * math.pi * steps / period + math.pi, 2 * math.pi) - math.pi
            expect_close(off, torch.zeros(len(steps)), note="The angles are other ones.", atol=1e-2)

    def test_unit(self, answer, rng):
        "activations in another unit give the same angles"
        steps = torch.randint(9, (50,), generator=rng)
        x = embedded(polygon(9)[steps], 6, rng) + 0.3 * torch.randn(50, 6, generator=rng)
        near, far = answer(x, steps, 9, 0.1)(x), answer(100 * x, steps, 9, 0.1)(100 * x)
        expect_close(far.cos(), near.cos(), atol=1e-3)

    def test_dtype(self, answer, reference, rng):
        "float64 stays float64"
        steps, x = torch.arange(20), torch.randn(20, 5, generator=rng, dtype=torch.float64)
        probe, ours = answer(x, steps, 6), reference(x, steps, 6)
        expect_close(probe.weights, ours.weights, dtype=True, rtol=1e-6, atol=1e-9)
        expect_close(probe.bias, ours.bias, dtype=True, rtol=1e-6, atol=1e-9)

    def test_bad_input(self, answer, rng):
        "a round of two steps is refused"
        expect_raises(ValueError, answer, torch.randn(9, 3, generator=rng), torch.arange(9), 2)


class TestRotateInPlane:
    exercise = "rotate_in_plane"

    def inputs(self, rng, dtype=torch.float32):
        for shape in ((5, 4), (3, 2, 6), (7,)):
            d = shape[-1]
            plane = torch.linalg.qr(torch.randn(d, 2, generator=rng, dtype=dtype))[0].T
            x, centre = (torch.randn(*s, generator=rng, dtype=dtype) * 3 + 1 for s in (shape, (d,)))
            yield x, plane, centre

    def test_values(self, answer, reference, rng):
        "activations of several shapes, angles of both signs, and of more than a round"
        for x, plane, centre in self.inputs(rng):
            for angle in (0.4, -2.0, 9.0):
                expect_close(answer(x, plane, angle, centre), reference(x, plane, angle, centre), **CLOSE)

    def test_a_quarter(self, answer):
        "a quarter turn takes the first direction to the second; what is outside the plane stays"
        plane = torch.tensor([[0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
        centre = torch.tensor([0.0, 10.0, 0.0, 20.0])
        x = centre + torch.tensor([5.0, 2.0, 7.0, 0.0])
        turned = answer(x[None], plane, math.pi / 2, centre)
        expect_close(turned, centre + torch.tensor([[5.0, 0.0, 7.0, 2.0]]), atol=1e-4)

    def test_two_turns_add_up(self, answer, rng):
        "two turns one after the other are one by the sum, and nothing changes by a whole round"
        for x, plane, centre in self.inputs(rng):
            twice = answer(answer(x, plane, 0.7, centre), plane, 1.1, centre)
            expect_close(twice, answer(x, plane, 1.8, centre), **CLOSE)
            expect_close(answer(x, plane, 2 * math.pi, centre), x, **CLOSE)

    def test_dtype(self, answer, reference, rng):
        "float64 stays float64"
        for x, plane, centre in self.inputs(rng, torch.float64):
            found = answer(x, plane, 0.3, centre)
            expect_close(found, reference(x, plane, 0.3, centre), dtype=True, rtol=1e-6, atol=1e-9)

    def test_rounding(self, answer, reference, rng):
        "a plane that is off by less than 0.001 is taken"
        for x, plane, centre in self.inputs(rng):
            slightly = torch.stack([1.0003 * plane[0], plane[1] + 3e-4 * plane[0]])
            expect_close(answer(x, slightly, 0.5, centre), reference(x, slightly, 0.5, centre), rtol=1e-2, atol=0.05)

    def test_lengths(self, answer, rng):
        "directions that are not of length 1 are refused"
        for x, plane, centre in self.inputs(rng):
            for wrong in (1.1 * plane, torch.stack([plane[0], 1.003 * plane[1]])):
                expect_raises(ValueError, answer, x, wrong, 0.5, centre)

    def test_angle(self, answer, rng):
        "directions that are not at right angles are refused"
        for x, plane, centre in self.inputs(rng):
            for part in (1.0, 0.005):
                skew = torch.stack([plane[0], (part * plane[0] + plane[1]) / (1 + part**2) ** 0.5])
                expect_raises(ValueError, answer, x, skew, 0.5, centre)


class TestRingScore:
    exercise = "ring_score"

    def test_values(self, answer, reference, rng):
        "random points, even and odd numbers of them, every frequency"
        for n, d in ((7, 3), (12, 5), (3, 4), (4, 2)):
            points = torch.randn(n, d, generator=rng) + 3
            for frequency in range(1, (n - 1) // 2 + 1):
                expect_close(answer(points, frequency), reference(points, frequency), **CLOSE)
            expect_close(answer(points), reference(points), **CLOSE)

    def test_polygons(self, answer, rng):
        "1 for a polygon in order, in any plane; 0 at the frequencies that it has not"
        for n in (7, 12):
            for times in (1, 2):
                points = embedded(polygon(n, times, radius=3.0), 6, rng)
                for frequency in (1, 2):
                    expected = torch.tensor(float(frequency == times))
                    expect_close(answer(points, frequency), expected, atol=1e-4)

    def test_what_does_not_matter(self, answer, rng):
        "another origin, unit and place to begin, and the order backwards"
        points = torch.randn(9, 4, generator=rng)
        first = answer(points)
        expect_shape(first, ())
        for same in (points + 50, 20 * points, points.roll(3, 0), points.flip(0)):
            expect_close(answer(same), first, rtol=1e-3, atol=1e-3)

    def test_all_frequencies(self, answer, rng):
        "for an odd number of points the scores of all frequencies add up to 1"
        points = torch.randn(9, 4, generator=rng)
        total = sum(answer(points, frequency) for frequency in range(1, 5))
        expect_close(total, torch.tensor(1.0), atol=1e-4)

    def test_what_is_left_over(self, answer, rng):
        "for an even number of points the zigzag of every second point counts as variance, too"
        zigzag = torch.tensor([1.0, -1.0]).repeat(4)[:, None] * torch.tensor([[0.0, 0.0, 2.0]])
        points = torch.cat([polygon(8), torch.zeros(8, 1)], dim=1) + zigzag
        expect_close(answer(points), torch.tensor(1 / 5), atol=1e-4)

    def test_bad_input(self, answer, rng):
        "two points, and frequencies that are too low or too high, are refused"
        expect_raises(ValueError, answer, torch.randn(2, 3, generator=rng))
        for n, frequency in ((7, 0), (7, 4), (8, 4)):
            expect_raises(ValueError, answer, torch.randn(n, 3, generator=rng), frequency)
