"""Checks for what a decomposition is judged by, with the truth and without."""

import itertools

import torch

from utils.course.checking import expect, expect_close, expect_shape
from utils.spd.components import RankOneComponents
from utils.spd.gates import ComponentGates


def matrices(rng, C, d_in, d_out):
    """Random matrices of rank one, of lengths that differ."""
    V = torch.randn(C, d_in, 1, generator=rng)
    U = torch.randn(C, 1, d_out, generator=rng)
    return V * U * (0.2 + 2 * torch.rand(C, 1, 1, generator=rng))


def near(rng, truth, noise, extra=0):
    """The true matrices in another order, somewhat off and longer or shorter, and others besides."""
    n, d_in, d_out = truth.shape
    off = truth + noise * torch.randn(truth.shape, generator=rng)
    off = off * (0.5 + torch.rand(n, 1, 1, generator=rng))
    found = torch.cat([off, 0.3 * torch.randn(extra, d_in, d_out, generator=rng)])
    return found[torch.randperm(len(found), generator=rng)]


def network(rng, C=6, batch=9, sizes=(4, 3, 5)):
    """Two matrices with a ReLU between, components and gates for them, and inputs."""
    a, b, c = sizes
    weights = {"in": torch.randn(a, b, generator=rng), "out": torch.randn(b, c, generator=rng)}
    components = {name: RankOneComponents(*W.shape, C) for name, W in weights.items()}
    gates = {name: ComponentGates(C, 4) for name in weights}
    for module in (*components.values(), *gates.values()):
        for q in module.parameters():
            q.requires_grad_(False).copy_(torch.randn(q.shape, generator=rng))
    for gate in gates.values():  # open, half open and shut gates
        gate.b_out.copy_(torch.linspace(-2, 2, C))

    def forward(x, linear):
        return linear("out", linear("in", x).relu())

    return forward, weights, components, gates, torch.randn(batch, a, generator=rng)


class TestMeanMaxCosineSimilarity:
    exercise = "mean_max_cosine_similarity"

    def test_values(self, answer, reference, rng):
        "random components, more and fewer than features"
        for features, d, C in ((5, 3, 8), (4, 6, 2), (1, 2, 3), (7, 2, 1)):
            W = torch.randn(features, d, generator=rng)
            components = torch.randn(C, features, d, generator=rng)
            expect_close(answer(W, components), reference(W, components), atol=1e-5)

    def test_lengths(self, answer, rng):
        "lengths play no role, signs do; rows of zeros score 0"
        W = torch.randn(4, 3, generator=rng)
        expect_close(answer(W, 0.01 * W[None]), 1.0, note="A component that is too short lost score.")
        expect_close(answer(W, -2 * W[None]), -1.0, note="The opposite direction has cosine -1.")
        expect_close(answer(W, torch.zeros(2, 4, 3)), 0.0, note="Rows of zeros have cosine 0 with anything.")

    def test_shared_partner(self, answer, rng):
        "one component may be the best for several features"
        W = torch.randn(5, 2, generator=rng)
        expect_close(answer(W, torch.cat([W[None], torch.zeros(6, 5, 2)])), 1.0)


class TestMeanL2Ratio:
    exercise = "mean_l2_ratio"

    def test_values(self, answer, reference, rng):
        "random components, more and fewer than features"
        for features, d, C in ((5, 3, 8), (4, 6, 2), (1, 2, 3), (7, 2, 1)):
            W = torch.randn(features, d, generator=rng) + 0.1
            components = torch.randn(C, features, d, generator=rng) * torch.rand(C, 1, 1, generator=rng)
            expect_close(answer(W, components), reference(W, components), rtol=1e-4)

    def test_best_direction_and_not_best_length(self, answer, rng):
        "the row with the best direction counts, however short it is"
        W = torch.randn(4, 5, generator=rng)
        off = W + 0.5 * W.norm(dim=1, keepdim=True) * torch.nn.functional.normalize(
            torch.randn(4, 5, generator=rng), dim=1
        )
        expect_close(answer(W, torch.stack([off, 0.1 * W])), 0.1, rtol=1e-3)


