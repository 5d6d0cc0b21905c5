"""The references of part 07b against scipy, scikit-learn and what must be so."""

import math

import numpy as np
import scipy.linalg
import scipy.stats
import torch
from sklearn.linear_model import Ridge

from utils.models.circles import fourier_power
from utils.patching.networks import SmallTransformer
from utils.patching.steering import steer
from utils.probes.circular import circular_probe, frequency_plane, ring_score, rotate_in_plane
from utils.probes.erasing import ablate_direction, amnesic_effect, iterated_nullspace, project_out
from utils.probes.fit import least_squares_probe, mass_mean_probe
from utils.probes.steering import probe_vs_gradient_direction, steer_with_probe

NAME = "blocks.0.hook_resid_post"


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def last(logits):
    return logits[:, -1, 2] - logits[:, -1, 0]


def test_projection_is_onto_scipys_null_space():
    x, directions = torch.randn(20, 7, generator=generator()), torch.randn(3, 7, generator=generator(1))
    directions[2] = directions[0] - directions[1]
    null = torch.tensor(scipy.linalg.null_space(directions.numpy(), rcond=1e-5))
    torch.testing.assert_close(project_out(x, directions), x @ null @ null.T, rtol=1e-4, atol=1e-5)
    twice = project_out(project_out(x, directions), directions)
    torch.testing.assert_close(twice, project_out(x, directions), rtol=1e-4, atol=1e-5)


def test_no_least_squares_probe_gains_where_the_means_are_equal():
    """Belrose et al. (2023): without the difference of means the best linear predictor is a constant."""
    x, labels = torch.randn(500, 12, generator=generator()), torch.rand(500, generator=generator(1)) < 0.4
    x = x @ torch.randn(12, 12, generator=generator(2)) + labels[:, None] * torch.randn(12, generator=generator(3))
    left = project_out(x, mass_mean_probe(x, labels).direction[None], about=x.mean(0))
    assert least_squares_probe(left, labels).direction.norm() < 1e-4
    other = project_out(x, least_squares_probe(x, labels).direction[None], about=x.mean(0))
    assert least_squares_probe(other, labels).direction.norm() > 1e-2


def test_ablation_at_one_position_leaves_earlier_positions_alone():
    model = SmallTransformer(generator())
    tokens = torch.randint(11, (3, 6), generator=generator(1))
    with torch.no_grad():
        before = model(tokens)
        after = ablate_direction(
            model, tokens, [NAME], torch.randn(1, 6, generator=generator(2)), positions=torch.tensor([3, 3, 3])
        )
    assert torch.equal(before[:, :3], after[:, :3]) and not torch.allclose(before[:, 3:], after[:, 3:])


def test_the_interval_is_scipys():
    intact, erased, units = torch.randn(12), torch.randn(12), torch.arange(12) % 4
    random = torch.randn(7, 12)
    found = amnesic_effect(intact, erased, random, units)
    by_unit = [(random.mean(0) - erased)[units == u].mean().item() for u in range(4)]
    low, high = scipy.stats.t.interval(0.95, 3, np.mean(by_unit), scipy.stats.sem(by_unit))
    np.testing.assert_allclose([found["low"], found["high"]], [low, high], rtol=1e-4, atol=1e-5)


def test_p_is_uniform_under_the_null():
    values = []
    for seed in range(400):
        draws = torch.randn(10, 8, generator=generator(seed))
        values.append(amnesic_effect(torch.zeros(8), draws[0], draws[1:], torch.arange(8))["p"])
    share = np.mean(np.array(values) <= 0.2)
    assert 0.12 < share < 0.28


def test_the_nullspace_of_one_direction_is_one_direction():
    """Where the classes differ along one axis and noise is round, one probe takes everything."""
    x, labels = torch.randn(4000, 6, generator=generator()), torch.rand(4000, generator=generator(1)) < 0.5
    x[:, 2] += torch.where(labels, 2.0, -2.0)
    directions, accuracy = iterated_nullspace(x[:3000], labels[:3000], x[3000:], labels[3000:], 3, least_squares_probe)
    assert directions[0, 2] > 0.99 and accuracy[0] > 0.95 and accuracy[1:].max() < 0.56


