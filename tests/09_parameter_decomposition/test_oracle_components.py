"""Components, gates and losses of part 09a against linear algebra, closed forms and finite differences."""

from pathlib import Path

import pytest
import torch
from torch import nn

from utils.course.paths import load_file
from utils.spd.by_hand import KINDS, decomposed_by_hand, needed_alone, rank_one_components, some_on, toy_target
from utils.spd.components import RankOneComponents, inputs_of_matrices, masked_forward
from utils.spd.gates import ComponentGates, causal_importance, lower_leaky_hard_sigmoid, upper_leaky_hard_sigmoid
from utils.spd.losses import (
    faithfulness_loss,
    layerwise_reconstruction_loss,
    mean_squared_error,
    minimality_loss,
    sample_masks,
    stochastic_reconstruction_loss,
)

common = load_file(Path(__file__).with_name("common_09a.py"))
seeded = common.seeded


def test_components_are_of_rank_one_and_add_up():
    made = RankOneComponents(5, 7, 4, generator=seeded(0))
    matrices = made.matrices().detach()
    assert [int(torch.linalg.matrix_rank(m)) for m in matrices] == [1] * 4
    torch.testing.assert_close(matrices.sum(0), made.weight().detach())
    a = torch.randn(3, 5, generator=seeded(1))
    torch.testing.assert_close(made(a).detach(), nn.functional.linear(a, made.weight().detach().T))
    assert made.V.std().item() == pytest.approx(5**-0.5, rel=0.4) and made.U.std().item() == pytest.approx(0.5, rel=0.4)


def test_singular_vectors_are_faithful_and_fewer_are_off_by_the_singular_values():
    W = torch.randn(6, 4, generator=seeded(2))
    left, values, right = torch.linalg.svd(W, full_matrices=False)
    for kept in (4, 2):
        made = rank_one_components(left[:, :kept], values[:kept, None] * right[:kept])
        loss = faithfulness_loss({"W": W}, {"W": made})
        torch.testing.assert_close(loss, values[kept:].square().sum() / 24, atol=1e-6, rtol=1e-4)


def test_a_network_on_all_its_components_is_itself():
    forward, _, components, x = common.network(seeded(3), 3, 4, 2, 5, 6)
    weights = {name: c.weight().detach() for name, c in components.items()}
    wanted, inputs = inputs_of_matrices(forward, weights, x)
    ones = {name: torch.ones(len(x), c.V.shape[1]) for name, c in components.items()}
    torch.testing.assert_close(masked_forward(forward, weights, components, x, ones), wanted)
    torch.testing.assert_close(forward(x, lambda name, a: inputs[name] @ weights[name]), wanted)
    torch.testing.assert_close(inputs["first"], x)
    for loss in (stochastic_reconstruction_loss, layerwise_reconstruction_loss):
        assert loss(forward, weights, components, x, wanted, ones) < 1e-10


