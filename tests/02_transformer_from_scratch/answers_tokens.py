"""Wrong and right answers for tokenisation, embedding and unembedding."""

import re
from collections import Counter

import torch
import torch.nn.functional as F
from einops import einsum, repeat
from torch import nn

from utils.course.catalogue import right, wrong


def marked_words(text):
    first, *others = text.split() or [""]
    return [first] + ["Ġ" + word for word in others]


def merge_from_left(pieces, pair):
    merged, i = [], 0
    while i < len(pieces):
        step = 2 if tuple(pieces[i : i + 2]) == tuple(pair) else 1
        merged.append("".join(pieces[i : i + step]))
        i += step
    return merged


def learn(words, n_merges, *, choose=None, count=True, merge=merge_from_left):
    """Byte-pair training with parts to replace."""
    if n_merges < 0:
        raise ValueError("n_merges must not be negative")
    choose = choose or (lambda pairs: min(pairs, key=lambda pair: (-pairs[pair], pair)))
    words = [(list(word), times) for word, times in Counter(words).items()]
    merges = []
    while len(merges) < n_merges:
        pairs = Counter()
        for pieces, times in words:
            for pair in zip(pieces, pieces[1:], strict=False):
                pairs[pair] += times if count else 1
        if not pairs:
            break
        merges.append(choose(pairs))
        words = [(merge(pieces, merges[-1]), times) for pieces, times in words]
    return merges


# --- bpe_train


@wrong(
    "bpe_train",
    "You count each distinct word once, however often it stands in the text. A pair in a "
    "word that comes a hundred times counts a hundred times.",
)
def counts_distinct_words(text, n_merges):
    return learn(marked_words(text), n_merges, count=False)


@wrong(
    "bpe_train",
    "Your pieces grow across spaces: the end of one word is glued to the marker of the "
    "next. Then every phrase of two frequent words needs a token of its own. Count pairs "
    "inside words only.",
)
def merges_across_words(text, n_merges):
    return learn(["Ġ".join(text.split())], n_merges)


@wrong(
    "bpe_train",
    "The space before a word is lost: no piece of yours holds the marker. Every word except the "
    "first begins with Ġ, which is a piece like any other and is merged like any other.",
)
def forgets_the_marker(text, n_merges):
    return learn(text.split(), n_merges)


@wrong(
    "bpe_train",
    "You count the pairs once, on single characters, and take the most frequent ones. After "
    "each merge the counts are different, and there are new pairs that hold the merged "
    "piece.",
)
def counts_once(text, n_merges):
    if n_merges < 0:
        raise ValueError("n_merges must not be negative")
    pairs = Counter(pair for word in marked_words(text) for pair in zip(word, word[1:], strict=False))
    return sorted(pairs, key=lambda pair: (-pairs[pair], pair))[:n_merges]


@wrong(
    "bpe_train",
    "Your counts are right, but of several pairs with the same count you take the one that "
    "you met first. Here it is the one that sorts first, so that the order of the words "
    "does not matter.",
)
def first_met_wins(text, n_merges):
    return learn(marked_words(text), n_merges, choose=lambda pairs: max(pairs, key=pairs.get))


@wrong(
    "bpe_train",
    "Of several pairs with the same count you take the one that sorts last; it should be "
    "the first. `max` over (count, pair) wants both large: turn one of the two round.",
)
def last_sorted_wins(text, n_merges):
    return learn(marked_words(text), n_merges, choose=lambda pairs: max(pairs, key=lambda p: (pairs[p], p)))


@wrong(
    "bpe_train",
    "Of several pairs with the same count you take the one whose joined text sorts first. The pairs "
    "themselves are compared, as tuples: ('x', 'z') comes before ('xm', 'a'), although 'xma' comes before 'xz'.",
)
def ties_by_joined_text(text, n_merges):
    return learn(marked_words(text), n_merges, choose=lambda pairs: min(pairs, key=lambda p: (-pairs[p], "".join(p))))


