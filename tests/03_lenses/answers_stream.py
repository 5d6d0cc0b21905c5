"""Wrong answers for reading the residual stream, each with its sentence, and right ones."""

import torch
from einops import einsum

from utils.course.catalogue import right, wrong
from utils.lenses.stream import residual_components


def refuse_bad_tokens(tokens):
    if tokens.ndim != 2:
        raise ValueError("tokens must be [batch, pos]")


def recorded(model, tokens, names):
    refuse_bad_tokens(tokens)
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, names_filter=names, return_type=None)
    return torch.stack([cache[name] for name in names])


def posts(model):
    return [f"blocks.{layer}.hook_resid_post" for layer in range(len(model.blocks))]


# residual_stack


@wrong(
    "residual_stack",
    "Your hooks stay on the model. Each later run will go on filling your dictionary, and slow down a little "
    "with every call of your function. `register_forward_hook` returns something that can undo it.",
)
def hooks_left_behind(model, tokens):
    refuse_bad_tokens(tokens)
    found = {}
    names = ["blocks.0.hook_resid_pre", *posts(model)]
    for name in names:
        model.get_submodule(name).register_forward_hook(lambda m, i, o, name=name: found.__setitem__(name, o.detach()))
    with torch.no_grad():
        model(tokens)
    return torch.stack([found[name] for name in names])


@wrong(
    "residual_stack",
    "You remove your hooks when all has gone well. If the model raises an exception, the lines that remove them "
    "are never reached. Which part of a `try` statement runs in either case?",
)
def removed_in_fair_weather_only(model, tokens):
    refuse_bad_tokens(tokens)
    found, handles = {}, []
    names = ["blocks.0.hook_resid_pre", *posts(model)]
    for name in names:
        keep = lambda m, i, o, name=name: found.__setitem__(name, o.detach())  # noqa: E731
        handles.append(model.get_submodule(name).register_forward_hook(keep))
    with torch.no_grad():
        model(tokens)
    for handle in handles:
        handle.remove()
    return torch.stack([found[name] for name in names])


@wrong(
    "residual_stack",
    "You cleaned up with `reset_hooks`, which takes away all hooks of the model, also those that somebody else "
    "had put there before. Remove the ones that you added, and no others.",
)
def everybodys_hooks_removed(model, tokens):
    try:
        return recorded(model, tokens, ["blocks.0.hook_resid_pre", *posts(model)])
    finally:
        model.reset_hooks()


@wrong(
    "residual_stack",
    "You recorded what goes *into* each block, so that the last block's result is missing, and with it the only "
    "site whose reading is the model's own output. How many places lie around and between n blocks?",
)
def streams_into_blocks_only(model, tokens):
    return recorded(model, tokens, [f"blocks.{layer}.hook_resid_pre" for layer in range(len(model.blocks))])


@wrong(
    "residual_stack",
    "Your sites lie in the middle of the blocks, behind the attention and before the MLP. The docstring asks "
    "for the stream behind the whole block.",
)
def middle_of_the_blocks(model, tokens):
    middles = [f"blocks.{layer}.hook_resid_mid" for layer in range(len(model.blocks))]
    return recorded(model, tokens, ["blocks.0.hook_resid_pre", *middles])


@wrong(
    "residual_stack",
    "Your first site holds the token embeddings alone. The position embeddings are added before the first block "
    "reads anything, so they belong to the stream there.",
)
def positions_forgotten(model, tokens):
    return recorded(model, tokens, ["hook_embed", *posts(model)])


@wrong(
    "residual_stack",
    "You recorded what each block *adds*. The stream at a site is the sum of everything that was added up to there.",
)
def additions_instead_of_the_stream(model, tokens):
    stack = recorded(model, tokens, ["blocks.0.hook_resid_pre", *posts(model)])
    return torch.cat([stack[:1], stack[1:] - stack[:-1]])


@wrong(
    "residual_stack",
    "Your sites still carry the graph of the whole forward pass. Nobody is going to differentiate here, and as "
    "long as the result lives, all activations of the run stay in memory. Run without a graph, or detach what "
    "you keep.",
)
def graph_kept(model, tokens):
    refuse_bad_tokens(tokens)
    found = []
    hooks = [(name, lambda resid, hook: found.append(resid)) for name in ["blocks.0.hook_resid_pre", *posts(model)]]
    model.run_with_hooks(tokens, fwd_hooks=hooks, return_type=None)
    return torch.stack(found)


