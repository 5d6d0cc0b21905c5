"""Checks of choosing tokens: greedy, with a temperature, from a filtered distribution, and in a loop."""

import torch
from torch import Tensor

from utils.course.checking import (
    Mismatch,
    expect,
    expect_close,
    expect_raises,
    expect_shape,
)
from utils.course.values import describe

# Chi-square statistics that a right sampler exceeds with probability 1e-5, by degrees of freedom. Six tests
# are made in a run, so the false-alarm rate is 6e-5.
CHI_SQUARE_LIMIT = {4: 28.47, 6: 33.11}
N_DRAWS = 3000


def expect_tokens(tokens, batch, d_vocab):
    """Expect one valid token id for each row."""
    expect_shape(tokens, (batch,), "There should be one token for each row of logits, without a further dimension.")
    if tokens.is_floating_point():
        raise Mismatch(
            "Token ids are whole numbers.",
            actual=str(tokens.dtype),
            returned=str(tokens.dtype),
            expected="torch.int64",
        )
    expect(
        bool(((tokens >= 0) & (tokens < d_vocab)).all()),
        f"Token ids lie between 0 and {d_vocab - 1}.",
        actual=tokens,
    )


def expect_frequencies(tokens: Tensor, probabilities: Tensor, note: str) -> None:
    """Expect a sample of tokens to fit a distribution, by a chi-square test."""
    counts = tokens.long().bincount(minlength=len(probabilities)).double()
    wanted = probabilities.double() * len(tokens)
    statistic = float(((counts - wanted) ** 2 / wanted).sum())
    expect(
        statistic < CHI_SQUARE_LIMIT[len(probabilities) - 1],
        note,
        actual=counts / len(tokens),
        returned=f"frequencies {describe((counts / len(tokens)).float())}",
        expected=f"about {describe(probabilities.float())}",
    )


class TestGreedy:
    exercise = "greedy"

    def test_values(self, answer, reference, rng):
        "the most probable token of each row"
        for batch, d_vocab in ((3, 7), (5, 4)):
            logits = torch.randn(batch, d_vocab, generator=rng)
            expect_close(answer(logits), reference(logits))

    def test_shape(self, answer, rng):
        "one whole number for each row"
        for batch, d_vocab in ((2, 9), (4, 1), (1, 6)):
            expect_tokens(answer(torch.randn(batch, d_vocab, generator=rng)), batch, d_vocab)

    def test_negative_logits(self, answer, reference, rng):
        "only the order counts: all negative, in the thousands, or nearly all -inf"
        logits = torch.randn(4, 9, generator=rng) - 50
        expect_close(answer(logits), reference(logits))
        large = 1000.0 * torch.stack([torch.randperm(9, generator=rng) for _ in range(4)])
        expect_close(answer(large), reference(large))
        lone = torch.full((3, 8), -torch.inf).index_put(
            (torch.arange(3), torch.tensor([5, 0, 7])), torch.tensor([-3.0, -200.0, 4.0])
        )
        expect_close(
            answer(lone),
            torch.tensor([5, 0, 7]),
            note="One token is possible in each row, and the others are not.",
        )

    def test_double_and_strided(self, answer, reference, rng):
        "float64 differences below float32's count, in any memory layout"
        logits = 100 + 1e-9 * torch.randn(7, 3, generator=rng, dtype=torch.float64).t()
        expect_close(answer(logits), reference(logits))


