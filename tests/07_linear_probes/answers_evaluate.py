"""Wrong answers for accuracy by layer, control tasks and selectivity, each with its sentence, and right ones."""

import math

import torch
from scipy.special import stdtrit

from utils.course.catalogue import right, wrong


def names_of(groups):
    names = groups.unique()
    if len(names) < 2:
        raise ValueError("one group")
    return names


def share_right(probe, x, labels):
    return ((probe(x) > 0) == labels).float().mean()


def by_site(activations, of_site):
    return {site: of_site(x) for site, x in activations.items()}


@wrong(
    "probe_by_layer",
    "Your probes are fitted to all groups, the one they are tried on among them: they have seen what they are asked.",
)
def nothing_left_out(activations, labels, groups, fit):
    names = names_of(groups)

    def of_site(x):
        probe = fit(x, labels)
        return torch.stack([share_right(probe, x[groups == name], labels[groups == name]) for name in names])

    return by_site(activations, of_site)


@wrong(
    "probe_by_layer",
    "Your probes are fitted to one group and tried on it. It is the other groups that a probe is fitted to.",
)
def group_by_itself(activations, labels, groups, fit):
    def of_site(x):
        at = [groups == name for name in names_of(groups)]
        return torch.stack([share_right(fit(x[own], labels[own]), x[own], labels[own]) for own in at])

    return by_site(activations, of_site)


@wrong(
    "probe_by_layer",
    "Your probes are fitted to one group and tried on all the others. It is the other way round: one group is left "
    "out.",
)
def the_other_way_round(activations, labels, groups, fit):
    def of_site(x):
        at = [groups == name for name in names_of(groups)]
        return torch.stack([share_right(fit(x[own], labels[own]), x[~own], labels[~own]) for own in at])

    return by_site(activations, of_site)


def left_out(activations, labels, groups, fit, names, absent=lambda scores: scores > 0):
    def of_site(x):
        shares = []
        for name in names:
            out = groups == name
            probe = fit(x[~out], labels[~out])
            shares.append((absent(probe(x[out])) == labels[out]).float().mean())
        return torch.stack(shares)

    return by_site(activations, of_site)


@wrong(
    "probe_by_layer",
    "You return one number for each site, the mean over groups. An interval needs the number of each group.",
)
def averaged(activations, labels, groups, fit):
    found = left_out(activations, labels, groups, fit, names_of(groups))
    return {site: shares.mean() for site, shares in found.items()}


@wrong(
    "probe_by_layer",
    "Your groups come in the order in which they first occur. They are asked for in ascending order, so that two sets "
    "of "
    "activations can be compared group by group.",
)
def as_they_come(activations, labels, groups, fit):
    names_of(groups)
    return left_out(activations, labels, groups, fit, list(dict.fromkeys(groups.tolist())))


@wrong("probe_by_layer", "You count a score of 0 as present. Above 0 is present; 0 and below is absent.")
def zero_is_present(activations, labels, groups, fit):
    return left_out(activations, labels, groups, fit, names_of(groups), lambda scores: scores >= 0)


@wrong(
    "probe_by_layer",
    "You leave tokens out, and not groups: the probe has seen other tokens of the same group. Where tokens of a group "
    "have "
    "something in common, it is tried on what it knows.",
)
def every_so_many_tokens(activations, labels, groups, fit):
    n = len(names_of(groups))
    return left_out(activations, labels, torch.arange(len(groups)) % n, fit, range(n))


@wrong(
    "probe_by_layer",
    "You return how often the probe is wrong.",
)
def errors(activations, labels, groups, fit):
    found = left_out(activations, labels, groups, fit, names_of(groups))
    return {site: 1 - shares for site, shares in found.items()}


@wrong(
    "probe_by_layer",
    "You return how often the probe says that the feature is present, whether or not it is.",
)
def how_often_present(activations, labels, groups, fit):
    def of_site(x):
        shares = []
        for name in names_of(groups):
            out = groups == name
            shares.append((fit(x[~out], labels[~out])(x[out]) > 0).float().mean())
        return torch.stack(shares)

    return by_site(activations, of_site)


