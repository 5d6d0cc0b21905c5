"""Wrong and right answers to the exercises on counting."""

from collections import Counter
from dataclasses import replace

import torch

from utils.course.catalogue import right, wrong
from utils.transformer.accounting import attention_flops, count_parameters
from utils.transformer.model import Transformer


def summed(counts):
    parts = {name: value for name, value in counts.items() if name != "total"}
    return parts | {"total": sum(parts.values())}


# --- count_parameters


@wrong(
    "count_parameters",
    "Your attention counts 4 * d_model^2, which presumes n_heads * d_head = d_model. That is a habit and "
    "not a law; count from the shapes.",
)
def heads_fill_the_model(cfg):
    counts = count_parameters(cfg)
    return summed(counts | {"attention": cfg.n_layers * 4 * (cfg.d_model**2 + cfg.d_model)})


@wrong(
    "count_parameters",
    "Your attention counts 4 * d_model^2 and nothing else. That presumes n_heads * d_head = d_model, and leaves out "
    "b_Q, b_K, b_V and b_O; count from the shapes.",
)
def four_squares(cfg):
    return summed(count_parameters(cfg) | {"attention": cfg.n_layers * 4 * cfg.d_model**2})


@wrong("count_parameters", "Your MLP is 4 * d_model wide. The config's d_mlp says how wide it is.")
def four_times_wide(cfg):
    return count_parameters(replace(cfg, d_mlp=4 * cfg.d_model) if cfg.d_mlp else cfg)


@wrong(
    "count_parameters",
    "Matrices are counted, biases are not. b_Q, b_K, b_V, b_O, b_in, b_out and b_U are trained as well.",
)
def no_biases(cfg):
    all_heads = cfg.n_heads * cfg.d_head
    return summed(
        count_parameters(cfg)
        | {
            "attention": cfg.n_layers * 4 * cfg.d_model * all_heads,
            "mlp": cfg.n_layers * 2 * cfg.d_model * cfg.d_mlp,
            "unembed": cfg.d_model * cfg.d_vocab,
        }
    )


@wrong(
    "count_parameters",
    "b_O is counted once for each head. It belongs to the layer: d_model numbers, whatever n_heads is.",
)
def output_bias_per_head(cfg):
    counts = count_parameters(cfg)
    too_many = cfg.n_layers * (cfg.n_heads - 1) * cfg.d_model
    return summed(counts | {"attention": counts["attention"] + too_many})


@wrong(
    "count_parameters", "The final layer norm is missing: two norms in each block, and one more before the unembedding."
)
def final_norm_missing(cfg):
    counts = count_parameters(cfg)
    return summed(counts | {"layer_norm": counts["layer_norm"] - 2 * cfg.d_model})


