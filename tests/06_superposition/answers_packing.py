"""Wrong answers for the bound on overlaps and for optimised directions, each with its sentence, and right ones."""

import math

import torch

from utils.course.catalogue import right, wrong

# welch_bound


def in_range(n, d):
    if n < 2 or d < 1:
        raise ValueError("range")


@wrong("welch_bound", "You return the square. The bound on the cosine is its root.")
def squared(n, d):
    in_range(n, d)
    return max(0, n - d) / (d * (n - 1))


@wrong("welch_bound", "n and n - 1 are mixed up below: d + 1 directions have 1/d, and yours have less.")
def n_below(n, d):
    in_range(n, d)
    return math.sqrt(max(0, n - d) / (d * n))


@wrong(
    "welch_bound", "Yours is what many directions come to, 1 over the root of d. With few of them there is more room."
)
def many(n, d):
    in_range(n, d)
    return 1 / math.sqrt(d) if n > d else 0.0


@wrong(
    "welch_bound",
    "For fewer directions than dimensions your formula goes on where it means nothing. There the bound is 0.",
)
def no_zero(n, d):
    in_range(n, d)
    return math.sqrt(abs(n - d) / (d * (n - 1)))


@wrong("welch_bound", "What is out of range is not refused.")
def refuses_nothing(n, d):
    return math.sqrt(max(0, n - d) / max(1, d * (n - 1)))


@right("welch_bound")
def from_the_frame(n, d):
    """The squares of all cosines add up to at least n² / d, n of them to n."""
    in_range(n, d)
    return math.sqrt(max(0.0, n * n / d - n) / (n * (n - 1)))


@right("welch_bound")
def as_a_tensor(n, d):
    in_range(n, d)
    return torch.tensor((n - d) / d / (n - 1) if n > d else 0.0, dtype=torch.float64).sqrt()


# optimize_packing


def spread(start, n_steps, sharpness, lr, overlaps, *, last=None, normalise=True):
    W = start.detach().clone() / start.norm(dim=-1, keepdim=True)
    W.requires_grad_()
    optimizer = torch.optim.Adam([W], lr=lr)
    different = ~torch.eye(len(W), dtype=torch.bool)
    with torch.enable_grad():
        for _ in range(n_steps):
            directions = W / W.norm(dim=-1, keepdim=True) if normalise else W
            loss = (sharpness * overlaps((directions @ directions.T)[different])).logsumexp(0) / sharpness
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (W / W.norm(dim=-1, keepdim=True)).detach() if last is None else last(W.detach())


@wrong(
    "optimize_packing",
    "`signed` is not heeded: rows that point away from each other are driven apart in either case.",
)
def always_lines(start, n_steps, *, sharpness=30.0, lr=0.02, signed=False):
    return spread(start, n_steps, sharpness, lr, torch.abs)


@wrong(
    "optimize_packing",
    "Without `signed` your rows settle where they point away from each other, which counts as a full overlap there.",
)
def never_lines(start, n_steps, *, sharpness=30.0, lr=0.02, signed=False):
    return spread(start, n_steps, sharpness, lr, lambda cosines: cosines)


@wrong("optimize_packing", "Your rows do not have length 1 in the end.")
def not_normalised(start, n_steps, *, sharpness=30.0, lr=0.02, signed=False):
    found = spread(start, n_steps, sharpness, lr, (lambda c: c) if signed else torch.abs)
    return found * start.norm(dim=-1, keepdim=True)


@wrong("optimize_packing", "After no steps your rows are not those of the start.")
def begins_elsewhere(start, n_steps, *, sharpness=30.0, lr=0.02, signed=False):
    other = torch.randn(start.shape, generator=torch.Generator().manual_seed(12345))
    return spread(other, n_steps, sharpness, lr, (lambda c: c) if signed else torch.abs)