@wrong(
    "probe_by_layer",
    "You try each probe on the tokens that it was fitted to, those of the other groups. It is the group left out that "
    "asks whether it holds elsewhere.",
)
def tried_on_its_own(activations, labels, groups, fit):
    def of_site(x):
        rest = [groups != name for name in names_of(groups)]
        return torch.stack([share_right(fit(x[own], labels[own]), x[own], labels[own]) for own in rest])

    return by_site(activations, of_site)


@wrong("probe_by_layer", "Your groups come in descending order. They are asked for in ascending order.")
def descending(activations, labels, groups, fit):
    return left_out(activations, labels, groups, fit, names_of(groups).flip(0))


@wrong(
    "probe_by_layer",
    "A probe that was fitted at one site is tried at others of the same width in your answer. Each site needs its own.",
)
def one_probe_for_all_sites(activations, labels, groups, fit):
    names, probes, found = names_of(groups), {}, {}
    for site, x in activations.items():
        shares = []
        for name in names.tolist():
            out = groups == name
            if (name, x.shape[1]) not in probes:
                probes[name, x.shape[1]] = fit(x[~out], labels[~out])
            shares.append(share_right(probes[name, x.shape[1]], x[out], labels[out]))
        found[site] = torch.stack(shares)
    return found


@right("probe_by_layer")
def in_one_expression(activations, labels, groups, fit):
    names = sorted(set(groups.tolist()))
    if len(names) == 1:
        raise ValueError("one group")
    found = {}
    for site in activations:
        found[site] = torch.tensor(
            [
                share_right(
                    fit(activations[site][groups != name], labels[groups != name]),
                    activations[site][groups == name],
                    labels[groups == name],
                ).item()
                for name in names
            ]
        )
    return found


@right("probe_by_layer")
def by_score(activations, labels, groups, fit):
    names, found = names_of(groups), {site: [] for site in activations}
    for name in names:
        train, test = (groups != name).nonzero()[:, 0], (groups == name).nonzero()[:, 0]
        for site, x in activations.items():
            direction, bias = fit(x[train], labels[train])
            said = x[test] @ direction + bias > 0
            found[site].append((said == labels[test]).sum() / len(test))
    return {site: torch.stack(shares) for site, shares in found.items()}


# control_task


@wrong(
    "control_task",
    "You draw a label for each token. A word then has one label here and another there, and nothing could learn them: "
    "the control has to be learnable from the word.",
)
def by_token(tokens, d_vocab, share, generator):
    return torch.rand(tokens.shape, generator=generator) < share


@wrong(
    "control_task",
    "Your labels depend on which words occur, or in which order: with the same seed, a word is labelled one way in the "
    "training texts and another in the test texts. Draw for the whole vocabulary.",
)
def for_the_words_that_occur(tokens, d_vocab, share, generator):
    words, places = tokens.unique(return_inverse=True)
    return (torch.rand(len(words), generator=generator) < share)[places]


@wrong("control_task", "Half of the words are labelled True in your answer, whatever `share` says.")
def always_half(tokens, d_vocab, share, generator):
    labels = torch.rand(d_vocab, generator=generator) < 0.5
    labels = labels & (share > 0) | torch.tensor(share >= 1)
    return labels[tokens]


@wrong("control_task", "You label True with the chance of False: with share 0.2 four fifths of the words are True.")
def the_other_share(tokens, d_vocab, share, generator):
    return (torch.rand(d_vocab, generator=generator) >= share)[tokens]


@wrong(
    "control_task",
    "Exactly the same number of words is True in each of your draws. Each word is drawn for itself.",
)
def a_fixed_number(tokens, d_vocab, share, generator):
    return (torch.randperm(d_vocab, generator=generator) < round(share * d_vocab))[tokens]


@wrong(
    "control_task",
    "Your draw does not come from the generator that is passed: with the same seed it differs from one call to the "
    "next.",
)
def own_source(tokens, d_vocab, share, generator):
    own = torch.Generator()
    own.seed()
    return (torch.rand(d_vocab, generator=own) < share)[tokens]


