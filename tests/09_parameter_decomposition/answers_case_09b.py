"""Wrong and right designs for the case of part 09b."""

import torch

from utils.course.catalogue import right, wrong


def parallel(given, border=0.9, live=True, sign=True):
    _, _, V, U, g = given
    keep = (g > 0.1).any(0) if live else V.norm(dim=0) * U.norm(dim=1) > 0.2
    parts = torch.einsum("ic,co->cio", V, U)[keep].flatten(1)
    cosines = torch.cosine_similarity(parts[:, None], parts[None], dim=2).fill_diagonal_(0)
    return ((cosines if sign else cosines.abs()) > border).float().sum().item()


def one_sided(given, other_way=0.8):
    on = (given[4] > 0.1).float()
    also = on.T @ on / on.sum(0).clamp(min=1)[:, None]
    return ((also > 0.95) & (other_way > also.T)).float().sum().item()


def moved(given, magnitude=None):
    x, W, V, U, g = given
    r = torch.rand(g.shape, generator=torch.Generator().manual_seed(1)) if magnitude is None else magnitude
    return ((x @ V * (g + (1 - g) * r) @ U - x @ V @ U).norm() / (x @ W).norm()).item()


def designed(suspects, sound, split=parallel, shared=one_sided, hidden=moved):
    measures = {"split": split, "shared": shared, "hidden": hidden}
    design = dict(measures)
    for flaw, measure in measures.items():
        values = [measure(given) for given in sound]
        design[f"sound_{flaw}"] = (min(values), max(values))
    for name, given in suspects.items():
        flaws = [f for f, measure in measures.items() if measure(given) > border_of(design[f"sound_{f}"])]
        design[name] = flaws[0] if flaws else "none"
    return design


def border_of(limits):
    low, high = limits
    return high + (high - low) + 1e-6 * max(1e-3, abs(high))


@wrong(
    "which_flaw",
    "Your measure of hidden components does not find them. Set to 0, or all to the same magnitude, they undo each "
    "other: each has to be drawn by itself.",
)
def all_at_zero(suspects, sound):
    return designed(suspects, sound, hidden=lambda given: moved(given, 0.0))


@wrong(
    "which_flaw",
    "Your measure of split features moves with hidden components. Those that undo each other are parallel as well, "
    "with opposite signs, and nothing needs them.",
)
def without_signs(suspects, sound):
    return designed(suspects, sound, split=lambda given: parallel(given, live=False, sign=False))


@wrong(
    "which_flaw",
    "Your measure of shared components moves with split features. There two components are always needed together, "
    "each by the other; a shared one is needed without its debtor, too.",
)
def together_either_way(suspects, sound):
    return designed(suspects, sound, shared=lambda given: one_sided(given, 1.1))


@wrong(
    "which_flaw",
    "Your measure of shared components does not find them beside the sound ones, where some features come with another "
    "in most cases, too. A share of inputs can't rise above 1, and the border may: count the pairs in which it is near "
    "1, one way only.",
)
def largest_share(suspects, sound):
    def shared(given):
        on = (given[4] > 0.1).float()
        also = on.T @ on / on.sum(0).clamp(min=1)[:, None]
        return also.fill_diagonal_(0).max().item()

    return designed(suspects, sound, shared=shared)


@wrong(
    "which_flaw",
    "Your measure of split features moves with shared components. Pairs of which one is always needed where the "
    "other is, for one, become more with both.",
)
def often_together(suspects, sound):
    def split(given):
        on = (given[4] > 0.1).float()
        also = on.T @ on / on.sum(0).clamp(min=1)[:, None]
        return (also.fill_diagonal_(0) > 0.95).float().sum().item()

    return designed(suspects, sound, split=split)


@wrong(
    "which_flaw",
    "Your measure of split features does not stand out where there are some. The two halves are near each other, not "
    "exactly parallel; and in sound decompositions, too, some features write nearly the same.",
)
def exactly_parallel(suspects, sound):
    return designed(suspects, sound, split=lambda given: parallel(given, 0.99999))


@wrong(
    "which_flaw",
    "Your range is not that of the sound ones: the smallest and the largest value over all twenty are asked for.",
)
def mean_and_spread(suspects, sound):
    design = designed(suspects, sound)
    for flaw in ("split", "shared", "hidden"):
        values = torch.tensor([design[flaw](given) for given in sound])
        design[f"sound_{flaw}"] = (values.mean().item(), values.std().item())
    return design


@wrong("which_flaw", "All your verdicts are the same, whatever your measures say.")
def one_verdict(suspects, sound):
    return designed(suspects, sound) | dict.fromkeys("ABCD", "split")


@wrong("which_flaw", "Your measure draws from a generator that goes on, so that its number can't be had again.")
def with_new_draws(suspects, sound):
    def noisy(given):
        return moved(given, torch.rand(given[4].shape))

    return designed(suspects, sound, hidden=noisy)


@right("which_flaw")
def by_gates_that_agree(suspects, sound):
    """Split: pairs that are needed by the same inputs. Hidden: the worst of several draws on half of the inputs."""

    def split(given):
        on = (given[4] > 0.1).float()
        on = on[:, on.any(0)]
        return (torch.corrcoef(on.T).fill_diagonal_(0) > 0.95).float().sum().item()

    def hidden(given):
        x, W, V, U, g = given
        generator = torch.Generator().manual_seed(7)
        draws = [g + (1 - g) * torch.rand(g.shape, generator=generator).round() for _ in range(4)]
        return max(((x @ V * m @ U - x @ W).square().mean() / (x @ W).square().mean()).item() for m in draws)

    return designed(suspects, sound, split=split, hidden=hidden)


@right("which_flaw")
def by_weights(suspects, sound):
    """Shared: components that read strongly where another is needed. Hidden: weight of components nothing needs."""

    def hidden(given):
        _, _, V, U, g = given
        idle = ~(g > 0.1).any(0)
        return (V[:, idle].norm(dim=0) * U[idle].norm(dim=1)).sum().item()

    def shared(given):
        x, _, V, _, g = given
        on, read = g > 0.1, x @ V
        alone = []
        for j in range(on.shape[1]):
            for k in range(on.shape[1]):
                if j != k and on[:, j].any() and on[:, k].any():
                    both, only = (on[:, k] & on[:, j]).sum(), (on[:, k] & ~on[:, j]).sum()
                    alone.append(float(both >= 0.97 * on[:, j].sum() and only > 5 and read[:, k].abs().max() > 0.2))
        return sum(alone)

    return designed(suspects, sound, shared=shared, hidden=hidden)
