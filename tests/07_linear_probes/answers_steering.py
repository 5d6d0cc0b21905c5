"""Wrong answers for setting a direction and for comparing it with a gradient, and right ones."""

import torch

from utils.course.catalogue import right, wrong
from utils.patching.hooks import run_with_cache, run_with_hooks

# steer_with_probe


def refused(tokens, directions, positions):
    if bool(((positions < 0) | (positions >= tokens.shape[1])).any()):
        raise ValueError("positions outside the prompts")
    if bool((directions.norm(dim=1) == 0).any()):
        raise ValueError("a direction of length 0")


def steered(
    model, tokens, name, directions, centre, doses, metric, positions, hooks,
    *, place=None, half=None, everywhere=False, last=False,
):  # fmt: skip
    """The right way, with parts that can be replaced."""
    rows = torch.arange(len(tokens))
    half = half or (lambda own: directions[0].norm() / 2)
    place = place or (lambda x, unit, value: x + (value - (x - centre) @ unit)[..., None] * unit)

    def setting(direction, dose):
        unit, value = direction / direction.norm(), dose * half(direction)

        def edit(activation):
            if everywhere:
                return place(activation, unit, value)
            return activation.index_put((rows, positions), place(activation[rows, positions], unit, value))

        return edit

    found = []
    with torch.no_grad():
        for direction in directions:
            for dose in doses:
                own = [(name, setting(direction, dose))]
                found.append(metric(run_with_hooks(model, tokens, [*own, *hooks] if last else [*hooks, *own])))
    return torch.stack(found).view(len(directions), len(doses), -1)


@wrong(
    "steer_with_probe",
    "You add the dose to what is there. Here the place along the direction is set: after dose 1 all prompts lie at the "
    "same place, wherever they were.",
)
def added(model, tokens, name, directions, centre, doses, metric, positions, *, hooks=()):
    refused(tokens, directions, positions)
    place = lambda x, unit, value: x + value * unit  # noqa: E731
    return steered(model, tokens, name, directions, centre, doses, metric, positions, hooks, place=place)


@wrong(
    "steer_with_probe",
    "Each direction is set by its own length. A control that is moved less far than the probe's direction shows "
    "nothing: all of them go by the length of the first.",
)
def own_lengths(model, tokens, name, directions, centre, doses, metric, positions, *, hooks=()):
    refused(tokens, directions, positions)
    half = lambda own: own.norm() / 2  # noqa: E731
    return steered(model, tokens, name, directions, centre, doses, metric, positions, hooks, half=half)


@wrong(
    "steer_with_probe",
    "You go a whole length from the centre, and the classes' means lie half a length from it: your dose 1 is twice "
    "as far out as a natural activation.",
)
def whole_lengths(model, tokens, name, directions, centre, doses, metric, positions, *, hooks=()):
    refused(tokens, directions, positions)
    half = lambda own: directions[0].norm()  # noqa: E731
    return steered(model, tokens, name, directions, centre, doses, metric, positions, hooks, half=half)


@wrong("steer_with_probe", "You count from the origin, and not from `centre`.")
def from_the_origin(model, tokens, name, directions, centre, doses, metric, positions, *, hooks=()):
    refused(tokens, directions, positions)
    place = lambda x, unit, value: x + (value - x @ unit)[..., None] * unit  # noqa: E731
    return steered(model, tokens, name, directions, centre, doses, metric, positions, hooks, place=place)


@wrong("steer_with_probe", "You set the direction at all positions. Only one position of each prompt is asked for.")
def at_all_positions(model, tokens, name, directions, centre, doses, metric, positions, *, hooks=()):
    refused(tokens, directions, positions)
    return steered(model, tokens, name, directions, centre, doses, metric, positions, hooks, everywhere=True)


@wrong(
    "steer_with_probe",
    "You put the centre itself, plus the dose, in place of the activation: everything that the prompt had said is "
    "gone, and not only what lies along the direction.",
)
def everything_replaced(model, tokens, name, directions, centre, doses, metric, positions, *, hooks=()):
    refused(tokens, directions, positions)
    place = lambda x, unit, value: (centre + value * unit).expand_as(x)  # noqa: E731
    return steered(model, tokens, name, directions, centre, doses, metric, positions, hooks, place=place)


@wrong("steer_with_probe", "The further hooks act after yours, and change what you have set. They act first.")
def other_hooks_last(model, tokens, name, directions, centre, doses, metric, positions, *, hooks=()):
    refused(tokens, directions, positions)
    return steered(model, tokens, name, directions, centre, doses, metric, positions, hooks, last=True)


@wrong("steer_with_probe", "Doses come first in your result. Directions do, then doses, then prompts.")
def doses_first(model, tokens, name, directions, centre, doses, metric, positions, *, hooks=()):
    refused(tokens, directions, positions)
    found = steered(model, tokens, name, directions, centre, doses, metric, positions, hooks)
    return found.transpose(0, 1)


