"""Wrong answers for matching latents, each with its sentence, and right ones."""

import torch
from scipy.stats import mannwhitneyu

from utils.course.catalogue import right, wrong


def areas_of(z, labels, equal=0.5):
    above, below = z[labels].double(), z[~labels].double()
    more = (above[:, None] > below[None]).double() + equal * (above[:, None] == below[None]).double()
    return more.mean((0, 1))


def cosines_of(W_dec, direction):
    return torch.cosine_similarity(W_dec, direction[None])


def match(z, labels, units, W_dec, direction, n_draws, generator, *, areas=areas_of, cosines=cosines_of, within=True,
          best=lambda values, i: values.max(), add=1, slack=1e-9, drawn=None):  # fmt: skip
    if n_draws < 1 or any(labels[units == unit].unique().numel() < 2 for unit in units.unique()):
        raise ValueError("labels or draws")
    data, cosine = areas(z, labels), cosines(W_dec, direction)
    first, second = int(data.argmax()), int(cosine.argmax())
    hits = [0, 0]
    for _ in range(n_draws):
        if within:
            shuffled = labels.clone()
            for unit in units.unique():
                mine = units == unit
                shuffled[mine] = labels[mine][torch.randperm(int(mine.sum()), generator=generator)]
        else:
            shuffled = labels[torch.randperm(len(labels), generator=generator)]
        random = (drawn or torch.randn)(len(direction), generator=generator)
        hits[0] += bool(best(areas(z, shuffled), first) >= data.max() - slack)
        hits[1] += bool(best(cosines(W_dec, random), second) >= cosine.max())
    p = [(add + hit) / (add + n_draws) for hit in hits]
    return {"auroc": data.to(z.dtype), "by_data": first, "p_data": p[0], "cosine": cosine, "by_cosine": second,
            "p_cosine": p[1]}  # fmt: skip


@wrong(
    "match_latents",
    "Your shuffle changes how many texts of a unit have the feature. A latent that only knows the unit then "
    "looks like a match.",
)
def across_units(z, labels, units, W_dec, direction, n_draws, generator):
    return match(z, labels, units, W_dec, direction, n_draws, generator, within=False)


@wrong(
    "match_latents",
    "You compare the best of all latents with one latent of the draw. The best of a thousand is large by chance: "
    "compare it with the best.",
)
def one_of_the_draw(z, labels, units, W_dec, direction, n_draws, generator):
    return match(z, labels, units, W_dec, direction, n_draws, generator, best=lambda values, i: values[i])


@wrong("match_latents", "Your cosines are inner products: a long row of W_dec looks like a near one.")
def inner_products(z, labels, units, W_dec, direction, n_draws, generator):
    def cosines(W_dec, direction):
        return W_dec @ (direction / direction.norm())

    return match(z, labels, units, W_dec, direction, n_draws, generator, cosines=cosines)


@wrong("match_latents", "Equal activations don't count half. Most activations of a latent are equal: they are 0.")
def equal_counts_nothing(z, labels, units, W_dec, direction, n_draws, generator):
    return match(z, labels, units, W_dec, direction, n_draws, generator, areas=lambda z, y: areas_of(z, y, equal=0.0))


@wrong("match_latents", "One is missing above and below in your p-values: with so few draws p would be 0.")
def nothing_added(z, labels, units, W_dec, direction, n_draws, generator):
    return match(z, labels, units, W_dec, direction, n_draws, generator, add=0)


@wrong("match_latents", "Your area is the accuracy of 'the latent is on'. How strongly it is on has no part in that.")
def on_or_off(z, labels, units, W_dec, direction, n_draws, generator):
    return match(
        z, labels, units, W_dec, direction, n_draws, generator, areas=lambda z, y: areas_of((z > 0).float(), y)
    )


@wrong(
    "match_latents",
    "You take the size of the cosine, so that a latent of the opposite direction counts as a match.",
)
def whatever_the_sign(z, labels, units, W_dec, direction, n_draws, generator):
    return match(z, labels, units, W_dec, direction, n_draws, generator, cosines=lambda W, v: cosines_of(W, v).abs())


@wrong(
    "match_latents", "A draw whose best match is just as good as the feature's counts as well. You ask for a better."
)
def strictly_better(z, labels, units, W_dec, direction, n_draws, generator):
    return match(z, labels, units, W_dec, direction, n_draws, generator, slack=-1e-9)


@wrong("match_latents", "Your random directions have no negative numbers: they all lean to the same side.")
def one_side(z, labels, units, W_dec, direction, n_draws, generator):
    return match(z, labels, units, W_dec, direction, n_draws, generator, drawn=torch.rand)


@wrong("match_latents", "Of latents that match equally well you name the last.")
def last_of_equals(z, labels, units, W_dec, direction, n_draws, generator):
    found = match(z, labels, units, W_dec, direction, n_draws, generator)
    last = {key: int((found[of] == found[of].max()).nonzero()[-1]) for key, of in
            (("by_data", "auroc"), ("by_cosine", "cosine"))}  # fmt: skip
    return found | last


@right("match_latents")
def by_pairs(z, labels, units, W_dec, direction, n_draws, generator):
    return match(z, labels, units, W_dec, direction, n_draws, generator)


@right("match_latents")
def with_scipy(z, labels, units, W_dec, direction, n_draws, generator):
    def areas(z, labels):
        u = mannwhitneyu(z[labels].numpy(), z[~labels].numpy(), method="asymptotic").statistic
        return torch.as_tensor(u / (int(labels.sum()) * int((~labels).sum())))

    return match(z, labels, units, W_dec, direction, n_draws, generator, areas=areas)
