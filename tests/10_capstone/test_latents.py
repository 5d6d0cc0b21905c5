"""Checks for matching latents with a feature."""

import torch
from sklearn.metrics import roc_auc_score

from utils.course.checking import expect, expect_close, expect_raises, expect_shape


def planted(rng, n_units=5, each=8, n_latents=7, d=6):
    """Latents of which one goes with the label and another has its direction; units shift all latents."""
    units = torch.arange(n_units).repeat_interleave(each)
    labels = (torch.arange(each) % 2 == 0).repeat(n_units)
    order = torch.randperm(len(units), generator=rng)
    units, labels = units[order], labels[order]
    z = torch.randn(len(units), n_latents, generator=rng).relu()
    by_data, by_cosine = torch.randperm(n_latents, generator=rng)[:2].tolist()
    z[:, by_data] = 1 + 3 * labels + torch.rand(len(units), generator=rng)
    direction = torch.randn(d, generator=rng)
    W_dec = (0.3 + 4 * torch.rand(n_latents, 1, generator=rng)) * torch.randn(n_latents, d, generator=rng)
    W_dec[by_cosine] = 0.2 * direction + 0.01 * torch.randn(d, generator=rng)
    return (z, labels, units, W_dec, 2.5 * direction), by_data, by_cosine


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


class TestMatchLatents:
    exercise = "match_latents"

    def test_scores(self, answer, rng):
        "the area and the cosine of each latent, with many equal activations among them"
        for sizes in ((5, 8, 7, 6), (2, 4, 3, 5)):
            given, by_data, by_cosine = planted(rng, *sizes)
            z, labels, _, W_dec, direction = given
            found = answer(*given, 3, seeded())
            keys = {"auroc", "by_data", "p_data", "cosine", "by_cosine", "p_cosine"}
            expect(set(found) == keys, "The result has other keys.", actual=sorted(found), expected=str(sorted(keys)))
            areas = torch.tensor([roc_auc_score(labels, column) for column in z.T], dtype=z.dtype)
            expect_shape(found["auroc"], (z.shape[1],))
            expect_close(found["auroc"], areas, atol=1e-5, dtype=True)
            cosines = torch.cosine_similarity(W_dec, direction[None])
            expect_close(found["cosine"], cosines, atol=1e-5, dtype=True)
            expect(
                (int(found["by_data"]), int(found["by_cosine"])) == (areas.argmax().item(), by_cosine),
                "Another latent is the best match.",
                actual=("best", found["by_data"] == areas.argmax(), found["by_cosine"] == by_cosine),
            )

    def test_meaning(self, answer, rng):
        "a planted latent and a planted direction: no draw without meaning comes near"
        given, _, _ = planted(rng, d=40)
        found = answer(*given, 30, seeded(1))
        expect_close([found["p_data"], found["p_cosine"]], [1 / 31, 1 / 31], rtol=1e-4)

    def test_within_units(self, answer, rng):
        "labels are shuffled within units: a latent that goes with the number of labels in a unit is nothing"
        units = torch.arange(8).repeat_interleave(10)
        often = torch.arange(8) % 2 == 0
        labels = torch.cat([torch.arange(10) < (9 if many else 1) for many in often.tolist()])
        z = 0.2 * torch.rand(80, 3, generator=rng)
        z[:, 1] += often[units]  # knows the unit, and nothing of the label within it
        found = answer(z, labels, units, torch.randn(3, 5, generator=rng), torch.randn(5, generator=rng), 60, seeded(2))
        expect(
            found["p_data"] > 0.03,
            "A latent that only knows which unit a text is from counts as a match: shuffle labels within units.",
            actual="across units", returned=f"p_data = {found['p_data']:.3f}",
        )  # fmt: skip

    def test_best_of_many(self, answer, rng):
        "the best of many latents is compared with the best of many, and not with one"
        units = torch.arange(6).repeat_interleave(4)
        labels = (torch.arange(4) % 2 == 0).repeat(6)
        small = 0
        for seed in range(4):
            z, W_dec = torch.rand(24, 400, generator=rng), torch.randn(1000, 4, generator=rng)
            found = answer(z, labels, units, W_dec, torch.randn(4, generator=rng), 40, seeded(seed))
            small += (found["p_data"] < 0.03) + (found["p_cosine"] < 0.03)
        expect(
            small <= 3, "Latents without meaning count as matches.", actual="best against one", returned=f"{small} of 8"
        )

    def test_draws(self, answer, rng):
        "the p-values are counts over n_draws draws, one added above and below; the same seed gives the same"
        units, labels = torch.arange(3).repeat_interleave(4), (torch.arange(4) % 2 == 0).repeat(3)
        z, W_dec, direction = (torch.rand(size, generator=rng) for size in ((12, 4), (4, 5), (5,)))
        for n_draws in (1, 7, 20):
            found = answer(z, labels, units, W_dec, direction - 0.5, n_draws, seeded(3))
            again = answer(z, labels, units, W_dec, direction - 0.5, n_draws, seeded(3))
            for key in ("p_data", "p_cosine"):
                expect_close(found[key], again[key], note="The same seed gives another p-value.")
                count = found[key] * (1 + n_draws)
                expect(
                    abs(count - round(count)) < 1e-3 and 1 <= round(count) <= 1 + n_draws,
                    "A p-value is (1 + a count) / (1 + n_draws).", actual=("count", key),
                    returned=f"{found[key]:.4f} with {n_draws} draws",
                )  # fmt: skip

    def test_equal(self, answer):
        "a draw that is as good counts, and each draw shuffles anew; of equal latents the first is named"
        z, W_dec = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[2.0, 0.0], [2.0, 0.0]])
        labels, direction = torch.tensor([True, False]), torch.tensor([1.0, 0.0])
        found = answer(z, labels, torch.zeros(2, dtype=torch.long), W_dec, direction, 80, seeded(4))
        expect(
            (int(found["by_data"]), int(found["by_cosine"])) == (0, 0), "Of equal latents the first is to be named.",
            actual=("first", int(found["by_data"]), int(found["by_cosine"])),
        )  # fmt: skip
        expect(
            0.2 < found["p_data"] < 0.8, "Of two texts half of all shuffles give the labels as they were.",
            actual=("half", found["p_data"] < 0.5), returned=f"p_data = {found['p_data']:.3f}", expected="near 0.5",
        )  # fmt: skip

    def test_random_directions(self, answer, rng):
        "random directions are normal: of either sign, and nothing of the feature's is left in them"
        sign = torch.ones(40)
        sign[torch.randperm(40, generator=rng)[:4]] = -1
        z, labels = torch.rand(8, 1, generator=rng), torch.arange(8) % 2 == 0
        found = answer(z, labels, torch.zeros(8, dtype=torch.long), torch.ones(1, 40), sign, 30, seeded(5))
        expect(
            found["p_cosine"] < 0.1, "Random directions come as near to a latent as the feature does.",
            actual=("directions", found["p_cosine"]), returned=f"p_cosine = {found['p_cosine']:.3f}",
        )  # fmt: skip

    def test_bad_input(self, answer, rng):
        "a unit with one label only, or no draw"
        z, labels, units, W_dec, direction = planted(rng)[0]
        expect_raises(ValueError, answer, z, labels | (units == 0), units, W_dec, direction, 3, seeded())
        expect_raises(ValueError, answer, z, labels, units, W_dec, direction, 0, seeded())
