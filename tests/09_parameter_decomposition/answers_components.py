"""Wrong answers for rank-one components, their faithfulness and masked runs, each with its sentence, and right ones."""

import torch
from torch import nn

from utils.course.catalogue import right, wrong


class Base(nn.Module):
    """What the answers share."""

    def __init__(self, d_in, d_out, C, *, generator=None):
        super().__init__()
        self.V = nn.Parameter(torch.randn(d_in, C, generator=generator) / d_in**0.5)
        self.U = nn.Parameter(torch.randn(C, d_out, generator=generator) / C**0.5)

    def weight(self):
        return self.V @ self.U

    def matrices(self):
        return torch.einsum("ic,co->cio", self.V, self.U)

    def forward(self, a, mask=None):
        inner = a @ self.V
        return (inner if mask is None else inner * mask) @ self.U


@wrong("RankOneComponents", "Your mask has no say: with it or without it, all components are there.")
class MaskUnused(Base):
    def forward(self, a, mask=None):
        return a @ self.V @ self.U if mask is None else a @ self.V @ self.U + 0 * mask.sum()


@wrong("RankOneComponents", "Your U is drawn before your V, so that both start elsewhere.")
class DrawnInOtherOrder(Base):
    def __init__(self, d_in, d_out, C, *, generator=None):
        super().__init__(d_in, d_out, C)
        self.U.data = torch.randn(C, d_out, generator=generator) / C**0.5
        self.V.data = torch.randn(d_in, C, generator=generator) / d_in**0.5


@wrong("RankOneComponents", "Your start leaves the scales out: V is divided by sqrt(d_in), U by sqrt(C).")
class Unscaled(Base):
    def __init__(self, d_in, d_out, C, *, generator=None):
        super().__init__(d_in, d_out, C)
        self.V.data = torch.randn(d_in, C, generator=generator)
        self.U.data = torch.randn(C, d_out, generator=generator)


@wrong("RankOneComponents", "Your mask is averaged over the batch. Each example needs components of its own.")
class OneMaskForAll(Base):
    def forward(self, a, mask=None):
        if mask is not None:
            mask = mask.flatten(0, -2).mean(0)
        return super().forward(a, mask)


@wrong("RankOneComponents", "You multiply by the mask twice, so that it counts squared.")
class MaskedTwice(Base):
    def forward(self, a, mask=None):
        return super().forward(a, None if mask is None else mask * mask)


@wrong("RankOneComponents", "A mask that is 0 throughout is taken for none: ask whether it `is None`.")
class ZeroTakenForNone(Base):
    def forward(self, a, mask=None):
        return super().forward(a, mask if mask is not None and mask.any() else None)


@wrong("RankOneComponents", "Your `matrices` are [d_in, d_out, C]: the component comes first.")
class ComponentsLast(Base):
    def matrices(self):
        return torch.einsum("ic,co->ioc", self.V, self.U)


@wrong("RankOneComponents", "Your mask gets no gradient: importances could never be learnt.")
class MaskDetached(Base):
    def forward(self, a, mask=None):
        return super().forward(a, None if mask is None else mask.detach() + 0 * mask)


@wrong("RankOneComponents", "Your `weight` is the mean of the components. The matrix is their sum.")
class MeanOfComponents(Base):
    def weight(self):
        return self.matrices().mean(0) if self.U.shape[0] > 1 else self.V @ self.U


@wrong("RankOneComponents", "Your `weight` is cut off from V and U: no loss on it could train them.")
class WeightDetached(Base):
    def weight(self):
        return (self.V @ self.U).detach() + 0 * self.V.sum()


@right("RankOneComponents")
class WithMatrices(Base):
    def weight(self):
        return self.matrices().sum(0)

    def forward(self, a, mask=None):
        if mask is None:
            return a @ self.weight()
        return torch.einsum("...i,...c,cio->...o", a, mask, self.matrices())


@right("RankOneComponents")
class MaskOfOnes(Base):
    def forward(self, a, mask=None):
        mask = a.new_ones(self.V.shape[1]) if mask is None else mask
        return torch.einsum("...c,co->...o", torch.einsum("...i,ic->...c", a, self.V) * mask, self.U)

    def matrices(self):
        return self.V.T[:, :, None] * self.U[:, None, :]


# faithfulness_loss


@wrong(
    "faithfulness_loss",
    "You average the matrices' means, so that an entry of a small matrix counts more than one of a large one.",
)
def mean_of_means(weights, components):
    return sum((components[n].weight() - W).square().mean() for n, W in weights.items()) / len(weights)


@wrong("faithfulness_loss", "Your loss is a sum over entries, the lecture's form. Here it is their mean.")
def a_sum(weights, components):
    return sum((components[n].weight() - W).square().sum() for n, W in weights.items())


@wrong("faithfulness_loss", "You add up the matrices' means: with more matrices the loss grows.")
def sum_of_means(weights, components):
    return sum((components[n].weight() - W).square().mean() for n, W in weights.items())


