"""The closed forms of the phases against sampling, integration and a search; the classes against weights by hand."""

import pytest
import torch

from utils.superposition.exact import exact_loss
from utils.superposition.phases import analytic_boundary, classify_phase, phase_diagram, pure_losses
from utils.superposition.toy import ToyModel, sample_features, toy_loss

PURE = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, -1.0]]])


def biases(p):
    return torch.tensor([[0, p / 2], [p / 2, 0], [0, 0]])


@pytest.mark.parametrize(("p", "r"), [(0.1, 0.5), (0.4, 3.0), (1.0, 0.2)])
def test_pure_losses_are_those_of_the_toy_model(p, r):
    model = ToyModel(3, 2, 1, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        model.W.copy_(PURE)
        model.b.copy_(biases(p))
        features = sample_features(2, 400_000, torch.full((3,), p), torch.Generator().manual_seed(1))
        sampled = toy_loss(model(features), features, torch.tensor([1.0, r]))
    torch.testing.assert_close(pure_losses(torch.tensor(p), torch.tensor(r)), sampled, rtol=0.03, atol=1e-4)


@pytest.mark.parametrize(("p", "r"), [(0.1, 0.5), (0.4, 3.0), (1.0, 0.2)])
def test_pure_losses_by_integration(p, r):
    importance = torch.tensor([[1.0, r]]).expand(3, 2)
    integrated = exact_loss(PURE, biases(p), torch.full((3,), p), importance, n_nodes=40)
    torch.testing.assert_close(pure_losses(torch.tensor(p), torch.tensor(r)), integrated, rtol=2e-3, atol=1e-6)


def test_the_bias_of_an_ignored_feature_can_do_no_better():
    p, r = 0.3, 2.0
    best = pure_losses(torch.tensor(p), torch.tensor(r))[0]
    for shift in (-0.05, 0.05):
        b = torch.tensor([[0.0, p / 2 + shift]])
        assert exact_loss(PURE[:1], b, torch.tensor([p]), torch.tensor([[1.0, r]])) > best + 1e-3


def test_the_boundary_is_where_a_search_finds_it():
    p, r = torch.linspace(0.02, 0.99, 60).double(), torch.logspace(-2.5, 2.5, 20_001).double()
    shared = pure_losses(p[:, None], r[None]).argmin(-1) == 2
    lower, upper = analytic_boundary(p)
    for i in range(60):
        if not shared[i].any():
            assert lower[i] == upper[i] == 1
            continue
        assert r[shared[i]].min().item() == pytest.approx(lower[i].item(), rel=2e-3)
        assert r[shared[i]].max().item() == pytest.approx(upper[i].item(), rel=2e-3)
    assert not shared[p > 4 / 7].any() and shared[p < 0.55].any(1).all()


def test_exact_loss_is_what_sampling_gives_for_more_features():
    generator = torch.Generator().manual_seed(0)
    W, b = torch.randn(4, 2, 3, generator=generator), 0.1 * torch.randn(4, 3, generator=generator)
    p, importance = torch.tensor([0.1, 0.4, 0.7, 1.0]), 0.5 + torch.rand(4, 3, generator=generator)
    features = sample_features(3, 300_000, p, generator)
    output = torch.relu(torch.einsum("mbf,mdf,mdg->mbg", features, W, W) + b[:, None])
    torch.testing.assert_close(
        exact_loss(W, b, p, importance, 12), toy_loss(output, features, importance), rtol=0.03, atol=1e-4
    )


def test_known_geometries():
    angles = 2 * torch.pi * torch.arange(5) / 5
    pentagon = torch.stack([angles.cos(), angles.sin()])[None]
    assert [int(classify_phase(pentagon, i)) for i in range(5)] == [2] * 5
    assert [int(classify_phase(torch.eye(3)[None, :2], i)) for i in range(3)] == [1, 1, 0]


def test_a_diagram_of_models_that_are_the_pure_solutions():
    """A ``train`` that tries the three solutions exactly gives back the analytic map."""
    p, r = torch.logspace(-1.5, 0, 7), torch.logspace(-1, 1, 8)

    def train(p, importance):
        start = torch.arange(len(p)) % 3
        losses = pure_losses(p, importance[:, 1])[torch.arange(len(p)), start]
        return PURE[start], losses

    expected = pure_losses(p[:, None], r[None]).argmin(-1)
    assert torch.equal(phase_diagram(train, p, r, n_starts=3), expected)
