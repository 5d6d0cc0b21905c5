"""Wrong answers for repeated tokens and losses along a text, each with its sentence, and right ones."""

import torch
import torch.nn.functional as F

from utils.course.catalogue import right, wrong

# repeated_random_tokens


def pool_of(candidates, first, period):
    allowed = candidates[candidates != first]
    if not 1 <= period <= len(allowed):
        raise ValueError("no such period")
    return allowed


def permuted(n, period, allowed, generator):
    order = torch.rand(n, len(allowed), generator=generator).argsort(dim=-1)
    return allowed[order[:, :period]]


def joined(first, one, other):
    return torch.cat([torch.full_like(one[:, :1], first), one, other], dim=1)


@wrong(
    "repeated_random_tokens",
    "You draw with replacement: a token can come twice within a period. Then two different tokens have followed it, "
    "and which one should be predicted is a matter of luck.",
)
def with_replacement(n, period, candidates, first, generator):
    allowed = pool_of(candidates, first, period)
    drawn = allowed[torch.randint(len(allowed), (n, period), generator=generator)]
    return joined(first, drawn, drawn)


@wrong(
    "repeated_random_tokens",
    "You draw `first` like any other candidate. The token at the beginning would then stand inside the row as well, "
    "followed by something else.",
)
def first_is_drawn(n, period, candidates, first, generator):
    pool_of(candidates, first, period)
    drawn = permuted(n, period, candidates, generator)
    return joined(first, drawn, drawn)


@wrong(
    "repeated_random_tokens",
    "You count `first` as a candidate, and draw it like any other. The token at the beginning would then stand inside "
    "the row as well, followed by something else.",
)
def first_is_a_candidate(n, period, candidates, first, generator):
    drawn = permuted(n, period, pool_of(candidates, -1, period), generator)
    return joined(first, drawn, drawn)


@wrong(
    "repeated_random_tokens",
    "You permute the first `period` candidates. Those behind them are never drawn, and all rows have the same tokens.",
)
def first_of_the_list(n, period, candidates, first, generator):
    drawn = permuted(n, period, pool_of(candidates, first, period)[:period], generator)
    return joined(first, drawn, drawn)


@wrong(
    "repeated_random_tokens",
    "You permute the last `period` candidates. Those before them are never drawn, and all rows have the same tokens.",
)
def last_of_the_list(n, period, candidates, first, generator):
    drawn = permuted(n, period, pool_of(candidates, first, period)[-period:], generator)
    return joined(first, drawn, drawn)


@wrong(
    "repeated_random_tokens",
    "You draw once which tokens come, and for each row their order alone. What is special about these tokens is then "
    "special about all rows: draw for each row anew.",
)
def one_selection_for_all(n, period, candidates, first, generator):
    allowed = pool_of(candidates, first, period)
    chosen = allowed[torch.randperm(len(allowed), generator=generator)[:period]]
    drawn = permuted(n, period, chosen, generator)
    return joined(first, drawn, drawn)


@wrong(
    "repeated_random_tokens",
    "You draw which tokens come, and not in which order: within a row they stand as in the list of candidates. That is "
    "an order which a model could know.",
)
def in_the_order_of_the_list(n, period, candidates, first, generator):
    allowed = pool_of(candidates, first, period)
    drawn = allowed[torch.rand(n, len(allowed), generator=generator).argsort(dim=-1)[:, :period].sort(dim=-1).values]
    return joined(first, drawn, drawn)


@wrong(
    "repeated_random_tokens",
    "You draw which tokens come, and not in which order: within a row the ids only rise. That is an order which a "
    "model could know.",
)
def in_rising_order(n, period, candidates, first, generator):
    drawn = permuted(n, period, pool_of(candidates, first, period), generator).sort(dim=-1).values
    return joined(first, drawn, drawn)


@wrong(
    "repeated_random_tokens",
    "All your rows have the same tokens in the same order. One row is one observation, however often you copy it.",
)
def one_row_for_all(n, period, candidates, first, generator):
    drawn = permuted(1, period, pool_of(candidates, first, period), generator).repeat(n, 1)
    return joined(first, drawn, drawn)


