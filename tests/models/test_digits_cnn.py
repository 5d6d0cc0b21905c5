"""The digits network: what its card says, and what attribution methods need of its architecture."""

import json

import pytest
import torch
from torch import nn

from utils.models import digits_cnn
from utils.models.bundled import ModelFileError
from utils.models.digits_cnn import (
    FOLDER,
    DigitsCNN,
    accuracy,
    digits_data,
    load_digits_cnn,
    make,
    random_digits_cnn,
    train_digits_cnn,
)

MEASURED = json.loads((FOLDER / "measured.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def data():
    return digits_data()


@pytest.fixture(scope="module")
def model():
    return load_digits_cnn()


def test_the_split_is_fixed_stratified_and_complete(data):
    again = digits_data()
    assert all(torch.equal(one, other) for one, other in zip(data, again, strict=True))
    assert len(data.train_labels) + len(data.test_labels) == 1797
    for digit in range(10):
        held_out, kept = (labels.eq(digit).sum().item() for labels in (data.test_labels, data.train_labels))
        assert held_out == (held_out + kept) // 4
    assert 0.2 <= len(data.test_labels) / 1797 <= 0.25


def test_pixels_are_ink_between_0_and_1(data):
    for images in (data.train_images, data.test_images):
        assert images.shape[1:] == (1, 8, 8) and images.dtype == torch.float32
        assert images.min() == 0 and images.max() == 1


def test_the_shipped_weights_have_the_measured_accuracy(model, data):
    test_accuracy = accuracy(model, data.test_images, data.test_labels)
    assert test_accuracy >= 0.98
    # One image is 0.0022: another build of PyTorch may decide an undecided one differently.
    assert test_accuracy == pytest.approx(MEASURED["test_accuracy"], abs=0.005)
    assert accuracy(model, data.train_images, data.train_labels) == pytest.approx(MEASURED["train_accuracy"], abs=0.005)
    assert sum(p.numel() for p in model.parameters()) == MEASURED["n_parameters"]
    assert (len(data.train_labels), len(data.test_labels)) == (MEASURED["n_train"], MEASURED["n_test"])


def test_shuffled_labels_were_learnt_and_help_with_nothing():
    assert MEASURED["shuffled_train_accuracy"] >= 0.95
    assert MEASURED["shuffled_test_accuracy"] < 0.25


def test_the_card_has_the_measured_numbers():
    card = (FOLDER / "CARD.md").read_text(encoding="utf-8")
    assert card == digits_cnn.CARD.format(**MEASURED)


def test_each_relu_is_used_once_and_leaves_its_input_alone(model, data):
    calls = []
    for name, layer in model.named_modules():
        if isinstance(layer, nn.ReLU):
            assert not layer.inplace
            layer.register_forward_hook(lambda layer, inputs, output, name=name: calls.append(name))
    model(data.test_images[:2])
    assert calls == ["relu1", "relu2", "relu3", "relu4"]


def test_the_last_convolution_has_a_spatial_map(model, data):
    shapes = []
    handle = model.conv3.register_forward_hook(lambda layer, inputs, output: shapes.append(output.shape))
    model(data.test_images[:3])
    handle.remove()
    assert shapes == [(3, 32, 4, 4)]


@pytest.mark.parametrize("size", [(2, 2), (8, 8), (11, 7), (28, 28)])
def test_other_image_sizes_go_through(size):
    assert random_digits_cnn(0)(torch.rand(3, 1, *size)).shape == (3, 10)


@pytest.mark.parametrize("shape", [(8, 8), (1, 8, 8), (2, 3, 8, 8), (2, 1, 8, 1)])
def test_other_shapes_are_refused_by_name(shape):
    with pytest.raises(ValueError, match=r"must be \[batch, 1, height, width\].*got \(" + str(shape[0])):
        random_digits_cnn(0)(torch.zeros(shape))


def test_training_depends_on_the_seed_alone():
    state = torch.get_rng_state()
    one = train_digits_cnn(3, n_epochs=1)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(99)
    again, other = train_digits_cnn(3, n_epochs=1), train_digits_cnn(4, n_epochs=1)
    assert torch.equal(one.model.fc1.weight, again.model.fc1.weight) and one.losses == again.losses
    assert not torch.equal(one.model.fc1.weight, other.model.fc1.weight)
    assert one.test_accuracy > 0.5 and not one.model.training
    torch.set_rng_state(state)


def test_shuffled_labels_teach_nothing_about_digits():
    trained = train_digits_cnn(0, shuffle_labels=True, n_epochs=2)
    assert trained.losses[1] < trained.losses[0]
    assert trained.test_accuracy < 0.3  # one epoch with the true labels reaches far more than 0.5


def test_loading_leaves_the_random_state_alone():
    state = torch.get_rng_state()
    load_digits_cnn()
    random_digits_cnn(0)
    assert torch.equal(torch.get_rng_state(), state)


def test_random_networks_are_initialised_for_relus():
    weight = random_digits_cnn(5).fc1.weight
    assert weight.std().item() == pytest.approx((2 / weight.shape[1]) ** 0.5, rel=0.05)
    assert not torch.equal(weight, random_digits_cnn(6).fc1.weight)
    assert set(random_digits_cnn(5).state_dict()) == set(DigitsCNN().state_dict())


def test_no_epochs_are_refused():
    with pytest.raises(ValueError, match="n_epochs must be at least 1, got 0"):
        train_digits_cnn(0, n_epochs=0)


def test_a_damaged_file_is_named(tmp_path):
    with pytest.raises(ModelFileError, match="config.json"):
        load_digits_cnn(tmp_path)


def test_making_writes_a_model_that_loads(tmp_path, monkeypatch, data, capsys):
    monkeypatch.setattr(digits_cnn, "EPOCHS", 1)
    monkeypatch.setattr(digits_cnn, "SHUFFLED_EPOCHS", 1)
    make(tmp_path / "model", seed=1)
    measured = json.loads((tmp_path / "model" / "measured.json").read_text(encoding="utf-8"))
    made = load_digits_cnn(tmp_path / "model")
    assert accuracy(made, data.test_images, data.test_labels) == pytest.approx(measured["test_accuracy"])
    assert (tmp_path / "model" / "CARD.md").read_text(encoding="utf-8") == digits_cnn.CARD.format(**measured)
    assert "digits-cnn" in capsys.readouterr().err  # the progress bar
