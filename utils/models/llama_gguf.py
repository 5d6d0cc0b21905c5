"""From a GGUF file with a Llama-like model to a folder of ``transformers``: config, weights, tokenizer.

Written against the architecture, for any file of it whose tensors and tokenizer are of kinds that are known here. Needs
no torch.
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from utils.models.bundled import CONFIG_FILE, WEIGHTS_FILE, ModelFileError
from utils.models.gguf import GGUF, open_gguf
from utils.models.llama import EMBED, FINAL_NORM, NORM_1, NORM_2, UNEMBED, check_heads

# Names of tensors in a GGUF file and with ``transformers``, outside the layers and in each of them.
OUTSIDE = {"token_embd": EMBED, "output_norm": FINAL_NORM, "output": UNEMBED}
IN_LAYER = {
    "attn_norm": NORM_1,
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": NORM_2,
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
# How a text is split before its bytes are merged to tokens, by the name that GGUF files give it.
SPLITS = ("smollm", "gpt-2")
NORMAL_TOKEN, CONTROL_TOKEN = 1, 3


def convert_gguf(path: Path, folder: Path, *, bos: str | None = None) -> None:
    """Write a Llama-like GGUF file as a folder of ``transformers``: config, weights, and a byte-level BPE tokenizer.

    Whatever the file keeps its weights as, they are written in float32: nothing is lost that was there. (In half
    precision SmolLM2's logits would be off by up to 0.04.)

    Args:
        path: The file.
        folder: Where to; it is made if it does not exist.
        bos: The token that a text begins with; None for the one that the file names.

    Raises:
        ModelFileError: If the file is damaged, or holds something else than a Llama-like model with tensors and a
            tokenizer of kinds that are known here; what it is, is named.
    """
    from safetensors.numpy import save_file

    gguf = open_gguf(path)
    config = _config(gguf)
    tokenizer, about_tokens = _tokenizer(gguf, config["vocab_size"], bos)
    folder.mkdir(parents=True, exist_ok=True)
    config["dtype"] = "float32"
    for name in ("bos_token", "eos_token"):
        config[f"{name}_id"] = tokenizer.token_to_id(about_tokens[name])
    save_file(dict(_tensors(gguf, config)), folder / WEIGHTS_FILE, metadata={"format": "pt"})
    tokenizer.save(str(folder / "tokenizer.json"))
    for name, content in ((CONFIG_FILE, config), ("tokenizer_config.json", about_tokens)):
        (folder / name).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _config(gguf: GGUF) -> dict[str, Any]:
    """The sizes of a GGUF file's model under the names of ``transformers``."""
    architecture = gguf.metadata.get("general.architecture")
    if architecture != "llama":
        raise ModelFileError(f"{gguf.path} holds a model of architecture {architecture!r}, and only 'llama' is read.")

    def get(name: str, default: Any = None) -> Any:
        value = gguf.metadata.get(f"llama.{name}", default)
        if value is None:
            raise ModelFileError(f"{gguf.path} does not say llama.{name}.")
        if isinstance(value, list):
            raise ModelFileError(f"{gguf.path} has a llama.{name} for each layer, and only one for all is read.")
        return value

    d_model, n_heads = get("embedding_length"), get("attention.head_count")
    n_shared, d_head = get("attention.head_count_kv", n_heads), get("attention.key_length", d_model // max(n_heads, 1))
    check_heads(gguf.path, n_heads, n_shared, d_head)
    for name, wanted in (
        ("attention.value_length", d_head),
        ("rope.dimension_count", d_head),
        ("rope.scaling.type", "none"),
        ("rope.scale_linear", 1.0),
        ("expert_count", 0),
    ):
        if get(name, wanted) != wanted:
            raise ModelFileError(f"{gguf.path} has llama.{name} {get(name)!r}, and only {wanted!r} is read.")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_act": "silu",
        "hidden_size": d_model,
        "num_hidden_layers": get("block_count"),
        "num_attention_heads": n_heads,
        "num_key_value_heads": n_shared,
        "head_dim": d_head,
        "intermediate_size": get("feed_forward_length"),
        "max_position_embeddings": get("context_length"),
        "vocab_size": gguf.places["token_embd.weight"].shape[0] if "token_embd.weight" in gguf.places else 0,
        # The file has it as a float32, which is read as 9.99999974e-06 where 1e-05 was meant.
        "rms_norm_eps": float(np.format_float_positional(np.float32(get("attention.layer_norm_rms_epsilon")))),
        "rope_theta": float(get("rope.freq_base", 10_000.0)),
        "tie_word_embeddings": "output.weight" not in gguf.places,
    }


def _tensors(gguf: GGUF, config: dict[str, Any]) -> Iterator[tuple[str, Float[np.ndarray, "..."]]]:
    """Names and values of all tensors, as ``transformers`` has them; refuses a file with others, or without one."""
    wanted = {f"{theirs}.weight": ours for theirs, ours in OUTSIDE.items()}
    if config["tie_word_embeddings"]:
        del wanted["output.weight"]
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in IN_LAYER.items():
            wanted[f"blk.{layer}.{theirs}.weight"] = f"model.layers.{layer}.{ours}.weight"
    if unknown := sorted(gguf.places.keys() - wanted):
        raise ModelFileError(f"{gguf.path} has a tensor {unknown[0]}, which no Llama-like model here has.")
    if missing := sorted(wanted.keys() - gguf.places):
        raise ModelFileError(f"{gguf.path} has no tensor {missing[0]}.")
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for theirs, ours in wanted.items():
        value, kind = gguf.tensor(theirs), theirs.split(".")[-2]
        yield ours, _halves(value, heads[kind]) if kind in heads else value


def _halves(matrix: Float[np.ndarray, "n_out n_in"], n_heads: int) -> Float[np.ndarray, "n_out n_in"]:
    """Undo GGUF's order of a query's or key's dimensions.

    Two dimensions turn together. There they are neighbours, 0 with 1, 2 with 3 …; with ``transformers`` and
    ``transformer_lens``, one is from the first half of the head and one from the second.
    """
    pairs = matrix.reshape(n_heads, -1, 2, matrix.shape[1])
    return np.ascontiguousarray(pairs.swapaxes(1, 2)).reshape(matrix.shape)


def _tokenizer(gguf: GGUF, n_embeddings: int, bos: str | None) -> tuple[Any, dict[str, Any]]:
    """The file's tokenizer, which begins each text with ``bos``, and what its config says."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors

    def get(name: str) -> Any:
        return gguf.metadata.get(f"tokenizer.ggml.{name}")

    if get("model") != "gpt2" or get("pre") not in SPLITS:
        raise ModelFileError(
            f"{gguf.path} has a tokenizer {get('model')!r} that splits texts as {get('pre')!r}; only 'gpt2' ones that "
            f"split as {' or '.join(map(repr, SPLITS))} are read."
        )
    tokens, kinds, merges = get("tokens") or [], get("token_type") or [], get("merges") or []
    if not len(tokens) == len(kinds) == n_embeddings or not merges:
        raise ModelFileError(
            f"{gguf.path} lists {len(tokens)} tokens, {len(kinds)} types of tokens and {len(merges)} merges, and has "
            f"{n_embeddings} embeddings."
        )
    if others := set(kinds) - {NORMAL_TOKEN, CONTROL_TOKEN}:
        raise ModelFileError(f"{gguf.path} has tokens of type {min(others)}, and only types 1 and 3 are read.")
    numbers = {"bos_token": get("bos_token_id"), "eos_token": get("eos_token_id"), "pad_token": get("padding_token_id")}
    about = {name: tokens[number] for name, number in numbers.items() if number is not None}
    about["bos_token"] = bos or about.get("bos_token")
    if about["bos_token"] not in tokens:
        raise ModelFileError(f"{gguf.path} has no token {about['bos_token']!r} for a text to begin with.")
    about.setdefault("eos_token", about["bos_token"])
    pairs = [tuple(merge.split(" ")) for merge in merges]
    try:
        tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, pairs))
    except Exception as error:  # tokenizers raises nothing more precise
        raise ModelFileError(f"{gguf.path} has merges that do not fit its tokens: {error}.") from None
    tokenizer.add_special_tokens(
        [AddedToken(t, special=True) for t, kind in zip(tokens, kinds, strict=True) if kind == CONTROL_TOKEN]
    )
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False)
    digits = [pre_tokenizers.Digits(individual_digits=True)] if get("pre") == "smollm" else []
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*digits, to_bytes])
    tokenizer.decoder = decoders.ByteLevel()
    first = about["bos_token"]
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{first} $A", pair=f"{first} $A $B", special_tokens=[(first, tokenizer.token_to_id(first))]
    )
    limits = {"model_max_length": gguf.metadata["llama.context_length"], "clean_up_tokenization_spaces": False}
    return tokenizer, about | limits | {"tokenizer_class": "PreTrainedTokenizerFast"}
