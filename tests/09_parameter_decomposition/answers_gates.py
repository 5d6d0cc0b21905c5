"""Wrong answers for the leaky sigmoids, the gates and importances, each with its sentence, and right ones."""

import torch
import torch.nn.functional as F
from torch import nn

from utils.course.catalogue import right, wrong

# lower_leaky_hard_sigmoid


@wrong("lower_leaky_hard_sigmoid", "Below 0 yours is 0 and has no gradient: a gate that is shut stays shut.")
def lower_without_leak(x):
    return x.clamp(0, 1)


@wrong("lower_leaky_hard_sigmoid", "Yours leaks above 1 and not below 0: that is the upper-leaky one.")
def lower_leaks_above(x):
    return torch.where(x > 1, 1 + 0.01 * (x - 1), x.clamp(min=0))


@wrong("lower_leaky_hard_sigmoid", "Yours leaks on both sides. Above 1 it stays at 1.")
def lower_leaks_on_both(x):
    return torch.where(x < 0, 0.01 * x, torch.where(x > 1, 1 + 0.01 * (x - 1), x))


@wrong("lower_leaky_hard_sigmoid", "Above 1 yours goes on: a leaky ReLU. An importance is at most 1.")
def lower_leaky_relu(x):
    return F.leaky_relu(x, 0.01)


@wrong("lower_leaky_hard_sigmoid", "Your leak has another slope: it is 0.01.")
def lower_steeper(x):
    return torch.where(x < 0, 0.1 * x, x.clamp(max=1))


@wrong("lower_leaky_hard_sigmoid", "Your leak goes up to the left: below 0 it falls slowly as x does.")
def lower_mirrored(x):
    return torch.where(x < 0, -0.01 * x, x.clamp(max=1))


@right("lower_leaky_hard_sigmoid")
def lower_of_two(x):
    return torch.minimum(F.leaky_relu(x, negative_slope=0.01), torch.ones_like(x))


@right("lower_leaky_hard_sigmoid")
def lower_as_a_sum(x):
    return x.clamp(0, 1) + 0.01 * x.clamp(max=0)


# upper_leaky_hard_sigmoid


@wrong("upper_leaky_hard_sigmoid", "Above 1 yours is 1 and has no gradient: the price can't close it.")
def upper_without_leak(x):
    return x.clamp(0, 1)


@wrong("upper_leaky_hard_sigmoid", "Yours leaks below 0 and not above 1: that is the lower-leaky one.")
def upper_leaks_below(x):
    return torch.where(x < 0, 0.01 * x, x.clamp(max=1))


@wrong("upper_leaky_hard_sigmoid", "Yours leaks on both sides. Below 0 it stays at 0, or the price would pay for it.")
def upper_leaks_on_both(x):
    return torch.where(x < 0, 0.01 * x, torch.where(x > 1, 1 + 0.01 * (x - 1), x))


@wrong("upper_leaky_hard_sigmoid", "Yours jumps at 1: above it is 1 + 0.01 x. The leak starts where the middle ends.")
def upper_jumps(x):
    return torch.where(x > 1, 1 + 0.01 * x, x.clamp(min=0))


@wrong("upper_leaky_hard_sigmoid", "Above 1 yours begins at 0.01 again: 0.01 x. It goes on from 1.")
def upper_falls(x):
    return torch.where(x > 1, 0.01 * x, x.clamp(min=0))


@wrong("upper_leaky_hard_sigmoid", "Above 1 yours goes on with slope 1: a ReLU. The leak's slope is 0.01.")
def upper_relu(x):
    return x.relu()


@right("upper_leaky_hard_sigmoid")
def upper_as_a_sum(x):
    return x.clamp(0, 1) + 0.01 * (x - 1).clamp(min=0)


@right("upper_leaky_hard_sigmoid")
def upper_mirrored(x):
    y = 1 - x
    return 1 - torch.minimum(F.leaky_relu(y, 0.01), torch.ones_like(y))


# ComponentGates


class Base(nn.Module):
    """What the answers share."""

    activation = staticmethod(F.gelu)

    def __init__(self, C, d_gate=16, *, generator=None):
        super().__init__()
        self.W_in = nn.Parameter(torch.randn(C, d_gate, generator=generator))
        self.b_in = nn.Parameter(torch.zeros(C, d_gate))
        self.W_out = nn.Parameter(torch.randn(C, d_gate, generator=generator) / d_gate**0.5)
        self.b_out = nn.Parameter(torch.zeros(C))

    def forward(self, h):
        hidden = self.activation(h[..., None] * self.W_in + self.b_in)
        return (hidden * self.W_out).sum(-1) + self.b_out


@wrong("ComponentGates", "Your neurons are ReLUs. Here they are GELUs.")
class WithRelu(Base):
    activation = staticmethod(F.relu)


