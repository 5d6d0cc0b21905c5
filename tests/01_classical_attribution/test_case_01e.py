from utils.attribution.case_01e import channel_activation
from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import Mismatch, expect
from utils.models.digits_cnn import digits_data

IMAGES, LABELS = digits_data().test_images, digits_data().test_labels.tolist()
INK = IMAGES.sum((1, 2, 3)).tolist()
KINDS = ("digit", "ink", "control")
KEYS = (
    {f"{kind}_pairs": "list" for kind in KINDS}
    | {"measure": "callable"}
    | {f"{kind}_effect": "pair" for kind in KINDS}
    | {"verdict": ("the digit", "ink", "both", "neither")}
)


def pairs_of(found, kind):
    """The pairs as image numbers; no image twice."""
    try:
        pairs = [(int(first), int(second)) for first, second in found[f"{kind}_pairs"]]
    except (TypeError, ValueError) as error:
        raise Mismatch(f"Your {kind} pairs should be pairs of image numbers.", actual=("no pairs", kind)) from error
    used = [number for pair in pairs for number in pair]
    expect(
        all(0 <= number < len(LABELS) for number in used),
        f"Your {kind} pairs name an image that is not there: the held-out images are 0 to {len(LABELS) - 1}.",
        actual=("number", kind),
    )
    expect(
        len(set(used)) == len(used),
        f"An image is used twice in your {kind} pairs: two pairs that share one are not two independent units.",
        actual=("twice", kind),
    )
    expect_enough(pairs, 12, of=f"{kind} pairs")
    return pairs


def changes_of(found, kind):
    pairs = pairs_of(found, kind)
    images = [IMAGES[number] for pair in pairs for number in pair]
    values = expect_function_of_input(found["measure"], [(channel_activation, image) for image in images])
    return [second - first for first, second in zip(values[::2], values[1::2], strict=True)]


def alike(first, second):
    return abs(INK[second] - INK[first]) <= 0.05 * INK[first] + 1e-4


class TestWhatTheChannelAnswersTo:
    exercise = "what_the_channel_answers_to"

    def test_digit_pairs(self, answer):
        "the digit pairs change the digit and leave the ink"
        pairs = pairs_of(design_of(answer, KEYS), "digit")
        expect(
            all(LABELS[second] == 7 and LABELS[first] != 7 for first, second in pairs),
            "In a digit pair the first image is another digit and the second a seven.",
            actual=("digits", [(LABELS[first], LABELS[second]) for first, second in pairs[:3]]),
        )
        expect(
            all(alike(*pair) for pair in pairs),
            "Some of your digit pairs differ in ink as well, by more than 5 %: then either would explain a change.",
            actual="ink differs too",
        )

    def test_ink_pairs(self, answer):
        "the ink pairs change the ink and leave the digit"
        pairs = pairs_of(design_of(answer, KEYS), "ink")
        expect(
            all(LABELS[first] == LABELS[second] for first, second in pairs),
            "Some of your ink pairs change the digit as well: then either would explain a change.",
            actual="digit differs too",
        )
        expect(
            all(INK[second] >= 1.2 * INK[first] - 1e-4 for first, second in pairs),
            "In an ink pair the second image has at least 20 % more ink than the first.",
            actual="too little ink",
        )

    def test_control_pairs(self, answer):
        "the control pairs change neither"
        pairs = pairs_of(design_of(answer, KEYS), "control")
        expect(
            all(LABELS[first] == LABELS[second] and alike(first, second) for first, second in pairs),
            "A control pair is two images of the same digit with about the same ink: nothing that is on trial changes.",
            actual="control changes something",
        )

    def test_effects(self, answer):
        "the measure depends on its input alone, and the three effects are what it gives"
        found = design_of(answer, KEYS)
        for kind in KINDS:
            expect_reported(found[f"{kind}_effect"], changes_of(found, kind))

    def test_verdict(self, answer):
        "the verdict follows from the intervals"
        found = design_of(answer, KEYS)
        moves = {}
        for kind in ("digit", "ink"):
            mean, half_width = estimate(changes_of(found, kind))
            moves[kind] = abs(mean) > half_width
        follows = {(True, False): "the digit", (False, True): "ink", (True, True): "both", (False, False): "neither"}
        wanted = follows[moves["digit"], moves["ink"]]
        expect(
            found["verdict"] == wanted,
            "Your verdict does not follow: a property moves the channel here if the interval of its effect leaves out "
            "zero, and is not shown to if it doesn't.",
            actual=("verdict", found["verdict"]),
            returned=repr(found["verdict"]),
            expected=repr(wanted),
        )
