"""What the chapter says about attribution maps and their sanity checks, on the network that ships with the course.

Numbers of the text come from more images and draws; the bounds here leave room for that, and none of them would hold
if the claim were false.
"""

import pytest
import torch
import torch.nn.functional as F

from utils.attribution.backward_rules import grad_cam, guided_backprop
from utils.attribution.case_01c import MAPS, comparable_squares, square_sums
from utils.attribution.gradients import gradient_saliency, input_x_gradient, integrated_gradients, smoothgrad
from utils.attribution.occlusion import occlusion_map
from utils.attribution.sanity import cascading_randomization, label_randomization, map_similarity
from utils.models.digits_cnn import accuracy, digits_data, load_digits_cnn, random_digits_cnn

LAYERS = ["fc2", "fc1", "conv3", "conv2", "conv1"]
METHODS = {
    "gradient": lambda model, x, c: gradient_saliency(model, x, c)[:, 0],
    "input x gradient": lambda model, x, c: input_x_gradient(model, x, c)[:, 0],
    "integrated gradients": lambda model, x, c: integrated_gradients(model, x, c, n_steps=8)[:, 0],
    "guided backprop": lambda model, x, c: guided_backprop(model, x, c)[:, 0],
    "Grad-CAM": lambda model, x, c: grad_cam(model, x, c, "conv3"),
}


@pytest.fixture(scope="module")
def data():
    return digits_data()


@pytest.fixture(scope="module")
def model():
    return load_digits_cnn()


@pytest.fixture(scope="module")
def five(data):
    shown = torch.stack([(data.test_labels == digit).nonzero()[0, 0] for digit in (0, 2, 3, 4, 7)])
    return data.test_images[shown], data.test_labels[shown]


def mean_similarity(first, second):
    return {name: values.nanmean().item() for name, values in map_similarity(first, second).items()}


def correlation(a, b):
    return torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1].item()


def test_occlusion_depends_on_what_covers(model, five):
    images, classes = five
    paper = images[:, 0] == 0
    pixels = occlusion_map(model, images, classes)
    assert pixels[paper].abs().max() < 1e-4  # the same image in another batch: rounding
    squares = occlusion_map(model, images, classes, patch=3)
    assert squares.amax((1, 2)).mean() == pytest.approx(9.53, abs=0.05)
    assert pixels.amax((1, 2)).mean() == pytest.approx(4.77, abs=0.05)
    ink = occlusion_map(model, images, classes, patch=3, baseline=1.0)
    assert (ink.abs() * paper).sum() / ink.abs().sum() == pytest.approx(0.52, abs=0.01)
    assert squares[4, -1].min() < -1, "covering the foot of the 7 raises its logit"
    assert squares[4].argmax().item() // 8 < 5 and squares[4].argmax().item() % 8 > 4
    untrained = occlusion_map(random_digits_cnn(0), images, classes, patch=3)
    assert untrained.amax((1, 2)).mean() == pytest.approx(0.23, abs=0.01)


def test_the_gradient_has_the_wrong_sign_for_two_of_five_squares(model, five):
    images, classes = five
    faded = images.clone()
    faded[:, :, 2:4, 3:5] = 0
    with torch.no_grad():
        drop = (model(images) - model(faded)).gather(1, classes[:, None])[:, 0]
    promised = input_x_gradient(model, images, classes)[:, :, 2:4, 3:5].sum((1, 2, 3))
    assert drop.tolist() == pytest.approx([-0.16, 2.17, 1.51, 4.00, -2.10], abs=0.01)
    assert promised.tolist() == pytest.approx([-0.19, -0.17, -0.34, 4.30, -0.59], abs=0.01)


def test_noise_smooths_the_maps_of_any_network(model, five):
    images, classes = five

    def roughness(network, sigma):
        generator = torch.Generator().manual_seed(1)
        maps = smoothgrad(network, images, classes, sigma=sigma, n_samples=15, generator=generator)
        steps = (maps.diff(dim=-1).abs().mean((1, 2, 3)) + maps.diff(dim=-2).abs().mean((1, 2, 3))) / 2
        return (steps / maps.abs().mean((1, 2, 3))).mean().item()

    plain, noisy = roughness(model, 0.0), roughness(model, 0.8)
    assert plain == pytest.approx(1.294, abs=0.002)
    assert noisy < 0.92 * plain
    nulls = [[roughness(random_digits_cnn(seed), sigma) for sigma in (0.0, 0.8)] for seed in range(3)]
    for start, end in nulls:
        assert end < 0.95 * start
        assert start > plain


