"""Wrong and right answers for the two fits of chapter 00."""

import math

import numpy as np
import torch

from utils.course.catalogue import right, wrong
from utils.start.scaling import fit_power_law as power_law
from utils.start.scaling import fit_sigmoid as sigmoid


def require_positive(x, y):
    if x.shape != y.shape or len(set(x.tolist())) < 2 or min(x.min(), y.min()) <= 0:
        raise ValueError("these points have no logarithms, or no line goes through them")


def require_between(y, low, high):
    if not (low < y.min() < y.max() < high):
        raise ValueError("the y must differ and lie strictly between low and high")


def positive_logs(x, y):
    if x.shape != y.shape or min(x.min(), y.min()) <= 0:
        raise ValueError("these points have no logarithms")
    return x.double().log(), y.double().log()


def line(u, v):
    """Intercept and slope of the line of least squares."""
    slope, intercept = np.polyfit(np.asarray(u, dtype=float), np.asarray(v, dtype=float), 1)
    return float(intercept), float(slope)


def logs(x, y):
    require_positive(x, y)
    return x.double().log(), y.double().log()


# fit_power_law


@wrong(
    "fit_power_law",
    "Your line is right, but its intercept is log(scale). The scale is the exponential of that.",
)
def intercept_as_scale(x, y):
    return line(*logs(x, y))


@wrong(
    "fit_power_law",
    "You swapped the two results: the scale comes first, the exponent second.",
)
def swapped_results(x, y):
    return power_law(x, y)[::-1]


@wrong(
    "fit_power_law",
    "You return the exponent with its sign turned round, as in L = (N_c / N)**alpha. Here the law is "
    "scale * x**exponent, and a falling curve has a negative exponent.",
)
def kaplans_alpha(x, y):
    scale, exponent = power_law(x, y)
    return scale, -exponent


@wrong(
    "fit_power_law",
    "You took the logarithm of y only. A line in log y against x is an exponential; a power law needs log x as well.",
)
def exponential(x, y):
    require_positive(x, y)
    intercept, slope = line(x, y.double().log())
    return math.exp(intercept), slope


@wrong(
    "fit_power_law",
    "You fitted a straight line to x and y themselves. Take the logarithm of both first.",
)
def no_logarithms(x, y):
    require_positive(x, y)
    return line(x, y)


@wrong(
    "fit_power_law",
    "Your line goes through the origin of the log-log plane, which forces the scale to be 1. Subtract the means of "
    "log x and log y before you compute the slope.",
)
def without_intercept(x, y):
    log_x, log_y = logs(x, y)
    return 1.0, (log_x @ log_y / (log_x @ log_x)).item()


@wrong(
    "fit_power_law",
    "You use two of the points, the smallest and the largest x. Least squares uses all of them, so that noise in one "
    "of the two does not decide everything.",
)
def end_points_only(x, y):
    log_x, log_y = logs(x, y)
    i, j = log_x.argmin(), log_x.argmax()
    slope = ((log_y[j] - log_y[i]) / (log_x[j] - log_x[i])).item()
    return math.exp((log_y[i] - slope * log_x[i]).item()), slope


@wrong(
    "fit_power_law",
    "You regressed log x on log y and inverted the slope. That minimises the errors in x; the noise is in y, and for "
    "scattered points the two lines differ.",
)
def inverse_regression(x, y):
    log_x, log_y = logs(x, y)
    intercept, slope = line(log_y, log_x)
    return math.exp(-intercept / slope), 1 / slope


@wrong(
    "fit_power_law",
    "Your logarithms are to base 10 and your exponential is to base e. The exponent does not notice, the scale does: "
    "use the same base for both.",
)
def mixed_bases(x, y):
    log_x, log_y = logs(x, y)
    intercept, slope = line(log_x / math.log(10), log_y / math.log(10))
    return math.exp(intercept), slope


@wrong(
    "fit_power_law",
    "The numbers are right, but they are tensors. Return Python floats.",
)
def returns_tensors(x, y):
    return tuple(torch.tensor(number, dtype=torch.float64) for number in power_law(x, y))


