"""Wrong and right answers for the induction circuit as a network whose matrices can be decomposed."""

import torch
import torch.nn.functional as F

from utils.course.catalogue import right, wrong


def network(
    state, chosen, scale=True, mask=True, through=lambda name, chosen: name in chosen, residual=True, positions=True,
    cut=False,
):  # fmt: skip
    def forward(tokens, linear):
        n = tokens.shape[1]
        resid = state["embed.W_E"][tokens]
        if positions:
            resid = resid + state["pos_embed.W_pos"][:n]
        future = torch.ones(n, n, dtype=torch.bool).triu(1)
        n_layers = sum(name.endswith("W_Q") for name in state)
        for layer in range(n_layers):

            def times(which, a, layer=layer):
                name = f"{layer}.{which}"
                W = state[f"blocks.{layer}.attn.{which}"][0]
                return linear(name, a) if through(name, chosen) else a @ W

            q, k, v = (times(which, resid) for which in ("W_Q", "W_K", "W_V"))
            scores = q @ k.mT
            if scale:
                scores = scores / q.shape[-1] ** 0.5
            if mask:
                scores = scores.masked_fill(future, -torch.inf)
            pattern = scores.softmax(-1)
            out = times("W_O", (pattern.detach() if cut else pattern) @ v)
            resid = resid + out if residual else out
        return resid @ state["unembed.W_U"]

    return forward


@wrong("induction_forward", "Your scores are not divided by sqrt(d_head): attention is sharper than it should be.")
def unscaled(state, chosen):
    return network(state, chosen, scale=False)


@wrong("induction_forward", "Your queries see later positions.")
def unmasked(state, chosen):
    return network(state, chosen, mask=False)


@wrong("induction_forward", "All matrices go through linear in your network, and only the chosen ones have components.")
def all_through(state, chosen):
    return network(state, chosen, through=lambda name, chosen: True)


@wrong(
    "induction_forward",
    "No matrix goes through linear in your network: it would run on its own weights whatever the masks say.",
)
def none_through(state, chosen):
    return network(state, chosen, through=lambda name, chosen: False)


@wrong("induction_forward", "Your heads' outputs replace the stream. They are added to it.")
def without_stream(state, chosen):
    return network(state, chosen, residual=False)


@wrong("induction_forward", "The positions are missing from your stream.")
def without_positions(state, chosen):
    return network(state, chosen, positions=False)


@wrong(
    "induction_forward",
    "Your logits are right, and no gradient gets back through the attention pattern: W_Q and W_K could not be "
    "decomposed by training.",
)
def cut_off(state, chosen):
    return network(state, chosen, cut=True)


@right("induction_forward")
def by_functional(state, chosen):
    layers = range(max(int(name.split(".")[1]) for name in state if name.startswith("blocks.")) + 1)

    def forward(tokens, linear):
        resid = F.embedding(tokens, state["embed.W_E"]) + state["pos_embed.W_pos"][: tokens.shape[1]]
        for layer in layers:

            def product(a, which, layer=layer):
                if f"{layer}.{which}" in chosen:
                    return linear(f"{layer}.{which}", a)
                return torch.einsum("bpi,io->bpo", a, state[f"blocks.{layer}.attn.{which}"][0])

            q, k, v = product(resid, "W_Q"), product(resid, "W_K"), product(resid, "W_V")
            z = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            resid = resid + product(z, "W_O")
        return resid @ state["unembed.W_U"]

    return forward
