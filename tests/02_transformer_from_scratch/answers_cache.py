"""Wrong and right answers to decoding with a cache."""

import math

import torch
from einops import einsum

from utils.course.catalogue import right, wrong
from utils.transformer.cache import kv_cache_step as reference_step


def step(
    model,
    token,
    cache,
    *,
    position=None,
    scale=True,
    key_bias=True,
    value_bias=True,
    see_itself=True,
    layer_of=lambda layer: layer,
    keep=True,
    final_norm=True,
    mlp_norm=True,
    output_bias=True,
    offset=0,
    normed=True,
    masked=False,
    wrap=False,
    guard=True,
):
    """One step of decoding, with switches for what can go wrong in it.

    In models without MLPs nothing does, so that a diagnosis also reaches an answer that can't read them.
    """
    if not model.cfg.d_mlp:
        return reference_step(model, token, cache)
    length = 0 if cache is None else cache[0][0].shape[2]
    if guard and length >= model.pos_embed.W_pos.shape[0]:
        raise ValueError("no position left")
    W_pos = model.pos_embed.W_pos
    place = length % len(W_pos) if wrap else min(length + offset, len(W_pos) - 1) if offset else length
    resid = model.embed.W_E[token] + W_pos[place if position is None else position]
    new_cache = []
    for layer, block in enumerate(model.blocks):
        attn = block.attn
        x = block.ln1(resid[:, None])[:, 0] if normed else resid
        query = einsum(x, attn.W_Q, "b m, h m d -> b h d") + attn.b_Q
        key = einsum(x, attn.W_K, "b m, h m d -> b h d") + attn.b_K * key_bias
        value = einsum(x, attn.W_V, "b m, h m d -> b h d") + attn.b_V * value_bias
        keys, values = key[:, :, None], value[:, :, None]
        if cache is not None:
            old_keys, old_values = cache[layer_of(layer)]
            keys, values = torch.cat([old_keys, keys], 2), torch.cat([old_values, values], 2)
        new_cache.append((keys, values) if keep else (key[:, :, None], value[:, :, None]))
        seen = slice(None) if see_itself or cache is None else slice(0, -1)
        scores = einsum(query, keys[:, :, seen], "b h d, b h k d -> b h k") / (
            math.sqrt(model.cfg.d_model if scale == "d_model" else query.shape[-1]) if scale else 1
        )
        if masked:
            scores[..., 1:] = -torch.inf
        z = einsum(scores.softmax(-1), values[:, :, seen], "b h k, b h k d -> b h d")
        resid = resid + einsum(z, attn.W_O, "b h d, h d m -> b m") + attn.b_O * output_bias
        resid = resid + block.mlp(block.ln2(resid[:, None]) if mlp_norm else resid[:, None])[:, 0]
    resid = model.ln_final(resid[:, None])[:, 0] if final_norm else resid
    return resid @ model.unembed.W_U + model.unembed.b_U, new_cache


@wrong(
    "kv_cache_step",
    "Every token gets the embedding of position 0. You feed one token, but its place in the text is the "
    "length "
    "of the cache.",
)
def always_position_zero(model, token, cache):
    return step(model, token, cache, position=0)


@wrong(
    "kv_cache_step",
    "Your new token does not look at itself: you attend to the cache as it was. In the full pass position i "
    "sees "
    "every j <= i, so add the new key and value first.",
)
def past_only(model, token, cache):
    return step(model, token, cache, see_itself=False)


@wrong(
    "kv_cache_step",
    "Your scores lack the 1/sqrt(d_head). The cache changes what is computed again, not what is computed.",
)
def unscaled(model, token, cache):
    return step(model, token, cache, scale=False)


@wrong(
    "kv_cache_step",
    "Every layer reads the cache of layer 0. Keys and values are made from the stream of their own layer.",
)
def first_layers_cache(model, token, cache):
    return step(model, token, cache, layer_of=lambda layer: 0)


@wrong(
    "kv_cache_step",
    "Your new keys lack their bias. The query does not cancel it: b_K is added to every key of the full pass.",
)
def keys_without_bias(model, token, cache):
    return step(model, token, cache, key_bias=False)


@wrong(
    "kv_cache_step",
    "Your new keys and values lack their biases. b_K and b_V are added to every key and value of the full pass, and "
    "the cache holds them with it.",
)
def keys_and_values_without_bias(model, token, cache):
    return step(model, token, cache, key_bias=False, value_bias=False)


