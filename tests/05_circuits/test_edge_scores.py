"""Checks of edge scores: exact, from one backward pass, and with integrated gradients."""

from pathlib import Path

import torch

from utils.circuits.edge_scores import edge_patching
from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.course.paths import load_file

networks = load_file(Path(__file__).with_name("edge_networks.py"))
cases, some_of, CLOSE = networks.cases, networks.some_of, networks.CLOSE


def expect_refused(answer, rng, *arguments, **choices):
    model, clean, corrupt, edges, metric = next(cases(rng))
    for wrong in (corrupt[:1], corrupt[:, :-1]):
        expect_raises(ValueError, answer, model, clean, wrong, edges, metric, *arguments, **choices)


def expect_model_as_before(answer, rng, *arguments):
    model, clean, corrupt, edges, metric = next(cases(rng))
    flags = ("use_split_qkv_input", "use_attn_result", "use_hook_mlp_in", "use_attn_in")
    before = [getattr(model.cfg, flag) for flag in flags]
    found = answer(model, clean, corrupt, edges[:4], metric, *arguments)
    expect(not found.requires_grad, "Your result carries a graph, and all its runs with it.", actual="graph")
    expect(
        [getattr(model.cfg, flag) for flag in flags] == before,
        "Afterwards the model has other settings than before.", actual="settings",
    )  # fmt: skip
    expect(
        not any(module._forward_hooks or module._backward_hooks for module in model.modules()),
        "Afterwards there are hooks on the model.", actual="hooks",
    )  # fmt: skip


class TestEdgePatching:
    exercise = "edge_patching"

    def test_values(self, answer, reference, rng):
        "all edges of two models, one with MLPs and one without"
        for model, clean, corrupt, edges, metric in cases(rng):
            found = answer(model, clean, corrupt, edges, metric)
            expect_shape(found, (len(edges), len(clean)))
            expect_close(found, reference(model, clean, corrupt, edges, metric), **CLOSE)

    def test_some_edges(self, answer, reference, rng):
        "some edges only, in another order"
        for model, clean, corrupt, edges, metric in cases(rng):
            chosen = some_of(edges, rng)
            expect_close(
                answer(model, clean, corrupt, chosen, metric), reference(model, clean, corrupt, chosen, metric), **CLOSE
            )

    def test_metric_of_each_prompt(self, answer, reference, rng):
        "a metric that reads each prompt at a place and a token of its own"
        for model, clean, corrupt, edges, _ in cases(rng):
            chosen, rows = some_of(edges, rng, 7), torch.arange(len(clean))
            places = torch.randint(clean.shape[1], (len(clean),), generator=rng)
            tokens = torch.randint(model.cfg.d_vocab, (len(clean),), generator=rng)

            def metric(logits, rows=rows, places=places, tokens=tokens):
                expect(
                    len(logits) == len(rows),
                    f"Your metric was handed {len(logits)} rows of logits. It is made for the {len(rows)} prompts, one "
                    "copy of them at a time.",
                    actual=("rows of the metric", len(rows)), returned=f"{len(logits)} rows",
                )  # fmt: skip
                return logits[rows, places, tokens]

            expect_close(
                answer(model, clean, corrupt, chosen, metric), reference(model, clean, corrupt, chosen, metric), **CLOSE
            )

    def test_one_prompt(self, answer, reference, rng):
        "a single prompt and a single edge"
        for model, clean, corrupt, edges, metric in cases(rng):
            inputs = (model, clean[:1], corrupt[:1], edges[-1:], metric)
            expect_close(answer(*inputs), reference(*inputs), **CLOSE)

    def test_same_prompts(self, answer, rng):
        "0 where the two prompts are the same"
        model, clean, _, edges, metric = next(cases(rng))
        expect_close(answer(model, clean, clean, edges, metric), torch.zeros(len(edges), len(clean)), atol=1e-5)

    def test_rows(self, answer, reference, rng):
        "no forward pass of more rows than allowed, and the same values"
        model, clean, corrupt, edges, metric = next(cases(rng))
        chosen, rows = some_of(edges, rng, 7), []
        handle = model.embed.register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
        try:
            for max_rows in (1, 7):
                rows.clear()
                found = answer(model, clean, corrupt, chosen, metric, max_rows=max_rows)
                most = max(max_rows, len(clean))
                expect(
                    max(rows, default=0) <= most, f"A forward pass has more than {most} rows.",
                    actual="rows", returned=f"{max(rows, default=0)} rows, max_rows={max_rows}",
                )  # fmt: skip
                expect_close(found, reference(model, clean, corrupt, chosen, metric), **CLOSE)
        finally:
            handle.remove()

    def test_as_before(self, answer, rng):
        "no graph, and the model is left as it was"
        expect_model_as_before(answer, rng)

    def test_bad_input(self, answer, rng):
        "prompts of different shapes are refused"
        expect_refused(answer, rng)


