from functools import lru_cache

import torch

from utils.attribution.case_01c import (
    MAPS,
    comparable_squares,
    does_the_map_know_the_network,
    square_sums,
)
from utils.attribution.gradients import integrated_gradients
from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.models.digits_cnn import digits_data, load_digits_cnn, random_digits_cnn

DATA, READER = digits_data(), load_digits_cnn()
IG = "integrated gradients"


@lru_cache(maxsize=1)
def reference():
    return does_the_map_know_the_network()


def covered_by(value, image, square, side=2):
    row, column = square
    covered = image.clone()
    covered[:, row : row + side, column : column + side] = value
    return covered


def drop(model, image, label, square, side=2):
    with torch.no_grad():
        before, after = model(torch.stack([image, covered_by(0, image, square, side)]))[:, label].tolist()
    return before - after


def squares_chosen(scores, sums, numbers):
    """The two squares of each image with the largest score [image, first, second] that lie far apart on the map."""
    gaps = sums[:, :, None] - sums[:, None, :]
    scores = scores.masked_fill(gaps <= 1.05 * sums.std(1)[:, None, None], -torch.inf)
    best, where = scores.flatten(1).max(1)
    return [
        (number, divmod(w // 49, 7), divmod(w % 49, 7))
        for number, w, b in zip(numbers, where.tolist(), best.tolist(), strict=True)
        if b > -torch.inf
    ]


@lru_cache(maxsize=16)
def pairs_by(name, seed, numbers, matched=True):
    """For each image the two squares that lie farthest apart on the map, of equal ink or of any."""
    model = READER if seed is None else random_digits_cnn(seed)
    images, labels = DATA.test_images[list(numbers)], DATA.test_labels[list(numbers)]
    sums = square_sums(MAPS[name](model, images, labels)).flatten(1)
    gaps = sums[:, :, None] - sums[:, None, :]
    if matched:
        gaps = gaps.masked_fill(~comparable_squares(images), -torch.inf)
    return squares_chosen(gaps, sums, numbers)


def measured(measure, pairs):
    def at(number, square):
        return measure(READER, DATA.test_images[number], DATA.test_labels[number].item(), square)

    return [at(number, high) - at(number, low) for number, high, low in pairs]


def designed(name, pairs, control_pairs, verdict, measure=drop, seed=0, **changes):
    return {
        "map": name,
        "pairs": pairs,
        "control_seed": seed,
        "control_pairs": control_pairs,
        "measure": measure,
        "effect": estimate(measured(measure, pairs)),
        "control_effect": estimate(measured(measure, control_pairs)),
        "verdict": verdict,
    } | changes


FEW = tuple(range(40))


@wrong(
    "does_the_map_know_the_network",
    "The two squares of some of your pairs differ in ink. Where one lies on a stroke and the other on paper, any map "
    "of the strokes would win, as covering paper with paper does nothing. Compare squares of equal ink: those that "
    "`comparable_squares` of the held-out images allows, each as (row, column).",
)
def brightest_against_darkest():
    pairs = pairs_by("guided backpropagation", None, FEW, matched=False)
    return designed("guided backpropagation", pairs, pairs_by("guided backpropagation", 0, FEW), "network")


@wrong(
    "does_the_map_know_the_network",
    "You take several pairs from each image. Squares of one image share its strokes and its class, so that the images "
    "are the independent units, and your interval is too narrow.",
)
def several_pairs_an_image():
    images = DATA.test_images[:12]
    sums = square_sums(MAPS[IG](READER, images, DATA.test_labels[:12])).flatten(1)
    gaps = (sums[:, :, None] - sums[:, None, :]).masked_fill(~comparable_squares(images), -torch.inf)
    first = squares_chosen(gaps, sums, FEW[:12])
    for number, high, _ in first:
        gaps[number, high[0] * 7 + high[1]] = -torch.inf
    return designed(IG, first + squares_chosen(gaps, sums, FEW[:12]), pairs_by(IG, 0, FEW), "network")


@wrong(
    "does_the_map_know_the_network",
    "Something else chose your squares than the trained network's map of the kind that you name, for the image's own "
    "class: in some of your pairs it hardly tells the two apart, or says the opposite. If it was what the network "
    "does, you will find that the network does it. Let the map choose, and measure afterwards.",
)
def chosen_by_the_outcome():
    images = DATA.test_images[:40]
    covered = torch.stack([covered_by(0, images[:, 0], divmod(k, 7)) for k in range(49)], dim=1)
    with torch.no_grad():
        after = READER(covered.view(-1, 1, 8, 8)).view(40, 49, 10)
    drops = -after.gather(2, DATA.test_labels[:40, None, None].expand(40, 49, 1))[:, :, 0]
    sums = square_sums(MAPS[IG](READER, images, DATA.test_labels[:40])).flatten(1)
    allowed = comparable_squares(images) & (sums[:, :, None] > sums[:, None, :])
    where = (drops[:, :, None] - drops[:, None, :]).masked_fill(~allowed, -torch.inf).flatten(1).argmax(1).tolist()
    pairs = [(i, divmod(w // 49, 7), divmod(w % 49, 7)) for i, w in zip(FEW, where, strict=True)]
    return designed(IG, pairs, pairs_by(IG, 0, FEW), "network")


@wrong(
    "does_the_map_know_the_network",
    "Your measure differentiates the network, as a map does. That one map is high where another is high, or itself, "
    "says nothing about what the network depends on: cover the square and ask.",
)
def measured_by_the_map():
    def in_square(model, image, label, square):
        row, column = square
        parts = integrated_gradients(model, image[None], torch.tensor([label]), n_steps=8)
        return parts[0, 0, row : row + 2, column : column + 2].sum().item()

    return designed(IG, pairs_by(IG, None, FEW[:24]), pairs_by(IG, 0, FEW[:24]), "network", measure=in_square)


@wrong(
    "does_the_map_know_the_network",
    "Your measure changes more than the two by two pixels of the square. What lies around it was never matched in ink, "
    "and may be what the network misses, or what it goes by.",
)
def covers_the_surroundings():
    def wide(model, image, label, square):
        return drop(model, image, label, (max(0, square[0] - 1), max(0, square[1] - 1)), side=4)

    return designed(IG, pairs_by(IG, None, FEW), pairs_by(IG, 0, FEW), "network", measure=wide)


@wrong(
    "does_the_map_know_the_network",
    "Your control pairs are not chosen by the untrained network's map of the kind that you name, which in some of "
    "them hardly tells the squares apart, or says the opposite. Pairs by the trained network's map, or by another "
    "kind, leave the question open: would this map do as well if its network knew nothing?",
)
def control_exchanged():
    pairs = pairs_by(IG, None, FEW)
    return designed(IG, pairs, [(number, low, high) for number, high, low in pairs], "network")


@wrong(
    "does_the_map_know_the_network",
    "Grad-CAM is smooth and sits on the digit, and it looks right. Your own numbers don't show it beyond chance: the "
    "interval of the effect, or that of its distance from the control, includes zero. A larger mean alone is not "
    "enough.",
)
def believes_the_look():
    return designed("Grad-CAM", pairs_by("Grad-CAM", None, FEW), pairs_by("Grad-CAM", 0, FEW), "network")


@wrong(
    "does_the_map_know_the_network",
    "The half-width that you hand in is the standard deviation over images: how much they differ, and not how well "
    "their mean is known. `estimate` gives the interval.",
)
def spread_in_place_of_interval():
    values = torch.tensor(measured(drop, reference()["pairs"]), dtype=torch.float64)
    return reference() | {"effect": (values.mean().item(), values.std().item())}


@wrong(
    "does_the_map_know_the_network",
    "In all your pairs the low square stands first: a pair is (number, high, low).",
)
def low_square_first():
    pairs, control = ([(i, low, high) for i, high, low in pairs_by(IG, seed, FEW)] for seed in (None, 0))
    return designed(IG, pairs, control, "not shown")


@wrong(
    "does_the_map_know_the_network",
    "Among the pairs that the map allows, you take those for which the network's answer differs most, and then find "
    "that it differs. Take those that the map tells apart best, or draw lots among the allowed; measure afterwards.",
)
def most_telling_of_the_allowed():
    images, labels = DATA.test_images[:40], DATA.test_labels[:40]
    covered = torch.stack([covered_by(0, images[:, 0], divmod(k, 7)) for k in range(49)], dim=1)
    with torch.no_grad():
        after = READER(covered.view(-1, 1, 8, 8)).view(40, 49, 10)
    drops = -after.gather(2, labels[:, None, None].expand(40, 49, 1))[:, :, 0]
    sums = square_sums(MAPS["Grad-CAM"](READER, images, labels)).flatten(1)
    telling = (drops[:, :, None] - drops[:, None, :]).masked_fill(~comparable_squares(images), -torch.inf)
    pairs = squares_chosen(telling, sums, FEW)
    return designed("Grad-CAM", pairs, pairs_by("Grad-CAM", 0, FEW), "network")


@wrong(
    "does_the_map_know_the_network",
    "For the control you measure the untrained network. Two things change at once then, who draws the map and who is "
    "asked: ask the trained network in both.",
)
def control_asks_the_untrained():
    pairs, untrained = pairs_by(IG, 0, FEW), random_digits_cnn(0)

    def asked_untrained(model, image, label, square):
        return drop(untrained, image, label, square)

    control_effect = estimate(measured(asked_untrained, pairs))
    return designed(IG, pairs_by(IG, None, FEW), pairs, "network", control_effect=control_effect)


@wrong(
    "does_the_map_know_the_network",
    "You leave out images because of what the network does in them, and what is left shows the effect. Choose the "
    "images before you measure, and keep all in which the map allows a pair.",
)
def images_that_agree():
    name = "guided backpropagation"
    pairs = pairs_by(name, None, tuple(range(100)))
    pairs = [pair for pair, effect in zip(pairs, measured(drop, pairs), strict=True) if effect > 0]
    return designed(name, pairs, pairs_by(name, 0, tuple(range(100))), "network")


@wrong(
    "does_the_map_know_the_network",
    "Your measure has the wrong sign: covered minus whole is the smaller, the more the model depends on the square. "
    "Turn it round, so that larger means more.",
)
def covered_minus_whole():
    def rise(model, image, label, square):
        return -drop(model, image, label, square)

    return designed(IG, pairs_by(IG, None, FEW), pairs_by(IG, 0, FEW), "not shown", measure=rise)


@right("does_the_map_know_the_network")
def drawn_from_the_allowed():
    """A pair that is drawn from all that the map allows, in images drawn at random."""
    numbers = torch.randperm(len(DATA.test_labels), generator=torch.Generator().manual_seed(5))[:60].tolist()

    def lots(seed):
        model = READER if seed is None else random_digits_cnn(seed)
        images, labels = DATA.test_images[numbers], DATA.test_labels[numbers]
        sums = square_sums(MAPS["gradient"](model, images, labels)).flatten(1)
        scores = torch.rand(len(numbers), 49, 49, generator=torch.Generator().manual_seed(6))
        return squares_chosen(scores.masked_fill(~comparable_squares(images), -torch.inf), sums, numbers)

    return designed("gradient", lots(None), lots(0), "network")


@right("does_the_map_know_the_network")
def grad_cam_not_shown():
    """Another map, with the other verdict, and pairs as lists."""
    later = tuple(range(100, 180))
    pairs = [[number, list(high), list(low)] for number, high, low in pairs_by("Grad-CAM", None, later)]
    return designed("Grad-CAM", pairs, pairs_by("Grad-CAM", 3, later), "not shown", seed=3)


@right("does_the_map_know_the_network")
def filled_with_the_mean_image():
    """The square is taken from the mean of the training images, and the log odds of the class are watched."""
    mean_image = DATA.train_images.mean(0)

    def lost_odds(model, image, label, square):
        row, column = square
        place = (slice(None), slice(row, row + 2), slice(column, column + 2))
        typical = image.clone()
        typical[place] = mean_image[place]
        with torch.no_grad():
            logits = model(torch.stack([image, typical])).double()
        others = torch.arange(10) != label
        log_odds = logits[:, label] - logits[:, others].logsumexp(1)
        return (log_odds[0] - log_odds[1]).item()

    return designed(IG, pairs_by(IG, None, FEW), pairs_by(IG, 1, FEW), "network", measure=lost_odds, seed=1)


@right("does_the_map_know_the_network")
def covered_with_ink():
    """Ink in place of paper: the map from paper does not know about that, and the verdict says so."""

    def drop_by_ink(model, image, label, square):
        with torch.no_grad():
            before, after = model(torch.stack([image, covered_by(1, image, square)]))[:, label].tolist()
        return before - after

    return designed(IG, pairs_by(IG, None, FEW), pairs_by(IG, 0, FEW), "not shown", measure=drop_by_ink)
