"""The references of the sanity checks against scipy, scikit-image, torch and counting."""

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, kstest, spearmanr
from skimage.metrics import structural_similarity
from torch import nn

from utils.attribution.sanity import cascading_randomization, label_randomization, map_similarity
from utils.models.digits_cnn import DigitsCNN, load_digits_cnn, random_digits_cnn


def maps(seed, *shape):
    generator = torch.Generator().manual_seed(seed)
    first = torch.randn(shape, generator=generator, dtype=torch.float64)
    second = first + torch.randn(shape, generator=generator, dtype=torch.float64)
    first[:, 0], second[:, :, -1] = 0.0, 0.0  # ties, as on the paper of a digit
    return first, second


@pytest.mark.parametrize(("shape", "window"), [((4, 8, 8), 5), ((3, 12, 9), 7), ((2, 5, 20), 3)])
def test_similarity_agrees_with_scipy_and_scikit_image(shape, window):
    first, second = maps(0, *shape)
    found = map_similarity(first, second, window=window)
    for i, (a, b) in enumerate(zip(first.numpy(), second.numpy(), strict=True)):
        assert found["spearman"][i] == pytest.approx(spearmanr(a.ravel(), b.ravel()).statistic, abs=1e-12)
        absolute = spearmanr(np.abs(a).ravel(), np.abs(b).ravel()).statistic
        assert found["spearman_abs"][i] == pytest.approx(absolute, abs=1e-12)
        x, y = (np.abs(m) / np.abs(m).max() for m in (a, b))
        assert found["ssim"][i] == pytest.approx(structural_similarity(x, y, data_range=1.0, win_size=window), abs=1e-9)


def test_similarity_of_flat_maps():
    """Like scipy, NaN where there is no order; scikit-image agrees on the map of zeros."""
    first, second = torch.zeros(1, 7, 7), maps(1, 1, 7, 7)[1].float()
    found = map_similarity(first, second)
    assert found["spearman"].isnan()
    assert found["spearman_abs"].isnan()
    y = second[0].abs().numpy()
    expected = structural_similarity(np.zeros((7, 7), np.float32), y / y.max(), data_range=1.0, win_size=5)
    assert found["ssim"].item() == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("dtype", "side"), [(torch.float16, 300), (torch.bfloat16, 300), (torch.float32, 2000)])
def test_large_maps_and_coarse_numbers_are_like_their_opposites(dtype, side):
    """Four million ranks, squared, added up and multiplied, are more than single precision holds."""
    first = maps(3, 1, side, side)[0].to(dtype)
    found = map_similarity(first, -first)
    assert [found[name].item() for name in ("spearman", "spearman_abs", "ssim")] == [-1, 1, 1]
    assert all(values.dtype == dtype for values in found.values())


def test_similarity_refuses_what_does_not_fit():
    first, second = maps(2, 2, 6, 6)
    for window in (4, 1, 7):
        with pytest.raises(ValueError, match="window"):
            map_similarity(first, second, window=window)
    for a, b in ((first, second[:1]), (first[0], second[0])):
        with pytest.raises(ValueError, match="first and second"):
            map_similarity(a, b)


def test_random_layers_are_distributed_like_torchs_initialisation():
    """A Kolmogorov-Smirnov test against the normal distribution that ``kaiming_normal_`` draws from."""
    model = load_digits_cnn()
    copy = cascading_randomization(model, ["fc1", "conv3"], generator=torch.Generator().manual_seed(0))[-1]
    for layer, fan_in in ((copy.fc1, 512), (copy.conv3, 288)):
        assert nn.init._calculate_fan_in_and_fan_out(layer.weight)[0] == fan_in
        scaled = layer.weight.detach().flatten() * (fan_in / 2) ** 0.5
        assert kstest(scaled.numpy(), "norm").pvalue > 1e-4
        assert (layer.bias == 0).all()
    torch.testing.assert_close(copy.conv2.weight, model.conv2.weight)


def test_a_whole_cascade_is_an_untrained_network():
    """With all layers drawn anew, nothing is left of the training: spreads as in ``random_digits_cnn``."""
    layers = ["conv1", "conv2", "conv3", "fc1", "fc2"]
    copy = cascading_randomization(load_digits_cnn(), layers, generator=torch.Generator().manual_seed(3))[-1]
    for name, value in random_digits_cnn(3).state_dict().items():
        assert copy.state_dict()[name].std().item() == pytest.approx(value.std().item(), rel=0.2, abs=1e-9)
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        assert (copy(images) - load_digits_cnn()(images)).abs().max() > 0.1


def test_independent_copies_share_their_draws_with_the_cascade():
    layers = ["fc2", "conv1"]
    model = load_digits_cnn()
    together, alone = (
        cascading_randomization(model, layers, generator=torch.Generator().manual_seed(5), cascade=cascade)
        for cascade in (True, False)
    )
    for name, value in together[1].conv1.state_dict().items():
        torch.testing.assert_close(alone[1].conv1.state_dict()[name], value)
    torch.testing.assert_close(alone[1].fc2.weight, model.fc2.weight)


def test_randomisation_refuses_unknown_layers():
    model = DigitsCNN()
    for layers in (["conv9"], ["relu1"], ["fc1", "fc1"]):
        with pytest.raises(ValueError, match="layers must name"):
            cascading_randomization(model, layers, generator=torch.Generator())


def test_randomisation_refuses_layers_within_each_other_and_keeps_buffers():
    """Drawn twice, a layer would not have the same weights in all copies."""
    block = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    model = nn.Sequential(block, nn.Linear(3, 2))
    block[1].running_mean.fill_(7)
    for layers in (["0", "0.1"], ["0.1", "1", "0"], ["", "1"]):
        with pytest.raises(ValueError, match="within each other"):
            cascading_randomization(model, layers, generator=torch.Generator())
    last = cascading_randomization(model, ["1", "0.0", "0.1"], generator=torch.Generator())[-1]
    assert (last[0][1].running_mean == 7).all()


def test_every_order_of_the_labels_is_equally_likely():
    generator = torch.Generator().manual_seed(6)
    codes = [
        int("".join(map(str, label_randomization(torch.arange(4), generator=generator).tolist()))) for _ in range(2400)
    ]
    counts = np.unique(codes, return_counts=True)[1]
    assert len(counts) == 24
    assert chisquare(counts).pvalue > 1e-4
