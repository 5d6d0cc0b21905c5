from itertools import combinations

import torch

from utils.attribution.case_01a import suspect
from utils.attribution.tumours import load_tumours, strangeness
from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import Mismatch, expect
from utils.course.values import describe

DATA = load_tumours()
RIVAL = "smoothness"
KEYS = {
    "pairs": "list",
    "control_pairs": "list",
    "measure": "callable",
    "effect": "pair",
    "control_effect": "pair",
    "verdict": tuple(DATA.features),
}


def as_rows(pair):
    """A pair as rows [2, feature] in the table's dtype."""
    try:
        before, after = (torch.as_tensor(row, dtype=torch.float64) for row in pair)
    except (TypeError, ValueError) as error:
        raise Mismatch("A pair is two rows, before and after.", actual="no pair", returned=describe(pair)) from error
    expect(
        before.shape == after.shape == (len(DATA.features),),
        f"A row has {len(DATA.features)} numbers, one for each feature.",
        actual=("shape", tuple(before.shape), tuple(after.shape)),
        returned=f"shapes {tuple(before.shape)} and {tuple(after.shape)}",
    )
    return torch.stack([before, after])


def changed_feature(pairs, kind):
    """The one feature that changes in all pairs."""
    changed = {tuple(i for i in range(len(DATA.features)) if pair[0, i] != pair[1, i]) for pair in map(as_rows, pairs)}
    names = {tuple(DATA.features[i] for i in columns) for columns in changed}
    expect(
        not any(len(columns) > 1 for columns in changed),
        f"Some of your {kind} change more than one feature: whichever of them the model reads would explain it.",
        actual=("several", kind, sorted(names)),
        returned=", ".join(" and ".join(columns) for columns in sorted(names) if len(columns) > 1),
    )
    expect(
        len(changed) == 1 and changed != {()},
        f"Your {kind} should change one feature, the same in all of them.",
        actual=("not one", kind, sorted(names)),
        returned=", ".join(" and ".join(columns) or "nothing" for columns in sorted(names)),
    )
    return names.pop()[0]


def expect_different_patients(pairs, kind):
    """Each pair begins with a patient of its own."""
    patients = [as_rows(pair)[0] for pair in pairs]
    for (i, one), (j, other) in combinations(enumerate(patients, 1), 2):
        expect(
            not torch.equal(one, other),
            f"Two of your {kind} begin with the same patient (numbers {i} and {j}). One patient is one unit, however "
            "often she is asked about.",
            actual=("one patient", kind)
            if all(torch.equal(one, row) for row in patients)
            else ("a patient again", kind),
            returned=f"numbers {i} and {j} with the same row before",
            expected="another patient in each pair",
        )


def expect_possible(pairs, kind):
    """Rows are real patients before, and no stranger than one after."""
    limit = float(strangeness(DATA.table, DATA.table).max())
    for number, rows in enumerate(map(as_rows, pairs), 1):
        known = (DATA.table - rows[0]).abs().amax(1).min() < 1e-6
        expect(
            known,
            f"In your {kind}, number {number} does not begin with a tumour of the table.",
            actual=("unknown", kind),
            returned="a row that is nobody's",
            expected="a row of the table",
        )
        strange = float(strangeness(DATA.table, rows).max())
        expect(
            strange <= limit * 1.001,
            f"In your {kind}, number {number} asks about a tumour that could not exist: what the model says there need "
            "not be what it does with patients.",
            actual=("strange", kind),
            returned=f"strangeness {strange:.1f}",
            expected=f"at most {limit:.1f}, that of the strangest real tumour",
        )


def design(answer):
    return design_of(answer, KEYS)


def mean_step(pairs):
    """How far the rows of pairs are moved, in the mean."""
    return float(torch.stack([as_rows(pair).diff(dim=0).abs().max() for pair in pairs]).mean())


