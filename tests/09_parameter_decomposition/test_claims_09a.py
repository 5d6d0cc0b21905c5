"""What part 09a says of its experiments, measured again on networks of another seed."""

import pytest
import torch

from utils.spd.by_hand import KINDS, decomposed_by_hand, needed_alone, rank_one_components, some_on, toy_target
from utils.spd.components import inputs_of_matrices, masked_forward
from utils.spd.gates import lower_leaky_hard_sigmoid, upper_leaky_hard_sigmoid
from utils.spd.losses import (
    faithfulness_loss,
    layerwise_reconstruction_loss,
    mean_squared_error,
    stochastic_reconstruction_loss,
)
from utils.superposition.geometry import find_polygon
from utils.superposition.toy import sample_features
from utils.superposition.train import train_toy_models


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def examples(p=0.05, seed=31, n=1500):
    return some_on(sample_features(5, 12_000, p, seeded(seed))[0])[:n]


@pytest.fixture(scope="module")
def trained():
    run = train_toy_models(5, 2, torch.full((8,), 0.05), n_steps=600, lr=0.03, seed=17)
    best = run.loss.view(2, 4).argmin(1) + torch.tensor([0, 4])
    return [(run.model.W[i], *toy_target(run.model.W[i], run.model.b[i])) for i in best]


@pytest.fixture(params=[0, 1])
def network(request, trained):
    return trained[request.param]


def needed_of(kind, W, forward, weights, x):
    made = decomposed_by_hand(kind, W, seeded(5))
    return made, needed_alone(forward, weights, made, x)


def count(needed):
    return sum(on.sum(1).float().mean().item() for on in needed.values())


def test_the_networks_are_pentagons_whose_singular_values_are_nearly_equal(network):
    W, *_ = network
    assert find_polygon(W) == 5
    values = torch.linalg.svdvals(W)
    assert values[1] / values[0] > 0.9


def test_all_add_up_and_by_feature_needs_least(network):
    x = examples()
    W, forward, weights = network
    counts = {}
    for kind in KINDS:
        made, needed = needed_of(kind, W, forward, weights, x)
        assert faithfulness_loss(weights, made) < 1e-10
        counts[kind] = count(needed)
    assert counts["by feature"] == min(counts.values()) and 2.2 < counts["by feature"] < 2.8
    assert counts["singular vectors"] > counts["by feature"] + 0.3 and 15 < counts["random"] < 26


def test_names_hold_for_down_and_not_for_up(network):
    x = examples()
    W, forward, weights = network
    needed = needed_of("by feature", W, forward, weights, x)[1]
    assert needed["down"][x > 0.25].float().mean() > 0.97 and needed["down"][x == 0].sum() == 0
    assert 0.1 < needed["up"][x == 0].float().mean() < 0.25
    made, needed = needed_of("singular vectors", W, forward, weights, x)
    named = x[:, made["down"].V.abs().argmax(0)]
    assert needed["down"][named == 0].float().mean() > 0.5


def test_a_pair_that_cancels_is_seen_by_random_masks_alone(network):
    x = examples()
    W, forward, weights = network
    made, wanted = decomposed_by_hand("by feature", W), inputs_of_matrices(forward, weights, x)[0]
    read, write = torch.randn(5, 1, generator=seeded(1)), torch.randn(1, 2, generator=seeded(2))
    read, write = read / read.norm(), write / write.norm()
    V, U = made["down"].V, made["down"].U
    made["down"] = rank_one_components(torch.cat([V, read, read], 1), torch.cat([U, write, -write]))
    ones, errors = torch.ones(len(x), 5), []
    for pair in (0.0, 0.5, torch.rand(len(x), 2, generator=seeded(3))):
        mask = torch.cat([ones, torch.zeros(len(x), 2) + pair], 1)
        output = masked_forward(forward, weights, made, x, {"down": mask, "up": ones})
        errors.append((mean_squared_error(output, wanted) / wanted.square().mean()).item())
    assert errors[0] < 1e-8 and errors[1] < 1e-8 and errors[2] > 0.02
    assert needed_alone(forward, weights, made, x)["down"][:, 5:].float().mean() > 0.5  # either is missed alone


def test_importances_of_other_examples_fail(network):
    x = examples()
    order = torch.randperm(len(x), generator=seeded(4))
    W, forward, weights = network
    wanted = inputs_of_matrices(forward, weights, x)[0]

    def share(made, importances):
        loss = stochastic_reconstruction_loss(
            forward, weights, made, x, wanted, importances, generator=seeded(6)
        )  # fmt: skip
        return (loss / wanted.square().mean()).item()

    for kind in KINDS:
        made, needed = needed_of(kind, W, forward, weights, x)
        own = {name: on.float() for name, on in needed.items()}
        shuffled = share(made, {name: g[order] for name, g in own.items()})
        assert share(made, own) < 2e-3 and shuffled > 0.08
        if kind == "by feature":
            assert 0.5 < shuffled < 0.8
            named = share(made, dict.fromkeys(own, (x > 0).float()))
            assert 0.005 < named < 0.03


