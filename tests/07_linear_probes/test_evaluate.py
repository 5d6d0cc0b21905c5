"""Checks for accuracy by layer, control tasks and selectivity."""

import torch

from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.probes.fit import Probe, mass_mean_probe


def drawn(rng, sizes, names):
    """Activations at two sites, with labels, and the groups in no order."""
    groups = torch.cat([torch.full((n,), name) for n, name in zip(sizes, names, strict=True)])
    order = torch.randperm(len(groups), generator=rng)
    labels = torch.rand(len(groups), generator=rng) < 0.4
    for name in names:  # both labels in every group, so that no probe is fitted to one alone
        labels[(groups == name).nonzero()[:2, 0]] = torch.tensor([True, False])
    x = {
        site: torch.randn(len(groups), d, generator=rng) + 0.7 * labels[:, None] for site, d in (("wide", 5), ("a", 2))
    }
    return {site: rows[order] for site, rows in x.items()}, labels[order], groups[order]


def half_and_half(n):
    return torch.arange(n) % 2 == 0


class TestProbeByLayer:
    exercise = "probe_by_layer"

    def test_values(self, answer, reference, rng):
        "sites of different width, groups of unequal size in no order"
        for sizes, names in (((14, 9, 20), (7, -2, 3)), ((8, 12, 6, 15), (0, 4, 1, 2)), ((25, 11), (10, 5))):
            x, labels, groups = drawn(rng, sizes, names)
            expect_close(answer(x, labels, groups, mass_mean_probe), reference(x, labels, groups, mass_mean_probe))

    def test_each_site_has_its_probe(self, answer, reference, rng):
        "sites of the same width"
        x, labels, groups = drawn(rng, (14, 9, 20), (1, 2, 3))
        x = {"one": x["wide"], "another": -x["wide"], "a third": x["wide"].flip(1) * torch.tensor([1, -1, 1, -1, 1])}
        expect_close(answer(x, labels, groups, mass_mean_probe), reference(x, labels, groups, mass_mean_probe))

    def test_what_a_probe_is_fitted_to(self, answer, rng):
        "each probe is fitted to all tokens but those of one group"
        sizes, names = (5, 9, 7), (2, 0, 1)
        x, labels, groups = drawn(rng, sizes, names)
        x = {"a": torch.cat([x["a"], groups[:, None].float()], dim=1)}  # the last column tells the group
        seen = []

        def fit(rows, wanted):
            seen.append((tuple(sorted(rows[:, -1].unique().tolist())), len(rows), len(wanted)))
            return Probe(torch.ones(3), torch.tensor(0.0))

        answer(x, labels, groups, fit)
        wanted = [((1.0, 2.0), 12, 12), ((0.0, 2.0), 14, 14), ((0.0, 1.0), 16, 16)]
        expect(
            sorted(seen) == sorted(wanted),
            "The probes should be fitted to the tokens of all groups but one, each time another.",
            actual=sorted(set(seen)),
            returned=f"fitted to groups {', '.join(str(list(groups)) for groups, _, _ in seen)}",
            expected="fitted to groups [1, 2], [0, 2], [0, 1]",
        )

    def test_score_of_zero(self, answer):
        "a score of 0 says that the feature is absent"

        def fit(rows, labels):
            return Probe(torch.zeros(rows.shape[1]), torch.tensor(0.0))

        labels = torch.tensor([True, True, False, True, False, False, False, True, False, False, False, False])
        groups = torch.tensor([0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 2])
        expect_close(answer({"a": torch.ones(12, 2)}, labels, groups, fit), {"a": torch.tensor([1 / 3, 3 / 4, 4 / 5])})

    def test_unseen_label(self, answer):
        "a group that is like no other is a failure, and shows"

        def fit(rows, labels):
            return Probe(rows[labels].mean(0) - rows[~labels].mean(0), torch.tensor(0.0))

        x = torch.tensor([[1.0], [-1.0], [2.0], [-2.0], [-0.3], [0.3]])
        labels = half_and_half(6)
        expect_close(
            answer({"a": x}, labels, torch.tensor([4, 4, 6, 6, 5, 5]), fit), {"a": torch.tensor([1.0, 0.0, 1.0])}
        )

    def test_order_of_sites(self, answer, rng):
        "the sites in the order in which they were given"
        x, labels, groups = drawn(rng, (8, 8), (0, 1))
        found = answer(x, labels, groups, mass_mean_probe)
        expect(list(found) == list(x), "The sites are in another order.", actual=list(found))

    def test_bad_input(self, answer, rng):
        "a single group"
        x, labels, groups = drawn(rng, (8, 8), (1, 1))
        expect_raises(ValueError, answer, x, labels, groups, mass_mean_probe)


def seeded(seed):
    return torch.Generator().manual_seed(seed)