@wrong(
    "residual_stack",
    "All your hooks file what they see under the last name of the loop: a function that is made in a loop looks the "
    "loop's variable up when it is *called*, and by then the loop is over. Bind the name when you make the hook.",
)
def names_bound_too_late(model, tokens):
    refuse_bad_tokens(tokens)
    found, handles, names = {}, [], ["blocks.0.hook_resid_pre", *posts(model)]
    try:
        for name in names:
            handles.append(
                model.get_submodule(name).register_forward_hook(
                    lambda m, i, o: found.__setitem__(name, o.detach())  # noqa: B023
                )
            )
        with torch.no_grad():
            model(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([found[name] for name in names])


@wrong(
    "residual_stack",
    "You stacked the sites along another dimension than the first. Sites come first, so that `stack[-1]` is the last "
    "one for all texts.",
)
def sites_in_second_place(model, tokens):
    return recorded(model, tokens, ["blocks.0.hook_resid_pre", *posts(model)]).transpose(0, 1)


@wrong(
    "residual_stack",
    "You put the model into evaluation mode and left it there. Whoever was training it goes on without dropout, and "
    "doesn't know.",
)
def left_in_evaluation_mode(model, tokens):
    stack = recorded(model, tokens, ["blocks.0.hook_resid_pre", *posts(model)])
    model.eval()
    return stack


@wrong(
    "residual_stack",
    "You put the model into training mode, whatever it was in before. Keep what `model.training` was, or leave the "
    "mode alone: recording needs neither.",
)
def left_in_training_mode(model, tokens):
    stack = recorded(model, tokens, ["blocks.0.hook_resid_pre", *posts(model)])
    model.train()
    return stack


@wrong(
    "residual_stack",
    "Your first site is not read at its hook point, but in front of it, or made from the embeddings. The hook point "
    "stands inside the first block: where somebody's hook changes the stream there, the model goes on with another.",
)
def in_front_of_the_first_block(model, tokens):
    stack, first = recorded(model, tokens, ["blocks.0.hook_resid_pre", *posts(model)]), []
    handle = model.blocks[0].register_forward_pre_hook(lambda module, inputs: first.append(inputs[0].detach()))
    try:
        with torch.no_grad():
            model(tokens)
    finally:
        handle.remove()
    return torch.cat([first[0][None], stack[1:]])


@wrong(
    "residual_stack",
    "Your stack begins behind the first block. The stream before it, the embeddings, is the first site: n blocks have "
    "n + 1.",
)
def first_site_missing(model, tokens):
    return recorded(model, tokens, posts(model))


@wrong(
    "residual_stack",
    "You switched off the gradients of the model's weights, and left them off. `torch.no_grad()` around the run does "
    "what you want and nothing to the model.",
)
def weights_frozen(model, tokens):
    model.requires_grad_(False)
    return recorded(model, tokens, ["blocks.0.hook_resid_pre", *posts(model)])


@wrong(
    "residual_stack",
    "A single text without a batch dimension goes through. The docstring names the error to raise.",
)
def one_text_goes_through(model, tokens):
    return recorded(model, torch.atleast_2d(tokens), ["blocks.0.hook_resid_pre", *posts(model)])


@right("residual_stack")
def streams_into_blocks_and_the_last_one_out(model, tokens):
    names = [f"blocks.{layer}.hook_resid_pre" for layer in range(len(model.blocks))]
    return recorded(model, tokens, [*names, posts(model)[-1]])


@right("residual_stack")
def with_the_librarys_cache(model, tokens):
    return recorded(model, tokens, ["blocks.0.hook_resid_pre", *posts(model)])


@right("residual_stack")
def with_the_librarys_hooks(model, tokens):
    refuse_bad_tokens(tokens)
    found = []
    names = ["blocks.0.hook_resid_pre", *posts(model)]
    hooks = [(name, lambda resid, hook: found.append(resid.detach().clone())) for name in names]
    model.run_with_hooks(tokens, fwd_hooks=hooks, return_type=None)
    return torch.stack(found)


# residual_components


def cache_of(model, tokens):
    refuse_bad_tokens(tokens)
    return model.run_with_cache(tokens, return_type=None)[1]


@torch.no_grad()
def components(model, tokens, head_output=None, bias=None, positions="added", mlp="hook_mlp_out", refuse=True):
    """The components, with one thing or another done differently; a model without a sum is refused all the same."""
    cache = cache_of(model, tokens)
    parts = {"embed": cache["hook_embed"]}
    ask = {"always": True, "never": False, "recorded": "hook_pos_embed" in cache}
    if ask.get(positions, model.cfg.positional_embedding_type == "standard"):
        parts["pos_embed"] = cache["hook_pos_embed"]
    for layer, block in enumerate(model.blocks):
        z, attn = cache[f"blocks.{layer}.attn.hook_z"], block.attn
        for head in range(z.shape[2]):
            own = head_output(z, attn, head) if head_output else z[:, :, head] @ attn.W_O[head]
            parts[f"head {layer}.{head}"] = own
        if bias is not False:
            parts[f"b_O {layer}"] = (attn.b_O if bias is None else bias * attn.b_O).expand_as(parts["embed"]).clone()
        if not model.cfg.attn_only:
            parts[f"mlp {layer}"] = cache[f"blocks.{layer}.{mlp}"]
    if refuse:
        residual_components(model, tokens)
    return parts


@wrong(
    "residual_components",
    "The output bias of the attention layer is missing. It belongs to no head, but it is added to the stream "
    "once in each layer, and without it the parts fall short of the whole.",
)
def output_bias_forgotten(model, tokens):
    return components(model, tokens, bias=False)


@wrong(
    "residual_components",
    "You added the layer's output bias to every head, and so as many times as there are heads. It is a part of "
    "its own.",
)
def output_bias_in_every_head(model, tokens):
    return components(model, tokens, lambda z, attn, h: z[:, :, h] @ attn.W_O[h] + attn.b_O)


@wrong(
    "residual_components",
    "You divided the layer's output bias among its heads. The parts still sum to the stream, and each head's says "
    "something that is not so: the bias is added once, whatever the heads do, and is a part of its own.",
)
def output_bias_shared_among_heads(model, tokens):
    return components(model, tokens, lambda z, attn, h: z[:, :, h] @ attn.W_O[h] + attn.b_O / z.shape[2], bias=False)


@wrong(
    "residual_components",
    "You divided the layer's output bias among its heads, and left a part of zeros in its place. The parts still sum "
    "to the stream, and each head's says something that is not so: the bias is added once, whatever the heads do.",
)
def output_bias_shared_and_zero(model, tokens):
    return components(model, tokens, lambda z, attn, h: z[:, :, h] @ attn.W_O[h] + attn.b_O / z.shape[2], bias=0.0)


@wrong(
    "residual_components",
    "You divided the layer's attention output evenly among its heads. It sums to the right total, and says "
    "nothing about any head: each writes through its own part of W_O.",
)
def equal_shares_for_heads(model, tokens):
    def share(z, attn, head):
        return einsum(z, attn.W_O, "b p h d, h d m -> b p m") / z.shape[2]

    return components(model, tokens, share)


@wrong(
    "residual_components",
    "Your heads all write through the same matrix, that of head 0. W_O has a first dimension for the head.",
)
def first_heads_matrix_for_all(model, tokens):
    return components(model, tokens, lambda z, attn, h: z[:, :, h] @ attn.W_O[0])


@wrong(
    "residual_components",
    "The position embeddings are missing. They enter the stream beside the token embeddings, as a part of their own.",
)
def position_embedding_forgotten(model, tokens):
    return components(model, tokens, positions="never")


@wrong(
    "residual_components",
    "Your 'mlp' parts are the whole stream behind the MLP, to which all earlier parts have contributed. Each "
    "part is what one module *adds*.",
)
def stream_in_place_of_the_mlp(model, tokens):
    return components(model, tokens, mlp="hook_resid_post")


@wrong(
    "residual_components",
    "Your function expects every block to have an MLP, and fails on a model of attention alone. The docstring "
    "says what such a model returns.",
)
def every_block_has_an_mlp(model, tokens):
    parts, cache = components(model, tokens), cache_of(model, tokens)
    return parts | {f"mlp {layer}": cache[f"blocks.{layer}.hook_mlp_out"] for layer in range(len(model.blocks))}


@wrong(
    "residual_components",
    "For a model of attention alone you return 'mlp' parts of zeros. It has no MLPs, and so no such parts: a name in "
    "the dict says that there is something.",
)
def zeros_for_mlps_that_are_not_there(model, tokens):
    parts = components(model, tokens)
    if model.cfg.attn_only:
        parts |= {f"mlp {layer}": torch.zeros_like(parts["embed"]) for layer in range(len(model.blocks))}
    return parts


@wrong(
    "residual_components",
    "Your function asks every model for position embeddings, and fails where there are none. Rotary positions, for "
    "example, turn queries and keys and add nothing to the stream; the docstring says how to tell.",
)
def every_model_adds_positions(model, tokens):
    return components(model, tokens, positions="always")


@wrong(
    "residual_components",
    "You take position embeddings for a part wherever the model has some. Having them is not adding them: some models "
    "hand them to queries and keys alone, and then they are no part of the stream.",
)
def positions_wherever_there_are_some(model, tokens):
    return components(model, tokens, positions="recorded")


@wrong(
    "residual_components",
    "You return parts also where they do not sum to the stream, so that whoever adds them up gets a wrong sum without "
    "a word. Compare with the stream behind the last block; the docstring says how close it has to be.",
)
def wrong_sums_go_through(model, tokens):
    return components(model, tokens, refuse=False)


@wrong(
    "residual_components",
    "You refuse sums that miss the stream by less than the docstring allows. Its measure is a hundredth of the sum of "
    "the parts' lengths, not the length of their sum or a number of its own: long parts that cancel leave a short sum, "
    "with the rounding of the long ones.",
)
def held_against_the_length_of_the_sum(model, tokens):
    parts, final = components(model, tokens), cache_of(model, tokens)[posts(model)[-1]]
    if ((sum(parts.values()) - final).norm(dim=-1) > 0.01 * final.norm(dim=-1)).any():
        raise ValueError("no sum of parts")
    return parts


@wrong(
    "residual_components",
    "At one position your parts miss the stream by more than the docstring allows, and they go through. A mean over "
    "positions hides a single bad one, and so does a wider limit.",
)
def close_on_average(model, tokens):
    parts, final = components(model, tokens, refuse=False), cache_of(model, tokens)[posts(model)[-1]]
    lengths = sum(value.norm(dim=-1) for value in parts.values())
    if (sum(parts.values()) - final).norm(dim=-1).mean() > 0.01 * lengths.mean():
        raise ValueError("no sum of parts")
    return parts


@wrong(
    "residual_components",
    "You took all hooks off the model (`reset_hooks`), also those that somebody else had put there. Remove the ones "
    "that you added, and no others.",
)
def somebodys_hooks_taken_off(model, tokens):
    parts = components(model, tokens)
    model.reset_hooks()
    return parts


@wrong(
    "residual_components",
    "Your heads and output biases carry a graph: W_O and b_O are parameters, and what is made of them hangs on them, "
    "also where the recorded activations do not. Compute without a graph, or detach what you return.",
)
def parts_on_a_graph(model, tokens):
    residual_components(model, tokens)
    cache = cache_of(model, tokens)
    parts = components(model, tokens)
    for layer, block in enumerate(model.blocks):
        z = cache[f"blocks.{layer}.attn.hook_z"]
        parts |= {f"head {layer}.{h}": z[:, :, h] @ block.attn.W_O[h] for h in range(z.shape[2])}
        parts[f"b_O {layer}"] = block.attn.b_O.expand_as(parts["embed"])
    return parts


@wrong(
    "residual_components",
    "Your output biases are vectors [d_model]. Every part is [batch, pos, d_model], so that one can pick a position "
    "from all of them alike.",
)
def bias_as_one_vector(model, tokens):
    parts = components(model, tokens)
    return parts | {f"b_O {layer}": block.attn.b_O.detach() for layer, block in enumerate(model.blocks)}


@wrong(
    "residual_components",
    "You switched the library's `use_attn_result` on, and left it on: from now on every run of this model computes all "
    "heads' results one by one, and every cache keeps them.",
)
def option_left_on(model, tokens):
    parts = components(model, tokens)
    model.set_use_attn_result(True)
    return parts


@wrong(
    "residual_components",
    "Your parts are sorted by kind. The order that is asked for is the one in which they are added: layer by layer, "
    "heads, output bias, MLP.",
)
def sorted_by_kind(model, tokens):
    parts = components(model, tokens)
    kinds = ("embed", "pos_embed", "head", "b_O", "mlp")
    return {name: parts[name] for kind in kinds for name in parts if name.split()[0] == kind}


@wrong(
    "residual_components",
    "A single text without a batch dimension goes through. The docstring names the error to raise.",
)
def one_text_taken_apart(model, tokens):
    return components(model, torch.atleast_2d(tokens))


@right("residual_components")
@torch.no_grad()
def with_one_einsum_per_layer(model, tokens):
    cache = cache_of(model, tokens)
    parts = {"embed": cache["embed"]}
    if model.cfg.positional_embedding_type == "standard":
        parts["pos_embed"] = model.W_pos[: tokens.shape[1]].repeat(len(tokens), 1, 1)
    for layer, block in enumerate(model.blocks):
        written = einsum(cache[f"blocks.{layer}.attn.hook_z"], block.attn.W_O, "b p h d, h d m -> h b p m")
        parts |= {f"head {layer}.{head}": value for head, value in enumerate(written)}
        parts[f"b_O {layer}"] = cache[f"blocks.{layer}.hook_attn_out"] - written.sum(0)
        if not model.cfg.attn_only:
            parts[f"mlp {layer}"] = cache["mlp_out", layer]
    final, whole = cache["resid_post", len(model.blocks) - 1], torch.stack(list(parts.values()))
    if ((whole.sum(0) - final).norm(dim=-1) > 0.01 * whole.norm(dim=-1).sum(0)).any():
        raise ValueError("no sum of parts")
    return parts


@right("residual_components")
def with_recordings_of_its_own(model, tokens):
    refuse_bad_tokens(tokens)
    kept = {}
    with model.hooks([(lambda name: True, lambda value, hook: kept.__setitem__(hook.name, value.detach()))]):
        model(tokens)
    parts = {"embed": kept["hook_embed"]}
    if model.cfg.positional_embedding_type == "standard":
        parts["pos_embed"] = kept["hook_pos_embed"]
    for layer, block in enumerate(model.blocks):
        z, attn = kept[f"blocks.{layer}.attn.hook_z"], block.attn
        for head, matrix in enumerate(attn.W_O.detach()):
            parts[f"head {layer}.{head}"] = z.select(2, head) @ matrix
        parts[f"b_O {layer}"] = torch.zeros_like(parts["embed"]) + attn.b_O.detach()
        if not model.cfg.attn_only:
            parts[f"mlp {layer}"] = kept[f"blocks.{layer}.hook_mlp_out"]
    longest = sum(value.norm(dim=-1) for value in parts.values())
    if not ((sum(parts.values()) - kept[posts(model)[-1]]).norm(dim=-1) <= longest / 100).all():
        raise ValueError("the parts do not sum to the stream")
    return parts


# logit_lens


def refuse_bad_width(model, resid):
    if resid.shape[-1] != model.unembed.W_U.shape[0]:
        raise ValueError("resid must be d_model wide")


@wrong(
    "logit_lens",
    "You left the final layer norm out. The unembedding has only ever seen normed vectors; streams of early "
    "layers are shorter than late ones, and without the norm their distributions come out too flat for no other "
    "reason.",
)
def norm_forgotten(model, resid):
    refuse_bad_width(model, resid)
    return resid @ model.unembed.W_U + model.unembed.b_U


@wrong(
    "logit_lens",
    "You took mean and standard deviation out, and left the final norm's learnt gain and bias away. The model "
    "puts both between the norm and the unembedding.",
)
def gain_and_bias_forgotten(model, resid):
    refuse_bad_width(model, resid)
    norm = model.ln_final
    gain, bias = getattr(norm, "w", 1.0), getattr(norm, "b", 0.0)
    return (norm(resid) - bias) / gain @ model.unembed.W_U + model.unembed.b_U


@wrong(
    "logit_lens",
    "The unembedding's bias is missing. It adds the same number to a token's logit at every site; at the last site "
    "your reading is not the model's output.",
)
def unembedding_bias_forgotten(model, resid):
    refuse_bad_width(model, resid)
    return model.ln_final(resid) @ model.unembed.W_U


@wrong(
    "logit_lens",
    "You normed with the first block's layer norm. What is asked is what the *end* of the model would say, and "
    "the end has a norm of its own, with other gains.",
)
def norm_of_another_place(model, resid):
    refuse_bad_width(model, resid)
    return model.blocks[0].ln1(resid) @ model.unembed.W_U + model.unembed.b_U


@wrong(
    "logit_lens",
    "You multiplied with the transposed embedding. In GPT-2 that is the same matrix; in this model embedding "
    "and unembedding were learnt apart.",
)
def embedding_turned_round(model, resid):
    refuse_bad_width(model, resid)
    return model.ln_final(resid) @ model.W_E.T + model.unembed.b_U


@wrong(
    "logit_lens",
    "You returned probabilities. Logits are asked for: later exercises need differences of them, which a "
    "softmax takes away.",
)
def probabilities(model, resid):
    refuse_bad_width(model, resid)
    return (model.ln_final(resid) @ model.unembed.W_U + model.unembed.b_U).softmax(-1)


@wrong(
    "logit_lens",
    "No gradient flows back to the stream. The tuned lens is trained through this function: the graph has to "
    "stay whole.",
)
def graph_cut(model, resid):
    refuse_bad_width(model, resid)
    with torch.no_grad():
        return model.ln_final(resid) @ model.unembed.W_U + model.unembed.b_U


def normed_by_hand(model, resid, *, correction=0, eps=None, over=-1, centre=True):
    """The final norm written out, for a norm of any kind, with one thing or another done differently."""
    norm = model.ln_final
    eps = norm.eps if eps is None else eps
    if "RMS" not in type(norm).__name__ and centre:
        resid = resid - (resid.mean(-1, keepdim=True) if over == -1 else resid.mean())
    n = resid.shape[-1] - correction
    square = resid.square().sum(-1, keepdim=True) / n if over == -1 else resid.square().mean()
    x = resid / (square + eps).sqrt()
    return x * getattr(norm, "w", 1.0) + getattr(norm, "b", 0.0)


def unembedded(model, normed):
    return normed @ model.unembed.W_U + model.unembed.b_U


@wrong(
    "logit_lens",
    "You divided by a standard deviation with n - 1 in it (torch's default). The model's norm divides the sum of "
    "squares by n; calling the norm saves you from having to know.",
)
def bessels_correction(model, resid):
    refuse_bad_width(model, resid)
    return unembedded(model, normed_by_hand(model, resid, correction=1))


@wrong(
    "logit_lens",
    "You wrote the norm out with an `eps` of 1e-5. That is this model's own number, and other models have others: "
    "on short vectors it decides.",
)
def eps_of_ones_own(model, resid):
    refuse_bad_width(model, resid)
    return unembedded(model, normed_by_hand(model, resid, eps=1e-5))


@wrong(
    "logit_lens",
    "You wrote a layer norm out, and not every model ends in one: an RMS norm takes no mean away. The model has its "
    "norm as a module, which can be called.",
)
def always_a_layer_norm(model, resid):
    refuse_bad_width(model, resid)
    centred = resid - resid.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + model.ln_final.eps).sqrt()
    return unembedded(model, normed * getattr(model.ln_final, "w", 1.0) + getattr(model.ln_final, "b", 0.0))


