"""Checks for the prompts about gifts and their corruptions."""

from pathlib import Path

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.course.paths import load_file

common = load_file(Path(__file__).with_name("common_ioi.py"))
CASTS = {
    "clean": "ABB",
    "giver swapped": "ABA",
    "names swapped": "BAA",
    "said once": "AXB",
    "ABC": "ABX",
    "random names": "XYZ",
}
PLACES = ("IO", "S1", "S2")


class TestIoiDataset:
    exercise = "ioi_dataset"

    def made(self, answer, rng, n=12, lengths=(8, 10, 9), names=common.NAMES):
        """Templates, and the answer's prompts and positions, of the right kind and shape."""
        templates = common.templates(rng, lengths)
        prompts, at = answer(templates, names, n, rng)
        for found, keys, what in ((prompts, CASTS, "prompts"), (at, (*PLACES, "END"), "positions")):
            expect(
                isinstance(found, dict) and set(found) == set(keys), f"The {what} stand under other names.",
                actual=what, returned=f"{sorted(found) if isinstance(found, dict) else type(found).__name__}",
                expected=f"{sorted(keys)}",
            )  # fmt: skip
        longest = max(len(templates[(i // 2) % len(templates)]) for i in range(n))
        for name in CASTS:
            expect_shape(prompts[name], (n, longest), note=f"The prompts {name!r} have another shape.")
        for name in at:
            expect_shape(at[name], (n,), note="There is not one position for each row.")
        return templates, prompts, at

    def test_positions(self, answer, rng):
        "rows 0, 2, … name IO first, rows 1, 3, … S; each template serves two rows in turn; END is a row's last word"
        for n, lengths in ((12, (8, 10, 9)), (5, (7,)), (1, (9, 8))):
            templates, _, at = self.made(answer, rng, n, lengths)
            wanted = {name: [] for name in (*PLACES, "END")}
            for i in range(n):
                row = templates[(i // 2) % len(templates)].tolist()
                first, second = row.index(-1), row.index(-2)
                places = *((first, second) if i % 2 == 0 else (second, first)), row.index(-3), len(row) - 1
                for name, place in zip(wanted, places, strict=True):
                    wanted[name].append(place)
            found = {name: at[name].tolist() for name in wanted}
            wrong = next((name for name in wanted if found[name] != wanted[name]), None)
            expect(
                wrong is None, f"The positions of {wrong} are other ones.", actual=tuple(map(tuple, found.values())),
                returned=f"{wrong}: {found.get(wrong)}", expected=f"{wrong}: {wanted.get(wrong)}",
            )  # fmt: skip

    def test_words(self, answer, rng):
        "the other words are the template's, in all six; behind END stands its first token"
        for n, lengths in ((12, (8, 10, 9)), (3, (9, 7))):
            templates, prompts, at = self.made(answer, rng, n, lengths)
            for name, tokens in prompts.items():
                for i, row in enumerate(tokens.tolist()):
                    template = templates[(i // 2) % len(templates)].tolist()
                    template += template[:1] * (len(row) - len(template))
                    places = {int(at[place][i]) for place in PLACES}
                    rest = [(x, y) for j, (x, y) in enumerate(zip(row, template, strict=True)) if j not in places]
                    expect(
                        all(x == y for x, y in rest), f"In {name!r} a row has other words than its template.",
                        actual=("words", name), returned=f"{row}", expected=f"{template} with names",
                    )  # fmt: skip

    def test_casts(self, answer, rng):
        "who stands in the three places of each of the six"
        _, prompts, at = self.made(answer, rng, 40)
        rows = torch.arange(40)
        said = {name: torch.stack([tokens[rows, at[place]] for place in PLACES]) for name, tokens in prompts.items()}
        known = {letter: said["clean"][i] for letter, i in (("A", 0), ("B", 1))}
        for name, cast in CASTS.items():
            for i, letter in enumerate(cast):
                if letter in known:
                    same, who = said[name][i] == known[letter], "IO" if letter == "A" else "S"
                    expect(
                        same.all(), f"In {name!r} {who} does not stand in the place of {PLACES[i]}.",
                        actual=("place", name, i), returned=f"{said[name][i][:4].tolist()}",
                        expected=f"{known[letter][:4].tolist()}",
                    )  # fmt: skip
            strangers = [said[name][i] for i, letter in enumerate(cast) if letter not in known]
            for stranger in strangers:
                expect(
                    not bool(((stranger == known["A"]) | (stranger == known["B"])).any()),
                    f"In {name!r} somebody who should be new is IO or S of the same row.", actual=("not new", name),
                )  # fmt: skip
        x, y, z = said["random names"]
        alike = bool(((x == y) | (y == z) | (x == z)).any())
        expect(not alike, "In 'random names' one of the three people is said twice.", actual="said twice")
        third = bool((said["said once"][1] == x).all() and (said["ABC"][2] == x).all())
        expect(
            third, "X is not the same person in 'said once', in 'ABC' and in IO's place of 'random names'.", actual="X"
        )
        expect(bool((known["A"] != known["B"]).all()), "IO and S are the same person in some row.", actual="IO is S")

    def test_draws(self, answer, rng):
        "every name is drawn as often as any other, for each row anew, by the generator alone"
        n, names = 600, common.NAMES[:7]
        templates = common.templates(rng, (8,))
        first, second = (answer(templates, names, n, torch.Generator().manual_seed(seed)) for seed in (3, 3))
        expect_close(second[0], first[0], note="The same seed gives other prompts")
        prompts, at = first
        rows = torch.arange(n)
        seen = {
            "IO": prompts["clean"][rows, at["IO"]], "S": prompts["clean"][rows, at["S2"]],
            "X": prompts["ABC"][rows, at["S2"]], "Z": prompts["random names"][rows, at["S2"]],
        }  # fmt: skip
        for who, ids in seen.items():
            counts = [(ids == name).sum().item() for name in names]
            expect(
                sum(counts) == n and min(counts) > n / 7 / 2 and max(counts) < 2 * n / 7,
                f"{who} is not drawn evenly from the names.", actual=("uneven", who), returned=f"{counts} of {n}",
                expected=f"about {n // 7} each",
            )  # fmt: skip
        pairs = {(a, b) for a, b in zip(seen["IO"].tolist(), seen["S"].tolist(), strict=True)}
        expect(len(pairs) == 42, "Not every pair of names occurs.", actual="pairs", returned=f"{len(pairs)} of 42")

    def test_bad_input(self, answer, rng):
        "no template, a template without its three places, four names, no rows"
        good, generator = common.templates(rng), torch.Generator()
        twice = good[0].clone()
        twice[twice == -2] = -1
        for templates, names, n in (
            ([], common.NAMES, 3), ([good[1], twice], common.NAMES, 3), (good, common.NAMES[:4], 3),
            (good, common.NAMES, 0), ([good[0], common.WORDS], common.NAMES, 3),
        ):  # fmt: skip
            expect_raises(ValueError, answer, templates, names, n, generator)
