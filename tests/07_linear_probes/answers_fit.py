"""Wrong answers for the three fits, each with its sentence, and right ones."""

import torch

from utils.course.catalogue import right, wrong
from utils.probes.fit import Probe


def both(labels):
    if labels.all() or not labels.any():
        raise ValueError("one label")


def signs(labels):
    return torch.where(labels, 1.0, -1.0).double()


def variance(x):
    return x.double().var(0, correction=0).mean()


def least_squares(x, labels, ridge, *, y=None, centred=True):
    """The minimum of the mean square and ``ridge`` times the squared length of the direction."""
    both(labels)
    y = signs(labels) if y is None else y
    x = x.double()
    centre = x.mean(0) if centred else torch.zeros(x.shape[1], dtype=torch.double)
    middle = y.mean() if centred else torch.tensor(0.0, dtype=torch.double)
    inputs = x - centre
    matrix = inputs.T @ inputs / len(x) + ridge * torch.eye(x.shape[1], dtype=torch.double)
    direction = torch.linalg.solve(matrix, inputs.T @ (y - middle) / len(x))
    return direction, middle - centre @ direction


def probe(x, direction, bias):
    return Probe(direction.to(x.dtype), torch.as_tensor(bias).to(x.dtype))


@wrong(
    "least_squares_probe",
    "Your scores are fitted to 1 and 0: half of what they should be, and above 0 nearly everywhere. A score is "
    "positive "
    "where the feature is present and negative where it is not.",
)
def ones_and_zeros(x, labels, penalty=1e-3):
    return probe(x, *least_squares(x, labels, penalty * variance(x), y=labels.double()))


@wrong(
    "least_squares_probe",
    "Your direction is fitted as if the plane went through the origin of the activations. With a free bias another "
    "fits better: activations are not centred, and classes not equally large.",
)
def no_bias(x, labels, penalty=1e-3):
    return probe(x, *least_squares(x, labels, penalty * variance(x), centred=False))


@wrong(
    "least_squares_probe",
    "Your bias is penalised as well, which pulls it towards 0. Only the direction is.",
)
def penalised_bias(x, labels, penalty=1e-3):
    both(labels)
    inputs = torch.cat([x.double(), torch.ones(len(x), 1, dtype=torch.double)], 1)
    matrix = inputs.T @ inputs / len(x) + penalty * variance(x) * torch.eye(inputs.shape[1], dtype=torch.double)
    weights = torch.linalg.solve(matrix, inputs.T @ signs(labels) / len(x))
    return probe(x, weights[:-1], weights[-1])


@wrong(
    "least_squares_probe",
    "Your penalty leaves s² out, the variance of the entries of x. In another unit of x the same penalty is then "
    "another, "
    "and activations differ in size from layer to layer.",
)
def absolute_penalty(x, labels, penalty=1e-3):
    return probe(x, *least_squares(x, labels, penalty))


@wrong(
    "least_squares_probe",
    "You add the penalty to the sum of the squares and not to their mean: it is as many times too weak as there are "
    "tokens.",
)
def sum_of_squares(x, labels, penalty=1e-3):
    return probe(x, *least_squares(x, labels, penalty * variance(x) / len(x)))


@wrong(
    "least_squares_probe",
    "Your probe is positive where the feature is absent. +1 stands for present.",
)
def other_sign(x, labels, penalty=1e-3):
    return probe(x, *least_squares(x, labels, penalty * variance(x), y=-signs(labels)))


@wrong(
    "least_squares_probe",
    "Your direction has length 1. The scores are then no longer those that were fitted to +1 and -1.",
)
def unit_length(x, labels, penalty=1e-3):
    direction, bias = least_squares(x, labels, penalty * variance(x))
    return probe(x, direction / direction.norm(), bias / direction.norm())


@wrong(
    "least_squares_probe",
    "In your answer s² is the mean square of the entries of x, about 0 and not about their column's mean: a penalty "
    "grows "
    "with how far the activations lie from the origin.",
)
def about_zero(x, labels, penalty=1e-3):
    return probe(x, *least_squares(x, labels, penalty * x.double().square().mean()))


@right("least_squares_probe")
def added_rows(x, labels, penalty=1e-3):
    """The penalty as so many more observations, and a solver for least squares."""
    both(labels)
    n, d = x.shape
    weight = (penalty * variance(x) * n).sqrt()
    top = torch.cat([x.double(), torch.ones(n, 1, dtype=torch.double)], 1)
    below = torch.cat([weight * torch.eye(d, dtype=torch.double), torch.zeros(d, 1, dtype=torch.double)], 1)
    target = torch.cat([signs(labels), torch.zeros(d, dtype=torch.double)])
    weights = torch.linalg.lstsq(torch.cat([top, below]), target[:, None], driver="gelsd").solution[:, 0]
    return probe(x, weights[:-1], weights[-1])


