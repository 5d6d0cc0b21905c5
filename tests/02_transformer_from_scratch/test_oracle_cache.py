"""The cached step against the full forward pass, and against transformers' cache."""

import pytest
import torch

from utils.models.config import TransformerConfig
from utils.models.hooked import load_gpt2_small
from utils.models.llama import LlamaConfig
from utils.transformer.cache import kv_cache_step
from utils.transformer.model import Transformer


@pytest.mark.parametrize("d_mlp", [20, 0])
def test_equals_the_full_pass_in_double(d_mlp):
    cfg = TransformerConfig(d_model=12, n_layers=3, n_heads=2, d_head=5, d_mlp=d_mlp, n_ctx=9, d_vocab=17)
    torch.manual_seed(0)
    model = Transformer(cfg).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    tokens, cache, logits = torch.randint(17, (4, 9)), None, []
    for i in range(9):
        step_logits, cache = kv_cache_step(model, tokens[:, i], cache)
        logits.append(step_logits)
    torch.testing.assert_close(torch.stack(logits, 1), model(tokens), rtol=1e-9, atol=1e-9)
    assert [tuple(t.shape) for t in cache[2]] == [(4, 2, 9, 5)] * 2


def test_equals_transformers_with_its_cache(tmp_path):
    """A random GPT-2, saved and loaded as the pretrained one is: keys and values equal the library's own."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(
        GPT2Config(n_embd=24, n_layer=2, n_head=3, n_positions=16, vocab_size=20, initializer_range=0.4)
    ).eval()
    theirs.save_pretrained(tmp_path)
    words = Tokenizer(WordLevel({str(i): i for i in range(20)}, unk_token="0"))
    PreTrainedTokenizerFast(tokenizer_object=words, unk_token="0").save_pretrained(tmp_path)
    cfg, state, tokenizer = load_gpt2_small(str(tmp_path))
    assert (cfg.d_model, cfg.n_layers, cfg.n_heads, cfg.d_head, cfg.d_mlp, cfg.n_ctx, cfg.d_vocab) == (
        24,
        2,
        3,
        8,
        96,
        16,
        20,
    )
    assert tokenizer("7")["input_ids"] == [7]
    ours = Transformer(cfg)
    ours.load_state_dict(state)
    tokens, cache, past = torch.randint(20, (2, 6)), None, None
    with torch.no_grad():
        torch.testing.assert_close(ours(tokens), theirs(tokens).logits, rtol=1e-4, atol=1e-4)
        for i in range(6):
            logits, cache = kv_cache_step(ours, tokens[:, i], cache)
            out = theirs(tokens[:, i : i + 1], past_key_values=past, use_cache=True)
            past = out.past_key_values
            torch.testing.assert_close(logits, out.logits[:, 0], rtol=1e-4, atol=1e-4)
        for layer in range(2):
            torch.testing.assert_close(cache[layer][0], past.layers[layer].keys, rtol=1e-4, atol=1e-4)
            torch.testing.assert_close(cache[layer][1], past.layers[layer].values, rtol=1e-4, atol=1e-4)


def test_a_model_without_position_embeddings_is_refused_in_one_sentence():
    llama = LlamaConfig(
        d_model=12, n_layers=1, n_heads=2, d_head=4, d_mlp=20, n_ctx=9, d_vocab=17, n_key_value_heads=1,
        rotary_base=10_000.0, tied=True,
    )  # fmt: skip
    model = Transformer(llama)  # whose cfg alone is looked at
    with pytest.raises(ValueError, match="tells positions inside attention, and this step would leave them out"):
        kv_cache_step(model, torch.tensor([3]), None)
