"""Checks for weights in another basis, and for what single coordinates look like."""

import torch

from utils.course.checking import expect, expect_close, expect_raises
from utils.models.config import TransformerConfig
from utils.superposition.bases import random_rotation
from utils.transformer.model import Transformer

SIZES = (
    TransformerConfig(d_model=6, n_layers=2, n_heads=2, d_head=4, d_mlp=7, n_ctx=5, d_vocab=11),
    TransformerConfig(d_model=5, n_layers=1, n_heads=3, d_head=2, d_mlp=0, n_ctx=4, d_vocab=8),
    TransformerConfig(d_model=8, n_layers=1, n_heads=1, d_head=3, d_mlp=9, n_ctx=6, d_vocab=7),
)


def drawn_state(cfg, rng):
    """Random numbers in every weight, bias, scale and shift."""
    return {
        name: torch.randn(value.shape, generator=rng) * 0.5 + (1.0 if name.endswith(".w") else 0.0)
        for name, value in Transformer(cfg).state_dict().items()
    }


def seed_of(rng):
    return int(torch.randint(2**31, (1,), generator=rng))


def logits(cfg, state, tokens):
    model = Transformer(cfg)
    model.load_state_dict(state)
    with torch.no_grad():
        return model(tokens)


class TestRotateBasis:
    exercise = "rotate_basis"

    def test_outputs(self, answer, rng):
        "the logits stay, in networks of several sizes, with and without MLPs"
        for cfg in SIZES:
            state = drawn_state(cfg, rng)
            rotation = random_rotation(cfg.d_model, seed_of(rng), keep_ones=True)
            tokens = torch.randint(cfg.d_vocab, (3, cfg.n_ctx), generator=rng)
            found = logits(cfg, answer(dict(state), cfg, rotation), tokens)
            expect_close(
                found, logits(cfg, state, tokens), rtol=1e-3, atol=1e-3,
                note="The model with the turned weights says something else.",
            )  # fmt: skip

    def test_values(self, answer, reference, rng):
        "each weight, each norm: turned, folded, or left alone"
        for cfg in SIZES:
            state = drawn_state(cfg, rng)
            rotation = random_rotation(cfg.d_model, seed_of(rng), keep_ones=True)
            found = answer(dict(state), cfg, rotation)
            expect_close(found, reference(state, cfg, rotation), rtol=1e-4, atol=1e-4)

    def test_reflections_and_strangers(self, answer, reference, rng):
        "matrices that mirror, or turn the ones into their opposite, are allowed; what else is in the dict is handed on"
        cfg = SIZES[0]
        state = drawn_state(cfg, rng) | {"blocks.0.attn.mask": torch.ones(5, 5).tril()}
        opposite = -random_rotation(cfg.d_model, seed_of(rng), keep_ones=True)
        swapped = opposite[:, [1, 0, *range(2, cfg.d_model)]]  # of these two one has a determinant of -1
        for rotation in (opposite, swapped):
            expect_close(answer(dict(state), cfg, rotation), reference(state, cfg, rotation), rtol=1e-4, atol=1e-4)

    def test_dtype(self, answer, reference, rng):
        "float64 weights stay float64"
        cfg = SIZES[2]
        state = {name: value.double() for name, value in drawn_state(cfg, rng).items()}
        rotation = random_rotation(cfg.d_model, seed_of(rng), keep_ones=True).double()
        expect_close(
            answer(dict(state), cfg, rotation), reference(state, cfg, rotation), rtol=1e-4, atol=1e-4, dtype=True
        )

    def test_bad_input(self, answer, rng):
        "a matrix that stretches, and a rotation that moves the vector of ones, are refused"
        cfg = SIZES[0]
        state = drawn_state(cfg, rng)
        kept = random_rotation(cfg.d_model, seed_of(rng), keep_ones=True)
        stretched = kept + 0.5 * torch.outer(kept[0] - kept[1], torch.tensor([1.0, -1, 0, 0, 0, 0]))
        expect_raises(ValueError, answer, dict(state), cfg, stretched)
        expect_raises(ValueError, answer, dict(state), cfg, random_rotation(cfg.d_model, seed_of(rng)))


