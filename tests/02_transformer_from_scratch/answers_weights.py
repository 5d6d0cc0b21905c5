"""Wrong and right answers to the exercises on rewriting weights."""

from dataclasses import replace
from functools import wraps

import torch

from utils.course.catalogue import right, wrong
from utils.transformer.weights import center_writing_weights, fold_layer_norm


def readers(cfg):
    """(norm, weight, bias) of everything that reads a layer norm."""
    found = [("ln_final", "unembed.W_U", "unembed.b_U")]
    for i in range(cfg.n_layers):
        found += [(f"blocks.{i}.ln1", f"blocks.{i}.attn.W_{x}", f"blocks.{i}.attn.b_{x}") for x in "QKV"]
        found += [(f"blocks.{i}.ln2", f"blocks.{i}.mlp.W_in", f"blocks.{i}.mlp.b_in")] if cfg.d_mlp else []
    return found


def where_there_are_mlps(reference):
    """Make a mistake in models with MLPs only, so that a diagnosis also reaches an answer that can't read others."""

    def narrow(answer):
        @wraps(answer)
        def narrowed(state, cfg):
            return answer(state, cfg) if cfg.d_mlp else reference(state, cfg)

        return narrowed

    return narrow


def layer_norms(state):
    return {name: value for name, value in state.items() if ".ln" in f".{name}"}


def reset(state):
    norms = layer_norms(state)
    return {name: torch.full_like(value, float(name.endswith("w"))) for name, value in norms.items()}


def folded(state, triples, scale=lambda w, matrix: w[:, None] * matrix, shift=lambda w, b, matrix: b @ matrix):
    new = dict(state)
    for norm, weight, bias in triples:
        w, b, matrix = state[f"{norm}.w"], state[f"{norm}.b"], state[weight]
        new[weight], new[bias] = scale(w, matrix), state[bias] + shift(w, b, matrix)
    norms = {norm for norm, _, _ in triples}
    return new | {name: value for name, value in reset(state).items() if name[:-2] in norms}


# --- fold_layer_norm


@wrong(
    "fold_layer_norm",
    "The scales are folded, but the shifts are lost: b @ W is the same number for every input, so it "
    "belongs into the reader's bias.",
)
@where_there_are_mlps(fold_layer_norm)
def shifts_lost(state, cfg):
    return folded(state, readers(cfg), shift=lambda w, b, matrix: 0)


@wrong(
    "fold_layer_norm",
    "The readers are right, but the layer norms still have their w and b, so everything is applied twice.",
)
@where_there_are_mlps(fold_layer_norm)
def not_reset(state, cfg):
    return folded(state, readers(cfg)) | layer_norms(state)


@wrong(
    "fold_layer_norm",
    "Your shift goes through the scaled matrix, so it is multiplied by w on the way. In (x * w + b) @ W "
    "the scale touches x only: use W as it was for the bias.",
)
@where_there_are_mlps(fold_layer_norm)
def shift_scaled_too(state, cfg):
    return folded(state, readers(cfg), shift=lambda w, b, matrix: b @ (w[:, None] * matrix))


@wrong(
    "fold_layer_norm",
    "You reset a norm as soon as one of its readers is folded, and the next reader finds w = 1 and b = 0. Fold all "
    "readers first, or keep the old w and b.",
)
@where_there_are_mlps(fold_layer_norm)
def reset_too_early(state, cfg):
    for triple in readers(cfg):
        state = folded(state, [triple])
    return state


@wrong(
    "fold_layer_norm",
    "You centre the reading matrices as well, which `transformer_lens` does along with folding. The outputs agree, but "
    "here W' is W with its rows scaled by w, and nothing else.",
)
@where_there_are_mlps(fold_layer_norm)
def readers_centred_too(state, cfg):
    new = folded(state, readers(cfg))
    return new | {weight: new[weight] - new[weight].mean(dim=-2, keepdim=True) for _, weight, _ in readers(cfg)}


@wrong("fold_layer_norm", "You fold what is in the blocks, but ln_final has a reader too: the unembedding.")
@where_there_are_mlps(fold_layer_norm)
def final_norm_left(state, cfg):
    return folded(state, readers(cfg)[1:])


@wrong("fold_layer_norm", "ln1 and ln_final are folded, ln2 is not: the MLP's W_in and b_in read it.")
@where_there_are_mlps(fold_layer_norm)
def mlp_left(state, cfg):
    return folded(state, [triple for triple in readers(cfg) if ".mlp." not in triple[1]])


