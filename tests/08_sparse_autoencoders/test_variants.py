"""Checks for the variants of the sparse autoencoder, their losses, and the frontier."""

import torch

from utils.course.checking import expect, expect_close, expect_same_gradients, expect_shape

SIZES = ((5, 7, 3), (4, 9, 6), (1, 1, 1))  # d_in, d_sae, batch


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def random_state(module, rng):
    """Random weights and biases for every parameter of a module; buffers as they are."""
    names = {name for name, _ in module.named_parameters()}
    return {
        name: torch.randn(value.shape, generator=rng) * 0.7 if name in names else value.clone()
        for name, value in module.state_dict().items()
    }


def loaded(answer, reference, rng, *args, **kwargs):
    """Theirs and ours with the same random weights."""
    ours = reference(*args, generator=seeded(0), **kwargs)
    state = random_state(ours, rng)
    theirs = answer(*args, generator=seeded(0), **kwargs)
    theirs.load(state)
    ours.load_state_dict(state)
    return theirs, ours, state


def expect_call(theirs, ours, x, note=""):
    """The call gives two tensors, and those of ours."""
    found = theirs(x)
    expect(
        isinstance(found, tuple) and len(found) == 2,
        "A call gives a pair: the reconstruction and the latents.",
        actual=type(found).__name__,
    )
    wanted = ours(x)
    for name, a, b in zip(("reconstruction", "latents"), found, wanted, strict=True):
        expect_shape(a, tuple(b.shape), f"The {name} should have another shape.")
    expect_close(found[1].detach(), wanted[1].detach(), note=note or "The latents differ.", rtol=1e-4, atol=1e-5)
    expect_close(found[0].detach(), wanted[0].detach(), note="The reconstruction differs.", rtol=1e-4, atol=1e-4)


def expect_pair(found):
    """Two tensors of one shape."""
    expect(
        isinstance(found, tuple) and len(found) == 2, "jump gives a pair: the latents and the steps.",
        actual=type(found).__name__,
    )  # fmt: skip
    for name, value in zip(("latents", "steps"), found, strict=True):
        expect_shape(value, (40, 12), f"The {name} should have another shape.")
    return found


def expect_gradients(theirs, ours, x, rng):
    """The gradients of a random projection of both results, by parameter."""

    def gradients(module, names, parameters):
        x_hat, z = module(x)
        total = (x_hat * weights[0]).sum() + (z * weights[1]).sum()
        expect(total.requires_grad, "The results carry no graph.", actual="no graph")
        found = torch.autograd.grad(total, parameters, allow_unused=True)
        return {
            name: torch.zeros_like(p) if g is None else g for name, p, g in zip(names, parameters, found, strict=True)
        }

    weights = [torch.randn(value.shape, generator=rng) for value in ours(x)]
    wanted = gradients(ours, [n for n, _ in ours.named_parameters()], list(ours.parameters()))
    found = gradients(theirs, theirs.parameter_names(), theirs.parameters())
    for name, value in wanted.items():
        expect_close(found[name], value, note=f"The gradient of {name} differs.", rtol=1e-3, atol=1e-4)


class TestTopkActivation:
    exercise = "topk_activation"

    def test_values(self, answer, reference, rng):
        "the k largest of each row, for several shapes and k"
        for shape, k in (((3, 7), 2), ((4, 6), 5), ((2, 3, 8), 3), ((9,), 4), ((1, 1), 1), ((5, 6), 1), ((2, 5), 5)):
            pre = torch.randn(shape, generator=rng) + 0.5
            expect_close(answer(pre, k), reference(pre, k))

    def test_below_zero(self, answer, rng):
        "what is below 0 is not kept, however few are above"
        pre = -torch.rand(4, 6, generator=rng) - 0.1
        pre[1, 2] = 0.7
        expected = torch.zeros(4, 6)
        expected[1, 2] = 0.7
        expect_close(answer(pre, 3), expected)

    def test_rows(self, answer, rng):
        "each row keeps its own k, wherever the large numbers of the batch are"
        pre = torch.rand(5, 8, generator=rng) + 0.1
        pre[0] *= 100
        on = answer(pre, 3)
        expect_shape(on, (5, 8))
        expect_close((on > 0).sum(-1), torch.full((5,), 3), note="Not every row has k entries.")

    def test_gradients(self, answer, reference, rng):
        "gradients flow to what is kept, and to nothing else"
        expect_same_gradients(answer, reference, torch.randn(4, 9, generator=rng) + 0.3, 3, rng=rng)


