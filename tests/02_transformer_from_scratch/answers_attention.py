"""Wrong answers for attention, each with the sentence for a learner who made the mistake, and right ones."""

import math

import torch
import torch.nn.functional as F
from einops import einsum, rearrange

from utils.course.catalogue import right, wrong
from utils.transformer.attention import (
    attention_head,
    attention_pattern,
    attention_scores,
    causal_mask,
    multi_head_attention,
    ov_circuit,
    qk_circuit,
    softmax_rows,
)

# causal_mask


@wrong(
    "causal_mask",
    "Your mask opens the future and closes the past: the zeros are on and above the diagonal, as the "
    "lecture slide prints it. Read M[i, j] as 'row i looks at column j': which j may i see?",
)
def as_the_slide_prints_it(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("n_ctx must be at least 1")
    return torch.full((n_ctx, n_ctx), -torch.inf, device=device).tril(-1)


@wrong(
    "causal_mask",
    "In your mask a position cannot see itself. The first row is -inf from end to end, so that its "
    "softmax has nothing to share out and becomes NaN. What does the diagonal stand for?",
)
def not_even_myself(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("n_ctx must be at least 1")
    return torch.full((n_ctx, n_ctx), -torch.inf, device=device).triu(0)


@wrong(
    "causal_mask",
    "Ones and zeros (or True and False) are a mask to multiply or to select with. This one is added to "
    "scores, and adding 1 to some and 0 to the others forbids nothing. What do you add to a number to "
    "leave it as it is?",
)
def mask_to_multiply_with(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("n_ctx must be at least 1")
    return torch.ones(n_ctx, n_ctx, device=device).tril()


@wrong(
    "causal_mask",
    "Your forbidden entries are -10,000, and that is not low enough: a score of 10,100 in the future "
    "still beats a score of 0 in the past. Which number can no score outweigh?",
)
def minus_ten_thousand(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("n_ctx must be at least 1")
    return torch.full((n_ctx, n_ctx), -1e4, device=device).triu(diagonal=1)


@wrong(
    "causal_mask",
    "Your forbidden entries are -1,000,000,000. Much code does this and mostly gets away with it, but a "
    "row whose every entry is forbidden then looks like any other row, and a large enough score outweighs "
    "it. The docstring asks for the one number that cannot be outweighed.",
)
def minus_a_billion(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("n_ctx must be at least 1")
    return torch.full((n_ctx, n_ctx), -1e9, device=device).triu(diagonal=1)


@wrong(
    "causal_mask",
    "You multiplied a 0/1 matrix by -inf, and 0 times infinity is not 0 but NaN: every allowed entry is "
    "lost. Choose between two values instead of multiplying by one.",
)
def zero_times_infinity(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("n_ctx must be at least 1")
    return torch.ones(n_ctx, n_ctx, device=device).triu(1) * -torch.inf


@wrong(
    "causal_mask",
    "Your mask is cut out of one of fixed size, so that a longer text gets a mask that is too small. Make "
    "it from n_ctx.",
)
def cut_from_a_fixed_one(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("n_ctx must be at least 1")
    return torch.full((128, 128), -torch.inf, device=device).triu(1)[:n_ctx, :n_ctx]


@wrong(
    "causal_mask",
    "Your mask always lies in the computer's main memory. Added to scores on a GPU it raises an error; "
    "the argument `device` says where it has to be.",
)
def always_on_the_cpu(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("n_ctx must be at least 1")
    return torch.full((n_ctx, n_ctx), -torch.inf).triu(1)


@wrong(
    "causal_mask",
    "Your mask is right for every sensible n_ctx, but 0 gives an empty mask that only causes trouble much "
    "later. The docstring says which sizes to refuse, and with which error.",
)
def nothing_refused(n_ctx, *, device="cpu"):
    return torch.full((n_ctx, n_ctx), -torch.inf, device=device).triu(1)


@wrong(
    "causal_mask",
    "Your forbidden entries are the lowest finite number. Added to a score it can round to -inf or not, and a row "
    "whose every entry has it looks like any other row. -inf is the number that nothing outweighs.",
)
def lowest_finite_number(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("n_ctx must be at least 1")
    return torch.full((n_ctx, n_ctx), torch.finfo(torch.float32).min, device=device).triu(diagonal=1)


@wrong("causal_mask", "Your forbidden entries are +inf. Added to scores they win instead of losing.")
def plus_infinity(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("n_ctx must be at least 1")
    return torch.full((n_ctx, n_ctx), torch.inf, device=device).triu(diagonal=1)


@wrong(
    "causal_mask",
    "In your mask each position also sees the one after it, which is just what it is asked for. The zeros end on the "
    "diagonal.",
)
def one_step_ahead(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("n_ctx must be at least 1")
    return torch.full((n_ctx, n_ctx), -torch.inf, device=device).triu(diagonal=2)


@wrong("causal_mask", "Your mask has further dimensions in front. It is [n_ctx, n_ctx]; batches come by broadcasting.")
def with_a_batch(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("n_ctx must be at least 1")
    return torch.full((1, 1, n_ctx, n_ctx), -torch.inf, device=device).triu(diagonal=1)


@wrong("causal_mask", "You refuse a single position, which is allowed: its mask is one zero.")
def refuses_one(n_ctx, *, device="cpu"):
    if n_ctx < 2:
        raise ValueError("too few positions")
    return torch.full((n_ctx, n_ctx), -torch.inf, device=device).triu(diagonal=1)


@wrong("causal_mask", "Bad sizes are refused with an AssertionError. The docstring promises a ValueError.")
def refused_by_assert(n_ctx, *, device="cpu"):
    assert n_ctx >= 1
    return torch.full((n_ctx, n_ctx), -torch.inf, device=device).triu(diagonal=1)


@wrong(
    "causal_mask",
    "Your mask is True (or 1) where the future lies, as `masked_fill` wants it. This one is added to scores: 0 where a "
    "position may look, and -inf where it may not.",
)
def true_where_the_future_lies(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("no positions")
    return torch.ones(n_ctx, n_ctx, dtype=torch.bool, device=device).triu(diagonal=1)


@right("causal_mask")
def double_loop(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("no positions")
    rows = [[0.0 if j <= i else float("-inf") for j in range(n_ctx)] for i in range(n_ctx)]
    return torch.tensor(rows, device=device)


@right("causal_mask")
def comparison_in_float64(n_ctx, *, device="cpu"):
    if n_ctx <= 0:
        raise ValueError("no positions")
    positions = torch.arange(n_ctx, device=device)
    zero = torch.zeros((), dtype=torch.float64, device=device)
    return torch.where(positions[:, None] >= positions, zero, -torch.inf)


@right("causal_mask")
def filled_where_future(n_ctx, *, device="cpu"):
    if n_ctx < 1:
        raise ValueError("no positions")
    mask = torch.zeros(n_ctx, n_ctx, device=device)
    mask[torch.ones(n_ctx, n_ctx, dtype=torch.bool, device=device).triu(1)] = -torch.inf
    return mask


# softmax_rows


@wrong(
    "softmax_rows",
    "Your formula is right on paper, but exp(10000) is too large for a float and exp(-10000) too small: "
    "inf / inf and 0 / 0 are NaN. The weights stay the same when a number is added to a whole row. Which "
    "number makes every exponent harmless?",
)
def overflowing(scores):
    return scores.exp() / scores.exp().sum(dim=-1, keepdim=True)


@wrong(
    "softmax_rows",
    "Your columns sum to one, and the rows do not: you normalise over the queries. Each query shares its "
    "attention out over the keys, which lie along the last dimension.",
)
def over_the_queries(scores):
    return torch.softmax(scores, dim=-2)


@wrong(
    "softmax_rows",
    "Each row is shifted by its own maximum, and then divided by the sums of the columns (dimension -2). A weight is a "
    "share of its row's total: both go along the last dimension.",
)
def divided_by_the_columns_sums(scores):
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    return weights / weights.sum(dim=-2, keepdim=True)


@wrong(
    "softmax_rows",
    "Your exponentials are divided by the sums of their columns (dimension -2), though each was shifted by its row's "
    "maximum, a constant here. Sum over the last dimension, along which a row is shared out.",
)
def divided_by_the_columns_sums_with_a_constant_shift(scores):
    weights = (scores - scores.detach().amax(dim=-1, keepdim=True)).exp()
    return weights / weights.sum(dim=-2, keepdim=True)


@wrong(
    "softmax_rows",
    "You normalise over dimension 1. For a single matrix that is the last one, but with a batch in front "
    "it is another. Count the dimension from the end.",
)
def over_dimension_one(scores):
    return torch.softmax(scores, dim=1)


@wrong(
    "softmax_rows",
    "All of your weights together sum to one, instead of each row's. Sum over the last dimension alone, "
    "and keep it so that the division lines up.",
)
def over_everything(scores):
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    return weights / weights.sum()


@wrong(
    "softmax_rows",
    "You subtract one maximum, that of a whole tensor or matrix, from many rows. A row that lies far below "
    "it is then pushed out of range altogether, and its weights become 0 / 0. Which maximum belongs to a row?",
)
def one_shift_for_all(scores):
    weights = (scores - scores.max()).exp()
    return weights / weights.sum(dim=-1, keepdim=True)


@wrong(
    "softmax_rows",
    "You clip large scores before the exponential. No overflow, but all scores above the limit now count "
    "the same, and very low rows still become 0 / 0. A shift of the whole row changes nothing; a clip "
    "does.",
)
def clipped(scores):
    weights = scores.clamp(max=80.0).exp()
    return weights / weights.sum(dim=-1, keepdim=True)


@wrong(
    "softmax_rows",
    "You shift each row by its mean. One score that lies far above the others is then still far above 0, and its "
    "exponential overflows. After which shift is no exponent above 0?",
)
def shifted_by_the_finite_mean(scores):
    weights = (scores - scores.masked_fill(scores == -torch.inf, 0).mean(-1, keepdim=True)).exp()
    return weights / weights.sum(dim=-1, keepdim=True)


@wrong(
    "softmax_rows",
    "You treat a score of exactly 0 as if it were masked. Zero is a score like any other (and a better "
    "one than any negative score); what is masked arrives here as -inf.",
)
def zero_means_masked(scores):
    return torch.softmax(scores.masked_fill(scores == 0, -torch.inf), dim=-1)


@wrong(
    "softmax_rows",
    "You replace NaN by zero. A row with nothing allowed has no answer, and a row of zeros that passes as "
    "attention hides the mistake which made it; the docstring wants the NaN to show.",
)
def nan_swept_away(scores):
    return torch.softmax(scores, dim=-1).nan_to_num(0.0)


@wrong(
    "softmax_rows",
    "The sum that you divide by is cut out of the gradient, so that training "
    "would push every weight up as though the others did not have to come down.",
)
def detached_sum(scores):
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    return weights / weights.sum(dim=-1, keepdim=True).detach()


@wrong(
    "softmax_rows",
    "You compute in float32 and hand float32 back, also where float64 came in. Let the dtype follow the scores.",
)
def always_float32(scores):
    return torch.softmax(scores.float(), dim=-1)


@wrong(
    "softmax_rows",
    "You compute in float64, which is careful, and hand float64 back, also where float32 came in: the next "
    "product with float32 values is an error. Return the dtype of the scores.",
)
def always_float64(scores):
    return torch.softmax(scores.double(), dim=-1)


@wrong("softmax_rows", "You return logarithms of the weights. Take the exponential: weights are between 0 and 1.")
def logarithms_of_weights(scores):
    return torch.log_softmax(scores, dim=-1)


@wrong(
    "softmax_rows",
    "You normalise over the first dimension. The weights are shared out along the last one.",
)
def over_the_first_dimension(scores):
    return torch.softmax(scores, dim=0)


@wrong(
    "softmax_rows",
    "You shift each row by its lowest score, so the exponents are not below 0 but above it, and a row with a masked "
    "entry becomes NaN. The highest score makes them harmless.",
)
def shifted_by_the_lowest(scores):
    weights = (scores - scores.amin(dim=-1, keepdim=True)).exp()
    return weights / weights.sum(dim=-1, keepdim=True)


@wrong(
    "softmax_rows",
    "You shift each row by its mean, and with one masked entry the mean is -inf and the row NaN. Shift by the highest "
    "score.",
)
def shifted_by_the_mean(scores):
    weights = (scores - scores.mean(dim=-1, keepdim=True)).exp()
    return weights / weights.sum(dim=-1, keepdim=True)


@wrong("softmax_rows", "Your powers are those of 2. The softmax takes powers of e.")
def powers_of_two(scores):
    weights = 2.0 ** (scores - scores.amax(dim=-1, keepdim=True))
    return weights / weights.sum(dim=-1, keepdim=True)


@wrong(
    "softmax_rows",
    "You add a small number to the sum that you divide by. The sum is at least 1 once the highest score is "
    "subtracted, so it protects from nothing, and rows no longer sum to one in float64.",
)
def guarded_sum(scores):
    weights = (scores - scores.amax(dim=-1, keepdim=True)).exp()
    return weights / (weights.sum(dim=-1, keepdim=True) + 1e-6)


@wrong("softmax_rows", "No gradient reaches the scores: they are detached.")
def detached_scores(scores):
    return torch.softmax(scores.detach(), dim=-1)


@wrong(
    "softmax_rows",
    "You write into the scores that you were given (`sub_`, `-=`). Whoever passed them finds them changed.",
)
def shifted_in_place(scores):
    with torch.no_grad():
        scores -= scores.amax(dim=-1, keepdim=True)
    return torch.softmax(scores, dim=-1)


@right("softmax_rows")
def library_softmax(scores):
    return F.softmax(scores, dim=-1)


@right("softmax_rows")
def by_logarithms(scores):
    return (scores - scores.logsumexp(dim=-1, keepdim=True)).exp()


@right("softmax_rows")
def row_by_row(scores):
    rows = []
    for row in scores.reshape(-1, scores.shape[-1]):
        powers = torch.exp(row - row.max().detach())
        rows.append(powers / powers.sum())
    return torch.stack(rows).reshape(scores.shape)


# attention_scores


@wrong(
    "attention_scores",
    "This is what comes out without the scale. The dot product of two random vectors grows like the "
    "square root of their length, and unscaled scores drive the softmax to all or nothing.",
)
def unscaled(resid, W_Q, W_K, b_Q, b_K):
    return (resid @ W_Q + b_Q) @ (resid @ W_K + b_K).mT


@wrong(
    "attention_scores",
    "You divide by the square root of d_model. The vectors that are multiplied are queries and keys; how "
    "long are those?",
)
def scaled_by_d_model(resid, W_Q, W_K, b_Q, b_K):
    return unscaled(resid, W_Q, W_K, b_Q, b_K) / math.sqrt(W_Q.shape[0])


@wrong(
    "attention_scores",
    "You divide by d_head itself (or by its square root twice), so that larger heads get scores that are ever "
    "more alike. The square root, once, is enough.",
)
def scaled_by_d_head(resid, W_Q, W_K, b_Q, b_K):
    return unscaled(resid, W_Q, W_K, b_Q, b_K) / W_Q.shape[-1]


@wrong(
    "attention_scores",
    "You divide by 8, which is the right number for GPT-2's heads of width 64 and for no other width. "
    "Read d_head off the weights.",
)
def scaled_for_gpt2(resid, W_Q, W_K, b_Q, b_K):
    return unscaled(resid, W_Q, W_K, b_Q, b_K) / 8.0


@wrong(
    "attention_scores",
    "Your scores are transposed: row i, column j holds the query of j times the key of i. The row is the "
    "position that asks, the column the one that is looked at.",
)
def keys_ask(resid, W_Q, W_K, b_Q, b_K):
    return attention_scores(resid, W_Q, W_K, b_Q, b_K).mT


@wrong(
    "attention_scores",
    "Your queries and keys lack their biases. They matter most where the stream is small: a query bias "
    "lets a head prefer some keys whoever asks.",
)
def without_biases(resid, W_Q, W_K, b_Q, b_K):
    return attention_scores(resid, W_Q, W_K, torch.zeros_like(b_Q), torch.zeros_like(b_K))


@wrong(
    "attention_scores",
    "The query bias is missing. It is the part of every query that does not depend on the token that asks.",
)
def without_query_bias(resid, W_Q, W_K, b_Q, b_K):
    return attention_scores(resid, W_Q, W_K, torch.zeros_like(b_Q), b_K)


@wrong(
    "attention_scores",
    "The key bias is missing. (No pattern will ever show it, as you will see after the next exercise; the "
    "scores themselves do.)",
)
def without_key_bias(resid, W_Q, W_K, b_Q, b_K):
    return attention_scores(resid, W_Q, W_K, b_Q, torch.zeros_like(b_K))


@wrong(
    "attention_scores",
    "Your queries serve as keys too: W_K and b_K are never used, and each position is a good match for "
    "itself. Queries and keys are two different readings of the same stream.",
)
def queries_as_keys(resid, W_Q, W_K, b_Q, b_K):
    return attention_scores(resid, W_Q, W_Q, b_Q, b_Q)


@wrong(
    "attention_scores",
    "Your keys are made with W_Q: W_K is never used. Queries and keys are two different readings of the same stream.",
)
def query_weights_for_keys(resid, W_Q, W_K, b_Q, b_K):
    return attention_scores(resid, W_Q, W_Q, b_Q, b_K)


@wrong(
    "attention_scores",
    "You scale before a bias is added, so that the part of the scores that comes from this bias is not scaled. Divide "
    "the finished dot products.",
)
def scaled_before_the_query_bias(resid, W_Q, W_K, b_Q, b_K):
    return (resid @ W_Q / math.sqrt(W_Q.shape[-1]) + b_Q) @ (resid @ W_K + b_K).mT


@wrong(
    "attention_scores",
    "The keys are reshaped where they should be transposed. `reshape` and `view` keep the numbers in "
    "reading order and only cut the rows elsewhere, so that your columns mix positions and dimensions.",
)
def reshaped_keys(resid, W_Q, W_K, b_Q, b_K):
    queries, keys = resid @ W_Q + b_Q, resid @ W_K + b_K
    return queries @ keys.reshape(keys.shape[0], keys.shape[2], keys.shape[1]) / math.sqrt(W_Q.shape[-1])


@wrong(
    "attention_scores",
    "All sequences are scored against the keys of the first one. Queries and keys have to carry the same batch index.",
)
def keys_of_the_first_sequence(resid, W_Q, W_K, b_Q, b_K):
    queries, keys = resid @ W_Q + b_Q, resid[:1] @ W_K + b_K
    return queries @ keys.mT / math.sqrt(W_Q.shape[-1])


@wrong(
    "attention_scores",
    "The future is already masked in your scores. That is the next function's work; here every pair of "
    "positions gets its score.",
)
def masked_already(resid, W_Q, W_K, b_Q, b_K):
    return attention_scores(resid, W_Q, W_K, b_Q, b_K) + causal_mask(resid.shape[1]).to(resid.dtype)


@wrong(
    "attention_scores",
    "The biases have changed places: b_K is added to your queries and b_Q to your keys.",
)
def biases_exchanged(resid, W_Q, W_K, b_Q, b_K):
    return attention_scores(resid, W_Q, W_K, b_K, b_Q)


@wrong(
    "attention_scores",
    "You divide by the square root of the number of positions. What a dot product grows with is the length of queries "
    "and keys, d_head.",
)
def scaled_by_length_of_text(resid, W_Q, W_K, b_Q, b_K):
    return unscaled(resid, W_Q, W_K, b_Q, b_K) / math.sqrt(resid.shape[1])


@wrong("attention_scores", "You multiply by the square root of d_head. It is there to keep scores small: divide.")
def multiplied_by_the_root(resid, W_Q, W_K, b_Q, b_K):
    return unscaled(resid, W_Q, W_K, b_Q, b_K) * math.sqrt(W_Q.shape[-1])


@wrong(
    "attention_scores",
    "Your biases meet each other and nothing else: you add b_Q @ b_K to a product without biases. They belong to the "
    "queries and keys, and are multiplied with the stream as well.",
)
def biases_among_themselves(resid, W_Q, W_K, b_Q, b_K):
    return ((resid @ W_Q) @ (resid @ W_K).mT + b_Q @ b_K) / math.sqrt(W_Q.shape[-1])


@wrong("attention_scores", "You have taken the softmax already. Here the scores are wanted as they are.")
def softmax_already(resid, W_Q, W_K, b_Q, b_K):
    return attention_scores(resid, W_Q, W_K, b_Q, b_K).softmax(dim=-1)


@wrong("attention_scores", "No gradient flows back: the scores are cut from the graph.")
def scores_without_graph(resid, W_Q, W_K, b_Q, b_K):
    with torch.no_grad():
        return attention_scores(resid, W_Q, W_K, b_Q, b_K)


@wrong("attention_scores", "The stream is detached: nothing before this head would learn.")
def stream_detached(resid, W_Q, W_K, b_Q, b_K):
    return attention_scores(resid.detach(), W_Q, W_K, b_Q, b_K)


@wrong("attention_scores", "You compute in float32 and hand float32 back, also where float64 came in.")
def scores_in_float32(resid, W_Q, W_K, b_Q, b_K):
    return attention_scores(*(tensor.float() for tensor in (resid, W_Q, W_K, b_Q, b_K)))


@wrong("attention_scores", "You compute in float64 and hand float64 back, also where float32 came in.")
def scores_in_float64(resid, W_Q, W_K, b_Q, b_K):
    return attention_scores(*(tensor.double() for tensor in (resid, W_Q, W_K, b_Q, b_K)))


@right("attention_scores")
def through_the_qk_circuit(resid, W_Q, W_K, b_Q, b_K):
    bilinear = resid @ W_Q @ W_K.T @ resid.transpose(1, 2)
    from_query = (resid @ W_Q @ b_K)[:, :, None]
    from_key = (resid @ W_K @ b_Q)[:, None, :]
    return (bilinear + from_query + from_key + b_Q @ b_K) / torch.sqrt(torch.tensor(W_Q.shape[-1]))


@right("attention_scores")
def pair_by_pair(resid, W_Q, W_K, b_Q, b_K):
    scale = W_K.size(1) ** -0.5
    sequences = []
    for sequence in resid:
        queries = [x @ W_Q + b_Q for x in sequence]
        keys = [x @ W_K + b_K for x in sequence]
        sequences.append(torch.stack([torch.stack([(q * k).sum() * scale for k in keys]) for q in queries]))
    return torch.stack(sequences)


# attention_pattern


@wrong(
    "attention_pattern",
    "The mask is missing: every position looks at the whole text, also at what it is about to be asked for.",
)
def seeing_everything(resid, W_Q, W_K, b_Q, b_K):
    return softmax_rows(attention_scores(resid, W_Q, W_K, b_Q, b_K))


@wrong(
    "attention_pattern",
    "You set the future to zero after the softmax, when it has already taken its share: all rows but "
    "the last sum to less than one. The mask has to act on the scores.",
)
def masked_too_late(resid, W_Q, W_K, b_Q, b_K):
    return softmax_rows(attention_scores(resid, W_Q, W_K, b_Q, b_K)).tril()


@wrong(
    "attention_pattern",
    "You subtract the mask: less -inf is +inf, so the future gets the highest score there is, and every row that has "
    "one becomes NaN. The mask is made to be added.",
)
def mask_subtracted(resid, W_Q, W_K, b_Q, b_K):
    return softmax_rows(attention_scores(resid, W_Q, W_K, b_Q, b_K) - causal_mask(resid.shape[1]).to(resid.dtype))


@wrong(
    "attention_pattern",
    "You mask after the exponentials and rescale the rows. On paper that is right, but where the future has "
    "by far the largest score, nothing is left of the past, and rescaling divides 0 by 0. The mask has to act "
    "on the scores.",
)
def masked_and_rescaled(resid, W_Q, W_K, b_Q, b_K):
    visible = softmax_rows(attention_scores(resid, W_Q, W_K, b_Q, b_K)).tril()
    return visible / visible.sum(dim=-1, keepdim=True)


@wrong(
    "attention_pattern",
    "Your masked scores are 0 (by `tril`, or a product with ones and zeros). 0 is a score like any other: exp(0) is 1, "
    "and the future keeps its share.",
)
def multiplied_mask(resid, W_Q, W_K, b_Q, b_K):
    return softmax_rows(attention_scores(resid, W_Q, W_K, b_Q, b_K).tril())


@wrong(
    "attention_pattern",
    "The softmax runs over the queries, so that columns sum to one and rows do not. Each query has a "
    "weight of one to share out over the keys.",
)
def columns_sum_to_one(resid, W_Q, W_K, b_Q, b_K):
    scores = attention_scores(resid, W_Q, W_K, b_Q, b_K) + causal_mask(resid.shape[1]).to(resid.dtype)
    return scores.softmax(dim=-2)


@wrong(
    "attention_pattern",
    "Your scores are scaled twice: attention_scores has divided by the square root of d_head already. The "
    "pattern comes out flatter than it should.",
)
def scaled_twice(resid, W_Q, W_K, b_Q, b_K):
    scores = attention_scores(resid, W_Q, W_K, b_Q, b_K) / math.sqrt(W_Q.shape[-1])
    return softmax_rows(scores + causal_mask(resid.shape[1]).to(resid.dtype))


@wrong(
    "attention_pattern",
    "Your mask is too weak: -10,000 in place of -inf. With the large scores of one of the checks, the "
    "future gets through.",
)
def weak_mask(resid, W_Q, W_K, b_Q, b_K):
    scores = attention_scores(resid, W_Q, W_K, b_Q, b_K)
    return softmax_rows(scores + torch.full_like(scores, -1e4).triu(1))


@wrong(
    "attention_pattern",
    "You fill the future with a finite number in place of -inf. However low, it is a score like any other: "
    "where a row's own scores are lower still, the future gets the weight.",
)
def filled_with_minus_a_billion(resid, W_Q, W_K, b_Q, b_K):
    scores = attention_scores(resid, W_Q, W_K, b_Q, b_K)
    return softmax_rows(scores.masked_fill(torch.ones_like(scores, dtype=torch.bool).triu(1), -1e9))


@wrong(
    "attention_pattern",
    "You know the future by the zeros that `tril` leaves among the scores. A score of exactly 0 in the past "
    "is then masked as well, and a head whose weights are zero gives NaN. Positions decide what is masked, "
    "not values.",
)
def zeros_are_masked(resid, W_Q, W_K, b_Q, b_K):
    scores = attention_scores(resid, W_Q, W_K, b_Q, b_K).tril()
    return softmax_rows(scores.masked_fill(scores == 0, -torch.inf))


@wrong("attention_pattern", "Your mask hides the past and shows the future: it is transposed.")
def transposed_mask(resid, W_Q, W_K, b_Q, b_K):
    scores = attention_scores(resid, W_Q, W_K, b_Q, b_K)
    return softmax_rows(scores + causal_mask(resid.shape[1]).to(resid.dtype).T)


@wrong(
    "attention_pattern",
    "No gradient flows back through the pattern, to the stream or to any weight: the head "
    "could never learn where to look.",
)
def detached_pattern(resid, W_Q, W_K, b_Q, b_K):
    return attention_pattern(resid, W_Q, W_K, b_Q, b_K).detach()


@wrong(
    "attention_pattern",
    "The biases have changed places: b_K is added to your queries and b_Q to your keys. Compare the order of your "
    "arguments with the signature of attention_scores.",
)
def pattern_with_biases_exchanged(resid, W_Q, W_K, b_Q, b_K):
    return attention_pattern(resid, W_Q, W_K, b_K, b_Q)


@wrong(
    "attention_pattern",
    "Queries and keys have changed places: a row of yours says by whom the position is wanted, not what it wants.",
)
def pattern_of_the_keys(resid, W_Q, W_K, b_Q, b_K):
    return attention_pattern(resid, W_K, W_Q, b_K, b_Q)


@wrong("attention_pattern", "The query bias is missing. (The key bias you may leave out; no pattern depends on it.)")
def pattern_without_query_bias(resid, W_Q, W_K, b_Q, b_K):
    return attention_pattern(resid, W_Q, W_K, torch.zeros_like(b_Q), b_K)


@wrong("attention_pattern", "Your scores are not divided by the square root of d_head, so the pattern is too sharp.")
def unscaled_pattern(resid, W_Q, W_K, b_Q, b_K):
    root = math.sqrt(W_Q.shape[-1])
    return attention_pattern(resid, W_Q * root, W_K, b_Q * root, b_K)


@wrong(
    "attention_pattern",
    "In your pattern a position cannot see itself, and the first row, which has nothing else, is NaN. The diagonal is "
    "allowed.",
)
def blind_to_itself(resid, W_Q, W_K, b_Q, b_K):
    scores = attention_scores(resid, W_Q, W_K, b_Q, b_K)
    return softmax_rows(scores + torch.full_like(scores, -torch.inf).triu(0))


@wrong("attention_pattern", "You return the masked scores. The softmax over each row is missing.")
def masked_scores(resid, W_Q, W_K, b_Q, b_K):
    return attention_scores(resid, W_Q, W_K, b_Q, b_K) + causal_mask(resid.shape[1]).to(resid.dtype)


@wrong("attention_pattern", "Every sequence of your batch gets the pattern of the first one.")
def all_texts_alike(resid, W_Q, W_K, b_Q, b_K):
    return attention_pattern(resid, W_Q, W_K, b_Q, b_K)[:1].expand(len(resid), -1, -1)


@wrong("attention_pattern", "The stream is detached: nothing before this head would learn.")
def pattern_of_detached_stream(resid, W_Q, W_K, b_Q, b_K):
    return attention_pattern(resid.detach(), W_Q, W_K, b_Q, b_K)


@wrong("attention_pattern", "You compute in float32 and hand float32 back, also where float64 came in.")
def pattern_in_float32(resid, W_Q, W_K, b_Q, b_K):
    return attention_pattern(*(tensor.float() for tensor in (resid, W_Q, W_K, b_Q, b_K)))


@right("attention_pattern")
def filled_then_library_softmax(resid, W_Q, W_K, b_Q, b_K):
    scores = (resid @ W_Q + b_Q) @ (resid @ W_K + b_K).mT / math.sqrt(W_Q.shape[-1])
    future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return torch.softmax(scores.masked_fill(future, -torch.inf), dim=-1)


@right("attention_pattern")
def no_key_bias_at_all(resid, W_Q, W_K, b_Q, b_K):
    """The key bias adds the same to a whole row of scores: leaving it out changes no pattern."""
    scores = (resid @ W_Q + b_Q) @ (resid @ W_K).mT / math.sqrt(W_Q.shape[-1])
    return softmax_rows(scores + causal_mask(resid.shape[1]))


@right("attention_pattern")
def prefix_by_prefix(resid, W_Q, W_K, b_Q, b_K):
    scores = attention_scores(resid, W_Q, W_K, b_Q, b_K)
    n_ctx = scores.shape[-1]
    rows = [F.pad(softmax_rows(scores[:, i, : i + 1]), (0, n_ctx - 1 - i)) for i in range(n_ctx)]
    return torch.stack(rows, dim=1)


# qk_circuit


@wrong(
    "qk_circuit",
    "Your circuit is transposed: rows belong to the keys and columns to the queries. Write out x W_Q (y "
    "W_K)^T and see what stands between x and y.",
)
def key_side_first(W_Q, W_K):
    return W_K @ W_Q.T


@wrong(
    "qk_circuit",
    "You multiply along d_model, which leaves a d_head by d_head matrix. The dimension that queries and "
    "keys share, and that the dot product sums over, is the other one.",
)
def summed_over_d_model(W_Q, W_K):
    return W_Q.T @ W_K


@wrong(
    "qk_circuit",
    "The scale is in your circuit. It belongs to the scores; the circuit is the product of the weights as they are.",
)
def scale_included(W_Q, W_K):
    return W_Q @ W_K.T / math.sqrt(W_Q.shape[-1])


@wrong("qk_circuit", "W_K is reshaped where it should be transposed, which shuffles its numbers between dimensions.")
def reshaped_key_weights(W_Q, W_K):
    return W_Q @ W_K.reshape(W_K.shape[1], W_K.shape[0])


@wrong(
    "qk_circuit",
    "W_Q is multiplied with itself and W_K is never used. Your circuit is symmetric: x would want y "
    "exactly as much as y wants x.",
)
def query_with_itself(W_Q, W_K):
    return W_Q @ W_Q.T


@wrong(
    "qk_circuit",
    "You average the circuit with its transpose. 'Adjective looks for noun' is not 'noun looks for "
    "adjective': the circuit need not be symmetric.",
)
def made_symmetric(W_Q, W_K):
    return (W_Q @ W_K.T + W_K @ W_Q.T) / 2


@wrong("qk_circuit", "No gradient reaches the two matrices.")
def detached_qk(W_Q, W_K):
    return (W_Q @ W_K.T).detach()


@wrong("qk_circuit", "No gradient reaches W_Q.")
def detached_queries(W_Q, W_K):
    return W_Q.detach() @ W_K.T


@wrong("qk_circuit", "W_K is multiplied with itself and W_Q is never used.")
def key_with_itself(W_Q, W_K):
    return W_K @ W_K.T


@wrong("qk_circuit", "You compute in float32 and hand float32 back, also where float64 came in.")
def qk_in_float32(W_Q, W_K):
    return W_Q.float() @ W_K.float().T


@wrong("qk_circuit", "You compute in float64 and hand float64 back, also where float32 came in.")
def qk_in_float64(W_Q, W_K):
    return W_Q.double() @ W_K.double().T


@right("qk_circuit")
def query_matmul(W_Q, W_K):
    return torch.matmul(W_Q, torch.transpose(W_K, 0, 1))


@right("qk_circuit")
def query_outer_products(W_Q, W_K):
    return sum(torch.outer(W_Q[:, h], W_K[:, h]) for h in range(W_Q.shape[1]))


# ov_circuit


@wrong(
    "ov_circuit",
    "Your circuit is transposed: it acts on column vectors. In this course a vector of the stream is a "
    "row, and what is read comes from the left.",
)
def for_column_vectors(W_V, W_O):
    return (W_V @ W_O).T


@wrong(
    "ov_circuit",
    "You multiply in the other order, W_O first, which leaves a d_head by d_head matrix. A value is read "
    "before it is written.",
)
def written_before_read(W_V, W_O):
    return W_O @ W_V


@wrong(
    "ov_circuit",
    "The scale 1 / sqrt(d_head) has no business here: it tames the scores, and what a head writes is not scaled.",
)
def scaled_output(W_V, W_O):
    return W_V @ W_O / math.sqrt(W_V.shape[-1])


@wrong(
    "ov_circuit",
    "You add the identity, the residual connection. The circuit is what the head itself writes; the block "
    "adds it to the stream later.",
)
def with_the_residual(W_V, W_O):
    return W_V @ W_O + torch.eye(W_V.shape[0], dtype=W_V.dtype)


@wrong(
    "ov_circuit",
    "W_O is never used: you multiply W_V with its own transpose, so that a head could only write back where it read.",
)
def value_with_itself(W_V, W_O):
    return W_V @ W_V.T


@wrong(
    "ov_circuit",
    "No gradient reaches the two matrices. The circuit should stay connected to them.",
)
def detached_circuit(W_V, W_O):
    return (W_V @ W_O).detach()


@wrong("ov_circuit", "No gradient reaches W_V.")
def detached_values(W_V, W_O):
    return W_V.detach() @ W_O


@wrong("ov_circuit", "W_V is never used: you multiply W_O with its own transpose.")
def output_with_itself(W_V, W_O):
    return W_O.T @ W_O


@wrong("ov_circuit", "You compute in float32 and hand float32 back, also where float64 came in.")
def ov_in_float32(W_V, W_O):
    return W_V.float() @ W_O.float()


@wrong("ov_circuit", "You compute in float64 and hand float64 back, also where float32 came in.")
def ov_in_float64(W_V, W_O):
    return W_V.double() @ W_O.double()


@right("ov_circuit")
def value_einsum(W_V, W_O):
    return torch.einsum("ih,ho->io", W_V, W_O)


@right("ov_circuit")
def value_outer_products(W_V, W_O):
    return sum(W_V[:, h, None] * W_O[h, None, :] for h in range(W_V.shape[1]))


# attention_head


@wrong(
    "attention_head",
    "The value bias is missing. As every row of the pattern sums to one, it reaches each output "
    "unchanged, by way of W_O.",
)
def without_value_bias(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return attention_head(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, torch.zeros_like(b_V))


@wrong("attention_head", "The query bias does not reach your pattern. (You would be right to leave the key bias out.)")
def query_bias_forgotten(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return attention_head(resid, W_Q, W_K, W_V, W_O, torch.zeros_like(b_Q), b_K, b_V)


@wrong(
    "attention_head",
    "You return the averaged values, which have d_head numbers. They still have to be written back to the stream.",
)
def not_written_back(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return attention_pattern(resid, W_Q, W_K, b_Q, b_K) @ (resid @ W_V + b_V)


@wrong(
    "attention_head",
    "The pattern is transposed in the average: each position receives from those that look at it, where "
    "it should receive from those that it looks at. Sum over the key index.",
)
def received_from_onlookers(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return attention_pattern(resid, W_Q, W_K, b_Q, b_K).mT @ (resid @ W_V + b_V) @ W_O


@wrong("attention_head", "Your head looks into the future: its pattern is not masked.")
def head_without_mask(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return softmax_rows(attention_scores(resid, W_Q, W_K, b_Q, b_K)) @ (resid @ W_V + b_V) @ W_O


@wrong(
    "attention_head",
    "You add the stream that you read. A head returns what it writes; adding it to the stream is the "
    "block's work, once for all heads.",
)
def residual_added(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return resid + attention_head(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V)


@wrong(
    "attention_head",
    "You average keys in place of values: W_V and b_V are never used. A key is for being found; what is "
    "handed over is the value.",
)
def keys_handed_over(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return attention_head(resid, W_Q, W_K, W_K, W_O, b_Q, b_K, b_K)


@wrong("attention_head", "Every sequence of your batch uses the pattern of the first one.")
def pattern_of_the_first_sequence(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return attention_pattern(resid, W_Q, W_K, b_Q, b_K)[:1] @ (resid @ W_V + b_V) @ W_O


@wrong(
    "attention_head",
    "The pattern is cut out of the gradient: the head could learn what to move and never where to look.",
)
def frozen_pattern(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return attention_pattern(resid, W_Q, W_K, b_Q, b_K).detach() @ (resid @ W_V + b_V) @ W_O


@wrong(
    "attention_head",
    "The query and key biases have changed places. Compare the order of your arguments with the signature of "
    "attention_pattern.",
)
def head_with_biases_exchanged(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return attention_head(resid, W_Q, W_K, W_V, W_O, b_K, b_Q, b_V)


@wrong("attention_head", "Your values get b_K. Their own bias is b_V.")
def key_bias_for_values(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return attention_head(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_K)


@wrong("attention_head", "Queries and keys have changed places in your pattern.")
def head_of_the_keys(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return attention_head(resid, W_K, W_Q, W_V, W_O, b_K, b_Q, b_V)


@wrong("attention_head", "Your scores are not divided by the square root of d_head, so the pattern is too sharp.")
def unscaled_head(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    root = math.sqrt(W_Q.shape[-1])
    return attention_head(resid, W_Q * root, W_K, W_V, W_O, b_Q * root, b_K, b_V)


@wrong("attention_head", "The pattern is never used: each position writes its own value, and nothing moves.")
def nothing_moves(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return (resid @ W_V + b_V) @ W_O


@wrong("attention_head", "Every sequence of your batch hands over the values of the first one.")
def values_of_the_first_sequence(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return attention_pattern(resid, W_Q, W_K, b_Q, b_K) @ (resid[:1] @ W_V + b_V) @ W_O


@wrong(
    "attention_head",
    "What the head writes is divided by the square root of d_head. The scale belongs to the scores alone.",
)
def scaled_writing(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return attention_head(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V) / math.sqrt(W_Q.shape[-1])


@wrong("attention_head", "No gradient flows back: the whole head is cut from the graph.")
def head_without_graph(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    with torch.no_grad():
        return attention_head(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V)


@wrong("attention_head", "The stream is detached: nothing before this head would learn.")
def head_on_detached_stream(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return attention_head(resid.detach(), W_Q, W_K, W_V, W_O, b_Q, b_K, b_V)


@wrong("attention_head", "You compute in float32 and hand float32 back, also where float64 came in.")
def head_in_float32(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    return attention_head(*(tensor.float() for tensor in (resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V)))


@right("attention_head")
def through_the_ov_circuit(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    pattern = attention_pattern(resid, W_Q, W_K, b_Q, b_K)
    return pattern @ resid @ ov_circuit(W_V, W_O) + b_V @ W_O


@right("attention_head")
def library_attention(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    queries, keys, values = resid @ W_Q + b_Q, resid @ W_K + b_K, resid @ W_V + b_V
    return F.scaled_dot_product_attention(queries, keys, values, is_causal=True) @ W_O


@right("attention_head")
def position_by_position(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    outputs = []
    for i in range(resid.shape[1]):
        past = resid[:, : i + 1]
        scores = (past @ qk_circuit(W_Q, W_K).T * resid[:, i : i + 1]).sum(-1) + past @ W_K @ b_Q
        weights = torch.softmax(scores / W_Q.shape[-1] ** 0.5, dim=-1)
        outputs.append(((weights[..., None] * (past @ W_V)).sum(1) + b_V) @ W_O)
    return torch.stack(outputs, dim=1)


# multi_head_attention


def _heads(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V):
    """Each head's output, in a list."""
    return [attention_head(resid, *head) for head in zip(W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, strict=True)]


def _values_moved(resid, W_Q, W_K, W_V, b_Q, b_K, b_V):
    """Each head's averaged values [batch, head, pos, d_head]."""
    heads = zip(W_Q, W_K, W_V, b_Q, b_K, b_V, strict=True)
    moved = [attention_pattern(resid, Q, K, q, k) @ (resid @ V + v) for Q, K, V, q, k, v in heads]
    return torch.stack(moved, dim=1)


@wrong("multi_head_attention", "The output bias is missing.")
def without_output_bias(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    return sum(_heads(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V))


@wrong(
    "multi_head_attention",
    "The output bias is added once for each head. It belongs to the layer: there is one b_O, whatever the "
    "number of heads.",
)
def output_bias_for_each_head(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    return sum(head + b_O for head in _heads(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V))


@wrong(
    "multi_head_attention", "You take the mean over the heads. They are added: a layer with more heads may write more."
)
def mean_of_heads(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    return torch.stack(_heads(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V)).mean(dim=0) + b_O


@wrong(
    "multi_head_attention",
    "Your heads' values are flattened without moving the head dimension first, so that one row of the "
    "result mixes several positions, later ones among them. Bring head and d_head side by side before you "
    "merge them.",
)
def flattened_in_the_wrong_order(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    moved = _values_moved(resid, W_Q, W_K, W_V, b_Q, b_K, b_V)
    batch, n_heads, pos, d_head = moved.shape
    return moved.reshape(batch, pos, n_heads * d_head) @ W_O.flatten(0, 1) + b_O


@wrong(
    "multi_head_attention",
    "The concatenated values are interleaved (d_head outside, head inside), but the rows of the stacked "
    "W_O run head by head: values meet the output weights of other heads.",
)
def interleaved(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    moved = _values_moved(resid, W_Q, W_K, W_V, b_Q, b_K, b_V)
    return rearrange(moved, "batch head pos d_head -> batch pos (d_head head)") @ W_O.flatten(0, 1) + b_O


@wrong(
    "multi_head_attention",
    "The scores are divided by the square root of the width of all heads together, n_heads * d_head. Each "
    "head takes its dot products over d_head numbers only.",
)
def scaled_by_all_heads(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    shrink = len(W_Q) ** -0.5
    return multi_head_attention(resid, W_Q * shrink, W_K, W_V, W_O, b_Q * shrink, b_K, b_V, b_O)


@wrong(
    "multi_head_attention",
    "The scores are divided by the square root of d_model // n_heads. In many models that is the width of a "
    "head; here d_head is a size of its own, the last one of W_Q.",
)
def scaled_by_a_share_of_the_stream(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    factor = math.sqrt(W_Q.shape[-1] / max(1, resid.shape[-1] // len(W_Q)))
    return multi_head_attention(resid, W_Q * factor, W_K, W_V, W_O, b_Q * factor, b_K, b_V, b_O)


@wrong("multi_head_attention", "No head of yours is masked: all of them see the future.")
def layer_without_mask(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    heads = zip(W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, strict=True)
    return sum(head_without_mask(resid, *head) for head in heads) + b_O


@wrong("multi_head_attention", "All of your heads use the biases of the first head.")
def biases_of_the_first_head(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    biases = [b[:1].expand_as(b) for b in (b_Q, b_K, b_V)]
    return multi_head_attention(resid, W_Q, W_K, W_V, W_O, *biases, b_O)


@wrong(
    "multi_head_attention",
    "The biases [n_heads, d_head] are added to tensors [batch, head, pos, d_head] as they are, so that "
    "broadcasting lines n_heads up with pos: an error for most texts, and for texts of n_heads tokens "
    "silently a bias for each position. Give them a dimension for pos.",
)
def biases_along_positions(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    queries, keys, values = (
        einsum(resid, W, "batch pos d_model, head d_model d_head -> batch head pos d_head") + b
        for W, b in ((W_Q, b_Q), (W_K, b_K), (W_V, b_V))
    )
    scores = queries @ keys.mT / math.sqrt(W_Q.shape[-1]) + causal_mask(resid.shape[1])
    return einsum(softmax_rows(scores) @ values, W_O, "b h q d, h d m -> b q m") + b_O


@wrong(
    "multi_head_attention",
    "The softmax runs over the heads: at each pair of positions your heads compete. They work side by "
    "side, each with weights of its own that sum to one over the keys.",
)
def heads_compete(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    heads = zip(W_Q, W_K, b_Q, b_K, strict=True)
    scores = torch.stack([attention_scores(resid, Q, K, q, k) for Q, K, q, k in heads], dim=1)
    values = torch.stack([resid @ V + v for V, v in zip(W_V, b_V, strict=True)], dim=1)
    return einsum(scores.softmax(dim=1).tril() @ values, W_O, "b h q d, h d m -> b q m") + b_O


@wrong(
    "multi_head_attention",
    "The query and key biases have changed places: b_K is added to your queries and b_Q to your keys.",
)
def layer_with_biases_exchanged(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    return multi_head_attention(resid, W_Q, W_K, W_V, W_O, b_K, b_Q, b_V, b_O)


@wrong("multi_head_attention", "The value biases are missing. They reach every output unchanged, by way of W_O.")
def layer_without_value_biases(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    return multi_head_attention(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, torch.zeros_like(b_V), b_O)


@wrong(
    "multi_head_attention", "The query biases are missing. (The key biases you may leave out; nothing depends on them.)"
)
def layer_without_query_biases(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    return multi_head_attention(resid, W_Q, W_K, W_V, W_O, torch.zeros_like(b_Q), b_K, b_V, b_O)


@wrong("multi_head_attention", "Your scores are not divided by the square root of d_head.")
def unscaled_layer(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    root = math.sqrt(W_Q.shape[-1])
    return multi_head_attention(resid, W_Q * root, W_K, W_V, W_O, b_Q * root, b_K, b_V, b_O)


@wrong(
    "multi_head_attention",
    "Your scores are divided by the square root of d_model. Each head takes its dot products over d_head numbers.",
)
def layer_scaled_by_d_model(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    factor = math.sqrt(W_Q.shape[-1] / resid.shape[-1])
    return multi_head_attention(resid, W_Q * factor, W_K, W_V, W_O, b_Q * factor, b_K, b_V, b_O)


@wrong("multi_head_attention", "Only the first head is computed. The layer is the sum of all of them.")
def first_head_only(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    return attention_head(resid, W_Q[0], W_K[0], W_V[0], W_O[0], b_Q[0], b_K[0], b_V[0]) + b_O


@wrong("multi_head_attention", "The last head is left out: the layer is the sum of all its heads.")
def last_head_missing(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    heads = _heads(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V)
    return sum(heads[:-1] or heads) + b_O


@wrong("multi_head_attention", "All of your heads use the pattern of the first. Each has queries and keys of its own.")
def pattern_of_the_first_head(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    pattern = attention_pattern(resid, W_Q[0], W_K[0], b_Q[0], b_K[0])
    heads = zip(W_V, b_V, W_O, strict=True)
    return sum(pattern @ (resid @ values + bias) @ output for values, bias, output in heads) + b_O


@wrong(
    "multi_head_attention",
    "Your heads write by each other's W_O: the order of the heads is turned round on the way out.",
)
def output_weights_reversed(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    return multi_head_attention(resid, W_Q, W_K, W_V, W_O.flip(0), b_Q, b_K, b_V, b_O)


@wrong(
    "multi_head_attention",
    "You add the stream that you read. A layer returns what it writes; the block adds it to the stream.",
)
def stream_added(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    return resid + multi_head_attention(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O)


@wrong(
    "multi_head_attention",
    "Your heads work one after the other: each reads what the one before it has written. In one layer all of them read "
    "the same stream.",
)
def one_head_after_the_other(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    stream = resid
    for head in zip(W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, strict=True):
        stream = stream + attention_head(stream, *head)
    return stream - resid + b_O


@wrong("multi_head_attention", "No gradient flows back: the whole layer is cut from the graph.")
def layer_without_graph(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    with torch.no_grad():
        return multi_head_attention(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O)


@wrong("multi_head_attention", "You compute in float32 and hand float32 back, also where float64 came in.")
def layer_in_float32(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    arguments = (resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O)
    return multi_head_attention(*(tensor.float() for tensor in arguments))


@right("multi_head_attention")
def sum_of_heads(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    out = b_O
    for h in range(W_Q.shape[0]):
        out = out + attention_head(resid, W_Q[h], W_K[h], W_V[h], W_O[h], b_Q[h], b_K[h], b_V[h])
    return out


@right("multi_head_attention")
def concatenated(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    moved = _values_moved(resid, W_Q, W_K, W_V, b_Q, b_K, b_V)
    return rearrange(moved, "batch head pos d_head -> batch pos (head d_head)") @ W_O.flatten(0, 1) + b_O


@right("multi_head_attention")
def library_attention_for_all_heads(resid, W_Q, W_K, W_V, W_O, b_Q, b_K, b_V, b_O):
    queries, keys, values = (
        torch.einsum("bpm,hmd->bhpd", resid, W) + b[:, None, :] for W, b in ((W_Q, b_Q), (W_K, b_K), (W_V, b_V))
    )
    moved = F.scaled_dot_product_attention(queries, keys, values, is_causal=True)
    return F.linear(moved.transpose(1, 2).flatten(2), W_O.flatten(0, 1).T, b_O)
