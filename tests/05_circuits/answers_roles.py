"""Wrong answers for the roles of heads, each with its sentence, and right ones."""

import torch

from utils.circuits.effects import direct_effects, heads_replaced, outputs_at
from utils.circuits.ioi import answer_difference
from utils.circuits.knockout import attention_of_all_heads
from utils.course.catalogue import right, wrong
from utils.patching.hooks import run_with_cache, run_with_hooks

# name_mover_scores


def looks(model, tokens, queries, keys):
    rows = torch.arange(len(tokens))
    return torch.stack([p[rows, :, queries, keys] for p in attention_of_all_heads(model, tokens)], dim=1)


def scores(model, tokens, at, s=("S1", "S2"), query="END", sign=1):
    return {
        "to IO": looks(model, tokens, at[query], at["IO"]),
        "to S": sum(looks(model, tokens, at[query], at[place]) for place in s),
        "direct": sign * direct_effects(model, tokens, tokens, at).heads,
    }


@wrong(
    "name_mover_scores",
    "Your attention to S leaves out S2. The name stands in two places, and a head may read it in either.",
)
def first_mention_only(model, tokens, at):
    return scores(model, tokens, at, s=("S1",))


@wrong(
    "name_mover_scores",
    "Your attention to S leaves out S1. The name stands in two places, and a head may read it in either.",
)
def second_mention_only(model, tokens, at):
    return scores(model, tokens, at, s=("S2",))


@wrong(
    "name_mover_scores",
    "You look from S2. What is said next is read off END, and only what a head gathers there can move a name into "
    "the answer.",
)
def from_s2(model, tokens, at):
    return scores(model, tokens, at, query="S2")


@wrong(
    "name_mover_scores",
    "Your 'direct' is S over IO: the signs are turned round. A head that helps should come out positive.",
)
def turned_round(model, tokens, at):
    return scores(model, tokens, at, sign=-1)


@wrong(
    "name_mover_scores",
    "You look from the last column. In a row that is shorter than the others, what stands there only fills it up: "
    "its own "
    "END comes before.",
)
def from_the_last_column(model, tokens, at):
    return scores(model, tokens, at | {"END": torch.full_like(at["END"], tokens.shape[1] - 1)}) | {
        "direct": direct_effects(model, tokens, tokens, at).heads
    }


def written(model, tokens, at, write):
    """The scores with another 'direct': ``write(what the heads write, the run's divisor)`` are logits."""
    rows, sites = torch.arange(len(tokens)), [f"blocks.{layer}.attn.hook_z" for layer in range(len(model.blocks))]
    _, cache = run_with_cache(model, tokens, [*sites, "ln_final.hook_scale"])
    each = [
        torch.einsum("nhd,hdm->nhm", cache[site][rows, at["END"]], model.W_O[layer]) for layer, site in enumerate(sites)
    ]
    out = torch.stack(each, dim=1)
    logits = write(out, cache["ln_final.hook_scale"][rows, at["END"]][:, None, None])
    io, s = tokens[rows, at["IO"]], tokens[rows, at["S2"]]
    return scores(model, tokens, at) | {"direct": logits[rows, :, :, io] - logits[rows, :, :, s]}


@wrong(
    "name_mover_scores",
    "You send each head's output through the final norm by itself, so that it is divided by its own size. In the run "
    "it is divided by that of the whole stream: take the run's divisor.",
)
def its_own_divisor(model, tokens, at):
    return written(
        model, tokens, at, lambda out, _: model.unembed(model.ln_final(out.flatten(1, 2))).unflatten(1, out.shape[1:3])
    )


@wrong(
    "name_mover_scores",
    "You leave out the final norm. What a head writes is centred, divided and weighed before the unembedding reads it.",
)
def without_the_norm(model, tokens, at):
    return written(model, tokens, at, lambda out, _: out @ model.W_U)


@wrong(
    "name_mover_scores",
    "You leave out the weights of the final norm, `ln_final.w`: each dimension is weighed before the unembedding.",
)
def without_the_norms_weights(model, tokens, at):
    return written(model, tokens, at, lambda out, scale: (out - out.mean(-1, keepdim=True)) / scale @ model.W_U)


@wrong(
    "name_mover_scores",
    "You average over the prompts. The prompt is the independent unit: without its own numbers nobody can give an "
    "interval.",
)
def averaged(model, tokens, at):
    return {name: values.mean(0) for name, values in scores(model, tokens, at).items()}