class TestAuxKLoss:
    exercise = "aux_k_loss"

    def given(self, rng, batch, d_in, d_sae, n_dead):
        dead = torch.zeros(d_sae, dtype=torch.bool)
        dead[torch.randperm(d_sae, generator=rng)[:n_dead]] = True
        error, pre = torch.randn(batch, d_in, generator=rng), torch.randn(batch, d_sae, generator=rng) + 0.3
        return error, pre, torch.randn(d_sae, d_in, generator=rng), dead

    def test_values(self, answer, reference, rng):
        "random errors, pre-activations and decoders; more, fewer and as many dead as k_aux"
        for batch, d_in, d_sae, n_dead, k_aux in ((6, 4, 9, 5, 2), (3, 5, 12, 4, 4), (7, 3, 8, 2, 6), (1, 1, 1, 1, 1),
                                                  (5, 2, 10, 10, 3)):  # fmt: skip
            given = self.given(rng, batch, d_in, d_sae, n_dead)
            expect_close(answer(*given, k_aux), reference(*given, k_aux), rtol=1e-4, atol=1e-5)

    def test_living(self, answer, rng):
        "the living latents' pre-activations and rows have no say, however large"
        error, pre, W_dec, dead = self.given(rng, 5, 4, 9, 4)
        first = answer(error, pre, W_dec, dead, 2)
        pre, W_dec = pre.clone(), W_dec.clone()
        pre[:, ~dead] += 50
        W_dec[~dead] += 3
        expect_close(answer(error, pre, W_dec, dead, 2), first, note="Living latents change the loss.")

    def test_none_dead(self, answer, rng):
        "0 where no latent is dead"
        error, pre, W_dec, _ = self.given(rng, 5, 4, 9, 4)
        expect_close(answer(error, pre, W_dec, torch.zeros(9, dtype=torch.bool), 3), torch.zeros(()))

    def test_silent(self, answer, rng):
        "dead latents below 0 explain nothing: the loss is the error's"
        error, pre, W_dec, dead = self.given(rng, 5, 4, 9, 4)
        pre = pre.clone()
        pre[:, dead] = -pre[:, dead].abs()
        expect_close(answer(error, pre, W_dec, dead, 3), error.square().sum(-1).mean(), rtol=1e-4, atol=1e-5)

    def test_gradients(self, answer, reference, rng):
        "gradients reach the pre-activations and the decoder, and none the error"
        error, pre, W_dec, dead = self.given(rng, 6, 4, 9, 5)

        def without_error(pre, W_dec):
            return answer(error, pre, W_dec, dead, 2)

        expect_same_gradients(
            without_error, lambda pre, W_dec: reference(error, pre, W_dec, dead, 2), pre, W_dec, rng=rng
        )
        asks = error.clone().requires_grad_()
        loss = answer(asks, pre.clone().requires_grad_(), W_dec, dead, 2)
        (gradient,) = torch.autograd.grad(loss, asks, allow_unused=True)
        expect(
            gradient is None or not bool(gradient.any()),
            "A gradient flows into the error: living latents would be trained to leave what dead ones can explain.",
            actual="gradient of error",
        )


