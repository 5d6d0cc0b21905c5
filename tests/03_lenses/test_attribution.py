"""Checks for direct logit attribution, to components and to source positions."""

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from utils.course.checking import Mismatch, expect, expect_close, expect_raises, expect_shape
from utils.course.paths import load_file

common = load_file(Path(__file__).with_name("common.py"))
CONFIGS, random_model, random_tokens = common.CONFIGS, common.random_model, common.random_tokens
# Where the blocks do nothing, one is enough.
ENDS = tuple(replace(cfg, n_layers=1) for cfg in CONFIGS)
# Logits here are sums of up to a hundred float32 products of size one to ten, taken in different orders.
SUMS = {"rtol": 1e-4, "atol": 2e-4}


def two_tokens(rng, cfg, batch):
    """Answers and foils, different from each other in each text."""
    answers = torch.randint(cfg.d_vocab, (batch,), generator=rng)
    return answers, (answers + torch.randint(1, cfg.d_vocab, (batch,), generator=rng)) % cfg.d_vocab


def as_dict(result):
    if not isinstance(result, dict) or not result:
        raise Mismatch("Return a dict of contributions by name.", actual=type(result).__name__)
    return result


class FoldedNorm(nn.Module):
    """A layer norm as it is when gain and bias have been folded into the unembedding."""

    def __init__(self, eps):
        super().__init__()
        self.eps = eps

    def forward(self, x):
        centred = x - x.mean(-1, keepdim=True)
        return centred / (centred.square().mean(-1, keepdim=True) + self.eps).sqrt()


class TestDirectLogitAttribution:
    exercise = "direct_logit_attribution"

    def case(self, rng, cfg, batch=4, names=("embed", "a head", "an mlp")):
        """A model, components with means of their own, answers and foils."""
        parts = {name: 1.0 + torch.randn(batch, cfg.d_model, generator=rng) for name in names}
        return random_model(rng, cfg), parts, *two_tokens(rng, cfg, batch)

    def test_names(self, answer, rng):
        "the components' names, and the constant"
        model, parts, answers, foils = self.case(rng, ENDS[0])
        found = as_dict(answer(model, parts, answers, foils))
        expect(
            set(found) == {*parts, "constant"},
            "The names differ from the components' and 'constant'.",
            actual=sorted(found),
            expected=str([*parts, "constant"]),
        )
        for name, value in found.items():
            expect_shape(value, (4,), note=f"{name!r}: one number for each text is asked for.")

    def test_sum(self, answer, rng):
        "all together: the model's logit difference for the summed stream"
        for cfg in ENDS:
            model, parts, answers, foils = self.case(rng, cfg)
            found = as_dict(answer(model, parts, answers, foils))
            total = torch.stack(list(found.values())).sum(0).detach()
            logits = model.unembed(model.ln_final(sum(parts.values())[None]))[0].detach()
            rows = torch.arange(4)
            difference = logits[rows, answers] - logits[rows, foils]
            expect_close(total, difference, note="The contributions do not sum to the logit difference", **SUMS)

    def test_values(self, answer, reference, rng):
        "each contribution"
        for cfg in ENDS:
            case = self.case(rng, cfg)
            expect_close(dict(as_dict(answer(*case))), reference(*case), **SUMS)

    def test_whole_model(self, answer, reference, rng):
        "on a model's own output: a constant stream, tokens far apart, one text"
        model, parts, answers, foils = self.case(rng, ENDS[1], batch=1, names=("only",))
        expect_close(
            dict(as_dict(answer(model, parts, answers, foils))), reference(model, parts, answers, foils), **SUMS
        )

    def test_short_stream(self, answer, reference, rng):
        "a stream so short that the norm's eps is as large as its variance"
        model, parts, answers, foils = self.case(rng, ENDS[0])
        short = {name: 0.002 * (value - 1.0) for name, value in parts.items()}
        expect_close(
            dict(as_dict(answer(model, short, answers, foils))), reference(model, short, answers, foils), **SUMS
        )

    def test_linear_in_the_parts(self, answer, rng):
        "two components merged into one: their contributions add, and the others stay"
        model, parts, answers, foils = self.case(rng, ENDS[0])
        found = as_dict(answer(model, parts, answers, foils))
        merged = {"embed": parts["embed"], "both": parts["a head"] + parts["an mlp"]}
        again = as_dict(answer(model, merged, answers, foils))
        expect("both" in again and "embed" in again, "A component's name is missing.", actual=sorted(again))
        expect_close(again["both"], found["a head"] + found["an mlp"], note="Merged, they do not add up", **SUMS)
        expect_close(again["embed"], found["embed"], note="A component that stayed the same changed", **SUMS)

    def test_a_mean_counts_nothing(self, answer, rng):
        "a component that is the same in every dimension contributes 0: the norm takes means away"
        model, parts, answers, foils = self.case(rng, ENDS[0])
        flat = parts | {"flat": torch.full((4, 10), 3.0)}
        found = as_dict(answer(model, flat, answers, foils))
        expect("flat" in found, "A component's name is missing.", actual=sorted(found))
        expect_close(found["flat"], torch.zeros(4), note="A constant vector should contribute 0", atol=1e-4)

    def test_folded_norm(self, answer, reference, rng):
        "a model whose final norm has been folded away: no gain, no bias"
        model, parts, answers, foils = self.case(rng, ENDS[1])
        model.ln_final = FoldedNorm(model.ln_final.eps)
        expect_close(
            dict(as_dict(answer(model, parts, answers, foils))), reference(model, parts, answers, foils), **SUMS
        )

    def test_bad_input(self, answer, rng):
        "no components, or not one answer for each text, are refused"
        model, parts, answers, foils = self.case(rng, ENDS[0])
        expect_raises(ValueError, answer, model, {}, answers, foils)
        expect_raises(ValueError, answer, model, parts, answers[:1], foils)
        expect_raises(ValueError, answer, model, parts, answers, foils[:1])


