"""Wrong answers for when a quantity changes, each with its sentence, and right ones."""

import numpy as np

from utils.course.catalogue import right, wrong

SHARES = (0.1, 0.5, 0.9)


def refuse(steps, values):
    if len(steps) < 2 or len(values) != len(steps) or bool((steps.diff() <= 0).any()) or values[-1] == values[0]:
        raise ValueError("no way")


def way_of(values):
    return ((values - values[0]) / (values[-1] - values[0])).double()


def between(steps, way, i, share):
    steps = steps.double()
    return (steps[i - 1] + (share - way[i - 1]) / (way[i] - way[i - 1]) * (steps[i] - steps[i - 1])).item()


def first_at_least(way, share):
    return next(i for i in range(len(way)) if way[i] >= share)


@wrong(
    "induction_phase_change",
    "You return the first measured step at which the share has been reached, without the line from the step before: "
    "your answer is late by up to the distance between two measurements.",
)
def no_line(steps, values):
    refuse(steps, values)
    way = way_of(values)
    return tuple(float(steps[first_at_least(way, share)]) for share in SHARES)


@wrong(
    "induction_phase_change",
    "You measure the way from the smallest to the largest value. A quantity that overshoots, or falls, has made its "
    "way from its first value to its last.",
)
def smallest_to_largest(steps, values):
    refuse(steps, values)
    way = ((values - values.min()) / (values.max() - values.min())).double()
    found = []
    for share in SHARES:
        i = first_at_least(way, share)
        found.append(between(steps, way, i, share) if i else float(steps[0]))
    return tuple(found)


@wrong(
    "induction_phase_change",
    "You measure the way between the smallest and the largest value, in the direction in which the quantity goes. One "
    "that overshoots, or first goes the other way, has made its way from its first value to its last.",
)
def smallest_to_largest_either_way(steps, values):
    refuse(steps, values)
    way = ((values - values.min()) / (values.max() - values.min())).double()
    way = 1 - way if values[-1] < values[0] else way
    found = []
    for share in SHARES:
        i = first_at_least(way, share)
        found.append(between(steps, way, i, share) if i else float(steps[0]))
    return tuple(found)


@wrong(
    "induction_phase_change",
    "You take the last time that a share is passed. A quantity that goes to and fro passes it several times: the first "
    "counts.",
)
def the_last_time(steps, values):
    refuse(steps, values)
    way = way_of(values)
    found = []
    for share in SHARES:
        i = max(i for i in range(1, len(way)) if way[i] >= share > way[i - 1])
        found.append(between(steps, way, i, share))
    return tuple(found)


@wrong(
    "induction_phase_change",
    "You interpolate over all points as if the quantity never went back. Where it does, `interp` and the like give "
    "nonsense without a word.",
)
def interpolated_inversely(steps, values):
    refuse(steps, values)
    return tuple(float(np.interp(share, way_of(values).numpy(), steps.double().numpy())) for share in SHARES)


@wrong(
    "induction_phase_change",
    "You return the measured step at which the way is nearest to the share. The share has been made somewhere between "
    "two measurements, on the straight line from one to the other.",
)
def the_nearest_step(steps, values):
    refuse(steps, values)
    return tuple(float(steps[(way_of(values) - share).abs().argmin()]) for share in SHARES)


@wrong(
    "induction_phase_change",
    "You look for the first value that is large enough. A quantity that falls begins above all of them: look at how "
    "much of its way it has made.",
)
def as_if_rising(steps, values):
    refuse(steps, values)
    values, found = values.double(), []
    for share in SHARES:
        goal = values[0] + share * (values[-1] - values[0])
        i = first_at_least(values, goal)
        found.append(between(steps, values, i, goal) if i else float(steps[0]))
    return tuple(found)


@wrong(
    "induction_phase_change",
    "You take shares of the last value. The way begins at the first value, which need not be 0.",
)
def shares_of_the_last_value(steps, values):
    refuse(steps, values)
    way, found = (values / values[-1]).double(), []
    for share in SHARES:
        i = first_at_least(way, share)
        found.append(between(steps, way, i, share) if i else float(steps[0]))
    return tuple(found)


@wrong("induction_phase_change", "Your shares are those of the training time, not of the way that the quantity makes.")
def shares_of_the_time(steps, values):
    refuse(steps, values)
    first, last = steps[0].double(), steps[-1].double()
    return tuple((first + share * (last - first)).item() for share in SHARES)


@wrong("induction_phase_change", "You return the values at which the shares have been made, and not the steps.")
def values_in_place_of_steps(steps, values):
    refuse(steps, values)
    return tuple((values[0] + share * (values[-1] - values[0])).item() for share in SHARES)


@right("induction_phase_change")
def in_a_loop(steps, values):
    s, v = steps.tolist(), values.tolist()
    if len(s) < 2 or len(s) != len(v) or any(b <= a for a, b in zip(s, s[1:], strict=False)) or v[0] == v[-1]:
        raise ValueError("no way to be made")
    found = []
    for share in SHARES:
        level = v[0] + share * (v[-1] - v[0])
        for i in range(1, len(s)):
            if (v[i] - level) * (v[-1] - v[0]) >= 0:
                found.append(s[i - 1] + (level - v[i - 1]) / (v[i] - v[i - 1]) * (s[i] - s[i - 1]))
                break
    return tuple(found)
