"""Checks for the induction circuit that is set by hand."""

import torch

from utils.circuits.networks import attention_only
from utils.course.checking import Mismatch, expect, expect_shape

NAMES = (
    "embed.W_E",
    "pos_embed.W_pos",
    *(f"blocks.{layer}.attn.{which}" for layer in (0, 1) for which in ("W_Q", "W_K", "W_V", "W_O")),
    "unembed.W_U",
)


def weights(answer, d_vocab, n_ctx, sharpness=20.0):
    """The learner's weights, with names and shapes as the docstring has them."""
    state = answer(d_vocab, n_ctx, sharpness)
    if not isinstance(state, dict):
        raise Mismatch("Return a dict of weights by name.", actual=type(state).__name__)
    expect(
        set(state) == set(NAMES), "The names are not the standard ones.", actual=sorted(map(str, state)),
        expected=", ".join(NAMES),
    )  # fmt: skip
    expect_shape(state["embed.W_E"], (d_vocab, *state["embed.W_E"].shape[1:]), note="W_E has one row a token.")
    d_model = state["embed.W_E"].shape[-1]
    shapes = {"pos_embed.W_pos": (n_ctx, d_model), "unembed.W_U": (d_model, d_vocab)}
    for block in ("blocks.0.attn", "blocks.1.attn"):
        asks, hands_on = (state[f"{block}.{which}"].shape[-1] for which in ("W_Q", "W_V"))
        shapes |= {f"{block}.{which}": (1, d_model, asks) for which in ("W_Q", "W_K")}
        shapes |= {f"{block}.W_V": (1, d_model, hands_on), f"{block}.W_O": (1, hands_on, d_model)}
    for name, shape in shapes.items():
        expect_shape(state[name], shape, note=f"{name} has the wrong shape.")
    return {name: value.float() for name, value in state.items()}


def run(state, tokens):
    logits, patterns = attention_only(state, tokens)
    expect(bool(logits.isfinite().all()), "There are logits that are not finite.", actual="not finite")
    return logits, patterns


def repeated(rng, batch, period, length, d_vocab):
    """Rows that repeat ``period`` tokens, all different, from the first one on."""
    half = torch.rand(batch, d_vocab, generator=rng).argsort(-1)[:, :period]
    return half[:, torch.arange(length) % period]


def expect_lead(logits, tokens, queries, answers, least, note):
    """Expect the answers' logits to exceed all others by ``least`` at the queries."""
    at = logits[:, queries]
    others = at.scatter(-1, answers[..., None], -torch.inf).max(-1)
    leads = at.gather(-1, answers[..., None])[..., 0] - others.values
    row, i = divmod(int(leads.argmin()), len(queries))
    lead, other, query = leads[row, i].item(), others.indices[row, i], int(queries[i])
    if lead > 0.01:
        found, told = ("ahead", abs(lead - 1) < 0.01), ""
    else:
        rival = {int(tokens[row, query - 1]): "the token before", int(tokens[row, query]): "the token itself"}
        told = rival.get(int(other), "another token")
        own_at_new = int(logits[row, 2].argmax()) == int(tokens[row, 2])  # nothing can be found there
        found, told = (told, lead < -0.01, own_at_new), f" against {told}"
    expect(lead >= least, note, actual=found, returned=f"{lead:.2f}{told}", expected=f"at least {least:.1f}")


def expect_continued(logits, tokens, period, queries, least, note):
    queries = torch.arange(period, tokens.shape[1])[queries]
    expect_lead(logits, tokens, queries, tokens[:, queries - period + 1], least, note)


class TestTwoHeadInductionByHand:
    exercise = "two_head_induction_by_hand"

    def cases(self, rng, sharpness=20.0):
        for d_vocab, n_ctx, period, length in ((9, 14, 5, 14), (6, 20, 6, 17), (13, 8, 4, 8)):
            yield d_vocab, n_ctx, period, repeated(rng, 4, period, length, d_vocab), sharpness

    def test_previous_token_head(self, answer, rng):
        "head 0.0 gives all its attention to the token before"
        for d_vocab, n_ctx, _, tokens, sharpness in self.cases(rng):
            state = weights(answer, d_vocab, n_ctx, sharpness)
            _, patterns = run(state, tokens)
            least = patterns[0, :, 0].diagonal(offset=-1, dim1=-2, dim2=-1).min()
            back = tokens.shape[1] - 1 - int(patterns[0, 0, 0, -1].argmax())
            gap = patterns[0, 0, 0, -1].log()[-3:-1].diff()
            root = abs(gap.item() - sharpness / state["blocks.0.attn.W_Q"].shape[-1] ** 0.5) < 0.01
            expect(
                least > 0.99, "Head 0.0 does not give all its attention to the token before.", actual=(back, root),
                returned=f"as little as {least:.2f} of the attention", expected="nearly 1",
            )  # fmt: skip

    def test_induction_head(self, answer, rng):
        "head 1.0 gives all its attention to what followed, the repetition's first token left out"
        for d_vocab, n_ctx, period, tokens, sharpness in self.cases(rng):
            _, patterns = run(weights(answer, d_vocab, n_ctx, sharpness), tokens)
            queries = torch.arange(period + 1, tokens.shape[1])
            keys = torch.arange(tokens.shape[1])
            sought = (
                (tokens[:, queries, None] == tokens[:, None, :].roll(1, -1)) & (keys > 0) & (keys < queries[:, None])
            )
            least = (patterns[1, :, 0][:, queries] * sought).sum(-1).min()
            most, key = patterns[1, 0, 0, -1].max(-1)
            found = ("1.0", (tokens.shape[1] - 1 - int(key)) % period, bool(most > 0.9))
            expect(
                least > 0.99, "Head 1.0 does not give all its attention to what followed the token.", actual=found,
                returned=f"as little as {least:.2f} of the attention", expected="nearly 1",
            )  # fmt: skip

    def test_continues(self, answer, rng):
        "whatever has come before is continued, and by how much it leads"
        drawn = 15 + 15 * float(torch.rand((), generator=rng, dtype=torch.float64))
        for sharpness in (15.0, drawn, 30.0):
            for d_vocab, n_ctx, period, tokens, _ in self.cases(rng):
                logits, _ = run(weights(answer, d_vocab, n_ctx, sharpness), tokens)
                expect_continued(
                    logits, tokens, period, slice(1, None), 0.9 * sharpness,
                    "Where a token comes again, what followed it does not lead by `sharpness`.",
                )  # fmt: skip

    def test_first_token_again(self, answer, rng):
        "also where the first token of the text comes again"
        for d_vocab, n_ctx, period, tokens, sharpness in self.cases(rng):
            logits, _ = run(weights(answer, d_vocab, n_ctx, sharpness), tokens)
            expect_continued(
                logits, tokens, period, slice(1), 0.9 * sharpness,
                "Where the text's first token comes again, what followed it does not lead. Head 0.0 has nothing before "
                "position 0 to look at there; what does it write into position 0 instead?",
            )  # fmt: skip

    def test_at_any_distance(self, answer, rng):
        "a pair that comes again after other tokens, near and far"
        state = weights(answer, 12, 16)
        for gap in (1, 3, 7):
            words = torch.randperm(12, generator=rng).tolist()
            text = [*words[:3], *words[3 : 3 + gap], words[1]]
            tokens = torch.tensor([text])
            expect_lead(
                run(state, tokens)[0], tokens, torch.tensor([len(text) - 1]), torch.tensor([[words[2]]]), 18.0,
                "A pair of tokens that came once is not completed when its first token comes again.",
            )  # fmt: skip
