"""Checks for the sanity checks: similarity of maps, randomised weights, randomised labels."""

import torch
from torch import nn

from utils.course.checking import expect, expect_close, expect_raises, expect_shape

# Half of a whole number of places is float32 unless asked, and ranks in float32 are no mistake.
CLOSE = {"rtol": 1e-6, "atol": 1e-6}


def normal(rng, *shape, dtype=torch.float64):
    return torch.randn(shape, generator=rng, dtype=dtype)


def related_maps(rng, *shape, dtype=torch.float64):
    """Maps with something in common, signs of both kinds, and very different sizes; the first pair is opposed."""
    first = normal(rng, *shape, dtype=dtype)
    second = 40 * (first + normal(rng, *shape, dtype=dtype))
    second[0] = -second[0]
    return first, second


class TestMapSimilarity:
    exercise = "map_similarity"

    def test_values(self, answer, reference, rng):
        "three measures for each pair of maps, on maps that are not square"
        for shape, window in (((3, 6, 9), 5), ((2, 8, 5), 3), ((1, 7, 7), 7)):
            first, second = related_maps(rng, *shape)
            expect_close(answer(first, second, window=window), reference(first, second, window=window), **CLOSE)

    def test_equal_values(self, answer, reference, rng):
        "pixels of equal value share the mean of their ranks"
        first, second = related_maps(rng, 3, 6, 7)
        first[:, :3], second[:, :, 4:] = 0.0, -7.0
        first[:, 4] = first[:, 5].round()
        expect_close(answer(first, second), reference(first, second), **CLOSE)

    def test_same_and_opposite(self, answer, rng):
        "a map and itself, and a map with its sign turned round"
        first = normal(rng, 2, 7, 8)
        ones = torch.ones(2, dtype=torch.float64)
        same = {"spearman": ones, "spearman_abs": ones, "ssim": ones}
        expect_close(answer(first, first), same, **CLOSE)
        expect_close(answer(first, -first), same | {"spearman": -ones}, **CLOSE)

    def test_what_changes_nothing(self, answer, rng):
        "ranks ignore every change that keeps the order; the structural similarity ignores the size of a map"
        first, second = related_maps(rng, 2, 6, 8)
        before = answer(first, second)
        bent = answer(first, (second / 40).exp())
        expect_close(
            bent["spearman"],
            before["spearman"],
            **CLOSE,
            note="An increasing function of a map changes the rank correlation",
        )
        expect_close(
            answer(0.01 * first, second),
            before,
            **CLOSE,
            note="A map in other units (all values times 0.01) gives another similarity",
        )

    def test_flat_maps(self, answer, rng):
        "a map of one value throughout has no order (NaN), and a map of zeros a structural similarity"
        first = normal(rng, 2, 6, 6)
        first[0] = 0.0
        found = answer(first, normal(rng, 2, 6, 6))
        for name in ("spearman", "spearman_abs"):
            expect_shape(found[name], (2,))
            expect(
                found[name].isnan().tolist() == [True, False],
                f"The first map of the first pair has one value throughout, and no order: its {name} is NaN, and that "
                f"of the second pair is not.",
                actual=found[name],
                expected="[nan, a number]",
            )
        expect(
            found["ssim"].isfinite().all(),
            "A map of zeros makes the structural similarity NaN or infinite.",
            actual=found["ssim"],
        )

    def test_no_graph(self, answer, rng):
        "no graph hangs on the numbers, also where one hangs on the maps"
        first, second = related_maps(rng, 2, 6, 7)
        found = answer(first.requires_grad_(), second.requires_grad_())
        hangs = [name for name in ("spearman", "spearman_abs", "ssim") if found[name].requires_grad]
        expect(
            not hangs,
            f"A graph hangs on {' and '.join(hangs)}, which keeps all that was computed on the way in memory.",
            actual=("graph", *hangs),
            returned="requires_grad=True",
            expected="numbers without a graph",
        )

    def test_pairs(self, answer, reference, rng):
        "each pair for itself, in float32 as well"
        first, second = related_maps(rng, 4, 6, 7, dtype=torch.float32)
        together = answer(first, second)
        for i in range(4):
            alone = answer(first[i : i + 1], second[i : i + 1])
            for name, values in together.items():
                # Where windows are nearly flat, differences of squares leave few digits of float32.
                expect_close(
                    alone[name][0],
                    values[i],
                    rtol=1e-3,
                    atol=1e-3,
                    note=f"The {name} of a pair depends on the other pairs",
                )


