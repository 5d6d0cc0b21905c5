"""Checks for the logit lens."""

from pathlib import Path

import torch

from utils.course.checking import expect_close, expect_raises, expect_same_gradients, expect_shape
from utils.course.paths import load_file

common = load_file(Path(__file__).with_name("common.py"))
CONFIGS, SmallModel = common.CONFIGS, common.SmallModel
# Logits here are sums of a dozen float32 numbers of size one to ten, taken in different orders.
SUMS = {"rtol": 1e-4, "atol": 1e-4}


class TestLogitLens:
    exercise = "logit_lens"

    def test_last_site(self, answer, rng):
        "behind the last block: what the model's own last two modules say"
        for cfg in CONFIGS:
            model, final = SmallModel(rng, cfg), 2.0 + torch.randn(2, 4, cfg.d_model, generator=rng)
            expect_close(answer(model, final), model.unembed(model.ln_final(final)).detach(), **SUMS)

    def test_every_norm(self, answer, rng):
        "the norm that the model has: RMS norm, and norms whose gain has been folded away"
        for cfg in CONFIGS:
            size, eps = cfg.d_model, cfg.layer_norm_eps
            for norm in (common.RMSNorm(rng, size, eps), common.LayerNormPre(eps), common.RMSNormPre(eps)):
                model, resid = SmallModel(rng, cfg, norm), 1.0 + torch.randn(3, 2, size, generator=rng)
                expect_close(answer(model, resid), model.unembed(norm(resid)).detach(), **SUMS)

    def test_short_stream(self, answer, rng):
        "a stream so short that the norm's own eps decides"
        for cfg in CONFIGS:
            model, resid = SmallModel(rng, cfg), 0.003 * torch.randn(3, cfg.d_model, generator=rng)
            expect_close(answer(model, resid), model.unembed(model.ln_final(resid)).detach(), **SUMS)

    def test_shapes(self, answer, reference, rng):
        "one vector, a list of vectors, a stack of sites"
        model = SmallModel(rng, CONFIGS[0])
        for shape in ((10,), (3, 10), (3, 2, 5, 10), (1, 1, 1, 10)):
            resid = torch.randn(shape, generator=rng)
            expect_close(answer(model, resid), reference(model, resid).detach(), **SUMS)

    def test_each_vector_alone(self, answer, rng):
        "a vector's logits do not depend on its neighbours"
        for cfg in CONFIGS:
            model = SmallModel(rng, cfg)
            resid = torch.randn(3, 4, cfg.d_model, generator=rng) * torch.tensor([0.1, 1.0, 30.0])[:, None, None]
            whole = answer(model, resid)
            expect_shape(whole, (3, 4, cfg.d_vocab))
            expect_close(whole[1, 2], answer(model, resid[1, 2]), **SUMS)

    def test_length_hardly_matters(self, answer, reference, rng):
        "ten times the stream gives nearly the same logits: the norm divides the length out"
        model = SmallModel(rng, CONFIGS[1])
        resid = 3.0 + 5.0 * torch.randn(4, 6, generator=rng)
        for factor in (1.0, 10.0):
            expect_close(answer(model, factor * resid), reference(model, factor * resid).detach(), **SUMS)

    def test_gradients(self, answer, reference, rng):
        "gradients flow back to the stream"
        model = SmallModel(rng, CONFIGS[0])
        resid = torch.randn(2, 3, 10, generator=rng)
        expect_same_gradients(
            lambda r: answer(model, r), lambda r: reference(model, r), resid, rng=rng, rtol=1e-3, atol=1e-3
        )

    def test_bad_width(self, answer, rng):
        "a stream of another width is refused"
        model = SmallModel(rng, CONFIGS[0])
        for width in (1, 9, 13):
            expect_raises(ValueError, answer, model, torch.randn(2, width, generator=rng))