@wrong("steer_with_probe", "The further hooks are left out of your runs.")
def without_other_hooks(model, tokens, name, directions, centre, doses, metric, positions, *, hooks=()):
    refused(tokens, directions, positions)
    return steered(model, tokens, name, directions, centre, doses, metric, positions, ())


@wrong(
    "steer_with_probe",
    "Your direction is not of length 1 where the place along it is taken out and set: with one of length 3, nine times "
    "too much goes and three times too much comes.",
)
def not_a_unit(model, tokens, name, directions, centre, doses, metric, positions, *, hooks=()):
    refused(tokens, directions, positions)
    rows, half, found = torch.arange(len(tokens)), directions[0].norm() / 2, []
    with torch.no_grad():
        for u in directions:
            for dose in doses:

                def edit(activation, u=u, dose=dose):
                    x = activation[rows, positions]
                    new = x + (dose * half - (x - centre) @ u)[:, None] * u
                    return activation.index_put((rows, positions), new)

                found.append(metric(run_with_hooks(model, tokens, [*hooks, (name, edit)])))
    return torch.stack(found).view(len(directions), len(doses), -1)


@wrong("steer_with_probe", "Your result holds on to a graph: gradients are on while your runs are made.")
def with_a_graph(model, tokens, name, directions, centre, doses, metric, positions, *, hooks=()):
    refused(tokens, directions, positions)
    rows, half, found = torch.arange(len(tokens)), directions[0].norm() / 2, []
    for direction in directions:
        u = direction / direction.norm()
        for dose in doses:

            def edit(activation, u=u, dose=dose):
                x = activation[rows, positions]
                new = x + (dose * half - (x - centre) @ u)[:, None] * u
                return activation.index_put((rows, positions), new)

            found.append(metric(run_with_hooks(model, tokens, [*hooks, (name, edit)])))
    return torch.stack(found).view(len(directions), len(doses), -1)


@wrong(
    "steer_with_probe",
    "You write into the activation that arrives. The same tensor may be read elsewhere, and is changed there, too: "
    "return a new one.",
)
def written_in_place(model, tokens, name, directions, centre, doses, metric, positions, *, hooks=()):
    refused(tokens, directions, positions)
    rows, half, found = torch.arange(len(tokens)), directions[0].norm() / 2, []
    with torch.no_grad():
        for direction in directions:
            u = direction / direction.norm()
            for dose in doses:

                def edit(activation, u=u, dose=dose):
                    x = activation[rows, positions]
                    activation[rows, positions] = x + (dose * half - (x - centre) @ u)[:, None] * u
                    return activation

                found.append(metric(run_with_hooks(model, tokens, [*hooks, (name, edit)])))
    return torch.stack(found).view(len(directions), len(doses), -1)


@right("steer_with_probe")
def by_removing_first(model, tokens, name, directions, centre, doses, metric, positions, *, hooks=()):
    n, pos = tokens.shape
    if positions.min() < 0 or positions.max() >= pos or not directions.norm(dim=1).all():
        raise ValueError("bad input")
    at = torch.zeros(n, pos, 1, dtype=torch.bool)
    at[torch.arange(n), positions] = True
    length, table = directions[0].norm(), []
    for direction in directions:
        u, row = direction / direction.norm(), []
        for dose in doses.tolist():

            def edit(x, u=u, dose=dose):
                set_there = x - ((x - centre) @ u).unsqueeze(-1) * u + dose * length / 2 * u
                return torch.where(at, set_there, x)

            with torch.no_grad():
                row.append(metric(run_with_hooks(model, tokens, list(hooks) + [(name, edit)])))
        table.append(torch.stack(row))
    return torch.stack(table)


@right("steer_with_probe")
def with_the_parts(model, tokens, name, directions, centre, doses, metric, positions, *, hooks=()):
    refused(tokens, directions, positions)
    return steered(model, tokens, name, directions, centre, doses, metric, positions, hooks).detach()


# probe_vs_gradient_direction


def gradient_at(model, tokens, name, metric, positions, each=False):
    """The gradient at each prompt's position."""
    with torch.enable_grad():
        kept = []

        def listen(x):
            kept.append(x.detach().requires_grad_())
            return kept[-1]

        logits = run_with_hooks(model, tokens, [(name, listen)])
        (gradient,) = torch.autograd.grad(metric(logits).sum(), kept[-1])
    return gradient[torch.arange(len(tokens)), positions], kept[-1].detach()[torch.arange(len(tokens)), positions]


def cosine(a, b):
    return torch.nn.functional.cosine_similarity(a, b, dim=-1, eps=1e-30)


@wrong(
    "probe_vs_gradient_direction",
    "You return the inner product with the gradient. That grows with both lengths; a cosine is divided by both.",
)
def inner_product(model, tokens, name, direction, metric, positions):
    return gradient_at(model, tokens, name, metric, positions)[0] @ direction


@wrong(
    "probe_vs_gradient_direction",
    "You divide by the direction's length and not by the gradient's: what you get is a slope, in units of the metric.",
)
def slope(model, tokens, name, direction, metric, positions):
    return gradient_at(model, tokens, name, metric, positions)[0] @ direction / direction.norm()


