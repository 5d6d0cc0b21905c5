"""Checks for the roles of heads: movers, copying, duplicate tokens, S-inhibition."""

from pathlib import Path

import torch

from utils.circuits.ioi import answer_difference
from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.course.paths import load_file

common = load_file(Path(__file__).with_name("common_ioi.py"))
CLOSE = common.CLOSE


class TestNameMoverScores:
    exercise = "name_mover_scores"

    def test_values(self, answer, reference, rng):
        "two models and prompts of several lengths: attention to IO, to both mentions of S, and what is written"
        for model, prompts, at in common.scenes(rng):
            found, wanted = answer(model, prompts["clean"], at), reference(model, prompts["clean"], at)
            for name, values in wanted.items():
                expect(name in found, f"There is no {name!r}.", actual=("missing", name), returned=f"{sorted(found)}")
                expect_shape(found[name], tuple(values.shape), note="Not [n, layer, head].")
                expect_close(found[name], values, note=f"{name!r} differs", **CLOSE)

    def test_one_row(self, answer, reference, rng):
        "a single prompt, in which nobody is said twice"
        model, prompts, at = next(common.scenes(rng))
        one = prompts["ABC"][:1], {name: positions[:1] for name, positions in at.items()}
        expect_close(answer(model, *one), reference(model, *one), **CLOSE)


class TestCopyScore:
    exercise = "copy_score"

    def texts(self, rng, n=60, length=4):
        return torch.randint(1, 23, (n, length), generator=rng)

    def test_values(self, answer, reference, rng):
        "all heads of two models with random weights, for several numbers of likeliest words, and turned round"
        for model, *_ in common.scenes(rng):
            for layer, head in common.all_heads(model):
                for k, sign in ((5, 1), (9, 1), (5, -1), (2, -1)):
                    tokens = self.texts(rng)
                    found = answer(model, layer, head, tokens, k=k, sign=sign)
                    wanted = reference(model, layer, head, tokens, k=k, sign=sign)
                    expect_close(torch.as_tensor(found).double(), wanted.double(), rtol=0, atol=1e-6)

    def test_defaults(self, answer, reference, rng):
        "five words, and not turned round, if nothing is said; one text of one token"
        model, *_ = next(common.scenes(rng))
        tokens = self.texts(rng, 90)
        for layer, head in common.all_heads(model):
            expect_close(
                torch.as_tensor(answer(model, layer, head, tokens)).double(),
                reference(model, layer, head, tokens).double(),
            )
        one = self.texts(rng, 1, 1)
        for k in (1, 23):
            found, wanted = answer(model, 1, 0, one, k=k), reference(model, 1, 0, one, k=k)
            expect_close(torch.as_tensor(found).double(), wanted.double())

    def test_bad_input(self, answer, rng):
        "another sign is refused"
        model, *_ = next(common.scenes(rng))
        for sign in (0, 2, -0.5):
            expect_raises(ValueError, answer, model, 0, 1, self.texts(rng), sign=sign)


class TestDuplicateTokenEffect:
    exercise = "duplicate_token_effect"

    def test_values(self, answer, reference, rng):
        "single heads, and groups of them at once"
        for model, prompts, at in common.scenes(rng):
            heads = common.all_heads(model)
            for group in ([heads[1]], [heads[0], heads[2], heads[-1]], heads):
                found = answer(model, prompts, at, group)
                expect_shape(found, (len(at["END"]),), note="Not one number for each row.")
                expect_close(found, reference(model, prompts, at, group), **CLOSE)

    def test_together(self, answer, reference, rng):
        "all heads at once, in models in which what one does depends much on the others"
        for model, prompts, at in common.scenes(rng, scale=1.2):
            heads = common.all_heads(model)
            expect_close(answer(model, prompts, at, heads), reference(model, prompts, at, heads), **CLOSE)

    def test_nothing(self, answer, rng):
        "no heads, or prompts in which nobody was said before anyway: 0"
        model, prompts, at = next(common.scenes(rng))
        zero = torch.zeros(len(at["END"]))
        expect_close(answer(model, prompts, at, []), zero, note="Without any heads something changes", **CLOSE)
        same = prompts | {"clean": prompts["said once"]}
        expect_close(
            answer(model, same, at, common.all_heads(model)), zero,
            note="The heads put out what they do anyway, and something changes", **CLOSE,
        )  # fmt: skip