class TestCoordinateKurtosis:
    exercise = "coordinate_kurtosis"

    def test_values(self, answer, reference, rng):
        "random activations of several sizes, off centre and of different scales"
        for n, units in ((50, 3), (2, 1), (7, 5)):
            x = torch.randn(n, units, generator=rng).exp() * torch.arange(1.0, units + 1) + 3
            expect_close(answer(x), reference(x), rtol=1e-3)

    def test_known_distributions(self, answer):
        "a coin has 1, wherever its two values lie; one sample in ten set apart has 8.11"
        coin = torch.tensor([5.0, 9, 5, 9, 9, 5])[:, None]
        rare = torch.tensor([0.0] * 9 + [1.0])[:, None]
        expect_close(answer(coin), torch.tensor([1.0]))
        expect_close(answer(rare), torch.tensor([(0.9**4 + 9 * 0.1**4) / 10 / 0.09**2]), rtol=1e-4)

    def test_a_silent_unit(self, answer, rng):
        "NaN for a unit that is always 0, a number for its neighbour"
        x = torch.randn(6, 2, generator=rng)
        x[:, 0] = 0.0
        found = answer(x)
        expect(bool(found[0].isnan()), "A unit that never says anything has a kurtosis.", actual=found[0])
        expect(not found[1].isnan(), "A unit that does vary has none.", actual=found[1])

    def test_bad_input(self, answer):
        "one sample is too few"
        expect_raises(ValueError, answer, torch.ones(1, 3))


class TestNeuronSelectivity:
    exercise = "neuron_selectivity"

    def test_values(self, answer, reference, rng):
        "random activations, classes and numbers of top tokens"
        for n, units, n_classes, n_top in ((30, 4, 3, 7), (12, 1, 5, 12), (9, 6, 2, 1), (40, 3, 8, 25)):
            x, classes = torch.randn(n, units, generator=rng), torch.randint(n_classes, (n,), generator=rng)
            expect_close(answer(x, classes, n_top), reference(x, classes, n_top))

    def test_known_units(self, answer):
        "one class: 1; three classes in equal parts: 3; three quarters and one: 1.6; classes need not be 0, 1, 2 …"
        classes = torch.tensor([7, 7, 7, 7, 2, 2, 2, 9, 9, 9, 0, 0])
        one = torch.tensor([9.0, 8, 7, 6, 1, 1, 1, 0, 0, 0, 0, 0])
        mostly = torch.tensor([9.0, 8, 7, 0, 6, 1, 1, 0, 0, 0, 0, 0])
        expect_close(answer(torch.stack([one, mostly], dim=1), classes, 4), torch.tensor([1.0, 1.6]))
        three = torch.tensor([5.0, 5, 0, 0, 5, 5, 0, 5, 5, 0, 0, 0])
        expect_close(answer(three[:, None], classes, 6), torch.tensor([3.0]))

    def test_large_means_positive(self, answer):
        "large negative activations are small ones"
        classes = torch.tensor([0, 0, 1, 2, 2])
        x = torch.tensor([1.0, 2.0, -3.0, -9.0, -8.0])[:, None]
        expect_close(answer(x, classes, 3), torch.tensor([1.8]))

    def test_dtype(self, answer, rng):
        "float64 stays float64"
        x, classes = torch.randn(8, 2, generator=rng).double(), torch.tensor([0, 1] * 4)
        expect_close(answer(x, classes, 8), torch.full((2,), 2.0).double(), dtype=True)

    def test_bad_input(self, answer, rng):
        "no tokens, and more than there are, are refused"
        x, classes = torch.randn(5, 2, generator=rng), torch.tensor([0, 1, 1, 2, 0])
        for n_top in (0, 6):
            expect_raises(ValueError, answer, x, classes, n_top)
