"""What the book's demos run: the course model and the network that reads digits as ONNX files that show what they
compute on the way, and a dictionary.

The course model's inputs are `tokens` [batch, pos], and `added` [batch, layer + 1, pos, d_model], what is added to the
residual stream before each layer and behind the last: zeros for the model as it is, a direction to steer it, a
difference to patch it. Its outputs are `streams` [batch, layer + 1, pos, d_model], the stream at these places; `logits`
[batch, layer + 1, pos, d_vocab], what the final norm and the unembedding make of each (the logit lens; the last are the
model's own); and `patterns` [batch, layer, head, query, key].
"""

import math
import warnings
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn.functional import conv_transpose2d, one_hot

from utils.data.corpus import vocabulary
from utils.data.prompts import WORD_CLASSES, documents, token_id
from utils.models.course_model import course_model_weights
from utils.models.digits_cnn import DigitsCNN, load_digits_cnn
from utils.sae.shipped import load_dictionary
from utils.sae.topk import TopKSAE
from utils.transformer.attention import causal_mask
from utils.transformer.embedding import embed, positional_embed, unembed
from utils.transformer.model import Attention, Transformer

OUTPUTS = ("streams", "logits", "patterns")
DICTIONARY_PLACE = 3  # the dictionary reads the stream behind layer 2
STEERED_TO = ("city", "weekday", "animal", "adjective", "job", "thing")


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
    dynamic = {"tokens": {0: "batch", 1: "pos"}, "added": {0: "batch", 2: "pos"}}
    _write(path, model, {"tokens": tokens, "added": added}, OUTPUTS, dynamic)


def _write(path: Path, model: nn.Module, inputs: dict[str, Tensor], outputs: tuple[str, ...], dynamic: dict) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            tuple(inputs.values()),
            path,
            input_names=list(inputs),
            output_names=list(outputs),
            dynamic_axes=dynamic,
            opset_version=20,
            dynamo=False,  # the newer exporter takes half a minute, and wants packages of its own
        )


class OpenedDigits(nn.Module):
    """The network that reads digits, with the gradient of one logit, which ONNX can't derive, written out."""

    def __init__(self, cnn: DigitsCNN):
        super().__init__()
        self.cnn = cnn

    def forward(self, images: Float[Tensor, "batch 1 8 8"], target: Int[Tensor, "1"]):
        """All images' logits, and the gradient of the first image's logit of the target."""
        c = self.cnn
        first = c.conv1(images)
        second = c.conv2(first.relu())
        pooled = c.pool(second.relu())
        third = c.conv3(pooled)
        fourth = c.fc1(third.relu().flatten(1))
        logits = c.fc2(fourth.relu())
        back = c.fc2.weight[target] * (fourth[:1] > 0) @ c.fc1.weight
        back = conv_transpose2d(back.view(1, 32, 4, 4) * (third[:1] > 0), c.conv3.weight, padding=1)
        back = _unpool(back, second[:1]) * (second[:1] > 0)
        back = conv_transpose2d(back, c.conv2.weight, padding=1) * (first[:1] > 0)
        return logits, conv_transpose2d(back, c.conv1.weight, padding=1)


def _unpool(back: Float[Tensor, "1 channel 4 4"], pooled_from: Float[Tensor, "1 channel 8 8"]):
    """The gradient before max-pooling: all of it goes to the first of a window's largest, as in PyTorch."""
    windows = pooled_from.view(1, 32, 4, 2, 4, 2).transpose(3, 4).reshape(1, 32, 4, 4, 4)
    chosen = windows.argmax(dim=-1, keepdim=True) == torch.arange(4)
    return (back[..., None] * chosen).view(1, 32, 4, 4, 2, 2).transpose(3, 4).reshape(1, 32, 8, 8)


def write_digits_cnn(path: Path) -> None:
    """Write the network that reads digits as ONNX; any number of images."""
    inputs = {"images": torch.rand(2, 1, 8, 8), "target": torch.tensor([3])}
    _write(path, OpenedDigits(load_digits_cnn()), inputs, ("logits", "gradient"), {"images": {0: "batch"}})


def described_dictionary(n_words: int = 5) -> tuple[TopKSAE, dict]:
    """The course model's dictionary; and of each latent the largest value on 120 documents, the words at which it is
    highest on average, and the words that its direction raises most. `chosen` are the latents whose directions raise
    the words of a class most, which need not mean that they stand for it.
    """
    sae, model, words = load_dictionary("course-model"), opened_course_model(), vocabulary()
    tokens = documents(120, 2)
    with torch.no_grad():
        nothing = torch.zeros(len(tokens), model.transformer.cfg.n_layers + 1, *tokens.shape[1:], sae.W_dec.shape[1])
        streams = model(tokens, nothing)[0]
        z = sae.encode(streams[:, DICTIONARY_PLACE].flatten(0, 1))
        raised = sae.W_dec @ model.transformer.unembed["W_U"]
    raised = (raised - raised.mean(dim=1, keepdim=True)) / raised.std(dim=1, keepdim=True)
    is_word = one_hot(tokens.flatten(), len(words)).float()
    of_word = is_word.T @ z / is_word.sum(dim=0).clamp(min=1)[:, None]
    latents = [
        {
            "largest": round(z[:, i].max().item(), 3),
            "on": [words[w] for w in of_word[:, i].topk(n_words).indices],
            "raises": [words[w] for w in raised[i].topk(n_words).indices],
        }
        for i in range(z.shape[1])
    ]
    members = {name: torch.tensor([token_id(word) for word in WORD_CLASSES[name]]) for name in STEERED_TO}
    chosen = {name: raised[:, ids].mean(dim=1).argmax().item() for name, ids in members.items()}
    return sae, {"k": sae.k, "latents": latents, "chosen": chosen}
