"""Checks for the sparse autoencoder, its loss, and the point where b_dec begins."""

import torch

from utils.course.checking import expect, expect_close, expect_shape

SIZES = ((3, 7, 5), (6, 2, 4), (1, 3, 1))  # d_in, d_sae, batch


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def random_state(rng, d_in, d_sae):
    shapes = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
    return {name: torch.randn(shape, generator=rng) for name, shape in shapes.items()}


class TestSparseAutoencoder:
    exercise = "SparseAutoencoder"

    def test_parameters(self, answer):
        "four parameters, with the names and shapes of the docstring"
        for d_in, d_sae, _ in SIZES:
            module = answer(d_in, d_sae, generator=seeded(0))
            shapes = {name: tuple(value.shape) for name, value in module.state().items()}
            expected = {"W_enc": (d_in, d_sae), "b_enc": (d_sae,), "W_dec": (d_sae, d_in), "b_dec": (d_in,)}
            expect(
                shapes == expected,
                "The parameters' names or shapes differ.",
                actual=sorted(shapes.items()), expected=str(expected),
            )  # fmt: skip
            expect(
                sorted(module.parameter_names()) == sorted(expected),
                "All four must be parameters, so that an optimiser finds them.",
                actual=sorted(module.parameter_names()),
            )

    def test_start(self, answer, reference):
        "where the weights start: as the docstring says, from the generator"
        for d_in, d_sae, _ in SIZES:
            for seed in (0, 5):
                expected = reference(d_in, d_sae, generator=seeded(seed)).state_dict()
                found = answer(d_in, d_sae, generator=seeded(seed)).state()
                expect_close(found, dict(expected), note="The weights start elsewhere.")

    def test_values(self, answer, rng):
        "with random weights and biases: the reconstruction, then the latents"
        for d_in, d_sae, batch in SIZES:
            state = random_state(rng, d_in, d_sae)
            module = answer(d_in, d_sae, generator=seeded(0))
            module.load(state)
            x = torch.randn(batch, d_in, generator=rng)
            z = (x @ state["W_enc"] + state["b_enc"]).relu()
            found = module(x)
            expect(
                isinstance(found, tuple) and len(found) == 2,
                "A call gives two things, (reconstruction, latents).",
                actual=type(found).__name__,
            )
            x_hat, latents = (part.detach() for part in found)
            expect_shape(x_hat, (batch, d_in))
            expect_shape(latents, (batch, d_sae))
            expect_close(latents, z, rtol=1e-4, atol=1e-4)
            expect_close(x_hat, z @ state["W_dec"] + state["b_dec"], rtol=1e-4, atol=1e-4)

    def test_methods(self, answer, rng):
        "encode and decode by themselves: the latents of x, and the activation that any latents stand for"
        for d_in, d_sae, batch in SIZES:
            state = random_state(rng, d_in, d_sae)
            module = answer(d_in, d_sae, generator=seeded(0))
            module.load(state)
            x, z = torch.randn(batch, d_in, generator=rng), torch.rand(batch, d_sae, generator=rng)
            latents = (x @ state["W_enc"] + state["b_enc"]).relu()
            expect_close(module.method("encode", x).detach(), latents, rtol=1e-4, atol=1e-4)
            decoded = z @ state["W_dec"] + state["b_dec"]
            expect_close(module.method("decode", z).detach(), decoded, rtol=1e-4, atol=1e-4)

    def test_more_dimensions(self, answer, rng):
        "also for activations [batch, position, dimension]"
        state = random_state(rng, 4, 6)
        module = answer(4, 6, generator=seeded(0))
        module.load(state)
        x = torch.randn(2, 3, 4, generator=rng)
        x_hat, z = module(x)
        flat_hat, flat_z = module(x.reshape(6, 4))
        expect_close(x_hat.detach(), flat_hat.detach().reshape(2, 3, 4), atol=1e-5)
        expect_close(z.detach(), flat_z.detach().reshape(2, 3, 6), atol=1e-5)

    def test_gradients(self, answer, reference, rng):
        "gradients reach all four parameters"
        state = random_state(rng, 3, 5)
        theirs, ours = answer(3, 5, generator=seeded(0)), reference(3, 5, generator=seeded(0))
        theirs.load(state)
        ours.load_state_dict(state)
        x, weights = torch.randn(4, 3, generator=rng), torch.randn(4, 3, generator=rng)
        out = theirs(x)[0]
        expect(out.requires_grad, "The result carries no graph.", actual="requires_grad=False")
        found = torch.autograd.grad((out * weights).sum(), theirs.parameters(), allow_unused=True)
        expect(all(g is not None for g in found), "A parameter gets no gradient.", actual="no gradient")
        named = {tuple(p.shape): g for p, g in zip(theirs.parameters(), found, strict=True)}
        wanted = list(ours.parameters())
        for p, g in zip(wanted, torch.autograd.grad((ours(x)[0] * weights).sum(), wanted), strict=True):
            expect_close(named[tuple(p.shape)], g, note="A gradient differs", rtol=1e-3, atol=1e-3)


