"""Wrong and right answers to the exercises on modules."""

import math

import torch
import torch.nn.functional as F
from torch import nn

from utils.course.catalogue import right, wrong
from utils.transformer.attention import attention_head, multi_head_attention
from utils.transformer.embedding import embed, positional_embed, unembed
from utils.transformer.model import MLP, Attention, LayerNorm, Transformer, TransformerBlock

# --- LayerNorm


@wrong(
    "LayerNorm",
    "You divide the sum of squares by d_model - 1 (Bessel's correction, the default of `var` and `std` "
    "in torch). Nothing is estimated from a sample here: the d_model numbers are all there are.",
)
class BesselLayerNorm(LayerNorm):
    def forward(self, resid):
        variance = resid.var(dim=-1, keepdim=True)
        return (resid - resid.mean(dim=-1, keepdim=True)) / (variance + self.eps).sqrt() * self.w + self.b


@wrong(
    "LayerNorm",
    "eps is added to the standard deviation here. In the formula it stands under the root, with the "
    "variance; for a vector whose numbers hardly vary that makes a large difference.",
)
class EpsOutsideRoot(LayerNorm):
    def forward(self, resid):
        centred = resid - resid.mean(dim=-1, keepdim=True)
        return centred / (centred.pow(2).mean(dim=-1, keepdim=True).sqrt() + self.eps) * self.w + self.b


@wrong(
    "LayerNorm",
    "You divide by `std() + eps`, as a well-known annotated transformer does. That differs from the formula "
    "twice: `std` divides by d_model - 1, and eps stands outside the root.",
)
class SampleDeviationPlusEps(LayerNorm):
    def forward(self, resid):
        centred = resid - resid.mean(dim=-1, keepdim=True)
        return centred / (resid.std(dim=-1, keepdim=True) + self.eps) * self.w + self.b


@wrong(
    "LayerNorm",
    "Your variance is the mean square less the squared mean. For a vector that lies far from 0 these are two large "
    "numbers, and their difference is mostly rounding. Take the mean square of what is left when the mean is off.",
)
class DifferenceOfSquares(LayerNorm):
    def forward(self, resid):
        mean = resid.mean(-1, keepdim=True)
        variance = resid.square().mean(-1, keepdim=True) - mean.square()
        return (resid - mean) / (variance + self.eps).sqrt() * self.w + self.b


@wrong("LayerNorm", "Your eps is 1e-5 whatever the config says. Which field of `cfg` holds it?")
class FixedEps(LayerNorm):
    def forward(self, resid):
        return F.layer_norm(resid, resid.shape[-1:], self.w, self.b, eps=1e-5)


@wrong("LayerNorm", "There is no eps in your root: a vector of equal numbers has variance 0, and 0 / 0 is NaN.")
class NoEps(LayerNorm):
    def forward(self, resid):
        centred = resid - resid.mean(dim=-1, keepdim=True)
        return centred / centred.pow(2).mean(dim=-1, keepdim=True).sqrt() * self.w + self.b


@wrong(
    "LayerNorm",
    "Mean and variance are taken over a whole sequence here. Every position is normalised by itself, "
    "over its d_model numbers; otherwise earlier positions would learn of later ones through the "
    "statistics.",
)
class OverPositionsToo(LayerNorm):
    def forward(self, resid):
        return F.layer_norm(resid, resid.shape[1:], eps=self.eps) * self.w + self.b


@wrong(
    "LayerNorm",
    "Mean and variance are taken over the batch, as batch norm does. One sequence's output must not "
    "depend on its neighbours in the batch: which dimension holds one position's numbers?",
)
class OverBatch(LayerNorm):
    def forward(self, resid):
        centred = resid - resid.mean(dim=0, keepdim=True)
        return centred / (centred.pow(2).mean(dim=0, keepdim=True) + self.eps).sqrt() * self.w + self.b


@wrong(
    "LayerNorm",
    "Mean and variance are taken over all positions of all sequences, as batch norm does. Each position is normalised "
    "by itself, over its d_model numbers.",
)
class OverBatchAndPositions(LayerNorm):
    def forward(self, resid):
        centred = resid - resid.mean(dim=(0, 1))
        return centred / (centred.pow(2).mean(dim=(0, 1)) + self.eps).sqrt() * self.w + self.b


@wrong(
    "LayerNorm",
    "The mean is never subtracted: you divide by the root mean square, which is RMSNorm, a later design. "
    "Adding a constant to all coordinates should leave no trace.",
)
class RootMeanSquare(LayerNorm):
    def forward(self, resid):
        return resid / (resid.pow(2).mean(dim=-1, keepdim=True) + self.eps).sqrt() * self.w + self.b


@wrong("LayerNorm", "The shift b is missing. At the start it is all zeros, so nothing looks wrong before training.")
class NoShift(LayerNorm):
    def forward(self, resid):
        return F.layer_norm(resid, resid.shape[-1:], self.w, eps=self.eps)


@wrong(
    "LayerNorm", "You normalise, but w and b never touch the result, so training could change them without any effect."
)
class NoScaleNorShift(LayerNorm):
    def forward(self, resid):
        return F.layer_norm(resid, resid.shape[-1:], eps=self.eps)


@wrong(
    "LayerNorm",
    "Mean and variance are detached. They are functions of the input, and the "
    "gradient has to flow through them as well.",
)
class DetachedStatistics(LayerNorm):
    def forward(self, resid):
        mean, variance = resid.mean(dim=-1, keepdim=True), resid.var(dim=-1, keepdim=True, unbiased=False)
        return (resid - mean.detach()) / (variance.detach() + self.eps).sqrt() * self.w + self.b


