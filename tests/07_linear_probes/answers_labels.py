"""Wrong answers for the labels of quotations, each with its sentence, and right ones."""

import torch

from utils.course.catalogue import right, wrong


def states(row, opening, closing, *, floor=True, depth=0):
    """For each token the number of open quotations before and behind it."""
    opening, closing, found = set(opening.tolist()), set(closing.tolist()), []
    for token in row:
        before = depth
        if token in closing and (depth > 0 or not floor and token not in opening):
            depth -= 1
        elif token in opening:
            depth += 1
        found.append((before, depth))
    return found


def labelled(tokens, opening, closing, rule, **kwargs):
    rows = [[rule(*state) for state in states(row, opening, closing, **kwargs)] for row in tokens.tolist()]
    return torch.tensor(rows, dtype=torch.bool).reshape(tokens.shape)


@wrong(
    "inside_quotes_labels",
    "You count the closing mark as inside. Once it has been read the quotation is over, and it is the state behind "
    "each token that is asked for.",
)
def closing_inside(tokens, opening, closing):
    return labelled(tokens, opening, closing, lambda before, behind: before > 0 or behind > 0)


@wrong(
    "inside_quotes_labels",
    "You give each token the state before it: the opening mark is outside and the closing one inside. It is the state "
    "behind the token that is asked for.",
)
def state_before(tokens, opening, closing):
    return labelled(tokens, opening, closing, lambda before, behind: before > 0)


@wrong(
    "inside_quotes_labels",
    "Your opening mark is outside, as is the closing one: only what stands between the two is labelled. Behind the "
    "opening mark the quotation has begun.",
)
def strictly_between(tokens, opening, closing):
    return labelled(tokens, opening, closing, lambda before, behind: before > 0 and behind > 0)


@wrong(
    "inside_quotes_labels",
    "Your labels change at every mark, whichever it is. So a quotation that opens inside another one ends it, and a "
    "closing mark where nothing is open begins one.",
)
def by_turns(tokens, opening, closing):
    return torch.isin(tokens, torch.cat([opening, closing])).cumsum(1) % 2 == 1


@wrong(
    "inside_quotes_labels",
    "A closing mark where nothing is open counts as a debt in your answer: the next quotation pays it back and is "
    "labelled outside. The number of open quotations never falls below 0.",
)
def debts(tokens, opening, closing):
    return labelled(tokens, opening, closing, lambda before, behind: behind > 0, floor=False)


@wrong(
    "inside_quotes_labels",
    "A quotation that is open at the end of one row goes on in the next in your answer. Each row is a text by itself.",
)
def rows_joined(tokens, opening, closing):
    found = [behind > 0 for _, behind in states(tokens.flatten().tolist(), opening, closing)]
    return torch.tensor(found, dtype=torch.bool).reshape(tokens.shape)


@wrong(
    "inside_quotes_labels",
    "You label a quotation only if it is closed. One that is never closed goes on to the end of the row: whoever reads "
    "from left to right can't know that no mark will come.",
)
def only_if_closed(tokens, opening, closing):
    rows = []
    for row in tokens.tolist():
        found = [behind > 0 for _, behind in states(row, opening, closing)]
        while found and found[-1]:
            last = max((i for i in range(len(found)) if not found[i]), default=-1)
            found[last + 1 :] = [False] * (len(found) - last - 1)
        rows.append(found)
    return torch.tensor(rows, dtype=torch.bool).reshape(tokens.shape)


@wrong(
    "inside_quotes_labels",
    "You return numbers. A label is True or False.",
)
def how_many(tokens, opening, closing):
    rows = [[behind for _, behind in states(row, opening, closing)] for row in tokens.tolist()]
    return torch.tensor(rows, dtype=torch.long).reshape(tokens.shape)


@wrong(
    "inside_quotes_labels",
    "A mark that both opens and closes always opens in your answer, so that nothing is ever closed by it. It closes if "
    "a quotation is open.",
)
def straight_mark_opens(tokens, opening, closing):
    only = torch.tensor([c for c in closing.tolist() if c not in opening.tolist()], dtype=torch.long)
    return labelled(tokens, opening, only, lambda before, behind: behind > 0)


@wrong(
    "inside_quotes_labels",
    "A closing mark ends all quotations that are open in your answer, the outer ones as well. It takes one away.",
)
def closes_all(tokens, opening, closing):
    rows, opening, closing = [], set(opening.tolist()), set(closing.tolist())
    for row in tokens.tolist():
        inside, found = False, []
        for token in row:
            inside = token not in closing if inside else token in opening
            found.append(inside)
        rows.append(found)
    return torch.tensor(rows, dtype=torch.bool).reshape(tokens.shape)


@right("inside_quotes_labels")
def plain_loops(tokens, opening, closing):
    return labelled(tokens, opening, closing, lambda before, behind: behind > 0)


@right("inside_quotes_labels")
def with_a_stack(tokens, opening, closing):
    labels = torch.zeros(tokens.shape, dtype=torch.bool)
    for i, row in enumerate(tokens):
        stack = []
        for j, token in enumerate(row):
            if stack and (closing == token).any():
                stack.pop()
            elif (opening == token).any():
                stack.append(j)
            labels[i, j] = len(stack) > 0
    return labels