@wrong(
    "kv_cache_step",
    "The cache that you return holds the newest position only, so the next step has forgotten all before it.",
)
def forgets(model, token, cache):
    return step(model, token, cache, keep=False)


@wrong("kv_cache_step", "Your logits come from the stream before the final layer norm.")
def without_final_norm(model, token, cache):
    return step(model, token, cache, final_norm=False)


@wrong(
    "kv_cache_step",
    "Your queries, keys and values read the raw residual stream. In a block, attention reads ln1 of it.",
)
def without_ln1(model, token, cache):
    return step(model, token, cache, normed=False)


@wrong(
    "kv_cache_step",
    "You mask the one row of scores as if it were the first of a causal mask, so every token sees position 0 alone. "
    "Everything in the cache lies in its past.",
)
def masked_like_position_zero(model, token, cache):
    return step(model, token, cache, masked=True)


@wrong(
    "kv_cache_step",
    "When the position embeddings run out, an error about an index comes up from PyTorch. Look at the length of the "
    "cache first, and raise a ValueError that says what is the matter.",
)
def out_of_positions(model, token, cache):
    return step(model, token, cache, guard=False)


@wrong(
    "kv_cache_step",
    "When the position embeddings run out, you begin again with the first one. The model has never seen "
    "such a "
    "text; raise a ValueError.",
)
def wraps_around(model, token, cache):
    return step(model, token, cache, guard=False, wrap=True)


@wrong(
    "kv_cache_step",
    "You extend the cache that you were given. Whoever wants to try two continuations of one text finds "
    "both in "
    "it. Build a new list.",
)
def extends_in_place(model, token, cache):
    logits, new_cache = reference_step(model, token, cache)
    if cache is not None:
        cache[:] = new_cache
        return logits, cache
    return logits, new_cache


@wrong(
    "kv_cache_step",
    "Your cache has another layout, [batch, pos, n_heads, d_head]. It is [batch, n_heads, pos, d_head]: the length "
    "stands in dimension 2, and each head's keys lie together.",
)
def positions_before_heads(model, token, cache):
    if not model.cfg.d_mlp:
        return reference_step(model, token, cache)
    turned = cache and [tuple(part.transpose(1, 2) for part in pair) for pair in cache]
    logits, new_cache = step(model, token, turned)
    return logits, [tuple(part.transpose(1, 2) for part in pair) for pair in new_cache]


@wrong("kv_cache_step", "Each pair of your cache holds the values first. It is (keys, values).")
def values_before_keys(model, token, cache):
    logits, new_cache = step(model, token, cache)
    return logits, [(values, keys) for keys, values in new_cache]


@wrong(
    "kv_cache_step",
    "You put the new key and value in front of the old ones. The sum over the past does not care about their order, "
    "but whoever reads the cache does: position by position, the newest last.",
)
def newest_first(model, token, cache):
    logits, new_cache = step(model, token, cache)
    return logits, [tuple(part.roll(1, dims=2) for part in pair) for pair in new_cache]


@wrong(
    "kv_cache_step", "Your position is one too high. The length of the cache is the new token's place, counted from 0."
)
def one_position_late(model, token, cache):
    return step(model, token, cache, offset=1)


@wrong("kv_cache_step", "Your MLPs read the raw residual stream. In a block, the MLP reads ln2 of it.")
def without_ln2(model, token, cache):
    return step(model, token, cache, mlp_norm=False)


@wrong("kv_cache_step", "b_O is missing: it is added once in each layer, after the heads.")
def without_output_bias(model, token, cache):
    return step(model, token, cache, output_bias=False)


@wrong("kv_cache_step", "b_U is missing: it is added to the logits.")
def without_unembedding_bias(model, token, cache):
    logits, new_cache = step(model, token, cache)
    return logits - model.unembed.b_U, new_cache


@wrong("kv_cache_step", "Your logits keep a dimension for the one position. They should be [batch, d_vocab].")
def with_a_position(model, token, cache):
    logits, new_cache = step(model, token, cache)
    return logits[:, None], new_cache


@wrong("kv_cache_step", "These are log-probabilities. The model returns logits, and so does a step of it.")
def log_probabilities(model, token, cache):
    logits, new_cache = step(model, token, cache)
    return logits.log_softmax(-1), new_cache


