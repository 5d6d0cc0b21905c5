"""Is it better than the baseline, and is it still so if many places were looked at?"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def sign_flip_test(differences: Float[Tensor, "site group"]) -> Float[Tensor, " site"]:
    """How often chance alone would have given so large a mean difference: an exact test for each site.

    If a probe were no better than its baseline, the sign of each group's difference would be a coin's. So all
    2^groups ways to choose signs are gone through. The p-value is the share of them, the true one included, in which
    the mean of the differences is at least the true mean; means that agree but for rounding count as equal.

    Args:
        differences: For each site and each independent group, the probe's accuracy less the baseline's.

    Returns:
        One-sided p-values, from 1 / 2^groups to 1, in double precision.

    Raises:
        ValueError: If there are fewer than 2 groups, or more than 16.

    Source: Fisher (1935), "The Design of Experiments", section 21.
    """
    n = differences.shape[1]
    if not 2 <= n <= 16:
        raise ValueError(f"from 2 to 16 groups can be tested, not {n}")
    patterns = torch.arange(2**n, device=differences.device)[:, None] >> torch.arange(n, device=differences.device)
    signs = 1.0 - 2.0 * (patterns & 1).double()
    values = differences.double()
    rounding = 1e-6 * values.abs().sum(dim=1)
    reached = signs @ values.T >= values.sum(dim=1) - rounding  # [pattern, site]
    return reached.double().mean(dim=0)


def holm(p_values: Float[Tensor, " test"], alpha: float = 0.05) -> tuple[Bool[Tensor, " test"], Float[Tensor, " test"]]:
    """Holm's correction: as safe as Bonferroni's, and it finds at least as much.

    With p_(1) <= … <= p_(m), the adjusted p-value is

        adjusted_(i) = min(1, max over j <= i of (m - j + 1) · p_(j)) ,

    and what is at most ``alpha`` is rejected; equal but for rounding counts as equal. The probability of even one false
    discovery is at most ``alpha``, whatever the dependence between the tests.

    Args:
        p_values: P-values, in any order.
        alpha: Level, strictly between 0 and 1.

    Returns:
        Which hypotheses are rejected, and the adjusted p-values, both in the order of ``p_values``, the latter with its
        dtype.

    Raises:
        ValueError: If there is no test, a p-value does not lie in [0, 1] (NaN does not), or ``alpha`` does not lie
            strictly between 0 and 1.

    Source: Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    if not 0 < alpha < 1 or len(p_values) < 1 or not ((p_values >= 0) & (p_values <= 1)).all():
        raise ValueError(f"alpha is {alpha}, and the p-values are {p_values.tolist()}")
    ordered, order = p_values.sort()
    left = torch.arange(len(p_values), 0, -1, device=p_values.device)
    adjusted = torch.empty_like(p_values)
    adjusted[order] = (left * ordered).cummax(dim=0).values.clamp(max=1).to(p_values.dtype)
    return adjusted <= alpha * (1 + 4 * torch.finfo(p_values.dtype).eps), adjusted
