"""What the text says about the Lasso, LIME and Shapley values on the table of tumours, with the numbers it gives."""

import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from sklearn.datasets import load_breast_cancer
from sklearn.linear_model import lasso_path
from sklearn.neural_network import MLPClassifier

from utils.attribution.lasso import lasso_ista
from utils.attribution.lime import lime_explain, lime_kernel_weights, lime_neighbourhood
from utils.attribution.shapley import coalition_values, kernel_shap, shapley_exact, shapley_sampling

WIDTH = 0.75 * math.sqrt(10)


@pytest.fixture(scope="module")
def tumours():
    data = load_breast_cancer()
    X = torch.tensor(data.data[:, :10])
    names = [name.removeprefix("mean ") for name in data.feature_names[:10]]
    X = (X - X.mean(0)) / X.std(0, correction=0)
    return SimpleNamespace(X=X, y=1.0 - torch.tensor(data.target).double(), names=names, at=names.index, n=len(X))


def permutation(n, seed):
    return torch.randperm(n, generator=torch.Generator().manual_seed(seed))


def path(X, y, penalties):
    _, w, _ = lasso_path((X - X.mean(0)).numpy(), (y - y.mean()).numpy(), alphas=penalties, tol=1e-7, max_iter=20000)
    return torch.tensor(w.T)


def chosen(tumours, w):
    return {name for name, value in zip(tumours.names, w.tolist(), strict=True) if value != 0}


def test_the_path_begins_with_perimeter_and_goes_on_with_radius(tumours):
    penalties = [0.31, 0.17, 0.05, 0.028]
    w = path(tumours.X, tumours.y, penalties)
    assert chosen(tumours, w[0]) == {"concave points"}
    assert chosen(tumours, w[1]) == {"concave points", "perimeter"}
    assert chosen(tumours, w[2]) == chosen(tumours, w[3]) == {"concave points", "radius", "texture"}
    sizes = torch.corrcoef(tumours.X[:, [tumours.at(name) for name in ("radius", "perimeter", "area")]].T)
    assert [round(float(c), 3) for c in (sizes[0, 1], sizes[0, 2], sizes[1, 2])] == [0.998, 0.987, 0.987]
    early, _ = lasso_ista(tumours.X, tumours.y, 0.02, n_steps=100)
    assert {"radius", "perimeter"} < chosen(tumours, early)
    late, _ = lasso_ista(tumours.X, tumours.y, 0.02, n_steps=600)
    assert chosen(tumours, late) == {"concave points", "radius", "texture", "symmetry"}


