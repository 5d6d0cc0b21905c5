"""Wrong answers for holding out templates, each with its sentence, and right ones."""

import math

import torch

from utils.course.catalogue import right, wrong


def refuse(templates, labels, share, pure=True):
    names = templates.unique()
    if len(names) < 2 or not 0 < share < 1:
        raise ValueError("templates or share")
    if pure and any(labels[templates == name].unique().numel() < 2 for name in names):
        raise ValueError("one label")
    return names


def number(share, m):
    return min(max(1, math.floor(share * m + 0.5)), m - 1)


@wrong(
    "split_by_template",
    "You hold out texts and not templates: the same sentence, with another word in it, stands on both sides.",
)
def by_text(templates, labels, share, generator):
    refuse(templates, labels, share)
    n = len(templates)
    held_out = torch.zeros(n, dtype=torch.bool)
    held_out[torch.randperm(n, generator=generator)[: number(share, n)]] = True
    return held_out


@wrong(
    "split_by_template",
    "You always hold out the last templates. Nothing is drawn, and what stands last may be of one kind.",
)
def the_last(templates, labels, share, generator):
    names = refuse(templates, labels, share)
    return torch.isin(templates, names[-number(share, len(names)) :])


@wrong("split_by_template", "You return the texts to fit to. True means held out.")
def the_other_side(templates, labels, share, generator):
    names = refuse(templates, labels, share)
    return ~torch.isin(templates, names[torch.randperm(len(names), generator=generator)[: number(share, len(names))]])


@wrong(
    "split_by_template",
    "You cut the number of templates off downwards: a share of 0.25 of ten is 3, and with few templates you hold "
    "out none.",
)
def floored(templates, labels, share, generator):
    names = refuse(templates, labels, share)
    return torch.isin(templates, names[torch.randperm(len(names), generator=generator)[: int(share * len(names))]])


@wrong(
    "split_by_template",
    "You accept a template whose texts all have one label. Then to know the template is to know the label.",
)
def any_labels(templates, labels, share, generator):
    names = refuse(templates, labels, share, pure=False)
    return torch.isin(templates, names[torch.randperm(len(names), generator=generator)[: number(share, len(names))]])


@wrong(
    "split_by_template",
    "Each template is held out by a coin of its own. How many are held out is then left to chance.",
)
def by_coins(templates, labels, share, generator):
    names = refuse(templates, labels, share)
    return torch.isin(templates, names[torch.rand(len(names), generator=generator) < share])


@wrong(
    "split_by_template",
    "You ignore the generator and draw from the global random state, so that nobody can repeat the split.",
)
def global_state(templates, labels, share, generator):
    names = refuse(templates, labels, share)
    other = torch.Generator()
    other.seed()
    return torch.isin(templates, names[torch.randperm(len(names), generator=other)[: number(share, len(names))]])


@wrong(
    "split_by_template",
    "You hold out templates that follow each other. Those at the ends then have their turn less often than the others.",
)
def a_run(templates, labels, share, generator):
    names = refuse(templates, labels, share)
    n = number(share, len(names))
    start = int(torch.randint(len(names) - n + 1, (), generator=generator))
    return torch.isin(templates, names[start : start + n])


@wrong(
    "split_by_template",
    "You draw texts and take the templates that they are of: a template of many texts is held out more often.",
)
def of_drawn_texts(templates, labels, share, generator):
    names = refuse(templates, labels, share)
    order = torch.randperm(len(templates), generator=generator)
    drawn = list(dict.fromkeys(templates[order].tolist()))
    return torch.isin(templates, torch.tensor(drawn[: number(share, len(names))]))


@right("split_by_template")
def with_a_set(templates, labels, share, generator):
    refuse(templates, labels, share)
    names = sorted(set(templates.tolist()))
    score = torch.rand(len(names), generator=generator).tolist()
    chosen = {name for _, name in sorted(zip(score, names, strict=True))[: number(share, len(names))]}
    return torch.tensor([name in chosen for name in templates.tolist()])


@right("split_by_template")
def with_unique_inverse(templates, labels, share, generator):
    refuse(templates, labels, share)
    names, index = templates.unique(return_inverse=True)
    mask = torch.zeros(len(names), dtype=torch.bool)
    mask[torch.randperm(len(names), generator=generator)[: number(share, len(names))]] = True
    return mask[index]
