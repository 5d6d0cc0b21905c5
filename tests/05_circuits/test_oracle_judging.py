"""The tests of a circuit against brute force over all subsets, the algebra of a linear model, and planted truths."""

from itertools import chain, combinations
from pathlib import Path

import pytest
import torch

from utils.circuits.judging import (
    circuit_completeness,
    circuit_faithfulness,
    circuit_generalization,
    circuit_minimality,
)
from utils.circuits.messages import sender_outputs
from utils.circuits.planted import planted_circuit
from utils.circuits.scores import ablations, between_its_nodes, edge_score
from utils.circuits.stability import bootstrap_circuit, random_circuits
from utils.course.paths import load_file

common = load_file(Path(__file__).with_name("common_05d.py"))


def subsets(parts):
    return map(frozenset, chain.from_iterable(combinations(parts, size) for size in range(len(parts) + 1)))


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(5)


def test_minimality_is_the_best_of_all_subsets(rng):
    for seed in range(4):
        score = common.SetFunction(torch.Generator().manual_seed(seed), "abcdef", 4)
        found = circuit_minimality(score, list("abcde"), 4)
        for part in "abcde":
            best = max(
                abs((score(kept | {part}) - score(kept)).mean().item()) for kept in subsets(set("abcde") - {part})
            )
            assert found[part][1] == pytest.approx(best, abs=1e-5)


def test_greedy_search_lies_between_its_start_and_the_worst_of_all_subsets(rng):
    reached = 0
    for seed in range(20):
        score = common.SetFunction(torch.Generator().manual_seed(seed), "abcdefg", 4)
        circuit, everything = frozenset("abcde"), frozenset("abcdefg")
        _, gaps = circuit_completeness(score, list("abcde"), list("abcdefg"), 5)
        every = [abs((score(circuit - K) - score(everything - K)).mean().item()) for K in subsets(circuit)]
        assert gaps[0] - 1e-5 <= max(gaps) <= max(every) + 1e-5
        assert gaps[0] == pytest.approx(every[0], abs=1e-5)
        assert gaps[1] == pytest.approx(max(every[1:6]), abs=1e-5)
        reached += max(gaps) > max(every) - 1e-5
    assert 10 <= reached < 20  # it mostly finds the worst set, and not always


def test_in_a_linear_model_all_is_known(rng):
    """F is a sum over parts: the share is a quotient of sums, K changes nothing, and a gap is what is left out."""
    weights = dict(zip("abcdef", torch.randn(6, 9, generator=rng), strict=True))

    def score(parts):
        return 3.0 + sum((weights[part] for part in parts), torch.zeros(9))

    mean = {part: weight.mean().item() for part, weight in weights.items()}
    share, gap = circuit_faithfulness(score, "abd", "abcdef")
    assert share == pytest.approx((mean["a"] + mean["b"] + mean["d"]) / sum(mean.values()), rel=1e-4)
    outside = abs(mean["c"] + mean["e"] + mean["f"])
    assert gap == pytest.approx(outside, rel=1e-4)
    _, gaps = circuit_completeness(score, "abd", "abcdef", 3)
    assert gaps == pytest.approx([outside] * 4, rel=1e-4)
    for part, (_, value) in circuit_minimality(score, "abd", 2).items():
        assert value == pytest.approx(abs(mean[part]), rel=1e-4)


def test_the_interval_holds_the_truth_about_as_often_as_it_says():
    inside = 0
    for seed in range(200):
        generator = torch.Generator().manual_seed(seed)
        whole = 4 + torch.randn(30, generator=generator)
        kept = 0.7 * whole + 0.8 * torch.randn(30, generator=generator)
        values = {0: torch.zeros(30), 1: kept, 2: whole}

        def score(parts, values=values):
            return values[len(parts)]

        _, low, high = circuit_generalization({"k": score}, ["a"], ["a", "b"], generator, 300)["k"]
        inside += low < 0.7 < high
    assert 0.88 < inside / 200 < 0.99