@wrong(
    "name_mover_scores",
    "Query and key are exchanged: you ask how much the names look at END, which comes later. That is 0.",
)
def keys_and_queries(model, tokens, at):
    found = {name: looks(model, tokens, at[name], at["END"]) for name in ("IO", "S1", "S2")}
    return {
        "to IO": found["IO"], "to S": found["S1"] + found["S2"],
        "direct": direct_effects(model, tokens, tokens, at).heads,
    }  # fmt: skip


@right("name_mover_scores")
def row_by_row(model, tokens, at):
    patterns = attention_of_all_heads(model, tokens)
    found = {"to IO": [], "to S": []}
    for i in range(len(tokens)):
        rows = [p[i, :, at["END"][i]] for p in patterns]
        found["to IO"].append(torch.stack([r[:, at["IO"][i]] for r in rows]))
        found["to S"].append(torch.stack([r[:, [at["S1"][i], at["S2"][i]]].sum(1) for r in rows]))
    return {k: torch.stack(v) for k, v in found.items()} | {"direct": direct_effects(model, tokens, tokens, at).heads}


# copy_score


def copied(
    model, layer, head, tokens, k=5, sign=1, norm=True, bias=True, output_bias=False, place=-1, final=True, always=None,
    values="W_V",
):  # fmt: skip
    if sign not in (1, -1):
        raise ValueError("sign")
    block = model.blocks[layer]
    site = always or ("blocks.0.hook_resid_post" if layer else "blocks.0.hook_resid_pre")
    _, cache = run_with_cache(model, tokens, [site])
    x = cache[site]
    x = (block.ln1(x) if norm else x)[:, place]
    z = x @ getattr(block.attn, values)[head] + (block.attn.b_V[head] if bias else 0)
    written = z @ block.attn.W_O[head] + (block.attn.b_O if output_bias else 0)
    written = sign * written
    logits = model.unembed(model.ln_final(written[:, None]) if final else written[:, None])[:, 0]
    return (logits.topk(k).indices == tokens[:, place, None]).any(-1).float().mean()


@wrong("copy_score", "You leave out the layer's first norm: no head reads the stream without it.")
def no_norm(model, layer, head, tokens, *, k=5, sign=1):
    return copied(model, layer, head, tokens, k, sign, norm=False)


@wrong("copy_score", "You leave out the value bias. It is part of what a head hands over, whatever it looks at.")
def no_bias(model, layer, head, tokens, *, k=5, sign=1):
    return copied(model, layer, head, tokens, k, sign, bias=False)


@wrong("copy_score", "You add the layer's output bias. It is written once for all heads, and is no head's own.")
def with_output_bias(model, layer, head, tokens, *, k=5, sign=1):
    return copied(model, layer, head, tokens, k, sign, output_bias=True)


@wrong(
    "copy_score",
    "You leave out the final norm. It takes the mean away, weighs the dimensions and adds a bias, and so changes which "
    "words come first.",
)
def no_final_norm(model, layer, head, tokens, *, k=5, sign=1):
    return copied(model, layer, head, tokens, k, sign, final=False)


@wrong(
    "copy_score",
    "You read the embeddings for every head. Block 0 changes what stands at a name before any later head looks at it.",
)
def from_the_embeddings(model, layer, head, tokens, *, k=5, sign=1):
    return copied(model, layer, head, tokens, k, sign, always="blocks.0.hook_resid_pre")


@wrong("copy_score", "A head of layer 0 can't read what stands behind block 0: it is part of it.")
def behind_block_0(model, layer, head, tokens, *, k=5, sign=1):
    return copied(model, layer, head, tokens, k, sign, always="blocks.0.hook_resid_post")


@wrong(
    "copy_score",
    "You read the stream right before the layer. What earlier layers have brought to the name is in it: behind block 0 "
    "there is little but the name itself.",
)
def before_the_layer(model, layer, head, tokens, *, k=5, sign=1):
    return copied(model, layer, head, tokens, k, sign, always=f"blocks.{layer}.hook_resid_pre")


@wrong("copy_score", "You ask for the likeliest word alone, whatever k is.")
def only_the_first(model, layer, head, tokens, *, k=5, sign=1):
    return copied(model, layer, head, tokens, 1, sign)


@wrong("copy_score", "You leave `sign` out: with -1 the head's output is turned round.")
def without_sign(model, layer, head, tokens, *, k=5, sign=1):
    copied(model, layer, head, tokens, k, sign)
    return copied(model, layer, head, tokens, k)