def small_network(rng):
    """Layers of different sizes at two depths, a normalisation, and weights that no initialisation would give."""
    with torch.device("meta"):
        model = nn.Sequential()
        model.add_module("first", nn.Conv2d(3, 40, (3, 2)))
        model.add_module("norm", nn.BatchNorm2d(40))
        model.add_module("block", nn.Sequential(nn.Conv2d(40, 50, 3), nn.ReLU(), nn.Conv2d(50, 30, 1)))
        model.add_module("head", nn.Linear(30, 70))
        model.norm.register_parameter("debias", nn.Parameter(torch.empty(40)))  # a factor, whatever it sounds like
    model = model.to_empty(device="cpu")
    with torch.no_grad():
        for value in model.state_dict().values():
            if value.is_floating_point():
                value.copy_(5 + normal(rng, *value.shape, dtype=torch.float32))
            else:
                value.zero_()
    return model.eval()


def changed_layers(model, other):
    """Top-level names below which any parameter differs."""
    theirs = dict(other.named_parameters())
    return sorted({name.split(".")[0] for name, p in model.named_parameters() if not torch.equal(p, theirs[name])})


LAYERS = ["head", "block", "norm", "first"]


def layer_of(name):
    return name.split(".")[0]


class TestCascadingRandomization:
    exercise = "cascading_randomization"

    def test_original(self, answer, rng):
        "the trained network stays as it is; the copies share nothing, and are like it in all else"
        model = small_network(rng)
        model.block.requires_grad_(False)
        for training in (True, False):
            model.train(training)
            before = {name: value.clone() for name, value in model.state_dict().items()}
            copies = answer(model, LAYERS, generator=rng)
            for name, value in model.state_dict().items():
                expect(
                    torch.equal(value, before[name]),
                    f"The trained network itself has changed ({name}): work on copies.",
                    actual=("the trained network", name),
                    returned=f"{name}, afterwards: {value.flatten()[0]:.4g} …",
                    expected=f"as it was: {before[name].flatten()[0]:.4g} …",
                )
            storages = [p.data_ptr() for m in (model, *copies) for p in m.parameters()]
            expect(
                len(set(storages)) == len(storages),
                "Some networks share weights: change one and the other changes.",
                actual=len(set(storages)),
                returned=f"{len(set(storages))} different parameters in all networks together",
                expected=f"{len(storages)}",
            )
            expect(
                all(copy.training == training for copy in copies),
                "A copy is in another mode than the original.",
                actual=[copy.training for copy in copies],
                expected=str([training] * len(copies)),
            )
            frozen = [[not p.requires_grad for p in m.parameters()] for m in (model, *copies)]
            expect(
                all(of_copy == frozen[0] for of_copy in frozen[1:]),
                "Other parameters are frozen in a copy than in the original.",
                actual=frozen[1:],
                returned=f"{sum(frozen[-1])} frozen parameters in the last copy",
                expected=f"{sum(frozen[0])}, those of the original",
            )
            for name, value in model.named_buffers():
                for copy in copies:
                    expect_close(
                        copy.get_buffer(name),
                        value,
                        note=f"The buffer {name} is no parameter and should stay as trained",
                    )

    def test_which_layers(self, answer, rng):
        "copy k has lost the first k + 1 layers of the list, or the layer k alone"
        model = small_network(rng)
        for order in (LAYERS, ["first", "head", "norm"]):
            for cascade in (True, False):
                copies = answer(model, order, generator=rng, cascade=cascade)
                expect(
                    isinstance(copies, list) and len(copies) == len(order),
                    "One copy for each layer, in a list.",
                    actual=copies,
                )
                for k, copy in enumerate(copies):
                    wanted = sorted(order[: k + 1] if cascade else order[k : k + 1])
                    found = changed_layers(model, copy)
                    expect(
                        found == wanted,
                        f"With cascade={cascade}, copy {k} has other layers changed than it should.",
                        actual=(cascade, k, found),
                        returned=str(found),
                        expected=str(wanted),
                    )

    def test_distribution(self, answer, rng):
        "weights of mean 0 and variance 2 / fan_in, biases 0, scales of a normalisation 1"
        model = small_network(rng)
        copy = answer(model, LAYERS, generator=rng)[-1]
        for name, inputs in (("block.0.weight", 360), ("block.2.weight", 50), ("head.weight", 30)):
            weights = copy.state_dict()[name].double()
            n = weights.numel()  # at least 1,500: the deviation is known to within 1.9 per cent
            scaled = weights.std().item() * (inputs / 2) ** 0.5
            expect(
                abs(scaled - 1) < 0.12,
                f"The spread of {name}, with {inputs} inputs, is not sqrt(2 / fan_in).",
                actual=weights.std(),
                expected=f"about {(2 / inputs) ** 0.5:.3g}",
            )
            expect(
                abs(weights.mean()) < 6 * (2 / inputs / n) ** 0.5,
                f"The mean of {name} is not 0.",
                actual=weights.mean(),
            )
        # The fourth moment of 18,000 normal weights is 3, known to within 0.04; 1.8 for uniform ones.
        fourth = (copy.state_dict()["block.0.weight"].double() * 180**0.5).pow(4).mean()
        expect(
            abs(fourth - 3) < 0.5,
            "The weights have the right spread and are not normal.",
            actual="weights that are not normal",
            returned=f"a fourth moment of {fourth:.2f} squared variances",
            expected="about 3",
        )
        of_one_dimension = {"first.bias": 0.0, "block.2.bias": 0.0, "norm.bias": 0.0, "norm.weight": 1.0}
        for name, value in (of_one_dimension | {"norm.debias": 1.0}).items():
            found = copy.state_dict()[name]
            expect_close(found, torch.full_like(found, value), note=f"{name} should be {value:.0f} throughout")

    def test_one_draw(self, answer, rng):
        "a layer is drawn once: all copies in which it is random have the same weights, and each layer has its own"
        model = small_network(rng)
        trained = {name: p.detach() for name, p in model.named_parameters()}
        for cascade in (True, False):
            copies = answer(model, LAYERS, generator=torch.Generator().manual_seed(7), cascade=cascade)
            if cascade:
                last = copies[-1].state_dict()
            for k, copy in enumerate(copies):
                state = copy.state_dict()
                for name in [name for name in trained if layer_of(name) == LAYERS[k]]:
                    # Whether the layer has been drawn at all is another check's business.
                    kept = any(torch.equal(one[name], trained[name]) for one in (state, last))
                    expect(
                        kept or torch.equal(state[name], last[name]),
                        f"{name} is drawn anew from copy to copy."
                        if cascade
                        else f"With the same seed, {name} is not the same with cascade=True and cascade=False.",
                        actual=("drawn anew", name, k, cascade),
                        returned=f"{name} of copy {k}: {state[name].flatten()[0]:.4g} …",
                        expected=f"as in the last copy{'' if cascade else ' of cascade=True'}: "
                        f"{last[name].flatten()[0]:.4g} …",
                    )
        weights = [last[name].flatten()[:1500] for name in ("block.0.weight", "block.2.weight", "head.weight")]
        together = torch.corrcoef(torch.stack(weights).double()).fill_diagonal_(0).abs().max()
        # 1,500 pairs of unrelated numbers are correlated by 0.03, and never by 0.3.
        expect(
            together < 0.3 or together.isnan(),
            "The layers have the same numbers, but for their scale: each is to be drawn from where the generator "
            "stands after the one before.",
            actual="the same numbers in all layers",
        )

    def test_generator(self, answer, rng):
        "one seed, one set of copies"
        model = small_network(rng)
        seed = int(torch.randint(10**6, (), generator=rng))
        first, again, other = (
            answer(model, ["head"], generator=torch.Generator().manual_seed(s))[0].head.weight.detach()
            for s in (seed, seed, seed + 1)
        )
        expect(
            torch.equal(again, first),
            "The same seed gives other weights: noise from elsewhere than the generator.",
            actual="other weights",
        )
        expect(not torch.equal(first, other), "Another seed gives the same weights.", actual="the same weights")
        generator = torch.Generator().manual_seed(seed)
        one, two = (answer(model, ["head"], generator=generator)[0].head.weight.detach() for _ in range(2))
        expect(
            not torch.equal(one, two),
            "Two calls with one generator, one after the other, give the same weights: draw from the generator "
            "itself, so that it moves on, and not from its seed.",
            actual="the generator stands still",
        )


