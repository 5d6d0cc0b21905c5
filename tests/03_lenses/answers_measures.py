"""Wrong answers for rank, entropy and divergence, each with its sentence, and right ones."""

import math

import torch
import torch.nn.functional as F
from torch.distributions import Categorical, kl_divergence

from utils.course.catalogue import right, wrong

# lens_rank


def target_logits(logits, target):
    if ((target < 0) | (target >= logits.shape[-1])).any():
        raise ValueError("no such token")
    return logits.gather(-1, target.expand(logits.shape[:-1]).unsqueeze(-1))


@wrong(
    "lens_rank",
    "You count the tokens that are at least as high as the target, itself included, so that the top token gets "
    "rank 1. Here rank 0 is the top.",
)
def counted_from_one(logits, target):
    return (logits >= target_logits(logits, target)).sum(-1)


@wrong(
    "lens_rank",
    "Among tokens with the same logit you let the sort decide which comes first. A token that ties with the target is "
    "not above it: count those that are strictly higher.",
)
def place_in_the_sorted_list(logits, target):
    target_logits(logits, target)
    order = logits.argsort(dim=-1, descending=True, stable=True)
    return (order == target.expand(logits.shape[:-1]).unsqueeze(-1)).int().argmax(-1)


@wrong(
    "lens_rank",
    "You count the tokens *below* the target, so that the likeliest token gets the largest number.",
)
def counted_from_the_bottom(logits, target):
    return (logits < target_logits(logits, target)).sum(-1)


@wrong(
    "lens_rank",
    "`argsort` gives, for each place, the token that stands there. You looked up the target in it as if it "
    "gave, for each token, its place. That is the inverse permutation.",
)
def permutation_not_inverted(logits, target):
    target_logits(logits, target)
    order = logits.argsort(dim=-1, descending=True)
    return order.gather(-1, target.expand(logits.shape[:-1]).unsqueeze(-1)).squeeze(-1)


@wrong(
    "lens_rank",
    "An id outside the vocabulary goes through: -1 silently means the last token, or clamping some other one. "
    "The docstring names the error to raise.",
)
def bad_ids_bent(logits, target):
    return (logits > target_logits(logits, target.clamp(0, logits.shape[-1] - 1))).sum(-1)


@wrong(
    "lens_rank",
    "You do not look at the ids. One outside the vocabulary fails with an error of PyTorch's own, deep in `gather`; "
    "the docstring names the error to raise.",
)
def ids_not_looked_at(logits, target):
    return (logits > logits.gather(-1, target.expand(logits.shape[:-1]).unsqueeze(-1))).sum(-1)


@wrong(
    "lens_rank",
    "You divided by the size of the vocabulary. A rank is a count: whether the answer is the second of 666 or "
    "of 50,257 tokens, its rank is 1.",
)
def share_of_the_vocabulary(logits, target):
    return (logits > target_logits(logits, target)).double().mean(-1)


@wrong(
    "lens_rank",
    "You took the softmax before you counted. It keeps the order only until probabilities round to 0: tokens far from "
    "the top then tie, and a target among them comes out too high. Count in the logits.",
)
def counted_in_probabilities(logits, target):
    p = logits.softmax(-1)
    return (p > target_logits(p, target)).sum(-1)


@wrong(
    "lens_rank",
    "You count the tokens that are at least as high as the target and take one off, for the target itself. Those that "
    "tie with it are still counted: a token of the same logit is not above it.",
)
def ties_counted_as_above(logits, target):
    return (logits >= target_logits(logits, target)).sum(-1) - 1


@wrong(
    "lens_rank",
    "Your targets need as many dimensions as the logits have before the tokens. One target for each prompt has to "
    "serve all sites: its shape broadcasts, as the docstring says.",
)
def one_target_for_each_distribution_only(logits, target):
    target_logits(logits, target)
    return (logits > logits.gather(-1, target.unsqueeze(-1))).sum(-1)


@wrong(
    "lens_rank",
    "You return ranks as floating-point numbers. A rank is a count, and an integer.",
)
def as_floats(logits, target):
    return (logits > target_logits(logits, target)).double().sum(-1)


@right("lens_rank")
def by_sorting_twice(logits, target):
    threshold = target_logits(logits, target)
    ascending = logits.sort(-1).values
    return logits.shape[-1] - torch.searchsorted(ascending.contiguous(), threshold.contiguous(), right=True).squeeze(-1)


