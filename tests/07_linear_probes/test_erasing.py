"""Checks for taking directions out of activations, and for what that costs."""

import torch
from torch import nn

from utils.course.checking import expect, expect_close, expect_raises, expect_shape
from utils.patching.networks import SmallTransformer
from utils.probes.fit import Probe, least_squares_probe, mass_mean_probe

SIZES = ((3, 5, 7), (1, 2, 4), (2, 1, 6))  # batch, pos, d
CLOSE = {"rtol": 1e-4, "atol": 1e-4}


def draw(rng, *shape, dtype=torch.float32):
    return 3 * torch.randn(*shape, generator=rng, dtype=dtype) + 1


class TestProjectOut:
    exercise = "project_out"

    def test_values(self, answer, reference, rng):
        "one direction or several, of any length and at any angles; the origin stays, or another point"
        for batch, pos, d in SIZES:
            for k in (1, 2, 3):
                x, directions, about = draw(rng, batch, pos, d), 0.3 * draw(rng, k, d), draw(rng, d)
                expect_close(answer(x, directions), reference(x, directions), **CLOSE)
                expect_close(answer(x, directions, about=about), reference(x, directions, about=about), **CLOSE)

    def test_two_that_are_not_at_right_angles(self, answer, rng):
        "nothing is left along either of two directions with a small angle between them"
        x, first = draw(rng, 6, 5), torch.eye(5)[0]
        left = answer(x, torch.stack([2 * first, first + 0.2 * torch.eye(5)[3]]))
        expect_shape(left, (6, 5))
        expect_close(left[:, [0, 3]], torch.zeros(6, 2), note="Something is left in the plane of the two.", atol=1e-3)
        expect_close(left[:, [1, 2, 4]], x[:, [1, 2, 4]], note="What is outside the plane has changed.", **CLOSE)

    def test_dependent(self, answer, reference, rng):
        "a direction said twice, and a row of zeros, change nothing more"
        x, one, other = draw(rng, 4, 6), draw(rng, 6), draw(rng, 6)
        directions = torch.stack([one, other, one - 2 * other, torch.zeros(6), 5 * one])
        expect_close(answer(x, directions), reference(x, directions[:2]), **CLOSE)

    def test_lengths(self, answer, reference, rng):
        "a very short direction counts like a long one"
        x, directions = draw(rng, 4, 6), draw(rng, 2, 6)
        scaled = directions * torch.tensor([[1e-4], [1e4]])
        expect_close(answer(x, scaled), reference(x, directions), **CLOSE)

    def test_about(self, answer, rng):
        "along the directions all activations lie where the point that stays lies"
        x, about = draw(rng, 5, 4), draw(rng, 4)
        left = answer(x, torch.tensor([[0.0, 2.0, 0.0, 0.0]]), about=about)
        expect_close(left[:, 1], about[1].expand(5), **CLOSE)
        expect_close(left[:, [0, 2, 3]], x[:, [0, 2, 3]], **CLOSE)

    def test_nothing(self, answer, rng):
        "without directions nothing is removed"
        x = draw(rng, 3, 4)
        expect_close(answer(x, torch.zeros(0, 4)), x, **CLOSE)

    def test_shapes_and_dtype(self, answer, reference, rng):
        "one activation, three dimensions before the last, float64 and float32"
        for shape in ((5,), (2, 3, 4, 5)):
            x, directions = draw(rng, *shape, dtype=torch.float64), draw(rng, 2, 5, dtype=torch.float64)
            expect_close(answer(x, directions), reference(x, directions), dtype=True, rtol=1e-6, atol=1e-6)
            x, directions = x.float(), directions.float()
            expect_close(answer(x, directions), reference(x, directions), dtype=True, **CLOSE)

    def test_bad_input(self, answer, rng):
        "a direction by itself, or of another width, is refused"
        expect_raises(ValueError, answer, draw(rng, 3, 4), draw(rng, 4))
        expect_raises(ValueError, answer, draw(rng, 3, 4), draw(rng, 2, 1))