class TestMatchComponents:
    exercise = "match_components"

    def test_values(self, answer, reference, rng):
        "components near the truth, in another order, with others besides"
        for n, d_in, d_out, noise, extra in ((4, 3, 5, 0.05, 3), (3, 5, 2, 0.3, 0), (5, 2, 3, 0.6, 4)):
            truth = matrices(rng, n, d_in, d_out)
            given = near(rng, truth, noise, extra)
            found, wanted = answer(given, truth), reference(given, truth)
            expect(
                isinstance(found, tuple) and len(found) == 3,
                "A Match is returned: (partner, cosine, ratio).", actual=type(found).__name__,
            )  # fmt: skip
            expect_close(found[1].sum(), wanted.cosine.sum(), atol=1e-4, note="The sum of cosines is not the largest.")
            expect_close(found[0], wanted.partner, note="The partners differ.")
            expect_close(found[1], wanted.cosine, atol=1e-5, note="The cosines differ.")
            expect_close(found[2], wanted.ratio, rtol=1e-4, note="The norm ratios differ.")

    def test_one_to_one(self, answer, rng):
        "no component is given twice, however well it fits two"
        truth = matrices(rng, 3, 4, 3)
        truth[1] = truth[0] + 0.1 * torch.randn(4, 3, generator=rng)
        components = torch.stack([truth[0] + truth[1], truth[2], 0.1 * torch.randn(4, 3, generator=rng)])
        partner = answer(components, truth)[0]
        expect(
            len(set(partner.tolist())) == 3, "Two true parts share a component.", actual="shared",
            returned=str(partner.tolist()),
        )  # fmt: skip

    def test_who_chooses(self, answer, rng):
        "a true part takes its second best where another needs the best more"
        row, truth = torch.randn(4, generator=rng), torch.zeros(2, 3, 4)
        truth[0, 0] = truth[1, 1] = row
        second = truth[0].clone()
        second[2] = 2 * row  # cosine 0.45 with the first part, 0 with the other
        partner = answer(torch.stack([truth.sum(0), second]), truth)[0]
        expect_close(partner, torch.tensor([1, 0]), note="The sum of cosines is not the largest.")

    def test_signs(self, answer, rng):
        "a component of the opposite sign is a poor partner, however parallel"
        truth = matrices(rng, 3, 4, 5)
        spare = 0.1 * truth + 0.1 * torch.randn(3, 4, 5, generator=rng) * truth.flatten(1).norm(dim=1)[:, None, None]
        match = answer(torch.cat([-truth, spare]), truth)
        expect(
            bool((match[1] > -0.5).all()), "A true part was given its opposite.", actual="opposite",
            returned=str([round(v, 2) for v in match[1].tolist()]),
        )  # fmt: skip

    def test_lengths(self, answer, rng):
        "a short component that points the right way is the better partner than a long one that points elsewhere"
        truth = torch.cat([matrices(rng, 3, 4, 5), torch.zeros(3, 1, 5)], dim=1)
        long = 9 * truth
        long[:, 4] = 9 * truth.flatten(1).norm(dim=1)[:, None]  # cosine 0.41
        partner = answer(torch.cat([long, 0.1 * truth]), truth)[0]
        expect_close(partner, torch.tensor([3, 4, 5]), note="A long component was preferred to one with cosine 1.")

    def test_fewer_components(self, answer, reference, rng):
        "with fewer components than true parts some go without: -1, and 0 for cosine and ratio"
        truth = matrices(rng, 5, 3, 4)
        given = truth[torch.randperm(5, generator=rng)[:2]] * 1.3
        for value, wanted, what in zip(
            answer(given, truth), reference(given, truth), ("partners", "cosines", "ratios"), strict=True
        ):
            expect_shape(value, (5,))
            expect_close(value, wanted, atol=1e-5, note=f"The {what} differ where components are too few.")

    def test_zeros(self, answer, rng):
        "components of zeros are allowed"
        truth = matrices(rng, 2, 3, 4)
        match = answer(torch.cat([torch.zeros(3, 3, 4), truth]), truth)
        expect_close(
            match[1], torch.ones(2), atol=1e-5, note="With components of zeros beside it, the truth was missed."
        )


