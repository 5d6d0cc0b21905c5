"""Wrong answers for the four tests of a circuit, each with its sentence, and right ones."""

from itertools import combinations

import numpy as np
import torch

from utils.course.catalogue import right, wrong


def mean_of(score, parts):
    return score(frozenset(parts)).mean().item()


def expect_known(circuit, everything):
    if not set(circuit) <= set(everything):
        raise ValueError("unknown parts")


def three(score, circuit, everything):
    """F(M), F(C) and F of nothing, as the reference has them."""
    expect_known(circuit, everything)
    found = mean_of(score, everything), mean_of(score, circuit), mean_of(score, ())
    if abs(found[0] - found[2]) < 1e-6:
        raise ValueError("nothing to share")
    return found


# circuit_faithfulness


@wrong(
    "circuit_faithfulness",
    "Your share is F(C) / F(M). It takes for granted that nothing is worth 0: where the model without any of its parts "
    "still scores something, or something negative, a circuit without a part has a share that it has not earned.",
)
def over_the_whole(score, circuit, everything):
    whole, kept, _ = three(score, circuit, everything)
    return kept / whole, abs(whole - kept)


@wrong(
    "circuit_faithfulness",
    "You take the share prompt by prompt and average the shares. A prompt on which the model does hardly more than "
    "nothing has a share of any size, and decides the mean: average the metric first.",
)
def mean_of_shares(score, circuit, everything):
    whole, kept, _ = three(score, circuit, everything)
    m, c, nothing = (score(frozenset(parts)) for parts in (everything, circuit, ()))
    return ((c - nothing) / (m - nothing)).mean().item(), abs(whole - kept)


@wrong(
    "circuit_faithfulness",
    "You average the distance of each prompt. Where the circuit does too much on some prompts and too little on "
    "others, that is larger than |F(M) - F(C)|, the distance of the two means.",
)
def mean_distance(score, circuit, everything):
    whole, kept, nothing = three(score, circuit, everything)
    distance = (score(frozenset(everything)) - score(frozenset(circuit))).abs().mean().item()
    return (kept - nothing) / (whole - nothing), distance


@wrong(
    "circuit_faithfulness",
    "Your gap has a sign. A circuit that does more than the model is as far from it as one that does less: take the "
    "absolute value.",
)
def signed_gap(score, circuit, everything):
    whole, kept, nothing = three(score, circuit, everything)
    return (kept - nothing) / (whole - nothing), whole - kept


@wrong(
    "circuit_faithfulness",
    "You keep everything but the circuit. That asks what the model can do without it; faithfulness asks what the "
    "circuit can do without the rest.",
)
def the_complement(score, circuit, everything):
    whole, _, nothing = three(score, circuit, everything)
    rest = mean_of(score, set(everything) - set(circuit))
    return (rest - nothing) / (whole - nothing), abs(whole - rest)


@wrong(
    "circuit_faithfulness",
    "You cut the share off at 0 and 1. That a circuit does more than its model, or the opposite, is what one most "
    "wants to be told.",
)
def cut_off(score, circuit, everything):
    whole, kept, nothing = three(score, circuit, everything)
    return min(1.0, max(0.0, (kept - nothing) / (whole - nothing))), abs(whole - kept)


@wrong(
    "circuit_faithfulness",
    "A circuit with parts that the model has not goes through. A misspelt name would be left out without a word.",
)
def any_parts(score, circuit, everything):
    return over_whole_gap(score, [part for part in circuit if part in everything], everything)


@wrong(
    "circuit_faithfulness",
    "Where the model scores the same with all parts as with none, you return a number all the same. There is nothing "
    "to have a share of, and that should be said.",
)
def any_model(score, circuit, everything):
    expect_known(circuit, everything)
    whole, kept, nothing = (mean_of(score, parts) for parts in (everything, circuit, ()))
    return (kept - nothing) / ((whole - nothing) or 1.0), abs(whole - kept)


def over_whole_gap(score, circuit, everything):
    whole, kept, nothing = three(score, circuit, everything)
    return (kept - nothing) / (whole - nothing), abs(whole - kept)


