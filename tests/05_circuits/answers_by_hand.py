"""Wrong answers for the circuit by hand, each with its sentence, and right ones."""

import torch

from utils.course.catalogue import right, wrong


def circuit(
    d_vocab,
    n_ctx,
    sharpness,
    *,
    root=True,
    loud=None,
    shift=-1,
    asks="previous",
    reads="token",
    first=-1.0,
    query="token",
    direct=0.0,
):
    """The circuit, with one thing or another done differently; all matrices are square."""
    d = 3 * d_vocab + n_ctx
    slots = {name: slice(i * d_vocab, (i + 1) * d_vocab) for i, name in enumerate(("token", "previous", "guess"))}
    position, eye = slice(3 * d_vocab, d), torch.eye(d_vocab)
    strong = sharpness * (d**0.5 if root else 1.0)
    state = {f"blocks.{i}.attn.{w}": torch.zeros(1, d, d) for i in (0, 1) for w in ("W_Q", "W_K", "W_V", "W_O")}
    state |= {"embed.W_E": torch.zeros(d_vocab, d), "pos_embed.W_pos": torch.zeros(n_ctx, d)}
    state["unembed.W_U"] = torch.zeros(d, d_vocab)
    state["embed.W_E"][:, slots["token"]] = eye
    state["pos_embed.W_pos"][:, position] = torch.eye(n_ctx)
    state["unembed.W_U"][slots["guess"]] = eye
    state["unembed.W_U"][slots["token"]] = direct * eye
    wanted = torch.zeros(n_ctx, n_ctx)
    for i in range(n_ctx):
        wanted[i, min(max(i + shift, 0), n_ctx - 1)] = 1.0
    state["blocks.0.attn.W_Q"][0, position, position] = strong * wanted
    state["blocks.0.attn.W_K"][0, position, position] = torch.eye(n_ctx)
    state["blocks.0.attn.W_V"][0, slots["token"], slots["token"]] = eye
    state["blocks.0.attn.W_O"][0, slots["token"], slots["previous"]] = eye
    state["blocks.1.attn.W_Q"][0, slots[query], slots["token"]] = strong * eye
    state["blocks.1.attn.W_K"][0, slots[asks], slots["token"]] = eye
    state["blocks.1.attn.W_K"][0, position.start, slots["token"]] += first
    state["blocks.1.attn.W_V"][0, slots[reads], slots["token"]] = eye
    state["blocks.1.attn.W_O"][0, slots["token"], slots["guess"]] = (sharpness if loud is None else loud) * eye
    return state


@wrong(
    "two_head_induction_by_hand",
    "Your circuit works, but for one place. Position 0 has no token before it, so head 0.0 looks at position 0 itself "
    "and writes its own token there as if it came before. When that token comes again, head 1.0 finds two places.",
)
def position_0_matches_itself(d_vocab, n_ctx, sharpness=20.0):
    return circuit(d_vocab, n_ctx, sharpness, first=0.0)


def narrow(state, d_vocab, n_ctx):
    """The same weights without the heads' dimensions that nobody uses."""
    d_head, pad = max(d_vocab, n_ctx), torch.nn.functional.pad
    for name in ("blocks.0.attn.W_Q", "blocks.0.attn.W_K"):
        state[name] = pad(state[name][..., 3 * d_vocab :], (0, d_head - n_ctx))
    for name in ("blocks.0.attn.W_V", "blocks.1.attn.W_Q", "blocks.1.attn.W_K", "blocks.1.attn.W_V"):
        state[name] = state[name][..., :d_head]
    for name in ("blocks.0.attn.W_O", "blocks.1.attn.W_O"):
        state[name] = state[name][:, :d_head]
    return state


@wrong(
    "two_head_induction_by_hand",
    "Your scores are too weak by the division by sqrt(d_head), which the network makes and you did not make up for: "
    "some of the attention stays with the other keys.",
)
def root_forgotten(d_vocab, n_ctx, sharpness=20.0):
    return narrow(circuit(d_vocab, n_ctx, sharpness, root=False), d_vocab, n_ctx)


@wrong(
    "two_head_induction_by_hand",
    "Your scores are too weak by the division by sqrt(d_head), which the network makes and you did not make up for. "
    "With heads as wide as yours it leaves so little that a good part of the attention stays with the other keys.",
)
def root_of_wide_heads_forgotten(d_vocab, n_ctx, sharpness=20.0):
    return circuit(d_vocab, n_ctx, sharpness, root=False)


@wrong(
    "two_head_induction_by_hand",
    "Head 1.0 asks for copies of its token, not for what came behind them: its keys read the token of each position "
    "instead of what head 0.0 has written there. This is a duplicate-token head.",
)
def asks_for_the_copy(d_vocab, n_ctx, sharpness=20.0):
    return circuit(d_vocab, n_ctx, sharpness, asks="token", first=0.0)


@wrong(
    "two_head_induction_by_hand",
    "Head 1.0 looks at the right place and copies the wrong thing: its values read what head 0.0 wrote there (the "
    "token before), which is the query's own token.",
)
def copies_the_token_before(d_vocab, n_ctx, sharpness=20.0):
    return circuit(d_vocab, n_ctx, sharpness, reads="previous")