@wrong("copy_score", "You look at the first token of each text. The name is the last one.")
def the_first_token(model, layer, head, tokens, *, k=5, sign=1):
    return copied(model, layer, head, tokens, k, sign, place=0)


@right("copy_score")
def with_a_loop(model, layer, head, tokens, *, k=5, sign=1):
    if sign * sign != 1:
        raise ValueError("sign")
    attn, hits = model.blocks[layer].attn, 0
    _, cache = model.run_with_cache(tokens)
    x = model.blocks[layer].ln1(cache["resid_post", 0] if layer > 0 else cache["resid_pre", 0])
    for row, vector in zip(tokens, x[:, -1], strict=True):
        out = torch.einsum("m,md,dn->n", vector, attn.W_V[head], attn.W_O[head]) + attn.b_V[head] @ attn.W_O[head]
        order = model.unembed(model.ln_final((sign * out)[None, None]))[0, 0].argsort(descending=True)
        hits += int(row[-1]) in order[:k].tolist()
    return torch.tensor(hits / len(tokens))


# duplicate_token_effect


def duplicates(model, prompts, at, heads, source="said once", place="S2", sign=1):
    clean = prompts["clean"]
    elsewhere = outputs_at(model, prompts[source], at[place])
    with torch.no_grad():
        runs = model(clean), run_with_hooks(model, clean, heads_replaced(heads, elsewhere, at[place]))
    whole, without = (answer_difference(logits, clean, at) for logits in runs)
    return sign * (whole - without)


@wrong(
    "duplicate_token_effect", "You give the run with the heads replaced less the clean one: a fall comes out negative."
)
def rise(model, prompts, at, heads):
    return duplicates(model, prompts, at, heads, sign=-1)


@wrong(
    "duplicate_token_effect",
    "You replace the heads' output at END. What a head makes of the repetition is written where the name comes "
    "again, at S2.",
)
def at_the_end(model, prompts, at, heads):
    return duplicates(model, prompts, at, heads, place="END")


@wrong("duplicate_token_effect", "You replace the heads' output at S1. There nobody has been said before.")
def at_the_first_mention(model, prompts, at, heads):
    return duplicates(model, prompts, at, heads, place="S1")


@wrong(
    "duplicate_token_effect",
    "You take the heads' output from 'ABC', where the name at S2 is another one: then the effect is also that of "
    "another name.",
)
def another_name(model, prompts, at, heads):
    return duplicates(model, prompts, at, heads, source="ABC")


@wrong(
    "duplicate_token_effect",
    "You replace the heads one by one and add up. Heads that do the same thing are each hardly missed: all of them "
    "have "
    "to be replaced in one run.",
)
def one_by_one(model, prompts, at, heads):
    return sum((duplicates(model, prompts, at, [head]) for head in heads), torch.zeros(len(at["END"])))


@wrong("duplicate_token_effect", "You replace the heads at all positions, and not at S2 alone.")
def everywhere(model, prompts, at, heads):
    clean = prompts["clean"]
    names = [f"blocks.{layer}.attn.hook_z" for layer in range(len(model.blocks))]
    _, cache = run_with_cache(model, prompts["said once"], names)

    def put(layer):
        def edit(z):
            z = z.clone()
            for _, head in (pair for pair in heads if pair[0] == layer):
                z[:, :, head] = cache[names[layer]][:, :, head]
            return z

        return edit

    without = run_with_hooks(model, clean, [(name, put(layer)) for layer, name in enumerate(names)])
    return answer_difference(model(clean), clean, at) - answer_difference(without, clean, at)


@wrong("duplicate_token_effect", "You average over the rows: one number for each is asked for.")
def one_number(model, prompts, at, heads):
    return duplicates(model, prompts, at, heads).mean()


@right("duplicate_token_effect")
def with_the_models_own_hooks(model, prompts, at, heads):
    rows, clean = torch.arange(len(at["END"])), prompts["clean"]
    _, other = model.run_with_cache(prompts["said once"])

    def edit(layer, head):
        def hook(z, hook):
            z = z.clone()
            z[rows, at["S2"], head] = other["z", layer][rows, at["S2"], head]
            return z

        return f"blocks.{layer}.attn.hook_z", hook

    logits = model(clean), model.run_with_hooks(clean, fwd_hooks=[edit(*pair) for pair in heads])
    ends = [x[rows, at["END"]] for x in logits]
    ios, ss = clean[rows, at["IO"]], clean[rows, at["S1"]]
    before, after = (x[rows, ios] - x[rows, ss] for x in ends)
    return before - after


# s_inhibition_effect