@wrong("count_parameters", "A layer norm has a scale and a shift, 2 * d_model numbers; you count d_model.")
def scales_only(cfg):
    counts = count_parameters(cfg)
    return summed(counts | {"layer_norm": counts["layer_norm"] // 2})


@wrong("count_parameters", "Attention and MLP are counted for one layer. The groups are over all layers.")
def one_layer(cfg):
    counts = count_parameters(cfg)
    single = count_parameters(replace(cfg, n_layers=1))
    return summed(counts | {name: single[name] for name in ("attention", "mlp")})


@wrong("count_parameters", "b_U is missing: each token of the vocabulary has a bias of its own.")
def unembedding_bias_missing(cfg):
    return summed(count_parameters(cfg) | {"unembed": cfg.d_model * cfg.d_vocab})


@wrong(
    "count_parameters",
    "Your total leaves out the embeddings, as papers on scaling laws do. Here it is everything that "
    "training can change.",
)
def without_embeddings(cfg):
    counts = count_parameters(cfg)
    return counts | {"total": counts["attention"] + counts["mlp"] + counts["layer_norm"]}


@wrong(
    "count_parameters",
    "You count W_U as shared with W_E. In GPT-2 the two are one matrix; this course's transformer has both.",
)
def tied(cfg):
    return summed(count_parameters(cfg) | {"unembed": cfg.d_vocab})


@wrong(
    "count_parameters",
    "With d_mlp = 0 you still count b_out and ln2. Blocks of attention alone have neither.",
)
def parts_of_no_mlp(cfg):
    counts = count_parameters(cfg)
    mlp = cfg.n_layers * (2 * cfg.d_model * cfg.d_mlp + cfg.d_mlp + cfg.d_model)
    return summed(counts | {"mlp": mlp, "layer_norm": (2 * cfg.n_layers + 1) * 2 * cfg.d_model})


@wrong("count_parameters", "With d_mlp = 0 you still count ln2. Blocks of attention alone have one layer norm each.")
def norms_of_no_mlp(cfg):
    return summed(count_parameters(cfg) | {"layer_norm": (2 * cfg.n_layers + 1) * 2 * cfg.d_model})


@wrong("count_parameters", "b_Q, b_K and b_V are missing: d_head numbers each, for every head of every layer.")
def no_biases_of_heads(cfg):
    counts = count_parameters(cfg)
    missing = 3 * cfg.n_layers * cfg.n_heads * cfg.d_head
    return summed(counts | {"attention": counts["attention"] - missing})


@wrong("count_parameters", "b_O is missing: d_model numbers in each attention layer.")
def no_output_bias(cfg):
    counts = count_parameters(cfg)
    return summed(counts | {"attention": counts["attention"] - cfg.n_layers * cfg.d_model})


@wrong("count_parameters", "b_in and b_out are missing: d_mlp and d_model numbers in each MLP.")
def no_biases_of_mlp(cfg):
    counts = count_parameters(cfg)
    missing = cfg.n_layers * (cfg.d_mlp + cfg.d_model) if cfg.d_mlp else 0
    return summed(counts | {"mlp": counts["mlp"] - missing})


@wrong("count_parameters", "Your layer counts one norm. A block with an MLP has two, ln1 and ln2.")
def one_norm_in_each_block(cfg):
    return summed(count_parameters(cfg) | {"layer_norm": (cfg.n_layers + 1) * 2 * cfg.d_model})


@wrong("count_parameters", "Attention is counted for one head. Every head has matrices and biases of its own.")
def one_heads_parameters(cfg):
    return summed(count_parameters(cfg) | {"attention": count_parameters(replace(cfg, n_heads=1))["attention"]})


@wrong("count_parameters", "Your total adds up everything in the dict, itself included.")
def counted_twice(cfg):
    counts = count_parameters(cfg)
    return counts | {"total": 2 * counts["total"]}


@wrong(
    "count_parameters", "Your counts are floats. A count is a whole number; use `//` where you must divide, or do not."
)
def as_floats(cfg):
    return {name: float(value) for name, value in count_parameters(cfg).items()}


@wrong(
    "count_parameters",
    "You take d_model // n_heads for the width of a head. That is a habit and not a law, and it drops a remainder: the "
    "config's d_head says how wide a head is.",
)
def width_by_whole_division(cfg):
    return count_parameters(replace(cfg, d_head=cfg.d_model // cfg.n_heads))


@wrong(
    "count_parameters",
    "You count b_O like the biases of queries, keys and values, n_heads * d_head numbers. It is added to the stream: "
    "d_model numbers.",
)
def output_bias_of_all_heads(cfg):
    counts = count_parameters(cfg)
    more = cfg.n_layers * (cfg.n_heads * cfg.d_head - cfg.d_model)
    return summed(counts | {"attention": counts["attention"] + more})


@right("count_parameters")
def from_shapes(cfg):
    d, h, k, m, v = cfg.d_model, cfg.n_heads, cfg.d_head, cfg.d_mlp, cfg.d_vocab
    attention, mlp = 3 * (h * d * k + h * k) + h * k * d + d, (d * m + m + m * d + d) * (m > 0)
    block = {"attention": attention, "mlp": mlp, "layer_norm": d + d + (d + d) * (m > 0)}
    counts = {"unembed": d * v + v, "embed": v * d, "pos_embed": cfg.n_ctx * d}
    counts |= {name: sum(value for _ in range(cfg.n_layers)) for name, value in block.items()}
    counts["layer_norm"] += 2 * d
    counts["total"] = sum(counts.values())
    return counts


@right("count_parameters")
def from_a_module(cfg):
    with torch.device("meta"):
        counts = Counter({"total": 0, "attention": 0, "mlp": 0})
        for name, parameter in Transformer(cfg).named_parameters():
            part = name.split(".")[2 if name.startswith("blocks.") else 0]
            group = "layer_norm" if part.startswith("ln") else "attention" if part == "attn" else part
            counts.update({group: parameter.numel(), "total": parameter.numel()})
    return dict(counts)


# --- attention_flops


@wrong(
    "attention_flops",
    "You count each multiplication with its addition as one. In this count (and in most papers) they are "
    "two operations.",
)
def multiply_adds(cfg, n_ctx):
    return {name: value // 2 for name, value in attention_flops(cfg, n_ctx).items()}


@wrong(
    "attention_flops",
    "Your scores and weighted values leave out the masked pairs. The straightforward computation makes "
    "the whole square and masks afterwards, so it pays for all n_ctx^2 pairs.",
)
def masked_pairs_free(cfg, n_ctx):
    if n_ctx < 1:
        raise ValueError
    flops = attention_flops(cfg, n_ctx)
    pairs = n_ctx * (n_ctx + 1) * cfg.n_heads * cfg.d_head
    return summed(flops | {"scores": pairs, "weighted_values": pairs})


@wrong("attention_flops", "You count at the length cfg.n_ctx instead of at the argument n_ctx.")
def length_of_the_config(cfg, n_ctx):
    if n_ctx < 1:
        raise ValueError
    return attention_flops(cfg, cfg.n_ctx)


@wrong("attention_flops", "This is one head's share. The count is for all heads of the layer.")
def one_head(cfg, n_ctx):
    return attention_flops(replace(cfg, n_heads=1), n_ctx)


@wrong("attention_flops", "You count all layers. The count is for one attention layer.")
def all_layers(cfg, n_ctx):
    return {name: cfg.n_layers * value for name, value in attention_flops(cfg, n_ctx).items()}


@wrong("attention_flops", "'qkv' counts one projection. Queries, keys and values are three.")
def queries_only(cfg, n_ctx):
    flops = attention_flops(cfg, n_ctx)
    return summed(flops | {"qkv": flops["qkv"] // 3})


@wrong(
    "attention_flops",
    "Your head width is d_model / n_heads. The config's d_head says what it is, and the two need not agree.",
)
def divided_width(cfg, n_ctx):
    if n_ctx < 1:
        raise ValueError
    n, d = n_ctx, cfg.d_model
    pairs = 2 * n * n * d
    return summed({"qkv": 6 * n * d * d, "scores": pairs, "weighted_values": pairs, "output": 2 * n * d * d})


@wrong(
    "attention_flops",
    "Your scores and weighted values grow linearly with the length. Every position is compared with "
    "every position: that is n_ctx^2 dot products of length d_head in each head.",
)
def linear_scores(cfg, n_ctx):
    flops = attention_flops(cfg, n_ctx)
    return summed(flops | {name: flops[name] // n_ctx for name in ("scores", "weighted_values")})


@wrong(
    "attention_flops",
    "A length of 0 or less goes through. The docstring asks for a ValueError there.",
)
def any_length(cfg, n_ctx):
    n, d, w = n_ctx, cfg.d_model, cfg.n_heads * cfg.d_head
    pairs = 2 * n * n * w
    return summed({"qkv": 6 * n * d * w, "scores": pairs, "weighted_values": pairs, "output": 2 * n * d * w})


@wrong("attention_flops", "'output' counts one head. W_O has n_heads * d_head rows in all.")
def output_of_one_head(cfg, n_ctx):
    flops = attention_flops(cfg, n_ctx)
    return summed(flops | {"output": flops["output"] // cfg.n_heads})


@wrong("attention_flops", "'scores' and 'weighted_values' count one head. Every head makes its own square of scores.")
def scores_of_one_head(cfg, n_ctx):
    flops = attention_flops(cfg, n_ctx)
    return summed(flops | {name: flops[name] // cfg.n_heads for name in ("scores", "weighted_values")})


@wrong(
    "attention_flops",
    "You count the additions exactly, one less than the products. The usual count, and this one, is 2abc.",
)
def one_addition_less(cfg, n_ctx):
    flops, w = attention_flops(cfg, n_ctx), cfg.n_heads * cfg.d_head
    saved = {"qkv": 3 * n_ctx * w, "scores": n_ctx**2 * cfg.n_heads, "weighted_values": n_ctx * w}
    saved["output"] = n_ctx * cfg.d_model
    return summed({name: flops[name] - saved[name] for name in saved})


@wrong("attention_flops", "The biases are in your 'qkv'. Only the matrix products are counted.")
def biases_counted(cfg, n_ctx):
    flops = attention_flops(cfg, n_ctx)
    return summed(flops | {"qkv": flops["qkv"] + 3 * n_ctx * cfg.n_heads * cfg.d_head})


@wrong(
    "attention_flops",
    "You refuse lengths beyond cfg.n_ctx. This is a calculation, and any length of at least 1 is fine.",
)
def refuses_long_texts(cfg, n_ctx):
    if not 1 <= n_ctx <= cfg.n_ctx:
        raise ValueError(n_ctx)
    return attention_flops(cfg, n_ctx)


@wrong("attention_flops", "Your counts are floats. A count is a whole number: multiply, and do not divide.")
def flops_as_floats(cfg, n_ctx):
    return {name: float(value) for name, value in attention_flops(cfg, n_ctx).items()}


@wrong(
    "attention_flops",
    "You take d_model // n_heads for the width of a head, which also drops a remainder. The config's d_head says what "
    "it is, and the two need not agree.",
)
def width_rounded_down(cfg, n_ctx):
    return attention_flops(replace(cfg, d_head=cfg.d_model // cfg.n_heads), n_ctx)


@right("attention_flops")
def matrix_products(cfg, n_ctx):
    def product(a, b, c):
        return 2 * a * b * c

    if n_ctx <= 0:
        raise ValueError("n_ctx must be positive")
    head = {
        "qkv": 3 * product(n_ctx, cfg.d_model, cfg.d_head),
        "scores": product(n_ctx, cfg.d_head, n_ctx),
        "weighted_values": product(n_ctx, n_ctx, cfg.d_head),
        "output": product(n_ctx, cfg.d_head, cfg.d_model),
    }
    counts = {name: cfg.n_heads * value for name, value in head.items()}
    counts["total"] = sum(counts.values())
    return counts


@right("attention_flops")
def one_long_sum(cfg, n_ctx):
    if n_ctx < 1:
        raise ValueError(n_ctx)
    w = cfg.n_heads * cfg.d_head
    return {
        "total": 4 * n_ctx * w * (2 * cfg.d_model + n_ctx),
        "output": 2 * n_ctx * cfg.d_model * w,
        "qkv": 6 * n_ctx * cfg.d_model * w,
        "weighted_values": 2 * n_ctx**2 * w,
        "scores": 2 * n_ctx**2 * w,
    }
