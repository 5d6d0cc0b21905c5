"""Wrong answers for masks, reconstruction losses and the price, each with its sentence, and right ones."""

import torch

from utils.course.catalogue import right, wrong


def masks_of(importances, generator):
    return {n: g + (1 - g) * torch.rand(g.shape, generator=generator, dtype=g.dtype) for n, g in importances.items()}


def run(forward, weights, components, x, masks):
    return forward(x, lambda n, a: components[n](a, masks[n]) if n in masks else a @ weights[n])


def mean_square(output, wanted):
    return (output - wanted).square().mean()


# sample_masks


@wrong("sample_masks", "Your masks go from 0 to the importance. They go from the importance to 1.")
def below(importances, generator=None):
    return {n: g * torch.rand(g.shape, generator=generator) for n, g in importances.items()}


@wrong("sample_masks", "Your masks go beyond 1: the importance plus a number from 0 to 1.")
def beyond(importances, generator=None):
    return {n: g + torch.rand(g.shape, generator=generator) for n, g in importances.items()}


@wrong("sample_masks", "Your masks run from 1 to the importance: the same distribution, with r turned round.")
def turned(importances, generator=None):
    return {n: 1 - (1 - g) * torch.rand(g.shape, generator=generator) for n, g in importances.items()}


@wrong("sample_masks", "You draw 0 or 1: a component is there or not. The masks between matter.")
def coins(importances, generator=None):
    return {n: g + (1 - g) * (torch.rand(g.shape, generator=generator) < 0.5) for n, g in importances.items()}


@wrong(
    "sample_masks",
    "You draw one number for all components of an example: two that cancel each other then cancel at every mask.",
)
def one_for_all(importances, generator=None):
    return {n: g + (1 - g) * torch.rand(*g.shape[:-1], 1, generator=generator) for n, g in importances.items()}


@wrong("sample_masks", "The importances get no gradient from your masks.")
def detached(importances, generator=None):
    return {n: m.detach() + 0 * importances[n] for n, m in masks_of(importances, generator).items()}


@wrong("sample_masks", "Your draws are normal and not uniform.")
def normal(importances, generator=None):
    return {n: g + (1 - g) * torch.randn(g.shape, generator=generator) for n, g in importances.items()}


@wrong(
    "sample_masks",
    "You cut importances off at 0 first. The masks of a shut gate then lose the leak's gradient.",
)
def cut_at_zero(importances, generator=None):
    return masks_of({n: g.clamp(min=0) for n, g in importances.items()}, generator)


@wrong("sample_masks", "You take the larger of importance and draw: masks pile up at the importance.")
def the_larger(importances, generator=None):
    return {n: torch.maximum(g, torch.rand(g.shape, generator=generator)) for n, g in importances.items()}


@wrong("sample_masks", "You draw in the order of the names. Draw in the order in which the matrices come.")
def by_name(importances, generator=None):
    return masks_of({n: importances[n] for n in sorted(importances)}, generator)


@wrong("sample_masks", "Without a generator you make one with a fixed seed, and every call gives the same masks.")
def always_the_same(importances, generator=None):
    return masks_of(importances, torch.Generator().manual_seed(0) if generator is None else generator)


@right("sample_masks")
def interpolated(importances, generator=None):
    masks = {}
    for name, g in importances.items():
        r = torch.rand(g.shape, generator=generator)
        masks[name] = torch.lerp(g, torch.ones_like(g), r)
    return masks


@right("sample_masks")
def weighted(importances, generator=None):
    drawn = [torch.rand(g.shape, generator=generator) for g in importances.values()]
    return {name: (1 - r) * g + r for (name, g), r in zip(importances.items(), drawn, strict=True)}


# stochastic_reconstruction_loss


