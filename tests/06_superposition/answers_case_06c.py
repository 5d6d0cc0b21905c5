"""Wrong and right designs for the case of part 06c."""

import torch
from torch import Generator

from utils.course.catalogue import right, wrong
from utils.superposition.planted import same_covariance, unit_directions
from utils.superposition.recovery import compressed_recovery, matching_pursuit


def left_over(k=2):
    def measure(x, dictionary):
        return -(x - compressed_recovery(x, dictionary, k) @ dictionary).square().sum().item()

    return measure


def of_the_covariance(x, dictionary, seed):
    rows = same_covariance(x - x.mean(0), len(dictionary), Generator().manual_seed(seed))
    return rows / rows.norm(dim=1, keepdim=True)


def designed(settings, measure=None, control=of_the_covariance, n=20, spread=torch.std, above=8.0, guarded=True):
    measure = measure or left_over()
    design = {"measure": measure, "control": control, "n_controls": n}
    for name, (x, dictionary) in settings.items():
        null = torch.tensor([measure(x, control(x, dictionary, seed)) for seed in range(n)], dtype=torch.float64)
        deviation = spread(null)
        z = ((measure(x, dictionary) - null.mean()) / deviation).item() if deviation or not guarded else 0.0
        design |= {f"z_{name}": z, f"verdict_{name}": "holds" if z > above else "does not"}
    return design


@wrong(
    "does_it_hold_the_features",
    "Your controls do not lie where x varies most. Whatever does beats them, features or not.",
)
def isotropic_control(settings):
    def control(x, dictionary, seed):
        return unit_directions(*dictionary.shape, Generator().manual_seed(seed))

    return designed(settings, control=control)


@wrong(
    "does_it_hold_the_features",
    "Your controls are the dictionary in another order or with other signs. They hold the same features.",
)
def the_dictionary_in_another_order(settings):
    def control(x, dictionary, seed):
        return dictionary[torch.randperm(len(dictionary), generator=Generator().manual_seed(seed))]

    return designed(settings, control=control)


@wrong(
    "does_it_hold_the_features",
    "Your measure takes all directions at once (least squares): with more directions than dimensions nothing is "
    "ever left "
    "over, whatever they are. Few directions at a time is what tells.",
)
def all_directions_at_once(settings):
    def measure(x, dictionary):
        codes = x.double() @ torch.linalg.pinv(dictionary.double())
        return round(1 - ((x - codes @ dictionary.double()).square().sum() / x.square().sum()).item(), 6)

    return designed(settings, measure=measure)


@wrong("does_it_hold_the_features", "Your control does not depend on its seed: one draw, as often as you like.")
def one_control(settings):
    return designed(settings, control=lambda x, dictionary, seed: of_the_covariance(x, dictionary, 0))


@wrong(
    "does_it_hold_the_features",
    "Your control does not depend on its seed, so that the standard deviation by which you divide is 0.",
)
def one_control_and_a_division_by_0(settings):
    return designed(settings, control=lambda x, dictionary, seed: of_the_covariance(x, dictionary, 0), guarded=False)


@wrong(
    "does_it_hold_the_features",
    "Your controls measure exactly what the dictionary does, and do not differ: they hold its directions, in another "
    "order or with other signs, and z is 0 / 0.",
)
def the_same_directions_and_a_division_by_0(settings):
    def control(x, dictionary, seed):
        signs = 2.0 * torch.randint(2, (len(dictionary), 1), generator=Generator().manual_seed(seed)) - 1
        return signs * dictionary

    return designed(settings, control=control, guarded=False)


@wrong("does_it_hold_the_features", "So few controls do not say how much controls differ.")
def five_controls(settings):
    return designed(settings, n=5)


@wrong(
    "does_it_hold_the_features",
    "Your measure looks at the dictionary alone and not at x: it can't know whether the two belong together.",
)
def of_the_dictionary_alone(settings):
    def measure(x, dictionary):
        return -(dictionary @ dictionary.T).square().sum().item()

    return designed(settings, measure=measure)


@wrong(
    "does_it_hold_the_features",
    "Your z divides by the standard error of the controls' mean. The question is whether the dictionary lies "
    "outside of "
    "what *single* controls give.",
)
def standard_error(settings):
    return designed(settings, spread=lambda null: null.std() / len(null) ** 0.5)


@wrong(
    "does_it_hold_the_features",
    "You say 'holds' of a dictionary that stands out from its controls hardly or not at all: your verdict does not "
    "follow from your z.",
)
def verdict_at_every_dictionary(settings):
    design = designed(settings)
    return design | {f"verdict_{name}": "holds" for name in settings}


@wrong(
    "does_it_hold_the_features",
    "Your verdict says 'holds' of a z that is not above 8, the rule of this case (2 or 3 is that of others).",
)
def usual_border(settings):
    return designed(settings, above=3.0)


@wrong(
    "does_it_hold_the_features",
    "Your verdict goes by the size of z. A dictionary far worse than its controls does not hold the features either.",
)
def far_off_on_either_side(settings):
    design = designed(settings)
    return design | {f"verdict_{name}": "holds" if abs(design[f"z_{name}"]) > 8 else "does not" for name in settings}


@wrong(
    "does_it_hold_the_features",
    "Your standard deviation over controls divides by n and not by n - 1.",
)
def divided_by_n(settings):
    return designed(settings, spread=lambda null: null.std(correction=0))


@wrong(
    "does_it_hold_the_features",
    "Your controls are rows of x. Each is a sum of the features that are on in it, so they know more than a "
    "covariance.",
)
def activations_as_control(settings):
    def control(x, dictionary, seed):
        generator = Generator().manual_seed(seed)
        rows = x[torch.randint(len(x), (len(dictionary),), generator=generator)]
        return rows / rows.norm(dim=1, keepdim=True)

    return designed(settings, control=control)


@wrong(
    "does_it_hold_the_features",
    "Your controls are the dictionary with a little noise, and hold nearly what it holds.",
)
def noisy_dictionary(settings):
    def control(x, dictionary, seed):
        rows = dictionary + 0.1 * torch.randn(dictionary.shape, generator=Generator().manual_seed(seed))
        return rows / rows.norm(dim=1, keepdim=True)

    return designed(settings, control=control)


@wrong("does_it_hold_the_features", "Your measure grows with what is left over: the larger, the worse.")
def upside_down(settings):
    return designed(settings, measure=lambda x, dictionary: -left_over()(x, dictionary))


@right("does_it_hold_the_features")
def best_single_direction(settings):
    """The share of each row along the direction nearest to it; controls by turning in whitened space."""

    def measure(x, dictionary):
        return ((x @ dictionary.T).square().amax(1) / x.square().sum(1)).mean().item()

    return designed(settings, measure=measure, n=30)


@right("does_it_hold_the_features")
def pursuit_and_whitened_rows(settings):
    def measure(x, dictionary):
        left = x - matching_pursuit(x, dictionary, 3) @ dictionary
        return 1 - (left.square().sum() / x.square().sum()).item()

    def control(x, dictionary, seed):
        draw = torch.randn(len(dictionary), len(x), generator=Generator().manual_seed(seed))
        rows = draw @ (x - x.mean(0))  # random mixtures of rows have x's covariance
        return rows / rows.norm(dim=1, keepdim=True)

    return designed(settings, measure=measure, control=control)