def test_in_a_linear_model_setting_is_adding_what_is_missing():
    model = SmallTransformer(generator(), linear=True)
    tokens, at = torch.randint(11, (1, 5), generator=generator(1)), torch.tensor([2])
    direction, centre = torch.randn(6, generator=generator(2)), torch.randn(6, generator=generator(3))
    doses = torch.tensor([-1.0, 2.0])
    found = steer_with_probe(model, tokens, NAME, direction[None], centre, doses, last, at)[0]
    kept = []
    handle = dict(model.named_modules())[NAME].register_forward_hook(lambda m, i, out: kept.append(out.detach()))
    model(tokens)
    handle.remove()
    along = (kept[0][0, 2] - centre) @ direction / direction.norm() ** 2
    added = steer(model, tokens, NAME, direction, doses / 2 - along, last, positions=at)
    torch.testing.assert_close(found, added, rtol=1e-3, atol=1e-4)


def test_the_gradient_is_a_finite_difference():
    model = SmallTransformer(generator()).double()
    tokens, at = torch.randint(11, (4, 5), generator=generator(1)), torch.tensor([0, 2, 4, 1])
    direction = torch.randn(6, generator=generator(2), dtype=torch.double)
    cosines = probe_vs_gradient_direction(model, tokens, NAME, direction, last, at)
    slopes = []
    for axis in [*torch.eye(6, dtype=torch.double), direction / direction.norm()]:
        up, down = steer(model, tokens, NAME, axis, torch.tensor([1e-5, -1e-5], dtype=torch.double), last, positions=at)
        slopes.append((up - down) / 2e-5)
    gradient, along = torch.stack(slopes[:6]), slopes[6]
    torch.testing.assert_close(cosines, along / gradient.norm(dim=0), rtol=1e-4, atol=1e-6)


def test_the_circular_probe_is_a_ridge_regression():
    x, steps = torch.randn(30, 5, generator=generator(), dtype=torch.double), torch.arange(30)
    angles = 2 * math.pi * steps.double() / 7
    theirs = Ridge(alpha=30 * 0.2 * x.var(0, correction=0).mean().item()).fit(
        x.numpy(), torch.stack([angles.cos(), angles.sin()], 1).numpy()
    )
    ours = circular_probe(x, steps, 7, 0.2)
    np.testing.assert_allclose(ours.weights.numpy(), theirs.coef_.T, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(ours.bias.numpy(), theirs.intercept_, rtol=1e-6, atol=1e-9)


def test_a_rotation_is_scipys_exponential():
    plane = torch.linalg.qr(torch.randn(6, 2, generator=generator()))[0].T.double()
    plane = torch.linalg.qr(plane.T)[0].T
    x, centre = torch.randn(4, 6, dtype=torch.double), torch.randn(6, dtype=torch.double)
    spin = torch.outer(plane[1], plane[0]) - torch.outer(plane[0], plane[1])
    turn = torch.tensor(scipy.linalg.expm(0.8 * spin.numpy()))
    torch.testing.assert_close(rotate_in_plane(x, plane, 0.8, centre), centre + (x - centre) @ turn.T)


def test_ring_scores_are_fourier_power():
    points = torch.randn(11, 4, generator=generator())
    scores = torch.stack([ring_score(points, frequency) for frequency in range(1, 6)])
    torch.testing.assert_close(scores, fourier_power(points), rtol=1e-4, atol=1e-6)


def test_random_order_has_two_in_n_minus_one():
    points = torch.randn(7, 30, generator=generator())
    scores = [ring_score(points[torch.randperm(7, generator=generator(seed))]) for seed in range(500)]
    assert abs(torch.stack(scores).mean() - 2 / 6) < 0.02


def test_a_frequency_plane_turns_from_its_first_direction_to_its_second():
    turns = 2 * math.pi * 2 * torch.arange(9) / 9
    flat = torch.stack([turns.cos(), turns.sin()], 1) @ torch.linalg.qr(torch.randn(5, 2, generator=generator()))[0].T
    plane = frequency_plane(flat + 3, 2)
    turned = rotate_in_plane(flat + 3, plane, 2 * math.pi * 2 / 9, (flat + 3).mean(0))
    torch.testing.assert_close(turned, (flat + 3).roll(-1, 0), rtol=1e-4, atol=1e-5)