class TestL1SaeLoss:
    exercise = "l1_sae_loss"

    def inputs(self, rng, d_in, d_sae, batch):
        x, x_hat = (torch.randn(batch, d_in, generator=rng) for _ in range(2))
        z = torch.randn(batch, d_sae, generator=rng).relu()
        lengths = 0.3 + 2 * torch.rand(d_sae, 1, generator=rng)
        rows = torch.randn(d_sae, d_in, generator=rng)
        return x, x_hat, z, lengths * rows / rows.norm(dim=1, keepdim=True)

    def test_values(self, answer, reference, rng):
        "random activations, latents, rows of several lengths, and prices"
        for d_in, d_sae, batch in SIZES:
            given = self.inputs(rng, d_in, d_sae, batch)
            for price in (0.0, 0.7, 5.0):
                found = answer(*given, price)
                expect_shape(found, ())
                expect_close(found, reference(*given, price), rtol=1e-4, atol=1e-5)

    def test_error_alone(self, answer, rng):
        "with no latent on: the squared error, a sum over dimensions and a mean over the batch"
        x, x_hat, z, W_dec = self.inputs(rng, 5, 3, 4)
        expect_close(answer(x, x_hat, 0 * z, W_dec, 2.0), (x - x_hat).square().sum() / 4, rtol=1e-4)

    def test_price_alone(self, answer, rng):
        "with nothing left over: the price of the latents, weighed by the lengths of their rows"
        x, _, z, W_dec = self.inputs(rng, 5, 3, 4)
        expect_close(answer(x, x.clone(), z, W_dec, 1.5), 1.5 * (z @ W_dec.norm(dim=1)).sum() / 4, rtol=1e-4, atol=1e-6)

    def test_gradients(self, answer, reference, rng):
        "gradients reach reconstructions, latents and decoder"
        x, *others = self.inputs(rng, 4, 6, 3)
        others[1] += 0.1  # on
        others = [value.requires_grad_() for value in others]
        ours, theirs = reference(x, *others, 0.8), answer(x, *others, 0.8)
        expect(theirs.requires_grad, "The loss carries no graph.", actual="requires_grad=False")
        found = torch.autograd.grad(theirs, others, allow_unused=True)
        expect(all(g is not None for g in found), "An argument gets no gradient.", actual="no gradient")
        for gradient, wanted in zip(found, torch.autograd.grad(ours, others), strict=True):
            expect_close(gradient, wanted, note="A gradient differs", rtol=1e-3, atol=1e-4)


class TestGeometricMedian:
    exercise = "geometric_median"

    def test_values(self, answer, reference, rng):
        "after 0, 1, 3 and 20 steps from random points"
        for n, d in ((5, 3), (8, 1), (1, 4), (12, 6)):
            x = 3 * torch.randn(n, d, generator=rng).double() + torch.randn(d, generator=rng).double()
            for n_steps in (0, 1, 3, 20):
                expect_close(answer(x, n_steps), reference(x, n_steps), rtol=1e-5, atol=1e-5)

    def test_far_points(self, answer, rng):
        "a few points far away drag the mean along, and the median hardly"
        x = torch.randn(41, 3, generator=rng).double()
        far = torch.cat([x, torch.full((2, 3), 1e4).double()])
        expect(
            answer(far).norm() < 2,
            "Two far points of 43 drag your point along.",
            actual=answer(far).norm(),
        )

    def test_on_a_point(self, answer, rng):
        "a place that lies on one of the points: no division by 0"
        x = torch.randn(3, 4, generator=rng).double()
        found = answer(torch.cat([x, -x, torch.zeros(1, 4).double()]))
        expect(bool(found.isfinite().all()), "Where a point lies at the present place, your result is not finite.")
        expect_close(found, torch.zeros(4).double(), atol=1e-4)

    def test_eps(self, answer, reference, rng):
        "the distance that near points count as having"
        x = torch.randn(6, 2, generator=rng).double()
        for eps in (0.5, 3.0):
            expect_close(answer(x, 4, eps), reference(x, 4, eps), rtol=1e-5, atol=1e-6)
