"""Checks for path patching."""

from pathlib import Path

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.course.paths import load_file
from utils.patching.hooks import run_with_cache

common = load_file(Path(__file__).with_name("common_ioi.py"))
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def head(layer, number):
    return f"blocks.{layer}.attn.hook_z", number


def reads(layer, number, kinds="qkv"):
    return [(f"blocks.{layer}.attn.hook_{kind}", number) for kind in kinds]


def mlp(layer):
    return f"blocks.{layer}.hook_mlp_out", None


LOGITS = ("logits", None)


class TestPathPatch:
    exercise = "path_patch"

    def models(self, rng):
        for i, sizes in enumerate(common.SIZES):
            model = common.small_model(rng, **sizes)
            tokens, corrupted = (torch.randint(23, (4 + i, 7 - i), generator=rng) for _ in range(2))
            positions = (torch.arange(4 + i) + 1) % (7 - i)
            yield model, tokens, corrupted, positions

    def expect_all(self, answer, reference, rng, choices):
        for i, (model, tokens, corrupted, positions) in enumerate(self.models(rng)):
            for j, (senders, receivers) in enumerate(choices(model.cfg.n_layers - 1)):
                args, at = (model, tokens, corrupted, senders, receivers), positions if (i + j) % 2 else None
                found = answer(*args, positions=at)
                expect_shape(found, (*tokens.shape, 23), note="Not the logits of all rows.")
                expect_close(found, reference(*args, positions=at), **CLOSE)

    def test_to_heads(self, answer, reference, rng):
        "from heads to the queries, keys and values of later heads, one kind alone and all together"
        self.expect_all(answer, reference, rng, lambda last: [
            ([head(0, 1)], reads(last, 0, "q")), ([head(0, 1)], reads(last, 1, "k")),
            ([head(0, 0)], reads(last, 1, "v")),
            ([head(0, 0), head(0, 1)], reads(1, 0) + reads(1, 1)),
        ])  # fmt: skip

    def test_to_mlps(self, answer, reference, rng):
        "to MLPs, of the sender's own layer and of later ones, and from an MLP"
        self.expect_all(answer, reference, rng, lambda last: [
            ([head(0, 1)], [mlp(0)]), ([head(0, 0)], [mlp(last)]), ([mlp(0)], [mlp(last)]),
            ([mlp(0)], reads(last, 0)), ([head(1, 1), mlp(0)], [mlp(1)]),
        ])  # fmt: skip

    def test_to_the_logits(self, answer, reference, rng):
        "to the unembedding alone"
        self.expect_all(
            answer,
            reference,
            rng,
            lambda last: [([head(0, 1)], [LOGITS]), ([mlp(0)], [LOGITS]), ([head(last, 0)], [LOGITS])],
        )

    def test_together(self, answer, reference, rng):
        "to heads, an MLP and the unembedding at once"
        self.expect_all(answer, reference, rng, lambda last: [
            ([head(0, 1)], [*reads(1, 0), mlp(0), LOGITS]), ([head(0, 0), mlp(0)], [mlp(last), LOGITS]),
        ])  # fmt: skip

    def test_nothing(self, answer, rng):
        "no receivers, no senders, receivers that stand before the sender, or the same prompts: the clean run"
        for model, tokens, corrupted, positions in self.models(rng):
            last, clean = model.cfg.n_layers - 1, model(tokens)
            everything = [*reads(last, 0), mlp(0), mlp(last), LOGITS]
            for note, args in {
                "Without receivers something changes": (corrupted, [head(0, 0)], []),
                "Without senders something changes": (corrupted, [], everything),
                "A part before the sender hears it": (corrupted, [head(last, 0)], [mlp(0), *reads(last, 1)]),
                "With the same prompts something changes": (tokens, [head(0, 0)], everything),
            }.items():
                expect_close(answer(model, tokens, *args, positions=positions), clean, note=note, **CLOSE)

    def test_the_whole_way(self, answer, rng):
        "from the last layer's heads to its MLP and the unembedding there is no other way: as patching the heads"
        for model, tokens, corrupted, _ in self.models(rng):
            last = model.cfg.n_layers - 1
            name = f"blocks.{last}.attn.hook_z"
            _, cache = run_with_cache(model, corrupted, [name])
            handle = model.get_submodule(name).register_forward_hook(lambda module, inputs, z, kept=cache[name]: kept)
            patched = model(tokens)
            handle.remove()
            senders = [head(last, h) for h in range(model.cfg.n_heads)]
            expect_close(answer(model, tokens, corrupted, senders, [mlp(last), LOGITS]), patched, **CLOSE)

    def test_bad_input(self, answer, rng):
        "prompts of two shapes, unknown hook points; and nothing is left on the model"
        model, tokens, corrupted, _ = next(self.models(rng))
        before = model(tokens)
        for other, senders, receivers in (
            (corrupted[:, :-1], [head(0, 0)], [LOGITS]), (corrupted, [("blocks.9.attn.hook_z", 0)], [LOGITS]),
            (corrupted, [head(0, 0)], [("blocks.1.attn.hook_nothing", 0)]),
        ):  # fmt: skip
            expect_raises(ValueError, answer, model, tokens, other, senders, receivers)
        same = torch.equal(model(tokens), before)
        expect(
            same, "After a call that was refused the model gives other logits: a hook is still on it.", actual="left"
        )