@wrong(
    "fold_layer_norm",
    "Queries and keys are folded, values are not. All three read ln1: after the reset, W_V and b_V miss "
    "its scale and shift.",
)
@where_there_are_mlps(fold_layer_norm)
def values_left(state, cfg):
    return folded(state, [triple for triple in readers(cfg) if not triple[1].endswith("W_V")])


@wrong("fold_layer_norm", "Only block 0 is folded. How many blocks does the config say there are?")
@where_there_are_mlps(fold_layer_norm)
def first_block_only(state, cfg):
    found = readers(cfg)
    return folded(state, [triple for triple in found if triple[0].startswith(("blocks.0.", "ln_final"))])


@wrong("fold_layer_norm", "The last block is not folded. Block numbers run from 0 to n_layers - 1, the last included.")
@where_there_are_mlps(fold_layer_norm)
def last_block_left(state, cfg):
    return folded(state, [triple for triple in readers(cfg) if f"blocks.{cfg.n_layers - 1}." not in triple[0]])


@wrong(
    "fold_layer_norm",
    "You divide by w. To take the scale out of the norm, the matrix behind it has to do the same multiplication.",
)
@where_there_are_mlps(fold_layer_norm)
def divided(state, cfg):
    return folded(state, readers(cfg), scale=lambda w, matrix: matrix / w[:, None])


@wrong(
    "fold_layer_norm",
    "You remove the layer norms' names. Then `Transformer` can't load the result: a norm with w = 1 and "
    "b = 0 should stay in its place.",
)
@where_there_are_mlps(fold_layer_norm)
def names_removed(state, cfg):
    new = folded(state, readers(cfg))
    return {name: value for name, value in new.items() if name not in layer_norms(state)}


@wrong("fold_layer_norm", "Attention reads ln1 and the MLP reads ln2; here it is the other way round.")
@where_there_are_mlps(fold_layer_norm)
def norms_swapped(state, cfg):
    other = {"ln1": "ln2", "ln2": "ln1"}
    swapped = [(norm[:-3] + other.get(norm[-3:], norm[-3:]), *names) for norm, *names in readers(cfg)]
    return folded(state, swapped)


@wrong(
    "fold_layer_norm",
    "Your numbers are right, but they come back in float32 whatever they were: every float64 weight has "
    "lost half of its digits.",
)
@where_there_are_mlps(fold_layer_norm)
def single_precision(state, cfg):
    return {name: value.float() for name, value in fold_layer_norm(state, cfg).items()}


@wrong(
    "fold_layer_norm",
    "You write into what you were given: into the dict (`state[name] = ...`) or into its tensors (`*=`, `+=`, methods "
    "ending in `_`). Whoever passed it finds other weights in it: begin with copies (`dict(state)` copies the names, "
    "and not the tensors).",
)
@where_there_are_mlps(fold_layer_norm)
def in_place(state, cfg):
    for name, value in fold_layer_norm(state, cfg).items():
        state[name].copy_(value)
    return dict(state)


@wrong("fold_layer_norm", "Queries and values are folded, keys are not. All three read ln1.")
@where_there_are_mlps(fold_layer_norm)
def keys_left(state, cfg):
    return folded(state, [triple for triple in readers(cfg) if not triple[1].endswith("W_K")])


@wrong("fold_layer_norm", "Keys and values are folded, queries are not. All three read ln1.")
@where_there_are_mlps(fold_layer_norm)
def queries_left(state, cfg):
    return folded(state, [triple for triple in readers(cfg) if not triple[1].endswith("W_Q")])


@wrong("fold_layer_norm", "The norms keep their shift b, so it is added twice: in the norm and in the reader's bias.")
@where_there_are_mlps(fold_layer_norm)
def shifts_not_reset(state, cfg):
    kept = {name: value for name, value in layer_norms(state).items() if name.endswith(".b")}
    return folded(state, readers(cfg)) | kept


@wrong(
    "fold_layer_norm", "The norms keep their scale w, so it is applied twice: in the norm and in the reader's matrix."
)
@where_there_are_mlps(fold_layer_norm)
def scales_not_reset(state, cfg):
    kept = {name: value for name, value in layer_norms(state).items() if name.endswith(".w")}
    return folded(state, readers(cfg)) | kept


@wrong("fold_layer_norm", "You subtract the shift. It is added to the reader's bias: c' = c + b W.")
@where_there_are_mlps(fold_layer_norm)
def shifts_subtracted(state, cfg):
    return folded(state, readers(cfg), shift=lambda w, b, matrix: -(b @ matrix))