class TestBatchTopKSAE:
    exercise = "BatchTopKSAE"

    def test_training(self, answer, reference, rng):
        "while the threshold is 0: the k · n largest of the whole batch"
        for (d_in, d_sae, batch), k in zip(SIZES, (2, 3, 1), strict=True):
            theirs, ours, _ = loaded(answer, reference, rng, d_in, d_sae, k)
            for shape in ((batch, d_in), (2, batch, d_in)):
                expect_call(theirs, ours, torch.randn(shape, generator=rng))

    def test_uneven(self, answer, reference, rng):
        "an activation may take the places of others: k · n latents, not k each"
        theirs, ours, _ = loaded(answer, reference, rng, 6, 11, 3)
        x = torch.randn(5, 6, generator=rng)
        x[0] *= 20
        _, z = theirs(x)
        expect_shape(z, (5, 11))
        expect_close((z > 0).sum(-1), (ours(x)[1] > 0).sum(-1), note="Latents of each activation: other numbers.")

    def test_below_zero(self, answer, reference, rng):
        "too few above 0: those below are not kept"
        theirs, ours, state = loaded(answer, reference, rng, 4, 6, 5)
        state["b_enc"] = state["b_enc"] - 3
        theirs.load(state)
        ours.load_state_dict(state)
        expect_call(theirs, ours, torch.randn(7, 4, generator=rng))

    def test_threshold(self, answer, reference, rng):
        "once there is a threshold: whatever is above it, for each activation by itself"
        for threshold in (0.4, 1.0):
            theirs, ours, state = loaded(answer, reference, rng, 5, 8, 2)
            state["threshold"] = torch.tensor(threshold)
            theirs.load(state)
            ours.load_state_dict(state)
            x = torch.randn(6, 5, generator=rng)
            expect_call(theirs, ours, x)
            expect_close(
                theirs(x[:1])[1].detach(), theirs(x)[1].detach()[:1],
                note="With a threshold, an activation's latents depend on which others are in the batch.",
            )  # fmt: skip

    def test_high_threshold(self, answer, reference, rng):
        "a threshold that hardly anything reaches"
        theirs, ours, state = loaded(answer, reference, rng, 5, 30, 9)
        state["threshold"] = torch.tensor(3.0)
        theirs.load(state)
        ours.load_state_dict(state)
        expect_call(theirs, ours, torch.randn(6, 5, generator=rng) / 2)

    def test_gradients(self, answer, reference, rng):
        "gradients reach all weights, in training and with a threshold"
        theirs, ours, state = loaded(answer, reference, rng, 5, 8, 2)
        x = torch.randn(6, 5, generator=rng)
        expect_gradients(theirs, ours, x, rng)
        state["threshold"] = torch.tensor(0.5)
        theirs.load(state)
        ours.load_state_dict(state)
        expect_gradients(theirs, ours, x, rng)


class TestGatedSAE:
    exercise = "GatedSAE"

    def test_values(self, answer, reference, rng):
        "random weights: the gate decides which, the magnitude how strongly"
        for d_in, d_sae, batch in SIZES:
            theirs, ours, _ = loaded(answer, reference, rng, d_in, d_sae)
            for shape in ((batch, d_in), (2, batch, d_in), (d_in,)):
                expect_call(theirs, ours, torch.randn(shape, generator=rng))

    def test_gate(self, answer, reference, rng):
        "a closed gate, and an open one with a magnitude below 0"
        theirs, ours, state = loaded(answer, reference, rng, 4, 5)
        for b_gate, b_mag in ((-100.0, 3.0), (100.0, -100.0), (100.0, 2.0)):
            state["b_gate"], state["b_mag"] = torch.full((5,), b_gate), torch.full((5,), b_mag)
            theirs.load(state)
            ours.load_state_dict(state)
            expect_call(theirs, ours, torch.randn(6, 4, generator=rng))

    def test_gradients(self, answer, reference, rng):
        "gradients: through the magnitude only, as a step has none"
        theirs, ours, _ = loaded(answer, reference, rng, 5, 8)
        expect_gradients(theirs, ours, torch.randn(9, 5, generator=rng), rng)


