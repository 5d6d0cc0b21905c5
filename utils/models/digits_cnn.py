"""A small convolutional network that reads handwritten digits: the subject of the attribution chapters."""

import json
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from tqdm.auto import tqdm

from utils.models.bundled import BUNDLED, read_model, write_model

FOLDER = BUNDLED / "digits-cnn"
TEST_PART = 4  # one image in four of each class is held out
EPOCHS, SHUFFLED_EPOCHS = 20, 40

CARD = """\
# digits-cnn

A convolutional network that reads handwritten digits of 8 by 8 pixels, for saliency maps and their sanity checks.

| | |
| --- | --- |
| data | scikit-learn's `load_digits` (Alpaydin and Kaynak 1998), pixels scaled to [0, 1] |
| split | fixed, a quarter of each class held out: {n_train:,} images for training, {n_test} for testing |
| architecture | three 3-by-3 convolutions of 16, 32 and 32 channels, max-pooling after the second, linear layers of \
64 and 10; `utils.models.digits_cnn.DigitsCNN` |
| parameters | {n_parameters:,} |
| recipe | `mi train digits-cnn`: AdamW, learning rate 0.002, weight decay 0.01, batches of 64, {n_epochs} epochs, \
seed {seed} |

Measured by the recipe (`measured.json`):

| | training images | held-out images |
| --- | --- | --- |
| accuracy | {train_accuracy:.3f} | {test_accuracy:.3f} |
| accuracy of a network trained for {shuffled_n_epochs} epochs on shuffled labels (not shipped) | \
{shuffled_train_accuracy:.3f} | {shuffled_test_accuracy:.3f} |

Known absences: it was trained without augmentation, on centred digits only, and never on an image without a digit.
"""


class DigitsCNN(nn.Module):
    """Three convolutions and two linear layers, from images of one channel to ten logits.

    Every ReLU is a module of its own, used once and not in place, so that a hook on it sees one place in the
    network (guided backpropagation, DeepLIFT). ``conv3`` gives the map for Grad-CAM: 32 channels at half the image's
    height and width, 4 by 4 for the images that the network was trained on. A larger map is averaged down to 4 by 4
    before the linear layers, so that other image sizes go through as well.

    Modules, from the input to the logits: conv1, relu1, conv2, relu2, pool, conv3, relu3, average, flatten, fc1, relu4,
    fc2.
    """

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=3, padding=1)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(16, 32, kernel_size=3, padding=1)
        self.relu2 = nn.ReLU()
        self.pool = nn.MaxPool2d(2)
        self.conv3 = nn.Conv2d(32, 32, kernel_size=3, padding=1)
        self.relu3 = nn.ReLU()
        self.average = nn.AdaptiveAvgPool2d(4)
        self.flatten = nn.Flatten()
        self.fc1 = nn.Linear(32 * 4 * 4, 64)
        self.relu4 = nn.ReLU()
        self.fc2 = nn.Linear(64, 10)

    def forward(self, images: Float[Tensor, "batch 1 height width"]) -> Float[Tensor, "batch 10"]:
        """Logits of the digits 0 to 9.

        Args:
            images: 0 is paper, 1 is ink; at least 2 by 2.

        Raises:
            ValueError: If ``images`` does not have this shape.
        """
        if images.ndim != 4 or images.shape[1] != 1 or min(images.shape[2:]) < 2:
            raise ValueError(f"images must be [batch, 1, height, width], at least 2 by 2, got {tuple(images.shape)}")
        maps = self.relu2(self.conv2(self.relu1(self.conv1(images))))
        maps = self.relu3(self.conv3(self.pool(maps)))
        return self.fc2(self.relu4(self.fc1(self.flatten(self.average(maps)))))


class DigitsData(NamedTuple):
    """Images with pixels in [0, 1] (0 is paper, 1 is ink) and their digits."""

    train_images: Float[Tensor, "train 1 8 8"]
    train_labels: Int[Tensor, " train"]
    test_images: Float[Tensor, "test 1 8 8"]
    test_labels: Int[Tensor, " test"]


class TrainedDigits(NamedTuple):
    """What a training run gives.

    Attributes:
        model: In evaluation mode.
        losses: Mean training loss of each epoch, in nats.
        train_accuracy: On the labels that it was trained with, shuffled or not.
        test_accuracy: On the true labels of the held-out images.
    """

    model: DigitsCNN
    losses: list[float]
    train_accuracy: float
    test_accuracy: float