@wrong(
    "bpe_train",
    "Pairs that overlap are counted once: in the run 'a a a' you see one pair, as `str.count` does. Two pieces "
    "count as a pair wherever they stand side by side, here twice.",
)
def counts_without_overlaps(text, n_merges):
    if n_merges < 0:
        raise ValueError("n_merges must not be negative")
    words, merges = [list(word) for word in marked_words(text)], []
    for _ in range(n_merges):
        pairs = Counter()
        for pieces in words:
            for pair in set(zip(pieces, pieces[1:], strict=False)):
                pairs[pair] += len(pieces) - len(merge_from_left(pieces, pair))
        if not pairs:
            break
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        words = [merge_from_left(pieces, merges[-1]) for pieces in words]
    return merges


@wrong(
    "bpe_train",
    "You count a pair once in each word, also where it stands there twice, as in 'abab' or 'aaa'. It counts wherever "
    "two pieces stand side by side.",
)
def counts_once_in_a_word(text, n_merges):
    if n_merges < 0:
        raise ValueError("n_merges must not be negative")
    words, merges = [list(word) for word in marked_words(text)], []
    for _ in range(n_merges):
        pairs = Counter(pair for pieces in words for pair in set(zip(pieces, pieces[1:], strict=False)))
        if not pairs:
            break
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        words = [merge_from_left(pieces, merges[-1]) for pieces in words]
    return merges


def merge_text(pieces, pair):
    return " ".join(pieces).replace(" ".join(pair), "".join(pair)).split(" ")


@wrong(
    "bpe_train",
    "Your merge matches text and not pieces: with the pair ('a', 'b'), the pieces 'ca' and "
    "'b' are joined too, because 'ca b' contains 'a b'. Compare whole pieces.",
)
def replaces_text(text, n_merges):
    return learn(marked_words(text), n_merges, merge=merge_text)


def merge_first_only(pieces, pair):
    for i in range(len(pieces) - 1):
        if (pieces[i], pieces[i + 1]) == tuple(pair):
            return [*pieces[:i], "".join(pair), *pieces[i + 2 :]]
    return pieces


@wrong(
    "bpe_train",
    "Your merge stops after the first place in each word. A pair becomes one piece "
    "everywhere, also twice in the same word; otherwise it is counted, and learnt, again.",
)
def merges_once_per_word(text, n_merges):
    return learn(marked_words(text), n_merges, merge=merge_first_only)


@wrong(
    "bpe_train",
    "When every word is a single piece there is no pair left, and the best of nothing is an "
    "error. Return the merges that there are.",
)
def never_stops(text, n_merges):
    if n_merges < 0:
        raise ValueError("n_merges must not be negative")
    words, merges = [list(word) for word in marked_words(text)], []
    for _ in range(n_merges):
        pairs = Counter(pair for pieces in words for pair in zip(pieces, pieces[1:], strict=False))
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        words = [merge_from_left(pieces, merges[-1]) for pieces in words]
    return merges


@wrong(
    "bpe_train",
    "Your first word has a marker as well. There is no space before it: Ġ stands in front of every word but the first.",
)
def marks_the_first_word(text, n_merges):
    return learn(["Ġ" + word for word in text.split()], n_merges)


@wrong(
    "bpe_train",
    "You stop when no pair comes more than once. Merges go on, with pairs that stand in the text a single time, until "
    "there are n_merges of them or every word is one piece.",
)
def stops_at_single_pairs(text, n_merges):
    if n_merges < 0:
        raise ValueError("n_merges must not be negative")
    words, merges = [list(word) for word in marked_words(text)], []
    for _ in range(n_merges):
        pairs = Counter(pair for pieces in words for pair in zip(pieces, pieces[1:], strict=False))
        if not pairs or max(pairs.values()) < 2:
            break
        merges.append(min(pairs, key=lambda pair: (-pairs[pair], pair)))
        words = [merge_from_left(pieces, merges[-1]) for pieces in words]
    return merges


