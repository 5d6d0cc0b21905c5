"""Wrong and right designs for the case of part 09a."""

import torch

from utils.course.catalogue import right, wrong

FAULTS = ("unfaithful", "wasteful", "hidden")


def weights_off(given):
    _, W, V, U, _ = given
    return ((V @ U - W).square().sum() / W.square().sum()).item()


def needed_per_feature(given):
    return (given[4].sum() / (given[0] > 0).sum()).item()


def moved(given, mask, wanted):
    x, _, V, U, _ = given
    return ((((x @ V) * mask @ U).relu() - wanted).square().sum() / wanted.square().sum()).item()


def own(given):
    return (given[0] @ given[2] @ given[3]).relu()


def random_masks(given, seed=1):
    g = given[4]
    return g + (1 - g) * torch.rand(g.shape, generator=torch.Generator().manual_seed(seed))


def at_random(given):
    return moved(given, random_masks(given), own(given))


def designed(suspects, sound, unfaithful=weights_off, wasteful=needed_per_feature, hidden=at_random):
    measures = {"unfaithful": unfaithful, "wasteful": wasteful, "hidden": hidden}
    design = dict(measures)
    for fault, measure in measures.items():
        values = [measure(given) for given in sound]
        design[f"sound_{fault}"] = (min(values), max(values))
    for name, given in suspects.items():
        faults = [f for f, measure in measures.items() if measure(given) > border_of(design[f"sound_{f}"])]
        design[name] = faults[0] if faults else "none"
    return design


def border_of(limits):
    low, high = limits
    return high + (high - low) + 1e-6 * max(1e-3, abs(high))


@wrong(
    "which_promise_is_broken",
    "Your measure of what is hidden moves all unneeded components alike, and no pair that cancels shows. Masks have to "
    "differ from component to component.",
)
def at_zero(suspects, sound):
    return designed(suspects, sound, hidden=lambda given: moved(given, given[4], own(given)))


@wrong(
    "which_promise_is_broken",
    "Your measure of what is hidden moves with unfaithful components: it compares with the network's own output. "
    "Compare with the unmasked output of the same components.",
)
def against_the_network(suspects, sound):
    def hidden(given):
        return moved(given, random_masks(given), (given[0] @ given[1]).relu())

    return designed(suspects, sound, hidden=hidden)


@wrong(
    "which_promise_is_broken",
    "Your measure of waste does not set importances against how many features are on. Inputs of sound networks differ "
    "in how many are, and in how large they are, by more than halves or sums add.",
)
def not_by_feature(suspects, sound):
    return designed(suspects, sound, wasteful=lambda given: given[4].sum(1).mean().item())


@wrong(
    "which_promise_is_broken",
    "Your measure of waste is turned round: it grows as fewer components are needed, and so it stands out where some "
    "are missing.",
)
def turned_round(suspects, sound):
    return designed(suspects, sound, wasteful=lambda given: -needed_per_feature(given))


@wrong(
    "which_promise_is_broken",
    "Your measure of unfaithfulness moves where something is hidden: it masks the components. Adding up is asked of "
    "all of them, at 1.",
)
def masked_weights(suspects, sound):
    def unfaithful(given):
        return moved(given, random_masks(given), (given[0] @ given[1]).relu())

    return designed(suspects, sound, unfaithful=unfaithful)


@wrong(
    "which_promise_is_broken",
    "Your measure of unfaithfulness misses components that have changed places. Errors added up with their signs "
    "cancel there, and sizes stay: compare entry by entry.",
)
def signed_errors(suspects, sound):
    def unfaithful(given):
        return (given[1] - given[2] @ given[3]).mean().abs().item()

    return designed(suspects, sound, unfaithful=unfaithful)


@wrong(
    "which_promise_is_broken",
    "Your range is not that of the sound ones: the smallest and the largest value over all twenty are asked for.",
)
def mean_and_spread(suspects, sound):
    values = torch.tensor([needed_per_feature(given) for given in sound])
    return designed(suspects, sound) | {"sound_wasteful": (values.mean().item(), values.std().item())}


@wrong("which_promise_is_broken", "Your verdict is a fault for every decomposition. In one of them none stands out.")
def always_a_fault(suspects, sound):
    design = designed(suspects, sound)
    return design | {name: "wasteful" for name in suspects if design[name] == "none"}


@wrong("which_promise_is_broken", "All your verdicts are the same, whatever your measures say.")
def one_verdict(suspects, sound):
    return designed(suspects, sound) | dict.fromkeys(suspects, "hidden")


@wrong("which_promise_is_broken", "Your measure draws new random masks at each call, so that it can't be had again.")
def unseeded(suspects, sound):
    def hidden(given):
        return moved(given, given[4] + (1 - given[4]) * torch.rand(given[4].shape), own(given))

    return designed(suspects, sound, hidden=hidden)


@right("which_promise_is_broken")
def by_components_one_at_a_time(suspects, sound):
    """Hidden: what each component by itself writes into what it is not needed for. Waste: how many are above a half."""

    def hidden(given):
        x, _, V, U, g = given
        idle = (1 - g) * (x @ V).abs() * U.norm(dim=1)
        return (idle.square().sum() / own(given).square().sum()).item()

    def wasteful(given):
        return ((given[4] > 0.5).sum() / (given[0] > 0).sum()).item()

    def unfaithful(given):
        return ((given[1] - given[2] @ given[3]).norm(dim=1) / given[1].norm(dim=1)).max().item()

    return designed(suspects, sound, unfaithful, wasteful, hidden)


@right("which_promise_is_broken")
def several_draws(suspects, sound):
    """Hidden: the worst of eight draws of masks; unfaithful: outputs at all masks 1 against the network's."""

    def hidden(given):
        return max(moved(given, random_masks(given, seed), own(given)) for seed in range(8))

    def unfaithful(given):
        return moved(given, torch.ones_like(given[4]), (given[0] @ given[1]).relu())

    return designed(suspects, sound, hidden=hidden, unfaithful=unfaithful)


@right("which_promise_is_broken")
def one_component_away(suspects, sound):
    """Hidden: the largest error if one component alone goes down to its importance."""

    def hidden(given):
        g = given[4]
        alone = [torch.where(torch.arange(g.shape[1]) == c, g, torch.ones_like(g)) for c in range(g.shape[1])]
        return max(moved(given, mask, own(given)) for mask in alone)

    return designed(suspects, sound, hidden=hidden)


@right("which_promise_is_broken")
def only_the_unneeded_at_random(suspects, sound):
    """Hidden: what is needed stays at 1, the rest is random; waste: example by example, then a mean."""

    def hidden(given):
        g = given[4]
        drawn = torch.rand(g.shape, generator=torch.Generator().manual_seed(0))
        return moved(given, torch.where(g > 0.5, torch.ones_like(g), drawn), own(given))

    def wasteful(given):
        on = (given[0] > 0).sum(1)
        return (given[4].sum(1) / on).mean().item()

    return designed(suspects, sound, hidden=hidden, wasteful=wasteful)
