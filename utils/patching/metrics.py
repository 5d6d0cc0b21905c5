"""What a patch is measured by."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def logit_difference(
    logits: Float[Tensor, "batch pos d_vocab"],
    answers: Int[Tensor, "batch"],
    foils: Int[Tensor, "batch"],
    positions: Int[Tensor, "batch"],
) -> Float[Tensor, "batch"]:
    """How far each prompt's answer is ahead of its foil, at the prompt's own last position.

    Args:
        logits: A model's output.
        answers, foils: The tokens to compare, one of each for every prompt.
        positions: Where each prompt's prediction is read; counted from 0.

    Returns:
        logit(answer) - logit(foil), in nats: the log of how many times as likely the answer is.

    Raises:
        ValueError: If a position lies outside the logits.

    Source: Wang et al. (2022), "Interpretability in the Wild", section 2.
    """
    if bool(((positions < 0) | (positions >= logits.shape[1])).any()):
        raise ValueError(f"positions must be from 0 to {logits.shape[1] - 1}, got {positions.tolist()}")
    rows = torch.arange(len(logits), device=logits.device)
    return logits[rows, positions, answers] - logits[rows, positions, foils]


def normalized_patching_metric(
    patched: Float[Tensor, "... batch"], clean: Float[Tensor, "batch"], corrupted: Float[Tensor, "batch"]
) -> Float[Tensor, "..."]:
    """Which share of the way from the corrupted to the clean run a patch goes: 0 is the one, 1 the other.

    The metric is averaged over prompts before the ratio is taken, so that no prompt whose own gap is nearly zero can
    decide the result. Shares below 0 and above 1 are possible.

    Args:
        patched: The metric under each patch (leading dimensions) for each prompt (the last one).
        clean, corrupted: The metric of the two runs without a patch, for each prompt.

    Returns:
        (mean patched - mean corrupted) / (mean clean - mean corrupted), one for each patch.

    Raises:
        ValueError: If the two runs' means differ by less than 1e-6, so that there is no way to go.

    Source: Zhang and Nanda (2024), "Towards Best Practices of Activation Patching in Language Models", section 2.
    """
    gap = clean.mean() - corrupted.mean()
    if abs(gap.item()) < 1e-6:
        raise ValueError("clean and corrupted give the same mean: there is nothing that a patch could bring back")
    return (patched.mean(dim=-1) - corrupted.mean()) / gap
