"""What the measurements share: batches of prompts with their positions, intervals, and models that learnt nothing."""

from collections.abc import Hashable, Sequence
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
Groups = Sequence[Hashable] | Int[Tensor, " n"]


class Estimate(TypedDict):
    """A number with its 95 % confidence interval, and how many independent units it comes from.

    These are prompts, documents or draws, or the groups of them that were taken for a unit.
    """

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
        units: For each prompt, what it is independent of the others by (`Prompt.unit`); the ``groups`` of an interval.
    """

    tokens: Int[Tensor, "batch pos"]
    at: dict[str, Int[Tensor, " batch"]]
    answers: Int[Tensor, " batch"]
    foils: Int[Tensor, " batch"] | None
    units: tuple[Hashable, ...]

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
    units = tuple(i if prompt.unit is None else prompt.unit for i, prompt in enumerate(prompts))
    return Batch(tokens, at, answers, torch.tensor(foils) if len(foils) == len(prompts) else None, units)


@torch.no_grad()
def end_logits(model: "HookedTransformer", batch: Batch) -> Float[Tensor, "batch d_vocab"]:
    """The logits of the next token behind each prompt's "END"."""
    parts = []
    for tokens, ends in zip(batch.tokens.split(ROWS_AT_ONCE), batch.at["END"].split(ROWS_AT_ONCE), strict=True):
        parts.append(model(tokens)[torch.arange(len(tokens)), ends])
    return torch.cat(parts)


def share(successes: Bool[Tensor, " n"], groups: Groups | None = None) -> Estimate:
    """The share of successes, with Wilson's interval.

    Args:
        successes: One for each prompt.
        groups: The independent unit that each belongs to, such as its landmark, as in ``ratio``. The interval is then
            that of n / d prompts, where the design effect d, at least 1, is by how much the variance between groups
            exceeds that of independent prompts; and of as many prompts as there are groups if all succeed, or none.

    Raises:
        ValueError: As in ``ratio``.

    Sources: Wilson (1927), "Probable Inference, the Law of Succession, and Statistical Inference"; Kish (1965),
    "Survey Sampling", for the design effect.
    """
    n, p, z = len(successes), successes.double().mean().item(), 1.959964
    units, effective = n, float(n)
    if groups is not None:
        index = _index(groups, n)
        units = int(index.max()) + 1
        excess = torch.zeros(units, dtype=torch.double).index_add(0, index, successes.double() - p)
        variance = excess.square().sum().item() / n**2 * units / (units - 1)
        effective = n * min(1.0, p * (1 - p) / (n - 1) / variance) if variance > 0 else units
    centre = (p + z * z / (2 * effective)) / (1 + z * z / effective)
    half = z / (1 + z * z / effective) * (p * (1 - p) / effective + z * z / (4 * effective**2)) ** 0.5
    return Estimate(value=p, low=max(0.0, centre - half), high=min(1.0, centre + half), n=units)


def mean(values: Float[Tensor, " n"], seed: int = 0, groups: Groups | None = None) -> Estimate:
    """The mean, with a bootstrap interval over ``values``, or over the ``groups`` they belong to, as in ``ratio``."""
    return ratio(values, torch.ones_like(values), seed, groups)


def ratio(
    above: Float[Tensor, " n"], below: Float[Tensor, " n"], seed: int = 0, groups: Groups | None = None
) -> Estimate:
    """The mean of ``above`` over the mean of ``below``, with a bootstrap interval over what is independent.

    Draws in which all of ``below`` is 0 do not count.

    Args:
        above, below: One for each prompt, document or draw.
        seed: Of the draws.
        groups: For each of them, the independent unit that it belongs to: prompts about one landmark, or from one
            template, are wrong together, and many of them are not much more than one. Whole units are then drawn. None
            takes each for a unit of its own.

    Raises:
        ValueError: If there is not one group for each value, or there are fewer than two groups.

    Source: Efron and Tibshirani (1993), "An Introduction to the Bootstrap": the percentile interval, 1,000 draws.
    """
    above, below = above.double(), below.double()
    value = (above.mean() / below.mean()).item()
    if groups is not None:
        index = _index(groups, len(above))
        empty = torch.zeros(int(index.max()) + 1, dtype=torch.double)
        above, below = empty.index_add(0, index, above), empty.index_add(0, index, below)
    n = len(above)
    drawn = torch.randint(n, (1000, n), generator=torch.Generator().manual_seed(seed))
    ratios = above[drawn].mean(1) / below[drawn].mean(1)
    low, high = torch.nanquantile(ratios, torch.tensor([0.025, 0.975], dtype=torch.double)).tolist()
    return Estimate(value=value, low=low, high=high, n=n)


def _index(groups: Groups, n: int) -> Int[Tensor, " n"]:
    """Groups by number, 0, 1, 2 …"""
    labels = groups.tolist() if isinstance(groups, Tensor) else list(groups)
    numbers = {label: i for i, label in enumerate(dict.fromkeys(labels))}
    if len(labels) != n or len(numbers) < 2:
        raise ValueError(f"{n} values in at least two groups need as many labels, got {len(labels)} of {len(numbers)}")
    return torch.tensor([numbers[label] for label in labels])


def untrained(model: "HookedTransformer", seed: int) -> "HookedTransformer":
    """A model of the same sizes with random weights, drawn as the training recipe draws its first ones."""
    names = TransformerConfig.__dataclass_fields__
    sizes = {name: getattr(model.cfg, name) for name in names if name != "layer_norm_eps"}
    cfg = TransformerConfig(**sizes, layer_norm_eps=model.cfg.eps)
    return hooked_transformer(cfg, Network(cfg, torch.Generator().manual_seed(seed)).standard_state())
