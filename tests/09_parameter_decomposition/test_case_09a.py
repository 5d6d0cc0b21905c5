"""The check of the case of part 09a: measures are run again on decompositions whose faults are known."""

import math

from utils.course.cases import design_of, expect_function_of_input
from utils.course.checking import expect
from utils.spd.case_09a import on_the_table, planted

FAULTS = ("unfaithful", "wasteful", "hidden")
TOLD = {
    ("unfaithful", 0): "some components write what others should",
    ("unfaithful", 1): "some components are missing",
    ("wasteful", 0): "some components are replaced by sums and differences",
    ("wasteful", 1): "some components are there as two halves",
    ("hidden", 0): "some needed components are called unneeded",
    ("hidden", 1): "two components that are called unneeded cancel each other",
    ("many", 0): "there are many spare components and many features on, and no fault",
    ("sound", 0): "nothing is wrong",
}
KEYS = {
    **dict.fromkeys(FAULTS, "callable"),
    **{f"sound_{fault}": "pair" for fault in FAULTS},
    **dict.fromkeys("ABCDEF", (*FAULTS, "none")),
}


class TestWhichPromiseIsBroken:
    exercise = "which_promise_is_broken"

    def test_design(self, answer):
        "measures that move with their fault alone, the sound ones' range, and verdicts by the rule"
        suspects, sound = on_the_table(411), [planted("sound", 7_000_000 + i) for i in range(20)]
        design = design_of(answer, KEYS, suspects, sound)
        border, constant = {}, {}
        for fault in FAULTS:
            values = expect_function_of_input(design[fault], [(given,) for given in sound])
            low, high = min(values), max(values)
            expect(
                all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-6) for a, b in
                    zip(design[f"sound_{fault}"], (low, high), strict=True)),
                f"Over the sound decompositions your measure of {fault!r} goes from {low:.4g} to {high:.4g}, and you "
                "report another range: its smallest and its largest value, in this order.",
                actual=("range", fault), returned=str(design[f"sound_{fault}"]), expected=f"({low:.5g}, {high:.5g})",
            )  # fmt: skip
            constant[fault] = low == high
            border[fault] = high + (high - low) + 1e-6 * max(1e-3, abs(high))
        for name, given in suspects.items():
            faults, said = self.standing_out(design, border, given), design[name]
            expect(
                (said in faults) if faults else said == "none",
                f"By your own measures {' and '.join(faults) or 'no fault'} stands out in {name}, and your verdict is "
                f"{said!r}.",
                actual=("verdict", said, *faults), returned=f"{name}: {said!r}",
            )  # fmt: skip
        for (kind, form), told in TOLD.items():
            for j in range(2):
                faults = self.standing_out(design, border, planted(kind, 9_000_000 + 2 * j + form))
                if kind in FAULTS:
                    expect(
                        kind in faults,
                        f"On a new decomposition in which {told} your measure of {kind!r} does not stand out from the "
                        "sound ones.",
                        actual=("missed", kind, form, constant[kind]),
                    )
                for fault in faults:
                    expect(
                        fault == kind,
                        f"On a new decomposition in which {told} your measure of {fault!r} stands out as well.",
                        actual=("moved", fault, kind, form),
                    )

    @staticmethod
    def standing_out(design, border, given):
        """Which faults' measures lie above their border."""
        return [f for f in FAULTS if expect_function_of_input(design[f], [(given,)])[0] > border[f]]
