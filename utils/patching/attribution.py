"""A whole sweep, estimated from three passes."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.patching.hooks import run_with_cache, run_with_hooks


def attribution_patching(
    model: nn.Module,
    clean: Int[Tensor, "batch pos"],
    corrupted: Int[Tensor, "batch pos"],
    names: Sequence[str],
    metric: Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, "batch"]],
) -> dict[str, Float[Tensor, "batch pos ..."]]:
    """First-order estimate of what each clean activation would change if it were patched into the corrupted run.

    Two forward passes and one backward pass, however many sites there are. It works, too, where the caller has
    switched gradients off, be it with ``torch.no_grad`` or with ``torch.inference_mode``, which
    ``torch.inference_mode(False)`` puts out of force.

    Args:
        model: Any module, its parameters trainable or frozen; no gradient is left on them.
        clean, corrupted: Prompts of the same shape.
        names: Hook points, activations [batch, pos, ..., d].
        metric: From logits to a number for each prompt, differentiable; no tensor that it holds was made in inference
            mode, as autograd refuses those.

    Returns:
        For each hook point the estimated change of each prompt's metric [batch, pos, ...]:
        sum over d of (clean - corrupted) * d metric / d activation, the derivative taken in the corrupted run. It may
        have a graph.

    Raises:
        ValueError: If the inputs differ in shape.

    Source: Nanda (2023), "Attribution Patching"; Syed et al. (2023), "Attribution Patching Outperforms Automated
    Circuit Discovery", equation 2.
    """
    if clean.shape != corrupted.shape:
        raise ValueError(f"clean has shape {tuple(clean.shape)}, corrupted {tuple(corrupted.shape)}")
    start, nudges = {}, {}

    def nudging(name: str) -> Callable[[Tensor], Tensor]:
        def nudge(activation: Tensor) -> Tensor:
            start[name] = activation.detach()
            nudges[name] = torch.zeros_like(activation, requires_grad=True)
            return activation + nudges[name]

        return nudge

    with torch.no_grad():
        _, target = run_with_cache(model, clean, names)
    with torch.inference_mode(False), torch.enable_grad():
        logits = run_with_hooks(model, corrupted.clone(), [(name, nudging(name)) for name in names])
        total = metric(logits).sum()
        slopes = torch.autograd.grad(total, [nudges[name] for name in names], materialize_grads=True)
    return {name: ((target[name] - start[name]) * slope).sum(-1) for name, slope in zip(names, slopes, strict=True)}