class TestRecovered:
    exercise = "recovered"

    def test_bounds(self, answer, rng):
        "both the direction and the length have to be right"
        truth = torch.eye(4)[:, :, None] * torch.randn(4, 1, 5, generator=rng)
        lengths = torch.tensor([1.0, 1.04, 1.06, 0.93])
        found = answer(truth * lengths[:, None, None], truth)
        expect_close(
            found.float(), torch.tensor([1.0, 1.0, 0.0, 0.0]), note="Lengths within 5 % of 1 pass, others don't."
        )
        turned = truth.clone()
        turned[1, 3] += 0.2 * truth[1].norm() / 5**0.5  # cosine 0.98
        turned[2, 3] += 0.1 * truth[2].norm() / 5**0.5  # 0.995
        turned *= (truth.flatten(1).norm(dim=1) / turned.flatten(1).norm(dim=1))[:, None, None]
        found = answer(turned, truth)
        expect_close(found.float(), torch.tensor([1.0, 0, 1, 1]), note="Cosines above 0.99 pass, others don't.")

    def test_opposite(self, answer, rng):
        "a part whose partner is its negative was not found"
        truth = matrices(rng, 1, 3, 4)
        expect_close(answer(-truth, truth).float(), torch.zeros(1), note="A part of cosine -1 counts as found.")

    def test_arguments(self, answer, reference, rng):
        "other bounds"
        truth = matrices(rng, 6, 5, 4)
        given = near(rng, truth, 0.2, 2)
        for bounds in ({"min_cosine": 0.8, "tolerance": 0.3}, {"min_cosine": 0.95}, {"tolerance": 0.5}):
            expect_close(answer(given, truth, **bounds).float(), reference(given, truth, **bounds).float())
        expect_close(answer(1.5 * truth, truth, tolerance=0.6).float(), torch.ones(6), note="1.5 is within 0.6 of 1.")

    def test_one_to_one(self, answer, rng):
        "one component can't stand for two true parts"
        truth = matrices(rng, 2, 3, 4)
        truth[1] = truth[0] * 1.01
        found = answer(torch.stack([truth[0], torch.randn(3, 4, generator=rng) * 0.01]), truth)
        expect(int(found.sum()) == 1, "One component counts for two true parts.", actual="counted twice")


class TestLiveComponents:
    exercise = "live_components"

    def test_values(self, answer, reference, rng):
        "needed by one input is enough, for inputs of one and of two dimensions"
        for shape, threshold in (((7, 5), 0.1), ((4, 3, 6), 0.1), ((1, 4), 0.5), ((30, 8), 0.93)):
            g = torch.rand(shape, generator=rng) * torch.rand(shape[-1], generator=rng)
            g[..., 1] = threshold + 0.05  # needed by all but one, and on the average
            g.view(-1, shape[-1])[0, 1] = 0.0
            expect_close(answer(g, threshold).float(), reference(g, threshold).float())

    def test_default(self, answer):
        "0.1 unless said otherwise, and above it; below 0 is not needed"
        g = torch.tensor([[0.0, 0.05, -0.01, 0.1], [0.2, 0.09, -0.5, 0.0]])
        expect_close(answer(g).float(), torch.tensor([1.0, 0, 0, 0]))


class TestComponentsPerInput:
    exercise = "components_per_input"

    def test_values(self, answer, reference, rng):
        "which components each input needs, in both matrices"
        for C, batch, sizes, more in ((6, 9, (4, 3, 5), {}), (4, 5, (2, 6, 3), {"threshold": 0.6})):
            given = network(rng, C, batch, sizes)
            found, wanted = answer(*given, **more), reference(*given, **more)
            expect(
                isinstance(found, dict) and set(found) == set(wanted), "A dict with the matrices' names is returned.",
                actual=sorted(found) if isinstance(found, dict) else type(found).__name__,
            )  # fmt: skip
            for name, needed in wanted.items():
                expect_shape(found[name], tuple(needed.shape))
                expect_close(found[name].float(), needed.float(), note=f"Of {name!r} other components are needed.")

    def test_at_the_threshold(self, answer, reference, rng):
        "above the threshold, not at it"
        given = network(rng)
        for gate in given[3].values():  # one that is half open for all inputs, and one less
            gate.W_out[1:3], gate.b_out[1:3] = 0.0, torch.tensor([0.5, 0.3])
        found, wanted = (each(*given, threshold=0.5) for each in (answer, reference))
        for name, needed in wanted.items():
            expect_close(
                found[name].float(), needed.float(), note="At a threshold of 0.5, an importance of 0.5 is not."
            )


