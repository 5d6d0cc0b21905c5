"""Checks for the rule-based explainer and for the scores of explanations."""

import torch

from utils.course.checking import expect, expect_close, expect_raises


def drawn_places(rng, n, vocab, share=0.35):
    """Words that recur, some places without one, and a latent that likes some words more than others."""
    words = torch.randint(-1, vocab, (n,), generator=rng)
    liking = torch.rand(vocab + 1, generator=rng) * 2 * share
    return words, torch.rand(n, generator=rng) < liking[words + 1]


class TestBestWordSet:
    exercise = "best_word_set"

    def test_values(self, answer, reference, rng):
        "the best beginning of the list, with few words and with many"
        for n, vocab, most in ((60, 8, 3), (200, 15, 6), (30, 20, 4), (80, 5, 9), (150, 6, 1)):
            for _ in range(4):
                words, on = drawn_places(rng, n, vocab)
                expect_close(answer(words, on, most), reference(words, on, most))

    def test_all_sets(self, answer, rng):
        "no set of words whatever has a higher F1"
        for _ in range(4):
            words, on = drawn_places(rng, 40, 6)
            best = 0.0
            for choice in range(64):
                says = torch.isin(words, torch.tensor([w for w in range(6) if choice >> w & 1], dtype=torch.long))
                best = max(best, 2 * (says & on).sum().item() / max(1, (says.sum() + on.sum()).item()))
            expect_close(answer(words, on, 6)[1], best, note="Another set of words has a higher F1")

    def test_order(self, answer, rng):
        "of equal shares the commoner word first, then the smaller id; of equal F1 the smallest set"
        words = torch.tensor([4, 4, 2, 2, 7, 7, 7, 9, 9, 9, 9, 9, 9, 9, 9])
        on = torch.tensor([1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]).bool()
        for most, chosen in ((1, (7,)), (2, (2, 7)), (3, (2, 4, 7)), (4, (2, 4, 7))):
            expect_close(answer(words, on, most)[0], chosen)
        words = torch.tensor([8, 8, 8, 8, 3, 3, 3, 3, -1])  # with or without 3 the F1 is exactly one half
        on = torch.tensor([1, 1, 0, 0, 1, 0, 0, 0, 1]).bool()
        expect_close(answer(words, on, 2), ((8,), 0.5))

    def test_no_word(self, answer, rng):
        "places without a word count where the latent is on, and are never in the set"
        words, on = torch.tensor([-1, -1, 3, 3, 5]), torch.tensor([True, True, True, False, False])
        expect_close(answer(words, on, 3), ((3,), 2 / 5))

    def test_never_on(self, answer, rng):
        "a latent that is never on, or only where there is no word"
        nothing = ((), 0.0)
        expect_close(answer(torch.tensor([1, 2, 2]), torch.zeros(3, dtype=torch.bool), 2), nothing)
        expect_close(answer(torch.tensor([-1, 2, 2]), torch.tensor([True, False, False]), 2), nothing)
        expect_close(answer(torch.tensor([-1, -1]), torch.tensor([True, False]), 2), nothing)


def drawn_text(rng, docs, pos, vocab):
    tokens = torch.randint(vocab, (docs, pos), generator=rng)
    states = {name: torch.rand(docs, pos, generator=rng) < 0.4 for name in ("in brackets", "late")}
    return tokens, states


def shifted(tokens, back):
    there = torch.full_like(tokens, -1)
    there[:, back:] = tokens[:, : tokens.shape[1] - back]
    return there


def noisy(holds, rng, share=0.08):
    return holds ^ (torch.rand(holds.shape, generator=rng) < share)