@wrong("optimize_packing", "`sharpness` is not heeded: a soft maximum and a sharp one give the same rows.")
def one_sharpness(start, n_steps, *, sharpness=30.0, lr=0.02, signed=False):
    return spread(start, n_steps, 30.0, lr, (lambda c: c) if signed else torch.abs)


@wrong("optimize_packing", "`lr` is not heeded: two step sizes give the same rows.")
def one_step_size(start, n_steps, *, sharpness=30.0, lr=0.02, signed=False):
    return spread(start, n_steps, sharpness, 0.02, (lambda c: c) if signed else torch.abs)


@wrong(
    "optimize_packing",
    "The overlaps do not become small: your rows gather, or hardly spread. Which way do the steps lead, and is it the "
    "cosines that they change?",
)
def uphill(start, n_steps, *, sharpness=30.0, lr=0.02, signed=False):
    return spread(start, n_steps, -sharpness, lr, (lambda c: -c) if signed else (lambda c: -c.abs()))


@wrong("optimize_packing", "The result carries a graph: whoever computes with it next would go on building it.")
def with_a_graph(start, n_steps, *, sharpness=30.0, lr=0.02, signed=False):
    return spread(start, n_steps, sharpness, lr, (lambda c: c) if signed else torch.abs).requires_grad_()


@wrong(
    "optimize_packing",
    "The steps begin with the rows at their own lengths. The longer a row is, the less a step of the same size turns "
    "it: bring them to length 1 first.",
)
def at_their_own_lengths(start, n_steps, *, sharpness=30.0, lr=0.02, signed=False):
    overlaps = (lambda c: c) if signed else torch.abs
    W, different = start.detach().clone().requires_grad_(), ~torch.eye(len(start), dtype=torch.bool)
    optimizer = torch.optim.Adam([W], lr=lr)
    with torch.enable_grad():
        for _ in range(n_steps):
            directions = W / W.norm(dim=-1, keepdim=True)
            loss = (sharpness * overlaps((directions @ directions.T)[different])).logsumexp(0) / sharpness
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return (W / W.norm(dim=-1, keepdim=True)).detach()


@wrong("optimize_packing", "Your defaults are not those of the stub: a sharpness of 30, and steps of 0.02.")
def other_defaults(start, n_steps, *, sharpness=10.0, lr=0.05, signed=False):
    return spread(start, n_steps, sharpness, lr, (lambda c: c) if signed else torch.abs)


@wrong("optimize_packing", "One step too few is done: after the first one no row has moved.")
def one_step_less(start, n_steps, *, sharpness=30.0, lr=0.02, signed=False):
    return spread(start, max(0, n_steps - 1), sharpness, lr, (lambda c: c) if signed else torch.abs)


@right("optimize_packing")
def by_hand(start, n_steps, *, sharpness=30.0, lr=0.02, signed=False):
    """Adam's rule written out, on the gradient that can be had by hand, along the sphere."""
    W = start / start.norm(dim=-1, keepdim=True)
    m, v = torch.zeros_like(W), torch.zeros_like(W)
    same = torch.eye(len(W), dtype=torch.bool)
    for step in range(1, n_steps + 1):
        cosines = W @ W.T
        overlaps = (cosines if signed else cosines.abs()).masked_fill(same, -torch.inf)
        weights = (sharpness * overlaps).flatten().softmax(0).view_as(cosines)
        grad = 2 * (weights * (1 if signed else cosines.sign())) @ W
        grad = grad - (grad * W).sum(-1, keepdim=True) * W
        m, v = 0.9 * m + 0.1 * grad, 0.999 * v + 0.001 * grad**2
        W = W - lr * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        W = W / W.norm(dim=-1, keepdim=True)
    return W


@right("optimize_packing")
def in_double(start, n_steps, *, sharpness=30.0, lr=0.02, signed=False):
    overlaps = (lambda c: c) if signed else torch.abs
    return spread(start.double(), n_steps, sharpness, lr, overlaps).to(start.dtype)
