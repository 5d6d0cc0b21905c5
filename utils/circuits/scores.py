"""What a circuit is judged by: a score of sets of edges, once all that has to be chosen has been chosen."""

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float, Int
from torch import Tensor

from utils.circuits.graph import Edge
from utils.circuits.messages import run_with_edges, sender_outputs

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

Score = Callable[[Collection[Edge]], Float[Tensor, " prompt"]]


def edge_score(
    model: "HookedTransformer",
    tokens: Int[Tensor, "batch pos"],
    edges: Sequence[Edge],
    replaced: Float[Tensor, "sender batch pos d_model"],
    metric: Callable[[Float[Tensor, "batch pos d_vocab"]], Float[Tensor, " batch"]],
) -> Score:
    """From a collection of edges to the metric of each prompt when these are kept and all others carry ``replaced``.

    Whatever was asked once is remembered.

    Args:
        model: As in ``run_with_edges``.
        tokens: The prompts.
        edges: All edges of the model, of ``build_graph``.
        replaced: As in ``run_with_edges``.
        metric: From logits to a number for each prompt.
    """
    known: dict[frozenset, Tensor] = {}

    def score(parts: Collection[Edge]) -> Tensor:
        parts = frozenset(parts)
        if parts not in known:
            kept = torch.tensor([[edge in parts for edge in edges]])
            known[parts] = metric(run_with_edges(model, tokens, edges, kept, replaced)[0])
        return known[parts]

    return score


def ablations(
    model: "HookedTransformer", tokens: Int[Tensor, "batch pos"], others: Sequence[Int[Tensor, "batch pos"]]
) -> dict[str, Float[Tensor, "sender batch pos d_model"]]:
    """What a cut edge may carry, three ways, by the names of the methods.

    Args:
        model: As in ``run_with_edges``.
        tokens: The prompts.
        others: Other prompts for each prompt, several times over, alike in form, so that positions mean the same.

    Returns:
        "zero"; "resample": as in the first of the others; "mean": the mean over all of the others.
    """
    sent = torch.stack([sender_outputs(model, other) for other in others])
    return {"resample": sent[0], "mean": sent.mean(0), "zero": torch.zeros_like(sent[0])}


def node(receiver: str) -> str:
    """The head or MLP to which a receiver or sender belongs: "a1.3" for "a1.3.q"."""
    return receiver.rsplit(".", 1)[0] if receiver[-1] in "qkv" else receiver


def between_its_nodes(circuit: Collection[Edge], edges: Sequence[Edge]) -> list[Edge]:
    """All edges whose two ends are heads, MLPs, embedding or logits that the circuit touches."""
    touched = {node(end) for edge in circuit for end in edge}
    return [edge for edge in edges if {node(end) for end in edge} <= touched]
