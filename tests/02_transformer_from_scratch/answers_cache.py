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
    see_itself=True,
    layer_of=lambda layer: layer,
    keep=True,
    final_norm=True,
    normed=True,
    masked=False,
    wrap=False,
    guard=True,
):
    """One step of decoding, with switches for what can go wrong in it."""
    length = 0 if cache is None else cache[0][0].shape[2]
    if guard and length >= model.pos_embed.W_pos.shape[0]:
        raise ValueError("no position left")
    W_pos = model.pos_embed.W_pos
    place = length % len(W_pos) if wrap else length
    resid = model.embed.W_E[token] + W_pos[place if position is None else position]
    new_cache = []
    for layer, block in enumerate(model.blocks):
        attn = block.attn
        x = block.ln1(resid[:, None])[:, 0] if normed else resid
        query = einsum(x, attn.W_Q, "b m, h m d -> b h d") + attn.b_Q
        key = einsum(x, attn.W_K, "b m, h m d -> b h d") + attn.b_K * key_bias
        value = einsum(x, attn.W_V, "b m, h m d -> b h d") + attn.b_V
        keys, values = key[:, :, None], value[:, :, None]
        if cache is not None:
            old_keys, old_values = cache[layer_of(layer)]
            keys, values = torch.cat([old_keys, keys], 2), torch.cat([old_values, values], 2)
        new_cache.append((keys, values) if keep else (key[:, :, None], value[:, :, None]))
        seen = slice(None) if see_itself or cache is None else slice(0, -1)
        scores = einsum(query, keys[:, :, seen], "b h d, b h k d -> b h k") / (
            math.sqrt(query.shape[-1]) if scale else 1
        )
        if masked:
            scores[..., 1:] = -torch.inf
        z = einsum(scores.softmax(-1), values[:, :, seen], "b h k, b h k d -> b h d")
        resid = resid + einsum(z, attn.W_O, "b h d, h d m -> b m") + attn.b_O
        resid = resid + block.mlp(block.ln2(resid[:, None]))[:, 0]
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


@right("kv_cache_step")
@torch.no_grad()
def one_row_at_a_time(model, token, cache):
    return step(model, token, cache)


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
        resid = resid + block.mlp(block.ln2(resid))
    return (model.ln_final(resid) @ model.unembed["W_U"] + model.unembed["b_U"])[:, 0], new_cache
