"""Checks of the residual graph, and of messages that are replaced."""

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape

SIZES = ((1, 1), (2, 3), (3, 2), (4, 4))


class TestBuildGraph:
    exercise = "build_graph"

    def test_one_layer(self, answer):
        "one layer of one head, edge by edge"
        heads = [("embed", "a0.0.q"), ("embed", "a0.0.k"), ("embed", "a0.0.v")]
        mlp = [("embed", "m0"), ("a0.0", "m0")]
        expect_pairs(answer(1, 1), [*heads, *mlp, ("embed", "logits"), ("a0.0", "logits"), ("m0", "logits")])
        expect_pairs(answer(1, 1, mlps=False), [*heads, ("embed", "logits"), ("a0.0", "logits")])

    def test_sizes(self, answer, reference, rng):
        "several sizes, with MLPs and without, as sets of edges"
        for sizes in SIZES:
            for mlps in (True, False):
                expect_same_edges(answer(*sizes, mlps=mlps), reference(*sizes, mlps=mlps))
        n_layers, n_heads, mlps = torch.randint(4, 14, (3,), generator=rng).tolist()  # lists that fill no notebook
        expect_same_edges(answer(n_layers, n_heads, mlps=mlps > 8), reference(n_layers, n_heads, mlps=mlps > 8))

    def test_order(self, answer, reference):
        "receivers in the order in which they read, senders in that in which they write"
        for sizes in SIZES:
            for mlps in (True, False):
                expect_pairs(answer(*sizes, mlps=mlps), reference(*sizes, mlps=mlps))

    def test_bad_input(self, answer):
        "no layers or no heads are refused"
        expect_raises(ValueError, answer, 0, 2)
        expect_raises(ValueError, answer, 2, 0)


def as_pairs(found):
    expect(
        isinstance(found, list) and all(isinstance(edge, tuple) and len(edge) == 2 for edge in found),
        "The edges are a list of pairs (sender, receiver), tuples of two texts.",
        actual=type(found).__name__,
    )
    return [tuple(map(str, edge)) for edge in found]


def expect_same_edges(found, wanted):
    found = as_pairs(found)
    missing, extra = sorted(set(wanted) - set(found)), sorted(set(found) - set(wanted))
    expect(
        not missing and not extra,
        "The graph has other edges than it should.",
        actual=(missing, extra),
        returned=f"{len(found)} edges; too many: {extra[:4]}" if extra else f"{len(found)} edges",
        expected=f"{len(wanted)} edges" + (f"; missing: {missing[:4]}" if missing else ""),
    )
    expect(len(set(found)) == len(found), "An edge is in the list more than once.", actual="copies")


def expect_pairs(found, wanted):
    expect_same_edges(found, wanted)
    expect_close(as_pairs(found), wanted, note="The edges are there, in another order")


class TestEdgeCount:
    exercise = "edge_count"

    def test_small(self, answer, reference):
        "models whose edges can be listed"
        for sizes in SIZES:
            for mlps in (True, False):
                expect_close(answer(*sizes, mlps=mlps), reference(*sizes, mlps=mlps))

    def test_published(self, answer):
        "the course model has 479 edges, a model of GPT-2 small's size 32,491"
        expect_close([answer(4, 4), answer(12, 12)], [479, 32491])

    def test_large(self, answer, reference, rng):
        "exact where no list would fit"
        drawn = torch.randint(10_000, 1_000_000, (2,), generator=rng).tolist()
        for sizes in ((120, 128), (1_000_003, 1_000_033), drawn):
            expect_close([str(answer(*sizes, mlps=m)) for m in (True, False)],
                         [str(reference(*sizes, mlps=m)) for m in (True, False)])  # fmt: skip

    def test_bad_input(self, answer):
        "no layers or no heads are refused"
        expect_raises(ValueError, answer, 0, 2)
        expect_raises(ValueError, answer, 2, 0)


class TestMixMessages:
    exercise = "mix_messages"

    def drawn(self, rng, copies, batch, pos, d_model, receivers, senders):
        stream = torch.randn(copies, batch, pos, d_model, generator=rng)
        sent = torch.randn(senders, copies, batch, pos, d_model, generator=rng)
        replaced = torch.randn(senders, batch, pos, d_model, generator=rng)
        kept = torch.rand(copies, receivers, senders, generator=rng) < 0.5
        return stream, sent, replaced, kept

    def test_values(self, answer, reference, rng):
        "random messages of several sizes, a random half of them kept"
        for sizes in ((2, 3, 4, 5, 6, 7), (4, 2, 3, 6, 1, 5), (1, 1, 1, 2, 3, 1)):
            inputs = self.drawn(rng, *sizes)
            found = answer(*inputs)
            expect_shape(found, (*sizes[:3], sizes[4], sizes[3]))
            expect_close(found, reference(*inputs), rtol=1e-4, atol=1e-5)

    def test_all_kept(self, answer, rng):
        "where all is kept every receiver reads the stream"
        stream, sent, replaced, kept = self.drawn(rng, 3, 2, 4, 5, 2, 6)
        found = answer(stream, sent, replaced, torch.ones_like(kept))
        expect_close(found, stream[:, :, :, None].expand(-1, -1, -1, 2, -1), rtol=1e-4, atol=1e-5)

    def test_biases(self, answer, rng):
        "where all is cut, what is left of the stream beside the messages is what nobody has sent"
        stream, sent, replaced, kept = self.drawn(rng, 3, 2, 4, 5, 2, 6)
        found = answer(stream, sent, replaced, torch.zeros_like(kept))
        wanted = stream - sent.sum(0) + replaced.sum(0)
        expect_close(found, wanted[:, :, :, None].expand(-1, -1, -1, 2, -1), rtol=1e-4, atol=1e-5)