def inhibition(
    model, prompts, at, heads, movers, source="ABC", s=("S1", "S2"), place="END", query="END", sign=1, less=True
):
    clean, rows, found = prompts["clean"], torch.arange(len(at["END"])), []
    elsewhere = outputs_at(model, prompts[source], at[place])
    for hooks in ([], heads_replaced(heads, elsewhere, at[place])):
        kept = {}

        def keep(layer, kept=kept):
            def hook(pattern):
                kept[layer] = pattern
                return pattern

            return f"blocks.{layer}.attn.hook_pattern", hook

        run_with_hooks(model, clean, [*hooks, *(keep(layer) for layer in {layer for layer, _ in movers})])
        found.append(torch.stack([kept[layer][rows, head, at[query]] for layer, head in movers], 1))
    change = sign * (found[1] - (found[0] if less else 0))
    return {
        "to IO": change[rows, :, at["IO"]],
        "to S": sum(change[rows, :, at[name]] for name in s),
    }


@wrong("s_inhibition_effect", "You give the clean run less the other: where attention rises, yours falls.")
def attention_turned_round(model, prompts, at, heads, movers, *, source="ABC"):
    return inhibition(model, prompts, at, heads, movers, source, sign=-1)


@wrong(
    "s_inhibition_effect",
    "You return the attention with the heads replaced. Without the attention of the clean run nobody sees what has "
    "changed.",
)
def not_a_change(model, prompts, at, heads, movers, *, source="ABC"):
    return inhibition(model, prompts, at, heads, movers, source, less=False)


@wrong("s_inhibition_effect", "Your 'to S' is the attention to S1 alone.")
def s1_alone(model, prompts, at, heads, movers, *, source="ABC"):
    return inhibition(model, prompts, at, heads, movers, source, s=("S1",))


@wrong("s_inhibition_effect", "Your 'to S' is the attention to S2 alone.")
def s2_alone(model, prompts, at, heads, movers, *, source="ABC"):
    return inhibition(model, prompts, at, heads, movers, source, s=("S2",))


@wrong(
    "s_inhibition_effect",
    "You replace the heads at S2. A head that turns the movers away from S writes where the movers ask from: at END.",
)
def replaced_at_s2(model, prompts, at, heads, movers, *, source="ABC"):
    return inhibition(model, prompts, at, heads, movers, source, place="S2")


@wrong(
    "s_inhibition_effect",
    "You replace the heads at all positions. At the names they change what the movers look up, and not what they ask: "
    "at END alone.",
)
def heads_everywhere(model, prompts, at, heads, movers, *, source="ABC"):
    rows, found = torch.arange(len(at["END"])), []
    _, other = model.run_with_cache(prompts[source])

    def edit(layer, head):
        def hook(z, hook):
            z[:, :, head] = other["z", layer][:, :, head]
            return z

        return f"blocks.{layer}.attn.hook_z", hook

    for hooks in ([], [edit(*pair) for pair in heads]):
        with model.hooks(fwd_hooks=hooks):
            _, cache = model.run_with_cache(prompts["clean"])
        found.append(torch.stack([cache["pattern", layer][rows, head, at["END"]] for layer, head in movers], 1))
    change = found[1] - found[0]
    looks = {name: change[rows, :, at[name]] for name in ("IO", "S1", "S2")}
    return {"to IO": looks["IO"], "to S": looks["S1"] + looks["S2"]}


@wrong("s_inhibition_effect", "Your heads' output comes from 'ABC' whatever `source` says.")
def always_abc(model, prompts, at, heads, movers, *, source="ABC"):
    return inhibition(model, prompts, at, heads, movers)


@wrong(
    "s_inhibition_effect", "You replace the heads one by one and add up: all of them have to be replaced in one run."
)
def heads_one_by_one(model, prompts, at, heads, movers, *, source="ABC"):
    parts = [inhibition(model, prompts, at, [head], movers, source) for head in heads]
    zero = torch.zeros(len(at["END"]), len(movers))
    return {name: sum((part[name] for part in parts), zero) for name in ("to IO", "to S")}


