"""Checks for tokenisation and for the way in and out of the residual stream."""

import torch

from utils.course.checking import (
    AnswerRaised,
    Mismatch,
    expect,
    expect_close,
    expect_raises,
    expect_same_gradients,
    expect_shape,
)
from utils.course.values import describe
from utils.transformer.tokenization import bpe_train

# Sizes that can't stand in for one another: prompts shorter than n_ctx, vocabularies larger and smaller.
SIZES = (
    {"batch": 2, "pos": 5, "n_ctx": 9, "d_model": 4, "d_vocab": 13},
    {"batch": 3, "pos": 6, "n_ctx": 14, "d_model": 7, "d_vocab": 11},
)
ONES = {"batch": 1, "pos": 1, "n_ctx": 1, "d_model": 1, "d_vocab": 1}


def whole(rng, low, high):
    return int(torch.randint(low, high, (), generator=rng))


def random_words(rng, letters, n_words, lengths=(1, 6)):
    """Words of random letters; no two words of a list are the same."""
    found = []
    while len(found) < n_words:
        picks = torch.randint(len(letters), (whole(rng, *lengths),), generator=rng)
        word = "".join(letters[i] for i in picks.tolist())
        found += [word] if word not in found else []
    return found


def random_text(rng, letters="abcde", n_distinct=12, n_words=60):
    """A text in which some words come often and most do not, as in a language."""
    distinct = random_words(rng, letters, n_distinct)
    picks = (n_distinct * torch.rand(n_words, generator=rng) ** 2).int()
    return " ".join(distinct[i] for i in picks.tolist())


def pair_counts(text, merges):
    """How often each pair of neighbours stands in ``text`` after ``merges``: independent of any answer."""
    counts = {}
    for number, word in enumerate(text.split()):
        pieces = list(word) if number == 0 else ["Ġ", *word]
        for left, right in merges:
            i = 0
            while i < len(pieces) - 1:
                if (pieces[i], pieces[i + 1]) == (left, right):
                    pieces[i : i + 2] = [left + right]
                i += 1
        for pair in zip(pieces, pieces[1:], strict=False):
            counts[pair] = counts.get(pair, 0) + 1
    return counts


