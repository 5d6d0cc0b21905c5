"""The sampling references against the logits processors of transformers, and against exact distributions."""

import pytest
import torch
from scipy.stats import chi2, chisquare
from transformers import TemperatureLogitsWarper, TopKLogitsWarper, TopPLogitsWarper

from utils.course.paths import TESTS, load_file
from utils.transformer.sampling import generate, greedy, sample_temperature, top_k_filter, top_p_filter


def random_logits(seed, batch=6, d_vocab=40):
    return 2 * torch.randn(batch, d_vocab, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("k", [1, 3, 39, 40, 100])
def test_top_k_equals_transformers(k):
    logits = random_logits(k).round(decimals=0)  # rounding makes ties
    torch.testing.assert_close(top_k_filter(logits, k), TopKLogitsWarper(top_k=k)(None, logits))


@pytest.mark.parametrize("p", [0.01, 0.3, 0.8, 0.99])
def test_top_p_equals_transformers(p):
    logits = random_logits(int(100 * p))
    torch.testing.assert_close(top_p_filter(logits, p), TopPLogitsWarper(top_p=p)(None, logits))


def test_top_p_one_keeps_the_tail():
    logits = torch.tensor([[50.0, 0.0, -50.0]])
    torch.testing.assert_close(top_p_filter(logits, 1.0), logits)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.0])
def test_sampled_frequencies(temperature):
    logits = random_logits(7, batch=1, d_vocab=12) / 2
    expected = TemperatureLogitsWarper(temperature)(None, logits).double().softmax(-1)[0]
    drawn = sample_temperature(logits.expand(20_000, -1), temperature, torch.Generator().manual_seed(1))
    counts = drawn.bincount(minlength=12).double()
    common = expected * 20_000 > 5
    if not common.all():  # pool what is too rare for the test
        counts = torch.cat([counts[common], counts[~common].sum()[None]])
        expected = torch.cat([expected[common], expected[~common].sum()[None]])
    assert chisquare(counts.numpy(), (expected / expected.sum() * counts.sum()).numpy()).pvalue > 1e-3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("temperature", [1e-4, 1e-40, 1e-300])
def test_the_coldest_temperatures_are_greedy(dtype, temperature):
    logits = torch.tensor([[10.0, 20.0, 30.0], [-5.0, -torch.inf, -900.0]], dtype=dtype).repeat(50, 1)
    drawn = sample_temperature(logits, temperature, torch.Generator().manual_seed(0))
    assert torch.equal(drawn, logits.argmax(-1))


def test_a_temperature_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="temperature"):
        sample_temperature(random_logits(0), float("nan"), torch.Generator())


def test_top_p_of_many_equal_tokens_in_half_precision():
    """4096 tokens of probability 1/4096: a sum in float16 would stop growing."""
    kept = top_p_filter(torch.zeros(1, 4096, dtype=torch.float16), 0.75)
    assert (kept > -torch.inf).sum() == 3072


def test_sampling_leaves_the_global_random_state_alone():
    state = torch.get_rng_state()
    sample_temperature(random_logits(0), 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(state, torch.get_rng_state())


def test_limits_of_the_check_are_the_stated_quantiles():
    limits = load_file(TESTS / "02_transformer_from_scratch" / "test_sampling.py").CHI_SQUARE_LIMIT
    for degrees, limit in limits.items():
        assert limit == pytest.approx(chi2.isf(1e-5, degrees), abs=0.01)


def test_greedy_generation_equals_transformers():
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    model = GPT2LMHeadModel(
        GPT2Config(
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=32,
            vocab_size=30,
            bos_token_id=0,
            eos_token_id=None,
            initializer_range=0.5,
        )
    ).eval()
    tokens = torch.randint(30, (3, 5))
    expected = model.generate(
        tokens, attention_mask=torch.ones_like(tokens), max_new_tokens=9, do_sample=False, pad_token_id=0
    )
    assert torch.equal(generate(lambda t: model(t).logits, tokens, 9, greedy), expected)
