"""Wrong answers for the variants, each with its sentence, and right ones."""

import math

import torch
from torch import nn

from utils.course.catalogue import right, wrong
from utils.sae.autoencoder import SparseAutoencoder

# topk_activation


def kept(pre, mask):
    return torch.where(mask, pre.relu(), torch.zeros_like(pre))


def largest(score, k):
    """Where each row's k largest are."""
    return torch.zeros_like(score, dtype=torch.bool).scatter(-1, score.topk(k, dim=-1).indices, True)


@wrong(
    "topk_activation", "You keep the k largest even where they are below 0. A latent is on or off, and never negative."
)
def keeps_negative(pre, k):
    return torch.where(largest(pre, k), pre, torch.zeros_like(pre))


@wrong("topk_activation", "You rank by absolute value: a strongly negative entry takes a place and is then cut to 0.")
def by_size(pre, k):
    return kept(pre, largest(pre.abs(), k))


@wrong("topk_activation", "What you keep becomes 1. The entry itself is kept.")
def ones(pre, k):
    return (largest(pre, k) & (pre > 0)).to(pre.dtype) + 0 * pre


@wrong(
    "topk_activation",
    "You keep the k · n largest of the whole batch. Here every row keeps k of its own; the other is BatchTopK.",
)
def over_the_batch(pre, k):
    n = pre[..., 0].numel()
    return kept(pre, largest(pre.flatten(), k * n).view_as(pre))


@wrong("topk_activation", "One fewer than k is kept: the k-th largest stays, too.")
def one_too_few(pre, k):
    return kept(pre, pre > pre.topk(k, dim=-1).values[..., -1:])


@wrong("topk_activation", "One more than k is kept: the k-th largest is the last that stays.")
def one_too_many(pre, k):
    return kept(pre, largest(pre, min(k + 1, pre.shape[-1])))


@wrong("topk_activation", "You return the k values alone. The result has pre's shape, and 0 elsewhere.")
def values_only(pre, k):
    return pre.topk(k, dim=-1).values.relu()


@wrong(
    "topk_activation",
    "Your values are right, but no gradient flows to what is kept: the encoder could not learn.",
)
def cut(pre, k):
    return kept(pre, largest(pre, k)).detach() + 0 * pre


@right("topk_activation")
def by_mask(pre, k):
    return pre.relu() * largest(pre, k)


@right("topk_activation")
def by_kth_value(pre, k):
    smallest = pre.sort(dim=-1, descending=True).values[..., k - 1 : k]
    return torch.where((pre >= smallest) & (pre > 0), pre, torch.zeros_like(pre))


# aux_k_loss


def aux(error, pre, W_dec, dead, k_aux, *, mean=lambda square: square.sum(-1).mean(), relu=True):
    n = min(k_aux, int(dead.sum()))
    if n == 0:
        return torch.zeros(())
    values, places = pre[:, dead].topk(n, dim=-1)
    z = torch.zeros_like(pre[:, dead]).scatter(-1, places, values.relu() if relu else values)
    return mean((z @ W_dec[dead] - error).square())


@wrong(
    "aux_k_loss",
    "The error asks for gradients with you: the living latents are then trained to make it easy to explain.",
)
def error_learns(error, pre, W_dec, dead, k_aux):
    return aux(error, pre, W_dec, dead, k_aux) + 0 * error.sum()


@wrong("aux_k_loss", "You take the k_aux largest of all latents. Only dead ones are to explain what is left.")
def all_latents(error, pre, W_dec, dead, k_aux):
    everyone = torch.ones_like(dead) if dead.any() else dead
    return aux(error.detach(), pre, W_dec, everyone, k_aux)


@wrong(
    "aux_k_loss",
    "You take the k_aux largest of all latents and then drop the living: fewer than k_aux dead ones are left.",
)
def dropped_afterwards(error, pre, W_dec, dead, k_aux):
    z = kept(pre, largest(pre, min(k_aux, pre.shape[-1]))) * dead
    return (z @ W_dec - error.detach()).square().sum(-1).mean() if dead.any() else torch.zeros(())


@wrong("aux_k_loss", "You let the living latents explain what is left. They left it.")
def living_latents(error, pre, W_dec, dead, k_aux):
    return aux(error.detach(), pre, W_dec, ~dead if dead.any() else dead, k_aux)


@wrong("aux_k_loss", "All dead latents take part with you, k_aux or not.")
def all_dead(error, pre, W_dec, dead, k_aux):
    return aux(error.detach(), pre, W_dec, dead, len(dead))


@wrong(
    "aux_k_loss", "Your loss is a mean over dimensions as well. It is a sum over dimensions, and a mean over the batch."
)
def mean_over_dimensions(error, pre, W_dec, dead, k_aux):
    return aux(error.detach(), pre, W_dec, dead, k_aux, mean=torch.mean)


@wrong(
    "aux_k_loss",
    "Where no latent is dead your loss is that of the error itself; it should be 0, as there is nobody to train.",
)
def error_when_none_is_dead(error, pre, W_dec, dead, k_aux):
    return aux(error.detach(), pre, W_dec, dead, k_aux) if dead.any() else error.detach().square().sum(-1).mean()


