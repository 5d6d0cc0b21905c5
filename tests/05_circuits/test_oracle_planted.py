"""The planted circuits are what they are said to be: by exact edge patching over all subsets of the circuit's edges."""

import itertools

import pytest
import torch

from utils.circuits.messages import run_with_edges, sender_outputs
from utils.circuits.planted import KINDS, planted_circuit


def metric_of(planted, kept):
    """The mean metric with these edges kept, a row for each, all others from the corrupt prompts."""
    replaced = sender_outputs(planted.model, planted.corrupt)
    values = []
    for part in kept.split(128):
        logits = run_with_edges(planted.model, planted.clean, planted.edges, part, replaced)
        values += [planted.metric(copy).mean() for copy in logits]
    return torch.stack(values)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("kind", KINDS)
def test_an_edge_belongs_to_the_circuit_if_there_is_a_subset_without_which_it_matters(kind, seed):
    planted = planted_circuit(kind, seed, n=4)
    truth = planted.truth.nonzero()[:, 0].tolist()
    subsets = torch.ones(2 ** len(truth), len(planted.edges), dtype=torch.bool)
    subsets[:, truth] = torch.tensor(list(itertools.product([True, False], repeat=len(truth))))
    values = metric_of(planted, subsets)
    # An edge cut or not, everything else equal: product() makes the partners a fixed distance apart.
    for i, edge in enumerate(truth):
        pairs = values.unflatten(0, (2**i, 2, -1))
        assert (pairs[:, 0] - pairs[:, 1]).abs().max() > 2.5, planted.edges[edge]
    for edge in (~planted.truth).nonzero()[:, 0].tolist():
        without = subsets[:: 1 if len(truth) < 5 else 5].clone()
        without[:, edge] = False
        assert (metric_of(planted, without) - values[:: 1 if len(truth) < 5 else 5]).abs().max() < 1.25


@pytest.mark.parametrize("kind", KINDS)
def test_the_circuit_alone_does_what_the_network_does_and_the_rest_alone_nothing(kind):
    for seed in range(5):
        planted = planted_circuit(kind, seed)
        everything = torch.ones_like(planted.truth)
        whole, circuit, rest, nothing = metric_of(
            planted, torch.stack([everything, planted.truth, ~planted.truth, ~everything])
        )
        gap = whole - nothing
        assert gap > 2.3, (kind, seed)
        assert abs(circuit - whole) < 0.35 * gap, (kind, seed, circuit, whole)
        assert abs(rest - nothing) < 0.2 * gap, (kind, seed)


def test_without_noise_nothing_but_the_circuit_has_an_effect():
    for kind in KINDS:
        planted = planted_circuit(kind, 0, n=4, noise=0)
        values = metric_of(planted, torch.cat([torch.ones(1, 110, dtype=bool), ~torch.eye(110, dtype=bool)]))
        assert (values[1:] - values[0])[~planted.truth].abs().max() < 1e-4


def test_seeds_draw_other_networks_and_unknown_kinds_are_refused():
    circuits = {tuple(planted_circuit("and", seed).truth.nonzero()[:, 0].tolist()) for seed in range(10)}
    assert len(circuits) > 5
    with pytest.raises(ValueError, match="xor"):
        planted_circuit("xor", 0)