class TestControlTask:
    exercise = "control_task"

    def test_one_label_for_each_word(self, answer, rng):
        "a word has the same label wherever it stands; tokens of any shape"
        for shape in ((200,), (6, 50), (2, 3, 30), (0,)):
            tokens = torch.randint(20, shape, generator=rng)
            labels = answer(tokens, 20, 0.5, rng)
            expect_shape(labels, shape)
            expect(labels.dtype == torch.bool, "A label is True or False.", actual=str(labels.dtype))
            for word in tokens.unique():
                of_it = labels[tokens == word]
                expect(
                    bool((of_it == of_it[0]).all()),
                    "One and the same word has different labels at different places.",
                    actual="by token",
                )

    def test_share(self, answer, rng):
        "words are labelled True with the chance that was asked for"
        words = torch.arange(8000)
        for share in (0.2, 0.5, 0.85):
            found = answer(words, 8000, share, rng).float().mean().item()
            expect(
                abs(found - share) < 0.03,  # more than five standard deviations
                "Another share of the words is labelled True.",
                actual=round(found - share, 2),
                returned=f"a share of {found:.3f}",
                expected=f"about {share}",
            )
        expect_close(answer(words, 8000, 0.0, rng).sum().item(), 0)
        expect_close(answer(words, 8000, 1.0, rng).sum().item(), 8000)

    def test_independent(self, answer, rng):
        "how many words are True differs from draw to draw"
        counts = {int(answer(torch.arange(400), 400, 0.5, rng).sum()) for _ in range(15)}
        expect(
            len(counts) > 1,
            "Exactly as many words are True in every draw: they are not drawn independently.",
            actual="a fixed number",
        )

    def test_no_two_together(self, answer, rng):
        "no two words have always the same label"
        words = torch.arange(40)
        draws = torch.stack([answer(words, 40, 0.5, rng) for _ in range(45)])
        expect(
            draws.unique(dim=1).shape[1] == 40,
            "In 45 draws two words had the same label each time: they are not drawn independently.",
            actual="two together",
        )

    def test_generator(self, answer, rng):
        "the same seed gives the same labels, and the same generator draws anew"
        words = torch.arange(60)
        first, again = answer(words, 60, 0.5, seeded(3)), answer(words, 60, 0.5, seeded(3))
        expect(
            bool((first == again).all()),
            "Generators of one seed give different labels.",
            actual="another random source",
        )
        generator = seeded(3)
        two = answer(words, 60, 0.5, generator), answer(words, 60, 0.5, generator)
        expect(not bool((two[0] == two[1]).all()), "A second draw gives the same labels.", actual="no new draw")

    def test_other_texts(self, answer, rng):
        "a word has the same label in other texts, whatever other words are in them"
        words = torch.arange(60)
        whole = answer(words, 60, 0.5, seeded(5))
        for _ in range(4):
            some = words[torch.rand(60, generator=rng) < 0.4].flip(0)
            expect(
                bool((answer(some, 60, 0.5, seeded(5)) == whole[some]).all()),
                "With the same seed, a word has another label if other words are missing or in another order: training "
                "and test texts would be labelled by two different tasks.",
                actual="depends on the others",
            )

    def test_other_texts_in_the_second_draw(self, answer, rng):
        "of two generators of one seed the second draws are alike as well, whatever words were in the first"
        words = torch.arange(60)
        whole, part = seeded(7), seeded(7)
        answer(words, 60, 0.5, whole)
        answer(words[:23], 60, 0.5, part)
        expect(
            bool((answer(words, 60, 0.5, whole) == answer(words, 60, 0.5, part)).all()),
            "How much your first draw takes from the generator depends on which words are in the texts. In the second "
            "draw training and test texts are then labelled by two different tasks.",
            actual="takes another number",
        )


class TestSelectivity:
    exercise = "selectivity"

    def test_values(self, answer, reference, rng):
        "several numbers of groups and draws"
        for n_groups, n_draws in ((4, 3), (16, 1), (2, 5), (9, 2)):
            dtype = torch.float32 if n_groups == 9 else torch.float64  # so that wrong answers are alike, too
            task = torch.rand(n_groups, generator=rng, dtype=dtype)
            control = torch.rand(n_draws, n_groups, generator=rng, dtype=dtype)
            expect_close(tuple(answer(task, control)), reference(task, control), rtol=1e-4, atol=1e-5)

    def test_group_by_group(self, answer):
        "groups that are hard for both do not widen the interval"
        task = torch.tensor([0.5, 0.7, 0.9, 0.6], dtype=torch.float64)
        found = tuple(answer(task, torch.stack([task - 0.3, task - 0.1])))
        expect_close(found, (0.2, 0.0), rtol=0, atol=1e-5)

    def test_below_the_control(self, answer):
        "negative where the control is easier"
        task = torch.tensor([0.5, 0.6, 0.4], dtype=torch.float64)
        mean, _ = answer(task, torch.full((2, 3), 0.9, dtype=torch.float64))
        expect_close(mean, -0.4, rtol=1e-4)

    def test_bad_input(self, answer, rng):
        "one group, and a control of other groups"
        expect_raises(ValueError, answer, torch.rand(1, generator=rng), torch.rand(3, 1, generator=rng))
        expect_raises(ValueError, answer, torch.rand(4, generator=rng), torch.rand(2, 3, generator=rng))
        expect_raises(ValueError, answer, torch.rand(4, generator=rng), torch.rand(2, 1, generator=rng))
