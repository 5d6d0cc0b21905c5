"""The reference of occlusion against captum, closed forms and finite differences; and the picture with sliders."""

import pytest
import torch
from captum.attr import Occlusion
from torch import nn

from utils.attribution.gradients import gradient_saliency
from utils.attribution.interactive import occlusion_explorer, occlusion_figure
from utils.attribution.occlusion import occlusion_map
from utils.models.digits_cnn import load_digits_cnn, random_digits_cnn


def images_and_targets(seed, *shape, classes=10):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(shape, generator=generator), torch.randint(classes, shape[:1], generator=generator)


@pytest.mark.parametrize(
    ("size", "patch", "stride", "baseline"),
    [((8, 8), 1, 1, 0.0), ((8, 8), 3, 1, 0.5), ((9, 12), 3, 2, 1.0), ((9, 10), 4, 3, -0.2), ((7, 8), 2, 2, 0.0)],
)
def test_agrees_with_captum(size, patch, stride, baseline):
    """Captum's map has channels, all alike here, as the window covers all of them; it averages overlaps as we do."""
    model = random_digits_cnn(0).double()
    images, targets = images_and_targets(1, 3, 1, *size)
    images = images.double()
    theirs = Occlusion(model).attribute(
        images,
        target=targets,
        sliding_window_shapes=(1, patch, patch),
        strides=(1, stride, stride),
        baselines=baseline,
        perturbations_per_eval=5,
    )
    ours = occlusion_map(model, images, targets, patch=patch, stride=stride, baseline=baseline)
    torch.testing.assert_close(ours, theirs[:, 0].double(), rtol=1e-5, atol=1e-5)  # captum returns float32


def test_covers_all_channels_like_captum():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))
    model.double()
    images, targets = images_and_targets(2, 2, 3, 6, 9, classes=5)
    images = images.double()
    theirs = Occlusion(model).attribute(images, target=targets, sliding_window_shapes=(3, 2, 2), strides=(3, 1, 1))
    ours = occlusion_map(model, images, targets, patch=2)
    torch.testing.assert_close(ours, theirs[:, 0].double(), rtol=1e-5, atol=1e-5)


def test_a_small_change_gives_the_derivative():
    """On an image of one colour, a baseline slightly below it makes each drop a finite difference."""
    model = random_digits_cnn(3).double()
    model.pool = nn.AvgPool2d(2)  # the largest of four equal pixels is another one after any change
    for name in ("relu1", "relu2", "relu3", "relu4"):
        setattr(model, name, nn.Tanh())
    images, targets = torch.full((2, 1, 8, 8), 0.6, dtype=torch.float64), torch.tensor([3, 8])
    step = 1e-6
    drops = occlusion_map(model, images, targets, baseline=0.6 - step) / step
    torch.testing.assert_close(drops, gradient_saliency(model, images, targets)[:, 0], rtol=1e-4, atol=1e-5)


def test_bad_input():
    model = random_digits_cnn(0)
    images, targets = images_and_targets(4, 2, 1, 8, 8)
    for settings, name in (
        ({"patch": 0}, "patch"),
        ({"patch": 9}, "patch"),
        ({"patch": 2, "stride": 3}, "stride"),
        ({"stride": 0}, "stride"),
        ({"batch_size": 0}, "batch_size"),
    ):
        with pytest.raises(ValueError, match=name):
            occlusion_map(model, images, targets, **settings)
    for bad in (images[0], images[:1]):
        with pytest.raises(ValueError, match="images must be"):
            occlusion_map(model, bad, targets)


def test_the_picture_and_its_words_follow_the_controls():
    model, image = load_digits_cnn(), images_and_targets(5, 1, 1, 8, 8)[0][0]
    box = occlusion_explorer(model, image)
    row, patch, picture = box.children[0].children[0], box.children[1].children[0], box.children[2]
    shown = [picture.value]
    row.value = 1
    shown.append(picture.value)
    patch.value = 0
    shown.append(picture.value)
    assert len(set(shown)) == 3
    assert all("data:image/png;base64," in tag for tag in shown)
    assert "row 1" in shown[1] and "row 1" not in shown[0] and "0 by 0 pixels" in shown[2]


def test_the_picture_shows_the_logits_with_and_without_the_square():
    model, image = load_digits_cnn(), images_and_targets(6, 1, 1, 8, 8)[0][0]
    covered = image.clone()
    covered[:, 2:5, 6:] = 0.25
    figure = occlusion_figure(model, image, row=2, column=6, patch=3, baseline=0.25)
    heights = torch.tensor([float(bar.get_height()) for bar in figure.axes[1].patches])
    with torch.no_grad():
        torch.testing.assert_close(heights, model(torch.stack([image, covered])).flatten(), rtol=1e-5, atol=1e-5)
