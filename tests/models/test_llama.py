"""Llama-like models from GGUF files: `transformers` and transformer_lens compute the same, and others are refused."""

import json
import warnings
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from utils.course.paths import load_file
from utils.models.bundled import ModelFileError
from utils.models.catalogue import load_llama
from utils.models.llama import read_config, read_state
from utils.models.llama_gguf import convert_gguf

gguf_files = load_file(Path(__file__).with_name("gguf_files.py"))
TOKENS = torch.randint(300, (3, 40), generator=torch.Generator().manual_seed(0))


def log_probs(model, tokens=TOKENS):
    with torch.no_grad():
        out = model(tokens)
    return (out if isinstance(out, torch.Tensor) else out.logits).log_softmax(-1)


def convert(folder, model, kind="F32", bos="<end>", **changes):
    path = gguf_files.write_llama(folder / "model.gguf", model, kind, **changes)
    convert_gguf(path, folder / "made", bos=bos)
    return folder / "made"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    theirs = gguf_files.random_llama()
    return theirs, convert(tmp_path_factory.mktemp("llama"), theirs)


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("F32", {}),
        ("F16", {"num_key_value_heads": 4}),
        ("Q4_0", {"num_key_value_heads": 1}),
        ("Q4_1", {}),
        ("Q8_0", {"tie_word_embeddings": False, "num_attention_heads": 8, "num_key_value_heads": 2, "head_dim": 32}),
    ],
)
def test_it_is_the_model_that_was_written(tmp_path, kind, changes):
    theirs = gguf_files.random_llama(**changes)
    before = log_probs(theirs)
    about = {"llama.attention.key_length": 32, "llama.attention.value_length": 32} if "head_dim" in changes else {}
    ours = load_llama(convert(tmp_path, theirs, kind, about=about), "<end>", n_ctx=40)
    expected = log_probs(theirs)  # of the quantised weights
    assert expected.std() > 0.5 and torch.equal(before, expected) == (kind == "F32")
    torch.testing.assert_close(log_probs(ours), expected, rtol=0, atol=1e-4)
    assert not ours.training and ours.W_K.shape[1] == ours.cfg.n_heads


def test_transformers_reads_the_folder_and_the_file_the_same(made):
    theirs, folder = made
    from transformers import AutoModelForCausalLM

    torch.testing.assert_close(log_probs(AutoModelForCausalLM.from_pretrained(folder)), log_probs(theirs))
    pytest.importorskip("gguf")
    read = AutoModelForCausalLM.from_pretrained(folder.parent, gguf_file="model.gguf", dtype=torch.float32)
    torch.testing.assert_close(log_probs(read), log_probs(theirs), rtol=0, atol=1e-4)


def test_folding_is_what_transformer_lens_does(made):
    theirs, folder = made
    from transformer_lens import HookedTransformer, HookedTransformerConfig
    from transformer_lens.pretrained.weight_conversions import convert_llama_weights

    cfg = HookedTransformerConfig(
        n_layers=2, d_model=64, n_ctx=40, d_head=16, n_heads=4, n_key_value_heads=2, d_mlp=96, d_vocab=300, eps=1e-5,
        act_fn="silu", gated_mlp=True, normalization_type="RMS", final_rms=True, positional_embedding_type="rotary",
        rotary_dim=16, rotary_base=700, rotary_adjacent_pairs=False, device="cpu",
    )  # fmt: skip
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        lens = HookedTransformer(cfg)
    lens.load_and_process_state_dict(
        convert_llama_weights(theirs, cfg), fold_ln=True, center_writing_weights=False, center_unembed=True
    )
    ours = load_llama(folder, "<end>", n_ctx=40)
    for name in ("W_E", "W_U", "W_Q", "W_O", "W_in", "W_out"):
        torch.testing.assert_close(getattr(ours, name), getattr(lens, name), msg=name)
    torch.testing.assert_close(ours.W_K[:, ::2], lens.W_K[:, ::2])  # theirs is shared still, or repeated likewise
    with torch.no_grad():
        torch.testing.assert_close(ours(TOKENS), lens(TOKENS), rtol=0, atol=1e-4)
    assert ours.cfg.normalization_type == lens.cfg.normalization_type == "RMSPre"
    assert ours.W_U.mean(dim=1).abs().max() < 1e-6