@right("bpe_train")
def plain_lists(text, n_merges):
    if n_merges < 0:
        raise ValueError("n_merges must not be negative")
    words, merges = [list(word) for word in marked_words(text)], []
    for _ in range(n_merges):
        pairs = [pair for pieces in words for pair in zip(pieces, pieces[1:], strict=False)]
        if not pairs:
            return merges
        most = max(pairs.count(pair) for pair in set(pairs))
        best = sorted(pair for pair in set(pairs) if pairs.count(pair) == most)[0]
        merges.append(best)
        words = [merge_from_left(pieces, best) for pieces in words]
    return merges


def merge_by_expression(pieces, pair):
    pattern = r"(?<!\S)" + re.escape(" ".join(pair)) + r"(?!\S)"
    return re.sub(pattern, lambda _: "".join(pair), " ".join(pieces)).split(" ")


@right("bpe_train")
def regular_expression(text, n_merges):
    return learn(marked_words(text), n_merges, merge=merge_by_expression)


# --- bpe_encode


@wrong(
    "bpe_encode",
    "You look for the longest known piece from the left. That is another tokeniser: "
    "byte-pair encoding repeats the merges in the order in which they were learnt, and an "
    "early merge can take a letter that a longer piece would have wanted.",
)
def longest_match(text, merges):
    known, tokens = {"".join(pair) for pair in merges}, []
    for word in marked_words(text):
        while word:
            n = next((n for n in range(len(word), 1, -1) if word[:n] in known), 1)
            tokens.append(word[:n])
            word = word[n:]
    return tokens


@wrong(
    "bpe_encode",
    "You merge the leftmost pair that can be merged. Rank goes before place: first the "
    "merge that was learnt first, wherever in the word it is.",
)
def leftmost_pair(text, merges):
    merges, tokens = [tuple(pair) for pair in merges], []
    for word in marked_words(text):
        pieces, i = list(word), 0
        while i < len(pieces) - 1:
            if (pieces[i], pieces[i + 1]) in merges:
                pieces[i : i + 2], i = [pieces[i] + pieces[i + 1]], -1
            i += 1
        tokens += pieces
    return tokens


@wrong(
    "bpe_encode",
    "You take the merges from the last to the first. The early ones build the pieces that the later ones join.",
)
def last_merge_first(text, merges):
    tokens = []
    for word in marked_words(text):
        pieces = list(word)
        for pair in reversed(merges):
            pieces = merge_from_left(pieces, pair)
        tokens += pieces
    return tokens


@wrong(
    "bpe_encode",
    "You look words up as a whole and spell out those that you do not find. The merges "
    "also apply inside a new word: that is what sub-word tokens are for.",
)
def whole_words_or_letters(text, merges):
    known = {"".join(pair) for pair in merges}
    return [token for word in marked_words(text) for token in ([word] if word in known else word)]


@wrong("bpe_encode", "Your merge stops after the first place in each word; it applies wherever the pair stands.")
def encodes_once_per_word(text, merges):
    tokens = []
    for word in marked_words(text):
        pieces = list(word)
        for pair in merges:
            pieces = merge_first_only(pieces, pair)
        tokens += pieces
    return tokens


@wrong(
    "bpe_encode",
    "Your merge matches text and not pieces: with the pair ('a', 'b'), the pieces 'ca' and "
    "'b' are joined too, because 'ca b' contains 'a b'. Compare whole pieces.",
)
def encodes_by_text(text, merges):
    tokens = []
    for word in marked_words(text):
        pieces = list(word)
        for pair in merges:
            pieces = merge_text(pieces, pair)
        tokens += [piece for piece in pieces if piece]
    return tokens


@wrong(
    "bpe_encode",
    "The spaces are lost: your words carry no marker. Every word except the first begins "
    "with Ġ, as in training, otherwise the merges that begin with Ġ never apply.",
)
def encodes_without_marker(text, merges):
    tokens = []
    for word in text.split():
        pieces = list(word)
        for pair in merges:
            pieces = merge_from_left(pieces, pair)
        tokens += pieces
    return tokens


