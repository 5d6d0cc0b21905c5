"""Decompositions of a toy model of superposition that nobody trained: the one we know, and others as faithful."""

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from utils.spd.components import Forward, RankOneComponents, masked_forward

KINDS = ("by feature", "mixed", "split", "singular vectors", "random")


def toy_target(
    W: Float[Tensor, "d_hidden feature"], b: Float[Tensor, " feature"]
) -> tuple[Forward, dict[str, Float[Tensor, "d_in d_out"]]]:
    """A toy model ReLU(Wᵀ W x + b) as something to decompose: the network, and its matrices "down" and "up"."""

    def forward(x, linear):
        return torch.relu(linear("up", linear("down", x)) + b)

    return forward, {"down": W.T, "up": W}


def rank_one_components(V: Float[Tensor, "d_in C"], U: Float[Tensor, "C d_out"]) -> RankOneComponents:
    """Components with these values, without gradients."""
    components = RankOneComponents(V.shape[0], U.shape[1], V.shape[1])
    components.load_state_dict({"V": V, "U": U})
    return components.requires_grad_(False)


def decomposed_by_hand(
    kind: str, W: Float[Tensor, "d_hidden feature"], generator: Generator | None = None
) -> dict[str, RankOneComponents]:
    """Components for the two matrices of ``toy_target``, which add up to them exactly, or to rounding.

    Args:
        kind: "by feature": a component for each feature, which is what we believe the network to be; "mixed": the
            first two of them are replaced by their sum and their difference; "split": the first is there twice, with
            half of what it writes each; "singular vectors": those of the matrix; "random": sixteen that read random
            directions, with what they write solved for.
        W: The toy model's weights.
        generator: Of the random directions.

    Raises:
        ValueError: If the kind is another.
    """
    features = torch.eye(W.shape[1])
    if kind == "by feature":
        return {"down": rank_one_components(features, W.T), "up": rank_one_components(W, features)}
    if kind == "mixed":
        turn = features.clone()
        turn[:2, :2] = torch.tensor([[1.0, 1.0], [1.0, -1.0]]) / 2**0.5
        return {"down": rank_one_components(turn, turn.T @ W.T), "up": rank_one_components(W @ turn, turn.T)}
    if kind == "split":
        twice = [0, *range(W.shape[1])]
        halves = torch.tensor([0.5, 0.5] + [1.0] * (W.shape[1] - 1))[:, None]
        return {
            "down": rank_one_components(features[:, twice], halves * W.T[twice]),
            "up": rank_one_components(W[:, twice], halves * features[twice]),
        }
    if kind == "singular vectors":
        parts = {name: torch.linalg.svd(M, full_matrices=False) for name, M in (("down", W.T), ("up", W))}
        return {
            name: rank_one_components(left, values[:, None] * right) for name, (left, values, right) in parts.items()
        }
    if kind == "random":
        read = {name: torch.randn(M.shape[0], 16, generator=generator) for name, M in (("down", W.T), ("up", W))}
        return {
            "down": rank_one_components(read["down"], torch.linalg.pinv(read["down"]) @ W.T),
            "up": rank_one_components(read["up"], torch.linalg.pinv(read["up"]) @ W),
        }
    raise ValueError(f"{kind!r} is none of {', '.join(KINDS)}")


def some_on(x: Float[Tensor, "n feature"]) -> Float[Tensor, "n_some feature"]:
    """The examples in which at least one feature is on."""
    return x[(x > 0).any(dim=1)]


def needed_alone(
    forward: Forward,
    weights: dict[str, Float[Tensor, "d_in d_out"]],
    components: dict[str, RankOneComponents],
    x: Float[Tensor, "batch d"],
    tolerance: float = 0.01,
) -> dict[str, Bool[Tensor, "batch C"]]:
    """Which components an input misses if they go one at a time.

    Args:
        forward, weights, components: As for ``masked_forward``.
        x: Inputs.
        tolerance: A component is missed if some output moves by more than this.

    Returns:
        For each matrix, input and component whether it is missed.
    """
    whole = {name: torch.ones(len(x), c.V.shape[1]) for name, c in components.items()}
    wanted = masked_forward(forward, weights, components, x, whole)
    needed = {}
    for name, ones in whole.items():
        columns = []
        for i in range(ones.shape[1]):
            mask = ones.clone()
            mask[:, i] = 0
            output = masked_forward(forward, weights, components, x, {**whole, name: mask})
            columns.append((output - wanted).abs().amax(dim=1) > tolerance)
        needed[name] = torch.stack(columns, dim=1)
    return needed
