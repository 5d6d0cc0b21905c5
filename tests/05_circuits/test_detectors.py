"""Checks for the three head detectors."""

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape


def random_patterns(rng, batch, heads, pos):
    """Attention probabilities over the past."""
    scores = torch.randn(batch, heads, pos, pos, generator=rng)
    return scores.masked_fill(torch.ones(pos, pos, dtype=torch.bool).triu(1), -torch.inf).softmax(-1)


def pattern_of(keys):
    """One head that gives everything to one key: that of the list, for each query."""
    pattern = torch.zeros(1, 1, len(keys), len(keys))
    pattern[0, 0, torch.arange(len(keys)), torch.tensor(keys)] = 1.0
    return pattern


SIZES = ((3, 2, 9), (1, 4, 5), (2, 1, 3))


class TestPreviousTokenScore:
    exercise = "previous_token_score"

    def test_values(self, answer, reference, rng):
        "random patterns of several sizes"
        for sizes in SIZES:
            patterns = random_patterns(rng, *sizes)
            expect_close(answer(patterns), reference(patterns))

    def test_known_heads(self, answer):
        "1 for a head that looks at the token before, 0 for one that looks at itself or at the beginning"
        for keys, score in (([0, 0, 1, 2, 3], 1.0), ([0, 1, 2, 3, 4], 0.0), ([0, 0, 0, 0, 0], 0.0)):
            expect_close(answer(pattern_of(keys)), torch.tensor([[score]]))

    def test_the_second_token_has_little_choice(self, answer):
        "what happens at position 1 does not count"
        expect_close(answer(pattern_of([0, 1, 1, 2])), torch.tensor([[1.0]]))

    def test_bad_input(self, answer, rng):
        "two positions are too few"
        expect_raises(ValueError, answer, random_patterns(rng, 2, 2, 2))


class TestDuplicateTokenScore:
    exercise = "duplicate_token_score"

    def test_values(self, answer, reference, rng):
        "random patterns on texts whose words come again, once or more often"
        for batch, heads, pos in SIZES:
            for d_vocab in (2, 4):
                patterns = random_patterns(rng, batch, heads, pos)
                tokens = torch.randint(d_vocab, (batch, pos), generator=rng)
                expect_close(answer(patterns, tokens), reference(patterns, tokens))

    def test_known_heads(self, answer):
        "1 for a head that looks at the copy; 0 for one that looks at itself, or behind the copy"
        tokens = torch.tensor([[5, 6, 7, 5, 6, 7]])
        for keys, score in (
            ([0, 0, 0, 0, 1, 2], 1.0),
            ([0, 1, 2, 3, 4, 5], 0.0),
            ([0, 0, 0, 1, 2, 3], 0.0),
        ):
            expect_close(answer(pattern_of(keys), tokens), torch.tensor([[score]]))

    def test_several_copies(self, answer):
        "attention that is divided between two copies is added up"
        pattern = pattern_of([0, 0, 0, 0])
        pattern[0, 0, 1:] = torch.tensor([[1.0, 0, 0, 0], [0.25, 0.75, 0, 0], [0.2, 0, 0.5, 0.3]])
        expect_close(answer(pattern, torch.tensor([[4, 4, 4, 9]])), torch.tensor([[1.0]]))
        expect_close(answer(pattern, torch.tensor([[4, 9, 4, 4]])), torch.tensor([[(0.25 + 0.7) / 2]]))

    def test_no_copies(self, answer, rng):
        "NaN for a text in which no word comes again, a number for its neighbour in the batch"
        found = answer(random_patterns(rng, 2, 3, 4), torch.tensor([[1, 2, 3, 4], [1, 2, 1, 4]]))
        expect_shape(found, (2, 3))
        expect(found[0].isnan().all(), "A text without copies has a score.", actual=found[0])
        expect(not found[1].isnan().any(), "A text with copies has none.", actual=found[1])


class TestInductionScore:
    exercise = "induction_score"

    def test_values(self, answer, reference, rng):
        "random patterns on texts whose words come again, once or more often"
        for batch, heads, pos in SIZES:
            for d_vocab in (2, 4):
                patterns = random_patterns(rng, batch, heads, pos)
                tokens = torch.randint(d_vocab, (batch, pos), generator=rng)
                expect_close(answer(patterns, tokens), reference(patterns, tokens))

    def test_known_heads(self, answer):
        "1 for a head that looks behind the copy; 0 for one that looks at the copy, before it, or at itself"
        tokens = torch.tensor([[5, 6, 7, 5, 6, 7]])
        for keys, score in (
            ([0, 0, 0, 1, 2, 3], 1.0),
            ([0, 0, 0, 0, 1, 2], 0.0),
            ([0, 0, 0, 0, 0, 1], 0.0),
            ([0, 1, 2, 3, 4, 5], 0.0),
        ):
            expect_close(answer(pattern_of(keys), tokens), torch.tensor([[score]]))

    def test_word_after_itself(self, answer):
        "a query is never its own key, also where a word follows itself"
        tokens = torch.tensor([[3, 8, 8, 1]])
        found = answer(pattern_of([0, 0, 2, 0]), tokens)
        expect_shape(found, (1, 1))
        expect(found.isnan().all(), "A query found its own position behind its copy.", actual=found)

    def test_several_copies(self, answer):
        "attention that is divided between two places is added up"
        pattern = pattern_of([0, 0, 0, 0, 0, 0])
        pattern[0, 0, 4] = torch.tensor([0.1, 0.3, 0.1, 0.4, 0.1, 0])
        expect_close(answer(pattern, torch.tensor([[4, 9, 4, 5, 4, 6]])), torch.tensor([[(0 + 0.7) / 2]]))

    def test_nothing_repeated(self, answer, rng):
        "NaN for a text in which no word comes again, a number for its neighbour in the batch"
        found = answer(random_patterns(rng, 2, 3, 4), torch.tensor([[1, 2, 3, 4], [1, 2, 1, 4]]))
        expect_shape(found, (2, 3))
        expect(found[0].isnan().all(), "A text without copies has a score.", actual=found[0])
        expect(not found[1].isnan().any(), "A text with copies has none.", actual=found[1])
