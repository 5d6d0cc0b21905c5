"""Wrong answers for influential directions, each with its sentence, and right ones."""

import torch
import torch.nn.functional as F

from utils.course.catalogue import right, wrong
from utils.lenses.directions import direction_influence
from utils.lenses.measures import lens_kl

# direction_influence


def refuse_zero(directions):
    if (directions == 0).all(-1).any():
        raise ValueError("a direction is zero")


def influence(read, resid, directions, *, unit=True, replace="mean", swap=False, reduce="mean"):
    """The influence, with one thing or another done differently."""
    refuse_zero(directions)
    before, found = read(resid), []
    for d in directions:
        d = d / d.norm() if unit else d
        along = resid @ d
        target = along.mean() if replace == "mean" else torch.zeros(())
        ablated = resid - (along - target).unsqueeze(-1) * d
        kl = lens_kl(before, read(ablated)) if swap else lens_kl(read(ablated), before)
        found.append(kl.mean() if reduce == "mean" else kl.sum())
    return torch.stack(found)


@wrong(
    "direction_influence",
    "You used the direction at the length that it came in, so that twice the vector has another influence. "
    "Divide by its length first.",
)
def length_not_taken_out(read, resid, directions):
    return influence(read, resid, directions, unit=False)


@wrong(
    "direction_influence",
    "You set the coordinate to zero. Where its mean is far from zero, that moves the stream to a place it never "
    "is, and even a coordinate that never varies seems to matter. Replace it by its mean.",
)
def set_to_zero(read, resid, directions):
    return influence(read, resid, directions, replace="zero")


@wrong(
    "direction_influence",
    "Your divergence runs from the ablated distribution to the intact one. The reference is what is read from "
    "the intact stream: KL(read(resid) || read(ablated)).",
)
def divergence_turned_round(read, resid, directions):
    return influence(read, resid, directions, swap=True)


@wrong(
    "direction_influence",
    "You summed over vectors: twice the texts would give twice the influence. The mean is asked for.",
)
def summed_over_vectors(read, resid, directions):
    return influence(read, resid, directions, reduce="sum")


@wrong(
    "direction_influence",
    "You ablate one direction after the other, each on top of those before. Every direction is to be ablated alone.",
)
def one_on_top_of_the_other(read, resid, directions):
    refuse_zero(directions)
    before, found, ablated = read(resid), [], resid
    for d in directions / directions.norm(dim=-1, keepdim=True):
        along = ablated @ d
        ablated = ablated - (along - along.mean()).unsqueeze(-1) * d
        found.append(lens_kl(read(ablated), before).mean())
    return torch.stack(found)


@wrong(
    "direction_influence",
    "You kept the coordinate along the direction and replaced everything else. What is to stop varying is the "
    "one coordinate.",
)
def the_rest_ablated(read, resid, directions):
    refuse_zero(directions)
    before, found = read(resid), []
    mean = resid.reshape(-1, resid.shape[-1]).mean(0)
    for d in directions / directions.norm(dim=-1, keepdim=True):
        ablated = mean + ((resid - mean) @ d).unsqueeze(-1) * d
        found.append(lens_kl(read(ablated), before).mean())
    return torch.stack(found)


@wrong(
    "direction_influence",
    "You changed the stream's shape before you gave it to the reader. The rest of a model is a reader too, and looks "
    "along the positions of each text: it has to get [batch, pos, d_model] as it came.",
)
def texts_torn_apart(read, resid, directions):
    return influence(read, resid.reshape(-1, resid.shape[-1]), directions)


@wrong(
    "direction_influence",
    "No gradient reaches the directions. The next exercise climbs along it.",
)
def graph_cut(read, resid, directions):
    return influence(read, resid, directions).detach()


@wrong(
    "direction_influence",
    "You replaced a coordinate by its mean over its own text. The mean over all of `resid` is asked for: otherwise "
    "what differs from text to text goes on varying.",
)
def mean_of_each_text(read, resid, directions):
    refuse_zero(directions)
    before, found = read(resid), []
    for d in directions / directions.norm(dim=-1, keepdim=True):
        along = resid @ d
        mean = along.mean(-1, keepdim=True) if along.ndim > 1 else along.mean()
        found.append(lens_kl(read(resid - (along - mean).unsqueeze(-1) * d), before).mean())
    return torch.stack(found)


