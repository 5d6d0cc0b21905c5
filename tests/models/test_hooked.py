"""The seam to transformer_lens and to pretrained weights: what it says when something is not there."""

import pytest
import torch
from huggingface_hub import constants

from utils.models.config import TransformerConfig
from utils.models.hooked import ModelUnavailable, hooked_transformer, load_gpt2_small
from utils.transformer.model import Transformer

CFG = TransformerConfig(d_model=8, n_layers=1, n_heads=2, d_head=4, d_mlp=12, n_ctx=6, d_vocab=10)


def test_without_weights_and_network_there_is_one_sentence(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelUnavailable, match="^The weights of 'nobody/nothing' are not on this machine") as caught:
        load_gpt2_small("nobody/nothing")
    assert "\n" not in str(caught.value)


def test_a_folder_without_weights_is_not_looked_for_on_the_hub(tmp_path):
    with pytest.raises(ModelUnavailable, match="are not on this machine"):
        load_gpt2_small(str(tmp_path))


def test_weights_that_do_not_fit_are_named():
    state = Transformer(CFG).state_dict()
    state["blocks.0.attn.W_X"] = state.pop("blocks.0.attn.W_Q")
    with pytest.raises(RuntimeError, match="(?s)W_Q.*W_X"):
        hooked_transformer(CFG, state)


def test_the_weights_are_the_ones_given_and_gradients_are_left_alone():
    model = Transformer(CFG)
    hooked = hooked_transformer(CFG, model.state_dict())
    for name, value in model.state_dict().items():
        assert torch.equal(hooked.state_dict()[name], value), name
    assert torch.is_grad_enabled()