class TestExplainFeature:
    exercise = "explain_feature"

    def test_words_somewhere(self, answer, reference, rng):
        "latents that follow a word at the place, before it or further back"
        for back, most in ((0, 4), (1, 3), (2, 5), (3, 3)):
            tokens, states = drawn_text(rng, 9, 17, 10)
            on = noisy(torch.isin(shifted(tokens, back), torch.tensor([1, 4, 6])), rng)
            options = {"n_back": max(2, back), "most": most}
            expect_close(answer(tokens, on, states, **options), reference(tokens, on, states, **options))

    def test_what_follows(self, answer, reference, rng):
        "the word behind a place can't have switched it on, however well it fits"
        tokens = torch.randint(8, (12, 20), generator=rng)
        for p in range(18, -1, -1):
            kept = torch.rand(12, generator=rng) < 0.75
            tokens[:, p] = torch.where(kept, (tokens[:, p + 1] + 1) % 8, tokens[:, p])
        on = torch.zeros_like(tokens, dtype=torch.bool)
        on[:, :-1] = torch.isin(tokens[:, 1:], torch.tensor([2, 5]))
        expect_close(answer(tokens, on, {}), reference(tokens, on, {}))

    def test_place_itself_first(self, answer, rng):
        "of equal rules about words the one about the place itself"
        alternating = torch.tensor([[2, 3, 2, 3, 2, 3]])  # the word tells as much as the word before it, but at the end
        found = answer(alternating, alternating == 3, {})
        expect_close(tuple(found), ((3,), 0, "", 1.0))

    def test_states(self, answer, reference, rng):
        "latents that follow a state, alone or together with words"

        def expect_same(tokens, on, states):
            found, wanted = answer(tokens, on, states), reference(tokens, on, states)
            expect(
                isinstance(found, tuple) and len(found) == 4,
                "The answer should be an Explanation.",
                actual=type(found).__name__,
            )
            expect_close(found[2], wanted.state, note="The rule's state differs.")
            expect_close(found, wanted)

        for _ in range(3):
            tokens, states = drawn_text(rng, 12, 14, 8)
            for holds in (
                states["late"],
                states["in brackets"] & torch.isin(tokens, torch.tensor([0, 3, 5])),
                states["late"] & torch.isin(tokens, torch.tensor([2, 7])),
            ):
                expect_same(tokens, noisy(holds, rng), states)
            # A word of the rule that is common where the state does not hold: by itself it tells little.
            common = ~states["in brackets"] & (torch.rand(tokens.shape, generator=rng) < 0.8)
            tokens = tokens.masked_fill(common, 0)
            expect_same(tokens, states["in brackets"] & torch.isin(tokens, torch.tensor([0, 3])), states)

    def test_how_far_back(self, answer, reference, rng):
        "rules look no further back than they may"
        tokens, states = drawn_text(rng, 10, 15, 9)
        on = torch.isin(shifted(tokens, 3), torch.tensor([2, 5]))
        for n_back in (0, 1, 3):
            expect_close(answer(tokens, on, states, n_back=n_back), reference(tokens, on, states, n_back=n_back))

    def test_most(self, answer, reference, rng):
        "no more words than allowed; twelve if nothing is said"
        tokens, _ = drawn_text(rng, 20, 30, 40)
        on = torch.isin(tokens, torch.arange(5, 25))
        for options in ({"most": 2}, {}):
            found = answer(tokens, on, {}, **options)
            expect_close(found, reference(tokens, on, {}, **options))

    def test_ties(self, answer, rng):
        "of equal rules the first: a state before words, and words alone before words in a state"
        tokens = torch.tensor([[0, 0, 1, 1, 1], [0, 0, 1, 1, 1]])
        on = tokens == 1
        found = answer(tokens, on, {"marked": on, "again": on})
        expect_close(tuple(found), ((), 0, "marked", 1.0))
        found = answer(tokens, on, {"never": torch.zeros_like(on)})
        expect_close(tuple(found), ((1,), 0, "", 1.0))

    def test_nothing(self, answer, rng):
        "a latent that is never on, and documents of one word"
        nothing = ((), 0, "", 0.0)
        tokens, states = drawn_text(rng, 4, 6, 5)
        expect_close(tuple(answer(tokens, torch.zeros_like(tokens, dtype=torch.bool), states)), nothing)
        one = torch.tensor([[1], [2], [1]])
        expect_close(tuple(answer(one, one == 1, {}, n_back=0)), ((1,), 0, "", 1.0))


class TestDetectionScore:
    exercise = "detection_score"

    def test_values(self, answer, reference, rng):
        "graded guesses, with ties, and as many of a kind as there are"
        for n, share in ((200, 0.4), (12, 0.5), (50, 0.1), (31, 0.8)):
            guesses = torch.randint(-3, 6, (n,), generator=rng) / 2
            on = torch.rand(n, generator=rng) < share
            on[:2] = torch.tensor([True, False])
            expect_close(answer(guesses, on), reference(guesses, on))
            guesses = torch.randn(n, generator=rng) + on
            expect_close(answer(guesses, on), reference(guesses, on))

    def test_yes_and_no(self, answer, rng):
        "for yes and no it is the balanced accuracy, also if nearly all places are off"
        for share in (0.5, 0.06):
            on = torch.rand(120, generator=rng) < share
            on[:3] = torch.tensor([True, False, True])
            says = torch.rand(120, generator=rng) < torch.where(on, 0.7, 0.2)
            expect_close(answer(says, on), (says[on].float().mean() + (~says[~on]).float().mean()).item() / 2)

    def test_ends(self, answer, rng):
        "1 for perfect guesses, 0 for their opposite, one half where all are equal"
        on = torch.tensor([True, False, False, True, False])
        expect_close(answer(on, on), 1.0)
        expect_close(answer(-1.0 * on, on), 0.0)
        expect_close(answer(torch.full((5,), 0.3), on), 0.5)

    def test_a_float(self, answer, rng):
        "the order of the guesses counts, not their size"
        on = torch.rand(40, generator=rng) < 0.4
        on[:2] = torch.tensor([True, False])
        guesses = torch.randn(40, generator=rng)
        expect_close(answer(guesses.exp() * 100, on), answer(guesses, on))

    def test_bad_input(self, answer, rng):
        "one kind of place only"
        expect_raises(ValueError, answer, torch.rand(4, generator=rng), torch.ones(4, dtype=torch.bool))
        expect_raises(ValueError, answer, torch.rand(4, generator=rng), torch.zeros(4, dtype=torch.bool))


class TestSimulationScore:
    exercise = "simulation_score"

    def test_values(self, answer, reference, rng):
        "several lengths, rising with each other and against"
        for n in (2, 5, 40, 300):
            a = torch.randn(n, generator=rng)
            for b in (torch.randn(n, generator=rng), a * 2 + torch.randn(n, generator=rng), 1 - a + 0.1 * a**2):
                expect_close(answer(a, b), reference(a, b), atol=1e-5)

    def test_unit(self, answer, rng):
        "another unit and another zero change nothing; the other sign does"
        a, b = torch.randn(50, generator=rng), torch.rand(50, generator=rng)
        expect_close(answer(a * 30 + 8, b / 5 - 2), answer(a, b), atol=1e-4)
        expect_close(answer(-a, b), -answer(a, b), atol=1e-5)

    def test_constant(self, answer, rng):
        "0 where one of the two is the same everywhere"
        a = torch.randn(20, generator=rng)
        for same in (torch.zeros(20), torch.full((20,), 0.1), torch.full((20,), 0.7)):
            expect_close(answer(same, a), 0.0)
            expect_close(answer(a, same), 0.0)
        expect_close(answer(torch.tensor([2.0]), torch.tensor([3.0])), 0.0)