def test_shuffled_labels_get_a_support_and_predict_nothing(tumours):
    order = permutation(tumours.n, 5)
    fit, test = order[: tumours.n // 2], order[tumours.n // 2 :]

    def kept_and_score(y):
        w = path(tumours.X[fit], y[fit], [0.011])[0]
        b = y[fit].mean() - tumours.X[fit].mean(0) @ w
        return (w != 0).sum().item(), 1 - (y[test] - b - tumours.X[test] @ w).square().mean() / y[test].var(
            correction=0
        )

    kept, score = kept_and_score(tumours.y)
    nulls = [kept_and_score(tumours.y[permutation(tumours.n, 100 + seed)]) for seed in range(40)]
    assert 5 <= kept <= 8
    assert score > 0.6
    assert 3 < sum(k for k, _ in nulls) / 40 < 5
    assert max(s for _, s in nulls) < 0.06
    assert sum(s for _, s in nulls) < 0


def test_the_chosen_twin_depends_on_the_sample_and_on_the_penalty(tumours):
    generator = torch.Generator().manual_seed(2)
    samples = [torch.randint(tumours.n, (tumours.n,), generator=generator) for _ in range(100)]
    kept = torch.stack([path(tumours.X[rows], tumours.y[rows], [0.2, 0.07, 0.02]) != 0 for rows in samples])
    radius, perimeter = kept[..., tumours.at("radius")], kept[..., tumours.at("perimeter")]
    assert radius[:, 0].double().mean() < 0.05
    assert perimeter[:, 0].double().mean() > 0.7
    assert radius[:, 2].double().mean() > 0.97
    assert perimeter[:, 2].double().mean() < 0.05
    for share in ((radius & ~perimeter)[:, 1], (perimeter & ~radius)[:, 1]):
        assert 0.1 < share.double().mean() < 0.8
    assert kept[..., tumours.at("concave points")].double().mean() > 0.97


def test_the_slope_at_a_point_depends_on_the_width():
    def bump(t):
        return torch.tanh(4 * t[:, 0]) - 0.6 * t[:, 0]

    found = []
    for width in (0.3, 1.0, 3.0):
        generator = torch.Generator().manual_seed(1)
        options = {"kernel_width": width / 2, "n_samples": 4000, "ridge": 1e-3}
        w, _, fidelity = lime_explain(bump, torch.zeros(1), torch.tensor([2.0]), **options, generator=generator)
        found += [w.item() / 2, fidelity.item()]
    assert found == pytest.approx([2.07, 0.91, 0.54, 0.47, -0.05, 0.03], abs=0.06)


@pytest.fixture(scope="module")
def models(tumours):
    """Five networks trained on the labels, five on shuffled ones, the patient, and the background."""
    order = permutation(tumours.n, 0)
    train, held_out = order[: 3 * tumours.n // 4], order[3 * tumours.n // 4 :]

    def network(labels, seed):
        fitted = MLPClassifier((16, 16), alpha=1e-2, max_iter=200, random_state=seed)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fitted.fit(tumours.X[train].numpy(), labels[train].numpy())
        return lambda X: torch.as_tensor(fitted.predict_proba(X.numpy())[:, 1])

    real = [network(tumours.y, seed) for seed in range(5)]
    null = [network(tumours.y[permutation(tumours.n, seed)], seed) for seed in range(5)]
    mean = torch.stack([f(tumours.X[held_out]) for f in real]).mean(0)
    patient = tumours.X[held_out[(mean - 0.7).abs().argmin()]]
    return SimpleNamespace(
        real=real, null=null, patient=patient, background=tumours.X[train[:40]], train=train, held_out=held_out
    )


def lime_runs(fs, x, seeds=range(4), width=WIDTH):
    runs = [
        lime_explain(f, x, torch.ones_like(x), kernel_width=width, generator=torch.Generator().manual_seed(seed))
        for f in fs
        for seed in seeds
    ]
    return torch.stack([w for w, _, _ in runs]), torch.stack([fidelity for _, _, fidelity in runs])


def test_networks_have_learnt_what_shuffled_ones_have_not(tumours, models):
    truth = tumours.y[models.held_out].bool()
    for group, low, high in ((models.real, 0.93, 1.0), (models.null, 0.4, 0.8)):
        for f in group:
            assert low < ((f(tumours.X[models.held_out]) > 0.5) == truth).double().mean() <= high


def test_lime_repeats_for_trained_networks_only(models):
    real, fidelity = lime_runs(models.real, models.patient)
    null, null_fidelity = lime_runs(models.null, models.patient)
    assert (real.sign().sum(0).abs() == 20).sum() >= 7
    assert (null.sign().sum(0).abs() == 20).sum() <= 1
    assert 0.65 < fidelity.mean() < 0.9
    assert null_fidelity.mean() < fidelity.mean() - 0.1


def test_a_narrow_kernel_leaves_nothing(models):
    narrow, low = lime_runs(models.real[:1], models.patient, range(10), 0.6)
    wide, high = lime_runs(models.real[:1], models.patient, range(10), 2.0)
    assert narrow.abs().max() < 0.03
    assert low.mean() < 0.15
    assert wide.abs().max() > 0.1
    assert high.mean() > 0.6
    assert len(set(narrow.abs().argmax(1).tolist())) >= 4


def test_lime_is_fooled(tumours, models):
    radius, perimeter, texture, decoy = map(tumours.at, ("radius", "perimeter", "texture", "fractal dimension"))

    def by_texture(X):
        return torch.sigmoid(3 * X[:, texture])

    def looks_real(X):
        return (X[:, radius] - X[:, perimeter]).abs() < 0.35

    def disguised(X):
        return torch.where(looks_real(X), by_texture(X), torch.sigmoid(3 * X[:, decoy]))

    x, ones = models.patient, torch.ones(10, dtype=torch.float64)
    plain, _ = lime_runs([by_texture], x, range(10))
    hidden, _ = lime_runs([disguised], x, range(10))
    assert (~looks_real(tumours.X)).sum() == 1
    assert (disguised(tumours.X) == by_texture(tumours.X))[looks_real(tumours.X)].all()
    assert plain.mean(0).abs().argmax() == texture
    assert hidden.mean(0).abs().argmax() == decoy
    assert hidden[:, decoy].min() > 2 * hidden[:, texture].max()
    rows = lime_neighbourhood(x, ones, 1000, generator=torch.Generator().manual_seed(0))
    weights = lime_kernel_weights(x, rows, ones, WIDTH)
    assert 0.12 < looks_real(rows).double().mean() < 0.26
    assert 0.15 < (weights * looks_real(rows)).sum() / weights.sum() < 0.32
    shares = shapley_exact(disguised, x, models.background)
    assert abs(shares[decoy]) > 0.3 * abs(shares[texture])


def test_shapley_values_balance_for_all_networks_and_repeat_for_trained_ones_only(models):
    x, background = models.patient, models.background
    agreement = []
    for group in (models.real, models.null):
        values = torch.stack([shapley_exact(f, x, background) for f in group])
        for f, v in zip(group, values, strict=True):
            assert (v.sum() - f(x[None])[0] + f(background).mean()).abs() < 1e-12
        agreement.append(torch.corrcoef(values)[*torch.triu_indices(5, 5, 1)].mean())
    assert agreement[0] > 0.8
    assert agreement[1] < 0.3


def test_lime_and_shapley_values_answer_different_questions(models):
    x, background = models.patient, models.background
    lime = lime_runs(models.real, x)[0].mean(0)
    shares = torch.stack([shapley_exact(f, x, background) for f in models.real]).mean(0)

    def correlation(values):
        return torch.corrcoef(torch.stack([values, shares]))[0, 1]

    assert correlation(lime * (x - background.mean(0))) > correlation(lime) + 0.1
    assert correlation(lime * (x - background.mean(0))) > 0.8


def test_kernel_shap_equals_the_exact_values(models):
    exact = shapley_exact(models.real[0], models.patient, models.background)
    assert (kernel_shap(models.real[0], models.patient, models.background) - exact).abs().max() < 1e-12


@pytest.fixture(scope="module")
def game(models):
    """The coalition values of the patient as a model of ten zeros and ones."""
    bits = (torch.arange(1024)[:, None] >> torch.arange(10) & 1).bool()
    values = coalition_values(models.real[0], models.patient, models.background, bits)
    powers = 2.0 ** torch.arange(10, dtype=torch.float64)
    ones, zeros = torch.ones(10, dtype=torch.float64), torch.zeros(1, 10, dtype=torch.float64)
    return lambda Z: values[(Z @ powers).long()], ones, zeros


def test_the_error_of_sampling_falls_as_one_over_root_n(game):
    exact, generator = shapley_exact(*game), torch.Generator().manual_seed(3)
    counts, errors, covered = [8, 32, 128, 512], [], []
    for n in counts:
        runs = [shapley_sampling(*game, n_permutations=n, generator=generator) for _ in range(100)]
        errors.append(torch.stack([(phi - exact).square().mean() for phi, _ in runs]).mean().sqrt().log())
        covered.append(torch.stack([((phi - exact).abs() < 1.96 * se).double().mean() for phi, se in runs]).mean())
    steps = torch.tensor(counts, dtype=torch.float64).log()
    centred = steps - steps.mean()
    assert -0.55 < (centred * torch.stack(errors)).sum() / centred.square().sum() < -0.45
    assert all(0.92 < c < 0.98 for c in covered[1:])


def test_kernel_shap_needs_fewer_coalitions(game):
    exact, generator = shapley_exact(*game), torch.Generator().manual_seed(4)
    orders = [shapley_sampling(*game, n_permutations=64, generator=generator)[0] for _ in range(60)]
    drawn = [kernel_shap(*game, n_coalitions=576, generator=generator) for _ in range(60)]
    errors = [torch.stack([(phi - exact).square().mean() for phi in runs]).mean().sqrt() for runs in (orders, drawn)]
    assert errors[1] < 0.6 * errors[0]


def test_the_background_decides(tumours, models):
    labels, rows = tumours.y[models.train].bool(), tumours.X[models.train]
    benign, malignant = (
        torch.stack([shapley_exact(f, models.patient, rows[group][:40]) for f in models.real])
        for group in (~labels, labels)
    )
    assert benign.sum(1).min() > 0.35
    assert malignant.sum(1).max() < 0
    for name in ("radius", "texture", "perimeter", "area"):
        assert benign.mean(0)[tumours.at(name)] > 0 > malignant.mean(0)[tumours.at(name)]


def test_hybrids_leave_the_data(tumours, models):
    radius, perimeter = tumours.at("radius"), tumours.at("perimeter")
    largest = (tumours.X[:, radius] - tumours.X[:, perimeter]).abs().max()
    assert largest.item() == pytest.approx(0.41, abs=0.01)
    bits = (torch.arange(1024)[:, None] >> torch.arange(10) & 1).bool()
    hybrids = torch.where(bits[:, None], models.patient, models.background).flatten(0, 1)
    assert 0.2 < ((hybrids[:, radius] - hybrids[:, perimeter]).abs() > largest).double().mean() < 0.5


def test_two_models_that_agree_have_explanations_that_do_not(tumours, models):
    radius, perimeter = tumours.at("radius"), tumours.at("perimeter")

    def line(column):
        slope = (tumours.X[:, column] * tumours.y).mean()
        return lambda X: tumours.y.mean() + slope * X[:, column]

    first, second = line(radius), line(perimeter)
    assert torch.corrcoef(torch.stack([first(tumours.X), second(tumours.X)]))[0, 1] > 0.997
    assert ((first(tumours.X) > 0.5) == (second(tumours.X) > 0.5)).double().mean() > 0.98
    x = tumours.X[tumours.X[:, radius].argmax()]
    values = [shapley_exact(f, x, models.background) for f in (first, second)]
    assert values[0][radius] > 1
    assert values[0][perimeter].abs() < 1e-12
    assert values[1][perimeter] > 1
    assert values[1][radius].abs() < 1e-12
