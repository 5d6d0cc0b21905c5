"""Wrong answers for taking directions out, each with its sentence, and right ones."""

import math

import torch
from torch import nn

from utils.course.cases import estimate
from utils.course.catalogue import right, wrong
from utils.patching.hooks import run_with_hooks
from utils.probes.erasing import project_out as ours

# project_out


def fitting(x, directions):
    if directions.ndim != 2 or directions.shape[1] != x.shape[-1]:
        raise ValueError("the directions are not [k, d]")


@wrong(
    "project_out",
    "You remove the directions as if each were at right angles to the others. Where they are not, what two of them "
    "share is taken away twice, and something is left, or comes back with the other sign.",
)
def all_at_once(x, directions, *, about=None):
    fitting(x, directions)
    unit = nn.functional.normalize(directions.double(), dim=1)
    offset = x.double() if about is None else x.double() - about
    return x - (offset @ unit.T @ unit).to(x.dtype)


@wrong(
    "project_out",
    "You remove one direction after the other, each as it was given. Removing the second puts something of the first "
    "back, unless they are at right angles.",
)
def one_after_the_other(x, directions, *, about=None):
    fitting(x, directions)
    left = x.double() if about is None else x.double() - about
    for unit in nn.functional.normalize(directions.double(), dim=1):
        left = left - (left @ unit)[..., None] * unit
    return (left if about is None else left + about).to(x.dtype)


@wrong(
    "project_out",
    "You do not divide by the directions' lengths: with a direction of length 2, four times too much is taken away.",
)
def lengths_forgotten(x, directions, *, about=None):
    fitting(x, directions)
    offset = x if about is None else x - about
    return x - offset @ directions.T @ directions


@wrong(
    "project_out",
    "Along the directions your activations lie at the origin, also where `about` says that another point stays. Far "
    "from all activations the network computes things that it never computes.",
)
def always_the_origin(x, directions, *, about=None):
    return ours(x, directions)


@wrong(
    "project_out",
    "You subtract `about` and do not add it again: everything has moved, also at right angles to the directions.",
)
def moved_to_the_origin(x, directions, *, about=None):
    fitting(x, directions)
    return ours(x if about is None else x - about, directions)


@wrong(
    "project_out",
    "You keep what lies along the directions and remove all the rest. It is the other half that was wanted.",
)
def the_other_half(x, directions, *, about=None):
    return x - ours(x, directions, about=about)


@wrong(
    "project_out",
    "You invert the directions' inner products, and that fails, or gives numbers without meaning, where one direction "
    "depends on the others or is zero. A pseudo-inverse, or an orthonormal basis of their span, does not mind.",
)
def by_inverting(x, directions, *, about=None):
    fitting(x, directions)
    unit = nn.functional.normalize(directions.double(), dim=1)
    offset = x.double() if about is None else x.double() - about
    gram = unit @ unit.T
    return x - (offset @ unit.T @ torch.linalg.pinv(gram + 1e-2 * torch.eye(len(unit))) @ unit).to(x.dtype)


@wrong(
    "project_out",
    "A direction by itself, without the dimension for several, is taken as if it were one row. It is to be refused.",
)
def one_is_enough(x, directions, *, about=None):
    if directions.shape[-1] != x.shape[-1]:
        raise ValueError("another width")
    return ours(x, directions.reshape(-1, x.shape[-1]), about=about)


@wrong(
    "project_out",
    "You ask QR for an orthonormal basis. It gives as many vectors as there are directions, also where some of them "
    "depend on the others or are zero; those left over are arbitrary, and you remove them, too.",
)
def by_qr(x, directions, *, about=None):
    fitting(x, directions)
    basis = torch.linalg.qr(directions.T)[0]
    return x - (x if about is None else x - about) @ basis @ basis.T


@wrong(
    "project_out",
    "A short direction is taken for nothing: what counts as zero goes by the lengths as they are given. Only where a "
    "direction points matters.",
)
def short_is_nothing(x, directions, *, about=None):
    fitting(x, directions)
    return x - (x if about is None else x - about) @ torch.linalg.pinv(directions) @ directions


@wrong(
    "project_out",
    "Without `about` your activations end at their own mean. It is the origin that stays then.",
)
def mean_by_default(x, directions, *, about=None):
    fitting(x, directions)
    return ours(x, directions, about=x.reshape(-1, x.shape[-1]).mean(0) if about is None else about)


