"""What a tuned lens is compared with: a lens that knows the drift of the mean, and nothing about any direction."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from utils.lenses.tuned import train_tuned_lens


class BiasLens(nn.Module):
    """A tuned lens whose matrices stay 0: at site s, h becomes h + b_s.

    The logit lens can be wrong because a mean is added on the way that later layers take away again. This lens mends
    that and no more, so that what a tuned lens gains over it is due to its matrices.

    Args:
        n_sites: How many sites are translated.
        d_model: Width of the stream.

    Parameters: ``b`` [n_sites, d_model]. ``A`` [n_sites, d_model, d_model] is a buffer of zeros.
    """

    def __init__(self, n_sites: int, d_model: int):
        super().__init__()
        self.register_buffer("A", torch.zeros(n_sites, d_model, d_model))
        self.b = nn.Parameter(torch.zeros(n_sites, d_model))

    def forward(self, stack: Float[Tensor, "site *batch d_model"]) -> Float[Tensor, "site *batch d_model"]:
        """Shift each site by its own vector."""
        return stack + self.b.reshape(len(self.b), *[1] * (stack.ndim - 2), -1)


def fit_bias_lens(
    model: nn.Module,
    stack: Float[Tensor, "site batch pos d_model"],
    *,
    n_steps: int,
    n_rows: int,
    lr: float,
    generator: torch.Generator,
) -> BiasLens:
    """A bias-only lens, trained exactly as ``train_tuned_lens`` trains a tuned one.

    Args:
        model, stack, n_steps, n_rows, lr, generator: As there.
    """
    lens = BiasLens(len(stack) - 1, stack.shape[-1]).to(stack)
    train_tuned_lens(lens, model, stack, n_steps=n_steps, n_rows=n_rows, lr=lr, generator=generator)
    return lens
