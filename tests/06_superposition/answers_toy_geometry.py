"""Wrong answers for what is read from a toy model's weights, each with its sentence, and right ones."""

import math

import torch

from utils.course.catalogue import right, wrong

# interference_matrix


@wrong(
    "interference_matrix",
    "You multiply the other way round: W Wᵀ compares hidden dimensions, and Wᵀ W features.",
)
def hidden_dimensions(W):
    return W @ W.mT


@wrong(
    "interference_matrix",
    "Your directions are scaled to length 1 first. What a feature adds to an output depends on both lengths.",
)
def cosines(W):
    unit = W / W.norm(dim=-2, keepdim=True)
    return unit.mT @ unit


@wrong(
    "interference_matrix",
    "Your signs are lost. A negative product is what the ReLU can remove; a positive one not.",
)
def sizes_only(W):
    return (W.mT @ W).abs()


@wrong("interference_matrix", "Your diagonal is 0. What a feature adds to its own output stands there.")
def without_diagonal(W):
    product = W.mT @ W
    return product - torch.diag_embed(product.diagonal(dim1=-2, dim2=-1))


@wrong(
    "interference_matrix",
    "Only one of the two directions has been scaled to length 1: the matrix is not symmetric.",
)
def one_side_scaled(W):
    return (W / W.norm(dim=-2, keepdim=True)).mT @ W


@right("interference_matrix")
def by_einsum(W):
    return torch.einsum("...di,...dj->...ij", W, W)


@right("interference_matrix")
def pair_by_pair(W):
    return (W.unsqueeze(-1) * W.unsqueeze(-2)).sum(-3)


# feature_dimensionality


def shares(W, *, unit=None, power=2, without_self=False):
    sizes = W.norm(dim=-2)
    safe = torch.where(sizes == 0, 1.0, sizes)
    directions = W / safe.unsqueeze(-2) if unit is None else unit
    overlaps = (directions.mT @ W).abs().pow(power)
    if without_self:
        overlaps = overlaps - torch.diag_embed(overlaps.diagonal(dim1=-2, dim2=-1))
    total = overlaps.sum(-1)
    return sizes.square() / torch.where(sizes == 0, 1.0, total)


@wrong(
    "feature_dimensionality",
    "What the others put on a feature's direction counts with you as if each of them had length 1. Then a feature that "
    "is hardly stored takes as much from its neighbours as a full one.",
)
def all_scaled(W):
    sizes = W.norm(dim=-2)
    unit = W / torch.where(sizes == 0, 1.0, sizes).unsqueeze(-2)
    total = (unit.mT @ unit).square().sum(-1)
    return (sizes != 0) / torch.where(sizes == 0, 1.0, total)


@wrong(
    "feature_dimensionality",
    "None of the directions has been scaled to length 1, so that twice as long weights give another dimensionality: a "
    "pentagon of length 2 has more room than one of length 1.",
)
def none_scaled(W):
    return shares(W, unit=W)


@wrong("feature_dimensionality", "Your overlaps are not squared.")
def not_squared(W):
    return shares(W, power=1)


@wrong(
    "feature_dimensionality",
    "The feature itself is left out of the sum below: a feature that is alone is divided by 0.",
)
def without_itself(W):
    return shares(W, without_self=True)


@wrong(
    "feature_dimensionality",
    "A feature that is not stored has NaN: 0 divided by 0. It has no share of a dimension.",
)
def nan_for_nothing(W):
    sizes = W.norm(dim=-2)
    return sizes.square() / ((W / sizes.unsqueeze(-2)).mT @ W).square().sum(-1)


@right("feature_dimensionality")
def feature_by_feature(W):
    if W.ndim > 2:
        return torch.stack([feature_by_feature(one) for one in W])
    found = []
    for i in range(W.shape[1]):
        size = W[:, i].norm()
        if size == 0:
            found.append(torch.tensor(0.0))
            continue
        found.append(size**2 / sum((W[:, i] @ W[:, j] / size) ** 2 for j in range(W.shape[1])))
    return torch.stack(found)


@right("feature_dimensionality")
def from_the_products(W):
    products = (W.mT @ W).double()
    own = products.diagonal(dim1=-2, dim2=-1)
    return torch.nan_to_num(own.square() / products.square().sum(-1)).float()


# find_polygon


def gaps_of(W, min_size):
    if W.ndim != 2 or W.shape[0] != 2:
        raise ValueError("not in the plane")
    kept = W[:, W.norm(dim=0) >= min_size]
    angles = torch.atan2(kept[1], kept[0]).rad2deg().sort().values
    return angles, torch.cat([angles[1:], angles[:1] + 360]) - angles if len(angles) else angles


def corners(gaps, tolerance, wanted=None):
    k = len(gaps)
    if k < 2:
        return 0
    return k if bool(((gaps - (360 / k if wanted is None else wanted)).abs() <= tolerance).all()) else 0


