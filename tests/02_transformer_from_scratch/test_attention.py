"""Checks for attention: mask, softmax, scores, pattern, the QK and OV circuits, a head, a layer of heads."""

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_same_gradients, expect_shape

# Sizes that can't stand in for one another. The square root of d_head = 4 is exact in every dtype, so float64
# can be compared strictly, whatever the precision in which an answer takes the root.
SIZES = ({"batch": 2, "pos": 5, "d_model": 7, "d_head": 3}, {"batch": 4, "pos": 6, "d_model": 5, "d_head": 2})
ONES = {"batch": 1, "pos": 1, "d_model": 1, "d_head": 1}
EXACT = {"batch": 2, "pos": 5, "d_model": 6, "d_head": 4, "dtype": torch.float64}
# Sums of hundreds of terms in another order stay within this; anything that was float32 on the way does not.
FLOAT64 = {"rtol": 1e-10, "atol": 1e-11}


def normal(rng, *shape, dtype=torch.float32):
    return torch.randn(shape, generator=rng, dtype=dtype)


def strided(tensor):
    """The same values in another memory layout, which no ``view`` can flatten."""
    return tensor.transpose(0, -1).contiguous().transpose(0, -1)


def head_inputs(rng, batch, pos, d_model, d_head, dtype=torch.float32):
    """Everything that one head computes with, random and of moderate size, by argument name."""
    scale = 1.5 * d_model**-0.5
    weights = {name: scale * normal(rng, d_model, d_head, dtype=dtype) for name in ("W_Q", "W_K", "W_V")}
    biases = {name: normal(rng, d_head, dtype=dtype) for name in ("b_Q", "b_K", "b_V")}
    resid = normal(rng, batch, pos, d_model, dtype=dtype)
    return {"resid": resid, "W_O": normal(rng, d_head, d_model, dtype=dtype)} | weights | biases


def layer_inputs(rng, batch, pos, d_model, d_head, n_heads, dtype=torch.float32):
    """The same for a layer of heads: weights stacked along a first dimension, one output bias."""
    heads = [head_inputs(rng, 1, 1, d_model, d_head, dtype) for _ in range(n_heads)]
    stacked = {name: torch.stack([head[name] for head in heads]) for name in heads[0] if name != "resid"}
    outer = {"resid": normal(rng, batch, pos, d_model, dtype=dtype), "b_O": normal(rng, d_model, dtype=dtype)}
    return stacked | outer


def huge_head_inputs(rng):
    """Multiples of 8, so that scores of many thousands are exact; the largest are in the future."""

    def eights(*shape):
        return 8.0 * torch.randint(-2, 3, shape, generator=rng)

    inputs = {"W_Q": eights(5, 4), "W_K": eights(5, 4), "b_Q": eights(4), "b_K": eights(4)}
    inputs["resid"] = eights(4, 9, 5) / 8
    inputs["resid"][:, -1] *= 16
    return inputs


def arguments(inputs, names):
    return [inputs[name] for name in names.split()]


SCORES = "resid W_Q W_K b_Q b_K"
HEAD = "resid W_Q W_K W_V W_O b_Q b_K b_V"
LAYER = HEAD + " b_O"