@right("circuit_faithfulness")
def with_numpy(score, circuit, everything):
    if any(part not in everything for part in circuit):
        raise ValueError("strangers")
    m, c, nothing = (np.mean(score(frozenset(x)).numpy().astype(float)) for x in (everything, circuit, []))
    if abs(m - nothing) < 1e-6:
        raise ValueError("no range")
    return float((c - nothing) / (m - nothing)), float(abs(m - c))


@right("circuit_faithfulness")
def as_tensors(score, circuit, everything):
    whole, kept, nothing = three(score, circuit, everything)
    values = torch.tensor([whole, kept, nothing], dtype=torch.float64)
    return ((values[1] - values[2]) / (values[0] - values[2])).item(), (values[0] - values[1]).abs().item()


# circuit_completeness


def greedy(score, circuit, everything, steps, gap, pick=max):
    expect_known(circuit, everything)
    if not 0 <= steps <= len(circuit):
        raise ValueError("no such number of steps")
    removed, gaps = [], [gap(frozenset())]
    for _ in range(steps):
        left = [part for part in circuit if part not in removed]
        found = [gap(frozenset([*removed, part])) for part in left]
        gaps.append(pick(found))
        removed.append(left[found.index(pick(found))])
    return removed, gaps


def incompleteness(score, circuit, everything):
    kept, whole = frozenset(circuit), frozenset(everything)
    return lambda without: abs(mean_of(score, kept - without) - mean_of(score, whole - without))


@wrong(
    "circuit_completeness",
    "You take the parts out of the circuit alone and compare with the whole model. That asks whether they matter; "
    "completeness asks whether they matter as much in the model, so they have to go there, too.",
)
def whole_model_stays(score, circuit, everything, steps):
    kept, whole = frozenset(circuit), mean_of(score, everything)
    return greedy(score, circuit, everything, steps, lambda without: abs(mean_of(score, kept - without) - whole))


@wrong(
    "circuit_completeness",
    "Your search takes the part with which the gap is smallest. It looks for the set that shows least.",
)
def smallest_gap(score, circuit, everything, steps):
    return greedy(score, circuit, everything, steps, incompleteness(score, circuit, everything), min)


@wrong(
    "circuit_completeness",
    "You measure each part alone, and take out the largest in that order. Which part opens the gap depends on which "
    "are gone already: measure anew in every step.",
)
def ranked_once(score, circuit, everything, steps):
    gap = incompleteness(score, circuit, everything)
    greedy(score, circuit, everything, steps, lambda without: 0.0)
    order = sorted(circuit, key=lambda part: -gap(frozenset([part])))[:steps]
    return order, [gap(frozenset(order[:i])) for i in range(steps + 1)]


@wrong(
    "circuit_completeness",
    "Your gap has a sign, so that the search never finds where the circuit does more than the model.",
)
def signed(score, circuit, everything, steps):
    kept, whole = frozenset(circuit), frozenset(everything)
    return greedy(
        score, circuit, everything, steps,
        lambda without: mean_of(score, whole - without) - mean_of(score, kept - without),
    )  # fmt: skip


@wrong(
    "circuit_completeness",
    "Your search stops as soon as no part makes the gap larger. A set may have to become worse before it shows "
    "something, and so many steps were asked for.",
)
def stops_early(score, circuit, everything, steps):
    removed, gaps = greedy(score, circuit, everything, steps, incompleteness(score, circuit, everything))
    end = next((i for i in range(steps) if gaps[i + 1] <= gaps[i]), steps)
    return removed[:end], gaps[: end + 1]


@wrong(
    "circuit_completeness",
    "You leave out the gap before the first step, that of the circuit as it is. Without it one can't tell how much the "
    "search has found.",
)
def without_the_first(score, circuit, everything, steps):
    removed, gaps = greedy(score, circuit, everything, steps, incompleteness(score, circuit, everything))
    return removed, gaps[1:]


@wrong(
    "circuit_completeness",
    "You also take out parts that are not in the circuit. Those the circuit never had; K is a set of its own parts.",
)
def from_everything(score, circuit, everything, steps):
    greedy(score, circuit, everything, steps, lambda without: 0.0)
    gap, removed = incompleteness(score, circuit, everything), []
    gaps = [gap(frozenset())]
    for _ in range(steps):
        left = [part for part in everything if part not in removed]
        found = [gap(frozenset([*removed, part])) for part in left]
        gaps.append(max(found))
        removed.append(left[found.index(max(found))])
    return removed, gaps


