"""Checks for rank, entropy and divergence of distributions that a lens reads."""

import math

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_same_gradients, expect_shape


def logits_of(rng, *shape, dtype=torch.float64):
    return 3.0 * torch.randn(shape, generator=rng, dtype=dtype)


def expect_widened(answer, *logits):
    """Expect float32 for half precision. The answer is held against itself: another mistake is for other checks."""
    found, wide = answer(*logits), answer(*(each.float() for each in logits))
    dtype = str(getattr(found, "dtype", None))
    expect(dtype == "torch.float32", "Half precision should be made float32 first.", actual=dtype, returned=dtype)
    expect_close(found, wide, note="In half precision the result differs from that in float32")


class TestLensRank:
    exercise = "lens_rank"

    def test_shapes(self, answer, rng):
        "one rank for each distribution, also where one target serves several sites"
        for shape, target_shape in (
            ((7,), ()),
            ((3, 7), (3,)),
            ((4, 3, 7), (3,)),
            ((4, 2, 3, 7), (2, 3)),
            ((1, 1), (1,)),
        ):
            target = torch.randint(shape[-1], target_shape, generator=rng)
            expect_shape(answer(logits_of(rng, *shape), target), shape[:-1])

    def test_values(self, answer, reference, rng):
        "how many tokens are above the target"
        for shape, target_shape in (((3, 9), (3,)), ((4, 3, 11), (3,)), ((2, 3, 5, 6), (3, 5))):
            logits, target = logits_of(rng, *shape), torch.randint(shape[-1], target_shape, generator=rng)
            expect_close(answer(logits, target), reference(logits, target))

    def test_integers(self, answer, rng):
        "ranks are integers"
        ranks = answer(logits_of(rng, 3, 7), torch.tensor([0, 4, 6]))
        expect_shape(ranks, (3,))
        expect(not ranks.is_floating_point(), "Ranks are counts, and integers.", actual=str(ranks.dtype))

    def test_ends(self, answer, rng):
        "the likeliest token has rank 0, the unlikeliest d_vocab - 1"
        logits = logits_of(rng, 5, 8)
        expect_close(answer(logits, logits.argmax(-1)), torch.zeros(5, dtype=torch.long))
        expect_close(answer(logits, logits.argmin(-1)), torch.full((5,), 7))

    def test_ties(self, answer, rng):
        "tokens of the same logit are not above the target"
        logits = torch.zeros(3, 6)
        logits[1, 2], logits[2, :3] = 1.0, 1.0
        target = torch.tensor([4, 0, 5])
        expect_close(answer(logits, target), torch.tensor([0, 1, 3]))

    def test_order_only(self, answer, rng):
        "a shift, a stretch or a softmax changes no rank, and neither does a very low logit"
        logits, target = logits_of(rng, 4, 9), torch.randint(9, (4,), generator=rng)
        ranks = answer(logits, target)
        expect_shape(ranks, (4,))
        for other in (logits + 50.0, 0.01 * logits, logits.softmax(-1), logits - 1e4):
            expect_close(answer(other, target), ranks, note="The order of the logits is the same, and the rank is not")

    def test_unlikely(self, answer, reference, rng):
        "the order also counts among tokens whose probabilities round to 0"
        logits = 300.0 * logits_of(rng, 4, 9)
        for target in (logits.argmin(-1), logits.argsort(-1)[:, 2]):
            expect_close(answer(logits, target), reference(logits, target))

    def test_bad_targets(self, answer, rng):
        "an id outside the vocabulary is refused"
        for bad in (-1, 7):
            expect_raises(ValueError, answer, logits_of(rng, 2, 7), torch.tensor([0, bad]))