class TestCausalMask:
    exercise = "causal_mask"

    def test_shape(self, answer, rng):
        "a row and a column for each position"
        for n_ctx in (1, 2, 7, int(torch.randint(129, 200, (), generator=rng))):
            expect_shape(answer(n_ctx), (n_ctx, n_ctx))

    def test_values(self, answer, reference):
        "0 on and below the diagonal, -inf above it"
        for n_ctx in (1, 2, 7):
            expect_close(answer(n_ctx), reference(n_ctx))

    def test_weights(self, answer, rng):
        "with random scores: rows sum to one, all of the past counts, none of the future does"
        n_ctx = int(torch.randint(129, 1100, (), generator=rng))  # the masks of all these fill no notebook
        mask = answer(n_ctx)
        expect_shape(mask, (n_ctx, n_ctx))
        weights = (normal(rng, n_ctx, n_ctx) + mask).softmax(dim=-1)
        expect_close(weights.sum(-1), torch.ones(n_ctx), note="After the softmax some rows do not sum to one")
        future = torch.ones(n_ctx, n_ctx, dtype=torch.bool).triu(1)
        expect(
            (weights[~future] > 0).all(),
            "After the softmax, some position gets no weight that should be "
            "visible: a position sees itself and everything before it.",
            actual=weights,
        )
        expect(
            (weights[future] == 0).all(), "After the softmax, some of the weight lies on the future.", actual=weights
        )

    def test_large_scores(self, answer, rng):
        "no score is large enough to get through"
        n_ctx = int(torch.randint(5, 30, (), generator=rng))
        mask = answer(n_ctx)
        expect_shape(mask, (n_ctx, n_ctx))
        scores = normal(rng, n_ctx, n_ctx) * 10.0 ** torch.arange(n_ctx).clamp(max=20)
        weights = (scores + mask).softmax(dim=-1)
        expect(
            (weights.triu(1) == 0).all(),
            "A large enough score in the future gets weight in spite of "
            "your mask. A finite number, however large, can be outweighed.",
            actual=weights,
        )

    def test_device(self, answer):
        "the mask is made on the device that was asked for"
        mask = answer(6, device="meta")
        expect_shape(mask, (6, 6))
        device = mask.device.type
        expect(
            device == "meta",
            "The argument `device` has no effect on your mask.",
            actual=device,
            expected="a tensor on the device 'meta'",
        )

    def test_bad_sizes(self, answer):
        "fewer than one position is refused"
        for n_ctx in (0, -3):
            expect_raises(ValueError, answer, n_ctx)


class TestSoftmaxRows:
    exercise = "softmax_rows"

    def test_values(self, answer, reference, rng):
        "weights along the last dimension, for scores of two, three and four dimensions"
        for shape in ((3, 5), (2, 4, 6), (2, 3, 5, 4), (1, 1)):
            scores = normal(rng, *shape)
            expect_close(answer(scores), reference(scores), dtype=True)

    def test_small_weights(self, answer, reference, rng):
        "a small weight is not zero: shares are right down to a millionth of a millionth"
        scores = normal(rng, 3, 6) - 5.0 * torch.arange(6)
        expect_close(answer(scores), reference(scores), rtol=1e-4, atol=1e-18)

    def test_zero_is_a_score(self, answer, reference, rng):
        "a score of exactly zero is a score like any other"
        scores = normal(rng, 4, 6)
        scores[1] = 0.0
        scores[2, ::2] = 0.0
        expect_close(answer(scores), reference(scores))

    def test_shift(self, answer, rng):
        "adding a number to a whole row changes nothing, for scores of -10,000 as for scores of 10,000"
        scores = torch.randint(-16, 17, (3, 6), generator=rng) / 8  # eighths: exact also beside 10,000
        weights = answer(scores)
        expect_shape(weights, (3, 6))
        # Near 10,000, float32 numbers lie 0.001 apart; an answer may round its exponents by that.
        for shift, rtol in ((7.0, None), (10_000.0, 2e-3), (-10_000.0, 2e-3)):
            note = f"Adding {shift:g} to all scores changed the weights"
            expect_close(answer(scores + shift), weights, note=note, rtol=rtol)

    def test_wide_rows(self, answer, reference, rng):
        "scores that lie 120 apart in one row, and one that lies 10,000 above the others"
        scores = normal(rng, 3, 5) - 30.0 * torch.stack([torch.randperm(5, generator=rng) for _ in range(3)])
        expect_close(answer(scores), reference(scores))
        scores[1, 2] = 10_000.0
        expect_close(answer(scores), reference(scores), rtol=2e-3)

    def test_rows_apart(self, answer, reference, rng):
        "rows of very different size do not disturb each other"
        scores = normal(rng, 2, 4, 5) + torch.tensor([-10_000.0, -100.0, 0.0, 10_000.0])[:, None]
        expect_close(answer(scores), reference(scores), rtol=2e-3)

    def test_masked(self, answer, reference, rng):
        "-inf gets weight exactly 0; a row of nothing else is NaN, and the other rows are not touched"
        scores = normal(rng, 2, 4, 5)
        scores[:, 0, 1:] = -torch.inf
        scores[:, 1, 2] = -torch.inf
        weights = answer(scores)
        expect_close(weights, reference(scores))
        expect((weights[:, 0, 1:] == 0).all(), "A score of -inf should get weight 0 exactly.", actual=weights)
        scores[:, 3] = -torch.inf
        expect_close(
            answer(scores),
            reference(scores),
            note="A row is all -inf: nothing is allowed, so "
            "there is no answer but NaN, as in torch.softmax, and other rows should not notice",
        )

    def test_dtype_and_layout(self, answer, reference, rng):
        "float64 stays float64 and float32 float32, and the memory layout does not matter"
        scores = normal(rng, 3, 4, 5, dtype=torch.float64)
        expect_close(answer(scores), reference(scores), dtype=True)
        scores = strided(normal(rng, 3, 4, 5))
        expect_close(answer(scores), reference(scores), dtype=True)

    def test_gradients(self, answer, reference, rng):
        "gradients, also beside masked entries"
        scores = normal(rng, 2, 4, 5, dtype=torch.float64)
        scores[:, :, 3] = -torch.inf
        expect_same_gradients(answer, reference, scores, rng=rng)


