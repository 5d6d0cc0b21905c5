"""Checks of decoding with cached keys and values."""

from dataclasses import replace

import torch

from utils.course.checking import Mismatch, expect_close, expect_raises
from utils.models.config import TransformerConfig
from utils.transformer.model import Transformer

CONFIGS = (
    TransformerConfig(d_model=10, n_layers=2, n_heads=3, d_head=4, d_mlp=7, n_ctx=5, d_vocab=13),
    TransformerConfig(d_model=6, n_layers=3, n_heads=2, d_head=5, d_mlp=9, n_ctx=4, d_vocab=8),
)


def random_model(rng, cfg, dtype=torch.float32):
    """A model all of whose parameters, biases included, are random and of a size that matters."""
    model = Transformer(cfg).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.6 * torch.randn(parameter.shape, generator=rng, dtype=dtype))
    return model


def parts(result, n_layers):
    """Logits and cache of a step, or a sentence on what is not as it should be."""
    if not (isinstance(result, tuple) and len(result) == 2):
        raise Mismatch("Return two things: the logits and the new cache.", actual=type(result).__name__)
    logits, cache = result
    if not (
        isinstance(cache, list)
        and len(cache) == n_layers
        and all(isinstance(pair, tuple) and len(pair) == 2 for pair in cache)
    ):
        raise Mismatch(
            "The new cache is a list with one (keys, values) tuple for each layer.",
            actual=type(cache).__name__,
        )
    return logits, cache


def filled(reference, model, tokens):
    """The cache after these tokens, by the reference."""
    cache = None
    for i in range(tokens.shape[1]):
        _, cache = reference(model, tokens[:, i], cache)
    return cache


class TestKvCacheStep:
    exercise = "kv_cache_step"

    def test_first_token(self, answer, reference, rng):
        "without a cache: the model's logits at position 0"
        for cfg in CONFIGS:
            model, tokens = random_model(rng, cfg), torch.randint(cfg.d_vocab, (3, 1), generator=rng)
            logits, _ = parts(answer(model, tokens[:, 0], None), cfg.n_layers)
            expect_close(
                logits,
                model(tokens)[:, 0],
                rtol=1e-4,
                atol=1e-4,
                note="At position 0 the logits are not the model's.",
            )

    def test_every_position(self, answer, rng):
        "token after token: the logits of the full forward pass"
        for cfg in CONFIGS:
            model, tokens = random_model(rng, cfg), torch.randint(cfg.d_vocab, (2, cfg.n_ctx), generator=rng)
            full, cache = model(tokens), None
            for i in range(cfg.n_ctx):
                logits, cache = parts(answer(model, tokens[:, i], cache), cfg.n_layers)
                expect_close(
                    logits,
                    full[:, i],
                    rtol=1e-4,
                    atol=1e-4,
                    note=f"At position {i} the logits are not the model's.",
                )

    def test_one_step(self, answer, reference, rng):
        "one step from a cache that is given"
        cfg = CONFIGS[0]
        model, tokens = random_model(rng, cfg), torch.randint(cfg.d_vocab, (3, 3), generator=rng)
        logits, _ = parts(answer(model, tokens[:, 2], filled(reference, model, tokens[:, :2])), cfg.n_layers)
        expect_close(
            logits,
            model(tokens)[:, 2],
            rtol=1e-4,
            atol=1e-4,
            note="From a right cache, the logits come out wrong.",
        )

    def test_cache(self, answer, reference, rng):
        "the new cache holds the old one and the new position, layer by layer"
        cfg = CONFIGS[1]
        model, tokens = random_model(rng, cfg), torch.randint(cfg.d_vocab, (2, 3), generator=rng)
        old = filled(reference, model, tokens[:, :2])
        _, cache = parts(answer(model, tokens[:, 2], old), cfg.n_layers)
        _, expected = reference(model, tokens[:, 2], old)
        for layer in range(cfg.n_layers):
            for name, theirs, ours in zip(("keys", "values"), cache[layer], expected[layer], strict=True):
                expect_close(theirs, ours, rtol=1e-4, atol=1e-4, note=f"The {name} of layer {layer} differ.")

    def test_attention_only(self, answer, reference, rng):
        "a model with d_mlp = 0, whose blocks have no ln2 and no mlp"
        cfg = replace(CONFIGS[0], d_mlp=0)
        model, tokens = random_model(rng, cfg), torch.randint(cfg.d_vocab, (3, 3), generator=rng)
        logits, _ = parts(answer(model, tokens[:, 2], filled(reference, model, tokens[:, :2])), cfg.n_layers)
        expect_close(logits, model(tokens)[:, 2], rtol=1e-4, atol=1e-4, note="This model has no MLPs (d_mlp = 0)")

    def test_double(self, answer, reference, rng):
        "a float64 model gives float64 logits"
        cfg = CONFIGS[1]
        model, tokens = (
            random_model(rng, cfg, torch.float64),
            torch.randint(cfg.d_vocab, (1, 2), generator=rng),
        )
        logits, _ = parts(answer(model, tokens[:, 1], filled(reference, model, tokens[:, :1])), cfg.n_layers)
        expect_close(logits, model(tokens)[:, 1], dtype=True)

    def test_full(self, answer, reference, rng):
        "a position that the model has no embedding for is refused"
        cfg = CONFIGS[1]
        model, tokens = random_model(rng, cfg), torch.randint(cfg.d_vocab, (2, cfg.n_ctx), generator=rng)
        expect_raises(ValueError, answer, model, tokens[:, 0], filled(reference, model, tokens))