def models(rng):
    for i, sizes in enumerate(({"n_layers": 2}, {"n_layers": 3, "d_model": 5, "n_heads": 2, "d_head": 3})):
        model = SmallTransformer(rng, **sizes)
        tokens = torch.randint(len(model.W_E), (3 + i, 5 + i), generator=rng)
        yield model, tokens, model.W_E.shape[1]


class Stream(nn.Module):
    """Embeddings that pass a hook point and come out as they are; the same tensor also goes past."""

    def __init__(self, rng, d=4):
        super().__init__()
        self.W_E, self.hook = nn.Parameter(torch.randn(7, d, generator=rng)), nn.Identity()

    def forward(self, tokens):
        stream = self.W_E[tokens] * 1.0
        passed = self.hook(stream)
        return torch.cat([passed, stream], dim=-1)


class TestAblateDirection:
    exercise = "ablate_direction"
    name = "blocks.0.hook_resid_post"

    def test_everywhere(self, answer, reference, rng):
        "at all positions, one hook point or two"
        for model, tokens, d in models(rng):
            for names in ([self.name], [self.name, "blocks.1.hook_resid_post"]):
                case = model, tokens, names, draw(rng, 2, d)
                about = draw(rng, d)
                with torch.no_grad():
                    expect_close(answer(*case), reference(*case), **CLOSE)
                    expect_close(answer(*case, about=about), reference(*case, about=about), **CLOSE)

    def test_one_position(self, answer, reference, rng):
        "at one position of each prompt, another one in each"
        for model, tokens, d in models(rng):
            at = torch.randint(tokens.shape[1], (len(tokens),), generator=rng)
            at[0], at[1] = 0, tokens.shape[1] - 1
            case = model, tokens, [self.name], draw(rng, 1, d)
            about = draw(rng, d)
            with torch.no_grad():
                found = answer(*case, about=about, positions=at)
                expect_close(found, reference(*case, about=about, positions=at), **CLOSE)

    def test_the_first_position(self, answer, reference, rng):
        "at position 0 of every prompt: not at all positions"
        for model, tokens, d in models(rng):
            at = torch.zeros(len(tokens), dtype=torch.long)
            case = model, tokens, [self.name], draw(rng, 1, d)
            with torch.no_grad():
                expect_close(answer(*case, positions=at), reference(*case, positions=at), **CLOSE)

    def test_other_hooks(self, answer, reference, rng):
        "other hooks act in the same run, and first"
        for model, tokens, d in models(rng):
            hooks = [(self.name, lambda x: 2 * x + 1), ("blocks.1.hook_resid_post", lambda x: -x)]
            case = model, tokens, [self.name, "blocks.1.hook_resid_post"], draw(rng, 1, d)
            with torch.no_grad():
                expect_close(answer(*case, hooks=hooks), reference(*case, hooks=hooks), **CLOSE)

    def test_past_the_hook(self, answer, rng):
        "a tensor that goes past the hook point stays as it is"
        model, tokens = Stream(rng), torch.randint(7, (3, 5), generator=rng)
        for at in (None, torch.tensor([4, 0, 2])):
            out = answer(model, tokens, ["hook"], draw(rng, 2, 4), positions=at).detach()
            expect_shape(out, (3, 5, 8))
            expect_close(out[..., 4:], model.W_E[tokens].detach(), note="What goes past the hook point has changed.")

    def test_gradients(self, answer, reference, rng):
        "gradients reach the weights, where they are on"
        for model, tokens, d in models(rng):
            for at in (None, torch.randint(tokens.shape[1], (len(tokens),), generator=rng)):
                case = model, tokens, [self.name], draw(rng, 1, d)
                found = answer(*case, positions=at)
                expect(
                    found.requires_grad, "The result has no graph: gradients are off in your run.", actual="no graph"
                )
                ours = torch.autograd.grad(reference(*case, positions=at).square().sum(), model.W_E)[0]
                expect_close(torch.autograd.grad(found.square().sum(), model.W_E)[0], ours, rtol=1e-3, atol=1e-3)

    def test_the_model_is_as_it_was(self, answer, rng):
        "no hook is left on the model"
        for model, tokens, d in models(rng):
            with torch.no_grad():
                before = model(tokens)
                answer(model, tokens, [self.name], draw(rng, 1, d))
                expect_close(model(tokens), before, note="The model puts out something else afterwards.")

    def test_bad_input(self, answer, rng):
        "positions outside the prompts are refused, negative ones too; so is a hook point that is not there"
        for model, tokens, d in models(rng):
            case = model, tokens, [self.name], draw(rng, 1, d)
            for wrong in (-1, tokens.shape[1]):
                at = torch.zeros(len(tokens), dtype=torch.long)
                at[-1] = wrong
                expect_raises(ValueError, lambda at=at, case=case: answer(*case, positions=at))
            expect_raises(ValueError, answer, model, tokens, ["blocks.7.hook_resid_post"], draw(rng, 1, d))