@wrong("project_out", "Your result is float64, also where the activations were float32.")
def always_double(x, directions, *, about=None):
    return ours(x.double(), directions, about=about)


@right("project_out")
def by_an_orthonormal_basis(x, directions, *, about=None):
    if directions.dim() != 2 or directions.size(1) != x.size(-1):
        raise ValueError("wrong shape")
    basis = []
    for direction in directions.double():
        if direction.norm() == 0:
            continue
        unit = direction / direction.norm()
        for _ in range(2):
            for earlier in basis:
                unit = unit - (unit @ earlier) * earlier
        if unit.norm() > 1e-5:
            basis.append(unit / unit.norm())
    start = torch.zeros(x.shape[-1], dtype=torch.double) if about is None else about.double()
    left = x.double() - start
    for unit in basis:
        left = left - (left * unit).sum(-1, keepdim=True) * unit
    return (left + start).to(x.dtype)


@right("project_out")
def by_svd(x, directions, *, about=None):
    if directions.ndim != 2 or directions.shape[-1] != x.shape[-1]:
        raise ValueError("wrong shape")
    lengths = directions.norm(dim=1, keepdim=True).clamp(min=1e-30)
    _, sizes, rows = torch.linalg.svd(directions / lengths, full_matrices=False)
    basis = rows[sizes > 1e-5]
    offset = x if about is None else x - about
    return x - torch.einsum("...d,kd,ke->...e", offset, basis, basis)


# ablate_direction


def inside_prompts(tokens, positions):
    if positions is not None and bool(((positions < 0) | (positions >= tokens.shape[1])).any()):
        raise ValueError("positions outside the prompts")


def ablated(model, tokens, names, directions, about, positions, hooks):
    """The right way, in the catalogue's words."""
    rows = torch.arange(len(tokens))

    def erase(x):
        erased = ours(x, directions, about=about)
        return erased if positions is None else x.index_put((rows, positions), erased[rows, positions])

    return run_with_hooks(model, tokens, [*hooks, *((name, erase) for name in names)])


@wrong(
    "ablate_direction",
    "You remove the directions at all positions, also where one position of each prompt is asked for.",
)
def at_all_positions(model, tokens, names, directions, *, about=None, positions=None, hooks=()):
    inside_prompts(tokens, positions)
    return ablated(model, tokens, names, directions, about, None, hooks)


@wrong(
    "ablate_direction",
    "Every prompt is changed at the positions of all prompts: `x[:, positions]` takes them for each row. One position "
    "belongs to each prompt.",
)
def positions_of_all(model, tokens, names, directions, *, about=None, positions=None, hooks=()):
    inside_prompts(tokens, positions)

    def erase(x):
        erased = ours(x, directions, about=about)
        if positions is None:
            return erased
        changed = x.clone()
        changed[:, positions] = erased[:, positions]
        return changed

    return run_with_hooks(model, tokens, [*hooks, *((name, erase) for name in names)])


@wrong(
    "ablate_direction",
    "Only the first of the hook points has lost the directions.",
)
def first_hook_point_alone(model, tokens, names, directions, *, about=None, positions=None, hooks=()):
    inside_prompts(tokens, positions)
    return ablated(model, tokens, names[:1], directions, about, positions, hooks)


@wrong("ablate_direction", "`about` is not passed on: the directions are removed about the origin, whatever it says.")
def about_not_passed_on(model, tokens, names, directions, *, about=None, positions=None, hooks=()):
    inside_prompts(tokens, positions)
    return ablated(model, tokens, names, directions, None, positions, hooks)


@wrong("ablate_direction", "The further hooks are left out of the run.")
def without_other_hooks(model, tokens, names, directions, *, about=None, positions=None, hooks=()):
    inside_prompts(tokens, positions)
    return ablated(model, tokens, names, directions, about, positions, ())


@wrong(
    "ablate_direction",
    "The further hooks act after the removal, and bring back along the directions what they add. They act first.",
)
def other_hooks_last(model, tokens, names, directions, *, about=None, positions=None, hooks=()):
    inside_prompts(tokens, positions)
    rows = torch.arange(len(tokens))

    def erase(x):
        erased = ours(x, directions, about=about)
        return erased if positions is None else x.index_put((rows, positions), erased[rows, positions])

    return run_with_hooks(model, tokens, [*((name, erase) for name in names), *hooks])


