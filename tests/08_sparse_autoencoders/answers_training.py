"""Wrong answers for what the training loop is made of, each with its sentence, and right ones."""

import torch

from utils.course.catalogue import right, wrong

# batch_rows


def generator_of(*numbers):
    seed = 0
    for number in numbers:
        seed = (seed * 6_364_136_223 + number + 1_442_695) % 2**62
    return torch.Generator().manual_seed(seed)


def refuse(n_rows, batch_size):
    if batch_size < 1 or batch_size > n_rows:
        raise ValueError("batch_size")


@wrong(
    "batch_rows",
    "The rows of a batch are neighbours in the table, which come from one document: they are not shuffled.",
)
def in_order(step, n_rows, batch_size, seed=0):
    refuse(n_rows, batch_size)
    place = step % (n_rows // batch_size)
    return torch.arange(place * batch_size, (place + 1) * batch_size)


@wrong("batch_rows", "Each round has the same order: the same activations always share a batch.")
def one_order(step, n_rows, batch_size, seed=0):
    refuse(n_rows, batch_size)
    place = step % (n_rows // batch_size)
    return torch.randperm(n_rows, generator=generator_of(seed))[place * batch_size :][:batch_size]


@wrong("batch_rows", "Each step draws rows by itself: within a round some come twice and others not at all.")
def drawn_anew(step, n_rows, batch_size, seed=0):
    refuse(n_rows, batch_size)
    return torch.randperm(n_rows, generator=generator_of(seed, step))[:batch_size]


@wrong(
    "batch_rows",
    "Round and place are exchanged: a round's steps take the same place in several orders, so that rows come twice.",
)
def round_and_place_exchanged(step, n_rows, batch_size, seed=0):
    refuse(n_rows, batch_size)
    per_round = n_rows // batch_size
    place, turn = divmod(step, per_round)
    place %= per_round
    return torch.randperm(n_rows, generator=generator_of(seed, turn))[place * batch_size :][:batch_size]


@wrong(
    "batch_rows",
    "Your order comes from torch's global generator: asked again, a step has other rows, and a run can't be resumed.",
)
def from_the_global(step, n_rows, batch_size, seed=0):
    refuse(n_rows, batch_size)
    place = step % (n_rows // batch_size)
    return torch.randperm(n_rows)[place * batch_size :][:batch_size]


@wrong("batch_rows", "The seed has no say in your order.")
def without_seed(step, n_rows, batch_size, seed=0):
    refuse(n_rows, batch_size)
    turn, place = divmod(step, n_rows // batch_size)
    return torch.randperm(n_rows, generator=generator_of(turn))[place * batch_size :][:batch_size]


@wrong(
    "batch_rows",
    "You add the round to the seed: round 1 of seed 0 has the order of round 0 of seed 1: two seeds share their data.",
)
def seed_plus_round(step, n_rows, batch_size, seed=0):
    refuse(n_rows, batch_size)
    turn, place = divmod(step, n_rows // batch_size)
    return torch.randperm(n_rows, generator=torch.Generator().manual_seed(seed + turn))[place * batch_size :][
        :batch_size
    ]


@wrong("batch_rows", "The last batch of your rounds is shorter than the others.")
def shorter_last(step, n_rows, batch_size, seed=0):
    refuse(n_rows, batch_size)
    turn, place = divmod(step, -(-n_rows // batch_size))
    return torch.randperm(n_rows, generator=generator_of(seed, turn))[place * batch_size :][:batch_size]


@wrong("batch_rows", "A batch larger than the table goes through, or one of no rows.")
def without_validation(step, n_rows, batch_size, seed=0):
    if batch_size < 1 or batch_size > n_rows:
        return torch.arange(n_rows)
    turn, place = divmod(step, n_rows // batch_size)
    return torch.randperm(n_rows, generator=generator_of(seed, turn))[place * batch_size :][:batch_size]


@right("batch_rows")
def by_sorting(step, n_rows, batch_size, seed=0):
    refuse(n_rows, batch_size)
    turn = step // (n_rows // batch_size)
    place = step - turn * (n_rows // batch_size)
    order = torch.rand(n_rows, generator=generator_of(seed, turn), dtype=torch.float64).argsort()
    return order[place * batch_size : (place + 1) * batch_size]


@right("batch_rows")
def as_chunks(step, n_rows, batch_size, seed=0):
    refuse(n_rows, batch_size)
    turn, place = divmod(step, n_rows // batch_size)
    return torch.randperm(n_rows, generator=generator_of(turn, seed)).split(batch_size)[place]


# remove_parallel_gradient


@wrong("remove_parallel_gradient", "You take rows of any length for rows of length 1: divide by the length first.")
def not_unit(gradient, W_dec):
    return gradient - (gradient * W_dec).sum(1, keepdim=True) * W_dec


@wrong("remove_parallel_gradient", "You divide by the length once. The share along the row needs it twice.")
def divided_once(gradient, W_dec):
    return gradient - (gradient * W_dec).sum(1, keepdim=True) * W_dec / W_dec.norm(dim=1, keepdim=True)


@wrong("remove_parallel_gradient", "You return what lies along the row. It is what should be taken out.")
def the_parallel_part(gradient, W_dec):
    unit = W_dec / W_dec.norm(dim=1, keepdim=True)
    return (gradient * unit).sum(1, keepdim=True) * unit


@wrong("remove_parallel_gradient", "You work along columns. A latent's direction is a row.")
def along_columns(gradient, W_dec):
    unit = W_dec / W_dec.norm(dim=0, keepdim=True)
    return gradient - (gradient * unit).sum(0, keepdim=True) * unit


@wrong("remove_parallel_gradient", "Your share is taken along columns. A latent's direction is a row.")
def along_columns_none_of_them_0(gradient, W_dec):
    unit = torch.nn.functional.normalize(W_dec, dim=0)
    return gradient - (gradient * unit).sum(0, keepdim=True) * unit


@wrong("remove_parallel_gradient", "All rows are taken as one long vector. Each row has a length of its own.")
def as_one_vector(gradient, W_dec):
    unit = W_dec / W_dec.norm()
    return gradient - (gradient * unit).sum() * unit


@wrong("remove_parallel_gradient", "You add what lies along the row, in place of taking it out.")
def added(gradient, W_dec):
    unit = W_dec / W_dec.norm(dim=1, keepdim=True)
    return gradient + (gradient * unit).sum(1, keepdim=True) * unit


@right("remove_parallel_gradient")
def by_einsum(gradient, W_dec):
    share = torch.einsum("sd,sd->s", gradient, W_dec) / torch.einsum("sd,sd->s", W_dec, W_dec)
    return gradient - share[:, None] * W_dec


@right("remove_parallel_gradient")
def by_projections(gradient, W_dec):
    eye = torch.eye(W_dec.shape[1], dtype=W_dec.dtype)
    return torch.stack([(eye - torch.outer(w, w) / (w @ w)) @ g for g, w in zip(gradient, W_dec, strict=True)])


# resample_dead_latents


def start_anew(weights, x, error, dead, generator, *, power=2, replacement=False, bias=None, length=None, unit=None):
    W_enc, b_enc, W_dec, b_dec = (w.clone() for w in weights)
    n_dead = int(dead.sum())
    if n_dead == 0:
        return W_enc, b_enc, W_dec
    rows = torch.multinomial(error**power, n_dead, replacement=replacement, generator=generator)
    new = torch.nn.functional.normalize(x[rows] - b_dec, dim=1) if unit is None else unit(x[rows], b_dec)
    W_dec[dead] = new
    W_enc[:, dead] = (0.2 * W_enc[:, ~dead].norm(dim=0).mean() if length is None else length(W_enc, dead)) * new.T
    b_enc[dead] = -b_dec @ W_enc[:, dead] if bias is None else bias
    return W_enc, b_enc, W_dec


@wrong("resample_dead_latents", "You draw in proportion to the error and not to its square.")
def not_squared(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    return start_anew((W_enc, b_enc, W_dec, b_dec), x, error, dead, generator, power=1)


@wrong(
    "resample_dead_latents", "Every activation is drawn with the same probability: explained badly or well, no matter."
)
def all_alike(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    return start_anew((W_enc, b_enc, W_dec, b_dec), x, torch.ones_like(error), dead, generator)


@wrong("resample_dead_latents", "An activation can be drawn twice: two latents would begin as copies of each other.")
def drawn_twice(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    return start_anew((W_enc, b_enc, W_dec, b_dec), x, error, dead, generator, replacement=True)


@wrong(
    "resample_dead_latents",
    "Your new bias is 0, as in the paper, whose encoder reads x - b_dec. Ours reads x, so that b_dec would always be "
    "read along.",
)
def bias_of_0(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    return start_anew((W_enc, b_enc, W_dec, b_dec), x, error, dead, generator, bias=0.0)


@wrong("resample_dead_latents", "Your new directions are those of x. What b_dec gives already needs no latent.")
def direction_of_x(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    return start_anew(
        (W_enc, b_enc, W_dec, b_dec), x, error, dead, generator,
        unit=lambda rows, _: torch.nn.functional.normalize(rows, dim=1),
    )  # fmt: skip


@wrong("resample_dead_latents", "Your new rows of W_dec are not of length 1.")
def of_any_length(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    return start_anew((W_enc, b_enc, W_dec, b_dec), x, error, dead, generator, unit=lambda rows, b: rows - b)


@wrong("resample_dead_latents", "The mean length is taken over all columns of W_enc, the dead ones among them.")
def mean_over_all(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    return start_anew(
        (W_enc * torch.where(dead, 1.0, 1.0), b_enc, W_dec, b_dec), x, error, dead, generator,
        length=lambda W, dead: 0.2 * W.norm(dim=0).mean(),
    )  # fmt: skip


@wrong(
    "resample_dead_latents", "Your new columns of W_enc have length 1. A fifth of the living ones' mean is asked for."
)
def full_length(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    return start_anew((W_enc, b_enc, W_dec, b_dec), x, error, dead, generator, length=lambda W, dead: 1.0)


@wrong("resample_dead_latents", "You always take the worst explained activations. They are to be drawn.")
def the_worst(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    worst = torch.zeros_like(error)
    worst[error.topk(int(dead.sum())).indices] = 1
    return start_anew((W_enc, b_enc, W_dec, b_dec), x, worst, dead, generator)


@wrong("resample_dead_latents", "You draw the worst explained too often: the error is squared, and no more than that.")
def fourth_power(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    return start_anew((W_enc, b_enc, W_dec, b_dec), x, error, dead, generator, power=4)


@wrong(
    "resample_dead_latents",
    "Your new bias is minus the product of b_dec and the new row. The encoder reads with the "
    "new column, which is shorter.",
)
def bias_of_the_row(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    W_enc, b_enc, W_dec = start_anew((W_enc, b_enc, W_dec, b_dec), x, error, dead, generator)[:3]
    return W_enc, torch.where(dead, -(W_dec @ b_dec), b_enc), W_dec


@wrong("resample_dead_latents", "Your new bias has the wrong sign: it adds b_dec's share once more.")
def bias_added(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    W_enc, b_enc, W_dec = start_anew((W_enc, b_enc, W_dec, b_dec), x, error, dead, generator)[:3]
    return W_enc, torch.where(dead, -b_enc, b_enc), W_dec


@wrong("resample_dead_latents", "You start the living latents anew, and leave the dead ones as they are.")
def the_living(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    if not dead.any() or int((~dead).sum()) > len(x):
        return W_enc.clone(), b_enc.clone(), W_dec.clone()
    return start_anew((W_enc, b_enc, W_dec, b_dec), x, error + 1e-6, ~dead, generator)


@wrong("resample_dead_latents", "Your draws do not come from the generator that you are given.")
def seed_of_its_own(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    fresh = torch.Generator()
    fresh.seed()
    return start_anew((W_enc, b_enc, W_dec, b_dec), x, error, dead, fresh)


@right("resample_dead_latents")
def by_a_race(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    """Exponential waiting times: who comes first is drawn in proportion to the rates, without replacement."""
    W_enc, b_enc, W_dec = W_enc.clone(), b_enc.clone(), W_dec.clone()
    waiting = -torch.rand(len(error), generator=generator).clamp(min=1e-12).log() / error**2
    length = 0.2 * sum(W_enc[:, i].norm() for i in range(len(dead)) if not dead[i]) / int((~dead).sum())
    for latent, row in zip(dead.nonzero().flatten().tolist(), waiting.argsort().tolist(), strict=False):
        unit = (x[row] - b_dec) / (x[row] - b_dec).norm()
        W_dec[latent], W_enc[:, latent], b_enc[latent] = unit, length * unit, -length * (b_dec @ unit)
    return W_enc, b_enc, W_dec


@right("resample_dead_latents")
def with_where(W_enc, b_enc, W_dec, b_dec, x, error, dead, generator):
    n_dead = int(dead.sum())
    new = W_dec.clone()
    if n_dead:
        share = error.square() / error.square().sum()
        new[dead] = torch.nn.functional.normalize(
            x[torch.multinomial(share, n_dead, generator=generator)] - b_dec, dim=1
        )
    columns = torch.where(dead, 0.2 * W_enc.norm(dim=0)[~dead].mean() * new.T, W_enc)
    return columns, torch.where(dead, -(columns.T @ b_dec), b_enc), new
