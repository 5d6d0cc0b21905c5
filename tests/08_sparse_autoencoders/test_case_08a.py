"""The check of the case of part 08a: measures are run again on dictionaries whose faults are known."""

import math

from utils.course.cases import design_of, expect_function_of_input
from utils.course.checking import expect
from utils.sae.case_08a import dictionary, on_the_table

FAULTS = ("shrunk", "twice", "dead")
TOLD = {
    "shrunk": "latents give too little",
    "twice": "features were learnt twice",
    "dead": "latents are never on",
    "narrow": "latents are missing and nothing else is wrong",
    "sound": "nothing is wrong",
}
KEYS = {
    **dict.fromkeys(FAULTS, "callable"),
    **{f"sound_{fault}": "pair" for fault in FAULTS},
    **dict.fromkeys("ABCD", (*FAULTS, "none")),
}


class TestWhatIsWrong:
    exercise = "what_is_wrong"

    def test_design(self, answer):
        "measures that move with their fault alone, the sound ones' range, and verdicts by the rule"
        suspects, sound = on_the_table(411), [dictionary("sound", 7_000_000 + i) for i in range(20)]
        design = design_of(answer, KEYS, suspects, sound)
        border = {}
        for fault in FAULTS:
            values = expect_function_of_input(design[fault], [(given,) for given in sound])
            low, high = min(values), max(values)
            expect(
                all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4) for a, b in
                    zip(design[f"sound_{fault}"], (low, high), strict=True)),
                f"Over the sound dictionaries your measure of {fault!r} goes from {low:.4g} to {high:.4g}, and you "
                "report another range: its smallest and its largest value, in this order.",
                actual=("range", fault), returned=str(design[f"sound_{fault}"]), expected=f"({low:.5g}, {high:.5g})",
            )  # fmt: skip
            border[fault] = high + (high - low) + 1e-6 * max(1e-3, abs(high))
        outstanding = {name: self.standing_out(design, border, given) for name, given in suspects.items()}
        for name, faults in outstanding.items():
            said = design[name]
            expect(
                (said in faults) if faults else said == "none",
                f"By your own measures {' and '.join(faults) or 'no fault'} stands out in {name}, and your verdict is "
                f"{said!r}.",
                actual=("verdict", said, *faults), returned=f"{name}: {said!r}",
            )  # fmt: skip
        for i, kind in enumerate((*FAULTS, "narrow", "sound")):
            for j in range(3):
                faults = self.standing_out(design, border, dictionary(kind, 9_000_000 + 3 * i + j))
                if kind in FAULTS:
                    expect(
                        kind in faults,
                        f"On a new dictionary in which {TOLD[kind]} your measure of {kind!r} does not stand out from "
                        "the sound ones.",
                        actual=("missed", kind),
                    )  # fmt: skip
                for fault in faults:
                    expect(
                        fault == kind,
                        f"On a new dictionary in which {TOLD[kind]} your measure of {fault!r} stands out as well: it "
                        "moves with another fault than its own.",
                        actual=("moved", fault, kind),
                    )  # fmt: skip

    @staticmethod
    def standing_out(design, border, given):
        """Which faults' measures lie above their border."""
        return [f for f in FAULTS if expect_function_of_input(design[f], [(given,)])[0] > border[f]]