@wrong(
    "find_polygon",
    "The way from the last direction back to the first is not looked at: four corners of a pentagon pass for a figure.",
)
def no_way_back(W, min_size=0.5, tolerance=5.0):
    angles, gaps = gaps_of(W, min_size)
    k = len(angles)
    if k < 2:
        return 0
    inner = gaps[:-1]
    return k if bool(((inner - inner.mean()).abs() <= tolerance).all()) else 0


@wrong("find_polygon", "Features that are shorter than min_size count with you.")
def all_count(W, min_size=0.5, tolerance=5.0):
    return corners(gaps_of(W, 1e-6)[1], tolerance)


@wrong(
    "find_polygon",
    "You go through the features in the order of their numbers. Neighbours are those next to each other in angle.",
)
def unsorted(W, min_size=0.5, tolerance=5.0):
    gaps_of(W, min_size)
    kept = W[:, W.norm(dim=0) >= min_size]
    angles = torch.atan2(kept[1], kept[0]).rad2deg()
    gaps = (angles.roll(-1) - angles) % 360
    return corners(gaps, tolerance)


@wrong("find_polygon", "You allow the tolerance as a share of the gap, where it is in degrees.")
def relative(W, min_size=0.5, tolerance=5.0):
    gaps = gaps_of(W, min_size)[1]
    return corners(gaps * len(gaps) / 360 * 100, tolerance, 100.0)


@wrong(
    "find_polygon",
    "You ask how far the gaps are off on average. One corner far off is hidden by the regular ones.",
)
def on_average(W, min_size=0.5, tolerance=5.0):
    gaps = gaps_of(W, min_size)[1]
    k = len(gaps)
    return k if k > 1 and float((gaps - 360 / k).abs().mean()) <= tolerance else 0


@wrong(
    "find_polygon",
    "You go by lengths: corners at regular angles are refused because their directions are not equally long.",
)
def equal_lengths(W, min_size=0.5, tolerance=5.0):
    sizes = W.norm(dim=0)
    found = corners(gaps_of(W, min_size)[1], tolerance)
    kept = sizes[sizes >= min_size]
    return found if found and bool((kept.max() - kept.min()) < 0.02) else 0


@wrong(
    "find_polygon",
    "The gaps that you look at may each be a little off, but not the one that is left, from the last direction back to "
    "the first: there all that the others are off adds up.",
)
def last_gap_free(W, min_size=0.5, tolerance=5.0):
    gaps = gaps_of(W, min_size)[1]
    k = len(gaps)
    return k if k > 1 and bool(((gaps[:-1] - 360 / k).abs() <= tolerance).all()) else 0


@wrong(
    "find_polygon",
    "Each direction is near enough to one neighbour with you, the closer one. It has another, and the gap to that one "
    "may be too wide.",
)
def closer_neighbour(W, min_size=0.5, tolerance=5.0):
    gaps = gaps_of(W, min_size)[1]
    return corners(torch.minimum(gaps, gaps.roll(1)), tolerance)


@wrong(
    "find_polygon",
    "You ask how much the gaps scatter as a whole, by their standard deviation. One that is too far off is hidden by "
    "the regular ones.",
)
def scatter(W, min_size=0.5, tolerance=5.0):
    gaps = gaps_of(W, min_size)[1]
    return len(gaps) if len(gaps) > 1 and float(gaps.std()) <= tolerance else 0


@wrong("find_polygon", "It is the narrowest gap alone that you look at. Others may be too wide.")
def narrowest_gap(W, min_size=0.5, tolerance=5.0):
    gaps = gaps_of(W, min_size)[1]
    return len(gaps) if len(gaps) > 1 and abs(gaps.min().item() - 360 / len(gaps)) <= tolerance else 0


@wrong("find_polygon", "It is the widest gap alone that you look at. Another may be too narrow.")
def widest_gap(W, min_size=0.5, tolerance=5.0):
    gaps = gaps_of(W, min_size)[1]
    return len(gaps) if len(gaps) > 1 and abs(gaps.max().item() - 360 / len(gaps)) <= tolerance else 0


@wrong(
    "find_polygon",
    "You ask how far the corners are from where they should be, counted from the first one. What the docstring asks "
    "of is the way from each direction to the next.",
)
def corners_in_place(W, min_size=0.5, tolerance=5.0):
    angles, _ = gaps_of(W, min_size)
    k = len(angles)
    if k < 2:
        return 0
    places = angles[0] + 360 / k * torch.arange(k)
    return k if bool(((angles - places).abs() <= tolerance).all()) else 0


@wrong(
    "find_polygon",
    "You ask how much the widest gap and the narrowest differ. Asked is how far each of them is from 360 / k, which "
    "allows twice as much.",
)
def widest_less_narrowest(W, min_size=0.5, tolerance=5.0):
    gaps = gaps_of(W, min_size)[1]
    return len(gaps) if len(gaps) > 1 and float(gaps.max() - gaps.min()) <= tolerance else 0


@wrong("find_polygon", "Your tolerance is 5 degrees, whatever is asked for.")
def fixed_tolerance(W, min_size=0.5, tolerance=5.0):
    return corners(gaps_of(W, min_size)[1], 5.0)


