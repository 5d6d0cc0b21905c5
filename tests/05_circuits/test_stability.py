"""Checks for random circuits of a kind, and for circuits found again on other prompts."""

from pathlib import Path

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.course.paths import load_file

EDGES = load_file(Path(__file__).with_name("common_05d.py")).EDGES


def receiver(edge):
    return edge[1]


class TestRandomCircuits:
    exercise = "random_circuits"

    def drawn(self, answer, circuit, everything, kind, n, generator):
        found = answer(circuit, everything, kind, n, generator)
        expect(
            isinstance(found, list | tuple) and len(found) == n, "There are not as many circuits as asked for.",
            actual="n", returned=f"{len(found) if isinstance(found, list | tuple) else type(found).__name__}",
        )  # fmt: skip
        for one in found:
            expect(isinstance(one, set | frozenset), "A circuit is a set of parts.", actual=type(one).__name__)
            expect(one <= set(everything), "There are parts that the model has not.", actual="strangers")
        return found

    def test_kinds(self, answer, rng):
        "as many parts of each kind as the circuit has, each once"
        numbers = list(range(20))
        for circuit, everything, kind in (
            (list(EDGES[:4]), list(EDGES), receiver),
            ([0, 1, 2, 5, 8, 19], numbers, lambda part: part % 3),
            ([4, 7], numbers, lambda part: None),
        ):
            wanted = sorted(str(kind(part)) for part in circuit)
            drawn = self.drawn(answer, circuit, everything, kind, 20, rng)
            alike = len(set(map(len, drawn))) == 1
            for one in drawn:
                found = sorted(str(kind(part)) for part in one)
                expect(
                    len(one) == len(circuit), "A random circuit has not as many parts as the circuit.",
                    actual=("size", alike), returned=f"{len(one)} parts", expected=f"{len(circuit)}",
                )  # fmt: skip
                expect(found == wanted, "A random circuit has other kinds of parts than the circuit.", actual="kinds",
                       returned=", ".join(found), expected=", ".join(wanted))  # fmt: skip

    def test_equally_likely(self, answer, rng):
        "within a kind every part equally often, those of the circuit among them, and circuits drawn one by one"
        numbers, n = list(range(12)), 1500
        found = self.drawn(answer, [0, 1, 3, 6], numbers, lambda part: part % 3, n, rng)
        expect(len(set(map(frozenset, found))) > 1, "All circuits are the same one.",
               actual=("one", found[0] == {0, 1, 3, 6}))  # fmt: skip
        n_different = len(set(map(frozenset, found)))
        for kind, number in ((0, 3), (1, 1), (2, 0)):
            for part in numbers[kind::3]:
                share, expected = sum(part in one for one in found) / n, number / 4
                expect(
                    abs(share - expected) < 6 * (max(expected * (1 - expected), 1e-9) / n) ** 0.5,
                    "Some parts of a kind are drawn more often than others.",
                    actual=("frequency", part, round(share, 1), min(n_different, 17)),
                    returned=f"a part in {share:.2f} of the circuits", expected=f"{expected:.2f}",
                )  # fmt: skip
        expect(n_different == 16, "Not every circuit that could come has come.", actual="few")
        same = sum(a == b for a, b in zip(found, found[1:], strict=False)) / (n - 1)
        expect(abs(same - 1 / 16) < 0.04, "A circuit depends on the one drawn before it.", actual="dependent")

    def test_generator(self, answer):
        "the same from a generator in the same state, and others from the next state"
        one, other = (torch.Generator().manual_seed(8) for _ in range(2))
        numbers = list(range(30))
        first, same, later = (
            self.drawn(answer, numbers[:6], numbers, lambda part: part % 2, 5, generator)
            for generator in (one, other, one)
        )
        expect(list(first) == list(same), "From a generator in the same state other circuits come.", actual="other")
        expect(list(first) != list(later), "The generator is not used.", actual="generator")

    def test_ends(self, answer, rng):
        "none drawn, a circuit of everything, and one with parts that the model has not"
        expect_close(list(answer([1, 2], [1, 2, 3], lambda part: None, 0, rng)), [])
        everything = [frozenset([1, 2, 3])] * 2
        expect(self.drawn(answer, [1, 2, 3], [3, 2, 1], lambda part: part > 1, 2, rng) == everything,
               "A circuit of all parts has only itself.", actual="all")  # fmt: skip
        expect_raises(ValueError, answer, [1, 9], [1, 2, 3], lambda part: None, 2, rng)