@right("least_squares_probe")
def from_the_rows(x, labels, penalty=1e-3):
    """The same minimum by a matrix with a row for each token, in the precision of x."""
    both(labels)
    y, centred = signs(labels).to(x.dtype), x - x.mean(0)
    gram = centred @ centred.T + penalty * x.var(0, correction=0).mean() * len(x) * torch.eye(len(x), dtype=x.dtype)
    direction = centred.T @ torch.linalg.solve(gram, y - y.mean())
    return Probe(direction, y.mean() - x.mean(0) @ direction)


# logistic_probe


def logistic(x, labels, ridge, *, bias_ridge=0.0, steps=100, target=None, weight=1.0):
    """Newton on mean loss + ridge / 2 · |direction|², for activations centred and divided by ``variance``'s root."""
    both(labels)
    centre, target = x.double().mean(0), labels.double() if target is None else target
    scale = variance(x).sqrt()
    inputs = torch.cat([(x.double() - centre) / scale, torch.ones(len(x), 1, dtype=torch.double)], 1)
    penalty = torch.full((inputs.shape[1],), float(ridge), dtype=torch.double)
    penalty[-1] = bias_ridge
    weights = torch.zeros_like(penalty)
    for _ in range(steps):
        p = (inputs @ weights).sigmoid()
        gradient = weight * inputs.T @ (p - target) / len(x) + penalty * weights
        hessian = weight * (inputs.T * (p * (1 - p))) @ inputs / len(x) + penalty.diag()
        weights = weights - torch.linalg.solve(hessian, gradient)
    direction = weights[:-1] / scale
    return direction, weights[-1] - centre @ direction


@wrong(
    "logistic_probe",
    "Your penalty is twice as strong as it should be: the square has a factor of one half before it, so that its "
    "gradient has none.",
)
def without_the_half(x, labels, penalty=1e-3):
    return probe(x, *logistic(x, labels, 2 * penalty))


@wrong(
    "logistic_probe",
    "Your bias is penalised as well. It says how frequent the feature is, and nothing speaks for 0.",
)
def bias_penalised(x, labels, penalty=1e-3):
    return probe(x, *logistic(x, labels, penalty, bias_ridge=penalty))


@wrong(
    "logistic_probe",
    "You add the penalty to the sum of the losses and not to their mean: it is as many times too weak as there are "
    "tokens.",
)
def sum_of_losses(x, labels, penalty=1e-3):
    return probe(x, *logistic(x, labels, penalty / len(x)))


@wrong(
    "logistic_probe",
    "Your penalty leaves s² out, the variance of the entries of x. In another unit of x the same penalty is then "
    "another.",
)
def without_variance(x, labels, penalty=1e-3):
    return probe(x, *logistic(x, labels, penalty / variance(x)))


@wrong(
    "logistic_probe",
    "You take one step of Newton's method. The first step stands on a curvature that is not that of the minimum: take "
    "as many as it needs.",
)
def one_step(x, labels, penalty=1e-3):
    return probe(x, *logistic(x, labels, penalty, steps=1))


@wrong(
    "logistic_probe",
    "Your answer is that of twenty steps downhill along the gradient: it has not arrived. Newton's step divides the "
    "gradient by the curvature.",
)
def gradient_steps(x, labels, penalty=1e-3):
    both(labels)
    centre, scale = x.double().mean(0), variance(x).sqrt()
    inputs = torch.cat([(x.double() - centre) / scale, torch.ones(len(x), 1, dtype=torch.double)], 1)
    ridge = torch.full((inputs.shape[1],), float(penalty), dtype=torch.double)
    ridge[-1] = 0.0
    weights = torch.zeros_like(ridge)
    for _ in range(20):
        weights = weights - inputs.T @ ((inputs @ weights).sigmoid() - labels.double()) / len(x) - ridge * weights
    direction = weights[:-1] / scale
    return probe(x, direction, weights[-1] - centre @ direction)


@wrong(
    "logistic_probe",
    "Your probe is positive where the feature is absent. The score is the log-odds that it is present.",
)
def log_odds_of_absence(x, labels, penalty=1e-3):
    return probe(x, *logistic(x, ~labels, penalty))


@wrong(
    "logistic_probe",
    "You return the probe of the centred activations: its bias is that of the mean activation, and the score of x "
    "itself "
    "is off by the direction's product with the mean.",
)
def bias_of_the_centred(x, labels, penalty=1e-3):
    direction, bias = logistic(x, labels, penalty)
    return probe(x, direction, bias + x.double().mean(0) @ direction)