@right("circuit_completeness")
def with_a_dict(score, circuit, everything, steps):
    if steps < 0 or steps > len(circuit) or any(part not in everything for part in circuit):
        raise ValueError("bad")
    out = []
    gaps = [abs((score(frozenset(circuit)) - score(frozenset(everything))).mean().item())]
    while len(out) < steps:
        options = {}
        for part in circuit:
            if part not in out:
                without = {*out, part}
                difference = score(frozenset(set(circuit) - without)) - score(frozenset(set(everything) - without))
                options[part] = abs(difference.double().mean().item())
        best = max(options, key=options.get)
        out.append(best)
        gaps.append(options[best])
    return out, gaps


# circuit_minimality


def searched(score, circuit, largest, pool, difference):
    if largest < 0:
        raise ValueError("negative")
    found = {}
    for part in circuit:
        others = [other for other in pool if other != part]
        best = frozenset(), -torch.inf
        for size in range(min(largest, len(others)) + 1):
            for chosen in map(frozenset, combinations(others, size)):
                value = difference(part, chosen)
                best = (chosen, value) if value > best[1] else best
        found[part] = best
    return found


def what_it_does(score, circuit):
    kept = frozenset(circuit)
    return lambda part, chosen: abs(mean_of(score, kept - chosen) - mean_of(score, kept - chosen - {part}))


@wrong(
    "circuit_minimality",
    "You only ask what is lost when the part goes and all others stay. Of two parts of which either will do, none is "
    "missed then, and you would throw out both.",
)
def all_others_stay(score, circuit, largest):
    return searched(score, circuit, min(largest, 0), circuit, what_it_does(score, circuit))


@wrong(
    "circuit_minimality",
    "Your difference has a sign: a part that works against the others is taken for one that does nothing.",
)
def signed_difference(score, circuit, largest):
    kept = frozenset(circuit)
    return searched(
        score, circuit, largest, circuit,
        lambda part, chosen: mean_of(score, kept - chosen) - mean_of(score, kept - chosen - {part}),
    )  # fmt: skip


@wrong(
    "circuit_minimality",
    "You compare with the whole circuit, F(C), also where K is gone. What K does is then counted as the part's.",
)
def compared_with_all(score, circuit, largest):
    kept = frozenset(circuit)
    return searched(
        score, circuit, largest, circuit,
        lambda part, chosen: abs(mean_of(score, kept) - mean_of(score, kept - chosen - {part})),
    )  # fmt: skip


@wrong(
    "circuit_minimality",
    "Your K always has as many parts as it may have. A smaller K can show more, and the empty one is among them.",
)
def always_full(score, circuit, largest):
    if largest < 0:
        raise ValueError("negative")
    difference, found = what_it_does(score, circuit), {}
    for part in circuit:
        others = [other for other in circuit if other != part]
        sets = [frozenset(chosen) for chosen in combinations(others, min(largest, len(others)))]
        found[part] = max(((chosen, difference(part, chosen)) for chosen in sets), key=lambda pair: pair[1])
    return found


@wrong(
    "circuit_minimality",
    "You let K grow one part at a time, and go on with what did most so far. Of three parts of which any will do, none "
    "is missed until both others are gone, and the first step can't see it: go through all K.",
)
def grown_greedily(score, circuit, largest):
    if largest < 0:
        raise ValueError("negative")
    does, found = what_it_does(score, circuit), {}
    for part in circuit:
        chosen = frozenset()
        best = chosen, does(part, chosen)
        for _ in range(min(largest, len(circuit) - 1)):
            wider = [chosen | {other} for other in circuit if other != part and other not in chosen]
            chosen = max(wider, key=lambda one: does(part, one))
            best = max(best, (chosen, does(part, chosen)), key=lambda pair: pair[1])
        found[part] = best
    return found


@wrong(
    "circuit_minimality",
    "You look for the set with which the part does least. It asks whether there is any setting in which the part is "
    "not needed; minimality asks for one in which it is.",
)
def at_its_worst(score, circuit, largest):
    does = what_it_does(score, circuit)
    found = searched(score, circuit, largest, circuit, lambda part, chosen: -does(part, chosen))
    return {part: (chosen, -value) for part, (chosen, value) in found.items()}


