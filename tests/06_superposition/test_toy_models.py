"""Checks for the toy models: their features, the models, their loss, and what a linear one could reach."""

from pathlib import Path

import torch

from utils.course.checking import (
    expect,
    expect_close,
    expect_raises,
    expect_same_gradients,
    expect_shape,
)
from utils.course.paths import load_file
from utils.superposition.toy import ToyModel, toy_loss

common = load_file(Path(__file__).with_name("common_toy.py"))

MANY = 6000  # examples: a share is then known to within 5 standard deviations, 0.033


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def drawn_seed(rng):
    return int(torch.randint(1_000_000, (), generator=rng))


class TestSampleFeatures:
    exercise = "sample_features"

    def test_shapes(self, answer, rng):
        "[model, batch, feature], also for a number and for one model, feature, or example"
        for n_features, batch, p, n_models in (
            (5, 3, 0.3, 1),
            (4, 7, torch.tensor([0.1, 0.2, 0.9]), 3),
            (4, 3, torch.rand(2, 4, generator=rng), 2),
            (1, 1, torch.tensor([0.5]), 1),
            (3, 2, 1, 1),
        ):
            expect_shape(answer(n_features, batch, p, seeded(0)), (n_models, batch, n_features))

    def test_share_on(self, answer, rng):
        "each feature is on as often as its probability says: a number, one for each model, one for each feature"
        for n_features, p in (
            (3, 0.2),
            (2, torch.tensor([0.05, 0.5, 0.9])),
            (3, torch.tensor([0.1, 0.4, 0.8])),  # as many models as features: still one for each model
            (3, torch.tensor([[0.1, 0.4, 0.8], [0.7, 0.2, 0.05]])),
            (4, torch.tensor([[0.1, 0.3, 0.5, 0.9]])),
        ):
            found = answer(n_features, MANY, p, seeded(drawn_seed(rng)))
            wanted = torch.as_tensor(p).reshape(1, 1) if isinstance(p, float) else p.reshape(len(p), -1)
            wanted = wanted.expand(wanted.shape[0], n_features)
            expect_shape(found, (len(wanted), MANY, n_features))
            common.expect_shares(found, wanted, 0.035)

    def test_never_and_always(self, answer):
        "probability 0 is never on, and 1 always"
        expect_close(answer(3, 50, 0.0, seeded(1)), torch.zeros(1, 50, 3))
        found = answer(2, MANY, torch.tensor([[0.0, 1.0]]), seeded(2))
        expect_shape(found, (1, MANY, 2))
        expect((found[..., 0] == 0).all(), "A feature of probability 0 is on.", actual="on at 0")
        expect((found[..., 1] != 0).float().mean() > 0.999, "A feature of probability 1 is off.", actual="off at 1")

    def test_uniform_when_on(self, answer, rng):
        "from 0 to 1, uniform where it is on, whatever the probability"
        for p in (0.3, 0.95):
            found = answer(4, MANY, p, seeded(drawn_seed(rng)))
            expect_shape(found, (1, MANY, 4))
            expect(((found >= 0) & (found <= 1)).all(), "A feature lies outside 0 to 1.", actual=found)
            on = found[found != 0]
            expect(len(on) > 100, "Hardly any feature is on.", actual="few on")
            shares = torch.stack([(on < x).float().mean() for x in (0.25, 0.5, 0.75)])
            expect_close(
                shares, torch.tensor([0.25, 0.5, 0.75]), atol=0.035, rtol=0,
                note="A quarter, half and three quarters of the values that are on should lie below 1/4, 1/2 and 3/4.",
            )  # fmt: skip

    def test_independent(self, answer, rng):
        "features, examples and models have draws of their own"
        found = answer(3, MANY, torch.tensor([0.5, 0.5]), seeded(drawn_seed(rng)))
        expect_shape(found, (2, MANY, 3))
        for what, values in (("features", found[0].T), ("models", found[:, :, 0])):
            for kind, rows in (("are on", (values != 0).double()), ("have sizes", values.double())):
                together = torch.corrcoef(rows)
                off = together[~torch.eye(len(rows), dtype=torch.bool)]
                expect(
                    (off.abs() < 0.09).all(),
                    f"Different {what} {kind} that go together: they are not drawn independently.",
                    actual=(what, kind),
                )
        row = found[0, :, 0].double()
        expect(
            torch.corrcoef(torch.stack([row[1:], row[:-1]]))[0, 1].abs() < 0.09,
            "An example goes with the one before it: examples are not drawn independently.",
            actual="examples",
        )

    def test_generator(self, answer):
        "the generator decides: the same seed gives the same features, another other ones"
        p = torch.tensor([0.5, 0.3])
        first, again, other = (answer(4, 6, p, seeded(seed)) for seed in (3, 3, 4))
        expect_close(again, first, note="The same seed gave other features.")
        expect(not torch.equal(first, other), "Another seed gives the same features.", actual="seed ignored")

    def test_global(self, answer):
        "without a generator, torch's global one decides"
        first, again, other = common.from_global(lambda: answer(4, 6, 0.5))
        expect_close(again, first, note="At the same seed of torch's global generator, the features are others.")
        expect(
            not torch.equal(first, other),
            "Without a generator you give the same features whatever the seed of torch's global one.",
            actual="always the same",
        )

    def test_dtype(self, answer):
        "in the default dtype, whatever that of p"
        found = answer(2, 3, torch.tensor([0.5, 0.2], dtype=torch.float64), seeded(0))
        expect(found.dtype == torch.get_default_dtype(), "The features have another dtype.", actual=str(found.dtype))

    def test_bad_input(self, answer):
        "probabilities outside 0 to 1, and a p that does not fit, are refused"
        for p in (1.5, -0.1, torch.tensor([0.2, 1.01]), torch.tensor([[0.1, -0.2, 0.3, 0.4]])):
            expect_raises(ValueError, answer, 4, 3, p, seeded(0))
        for shape in ((2, 3), (2, 1), (2, 3, 4)):
            expect_raises(ValueError, answer, 4, 3, torch.full(shape, 0.5), seeded(0))


