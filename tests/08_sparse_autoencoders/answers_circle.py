"""Wrong and right answers for circles that latents share."""

import numpy as np
import torch
from scipy.linalg import lstsq

from utils.course.catalogue import right, wrong


def readout(values, angles, fitted, measured, *, constant=True, about=None):
    points = torch.stack([angles.cos(), angles.sin()], 1).double()
    inputs = values.double()
    if constant:
        inputs = torch.cat([inputs, torch.ones(len(values), 1).double()], 1)
    weights = torch.linalg.lstsq(inputs[fitted], points[fitted], driver="gelsd").solution
    error = (points - inputs @ weights)[measured].square().sum()
    about = points[fitted].mean(0) if about is None else about
    return (1 - error / (points - about)[measured].square().sum()).item()


@wrong(
    "circle_explained",
    "You measure on the rows that you have fitted to. With many columns anything is explained there.",
)
def on_what_was_fitted(values, angles, held_out):
    return readout(values, angles, ~held_out, ~held_out)


@wrong("circle_explained", "You fit to the held-out rows, too. Then they are no longer held out.")
def fitted_to_all(values, angles, held_out):
    everything = torch.ones_like(held_out)
    points = torch.stack([angles.cos(), angles.sin()], 1).double()
    return readout(values, angles, everything, held_out, about=points[~held_out].mean(0))


@wrong("circle_explained", "Your readout has no constant: values that are far from 0 can't be used well without one.")
def no_constant(values, angles, held_out):
    return readout(values, angles, ~held_out, held_out, constant=False)


@wrong("circle_explained", "Your readout gives the angle as a number. At the end of a round it would have to jump.")
def angle_as_a_number(values, angles, held_out):
    target = angles.double()[:, None]
    inputs = torch.cat([values.double(), torch.ones(len(values), 1).double()], 1)
    weights = torch.linalg.lstsq(inputs[~held_out], target[~held_out], driver="gelsd").solution
    error = (target - inputs @ weights)[held_out].square().sum()
    return (1 - error / (target - target[~held_out].mean(0))[held_out].square().sum()).item()


@wrong(
    "circle_explained",
    "You read off one coordinate of the circle. A single number can hold all of that and half of the circle.",
)
def cosine_only(values, angles, held_out):
    target = angles.cos().double()[:, None]
    inputs = torch.cat([values.double(), torch.ones(len(values), 1).double()], 1)
    weights = torch.linalg.lstsq(inputs[~held_out], target[~held_out], driver="gelsd").solution
    error = (target - inputs @ weights)[held_out].square().sum()
    return (1 - error / (target - target[~held_out].mean(0))[held_out].square().sum()).item()


@wrong("circle_explained", "You return the share that is *missed*. What is asked for is 1 less that.")
def missed(values, angles, held_out):
    return 1 - readout(values, angles, ~held_out, held_out)


@wrong(
    "circle_explained",
    "You take the distances from the mean of the held-out rows, which no readout could know: take the other rows'.",
)
def about_the_held_out_mean(values, angles, held_out):
    points = torch.stack([angles.cos(), angles.sin()], 1).double()
    return readout(values, angles, ~held_out, held_out, about=points[held_out].mean(0))


@wrong("circle_explained", "You take the distances from the origin. The mean point of the fitted rows lies elsewhere.")
def about_the_circle_centre(values, angles, held_out):
    return readout(values, angles, ~held_out, held_out, about=torch.zeros(2).double())


@wrong(
    "circle_explained",
    "You average an R² of the cosine and one of the sine. It is one share of one sum: add the errors of both, and the "
    "distances of both, before you divide.",
)
def coordinates_averaged(values, angles, held_out):
    points = torch.stack([angles.cos(), angles.sin()], 1).double()
    inputs = torch.cat([values.double(), torch.ones(len(values), 1).double()], 1)
    weights = torch.linalg.lstsq(inputs[~held_out], points[~held_out], driver="gelsd").solution
    error = (points - inputs @ weights)[held_out].square().sum(0)
    return (1 - error / (points - points[~held_out].mean(0))[held_out].square().sum(0)).mean().item()


@right("circle_explained")
def by_scipy(values, angles, held_out):
    """numpy, with scipy's least squares."""
    held = held_out.numpy()
    a = angles.numpy().astype(np.float64)
    points = np.column_stack([np.cos(angles.numpy()), np.sin(angles.numpy())]).astype(np.float64)
    inputs = np.column_stack([values.numpy().astype(np.float64), np.ones(len(a))])
    weights = lstsq(inputs[~held], points[~held], lapack_driver="gelsd")[0]
    error = ((points - inputs @ weights)[held] ** 2).sum()
    return float(1 - error / ((points - points[~held].mean(0))[held] ** 2).sum())


def plane(written):
    return torch.linalg.svd(written - written.mean(0), full_matrices=False)[2][:2]


@wrong(
    "plane_of_latents",
    "You take activations into account in which none of the group is on. What you find is then partly where the group "
    "begins, and not where it varies.",
)
def all_activations(z, W_dec, latents):
    return plane(z[:, latents] @ W_dec[latents])


@wrong("plane_of_latents", "You do not subtract the mean: the first direction then points to the group's centre.")
def about_the_origin(z, W_dec, latents):
    group = z[:, latents]
    return torch.linalg.svd(group[(group > 0).any(1)] @ W_dec[latents], full_matrices=False)[2][:2]


@wrong(
    "plane_of_latents",
    "You look at the directions alone. How much each latent writes, and with which others, is in z.",
)
def of_the_directions(z, W_dec, latents):
    return plane(W_dec[latents])


@wrong("plane_of_latents", "All latents of the dictionary write with you, and not the group alone.")
def everybody_writes(z, W_dec, latents):
    return plane(z[(z[:, latents] > 0).any(1)] @ W_dec)


@wrong(
    "plane_of_latents",
    "Only activations count with you in which *all* of the group are on. One of them is enough.",
)
def all_on(z, W_dec, latents):
    group = z[:, latents]
    rows = (group > 0).all(1)
    return plane(group[rows] @ W_dec[latents]) if rows.sum() > 2 else torch.eye(2, W_dec.shape[1], dtype=z.dtype)


@wrong(
    "plane_of_latents",
    "Your directions keep their lengths, the spread along each. They are to be of length 1.",
)
def scaled(z, W_dec, latents):
    group = z[:, latents]
    written = group[(group > 0).any(1)] @ W_dec[latents]
    _, sizes, directions = torch.linalg.svd(written - written.mean(0), full_matrices=False)
    return sizes[:2, None] * directions[:2]


@wrong("plane_of_latents", "Your directions come in the other order: that of the larger variance is to be first.")
def smaller_first(z, W_dec, latents):
    group = z[:, latents]
    return plane(group[(group > 0).any(1)] @ W_dec[latents]).flip(0)


@wrong(
    "plane_of_latents",
    "You divide the decoder's rows by their lengths. What a latent writes is its value times its row as it is.",
)
def rows_of_length_one(z, W_dec, latents):
    group = z[:, latents]
    rows = W_dec[latents] / W_dec[latents].norm(dim=1, keepdim=True)
    return plane(group[(group > 0).any(1)] @ rows)


@right("plane_of_latents")
def by_covariance(z, W_dec, latents):
    """Eigenvectors of the covariance."""
    chosen = z.index_select(1, latents)
    chosen = chosen[chosen.sum(1) > 0]
    written = torch.einsum("nk,kd->nd", chosen, W_dec.index_select(0, latents))
    return torch.linalg.eigh(torch.cov(written.T))[1].flip(1)[:, :2].T
