"""What the closing section says about a ResNet with random weights, computed again."""

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_sample_images

from utils.attribution.backward_rules import grad_cam, guided_backprop
from utils.attribution.gradients import gradient_saliency, input_x_gradient
from utils.attribution.sanity import map_similarity
from utils.models.image_classifier import random_image_classifier


def edges(images):
    grey = F.pad(images.mean(1), (0, 1, 0, 1), mode="replicate")
    return (grey[:, 1:, :-1] - grey[:, :-1, :-1]).abs() + (grey[:, :-1, 1:] - grey[:, :-1, :-1]).abs()


def test_maps_of_an_untrained_network_follow_the_photograph():
    pictures = [torch.from_numpy(picture.copy()).permute(2, 0, 1) for picture in load_sample_images().images]
    photographs = torch.stack([picture[:, :, 106:533].float() / 255 for picture in pictures])
    photographs = F.interpolate(photographs, size=(224, 224), mode="bilinear", antialias=True)
    model = random_image_classifier(seed=0)
    with torch.no_grad():
        target = model(photographs).argmax(-1)
    maps = {
        "gradient": gradient_saliency(model, photographs, target).abs().amax(1),
        "input × gradient": input_x_gradient(model, photographs, target).abs().amax(1),
        "guided backprop": guided_backprop(model, photographs, target).abs().amax(1),
        "Grad-CAM": grad_cam(model, photographs, target, "network.resnet.encoder.stages.3"),
    }
    expected = {
        "gradient": (0.40, 0.22),
        "input × gradient": (0.14, 0.20),
        "guided backprop": (0.40, 0.18),
        "Grad-CAM": (0.43, 0.44),
    }
    for name, values in maps.items():
        coarse = F.avg_pool2d(values[:, None], 8)[:, 0]
        found = []
        for compared in (photographs, photographs.flip(0)):
            theirs = F.avg_pool2d(edges(compared)[:, None], 8)[:, 0]
            found.append(map_similarity(coarse, theirs)["spearman"].mean().item())
        assert found == pytest.approx(expected[name], abs=0.05), name
