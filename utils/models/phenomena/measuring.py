"""What the measurements share: batches of prompts with their positions, intervals, and models that learnt nothing."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from utils.data.prompts import Prompt, encode_prompts, token_id
from utils.models.config import TransformerConfig
from utils.models.hooked import hooked_transformer
from utils.models.network import Network

if TYPE_CHECKING:
    from transformer_lens import HookedTransformer

ROWS_AT_ONCE = 512


class Estimate(TypedDict):
    """A number with its 95 % confidence interval, and how many prompts (or documents, or draws) it comes from."""

    value: float
    low: float
    high: float
    n: int


class Batch(NamedTuple):
    """Prompts as tensors.

    Attributes:
        tokens: Shorter prompts are filled up behind their end.
        at: Positions of the named tokens that all the prompts have.
        answers: The token that should come next.
        foils: The token to compare it with; only if all prompts have one.
    """

    tokens: Int[Tensor, "batch pos"]
    at: dict[str, Int[Tensor, " batch"]]
    answers: Int[Tensor, " batch"]
    foils: Int[Tensor, " batch"] | None

    def rows(self) -> Int[Tensor, " batch"]:
        """0, 1, 2 …: ``x[batch.rows(), batch.at["END"]]`` is x at the end of every prompt."""
        return torch.arange(len(self.tokens))


def to_batch(prompts: Sequence[Prompt]) -> Batch:
    """Prompts as tensors.

    Raises:
        ValueError: If there are no prompts.
    """
    tokens = encode_prompts(prompts)
    shared = sorted(set.intersection(*(set(prompt.at) for prompt in prompts)))
    at = {name: torch.tensor([prompt.at[name] for prompt in prompts]) for name in shared}
    answers = torch.tensor([token_id(prompt.answer) for prompt in prompts])
    foils = [token_id(prompt.foil) for prompt in prompts if prompt.foil is not None]
    return Batch(tokens, at, answers, torch.tensor(foils) if len(foils) == len(prompts) else None)


@torch.no_grad()
def end_logits(model: "HookedTransformer", batch: Batch) -> Float[Tensor, "batch d_vocab"]:
    """The logits of the next token behind each prompt's "END"."""
    parts = []
    for tokens, ends in zip(batch.tokens.split(ROWS_AT_ONCE), batch.at["END"].split(ROWS_AT_ONCE), strict=True):
        parts.append(model(tokens)[torch.arange(len(tokens)), ends])
    return torch.cat(parts)


def share(successes: Bool[Tensor, " n"]) -> Estimate:
    """The share of successes, with Wilson's interval.

    Source: Wilson (1927), "Probable Inference, the Law of Succession, and Statistical Inference".
    """
    n, p, z = len(successes), successes.float().mean().item(), 1.959964
    centre = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    return Estimate(value=p, low=max(0.0, centre - half), high=min(1.0, centre + half), n=n)


def mean(values: Float[Tensor, " n"], seed: int = 0) -> Estimate:
    """The mean, with a bootstrap interval over ``values``: one for each prompt, document or draw."""
    return ratio(values, torch.ones_like(values), seed)


def ratio(above: Float[Tensor, " n"], below: Float[Tensor, " n"], seed: int = 0) -> Estimate:
    """The mean of ``above`` over the mean of ``below``, with a bootstrap interval over their common index.

    Draws in which all of ``below`` is 0 do not count.

    Source: Efron and Tibshirani (1993), "An Introduction to the Bootstrap": the percentile interval, 1,000 draws.
    """
    n = len(above)
    drawn = torch.randint(n, (1000, n), generator=torch.Generator().manual_seed(seed))
    ratios = above.double()[drawn].mean(1) / below.double()[drawn].mean(1)
    low, high = torch.nanquantile(ratios, torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return Estimate(value=(above.double().mean() / below.double().mean()).item(), low=low, high=high, n=n)


def untrained(model: "HookedTransformer", seed: int) -> "HookedTransformer":
    """A model of the same sizes with random weights, drawn as the training recipe draws its first ones."""
    names = TransformerConfig.__dataclass_fields__
    sizes = {name: getattr(model.cfg, name) for name in names if name != "layer_norm_eps"}
    cfg = TransformerConfig(**sizes, layer_norm_eps=model.cfg.eps)
    return hooked_transformer(cfg, Network(cfg, torch.Generator().manual_seed(seed)).standard_state())
