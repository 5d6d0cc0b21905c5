"""A patch that works and explains nothing."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.patching.hooks import run_with_hooks


def embedding_patch_pitfall(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    positions: Int[Tensor, "batch"],
    name: str,
    direction: Float[Tensor, "d_model"],
    answer: int,
    scale: float,
) -> tuple[float, Float[Tensor, "batch"]]:
    """Push prompts towards an answer with a vector that was made from the answer, and see what else that does.

    Args:
        model: Any module.
        tokens: Prompts, whether or not the answer has anything to do with them.
        positions: Where each prompt is pushed, and where its prediction is read; counted from 0.
        name: Hook point of the residual stream.
        direction: What to add; only its direction counts, not its length, however short it is.
        answer: The token that is pushed for.
        scale: Length of what is added, as a multiple of the activation's own length at that position.

    Returns:
        share: The share of prompts whose most likely next token is now the answer.
        divergence: For each prompt KL(before || after) of the predictions, in nats; without a graph.

    Raises:
        ValueError: If the direction is zero, or has not the width of the stream, or if a position is outside the
            prompts (negative ones are).
    """
    # Given: the positions are checked.
    if bool(((positions < 0) | (positions >= tokens.shape[1])).any()):
        raise ValueError(f"positions must be from 0 to {tokens.shape[1] - 1}, got {positions.tolist()}")
    # Yours: the direction is checked, and everything else.
    if not bool(direction.any()):
        raise ValueError("direction is zero: there is nothing to push with")
    unit = direction / direction.abs().max()
    unit = unit / unit.norm()
    rows = torch.arange(len(tokens), device=tokens.device)

    def push(activation: Tensor) -> Tensor:
        if activation.shape[-1:] != direction.shape:
            raise ValueError(f"direction has shape {tuple(direction.shape)}, the stream is {activation.shape[-1]} wide")
        here = activation[rows, positions]
        pushed = here + scale * here.norm(dim=-1, keepdim=True) * unit
        return activation.index_put((rows, positions), pushed)

    with torch.no_grad():
        before = model(tokens)[rows, positions].log_softmax(-1)
        after = run_with_hooks(model, tokens, [(name, push)])[rows, positions].log_softmax(-1)
    share = (after.argmax(-1) == answer).float().mean().item()
    return share, (before.exp() * (before - after)).sum(-1)