class TestGatedLoss:
    exercise = "gated_loss"

    def given(self, rng, batch, d_in, d_sae):
        shapes = ((batch, d_in), (batch, d_in), (batch, d_sae), (d_sae, d_in), (d_in,))
        return [torch.randn(shape, generator=rng) for shape in shapes]

    def test_values(self, answer, reference, rng):
        "random inputs, several prices, and none"
        for batch, d_in, d_sae, price in ((6, 4, 9, 0.7), (3, 5, 2, 2.5), (1, 1, 1, 0.3), (4, 3, 5, 0.0)):
            given = self.given(rng, batch, d_in, d_sae)
            expect_close(answer(*given, price), reference(*given, price), rtol=1e-4, atol=1e-4)

    def test_by_hand(self, answer):
        "one activation, by hand"
        x, x_hat, pi = torch.tensor([[2.0, 0.0]]), torch.tensor([[1.0, 1.0]]), torch.tensor([[3.0, -4.0]])
        W_dec, b_dec = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([0.0, 1.0])
        expect_close(answer(x, x_hat, pi, W_dec, b_dec, 0.5), torch.tensor(2 + 1.5 + 2))

    def test_gradients(self, answer, reference, rng):
        "gradients reach the reconstruction and the gate"
        x, x_hat, pi, W_dec, b_dec = self.given(rng, 5, 4, 7)
        expect_same_gradients(
            lambda x_hat, pi: answer(x, x_hat, pi, W_dec, b_dec, 0.6),
            lambda x_hat, pi: reference(x, x_hat, pi, W_dec, b_dec, 0.6),
            x_hat, pi, rng=rng,
        )  # fmt: skip

    def test_frozen(self, answer, rng):
        "the decoder of the third term is frozen"
        x, x_hat, pi, W_dec, b_dec = self.given(rng, 5, 4, 7)
        for name, index in (("W_dec", 3), ("b_dec", 4)):
            given = [x, x_hat.clone().requires_grad_(), pi, W_dec, b_dec]
            given[index] = given[index].clone().requires_grad_()
            (gradient,) = torch.autograd.grad(answer(*given, 0.6), given[index], allow_unused=True)
            expect(
                gradient is None or not bool(gradient.any()),
                f"A gradient flows into {name}: the gate's reconstruction would train the decoder, too.",
                actual=f"gradient of {name}",
            )


class TestJumpReLUSAE:
    exercise = "JumpReLUSAE"

    def test_values(self, answer, reference, rng):
        "random weights and thresholds: the pre-activation itself where it is above, 0 elsewhere"
        for d_in, d_sae, batch in SIZES:
            theirs, ours, _ = loaded(answer, reference, rng, d_in, d_sae, threshold=0.3, bandwidth=0.4)
            for shape in ((batch, d_in), (2, batch, d_in), (d_in,)):
                expect_call(theirs, ours, torch.randn(shape, generator=rng))

    def test_gradients(self, answer, reference, rng):
        "gradients by hand: the kernel for the thresholds, the step for everything else"
        for bandwidth in (0.3, 2.0, 8.0):
            theirs, ours, _ = loaded(answer, reference, rng, 5, 12, bandwidth=bandwidth)
            expect_gradients(theirs, ours, torch.randn(40, 5, generator=rng), rng)

    def test_jump(self, answer, reference, rng):
        "jump: the latents, and the steps, 1 above the threshold and 0 elsewhere, with a gradient for it and none for p"
        for bandwidth in (0.3, 2.0):
            theirs, ours, _ = loaded(answer, reference, rng, 5, 12, bandwidth=bandwidth)
            pre = 2 * torch.randn(40, 12, generator=rng)
            z, on = expect_pair(theirs.method("jump", pre))
            wanted_z, wanted = ours.jump(pre)
            expect_close(on.detach(), wanted.detach(), note="The steps have other values.")
            expect_close(z.detach(), wanted_z.detach(), note="The latents have other values.")
            weights = torch.randn(40, 12, generator=rng)
            thresholds = dict(zip(theirs.parameter_names(), theirs.parameters(), strict=True))["log_threshold"]
            pre = pre.requires_grad_()
            found, wanted = (theirs.method("jump", pre)[1] * weights).sum(), (ours.jump(pre)[1] * weights).sum()
            by_theta = by_p = None
            if found.requires_grad:
                by_theta, by_p = torch.autograd.grad(found, [thresholds, pre], allow_unused=True)
            (expected,) = torch.autograd.grad(wanted, [ours.log_threshold])
            by_theta = torch.zeros(12) if by_theta is None else by_theta
            expect_close(
                by_theta, expected, note="The steps' gradient for log_threshold differs.", rtol=1e-3, atol=1e-4
            )
            expect(
                by_p is None or not bool(by_p.any()),
                "The steps have a gradient by p. They have one for the thresholds alone.",
                actual="gradient by p",
            )

    def test_threshold_gradient(self, answer, rng):
        "one latent, by hand: -θ / ε within the kernel, by θ; times θ by its logarithm"
        theirs = answer(1, 1, threshold=0.5, bandwidth=0.4, generator=seeded(0))
        state = {"W_enc": torch.ones(1, 1), "b_enc": torch.zeros(1), "W_dec": torch.ones(1, 1),
                 "b_dec": torch.zeros(1), "log_threshold": torch.tensor([2.0]).log()}  # fmt: skip
        theirs.load(state)
        parameter = dict(zip(theirs.parameter_names(), theirs.parameters(), strict=True))["log_threshold"]
        for x, slope in ((1.9, -2 / 0.4), (2.1, -2 / 0.4), (1.7, 0.0), (2.3, 0.0)):
            _, z = theirs(torch.tensor([[x]]))
            (gradient,) = torch.autograd.grad(z.sum(), parameter, allow_unused=True)
            gradient = torch.zeros(1) if gradient is None else gradient
            expect_close(gradient, torch.tensor([2 * slope]), note=f"At p = {x}, θ = 2, ε = 0.4.", rtol=1e-4, atol=1e-5)