class TestAttentionScores:
    exercise = "attention_scores"

    def test_shape(self, answer, rng):
        "a score for each pair of positions, in each sequence"
        for sizes in (*SIZES, ONES):
            scores = answer(*arguments(head_inputs(rng, **sizes), SCORES))
            expect_shape(scores, (sizes["batch"], sizes["pos"], sizes["pos"]))

    def test_values(self, answer, reference, rng):
        "row i, column j holds query i times key j, scaled"
        for sizes in (*SIZES, ONES):
            inputs = arguments(head_inputs(rng, **sizes), SCORES)
            expect_close(answer(*inputs), reference(*inputs))

    def test_biases(self, answer, rng):
        "with a zero stream, only the biases speak"
        inputs = head_inputs(rng, **SIZES[0])
        inputs["resid"] = torch.zeros_like(inputs["resid"])
        score = inputs["b_Q"] @ inputs["b_K"] / 3**0.5
        expect_close(
            answer(*arguments(inputs, SCORES)),
            score.expand(2, 5, 5),
            note="Where resid is zero, every score should be b_Q @ b_K / sqrt(d_head)",
        )

    def test_unmasked(self, answer, rng):
        "the future is not masked yet"
        scores = answer(*arguments(head_inputs(rng, **SIZES[1]), SCORES))
        expect_shape(scores, (4, 6, 6))
        expect(
            scores.isfinite().all(),
            "Some scores are not finite numbers. The mask comes later, in attention_pattern.",
            actual=scores,
        )

    def test_dtype_and_layout(self, answer, reference, rng):
        "float64 stays float64 and float32 float32, and the memory layout does not matter"
        inputs = arguments(head_inputs(rng, **EXACT), SCORES)
        expect_close(answer(*inputs), reference(*inputs), dtype=True, **FLOAT64)
        inputs = [strided(tensor) for tensor in arguments(head_inputs(rng, **SIZES[0]), SCORES)]
        expect_close(answer(*inputs), reference(*inputs), dtype=True)

    def test_gradients(self, answer, reference, rng):
        "gradients for the stream, the weights and the biases"
        inputs = arguments(head_inputs(rng, **EXACT), SCORES)
        expect_same_gradients(answer, reference, *inputs, rng=rng, **FLOAT64)


