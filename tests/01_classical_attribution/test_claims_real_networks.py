"""What 01d and 01e say about photographs and EfficientNet-Lite0, computed again."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from utils.attribution.backward_rules import grad_cam, guided_backprop
from utils.attribution.gradients import gradient_saliency
from utils.attribution.photographs import photographs
from utils.attribution.sanity import cascading_randomization, map_similarity
from utils.attribution.visualization import fourier_to_images, transform_robust_visualization
from utils.models.efficientnet import recalibrate

LAYERS = ["fc", "head", *(f"blocks.{i}" for i in reversed(range(16))), "stem"]
IMAGES = torch.stack(list(photographs().values()))


def edges(images):
    grey = F.pad(images.mean(1), (0, 1, 0, 1), mode="replicate")
    return (grey[:, 1:, :-1] - grey[:, :-1, :-1]).abs() + (grey[:, :-1, 1:] - grey[:, :-1, :-1]).abs()


def largest(values):
    return values.abs().amax(1)


def likeness(first, second):
    return map_similarity(first, second)["spearman"].nanmean().item()


def likeness_to_edges(values):
    """With those of the same photograph, and of the others."""
    own, *others = (likeness(F.avg_pool2d(values, 8), F.avg_pool2d(edges(IMAGES.roll(k, 0)), 8)) for k in range(3))
    return own, sum(others) / 2


def views(model, classes):
    gradient = gradient_saliency(model, IMAGES, classes)
    guided, cam = guided_backprop(model, IMAGES, classes), grad_cam(model, IMAGES, classes, "head")
    return {"signs": gradient.sum(1), "sizes": largest(gradient), "cam": cam, "guided": largest(guided)}


@pytest.fixture(scope="module")
def named(efficientnet):
    with torch.no_grad():
        sure, classes = efficientnet(IMAGES).softmax(-1).max(-1)
    assert [efficientnet.labels[i] for i in classes] == ["tiger cat", "espresso", "daisy"]
    assert sure.tolist() == pytest.approx([0.37, 0.94, 0.31], abs=0.05)
    return classes


@pytest.fixture(scope="module")
def trained(efficientnet, named):
    return views(efficientnet, named)


@pytest.fixture(scope="module")
def copies(efficientnet):
    """Down to a layer, by name; whoever asks for one recalibrates it."""
    drawn = cascading_randomization(efficientnet, LAYERS, generator=torch.Generator().manual_seed(0))
    return dict(zip(LAYERS, drawn, strict=True))


@pytest.mark.parametrize(("depth", "guided"), [("blocks.10", 0.94), ("blocks.6", 0.85), ("stem", 0.35)])
def test_guided_maps_are_made_in_the_lower_half(copies, named, trained, depth, guided):
    recalibrate(copies[depth], LAYERS[: LAYERS.index(depth) + 1], IMAGES)
    found = {way: likeness(trained[way], after) for way, after in views(copies[depth], named).items()}
    print(found)
    assert found["guided"] == pytest.approx(guided, abs=0.05) and abs(found["signs"]) < 0.1
    assert found["sizes"] < 0.45 if depth != "stem" else found["sizes"] < 0.2


def test_with_the_classifier_random_guided_maps_stay_and_grad_cam_is_anywhere(efficientnet, named, trained):
    cam, names = [], set()
    for seed in range(5):
        [copy] = cascading_randomization(efficientnet, ["fc"], generator=torch.Generator().manual_seed(seed))
        after = views(copy, named)
        assert likeness(trained["guided"], after["guided"]) > 0.99
        assert abs(likeness(trained["signs"], after["signs"])) < 0.3
        assert likeness(trained["sizes"], after["sizes"]) == pytest.approx(0.41, abs=0.05)
        cam.append(likeness(trained["cam"], after["cam"]))
        names.add(int(copy(IMAGES[:1]).argmax()))
    print(cam)
    assert len(names) == 5 and int(named[0]) not in names
    assert min(cam) < 0.2 and max(cam) > 0.5
    assert likeness(trained["cam"], trained["cam"].roll(1, 0)) == pytest.approx(0.49, abs=0.05)


def test_the_map_of_another_class_is_the_same(efficientnet, named, trained):
    asked = largest(guided_backprop(efficientnet, IMAGES[:1], named[1:2]))
    assert likeness(asked, trained["guided"][:1]) > 0.995


def test_random_networks_draw_the_photograph_better_than_the_trained_one(efficientnet, named, trained):
    own, others = likeness_to_edges(trained["guided"])
    assert own < 0.3 and own - others < 0.1
    for seed in range(1, 5):
        [copy] = cascading_randomization(efficientnet, LAYERS, generator=torch.Generator().manual_seed(seed))[-1:]
        recalibrate(copy, LAYERS, IMAGES)
        own, others = likeness_to_edges(largest(guided_backprop(copy, IMAGES, named)))
        assert own > 0.55 and others < 0.22


def test_without_new_means_and_variances_three_in_ten_channels_are_stuck(efficientnet):
    [copy] = cascading_randomization(efficientnet, LAYERS, generator=torch.Generator().manual_seed(3))[-1:]

    def stuck():
        shares = []

        def look(module, inputs, output):
            channels = output.transpose(0, 1).flatten(1)
            shares.append(((channels <= 0).all(1) | (channels >= 6).all(1)).float().mean())

        handles = [m.register_forward_hook(look) for m in copy.modules() if isinstance(m, nn.ReLU6)]
        with torch.no_grad():
            copy(IMAGES)
        for handle in handles:
            handle.remove()
        return torch.stack(shares).mean().item()

    before = stuck()
    recalibrate(copy, LAYERS, IMAGES)
    print(before)
    assert 0.2 < before < 0.4 and stuck() < 0.01


@pytest.mark.parametrize("jitter", [8, 0])
def test_a_daisy_is_climbed_also_where_the_name_means_nothing(efficientnet, jitter):
    daisy = efficientnet.labels.index("daisy")
    drawn = cascading_randomization(efficientnet, LAYERS, generator=torch.Generator().manual_seed(0))
    recalibrate(drawn[-1], LAYERS, IMAGES)
    found = {}
    for name, model in {"trained": efficientnet, "last": drawn[0], "all": drawn[-1]}.items():
        image, scores = transform_robust_visualization(
            lambda images, model=model: model(images)[:, daisy],
            0.01 * torch.randn(1, 3, 128, 65, 2, generator=torch.Generator().manual_seed(1)),
            lambda z: fourier_to_images(z, 128).sigmoid(),
            max_shift=jitter, n_steps=96, step_size=0.003, generator=torch.Generator().manual_seed(1),
        )  # fmt: skip
        with torch.no_grad():
            own, trained = (judge(image).softmax(-1)[0, daisy].item() for judge in (model, efficientnet))
        found[name] = (own, trained, scores[-1].item() - scores[0].item())
        if jitter == 0:
            break
    print(found)
    assert found["trained"][0] > 0.99
    if jitter:
        assert found["last"][0] > 0.95 and found["last"][1] < 0.01
        assert found["all"][0] < 0.02 and abs(found["all"][2]) < 2 < found["last"][2]