@wrong("aux_k_loss", "Negative pre-activations of dead latents count with you: cut them at 0.")
def without_relu(error, pre, W_dec, dead, k_aux):
    return aux(error.detach(), pre, W_dec, dead, k_aux, relu=False)


@wrong(
    "aux_k_loss",
    "Your dead latents reconstruct the negative of the error: you add where you should subtract.",
)
def added(error, pre, W_dec, dead, k_aux):
    return aux(-error.detach(), pre, W_dec, dead, k_aux)


@right("aux_k_loss")
def only_the_dead(error, pre, W_dec, dead, k_aux):
    return aux(error.detach(), pre, W_dec, dead, k_aux)


@right("aux_k_loss")
def row_by_row(error, pre, W_dec, dead, k_aux):
    places = dead.nonzero().flatten()
    if len(places) == 0:
        return torch.tensor(0.0)
    total = 0.0
    for e, p in zip(error.detach(), pre, strict=True):
        order = places[p[places].argsort(descending=True)][:k_aux]
        total = total + (e - p[order].clamp(min=0) @ W_dec[order]).pow(2).sum()
    return total / len(error)


# BatchTopKSAE


class Batch(SparseAutoencoder):
    """What the answers share."""

    def __init__(self, d_in, d_sae, k, *, generator=None):
        super().__init__(d_in, d_sae, generator=generator)
        self.register_buffer("threshold", torch.zeros(()))
        self.k = k

    def pre(self, x):
        return torch.relu(x @ self.W_enc + self.b_enc)

    def above(self, pre):
        return pre * (pre > self.threshold)

    def largest(self, pre):
        n = pre[..., 0].numel()
        return pre * largest(pre.flatten(), self.k * n).view_as(pre)

    def encode(self, x):
        pre = self.pre(x)
        return self.above(pre) if self.threshold > 0 else self.largest(pre)


@wrong(
    "BatchTopKSAE",
    "Every activation gets k latents with you: that is TopK. The batch's largest are kept, wherever they are.",
)
class EachItsOwn(Batch):
    def largest(self, pre):
        return pre * largest(pre, self.k)


@wrong("BatchTopKSAE", "You keep k latents for the whole batch, where it should be k for each activation in it: k · n.")
class OnlyK(Batch):
    def largest(self, pre):
        return pre * largest(pre.flatten(), self.k).view_as(pre)


@wrong(
    "BatchTopKSAE", "With more than one batch dimension you count the first only: n is the number of all activations."
)
class FirstDimension(Batch):
    def largest(self, pre):
        n = len(pre)
        return pre * largest(pre.flatten(), self.k * n).view_as(pre)


@wrong(
    "BatchTopKSAE",
    "The threshold is above 0 and not used, in training mode at least: an activation's latents go on depending on its "
    "neighbours in the batch.",
)
class NoThreshold(Batch):
    def above(self, pre):
        return self.largest(pre)


@wrong("BatchTopKSAE", "With a threshold you still cut off at k · n: all that is above it is on, however many.")
class ThresholdAndK(Batch):
    def above(self, pre):
        return self.largest(pre) * (pre > self.threshold)


@wrong(
    "BatchTopKSAE", "You subtract the threshold from what is above it: every latent comes out too small, as with L1."
)
class Shrunk(Batch):
    def above(self, pre):
        return torch.relu(pre - self.threshold)


@wrong("BatchTopKSAE", "Pre-activations below 0 are kept where too few are above.")
class Negative(Batch):
    def pre(self, x):
        return x @ self.W_enc + self.b_enc


@right("BatchTopKSAE")
class ByMask(Batch):
    pass


@right("BatchTopKSAE")
class ByCut(Batch):
    def largest(self, pre):
        n = pre[..., 0].numel()
        cut = pre.detach().flatten().sort(descending=True).values[self.k * n - 1]
        return torch.where(pre >= cut, pre, torch.zeros_like(pre))


# GatedSAE


class Gated(nn.Module):
    """What the answers share."""

    def __init__(self, d_in, d_sae, *, generator=None):
        super().__init__()
        start = SparseAutoencoder(d_in, d_sae, generator=generator)
        self.W_enc, self.W_dec, self.b_dec = start.W_enc, start.W_dec, start.b_dec
        self.b_gate, self.b_mag, self.r_mag = (nn.Parameter(torch.zeros(d_sae)) for _ in range(3))

    def gate(self, x):
        return (x @ self.W_enc + self.b_gate > 0).to(x.dtype)

    def scale(self):
        return self.r_mag.exp()

    def magnitude(self, x):
        return (x @ (self.W_enc * self.scale()) + self.b_mag).relu()

    def forward(self, x):
        z = self.gate(x) * self.magnitude(x)
        return z @ self.W_dec + self.b_dec, z


@wrong("GatedSAE", "Your gate is not a step: what is on is multiplied by the gate's own pre-activation.")
class SoftGate(Gated):
    def gate(self, x):
        return (x @ self.W_enc + self.b_gate).relu()


@wrong("GatedSAE", "The magnitude has no ReLU: an open gate lets negative magnitudes through.")
class NoRelu(Gated):
    def magnitude(self, x):
        return x @ (self.W_enc * self.scale()) + self.b_mag


