"""Checks of the two ways to rewrite weights that change no output."""

from functools import cache

import torch
from torch.func import functional_call

from utils.course.checking import expect, expect_close
from utils.models.config import TransformerConfig
from utils.transformer.model import Transformer

CFG = TransformerConfig(d_model=6, n_layers=3, n_heads=3, d_head=4, d_mlp=10, n_ctx=7, d_vocab=11)
ODD = TransformerConfig(d_model=5, n_layers=3, n_heads=2, d_head=8, d_mlp=9, n_ctx=4, d_vocab=13, layer_norm_eps=0.3)
ATTENTION = TransformerConfig(d_model=6, n_layers=2, n_heads=3, d_head=4, d_mlp=0, n_ctx=5, d_vocab=9)
SHALLOW = TransformerConfig(d_model=7, n_layers=1, n_heads=1, d_head=1, d_mlp=2, n_ctx=3, d_vocab=4)
WRITERS = ("W_E", "W_pos", "W_O", "b_O", "W_out", "b_out")


@cache
def transformer(cfg):
    return Transformer(cfg)


def random_state(cfg, rng, dtype=torch.float64):
    shapes = {name: value.shape for name, value in transformer(cfg).state_dict().items()}
    return {name: 0.6 * torch.randn(shape, generator=rng, dtype=dtype) for name, shape in shapes.items()}


def logits(state, cfg, tokens):
    """Of a transformer with these weights, in the precision that they are in."""
    with torch.no_grad():
        return functional_call(transformer(cfg), state, tokens)


def expect_names(found, state):
    expect(
        isinstance(found, dict),
        "The result should be a dict, like the state that came in.",
        actual=type(found).__name__,
    )
    wanted = {name: tuple(value.shape) for name, value in state.items()}
    got = {name: tuple(value.shape) for name, value in found.items()}
    differing = sorted({name for name, _ in set(wanted.items()) ^ set(got.items())})
    first = differing[0] if differing else ""
    expect(
        not differing,
        "All names and shapes should be as they came in.",
        actual=sorted(got.items()),
        returned=f"{first}: {got.get(first, 'missing')}",
        expected=f"{first}: {wanted.get(first, 'no such name')}",
    )


def expect_same_logits(found, state, cfg, rng):
    tokens = torch.randint(cfg.d_vocab, (3, cfg.n_ctx), generator=rng)
    expect_close(
        logits({name: value.double() for name, value in found.items()}, cfg, tokens),
        logits(state, cfg, tokens),
        rtol=1e-9,
        atol=1e-9,
        note="The model's logits should be the ones it gave before",
    )


class TestFoldLayerNorm:
    exercise = "fold_layer_norm"

    def test_norms(self, answer, rng):
        "all names stay, and every layer norm ends with w = 1 and b = 0"
        for cfg in (CFG, ODD, SHALLOW):
            state = random_state(cfg, rng)
            found = answer(state, cfg)
            expect_names(found, state)
            norms = {name: value for name, value in found.items() if ".ln" in f".{name}"}
            plain = {name: torch.full_like(value, float(name.endswith("w"))) for name, value in norms.items()}
            expect_close(norms, plain)

    def test_readers(self, answer, reference, rng):
        "scale and shift are in the weights and biases that read them"
        for cfg in (CFG, ODD):
            state = random_state(cfg, rng)
            expect_close(answer(state, cfg), reference(state, cfg), dtype=True)

    def test_logits(self, answer, rng):
        "the model's logits are unchanged"
        for cfg in (CFG, ODD, SHALLOW):
            state = random_state(cfg, rng)
            found = answer(state, cfg)
            expect_names(found, state)
            expect_same_logits(found, state, cfg, rng)

    def test_writers(self, answer, rng):
        "embeddings and output weights stay as they are"
        state = random_state(ODD, rng)
        found = answer(state, ODD)
        for name in state:
            if name.endswith(WRITERS):
                expect_close(found.get(name), state[name], note=f"{name} reads no layer norm and should stay as it is")

    def test_attention_only(self, answer, reference, rng):
        "with d_mlp = 0 there is no ln2 and no W_in"
        state = random_state(ATTENTION, rng)
        expect_close(answer(state, ATTENTION), reference(state, ATTENTION))

    def test_twice(self, answer, rng):
        "folding twice is folding once"
        state = random_state(CFG, rng)
        once = answer(state, CFG)
        expect_names(once, state)
        expect_close(answer(once, CFG), once)

    def test_single_precision(self, answer, reference, rng):
        "float32 weights stay float32"
        state = random_state(CFG, rng, dtype=torch.float32)
        expect_close(answer(state, CFG), reference(state, CFG), dtype=True)


class TestCenterWritingWeights:
    exercise = "center_writing_weights"

    def test_means(self, answer, rng):
        "everything written into the stream has mean 0 over d_model"
        for cfg in (CFG, ODD, SHALLOW):
            state = random_state(cfg, rng)
            found = answer(state, cfg)
            expect_names(found, state)
            largest = {name: found[name].mean(dim=-1).abs().max().item() for name in state if name.endswith(WRITERS)}
            left = [name for name, mean in largest.items() if not mean < 1e-6]
            expect(
                not left,
                f"Over d_model the means of {', '.join(left)} should be 0.",
                actual=left,
                returned=", ".join(f"{name}: a mean of {largest[name]:.2g}" for name in left[:3]),
                expected="0",
            )

    def test_logits(self, answer, rng):
        "the model's logits are unchanged"
        for cfg in (CFG, ODD, SHALLOW):
            state = random_state(cfg, rng)
            found = answer(state, cfg)
            expect_names(found, state)
            expect_same_logits(found, state, cfg, rng)

    def test_values(self, answer, reference, rng):
        "only a mean is taken out, and only of what writes"
        for cfg in (CFG, ODD):
            state = random_state(cfg, rng)
            expect_close(answer(state, cfg), reference(state, cfg), dtype=True)

    def test_attention_only(self, answer, reference, rng):
        "with d_mlp = 0 there is no W_out and no b_out"
        state = random_state(ATTENTION, rng)
        expect_close(answer(state, ATTENTION), reference(state, ATTENTION))

    def test_readers(self, answer, rng):
        "weights that read stay as they are"
        state = random_state(ODD, rng)
        found = answer(state, ODD)
        for name in state:
            if not name.endswith(WRITERS):
                expect_close(
                    found.get(name), state[name], note=f"{name} writes nothing into the stream and should stay as it is"
                )

    def test_single_precision(self, answer, reference, rng):
        "float32 weights stay float32"
        state = random_state(CFG, rng, dtype=torch.float32)
        expect_close(answer(state, CFG), reference(state, CFG), dtype=True)
