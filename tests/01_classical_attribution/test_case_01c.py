import contextlib
import math
from functools import lru_cache

import torch
from scipy.stats import fisher_exact
from torch import nn

from utils.attribution.case_01c import INK_TOLERANCE, MAPS, SIDE, comparable_squares, square_sums
from utils.course.cases import design_of, estimate, expect_enough, expect_function_of_input, expect_reported
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
    """A network, the trained one unless said otherwise: keeps what it was asked about, and can't be differentiated."""

    def __init__(self, network=READER):
        super().__init__()
        self.network, self.seen = network, []

    def forward(self, images):
        expect(
            not images.requires_grad,
            "Your measure differentiates. That makes a second map of it, and two maps can agree in being wrong: change "
            "the square, and see what the network says.",
            actual="differentiates",
            returned="the network asked about an image that wants gradients",
        )
        self.seen.append(images.detach().clone())
        with torch.no_grad():
            return self.network(images)


class RestsOnASquare(nn.Module):
    """Planted: its logit for a label falls with every change of one square of an image; or, without one, never."""

    def __init__(self, image, label, square=None):
        super().__init__()
        self.image, self.label, self.square = image, label, square

    def forward(self, images):
        logits = torch.zeros(*images.shape[:-3], 10)
        logits[..., self.label] = 2.0
        if self.square is not None:
            row, column = self.square
            changed = (images - self.image)[..., row : row + SIDE, column : column + SIDE].abs().mean((-3, -2, -1))
            logits[..., self.label] -= 8 * changed
        return logits


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
        returned=f"{len(digits)} different digits",
        expected="at least five",
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
            returned=f"{high} and {low}",
            expected=f"{SIDE} rows or columns apart, at least",
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
    gaps = [((v[high] - v[low]).item(), v.std().item()) for (_, high, low), v in zip(pairs, sums, strict=True)]
    exchanged = seed is None and all(gap <= -0.99 * least for gap, least in gaps)
    for (number, _, _), (gap, least) in zip(pairs, gaps, strict=True):
        expect(
            gap >= 0.99 * least and gap > 0,
            f"For image {number} the map ({found['map']}, {whose}) does not say that the first square is high and the "
            + ("second low: it is the other way round." if gap < 0 else "second low: they are too close together."),
            actual=("not by the map", seed is None, exchanged),
            returned=f"{gap:.3g} apart",
            expected=f"at least {least:.3g}, one standard deviation over the squares",
        )


def values_of(found, pairs, network=READER):
    """For each pair, the measure at the high square less that at the low one."""
    items = []
    for number, *squares in pairs:
        for square in squares:
            items.append((Asked(network), DATA.test_images[number].clone(), DATA.test_labels[number].item(), square))
    values = expect_function_of_input(found["measure"], items)
    changed = False
    for model, image, _, (row, column) in items:
        expect(
            len(model.seen) > 0,
            "Your measure never asks the model that it is given.",
            actual="not asked",
            returned="no call of the model",
        )
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
    expect(
        changed,
        "Your measure never changes the image.",
        actual="unchanged",
        returned="the model asked about the images as they are",
    )
    return [high - low for high, low in zip(values[::2], values[1::2], strict=True)]


def expect_effect(found, effect, values, pairs):
    """Expect an effect as reported; if that of the control isn't, find out whether another network was measured."""
    try:
        expect_reported(found[effect], values, of=effect)
    except Mismatch:
        if effect == "control_effect":
            seed = whole(found["control_seed"], 2**31, "The control's seed")
            mean, half_width = estimate(values_of(found, pairs, random_digits_cnn(seed)))
            expect(
                abs(found[effect][0] - mean) > 0.1 * half_width,
                "Your control effect is what the untrained network gives. The trained one is to be measured here too: "
                "the map alone changes, and what is asked stays.",
                actual="measured untrained",
                returned=f"{found[effect][0]:.4g}, as in the untrained network",
                expected=f"{estimate(values)[0]:.4g}, in the trained network",
            )
        raise


@contextlib.contextmanager
def not_counted(answer):
    """How many calls a check makes here depends on the number of images; a mistake is the same one with any number."""
    try:
        yield
    finally:
        answer.n_calls = 0


def measured(measure, number, squares):
    image, label = DATA.test_images[number], DATA.test_labels[number].item()
    return [float(measure(Asked(), image.clone(), label, square)) for square in squares]