@wrong(
    "repeated_random_tokens",
    "The second time the tokens come in an order of their own. What a token was followed by the first time says "
    "nothing then about the second.",
)
def shuffled_again(n, period, candidates, first, generator):
    drawn = permuted(n, period, pool_of(candidates, first, period), generator)
    order = torch.rand(n, period, generator=generator).argsort(dim=-1)
    return joined(first, drawn, drawn.gather(1, order))


@wrong(
    "repeated_random_tokens",
    "You cut stretches out of the list of candidates: each token is followed by its neighbour there. That is an order "
    "which a model could know; draw each place anew.",
)
def stretches(n, period, candidates, first, generator):
    allowed = pool_of(candidates, first, period)
    start = torch.randint(len(allowed), (n, 1), generator=generator)
    drawn = allowed[(start + torch.arange(period)) % len(allowed)]
    return joined(first, drawn, drawn)


@wrong(
    "repeated_random_tokens",
    "Your tokens do not come from the generator that is handed in: two calls give the same rows.",
)
def own_generator(n, period, candidates, first, generator):
    drawn = permuted(n, period, pool_of(candidates, first, period), torch.Generator().manual_seed(0))
    return joined(first, drawn, drawn)


@wrong(
    "repeated_random_tokens",
    "From a generator in the same state you draw other tokens: your draw, or a part of it, comes from elsewhere. Hand "
    "`generator` to each random function that you call.",
)
def the_global_generator(n, period, candidates, first, generator):
    drawn = permuted(n, period, pool_of(candidates, first, period), None)
    return joined(first, drawn, drawn)


@wrong(
    "repeated_random_tokens",
    "You count the candidates before you take out `first`, so that a period for which one is missing goes through.",
)
def counts_first(n, period, candidates, first, generator):
    pool_of(candidates, -1, period)
    drawn = permuted(n, period, candidates[candidates != first], generator)
    return joined(first, drawn, drawn)


@wrong(
    "repeated_random_tokens",
    "`first` stands before each of the two times. The repetition then announces itself, and the rows are a token too "
    "long.",
)
def first_twice(n, period, candidates, first, generator):
    drawn = permuted(n, period, pool_of(candidates, first, period), generator)
    start = torch.full_like(drawn[:, :1], first)
    return torch.cat([start, drawn, start, drawn], dim=1)


@right("repeated_random_tokens")
def with_randperm(n, period, candidates, first, generator):
    allowed = [int(word) for word in candidates if int(word) != first]
    if period < 1 or period > len(allowed):
        raise ValueError("period")
    rows = []
    for _ in range(n):
        half = [allowed[i] for i in torch.randperm(len(allowed), generator=generator)[:period]]
        rows.append([first] + half * 2)
    return torch.tensor(rows)


@right("repeated_random_tokens")
def with_multinomial(n, period, candidates, first, generator):
    allowed = pool_of(candidates, first, period)
    half = allowed[torch.multinomial(torch.ones(n, len(allowed)), period, replacement=False, generator=generator)]
    return F.pad(half.repeat(1, 2), (1, 0), value=first)


# loss_by_position


def matched(logits, tokens):
    if logits.shape[:-1] != tokens.shape:
        raise ValueError("shapes")


def losses_of(logits, tokens):
    return -logits[:, :-1].log_softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]


def with_nan(losses, first=True):
    column = torch.full_like(losses[:, :1], torch.nan)
    return torch.cat([column, losses] if first else [losses, column], dim=1)


@wrong(
    "loss_by_position",
    "Your losses stand at the position that predicts, and not at the token that is predicted: everything is one place "
    "too early, and the NaN at the end.",
)
def at_the_predicting_position(logits, tokens):
    matched(logits, tokens)
    return with_nan(losses_of(logits, tokens), first=False)


@wrong(
    "loss_by_position",
    "You read the loss on token i off the logits at position i, which have seen token i already and predict the next "
    "one.",
)
def not_shifted(logits, tokens):
    matched(logits, tokens)
    losses = -logits.log_softmax(-1).gather(-1, tokens[:, :, None])[..., 0]
    return with_nan(losses[:, 1:])


@wrong("loss_by_position", "You return log-probabilities: a loss is their negative, and never below 0.")
def log_probabilities(logits, tokens):
    matched(logits, tokens)
    return with_nan(-losses_of(logits, tokens))