def test_every_head_has_its_own_keys_and_values_and_hooks_change_one(made):
    model = load_llama(made[1], "<end>", n_ctx=40)
    _, cache = model.run_with_cache(TOKENS)
    for name in ("q", "k", "v", "z"):
        assert cache[f"blocks.1.attn.hook_{name}"].shape == (3, 40, 4, 16)
    assert torch.equal(cache["blocks.0.attn.hook_k"][:, :, 0], cache["blocks.0.attn.hook_k"][:, :, 1])
    parameters = dict(model.named_parameters())
    assert not any("ln" in name for name in parameters) and all(p.requires_grad for p in parameters.values())


def test_n_ctx_is_what_is_asked_for_up_to_what_it_was_trained_on(made):
    model = load_llama(made[1], "<end>", n_ctx=128)
    assert model.cfg.n_ctx == 128 and log_probs(model, torch.zeros(1, 128, dtype=torch.long)).isfinite().all()
    for n_ctx in (0, 129):
        with pytest.raises(ValueError, match=f"n_ctx must be from 1 to 128, got {n_ctx}"):
            load_llama(made[1], "<end>", n_ctx=n_ctx)


def test_texts_begin_with_the_token_that_was_asked_for(made, tmp_path):
    model = load_llama(made[1], "<end>", n_ctx=40)
    assert model.to_str_tokens("a cat12") == ["<end>", "a", " cat", "1", "2"]  # digits are not merged
    assert model.to_str_tokens("a<stop>é") == ["<end>", "a", "<stop>", *model.to_str_tokens("é", prepend_bos=False)]
    assert model.to_string(model.to_tokens(" Grüße,\n 12", prepend_bos=False)[0]) == " Grüße,\n 12"
    assert model.to_tokens(["a", "a cat"]).shape == (2, 3)
    by_the_file = convert(tmp_path, gguf_files.random_llama(), bos=None, about={"tokenizer.ggml.pre": "gpt-2"})
    model = load_llama(by_the_file, None, n_ctx=40)
    assert model.to_str_tokens("a cat12") == ["<start>", "a", " cat", "12"]


def test_a_tokenizer_of_the_hub_gets_the_token_too(made, tmp_path):
    """Its file adds nothing to a text by itself."""
    folder = tmp_path / "hub"
    folder.mkdir()
    for file in made[1].iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8")) | {"post_processor": None}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    about = {"tokenizer_class": "GPT2Tokenizer", "bos_token": "<end>", "eos_token": "<end>", "unk_token": "<end>"}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    model = load_llama(folder, "<end>", n_ctx=40)
    assert model.to_tokens("a cat").tolist() == load_llama(made[1], "<end>", n_ctx=40).to_tokens("a cat").tolist()


def test_reading_changes_nothing_global_and_shares_nothing_with_the_file(made):
    before, grad = torch.get_rng_state(), torch.is_grad_enabled()
    cfg = read_config(made[1])
    state, again = read_state(made[1], cfg), read_state(made[1], cfg)
    assert torch.equal(torch.get_rng_state(), before) and torch.is_grad_enabled() == grad
    for name, value in state.items():
        kept = value.clone()
        value.zero_()
        assert torch.equal(again[name], kept), name