class TestSampleTemperature:
    exercise = "sample_temperature"

    def test_shape(self, answer, rng):
        "one token for each row"
        for batch, d_vocab in ((3, 8), (1, 5), (4, 1)):
            expect_tokens(answer(torch.randn(batch, d_vocab, generator=rng), 0.9, rng), batch, d_vocab)

    def test_frequencies(self, answer, rng):
        "many draws have the frequencies of softmax(logits / temperature), each row its own"
        for d_vocab, temperature, spread in ((5, 1.0, 0.8), (7, 0.04, 0.06), (5, 2.5, 0.8)):
            levels = torch.linspace(-spread, spread, d_vocab)
            rows = torch.stack([levels[torch.randperm(d_vocab, generator=rng)] for _ in range(2)])
            sample = answer(rows.repeat(N_DRAWS, 1), temperature, rng)
            expect_tokens(sample, 2 * N_DRAWS, d_vocab)
            for i in range(2):
                expect_frequencies(
                    sample[i::2],
                    (rows[i] / temperature).softmax(-1),
                    f"{N_DRAWS} draws at temperature {temperature} do not look like softmax(logits / temperature).",
                )

    def test_cold(self, answer, rng):
        "a low temperature with large logits is greedy, and does not overflow"
        logits = torch.stack([100.0 * torch.randperm(6, generator=rng) for _ in range(40)])
        for dtype in (torch.float32, torch.float64):
            expect_close(
                answer(logits.to(dtype), 0.05, rng),
                logits.argmax(-1),
                note="At temperature 0.05, gaps of 100 leave no choice.",
            )

    def test_very_cold(self, answer, rng):
        "a temperature so low that logits / temperature is beyond float32 is greedy, too"
        logits = torch.stack([100.0 * (1 + torch.randperm(6, generator=rng)) for _ in range(40)])
        expect_close(
            answer(logits, 1e-37, rng), logits.argmax(-1), note="At temperature 1e-37, gaps of 100 leave no choice."
        )

    def test_impossible_tokens(self, answer, rng):
        "a logit of -inf is never drawn"
        possible = torch.tensor([1, 2, 4])
        logits = torch.full((300, 500), -torch.inf)
        logits[:, possible] = 0.0
        sample = answer(logits, 3.0, rng)
        expect_tokens(sample, 300, 500)
        expect(
            torch.isin(sample, possible).all(),
            "A token with a logit of -inf was drawn.",
            actual=sample,
        )

    def test_generator(self, answer):
        "equal generators give equal draws; a generator that goes on gives new ones"
        logits = torch.zeros(64, 50)
        same = [torch.Generator().manual_seed(5) for _ in range(2)]
        first, again = (answer(logits, 1.0, generator) for generator in same)
        expect_shape(first, (64,))
        expect(
            bool((first != first[0]).any()),
            "In 64 rows, where 50 tokens are equally likely, the same one came up: each row needs a draw of its own.",
            actual=first,
            returned="one token in all rows",
            expected="different tokens",
        )
        expect(
            bool((first == again).all()),
            "Two calls with equally seeded generators drew differently: some of the randomness comes from elsewhere.",
            actual="differs",
            returned="different tokens",
            expected="the same tokens",
        )
        later = answer(logits, 1.0, same[0])
        expect(
            not bool((first == later).all()),
            "A second call with the same generator drew the same 64 tokens of 50 again: "
            "every call starts from the same state.",
            actual="repeats",
            returned="the same tokens",
            expected="new tokens",
        )

    def test_bad_temperature(self, answer, rng):
        "a temperature of 0 or below is refused"
        for temperature in (-1.0, 0.0, -1e-9):
            expect_raises(ValueError, answer, torch.randn(2, 5, generator=rng), temperature, rng)


def distinct_rows(rng, batch, d_vocab, dtype=torch.float32):
    """Logits without ties, each row on a level of its own."""
    rows = torch.stack([torch.randperm(d_vocab, generator=rng) for _ in range(batch)]).to(dtype)
    noise = torch.rand(batch, d_vocab, generator=rng, dtype=dtype)
    return rows * 0.7 + 0.3 * noise - 2 + 5 * torch.randn(batch, 1, generator=rng, dtype=dtype)


def expect_new(filtered, logits):
    """Expect a tensor with a memory of its own."""
    expect(
        filtered.data_ptr() != logits.data_ptr(),
        "What comes back is the tensor that went in: whoever changes the one changes the other.",
        actual="the argument",
        returned="the tensor that was passed",
        expected="a new tensor",
    )