@pytest.mark.parametrize(("baseline", "first", "last"), [(0.0, 0.713, 0.010), (0.5, 2.005, 0.011), (1.0, 1.438, 0.017)])
def test_the_completeness_gap_falls_with_the_steps(model, data, baseline, first, last):
    images, classes = data.test_images[:16], data.test_labels[:16]
    with torch.no_grad():
        ends = [model(x).gather(1, classes[:, None])[:, 0] for x in (images, torch.full_like(images, baseline))]
    gaps = {}
    for n_steps in (1, 2, 4, 16, 128):
        parts = integrated_gradients(model, images, classes, baseline=baseline, n_steps=n_steps).sum((1, 2, 3))
        gaps[n_steps] = (parts - (ends[0] - ends[1])).abs().mean().item()
    assert gaps[1] == pytest.approx(first, abs=0.01)
    assert gaps[128] == pytest.approx(last, abs=0.002)
    assert 5 < gaps[16] / gaps[128] < 12
    if baseline == 0:
        assert gaps[4] > 1.5 * gaps[2], "the text's warning: four steps are worse than two"


def test_every_baseline_has_its_own_explanation(model, five):
    images, classes = five
    maps = {b: integrated_gradients(model, images, classes, baseline=b, n_steps=64) for b in (0.0, 1.0)}
    assert (maps[0.0][images == 0] == 0).all()
    assert (maps[1.0][images == 1] == 0).all()
    for a, b in zip(maps[0.0], maps[1.0], strict=True):
        assert -0.52 < correlation(a, b) < -0.22


