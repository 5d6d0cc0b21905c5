"""The modules against PyTorch's own layers and against ``transformer_lens``."""

import pytest
import torch
from torch import nn

from utils.models.config import TransformerConfig
from utils.models.hooked import hooked_transformer
from utils.transformer.model import MLP, Attention, LayerNorm, Transformer, TransformerBlock

CONFIGS = [
    TransformerConfig(d_model=12, n_layers=2, n_heads=3, d_head=5, d_mlp=20, n_ctx=9, d_vocab=17),
    TransformerConfig(d_model=8, n_layers=3, n_heads=2, d_head=6, d_mlp=11, n_ctx=4, d_vocab=23, layer_norm_eps=0.1),
]
ATTENTION_ONLY = TransformerConfig(d_model=10, n_layers=2, n_heads=3, d_head=4, d_mlp=0, n_ctx=7, d_vocab=13)


def randomised(module, seed):
    rng = torch.Generator().manual_seed(seed)
    shapes = {name: value.shape for name, value in module.state_dict().items()}
    module.load_state_dict({name: 0.5 * torch.randn(shape, generator=rng) for name, shape in shapes.items()})
    return module


def sample(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(params=CONFIGS, ids=["eps 1e-5", "eps 0.1"])
def cfg(request):
    return request.param


def test_layer_norm_is_pytorchs(cfg):
    ours = randomised(LayerNorm(cfg), 1)
    theirs = nn.LayerNorm(cfg.d_model, eps=cfg.layer_norm_eps)
    theirs.load_state_dict({"weight": ours.w.detach(), "bias": ours.b.detach()})
    resid = sample(3, 5, cfg.d_model)
    torch.testing.assert_close(ours(resid), theirs(resid))


def test_mlp_is_pytorchs(cfg):
    ours = randomised(MLP(cfg), 2)
    hidden, out = nn.Linear(cfg.d_model, cfg.d_mlp), nn.Linear(cfg.d_mlp, cfg.d_model)
    hidden.load_state_dict({"weight": ours.W_in.detach().T, "bias": ours.b_in.detach()})
    out.load_state_dict({"weight": ours.W_out.detach().T, "bias": ours.b_out.detach()})
    resid = sample(3, 5, cfg.d_model)
    theirs = nn.Sequential(hidden, nn.GELU("tanh"), out)
    torch.testing.assert_close(ours(resid), theirs(resid), rtol=1e-4, atol=1e-5)


def test_attention_and_block_are_transformer_lens(cfg):
    model = randomised(Transformer(cfg), 3)
    theirs = hooked_transformer(cfg, model.state_dict()).blocks[1]
    block = TransformerBlock(cfg)
    block.load_state_dict(model.blocks[1].state_dict())
    attn = Attention(cfg)
    attn.load_state_dict(model.blocks[1].attn.state_dict())
    resid = sample(3, cfg.n_ctx, cfg.d_model)
    torch.testing.assert_close(attn(resid), theirs.attn(resid, resid, resid), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(block(resid), theirs(resid), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("cfg", [*CONFIGS, ATTENTION_ONLY], ids=["eps 1e-5", "eps 0.1", "attention only"])
def test_logits_are_transformer_lens(cfg):
    ours = randomised(Transformer(cfg), 4)
    theirs = hooked_transformer(cfg, ours.state_dict())
    tokens = torch.randint(cfg.d_vocab, (3, cfg.n_ctx), generator=torch.Generator().manual_seed(5))
    torch.testing.assert_close(ours(tokens), theirs(tokens), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(ours(tokens[:, :2]), theirs(tokens[:, :2]), rtol=1e-4, atol=1e-5)


def test_names_round_trip(cfg):
    state = randomised(Transformer(cfg), 6).state_dict()
    theirs = hooked_transformer(cfg, state).state_dict()
    back = Transformer(cfg)
    buffers = (".mask", ".IGNORE")
    back.load_state_dict({name: value for name, value in theirs.items() if not name.endswith(buffers)})
    for name, value in back.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=0, atol=0)


def test_blocks_of_attention_alone_have_no_mlp_and_no_second_norm():
    names = {name.split(".")[2] for name in Transformer(ATTENTION_ONLY).state_dict() if name.startswith("blocks.")}
    assert names == {"ln1", "attn"}


def test_layer_norm_of_a_large_number_in_half_precision():
    """One 2000 among zeros: the sum of squares is beyond float16's 65504."""
    cfg = TransformerConfig(d_model=16, n_layers=1, n_heads=1, d_head=1, d_mlp=1, n_ctx=1, d_vocab=1)
    resid = torch.zeros(1, 1, 16).index_fill(2, torch.tensor([3]), 2000.0)
    for dtype in (torch.float16, torch.bfloat16):
        found = LayerNorm(cfg).to(dtype)(resid.to(dtype))
        assert found.dtype == dtype
        torch.testing.assert_close(found.float(), LayerNorm(cfg)(resid), rtol=0.01, atol=0.01)


def test_initial_weights():
    big = TransformerConfig(d_model=64, n_layers=2, n_heads=4, d_head=24, d_mlp=96, n_ctx=80, d_vocab=90)
    for name, value in Transformer(big).state_dict().items():
        last = name.rsplit(".", 1)[-1]
        if last.startswith("W_"):
            assert abs(value.std().item() - 0.02) < 0.001, name
        else:
            assert torch.equal(value, torch.full_like(value, float(last == "w"))), name


def test_gradients_by_finite_differences():
    mlp = randomised(MLP(CONFIGS[1]), 7).double()
    assert torch.autograd.gradcheck(mlp, sample(1, 2, 8).double().requires_grad_())
    norm = randomised(LayerNorm(CONFIGS[1]), 8).double()
    assert torch.autograd.gradcheck(norm, sample(1, 2, 8).double().requires_grad_())