@wrong(
    "bpe_encode",
    "You split at every single space, so double spaces and line breaks end up in the "
    "tokens. `split()` without an argument takes any run of whitespace as one.",
)
def splits_at_single_spaces(text, merges):
    tokens = []
    for number, word in enumerate(text.split(" ")):
        pieces = list(word if number == 0 else "Ġ" + word)
        for pair in merges:
            pieces = merge_from_left(pieces, pair)
        tokens += pieces
    return tokens


@wrong(
    "bpe_encode",
    "You join any two pieces whose text together is a learnt piece. A merge is a pair: it joins its own two pieces, "
    "and not others that make the same text.",
)
def joins_by_text(text, merges):
    ranks, tokens = {}, []
    for rank, pair in enumerate(merges):
        ranks.setdefault("".join(pair), rank)
    for word in marked_words(text):
        pieces = list(word)
        while joined := [
            (ranks[a + b], i) for i, (a, b) in enumerate(zip(pieces, pieces[1:], strict=False)) if a + b in ranks
        ]:
            i = min(joined)[1]
            pieces[i : i + 2] = [pieces[i] + pieces[i + 1]]
        tokens += pieces
    return tokens


@wrong(
    "bpe_encode",
    "Your first word has a marker as well. There is no space before it: Ġ stands in front of every word but the first.",
)
def marks_every_word(text, merges):
    tokens = []
    for word in text.split():
        pieces = ["Ġ", *word]
        for pair in merges:
            pieces = merge_from_left(pieces, pair)
        tokens += pieces
    return tokens


@wrong(
    "bpe_encode",
    "Your tokens come as a list for each word. One list for the whole text is asked for: `+=` adds a word's tokens to "
    "it, where `append` adds the list.",
)
def a_list_for_each_word(text, merges):
    tokens = []
    for word in marked_words(text):
        pieces = list(word)
        for pair in merges:
            pieces = merge_from_left(pieces, pair)
        tokens.append(pieces)
    return tokens


@right("bpe_encode")
def lowest_rank_first(text, merges):
    ranks = {tuple(pair): rank for rank, pair in enumerate(merges)}
    tokens = []
    for word in marked_words(text):
        pieces = list(word)
        while candidates := [pair for pair in zip(pieces, pieces[1:], strict=False) if pair in ranks]:
            pieces = merge_from_left(pieces, min(candidates, key=ranks.get))
        tokens += pieces
    return tokens


@right("bpe_encode")
def encodes_by_expression(text, merges):
    pieces = [" ".join(word) for word in marked_words(text)]
    for pair in merges:
        pattern = re.compile(r"(?<!\S)" + re.escape(" ".join(pair)) + r"(?!\S)")
        pieces = [pattern.sub(lambda _, pair=pair: "".join(pair), word) for word in pieces]
    return [piece for word in pieces for piece in word.split()]


# --- embed


@wrong(
    "embed",
    "You scale the vectors by √d_model. Vaswani et al. (2017) do that; GPT-2 and this course "
    "add the looked-up rows as they are.",
)
def scales_by_root_of_width(tokens, W_E):
    return W_E[tokens] * W_E.shape[1] ** 0.5


@wrong(
    "embed",
    "Your vectors have unit length. The length of an embedding is learnt like its direction; "
    "look the row up and leave it as it is.",
)
def normalises(tokens, W_E):
    return F.normalize(W_E[tokens], dim=-1)


@wrong("embed", "You pick columns of W_E. Tokens are its rows: W_E is [d_vocab, d_model].")
def picks_columns(tokens, W_E):
    return W_E.T[tokens]


@wrong("embed", "Every sequence of your batch gets the vectors of the first one.")
def first_sequence_only(tokens, W_E):
    return W_E[tokens[0]].expand(*tokens.shape, W_E.shape[1])


@wrong(
    "embed",
    "No gradient reaches W_E, so it could never be trained: your table is a frozen one (as `from_pretrained` makes it "
    "unless told otherwise), a copy that is cut off (`detach`, `.data`), or another table altogether.",
)
def frozen_table(tokens, W_E):
    return nn.Embedding.from_pretrained(W_E)(tokens)