@wrong(
    "circuit_minimality",
    "You average the differences over all K. One set without which the part matters is enough to show that it belongs.",
)
def averaged(score, circuit, largest):
    found, does = searched(score, circuit, largest, circuit, what_it_does(score, circuit)), what_it_does(score, circuit)
    for part, (chosen, _) in found.items():
        others = [other for other in circuit if other != part]
        sets = [frozenset(c) for size in range(min(largest, len(others)) + 1) for c in combinations(others, size)]
        found[part] = chosen, sum(does(part, one) for one in sets) / len(sets)
    return found


@right("circuit_minimality")
def by_bits(score, circuit, largest):
    if largest < 0:
        raise ValueError("largest")
    parts, found = list(circuit), {}
    for part in parts:
        others = [p for p in parts if p != part]
        options = []
        for bits in range(2 ** len(others)):
            chosen = {p for i, p in enumerate(others) if bits >> i & 1}
            if len(chosen) <= largest:
                kept = set(parts) - chosen
                change = (score(frozenset(kept)) - score(frozenset(kept - {part}))).mean().abs().item()
                options.append((chosen, change))
        most = max(change for _, change in options)
        found[part] = min((o for o in options if o[1] >= most - 1e-6), key=lambda option: len(option[0]))
    return found


# circuit_generalization


def drawn_shares(score, circuit, everything, generator, draws, share):
    whole, kept, nothing = (score(frozenset(parts)).double() for parts in (everything, circuit, ()))
    n = len(whole)
    shares = torch.stack([
        share(whole, kept, nothing, torch.randint(n, (n,), generator=generator), generator) for _ in range(draws)
    ])  # fmt: skip
    middle = (kept.mean() - nothing.mean()) / (whole.mean() - nothing.mean())
    return middle.item(), *torch.quantile(shares, torch.tensor([0.025, 0.975]).double()).tolist()


def ratio_of_means(whole, kept, nothing, drawn, generator):
    return (kept - nothing)[drawn].mean() / (whole - nothing)[drawn].mean()


def between(shares, low, high):
    return torch.quantile(shares, torch.tensor([low, high]).double()).tolist()


def with_ends(scores, circuit, everything, generator, draws, ends):
    """The share, and an interval made of the draws' shares and of the share as ``ends`` says."""
    found = {}
    for kind, score in scores.items():
        whole, kept, nothing = (score(frozenset(parts)).double() for parts in (everything, circuit, ()))
        drawn = torch.randint(len(whole), (draws, len(whole)), generator=generator)
        shares = (kept - nothing)[drawn].mean(1) / (whole - nothing)[drawn].mean(1)
        share = ((kept - nothing).mean() / (whole - nothing).mean()).item()
        found[kind] = (share, *ends(shares, share))
    return found


def for_each_kind(scores, circuit, everything, generator, draws, share=ratio_of_means):
    return {kind: drawn_shares(score, circuit, everything, generator, draws, share) for kind, score in scores.items()}


@wrong(
    "circuit_generalization",
    "You average the shares of single prompts. Where the model does hardly more than nothing on a prompt, its share "
    "has any size and decides the mean.",
)
def shares_of_prompts(scores, circuit, everything, generator, draws=1000):
    found = {}
    for kind, score in scores.items():
        whole, kept, nothing = (score(frozenset(parts)).double() for parts in (everything, circuit, ()))
        shares = (kept - nothing) / (whole - nothing)
        drawn = shares[torch.randint(len(shares), (draws, len(shares)), generator=generator)].mean(1)
        ends = torch.quantile(drawn, torch.tensor([0.025, 0.975]).double()).tolist()
        found[kind] = (shares.mean().item(), *ends)
    return found


@wrong(
    "circuit_generalization",
    "You draw the prompts for the circuit and for the model apart. A prompt on which both do much then makes the share "
    "uncertain, although it says the same of it as any other: what is measured on a prompt goes together.",
)
def drawn_apart(scores, circuit, everything, generator, draws=1000):
    def share(whole, kept, nothing, drawn, generator):
        again = torch.randint(len(whole), (len(whole),), generator=generator)
        return (kept - nothing)[drawn].mean() / (whole - nothing)[again].mean()

    return for_each_kind(scores, circuit, everything, generator, draws, share)


