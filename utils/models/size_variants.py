"""Language models of ten sizes, trained alike, for chapter 00: only their losses are kept.

They have the course model's architecture and its text. What differs from one to the next is the width.
"""

import json
import math
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Int
from torch import Tensor
from tqdm.auto import tqdm

from utils.data.corpus import N_CTX, corpus, vocabulary
from utils.data.prompts import documents
from utils.models.bundled import BUNDLED, ModelFileError
from utils.models.config import TransformerConfig
from utils.models.network import Network

FOLDER = BUNDLED / "size-variants"
LOSSES_FILE, CARD_FILE = "losses.json", "CARD.md"

WIDTHS = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128)
WIDTHS_TWICE = WIDTHS[:5]  # also trained from a second seed: how much of a loss is luck
N_DOCUMENTS, BATCH, HELD_OUT = 5000, 8, 100
WARMUP_STEPS, DESCENT, N_MARKS = 50, 0.2, 16
EMBEDDINGS = ("W_E", "W_pos", "W_U", "b_U")


@dataclass(frozen=True)
class SizeVariant:
    """One training run.

    Attributes:
        d_model: Width of the residual stream; the MLPs are four times as wide.
        d_vocab: Tokens in the vocabulary.
        seed: Of the initial weights. The documents and their order are the same in all runs.
        parameters: All of them.
        parameters_without_embeddings: Those of the blocks and layer norms: not of token and position embeddings and
            the unembedding, whose size follows the vocabulary.
        tokens: How many training tokens had been seen, at each point of the curve.
        losses: Mean loss on the held-out documents at these points, in nats per token. The last one is the final loss.
    """

    d_model: int
    d_vocab: int
    seed: int
    parameters: int
    parameters_without_embeddings: int
    tokens: list[int]
    losses: list[float]


