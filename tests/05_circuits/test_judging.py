"""Checks for the four tests of a circuit, on random functions of sets of parts."""

from pathlib import Path

import torch

from utils.course.checking import expect, expect_close, expect_raises
from utils.course.paths import load_file

common = load_file(Path(__file__).with_name("common_05d.py"))
EDGES, SetFunction, mean_of = common.EDGES, common.SetFunction, common.mean_of
LETTERS = "abcdef"


def configurations(rng):
    """A score, a circuit and everything: edges and letters, many prompts and one, either sign."""
    yield SetFunction(rng, EDGES, 5), list(EDGES[:4]), list(EDGES)
    yield SetFunction(rng, LETTERS, 3, sign=-1.0), list("fbd"), list(LETTERS)
    yield SetFunction(rng, "xyz", 1), list("zx"), list("zyx")


class TestCircuitFaithfulness:
    exercise = "circuit_faithfulness"

    def test_values(self, answer, reference, rng):
        "the share and the gap, of means over prompts"
        for score, circuit, everything in configurations(rng):
            share, gap = answer(score, circuit, everything)
            expected = reference(score, circuit, everything)
            expect_close(share, expected[0], note="The share differs", rtol=1e-4, atol=1e-5)
            expect_close(gap, expected[1], note="The gap differs", rtol=1e-4, atol=1e-5)

    def test_ends(self, answer, rng):
        "the whole model has share 1 and gap 0, nothing has share 0"
        for score, _, everything in configurations(rng):
            expect_close(list(answer(score, everything, everything)), [1.0, 0.0], atol=1e-5)
            whole, nothing = mean_of(score, everything), mean_of(score, ())
            expect_close(list(answer(score, [], everything)), [0.0, abs(whole - nothing)], rtol=1e-4, atol=1e-5)

    def test_outside(self, answer):
        "a circuit that does more than the model, and one that does the opposite"
        values = {"": 1.0, "a": -2.0, "b": 7.0, "ab": 5.0}

        def score(parts):
            return torch.tensor([values["".join(sorted(parts))], 0.0])

        expect_close(list(answer(score, ["b"], ["a", "b"])), [1.5, 1.0])
        expect_close(list(answer(score, ["a"], ["a", "b"])), [-0.75, 3.5])

    def test_errors_that_cancel(self, answer):
        "too much on one prompt, as much too little on another: the gap is one of means"
        values = {"": [0.0, 1.0], "a": [3.5, 0.5], "ab": [1.0, 3.0]}

        def score(parts):
            return torch.tensor(values["".join(sorted(parts))])

        expect_close(list(answer(score, ["a"], ["a", "b"])), [1.0, 0.0], note="The circuit's mean is the model's")

    def test_bad_input(self, answer, rng):
        "parts that the model has not, and a model that does what nothing does, are refused"
        score = SetFunction(rng, LETTERS, 3)
        expect_raises(ValueError, answer, score, ["a", "q"], list(LETTERS))
        expect_raises(ValueError, answer, lambda parts: torch.tensor([float(len(parts) == 1), 2.0]), ["a"], ["a", "b"])


