"""Case 01c: does an attribution map know the network, or only the picture?"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.attribution.backward_rules import grad_cam, guided_backprop
from utils.attribution.gradients import gradient_saliency, integrated_gradients
from utils.course.cases import estimate
from utils.models.digits_cnn import digits_data, load_digits_cnn, random_digits_cnn

Map = Callable[[nn.Module, Float[Tensor, "batch 1 8 8"], Int[Tensor, " batch"]], Float[Tensor, "batch 8 8"]]

# The maps that can be put to the test, each a function of (model, images, classes).
MAPS: dict[str, Map] = {
    "gradient": lambda model, images, classes: gradient_saliency(model, images, classes)[:, 0],
    "integrated gradients": lambda model, images, classes: integrated_gradients(model, images, classes, n_steps=16)[
        :, 0
    ],
    "guided backpropagation": lambda model, images, classes: guided_backprop(model, images, classes)[:, 0],
    "Grad-CAM": lambda model, images, classes: grad_cam(model, images, classes, "conv3"),
}
SIDE, INK_TOLERANCE = 2, 0.25


def square_sums(maps: Float[Tensor, "batch 8 8"]) -> Float[Tensor, "batch 7 7"]:
    """Sum over each square of 2 by 2 pixels; entry (row, column) is that of the square with its corner there."""
    return F.avg_pool2d(maps[:, None], SIDE, stride=1)[:, 0] * SIDE**2


def comparable_squares(images: Float[Tensor, "batch 1 8 8"]) -> Tensor:
    """Which two squares of an image can be compared: they share no pixel, and hold the same ink to within 0.25.

    Returns:
        Truth values [batch, first square, second square]; square number 7 * row + column has its corner at (row,
        column).
    """
    ink = square_sums(images[:, 0]).flatten(1)
    row, column = torch.arange(49) // 7, torch.arange(49) % 7
    apart = ((row[:, None] - row).abs() >= SIDE) | ((column[:, None] - column).abs() >= SIDE)
    return apart & ((ink[:, :, None] - ink[:, None, :]).abs() <= INK_TOLERANCE)


def does_the_map_know_the_network() -> dict:
    """Does this network depend more on a square where the map is high than on one of equal ink where it is low?

    Choose one of ``MAPS`` and design an experiment that would come out differently if the map knew only the picture.
    A square has 2 by 2 pixels and is named by its upper left corner (row, column), each from 0 to 6.

    Returns:
        A dict with

        - "map": the name of the map, one of ``MAPS``;
        - "pairs": at least 20 pairs (number, high, low), each from another held-out image, of at least five different
          digits: the image's number in ``digits_data().test_images``, and two squares that ``comparable_squares``
          allows. The sum of the trained network's map (for the image's own class) is larger in ``high`` than in
          ``low``, by at least one standard deviation of the ``square_sums`` over the 49 squares of this image. Choose
          by map and ink, not by what the network does;
        - "control_seed", "control_pairs": the same, with squares chosen by the same kind of map of the untrained
          network ``random_digits_cnn(control_seed)``;
        - "measure": a function of (model, image [1, 8, 8], label, square) that gives one number, larger where the
          model depends more on the square. The label, an int, is the image's own class. The measure asks the model
          about this image, changed within the square only, and unchanged; it does not differentiate;
        - "effect": measure(high) - measure(low) for the trained network (``load_digits_cnn``), as (mean, half-width of
          its 95 % interval over the images), as ``estimate`` computes it;
        - "control_effect": the same over the control pairs. The network that is measured is the trained one here, too;
        - "verdict": "network" if the effect is positive and larger than the control's, both beyond chance: 0 lies below
          the interval of the effect, and below that of the difference (its half-width is the root of the sum of the
          two half-widths' squares). Otherwise "not shown".
    """
    data, reader = digits_data(), load_digits_cnn()
    name, seed = "integrated gradients", 0
    images, labels = data.test_images[:40], data.test_labels[:40]
    allowed = comparable_squares(images)

    def pairs_by(model):
        sums = square_sums(MAPS[name](model, images, labels)).flatten(1)
        gaps = (sums[:, :, None] - sums[:, None, :]).masked_fill(~allowed, -torch.inf)
        largest, where = gaps.flatten(1).max(1)
        return [
            (i, divmod(where[i].item() // 49, 7), divmod(where[i].item() % 49, 7))
            for i in range(len(images))
            if largest[i] > 1.05 * sums[i].std()
        ]

    def drop(model, image, label, square):
        row, column = square
        covered = image.clone()
        covered[:, row : row + 2, column : column + 2] = 0
        with torch.no_grad():
            before, after = model(torch.stack([image, covered]))[:, label].tolist()
        return before - after

    def differences(pairs):
        found = []
        for i, high, low in pairs:
            at_high, at_low = (drop(reader, images[i], labels[i].item(), square) for square in (high, low))
            found.append(at_high - at_low)
        return found

    pairs, control_pairs = pairs_by(reader), pairs_by(random_digits_cnn(seed))
    return {
        "map": name,
        "pairs": pairs,
        "control_seed": seed,
        "control_pairs": control_pairs,
        "measure": drop,
        "effect": estimate(differences(pairs)),
        "control_effect": estimate(differences(control_pairs)),
        "verdict": "network",
    }
