"""The references for reading latents against libraries, finite differences and exhaustive search."""

import itertools

import pytest
import torch
from scipy.stats import pearsonr
from sklearn.metrics import balanced_accuracy_score, precision_recall_fscore_support, roc_auc_score

from utils.data.corpus import corpus
from utils.models.course_model import load_course_model
from utils.sae.explain import (
    Explanation,
    applies,
    best_word_set,
    detection_score,
    explain_feature,
    in_words,
    simulation_score,
)
from utils.sae.reading import activation_levels, latent_label_scores, logit_effects, max_activating_examples


def seeded(seed):
    return torch.Generator().manual_seed(seed)


def test_label_scores_are_those_of_scikit_learn():
    z, labels = torch.rand(200, 4, generator=seeded(0)) - 0.4, torch.rand(200, generator=seeded(1)) < 0.3
    scores = latent_label_scores(z, labels, 0.1)
    for i in range(4):
        expected = precision_recall_fscore_support(labels, z[:, i] > 0.1, average="binary")[:3]
        assert [column[i].item() for column in scores] == pytest.approx(list(expected), abs=1e-6)


def test_detection_is_the_area_under_the_roc_curve():
    on = torch.rand(300, generator=seeded(2)) < 0.2
    guesses = torch.randint(0, 6, (300,), generator=seeded(3)) + 2 * on
    assert detection_score(guesses, on) == pytest.approx(roc_auc_score(on, guesses))
    says = guesses > 3
    assert detection_score(says, on) == pytest.approx(balanced_accuracy_score(on, says))


def test_simulation_is_pearsons_correlation():
    a = torch.randn(100, generator=seeded(4))
    b = a + torch.randn(100, generator=seeded(5))
    assert simulation_score(a, b) == pytest.approx(pearsonr(a.double(), b.double()).statistic)


def test_levels_are_quantiles():
    acts = torch.rand(20, 30, generator=seeded(6)) * (torch.rand(20, 30, generator=seeded(7)) < 0.3)
    levels = activation_levels(acts, 4)
    edges = acts[acts > 0].double().quantile(torch.tensor([0.25, 0.5, 0.75], dtype=torch.double))
    expected = torch.where(acts > 0, 1 + torch.bucketize(acts.double(), edges), 0)
    assert (levels - expected).abs().max() <= 1 and (levels == expected).float().mean() > 0.99


def test_the_strongest_example_is_the_maximum():
    acts = torch.rand(12, 40, generator=seeded(8))
    found = max_activating_examples(acts, 12)
    assert [e.activation for e in found] == pytest.approx(acts.amax(1).sort(descending=True).values.tolist())


def test_no_set_of_words_is_better():
    for seed in range(20):
        words = torch.randint(0, 7, (60,), generator=seeded(seed))
        on = torch.rand(60, generator=seeded(100 + seed)) < torch.rand(7, generator=seeded(200 + seed))[words]
        best = max(
            2 * (torch.isin(words, torch.tensor(chosen)) & on).sum().item()
            / (torch.isin(words, torch.tensor(chosen)).sum() + on.sum()).item()
            for k in range(1, 8)
            for chosen in itertools.combinations(range(7), k)
        )  # fmt: skip
        assert best_word_set(words, on, 7)[1] == pytest.approx(best)


def test_logit_effects_are_the_derivative_up_to_the_division():
    model = load_course_model().double()
    x = torch.randn(1, 1, model.cfg.d_model, generator=seeded(9)).double()
    direction = torch.randn(1, model.cfg.d_model, generator=seeded(10)).double()
    with torch.no_grad():
        divisor = ((x - x.mean()).square().mean() + 1e-5).sqrt()
        # a change that does not alter the divisor to first order: its part along the centred stream is taken out
        centred, d = (x - x.mean()).flatten(), direction[0] - direction[0].mean()
        d = d - (d @ centred) / (centred @ centred) * centred
        step = 1e-5
        above, below = (
            torch.nn.functional.layer_norm(x + sign * step * d, d.shape, model.ln_final.w, model.ln_final.b, 1e-5)
            for sign in (1, -1)
        )
        moved = (above - below) @ model.W_U / (2 * step)
        moved = moved.flatten() - moved.mean()
        expected = logit_effects(d[None], model.ln_final.w, model.W_U)[0] / divisor.item()
    assert torch.allclose(moved, expected, atol=1e-6)


def test_a_rule_is_found_again_whatever_it_is():
    tokens = torch.as_tensor(corpus(80, 3)).long()
    states = {"late": (torch.arange(96) > 60).expand(80, 96)}
    common = tokens.flatten().bincount().topk(12).indices.sort().values.tolist()
    for rule in (
        Explanation((), 0, "late", 1.0),
        Explanation(tuple(common[:3]), 0, "", 1.0),
        Explanation(tuple(common[4:6]), -1, "", 1.0),
        Explanation((common[7],), -2, "", 1.0),
        Explanation(tuple(common[1:3]), 0, "late", 1.0),
    ):
        assert explain_feature(tokens, applies(rule, tokens, states), states) == rule


def test_rules_in_words():
    words = ("a", "b", "c")
    assert in_words(Explanation((0, 2), -1, "", 1), words) == "the word before is one of a, c"
    assert in_words(Explanation((1,), 0, "quoted", 1), words) == "quoted, and the word is b"
    assert in_words(Explanation((), 0, "quoted", 1), words) == "quoted"
    assert in_words(Explanation((), 0, "", 0), words) == "never"
    assert not applies(Explanation((), 0, "", 0), torch.zeros(2, 3, dtype=torch.long), {}).any()
