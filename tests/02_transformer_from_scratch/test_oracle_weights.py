"""Rewritten weights against the ones that ``transformer_lens`` makes."""

from dataclasses import asdict, replace

import pytest
import torch

from utils.models.config import TransformerConfig
from utils.models.hooked import hooked_transformer
from utils.models.llama import LlamaConfig
from utils.transformer.model import Transformer
from utils.transformer.weights import center_writing_weights, fold_layer_norm

CFG = TransformerConfig(d_model=12, n_layers=3, n_heads=3, d_head=5, d_mlp=20, n_ctx=9, d_vocab=17)


def random_state(seed, cfg=CFG):
    rng = torch.Generator().manual_seed(seed)
    shapes = {name: value.shape for name, value in Transformer(cfg).state_dict().items()}
    return {name: 0.5 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}


def assert_same_weights(ours, theirs, leave_out=()):
    """``theirs`` may lack the norms' parameters (folded away) and has a mask of its own."""
    names = [name for name in ours if not name.endswith(leave_out) and name in theirs]
    assert len(names) >= 2 + 12 * CFG.n_layers + 2
    for name in names:
        assert torch.allclose(ours[name], theirs[name], rtol=1e-4, atol=1e-5), name


def readers_centred(state):
    """What ``transformer_lens`` does besides when it folds: takes the readers' mean out, too."""
    new = dict(state)
    for name in state:
        if name.endswith(("W_Q", "W_K", "W_V", "W_in", "W_U")):
            new[name] = state[name] - state[name].mean(dim=-2, keepdim=True)
    return new


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("centre", [False, True])
def test_folded_weights_are_transformer_lens(seed, centre):
    state = random_state(seed)
    processed = hooked_transformer(CFG, state)
    whole = dict(processed.state_dict())
    theirs = processed.fold_layer_norm(whole, fold_biases=True, center_weights=centre)
    ours = fold_layer_norm(state, CFG)
    assert_same_weights(readers_centred(ours) if centre else ours, theirs, leave_out=(".w", ".b"))


@pytest.mark.parametrize("seed", [0, 1])
def test_centred_weights_are_transformer_lens(seed):
    state = random_state(seed)
    processed = hooked_transformer(CFG, state)
    theirs = processed.center_writing_weights(dict(processed.state_dict()))
    assert_same_weights(center_writing_weights(state, CFG), theirs)


@pytest.mark.parametrize(
    "steps",
    [
        (fold_layer_norm,),
        (center_writing_weights,),
        (fold_layer_norm, center_writing_weights),
        (center_writing_weights, fold_layer_norm),
    ],
)
@pytest.mark.parametrize("cfg", [CFG, replace(CFG, d_mlp=0)], ids=["with MLPs", "attention only"])
def test_outputs_stay(steps, cfg):
    """In double precision, where rounding hides nothing."""
    state = {name: value.double() for name, value in random_state(2, cfg).items()}
    tokens = torch.randint(cfg.d_vocab, (4, cfg.n_ctx), generator=torch.Generator().manual_seed(3))
    before, after = Transformer(cfg).double(), Transformer(cfg).double()
    before.load_state_dict(state)
    processed = state
    for step in steps:
        processed = step(processed, cfg)
    assert any(not torch.equal(processed[name], state[name]) for name in state)
    after.load_state_dict(processed)
    torch.testing.assert_close(after(tokens), before(tokens), rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("rewrite", [fold_layer_norm, center_writing_weights])
def test_other_transformers_are_refused_in_one_sentence(rewrite):
    llama = LlamaConfig(**asdict(CFG), n_key_value_heads=1, rotary_base=10_000.0, tied=True)
    for state in ({}, random_state(0)):
        with pytest.raises(ValueError, match="of another kind: if its norms are RMS norms, they"):
            rewrite(state, llama)


def test_stream_has_mean_zero():
    model = Transformer(CFG)
    model.load_state_dict(center_writing_weights(random_state(4), CFG))
    stream = model.embed["W_E"][:5] + model.pos_embed["W_pos"][:5]
    stream = stream[None]
    for block in model.blocks:
        stream = block(stream)
        torch.testing.assert_close(stream.mean(dim=-1), torch.zeros(1, 5), rtol=0, atol=1e-5)
