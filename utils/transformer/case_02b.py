"""The case of part 02b: what a look at `<bos>` is for, in a head of the course model.

The course model runs here as chapter 02's own transformer, so that one head can be changed while it runs.
"""

import random
from functools import cache, lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from utils.course.cases import estimate
from utils.data import corpus
from utils.models.course_model import course_model_weights
from utils.transformer.attention import attention_pattern, attention_scores, softmax_rows
from utils.transformer.embedding import embed, positional_embed, unembed
from utils.transformer.model import Transformer

READS = ("W_Q", "W_K", "b_Q", "b_K")


@cache
def _course_model() -> Transformer:
    cfg, weights = course_model_weights()
    model = Transformer(cfg)
    model.load_state_dict(weights)
    return model.requires_grad_(False)


def trained_head(layer: int, head: int) -> dict[str, Tensor]:
    """One head of the course model: W_Q, W_K, W_V, W_O, b_Q, b_K and b_V by name, as ``attention_head`` takes them.

    Raises:
        IndexError: If there is no such layer or head; both are counted from 0.
    """
    if layer < 0 or head < 0:
        raise IndexError(f"layers and heads are counted from 0, got layer {layer}, head {head}")
    attn = _course_model().blocks[layer].attn
    return {name: getattr(attn, name)[head].clone() for name in ("W_Q", "W_K", "W_V", "W_O", "b_Q", "b_K", "b_V")}


def read_by_heads(text: str, layer: int) -> tuple[list[str], Float[Tensor, "batch pos d_model"]]:
    """A text's tokens with `<bos>` at 0, and what heads of this layer of the course model read there [1, pos, d_model].

    Raises:
        ValueError: If a word is not in the vocabulary.
    """
    return [corpus.BOS, *corpus.words(text)], _read(text, layer).clone()


@lru_cache(maxsize=1024)
def _read(text: str, layer: int) -> Float[Tensor, "batch pos d_model"]:
    resid = _embedded(text)
    for block in _course_model().blocks[:layer]:
        resid = block(resid)
    return _course_model().blocks[layer].ln1(resid)


def says(
    text: str, head: tuple[int, int] | None = None, *, silent: int | None = None, hidden: int | None = None
) -> Float[Tensor, "d_vocab"]:
    """What the course model expects as the next word behind a text, after a change in one head at the text's end.

    Args:
        text: A text of the course model's words; `<bos>` is put before it.
        head: (layer, head) of the head that is changed; None for the model as it is.
        silent: A position that hands this head nothing at the text's last position: its value counts as zeros there,
            and all weights stay what they are.
        hidden: A position that this head can't see from the text's last position: its score there is -inf, so that its
            weight goes to the others.

    Returns:
        Log-probabilities of the next word [d_vocab]. All other heads and positions run as ever, on what this leaves.

    Raises:
        ValueError: If a word is not in the vocabulary.
        IndexError: If there is no such head or position in the text; both are counted from 0, which is `<bos>`.
    """
    if head is not None:
        trained_head(*head)
    length = 1 + len(corpus.words(text))
    for position in (silent, hidden):
        if position is not None and not 0 <= position < length:
            raise IndexError(f"{text!r} has the positions 0 to {length - 1}, and {position} is none of them")
    return _says(text, head and tuple(head), silent, hidden).clone()


@lru_cache(maxsize=4096)
def _says(text: str, head: tuple[int, int] | None, silent: int | None, hidden: int | None) -> Float[Tensor, "d_vocab"]:
    model, resid = _course_model(), _embedded(text)
    for i, block in enumerate(model.blocks):
        read = block.ln1(resid)
        resid = resid + block.attn(read)
        if head is not None and head[0] == i:
            resid[0, -1] += _written(read, trained_head(*head), silent, hidden)
            resid[0, -1] -= _written(read, trained_head(*head), None, None)
        resid = resid + block.mlp(block.ln2(resid))
    logits = unembed(model.ln_final(resid), model.unembed["W_U"], model.unembed["b_U"])
    return logits[0, -1].log_softmax(dim=-1)


def _embedded(text: str) -> Float[Tensor, "batch pos d_model"]:
    model = _course_model()
    tokens = torch.tensor([corpus.encode(f"{corpus.BOS} {text}")])
    return embed(tokens, model.embed["W_E"]) + positional_embed(tokens, model.pos_embed["W_pos"])


def _written(
    read: Float[Tensor, "batch pos d_model"], weights: dict[str, Tensor], silent: int | None, hidden: int | None
) -> Float[Tensor, "d_model"]:
    """What a head writes at the last position."""
    scores = attention_scores(read, *(weights[name] for name in READS))[0, -1:]
    values = read[0] @ weights["W_V"] + weights["b_V"]
    if hidden is not None:
        scores[:, hidden] = -torch.inf
    if silent is not None:
        values[silent] = 0.0
    return (softmax_rows(scores) @ values @ weights["W_O"])[0]


