"""Wrong answers for weights in another basis and for single coordinates, each with its sentence, and right ones."""

from collections import Counter

import numpy as np
import torch

from utils.course.catalogue import right, wrong
from utils.transformer.weights import fold_layer_norm

# rotate_basis


def refused(rotation):
    n, ones = len(rotation), torch.ones(len(rotation), dtype=rotation.dtype)
    close = {"atol": 1e-3, "rtol": 0.0}
    if not torch.allclose(rotation @ rotation.T, torch.eye(n, dtype=rotation.dtype), **close):
        raise ValueError("not orthogonal")
    if not any(torch.allclose(ones @ rotation, sign * ones, **close) for sign in (1, -1)):
        raise ValueError("moves the ones")


def turned(state, cfg, rotation, *, write=None, read=None, fold=True, writers=None, readers=None):
    """Our answer with one thing done otherwise."""
    refused(rotation)
    state = fold_layer_norm(state, cfg) if fold else dict(state)
    write, read = rotation if write is None else write, rotation.T if read is None else read
    for name in writers or written(cfg):
        state[name] = state[name] @ write
    for name in readers or read_from(cfg):
        state[name] = read @ state[name]
    return state


def written(cfg):
    names = ["embed.W_E", "pos_embed.W_pos"]
    for layer in range(cfg.n_layers):
        names += [f"blocks.{layer}.attn.W_O", f"blocks.{layer}.attn.b_O"]
        names += [f"blocks.{layer}.mlp.W_out", f"blocks.{layer}.mlp.b_out"] if cfg.d_mlp else []
    return names


def read_from(cfg):
    names = ["unembed.W_U"]
    for layer in range(cfg.n_layers):
        names += [f"blocks.{layer}.attn.W_{x}" for x in "QKV"] + ([f"blocks.{layer}.mlp.W_in"] if cfg.d_mlp else [])
    return names


@wrong(
    "rotate_basis",
    "Your weights are turned the other way round: with the stream as a row vector, the new one is x @ rotation, and "
    "yours is x @ rotation.T. Both leave the outputs alone; only one is what the docstring says.",
)
def the_other_way(state, cfg, rotation):
    return turned(state, cfg, rotation.T)


@wrong(
    "rotate_basis",
    "What reads the stream is turned by the same matrix as what writes into it, from its other side. A reader has to "
    "turn the vector back: what is written times R, then R's inverse, then what was read with before.",
)
def readers_turned_on(state, cfg, rotation):
    return turned(state, cfg, rotation, read=rotation)


@wrong(
    "rotate_basis",
    "What reads the stream is as it was, and finds vectors in a basis that it does not know.",
)
def readers_left(state, cfg, rotation):
    return turned(state, cfg, rotation, read=torch.eye(len(rotation), dtype=rotation.dtype))


@wrong(
    "rotate_basis",
    "b_O, and b_out where there is one, are as they were. They are written into the stream like the rest, once at "
    "every position.",
)
def biases_left(state, cfg, rotation):
    return turned(state, cfg, rotation, writers=[n for n in written(cfg) if ".b_" not in n])


@wrong(
    "rotate_basis", "The position embedding is as it was. It is added to the stream like every other writer's output."
)
def positions_left(state, cfg, rotation):
    return turned(state, cfg, rotation, writers=[n for n in written(cfg) if n != "pos_embed.W_pos"])


@wrong(
    "rotate_basis",
    "The unembedding is as it was. It reads the stream behind the last layer norm, as the blocks do behind theirs.",
)
def unembedding_left(state, cfg, rotation):
    return turned(state, cfg, rotation, readers=[n for n in read_from(cfg) if n != "unembed.W_U"])


@wrong(
    "rotate_basis",
    "The layer norms' scales and shifts are as they were. A scale stretches each coordinate by its own factor, and so "
    "does not get along with a rotation: fold it into the weights behind it first.",
)
def norms_left(state, cfg, rotation):
    return turned(state, cfg, rotation, fold=False)


@wrong(
    "rotate_basis",
    "A rotation that moves the vector of ones goes through. Each layer norm subtracts the mean along that vector, so "
    "that the model would compute something else.",
)
def any_rotation(state, cfg, rotation):
    n = len(rotation)
    if not torch.allclose(rotation @ rotation.T, torch.eye(n, dtype=rotation.dtype), atol=1e-3, rtol=0):
        raise ValueError("not orthogonal")
    state = fold_layer_norm(state, cfg)
    for name in written(cfg):
        state[name] = state[name] @ rotation
    for name in read_from(cfg):
        state[name] = rotation.T @ state[name]
    return state