def values_of(design, pairs):
    rows = [tuple(as_rows(pair)) for pair in pairs]
    return expect_function_of_input(design["measure"], [(suspect, before, after) for before, after in rows])


class TestWhichFeatureDecides:
    exercise = "which_feature_decides"

    def test_pairs(self, answer):
        "pairs change one feature of real patients, enough of them, and nothing that could not exist"
        found = design(answer)
        for kind in ("pairs", "control_pairs"):
            changed_feature(found[kind], kind)
            expect_different_patients(found[kind], kind.replace("_", " "))
            expect_enough(found[kind], 8, of=kind.replace("_", " "))
            expect_possible(found[kind], kind)

    def test_control(self, answer):
        "the control changes the rival candidate"
        found = design(answer)
        wanted = {changed_feature(found[kind], kind) for kind in ("pairs", "control_pairs")}
        expect(
            RIVAL in wanted and len(wanted) == 2,
            "LIME's candidate is never tested: change smoothness in one of the two sets of pairs, and your own "
            "candidate in the other.",
            actual=sorted(wanted),
            returned=" and ".join(sorted(wanted)),
        )
        steps = [mean_step(found[kind]) for kind in ("pairs", "control_pairs")]
        expect(
            steps[1] > steps[0] / 3,
            "Your control pairs change their feature by much less than your pairs change theirs. If the output then "
            "stays, it may be for the size of the step and not for the feature.",
            actual="small steps in the control",
            returned=f"steps of {steps[1]:.2g} in the mean of the control pairs, and of {steps[0]:.2g} in your pairs",
            expected="steps about as large",
        )

    def test_measure(self, answer):
        "the measure is what the change does to the model that it is handed: nothing, if that one never moves"
        found = design(answer)
        for pair in map(as_rows, found["pairs"][:1]):
            constant = [lambda rows, level=level: torch.full((len(rows),), level).to(rows) for level in (0.5, 0.75)]
            values = expect_function_of_input(found["measure"], [(model, *pair) for model in constant])
            wrong = "no change" if abs(values[0] - values[1]) > 1e-6 else "another model"
            why = (
                "the measure follows how high the output is. What counts here is how much it changes from before to "
                "after."
                if wrong == "no change"
                else "the measure does not ask the model that it is handed."
            )
            expect(
                max(map(abs, values)) < 1e-6,
                f"For models that answer 0.5 to everything, or 0.75, your measure is not 0: {why}",
                actual=wrong,
                returned=f"{values[0]:.4g} and {values[1]:.4g}",
                expected="0 and 0",
            )

    def test_effects(self, answer):
        "the measure depends on its input alone, and both effects are what it gives"
        found = design(answer)
        for kind, effect in (("pairs", "effect"), ("control_pairs", "control_effect")):
            expect_reported(found[effect], values_of(found, found[kind]))

    def test_verdict(self, answer):
        "the verdict follows from the numbers"
        found = design(answer)
        candidate = changed_feature(found["pairs"], "pairs")
        mean, half_width = estimate(values_of(found, found["pairs"]))
        control, margin = estimate(values_of(found, found["control_pairs"]))
        expect(
            abs(mean) > half_width,
            "The interval of your effect includes zero: changing this feature does nothing that could be told from "
            "nothing, so your pairs name no feature by which the model decides.",
            actual=("no effect", mean),
            returned=f"{mean:.3g} ± {half_width:.2g}",
        )
        expect(
            abs(control) + margin < 0.5 * (abs(mean) - half_width),
            "Your control moves as well, so the effect does not single out one feature.",
            actual="control moves",
            returned=f"{control:.3g} ± {margin:.2g}, beside an effect of {mean:.3g} ± {half_width:.2g}",
        )
        expect(
            found["verdict"] == candidate,
            "Your verdict does not follow from your numbers: the feature whose change moves the output is another.",
            actual=("verdict", found["verdict"]),
            returned=found["verdict"],
            expected=candidate,
        )