@wrong("GatedSAE", "r_mag is the logarithm of the scale: multiply by exp(r_mag), not by r_mag itself.")
class NoExp(Gated):
    def scale(self):
        return self.r_mag


@wrong("GatedSAE", "The scale is left out: magnitude and gate have the same slope with you.")
class NoScale(Gated):
    def scale(self):
        return torch.ones_like(self.r_mag) + 0 * self.r_mag


@wrong("GatedSAE", "You add the gate's bias to the magnitude. The magnitude has one of its own, b_mag.")
class OneBias(Gated):
    def magnitude(self, x):
        return (x @ (self.W_enc * self.scale()) + self.b_gate + 0 * self.b_mag).relu()


@wrong(
    "GatedSAE",
    "You scale the magnitude's bias as well: exp(r_mag) multiplies what is read from x, and b_mag comes after it.",
)
class ScaledBias(Gated):
    def magnitude(self, x):
        return (self.scale() * (x @ self.W_enc + self.b_mag)).relu()


@wrong("GatedSAE", "You subtract b_dec from x before the encoder, as the paper does. Here x is read as it is.")
class Centred(Gated):
    def forward(self, x):
        z = self.gate(x - self.b_dec) * self.magnitude(x - self.b_dec)
        return z @ self.W_dec + self.b_dec, z


@wrong("GatedSAE", "The two biases have changed places: b_gate belongs to the gate, b_mag to the magnitude.")
class BiasesSwapped(Gated):
    def gate(self, x):
        return (x @ self.W_enc + self.b_mag > 0).to(x.dtype)

    def magnitude(self, x):
        return (x @ (self.W_enc * self.scale()) + self.b_gate).relu()


@wrong("GatedSAE", "Your gate says nothing: every latent with a magnitude above 0 is on.")
class AlwaysOpen(Gated):
    def gate(self, x):
        return 1.0


@right("GatedSAE")
class TwoPaths(Gated):
    pass


@right("GatedSAE")
class ByWhere(Gated):
    def forward(self, x):
        pi = torch.einsum("...d,ds->...s", x, self.W_enc)
        z = torch.where(pi > -self.b_gate, torch.clamp(torch.exp(self.r_mag) * pi + self.b_mag, min=0), torch.zeros(()))
        return torch.einsum("...s,sd->...d", z, self.W_dec) + self.b_dec, z


# gated_loss


def three(x, x_hat, gate, W_dec, b_dec, price, *, term=1.0):
    by_gate = (x - gate @ W_dec - b_dec).pow(2).sum(-1)
    return ((x - x_hat).pow(2).sum(-1) + price * gate.sum(-1) + term * by_gate).mean()


@wrong(
    "gated_loss",
    "Your decoder is not frozen: the gate's reconstruction trains it, too, and pulls it away from the magnitudes.",
)
def thawed(x, x_hat, pi, W_dec, b_dec, l1_coefficient):
    return three(x, x_hat, pi.relu(), W_dec, b_dec, l1_coefficient)


@wrong("gated_loss", "The rows of W_dec are frozen, but b_dec is not.")
def bias_thawed(x, x_hat, pi, W_dec, b_dec, l1_coefficient):
    return three(x, x_hat, pi.relu(), W_dec.detach(), b_dec, l1_coefficient)


@wrong("gated_loss", "The third term is missing: nothing but the price trains the gate, and it closes.")
def no_third_term(x, x_hat, pi, W_dec, b_dec, l1_coefficient):
    return three(x, x_hat, pi.relu(), W_dec.detach(), b_dec.detach(), l1_coefficient, term=0.0)


@wrong("gated_loss", "You charge for the absolute value of π: a closed gate is free, however far below 0 it lies.")
def absolute(x, x_hat, pi, W_dec, b_dec, l1_coefficient):
    return three(x, x_hat, pi.relu(), W_dec.detach(), b_dec.detach(), l1_coefficient) + l1_coefficient * (
        (-pi).relu().sum(-1).mean()
    )


@wrong(
    "gated_loss", "π goes into the third term without its ReLU: a closed gate would write with the sign turned round."
)
def without_relu_in_third(x, x_hat, pi, W_dec, b_dec, l1_coefficient):
    gate = pi.relu()
    by_gate = (x - pi @ W_dec.detach() - b_dec.detach()).pow(2).sum(-1)
    return ((x - x_hat).pow(2).sum(-1) + l1_coefficient * gate.sum(-1) + by_gate).mean()


@wrong("gated_loss", "b_dec is missing in the gate's reconstruction.")
def no_bias(x, x_hat, pi, W_dec, b_dec, l1_coefficient):
    return three(x, x_hat, pi.relu(), W_dec.detach(), 0.0, l1_coefficient)


@wrong("gated_loss", "Your errors are means over dimensions. They are sums, and only the batch is averaged.")
def means(x, x_hat, pi, W_dec, b_dec, l1_coefficient):
    gate = pi.relu()
    by_gate = (x - gate @ W_dec.detach() - b_dec.detach()).pow(2).mean()
    return (x - x_hat).pow(2).mean() + l1_coefficient * gate.sum(-1).mean() + by_gate


