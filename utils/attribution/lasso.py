"""The Lasso: a linear model that has to say which features it can do without."""

import torch
from jaxtyping import Float
from torch import Tensor


def soft_threshold(x: Float[Tensor, "*shape"], threshold: float | Float[Tensor, "*#shape"]) -> Float[Tensor, "*shape"]:
    """Move every number towards zero by ``threshold``, and those that are nearer than that to zero itself.

    This is the proximal step of the absolute value: the b that minimises (b - x)^2 / 2 + threshold * |b|.

    Args:
        x: Numbers of any shape.
        threshold: How far to move, in the units of x, at least 0: one number, or a tensor that broadcasts with x.

    Returns:
        sign(x) * max(|x| - threshold, 0), with the shape and dtype of x. Gradients pass to x: 1 where |x| is above the
        threshold, 0 where it is below.

    Raises:
        ValueError: If ``threshold`` is not at least 0 everywhere (NaN is not).

    Source: Donoho and Johnstone (1994), "Ideal spatial adaptation by wavelet shrinkage".
    """
    threshold = torch.as_tensor(threshold, dtype=x.dtype, device=x.device)
    if not bool((threshold >= 0).all()):
        raise ValueError("threshold must be at least 0 everywhere")
    return x.sign() * (x.abs() - threshold).clamp(min=0)


def lasso_ista(
    X: Float[Tensor, "*batch sample feature"],
    y: Float[Tensor, "*batch sample"],
    penalty: float | Float[Tensor, "*#batch"],
    *,
    n_steps: int = 1000,
) -> tuple[Float[Tensor, "*batch feature"], Float[Tensor, "*batch"]]:
    """Fit the Lasso by iterative soft thresholding (ISTA), starting from coefficients of zero.

    Minimises ||y - b - X w||^2 / (2 n) + penalty * ||w||_1 over w and b, where n is the number of samples. The
    intercept b is not penalised: X and y are centred, w is fitted to the centred data, and b = mean(y) - mean(X) w.
    Each step goes down the gradient of the squared error by 1 / L and then thresholds by penalty / L, where L is the
    largest eigenvalue of X_c^T X_c / n (X_c: X centred). All ``n_steps`` steps are taken, however small they become.
    Features are not rescaled. A feature that never varies says nothing, and its coefficient stays exactly 0.

    Args:
        X: One table, or a batch of tables.
        y: The numbers to predict, one for each row of X.
        penalty: Price of one unit of coefficient, at least 0: one number for all, or a tensor that broadcasts with the
            batch dimensions, such as one number for each table.
        n_steps: Number of steps, at least 0.

    Returns:
        The coefficients w [*batch, feature] and the intercepts b [*batch], with the dtype of X
        (whatever the dtype of y).

    Raises:
        ValueError: If X and y do not have the same samples, if there are none, if ``penalty`` is not at least 0
            everywhere (NaN is not), or if ``n_steps`` is negative.

    Source: Tibshirani (1996), "Regression shrinkage and selection via the Lasso"; Daubechies, Defrise and De Mol (2004)
    for the iteration.
    """
    if X.ndim < 2 or y.shape != X.shape[:-1] or y.shape[-1] == 0:
        raise ValueError(f"X and y must have the same samples, got shapes {tuple(X.shape)} and {tuple(y.shape)}")
    dtype, wide = X.dtype, torch.promote_types(X.dtype, torch.float32)  # eigenvalues need float32 at least
    X, y, penalty = X.to(wide), y.to(wide), torch.as_tensor(penalty, dtype=wide, device=X.device)
    if not bool((penalty >= 0).all()):
        raise ValueError("penalty must be at least 0 everywhere")
    if n_steps < 0:
        raise ValueError(f"n_steps must be at least 0, got {n_steps}")
    from_first = X - X[..., :1, :]  # a constant column is exactly 0 here; less its rounded mean it need not be
    centred = from_first - from_first.mean(dim=-2, keepdim=True)
    gram = centred.mT @ centred / X.shape[-2]
    correlation = (centred * (y - y.mean(dim=-1, keepdim=True))[..., None]).mean(dim=-2)
    step = 1 / torch.linalg.eigvalsh(gram)[..., -1:].clamp(min=torch.finfo(wide).tiny)
    w = torch.zeros_like(correlation)
    for _ in range(n_steps):
        gradient = (gram @ w[..., None])[..., 0] - correlation
        w = soft_threshold(w - step * gradient, step * penalty[..., None])
    return w.to(dtype), (y.mean(dim=-1) - (X.mean(dim=-2) * w).sum(dim=-1)).to(dtype)
