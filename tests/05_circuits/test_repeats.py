"""Checks for repeated random tokens, for the loss by position, and for what is gained along a text."""

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape

CANDIDATES = torch.tensor([3, 9, 4, 17, 8, 21, 11, 30])


class TestRepeatedRandomTokens:
    exercise = "repeated_random_tokens"

    def drawn(self, answer, n, period, candidates, first, rng):
        tokens = answer(n, period, candidates, first, rng)
        if getattr(tokens, "shape", ()) == (n, 2 * period + 2):
            again = bool((tokens[:, [0, period + 1]] == first).all())
            expect(
                not again, "`first` stands twice in each row.", actual="first twice", returned=str(tokens[0].tolist())
            )
        expect_shape(tokens, (n, 2 * period + 1), note="The rows do not have 2 * period + 1 tokens each.")
        expect(not tokens.is_floating_point(), "Token ids are integers.", actual=str(tokens.dtype))
        return tokens

    def test_form(self, answer, rng):
        "the fixed token once, at the beginning; then the same tokens twice"
        for n, period, first in ((5, 3, 0), (1, 1, 2), (4, 8, 40)):
            tokens = self.drawn(answer, n, period, CANDIDATES, first, rng)
            expect((tokens[:, 0] == first).all(), "A row does not begin with `first`.", actual=tokens)
            expect_close(tokens[:, period + 1 :], tokens[:, 1 : period + 1], note="The second time differs")
            strangers = set(tokens[:, 1:].flatten().tolist()) - set(CANDIDATES.tolist())
            expect(not strangers, "There are tokens that are no candidates.", actual=sorted(strangers))

    def test_all_different(self, answer, rng):
        "within a period no token comes twice"
        tokens = self.drawn(answer, 200, 6, CANDIDATES, 0, rng)
        twice = [row for row in tokens[:, 1:7].tolist() if len(set(row)) < 6]
        expect(not twice, "A token comes twice within one period.", actual=len(twice), returned=str(twice[:1]))

    def test_first_is_not_drawn(self, answer, rng):
        "`first` is drawn nowhere, though it is among the candidates"
        tokens = self.drawn(answer, 100, 5, CANDIDATES, 17, rng)
        expect(not (tokens[:, 1:] == 17).any(), "`first` is drawn as well.", actual="first")

    def test_equally_likely(self, answer, rng):
        "at each place each candidate equally often, and in each pair of places each pair"
        n, pool = 4000, torch.tensor([5, 1, 7, 2])
        tokens = self.drawn(answer, n, 4, pool, 0, rng)[:, 1:5]
        for place in range(4):
            shares = [(tokens[:, place] == word).double().mean().item() for word in pool]
            expect(
                all(abs(share - 0.25) < 6 * (0.25 * 0.75 / n) ** 0.5 for share in shares),
                "At some place some candidates are more frequent than others.",
                actual="frequencies",
                returned=f"{[round(share, 2) for share in shares]} at place {place + 1}",
                expected="about 0.25 each",
            )
        pairs = {(a, b): 0 for a in pool.tolist() for b in pool.tolist() if a != b}
        for a, b in tokens[:, :2].tolist():
            if (a, b) in pairs:
                pairs[a, b] += 1
        expect(
            all(abs(count / n - 1 / 12) < 6 * (11 / 144 / n) ** 0.5 for count in pairs.values()),
            "Which token comes second depends on the first.",
            actual="pairs",
            returned=f"counts from {min(pairs.values())} to {max(pairs.values())} of {n}",
            expected=f"about {n / 12:.0f} each",
        )

    def test_more_candidates_than_places(self, answer, rng):
        "of more candidates than a period has places, each row draws its own, in an order of its own"
        n, period, pool = 2000, 15, torch.randperm(60, generator=rng) + 100
        half = self.drawn(answer, n, period, pool, 7, rng)[:, 1 : period + 1]
        drawn, listed = {frozenset(row) for row in half.tolist()}, pool.tolist()
        ends = {frozenset(listed[:period]): "the first candidates", frozenset(listed[-period:]): "the last candidates"}
        expect(
            len(drawn) == n,
            f"In {n} rows {period} of {len(pool)} candidates are drawn, and rows have the same ones.",
            actual=("rows", len(set(map(tuple, half.tolist()))) == 1, len(drawn) == 1 and ends.get(*drawn, "some")),
            returned=f"{len(drawn)} different selections of candidates",
            expected=f"{n}",
        )
        places = torch.tensor([[listed.index(word) for word in row] for row in half.tolist()])
        for of, values in (("the list of candidates", places), ("their size", half)):
            expect(
                (values.diff() < 0).any(), f"Within a row all tokens stand in the order of {of}.",
                actual=("order", of), returned=str(half[0].tolist()),
            )  # fmt: skip
        shares = [(half == word).double().sum(1).mean().item() for word in pool]
        expect(
            all(abs(share - 0.25) < 6 * (0.25 * 0.75 / n) ** 0.5 for share in shares),
            "Some candidates are drawn more often than others.",
            actual="candidates",
            returned=f"in {min(shares):.2f} to {max(shares):.2f} of the rows",
            expected="in about 0.25 of the rows, each",
        )

    def test_generator(self, answer):
        "the same draw from a generator in the same state, another one from the next state"
        one, other = (torch.Generator().manual_seed(5) for _ in range(2))
        first = answer(30, 4, CANDIDATES, 0, one)
        same = answer(30, 4, CANDIDATES, 0, other)
        expect_shape(same, first.shape)
        expect(
            (same == first).all(), "From a generator in the same state other tokens are drawn.", actual="not the same",
            returned=str(same[0].tolist()), expected=str(first[0].tolist()),
        )  # fmt: skip
        expect((answer(30, 4, CANDIDATES, 0, one) != first).any(), "The generator is not used.", actual="generator")

    def test_bad_input(self, answer, rng):
        "a period of 0, or longer than there are candidates beside `first`, is refused"
        for period, first in ((0, 0), (9, 0), (8, 17)):
            expect_raises(ValueError, answer, 3, period, CANDIDATES, first, rng)


