"""Checks for splitting and absorption."""

import torch

from utils.course.checking import expect_close
from utils.sae.splitting import tree, tree_samples


def directions(rng, n, d):
    """Directions of lengths between 0.3 and 3."""
    drawn = torch.randn(n, d, generator=rng)
    return drawn / drawn.norm(dim=1, keepdim=True) * (0.3 + 2.7 * torch.rand(n, 1, generator=rng))


class TestFeatureSplitting:
    exercise = "feature_splitting"

    def test_values(self, answer, reference, rng):
        "random directions of several lengths, several thresholds"
        for n_small, n_large, d in ((6, 30, 5), (4, 9, 3), (1, 5, 2), (5, 2, 4)):
            small, large = directions(rng, n_small, d), directions(rng, n_large, d)
            for threshold in (0.5, 0.8, 0.2):
                expect_close(answer(small, large, threshold), reference(small, large, threshold))
            expect_close(answer(small, large), reference(small, large))

    def test_split_and_new(self, answer, rng):
        "a latent that splits in two, one that stays, one that is new, and one that points the opposite way"
        small = torch.eye(5)[:2] * torch.tensor([[2.0], [0.5]])
        near = torch.tensor(
            [[1.0, 0, 0.3, 0, 0], [1, 0, -0.3, 0, 0], [0, 3, 0, 0, 0], [0, 0, 0, 4, 0], [0, -2, 0, 0, 0]]
        )
        order = torch.randperm(5, generator=rng)
        expect_close(answer(small, near[order], 0.7), torch.tensor([0, 0, 1, -1, -1])[order])

    def test_at_the_threshold(self, answer):
        "a cosine equal to the threshold counts"
        expect_close(
            answer(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 2.0], [1.0, 0.0]]), 0.0), torch.tensor([0, 0])
        )


class TestFeatureAbsorption:
    exercise = "feature_absorption"

    def test_values(self, answer, reference, rng):
        "random latents, trees of two shapes, and latents in any order"
        for roots, children, d_sae in ((3, 2, 12), (1, 3, 5), (4, 1, 9)):
            parents = tree(roots, children)
            on = tree_samples(parents, 400, p_root=0.4, p_child=0.3, generator=rng)
            z = torch.relu(torch.randn(400, d_sae, generator=rng))
            latents = torch.randperm(d_sae, generator=rng)[: len(parents)]
            order = torch.randperm(len(parents), generator=rng)  # children may come before their parents
            place = order.argsort()
            renumbered = torch.where(parents[order] < 0, -1, place[parents[order].clamp(min=0)])
            args = (z, on[:, order], latents[order], renumbered)
            expect_close(answer(*args), reference(*args))

    def test_by_hand(self, answer):
        "a parent that misses every row of one child, half of the other's, and a quarter of the rest"
        parents = torch.tensor([-1, 0, 0])
        features = torch.tensor([[1, 1, 0]] * 2 + [[1, 0, 1]] * 2 + [[1, 0, 0]] * 4 + [[0, 0, 0]] * 3).bool()
        z = torch.zeros(11, 4)
        z[:, 3] = torch.tensor([0, 0, 2.0, 0, 1, 1, 0.5, 0, 1, 1, 1])
        found = answer(z, features, torch.tensor([3, 1, 0]), parents)
        expect_close(found, torch.tensor([torch.nan, 0.75, 0.25]))

    def test_small_values_are_on(self, answer):
        "a latent that is above 0, however little, is on"
        features = torch.tensor([[1, 1], [1, 1], [1, 0], [1, 0]]).bool()
        z = torch.tensor([[1e-4, 0.0], [2e-4, 0.0], [3.0, 0.0], [3.0, 0.0]])
        expect_close(answer(z, features, torch.tensor([0, 1]), torch.tensor([-1, 0])), torch.tensor([torch.nan, 0.0]))


def test_samples_are_of_a_tree():
    parents = tree(3, 2)
    on = tree_samples(parents, 20_000, p_root=0.2, p_child=0.3, generator=torch.Generator().manual_seed(0))
    assert parents.tolist() == [-1, -1, -1, 0, 0, 1, 1, 2, 2]
    for child in range(3, 9):
        assert not (on[:, child] & ~on[:, parents[child]]).any()
        assert abs(on[on[:, parents[child]], child].float().mean() - 0.3) < 0.03
    assert abs(on[:, 0].float().mean() - 0.2) < 0.02 and not (on[:, 3] & on[:, 4]).any()
