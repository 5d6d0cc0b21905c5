"""Wrong answers for direct logit attribution, each with its sentence, and right ones."""

from types import SimpleNamespace

import torch
import torch.nn.functional as F
from einops import einsum

from utils.course.catalogue import right, wrong
from utils.lenses.attribution import direct_logit_attribution
from utils.lenses.stream import residual_components

# direct_logit_attribution


def refuse(model, components, answers, foils):
    if not components:
        raise ValueError("components is empty")
    batch = len(next(iter(components.values())))
    if len(answers) != batch or len(foils) != batch:
        raise ValueError("answers and foils need one id for each text")
    refuse_strangers(model, answers, foils)


def refuse_strangers(model, answers, foils):
    ids = torch.cat([answers, foils])
    if ids.min() < 0 or ids.max() >= model.unembed.W_U.shape[1]:
        raise ValueError("no such token")


def keeps_means(norm):
    return "RMS" in type(norm).__name__


@torch.no_grad()
def attribute(model, components, answers, foils, *, centre=None, gain=True, scale_of="total", sign=1, constant="both"):
    """The attribution, with one thing or another done differently; ``centre`` says for all norms what some do."""
    refuse(model, components, answers, foils)
    total, norm = sum(components.values()), model.ln_final
    w = getattr(norm, "w", torch.ones_like(total[0])) if gain else 1.0
    b = getattr(norm, "b", torch.zeros_like(total[0]))
    direction = sign * (model.unembed.W_U[:, answers] - model.unembed.W_U[:, foils]).T
    centres = not keeps_means(norm)

    def variance(x, n=None):
        centred = x - x.mean(-1, keepdim=True) if centres else x
        return centred.square().sum(-1, keepdim=True) / (n or x.shape[-1])

    def divisor(x):
        n = x.shape[-1]
        ways = {
            "none": lambda: 1.0,
            "length": lambda: total.norm(dim=-1, keepdim=True),
            "bessel": lambda: (variance(total, n - 1 if centres else n) + norm.eps).sqrt(),
            "no eps": lambda: variance(total).sqrt(),
            "eps outside": lambda: variance(total).sqrt() + norm.eps,
            "own eps": lambda: (variance(total) + 1e-5).sqrt(),
            "total": lambda: (variance(total) + norm.eps).sqrt(),
            "own": lambda: (variance(x) + norm.eps).sqrt(),
        }
        return ways[scale_of]()

    found = {}
    for name, value in components.items():
        moved = value - value.mean(-1, keepdim=True) if (centres if centre is None else centre) else value
        found[name] = (moved / divisor(value) * w * direction).sum(-1)
    parts = {"norm": direction @ b, "unembed": sign * (model.unembed.b_U[answers] - model.unembed.b_U[foils])}
    found["constant"] = sum(parts.values()) if constant == "both" else parts.get(constant, 0 * parts["norm"])
    return found


@wrong(
    "direct_logit_attribution",
    "You took each component's product with the unembedding as it stands, without the division by the stream's "
    "standard deviation: the numbers are in units that differ from text to text, and do not sum to the logit "
    "difference.",
)
def not_divided(model, components, answers, foils):
    return attribute(model, components, answers, foils, scale_of="none")


@wrong(
    "direct_logit_attribution",
    "You normed every component by its own standard deviation, so that a part a hundred times as weak counts as "
    "much as a strong one. The model divides once, by that of the whole stream.",
)
def each_normed_by_itself(model, components, answers, foils):
    return attribute(model, components, answers, foils, scale_of="own")


@wrong(
    "direct_logit_attribution",
    "You pushed each component through the final norm by itself. The norm divides by the standard deviation of what it "
    "is given, and adds its bias each time: weak parts come out as loud as strong ones, and the biases count once for "
    "every component instead of once, under 'constant'.",
)
def each_through_the_norm(model, components, answers, foils):
    refuse(model, components, answers, foils)
    direction = (model.unembed.W_U[:, answers] - model.unembed.W_U[:, foils]).T
    return {name: (model.ln_final(value) * direction).sum(-1).detach() for name, value in components.items()}


