"""Direct logit attribution: a logit difference as a sum over the parts of the model, and over source positions."""

import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor, nn


def direct_logit_attribution(
    model: nn.Module,
    components: dict[str, Float[Tensor, "batch d_model"]],
    answers: Int[Tensor, "batch"],
    foils: Int[Tensor, "batch"],
) -> dict[str, Float[Tensor, "batch"]]:
    """What each component adds to logit(answer) - logit(foil) by itself, with the final norm's divisor held fixed.

    The layer norm takes each vector's mean away, divides by a number, and multiplies by a gain. The division is by
    the standard deviation of the *whole* stream x = sum of all components:

        (c - mean(c)) / sqrt(var(x) + eps) * gain . (W_U[:, answer] - W_U[:, foil])

    is what component c adds. The norm's bias and the unembedding's belong to no component.

    Args:
        model: A model with ``ln_final`` (``w``, ``b`` and ``eps``; a folded norm has no ``w`` and ``b``, which
            stand for ones and zeros) and ``unembed`` (``W_U``, ``b_U``).
        components: Vectors that sum to the stream behind the last block, at one position of each text.
        answers, foils: Token ids, one each for each text.

    Returns:
        By the components' names, and under "constant" what the two biases add: logits that sum to the logit
        difference of the model.

    Raises:
        ValueError: If there are no components, or ``answers`` or ``foils`` do not have one id for each text.

    Source: Elhage et al. (2021), "A Mathematical Framework for Transformer Circuits", section "Path Expansion of
    Logits"; Wang et al. (2022), "Interpretability in the Wild", section 3.1.
    """
    if not components:
        raise ValueError("components is empty")
    total = torch.stack(list(components.values())).sum(dim=0)
    if answers.shape != total.shape[:1] or foils.shape != total.shape[:1]:
        raise ValueError(f"answers and foils must hold {len(total)} ids, one for each text")
    norm, unembed = model.ln_final, model.unembed
    gain, bias = getattr(norm, "w", torch.ones_like(total[0])), getattr(norm, "b", torch.zeros_like(total[0]))
    direction = (unembed.W_U[:, answers] - unembed.W_U[:, foils]).T
    divisor = (total.var(dim=-1, unbiased=False) + norm.eps).sqrt()
    # (c - mean(c)) . r equals c . (r - mean(r)): the direction is centred once, instead of every component.
    read = gain * direction
    read = (read - read.mean(dim=-1, keepdim=True)) / divisor[:, None]
    found = {
        name: einsum(value, read, "batch d_model, batch d_model -> batch").detach()
        for name, value in components.items()
    }
    found["constant"] = (direction @ bias + unembed.b_U[answers] - unembed.b_U[foils]).detach()
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
        model: A ``HookedTransformer``.
        tokens: Token ids.
        layer, head: Which head, counted from 0.
        positions: For each text the position q whose prediction is asked about; entries for k > q are 0.
        answers, foils: Token ids, one each for each text.

    Returns:
        Contributions in logits, detached from the graph; a row sums to the head's direct logit attribution at q.

    Raises:
        ValueError: If the model has no such ``layer`` or ``head``.

    Source: Elhage et al. (2021), section "Attention Heads as Information Movement"; Wang et al. (2022), section 3.1.
    """
    if not 0 <= layer < len(model.blocks):
        raise ValueError(f"layer must be between 0 and {len(model.blocks) - 1}, got {layer}")
    attn = model.blocks[layer].attn
    if not 0 <= head < attn.W_O.shape[0]:
        raise ValueError(f"head must be between 0 and {attn.W_O.shape[0] - 1}, got {head}")
    last, rows = f"blocks.{len(model.blocks) - 1}.hook_resid_post", torch.arange(len(tokens))
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens, return_type=None)
        weights = cache[f"blocks.{layer}.attn.hook_pattern"][rows, head, positions]
        values = cache[f"blocks.{layer}.attn.hook_v"][:, :, head] @ attn.W_O[head]
        moved = einsum(weights, values, "batch key, batch key d_model -> key batch d_model")
        parts = {str(key): vectors for key, vectors in enumerate(moved)}
        parts["rest"] = cache[last][rows, positions] - moved.sum(dim=0)
        found = direct_logit_attribution(model, parts, answers, foils)
        return torch.stack([found[str(key)] for key in range(tokens.shape[1])], dim=-1)
