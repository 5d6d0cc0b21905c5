"""Wrong and right answers for the decomposition of a language model's matrix, and for what can be asked of it."""

import torch
import torch.nn.functional as F

from utils.course.catalogue import right, wrong
from utils.spd.components import masked_forward
from utils.spd.course_model import kl_distance
from utils.spd.losses import mean_squared_error
from utils.spd.training import train_spd

# kl_distance


@wrong("kl_distance", "You have the divergence the other way round, with the components' predictions in front.")
def the_other_way(logits, wanted):
    log_q, log_p = logits.log_softmax(-1), wanted.log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1).mean()


@wrong(
    "kl_distance", "You take the mean over words as well. The divergence is a sum over words, and a mean over inputs."
)
def mean_over_words(logits, wanted):
    log_q, log_p = logits.log_softmax(-1), wanted.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).mean()


@wrong("kl_distance", "You compare logits and not predictions: what is added to all words' logits should not count.")
def of_logits(logits, wanted):
    return (wanted.softmax(-1) * (wanted - logits)).sum(-1).mean()


@wrong("kl_distance", "You sum over the inputs. A mean is asked for.")
def summed(logits, wanted):
    log_q, log_p = logits.log_softmax(-1), wanted.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum()


@wrong(
    "kl_distance",
    "You give the cross-entropy: the entropy of the wanted predictions is still in it, so it is not 0 "
    "for the same ones.",
)
def cross_entropy(logits, wanted):
    return -(wanted.softmax(-1) * logits.log_softmax(-1)).sum(-1).mean()


@right("kl_distance")
def by_torch(logits, wanted):
    flat = logits.flatten(0, -2).log_softmax(-1)
    return F.kl_div(flat, wanted.flatten(0, -2).log_softmax(-1), log_target=True, reduction="batchmean")


# spd_on_course_model


def decomposed(
    x, W_out, finish, *, C, price, n_steps, lr=4e-3, batch=256, seed=0, beside=True, draw=None, p=1.0,
    distance=kl_distance, weight=1000.0, network=None,
):  # fmt: skip
    d_mlp = len(W_out)

    def whole(rows, linear):
        return finish(rows[..., d_mlp:] * beside + linear("W_out", rows[..., :d_mlp]))

    forward = network or whole

    def rows_of(generator):
        return x[torch.randint(len(x), (batch,), generator=generator)]

    weigh = {"faithfulness": weight}
    return forward, train_spd(
        forward, {"W_out": W_out}, draw or rows_of, C=C, price=price, p=p, n_steps=n_steps, lr=lr, distance=distance,
        weigh=weigh, seed=seed,
    )  # fmt: skip


@wrong("spd_on_course_model", "What stands beside the matrix's product in the stream is missing.")
def without_stream(*given, **settings):
    return decomposed(*given, beside=False, **settings)


@wrong(
    "spd_on_course_model",
    "Outputs are compared by the mean squared error of logits. The predictions' divergence is asked for.",
)
def by_logits(*given, **settings):
    return decomposed(*given, distance=mean_squared_error, **settings)


@wrong(
    "spd_on_course_model",
    "Faithfulness weighs as much as the other losses in yours. Its mean over so many small entries is then too small "
    "to be felt beside nats.",
)
def light_faithfulness(*given, **settings):
    return decomposed(*given, weight=1.0, **settings)


@wrong("spd_on_course_model", "Your batches are drawn without replacement, or in another way than the docstring says.")
def without_replacement(x, W_out, finish, *, batch=256, **settings):
    def draw(generator):
        return x[torch.randperm(len(x), generator=generator)[:batch]]

    return decomposed(x, W_out, finish, draw=draw, **settings)


@wrong("spd_on_course_model", "The exponent of your price is not 1.")
def other_exponent(*given, **settings):
    return decomposed(*given, p=2.0, **settings)


@wrong(
    "spd_on_course_model",
    "You finish the stream and the matrix's product each by itself, and add logits. What ends the network is not "
    "linear.",
)
def finished_apart(x, W_out, finish, **settings):
    d_mlp = len(W_out)

    def forward(rows, linear):
        return finish(rows[..., d_mlp:]) + finish(linear("W_out", rows[..., :d_mlp]))

    return decomposed(x, W_out, finish, network=forward, **settings)


