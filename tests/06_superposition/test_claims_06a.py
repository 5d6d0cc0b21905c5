"""What part 06a says of the course model, of random and of arranged directions, measured again."""

import math

import pytest
import torch

from utils.data.prompts import documents
from utils.models.catalogue import load_model
from utils.models.course_model import course_model_weights, load_course_model
from utils.models.hooked import hooked_transformer
from utils.models.phenomena.measuring import untrained
from utils.models.phenomena.neurons import family_of_words
from utils.superposition.bases import coordinate_kurtosis, neuron_selectivity, random_rotation, rotate_basis
from utils.superposition.packing import optimize_packing, welch_bound
from utils.superposition.room import (
    almost_orthogonal_dimension,
    jl_dimension,
    max_interference,
    random_directions,
    reading_error,
)

STREAM, BEFORE, NEURONS = "hook_resid_post", "mlp.hook_pre", "mlp.hook_post"


@pytest.fixture(scope="module", autouse=True)
def no_graphs():
    with torch.no_grad():
        yield


@pytest.fixture(scope="module")
def model():
    return load_course_model()


def activations(network, tokens, site, layer):
    name = f"blocks.{layer}.{site}"
    cache = network.run_with_cache(tokens, names_filter=name, return_type=None, stop_at_layer=layer + 1)[1]
    return cache[name][:, 1:-1]


def kurtosis(x, turns=()):
    """Along the own axes, and along each of the turned ones."""
    x = x.flatten(0, 1)
    return coordinate_kurtosis(x).mean().item(), [coordinate_kurtosis(x @ turn).mean().item() for turn in turns]


def generator(seed):
    return torch.Generator().manual_seed(seed)


def loss(state, tokens):
    cfg, _ = course_model_weights()
    return hooked_transformer(cfg, state)(tokens, return_type="loss").item()


@pytest.mark.parametrize("seed", [0, 7])
def test_a_rotation_is_noticed_in_the_hidden_layers_only(seed):
    cfg, weights = course_model_weights()
    tokens = documents(30, seed)
    whole = loss(weights, tokens)
    assert whole == pytest.approx(1.38, abs=0.1)
    turn = random_rotation(cfg.d_model, seed, keep_ones=True)
    assert loss(rotate_basis(weights, cfg, turn), tokens) == pytest.approx(whole, abs=1e-3)

    def turned_neurons(turn):
        state = dict(weights)
        for layer in range(cfg.n_layers):
            mlp = f"blocks.{layer}.mlp"
            state |= {f"{mlp}.{name}": state[f"{mlp}.{name}"] @ turn for name in ("W_in", "b_in")}
            state[f"{mlp}.W_out"] = turn.T @ state[f"{mlp}.W_out"]
        return loss(state, tokens)

    assert turned_neurons(torch.eye(cfg.d_mlp)[torch.randperm(cfg.d_mlp)]) == pytest.approx(whole, abs=1e-3)
    for draw in range(3):
        assert turned_neurons(random_rotation(cfg.d_mlp, draw + seed)) > 4.5
    silent = {name: 0 * value if ".mlp." in name and "out" in name else value for name, value in weights.items()}
    assert loss(silent, tokens) > 5.5


@pytest.mark.parametrize("seed", [0, 5])
def test_the_neurons_axes_stand_out_and_the_streams_a_little(model, seed):
    tokens, chance = documents(40, seed), untrained(model, seed)
    turn = [random_rotation(512, seed)]
    for layer in range(4):
        own, (turned,) = kurtosis(activations(model, tokens, NEURONS, layer), turn)
        assert own > 15 and 3 < turned < 6
        own, (turned,) = kurtosis(activations(model, tokens, BEFORE, layer), turn)
        assert 3.3 < own < 4.1 and turned < 3.2
        own, (turned,) = kurtosis(activations(chance, tokens, NEURONS, layer), turn)
        assert 5 < own < 7 and turned < 3.2
        assert kurtosis(activations(chance, tokens, BEFORE, layer))[0] < 3.1
    turns = [random_rotation(128, 1000 * seed + draw, keep_ones=True) for draw in range(39)]
    for network in (model, load_model("course-model-seed-1")):
        for layer in (0, 1, 3):
            own, turned = kurtosis(activations(network, tokens, STREAM, layer), turns)
            assert sum(value >= own for value in turned) <= 1
            assert own < 1.35 * sum(turned) / 39


