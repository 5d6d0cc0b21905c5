"""Wrong answers for direct logit attribution, each with its sentence, and right ones."""

import torch
from einops import einsum

from utils.course.catalogue import right, wrong
from utils.lenses.attribution import direct_logit_attribution

# direct_logit_attribution


def refuse(components, answers, foils):
    if not components:
        raise ValueError("components is empty")
    batch = len(next(iter(components.values())))
    if len(answers) != batch or len(foils) != batch:
        raise ValueError("answers and foils need one id for each text")


@torch.no_grad()
def attribute(model, components, answers, foils, *, centre=True, gain=True, scale_of="total", sign=1, constant="both"):
    """The attribution, with one thing or another done differently."""
    refuse(components, answers, foils)
    total, norm = sum(components.values()), model.ln_final
    w = getattr(norm, "w", torch.ones_like(total[0])) if gain else 1.0
    b = getattr(norm, "b", torch.zeros_like(total[0]))
    direction = sign * (model.unembed.W_U[:, answers] - model.unembed.W_U[:, foils]).T

    def divisor(x):
        if scale_of == "none":
            return 1.0
        if scale_of == "length":
            return total.norm(dim=-1, keepdim=True)
        if scale_of == "bessel":
            return (total.var(-1, keepdim=True) + norm.eps).sqrt()
        if scale_of == "no eps":
            return total.std(-1, unbiased=False, keepdim=True)
        x = total if scale_of == "total" else x
        return (x.var(-1, unbiased=False, keepdim=True) + norm.eps).sqrt()

    found = {}
    for name, value in components.items():
        moved = value - value.mean(-1, keepdim=True) if centre else value
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
    refuse(components, answers, foils)
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
    "You did not take the means away. A layer norm removes the mean over d_model before anything else, and a "
    "component that pushes all dimensions alike changes nothing.",
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
    refuse(components, answers, foils)
    if not hasattr(model.ln_final, "w"):
        raise AttributeError("'FoldedNorm' object has no attribute 'w'")
    return attribute(model, components, answers, foils)


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
    refuse(components, answers, foils)
    stacked, norm = torch.stack(list(components.values())), model.ln_final
    total = stacked.sum(0)
    scale = (total.var(-1, unbiased=False) + norm.eps).sqrt()
    W = model.unembed.W_U * norm.w[:, None] if hasattr(norm, "w") else model.unembed.W_U
    W = W - W.mean(0)
    logits = stacked @ W / scale[:, None]
    rows = torch.arange(len(answers))
    found = dict(zip(components, logits[:, rows, answers] - logits[:, rows, foils], strict=True))
    constant = model.unembed.b_U + (norm.b @ model.unembed.W_U if hasattr(norm, "b") else 0.0)
    return found | {"constant": constant[answers] - constant[foils]}


# head_logit_attribution_by_position


def refuse_head(model, layer, head):
    if not (0 <= layer < len(model.blocks) and 0 <= head < model.blocks[0].attn.W_O.shape[0]):
        raise ValueError("no such head")


@torch.no_grad()
def by_position(model, tokens, layer, head, positions, answers, foils, *, pattern=None, value_bias=True, where=None):
    """The attribution by position, with one thing or another done differently."""
    refuse_head(model, layer, head)
    _, cache = model.run_with_cache(tokens, return_type=None)
    attn, rows = model.blocks[layer].attn, torch.arange(len(tokens))
    weights = cache[f"blocks.{layer}.attn.hook_pattern"][:, head]
    weights = pattern(weights, rows, positions) if pattern else weights[rows, positions]
    values = cache[f"blocks.{layer}.attn.hook_v"][:, :, head] - (0 if value_bias else attn.b_V[head])
    moved = einsum(weights, values, attn.W_O[head], "b k, b k h, h m -> k b m")
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


@right("head_logit_attribution_by_position")
@torch.no_grad()
def with_the_cached_scale(model, tokens, layer, head, positions, answers, foils):
    refuse_head(model, layer, head)
    _, cache = model.run_with_cache(tokens, return_type=None)
    rows, norm = torch.arange(len(tokens)), model.ln_final
    direction = (model.W_U[:, answers] - model.W_U[:, foils]).T * norm.w
    direction = (direction - direction.mean(-1, keepdim=True)) / cache["ln_final.hook_scale"][rows, positions]
    back = direction @ model.W_O[layer, head].T
    weights = cache["pattern", layer][rows, head, positions]
    return weights * einsum(cache["v", layer][:, :, head], back, "b k h, b h -> b k")


@right("head_logit_attribution_by_position")
@torch.no_grad()
def text_by_text_and_key_by_key(model, tokens, layer, head, positions, answers, foils):
    refuse_head(model, layer, head)
    found = torch.zeros(tokens.shape)
    for row, end in enumerate(positions.tolist()):
        _, cache = model.run_with_cache(tokens[row : row + 1], return_type=None)
        final = cache[f"blocks.{len(model.blocks) - 1}.hook_resid_post"][0, end]
        pattern, values = cache["pattern", layer][0, head, end], cache["v", layer][0, :, head]
        for key in range(end + 1):
            moved = pattern[key] * values[key] @ model.W_O[layer, head]
            parts = {"key": moved[None], "rest": (final - moved)[None]}
            one = direct_logit_attribution(model, parts, answers[row : row + 1], foils[row : row + 1])
            found[row, key] = one["key"].item()
    return found