@pytest.fixture(scope="module")
def squares(model, data):
    """What the high square of a map costs more than the low one, by map, network (None is the trained one), filling."""
    images, classes = data.test_images[100:180], data.test_labels[100:180]  # not those of the text
    allowed = comparable_squares(images)
    corners = [divmod(k, 7) for k in range(49)]
    lost = {}
    for filling in (0, 1):
        changed = images.repeat(49, 1, 1, 1, 1)
        for k, (row, column) in enumerate(corners):
            changed[k, ..., row : row + 2, column : column + 2] = filling
        with torch.no_grad():
            after = model(changed.flatten(0, 1)).view(49, len(images), 10)
            drop = (model(images) - after).gather(2, classes.expand(49, -1)[..., None])
        lost[filling] = drop[..., 0].T
    found = {}
    for name, map_of in MAPS.items():
        for seed in (None, 0, 1, 2, 3, 4):
            network = model if seed is None else random_digits_cnn(seed)
            sums = square_sums(map_of(network, images, classes)).flatten(1)
            gaps = sums[:, :, None] - sums[:, None, :]
            where = {
                "any": gaps.flatten(1).argmax(1),
                "equal ink": gaps.masked_fill(~allowed, -torch.inf).flatten(1).argmax(1),
            }
            for kind, best in where.items():
                for filling, drop in lost.items():
                    costs = drop.gather(1, best[:, None] // 49) - drop.gather(1, best[:, None] % 49)
                    found[name, seed, kind, filling] = costs.mean().item()
    return found


def test_most_of_what_a_guided_map_finds_is_ink(squares):
    name, seeds = "guided backpropagation", range(5)
    untrained = [squares[name, seed, "any", 0] for seed in seeds]
    assert 0.7 < sum(untrained) / 5 / squares[name, None, "any", 0] < 1
    matched = squares[name, None, "equal ink", 0]
    assert 0.4 < matched / squares[name, None, "any", 0] < 0.75
    assert max(squares[name, seed, "equal ink", 0] for seed in seeds) > 0.5 * matched


def test_two_maps_rank_squares_of_equal_ink_as_the_network_does(squares):
    for name in ("gradient", "integrated gradients"):
        untrained = [squares[name, seed, "equal ink", 0] for seed in range(5)]
        assert squares[name, None, "equal ink", 0] > 5
        assert abs(sum(untrained) / 5) < 1
        assert squares[name, None, "equal ink", 1] < -2, "filled with ink, the order turns round"
    assert abs(squares["Grad-CAM", None, "equal ink", 0]) < 1.5
    assert squares["Grad-CAM", None, "equal ink", 1] > 2


def test_noise_times_image_is_alike_without_its_sign(data):
    images = data.test_images[:100, 0]
    noise = torch.randn((2, *images.shape), generator=torch.Generator().manual_seed(3))
    plain, product = mean_similarity(*noise), mean_similarity(*(noise * images))
    assert max(map(abs, plain.values())) < 0.06
    assert abs(product["spearman"]) < 0.06
    assert product["spearman_abs"] == pytest.approx(0.90, abs=0.02)
    assert product["ssim"] == pytest.approx(0.43, abs=0.04)


@pytest.fixture(scope="module")
def cascade(model, data):
    """Mean similarity [seed][layer], by method, of maps before and after the cascade."""
    images, classes = data.test_images[24:48], data.test_labels[24:48]  # not those of the text
    copies = [cascading_randomization(model, LAYERS, generator=torch.Generator().manual_seed(s)) for s in (10, 11, 12)]
    found = {}
    for name, method in METHODS.items():
        before = method(model, images, classes)
        found[name] = [[mean_similarity(before, method(copy, images, classes)) for copy in row] for row in copies]
    return found


def test_guided_backprop_barely_reacts_to_the_higher_layers(cascade):
    for row in cascade["guided backprop"]:
        assert row[0]["spearman"] > 0.88
        assert row[2]["spearman"] > 0.82
        assert row[4]["spearman"] > 0.6
        assert row[0]["ssim"] > 0.8
    for name in ("gradient", "input x gradient", "integrated gradients", "Grad-CAM"):
        values = torch.tensor([[step["spearman"] for step in row] for row in cascade[name]])
        assert values.mean(0).abs().max() < 0.35, name


def test_without_the_sign_the_image_hides_the_network(cascade):
    for name in ("input x gradient", "integrated gradients"):
        for row in cascade[name]:
            assert all(step["spearman_abs"] > 0.87 for step in row)
            assert all(0.3 < step["ssim"] < 0.6 for step in row)
    assert all(step["spearman_abs"] < 0.45 for row in cascade["gradient"] for step in row)


def test_guided_backprop_is_made_in_the_lower_layers_and_ignores_the_class(model, data):
    images, classes = data.test_images[24:48], data.test_labels[24:48]
    before = METHODS["guided backprop"](model, images, classes)
    generator = torch.Generator().manual_seed(10)
    alone = [
        mean_similarity(before, METHODS["guided backprop"](copy, images, classes))["spearman"]
        for copy in cascading_randomization(model, LAYERS, generator=generator, cascade=False)
    ]
    assert alone[0] > alone[2] > alone[4]
    assert alone[0] - alone[4] > 0.1
    with torch.no_grad():
        runner_up = model(images).scatter(1, classes[:, None], -torch.inf).argmax(1)
    assert mean_similarity(before, METHODS["guided backprop"](model, images, runner_up))["spearman"] > 0.85
    gradients = [METHODS["gradient"](model, images, c) for c in (classes, runner_up)]
    assert abs(mean_similarity(*gradients)["spearman"]) < 0.2


def fit(images, labels, seed, n_epochs):
    model, generator = random_digits_cnn(seed).train(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(n_epochs):
        for batch in torch.randperm(len(labels), generator=generator).split(50):
            optimizer.zero_grad()
            F.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()
    return model.eval()


def test_gradients_notice_shuffled_labels_and_guided_backprop_does_not(data):
    """Three networks of each kind: what one training run ends with is the processor's, what all share is not."""
    images, labels = data.train_images[:150], data.train_labels[:150]
    true_labels = [fit(images, labels, seed, 15) for seed in range(3)]
    shuffled = []
    for seed in range(3):
        wrong_labels = label_randomization(labels, generator=torch.Generator().manual_seed(seed))
        shuffled.append(fit(images, wrong_labels, seed, 45))
        assert accuracy(shuffled[-1], images, wrong_labels) > 0.97
        assert accuracy(shuffled[-1], data.test_images, data.test_labels) < 0.2
    assert min(accuracy(model, data.test_images, data.test_labels) for model in true_labels) > 0.8
    some, classes = data.test_images[:24], data.test_labels[:24]
    control, changed = {}, {}
    for name, method in METHODS.items():
        of_true, of_shuffled = ([method(m, some, classes) for m in models] for models in (true_labels, shuffled))
        for kind, others in ((control, of_true), (changed, of_shuffled)):
            pairs = [(of_true[i], others[(i + 1) % 3]) for i in range(3)]
            kind[name] = [mean_similarity(*pair)["spearman"] for pair in pairs]
    for name in ("gradient", "input x gradient", "integrated gradients"):
        assert min(control[name]) > 0.35
        assert max(map(abs, changed[name])) < 0.2
    guided = (control["guided backprop"], changed["guided backprop"])
    assert min(map(min, guided)) > 0.6
    assert abs(sum(guided[0]) - sum(guided[1])) / 3 < 0.12
    assert max(control["Grad-CAM"]) < 0.45, "two good networks do not agree, so that the test can't be read"