@wrong("fold_layer_norm", "The new w and b are float32 whatever the state was: `torch.ones_like` takes over the dtype.")
@where_there_are_mlps(fold_layer_norm)
def new_norms_in_float32(state, cfg):
    new = folded(state, readers(cfg))
    return new | {name: new[name].float() for name in layer_norms(new)}


@wrong(
    "fold_layer_norm",
    "You look for ln2 and W_in in every model. Where cfg.d_mlp is 0, the blocks have no MLP, and the state has no such "
    "names.",
)
def ln2_in_every_model(state, cfg):
    return fold_layer_norm(state, cfg if cfg.d_mlp else replace(cfg, d_mlp=1))


@right("fold_layer_norm")
def through_helper(state, cfg):
    return folded(state, readers(cfg))


@right("fold_layer_norm")
def head_by_head(state, cfg):
    new = {name: value.clone() for name, value in state.items()}
    for i in range(cfg.n_layers):
        w, b = state[f"blocks.{i}.ln1.w"], state[f"blocks.{i}.ln1.b"]
        for x in "QKV":
            for head in range(cfg.n_heads):
                matrix = state[f"blocks.{i}.attn.W_{x}"][head]
                new[f"blocks.{i}.attn.b_{x}"][head] += (b[:, None] * matrix).sum(0)
                new[f"blocks.{i}.attn.W_{x}"][head] = torch.diag(w) @ matrix
    return folded(new, [triple for triple in readers(cfg) if ".attn." not in triple[1]]) | reset(state)


# --- center_writing_weights


def writers(cfg):
    names = ("attn.W_O", "attn.b_O", "mlp.W_out", "mlp.b_out") if cfg.d_mlp else ("attn.W_O", "attn.b_O")
    in_blocks = [f"blocks.{i}.{name}" for i in range(cfg.n_layers) for name in names]
    return ["embed.W_E", "pos_embed.W_pos", *in_blocks]


def centred(state, names, dim=-1):
    return dict(state) | {name: state[name] - state[name].mean(dim=dim, keepdim=True) for name in names}


@wrong(
    "center_writing_weights",
    "You take the mean over a matrix's first dimension (tokens, positions, heads, neurons). What a layer "
    "norm removes is the mean over d_model, which is always the last one here.",
)
@where_there_are_mlps(center_writing_weights)
def over_rows(state, cfg):
    return centred(state, writers(cfg), dim=0)


@wrong(
    "center_writing_weights",
    "Both tables are centred over their rows: you take out the average token and the average position. What a layer "
    "norm removes is each vector's own mean over d_model, the last dimension.",
)
@where_there_are_mlps(center_writing_weights)
def average_token_taken_out(state, cfg):
    tables = ("embed.W_E", "pos_embed.W_pos")
    return centred(centred(state, [name for name in writers(cfg) if name not in tables]), tables, dim=0)


@wrong(
    "center_writing_weights",
    "W_E is centred over its rows: you take out the average token. What a layer norm removes is each vector's own mean "
    "over d_model, the last dimension.",
)
@where_there_are_mlps(center_writing_weights)
def average_row_of_the_tokens(state, cfg):
    return centred(centred(state, [name for name in writers(cfg) if name != "embed.W_E"]), ["embed.W_E"], dim=0)


@wrong(
    "center_writing_weights",
    "Matrices are centred, biases are not. b_O and b_out are written into the stream as well, at every position.",
)
@where_there_are_mlps(center_writing_weights)
def biases_left(state, cfg):
    return centred(state, [name for name in writers(cfg) if ".b_" not in name])


@wrong(
    "center_writing_weights",
    "W_pos is not centred: the positional embedding writes into the stream just as the token embedding does.",
)
@where_there_are_mlps(center_writing_weights)
def positions_left(state, cfg):
    return centred(state, [name for name in writers(cfg) if "W_pos" not in name])


@wrong(
    "center_writing_weights",
    "You centre the blocks and leave both embeddings, the stream's first writers, as they are.",
)
@where_there_are_mlps(center_writing_weights)
def embeddings_left(state, cfg):
    return centred(state, [name for name in writers(cfg) if name.startswith("blocks.")])


@wrong(
    "center_writing_weights",
    "These are the weights that read the stream (W_Q, W_K, W_V, W_in). What you want is what writes: "
    "which parameters have d_model as their last dimension?",
)
@where_there_are_mlps(center_writing_weights)
def readers_centred(state, cfg):
    names = ("attn.W_Q", "attn.W_K", "attn.W_V", "mlp.W_in")
    return centred(state, [f"blocks.{i}.{name}" for i in range(cfg.n_layers) for name in names], dim=-2)


