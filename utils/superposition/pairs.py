"""Features that come in pairs."""

import torch
from jaxtyping import Float
from torch import Tensor


def sample_pairs(
    kinds: list[str], batch: int, p: float, generator: torch.Generator | None = None, n_models: int = 1
) -> Float[Tensor, "model batch feature"]:
    """Features in pairs, of which each pair is on together, never both, or as it happens.

    Pair k are features 2k and 2k + 1. Each single feature is on with probability p, whatever its kind, and then uniform
    between 0 and 1, independently of its partner's size; otherwise it is 0. Pairs are independent of each other.

    Args:
        kinds: For each pair "together" (both on, or both off), "apart" (never both on) or "independent".
        batch: Number of examples for each model.
        p: The probability that a feature is on.
        generator: Source of the random draws; None for torch's global one.
        n_models: Number of models to draw for, all with the same kinds and independent examples.

    Returns:
        Features from 0 to 1, two for each entry of ``kinds``, in the default dtype.

    Raises:
        ValueError: If a kind is none of the three, if p lies outside [0, 1], or if it is above 1/2 and a pair is
            "apart": two things that are never there together can't both be there more than half the time.

    Source: Elhage et al. (2022), "Toy Models of Superposition", section on correlated features.
    """
    for kind in kinds:
        if kind not in ("together", "apart", "independent"):
            raise ValueError(f"a pair is 'together', 'apart' or 'independent', not {kind!r}")
    if not 0 <= p <= (0.5 if "apart" in kinds else 1):
        raise ValueError(f"with these kinds, p can't be {p}")
    shape = (n_models, batch, len(kinds))
    first, other = torch.rand(shape, generator=generator), torch.rand(shape, generator=generator)
    seconds = {"together": first < p, "apart": (first >= p) & (first < 2 * p), "independent": other < p}
    second = torch.stack([seconds[kind][..., k] for k, kind in enumerate(kinds)], dim=-1)
    on = torch.stack([first < p, second], dim=-1).flatten(start_dim=-2)
    return torch.rand(on.shape, generator=generator) * on
