"""Two directions to patch in: restoring parts of a broken run, and breaking parts of a working one."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.patching.hooks import run_with_cache, run_with_hooks


def denoise(model: nn.Module, clean: Tensor, corrupted: Tensor, names: Sequence[str]) -> Float[Tensor, "batch ..."]:
    """Run on the corrupted input, with these activations, all at once, as they are in the clean run.

    If the clean output comes back, the parts are sufficient: nothing else has to be repaired.

    Args:
        model: Any module.
        clean, corrupted: Two inputs of the same shape: as many rows, as many columns.
        names: Hook points to restore; none gives the corrupted run.

    Returns:
        The model's output; whether it has a graph is left open.

    Raises:
        ValueError: If the inputs differ in shape, whatever the names, or a hook point is unknown or never runs.

    Source: Heimersheim and Nanda (2024), section 2.
    """
    if clean.shape != corrupted.shape:
        raise ValueError(f"clean has shape {tuple(clean.shape)}, corrupted {tuple(corrupted.shape)}")
    with torch.no_grad():
        _, cache = run_with_cache(model, clean, names)
        return run_with_hooks(model, corrupted, [(name, lambda _, name=name: cache[name]) for name in cache])


def noise(model: nn.Module, clean: Tensor, corrupted: Tensor, names: Sequence[str]) -> Float[Tensor, "batch ..."]:
    """Run on the clean input, with these activations, all at once, as they are in the corrupted run.

    If the output breaks, the parts are necessary: without them the rest does not manage.

    Args:
        model: Any module.
        clean, corrupted: Two inputs of the same shape: as many rows, as many columns.
        names: Hook points to corrupt; none gives the clean run.

    Returns:
        The model's output; whether it has a graph is left open.

    Raises:
        ValueError: If the inputs differ in shape, whatever the names, or a hook point is unknown or never runs.

    Source: Heimersheim and Nanda (2024), section 2.
    """
    if clean.shape != corrupted.shape:
        raise ValueError(f"clean has shape {tuple(clean.shape)}, corrupted {tuple(corrupted.shape)}")
    with torch.no_grad():
        _, cache = run_with_cache(model, corrupted, names)
        return run_with_hooks(model, clean, [(name, lambda _, name=name: cache[name]) for name in cache])