@wrong(
    "logit_lens",
    "You normed with one mean and one standard deviation for everything you were given. Each vector of the stream is "
    "normed by itself, whatever stands beside it.",
)
def one_norm_for_all_vectors(model, resid):
    refuse_bad_width(model, resid)
    return unembedded(model, normed_by_hand(model, resid, over="everything"))


@wrong(
    "logit_lens",
    "You returned log-probabilities. They differ from the logits by one number for each vector; logits are asked for.",
)
def log_probabilities(model, resid):
    refuse_bad_width(model, resid)
    return unembedded(model, model.ln_final(resid)).log_softmax(-1)


@wrong(
    "logit_lens",
    "You do not look at the width of the stream. One number for each vector goes through, as the norm's gains make "
    "d_model of it, and other widths fail with an error of PyTorch's. The docstring names the one to raise.",
)
def width_not_checked(model, resid):
    return unembedded(model, model.ln_final(resid))


@wrong(
    "logit_lens",
    "You wrote a layer norm out, without the gain and bias that the model's own norm goes on with. Call the norm "
    "itself: it has them, and it need not be a layer norm.",
)
def layer_norm_without_gain_and_bias(model, resid):
    refuse_bad_width(model, resid)
    centred = resid - resid.mean(-1, keepdim=True)
    return unembedded(model, centred / (centred.square().mean(-1, keepdim=True) + model.ln_final.eps).sqrt())


@wrong(
    "logit_lens",
    "You left the final norm's bias away. The model adds it before the unembedding, which reads it like the rest.",
)
def norm_bias_forgotten(model, resid):
    refuse_bad_width(model, resid)
    return unembedded(model, model.ln_final(resid) - getattr(model.ln_final, "b", 0.0))


@right("logit_lens")
def with_a_linear_layer(model, resid):
    if resid.size(-1) != len(model.W_U):
        raise ValueError("resid must be d_model wide")
    return torch.nn.functional.linear(model.ln_final(resid), model.W_U.T, model.b_U)


@right("logit_lens")
def with_the_models_modules(model, resid):
    refuse_bad_width(model, resid)
    flat = resid.reshape(1, -1, resid.shape[-1])
    return model.unembed(model.ln_final(flat)).reshape(*resid.shape[:-1], -1)
