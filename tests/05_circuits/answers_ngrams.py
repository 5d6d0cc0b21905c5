"""Wrong answers for the n-gram model, each with its sentence, and right ones."""

from collections import Counter

import torch

from utils.course.catalogue import right, wrong

# ngram_log_probs


def refuse(order, strength):
    if order < 1 or strength <= 0:
        raise ValueError("order and strength")


def model_of(
    rows, tokens, order, d_vocab, strength, *, history=None, followed_only=True, lower=True, longest=0,
    shorter="oldest", shortest_end=1,
):  # fmt: skip
    """The model, with one thing or another done differently."""
    history = history or (lambda row, i, n: tuple(row[i - n + 1 : i]))
    seen, followed = Counter(), Counter()
    for row in rows:
        for i in range(len(row) + (not followed_only)):
            for n in range(1 if i < len(row) else shortest_end, min(order + longest, i + 1) + 1):
                h = history(row, i, n)
                followed[h] += 1
                if i < len(row):
                    seen[h, row[i]] += 1
    out = torch.empty(len(tokens), len(tokens[0]), dtype=torch.float64)
    for b, row in enumerate(tokens):
        for i, word in enumerate(row):
            top = min(order + longest, i + 1)
            p = 1 / d_vocab
            for n in range(1, top + 1):
                full = history(row, i, top)
                h = history(row, i, n) if shorter == "oldest" else full[: n - 1]
                base = p if lower else 1 / d_vocab
                p = (seen[h, word] + strength * base) / (followed[h] + strength)
            out[b, i] = p
    return out.log()


@wrong(
    "ngram_log_probs",
    "You smooth with the uniform distribution in every order. A history that was never seen should fall back on the "
    "next shorter one, and only the shortest on 1 / d_vocab.",
)
def no_lower_order(train, tokens, order, d_vocab, *, strength=1.0):
    refuse(order, strength)
    return model_of(train.tolist(), tokens.tolist(), order, d_vocab, strength, lower=False)


@wrong(
    "ngram_log_probs",
    "You count over the ends of rows, as if one text went on in the next.",
)
def across_rows(train, tokens, order, d_vocab, *, strength=1.0):
    refuse(order, strength)
    return model_of([train.flatten().tolist()], tokens.tolist(), order, d_vocab, strength)


@wrong(
    "ngram_log_probs",
    "You count a history also where nothing follows it, at the end of a row. The probabilities of what can follow then "
    "sum to less than one.",
)
def ends_counted(train, tokens, order, d_vocab, *, strength=1.0):
    refuse(order, strength)
    return model_of(train.tolist(), tokens.tolist(), order, d_vocab, strength, followed_only=False)


@wrong(
    "ngram_log_probs",
    "From order 2 on you count a history wherever it stands, also at the end of a row, where nothing follows it. The "
    "probabilities of what can follow then sum to less than one.",
)
def ends_counted_from_order_2(train, tokens, order, d_vocab, *, strength=1.0):
    refuse(order, strength)
    return model_of(train.tolist(), tokens.tolist(), order, d_vocab, strength, followed_only=False, shortest_end=2)


@wrong(
    "ngram_log_probs",
    "Your model of order n looks at n tokens. Order 1 looks at none, and order n at n - 1.",
)
def one_more(train, tokens, order, d_vocab, *, strength=1.0):
    refuse(order, strength)
    return model_of(train.tolist(), tokens.tolist(), order, d_vocab, strength, longest=1)


@wrong(
    "ngram_log_probs",
    "You fit the model to the text that it is to predict as well. It knows the answers then.",
)
def sees_the_test(train, tokens, order, d_vocab, *, strength=1.0):
    refuse(order, strength)
    return model_of(train.tolist() + tokens.tolist(), tokens.tolist(), order, d_vocab, strength)


@wrong(
    "ngram_log_probs",
    "To shorten a history you leave out its newest token. What is nearest says most: leave out the oldest.",
)
def newest_left_out(train, tokens, order, d_vocab, *, strength=1.0):
    refuse(order, strength)
    return model_of(train.tolist(), tokens.tolist(), order, d_vocab, strength, shorter="newest")


@wrong("ngram_log_probs", "You return losses: log-probabilities are never above 0.")
def losses(train, tokens, order, d_vocab, *, strength=1.0):
    refuse(order, strength)
    return -model_of(train.tolist(), tokens.tolist(), order, d_vocab, strength)


@wrong("ngram_log_probs", "You return probabilities, not their logarithms.")
def probabilities(train, tokens, order, d_vocab, *, strength=1.0):
    refuse(order, strength)
    return model_of(train.tolist(), tokens.tolist(), order, d_vocab, strength).exp()


@wrong("ngram_log_probs", "Your answer does not change with `strength`.")
def strength_ignored(train, tokens, order, d_vocab, *, strength=1.0):
    refuse(order, strength)
    return model_of(train.tolist(), tokens.tolist(), order, d_vocab, 1.0)


@right("ngram_log_probs")
def recursive(train, tokens, order, d_vocab, *, strength=1.0):
    if order < 1 or not strength > 0:
        raise ValueError("order and strength")
    tables = {}
    for row in train.tolist():
        for i, word in enumerate(row):
            for length in range(min(order - 1, i) + 1):
                table = tables.setdefault(tuple(row[i - length : i]), {})
                table[word] = table.get(word, 0) + 1

    def p(word, history):
        below = p(word, history[1:]) if history else 1 / d_vocab
        table = tables.get(tuple(history), {})
        return (table.get(word, 0) + strength * below) / (sum(table.values()) + strength)

    rows = [[p(row[i], row[max(0, i - order + 1) : i]) for i in range(len(row))] for row in tokens.tolist()]
    return torch.tensor(rows, dtype=torch.float64).log()
