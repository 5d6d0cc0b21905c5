"""Wrong answers for the head detectors, each with its sentence, and right ones."""

import torch

from utils.course.catalogue import right, wrong

# previous_token_score


def enough(patterns):
    if patterns.shape[-1] < 3:
        raise ValueError("too few positions")


def off_diagonal(patterns, offset):
    return patterns.diagonal(offset=offset, dim1=-2, dim2=-1)


@wrong(
    "previous_token_score",
    "You count position 1 as well, where there are two keys to choose from and half the attention is there by default. "
    "The mean begins at position 2.",
)
def from_position_1(patterns):
    enough(patterns)
    return off_diagonal(patterns, -1).mean(-1)


@wrong(
    "previous_token_score",
    "You look above the diagonal, at the token to come. Row i looks at column j: the token before stands one below.",
)
def next_token(patterns):
    enough(patterns)
    return off_diagonal(patterns, 1)[..., 1:].mean(-1)


@wrong("previous_token_score", "You take what each query gives to itself: the diagonal. The token before is one below.")
def itself(patterns):
    enough(patterns)
    return off_diagonal(patterns, 0)[..., 2:].mean(-1)


@wrong(
    "previous_token_score",
    "You divide by all positions, also by those that do not count, so that a perfect head has less than 1.",
)
def divided_by_all(patterns):
    enough(patterns)
    return off_diagonal(patterns, -1)[..., 1:].sum(-1) / patterns.shape[-1]


@wrong("previous_token_score", "You average over the texts as well. An interval needs one score for each text.")
def over_texts(patterns):
    enough(patterns)
    return off_diagonal(patterns, -1)[..., 1:].mean((0, -1))


@wrong(
    "previous_token_score",
    "You count how often the token before gets the most. The score is how much it gets.",
)
def how_often(patterns):
    enough(patterns)
    before = torch.arange(1, patterns.shape[-1] - 1)
    return (patterns[..., 2:, :].argmax(-1) == before).float().mean(-1)


@right("previous_token_score")
def loop_over_queries(patterns):
    n = patterns.shape[-1]
    if n < 3:
        raise ValueError("three positions")
    return sum(patterns[:, :, i, i - 1] for i in range(2, n)) / (n - 2)


# duplicate_token_score and induction_score


def score_of(patterns, sought, *, counts=None, empty=torch.nan):
    """The mean over the queries that count of what they give to the keys that are sought."""
    counts = sought.any(-1) if counts is None else counts
    given = (patterns * sought[:, None]).sum(-1)
    total, n = (given * counts[:, None]).sum(-1), counts.sum(-1)[:, None]
    return torch.where(n > 0, total / n.clamp(min=1), torch.full_like(total, empty))


def copies(tokens, diagonal=-1):
    return (tokens[:, :, None] == tokens[:, None, :]).tril(diagonal)


def behind(tokens, diagonal=-1):
    before = torch.cat([torch.full_like(tokens[:, :1], -1), tokens[:, :-1]], 1)
    return (tokens[:, :, None] == before[:, None, :]).tril(diagonal)


def latest(sought):
    """Of each query's keys the last one."""
    places = torch.arange(sought.shape[-1])
    last = torch.where(sought, places, -1).amax(-1, keepdim=True)
    return sought & (places == last)


def earliest(sought):
    places = torch.arange(sought.shape[-1])
    first = torch.where(sought, places, sought.shape[-1]).amin(-1, keepdim=True)
    return sought & (places == first)


def all_queries(sought):
    return torch.ones_like(sought[..., 0])


@wrong(
    "duplicate_token_score",
    "You count a token as a copy of itself: a head that looks at its own position gets a full score. Copies stand "
    "earlier.",
)
def own_copy(patterns, tokens):
    return score_of(patterns, copies(tokens, 0))


@wrong(
    "duplicate_token_score",
    "The right queries count, and what they give to themselves is added to what they give to copies: the diagonal "
    "is among your keys. Copies stand earlier.",
)
def itself_among_the_copies(patterns, tokens):
    return score_of(patterns, copies(tokens, 0), counts=copies(tokens).any(-1))