class TestAttentionPattern:
    exercise = "attention_pattern"

    def test_rows(self, answer, rng):
        "every row shares out a weight of one among the present and the past"
        for sizes in (*SIZES, ONES):
            pattern = answer(*arguments(head_inputs(rng, **sizes), SCORES))
            expect_shape(pattern, (sizes["batch"], sizes["pos"], sizes["pos"]))
            expect(not pattern.isnan().any(), "Some of the weights are NaN.", actual=pattern)
            expect(
                (pattern.triu(1) == 0).all(),
                "Some of the weight lies on the future: entries with key > query should be exactly 0.",
                actual=pattern,
            )
            sums = pattern.detach().sum(-1)
            expect(
                torch.allclose(sums, torch.ones_like(sums), atol=1e-5),
                "Some rows of the pattern do not sum to one.",
                actual=sums,
                returned=f"rows of the first text that sum to {', '.join(f'{x:.3g}' for x in sums[0].tolist())}",
                expected="rows that sum to 1",
            )

    def test_values(self, answer, reference, rng):
        "the softmax of the scaled, masked scores"
        for sizes in (*SIZES, ONES):
            inputs = arguments(head_inputs(rng, **sizes), SCORES)
            expect_close(answer(*inputs), reference(*inputs))

    def test_no_peeking(self, answer, rng):
        "what comes later changes no earlier row"
        inputs = head_inputs(rng, **SIZES[1])
        before = answer(*arguments(inputs, SCORES))
        expect_shape(before, (4, 6, 6))
        inputs["resid"] = torch.cat([inputs["resid"][:, :4], 1e10 * normal(rng, 4, 2, 5)], dim=1)
        after = answer(*arguments(inputs, SCORES))
        expect_close(
            after[:, :4],
            before[:, :4],
            note="The last two of six positions were replaced by very long vectors, and earlier rows changed",
        )

    def test_large_scores(self, answer, reference, rng):
        "scores of tens of thousands in the future leave no trace"
        inputs = arguments(huge_head_inputs(rng), SCORES)
        expect_close(answer(*inputs), reference(*inputs), atol=0.05)  # rounding may move shares of a tie

    def test_equal_scores(self, answer, rng):
        "equal scores share the weight equally, be they zero or far below it"
        inputs = {"resid": normal(rng, 2, 6, 5), "W_Q": torch.zeros(5, 4), "W_K": torch.zeros(5, 4)}
        inputs |= {"b_Q": torch.tensor([2.0, 0.0, 0.0, 0.0]), "b_K": torch.zeros(4)}
        inputs["resid"][..., 0] = 1.0
        shares = (torch.ones(6, 6).tril() / torch.arange(1, 7)[:, None]).expand(2, 6, 6)
        for score in (0.0, -2e10):
            inputs["W_K"][0, 0] = score
            note = f"All scores are {score:g} here, so each position should share its weight equally"
            expect_close(answer(*arguments(inputs, SCORES)), shares, note=note)

    def test_dtype_and_layout(self, answer, reference, rng):
        "float64 stays float64 and float32 float32, and the memory layout does not matter"
        inputs = arguments(head_inputs(rng, **EXACT), SCORES)
        expect_close(answer(*inputs), reference(*inputs), dtype=True, **FLOAT64)
        inputs = [strided(tensor) for tensor in arguments(head_inputs(rng, **SIZES[0]), SCORES)]
        expect_close(answer(*inputs), reference(*inputs), dtype=True)

    def test_gradients(self, answer, reference, rng):
        "gradients for the stream, the weights and the query bias"
        inputs = head_inputs(rng, **EXACT)
        # The key bias adds one number to a whole row of scores: no pattern depends on it, so it is left out.
        given = arguments(inputs, "resid W_Q W_K b_Q")
        expect_same_gradients(answer, reference, *given, b_K=inputs["b_K"], rng=rng, **FLOAT64)


