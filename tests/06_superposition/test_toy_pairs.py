"""Checks for features that come in pairs."""

from pathlib import Path

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.course.paths import load_file

common = load_file(Path(__file__).with_name("common_toy.py"))

MANY = 8000
KINDS = ("apart", "together", "independent")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def draw(answer, rng, p, kinds=KINDS, **further):
    return answer(list(kinds), MANY, p, seeded(int(torch.randint(1_000_000, (), generator=rng))), **further)


class TestSamplePairs:
    exercise = "sample_pairs"

    def test_shapes(self, answer):
        "[model, batch, two features for each pair]"
        for kinds, batch, n_models in ((list(KINDS), 5, 1), (["together"], 1, 3), (["apart", "apart"], 4, 2)):
            expect_shape(answer(kinds, batch, 0.3, seeded(0), n_models), (n_models, batch, 2 * len(kinds)))

    def test_share_on(self, answer, rng):
        "each feature is on with probability p, whatever its kind"
        for p in (0.1, 0.35, 0.5):
            found = draw(answer, rng, p)
            expect_shape(found, (1, MANY, 6))
            common.expect_shares(found, torch.full((1, 6), p), 0.03)

    def test_kinds(self, answer, rng):
        "a pair is on together always, never, or with probability p²"
        p = 0.3
        on = draw(answer, rng, p)[0] != 0
        expect_shape(on, (MANY, 6))
        both = (on[:, 0::2] & on[:, 1::2]).float().mean(0)
        expect(both[0] == 0, "A pair that is 'apart' is on together.", actual="apart, and both on")
        expect(both[1] > 0.15, "A pair that is 'together' is hardly ever on together.", actual="hardly together")
        expect(
            (on[:, 2] == on[:, 3]).float().mean() > 0.999,
            "Of a pair that is 'together' one is on without the other.",
            actual="together",
        )
        expect_close(
            both[2], torch.tensor(p * p), atol=0.02, rtol=0,
            note="An 'independent' pair is not on together with probability p².",
        )  # fmt: skip

    def test_sizes(self, answer, rng):
        "where they are on, sizes are uniform, and partners have their own"
        found = draw(answer, rng, 0.4)[0]
        expect_shape(found, (MANY, 6))
        for i in range(6):
            on = found[:, i][found[:, i] != 0]
            expect(len(on) > 100 and ((on > 0) & (on <= 1)).all(), "A size lies outside 0 to 1.", actual=found)
            shares = torch.stack([(on < x).float().mean() for x in (0.25, 0.5, 0.75)])
            expect_close(
                shares, torch.tensor([0.25, 0.5, 0.75]), atol=0.06, rtol=0,
                note="A quarter, half and three quarters of the sizes should lie below 1/4, 1/2 and 3/4.",
            )  # fmt: skip
        both = found[(found[:, 2:4] != 0).all(1)][:, 2:4].T
        expect(both.shape[1] > 100, "A pair that is 'together' is hardly ever on together.", actual="hardly together")
        expect(
            torch.corrcoef(both)[0, 1].abs() < 0.12,
            "Partners that are on together have sizes that go together.",
            actual="sizes",
        )

    def test_independent_pairs(self, answer, rng):
        "pairs know nothing of each other, and models nothing of other models"
        found = (draw(answer, rng, 0.4, ["together", "together", "apart", "independent"], n_models=2) != 0).double()
        expect_shape(found, (2, MANY, 8))
        firsts = torch.corrcoef(torch.cat([found[0, :, 0::2].T, found[1, :, 0::2].T]))
        within = torch.stack([firsts[:4, :4], firsts[4:, 4:]])[:, ~torch.eye(4, dtype=torch.bool)]
        expect((within.abs() < 0.08).all(), "Features of different pairs go together.", actual="pairs")
        expect((firsts[:4, 4:].abs() < 0.08).all(), "Features of different models go together.", actual="models")

    def test_generator(self, answer):
        "the generator decides"
        first, again, other = (answer(list(KINDS), 8, 0.4, seeded(seed)) for seed in (3, 3, 4))
        expect_close(again, first, note="The same seed gave other features.")
        expect(not torch.equal(first, other), "Another seed gives the same features.", actual="seed ignored")

    def test_global(self, answer):
        "without a generator, torch's global one decides"
        first, again, other = common.from_global(lambda: answer(list(KINDS), 8, 0.4))
        expect_close(again, first, note="At the same seed of torch's global generator, the features are others.")
        expect(
            not torch.equal(first, other),
            "Without a generator you give the same features whatever the seed of torch's global one.",
            actual="always the same",
        )

    def test_often(self, answer, rng):
        "p above 1/2 is fine if no pair is apart"
        found = draw(answer, rng, 0.8, ["together", "independent"])
        expect_shape(found, (1, MANY, 4))
        common.expect_shares(found, torch.full((1, 4), 0.8), 0.03)

    def test_bad_input(self, answer):
        "other kinds, and probabilities that can't be, are refused"
        for kinds, p in (
            (["together", "sometimes"], 0.2),
            (["together"], 1.2),
            (["independent"], -0.1),
            (["independent", "apart"], 0.6),
        ):
            expect_raises(ValueError, answer, kinds, 3, p, seeded(0))
