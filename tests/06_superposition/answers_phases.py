"""Wrong answers for the phases of small toy models, each with its sentence, and right ones."""

import torch

from utils.course.catalogue import right, wrong
from utils.superposition.phases import analytic_boundary, classify_phase, pure_losses

# pure_losses


def stacked(p, r, variance=None, shared=None):
    variance = p / 3 - p**2 / 4 if variance is None else variance
    shared = (1 + r) * p**2 / 6 if shared is None else shared
    return torch.stack([r * variance, torch.ones_like(r) * variance, shared], -1)


@wrong(
    "pure_losses",
    "Your losses of an ignored feature are p / 3 times its importance: that is what the answer 0 costs. The "
    "best constant "
    "is the mean, which costs the variance.",
)
def answered_by_zero(p, r):
    return stacked(p, r, p / 3)


@wrong(
    "pure_losses",
    "Your third loss counts the error of the first feature alone: where both are on, both come out too small by the "
    "smaller one.",
)
def one_error(p, r):
    return stacked(p, r, shared=torch.ones_like(r) * p**2 / 6)


@wrong(
    "pure_losses",
    "Your third loss counts the error of the extra feature alone: where both are on, both come out too small by the "
    "smaller one.",
)
def the_extra_error(p, r):
    return stacked(p, r, shared=r * p**2 / 6)


@wrong(
    "pure_losses",
    "In your third loss both errors count alike. That of the extra feature counts r times.",
)
def shared_without_importance(p, r):
    return stacked(p, r, shared=torch.ones_like(r) * p**2 / 3)


@wrong(
    "pure_losses",
    "Your third loss is half of what it should be. Does your density of the smaller of two numbers integrate to 1?",
)
def half_a_density(p, r):
    return stacked(p, r, shared=(1 + r) * p**2 / 12)


@wrong(
    "pure_losses",
    "The variance of your ignored feature is that of a feature which is always on, times p. One that is off part of "
    "the time varies more: take its mean square less its mean, squared.",
)
def variance_while_on(p, r):
    return stacked(p, r, variance=p / 12)


@wrong("pure_losses", "Your three losses lie along the first axis, and belong along a new last one.")
def along_the_first_axis(p, r):
    return stacked(*torch.broadcast_tensors(p, r)).movedim(-1, 0)


@wrong(
    "pure_losses",
    "Your third loss grows with p, and not with its square. Sharing costs nothing unless both are on, which has "
    "probability p².",
)
def on_at_all(p, r):
    return stacked(p, r, shared=(1 + r) * p / 6)


@wrong(
    "pure_losses",
    "Your first two losses have changed places: in the first the *extra* feature is ignored, whose error counts r "
    "times.",
)
def exchanged(p, r):
    return stacked(p, r)[..., [1, 0, 2]]


@wrong(
    "pure_losses",
    "Your loss of sharing is (1 + r) p² / 9: it squares the mean of the smaller of two numbers, 1/3. What counts is "
    "the mean of the square, and that is more.",
)
def square_of_mean(p, r):
    return stacked(p, r, shared=(1 + r) * p**2 / 9)


@right("pure_losses")
def with_moments(p, r):
    p, r = torch.broadcast_tensors(p, r)
    mean, square = p / 2, p / 3
    return torch.stack([(square - mean * mean) * r, square - mean * mean, p * p * (1 + r) * (1 / 3 - 1 / 6)], -1)


@right("pure_losses")
def cell_by_cell(p, r):
    p, r = torch.broadcast_tensors(p, r)
    out = torch.zeros(*p.shape, 3)
    out[..., 0] = r * p * (4 - 3 * p) / 12
    out[..., 1] = p * (4 - 3 * p) / 12
    out[..., 2] = p**2 / 6 + r * p**2 / 6
    return out


# analytic_boundary


def checked(p):
    if ((p <= 0) | (p > 1)).any():
        raise ValueError("p")


@wrong(
    "analytic_boundary",
    "For p of 0.6 and more your borders are not 1: they have crossed (or the formula's denominator has changed sign). "
    "Where sharing never pays, both are 1.",
)
def crossed(p):
    checked(p)
    lower = 2 * p / (4 - 5 * p)
    return lower, 1 / lower


@wrong("analytic_boundary", "Your borders come in the other order: the lower one first.")
def upper_first(p):
    lower, upper = analytic_boundary(p)
    return upper, lower


