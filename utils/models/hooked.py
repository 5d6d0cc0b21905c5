"""The one module that imports ``transformer_lens``.

Version 4 of that library dropped ``HookedTransformer``; whatever replaces it here is replaced in this file alone. The
import takes seconds, so it happens inside the functions that need it.
"""

import logging
import os
import urllib.request
import warnings
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from utils.models.config import TransformerConfig

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer
    from transformers import PreTrainedTokenizerBase


class ModelUnavailable(Exception):
    """Pretrained weights cannot be had here; the message says so in one sentence."""


def hooked_transformer(cfg: TransformerConfig, state: dict[str, Tensor]) -> "HookedTransformer":
    """A ``HookedTransformer`` with these sizes and weights, computing exactly what the course's ``Transformer`` does.

    Args:
        cfg: Sizes.
        state: Weights by their standard names (``embed.W_E``, ``blocks.0.attn.W_Q`` …), as in a module's state dict.

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
                act_fn="gelu_new",
                normalization_type="LN",
                device="cpu",
                default_prepend_bos=False,
            )
        )
    buffers = {name: value for name, value in model.state_dict().items() if name.endswith((".mask", ".IGNORE"))}
    model.load_state_dict(buffers | state)
    return model.eval()


def load_gpt2_small(source: str = "gpt2") -> "tuple[TransformerConfig, dict[str, Tensor], PreTrainedTokenizerBase]":
    """GPT-2 small in the course's names and shapes: its sizes, its unprocessed weights, and its tokenizer.

    The local cache of the Hugging Face hub is tried first; then, if the hub answers within seconds, a download.

    Args:
        source: Name on the hub, or a folder that ``save_pretrained`` wrote.

    Raises:
        ModelUnavailable: If the weights are neither here nor within reach.
    """
    try:
        hf_model, tokenizer = _from_pretrained(source, local_files_only=True)
    except OSError:
        if os.path.isdir(source) or not _hub_answers():
            raise ModelUnavailable(
                f"The weights of {source!r} are not on this machine and the Hugging Face hub "
                "cannot be reached, so this part is left out."
            ) from None
        try:
            hf_model, tokenizer = _from_pretrained(source, local_files_only=False)
        except OSError as error:
            reason = str(error).splitlines()[0]
            raise ModelUnavailable(f"The weights of {source!r} could not be downloaded: {reason}") from error
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


def _from_pretrained(source: str, *, local_files_only: bool) -> tuple:
    from transformers import AutoTokenizer, GPT2LMHeadModel

    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)
    model = GPT2LMHeadModel.from_pretrained(source, local_files_only=local_files_only)
    return model, AutoTokenizer.from_pretrained(source, local_files_only=local_files_only)


def _hub_answers(seconds: float = 3.0) -> bool:
    """Whether the hub can be reached: one quick request, because a download would try for a minute."""
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE:
        return False
    try:
        request = urllib.request.Request(constants.ENDPOINT, method="HEAD")
        urllib.request.urlopen(request, timeout=seconds).close()
    except OSError:  # URLError, a refused connection and a timeout are all of this kind
        return False
    return True
