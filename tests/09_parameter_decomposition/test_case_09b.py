"""The check of the case of part 09b: measures are run again on decompositions whose flaws are known."""

import math

from utils.course.cases import design_of, expect_function_of_input
from utils.course.checking import expect
from utils.spd.case_09b import suspect, under_suspicion

FLAWS = ("split", "shared", "hidden")
TOLD = {
    "split": "features are split between two components",
    "shared": "features need a part of another's component",
    "hidden": "components that are called unneeded matter",
    "sound": "nothing is wrong",
}
KEYS = {
    **dict.fromkeys(FLAWS, "callable"),
    **{f"sound_{flaw}": "pair" for flaw in FLAWS},
    **dict.fromkeys("ABCD", (*FLAWS, "none")),
}


class TestWhichFlaw:
    exercise = "which_flaw"

    def test_design(self, answer):
        "measures that move with their flaw alone, the sound ones' range, and verdicts by the rule"
        suspects, sound = under_suspicion(411), [suspect("sound", 7_000_000 + i) for i in range(20)]
        design = design_of(answer, KEYS, suspects, sound)
        border = {}
        for flaw in FLAWS:
            values = expect_function_of_input(design[flaw], [(given,) for given in sound])
            low, high = min(values), max(values)
            expect(
                all(math.isclose(a, b, rel_tol=1e-3, abs_tol=1e-4) for a, b in
                    zip(design[f"sound_{flaw}"], (low, high), strict=True)),
                f"Over the sound decompositions your measure of {flaw!r} goes from {low:.4g} to {high:.4g}, and you "
                "report another range: its smallest and its largest value, in this order.",
                actual=("range", flaw), returned=str(design[f"sound_{flaw}"]), expected=f"({low:.5g}, {high:.5g})",
            )  # fmt: skip
            border[flaw] = high + (high - low) + 1e-6 * max(1e-3, abs(high))
        for name, given in suspects.items():
            flaws, said = self.standing_out(design, border, given), design[name]
            expect(
                (said in flaws) if flaws else said == "none",
                f"By your own measures {' and '.join(flaws) or 'no flaw'} stands out in {name}, and your verdict is "
                f"{said!r}.",
                actual=("verdict", said, *flaws), returned=f"{name}: {said!r}",
            )  # fmt: skip
        for i, kind in enumerate((*FLAWS, "sound")):
            for j in range(3):
                flaws = self.standing_out(design, border, suspect(kind, 9_000_000 + 3 * i + j))
                if kind in FLAWS:
                    expect(
                        kind in flaws,
                        f"On a new decomposition in which {TOLD[kind]} your measure of {kind!r} does not stand out "
                        "from the sound ones.",
                        actual=("missed", kind),
                    )  # fmt: skip
                for flaw in flaws:
                    expect(
                        flaw == kind,
                        f"On a new decomposition in which {TOLD[kind]} your measure of {flaw!r} stands out as well: it "
                        "moves with another flaw than its own.",
                        actual=("moved", flaw, kind),
                    )  # fmt: skip

    @staticmethod
    def standing_out(design, border, given):
        """Which flaws' measures lie above their border."""
        return [flaw for flaw in FLAWS if expect_function_of_input(design[flaw], [(given,)])[0] > border[flaw]]
