"""Causal importance: how much each component is needed for an input."""

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn


def lower_leaky_hard_sigmoid(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """x between 0 and 1, 1 above, and 0.01 x below: a gate that is shut can still be opened by its gradient.

    Args:
        x: Logits of any shape.

    Returns:
        The same shape. Its gradient is 1 between 0 and 1, 0 above, 0.01 below.

    Source: Bushnaq, Braun and Sharkey (2025).
    """
    return torch.where(x < 0, 0.01 * x, x.clamp(max=1))


def upper_leaky_hard_sigmoid(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """x between 0 and 1, 0 below, and 1 + 0.01 (x - 1) above: a gate that is wide open can still be shut.

    Args:
        x: Logits of any shape.

    Returns:
        The same shape. Its gradient is 1 between 0 and 1, 0 below, 0.01 above.

    Source: Bushnaq, Braun and Sharkey (2025).
    """
    return torch.where(x > 1, 1 + 0.01 * (x - 1), x.clamp(min=0))


class ComponentGates(nn.Module):
    """A small MLP for each component, which reads how strongly the component is on and says how much it is needed.

    Component c, with h_c the product of what comes in with V[:, c]: W_out[c] · GELU(h_c W_in[c] + b_in[c]) + b_out[c].
    The components share nothing: each has its own row of every parameter.

    Args:
        C: Number of components.
        d_gate: Neurons of each MLP.
        generator: Source of the starting values; None for torch's global one.

    Attributes:
        W_in: Parameter [C, d_gate]; it starts as ``torch.randn(C, d_gate, generator=generator)``.
        b_in: Parameter [C, d_gate]; it starts at 0.
        W_out: Parameter [C, d_gate]; drawn after W_in, as ``torch.randn(C, d_gate, generator=generator)`` /
            sqrt(d_gate).
        b_out: Parameter [C]; it starts at 0.

    Source: Bushnaq, Braun and Sharkey (2025); 16 neurons in most of their runs.
    """

    def __init__(self, C: int, d_gate: int = 16, *, generator: torch.Generator | None = None):
        super().__init__()
        self.W_in = nn.Parameter(torch.randn(C, d_gate, generator=generator))
        self.b_in = nn.Parameter(torch.zeros(C, d_gate))
        self.W_out = nn.Parameter(torch.randn(C, d_gate, generator=generator) / d_gate**0.5)
        self.b_out = nn.Parameter(torch.zeros(C))

    def forward(self, h: Float[Tensor, "*batch C"]) -> Float[Tensor, "*batch C"]:
        """The MLPs' outputs, before any sigmoid."""
        hidden = F.gelu(h[..., None] * self.W_in + self.b_in)
        return (hidden * self.W_out).sum(dim=-1) + self.b_out


def causal_importance(
    gates: ComponentGates, V: Float[Tensor, "d_in C"], a: Float[Tensor, "*batch d_in"]
) -> tuple[Float[Tensor, "*batch C"], Float[Tensor, "*batch C"]]:
    """How much each component is needed for each input.

    Args:
        gates: The components' MLPs.
        V: What the components read.
        a: What comes into the matrix when the network runs on its own weights.

    Returns:
        The gates' outputs through the lower-leaky hard sigmoid (for masks), and through the upper-leaky one (for the
        price), a tuple of two. Gradients reach the gates and V.

    Source: Bushnaq, Braun and Sharkey (2025).
    """
    logits = gates(a @ V)
    return lower_leaky_hard_sigmoid(logits), upper_leaky_hard_sigmoid(logits)