@wrong("gated_loss", "Your price is a mean over latents. It is their sum.")
def price_of_mean(x, x_hat, pi, W_dec, b_dec, l1_coefficient):
    return three(x, x_hat, pi.relu(), W_dec.detach(), b_dec.detach(), 0.0) + l1_coefficient * pi.relu().mean()


@wrong("gated_loss", "The gate is a constant in your third term: what trains it does not reach it.")
def gate_cut(x, x_hat, pi, W_dec, b_dec, l1_coefficient):
    gate = pi.relu()
    by_gate = (x - gate.detach() @ W_dec.detach() - b_dec.detach()).pow(2).sum(-1)
    return ((x - x_hat).pow(2).sum(-1) + l1_coefficient * gate.sum(-1) + by_gate).mean()


@right("gated_loss")
def in_three_terms(x, x_hat, pi, W_dec, b_dec, l1_coefficient):
    return three(x, x_hat, pi.relu(), W_dec.detach(), b_dec.detach(), l1_coefficient)


@right("gated_loss")
def example_by_example(x, x_hat, pi, W_dec, b_dec, l1_coefficient):
    with torch.no_grad():
        W, b = W_dec.clone(), b_dec.clone()
    total = 0.0
    for row, back, gate in zip(x, x_hat, pi.clamp(min=0), strict=True):
        total = total + ((row - back) ** 2).sum() + l1_coefficient * gate.sum() + ((row - gate @ W - b) ** 2).sum()
    return total / len(x)


# JumpReLUSAE


class Jump(SparseAutoencoder):
    """What the answers share: values, and gradients by a function of their own."""

    def __init__(self, d_in, d_sae, *, threshold=0.5, bandwidth=0.5, generator=None):
        super().__init__(d_in, d_sae, generator=generator)
        self.log_threshold = nn.Parameter(torch.full((d_sae,), math.log(threshold)))
        self.bandwidth = bandwidth

    def theta(self):
        return self.log_threshold.exp()

    def on(self, pre, theta):
        return (pre > theta).to(pre.dtype)

    def near(self, pre, theta):
        return ((pre - theta).abs() < self.bandwidth / 2).to(pre.dtype)

    def step_slope(self, pre, theta):
        """The made-up derivative of the step by its threshold."""
        return -self.near(pre, theta) / self.bandwidth

    def slope(self, pre, theta):
        """That of a latent."""
        return theta * self.step_slope(pre, theta)

    def values(self, pre, theta):
        return pre * self.on(pre, theta)

    def moved(self, theta):
        """0, with the threshold's gradient."""
        return theta - theta.detach()

    def step(self, pre):
        pre, theta = pre.detach(), self.theta()
        return self.on(pre, theta.detach()) + self.step_slope(pre, theta).detach() * self.moved(theta)

    def latents(self, pre):
        theta = self.theta()
        return self.values(pre, theta.detach()) + self.slope(pre, theta).detach() * self.moved(theta)

    def jump(self, pre):
        return self.latents(pre), self.step(pre)

    def encode(self, x):
        return self.jump(x @ self.W_enc + self.b_enc)[0]


@wrong(
    "JumpReLUSAE", "The threshold gets no gradient at all: neither from the price nor from what is lost does it learn."
)
class NoGradient(Jump):
    def moved(self, theta):
        return 0 * theta


@wrong(
    "JumpReLUSAE",
    "Through z the threshold gets no gradient: it hears of the price, and nothing of what a latent is worth.",
)
class NoGradientThroughLatents(Jump):
    def slope(self, pre, theta):
        return torch.zeros_like(pre)


@wrong("JumpReLUSAE", "Your steps have no gradient, so a price on them moves no threshold.")
class NoGradientThroughStep(Jump):
    def step_slope(self, pre, theta):
        return torch.zeros_like(pre)

    def slope(self, pre, theta):
        return theta * super().step_slope(pre, theta)


@wrong("JumpReLUSAE", "Your steps have a gradient by p: the price would push pre-activations, not only thresholds.")
class StepMovesP(Jump):
    def step(self, pre):
        return super().step(pre) + self.near(pre, self.theta()).detach() / self.bandwidth * (pre - pre.detach())


@wrong(
    "JumpReLUSAE",
    "In the steps and in z what you add depends on p, too: p gets a gradient from the window, besides its own.",
)
class RampMovesP(StepMovesP):
    def latents(self, pre):
        theta = self.theta().detach()
        by_p = theta * self.near(pre, theta).detach() / self.bandwidth * (pre - pre.detach())
        return super().latents(pre) + by_p


@wrong(
    "JumpReLUSAE",
    "Your steps' gradient has the wrong sign: a price on them lowers the thresholds.",
)
class StepWrongSign(Jump):
    def step_slope(self, pre, theta):
        return -super().step_slope(pre, theta)

    def slope(self, pre, theta):
        return theta * super().step_slope(pre, theta)


@wrong(
    "JumpReLUSAE",
    "By the threshold your z has the gradient of p times the step. The jump is θ high, wherever p lies in the window.",
)
class TimesP(Jump):
    def slope(self, pre, theta):
        return pre * self.step_slope(pre, theta)


