"""The residual stream: what it is between the layers, what it is made of, and what the unembedding sees in it."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn


def residual_stack(model: nn.Module, tokens: Int[Tensor, "batch pos"]) -> Float[Tensor, "site batch pos d_model"]:
    """The residual stream at every site: before the first block, and behind each block.

    A site is recorded where the model's hook point stands: ``blocks.0.hook_resid_pre``, then
    ``blocks.0.hook_resid_post``, ``blocks.1.hook_resid_post`` and so on (between two blocks, the second one's
    ``hook_resid_pre`` is as good). Hook points are submodules, so that PyTorch's own forward hooks work on them. What
    is recorded is what the model goes on with: if somebody else's hook changes the stream, the changed one. The model
    is left as it was, also if it raises: without your hooks, with everybody else's, in the mode (training or
    evaluation) that it was in, with weights that can be trained as before.

    Args:
        model: A ``HookedTransformer``; ``len(model.blocks)`` is its number of layers.
        tokens: Token ids.

    Returns:
        The stream, with n_layers + 1 sites along the first dimension, detached from the graph.

    Raises:
        ValueError: If ``tokens`` is not a matrix [batch, pos].

    Source: Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits", section "Virtual Weights and
    the Residual Stream as a Communication Channel".
    """
    if tokens.ndim != 2:
        raise ValueError(f"tokens must be [batch, pos], got shape {tuple(tokens.shape)}")
    names = ["blocks.0.hook_resid_pre"] + [f"blocks.{layer}.hook_resid_post" for layer in range(len(model.blocks))]
    found, handles = {}, []
    try:
        for name in names:

            def keep(module, inputs, output, name=name):
                found[name] = output.detach()

            handles.append(model.get_submodule(name).register_forward_hook(keep))
        with torch.no_grad():
            model(tokens)
    finally:
        for handle in handles:
            handle.remove()
    return torch.stack([found[name] for name in names])


def residual_components(
    model: nn.Module, tokens: Int[Tensor, "batch pos"]
) -> dict[str, Float[Tensor, "batch pos d_model"]]:
    """What each part of the model adds to the residual stream; the parts sum to the stream behind the last block.

    Args:
        model: A ``HookedTransformer``. It is left as it was, its hooks and ``model.cfg`` included.
        tokens: Token ids.

    Returns:
        By name, in the order in which they are added: "embed", "pos_embed" (only where positions are added to the
        stream: ``model.cfg.positional_embedding_type`` is "standard"; rotary ones, for example, act inside the
        attention), then for each layer l "head l.0", "head l.1" … (without the layer's output bias), "b_O l" (the same
        at every position) and "mlp l" (with its biases; attention-only models, ``model.cfg.attn_only``, have none).
        All are [batch, pos, d_model] and detached from the graph.

    Raises:
        ValueError: If ``tokens`` is not a matrix [batch, pos], or if at some position the parts miss the stream behind
            the last block by more than a hundredth of the sum of their lengths: the model does more than add (a norm
            behind its attention, somebody's hook that changes the stream), and no list of parts is right.

    Source: Elhage et al. (2021), section "Virtual Weights and the Residual Stream as a Communication Channel".
    """
    if tokens.ndim != 2:
        raise ValueError(f"tokens must be [batch, pos], got shape {tuple(tokens.shape)}")
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, return_type=None)
        components = {"embed": cache["hook_embed"]}
        if model.cfg.positional_embedding_type == "standard":
            components["pos_embed"] = cache["hook_pos_embed"]
        for layer, block in enumerate(model.blocks):
            z = cache[f"blocks.{layer}.attn.hook_z"]
            for head in range(z.shape[2]):
                components[f"head {layer}.{head}"] = z[:, :, head] @ block.attn.W_O[head]
            components[f"b_O {layer}"] = block.attn.b_O.expand_as(components["embed"])
            if not model.cfg.attn_only:
                components[f"mlp {layer}"] = cache[f"blocks.{layer}.hook_mlp_out"]
        missed = (sum(components.values()) - cache[f"blocks.{layer}.hook_resid_post"]).float().norm(dim=-1)
        if bool((missed > 0.01 * sum(value.float().norm(dim=-1) for value in components.values())).any()):
            raise ValueError("the parts do not sum to the stream: this model does more than add to it")
        return {name: value.detach() for name, value in components.items()}


def logit_lens(model: nn.Module, resid: Float[Tensor, "*batch d_model"]) -> Float[Tensor, "*batch d_vocab"]:
    """The logits that the model would give if every layer behind ``resid`` were left out.

    logits = ln_final(resid) W_U + b_U, with all of the model's own final parameters.

    Args:
        model: A model with ``ln_final`` (a module: a layer norm with its own ``eps``, an RMS norm …), ``unembed.W_U``
            [d_model, d_vocab] and ``unembed.b_U`` [d_vocab].
        resid: The residual stream at any site; any number of dimensions before d_model. Gradients flow back to it.

    Returns:
        Logits; behind the last block they are the model's own (before the cap, where a model caps its logits).

    Raises:
        ValueError: If the last dimension of ``resid`` is not d_model.

    Source: nostalgebraist (2020), "interpreting GPT: the logit lens".
    """
    d_model = model.unembed.W_U.shape[0]
    if resid.shape[-1] != d_model:
        raise ValueError(f"the last dimension of resid must be d_model = {d_model}, got shape {tuple(resid.shape)}")
    return model.ln_final(resid) @ model.unembed.W_U + model.unembed.b_U
