"""The chapter's references against something independent of them."""

import re

import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.model_selection import LeaveOneGroupOut, cross_val_score
from sklearn.neighbors import NearestCentroid

from utils.data.prompts import documents, token_id, token_labels
from utils.models.course_model import load_course_model
from utils.probes.activations import collect_activations
from utils.probes.evaluate import control_task, probe_by_layer, selectivity
from utils.probes.fit import least_squares_probe, logistic_probe, mass_mean_probe
from utils.probes.labels import inside_quotes_labels


@pytest.fixture(params=[0, 1, 2])
def data(request):
    rng = torch.Generator().manual_seed(request.param)
    labels = torch.rand(150, generator=rng) < 0.3
    x = torch.randn(150, 6, generator=rng) * 3 + 2.0 * labels[:, None] + torch.randn(6, generator=rng)
    return x.double(), labels, torch.randint(5, (150,), generator=rng)


def spread(x):
    return x.var(0, correction=0).mean().item()


class TestLabels:
    def test_as_a_regular_expression_says(self):
        rng = torch.Generator().manual_seed(0)
        for _ in range(200):
            text = "".join("ab<>"[i] for i in torch.randint(4, (25,), generator=rng).tolist())
            wanted, rest = [None] * len(text), text
            while pair := re.search("<[^<>]*>", rest):  # the innermost quotation, until none is left
                for i in range(pair.start(), pair.end() - 1):
                    wanted[i] = True
                rest = rest[: pair.start()] + "." * len(pair[0]) + rest[pair.end() :]
            if "<" in rest:  # never closed
                wanted[rest.index("<") :] = [True] * (len(text) - rest.index("<"))
            tokens = torch.tensor([[ord(letter) for letter in text]])
            found = inside_quotes_labels(tokens, torch.tensor([ord("<")]), torch.tensor([ord(">")]))
            assert found[0].tolist() == [bool(x) for x in wanted], text

    def test_straight_marks_as_the_course_labels_them(self):
        tokens, mark = documents(40, seed=3), torch.tensor([token_id('"')])
        assert torch.equal(inside_quotes_labels(tokens, mark, mark), token_labels(tokens)["inside quotes"])


def test_activations_are_those_of_the_library():
    model, tokens = load_course_model(), documents(7, seed=1)
    chosen = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(0)) < 0.3
    names = ["blocks.2.hook_resid_post", "blocks.0.hook_resid_pre", "blocks.3.hook_mlp_out"]
    with torch.no_grad():
        _, cache = model.run_with_cache(tokens)
    for batch_size in (2, 7):
        found = collect_activations(model, tokens, names, chosen, batch_size=batch_size)
        assert list(found) == names
        for name in names:
            torch.testing.assert_close(found[name], cache[name][chosen], rtol=1e-4, atol=1e-4)


class TestFits:
    def test_least_squares_is_ridge_regression(self, data):
        x, labels, _ = data
        for penalty in (1e-3, 0.3):
            probe = least_squares_probe(x, labels, penalty)
            model = Ridge(alpha=len(x) * penalty * spread(x)).fit(x.numpy(), np.where(labels, 1.0, -1.0))
            np.testing.assert_allclose(probe.direction, model.coef_, rtol=1e-6)
            assert probe.bias.item() == pytest.approx(model.intercept_, rel=1e-6)

    def test_logistic_is_scikit_learns(self, data):
        x, labels, _ = data
        for penalty in (1e-3, 0.3):
            probe = logistic_probe(x, labels, penalty)
            model = LogisticRegression(C=1 / (len(x) * penalty * spread(x)), tol=1e-10, max_iter=10_000)
            model.fit(x.numpy(), labels.numpy())
            np.testing.assert_allclose(probe.direction, model.coef_[0], rtol=1e-3, atol=1e-4)
            assert probe.bias.item() == pytest.approx(model.intercept_[0], rel=1e-3, abs=1e-3)

    def test_logistic_is_at_a_minimum(self, data):
        x, labels, _ = data
        probe = logistic_probe(x, labels, 0.01)
        direction, bias = (part.clone().requires_grad_() for part in probe)
        signs = torch.where(labels, 1.0, -1.0)
        with torch.enable_grad():
            loss = torch.nn.functional.softplus(-signs * (x @ direction + bias)).mean()
            loss = loss + 0.01 / 2 * spread(x) * direction.square().sum()
            gradients = torch.autograd.grad(loss, (direction, bias))
        assert max(float(g.abs().max()) for g in gradients) < 1e-6

    def test_mass_mean_is_the_nearest_centroid(self, data):
        x, labels, _ = data
        said = NearestCentroid().fit(x.numpy(), labels.numpy()).predict(x.numpy())
        assert np.array_equal((mass_mean_probe(x, labels)(x) > 0).numpy(), said)

    def test_corrected_by_the_covariance_mass_mean_is_least_squares(self, data):
        x, labels, _ = data
        lda = LinearDiscriminantAnalysis(solver="lsqr").fit(x.numpy(), labels.numpy()).coef_[0]
        direction = least_squares_probe(x, labels, 1e-9).direction.numpy()
        cosine = lda @ direction / np.linalg.norm(lda) / np.linalg.norm(direction)
        assert cosine == pytest.approx(1.0, abs=1e-6)


def test_leaving_groups_out_is_scikit_learns(data):
    x, labels, groups = data
    found = probe_by_layer({"a": x}, labels, groups, mass_mean_probe)["a"]
    wanted = cross_val_score(NearestCentroid(), x.numpy(), labels.numpy(), groups=groups.numpy(), cv=LeaveOneGroupOut())
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_a_control_can_be_learnt_from_the_word_and_from_nothing_else():
    rng = torch.Generator().manual_seed(0)
    tokens = torch.randint(30, (600,), generator=rng)
    labels = control_task(tokens, 30, 0.4, rng)
    by_word = torch.nn.functional.one_hot(tokens, 30).double()
    seen = probe_by_layer({"a": by_word}, labels, torch.arange(600) % 4, least_squares_probe)["a"]
    unseen = torch.stack(
        [
            probe_by_layer({"a": by_word}, control_task(tokens, 30, 0.5, rng), tokens % 3, least_squares_probe)[
                "a"
            ].mean()
            for _ in range(20)
        ]
    )
    assert seen.min() == 1.0 and abs(unseen.mean() - 0.5) < 0.1


def test_selectivity_is_a_paired_t_interval():
    rng = torch.Generator().manual_seed(4)
    task, control = torch.rand(9, generator=rng).double(), torch.rand(3, 9, generator=rng).double()
    mean, half = selectivity(task, control)
    wanted = stats.ttest_rel(task.numpy(), control.mean(0).numpy()).confidence_interval(0.95)
    assert mean - half == pytest.approx(wanted.low) and mean + half == pytest.approx(wanted.high)