class TestBootstrapCircuit:
    exercise = "bootstrap_circuit"

    def effects(self, rng, n_prompts, n_parts):
        "Some parts clearly strong, of either sign, others much alike."
        size = torch.linspace(-2, 2, n_parts)[torch.randperm(n_parts, generator=rng)]
        return size + 1.5 * torch.randn(n_prompts, n_parts, generator=rng)

    def test_values(self, answer, reference, rng):
        "how often each part is in, and how much of the circuit stays"
        for n_prompts, n_parts, size in ((9, 14, 5), (30, 6, 2), (4, 11, 8)):
            effects = self.effects(rng, n_prompts, n_parts)
            share, overlap = answer(effects, size, 1500, rng)
            expected = reference(effects, size, 1500, rng)
            expect_shape(share, (n_parts,), note="There is not one share for each part.")
            expect_shape(overlap, (1500,), note="There is not one overlap for each draw.")
            expect_close(share, expected[0], rtol=0, atol=0.12, note="How often parts are in the circuit")
            expect_close(share.sum().item(), float(size), rtol=1e-3, note="A circuit has not its size in every draw")
            expect_close(
                overlap.double().mean().item(), expected[1].double().mean().item(), rtol=0, atol=0.06,
                note="The mean overlap",
            )  # fmt: skip
            possible = torch.tensor([k / (2 * size - k) for k in range(size + 1)])
            expect(
                ((overlap[:, None] - possible).abs().amin(1) < 1e-4).all(),
                "There are overlaps that no Jaccard index of two such circuits can be.", actual="impossible",
                returned=str([round(x, 3) for x in overlap[:5].tolist()]),
            )  # fmt: skip

    def test_nothing_varies(self, answer, rng):
        "effects that are the same on every prompt give the same circuit every time, negative ones included"
        effects = torch.tensor([[0.5, -4.0, 1.0, 3.0, -0.2]]).expand(6, 5)
        share, overlap = answer(effects, 2, 30, rng)
        expect_close(share.float(), torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0]))
        expect_close(overlap.float(), torch.ones(30))

    def test_parts_in_step(self, answer, rng):
        "parts that go up and down together from prompt to prompt: the draw decides nothing between them"
        together = 1 + torch.randn(7, 1, generator=rng)
        effects = together * torch.tensor([0.8, -1.0, 0.6, 0.9, -0.7, 0.5])
        share, overlap = answer(effects, 2, 60, rng)
        expect_close(share.float(), torch.tensor([0.0, 1.0, 0.0, 1.0, 0.0, 0.0]))
        expect_close(overlap.float(), torch.ones(60))

    def test_effects_that_cancel(self, answer, rng):
        "a part that does much in both directions has no mean effect"
        effects = torch.tensor([[9.0, 1.0, 0.0], [-9.0, 1.0, 0.0]]).repeat(200, 1)
        effects = effects + 0.01 * torch.randn(effects.shape, generator=rng)
        share, _ = answer(effects, 1, 100, rng)
        expect(0.7 < share[1] <= 1, "A part whose effects cancel over prompts is taken for a strong one.",
               actual="cancel", returned=str(share.tolist()))  # fmt: skip

    def test_ends(self, answer, rng):
        "a circuit of all parts; one prompt; no such size"
        effects = self.effects(rng, 5, 7)
        share, overlap = answer(effects, 7, 11, rng)
        expect_close([share.float(), overlap.float()], [torch.ones(7), torch.ones(11)])
        share, overlap = answer(effects[:1], 3, 4, rng)
        expect_close(overlap.float(), torch.ones(4), note="With one prompt there is nothing to draw")
        for size in (0, 8):
            expect_raises(ValueError, answer, effects, size, 5, rng)

    def test_generator(self, answer, rng):
        "the same from a generator in the same state, and others from the next state"
        effects = self.effects(rng, 8, 12)
        one, other = (torch.Generator().manual_seed(2) for _ in range(2))
        first, same, later = (answer(effects, 4, 40, generator)[1] for generator in (one, other, one))
        expect_close(first, same, note="From a generator in the same state the draws differ")
        expect(not torch.equal(first, later), "The generator is not used.", actual="generator")
