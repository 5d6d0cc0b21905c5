"""Causal tracing: drown the subject in noise, then put back one activation at a time."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from utils.patching.hooks import run_with_cache, run_with_hooks


def corrupt_with_noise(
    embeddings: Float[Tensor, "batch pos d_model"],
    subject: Bool[Tensor, "batch pos"],
    std: float,
    generator: torch.Generator,
) -> Float[Tensor, "batch pos d_model"]:
    """Add Gaussian noise to the embeddings of the subject's tokens, independent in every entry.

    Args:
        embeddings: Token embeddings, before positions are added.
        subject: Which tokens are the subject's.
        std: Standard deviation of the noise, in the embeddings' units.
        generator: Draws the noise.

    Returns:
        The noisy embeddings, in the dtype of ``embeddings``; all tokens outside the subject are as they were.

    Raises:
        ValueError: If ``std`` is negative, or some prompt has no subject.

    Source: Meng et al. (2022), section 2.1: h_i* = h_i + epsilon for the subject's tokens, epsilon ~ N(0, std^2).
    """
    if std < 0:
        raise ValueError(f"std must not be negative, got {std}")
    if not bool(subject.any(dim=1).all()):
        raise ValueError("every prompt needs at least one subject token")
    noise = torch.randn(embeddings.shape, generator=generator, dtype=embeddings.dtype)
    return torch.where(subject[..., None], embeddings + std * noise.to(embeddings.device), embeddings)


def causal_trace(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    subject: Bool[Tensor, "batch pos"],
    names: Sequence[str],
    positions: Int[Tensor, "n_positions batch"],
    metric: Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, "batch"]],
    *,
    std: float,
    n_draws: int,
    generator: torch.Generator,
    window: int = 1,
    embedding: str = "hook_embed",
) -> dict[str, Float[Tensor, "..."]]:
    """What restoring one site, or a window of layers, brings back of an answer whose subject is drowned in noise.

    Every draw of noise is used for the run without restoration and for all those with it, so that they differ in the
    restoration alone.

    Args:
        model: Any module.
        tokens: Prompts.
        subject: Which tokens the noise is added to.
        names: Hook points [batch, pos, d], one for each layer, in their order; the embedding's may be among them.
        positions: For each column of the result, the position in every prompt that is restored, counted from 0.
        metric: From logits to a number for each prompt, such as the answer's probability.
        std: Standard deviation of the noise.
        n_draws: How many draws to average over.
        generator: Draws them, in one call of ``corrupt_with_noise`` on the clean embeddings for each.
        window: How many neighbouring names are restored together; around name i these are the names from
            i - (window - 1) // 2 to i + window // 2, as far as there are any.
        embedding: The hook point of the token embeddings.

    Returns:
        "clean" [batch]: the metric without noise; "noisy" [batch]: with noise; "restored" [name, n_positions, batch]:
        with noise and the restoration. The last two are means over draws; none has a graph, so that no run is kept in
        memory.

    Raises:
        ValueError: If ``window`` or ``n_draws`` is smaller than 1, or a position is outside the prompts (negative ones
            are).

    Source: Meng et al. (2022), section 2.1 and figure 2.
    """
    # Given: the inputs are checked.
    if window < 1 or n_draws < 1:
        raise ValueError(f"window and n_draws must be at least 1, got {window} and {n_draws}")
    if bool(((positions < 0) | (positions >= tokens.shape[1])).any()):
        raise ValueError(f"positions must be from 0 to {tokens.shape[1] - 1}, got {positions.tolist()}")
    # Yours: the clean run, and for each draw the noisy one and one for every site that is restored in it.
    rows = torch.arange(len(tokens), device=tokens.device)
    restored = []
    with torch.no_grad():
        logits, cache = run_with_cache(model, tokens, [embedding, *names])
        clean, noisy = metric(logits), 0.0

        def restoring(name: str, at: Tensor) -> Callable[[Tensor], Tensor]:
            return lambda activation: activation.index_put((rows, at), cache[name][rows, at])

        for _ in range(n_draws):
            drowned = corrupt_with_noise(cache[embedding], subject, std, generator)
            drown = (embedding, lambda _, drowned=drowned: drowned)
            noisy = noisy + metric(run_with_hooks(model, tokens, [drown])) / n_draws
            for i in range(len(names)):
                near = names[max(0, i - (window - 1) // 2) : i + window // 2 + 1]
                for at in positions:
                    hooks = [drown, *[(name, restoring(name, at)) for name in near]]
                    restored.append(metric(run_with_hooks(model, tokens, hooks)))
    restored = torch.stack(restored).unflatten(0, (n_draws, len(names), len(positions))).mean(0)
    return {"clean": clean, "noisy": noisy, "restored": restored}
