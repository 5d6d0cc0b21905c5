"""The tuned lens: a small affine map for each site, between the stream and the model's own unembedding."""

import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor, nn

from utils.lenses.measures import lens_kl
from utils.lenses.stream import logit_lens


class TunedLens(nn.Module):
    """One affine translator for each site, which guesses the stream behind the last block from the stream there.

    At site s, a row vector h becomes h + h A_s + b_s. A new lens is the identity: put before the final norm and the
    unembedding, it is the logit lens.

    Parameters: ``A`` [n_sites, d_model, d_model] and ``b`` [n_sites, d_model], both trainable and nothing else. What
    the module returns carries a graph to them and to the stack.

    Source: Belrose et al. (2023), "Eliciting Latent Predictions from Transformers with the Tuned Lens", on
    the translators and their residual form.
    """

    def __init__(self, n_sites: int, d_model: int):
        """Make the identity.

        Args:
            n_sites: How many sites are translated; the last one of a stack needs no translator.
            d_model: Width of the stream.
        """
        super().__init__()
        self.A = nn.Parameter(torch.zeros(n_sites, d_model, d_model))
        self.b = nn.Parameter(torch.zeros(n_sites, d_model))

    def forward(self, stack: Float[Tensor, "site *batch d_model"]) -> Float[Tensor, "site *batch d_model"]:
        """Translate each site with its own map.

        Args:
            stack: The stream at all sites that have a translator; any number of dimensions between site and d_model.

        Returns:
            The guesses, of the same shape.

        Raises:
            ValueError: If ``stack`` does not have n_sites sites.
        """
        if len(stack) != len(self.A):
            raise ValueError(f"stack has {len(stack)} sites, and there are {len(self.A)} translators")
        b = self.b.reshape(len(self.b), *[1] * (stack.ndim - 2), -1)
        return stack + einsum(stack, self.A, "site ... d_in, site d_in d_out -> site ... d_out") + b


def train_tuned_lens(
    lens: nn.Module,
    model: nn.Module,
    stack: Float[Tensor, "site batch pos d_model"],
    *,
    n_steps: int,
    n_rows: int,
    lr: float,
    generator: torch.Generator,
) -> Float[Tensor, "step n_sites"]:
    """Train all translators of a lens towards the model's final distribution; the lens is changed in place.

    The positions of all texts are one list of batch * pos rows, text after text. Step i draws ``n_rows`` of them
    with ``torch.randint(batch * pos, (n_rows,), generator=generator)``, the same for all sites. The loss of a site
    is the mean over these rows of KL(final || lens), where the final logits are those of the last site of the
    stack. One ``torch.optim.Adam`` with its default betas minimises the sum over sites; the learning rate of step
    i = 0, 1, … n_steps - 1 is lr * (1 - i / n_steps). A gradient that was in the lens before counts nothing.

    Args:
        lens: A ``TunedLens`` for all sites but the last, in float32 or float64.
        model: The model that the stack comes from, with the dtype of the lens. Its weights stay as they are, each with
            the ``requires_grad`` that it had, and their ``.grad`` is left alone.
        stack: What ``residual_stack`` returns.
        n_steps: Number of steps.
        n_rows: Rows for each step.
        lr: Learning rate of the first step.
        generator: Draws the rows.

    Returns:
        The loss of each site before each step, detached.

    Raises:
        ValueError: If the lens does not have one translator fewer than ``stack`` has sites, or if lens, model or stack
            are in half precision (float16, bfloat16), where Adam's squares of gradients round to 0.

    Source: Belrose et al. (2023), with an optimiser of ours.
    """
    if len(lens.A) != len(stack) - 1:
        raise ValueError(f"a stack of {len(stack)} sites needs {len(stack) - 1} translators, not {len(lens.A)}")
    if any(torch.finfo(value.dtype).bits < 32 for value in (lens.A, model.unembed.W_U, stack)):
        raise ValueError(
            "lens, model and stack must be float32 or float64: in half precision Adam's squares round to 0"
        )
    rows = stack.detach().flatten(1, 2)
    optimizer = torch.optim.Adam(lens.parameters(), lr=lr)
    losses = []
    for step in range(n_steps):
        drawn = torch.randint(rows.shape[1], (n_rows,), generator=generator).to(rows.device)
        with torch.no_grad():
            final_logits = logit_lens(model, rows[-1, drawn])
        with torch.enable_grad():  # also where the caller has switched gradients off
            loss = lens_kl(logit_lens(model, lens(rows[:-1, drawn])), final_logits).mean(dim=-1)
            total = loss.sum()
        losses.append(loss.detach())
        optimizer.param_groups[0]["lr"] = lr * (1 - step / n_steps)
        # Gradients of the lens alone: backward() would leave some in the model, which is not ours to change.
        parameters = list(lens.parameters())
        for parameter, gradient in zip(parameters, torch.autograd.grad(total, parameters), strict=True):
            parameter.grad = gradient
        optimizer.step()
        optimizer.zero_grad()
    return torch.stack(losses)