class TestBpeTrain:
    exercise = "bpe_train"

    def test_first_merge(self, answer, reference, rng):
        "the first merge is the pair with the highest count in the text"
        for _ in range(3):
            text = random_text(rng)
            found = answer(text, 1)
            counts = pair_counts(text, [])
            most = max(counts.values())
            expect_pairs(found, reference(text, 1))
            expect(
                len(found) == 1,
                f"One merge was asked for, not {len(found)}.",
                actual=found,
                expected=f"{reference(text, 1)!r}",
            )
            expect(
                counts.get(found[0], 0) == most,
                f"{found[0]} has count {counts.get(found[0], 0)} in the text, and another pair {most}.",
                actual=found,
                expected=f"{reference(text, 1)!r}",
            )

    def test_later_merges(self, answer, reference, rng):
        "pairs are counted again after each merge, and can hold merged pieces"
        for n_merges in (4, 15):
            text = random_text(rng, letters="abcdefgh", n_distinct=10, n_words=80)
            expect_merges(answer(text, n_merges), reference(text, n_merges), text)

    def test_words_keep_to_themselves(self, answer, reference, rng):
        "no piece reaches from one word into the next"
        text = " ".join([random_words(rng, "xyz", 1)[0], *["a", "b"] * 12])  # "a Ġb" would come most often
        merges = answer(text, 3)
        expect_pairs(merges, reference(text, 3))
        for pair in merges:
            piece = "".join(pair)
            expect(
                "Ġ" not in piece[1:] and not any(character.isspace() for character in piece),
                f"The pair {pair} lies across two words; the marker can only begin a piece.",
                actual=merges,
                expected=f"{reference(text, 3)!r}",
            )
        expect_merges(merges, reference(text, 3), text)

    def test_ties(self, answer, reference, rng):
        "among pairs with the same count, the one that sorts first"
        order = torch.randperm(8, generator=rng).tolist()
        text = " ".join(["z", *["mnopqrst"[i] + "ABCDEFGH"[i] for i in order], "z"])
        text = text.replace(" ", "  ")  # two spaces count as one
        expect_merges(answer(text, 6), reference(text, 6), text)
        # Once "xm" is a piece, (x, b), (x, z) and (xm, a) tie; as joined text they would sort in another order.
        endings = 4 * ["xz"] + 4 * ["xma"] + 2 * ["xm"] + 4 * ["xb"]
        order = torch.randperm(14, generator=rng).tolist()
        text = " ".join("ABCDEFGHIJKLMN"[i] + ending for i, ending in zip(order, endings, strict=True))
        expect_merges(answer(text, 4), reference(text, 4), text)

    def test_inside_a_word(self, answer, reference, rng):
        "whole pieces only, and a run of one letter from the left"
        a, b, c = ("abcdefgh"[i] for i in torch.randperm(8, generator=rng)[:3].tolist())
        text = " ".join([c + a] * 6 + [a + b] * 5 + [c + a + b] * 3)  # a piece "ca" hides its a from b
        expect_merges(answer(text, 9), reference(text, 9), text)
        lengths = torch.randperm(4, generator=rng).tolist()
        text = "\n".join("c" * whole(rng, 1, 4) + "a" * (n + 2) + "b" * whole(rng, 1, 4) for n in lengths)
        expect_merges(answer(text, 7), reference(text, 7), text)

    def test_overlaps_and_repeats(self, answer, reference, rng):
        "a pair counts as often as it stands in a word, overlaps included"
        # (a, a) counts 8 if overlaps do, else 4; (b, c) 6 if twice in a word is two, else 3; (d, e) is 5.
        a, b, c, d, e = ("abcdefgh"[i] for i in torch.randperm(8, generator=rng)[:5].tolist())
        endings = 4 * [3 * a] + 3 * [b + c + b + c] + 5 * [d + e]
        order = torch.randperm(12, generator=rng).tolist()
        text = " ".join("ABCDEFGHIJKL"[i] + endings[i] for i in order)
        expect_merges(answer(text, 3), reference(text, 3), text)

    def test_end(self, answer, reference, rng):
        "stops when every word is one piece; zero merges and an empty text give an empty list"
        text = " ".join(random_words(rng, "abc", 4))
        expect_merges(answer(text, 500), reference(text, 500), text)
        expect_close(answer(text, 0), [], note="With n_merges=0 there is nothing to learn.")
        expect_close(answer(" \n", 3), [], note="A text without words has no pairs.")

    def test_bad_input(self, answer):
        "a negative number of merges raises ValueError"
        expect_raises(ValueError, answer, "low lower lowest", -1)


def expect_pairs(found, expected):
    """Expect a list of pairs of strings, whatever they are."""
    pairs = isinstance(found, list) and all(isinstance(pair, tuple) and len(pair) == 2 for pair in found)
    expect(
        pairs and all(isinstance(piece, str) for pair in found for piece in pair),
        "The merges should be a list of tuples (left piece, right piece).",
        actual=found,
        expected=f"{expected!r}",
    )


def expect_merges(found, expected, text):
    """Expect these merges; say where they part, and what the counts are there."""
    if found == expected:
        return
    expect_pairs(found, expected)
    pairs = enumerate(zip(found, expected, strict=False))
    place = next((i for i, (a, b) in pairs if a != b), min(len(found), len(expected)))
    counts = pair_counts(text, expected[:place])
    mine, ours = (merges[place] if place < len(merges) else None for merges in (found, expected))
    times = " and ".join(f"{pair} has count {counts.get(pair, 0)}" for pair in (mine, ours) if pair)
    if mine and ours and counts.get(mine, 0) == counts.get(ours, 0):
        times = f"both pairs have count {counts.get(ours, 0)}, and the one that sorts first as a tuple is taken"
    expect(
        False,
        f"The first difference is merge {place}. At that point {times}.",
        actual=found,
        returned=f"merge {place} = {mine}",
        expected=f"merge {place} = {ours}",
    )


