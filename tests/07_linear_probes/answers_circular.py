"""Wrong answers for circular probes, rotations and rings, and right ones."""

import math

import numpy as np
import torch

from utils.course.catalogue import right, wrong
from utils.probes.circular import CircularProbe

# circular_probe


def fitted(x, targets, penalty, *, scaled=True):
    """Ridge regression by the normal equations."""
    z = x.double()
    centred = z - z.mean(0)
    covariance = centred.T @ centred / len(z)
    scale = covariance.diagonal().mean() if scaled else 1.0
    weights = torch.linalg.solve(
        covariance + penalty * scale * torch.eye(len(covariance)), centred.T @ (targets - targets.mean(0)) / len(z)
    )
    return CircularProbe(weights.to(x.dtype), (targets.mean(0) - z.mean(0) @ weights).to(x.dtype))


def long_enough(period):
    if period < 3:
        raise ValueError("period")


def on_the_circle(angles):
    return torch.stack([angles.cos(), angles.sin()], dim=1)


def angles_of(steps, period):
    return 2 * math.pi * steps.double() / period


@wrong(
    "circular_probe",
    "Your circle is walked through clockwise: step 1 lies below the first axis. Angles grow from (1, 0) towards (0,"
    " 1).",
)
def clockwise(x, steps, period, penalty=1e-3):
    long_enough(period)
    return fitted(x, on_the_circle(-angles_of(steps, period)), penalty)


@wrong(
    "circular_probe",
    "Sine and cosine are exchanged: step 0 belongs at (1, 0).",
)
def exchanged(x, steps, period, penalty=1e-3):
    long_enough(period)
    return fitted(x, on_the_circle(angles_of(steps, period)).flip(1), penalty)


@wrong(
    "circular_probe",
    "Your last step closes the round, where the first one is: with `period` steps a round, step `period` is step 0 "
    "again, and step `period` - 1 lies one step before it.",
)
def one_step_short(x, steps, period, penalty=1e-3):
    long_enough(period)
    return fitted(x, on_the_circle(2 * math.pi * (steps % period).double() / (period - 1)), penalty)


@wrong(
    "circular_probe",
    "The penalty is not scaled by the activations' variance, so that it means something else in every unit.",
)
def penalty_as_it_is(x, steps, period, penalty=1e-3):
    long_enough(period)
    return fitted(x, on_the_circle(angles_of(steps, period)), penalty, scaled=False)


@wrong(
    "circular_probe",
    "Your probe has no bias of its own: it is forced through the origin. Activations lie far from it, and so do the "
    "angles that come out.",
)
def without_bias(x, steps, period, penalty=1e-3):
    long_enough(period)
    targets, z = on_the_circle(angles_of(steps, period)), x.double()
    scale = z.var(0, correction=0).mean()
    weights = torch.linalg.solve(z.T @ z / len(z) + penalty * scale * torch.eye(z.shape[1]), z.T @ targets / len(z))
    return CircularProbe(weights.to(x.dtype), torch.zeros(2, dtype=x.dtype))


@wrong("circular_probe", "The penalty is not used: 0.001 and 0.7 give the same probe.")
def fixed_penalty(x, steps, period, penalty=1e-3):
    long_enough(period)
    return fitted(x, on_the_circle(angles_of(steps, period)), 1e-3)


@wrong("circular_probe", "A round of two steps is taken. On it there is no way round, only there and back.")
def any_period(x, steps, period, penalty=1e-3):
    return fitted(x, on_the_circle(angles_of(steps, period)), penalty)


@wrong("circular_probe", "The bias is penalised along with the weights. It is free.")
def bias_penalised(x, steps, period, penalty=1e-3):
    long_enough(period)
    z, targets = x.double(), on_the_circle(angles_of(steps, period))
    scale = z.var(0, correction=0).mean()
    rows = torch.cat([z, torch.ones_like(z[:, :1])], dim=1)
    n, d = rows.shape
    weights = torch.linalg.solve(rows.T @ rows / n + penalty * scale * torch.eye(d), rows.T @ targets / n)
    return CircularProbe(weights[:-1].to(x.dtype), weights[-1].to(x.dtype))


@wrong(
    "circular_probe",
    "Your loss is a sum over activations, and the penalty is weighed against their mean: it counts the less the more "
    "of them there are.",
)
def sum_over_activations(x, steps, period, penalty=1e-3):
    long_enough(period)
    return fitted(x, on_the_circle(angles_of(steps, period)), penalty / len(x))