@wrong(
    "two_head_induction_by_hand",
    "In head 1.0 query and key have changed places: it asks with what head 0.0 has written, the token before, and so "
    "finds that token itself, and not what followed the query's own.",
)
def query_and_key_swapped(d_vocab, n_ctx, sharpness=20.0):
    return circuit(d_vocab, n_ctx, sharpness, query="previous", asks="token", first=0.0)


@wrong(
    "two_head_induction_by_hand",
    "Both heads look at the right places, and the token at the query itself has as large a logit as the one that is "
    "copied: the unembedding reads the slot in which each position has its own token.",
)
def unembeds_its_own_token(d_vocab, n_ctx, sharpness=20.0):
    return circuit(d_vocab, n_ctx, sharpness, direct=sharpness)


@wrong(
    "two_head_induction_by_hand",
    "Both heads look at the right places, and the token at the query itself has a larger logit than the one that is "
    "copied: the unembedding reads the slot in which each position has its own token.",
)
def unembeds_its_own_token_louder(d_vocab, n_ctx, sharpness=20.0):
    return circuit(d_vocab, n_ctx, sharpness, direct=2 * sharpness)


@wrong(
    "two_head_induction_by_hand",
    "Head 0.0 looks at its own position: nothing has been shifted, and the slot for the token before holds the token "
    "itself.",
)
def no_shift(d_vocab, n_ctx, sharpness=20.0):
    return circuit(d_vocab, n_ctx, sharpness, shift=0, first=0.0)


@wrong(
    "two_head_induction_by_hand",
    "Head 0.0 looks two tokens back.",
)
def two_back(d_vocab, n_ctx, sharpness=20.0):
    return circuit(d_vocab, n_ctx, sharpness, shift=-2)


@wrong(
    "two_head_induction_by_hand",
    "The attention is right and the copied token hardly leads: a value of 1 is a logit of 1. Multiply by `sharpness` "
    "on the way to the logits.",
)
def whispers(d_vocab, n_ctx, sharpness=20.0):
    return circuit(d_vocab, n_ctx, sharpness, loud=1.0)


@right("two_head_induction_by_hand")
def square_matrices(d_vocab, n_ctx, sharpness=20.0):
    return circuit(d_vocab, n_ctx, sharpness)


@right("two_head_induction_by_hand")
def heads_of_two_sizes(d_vocab, n_ctx, sharpness=20.0):
    """Layer 0 with a few dimensions more, which nobody uses."""
    state = circuit(d_vocab, n_ctx, sharpness)
    for which in ("W_Q", "W_K", "W_V"):
        state[f"blocks.0.attn.{which}"] = torch.nn.functional.pad(state[f"blocks.0.attn.{which}"], (0, 3))
    state["blocks.0.attn.W_O"] = torch.nn.functional.pad(state["blocks.0.attn.W_O"], (0, 0, 0, 3))
    return state


@right("two_head_induction_by_hand")
def turned_stream(d_vocab, n_ctx, sharpness=20.0):
    """The same circuit in a basis in which no dimension means anything."""
    state = circuit(d_vocab, n_ctx, sharpness, loud=1.5 * sharpness)
    d = state["unembed.W_U"].shape[0]
    turn = torch.linalg.qr(torch.randn(d, d, generator=torch.Generator().manual_seed(0), dtype=torch.float64)).Q.float()
    turned = {}
    for name, value in state.items():
        reads = name.endswith(("W_Q", "W_K", "W_V", "W_U"))
        turned[name] = turn.T @ value if reads else value @ turn
    return turned


@right("two_head_induction_by_hand")
def guess_in_the_token_slot(d_vocab, n_ctx, sharpness=20.0):
    """No slot of its own for the answer: loud enough, it drowns the token that stands there."""
    d, head = 2 * d_vocab + n_ctx, d_vocab + n_ctx
    t, p, at = slice(0, d_vocab), slice(d_vocab, 2 * d_vocab), slice(2 * d_vocab, d)
    E, P = torch.eye(d_vocab), torch.eye(n_ctx)

    def block(rows, columns, value, shape=(d, head)):
        full = torch.zeros(1, *shape)
        full[0, rows, columns] = value
        return full

    strong = 2 * sharpness * head**0.5
    keys = block(p, t, E)
    keys[0, at.start, t] = -1.0
    back = torch.diag(torch.ones(n_ctx - 1), -1)
    return {
        "embed.W_E": torch.cat([E, torch.zeros(d_vocab, d_vocab + n_ctx)], 1),
        "pos_embed.W_pos": torch.cat([torch.zeros(n_ctx, 2 * d_vocab), P], 1),
        "blocks.0.attn.W_Q": block(at, slice(d_vocab, head), strong * back),
        "blocks.0.attn.W_K": block(at, slice(d_vocab, head), P),
        "blocks.0.attn.W_V": block(t, t, E),
        "blocks.0.attn.W_O": block(t, p, E, (head, d)),
        "blocks.1.attn.W_Q": block(t, t, strong * E),
        "blocks.1.attn.W_K": keys,
        "blocks.1.attn.W_V": block(t, t, E),
        "blocks.1.attn.W_O": block(t, t, (sharpness + 1) * E, (head, d)),
        "unembed.W_U": torch.cat([E, torch.zeros(d_vocab + n_ctx, d_vocab)], 0),
    }
