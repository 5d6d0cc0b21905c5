"""The transformer as modules, with the parameter names and shapes of ``transformer_lens``."""

import torch
import torch.nn.functional as F
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.models.config import TransformerConfig
from utils.transformer.attention import multi_head_attention
from utils.transformer.embedding import embed, positional_embed, unembed


class LayerNorm(nn.Module):
    """Give every residual vector mean 0 and variance 1, then scale and shift each of its coordinates.

    With mean m and variance v of one position's d_model numbers (v divides by d_model, not by d_model - 1):

        out = (resid - m) / sqrt(v + eps) * w + b

    Args:
        cfg: Sizes. ``cfg.layer_norm_eps`` is eps, added to the variance inside the root.

    Parameters:
        w: [d_model], ones at first.
        b: [d_model], zeros at first.

    Source: Ba, Kiros and Hinton (2016), section 3.
    """

    def __init__(self, cfg: TransformerConfig):
        # Given: a module must be initialised before it takes parameters.
        super().__init__()
        # Yours: keep eps, and make w and b.
        self.eps = cfg.layer_norm_eps
        self.w = nn.Parameter(torch.ones(cfg.d_model))
        self.b = nn.Parameter(torch.zeros(cfg.d_model))

    def forward(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """Normalise each position by itself. Gradients flow back to ``resid``, through mean and variance too."""
        # float16 ends at 65504, and squares go beyond it: the statistics are made in float32 at least.
        wide = resid.to(torch.promote_types(resid.dtype, torch.float32))
        centred = wide - wide.mean(dim=-1, keepdim=True)
        variance = centred.pow(2).mean(dim=-1, keepdim=True)
        return (centred / (variance + self.eps).sqrt()).to(resid.dtype) * self.w + self.b


class MLP(nn.Module):
    """Two linear maps with GPT-2's GELU (the tanh approximation) between them, at each position by itself.

        out = gelu(resid @ W_in + b_in) @ W_out + b_out

    Args:
        cfg: Sizes. ``cfg.d_mlp`` is the number of neurons.

    Parameters:
        W_in: [d_model, d_mlp], normal with standard deviation 0.02 at first.
        b_in: [d_mlp], zeros at first.
        W_out: [d_mlp, d_model], normal with standard deviation 0.02 at first.
        b_out: [d_model], zeros at first.

    Source: Vaswani et al. (2017), section 3.3; Hendrycks and Gimpel (2016), section 2, for the GELU.
    """

    def __init__(self, cfg: TransformerConfig):
        # Given: a module must be initialised before it takes parameters.
        super().__init__()
        # Yours: make W_in, b_in, W_out and b_out.
        self.W_in = nn.Parameter(0.02 * torch.randn(cfg.d_model, cfg.d_mlp))
        self.b_in = nn.Parameter(torch.zeros(cfg.d_mlp))
        self.W_out = nn.Parameter(0.02 * torch.randn(cfg.d_mlp, cfg.d_model))
        self.b_out = nn.Parameter(torch.zeros(cfg.d_model))

    def forward(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What the MLP writes; the sum with the residual stream is the block's business."""
        pre = einsum(resid, self.W_in, "batch pos d_model, d_model d_mlp -> batch pos d_mlp") + self.b_in
        post = F.gelu(pre, approximate="tanh")
        return einsum(post, self.W_out, "batch pos d_mlp, d_mlp d_model -> batch pos d_model") + self.b_out


class Attention(nn.Module):
    """Multi-head causal self-attention with parameters of its own.

    Args:
        cfg: Sizes. ``cfg.n_heads * cfg.d_head`` need not equal ``cfg.d_model``.

    Parameters:
        W_Q, W_K, W_V: [n_heads, d_model, d_head]
        W_O: [n_heads, d_head, d_model]
        b_Q, b_K, b_V: [n_heads, d_head]
        b_O: [d_model]

    Source: Vaswani et al. (2017), section 3.2; Elhage et al. (2021) for heads as a sum.
    """

    def __init__(self, cfg: TransformerConfig):
        # Given: eight parameters. Matrices start normal with standard deviation 0.02, biases at zero.
        super().__init__()
        reads, writes = (cfg.n_heads, cfg.d_model, cfg.d_head), (cfg.n_heads, cfg.d_head, cfg.d_model)
        self.W_Q = nn.Parameter(0.02 * torch.randn(reads))
        self.W_K = nn.Parameter(0.02 * torch.randn(reads))
        self.W_V = nn.Parameter(0.02 * torch.randn(reads))
        self.W_O = nn.Parameter(0.02 * torch.randn(writes))
        self.b_Q = nn.Parameter(torch.zeros(cfg.n_heads, cfg.d_head))
        self.b_K = nn.Parameter(torch.zeros(cfg.n_heads, cfg.d_head))
        self.b_V = nn.Parameter(torch.zeros(cfg.n_heads, cfg.d_head))
        self.b_O = nn.Parameter(torch.zeros(cfg.d_model))

    def forward(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """What all heads together write, with b_O; sequences may be of any length."""
        return multi_head_attention(
            resid, self.W_Q, self.W_K, self.W_V, self.W_O, self.b_Q, self.b_K, self.b_V, self.b_O
        )


class TransformerBlock(nn.Module):
    """One layer: attention, then the MLP; each reads a normalised copy of the stream and adds to the stream.

        mid = resid + attn(ln1(resid))
        out = mid + mlp(ln2(mid))

    Where ``cfg.d_mlp`` is 0 the block is attention alone: it has neither ln2 nor mlp, and returns ``mid``.

    Args:
        cfg: Sizes.

    Modules:
        ln1, ln2: ``LayerNorm``
        attn: ``Attention``
        mlp: ``MLP``

    Source: Radford et al. (2019), section 2.3 (pre-norm); Xiong et al. (2020), figure 1b.
    """

    def __init__(self, cfg: TransformerConfig):
        # Given: a module must be initialised before it takes others in.
        super().__init__()
        # Yours: make ln1 and attn, and ln2 and mlp unless cfg.d_mlp is 0.
        self.ln1 = LayerNorm(cfg)
        self.attn = Attention(cfg)
        self.has_mlp = cfg.d_mlp > 0
        if self.has_mlp:
            self.ln2 = LayerNorm(cfg)
            self.mlp = MLP(cfg)

    def forward(self, resid: Float[Tensor, "batch pos d_model"]) -> Float[Tensor, "batch pos d_model"]:
        """The residual stream after this block; ``resid`` itself is left as it was."""
        resid = resid + self.attn(self.ln1(resid))
        return resid + self.mlp(self.ln2(resid)) if self.has_mlp else resid


class Transformer(nn.Module):
    """A GPT-2-like decoder: embeddings, blocks, a final layer norm, and the unembedding.

    Args:
        cfg: Sizes.

    Modules:
        embed, pos_embed, unembed: hold W_E [d_vocab, d_model], W_pos [n_ctx, d_model], and W_U
            [d_model, d_vocab] with b_U [d_vocab].
        blocks: ``cfg.n_layers`` times ``TransformerBlock``, in an ``nn.ModuleList``
        ln_final: ``LayerNorm``

    Source: Radford et al. (2019), section 2.3. Parameter names are those of ``transformer_lens``; embedding
    and unembedding are separate matrices, where GPT-2 ties them.
    """

    def __init__(self, cfg: TransformerConfig):
        # Given: three holders, so that the parameters are called embed.W_E, pos_embed.W_pos, unembed.W_U …
        super().__init__()
        self.cfg = cfg
        self.embed = nn.ParameterDict({"W_E": 0.02 * torch.randn(cfg.d_vocab, cfg.d_model)})
        self.pos_embed = nn.ParameterDict({"W_pos": 0.02 * torch.randn(cfg.n_ctx, cfg.d_model)})
        self.unembed = nn.ParameterDict(
            {"W_U": 0.02 * torch.randn(cfg.d_model, cfg.d_vocab), "b_U": torch.zeros(cfg.d_vocab)}
        )
        # Yours: make blocks and ln_final.
        self.blocks = nn.ModuleList([TransformerBlock(cfg) for _ in range(cfg.n_layers)])
        self.ln_final = LayerNorm(cfg)

    def forward(self, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "batch pos d_vocab"]:
        """Logits of the next token after every position (up to ``cfg.n_ctx`` positions; more are an error)."""
        # Given: a parameter is read as self.embed["W_E"], and so on.
        # Yours: from tokens to logits.
        resid = embed(tokens, self.embed["W_E"]) + positional_embed(tokens, self.pos_embed["W_pos"])
        for block in self.blocks:
            resid = block(resid)
        return unembed(self.ln_final(resid), self.unembed["W_U"], self.unembed["b_U"])