def costs(rng, sizes, draws):
    """Units of several sizes with numbers out of order, in which removing costs about 2 and random draws up to 1."""
    units = torch.cat([torch.full((n,), 3 * i % 7) for i, n in enumerate(sizes)])
    units = units[torch.randperm(len(units), generator=rng)]
    intact = torch.randn(len(units), generator=rng) + units
    erased = intact - 2 - 0.5 * units - torch.randn(len(units), generator=rng)
    random = intact - torch.rand(draws, 1, generator=rng) - 0.3 * torch.randn(draws, len(units), generator=rng)
    return intact, erased, random, units


class TestAmnesicEffect:
    exercise = "amnesic_effect"

    def test_values(self, answer, reference, rng):
        "units of several sizes, several draws and one"
        for sizes, draws in (((1, 5, 2, 9), 6), ((3, 3), 1), ((2, 1, 1, 7, 4, 3), 12)):
            case = costs(rng, sizes, draws)
            expect_close(answer(*case), reference(*case), **CLOSE)

    def test_each_unit_counts_once(self, answer):
        "a unit with many prompts counts no more than one with a single prompt"
        intact, units = torch.zeros(5), torch.tensor([0, 1, 1, 1, 1])
        erased, random = torch.tensor([-4.0, 0.0, 0.0, 0.0, 0.0]), torch.zeros(3, 5)
        found = answer(intact, erased, random, units)
        expect_close({k: found[k] for k in ("drop", "random", "effect")}, {"drop": 2.0, "random": 0.0, "effect": 2.0})

    def test_p(self, answer):
        "p counts the draws that cost at least as much, and never reaches 0"
        intact, units = torch.zeros(4), torch.arange(4)
        erased = torch.tensor([-1.0, -3.0, -1.0, -3.0])
        for costly, p in ((0, 1 / 5), (2, 3 / 5), (4, 1.0)):
            random = torch.zeros(4, 4)
            random[:costly] = -2.0  # as much as the direction itself
            expect_close(answer(intact, erased, random, units)["p"], p, atol=1e-6)

    def test_what_p_compares(self, answer):
        "p goes by costs over units, neither by prompts, by effects, nor by what a draw gains"
        intact, units = torch.zeros(5), torch.tensor([0, 1, 1, 1, 1])
        erased = torch.tensor([-4.0, 0.0, 0.0, 0.0, 0.0])  # drop: 2; over prompts 0.8
        for costs, p in (
            ([[0.0, 2.0, 2.0, 2.0, 2.0]] + 3 * [5 * [0.0]], 1 / 5),  # a cost of 1; over prompts 1.6
            (4 * [5 * [1.5]], 1 / 5),  # the effect is 0.5
            (3 * [5 * [-3.0]] + [5 * [3.0]], 2 / 5),
        ):
            expect_close(answer(intact, erased, -torch.tensor(costs), units)["p"], p, atol=1e-6)

    def test_numbers(self, answer, rng):
        "plain numbers under six names"
        found = answer(*costs(rng, (2, 3, 4), 5))
        expect(isinstance(found, dict), "The result is a dict.", actual=type(found).__name__)
        names = ["drop", "random", "effect", "low", "high", "p"]
        expect(sorted(found) == sorted(names), "The names are other ones.", actual=sorted(found))

    def test_bad_input(self, answer, rng):
        "one unit, or no draws, are refused"
        intact, erased, random, units = costs(rng, (2, 3), 4)
        expect_raises(ValueError, answer, intact, erased, random, 0 * units)
        expect_raises(ValueError, answer, intact, erased, random[:0], units)