class TestLabelRandomization:
    exercise = "label_randomization"

    def test_counts(self, answer, rng):
        "the same labels, each as often as before"
        for n, classes in ((60, 4), (1, 3), (301, 10)):
            labels = torch.randint(classes, (n,), generator=rng).square()
            found = answer(labels, generator=rng)
            expect_shape(found, (n,))
            expect_close(
                found.sort().values,
                labels.sort().values,
                dtype=True,
                note="The labels are not the same ones in another order: they differ, both sorted",
            )

    def test_says_nothing(self, answer, rng):
        "an example's new label has nothing to do with its old one"
        labels = torch.arange(10).repeat(100)
        found = answer(labels, generator=rng)
        expect_shape(found, (1000,))
        table = torch.zeros(10, 10).index_put((labels, found), torch.tensor(1.0), accumulate=True)
        # Cells of a table with all margins 100 have mean 10 and a standard deviation of 2.8.
        expect(
            table.max() < 33,
            "Old and new label go together: a network could still learn from the images.",
            actual=table,
            returned=f"{table.max():.0f} in the fullest cell",
            expected="about 10 in each cell of a table of old by new labels",
        )

    def test_any_order(self, answer, rng):
        "every example can get every other one's label, its own included"
        n = 6
        seen = torch.stack([answer(torch.arange(n), generator=rng) for _ in range(200)])
        counts = torch.stack([(seen == label).sum(0) for label in range(n)])
        # Binomial with 200 draws of probability 1/6: mean 33, and below 6 or above 80 once in 10^9.
        expect(
            (counts > 5).all() and (counts < 80).all(),
            "Some orders come up far too often, or never.",
            actual=counts,
            returned=f"in 200 calls, a label at a place between {counts.min()} and {counts.max()} times",
            expected="about 33 times, each label at each place",
        )

    def test_fair(self, answer, rng):
        "a label is as likely to come to the beginning of the list as to its end"
        n = 20000
        found = answer(torch.arange(n), generator=rng)
        expect_shape(found, (n,))
        tenths = [place * 10 // n for place in (torch.arange(n), found)]
        table = torch.zeros(10, 10).index_put(tuple(tenths), torch.tensor(1.0), accumulate=True)
        # Chi-square with 81 degrees of freedom: above 170 once in 10^7. Swapping each place with any other gives 280.
        expect(
            (table - n / 100).square().sum() / (n / 100) < 170,
            "Not every order has the same chance.",
            actual=table,
            returned=f"from one tenth of the list to another go between {table.min():.0f} and {table.max():.0f} labels",
            expected=f"about {n // 100}",
        )

    def test_generator(self, answer, rng):
        "one seed, one order"
        labels = torch.arange(50)
        seed = int(torch.randint(10**6, (), generator=rng))
        first, again, other = (
            answer(labels, generator=torch.Generator().manual_seed(s)) for s in (seed, seed, seed + 1)
        )
        expect(
            torch.equal(again, first),
            "The same seed gives another order: randomness from elsewhere.",
            actual="another order",
        )
        expect(not torch.equal(first, other), "Another seed gives the same order.", actual="the same order")
        generator = torch.Generator().manual_seed(seed)
        one, two = (answer(labels, generator=generator) for _ in range(2))
        expect(
            not torch.equal(one, two),
            "Two calls with one generator, one after the other, give the same order: draw from the generator itself.",
            actual="the generator stands still",
        )

    def test_bad_labels(self, answer, rng):
        "labels that are not a single row are refused"
        expect_raises(ValueError, answer, torch.zeros(3, 2, dtype=torch.long), generator=rng)
        expect_raises(ValueError, answer, torch.tensor(3), generator=rng)
