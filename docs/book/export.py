"""The course model as an ONNX file that shows what it computes on the way, for the book's demos.

Inputs: `tokens` [batch, pos], and `added` [batch, layer + 1, pos, d_model], what is added to the residual stream before
each layer and behind the last: zeros for the model as it is, a direction to steer it, a difference to patch it.
Outputs: `streams` [batch, layer + 1, pos, d_model], the stream at these places; `logits` [batch, layer + 1, pos, d_vocab],
what the final norm and the unembedding make of each (the logit lens; the last are the model's own); `patterns`
[batch, layer, head, query, key].
"""

import math
import warnings
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.models.course_model import course_model_weights
from utils.transformer.attention import causal_mask
from utils.transformer.embedding import embed, positional_embed, unembed
from utils.transformer.model import Attention, Transformer

OUTPUTS = ("streams", "logits", "patterns")


class Opened(nn.Module):
    """A `Transformer` whose inner values are outputs."""

    def __init__(self, transformer: Transformer):
        super().__init__()
        self.transformer = transformer

    def forward(self, tokens: Int[Tensor, "batch pos"], added: Float[Tensor, "batch place pos d_model"]):
        t = self.transformer
        resid = embed(tokens, t.embed["W_E"]) + positional_embed(tokens, t.pos_embed["W_pos"])
        streams, patterns = [resid + added[:, 0]], []
        for layer, block in enumerate(t.blocks):
            resid = streams[-1]
            written, pattern = _attend(block.ln1(resid), block.attn)
            mid = resid + written
            streams.append(mid + block.mlp(block.ln2(mid)) + added[:, layer + 1])
            patterns.append(pattern)
        stacked = torch.stack(streams, dim=1)
        logits = unembed(t.ln_final(stacked), t.unembed["W_U"], t.unembed["b_U"])
        return stacked, logits, torch.stack(patterns, dim=1)


def _attend(x: Float[Tensor, "batch pos d_model"], attn: Attention):
    """What `multi_head_attention` of chapter 02 gives, and the pattern that it keeps to itself."""
    x = x[:, None]  # heads come after the batch
    q, k, v = x @ attn.W_Q + attn.b_Q[:, None], x @ attn.W_K + attn.b_K[:, None], x @ attn.W_V + attn.b_V[:, None]
    scores = q @ k.transpose(-1, -2) / math.sqrt(attn.W_Q.shape[-1])
    pattern = (scores + causal_mask(x.shape[2])).softmax(dim=-1)
    return (pattern @ v @ attn.W_O).sum(dim=1) + attn.b_O, pattern


def opened_course_model() -> Opened:
    cfg, state = course_model_weights()
    transformer = Transformer(cfg)
    transformer.load_state_dict(state)
    return Opened(transformer).eval()


def write_course_model(path: Path) -> None:
    """Write the course model as ONNX; batch and positions are of any number."""
    model = opened_course_model()
    cfg = model.transformer.cfg
    tokens, added = torch.zeros(2, 5, dtype=torch.long), torch.zeros(2, cfg.n_layers + 1, 5, cfg.d_model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (tokens, added),
            path,
            input_names=["tokens", "added"],
            output_names=list(OUTPUTS),
            dynamic_axes={"tokens": {0: "batch", 1: "pos"}, "added": {0: "batch", 2: "pos"}},
            opset_version=20,
            dynamo=False,  # the newer exporter takes half a minute, and wants packages of its own
        )
