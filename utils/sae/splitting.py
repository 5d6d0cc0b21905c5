"""What happens to a feature as a dictionary grows: splitting and absorption."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def feature_splitting(
    small: Float[Tensor, "n_small d"], large: Float[Tensor, "n_large d"], threshold: float = 0.7
) -> Int[Tensor, " n_large"]:
    """For each latent of a large dictionary the latent of a small one that it comes from; -1 if it comes from none.

    It comes from the one whose direction is nearest to its own (largest cosine; a direction that points the opposite
    way is far), if that cosine is at least the threshold. Several may come from one: then that one has split.

    Args:
        small: Directions of the small dictionary as rows, of any length but 0.
        large: Directions of the large one, of any length but 0.
        threshold: From -1 to 1.

    Returns:
        A row's number in ``small``, or -1.

    Source: Bricken et al. (2023), "Towards Monosemanticity", for splitting; Leask et al. (2025), "Sparse Autoencoders
    Do Not Find Canonical Units of Analysis", for the threshold between latents that are new and those that are not.
    """
    small, large = small / small.norm(dim=1, keepdim=True), large / large.norm(dim=1, keepdim=True)
    nearest, parent = (large @ small.T).max(dim=1)
    return torch.where(nearest >= threshold, parent, -1)


def feature_absorption(
    z: Float[Tensor, "n d_sae"],
    features: Bool[Tensor, "n n_features"],
    latents: Int[Tensor, " n_features"],
    parents: Int[Tensor, " n_features"],
) -> Float[Tensor, " n_features"]:
    """For each feature with a parent: how much more often the parent's latent misses the parent when the child is on.

    For a child c of p it is the share of rows with c on in which p's latent is off, less the share of rows with p on
    and *none* of its children on in which p's latent is off. Both are rows in which p is on, for a child is on only
    where its parent is.

    Args:
        z: Latents, none below 0; one is off if it is 0.
        features: Which features are truly on. Each child is on in some row, and each parent in one without children.
        latents: The latent that stands for each feature.
        parents: The number of each feature's parent; -1 if it has none.

    Returns:
        A number from -1 to 1 for each feature: 1 if the child has taken over the parent's work (absorption), 0 if the
        parent's latent fires as it does without the child. NaN for features without a parent.

    Source: Chanin et al. (2024), "A is for Absorption", for what is measured; the definition on known features is ours.
    """
    off = z[:, latents] <= 0  # [n, n_features]
    found = torch.full((len(parents),), torch.nan)
    for child, parent in enumerate(parents.tolist()):
        if parent >= 0:
            alone = features[:, parent] & ~features[:, parents == parent].any(dim=1)
            with_child = features[:, child]
            found[child] = off[with_child, parent].float().mean() - off[alone, parent].float().mean()
    return found


def tree(n_roots: int, n_children: int) -> Int[Tensor, " n_features"]:
    """The parents of a tree of features: ``n_roots`` roots, then their children, those of one root side by side."""
    return torch.cat([torch.full((n_roots,), -1), torch.arange(n_roots).repeat_interleave(n_children)])


def tree_samples(
    parents: Int[Tensor, " n_features"],
    n: int,
    *,
    p_root: float = 0.15,
    p_child: float = 0.2,
    generator: torch.Generator | None = None,
) -> Bool[Tensor, "n n_features"]:
    """Which features of a tree are on: roots each by itself, and of a root that is on at most one child.

    Each child is on in the share ``p_child`` of the rows in which its parent is.

    Source: Bussmann et al. (2025), "Learning Multi-Level Features with Matryoshka Sparse Autoencoders", section 4.
    """
    on = torch.zeros(n, len(parents), dtype=torch.bool)
    roots = (parents < 0).nonzero()[:, 0]
    on[:, roots] = torch.rand(n, len(roots), generator=generator) < p_root
    for root in roots.tolist():
        children = (parents == root).nonzero()[:, 0]
        drawn = (torch.rand(n, generator=generator) / p_child).floor().long()
        for i, child in enumerate(children.tolist()):
            on[:, child] = on[:, root] & (drawn == i)
    return on
