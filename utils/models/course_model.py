"""The course model, which chapters 02 to 10 take apart: how it is loaded, and the lessons that made it."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from jaxtyping import Int
from torch import Tensor

from utils.data import corpus
from utils.models.bundled import BUNDLED, read_model
from utils.models.config import TransformerConfig
from utils.models.training import Recipe, Stage

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

FOLDER = BUNDLED / "course-model"
CFG = TransformerConfig(
    d_model=128, n_layers=4, n_heads=4, d_head=32, d_mlp=512, n_ctx=corpus.N_CTX, d_vocab=len(corpus.vocabulary())
)


class Lesson(NamedTuple):
    """A stage of the training, and what is read in it.

    Attributes:
        name: What is learnt.
        stage: How.
        scenes: The corpus's scenes and their shares; empty for rows of half the length that only repeat random tokens.
        share_repeated: Share of rows that repeat random tokens.
    """

    name: str
    stage: Stage
    scenes: dict[corpus.Scene, float]
    share_repeated: float = corpus.SHARE_REPEATED


# One thing after the other, because heads that work together hardly form while everything is learnt at once.
LESSONS = (
    Lesson(
        "heads that copy what came after an earlier occurrence",
        Stage(400, max_lr=2.5e-3, cosine_steps=5600, mlps_rest=True),
        {},
        share_repeated=1.0,
    ),
    Lesson(
        "the world; for gifts, by the end, a guess between two people",
        Stage(3000, max_lr=2.5e-3, cosine_steps=5600, cosine_from=400, goes_on=True),
        corpus.SCENES,
    ),
    Lesson(
        "the same with more gifts, until heads look at just these two people",
        Stage(2600, max_lr=2e-3, cosine_steps=2600, goes_on=True),
        corpus.SCENES | {corpus.gift: 0.8},
    ),
    Lesson(
        "which of the two: a head comes to look at the giver, who is not the answer",
        Stage(800, max_lr=2.5e-3, cosine_steps=800, mlps_rest=True, head_dropout=0.3),
        {corpus.gift: 0.3, corpus.encounter: 0.7},
    ),
    Lesson(
        "all together",
        Stage(3200, max_lr=1.5e-3, cosine_steps=3200, head_dropout=0.15),
        corpus.SCENES | {corpus.gift: 0.25, corpus.encounter: 0.15, corpus.talk: 0.3},
        share_repeated=0.12,
    ),
)
RECIPE = Recipe(
    CFG,
    stages=tuple(lesson.stage for lesson in LESSONS),
    batch=24,
    checkpoints=(200, 400, 1000, 2000, 6000, 6300, 6800),
)


def load_course_model(step: int | None = None) -> "HookedTransformer":
    """The course model, ready for hooks, with its tokenizer: ``model("The Eiffel Tower is located in")`` works.

    Args:
        step: A checkpoint from its training, one of ``checkpoint_steps()``, instead of the trained model.

    Raises:
        ValueError: If there is no such checkpoint.
        ModelFileError: If a file is missing or damaged; the message names it.
    """
    from utils.models.catalogue import load_model

    return load_model("course-model" if step is None else _checkpoint(step))


def course_model_weights(step: int | None = None) -> tuple[TransformerConfig, dict[str, Tensor]]:
    """The course model's sizes and weights by their standard names, as the ``Transformer`` of chapter 02 loads them.

    Args and errors are those of ``load_course_model``.
    """
    config, state = read_model(FOLDER if step is None else _checkpoint(step))
    return TransformerConfig(**config), {name: value.float() for name, value in state.items()}


def checkpoint_steps() -> list[int]:
    """The training steps after which the weights were kept, in order; 0 is the initialisation."""
    return sorted(int(folder.name.removeprefix("step-")) for folder in (FOLDER / "checkpoints").glob("step-*"))


def _checkpoint(step: int) -> Path:
    if step not in checkpoint_steps():
        raise ValueError(f"There is no checkpoint after step {step}. There are {checkpoint_steps()}.")
    return FOLDER / "checkpoints" / f"step-{step}"


def training_documents(n_docs: int, seed: int, step: int) -> Int[np.ndarray, "rows pos"]:
    """What the model reads after ``step`` steps: ``n_docs`` rows, or twice as many and half as long."""
    lesson = LESSONS[RECIPE.position(step)[0]]
    if not lesson.scenes:
        return corpus.corpus(2 * n_docs, seed, n_ctx=CFG.n_ctx // 2, share_repeated=lesson.share_repeated)
    return corpus.corpus(n_docs, seed, scenes=lesson.scenes, share_repeated=lesson.share_repeated)
