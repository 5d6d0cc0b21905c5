"""Checks for the induction circuit as a network whose matrices can be decomposed."""

import torch

from utils.circuits.networks import attention_only
from utils.course.checking import expect, expect_close, expect_shape

SIZES = ((1, 5, 4, 7, 3, 4), (2, 4, 6, 5, 2, 3), (3, 3, 1, 4, 5, 2))  # layers, vocab, n_ctx, d_model, d_head, pos
WHICH = ("W_Q", "W_K", "W_V", "W_O")


def random_state(rng, n_layers, d_vocab, n_ctx, d_model, d_head):
    def draw(*shape):
        return torch.randn(shape, generator=rng)

    state = {
        "embed.W_E": draw(d_vocab, d_model),
        "pos_embed.W_pos": draw(n_ctx, d_model),
        "unembed.W_U": draw(d_model, d_vocab),
    }
    for layer in range(n_layers):
        for which in WHICH:
            shape = (1, d_head, d_model) if which == "W_O" else (1, d_model, d_head)
            state[f"blocks.{layer}.attn.{which}"] = 0.6 * draw(*shape)
    return state


def weight(state, name):
    layer, which = name.split(".")
    return state[f"blocks.{layer}.attn.{which}"][0]


class TestInductionForward:
    exercise = "induction_forward"

    def test_values(self, answer, rng):
        "random weights of one, two and three layers: the logits of attention_only, whatever is chosen"
        for n_layers, d_vocab, n_ctx, d_model, d_head, pos in SIZES:
            state = random_state(rng, n_layers, d_vocab, max(n_ctx, pos), d_model, d_head)
            tokens = torch.randint(d_vocab, (3, pos), generator=rng)
            wanted = attention_only(state, tokens)[0]
            for chosen in ((), ("0.W_Q", "0.W_O"), tuple(f"{n_layers - 1}.{which}" for which in WHICH)):
                found = answer(state, chosen)(tokens, lambda name, a, state=state: a @ weight(state, name))
                expect_shape(found, (3, pos, d_vocab))
                expect_close(found, wanted, rtol=1e-3, atol=1e-4)

    def test_chosen(self, answer, rng):
        "the chosen matrices go through linear, each once, and no others"
        state = random_state(rng, 2, 5, 4, 7, 3)
        tokens = torch.randint(5, (2, 4), generator=rng)
        for chosen in (("1.W_V",), ("0.W_K", "1.W_Q", "1.W_O"), ()):
            asked = []

            def linear(name, a, asked=asked):
                asked.append(name)
                return a @ weight(state, name)

            answer(state, chosen)(tokens, linear)
            expect(
                sorted(asked) == sorted(chosen),
                f"linear is to be asked once for each of {list(chosen)}.",
                actual=("asked", *asked), returned=str(asked), expected=str(sorted(chosen)),
            )  # fmt: skip

    def test_other_products(self, answer, rng):
        "where linear gives something else, this is what counts"
        for name in ("0.W_Q", "0.W_K", "0.W_V", "0.W_O", "1.W_V"):
            state = random_state(rng, 2, 4, 5, 6, 3)
            tokens = torch.randint(4, (2, 5), generator=rng)
            layer, which = name.split(".")
            other = dict(state)
            other[f"blocks.{layer}.attn.{which}"] = torch.randn(weight(state, name).shape, generator=rng)[None]
            found = answer(state, (name,))(tokens, lambda name, a, other=other: a @ weight(other, name))
            expect_close(found, attention_only(other, tokens)[0], rtol=1e-3, atol=1e-4)

    def test_gradients(self, answer, rng):
        "gradients reach what linear gives, for each of the matrices"
        state = random_state(rng, 2, 4, 5, 6, 3)
        tokens = torch.randint(4, (2, 5), generator=rng)
        chosen = [f"{layer}.{which}" for layer in range(2) for which in WHICH]
        leaves = {name: weight(state, name).clone().requires_grad_() for name in chosen}
        found = answer(state, chosen)(tokens, lambda name, a: a @ leaves[name])
        pulls = [None] * len(chosen)
        if found.requires_grad:
            pulls = torch.autograd.grad(found.square().sum(), list(leaves.values()), allow_unused=True)
        for name, pull in zip(chosen, pulls, strict=True):
            expect(pull is not None and bool(pull.any()), f"No gradient reaches {name}.", actual=("no gradient", name))