def beginnings(n: int, seed: int) -> list[str]:
    """Seeded beginnings of scenes from the course model's text, each cut off behind a random word; no two the same."""
    rng, found = random.Random(seed), {}
    while len(found) < n:
        said = corpus.words(corpus.scene(rng))
        if len(said) > 4:
            found[" ".join(said[: rng.randint(4, min(len(said), 30))])] = None
    return list(found)


def what_a_look_at_bos_is_for() -> dict[str, object]:
    """Design an experiment: what is a look at `<bos>` for, in a head of the course model?

    Three readings are open of a head that has most of its weight on `<bos>`: "source" (it fetches something there that
    the model uses, as it would from a word), "rest" (it fetches next to nothing, and the weight might as well go
    elsewhere), "valve" (it fetches next to nothing, and so keeps the weight from words that would have been felt).

    You choose a head, texts at whose end it looks at `<bos>`, for each of them another text at whose end it looks at a
    word with the same weight, and a measure of how much a change in the head changes what the model says. For each
    trial the check finds with ``says``, at the end of the text: s, the measure with `<bos>` silent; h, with `<bos>`
    hidden; c, with the control silent; and w, with the word silent at the end of the other text.

    Returns:
        A dict with these keys:

        "head": (layer, head), both counted from 0.
        "trials": A list of at least 12 tuples (text, control, other, position). At the end of ``text`` the head has a
            weight of 0.5 or more on `<bos>`, and of 0.02 or less on the position ``control``. At the end of ``other``
            it has on ``position``, which is not 0, the same weight as on `<bos>` at the end of ``text``, within 0.1.
            Positions count `<bos>` as 0. No text occurs twice, and no three words stand at the end of more than half
            of the texts, or of more than half of the others.
        "measure": A function ``measure(before, after)`` of two [d_vocab] tensors, the log-probabilities of the next
            word without and with the change. It returns a number that is never negative: 0 where both are the same, and
            the larger the more the change is felt, whichever words gain by it. On average over the trials, c is at most
            a quarter of w, and so is the measure at the word if only a twentieth of the change is made (19 parts of the
            old distribution, 1 of the new).
        "effect_silent", "effect_hidden": The mean over the trials of w / 2 - s, and of h - 2 s, each with the
            half-width of its 95 % interval.
        "verdict": If the first effect's interval is below 0, `<bos>` hands over at least half as much as a word:
            "source". If it is above 0, the second decides: "valve" above 0, where hiding is felt more than twice as
            much as silencing, and "rest" below 0. "undecided" where an interval that should decide holds 0.
    """
    head = (3, 1)

    def weights_at_the_end(text: str) -> Float[Tensor, "pos"]:
        weights = trained_head(*head)
        _, stream = read_by_heads(text, head[0])
        return attention_pattern(stream, *(weights[name] for name in ("W_Q", "W_K", "b_Q", "b_K")))[0, -1]

    looks = [(text, weights_at_the_end(text)) for text in beginnings(160, seed=0)]
    at_words = [(text, weights) for text, weights in looks if weights.argmax() > 0 and weights.max() >= 0.5]
    trials = []
    for text, weights in looks:
        alike = [look for look in at_words if abs(look[1].max() - weights[0]) < 0.1]
        if weights[0] >= 0.5 and weights.min() <= 0.02 and alike and len(trials) < 30:
            other, there = alike[0]
            at_words = [look for look in at_words if look[0] != other]
            trials.append((text, weights.argmin().item(), other, there.argmax().item()))

    def measure(before: Float[Tensor, "d_vocab"], after: Float[Tensor, "d_vocab"]) -> float:
        return (before.exp() - after.exp()).abs().sum().item() / 2  # how much probability goes to other words

    fetched, kept_away = [], []
    for text, _, other, position in trials:
        silent = measure(says(text), says(text, head, silent=0))
        hidden = measure(says(text), says(text, head, hidden=0))
        word = measure(says(other), says(other, head, silent=position))
        fetched.append(word / 2 - silent)
        kept_away.append(hidden - 2 * silent)
    effects = estimate(fetched), estimate(kept_away)
    signs = [(mean > half_width) - (mean < -half_width) for mean, half_width in effects]
    verdict = "source" if signs[0] < 0 else {1: "valve", -1: "rest"}.get(signs[0] * signs[1], "undecided")
    return {
        "head": head,
        "trials": trials,
        "measure": measure,
        "effect_silent": effects[0],
        "effect_hidden": effects[1],
        "verdict": verdict,
    }
