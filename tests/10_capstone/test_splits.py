"""Checks for holding out whole templates."""

import torch

from utils.course.checking import expect, expect_raises


def texts(rng, n_templates, each):
    """Templates by odd numbers, in a mixed order; both labels in each."""
    numbers = 3 + 7 * torch.randperm(n_templates, generator=rng)
    templates = numbers.repeat_interleave(each)
    labels = (torch.arange(each) % 2 == 0).repeat(n_templates)
    order = torch.randperm(len(templates), generator=rng)
    return templates[order], labels[order]


def seeded(rng):
    return torch.Generator().manual_seed(int(torch.randint(10**6, (), generator=rng)))


class TestSplitByTemplate:
    exercise = "split_by_template"

    def test_whole_templates(self, answer, rng):
        "each template is held out with all of its texts, or with none"
        for n_templates, each in ((6, 4), (9, 3), (2, 2)):
            templates, labels = texts(rng, n_templates, each)
            held_out = answer(templates, labels, 0.4, seeded(rng))
            expect(
                isinstance(held_out, torch.Tensor) and held_out.dtype == torch.bool and held_out.shape == labels.shape,
                "The result is one True or False for each text.", actual="other kind",
            )  # fmt: skip
            for name in templates.unique():
                expect(
                    held_out[templates == name].unique().numel() == 1,
                    "A template stands on both sides: the probe is then tested on sentences that it has nearly seen.",
                    actual="leak",
                )

    def test_how_many(self, answer, rng):
        "as many templates as the docstring says, never none and never all"
        given = {(10, 0.25): 3, (10, 0.24): 2, (10, 0.35): 4, (5, 0.05): 1, (4, 0.95): 3, (7, 0.5): 4}
        found = []
        for n_templates, share in [*given] * 2:
            templates, labels = texts(rng, n_templates, 4)
            found.append(len(templates[answer(templates, labels, share, seeded(rng))].unique()))
        for ((n_templates, share), n), said in zip([*given.items()] * 2, found, strict=True):
            expect(
                said == n,
                f"Of {n_templates} templates with share {share}, {n} are to be held out.",
                actual=tuple(found),
                returned=str(said),
                expected=str(n),
            )

    def test_sizes_do_not_count(self, answer, rng):
        "the share is one of templates and not of texts: large templates count once"
        templates = torch.tensor([0] * 40 + [1] * 2 + [2] * 2 + [3] * 2)
        labels = torch.arange(len(templates)) % 2 == 0
        held_out = answer(templates, labels, 0.5, seeded(rng))
        found = len(templates[held_out].unique())
        expect(
            found == 2, "Two of the four templates are to be held out, whatever their sizes.", actual=("sizes", found)
        )

    def test_draws(self, answer, rng):
        "the same seed holds out the same; over seeds each template is held out as often, also one of many texts"
        templates, labels = texts(rng, 5, 2)
        large = templates[0].item()
        often = torch.where(templates == large, 8, 1)
        templates, labels = templates.repeat_interleave(often), labels.repeat_interleave(often)
        seeds = torch.randint(10**6, (600,), generator=rng).tolist()
        drawn = [answer(templates, labels, 0.4, torch.Generator().manual_seed(seed)) for seed in seeds]
        again = [answer(templates, labels, 0.4, torch.Generator().manual_seed(seed)) for seed in seeds[:20]]
        same = all(torch.equal(first, second) for first, second in zip(drawn, again, strict=False))
        expect(same, "The same seed holds out other templates.", actual="not repeatable")
        share = torch.stack([held[templates == name].float().mean() for held in drawn for name in templates.unique()])
        share = share.view(600, 5).mean(0)
        fixed = share.tolist() if set(share.tolist()) == {0.0, 1.0} else ()
        expect(
            bool((abs(share - 0.4) < 0.095).all()),  # 4.75 standard deviations
            "Over many seeds each template is to be held out as often as the others.",
            actual=("uneven", bool(share[templates.unique() == large] > 0.6), bool((share == 0).any()), *fixed),
            returned=str([round(value, 2) for value in share.tolist()]),
        )  # fmt: skip

    def test_bad_input(self, answer, rng):
        "one template, a share of 0 or 1, or a template with one label is refused"
        templates, labels = texts(rng, 5, 4)
        expect_raises(ValueError, answer, torch.zeros_like(templates), labels, 0.5, seeded(rng))
        for share in (0.0, 1.0):
            expect_raises(ValueError, answer, templates, labels, share, seeded(rng))
        expect_raises(ValueError, answer, templates, labels | (templates == templates[0]), 0.5, seeded(rng))
