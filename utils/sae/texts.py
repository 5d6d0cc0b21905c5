"""Texts for a dictionary of SmolLM2 where no corpus can be had: what it writes itself, and what Python brings along."""

from typing import TYPE_CHECKING

import torch
from jaxtyping import Int
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BEGIN = 0  # <|endoftext|>, which SmolLM2's texts begin with
HELD_OUT = 8  # one text in eight of those that were written by people


@torch.no_grad()
def sample_rows(model: "PreTrainedModel", n_rows: int, n_tokens: int, seed: int) -> Int[Tensor, "n_rows n_tokens"]:
    """Texts that a model of the ``transformers`` library writes, drawn from its own distribution (temperature 1)."""
    from transformers import DynamicCache

    generator, cache = torch.Generator().manual_seed(seed), DynamicCache()
    tokens = torch.full((n_rows, 1), BEGIN)
    while tokens.shape[1] < n_tokens:
        logits = model(tokens[:, -1:], past_key_values=cache).logits[:, -1]
        new = torch.multinomial(logits.float().softmax(-1), 1, generator=generator)
        tokens = torch.cat([tokens, new], dim=1)
    return tokens


def peoples_rows(
    tokenizer: "PreTrainedTokenizerBase", n_tokens: int, *, held_out: bool
) -> Int[Tensor, "n_rows n_tokens"]:
    """English that people wrote and every installation of the course has, in rows that begin as texts do.

    Python's own reference (``pydoc_data.topics``) and the descriptions of scikit-learn's data sets. Whole texts are
    held out, one in eight. What is left of a text behind its last full row is dropped.
    """
    from importlib.resources import files
    from pydoc_data.topics import topics

    described = [file for file in files("sklearn.datasets.descr").iterdir() if file.name.endswith(".rst")]
    texts = [topics[name] for name in sorted(topics)]
    texts += [file.read_text(encoding="utf-8") for file in sorted(described, key=lambda file: file.name)]
    rows = []
    for number, text in enumerate(texts):
        if (number % HELD_OUT == HELD_OUT - 1) == held_out:
            ids = torch.tensor(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])
            whole = ids[: len(ids) // (n_tokens - 1) * (n_tokens - 1)].view(-1, n_tokens - 1)
            rows.append(torch.cat([torch.full((len(whole), 1), BEGIN), whole], dim=1))
    return torch.cat(rows)
