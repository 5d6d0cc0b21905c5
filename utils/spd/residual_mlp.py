"""A residual MLP that computes more functions than it has neurons, and its decomposition."""

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import torch
from jaxtyping import Float
from torch import Generator, Tensor

from utils.spd.components import Forward, RankOneComponents
from utils.spd.gates import ComponentGates, causal_importance
from utils.spd.training import Decomposition, train_spd


def residual_mlp_forward(W_E: Float[Tensor, "feature d"]) -> Forward:
    """A network that embeds features, runs one MLP beside a residual stream, and reads the features back.

    For features x the stream is r = x W_E; the output is (r + ReLU(r W_in) W_out) W_Eᵀ, without biases.

    Args:
        W_E: A direction for each feature; fixed, not to be decomposed.

    Returns:
        ``forward(x, linear)`` for x [*batch, feature]. It multiplies by "W_in" and by "W_out" through ``linear``.
        Gradients reach whatever ``linear`` gives.

    Source: Bushnaq, Braun and Sharkey (2025), section 3, after Braun et al. (2025), "Interpretability in parameter
    space".
    """

    def forward(x: Tensor, linear: Callable[[str, Tensor], Tensor]) -> Tensor:
        r = x @ W_E
        return (r + linear("W_out", linear("W_in", r).relu())) @ W_E.T

    return forward


def signed_features(
    n_features: int, batch: int, p: float = 0.1
) -> Callable[[Generator], Float[Tensor, "batch feature"]]:
    """A source of inputs: each feature is on with probability p, and then uniform between -1 and 1; at least one is.

    Args:
        n_features: Features of an input.
        batch: Inputs of a batch.
        p: How often each is on.
    """

    def draw(generator: Generator) -> Tensor:
        on = torch.rand(batch, n_features, generator=generator) < p
        one = torch.randint(n_features, (batch,), generator=generator)
        on[torch.arange(batch), one] |= ~on.any(dim=1)
        return (2 * torch.rand(batch, n_features, generator=generator) - 1) * on

    return draw


def two_networks(d: int = 12, seed: int = 0) -> tuple[Float[Tensor, "10 d"], dict[str, dict[str, Tensor]]]:
    """Two residual MLPs for ten ReLUs with five neurons, set by hand, which are equally far from x + ReLU(x).

    - "a neuron each": five features have a neuron of their own, the other five have none.
    - "pairs": each feature writes to two of the five neurons, a pair of its own; W_out reads the features back as well
      as a linear map of five numbers can.

    For inputs with one feature on, the squared error of both is half of what it is without the MLP.

    Args:
        d: Dimensions of the stream, at least 10.
        seed: Of the embedding, ten directions at right angles.

    Returns:
        The embedding, and for each network its "W_in" [d, 5] and "W_out" [5, d].
    """
    W_E = torch.linalg.qr(torch.randn(d, 10, generator=Generator().manual_seed(seed))).Q.T.contiguous()
    pairs = torch.zeros(10, 5)
    for feature, pair in enumerate(combinations(range(5), 2)):
        pairs[feature, list(pair)] = 0.5**0.5
    each = torch.eye(10)[:, :5]
    read_back = {"a neuron each": each.T, "pairs": torch.linalg.pinv(pairs)}
    written = {"a neuron each": each, "pairs": pairs}
    return W_E, {name: {"W_in": W_E.T @ written[name], "W_out": read_back[name] @ W_E} for name in written}


def residual_mlp_spd(
    W_E: Float[Tensor, "feature d"],
    weights: Mapping[str, Float[Tensor, "d_in d_out"]],
    *,
    C: int,
    price: float,
    n_steps: int,
    lr: float = 8e-3,
    batch: int = 256,
    seed: int = 0,
) -> Decomposition:
    """Decompose both matrices of a residual MLP, as a network of ``residual_mlp_forward``.

    Inputs come from ``signed_features`` with its own p, outputs are compared by the mean squared error, the exponent of
    the price is 1, and all other losses have weight 1.

    Args:
        W_E: The embedding.
        weights: "W_in" and "W_out", in this order.
        C: Components for each.
        price: Of needing components.
        n_steps: Of ``train_spd``.
        lr: Its learning rate.
        batch: Inputs of a batch.
        seed: Its seed.

    Returns:
        What ``train_spd`` returns.
    """
    return train_spd(
        residual_mlp_forward(W_E),
        weights,
        signed_features(len(W_E), batch),
        C=C,
        price=price,
        n_steps=n_steps,
        lr=lr,
        seed=seed,
    )


def importance_by_feature(
    gates: ComponentGates,
    components: RankOneComponents,
    W_E: Float[Tensor, "feature d"],
    values: Sequence[float] = (-0.9, -0.5, 0.5, 0.9),
) -> Float[Tensor, "feature C"]:
    """How much each feature alone, at any of some values, needs each component of the matrix that reads the stream.

    Args:
        gates: The components' gates.
        components: Components of "W_in".
        W_E: A direction of the stream for each feature.
        values: Of a feature; all others are 0.

    Returns:
        The largest lower-leaky causal importance over the values, cut off below 0.
    """
    each = torch.stack([causal_importance(gates, components.V, value * W_E)[0] for value in values])
    return each.amax(dim=0).clamp(min=0)
