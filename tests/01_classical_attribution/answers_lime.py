"""Wrong answers for LIME, each with the sentence for a learner who made the mistake, and right ones."""

import torch

from utils.attribution.lime import lime_kernel_weights, lime_neighbourhood
from utils.course.catalogue import right, wrong

# lime_neighbourhood


def noise(x, scale, n_samples, generator):
    """Standard normal numbers for a neighbourhood, after the input was looked at."""
    if x.shape != scale.shape or (scale <= 0).any() or n_samples < 1:
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
    return with_x_first(scale * noise(x, scale, n_samples, generator), x)


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
    return with_x_first(x + scale * noise(x, scale, n_samples, generator)[:, :1], x)


@wrong(
    "lime_neighbourhood",
    "Your noise is uniform: it has the right spread, but never goes beyond a hard edge. The docstring asks for "
    "normal noise.",
)
def uniform_noise(x, scale, n_samples, *, generator):
    noise(x, scale, n_samples, torch.Generator().manual_seed(0))
    draws = torch.rand(n_samples, len(x), generator=generator, dtype=x.dtype)
    return with_x_first(x + scale * 12**0.5 * (draws - 0.5), x)


@wrong(
    "lime_neighbourhood",
    "Your first row is a neighbour like the others, where x itself should be: it belongs to its own neighbourhood, "
    "and nothing there deserves more weight.",
)
def without_x(x, scale, n_samples, *, generator):
    return x + scale * noise(x, scale, n_samples, generator)


@wrong(
    "lime_neighbourhood",
    "You use `scale` as a variance (its square root is what you multiply by). It is a standard deviation, in the "
    "feature's own units.",
)
def scale_as_variance(x, scale, n_samples, *, generator):
    return with_x_first(x + scale.clamp(min=0).sqrt() * noise(x, scale, n_samples, generator), x)


@wrong(
    "lime_neighbourhood",
    "Your noise is proportional to x: a feature that happens to be 0 is never varied at all, and a large one is "
    "thrown about. How far is far is a matter of `scale` alone.",
)
def proportional_noise(x, scale, n_samples, *, generator):
    return with_x_first(x * (1 + scale * noise(x, scale, n_samples, generator)), x)


@wrong(
    "lime_neighbourhood",
    "You draw from torch's global random numbers: nobody can repeat your explanation, and your call changes what "
    "every later one draws. Hand the generator on.",
)
def global_randomness(x, scale, n_samples, *, generator):
    noise(x, scale, n_samples, torch.Generator().manual_seed(0))
    return with_x_first(x + scale * torch.randn(n_samples, len(x), dtype=x.dtype), x)


@wrong(
    "lime_neighbourhood",
    "Your rows are right, and bad input goes through: a scale of 0 leaves a feature unvaried without a word, and "
    "the distance along it will be 0 divided by 0.",
)
def nothing_refused_here(x, scale, n_samples, *, generator):
    rows = x + scale[: len(x)] * torch.randn(max(1, n_samples), len(x), generator=generator, dtype=x.dtype)
    return with_x_first(rows, x)


@wrong(
    "lime_neighbourhood",
    "You draw the noise once and add it in every row, so that all your neighbours are the same one. Each row needs "
    "noise of its own.",
)
def one_neighbour(x, scale, n_samples, *, generator):
    noise(x, scale, n_samples, torch.Generator().manual_seed(0))
    once = torch.randn(len(x), generator=generator, dtype=x.dtype)
    return with_x_first((x + scale * once).expand(n_samples, -1), x)


@right("lime_neighbourhood")
def column_by_column(x, scale, n_samples, *, generator):
    if scale.shape != x.shape or not all(s > 0 for s in scale.tolist()) or n_samples <= 0:
        raise ValueError("bad input")
    columns = [
        v + s * torch.randn(n_samples, generator=generator, dtype=x.dtype) for v, s in zip(x, scale, strict=True)
    ]
    rows = torch.stack(columns, dim=1)
    rows[0] = x
    return rows


@right("lime_neighbourhood")
def from_torch_normal(x, scale, n_samples, *, generator):
    if scale.shape != x.shape or not bool(torch.all(scale > 0)) or n_samples < 1:
        raise ValueError("bad input")
    others = torch.normal(x.expand(n_samples - 1, -1), scale.expand(n_samples - 1, -1), generator=generator)
    return torch.vstack([x, others])


# lime_kernel_weights


def scaled(x, neighbours, scale, kernel_width):
    if kernel_width <= 0 or (scale <= 0).any():
        raise ValueError("bad input")
    return (neighbours - x) / scale


@wrong(
    "lime_kernel_weights",
    "You take the exponential of the distance, not of its square: your kernel has a sharp tip at x and a long tail.",
)
def distance_not_squared(x, neighbours, scale, kernel_width):
    return (-scaled(x, neighbours, scale, kernel_width).norm(dim=1) / kernel_width).exp()


