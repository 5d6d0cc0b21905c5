"""Byte-pair encoding: how a text is cut into tokens."""

from collections import Counter


def bpe_train(text: str, n_merges: int) -> list[tuple[str, str]]:
    """Learn the merges of a byte-pair encoding, on characters.

    The text is split at whitespace into words, and nothing is ever merged across words. Every word except the
    first is written with the marker ``Ġ`` in front, for the space before it. At the start each character,
    also the marker, is a piece of its own. Then, ``n_merges`` times, the most frequent pair of neighbouring
    pieces becomes one piece everywhere.

    A pair counts wherever two pieces stand side by side, overlaps included (``a a a`` holds the pair ``a a``
    twice), once for each occurrence of the word in the text. Of several pairs with the highest count, the one
    that sorts first as a Python tuple is taken. Inside a word, a pair is merged from left to right.

    Args:
        text: What to learn from; it should not contain the marker itself.
        n_merges: How many merges to learn, at least 0.

    Returns:
        The merges (left piece, right piece) in the order in which they were learnt; fewer than ``n_merges``
        if every word has become a single piece before that.

    Raises:
        ValueError: If ``n_merges`` is negative.

    Source: Sennrich et al. (2016), "Neural Machine Translation of Rare Words with Subword Units",
    section 3.2.
    """
    # Given: every distinct word as a tuple of pieces, and how often it occurs
    if n_merges < 0:
        raise ValueError(f"n_merges must be at least 0, got {n_merges}")
    first, *others = text.split() or [""]
    words = Counter([tuple(first)] + [tuple("Ġ" + word) for word in others])
    # Yours: learn the merges
    merges = []
    for _ in range(n_merges):
        pairs = Counter()
        for pieces, count in words.items():
            for pair in zip(pieces, pieces[1:], strict=False):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        merged_words = Counter()
        for pieces, count in words.items():
            merged, i = [], 0
            while i < len(pieces):
                step = 2 if pieces[i : i + 2] == best else 1
                merged.append("".join(pieces[i : i + step]))
                i += step
            merged_words[tuple(merged)] += count
        words = merged_words
    return merges


def bpe_encode(text: str, merges: list[tuple[str, str]]) -> list[str]:
    """Cut a text into the tokens of a byte-pair encoding.

    Words are split and marked as in training: at whitespace, with ``Ġ`` in front of every word except the
    first. Each word begins as single characters. Of the merges that apply to it, the one that was learnt
    first is carried out first, at each place from left to right, until none applies.

    Args:
        text: Any text, also with words and characters that the training text did not have.
        merges: Merges in the order in which they were learnt: none stands before those that make its pieces. A merge
            applies to its own two pieces only, and not to others that make the same text.

    Returns:
        The tokens in order, none for an empty text. Joined, with ``Ġ`` read as a space, they give the text back
        with single spaces.

    Source: Sennrich et al. (2016), "Neural Machine Translation of Rare Words with Subword Units",
    section 3.2.
    """
    # Given: the words, marked as in training
    first, *others = text.split() or [""]
    words = [first] + ["Ġ" + word for word in others]
    # Yours: cut each word into tokens
    tokens = []
    for word in words:
        pieces = tuple(word)
        for pair in merges:  # a merge makes pairs of later ranks only, so one pass in order is enough
            merged, i = [], 0
            while i < len(pieces):
                step = 2 if pieces[i : i + 2] == tuple(pair) else 1
                merged.append("".join(pieces[i : i + step]))
                i += step
            pieces = tuple(merged)
        tokens += pieces
    return tokens
