"""The n-gram model's counts against scikit-learn's, its limits in closed form; losses against PyTorch and training."""

from itertools import product

import pytest
import torch
import torch.nn.functional as F
from sklearn.feature_extraction.text import CountVectorizer

from utils.circuits.ngrams import ngram_log_probs
from utils.circuits.phase import induction_phase_change
from utils.circuits.repeats import loss_by_position


@pytest.fixture
def texts():
    generator = torch.Generator().manual_seed(3)
    return torch.randint(4, (40, 12), generator=generator)


def test_with_hardly_any_smoothing_it_is_the_ratio_of_another_library_s_counts(texts):
    rows = [" ".join(map(str, row)) for row in texts.tolist()]

    def counted(n, lines):
        vectorizer = CountVectorizer(ngram_range=(n, n), token_pattern=r"\d")
        return dict(zip(*_sums(vectorizer, lines), strict=True))

    trigrams = counted(3, rows)
    followed = counted(2, [row[:-2] for row in rows])  # bigrams behind which something stands
    for a, b, c in product(range(4), repeat=3):
        expected = trigrams[f"{a} {b} {c}"] / followed[f"{a} {b}"]
        found = ngram_log_probs(texts, torch.tensor([[a, b, c]]), 3, 4, strength=1e-6)[0, 2].exp().item()
        assert found == pytest.approx(expected, abs=1e-5)


def _sums(vectorizer, lines):
    table = vectorizer.fit_transform(lines).sum(axis=0).A1
    return vectorizer.get_feature_names_out(), table


def test_with_all_smoothing_it_is_uniform(texts):
    found = ngram_log_probs(texts, texts[:3], 3, 4, strength=1e12)
    torch.testing.assert_close(found.exp(), torch.full((3, 12), 0.25, dtype=torch.float64), atol=1e-6, rtol=0)


def test_losses_are_those_that_training_uses(texts):
    logits = torch.randn(40, 12, 4, generator=torch.Generator().manual_seed(0))
    expected = F.cross_entropy(logits[:, :-1].flatten(0, 1), texts[:, 1:].flatten())
    torch.testing.assert_close(loss_by_position(logits, texts)[:, 1:].mean(), expected)


def test_a_logistic_curve_changes_when_its_formula_says():
    """sigmoid((t - 100) / 8) is at a share p where t = 100 + 8 log(p / (1 - p))."""
    steps = torch.arange(0, 201)
    found = induction_phase_change(steps, torch.sigmoid((steps.double() - 100) / 8))
    width = 8 * torch.log(torch.tensor(9.0)).item()
    assert found == pytest.approx((100 - width, 100, 100 + width), abs=0.05)
