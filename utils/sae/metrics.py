"""What a dictionary is worth: how sparse, what stays unexplained, what the model loses, which features were found."""

from collections.abc import Callable

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor


def l0(z: Float[Tensor, "batch d_sae"]) -> float:
    """How many latents are on (above 0) for an activation, on average.

    Args:
        z: Latents.

    Returns:
        A number from 0 to d_sae.
    """
    return (z > 0).sum(dim=-1).float().mean().item()


def dead_fraction(z: Float[Tensor, "batch d_sae"]) -> float:
    """The share of latents that are on (above 0) for no activation of the batch.

    Args:
        z: Latents.

    Returns:
        A number from 0 to 1.
    """
    return (~(z > 0).any(dim=0)).float().mean().item()


def fraction_variance_explained(x: Float[Tensor, "batch d"], x_hat: Float[Tensor, "batch d"]) -> float:
    """1 less the squared error as a share of the squared distance from the mean activation.

    Both are sums over all activations and dimensions, before the division.

    Args:
        x: Activations, not all the same.
        x_hat: Their reconstructions.

    Returns:
        1 for a perfect reconstruction, 0 for one that is as far off as the mean of x, below 0 for a worse one.
    """
    return (1 - (x - x_hat).square().sum() / (x - x.mean(dim=0)).square().sum()).item()


def loss_recovered(loss: float, spliced: float, ablated: float) -> float:
    """How much of the model's ability survives when the reconstruction takes the activation's place.

    Args:
        loss: Of the model as it is.
        spliced: With reconstructions in the activations' place.
        ablated: With the site ablated (zeros, or the mean activation: say which); another number than ``loss``.

    Returns:
        1 if nothing is lost, 0 if the reconstruction is worth no more than the ablation; below 0 if it is worth less.
    """
    return (ablated - spliced) / (ablated - loss)


def matched_cosines(found: Float[Tensor, "n_found d"], truth: Float[Tensor, "n_true d"]) -> Float[Tensor, "n_true"]:
    """For each true direction the cosine with the one found direction that it is paired with, one to one.

    Pairs are chosen so that the sum of the cosines is largest. So a direction found twice serves once.

    A direction that points the opposite way is another one: cosines keep their sign.

    Args:
        found: Directions as rows, at least as many as true ones, of any length but 0.
        truth: Directions as rows, of any length but 0.

    Returns:
        The cosine of each true direction with its partner, in the order of ``truth``.
    """
    cosines = torch.nn.functional.normalize(truth, dim=1) @ torch.nn.functional.normalize(found, dim=1).T
    rows, partners = linear_sum_assignment(cosines.detach().cpu().numpy(), maximize=True)
    return cosines[torch.as_tensor(rows), torch.as_tensor(partners)]


def spliced_loss(
    model, tokens, site: str, replace: Callable[[Float[Tensor, "batch pos d"]], Float[Tensor, "batch pos d"]]
) -> float:
    """The model's mean loss on the tokens (no padding) when ``replace`` changes what it holds at the site."""
    with torch.no_grad():
        return model.run_with_hooks(
            tokens, return_type="loss", fwd_hooks=[(site, lambda value, hook: replace(value))]
        ).item()
