"""What the rest of a model makes up for when heads are taken out."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.circuits.effects import direct_effects, heads_replaced


def self_repair(
    model: nn.Module,
    tokens: Int[Tensor, "n pos"],
    at: dict[str, Int[Tensor, " n"]],
    heads: Sequence[tuple[int, int]],
    outputs: Float[Tensor, "n layer head d_head"],
) -> dict[str, Tensor]:
    """Why the logit difference falls by less than the direct effect that is taken out.

    ``heads`` are replaced, at END, by ``outputs``. With the final norm's divisor held at its value in the clean run,
    parts of the logit difference change; then the divisor itself changes. For each row

        fall = lost - heads - mlps - norm

    summed over layers and heads, up to rounding. All are in nats, without a graph.

    Args:
        model: A ``HookedTransformer``.
        tokens: Clean prompts of ``ioi_dataset``.
        at: Their positions.
        heads: Pairs (layer, head).
        outputs: What stands in for the heads at END, as of ``outputs_at``; a first dimension of size 1 stands for all
            rows (a mean over prompts).

    Returns:
        "fall" [n]: logit(IO) - logit(S) of the clean run less that of the run without the heads.
        "lost" [n]: the heads' direct effect in the clean run less that of what stands in for them, at the clean
            divisor.
        "heads" [n, layer, head]: by how much the direct effects of all *other* heads rise, at the clean divisor; 0 for
            ``heads``.
        "mlps" [n, layer]: the same of the MLPs.
        "norm" [n]: the logit difference without the heads, less what it would be at the clean divisor.

    Source: after Rushing and Nanda (2024), "Explorations of Self-Repair in Language Models".
    """
    hooks = heads_replaced(heads, outputs, at["END"])
    before = direct_effects(model, tokens, tokens, at)
    frozen = direct_effects(model, tokens, tokens, at, hooks, before.scale)
    after = direct_effects(model, tokens, tokens, at, hooks)
    change, out = frozen.heads - before.heads, torch.zeros(frozen.heads.shape[1:], dtype=torch.bool)
    for layer, head in heads:
        out[layer, head] = True
    return {
        "fall": before.total() - after.total(),
        "lost": -(change * out).sum((1, 2)),
        "heads": change * ~out,
        "mlps": frozen.mlps - before.mlps,
        "norm": after.total() - frozen.total(),
    }
