import math
from functools import lru_cache

import torch
from torch import nn

from utils.attribution.case_01c import INK_TOLERANCE, MAPS, SIDE, comparable_squares, square_sums
from utils.course.cases import design_of, expect_enough, expect_function_of_input, expect_reported
from utils.course.checking import Mismatch, expect, plain
from utils.course.values import is_number
from utils.models.digits_cnn import digits_data, load_digits_cnn, random_digits_cnn

DATA, READER = digits_data(), load_digits_cnn()
KEYS = {
    "map": tuple(MAPS),
    "pairs": "list",
    "control_seed": "number",
    "control_pairs": "list",
    "measure": "callable",
    "effect": "pair",
    "control_effect": "pair",
    "verdict": ("network", "not shown"),
}
KINDS = {"pairs": "effect", "control_pairs": "control_effect"}


class Asked(nn.Module):
    """The trained network, which keeps what it was asked about and can't be differentiated."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, images):
        expect(
            not images.requires_grad,
            "Your measure differentiates. That makes a second map of it, and two maps can agree in being wrong: change "
            "the square, and see what the network says.",
            actual="differentiates",
        )
        self.seen.append(images.detach().clone())
        with torch.no_grad():
            return READER(images)


def whole(value, below, what):
    value = plain(value)
    fits = is_number(value) and float(value).is_integer() and 0 <= value < below
    expect(fits, f"{what} must be an integer from 0 to {below - 1}.", actual=what, returned=repr(value))
    return int(value)


def as_pair(pair):
    """(number, high, low), with squares as (row, column)."""
    try:
        number, high, low = pair
        squares = [tuple(square) for square in (high, low)]
        rows_and_columns = [plain(place) for square in squares for place in square]
    except TypeError as error:
        raise Mismatch("A pair is (number of the image, high square, low square).", actual="no pair") from error
    except ValueError as error:
        raise Mismatch("A pair is (number of the image, high square, low square).", actual="no triple") from error
    expect([len(square) for square in squares] == [2, 2], "A square is (row, column).", actual="no square")
    high_row, high_column, low_row, low_column = (whole(p, 7, "A square's row or column") for p in rows_and_columns)
    return whole(number, len(DATA.test_labels), "An image's number"), (high_row, high_column), (low_row, low_column)


def pairs_of(found, kind):
    pairs = [as_pair(pair) for pair in found[kind]]
    name = kind.replace("_", " ")
    expect_enough([number for number, _, _ in pairs], 20, of=f"images in {name}")
    digits = {DATA.test_labels[number].item() for number, _, _ in pairs}
    expect(
        len(digits) >= 5,
        f"Your {name} show only {len(digits)} different digits: what holds for them need not hold for the network.",
        actual=("digits", kind),
    )
    return pairs


def expect_comparable(pairs, kind):
    numbers = [number for number, _, _ in pairs]
    allowed = comparable_squares(DATA.test_images[numbers])
    ink = square_sums(DATA.test_images[numbers, 0])
    for i, (number, high, low) in enumerate(pairs):
        overlap = max(abs(high[0] - low[0]), abs(high[1] - low[1])) < SIDE
        expect(
            not overlap,
            f"In your {kind}, the two squares of image {number} share pixels.",
            actual=("overlap", kind),
        )
        expect(
            bool(allowed[i, high[0] * 7 + high[1], low[0] * 7 + low[1]]),
            f"In your {kind}, the squares of image {number} differ in ink as well as on the map: a network that loses "
            "more ink loses more of its logit, whatever the map knows.",
            actual=("ink", kind),
            returned=f"{ink[i][high]:.2f} and {ink[i][low]:.2f} of ink",
            expected=f"the same to within {INK_TOLERANCE}",
        )


@lru_cache(maxsize=32)
def sums_of_map(name, seed, numbers):
    """Sums of a map over the squares [image, 7, 7], of the trained network or of the untrained one of a seed."""
    model = READER if seed is None else random_digits_cnn(seed)
    return square_sums(MAPS[name](model, DATA.test_images[list(numbers)], DATA.test_labels[list(numbers)]))


def expect_chosen_by_map(found, pairs, seed):
    sums = sums_of_map(found["map"], seed, tuple(number for number, _, _ in pairs))
    whose = "the trained network's" if seed is None else f"that of random_digits_cnn({seed})"
    for (number, high, low), values in zip(pairs, sums, strict=True):
        gap, least = (values[high] - values[low]).item(), values.std().item()
        expect(
            gap >= 0.99 * least and gap > 0,
            f"For image {number} the map ({found['map']}, {whose}) does not say that the first square is high and the "
            "second low: they are less than a standard deviation of its squares apart.",
            actual=("not by the map", seed is None),
            returned=f"{gap:.3g} apart",
            expected=f"at least {least:.3g}",
        )


def values_of(found, pairs):
    """For each pair, the measure at the high square less that at the low one."""
    items = []
    for number, *squares in pairs:
        for square in squares:
            items.append((Asked(), DATA.test_images[number].clone(), DATA.test_labels[number].item(), square))
    values = expect_function_of_input(found["measure"], items)
    changed = False
    for model, image, _, (row, column) in items:
        expect(len(model.seen) > 0, "Your measure never asks the model that it is given.", actual="not asked")
        for images in model.seen:
            differs = images != image
            changed |= bool(differs.any())
            differs[..., row : row + SIDE, column : column + SIDE] = False
            expect(
                not differs.any(),
                "Your measure asks about images that differ from the original outside the square: whatever else was "
                "changed would explain the answer as well.",
                actual="outside",
                returned=f"{int(differs.flatten(1).sum(1).max())} pixels outside the square changed",
            )
    expect(changed, "Your measure never changes the image.", actual="unchanged")
    return [high - low for high, low in zip(values[::2], values[1::2], strict=True)]


class TestDoesTheMapKnowTheNetwork:
    exercise = "does_the_map_know_the_network"

    def test_pairs(self, answer):
        "pairs come from enough different images and digits, and their squares hold the same ink"
        found = design_of(answer, KEYS)
        for kind in KINDS:
            expect_comparable(pairs_of(found, kind), kind)

    def test_map(self, answer):
        "the pairs are chosen by the map of the trained network, those of the control by an untrained one's"
        found = design_of(answer, KEYS)
        seed = whole(found["control_seed"], 2**31, "The control's seed")
        expect_chosen_by_map(found, pairs_of(found, "pairs"), None)
        expect_chosen_by_map(found, pairs_of(found, "control_pairs"), seed)

    def test_effects(self, answer):
        "the measure changes the square and nothing else, and both effects are what it gives"
        found = design_of(answer, KEYS)
        for kind, effect in KINDS.items():
            expect_reported(found[effect], values_of(found, pairs_of(found, kind)))

    def test_verdict(self, answer):
        "the verdict follows from the numbers"
        found = design_of(answer, KEYS)
        (mean, half), (control, margin) = (found[effect] for effect in KINDS.values())
        above_chance = mean - half > 0
        above_control = mean - control - math.hypot(half, margin) > 0
        follows = "network" if above_chance and above_control else "not shown"
        expect(
            found["verdict"] == follows,
            "Your verdict does not follow from your numbers: "
            + (
                "both the effect and its distance from the control are beyond chance."
                if follows == "network"
                else "the interval of the effect, or of its distance from the control, includes zero."
            ),
            actual=("verdict", found["verdict"], found["map"]),
            returned=found["verdict"],
            expected=f"{follows}: {mean:.3g} ± {half:.2g}, beside a control of {control:.3g} ± {margin:.2g}",
        )
