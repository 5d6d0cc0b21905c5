"""Scores, losses and loop of part 09b against closed forms, exhaustive search and themselves."""

import itertools
import math
from collections import Counter

import pytest
import torch
from scipy.integrate import quad
from scipy.stats import chisquare
from torch import Generator

from utils.spd.case_09b import suspect
from utils.spd.components import RankOneComponents
from utils.spd.gates import ComponentGates
from utils.spd.score import (
    ablate_the_rest,
    components_per_input,
    match_components,
    mean_l2_ratio,
    mean_max_cosine_similarity,
    random_needed,
    recovered,
)
from utils.spd.side_by_side import far_apart, start_at_examples, train_side_by_side
from utils.spd.toys import active_features, toy_target
from utils.spd.training import spd_losses, train_spd


def generator(seed=0):
    return Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def target():
    return toy_target(5, 2, trained=False, seed=3)


def as_components(truth, spare=0):
    """A true decomposition as components, with some of zeros behind."""
    parts = {}
    for name, matrices in truth.items():
        n, d_in, d_out = matrices.shape
        part = RankOneComponents(d_in, d_out, n + spare).requires_grad_(False)
        u, s, v = torch.linalg.svd(matrices)
        part.V.zero_()
        part.U.zero_()
        part.V[:, :n], part.U[:n] = (u[:, :, 0] * s[:, :1]).T, v[:, 0]
        parts[name] = part
    return parts


def gates_at(C, level):
    gates = ComponentGates(C).requires_grad_(False)
    gates.W_out.zero_()
    gates.b_out.fill_(level)
    return gates


def test_losses_of_the_truth_are_zero_and_its_price_is_a_count(target):
    parts = as_components(target.truth, spare=2)
    x = active_features(5, 50)(generator())
    for level, price in ((1.0, 14.0), (3.0, 14 * 1.02), (0.25, 14 * 0.25)):
        gates = {name: gates_at(7, level) for name in parts}
        losses = spd_losses(target.forward, target.weights, parts, gates, x, p=1.0, generator=generator())
        assert losses["faithfulness"] < 1e-12 and losses["minimality"].item() == pytest.approx(price, rel=1e-5)
        masked = max(losses["stochastic"], losses["layerwise"])
        assert masked < 1e-10 if level >= 1 else masked > 1e-5


@pytest.mark.parametrize("C", [3, 12, 20])
def test_chance_of_the_published_score_in_the_plane(C):
    """The best of C random angles: its density is C/π (1 − θ/π)^(C−1)."""
    expected = quad(lambda t: math.cos(t) * C / math.pi * (1 - t / math.pi) ** (C - 1), 0, math.pi)[0]
    W = torch.randn(5, 2, generator=generator())
    scores = [
        mean_max_cosine_similarity(W, RankOneComponents(5, 2, C, generator=generator(s)).matrices()) for s in range(400)
    ]
    scores = torch.stack(scores)
    assert (scores.mean() - expected).abs() < 4.5 * scores.std() / 20
    if C == 20:
        assert 0.97 < expected < 0.985


def test_scores_of_scaled_truth(target):
    W, truth = target.weights["down"], target.truth["down"]
    assert mean_max_cosine_similarity(W, 0.3 * truth).item() == pytest.approx(1, abs=1e-6)
    assert mean_l2_ratio(W, 0.3 * truth).item() == pytest.approx(0.3, abs=1e-6)
    assert not recovered(0.3 * truth, truth).any() and recovered(1.04 * truth, truth).all()


def test_means_hide_a_part_that_was_swallowed(target):
    """One component takes a share of another's feature: in the plane both means stay near 1."""
    W = torch.tensor([[1.0, 0], [0.8, 0.6]])
    truth = torch.einsum("fi,fo->fio", torch.eye(2), W)
    swallowed = truth.clone()
    swallowed[0] = torch.outer(torch.tensor([1.0, 0.5]), W[0])
    swallowed[1] = torch.outer(torch.tensor([0.0, 1.0]), W[1] - 0.5 * W[0])
    assert torch.allclose(swallowed.sum(0), truth.sum(0))
    assert mean_max_cosine_similarity(W, swallowed) > 0.89 and mean_l2_ratio(W, swallowed) > 0.7
    assert not recovered(swallowed, truth).any()


@pytest.mark.parametrize(("n", "C"), [(4, 6), (5, 3), (3, 3)])
def test_matching_against_all_assignments(n, C):
    components, truth = torch.randn(C, 3, 2, generator=generator(1)), torch.randn(n, 3, 2, generator=generator(2))
    match = match_components(components, truth)
    cosines = torch.cosine_similarity(truth.flatten(1)[:, None], components.flatten(1)[None], dim=2)
    rows = min(n, C)
    best = max(
        sum(cosines[r, c].item() for r, c in zip(chosen, order, strict=True))
        for chosen in itertools.combinations(range(n), rows)
        for order in itertools.permutations(range(C), rows)
    )
    assert match.cosine.sum().item() == pytest.approx(best, abs=1e-5)
    assert (match.partner >= 0).sum() == rows


