"""Wrong and right answers for splitting and absorption."""

import torch
from torch.nn.functional import cosine_similarity, normalize

from utils.course.catalogue import right, wrong


@wrong(
    "feature_splitting",
    "You compare inner products, so that a long direction seems near to everything. Only the angle counts.",
)
def inner_products(small, large, threshold=0.7):
    nearest, parent = (large @ small.T).max(1)
    return torch.where(nearest >= threshold, parent, -1)


@wrong(
    "feature_splitting",
    "A direction that points the opposite way counts as near with you. A latent is never negative, so the opposite "
    "direction is another feature.",
)
def absolute(small, large, threshold=0.7):
    nearest, parent = (normalize(large, dim=1) @ normalize(small, dim=1).T).abs().max(1)
    return torch.where(nearest >= threshold, parent, -1)


@wrong("feature_splitting", "Every latent has a parent with you, however far away: the threshold does nothing.")
def no_threshold(small, large, threshold=0.7):
    return (normalize(large, dim=1) @ normalize(small, dim=1).T).argmax(1)


@wrong(
    "feature_splitting",
    "With you a latent of the small dictionary is the parent of one latent of the large one at most. Then none can "
    "split: ask each latent of the large one for its nearest, which may be the same for several.",
)
def other_way(small, large, threshold=0.7):
    cosines = normalize(large, dim=1) @ normalize(small, dim=1).T
    out = torch.full((len(large),), -1)
    for i in range(len(small)):
        best = int(cosines[:, i].argmax())
        if cosines[best, i] >= threshold:
            out[best] = i
    return out


@wrong(
    "feature_splitting",
    "You choose the nearest by inner products, so that a long direction of the small dictionary seems near to "
    "everything. Only the angle counts, also in the choice.",
)
def chosen_by_inner_products(small, large, threshold=0.7):
    parent = (large @ small.T).argmax(1)
    return torch.where(cosine_similarity(large, small[parent], dim=1) >= threshold, parent, -1)


@wrong(
    "feature_splitting",
    "What you hold against the threshold still has the length of the large dictionary's direction in it, so that a "
    "long one is near and a short one far. Divide by it as well.",
)
def large_not_normalised(small, large, threshold=0.7):
    nearest, parent = (large @ normalize(small, dim=1).T).max(1)
    return torch.where(nearest >= threshold, parent, -1)


@wrong(
    "feature_splitting",
    "You take the nearest by distance. A direction ten times as long is far away by distance, and the same direction.",
)
def by_distance(small, large, threshold=0.7):
    parent = torch.cdist(large, small).argmin(1)
    return torch.where(cosine_similarity(large, small[parent], dim=1) >= threshold, parent, -1)


@wrong("feature_splitting", "A cosine equal to the threshold is near enough, and you leave it out.")
def strictly(small, large, threshold=0.7):
    nearest, parent = (normalize(large, dim=1) @ normalize(small, dim=1).T).max(1)
    return torch.where(nearest > threshold, parent, -1)


@right("feature_splitting")
def one_by_one(small, large, threshold=0.7):
    """A loop over the large dictionary."""
    out = []
    for direction in large:
        cosines = cosine_similarity(small, direction[None], dim=1)
        best = int(cosines.argmax())
        out.append(best if cosines[best] >= threshold else -1)
    return torch.tensor(out)


def off_share(z, latent, rows):
    return (z[rows, latent] == 0).float().mean()


@wrong(
    "feature_absorption",
    "You report how often the parent's latent misses while the child is on, and not how much more often than without a "
    "child. A latent that misses half of everything has absorbed nothing.",
)
def not_a_difference(z, features, latents, parents):
    found = torch.full((len(parents),), torch.nan)
    for child, parent in enumerate(parents.tolist()):
        if parent >= 0:
            found[child] = off_share(z, latents[parent], features[:, child])
    return found


