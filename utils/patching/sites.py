"""Putting one run's activations into another, site by site."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.patching.hooks import run_with_hooks


def patch_site(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    name: str,
    source: Float[Tensor, "batch pos ..."],
    *,
    positions: Int[Tensor, "batch"] | None = None,
    head: int | None = None,
) -> Float[Tensor, "batch pos d_vocab"]:
    """Run ``model`` on ``tokens`` with one activation taken from another run.

    Args:
        model: Any module.
        tokens: What it reads.
        name: The hook point that is patched.
        source: This hook point's activation in the other run [batch, pos, ...].
        positions: The one position of each prompt that is patched, counted from 0; all of them if None.
        head: The one head that is patched, counted from 0, for an activation [batch, pos, head, d]; all of it if None.

    Returns:
        The patched run's output. Gradients are left to the caller: where they are on, they reach ``source``.
        ``source``, the model and what else reads the tensor at the hook point stay as they are.

    Raises:
        ValueError: If ``source`` has not the shape of the activation, if a position or the head is outside it (negative
            ones are), if a head is asked for where there are none, or if a position or a head is asked for and
            ``source`` does not begin with [batch, pos], as attention patterns [batch, head, query, key] do not.

    Source: Vig et al. (2020), "Investigating Gender Bias in Language Models Using Causal Mediation Analysis";
    Meng et al. (2022), section 2.1.
    """
    n_pos = tokens.shape[1]
    if (positions is not None or head is not None) and source.shape[:2] != tokens.shape:
        raise ValueError(f"an activation of shape {tuple(source.shape)} does not begin with [batch, pos]")
    if positions is not None and bool(((positions < 0) | (positions >= n_pos)).any()):
        raise ValueError(f"positions must be from 0 to {n_pos - 1}, got {positions.tolist()}")
    if head is not None and (source.dim() != 4 or not 0 <= head < source.shape[2]):
        raise ValueError(f"there is no head {head} in an activation of shape {tuple(source.shape)}")

    def write(activation: Tensor) -> Tensor:
        if activation.shape != source.shape:
            raise ValueError(f"source has shape {tuple(source.shape)}, {name!r} has {tuple(activation.shape)}")
        chosen = torch.ones(activation.shape[:3], dtype=torch.bool, device=activation.device)
        if positions is not None:
            at = torch.arange(n_pos, device=positions.device) == positions[:, None]
            chosen = chosen & at[:, :, None]
        if head is not None:
            chosen = chosen & (torch.arange(activation.shape[2], device=activation.device) == head)
        if activation.dim() == 4:
            chosen = chosen[..., None]
        return torch.where(chosen, source, activation)

    return run_with_hooks(model, tokens, [(name, write)])


def patch_sweep(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    source: dict[str, Float[Tensor, "batch pos ..."]],
    metric: Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, "batch"]],
    *,
    over: str = "position",
    max_rows: int = 512,
) -> Float[Tensor, "name slot batch"]:
    """Patch each hook point at each position (or in each head), one site at a time, and measure every patched run.

    Many sites share one forward pass: the prompts are repeated, and every copy has its own patch. A pass takes as many
    sites of a hook point as ``max_rows`` allows; those of several hook points may share one, and need not.

    Args:
        model: Any module.
        tokens: What the patched runs read.
        source: The other run's activations [batch, pos, ...], by hook point; all with the same number of slots.
        metric: From the logits of all the prompts to a number for each.
        over: "position": one position at a time; "head": one head, at all positions, of activations
            [batch, pos, head, d].
        max_rows: The most rows that one forward pass may have; never fewer than the prompts.

    Returns:
        The metric [name, slot, batch], names in the order of ``source``, a slot for each position or head, counted from
        0; without a graph, so that no run is kept in memory.

    Raises:
        ValueError: If ``over`` is neither of the two, if heads are asked for where there are none, if a source does not
            begin with [batch, pos] or has not the shape of its activation, or if the sources differ in their number of
            slots (as queries and keys do where heads share keys), or there are none.

    Source: Meng et al. (2022), figure 1; Heimersheim and Nanda (2024), "How to use and interpret activation patching".
    """
    # Given: the inputs are checked, and every site is a name and a slot of it.
    if over not in ("position", "head"):
        raise ValueError(f"over must be 'position' or 'head', got {over!r}")
    axis = 1 if over == "position" else 2
    if any(x.dim() <= axis + 1 or x.shape[:2] != tokens.shape for x in source.values()):
        raise ValueError(f"over={over!r} needs activations of shape [batch, pos, {'head, ' * (axis == 2)}...]")
    slots = {x.shape[axis] for x in source.values()}
    if len(slots) != 1:
        raise ValueError(f"the sources must have one number of slots, they have {sorted(slots)}")
    (n_slots,) = slots
    sites = [(name, slot) for name in source for slot in range(n_slots)]
    # Yours: as many sites in each forward pass as it has room for, each patched in its own copy of the prompts.
    batch, per_pass, results = len(tokens), max(1, max_rows // len(tokens)), []

    def writing(name: str, copies: Sequence[tuple[str, int]]) -> Callable[[Tensor], Tensor]:
        def write(activation: Tensor) -> Tensor:
            patched = activation.unflatten(0, (len(copies), batch)).clone()
            if patched.shape[1:] != source[name].shape:
                raise ValueError(
                    f"source {name!r} has shape {tuple(source[name].shape)}, not {tuple(patched.shape[1:])}"
                )
            for copy, (site, slot) in enumerate(copies):
                if site == name:
                    patched[copy].select(axis, slot).copy_(source[name].select(axis, slot))
            return patched.flatten(0, 1)

        return write

    with torch.no_grad():
        for start in range(0, len(sites), per_pass):
            copies = sites[start : start + per_pass]
            hooks = [(name, writing(name, copies)) for name in dict.fromkeys(name for name, _ in copies)]
            logits = run_with_hooks(model, tokens.repeat(len(copies), 1), hooks)
            results += [metric(part) for part in logits.split(batch)]
    return torch.stack(results).unflatten(0, (len(source), n_slots))
