"""What 02d says about SmolLM2-135M, computed again on fewer texts."""

import pytest
import torch
from transformer_lens import TransformerLensKeyValueCache

from utils.models.config import TransformerConfig
from utils.models.packaged import PACKAGED
from utils.transformer.accounting import attention_flops, count_parameters
from utils.transformer.sampling import generate, greedy, sample_temperature, top_p_filter
from utils.transformer.training import cross_entropy_per_token

BEGINNINGS = [
    "My grandmother always told me that I should", "The history of the bicycle began when a",
    "On the first day of school the teacher", "She looked at the letter again and thought",
]  # fmt: skip
BY_PEOPLE = {
    "My grandmother always told me that I should count the stairs in any house where I meant to sleep. She had grown "
    "up above a bakery, where the fourth step was missing and nobody mended it, because the baker's boy liked to hear "
    "the late customers swear. I still count.": 4.3,
    "Rice is a grain that people eat in many parts of the world. It grows in warm, wet places, often in fields that "
    "are covered with water. After the harvest the grains are dried and the husks are removed. Brown rice still has "
    "its outer layer, while white rice does not.": 2.4,
}


def repeated(tokens, n=4):
    runs = [tuple(tokens[i : i + n]) for i in range(len(tokens) - n + 1)]
    return 1 - len(set(runs)) / len(runs)


def remembering(model, n_texts):
    cache = TransformerLensKeyValueCache.init_cache(model.cfg, "cpu", n_texts)
    return lambda tokens: model(tokens[:, cache[0].past_keys.shape[1] :], past_kv_cache=cache)


def losses_of(model, tokens):
    with torch.no_grad():
        return cross_entropy_per_token(model(tokens), tokens)[:, 8:]


@pytest.fixture(scope="module")
def texts(smollm2):
    generator = torch.Generator().manual_seed(0)
    rules = {
        "greedy": greedy,
        "drawn": lambda logits: sample_temperature(logits, 1.0, generator),
        "top-p": lambda logits: sample_temperature(top_p_filter(logits, 0.9), 1.0, generator),
    }
    prompts = smollm2.to_tokens(BEGINNINGS)
    assert prompts.shape == (4, 9)

    def choose(logits):
        return torch.cat([rule(rows) for rule, rows in zip(rules.values(), logits.split(4), strict=True)])

    written = generate(remembering(smollm2, 12), prompts.repeat(3, 1), 48, choose)
    return dict(zip(rules, written.split(4), strict=True))


def test_the_cache_of_the_library_changes_nothing(smollm2):
    tokens = smollm2.to_tokens(BEGINNINGS)
    model = remembering(smollm2, 4)
    with torch.no_grad():
        model(tokens[:, :5])
        torch.testing.assert_close(model(tokens), smollm2(tokens)[:, 5:], rtol=0, atol=1e-3)


def test_greedy_texts_repeat_themselves_and_drawn_ones_do_not(texts):
    share = {name: [repeated(row[9:].tolist()) for row in rows] for name, rows in texts.items()}
    print(share)
    mean = {name: sum(values) / 4 for name, values in share.items()}
    assert mean["greedy"] > 0.1 and mean["drawn"] < 0.08 and mean["top-p"] < 0.08


def test_greedy_texts_are_far_more_probable_than_those_of_people(smollm2, texts):
    loss = {name: losses_of(smollm2, rows).mean().item() for name, rows in texts.items()}
    print(loss)
    assert loss["greedy"] < 1.2 and 1.8 < loss["top-p"] < loss["drawn"] < 4.5
    for text, expected in BY_PEOPLE.items():
        assert losses_of(smollm2, smollm2.to_tokens(text)).mean().item() == pytest.approx(expected, abs=0.3)


def test_repeating_feeds_itself(smollm2, texts):
    again, before = [], []
    for row, losses in zip(texts["greedy"][:, 9:].tolist(), losses_of(smollm2, texts["greedy"]).tolist(), strict=True):
        seen = {}
        for i in range(3, len(row)):
            if (run := tuple(row[i - 3 : i + 1])) in seen:
                again.append(losses[i])
                before.append(losses[seen[run]])
            seen.setdefault(run, i)
    print(len(again), sum(again) / len(again), sum(before) / len(before))
    assert len(again) > 20 and sum(again) < 0.6 * sum(before)


def test_the_counts(smollm2):
    sizes = TransformerConfig(576, 30, 9, 64, 1536, 8192, 49_152)
    yours = count_parameters(sizes)
    theirs = {
        "embed": yours["embed"],
        "attention": 30 * 2 * 576 * 12 * 64,
        "mlp": 30 * 3 * 576 * 1536,
        "norms": 61 * 576,
    }
    assert sum(theirs.values()) == PACKAGED["smollm2-135m"].parameters == 134_515_008
    assert yours["total"] == 154_490_880 and yours["pos_embed"] == 4_718_592
    cfg = smollm2.cfg
    assert (cfg.d_model, cfg.n_layers, cfg.n_heads, cfg.d_head, cfg.d_mlp, cfg.d_vocab) == (
        576,
        30,
        9,
        64,
        1536,
        49_152,
    )
    for n, heads in ((1152, 27), (768, 15)):  # of queries, keys and values together
        flops = attention_flops(sizes, n)
        linear = flops["qkv"] * heads // 27 + flops["output"]
        assert linear == flops["scores"] + flops["weighted_values"]