@wrong(
    "embed",
    "Your one-hot vectors are only as long as the largest token of this prompt asks for. Their "
    "length is d_vocab, whatever the prompt says: `num_classes`.",
)
def one_hot_of_prompt(tokens, W_E):
    return F.one_hot(tokens).to(W_E.dtype) @ W_E


@wrong("embed", "You go through float32 on the way. The result should have the dtype of W_E.")
def through_float32(tokens, W_E):
    return F.one_hot(tokens, W_E.shape[0]).float() @ W_E.float()


@wrong(
    "embed",
    "Your one-hot vectors are float32 whatever W_E is, and a product of two dtypes is an error: a table in float64 "
    "can't be looked up in. Make them in the dtype of W_E.",
)
def one_hot_in_float32(tokens, W_E):
    return F.one_hot(tokens, W_E.shape[0]).float() @ W_E


@wrong("embed", "The rows come in one long list. Keep the shape of the tokens: [batch, pos, d_model].")
def in_one_list(tokens, W_E):
    return W_E[tokens.flatten()]


@wrong(
    "embed",
    "Token 0 gets no gradient, so its vector could never be trained (`padding_idx=0` does that, for one). Here it is a "
    "token like any other.",
)
def zero_is_padding(tokens, W_E):
    return F.embedding(tokens, W_E, padding_idx=0)


@wrong("embed", "You subtract each vector's mean. Look the row up and leave it as it is.")
def centres(tokens, W_E):
    rows = W_E[tokens]
    return rows - rows.mean(dim=-1, keepdim=True)


@wrong("embed", "You take token ids to begin at 1. They begin at 0, so that token t has row t.")
def ids_from_one(tokens, W_E):
    return W_E[tokens - 1]


@wrong("embed", "You hand float64 back, also where W_E is float32. The result should have the dtype of W_E.")
def through_float64(tokens, W_E):
    return W_E.double()[tokens]


@right("embed")
def one_hot_product(tokens, W_E):
    return F.one_hot(tokens, W_E.shape[0]).to(W_E.dtype) @ W_E


@right("embed")
def library_lookup(tokens, W_E):
    return F.embedding(tokens, W_E)


@right("embed")
def row_by_row(tokens, W_E):
    return torch.stack([torch.stack([W_E[token] for token in row]) for row in tokens])


# --- positional_embed


def refuse_too_long(tokens, W_pos):
    if tokens.shape[1] > W_pos.shape[0]:
        raise ValueError("too long")


@wrong(
    "positional_embed",
    "You look W_pos up by token. It is indexed by place: 0, 1, 2, … in every sequence, whatever stands there.",
)
def looks_up_by_token(tokens, W_pos):
    refuse_too_long(tokens, W_pos)
    return W_pos[tokens]


@wrong(
    "positional_embed",
    "The rows are right, but there is one copy and not one for each sequence of the "
    "batch. Adding would still work by broadcasting; a function that promises "
    "[batch, pos, d_model] should return it.",
)
def without_batch(tokens, W_pos):
    refuse_too_long(tokens, W_pos)
    return W_pos[: tokens.shape[1]]


@wrong("positional_embed", "You return all n_ctx rows. A prompt is often shorter: take as many rows as it has tokens.")
def whole_table(tokens, W_pos):
    refuse_too_long(tokens, W_pos)
    return W_pos.expand(len(tokens), *W_pos.shape)


@wrong(
    "positional_embed",
    "You count positions from 1, so row 0 is never used and a full context runs off "
    "the end. The first token is at position 0.",
)
def counts_from_one(tokens, W_pos):
    refuse_too_long(tokens, W_pos)
    return W_pos[torch.arange(1, tokens.shape[1] + 1)].expand(*tokens.shape, W_pos.shape[1])


@wrong(
    "positional_embed",
    "You begin with row 1, so that row 0 is never used, and stop at the last row where a text fills the context. The "
    "first token is at position 0.",
)
def counts_from_one_to_the_last_row(tokens, W_pos):
    refuse_too_long(tokens, W_pos)
    places = torch.arange(1, tokens.shape[1] + 1).clamp(max=len(W_pos) - 1)
    return W_pos[places].expand(*tokens.shape, W_pos.shape[1])