@wrong("find_polygon", "Two opposite directions are refused. They are a polygon of 2 corners.")
def three_at_least(W, min_size=0.5, tolerance=5.0):
    found = corners(gaps_of(W, min_size)[1], tolerance)
    return found if found > 2 else 0


@wrong(
    "find_polygon",
    "A feature that is exactly as long as min_size does not count with you. min_size is where counting begins.",
)
def longer_than(W, min_size=0.5, tolerance=5.0):
    return corners(gaps_of(W, min_size * (1 + 1e-6))[1], tolerance)


@right("find_polygon")
def by_angles_between(W, min_size=0.5, tolerance=5.0):
    """From each direction to the next by the arc cosine. (Were a gap above 180 degrees, others would be too narrow.)"""
    if W.ndim != 2 or W.shape[0] != 2:
        raise ValueError("not in the plane")
    kept = W[:, W.norm(dim=0) >= min_size]
    k = kept.shape[1]
    if k < 2:
        return 0
    unit = (kept / kept.norm(dim=0))[:, torch.atan2(kept[1], kept[0]).argsort()]
    between = (unit * unit.roll(-1, 1)).sum(0).clamp(-1, 1).arccos().rad2deg()
    return k if bool(((between - 360 / k).abs() <= tolerance).all()) else 0


@right("find_polygon")
def by_counting(W, min_size=0.5, tolerance=5.0):
    if W.ndim != 2 or len(W) != 2:
        raise ValueError("two dimensions, please")
    points = [(x, y) for x, y in W.T.tolist() if math.hypot(x, y) >= min_size]
    angles = sorted(math.degrees(math.atan2(y, x)) for x, y in points)
    k = len(angles)
    if k < 2:
        return 0
    for i in range(k):
        gap = angles[i + 1] - angles[i] if i + 1 < k else angles[0] + 360 - angles[-1]
        if abs(gap - 360 / k) > tolerance:
            return 0
    return k


@right("find_polygon")
def with_complex_numbers(W, min_size=0.5, tolerance=5.0):
    if W.ndim != 2 or W.shape[0] != 2:
        raise ValueError("the plane has two dimensions")
    z = torch.complex(W[0], W[1])
    z = z[z.abs() >= min_size]
    if len(z) < 2:
        return 0
    angles = (z.angle() % (2 * math.pi)).sort().values
    gaps = torch.diff(angles, append=angles[:1] + 2 * math.pi)
    worst = (gaps - 2 * math.pi / len(z)).abs().max().item()
    return len(z) if worst <= math.radians(tolerance) else 0


# superposition_vs_sparsity


def squares(W):
    return W.square().sum((1, 2))


@wrong(
    "superposition_vs_sparsity",
    "You divide by the number of features: what is asked is features for each dimension.",
)
def per_feature(train, p, n_starts):
    W = train(p.repeat_interleave(n_starts))
    return (squares(W) / W.shape[2]).view(len(p), n_starts)


@wrong(
    "superposition_vs_sparsity",
    "You take the norm of W, and not its square: a direction of length 1 has to count 1, and two of them 2.",
)
def not_squared_norm(train, p, n_starts):
    W = train(p.repeat_interleave(n_starts))
    return (squares(W).sqrt() / W.shape[1]).view(len(p), n_starts)


@wrong(
    "superposition_vs_sparsity",
    "You ask for one probability after the other and begin again: model i * n_starts + s should have p[i].",
)
def repeated_as_a_whole(train, p, n_starts):
    W = train(p.repeat(n_starts))
    return (squares(W) / W.shape[1]).view(n_starts, len(p)).T


@wrong("superposition_vs_sparsity", "You train row by row. Many models train in one call in hardly more time than one.")
def one_call_each(train, p, n_starts):
    rows = []
    for i in range(len(p)):
        W = train(p[i : i + 1].expand(n_starts))
        rows.append(squares(W) / W.shape[1])
    return torch.stack(rows)


@wrong(
    "superposition_vs_sparsity",
    "You average over the starts. They differ, and that is half of what there is to see.",
)
def averaged(train, p, n_starts):
    W = train(p.repeat_interleave(n_starts))
    return (squares(W) / W.shape[1]).view(len(p), n_starts).mean(1)


@wrong("superposition_vs_sparsity", "You give dimensions per feature, d_hidden / |W|²; asked is its inverse.")
def upside_down(train, p, n_starts):
    W = train(p.repeat_interleave(n_starts))
    return (W.shape[1] / squares(W)).view(len(p), n_starts)


@right("superposition_vs_sparsity")
def by_trace(train, p, n_starts):
    W = train(torch.cat([x.repeat(n_starts) for x in p]))
    stored = torch.stack([torch.trace(w.T @ w) for w in W])
    return (stored / W.shape[1]).reshape(len(p), n_starts)


@right("superposition_vs_sparsity")
def by_norm(train, p, n_starts):
    W = train(p[:, None].expand(-1, n_starts).flatten())
    return torch.linalg.matrix_norm(W).pow(2).unflatten(0, (len(p), n_starts)) / W.shape[-2]