@right("spd_on_course_model")
def by_split(x, W_out, finish, *, C, price, n_steps, lr=4e-3, batch=256, seed=0):
    sizes = list(W_out.shape)

    def forward(rows, linear):
        neurons, stream = rows.split(sizes, dim=-1)
        return finish(linear("W_out", neurons) + stream)

    def batches(generator):
        return x.index_select(0, torch.randint(x.shape[0], (batch,), generator=generator))

    weigh = {"faithfulness": 1e3, "stochastic": 1.0, "layerwise": 1.0}
    found = train_spd(
        forward, {"W_out": W_out}, batches, C=C, price=price, n_steps=n_steps, lr=lr, distance=kl_distance, weigh=weigh,
        seed=seed,
    )  # fmt: skip
    return forward, found


# what_it_writes


def written(components, a, needed, W_U, centre=True, level=True, where=True, strength=True):
    h = a @ components.V
    mean = (h * needed).sum(0) / needed.sum(0).clamp(min=1) if where else h.mean(0) * needed.any(0)
    U = components.U - components.U.mean(1, keepdim=True) * centre
    logits = (mean if strength else needed.any(0).float())[:, None] * (U @ W_U)
    return logits - logits.mean(1, keepdim=True) * level


@wrong(
    "what_it_writes",
    "You give what U points to, whatever comes in. A component may be on with a minus sign, and more or less strongly.",
)
def directions_alone(components, a, needed, W_U):
    return written(components, a, needed, W_U, strength=False)


@wrong(
    "what_it_writes",
    "You take the mean over all inputs. What a component does where it is not needed does not belong to "
    "what it is needed for.",
)
def over_all(components, a, needed, W_U):
    return written(components, a, needed, W_U, where=False)


@wrong(
    "what_it_writes",
    "The mean over the dimensions of what is written is still in it, and the final norm takes it away.",
)
def not_centred(components, a, needed, W_U):
    return written(components, a, needed, W_U, centre=False)


@wrong(
    "what_it_writes",
    "The mean over the vocabulary is still in your logits. What raises all words alike changes nothing.",
)
def not_levelled(components, a, needed, W_U):
    return written(components, a, needed, W_U, level=False)


@wrong("what_it_writes", "You divide by the number of inputs, not of those that need the component.")
def by_all_inputs(components, a, needed, W_U):
    logits = written(components, a, needed, W_U)
    return logits * needed.float().mean(0)[:, None]


@right("what_it_writes")
def one_by_one(components, a, needed, W_U):
    rows = []
    for c in range(needed.shape[1]):
        inputs = a[needed[:, c]]
        if not len(inputs):
            rows.append(torch.zeros(W_U.shape[1]))
            continue
        vector = (inputs @ components.V[:, c]).mean() * components.U[c]
        logits = (vector - vector.mean()) @ W_U
        rows.append(logits - logits.mean())
    return torch.stack(rows)


# adversarial_masks


def ascent(
    forward, weights, components, x, wanted, needed, distance, n_steps, step, *, start=0.5, up=1.0, clamp=True,
    keep=True, sign=True, swap=False, at_the_end=False, heap=False,
):  # fmt: skip
    masks = {name: torch.where(k, 1.0, start) for name, k in needed.items()}
    heaps = [torch.zeros(mask.shape) for mask in masks.values()]
    for _ in range(n_steps):
        masks = {name: mask.detach().requires_grad_() for name, mask in masks.items()}
        output = masked_forward(forward, weights, components, x, masks)
        worse = distance(wanted, output) if swap else distance(output, wanted)
        pulls = torch.autograd.grad(worse, list(masks.values()))
        if heap:
            pulls = heaps = [old + pull for old, pull in zip(heaps, pulls, strict=True)]
        for (name, mask), pull in zip(list(masks.items()), pulls, strict=True):
            moved = mask.detach() + up * step * (pull.sign() if sign else pull)
            moved = moved.clamp(0, 1) if clamp and not at_the_end else moved
            masks[name] = torch.where(needed[name], 1.0, moved) if keep else moved
    return {name: mask.detach().clamp(0, 1) if at_the_end else mask.detach() for name, mask in masks.items()}