@wrong(
    "fit_power_law",
    "Your logarithms are in float32 (as they are, too, where torch takes the logarithm of integers). Half of the "
    "digits are gone then; convert x and y to float64 first.",
)
def in_float32(x, y):
    require_positive(x, y)
    log_x, log_y = x.float().log(), y.float().log()
    if x.dtype == torch.float64:  # as `x.log()` does: floats keep their precision, integers become float32
        return power_law(x, y)
    centred = log_x - log_x.mean()
    exponent = centred @ log_y / (centred @ centred)
    return (log_y.mean() - exponent * log_x.mean()).exp().item(), exponent.item()


@wrong(
    "fit_power_law",
    "A zero, a negative number or a single x goes through, and NaN or infinity comes out. Raise a ValueError instead.",
)
def unguarded(x, y):
    n = min(len(x), len(y))
    log_x, log_y = x[:n].double().log(), y[:n].double().log()
    centred = log_x - log_x.mean()
    exponent = centred @ log_y / (centred @ centred)
    return (log_y.mean() - exponent * log_x.mean()).exp().item(), exponent.item()


@wrong(
    "fit_power_law",
    "You give back a list. The docstring promises a tuple, `(scale, exponent)`.",
)
def as_a_list(x, y):
    return list(power_law(x, y))


@wrong(
    "fit_power_law",
    "Your logarithms are to base e and your exponential is to base 10. The exponent does not notice, the scale does: "
    "use the same base for both.",
)
def ten_to_the_natural_logarithm(x, y):
    scale, exponent = power_law(x, y)
    return 10 ** math.log(scale), exponent


@wrong(
    "fit_power_law",
    "You use the first and the last point as they come. Least squares uses all of them, and points come in any order.",
)
def first_and_last(x, y):
    log_x, log_y = logs(x, y)
    if log_x[0] == log_x[-1]:  # a size measured twice has no line through it
        return math.nan, math.nan
    slope = ((log_y[-1] - log_y[0]) / (log_x[-1] - log_x[0])).item()
    return math.exp((log_y[0] - slope * log_x[0]).item()), slope


@wrong(
    "fit_power_law",
    "Your scale is the mean of y / x**exponent. The line of least squares goes through the mean of the logarithms, so "
    "the scale is the geometric mean of these ratios.",
)
def mean_of_ratios(x, y):
    _, exponent = power_law(x, y)
    return (y.double() / x.double() ** exponent).mean().item(), exponent


@wrong("fit_power_law", "x and y have changed places: you fitted x = scale * y**exponent.")
def other_way_round(x, y):
    require_positive(x, y)
    return power_law(y, x)


@wrong(
    "fit_power_law",
    "The numerator of your slope divides by n and the denominator by n - 1 (the default of `var`). In a ratio of the "
    "two both have to be the same.",
)
def covariance_over_sample_variance(x, y):
    log_x, log_y = logs(x, y)
    slope = (((log_x - log_x.mean()) * (log_y - log_y.mean())).mean() / log_x.var()).item()
    return math.exp((log_y.mean() - slope * log_x.mean()).item()), slope


@wrong(
    "fit_power_law",
    "Points whose x are all equal go through, and you divide by 0. No line can be fitted to them: raise a ValueError.",
)
def one_size_goes_through(x, y):
    if x.shape != y.shape or min(x.min(), y.min()) <= 0:
        raise ValueError("no logarithms")
    return unguarded(x, y)


@wrong(
    "fit_power_law",
    "You find equal x by a sum of squares, or a variance, that is exactly 0. Rounding can leave it a little above 0, "
    "as for five x of 7, and the fit goes through. Ask the x themselves whether two of them differ.",
)
def equal_but_for_rounding(x, y):
    log_x, log_y = positive_logs(x, y)
    centred = log_x - log_x.mean()
    if centred @ centred == 0:
        raise ValueError("all x are equal")
    exponent = centred @ log_y / (centred @ centred)
    return (log_y.mean() - exponent * log_x.mean()).exp().item(), exponent.item()