class TestCircuitCompleteness:
    exercise = "circuit_completeness"

    def test_values(self, answer, reference, rng):
        "which parts the greedy search takes out, and the incompleteness after each"
        for score, circuit, everything in configurations(rng):
            for steps in (1, len(circuit) - 1):
                removed, gaps = answer(score, circuit, everything, steps)
                expected = reference(score, circuit, everything, steps)
                expect_close(list(removed), expected[0], note="The parts taken out differ")
                expect_close(list(gaps), expected[1], note="The incompleteness differs", rtol=1e-4, atol=1e-5)

    def test_ends(self, answer, rng):
        "no step: the gap of the circuit itself; all steps: what the model does without its circuit"
        for score, circuit, everything in configurations(rng):
            removed, gaps = answer(score, circuit, everything, 0)
            expect(len(removed) == 0 and len(gaps) == 1, "Without a step there is one gap, and nothing taken out.",
                   actual="steps 0", returned=f"{removed!r}, {gaps!r}"[:200])  # fmt: skip
            whole, kept = mean_of(score, everything), mean_of(score, circuit)
            expect_close(gaps[0], abs(kept - whole), rtol=1e-4, atol=1e-5)
            removed, gaps = answer(score, circuit, everything, len(circuit))
            rest = mean_of(score, set(everything) - set(circuit))
            expect(len(gaps) == len(circuit) + 1, "There is not one gap for each step, and one for none.",
                   actual="gaps", returned=f"{len(gaps)} gaps")  # fmt: skip
            expect_close(gaps[-1], abs(mean_of(score, ()) - rest), rtol=1e-4, atol=1e-5)

    def test_a_backup_outside(self, answer):
        "a circuit that leaves out a backup: complete at first sight, and not without the part that it backs up"

        def score(parts):
            return torch.tensor([1.0, 3.0]) * (("m" in parts) and ("a" in parts or "b" in parts))

        removed, gaps = answer(score, ["m", "a"], ["a", "b", "m", "x"], 2)
        expect_close([list(removed), list(gaps)], [["a", "m"], [0.0, 2.0, 0.0]])

    def test_measured_anew(self, answer):
        "which part opens the gap most depends on what is gone already"
        apart = {"": 0.0, "a": 3.0, "b": 2.0, "c": -1.0, "ab": 0.5, "ac": -5.0, "bc": 1.0, "abc": 0.0}

        def score(parts):
            return torch.tensor([0.0 if "x" in parts else apart["".join(sorted({*"abc"} - parts))], 0.0])

        removed, gaps = answer(score, ["b", "a", "c"], ["a", "b", "c", "x"], 2)
        expect_close([list(removed), list(gaps)], [["a", "c"], [0.0, 1.5, 2.5]])

    def test_ties(self, answer):
        "of several parts that do equally well, the first in the circuit's order"

        def score(parts):
            return torch.tensor([float(len(parts)), 1.0])

        removed, _ = answer(score, ["d", "b", "a"], ["a", "b", "c", "d"], 3)
        expect_close(list(removed), ["d", "b", "a"], note="All parts do equally well here")

    def test_bad_input(self, answer, rng):
        "parts that the model has not, fewer than no steps, or more than the circuit has parts, are refused"
        score = SetFunction(rng, LETTERS, 3)
        expect_raises(ValueError, answer, score, ["a", "q"], list(LETTERS), 1)
        for steps in (-1, 3):
            expect_raises(ValueError, answer, score, ["a", "c"], list(LETTERS), steps)


class TestCircuitMinimality:
    exercise = "circuit_minimality"

    def test_values(self, answer, reference, rng):
        "for each part the difference it makes at its best, and without what"
        for score, circuit, _ in configurations(rng):
            for largest in (2, 1, 0):
                found, expected = answer(score, circuit, largest), reference(score, circuit, largest)
                expect_close(list(found), list(expected), note="The parts are not those of the circuit, in its order")
                expect(
                    all(len(pair) == 2 for pair in found.values()),
                    "For each part there are to be K and the difference.",
                    actual="not a pair", returned=repr(found)[:200],
                )  # fmt: skip
                differences = [[float(value) for _, value in pairs.values()] for pairs in (found, expected)]
                one, other = map(torch.tensor, differences)
                expect(
                    torch.allclose(one, other, rtol=1e-4, atol=1e-5), "The differences that the parts make differ.",
                    actual=[f"{value:.3g}" for value in differences[0]],
                    expected=", ".join(f"{value:.3g}" for value in differences[1]),
                )  # fmt: skip
                for part, (chosen, _) in expected.items():
                    expect(
                        set(found[part][0]) == set(chosen), "The set K is not the one with the largest difference.",
                        actual="K", returned=f"{part!r}: {sorted(map(str, found[part][0]))}",
                        expected=f"{sorted(map(str, chosen))}",
                    )  # fmt: skip

    def test_a_spare_part(self, answer):
        "two parts of which either will do: neither matters unless the other is gone"

        def score(parts):
            return torch.tensor([2.0, 4.0]) * ("a" in parts or "b" in parts)

        alone = answer(score, ["a", "b", "c"], 0)
        expect_close([float(alone[part][1]) for part in "abc"], [0.0, 0.0, 0.0])
        found = answer(score, ["a", "b", "c"], 1)
        expect_close([float(found[part][1]) for part in "abc"], [3.0, 3.0, 0.0])
        expect_close([sorted(found[part][0]) for part in "abc"], [["b"], ["a"], []])

    def test_two_spare_parts(self, answer):
        "three parts of which any will do: each matters where both others are gone, and a single step shows nothing"

        def score(parts):
            return torch.tensor([2.0, 4.0]) * any(part in parts for part in "abc")

        found = answer(score, ["d", "a", "b", "c"], 2)
        expect_close([float(found[part][1]) for part in "dabc"], [0.0, 3.0, 3.0, 3.0])
        expect_close([sorted(found[part][0]) for part in "dabc"], [[], ["b", "c"], ["a", "c"], ["a", "b"]])

    def test_sizes(self, answer, rng):
        "K may be as large as all other parts together, and not larger"
        score = SetFunction(rng, "xyz", 4)
        for largest in (2, 5):
            found = answer(score, ["x", "z"], largest)
            expect(all(len(found[part][0]) <= 1 for part in "xz"), "K has more parts than there are others.",
                   actual="too many")  # fmt: skip
        expect_raises(ValueError, answer, score, ["x", "z"], -1)