@wrong(
    "direct_logit_attribution",
    "Your components are right, and the entry 'constant' is missing. The biases of the norm and of the unembedding "
    "belong to no component, and without them the shares do not sum to the logit difference.",
)
def constant_missing(model, components, answers, foils):
    found = attribute(model, components, answers, foils)
    return {name: value for name, value in found.items() if name != "constant"}


@wrong(
    "direct_logit_attribution",
    "You did not take the components' means away. A layer norm removes the mean over d_model before anything else, "
    "and a component that pushes all dimensions alike changes nothing.",
)
def means_kept(model, components, answers, foils):
    return attribute(model, components, answers, foils, centre=False)


@wrong(
    "direct_logit_attribution",
    "The final norm's gain is missing. Between the division and the unembedding, the model multiplies each "
    "dimension by its own learnt number.",
)
def gain_forgotten(model, components, answers, foils):
    return attribute(model, components, answers, foils, gain=False)


@wrong(
    "direct_logit_attribution",
    "Your signs are turned round: this is logit(foil) - logit(answer).",
)
def foil_minus_answer(model, components, answers, foils):
    return attribute(model, components, answers, foils, sign=-1)


@wrong(
    "direct_logit_attribution",
    "Your constant lacks the unembedding's bias. The difference of b_U between answer and foil is part of the "
    "logit difference, and no component accounts for it.",
)
def unembedding_bias_forgotten(model, components, answers, foils):
    return attribute(model, components, answers, foils, constant="norm")


@wrong(
    "direct_logit_attribution",
    "Your constant lacks the bias of the final norm, which the unembedding reads like everything else.",
)
def norm_bias_forgotten(model, components, answers, foils):
    return attribute(model, components, answers, foils, constant="unembed")


@wrong(
    "direct_logit_attribution",
    "You divided by an estimate of the variance with n - 1 in it (torch's default). The layer norm divides the "
    "sum of squares by n.",
)
def bessels_correction(model, components, answers, foils):
    return attribute(model, components, answers, foils, scale_of="bessel")


@wrong(
    "direct_logit_attribution",
    "You divided by the standard deviation alone. The norm adds its `eps` to the variance before it takes the root, "
    "which nobody notices on a long stream, and everybody on a very short one.",
)
def eps_forgotten(model, components, answers, foils):
    return attribute(model, components, answers, foils, scale_of="no eps")


@wrong(
    "direct_logit_attribution",
    "Without gain and bias in the final norm your function fails: models are often loaded with both folded into "
    "the unembedding. The docstring says what stands for them then.",
)
def needs_a_gain(model, components, answers, foils):
    refuse(model, components, answers, foils)
    if not hasattr(model.ln_final, "w"):
        raise AttributeError("'FoldedNorm' object has no attribute 'w'")
    return attribute(model, components, answers, foils)


@wrong(
    "direct_logit_attribution",
    "You added an `eps` of 1e-5 to the variance. That is this model's own number, and others have others: it is an "
    "attribute of the norm.",
)
def eps_of_ones_own(model, components, answers, foils):
    return attribute(model, components, answers, foils, scale_of="own eps")


@wrong(
    "direct_logit_attribution",
    "You took the mean away for an RMS norm as well, which keeps it: your shares do not sum to the logit difference of "
    "such a model. The docstring says how to tell the two norms apart.",
)
def every_norm_a_layer_norm(model, components, answers, foils):
    if not keeps_means(model.ln_final):
        return attribute(model, components, answers, foils)
    refuse(model, components, answers, foils)
    centred = {name: value - value.mean(-1, keepdim=True) for name, value in components.items()}
    return attribute(model, centred, answers, foils)


@wrong(
    "direct_logit_attribution",
    "Your shares carry a graph. They are numbers to look at: run without one, or detach them.",
)
def graph_left(model, components, answers, foils):
    found = attribute(model, components, answers, foils)
    anchor = sum(value.sum() for value in components.values()) + model.unembed.b_U.sum()
    return {name: value + 0 * anchor for name, value in found.items()}


@wrong(
    "direct_logit_attribution",
    "Ids that are no token's go through: -1 counts from the end in Python and means the last token, silently. The "
    "docstring names the error to raise.",
)
def negative_ids_pass(model, components, answers, foils):
    size = model.unembed.W_U.shape[1]
    return attribute(model, components, answers % size, foils % size)


