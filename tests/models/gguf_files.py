"""GGUF files written by hand: small Llama-like models with random weights, plain or quantised; and wheels."""

import hashlib
import struct
import zipfile
from pathlib import Path

import numpy as np
import torch

NUMBERS = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 8, "Q6_K": 14}
RENAMED = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output", "model.layers": "blk",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}  # fmt: skip
SIZES = dict(
    hidden_size=64,
    intermediate_size=96,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=128,
    vocab_size=300,
    rms_norm_eps=1e-5,
    tie_word_embeddings=True,
    rope_parameters={"rope_type": "default", "rope_theta": 700.0},
)


def random_llama(**changes):
    """A Llama of ``transformers`` of few dimensions, its norms random too."""
    from transformers import LlamaConfig, LlamaForCausalLM

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**SIZES | {"initializer_range": 0.25} | changes)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim == 1:
                    parameter.uniform_(0.5, 1.5)
    return model


def quantise(values: np.ndarray, kind: str) -> tuple[bytes, np.ndarray]:
    """The bytes of a tensor, and the numbers that they stand for; block after block and number after number."""
    if kind == "F32":
        return values.astype("<f4").tobytes(), values.astype(np.float32)
    if kind == "F16":
        return values.astype("<f2").tobytes(), values.astype("<f2").astype(np.float32)
    data, numbers = b"", []
    for block in values.reshape(-1, 32):
        low, high = float(block.min()), float(block.max())
        largest = max(abs(low), abs(high))
        if kind == "Q8_0":
            scale = np.float16(largest / 127)
            steps = [round(float(x) / float(scale)) for x in block]
            data += struct.pack("<e32b", scale, *steps)
            numbers += [np.float32(scale) * step for step in steps]
            continue
        scale = np.float16((high - low) / 15 if kind == "Q4_1" else largest / 7)
        start = np.float32(np.float16(low)) if kind == "Q4_1" else np.float32(-8) * np.float32(scale)
        steps = [min(15, max(0, round((float(x) - float(start)) / float(scale)))) for x in block]
        data += struct.pack("<e", scale) + (struct.pack("<e", np.float16(low)) if kind == "Q4_1" else b"")
        data += bytes(steps[i] | steps[i + 16] << 4 for i in range(16))
        offset = start if kind == "Q4_1" else np.float32(0)
        numbers += [np.float32(scale) * np.float32(s if kind == "Q4_1" else s - 8) + offset for s in steps]
    return data, np.array(numbers, np.float32).reshape(values.shape)


def name_and_order(config, name: str, rows: np.ndarray) -> tuple[str, np.ndarray]:
    """How GGUF names a tensor of a Llama, and in which order it has the rows of queries and keys."""
    if "q_proj" in name or "k_proj" in name:
        half, turned = config.head_dim // 2, np.empty_like(rows)
        for start in range(0, len(rows), config.head_dim):
            for i in range(half):  # the two dimensions that turn together become neighbours
                turned[start + 2 * i], turned[start + 2 * i + 1] = rows[start + i], rows[start + half + i]
        rows = turned
    for theirs, ours in RENAMED.items():
        name = name.replace(theirs, ours)
    return name, rows


def metadata(config) -> dict:
    """What a GGUF file says of such a model; its tokens are three special ones, the 256 bytes, and some merges."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    special, merges = ["<end>", "<start>", "<stop>"], ["Ġ c", "a t", "Ġc at", "1 2"]
    words = [*special, *alphabet, *(merge.replace(" ", "") for merge in merges)]
    words += [f"unused{i}" for i in range(config.vocab_size - len(words))]
    return {
        "general.architecture": "llama",
        "general.alignment": 64,
        "llama.block_count": config.num_hidden_layers,
        "llama.context_length": config.max_position_embeddings,
        "llama.embedding_length": config.hidden_size,
        "llama.feed_forward_length": config.intermediate_size,
        "llama.attention.head_count": config.num_attention_heads,
        "llama.attention.head_count_kv": config.num_key_value_heads,
        "llama.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        "llama.rope.freq_base": config.rope_parameters["rope_theta"],
        "llama.rope.dimension_count": config.head_dim,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.tokens": words,
        "tokenizer.ggml.token_type": [3] * 3 + [1] * (len(words) - 3),
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
    }


def write_gguf(path: Path, about: dict, tensors: dict[str, tuple[bytes, tuple[int, ...], str]], version=3) -> Path:
    """Write names and values, then tensors, each given as (bytes, shape, kind)."""
    alignment = about.get("general.alignment", 32)
    head = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(about))
    for name, value in about.items():
        head += _string(name) + _value(value)
    body = b""
    for name, (data, shape, kind) in tensors.items():
        head += _string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *shape[::-1])
        head += struct.pack("<IQ", NUMBERS[kind], len(body))
        body += data + b"\0" * (-len(data) % alignment)
    path.write_bytes(head + b"\0" * (-len(head) % alignment) + body)
    return path


def write_llama(path: Path, model, kind: str = "F32", *, about: dict | None = None, leave_out: str = "none") -> Path:
    """Write a Llama, its matrices as ``kind`` and its norms as they are; the model gets the values that the file has.

    ``about`` replaces metadata (None: left out); a tensor with ``leave_out`` in its name is left out.
    """
    changed = {name: value for name, value in (metadata(model.config) | (about or {})).items() if value is not None}
    written = {}
    for name, parameter in model.named_parameters():  # a tied unembedding is none of its own
        chosen = kind if parameter.ndim > 1 else "F32"
        data, values = quantise(parameter.detach().numpy(), chosen)
        rows = np.frombuffer(data, np.uint8).reshape(len(parameter), -1)
        theirs, rows = name_and_order(model.config, name, rows)
        if leave_out not in theirs:
            written[theirs] = (rows.tobytes(), tuple(parameter.shape), chosen)
        with torch.no_grad():
            parameter.copy_(torch.from_numpy(values.copy()))
    return write_gguf(path, changed, written)


def _string(text: str) -> bytes:
    data = text.encode("utf-8")
    return struct.pack("<Q", len(data)) + data


def _value(value) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", 7, value)
        case int():
            return struct.pack("<II", 4, value)
        case float():
            return struct.pack("<If", 6, value)
        case str():
            return struct.pack("<I", 8) + _string(value)
        case [str(), *_]:
            return struct.pack("<IIQ", 9, 8, len(value)) + b"".join(map(_string, value))
        case [*numbers]:
            return struct.pack("<IIQ", 9, 5, len(numbers)) + struct.pack(f"<{len(numbers)}i", *numbers)


def write_wheel(folder: Path, package: str, version: str, files: dict[str, bytes]) -> tuple[Path, str]:
    """A wheel that pip takes, and its checksum. Its package would fail the test if anybody imported it."""
    name = package.replace("-", "_")
    path, info = folder / f"{name}-{version}-py3-none-any.whl", f"{name}-{version}.dist-info"
    content = files | {
        f"{name}/__init__.py": b"raise SystemExit('the package was imported')",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n"
        "Requires-Dist: there-is-no-such-package-as-this\n".encode(),
        f"{info}/WHEEL": b"Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        f"{info}/RECORD": b"",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for file, data in content.items():
            archive.writestr(file, data)
    return path, hashlib.sha256(path.read_bytes()).hexdigest()