@wrong("loss_by_position", "Your losses are in bits (base 2). In nats the logarithm is the natural one.")
def in_bits(logits, tokens):
    matched(logits, tokens)
    return with_nan(losses_of(logits, tokens) / torch.log(torch.tensor(2.0)))


@wrong(
    "loss_by_position",
    "Position 0 has a loss of 0 in your answer, as if the first token were predicted perfectly. A mean over positions "
    "would take it for that; NaN can't be overlooked.",
)
def zero_at_the_first(logits, tokens):
    matched(logits, tokens)
    return F.pad(losses_of(logits, tokens), (1, 0))


@wrong(
    "loss_by_position",
    "You take the logarithm of a softmax. Where a probability is too small for a float it is 0, and its logarithm "
    "minus infinity; `log_softmax` never makes that step.",
)
def log_of_softmax(logits, tokens):
    matched(logits, tokens)
    return with_nan(-logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0].log())


@wrong("loss_by_position", "You have averaged over the texts. Each text is to keep its own losses.")
def mean_over_texts(logits, tokens):
    matched(logits, tokens)
    return with_nan(losses_of(logits, tokens).mean(0, keepdim=True))


@right("loss_by_position")
def with_cross_entropy(logits, tokens):
    batch, pos = tokens.shape
    if tuple(logits.shape[:2]) != (batch, pos):
        raise ValueError("shapes")
    losses = torch.full((batch, pos), float("nan"), dtype=logits.dtype)
    for b in range(batch):
        if pos > 1:
            losses[b, 1:] = F.cross_entropy(logits[b, :-1], tokens[b, 1:], reduction="none")
    return losses


# in_context_learning_score


def windows(losses, early, late):
    for start, stop in (early, late):
        if start < 1 or stop <= start or stop > losses.shape[1]:
            raise ValueError("window")


def mean_of(losses, window):
    return losses[:, window[0] : window[1]].mean(1)


@wrong(
    "in_context_learning_score",
    "You subtract the late loss from the early one. The course, like Olsson et al. where they define it, has late less "
    "early: a model that learns from what it reads has a negative score.",
)
def early_less_late(losses, early, late):
    windows(losses, early, late)
    return mean_of(losses, early) - mean_of(losses, late)


@wrong("in_context_learning_score", "Your windows include their last position; `stop` is not part of a window.")
def stop_included(losses, early, late):
    windows(losses, early, late)
    return mean_of(losses, (late[0], late[1] + 1)) - mean_of(losses, (early[0], early[1] + 1))


@wrong("in_context_learning_score", "You sum over the windows: the longer one then weighs more. Take means.")
def sums(losses, early, late):
    windows(losses, early, late)
    return losses[:, late[0] : late[1]].sum(1) - losses[:, early[0] : early[1]].sum(1)


@wrong("in_context_learning_score", "You return one number for all rows. An interval needs one for each.")
def one_number(losses, early, late):
    windows(losses, early, late)
    return (mean_of(losses, late) - mean_of(losses, early)).mean()


@wrong(
    "in_context_learning_score",
    "You take the first position of each window alone. With a window of one position it comes to the same; else the "
    "rest of the window is left out.",
)
def first_positions(losses, early, late):
    windows(losses, early, late)
    return losses[:, late[0]] - losses[:, early[0]]


@wrong(
    "in_context_learning_score",
    "You let a window begin at position 0, where there is no loss: the NaN there is left out of the mean without a "
    "word. Refuse such a window.",
)
def nan_passed_over(losses, early, late):
    for start, stop in (early, late):
        if start < 0 or stop <= start or stop > losses.shape[1]:
            raise ValueError("window")
    return losses[:, late[0] : late[1]].nanmean(1) - losses[:, early[0] : early[1]].nanmean(1)


@wrong("in_context_learning_score", "You return a ratio. The score is a difference, in nats.")
def ratio(losses, early, late):
    windows(losses, early, late)
    return mean_of(losses, late) / mean_of(losses, early)


@right("in_context_learning_score")
def in_loops(losses, early, late):
    n = losses.shape[1]
    scores = []
    for (start, stop), sign in ((early, -1.0), (late, 1.0)):
        if not (0 < start < stop <= n):
            raise ValueError("window")
        scores.append(sign * sum(losses[:, i] for i in range(start, stop)) / (stop - start))
    return scores[0] + scores[1]
