"""Path patching: what one part sends to another along the direct path between them."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.patching.hooks import run_with_cache, run_with_hooks


def path_patch(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    corrupted: Int[Tensor, "batch pos"],
    senders: Sequence[tuple[str, int | None]],
    receivers: Sequence[tuple[str, int | None]],
    *,
    positions: Int[Tensor, "batch"] | None = None,
) -> Float[Tensor, "batch pos d_vocab"]:
    """Run ``model`` while the receivers hear what the senders put out on ``corrupted``, along direct paths alone.

    A part is a pair (hook point, head); head is None where the hook point has no heads. Three steps:

    1. The outputs of all heads (``blocks.l.attn.hook_z``) and all MLPs (``blocks.l.hook_mlp_out``) on ``tokens`` are
       kept, and those of the senders on ``corrupted``.
    2. ``tokens`` once more, the senders with their output on ``corrupted`` and all other heads and MLPs frozen at what
       they put out in step 1. What a sender changes reaches a receiver through the stream (and its norm) alone. What
       the receivers make of it is kept: the queries, keys or values of a head, the output that an MLP would have, the
       stream behind the last block.
    3. ``tokens`` once more, with the receivers at what was kept, and nothing else replaced. The senders put out what
       they do on ``tokens``; all behind the receivers goes its own way.

    Args:
        model: A model with the names of ``transformer_lens``; one without MLPs has no ``hook_mlp_out``.
        tokens: What it reads.
        corrupted: Prompts of the same shape; the senders' outputs come from them.
        senders: ``("blocks.1.attn.hook_z", 3)`` is head 3 of layer 1, ``("blocks.1.hook_mlp_out", None)`` an MLP.
        receivers: ``("blocks.2.attn.hook_q", 0)``, ``….hook_k``, ``….hook_v`` is what a head reads as query, key or
            value, ``("blocks.2.hook_mlp_out", None)`` an MLP's input, and ``("logits", None)`` the unembedding: in step
            3 the stream behind the last block is changed by as much as it was in step 2. A part that stands before a
            sender hears nothing from it. An MLP may be sender and receiver: as a receiver it is given what it makes of
            the *other* senders, and what it sends itself on ``corrupted`` reaches the receivers behind it alone.
        positions: The one position of each prompt at which the senders are corrupted; all of them if None.

    Returns:
        The logits of step 3, without a graph. With all receivers at once, they are not in general what patching the
        senders gives: each receiver hears the senders, and none hears what another receiver makes of them.

    Raises:
        ValueError: If ``tokens`` and ``corrupted`` differ in shape, or a hook point is unknown.

    Source: Wang et al. (2022), "Interpretability in the Wild", section 3.1 and appendix B. They let MLPs be recomputed
    in step 2, so that what passes an MLP counts as direct; here MLPs are parts like heads.
    """
    if tokens.shape != corrupted.shape:
        raise ValueError(f"tokens and corrupted have shapes {tuple(tokens.shape)} and {tuple(corrupted.shape)}")
    last, modules = f"blocks.{len(model.blocks) - 1}.hook_resid_post", dict(model.named_modules())
    parts = [f"blocks.{layer}.{part}" for layer in range(len(model.blocks)) for part in ("attn.hook_z", "hook_mlp_out")]
    parts = [name for name in parts if name in modules]
    heard: dict[str, Tensor] = {}

    def hear(name: str) -> Callable[[Tensor], Tensor]:
        return lambda activation: heard.setdefault(name, activation)

    def put(name: str, head: int | None, source: Tensor, at: Tensor) -> Callable[[Tensor], Tensor]:
        def replace(activation: Tensor) -> Tensor:
            chosen = at.view(*at.shape, *[1] * (activation.dim() - 2))
            if head is not None:
                chosen = chosen & (torch.arange(activation.shape[2]) == head)[:, None]
            return torch.where(chosen, source, activation)

        return replace

    everywhere = torch.ones(tokens.shape, dtype=torch.bool)
    at = everywhere if positions is None else torch.arange(tokens.shape[1]) == positions[:, None]
    with torch.no_grad():
        _, clean = run_with_cache(model, tokens, [*parts, last])
        _, other = run_with_cache(model, corrupted, [name for name, _ in senders])
        for name, head in senders:
            clean[name] = put(name, head, other[name], at)(clean[name])
        listening = [last if name == "logits" else name for name, _ in receivers]
        hooks = [(name, hear(name)) for name in listening]
        hooks += [(name, lambda _, name=name: clean[name]) for name in parts]
        run_with_hooks(model, tokens, hooks)
        hooks = []
        for (name, head), site in zip(receivers, listening, strict=True):
            if name == "logits":
                hooks.append((last, lambda stream: stream + heard[last] - clean[last]))
            else:
                hooks.append((name, put(name, head, heard[site], everywhere)))
        return run_with_hooks(model, tokens, hooks)