@right("lens_rank")
def in_a_loop(logits, target):
    target_logits(logits, target)
    flat = logits.reshape(-1, logits.shape[-1])
    ids = target.expand(logits.shape[:-1]).flatten().tolist()
    ranks = [int((row > row[i]).sum()) for row, i in zip(flat, ids, strict=True)]
    return torch.tensor(ranks).reshape(logits.shape[:-1])


# lens_entropy


def widened(logits):
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def surprises(p):
    """-p log p, which is 0 where p is; the gradient stays finite."""
    return -p * torch.where(p > 0, p, 1.0).log()


@wrong(
    "lens_entropy",
    "Your entropy is in bits. The chapter measures in nats, like the loss: which logarithm is that?",
)
def in_bits(logits):
    return surprises(widened(logits).softmax(-1)).sum(-1) / math.log(2)


@wrong(
    "lens_entropy",
    "Your entropies are negative. A probability is below one, and its logarithm below zero: what stands before "
    "the sum?",
)
def sign_forgotten(logits):
    return -surprises(widened(logits).softmax(-1)).sum(-1)


@wrong(
    "lens_entropy",
    "For a token whose probability rounds to 0, log(0) is -inf, and 0 times that is NaN. Take the logarithm in "
    "a way that stays finite, and let impossible tokens contribute nothing.",
)
def logarithm_of_zero(logits):
    p = widened(logits).softmax(-1)
    return -(p * p.log()).sum(-1)


@wrong(
    "lens_entropy",
    "A logit of -inf makes your result NaN: the token's probability is 0, its log-probability -inf, and their "
    "product undefined. The docstring says what such a token contributes.",
)
def forbidden_token_not_handled(logits):
    log_p = widened(logits).log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


@wrong(
    "lens_entropy",
    "You added a small number to the probabilities before the logarithm. That avoids the NaN and changes every "
    "value by a little; it also makes certainty slightly less than certain.",
)
def small_number_added(logits):
    p = widened(logits).softmax(-1)
    return -(p * (p + 1e-6).log()).sum(-1)


@wrong(
    "lens_entropy",
    "You divided by log(d_vocab), so that 1 stands for the uniform distribution. The docstring asks for nats.",
)
def normalised(logits):
    size = logits.shape[-1]
    return surprises(widened(logits).softmax(-1)).sum(-1) / (math.log(size) if size > 1 else 1.0)


@wrong(
    "lens_entropy",
    "You averaged over the vocabulary where the formula sums: the value shrinks with the number of tokens.",
)
def mean_over_tokens(logits):
    return surprises(widened(logits).softmax(-1)).mean(-1)


@wrong(
    "lens_entropy",
    "You cut logits off from below, at -100 or so, to keep infinities out. A softmax sees differences: for a "
    "distribution that lies below your limit altogether, you make all tokens alike.",
)
def cut_off_from_below(logits):
    log_p = widened(logits).clamp(min=-100.0).log_softmax(-1)
    return -(log_p.exp() * log_p).sum(-1)


@wrong(
    "lens_entropy",
    "You subtracted one maximum for all distributions before the exponentials. A distribution that lies far below it "
    "then has exponentials of 0 only: each has to be shifted by its own maximum.",
)
def one_maximum_for_all(logits):
    logits = widened(logits)
    e = (logits - logits.max()).exp()
    return surprises(e / e.sum(-1, keepdim=True)).sum(-1)


@wrong(
    "lens_entropy",
    "You keep probabilities from falling below a small number before you take the logarithm. Tokens below it then get "
    "the wrong logarithm, and where there are many of them, that adds up.",
)
def probabilities_with_a_floor(logits):
    p = widened(logits).softmax(-1)
    return -(p * p.clamp(min=1e-9).log()).sum(-1)


@wrong(
    "lens_entropy",
    "Your softmax runs along the first dimension, and so over sites or prompts. Probabilities are to sum to 1 over the "
    "tokens, which stand last.",
)
def softmax_along_the_first_dimension(logits):
    return surprises(widened(logits).softmax(0)).sum(-1)


@wrong(
    "lens_entropy",
    "Half precision came in, and half precision comes back, whether you compute in it or narrow the result at the end. "
    "A log-probability of -8 has an error of some thousandths there (float16) or hundredths (bfloat16); the docstring "
    "says what dtype the entropy has.",
)
def computed_in_half_precision(logits):
    return surprises(logits.softmax(-1)).sum(-1)


@wrong(
    "lens_entropy",
    "No gradient reaches the logits: your result is cut off from them.",
)
def entropy_without_a_graph(logits):
    return surprises(widened(logits.detach()).softmax(-1)).sum(-1)


