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


def designed(settings, measure=None, control=of_the_covariance, n=20, spread=torch.std, above=8.0):
    measure = measure or left_over()
    design = {"measure": measure, "control": control, "n_controls": n}
    for name, (x, dictionary) in settings.items():
        null = torch.tensor([measure(x, control(x, dictionary, seed)) for seed in range(n)])
        deviation = spread(null).item()
        z = (measure(x, dictionary) - null.mean().item()) / deviation if deviation else 0.0
        design |= {f"z_{name}": z, f"verdict_{name}": "holds" if z > above else "does not"}
    return design


@wrong(
    "does_it_hold_the_features",
    "Your controls point everywhere alike, and x does not vary everywhere alike: whatever lies where x varies "
    "most beats "
    "them.",
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


@wrong("does_it_hold_the_features", "Five controls are too few to know how much controls differ.")
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
    "Your verdicts do not follow from your z: the rule is 8 standard deviations, not 2.",
)
def verdict_at_every_dictionary(settings):
    design = designed(settings)
    return design | {f"verdict_{name}": "holds" for name in settings}


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
