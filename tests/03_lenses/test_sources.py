"""Checks for direct logit attribution to source positions."""

from pathlib import Path

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.course.paths import load_file
from utils.models.config import TransformerConfig

hooked = load_file(Path(__file__).with_name("hooked.py"))
CONFIGS, random_model, random_tokens = hooked.CONFIGS, hooked.random_model, hooked.random_tokens
FOUR_HEADS = TransformerConfig(d_model=6, n_layers=2, n_heads=4, d_head=4, d_mlp=5, n_ctx=5, d_vocab=9)
# Logits here are sums of up to a hundred float32 products of size one to ten, taken in different orders.
SUMS = {"rtol": 1e-4, "atol": 2e-4}


def two_tokens(rng, cfg, batch):
    """Answers and foils, different from each other in each text."""
    answers = torch.randint(cfg.d_vocab, (batch,), generator=rng)
    return answers, (answers + torch.randint(1, cfg.d_vocab, (batch,), generator=rng)) % cfg.d_vocab


class TestHeadLogitAttributionByPosition:
    exercise = "head_logit_attribution_by_position"

    def case(self, rng, cfg, batch, pos, **options):
        tokens = random_tokens(rng, cfg, batch, pos)
        positions = torch.randint(1, pos, (batch,), generator=rng)
        positions[0] = pos - 2
        return random_model(rng, cfg, **options), tokens, positions, *two_tokens(rng, cfg, batch)

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

    def test_another_kind_of_model(self, answer, reference, rng):
        "a model like Llama, in which two heads share their values, and whose final norm is an RMS norm"
        model, tokens, *rest = self.case(rng, FOUR_HEADS, 3, 5, **hooked.LLAMA)
        for layer, head in ((1, 2), (0, 1), (1, 3)):
            expect_close(
                answer(model, tokens, layer, head, *rest), reference(model, tokens, layer, head, *rest), **SUMS
            )

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
        before = hooked.n_hooks(model)
        found = answer(model, tokens, 1, 1, *rest)
        expect_shape(found, (2, 4))
        expect(not found.requires_grad, "The result carries a graph.", actual="requires_grad=True")
        expect(hooked.n_hooks(model) == before, "Hooks are left on the model.", actual=hooked.n_hooks(model) - before)

    def test_bad_heads(self, answer, rng):
        "a layer or head that the model does not have is refused"
        model, tokens, *rest = self.case(rng, CONFIGS[0], 2, 4)
        for layer, head in ((2, 0), (-1, 0), (0, 3), (0, -1)):
            expect_raises(ValueError, answer, model, tokens, layer, head, *rest)

    def test_bad_positions(self, answer, rng):
        "positions that the texts do not have, or not one for each text, are refused"
        model, tokens, _, *rest = self.case(rng, CONFIGS[0], 2, 4)
        for positions in ([1, -1], [4, 1], [2], [1, 2, 3]):
            expect_raises(ValueError, answer, model, tokens, 1, 1, torch.tensor(positions), *rest)

    def test_no_sum(self, answer, rng):
        "a model with a norm behind its attention, which adds something else than its heads write, is refused"
        options = {"normalization_type": "RMS", "use_normalization_before_and_after": True}
        model, tokens, *rest = self.case(rng, CONFIGS[1], 2, 4, **options)
        expect_raises(ValueError, answer, model, tokens, 1, 1, *rest)