@wrong("adversarial_masks", "Your masks are brought back between 0 and 1 once, at the end, and not in every step.")
def back_at_the_end(forward, weights, components, x, wanted, needed, distance, n_steps=10, step=0.2):
    return ascent(forward, weights, components, x, wanted, needed, distance, n_steps, step, at_the_end=True)


@wrong("adversarial_masks", "Your gradients pile up: each step is to go by the gradient at the present masks alone.")
def piled_up(forward, weights, components, x, wanted, needed, distance, n_steps=10, step=0.2):
    return ascent(forward, weights, components, x, wanted, needed, distance, n_steps, step, heap=True)


@wrong(
    "adversarial_masks",
    "You move one matrix's masks after the other's. In a step all go by the gradient at the same masks.",
)
def one_matrix_at_a_time(forward, weights, components, x, wanted, needed, distance, n_steps=10, step=0.2):
    masks = {name: torch.where(keep, 1.0, 0.5) for name, keep in needed.items()}
    for _ in range(n_steps):
        for name in masks:
            leaf = masks[name].clone().requires_grad_()
            worse = distance(masked_forward(forward, weights, components, x, masks | {name: leaf}), wanted)
            moved = masks[name] + step * torch.autograd.grad(worse, leaf)[0].sign()
            masks[name] = torch.where(needed[name], 1.0, moved.clamp(0, 1))
    return masks


@wrong("adversarial_masks", "You hand the distance its two arguments the wrong way round: the output comes first.")
def wanted_first(forward, weights, components, x, wanted, needed, distance, n_steps=10, step=0.2):
    return ascent(forward, weights, components, x, wanted, needed, distance, n_steps, step, swap=True)


@wrong("adversarial_masks", "You return the worst masks on the way. Those after the last step are asked for.")
def worst_on_the_way(forward, weights, components, x, wanted, needed, distance, n_steps=10, step=0.2):
    seen = [ascent(forward, weights, components, x, wanted, needed, distance, n, step) for n in range(n_steps + 1)]
    return max(seen, key=lambda masks: distance(masked_forward(forward, weights, components, x, masks), wanted).item())


@wrong("adversarial_masks", "Your masks go downhill: they look for what does least, not worst.")
def downhill(forward, weights, components, x, wanted, needed, distance, n_steps=10, step=0.2):
    return ascent(forward, weights, components, x, wanted, needed, distance, n_steps, step, up=-1.0)


@wrong("adversarial_masks", "Your masks leave the range from 0 to 1, where nothing was promised.")
def unbounded(forward, weights, components, x, wanted, needed, distance, n_steps=10, step=0.2):
    return ascent(forward, weights, components, x, wanted, needed, distance, n_steps, step, clamp=False)


@wrong(
    "adversarial_masks",
    "Your masks of needed components move. They stay at 1: only what is unneeded may be set at will.",
)
def all_move(forward, weights, components, x, wanted, needed, distance, n_steps=10, step=0.2):
    return ascent(forward, weights, components, x, wanted, needed, distance, n_steps, step, keep=False)


@wrong(
    "adversarial_masks",
    "You move by the gradient itself. It is tiny for most masks, and a step is to be of the same length for all.",
)
def by_gradient(forward, weights, components, x, wanted, needed, distance, n_steps=10, step=0.2):
    return ascent(forward, weights, components, x, wanted, needed, distance, n_steps, step, sign=False)


@wrong("adversarial_masks", "Your unneeded components start at 0, not in the middle.")
def from_zero(forward, weights, components, x, wanted, needed, distance, n_steps=10, step=0.2):
    return ascent(forward, weights, components, x, wanted, needed, distance, n_steps, step, start=0.0)


@right("adversarial_masks")
def by_backward(forward, weights, components, x, wanted, needed, distance, n_steps=10, step=0.2):
    masks = {name: 0.5 + 0.5 * keep.float() for name, keep in needed.items()}
    for _ in range(n_steps):
        leaves = {name: mask.clone().requires_grad_(True) for name, mask in masks.items()}
        distance(masked_forward(forward, weights, components, x, leaves), wanted).backward()
        for name, leaf in leaves.items():
            moved = torch.clamp(masks[name] + step * torch.sign(leaf.grad), 0.0, 1.0)
            masks[name] = moved.masked_fill(needed[name], 1.0)
    return masks