@pytest.mark.parametrize(
    ("about", "message"),
    [
        ({"general.architecture": "gemma2"}, "of architecture 'gemma2', and only 'llama'"),
        ({"general.architecture": None}, "of architecture None"),
        ({"llama.block_count": None}, "does not say llama.block_count"),
        ({"llama.block_count": 3}, "has no tensor blk.2.attn_k.weight"),
        ({"llama.block_count": 1}, "has a tensor blk.1.attn_k.weight, which no Llama-like model"),
        ({"llama.attention.head_count_kv": 3}, "4 heads of 16 dimensions that share 3 keys"),
        ({"llama.attention.head_count": 0}, "0 heads"),
        ({"llama.attention.head_count_kv": [2, 2]}, "a llama.attention.head_count_kv for each layer"),
        ({"llama.rope.dimension_count": 8}, "llama.rope.dimension_count 8, and only 16"),
        ({"llama.rope.scaling.type": "yarn"}, "llama.rope.scaling.type 'yarn', and only 'none'"),
        ({"llama.expert_count": 8}, "llama.expert_count 8, and only 0"),
        ({"tokenizer.ggml.model": "llama"}, "a tokenizer 'llama' that splits texts as 'smollm'"),
        ({"tokenizer.ggml.pre": "llama-bpe"}, "a tokenizer 'gpt2' that splits texts as 'llama-bpe'; only 'gpt2'"),
        ({"tokenizer.ggml.token_type": [4] * 300}, "tokens of type 4, and only types 1 and 3"),
        ({"tokenizer.ggml.merges": ["no way"]}, "merges that do not fit its tokens"),
        ({"tokenizer.ggml.tokens": None}, "lists 0 tokens, 300 types of tokens and 4 merges, and has 300 embeddings"),
        ({"tokenizer.ggml.tokens": ["<end>"]}, "lists 1 tokens, 300 types"),
        ({"tokenizer.ggml.token_type": [1] * 299}, "lists 300 tokens, 299 types"),
        ({"tokenizer.ggml.merges": None}, "300 types of tokens and 0 merges"),
    ],
)
def test_other_models_are_refused_by_name(tmp_path, about, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        convert(tmp_path, gguf_files.random_llama(), about=about)
    assert "model.gguf" in str(caught.value) and "\n" not in str(caught.value)


def test_missing_tensors_kinds_and_tokens_are_named(tmp_path):
    theirs = gguf_files.random_llama()
    with pytest.raises(ModelFileError, match="no tensor blk.1.ffn_up.weight"):
        convert(tmp_path, theirs, leave_out="blk.1.ffn_up")
    with pytest.raises(ModelFileError, match="no token '<nothing>' for a text to begin with"):
        convert(tmp_path, theirs, bos="<nothing>")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"model_type": "gemma"}, "has model_type 'gemma', and only 'llama'"),
        ({"hidden_act": "gelu"}, "has hidden_act 'gelu', and only 'silu'"),
        ({"attention_bias": True}, "has attention_bias True"),
        ({"rope_scaling": {"rope_type": "llama3", "factor": 8.0}}, "has rope_type 'llama3', and only 'default'"),
        ({"num_key_value_heads": 3}, "4 heads of 16 dimensions that share 3"),
        ({"hidden_size": None}, "does not describe a Llama-like model"),
        ({"intermediate_size": 95}, r"of shape \[96, 64\], and config.json says \[95, 64\]"),
        ({"num_hidden_layers": 3}, "has no model.layers.2.input_layernorm.weight"),
    ],
)
def test_a_folder_with_something_else_is_named(made, tmp_path, changes, message):
    for file in made[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    about = json.loads((tmp_path / "config.json").read_text(encoding="utf-8"))
    (tmp_path / "config.json").write_text(json.dumps(about | changes))
    with pytest.raises(ModelFileError, match=message) as caught:
        load_llama(tmp_path, "<end>", n_ctx=40)
    assert str(tmp_path) in str(caught.value)


def test_damaged_weights_are_named(made, tmp_path):
    for file in made[1].iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-50])
    with pytest.raises(ModelFileError, match="model.safetensors cannot be read"):
        load_llama(tmp_path, "<end>", n_ctx=40)
    weights.unlink()
    with pytest.raises(ModelFileError, match="model.safetensors cannot be read"):
        load_llama(tmp_path, "<end>", n_ctx=40)


def test_untied_and_tied_are_told_apart_by_the_config(made):
    cfg = read_config(made[1])
    assert cfg.tied and cfg.rotary_base == 700 and cfg.layer_norm_eps == 1e-5
    with pytest.raises(ModelFileError, match="has no lm_head.weight"):
        read_state(made[1], replace(cfg, tied=False))
