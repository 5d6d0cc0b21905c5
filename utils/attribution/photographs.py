"""Photographs of what ImageNet has a name for, for the sections on real networks."""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from sklearn.datasets import load_sample_image
from torch import Tensor

SHIPPED = ("cat", "coffee")


def photographs() -> dict[str, Float[Tensor, "3 224 224"]]:
    """A cat, a cup of coffee and a flower, in colours from 0 to 1.

    The first two stand beside this file. They were taken by Stefan van der Walt and Rachel Michetti, who gave them away
    under CC0; they were cut to a square and made smaller. The flower comes with scikit-learn.
    """
    pictures = {name: np.array(Image.open(Path(__file__).with_name(f"{name}.jpg"))) for name in SHIPPED}
    pictures["flower"] = load_sample_image("flower.jpg")[26:400, 132:506]  # the middle
    made = {}
    for name, picture in pictures.items():
        image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
        made[name] = F.interpolate(image, size=(224, 224), mode="bicubic", antialias=True)[0].clamp(0, 1)
    return made