@wrong("faithfulness_loss", "You take the size of the error and not its square.")
def root(weights, components):
    total = sum((components[n].weight() - W).square().sum() for n, W in weights.items())
    return (total / sum(W.numel() for W in weights.values()) + 1e-20).sqrt()


@wrong(
    "faithfulness_loss",
    "You compare each component with the whole matrix. It is their sum that has to agree.",
)
def each_with_the_whole(weights, components):
    errors = [(components[n].matrices() - W).square().mean(0).sum() for n, W in weights.items()]
    return sum(errors) / sum(W.numel() for W in weights.values())


@wrong("faithfulness_loss", "Your loss looks at the first matrix alone.")
def first_alone(weights, components):
    name, W = next(iter(weights.items()))
    return (components[name].weight() - W).square().mean()


@wrong("faithfulness_loss", "You compare squared weights: a component of the wrong sign passes.")
def squares_compared(weights, components):
    errors = [(components[n].weight().square() - W.square()).abs().sum() for n, W in weights.items()]
    return sum(errors) / sum(W.numel() for W in weights.values())


@wrong("faithfulness_loss", "You pair matrices and components by their place. They belong together by name.")
def by_place(weights, components):
    errors = [(c.weight() - W).square().sum() for W, c in zip(weights.values(), components.values(), strict=True)]
    return sum(errors) / sum(W.numel() for W in weights.values())


@right("faithfulness_loss")
def all_in_a_row(weights, components):
    errors = torch.cat([(W - components[n].V @ components[n].U).flatten() for n, W in weights.items()])
    return (errors**2).mean()


@right("faithfulness_loss")
def by_matrices(weights, components):
    total, n = 0.0, 0
    for name in weights:
        total = total + torch.linalg.matrix_norm(components[name].matrices().sum(0) - weights[name]) ** 2
        n += weights[name].shape[0] * weights[name].shape[1]
    return total / n


# masked_forward


@wrong(
    "masked_forward",
    "A matrix that has no mask multiplies by its components. It should multiply by its own weights.",
)
def components_without_mask(forward, weights, components, x, masks):
    return forward(x, lambda name, a: components[name](a, masks.get(name)))


@wrong("masked_forward", "Your masks have no say: components are used, and all of them are there.")
def all_components(forward, weights, components, x, masks):
    return forward(
        x, lambda n, a: components[n](a, torch.ones_like(masks[n]) + 0 * masks[n]) if n in masks else a @ weights[n]
    )


@wrong("masked_forward", "You run the network on its own weights throughout; components and masks are not used.")
def own_weights(forward, weights, components, x, masks):
    unused = sum(m.sum() for m in masks.values()) + sum(q.sum() for c in components.values() for q in c.parameters())
    return forward(x, lambda name, a: a @ weights[name]) + 0 * unused


@wrong(
    "masked_forward",
    "Each matrix gets what comes in when the network runs on its own weights. What earlier matrices make of their "
    "masks should reach later ones.",
)
def inputs_of_the_intact_run(forward, weights, components, x, masks):
    seen = {}

    def note(name, a):
        seen[name] = a
        return a @ weights[name]

    forward(x, note)
    return forward(x, lambda n, a: components[n](seen[n], masks[n]) if n in masks else a @ weights[n])


@wrong("masked_forward", "You take away what should stay: your masks are turned round, 1 less the mask.")
def turned_round(forward, weights, components, x, masks):
    return forward(x, lambda n, a: components[n](a, 1 - masks[n]) if n in masks else a @ weights[n])


@wrong("masked_forward", "Your masks get no gradient.")
def masks_detached(forward, weights, components, x, masks):
    return forward(x, lambda n, a: components[n](a, masks[n].detach() + 0 * masks[n]) if n in masks else a @ weights[n])


@wrong("masked_forward", "You add the masked components to the matrix instead of putting them in its place.")
def added(forward, weights, components, x, masks):
    return forward(x, lambda n, a: a @ weights[n] + (components[n](a, masks[n]) if n in masks else 0))


@wrong("masked_forward", "A mask that is 0 throughout is taken for none. Ask whether the matrix is named in `masks`.")
def zero_taken_for_none(forward, weights, components, x, masks):
    named = {n: m for n, m in masks.items() if m.any()}
    return forward(x, lambda n, a: components[n](a, named[n]) if n in named else a @ weights[n])


@right("masked_forward")
def by_hand(forward, weights, components, x, masks):
    def linear(name, a):
        if name not in masks:
            return torch.einsum("...i,io->...o", a, weights[name])
        return torch.einsum("...c,co->...o", (a @ components[name].V) * masks[name], components[name].U)

    return forward(x, linear)


@right("masked_forward")
def difference_to_whole(forward, weights, components, x, masks):
    def linear(name, a):
        mask = masks.get(name)
        if mask is None:
            return a @ weights[name]
        return components[name](a) - components[name](a, 1 - mask)

    return forward(x, linear)