@wrong(
    "analytic_boundary",
    "Your lower border has an ignored feature answered by 0: its loss is then r p / 3. The best constant is the mean.",
)
def without_bias(p):
    checked(p)
    lower = p / (2 - p)
    return lower, 1 / lower


@wrong(
    "analytic_boundary",
    "Your borders have been found on a grid: at them the two losses still differ.",
)
def on_a_grid(p):
    checked(p)
    grid = torch.linspace(0, 1, 101, dtype=p.dtype)
    lower = pure_losses(p[..., None], grid).argmin(-1).eq(2).to(p.dtype).argmax(-1) / 100
    lower = torch.where(p < 4 / 7, lower, torch.ones_like(p)).clamp(min=0.01)
    return lower, 1 / lower


@wrong(
    "analytic_boundary",
    "A probability that is not above 0 goes through, though it stands beside others that are: refuse it wherever it "
    "stands.",
)
def unchecked(p):
    lower = torch.where(p < 4 / 7, 2 * p / (4 - 5 * p), torch.ones_like(p))
    return lower, 1 / lower


@wrong(
    "analytic_boundary",
    "You hold the lower border at 1 from above and the upper one from below, but for large p the formula's denominator "
    "changes its sign, and your borders do, too.",
)
def held_at_one(p):
    checked(p)
    lower = 2 * p / (4 - 5 * p)
    return lower.clamp(max=1), (1 / lower).clamp(min=1)


@wrong(
    "analytic_boundary",
    "Your borders become 1 only where the denominator changes its sign. They have crossed before, where both are 1: "
    "from there on sharing never has the smallest loss.",
)
def until_the_sign_changes(p):
    checked(p)
    lower = torch.where(p < 0.8, 2 * p / (4 - 5 * p), torch.ones_like(p))
    return lower, 1 / lower


@right("analytic_boundary")
def solved_from_losses(p):
    """The losses are linear in r: solve from their values at r = 0 and 1."""
    checked(p)
    at_0, at_1 = pure_losses(p, torch.zeros_like(p)), pure_losses(p, torch.ones_like(p))
    start, slope = at_0[..., 2] - at_0[..., 0], (at_1 - at_0)[..., 0] - (at_1 - at_0)[..., 2]
    lower = start / slope.clamp(min=1e-9)
    lower = torch.where(slope > 0, lower.clamp(max=1), torch.ones_like(p))
    return lower, 1 / lower


@right("analytic_boundary")
def by_minimum(p):
    checked(p)
    lower = torch.ones_like(p)
    below = p < 4 / 7
    lower[below] = (p / (2 - 2.5 * p))[below].clamp(max=1)
    return lower, lower.reciprocal()


# classify_phase


def phases(W, feature=-1, threshold=0.5, *, overlap=None, length=None, at_least=None):
    mine = W[:, :, feature]
    norm = mine.norm(dim=1)
    projected = (W.mT @ mine[:, :, None])[..., 0] / norm[:, None]
    rest = torch.ones(W.shape[2], dtype=torch.bool)
    rest[feature] = False
    other = projected[:, rest].norm(dim=1) if overlap is None else overlap(projected[:, rest], norm)
    counted = norm if length is None else length(norm)
    return torch.where(counted < threshold, 0, torch.where(other >= (at_least or threshold), 2, 1))


@wrong(
    "classify_phase",
    "The largest overlap alone decides in your answer: three columns that each share a little, and together "
    "enough, are "
    "counted as none.",
)
def largest_overlap(W, feature=-1, threshold=0.5):
    def largest(overlaps, norm):
        return overlaps.abs().amax(1) if overlaps.shape[1] else torch.zeros_like(norm)

    return phases(W, feature, threshold, overlap=largest)


@wrong(
    "classify_phase",
    "You take the overlaps with W_i itself in place of its direction: a long W_i then seems to be shared, and a "
    "short one "
    "to be dedicated.",
)
def not_normalised(W, feature=-1, threshold=0.5):
    return phases(W, feature, threshold, overlap=lambda overlaps, norm: overlaps.norm(dim=1) * norm)


@wrong(
    "classify_phase",
    "Overlaps of opposite signs cancel in your sum, or count negatively: an antipodal partner is not seen. Add "
    "up squares.",
)
def signed_sum(W, feature=-1, threshold=0.5):
    return phases(W, feature, threshold, overlap=lambda overlaps, norm: overlaps.sum(1))