def test_random_sets_are_evenly_drawn():
    live = torch.tensor([True, True, False, True, True])
    needed = torch.tensor([True, True, False, False, False]).expand(3000, 5)
    sets = Counter(tuple(row.nonzero().flatten().tolist()) for row in random_needed(needed, live, generator(9)))
    assert len(sets) == 6 and chisquare(list(sets.values())).pvalue > 1e-4


def test_with_the_truth_the_rest_may_be_anything(target):
    parts = as_components(target.truth)
    x = active_features(5, 60)(generator(4))
    output = target.forward(x, lambda name, a: a @ target.weights[name])
    needed = {"down": x > 0}
    for magnitude in (-3.0, 0.0, 0.4, 7.0):
        kept = ablate_the_rest(target.forward, target.weights, parts, x, needed, magnitude)
        torch.testing.assert_close(kept, output, atol=1e-5, rtol=1e-5)
    everything = {name: torch.ones(60, 5, dtype=torch.bool) for name in parts}
    torch.testing.assert_close(
        ablate_the_rest(target.forward, target.weights, parts, x, everything, 5.0), output, atol=1e-5, rtol=1e-5
    )


def test_needed_is_what_the_gates_say(target):
    parts = as_components(target.truth)
    gates = {name: gates_at(5, 0.0) for name in parts}
    gates["down"].b_out.copy_(torch.tensor([0.2, 0.09, -3.0, 0.11, 5.0]))
    needed = components_per_input(target.forward, target.weights, parts, gates, torch.rand(4, 5))
    assert needed["down"].tolist() == [[True, False, False, True, True]] * 4 and not needed["up"].any()


def test_one_run_beside_none_is_the_run_alone(target):
    settings = {"C": 6, "price": 0.01, "lr": 0.02, "n_steps": 8}
    draw = active_features(5, 9)
    (run,) = train_side_by_side(target.forward, target.weights, draw, seeds=[5], **settings)
    start = start_at_examples(target.forward, target.weights, draw, 6, generator(5))
    alone = train_spd(target.forward, target.weights, draw, seed=5, start=start, **settings)
    for name in target.weights:
        torch.testing.assert_close(run.components[name].V, alone.components[name].V, atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(run.gates[name].W_in, alone.gates[name].W_in, atol=1e-5, rtol=1e-4)


def test_runs_side_by_side_share_nothing(target):
    """Without masks and with one batch for all, runs in company end where they do alone."""
    fixed = active_features(5, 9)(generator(1))
    settings = {"C": 6, "price": 0.01, "lr": 0.02, "n_steps": 6, "weigh": {"stochastic": 0.0, "layerwise": 0.0}}
    given = target.forward, target.weights, lambda g: fixed
    both = train_side_by_side(*given, seeds=[1, 2], at_examples=False, **settings)
    for run, seed in zip(both, (1, 2), strict=True):
        (alone,) = train_side_by_side(*given, seeds=[seed], at_examples=False, **settings)
        for name in target.weights:
            torch.testing.assert_close(run.components[name].U, alone.components[name].U, atol=1e-4, rtol=1e-3)
    assert (both[0].components["up"].U - both[1].components["up"].U).abs().max() > 0.1


def test_a_start_at_examples_is_near_the_matrix_and_holds_each_feature(target):
    components, _ = start_at_examples(target.forward, target.weights, active_features(5, 64), 12, generator(2))
    W, V = target.weights["down"], components["down"].V
    assert (torch.nn.functional.normalize(V, dim=0) > 0.999).any(1).all()  # each feature alone is among the examples
    cosine = torch.cosine_similarity(components["down"].weight().flatten(), W.flatten(), dim=0)
    assert cosine > 0.8
    axes = torch.eye(6)[[0, 0, 0, 1, 2, 3, 4, 5]]
    assert set(axes[far_apart(axes, 6)].argmax(1).tolist()) == set(range(6))


@pytest.mark.parametrize("kind", ["sound", "split", "shared", "hidden"])
def test_suspects_add_up_and_work_under_the_masks_that_they_claim(kind):
    given = suspect(kind, 12)
    x, W, V, U, g = given
    assert (V @ U - W).norm() < 0.1 * W.norm()
    r = torch.rand(g.shape, generator=generator(3))
    moved = (x @ V * (g + (1 - g) * r) @ U - x @ W).norm() / (x @ W).norm()
    at_zero = (x @ V * g @ U - x @ W).norm() / (x @ W).norm()
    assert at_zero < 0.12 and (moved > 0.09 if kind == "hidden" else moved < 0.08)
