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
    "You compare the highest square of the map with its lowest, and the highest lies on a stroke, the lowest often on "
    "paper. Covering paper with paper does nothing, so any map of the strokes would win. Compare squares of equal ink.",
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
    "You chose the squares by what the network does, and then found that the network does it. In some of your pairs "
    "the map hardly tells the two squares apart: let the map choose, and measure afterwards.",
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
    "Your measure is the map itself, summed over the square. That the map is high where it is high needs no network: "
    "cover the square and ask.",
)
def measured_by_the_map():
    def in_square(model, image, label, square):
        row, column = square
        parts = integrated_gradients(model, image[None], torch.tensor([label]), n_steps=8)
        return parts[0, 0, row : row + 2, column : column + 2].sum().item()

    return designed(IG, pairs_by(IG, None, FEW[:24]), pairs_by(IG, 0, FEW[:24]), "network", measure=in_square)


@wrong(
    "does_the_map_know_the_network",
    "Your measure covers four by four pixels, and the squares have two by two. What lies around the square was never "
    "matched in ink, and may be what the network misses.",
)
def covers_the_surroundings():
    def wide(model, image, label, square):
        return drop(model, image, label, (max(0, square[0] - 1), max(0, square[1] - 1)), side=4)

    return designed(IG, pairs_by(IG, None, FEW), pairs_by(IG, 0, FEW), "network", measure=wide)


@wrong(
    "does_the_map_know_the_network",
    "Your control pairs are those of the trained network's map with high and low exchanged. Of course they show the "
    "opposite. The control has to ask whether a map that knows nothing would do as well: that of an untrained network.",
)
def control_exchanged():
    pairs = pairs_by(IG, None, FEW)
    return designed(IG, pairs, [(number, low, high) for number, high, low in pairs], "network")


@wrong(
    "does_the_map_know_the_network",
    "Grad-CAM is smooth and sits on the digit, and it looked right. Your own numbers don't show it: between squares of "
    "equal ink the network hardly prefers those where this map is high.",
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
