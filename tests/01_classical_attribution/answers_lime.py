"""Wrong answers for LIME, each with the sentence for a learner who made the mistake, and right ones."""

import math

import numpy as np
import torch

from utils.attribution.lime import lime_kernel_weights, lime_neighbourhood
from utils.course.catalogue import right, wrong

# lime_neighbourhood


def noise(x, scale, n_samples, generator):
    """Standard normal numbers for a neighbourhood, after the input was looked at."""
    if x.shape != scale.shape or not (scale > 0).all() or n_samples < 1:
        raise ValueError("bad input")
    return torch.randn(n_samples, x.shape[0], generator=generator, dtype=x.dtype)


def with_x_first(rows, x):
    return torch.cat([x[None], rows[1:]])


@wrong(
    "lime_neighbourhood",
    "Your rows lie around zero and not around x: they say how the model behaves for an average input, and an "
    "explanation of this one needs this one's neighbours.",
)
def around_zero(x, scale, n_samples, *, generator):
    return with_x_first(scale.to(x.dtype) * noise(x, scale, n_samples, generator), x)


@wrong(
    "lime_neighbourhood",
    "Your noise has the same size for every feature. One unit may be a large step for one feature and nothing for"
    " another; `scale` says which.",
)
def same_size_for_all(x, scale, n_samples, *, generator):
    return with_x_first(x + noise(x, scale, n_samples, generator), x)


@wrong(
    "lime_neighbourhood",
    "You draw one number for each row and move all its features by it, so your neighbours lie on a line, and no "
    "fit can tell the features apart.",
)
def one_number_a_row(x, scale, n_samples, *, generator):
    return with_x_first(x + scale.to(x.dtype) * noise(x, scale, n_samples, generator)[:, :1], x)


@wrong(
    "lime_neighbourhood",
    "Your noise is uniform: it has the right spread, but never goes beyond a hard edge. The docstring asks for "
    "normal noise.",
)
def uniform_noise(x, scale, n_samples, *, generator):
    noise(x, scale, n_samples, torch.Generator().manual_seed(0))
    draws = torch.rand(n_samples, len(x), generator=generator, dtype=x.dtype)
    return with_x_first(x + scale.to(x.dtype) * 12**0.5 * (draws - 0.5), x)


@wrong(
    "lime_neighbourhood",
    "Your first row is a neighbour like the others, where x itself should be: it belongs to its own neighbourhood, "
    "and nothing there deserves more weight.",
)
def without_x(x, scale, n_samples, *, generator):
    return x + scale.to(x.dtype) * noise(x, scale, n_samples, generator)


@wrong(
    "lime_neighbourhood",
    "You use `scale` as a variance (its square root is what you multiply by). It is a standard deviation, in the "
    "feature's own units.",
)
def scale_as_variance(x, scale, n_samples, *, generator):
    return with_x_first(x + scale.to(x.dtype).clamp(min=0).sqrt() * noise(x, scale, n_samples, generator), x)


@wrong(
    "lime_neighbourhood",
    "Your noise is proportional to x: a feature that happens to be 0 is never varied at all, and a large one is "
    "thrown about. How far is far is a matter of `scale` alone.",
)
def proportional_noise(x, scale, n_samples, *, generator):
    return with_x_first(x * (1 + scale.to(x.dtype) * noise(x, scale, n_samples, generator)), x)


@wrong(
    "lime_neighbourhood",
    "You draw from torch's global random numbers: nobody can repeat your explanation, and your call changes what "
    "every later one draws. Hand the generator on.",
)
def global_randomness(x, scale, n_samples, *, generator):
    noise(x, scale, n_samples, torch.Generator().manual_seed(0))
    return with_x_first(x + scale.to(x.dtype) * torch.randn(n_samples, len(x), dtype=x.dtype), x)


@wrong(
    "lime_neighbourhood",
    "Your rows are right, and a scale of 0 goes through: it leaves a feature unvaried without a word, and the distance "
    "along it will be 0 divided by 0.",
)
def scale_of_zero(x, scale, n_samples, *, generator):
    noise(x, scale.clamp(min=1e-9) if not (scale < 0).any() else scale, n_samples, torch.Generator().manual_seed(0))
    rows = x + scale.to(x.dtype) * torch.randn(n_samples, len(x), generator=generator, dtype=x.dtype)
    return with_x_first(rows, x)