class TestMatryoshkaLoss:
    exercise = "matryoshka_loss"

    def given(self, rng, batch, d_in, d_sae):
        x, z = torch.randn(batch, d_in, generator=rng), torch.randn(batch, d_sae, generator=rng).relu()
        return x, z, torch.randn(d_sae, d_in, generator=rng), torch.randn(d_in, generator=rng)

    def test_values(self, answer, reference, rng):
        "random latents and decoders, several prefixes, the last of which need not be the whole"
        for batch, d_in, d_sae, widths in ((6, 4, 9, (2, 5, 9)), (3, 5, 8, (1, 4)), (4, 2, 6, (6,)), (1, 1, 1, (1,)),
                                           (5, 3, 7, (7, 2)), (5, 3, 7, (3,))):  # fmt: skip
            given = self.given(rng, batch, d_in, d_sae)
            expect_close(answer(*given, widths), reference(*given, widths), rtol=1e-4, atol=1e-4)

    def test_beyond(self, answer, rng):
        "latents beyond the longest prefix have no say"
        x, z, W_dec, b_dec = self.given(rng, 5, 4, 9)
        first = answer(x, z, W_dec, b_dec, (2, 6))
        z = z.clone()
        z[:, 6:] += 5
        expect_close(answer(x, z, W_dec, b_dec, (2, 6)), first, note="Latents beyond the prefixes change the loss.")

    def test_gradients(self, answer, reference, rng):
        "gradients reach the latents and the decoder"
        x, z, W_dec, b_dec = self.given(rng, 5, 4, 9)
        expect_same_gradients(
            lambda z, W_dec, b_dec: answer(x, z, W_dec, b_dec, (2, 5, 9)),
            lambda z, W_dec, b_dec: reference(x, z, W_dec, b_dec, (2, 5, 9)),
            z, W_dec, b_dec, rng=rng,
        )  # fmt: skip


class TestSkipTranscoder:
    exercise = "SkipTranscoder"

    def test_values(self, answer, reference, rng):
        "random weights, the skip's too; another space out than in"
        for d_in, d_sae, d_out, k, batch in ((5, 9, 3, 2, 4), (3, 7, 6, 4, 2), (1, 1, 1, 1, 1)):
            theirs, ours, _ = loaded(answer, reference, rng, d_in, d_sae, d_out, k)
            for shape in ((batch, d_in), (2, batch, d_in), (d_in,)):
                expect_call(theirs, ours, torch.randn(shape, generator=rng))

    def test_square(self, answer, reference, rng):
        "as many dimensions out as in: the skip the right way round"
        theirs, ours, _ = loaded(answer, reference, rng, 4, 6, 4, 2)
        expect_call(theirs, ours, torch.randn(7, 4, generator=rng))

    def test_plain(self, answer, reference, rng):
        "without the skip: a plain transcoder, without W_skip"
        for d_in, d_sae, d_out, k in ((5, 9, 3, 2), (4, 6, 4, 3)):
            theirs, ours, _ = loaded(answer, reference, rng, d_in, d_sae, d_out, k, skip=False)
            expect_call(theirs, ours, torch.randn(6, d_in, generator=rng))

    def test_gradients(self, answer, reference, rng):
        "gradients reach all weights"
        for skip in (True, False):
            theirs, ours, _ = loaded(answer, reference, rng, 5, 9, 3, 3, skip=skip)
            expect_gradients(theirs, ours, torch.randn(8, 5, generator=rng), rng)


