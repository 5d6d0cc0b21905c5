"""Direct logit attribution: a logit difference as a sum over the parts of the model, and over source positions."""

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.lenses.stream import residual_components


def direct_logit_attribution(
    model: nn.Module,
    components: dict[str, Float[Tensor, "batch d_model"]],
    answers: Int[Tensor, "batch"],
    foils: Int[Tensor, "batch"],
) -> dict[str, Float[Tensor, "batch"]]:
    """What each component adds to logit(answer) - logit(foil) by itself, with the final norm's divisor held fixed.

    The layer norm takes each vector's mean away, divides by a number, and multiplies by a gain. The division is by
    the standard deviation of the *whole* stream x = sum of all components:

        sum over d_model of (c - mean(c)) / sqrt(var(x) + eps) * gain * (W_U[:, answer] - W_U[:, foil])

    is what component c adds; var divides by d_model. The norm's bias and the unembedding's belong to no component.

    An RMS norm (Llama's) takes no mean away: c stands in place of c - mean(c), and the mean of x squared in place of
    var(x). A vector of ones tells the two apart: a layer norm returns its bias and nothing else, an RMS norm its gain.

    Args:
        model: A model with ``unembed`` (``W_U``, ``b_U``) and ``ln_final``, a module with ``w``, ``b`` and ``eps``; an
            RMS norm has no ``b``, a folded norm neither ``w`` nor ``b``: ones and zeros stand for what is not there.
        components: Vectors that sum to the stream behind the last block, at one position of each text.
        answers, foils: Token ids, one each for each text.

    Returns:
        By the components' names, and under "constant" what the two biases add: logits that sum to the logit
        difference of the model (before the cap, where a model caps its logits), detached from the graph.

    Raises:
        ValueError: If there are no components, or if ``answers`` or ``foils`` do not have one id between 0 and
            d_vocab - 1 for each text.

    Source: Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits", section "Path Expansion of
    Logits"; Wang et al. (2022), "Interpretability in the Wild", section 3.1; Zhang and Sennrich (2019), "Root Mean
    Square Layer Normalization".
    """
    if not components:
        raise ValueError("components is empty")
    norm, unembed = model.ln_final, model.unembed
    n_texts, d_vocab = len(next(iter(components.values()))), unembed.W_U.shape[1]
    for ids in (answers, foils):
        if ids.shape != (n_texts,) or bool(((ids < 0) | (ids >= d_vocab)).any()):
            raise ValueError(f"answers and foils must hold {n_texts} ids from 0 to {d_vocab - 1}, one for each text")
    with torch.no_grad():
        # In half precision, squares overflow and sums of many components lose their digits.
        wide = torch.promote_types(unembed.W_U.dtype, torch.float32)
        parts = {name: value.to(wide) for name, value in components.items()}
        total = sum(parts.values())
        ones = torch.ones_like(unembed.W_U[:, 0])
        gain, bias = getattr(norm, "w", ones), getattr(norm, "b", torch.zeros_like(ones))
        direction = (unembed.W_U[:, answers] - unembed.W_U[:, foils]).T.to(wide)
        read = gain * direction
        if (norm(ones) - bias).norm() < 0.5 * gain.norm():  # of ones, a layer norm leaves nothing
            # (c - mean(c)) . r equals c . (r - mean(r)): the direction is centred once, instead of every component.
            read, total = read - read.mean(dim=-1, keepdim=True), total - total.mean(dim=-1, keepdim=True)
        read = read / (total.square().mean(dim=-1, keepdim=True) + norm.eps).sqrt()
        found = {name: (value * read).sum(dim=-1) for name, value in parts.items()}
        found["constant"] = direction @ bias.to(wide) + (unembed.b_U[answers] - unembed.b_U[foils]).to(wide)
    return found


def head_logit_attribution_by_position(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    layer: int,
    head: int,
    positions: Int[Tensor, "batch"],
    answers: Int[Tensor, "batch"],
    foils: Int[Tensor, "batch"],
) -> Float[Tensor, "batch key"]:
    """Which source position a head takes its direct contribution to logit(answer) - logit(foil) from.

    At position q the head writes sum over k of A[q, k] (v_k W_O). Each term is a component of the stream like any
    other, and its direct logit attribution is entry k. v_k includes the value bias.

    Args:
        model: A ``HookedTransformer``. Where heads share values (grouped-query attention), ``hook_v`` holds n_values of
            them, fewer than n_heads, and head h reads number h // (n_heads / n_values).
        tokens: Token ids.
        layer, head: Which head, counted from 0.
        positions: For each text the position q whose prediction is asked about; entries for k > q are 0.
        answers, foils: Token ids, one each for each text.

    Returns:
        Contributions in logits, detached from the graph; a row sums to the head's direct logit attribution at q.

    Raises:
        ValueError: If the model has no such ``layer`` or ``head``, if ``positions`` does not have one position of the
            text for each text (negative ones are none), or if ``residual_components`` refuses the model.

    Source: Elhage et al. (2021), section "Attention Heads as Information Movement"; Wang et al. (2022), section 3.1;
    Ainslie et al. (2023), "GQA: Training Generalized Multi-Query Transformer Models from Multi-Head Checkpoints".
    """
    if not 0 <= layer < len(model.blocks):
        raise ValueError(f"layer must be between 0 and {len(model.blocks) - 1}, got {layer}")
    W_O = model.blocks[layer].attn.W_O
    if not 0 <= head < len(W_O):
        raise ValueError(f"head must be between 0 and {len(W_O) - 1}, got {head}")
    n_texts, n_pos = tokens.shape
    if positions.shape != (n_texts,) or bool(((positions < 0) | (positions >= n_pos)).any()):
        raise ValueError(f"positions must hold {n_texts} positions from 0 to {n_pos - 1}, one for each text")
    residual_components(model, tokens[:1])  # refuses a model in which what a head writes is not what is added
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, return_type=None)
        rows, values = torch.arange(n_texts), cache[f"blocks.{layer}.attn.hook_v"]
        weights = cache[f"blocks.{layer}.attn.hook_pattern"][rows, head, positions]
        handed_over = values[:, :, head * values.shape[2] // len(W_O)] @ W_O[head]
        moved = einsum(weights, handed_over, "batch key, batch key d_model -> key batch d_model")
        parts = {str(key): vectors for key, vectors in enumerate(moved)}
        final = cache[f"blocks.{len(model.blocks) - 1}.hook_resid_post"]
        parts["rest"] = final[rows, positions] - moved.sum(dim=0)
    found = direct_logit_attribution(model, parts, answers, foils)
    return torch.stack([found[str(key)] for key in range(n_pos)], dim=-1)