@wrong(
    "circuit_generalization",
    "Only the circuit's scores are drawn anew; what the model does, and what nothing does, stay at the mean of all "
    "prompts. They were measured on the same few prompts and are as uncertain.",
)
def model_held_fixed(scores, circuit, everything, generator, draws=1000):
    def share(whole, kept, nothing, drawn, generator):
        return (kept[drawn].mean() - nothing.mean()) / (whole.mean() - nothing.mean())

    return for_each_kind(scores, circuit, everything, generator, draws, share)


@wrong(
    "circuit_generalization",
    "Your interval reaches from the 25th to the 75th percentile: it holds half of the draws, and 95 % were asked for.",
)
def half_of_them(scores, circuit, everything, generator, draws=1000):
    return with_ends(scores, circuit, everything, generator, draws, lambda shares, share: between(shares, 0.25, 0.75))


@wrong(
    "circuit_generalization",
    "Your interval reaches from the 5th to the 95th percentile: it holds 90 % of the draws, and 95 % were asked for.",
)
def ninety_percent(scores, circuit, everything, generator, draws=1000):
    return with_ends(scores, circuit, everything, generator, draws, lambda shares, share: between(shares, 0.05, 0.95))


@wrong(
    "circuit_generalization",
    "You divide the spread of the draws' shares by the root of the number of draws. Each draw is a whole experiment, "
    "and how much they spread is the uncertainty already; more draws don't make the prompts more.",
)
def smaller_with_more_draws(scores, circuit, everything, generator, draws=1000):
    def ends(shares, share):
        half = 1.96 * shares.std(correction=0).item() / len(shares) ** 0.5
        return share - half, share + half

    return with_ends(scores, circuit, everything, generator, draws, ends)


@wrong(
    "circuit_generalization",
    "You draw without replacement: every draw is the same prompts in another order, and its share the same.",
)
def in_another_order(scores, circuit, everything, generator, draws=1000):
    def share(whole, kept, nothing, drawn, generator):
        return ratio_of_means(whole, kept, nothing, torch.randperm(len(whole), generator=generator), generator)

    return for_each_kind(scores, circuit, everything, generator, draws, share)


@wrong(
    "circuit_generalization",
    "Your share is F(C) / F(M), without what is scored when nothing is kept.",
)
def nothing_left_out(scores, circuit, everything, generator, draws=1000):
    found = {}
    for kind, score in scores.items():
        whole, kept = (score(frozenset(parts)).double() for parts in (everything, circuit))
        drawn = torch.randint(len(whole), (draws, len(whole)), generator=generator)
        shares = kept[drawn].mean(1) / whole[drawn].mean(1)
        ends = torch.quantile(shares, torch.tensor([0.025, 0.975]).double()).tolist()
        found[kind] = ((kept.mean() / whole.mean()).item(), *ends)
    return found


@wrong(
    "circuit_generalization",
    "You draw half as many prompts as there are. The interval is then that of a smaller experiment, and too wide.",
)
def half_the_prompts(scores, circuit, everything, generator, draws=1000):
    def share(whole, kept, nothing, drawn, generator):
        return ratio_of_means(whole, kept, nothing, drawn[: max(1, len(drawn) // 2)], generator)

    return for_each_kind(scores, circuit, everything, generator, draws, share)


@right("circuit_generalization")
def by_loops(scores, circuit, everything, generator, draws=1000):
    return for_each_kind(scores, circuit, everything, generator, draws)


@right("circuit_generalization")
def with_counts(scores, circuit, everything, generator, draws=1000):
    """How often each prompt is drawn, as weights; numpy's percentiles."""
    found = {}
    for kind, score in scores.items():
        whole, kept, nothing = (score(frozenset(parts)).double() for parts in (everything, list(circuit), []))
        n = len(whole)
        drawn = torch.randint(n, (draws, n), generator=generator)
        counts = torch.zeros(draws, n, dtype=torch.double).scatter_add(1, drawn, torch.ones(draws, n).double())
        shares = (counts @ (kept - nothing)) / (counts @ (whole - nothing))
        low, high = np.percentile(shares.numpy(), [2.5, 97.5])
        found[kind] = (((kept - nothing).sum() / (whole - nothing).sum()).item(), float(low), float(high))
    return found
