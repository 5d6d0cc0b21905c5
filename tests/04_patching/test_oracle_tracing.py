"""Tracing, the pitfall, ROME and steering against transformer_lens, closed forms and scipy."""

from pathlib import Path

import pytest
import torch

from utils.course.paths import load_file
from utils.patching.networks import SmallTransformer
from utils.patching.pitfall import embedding_patch_pitfall
from utils.patching.rome import rome_key_covariance, rome_target_value, rome_update
from utils.patching.steering import steer
from utils.patching.tracing import causal_trace, corrupt_with_noise

common = load_file(Path(__file__).with_name("common.py"))


@pytest.fixture(scope="module")
def model():
    return common.hooked_model()


def metric(logits):
    return logits[:, -1].softmax(-1)[:, 3]


@torch.no_grad()
def test_tracing_by_transformer_lens_hooks(model):
    tokens = torch.randint(17, (2, 6), generator=torch.Generator().manual_seed(1))
    subject = torch.zeros(2, 6, dtype=torch.bool)
    subject[:, 2:4] = True
    names = [f"blocks.{layer}.hook_mlp_out" for layer in range(3)]
    result = causal_trace(
        model, tokens, subject, names, torch.full((1, 2), 3), metric, std=2.0, n_draws=1,
        generator=torch.Generator().manual_seed(5), window=2,
    )  # fmt: skip
    _, cache = model.run_with_cache(tokens)
    noise = 2.0 * torch.randn(2, 6, 12, generator=torch.Generator().manual_seed(5))

    def drown(x, hook):
        return x + noise * subject[..., None]

    def restore(x, hook):
        return torch.cat([x[:, :3], cache[hook.name][:, 3:4], x[:, 4:]], dim=1)

    noisy = model.run_with_hooks(tokens, fwd_hooks=[("hook_embed", drown)])
    torch.testing.assert_close(result["noisy"], metric(noisy))
    for layer in range(3):
        window = [(name, restore) for name in names[layer : layer + 2]]
        logits = model.run_with_hooks(tokens, fwd_hooks=[("hook_embed", drown), *window])
        torch.testing.assert_close(result["restored"][layer, 0], metric(logits))


def test_noise_has_the_size_that_was_asked_for():
    embeddings, subject = torch.zeros(50, 4, 100), torch.zeros(50, 4, dtype=torch.bool)
    subject[:, 1] = True
    noisy = corrupt_with_noise(embeddings, subject, 3.0, torch.Generator().manual_seed(0))
    assert noisy[:, 1].std().item() == pytest.approx(3.0, rel=0.05)
    assert noisy[:, [0, 2, 3]].abs().max() == 0


@torch.no_grad()
def test_a_push_along_the_answer_always_wins_in_the_end():
    """Without a final norm, logit(answer) grows with |W_U[:, answer]|^2: the longest column cannot lose."""
    model = SmallTransformer(torch.Generator().manual_seed(0))
    answer = int(model.W_U.norm(dim=0).argmax())
    tokens = torch.randint(11, (20, 5), generator=torch.Generator().manual_seed(1))
    share, divergence = embedding_patch_pitfall(
        model, tokens, torch.full((20,), 4), "blocks.1.hook_resid_post", model.W_U[:, answer], answer, 1000.0
    )
    assert share == 1.0
    assert divergence.min() > 1.0


@torch.no_grad()
def test_covariance_is_numpys():
    model = SmallTransformer(torch.Generator().manual_seed(0)).double()
    tokens = torch.randint(11, (5, 6), generator=torch.Generator().manual_seed(1))
    keys = []
    model.blocks[0].mlp.hook_post.register_forward_hook(lambda m, x, y: keys.append(y.flatten(0, 1)))
    model(tokens)
    central, mean = torch.cov(keys[0].T, correction=0), keys[0].mean(0)
    found = rome_key_covariance(model, tokens, "blocks.0.mlp.hook_post", ridge=0.0, chunk=2)
    torch.testing.assert_close(found, central + torch.outer(mean, mean))


def test_value_makes_the_model_say_it_and_keeps_to_its_limit():
    model = SmallTransformer(torch.Generator().manual_seed(0)).double()
    tokens = torch.randint(11, (3, 5), generator=torch.Generator().manual_seed(1))
    subject, ends, name = torch.tensor([2, 2, 2]), torch.tensor([4, 4, 4]), "blocks.0.hook_mlp_out"
    old = rome_target_value(model, tokens, subject, ends, 7, name, steps=0)
    losses = []
    for longest in (0.5, 3.0, 30.0):
        value = rome_target_value(model, tokens, subject, ends, 7, name, steps=60, longest=longest, decay=0.0)
        assert ((value - old).norm() <= longest * old.norm() * (1 + 1e-9)).item()

        def write(module, inputs, output, value=value):
            output = output.clone()
            output[:, 2] = value
            return output

        handle = model.blocks[0].hook_mlp_out.register_forward_hook(write)
        losses.append(-model(tokens)[:, 4].log_softmax(-1)[:, 7].mean().item())
        handle.remove()
    assert losses[0] > losses[1] > losses[2]


def test_update_is_the_constrained_minimum():
    """scipy minimises the same mean squared change under the same constraint, without the closed form."""
    optimize = pytest.importorskip("scipy.optimize")
    generator = torch.Generator().manual_seed(0)
    W, b, key, value = (torch.randn(*s, generator=generator).double() for s in ((4, 3), (3,), (4,), (3,)))
    keys = torch.randn(30, 4, generator=generator).double()
    C = keys.T @ keys / 30
    found = rome_update(W, b, C, key, value)

    def cost(flat):
        change = torch.from_numpy(flat).reshape(4, 3)
        return torch.trace(change.T @ C @ change).item()

    def gap(flat):
        return (key @ (W + torch.from_numpy(flat).reshape(4, 3)) + b - value).numpy()

    best = optimize.minimize(cost, [0.0] * 12, constraints={"type": "eq", "fun": gap}, tol=1e-12)
    torch.testing.assert_close(found - W, torch.from_numpy(best.x).reshape(4, 3), rtol=1e-3, atol=1e-4)


@torch.no_grad()
def test_steering_a_linear_model_has_the_slope_of_its_gradient():
    model = SmallTransformer(torch.Generator().manual_seed(0), linear=True).double()
    tokens = torch.randint(11, (2, 5), generator=torch.Generator().manual_seed(1))
    direction = torch.randn(6, generator=torch.Generator().manual_seed(2)).double()
    doses = torch.tensor([-2.0, 0.0, 1.0, 5.0]).double()
    curve = steer(model, tokens, "blocks.1.hook_resid_post", direction, doses, lambda z: z[:, -1, 4])
    slope = direction @ model.W_U[:, 4]
    torch.testing.assert_close(curve, model(tokens)[:, -1, 4] + doses[:, None] * slope)
