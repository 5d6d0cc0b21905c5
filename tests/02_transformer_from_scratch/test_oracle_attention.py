"""The references of attention against torch, transformer_lens and closed forms."""

import warnings
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F

from utils.transformer.attention import (
    attention_head,
    attention_pattern,
    attention_scores,
    causal_mask,
    multi_head_attention,
    ov_circuit,
    qk_circuit,
    softmax_rows,
)

SIZES = [  # batch, pos, d_model, d_head, n_heads
    (2, 5, 8, 3, 4),
    (3, 9, 6, 4, 1),
    (1, 1, 4, 2, 3),
    (2, 33, 48, 16, 5),
]


def layer(seed, batch, pos, d_model, d_head, n_heads, dtype=torch.float64):
    """A residual stream and the weights of a layer of heads, all random, biases too."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape, scale=1.0):
        return scale * torch.randn(shape, generator=generator, dtype=dtype)

    return SimpleNamespace(
        resid=normal(batch, pos, d_model),
        b_O=normal(d_model),
        W_Q=normal(n_heads, d_model, d_head, scale=d_model**-0.5),
        b_Q=normal(n_heads, d_head),
        W_K=normal(n_heads, d_model, d_head, scale=d_model**-0.5),
        b_K=normal(n_heads, d_head),
        W_V=normal(n_heads, d_model, d_head, scale=d_model**-0.5),
        b_V=normal(n_heads, d_head),
        W_O=normal(n_heads, d_head, d_model, scale=d_head**-0.5),
    )


def one_head(x, head):
    return [x.resid, *(w[head] for w in (x.W_Q, x.W_K, x.W_V, x.W_O, x.b_Q, x.b_K, x.b_V))]


@pytest.mark.parametrize("n_ctx", [1, 2, 7, 130])
def test_causal_mask_agrees_with_torch(n_ctx):
    torch.testing.assert_close(causal_mask(n_ctx), torch.nn.Transformer.generate_square_subsequent_mask(n_ctx))


def test_causal_mask_refuses_no_positions():
    for n_ctx in (0, -1):
        with pytest.raises(ValueError, match="at least 1"):
            causal_mask(n_ctx)


@pytest.mark.parametrize("offset", [0.0, 1e4, -1e4, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_softmax_rows_agrees_with_torch(offset, dtype):
    scores = torch.randn(2, 3, 4, 6, generator=torch.Generator().manual_seed(1)).to(dtype) + offset
    scores[0, 0, 0, 1:] = -torch.inf
    scores[0, 1, 2] = -torch.inf
    torch.testing.assert_close(softmax_rows(scores), torch.softmax(scores, dim=-1), equal_nan=True)


def test_softmax_rows_passes_gradcheck():
    scores = torch.randn(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    assert torch.autograd.gradcheck(softmax_rows, scores)


@pytest.mark.parametrize("sizes", SIZES)
def test_head_agrees_with_torch(sizes):
    x = layer(3, *sizes)
    for head in range(sizes[-1]):
        resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V = one_head(x, head)
        moved = F.scaled_dot_product_attention(resid @ W_Q + b_Q, resid @ W_K + b_K, resid @ W_V + b_V, is_causal=True)
        torch.testing.assert_close(attention_head(*one_head(x, head)), moved @ W_O)


@pytest.mark.parametrize("sizes", SIZES)
def test_pattern_agrees_with_torch(sizes):
    """With the identity as values, torch's attention returns its own pattern."""
    x = layer(4, *sizes)
    resid, W_Q, W_K, _, _, b_Q, b_K, _ = one_head(x, 0)
    identity = torch.eye(sizes[1], dtype=resid.dtype).expand(sizes[0], -1, -1)
    for causal, ours in (
        (True, attention_pattern(resid, W_Q, W_K, b_Q, b_K)),
        (False, attention_scores(resid, W_Q, W_K, b_Q, b_K).softmax(-1)),
    ):
        theirs = F.scaled_dot_product_attention(resid @ W_Q + b_Q, resid @ W_K + b_K, identity, is_causal=causal)
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("sizes", SIZES)
def test_layer_agrees_with_torch_multihead_attention(sizes):
    """``nn.MultiheadAttention`` needs n_heads * d_head = d_model, so the stream is that wide here."""
    batch, pos, _, d_head, n_heads = sizes
    d_model = n_heads * d_head
    x = layer(5, batch, pos, d_model, d_head, n_heads)
    theirs = torch.nn.MultiheadAttention(d_model, n_heads, batch_first=True, dtype=torch.float64)
    stacked = torch.cat([W.transpose(1, 2).flatten(0, 1) for W in (x.W_Q, x.W_K, x.W_V)])
    theirs.load_state_dict(
        {
            "in_proj_weight": stacked,
            "out_proj.weight": x.W_O.flatten(0, 1).T,
            "out_proj.bias": x.b_O,
            "in_proj_bias": torch.cat([b.flatten() for b in (x.b_Q, x.b_K, x.b_V)]),
        }
    )
    mask = torch.ones(pos, pos, dtype=torch.bool).triu(1)
    expected, _ = theirs(x.resid, x.resid, x.resid, attn_mask=mask, need_weights=False)
    torch.testing.assert_close(multi_head_attention(**vars(x)), expected)