class TestQKCircuit:
    exercise = "qk_circuit"

    def test_shape(self, answer, rng):
        "d_model by d_model, whatever d_head is"
        for d_model, d_head in ((6, 2), (3, 5), (1, 1)):
            circuit = answer(normal(rng, d_model, d_head), normal(rng, d_model, d_head))
            expect_shape(circuit, (d_model, d_model))

    def test_meaning(self, answer, rng):
        "x @ circuit @ y is the query of x times the key of y"
        for d_model, d_head in ((7, 2), (3, 5), (1, 1)):
            W_Q, W_K = normal(rng, d_model, d_head), normal(rng, d_model, d_head)
            x, y = normal(rng, d_model), normal(rng, d_model)
            circuit = answer(W_Q, W_K)
            expect_shape(circuit, (d_model, d_model))
            wanted = (x @ W_Q) @ (y @ W_K)
            expect_close(
                x @ circuit.to(x.dtype) @ y,
                wanted,
                rtol=1e-4,
                atol=1e-4,
                note="For vectors x and y, x @ circuit @ y should be (x @ W_Q) @ (y @ W_K)",
            )

    def test_values(self, answer, reference, rng):
        "rows belong to the query side, columns to the key side"
        for d_model, d_head in ((7, 3), (4, 5), (1, 1)):
            inputs = normal(rng, d_model, d_head), normal(rng, d_model, d_head)
            expect_close(answer(*inputs), reference(*inputs))

    def test_basis(self, answer, rng):
        "a change of basis inside the head changes nothing"
        W_Q, W_K = normal(rng, 6, 3), normal(rng, 6, 3)
        R = torch.linalg.qr(normal(rng, 3, 3)).Q * torch.tensor([0.5, 1.0, 2.0])
        circuit = answer(W_Q, W_K)
        expect_shape(circuit, (6, 6))
        expect_close(
            answer(W_Q @ R, W_K @ R.inverse().T),
            circuit,
            rtol=1e-4,
            atol=1e-4,
            note="W_Q @ R and W_K @ R.inverse().T should make the same circuit as W_Q and W_K",
        )

    def test_dtype_and_layout(self, answer, reference, rng):
        "float64 stays float64 and float32 float32, and the memory layout does not matter"
        inputs = normal(rng, 5, 3, dtype=torch.float64), normal(rng, 5, 3, dtype=torch.float64)
        expect_close(answer(*inputs), reference(*inputs), dtype=True, **FLOAT64)
        inputs = strided(normal(rng, 5, 3)), strided(normal(rng, 5, 3))
        expect_close(answer(*inputs), reference(*inputs), dtype=True)

    def test_gradients(self, answer, reference, rng):
        "gradients for both matrices"
        inputs = normal(rng, 5, 3, dtype=torch.float64), normal(rng, 5, 3, dtype=torch.float64)
        expect_same_gradients(answer, reference, *inputs, rng=rng)


class TestOVCircuit:
    exercise = "ov_circuit"

    def test_shape(self, answer, rng):
        "d_model by d_model, whatever d_head is"
        for d_model, d_head in ((6, 2), (3, 5), (1, 1)):
            circuit = answer(normal(rng, d_model, d_head), normal(rng, d_head, d_model))
            expect_shape(circuit, (d_model, d_model))

    def test_meaning(self, answer, rng):
        "y @ circuit is what the head writes for y"
        for d_model, d_head in ((7, 2), (3, 5), (1, 1)):
            W_V, W_O, y = normal(rng, d_model, d_head), normal(rng, d_head, d_model), normal(rng, d_model)
            circuit = answer(W_V, W_O)
            expect_shape(circuit, (d_model, d_model))
            expect_close(
                y @ circuit.to(y.dtype),
                (y @ W_V) @ W_O,
                rtol=1e-4,
                atol=1e-4,
                note="For a row vector y, y @ circuit should be (y @ W_V) @ W_O",
            )

    def test_values(self, answer, reference, rng):
        "rows belong to what is read, columns to what is written"
        for d_model, d_head in ((7, 3), (4, 5), (1, 1)):
            inputs = normal(rng, d_model, d_head), normal(rng, d_head, d_model)
            expect_close(answer(*inputs), reference(*inputs))

    def test_basis(self, answer, rng):
        "a change of basis inside the head changes nothing"
        W_V, W_O = normal(rng, 6, 3), normal(rng, 3, 6)
        R = torch.linalg.qr(normal(rng, 3, 3)).Q * torch.tensor([0.5, 1.0, 2.0])
        circuit = answer(W_V, W_O)
        expect_shape(circuit, (6, 6))
        expect_close(
            answer(W_V @ R, R.inverse() @ W_O),
            circuit,
            rtol=1e-4,
            atol=1e-4,
            note="W_V @ R and R.inverse() @ W_O should make the same circuit as W_V and W_O",
        )

    def test_dtype_and_layout(self, answer, reference, rng):
        "float64 stays float64 and float32 float32, and the memory layout does not matter"
        inputs = normal(rng, 5, 3, dtype=torch.float64), normal(rng, 3, 5, dtype=torch.float64)
        expect_close(answer(*inputs), reference(*inputs), dtype=True, **FLOAT64)
        inputs = strided(normal(rng, 5, 3)), strided(normal(rng, 3, 5))
        expect_close(answer(*inputs), reference(*inputs), dtype=True)

    def test_gradients(self, answer, reference, rng):
        "gradients for both matrices"
        inputs = normal(rng, 5, 3, dtype=torch.float64), normal(rng, 3, 5, dtype=torch.float64)
        expect_same_gradients(answer, reference, *inputs, rng=rng)