@wrong("rotate_basis", "A matrix that is not orthogonal goes through: its transpose is not its inverse.")
def any_matrix(state, cfg, rotation):
    ones = rotation.sum(0)
    if min((ones - 1).abs().max(), (ones + 1).abs().max()) > 1e-3:
        raise ValueError("moves the ones")
    state = fold_layer_norm(state, cfg)
    for name in written(cfg):
        state[name] = state[name] @ rotation
    for name in read_from(cfg):
        state[name] = rotation.T @ state[name]
    return state


@wrong(
    "rotate_basis",
    "A matrix that turns the vector of ones into its opposite is refused in your answer. The mean that a layer norm "
    "subtracts turns with it, and nothing is lost.",
)
def no_reflections(state, cfg, rotation):
    if (rotation.sum(0) - 1).abs().max() > 1e-3:
        raise ValueError("moves the ones")
    return turned(state, cfg, rotation)


@wrong(
    "rotate_basis",
    "Orthogonal matrices with a determinant of -1 are refused in your answer. They mirror the stream as well as turn "
    "it; their transpose is still their inverse, and the outputs stay.",
)
def proper_rotations_only(state, cfg, rotation):
    if torch.linalg.det(rotation) < 0:
        raise ValueError("mirrors")
    return turned(state, cfg, rotation)


@right("rotate_basis")
def name_by_name(state, cfg, rotation):
    refused(rotation)
    found = fold_layer_norm(state, cfg)
    for name, value in found.items():
        part = name.split(".")[-1]
        if part in ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out"):
            found[name] = torch.tensordot(value, rotation, dims=1)
        elif part in ("W_Q", "W_K", "W_V", "W_in", "W_U"):
            found[name] = torch.einsum("on,...oh->...nh", rotation, value)
    return found


@right("rotate_basis")
def with_an_inverse(state, cfg, rotation):
    refused(rotation)
    return turned(state, cfg, rotation, read=torch.linalg.inv(rotation))


# coordinate_kurtosis


def enough(x):
    if len(x) < 2:
        raise ValueError("too few")


@wrong(
    "coordinate_kurtosis",
    "Your numbers are those of the docstring less 3: the excess over a normal distribution. Here a normal one has 3.",
)
def excess(x):
    enough(x)
    z = x - x.mean(0)
    return z.pow(4).mean(0) / z.pow(2).mean(0) ** 2 - 3


@wrong(
    "coordinate_kurtosis",
    "The unit's mean is not taken out: a unit that is far from 0 throughout looks like one without tails.",
)
def not_centred(x):
    enough(x)
    return x.pow(4).mean(0) / x.pow(2).mean(0) ** 2


@wrong("coordinate_kurtosis", "Your variance divides by n - 1, and the docstring's mean square by n.")
def unbiased_variance(x):
    enough(x)
    z = x - x.mean(0)
    return z.pow(4).mean(0) / x.var(0) ** 2


@wrong(
    "coordinate_kurtosis",
    "The means are taken over the units of each sample. Asked for is a number for each unit, over the samples.",
)
def over_units(x):
    enough(x)
    z = x - x.mean(1, keepdim=True)
    found = z.pow(4).mean(1) / z.pow(2).mean(1) ** 2
    return found[: x.shape[1]] if len(found) >= x.shape[1] else found.repeat(x.shape[1])[: x.shape[1]]


@wrong(
    "coordinate_kurtosis",
    "A unit that is 0 in all samples has a number in your answer. It has no spread whose tails could be measured: NaN "
    "says so.",
)
def number_for_silence(x):
    enough(x)
    z = x - x.mean(0)
    return (z.pow(4).mean(0) / z.pow(2).mean(0) ** 2).nan_to_num(0.0)


@wrong("coordinate_kurtosis", "The fourth power is divided by the mean square once. It is divided by its square.")
def not_squared(x):
    enough(x)
    z = x - x.mean(0)
    return z.pow(4).mean(0) / z.pow(2).mean(0)