@wrong(
    "ablate_direction",
    "A position of 0 is taken for none: `if positions.any()` is false at the beginning of every prompt.",
)
def zero_is_none(model, tokens, names, directions, *, about=None, positions=None, hooks=()):
    inside_prompts(tokens, positions)
    at = positions if positions is not None and positions.any() else None
    return ablated(model, tokens, names, directions, about, at, hooks)


@wrong("ablate_direction", "Positions outside the prompts are taken: -1 counts from the end, silently.")
def negative_positions(model, tokens, names, directions, *, about=None, positions=None, hooks=()):
    if positions is not None and bool((positions >= tokens.shape[1]).any()):
        raise ValueError("outside")
    return ablated(model, tokens, names, directions, about, positions, hooks)


@wrong("ablate_direction", "Only the last of the hook points has lost the directions.")
def last_hook_point_alone(model, tokens, names, directions, *, about=None, positions=None, hooks=()):
    inside_prompts(tokens, positions)
    return ablated(model, tokens, names[-1:], directions, about, positions, hooks)


@wrong(
    "ablate_direction",
    "You write into the activation that arrives. The same tensor may be read elsewhere, and is changed there, too: "
    "return a new one.",
)
def written_in_place(model, tokens, names, directions, *, about=None, positions=None, hooks=()):
    inside_prompts(tokens, positions)
    rows = torch.arange(len(tokens))

    def erase(x):
        if positions is None:
            return ours(x, directions, about=about)
        x[rows, positions] = ours(x[rows, positions], directions, about=about)
        return x

    return run_with_hooks(model, tokens, [*hooks, *((name, erase) for name in names)])


@wrong("ablate_direction", "You switch gradients off. They are left to the caller, who may want them.")
def gradients_off(model, tokens, names, directions, *, about=None, positions=None, hooks=()):
    inside_prompts(tokens, positions)
    with torch.no_grad():
        return ablated(model, tokens, names, directions, about, positions, hooks)


@right("ablate_direction")
def with_a_mask(model, tokens, names, directions, *, about=None, positions=None, hooks=()):
    n, pos = tokens.shape
    if positions is not None:
        if positions.min() < 0 or positions.max() >= pos:
            raise ValueError("outside")
        mask = torch.zeros(n, pos, 1, dtype=torch.bool)
        mask[torch.arange(n), positions] = True

    def erase(x):
        erased = ours(x, directions, about=about)
        return erased if positions is None else torch.where(mask, erased, x)

    return run_with_hooks(model, tokens, list(hooks) + [(name, erase) for name in names])


@right("ablate_direction")
def row_by_row(model, tokens, names, directions, *, about=None, positions=None, hooks=()):
    if positions is not None and not all(0 <= p < tokens.shape[1] for p in positions.tolist()):
        raise ValueError("outside")

    def erase(x):
        if positions is None:
            return ours(x, directions, about=about)
        changed = x.clone()
        for row, at in enumerate(positions.tolist()):
            changed[row, at] = ours(x[row, at], directions, about=about)
        return changed

    return run_with_hooks(model, tokens, [*hooks] + [(name, erase) for name in names])


# amnesic_effect


def enough(random, units):
    if units.unique().numel() < 2 or len(random) < 1:
        raise ValueError("too few")


def by_units(costs, units):
    return torch.stack([costs[..., units == unit].mean(-1) for unit in units.unique()], dim=-1)


def made(drop_by_unit, random_by_unit, *, interval=estimate, p=None):
    """The result from costs by unit, [unit] and [draw, unit]."""
    drop, draws = drop_by_unit.mean().item(), random_by_unit.mean(-1).tolist()
    effect, half = interval((drop_by_unit - random_by_unit.mean(0)).tolist())
    p = (1 + sum(cost >= drop for cost in draws)) / (1 + len(draws)) if p is None else p(drop, draws)
    numbers = {"drop": drop, "random": sum(draws) / len(draws), "effect": effect}
    return numbers | {"low": effect - half, "high": effect + half, "p": p}


@wrong(
    "amnesic_effect",
    "You take every prompt for a unit of its own. Prompts of one unit go wrong together, and many of them are not much "
    "more evidence than one.",
)
def over_prompts(intact, erased, random, units):
    enough(random, units)
    return made(intact - erased, intact - random)


@wrong(
    "amnesic_effect",
    "The random directions are not subtracted: your effect is the whole drop. Any removal disturbs a network.",
)
def nothing_subtracted(intact, erased, random, units):
    enough(random, units)
    right_one = made(by_units(intact - erased, units), by_units(intact - random, units))
    effect, half = estimate(by_units(intact - erased, units).tolist())
    return right_one | {"effect": effect, "low": effect - half, "high": effect + half}


