"""What the course model can do and how it does it, in numbers: one module for each phenomenon, each with `measure`.

The numbers in the model card come from here. Every one has an interval or a null beside it: what chance, a model that
learnt nothing, or an intervention on something else gives.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

PHENOMENA = (
    "tasks", "ioi", "giver", "induction", "facts", "edit", "quotes", "lenses", "neurons", "dictionary", "calendar",
)  # fmt: skip


def measure_all(model: "HookedTransformer", seed: int = 0) -> dict[str, dict]:
    """What each of `PHENOMENA` measures, by its name; takes about two minutes on one core.

    Args:
        model: A model of the course's vocabulary.
        seed: Of all that is drawn: prompts, noise, bootstrap samples.
    """
    return {name: import_module(f"{__name__}.{name}").measure(model, seed) for name in PHENOMENA}
