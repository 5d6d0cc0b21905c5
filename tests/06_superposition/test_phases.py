"""Checks for the phases of small toy models."""

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape


class TestPureLosses:
    exercise = "pure_losses"

    def test_values(self, answer, reference, rng):
        "random probabilities and importances, of several shapes"
        for shape in ((5,), (3, 4), ()):
            p, r = torch.rand(shape, generator=rng), 3 * torch.rand(shape, generator=rng)
            expect_close(answer(p, r), reference(p, r))

    def test_broadcast(self, answer, reference, rng):
        "a column of probabilities and a row of importances make a grid"
        p, r = torch.rand(3, 1, generator=rng), 3 * torch.rand(1, 4, generator=rng)
        found = answer(p, r)
        expect_shape(found, (3, 4, 3), "A grid of 3 probabilities and 4 importances has 3 losses in each cell.")
        expect_close(found, reference(p, r))

    def test_always_on(self, answer):
        "features that are always on: a variance of 1/12, and 1/6 for each of the two errors"
        r = torch.tensor([0.5, 2.0])
        expect_close(answer(torch.ones(2), r), torch.stack([r / 12, torch.full((2,), 1 / 12), (1 + r) / 6], -1))

    def test_never_on(self, answer):
        "features that are never on cost nothing"
        expect_close(answer(torch.zeros(2), torch.tensor([0.5, 2.0])), torch.zeros(2, 3))


class TestAnalyticBoundary:
    exercise = "analytic_boundary"

    def test_values(self, answer, reference, rng):
        "random probabilities"
        for shape in ((7,), (2, 3)):
            p = 0.01 + 0.54 * torch.rand(shape, generator=rng)
            expect_close(answer(p), reference(p), rtol=1e-4)

    def test_both_losses_are_equal_there(self, answer, rng):
        "on the borders two of the solutions cost the same"
        p = (0.02 + 0.5 * torch.rand(6, generator=rng)).double()
        lower, upper = answer(p)
        variance = p / 3 - p**2 / 4
        shared = p**2 / 6
        expect_close(lower * variance, (1 + lower) * shared, note="At your lower border the losses of ignoring and "
                     "sharing differ.", rtol=1e-4)  # fmt: skip
        expect_close(variance, (1 + upper) * shared, note="At your upper border the losses of dedicating and sharing "
                     "differ.", rtol=1e-4)  # fmt: skip

    def test_where_sharing_never_pays(self, answer, rng):
        "both borders are 1 for features that are on too often, beside others in one tensor"
        p = torch.tensor([0.3, 0.6, 0.75, 0.85, 0.95, 1.0])
        lower, upper = answer(p)
        expect_close(lower[1:], torch.ones(5))
        expect_close(upper[1:], torch.ones(5))
        expect_close(lower[0], torch.tensor(0.24), rtol=1e-4)

    def test_bad_input(self, answer):
        "0, negative numbers and numbers above 1 are refused, wherever they stand"
        for p in ([0.5, 0.0], [-0.1, 0.5], [0.5, 1.1]):
            expect_raises(ValueError, answer, torch.tensor(p))


def columns(*rows):
    """One model whose features' directions are the rows."""
    return torch.tensor(rows).T[None]


class TestClassifyPhase:
    exercise = "classify_phase"

    def test_known_weights(self, answer):
        "not represented, dedicated, and antipodal pairs of equal and unequal lengths"
        W = torch.tensor([[[1.0, 0.02]], [[0.1, 1.0]], [[1.0, -1.0]], [[0.9, -0.6]], [[0.6, -1.1]], [[1.0, -0.4]]])
        expect_close(answer(W), torch.tensor([0, 1, 2, 2, 2, 0]))

    def test_of_any_feature(self, answer):
        "the feature that is asked about, counted from either end"
        W = columns([1.0, 0.0], [0.0, 0.9], [0.0, -0.8], [0.1, 0.1])
        for feature, phase in ((0, 1), (1, 2), (2, 2), (3, 0), (-4, 1), (-2, 2)):
            expect_close(answer(W, feature), torch.tensor([phase]))

    def test_many_small_overlaps(self, answer):
        "what lies on the direction adds up in squares, over all other columns"
        models = []
        overlaps = ((0.3, -0.3, 0.3), (0.4, 0.4, -0.2), (0.2, 0.2, -0.2), (-0.6, 0, 0), (0.6, 0.6, 0.6))
        for shares, length in zip(overlaps, (1.2, 1.2, 1.2, 0.8, 0.3), strict=True):
            rest = torch.eye(4)[:3] * 0.9
            rest[:, 3] = torch.tensor(shares)  # three columns that reach more or less into the last dimension
            models.append(torch.cat([rest, torch.tensor([[0.0, 0.0, 0.0, length]])]).T)
        expect_close(answer(torch.stack(models)), torch.tensor([2, 2, 1, 2, 0]))

    def test_threshold(self, answer):
        "another threshold, for the length and for the overlap"
        W = torch.tensor([[[0.6, 0.7]], [[0.2, 0.9]], [[0.75, -0.85]]])
        for threshold, phases in ((0.5, [2, 1, 2]), (0.8, [0, 1, 1]), (0.1, [2, 2, 2])):
            expect_close(answer(W, threshold=threshold), torch.tensor(phases))

    def test_at_the_threshold(self, answer):
        "a length or an overlap of exactly the threshold counts"
        W = torch.tensor([[[0.25, 0.5]], [[0.5, 1.0]], [[0.5, -0.5]], [[0.1, 0.6]]])  # 0.5 is exact
        expect_close(answer(W), torch.tensor([1, 2, 2, 1]))

    def test_length_does_not_scale_the_overlap(self, answer):
        "a long direction is not shared because it is long, nor a short one dedicated because it is short"
        W = torch.stack([columns([0.2, 0.9], [3.0, 0.0])[0], columns([0.7, 0.7], [0.55, 0.0])[0]])
        expect_close(answer(W), torch.tensor([1, 2]))

    def test_zero(self, answer):
        "a column of zeros is not represented"
        expect_close(answer(columns([1.0, 0.0], [0.0, 0.0])), torch.tensor([0]))

    def test_values(self, answer, reference, rng):
        "random weights of several sizes"
        for sizes in ((9, 1, 2), (7, 3, 5), (1, 2, 4), (4, 2, 1)):
            W = torch.randn(sizes, generator=rng)
            expect_close(answer(W), reference(W))