@wrong(
    "lime_kernel_weights",
    "This is the square root of the kernel, as the authors' library has it (and not their paper): the weight at a"
    " distance of kernel_width is 0.61 and not 1/e. Whichever is meant, a width can only be compared if the "
    "kernel is the same.",
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
    return (-(neighbours - x).square().sum(1) / kernel_width**2).exp()


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
    "Your weights are right, and a width of 0 or a scale of 0 goes through: the result is NaN, and it comes to "
    "light much later.",
)
def any_width(x, neighbours, scale, kernel_width):
    return (-((neighbours - x) / scale).square().sum(1) / kernel_width**2).exp()


@right("lime_kernel_weights")
def one_factor_a_feature(x, neighbours, scale, kernel_width):
    return (-(scaled(x, neighbours, scale, kernel_width) / kernel_width).square()).exp().prod(dim=1)


@right("lime_kernel_weights")
def row_by_row(x, neighbours, scale, kernel_width):
    if not kernel_width > 0 or not (scale > 0).all():
        raise ValueError("bad input")
    distances = torch.stack([torch.dist(row / scale, x / scale) for row in neighbours])
    return torch.exp(-((distances / kernel_width) ** 2))


# lime_explain


def asked(model, x, scale, kernel_width, n_samples, ridge, generator):
    """Steps, weights and outputs of a neighbourhood, after everything was looked at."""
    if not ridge > 0:
        raise ValueError("ridge must be above 0")
    rows = lime_neighbourhood(x, scale, n_samples, generator=generator)
    with torch.no_grad():
        out = model(rows)
    if out.shape != (n_samples,):
        raise ValueError("model must return one number a row")
    return (rows - x) / scale, lime_kernel_weights(x, rows, scale, kernel_width), out


def fit(u, pi, out, ridge):
    """Weighted ridge by its normal equations, with a column of ones for the intercept."""
    design = torch.cat([u, torch.ones_like(u[:, :1])], dim=1)
    penalty = ridge * torch.eye(design.shape[1], dtype=u.dtype)
    penalty[-1, -1] = 0
    solution = torch.linalg.solve(design.T @ (pi[:, None] * design) + penalty, design.T @ (pi * out))
    return solution[:-1], solution[-1]


def fidelity(u, pi, out, w, b):
    middle = (pi * out).sum() / pi.sum()
    return 1 - (pi * (out - b - u @ w) ** 2).sum() / (pi * (out - middle) ** 2).sum()


@wrong(
    "lime_explain",
    "All your neighbours count the same: the kernel is not used in the fit, and kernel_width changes nothing. The"
    " fit is then a line through a wide cloud, not an explanation near x.",
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
    design = torch.cat([u, torch.ones_like(u[:, :1])], dim=1)
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
    return w / scale, b, fidelity(u, pi, out, w, b)


@wrong(
    "lime_explain",
    "You fit on the neighbours as they are and not on their distance from x. The slopes come out the same, but "
    "the intercept is what the line says at an input of zeros instead of at x.",
)
def not_centred_at_x(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi, out, ridge)
    return w, b - (x / scale) @ w, fidelity(u, pi, out, w, b)


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
    "Your explanation is right, and bad input goes through: for a model with several outputs you explain some "
    "mixture or the first of them, and nobody asked which.",
)
def any_model(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    rows = lime_neighbourhood(x, scale, n_samples, generator=generator)
    with torch.no_grad():
        out = model(rows)
    out = out if out.ndim == 1 else out[:, 0]
    u, pi = (rows - x) / scale, lime_kernel_weights(x, rows, scale, kernel_width)
    w, b = fit(u, pi, out, ridge)
    return w, b, fidelity(u, pi, out, w, b)


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
    w, b = fit(u, pi, out, ridge)
    return w, b, fidelity(u, pi, out, w, b)


@right("lime_explain")
def by_normal_equations(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    w, b = fit(u, pi, out, ridge)
    return w, b, fidelity(u, pi, out, w, b)


@right("lime_explain")
def by_least_squares_with_extra_rows(model, x, scale, *, kernel_width, n_samples=1000, ridge=1.0, generator):
    u, pi, out = asked(model, x, scale, kernel_width, n_samples, ridge, generator)
    root = pi.sqrt()
    top = root[:, None] * torch.cat([u, torch.ones_like(u[:, :1])], dim=1)
    bottom = ridge**0.5 * torch.eye(len(x), len(x) + 1, dtype=u.dtype)
    target = torch.cat([root * out, torch.zeros(len(x), dtype=u.dtype)])
    solution = torch.linalg.lstsq(torch.cat([top, bottom]), target[:, None]).solution[:, 0]
    return solution[:-1], solution[-1], fidelity(u, pi, out, solution[:-1], solution[-1])