class TestAttentionHead:
    exercise = "attention_head"

    def test_shape(self, answer, rng):
        "a vector of the residual stream for each position"
        for sizes in (*SIZES, ONES):
            out = answer(*arguments(head_inputs(rng, **sizes), HEAD))
            expect_shape(out, (sizes["batch"], sizes["pos"], sizes["d_model"]))

    def test_running_mean(self, answer, rng):
        "a head that asks nothing writes the mean of the values so far"
        inputs = head_inputs(rng, **SIZES[0])
        inputs |= {"W_Q": torch.zeros(7, 3), "b_Q": torch.zeros(3), "b_V": torch.zeros(3)}
        values = inputs["resid"] @ inputs["W_V"] @ inputs["W_O"]
        means = values.cumsum(dim=1) / torch.arange(1, 6)[:, None]
        expect_close(
            answer(*arguments(inputs, HEAD)),
            means,
            note="With W_Q, b_Q and b_V zero all scores "
            "are equal, and each position should write the mean of resid @ W_V @ W_O up to itself",
        )
        inputs |= {"b_Q": torch.ones(3), "W_K": torch.zeros(7, 3), "b_K": torch.full((3,), -1e10)}
        expect_close(
            answer(*arguments(inputs, HEAD)),
            means,
            note="All scores are equal here and far below zero, and each position should write the mean of "
            "resid @ W_V @ W_O up to itself",
        )

    def test_value_bias(self, answer, rng):
        "the value bias passes through every pattern unchanged"
        inputs = head_inputs(rng, **SIZES[1])
        inputs["W_V"] = torch.zeros_like(inputs["W_V"])
        wanted = (inputs["b_V"] @ inputs["W_O"]).expand(4, 6, 5)
        expect_close(
            answer(*arguments(inputs, HEAD)),
            wanted,
            note="With W_V zero every value is b_V, and as weights sum to one, every position should write b_V @ W_O",
        )

    def test_values(self, answer, reference, rng):
        "pattern, values and output weights together"
        for sizes in (*SIZES, ONES):
            inputs = arguments(head_inputs(rng, **sizes), HEAD)
            expect_close(answer(*inputs), reference(*inputs))

    def test_no_peeking(self, answer, rng):
        "what comes later changes no earlier output"
        inputs = head_inputs(rng, **SIZES[1])
        before = answer(*arguments(inputs, HEAD))
        expect_shape(before, (4, 6, 5))
        inputs["resid"] = torch.cat([inputs["resid"][:, :4], 1e10 * normal(rng, 4, 2, 5)], dim=1)
        after = answer(*arguments(inputs, HEAD))
        expect_close(
            after[:, :4],
            before[:, :4],
            note="The last two of six positions were replaced by very long vectors, and earlier outputs changed",
        )

    def test_dtype_and_layout(self, answer, reference, rng):
        "float64 stays float64 and float32 float32, and the memory layout does not matter"
        inputs = arguments(head_inputs(rng, **EXACT), HEAD)
        expect_close(answer(*inputs), reference(*inputs), dtype=True, **FLOAT64)
        inputs = [strided(tensor) for tensor in arguments(head_inputs(rng, **SIZES[0]), HEAD)]
        expect_close(answer(*inputs), reference(*inputs), dtype=True)

    def test_gradients(self, answer, reference, rng):
        "gradients for everything but the key bias, on which nothing depends"
        inputs = head_inputs(rng, **EXACT)

        def without_b_K(function):
            return lambda *args: function(*args[:-1], inputs["b_K"], args[-1])

        expect_same_gradients(
            without_b_K(answer),
            without_b_K(reference),
            *arguments(inputs, HEAD.replace("b_K ", "")),
            rng=rng,
            **FLOAT64,
        )


