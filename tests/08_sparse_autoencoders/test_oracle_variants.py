"""The variants against sae_lens with the same random weights, closed forms, and finite differences."""

import math

import pytest
import torch

from utils.sae.attention import AttentionOutputSAE, head_attribution
from utils.sae.crosscoder import MultiLayerSAE
from utils.sae.gated import GatedSAE, gated_loss
from utils.sae.jumprelu import JumpReLUSAE, jumprelu_objective
from utils.sae.matryoshka import matryoshka_loss
from utils.sae.pareto import pareto_frontier
from utils.sae.topk import BatchTopKSAE, TopKSAE, aux_k_loss, set_threshold
from utils.sae.transcoder import SkipTranscoder

D_IN, D_SAE, D_OUT, K, N = 6, 11, 4, 3, 9


@pytest.fixture(scope="module")
def sae_lens():
    return pytest.importorskip("sae_lens")


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def randomised(module, seed=0):
    generator = seeded(seed)
    for parameter in module.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator)
    return module


def config(kind, **settings):
    return kind(d_in=D_IN, d_sae=D_SAE, apply_b_dec_to_input=False, device="cpu", dtype="float32", **settings)


def same_weights(theirs, ours, **others):
    state = {name: value.clone() for name, value in ours.state_dict().items() if name in theirs.state_dict()}
    theirs.load_state_dict(state | others)
    return theirs