SIZES = ((3, 5, 2, 7), (1, 4, 6, 1), (2, 1, 1, 3))  # models, features, dimensions, batch


def random_state(rng, n_models, n_features, d_hidden):
    return {
        "W": torch.randn(n_models, d_hidden, n_features, generator=rng),
        "b": torch.randn(n_models, n_features, generator=rng),
    }


class TestToyModel:
    exercise = "ToyModel"

    def test_parameters(self, answer):
        "the parameters W and b, and nothing else"
        for n_models, n_features, d_hidden, _ in SIZES:
            module = answer(n_models, n_features, d_hidden, generator=seeded(0))
            shapes = {name: tuple(value.shape) for name, value in module.state().items()}
            expected = {"W": (n_models, d_hidden, n_features), "b": (n_models, n_features)}
            expect(
                shapes == expected,
                "The parameters' names or shapes differ.",
                actual=sorted(shapes.items()),
                expected=str(expected),
            )
            expect(
                sorted(module.parameter_names()) == ["W", "b"],
                "W and b must be parameters, so that an optimiser finds them.",
                actual=sorted(module.parameter_names()),
            )

    def test_start(self, answer, reference):
        "where the weights start: as the docstring says, from the generator"
        for n_models, n_features, d_hidden, _ in SIZES:
            for seed in (0, 5):
                state = answer(n_models, n_features, d_hidden, generator=seeded(seed)).state()
                expected = reference(n_models, n_features, d_hidden, generator=seeded(seed)).state_dict()
                expect_close(state, dict(expected), note="The weights start elsewhere.")

    def test_global(self, answer):
        "without a generator, torch's global one decides"
        first, again, other = common.from_global(lambda: answer(2, 4, 3).state()["W"].clone())
        expect_close(again, first, note="At the same seed of torch's global generator, the weights start elsewhere.")
        expect(
            not torch.equal(first, other),
            "Without a generator you give the same starting weights whatever the seed of torch's global one.",
            actual="always the same",
        )

    def test_values(self, answer, reference, rng):
        "with random weights and biases: ReLU(Wᵀ W x + b)"
        for n_models, n_features, d_hidden, batch in SIZES:
            state = random_state(rng, n_models, n_features, d_hidden)
            theirs = answer(n_models, n_features, d_hidden, generator=seeded(0))
            ours = reference(n_models, n_features, d_hidden, generator=seeded(0))
            theirs.load(state)
            ours.load_state_dict(state)
            features = torch.rand(n_models, batch, n_features, generator=rng)
            expect_close(theirs(features).detach(), ours(features).detach(), rtol=1e-4, atol=1e-4)

    def test_linear(self, answer, rng):
        "without ReLU where that is asked for"
        state = random_state(rng, 2, 4, 3)
        module = answer(2, 4, 3, relu=False, generator=seeded(0))
        module.load(state)
        features = torch.rand(2, 5, 4, generator=rng)
        expected = torch.stack([x @ W.T @ W + b for x, W, b in zip(features, *state.values(), strict=True)])
        expect_close(module(features).detach(), expected, rtol=1e-4, atol=1e-4)

    def test_models_apart(self, answer, rng):
        "one model's weights and examples have no say in another's output"
        state = random_state(rng, 3, 4, 2)
        module = answer(3, 4, 2, generator=seeded(0))
        module.load(state)
        features = torch.rand(3, 5, 4, generator=rng)
        before = module(features).detach()
        expect_shape(before, (3, 5, 4))
        features[1] = torch.rand(5, 4, generator=rng)
        state["W"][1], state["b"][1] = torch.randn(2, 4, generator=rng), torch.randn(4, generator=rng)
        module.load(state)
        expect_close(module(features).detach()[[0, 2]], before[[0, 2]], note="Model 1 changed the outputs of others")

    def test_gradients(self, answer, reference, rng):
        "gradients reach W, b and the features"
        state = random_state(rng, 2, 4, 3)
        weights = torch.randn(2, 5, 4, generator=rng)
        features = torch.rand(2, 5, 4, generator=rng).requires_grad_()
        theirs, ours = answer(2, 4, 3, generator=seeded(0)), reference(2, 4, 3, generator=seeded(0))
        theirs.load(state)
        ours.load_state_dict(state)
        out = theirs(features)
        expect_shape(out, (2, 5, 4))
        expect(out.requires_grad, "The result carries no graph.", actual="requires_grad=False")
        found = torch.autograd.grad((out * weights).sum(), [*theirs.parameters(), features], allow_unused=True)
        expect(all(g is not None for g in found), "A parameter, or the input, gets no gradient.", actual="no gradient")
        named = dict(zip([tuple(p.shape) for p in (*theirs.parameters(), features)], found, strict=True))
        wanted = [*ours.parameters(), features]
        expected = torch.autograd.grad((ours(features) * weights).sum(), wanted)
        for parameter, gradient in zip(wanted, expected, strict=True):
            expect_close(named[tuple(parameter.shape)], gradient, note="A gradient differs", rtol=1e-3, atol=1e-3)