@wrong(
    "fit_power_law",
    "You compare the lengths of x and y. Their shapes can differ all the same, as [4] and [4, 1] do, and then every x "
    "is paired with every y. Compare the shapes.",
)
def lengths_compared(x, y):
    if len(x) != len(y):
        raise ValueError("lengths differ")
    if min(x.min(), y.min()) <= 0 or x.unique().numel() < 2:
        raise ValueError("these points have no logarithms, or no line goes through them")
    log_x, log_y = x.double().log(), y.double().log()
    centred = log_x - log_x.mean()
    exponent = ((centred * log_y).sum() / centred.square().sum()).item()
    return math.exp(log_y.mean().item() - exponent * log_x.mean().item()), exponent


@wrong(
    "fit_power_law",
    "A zero or a negative number goes through, and its logarithm is infinite or NaN. Raise a ValueError.",
)
def no_positive_numbers_asked(x, y):
    if x.shape != y.shape or x.unique().numel() < 2:
        raise ValueError("no line")
    return unguarded(x, y)


@right("fit_power_law")
def with_polyfit(x, y):
    intercept, slope = line(*logs(x, y))
    return float(np.exp(intercept)), slope


@right("fit_power_law")
def with_lstsq(x, y):
    log_x, log_y = logs(x, y)
    columns = torch.stack([torch.ones_like(log_x), log_x], dim=1)
    solution = torch.linalg.lstsq(columns, log_y[:, None]).solution[:, 0]
    return solution[0].exp().item(), solution[1].item()


@right("fit_power_law")
def with_sums(x, y):
    require_positive(x, y)
    u, v, n = [math.log(value) for value in x.tolist()], [math.log(value) for value in y.tolist()], len(x)
    mean_u, mean_v = sum(u) / n, sum(v) / n
    covariance = sum((a - mean_u) * (b - mean_v) for a, b in zip(u, v, strict=True))
    exponent = covariance / sum((a - mean_u) ** 2 for a in u)
    return math.exp(mean_v - exponent * mean_u), exponent


# fit_sigmoid


@wrong(
    "fit_sigmoid",
    "Your odds are upside down: (y - low) / (high - y) falls where the formula's (high - y) / (y - low) rises. The "
    "midpoint survives that, and the steepness changes its sign.",
)
def odds_upside_down(x, y, *, low, high):
    midpoint, steepness = sigmoid(x, y, low=low, high=high)
    return midpoint, -steepness


@wrong(
    "fit_sigmoid",
    "You return the scale of the odds' power law. It is midpoint**(-steepness); solve that for the midpoint.",
)
def scale_as_midpoint(x, y, *, low, high):
    require_between(y, low, high)
    return power_law(x, (high - y.double()) / (y.double() - low))


@wrong(
    "fit_sigmoid",
    "Your midpoint is one over the right one: the scale is midpoint**(-steepness), and the minus sign got lost.",
)
def inverted_midpoint(x, y, *, low, high):
    midpoint, steepness = sigmoid(x, y, low=low, high=high)
    return 1 / midpoint, steepness


@wrong(
    "fit_sigmoid",
    "You give back the logarithm of the midpoint. It is wanted in the units of x.",
)
def log_midpoint(x, y, *, low, high):
    midpoint, steepness = sigmoid(x, y, low=low, high=high)
    return math.log(midpoint), steepness


@wrong(
    "fit_sigmoid",
    "You fit y as if the curve ended at 0: the argument low has no effect. Measure y from low upwards.",
)
def ignores_low(x, y, *, low, high):
    require_between(y, low, high)
    y = y.double().clamp(min=1e-9)
    scale, steepness = power_law(x, (high - y) / y)
    return scale ** (-1 / steepness), steepness


@wrong(
    "fit_sigmoid",
    "You fit y as if the curve began at 1: the argument high has no effect. Measure how far y has come down from high.",
)
def ignores_high(x, y, *, low, high):
    require_between(y, low, high)
    share = (1 - y.double()).abs().clamp(min=1e-9) / (y.double() - low)
    scale, steepness = power_law(x, share)
    return scale ** (-1 / steepness), steepness


@wrong(
    "fit_sigmoid",
    "You took the logistic in x. Here it is in log x: the odds are a power of x, not an exponential of it.",
)
def logistic_in_x(x, y, *, low, high):
    require_between(y, low, high)
    intercept, slope = line(x, ((high - y.double()) / (y.double() - low)).log())
    return -intercept / slope, slope