@wrong(
    "JumpReLUSAE",
    "You subtract the threshold from what is above it, which shrinks. Beyond the jump the value is p itself.",
)
class Shifted(Jump):
    def values(self, pre, theta):
        return torch.relu(pre - theta)


@wrong(
    "JumpReLUSAE",
    "Your gradient is not divided by the bandwidth: a narrow kernel has to be high, so that its area is 1.",
)
class NotDivided(Jump):
    def step_slope(self, pre, theta):
        return -self.near(pre, theta)


@wrong("JumpReLUSAE", "Your kernel is twice too wide: K(u) is 1 for abs(u) below one half, and u is (p - θ) / ε.")
class TwiceTooWide(Jump):
    def near(self, pre, theta):
        return ((pre - theta).abs() < self.bandwidth).to(pre.dtype)


@wrong("JumpReLUSAE", "Your gradient has the wrong sign: a higher threshold turns latents off.")
class WrongSign(Jump):
    def step_slope(self, pre, theta):
        return -super().step_slope(pre, theta)


@wrong(
    "JumpReLUSAE", "The size of the jump is missing in the gradient of z: what is lost at the threshold is θ, not 1."
)
class WithoutTheta(Jump):
    def slope(self, pre, theta):
        return self.step_slope(pre, theta)


@wrong(
    "JumpReLUSAE",
    "You give log_threshold the gradient by θ. Its own is θ times that, as θ = exp(log_threshold).",
)
class WithoutChainRule(Jump):
    def moved(self, theta):
        return self.log_threshold - self.log_threshold.detach()


@wrong("JumpReLUSAE", "The gradient of z by the threshold is twice what it should be: -θ / ε, within the window.")
class Twice(Jump):
    def slope(self, pre, theta):
        return 2 * super().slope(pre, theta)


@wrong("JumpReLUSAE", "The encoder gets no gradient: where a latent is on, d z / dp is 1.")
class NoGradientThroughP(Jump):
    def values(self, pre, theta):
        return super().values(pre, theta).detach() + 0 * pre


@wrong("JumpReLUSAE", "The parameter is the logarithm of the threshold. You compare with the logarithm itself.")
class LogIsThreshold(Jump):
    def theta(self):
        return self.log_threshold


@wrong("JumpReLUSAE", "What is on becomes 1 with you: that is the step. A latent is p where the step is 1.")
class StepAlone(Jump):
    def values(self, pre, theta):
        return self.on(pre, theta) + 0 * pre


@wrong(
    "JumpReLUSAE",
    "Your values follow the ramp that belongs to the gradient alone: near the threshold latents are half on.",
)
class RampInValues(Jump):
    def on(self, pre, theta):
        return ((pre.detach() - theta) / self.bandwidth + 0.5).clamp(0, 1)


@wrong("JumpReLUSAE", "jump gives the latents first and then the steps. Your pair is the other way round.")
class OtherWayRound(Jump):
    def jump(self, pre):
        return self.step(pre), self.latents(pre)


@right("JumpReLUSAE")
class BySlope(Jump):
    pass


class Step(torch.autograd.Function):
    @staticmethod
    def forward(ctx, pre, theta, bandwidth):
        ctx.save_for_backward(pre, theta)
        ctx.bandwidth = bandwidth
        return pre * (pre > theta)

    @staticmethod
    def backward(ctx, gradient):
        pre, theta = ctx.saved_tensors
        near = ((pre - theta) / ctx.bandwidth).abs() < 0.5
        by_theta = -(theta / ctx.bandwidth) * near * gradient
        return gradient * (pre > theta), by_theta.reshape(-1, len(theta)).sum(0), None


@right("JumpReLUSAE")
class ByAutograd(Jump):
    def latents(self, pre):
        return Step.apply(pre, self.log_threshold.exp(), self.bandwidth)


@right("JumpReLUSAE")
class ByRamp(Jump):
    """The slope of a ramp, and z from the step."""

    def step(self, pre):
        theta = self.theta()
        ramp = ((pre.detach() - theta) / self.bandwidth + 0.5).clamp(0, 1)
        return (pre > theta).to(pre.dtype) + (ramp - ramp.detach())

    def jump(self, pre):
        on = self.step(pre)
        return pre * on.detach() + self.theta().detach() * (on - on.detach()), on


@right("JumpReLUSAE")
class ByProductRule(Jump):
    """A ReLU that begins at the threshold, and a jump of its height."""

    def jump(self, pre):
        theta, on = self.theta(), self.step(pre)
        return theta * on + torch.relu(pre - theta), on


# matryoshka_loss


def left(x, z, W_dec, b_dec):
    return (x - z @ W_dec - b_dec).pow(2).sum(-1).mean()


@wrong(
    "matryoshka_loss",
    "Your prefixes do not overlap: each block reconstructs alone. A prefix holds all latents before it, too.",
)
def blocks(x, z, W_dec, b_dec, widths):
    ends = sorted(widths)
    starts = [0, *ends[:-1]]
    return sum(left(x, z[:, a:b], W_dec[a:b], b_dec) for a, b in zip(starts, ends, strict=True))