class TestBpeEncode:
    exercise = "bpe_encode"

    def test_training_text(self, answer, reference, rng):
        "the tokens of a text that the merges were learnt from"
        for n_merges in (6, 20):
            text, merges = text_and_merges(rng, n_merges)
            expect_tokens(answer(text, merges), reference(text, merges), merges)

    def test_new_words(self, answer, reference, rng):
        "words that the training text did not have, one of them of unknown letters"
        _, merges = text_and_merges(rng, 20)
        text = " ".join([*random_words(rng, "abcde", 8, lengths=(4, 12)), "QÜ7", *random_words(rng, "ab", 4)])
        expect_tokens(answer(text, merges), reference(text, merges), merges)

    def test_order_of_merges(self, answer, reference, rng):
        "an early merge comes before a later one, wherever they are in the word and however long they are"
        a, b, c, d = ("pqrstuvw"[i] for i in torch.randperm(8, generator=rng)[:4].tolist())
        merges = [(b, c), (a, b), (c, d), (a, b + c), (a + b, c + d)]
        text = f"{a}{b}{c}{d} {a}{b}{d} {c}{d}{a}{b}{c} {a}{b}{c}{d}{a}{b}"
        expect_tokens(answer(text, merges), reference(text, merges), merges)

    def test_repeats(self, answer, reference, rng):
        "a merge applies at every place in a word, from the left, and to whole pieces only"
        a, b, c = ("xyzuvw"[i] for i in torch.randperm(6, generator=rng)[:3].tolist())
        merges = [(a, a), (c, a), (a, b), (a + a, b)]
        text = f"{a * whole(rng, 3, 8)} {a}{b}{a}{b}{c}{a}{b} {a * 3}{b}{a * 2}{b} {c}{a}{a}{b}"
        expect_tokens(answer(text, merges), reference(text, merges), merges)

    def test_lossless(self, answer, rng):
        "joined, with Ġ read as a space, the tokens give the text back"
        _, merges = text_and_merges(rng, 12)
        words = random_words(rng, "abcdeé-", 9, lengths=(1, 9))
        found = answer("  " + " \n ".join(words) + "\t", merges)
        expect_strings(found)
        joined = "".join(found).replace("Ġ", " ")
        expect_close(joined, " ".join(words), note="The tokens do not join to the text.")

    def test_small(self, answer, rng):
        "no merges give single characters, an empty text gives no tokens"
        word = random_words(rng, "abc", 1, lengths=(2, 5))[0]
        expect_close(answer(f"{word} {word}", []), [*word, "Ġ", *word])
        expect_close(answer("", [("a", "b")]), [])


def expect_strings(found):
    """Expect a list of strings, whatever they are."""
    expect(
        isinstance(found, list) and all(isinstance(token, str) for token in found),
        "The tokens should be a list of strings.",
        actual=found,
    )


def expect_tokens(found, expected, merges):
    """Expect these tokens; show the first word that is cut differently, and the merges that matter for it."""
    expect_strings(found)
    mine, ours = ("\n".join(tokens).replace("\nĠ", "\n\nĠ").split("\n\n") for tokens in (found, expected))
    for my_word, our_word in zip(mine, ours, strict=False):
        word = our_word.replace("\n", "")
        inside = [pair for pair in merges if "".join(pair) in word]
        expect(
            my_word == our_word,
            f"The word is {word!r}. Of the merges, these could matter, in this order: {inside}.",
            actual=found,
            returned=f"{my_word.split(chr(10))}",
            expected=f"{our_word.split(chr(10))}",
        )
    expect(len(mine) == len(ours), f"{len(mine)} words came back of {len(ours)}.", actual=found)


