"""Taking several heads out at once."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.patching.hooks import run_with_cache, run_with_hooks


def attention_of_all_heads(model: nn.Module, tokens: Int[Tensor, "batch pos"]) -> list[Tensor]:
    """The attention probabilities [batch, head, query, key] of each layer of a ``HookedTransformer``."""
    names = [f"blocks.{layer}.attn.hook_pattern" for layer in range(len(model.blocks))]
    with torch.no_grad():
        return list(run_with_cache(model, tokens, names)[1].values())


def mean_outputs(model: nn.Module, others: Int[Tensor, "n pos"]) -> list[Float[Tensor, "pos head d_head"]]:
    """For each layer what its heads put out (``hook_z``), position by position, on average over other texts."""
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(len(model.blocks))]
    with torch.no_grad():
        return [z.mean(dim=0) for z in run_with_cache(model, others, names)[1].values()]


def without_heads(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    heads: Sequence[tuple[int, int]],
    means: Sequence[Float[Tensor, "pos head d_head"]],
) -> tuple[Float[Tensor, "batch pos d_vocab"], list[Tensor]]:
    """Run the model with the outputs of these heads, (layer, head) from 0, at their means; logits and attention.

    All heads are taken out in one and the same run: mean ablation, as in part 04b, of several heads together.
    """
    patterns = {}

    def silenced(layer: int):
        def edit(z: Tensor) -> Tensor:
            changed = z.clone()
            for _, head in (pair for pair in heads if pair[0] == layer):
                changed[:, :, head] = means[layer][:, head]
            return changed

        return edit

    def kept(layer: int):
        def edit(pattern: Tensor) -> Tensor:
            patterns[layer] = pattern
            return pattern

        return edit

    hooks = [(f"blocks.{layer}.attn.hook_z", silenced(layer)) for layer in sorted({layer for layer, _ in heads})]
    hooks += [(f"blocks.{layer}.attn.hook_pattern", kept(layer)) for layer in range(len(model.blocks))]
    with torch.no_grad():
        logits = run_with_hooks(model, tokens, hooks)
    return logits, [patterns[layer] for layer in sorted(patterns)]
