from utils.attribution.case_01b import first_network
from utils.attribution.tumours import load_tumours
from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import Mismatch, expect

DATA = load_tumours()
KEYS = {
    "patient": "number",
    "pairs": "list",
    "control_pairs": "list",
    "measure": "callable",
    "effect": "pair",
    "control_effect": "pair",
    "verdict": ("the class", "not shown"),
}


def rows_of(background, kind):
    """A background as sorted row numbers, each of them in the table and none of them twice."""
    try:
        rows = sorted(int(row) for row in background)
    except (TypeError, ValueError) as error:
        raise Mismatch("A background is a list of row numbers.", actual=("no rows", kind)) from error
    expect(
        len(set(rows)) == len(rows) and rows and rows[0] >= 0 and rows[-1] < len(DATA.table),
        f"In your {kind}, a background names a row twice, or one that the table does not have.",
        actual=("rows", kind),
    )
    expect(
        10 <= len(rows) <= 60,
        f"In your {kind}, a background has {len(rows)} rows; 10 to 60 are asked for.",
        actual=("size", kind, len(rows)),
    )
    return rows


def classes(rows):
    return {int(label) for label in DATA.malignant[rows]}


def pairs_of(found, kind):
    expect(
        all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in found[kind]),
        f"Your {kind} should be pairs of backgrounds.",
        actual=("pairs", kind),
    )
    pairs = [tuple(rows_of(background, kind) for background in pair) for pair in found[kind]]
    expect(
        all(int(found["patient"]) not in rows for pair in pairs for rows in pair),
        "The patient is compared with others: her own row should be in no background.",
        actual=("patient", kind),
    )
    return pairs


def changes_of(found, kind):
    """The measure's change from first to second for each pair; that it repeats is tried on the first pairs."""
    patient, model = DATA.table[int(found["patient"])], first_network()
    calls = [(model, patient, DATA.table[rows]) for pair in pairs_of(found, kind) for rows in pair]
    values = expect_function_of_input(found["measure"], calls[:4])
    values += [float(found["measure"](*call)) for call in calls[4:]]
    return [second - first for first, second in zip(values[::2], values[1::2], strict=True)]


class TestWhatMovesTheShare:
    exercise = "what_moves_the_share"

    def test_pairs(self, answer):
        "the pairs differ in class, in nothing else that could be counted, and are drawn anew"
        found = design_of(answer, KEYS)
        pairs = pairs_of(found, "pairs")
        expect(
            all(classes(first) == {0} and classes(second) == {1} for first, second in pairs),
            "In a pair the first background should be all benign and the second all malignant: mixed ones differ by "
            "less than what you ask about.",
            actual="mixed classes",
            returned=f"classes {[tuple(sorted(classes(rows))) for rows in pairs[0]]} in the first pair",
        )
        expect(
            all(len(first) == len(second) for first, second in pairs),
            "The two backgrounds of a pair differ in size as well as in class: either would explain a change.",
            actual="different sizes",
        )
        expect_enough(pairs, 8, of="pairs")

    def test_control(self, answer):
        "the control pairs differ only in which patients were drawn"
        pairs = pairs_of(design_of(answer, KEYS), "control_pairs")
        expect(
            all(len(classes(first) | classes(second)) == 1 for first, second in pairs),
            "The two backgrounds of a control pair should be of one class: otherwise the control changes the very "
            "thing that is on trial.",
            actual="control of two classes",
        )
        expect(
            not any(set(first) & set(second) for first, second in pairs),
            "The two backgrounds of a control pair share rows, so that they hardly differ: a control that cannot move "
            "shows nothing.",
            actual="control shares rows",
        )
        expect_enough(pairs, 8, of="control pairs")

    def test_effects(self, answer):
        "the measure depends on its input alone, and both effects are what it gives"
        found = design_of(answer, KEYS)
        for kind, effect in (("pairs", "effect"), ("control_pairs", "control_effect")):
            expect_reported(found[effect], changes_of(found, kind))

    def test_verdict(self, answer):
        "the verdict follows from the numbers"
        found = design_of(answer, KEYS)
        mean, half_width = estimate(changes_of(found, "pairs"))
        control, margin = estimate(changes_of(found, "control_pairs"))
        shown = abs(mean) > half_width and abs(control) + margin < abs(mean) - half_width
        follows = "the class" if shown else "not shown"
        expect(
            found["verdict"] == follows,
            "Your verdict does not follow: the class is shown to move the share if the interval of the effect leaves "
            "out zero and lies beyond all that the control's interval allows, and only then.",
            actual=("verdict", found["verdict"]),
            returned=f"{found['verdict']!r}, with an effect of {mean:.3g} ± {half_width:.2g} and a control of "
            f"{control:.3g} ± {margin:.2g}",
            expected=repr(follows),
        )
