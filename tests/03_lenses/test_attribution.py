"""Checks for direct logit attribution."""

from pathlib import Path

import torch

from utils.course.checking import Mismatch, expect, expect_close, expect_raises, expect_shape
from utils.course.paths import load_file

common = load_file(Path(__file__).with_name("common.py"))
CONFIGS, SmallModel = common.CONFIGS, common.SmallModel
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


class TestDirectLogitAttribution:
    exercise = "direct_logit_attribution"

    def case(self, rng, cfg, batch=4, names=("embed", "a head", "an mlp"), norm=None):
        """A model, components with means of their own, answers and foils."""
        parts = {name: 1.0 + torch.randn(batch, cfg.d_model, generator=rng) for name in names}
        return SmallModel(rng, cfg, norm), parts, *two_tokens(rng, cfg, batch)

    def test_names(self, answer, rng):
        "the components' names, and the constant"
        model, parts, answers, foils = self.case(rng, CONFIGS[0])
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
        for cfg in CONFIGS:
            model, parts, answers, foils = self.case(rng, cfg)
            found = as_dict(answer(model, parts, answers, foils))
            total = torch.stack(list(found.values())).sum(0).detach()
            logits = model.unembed(model.ln_final(sum(parts.values())[None]))[0].detach()
            rows = torch.arange(4)
            difference = logits[rows, answers] - logits[rows, foils]
            expect_close(total, difference, note="The contributions do not sum to the logit difference", **SUMS)

    def test_values(self, answer, reference, rng):
        "each contribution"
        for cfg in CONFIGS:
            case = self.case(rng, cfg)
            expect_close(dict(as_dict(answer(*case))), reference(*case), **SUMS)

    def test_whole_model(self, answer, reference, rng):
        "on a model's own output: a constant stream, tokens far apart, one text"
        model, parts, answers, foils = self.case(rng, CONFIGS[1], batch=1, names=("only",))
        expect_close(
            dict(as_dict(answer(model, parts, answers, foils))), reference(model, parts, answers, foils), **SUMS
        )

    def test_short_stream(self, answer, reference, rng):
        "a stream so short that the norm's eps is as large as its variance"
        model, parts, answers, foils = self.case(rng, CONFIGS[0])
        short = {name: 0.002 * (value - 1.0) for name, value in parts.items()}
        expect_close(
            dict(as_dict(answer(model, short, answers, foils))), reference(model, short, answers, foils), **SUMS
        )

    def test_linear_in_the_parts(self, answer, rng):
        "two components merged into one: their contributions add, and the others stay"
        model, parts, answers, foils = self.case(rng, CONFIGS[0])
        found = as_dict(answer(model, parts, answers, foils))
        merged = {"embed": parts["embed"], "both": parts["a head"] + parts["an mlp"]}
        again = as_dict(answer(model, merged, answers, foils))
        expect("both" in again and "embed" in again, "A component's name is missing.", actual=sorted(again))
        expect_close(again["both"], found["a head"] + found["an mlp"], note="Merged, they do not add up", **SUMS)
        expect_close(again["embed"], found["embed"], note="A component that stayed the same changed", **SUMS)

    def test_a_mean_counts_nothing(self, answer, rng):
        "a component that is the same in every dimension contributes 0: the norm takes means away"
        model, parts, answers, foils = self.case(rng, CONFIGS[0])
        flat = parts | {"flat": torch.full((4, 10), 3.0)}
        found = as_dict(answer(model, flat, answers, foils))
        expect("flat" in found, "A component's name is missing.", actual=sorted(found))
        expect_close(found["flat"], torch.zeros(4), note="A constant vector should contribute 0", atol=1e-4)

    def test_folded_norm(self, answer, reference, rng):
        "a model whose final norm has been folded away: no gain, no bias"
        for cfg in CONFIGS:
            case = self.case(rng, cfg, norm=common.LayerNormPre(cfg.layer_norm_eps))
            expect_close(dict(as_dict(answer(*case))), reference(*case), **SUMS)

    def test_rms_norm(self, answer, reference, rng):
        "a model with an RMS norm, which keeps means and has no bias"
        for cfg in CONFIGS:
            for norm in (
                common.RMSNorm(rng, cfg.d_model, cfg.layer_norm_eps),
                common.RMSNormPre(cfg.layer_norm_eps),
            ):
                case = self.case(rng, cfg, norm=norm)
                expect_close(dict(as_dict(answer(*case))), reference(*case), **SUMS)

    def test_no_graph(self, answer, rng):
        "numbers without a graph, also if components carry one"
        model, parts, answers, foils = self.case(rng, CONFIGS[0])
        parts = {name: value.requires_grad_() for name, value in parts.items()}
        found = as_dict(answer(model, parts, answers, foils))
        graph = [name for name, value in found.items() if getattr(value, "requires_grad", False)]
        expect(not graph, "The contributions carry a graph.", actual=graph)

    def test_bad_input(self, answer, rng):
        "no components, or not one answer for each text, are refused"
        model, parts, answers, foils = self.case(rng, CONFIGS[0])
        expect_raises(ValueError, answer, model, {}, answers, foils)
        expect_raises(ValueError, answer, model, parts, answers[:1], foils)
        expect_raises(ValueError, answer, model, parts, answers, foils[:1])

    def test_bad_ids(self, answer, rng):
        "ids that are no token's are refused"
        model, parts, answers, foils = self.case(rng, CONFIGS[0])
        for bad in (-1, 13):
            wrong = torch.tensor([0, bad, 1, 2])
            expect_raises(ValueError, answer, model, parts, wrong, foils)
            expect_raises(ValueError, answer, model, parts, answers, wrong)