@wrong(
    "lens_entropy",
    "Your result is always float32. It should have the dtype of the logits, so that whoever computes in float64 keeps "
    "the digits.",
)
def always_single_precision(logits):
    return surprises(logits.double().softmax(-1)).sum(-1).float()


@wrong(
    "lens_entropy",
    "Your values are right, and the gradient is NaN behind a forbidden token: infinity times 0 comes up on the way "
    "back, also where you (or `entr`) have put a 0 in its place on the way forth. Something finite has to stand "
    "there before the logarithm or the product is taken.",
)
def no_gradient_where_a_probability_is_zero(logits):
    return torch.special.entr(widened(logits).softmax(-1)).sum(-1)


@wrong(
    "lens_entropy",
    "You averaged the logits themselves, each weighted by its probability. The formula has log-probabilities there: "
    "logits have a free constant, which the softmax ignores and your result does not.",
)
def logits_for_log_probabilities(logits):
    logits = widened(logits)
    return -(logits.softmax(-1) * logits).sum(-1)


@right("lens_entropy")
def with_a_safe_logarithm(logits):
    return surprises(widened(logits).softmax(-1)).sum(-1)


@right("lens_entropy")
def with_torchs_categorical(logits):
    return Categorical(logits=widened(logits)).entropy()


@right("lens_entropy")
def with_logsumexp(logits):
    logits = widened(logits)
    logits = logits - logits.amax(-1, keepdim=True)
    p = logits.softmax(-1)
    return logits.logsumexp(-1) - (p * torch.where(logits == -torch.inf, 0.0, logits)).sum(-1)


# lens_kl


def same_size(logits, final_logits):
    """Both widened; two vocabularies of different size are refused."""
    if logits.shape[-1] != final_logits.shape[-1]:
        raise ValueError("two vocabularies")
    return widened(logits), widened(final_logits)


