"""The pretrained image classifier: found in the hub's cache, computing what the library does, and otherwise absent."""

import socket
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from torch import nn

from utils.course.paths import load_file
from utils.models import catalogue, hub
from utils.models.bundled import ModelFileError
from utils.models.hub import ModelUnavailable
from utils.models.image_classifier import REPO, ImageClassifier, load_image_classifier, random_image_classifier

hub_cache = load_file(Path(__file__).parent / "hub_cache.py")


def small_resnet():
    """A ResNet of two stages and five labels, its batch norms random too, as after training."""
    from transformers import ResNetConfig, ResNetForImageClassification

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"embedding_size": 8, "hidden_sizes": [8, 12], "depths": [1, 2], "layer_type": "basic"}
        labels = dict(enumerate(["ant", "bee", "cat", "dog", "elk"]))
        model = ResNetForImageClassification(ResNetConfig(**sizes, id2label=labels, num_labels=5)).eval()
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.weight.data, module.bias.data, module.running_mean):
                    values.copy_(torch.randn_like(values))
                module.running_var.uniform_(0.5, 2)
    return model


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty hub cache, and no network: whoever asks for an address or a connection fails the test."""

    def refuse(*arguments, **options):
        pytest.fail(f"the network was asked for {arguments}")

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    return tmp_path


def test_from_the_cache_it_is_the_library_s_model_behind_the_usual_scaling(cache):
    theirs = small_resnet()
    folder = hub_cache.put_resnet(cache, REPO, theirs)
    assert hub.cached_folder(REPO, text=False) == folder and hub.cached_folder(REPO) is None
    ours, images = load_image_classifier(), torch.rand(3, 3, 40, 48, generator=torch.Generator().manual_seed(1))
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    scaled = torch.stack([(images[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    with torch.no_grad():
        expected = theirs(scaled).logits
        torch.testing.assert_close(ours(images), expected)
    assert expected.std() > 0.01 and ours.labels == ["ant", "bee", "cat", "dog", "elk"] and not ours.training


def test_gradients_reach_the_image(cache):
    model = ImageClassifier(small_resnet()).eval()
    images = torch.rand(1, 3, 32, 32).requires_grad_()
    model(images)[0, 2].backward()
    assert images.grad.abs().sum() > 0


def test_other_images_are_refused():
    model = ImageClassifier(small_resnet()).eval()
    for shape in ((1, 1, 32, 32), (3, 32, 32)):
        with pytest.raises(ValueError, match=r"images must be \[batch, 3, height, width\]"):
            model(torch.rand(shape))


def test_one_sentence_when_it_is_not_to_be_had(cache, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailable, match=f"^The weights of '{REPO}' are not on this machine") as caught:
        load_image_classifier()
    assert "\n" not in str(caught.value) and str(caught.value).count(".") == 1
    with pytest.raises(ModelUnavailable, match="are not on this machine"):
        load_image_classifier(cache)


def test_damaged_weights_are_named(cache):
    folder = hub_cache.put_resnet(cache, REPO, small_resnet())
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(ModelFileError, match="cannot be loaded"):
        load_image_classifier()


def test_missing_weights_are_named(cache):
    from safetensors.torch import load_file as read
    from safetensors.torch import save_file

    path = hub_cache.put_resnet(cache, REPO, small_resnet()) / "model.safetensors"
    tensors = read(path)
    del tensors["classifier.1.weight"]
    save_file(tensors, path.resolve(), metadata={"format": "pt"})
    with pytest.raises(ModelFileError, match="has no classifier.1.weight"):
        load_image_classifier()


def test_the_untrained_one_has_the_stated_size_and_leaves_the_random_state():
    before = torch.get_rng_state()
    model, stated = random_image_classifier(seed=3), catalogue.PRETRAINED["resnet-18"]
    assert torch.equal(torch.get_rng_state(), before) and not model.training
    n_parameters = sum(p.numel() for p in model.network.parameters())
    n_bytes = sum(value.numel() * value.element_size() for value in model.network.state_dict().values())
    assert (n_parameters, round(n_bytes / 1e6)) == (stated.parameters, stated.megabytes)
    relus = [module for module in model.modules() if isinstance(module, nn.ReLU)]
    assert len(relus) == 17 and torch.equal(random_image_classifier(3).mean, model.mean)
    again = random_image_classifier(3).network.state_dict()
    assert all(torch.equal(value, again[name]) for name, value in model.network.state_dict().items())
