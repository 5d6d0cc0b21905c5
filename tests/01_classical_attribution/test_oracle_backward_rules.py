"""The references of guided backpropagation and Grad-CAM against captum, a rule of our own, and closed forms."""

import warnings

import pytest
import torch
from captum.attr import GuidedBackprop, LayerAttribution, LayerGradCam
from torch import nn

from utils.attribution.backward_rules import grad_cam, guided_backprop
from utils.attribution.gradients import gradient_saliency
from utils.models.digits_cnn import random_digits_cnn


def images_and_targets(seed=0, batch=3, size=(8, 8)):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((batch, 1, *size), generator=generator, dtype=torch.float64)
    return images, torch.randint(10, (batch,), generator=generator)


def hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return sum(len(getattr(module, kind)) for module in model.modules() for kind in kinds)


@pytest.mark.parametrize("size", [(8, 8), (12, 9)])
def test_guided_backprop_agrees_with_captum(size):
    model = random_digits_cnn(1).double()
    images, targets = images_and_targets(size=size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum announces that it sets hooks
        theirs = GuidedBackprop(model).attribute(images.clone(), target=targets)
    torch.testing.assert_close(guided_backprop(model, images, targets), theirs)
    assert hooks(model) == 0


@pytest.mark.parametrize("layer", ["conv1", "relu2", "pool", "conv3", "relu3"])
@pytest.mark.parametrize("size", [(8, 8), (12, 10)])
def test_grad_cam_agrees_with_captum(layer, size):
    """Captum leaves the ReLU and the enlargement to its caller; we ask it for both."""
    model = random_digits_cnn(2).double()
    images, targets = images_and_targets(3, size=size)
    small = LayerGradCam(model, model.get_submodule(layer)).attribute(
        images.clone(), target=targets, relu_attributions=True
    )
    theirs = LayerAttribution.interpolate(small, size, interpolate_mode="bilinear")
    torch.testing.assert_close(grad_cam(model, images, targets, layer), theirs[:, 0].detach())
    assert hooks(model) == 0


@pytest.mark.parametrize("kind", [nn.ReLU, nn.ReLU6])
@pytest.mark.parametrize("in_place", [False, True])
def test_a_relu_that_is_used_twice_has_the_rule_twice(kind, in_place):
    relu, first, second = kind(in_place), nn.Linear(12, 9), nn.Linear(9, 9)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        for layer in (first, second):
            nn.init.normal_(layer.weight)
    shared = nn.Sequential(nn.Flatten(), first, relu, second, relu, nn.Linear(9, 4)).double()
    apart = nn.Sequential(nn.Flatten(), first, kind(), second, kind(), shared[-1])
    images = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    targets = torch.tensor([0, 3])
    torch.testing.assert_close(guided_backprop(shared, images, targets), guided_backprop(apart, images, targets))


class GuidedCap(torch.autograd.Function):
    """A ReLU that is capped at 6 and has the rule built in."""

    @staticmethod
    def forward(ctx, z):
        ctx.save_for_backward(z)
        return z.clamp(0, 6)

    @staticmethod
    def backward(ctx, above):
        (z,) = ctx.saved_tensors
        return above * (z > 0) * (z < 6) * (above > 0)


def test_a_capped_relu_stops_signals_at_its_cap_too():
    layers = [nn.Linear(12, 9, dtype=torch.float64), nn.Linear(9, 9, dtype=torch.float64)]
    generator = torch.Generator().manual_seed(2)
    for layer in layers:
        layer.weight.data = 3 * torch.randn(layer.weight.shape, generator=generator, dtype=torch.float64)
    images, targets = torch.rand(6, 1, 3, 4, generator=generator, dtype=torch.float64), torch.arange(6)
    model = nn.Sequential(nn.Flatten(), layers[0], nn.ReLU6(), layers[1])
    inputs = images.clone().requires_grad_()
    hidden = layers[0](inputs.flatten(1))
    assert bool((hidden > 6).any()) and bool((hidden < 0).any())
    total = layers[1](GuidedCap.apply(hidden)).gather(1, targets[:, None]).sum()
    torch.testing.assert_close(guided_backprop(model, images, targets), torch.autograd.grad(total, inputs)[0])


def test_with_positive_weights_the_rule_changes_nothing():
    model = random_digits_cnn(4).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
    images, targets = images_and_targets(5)
    torch.testing.assert_close(guided_backprop(model, images, targets), gradient_saliency(model, images, targets))


def test_neither_leaves_a_hook_when_the_model_fails():
    model = random_digits_cnn(6).double()
    bad = torch.zeros(2, 3, 8, 8, dtype=torch.float64)  # three channels: the model refuses them
    for method in (guided_backprop, lambda *arguments: grad_cam(*arguments, "conv1")):
        with pytest.raises(ValueError, match="batch, 1, height, width"):
            method(model, bad, torch.tensor([0, 1]))
        assert hooks(model) == 0


@pytest.mark.parametrize("switch", [torch.no_grad, torch.inference_mode])
def test_both_work_where_gradients_are_switched_off(switch):
    model = random_digits_cnn(6).double().requires_grad_(False)
    images, targets = images_and_targets(7)
    for method in (guided_backprop, lambda *arguments: grad_cam(*arguments, "conv3")):
        expected = method(model, images, targets)
        with switch():
            found = method(model, images.clone(), targets.clone())
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


class Recurrent(nn.Module):
    """A layer that puts out a pair, and one that is never run."""

    def __init__(self):
        super().__init__()
        self.rows, self.idle, self.head = nn.LSTM(8, 5, batch_first=True), nn.Conv2d(1, 2, 1), nn.Linear(40, 10)

    def forward(self, images):
        return self.head(self.rows(images[:, 0])[0].flatten(1))


def test_grad_cam_refuses_a_pair_and_a_layer_that_is_never_run():
    model = Recurrent().double()
    images, targets = images_and_targets(9)
    for layer, sentence in (("rows", "must put out a tensor"), ("idle", "never runs")):
        with pytest.raises(ValueError, match=sentence):
            grad_cam(model, images, targets, layer)
    assert hooks(model) == 0


def test_bad_input():
    model = random_digits_cnn(7).double()
    images, targets = images_and_targets(8)
    with pytest.raises(ValueError, match="model must have nn.ReLU"):
        guided_backprop(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).double(), images, targets)
    for layer, sentence in (("conv9", "name of a submodule"), ("fc1", "must put out")):
        with pytest.raises(ValueError, match=sentence):
            grad_cam(model, images, targets, layer)
    with pytest.raises(ValueError, match="images must be"):
        grad_cam(model, images[0], targets, "conv3")
    assert hooks(model) == 0