@right("s_inhibition_effect")
def with_run_with_hooks(model, prompts, at, heads, movers, *, source="ABC"):
    rows, end = torch.arange(len(at["END"])), at["END"]
    _, other = model.run_with_cache(prompts[source])
    _, before = model.run_with_cache(prompts["clean"])

    def edit(layer, head):
        def hook(z, hook):
            z[rows, end, head] = other["z", layer][rows, end, head]
            return z

        return f"blocks.{layer}.attn.hook_z", hook

    with model.hooks(fwd_hooks=[edit(*pair) for pair in heads]):
        _, after = model.run_with_cache(prompts["clean"])
    found = {"to IO": [], "to S": []}
    for layer, head in movers:
        new, old = (cache["pattern", layer][rows, head, end].double() for cache in (after, before))
        found["to IO"].append((new - old)[rows, at["IO"]].float())
        found["to S"].append((new - old)[rows, at["S1"]].float() + (new - old)[rows, at["S2"]].float())
    return {name: torch.stack(values, dim=1) for name, values in found.items()}


# self_repair


def repaired(
    model, tokens, at, heads, outputs, own=False, with_out=False, stand_in=True, norm=1, fall=1, mlp_frozen=True
):
    hooks = heads_replaced(heads, outputs, at["END"])
    before = direct_effects(model, tokens, tokens, at)
    frozen = direct_effects(model, tokens, tokens, at, hooks, before.scale)
    after = direct_effects(model, tokens, tokens, at, hooks)
    at_scale = after if own else frozen
    change = at_scale.heads - before.heads
    out = torch.zeros(change.shape[1:])
    for layer, head in heads:
        out[layer, head] = 1
    lost = -(change * out).sum((1, 2)) if stand_in else (before.heads * out).sum((1, 2))
    return {
        "fall": fall * (before.total() - after.total()),
        "lost": lost,
        "heads": change if with_out else change * (1 - out),
        "mlps": (frozen if mlp_frozen and not own else after).mlps - before.mlps,
        "norm": norm * (after.total() - frozen.total()),
    }


@wrong(
    "self_repair",
    "You compare the direct effects of two runs, each with its own divisor. Then everything seems to rise when the "
    "divisor "
    "falls: what heads and MLPs do has to be read with the clean run's.",
)
def each_its_own_divisor(model, tokens, at, heads, outputs):
    return repaired(model, tokens, at, heads, outputs, own=True)


@wrong(
    "self_repair",
    "Your 'heads' are read with the new divisor, in which everything seems to rise when it falls: part of what the "
    "norm does is counted as theirs.",
)
def heads_at_the_new_divisor(model, tokens, at, heads, outputs):
    theirs = repaired(model, tokens, at, heads, outputs, own=True)["heads"]
    return repaired(model, tokens, at, heads, outputs) | {"heads": theirs}


@wrong("self_repair", "The heads that were taken out are among your 'heads': what they lose is counted twice.")
def those_taken_out_too(model, tokens, at, heads, outputs):
    return repaired(model, tokens, at, heads, outputs, with_out=True)


@wrong(
    "self_repair",
    "Your 'lost' is all that the heads write in the clean run. Something stands in for them, and writes as well: "
    "only the "
    "difference is lost.",
)
def as_if_by_zero(model, tokens, at, heads, outputs):
    return repaired(model, tokens, at, heads, outputs, stand_in=False)


@wrong("self_repair", "Your 'norm' has the opposite sign: what the new divisor *adds* to the difference is asked for.")
def norm_turned_round(model, tokens, at, heads, outputs):
    return repaired(model, tokens, at, heads, outputs, norm=-1)


@wrong("self_repair", "Your 'fall' is negative where the logit difference falls.")
def fall_turned_round(model, tokens, at, heads, outputs):
    return repaired(model, tokens, at, heads, outputs, fall=-1)


@wrong("self_repair", "Your 'mlps' are read with the new divisor: part of what the norm does is counted as theirs.")
def mlps_at_the_new_divisor(model, tokens, at, heads, outputs):
    return repaired(model, tokens, at, heads, outputs, mlp_frozen=False)


@right("self_repair")
def divided_again(model, tokens, at, heads, outputs):
    hooks = heads_replaced(heads, outputs, at["END"])
    before, after = direct_effects(model, tokens, tokens, at), direct_effects(model, tokens, tokens, at, hooks)
    ratio = after.scale / before.scale  # from the new divisor to the old one
    risen = after.heads * ratio[:, None, None] - before.heads
    mlps = after.mlps * ratio[:, None] - before.mlps
    lost = torch.zeros(len(tokens))
    for layer, head in heads:
        lost = lost - risen[:, layer, head]
        risen[:, layer, head] = 0.0
    fall = before.total() - after.total()
    return {
        "fall": fall,
        "lost": lost,
        "heads": risen,
        "mlps": mlps,
        "norm": lost - risen.sum((1, 2)) - mlps.sum(1) - fall,
    }