@wrong(
    "kv_cache_step",
    "You run the model on the new token alone for its logits. So it stands at position 0 and has no past; the cache is "
    "filled and never read.",
)
def model_on_one_token(model, token, cache):
    _, new_cache = step(model, token, cache)
    return model(token[:, None])[:, -1], new_cache


@wrong(
    "kv_cache_step",
    "You call `block.mlp` in every model. Where cfg.d_mlp is 0, the blocks have neither mlp nor ln2.",
)
def mlp_in_every_model(model, token, cache):
    if not model.cfg.d_mlp:
        raise AttributeError("'TransformerBlock' object has no attribute 'mlp'")
    return step(model, token, cache)


@wrong(
    "kv_cache_step",
    "Your position is `len(cache)`, the number of layers. The new token's place is the number of positions that a "
    "layer's keys hold, dimension 2 of [batch, n_heads, pos, d_head].",
)
def layers_for_positions(model, token, cache):
    if not model.cfg.d_mlp:
        return reference_step(model, token, cache)
    return step(model, token, cache, position=0 if cache is None else len(cache), guard=False)


@wrong(
    "kv_cache_step",
    "Your scores are divided by the square root of d_model. Queries and keys are d_head long.",
)
def scaled_by_d_model(model, token, cache):
    return step(model, token, cache, scale="d_model")


@right("kv_cache_step")
@torch.no_grad()
def in_the_models_own_words(model, token, cache):
    position = 0 if cache is None else cache[0][0].shape[-2]
    if position >= len(model.pos_embed.W_pos):
        raise ValueError("no position left")
    resid, new_cache = model.embed.W_E[token] + model.pos_embed.W_pos[position], []
    for layer, block in enumerate(model.blocks):
        attn, x = block.attn, block.ln1(resid[:, None])[:, 0]
        query, key, value = (
            torch.einsum("bm,hmd->bhd", x, W) + b
            for W, b in ((attn.W_Q, attn.b_Q), (attn.W_K, attn.b_K), (attn.W_V, attn.b_V))
        )
        past = (key[:, :, None][:, :, :0], value[:, :, None][:, :, :0]) if cache is None else cache[layer]
        keys, values = (torch.cat([old, new[:, :, None]], dim=2) for old, new in zip(past, (key, value), strict=True))
        new_cache.append((keys, values))
        weights = ((keys @ query[..., None])[..., 0] / query.shape[-1] ** 0.5).softmax(-1)
        resid = resid + torch.einsum("bhk,bhkd,hdm->bm", weights, values, attn.W_O) + attn.b_O
        if hasattr(block, "mlp"):
            resid = resid + block.mlp(block.ln2(resid[:, None]))[:, 0]
    return model.ln_final(resid[:, None])[:, 0] @ model.unembed.W_U + model.unembed.b_U, new_cache


@right("kv_cache_step")
def loops_over_heads(model, token, cache):
    position = 0 if cache is None else cache[0][0].size(2)
    if position == model.cfg.n_ctx:
        raise ValueError("the context is full")
    resid = model.embed["W_E"][token][:, None, :] + model.pos_embed["W_pos"][position]
    new_cache = []
    for layer, block in enumerate(model.blocks):
        attn, x, out, pairs = block.attn, block.ln1(resid), 0, []
        for head in range(attn.W_Q.shape[0]):
            query = x @ attn.W_Q[head] + attn.b_Q[head]
            key, value = x @ attn.W_K[head] + attn.b_K[head], x @ attn.W_V[head] + attn.b_V[head]
            if cache is not None:
                key = torch.cat([cache[layer][0][:, head], key], dim=1)
                value = torch.cat([cache[layer][1][:, head], value], dim=1)
            pattern = torch.softmax(query @ key.mT * attn.W_Q.shape[-1] ** -0.5, dim=-1)
            out = out + pattern @ value @ attn.W_O[head]
            pairs.append((key, value))
        new_cache.append((torch.stack([k for k, _ in pairs], dim=1), torch.stack([v for _, v in pairs], dim=1)))
        resid = resid + out + attn.b_O
        resid = resid + block.mlp(block.ln2(resid)) if model.cfg.d_mlp else resid
    return (model.ln_final(resid) @ model.unembed["W_U"] + model.unembed["b_U"])[:, 0], new_cache