@wrong(
    "classify_phase",
    "The other threshold changes nothing in your answer: 0.5 is written into it, in the length, the overlap, or both.",
)
def fixed_threshold(W, feature=-1, threshold=0.5):
    return classify_phase(W, feature)


@wrong("classify_phase", "You always answer for the last feature, whichever is asked about.")
def always_the_last(W, feature=-1, threshold=0.5):
    return classify_phase(W, -1, threshold)


@wrong(
    "classify_phase",
    "You take cosines, so that the length of the other columns is lost: a partner of length 0.1 counts as much "
    "as one of "
    "length 1.",
)
def by_cosine(W, feature=-1, threshold=0.5):
    return torch.where(
        W[:, :, feature].norm(dim=1) < threshold,
        0,
        classify_phase(W / W.norm(dim=1, keepdim=True).clamp(min=1e-9), feature, threshold),
    )


@wrong(
    "classify_phase",
    "The feature itself is among the others in your sum: whatever has a direction then shares it, with itself.",
)
def with_itself(W, feature=-1, threshold=0.5):
    return phases(W, feature, threshold, overlap=lambda overlaps, norm: (overlaps.square().sum(1) + norm**2).sqrt())


@wrong(
    "classify_phase",
    "With a negative number the feature itself is among the others: its place, counted from the front, has another "
    "number.",
)
def not_counted_from_the_end(W, feature=-1, threshold=0.5):
    return (with_itself if feature < 0 else classify_phase)(W, feature, threshold)


@wrong(
    "classify_phase",
    "You compare a sum of squares with the threshold, which is a length: the root is missing.",
)
def without_a_root(W, feature=-1, threshold=0.5):
    return phases(W, feature, threshold, overlap=lambda overlaps, norm: overlaps.square().sum(1))


@wrong(
    "classify_phase",
    "You add up the overlaps' absolute values. What lies along a direction adds up in squares.",
)
def sum_of_sizes(W, feature=-1, threshold=0.5):
    return phases(W, feature, threshold, overlap=lambda overlaps, norm: overlaps.abs().sum(1))


@wrong(
    "classify_phase",
    "You project W_i onto the directions of the others, and their own lengths are lost: a partner of length 0.1 counts "
    "as much as one of length 1. It is W_i whose direction is taken.",
)
def onto_the_others(W, feature=-1, threshold=0.5):
    directions = W / W.norm(dim=1, keepdim=True).clamp(min=1e-9)
    overlaps = (directions.mT @ W[:, :, feature, None])[..., 0]
    overlaps[:, feature] = 0
    other = overlaps.norm(dim=1)
    return torch.where(W[:, :, feature].norm(dim=1) < threshold, 0, torch.where(other >= threshold, 2, 1))


@wrong("classify_phase", "You compare the square of the length with the threshold, which is a length.")
def squared_length(W, feature=-1, threshold=0.5):
    return phases(W, feature, threshold, length=lambda norm: norm**2)


@wrong("classify_phase", "An overlap of exactly the threshold counts as none in your answer.")
def overlap_above_the_threshold(W, feature=-1, threshold=0.5):
    return phases(W, feature, threshold, at_least=threshold * (1 + 1e-6))


@wrong("classify_phase", "A length of exactly the threshold counts as none in your answer.")
def length_above_the_threshold(W, feature=-1, threshold=0.5):
    return phases(W, feature, threshold, length=lambda norm: norm * (1 - 1e-6))


@right("classify_phase")
def model_by_model(W, feature=-1, threshold=0.5):
    found = []
    for weights in W:
        mine = weights[:, feature]
        size = float(mine.norm())
        if size < threshold:
            found.append(0)
            continue
        others = [j for j in range(weights.shape[1]) if j != feature % weights.shape[1]]
        squares = sum(float(weights[:, j] @ mine / size) ** 2 for j in others)
        found.append(2 if squares**0.5 >= threshold else 1)
    return torch.tensor(found)


@right("classify_phase")
def by_gram(W, feature=-1, threshold=0.5):
    gram = torch.einsum("mdi,mdj->mij", W, W)
    own = gram[:, feature, feature]
    squares = (gram[:, feature].square().sum(-1) - own**2) / own
    return torch.where(own.sqrt() < threshold, 0, torch.where(squares.clamp(min=0).sqrt() >= threshold, 2, 1))