@wrong(
    "positional_embed",
    "You take the last rows of W_pos, as if every prompt ended at the end of the "
    "context. Count from its beginning, so that a longer prompt does not move the "
    "earlier tokens.",
)
def aligned_to_the_end(tokens, W_pos):
    refuse_too_long(tokens, W_pos)
    return W_pos[len(W_pos) - tokens.shape[1] :].expand(*tokens.shape, W_pos.shape[1])


@wrong(
    "positional_embed",
    "A prompt that is too long goes through with fewer rows than tokens, because a "
    "slice never complains. Compare the lengths and raise a ValueError.",
)
def slices_without_asking(tokens, W_pos):
    return repeat(W_pos[: tokens.shape[1]], "pos d_model -> batch pos d_model", batch=tokens.shape[0])


@wrong(
    "positional_embed",
    "No gradient reaches W_pos: copy the rows with "
    "operations that autograd follows, not with `detach`, `.data` or a new tensor.",
)
def cut_from_the_graph(tokens, W_pos):
    refuse_too_long(tokens, W_pos)
    return W_pos.detach()[: tokens.shape[1]].repeat(tokens.shape[0], 1, 1)


@wrong(
    "positional_embed",
    "The rows are right, but there is one copy, [1, pos, d_model], and not one for each sequence of the batch.",
)
def one_copy_for_the_batch(tokens, W_pos):
    refuse_too_long(tokens, W_pos)
    return W_pos[None, : tokens.shape[1]]


@wrong(
    "positional_embed",
    "A sequence as long as n_ctx is refused. It fits: only longer ones do not.",
)
def refuses_full_context(tokens, W_pos):
    if tokens.shape[1] >= W_pos.shape[0]:
        raise ValueError("too long")
    return W_pos[: tokens.shape[1]].expand(*tokens.shape, W_pos.shape[1])


@wrong(
    "positional_embed",
    "A sequence that is too long ends in an IndexError. Compare the lengths first, and raise a ValueError that says "
    "what is the matter.",
)
def runs_off_the_end(tokens, W_pos):
    return W_pos[torch.arange(tokens.shape[1])].expand(*tokens.shape, W_pos.shape[1])


@wrong(
    "positional_embed", "A sequence that is too long ends in an AssertionError. The docstring promises a ValueError."
)
def asserts_the_length(tokens, W_pos):
    assert tokens.shape[1] <= W_pos.shape[0]
    return W_pos[: tokens.shape[1]].expand(*tokens.shape, W_pos.shape[1])


@wrong(
    "positional_embed",
    "You give each sequence of the batch the row of its place in the batch. Positions are counted along the text.",
)
def counts_along_the_batch(tokens, W_pos):
    refuse_too_long(tokens, W_pos)
    places = torch.arange(len(tokens)).clamp(max=len(W_pos) - 1)
    return W_pos[places][:, None].expand(*tokens.shape, W_pos.shape[1])


@wrong("positional_embed", "You hand float32 back, also where W_pos is float64.")
def positions_in_float32(tokens, W_pos):
    refuse_too_long(tokens, W_pos)
    return W_pos[: tokens.shape[1]].float().expand(*tokens.shape, W_pos.shape[1])


