"""Wrong answers for random circuits and for the bootstrap of a circuit, each with its sentence, and right ones."""

import random
from collections import Counter

import torch

from utils.course.catalogue import right, wrong

# random_circuits


def pools_of(circuit, everything, kind):
    if not set(circuit) <= set(everything):
        raise ValueError("unknown parts")
    pools = {}
    for part in everything:
        pools.setdefault(kind(part), []).append(part)
    return pools, Counter(map(kind, circuit))


def draw(pools, wanted, generator):
    drawn = set()
    for name, number in wanted.items():
        order = torch.randperm(len(pools[name]), generator=generator)[:number]
        drawn |= {pools[name][i] for i in order.tolist()}
    return frozenset(drawn)


@wrong(
    "random_circuits",
    "You draw from all parts, whatever their kind. What comes is as large as the circuit and unlike it in everything "
    "else, so that beating it shows little.",
)
def of_any_kind(circuit, everything, kind, n, generator):
    pools_of(circuit, everything, kind)
    return [draw({0: list(everything)}, {0: len(circuit)}, generator) for _ in range(n)]


@wrong(
    "random_circuits",
    "You draw with replacement: a part can come twice, and the circuit has fewer different parts than it should.",
)
def with_replacement(circuit, everything, kind, n, generator):
    pools, wanted = pools_of(circuit, everything, kind)
    found = []
    for _ in range(n):
        drawn = set()
        for name, number in wanted.items():
            picks = torch.randint(len(pools[name]), (number,), generator=generator).tolist()
            drawn |= {pools[name][i] for i in picks}
        found.append(frozenset(drawn))
    return found


@wrong(
    "random_circuits",
    "You leave the circuit's own parts out of the draw. Under the null these parts are like any others; without them "
    "the null is made worse than chance, and the circuit looks better.",
)
def without_its_own(circuit, everything, kind, n, generator):
    pools, wanted = pools_of(circuit, everything, kind)
    for name, pool in pools.items():
        rest = [part for part in pool if part not in circuit]
        pools[name] = rest if len(rest) >= wanted[name] else pool
    return [draw(pools, wanted, generator) for _ in range(n)]


@wrong(
    "random_circuits",
    "You draw from all parts of the kinds that the circuit has, and not as many of each kind as it has.",
)
def not_as_many_of_each(circuit, everything, kind, n, generator):
    pools, wanted = pools_of(circuit, everything, kind)
    pool = [part for part in everything if kind(part) in wanted]
    return [draw({0: pool}, {0: len(circuit)}, generator) for _ in range(n)]


@wrong(
    "random_circuits",
    "You draw where to begin, and take the parts that follow there. Parts that are neighbours in the list come "
    "together then, and those at its ends seldom: draw each part.",
)
def neighbours(circuit, everything, kind, n, generator):
    pools, wanted = pools_of(circuit, everything, kind)
    found = []
    for _ in range(n):
        drawn = set()
        for name, number in wanted.items():
            first = int(torch.randint(len(pools[name]) - number + 1, (), generator=generator))
            drawn |= set(pools[name][first : first + number])
        found.append(frozenset(drawn))
    return found


@wrong(
    "random_circuits",
    "You draw one circuit, and return it n times. A null is a distribution: draw each anew.",
)
def one_for_all(circuit, everything, kind, n, generator):
    pools, wanted = pools_of(circuit, everything, kind)
    return [draw(pools, wanted, generator)] * n


@wrong(
    "random_circuits",
    "You take the first parts of each kind, always the same ones. Nothing is drawn.",
)
def the_first_ones(circuit, everything, kind, n, generator):
    pools, wanted = pools_of(circuit, everything, kind)
    return [frozenset(part for name, k in wanted.items() for part in pools[name][:k]) for _ in range(n)]


@wrong(
    "random_circuits",
    "You take one part of each kind, and the circuit has some kinds several times: count them.",
)
def one_of_each_kind(circuit, everything, kind, n, generator):
    pools, wanted = pools_of(circuit, everything, kind)
    return [draw(pools, dict.fromkeys(wanted, 1), generator) for _ in range(n)]


@wrong(
    "random_circuits",
    "A circuit with parts that the model has not goes through.",
)
def any_parts(circuit, everything, kind, n, generator):
    pools, wanted = pools_of([part for part in circuit if part in everything], everything, kind)
    return [draw(pools, wanted, generator) for _ in range(n)]


@right("random_circuits")
def with_pythons_random(circuit, everything, kind, n, generator):
    if any(part not in everything for part in circuit):
        raise ValueError("strangers")
    rng = random.Random(int(torch.randint(2**31, (), generator=generator)))
    kinds = [kind(part) for part in circuit]
    found = []
    for _ in range(n):
        chosen = set()
        for name in dict.fromkeys(kinds):
            chosen.update(rng.sample([p for p in everything if kind(p) == name], kinds.count(name)))
        found.append(chosen)
    return found


# bootstrap_circuit


def inside_of(means, size):
    return torch.zeros_like(means).scatter(-1, means.topk(size, dim=-1).indices, 1.0)


def refuse(effects, size):
    if not 1 <= size <= effects.shape[1]:
        raise ValueError("no such size")