@wrong(
    "direct_logit_attribution",
    "You counted the norm's bias in every component. It is added once, after the division, whatever the components "
    "are: it belongs into 'constant'.",
)
def norms_bias_in_every_component(model, components, answers, foils):
    found = attribute(model, components, answers, foils)
    bias = (found["constant"] - attribute(model, components, answers, foils, constant="unembed")["constant"]).detach()
    return {name: value if name == "constant" else value + bias for name, value in found.items()}


@wrong(
    "direct_logit_attribution",
    "You attributed the answer's logit alone. What raises answer and foil alike has decided nothing between them: the "
    "direction that reads the difference is W_U[:, answer] - W_U[:, foil].",
)
@torch.no_grad()
def answer_alone(model, components, answers, foils):
    refuse(model, components, answers, foils)
    W_U, b_U = model.unembed.W_U, model.unembed.b_U
    silent = SimpleNamespace(W_U=F.pad(W_U, (0, 1)), b_U=F.pad(b_U, (0, 1)))  # a foil that nothing speaks for
    model = SimpleNamespace(ln_final=model.ln_final, unembed=silent)
    return attribute(model, components, answers, torch.full_like(foils, len(b_U)))


@wrong(
    "direct_logit_attribution",
    "You add `eps` to the standard deviation. The norm adds it to the variance, under the root, which makes a large "
    "difference on a very short stream.",
)
def eps_outside_the_root(model, components, answers, foils):
    return attribute(model, components, answers, foils, scale_of="eps outside")


@right("direct_logit_attribution")
@torch.no_grad()
def constant_as_what_is_left(model, components, answers, foils):
    found = attribute(model, components, answers, foils)
    logits = model.ln_final(sum(components.values())[None])[0] @ model.unembed.W_U + model.unembed.b_U
    rows = torch.arange(len(answers))
    shares = sum(value for name, value in found.items() if name != "constant")
    return found | {"constant": logits[rows, answers] - logits[rows, foils] - shares}


@right("direct_logit_attribution")
@torch.no_grad()
def all_at_once(model, components, answers, foils):
    refuse(model, components, answers, foils)
    stacked, norm = torch.stack(list(components.values())), model.ln_final
    W = model.unembed.W_U * norm.w[:, None] if hasattr(norm, "w") else model.unembed.W_U
    if norm(torch.ones(len(W))).allclose(getattr(norm, "b", torch.zeros(())), atol=1e-4):
        stacked, W = stacked - stacked.mean(-1, keepdim=True), W - W.mean(0)
    scale = (stacked.sum(0).square().mean(-1) + norm.eps).sqrt()
    logits = stacked @ W / scale[:, None]
    rows = torch.arange(len(answers))
    found = dict(zip(components, logits[:, rows, answers] - logits[:, rows, foils], strict=True))
    constant = model.unembed.b_U + (norm.b @ model.unembed.W_U if hasattr(norm, "b") else 0.0)
    return found | {"constant": constant[answers] - constant[foils]}


# head_logit_attribution_by_position


def refuse_head(model, tokens, layer, head, positions):
    refuse_no_sum(model, tokens)
    refuse_positions(tokens, positions)
    if not (0 <= layer < len(model.blocks) and 0 <= head < model.blocks[0].attn.W_O.shape[0]):
        raise ValueError("no such head")


def refuse_no_sum(model, tokens):
    residual_components(model, tokens)


def refuse_positions(tokens, positions):
    if positions.shape != tokens.shape[:1] or positions.min() < 0 or positions.max() >= tokens.shape[1]:
        raise ValueError("no such position")