def text_and_merges(rng, n_merges):
    """A text, and merges that were learnt from it."""
    text = random_text(rng, n_distinct=20)
    return text, bpe_train(text, n_merges)


def table(rng, rows, columns, dtype=torch.float32):
    return torch.randn(rows, columns, generator=rng, dtype=dtype)


def token_ids(rng, batch, pos, d_vocab, **_):
    return torch.randint(d_vocab, (batch, pos), generator=rng)


class TestEmbed:
    exercise = "embed"

    def test_rows(self, answer, reference, rng):
        "the row of W_E for each token, in two configurations"
        for sizes in SIZES:
            tokens, W_E = token_ids(rng, **sizes), table(rng, sizes["d_vocab"], sizes["d_model"])
            expect_close(answer(tokens, W_E), reference(tokens, W_E))

    def test_same_token(self, answer, rng):
        "one token gives one vector, wherever it stands"
        tokens, W_E = torch.full((3, 4), whole(rng, 0, 8)), table(rng, 8, 5)
        found = answer(tokens, W_E)
        expect_shape(found, (3, 4, 5))
        expect_close(found, W_E[tokens[0, 0]].expand(3, 4, 5))

    def test_size_one(self, answer, reference, rng):
        "one sequence of one token; a memory layout that is not contiguous"
        tokens, W_E = token_ids(rng, **ONES), table(rng, 1, 1)
        expect_close(answer(tokens, W_E), reference(tokens, W_E))
        tokens, W_E = token_ids(rng, 4, 3, 10).T, table(rng, 6, 10).T
        expect_close(answer(tokens, W_E), reference(tokens, W_E))

    def test_rare_tokens(self, answer, reference, rng):
        "a prompt that uses the first few tokens of a large vocabulary only"
        tokens, W_E = torch.randint(3, (2, 6), generator=rng), table(rng, 21, 4)
        expect_close(answer(tokens, W_E), reference(tokens, W_E))

    def test_dtype(self, answer, reference, rng):
        "the dtype is that of W_E"
        for dtype in (torch.float64, torch.float32):
            tokens, W_E = token_ids(rng, 2, 5, 7), table(rng, 7, 3, dtype)
            expect_close(answer(tokens, W_E), reference(tokens, W_E), dtype=True)

    def test_gradients(self, answer, reference, rng):
        "the gradient reaches the rows that were used, and adds up for repeated tokens"
        tokens = token_ids(rng, 3, 6, 5)
        expect_same_gradients(answer, reference, tokens, table(rng, 5, 4), rng=rng)


