"""Case 01e: does a channel that sevens excite most answer to the digit, or to ink?"""

from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from utils.course.cases import estimate
from utils.models.digits_cnn import digits_data, load_digits_cnn
from utils.start.tools import record_activation

network = cache(load_digits_cnn)  # asked about one image at a time, some thousand times


@cache
def busiest_channel() -> int:
    """The channel of the third convolution whose mean activation varies most over the training digits."""
    with torch.no_grad():
        maps = record_activation(network(), "relu3", digits_data().train_images)
    return int(maps.mean((2, 3)).std(0).argmax())


def channel_activation(images: Float[Tensor, "image 1 height width"]) -> Float[Tensor, "image"]:
    """How strongly ``busiest_channel`` answers to each image: its activation, averaged over places."""
    with torch.no_grad():
        maps = record_activation(network(), "relu3", images)
    return maps[:, busiest_channel()].mean((1, 2))


def what_the_channel_answers_to() -> dict:
    """Does the channel answer to what the digit is, to the amount of ink, to both or to neither?

    The sum of an image's pixels is its ink. Compare real, held-out digits that differ in one of the two, and not in the
    other. Images go by their numbers in ``digits_data().test_images``; a pair is (first, second).

    Returns:
        A dict with

        - "digit_pairs": at least 12 pairs: another digit first, a seven second, whose inks differ by at most 5 % of the
          first's;
        - "ink_pairs": at least 12 pairs of the same digit, whose ink grows by at least 20 % from first to second;
        - "control_pairs": at least 12 pairs of the same digit, whose inks differ by at most 5 % of the first's;
        - "measure": a function of (activation, image) that gives one number; ``activation`` is a function such as
          ``channel_activation``, and whatever else may be handed in for it; ``image`` has the shape [1, 8, 8]. Two
          images with the same activation get the same number;
        - "digit_effect", "ink_effect", "control_effect": the mean change of the measure from first to second over the
          pairs of each kind, as (mean, half-width of its 95 % interval), as ``estimate`` computes it;
        - "verdict": "the digit", "ink", "both" or "neither": what moves the channel, by the intervals.

        Within a list no image is used twice.
    """
    digits = digits_data()
    ink, labels = digits.test_images.sum((1, 2, 3)).tolist(), digits.test_labels.tolist()

    def pairs_where(fits, wanted=60):
        found, used = [], set()
        for second in range(len(labels)):
            for first in range(len(labels)):
                if first != second and not {first, second} & used and fits(first, second):
                    found.append((first, second))
                    used |= {first, second}
                    break
        return found[:wanted]

    def alike(i, j):
        return abs(ink[j] - ink[i]) <= 0.05 * ink[i]

    def measure(activation, image):
        return activation(image[None]).item()

    def changes(pairs):
        values = channel_activation(digits.test_images)
        return [float(values[second] - values[first]) for first, second in pairs]

    digit_pairs = pairs_where(lambda i, j: labels[j] == 7 and labels[i] != 7 and alike(i, j))
    ink_pairs = pairs_where(lambda i, j: labels[i] == labels[j] and ink[j] >= 1.2 * ink[i])
    control_pairs = pairs_where(lambda i, j: labels[i] == labels[j] and alike(i, j))
    return {
        "digit_pairs": digit_pairs,
        "ink_pairs": ink_pairs,
        "control_pairs": control_pairs,
        "measure": measure,
        "digit_effect": estimate(changes(digit_pairs)),
        "ink_effect": estimate(changes(ink_pairs)),
        "control_effect": estimate(changes(control_pairs)),
        "verdict": "the digit",
    }