@pytest.fixture(scope="module")
def lens_attention():
    """transformer_lens's attention layer with given weights, and the pattern and scores that it computed."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from transformer_lens import HookedTransformerConfig
        from transformer_lens.components import Attention

    def run(x):
        n_heads, d_model, d_head = x.W_Q.shape
        cfg = HookedTransformerConfig(
            n_layers=1,
            d_model=d_model,
            n_heads=n_heads,
            d_head=d_head,
            device="cpu",
            n_ctx=x.resid.shape[1],
            attn_only=True,
            dtype=x.resid.dtype,
        )
        attention = Attention(cfg)
        weights = {name: value for name, value in vars(x).items() if name != "resid"}
        attention.load_state_dict(weights, strict=False)
        seen = {}
        attention.hook_pattern.add_hook(lambda value, hook: seen.__setitem__("pattern", value.detach().clone()))
        attention.hook_attn_scores.add_hook(lambda value, hook: seen.__setitem__("scores", value.detach().clone()))
        return attention(x.resid, x.resid, x.resid).detach(), seen["pattern"], seen["scores"]

    return run


@pytest.mark.parametrize("sizes", SIZES)
def test_layer_agrees_with_transformer_lens(sizes, lens_attention):
    x = layer(6, *sizes)
    out, pattern, scores = lens_attention(x)
    torch.testing.assert_close(multi_head_attention(**vars(x)), out)
    visible = torch.ones(sizes[1], sizes[1], dtype=torch.bool).tril()
    for head in range(sizes[-1]):
        weights = x.W_Q[head], x.W_K[head], x.b_Q[head], x.b_K[head]
        torch.testing.assert_close(attention_pattern(x.resid, *weights), pattern[:, head])
        ours = attention_scores(x.resid, *weights)
        torch.testing.assert_close(ours[:, visible], scores[:, head][:, visible])


def test_circuits_agree_with_transformer_lens():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from transformer_lens import FactoredMatrix
    x = layer(7, *SIZES[0])
    torch.testing.assert_close(qk_circuit(x.W_Q[1], x.W_K[1]), FactoredMatrix(x.W_Q[1], x.W_K[1].T).AB)
    torch.testing.assert_close(ov_circuit(x.W_V[1], x.W_O[1]), FactoredMatrix(x.W_V[1], x.W_O[1]).AB)


def test_circuits_have_the_rank_of_a_head():
    x = layer(8, 1, 1, 12, 5, 1)
    for circuit in (qk_circuit(x.W_Q[0], x.W_K[0]), ov_circuit(x.W_V[0], x.W_O[0])):
        values = torch.linalg.svdvals(circuit)
        assert values[4] > 1e-3
        assert values[5:].max() < 1e-12


@pytest.mark.parametrize("sizes", SIZES)
def test_layer_is_the_sum_of_its_heads(sizes):
    x = layer(9, *sizes)
    total = sum(attention_head(*one_head(x, head)) for head in range(sizes[-1])) + x.b_O
    torch.testing.assert_close(multi_head_attention(**vars(x)), total)


@pytest.mark.parametrize("sizes", [sizes for sizes in SIZES if sizes[1] > 1])
def test_no_output_depends_on_the_future(sizes):
    """Exactly zero derivatives, not just small differences."""
    x = layer(10, *sizes)
    x.resid.requires_grad_()
    for i in (0, sizes[1] // 2):
        out = multi_head_attention(**vars(x))
        [gradient] = torch.autograd.grad(out[:, i].square().sum(), x.resid)
        assert (gradient[:, i + 1 :] == 0).all()
        assert (gradient[:, : i + 1] != 0).any()


def test_no_pattern_depends_on_the_key_bias():
    """It adds one number to each row of scores, so that the checks accept patterns without it."""
    x = layer(11, *SIZES[0])
    other = SimpleNamespace(**vars(x) | {"b_K": 3 * x.b_K + 1})
    torch.testing.assert_close(multi_head_attention(**vars(other)), multi_head_attention(**vars(x)))
    assert (
        multi_head_attention(**vars(x) | {"b_Q": 3 * x.b_Q + 1}) - multi_head_attention(**vars(x))
    ).abs().max() > 0.01


def test_half_precision_stays_half_precision():
    x = layer(12, *SIZES[0], dtype=torch.bfloat16)
    exact = layer(12, *SIZES[0], dtype=torch.bfloat16)
    exact = {name: value.double() for name, value in vars(exact).items()}
    out = multi_head_attention(**vars(x))
    assert out.dtype == torch.bfloat16
    assert attention_head(*one_head(x, 0)).dtype == torch.bfloat16
    torch.testing.assert_close(out.double(), multi_head_attention(**exact), rtol=0.05, atol=0.1)


def test_dot_products_beyond_half_precision():
    """Whole numbers, so that queries and keys are exact in float16, and their products far beyond its 65504."""
    generator = torch.Generator().manual_seed(13)
    exact = layer(13, 2, 5, 6, 4, 3)
    for name in ("resid", "b_Q", "b_K"):
        setattr(exact, name, torch.randint(-3, 4, getattr(exact, name).shape, generator=generator).double())
    for name in ("W_Q", "W_K"):
        setattr(exact, name, 32.0 * torch.randint(-3, 4, getattr(exact, name).shape, generator=generator).double())
    half = SimpleNamespace(**{name: value.half() for name, value in vars(exact).items()})
    assert attention_scores(*one_head(exact, 0)[:3], *one_head(exact, 0)[5:7]).abs().max() > 100_000
    found = attention_pattern(*one_head(half, 0)[:3], *one_head(half, 0)[5:7])
    assert found.dtype == torch.float16
    wanted = attention_pattern(*one_head(exact, 0)[:3], *one_head(exact, 0)[5:7])
    torch.testing.assert_close(found.double(), wanted, rtol=0, atol=0.001)
    torch.testing.assert_close(
        multi_head_attention(**vars(half)).double(), multi_head_attention(**vars(exact)), rtol=0.02, atol=0.03
    )