class TestAblateTheRest:
    exercise = "ablate_the_rest"

    def given(self, rng, **sizes):
        forward, weights, components, _, x = network(rng, **sizes)
        needed = {name: torch.rand(len(x), len(c.U), generator=rng) < 0.5 for name, c in components.items()}
        return forward, weights, components, x, needed

    def test_values(self, answer, reference, rng):
        "the others at 0, at a number, at magnitudes of their own"
        for sizes in ({"C": 6, "batch": 9, "sizes": (4, 3, 5)}, {"C": 3, "batch": 5, "sizes": (2, 6, 4)}):
            given = self.given(rng, **sizes)
            expect_close(answer(*given), reference(*given), atol=1e-4, note="With the others at 0 the output differs.")
            for number in (0.6, -1.5, 1):
                expect_close(
                    answer(*given, number),
                    reference(*given, number),
                    atol=1e-4,
                    note="With the others at a number the output differs.",
                )
            drawn = {name: torch.rand(keep.shape, generator=rng) for name, keep in given[4].items()}
            expect_close(
                answer(*given, drawn),
                reference(*given, drawn),
                atol=1e-4,
                note="With a magnitude for each the output differs.",
            )

    def test_one_matrix(self, answer, reference, rng):
        "a matrix that is not named keeps its own weights"
        *given, needed = self.given(rng)
        needed = {"out": needed["out"]}
        expect_close(answer(*given, needed, 0.3), reference(*given, needed, 0.3), atol=1e-4)


class TestRandomNeeded:
    exercise = "random_needed"

    def drawn(self, answer, needed, live, seed):
        found = answer(needed, live, torch.Generator().manual_seed(seed))
        expect_shape(found, tuple(needed.shape))
        return found.bool()

    def test_sizes(self, answer, rng):
        "as many for each input as it needs, and only live ones"
        for batch, C, share in ((40, 9, 0.5), (25, 4, 0.9), (7, 12, 0.2)):
            live = torch.rand(C, generator=rng) < 0.7
            live[:2] = torch.tensor([True, False])
            needed = (torch.rand(batch, C, generator=rng) < share) & live
            needed[0], needed[1] = False, live
            found = self.drawn(answer, needed, live, int(torch.randint(10**6, (), generator=rng)))
            expect_close(found.sum(1), needed.sum(1), note="Sets have another size than what the input needs.")
            expect(not found[:, ~live].any(), "A component was drawn that is not live.", actual="not live")

    def test_chances(self, answer, rng):
        "each live component has the same chance whatever the input needs, and inputs draw by themselves"
        pairs = torch.tensor([[0, 2], [3, 5], [6, 9]])  # all that live: needed by even inputs, by odd ones, by none
        live = torch.zeros(10, dtype=torch.bool)
        live[pairs] = True
        needed = torch.zeros(3000, 10, dtype=torch.bool)
        needed[::2, pairs[0]], needed[1::2, pairs[1]] = True, True
        found = self.drawn(answer, needed, live, int(torch.randint(10**6, (), generator=rng)))
        for rows, order in ((found[::2], (0, 1, 2)), (found[1::2], (1, 0, 2))):
            sets = {tuple(row.nonzero().flatten().tolist()) for row in rows}
            expect(len(sets) > 1, "All inputs with the same needs draw the same.", actual="the same")
            share = torch.stack([rows[:, pairs[i]].float().mean(0) for i in order])
            expect(
                bool((share - 1 / 3).abs().max() < 0.06),
                "Each of six live components should be in about a third of the sets, needed or not.",
                actual=[round(v, 1) for v in share.mean(1).tolist()],
                returned=", ".join(f"{v:.2f}" for v in share.flatten()) + " (first the two that the input needs)",
            )  # fmt: skip
            missing = set(itertools.combinations(pairs.flatten().tolist(), 2)) - sets
            expect(not missing, "Some pairs never come.", actual="missing", returned=str(sorted(missing)))
            expect((rows[:-1] == rows[1:]).all(1).float().mean() < 0.25, "Neighbours draw the same.", actual="alike")

    def test_generator(self, answer, rng):
        "the draws are the generator's"
        live, needed = torch.ones(8, dtype=torch.bool), torch.rand(50, 8, generator=rng) < 0.5
        seed = int(torch.randint(10**6, (), generator=rng))
        first, again, other = (self.drawn(answer, needed, live, s) for s in (seed, seed, seed + 1))
        expect(torch.equal(first, again), "With the same generator other sets were drawn.", actual="not its draws")
        expect(
            not torch.equal(first, other), "Whatever the generator, the sets are the same.", actual="always the same"
        )