@wrong(
    "direction_influence",
    "You take the mean over the first dimension alone: in a stream [batch, pos, d_model] every position has a mean of "
    "its own, and what differs from position to position goes on varying. The mean over all of `resid` is asked for.",
)
def mean_at_each_position(read, resid, directions):
    refuse_zero(directions)
    before, found = read(resid), []
    for d in directions / directions.norm(dim=-1, keepdim=True):
        along = resid @ d
        found.append(lens_kl(read(resid - (along - along.mean(0)).unsqueeze(-1) * d), before).mean())
    return torch.stack(found)


@wrong(
    "direction_influence",
    "You made the directions' length one with `F.normalize`, which never divides by less than 1e-12. A shorter "
    "direction keeps some of its shortness, and its influence falls with it.",
)
def length_with_a_floor(read, resid, directions):
    refuse_zero(directions)
    return influence(read, resid, F.normalize(directions, dim=-1), unit=False)


@wrong(
    "direction_influence",
    "You divide by a direction's length once, and it comes in twice: in the coordinate along the direction, and in the "
    "vector that is taken away.",
)
def length_taken_out_once(read, resid, directions):
    refuse_zero(directions)
    before, found = read(resid), []
    for d in directions:
        along = resid @ d
        found.append(lens_kl(read(resid - (along - along.mean()).unsqueeze(-1) * d / d.norm()), before).mean())
    return torch.stack(found)


@wrong(
    "direction_influence",
    "A direction of length zero goes through. It has no direction, and the docstring names the error to raise.",
)
def zero_goes_through(read, resid, directions):
    nowhere = (directions == 0).all(-1, keepdim=True)
    return influence(read, resid, torch.where(nowhere, torch.ones_like(directions), directions))


@right("direction_influence")
def with_a_projection_matrix(read, resid, directions):
    refuse_zero(directions)
    mean = resid.flatten(0, -2).mean(0)
    before = read(resid).log_softmax(-1)
    found = []
    for d in directions:
        projection = torch.outer(d, d) / (d @ d)
        after = read(resid - (resid - mean) @ projection).log_softmax(-1)
        found.append((before.exp() * (before - after)).sum(-1).mean())
    return torch.stack(found)


@right("direction_influence")
def one_vector_at_a_time(read, resid, directions):
    refuse_zero(directions)
    found = []
    for d in directions:
        mean = torch.stack([vector @ d for vector in resid.reshape(-1, resid.shape[-1])]).mean() / d.norm()
        moved = resid + ((mean - resid @ d / d.norm()) / d.norm())[..., None] * d
        p, q = read(resid).softmax(-1), read(moved).softmax(-1)
        found.append((p * (p / q).log()).sum(-1).mean())
    return torch.stack(found)


# causal_basis


def refuse_number(n_directions, resid):
    if not 1 <= n_directions <= resid.shape[-1]:
        raise ValueError("n_directions must be between 1 and d_model")


def climb(
    read, resid, n_directions, n_steps, lr, generator, *, sign=1.0, earlier=True, graph=False, length=1.0,
    same_start=False, one_optimizer=False, deflate=False,
):  # fmt: skip
    """Gradient ascent, with one thing or another done differently.

    ``earlier``: whether to keep away from the directions before; from the "last" alone, or only at the "ends" of a
    search.
    """
    refuse_number(n_directions, resid)
    basis, whole, v = resid.new_zeros(0, resid.shape[-1]), resid, None

    def project(v):
        found = basis[-1:] if earlier == "last" else basis
        return v - (found @ v) @ found if earlier else v

    for k in range(n_directions):
        if not (k and same_start):
            drawn = torch.randn(resid.shape[-1], generator=generator, dtype=resid.dtype)
        start = length * project(drawn) / project(drawn).norm()
        if k and one_optimizer:
            v.data.copy_(start)
        else:
            v = start.requires_grad_()
            optimizer = torch.optim.Adam([v], lr=lr)
        for _ in range(n_steps):
            tried = v if earlier == "ends" else project(v)
            loss = -sign * direction_influence(read, whole, tried[None])[0]
            [v.grad] = torch.autograd.grad(loss, [v])
            optimizer.step()
        found = project(project(v.detach()))
        found = found / found.norm()
        basis = torch.cat([basis, found[None]])
        if deflate:
            along = whole @ found
            whole = whole - (along - along.mean()).unsqueeze(-1) * found
    return basis.requires_grad_() if graph else basis