class TestHeadAttribution:
    exercise = "head_attribution"

    def test_values(self, answer, reference, rng):
        "random heads and encoders, several latents"
        for shape, d_sae in (((3, 5), 7), ((4, 2, 3), 6), ((2, 3, 4, 5), 9), ((1, 1), 1)):
            x = torch.randn(shape, generator=rng)
            W_enc = torch.randn(shape[-2] * shape[-1], d_sae, generator=rng)
            for latent in sorted({0, d_sae // 2, d_sae - 1}):
                expect_close(answer(x, W_enc, latent), reference(x, W_enc, latent), rtol=1e-4, atol=1e-5)

    def test_sum(self, answer, rng):
        "all heads together give what the encoder reads from them side by side"
        x, W_enc = torch.randn(6, 3, 4, generator=rng), torch.randn(12, 5, generator=rng)
        found = answer(x, W_enc, 2)
        expect_shape(found, (6, 3))
        expect_close(found.sum(-1), (x.flatten(1) @ W_enc)[:, 2], note="The heads' sum differs.", rtol=1e-4, atol=1e-4)

    def test_one_head(self, answer, rng):
        "a head that is silent gives nothing, and changes nothing of the others"
        x, W_enc = torch.randn(6, 4, 3, generator=rng), torch.randn(12, 5, generator=rng)
        expected = answer(x, W_enc, 1)
        expect_shape(expected, (6, 4))
        silenced = x.clone()
        silenced[:, 2] = 0
        expected = expected.clone()
        expected[:, 2] = 0
        expect_close(answer(silenced, W_enc, 1), expected, rtol=1e-4, atol=1e-5)


class TestMultiLayerSAE:
    exercise = "MultiLayerSAE"

    def test_values(self, answer, reference, rng):
        "random weights: one code for all layers, and a reconstruction of each"
        for n_layers, d_in, d_sae, k, batch in ((3, 5, 9, 2, 4), (2, 4, 7, 5, 3), (1, 1, 1, 1, 1), (4, 2, 6, 3, 5)):
            theirs, ours, _ = loaded(answer, reference, rng, n_layers, d_in, d_sae, k)
            for shape in ((batch, n_layers, d_in), (2, batch, n_layers, d_in), (n_layers, d_in)):
                expect_call(theirs, ours, torch.randn(shape, generator=rng))

    def test_square(self, answer, reference, rng):
        "as many layers as dimensions: the right axis is summed over"
        theirs, ours, _ = loaded(answer, reference, rng, 3, 3, 5, 2)
        expect_call(theirs, ours, torch.randn(3, 3, 3, generator=rng))

    def test_gradients(self, answer, reference, rng):
        "gradients reach all weights"
        theirs, ours, _ = loaded(answer, reference, rng, 3, 5, 9, 3)
        expect_gradients(theirs, ours, torch.randn(8, 3, 5, generator=rng), rng)


class TestParetoFrontier:
    exercise = "pareto_frontier"

    def test_values(self, answer, reference, rng):
        "random points, of which some tie in one of the two numbers"
        for n in (1, 2, 9, 40):
            l0 = torch.randint(1, 8, (n,), generator=rng).float()
            quality = torch.randint(0, 6, (n,), generator=rng) / 6
            expect_close(answer(l0, quality), reference(l0, quality))

    def test_by_hand(self, answer):
        "five points by hand"
        l0 = torch.tensor([4.0, 8.0, 8.0, 16.0, 20.0])
        quality = torch.tensor([0.5, 0.8, 0.7, 0.75, 0.9])
        expect_close(answer(l0, quality), torch.tensor([True, True, False, False, True]))

    def test_equal(self, answer):
        "equal points stay both; as good for more latents goes, and so does worse for as many"
        found = answer(torch.tensor([4.0, 4.0, 5.0, 4.0]), torch.tensor([0.5, 0.5, 0.5, 0.4]))
        expect_close(found, torch.tensor([True, True, False, False]))