class TestLensEntropy:
    exercise = "lens_entropy"

    def test_values(self, answer, reference, rng):
        "in nats, for any number of dimensions"
        for shape in ((9,), (3, 7), (2, 3, 5), (1, 1)):
            logits = logits_of(rng, *shape)
            expect_close(answer(logits), reference(logits))

    def test_uniform(self, answer):
        "equal logits of any size: log(d_vocab)"
        for d_vocab in (2, 10, 666):
            for level in (0.0, -3.0, 1000.0):
                entropy = answer(torch.full((2, d_vocab), level, dtype=torch.float64))
                expect_close(entropy, torch.full((2,), math.log(d_vocab), dtype=torch.float64))

    def test_certain(self, answer):
        "one logit far above the rest: 0, and a number"
        logits = torch.zeros(3, 5, dtype=torch.float64)
        logits[:, 1] = torch.tensor([200.0, 2_000.0, 20_000.0])
        expect_close(answer(logits), torch.zeros(3, dtype=torch.float64), atol=1e-12)

    def test_forbidden(self, answer, reference, rng):
        "a logit of -inf counts as probability 0"
        logits = logits_of(rng, 3, 6)
        logits[:, 2] = -torch.inf
        allowed = logits[:, [0, 1, 3, 4, 5]]
        expect_close(answer(logits), reference(allowed), note="Forbidden tokens should contribute nothing")

    def test_shift_and_spread(self, answer, rng):
        "a shift changes nothing; flatter logits are less decided"
        logits = logits_of(rng, 4, 8)
        entropy = answer(logits)
        expect_shape(entropy, (4,))
        expect_close(answer(logits + 5.0), entropy)
        expect((answer(0.5 * logits) > entropy).all(), "Halving all logits should raise the entropy.", actual=entropy)

    def test_levels(self, answer, reference, rng):
        "every distribution at a level of its own, hundreds or thousands apart"
        logits = logits_of(rng, 5, 8)
        levels = torch.tensor([-5000.0, -300.0, 0.0, 300.0, 5000.0], dtype=torch.float64)[:, None]
        expect_close(answer(logits + levels), reference(logits), rtol=1e-8)

    def test_spread(self, answer, reference, rng):
        "tokens far below the others"
        logits = logits_of(rng, 4, 6)
        logits[:, :3] -= torch.tensor([90.0, 150.0, 700.0], dtype=torch.float64)
        far_below = torch.cat([logits, logits - 2000.0], -1)
        expect_close(answer(far_below), reference(logits))
        # A million tokens of probability 1e-10 each: what none of them matters, they do together.
        many = torch.cat([torch.zeros(1), torch.full((1_000_000,), -23.0)]).double()
        expect_close(answer(many), reference(many))

    def test_dtype(self, answer, reference, rng):
        "the dtype of the logits: float32 and float64 stay what they are"
        for dtype in (torch.float32, torch.float64):
            logits = logits_of(rng, 3, 5, dtype=dtype)
            expect_close(answer(logits), reference(logits), dtype=True)

    def test_half_precision(self, answer, rng):
        "half precision is widened first: the same as for these logits in float32"
        for dtype in (torch.float16, torch.bfloat16):
            expect_widened(answer, (5.0 + logits_of(rng, 3, 400)).to(dtype))

    def test_gradients(self, answer, reference, rng):
        "gradients for the logits"
        expect_same_gradients(answer, reference, logits_of(rng, 3, 6), rng=rng)

    def test_gradients_at_zero(self, answer):
        "gradients also where a probability is 0: a forbidden token, and one that is far below the others"
        logits = torch.tensor([[0.5, 0.0, -200.0], [1.0, -torch.inf, 0.0]]).requires_grad_()
        entropy = answer(logits)
        expect_shape(entropy, (2,))
        expect(entropy.requires_grad, "No gradient reaches the logits.", actual="no gradient")
        (gradient,) = torch.autograd.grad(entropy.sum(), logits)
        expect(
            gradient.isfinite().all(),
            "The gradient is not finite where a token's probability is 0.",
            actual="not finite",
            returned=f"a gradient of {gradient.tolist()} for logits {logits.tolist()}",
            expected="finite numbers",
        )


class TestLensKl:
    exercise = "lens_kl"

    def test_values(self, answer, reference, rng):
        "in nats, one number for each distribution"
        for shape in ((7,), (3, 8), (2, 3, 5)):
            logits, final = logits_of(rng, *shape), logits_of(rng, *shape)
            expect_close(answer(logits, final), reference(logits, final))

    def test_by_hand(self, answer):
        "a case on paper: final 1/2, 1/2, and a lens that says 1/4, 3/4"
        final, lens = torch.zeros(2, dtype=torch.float64), torch.tensor([1.0, 3.0], dtype=torch.float64).log()
        expect_close(answer(lens, final), torch.tensor(0.5 * math.log(4 / 3), dtype=torch.float64))

    def test_zero(self, answer, rng):
        "0 for equal distributions, whatever was added to the logits; positive otherwise"
        logits = logits_of(rng, 4, 6)
        expect_close(answer(logits + 3.0, logits), torch.zeros(4, dtype=torch.float64), atol=1e-12)
        expect((answer(logits_of(rng, 4, 6), logits) > 0).all(), "A divergence is never negative.", actual="not > 0")

    def test_sites(self, answer, reference, rng):
        "one final distribution for all sites of a stack"
        logits, final = logits_of(rng, 3, 2, 4, 7), logits_of(rng, 2, 4, 7)
        expect_close(answer(logits, final), reference(logits, final))

    def test_levels(self, answer, reference, rng):
        "every distribution at a level of its own, hundreds or thousands apart"
        logits, final = logits_of(rng, 5, 8), logits_of(rng, 5, 8)
        levels = torch.tensor([-5000.0, -300.0, 0.0, 300.0, 5000.0], dtype=torch.float64)[:, None]
        expect_close(answer(logits + levels, final - levels), reference(logits, final), rtol=1e-8)

    def test_double(self, answer, reference, rng):
        "float32 and float64 stay what they are"
        for dtype in (torch.float32, torch.float64):
            logits, final = logits_of(rng, 3, 6, dtype=dtype), logits_of(rng, 3, 6, dtype=dtype)
            expect_close(answer(logits, final), reference(logits, final), dtype=True)

    def test_half_precision(self, answer, rng):
        "half precision is widened first: the same as for these logits in float32"
        for dtype in (torch.float16, torch.bfloat16):
            final = (5.0 + logits_of(rng, 3, 400)).to(dtype)
            logits = (final + 0.1 * logits_of(rng, 3, 400)).to(dtype)
            expect_widened(answer, logits, final)

    def test_extreme(self, answer, reference, rng):
        "logits of many hundreds give a number, not NaN or infinity"
        logits, final = 300.0 * logits_of(rng, 4, 6), 300.0 * logits_of(rng, 4, 6)
        expect_close(answer(logits, final), reference(logits, final))

    def test_gradients(self, answer, reference, rng):
        "gradients for both"
        expect_same_gradients(answer, reference, logits_of(rng, 3, 6), logits_of(rng, 3, 6), rng=rng)

    def test_bad_sizes(self, answer, rng):
        "two vocabularies of different size are refused"
        expect_raises(ValueError, answer, logits_of(rng, 3, 6), logits_of(rng, 3, 1))