@wrong(
    "amnesic_effect",
    "Your signs are turned round: a behaviour that gets worse has a cost above 0, the measure before less the measure "
    "after.",
)
def after_less_before(intact, erased, random, units):
    enough(random, units)
    found = made(by_units(intact - erased, units), by_units(intact - random, units))
    return found | {"drop": -found["drop"], "random": -found["random"], "effect": -found["effect"],
                    "low": -found["high"], "high": -found["low"]}  # fmt: skip


@wrong(
    "amnesic_effect",
    "Your p can be 0. With so many draws nothing rarer than one in 1 + draws can be seen: the direction itself "
    "counts as one of the draws.",
)
def p_of_zero(intact, erased, random, units):
    enough(random, units)
    share = lambda drop, draws: sum(cost >= drop for cost in draws) / len(draws)  # noqa: E731
    return made(by_units(intact - erased, units), by_units(intact - random, units), p=share)


@wrong(
    "amnesic_effect",
    "Draws that cost exactly as much as the direction are not counted in p: it asks for at least as much.",
)
def p_without_ties(intact, erased, random, units):
    enough(random, units)
    share = lambda drop, draws: (1 + sum(cost > drop for cost in draws)) / (1 + len(draws))  # noqa: E731
    return made(by_units(intact - erased, units), by_units(intact - random, units), p=share)


@wrong(
    "amnesic_effect",
    "Your interval reaches 1.96 standard errors to either side. With few units that is too narrow: Student's t "
    "knows that the spread is estimated, too.",
)
def normal_interval(intact, erased, random, units):
    enough(random, units)

    def interval(values):
        values = torch.tensor(values, dtype=torch.float64)
        return values.mean().item(), 1.959964 * values.std().item() / math.sqrt(len(values))

    return made(by_units(intact - erased, units), by_units(intact - random, units), interval=interval)


@wrong("amnesic_effect", "One unit gets an interval, or a random control without draws an average. Both are refused.")
def nothing_refused(intact, erased, random, units):
    if units.unique().numel() < 2 or len(random) < 1:
        return dict.fromkeys(("drop", "random", "effect", "low", "high", "p"), 0.0)
    return made(by_units(intact - erased, units), by_units(intact - random, units))


def with_p(intact, erased, random, units, p):
    enough(random, units)
    return made(by_units(intact - erased, units), by_units(intact - random, units)) | {"p": p}


def rank(drop, draws):
    return (1 + sum(cost >= drop for cost in draws)) / (1 + len(draws))


@wrong(
    "amnesic_effect",
    "Your p compares costs that are averaged over prompts. A unit with many prompts then counts more, in p alone.",
)
def p_over_prompts(intact, erased, random, units):
    p = rank((intact - erased).mean().item(), (intact - random).mean(-1).tolist())
    return with_p(intact, erased, random, units, p)


@wrong(
    "amnesic_effect",
    "Your p compares the draws' costs with the effect, from which random costs have been taken already. Like is "
    'compared with like: with "drop".',
)
def p_against_the_effect(intact, erased, random, units):
    enough(random, units)
    draws = by_units(intact - random, units).mean(-1)
    effect = by_units(intact - erased, units).mean() - draws.mean()
    return with_p(intact, erased, random, units, rank(effect.item(), draws.tolist()))


@wrong(
    "amnesic_effect",
    "Your p counts draws by the size of their cost, whatever its sign: also those after which the behaviour got "
    "better.",
)
def p_without_signs(intact, erased, random, units):
    enough(random, units)
    drop, draws = by_units(intact - erased, units).mean(), by_units(intact - random, units).mean(-1)
    return with_p(intact, erased, random, units, rank(drop.abs().item(), draws.abs().tolist()))


@wrong(
    "amnesic_effect",
    "Your interval is made with the standard deviation: that is how much units differ, and not how well their mean is "
    "known.",
)
def deviation_for_error(intact, erased, random, units):
    enough(random, units)

    def interval(values):
        mean, half = estimate(values)
        return mean, half * math.sqrt(len(values))

    return made(by_units(intact - erased, units), by_units(intact - random, units), interval=interval)