def found_again(effects, size, draws, generator, strength=lambda x: x.mean(0).abs(), n=None):
    refuse(effects, size)
    n = n or len(effects)
    drawn = torch.randint(len(effects), (draws, n), generator=generator)
    return inside_of(torch.stack([strength(effects[rows]) for rows in drawn]), size)


def jaccard(inside, full):
    return (inside * full).sum(-1) / ((inside + full) > 0).sum(-1)


@wrong(
    "bootstrap_circuit",
    "You rank by the effect with its sign. A part that works against the answer is part of the circuit, too, and may "
    "be the strongest of all.",
)
def with_its_sign(effects, size, draws, generator):
    inside = found_again(effects, size, draws, generator, lambda x: x.mean(0))
    return inside.mean(0), jaccard(inside, inside_of(effects.mean(0), size))


@wrong(
    "bootstrap_circuit",
    "You average absolute effects. A part that does much in both directions, so that on average nothing is left, comes "
    "out as a strong one: average first.",
)
def absolute_first(effects, size, draws, generator):
    inside = found_again(effects, size, draws, generator, lambda x: x.abs().mean(0))
    return inside.mean(0), jaccard(inside, inside_of(effects.abs().mean(0), size))


@wrong(
    "bootstrap_circuit",
    "Your overlap is the share of the circuit that comes again. The Jaccard index divides by the parts that are in "
    "either of the two, which are more.",
)
def share_that_stays(effects, size, draws, generator):
    inside = found_again(effects, size, draws, generator)
    return inside.mean(0), (inside * inside_of(effects.mean(0).abs(), size)).sum(1) / size


@wrong(
    "bootstrap_circuit",
    "You compare each draw's circuit with that of the draw before it. Two draws differ by both their chances; asked "
    "for is how far a draw is from the circuit of all prompts.",
)
def draw_against_draw(effects, size, draws, generator):
    inside = found_again(effects, size, draws, generator)
    return inside.mean(0), jaccard(inside, inside.roll(1, 0))


@wrong(
    "bootstrap_circuit",
    "You draw without replacement: every draw has all prompts, in another order, and finds the same circuit.",
)
def in_another_order(effects, size, draws, generator):
    refuse(effects, size)
    orders = torch.stack([torch.randperm(len(effects), generator=generator) for _ in range(draws)])
    inside = inside_of(torch.stack([effects[rows].mean(0).abs() for rows in orders]), size)
    return inside.mean(0), jaccard(inside, inside_of(effects.mean(0).abs(), size))


@wrong(
    "bootstrap_circuit",
    "You draw parts, and not prompts. The question is what other prompts would have shown of the same parts.",
)
def parts_are_drawn(effects, size, draws, generator):
    refuse(effects, size)
    means, n = effects.mean(0).abs(), effects.shape[1]
    weights = torch.stack([
        torch.bincount(torch.randint(n, (n,), generator=generator), minlength=n).bool() for _ in range(draws)
    ])  # fmt: skip
    inside = inside_of(means * weights, size)
    return inside.mean(0), jaccard(inside, inside_of(means, size))


@wrong(
    "bootstrap_circuit",
    "You draw prompts for each part anew. A prompt on which two parts are both strong then raises one of them in one "
    "draw and the other in another: what was measured on a prompt goes together.",
)
def each_part_for_itself(effects, size, draws, generator):
    refuse(effects, size)
    n = len(effects)
    means = torch.stack([
        effects.gather(0, torch.randint(n, effects.shape, generator=generator)).mean(0) for _ in range(draws)
    ])  # fmt: skip
    inside = inside_of(means.abs(), size)
    return inside.mean(0), jaccard(inside, inside_of(effects.mean(0).abs(), size))


@wrong(
    "bootstrap_circuit",
    "You return the mean overlap. How much it varies from draw to draw is what an interval is made of: one number for "
    "each draw.",
)
def one_overlap(effects, size, draws, generator):
    inside = found_again(effects, size, draws, generator)
    return inside.mean(0), jaccard(inside, inside_of(effects.mean(0).abs(), size)).mean()


@wrong(
    "bootstrap_circuit",
    "You draw a single prompt each time. A circuit is found on as many prompts as there are, and so it has to be here.",
)
def single_prompts(effects, size, draws, generator):
    inside = found_again(effects, size, draws, generator, n=1)
    return inside.mean(0), jaccard(inside, inside_of(effects.mean(0).abs(), size))


@right("bootstrap_circuit")
def with_sets(effects, size, draws, generator):
    if size < 1 or size > effects.shape[1]:
        raise ValueError("size")
    full = set(effects.double().mean(0).abs().argsort(descending=True)[:size].tolist())
    counts, overlaps = torch.zeros(effects.shape[1]), []
    for _ in range(draws):
        rows = torch.randint(0, effects.shape[0], (effects.shape[0],), generator=generator)
        circuit = set(effects[rows].double().mean(0).abs().argsort(descending=True)[:size].tolist())
        counts[list(circuit)] += 1
        overlaps.append(len(circuit & full) / len(circuit | full))
    return counts / draws, torch.tensor(overlaps)


@right("bootstrap_circuit")
def with_counts(effects, size, draws, generator):
    inside = found_again(effects, size, draws, generator)
    return inside.mean(0), jaccard(inside, inside_of(effects.mean(0).abs(), size))