@wrong(
    "control_task",
    "Each call gives the same labels, however often the generator has been used: several draws of the control would be "
    "one and the same.",
)
def always_the_same(tokens, d_vocab, share, generator):
    return (torch.rand(d_vocab, generator=torch.Generator().manual_seed(0)) < share)[tokens]


@wrong(
    "control_task",
    "You draw as many numbers as the largest id in the texts needs. From the second draw on, the same seed labels "
    "other texts differently. Draw for the whole vocabulary.",
)
def up_to_the_largest(tokens, d_vocab, share, generator):
    n = int(tokens.max()) + 1 if tokens.numel() else 1
    return (torch.rand(n, generator=generator) < share)[tokens]


@wrong(
    "control_task",
    "Two of your words share one draw, and so have the same label every time. There are `d_vocab` words, with ids from "
    "0 on.",
)
def one_too_few(tokens, d_vocab, share, generator):
    return (torch.rand(d_vocab - 1, generator=generator) < share)[tokens.clamp(max=d_vocab - 2)]


@right("control_task")
def bernoulli(tokens, d_vocab, share, generator):
    return torch.bernoulli(torch.full((d_vocab,), float(share)), generator=generator).bool()[tokens]


@right("control_task")
def word_by_word(tokens, d_vocab, share, generator):
    label = [torch.rand((), generator=generator).item() < share for _ in range(d_vocab)]
    found = [label[token] for token in tokens.flatten().tolist()]
    return torch.tensor(found, dtype=torch.bool).reshape(tokens.shape)


# selectivity


def fits(task, control):
    if len(task) < 2 or control.shape[1:] != task.shape:
        raise ValueError("groups")


def interval(values, quantile=None):
    n = len(values)
    quantile = float(stdtrit(n - 1, 0.975)) if quantile is None else quantile
    return values.mean().item(), quantile * values.std().item() / math.sqrt(n)


@wrong("selectivity", "You subtract the task from the control. A selective probe has a number above 0.")
def control_less_task(task, control):
    fits(task, control)
    return interval(control.mean(0) - task)


@wrong(
    "selectivity",
    "Your interval is that of two separate means. Task and control are measured on the same groups: take the "
    "difference "
    "for each group first.",
)
def unpaired(task, control):
    fits(task, control)
    (a, first), (b, second) = interval(task.double()), interval(control.double().mean(0))
    return a - b, math.hypot(first, second)


@wrong(
    "selectivity",
    "Your half-width is the groups' standard deviation: how much groups differ, and not how well their mean is known.",
)
def standard_deviation(task, control):
    fits(task, control)
    difference = task - control.mean(0)
    return difference.mean().item(), difference.std().item()


@wrong(
    "selectivity",
    "Your half-width is a standard error. A 95 % interval reaches two or more of them to either side.",
)
def standard_error(task, control):
    fits(task, control)
    return interval(task - control.mean(0), 1.0)


@wrong(
    "selectivity",
    "Your interval is that of a normal distribution, 1.96 standard errors. With few groups the standard error itself "
    "is "
    "uncertain, and Student's t is wider.",
)
def normal(task, control):
    fits(task, control)
    return interval(task - control.mean(0), 1.959964)


@wrong(
    "selectivity",
    "You take each draw of the control in each group for an independent unit. The draws share their groups: average "
    "over "
    "them first.",
)
def draws_as_units(task, control):
    fits(task, control)
    return interval((task - control).flatten())


@wrong(
    "selectivity",
    "You return the task's accuracy as a multiple of the control's. It is their difference that is asked for.",
)
def as_a_ratio(task, control):
    fits(task, control)
    return interval(task / control.mean(0))


@wrong("selectivity", "You take the highest of the draws of the control in each group, and not their mean.")
def best_draw(task, control):
    fits(task, control)
    return interval(task - control.amax(0))


@right("selectivity")
def by_hand(task, control):
    fits(task, control)
    return interval(task - control.mean(0))


@right("selectivity")
def by_scipy(task, control):
    from scipy import stats

    fits(task, control)
    difference = (task[None] - control).double().mean(0).numpy()
    half = stats.sem(difference) * stats.t.ppf(0.975, len(difference) - 1)
    return float(difference.mean()), float(half)