def test_in_untrained_streams_the_own_axes_stand_anywhere(model):
    tokens = documents(16, 3)
    turns = [random_rotation(128, 5000 + draw, keep_ones=True) for draw in range(39)]
    ranks = []
    for seed in range(100, 112):
        own, turned = kurtosis(activations(untrained(model, seed), tokens, STREAM, 0), turns)
        ranks.append(sum(value >= own for value in turned))
    assert 8 < sum(ranks) / 12 < 31 and max(ranks) > 25 and min(ranks) < 15


def balanced(x, family, seed, per_family=24):
    places = [(family == f).nonzero().flatten() for f in range(8)]
    chosen = torch.cat([p[torch.randperm(len(p), generator=generator(seed))[:per_family]] for p in places])
    return x[chosen], family[chosen]


@pytest.mark.parametrize("seed", [0, 4])
def test_neurons_are_hardly_more_selective_than_random_directions(model, seed):
    tokens, turn = documents(40, seed), random_rotation(512, seed)
    family = family_of_words()[tokens[:, 1:-1]].flatten()
    for layer in range(4):
        x, c = balanced(activations(model, tokens, NEURONS, layer).flatten(0, 1), family, seed)
        own, turned = (neuron_selectivity(y, c, 12).mean().item() for y in (x, x @ turn))
        assert 2.4 < own < 4.1 and -0.7 < own - turned < 0.5
        x, c = balanced(activations(untrained(model, seed), tokens, NEURONS, layer).flatten(0, 1), family, seed)
        assert neuron_selectivity(x, c, 12).mean().item() == pytest.approx(5, abs=0.25)


def test_names_hold_among_all_words_more_often_for_neurons_and_in_other_documents_as_it_comes(model):
    tokens = documents(192, 0)
    family = family_of_words()[tokens[:, 1:-1]]
    found = [activations(model, tokens, NEURONS, layer) for layer in range(4)]

    def names(turn, group):
        """Named, with a name that holds in other documents, and among all words there as well."""
        here, there = (slice(32 * g, 32 * g + 32) for g in (group, (group + 3) % 6))
        kept = torch.zeros(3)
        for x in (x @ turn for x in found):
            first, c = balanced(x[here].flatten(0, 1), family[here].flatten(), 0)
            named = (neuron_selectivity(first, c, 12) < 1.01).nonzero().flatten()
            what = c[first[:, named].argmax(0)]
            again, c = balanced(x[there].flatten(0, 1), family[there].flatten(), 50)
            holds = (c[again[:, named].topk(12, dim=0).indices] == what).float().mean(0) > 0.9
            top = x[there].flatten(0, 1)[:, named].topk(12, dim=0).indices
            among_all = (family[there].flatten()[top] == what).float().mean(0) > 0.9
            kept += torch.tensor([len(named), holds.sum(), (holds & among_all).sum()])
        return kept

    turns = [torch.eye(512), *(random_rotation(512, seed) for seed in range(3))]
    counts = torch.stack([torch.stack([names(turn, group) for group in range(6)]) for turn in turns])
    in_others, among_all = counts[..., 1] / counts[..., 0], counts[..., 2] / counts[..., 0]
    assert (counts[0, :, 0] > 40).all() and (counts[0, :, 0] < 110).all()
    assert in_others.min() < 0.6 and in_others.max() > 0.8  # of either kind
    assert (in_others[1:] > in_others[0]).any()  # in some choice of documents the random ones do better
    assert 0.12 < among_all[0].mean() < 0.25 and among_all[1:].mean(1).max() < 0.75 * among_all[0].mean()
    assert (counts[0, :, 2] > counts[1:, :, 2]).float().mean() > 0.8


