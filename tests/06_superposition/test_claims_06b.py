"""What part 06b says of toy models, measured again; bounds hold for other seeds and other processors."""

from collections import Counter

import pytest
import torch

from utils.models.course_model import load_course_model
from utils.superposition.case_06b import toy_families
from utils.superposition.geometry import (
    feature_dimensionality,
    find_polygon,
    named_groups,
    superposition_vs_sparsity,
)
from utils.superposition.pairs import sample_pairs
from utils.superposition.pictures import SHAPES, directions_figure, toy_figure
from utils.superposition.toy import best_linear_loss
from utils.superposition.train import train_toy_models


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def best_of(run, n_starts):
    best = run.loss.view(-1, n_starts).min(1)
    return run.model.W[best.indices + n_starts * torch.arange(len(best.indices))], best.values


def random_like(W, seed=0):
    noise = torch.randn((20, *W.shape), generator=seeded(seed))
    return W.norm(dim=0) * torch.nn.functional.normalize(noise, dim=1)


@pytest.fixture(scope="module", params=[0, 7])
def seed(request):
    """The notebook's seed, and another."""
    return request.param


def test_without_the_relu_two_features_at_every_sparsity(seed):
    often, falling = torch.tensor([1.0, 0.5, 0.2, 0.1, 0.05, 0.02]), 0.8 ** torch.arange(5.0)
    bound = best_linear_loss(often[:, None].expand(-1, 5), 2, falling)
    found = {}
    for relu in (True, False):
        run = train_toy_models(
            5, 2, often.repeat_interleave(8), importance=falling, relu=relu, n_steps=1000, n_fresh=65_536, seed=seed
        )
        W, losses = best_of(run, 8)
        found[relu] = losses / bound, (W.norm(dim=1) > 0.5).sum(1).tolist()
    assert found[False][1] == [2] * 6 and ((found[False][0] - 1).abs() < 0.06).all()
    shares, stored = found[True]
    assert stored[0] == 2 and stored[-1] == stored[-2] == 5
    assert shares[0].item() == pytest.approx(1, abs=0.05) and shares[4] < 0.35 and shares[5] < 0.25
    assert (shares[:-1] > shares[1:]).all()


def test_random_directions_have_m_over_n():
    for (n, m), mean, spread in (((5, 2), 0.36, 0.1), ((80, 20), 0.2, 0.02), ((400, 20), 0.05, 0.005)):
        W = torch.nn.functional.normalize(torch.randn(100, m, n, generator=seeded(2)), dim=1)
        D = feature_dimensionality(W)
        assert D.mean().item() == pytest.approx(mean, rel=0.08)
        assert D.std().item() == pytest.approx(spread, rel=0.6)
        assert 0.8 * m < D.sum(1).mean() < m


def test_nine_of_ten_are_pentagons(seed):
    run = train_toy_models(5, 2, torch.full((40,), 0.05), n_steps=1000, n_fresh=65_536, seed=seed)
    W, _ = best_of(run, 4)
    corners = [find_polygon(w) for w in W]
    assert corners.count(5) >= 9
    pentagons = W[[c == 5 for c in corners]]
    assert ((feature_dimensionality(pentagons) - 0.4).abs() < 0.01).all()
    sizes, b = pentagons.norm(dim=1), run.model.b.median()
    assert sizes.min() > 1.08 and sizes.max() < 1.2 and -0.32 < b < -0.18
    for formula in (1 / (1 - b), 1 / (1 + b)):
        assert (sizes - formula).abs().min() > 0.08
    assert (sizes - (1 - b).sqrt()).abs().max() < 0.05


def test_random_directions_are_hardly_ever_a_pentagon():
    W = torch.randn(4000, 2, 5, generator=seeded(1))
    assert sum(find_polygon(1.13 * w / w.norm(dim=0)) == 5 for w in W) <= 8


def test_at_one_in_seven_the_figure_depends_on_the_start(seed):
    run = train_toy_models(5, 2, torch.full((80,), 0.15), n_steps=1000, n_fresh=65_536, seed=seed + 1)
    corners = torch.tensor([find_polygon(w) for w in run.model.W])
    assert 20 <= (corners == 5).sum() <= 66 and 12 <= (corners == 4).sum() <= 58
    pentagon, square = (run.loss[corners == k].median() for k in (5, 4))
    assert 1.1 < square / pentagon < 1.3
    best = Counter(find_polygon(w) for w in best_of(run, 4)[0])
    assert best[5] >= 14


def test_the_explorers_stops():
    for n, p, shape in ((5, 0.3, 4), (6, 0.02, 6)):
        assert SHAPES[shape] in toy_figure(n, p)[1]
    assert "no regular polygon" in toy_figure(5, 1.0)[1]
    assert len(directions_figure([torch.eye(2)] * 3, ["a", "b", "c"], columns=2).axes) == 4


