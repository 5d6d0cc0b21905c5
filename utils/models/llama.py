"""Llama-like networks: RMS norms, rotary positions, gated MLPs, keys and values shared by heads, no biases.

Files lie as ``transformers`` writes them (``config.json``, ``model.safetensors``), whether they come from the hub or
were made here from a GGUF file; one reader turns both into the course's names and shapes. Source: Touvron et al.
(2023), "LLaMA", arXiv 2302.13971; Ainslie et al. (2023), "GQA", for the shared keys and values.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from safetensors import SafetensorError, safe_open

from utils.models.bundled import CONFIG_FILE, WEIGHTS_FILE, ModelFileError
from utils.models.config import TransformerConfig

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

# Names of tensors with ``transformers``. Of each matrix of a layer: its name there, its name with ``transformer_lens``,
# and the norm that it reads behind.
EMBED, FINAL_NORM, UNEMBED = "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"
NORM_1, NORM_2 = "input_layernorm", "post_attention_layernorm"
MATRICES = (
    ("self_attn.q_proj", "attn.W_Q", NORM_1),
    ("self_attn.k_proj", "attn.W_K", NORM_1),
    ("self_attn.v_proj", "attn.W_V", NORM_1),
    ("self_attn.o_proj", "attn.W_O", None),
    ("mlp.gate_proj", "mlp.W_gate", NORM_2),
    ("mlp.up_proj", "mlp.W_in", NORM_2),
    ("mlp.down_proj", "mlp.W_out", None),
)


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
    check_heads(path, cfg.n_heads, cfg.n_key_value_heads, cfg.d_head)
    return cfg


def read_state(folder: Path, cfg: LlamaConfig) -> "dict[str, Tensor]":
    """A folder's weights in float32 under the names of ``transformer_lens``, ready for a model with folded norms.

    Every norm's gain is multiplied into the matrices that read behind it, so that the norms have no parameters; the
    unembedding has mean 0 over the vocabulary, which moves all logits of a position alike and no probability; keys and
    values that heads share are repeated, so that each head has its own; biases are there and 0.

    Layer after layer is read, so that the file is never in memory as a whole beside what is made of it. Matrices lie in
    memory as [out, in]: ``transformer_lens`` multiplies by those, and would else copy them at each pass, and keep the
    copies for a backward pass.

    Raises:
        ModelFileError: If a tensor is missing or has another shape than ``config.json`` says; it is named.
    """
    import torch

    all_heads, shared = cfg.n_heads * cfg.d_head, cfg.n_key_value_heads * cfg.d_head
    shapes = {  # [out, in], as they lie in the file
        "attn.W_Q": (all_heads, cfg.d_model),
        "attn.W_K": (shared, cfg.d_model),
        "attn.W_V": (shared, cfg.d_model),
        "attn.W_O": (cfg.d_model, all_heads),
        "mlp.W_gate": (cfg.d_mlp, cfg.d_model),
        "mlp.W_in": (cfg.d_mlp, cfg.d_model),
        "mlp.W_out": (cfg.d_model, cfg.d_mlp),
    }

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
        rows = unembed * take(file, FINAL_NORM, cfg.d_model)
        state["embed.W_E"] = embed.clone()  # not a view into the file
        state["unembed.W_U"] = rows.sub_(rows.mean(dim=0)).T
        state["unembed.b_U"] = torch.zeros(cfg.d_vocab)
        del embed, unembed
    for layer in range(cfg.n_layers):
        with _opened(folder) as file:  # anew for each layer: its pages leave the memory when it is closed
            theirs, ours = f"model.layers.{layer}", f"blocks.{layer}"
            gains = {norm: take(file, f"{theirs}.{norm}.weight", cfg.d_model) for norm in (NORM_1, NORM_2)}
            for name, hooked, norm in MATRICES:
                matrix = take(file, f"{theirs}.{name}.weight", *shapes[hooked])
                matrix = matrix * gains[norm] if norm else matrix.clone()
                state[f"{ours}.{hooked}"] = _by_head(matrix, hooked, cfg)
            for bias in ("b_Q", "b_K", "b_V"):
                state[f"{ours}.attn.{bias}"] = torch.zeros(cfg.n_heads, cfg.d_head)
            state[f"{ours}.attn.b_O"] = torch.zeros(cfg.d_model)
            state[f"{ours}.mlp.b_in"], state[f"{ours}.mlp.b_out"] = torch.zeros(cfg.d_mlp), torch.zeros(cfg.d_model)
    return state


def _by_head(matrix: "Float[Tensor, 'n_out n_in']", name: str, cfg: LlamaConfig) -> "Tensor":
    """An attention's matrix as one for each head, an MLP's as [in, out]: views, so that they stay in place."""
    if name == "attn.W_O":
        return matrix.T.reshape(cfg.n_heads, cfg.d_head, cfg.d_model)
    if name.startswith("attn"):
        heads = matrix.reshape(-1, cfg.d_head, cfg.d_model)
        return heads.repeat_interleave(cfg.n_heads // len(heads), dim=0).transpose(1, 2)
    return matrix.T


def _opened(folder: Path) -> Any:
    try:
        return safe_open(folder / WEIGHTS_FILE, framework="pt")
    except (OSError, SafetensorError) as error:
        raise ModelFileError(f"{folder / WEIGHTS_FILE} cannot be read: {error}.") from None


def check_heads(path: Path, n_heads: int, n_shared: int, d_head: int) -> None:
    """Refuse numbers of heads that can't be.

    Raises:
        ModelFileError: If keys and values can't be shared out to the heads, or dimensions don't come in pairs.
    """
    if not (0 < n_shared <= n_heads and n_heads % n_shared == 0 and d_head > 0 and d_head % 2 == 0):
        raise ModelFileError(
            f"{path} has {n_heads} heads of {d_head} dimensions that share {n_shared} keys and values: the dimensions "
            "must be even, and the heads a multiple of what they share."
        )
