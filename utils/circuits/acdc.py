"""Finding a circuit by taking edges away, one after the other."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from utils.circuits.messages import run_with_edges, sender_outputs


def acdc(
    model: nn.Module,
    clean: Int[Tensor, "batch pos"],
    corrupt: Int[Tensor, "batch pos"],
    edges: Sequence[tuple[str, str]],
    metric: Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, " batch"]],
    threshold: float,
) -> Bool[Tensor, " edge"]:
    """Cut edges one after the other, from the logits backwards, and leave cut whatever hardly matters by then.

    All edges are there at first. Then each is cut in turn, last edge of the list first, with all that have been cut
    before it still cut, in the sense of ``edge_patching``. If that changes the metric's mean over the prompts by at
    most ``threshold``, up or down, compared with the circuit as it was before, the edge stays cut; otherwise it comes
    back for good.

    Where all edges that a head or MLP sends along have been cut, nothing that it receives can matter: its edges may be
    cut without a run.

    Args:
        model: A ``HookedTransformer``.
        clean, corrupt: Prompts of the same shape.
        edges: All edges of the model. Each edge that a head or MLP sends along stands behind those that it receives, as
            in the order of ``build_graph``.
        metric: From the logits of all prompts to a number for each.
        threshold: In the units of the metric, at least 0.

    Returns:
        For each edge whether it belongs to the circuit.

    Raises:
        ValueError: If the prompts differ in shape, or the threshold is negative.

    Source: Conmy et al. (2023), algorithm 1, which takes the KL divergence from the whole model in place of a metric.
    """
    if clean.shape != corrupt.shape or threshold < 0:
        raise ValueError(f"shapes {tuple(clean.shape)}, {tuple(corrupt.shape)} must agree, threshold be at least 0")
    replaced, kept = sender_outputs(model, corrupt), torch.ones(len(edges), dtype=torch.bool)
    with torch.no_grad():
        current = metric(model(clean)).mean()
        for i in reversed(range(len(edges))):
            node = edges[i][1].removesuffix(".q").removesuffix(".k").removesuffix(".v")
            heard = node == "logits" or any(kept[j] and edges[j][0] == node for j in range(i + 1, len(edges)))
            kept[i] = False
            if heard:
                without = metric(run_with_edges(model, clean, edges, kept[None], replaced)[0]).mean()
                if abs(without - current) > threshold:
                    kept[i] = True
                else:
                    current = without
    return kept
