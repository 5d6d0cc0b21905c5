"""Checks for recording the residual stream, and for taking it apart."""

from pathlib import Path

import torch

from utils.course.checking import AnswerRaised, Mismatch, expect, expect_close, expect_raises, expect_shape
from utils.course.paths import load_file
from utils.models.config import TransformerConfig

hooked = load_file(Path(__file__).with_name("hooked.py"))
CONFIGS, random_model, random_tokens, n_hooks = (
    hooked.CONFIGS,
    hooked.random_model,
    hooked.random_tokens,
    hooked.n_hooks,
)
ONE = TransformerConfig(d_model=5, n_layers=1, n_heads=1, d_head=2, d_mlp=3, n_ctx=2, d_vocab=4)
NO_MLP = TransformerConfig(d_model=6, n_layers=2, n_heads=3, d_head=2, d_mlp=0, n_ctx=5, d_vocab=7)
# Streams here are sums of a dozen float32 numbers of size one to ten, taken in different orders.
SUMS = {"rtol": 1e-4, "atol": 1e-4}


def fail_midway(module, inputs, output):
    raise RuntimeError("the model failed in its last layer")


def halve_the_last(module, inputs, output):
    "Somebody else's idea, at one position of one text."
    changed = output.clone()
    changed[-1, -1] *= 0.5
    return changed


class TestResidualStack:
    exercise = "residual_stack"

    def test_shape(self, answer, rng):
        "a site before the first block and one behind each block"
        for cfg, batch, pos in ((CONFIGS[0], 3, 5), (ONE, 1, 1)):
            stack = answer(random_model(rng, cfg), random_tokens(rng, cfg, batch, pos))
            expect_shape(stack, (cfg.n_layers + 1, batch, pos, cfg.d_model))

    def test_first_site(self, answer, rng):
        "before the first block: token and position embeddings, summed"
        model, tokens = random_model(rng, ONE), random_tokens(rng, ONE, 3, 2)
        stack = answer(model, tokens)
        expect_shape(stack, (2, 3, 2, 5))
        embedded = (model.W_E[tokens] + model.W_pos[:2]).detach()
        expect_close(stack[0], embedded, note="The first site is not the embeddings'")

    def test_values(self, answer, reference, rng):
        "every site, in order, and from the last one the model's own logits"
        for cfg in CONFIGS:
            model, tokens = random_model(rng, cfg), random_tokens(rng, cfg, 2, 4)
            stack = answer(model, tokens)
            expect_close(stack, reference(model, tokens))
            expect_close(model.unembed(model.ln_final(stack[-1])).detach(), model(tokens).detach(), **SUMS)

    def test_sees_what_the_model_goes_on_with(self, answer, reference, rng):
        "somebody else's hook that changes the stream is seen, and is still there afterwards"
        model, tokens = random_model(rng, CONFIGS[0]), random_tokens(rng, CONFIGS[0], 2, 3)
        model.add_hook("blocks.0.hook_resid_post", lambda resid, hook: 2.0 * resid)
        before = model(tokens).detach()
        expect_close(answer(model, tokens), reference(model, tokens))
        expect_close(model(tokens).detach(), before, note="After your function, a hook that was there is gone")

    def test_sees_what_enters_the_first_block(self, answer, reference, rng):
        "also somebody's hook where the first block begins"
        model, tokens = random_model(rng, CONFIGS[0]), random_tokens(rng, CONFIGS[0], 2, 3)
        model.add_hook("blocks.0.hook_resid_pre", lambda resid, hook: 2.0 * resid)
        expect_close(answer(model, tokens), reference(model, tokens))

    def test_leaves_no_hooks(self, answer, rng):
        "afterwards the model has the hooks that it had before, also if it raises on the way"
        model, tokens = random_model(rng, ONE), random_tokens(rng, ONE, 3, 2)
        before = n_hooks(model)
        answer(model, tokens)
        left = n_hooks(model) - before
        expect(
            left == 0,
            f"{left} of your hooks are still on the model.",
            actual=f"{left} after a run that went well",
            expected="0 hooks left",
        )
        handle = model.blocks[0].hook_attn_out.register_forward_hook(fail_midway)
        expect_raises(RuntimeError, answer, model, tokens)
        handle.remove()
        left = n_hooks(model) - before
        expect(
            left == 0,
            f"The model raised an exception on the way, and {left} of your hooks are still on it.",
            actual=f"{left} after an exception",
            expected="0 hooks left",
        )

    def test_another_kind_of_model(self, answer, reference, rng):
        "a model like Llama: RMS norms, rotary positions, gated MLPs, shared keys and values"
        cfg = TransformerConfig(d_model=6, n_layers=2, n_heads=4, d_head=4, d_mlp=5, n_ctx=5, d_vocab=9)
        model, tokens = random_model(rng, cfg, **hooked.LLAMA), random_tokens(rng, cfg, 2, 4)
        expect_close(answer(model, tokens), reference(model, tokens), **SUMS)

    def test_no_graph(self, answer, rng):
        "the result carries no graph, and the model stays in its mode"
        model = random_model(rng, ONE).train()
        stack = answer(model, random_tokens(rng, ONE, 3, 2))
        expect_shape(stack, (2, 3, 2, 5))
        expect(
            not stack.requires_grad,
            "The result still hangs on the graph of the forward pass, which keeps all of it in memory.",
            actual="requires_grad=True",
        )
        expect(model.training, "The model was in training mode, and is not any more.", actual="model.training is False")
        frozen = [name for name, parameter in model.named_parameters() if not parameter.requires_grad]
        expect(not frozen, "The model's weights could be trained, and can't be any more.", actual=frozen)

    def test_evaluation_mode(self, answer, rng):
        "a model in evaluation mode stays in it"
        model = random_model(rng, ONE)
        answer(model, random_tokens(rng, ONE, 3, 2))
        expect(
            not model.training,
            "The model was in evaluation mode, and is in training mode now.",
            actual="model.training is True",
        )

    def test_bad_tokens(self, answer, rng):
        "tokens without a batch dimension are refused"
        expect_raises(ValueError, answer, random_model(rng, ONE), torch.tensor([1, 2]))