@wrong("ComponentGates", "Your neurons are linear: there is no GELU, and each MLP is one straight line.")
class Linear(Base):
    activation = staticmethod(lambda x: x)


@wrong("ComponentGates", "Your neurons' biases have no say.")
class WithoutInnerBias(Base):
    def forward(self, h):
        hidden = F.gelu(h[..., None] * self.W_in + 0 * self.b_in)
        return (hidden * self.W_out).sum(-1) + self.b_out


@wrong("ComponentGates", "Your last bias has no say.")
class WithoutOuterBias(Base):
    def forward(self, h):
        return super().forward(h) - self.b_out + 0 * self.b_out


@wrong("ComponentGates", "There is a sigmoid in your gates. The leaky ones come later, and two of them.")
class WithSigmoid(Base):
    def forward(self, h):
        return super().forward(h).sigmoid()


@wrong(
    "ComponentGates",
    "All your components share one MLP. Each has weights of its own: what is strong for one may be weak for another.",
)
class OneMLP(Base):
    def forward(self, h):
        hidden = F.gelu(h[..., None] * self.W_in[0] + self.b_in[0])
        return (hidden * self.W_out[0]).sum(-1) + self.b_out[0] + 0 * (self.W_in + self.b_in + self.W_out).sum()


@wrong(
    "ComponentGates",
    "Your neurons read the sum over all components. Each component's MLP reads its own number and no other.",
)
class ReadsAll(Base):
    def forward(self, h):
        hidden = F.gelu(torch.einsum("...c,cd->...d", h, self.W_in)[..., None, :] + self.b_in)
        return (hidden * self.W_out).sum(-1) + self.b_out


@wrong("ComponentGates", "Your W_out does not start as the docstring says: it is divided by sqrt(d_gate).")
class Unscaled(Base):
    def __init__(self, C, d_gate=16, *, generator=None):
        super().__init__(C, d_gate, generator=generator)
        self.W_out.data *= d_gate**0.5


@right("ComponentGates")
class WithEinsum(Base):
    def forward(self, h):
        hidden = F.gelu(torch.einsum("...c,cd->...cd", h, self.W_in) + self.b_in)
        return torch.einsum("...cd,cd->...c", hidden, self.W_out) + self.b_out


@right("ComponentGates")
class ComponentByComponent(Base):
    def forward(self, h):
        columns = []
        for c in range(self.b_out.shape[0]):
            hidden = F.gelu(h[..., c, None] * self.W_in[c] + self.b_in[c])
            columns.append(hidden @ self.W_out[c] + self.b_out[c])
        return torch.stack(columns, dim=-1)


# causal_importance


def low(x):
    return torch.where(x < 0, 0.01 * x, x.clamp(max=1))


def up(x):
    return torch.where(x > 1, 1 + 0.01 * (x - 1), x.clamp(min=0))


@wrong("causal_importance", "Your two are exchanged: the lower-leaky one, for masks, comes first.")
def exchanged(gates, V, a):
    logits = gates(a @ V)
    return up(logits), low(logits)


@wrong("causal_importance", "Both of yours are lower-leaky. A price on it would pay for importances below 0.")
def both_lower(gates, V, a):
    logits = gates(a @ V)
    return low(logits), low(logits)


@wrong("causal_importance", "Both of yours are upper-leaky: a shut gate gets no gradient from the masks.")
def both_upper(gates, V, a):
    logits = gates(a @ V)
    return up(logits), up(logits)


@wrong("causal_importance", "You apply one sigmoid after the other, so that there is no leak of one's own left.")
def one_after_the_other(gates, V, a):
    logits = gates(a @ V)
    return low(logits), up(low(logits))


@wrong("causal_importance", "You return the gates' numbers before any sigmoid.")
def without_sigmoids(gates, V, a):
    logits = gates(a @ V)
    return logits, logits


@wrong("causal_importance", "Your gates read the size of what comes in along V, without its sign.")
def sizes(gates, V, a):
    logits = gates((a @ V).abs())
    return low(logits), up(logits)


@wrong("causal_importance", "V gets no gradient through your importances.")
def V_detached(gates, V, a):
    logits = gates(a @ (V.detach() + 0 * V))
    return low(logits), up(logits)


@wrong("causal_importance", "Your gates read along directions of length 1. V's lengths count.")
def unit_directions(gates, V, a):
    logits = gates(a @ (V / V.norm(dim=0)))
    return low(logits), up(logits)


@right("causal_importance")
def with_einsum(gates, V, a):
    logits = gates(torch.einsum("...i,ic->...c", a, V))
    inside = logits.clamp(0, 1)
    return inside + 0.01 * logits.clamp(max=0), inside + 0.01 * (logits - 1).clamp(min=0)


@right("causal_importance")
def gates_twice(gates, V, a):
    return low(gates(a @ V)), up(gates(a @ V))