@right("circular_probe")
def by_augmented_rows(x, steps, period, penalty=1e-3):
    if period < 3:
        raise ValueError("period")
    z = x.double().numpy()
    y = np.exp(2j * np.pi * steps.numpy() / period)
    y = np.stack([y.real, y.imag], 1)
    n, d = z.shape
    extra = np.sqrt(n * penalty * z.var(0).mean()) * np.eye(d)
    rows = np.block([[z, np.ones((n, 1))], [extra, np.zeros((d, 1))]])
    solution = np.linalg.lstsq(rows, np.concatenate([y, np.zeros((d, 2))]), rcond=None)[0]
    return CircularProbe(torch.tensor(solution[:-1]).to(x.dtype), torch.tensor(solution[-1]).to(x.dtype))


@right("circular_probe")
def with_the_remainder(x, steps, period, penalty=1e-3):
    if period <= 2:
        raise ValueError("period")
    table = on_the_circle(2 * math.pi * torch.arange(period, dtype=torch.double) / period)
    return fitted(x, table[torch.remainder(steps, period)], penalty)


# rotate_in_plane


def level(plane):
    if bool(((plane @ plane.T - torch.eye(2, dtype=plane.dtype)).abs() > 1e-3).any()):
        raise ValueError("not orthonormal")


def turned(x, plane, angle, centre, *, keep=True, back=True):
    a, b = ((x - centre) @ plane.T).unbind(-1)
    cos, sin = math.cos(angle), math.sin(angle)
    new = (cos * a - sin * b)[..., None] * plane[0] + (sin * a + cos * b)[..., None] * plane[1]
    old = a[..., None] * plane[0] + b[..., None] * plane[1]
    return (x - old if keep else (centre if back else 0)) + new


@wrong("rotate_in_plane", "You turn the other way: a positive angle takes the first direction towards the second.")
def the_other_way(x, plane, angle, centre):
    level(plane)
    return turned(x, plane, -angle, centre)


@wrong(
    "rotate_in_plane",
    "You turn about the origin. A point that is not at the centre of the circle is then carried away from it.",
)
def about_the_origin(x, plane, angle, centre):
    level(plane)
    return turned(x, plane, angle, torch.zeros_like(centre))


@wrong(
    "rotate_in_plane",
    "What lies outside the plane is gone: your activations are all in the plane. The rest is to stay as it is.",
)
def only_the_plane(x, plane, angle, centre):
    level(plane)
    return turned(x, plane, angle, centre, keep=False)


@wrong("rotate_in_plane", "Your angle is taken for degrees; it is in radians.")
def degrees(x, plane, angle, centre):
    level(plane)
    return turned(x, plane, math.radians(angle), centre)


@wrong(
    "rotate_in_plane",
    "You add the turned point and leave the old one in: everything in the plane is there twice.",
)
def added_to_the_old(x, plane, angle, centre):
    level(plane)
    a, b = ((x - centre) @ plane.T).unbind(-1)
    cos, sin = math.cos(angle), math.sin(angle)
    return x + (cos * a - sin * b)[..., None] * plane[0] + (sin * a + cos * b)[..., None] * plane[1]


@wrong(
    "rotate_in_plane",
    "Directions that are not of length 1 and at right angles are taken. In such a plane a turn is no turn: it changes "
    "lengths.",
)
def any_plane(x, plane, angle, centre):
    return turned(x, plane, angle, centre)


@wrong("rotate_in_plane", "You check that the directions are at right angles, and not that their length is 1.")
def any_length(x, plane, angle, centre):
    if (plane[0] @ plane[1]).abs() > 1e-3:
        raise ValueError("not at right angles")
    return turned(x, plane, angle, centre)


@wrong("rotate_in_plane", "You check that the directions are of length 1, and not that they are at right angles.")
def any_angle(x, plane, angle, centre):
    if ((plane.square().sum(1) - 1).abs() > 1e-3).any():
        raise ValueError("not of length 1")
    return turned(x, plane, angle, centre)


@wrong("rotate_in_plane", "Planes that are off by more than 0.001 are taken: your tolerance is too wide.")
def wide_tolerance(x, plane, angle, centre):
    if ((plane @ plane.T - torch.eye(2, dtype=plane.dtype)).abs() > 0.05).any():
        raise ValueError("not orthonormal")
    return turned(x, plane, angle, centre)


@wrong("rotate_in_plane", "A plane that is off by less than 0.001 is refused: your tolerance is too narrow.")
def narrow_tolerance(x, plane, angle, centre):
    if ((plane @ plane.T - torch.eye(2, dtype=plane.dtype)).abs() > 1e-5).any():
        raise ValueError("not orthonormal")
    return turned(x, plane, angle, centre)


