from itertools import combinations

from utils.attribution.case_01b import first_network
from utils.attribution.tumours import load_tumours
from utils.course.cases import design_of, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import Mismatch, expect
from utils.course.values import describe

DATA = load_tumours()
CLASSES = ("benign", "malignant")
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
        raise Mismatch(
            "A background is a list of row numbers.", actual=("no rows", kind), returned=describe(background)
        ) from error
    expect(
        len(set(rows)) == len(rows) and rows and rows[0] >= 0 and rows[-1] < len(DATA.table),
        f"In your {kind}, a background names a row twice, or one that the table does not have.",
        actual=("rows", kind),
        returned=f"{len(rows)} rows, {len(set(rows))} different ones",
    )
    expect(
        10 <= len(rows) <= 60,
        f"In your {kind}, a background has {len(rows)} rows; 10 to 60 are asked for.",
        actual=("size", kind, len(rows)),
        returned=f"{len(rows)} rows",
    )
    return rows


def classes(rows):
    return {int(label) for label in DATA.malignant[rows]}


def pairs_of(found, kind):
    expect(
        all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in found[kind]),
        f"Your {kind} should be pairs of backgrounds.",
        actual=("pairs", kind),
        returned=describe(next((pair for pair in found[kind] if not isinstance(pair, list | tuple)), found[kind])),
    )
    pairs = [tuple(rows_of(background, kind) for background in pair) for pair in found[kind]]
    expect(
        all(int(found["patient"]) not in rows for pair in pairs for rows in pair),
        "The patient is compared with others: her own row should be in no background.",
        actual=("patient", kind),
        returned=f"row {int(found['patient'])} in a background of the {kind.replace('_', ' ')}",
    )
    return pairs


def expect_drawn_anew(pairs, kind):
    """No pair is another one again, and no background, in all its rows or nearly all, that of another pair."""
    numbered = list(combinations(enumerate(pairs, 1), 2))
    for (i, one), (j, other) in numbered:
        expect(
            one != other,
            f"Numbers {i} and {j} of your {kind} are the same. A copy adds no evidence; it only makes the interval "
            "look narrower than it is.",
            actual=("copies", kind),
            returned=f"numbers {i} and {j} with the same rows",
            expected="another draw in each pair",
        )
    for (i, one), (j, other) in numbered:
        for side, rows, others in zip(("first", "second"), one, other, strict=True):
            shared = len(set(rows) & set(others))
            expect(
                shared <= 0.9 * len(rows),
                f"In numbers {i} and {j} of your {kind}, the {side} backgrounds are hardly different draws, so the two "
                "pairs are hardly two units.",
                actual=("drawn again", kind),
                returned=f"{shared} of {len(rows)} rows in both",
                expected="backgrounds that are drawn anew for each pair",
            )


def one_feature_model(column):
    """A model that reads one feature and no other: the whole output is its share."""
    return lambda rows: rows[:, column].square() + 3 * rows[:, column] + 5