@wrong("matryoshka_loss", "You average over prefixes. The paper adds them up.")
def averaged(x, z, W_dec, b_dec, widths):
    return sum(left(x, z[:, :m], W_dec[:m], b_dec) for m in widths) / len(widths)


@wrong("matryoshka_loss", "b_dec is missing where a prefix reconstructs.")
def no_decoder_bias(x, z, W_dec, b_dec, widths):
    return sum(left(x, z[:, :m], W_dec[:m], 0.0) for m in widths)


@wrong(
    "matryoshka_loss",
    "You build up one prefix upon the last, in the order of widths: they may come in any, and then a shorter one adds "
    "nothing and still counts what is beyond it.",
)
def built_up(x, z, W_dec, b_dec, widths):
    x_hat, last, loss = b_dec.expand_as(x), 0, 0.0
    for m in widths:
        x_hat, last = x_hat + z[:, last:m] @ W_dec[last:m], m
        loss = loss + (x - x_hat).square().sum(-1).mean()
    return loss


@wrong("matryoshka_loss", "Only the longest prefix counts with you: an ordinary squared error.")
def longest_only(x, z, W_dec, b_dec, widths):
    m = max(widths)
    return left(x, z[:, :m], W_dec[:m], b_dec)


@wrong(
    "matryoshka_loss", "The whole dictionary counts once more with you, whether or not its width is among the prefixes."
)
def and_all(x, z, W_dec, b_dec, widths):
    return sum(left(x, z[:, :m], W_dec[:m], b_dec) for m in {*widths, len(W_dec)})


@wrong("matryoshka_loss", "A prefix is one latent too long with you: the first m are those numbered 0 to m - 1.")
def one_too_long(x, z, W_dec, b_dec, widths):
    return sum(left(x, z[:, : m + 1], W_dec[: m + 1], b_dec) for m in widths)


@wrong("matryoshka_loss", "Your errors are means over dimensions. They are sums, and only the batch is averaged.")
def mean_over_all(x, z, W_dec, b_dec, widths):
    return sum((x - z[:, :m] @ W_dec[:m] - b_dec).pow(2).mean() for m in widths)


@right("matryoshka_loss")
def one_after_another(x, z, W_dec, b_dec, widths):
    return sum(left(x, z[:, :m], W_dec[:m], b_dec) for m in widths)


@right("matryoshka_loss")
def by_masks(x, z, W_dec, b_dec, widths):
    order = torch.arange(z.shape[1])
    codes = torch.stack([z * (order < m) for m in widths])
    return (x - codes @ W_dec - b_dec).square().sum(dim=(0, 2)).mean()


# SkipTranscoder


class Transcode(nn.Module):
    """What the answers share."""

    def __init__(self, d_in, d_sae, d_out, k, *, skip=True, generator=None):
        super().__init__()
        self.W_enc = nn.Parameter(torch.randn(d_in, d_sae, generator=generator))
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.W_dec = nn.Parameter(torch.randn(d_sae, d_out, generator=generator))
        self.b_dec = nn.Parameter(torch.zeros(d_out))
        self.W_skip = nn.Parameter(torch.zeros(d_out, d_in)) if skip else None
        self.k = k

    def code(self, x):
        pre = x @ self.W_enc + self.b_enc
        return pre.relu() * largest(pre, self.k)

    def skipped(self, x):
        return 0.0 if self.W_skip is None else x @ self.W_skip.T

    def forward(self, x):
        z = self.code(x)
        return z @ self.W_dec + self.b_dec + self.skipped(x), z


@wrong("SkipTranscoder", "The linear path is missing from what is written.")
class NoSkip(Transcode):
    def skipped(self, x):
        return 0.0 if self.W_skip is None else 0 * (x @ self.W_skip.T)


@wrong(
    "SkipTranscoder",
    "Your linear path is the wrong way round: W_skip is [d_out, d_in], so x is multiplied by its transpose.",
)
class Untransposed(Transcode):
    def skipped(self, x):
        if self.W_skip is None:
            return 0.0
        return x @ (self.W_skip if self.W_skip.shape[0] == self.W_skip.shape[1] else self.W_skip.T)


@wrong("SkipTranscoder", "All latents above 0 are on: TopK is missing.")
class OnlyRelu(Transcode):
    def code(self, x):
        return (x @ self.W_enc + self.b_enc).relu()


@wrong("SkipTranscoder", "b_dec is missing from what is written.")
class NoDecoderBias(Transcode):
    def forward(self, x):
        z = self.code(x)
        return z @ self.W_dec + 0 * self.b_dec + self.skipped(x), z


@wrong("SkipTranscoder", "With a linear path b_dec is missing from what is written.")
class NoDecoderBiasBesideSkip(Transcode):
    def forward(self, x):
        z = self.code(x)
        return z @ self.W_dec + (self.b_dec if self.W_skip is None else 0 * self.b_dec + self.skipped(x)), z


@wrong("SkipTranscoder", "b_enc is missing from the pre-activations.")
class NoEncoderBias(Transcode):
    def code(self, x):
        pre = x @ self.W_enc + 0 * self.b_enc
        return pre.relu() * largest(pre, self.k)


