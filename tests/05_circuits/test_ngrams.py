"""Checks for the n-gram model."""

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape


class TestNgramLogProbs:
    exercise = "ngram_log_probs"

    def texts(self, rng, d_vocab=4, rows=6, pos=9, batch=3, length=7):
        """Few words, so that histories come again; the last word of the vocabulary is never in the training rows."""
        train = torch.randint(d_vocab - 1, (rows, pos), generator=rng)
        return train, torch.randint(d_vocab, (batch, length), generator=rng)

    def test_values(self, answer, reference, rng):
        "orders 1 to 4, for words and histories that were seen and that were not"
        for order in (1, 2, 3, 4):
            train, tokens = self.texts(rng, d_vocab=3 + order)
            expect_close(answer(train, tokens, order, 3 + order), reference(train, tokens, order, 3 + order), atol=1e-9)

    def test_a_table_by_hand(self, answer):
        "two short rows, counted on paper"
        train = torch.tensor([[0, 1, 1], [0, 1, 2]])
        # Order 1: 0 twice, 1 three times, 2 once, of 6; order 2: 1 followed by 1 and by 2, and twice by nothing.
        one = [(2 + 1 / 3) / 7, (3 + 1 / 3) / 7, (1 + 1 / 3) / 7]
        two = [one[0], (2 + one[1]) / 3, (1 + one[2]) / 3]
        found = answer(train, torch.tensor([[0, 1, 2]]), 2, 3)
        expect_close(found, torch.tensor([two], dtype=torch.float64).log(), atol=1e-9)

    def test_distribution(self, answer, rng):
        "over all words that could come, the probabilities sum to one"
        train, tokens = self.texts(rng, d_vocab=5)
        for order in (1, 3):
            versions = torch.cat([tokens[:1, :4].repeat(5, 1), torch.arange(5)[:, None]], dim=1)
            found = answer(train, versions, order, 5)
            expect_shape(found, (5, 5))
            expect_close(found[:, 4].exp().sum(), torch.tensor(1.0, dtype=torch.float64), atol=1e-6)

    def test_strength(self, answer, reference, rng):
        "how much the lower order weighs"
        train, tokens = self.texts(rng)
        for strength in (0.2, 7.5):
            expect_close(
                answer(train, tokens, 3, 4, strength=strength), reference(train, tokens, 3, 4, strength=strength),
                atol=1e-9,
            )  # fmt: skip

    def test_orders_longer_than_rows(self, answer, reference, rng):
        "an order that no row is long enough for, and rows of one word"
        train, tokens = self.texts(rng, pos=3, length=4)
        expect_close(answer(train, tokens, 6, 4), reference(train, tokens, 6, 4), atol=1e-9)
        expect_close(answer(train[:, :1], tokens[:, :1], 2, 4), reference(train[:, :1], tokens[:, :1], 2, 4), atol=1e-9)

    def test_dtype(self, answer, rng):
        "float64"
        found = answer(*self.texts(rng), 2, 4)
        expect(found.dtype == torch.float64, "The result is not float64.", actual=str(found.dtype))

    def test_bad_input(self, answer, rng):
        "order 0, and a strength of 0 or below, are refused"
        train, tokens = self.texts(rng)
        expect_raises(ValueError, answer, train, tokens, 0, 4)
        for strength in (0.0, -1.0):
            expect_raises(ValueError, answer, train, tokens, 2, 4, strength=strength)