WEIGHTS = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]], [[1.0, -1.0]]])


def pretended(rng, calls):
    """A ``train`` that knows what to do, but in three of four starts ends in another phase, with a larger loss."""

    def train(p, importance):
        calls.append((p, importance))
        expect_shape(p, (len(importance),), "`train` takes one probability for each model.")
        right = (7 * p + 3 * importance[:, -1]).round().long() % 3
        lucky = torch.zeros(len(p), dtype=torch.bool)
        n_starts = max(1, int((((p[:, None] == p) & (importance[:, None] == importance).all(-1)).sum(1))[0]))
        for i in range(len(p)):
            same = ((p == p[i]) & (importance == importance[i]).all(-1)).nonzero().flatten()
            lucky[same[int((1000 * p[i] + 100 * importance[i, -1]).item()) % n_starts]] = True
        phase = torch.where(lucky, right, (right + 1) % 3)
        loss = torch.rand(len(p), generator=rng) + torch.where(lucky, -2.0, 2.0)
        pairs = WEIGHTS[phase]
        rest = importance.shape[1] - 2
        W = torch.zeros(len(p), 1 + rest, importance.shape[1])
        W[:, 0, [0, -1]] = pairs[:, 0]
        for j in range(rest):
            W[:, 1 + j, 1 + j] = 1.0
        return W, loss

    return train


def expected_phases(p, r):
    return (7 * p[:, None] + 3 * r[None]).round().long() % 3


class TestPhaseDiagram:
    exercise = "phase_diagram"

    def grid(self, rng, n_p, n_r):
        return 0.05 + 0.9 * torch.rand(n_p, generator=rng), 0.2 + 3 * torch.rand(n_r, generator=rng)

    def test_every_cell(self, answer, rng):
        "rows are probabilities, columns are importances"
        for n_p, n_r in ((3, 5), (4, 1), (1, 6)):
            p, r = self.grid(rng, n_p, n_r)
            expect_close(answer(pretended(rng, []), p, r), expected_phases(p, r))

    def test_best_start(self, answer, rng):
        "of several starts the one with the lowest loss counts, wherever it stands"
        for n_starts in (2, 4, 5):
            p, r = self.grid(rng, 3, 4)
            expect_close(answer(pretended(rng, []), p, r, n_starts=n_starts), expected_phases(p, r))

    def test_more_features(self, answer, rng):
        "with more features the others have importance 1, and the last one is asked about"
        p, r = self.grid(rng, 2, 3)
        calls = []
        expect_close(answer(pretended(rng, calls), p, r, n_features=4, n_starts=3), expected_phases(p, r))
        importance = calls[-1][1]
        expect(
            importance.shape[1] == 4 and bool((importance[:, :-1] == 1).all()),
            "All features but the last have importance 1.", actual=importance[0],
        )  # fmt: skip

    def test_one_call(self, answer, rng):
        "all cells and starts are trained in one call"
        p, r = self.grid(rng, 3, 2)
        calls = []
        answer(pretended(rng, calls), p, r, n_starts=2)
        expect(len(calls) == 1, "`train` should be called once, with all models.", actual=f"{len(calls)} calls")
        expect(
            len(calls[0][0]) == 12, "3 probabilities, 2 importances and 2 starts make 12 models.",
            actual=f"{len(calls[0][0])} models",
        )  # fmt: skip