def widths_of(score, circuit, everything, draws):
    """How wide the interval is as it was asked for, and as some mistakes make it; of 20,000 draws of our own."""
    generator = torch.Generator().manual_seed(0)
    whole, kept, nothing = (score(parts).double() for parts in (everything, circuit, ()))
    above, below, n = kept - nothing, whole - nothing, len(whole)
    drawn, again = (torch.randint(n, (20_000, n), generator=generator) for _ in range(2))
    shares = above[drawn].mean(1) / below[drawn].mean(1)

    def reach(values, outside):
        low, high = torch.quantile(values, torch.tensor([outside, 1 - outside], dtype=torch.float64)).tolist()
        return high - low

    return {
        "as asked": reach(shares, 0.025),
        "90 %": reach(shares, 0.05),
        "half": reach(shares, 0.25),
        "half the prompts": reach(above[drawn[:, : n // 2]].mean(1) / below[drawn[:, : n // 2]].mean(1), 0.025),
        "drawn apart": reach(above[drawn].mean(1) / below[again].mean(1), 0.025),
        "model held fixed": reach((kept[drawn].mean(1) - nothing.mean()) / below.mean(), 0.025),
        "standard error of the draws": 3.92 * shares.std().item() / draws**0.5,
    }


class TestCircuitGeneralization:
    exercise = "circuit_generalization"

    def scores(self, rng):
        sizes = {"same": 30, "other names": 13, "passive": 8}
        return {
            kind: SetFunction(rng, LETTERS, n, sign=-1.0 if kind == "passive" else 1.0) for kind, n in sizes.items()
        }

    def test_shares(self, answer, reference, rng):
        "the share on each kind of prompts, kind by kind in their order"
        for letters in ("abc", "ef"):
            scores = self.scores(rng)
            found = answer(scores, list(letters), list(LETTERS), rng, 50)
            expected = reference(scores, list(letters), list(LETTERS), rng, 50)
            expect_close(list(found), list(expected), note="The kinds differ")
            for kind, (share, _, _) in expected.items():
                expect_close(float(found[kind][0]), share, rtol=1e-3, atol=1e-4, note=f"The share on {kind!r}")

    def test_intervals(self, answer, rng):
        "as wide as the shares of prompts drawn anew"
        for letters, n in (("abcd", 40), ("bf", 25)):
            score = SetFunction(rng, LETTERS, n)
            for weight in score.weights.values():
                weight += 0.4  # far from 0, so that the ratio behaves
            found = answer({"kind": score}, list(letters), list(LETTERS), rng, 4000)["kind"]
            width, widths = found[2] - found[1], widths_of(score, letters, LETTERS, 4000)
            like = [name for name, other in widths.items() if abs(width / other - 1) < 0.06]
            expect(
                abs(width / widths["as asked"] - 1) < 0.08,
                "The interval has another width than that of the shares of prompts drawn anew.",
                actual="no width" if width < 1e-3 * widths["as asked"] else like or width,
                returned=f"{width:.3g}", expected=f"about {widths['as asked']:.3g}",
            )  # fmt: skip
            expect(found[1] < found[0] < found[2], "The share lies outside its interval.", actual="outside")

    def test_in_step(self, answer, rng):
        "if the circuit does the same share on every prompt, there is nothing to be uncertain about"
        whole, nothing = 5 + torch.randn(20, generator=rng), torch.randn(20, generator=rng)

        def score(parts):
            return nothing + (len(parts) / 4) * (whole - nothing)

        for kept in ("abc", "a"):
            found = answer({"one": score}, list(kept), list("abcd"), rng, 200)["one"]
            expect_close(
                [float(x) for x in found], [len(kept) / 4] * 3, atol=1e-4, note="Every prompt has the same share"
            )

    def test_draws(self, answer, rng):
        "one draw gives an interval of one point; a single prompt, too"
        score = SetFunction(rng, LETTERS, 9)
        _, low, high = answer({"k": score}, ["a", "b"], list(LETTERS), rng, 1)["k"]
        expect_close(float(low), float(high), note="A single draw has one share")
        found = answer({"k": SetFunction(rng, LETTERS, 1)}, ["a", "b"], list(LETTERS), rng, 10)["k"]
        expect_close([float(x) for x in found], [float(found[0])] * 3, rtol=1e-4, note="There is only one prompt")

    def test_generator(self, answer, rng):
        "the same from a generator in the same state, and something else from the next state"
        score = SetFunction(rng, LETTERS, 9)
        one, other = (torch.Generator().manual_seed(4) for _ in range(2))
        first, same, later = (
            tuple(answer({"k": score}, ["a", "b"], list(LETTERS), generator, 40)["k"])
            for generator in (one, other, one)
        )
        expect(first == same, "From a generator in the same state the interval differs.", actual="not the same")
        expect(first[1:] != later[1:], "The generator is not used.", actual="generator")