def test_turned_matrices_pass_all_at_once_and_not_one_at_a_time(network):
    x, angle = examples(), torch.deg2rad(torch.tensor(45.0))
    R = torch.stack([torch.stack([angle.cos(), angle.sin()]), torch.stack([-angle.sin(), angle.cos()])])
    W, forward, weights = network
    made, needed = needed_of("by feature", W, forward, weights, x)
    wanted = inputs_of_matrices(forward, weights, x)[0]
    turned = {
        "down": rank_one_components(made["down"].V, made["down"].U @ R),
        "up": rank_one_components(R.T @ made["up"].V, made["up"].U),
    }
    given = (forward, weights, turned, x, wanted, {name: on.float() for name, on in needed.items()})
    size = wanted.square().mean()
    assert stochastic_reconstruction_loss(*given, generator=seeded(7)) / size < 1e-3
    assert layerwise_reconstruction_loss(*given, generator=seeded(7)) / size > 0.4
    assert faithfulness_loss(weights, turned) / weights["up"].square().mean() > 0.4


def test_the_price_lowers_importances_and_closes_them(network):
    alone = torch.linspace(0, 1, 40)[:, None] * torch.eye(5)[0]
    grid, r = torch.linspace(0, 1, 201), (torch.arange(40) + 0.5) / 40
    W, forward, weights = network
    made, wanted = decomposed_by_hand("by feature", W), inputs_of_matrices(forward, weights, alone)[0]

    def error_at(mask):
        mask = torch.cat([torch.full((40, 1), mask), torch.ones(40, 4)], 1)
        return mean_squared_error(masked_forward(forward, weights, made, alone, {"down": mask}), wanted)

    at = torch.stack([error_at(m) for m in grid.tolist()])
    expected = at[((grid[:, None] + (1 - grid[:, None]) * r) * 200).round().long()].mean(1)
    best = {price: grid[(expected + price * grid).argmin()].item() for price in (0.003, 0.03, 0.05)}
    law = {price: max(0.0, 1 - 1.5 * price / at[0].item()) for price in best}
    assert 0.93 < best[0.003] < 0.99 and best[0.05] == 0.0
    assert best[0.003] > law[0.003] and best[0.03] > law[0.03] + 0.15


def test_on_dense_examples_singular_vectors_are_cheaper(network):
    W, forward, weights = network
    counts = {
        (kind, p): count(needed_of(kind, W, forward, weights, examples(p, 33, 400))[1])
        for kind in ("by feature", "singular vectors") for p in (0.1, 0.5)
    }  # fmt: skip
    assert counts["by feature", 0.1] < counts["singular vectors", 0.1]
    assert counts["by feature", 0.5] > 1.1 * counts["singular vectors", 0.5]


@pytest.mark.parametrize("degrees", [15, 55])
def test_all_axes_of_a_plane_are_equally_good(degrees):
    days = 2 * torch.pi * torch.arange(7.0) / 7
    plane = torch.linalg.qr(torch.randn(8, 2, generator=seeded(40)))[0].T
    angle = torch.deg2rad(torch.tensor(float(degrees)))
    axes = torch.stack([torch.stack([angle.cos(), angle.sin()]), torch.stack([-angle.sin(), angle.cos()])])
    turn = torch.tensor([[days[2].cos(), days[2].sin()], [-days[2].sin(), days[2].cos()]])
    weights = {"turn": plane.T @ turn @ plane}
    made = {"turn": rank_one_components(plane.T @ axes.T, axes @ turn @ plane)}
    x = torch.stack([days.cos(), days.sin()], 1) @ plane
    needed = needed_alone(lambda a, linear: linear("turn", a), weights, made, x)["turn"]
    assert needed.all() and faithfulness_loss(weights, made) < 1e-10


def hard(logits):
    return logits.clamp(0, 1)


@pytest.mark.parametrize(
    ("for_masks", "for_price"),
    [
        (hard, hard),
        (lower_leaky_hard_sigmoid, upper_leaky_hard_sigmoid),
        (upper_leaky_hard_sigmoid, lower_leaky_hard_sigmoid),
    ],
)
def test_leaks_call_gates_back_that_are_on_the_wrong_side(trained, for_masks, for_price):
    W, forward, weights = trained[0]
    made, alone = decomposed_by_hand("by feature", W), torch.linspace(0.3, 1, 64)[:, None] * torch.eye(5)[0]
    wanted = inputs_of_matrices(forward, weights, alone)[0]
    logits, generator = torch.tensor([-0.3, 1.4]).requires_grad_(), seeded(9)
    optimiser = torch.optim.Adam([logits], lr=0.02)
    for _ in range(200):
        g = torch.cat([for_masks(logits).expand(64, 2), torch.zeros(64, 3)], 1)
        loss = stochastic_reconstruction_loss(
            forward, weights, made, alone, wanted, {"down": g}, generator=generator
        )  # fmt: skip
        optimiser.zero_grad()
        (loss + 0.003 * for_price(logits).sum()).backward()
        optimiser.step()
    needed, unneeded = logits.tolist()
    if for_masks is hard:
        assert (needed, unneeded) == (pytest.approx(-0.3), pytest.approx(1.4))
    elif for_masks is lower_leaky_hard_sigmoid:
        assert needed > 0.85 and unneeded < 0.05
    else:
        assert needed < -1 and unneeded == pytest.approx(1.4)
