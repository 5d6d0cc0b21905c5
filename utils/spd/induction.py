"""The induction circuit that was set by hand, as a network whose matrices can be decomposed."""

from collections.abc import Callable, Collection, Mapping

import torch
from jaxtyping import Float, Int
from torch import Generator, Tensor

from utils.circuits.by_hand import two_head_induction_by_hand
from utils.spd.components import Forward
from utils.spd.losses import mean_squared_error

CHOSEN = ("0.W_Q", "0.W_V")
D_VOCAB, N_CTX = 6, 8


def induction_forward(state: Mapping[str, Tensor], chosen: Collection[str]) -> Forward:
    """An attention-only transformer with one head in each layer, some of whose matrices go through ``linear``.

    It computes what ``attention_only`` (05a) computes: embeddings and positions; in each layer queries, keys and values
    of the stream, scores q kᵀ / sqrt(d_head), no attention to later positions, a softmax, and the heads' outputs added
    to the stream; then the unembedding. No norms, no biases.

    Args:
        state: Weights by the names of ``two_head_induction_by_hand``, for any number of layers of one head: W_Q, W_K
            and W_V are [1, d_model, d_head], W_O is [1, d_head, d_model].
        chosen: Names of the matrices that go through ``linear``: "0.W_Q" for layer 0's, "1.W_O" … All others multiply
            by their own weights.

    Returns:
        ``forward(tokens, linear)`` for tokens [batch, pos], as many positions as there are or fewer, gives the logits.
        Gradients reach whatever ``linear`` gives.
    """

    def forward(tokens: Int[Tensor, "batch pos"], linear: Callable[[str, Tensor], Tensor]) -> Tensor:
        n = tokens.shape[1]
        resid = state["embed.W_E"][tokens] + state["pos_embed.W_pos"][:n]
        future = torch.ones(n, n, dtype=torch.bool).triu(1)
        layer = 0
        while f"blocks.{layer}.attn.W_Q" in state:

            def times(which: str, a: Tensor, layer: int = layer) -> Tensor:
                name = f"{layer}.{which}"
                return linear(name, a) if name in chosen else a @ state[f"blocks.{layer}.attn.{which}"][0]

            q, k, v = (times(which, resid) for which in ("W_Q", "W_K", "W_V"))
            pattern = (q @ k.mT / q.shape[-1] ** 0.5).masked_fill(future, -torch.inf).softmax(dim=-1)
            resid = resid + times("W_O", pattern @ v)
            layer += 1
        return resid @ state["unembed.W_U"]

    return forward


def balanced_circuit(d_vocab: int, n_ctx: int, sharpness: float = 20.0) -> dict[str, Tensor]:
    """The circuit of 05a with the scores' factor shared by W_Q and W_K, and logits 1 or 0 in place of the sharpness.

    It attends exactly as before. With all of the factor in W_Q the components would have far to go from where they
    start.

    Args:
        d_vocab, n_ctx, sharpness: Of ``two_head_induction_by_hand``.
    """
    state = two_head_induction_by_hand(d_vocab, n_ctx, sharpness)
    d_head = state["blocks.0.attn.W_Q"].shape[2]
    share = (sharpness * d_head**0.5) ** 0.5
    for layer in range(2):
        state[f"blocks.{layer}.attn.W_Q"] /= share
        state[f"blocks.{layer}.attn.W_K"] *= share
    state["blocks.1.attn.W_O"] /= sharpness
    return state


def said_twice(d_vocab: int, n_ctx: int, batch: int) -> Callable[[Generator], Int[Tensor, "batch pos"]]:
    """A source of texts: n_ctx / 2 different random tokens, and the same once more.

    Args:
        d_vocab: Tokens, at least n_ctx / 2.
        n_ctx: Positions, an even number.
        batch: Texts of a batch.
    """

    def draw(generator: Generator) -> Tensor:
        once = torch.rand(batch, d_vocab, generator=generator).argsort(dim=1)[:, : n_ctx // 2]
        return torch.cat([once, once], dim=1)

    return draw


def chosen_weights(state: Mapping[str, Tensor]) -> dict[str, Float[Tensor, "d_model d_head"]]:
    """The two matrices of the circuit that are decomposed: what the previous-token head asks for, and what it takes."""
    return {name: state["blocks.{}.attn.{}".format(*name.split("."))][0] for name in CHOSEN}


def second_time(logits: Float[Tensor, "*batch pos d_vocab"], wanted: Tensor) -> Float[Tensor, ""]:
    """The mean squared difference of the logits in the second half, where there is something to copy."""
    half = logits.shape[-2] // 2
    return mean_squared_error(logits[..., half:, :], wanted[..., half:, :])


def entries(W: Float[Tensor, "d_in d_out"]) -> Float[Tensor, "n d_in d_out"]:
    """Each entry of W that is not 0, as a matrix of its own: the decomposition that the writer of the circuit had."""
    places = W.nonzero()
    each = torch.zeros(len(places), *W.shape)
    each[torch.arange(len(places)), places[:, 0], places[:, 1]] = W[places[:, 0], places[:, 1]]
    return each