def test_importance_decides_the_order(seed):
    chances, worth = torch.tensor([0.9, 0.4, 0.2, 0.1, 0.05, 0.01]), 0.7 ** torch.arange(5.0)
    run = train_toy_models(
        5, 2, chances.repeat_interleave(8), importance=worth, n_steps=1000, n_fresh=32_768, seed=seed
    )
    W, _ = best_of(run, 8)
    stored = W.norm(dim=1) > 0.5
    assert stored[0].tolist() == [True, True, False, False, False]
    assert abs(torch.cosine_similarity(W[0, :, 0], W[0, :, 1], dim=0)) < 0.1
    counts = stored.sum(1)
    assert (counts[1:] >= counts[:-1]).all() and counts[-1] == 5 and counts[2] == counts[3] == 4
    for row, count in zip(stored, counts, strict=True):
        assert row[:count].all()
    assert torch.cosine_similarity(W[1, :, 1], W[1, :, 2], dim=0) < -0.95  # and 0 is alone
    assert abs(torch.cosine_similarity(W[1, :, 0], W[1, :, 1], dim=0)) < 0.2


def test_the_plateau_at_two(seed):
    p = 1 / torch.tensor([1.0, 1.5, 2.5, 3.0, 3.5, 6.0, 100.0])
    trained = []

    def train(probabilities):
        trained.append(train_toy_models(80, 20, probabilities, n_steps=600, n_fresh=1024, seed=seed).model.W)
        return trained[-1]

    found = superposition_vs_sparsity(train, p, 2)
    assert (found[0] - 1).abs().max() < 0.1 and found[1].max() < 1.3
    assert (found[2:5] - 2).abs().max() < 0.15
    assert found[5].min() > 3 and found[6].min() > 4.7
    W = trained[0][::2]
    D, sizes = feature_dimensionality(W), W.norm(dim=1)
    assert D[0].max() < 0.55  # nobody alone, at one feature per dimension
    stored = sizes[3] > 0.5
    assert 38 <= stored.sum() <= 42 and ((D[3, stored] - 0.5).abs() < 0.02).float().mean() > 0.85
    assert named_groups(W[3])["antipodal pair"] >= 16
    null = feature_dimensionality(random_like(W[3]))[:, stored]
    assert ((null - null.median()).abs() < 0.02).float().mean() < 0.5
    assert D[6].mean().item() == pytest.approx(0.25, abs=0.01)
    assert D[6].std() < 0.6 * feature_dimensionality(random_like(W[6])).std()


@pytest.mark.parametrize(
    ("n", "m", "inverse", "name", "at_least"),
    [
        (8, 4, 4.0, "antipodal pair", 27),  # of 32
        (5, 2, 20.0, "pentagon", 6),  # of 8
        (8, 3, 20.0, "square antiprism", 5),
        (4, 3, 10.0, "antipodal pair", 5),
    ],
)
def test_figures_that_form(seed, n, m, inverse, name, at_least):
    run = train_toy_models(n, m, torch.full((8,), 1 / inverse), n_steps=1000, n_fresh=1024, seed=seed + 2)
    found = sum((named_groups(w) for w in run.model.W), Counter())
    assert found[name] >= at_least
    assert not found["tetrahedron"] and not found["triangle"]


def test_where_three_quarters_are_met_they_are_the_mean_of_anything(seed):
    run = train_toy_models(4, 3, torch.full((8,), 1 / 1.5), n_steps=2000, n_fresh=1024, seed=seed + 2)
    D = feature_dimensionality(run.model.W)
    assert D.mean().item() == pytest.approx(0.75, abs=0.03)
    assert D.max() > 0.8 and D.min() < 0.73


def test_ten_in_four_have_two_fifths_and_are_mostly_no_pentagons(seed):
    run = train_toy_models(10, 4, torch.full((8,), 0.1), n_steps=1000, n_fresh=1024, seed=seed + 2)
    assert ((feature_dimensionality(run.model.W) - 0.4).abs() < 0.03).float().mean() > 0.85
    assert sum((named_groups(w) for w in run.model.W), Counter())["pentagon"] <= 8


def test_random_directions_form_no_named_group():
    draws = torch.nn.functional.normalize(torch.randn(200, 3, 8, generator=seeded(5)), dim=1)
    found = sum((named_groups(1.1 * w) for w in draws), Counter())
    assert found["something else"] >= 0.98 * sum(found.values())


def test_some_models_wait_and_others_do_not(seed):
    run = train_toy_models(5, 2, torch.full((24,), 0.05), n_steps=1500, lr=0.003, every=25, seed=seed + 4)
    in_place = feature_dimensionality(run.W).min(-1).values > 0.25
    steps = torch.tensor(run.steps)
    arrived = torch.stack([steps[row].min() if row[-1] else torch.tensor(9999) for row in in_place.T])
    assert (arrived <= 500).sum() >= 10 and (arrived > 500).sum() >= 3 and (arrived <= 200).sum() >= 4