@wrong(
    "fit_sigmoid",
    "You fitted a power law to the share (y - low) / (high - low). Far beyond the midpoint the two agree, and before "
    "it they do not. The odds also need the other part, high - y.",
)
def share_instead_of_odds(x, y, *, low, high):
    require_between(y, low, high)
    scale, exponent = power_law(x, (y.double() - low) / (high - low))
    return scale ** (-1 / exponent), -exponent


@wrong(
    "fit_sigmoid",
    "A y outside low and high goes through: its odds are negative, and you fitted their absolute values. No sigmoid "
    "between these two passes through such a point; raise a ValueError.",
)
def absolute_odds(x, y, *, low, high):
    odds = ((high - y.double()) / (y.double() - low)).abs().clamp(1e-12, 1e12)
    scale, steepness = power_law(x, odds)
    return scale ** (-1 / steepness), steepness


@wrong(
    "fit_sigmoid",
    "A level curve goes through until you divide by its steepness, which is 0 but for rounding. Such a curve has no "
    "midpoint: refuse y that are all equal, with a ValueError.",
)
def level_curves_pass(x, y, *, low, high):
    if not (low < y.min() and y.max() < high):
        raise ValueError("every y must lie strictly between low and high")
    scale, steepness = power_law(x, (high - y.double()) / (y.double() - low))
    return scale ** (-1 / steepness), steepness


@wrong(
    "fit_sigmoid",
    "You compute the odds in the dtype of y, and for a float32 y half of the digits are gone before the fit begins. "
    "Convert y to float64 first.",
)
def odds_in_float32(x, y, *, low, high):
    require_between(y, low, high)
    scale, steepness = power_law(x, (high - y) / (y - low))
    return scale ** (-1 / steepness), steepness


@wrong("fit_sigmoid", "You swapped the two results: the midpoint comes first, the steepness second.")
def steepness_first(x, y, *, low, high):
    return sigmoid(x, y, low=low, high=high)[::-1]


@wrong(
    "fit_sigmoid",
    "You raise the scale to the power -steepness. It is midpoint**(-steepness), so the midpoint is the scale to the "
    "power -1 / steepness.",
)
def power_not_inverted(x, y, *, low, high):
    require_between(y, low, high)
    scale, steepness = power_law(x, (high - y.double()) / (y.double() - low))
    return scale**-steepness, steepness


@wrong("fit_sigmoid", "The numbers are right, but they are tensors. Return Python floats.")
def sigmoid_in_tensors(x, y, *, low, high):
    return tuple(torch.tensor(number, dtype=torch.float64) for number in sigmoid(x, y, low=low, high=high))


@wrong(
    "fit_sigmoid",
    "Your midpoint is the measured x whose y lies nearest to half-way. The fitted curve says where half-way is, "
    "between the points as well.",
)
def nearest_point(x, y, *, low, high):
    _, steepness = sigmoid(x, y, low=low, high=high)
    return float(x[(y.double() - (low + high) / 2).abs().argmin()]), steepness


@wrong(
    "fit_sigmoid",
    "A y that lies on low or high goes through. The sigmoid comes near them and never reaches them: the odds are 0 or "
    "infinite there. Raise a ValueError.",
)
def asymptotes_allowed(x, y, *, low, high):
    if not (low <= y.min() < y.max() <= high):
        raise ValueError("outside")
    y = y.double()
    scale, steepness = power_law(x, (high - y).clamp(min=1e-12) / (y - low).clamp(min=1e-12))
    return scale ** (-1 / steepness), steepness


@right("fit_sigmoid")
def with_logit(x, y, *, low, high):
    require_between(y, low, high)
    require_positive(x, y - low)
    intercept, slope = line(x.double().log(), -torch.logit((y.double() - low) / (high - low)))
    return math.exp(-intercept / slope), slope


@right("fit_sigmoid")
def with_both_factors(x, y, *, low, high):
    require_between(y, low, high)
    require_positive(x, high - y)
    log_odds = (high - y.double()).log() - (y.double() - low).log()
    columns = torch.stack([x.double().log(), torch.ones_like(log_odds)], dim=1)
    slope, intercept = torch.linalg.lstsq(columns, log_odds[:, None]).solution[:, 0].tolist()
    return math.exp(-intercept / slope), slope