def values_of(cache, model, layer, head):
    """Head number ``head``'s values [batch, key, d_head], which it may share with others."""
    values = cache[f"blocks.{layer}.attn.hook_v"]
    return values[:, :, head * values.shape[2] // len(model.blocks[layer].attn.W_O)]


@torch.no_grad()
def by_position(
    model,
    tokens,
    layer,
    head,
    positions,
    answers,
    foils,
    *,
    pattern=None,
    value_bias=True,
    where=None,
    values_of=values_of,
    refuse=refuse_head,
    output_bias=False,
    matrix=None,
):
    """The attribution by position, with one thing or another done differently."""
    refuse(model, tokens, layer, head, positions)
    _, cache = model.run_with_cache(tokens, return_type=None)
    attn, rows = model.blocks[layer].attn, torch.arange(len(tokens))
    weights = cache[f"blocks.{layer}.attn.hook_pattern"][:, head]
    weights = pattern(weights, rows, positions) if pattern else weights[rows, positions]
    values = values_of(cache, model, layer, head) - (0 if value_bias else attn.b_V[head])
    moved = einsum(weights, values, attn.W_O[head if matrix is None else matrix], "b k, b k h, h m -> k b m")
    moved = moved + attn.b_O if output_bias else moved
    final = cache[f"blocks.{len(model.blocks) - 1}.hook_resid_post"][rows, positions if where is None else where]
    parts = {str(k): v for k, v in enumerate(moved)} | {"rest": final - moved.sum(0)}
    found = direct_logit_attribution(model, parts, answers, foils)
    return torch.stack([found[str(k)] for k in range(tokens.shape[1])], -1)


@wrong(
    "head_logit_attribution_by_position",
    "You read the pattern by columns: how much each position looks *at* the one that is asked about. Rows are "
    "the side that asks.",
)
def pattern_transposed(model, tokens, layer, head, positions, answers, foils):
    return by_position(model, tokens, layer, head, positions, answers, foils, pattern=lambda w, rows, p: w[rows, :, p])


@wrong(
    "head_logit_attribution_by_position",
    "You always look from the last position of the tensor. Texts of different length end at different places, "
    "and `positions` says where.",
)
def always_the_last_position(model, tokens, layer, head, positions, answers, foils):
    last = torch.full_like(positions, tokens.shape[1] - 1)
    return by_position(model, tokens, layer, head, last, answers, foils)


@wrong(
    "head_logit_attribution_by_position",
    "The value bias is missing. Every position that is looked at hands it over along with its value, so that "
    "your rows fall short of the head's contribution.",
)
def value_bias_forgotten(model, tokens, layer, head, positions, answers, foils):
    return by_position(model, tokens, layer, head, positions, answers, foils, value_bias=False)


@wrong(
    "head_logit_attribution_by_position",
    "You shared the head's contribution out in proportion to its attention. A position can be looked at a lot "
    "and hand over nothing, or hand over something that speaks against the answer.",
)
def shared_out_by_attention(model, tokens, layer, head, positions, answers, foils):
    whole = by_position(model, tokens, layer, head, positions, answers, foils).sum(-1, keepdim=True)
    _, cache = model.run_with_cache(tokens, return_type=None)
    weights = cache[f"blocks.{layer}.attn.hook_pattern"][torch.arange(len(tokens)), head, positions]
    return (weights * whole).detach()


@wrong(
    "head_logit_attribution_by_position",
    "You left the attention weights out: these are the contributions that each position would make if it alone "
    "were looked at.",
)
def attention_left_out(model, tokens, layer, head, positions, answers, foils):
    def visible(w, rows, p):
        return (torch.arange(w.shape[-1]) <= p[:, None]).to(w.dtype)

    return by_position(model, tokens, layer, head, positions, answers, foils, pattern=visible)


@wrong(
    "head_logit_attribution_by_position",
    "You divided by the standard deviation of the first position's stream. The final norm divides the stream of "
    "the position whose prediction is asked about.",
)
def scale_of_another_position(model, tokens, layer, head, positions, answers, foils):
    return by_position(model, tokens, layer, head, positions, answers, foils, where=torch.zeros_like(positions))


@wrong(
    "head_logit_attribution_by_position",
    "A negative layer or head counts from the end in Python, and goes through here. The docstring names the "
    "error to raise.",
)
def negative_heads_pass(model, tokens, layer, head, positions, answers, foils):
    if layer >= len(model.blocks) or head >= model.blocks[0].attn.W_O.shape[0]:
        raise ValueError("no such head")
    layer, head = layer % len(model.blocks), head % model.blocks[0].attn.W_O.shape[0]
    return by_position(model, tokens, layer, head, positions, answers, foils)


@wrong(
    "head_logit_attribution_by_position",
    "Positions that the texts do not have are not all refused: -1 would count from the end in Python, and one position "
    "for several texts would be broadcast. The docstring names the error to raise.",
)
def any_position_passes(model, tokens, layer, head, positions, answers, foils):
    def refuse(model, tokens, layer, head, positions):
        refuse_head(model, tokens, layer, head, torch.zeros(len(tokens), dtype=torch.long))

    return by_position(model, tokens, layer, head, positions, answers, foils, refuse=refuse)


@wrong(
    "head_logit_attribution_by_position",
    "You look values up by the head's number. Where several heads share their values there are fewer of them than "
    "heads, and the docstring says which one a head reads.",
)
def values_by_the_heads_number(model, tokens, layer, head, positions, answers, foils):
    def by_number(cache, model, layer, head):
        return cache[f"blocks.{layer}.attn.hook_v"][:, :, head]

    return by_position(model, tokens, layer, head, positions, answers, foils, values_of=by_number)


@wrong(
    "head_logit_attribution_by_position",
    "Heads that share their values are neighbours: of four heads with two values the first two share the first. You "
    "deal the values out in turn (`head % n`).",
)
def values_dealt_out_in_turn(model, tokens, layer, head, positions, answers, foils):
    def in_turn(cache, model, layer, head):
        values = cache[f"blocks.{layer}.attn.hook_v"]
        return values[:, :, head % values.shape[2]]

    return by_position(model, tokens, layer, head, positions, answers, foils, values_of=in_turn)


@wrong(
    "head_logit_attribution_by_position",
    "A model with a norm behind its attention goes through. What a head writes is not what is added to the stream "
    "there, and your rows sum to nothing that the model does; `residual_components` refuses it, and so should you.",
)
def any_model_passes(model, tokens, layer, head, positions, answers, foils):
    def refuse(model, tokens, layer, head, positions):
        refuse_positions(tokens, positions)
        if not (0 <= layer < len(model.blocks) and 0 <= head < model.blocks[0].attn.W_O.shape[0]):
            raise ValueError("no such head")

    return by_position(model, tokens, layer, head, positions, answers, foils, refuse=refuse)


@wrong(
    "head_logit_attribution_by_position",
    "Your result carries a graph. It is something to look at: run the model without one, and detach what you made of "
    "parameters.",
)
def sources_on_a_graph(model, tokens, layer, head, positions, answers, foils):
    return by_position(model, tokens, layer, head, positions, answers, foils) + 0 * model.unembed.b_U.sum()


@wrong(
    "head_logit_attribution_by_position",
    "You added the layer's output bias to what each position hands over. It belongs to no head and to no position.",
)
def output_bias_at_every_position(model, tokens, layer, head, positions, answers, foils):
    return by_position(model, tokens, layer, head, positions, answers, foils, output_bias=True)


@wrong(
    "head_logit_attribution_by_position",
    "Every head of yours writes through head 0's matrix. W_O has a first dimension for the head.",
)
def first_heads_matrix(model, tokens, layer, head, positions, answers, foils):
    return by_position(model, tokens, layer, head, positions, answers, foils, matrix=0)


@torch.no_grad()
def read_off(model, tokens, layer, head, positions, answers, foils, *, divisor, row=None, sign=1, bias=False):
    """The attribution by position written out, with a divisor of one's own and a row of the pattern at choice."""
    refuse_head(model, tokens, layer, head, positions)
    _, cache = model.run_with_cache(tokens, return_type=None)
    rows, norm, W_O = torch.arange(len(tokens)), model.ln_final, model.blocks[layer].attn.W_O[head]
    weights = cache[f"blocks.{layer}.attn.hook_pattern"][rows, head, positions if row is None else row]
    moved = weights[..., None] * (values_of(cache, model, layer, head) @ W_O)
    final = cache[f"blocks.{len(model.blocks) - 1}.hook_resid_post"][rows, positions][:, None]
    spread = {"whole": final, "own": moved, "head": moved.sum(1, keepdim=True)}.get(divisor)
    if not keeps_means(norm):
        moved = moved - moved.mean(-1, keepdim=True)
        spread = spread if spread is None else spread - spread.mean(-1, keepdim=True)
    if spread is not None:
        moved = moved / (spread.square().mean(-1, keepdim=True) + norm.eps).sqrt()
    read = (moved * getattr(norm, "w", 1.0)) + (getattr(norm, "b", 0.0) if bias else 0.0)
    direction = model.unembed.W_U[:, answers] - model.unembed.W_U[:, foils]
    return sign * einsum(read, direction, "b k m, m b -> b k")


@wrong(
    "head_logit_attribution_by_position",
    "You divided what each position hands over by a standard deviation of its own, so that a position that hands over "
    "next to nothing counts as much as the one that matters. The model divides once, by that of the whole stream at "
    "the position that is asked about.",
)
def each_position_divided_by_its_own(*args):
    return read_off(*args, divisor="own")


@wrong(
    "head_logit_attribution_by_position",
    "You put what each position hands over through the final norm by itself: it is divided by a standard deviation of "
    "its own, and gets the norm's bias, position after position. The model divides once, by that of the whole stream, "
    "and the bias is no position's.",
)
def each_position_through_the_norm(*args):
    return read_off(*args, divisor="own", bias=True)


@wrong(
    "head_logit_attribution_by_position",
    "You divided by the standard deviation of what the head writes. The final norm divides by that of the whole "
    "stream, to which the head adds a part; whatever is left of the stream has to be among the components, too.",
)
def divided_by_the_heads_own(*args):
    return read_off(*args, divisor="head")


@wrong(
    "head_logit_attribution_by_position",
    "You did not divide by the stream's standard deviation, as the final norm does: your numbers are no logits, and do "
    "not sum to the head's contribution.",
)
def undivided(*args):
    return read_off(*args, divisor="none")


@wrong(
    "head_logit_attribution_by_position",
    "You read the last row of the pattern. Which row is asked about stands in `positions`, for each text by itself: "
    "shorter texts end earlier.",
)
def last_row_of_the_pattern(*args):
    return read_off(*args, divisor="whole", row=-1)


@wrong(
    "head_logit_attribution_by_position",
    "Your signs are turned round: this is what each position adds to logit(foil) - logit(answer).",
)
def foil_minus_answer_by_position(*args):
    return read_off(*args, divisor="whole", sign=-1)


@right("head_logit_attribution_by_position")
@torch.no_grad()
def with_the_cached_scale(model, tokens, layer, head, positions, answers, foils):
    refuse_head(model, tokens, layer, head, positions)
    _, cache = model.run_with_cache(tokens, return_type=None)
    rows, norm = torch.arange(len(tokens)), model.ln_final
    direction = (model.W_U[:, answers] - model.W_U[:, foils]).T * norm.w
    if model.cfg.normalization_type == "LN":
        direction = direction - direction.mean(-1, keepdim=True)
    back = direction / cache["ln_final.hook_scale"][rows, positions] @ model.W_O[layer, head].T
    weights, values = cache["pattern", layer][rows, head, positions], cache["v", layer]
    values = values.repeat_interleave(model.cfg.n_heads // values.shape[2], dim=2)[:, :, head]
    return weights * einsum(values, back, "b k h, b h -> b k")


@right("head_logit_attribution_by_position")
@torch.no_grad()
def text_by_text_and_key_by_key(model, tokens, layer, head, positions, answers, foils):
    refuse_head(model, tokens, layer, head, positions)
    found = torch.zeros(tokens.shape)
    for row, end in enumerate(positions.tolist()):
        _, cache = model.run_with_cache(tokens[row : row + 1], return_type=None)
        final = cache[f"blocks.{len(model.blocks) - 1}.hook_resid_post"][0, end]
        pattern, values = cache["pattern", layer][0, head, end], values_of(cache, model, layer, head)[0]
        for key in range(end + 1):
            moved = pattern[key] * values[key] @ model.W_O[layer, head]
            parts = {"key": moved[None], "rest": (final - moved)[None]}
            one = direct_logit_attribution(model, parts, answers[row : row + 1], foils[row : row + 1])
            found[row, key] = one["key"].item()
    return found
