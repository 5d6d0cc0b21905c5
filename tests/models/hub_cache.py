"""Pretrained models as the Hugging Face hub's cache lays them out: the true files, made up weights and merges."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import GPT2Config, GPT2LMHeadModel, GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedModel

COMMIT = "607a30d783dfa663caf39e06633721c8d4cfcd7e"
END = "<|endoftext|>"


def random_gpt2(std: float, **sizes) -> GPT2LMHeadModel:
    """GPT-2 with random weights, its layer norms and biases too; without ``sizes`` it has those of GPT-2 small."""
    torch.manual_seed(0)
    model = GPT2LMHeadModel(GPT2Config(initializer_range=std, **sizes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(0.2 * torch.randn_like(parameter))
    return model


def random_pythia() -> GPTNeoXForCausalLM:
    """A Pythia of few dimensions, in half precision as on the hub."""
    torch.manual_seed(1)
    return GPTNeoXForCausalLM(
        GPTNeoXConfig(
            hidden_size=24,
            num_hidden_layers=2,
            num_attention_heads=3,
            intermediate_size=96,
            max_position_embeddings=32,
            vocab_size=310,
            initializer_range=0.3,
        )
    ).half()


def put_gpt2(cache: Path, repo: str, model: GPT2LMHeadModel, words: Sequence[str] = ()) -> Path:
    """Write GPT-2 under a name of the hub; names of tensors, masks among them, are those of the hub's file.

    ``words`` are tokens of its tokenizer.
    """
    config, folder = model.config, cache / "made"
    folder.mkdir(parents=True)
    mask = torch.ones(config.n_positions, config.n_positions).tril()[None, None]
    tensors = model.transformer.state_dict() | {f"h.{i}.attn.bias": mask.clone() for i in range(config.n_layer)}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    sizes = {key: getattr(config, key) for key in ("n_embd", "n_head", "n_layer", "n_positions", "vocab_size")}
    about = sizes | {
        "activation_function": "gelu_new",
        "architectures": ["GPT2LMHeadModel"],
        "layer_norm_epsilon": 1e-5,
        "model_type": "gpt2",
        "n_ctx": config.n_positions,
        "bos_token_id": config.vocab_size - 1,
        "eos_token_id": config.vocab_size - 1,
    }
    (folder / "config.json").write_text(json.dumps(about))
    write_tokenizer(folder, config.vocab_size, {"model_max_length": config.n_positions}, words)
    return into_cache(cache, repo, folder)


def put_pythia(cache: Path, repo: str, model: GPTNeoXForCausalLM) -> Path:
    folder = cache / "made"
    model.save_pretrained(folder)
    specials = {"bos_token": END, "eos_token": END, "unk_token": END}
    write_tokenizer(folder, 300, {"tokenizer_class": "GPTNeoXTokenizer"} | specials)
    return into_cache(cache, repo, folder)


def put_resnet(cache: Path, repo: str, model: PreTrainedModel) -> Path:
    """Write an image classifier under a name of the hub; it has no tokenizer."""
    folder = cache / "made"
    model.save_pretrained(folder)
    return into_cache(cache, repo, folder)


def write_tokenizer(folder: Path, d_vocab: int, about: dict, words: Sequence[str] = ()) -> None:
    """A byte-level BPE of ``d_vocab`` tokens: 256 bytes, the words letter by letter, pairs of bytes, and END."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    spelt = [word.replace(" ", "\u0120") for word in words]
    merges = [(word[:i], word[i]) for word in spelt for i in range(1, len(word))]
    merges = list(dict.fromkeys([*merges, *((a, b) for a in alphabet for b in alphabet)]))[: d_vocab - 257]
    vocabulary = {token: i for i, token in enumerate([*alphabet, *(a + b for a, b in merges), END])}
    tokenizer = Tokenizer(models.BPE(vocabulary, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([END])
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "".join(f"{a} {b}\n" for a, b in merges))
    (folder / "tokenizer_config.json").write_text(json.dumps(about))


def into_cache(cache: Path, repo: str, folder: Path) -> Path:
    """Move files to ``blobs``, under their checksums, and link to them from the snapshot that ``refs/main`` names."""
    home = cache / f"models--{repo.replace('/', '--')}"
    snapshot = home / "snapshots" / COMMIT
    for made in (home / "refs", home / "blobs", snapshot):
        made.mkdir(parents=True)
    (home / "refs" / "main").write_text(COMMIT)
    for file in folder.iterdir():
        with open(file, "rb") as content:
            blob = home / "blobs" / hashlib.file_digest(content, "sha256").hexdigest()
        file.rename(blob)
        (snapshot / file.name).symlink_to(Path("../..") / "blobs" / blob.name)
    folder.rmdir()
    return snapshot