@pytest.mark.parametrize("sigmoid", [lower_leaky_hard_sigmoid, upper_leaky_hard_sigmoid])
def test_sigmoids_piece_by_piece_and_their_slopes_by_finite_differences(sigmoid):
    x = torch.tensor([-2.0, -0.3, 0.2, 0.9, 1.4, 3.0], dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(sigmoid(x).sum(), x)
    step = (sigmoid(x + 1e-6) - sigmoid(x - 1e-6)) / 2e-6
    torch.testing.assert_close(slope, step.detach(), atol=1e-6, rtol=1e-6)
    low, high = (0.01, 0.0) if sigmoid is lower_leaky_hard_sigmoid else (0.0, 0.01)
    torch.testing.assert_close(slope, torch.tensor([low, low, 1, 1, high, high], dtype=torch.float64))
    inside = nn.functional.hardtanh(x, 0, 1)
    torch.testing.assert_close(sigmoid(x), inside + low * x.clamp(max=0) + high * (x - 1).clamp(min=0))


def test_gates_are_separate_networks_of_pytorch():
    gates = ComponentGates(3, 4, generator=seeded(5))
    gates.b_in.data, gates.b_out.data = torch.randn(3, 4, generator=seeded(6)), torch.randn(3, generator=seeded(7))
    h = torch.randn(8, 3, generator=seeded(8))
    for c in range(3):
        network = nn.Sequential(nn.Linear(1, 4), nn.GELU(), nn.Linear(4, 1))
        network[0].weight.data, network[0].bias.data = gates.W_in[c, :, None].data, gates.b_in[c].data
        network[2].weight.data, network[2].bias.data = gates.W_out[c][None].data, gates.b_out[c : c + 1].data
        torch.testing.assert_close(gates(h)[:, c], network(h[:, c : c + 1])[:, 0])
    V = torch.randn(5, 3, generator=seeded(9))
    a = 2 * torch.randn(40, 5, generator=seeded(10))
    lower, upper = causal_importance(gates, V, a)
    torch.testing.assert_close(lower.clamp(0, 1), upper.clamp(0, 1))
    assert lower.max() <= 1 and upper.min() >= 0 and lower.min() < 0 and upper.max() > 1


def test_masks_have_the_mean_and_variance_of_a_uniform_number():
    g = torch.tensor([0.0, 0.3, 0.9, 1.0]).expand(200_000, 4)
    m = sample_masks({"W": g}, seeded(11))["W"]
    torch.testing.assert_close(m.mean(0), (1 + g[0]) / 2, atol=0.005, rtol=0)
    torch.testing.assert_close(m.var(0), (1 - g[0]).square() / 12, atol=0.002, rtol=0)


def test_the_expected_error_of_linear_components_in_closed_form():
    """One component alone: E(1 - m)² = (1 - g)² / 3 of its square. Two that cancel: E(m - m')² = 1/6 of one's."""
    n, forward = 100_000, lambda x, linear: linear("W", x)
    x = torch.ones(n, 1)
    one = {"W": rank_one_components(torch.tensor([[2.0]]), torch.tensor([[1.5]]))}
    for g in (0.0, 0.4, 0.9):
        importances = {"W": torch.full((n, 1), g)}
        loss = stochastic_reconstruction_loss(
            forward, {"W": torch.tensor([[3.0]])}, one, x, 3 * x, importances, generator=seeded(12)
        )
        assert loss.item() == pytest.approx(9 * (1 - g) ** 2 / 3, rel=0.03)
    pair = {"W": rank_one_components(torch.tensor([[1.0, 1.0]]), torch.tensor([[2.0], [-2.0]]))}
    given = (forward, {"W": torch.zeros(1, 1)}, pair, x, 0 * x, {"W": torch.zeros(n, 2)})
    assert stochastic_reconstruction_loss(*given, generator=seeded(13)).item() == pytest.approx(4 / 6, rel=0.03)
    assert masked_forward(*given[:4], {"W": torch.zeros(n, 2)}).abs().max() == 0


def test_layerwise_is_the_mean_of_stochastic_losses_of_single_matrices():
    forward, weights, components, x = common.network(seeded(14), 3, 4, 2, 5, 6)
    wanted = inputs_of_matrices(forward, weights, x)[0]
    importances = common.random_masks(seeded(15), components, len(x))
    masks = sample_masks(importances, seeded(16))
    each = [
        mean_squared_error(masked_forward(forward, weights, components, x, {name: m}), wanted)
        for name, m in masks.items()
    ]
    found = layerwise_reconstruction_loss(forward, weights, components, x, wanted, importances, generator=seeded(16))
    torch.testing.assert_close(found, torch.stack(each).mean())


def test_the_price_is_a_norm_of_pytorch():
    g = torch.rand(6, 9, generator=seeded(17))
    for p in (0.5, 1.0, 2.0):
        expected = torch.linalg.vector_norm(g, ord=p, dim=1).pow(p).mean()
        torch.testing.assert_close(minimality_loss({"a": g[:, :4], "b": g[:, 4:]}, p), expected, rtol=1e-4, atol=1e-5)


def test_the_importance_that_a_price_allows():
    """A (1 - g)² / 3 + β g is least at 1 - 3β / 2A, or at 0."""
    grid = torch.linspace(0, 1, 10_001)
    for A, price in ((0.1, 0.003), (0.1, 0.02), (0.02, 0.02)):
        found = grid[(A * (1 - grid).square() / 3 + price * grid).argmin()].item()
        assert found == pytest.approx(max(0.0, 1 - 1.5 * price / A), abs=2e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_decompositions_by_hand_add_up(kind):
    W = torch.randn(2, 5, generator=seeded(18))
    forward, weights = toy_target(W, torch.randn(5, generator=seeded(19)))
    made = decomposed_by_hand(kind, W, seeded(20))
    assert faithfulness_loss(weights, made) < 1e-10
    x = torch.rand(7, 5, generator=seeded(21))
    ones = {name: torch.ones(7, c.V.shape[1]) for name, c in made.items()}
    output = masked_forward(forward, weights, made, x, ones)
    torch.testing.assert_close(output, inputs_of_matrices(forward, weights, x)[0], atol=1e-4, rtol=1e-4)


def test_what_is_needed_alone():
    forward, weights = toy_target(torch.eye(2), torch.zeros(2))
    made = decomposed_by_hand("by feature", torch.eye(2))
    x = torch.tensor([[1.0, 0.0], [0.0, 0.005], [0.5, 0.5], [0.0, 0.0]])
    assert some_on(x).shape == (3, 2)
    needed = needed_alone(forward, weights, made, x)
    for on in needed.values():
        assert on.tolist() == [[True, False], [False, False], [True, True], [False, False]]


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match="none of by feature"):
        decomposed_by_hand("merged", torch.eye(2))