@wrong(
    "LayerNorm",
    "w starts at zero, so at first the layer norm outputs zero for every input, and the block behind it "
    "reads nothing. Which scale leaves a vector as it is?",
)
class ZeroScale(LayerNorm):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.w = nn.Parameter(torch.zeros(cfg.d_model))


@wrong(
    "LayerNorm",
    "w and b are plain tensors or buffers here. An optimiser gets `module.parameters()`, and only "
    "`nn.Parameter`s are in there.",
)
class Buffers(LayerNorm):
    def __init__(self, cfg):
        nn.Module.__init__(self)
        self.eps = cfg.layer_norm_eps
        self.register_buffer("w", torch.ones(cfg.d_model))
        self.register_buffer("b", torch.zeros(cfg.d_model))


@wrong(
    "LayerNorm", "You add b before you multiply by w, so that the scale reaches the shift as well: it is (…) * w + b."
)
class ShiftScaled(LayerNorm):
    def forward(self, resid):
        return (F.layer_norm(resid, resid.shape[-1:], eps=self.eps) + self.b) * self.w


@wrong("LayerNorm", "You divide by the variance. It is the square root of it, the standard deviation.")
class DividedByVariance(LayerNorm):
    def forward(self, resid):
        centred = resid - resid.mean(dim=-1, keepdim=True)
        return centred / (centred.pow(2).mean(dim=-1, keepdim=True) + self.eps) * self.w + self.b


@wrong(
    "LayerNorm",
    "Your variance is the mean of the squares of the vector as it came in. The variance is that of the centred vector.",
)
class UncentredVariance(LayerNorm):
    def forward(self, resid):
        centred = resid - resid.mean(dim=-1, keepdim=True)
        return centred / (resid.pow(2).mean(dim=-1, keepdim=True) + self.eps).sqrt() * self.w + self.b


@wrong("LayerNorm", "The scale w never touches the result.")
class NoScale(LayerNorm):
    def forward(self, resid):
        return F.layer_norm(resid, resid.shape[-1:], eps=self.eps) + self.b


@wrong(
    "LayerNorm",
    "The input is detached: nothing that stands before this layer norm would learn.",
)
class DetachedInput(LayerNorm):
    def forward(self, resid):
        return super().forward(resid.detach())


@wrong(
    "LayerNorm",
    "No gradient reaches w and b, so the two are never trained: you use their `.data`, detach them, or compute under "
    "`torch.no_grad`.",
)
class DetachedParameters(LayerNorm):
    def forward(self, resid):
        return F.layer_norm(resid, resid.shape[-1:], self.w.data, self.b.data, self.eps)


@wrong("LayerNorm", "`resid -= …` changes the caller's tensor, the residual stream itself. Make a new one.")
class InPlaceNorm(LayerNorm):
    def forward(self, resid):
        resid -= resid.mean(dim=-1, keepdim=True)
        return super().forward(resid)


