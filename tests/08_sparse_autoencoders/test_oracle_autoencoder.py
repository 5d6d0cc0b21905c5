"""The autoencoder, its loss, metrics and training loop against sae_lens, scipy, closed forms and themselves."""

import math

import pytest
import torch
from scipy.optimize import minimize
from torch import Generator

from utils.sae.autoencoder import SparseAutoencoder, geometric_median, l1_objective, l1_sae_loss
from utils.sae.metrics import fraction_variance_explained, l0, matched_cosines, spliced_loss
from utils.sae.training import (
    batch_rows,
    fold_scale,
    from_table,
    remove_parallel_gradient,
    resample_dead_latents,
    scale_of,
    start_at_median,
    streamed,
    train_sae,
)
from utils.superposition.planted import sparse_codes, unit_directions


def generator(seed=0):
    return Generator().manual_seed(seed)


def random_sae(d_in=6, d_sae=10, seed=0):
    sae = SparseAutoencoder(d_in, d_sae, generator=generator(seed))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator(seed + parameter.numel())))
    return sae


def table(n=600, d=8, seed=0):
    return sparse_codes(n, 16, 2, generator(seed)) @ unit_directions(16, d, generator(seed + 1)) + 0.5


def test_standard_sae_of_sae_lens():
    from sae_lens import StandardSAE, StandardSAEConfig

    ours = random_sae()
    theirs = StandardSAE(StandardSAEConfig(d_in=6, d_sae=10, apply_b_dec_to_input=False, device="cpu", dtype="float32"))
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(7, 6, generator=generator(1))
    x_hat, z = ours(x)
    torch.testing.assert_close(theirs.encode(x), z)
    torch.testing.assert_close(theirs(x), x_hat)


def test_loss_of_sae_lens():
    from sae_lens import StandardTrainingSAE, StandardTrainingSAEConfig
    from sae_lens.saes.sae import TrainStepInput

    ours = random_sae(seed=3)
    config = StandardTrainingSAEConfig(
        d_in=6, d_sae=10, apply_b_dec_to_input=False, l1_coefficient=0.7, device="cpu", dtype="float32"
    )
    theirs = StandardTrainingSAE(config)
    theirs.load_state_dict(ours.state_dict())
    x = torch.randn(7, 6, generator=generator(1))
    step = TrainStepInput(
        sae_in=x, coefficients={"l1": 0.7}, dead_neuron_mask=None, n_training_steps=0, is_logging_step=False
    )
    x_hat, z = ours(x)
    loss = l1_sae_loss(x, x_hat, z, ours.W_dec, 0.7)
    torch.testing.assert_close(theirs.training_forward_pass(step).loss, loss, rtol=1e-4, atol=1e-4)


def test_geometric_median_minimises_the_sum_of_distances():
    x = torch.randn(30, 3, generator=generator()).double().exp()
    found = minimize(lambda place: (x - torch.as_tensor(place)).norm(dim=1).sum().item(), x.mean(0).numpy(), tol=1e-9)
    torch.testing.assert_close(geometric_median(x, 500), torch.as_tensor(found.x), atol=1e-4, rtol=0)


def test_shrinkage_of_one_latent_is_half_the_price():
    x, price = torch.tensor([[3.0, 0.0]]), 0.8
    z = torch.linspace(0, 4, 4001)[:, None]
    W_dec = torch.tensor([[1.0, 0.0]])
    losses = torch.stack([l1_sae_loss(x, row[None] @ W_dec, row[None], W_dec, price) for row in z])
    assert z[losses.argmin()].item() == pytest.approx(3 - price / 2, abs=2e-3)


def test_a_step_at_right_angles_leaves_lengths_alone_to_first_order():
    W, g = torch.randn(5, 4, generator=generator()).double(), torch.randn(5, 4, generator=generator(1)).double()
    turned = remove_parallel_gradient(g, W)
    torch.testing.assert_close((W - 1e-5 * turned).norm(dim=1), W.norm(dim=1), atol=1e-9, rtol=0)


def test_resampled_latents_are_off_at_b_dec_and_on_where_they_start():
    sae, x = random_sae(), torch.randn(20, 6, generator=generator(2))
    dead = torch.arange(10) < 4
    weights = (sae.W_enc.detach(), sae.b_enc.detach(), sae.W_dec.detach(), sae.b_dec.detach())
    W_enc, b_enc, W_dec = resample_dead_latents(*weights, x, torch.ones(20), dead, generator())
    torch.testing.assert_close((weights[3] @ W_enc + b_enc)[dead], torch.zeros(4), atol=1e-5, rtol=0)
    assert ((x @ W_enc + b_enc)[:, dead].amax(0) > 0).all()


def test_matched_cosines_of_a_permutation_are_1_and_of_copies_are_not():
    truth = unit_directions(20, 12, generator())
    torch.testing.assert_close(matched_cosines(truth.flip(0), truth), torch.ones(20))
    assert matched_cosines(truth[:10].repeat(2, 1), truth).mean() < 0.8


