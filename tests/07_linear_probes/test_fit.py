"""Checks for the three fits."""

import torch

from utils.course.checking import expect, expect_close, expect_raises
from utils.probes.fit import Probe

SIZES = ((60, 5), (41, 1), (90, 12), (14, 3))


def drawn(rng, n, d, *, share=0.3, gap=0.6, dtype=torch.float32):
    """Activations off centre, with columns of different width, and labels that lie along a direction, not all of them.

    Some of each label there are always.
    """
    labels = torch.rand(n, generator=rng) < share
    labels[:3], labels[3:9] = True, False
    widths = 0.5 + torch.rand(d, generator=rng)
    x = widths * torch.randn(n, d, generator=rng) + gap * labels[:, None] * torch.randn(d, generator=rng)
    return (x + 1.5 * torch.randn(d, generator=rng)).to(dtype), labels


def expect_probe(found, wanted, rtol):
    """The same probe, within a share of the direction's length."""
    expect(
        isinstance(found, tuple | list) and len(found) == 2,
        "A fit returns a Probe: a direction and a bias.",
        actual=type(found).__name__,
    )
    far = rtol * float(wanted.direction.norm() + wanted.bias.abs())
    expect_close(tuple(found), tuple(wanted), rtol=0, atol=far)


def expect_refused(answer, rng):
    x, labels = drawn(rng, 20, 3)
    for one in (torch.ones_like(labels), torch.zeros_like(labels)):
        expect_raises(ValueError, answer, x, one)


class TestLeastSquaresProbe:
    exercise = "least_squares_probe"

    def test_values(self, answer, reference, rng):
        "labels of unequal number, several sizes and penalties"
        for n, d in SIZES:
            for penalty in (1e-2, 0.5):
                x, labels = drawn(rng, n, d)
                expect_probe(answer(x, labels, penalty), reference(x, labels, penalty), 2e-3)

    def test_default_penalty(self, answer, reference, rng):
        "the penalty that is there if none is given"
        x, labels = drawn(rng, 70, 4)
        expect_probe(answer(x, labels), reference(x, labels), 2e-3)

    def test_more_columns_than_rows(self, answer, reference, rng):
        "more dimensions than tokens, and a dimension in which all are alike"
        x, labels = drawn(rng, 20, 30, share=0.5)
        x[:, 4] = 2.0
        expect_probe(answer(x, labels, 0.1), reference(x, labels, 0.1), 5e-3)

    def test_unit(self, answer, reference, rng):
        "in another unit of x the same probe"
        x, labels = drawn(rng, 60, 4)
        for unit in (100.0, 0.01):
            found, wanted = answer(x * unit, labels, 0.1), reference(x * unit, labels, 0.1)
            expect_probe(Probe(found[0] * unit, found[1]), Probe(wanted.direction * unit, wanted.bias), 2e-3)

    def test_dtype(self, answer, reference, rng):
        "the dtype of x"
        for dtype in (torch.float64, torch.float32):
            x, labels = drawn(rng, 50, 3, dtype=dtype)
            expect_close(tuple(answer(x, labels)), tuple(reference(x, labels)), rtol=5e-3, atol=5e-3, dtype=True)

    def test_bad_input(self, answer, rng):
        "one label only"
        expect_refused(answer, rng)


class TestLogisticProbe:
    exercise = "logistic_probe"

    def test_values(self, answer, reference, rng):
        "labels of unequal number, several sizes and penalties"
        for n, d in SIZES:
            for penalty in (1e-2, 0.5):
                x, labels = drawn(rng, n, d)
                expect_probe(answer(x, labels, penalty), reference(x, labels, penalty), 2e-3)

    def test_default_penalty(self, answer, reference, rng):
        "the penalty that is there if none is given"
        x, labels = drawn(rng, 70, 4)
        expect_probe(answer(x, labels), reference(x, labels), 2e-3)

    def test_without_error(self, answer, reference, rng):
        "classes that can be told apart without error"
        x, labels = drawn(rng, 60, 3, share=0.5, gap=12.0)
        for penalty in (1e-1, 1e-4):
            expect_probe(answer(x, labels, penalty), reference(x, labels, penalty), 2e-3)

    def test_unit(self, answer, reference, rng):
        "in another unit of x the same probe"
        x, labels = drawn(rng, 60, 4)
        for unit in (100.0, 0.01):
            found, wanted = answer(x * unit, labels, 0.1), reference(x * unit, labels, 0.1)
            expect_probe(Probe(found[0] * unit, found[1]), Probe(wanted.direction * unit, wanted.bias), 2e-3)

    def test_dtype(self, answer, reference, rng):
        "the dtype of x"
        for dtype in (torch.float64, torch.float32):
            x, labels = drawn(rng, 50, 3, dtype=dtype)
            expect_close(
                tuple(answer(x, labels, 0.1)), tuple(reference(x, labels, 0.1)), rtol=1e-2, atol=1e-2, dtype=True
            )

    def test_bad_input(self, answer, rng):
        "one label only"
        expect_refused(answer, rng)


class TestMassMeanProbe:
    exercise = "mass_mean_probe"

    def test_values(self, answer, reference, rng):
        "labels of unequal number, several sizes"
        for n, d in (*SIZES, (20, 30)):
            x, labels = drawn(rng, n, d)
            expect_probe(answer(x, labels), reference(x, labels), 1e-4)

    def test_halfway(self, answer):
        "a score of 0 halfway between the two means, however many tokens each class has"
        x = torch.tensor([[2.0, 0.0], [0.0, 4.0], [0.0, 4.0], [0.0, 4.0]])
        found = answer(x, torch.tensor([True, False, False, False]))
        expect_close(found[0], torch.tensor([2.0, -4.0]))
        expect_close(found[0] @ torch.tensor([1.0, 2.0]) + found[1], torch.tensor(0.0))

    def test_dtype(self, answer, reference, rng):
        "the dtype of x"
        for dtype in (torch.float64, torch.float32):
            x, labels = drawn(rng, 50, 3, dtype=dtype)
            expect_close(tuple(answer(x, labels)), tuple(reference(x, labels)), dtype=True)

    def test_bad_input(self, answer, rng):
        "one label only"
        expect_refused(answer, rng)