class TestHeadLogitAttributionByPosition:
    exercise = "head_logit_attribution_by_position"

    def case(self, rng, cfg, batch, pos):
        tokens = random_tokens(rng, cfg, batch, pos)
        positions = torch.randint(1, pos, (batch,), generator=rng)
        positions[0] = pos - 2
        return random_model(rng, cfg), tokens, positions, *two_tokens(rng, cfg, batch)

    def test_values(self, answer, reference, rng):
        "every source position, for several heads"
        for cfg, batch, pos, layer, head in (
            (CONFIGS[0], 3, 5, 1, 2),
            (CONFIGS[1], 4, 4, 0, 1),
        ):
            model, tokens, *rest = self.case(rng, cfg, batch, pos)
            found = answer(model, tokens, layer, head, *rest)
            expect_close(found, reference(model, tokens, layer, head, *rest), **SUMS)

    def test_sum(self, answer, rng):
        "a row sums to the head's own contribution, computed from what it wrote"
        cfg = CONFIGS[0]
        model, tokens, positions, answers, foils = self.case(rng, cfg, 4, 5)
        found, rows = answer(model, tokens, 1, 0, positions, answers, foils), torch.arange(4)
        expect_shape(found, (4, 5))
        with torch.no_grad():
            _, cache = model.run_with_cache(tokens, return_type=None)
            wrote = cache["blocks.1.attn.hook_z"][rows, positions, 0] @ model.blocks[1].attn.W_O[0]
            scale = cache["ln_final.hook_scale"][rows, positions]
            read = (wrote - wrote.mean(-1, keepdim=True)) / scale * model.ln_final.w
            direct = (read * (model.W_U[:, answers] - model.W_U[:, foils]).T).sum(-1)
        expect_close(found.sum(-1), direct, note="The rows do not sum to what the head contributes", **SUMS)

    def test_future(self, answer, rng):
        "nothing comes from behind the position that is asked about"
        model, tokens, _, answers, foils = self.case(rng, CONFIGS[1], 3, 5)
        positions = torch.tensor([0, 2, 3])
        found = answer(model, tokens, 1, 1, positions, answers, foils)
        expect_shape(found, (3, 5))
        behind = torch.arange(5) > positions[:, None]
        expect((found[behind] == 0).all(), "Some entries behind the position are not 0.", actual=found)

    def test_one_position(self, answer, reference, rng):
        "a text of one token: all comes from there"
        model, tokens, _, answers, foils = self.case(rng, CONFIGS[0], 2, 4)
        arguments = (model, tokens[:, :1], 0, 2, torch.tensor([0, 0]), answers, foils)
        expect_close(answer(*arguments), reference(*arguments), **SUMS)

    def test_answer_and_foil_exchanged(self, answer, rng):
        "exchanging answer and foil turns every sign"
        model, tokens, positions, answers, foils = self.case(rng, CONFIGS[0], 3, 5)
        found = answer(model, tokens, 0, 1, positions, answers, foils)
        expect_shape(found, (3, 5))
        expect_close(answer(model, tokens, 0, 1, positions, foils, answers), -found, **SUMS)

    def test_no_graph(self, answer, rng):
        "no graph, and no hooks left on the model"
        model, tokens, *rest = self.case(rng, CONFIGS[0], 2, 4)
        before = common.n_hooks(model)
        found = answer(model, tokens, 1, 1, *rest)
        expect_shape(found, (2, 4))
        expect(not found.requires_grad, "The result carries a graph.", actual="requires_grad=True")
        expect(common.n_hooks(model) == before, "Hooks are left on the model.", actual=common.n_hooks(model) - before)

    def test_bad_heads(self, answer, rng):
        "a layer or head that the model does not have is refused"
        model, tokens, *rest = self.case(rng, CONFIGS[0], 2, 4)
        for layer, head in ((2, 0), (-1, 0), (0, 3), (0, -1)):
            expect_raises(ValueError, answer, model, tokens, layer, head, *rest)