@right("logistic_probe")
def by_scikit_learn(x, labels, penalty=1e-3):
    from sklearn.linear_model import LogisticRegression

    both(labels)
    centre, scale = x.double().mean(0), variance(x).sqrt()
    model = LogisticRegression(C=1 / (penalty * len(x)), tol=1e-9, max_iter=10_000)
    model.fit(((x.double() - centre) / scale).numpy(), labels.numpy())
    direction = torch.from_numpy(model.coef_[0]) / scale
    return probe(x, direction, torch.from_numpy(model.intercept_)[0] - centre @ direction)


@right("logistic_probe")
def by_lbfgs(x, labels, penalty=1e-3):
    both(labels)
    with torch.enable_grad():
        inputs, s2 = x.double(), variance(x)
        centre = inputs.mean(0)
        weights = torch.zeros(x.shape[1] + 1, dtype=torch.double, requires_grad=True)
        optimiser = torch.optim.LBFGS(
            [weights], max_iter=3000, tolerance_grad=1e-11, tolerance_change=1e-16, line_search_fn="strong_wolfe",
            history_size=30,
        )  # fmt: skip

        def closure():
            optimiser.zero_grad()
            scores = (inputs - centre) / s2.sqrt() @ weights[:-1] + weights[-1]
            loss = torch.nn.functional.softplus(-signs(labels) * scores).mean()
            loss = loss + penalty / 2 * weights[:-1].square().sum()
            loss.backward()
            return loss

        optimiser.step(closure)
    direction = weights.detach()[:-1] / s2.sqrt()
    return probe(x, direction, weights.detach()[-1] - centre @ direction)


# mass_mean_probe


def mass_mean(x, labels):
    both(labels)
    return x[labels].mean(0), x[~labels].mean(0)


@wrong(
    "mass_mean_probe", "Your direction points from present to absent: where the feature is present the score is low."
)
def from_present_to_absent(x, labels):
    present, absent = mass_mean(x, labels)
    return Probe(absent - present, -(absent - present) @ (absent + present) / 2)


@wrong(
    "mass_mean_probe",
    "Your bias is 0: the score is 0 at the origin of the activations, and not halfway between the two means.",
)
def bias_zero(x, labels):
    present, absent = mass_mean(x, labels)
    return Probe(present - absent, torch.zeros((), dtype=x.dtype))


@wrong(
    "mass_mean_probe",
    "Your score is 0 at the mean of all activations. With classes of unequal size that is not halfway between their "
    "means.",
)
def at_the_mean_of_all(x, labels):
    present, absent = mass_mean(x, labels)
    return Probe(present - absent, -(present - absent) @ x.mean(0))


@wrong("mass_mean_probe", "Your bias has the wrong sign: the score is not 0 halfway between the means.")
def bias_of_the_other_sign(x, labels):
    present, absent = mass_mean(x, labels)
    return Probe(present - absent, (present - absent) @ (present + absent) / 2)


@wrong("mass_mean_probe", "Your direction has length 1. It is the difference of the means that is asked for, as it is.")
def of_length_one(x, labels):
    present, absent = mass_mean(x, labels)
    direction = (present - absent) / (present - absent).norm()
    return Probe(direction, -direction @ (present + absent) / 2)


@wrong("mass_mean_probe", "You take the classes' medians, entry by entry, and not their means.")
def medians(x, labels):
    both(labels)
    present, absent = x[labels].quantile(0.5, 0), x[~labels].quantile(0.5, 0)
    return Probe(present - absent, -(present - absent) @ (present + absent) / 2)


@wrong(
    "mass_mean_probe",
    "The bias is twice what it should be: the point halfway is half the sum of the two means.",
)
def not_halved(x, labels):
    present, absent = mass_mean(x, labels)
    return Probe(present - absent, -(present - absent) @ (present + absent))


@right("mass_mean_probe")
def by_a_product(x, labels):
    both(labels)
    weights = torch.stack([labels, ~labels]).to(x.dtype)
    present, absent = (weights @ x) / weights.sum(1, keepdim=True)
    return Probe(present - absent, (absent @ absent - present @ present) / 2)


@right("mass_mean_probe")
def sums(x, labels):
    both(labels)
    present = sum(row for row, label in zip(x, labels, strict=True) if label) / labels.sum()
    absent = sum(row for row, label in zip(x, labels, strict=True) if not label) / (~labels).sum()
    direction = present - absent
    return Probe(direction, -0.5 * (direction * (present + absent)).sum())
