"""Three numbers for a distribution read by a lens: rank of a token, entropy, distance from the final distribution."""

import torch
from jaxtyping import Float, Int
from torch import Tensor


def lens_rank(logits: Float[Tensor, "*batch d_vocab"], target: Int[Tensor, "..."]) -> Int[Tensor, "*batch"]:
    """How many tokens have a higher logit than the target; 0 means that the target is on top.

    Tokens that tie with the target are not above it.

    Args:
        logits: Logits of any lens.
        target: Token ids. Its shape broadcasts against the dimensions before d_vocab, so that one target for each
            prompt, [batch], serves all sites of logits [site, batch, d_vocab].

    Returns:
        Ranks between 0 and d_vocab - 1, as integers.

    Raises:
        ValueError: If an id in ``target`` is not between 0 and d_vocab - 1.

    Source: nostalgebraist (2020), "interpreting GPT: the logit lens", which follows a token's rank through the layers.
    """
    if bool(((target < 0) | (target >= logits.shape[-1])).any()):
        raise ValueError(f"target must hold ids from 0 to {logits.shape[-1] - 1}")
    index = target.expand(logits.shape[:-1]).unsqueeze(-1)
    return (logits > logits.gather(-1, index)).sum(dim=-1)


def lens_entropy(logits: Float[Tensor, "*batch d_vocab"]) -> Float[Tensor, "*batch"]:
    """How undecided a distribution is: 0 nats for certainty, log(d_vocab) for the uniform distribution.

    H = - sum over v of p_v log p_v, with p = softmax(logits). A token of probability 0 contributes 0.

    Args:
        logits: Logits of any size, each distribution at a level of its own; a logit of -inf forbids a token.

    Returns:
        Entropy in nats, with the dtype of the logits; in half precision (float16, bfloat16) logits are made float32
        first, and so is the entropy. Gradients flow to the logits, finite ones also where a token's probability is 0.

    Source: Shannon (1948), "A Mathematical Theory of Communication", section 6.
    """
    log_p = logits.to(torch.promote_types(logits.dtype, torch.float32)).log_softmax(dim=-1)
    # Where p is 0, log p may be -inf: 0 in its place, before the product, keeps value and gradient finite.
    return -(log_p.exp() * log_p.masked_fill(log_p == -torch.inf, 0.0)).sum(dim=-1)


def lens_kl(
    logits: Float[Tensor, "*batch d_vocab"], final_logits: Float[Tensor, "... d_vocab"]
) -> Float[Tensor, "*batch"]:
    """How far a lens is from what the model will say: KL(final || lens), in nats.

    KL = sum over v of p_v (log p_v - log q_v), with p = softmax(final_logits) and q = softmax(logits).

    Args:
        logits: Finite logits of a lens.
        final_logits: The model's own logits, finite; broadcast against ``logits``, so that [batch, d_vocab] serves
            all sites of [site, batch, d_vocab]. Gradients flow to both.

    Returns:
        Divergence: 0 where the two distributions are equal, positive elsewhere (up to rounding), with the dtype of the
        logits. In half precision (float16, bfloat16) logits are made float32 first, and so is the divergence.

    Raises:
        ValueError: If the two do not have the same number of tokens.

    Source: Belrose et al. (2023), "Eliciting Latent Predictions from Transformers with the Tuned Lens".
    """
    if logits.shape[-1] != final_logits.shape[-1]:
        raise ValueError(f"logits and final_logits have {logits.shape[-1]} and {final_logits.shape[-1]} tokens")
    wide = torch.promote_types(logits.dtype, torch.float32)
    log_p, log_q = final_logits.to(wide).log_softmax(dim=-1), logits.to(wide).log_softmax(dim=-1)
    return (log_p.exp() * (log_p - log_q)).sum(dim=-1)