def expect_same(theirs, ours, x):
    x_hat, z = ours(x)
    torch.testing.assert_close(theirs.encode(x), z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(theirs(x), x_hat, rtol=1e-4, atol=1e-4)


X = torch.randn(N, D_IN, generator=seeded(5))


def test_topk(sae_lens):
    ours = randomised(TopKSAE(D_IN, D_SAE, K))
    theirs = sae_lens.TopKSAE(config(sae_lens.TopKSAEConfig, k=K, rescale_acts_by_decoder_norm=False))
    expect_same(same_weights(theirs, ours), ours, X)


def test_batch_topk_in_training_and_in_use(sae_lens):
    ours = randomised(BatchTopKSAE(D_IN, D_SAE, K))
    kind = sae_lens.BatchTopKTrainingSAEConfig
    theirs = sae_lens.BatchTopKTrainingSAE(config(kind, k=K, rescale_acts_by_decoder_norm=False))
    same_weights(theirs, ours, topk_threshold=torch.tensor(0.0, dtype=torch.double))
    torch.testing.assert_close(theirs.encode(X), ours(X)[1], rtol=1e-4, atol=1e-5)
    set_threshold(ours, X)
    assert (ours(X)[1] > 0).sum() == K * N
    in_use = sae_lens.JumpReLUSAE(config(sae_lens.JumpReLUSAEConfig))
    in_use.load_state_dict(
        {name: ours.state_dict()[name] for name in ("W_enc", "b_enc", "W_dec", "b_dec")}
        | {"threshold": ours.threshold.expand(D_SAE)}
    )
    expect_same(in_use, ours, X)


def test_gated_and_its_loss(sae_lens):
    ours = randomised(GatedSAE(D_IN, D_SAE))
    expect_same(same_weights(sae_lens.GatedSAE(config(sae_lens.GatedSAEConfig)), ours), ours, X)
    ours.W_dec.data /= ours.W_dec.data.norm(dim=1, keepdim=True)
    training = sae_lens.GatedTrainingSAE(config(sae_lens.GatedTrainingSAEConfig, l1_coefficient=0.7))
    same_weights(training, ours)
    from sae_lens.saes.sae import TrainStepInput

    step = TrainStepInput(
        sae_in=X, coefficients={"l1": 0.7}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False
    )
    wanted = training.training_forward_pass(step).loss
    x_hat, _ = ours(X)
    found = gated_loss(X, x_hat, X @ ours.W_enc + ours.b_gate, ours.W_dec, ours.b_dec, 0.7)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


def test_jumprelu_with_its_gradients(sae_lens):
    ours = randomised(JumpReLUSAE(D_IN, D_SAE, bandwidth=1.5))
    theta = ours.log_threshold.detach().exp()
    theirs = sae_lens.JumpReLUTrainingSAE(
        config(sae_lens.JumpReLUTrainingSAEConfig, jumprelu_bandwidth=1.5, l0_coefficient=0.9, l0_warm_up_steps=0)
    )
    named = dict(theirs.named_parameters())
    name = "threshold" if "threshold" in named else "log_threshold"
    same_weights(theirs, ours, **{name: theta if name == "threshold" else theta.log()})
    from sae_lens.saes.sae import TrainStepInput

    step = TrainStepInput(
        sae_in=X, coefficients={"l0": 0.9}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False
    )
    wanted = theirs.training_forward_pass(step)
    loss, z = jumprelu_objective(0.9)(ours, X, X, None)
    torch.testing.assert_close(z, wanted.feature_acts, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(loss, wanted.loss, rtol=1e-4, atol=1e-3)
    loss.backward()
    wanted.loss.backward()
    by_theta = named[name].grad if name == "threshold" else named[name].grad / theta
    torch.testing.assert_close(ours.log_threshold.grad / theta, by_theta, rtol=1e-3, atol=1e-3)
    for weight in ("W_enc", "b_enc", "W_dec", "b_dec"):
        torch.testing.assert_close(getattr(ours, weight).grad, named[weight].grad, rtol=1e-3, atol=1e-3)


def test_the_straight_through_gradient_is_that_of_the_expected_loss():
    """Finite differences of the loss over very many activations, against the mean made-up gradient."""
    x = torch.randn(1_000_000, 1, dtype=torch.float64, generator=seeded(1)) + 0.5
    sae = JumpReLUSAE(1, 1, threshold=0.9, bandwidth=0.1).double()
    for weight in (sae.W_enc, sae.W_dec):
        weight.data.fill_(1.0)
    theta = 0.9
    for price in (0.3, 2.0):
        loss, _ = jumprelu_objective(price)(sae, x, x, None)
        (gradient,) = torch.autograd.grad(loss, sae.log_threshold)

        def expected(theta, price=price):
            z = x * (x > theta)
            return ((x - z).square() + price * (x > theta)).mean().item()

        difference = (expected(theta + 0.05) - expected(theta - 0.05)) / 0.1
        assert gradient.item() / theta == pytest.approx(difference, rel=0.05)
        density = math.exp(-((theta - 0.5) ** 2) / 2) / math.sqrt(2 * math.pi)
        assert difference == pytest.approx((theta**2 - price) * density, rel=0.05)


def test_a_gated_autoencoder_is_a_jumprelu_one():
    gated = randomised(GatedSAE(D_IN, D_SAE), 3)
    with torch.no_grad():
        theta = gated.b_mag - gated.r_mag.exp() * gated.b_gate
        jump = JumpReLUSAE(D_IN, D_SAE)
        jump.load_state_dict(
            {"W_enc": gated.W_enc * gated.r_mag.exp(), "b_enc": gated.b_mag, "W_dec": gated.W_dec, "b_dec": gated.b_dec}
            | {"log_threshold": theta.clamp(min=1e-12).log()}
        )
        torch.testing.assert_close(jump(X)[1], gated(X)[1], rtol=1e-4, atol=1e-4)


def test_matryoshka_loss(sae_lens):
    kind = sae_lens.MatryoshkaBatchTopKTrainingSAEConfig
    widths = [2, 5, D_SAE]
    theirs = sae_lens.MatryoshkaBatchTopKTrainingSAE(
        config(kind, k=K, matryoshka_widths=widths, rescale_acts_by_decoder_norm=False)
    )
    ours = randomised(BatchTopKSAE(D_IN, D_SAE, K), 2)
    same_weights(theirs, ours, topk_threshold=torch.tensor(0.0, dtype=torch.double))
    from sae_lens.saes.sae import TrainStepInput

    step = TrainStepInput(sae_in=X, coefficients={}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False)
    output = theirs.training_forward_pass(step)
    wanted = sum(value for name, value in output.losses.items() if "mse" in name)
    torch.testing.assert_close(
        matryoshka_loss(X, ours(X)[1], ours.W_dec, ours.b_dec, widths), wanted, rtol=1e-4, atol=1e-3
    )


@pytest.mark.parametrize("skip", [True, False])
def test_transcoders(sae_lens, skip):
    """sae_lens has a ReLU where ours has TopK: with k as large as the dictionary they are the same."""
    ours = randomised(SkipTranscoder(D_IN, D_SAE, D_OUT, D_SAE, skip=skip), 4)
    kinds = (
        (sae_lens.SkipTranscoder, sae_lens.SkipTranscoderConfig)
        if skip
        else (sae_lens.Transcoder, sae_lens.TranscoderConfig)
    )
    theirs = same_weights(kinds[0](config(kinds[1], d_out=D_OUT)), ours)
    expect_same(theirs, ours, X)


def test_aux_k_by_sorting():
    generator = seeded(7)
    error, pre = torch.randn(N, D_IN, generator=generator), torch.randn(N, D_SAE, generator=generator)
    W_dec, dead = torch.randn(D_SAE, D_IN, generator=generator), torch.arange(D_SAE) % 2 == 0
    total = 0.0
    for e, p in zip(error, pre, strict=True):
        places = sorted((i for i in range(D_SAE) if dead[i]), key=lambda i: -p[i].item())[:2]
        back = sum(max(p[i].item(), 0) * W_dec[i] for i in places)
        total += (e - back).square().sum()
    torch.testing.assert_close(aux_k_loss(error, pre, W_dec, dead, 2), total / N, rtol=1e-4, atol=1e-4)


def test_heads_and_layers_are_autoencoders_of_what_stands_side_by_side():
    heads = randomised(AttentionOutputSAE(3, 2, D_SAE, K), 1)
    flat = TopKSAE(6, D_SAE, K)
    flat.load_state_dict(heads.state_dict())
    x_hat, z = heads(X.view(N, 3, 2))
    torch.testing.assert_close(flat(X)[0], x_hat.flatten(1))
    pre = X @ heads.W_enc + heads.b_enc
    for latent in range(D_SAE):
        parts = head_attribution(X.view(N, 3, 2), heads.W_enc, latent)
        torch.testing.assert_close(parts.sum(-1) + heads.b_enc[latent], pre[:, latent], rtol=1e-4, atol=1e-5)
    layers = randomised(MultiLayerSAE(3, 2, D_SAE, K), 1)
    flat.load_state_dict(
        {"W_enc": layers.W_enc.flatten(0, 1), "b_enc": layers.b_enc, "W_dec": layers.W_dec.flatten(1)}
        | {"b_dec": layers.b_dec.flatten()}
    )
    x_hat, z = layers(X.view(N, 3, 2))
    torch.testing.assert_close(flat(X)[1], z, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(flat(X)[0], x_hat.flatten(1), rtol=1e-4, atol=1e-4)


def test_nobody_dominates_the_frontier_and_somebody_everything_else():
    l0, quality = torch.rand(200, generator=seeded(1)), torch.rand(200, generator=seeded(2))
    stays = pareto_frontier(l0, quality)
    order = l0.argsort()
    best = quality[order].cummax(0).values
    torch.testing.assert_close(stays[order], quality[order] == best)
