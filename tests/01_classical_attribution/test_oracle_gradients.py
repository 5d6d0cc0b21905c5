"""The references of the gradient methods against captum, finite differences and closed forms."""

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients, NoiseTunnel, Saliency
from torch import nn

from utils.attribution.gradients import gradient_saliency, input_x_gradient, integrated_gradients, smoothgrad
from utils.models.digits_cnn import random_digits_cnn


def images_and_targets(seed=0, batch=3, size=(8, 8)):
    generator = torch.Generator().manual_seed(seed)
    images = torch.rand((batch, 1, *size), generator=generator, dtype=torch.float64)
    return images, torch.randint(10, (batch,), generator=generator)


@pytest.fixture
def model():
    return random_digits_cnn(0).double()


@pytest.fixture
def smooth_model():
    """The same layers with tanh in place of ReLU and the mean in place of the maximum: derivatives of every order."""
    model = random_digits_cnn(0).double()
    for name in ("relu1", "relu2", "relu3", "relu4"):
        setattr(model, name, nn.Tanh())
    model.pool = nn.AvgPool2d(2)
    return model


@pytest.mark.parametrize("size", [(8, 8), (11, 6)])
def test_gradient_and_its_product_agree_with_captum(model, size):
    """Captum's Saliency takes absolute values unless told not to."""
    images, targets = images_and_targets(size=size)
    theirs = Saliency(model).attribute(images.clone(), target=targets, abs=False)
    torch.testing.assert_close(gradient_saliency(model, images, targets), theirs)
    theirs = InputXGradient(model).attribute(images.clone(), target=targets)
    torch.testing.assert_close(input_x_gradient(model, images, targets), theirs.detach())


def test_gradient_is_the_limit_of_differences(smooth_model):
    images, targets = images_and_targets(1, batch=1)
    step = 1e-6 * torch.eye(64, dtype=torch.float64).view(64, 1, 8, 8)
    with torch.no_grad():
        up, down = (smooth_model(images + sign * step)[:, targets[0]] for sign in (1, -1))
    torch.testing.assert_close(
        gradient_saliency(smooth_model, images, targets).flatten(), (up - down) / 2e-6, rtol=1e-6, atol=1e-7
    )


def test_smoothgrad_agrees_with_captum_up_to_sampling(model):
    """The two draw their noise differently, so that the means can agree to within their sampling error only."""
    images, targets = images_and_targets(2, batch=1)
    n, sigma = 400, 0.3
    ours = smoothgrad(
        model, images, targets, sigma=sigma, n_samples=n, generator=torch.Generator().manual_seed(0)
    ).squeeze()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        theirs = NoiseTunnel(Saliency(model)).attribute(
            images.clone(), target=targets, abs=False, nt_type="smoothgrad", nt_samples=n, stdevs=sigma
        )
    noise = sigma * torch.randn((n, *images.shape[1:]), generator=torch.Generator().manual_seed(2)).double()
    spread = gradient_saliency(model, images + noise, targets.expand(n)).std(dim=0).squeeze()
    error = (2 / n) ** 0.5 * spread
    assert ((ours - theirs.squeeze()).abs() < 6 * error).all()
    plain = gradient_saliency(model, images, targets).squeeze()
    assert ((ours - plain).abs() > 6 * error).any(), "the comparison could not tell SmoothGrad from the plain gradient"


def test_smoothgrad_is_exact_where_the_gradient_is_linear():
    """For f = (w x)² / 2 the mean gradient is the gradient at the mean of the noisy copies."""
    generator = torch.Generator().manual_seed(3)
    w = torch.randn(4, 20, generator=generator, dtype=torch.float64)
    images = torch.randn(2, 1, 4, 5, generator=generator, dtype=torch.float64)
    targets = torch.tensor([1, 3])
    found = smoothgrad(
        lambda x: (x.flatten(1) @ w.T).square() / 2,
        images,
        targets,
        sigma=0.5,
        n_samples=7,
        generator=torch.Generator().manual_seed(4),
    )
    draws = torch.Generator().manual_seed(4)
    mean = torch.stack([images + 0.5 * torch.randn(images.shape, generator=draws).double() for _ in range(7)]).mean(0)
    expected = (mean.flatten(1) * w[targets]).sum(1, keepdim=True) * w[targets]
    torch.testing.assert_close(found.flatten(1), expected)


@pytest.mark.parametrize("n_steps", [2, 7, 50])
def test_integrated_gradients_agree_with_captums_midpoint_rule(model, n_steps):
    images, targets = images_and_targets(5)
    baselines = torch.rand(images.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    for baseline in (0.0, 0.7, baselines):
        theirs = IntegratedGradients(model).attribute(
            images, baselines=baseline, target=targets, n_steps=n_steps, method="riemann_middle"
        )
        ours = integrated_gradients(model, images, targets, baseline=baseline, n_steps=n_steps, batch_size=20)
        torch.testing.assert_close(ours, theirs)


def test_integrated_gradients_agree_with_gauss_and_legendre_in_the_limit(smooth_model):
    """Captum's own default is another rule for the same integral: both come close to it."""
    images, targets = images_and_targets(7)
    theirs = IntegratedGradients(smooth_model).attribute(images, target=targets, n_steps=40)
    ours = integrated_gradients(smooth_model, images, targets, n_steps=400)
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


def test_the_completeness_gap_falls_with_the_square_of_the_steps(smooth_model):
    """Where all derivatives exist, twice the steps leave a quarter of the midpoint rule's gap."""
    images, targets = images_and_targets(8)
    with torch.no_grad():
        difference = (smooth_model(images) - smooth_model(torch.zeros_like(images))).gather(1, targets[:, None])[:, 0]
    gaps = [
        (integrated_gradients(smooth_model, images, targets, n_steps=n).sum((1, 2, 3)) - difference).abs().mean()
        for n in (20, 40, 80)
    ]
    assert 3 < gaps[0] / gaps[1] < 5
    assert 3 < gaps[1] / gaps[2] < 5


@pytest.mark.parametrize("switch", [torch.no_grad, torch.inference_mode])
def test_works_where_gradients_are_switched_off(model, switch):
    """Images and targets may have been made there, too."""
    images, targets = images_and_targets(8)
    methods = (gradient_saliency, input_x_gradient, lambda *inputs: integrated_gradients(*inputs, n_steps=4))
    expected = [method(model, images, targets) for method in methods]
    with switch():
        theirs = images.clone(), targets.clone()
        found = [method(model, *theirs) for method in methods]
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_bad_input(model):
    images, targets = images_and_targets(9)
    generator = torch.Generator()
    for call, name in (
        (lambda: gradient_saliency(model, images[0], targets), "images must be"),
        (lambda: gradient_saliency(model, images, targets[:1]), "images must be"),
        (lambda: gradient_saliency(model, images, targets + 10), "targets must be between"),
        (lambda: smoothgrad(model, images, targets, sigma=-1, n_samples=1, generator=generator), "sigma"),
        (lambda: smoothgrad(model, images, targets, sigma=float("nan"), n_samples=1, generator=generator), "sigma"),
        (lambda: smoothgrad(model, images, targets, sigma=1, n_samples=0, generator=generator), "n_samples"),
        (lambda: integrated_gradients(model, images, targets, n_steps=0), "n_steps"),
        (lambda: integrated_gradients(model, images, targets, batch_size=0), "batch_size"),
        (lambda: integrated_gradients(model, images[0], targets), "images must be"),
    ):
        with pytest.raises(ValueError, match=name):
            call()
