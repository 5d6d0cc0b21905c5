"""Shapley values: what each feature is due, if every order of arrival counts the same."""

import math
from collections.abc import Callable
from itertools import combinations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


def coalition_values(
    model: Callable[[Float[Tensor, "row feature"]], Float[Tensor, "row"]],
    x: Float[Tensor, "feature"],
    background: Float[Tensor, "background feature"],
    coalitions: Bool[Tensor, "coalition feature"],
) -> Float[Tensor, "coalition"]:
    """The value of each coalition of features: the model's mean output when only these features are known.

    Features inside the coalition come from x. Those outside are replaced together by those of one background row, once
    for each row, and the outputs are averaged: v(S) = mean_b model(x_S, b_notS).

    Args:
        model: Takes inputs [row, feature] and returns one number for each. It is called without gradients.
        x: The input to be explained.
        background: Inputs that say what "not known" means, at least one row.
        coalitions: True where a feature belongs to the coalition.

    Returns:
        One value for each coalition, with the dtype of the model's output.

    Raises:
        ValueError: If ``background`` has no rows, if it or ``coalitions`` does not have the features of ``x``, or if
            ``model`` does not return one number for each row.

    Source: Lundberg and Lee (2017), "A unified approach to interpreting model predictions", equations 9 to 11.
    """
    if background.ndim != 2 or not len(background) or background.shape[1:] != x.shape:
        raise ValueError(f"background must be rows of {len(x)} features, got shape {tuple(background.shape)}")
    if coalitions.ndim != 2 or coalitions.shape[1:] != x.shape:
        raise ValueError(f"coalitions must be rows of {len(x)} features, got shape {tuple(coalitions.shape)}")
    inputs = torch.where(coalitions[:, None, :], x, background)
    with torch.no_grad():
        outputs = model(inputs.flatten(0, 1))
    if outputs.shape != (len(coalitions) * len(background),):
        raise ValueError(f"model must return one number for each row, got shape {tuple(outputs.shape)}")
    return outputs.reshape(len(coalitions), len(background)).mean(dim=1)


def shapley_exact(
    model: Callable[[Float[Tensor, "row feature"]], Float[Tensor, "row"]],
    x: Float[Tensor, "feature"],
    background: Float[Tensor, "background feature"],
) -> Float[Tensor, "feature"]:
    """Shapley values of the features of ``x``, from the values of all coalitions.

    phi_i is the sum over all S without i of |S|! (M - |S| - 1)! / M! * (v(S with i) - v(S)), with M features and v from
    ``coalition_values``.

    Args:
        model: Takes inputs [row, feature] and returns one number for each.
        x: The input to be explained, with at most 16 features: there are 2^M coalitions.
        background: Inputs that say what "not known" means, at least one row.

    Returns:
        One value for each feature, in units of the model's output and with its dtype. They add up to model(x) minus the
        mean output over the background.

    Raises:
        ValueError: If ``x`` has more than 16 features, and what ``coalition_values`` raises.

    Source: Shapley (1953), "A value for n-person games".
    """
    n_features = len(x)
    if n_features > 16:
        raise ValueError(f"x must have at most 16 features for all coalitions to be tried, got {n_features}")
    members = torch.arange(2**n_features, device=x.device)[:, None] >> torch.arange(n_features, device=x.device)
    coalitions = (members & 1).bool()
    values = coalition_values(model, x, background, coalitions)
    dtype, values = values.dtype, values.double()  # half precision can't hold weights of a millionth
    by_size = [1 / (n_features * math.comb(n_features - 1, size)) for size in range(n_features)]
    weights = torch.tensor(by_size, dtype=torch.float64, device=x.device)
    shares = []
    for feature in range(n_features):
        without = (~coalitions[:, feature]).nonzero()[:, 0]
        gains = values[without + 2**feature] - values[without]
        shares.append(weights[coalitions[without].sum(dim=1)] @ gains)
    return torch.stack(shares).to(dtype)