# phase_diagram


def diagram(train, p, r, n_features=2, n_starts=1, *, best="min", order="pr", importance_of=None):
    cells = [(a, b) for a in p for b in r] if order == "pr" else [(a, b) for b in r for a in p]
    probabilities = torch.stack([a for a, _ in cells for _ in range(n_starts)])
    importance = torch.ones(len(probabilities), n_features)
    importance[:, -1] = torch.stack([b for _, b in cells for _ in range(n_starts)])
    if importance_of is not None:
        importance = importance_of(importance)
    W, losses = train(probabilities, importance)
    losses = losses.reshape(len(cells), n_starts)
    which = {"min": losses.argmin(1), "max": losses.argmax(1), "first": torch.zeros(len(cells), dtype=torch.long)}[best]
    found = classify_phase(W[torch.arange(len(cells)) * n_starts + which])
    return found.reshape(len(p), len(r))


@wrong("phase_diagram", "You take the first start of each cell and not the best: a run that got stuck decides.")
def first_start(train, p, relative_importance, n_features=2, n_starts=1):
    return diagram(train, p, relative_importance, n_features, n_starts, best="first")


@wrong("phase_diagram", "You keep the start with the largest loss.")
def worst_start(train, p, relative_importance, n_features=2, n_starts=1):
    return diagram(train, p, relative_importance, n_features, n_starts, best="max")


@wrong(
    "phase_diagram",
    "Cells come out at other places than their p and r: the list of models runs over p first, and is folded up "
    "as if it "
    "ran over r first.",
)
def folded_wrongly(train, p, relative_importance, n_features=2, n_starts=1):
    return diagram(train, p, relative_importance, n_features, n_starts, order="rp")


@wrong(
    "phase_diagram",
    "The relative importance is given to every feature but the first. It belongs to the last one alone; the "
    "others have "
    "1.",
)
def all_extra(train, p, relative_importance, n_features=2, n_starts=1):
    def all_but_first(importance):
        return torch.cat([importance[:, :1], importance[:, -1:].expand(-1, n_features - 1)], 1)

    return diagram(train, p, relative_importance, n_features, n_starts, importance_of=all_but_first)


@wrong(
    "phase_diagram", "You call `train` once for each row of the grid: one call with all models is many times faster."
)
def row_by_row(train, p, relative_importance, n_features=2, n_starts=1):
    return torch.cat([diagram(train, one[None], relative_importance, n_features, n_starts) for one in p])


@wrong("phase_diagram", "Rows and columns have changed places: rows are probabilities.")
def transposed(train, p, relative_importance, n_features=2, n_starts=1):
    return diagram(train, p, relative_importance, n_features, n_starts).T


@wrong(
    "phase_diagram",
    "Your list holds all cells once for each start, and you fold the losses as if the starts of a cell stood side by "
    "side: starts of different cells are compared.",
)
def starts_folded_wrongly(train, p, relative_importance, n_features=2, n_starts=1):
    grid_p, grid_r = torch.meshgrid(p, relative_importance, indexing="ij")
    importance = torch.ones(grid_p.numel() * n_starts, n_features)
    importance[:, -1] = grid_r.flatten().repeat(n_starts)
    W, losses = train(grid_p.flatten().repeat(n_starts), importance)
    best = losses.reshape(-1, n_starts).argmin(1)
    W = W.reshape(grid_p.numel(), n_starts, *W.shape[1:])
    return classify_phase(W[torch.arange(len(best)), best]).reshape(grid_p.shape)


@right("phase_diagram")
def starts_outermost(train, p, relative_importance, n_features=2, n_starts=1):
    grid_p, grid_r = torch.meshgrid(p, relative_importance, indexing="ij")
    importance = torch.ones(grid_p.numel() * n_starts, n_features)
    importance[:, -1] = grid_r.flatten().repeat(n_starts)
    W, losses = train(grid_p.flatten().repeat(n_starts), importance)
    best = losses.reshape(n_starts, -1).argmin(0)
    W = W.reshape(n_starts, grid_p.numel(), *W.shape[1:])
    return classify_phase(torch.stack([W[start, cell] for cell, start in enumerate(best)])).reshape(grid_p.shape)


@right("phase_diagram")
def with_loops(train, p, relative_importance, n_features=2, n_starts=1):
    return diagram(train, p, relative_importance, n_features, n_starts)
