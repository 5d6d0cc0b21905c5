"""Checks of the counts of parameters and of arithmetic."""

from dataclasses import replace

import torch

from utils.course.checking import expect, expect_close, expect_raises
from utils.models.config import TransformerConfig

CFG = TransformerConfig(d_model=6, n_layers=2, n_heads=3, d_head=4, d_mlp=10, n_ctx=7, d_vocab=11)
ONE = TransformerConfig(d_model=1, n_layers=1, n_heads=1, d_head=1, d_mlp=1, n_ctx=1, d_vocab=1)
GPT2_SMALL = TransformerConfig(d_model=768, n_layers=12, n_heads=12, d_head=64, d_mlp=3072, n_ctx=1024, d_vocab=50257)


def random_config(rng):
    """Sizes with no relation to each other, from too many to tabulate."""
    d_model, d_mlp, d_vocab = (int(torch.randint(20, 900, (), generator=rng)) for _ in range(3))
    n_layers, n_heads, d_head = (int(torch.randint(2, 50, (), generator=rng)) for _ in range(3))
    n_ctx = int(torch.randint(20, 900, (), generator=rng))
    return TransformerConfig(d_model, n_layers, n_heads, d_head, d_mlp, n_ctx, d_vocab)


def expect_whole_numbers(found):
    expect(isinstance(found, dict), "The result should be a dict of counts by name.", actual=type(found).__name__)
    fractions = {name: type(value).__name__ for name, value in found.items() if type(value) is not int}
    expect(not fractions, "Counts are whole numbers: ints, not floats or tensors.", actual=str(fractions))


class TestCountParameters:
    exercise = "count_parameters"

    def test_groups(self, answer, reference):
        "seven names, and whole numbers"
        found = answer(CFG)
        expect_whole_numbers(found)
        names = sorted(reference(CFG))
        expect(
            sorted(found) == names,
            "The dict should have exactly the names in the docstring.",
            actual=sorted(found),
            expected=str(names),
        )

    def test_total(self, answer, rng):
        "the total is the sum of the groups"
        for cfg in (CFG, random_config(rng)):
            found = answer(cfg)
            expect("total" in found, "There should be an entry 'total'.", actual=sorted(found))
            expect_close(found["total"], sum(value for name, value in found.items() if name != "total"))

    def test_one(self, answer, reference):
        "a model whose sizes are all one"
        expect_close(answer(ONE), reference(ONE))

    def test_attention_only(self, answer, reference, rng):
        "with d_mlp = 0 there is no MLP, no b_out and no ln2"
        for cfg in (CFG, random_config(rng)):
            cfg = replace(cfg, d_mlp=0)
            found = answer(cfg)
            expect_whole_numbers(found)
            wanted = reference(cfg)
            for group in ("mlp", "layer_norm"):
                expect_close(found.get(group), wanted[group], note=f"With d_mlp = 0 the entry {group!r} differs.")

    def test_no_layers(self, answer, reference, rng):
        "with no layers: embeddings, the final norm and the unembedding"
        cfg = replace(random_config(rng), n_layers=0)
        expect_close(answer(cfg), reference(cfg))

    def test_gpt2_small(self, answer, reference):
        "GPT-2 small's sizes (with an unembedding of its own)"
        expect_close(answer(GPT2_SMALL), reference(GPT2_SMALL))

    def test_unrelated_sizes(self, answer, reference, rng):
        "sizes that have nothing to do with each other"
        for _ in range(3):
            cfg = random_config(rng)
            expect_close(answer(cfg), reference(cfg))


class TestAttentionFlops:
    exercise = "attention_flops"

    def test_parts(self, answer, reference, rng):
        "five names, whole numbers, and a total that is the sum of the parts"
        for cfg in (CFG, random_config(rng)):
            found = answer(cfg, 5)
            expect_whole_numbers(found)
            names = sorted(reference(cfg, 5))
            expect(
                sorted(found) == names,
                "The dict should have exactly the names in the docstring.",
                actual=sorted(found),
                expected=str(names),
            )
            expect_close(found["total"], sum(value for name, value in found.items() if name != "total"))

    def test_values(self, answer, reference, rng):
        "sizes that have nothing to do with each other"
        for _ in range(3):
            cfg, n_ctx = random_config(rng), int(torch.randint(2, 5000, (), generator=rng))
            expect_close(answer(cfg, n_ctx), reference(cfg, n_ctx))

    def test_growth(self, answer, rng):
        "twice the length: twice the projections, four times what compares positions"
        cfg, n_ctx = random_config(rng), int(torch.randint(2, 5000, (), generator=rng))
        short, long = answer(cfg, n_ctx), answer(cfg, 2 * n_ctx)
        for part, factor in (("qkv", 2), ("output", 2), ("scores", 4), ("weighted_values", 4)):
            expect(part in short, f"There should be an entry {part!r}.", actual=sorted(short))
            expect_close(
                long.get(part),
                factor * short[part],
                note=f"{part!r} should grow {factor}-fold when the sequence is twice as long.",
            )

    def test_one(self, answer, reference):
        "a single position, and sizes that are all one"
        expect_close(answer(ONE, 1), reference(ONE, 1))
        expect_close(answer(CFG, 1), reference(CFG, 1))

    def test_longer_than_context(self, answer, reference):
        "lengths beyond cfg.n_ctx are fine; the count is a calculation"
        expect_close(answer(GPT2_SMALL, 100_000), reference(GPT2_SMALL, 100_000))

    def test_bad_length(self, answer):
        "a length below 1 raises a ValueError"
        for n_ctx in (0, -3):
            expect_raises(ValueError, answer, CFG, n_ctx)