class TestToyLoss:
    exercise = "toy_loss"

    def test_values(self, answer, reference, rng):
        "random outputs and features, with importances of every kind: none, for all models, for each"
        for n_models, batch, n_features in ((3, 5, 4), (1, 1, 2), (2, 7, 1), (4, 2, 4)):
            output, features = (torch.randn(n_models, batch, n_features, generator=rng) for _ in range(2))
            for shape in (None, (n_features,), (n_models, n_features)):
                importance = None if shape is None else 0.2 + torch.rand(shape, generator=rng)
                expect_close(answer(output, features, importance), reference(output, features, importance))

    def test_by_hand(self, answer):
        "a sum over features, a mean over examples"
        features = torch.tensor([[[1.0, 0.0], [0.0, 0.0]]])
        output = torch.tensor([[[0.0, 0.0], [0.0, 2.0]]])
        expect_close(answer(output, features), torch.tensor([2.5]))
        expect_close(answer(output, features, torch.tensor([1.0, 0.5])), torch.tensor([1.5]))

    def test_nothing_lost(self, answer, rng):
        "0 for outputs that equal the features, importance or not"
        features = torch.rand(2, 3, 4, generator=rng)
        expect_close(answer(features.clone(), features, torch.rand(4, generator=rng)), torch.zeros(2))

    def test_gradients(self, answer, reference, rng):
        "gradients reach the output"
        output, features = (torch.rand(3, 5, 4, generator=rng) for _ in range(2))
        expect_same_gradients(answer, reference, output, features, torch.rand(3, 4, generator=rng) + 0.1, rng=rng)