def test_rows_of_rounds_and_streams():
    assert len(torch.cat([batch_rows(step, 10, 3) for step in range(3)]).unique()) == 9
    calls = []

    def chunk(number):
        calls.append(number)
        x = torch.arange(10.0)[:, None] + 100 * number
        return x, -x

    batches = streamed(chunk, 3)
    seen = [batches(step)[0] for step in range(6)]
    assert calls == [0, 1]
    assert all((rows // 100 == step // 3).all() for step, rows in enumerate(seen))
    torch.testing.assert_close(streamed(chunk, 3)(4)[0], seen[4])


@pytest.mark.parametrize("resample_at", [(), (5, 12)])
def test_an_interrupted_run_ends_where_an_undisturbed_one_does(tmp_path, resample_at):
    x = table()

    def run(checkpoint=None, stop=None):
        sae = SparseAutoencoder(8, 24, generator=generator(5))
        start_at_median(sae, x)
        sae.b_enc.data[:6] -= 9
        batches = from_table(x, 50)

        def until(step):
            if step == stop:
                raise KeyboardInterrupt
            return batches(step)

        log = None
        try:
            log = train_sae(
                sae, until, l1_objective(0.2), n_steps=20, lr=1e-2, n_warmup=4, n_price_warmup=6, dead_after=150,
                resample_at=resample_at, every=3, checkpoint=checkpoint,
            )  # fmt: skip
        except KeyboardInterrupt:
            assert stop is not None
        return sae, log

    whole, log = run()
    for stop in (8, 14):
        run(tmp_path / "run.pt", stop)
    again, log_again = run(tmp_path / "run.pt")
    assert log == log_again
    for name, value in whole.state_dict().items():
        assert torch.equal(value, again.state_dict()[name]), name


def test_rows_stay_at_length_1_and_dead_latents_come_back():
    x = table()
    dead = {}
    for steps in ((), (10, 20)):
        sae = SparseAutoencoder(8, 20, generator=generator(4))
        sae.b_enc.data[:8] -= 9
        log = train_sae(sae, from_table(x, 60), l1_objective(0.1), n_steps=60, dead_after=300, resample_at=steps)
        torch.testing.assert_close(sae.W_dec.detach().norm(dim=1), torch.ones(20))
        dead[steps] = log.dead[-1]
    assert dead[()] >= 0.4 > 0.1 > dead[10, 20]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_numbers_that_are_none_are_named_with_their_step(bad):
    x = table()
    batches = from_table(x, 50)

    def spoilt(step):
        rows = batches(step)[0].clone()
        if step == 3:
            rows[7, 2] = bad
        return rows, rows

    with pytest.raises(FloatingPointError, match="activations of step 3 are not all finite"):
        train_sae(SparseAutoencoder(8, 5), spoilt, l1_objective(0.1), n_steps=9)
    with pytest.raises(FloatingPointError, match="smaller learning rate"):
        train_sae(
            SparseAutoencoder(8, 5), batches, lambda sae, x, y, dead: (sae(x)[0].sum() * bad, sae(x)[1]), n_steps=2
        )


def test_another_width_is_refused_before_anything_is_trained():
    x = table()
    with pytest.raises(ValueError, match="reads 6 dimensions, and the batch has 8"):
        train_sae(SparseAutoencoder(6, 5), from_table(x, 50), l1_objective(0.1), n_steps=2)
    with pytest.raises(ValueError, match="gives back 8 dimensions, and the batch has 3"):
        train_sae(SparseAutoencoder(8, 5), from_table(x, 50, y=x[:, :3]), l1_objective(0.1), n_steps=2)


def test_a_folded_scale_changes_nothing_but_the_unit():
    x, sae = 7 * table(), random_sae(8, 12)
    scale = scale_of(x)
    assert (scale * x).norm(dim=1).mean().item() == pytest.approx(math.sqrt(8), rel=1e-5)
    x_hat, z = sae(scale * x)
    fold_scale(sae, scale)
    torch.testing.assert_close(sae(x)[1], z, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(sae(x)[0], x_hat / scale, rtol=1e-4, atol=1e-4)


def test_at_the_median_the_encoder_reads_what_is_left_of_it():
    x, sae = table(), SparseAutoencoder(8, 12)
    start_at_median(sae, x)
    torch.testing.assert_close(sae.encode(x), torch.relu((x - sae.b_dec) @ sae.W_enc), atol=1e-5, rtol=1e-4)


def test_metrics_by_scikit_learn():
    from sklearn.metrics import r2_score

    x, y = torch.randn(40, 5, generator=generator()), torch.randn(40, 5, generator=generator(1))
    found = r2_score(x.numpy(), (x + 0.3 * y).numpy(), multioutput="variance_weighted")
    assert fraction_variance_explained(x, x + 0.3 * y) == pytest.approx(found, abs=1e-5)
    assert l0(torch.eye(4)) == 1


def test_splicing_the_activation_itself_changes_nothing():
    from utils.data.corpus import corpus
    from utils.models.course_model import load_course_model

    model, tokens = load_course_model(), torch.as_tensor(corpus(2, seed=5)).long()
    with torch.no_grad():
        loss = model(tokens, return_type="loss").item()
    assert spliced_loss(model, tokens, "blocks.2.hook_resid_post", lambda value: value) == pytest.approx(loss, abs=1e-5)
    assert spliced_loss(model, tokens, "blocks.2.hook_resid_post", lambda value: 0 * value) > loss + 1
