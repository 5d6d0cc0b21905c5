"""Checks for the decomposition of a weight matrix of a language model, and for what can be asked of it."""

import torch
from torch import nn

from utils.course.checking import expect, expect_close, expect_shape
from utils.spd.components import RankOneComponents
from utils.spd.losses import mean_squared_error


def drawn_seed(rng):
    return int(torch.randint(1_000_000, (), generator=rng))


def generator(seed):
    return torch.Generator().manual_seed(seed)


def random_components(rng, d_in, d_out, C):
    components = RankOneComponents(d_in, d_out, C).requires_grad_(False)
    for q in components.parameters():
        q.copy_(torch.randn(q.shape, generator=rng))
    return components


class Ending(nn.Module):
    """Something bent, as a norm is, and an unembedding."""

    def __init__(self, rng, d, vocab):
        super().__init__()
        self.register_buffer("W", torch.randn(d, vocab, generator=rng))

    def forward(self, resid):
        return (resid - resid.mean(dim=-1, keepdim=True)).tanh() @ self.W


def lopsided(output, wanted):
    """A distance that is not the same the other way round."""
    off = 0.3 * (output - wanted)
    return (off.exp() - off).mean()


class TestKlDistance:
    exercise = "kl_distance"

    def test_values(self, answer, rng):
        "random logits, with one and two batch dimensions"
        for shape in ((4, 6), (2, 3, 5), (1, 2)):
            logits, wanted = 2 * torch.randn(shape, generator=rng), 2 * torch.randn(shape, generator=rng)
            p, q = wanted.softmax(-1), logits.softmax(-1)
            found = answer(logits, wanted)
            expect_shape(found, ())
            expect_close(found, (p * (p / q).log()).sum(-1).mean(), rtol=1e-4, atol=1e-5)

    def test_properties(self, answer, rng):
        "0 for the same predictions, whatever is added to all words' logits; above 0 for others"
        logits = torch.randn(3, 7, generator=rng)
        expect_close(answer(logits + 3 * torch.randn(3, 1, generator=rng), logits), torch.tensor(0.0), atol=1e-5)
        expect(answer(logits, logits.roll(1, dims=1)) > 0, "It is not above 0.", actual="not above 0")

    def test_sure_predictions(self, answer):
        "very sure predictions: no 0 · log 0"
        logits, wanted = torch.tensor([[0.0, 200.0, -200.0]]), torch.tensor([[300.0, 0.0, -300.0]])
        expect_close(answer(logits, wanted), torch.tensor(200.0), rtol=1e-4)

    def test_gradients(self, answer, rng):
        "the gradient for the logits is q − p, over the number of rows"
        logits, wanted = torch.randn(3, 5, generator=rng).requires_grad_(), torch.randn(3, 5, generator=rng)
        found = answer(logits, wanted)
        expect(found.requires_grad, "The distance carries no graph.", actual="no graph")
        (pull,) = torch.autograd.grad(found, logits)
        expect_close(pull, (logits.softmax(-1) - wanted.softmax(-1)).detach() / 3, rtol=1e-3, atol=1e-5)


class TestSpdOnCourseModel:
    exercise = "spd_on_course_model"

    def given(self, rng, n=9, d_mlp=5, d=3, vocab=4):
        return torch.randn(n, d_mlp + d, generator=rng), torch.randn(d_mlp, d, generator=rng), Ending(rng, d, vocab)

    def test_forward(self, answer, rng):
        "the network that is returned: from the matrix on, for rows of any batch dimensions"
        x, W, ending = self.given(rng)
        forward = answer(x, W, ending, C=4, price=0.1, n_steps=1)[0]
        rows = torch.randn(2, 3, 8, generator=rng)
        found = forward(rows, lambda name, a: 0.5 * (a @ W))
        expect_close(found, ending(rows[..., 5:] + 0.5 * (rows[..., :5] @ W)), rtol=1e-4, atol=1e-4)

    def test_values(self, answer, reference, rng):
        "a few steps: components, gates and losses, at two settings"
        for sizes, settings in (
            ((9, 5, 3, 4), {"C": 4, "price": 0.03, "n_steps": 4}),
            ((6, 2, 4, 5), {"C": 5, "price": 0.5, "n_steps": 5, "lr": 0.03, "batch": 7}),
        ):
            given, seed = self.given(rng, *sizes), drawn_seed(rng)
            _, (components, gates, history) = answer(*given, seed=seed, **settings)
            wanted = reference(*given, seed=seed, **settings)[1]
            for name in ("faithfulness", "stochastic", "layerwise", "minimality"):
                expect_close(
                    torch.tensor(history[name]), torch.tensor(wanted.history[name]), rtol=1e-3, atol=1e-5,
                    note=f"The {name} loss differs.",
                )  # fmt: skip
            expect_close(components["W_out"].V, wanted.components["W_out"].V, rtol=1e-3, atol=1e-4)
            expect_close(gates["W_out"].b_out, wanted.gates["W_out"].b_out, rtol=1e-3, atol=1e-4)


