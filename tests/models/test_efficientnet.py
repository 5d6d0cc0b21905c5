"""EfficientNet-Lite0: the architecture against one written out step by step, and the trained one on photographs."""

import json
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from utils.attribution.backward_rules import grad_cam, guided_backprop
from utils.attribution.gradients import gradient_saliency
from utils.attribution.sanity import cascading_randomization, map_similarity
from utils.models.bundled import ModelFileError
from utils.models.efficientnet import EfficientNet, convert, load_efficientnet, recalibrate
from utils.models.packaged import PACKAGED

LABELS = [f"thing {i}" for i in range(1000)]
STRIDES = {0: 1, 1: 2, 3: 2, 5: 2, 11: 2}  # of the blocks that begin a stage; all others have stride 1


def random_network(seed=0):
    """Its batch norms random too, and such that the ReLUs are open, closed and at their cap."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = EfficientNet(LABELS).eval()
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.data.uniform_(0.5, 3)
                module.bias.data.uniform_(-1, 3)
                module.running_mean.uniform_(-0.1, 0.1)
                module.running_var.uniform_(0.1, 0.5)
    return network


def their_state(network):
    """The weights under the names of the package's file."""
    state = {}
    names = {"stem": ("_conv_stem", "_bn0"), "head": ("_conv_head", "_bn1")}
    inside = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
    inside["project"] = ("_project_conv", "_bn2")
    for name, value in network.state_dict().items():
        first, *rest = name.split(".")
        if first == "fc":
            state[f"_fc.{rest[0]}"] = value
            continue
        prefix, pair, rest = ("", names[first], rest) if first != "blocks" else (
            f"_blocks.{rest[0]}.", inside[rest[1]], rest[2:]
        )  # fmt: skip
        state[f"{prefix}{pair[rest[0] == 'norm']}.{rest[1]}"] = value
    return state


def same_padding(images, weight, stride, groups=1):
    """TensorFlow's: as many pixels out as there are steps, the odd one to the right and below."""
    side = weight.shape[-1]
    for dim in (2, 3):
        size = images.shape[dim]
        n_out = (size + stride - 1) // stride
        total = max(0, (n_out - 1) * stride + side - size)
        before, after = total // 2, total - total // 2
        zeros = [
            images.new_zeros(*images.shape[:dim], n, *images.shape[dim + 1 :]) for n in (before, after)
        ]  # fmt: skip
        images = torch.cat([zeros[0], images, zeros[1]], dim=dim)
    return F.conv2d(images, weight, stride=stride, groups=groups)


def written_out(state, images):
    """The whole network from the tensors of the package's file."""

    def norm(x, name):
        mean, var, w, b = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
        shape = (-1, 1, 1)
        return (x - mean.view(shape)) / (var.view(shape) + 1e-3).sqrt() * w.view(shape) + b.view(shape)

    def capped(x):
        return x.clamp(0, 6)

    x = (images * 255 - 127) / 128
    x = capped(norm(same_padding(x, state["_conv_stem.weight"], 2), "_bn0"))
    for i in range(16):
        block, came_in = f"_blocks.{i}.", x
        if i:
            x = capped(norm(F.conv2d(x, state[f"{block}_expand_conv.weight"]), f"{block}_bn0"))
        filters = state[f"{block}_depthwise_conv.weight"]
        x = capped(norm(same_padding(x, filters, STRIDES.get(i, 1), len(filters)), f"{block}_bn1"))
        x = norm(F.conv2d(x, state[f"{block}_project_conv.weight"]), f"{block}_bn2")
        x = x + came_in if x.shape == came_in.shape else x
    x = capped(norm(F.conv2d(x, state["_conv_head.weight"]), "_bn1"))
    return x.mean(dim=(2, 3)) @ state["_fc.weight"].T + state["_fc.bias"]


@pytest.mark.parametrize("size", [(64, 64), (65, 47)])
def test_it_computes_what_is_written_out(size):
    network, images = random_network(), torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(1))
    network, images = network.double(), images.double()
    with torch.no_grad():
        expected = written_out(their_state(network), images)
        torch.testing.assert_close(network(images), expected)
    assert expected.std() > 1e-3


def test_it_has_the_stated_size_and_a_relu_for_each_place():
    network = random_network()
    assert sum(p.numel() for p in network.parameters()) == PACKAGED["efficientnet-lite0"].parameters
    seen = []
    for module in network.modules():
        if isinstance(module, nn.ReLU6):
            module.register_forward_hook(lambda module, *_: seen.append(module))
    network(torch.rand(1, 3, 32, 32))
    assert len(seen) == len(set(seen)) == 33 and not any(relu.inplace for relu in seen)


def test_converting_and_loading(tmp_path):
    network = random_network()
    torch.save(their_state(network), tmp_path / "theirs.pth")
    (tmp_path / "names.json").write_text(json.dumps({str(i): name for i, name in enumerate(LABELS)}))
    convert(tmp_path / "theirs.pth", tmp_path / "names.json", tmp_path / "made")
    ours, images = load_efficientnet(tmp_path / "made"), torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(ours(images), network(images))
    assert ours.labels == LABELS and not ours.training and all(p.requires_grad for p in ours.parameters())
    weights = tmp_path / "made" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(ModelFileError, match="does not hold an EfficientNet-Lite0 that can be loaded"):
        load_efficientnet(tmp_path / "made")