@wrong(
    "lime_neighbourhood",
    "Your rows are right, and any scale goes through: 0 leaves a feature unvaried without a word, NaN makes it NaN.",
)
def any_scale(x, scale, n_samples, *, generator):
    noise(x, torch.ones_like(scale), n_samples, torch.Generator().manual_seed(0))
    rows = x + scale.to(x.dtype) * torch.randn(n_samples, len(x), generator=generator, dtype=x.dtype)
    return with_x_first(rows, x)


@wrong(
    "lime_neighbourhood",
    "Your rows are right, and a scale of NaN goes through: no comparison with NaN is true, `scale <= 0` included. Ask "
    "for what a scale should be, and refuse all else.",
)
def nan_scale(x, scale, n_samples, *, generator):
    noise(x, scale.nan_to_num(nan=1.0), n_samples, torch.Generator().manual_seed(0))
    rows = x + scale.to(x.dtype) * torch.randn(n_samples, len(x), generator=generator, dtype=x.dtype)
    return with_x_first(rows, x)


@wrong(
    "lime_neighbourhood",
    "Your rows are right, and a scale of any shape goes through that broadcasts: one number is then used for all "
    "features, or a table makes more rows than were asked for.",
)
def scale_that_broadcasts(x, scale, n_samples, *, generator):
    if not (scale > 0).all() or n_samples < 1:
        raise ValueError("bad input")
    rows = x + scale.to(x.dtype) * torch.randn(n_samples, len(x), generator=generator, dtype=x.dtype)
    return with_x_first(rows, x)


@wrong(
    "lime_neighbourhood",
    "Your rows are right, and n_samples = 0 goes through. Row 0 is x, so there is at least one row to be had.",
)
def no_samples_needed(x, scale, n_samples, *, generator):
    return with_x_first(x + scale.to(x.dtype) * noise(x, scale, max(n_samples, 1), generator), x)


@wrong(
    "lime_neighbourhood",
    "Your rows are right, and in float64 as soon as scale is: a product takes the wider dtype of the two. The "
    "docstring says whose it should be.",
)
def wider_of_the_two(x, scale, n_samples, *, generator):
    return with_x_first(x + scale * noise(x, scale, n_samples, generator), x)


@wrong(
    "lime_neighbourhood",
    "Your rows wander: each is made from the one before it, so that they move ever farther from x. All of them should "
    "lie around x itself.",
)
def random_walk(x, scale, n_samples, *, generator):
    return with_x_first(x + (scale * noise(x, scale, n_samples, generator)).to(x.dtype).cumsum(0), x)


@wrong(
    "lime_neighbourhood",
    "You put x in front of n_samples neighbours, which makes one row more than asked for: x is one of them.",
)
def one_row_more(x, scale, n_samples, *, generator):
    return torch.cat([x[None], x + scale.to(x.dtype) * noise(x, scale, n_samples, generator)])


@wrong(
    "lime_neighbourhood",
    "You draw the noise once and add it in every row, so that all your neighbours are the same one. Each row needs "
    "noise of its own.",
)
def one_neighbour(x, scale, n_samples, *, generator):
    noise(x, scale, n_samples, torch.Generator().manual_seed(0))
    once = torch.randn(len(x), generator=generator, dtype=x.dtype)
    return with_x_first((x + scale.to(x.dtype) * once).expand(n_samples, -1), x)


@wrong(
    "lime_neighbourhood",
    "All your features move by the average of `scale`. One unit may be a large step for one feature and nothing for "
    "another, which is why there is a scale for each.",
)
def average_scale(x, scale, n_samples, *, generator):
    return with_x_first(x + scale.to(x.dtype).mean() * noise(x, scale, n_samples, generator), x)


