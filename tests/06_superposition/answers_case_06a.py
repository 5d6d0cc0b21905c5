"""Wrong and right designs for the case of part 06a."""

import torch
from scipy.stats import ortho_group

from utils.course.catalogue import right, wrong
from utils.superposition.bases import random_rotation


def kurtosis(activations):
    z = activations - activations.mean(0)
    return (z.pow(4).mean(0) / z.pow(2).mean(0) ** 2).mean().item()


def turned(activations, seed):
    return activations @ random_rotation(activations.shape[1], seed)


def designed(layers, measure=kurtosis, turn=turned, n_samples=600, n_bases=79, p=None, verdict=None):
    """Our design with one thing done otherwise, and what then comes out reported as it is."""
    found = {"n_samples": n_samples, "measure": measure, "in_another_basis": turn, "n_bases": n_bases}
    for name, activations_on in layers.items():
        activations = activations_on(n_samples)
        own, others = measure(activations), [measure(turn(activations, seed)) for seed in range(n_bases)]
        value = (p or both_sides)(own, others)
        says = verdict(name, own, value) if verdict else value <= 0.05
        found |= {f"p_{name}": value, f"verdict_{name}": "privileged" if says else "not privileged"}
    return found


def both_sides(own, others):
    extreme = min(sum(other >= own for other in others), sum(other <= own for other in others))
    return min(1.0, 2 * (1 + extreme) / (1 + len(others)))


@wrong(
    "which_bases_are_privileged",
    "Your p counts the bases with a larger measure only. Neurons that saturate have lighter tails than random "
    "directions, and their basis is as special.",
)
def one_side(layers):
    return designed(layers, p=lambda own, others: (1 + sum(other >= own for other in others)) / (1 + len(others)))


@wrong(
    "which_bases_are_privileged",
    "Your p is a share of the turned bases alone, and may be 0. The layer's own basis is one of the 1 + n that might "
    "have been the most extreme: it counts above and below.",
)
def without_the_own_one(layers):
    def p(own, others):
        extreme = min(sum(other >= own for other in others), sum(other <= own for other in others))
        return min(1.0, 2 * extreme / len(others))

    return designed(layers, p=p)


@wrong(
    "which_bases_are_privileged",
    "Your other bases have the layer's own axes in another order. A permutation turns nothing: what is special about "
    "the axes is as special afterwards, and the layer can never stand out.",
)
def permuted(layers):
    def turn(activations, seed):
        return activations[:, torch.randperm(activations.shape[1], generator=torch.Generator().manual_seed(seed))]

    return designed(layers, turn=turn)


@wrong(
    "which_bases_are_privileged",
    "Your control mixes the units by a matrix of random numbers that is not orthogonal. It stretches as well as "
    "turns, and what it changes may be due to either.",
)
def stretched(layers):
    def turn(activations, seed):
        n = activations.shape[1]
        return activations @ torch.randn(n, n, generator=torch.Generator().manual_seed(seed)) / n**0.5

    return designed(layers, turn=turn)


@wrong(
    "which_bases_are_privileged",
    "Your control keeps every unit's values and changes which sample has which. Asked for is the opposite: the same "
    "samples, seen along other directions.",
)
def shuffled(layers):
    def turn(activations, seed):
        generator = torch.Generator().manual_seed(seed)
        order = torch.rand(activations.shape, generator=generator).argsort(0)
        return activations.gather(0, order)

    return designed(layers, turn=turn)


@wrong(
    "which_bases_are_privileged",
    "Your bases are all the same one, whatever the seed. One basis can't say how much bases differ.",
)
def one_basis(layers):
    return designed(layers, turn=lambda activations, seed: turned(activations, 0))


@wrong(
    "which_bases_are_privileged",
    "The axes of your bases lie near the layer's own, or most of them do. What is special about its axes is nearly as "
    "special in them.",
)
def turned_a_little(layers):
    def turn(activations, seed):
        n = activations.shape[1]
        drawn = torch.randn(n, n, generator=torch.Generator().manual_seed(seed))
        return activations @ torch.matrix_exp(0.06 * (drawn - drawn.T))

    return designed(layers, turn=turn)


@wrong(
    "which_bases_are_privileged",
    "Your measure is the same in every basis: lengths and distances don't change when axes turn.",
)
def of_lengths(layers):
    return designed(layers, measure=lambda a: a.norm(dim=1).mean().item())


@wrong(
    "which_bases_are_privileged",
    "Your verdicts go by the measure itself and not by p: heavy tails alone count as privileged. Where the whole "
    "vector is large now and then, tails are heavy in every basis.",
)
def by_a_threshold(layers):
    return designed(layers, verdict=lambda name, own, p: own > 4)


@wrong(
    "which_bases_are_privileged",
    "Your measure looks for coordinates that are exactly 0. It finds one kind of nonlinearity, and is blind to "
    "neurons that saturate.",
)
def exact_zeros(layers):
    return designed(layers, measure=lambda a: (a == 0).float().mean().item() + 1e-3 * a[:, 0].mean().tanh().item())


@wrong(
    "which_bases_are_privileged",
    "Asked about four other layers, you answer what was found for the first four. The design is to run the test on "
    "the layers that it is given.",
)
def for_these_alone(layers):
    from utils.superposition.case_06a import four_layers

    return designed(four_layers(6))


@right("which_bases_are_privileged")
def largest_kurtosis(layers):
    def measure(a):
        z = (a - a.mean(0)) / a.std(0)
        return z.pow(4).mean(0).log().median().item()

    def turn(activations, seed):
        basis = torch.tensor(ortho_group.rvs(activations.shape[1], random_state=seed)).float()
        centre = activations.mean(0)
        return (activations - centre) @ basis.T + centre

    return designed(layers, measure, turn, n_samples=400, n_bases=59)


@right("which_bases_are_privileged")
def shape_of_the_histogram(layers):
    """How far each unit's standardised values are from a normal distribution's, by quantile."""
    levels = torch.linspace(0.02, 0.98, 25)
    normal = 2**0.5 * torch.erfinv(2 * levels - 1)

    def measure(a):
        z = (a - a.mean(0)) / a.std(0)
        return (z.quantile(levels, dim=0) - normal[:, None]).square().mean().item()

    return designed(layers, measure, n_samples=1000, n_bases=39)