class TestTopKFilter:
    exercise = "top_k_filter"

    def test_values(self, answer, reference, rng):
        "the k highest logits of each row stay, the rest is -inf"
        for batch, d_vocab, k in ((3, 8, 3), (2, 11, 6), (4, 5, 4)):
            logits = distinct_rows(rng, batch, d_vocab)
            expect_close(answer(logits, k), reference(logits, k))

    def test_one(self, answer, rng):
        "k = 1 keeps the highest logit with its value, and what equals it"
        logits = distinct_rows(rng, 4, 6)
        best = logits.argmax(-1, keepdim=True)
        expected = torch.full_like(logits, -torch.inf).scatter(-1, best, logits.gather(-1, best))
        expect_close(answer(logits, 1), expected)
        twice, whole = torch.cat([logits, logits], dim=-1), torch.cat([expected, expected], dim=-1)
        expect_close(answer(twice, 1), whole, note="Each row holds its highest logit twice, and both stay with k = 1")

    def test_large_k(self, answer, rng):
        "a k of the vocabulary's size, or beyond it, keeps everything, in a new tensor"
        logits = distinct_rows(rng, 2, 5)
        for k in (5, 6, 50):
            filtered = answer(logits, k)
            expect_close(filtered, logits)
            expect_new(filtered, logits)

    def test_ties(self, answer):
        "logits equal to the k-th stay too"
        logits = torch.tensor([[1.0, 3.0, 2.0, 2.0, 2.0, 0.0], [5.0, 4.0, 4.0, 5.0, 1.0, 4.0]])
        kept = torch.tensor([[False, True, True, True, True, False], [True, True, True, True, False, True]])
        expect_close(
            answer(logits, 3),
            logits.masked_fill(~kept, -torch.inf),
            note="Nothing tells equal logits apart, so all that equal the k-th highest are kept.",
        )

    def test_double_and_strided(self, answer, reference, rng):
        "float64 stays float64, in any memory layout"
        logits = distinct_rows(rng, 9, 4, torch.float64).t()
        expect_close(answer(logits, 5), reference(logits, 5), dtype=True)

    def test_bad_k(self, answer, rng):
        "k below 1 is refused"
        for k in (0, -2):
            expect_raises(ValueError, answer, distinct_rows(rng, 2, 5), k)

    def test_far_apart(self, answer, reference, rng):
        "hundreds apart, where probabilities round to 0, the order is still there"
        logits = 300.0 * torch.stack([torch.randperm(9, generator=rng) for _ in range(6)]) - 1000.0
        expect_close(answer(logits, 4), reference(logits, 4))

    def test_near_ties(self, answer, rng):
        "a logit that is below the k-th by the least that its dtype holds is removed"
        for dtype in (torch.float32, torch.float64):
            steps = [1 + torch.rand(3, 1, generator=rng, dtype=dtype)]
            for _ in range(5):
                steps.append(torch.nextafter(steps[-1], torch.zeros_like(steps[-1])))
            order = torch.randperm(6, generator=rng)
            logits = torch.cat(steps, dim=-1)[:, order]
            for k in (1, 2):
                expect_close(
                    answer(logits, k),
                    logits.masked_fill(order >= k, -torch.inf),
                    note="The six logits of each row differ by one unit of the last digit: no two are equal",
                    rtol=0,
                    atol=0,
                )


def clear_of(rng, p, batch, d_vocab, scale=1.5):
    """Random logits none of whose cumulated probabilities comes near p, so that rounding decides nothing."""
    while True:
        logits = scale * torch.randn(batch, d_vocab, generator=rng) + torch.randn(batch, 1, generator=rng)
        reached = logits.softmax(-1).sort(-1, descending=True).values.cumsum(-1)
        if (reached - p).abs().min() > 1e-3:
            return logits


