from functools import cache

import torch

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
        returned=f"image {next((number for number in used if not 0 <= number < len(LABELS)), '')}",
    )
    for place, (first, second) in enumerate(pairs):
        expect(
            first != second,
            f"One of your {kind} pairs is an image and itself. Nothing can change there, whatever is measured: take "
            "two images.",
            actual=("itself", kind),
            returned=told(kind, place, first, second),
        )
    again = next((number for place, number in enumerate(used) if number in used[:place]), None)
    expect(
        again is None,
        f"An image is used twice in your {kind} pairs: two pairs that share one are not two independent units.",
        actual=("twice", kind),
        returned=f"image {again} in {sum(again in pair for pair in pairs)} pairs",
    )
    expect_enough(pairs, 12, of=f"{kind} pairs")
    return pairs


def told(kind, place, first, second):
    """A pair for the report: its place, and what its images are."""
    images = (f"image {number} (a {LABELS[number]}, ink {INK[number]:.4g})" for number in (first, second))
    return f"{kind}_pairs[{place}]: " + " and ".join(images)


def expect_pairs(pairs, kind, holds, note, actual):
    """Expect something of every pair, and tell of the first for which it does not hold."""
    for place, pair in enumerate(pairs):
        expect(holds(*pair), note, actual=actual, returned=told(kind, place, *pair))


@cache
def levels():
    """The channel's smallest, middle and largest activation."""
    values = channel_activation(IMAGES)
    return values.min().item(), values.median().item(), values.max().item()


def answers_to_ink(images):
    """A made-up channel that answers to nothing but ink, in the range of the real one."""
    low, _, high = levels()
    return low + (high - low) * (images.flatten(1).sum(1) - min(INK)) / (max(INK) - min(INK))


def answers_to_nothing(images):
    """A made-up channel that has the same activation for all images."""
    return torch.full((len(images),), levels()[1])


def expect_measures_activation(measure):
    """Expect a measure to listen to the activation that it is handed, and to nothing else."""
    order = sorted(range(len(INK)), key=INK.__getitem__)
    numbers = [order[int(share * (len(order) - 1) / 11)] for share in range(12)]  # from the least ink to the most
    by_ink = expect_function_of_input(measure, [(answers_to_ink, IMAGES[number]) for number in numbers])
    by_none = expect_function_of_input(measure, [(answers_to_nothing, IMAGES[number]) for number in numbers])
    expect(
        max(abs(a - b) for a, b in zip(by_ink, by_none, strict=True)) > 1e-9,
        "Handed another activation (one that answers to ink alone, one that is the same for all images), your measure "
        "returns the same numbers. It has to look through the activation that it is handed.",
        actual="activation not used",
        returned=f"{by_ink[0]:.4g} and {by_none[0]:.4g} for the same image",
        expected="two numbers",
    )
    expect(
        max(by_none) - min(by_none) <= 1e-5 * max(1.0, abs(by_none[0])),
        "Handed an activation that is the same for all images, your measure still differs from image to image. It "
        "takes something else into account, and an effect may then be that thing's.",
        actual="something besides the activation",
        returned=f"from {min(by_none):.4g} to {max(by_none):.4g}",
        expected="one number for all images",
    )


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
        expect_pairs(
            pairs,
            "digit",
            lambda first, second: LABELS[second] == 7 and LABELS[first] != 7,
            "In a digit pair the first image is another digit and the second a seven.",
            "digits",
        )
        expect_pairs(
            pairs,
            "digit",
            alike,
            "A digit pair of yours differs in ink as well, by more than 5 % of the first's: then either would explain "
            "a change.",
            "ink differs too",
        )

    def test_ink_pairs(self, answer):
        "the ink pairs change the ink and leave the digit"
        pairs = pairs_of(design_of(answer, KEYS), "ink")
        expect_pairs(
            pairs,
            "ink",
            lambda first, second: LABELS[first] == LABELS[second],
            "An ink pair of yours changes the digit as well: then either would explain a change.",
            "digit differs too",
        )
        expect_pairs(
            pairs,
            "ink",
            lambda first, second: INK[second] >= INK[first] - 1e-4,
            "In an ink pair the second image has more ink than the first, and in one of yours it has less.",
            "ink shrinks",
        )
        expect_pairs(
            pairs,
            "ink",
            lambda first, second: INK[second] >= 1.2 * INK[first] - 1e-4,
            "In an ink pair the second image has at least 20 % more ink than the first.",
            "too little ink",
        )

    def test_control_pairs(self, answer):
        "the control pairs change neither"
        pairs = pairs_of(design_of(answer, KEYS), "control")
        expect_pairs(
            pairs,
            "control",
            lambda first, second: LABELS[first] == LABELS[second],
            "A control pair is two images of the same digit, and one of yours is not: the digit is on trial.",
            "digit differs in control",
        )
        expect_pairs(
            pairs,
            "control",
            alike,
            "The two images of a control pair have the same ink, to within 5 % of the first's, and one of your pairs "
            "does not: ink is on trial.",
            "ink differs in control",
        )

    def test_measure(self, answer):
        "the measure looks through the activation that it is handed, and at nothing else"
        expect_measures_activation(design_of(answer, KEYS)["measure"])

    def test_effects(self, answer):
        "the measure depends on its input alone, and the three effects are what it gives"
        found = design_of(answer, KEYS)
        for kind in KINDS:
            expect_reported(found[f"{kind}_effect"], changes_of(found, kind), of=f"{kind}_effect")

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