@wrong(
    "probe_vs_gradient_direction",
    "Your cosines have lost their sign: a probe that points against the behaviour looks like one that points with it.",
)
def without_sign(model, tokens, name, direction, metric, positions):
    return cosine(gradient_at(model, tokens, name, metric, positions)[0], direction[None]).abs()


@wrong(
    "probe_vs_gradient_direction",
    "You compare the direction with the activation, and not with the gradient: what is there, and not what is read.",
)
def with_the_activation(model, tokens, name, direction, metric, positions):
    return cosine(gradient_at(model, tokens, name, metric, positions)[1], direction[None])


@wrong(
    "probe_vs_gradient_direction",
    "All your cosines are one: that with the average gradient. Prompts may differ in what they are sensitive to, "
    "and an average hides it.",
)
def of_the_average(model, tokens, name, direction, metric, positions):
    gradient = gradient_at(model, tokens, name, metric, positions)[0].mean(0, keepdim=True)
    return cosine(gradient, direction[None]).expand(len(tokens))


@wrong("probe_vs_gradient_direction", "You take the gradient at the last position, wherever the prompt's own one is.")
def at_the_last(model, tokens, name, direction, metric, positions):
    last = torch.full_like(positions, tokens.shape[1] - 1)
    return cosine(gradient_at(model, tokens, name, metric, last)[0], direction[None])


@wrong(
    "probe_vs_gradient_direction",
    "Where the gradient is 0 your cosine is NaN, and one such prompt spoils every mean.",
)
def nan_for_nothing(model, tokens, name, direction, metric, positions):
    gradient = gradient_at(model, tokens, name, metric, positions)[0]
    return gradient @ direction / gradient.norm(dim=1) / direction.norm()


@wrong(
    "probe_vs_gradient_direction",
    "A small gradient gets a cosine that is too small: something has been added to its length. A gradient of 1e-10 "
    "has a direction, too.",
)
def small_is_nothing(model, tokens, name, direction, metric, positions):
    gradient = gradient_at(model, tokens, name, metric, positions)[0]
    return gradient @ direction / (gradient.norm(dim=1) * direction.norm() + 1e-6)


@wrong(
    "probe_vs_gradient_direction",
    "Where gradients are switched off, or no weight asks for one, your run keeps nothing to go back along. Switch them "
    "on for it, and let the activation itself ask.",
)
def gradients_taken_for_granted(model, tokens, name, direction, metric, positions):
    logits, cache = run_with_cache(model, tokens, [name])
    gradient = torch.autograd.grad(metric(logits).sum(), cache[name])[0][torch.arange(len(tokens)), positions]
    return cosine(gradient, direction[None])


@wrong(
    "probe_vs_gradient_direction",
    "You let the weights ask for gradients, and leave it so: the model was frozen, and is no longer. It is enough that "
    "the activation asks.",
)
def frozen_no_more(model, tokens, name, direction, metric, positions):
    model.requires_grad_(True)
    with torch.enable_grad():
        return gradients_taken_for_granted(model, tokens, name, direction, metric, positions).detach()


@wrong(
    "probe_vs_gradient_direction",
    "You go back with `backward`, and that leaves a gradient on every weight. `torch.autograd.grad` does not.",
)
def by_backward(model, tokens, name, direction, metric, positions):
    kept = []

    def listen(x):
        kept.append(x if x.requires_grad else x.detach().requires_grad_())
        kept[-1].retain_grad()
        return kept[-1]

    with torch.enable_grad():
        metric(run_with_hooks(model, tokens, [(name, listen)])).sum().backward()
    return cosine(kept[-1].grad[torch.arange(len(tokens)), positions], direction[None])


@right("probe_vs_gradient_direction")
def prompt_by_prompt(model, tokens, name, direction, metric, positions):
    found = []
    for row, at in enumerate(positions.tolist()):
        with torch.enable_grad():
            kept = []

            def listen(x, kept=kept):
                kept.append(x.clone() if x.requires_grad else x.clone().requires_grad_())
                return kept[-1]

            value = metric(run_with_hooks(model, tokens, [(name, listen)]))[row]
            gradient = torch.autograd.grad(value, kept[-1])[0][row, at]
        length = gradient.double().norm() * direction.double().norm()
        found.append((gradient.double() @ direction.double() / length).float() if length > 0 else torch.tensor(0.0))
    return torch.stack(found).detach()


@right("probe_vs_gradient_direction")
def from_the_cache(model, tokens, name, direction, metric, positions):
    with torch.no_grad():
        start = run_with_cache(model, tokens, [name])[1][name]
    with torch.enable_grad():
        leaf = start.clone().requires_grad_()
        total = metric(run_with_hooks(model, tokens, [(name, lambda x: leaf)])).sum()
        gradient = torch.autograd.grad(total, leaf)[0][range(len(tokens)), positions]
    unit = torch.nn.functional.normalize(gradient, dim=1, eps=1e-30)
    return unit @ (direction / direction.norm())
