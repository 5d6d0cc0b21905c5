"""Wrong answers for the comparison of two circuits, each with its sentence, and right ones."""

import itertools

import torch

from utils.course.catalogue import right, wrong


def shares(first, second):
    if first.shape != second.shape or not first.abs().sum() > 0 or not second.abs().sum() > 0:
        raise ValueError("two models of the same sizes")
    return first / first.abs().sum(), second / second.abs().sum()


def common(x, y):
    return torch.where(x * y > 0, torch.minimum(x.abs(), y.abs()), 0.0).sum()


def in_order(x, y):
    return common(x.sort(1).values, y.sort(1).values)


def compared(first, second, n_draws, generator, in_common=in_order, deal=None, jaccard=True, scaled=True):
    a, b = shares(first, second)
    if not scaled:
        a, b = first, second
    size = a.abs().sum() + b.abs().sum()

    def overlap(other):
        c = in_common(a, other)
        return c / (size - c) if jaccard else 2 * c / size

    deal = deal or (lambda x: x.flatten()[torch.randperm(x.numel(), generator=generator)].view_as(x))
    draws = [overlap(deal(b)) for _ in range(n_draws)]
    return overlap(b).item(), torch.stack(draws) if draws else torch.zeros(0)


@wrong(
    "circuit_overlap",
    "You compare heads of the same number. In another model the head that does this has another number, if the layer"
    " is the "
    "same: sort the effects of each layer.",
)
def by_number(first, second, n_draws, generator):
    return compared(first, second, n_draws, generator, common)


@wrong(
    "circuit_overlap",
    "You sort over all layers at once. What a model does in layer 0 would count as the same as what another does at "
    "the end.",
)
def over_all_layers(first, second, n_draws, generator):
    return compared(
        first, second, n_draws, generator, lambda x, y: common(x.flatten().sort().values, y.flatten().sort().values)
    )


@wrong(
    "circuit_overlap",
    "You leave the signs out: a head that helps and one that hinders by as much have nothing in common.",
)
def without_signs(first, second, n_draws, generator):
    return compared(first, second, n_draws, generator, lambda x, y: in_order(x.abs(), y.abs()))


def by_size(x):
    return x.gather(1, x.abs().argsort(dim=1))


@wrong(
    "circuit_overlap",
    "You sort by size. A large effect against the answer would then stand beside a large one for it, and the two have "
    "nothing in common: sort with the signs.",
)
def sorted_by_size(first, second, n_draws, generator):
    return compared(first, second, n_draws, generator, lambda x, y: common(by_size(x), by_size(y)))


@wrong(
    "circuit_overlap",
    "You divide by the sum of the effects. Those against the answer take away from it, so that it may come out near 0 "
    "or below: divide by the sum of their sizes.",
)
def divided_by_the_signed_sum(first, second, n_draws, generator):
    shares(first, second)
    a, b = first / first.sum(), second / second.sum()

    def overlap(other):
        c = in_order(a, other)
        return c / (2 - c)

    deals = [b.flatten()[torch.randperm(b.numel(), generator=generator)].view_as(b) for _ in range(n_draws)]
    return overlap(b).item(), torch.stack([overlap(x) for x in deals]) if deals else torch.zeros(0)


@wrong(
    "circuit_overlap",
    "You do not divide by the sums of sizes: a model with larger effects would do something else by that alone.",
)
def not_scaled(first, second, n_draws, generator):
    return compared(first, second, n_draws, generator, scaled=False)


@wrong(
    "circuit_overlap",
    "You return what the two have in common over what one of them has. What either has is 2 - c: both, with the "
    "common part "
    "counted once.",
)
def common_part(first, second, n_draws, generator):
    return compared(first, second, n_draws, generator, jaccard=False)


@wrong(
    "circuit_overlap",
    "You deal the effects within their layers. The overlap does not depend on the order within a layer: your draws "
    "are all "
    "the same, and no chance is in them.",
)
def dealt_within_layers(first, second, n_draws, generator):
    def deal(x):
        return torch.stack([row[torch.randperm(len(row), generator=generator)] for row in x])

    return compared(first, second, n_draws, generator, deal=deal)


@wrong(
    "circuit_overlap",
    "You deal whole layers. By chance a head's effect could stand at any place, beside any other.",
)
def layers_dealt(first, second, n_draws, generator):
    return compared(first, second, n_draws, generator, deal=lambda x: x[torch.randperm(len(x), generator=generator)])


@right("circuit_overlap")
def best_of_all_orders(first, second, n_draws, generator):
    a, b = (x.double() for x in shares(first, second))

    def overlap(other):
        c = 0.0
        for row, theirs in zip(a, other, strict=True):
            orders = itertools.permutations(theirs.tolist())
            pairs = (
                [min(abs(x), abs(y)) if x * y > 0 else 0.0 for x, y in zip(row.tolist(), o, strict=True)]
                for o in orders
            )
            c = c + max(map(sum, pairs))
        return c / (2 - c)

    draws = torch.zeros(n_draws, dtype=torch.float64)
    for i in range(n_draws):
        order = torch.rand(b.numel(), generator=generator).argsort()
        draws[i] = overlap(b.flatten()[order].reshape(b.shape))
    return overlap(b), draws.to(second.dtype)