def two_classes(rng, n, d, n_test):
    """Classes that differ along several directions, with noise that is not the same in all of them."""
    mixing, shift = torch.randn(d, d, generator=rng), torch.randn(d, generator=rng)
    labels = torch.rand(n + n_test, generator=rng) < 0.4
    labels[:2] = torch.tensor([True, False])
    x = torch.randn(n + n_test, d, generator=rng) @ mixing + torch.where(labels, 0.7, -0.7)[:, None] * shift + 4
    return x[:n], labels[:n], x[n:], labels[n:]


def softer(x, labels):
    return least_squares_probe(x, labels, penalty=0.1)


def leaning(x, labels):
    """A probe that goes by where the activations lie, too, and leans on what has been removed from them."""
    mean, own = x.mean(0), least_squares_probe(x, labels)
    direction = nn.functional.normalize(own.direction, dim=0) + 0.5 * (mean - 4).roll(1)
    return Probe(direction, -direction @ mean)


class TestIteratedNullspace:
    exercise = "iterated_nullspace"

    def test_values(self, answer, reference, rng):
        "one probe or several, of two kinds"
        for n, d, n_test, k in ((60, 7, 31, 4), (40, 4, 23, 1), (80, 9, 40, 5)):
            for fit in (least_squares_probe, softer):
                case = *two_classes(rng, n, d, n_test), k, fit
                (directions, accuracy), (ours, our_accuracy) = answer(*case), reference(*case)
                expect_close(directions, ours, rtol=5e-3, atol=5e-3)
                # Where a score is next to nothing, another order of operations decides otherwise: one of n_test.
                expect_close(accuracy, our_accuracy, atol=1.5 / n_test)

    def test_at_right_angles(self, answer, rng):
        "directions of length 1, each at right angles to the others"
        directions, _ = answer(*two_classes(rng, 90, 8, 20), 5, least_squares_probe)
        expect_shape(directions, (5, 8))
        expect_close(directions @ directions.T, torch.eye(5), atol=1e-3)

    def test_the_first_is_the_probe(self, answer, rng):
        "row 0 is the direction of a probe on all of x, and its sign"
        x, labels, *test = two_classes(rng, 50, 6, 20)
        directions, _ = answer(x, labels, *test, 1, mass_mean_probe)
        expect_close(directions[0], nn.functional.normalize(mass_mean_probe(x, labels).direction, dim=0), **CLOSE)

    def test_the_test_is_another_set(self, answer, rng):
        "accuracy is that on the test's activations and labels"
        x, labels, x_test, labels_test = two_classes(rng, 50, 6, 20)
        fit = lambda x, labels: least_squares_probe(x, labels)  # noqa: E731
        _, accuracy = answer(x, labels, x_test, labels_test, 1, fit)
        expected = ((fit(x, labels)(x_test) > 0) == labels_test).float().mean()
        expect_close(accuracy[0], expected, atol=1e-6)
        _, turned = answer(x, labels, x_test, ~labels_test, 1, fit)
        expect_close(turned[0], 1 - expected, atol=1e-6)

    def test_any_probe(self, answer, reference, rng):
        "a probe that leans on what was removed, a test that lies elsewhere; all about the mean of x"
        for _ in range(3):
            x, labels, x_test, labels_test = two_classes(rng, 60, 6, 200)
            case = x, labels, x_test + 2 * torch.randn(6, generator=rng), labels_test, 4, leaning
            (directions, accuracy), (ours, our_accuracy) = answer(*case), reference(*case)
            expect_close(directions, ours, rtol=5e-3, atol=5e-3)
            expect_close(accuracy, our_accuracy, atol=1.5 / 200)

    def test_as_many_as_dimensions(self, answer, rng):
        "as many probes as there are dimensions"
        directions, accuracy = answer(*two_classes(rng, 40, 2, 10), 2, least_squares_probe)
        expect_shape(accuracy, (2,))
        expect_close(directions @ directions.T, torch.eye(2), atol=1e-3)

    def test_bad_input(self, answer, rng):
        "no probe, or more than there are dimensions, are refused"
        for k in (0, 5):
            expect_raises(ValueError, answer, *two_classes(rng, 30, 4, 10), k, least_squares_probe)