@wrong(
    "feature_absorption",
    "You compare with all rows in which the parent is on, those with children among them. What you look for is then on "
    "both sides of the comparison.",
)
def all_rows_of_the_parent(z, features, latents, parents):
    found = torch.full((len(parents),), torch.nan)
    for child, parent in enumerate(parents.tolist()):
        if parent >= 0:
            rows = features[:, parent]
            found[child] = off_share(z, latents[parent], features[:, child]) - off_share(z, latents[parent], rows)
    return found


@wrong(
    "feature_absorption",
    "You compare with rows without *this* child. Another child of the same parent may be on there, and may have "
    "absorbed it as well.",
)
def without_this_child(z, features, latents, parents):
    found = torch.full((len(parents),), torch.nan)
    for child, parent in enumerate(parents.tolist()):
        if parent >= 0:
            rows = features[:, parent] & ~features[:, child]
            found[child] = off_share(z, latents[parent], features[:, child]) - off_share(z, latents[parent], rows)
    return found


@wrong(
    "feature_absorption",
    "You compare with all rows without a child, those among them in which the parent itself is off. There its latent "
    "has nothing to miss.",
)
def parent_off_as_well(z, features, latents, parents):
    found = torch.full((len(parents),), torch.nan)
    for child, parent in enumerate(parents.tolist()):
        if parent >= 0:
            rows = ~features[:, parents == parent].any(1)
            found[child] = off_share(z, latents[parent], features[:, child]) - off_share(z, latents[parent], rows)
    return found


@wrong(
    "feature_absorption",
    "You look at the child's own latent. Absorption is what the *parent's* latent fails to do.",
)
def the_childs_latent(z, features, latents, parents):
    found = torch.full((len(parents),), torch.nan)
    for child, parent in enumerate(parents.tolist()):
        if parent >= 0:
            alone = features[:, parent] & ~features[:, parents == parent].any(1)
            own = latents[child]
            found[child] = off_share(z, own, features[:, child]) - off_share(z, own, alone)
    return found


@wrong("feature_absorption", "You take a feature's number for its latent's. `latents` says which latent stands for it.")
def numbers_for_latents(z, features, latents, parents):
    found = torch.full((len(parents),), torch.nan)
    for child, parent in enumerate(parents.tolist()):
        if parent >= 0:
            alone = features[:, parent] & ~features[:, parents == parent].any(1)
            found[child] = off_share(z, parent, features[:, child]) - off_share(z, parent, alone)
    return found


@wrong(
    "feature_absorption",
    "You compare how strongly the parent's latent fires, and not how often it is silent.",
)
def strengths(z, features, latents, parents):
    found = torch.full((len(parents),), torch.nan)
    for child, parent in enumerate(parents.tolist()):
        if parent >= 0:
            alone = features[:, parent] & ~features[:, parents == parent].any(1)
            values = z[:, latents[parent]]
            found[child] = values[alone].mean() - values[features[:, child]].mean()
    return found


@wrong(
    "feature_absorption",
    "Features without a parent have a number with you. There is nothing that could have been absorbed from them: NaN.",
)
def roots_at_zero(z, features, latents, parents):
    found = torch.zeros(len(parents))
    for child, parent in enumerate(parents.tolist()):
        if parent >= 0:
            alone = features[:, parent] & ~features[:, parents == parent].any(1)
            own = latents[parent]
            found[child] = off_share(z, own, features[:, child]) - off_share(z, own, alone)
    return found


@right("feature_absorption")
def by_counting(z, features, latents, parents):
    """Counts in place of means."""
    result = []
    for child in range(len(parents)):
        parent = int(parents[child])
        if parent < 0:
            result.append(float("nan"))
            continue
        siblings = [i for i in range(len(parents)) if int(parents[i]) == parent]
        silent, rows, silent_alone, rows_alone = 0, 0, 0, 0
        for row in range(len(z)):
            is_off = int(z[row, latents[parent]] == 0)
            if features[row, child]:
                silent, rows = silent + is_off, rows + 1
            if features[row, parent] and not any(bool(features[row, i]) for i in siblings):
                silent_alone, rows_alone = silent_alone + is_off, rows_alone + 1
        result.append(silent / rows - silent_alone / rows_alone)
    return torch.tensor(result)