@right("amnesic_effect")
def with_loops(intact, erased, random, units):
    labels = sorted(set(units.tolist()))
    if len(labels) < 2 or random.shape[0] == 0:
        raise ValueError("too few")

    def cost(after):
        return [float((intact - after)[units == label].double().mean()) for label in labels]

    own, draws = cost(erased), [cost(row) for row in random]
    differences = [a - sum(d[i] for d in draws) / len(draws) for i, a in enumerate(own)]
    mean, half = estimate(differences)
    drop, by_draw = sum(own) / len(own), [sum(d) / len(d) for d in draws]
    return {
        "p": (1 + sum(c >= drop for c in by_draw)) / (1 + len(by_draw)), "high": mean + half, "low": mean - half,
        "effect": mean, "random": sum(by_draw) / len(by_draw), "drop": drop,
    }  # fmt: skip


@right("amnesic_effect")
def with_a_matrix(intact, erased, random, units):
    if len(random) == 0 or len(set(units.tolist())) < 2:
        raise ValueError("too few")
    members = (units[None] == units.unique()[:, None]).float()
    members = members / members.sum(1, keepdim=True)
    own, draws = (intact - erased) @ members.T, (intact - random) @ members.T
    return made(own, draws)


# iterated_nullspace


def nullspace(x, labels, x_test, labels_test, n, fit):
    if not 1 <= n <= x.shape[1]:
        raise ValueError("n_directions")
    removed, accuracy, about = x[:0], [], x.mean(0)
    for _ in range(n):
        probe = fit(ours(x, removed, about=about), labels)
        accuracy.append(((probe(ours(x_test, removed, about=about)) > 0) == labels_test).float().mean())
        new = ours(probe.direction, removed)
        removed = torch.cat([removed, new[None] / new.norm()])
    return removed, torch.stack(accuracy)


@wrong(
    "iterated_nullspace",
    "You report the accuracy on what the probes were fitted to. With as many dimensions as here, some accuracy is "
    "always to be had there.",
)
def accuracy_on_training(x, labels, x_test, labels_test, n_directions, fit):
    return nullspace(x, labels, x, labels, n_directions, fit)


@wrong(
    "iterated_nullspace",
    "From each fit on you remove the last direction alone, and put the earlier ones back.",
)
def only_the_last(x, labels, x_test, labels_test, n_directions, fit):
    if not 1 <= n_directions <= x.shape[1]:
        raise ValueError("n_directions")
    rows, accuracy, about = [], [], x.mean(0)
    for _ in range(n_directions):
        last = torch.stack(rows[-1:]) if rows else x[:0]
        probe = fit(ours(x, last, about=about), labels)
        accuracy.append(((probe(ours(x_test, last, about=about)) > 0) == labels_test).float().mean())
        rows.append(probe.direction / probe.direction.norm())
    return torch.stack(rows), torch.stack(accuracy)


def varied(x, labels, x_test, labels_test, n, fit, *, about=None, about_test=None, unit=True, free=True, test=True):
    """The right way, with parts that can be replaced."""
    if not 1 <= n <= x.shape[1]:
        raise ValueError("n_directions")
    about = x.mean(0) if about is None else about
    about_test = about if about_test is None else about_test
    removed, accuracy = x[:0], []
    for _ in range(n):
        probe = fit(ours(x, removed, about=about), labels)
        scores = probe(ours(x_test, removed, about=about_test) if test else x_test)
        accuracy.append(((scores > 0) == labels_test).float().mean())
        new = ours(probe.direction, removed) if free else probe.direction
        removed = torch.cat([removed, new[None] / (new.norm() if unit else 1)])
    return removed, torch.stack(accuracy)


@wrong("iterated_nullspace", "Your directions are not of length 1.")
def any_length(x, labels, x_test, labels_test, n_directions, fit):
    return varied(x, labels, x_test, labels_test, n_directions, fit, unit=False)


@wrong(
    "iterated_nullspace",
    "You remove the directions about the origin. It is the mean of x that stays: to a probe that goes by where "
    "activations lie, they would lie elsewhere after every removal.",
)
def about_the_origin(x, labels, x_test, labels_test, n_directions, fit):
    return varied(x, labels, x_test, labels_test, n_directions, fit, about=torch.zeros_like(x[0]))


@wrong(
    "iterated_nullspace",
    "You remove the directions about the point half-way between the classes' means. Here it is the mean of x that "
    "stays, and the two differ if the classes are of different sizes.",
)
def about_the_middle(x, labels, x_test, labels_test, n_directions, fit):
    middle = (x[labels].mean(0) + x[~labels].mean(0)) / 2
    return varied(x, labels, x_test, labels_test, n_directions, fit, about=middle)


