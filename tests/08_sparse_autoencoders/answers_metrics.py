"""Wrong answers for what a dictionary is judged by, each with its sentence, and right ones."""

import itertools

import numpy as np
import torch
from scipy.optimize import linear_sum_assignment

from utils.course.catalogue import right, wrong

# l0


@wrong("l0", "You give the share of latents that are on. Their number is asked for.")
def share_on(z):
    return (z > 0).float().mean().item()


@wrong("l0", "You add the latents up (that is L1). Each that is on counts 1.")
def summed(z):
    return z.sum(-1).mean().item()


@wrong("l0", "You count over the whole batch. The mean over activations is asked for.")
def whole_batch(z):
    return float((z > 0).sum())


@wrong("l0", "Your average is over latents: for how many activations each is on.")
def over_latents(z):
    return (z > 0).sum(0).float().mean().item()


@wrong("l0", "A latent of next to nothing is off with you: any value above 0 is on.")
def above_a_threshold(z):
    return (z > 1e-3).sum(-1).float().mean().item()


@right("l0")
def counted(z):
    return sum(int(torch.count_nonzero(row)) for row in z) / len(z)


@right("l0")
def by_numpy(z):
    return float((z.numpy() > 0).sum(axis=1).mean())


# dead_fraction


@wrong("dead_fraction", "You give the share of latents that are alive.")
def alive(z):
    return (z > 0).any(0).float().mean().item()


@wrong("dead_fraction", "You count entries that are 0. A latent is dead if it is 0 for all activations.")
def zeros(z):
    return (z == 0).float().mean().item()


@wrong("dead_fraction", "You look whether an activation has no latent on: the wrong dimension.")
def activations(z):
    return (z == 0).all(1).float().mean().item()


@wrong("dead_fraction", "A latent that is off once counts as dead with you.")
def off_once(z):
    return (z == 0).any(0).float().mean().item()


@wrong("dead_fraction", "You give the number of dead latents. Their share is asked for.")
def number(z):
    return float((z == 0).all(0).sum())


@wrong("dead_fraction", "A latent that is on, but weakly, counts as dead with you.")
def weak_ones(z):
    return (z.amax(0) < 1e-3).float().mean().item()


@right("dead_fraction")
def by_the_largest(z):
    return (z.max(dim=0).values <= 0).double().mean().item()


@right("dead_fraction")
def by_columns(z):
    return sum(not bool((column > 0).any()) for column in z.T) / z.shape[1]


# fraction_variance_explained


@wrong(
    "fraction_variance_explained",
    "You compare with the origin and not with the mean: who answers the mean gets credit.",
)
def against_the_origin(x, x_hat):
    return (1 - (x - x_hat).square().sum() / x.square().sum()).item()


@wrong("fraction_variance_explained", "You give what is left over. 1 less that is what is explained.")
def unexplained(x, x_hat):
    return ((x - x_hat).square().sum() / (x - x.mean(0)).square().sum()).item()


@wrong(
    "fraction_variance_explained",
    "You divide for each dimension and take the mean of the shares: one that hardly varies counts as much as any.",
)
def mean_of_shares(x, x_hat):
    return (1 - (x - x_hat).square().sum(0) / (x - x.mean(0)).square().sum(0)).mean().item()


@wrong("fraction_variance_explained", "You divide for each activation and take the mean of the shares.")
def mean_over_rows(x, x_hat):
    return (1 - (x - x_hat).square().sum(1) / (x - x.mean(0)).square().sum(1)).mean().item()


@wrong("fraction_variance_explained", "Your mean is one number over all dimensions. The mean activation is a vector.")
def one_mean(x, x_hat):
    return (1 - (x - x_hat).square().sum() / (x - x.mean()).square().sum()).item()


@wrong("fraction_variance_explained", "You compare the variance of x̂ with that of x: a wrong x̂ can vary as much.")
def variance_of_x_hat(x, x_hat):
    return ((x_hat - x_hat.mean(0)).square().sum() / (x - x.mean(0)).square().sum()).item()


@wrong(
    "fraction_variance_explained",
    "You take the mean out of the error: a reconstruction that is off by a constant looks perfect.",
)
def error_centred(x, x_hat):
    error = x - x_hat
    return (1 - (error - error.mean(0)).square().sum() / (x - x.mean(0)).square().sum()).item()


@right("fraction_variance_explained")
def by_variances(x, x_hat):
    return 1 - ((x - x_hat) ** 2).mean(0).sum().item() / x.var(0, correction=0).sum().item()


@right("fraction_variance_explained")
def by_numpy_too(x, x_hat):
    x, x_hat = x.numpy(), x_hat.numpy()
    return float(1 - np.linalg.norm(x - x_hat) ** 2 / np.linalg.norm(x - x.mean(0)) ** 2)


# loss_recovered


@wrong("loss_recovered", "You give the share that is lost. 1 should mean that nothing is.")
def share_lost(loss, spliced, ablated):
    return (spliced - loss) / (ablated - loss)