def digits_data() -> DigitsData:
    """The 1,797 handwritten digits of 8 by 8 pixels that come with scikit-learn, a quarter of each class held out.

    The split is always the same.

    Source: Alpaydin and Kaynak (1998), "Optical Recognition of Handwritten Digits", UCI machine learning repository.
    """
    from sklearn.datasets import load_digits  # takes a second, and most chapters never need it

    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) / 16
    labels = torch.from_numpy(digits.target).long()
    shuffled = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    for digit in range(10):
        of_digit = shuffled[labels[shuffled] == digit]
        held_out[of_digit[: len(of_digit) // TEST_PART]] = True
    return DigitsData(images[~held_out], labels[~held_out], images[held_out], labels[held_out])


def random_digits_cnn(seed: int) -> DigitsCNN:
    """An untrained network, in evaluation mode; the global random state is neither used nor changed.

    Args:
        seed: Weights are drawn from it, normal with variance 2 / (inputs of a unit); biases are zero.

    Source: He et al. (2015), "Delving Deep into Rectifiers", equation 10. From PyTorch's default, narrower weights,
    learning shuffled labels takes twice as long.
    """
    generator = torch.Generator().manual_seed(seed)
    with torch.device("meta"):
        model = DigitsCNN()
    model.to_empty(device="cpu")
    for layer in model.children():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu", generator=generator)
            nn.init.zeros_(layer.bias)
    return model.eval()


def train_digits_cnn(
    seed: int, *, shuffle_labels: bool = False, n_epochs: int = EPOCHS, progress: bool = False
) -> TrainedDigits:
    """Train the network on ``digits_data()`` with AdamW.

    Args:
        seed: Of the initial weights, the order of the images, and the shuffling of labels.
        shuffle_labels: Give the training images each other's labels. Nothing is left to learn but the images
            themselves: the network that a saliency map should look different for (Adebayo et al. 2018, section 4).
        n_epochs: Passes over the training images, each about 0.4 s on one core. Shuffled labels are learnt in 40.
        progress: Show a progress bar on stderr.

    Raises:
        ValueError: If ``n_epochs`` is below 1.
    """
    if n_epochs < 1:
        raise ValueError(f"n_epochs must be at least 1, got {n_epochs}")
    data = digits_data()
    generator = torch.Generator().manual_seed(seed)
    labels = data.train_labels
    if shuffle_labels:
        labels = labels[torch.randperm(len(labels), generator=generator)]
    model = random_digits_cnn(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.01)
    losses = []
    for _ in tqdm(range(n_epochs), desc="digits-cnn", unit="epoch", disable=not progress):
        losses.append(_train_epoch(model, optimizer, data.train_images, labels, generator))
    return TrainedDigits(
        model, losses, accuracy(model, data.train_images, labels), accuracy(model, data.test_images, data.test_labels)
    )


def accuracy(model: nn.Module, images: Float[Tensor, "batch 1 height width"], labels: Int[Tensor, " batch"]) -> float:
    """Share of the images whose largest logit is their label's."""
    with torch.no_grad():
        return (model(images).argmax(dim=-1) == labels).float().mean().item()


def _train_epoch(
    model: DigitsCNN, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, generator: torch.Generator
) -> float:
    """One pass in batches of 64, in a new order; the mean loss."""
    total = 0.0
    for batch in torch.randperm(len(labels), generator=generator).split(64):
        loss = F.cross_entropy(model(images[batch]), labels[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        total += loss.item() * len(batch)
    return total / len(labels)


def load_digits_cnn(folder: Path = FOLDER) -> DigitsCNN:
    """The trained network that ships with the course, in evaluation mode.

    Raises:
        utils.models.bundled.ModelFileError: If a file is missing or damaged.
    """
    _, state = read_model(folder)
    with torch.device("meta"):
        model = DigitsCNN()
    model.load_state_dict(state, assign=True)
    return model.eval()


def make(folder: Path, *, seed: int = 0) -> None:
    """Train the network, measure it, and write weights, ``measured.json`` and ``CARD.md`` into ``folder``.

    Takes about half a minute on one core, most of it for a second network, trained on shuffled labels to be measured.
    """
    trained = train_digits_cnn(seed, n_epochs=EPOCHS, progress=True)
    shuffled = train_digits_cnn(seed, shuffle_labels=True, n_epochs=SHUFFLED_EPOCHS, progress=True)
    data = digits_data()
    measured = {
        "seed": seed,
        "n_parameters": sum(p.numel() for p in trained.model.parameters()),
        "n_train": len(data.train_labels),
        "n_test": len(data.test_labels),
        "n_epochs": EPOCHS,
        "train_accuracy": trained.train_accuracy,
        "test_accuracy": trained.test_accuracy,
        "shuffled_n_epochs": SHUFFLED_EPOCHS,
        "shuffled_train_accuracy": shuffled.train_accuracy,
        "shuffled_test_accuracy": shuffled.test_accuracy,
    }
    write_model(folder, {"recipe": "digits-cnn", "seed": seed}, trained.model.state_dict())
    (folder / "measured.json").write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")
    (folder / "CARD.md").write_text(CARD.format(**measured), encoding="utf-8")
