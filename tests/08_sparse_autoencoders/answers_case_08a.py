"""Wrong and right designs for the case of part 08a."""

import torch

from utils.course.catalogue import right, wrong


def latents(given):
    return torch.relu(given[0] @ given[1] + given[2])


def factor(given):
    part = latents(given) @ given[3]
    return (((given[0] - given[4]) * part).sum() / part.square().sum()).item()


def copies(given, border=0.9):
    alive = given[3][(latents(given) > 0).any(0)]
    return ((alive @ alive.T).fill_diagonal_(0) > border).float().sum().item()


def never_on(given):
    return (~(latents(given) > 0).any(0)).float().mean().item()


def designed(suspects, sound, shrunk=factor, twice=copies, dead=never_on, widen=True):
    measures = {"shrunk": shrunk, "twice": twice, "dead": dead}
    design = dict(measures)
    for fault, measure in measures.items():
        values = [measure(given) for given in sound]
        design[f"sound_{fault}"] = (min(values), max(values))
    for name, given in suspects.items():
        faults = [f for f, measure in measures.items() if measure(given) > border_of(design[f"sound_{f}"], widen)]
        design[name] = faults[0] if faults else "none"
    return design


def border_of(limits, widen):
    low, high = limits
    return high + (high - low) * widen + 1e-6 * max(1e-3, abs(high))


@wrong(
    "what_is_wrong",
    "Your measure of shrinkage moves where nothing is shrunk and some features are missing and others learnt twice. "
    "The length of x̂ against that of x does so; so do magnitudes fitted anew, which copies can share in many ways.",
)
def lengths(suspects, sound):
    def shrunk(given):
        part = latents(given) @ given[3]
        return ((given[0] - given[4]).norm(dim=1).mean() / part.norm(dim=1).mean()).item()

    return designed(suspects, sound, shrunk=shrunk)


@wrong(
    "what_is_wrong",
    "Your measure of dead latents moves with another fault. (The variance left unexplained, for one, rises with any.)",
)
def left_over(suspects, sound):
    def unexplained(given):
        x, x_hat = given[0], latents(given) @ given[3] + given[4]
        return ((x - x_hat).square().sum() / (x - x.mean(0)).square().sum()).item()

    return designed(suspects, sound, dead=unexplained)


@wrong(
    "what_is_wrong",
    "Your measure of copies does not stand out where there are some. Copies are near, not exact; and in sound "
    "dictionaries too the nearest two rows may be near each other, so that the largest cosine alone strays widely.",
)
def exact_copies(suspects, sound):
    return designed(suspects, sound, twice=lambda given: copies(given, 0.9999))


@wrong(
    "what_is_wrong",
    "Your measure of dead latents does not stand out where there are some. How often latents are on, on average, or "
    "how low biases are, tells little of it: rare is not dead.",
)
def rarely_on(suspects, sound):
    def dead(given):
        return -(latents(given) > 0).float().mean().item()

    return designed(suspects, sound, dead=dead)


@wrong(
    "what_is_wrong",
    "Your measure of shrinkage does not stand out where there is some: it grows the wrong way, or strays among "
    "sound ones as far as shrinkage moves it.",
)
def the_wrong_way(suspects, sound):
    return designed(suspects, sound, shrunk=lambda given: -factor(given))


@wrong(
    "what_is_wrong",
    "Your range is not that of the sound ones: the smallest and the largest value over all twenty are asked for. A "
    "mean and spread, a part of them, or the suspects' values give another.",
)
def mean_and_spread(suspects, sound):
    design = designed(suspects, sound)
    values = torch.tensor([factor(given) for given in sound])
    return design | {"sound_shrunk": (values.mean().item(), values.std().item())}


@wrong("what_is_wrong", "Your verdict is a fault for every dictionary. In one of them none stands out.")
def always_a_fault(suspects, sound):
    design = designed(suspects, sound)
    return design | {name: "dead" for name in suspects if design[name] == "none"}


@wrong("what_is_wrong", "All your verdicts are the same, whatever your measures say.")
def one_verdict(suspects, sound):
    return designed(suspects, sound) | dict.fromkeys("ABCD", "shrunk")


@wrong("what_is_wrong", "Your measure draws random numbers, so that it can't be had again.")
def with_noise(suspects, sound):
    return designed(suspects, sound, shrunk=lambda given: factor(given) + torch.randn(()).item() / 100)


@right("what_is_wrong")
def latent_by_latent(suspects, sound):
    """Shrinkage: the rise of x along a latent's direction, over activations where it alone is read strongest."""

    def shrunk(given):
        x, z = given[0] - given[4], latents(given)
        strongest = z == z.amax(1, keepdim=True)
        z, x_hat = z * strongest, (z * (z > 0)) @ given[3]
        return ((x * x_hat).sum(1).sum() / x_hat.square().sum()).item()

    def twice(given):
        alive = torch.nn.functional.normalize(given[3][latents(given).amax(0) > 0], dim=1)
        cosines = alive @ alive.T - 2 * torch.eye(len(alive))
        return (cosines.amax(1) > 0.92).float().mean().item()

    def dead(given):
        return float((latents(given).amax(0) == 0).sum())

    return designed(suspects, sound, shrunk, twice, dead)


@right("what_is_wrong")
def by_thresholds(suspects, sound):
    """Dead: what a latent would read at b_dec, far below 0."""

    def dead(given):
        _, W_enc, b_enc, _, b_dec = given
        return (b_enc + b_dec @ W_enc < -4).float().mean().item()

    return designed(suspects, sound, dead=dead)


@right("what_is_wrong")
def by_pairs_that_are_on_together(suspects, sound):
    """Copies: pairs of latents whose values rise and fall together; a number of pairs."""

    def twice(given):
        z = latents(given)
        z = z[:, z.amax(0) > 0]
        correlation = torch.corrcoef(z.T).fill_diagonal_(0)
        return (correlation > 0.8).float().sum().item()

    return designed(suspects, sound, twice=twice)