@wrong(
    "positional_embed",
    "These are the sines and cosines of Vaswani et al. (2017). Here positions have rows of W_pos, which are learnt.",
)
def sines_and_cosines(tokens, W_pos):
    refuse_too_long(tokens, W_pos)
    d_model = W_pos.shape[1]
    columns = torch.arange(d_model)
    angles = torch.arange(tokens.shape[1])[:, None] / 10_000 ** (2 * (columns // 2) / d_model)
    waves = torch.where(columns % 2 == 0, angles.sin(), angles.cos()).to(W_pos.dtype)
    return waves.expand(*tokens.shape, d_model)


@right("positional_embed")
def repeats_rows(tokens, W_pos):
    refuse_too_long(tokens, W_pos)
    return repeat(W_pos[: tokens.shape[1]], "pos d_model -> batch pos d_model", batch=tokens.shape[0])


@right("positional_embed")
def looks_up_positions(tokens, W_pos):
    refuse_too_long(tokens, W_pos)
    return F.embedding(torch.arange(tokens.shape[1]).expand_as(tokens), W_pos)


# --- unembed


@wrong("unembed", "The bias is missing. It is one number for each token, added at every position.")
def forgets_the_bias(resid, W_U, b_U):
    return resid @ W_U


@wrong(
    "unembed",
    "You return probabilities. Logits go on to the loss, which takes the softmax itself, and "
    "to the lenses of later chapters, which need them as they are.",
)
def softmax_already(resid, W_U, b_U):
    return (resid @ W_U + b_U).softmax(-1)


@wrong(
    "unembed",
    "You return log-probabilities. They look like logits, but each depends on all the others; "
    "leave the normalisation to the loss.",
)
def log_softmax_already(resid, W_U, b_U):
    return (resid @ W_U + b_U).log_softmax(-1)


@wrong(
    "unembed",
    "You return the last position only. That is enough to generate, but training and reading need every position.",
)
def last_position_only(resid, W_U, b_U):
    return resid[:, -1:] @ W_U + b_U


@wrong(
    "unembed",
    "You multiply with W_U transposed. W_U is [d_model, d_vocab] already; `F.linear` wants the other orientation.",
)
def transposed(resid, W_U, b_U):
    return F.linear(resid, W_U, b_U)


@wrong(
    "unembed", "You normalise the residual stream first. The final layer norm is a layer of its own, before this one."
)
def normalises_first(resid, W_U, b_U):
    return F.layer_norm(resid, resid.shape[-1:]) @ W_U + b_U


@wrong(
    "unembed",
    "No gradient reaches the weights: something cuts the graph (`detach`, `.data`, `torch.no_grad`).",
)
def weights_cut_off(resid, W_U, b_U):
    return resid @ W_U.detach() + b_U.detach()


@wrong("unembed", "The stream is detached: the loss could train W_U and b_U, and nothing before.")
def stream_cut_off(resid, W_U, b_U):
    return resid.detach() @ W_U + b_U


@wrong("unembed", "Nothing gets a gradient, neither the stream nor the weights.")
def everything_cut_off(resid, W_U, b_U):
    with torch.no_grad():
        return resid @ W_U + b_U


@wrong("unembed", "No gradient reaches W_U.")
def matrix_cut_off(resid, W_U, b_U):
    return resid @ W_U.detach() + b_U


@wrong("unembed", "No gradient reaches b_U.")
def bias_cut_off(resid, W_U, b_U):
    return resid @ W_U + b_U.detach()


@wrong(
    "unembed",
    "You return the last position only, and its dimension is gone. That is enough to generate, but training and "
    "reading need every position.",
)
def last_position_alone(resid, W_U, b_U):
    return resid[:, -1] @ W_U + b_U


@wrong(
    "unembed", "You divide by the square root of d_model. That scale belongs to attention's scores; logits have none."
)
def scaled_logits(resid, W_U, b_U):
    return resid @ W_U / W_U.shape[0] ** 0.5 + b_U


@wrong("unembed", "You subtract the bias. It is added.")
def bias_subtracted(resid, W_U, b_U):
    return resid @ W_U - b_U


@wrong("unembed", "You hand float32 back, also where float64 came in.")
def logits_in_float32(resid, W_U, b_U):
    return resid.float() @ W_U.float() + b_U.float()


@right("unembed")
def with_einsum(resid, W_U, b_U):
    return einsum(resid, W_U, "batch pos d_model, d_model d_vocab -> batch pos d_vocab") + b_U


@right("unembed")
def with_linear(resid, W_U, b_U):
    return F.linear(resid, W_U.T, b_U)


@right("unembed")
def token_by_token(resid, W_U, b_U):
    return torch.stack([(resid * W_U[:, t]).sum(-1) + b_U[t] for t in range(W_U.shape[1])], dim=-1)
