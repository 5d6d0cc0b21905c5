"""The one module that imports ``transformer_lens``.

Version 4 of that library dropped ``HookedTransformer``; whatever replaces it here is replaced in this file alone. The
import takes seconds, so it happens inside the functions that need it.
"""

import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from utils.models import hub
from utils.models.bundled import CONFIG_FILE, WEIGHTS_FILE
from utils.models.config import PlainConfig, TransformerConfig
from utils.models.hub import ModelUnavailable
from utils.models.llama import LlamaConfig

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

# What a model holds beside its weights: tables that follow from its sizes.
BUFFERS = (".mask", ".IGNORE", ".rotary_sin", ".rotary_cos")


def hooked_transformer(
    cfg: TransformerConfig, state: dict[str, Tensor], tokenizer: "PreTrainedTokenizerBase | None" = None
) -> "HookedTransformer":
    """A ``HookedTransformer`` with these sizes and weights, computing exactly what the course's ``Transformer`` does.

    With the sizes of a Llama-like model it is one of those, whose norms have no parameters; with a ``PlainConfig`` one
    without norms.

    Args:
        cfg: Sizes.
        state: Weights by their standard names (``embed.W_E``, ``blocks.0.attn.W_Q`` …), as in a module's state dict.
            Those of a Llama-like model (``utils.models.llama.read_state``) become the model's own, without a copy.
        tokenizer: Lets the model take text, which then begins with the tokenizer's ``bos_token``.

    Raises:
        RuntimeError: If names or shapes do not fit ``cfg``; the message lists them.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.9 announces the class's end in 4.0; see above
        from transformer_lens import HookedTransformer, HookedTransformerConfig

        model = HookedTransformer(
            HookedTransformerConfig(
                d_model=cfg.d_model,
                n_layers=cfg.n_layers,
                n_heads=cfg.n_heads,
                d_head=cfg.d_head,
                d_mlp=cfg.d_mlp,
                n_ctx=cfg.n_ctx,
                d_vocab=cfg.d_vocab,
                eps=cfg.layer_norm_eps,
                attn_only=cfg.d_mlp == 0,
                device="cpu",
                default_prepend_bos=tokenizer is not None,
                init_weights=False,  # they are all replaced below, and drawing them would move torch's generator
                **_architecture(cfg),
            ),
            tokenizer,
        )
    buffers = {name: value for name, value in model.state_dict().items() if name.endswith(BUFFERS)}
    model.load_state_dict(buffers | state, assign=isinstance(cfg, LlamaConfig))
    return model.eval()


def _architecture(cfg: TransformerConfig) -> dict:
    """What else than sizes ``transformer_lens`` asks for."""
    if isinstance(cfg, PlainConfig):
        return {"act_fn": "relu", "normalization_type": None}
    if not isinstance(cfg, LlamaConfig):
        # "gelu_pytorch_tanh" is the same function as "gelu_new", fused.
        return {"act_fn": "gelu_pytorch_tanh", "normalization_type": "LN"}
    return {
        "act_fn": "silu",
        "gated_mlp": True,
        "normalization_type": "RMSPre",
        "final_rms": True,
        "positional_embedding_type": cfg.positional_embedding_type,
        "rotary_base": cfg.rotary_base,
        "rotary_dim": cfg.d_head,
        "rotary_adjacent_pairs": False,
    }


def load_gpt2_small(source: str = "gpt2") -> "tuple[TransformerConfig, dict[str, Tensor], PreTrainedTokenizerBase]":
    """GPT-2 small in the course's names and shapes: its sizes, its unprocessed weights, and its tokenizer.

    The local cache of the Hugging Face hub is tried first; then, if the hub answers within seconds, a download.

    Args:
        source: Name on the hub, or a folder that ``save_pretrained`` wrote.

    Raises:
        ModelUnavailable: If the weights are neither here nor within reach.
    """
    folder = Path(source) if os.path.isdir(source) else hub.pretrained_folder(source)
    hf_model, tokenizer = _model_and_tokenizer(folder)
    sizes = hf_model.config
    cfg = TransformerConfig(
        d_model=sizes.n_embd,
        n_layers=sizes.n_layer,
        n_heads=sizes.n_head,
        d_head=sizes.n_embd // sizes.n_head,
        d_mlp=sizes.n_inner or 4 * sizes.n_embd,
        n_ctx=sizes.n_positions,
        d_vocab=sizes.vocab_size,
        layer_norm_eps=sizes.layer_norm_epsilon,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from transformer_lens.pretrained.weight_conversions import convert_gpt2_weights
    state = {name: value.detach().clone() for name, value in convert_gpt2_weights(hf_model, cfg).items()}
    return cfg, state | {"unembed.b_U": torch.zeros(cfg.d_vocab)}, tokenizer


def hooked_pretrained(repo: str, folder: Path) -> "HookedTransformer":
    """A pretrained model as ``HookedTransformer.from_pretrained`` gives it, layer norms folded and weights centred.

    Args:
        repo: Name on the hub, one of those that ``transformer_lens`` knows.
        folder: Where its files are; nothing is looked for elsewhere.

    Raises:
        ModelFileError: If a file in the folder is damaged; the message names it.
    """
    hf_model, tokenizer = _model_and_tokenizer(folder)
    with tempfile.TemporaryDirectory() as cache, warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        from transformer_lens import HookedTransformer

        _cache_config(folder, Path(cache), repo)
        model = HookedTransformer.from_pretrained(
            repo, hf_model=hf_model, tokenizer=tokenizer, device="cpu", cache_dir=cache, local_files_only=True
        )
    return model.eval()


def _cache_config(folder: Path, cache: Path, repo: str) -> None:
    """Make ``cache`` a hub cache with this model's config: ``from_pretrained`` looks for it under one name only."""
    commit = "0" * 40
    target = cache / f"models--{repo.replace('/', '--')}"
    (target / "refs").mkdir(parents=True)
    (target / "refs" / "main").write_text(commit, encoding="utf-8")
    (target / "snapshots" / commit).mkdir(parents=True)
    shutil.copyfile(folder / CONFIG_FILE, target / "snapshots" / commit / CONFIG_FILE)


def _model_and_tokenizer(folder: Path) -> "tuple[PreTrainedModel, PreTrainedTokenizerBase]":
    """What ``transformers`` reads from a folder with a pretrained model; it never looks at the hub.

    Raises:
        ModelUnavailable: If there are no weights in the folder.
        ModelFileError: If a file is damaged or belongs to another model.
    """
    from safetensors import safe_open
    from transformers import AutoModelForCausalLM, AutoTokenizer

    weights = folder / WEIGHTS_FILE
    if not weights.is_file():
        raise ModelUnavailable(f"The weights of {str(folder)!r} are not on this machine, so this part is left out.")
    with hub.naming(weights), safe_open(weights, framework="pt"):
        pass  # a file that was cut short fails here already
    with hub.naming(folder):
        model, found = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
        )
        if found["missing_keys"]:  # transformers would go on with random numbers in their place
            raise ValueError(f"{weights.name} has no {', '.join(sorted(found['missing_keys'])[:3])}")
        return model, AutoTokenizer.from_pretrained(folder, local_files_only=True)