@wrong(
    "causal_basis",
    "You go downhill: an optimiser minimises, and your directions are those with the least influence. What do "
    "you have to give it to make it climb?",
)
def downhill(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, n_steps, lr, generator, sign=-1.0)


@wrong(
    "causal_basis",
    "Nothing keeps a later direction away from the earlier ones: all your searches climb the same hill. Take "
    "the parts along earlier directions out, in every step.",
)
def the_same_hill_again(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, n_steps, lr, generator, earlier=False)


@wrong(
    "causal_basis",
    "Each of your directions is at right angles to the one before it, and the third may be the first again. Keep away "
    "from all that have been found.",
)
def away_from_the_last_one_only(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, n_steps, lr, generator, earlier="last")


@wrong(
    "causal_basis",
    "Your starts do not come from the generator that you were given, so that nobody can repeat the search, or repeat "
    "it from other starts.",
)
def starts_from_elsewhere(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, n_steps, lr, torch.Generator().manual_seed(987654321))


@wrong(
    "causal_basis",
    "Those are the directions along which the stream varies most (its principal components). A direction can "
    "vary a lot without anybody reading it; the reader is not in your calculation.",
)
def principal_components(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    refuse_number(n_directions, resid)
    flat = resid.reshape(-1, resid.shape[-1])
    return torch.linalg.svd(flat - flat.mean(0)).Vh[:n_directions]


@wrong(
    "causal_basis",
    "Your directions are random: you draw them, make them orthonormal, and never look at their influence.",
)
def random_directions(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, 0, lr, generator)


@wrong(
    "causal_basis",
    "Your directions do not have length one. Adam changes lengths as it goes; divide at the end.",
)
def lengths_left(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    refuse_number(n_directions, resid)
    return 1.5 * climb(read, resid, n_directions, n_steps, lr, generator)


@wrong(
    "causal_basis",
    "You made the found directions orthogonal only afterwards. The second search had climbed the first hill "
    "again, and what is left of it after the projection is close to nothing in particular.",
)
def orthogonal_afterwards(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    found = climb(read, resid, n_directions, n_steps, lr, generator, earlier=False)
    return torch.linalg.qr(found.T).Q.T


@wrong(
    "causal_basis",
    "You take the parts along earlier directions out at the start and at the end of a search, and not in its steps: on "
    "the way the vector turns back to the hill that has been climbed, and what is left of it at the end is close to "
    "nothing in particular.",
)
def projected_at_the_ends_only(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, n_steps, lr, generator, earlier="ends")


@wrong(
    "causal_basis",
    "More directions than dimensions go through, or none at all. The docstring names the error to raise.",
)
def any_number(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    n = min(max(n_directions, 1), resid.shape[-1])
    return climb(read, resid, n, n_steps, lr, generator)


@wrong(
    "causal_basis",
    "You take a number of steps of your own. How many there are for each direction is `n_steps`'s to say: who asks for "
    "few wants a quick look, and who asks for many has a reason.",
)
def steps_of_ones_own(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, 60, lr, generator)


@wrong(
    "causal_basis",
    "You divided `n_steps` among the directions. Each direction gets that many.",
)
def steps_divided(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, -(-n_steps // n_directions), lr, generator)


@wrong(
    "causal_basis",
    "Your learning rate is always the same, whatever `lr` is.",
)
def learning_rate_of_ones_own(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, n_steps, 0.3, generator)


@wrong(
    "causal_basis",
    "You look for all directions at once, and make the sum of their influences large. The sum hardly changes when they "
    "turn among themselves, so that none of them is the best by itself. One after the other is asked for.",
)
def all_at_once(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    refuse_number(n_directions, resid)
    vectors = torch.randn(resid.shape[-1], n_directions, generator=generator, dtype=resid.dtype).requires_grad_()
    optimizer = torch.optim.Adam([vectors], lr=lr)
    for _ in range(n_steps):
        loss = -direction_influence(read, resid, torch.linalg.qr(vectors).Q.T).sum()
        [vectors.grad] = torch.autograd.grad(loss, [vectors])
        optimizer.step()
    found = torch.linalg.qr(vectors.detach()).Q.T
    with torch.no_grad():
        return found[direction_influence(read, resid, found).argsort(descending=True)]


@wrong(
    "causal_basis",
    "Your directions still carry a graph. They are a result, and nobody differentiates the search: detach them.",
)
def graph_left(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, n_steps, lr, generator, graph=True)


@wrong(
    "causal_basis",
    "Your directions are columns. One direction a row is asked for: [n_directions, d_model].",
)
def as_columns(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, n_steps, lr, generator).T


@wrong(
    "causal_basis",
    "You changed the stream's shape before you gave it to the reader, which may look along the positions of a text: it "
    "has to get the stream as it came.",
)
def torn_apart(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid.reshape(-1, resid.shape[-1]), n_directions, n_steps, lr, generator)


@wrong(
    "causal_basis",
    "You take what has been found out of the stream before the next search. The next direction's influence is then "
    "that on another stream; that it is orthogonal to those before it is all that is asked.",
)
def found_ones_taken_out(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, n_steps, lr, generator, deflate=True)


@wrong(
    "causal_basis",
    "You sort the directions by influence. The order in which they were found is asked for: each is the best of what "
    "those before it have left.",
)
def sorted_by_influence(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    found = climb(read, resid, n_directions, n_steps, lr, generator)
    with torch.no_grad():
        return found[direction_influence(read, resid, found).argsort(descending=True)]


@wrong(
    "causal_basis",
    "One optimiser serves all your searches. Adam remembers the gradients of the last one, and the next search begins "
    "with steps in its direction: make a new one for each.",
)
def one_optimizer_for_all(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, n_steps, lr, generator, one_optimizer=True)


@wrong(
    "causal_basis",
    "Your starts are as long as they are drawn. Adam's steps have a length of their own, so that they turn a long "
    "vector less than a short one, and `lr` means something else in each number of dimensions: start at length 1.",
)
def starts_as_drawn(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, n_steps, lr, generator, length=resid.shape[-1] ** 0.5)


@wrong(
    "causal_basis",
    "All your searches begin at one start. What is left of it, without the direction that was found, is no random "
    "start: draw a new one for each.",
)
def one_start_for_all(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    return climb(read, resid, n_directions, n_steps, lr, generator, same_start=True)


@right("causal_basis")
def in_coordinates_of_what_is_left(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    refuse_number(n_directions, resid)
    d_model, basis = resid.shape[-1], []
    for k in range(n_directions):
        rest = torch.linalg.svd(torch.stack(basis)).Vh[k:] if basis else torch.eye(d_model, dtype=resid.dtype)
        w = torch.randn(d_model - k, generator=generator, dtype=resid.dtype)
        w = (w / w.norm()).requires_grad_()
        optimizer = torch.optim.Adam([w], lr=lr)
        for _ in range(n_steps):
            [w.grad] = torch.autograd.grad(-direction_influence(read, resid, (w @ rest)[None])[0], [w])
            optimizer.step()
        found = (w @ rest).detach()
        basis.append(found / found.norm())
    return torch.stack(basis)


@right("causal_basis")
def back_on_the_sphere_after_each_step(read, resid, n_directions, *, n_steps=100, lr=0.1, generator):
    refuse_number(n_directions, resid)
    basis = torch.empty(resid.shape[-1], 0, dtype=resid.dtype)
    for _ in range(n_directions):
        v = torch.randn(resid.shape[-1], generator=generator, dtype=resid.dtype)
        v = torch.linalg.qr(torch.cat([basis, v[:, None]], 1)).Q[:, -1].clone().requires_grad_()
        optimizer = torch.optim.Adam([v], lr=lr, maximize=True)
        for _ in range(n_steps):
            optimizer.zero_grad()
            direction_influence(read, resid, v[None]).sum().backward()
            v.grad -= basis @ (basis.T @ v.grad)
            optimizer.step()
            with torch.no_grad():
                v -= basis @ (basis.T @ v)
                v /= v.norm()
        basis = torch.linalg.qr(torch.cat([basis, v.detach()[:, None]], 1)).Q
    return basis.T