@right("coordinate_kurtosis")
def by_standardising(x):
    if x.shape[0] < 2:
        raise ValueError("two at least")
    return ((x - x.mean(0)) / x.std(0, correction=0)).pow(4).mean(0)


@right("coordinate_kurtosis")
def with_scipy(x):
    from scipy.stats import kurtosis

    if x.shape[0] < 2:
        raise ValueError("two at least")
    found = kurtosis(x.double().numpy(), fisher=False, axis=0)
    return torch.tensor(np.atleast_1d(found)).to(x.dtype)


# neuron_selectivity


def fits(activations, n_top):
    if not 1 <= n_top <= len(activations):
        raise ValueError("n_top")


def shares_of(order, classes, n_top, dtype):
    top = classes[order[:n_top]]
    return torch.stack([(top == c).to(dtype).mean(0) for c in classes.unique()])


@wrong(
    "neuron_selectivity",
    "You return the sum of the squared shares, which is 1 for a unit of one class and small for one of many. The "
    "number of classes is its inverse.",
)
def sum_of_squares(activations, classes, n_top):
    fits(activations, n_top)
    return shares_of(activations.argsort(0, descending=True), classes, n_top, activations.dtype).square().sum(0)


@wrong(
    "neuron_selectivity",
    "Each class that occurs counts for one, however rare. A single odd token among forty is then as much as a second "
    "half.",
)
def counted(activations, classes, n_top):
    fits(activations, n_top)
    shares = shares_of(activations.argsort(0, descending=True), classes, n_top, activations.dtype)
    return (shares > 0).to(activations.dtype).sum(0)


@wrong(
    "neuron_selectivity",
    "You take the exponential of the entropy. That is a number of classes too, and another one where shares are "
    "uneven: three quarters and one quarter give 1.75, where 1 / sum of p² is 1.6.",
)
def by_entropy(activations, classes, n_top):
    fits(activations, n_top)
    shares = shares_of(activations.argsort(0, descending=True), classes, n_top, activations.dtype)
    return (-(shares * shares.clamp_min(1e-12).log()).sum(0)).exp()


@wrong(
    "neuron_selectivity",
    "The tokens are taken by the size of the activation, so that the most negative ones come first as well. A neuron "
    "answers where it is large.",
)
def by_size(activations, classes, n_top):
    fits(activations, n_top)
    shares = shares_of(activations.abs().argsort(0, descending=True), classes, n_top, activations.dtype)
    return 1 / shares.square().sum(0)


@wrong("neuron_selectivity", "The tokens are those on which the unit's activation is smallest.")
def smallest(activations, classes, n_top):
    fits(activations, n_top)
    return 1 / shares_of(activations.argsort(0), classes, n_top, activations.dtype).square().sum(0)


@wrong(
    "neuron_selectivity",
    "The share of a class is its part of the summed activation of the top tokens. Asked for is its part of their "
    "number.",
)
def by_weight(activations, classes, n_top):
    fits(activations, n_top)
    top = activations.topk(n_top, dim=0)
    found = classes[top.indices]
    weights = top.values.clamp_min(0) + 1e-9
    shares = torch.stack([(weights * (found == c)).sum(0) / weights.sum(0) for c in classes.unique()])
    return 1 / shares.square().sum(0)


@wrong("neuron_selectivity", "A number of tokens that can't be had is not refused.")
def anything_goes(activations, classes, n_top):
    n_top = min(max(n_top, 1), len(activations))
    return 1 / shares_of(activations.argsort(0, descending=True), classes, n_top, activations.dtype).square().sum(0)


@right("neuron_selectivity")
def with_counters(activations, classes, n_top):
    if n_top < 1 or n_top > activations.shape[0]:
        raise ValueError("no such number")
    found = []
    for column in activations.T:
        order = sorted(range(len(column)), key=lambda i: -column[i].item())[:n_top]
        counts = Counter(classes[i].item() for i in order)
        found.append(n_top**2 / sum(c * c for c in counts.values()))
    return torch.tensor(found, dtype=activations.dtype)


@right("neuron_selectivity")
def by_pairs(activations, classes, n_top):
    """The chance that two draws from the top tokens, with replacement, are of one class."""
    fits(activations, n_top)
    top = classes[activations.argsort(0, descending=True)[:n_top]]
    return 1 / (top[:, None] == top[None]).to(activations.dtype).mean((0, 1))