class TestSInhibitionEffect:
    exercise = "s_inhibition_effect"

    def test_values(self, answer, reference, rng):
        "single heads and groups, movers in several layers, and outputs from each of the corruptions"
        for model, prompts, at in common.scenes(rng):
            heads = common.all_heads(model)
            last = model.cfg.n_layers - 1
            movers = [(last, 1), (1, 0), (last, 0)]
            for group, source in (
                ([heads[1]], "ABC"),
                ([heads[0], heads[1]], "giver swapped"),
                (heads[:3], "random names"),
            ):
                found = answer(model, prompts, at, group, movers, source=source)
                wanted = reference(model, prompts, at, group, movers, source=source)
                for name, values in wanted.items():
                    expect(
                        name in found, f"There is no {name!r}.", actual=("missing", name), returned=f"{sorted(found)}"
                    )
                    expect_shape(found[name], tuple(values.shape), note="Not [n, mover].")
                    expect_close(found[name], values, note=f"{name!r} differs", **CLOSE)

    def test_default(self, answer, reference, rng):
        "from 'ABC' if nothing is said; one mover"
        model, prompts, at = next(common.scenes(rng))
        args = model, prompts, at, [(0, 1), (1, 1)], [(2, 0)]
        expect_close(answer(*args), reference(*args), **CLOSE)

    def test_nothing(self, answer, rng):
        "no heads, or heads that stand behind the movers: no change"
        model, prompts, at = next(common.scenes(rng))
        for heads in ([], [(2, 0), (2, 1)]):
            for name, change in answer(model, prompts, at, heads, [(1, 0), (2, 1)]).items():
                expect_close(change, torch.zeros(len(at["END"]), 2), note=f"{name!r} changes", **CLOSE)


class TestSelfRepair:
    exercise = "self_repair"

    def cases(self, rng):
        for model, prompts, at in common.scenes(rng):
            heads = common.all_heads(model)
            shape = len(at["END"]), model.cfg.n_layers, model.cfg.n_heads, model.cfg.d_head
            for group in ([heads[1]], [heads[0], heads[3]], heads[:3]):
                yield model, prompts["clean"], at, group, torch.randn(shape, generator=rng)
            yield model, prompts["clean"], at, [heads[2]], torch.randn((1, *shape[1:]), generator=rng)

    def test_values(self, answer, reference, rng):
        "one head and several, replaced by random outputs, of each row its own or one for all"
        for case in self.cases(rng):
            found, wanted = answer(*case), reference(*case)
            for name, values in wanted.items():
                expect(name in found, f"There is no {name!r}.", actual=("missing", name), returned=f"{sorted(found)}")
                expect_shape(found[name], tuple(values.shape), note=f"{name!r} has another shape.")
                expect_close(found[name], values, note=f"{name!r} differs", rtol=1e-4, atol=1e-4)

    def test_sum(self, answer, rng):
        "fall = lost - heads - mlps - norm, and the fall is the model's own"
        for model, tokens, at, group, outputs in self.cases(rng):
            found = answer(model, tokens, at, group, outputs)
            parts = found["lost"] - found["heads"].sum((1, 2)) - found["mlps"].sum(1) - found["norm"]
            expect_close(parts, found["fall"], note="The parts do not add up to the fall", rtol=1e-4, atol=2e-4)

    def test_nothing(self, answer, rng):
        "no heads: nothing is lost and nothing is made up"
        model, prompts, at = next(common.scenes(rng))
        outputs = torch.randn(len(at["END"]), 3, 2, 5, generator=rng)
        for name, values in answer(model, prompts["clean"], at, [], outputs).items():
            expect_close(values, torch.zeros_like(values), note=f"{name!r} is not 0", **CLOSE)


def test_the_difference_is_read_at_each_rows_own_end():
    logits = torch.arange(24.0).view(2, 3, 4) ** 1.5
    clean, at = (
        torch.tensor([[0, 1, 2], [3, 2, 0]]),
        {"IO": torch.tensor([1, 0]), "S2": torch.tensor([2, 1]), "END": torch.tensor([2, 1])},
    )
    wanted = torch.stack([logits[0, 2, 1] - logits[0, 2, 2], logits[1, 1, 3] - logits[1, 1, 2]])
    assert torch.equal(answer_difference(logits, clean, at), wanted)