def expect_smallest_set(filtered: Tensor, logits: Tensor, n_kept: int, note: str) -> None:
    """Expect the ``n_kept`` highest logits of each row, unchanged, and -inf elsewhere; any of several equal ones."""
    expect_shape(filtered, tuple(logits.shape))
    kept = filtered > -torch.inf
    counts = kept.sum(-1)
    expect(
        bool((counts == n_kept).all()),
        f"{note}.",
        actual=counts,
        returned=f"tokens kept in each row: {counts.tolist()}",
        expected=f"{n_kept} in each row",
    )
    expect_close(filtered, logits.masked_fill(~kept, -torch.inf), note="Some of what is kept has changed its value")
    expect_close(
        filtered.sort(descending=True).values[:, :n_kept],
        logits.sort(descending=True).values[:, :n_kept],
        note="The tokens that are kept are not the most probable ones",
    )


class TestTopPFilter:
    exercise = "top_p_filter"

    def test_values(self, answer, reference, rng):
        "the smallest set whose probability reaches p stays, the rest is -inf"
        for batch, d_vocab, p in ((3, 8, 0.6), (2, 12, 0.87), (5, 4, 0.35)):
            logits = clear_of(rng, p, batch, d_vocab)
            expect_close(answer(logits, p), reference(logits, p))

    def test_known_probabilities(self, answer):
        "0.5 + 0.3 does not reach 0.9, 0.5 + 0.3 + 0.15 does, on whatever level the logits are"
        probabilities = torch.tensor([[0.05, 0.3, 0.15, 0.5], [0.4, 0.25, 0.05, 0.3]])
        logits = probabilities.log() + torch.tensor([[200.0], [-300.0]])
        kept = torch.tensor([[False, True, True, True], [True, True, False, True]])
        expect_close(answer(logits, 0.9), logits.masked_fill(~kept, -torch.inf))

    def test_reached_exactly(self, answer, rng):
        "a sum that is p exactly has reached it"
        for n, p in ((8, 0.125), (4, 0.75), (2, 0.5)):  # equal logits: softmax and sums are exact powers of two
            possible = torch.randperm(12, generator=rng)[:n]
            logits = torch.full((3, 12), -300.0)
            logits[:, possible] = 0.0
            expect_smallest_set(
                answer(logits, p),
                logits,
                int(n * p),
                f"{n} tokens have probability 1/{n} each, and {int(n * p)} of them reach p = {p} exactly",
            )

    def test_ties(self, answer, rng):
        "of equally probable tokens at the edge, only as many as it takes"
        for n_best, n_tied, p in ((1, 5, 0.65), (2, 3, 0.75), (0, 7, 0.5)):
            places = torch.randperm(n_best + n_tied, generator=rng)
            levels = torch.tensor(
                [n_tied / max(n_best, 1)] * n_best + [1.0] * n_tied
            )  # one half each, if both are there
            logits = levels.log()[places] + torch.tensor([[0.0], [40.0]])
            shares = (levels / levels.sum()).sort(descending=True).values
            n_kept = int((shares.cumsum(-1) < p).sum()) + 1
            expect_smallest_set(
                answer(logits, p),
                logits,
                n_kept,
                f"The probabilities are {[round(share, 3) for share in shares.tolist()]}, so {n_kept} tokens reach "
                f"p = {p}, and fewer do not",
            )

    def test_at_least_one(self, answer, rng):
        "a token that exceeds p alone is kept alone"
        logits = clear_of(rng, 0.02, 4, 9)
        best = logits.argmax(-1, keepdim=True)
        expected = torch.full_like(logits, -torch.inf).scatter(-1, best, logits.gather(-1, best))
        expect_close(
            answer(logits, 0.02),
            expected,
            note="Some token has to be left: the most probable one always stays.",
        )

    def test_everything(self, answer, rng):
        "p = 1 keeps everything, in a new tensor; what was -inf stays -inf"
        unlikely = 200 * torch.eye(5)[torch.randperm(5, generator=rng)[:3]]
        expect_close(
            answer(unlikely, 1.0),
            unlikely,
            note="Four tokens of each row are so unlikely that their probability rounds to 0; p = 1 keeps them too.",
        )
        logits = clear_of(rng, 0.7, 3, 6)
        filtered = answer(logits, 1.0)
        expect_close(filtered, logits)
        expect_new(filtered, logits)
        logits[:, 2:4] = -torch.inf
        expect_close(answer(logits, 1.0).softmax(-1), logits.softmax(-1))

    def test_double_and_strided(self, answer, reference, rng):
        "float64 stays float64, in any memory layout"
        logits = clear_of(rng, 0.75, 4, 9).double().t().contiguous().t()
        expect_close(answer(logits, 0.75), reference(logits, 0.75), dtype=True)

    def test_bad_p(self, answer, rng):
        "p outside (0, 1] is refused"
        for p in (0.0, -0.3, 1.2):
            expect_raises(ValueError, answer, clear_of(rng, 0.5, 2, 5), p)


