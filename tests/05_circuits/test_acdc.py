"""Checks of ACDC and of ROC curves of edges."""

from pathlib import Path

import torch

from utils.circuits.planted import planted_circuit
from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.course.paths import load_file

networks = load_file(Path(__file__).with_name("edge_networks.py"))
SHARES = {"rtol": 1e-5, "atol": 1e-6}  # they may be had in float32
# Two models of few edges, as each costs a run: 23 and 29.
SMALL = (
    {"d_model": 6, "n_layers": 2, "n_heads": 1, "d_head": 4, "d_mlp": 7, "n_ctx": 5, "d_vocab": 9},
    {"d_model": 7, "n_layers": 2, "n_heads": 2, "d_head": 3, "d_mlp": 0, "n_ctx": 4, "d_vocab": 11},
)


def small_cases(rng):
    for batch, sizes in zip((3, 2), SMALL, strict=True):
        model = networks.random_model(rng, sizes)
        clean, corrupt = torch.randint(sizes["d_vocab"], (2, batch, sizes["n_ctx"]), generator=rng)
        edges = networks.build_graph(sizes["n_layers"], sizes["n_heads"], mlps=sizes["d_mlp"] > 0)
        yield model, clean, corrupt, edges, networks.random_metric(rng, clean.shape[1], sizes["d_vocab"])


def expect_same_circuit(found, wanted, edges):
    expect_shape(found, tuple(wanted.shape))
    expect(found.dtype == torch.bool, "The circuit is to be a tensor of bool.", actual=str(found.dtype))
    differs = [f"{s} → {r}" for (s, r), a, b in zip(edges, found.tolist(), wanted.tolist(), strict=True) if a != b]
    expect(
        not differs,
        "The circuit has other edges.",
        actual=found.int().tolist(),
        returned=f"{int(found.sum())} edges; differs at {', '.join(differs[:4])}",
        expected=f"{int(wanted.sum())} edges",
    )


class TestAcdc:
    exercise = "acdc"

    def test_planted(self, answer, rng):
        "finds a planted circuit, and nothing else, where every edge matters by itself"
        seed = int(torch.randint(1000, (), generator=rng))
        p = planted_circuit("and", seed, n=2, noise=0.02)
        expect_same_circuit(answer(p.model, p.clean, p.corrupt, p.edges, p.metric, 1.0), p.truth, p.edges)

    def test_sizes(self, answer, reference, rng):
        "random models, with several thresholds"
        for inputs in small_cases(rng):
            for threshold in (0.03, 0.3):
                found = answer(*inputs, threshold)
                expect_same_circuit(found, reference(*inputs, threshold), inputs[3])

    def test_backup(self, answer, reference, rng):
        "of two branches of which either will do, the one that comes first in the list is kept"
        seed = int(torch.randint(1000, (), generator=rng))
        p = planted_circuit("or", seed, n=2, noise=0.02)
        found = answer(p.model, p.clean, p.corrupt, p.edges, p.metric, 1.0)
        expect_same_circuit(found, reference(p.model, p.clean, p.corrupt, p.edges, p.metric, 1.0), p.edges)

    def test_up_or_down(self, answer, rng):
        "edges that work against the answer are kept, too"
        seed = int(torch.randint(1000, (), generator=rng))
        p = planted_circuit("inhibition", seed, n=2, noise=0.02)
        expect_same_circuit(answer(p.model, p.clean, p.corrupt, p.edges, p.metric, 1.0), p.truth, p.edges)

    def test_everything_goes(self, answer, rng):
        "a threshold above all effects leaves nothing"
        model, clean, corrupt, edges, metric = next(small_cases(rng))
        found = answer(model, clean, corrupt, edges, metric, 1e6)
        expect_same_circuit(found, torch.zeros(len(edges), dtype=torch.bool), edges)

    def test_bad_input(self, answer, rng):
        "prompts of different shapes and negative thresholds are refused"
        model, clean, corrupt, edges, metric = next(small_cases(rng))
        expect_raises(ValueError, answer, model, clean, corrupt[:, :-1], edges, metric, 0.1)
        expect_raises(ValueError, answer, model, clean, corrupt, edges, metric, -0.1)


def expect_curve(found, wanted, scores):
    """Expect the points, and say so where edges of equal score have each their own, in whatever order."""
    levels = len(scores.unique())
    for axis in found:
        expect(
            levels == len(scores) or len(axis) != len(scores) + 1,
            "Your curve has a point for each edge, and these scores have ties: nothing tells edges of equal score "
            "apart. They are taken together, as one point.",
            actual=("a point for each edge", len(scores)),
            returned=f"{len(axis)} points", expected=f"{levels + 1} points, of {levels} different scores",
        )  # fmt: skip
    expect_close(found, wanted, **SHARES)


class TestEdgeRoc:
    exercise = "edge_roc"

    def test_values(self, answer, reference, rng):
        "random scores, and scores with many ties"
        for n, levels in ((9, 0), (30, 4), (17, 2), (2, 0)):
            scores = torch.randn(n, generator=rng)
            if levels:
                scores = torch.randint(levels, (n,), generator=rng).float()
            truth = torch.zeros(n, dtype=torch.bool)
            truth[torch.randperm(n, generator=rng)[: max(1, n // 3)]] = True
            expect_curve(list(answer(scores, truth)), list(reference(scores, truth)), scores)

    def test_known(self, answer):
        "perfect, upside down, and all alike"
        truth, shares = torch.tensor([True, True, False]), lambda *rows: [torch.tensor(x).double() for x in rows]
        for scores, wanted in (
            ([3.0, 2.0, 1.0], shares([0, 0, 0, 1], [0, 0.5, 1, 1])),
            ([2.0, 1.0, 3.0], shares([0, 1, 1, 1], [0, 0, 0.5, 1])),
            ([0.0, 0.0, 0.0], shares([0, 1], [0, 1])),
        ):
            expect_curve(list(answer(torch.tensor(scores), truth)), wanted, torch.tensor(scores))

    def test_negative_scores(self, answer, reference, rng):
        "scores below 0, and integers"
        truth = torch.tensor([True, False, True, False, False])
        for scores in (-torch.rand(5, generator=rng) - 1, torch.tensor([-3, 4, 0, 0, -3])):
            expect_curve(list(answer(scores, truth)), list(reference(scores, truth)), scores)

    def test_bad_input(self, answer, rng):
        "edges that are all in the circuit, or none, are refused"
        scores = torch.randn(5, generator=rng)
        for truth in (torch.ones(5, dtype=torch.bool), torch.zeros(5, dtype=torch.bool)):
            expect_raises(ValueError, answer, scores, truth)