def shapley_kernel_weights(sizes: Int[Tensor, "*shape"], n_features: int) -> Float[Tensor, "*shape"]:
    """Weight of a coalition in the regression whose solution is the Shapley values, by the coalition's size.

    pi(s) = (M - 1) / (C(M, s) s (M - s)) for M features and a coalition of s of them. For s = 0 and s = M the weight is
    infinite: there the fit has to be exact.

    Args:
        sizes: Numbers of features in coalitions, from 0 to M; any shape.
        n_features: M, at least 1.

    Returns:
        Weights in float64, with the shape of sizes.

    Raises:
        ValueError: If ``n_features`` is smaller than 1, or one of ``sizes`` lies outside 0 to ``n_features``.

    Source: Lundberg and Lee (2017), theorem 2.
    """
    if n_features < 1:
        raise ValueError(f"n_features must be at least 1, got {n_features}")
    if not bool(((sizes >= 0) & (sizes <= n_features)).all()):
        raise ValueError(f"sizes must lie between 0 and n_features = {n_features}")
    inner = [(n_features - 1) / (math.comb(n_features, s) * s * (n_features - s)) for s in range(1, n_features)]
    return torch.tensor([math.inf, *inner, math.inf], dtype=torch.float64, device=sizes.device)[sizes]


def kernel_shap(
    model: Callable[[Float[Tensor, "row feature"]], Float[Tensor, "row"]],
    x: Float[Tensor, "feature"],
    background: Float[Tensor, "background feature"],
    *,
    n_coalitions: int | None = None,
    generator: torch.Generator | None = None,
) -> Float[Tensor, "feature"]:
    """Shapley values as the solution of one weighted regression of coalition values on membership.

    Minimises sum_S weight(S) (v(S) - v(empty) - sum_{i in S} phi_i)^2 over coalitions S that are neither empty nor
    full, under the constraint that the phi_i add up to v(full) - v(empty). With ``n_coalitions`` None, or enough for
    all S, these are all of them, with the weights pi of ``shapley_kernel_weights``. Otherwise:

    - Some sizes are taken whole, with the weights pi: 1 and M - 1 always; then 2 and M - 2, and so on, as long as what
      is left of ``n_coalitions``, drawn in proportion to pi, would give at least as many of them as there are.
    - What is left is drawn from the other sizes, half of it (rounded down): a size s with probability proportional to
      1 / (s (M - s)), then a coalition of this size, all equally likely, each draw independent of the others. Its
      complement follows each. All of these have the same weight, and together that of all coalitions of their sizes.

    Args:
        model: Takes inputs [row, feature] and returns one number for each.
        x: The input to be explained, with M features.
        background: Inputs that say what "not known" means, at least one row.
        n_coalitions: How many coalitions to evaluate at most, beside the empty and the full one: at least 2 M + 2, or
            as many as there are. Where what is left to draw is odd, one fewer is evaluated.
        generator: Source of the drawn coalitions; needed only if they are drawn.

    Returns:
        One value for each feature, in units of the model's output and with its dtype.

    Raises:
        ValueError: If ``n_coalitions`` is smaller than 2 M + 2 and than the number of coalitions, if it is None for
            more than 16 features, if coalitions have to be drawn and ``generator`` is None, and what
            ``coalition_values`` raises.

    Source: Lundberg and Lee (2017), theorem 2, and their library for the sizes that are taken whole; pairs with
    complements: Covert and Lee (2021), "Improving KernelSHAP".
    """
    # Given: the inputs are checked, and coalitions of the sizes below `size` and above M - `size` are taken whole.
    n_features, device, n_all = len(x), x.device, 2 ** len(x) - 2
    if n_coalitions is None and n_features > 16:
        raise ValueError(f"n_coalitions must be given for more than 16 features, got {n_features}")
    n_left = n_all if n_coalitions is None else min(n_coalitions, n_all)
    if n_left < min(2 * n_features + 2, n_all):
        raise ValueError(f"n_coalitions must be at least {min(2 * n_features + 2, n_all)}, got {n_coalitions}")
    sizes = torch.arange(1, n_features, dtype=torch.float64, device=device)
    by_size = 1 / (sizes * (n_features - sizes))  # in proportion to what all coalitions of each size weigh together
    coalitions, size = torch.zeros(0, n_features, dtype=torch.bool, device=device), 1
    while 2 * size <= n_features:
        both, rest = sorted({size, n_features - size}), by_size[size - 1 : n_features - size].sum()
        n_both = len(both) * math.comb(n_features, size)
        if size > 1 and n_left * len(both) * by_size[size - 1] < n_both * rest:
            break
        for s in both:
            members = torch.tensor(list(combinations(range(n_features), s)), device=device)
            these = torch.zeros(len(members), n_features, dtype=torch.bool, device=device).scatter(1, members, True)
            coalitions = torch.cat([coalitions, these])
        n_left, size = n_left - n_both, size + 1
    # Yours: weigh these, draw `n_left` others from the sizes `size` to M - `size`, evaluate, and solve the regression.
    weights = shapley_kernel_weights(coalitions.sum(dim=1), n_features)
    if n_left:
        if generator is None:
            raise ValueError("generator must be given to draw coalitions")
        chances, n_pairs = by_size[size - 1 : n_features - size], n_left // 2
        drawn = size + torch.multinomial(chances.to(generator.device), n_pairs, replacement=True, generator=generator)
        ranks = torch.rand(n_pairs, n_features, generator=generator, device=generator.device).argsort(dim=1)
        half = (ranks < drawn[:, None]).to(device)
        coalitions = torch.cat([coalitions, half, ~half])
        each = (n_features - 1) * chances.sum() / (2 * n_pairs)
        weights = torch.cat([weights, each.expand(2 * n_pairs)])
    ends = torch.tensor([[False], [True]], device=device).expand(2, n_features)
    values = coalition_values(model, x, background, torch.cat([ends, coalitions]))
    dtype, values = values.dtype, values.double()
    total, gains = values[1] - values[0], values[2:] - values[0]
    # The constraint gives the last value as the total less the others, which leaves a regression without constraint.
    members = coalitions.double()
    design, target = members[:, :-1] - members[:, -1:], gains - members[:, -1] * total
    first = torch.linalg.solve(design.T @ (weights[:, None] * design), design.T @ (weights * target))
    return torch.cat([first, (total - first.sum())[None]]).to(dtype)