@wrong("SkipTranscoder", "Without a skip there is one nevertheless: with skip=False there is no W_skip at all.")
class AlwaysSkip(Transcode):
    def __init__(self, d_in, d_sae, d_out, k, *, skip=True, generator=None):
        super().__init__(d_in, d_sae, d_out, k, skip=True, generator=generator)


@right("SkipTranscoder")
class Plain(Transcode):
    pass


@right("SkipTranscoder")
class ByLinear(Transcode):
    def skipped(self, x):
        return 0.0 if self.W_skip is None else nn.functional.linear(x, self.W_skip)


# head_attribution


def parts(x, W_enc, latent):
    return W_enc[:, latent].view(x.shape[-2], x.shape[-1])


@wrong("head_attribution", "You add up all heads. What each of them gives is asked for.")
def all_heads(x, W_enc, latent):
    return (x * parts(x, W_enc, latent)).sum((-2, -1))


@wrong(
    "head_attribution",
    "Your heads are interleaved in the encoder: its rows are those of head 0, then those of head 1, and so on.",
)
def interleaved(x, W_enc, latent):
    directions = W_enc[:, latent].view(x.shape[-1], x.shape[-2]).T
    return (x * directions).sum(-1)


@wrong("head_attribution", "You take the encoder's row of that number. A latent's direction is a column of W_enc.")
def row(x, W_enc, latent):
    direction = W_enc[latent % len(W_enc)]
    needed = x.shape[-2] * x.shape[-1]
    direction = direction.repeat(needed // len(direction) + 1)[:needed]
    return (x * direction.view(x.shape[-2:])).sum(-1)


@wrong("head_attribution", "A head that lowers the pre-activation counts as raising it: keep the sign.")
def sizes(x, W_enc, latent):
    return (x * parts(x, W_enc, latent)).sum(-1).abs()


@wrong(
    "head_attribution",
    "You cut what is below 0. A head may speak against a latent, and the sum would not be the pre-activation.",
)
def cut_at_zero(x, W_enc, latent):
    return (x * parts(x, W_enc, latent)).sum(-1).relu()


@wrong("head_attribution", "You average over a head's dimensions. Its contribution is their sum.")
def mean_of_head(x, W_enc, latent):
    return (x * parts(x, W_enc, latent)).mean(-1)


@wrong(
    "head_attribution",
    "You divide the encoder's column by its length. The heads' sum would be no pre-activation any more.",
)
def unit_column(x, W_enc, latent):
    return (x * parts(x, W_enc / W_enc.norm(dim=0), latent)).sum(-1)


@wrong("head_attribution", "Yours are shares of the sum. The contributions themselves are asked for.")
def shares(x, W_enc, latent):
    found = (x * parts(x, W_enc, latent)).sum(-1)
    return found / found.sum(-1, keepdim=True)


@right("head_attribution")
def by_einsum(x, W_enc, latent):
    return torch.einsum("...hd,hd->...h", x, parts(x, W_enc, latent))


@right("head_attribution")
def by_silencing(x, W_enc, latent):
    full = x.flatten(-2) @ W_enc[:, latent]
    found = []
    for head in range(x.shape[-2]):
        without = x.clone()
        without[..., head, :] = 0
        found.append(full - without.flatten(-2) @ W_enc[:, latent])
    return torch.stack(found, -1)


# MultiLayerSAE


class Cross(nn.Module):
    """What the answers share."""

    def __init__(self, n_layers, d_in, d_sae, k, *, generator=None):
        super().__init__()
        self.W_dec = nn.Parameter(torch.randn(d_sae, n_layers, d_in, generator=generator))
        self.W_enc = nn.Parameter(torch.randn(n_layers, d_in, d_sae, generator=generator))
        self.b_enc = nn.Parameter(torch.zeros(d_sae))
        self.b_dec = nn.Parameter(torch.zeros(n_layers, d_in))
        self.k = k

    def read(self, x):
        return x.flatten(-2) @ self.W_enc.flatten(0, 1)

    def code(self, x):
        pre = self.read(x) + self.b_enc
        return pre.relu() * largest(pre, self.k)

    def decode(self, z):
        return (z @ self.W_dec.flatten(1)).unflatten(-1, self.b_dec.shape) + self.b_dec

    def forward(self, x):
        z = self.code(x)
        return self.decode(z), z


@wrong("MultiLayerSAE", "You average what the layers say. The crosscoder adds it up.")
class MeanOfLayers(Cross):
    def read(self, x):
        return super().read(x) / x.shape[-2]


@wrong("MultiLayerSAE", "Only the first layer is read. All layers have a say in every latent.")
class FirstLayer(Cross):
    def read(self, x):
        return x[..., 0, :] @ self.W_enc[0] + 0 * super().read(x)


@wrong(
    "MultiLayerSAE", "Each layer has its own code, and you add the codes up. TopK is taken once, of the layers' sum."
)
class CodePerLayer(Cross):
    def code(self, x):
        pre = torch.einsum("...ld,lds->...ls", x, self.W_enc) + self.b_enc
        return (pre.relu() * largest(pre, self.k)).sum(-2)


@wrong("MultiLayerSAE", "The encoder's bias is added once for each layer.")
class BiasPerLayer(Cross):
    def code(self, x):
        pre = self.read(x) + x.shape[-2] * self.b_enc
        return pre.relu() * largest(pre, self.k)


@wrong("MultiLayerSAE", "All layers get the same bias from you: b_dec has one for each.")
class OneBiasForAll(Cross):
    def decode(self, z):
        return super().decode(z) - self.b_dec + self.b_dec[0]


@wrong("MultiLayerSAE", "You add up all layers' b_dec and give every layer the sum.")
class SumOfBiases(Cross):
    def decode(self, z):
        return super().decode(z) - self.b_dec + self.b_dec.sum(0)


@wrong("MultiLayerSAE", "You encode with the decoder's transpose. The two only start alike; W_enc is learnt by itself.")
class Tied(Cross):
    def read(self, x):
        return x.flatten(-2) @ self.W_dec.flatten(1).T + 0 * self.W_enc.sum()


@wrong(
    "MultiLayerSAE",
    "You bring the directions to length 1 in each layer. How long they are says where a latent lives.",
)
class UnitRows(Cross):
    def decode(self, z):
        rows = self.W_dec / self.W_dec.norm(dim=-1, keepdim=True)
        return (z @ rows.flatten(1)).unflatten(-1, self.b_dec.shape) + self.b_dec


@wrong("MultiLayerSAE", "TopK is missing: all latents above 0 are on.")
class ReluOnly(Cross):
    def code(self, x):
        return (self.read(x) + self.b_enc).relu()


@right("MultiLayerSAE")
class SideBySide(Cross):
    pass


@right("MultiLayerSAE")
class LayerByLayer(Cross):
    def read(self, x):
        return sum(x[..., i, :] @ self.W_enc[i] for i in range(x.shape[-2]))

    def decode(self, z):
        return torch.stack([z @ self.W_dec[:, i] + self.b_dec[i] for i in range(len(self.b_dec))], dim=-2)


# pareto_frontier


def frontier(l0, quality, dominates):
    n = len(l0)
    return torch.tensor([not any(dominates(l0[j], quality[j], l0[i], quality[i]) for j in range(n)) for i in range(n)])


@wrong("pareto_frontier", "Equal points throw each other out: one of the two numbers has to be strictly better.")
def without_strictly(l0, quality):
    n = len(l0)
    return torch.tensor(
        [not any(j != i and l0[j] <= l0[i] and quality[j] >= quality[i] for j in range(n)) for i in range(n)]
    )


@wrong(
    "pareto_frontier", "A point goes only if another is better in both numbers. As good with fewer latents is enough."
)
def strictly_in_both(l0, quality):
    return frontier(l0, quality, lambda a, p, b, q: bool(a < b and p > q))


@wrong("pareto_frontier", "For you more latents are better. Fewer are.")
def more_is_better(l0, quality):
    return frontier(l0, quality, lambda a, p, b, q: bool(a >= b and p >= q and (a > b or p > q)))


@wrong("pareto_frontier", "For you a lower quality is better. The larger, the better.")
def less_quality(l0, quality):
    return frontier(l0, quality, lambda a, p, b, q: bool(a <= b and p <= q and (a < b or p < q)))


@wrong(
    "pareto_frontier",
    "Only the best point of all stays. Every point that nobody dominates does, sparse ones of lower quality, too.",
)
def best_only(l0, quality):
    return quality == quality.max()


@wrong("pareto_frontier", "Your answers stand in an order by L0. They are asked for in the order of the points.")
def in_order_of_l0(l0, quality):
    found = frontier(l0, quality, lambda a, p, b, q: bool(a <= b and p >= q and (a < b or p > q)))
    return found[l0.argsort(stable=True)]


@wrong(
    "pareto_frontier",
    "The wrong way round: you mark the points that dominate no other. Asked is which ones no other dominates.",
)
def dominates_none(l0, quality):
    return frontier(l0, quality, lambda a, p, b, q: bool(b <= a and q >= p and (b < a or q > p)))


@wrong(
    "pareto_frontier",
    "You go through the points by L0 and keep each new best, so that of points with the same L0 the order decides, "
    "and of equal points one is left.",
)
def running_best(l0, quality):
    stays, best = torch.zeros(len(l0), dtype=torch.bool), -math.inf
    for i in l0.argsort(stable=True).tolist():
        if quality[i] > best:
            stays[i], best = True, float(quality[i])
    return stays


@wrong("pareto_frontier", "You return the points' numbers. A True or False for each point is asked for.")
def numbers(l0, quality):
    found = frontier(l0, quality, lambda a, p, b, q: bool(a <= b and p >= q and (a < b or p > q)))
    return found.nonzero().flatten()


@right("pareto_frontier")
def pair_by_pair(l0, quality):
    return frontier(l0, quality, lambda a, p, b, q: bool(a <= b and p >= q and (a < b or p > q)))


@right("pareto_frontier")
def by_sorting(l0, quality):
    stays = torch.zeros(len(l0), dtype=torch.bool)
    best = -math.inf
    for value in l0.unique():
        here = l0 == value
        top = quality[here].max()
        if top > best:
            stays |= here & (quality == top)
            best = top
    return stays