def expect_direction(measure, pairs):
    """Expect the measure to be larger for a network that rests on the square than for one that rests on nothing."""
    resting, free = [], []
    ink = square_sums(DATA.test_images[:, 0])
    # A square neither empty nor full: then it changes, whatever it is covered with.
    grey = sorted(((abs(ink[number][square].item() - 2), number, square) for number, square, _ in pairs))
    for _, number, square in grey[:4]:
        image, label = DATA.test_images[number], DATA.test_labels[number].item()
        for values, model in ((resting, RestsOnASquare(image, label, square)), (free, RestsOnASquare(image, label))):
            values.append(float(measure(model, image.clone(), label, square)))
    expect(
        sum(resting) > sum(free),
        "A network was planted whose logit for the label falls with every change of the square, and beside it one that "
        "does not look at the image. Your measure is no larger for the first.",
        actual=("direction", sum(resting) < sum(free)),
        returned=f"{sum(resting) / len(grey[:4]):.3g} where the network rests on the square",
        expected=f"more than {sum(free) / len(grey[:4]):.3g}, as where it does not",
    )


def expect_not_by_the_network(found, pairs, effects):
    """Expect that neither squares nor images were chosen for what the measure says about them."""
    numbers = tuple(range(len(DATA.test_labels)))
    sums = sums_of_map(found["map"], None, numbers).flatten(1)
    gaps = sums[:, :, None] - sums[:, None, :]
    fits = comparable_squares(DATA.test_images) & (gaps >= 0.99 * sums.std(1)[:, None, None])
    if not all(fits[n, high[0] * 7 + high[1], low[0] * 7 + low[1]] for n, high, low in pairs):
        return  # that something else chose them is another check's business
    gaps = gaps.masked_fill(~fits, -torch.inf)
    n_fit, (widest, where) = fits.flatten(1).sum(1), gaps.flatten(1).max(1)
    # A pair that the map tells apart best is chosen by the map. Of ten or more, the most telling comes up by chance in
    # one image of ten at most.
    most_telling, looked_at = 0, 0
    for (number, high, low), effect in zip(pairs, effects, strict=True):
        first, second = high[0] * 7 + high[1], low[0] * 7 + low[1]
        if n_fit[number] < 10 or gaps[number, first, second] > 0.999 * widest[number] or looked_at == 10:
            continue
        looked_at += 1
        used = fits[number].any(0) | fits[number].any(1)
        values = torch.zeros(49)
        values[used] = torch.tensor(
            measured(found["measure"], number, [divmod(k, 7) for k in used.nonzero()[:, 0].tolist()])
        )
        best = (values[:, None] - values)[fits[number]].max().item()
        most_telling += effect >= best - 1e-4 * abs(best)
    expect(
        looked_at < 8 or most_telling < 0.75 * looked_at,
        "Your pairs are not those that the map tells apart best, and nearly all of them are those of the largest "
        "effect: they seem to be chosen by what the network does.",
        actual="squares by the network",
        returned=f"the largest effect of all pairs that qualify, in {most_telling} of {looked_at} images",
        expected="in a few",
    )
    digits = {DATA.test_labels[number].item() for number, _, _ in pairs}
    chosen = {number for number, _, _ in pairs}
    left_out = [
        number
        for number in range(max(chosen))
        if n_fit[number] > 0 and number not in chosen and DATA.test_labels[number].item() in digits
    ]
    left_out = left_out[:: 1 + len(left_out) // 40]
    rest = []
    for number in left_out:
        high, low = measured(found["measure"], number, [divmod(k, 7) for k in divmod(where[number].item(), 49)])
        rest.append(high - low)
    table = [[sum(e > 0 for e in some), sum(e <= 0 for e in some)] for some in (effects, rest)]
    expect(
        len(rest) < 5 or fisher_exact(table, alternative="greater").pvalue > 1e-6,
        "In the images that you left out, the effect is negative far more often than in those that you took: they seem "
        "to be chosen by what the network does.",
        actual="images by the network",
        returned=f"{table[0][0]} of {len(effects)} effects positive in yours",
        expected=f"as in the others, {table[1][0]} of {len(rest)}",
    )


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
        with not_counted(answer):
            for kind, effect in KINDS.items():
                pairs = pairs_of(found, kind)
                expect_effect(found, effect, values_of(found, pairs), pairs)

    def test_direction(self, answer):
        "the measure is larger where a network depends more on the square"
        found = design_of(answer, KEYS)
        expect_direction(found["measure"], pairs_of(found, "pairs"))

    def test_choice(self, answer):
        "squares and images are chosen by the map, and not by what the network does"
        found = design_of(answer, KEYS)
        pairs = pairs_of(found, "pairs")
        with not_counted(answer):
            squares = [measured(found["measure"], number, squares) for number, *squares in pairs]
            expect_not_by_the_network(found, pairs, [high - low for high, low in squares])

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