class TestPositionalEmbed:
    exercise = "positional_embed"

    def test_rows(self, answer, reference, rng):
        "row p of W_pos at position p of every sequence, in two configurations"
        for sizes in SIZES:
            tokens, W_pos = token_ids(rng, **sizes), table(rng, sizes["n_ctx"], sizes["d_model"])
            expect_close(answer(tokens, W_pos), reference(tokens, W_pos))

    def test_whatever_the_tokens(self, answer, rng):
        "other tokens, same vectors"
        tokens, W_pos = token_ids(rng, 2, 5, 6), table(rng, 8, 3)
        first, second = answer(tokens, W_pos), answer((tokens + 1) % 6, W_pos)
        expect_close(first, W_pos[:5].expand(2, 5, 3))
        expect_close(second, first, note="The positions changed with the tokens.")

    def test_full_context(self, answer, reference, rng):
        "a sequence as long as n_ctx, and one of a single token"
        for sizes in ({"batch": 2, "pos": 6, "d_vocab": 4, "n_ctx": 6}, ONES):
            tokens, W_pos = token_ids(rng, **sizes), table(rng, sizes["n_ctx"], 5)
            try:
                found = answer(tokens, W_pos)
            except AnswerRaised as raised:
                if not isinstance(raised.__cause__, ValueError):
                    raise
                note = "A sequence as long as n_ctx was refused."
                raise Mismatch(note, actual="refused", returned=describe(raised.__cause__), expected="rows") from None
            expect_close(found, reference(tokens, W_pos))

    def test_dtype(self, answer, reference, rng):
        "the dtype is that of W_pos, and the memory layout does not matter"
        for dtype in (torch.float64, torch.float32):
            tokens, W_pos = token_ids(rng, 4, 3, 10).T, table(rng, 5, 7, dtype).T
            expect_close(answer(tokens, W_pos), reference(tokens, W_pos), dtype=True)

    def test_gradients(self, answer, reference, rng):
        "the gradient of a row adds up over the batch"
        tokens = token_ids(rng, 3, 4, 5)
        expect_same_gradients(answer, reference, tokens, table(rng, 6, 4), rng=rng)

    def test_too_long(self, answer, rng):
        "a sequence longer than n_ctx raises ValueError"
        expect_raises(ValueError, answer, token_ids(rng, 2, 7, 5), table(rng, 6, 4))


class TestUnembed:
    exercise = "unembed"

    def test_values(self, answer, reference, rng):
        "one logit for each token at each position, in two configurations"
        for sizes in SIZES:
            inputs = unembed_inputs(rng, **sizes)
            expect_close(answer(*inputs), reference(*inputs))

    def test_one_token(self, answer, rng):
        "the logit of one token at one position is a dot product plus that token's bias"
        resid, W_U, b_U = unembed_inputs(rng, 2, 3, 6, 9)
        found = answer(resid, W_U, b_U)
        expect_shape(found, (2, 3, 9))
        expected = sum(resid[1, 2, i] * W_U[i, 4] for i in range(6)) + b_U[4]
        expect_close(found[1, 2, 4], expected, note="Entry [1, 2, 4], worked out by hand, differs.")

    def test_square(self, answer, reference, rng):
        "a vocabulary as large as the stream is wide; one of each"
        for sizes in ((2, 3, 5, 5), (1, 1, 1, 1)):
            inputs = unembed_inputs(rng, *sizes)
            expect_close(answer(*inputs), reference(*inputs))

    def test_linear(self, answer, rng):
        "doubling the residual stream doubles each logit's distance from its bias"
        resid, W_U, b_U = unembed_inputs(rng, 2, 4, 3, 8)
        once, twice = answer(resid, W_U, b_U), answer(2 * resid, W_U, b_U)
        expect_shape(once, (2, 4, 8))
        expect_close(
            twice - b_U,
            2 * (once - b_U),
            rtol=1e-4,
            atol=1e-5,
            note="The read-out should be affine: a matrix and a bias.",
        )

    def test_dtype(self, answer, reference, rng):
        "the dtype is that of the inputs, and the memory layout does not matter"
        for dtype in (torch.float64, torch.float32):
            resid, W_U, b_U = unembed_inputs(rng, 3, 2, 4, 6, dtype=dtype)
            resid, W_U = resid.transpose(0, 1).contiguous().transpose(0, 1), W_U.T.contiguous().T
            expect_close(answer(resid, W_U, b_U), reference(resid, W_U, b_U), dtype=True)

    def test_gradients(self, answer, reference, rng):
        "gradients for the residual stream, the matrix and the bias"
        expect_same_gradients(answer, reference, *unembed_inputs(rng, 2, 3, 4, 7), rng=rng)


def unembed_inputs(rng, batch, pos, d_model, d_vocab, dtype=torch.float32, **_):
    resid = torch.randn(batch, pos, d_model, generator=rng, dtype=dtype)
    return resid, table(rng, d_model, d_vocab, dtype), torch.randn(d_vocab, generator=rng, dtype=dtype)
