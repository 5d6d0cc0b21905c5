"""Features that go round, and the latents that share them."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def circle_explained(values: Float[Tensor, "n k"], angles: Float[Tensor, " n"], held_out: Bool[Tensor, " n"]) -> float:
    """How much of a circle a linear readout gets out of k numbers: R² on rows that it has not seen.

    Least squares with a constant, from the values to the points (cos, sin) of the angles, on the rows that are not
    held out; of several solutions that with the smallest weights (``torch.linalg.lstsq`` with ``driver="gelsd"``), in
    double precision.

    Args:
        values: Latents, or coordinates, of each activation.
        angles: Where it stands on the circle, in radians.
        held_out: Rows to measure on; some are, and some are not.

    Returns:
        1 less the squared error on the held-out rows as a share of their squared distances from the mean point of the
        *other* rows. 1 if nothing is missed, 0 if the values say nothing, below 0 if they mislead.
    """
    points = torch.stack([angles.cos(), angles.sin()], dim=1).double()
    inputs = torch.cat([values, torch.ones_like(values[:, :1])], dim=1).double()
    weights = torch.linalg.lstsq(inputs[~held_out], points[~held_out], driver="gelsd").solution
    error = (points - inputs @ weights)[held_out].square().sum()
    return (1 - error / (points - points[~held_out].mean(dim=0))[held_out].square().sum()).item()


def plane_of_latents(
    z: Float[Tensor, "n d_sae"], W_dec: Float[Tensor, "d_sae d"], latents: Int[Tensor, " k"]
) -> Float[Tensor, "2 d"]:
    """The plane in which a group of latents writes most: two principal directions of what they write together.

    What they write into an activation is Σ z_i W_dec[i] over the group. Only activations count in which at least one of
    the group is on (above 0). The directions are those of largest variance about the mean over these.

    Args:
        z: Latents.
        W_dec: The decoder.
        latents: The group; they are on in at least three activations, and write in more than one direction.

    Returns:
        Two directions of length 1 at right angles, that of the larger variance first; their signs are free.

    Source: Engels et al. (2024), "Not All Language Model Features Are One-Dimensionally Linear", section 4.
    """
    group = z[:, latents]
    written = group[(group > 0).any(dim=1)] @ W_dec[latents]
    return torch.linalg.svd(written - written.mean(dim=0), full_matrices=False)[2][:2]
