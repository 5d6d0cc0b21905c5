"""Copying and composition against transformer_lens, closed forms, and a circuit whose composition is known."""

import math

import pytest
import torch
from transformer_lens import FactoredMatrix

from utils.circuits.by_hand import two_head_induction_by_hand
from utils.circuits.weights import composition_score, ov_copying_score
from utils.models.course_model import load_course_model


@pytest.fixture(scope="module")
def model():
    return load_course_model().requires_grad_(False)


@pytest.mark.parametrize("kind", ["Q", "K", "V"])
def test_composition_is_the_library_s(model, kind):
    theirs = model.all_composition_scores(kind)
    for writer, reader in (((0, 1), (2, 0)), ((1, 0), (2, 3)), ((1, 1), (3, 2)), ((0, 3), (1, 2))):
        OV = model.W_V[writer] @ model.W_O[writer]
        other = model.W_V[reader] @ model.W_O[reader] if kind == "V" else model.W_Q[reader] @ model.W_K[reader].T
        expected = theirs[writer[0], writer[1], reader[0], reader[1]]
        torch.testing.assert_close(composition_score(OV, other, kind), expected, atol=1e-5, rtol=1e-4)


def test_copying_is_that_of_the_library_s_eigenvalues(model):
    for layer, head in ((0, 2), (1, 3), (2, 0), (3, 3)):
        circuit = FactoredMatrix(model.W_E @ model.W_V[layer, head], model.W_O[layer, head] @ model.W_U)
        values = circuit.eigenvalues
        ours = ov_copying_score(model.W_E, model.W_V[layer, head], model.W_O[layer, head], model.W_U)
        torch.testing.assert_close(ours, (values.sum().real / values.abs().sum()), atol=1e-4, rtol=1e-3)


def test_random_heads_of_full_rank_compose_like_one_over_the_root_of_the_dimension():
    generator = torch.Generator().manual_seed(0)
    for d in (32, 128):
        found = [composition_score(*torch.randn(2, d, d, generator=generator), "Q") for _ in range(20)]
        assert torch.stack(found).mean().item() == pytest.approx(1 / math.sqrt(d), rel=0.02)


def test_the_circuit_by_hand_composes_by_keys_alone():
    state = {name.removeprefix("blocks."): value for name, value in two_head_induction_by_hand(7, 9).items()}
    OV = state["0.attn.W_V"][0] @ state["0.attn.W_O"][0]
    QK = state["1.attn.W_Q"][0] @ state["1.attn.W_K"][0].T
    later_OV = state["1.attn.W_V"][0] @ state["1.attn.W_O"][0]
    assert composition_score(OV, QK, "K") > 0.2
    assert composition_score(OV, QK, "Q") == 0 and composition_score(OV, later_OV, "V") == 0
    W_E, W_U = state["embed.W_E"], state["unembed.W_U"]
    assert ov_copying_score(W_E, state["1.attn.W_V"][0], state["1.attn.W_O"][0], W_U).item() == pytest.approx(1)