class Trap:
    """Unpickled, it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.write_text, (self.path, "unpickled")


def test_a_pickle_that_is_more_than_tensors_is_not_run(tmp_path):
    torch.save({"_fc.weight": Trap(tmp_path / "trap")}, tmp_path / "theirs.pth")
    (tmp_path / "names.json").write_text(json.dumps({str(i): name for i, name in enumerate(LABELS)}))
    with pytest.raises(ModelFileError, match="does not hold an EfficientNet-Lite0"):
        convert(tmp_path / "theirs.pth", tmp_path / "names.json", tmp_path / "made")
    assert not (tmp_path / "trap").exists() and not (tmp_path / "made").exists()


@pytest.mark.parametrize("change", ["a tensor less", "a tensor more", "a name less", "another shape"])
def test_other_files_are_refused(tmp_path, change):
    state, names = their_state(random_network()), {str(i): name for i, name in enumerate(LABELS)}
    match change:
        case "a tensor less":
            del state["_bn1.bias"]
        case "a tensor more":
            state["_blocks.3._se_reduce.weight"] = torch.zeros(1)
        case "a name less":
            del names["7"]
        case "another shape":
            state["_fc.bias"] = torch.zeros(10)
    torch.save(state, tmp_path / "theirs.pth")
    (tmp_path / "names.json").write_text(json.dumps(names))
    with pytest.raises(ModelFileError, match="does not hold an EfficientNet-Lite0"):
        convert(tmp_path / "theirs.pth", tmp_path / "names.json", tmp_path / "made")


def test_other_images_are_refused():
    for shape in ((1, 1, 32, 32), (3, 32, 32)):
        with pytest.raises(ValueError, match=r"images must be \[batch, 3, height, width\]"):
            random_network()(torch.rand(shape))


def test_recalibrated_norms_fit_and_the_others_are_as_they_were():
    network, images = random_network(), torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    before = {name: value.clone() for name, value in network.state_dict().items()}
    recalibrate(network, ["head", "blocks.3"], images)
    norm, seen = network.blocks[3].expand.norm, []
    norm.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0]))
    with torch.no_grad():
        network(images)
    torch.testing.assert_close(norm.running_mean, seen[0].mean(dim=(0, 2, 3)))
    torch.testing.assert_close(norm.running_var, seen[0].transpose(0, 1).flatten(1).var(dim=1))
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed and all(
        name.startswith(("head.norm", "blocks.3")) and "running" in name or "num" in name for name in changed
    )
    assert not any(module.training for module in network.modules()) and norm.momentum == 0.1


def photograph(picture):
    """The middle 7/8 of the shorter side, at 224 by 224 pixels."""
    image = torch.from_numpy(picture.copy()).permute(2, 0, 1)[None].float() / 255
    side = round(0.875 * min(image.shape[2:]))
    top, left = ((n - side) // 2 for n in image.shape[2:])
    image = image[:, :, top : top + side, left : left + side]
    return F.interpolate(image, size=(224, 224), mode="bicubic", antialias=True).clamp(0, 1)


@pytest.fixture(scope="module")
def photographs():
    from skimage import data
    from sklearn.datasets import load_sample_images

    return torch.cat(
        [photograph(picture) for picture in (data.chelsea(), data.coffee(), load_sample_images().images[1])]
    )


def test_it_names_what_is_on_photographs(efficientnet, photographs):
    with torch.no_grad():
        probabilities = efficientnet(photographs).softmax(-1)
    assert [efficientnet.labels[i] for i in probabilities.argmax(-1)] == ["tiger cat", "espresso", "daisy"]
    assert probabilities[1].max() > 0.9 and len(efficientnet.labels) == 1000


def test_guided_backprop_does_not_notice_that_the_classifier_is_gone(efficientnet, photographs):
    """The cascade of Adebayo et al. (2018): the classifier, half of the blocks, everything."""
    layers = ["fc", "head", *(f"blocks.{i}" for i in reversed(range(16))), "stem"]
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        targets = efficientnet(photographs).argmax(-1)
    methods = {
        "gradient": lambda model: gradient_saliency(model, photographs, targets).abs().amax(1),
        "guided": lambda model: guided_backprop(model, photographs, targets).abs().amax(1),
        "grad-cam": lambda model: grad_cam(model, photographs, targets, "head"),
    }
    trained = {name: method(efficientnet) for name, method in methods.items()}
    copies = cascading_randomization(efficientnet, layers, generator=generator)
    found = {}
    for depth in (0, 4, 18):
        recalibrate(copies[depth], layers[: depth + 1], photographs)
        for name, method in methods.items():
            likeness = map_similarity(trained[name], method(copies[depth]))["spearman"]
            found[name, layers[depth]] = likeness.nanmean().item()
    print(found)
    assert found["guided", "fc"] > 0.98 and found["guided", "blocks.13"] > 0.9
    assert all(found["gradient", layer] < 0.6 for layer in ("fc", "blocks.13", "stem"))
    assert all(found["grad-cam", layer] < 0.4 for layer in ("blocks.13", "stem"))
    assert found["guided", "stem"] < 0.6