@wrong(
    "lens_kl",
    "Your divergence runs the other way: KL(lens || final). The expectation is taken under the model's final "
    "distribution, which is the one that the lens should predict.",
)
def other_direction(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    log_p, log_q = final_logits.log_softmax(-1), logits.log_softmax(-1)
    return (log_q.exp() * (log_q - log_p)).sum(-1)


@wrong(
    "lens_kl",
    "That is the cross-entropy. It contains the final distribution's own entropy, so that even a perfect lens "
    "would not reach 0.",
)
def cross_entropy(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    return -(final_logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


@wrong(
    "lens_kl",
    "The sign is turned round: a divergence is never negative.",
)
def sign_turned(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    log_p, log_q = final_logits.log_softmax(-1), logits.log_softmax(-1)
    return (log_p.exp() * (log_q - log_p)).sum(-1)


@wrong(
    "lens_kl",
    "You took differences of the raw logits. They have a free constant, which the softmax ignores and your "
    "result does not: use log-probabilities.",
)
def raw_logits(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    return (final_logits.softmax(-1) * (final_logits - logits)).sum(-1)


@wrong(
    "lens_kl",
    "You took logarithms of probabilities. For a token whose probability rounds to 0 that is -inf, and the sum "
    "becomes NaN or infinite. `log_softmax` goes there directly.",
)
def logarithms_of_probabilities(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    p, q = final_logits.softmax(-1), logits.softmax(-1)
    return (p * (p.log() - q.log())).sum(-1)


@wrong(
    "lens_kl",
    "Where one of the lens's probabilities rounds to 0, your divergence is infinite (`kl_divergence` of "
    "torch.distributions sets it so). The logits are finite, and so is the answer: stay with log-probabilities.",
)
def infinite_where_a_probability_rounds_to_zero(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    final, lens = Categorical(logits=final_logits), Categorical(logits=logits)
    return kl_divergence(final, lens)


@wrong(
    "lens_kl",
    "You symmetrised the divergence. The two directions ask different questions; this chapter asks how badly "
    "the lens predicts what the model says.",
)
def symmetrised(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    log_p, log_q = final_logits.log_softmax(-1), logits.log_softmax(-1)
    return 0.5 * ((log_p.exp() - log_q.exp()) * (log_p - log_q)).sum(-1)


@wrong(
    "lens_kl",
    "You averaged over the vocabulary where the formula sums (the default of `F.kl_div` does the like).",
)
def averaged_over_tokens(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    log_p, log_q = final_logits.log_softmax(-1), logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).mean(-1)


@wrong(
    "lens_kl",
    "A lens with one token beside a model with many goes through: it is broadcast. Two vocabularies of different size "
    "are a mistake of the caller's, and the docstring names the error to raise.",
)
def sizes_not_compared(logits, final_logits):
    log_p, log_q = widened(final_logits).log_softmax(-1), widened(logits).log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@wrong(
    "lens_kl",
    "You added a small number to the probabilities before the logarithm. It keeps infinities away and sets a limit of "
    "its own: a token that the lens holds for nearly impossible costs more than that.",
)
def a_small_number_added(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    p, q = final_logits.softmax(-1), logits.softmax(-1)
    return (p * ((p + 1e-12).log() - (q + 1e-12).log())).sum(-1)


@wrong(
    "lens_kl",
    "Half precision came in, and half precision comes back. Log-probabilities have errors of some thousandths there "
    "(float16) or hundredths (bfloat16), and a small divergence is made of differences of two of them; the docstring "
    "says what dtype it has then.",
)
def computed_in_half_precision_too(logits, final_logits):
    same_size(logits, final_logits)
    log_p, log_q = final_logits.log_softmax(-1), logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@wrong(
    "lens_kl",
    "Your divergence is in bits. The chapter measures in nats, like the loss: which logarithm is that?",
)
def divergence_in_bits(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    log_p, log_q = final_logits.log_softmax(-1), logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1) / math.log(2)


@wrong(
    "lens_kl",
    "Your result is always float32, and logits in float64 lose half of their digits. Only half precision is to be "
    "widened.",
)
def divergence_in_single_precision(logits, final_logits):
    same_size(logits, final_logits)
    log_p, log_q = final_logits.float().log_softmax(-1), logits.float().log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@wrong(
    "lens_kl",
    "You gave `F.kl_div` log-probabilities where it takes probabilities: without `log_target=True` its second argument "
    "is p itself, and of what you gave it, it takes the logarithm again.",
)
def log_target_forgotten(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    log_q, log_p = torch.broadcast_tensors(logits.log_softmax(-1), final_logits.log_softmax(-1))
    return F.kl_div(log_q, log_p, reduction="none").sum(-1)


@wrong(
    "lens_kl",
    "No gradient reaches the final logits. The docstring promises them to both.",
)
def final_distribution_detached(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits.detach())
    log_p, log_q = final_logits.log_softmax(-1), logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@wrong(
    "lens_kl",
    "You averaged over the distributions as well, and return one number. One for each is asked for: site by site, "
    "prompt by prompt.",
)
def averaged_over_distributions(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    log_p, log_q = final_logits.log_softmax(-1), logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum(-1).mean()


@wrong(
    "lens_kl",
    "Your softmax runs along the first dimension, and so over sites or prompts. Probabilities are to sum to 1 over the "
    "tokens, which stand last.",
)
def over_the_wrong_dimension(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    log_p, log_q = final_logits.log_softmax(0), logits.log_softmax(0)
    return (log_p.exp() * (log_p - log_q)).sum(-1)


@wrong(
    "lens_kl",
    "You gave `F.kl_div` the reduction 'batchmean': it adds everything up and divides by the size of the first "
    "dimension, whatever that is. One number for each distribution is asked for: sum over the tokens alone.",
)
def divided_by_the_first_dimension(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    log_p, log_q = final_logits.log_softmax(-1), logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).sum() / len(logits)


@wrong(
    "lens_kl",
    "You left `F.kl_div` to its own reduction, a mean over everything, tokens included. The divergence sums over "
    "tokens, and each distribution has its own: `reduction='none'`, and a sum over the last dimension.",
)
def mean_over_everything(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    log_p, log_q = final_logits.log_softmax(-1), logits.log_softmax(-1)
    return (log_p.exp() * (log_p - log_q)).mean()


@wrong(
    "lens_kl",
    "You gave `F.kl_div` the lens's probabilities. Its first argument is to be log-probabilities: what comes out "
    "otherwise is no divergence, and not 0 where the two are equal.",
)
def probabilities_for_their_logarithms(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    q, p = logits.softmax(-1), final_logits.softmax(-1)
    return F.kl_div(q, p.expand_as(q), reduction="none").sum(-1)


@right("lens_kl")
def with_torchs_kl_div(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    shape = torch.broadcast_shapes(logits.shape, final_logits.shape)
    log_p = final_logits.log_softmax(-1).expand(shape)
    return F.kl_div(logits.log_softmax(-1), log_p, reduction="none", log_target=True).sum(-1)


@right("lens_kl")
def cross_entropy_minus_entropy(logits, final_logits):
    logits, final_logits = same_size(logits, final_logits)
    p = final_logits.softmax(-1)
    cross = -(p * logits.log_softmax(-1)).sum(-1)
    return cross + (p * final_logits.log_softmax(-1)).sum(-1)
