"""Llama-like networks: RMS norms, rotary positions, gated MLPs, keys and values shared by heads, no biases.

Files lie as ``transformers`` writes them (``config.json``, ``model.safetensors``), whether they come from the hub or
were made here from a GGUF file; one reader turns both into the course's names and shapes. Source: Touvron et al.
(2023), "LLaMA", arXiv 2302.13971; Ainslie et al. (2023), "GQA", for the shared keys and values.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from jaxtyping import Float
from safetensors import SafetensorError, safe_open

from utils.models.bundled import CONFIG_FILE, WEIGHTS_FILE, ModelFileError
from utils.models.config import TransformerConfig
from utils.models.gguf import GGUF, open_gguf

if TYPE_CHECKING:
    from torch import Tensor

# Each matrix of a layer: its name in a GGUF file, with ``transformers``, and with ``transformer_lens``.
MATRICES = (
    ("attn_q", "self_attn.q_proj", "attn.W_Q"),
    ("attn_k", "self_attn.k_proj", "attn.W_K"),
    ("attn_v", "self_attn.v_proj", "attn.W_V"),
    ("attn_output", "self_attn.o_proj", "attn.W_O"),
    ("ffn_gate", "mlp.gate_proj", "mlp.W_gate"),
    ("ffn_up", "mlp.up_proj", "mlp.W_in"),
    ("ffn_down", "mlp.down_proj", "mlp.W_out"),
)
NORMS = (("attn_norm", "input_layernorm"), ("ffn_norm", "post_attention_layernorm"))
EMBED, FINAL_NORM, UNEMBED = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
OUTSIDE_LAYERS = {"token_embd.weight": EMBED, "output_norm.weight": FINAL_NORM, "output.weight": UNEMBED}


@dataclass(frozen=True, kw_only=True)
class LlamaConfig(TransformerConfig):
    """Sizes of a Llama-like decoder. ``layer_norm_eps`` is added to the mean square inside each RMS norm.

    Attributes:
        n_key_value_heads: How many heads' keys and values there are; ``n_heads`` is a multiple of it.
        positional_embedding_type: What ``transformer_lens`` calls it; functions for GPT-2-like models look at it.
        rotary_base: The slowest pair of dimensions turns by about 1 / rotary_base from one position to the next.
        tied: Whether the unembedding is the embedding.
    """

    positional_embedding_type: ClassVar[str] = "rotary"
    n_key_value_heads: int
    rotary_base: float
    tied: bool


def read_config(folder: Path) -> LlamaConfig:
    """The sizes in a folder's ``config.json``, as ``transformers`` writes it.

    Raises:
        ModelFileError: If the file is damaged, or describes something that is not built here; what it is, is named.
    """
    path = folder / CONFIG_FILE
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
        turning = about.get("rope_parameters") or about.get("rope_scaling") or {}
        found = {
            "model_type": (about["model_type"], "llama"),
            "hidden_act": (about.get("hidden_act", "silu"), "silu"),
            "attention_bias": (about.get("attention_bias", False), False),
            "mlp_bias": (about.get("mlp_bias", False), False),
            "rope_type": (turning.get("rope_type", turning.get("type", "default")), "default"),
        }
        cfg = LlamaConfig(
            d_model=about["hidden_size"],
            n_layers=about["num_hidden_layers"],
            n_heads=about["num_attention_heads"],
            d_head=about.get("head_dim") or about["hidden_size"] // about["num_attention_heads"],
            d_mlp=about["intermediate_size"],
            n_ctx=about["max_position_embeddings"],
            d_vocab=about["vocab_size"],
            layer_norm_eps=about["rms_norm_eps"],
            n_key_value_heads=about.get("num_key_value_heads") or about["num_attention_heads"],
            rotary_base=float(turning.get("rope_theta") or about.get("rope_theta") or 10_000.0),
            tied=about.get("tie_word_embeddings", False),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(f"{path} does not describe a Llama-like model: {error!r}.") from None
    for what, (value, wanted) in found.items():
        if value != wanted:
            raise ModelFileError(f"{path} has {what} {value!r}, and only {wanted!r} is built here.")
    sizes = (cfg.d_model, cfg.n_layers, cfg.n_heads, cfg.d_head, cfg.d_mlp, cfg.n_ctx, cfg.d_vocab)
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        raise ModelFileError(f"{path} does not describe a Llama-like model: sizes must be whole numbers above 0.")
    _check_heads(path, cfg.n_heads, cfg.n_key_value_heads, cfg.d_head)
    return cfg


def read_state(folder: Path, cfg: LlamaConfig) -> "dict[str, Tensor]":
    """A folder's weights in float32 under the names of ``transformer_lens``, ready for a model with folded norms.

    Every norm's gain is multiplied into the matrices that read behind it, so that the norms have no parameters; the
    unembedding has mean 0 over the vocabulary, which moves all logits of a position alike and no probability; keys and
    values that heads share are repeated, so that each head has its own; biases are there and 0.

    Layer after layer is read, so that the file is never in memory as a whole beside what is made of it.

    Raises:
        ModelFileError: If a tensor is missing or has another shape than ``config.json`` says; it is named.
    """
    import torch

    rows, width = cfg.n_heads * cfg.d_head, cfg.n_key_value_heads * cfg.d_head
    outputs = {"q_proj": rows, "k_proj": width, "v_proj": width, "o_proj": cfg.d_model, "down_proj": cfg.d_model}

    def take(file: Any, name: str, *shape: int) -> "Tensor":
        try:
            value = file.get_tensor(name)
        except SafetensorError:
            raise ModelFileError(f"{folder / WEIGHTS_FILE} has no {name}.") from None
        if tuple(value.shape) != shape:
            found, said = list(value.shape), list(shape)
            raise ModelFileError(f"{folder / WEIGHTS_FILE} has {name} of shape {found}, and {CONFIG_FILE} says {said}.")
        return value.float()

    state = {}
    with _opened(folder) as file:
        embed = take(file, EMBED, cfg.d_vocab, cfg.d_model)
        unembed = embed if cfg.tied else take(file, UNEMBED, cfg.d_vocab, cfg.d_model)
        W_U = (unembed * take(file, FINAL_NORM, cfg.d_model)).T.contiguous()
        state["embed.W_E"] = embed.clone()  # not a view into the file
        state["unembed.W_U"] = W_U.sub_(W_U.mean(dim=1, keepdim=True))
        state["unembed.b_U"] = torch.zeros(cfg.d_vocab)
        del embed, unembed
    for layer in range(cfg.n_layers):
        with _opened(folder) as file:  # anew for each layer: its pages leave the memory when it is closed
            theirs, ours = f"model.layers.{layer}", f"blocks.{layer}"
            gain = {
                part: take(file, f"{theirs}.{norm}.weight", cfg.d_model)
                for part, (_, norm) in zip(("self_attn", "mlp"), NORMS, strict=True)
            }
            for _, name, hooked in MATRICES:
                part, kind = name.split(".")
                n_out = outputs.get(kind, cfg.d_mlp)
                n_in = {"o_proj": rows, "down_proj": cfg.d_mlp}.get(kind, cfg.d_model)
                matrix = take(file, f"{theirs}.{name}.weight", n_out, n_in)
                if n_in == cfg.d_model and kind not in ("o_proj", "down_proj"):
                    matrix = matrix * gain[part]
                state[f"{ours}.{hooked}"] = _by_head(matrix.T, kind, cfg).contiguous()
            for bias in ("b_Q", "b_K", "b_V"):
                state[f"{ours}.attn.{bias}"] = torch.zeros(cfg.n_heads, cfg.d_head)
            state[f"{ours}.attn.b_O"] = torch.zeros(cfg.d_model)
            state[f"{ours}.mlp.b_in"], state[f"{ours}.mlp.b_out"] = torch.zeros(cfg.d_mlp), torch.zeros(cfg.d_model)
    return state


def _by_head(matrix: "Float[Tensor, 'n_in n_out']", kind: str, cfg: LlamaConfig) -> "Tensor":
    """An attention's matrix as one for each head; an MLP's as it is."""
    if kind == "o_proj":
        return matrix.reshape(cfg.n_heads, cfg.d_head, cfg.d_model)
    if kind in ("q_proj", "k_proj", "v_proj"):
        heads = matrix.reshape(cfg.d_model, -1, cfg.d_head).transpose(0, 1)
        return heads.repeat_interleave(cfg.n_heads // len(heads), dim=0)
    return matrix


def _opened(folder: Path) -> Any:
    try:
        return safe_open(folder / WEIGHTS_FILE, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{folder / WEIGHTS_FILE} cannot be read: {error}.") from None


# From a GGUF file to such a folder

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
    _check_heads(gguf.path, n_heads, n_shared, d_head)
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
    wanted = {theirs: ours for theirs, ours in OUTSIDE_LAYERS.items() if theirs in gguf.places or ours != UNEMBED}
    for layer in range(config["num_hidden_layers"]):
        for theirs, ours in (*NORMS, *(names[:2] for names in MATRICES)):
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


def _check_heads(path: Path | os.PathLike, n_heads: int, n_shared: int, d_head: int) -> None:
    if not (0 < n_shared <= n_heads and n_heads % n_shared == 0 and d_head > 0 and d_head % 2 == 0):
        raise ModelFileError(
            f"{path} has {n_heads} heads of {d_head} dimensions that share {n_shared} keys and values: the dimensions "
            "must be even, and the heads a multiple of what they share."
        )
