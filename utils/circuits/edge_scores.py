"""What each edge is worth: exactly, one at a time, and estimated for all edges at once."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.circuits.messages import (
    receiver_gradients,
    receiver_names,
    run_with_edges,
    sender_names,
    sender_outputs,
)


def edge_patching(
    model: nn.Module,
    clean: Int[Tensor, "batch pos"],
    corrupt: Int[Tensor, "batch pos"],
    edges: Sequence[tuple[str, str]],
    metric: Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, " batch"]],
    *,
    max_rows: int = 64,
) -> Float[Tensor, "edge batch"]:
    """What cutting each edge, one at a time, does to each prompt's metric: the exact effect.

    Cutting an edge means that its receiver gets, in place of what the sender puts out, what the same sender puts out in
    the corrupt run; every other edge carries what its sender puts out in the run at hand. Several edges can share a
    forward pass, each cut in its own copy of the prompts.

    Args:
        model: A ``HookedTransformer``.
        clean, corrupt: Prompts of the same shape.
        edges: Which edges to cut, each (sender, receiver), any of those of ``build_graph``.
        metric: From the logits of all prompts to a number for each. It may read each prompt at a place of its own, and
            is given the prompts once at a time, not several copies of them.
        max_rows: The most rows that one forward pass may have; never fewer than the prompts.

    Returns:
        For each edge and prompt: the metric with this edge cut less that of the clean run. Negative where the edge
        helps. Without a graph.

    Raises:
        ValueError: If the prompts differ in shape.

    Source: Goldowsky-Dill et al. (2023), "Localizing Model Behavior with Path Patching", for paths of one edge; Conmy
    et al. (2023), section 3.
    """
    if clean.shape != corrupt.shape:
        raise ValueError(f"clean has shape {tuple(clean.shape)}, corrupt {tuple(corrupt.shape)}")
    replaced, results = sender_outputs(model, corrupt), []
    kept = ~torch.eye(len(edges), dtype=torch.bool)
    with torch.no_grad():
        whole = metric(model(clean))
        for part in kept.split(max(1, max_rows // len(clean))):
            logits = run_with_edges(model, clean, edges, part, replaced)
            results += [metric(copy) - whole for copy in logits]
    return torch.stack(results)


def edge_attribution_patching(
    model: nn.Module,
    clean: Int[Tensor, "batch pos"],
    corrupt: Int[Tensor, "batch pos"],
    edges: Sequence[tuple[str, str]],
    metric: Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, " batch"]],
) -> Float[Tensor, "edge batch"]:
    """First-order estimate of ``edge_patching`` for all edges, from one backward pass (EAP).

    For an edge from s to r: sum over positions and dimensions of (corrupt - clean output of s) times the derivative of
    the metric by the input of r, taken in the clean run.

    Args:
        model, clean, corrupt, edges: As in ``edge_patching``.
        metric: As there, and differentiable.

    Returns:
        The estimated change of each prompt's metric, by edge; without a graph.

    Raises:
        ValueError: If the prompts differ in shape.

    Source: Syed et al. (2023), "Attribution Patching Outperforms Automated Circuit Discovery".
    """
    if clean.shape != corrupt.shape:
        raise ValueError(f"clean has shape {tuple(clean.shape)}, corrupt {tuple(corrupt.shape)}")
    change = sender_outputs(model, corrupt) - sender_outputs(model, clean)
    slopes = receiver_gradients(model, clean, metric)
    senders, receivers = ({n: i for i, n in enumerate(names(model))} for names in (sender_names, receiver_names))
    s, r = [senders[sender] for sender, _ in edges], [receivers[receiver] for _, receiver in edges]
    return torch.einsum("sbpd,rbpd->srb", change, slopes)[s, r]


def eap_ig(
    model: nn.Module,
    clean: Int[Tensor, "batch pos"],
    corrupt: Int[Tensor, "batch pos"],
    edges: Sequence[tuple[str, str]],
    metric: Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, " batch"]],
    *,
    steps: int = 5,
) -> Float[Tensor, "edge batch"]:
    """EAP with integrated gradients: the derivatives are averaged on the way from the corrupt to the clean embedding.

    The derivatives by the receivers' inputs are taken in ``steps`` runs. In run k = 1, 2, … steps the embedding sends
    corrupt + k / steps * (clean - corrupt), both being what it sends for these prompts; everything after it is computed
    from that. The last run is the clean one. What the senders change by stays what it is in EAP: corrupt less clean.

    Args:
        model, clean, corrupt, edges, metric: As in ``edge_attribution_patching``.
        steps: Runs on the way, at least 1; 1 gives EAP.

    Returns:
        The estimated change of each prompt's metric, by edge; without a graph.

    Raises:
        ValueError: If the prompts differ in shape, or there is no step.

    Source: Hanna et al. (2024), "Have Faith in Faithfulness", section 3.
    """
    if clean.shape != corrupt.shape or steps < 1:
        raise ValueError(f"shapes {tuple(clean.shape)} and {tuple(corrupt.shape)} must agree, and steps be at least 1")
    start, end = sender_outputs(model, corrupt), sender_outputs(model, clean)
    slopes = 0
    for k in range(1, steps + 1):
        embedding = start[0] + k / steps * (end[0] - start[0])
        slopes = slopes + receiver_gradients(model, clean, metric, embedding) / steps
    senders, receivers = ({n: i for i, n in enumerate(names(model))} for names in (sender_names, receiver_names))
    s, r = [senders[sender] for sender, _ in edges], [receivers[receiver] for _, receiver in edges]
    return torch.einsum("sbpd,rbpd->srb", start - end, slopes)[s, r]