@wrong(
    "stochastic_reconstruction_loss",
    "You replace one matrix at a time. This loss replaces all of them at once; the layerwise one comes next.",
)
def one_at_a_time(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    masks = masks_of(importances, generator)
    return torch.stack(
        [distance(run(forward, weights, components, x, {n: m}), wanted) for n, m in masks.items()]
    ).mean()


@wrong("stochastic_reconstruction_loss", "Your masks are the importances themselves. They are drawn from there to 1.")
def importances_as_masks(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    return distance(run(forward, weights, components, x, importances), wanted)


@wrong("stochastic_reconstruction_loss", "Your distance is always the mean squared error, whatever is asked for.")
def own_distance(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    return mean_square(run(forward, weights, components, x, masks_of(importances, generator)), wanted)


@wrong("stochastic_reconstruction_loss", "You call the distance with its arguments exchanged: (output, wanted).")
def exchanged(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    return distance(wanted, run(forward, weights, components, x, masks_of(importances, generator)))


@wrong(
    "stochastic_reconstruction_loss",
    "You compare with the output of all components. What has to stay is the network's own output, `wanted`.",
)
def with_all_components(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    masks = masks_of(importances, generator)
    whole = run(forward, weights, components, x, {n: torch.ones_like(m) for n, m in masks.items()})
    return distance(run(forward, weights, components, x, masks), whole)


@wrong("stochastic_reconstruction_loss", "Importances get no gradient from your loss.")
def masks_detached(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    masks = {n: m.detach() + 0 * importances[n] for n, m in masks_of(importances, generator).items()}
    return distance(run(forward, weights, components, x, masks), wanted)


@wrong("stochastic_reconstruction_loss", "Your masks don't come from the generator: you don't hand it on.")
def generator_unused(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    masks = masks_of(importances, torch.Generator().manual_seed(0))
    return distance(run(forward, weights, components, x, masks), wanted)


@wrong(
    "stochastic_reconstruction_loss",
    "You draw a mask wherever the network multiplies, in the order of use. `sample_masks` is called once, for all.",
)
def drawn_at_use(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    def linear(name, a):
        return components[name](a, masks_of({name: importances[name]}, generator)[name])

    return distance(forward(x, linear), wanted)


@right("stochastic_reconstruction_loss")
def in_steps(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    masks = masks_of(importances, generator)

    def linear(name, a):
        return (a @ components[name].V * masks[name]) @ components[name].U

    return distance(forward(x, linear), wanted)


@right("stochastic_reconstruction_loss")
def with_what_is_lacking(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    lacking = {n: 1 - m for n, m in masks_of(importances, generator).items()}
    return distance(forward(x, lambda n, a: components[n](a) - components[n](a, lacking[n])), wanted)


# layerwise_reconstruction_loss


@wrong(
    "layerwise_reconstruction_loss",
    "You replace all matrices at once. Here one is replaced, and all others multiply by their own weights.",
)
def all_at_once(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    return distance(run(forward, weights, components, x, masks_of(importances, generator)), wanted)


@wrong("layerwise_reconstruction_loss", "You add the matrices' distances up. Their mean is asked for.")
def added(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    masks = masks_of(importances, generator)
    return sum(distance(run(forward, weights, components, x, {n: m}), wanted) for n, m in masks.items())


@wrong(
    "layerwise_reconstruction_loss",
    "Where one matrix is masked, the others use all of their components. They should use the network's own weights.",
)
def others_by_components(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    masks = masks_of(importances, generator)
    whole = {n: torch.ones_like(m) for n, m in masks.items()}
    return torch.stack(
        [distance(run(forward, weights, components, x, {**whole, n: m}), wanted) for n, m in masks.items()]
    ).mean()


@wrong(
    "layerwise_reconstruction_loss",
    "You sample all masks anew for each matrix, so that the later ones are other draws. Sample once.",
)
def sampled_anew(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    each = []
    for name in importances:
        masks = masks_of(importances, generator)
        each.append(distance(run(forward, weights, components, x, {name: masks[name]}), wanted))
    return torch.stack(each).mean()


@wrong("layerwise_reconstruction_loss", "You replace the first matrix alone and stop.")
def first_alone(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    name, mask = next(iter(masks_of(importances, generator).items()))
    return distance(run(forward, weights, components, x, {name: mask}), wanted)


@wrong("layerwise_reconstruction_loss", "Your distance is always the mean squared error, whatever is asked for.")
def layerwise_own_distance(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    masks = masks_of(importances, generator)
    return torch.stack(
        [mean_square(run(forward, weights, components, x, {n: m}), wanted) for n, m in masks.items()]
    ).mean()


@wrong(
    "layerwise_reconstruction_loss",
    "You average the outputs and then take one distance: errors of different matrices cancel.",
)
def outputs_averaged(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    masks = masks_of(importances, generator)
    outputs = torch.stack([run(forward, weights, components, x, {n: m}) for n, m in masks.items()])
    return distance(outputs.mean(0), wanted)


@right("layerwise_reconstruction_loss")
def in_a_loop(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    masks, total = masks_of(importances, generator), 0.0
    for chosen in masks:
        output = forward(x, lambda n, a, c=chosen: components[n](a, masks[n]) if n == c else a @ weights[n])
        total = total + distance(output, wanted)
    return total / len(masks)


@right("layerwise_reconstruction_loss")
def by_differences(forward, weights, components, x, wanted, importances, distance=mean_square, generator=None):
    masks = masks_of(importances, generator)
    each = []
    for name in importances:
        parts = components[name]
        output = forward(
            x, lambda n, a, p=parts, c=name: (a @ p.V * masks[n]) @ p.U if n == c else a @ weights[n]
        )  # fmt: skip
        each.append(distance(output, wanted))
    return sum(each) / len(each)


# minimality_loss


@wrong("minimality_loss", "You average over components. Each costs what it costs, however many others there are.")
def mean_over_components(importances, p):
    return sum((g + 1e-12).pow(p).mean() for g in importances.values())


@wrong("minimality_loss", "You add up over the batch, so that the price grows with it.")
def sum_over_batch(importances, p):
    return sum((g + 1e-12).pow(p).sum() for g in importances.values())


@wrong("minimality_loss", "Your exponent has no say: p is always 1.")
def always_one(importances, p):
    return sum((g + 1e-12).sum(-1).mean() for g in importances.values())


@wrong("minimality_loss", "You raise the sum to the p and not each importance.")
def power_of_the_sum(importances, p):
    return sum((g + 1e-12).sum(-1).pow(p).mean() for g in importances.values())


@wrong("minimality_loss", "You average over matrices. All components of all matrices are added up.")
def mean_over_matrices(importances, p):
    return sum((g + 1e-12).pow(p).sum(-1).mean() for g in importances.values()) / len(importances)


@wrong("minimality_loss", "At importance 0 and p below 1 your gradient is infinite: add 1e-12 before the power.")
def infinite_at_zero(importances, p):
    return sum(g.pow(p).sum(-1).mean() for g in importances.values())


@wrong("minimality_loss", "You take the p-th root at the end: a norm, which gives no component its own price.")
def a_norm(importances, p):
    return sum((g + 1e-12).pow(p).sum(-1).pow(1 / p).mean() for g in importances.values())


@wrong("minimality_loss", "You count importances above 0. A count has no gradient.")
def a_count(importances, p):
    return sum((g > 0).float().sum(-1).mean() + 0 * g.sum() for g in importances.values())


@wrong(
    "minimality_loss",
    "You lift importances to 1e-12 instead of adding it: an importance of 0 then gets no gradient.",
)
def lifted(importances, p):
    return sum(g.clamp(min=1e-12).pow(p).sum(-1).mean() for g in importances.values())


@right("minimality_loss")
def all_side_by_side(importances, p):
    g = torch.cat([g.flatten(0, -2) for g in importances.values()], dim=-1)
    return ((g + 1e-12) ** p).sum() / len(g)


@right("minimality_loss")
def by_logarithms(importances, p):
    total = torch.zeros(())
    for g in importances.values():
        total = total + (p * (g + 1e-12).log()).exp().mean(dim=tuple(range(g.ndim - 1))).sum()
    return total