@wrong("duplicate_token_score", "Of several copies you take the last one alone. What goes to all of them is added up.")
def last_copy(patterns, tokens):
    return score_of(patterns, latest(copies(tokens)))


@wrong(
    "duplicate_token_score",
    "You average over all queries, also over those whose token is new. They have nothing to find, and a text with few "
    "repetitions would make every head look bad.",
)
def every_query(patterns, tokens):
    sought = copies(tokens)
    nothing = torch.where(sought.any((1, 2)), 0, torch.nan)
    return score_of(patterns, sought, counts=all_queries(sought)) + nothing[:, None]


@wrong("duplicate_token_score", "You look behind the copies: that is what an induction head does.")
def behind_the_copy(patterns, tokens):
    return score_of(patterns, behind(tokens))


@wrong(
    "duplicate_token_score",
    "A text in which nothing comes again has a score of 0 in your answer, as if its heads had failed. NaN says that "
    "nothing was asked.",
)
def zero_without_copies(patterns, tokens):
    return score_of(patterns, copies(tokens), empty=0.0)


@wrong(
    "duplicate_token_score",
    "You divide what a query gives to its copies by their number. A head that divides its attention among three copies "
    "does not look less at copies.",
)
def mean_over_copies(patterns, tokens):
    sought = copies(tokens)
    shared = patterns / sought.sum(-1).clamp(min=1)[:, None, :, None]
    return score_of(shared, sought)


@right("duplicate_token_score")
def duplicate_loops(patterns, tokens):
    scores = torch.full(patterns.shape[:2], torch.nan)
    for b, row in enumerate(tokens.tolist()):
        found = []
        for i in range(len(row)):
            keys = [j for j in range(i) if row[j] == row[i]]
            if keys:
                found.append(patterns[b, :, i, keys].sum(-1))
        if found:
            scores[b] = torch.stack(found).mean(0)
    return scores


@wrong(
    "induction_score",
    "You look at the copies themselves: that is what a duplicate-token head does. The answer stands one behind.",
)
def at_the_copy(patterns, tokens):
    return score_of(patterns, copies(tokens))


@wrong("induction_score", "You look before the copies. What followed them stands one behind.")
def before_the_copy(patterns, tokens):
    after = torch.cat([tokens[:, 1:], torch.full_like(tokens[:, :1], -1)], 1)
    return score_of(patterns, (tokens[:, :, None] == after[:, None, :]).tril(-2))


@wrong(
    "induction_score",
    "You let a query be its own key: where a word follows itself, the place behind its copy is the query's own. Keys "
    "stand earlier.",
)
def own_key(patterns, tokens):
    return score_of(patterns, behind(tokens, 0))


@wrong("induction_score", "Of several places you take the last one alone. What goes to all of them is added up.")
def last_place(patterns, tokens):
    return score_of(patterns, latest(behind(tokens)))


@wrong("induction_score", "Of several places you take the first one alone. What goes to all of them is added up.")
def first_place(patterns, tokens):
    return score_of(patterns, earliest(behind(tokens)))


@wrong(
    "induction_score",
    "You average over all queries, also over those whose token is new and which have nothing to find.",
)
def every_query_counts(patterns, tokens):
    sought = behind(tokens)
    nothing = torch.where(sought.any((1, 2)), 0, torch.nan)
    return score_of(patterns, sought, counts=all_queries(sought)) + nothing[:, None]


@wrong(
    "induction_score",
    "A text without a query that counts has a score of 0 in your answer, as if its heads had failed. NaN says that "
    "nothing was asked.",
)
def zero_if_nothing_is_repeated(patterns, tokens):
    return score_of(patterns, behind(tokens), empty=0.0)


@right("induction_score")
def induction_loops(patterns, tokens):
    rows = []
    for pattern, row in zip(patterns, tokens.tolist(), strict=True):
        found = [
            pattern[:, i, [k for k in range(1, i) if row[k - 1] == row[i]]].sum(-1)
            for i in range(len(row))
            if any(row[k - 1] == row[i] for k in range(1, i))
        ]
        rows.append(torch.stack(found).mean(0) if found else torch.full((patterns.shape[1],), torch.nan))
    return torch.stack(rows)
