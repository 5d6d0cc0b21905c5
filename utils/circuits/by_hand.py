"""An induction circuit whose every weight is set by hand."""

import torch
from torch import Tensor


def two_head_induction_by_hand(d_vocab: int, n_ctx: int, sharpness: float = 20.0) -> dict[str, Tensor]:
    """Weights of a transformer of two layers with one head each that continues whatever it has seen before.

    Head 0.0 attends to the token before. Head 1.0 attends to the positions whose token before is the query's own, and
    raises the logit of the token that stands there. Where a token t of a text has come before, always followed by one
    and the same token u, the logit of u exceeds all others by at least 0.9 times ``sharpness``, for a sharpness of 15
    or more. This holds also where t is the first token of the text, before which there is none.

    Args:
        d_vocab: Tokens.
        n_ctx: Positions.
        sharpness: By how much, after the division by sqrt(d_head), the score of the key that a head seeks exceeds the
            scores of the other keys; and by how much the logit of the copied token exceeds the others' if all attention
            is on it.

    Returns:
        A state dict for ``attention_only``: "embed.W_E", "pos_embed.W_pos", "unembed.W_U", and of layers 0 and 1
        "blocks.0.attn.W_Q" [1, d_model, d_head] …; float32. Which dimensions of the stream carry what, d_model and
        d_head are up to you.

    Source: the circuit is that of Elhage et al. (2021), section "Induction heads"; the weights are ours.
    """
    token, previous, guess = (slice(i * d_vocab, (i + 1) * d_vocab) for i in range(3))
    position = slice(3 * d_vocab, 3 * d_vocab + n_ctx)
    d_model, d_head = 3 * d_vocab + n_ctx, max(d_vocab, n_ctx)
    state = {
        "embed.W_E": torch.zeros(d_vocab, d_model),
        "pos_embed.W_pos": torch.zeros(n_ctx, d_model),
        "unembed.W_U": torch.zeros(d_model, d_vocab),
    }
    for layer in range(2):
        for which in ("W_Q", "W_K", "W_V"):
            state[f"blocks.{layer}.attn.{which}"] = torch.zeros(1, d_model, d_head)
        state[f"blocks.{layer}.attn.W_O"] = torch.zeros(1, d_head, d_model)
    same_token, same_position, strong = torch.eye(d_vocab), torch.eye(n_ctx), sharpness * d_head**0.5
    state["embed.W_E"][:, token] = same_token
    state["pos_embed.W_pos"][:, position] = same_position
    state["unembed.W_U"][guess] = same_token
    # Head 0.0: position i asks for position i - 1, and writes the token that it finds there into the slot `previous`.
    state["blocks.0.attn.W_Q"][0, position, :n_ctx] = strong * same_position.roll(-1, dims=1).tril()
    state["blocks.0.attn.W_K"][0, position, :n_ctx] = same_position
    state["blocks.0.attn.W_V"][0, token, :d_vocab] = same_token
    state["blocks.0.attn.W_O"][0, :d_vocab, previous] = same_token
    # Head 1.0: the token asks for positions whose previous token it is. Position 0 could only look at itself, and has
    # its own token in that slot: the second line takes the match away again.
    state["blocks.1.attn.W_Q"][0, token, :d_vocab] = strong * same_token
    state["blocks.1.attn.W_K"][0, previous, :d_vocab] = same_token
    state["blocks.1.attn.W_K"][0, position.start, :d_vocab] = -1.0
    state["blocks.1.attn.W_V"][0, token, :d_vocab] = same_token
    state["blocks.1.attn.W_O"][0, :d_vocab, guess] = sharpness * same_token
    return state