class RecitingModel:
    """A stand-in for a language model: its logits depend on all tokens it is shown and on their places."""

    def __init__(self, rng, d_vocab):
        self.table = torch.randn(101, d_vocab, generator=rng)
        self.seen = []

    def __call__(self, tokens):
        self.seen.append(tokens.shape[1])
        state = (tokens * torch.arange(1, tokens.shape[1] + 1).pow(2)).cumsum(1)
        return self.table[state % 101]


def best(logits):
    return logits.argmax(-1)


def second_best(logits):
    return logits.topk(2, dim=-1).indices[:, 1]


class TestGenerate:
    exercise = "generate"

    def test_values(self, answer, reference, rng):
        "prompt and continuation, each new token from all tokens before it"
        for batch, pos, n_new, d_vocab in ((3, 4, 6, 11), (2, 5, 3, 7)):
            model = RecitingModel(rng, d_vocab)
            tokens = torch.randint(d_vocab, (batch, pos), generator=rng)
            expect_close(answer(model, tokens, n_new, best), reference(model, tokens, n_new, best))

    def test_choose(self, answer, reference, rng):
        "the choice is made by `choose`, from the logits of the last position"
        model, tokens = RecitingModel(rng, 9), torch.randint(9, (4, 3), generator=rng)
        expect_close(answer(model, tokens, 5, second_best), reference(model, tokens, 5, second_best))
        given = []
        answer(
            model,
            tokens,
            2,
            lambda logits: given.append(logits.clone()) or torch.zeros(len(logits), dtype=torch.int64),
        )
        expect_close(
            [tuple(logits.shape) for logits in given],
            [(4, 9), (4, 9)],
            note="`choose` is called once for each new token, with logits [batch, d_vocab].",
        )
        longer = torch.cat([tokens, torch.zeros(4, 1, dtype=torch.int64)], dim=1)
        expect_close(
            torch.stack(given),
            torch.stack([model(tokens)[:, -1], model(longer)[:, -1]]),
            note="`choose` should be given the model's logits as they are.",
        )

    def test_context_window(self, answer, reference, rng):
        "with n_ctx the model sees the most recent n_ctx tokens and no more"
        model, tokens = RecitingModel(rng, 8), torch.randint(8, (2, 5), generator=rng)
        for n_ctx in (3, 6):
            expect_close(
                answer(model, tokens, 4, best, n_ctx),
                reference(model, tokens, 4, best, n_ctx),
                note=f"With n_ctx={n_ctx} the continuation differs.",
            )

    def test_small(self, answer, reference, rng):
        "a prompt of one token; no new tokens"
        model, tokens = RecitingModel(rng, 6), torch.randint(6, (1, 1), generator=rng)
        expect_close(answer(model, tokens, 3, best), reference(model, tokens, 3, best), dtype=True)
        expect_close(answer(model, tokens, 0, best), tokens, note="Without new tokens, the prompt comes back.")

    def test_bad_input(self, answer, rng):
        "an empty prompt, a negative number of tokens and a window without any are refused"
        model = RecitingModel(rng, 6)
        expect_raises(ValueError, answer, model, torch.zeros(2, 3, dtype=torch.int64), -1, best)
        expect_raises(ValueError, answer, model, torch.zeros(2, 0, dtype=torch.int64), 0, best)
        for n_ctx in (0, -1):
            expect_raises(ValueError, answer, model, torch.zeros(2, 3, dtype=torch.int64), 2, best, n_ctx)