class TestEdgeAttributionPatching:
    exercise = "edge_attribution_patching"

    def test_values(self, answer, reference, rng):
        "all edges of two models, one with MLPs and one without"
        for model, clean, corrupt, edges, metric in cases(rng):
            found = answer(model, clean, corrupt, edges, metric)
            expect_shape(found, (len(edges), len(clean)))
            expect_close(found, reference(model, clean, corrupt, edges, metric), **CLOSE)

    def test_some_edges(self, answer, reference, rng):
        "some edges only, in another order"
        for model, clean, corrupt, edges, metric in cases(rng):
            inputs = (model, clean, corrupt, some_of(edges, rng), metric)
            expect_close(answer(*inputs), reference(*inputs), **CLOSE)

    def test_linear(self, answer, rng):
        "the exact effects where everything is linear"
        sizes = networks.SIZES[1]
        model = networks.random_model(rng, sizes, linear=True)
        clean, corrupt = torch.randint(sizes["d_vocab"], (2, 2, sizes["n_ctx"]), generator=rng)
        edges = networks.build_graph(sizes["n_layers"], sizes["n_heads"], mlps=False)
        weights = torch.randn(sizes["d_vocab"], generator=rng)

        def metric(logits):
            return logits[:, -1] @ weights

        wanted = edge_patching(model, clean, corrupt, edges, metric)
        expect_close(answer(model, clean, corrupt, edges, metric), wanted, rtol=1e-3, atol=1e-3)

    def test_without_gradients(self, answer, reference, rng):
        "also where gradients are switched off"
        for model, clean, corrupt, edges, metric in cases(rng):
            with torch.no_grad():
                found = answer(model, clean, corrupt, edges[-9:], metric)
            expect_close(found, reference(model, clean, corrupt, edges[-9:], metric), **CLOSE)

    def test_as_before(self, answer, rng):
        "no graph, and the model is left as it was"
        expect_model_as_before(answer, rng)

    def test_bad_input(self, answer, rng):
        "prompts of different shapes are refused"
        expect_refused(answer, rng)


class TestEapIg:
    exercise = "eap_ig"

    def test_values(self, answer, reference, rng):
        "all edges of two models, with two and with seven steps"
        for (model, clean, corrupt, edges, metric), steps in zip(cases(rng), (2, 7), strict=True):
            found = answer(model, clean, corrupt, edges, metric, steps=steps)
            expect_shape(found, (len(edges), len(clean)))
            expect_close(found, reference(model, clean, corrupt, edges, metric, steps=steps), **CLOSE)

    def test_five_steps(self, answer, reference, rng):
        "five steps if nothing is said, for some edges in another order"
        for model, clean, corrupt, edges, metric in cases(rng):
            inputs = (model, clean, corrupt, some_of(edges, rng), metric)
            expect_close(answer(*inputs), reference(*inputs, steps=5), **CLOSE)

    def test_one_step(self, answer, reference, rng):
        "with one step it is EAP"
        model, clean, corrupt, edges, metric = next(cases(rng))
        expect_close(
            answer(model, clean, corrupt, edges, metric, steps=1),
            reference(model, clean, corrupt, edges, metric, steps=1), **CLOSE,
        )  # fmt: skip

    def test_as_before(self, answer, rng):
        "no graph, and the model is left as it was"
        expect_model_as_before(answer, rng)

    def test_bad_input(self, answer, rng):
        "prompts of different shapes, and no steps, are refused"
        expect_refused(answer, rng)
        model, clean, corrupt, edges, metric = next(cases(rng))
        expect_raises(ValueError, answer, model, clean, corrupt, edges, metric, steps=0)