def test_pentagon_and_square_cross_in_a_jump(seed):
    shares = torch.tensor([0.05, 0.15, 0.4, 0.6])
    P = torch.full((4, 5), 0.05)
    P[:, 0] *= shares
    angle = 2 * torch.pi * torch.arange(5) / 5
    starts = (
        1.13 * torch.stack([angle.cos(), angle.sin()]),
        torch.tensor([[0.05, 1.0, 0.0, -1.0, 0.0], [0.07, 0.0, 1.0, 0.0, -1.0]]),
    )
    pentagon, square = (
        train_toy_models(5, 2, P, start=W.expand(4, -1, -1), n_steps=600, n_fresh=131_072, seed=seed) for W in starts
    )
    assert pentagon.loss[1] > 1.08 * square.loss[1] and square.loss[2] > 1.08 * pentagon.loss[2]
    sizes = [run.model.W[:, :, 0].norm(dim=1) for run in (pentagon, square)]
    assert (sizes[0][1:] > 0.8).all() and sizes[0][0] < 0.4  # at full length, or fallen into the square
    assert (sizes[1][:3] < 0.2).all()


def cosine_of_pair(kinds, m, chance, seed, n_models=64):
    run = train_toy_models(
        2 * len(kinds), m, torch.ones(n_models), n_steps=600, n_fresh=1024, seed=seed,
        sampler=lambda batch, generator: sample_pairs(kinds, batch, chance, generator, n_models),
    )  # fmt: skip
    W = run.model.W
    return torch.cosine_similarity(W[:, :, 0], W[:, :, 1]), W[:, :, :2].norm(dim=1)


def test_apart_is_opposite_only_where_features_are_frequent(seed):
    share = {
        (kind, chance): (cosine_of_pair([kind, kind], 2, chance, seed)[0] < -0.7).float().mean().item()
        for kind in ("together", "independent", "apart")
        for chance in (0.05, 0.4)
    }
    assert share["together", 0.05] < 0.15 and share["together", 0.4] < 0.2
    for chance in (0.05, 0.4):
        assert 0.1 < share["independent", chance] < 0.56
    assert 0.15 < share["apart", 0.05] < 0.6 and share["apart", 0.4] > 0.65


def test_a_pair_that_goes_together_collapses(seed):
    cosine, sizes = cosine_of_pair(["together", *["independent"] * 3], 3, 0.3, seed)
    assert cosine.mean() > 0.9 and sizes.mean().item() == pytest.approx(0.73, abs=0.06)
    assert cosine_of_pair(["independent"] * 4, 3, 0.3, seed)[0].mean().abs() < 0.35
    assert cosine_of_pair(["apart", *["independent"] * 3], 3, 0.3, seed)[0].mean() < -0.5


def test_family_d_does_not_store_its_pair():
    families = toy_families(0)
    lengths = {name: torch.stack([m.W[0].norm(dim=0)[:2] for m in models]).mean() for name, models in families.items()}
    assert lengths["D"] < 0.1 and all(lengths[name] > 0.5 for name in "ABC")


def crowding(E):
    unit = torch.nn.functional.normalize(E, dim=1)
    squared = ((unit @ (unit.T @ unit) * unit).sum(1) - 1) / (len(E) - 1)
    D = E.norm(dim=1) ** 4 / (E @ (E.T @ E) * E).sum(1)
    asked = torch.randperm(len(E), generator=seeded(0))[:500]
    cosines = unit[asked] @ unit.T
    cosines[torch.arange(len(asked)), asked] = -1
    return squared.mean().item() * E.shape[1], D.sum().item() / E.shape[1], cosines.max(1).values.median().item()


def same_covariance(E, seed=1):
    centred = E - E.mean(0)
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(E))
    noise = torch.randn(E.shape, generator=seeded(seed))
    white = torch.linalg.qr(noise - noise.mean(0)).Q * len(E) ** 0.5
    return white * values.clamp(min=0).sqrt() @ vectors.T


def test_the_course_models_words_are_no_better_than_random():
    E = load_course_model().W_E[2:].detach()
    squared, total, nearest = crowding(E)
    noise = crowding(torch.randn(E.shape, generator=seeded(3)))
    alike = crowding(same_covariance(E))
    assert squared == pytest.approx(1.2, abs=0.1) and noise[0] == pytest.approx(1, abs=0.03)
    assert total < noise[1] and noise[1] > 0.82
    assert nearest == pytest.approx(alike[2], abs=0.03)


def test_smollm2s_tokens_lean_one_way_and_have_neighbours(smollm2):
    E = smollm2.W_E.detach().float()
    assert crowding(E)[0] > 80
    centred = E - E.mean(0)
    squared, total, nearest = crowding(centred)
    alike = crowding(same_covariance(E))
    assert 3 < squared < 12 and total < 0.5
    assert nearest > 0.5 and alike[2] < 0.4