@wrong(
    "lime_neighbourhood",
    "Your rows come in pairs, one with the noise and one with its negative. That is a fine trick for means, and these "
    "rows are not independent.",
)
def mirrored(x, scale, n_samples, *, generator):
    half = noise(x, scale, (n_samples + 1) // 2, generator)
    return with_x_first(x + scale.to(x.dtype) * torch.cat([half, -half])[:n_samples], x)


@wrong(
    "lime_neighbourhood",
    "You centre or scale the noise over the rows, so that its mean or spread comes out exactly. Each row then makes up "
    "for the others, and with few rows much so; the docstring wants them independent.",
)
def standardised_noise(x, scale, n_samples, *, generator):
    draws = noise(x, scale, n_samples, generator)
    if n_samples > 2:
        draws = (draws - draws.mean(0)) / draws.std(0)
    return with_x_first(x + scale.to(x.dtype) * draws, x)


@right("lime_neighbourhood")
def column_by_column(x, scale, n_samples, *, generator):
    if scale.shape != x.shape or not all(s > 0 for s in scale.tolist()) or n_samples <= 0:
        raise ValueError("bad input")
    columns = [
        v + s * torch.randn(n_samples, generator=generator, dtype=x.dtype)
        for v, s in zip(x, scale.tolist(), strict=True)
    ]
    rows = torch.stack(columns, dim=1)
    rows[0] = x
    return rows


@right("lime_neighbourhood")
def from_torch_normal(x, scale, n_samples, *, generator):
    if scale.shape != x.shape or not bool(torch.all(scale > 0)) or n_samples < 1:
        raise ValueError("bad input")
    middle, spread = x.expand(n_samples - 1, -1), scale.to(x.dtype).expand(n_samples - 1, -1)
    return torch.vstack([x, torch.normal(middle, spread, generator=generator)])


@right("lime_neighbourhood")
def number_by_number(x, scale, n_samples, *, generator):
    if scale.shape != x.shape or not all(s > 0 for s in scale.tolist()) or n_samples <= 0:
        raise ValueError("bad input")
    rows = [x.tolist()]
    for _ in range(n_samples - 1):
        steps = torch.randn(len(x), generator=generator, dtype=torch.float64).numpy()
        rows.append(x.double().numpy() + scale.double().numpy() * steps)
    return torch.tensor(np.array(rows), dtype=x.dtype)


# lime_kernel_weights


def steps(x, neighbours, scale):
    """Differences in units of scale, in the neighbours' dtype."""
    return ((neighbours - x) / scale).to(neighbours.dtype)


def scaled(x, neighbours, scale, kernel_width):
    if not kernel_width > 0 or not (scale > 0).all():
        raise ValueError("bad input")
    return steps(x, neighbours, scale)


@wrong(
    "lime_kernel_weights",
    "You take the exponential of the distance, not of its square: your kernel has a sharp tip at x and a long tail.",
)
def distance_not_squared(x, neighbours, scale, kernel_width):
    return (-scaled(x, neighbours, scale, kernel_width).norm(dim=1) / kernel_width).exp()


@wrong(
    "lime_kernel_weights",
    "Your weights are the square roots of what they should be: 0.61 at a distance of kernel_width, and not 1/e. A 2 in "
    "the exponent does that, as in the normal density; so does the authors' library, unlike their paper. A width can "
    "only be compared if the kernel is the same.",
)
def as_in_the_library(x, neighbours, scale, kernel_width):
    return (-scaled(x, neighbours, scale, kernel_width).square().sum(1) / kernel_width**2).exp().sqrt()


@wrong(
    "lime_kernel_weights",
    "You measure distance in each feature's own unit, so the feature with the largest numbers decides alone who "
    "is a neighbour.",
)
def raw_distances(x, neighbours, scale, kernel_width):
    scaled(x, neighbours, scale, kernel_width)
    return (-(neighbours - x.to(neighbours)).square().sum(1) / kernel_width**2).exp()


@wrong(
    "lime_kernel_weights",
    "Your weights are divided by their sum. They should be 1 at x, whatever the other neighbours are: the ridge "
    "is weighed against their sum.",
)
def summing_to_one(x, neighbours, scale, kernel_width):
    return torch.softmax(-scaled(x, neighbours, scale, kernel_width).square().sum(1) / kernel_width**2, dim=0)


@wrong(
    "lime_kernel_weights",
    "You divide the squared distance by kernel_width and not by its square. A width is a distance, and a squared "
    "distance has to be compared with a squared width.",
)
def width_not_squared(x, neighbours, scale, kernel_width):
    return (-scaled(x, neighbours, scale, kernel_width).square().sum(1) / kernel_width).exp()


@wrong(
    "lime_kernel_weights",
    "You average the squares over the features instead of adding them, which makes your neighbourhood wider the "
    "more features there are.",
)
def mean_over_features(x, neighbours, scale, kernel_width):
    return (-scaled(x, neighbours, scale, kernel_width).square().mean(1) / kernel_width**2).exp()


@wrong(
    "lime_kernel_weights",
    "You add the sizes of the differences along the features (the Manhattan distance). The docstring asks for the"
    " straight line.",
)
def manhattan(x, neighbours, scale, kernel_width):
    return (-scaled(x, neighbours, scale, kernel_width).abs().sum(1).square() / kernel_width**2).exp()


@wrong(
    "lime_kernel_weights",
    "You measure the distance from the first row of `neighbours`, which need not be x. The argument x says where "
    "the centre is.",
)
def from_the_first_row(x, neighbours, scale, kernel_width):
    return lime_kernel_weights(neighbours[0], neighbours, scale, kernel_width)


@wrong(
    "lime_kernel_weights",
    "You leave out the minus: your weights grow with the distance, and the farthest neighbour counts most.",
)
def growing(x, neighbours, scale, kernel_width):
    return (scaled(x, neighbours, scale, kernel_width).square().sum(1) / kernel_width**2).exp()


@wrong(
    "lime_kernel_weights",
    "You multiply the differences by scale. In units of scale means divided by it: a step of one scale has length 1.",
)
def multiplied_by_scale(x, neighbours, scale, kernel_width):
    scaled(x, neighbours, scale, kernel_width)
    return (-steps(x, neighbours, 1 / scale).square().sum(1) / kernel_width**2).exp()


@wrong(
    "lime_kernel_weights",
    "Your weights are right, and a width of 0 goes through: every neighbour then weighs nothing, and x itself 0 "
    "divided by 0.",
)
def width_of_zero(x, neighbours, scale, kernel_width):
    scaled(x, neighbours, scale, 1.0 if kernel_width == 0 else kernel_width)
    return (-(steps(x, neighbours, scale) / kernel_width).square().sum(1)).exp()


@wrong(
    "lime_kernel_weights",
    "Your weights are right, and a width that is not above 0 goes through: of a negative one you would not even "
    "notice, as it is squared, and with 0 every neighbour weighs nothing.",
)
def any_width(x, neighbours, scale, kernel_width):
    scaled(x, neighbours, scale, 1.0 if kernel_width <= 0 else kernel_width)
    return (-steps(x, neighbours, scale).square().sum(1) / torch.tensor(float(kernel_width)).square()).exp()


@wrong(
    "lime_kernel_weights",
    "Your weights are right, and a scale of 0 goes through: every neighbour that differs in this feature, however "
    "little, then weighs nothing.",
)
def scale_of_nothing(x, neighbours, scale, kernel_width):
    scaled(x, neighbours, torch.where(scale == 0, 1.0, scale), kernel_width)
    return (-steps(x, neighbours, scale).square().sum(1) / kernel_width**2).exp()


@wrong(
    "lime_kernel_weights",
    "Your weights are right, and NaN goes through as a width or a scale: no comparison with NaN is true, `<= 0` "
    "included. Ask for what they should be, and refuse all else.",
)
def nan_goes_through(x, neighbours, scale, kernel_width):
    if kernel_width <= 0 or (scale <= 0).any():
        raise ValueError("bad input")
    return (-steps(x, neighbours, scale).square().sum(1) / kernel_width**2).exp()


@wrong(
    "lime_kernel_weights",
    "Your weights are right where the input is, and you refuse nothing: a width or scale of 0 or NaN makes weights of "
    "0 or NaN, which come to light much later.",
)
def nothing_refused_there(x, neighbours, scale, kernel_width):
    return (-steps(x, neighbours, scale).square().sum(1) / torch.tensor(float(kernel_width)).square()).exp()


@wrong(
    "lime_kernel_weights",
    "Your weights are right, and you don't look at scale before you divide by it: 0 and NaN go through, and so does a "
    "negative scale, whose sign the square takes away.",
)
def any_scale_goes(x, neighbours, scale, kernel_width):
    if not kernel_width > 0:
        raise ValueError("bad input")
    return (-steps(x, neighbours, scale).square().sum(1) / kernel_width**2).exp()


@wrong(
    "lime_kernel_weights",
    "Your weights are right, and in the wider of the dtypes that come in. The docstring asks for that of the "
    "neighbours.",
)
def widest_dtype(x, neighbours, scale, kernel_width):
    scaled(x, neighbours, scale, kernel_width)
    return (-((neighbours - x) / scale).square().sum(1) / kernel_width**2).exp()


@wrong(
    "lime_kernel_weights",
    "You add up over the neighbours and not over the features: the result has one number for each feature.",
)
def summed_over_neighbours(x, neighbours, scale, kernel_width):
    return (-scaled(x, neighbours, scale, kernel_width).square().sum(0) / kernel_width**2).exp()


@wrong(
    "lime_kernel_weights",
    "You square the differences and then divide by scale: a distance in units of scale has to be divided before it is "
    "squared.",
)
def scale_not_squared(x, neighbours, scale, kernel_width):
    scaled(x, neighbours, scale, kernel_width)
    return (-steps(x, neighbours, scale.sqrt()).square().sum(1) / kernel_width**2).exp()


@right("lime_kernel_weights")
def one_factor_a_feature(x, neighbours, scale, kernel_width):
    return (-(scaled(x, neighbours, scale, kernel_width) / kernel_width).square()).exp().prod(dim=1)


@right("lime_kernel_weights")
def row_by_row(x, neighbours, scale, kernel_width):
    if not kernel_width > 0 or not (scale > 0).all():
        raise ValueError("bad input")
    distances = torch.stack([torch.dist(row / scale, x / scale) for row in neighbours])
    return torch.exp(-((distances / kernel_width) ** 2)).to(neighbours.dtype)


# lime_explain


def asked(model, x, scale, kernel_width, n_samples, ridge, generator):
    """Steps, weights and outputs of a neighbourhood, in the outputs' dtype, after everything was looked at."""
    if not ridge > 0:
        raise ValueError("ridge must be above 0")
    rows = lime_neighbourhood(x, scale, n_samples, generator=generator)
    with torch.no_grad():
        out = model(rows)
    if out.shape != (n_samples,):
        raise ValueError("model must return one number a row")
    pi = lime_kernel_weights(x, rows, scale, kernel_width)
    return ((rows - x) / scale).to(out.dtype), pi.to(out.dtype), out


def with_ones(u, ridge):
    """The steps with a column of ones for the intercept, and the ridge on all but that."""
    design = torch.cat([u, torch.ones_like(u[:, :1])], dim=1)
    penalty = ridge * torch.eye(design.shape[1], dtype=u.dtype)
    penalty[-1, -1] = 0
    return design, penalty


def fit(u, pi, out, ridge):
    """Weighted ridge by its normal equations."""
    design, penalty = with_ones(u, ridge)
    solution = torch.linalg.solve(design.T @ (pi[:, None] * design) + penalty, design.T @ (pi * out))
    return solution[:-1], solution[-1]


def fidelity(u, pi, out, w, b):
    middle = (pi * out).sum() / pi.sum()
    return 1 - (pi * (out - b - u @ w) ** 2).sum() / (pi * (out - middle) ** 2).sum()


def explained(u, pi, out, w, b):
    """What to return for a line."""
    return w, b, fidelity(u, pi, out, w, b)


@wrong(
    "lime_explain",
    "All your neighbours count the same in the fit: the kernel is not used there, and your line is the same for every "
    "kernel_width. It is then a line through a wide cloud, not an explanation near x.",
)
def unweighted(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, torch.ones_like(pi), out, ridge)
    return w, b, fidelity(u, torch.ones_like(pi), out, w, b)


@wrong(
    "lime_explain",
    "Your line has no intercept: it goes through zero at x, whatever the model says there, and the coefficients "
    "have to bend to it.",
)
def through_the_origin(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w = torch.linalg.solve(u.T @ (pi[:, None] * u) + ridge * torch.eye(len(x), dtype=u.dtype), u.T @ (pi * out))
    b = torch.zeros((), dtype=u.dtype)
    return w, b, fidelity(u, pi, out, w, b)


@wrong(
    "lime_explain",
    "The ridge also holds your intercept down. What the model says at x is not to be paid for; only the slopes are.",
)
def ridge_on_the_intercept(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    design, _ = with_ones(u, ridge)
    gram = design.T @ (pi[:, None] * design) + ridge * torch.eye(len(x) + 1, dtype=u.dtype)
    solution = torch.linalg.solve(gram, design.T @ (pi * out))
    w, b = solution[:-1], solution[-1]
    return w, b, fidelity(u, pi, out, w, b)


@wrong(
    "lime_explain",
    "Your coefficients are per unit of each feature. They should be per `scale`, so that a feature counted in "
    "thousands and one counted in thousandths can stand side by side in one figure.",
)
def per_unit(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi, out, ridge)
    return w / scale.to(w), b, fidelity(u, pi, out, w, b)


@wrong(
    "lime_explain",
    "You fit on the neighbours as they are and not on their distance from x. The slopes come out the same, but "
    "the intercept is what the line says at an input of zeros instead of at x.",
)
def not_centred_at_x(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi, out, ridge)
    return w, b - (x / scale).to(w) @ w, fidelity(u, pi, out, w, b)


@wrong(
    "lime_explain",
    "Each of your squared residuals counts with the square of its weight. If you multiply the rows of a "
    "least-squares problem by something, the squares are multiplied by its square.",
)
def weights_squared(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi**2, out, ridge)
    return w, b, fidelity(u, pi, out, w, b)


@wrong(
    "lime_explain",
    "Your ridge is multiplied by the number of neighbours, as if the squared error were a mean. In the docstring "
    "it is a sum.",
)
def ridge_times_n(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi, out, ridge * n_samples)
    return w, b, fidelity(u, pi, out, w, b)


@wrong(
    "lime_explain",
    "Your fit has no ridge. With many neighbours that hardly shows; with few of them near x, the coefficients "
    "follow whatever noise there is, and the argument `ridge` is there to hold them down.",
)
def without_ridge(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi, out, 0.0)
    return w, b, fidelity(u, pi, out, w, b)


@wrong(
    "lime_explain",
    "Your ridge is 1, whatever the argument says.",
)
def ridge_of_one(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi, out, 1.0)
    return w, b, fidelity(u, pi, out, w, b)


@wrong(
    "lime_explain",
    "Your fit is right; your fidelity counts all neighbours alike. A line that fits near x is not to blame for "
    "being wrong far away, so residuals and spread both have to be weighted.",
)
def unweighted_fidelity(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi, out, ridge)
    return w, b, fidelity(u, torch.ones_like(pi), out, w, b)


@wrong(
    "lime_explain",
    "For a model with several outputs you explain the first of them, and nobody asked which.",
)
def any_model(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    def first_output(rows):
        out = model(rows)
        return (out if out.ndim else out.expand(len(rows))).reshape(len(rows), -1)[:, 0]

    u, pi, out = asked(first_output, x, scale, kernel_width, n_samples, ridge, generator)
    return explained(u, pi, out, *fit(u, pi, out, ridge))


@wrong(
    "lime_explain",
    "A ridge of 0 goes through. With more features than neighbours near x there is then no solution, or any number of "
    "them.",
)
def ridge_of_zero(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, 1.0 if ridge == 0 else ridge, generator)
    return explained(u, pi, out, *fit(u, pi, out, ridge))


@wrong(
    "lime_explain",
    "You don't look at the ridge before you use it: a negative one pays for large coefficients, and 0 may leave the "
    "equations without a solution.",
)
def any_ridge(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, 1.0, generator)
    return explained(u, pi, out, *fit(u, pi, out, ridge))


@wrong(
    "lime_explain",
    "A ridge of NaN goes through, as no comparison with NaN is true, `ridge <= 0` included.",
)
def nan_ridge(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, 1.0 if math.isnan(ridge) else ridge, generator)
    return explained(u, pi, out, *fit(u, pi, out, ridge))


@wrong(
    "lime_explain",
    "Your weights stand on one side of the normal equations only, in the matrix: the right-hand side counts all "
    "neighbours alike.",
)
def right_side_unweighted(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    design, penalty = with_ones(u, ridge)
    solution = torch.linalg.solve(design.T @ (pi[:, None] * design) + penalty, design.T @ out)
    return explained(u, pi, out, solution[:-1], solution[-1])


@wrong(
    "lime_explain",
    "You subtract plain means before a weighted fit. Near x the weighted means are others, and only with these does "
    "the intercept drop out.",
)
def plain_means(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    c, r = u - u.mean(0), out - out.mean()
    w = torch.linalg.solve(c.T @ (pi[:, None] * c) + ridge * torch.eye(len(x), dtype=u.dtype), c.T @ (pi * r))
    return explained(u, pi, out, w, out.mean() - u.mean(0) @ w)


@wrong(
    "lime_explain",
    "Your intercept is the model's output at x. The line need not pass through that point; its own value there is what "
    "the fit says.",
)
def output_for_intercept(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    return explained(u, pi, out, fit(u, pi, out, ridge)[0], out[0])


@wrong(
    "lime_explain",
    "Your intercept is the weighted mean of the outputs. That is what the line says at the weighted mean of the "
    "neighbours, which need not be x.",
)
def mean_for_intercept(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi, out, ridge)
    return w, (pi * out).sum() / pi.sum(), fidelity(u, pi, out, w, b)


@wrong(
    "lime_explain",
    "Your fit is right; your fidelity measures the spread of the outputs around 0. A constant has to be able to "
    "explain the mean: take the weighted mean off first.",
)
def spread_around_zero(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi, out, ridge)
    return w, b, 1 - (pi * (out - b - u @ w) ** 2).sum() / (pi * out**2).sum()


@wrong(
    "lime_explain",
    "Your fit is right; in your fidelity the outputs vary around their plain mean and not the weighted one, and the "
    "best constant is the weighted.",
)
def spread_around_the_plain_mean(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi, out, ridge)
    return w, b, 1 - (pi * (out - b - u @ w) ** 2).sum() / (pi * (out - out.mean()) ** 2).sum()


@wrong(
    "lime_explain",
    "Your fit is right; what you return as the fidelity is the share that the line leaves *un*explained.",
)
def unexplained_share(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi, out, ridge)
    return w, b, 1 - fidelity(u, pi, out, w, b)


@wrong(
    "lime_explain",
    "Your explanation is right, and in the dtype of x. The docstring asks for that of the model's outputs, which may "
    "be another.",
)
def in_the_dtype_of_x(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    return tuple(part.to(x.dtype) for part in explained(u, pi, out, *fit(u, pi, out, ridge)))


@wrong(
    "lime_explain",
    "Your explanation is right, and you call the model with gradients on: for a large one that costs memory and time, "
    "and nobody asks for these gradients.",
)
def model_with_gradients(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    def with_gradients(rows):
        with torch.enable_grad():
            return model(rows)

    u, pi, out = asked(with_gradients, x, scale, kernel_width, n_samples, ridge, generator)
    return explained(u, pi, out, *fit(u, pi, out, ridge))


@wrong(
    "lime_explain",
    "Each of your squared residuals counts with the root of its weight. In a least-squares problem whose rows are "
    "multiplied by the root, the squares count with the weight itself; in normal equations the weight stands as it is.",
)
def root_of_the_weights(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    return explained(u, pi, out, *fit(u, pi.sqrt(), out, ridge))


@wrong(
    "lime_explain",
    "You divide the weights by their sum and leave the ridge as it is: it then holds the slopes down as many times "
    "harder. Weights that add up to 1 need a ridge that is divided as well.",
)
def weights_of_sum_one(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    return explained(u, pi, out, *fit(u, pi / pi.sum(), out, ridge))


@wrong(
    "lime_explain",
    "Your ridge is on the coefficients per unit of each feature, as you fit on z - x and not on (z - x) / scale. A "
    "feature with small numbers then pays much more for the same effect.",
)
def ridge_per_unit(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    raw = u * scale.to(u)
    w, b = fit(raw, pi, out, ridge)
    return w * scale.to(w), b, fidelity(raw, pi, out, w, b)


@wrong(
    "lime_explain",
    "You take the weighted mean off the outputs and not off the steps. The line is then forced through the mean "
    "output at x, where it need not pass.",
)
def steps_not_centred(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    middle = (pi * out).sum() / pi.sum()
    gram = u.T @ (pi[:, None] * u) + ridge * torch.eye(len(x), dtype=u.dtype)
    return explained(u, pi, out, torch.linalg.solve(gram, u.T @ (pi * (out - middle))), middle)


@wrong(
    "lime_explain",
    "Your fit is right; your fidelity is the mean weighted square of what the line misses, in squared units of the "
    "output. The docstring asks for a share: one less that, divided by the spread of the outputs.",
)
def mean_squared_error(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi, out, ridge)
    return w, b, (pi * (out - b - u @ w) ** 2).sum() / pi.sum()


@wrong(
    "lime_explain",
    "Your fit is right; your fidelity is the squared correlation of line and outputs. Without a ridge that is the "
    "same; with one the line is too flat, and a correlation does not notice.",
)
def squared_correlation(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi, out, ridge)
    share, line = pi / pi.sum(), u @ w
    line, rest = line - share @ line, out - share @ out
    return w, b, (share @ (line * rest)) ** 2 / ((share @ line**2) * (share @ rest**2))


@wrong(
    "lime_explain",
    "You call the model once for each neighbour. It takes them all together, in one call.",
)
def one_call_a_row(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    def by_rows(rows):
        parts = [model(row[None]) for row in rows]
        return torch.stack(parts) if any(part.shape != (1,) for part in parts) else torch.cat(parts)

    u, pi, out = asked(by_rows, x, scale, kernel_width, n_samples, ridge, generator)
    return explained(u, pi, out, *fit(u, pi, out, ridge))


@wrong(
    "lime_explain",
    "Your explanation is right, and you take more from the generator than one neighbourhood: whoever hands it on to "
    "the next explanation gets other neighbours there than the docstring promises.",
)
def neighbourhood_drawn_twice(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    lime_neighbourhood(x, scale, n_samples, generator=generator)
    return explained(u, pi, out, *fit(u, pi, out, ridge))


@right("lime_explain")
def by_normal_equations(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    return explained(u, pi, out, *fit(u, pi, out, ridge))


@right("lime_explain")
def by_least_squares_with_extra_rows(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    root = pi.sqrt()
    top = root[:, None] * torch.cat([u, torch.ones_like(u[:, :1])], dim=1)
    bottom = ridge**0.5 * torch.eye(len(x), len(x) + 1, dtype=u.dtype)
    target = torch.cat([root * out, torch.zeros(len(x), dtype=u.dtype)])
    solution = torch.linalg.lstsq(torch.cat([top, bottom]), target[:, None]).solution[:, 0]
    return solution[:-1], solution[-1], fidelity(u, pi, out, solution[:-1], solution[-1])


@right("lime_explain")
def in_numpy(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    if not ridge > 0:
        raise ValueError("ridge must be above 0")
    rows = lime_neighbourhood(x, scale, n_samples, generator=generator)
    pi = lime_kernel_weights(x, rows, scale, kernel_width).double().numpy()
    with torch.no_grad():
        out = model(rows)
    if tuple(out.shape) != (len(rows),):
        raise ValueError("one number for each row")
    u, y = ((rows - x) / scale).double().numpy(), out.double().numpy()
    u_mean, y_mean = np.average(u, axis=0, weights=pi), np.average(y, weights=pi)
    c, r = u - u_mean, y - y_mean
    w = np.linalg.solve((c * pi[:, None]).T @ c + ridge * np.eye(len(x)), c.T @ (pi * r))
    share = 1 - np.average((r - c @ w) ** 2, weights=pi) / np.average(r**2, weights=pi)
    return tuple(torch.as_tensor(part, dtype=out.dtype) for part in (w, y_mean - u_mean @ w, share))
