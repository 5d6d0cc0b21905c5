"""What 01d says about a ResNet with random weights, computed again."""

import pytest
import torch
import torch.nn.functional as F

from utils.attribution.backward_rules import guided_backprop
from utils.attribution.photographs import photographs
from utils.attribution.sanity import map_similarity
from utils.models.image_classifier import random_image_classifier


def edges(images):
    grey = F.pad(images.mean(1), (0, 1, 0, 1), mode="replicate")
    return (grey[:, 1:, :-1] - grey[:, :-1, :-1]).abs() + (grey[:, :-1, 1:] - grey[:, :-1, :-1]).abs()


@pytest.mark.parametrize("seed", [0, 1])
def test_guided_maps_of_an_untrained_network_follow_the_photograph(seed):
    images, model = torch.stack(list(photographs().values())), random_image_classifier(seed=seed)
    with torch.no_grad():
        target = model(images).argmax(-1)
    coarse = F.avg_pool2d(guided_backprop(model, images, target).abs().amax(1), 8)
    own, *others = (
        map_similarity(coarse, F.avg_pool2d(edges(images.roll(k, 0)), 8))["spearman"].mean().item() for k in range(3)
    )
    assert own == pytest.approx(0.5, abs=0.1) and sum(others) / 2 == pytest.approx(0.25, abs=0.07)