def all_features_model(rows):
    return rows.square().sum(1) + 3 * rows.sum(1) + 5


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
            all(len(classes(rows)) == 1 for pair in pairs for rows in pair),
            "In a pair the first background should be all benign and the second all malignant: mixed ones differ by "
            "less than what you ask about.",
            actual="mixed classes",
            returned="a background with tumours of both classes",
        )
        expect(
            all(classes(first) == {0} and classes(second) == {1} for first, second in pairs),
            "In a pair the first background should be all benign and the second all malignant: the change is counted "
            "from first to second.",
            actual="malignant first" if all(classes(first) == {1} for first, _ in pairs) else "other classes",
            returned=next((CLASSES[min(classes(first))] + " first" for first, _ in pairs if classes(first) != {0}), ""),
            expected="benign first, malignant second",
        )
        expect(
            all(len(first) == len(second) for first, second in pairs),
            "The two backgrounds of a pair differ in size as well as in class: either would explain a change.",
            actual="different sizes",
            returned=next((f"{len(a)} and {len(b)} rows" for a, b in pairs if len(a) != len(b)), ""),
            expected="as many in the one as in the other",
        )
        expect_drawn_anew(pairs, "pairs")
        expect_enough(pairs, 8, of="pairs")

    def test_control(self, answer):
        "the control pairs differ only in which patients were drawn"
        found = design_of(answer, KEYS)
        pairs = pairs_of(found, "control_pairs")
        expect(
            all(len(classes(rows)) == 1 for pair in pairs for rows in pair),
            "Each background of a control pair should be of one class, benign or malignant: the pairs' are, and the "
            "control is to differ from them in nothing but what is on trial.",
            actual="control of mixed classes",
            returned="a background with tumours of both classes",
        )
        expect(
            all(len(classes(first) | classes(second)) == 1 for first, second in pairs),
            "The two backgrounds of a control pair should be of one class: otherwise the control changes the very "
            "thing that is on trial.",
            actual="control of two classes",
            returned="benign and malignant in one control pair",
        )
        expect(
            not any(set(first) & set(second) for first, second in pairs),
            "The two backgrounds of a control pair share rows. By these they can't differ, as those of your pairs can "
            "by every row: the control comes out too small.",
            actual="control shares rows",
            returned=next(
                (f"{len(set(a) & set(b))} of {len(a)} rows in both" for a, b in pairs if set(a) & set(b)), ""
            ),
            expected="no row in both",
        )
        largest = max((len(rows) for pair in pairs_of(found, "pairs") for rows in pair), default=60)
        expect(
            all(len(rows) <= largest for pair in pairs for rows in pair),
            "Your control's backgrounds are larger than those of your pairs. The more patients there are in a "
            "background, the less another draw moves, so the control looks quieter than the draws on trial are.",
            actual="larger control",
            returned=f"{max((len(rows) for pair in pairs for rows in pair), default=0)} rows",
            expected=f"at most {largest} rows, as in the pairs",
        )
        expect_drawn_anew(pairs, "control pairs")
        expect_enough(pairs, 8, of="control pairs")

    def test_measure(self, answer):
        "the measure is a feature's share, for the model, the patient and the background that it is handed"
        measure = design_of(answer, KEYS)["measure"]
        patient, background = DATA.table.amax(0), DATA.table[:10]
        calls = [(one_feature_model(column), patient, background) for column in range(len(DATA.features))]
        shares = expect_function_of_input(measure, calls)
        largest = max(map(abs, shares))
        expect(
            max(shares) - min(shares) > 1e-6,
            "Your measure gives the same number for ten models, each of which reads another feature: it does not ask "
            "the model that it is handed.",
            actual="the model is not asked",
            returned=f"{shares[0]:.4g} for each",
        )
        moved = sum(abs(share) > 1e-3 * largest for share in shares)
        expect(
            moved < len(shares),
            "Your measure is no feature's share: of ten models that read one feature each, all get a number other than "
            "0, where a feature's share is 0 if the model does not read it.",
            actual="no feature's share",
            returned="10 of 10 are not 0",
            expected="0 for each model that does not read the feature",
        )
        others = {"patient": (DATA.table.amin(0), background), "background": (patient, DATA.table[10:20])}
        for what, other in others.items():
            call, changed = ((all_features_model, *rows) for rows in ((patient, background), other))
            first, second = expect_function_of_input(measure, [call, changed])
            expect(
                abs(first - second) > 1e-6,
                f"Your measure gives another {what} the same share, for a model with which it should not be: it does "
                f"not look at the {what} that it is handed.",
                actual=f"the {what} is not looked at",
                returned=f"{first:.4g} for both",
            )

    def test_effects(self, answer):
        "the measure depends on its input alone, and both effects are what it gives"
        found = design_of(answer, KEYS)
        for kind, effect in (("pairs", "effect"), ("control_pairs", "control_effect")):
            expect_reported(found[effect], changes_of(found, kind))

    def test_verdict(self, answer):
        "the verdict follows from the numbers"
        found = design_of(answer, KEYS)
        (mean, half_width), (control, margin) = found["effect"], found["control_effect"]
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