def as_parts(result):
    if not isinstance(result, dict) or not result:
        raise Mismatch("Return a dict of components by name.", actual=type(result).__name__)
    return result


class TestResidualComponents:
    exercise = "residual_components"

    def test_names(self, answer, reference, rng):
        "the names, in the order in which the parts are added"
        for cfg in (CONFIGS[1], ONE):
            model, tokens = random_model(rng, cfg), random_tokens(rng, cfg, 2, 2)
            names, expected = list(as_parts(answer(model, tokens))), list(reference(model, tokens))
            expect(
                names == expected,
                "The names or their order differ.",
                actual=names,
                returned=str(names[:8]),
                expected=str(expected[:8]),
            )

    def test_sum(self, answer, rng):
        "summed, they are the stream behind the last block"
        cfg = CONFIGS[0]
        model, tokens = random_model(rng, cfg), random_tokens(rng, cfg, 3, 4)
        parts = as_parts(answer(model, tokens))
        for name, value in parts.items():
            expect_shape(value, (3, 4, cfg.d_model), note=f"{name!r} has the wrong shape.")
        _, cache = model.run_with_cache(tokens, return_type=None)
        final = cache[f"blocks.{cfg.n_layers - 1}.hook_resid_post"].detach()
        total = torch.stack(list(parts.values())).sum(0)
        expect_close(total, final, note="The parts do not sum to the final stream", **SUMS)

    def test_values(self, answer, reference, rng):
        "each part"
        for cfg in CONFIGS:
            model, tokens = random_model(rng, cfg), random_tokens(rng, cfg, 2, 4)
            parts, expected = as_parts(answer(model, tokens)), reference(model, tokens)
            for name, value in expected.items():
                expect(name in parts, f"There is no part {name!r}.", actual=list(parts))
                expect_close(parts[name], value, note=f"{name!r} differs", **SUMS)

    def test_attention_only(self, answer, reference, rng):
        "a model without MLPs has no entries for them"
        model, tokens = random_model(rng, NO_MLP), random_tokens(rng, NO_MLP, 2, 3)
        expect_close(dict(as_parts(answer(model, tokens))), reference(model, tokens), **SUMS)

    def test_other_positions(self, answer, reference, rng):
        "where positions are not added to the stream, there is no entry for them"
        cfg = TransformerConfig(d_model=6, n_layers=2, n_heads=4, d_head=4, d_mlp=5, n_ctx=5, d_vocab=9)
        for options in (hooked.LLAMA, {"positional_embedding_type": "shortformer"}):
            model, tokens = random_model(rng, cfg, **options), random_tokens(rng, cfg, 2, 4)
            parts, expected = as_parts(answer(model, tokens)), reference(model, tokens)
            expect(
                list(parts) == list(expected),
                "The names or their order differ.",
                actual=list(parts),
                returned=str(list(parts)[:8]),
                expected=str(list(expected)[:8]),
            )
            expect_close(dict(parts), expected, **SUMS)

    def test_no_sum(self, answer, rng):
        "a stream that somebody's hook changes on the way is no sum of parts, and is refused"
        model, tokens = random_model(rng, CONFIGS[1]), random_tokens(rng, CONFIGS[1], 2, 4)
        before = n_hooks(model)
        handle = model.blocks[1].hook_resid_post.register_forward_hook(halve_the_last)
        expect_raises(ValueError, answer, model, tokens)
        handle.remove()
        expect(n_hooks(model) == before, "Hooks are left on the model.", actual=n_hooks(model) - before)

    def test_how_close(self, answer, reference, rng):
        "at each position the parts may miss the stream by a hundredth of the sum of their lengths, and by no more"
        model, tokens = random_model(rng, CONFIGS[1]), random_tokens(rng, CONFIGS[1], 60, 4)
        parts = reference(model, tokens)
        missed = torch.nn.functional.normalize(torch.randn(60, 4, CONFIGS[1].d_model, generator=rng), dim=-1)
        missed *= 0.008 * sum(value.norm(dim=-1, keepdim=True) for value in parts.values())
        model.blocks[-1].hook_resid_post.register_forward_hook(lambda module, inputs, output: output + missed)
        try:
            answer(model, tokens)
        except AnswerRaised as raised:
            if not isinstance(raised.__cause__, ValueError):
                raise
            raise Mismatch(
                "You refuse a sum that is within a hundredth of the sum of its parts' lengths.", actual="refused"
            ) from raised
        missed[-1, -1] *= 1.5
        expect_raises(ValueError, answer, model, tokens)

    def test_others_hooks(self, answer, rng):
        "somebody else's hook is still there afterwards"
        model, tokens = random_model(rng, ONE), random_tokens(rng, ONE, 3, 2)
        model.add_hook("blocks.0.hook_resid_post", lambda resid, hook: None)
        before = n_hooks(model)
        answer(model, tokens)
        expect(n_hooks(model) >= before, "After your function, a hook that was there is gone.", actual="gone")

    def test_clean(self, answer, rng):
        "no graph, no hooks left, and the library's options are as they were"
        model, tokens = random_model(rng, ONE), random_tokens(rng, ONE, 3, 2)
        before, option = n_hooks(model), model.cfg.use_attn_result
        parts = as_parts(answer(model, tokens))
        graph = [name for name, value in parts.items() if value.requires_grad]
        expect(not graph, "Parts still hang on a graph: compute them without one.", actual=graph)
        expect(n_hooks(model) == before, "Hooks are left on the model.", actual=n_hooks(model) - before)
        expect(
            model.cfg.use_attn_result == option,
            "You switched an option of the model on, and did not switch it back.",
            actual=model.cfg.use_attn_result,
        )

    def test_bad_tokens(self, answer, rng):
        "tokens without a batch dimension are refused"
        expect_raises(ValueError, answer, random_model(rng, ONE), torch.tensor([1, 2]))
