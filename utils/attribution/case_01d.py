"""Case 01d: units of the trained network go with a digit. Is that the network's, or the images'?"""

from collections.abc import Sequence
from functools import cache

import torch
from jaxtyping import Float
from torch import Tensor

from utils.models.digits_cnn import DigitsCNN, digits_data, load_digits_cnn, random_digits_cnn

INK_TOLERANCE = 0.5


def ink_of(images: Float[Tensor, "image 1 8 8"]) -> Float[Tensor, " image"]:
    """How much ink is in each image, in pixels of full ink."""
    return images.sum((1, 2, 3))


def unit_activations(model: DigitsCNN, images: Float[Tensor, "image 1 8 8"]) -> Float[Tensor, "image unit"]:
    """What each of the 144 units of a digits network says to each image.

    Units 0 to 79 are the channels of the three convolutions, averaged over the image; the last 64 are the hidden layer
    before the logits.
    """
    with torch.no_grad():
        first = model.relu1(model.conv1(images))
        second = model.relu2(model.conv2(first))
        third = model.relu3(model.conv3(model.pool(second)))
        hidden = model.relu4(model.fc1(model.flatten(model.average(third))))
        return torch.cat([*(maps.mean((2, 3)) for maps in (first, second, third)), hidden], dim=1)


def activations_of_pairs(model: DigitsCNN, pairs: Sequence[tuple[int, int]]) -> Float[Tensor, "image unit"]:
    """``unit_activations`` of the held-out images of pairs: first and second of pair 0, those of pair 1, and so on."""
    return unit_activations(model, _held_out_images()[torch.tensor(pairs).flatten()])


@cache
def _held_out_images() -> Float[Tensor, "image 1 8 8"]:
    return digits_data().test_images


def whose_discovery() -> dict:
    """Units of the trained network go with a digit. Is that chance, the images', or what the network has learnt?

    Choose a digit and a statistic, and design an experiment that would come out differently in the three cases.

    Returns:
        A dict with

        - "digit": the digit, 0 to 9;
        - "pairs": at least 20 pairs (number, number) of images in ``digits_data().test_images``: the first shows the
          digit, the second another one, and their ink (``ink_of``) differs by at most 0.5. No image occurs twice, and
          the second images show at least five different digits;
        - "measure": a function of (activations [image, unit], labels [image], 1.0 or 0.0) that gives one number for
          the whole network: the larger, the more closely its units go with the labels. Images are in the order of
          ``activations_of_pairs``, and the true labels are 1, 0, 1, 0, …;
        - "labellings": at least 20 rows of labels [image] in which the labels are dealt out anew, for the first null.
          What may be exchanged are the two labels within a pair, each with probability one half, and nothing else;
        - "random_seeds": the seeds of at least 20 different networks ``random_digits_cnn(seed)``, for the second null;
        - "p_shuffled": (1 + b) / (1 + n), where b of the n labellings give the trained network at least as large a
          measure as the true labels do;
        - "p_random": (1 + b) / (1 + n), where b of the n random networks have, with the true labels, at least as large
          a measure as the trained one;
        - "control": does the trained network stand out with labels that mean nothing? For each of the first ten
          labellings the share of random networks whose measure with it is larger than the trained network's, plus half
          of those where it is equal; the mean of the ten. It is to be at least 0.25;
        - "verdict": "chance" if p_shuffled is above 0.05; else "the images" if p_random is above 0.05; else "the
          network".
    """
    data = digits_data()
    digit = 8
    ink, labels = ink_of(data.test_images), data.test_labels
    others, pairs = (labels != digit).nonzero()[:, 0].tolist(), []
    for number in (labels == digit).nonzero()[:, 0].tolist():
        nearest = min(others, key=lambda other: abs(float(ink[other] - ink[number])))
        if abs(float(ink[nearest] - ink[number])) <= 0.5:
            pairs.append((number, nearest))
            others.remove(nearest)

    def strongest(activations, labels):
        """The largest |t| of all units: 144 looks, and one number."""
        columns = activations - activations.mean(0)
        columns = columns / columns.norm(dim=0).clamp_min(1e-12)
        centred = labels - labels.mean()
        r = ((centred / centred.norm()) @ columns).abs().max()
        return (r * ((len(labels) - 2) / (1 - r**2)).sqrt()).item()

    generator = torch.Generator().manual_seed(0)
    labellings = []
    for _ in range(39):
        first = torch.randint(2, (len(pairs),), generator=generator).float()
        labellings.append(torch.stack([first, 1 - first], dim=1).flatten())

    seeds = list(range(39))
    trained = activations_of_pairs(load_digits_cnn(), pairs)
    random = [activations_of_pairs(random_digits_cnn(seed), pairs) for seed in seeds]
    true = torch.tensor([1.0, 0.0]).repeat(len(pairs))
    found = strongest(trained, true)
    shuffled = [strongest(trained, labelling) for labelling in labellings]
    p_shuffled = (1 + sum(value >= found for value in shuffled)) / (1 + len(labellings))
    p_random = (1 + sum(strongest(each, true) >= found for each in random)) / (1 + len(seeds))
    shares = []
    for labelling, value in zip(labellings[:10], shuffled[:10], strict=True):
        rivals = [strongest(each, labelling) for each in random]
        shares.append(sum((rival > value) + 0.5 * (rival == value) for rival in rivals) / len(rivals))
    return {
        "digit": digit,
        "pairs": pairs,
        "measure": strongest,
        "labellings": labellings,
        "random_seeds": seeds,
        "p_shuffled": p_shuffled,
        "p_random": p_random,
        "control": sum(shares) / len(shares),
        "verdict": "chance" if p_shuffled > 0.05 else "the images" if p_random > 0.05 else "the network",
    }