@wrong(
    "center_writing_weights",
    "You subtract one number from a whole matrix, its overall mean. Each vector that can be written "
    "needs a mean of its own.",
)
@where_there_are_mlps(center_writing_weights)
def one_mean(state, cfg):
    return dict(state) | {name: state[name] - state[name].mean() for name in writers(cfg)}


@wrong(
    "center_writing_weights",
    "You also divide by the standard deviation. That changes how much each part writes compared with the "
    "others, and with it the logits.",
)
@where_there_are_mlps(center_writing_weights)
def standardised(state, cfg):
    new = centred(state, writers(cfg))
    return new | {name: new[name] / new[name].std(dim=-1, keepdim=True) for name in writers(cfg)}


@wrong("center_writing_weights", "Only block 0 is centred. How many blocks does the config say there are?")
@where_there_are_mlps(center_writing_weights)
def only_the_first_block(state, cfg):
    return centred(state, [name for name in writers(cfg) if not name.startswith("blocks.") or ".0." in name])


@wrong(
    "center_writing_weights",
    "You centre the unembedding over the vocabulary as well. That leaves probabilities alone, but it "
    "moves the logits, and W_U reads the stream, it doesn't write to it.",
)
@where_there_are_mlps(center_writing_weights)
def unembedding_too(state, cfg):
    return centred(state, [*writers(cfg), "unembed.W_U", "unembed.b_U"])


@wrong("center_writing_weights", "The numbers are right, but they come back in float32 whatever they were.")
@where_there_are_mlps(center_writing_weights)
def centred_in_single_precision(state, cfg):
    return {name: value.float() for name, value in center_writing_weights(state, cfg).items()}


@wrong(
    "center_writing_weights",
    "You write into what you were given: into the dict (`state[name] = ...`) or into its tensors (`-=`, `sub_`). "
    "Whoever passed it finds other weights in it: begin with copies (`dict(state)` copies the names, "
    "and not the tensors).",
)
@where_there_are_mlps(center_writing_weights)
def centred_in_place(state, cfg):
    for name in writers(cfg):
        state[name] -= state[name].mean(dim=-1, keepdim=True)
    return dict(state)


@wrong("center_writing_weights", "W_O is not centred. Each head writes through it.")
@where_there_are_mlps(center_writing_weights)
def heads_left(state, cfg):
    return centred(state, [name for name in writers(cfg) if "W_O" not in name])


@wrong("center_writing_weights", "W_out is not centred. The MLP writes through it.")
@where_there_are_mlps(center_writing_weights)
def mlps_left(state, cfg):
    return centred(state, [name for name in writers(cfg) if "W_out" not in name])


@wrong("center_writing_weights", "W_E is not centred: the token embedding is the stream's first writer.")
@where_there_are_mlps(center_writing_weights)
def tokens_left(state, cfg):
    return centred(state, [name for name in writers(cfg) if "W_E" not in name])


@wrong("center_writing_weights", "You centre b_U as well. It is added to logits and never reaches the stream.")
@where_there_are_mlps(center_writing_weights)
def unembedding_bias_too(state, cfg):
    return centred(state, [*writers(cfg), "unembed.b_U"])


@wrong(
    "center_writing_weights", "You return only what you centred. All names should come back, the others as they were."
)
@where_there_are_mlps(center_writing_weights)
def others_dropped(state, cfg):
    return {name: value for name, value in centred(state, writers(cfg)).items() if name in writers(cfg)}


@wrong(
    "center_writing_weights",
    "You look for W_out and b_out in every model. Where cfg.d_mlp is 0, the blocks have no MLP, and the state has no "
    "such names.",
)
def mlps_in_every_model(state, cfg):
    return center_writing_weights(state, cfg if cfg.d_mlp else replace(cfg, d_mlp=1))


@right("center_writing_weights")
def by_projection(state, cfg):
    ones = torch.ones(cfg.d_model, dtype=state["embed.W_E"].dtype)
    projection = torch.diag(ones) - torch.outer(ones, ones) / cfg.d_model
    return {name: value @ projection if name in writers(cfg) else value for name, value in state.items()}


@right("center_writing_weights")
def by_name_endings(state, cfg):
    new = {}
    for name, value in state.items():
        if name.rsplit(".", 1)[-1] in ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out"):
            value = value - value.sum(-1, keepdim=True) / cfg.d_model
        new[name] = value.clone()
    return new
