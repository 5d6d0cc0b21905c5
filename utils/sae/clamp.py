"""Changing a latent while the model runs, and counting what else changes."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn


def clamp_feature(
    sae: nn.Module, latent: int, value: float, *, positions: Bool[Tensor, "batch pos"] | None = None
) -> Callable[[Float[Tensor, "batch pos d"]], Float[Tensor, "batch pos d"]]:
    """A hook that sets one latent to a value: it adds (value - z) W_dec[latent], z being what the latent is at.

    The activation is not replaced by a reconstruction: what the dictionary doesn't explain stays. A value of 0 takes
    the latent out.

    Args:
        sae: A dictionary: ``sae(x)`` is (reconstruction [*batch, d], latents [*batch, d_sae]), and ``sae.W_dec`` has
            the latents' directions as rows, of any length.
        latent: Which.
        value: What it is set to; at least 0.
        positions: Where it is set; everywhere if None.

    Returns:
        A function from an activation to the changed one. It doesn't write into the activation.

    Raises:
        ValueError: If the value is negative: no latent ever is. It is raised by ``clamp_feature`` itself.

    Source: Templeton et al. (2024), "Scaling Monosemanticity", who clamp to multiples of the largest activation seen.
    """
    if value < 0:
        raise ValueError(f"a latent is never below 0, got {value}")

    def clamp(x: Float[Tensor, "batch pos d"]) -> Float[Tensor, "batch pos d"]:
        change = value - sae(x)[1][..., latent]
        if positions is not None:
            change = change * positions
        return x + change[..., None] * sae.W_dec[latent]

    return clamp


def side_effects(
    before: Float[Tensor, "batch pos d_vocab"],
    after: Float[Tensor, "batch pos d_vocab"],
    tokens: Int[Tensor, "batch pos"],
    wanted: Int[Tensor, " n_wanted"],
) -> dict[str, float]:
    """What a change did to a model's predictions on texts that it had nothing to do with, in three numbers.

    Args:
        before: Logits on the texts without the change.
        after: With it.
        tokens: The texts, without padding.
        wanted: The words that the change is to bring up, no word twice; neither none nor all of the vocabulary.

    Returns:
        "wanted": By how much the wanted words' probability, summed over them, rises; a mean over all positions.
        "others": How far the distribution over all *other* words has moved, the wanted ones left out and the rest
        brought back to a sum of 1: half the sum of the absolute differences, from 0 to 1; a mean over all positions.
        So what the wanted words took from all alike doesn't count.
        "loss": By how many nats the mean cross-entropy of the next word rises, over those next words of the texts that
        are none of the wanted; NaN if there are none.
    """
    log_before, log_after = before.log_softmax(-1), after.log_softmax(-1)
    is_wanted = torch.zeros(before.shape[-1], dtype=torch.bool).index_fill(0, wanted, True)
    rise = (log_after.exp() - log_before.exp())[..., is_wanted].sum(-1).mean()
    rest_before, rest_after = before[..., ~is_wanted].softmax(-1), after[..., ~is_wanted].softmax(-1)
    moved = 0.5 * (rest_after - rest_before).abs().sum(-1).mean()
    following = tokens[:, 1:]
    lost = (log_before - log_after)[:, :-1].gather(-1, following[..., None])[..., 0]
    return {"wanted": rise.item(), "others": moved.item(), "loss": lost[~is_wanted[following]].mean().item()}


def same_length(
    direction: Float[Tensor, " d"], n: int, generator: torch.Generator | None = None
) -> Float[Tensor, "n d"]:
    """Random directions of the length of the given one."""
    drawn = torch.randn(n, len(direction), generator=generator)
    return drawn / drawn.norm(dim=1, keepdim=True) * direction.norm()