@right("rotate_in_plane")
def with_a_matrix(x, plane, angle, centre):
    gram = plane @ plane.mT
    if (gram - torch.eye(2, dtype=gram.dtype)).abs().max() > 1e-3:
        raise ValueError("plane")
    cos, sin = math.cos(angle), math.sin(angle)
    turn = torch.tensor([[cos - 1, -sin], [sin, cos - 1]], dtype=x.dtype)
    return x + torch.einsum("...d,jd,ij,ie->...e", x - centre, plane, turn, plane)


@right("rotate_in_plane")
def with_complex_numbers(x, plane, angle, centre):
    level(plane)
    z = torch.complex(*((x - centre).double() @ plane.double().T).unbind(-1))
    change = z * complex(math.cos(angle), math.sin(angle)) - z
    return x + (torch.stack([change.real, change.imag], -1) @ plane.double()).to(x.dtype)


# ring_score


def possible(points, frequency):
    if not 1 <= frequency <= (len(points) - 1) // 2:
        raise ValueError("frequency")


def power_of(points):
    return torch.fft.fft(points - points.mean(0), dim=0).abs().square().sum(1)


@wrong(
    "ring_score",
    "You count the wave of one direction of rotation alone, and its mirror image is in the sum below it: a perfect "
    "ring gets one half.",
)
def half_of_it(points, frequency=1):
    possible(points, frequency)
    power = power_of(points)
    return power[frequency] / power[1:].sum()


@wrong(
    "ring_score",
    "The mean of the points is counted as variance. Where they lie has nothing to do with how they lie to each other.",
)
def mean_left_in(points, frequency=1):
    possible(points, frequency)
    power = torch.fft.fft(points, dim=0).abs().square().sum(1)
    return 2 * power[frequency] / power.sum()


@wrong(
    "ring_score",
    "You compare amplitudes. Variances add up over frequencies, and amplitudes don't: squares are needed.",
)
def amplitudes(points, frequency=1):
    possible(points, frequency)
    size = torch.fft.fft(points - points.mean(0), dim=0).abs().square().sum(1).sqrt()
    return 2 * size[frequency] / size[1:].sum()


@wrong("ring_score", "Your score is that of one round, whatever `frequency` says.")
def always_one_round(points, frequency=1):
    possible(points, frequency)
    power = power_of(points)
    return 2 * power[1] / power[1:].sum()


@wrong(
    "ring_score",
    "For an even number of points the zigzag of every second point, the highest frequency, is left out of the "
    "variance, or counted twice. `rfft` lists it once, and the other frequencies once for two.",
)
def zigzag_twice(points, frequency=1):
    possible(points, frequency)
    power = torch.fft.rfft(points - points.mean(0), dim=0)[1:].abs().square().sum(1)
    return power[frequency - 1] / power.sum()


@wrong("ring_score", "Frequencies that there can't be are taken, or two points for a ring.")
def any_frequency(points, frequency=1):
    power = power_of(points)
    return 2 * power[frequency % len(power)] / power[1:].sum()


@wrong(
    "ring_score",
    "Your Fourier transform runs along the dimensions, its default, and not along the points.",
)
def along_the_dimensions(points, frequency=1):
    possible(points, frequency)
    power = torch.fft.fft(points).abs().square().sum(0)
    return 2 * power[frequency] / power[1:].sum()


@wrong(
    "ring_score",
    "You double the frequency that is asked for, and below the line each is counted once: `rfft` lists one of the two "
    "that belong together. A perfect ring gets 2.",
)
def doubled_above_alone(points, frequency=1):
    possible(points, frequency)
    power = torch.fft.rfft(points, dim=0).abs().square().sum(1)
    return 2 * power[frequency] / power[1:].sum()


@right("ring_score")
def with_waves(points, frequency=1):
    n = len(points)
    if frequency < 1 or frequency > (n - 1) // 2:
        raise ValueError("frequency")
    turns = 2 * math.pi * frequency * torch.arange(n) / n
    centred = points - points.mean(0, keepdim=True)
    explained = sum((wave @ centred).square().sum() for wave in (turns.cos(), turns.sin())) * 2 / n
    return explained / centred.square().sum()


@right("ring_score")
def from_inner_products(points, frequency=1):
    n = points.shape[0]
    if not 0 < frequency < n / 2:
        raise ValueError("frequency")
    centred = (points - points.mean(0)).double()
    gram, steps = centred @ centred.T, torch.arange(n)
    wave = (2 * math.pi * frequency * (steps[:, None] - steps).double() / n).cos()
    return (2 / n * (gram * wave).sum() / gram.trace()).to(points.dtype)