def shapley_sampling(
    model: Callable[[Float[Tensor, "row feature"]], Float[Tensor, "row"]],
    x: Float[Tensor, "feature"],
    background: Float[Tensor, "background feature"],
    *,
    n_permutations: int,
    generator: torch.Generator,
) -> tuple[Float[Tensor, "feature"], Float[Tensor, "feature"]]:
    """Estimate Shapley values from random orders of arrival, with standard errors.

    In each order the features join one after another, and each is credited with the change of ``coalition_values`` at
    its arrival. The estimate is the mean over orders. Every order has the same chance, independently of the others.

    Args:
        model: Takes inputs [row, feature] and returns one number for each.
        x: The input to be explained.
        background: Inputs that say what "not known" means, at least one row.
        n_permutations: Number of orders, at least 2.
        generator: Source of the orders.

    Returns:
        The estimates and their standard errors (the sample standard deviation over orders, with n - 1, divided by the
        square root of n), one of each for each feature, in units of the model's output and with its dtype.

    Raises:
        ValueError: If ``n_permutations`` is smaller than 2, and what ``coalition_values`` raises.

    Source: Castro, Gómez and Tejada (2009), "Polynomial calculation of the Shapley value based on sampling".
    """
    if n_permutations < 2:
        raise ValueError(f"n_permutations must be at least 2, got {n_permutations}")
    n_features = len(x)
    keys = torch.rand(n_permutations, n_features, generator=generator, device=generator.device, dtype=torch.float64)
    place = keys.argsort(dim=1).to(x.device)  # place[k, i]: how many features arrive before i in order k
    coalitions = place[:, None, :] < torch.arange(n_features + 1, device=x.device)[:, None]
    values = coalition_values(model, x, background, coalitions.flatten(0, 1))
    gains = values.double().reshape(n_permutations, n_features + 1).diff(dim=1)
    credits = gains.gather(1, place)
    return credits.mean(dim=0).to(values.dtype), (credits.std(dim=0) / math.sqrt(n_permutations)).to(values.dtype)