@wrong("loss_recovered", "You divide one loss by the other. 0 should mean: worth no more than the ablation.")
def ratio(loss, spliced, ablated):
    return loss / spliced


@wrong("loss_recovered", "You divide by the ablated loss. The intact one is where the scale ends.")
def of_the_ablated(loss, spliced, ablated):
    return (ablated - spliced) / ablated


@wrong("loss_recovered", "A reconstruction worse than the ablation gets 0 with you. It should get less.")
def not_below_0(loss, spliced, ablated):
    return max(0.0, (ablated - spliced) / (ablated - loss))


@wrong("loss_recovered", "More than 1 is cut off with you: a reconstruction that helps the model can't be seen.")
def not_above_1(loss, spliced, ablated):
    return min(1.0, (ablated - spliced) / (ablated - loss))


@wrong(
    "loss_recovered",
    "Your scale turns round where the ablated loss is the smaller: nothing lost has to be 1 there too.",
)
def size_of_the_gap(loss, spliced, ablated):
    return (ablated - spliced) / abs(ablated - loss)


@wrong("loss_recovered", "Your sign is the wrong way round: 1 should mean that nothing is lost.")
def the_other_sign(loss, spliced, ablated):
    return (spliced - ablated) / (ablated - loss)


@right("loss_recovered")
def from_the_other_end(loss, spliced, ablated):
    return 1 - (spliced - loss) / (ablated - loss)


# matched_cosines


def unit(rows):
    return rows / rows.norm(dim=1, keepdim=True)


@wrong("matched_cosines", "One found direction serves several true ones: that is `dictionary_match`. Match one to one.")
def nearest(found, truth):
    return (unit(truth) @ unit(found).T).amax(1)


@wrong("matched_cosines", "You take the best pair, then the best of what is left. The *sum* is to be largest.")
def greedy(found, truth):
    cosines = unit(truth) @ unit(found).T
    result, left = torch.zeros(len(truth), dtype=truth.dtype), cosines.clone()
    for _ in range(len(truth)):
        place = int(left.argmax())
        row, column = divmod(place, left.shape[1])
        result[row] = cosines[row, column]
        left[row], left[:, column] = -torch.inf, -torch.inf
    return result


@wrong("matched_cosines", "An opposite direction counts as found with you. It is another one: leave the sign.")
def of_any_sign(found, truth):
    cosines = (unit(truth) @ unit(found).T).abs()
    rows, columns = linear_sum_assignment(cosines.numpy(), maximize=True)
    return cosines[rows, columns]


@wrong("matched_cosines", "You pair so that the sum is smallest: `linear_sum_assignment` needs `maximize=True`.")
def smallest(found, truth):
    cosines = unit(truth) @ unit(found).T
    rows, columns = linear_sum_assignment(cosines.numpy())
    return cosines[rows, columns]


@wrong("matched_cosines", "Products of directions that are not of length 1 are no cosines.")
def products(found, truth):
    products = truth @ found.T
    rows, columns = linear_sum_assignment(products.numpy(), maximize=True)
    return products[rows, columns]


@wrong("matched_cosines", "You compare directions in the order in which they stand. A dictionary has no order.")
def in_order(found, truth):
    return (unit(found)[: len(truth)] * unit(truth)).sum(1)


@wrong("matched_cosines", "You return the mean. The cosine of each true direction is asked for.")
def averaged(found, truth):
    cosines = unit(truth) @ unit(found).T
    rows, columns = linear_sum_assignment(cosines.numpy(), maximize=True)
    return cosines[rows, columns].mean()


@wrong(
    "matched_cosines",
    "Your cosines come sorted, or in the order of the found directions: keep the order of the true ones.",
)
def of_the_found(found, truth):
    cosines = unit(found) @ unit(truth).T
    rows, columns = linear_sum_assignment(cosines.numpy(), maximize=True)
    return cosines[rows, columns]


@right("matched_cosines")
def on_the_transpose(found, truth):
    cosines = torch.cosine_similarity(found[:, None], truth[None], dim=2, eps=1e-12)
    rows, columns = linear_sum_assignment(-cosines.numpy())
    result = torch.zeros(len(truth), dtype=truth.dtype)
    result[torch.as_tensor(columns)] = cosines[rows, columns]
    return result


@right("matched_cosines")
def all_ways_or_scipy(found, truth):
    cosines = (unit(truth) @ unit(found).T).tolist()
    if len(found) > 6:
        rows, columns = linear_sum_assignment(np.array(cosines), maximize=True)
    else:
        rows = range(len(truth))
        columns = max(
            itertools.permutations(range(len(found)), len(truth)),
            key=lambda chosen: sum(cosines[i][j] for i, j in enumerate(chosen)),
        )
    return torch.tensor([cosines[i][j] for i, j in zip(rows, columns, strict=True)], dtype=truth.dtype)