@wrong(
    "iterated_nullspace",
    "In the test's activations you remove the directions about the test's own mean. A probe is tested as it was "
    "fitted, about the mean of x; the test's mean is not known.",
)
def about_the_tests_mean(x, labels, x_test, labels_test, n_directions, fit):
    return varied(x, labels, x_test, labels_test, n_directions, fit, about_test=x_test.mean(0))


@wrong(
    "iterated_nullspace",
    "Your probes are tested on activations from which nothing has been removed: a probe whose direction has a part "
    "along earlier rows finds there what was to be gone.",
)
def test_as_it_is(x, labels, x_test, labels_test, n_directions, fit):
    return varied(x, labels, x_test, labels_test, n_directions, fit, test=False)


@wrong(
    "iterated_nullspace",
    "A probe's direction may have a part along the earlier rows, and yours keep it: they are not at right angles.",
)
def parts_of_earlier_ones(x, labels, x_test, labels_test, n_directions, fit):
    return varied(x, labels, x_test, labels_test, n_directions, fit, free=False)


@wrong(
    "iterated_nullspace",
    "Each probe is tested on activations from which its own direction has gone already.",
)
def tested_too_late(x, labels, x_test, labels_test, n_directions, fit):
    if not 1 <= n_directions <= x.shape[1]:
        raise ValueError("n_directions")
    removed, accuracy, about = x[:0], [], x.mean(0)
    for _ in range(n_directions):
        probe = fit(ours(x, removed, about=about), labels)
        new = ours(probe.direction, removed)
        removed = torch.cat([removed, new[None] / new.norm()])
        accuracy.append(((probe(ours(x_test, removed, about=about)) > 0) == labels_test).float().mean())
    return removed, torch.stack(accuracy)


@wrong("iterated_nullspace", "As many probes as there are dimensions are refused. That many are allowed.")
def one_less_than_dimensions(x, labels, x_test, labels_test, n_directions, fit):
    if n_directions >= x.shape[1]:
        raise ValueError("n_directions")
    return nullspace(x, labels, x_test, labels_test, n_directions, fit)


@wrong("iterated_nullspace", "Your directions point to where the feature is absent.")
def turned_round(x, labels, x_test, labels_test, n_directions, fit):
    directions, accuracy = nullspace(x, labels, x_test, labels_test, n_directions, fit)
    return -directions, accuracy


@wrong(
    "iterated_nullspace",
    "The first accuracy is missing: yours begin after the first removal. Probe 0 sees all activations as they are.",
)
def accuracy_afterwards(x, labels, x_test, labels_test, n_directions, fit):
    if not 1 <= n_directions <= x.shape[1]:
        raise ValueError("n_directions")
    removed, accuracy, about = x[:0], [], x.mean(0)
    probe = fit(x, labels)
    for _ in range(n_directions):
        new = ours(probe.direction, removed)
        removed = torch.cat([removed, new[None] / new.norm()])
        probe = fit(ours(x, removed, about=about), labels)
        accuracy.append(((probe(ours(x_test, removed, about=about)) > 0) == labels_test).float().mean())
    return removed, torch.stack(accuracy)


@wrong(
    "iterated_nullspace", "A number of directions that makes no sense, 0 or more than there are dimensions, is taken."
)
def any_number(x, labels, x_test, labels_test, n_directions, fit):
    n = min(max(n_directions, 1), x.shape[1])
    return nullspace(x, labels, x_test, labels_test, n, fit)


@right("iterated_nullspace")
def carried_along(x, labels, x_test, labels_test, n_directions, fit):
    if n_directions < 1 or n_directions > x.size(1):
        raise ValueError("n_directions")
    mean = x.mean(0)
    left, left_test = x - mean, x_test - mean
    rows, accuracy = [], []
    for _ in range(n_directions):
        probe = fit(left + mean, labels)
        accuracy.append((((probe(left_test + mean)) > 0) == labels_test).double().mean().float())
        unit = probe.direction.clone()
        for earlier in rows:
            unit = unit - (unit @ earlier) * earlier
        unit = unit / unit.norm()
        rows.append(unit)
        left, left_test = (z - (z @ unit)[:, None] * unit for z in (left, left_test))
    return torch.stack(rows), torch.stack(accuracy)