class TestLossByPosition:
    exercise = "loss_by_position"

    def test_values(self, answer, reference, rng):
        "each token's own loss at its own position"
        for batch, pos, d_vocab in ((4, 7, 11), (1, 2, 3)):
            logits = torch.randn(batch, pos, d_vocab, generator=rng)
            tokens = torch.randint(d_vocab, (batch, pos), generator=rng)
            expect_close(answer(logits, tokens), reference(logits, tokens))

    def test_uniform(self, answer, rng):
        "equal logits: log(d_vocab) everywhere, in nats"
        losses = answer(torch.full((2, 5, 6), 3.0), torch.randint(6, (2, 5), generator=rng))
        expect_shape(losses, (2, 5))
        expect_close(losses[:, 1:], torch.full((2, 4), 6.0).log())

    def test_the_first_token(self, answer, rng):
        "NaN for the first token, which nobody predicts, and a number for all others"
        losses = answer(torch.randn(3, 5, 4, generator=rng), torch.randint(4, (3, 5), generator=rng))
        expect_shape(losses, (3, 5))
        expect(losses[:, 0].isnan().all(), "Position 0 has a number.", actual=losses[:, 0])
        expect(not losses[:, 1:].isnan().any(), "A position behind the first is NaN.", actual="NaN behind the first")

    def test_far_apart(self, answer, reference, rng):
        "logits so far apart that a probability is 0 in floating point"
        logits = 300 * torch.randn(2, 6, 5, generator=rng)
        tokens = torch.randint(5, (2, 6), generator=rng)
        expect_close(answer(logits, tokens), reference(logits, tokens), rtol=1e-5, atol=1e-3)

    def test_dtype(self, answer, rng):
        "double precision stays double"
        losses = answer(torch.randn(2, 3, 4, generator=rng).double(), torch.randint(4, (2, 3), generator=rng))
        expect(losses.dtype == torch.float64, "The dtype is not that of the logits.", actual=str(losses.dtype))

    def test_bad_input(self, answer, rng):
        "logits for other texts are refused"
        logits = torch.randn(2, 4, 5, generator=rng)
        for shape in ((2, 3), (3, 4), (2, 5)):
            expect_raises(ValueError, answer, logits, torch.zeros(shape, dtype=torch.long))


class TestInContextLearningScore:
    exercise = "in_context_learning_score"

    def losses(self, rng, batch=4, pos=12):
        values = 1 + torch.rand(batch, pos, generator=rng)
        values[:, 0] = torch.nan
        return values

    def test_values(self, answer, reference, rng):
        "the mean loss late less the mean loss early, for each row"
        for batch, early, late in ((4, (1, 3), (7, 12)), (1, (2, 6), (4, 9)), (3, (5, 6), (1, 2))):
            losses = self.losses(rng, batch)
            expect_close(answer(losses, early, late), reference(losses, early, late))

    def test_sign(self, answer):
        "negative where the loss falls"
        losses = torch.tensor([[torch.nan, 5.0, 5.0, 2.0, 2.0]])
        expect_close(answer(losses, (1, 3), (3, 5)), torch.tensor([-3.0]))

    def test_one_position_each(self, answer, rng):
        "windows of one position: the 50th and the 500th token of the paper"
        losses = self.losses(rng)
        expect_close(answer(losses, (2, 3), (9, 10)), losses[:, 9] - losses[:, 2])

    def test_bad_windows(self, answer, rng):
        "windows that are empty, reach over the end, or hold the position without a loss are refused"
        losses = self.losses(rng)
        for bad in ((0, 3), (4, 4), (5, 3), (8, 13), (-3, -1)):
            expect_raises(ValueError, answer, losses, bad, (5, 9))
            expect_raises(ValueError, answer, losses, (1, 2), bad)
