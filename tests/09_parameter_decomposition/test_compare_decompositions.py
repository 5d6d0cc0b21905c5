"""Checks for the comparison of decompositions."""

import torch

from utils.course.checking import expect, expect_close
from utils.spd.compare import Parts

SIZES = ((60, 12, 5), (7, 5, 3), (4, 2, 6), (9, 6, 2))  # inputs, parts, d


class TestStrongestParts:
    exercise = "strongest_parts"

    def test_values(self, answer, rng):
        "random coefficients of both signs, directions of several lengths, several k"
        for n, n_parts, d in SIZES:
            coefficients = torch.randn(n, n_parts, generator=rng)
            directions = torch.randn(n_parts, d, generator=rng) * (0.1 + 3 * torch.rand(n_parts, 1, generator=rng))
            size = coefficients.abs() * directions.norm(dim=1)
            for k in {1, 2, n_parts}:
                found = answer(coefficients, directions, k)
                rank = (size[:, :, None] < size[:, None, :]).sum(dim=2)
                expect(found.dtype == torch.bool, "True and False are asked for.", actual=str(found.dtype))
                expect_close(found, rank < k)

    def test_exactly_k(self, answer, rng):
        "exactly k, also where several are equal"
        found = answer(torch.zeros(4, 6), torch.randn(6, 3, generator=rng), 3)
        expect(
            (found.sum(dim=1) == 3).all(), "There are not k in each row.", actual=("not k", *found.sum(dim=1).tolist())
        )


class TestCompareDecompositions:
    exercise = "compare_decompositions"

    def given(self, rng, n, d):
        y = torch.randn(n, d, generator=rng) + torch.randn(d, generator=rng)
        decompositions = {}
        for name, n_parts in (("one", 6), ("two", 3), ("three", 1)):
            decompositions[name] = Parts(
                torch.randn(n, n_parts, generator=rng),
                torch.randn(n_parts, d, generator=rng),
                torch.randn(d, generator=rng),
                torch.rand(n, n_parts, generator=rng) < 0.5,
            )
        read = torch.randn(d, generator=rng)
        return y, decompositions, lambda other: ((other - y) @ read).abs().mean().item() + 0.1

    def test_values(self, answer, reference, rng):
        "three decompositions with different numbers of parts"
        for n, d in ((8, 4), (5, 7)):
            given = self.given(rng, n, d)
            seed = int(torch.randint(10_000, (), generator=rng))
            found = answer(*given, torch.Generator().manual_seed(seed))
            wanted = reference(*given, torch.Generator().manual_seed(seed))
            keys = {name: set(row) for name, row in wanted.items()}
            expect(
                isinstance(found, dict) and {name: set(row) for name, row in found.items()} == keys,
                "A dict for each name is asked for, with the six keys of the docstring.",
                actual="keys",
            )
            for name, row in wanted.items():
                for key, value in row.items():
                    expect_close(
                        float(found[name][key]),
                        float(value),
                        rtol=1e-3,
                        atol=1e-5,
                        note=f"This is {key!r} of {name!r}.",
                    )

    def test_never_needed(self, answer, rng):
        "parts that no input needs are not alive"
        y, decompositions, cost = self.given(rng, 6, 3)
        parts = decompositions["one"]
        needed = torch.zeros(6, 6, dtype=torch.bool)
        needed[2, 1] = needed[4, 1] = needed[3, 5] = True
        found = answer(y, {"one": parts._replace(needed=needed)}, cost, torch.Generator())["one"]
        expect_close([float(found["parts"]), float(found["alive"]), float(found["needed"])], [6.0, 2.0, 0.5])