@wrong(
    "LayerNorm",
    "Your parameters belong to an `nn.LayerNorm` inside, so they are called norm.weight and norm.bias. The course's "
    "weights are loaded by the names w and b.",
)
class ModuleInside(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.norm = nn.LayerNorm(cfg.d_model, eps=cfg.layer_norm_eps)

    def forward(self, resid):
        return self.norm(resid)


@wrong(
    "LayerNorm",
    "Mean and variance are taken along the positions, dimension 1. Each position is normalised by itself, over its "
    "d_model numbers, which lie along the last dimension.",
)
class AlongPositions(LayerNorm):
    def forward(self, resid):
        centred = resid - resid.mean(dim=1, keepdim=True)
        return centred / (centred.pow(2).mean(dim=1, keepdim=True) + self.eps).sqrt() * self.w + self.b


@right("LayerNorm")
class CentredByAMatrix(LayerNorm):
    def forward(self, resid):
        d_model = resid.shape[-1]
        centred = resid @ (torch.eye(d_model, dtype=resid.dtype) - 1 / d_model)
        length = (centred.square().sum(-1, keepdim=True) + d_model * self.eps).sqrt()
        return centred * d_model**0.5 / length * self.w + self.b


@right("LayerNorm")
class LibraryLayerNorm(LayerNorm):
    def forward(self, resid):
        return F.layer_norm(resid, (resid.shape[-1],), self.w, self.b, self.eps)


@right("LayerNorm")
class LayerNormByVar(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg = cfg
        self.b = nn.Parameter(torch.zeros(cfg.d_model))
        self.w = nn.Parameter(torch.ones(cfg.d_model))

    def forward(self, x):
        variance, mean = torch.var_mean(x, dim=-1, keepdim=True, correction=0)
        return self.b + self.w * ((x - mean) * torch.rsqrt(variance + self.cfg.layer_norm_eps))


# --- MLP


@wrong(
    "MLP",
    "This is the exact GELU, with the error function. GPT-2 uses an approximation by tanh, and the two "
    "differ in the fourth decimal: `F.gelu` has an argument for it.",
)
class ExactGelu(MLP):
    def forward(self, resid):
        return F.gelu(resid @ self.W_in + self.b_in) @ self.W_out + self.b_out


@wrong("MLP", "Your activation is a ReLU. GPT-2's is the GELU, which is smooth and slightly negative just below zero.")
class ReluMLP(MLP):
    def forward(self, resid):
        return F.relu(resid @ self.W_in + self.b_in) @ self.W_out + self.b_out


@wrong(
    "MLP",
    "There is no activation between the two matrices, so they multiply to a single linear map, whatever d_mlp is.",
)
class LinearMLP(MLP):
    def forward(self, resid):
        return (resid @ self.W_in + self.b_in) @ self.W_out + self.b_out


@wrong("MLP", "b_in is missing: without it no neuron can move its threshold away from zero.")
class NoInputBias(MLP):
    def forward(self, resid):
        return F.gelu(resid @ self.W_in, approximate="tanh") @ self.W_out + self.b_out


@wrong("MLP", "b_out is missing.")
class NoOutputBias(MLP):
    def forward(self, resid):
        return F.gelu(resid @ self.W_in + self.b_in, approximate="tanh") @ self.W_out


@wrong(
    "MLP",
    "You add the input to the result. The MLP returns only what it writes; the block adds it to the "
    "stream, and would add the normalised stream with it.",
)
class ResidualMLP(MLP):
    def forward(self, resid):
        return resid + super().forward(resid)


@wrong(
    "MLP",
    "The activation comes after the second matrix as well. What the MLP writes is W_out's plain output, "
    "so that it can write negative numbers.",
)
class TwoActivations(MLP):
    def forward(self, resid):
        return F.gelu(super().forward(resid), approximate="tanh")


@wrong(
    "MLP", "Your hidden width is 4 * d_model. GPT-2 happens to have that ratio; the config says how wide the MLP is."
)
class FourTimes(MLP):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.W_in = nn.Parameter(0.02 * torch.randn(cfg.d_model, 4 * cfg.d_model))
        self.b_in = nn.Parameter(torch.zeros(4 * cfg.d_model))
        self.W_out = nn.Parameter(0.02 * torch.randn(4 * cfg.d_model, cfg.d_model))


@wrong(
    "MLP",
    "Your matrices are stored as [out, in], as `nn.Linear` stores them. Here a row vector is multiplied "
    "from the left, so W_in is [d_model, d_mlp] and W_out is [d_mlp, d_model].",
)
class LinearLayout(MLP):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.W_in = nn.Parameter(0.02 * torch.randn(cfg.d_mlp, cfg.d_model))
        self.W_out = nn.Parameter(0.02 * torch.randn(cfg.d_model, cfg.d_mlp))

    def forward(self, resid):
        pre = F.linear(resid, self.W_in, self.b_in)
        return F.linear(F.gelu(pre, approximate="tanh"), self.W_out, self.b_out)


@wrong(
    "MLP",
    "Your matrices start with standard deviation 1, fifty times too wide: the first outputs, and the "
    "first steps of training, would be enormous.",
)
class WideStart(MLP):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.W_in = nn.Parameter(torch.randn(cfg.d_model, cfg.d_mlp))
        self.W_out = nn.Parameter(torch.randn(cfg.d_mlp, cfg.d_model))


@wrong(
    "MLP",
    "0.02 is the variance of your matrices; it should be the standard deviation, the number that a standard "
    "normal matrix is multiplied with. As it is, they start seven times too wide.",
)
class VarianceForDeviation(MLP):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.W_in = nn.Parameter(0.02**0.5 * torch.randn(cfg.d_model, cfg.d_mlp))
        self.W_out = nn.Parameter(0.02**0.5 * torch.randn(cfg.d_mlp, cfg.d_model))


@wrong(
    "MLP",
    "Every MLP of yours starts with the same numbers, because the random seed is set anew when one is made. "
    "Seeding is the business of whoever trains.",
)
class SeededStart(MLP):
    def __init__(self, cfg):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            super().__init__(cfg)


@wrong(
    "MLP",
    "Your matrices start at zero. Then all neurons compute the same and get the same gradient (none, in "
    "fact: each matrix's gradient goes through the other), and they stay alike for ever.",
)
class ZeroStart(MLP):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.W_in = nn.Parameter(torch.zeros(cfg.d_model, cfg.d_mlp))
        self.W_out = nn.Parameter(torch.zeros(cfg.d_mlp, cfg.d_model))


@wrong(
    "MLP",
    "The activations are detached (or were made under `torch.no_grad`): W_in "
    "and b_in, and all that stands before this MLP, would never be trained.",
)
class DetachedActivations(MLP):
    def forward(self, resid):
        return F.gelu(resid @ self.W_in + self.b_in, approximate="tanh").detach() @ self.W_out + self.b_out


@wrong(
    "MLP",
    "Your activation is x * sigmoid(1.702 x), a rougher approximation of the GELU. GPT-2's is the one by tanh.",
)
class SigmoidGelu(MLP):
    def forward(self, resid):
        pre = resid @ self.W_in + self.b_in
        return pre * torch.sigmoid(1.702 * pre) @ self.W_out + self.b_out


@wrong("MLP", "Your activation is SiLU, x * sigmoid(x). GPT-2's is the GELU, in its approximation by tanh.")
class SiluMLP(MLP):
    def forward(self, resid):
        return F.silu(resid @ self.W_in + self.b_in) @ self.W_out + self.b_out


@wrong("MLP", "b_in is added after the activation. It moves the threshold of each neuron, so it comes before.")
class InputBiasAfterwards(MLP):
    def forward(self, resid):
        return (F.gelu(resid @ self.W_in, approximate="tanh") + self.b_in) @ self.W_out + self.b_out


@wrong("MLP", "Your biases start with random numbers. They start at zero.")
class RandomBiases(MLP):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.b_in = nn.Parameter(0.02 * torch.randn(cfg.d_mlp))
        self.b_out = nn.Parameter(0.02 * torch.randn(cfg.d_model))


@wrong("MLP", "Your matrices start with `rand`, numbers between 0 and 0.02. A normal start comes from `randn`.")
class UniformStart(MLP):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.W_in = nn.Parameter(0.02 * torch.rand(cfg.d_model, cfg.d_mlp))
        self.W_out = nn.Parameter(0.02 * torch.rand(cfg.d_mlp, cfg.d_model))


@wrong(
    "MLP",
    "Your matrices are `nn.Linear` modules, so their parameters have other names (W_in.weight, W_in.bias) and are "
    "stored as [out, in]. Here there are four `nn.Parameter`s.",
)
class LinearModules(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.W_in, self.W_out = nn.Linear(cfg.d_model, cfg.d_mlp), nn.Linear(cfg.d_mlp, cfg.d_model)

    def forward(self, resid):
        return self.W_out(F.gelu(self.W_in(resid), approximate="tanh"))


@wrong(
    "MLP",
    "Your parameters do not ask for gradients (`requires_grad` is off), so training would leave them as they are.",
)
class FrozenMLP(MLP):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.requires_grad_(False)


@wrong("MLP", "No gradient reaches the parameters: they, or all that is made from them, are cut from the graph.")
class MLPWithoutGraph(MLP):
    def forward(self, resid):
        with torch.no_grad():
            return super().forward(resid)


@wrong("MLP", "The input is detached: nothing that stands before this MLP would learn.")
class DetachedInputMLP(MLP):
    def forward(self, resid):
        return super().forward(resid.detach())


@right("MLP")
class WrittenOutGelu(MLP):
    def forward(self, resid):
        pre = resid @ self.W_in + self.b_in
        post = 0.5 * pre * (1 + torch.tanh(math.sqrt(2 / math.pi) * (pre + 0.044715 * pre**3)))
        return post @ self.W_out + self.b_out


@right("MLP")
class LoopOverPositions(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.b_out = nn.Parameter(torch.zeros(cfg.d_model))
        self.W_out = nn.Parameter(torch.empty(cfg.d_mlp, cfg.d_model).normal_(std=0.02))
        self.b_in = nn.Parameter(torch.zeros(cfg.d_mlp))
        self.W_in = nn.Parameter(torch.empty(cfg.d_model, cfg.d_mlp).normal_(std=0.02))

    def forward(self, resid):
        columns = [F.linear(resid[:, i], self.W_in.T, self.b_in) for i in range(resid.shape[1])]
        return torch.stack([F.linear(nn.GELU("tanh")(c), self.W_out.T, self.b_out) for c in columns], dim=1)


# --- Attention


@wrong(
    "Attention",
    "Queries and keys have changed places: a score now says how well the later position answers what the "
    "earlier one asks. Compare the order of your arguments with the signature of multi_head_attention.",
)
class QueriesForKeys(Attention):
    def forward(self, resid):
        return multi_head_attention(
            resid, self.W_K, self.W_Q, self.W_V, self.W_O, self.b_K, self.b_Q, self.b_V, self.b_O
        )


@wrong(
    "Attention",
    "The key and value weights have changed places: heads compare by what they should move, and move "
    "what they should compare by.",
)
class ValuesForKeys(Attention):
    def forward(self, resid):
        return multi_head_attention(
            resid, self.W_Q, self.W_V, self.W_K, self.W_O, self.b_Q, self.b_V, self.b_K, self.b_O
        )


@wrong(
    "Attention",
    "Your weights are in the right order, but b_Q, b_K and b_V are not: they follow the order of the weights, Q, K, V.",
)
class BiasesOutOfOrder(Attention):
    def forward(self, resid):
        return multi_head_attention(
            resid, self.W_Q, self.W_K, self.W_V, self.W_O, self.b_K, self.b_Q, self.b_V, self.b_O
        )


@wrong(
    "Attention",
    "b_O is never added. It belongs to the layer and not to any head, so a sum over attention_head lacks it.",
)
class NoOutputBiasAttention(Attention):
    def forward(self, resid):
        return multi_head_attention(
            resid, self.W_Q, self.W_K, self.W_V, self.W_O, self.b_Q, self.b_K, self.b_V, torch.zeros_like(self.b_O)
        )


@wrong("Attention", "b_O is added once for each head. It belongs to the layer: heads first, then one b_O.")
class OutputBiasPerHead(Attention):
    def forward(self, resid):
        return super().forward(resid) + (self.W_Q.shape[0] - 1) * self.b_O


@wrong(
    "Attention",
    "You add the input to the result. Attention returns only what it writes; the block adds it to the "
    "stream, and would add the normalised stream with it.",
)
class ResidualAttention(Attention):
    def forward(self, resid):
        return resid + super().forward(resid)


@wrong(
    "Attention",
    "You average the heads. Each head writes into the stream on its own account, and the layer's output is the sum.",
)
class MeanOfHeads(Attention):
    def forward(self, resid):
        return (super().forward(resid) - self.b_O) / self.W_Q.shape[0] + self.b_O


@wrong(
    "Attention",
    "None of the layer's parameters gets a gradient: they, or all that is made from them, are cut from the graph "
    "(`.data`, `.detach()` or `torch.no_grad`), and nothing in this layer would learn.",
)
class DetachedAttention(Attention):
    def forward(self, resid):
        with torch.no_grad():
            return super().forward(resid)


@wrong(
    "Attention",
    "You keep a mask in the state dict: a buffer [n_ctx, n_ctx]. The eight parameters are all that is saved and "
    "loaded; make the mask in `forward`, for the length at hand.",
)
class SavedMask(Attention):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.register_buffer("mask", torch.full((cfg.n_ctx, cfg.n_ctx), -torch.inf).triu(1))


def masked_heads(attention, resid, mask):
    """The layer with a mask of one's own."""
    scores = torch.stack(
        [
            (resid @ Q + q) @ (resid @ K + k).mT / math.sqrt(Q.shape[-1])
            for Q, K, q, k in zip(attention.W_Q, attention.W_K, attention.b_Q, attention.b_K, strict=True)
        ],
        dim=1,
    )
    values = torch.stack([resid @ V + v for V, v in zip(attention.W_V, attention.b_V, strict=True)], dim=1)
    moved = (scores + mask).softmax(dim=-1) @ values
    return torch.einsum("bhqd,hdm->bqm", moved, attention.W_O) + attention.b_O


@wrong(
    "Attention",
    "Your mask is made once, for n_ctx positions, and a longer sequence does not fit it. Attention itself has no "
    "longest sequence: make the mask in `forward`.",
)
class MaskOfTheContext(Attention):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.mask = torch.full((cfg.n_ctx, cfg.n_ctx), -torch.inf).triu(1)

    def forward(self, resid):
        return masked_heads(self, resid, self.mask[: resid.shape[1], : resid.shape[1]])


@wrong("Attention", "No head of yours is masked: all of them see the future.")
class UnmaskedAttention(Attention):
    def forward(self, resid):
        return masked_heads(self, resid, 0.0)


@wrong("Attention", "Only head 0 is computed. The layer writes the sum of all its heads.")
class FirstHeadOnly(Attention):
    def forward(self, resid):
        weights = (self.W_Q, self.W_K, self.W_V, self.W_O, self.b_Q, self.b_K, self.b_V)
        return attention_head(resid, *(weight[0] for weight in weights)) + self.b_O


@wrong("Attention", "b_V and b_K have changed places in your call; biases follow the order of the weights, Q, K, V.")
class KeyAndValueBiasesSwapped(Attention):
    def forward(self, resid):
        return multi_head_attention(
            resid, self.W_Q, self.W_K, self.W_V, self.W_O, self.b_Q, self.b_V, self.b_K, self.b_O
        )


@wrong("Attention", "The query and key weights have changed places, and their biases have not.")
class WeightsOutOfOrder(Attention):
    def forward(self, resid):
        return multi_head_attention(
            resid, self.W_K, self.W_Q, self.W_V, self.W_O, self.b_Q, self.b_K, self.b_V, self.b_O
        )


@wrong("Attention", "You normalise the input. That is the block's business: attention reads what it is given.")
class NormalisingAttention(Attention):
    def forward(self, resid):
        return super().forward(F.layer_norm(resid, resid.shape[-1:]))


@wrong("Attention", "The input is detached: nothing that stands before this layer would learn.")
class DetachedInputAttention(Attention):
    def forward(self, resid):
        return super().forward(resid.detach())


@right("Attention")
class SumOfHeads(Attention):
    def forward(self, resid):
        heads = zip(self.W_Q, self.W_K, self.W_V, self.W_O, self.b_Q, self.b_K, self.b_V, strict=True)
        return self.b_O + sum(attention_head(resid, *weights) for weights in heads)


@right("Attention")
class LibraryAttention(Attention):
    def forward(self, resid):
        q, k, v = (
            torch.einsum("bpm,hmd->bhpd", resid, w) + b[:, None]
            for w, b in ((self.W_Q, self.b_Q), (self.W_K, self.b_K), (self.W_V, self.b_V))
        )
        z = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).flatten(2)
        return z @ self.W_O.flatten(0, 1) + self.b_O


# --- TransformerBlock


class WithMLP(TransformerBlock):
    """Blocks that go wrong in ``both``, where there is an MLP: so a diagnosis also reaches who forgot the others."""

    def forward(self, resid):
        return self.both(resid) if self.has_mlp else super().forward(resid)


@wrong(
    "TransformerBlock",
    "You normalise the sum after each part, as the transformer of 2017 did (post-norm). From GPT-2 on, a "
    "part reads a normalised copy and the stream itself is never normalised inside a block.",
)
class PostNorm(WithMLP):
    def both(self, resid):
        resid = self.ln1(resid + self.attn(resid))
        return self.ln2(resid + self.mlp(resid))


@wrong(
    "TransformerBlock",
    "Your MLP reads the stream as it was before attention wrote to it (parallel layers, as in GPT-J). In "
    "GPT-2 the MLP comes second and sees what the heads have just moved.",
)
class Parallel(WithMLP):
    def both(self, resid):
        return resid + self.attn(self.ln1(resid)) + self.mlp(self.ln2(resid))


@wrong(
    "TransformerBlock",
    "You return what the parts write, not the stream with it: without the sums, the input is lost after "
    "the first block.",
)
class NoStream(WithMLP):
    def both(self, resid):
        return self.mlp(self.ln2(self.attn(self.ln1(resid))))


@wrong(
    "TransformerBlock",
    "What attention wrote reaches the MLP, but not the output: the second sum starts from the block's "
    "input instead of the stream after attention.",
)
class AttentionForgotten(WithMLP):
    def both(self, resid):
        return resid + self.mlp(self.ln2(resid + self.attn(self.ln1(resid))))


@wrong(
    "TransformerBlock",
    "You add the normalised stream where the stream itself belongs. What a part reads is normalised; "
    "what its output is added to is not.",
)
class NormalisedStream(WithMLP):
    def both(self, resid):
        normed = self.ln1(resid)
        resid = normed + self.attn(normed)
        normed = self.ln2(resid)
        return normed + self.mlp(normed)


@wrong(
    "TransformerBlock",
    "ln1 is used in both places and ln2 in none. Each part has a layer norm of its own; as long as all "
    "scales are 1 and all shifts 0, the difference does not show.",
)
class OneNormTwice(WithMLP):
    def both(self, resid):
        resid = resid + self.attn(self.ln1(resid))
        return resid + self.mlp(self.ln1(resid))


@wrong("TransformerBlock", "The MLP reads the raw stream. It has a layer norm of its own, ln2.")
class NoSecondNorm(WithMLP):
    def both(self, resid):
        resid = resid + self.attn(self.ln1(resid))
        return resid + self.mlp(resid)


@wrong(
    "TransformerBlock",
    "The MLP comes before attention here. In GPT-2 it is attention first: move information between "
    "positions, then work on it.",
)
class MLPFirst(WithMLP):
    def both(self, resid):
        resid = resid + self.mlp(self.ln2(resid))
        return resid + self.attn(self.ln1(resid))


@wrong("TransformerBlock", "ln1 and ln2 are the same module, so they have one w and one b between them. Make two.")
class SharedNorm(TransformerBlock):
    def __init__(self, cfg):
        super().__init__(cfg)
        if self.has_mlp:
            self.ln2 = self.ln1


@wrong(
    "TransformerBlock",
    "`resid += …` changes the caller's tensor. Here that is the stream after the block before, which the "
    "caller may still need: make a new tensor, `resid = resid + …`.",
)
class InPlaceBlock(WithMLP):
    def both(self, resid):
        resid += self.attn(self.ln1(resid))
        return resid + self.mlp(self.ln2(resid))


@wrong(
    "TransformerBlock",
    "You carry on with the normalised copy of what attention reads: attention's output is added to ln1 of the stream. "
    "It belongs on the stream itself.",
)
class NormalisedForAttention(WithMLP):
    def both(self, resid):
        normed = self.ln1(resid)
        resid = normed + self.attn(normed)
        return resid + self.mlp(self.ln2(resid))


@wrong(
    "TransformerBlock",
    "You carry on with the normalised copy of what the MLP reads: its output is added to ln2 of the stream. It "
    "belongs on the stream itself.",
)
class NormalisedForMLP(WithMLP):
    def both(self, resid):
        normed = self.ln2(resid + self.attn(self.ln1(resid)))
        return normed + self.mlp(normed)


@wrong("TransformerBlock", "The stream is lost at attention: what goes on to the MLP is attention's output alone.")
class StreamLostAtAttention(WithMLP):
    def both(self, resid):
        resid = self.attn(self.ln1(resid))
        return resid + self.mlp(self.ln2(resid))


@wrong("TransformerBlock", "The stream is lost at the MLP: you return the MLP's output alone.")
class StreamLostAtMLP(WithMLP):
    def both(self, resid):
        return self.mlp(self.ln2(resid + self.attn(self.ln1(resid))))


@wrong("TransformerBlock", "The input is in your sum twice: the stream after attention holds it already.")
class InputAddedTwice(WithMLP):
    def both(self, resid):
        mid = resid + self.attn(self.ln1(resid))
        return resid + mid + self.mlp(self.ln2(mid))


@wrong("TransformerBlock", "Attention reads the raw stream. It has a layer norm of its own, ln1.")
class NoFirstNorm(WithMLP):
    def both(self, resid):
        resid = resid + self.attn(resid)
        return resid + self.mlp(self.ln2(resid))


@wrong("TransformerBlock", "Your layer norms have changed places: attention should read ln1, and the MLP ln2.")
class NormsSwapped(WithMLP):
    def both(self, resid):
        resid = resid + self.attn(self.ln2(resid))
        return resid + self.mlp(self.ln1(resid))


@wrong(
    "TransformerBlock",
    "You normalise what the parts write. It is what they read that is normalised; their output goes to the stream as "
    "it is.",
)
class NormalisedOutputs(WithMLP):
    def both(self, resid):
        resid = resid + self.ln1(self.attn(resid))
        return resid + self.ln2(self.mlp(resid))


@wrong(
    "TransformerBlock", "Your MLP reads attention's output alone. It reads the stream, to which that has been added."
)
class MLPReadsAttention(WithMLP):
    def both(self, resid):
        written = self.attn(self.ln1(resid))
        return resid + written + self.mlp(self.ln2(written))


@wrong("TransformerBlock", "Attention is never called: no position learns anything from another.")
class NoAttention(WithMLP):
    def both(self, resid):
        return resid + self.mlp(self.ln2(resid))


@wrong("TransformerBlock", "The MLP is never called.")
class NoMLP(WithMLP):
    def both(self, resid):
        return resid + self.attn(self.ln1(resid))


@wrong(
    "TransformerBlock",
    "You make ln2 and mlp also where cfg.d_mlp is 0. Such a block is attention alone, and a model of such blocks has "
    "no parameters of these names.",
)
class MLPInEveryBlock(TransformerBlock):
    def __init__(self, cfg):
        super().__init__(cfg)
        if not self.has_mlp:
            self.ln2, self.mlp = LayerNorm(cfg), MLP(cfg)


@right("TransformerBlock")
class NamedSteps(nn.Module):
    def __init__(self, cfg):
        super().__init__()
        self.cfg, self.attn, self.ln1 = cfg, Attention(cfg), LayerNorm(cfg)
        if cfg.d_mlp != 0:
            self.mlp, self.ln2 = MLP(cfg), LayerNorm(cfg)

    def forward(self, x):
        attn_out = self.attn(self.ln1(x))
        if self.cfg.d_mlp == 0:
            return x + attn_out
        mlp_out = self.mlp(self.ln2(x + attn_out))
        return x + attn_out + mlp_out


@right("TransformerBlock")
class CloneThenAdd(TransformerBlock):
    def forward(self, resid):
        stream = resid.clone()
        stream = stream.add(self.attn(self.ln1(stream)))
        return torch.add(stream, self.mlp(self.ln2(stream))) if hasattr(self, "mlp") else stream


# --- Transformer


@wrong(
    "Transformer",
    "All blocks are the same block: `[TransformerBlock(cfg)] * n_layers` repeats one object, and all "
    "layers share its weights. Make a new one for each layer.",
)
class SameBlock(Transformer):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.blocks = nn.ModuleList([TransformerBlock(cfg)] * cfg.n_layers)


@wrong(
    "Transformer",
    "Your blocks are in an ordinary list, which hides them from the module: their weights are in no "
    "state dict and in no optimiser. `nn.ModuleList` registers them.",
)
class PlainList(Transformer):
    def __init__(self, cfg):
        super().__init__(cfg)
        blocks = list(self.blocks)
        del self.blocks
        self.blocks = blocks


@wrong("Transformer", "ln_final is never applied: the unembedding reads the raw stream.")
class NoFinalNorm(Transformer):
    def forward(self, tokens):
        resid = embed(tokens, self.embed["W_E"]) + positional_embed(tokens, self.pos_embed["W_pos"])
        for block in self.blocks:
            resid = block(resid)
        return unembed(resid, self.unembed["W_U"], self.unembed["b_U"])


@wrong(
    "Transformer",
    "The positional embedding is missing: apart from what the mask gives away, the model cannot tell the "
    "order of its tokens.",
)
class NoPositions(Transformer):
    def forward(self, tokens):
        resid = embed(tokens, self.embed["W_E"])
        for block in self.blocks:
            resid = block(resid)
        return unembed(self.ln_final(resid), self.unembed["W_U"], self.unembed["b_U"])


@wrong(
    "Transformer",
    "You multiply the embedding by sqrt(d_model), as the transformer of 2017 does. GPT-2 adds W_E's and "
    "W_pos's rows as they are.",
)
class ScaledEmbedding(Transformer):
    def forward(self, tokens):
        resid = embed(tokens, self.embed["W_E"]) * math.sqrt(self.embed["W_E"].shape[1])
        resid = resid + positional_embed(tokens, self.pos_embed["W_pos"])
        for block in self.blocks:
            resid = block(resid)
        return unembed(self.ln_final(resid), self.unembed["W_U"], self.unembed["b_U"])


@wrong(
    "Transformer",
    "Your logits come from the transpose of W_E. GPT-2 ties the two matrices; this model has an "
    "unembedding of its own, W_U with b_U.",
)
class TiedUnembedding(Transformer):
    def forward(self, tokens):
        resid = embed(tokens, self.embed["W_E"]) + positional_embed(tokens, self.pos_embed["W_pos"])
        for block in self.blocks:
            resid = block(resid)
        return unembed(self.ln_final(resid), self.embed["W_E"].T, self.unembed["b_U"])


@wrong(
    "Transformer",
    "These are log-probabilities. The model returns logits; the loss and the sampler do the softmax, "
    "each in its own way.",
)
class LogProbabilities(Transformer):
    def forward(self, tokens):
        return super().forward(tokens).log_softmax(dim=-1)


@wrong(
    "Transformer",
    "You return the logits of the last position only. Training needs every position's: each one is a "
    "prediction of its next token.",
)
class LastPositionOnly(Transformer):
    def forward(self, tokens):
        return super().forward(tokens)[:, -1]


@wrong(
    "Transformer",
    "A text that is too long is cut to its first n_ctx tokens, and the caller gets fewer rows of logits than "
    "tokens, without a word. There is no position beyond n_ctx: let it be an error.",
)
class CutToContext(Transformer):
    def forward(self, tokens):
        return super().forward(tokens[:, : len(self.pos_embed["W_pos"])])


@wrong("Transformer", "b_U is missing: it is added to the logits of every position.")
class NoUnembeddingBias(Transformer):
    def forward(self, tokens):
        resid = embed(tokens, self.embed["W_E"]) + positional_embed(tokens, self.pos_embed["W_pos"])
        for block in self.blocks:
            resid = block(resid)
        return self.ln_final(resid) @ self.unembed["W_U"]


@wrong("Transformer", "Two blocks are run whatever cfg.n_layers says.")
class TwoLayers(Transformer):
    def forward(self, tokens):
        resid = embed(tokens, self.embed["W_E"]) + positional_embed(tokens, self.pos_embed["W_pos"])
        for block in self.blocks[:2]:
            resid = block(resid)
        return unembed(self.ln_final(resid), self.unembed["W_U"], self.unembed["b_U"])


@wrong(
    "Transformer",
    "Each block's output is added to the stream once more. A block returns the whole stream, its own "
    "input included, so its result replaces the stream.",
)
class StreamAddedTwice(Transformer):
    def forward(self, tokens):
        resid = embed(tokens, self.embed["W_E"]) + positional_embed(tokens, self.pos_embed["W_pos"])
        for block in self.blocks:
            resid = resid + block(resid)
        return unembed(self.ln_final(resid), self.unembed["W_U"], self.unembed["b_U"])


@wrong(
    "Transformer",
    "The stream is detached between blocks: of all blocks and embeddings, the loss would train the last block only.",
)
class DetachedBlocks(Transformer):
    def forward(self, tokens):
        resid = embed(tokens, self.embed["W_E"]) + positional_embed(tokens, self.pos_embed["W_pos"])
        for block in self.blocks:
            resid = block(resid.detach())
        return unembed(self.ln_final(resid), self.unembed["W_U"], self.unembed["b_U"])


class Stages(Transformer):
    """The transformer in replaceable stages."""

    def start(self, tokens):
        return embed(tokens, self.embed["W_E"]) + positional_embed(tokens, self.pos_embed["W_pos"])

    def through(self, resid):
        for block in self.blocks:
            resid = block(resid)
        return resid

    def finish(self, resid):
        return unembed(self.ln_final(resid), self.unembed["W_U"], self.unembed["b_U"])

    def forward(self, tokens):
        return self.finish(self.through(self.start(tokens)))


@wrong("Transformer", "The blocks are run from the last to the first.")
class BlocksReversed(Stages):
    def through(self, resid):
        for block in list(self.blocks)[::-1]:
            resid = block(resid)
        return resid


@wrong("Transformer", "Block 0 is run again and again. Each layer has a block of its own.")
class FirstBlockAgain(Stages):
    def through(self, resid):
        for _ in self.blocks:
            resid = self.blocks[0](resid)
        return resid


@wrong("Transformer", "The last block is left out: a `range` ends before its end.")
class LastBlockMissing(Stages):
    def through(self, resid):
        for block in list(self.blocks)[:-1]:
            resid = block(resid)
        return resid


@wrong("Transformer", "These are probabilities. The model returns logits; the loss and the sampler do the softmax.")
class Probabilities(Stages):
    def finish(self, resid):
        return super().finish(resid).softmax(dim=-1)


@wrong("Transformer", "ln_final is applied after every block. The stream between blocks is never normalised itself.")
class FinalNormEverywhere(Stages):
    def through(self, resid):
        for block in self.blocks:
            resid = self.ln_final(block(resid))
        return resid


@wrong("Transformer", "The positional embedding is added before every block. Once, at the beginning, is enough.")
class PositionsEverywhere(Stages):
    def forward(self, tokens):
        positions = positional_embed(tokens, self.pos_embed["W_pos"])
        resid = embed(tokens, self.embed["W_E"]) + positions
        for i, block in enumerate(self.blocks):
            resid = block(resid + positions if i else resid)
        return self.finish(resid)


@wrong(
    "Transformer",
    "You add all n_ctx rows of W_pos. A text is often shorter: take as many rows as it has tokens.",
)
class AllPositions(Stages):
    def start(self, tokens):
        return embed(tokens, self.embed["W_E"]) + self.pos_embed["W_pos"]


@wrong(
    "Transformer",
    "The embeddings are normalised by ln_final. It stands at the end, before the unembedding, and nowhere else.",
)
class FinalNormFirst(Stages):
    def start(self, tokens):
        return self.ln_final(super().start(tokens))


@wrong("Transformer", "No parameter gets a gradient: they, or all that is made from them, are cut from the graph.")
class WithoutGraph(Stages):
    def forward(self, tokens):
        with torch.no_grad():
            return super().forward(tokens)


@wrong("Transformer", "What the unembedding reads is detached: nothing before it would learn.")
class DetachedBeforeUnembedding(Stages):
    def finish(self, resid):
        return unembed(self.ln_final(resid).detach(), self.unembed["W_U"], self.unembed["b_U"])


@wrong("Transformer", "You make one block more than cfg.n_layers.")
class OneBlockMore(Stages):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.blocks.append(TransformerBlock(cfg))


@wrong(
    "Transformer",
    "ln_final is an `nn.LayerNorm`, whose parameters are called weight and bias. Use the course's `LayerNorm`, with w "
    "and b.",
)
class LibraryFinalNorm(Stages):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.ln_final = nn.LayerNorm(cfg.d_model, eps=cfg.layer_norm_eps)


@right("Transformer")
class IndexedByHand(Transformer):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.blocks = nn.ModuleList()
        for _ in range(cfg.n_layers):
            self.blocks.append(TransformerBlock(cfg))

    def forward(self, tokens):
        x = self.embed.W_E[tokens] + self.pos_embed.W_pos[: tokens.shape[1]]
        for i in range(len(self.blocks)):
            x = self.blocks[i](x)
        return self.ln_final(x) @ self.unembed.W_U + self.unembed.b_U


@right("Transformer")
class SequentialBlocks(Transformer):
    def __init__(self, cfg):
        super().__init__(cfg)
        self.blocks = nn.Sequential(*[TransformerBlock(cfg) for _ in range(cfg.n_layers)])

    def forward(self, tokens):
        resid = F.embedding(tokens, self.embed["W_E"])
        resid = resid + F.embedding(torch.arange(tokens.shape[1]).expand_as(tokens), self.pos_embed["W_pos"])
        return F.linear(self.ln_final(self.blocks(resid)), self.unembed["W_U"].T, self.unembed["b_U"])
