"""Checks for the residual MLP and its decomposition."""

import torch

from utils.course.checking import expect, expect_close, expect_shape
from utils.spd.components import RankOneComponents
from utils.spd.gates import ComponentGates

SIZES = ((3, 5, 4, (6,)), (1, 2, 3, (2,)), (4, 4, 2, (3, 2)), (2, 3, 5, ()))  # features, d, neurons, batch


def drawn_seed(rng):
    return int(torch.randint(1_000_000, (), generator=rng))


def random_network(rng, n_features, d, d_mlp):
    W_E = torch.randn(n_features, d, generator=rng)
    return W_E, {
        "W_in": torch.randn(d, d_mlp, generator=rng),
        "W_out": torch.randn(d_mlp, d, generator=rng),
    }


class TestResidualMlpForward:
    exercise = "residual_mlp_forward"

    def test_values(self, answer, rng):
        "random embeddings and weights, any batch dimensions: the MLP beside the stream, read back"
        for n_features, d, d_mlp, batch in SIZES:
            W_E, weights = random_network(rng, n_features, d, d_mlp)
            x = 4 * torch.randn(*batch, n_features, generator=rng)
            r = x @ W_E
            wanted = (r + (r @ weights["W_in"]).relu() @ weights["W_out"]) @ W_E.T
            found = answer(W_E)(x, lambda name, a, weights=weights: a @ weights[name])
            expect_shape(found, (*batch, n_features))
            expect_close(found, wanted, rtol=1e-4, atol=1e-3)

    def test_through_linear(self, answer, rng):
        "whatever linear does to the two matrices, and what comes into each"
        W_E, weights = random_network(rng, 3, 5, 4)
        x = torch.randn(2, 3, generator=rng)
        came = {}

        def linear(name, a):
            came[name] = a
            return 0.3 * (a @ weights[name]) + 1

        r = x @ W_E
        hidden = (0.3 * (r @ weights["W_in"]) + 1).relu()
        found = answer(W_E)(x, linear)
        expect(set(came) == {"W_in", "W_out"}, "linear is asked for 'W_in' and 'W_out'.", actual=sorted(came))
        expect_close(came["W_in"], r, rtol=1e-4, atol=1e-4, note="Something else comes into W_in.")
        expect_close(came["W_out"], hidden, rtol=1e-4, atol=1e-4, note="Something else comes into W_out.")
        expect_close(found, (r + 0.3 * (hidden @ weights["W_out"]) + 1) @ W_E.T, rtol=1e-4, atol=1e-4)

    def test_gradients(self, answer, rng):
        "gradients reach what linear gives, for both matrices"
        W_E, weights = random_network(rng, 3, 5, 4)
        for W in weights.values():
            W.requires_grad_()
        x = torch.randn(6, 3, generator=rng)
        r = x @ W_E
        wanted = (r + (r @ weights["W_in"]).relu() @ weights["W_out"]) @ W_E.T
        found = answer(W_E)(x, lambda name, a: a @ weights[name])
        expect(found.requires_grad, "The output carries no graph.", actual="no graph")
        pulls = torch.autograd.grad(found.square().sum(), list(weights.values()), allow_unused=True)
        right = torch.autograd.grad(wanted.square().sum(), list(weights.values()))
        for name, pull, due in zip(weights, pulls, right, strict=True):
            expect(pull is not None, f"No gradient reaches {name}.", actual=("no gradient", name))
            expect_close(pull, due, rtol=1e-3, atol=1e-2, note=f"This is the gradient for {name}.")


class TestResidualMlpSpd:
    exercise = "residual_mlp_spd"

    def test_values(self, answer, reference, rng):
        "a few steps: components, gates and losses, at two settings"
        for sizes, settings in (
            ((3, 5, 4), {"C": 6, "price": 0.02, "n_steps": 5}),
            ((4, 4, 2), {"C": 3, "price": 0.4, "n_steps": 4, "lr": 0.03, "batch": 5}),
        ):
            W_E, weights = random_network(rng, *sizes)
            seed = drawn_seed(rng)
            found = answer(W_E, weights, seed=seed, **settings)
            wanted = reference(W_E, weights, seed=seed, **settings)
            expect(
                isinstance(found, tuple) and len(found) == 3,
                "What train_spd returns is asked for.",
                actual=type(found).__name__,
            )
            components, gates, history = found
            for name in ("faithfulness", "stochastic", "layerwise", "minimality"):
                expect_close(
                    torch.tensor(history[name]), torch.tensor(wanted.history[name]), rtol=1e-3, atol=1e-5,
                    note=f"The {name} loss differs.",
                )  # fmt: skip
            for name in weights:
                expect_close(components[name].V, wanted.components[name].V, rtol=1e-3, atol=1e-4)
                expect_close(gates[name].b_out, wanted.gates[name].b_out, rtol=1e-3, atol=1e-4)


class TestImportanceByFeature:
    exercise = "importance_by_feature"

    def given(self, rng, n_features, d, C):
        components, gates = RankOneComponents(d, 3, C), ComponentGates(C, 5)
        for module in (components, gates):
            for q in module.requires_grad_(False).parameters():
                q.copy_(torch.randn(q.shape, generator=rng))
        return gates, components, torch.randn(n_features, d, generator=rng)

    def test_values(self, answer, reference, rng):
        "random gates: the values of the docstring, and others"
        for n_features, d, C in ((4, 6, 5), (1, 3, 2), (3, 2, 7)):
            given = self.given(rng, n_features, d, C)
            for more in ({}, {"values": (-2.0, 1.5, 0.1)}):
                found = answer(*given, **more)
                expect_shape(found, (n_features, C))
                expect_close(found, reference(*given, **more), rtol=1e-4, atol=1e-5)

    def test_one_value(self, answer, reference, rng):
        "one value alone, of either sign"
        for value in (0.3, -0.4):
            given = self.given(rng, 5, 6, 7)
            expect_close(answer(*given, (value,)), reference(*given, (value,)), rtol=1e-4, atol=1e-5)

    def test_one_sign(self, answer, rng):
        "a component that is needed for one sign of a feature alone counts as needed; nothing is below 0"
        gates, components, W_E = self.given(rng, 3, 3, 3)
        W_E = torch.eye(3)
        components.V.copy_(torch.eye(3))
        gates.W_in.zero_()
        gates.W_in[:, 0] = -4.0
        gates.b_in.zero_()
        gates.W_out.zero_()
        gates.W_out[:, 0] = 0.25
        gates.b_out.fill_(-0.1)
        found = answer(gates, components, W_E, (-0.8, 0.8))
        expect(
            (found.diagonal() > 0.5).all(), "A component that is needed for negative values is missed.", actual="missed"
        )
        expect((found >= 0).all(), "An importance is below 0.", actual="below 0")