class TestBestLinearLoss:
    exercise = "best_linear_loss"

    def test_values(self, answer, reference, rng):
        "random probabilities and importances, for one model and for several"
        for shape, d_hidden in (((5,), 2), ((3, 6), 4), ((1, 4), 1), ((2, 3, 5), 3), ((1,), 1)):
            p = torch.rand(shape, generator=rng)
            expect_close(answer(p, d_hidden), reference(p, d_hidden), rtol=1e-4, atol=1e-6)
            importance = 0.1 + torch.rand(shape[-1], generator=rng)
            expect_close(answer(p, d_hidden, importance), reference(p, d_hidden, importance), rtol=1e-4, atol=1e-6)

    def test_known(self, answer):
        "always on: 1/12 for each feature that finds no place; room for all: nothing"
        expect_close(answer(torch.ones(5), 2), torch.tensor(3 / 12))
        expect_close(answer(torch.full((4,), 0.5), 3), torch.tensor(0.5 / 3 - 0.25 / 4))
        for d_hidden in (3, 4):
            expect_close(answer(torch.tensor([0.2, 0.5, 1.0]), d_hidden), torch.tensor(0.0))

    def test_what_is_kept(self, answer):
        "what counts is importance times variance: a rare feature gives way, however important"
        p, importance = torch.tensor([0.01, 0.6, 0.3, 0.9]), torch.tensor([3.0, 1.0, 0.1, 0.9])
        costs = importance * (p / 3 - p**2 / 4)
        expect_close(answer(p, 2, importance), costs[[0, 2]].sum())

    def test_nobody_does_better(self, answer, rng):
        "no projection of the features does better"
        p, importance = torch.tensor([0.9, 0.2, 0.6, 0.4]), torch.tensor([0.3, 1.0, 0.7, 0.9])
        best = answer(p, 2, importance)
        expect_shape(best, ())
        for _ in range(20):
            basis = torch.linalg.qr(torch.randn(4, 2, generator=rng)).Q
            missed = torch.eye(4) - basis @ basis.T
            lost = (importance[:, None] * missed.square() * (p / 3 - p**2 / 4)).sum()
            expect(best <= lost + 1e-6, "A random projection loses less.", actual=best)


def test_the_sum_of_the_losses_trains_each_model_alone():
    """What the loss's docstring promises, on the real thing."""
    model = ToyModel(3, 4, 2, generator=seeded(0))
    features = torch.rand(3, 6, 4, generator=seeded(1))
    losses = toy_loss(model(features), features)
    together = torch.autograd.grad(losses.sum(), model.W, retain_graph=True)[0]
    for i in range(3):
        alone = torch.autograd.grad(losses[i], model.W, retain_graph=True)[0]
        torch.testing.assert_close(alone[i], together[i])
        assert not alone[[j for j in range(3) if j != i]].any()
