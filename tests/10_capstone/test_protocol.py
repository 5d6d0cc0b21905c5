"""Checks for the size of a project, and for what a record lacks."""

import math
from numbers import Integral

import torch
from scipy.special import stdtrit

from utils.course.checking import expect, expect_raises

STEPS = (
    "proposal", "held out", "units", "baseline", "control task", "correction", "random directions", "equal length",
    "refutation",
)  # fmt: skip


class TestUnitsNeeded:
    exercise = "units_needed"

    def test_smallest(self, answer, rng):
        "n suffices and n - 1 does not, for random spreads and widths"
        spreads, widths = 0.2 + torch.rand(2, 12, generator=rng)
        given = list(zip(spreads.tolist(), (widths / 2 + 0.02).tolist(), strict=True))
        found = tuple(answer(*pair) for pair in given)
        expect(
            all(isinstance(n, Integral) and n >= 2 for n in found),
            "A number of units is a whole number, at least 2.",
            actual=("whole", *found),
        )
        for (spread, half_width), n in zip(given, map(int, found), strict=True):
            wide = [float(stdtrit(k - 1, 0.975)) * spread / math.sqrt(k) for k in (n, max(n - 1, 2))]
            case = f"{n} units for a spread of {spread:.3f} and a half-width of {half_width:.3f}"
            enough = wide[0] <= half_width * (1 + 1e-9)
            expect(enough, "With so many units the interval is still too wide.", actual=found, returned=case)
            least = n == 2 or wide[1] > half_width * (1 - 1e-9)
            expect(least, "One unit fewer would do.", actual=found, returned=case)

    def test_few(self, answer):
        "where few units are needed Student's t is much larger than 1.96"
        given = {(1.0, 20.0): 2, (1.0, 2.0): 4, (1.0, 1.0): 7, (3.0, 1.0): 38, (1.0, 0.05): 1540}
        found = tuple(answer(*pair) for pair in given)
        for (spread, half_width), n, said in zip(given, given.values(), found, strict=True):
            expect(
                said == n,
                f"With a spread of {spread} and a half-width of {half_width}, {n} units are needed.",
                actual=found,
                returned=str(said),
                expected=str(n),
            )

    def test_bad_input(self, answer):
        "0, negative, infinite and NaN are refused"
        for bad in (0.0, -1.0, math.inf, math.nan):
            expect_raises(ValueError, answer, bad, 1.0)
            expect_raises(ValueError, answer, 1.0, bad)


def whole(rng, n=9, n_places=4):
    """A record in which every step is kept."""
    numbers = torch.rand(4, n, generator=rng).tolist()
    p = torch.rand(n_places, generator=rng).mul(0.2).tolist()
    own = 1 + 9 * torch.rand((), generator=rng).item()
    return {
        "feature": "the subject is plural", "would_refute": "another noun counts as much",
        "folds": [([i for i in range(n) if i != left_out], [left_out]) for left_out in range(n)],
        "accuracy": numbers[0], "baseline": numbers[1], "control": numbers[2],
        "p": p, "p_adjusted": [min(1.0, n_places * value) for value in p],
        "random": torch.rand(19, 5, generator=rng).tolist(), "push_lengths": [own, 1.009 * own, 0.991 * own],
        "refutation": {"named": (5.0, 0.1), "someone else": (0.2, 0.3)},
    }  # fmt: skip


DAMAGED = {
    "proposal": [{"feature": ""}, {"would_refute": "  "}, {"would_refute": None}],
    "held out": [
        {"folds": []},
        {"folds": [([1, 2, 3], [4, 3]), ([1, 2], [3])]},
        {"folds": [([1, 2, 3], [4]), ([1, 2], [3, 2])]},
        {"folds": [([1], [2]), ([5, 6], [6])]},
    ],
    "baseline": [{"baseline": None}, {"baseline": [0.5, 0.5]}, {"baseline": [0.5] * 12}, {"baseline": []}],
    "control task": [{"control": None}, {"control": [0.5]}, {"control": [0.5] * 12}],
    "correction": [
        {"p_adjusted": None},
        {"p_adjusted": []},
        {"p": [0.01, 0.02, 0.03], "p_adjusted": [0.01, 0.02, 0.03]},
        {"p": [0.01, 0.02, 0.5], "p_adjusted": [0.03, 0.04, 0.4]},
        {"p": [0.01, 0.02], "p_adjusted": [0.02]},
        {"p": None},
    ],
    "random directions": [{"random": [[0.1, 0.2]] * 18}, {"random": None}],
    "equal length": [
        {"push_lengths": [5.0]},
        {"push_lengths": [5.0, 5.0, 4.0]},
        {"push_lengths": [5.0, 6.0]},
        {"push_lengths": [5.0, 4.0, 5.0]},
        {"push_lengths": [5.0, 5.06, 5.03]},
        {"push_lengths": None},
    ],
    "refutation": [
        {"refutation": {"named": (5.0, 0.1)}},
        {"refutation": {"other": (1, 1), "more": (1, 1)}},
        {"refutation": None},
    ],
}


class TestAuditProtocol:
    exercise = "audit_protocol"

    def expect(self, answer, record, steps):
        found = answer(record)
        expect(
            list(found) == steps, f"Of this record {', '.join(steps) or 'nothing'} should be lacking.",
            actual=(tuple(steps), tuple(found)), returned=str(list(found)), expected=str(steps),
        )  # fmt: skip

    def test_whole(self, answer, rng):
        "a record in which every step is kept"
        self.expect(answer, whole(rng), [])
        self.expect(answer, whole(rng, n=8, n_places=2), [])
        self.expect(answer, whole(rng) | {"p": [0.03], "p_adjusted": None}, [])
        self.expect(answer, whole(rng) | {"p": [0.01, 0.02, 0.5], "p_adjusted": [0.03, 0.04, 0.5]}, [])

    def test_one_missing(self, answer, rng):
        "one step is missing, in each of the ways in which it can be"
        for step, ways in DAMAGED.items():
            for change in ways:
                self.expect(answer, whole(rng) | change, [step])

    def test_units(self, answer, rng):
        "seven templates are too few, however good they are"
        self.expect(answer, whole(rng, n=7), ["units"])

    def test_keys_missing(self, answer, rng):
        "a key that is not there counts as lacking, and an empty record lacks everything"
        for key, step in (
            ("feature", "proposal"),
            ("folds", "held out"),
            ("control", "control task"),
            ("p", "correction"),
            ("refutation", "refutation"),
        ):
            record = whole(rng)
            del record[key]
            self.expect(answer, record, [step])
        self.expect(answer, {}, list(STEPS))

    def test_several(self, answer, rng):
        "several steps are missing: all of them, in the order of the docstring"
        drawn = [i for i in torch.randperm(len(DAMAGED), generator=rng)[:3].tolist()]
        record, steps = whole(rng), []
        for step in (list(DAMAGED)[i] for i in drawn):
            record |= DAMAGED[step][0]
            steps.append(step)
        self.expect(answer, record, sorted(steps, key=STEPS.index))
