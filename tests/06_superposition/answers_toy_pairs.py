"""Wrong answers for features in pairs, each with its sentence, and right ones."""

import torch

from utils.course.catalogue import right, wrong


def refuse(kinds, p):
    if set(kinds) - {"together", "apart", "independent"}:
        raise ValueError("no such kind")
    if not 0 <= p <= (0.5 if "apart" in kinds else 1.0):
        raise ValueError("no such probability")


def pairs(kinds, batch, p, generator, n_models, *, apart=None, together=None, sizes=None):
    """Right in all parts, but for those that are given."""
    refuse(kinds, p)
    drawn = []
    for kind in kinds:
        u, v = (torch.rand(n_models, batch, generator=generator) for _ in range(2))
        first, second = {
            "together": together or (lambda u, v: (u < p, u < p)),
            "apart": apart or (lambda u, v: (u < p, u > 1 - p)),
            "independent": lambda u, v: (u < p, v < p),
        }[kind](u, v)
        drawn += [first, second]
    on = torch.stack(drawn, dim=-1)
    return (sizes or uniform_sizes)(on, generator) * on


def uniform_sizes(on, generator):
    return torch.rand(on.shape, generator=generator)


@wrong(
    "sample_pairs",
    "Of a pair that is apart you take one with probability p, and then toss a coin. Each of the two is on with p / 2 "
    "so; asked is p for each.",
)
def half_as_often(kinds, batch, p, generator=None, n_models=1):
    return pairs(kinds, batch, p, generator, n_models, apart=lambda u, v: ((u < p) & (v < 0.5), (u < p) & (v >= 0.5)))


@wrong(
    "sample_pairs",
    "In your pairs that are apart the second is on only if the first is off, and then with probability p: less than p "
    "in all.",
)
def second_if_not_first(kinds, batch, p, generator=None, n_models=1):
    return pairs(kinds, batch, p, generator, n_models, apart=lambda u, v: (u < p, (u >= p) & (v < p)))


@wrong(
    "sample_pairs",
    "In a pair that is on together both have the same size. They are on together; how large each is, is "
    "its own affair.",
)
def the_same_size(kinds, batch, p, generator=None, n_models=1):
    def sizes(on, generator):
        one = torch.rand(*on.shape[:-1], len(kinds), generator=generator).repeat_interleave(2, -1)
        own = torch.rand(on.shape, generator=generator)
        same = torch.tensor([kind == "together" for kind in kinds]).repeat_interleave(2)
        return torch.where(same, one, own)

    return pairs(kinds, batch, p, generator, n_models, sizes=sizes)


@wrong("sample_pairs", "A feature that is on is always 1 with you. It should be uniform between 0 and 1.")
def ones(kinds, batch, p, generator=None, n_models=1):
    return pairs(kinds, batch, p, generator, n_models, sizes=lambda on, generator: torch.ones(on.shape))


@wrong(
    "sample_pairs",
    "In your pairs that should be on together one is now and then on without the other.",
)
def mostly_together(kinds, batch, p, generator=None, n_models=1):
    return pairs(
        kinds, batch, p, generator, n_models,
        together=lambda u, v: (u < p, torch.where(v < 0.9, u < p, (v - 0.9) * 10 < p)),
    )  # fmt: skip


@wrong("sample_pairs", "All your models get the same examples.")
def the_same_for_all(kinds, batch, p, generator=None, n_models=1):
    return pairs(kinds, batch, p, generator, 1).expand(n_models, -1, -1)


@wrong(
    "sample_pairs",
    "All first features stand before all second ones. Pair k are features 2k and 2k + 1.",
)
def firsts_first(kinds, batch, p, generator=None, n_models=1):
    found = pairs(kinds, batch, p, generator, n_models)
    return torch.cat([found[..., 0::2], found[..., 1::2]], dim=-1)


@wrong(
    "sample_pairs",
    "A pair that is apart can't have each of its features on more than half the time: to be refused.",
)
def too_often(kinds, batch, p, generator=None, n_models=1):
    return pairs(kinds, batch, min(p, 0.5) if "apart" in kinds and p <= 1 else p, generator, n_models)


@wrong(
    "sample_pairs",
    "In your pairs that are apart each of the two is drawn by itself, and where both would be on neither is: less than "
    "p in all.",
)
def neither_if_both(kinds, batch, p, generator=None, n_models=1):
    return pairs(kinds, batch, p, generator, n_models, apart=lambda u, v: ((u < p) & (v >= p), (u >= p) & (v < p)))


@wrong(
    "sample_pairs",
    "Your pairs know of each other: one draw decides about all of them. Each pair has a draw of its own.",
)
def one_draw_for_all_pairs(kinds, batch, p, generator=None, n_models=1):
    refuse(kinds, p)
    u, v = (
        torch.rand(n_models, batch, generator=generator),
        torch.rand(n_models, batch, len(kinds), generator=generator),
    )
    drawn = []
    for k, kind in enumerate(kinds):
        drawn += [u < p, {"together": u < p, "apart": u > 1 - p, "independent": v[..., k] < p}[kind]]
    on = torch.stack(drawn, dim=-1)
    return uniform_sizes(on, generator) * on


@wrong(
    "sample_pairs",
    "Without a generator your features are the same at each call: the draws come from a seed of your own, and not from "
    "torch's global generator.",
)
def seed_of_its_own(kinds, batch, p, generator=None, n_models=1):
    return pairs(kinds, batch, p, generator or torch.Generator().manual_seed(0), n_models)


@right("sample_pairs")
def by_loop(kinds, batch, p, generator=None, n_models=1):
    return pairs(kinds, batch, p, generator, n_models)


@right("sample_pairs")
def by_cases(kinds, batch, p, generator=None, n_models=1):
    """Draw for each pair which of four things happens: none, the first, the second, both."""
    refuse(kinds, p)
    weights = {
        "together": [1 - p, 0.0, 0.0, p],
        "apart": [1 - 2 * p, p, p, 0.0],
        "independent": [(1 - p) ** 2, p * (1 - p), p * (1 - p), p * p],
    }
    what = torch.stack(
        [
            torch.multinomial(torch.tensor(weights[k]).clamp(min=0), n_models * batch, True, generator=generator)
            for k in kinds
        ],
        dim=-1,
    )
    on = torch.stack([(what == 1) | (what == 3), what >= 2], dim=-1).reshape(n_models, batch, -1)
    return on * torch.rand(on.shape, generator=generator)