def make(folder: Path, *, seed: int = 0) -> None:
    """Train all variants, with a progress bar on stderr, and write ``losses.json`` and ``CARD.md`` into ``folder``.

    Args:
        folder: Where to; it is made if it does not exist. Nothing is written before the last run has ended.
        seed: Of the initial weights; the second runs of the smaller widths have ``seed + 1``.
    """
    runs = [(width, seed) for width in WIDTHS] + [(width, seed + 1) for width in WIDTHS_TWICE]
    train, held_out = torch.from_numpy(corpus(N_DOCUMENTS, 0)).long(), documents(HELD_OUT, 0)
    variants = []
    with tqdm(total=len(runs) * (N_DOCUMENTS // BATCH), desc="size-variants", unit="step") as bar:
        for width, run_seed in runs:
            bar.set_postfix_str(f"d_model {width}")
            variants.append(train_variant(width, run_seed, train, held_out, bar))
    folder.mkdir(parents=True, exist_ok=True)
    _write(folder / LOSSES_FILE, json.dumps({"variants": [asdict(v) for v in variants]}, indent=1) + "\n")
    _write(folder / CARD_FILE, card(variants))


def train_variant(
    d_model: int,
    seed: int,
    train: Int[Tensor, "documents pos"],
    held_out: Int[Tensor, "held pos"],
    bar: tqdm | None = None,
) -> SizeVariant:
    """Train one model once through ``train`` and measure it on ``held_out`` along the way.

    AdamW, a short warm-up, a constant rate, and a straight descent to zero over the last fifth. Up to the descent the
    curve is that of one rate, whatever the length of the run.

    Args:
        d_model: A multiple of the four heads.
        seed: Of the initial weights.
        train: Documents in the order in which they are read, in batches of eight.
        held_out: Documents to measure the loss on.
        bar: Advanced by one after each step.
    """
    net = Network(sizes(d_model), torch.Generator().manual_seed(seed))
    optimizer = torch.optim.AdamW(net.parameters(), betas=(0.9, 0.98), weight_decay=0.05)
    batches = train.split(BATCH)
    marks, tokens, losses = _marks(len(batches)), [], []
    for step, batch in enumerate(batches):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(d_model, step, len(batches))
        _step(net, optimizer, batch)
        if step + 1 in marks:
            tokens.append(min((step + 1) * BATCH, len(train)) * train.shape[1])
            losses.append(round(_loss(net, held_out).item(), 5))
        if bar is not None:
            bar.update()
    counts = {name: parameter.numel() for name, parameter in net.named_parameters()}
    total = sum(counts.values())
    return SizeVariant(
        d_model=d_model, d_vocab=net.cfg.d_vocab, seed=seed, parameters=total,
        parameters_without_embeddings=total - sum(counts[name] for name in EMBEDDINGS), tokens=tokens, losses=losses,
    )  # fmt: skip


def sizes(d_model: int) -> TransformerConfig:
    """The course model's architecture at another width."""
    return TransformerConfig(
        d_model=d_model, n_layers=4, n_heads=4, d_head=d_model // 4, d_mlp=4 * d_model, n_ctx=N_CTX,
        d_vocab=len(vocabulary()),
    )  # fmt: skip


def learning_rate(d_model: int, step: int, n_steps: int) -> float:
    """Rate of one step: the highest is 0.0025 at width 128, grows as 1/sqrt(width), and stops at 0.01."""
    highest = min(0.01, 0.0025 * math.sqrt(128 / d_model))
    return highest * min((step + 1) / WARMUP_STEPS, 1.0, (n_steps - step) / (DESCENT * n_steps))


def load_size_variants(folder: Path = FOLDER) -> list[SizeVariant]:
    """The runs that ship with the course: first every width in order, then the second runs of the smaller ones.

    Raises:
        ModelFileError: If the file with the losses is missing or damaged; the message names it.
    """
    path = folder / LOSSES_FILE
    way_out = "In the course's own folder, `git checkout -- losses.json` brings it back; elsewhere, make it again."
    try:
        variants = [SizeVariant(**entry) for entry in json.loads(path.read_text(encoding="utf-8"))["variants"]]
        if not variants or not all(_is_whole(variant) for variant in variants):
            raise ValueError("a curve is not whole")
    except OSError as error:
        raise ModelFileError(f"{path} cannot be read ({error.strerror}). {way_out}") from None
    except (ValueError, KeyError, TypeError) as error:
        raise ModelFileError(f"{path} does not hold the losses of the size variants: {error!r}. {way_out}") from None
    return variants


def card(variants: list[SizeVariant]) -> str:
    """The model card: the recipe, and every run's sizes and loss."""
    first = variants[0]
    rows = "\n".join(
        f"| {v.d_model} | {v.seed} | {v.parameters:,} | {v.parameters_without_embeddings:,} | {v.losses[-1]:.3f} |"
        for v in variants
    )
    return f"""# Size variants

Held-out losses of language models of ten sizes, in `losses.json`, for chapter 00. The weights are not kept.

**Recipe:** `mi train size-variants`. Four layers and four heads as in the course model, MLPs of four times the width,
context {N_CTX}, {first.d_vocab} tokens in the vocabulary. Every run reads the same {N_DOCUMENTS:,} documents
(`utils.data.corpus.corpus({N_DOCUMENTS}, 0)`) once, in the same order, in batches of {BATCH}:
{first.tokens[-1]:,} tokens. AdamW, betas 0.9 and 0.98, weight decay 0.05, gradients clipped to norm 1. The learning
rate is 0.0025 · sqrt(128 / d_model), at most 0.01: warm-up over {WARMUP_STEPS} steps, constant, and down to zero
over the last fifth. The rates were not tuned for each width.

**Losses:** mean over {HELD_OUT} documents that training has not seen and that contain no repeated random tokens
(`utils.data.prompts.documents({HELD_OUT}, 0)`), in nats per token, at {len(first.tokens)} points of training.
Knowing nothing costs log {first.d_vocab} = {math.log(first.d_vocab):.3f}.

| d_model | seed | parameters | without embeddings | final loss |
| --- | --- | --- | --- | --- |
{rows}

**Known absences:** one seed for each width above {WIDTHS_TWICE[-1]}, two below; one data order; the runs are short, and
the widest models are far from the end of what they could learn from more text.
"""


def _is_whole(variant: SizeVariant) -> bool:
    return (
        len(variant.tokens) == len(variant.losses) > 0
        and sorted(set(variant.tokens)) == variant.tokens
        and all(math.isfinite(loss) and loss > 0 for loss in variant.losses)
    )


def _marks(n_steps: int) -> set[int]:
    """After which steps the loss is measured: evenly on a logarithmic scale from step 20 on, and at the end."""
    return {round(20 * (n_steps / 20) ** (i / (N_MARKS - 1))) for i in range(N_MARKS)} if n_steps > 20 else {n_steps}


def _step(net: Network, optimizer: torch.optim.Optimizer, batch: Int[Tensor, "batch pos"]) -> None:
    loss = _loss(net, batch, grad=True)
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimizer.step()


def _loss(net: Network, tokens: Int[Tensor, "batch pos"], *, grad: bool = False) -> Tensor:
    with torch.set_grad_enabled(grad):
        return F.cross_entropy(net(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def _write(path: Path, text: str) -> None:
    temporary = path.with_suffix(".part")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)