def test_a_whole_network_is_itself_and_an_empty_one_the_corrupted_run():
    network = planted_circuit("and", 3)
    sent = sender_outputs(network.model, network.corrupt)
    score = edge_score(network.model, network.clean, network.edges, sent, network.metric)
    assert torch.allclose(score(network.edges), network.metric(network.model(network.clean)), atol=1e-4)
    assert torch.allclose(score(()), network.metric(network.model(network.corrupt)), atol=1e-4)


def test_the_three_ablations():
    network = planted_circuit("or", 3)
    carried = ablations(network.model, network.clean, [network.corrupt, network.clean])
    one, other = (sender_outputs(network.model, tokens) for tokens in (network.corrupt, network.clean))
    assert torch.equal(carried["resample"], one) and not carried["zero"].any()
    assert torch.allclose(carried["mean"], (one + other) / 2)


def test_between_its_nodes():
    edges = [("embed", "a0.0.q"), ("embed", "a0.0.v"), ("embed", "m0"), ("a0.0", "m0"), ("a0.0", "a1.0.k")]
    assert between_its_nodes([("embed", "a0.0.v"), ("a0.0", "m0")], edges) == edges[:4]


@pytest.mark.parametrize("kind", ["and", "or"])
@pytest.mark.parametrize("seed", range(6))
def test_the_planted_truth_gets_full_marks_and_each_damage_costs_its_own(kind, seed):
    network = planted_circuit(kind, seed, noise=0.05)
    truth = [edge for edge, true in zip(network.edges, network.truth.tolist(), strict=True) if true]
    sent = sender_outputs(network.model, network.corrupt)
    score = edge_score(network.model, network.clean, network.edges, sent, network.metric)

    def marks(parts):
        share, _ = circuit_faithfulness(score, parts, network.edges)
        _, gaps = circuit_completeness(score, parts, network.edges, 2)
        idlest = min(value for _, value in circuit_minimality(score, parts, 1).values())
        return abs(share - 1) < 0.25, max(gaps) < 1, idlest > 1

    lost = next(sender for sender, receiver in truth if sender[0] == "a" and receiver[0] == "m")
    one_route = [edge for edge in truth if lost not in (edge[0], edge[1].removesuffix(".v"))]
    idle = [edge for edge in network.edges if edge not in truth and edge[1][-1] not in "qk"][: 3 + seed]
    assert marks(truth) == (True, True, True)
    assert marks(truth + idle) == (True, True, False)
    assert marks(one_route)[:2] == ((True, False) if kind == "or" else (False, False))
    assert not marks(truth[:-1])[0]


def test_random_circuits_against_the_hypergeometric_law():
    generator, numbers = torch.Generator().manual_seed(1), list(range(12))
    drawn = random_circuits([0, 1, 2, 3], numbers, lambda part: None, 4000, generator)
    overlaps = torch.tensor([len(circuit & {0, 1, 2, 3}) for circuit in drawn])
    for k, probability in enumerate((70 / 495, 224 / 495, 168 / 495, 32 / 495, 1 / 495)):
        assert (overlaps == k).float().mean().item() == pytest.approx(probability, abs=0.035)


def test_the_bootstrap_of_two_parts_against_a_binomial():
    """One of two parts is stronger on each of 5 prompts; which comes out follows the number of them that is drawn."""
    effects = torch.tensor([[1.0, 0.0]] * 3 + [[0.0, 1.0]] * 2)
    share, overlap = bootstrap_circuit(effects, 1, 4000, torch.Generator().manual_seed(0))
    wins = sum(c * 0.6**k * 0.4 ** (5 - k) for k, c in ((3, 10), (4, 5), (5, 1)))
    assert share[0].item() == pytest.approx(wins, abs=0.03)
    assert overlap.mean().item() == pytest.approx(wins, abs=0.03)
