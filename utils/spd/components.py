"""Rank-one components of a weight matrix, and a network that runs on some of them."""

from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor, nn

Linear = Callable[[str, Tensor], Tensor]  # (name of a matrix, what comes in) -> what goes out
Forward = Callable[[Tensor, Linear], Tensor]  # (input, how to multiply by the matrices) -> output


class RankOneComponents(nn.Module):
    """A weight matrix as a sum of C matrices of rank one: W ≈ Σ_c V[:, c] U[c].

    Component c reads the direction V[:, c] of what comes in, and writes U[c]. Both are free, in length as well.

    Args:
        d_in: Dimensions of what comes in.
        d_out: Dimensions of what goes out.
        C: Number of components.
        generator: Source of the starting values; None for torch's global one.

    Attributes:
        V: Parameter [d_in, C]; it starts as ``torch.randn(d_in, C, generator=generator)`` / sqrt(d_in).
        U: Parameter [C, d_out]; drawn after V, as ``torch.randn(C, d_out, generator=generator)`` / sqrt(C).

    Source: Bushnaq, Braun and Sharkey (2025), "Stochastic parameter decomposition"; they write W for our Wᵀ.
    """

    def __init__(self, d_in: int, d_out: int, C: int, *, generator: torch.Generator | None = None):
        super().__init__()
        self.V = nn.Parameter(torch.randn(d_in, C, generator=generator) / d_in**0.5)
        self.U = nn.Parameter(torch.randn(C, d_out, generator=generator) / C**0.5)

    def weight(self) -> Float[Tensor, "d_in d_out"]:
        """The sum of the components; gradients reach V and U."""
        return self.V @ self.U

    def matrices(self) -> Float[Tensor, "C d_in d_out"]:
        """The components one by one; gradients reach V and U."""
        return torch.einsum("ic,co->cio", self.V, self.U)

    def forward(
        self, a: Float[Tensor, "*batch d_in"], mask: Float[Tensor, "*batch C"] | None = None
    ) -> Float[Tensor, "*batch d_out"]:
        """What comes in times the components, each weighted by its mask; None for 1 throughout."""
        inner = a @ self.V
        return (inner if mask is None else inner * mask) @ self.U


def inputs_of_matrices(
    forward: Forward, weights: Mapping[str, Float[Tensor, "d_in d_out"]], x: Tensor
) -> tuple[Tensor, dict[str, Tensor]]:
    """Run the network on its own weights, and note what comes into each matrix.

    Args:
        forward: The network: ``forward(x, linear)`` calls ``linear(name, a)`` wherever it multiplies ``a`` by one of
            its matrices.
        weights: The matrices by name.
        x: The network's input.

    Returns:
        The output, and for each name what came into the matrix.
    """
    inputs = {}

    def linear(name: str, a: Tensor) -> Tensor:
        inputs[name] = a
        return a @ weights[name]

    return forward(x, linear), inputs


def masked_forward(
    forward: Forward,
    weights: Mapping[str, Float[Tensor, "d_in d_out"]],
    components: Mapping[str, RankOneComponents],
    x: Tensor,
    masks: Mapping[str, Float[Tensor, "*batch C"]],
) -> Tensor:
    """Run the network with some of its matrices put together from masked components.

    Each example has masks of its own. Such a matrix multiplies as its ``RankOneComponents`` do: ``components[name](a,
    mask)``.

    Args:
        forward: The network, as for ``inputs_of_matrices``.
        weights: The matrices by name.
        components: Components for each of the matrices.
        x: The network's input.
        masks: Masks by name of matrix. A matrix that is not named here multiplies by its own weights.

    Returns:
        The output. Its gradient reaches components and masks.

    Source: Bushnaq, Braun and Sharkey (2025).
    """

    def linear(name: str, a: Tensor) -> Tensor:
        return components[name](a, masks[name]) if name in masks else a @ weights[name]

    return forward(x, linear)