def test_the_worst_of_many_pairs_and_the_growth_of_the_room():
    worst = max_interference(random_directions(2000, 4096, generator(5)))
    assert 0.07 < worst < 0.095 and 4 < worst * 64 < 6
    assert 90 - math.degrees(math.acos(worst)) < 5.5

    def room(d, epsilon, seed, limit=2500):
        W = random_directions(limit, d, generator(seed))
        bad = ((W @ W.T).abs().tril(-1) > epsilon).any(1).nonzero()
        return bad[0].item() if len(bad) else limit

    for epsilon, low, high in ((0.2, 200, 400), (0.3, 96, 192)):
        few, many = (sum(math.log(room(d, epsilon, seed)) for seed in range(12)) / 12 for d in (low, high))
        assert 0.85 < (many - few) / (high - low) / (epsilon**2 / 4) < 1.6
    for d in (128, 176):
        promised = max(n for n in range(2, 3000) if n * (n - 1) * math.exp(-d * 0.045) <= 0.5)
        assert sorted(room(d, 0.3, seed) for seed in range(9))[4] > promised


def spread(start, signed=False):
    for sharpness, lr in ((10, 0.05), (30, 0.02), (100, 0.01)):
        start = optimize_packing(start, 100, sharpness=sharpness, lr=lr, signed=signed)
    return start


@pytest.mark.parametrize("seed", [0, 3])
def test_arranged_directions_come_near_welch_and_the_gain_shrinks(seed):
    gains = []
    for n in (80, 128, 256):
        start = random_directions(n, 64, generator(seed))
        before, after = max_interference(start), max_interference(spread(start))
        assert 0.4 < before < 0.65 and welch_bound(n, 64) < after < 1.4 * welch_bound(n, 64)
        gains.append(before / after)
    assert gains[0] > gains[1] > gains[2] > 2.8
    assert max_interference(spread(random_directions(128, 64, generator(seed)), signed=True), signed=True) < 0.02


def test_dimensions_for_256_directions():
    assert jl_dimension(256, 0.3) == 617 and almost_orthogonal_dimension(256, 0.3, 0.5) == 262
    assert welch_bound(256, 11) < 0.3 < welch_bound(256, 10)
    assert max_interference(spread(random_directions(256, 27, generator(1)))) < 0.3
    good = [max_interference(random_directions(256, d, generator(s))) < 0.3 for d in (170, 230) for s in range(12)]
    assert sum(good[:12]) <= 5 and sum(good[12:]) >= 8


def some_on(n, k, seed):
    order = torch.rand(1000, n, generator=generator(seed)).argsort(1)
    return (order < k).float()


@pytest.mark.parametrize("seed", [0, 2])
def test_the_worst_pair_is_not_what_a_reader_hears(seed):
    start = random_directions(256, 64, generator(seed))
    packed = spread(start)
    cone = 0.1**0.5 * torch.eye(64)[0] + 0.9**0.5 * packed
    cone /= cone.norm(dim=1, keepdim=True)
    worst = [max_interference(W) for W in (start, packed, cone)]
    error = [reading_error(W, some_on(256, 16, seed)) for W in (start, packed, cone)]
    assert worst[1] < worst[2] < worst[0] and worst[0] > 3 * worst[1]
    assert error[2] > 2.5 * error[0] and 1.05 < error[0] / error[1] < 1.25
    assert error[0] == pytest.approx((16 / 64) ** 0.5, abs=0.04)
    for n in (64, 1024, 4096):
        assert reading_error(random_directions(n, 64, generator(seed)), some_on(n, 4, seed)) == pytest.approx(
            0.25, abs=0.02
        )