class TestWhatItWrites:
    exercise = "what_it_writes"

    def test_values(self, answer, reference, rng):
        "random components, needs and unembeddings"
        for n, d_in, d_out, C, vocab in ((9, 4, 5, 6, 7), (3, 2, 3, 2, 4), (12, 6, 2, 3, 5)):
            components = random_components(rng, d_in, d_out, C)
            a = torch.randn(n, d_in, generator=rng) + 1
            needed = torch.rand(n, C, generator=rng) < 0.5
            W_U = torch.randn(d_out, vocab, generator=rng)
            found = answer(components, a, needed, W_U)
            expect_shape(found, (C, vocab))
            expect_close(found, reference(components, a, needed, W_U), rtol=1e-3, atol=1e-4)

    def test_never_needed(self, answer, rng):
        "a component that no input needs: zeros"
        components = random_components(rng, 3, 4, 3)
        needed = torch.ones(5, 3, dtype=torch.bool)
        needed[:, 1] = False
        found = answer(components, torch.randn(5, 3, generator=rng), needed, torch.randn(4, 6, generator=rng))
        expect_close(found[1], torch.zeros(6))

    def test_sign(self, answer, rng):
        "V and U turned round together write the same"
        components = random_components(rng, 3, 4, 2)
        a, needed = torch.randn(6, 3, generator=rng), torch.rand(6, 2, generator=rng) < 0.7
        needed[0] = True
        W_U = torch.randn(4, 5, generator=rng)
        before = answer(components, a, needed, W_U)
        turned = random_components(rng, 3, 4, 2)
        turned.V.copy_(-components.V)
        turned.U.copy_(-components.U)
        expect_close(answer(turned, a, needed, W_U), before, rtol=1e-3, atol=1e-4)


class TestAdversarialMasks:
    exercise = "adversarial_masks"

    def given(self, rng, sizes=((4, 3), (3, 5)), C=4, batch=3):
        names = ("first", "second")
        weights = {name: torch.randn(*size, generator=rng) for name, size in zip(names, sizes, strict=True)}
        components = {name: random_components(rng, *size, C) for name, size in zip(names, sizes, strict=True)}

        def forward(x, linear):
            return linear("second", linear("first", x).tanh())

        x = torch.randn(batch, sizes[0][0], generator=rng)
        wanted = forward(x, lambda name, a: a @ weights[name])
        needed = {name: torch.rand(batch, C, generator=rng) < 0.4 for name in names}
        return forward, weights, components, x, wanted, needed

    def test_values(self, answer, reference, rng):
        "two matrices, several numbers of steps and lengths of a step"
        for n_steps, step in ((1, 0.2), (3, 0.13), (0, 0.2)):
            given = self.given(rng)
            found = answer(*given, lopsided, n_steps, step)
            wanted = reference(*given, lopsided, n_steps, step)
            expect(
                isinstance(found, dict) and set(found) == set(wanted),
                "Masks by name of matrix are asked for.",
                actual=sorted(found) if isinstance(found, dict) else type(found).__name__,
            )
            for name, mask in wanted.items():
                expect(not found[name].requires_grad, "Your masks carry gradients.", actual="requires grad")
                expect_close(found[name], mask, atol=1e-5, note=f"The masks of {name!r} differ.")

    def test_bounds(self, answer, rng):
        "many steps: between 0 and 1, and what is needed stays at 1"
        given = self.given(rng)
        found = answer(*given, mean_squared_error)
        for name, mask in found.items():
            expect(bool(((mask >= 0) & (mask <= 1)).all()), "A mask leaves 0 to 1.", actual="bounds")
            expect(bool((mask[given[-1][name]] == 1).all()), "A needed component's mask is not 1.", actual="needed")

    def test_turning(self, answer):
        "masks whose gradient turns round on the way: brought back at every step, and the last ones returned"
        identity = RankOneComponents(2, 2, 2).requires_grad_(False)
        identity.V.copy_(torch.eye(2))
        identity.U.copy_(torch.eye(2))
        names = ("first", "second")

        def forward(x, linear):
            return torch.cat([linear(name, x) for name in names], dim=1)

        def distance(output, wanted):
            rising, bent, turning, steady = output[0]
            return 2 * rising + steady - 5 * (bent - 0.62).square() + turning * (0.95 - rising)

        x = torch.ones(1, 2)
        found = answer(
            forward, dict.fromkeys(names, torch.eye(2)), dict.fromkeys(names, identity), x, torch.ones(1, 4),
            dict.fromkeys(names, torch.zeros(1, 2, dtype=torch.bool)), distance, 4, 0.2,
        )  # fmt: skip
        expect_close(found["first"], torch.tensor([[1.0, 0.5]]), atol=1e-5)
        expect_close(found["second"], torch.tensor([[0.8, 1.0]]), atol=1e-5)

    def test_no_gradient(self, answer, rng):
        "a mask without influence stays at one half"
        forward, weights, components, x, wanted, needed = self.given(rng)
        components["first"].U[0] = 0.0
        needed["first"][:, 0] = False
        found = answer(forward, weights, components, x, wanted, needed, mean_squared_error, 4, 0.1)
        expect_close(found["first"][:, 0], torch.full((3,), 0.5), atol=1e-6)
