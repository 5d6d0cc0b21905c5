"""LIME against closed-form weighted least squares, scikit-learn, and the authors' library."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import r2_score

from utils.attribution.lime import lime_explain, lime_kernel_weights, lime_neighbourhood


def model(X):
    return torch.tanh(X[:, 0] - 0.5 * X[:, 1]) + 0.3 * X[:, 2] * X[:, 3]


def case(seed, n_features=5):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n_features, generator=generator, dtype=torch.float64)
    return x, 0.4 + torch.rand(n_features, generator=generator, dtype=torch.float64)


def generator(seed):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("width, ridge", [(1.0, 1.0), (2.5, 0.1), (4.0, 8.0)])
def test_fit_agrees_with_scikit_learn(width, ridge):
    x, scale = case(0)
    rows = lime_neighbourhood(x, scale, 400, generator=generator(1))
    weights = lime_kernel_weights(x, rows, scale, width).numpy()
    steps, outputs = ((rows - x) / scale).numpy(), model(rows).numpy()
    theirs = Ridge(alpha=ridge).fit(steps, outputs, sample_weight=weights)
    options = {"kernel_width": width, "ridge": ridge, "n_samples": 400}
    w, b, fidelity = lime_explain(model, x, scale, **options, generator=generator(1))
    np.testing.assert_allclose(w, theirs.coef_, rtol=1e-9, atol=1e-12)
    assert b.item() == pytest.approx(theirs.intercept_)
    assert fidelity.item() == pytest.approx(r2_score(outputs, theirs.predict(steps), sample_weight=weights))


def test_fit_without_ridge_is_weighted_least_squares():
    x, scale = case(2)
    rows = lime_neighbourhood(x, scale, 200, generator=generator(3))
    root = lime_kernel_weights(x, rows, scale, 2.0).sqrt()[:, None]
    design = torch.cat([(rows - x) / scale, torch.ones(200, 1, dtype=torch.float64)], dim=1)
    solution = torch.linalg.lstsq(root * design, root * model(rows)[:, None]).solution[:, 0]
    w, b, _ = lime_explain(model, x, scale, kernel_width=2.0, n_samples=200, ridge=1e-12, generator=generator(3))
    torch.testing.assert_close(torch.cat([w, b[None]]), solution, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("width", [0.9, 2.0])
def test_agrees_with_the_library_on_the_same_neighbourhood(width):
    """The library's kernel is the square root of the paper's, so its width of w is ours of w times the root of two."""
    from lime.lime_base import LimeBase

    x, scale = case(4)
    rows = lime_neighbourhood(x, scale, 500, generator=generator(5))
    steps = ((rows - x) / scale).numpy()
    base = LimeBase(lambda distances: np.sqrt(np.exp(-(distances**2) / width**2)), random_state=0)
    labels = model(rows).numpy()[:, None]
    intercept, found, score, local = base.explain_instance_with_data(
        steps, labels, np.linalg.norm(steps, axis=1), 0, num_features=5, feature_selection="none"
    )
    ours = lime_explain(
        model, x, scale, kernel_width=width * math.sqrt(2), n_samples=500, ridge=1.0, generator=generator(5)
    )
    np.testing.assert_allclose(ours[0], [dict(found)[i] for i in range(5)], rtol=1e-7, atol=1e-10)
    assert ours[1].item() == pytest.approx(intercept)
    assert ours[2].item() == pytest.approx(score)
    assert local[0] == pytest.approx(intercept)  # what their line says at x, the first row


def test_agrees_with_the_library_from_end_to_end():
    """Its own samples differ from ours, so the two agree within sampling error: 20,000 neighbours, a smooth model."""
    from lime.lime_tabular import LimeTabularExplainer

    x, scale = case(6)
    data = np.random.default_rng(0).standard_normal((4000, 5)) * scale.numpy()
    explainer = LimeTabularExplainer(
        data,
        mode="regression",
        discretize_continuous=False,
        sample_around_instance=True,
        kernel_width=1.5,
        random_state=0,
    )
    theirs = explainer.explain_instance(
        x.numpy(), lambda X: model(torch.tensor(X)).numpy(), num_features=5, num_samples=20_000
    )
    coefficients = dict(theirs.local_exp[1])  # the entry 0 of a regression is a negated copy
    ours, _, _ = lime_explain(
        model,
        x,
        torch.tensor(explainer.scaler.scale_),
        kernel_width=1.5 * math.sqrt(2),
        n_samples=20_000,
        generator=generator(7),
    )
    np.testing.assert_allclose(ours, [coefficients[i] for i in range(5)], atol=0.03)
    assert dict(theirs.local_exp[0])[0] == pytest.approx(-coefficients[0])


def test_a_narrow_kernel_finds_the_gradient():
    x, scale = case(8)
    at = x.clone().requires_grad_()
    [gradient] = torch.autograd.grad(model(at[None])[0], at)
    w, b, fidelity = lime_explain(
        model, x, 0.01 * scale, kernel_width=2.0, n_samples=2000, ridge=1e-9, generator=generator(9)
    )
    torch.testing.assert_close(w / (0.01 * scale), gradient, rtol=0.01, atol=0.01)
    assert b.item() == pytest.approx(model(x[None]).item(), abs=1e-3)
    assert fidelity > 0.999


def test_a_constant_model_has_no_fidelity():
    x, scale = case(10)
    w, b, fidelity = lime_explain(
        lambda X: torch.full((len(X),), 2.1, dtype=X.dtype), x, scale, kernel_width=1.0, generator=generator(0)
    )
    assert (w == 0).all()
    assert b.item() == 2.1
    assert fidelity.isnan()


@pytest.mark.parametrize("dtype, margin", [(torch.float16, 0.01), (torch.bfloat16, 0.08)])
def test_half_precision(dtype, margin):
    x, scale = (part.to(dtype) for part in case(11))
    seen = []

    def halved(X):
        seen.append(X)
        return model(X.double()).to(dtype)

    found = lime_explain(halved, x, scale, kernel_width=2.0, n_samples=500, generator=generator(1))
    assert all(part.dtype == dtype and part.isfinite().all() for part in found)
    [rows] = seen
    assert rows.dtype == dtype
    steps, said = ((rows.double() - x.double()) / scale.double()).numpy(), model(rows.double()).numpy()
    weights = lime_kernel_weights(x.double(), rows.double(), scale.double(), 2.0).numpy()
    theirs = Ridge(alpha=1.0).fit(steps, said, sample_weight=weights)
    np.testing.assert_allclose(found[0].double(), theirs.coef_, atol=margin)
    assert found[1].item() == pytest.approx(theirs.intercept_, abs=margin)
    assert found[2].item() == pytest.approx(r2_score(said, theirs.predict(steps), sample_weight=weights), abs=margin)


def test_dtypes_are_those_promised_where_scale_is_wider_than_x():
    x, scale = case(12)
    rows = lime_neighbourhood(x.float(), scale, 5, generator=generator(2))
    assert rows.dtype == torch.float32
    assert lime_kernel_weights(x.float(), rows, scale, 2.0).dtype == torch.float32