class TestMultiHeadAttention:
    exercise = "multi_head_attention"

    sizes = (
        {**SIZES[0], "n_heads": 4},
        {**SIZES[1], "n_heads": 3},
        {**SIZES[0], "n_heads": 5},
        {**SIZES[1], "n_heads": 1},
        {**ONES, "n_heads": 1},
    )

    def test_shape(self, answer, rng):
        "a vector of the residual stream for each position, for any number of heads"
        for sizes in self.sizes[:3]:
            out = answer(*arguments(layer_inputs(rng, **sizes), LAYER))
            expect_shape(out, (sizes["batch"], sizes["pos"], sizes["d_model"]))

    def test_output_bias(self, answer, rng):
        "with zero output weights, the output bias alone is left, once"
        inputs = layer_inputs(rng, **self.sizes[0])
        inputs["W_O"] = torch.zeros_like(inputs["W_O"])
        expect_close(
            answer(*arguments(inputs, LAYER)),
            inputs["b_O"].expand(2, 5, 7),
            note="With W_O zero, every position should write b_O",
        )

    def test_values(self, answer, reference, rng):
        "the heads' outputs and the output bias"
        for sizes in self.sizes:
            inputs = arguments(layer_inputs(rng, **sizes), LAYER)
            expect_close(answer(*inputs), reference(*inputs))

    def test_equal_scores(self, answer, rng):
        "heads whose scores are all equal, and far below zero, write the mean of the values so far"
        inputs = layer_inputs(rng, **self.sizes[0])
        inputs |= {name: torch.zeros_like(inputs[name]) for name in ("W_Q", "W_K", "b_V")}
        inputs |= {"b_Q": torch.ones(4, 3), "b_K": torch.full((4, 3), -1e10)}
        values = sum(inputs["resid"] @ W_V @ W_O for W_V, W_O in zip(inputs["W_V"], inputs["W_O"], strict=True))
        expect_close(
            answer(*arguments(inputs, LAYER)),
            values.cumsum(dim=1) / torch.arange(1, 6)[:, None] + inputs["b_O"],
            note="Where all scores are equal, each head should write the mean of resid @ W_V @ W_O up to each position",
            rtol=1e-4,
            atol=1e-4,
        )

    def test_sum_of_heads(self, answer, rng):
        "a layer is the sum of the layers that each have one of its heads"
        inputs = layer_inputs(rng, **self.sizes[1])
        whole = answer(*arguments(inputs, LAYER))
        shared = {"resid": inputs["resid"], "b_O": torch.zeros(5)}
        total = inputs["b_O"]
        for head in range(3):
            alone = {name: value[head : head + 1] for name, value in inputs.items()} | shared
            part = answer(*arguments(alone, LAYER))
            expect_shape(part, (4, 6, 5))
            total = total + part
        expect_close(
            whole,
            total,
            note="Called with one head at a time and no b_O, your function gives "
            "parts that do not add up, with b_O once, to what it gives with three heads",
        )

    def test_no_peeking(self, answer, rng):
        "what comes later changes no earlier output"
        inputs = layer_inputs(rng, **self.sizes[1])
        before = answer(*arguments(inputs, LAYER))
        expect_shape(before, (4, 6, 5))
        inputs["resid"] = torch.cat([inputs["resid"][:, :4], 1e10 * normal(rng, 4, 2, 5)], dim=1)
        after = answer(*arguments(inputs, LAYER))
        expect_close(
            after[:, :4],
            before[:, :4],
            note="The last two of six positions were replaced by very long vectors, and earlier outputs changed",
        )

    def test_dtype_and_layout(self, answer, reference, rng):
        "float64 stays float64 and float32 float32, and the memory layout does not matter"
        inputs = arguments(layer_inputs(rng, **EXACT, n_heads=3), LAYER)
        expect_close(answer(*inputs), reference(*inputs), dtype=True, **FLOAT64)
        inputs = [strided(tensor) for tensor in arguments(layer_inputs(rng, **self.sizes[0]), LAYER)]
        expect_close(answer(*inputs), reference(*inputs), dtype=True)

    def test_gradients(self, answer, reference, rng):
        "gradients for everything but the key biases, on which nothing depends"
        inputs = layer_inputs(rng, **EXACT, n_heads=3)

        def without_b_K(function):
            return lambda *args: function(*args[:-2], inputs["b_K"], *args[-2:])

        expect_same_gradients(
            without_b_K(answer),
            without_b_K(reference),
            *arguments(inputs, LAYER.replace("b_K ", "")),
            rng=rng,
            **FLOAT64,
        )
