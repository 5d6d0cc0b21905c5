"""Wrong answers for the Lasso, each with the sentence for a learner who made the mistake, and right ones."""

import numpy as np
import torch

from utils.attribution.lasso import soft_threshold
from utils.course.catalogue import right, wrong


def checked(threshold, x):
    threshold = torch.as_tensor(threshold, dtype=x.dtype, device=x.device)
    if not (threshold >= 0).all():
        raise ValueError("threshold must be at least 0")
    return threshold


# soft_threshold


@wrong(
    "soft_threshold",
    "You keep numbers beyond the threshold as they are. That is hard thresholding: the result jumps where x "
    "crosses the threshold, and what it minimises is a price for being non-zero, not for size.",
)
def hard_threshold(x, threshold):
    return x * (x.abs() > checked(threshold, x))


@wrong(
    "soft_threshold",
    "Your negative numbers all become zero. A coefficient of -3 is as far from zero as one of 3, and is treated alike.",
)
def one_sided(x, threshold):
    return (x - checked(threshold, x)).clamp(min=0)


@wrong(
    "soft_threshold",
    "Your results are never negative: you shrink the size of x and leave its sign behind.",
)
def sign_lost(x, threshold):
    return (x.abs() - checked(threshold, x)).clamp(min=0)


@wrong(
    "soft_threshold",
    "Small numbers pass through zero and come out on the other side: nothing in your code stops |x| - threshold at 0.",
)
def through_zero(x, threshold):
    return x.sign() * (x.abs() - checked(threshold, x))


@wrong(
    "soft_threshold",
    "You return what should be taken away. Clamping x to the range from -threshold to threshold keeps the small "
    "numbers and cuts the large ones; subtract it from x and look again.",
)
def clamped_instead(x, threshold):
    threshold = checked(threshold, x)
    return torch.minimum(torch.maximum(x, -threshold), threshold)


@wrong(
    "soft_threshold",
    "You divide by 1 + threshold. That is the step for a squared penalty: it makes every number smaller and none "
    "zero, and zeros are what this exercise is about.",
)
def ridge_step(x, threshold):
    return x / (1 + checked(threshold, x))


@wrong(
    "soft_threshold",
    "You move by half the threshold. That is right if the squared error is not halved; the docstring's cost has "
    "(b - x)^2 / 2.",
)
def half_way(x, threshold):
    return soft_threshold(x, checked(threshold, x) / 2)


@wrong(
    "soft_threshold",
    "Your values are right, but they are cut off from x: no gradient comes back through them.",
)
def detached(x, threshold):
    return soft_threshold(x.detach(), threshold)


@wrong(
    "soft_threshold",
    "A negative threshold pushes numbers away from zero, and yours does so without a word. The docstring names "
    "the error.",
)
def negative_thresholds_pass(x, threshold):
    threshold = torch.as_tensor(threshold, dtype=x.dtype)
    if threshold.isnan().any():
        raise ValueError("threshold must be a number")
    return x.sign() * torch.relu(x.abs() - threshold)


@wrong(
    "soft_threshold",
    "You look at no threshold before you use it: negative ones push numbers away from zero, NaN makes everything NaN. "
    "The docstring names the error.",
)
def any_threshold_passes(x, threshold):
    return x.sign() * torch.relu(x.abs() - threshold)


@wrong(
    "soft_threshold",
    "A threshold of NaN goes through: no comparison with NaN is true, `threshold < 0` included. Ask for what a "
    "threshold should be, and refuse all else.",
)
def nan_thresholds_pass(x, threshold):
    threshold = torch.as_tensor(threshold, dtype=x.dtype, device=x.device)
    if (threshold < 0).any():
        raise ValueError("threshold must be at least 0")
    return x.sign() * (x.abs() - threshold).clamp(min=0)


@wrong(
    "soft_threshold",
    "You lose the last digits of the threshold: a tensor made from a Python number is float32 unless you say "
    "otherwise. Give it the dtype of x.",
)
def float32_threshold(x, threshold):
    threshold = torch.as_tensor(threshold)
    if not (threshold >= 0).all():
        raise ValueError("threshold must be at least 0")
    return x.sign() * (x.abs() - threshold).clamp(min=0)


@wrong(
    "soft_threshold",
    "Your values are right, and in float64 as soon as a tensor of thresholds is: a difference takes the wider dtype of "
    "the two. The docstring says whose it should be.",
)
def wider_of_the_two(x, threshold):
    threshold = torch.as_tensor(threshold, dtype=getattr(threshold, "dtype", x.dtype))
    if not (threshold >= 0).all():
        raise ValueError("threshold must be at least 0")
    return x.sign() * (x.abs() - threshold).clamp(min=0)


@wrong(
    "soft_threshold",
    "You divide by |x|, and at x = 0 that can be 0 / 0: NaN. In the Lasso every coefficient starts at 0.",
)
def divided_by_its_size(x, threshold):
    return x / x.abs() * (x.abs() - checked(threshold, x)).clamp(min=0)


@wrong(
    "soft_threshold",
    "Beyond the threshold you subtract it from x, on both sides. Numbers below -threshold then move *away* from zero.",
)
def subtracted_on_both_sides(x, threshold):
    return torch.where(x.abs() > checked(threshold, x), x - threshold, torch.zeros_like(x))


@right("soft_threshold")
def two_ramps(x, threshold):
    threshold = checked(threshold, x)
    return torch.relu(x - threshold) - torch.relu(-x - threshold)


@right("soft_threshold")
def less_the_clamped(x, threshold):
    threshold = checked(threshold, x)
    return x - torch.minimum(torch.maximum(x, -threshold), threshold)


@right("soft_threshold")
def in_numpy(x, threshold):
    limits = np.asarray(threshold if not isinstance(threshold, torch.Tensor) else threshold.detach().numpy(), float)
    if not np.all(limits >= 0):
        raise ValueError("threshold must be at least 0")
    kept = torch.from_numpy(np.asarray(np.abs(x.detach().numpy()) > limits))
    towards = torch.from_numpy(np.asarray(np.sign(x.detach().numpy()) * limits)).to(x.dtype)
    return torch.where(kept, x - towards, torch.zeros_like(x))


@right("soft_threshold")
def three_cases(x, threshold):
    threshold = checked(threshold, x).expand_as(x)
    out = torch.where(x > threshold, x - threshold, torch.zeros_like(x))
    return torch.where(x < -threshold, x + threshold, out)


# lasso_ista


def one_over_lipschitz(gram):
    return 1 / torch.linalg.matrix_norm(gram, ord=2).clamp(min=torch.finfo(gram.dtype).tiny).unsqueeze(-1)


def examined(X, y, penalty, n_steps):
    """The penalty as a tensor, after everything was looked at."""
    if X.ndim < 2 or X.shape[:-1] != y.shape or not y.shape[-1]:
        raise ValueError("X and y do not match")
    penalty = torch.as_tensor(penalty, dtype=X.dtype)
    if not (penalty >= 0).all():
        raise ValueError("penalty must be at least 0")
    if n_steps < 0:
        raise ValueError("n_steps must be at least 0")
    return penalty


def centred(X):
    """Less the mean of each column; a column that never varies is exactly 0."""
    return (X[..., :1, :] != X).any(-2, keepdim=True) * (X - X.mean(-2, keepdim=True))


def ista(X, y, penalty, n_steps, *, divisor=None, step=None, threshold=None, centre=centred, shrink=soft_threshold):
    """The right algorithm, in which one thing can be set wrong."""
    penalty, y = examined(X, y, penalty, n_steps), y.to(X.dtype)
    X_mean, y_mean = X.mean(-2), y.mean(-1)
    A, r = (centre(X), y - y_mean.unsqueeze(-1)) if centre else (X, y)
    n = X.shape[-2] if divisor is None else divisor
    gram, target = A.mT @ A / n, (A.mT @ r.unsqueeze(-1)).squeeze(-1) / n
    size = (step or one_over_lipschitz)(gram)
    by = size * penalty.unsqueeze(-1) if threshold is None else threshold(size, penalty)
    w = torch.zeros_like(target)
    for _ in range(n_steps):
        w = shrink(w - size * ((gram @ w.unsqueeze(-1)).squeeze(-1) - target), by)
    return w, y_mean - (X_mean * w).sum(-1) if centre else torch.zeros_like(y_mean)


@wrong(
    "lasso_ista",
    "You threshold by the penalty itself. A step of size 1 / L in the error needs a threshold of penalty / L, or "
    "the two terms are weighed in different currencies.",
)
def threshold_without_step(X, y, penalty, *, n_steps=1000):
    return ista(X, y, penalty, n_steps, threshold=lambda size, p: p.unsqueeze(-1).expand_as(size))


@wrong(
    "lasso_ista",
    "Your squared error is a sum over the samples and not a mean: it grows with the number of rows while the "
    "penalty stays, and the same penalty means something else for each table. Look for the n in the docstring's "
    "cost.",
)
def sum_of_squares(X, y, penalty, *, n_steps=1000):
    return ista(X, y, penalty, n_steps, divisor=1)


@wrong(
    "lasso_ista",
    "Your error is the mean of squares without the one half. Its gradient is twice as large, so the penalty "
    "counts for half of what it should.",
)
def without_the_half(X, y, penalty, *, n_steps=1000):
    penalty = torch.as_tensor(penalty, dtype=X.dtype)
    return ista(X, y, penalty / 2, n_steps) if (penalty >= 0).all() else ista(X, y, penalty, n_steps)


@wrong(
    "lasso_ista",
    "Your model has no intercept, and the line is forced through the origin: coefficients have to make up for the"
    " mean of y. Centre both sides, and put the means back together at the end.",
)
def no_intercept(X, y, penalty, *, n_steps=1000):
    return ista(X, y, penalty, n_steps, centre=False)


@wrong(
    "lasso_ista",
    "Your intercept is the mean of y. That would be right if the columns of X had mean zero; move a column, and "
    "it should move too.",
)
def intercept_of_centred_data(X, y, penalty, *, n_steps=1000):
    return ista(X, y, penalty, n_steps)[0], y.mean(-1)


@wrong(
    "lasso_ista",
    "Your intercept is one more coefficient, on a column of ones, and pays the penalty like all others. A "
    "constant added to y should cost nothing.",
)
def penalised_intercept(X, y, penalty, *, n_steps=1000):
    ones = torch.ones(*X.shape[:-1], 1, dtype=X.dtype)
    w, _ = ista(torch.cat([X, ones], dim=-1), y, penalty, n_steps, centre=False)
    return w[..., :-1], w[..., -1]


@wrong(
    "lasso_ista",
    "You take the step from the column that varies most. Where columns are correlated, the error curves more "
    "steeply along a mixture of them than along any single one, and this step can be too long: the largest "
    "eigenvalue decides.",
)
def step_from_the_largest_column(X, y, penalty, *, n_steps=1000):
    def step(gram):
        return 1 / gram.diagonal(0, -2, -1).amax(-1, keepdim=True).clamp(min=torch.finfo(gram.dtype).tiny)

    return ista(X, y, penalty, n_steps, step=step)


@wrong(
    "lasso_ista",
    "Your step has a fixed length. For one table that is too short to arrive, for another too long to converge; "
    "the docstring says how to read the right one off the data.",
)
def fixed_step(X, y, penalty, *, n_steps=1000):
    return ista(X, y, penalty, n_steps, step=lambda gram: torch.full_like(gram[..., 0, :1], 0.01))


@wrong(
    "lasso_ista",
    "You shrink all coefficients by a factor. That is the step for a squared penalty (ridge): no coefficient ever"
    " becomes zero, and there is no support to read.",
)
def ridge_instead(X, y, penalty, *, n_steps=1000):
    return ista(X, y, penalty, n_steps, shrink=lambda w, by: w / (1 + by))


@wrong(
    "lasso_ista",
    "You run plain gradient descent and threshold once, at the end. That trims the least-squares solution; it "
    "does not let the remaining coefficients take over what the trimmed ones explained.",
)
def thresholded_at_the_end(X, y, penalty, *, n_steps=1000):
    w, _ = ista(X, y, penalty, n_steps, shrink=lambda w, by: w)
    w = soft_threshold(w, torch.as_tensor(penalty, dtype=X.dtype).unsqueeze(-1))
    return w, y.mean(-1) - (X.mean(-2) * w).sum(-1)


@wrong(
    "lasso_ista",
    "You standardise the columns and return the coefficients of the standardised ones. The docstring asks for "
    "those of X as it came, and for a penalty that is paid on these.",
)
def standardised(X, y, penalty, *, n_steps=1000):
    if X.ndim < 2 or not X.shape[-2]:
        raise ValueError("X must have samples")
    scale = X.std(-2, keepdim=True, correction=0).clamp(min=1e-12)
    return ista(X / scale, y, penalty, n_steps)


@wrong(
    "lasso_ista",
    "You standardise the columns for the fit and divide the coefficients back afterwards. The penalty was then paid on "
    "the standardised ones; the docstring has it paid on those of X as it came.",
)
def standardised_and_back(X, y, penalty, *, n_steps=1000):
    examined(X, y, penalty, n_steps)
    scale = X.std(-2, correction=0)
    scale = torch.where(scale > 1e-9, scale, 1.0)
    w = ista(X / scale.unsqueeze(-2), y, penalty, n_steps)[0] / scale
    return w, y.to(X.dtype).mean(-1) - (X.mean(-2) * w).sum(-1)


@wrong(
    "lasso_ista",
    "You centre y and leave X as it is. The mean of a column then takes part in the fit like any other of its numbers; "
    "centre both.",
)
def columns_not_centred(X, y, penalty, *, n_steps=1000):
    examined(X, y, penalty, n_steps)
    y = y.to(X.dtype)
    w, _ = ista(X, y - y.mean(-1, keepdim=True), penalty, n_steps, centre=lambda X: X)
    return w, y.mean(-1) - (X.mean(-2) * w).sum(-1)


@wrong(
    "lasso_ista",
    "For a batch of tables your penalties are lined up with the features: `penalty` has the batch dimensions alone, "
    "and the coefficients have one more, at the end.",
)
def penalties_along_the_features(X, y, penalty, *, n_steps=1000):
    return ista(X, y, penalty, n_steps, threshold=lambda size, p: p * size)


@wrong(
    "lasso_ista",
    "Your fit is right, and in float64 as soon as a tensor of penalties is. The docstring says whose dtype it should "
    "have.",
)
def dtype_of_the_penalty(X, y, penalty, *, n_steps=1000):
    w, b = ista(X, y, penalty, n_steps)
    wide = torch.promote_types(X.dtype, penalty.dtype) if isinstance(penalty, torch.Tensor) else X.dtype
    return w.to(wide), b.to(wide)


@wrong(
    "lasso_ista",
    "Your fit is right, and it also accepts a negative penalty, which rewards large coefficients and sends them "
    "to infinity. The docstring lists what to refuse.",
)
def negative_penalties_pass(X, y, penalty, *, n_steps=1000):
    return ista(X, y, torch.as_tensor(penalty, dtype=X.dtype).abs(), n_steps)


@wrong(
    "lasso_ista",
    "Your fit is right, and a negative number of steps goes through: `range` is then empty, and what comes back looks "
    "like a fit in which no feature matters.",
)
def negative_steps_pass(X, y, penalty, *, n_steps=1000):
    return ista(X, y, penalty, max(n_steps, 0))


@wrong(
    "lasso_ista",
    "Your fit is right, and a penalty of NaN goes through: no comparison with NaN is true, `penalty < 0` included. Ask "
    "for what a penalty should be, and refuse all else.",
)
def nan_penalties_pass(X, y, penalty, *, n_steps=1000):
    return ista(X, y, torch.as_tensor(penalty, dtype=X.dtype).nan_to_num(), n_steps)


@wrong(
    "lasso_ista",
    "For columns that never vary L is 0, and you divide by it: NaN. Such columns explain nothing, and their "
    "coefficients should stay at 0.",
)
def divided_by_zero(X, y, penalty, *, n_steps=1000):
    return ista(X, y, penalty, n_steps, step=lambda gram: 1 / torch.linalg.eigvalsh(gram)[..., -1:])


@wrong(
    "lasso_ista",
    "Your guard against L = 0 misses a column whose rounded mean is not quite its value: after centring some 1e-17 is "
    "left, L is the square of that, and 1 / L makes a coefficient of it. Such a column has to be 0 exactly. (Twice the "
    "same number, subtracted, is; so start from one of the rows.)",
)
def centred_by_the_rounded_mean(X, y, penalty, *, n_steps=1000):
    return ista(X, y, penalty, n_steps, centre=lambda X: X - X.mean(-2, keepdim=True))


@wrong(
    "lasso_ista",
    "You stop once the coefficients hardly move. Where columns are nearly copies of one another, tiny steps go on for "
    "a long way; and what is tiny depends on the units of y. The docstring asks for n_steps of them.",
)
def early_stopping(X, y, penalty, *, n_steps=1000):
    done = False

    def until_small(w, by):
        nonlocal done, before
        w = before if done else soft_threshold(w, by)
        done, before = done or bool((w - before).abs().max() < 1e-4), w
        return w

    before = torch.zeros_like(X[..., 0, :]) if X.ndim > 1 and X.shape[-2] else torch.zeros(())
    return ista(X, y, penalty, n_steps, shrink=until_small)


@wrong(
    "lasso_ista",
    "Your L is the Frobenius norm of X_c^T X_c / n (that is what `torch.linalg.norm` gives a matrix). It is never "
    "smaller than the largest eigenvalue, so you arrive, in steps that are shorter than they need to be.",
)
def frobenius_norm(X, y, penalty, *, n_steps=1000):
    def step(gram):
        return 1 / torch.linalg.matrix_norm(gram).clamp(min=torch.finfo(gram.dtype).tiny).unsqueeze(-1)

    return ista(X, y, penalty, n_steps, step=step)


@wrong(
    "lasso_ista",
    "Your L is a singular value of X_c over n. The eigenvalues of X_c^T X_c are the *squares* of these.",
)
def singular_value_not_squared(X, y, penalty, *, n_steps=1000):
    n = X.shape[-2]

    def step(gram):
        largest = (torch.linalg.matrix_norm(gram, ord=2) * n).sqrt() / n
        return 1 / largest.clamp(min=torch.finfo(gram.dtype).tiny).unsqueeze(-1)

    return ista(X, y, penalty, n_steps, step=step)


@wrong(
    "lasso_ista",
    "Your L is the root of the largest eigenvalue of X_c^T X_c / n: a singular value of X_c, over the root of n. The "
    "eigenvalue is the *square* of that.",
)
def root_of_the_eigenvalue(X, y, penalty, *, n_steps=1000):
    return ista(X, y, penalty, n_steps, step=lambda gram: one_over_lipschitz(gram).sqrt())


@wrong(
    "lasso_ista",
    "You threshold before the step and not after it. What comes back has just been moved by a gradient, and hardly any "
    "of it is exactly zero.",
)
def threshold_first(X, y, penalty, *, n_steps=1000):
    penalty, y = examined(X, y, penalty, n_steps), y.to(X.dtype)
    A, r = centred(X), y - y.mean(-1, keepdim=True)
    gram, target = A.mT @ A / X.shape[-2], (A.mT @ r.unsqueeze(-1)).squeeze(-1) / X.shape[-2]
    size, w = one_over_lipschitz(gram), torch.zeros_like(target)
    for _ in range(n_steps):
        w = soft_threshold(w, size * penalty.unsqueeze(-1))
        w = w - size * ((gram @ w.unsqueeze(-1)).squeeze(-1) - target)
    return w, y.mean(-1) - (X.mean(-2) * w).sum(-1)


@wrong(
    "lasso_ista",
    "You take one step more than asked for: with n_steps = 0 the coefficients should still be 0.",
)
def one_step_more(X, y, penalty, *, n_steps=1000):
    examined(X, y, penalty, n_steps)
    return ista(X, y, penalty, n_steps + 1)


@wrong(
    "lasso_ista",
    "Your fit is right, and its dtype is that of whichever of X and y is wider. The docstring says whose it should be.",
)
def wider_dtype(X, y, penalty, *, n_steps=1000):
    w, b = ista(X, y, penalty, n_steps)
    wide = torch.promote_types(X.dtype, y.dtype)
    return w.to(wide), b.to(wide)


@wrong(
    "lasso_ista",
    "You pair penalties with tables one by one. For a batch of [2, 3] tables a penalty of [2, 1] is a penalty for each "
    "row: it broadcasts, as the docstring says.",
)
def no_broadcasting(X, y, penalty, *, n_steps=1000):
    penalty = examined(X, y, penalty, n_steps)
    batch = X.shape[:-2]
    if penalty.ndim == 0 or not batch:
        return ista(X, y, penalty, n_steps)
    pairs = zip(X.reshape(-1, *X.shape[-2:]), y.reshape(-1, y.shape[-1]), penalty.flatten().tolist() * 3, strict=False)
    parts = [ista(a, b, p, n_steps) for a, b, p in pairs]
    return torch.stack([w for w, _ in parts]).reshape(*batch, -1), torch.stack([b for _, b in parts]).reshape(batch)


@wrong(
    "lasso_ista",
    "Your L is the trace of X_c^T X_c / n, the sum of its eigenvalues. You arrive, in steps that are shorter than they "
    "need to be: the largest eigenvalue is the one that counts.",
)
def trace_for_the_largest(X, y, penalty, *, n_steps=1000):
    def step(gram):
        return 1 / gram.diagonal(0, -2, -1).sum(-1, keepdim=True).clamp(min=torch.finfo(gram.dtype).tiny)

    return ista(X, y, penalty, n_steps, step=step)


@wrong(
    "lasso_ista",
    "You use one L for the whole batch, the largest. Each table has an L of its own, and most of yours take shorter "
    "steps than they would alone.",
)
def one_step_for_all_tables(X, y, penalty, *, n_steps=1000):
    def step(gram):
        return one_over_lipschitz(gram).amin().expand(*gram.shape[:-2], 1)

    return ista(X, y, penalty, n_steps, step=step)


@wrong(
    "lasso_ista",
    "Your steps are half as long as the docstring's: 1 / L, and not 1 / (2 L). The error has a one half in front, so "
    "the curvature of its square does not bring a 2.",
)
def half_steps(X, y, penalty, *, n_steps=1000):
    return ista(X, y, penalty, n_steps, step=lambda gram: one_over_lipschitz(gram) / 2)


@wrong(
    "lasso_ista",
    "Your intercept comes first and the coefficients second. The docstring has them the other way round.",
)
def intercept_first(X, y, penalty, *, n_steps=1000):
    w, b = ista(X, y, penalty, n_steps)
    return b, w


@wrong(
    "lasso_ista",
    "You carry momentum from step to step. That is FISTA, which arrives sooner; the docstring asks for plain steps.",
)
def with_momentum(X, y, penalty, *, n_steps=1000):
    penalty, y = examined(X, y, penalty, n_steps), y.to(X.dtype)
    A, r = centred(X), y - y.mean(-1, keepdim=True)
    gram, target = A.mT @ A / X.shape[-2], (A.mT @ r.unsqueeze(-1)).squeeze(-1) / X.shape[-2]
    size, w, t = one_over_lipschitz(gram), torch.zeros_like(target), 1.0
    ahead = w
    for _ in range(n_steps):
        before, now = w, (1 + (1 + 4 * t * t) ** 0.5) / 2
        w = soft_threshold(
            ahead - size * ((gram @ ahead.unsqueeze(-1)).squeeze(-1) - target), size * penalty.unsqueeze(-1)
        )
        ahead, t = w + (t - 1) / now * (w - before), now
    return w, y.mean(-1) - (X.mean(-2) * w).sum(-1)


@right("lasso_ista")
def without_the_gram_matrix(X, y, penalty, *, n_steps=1000):
    penalty = examined(X, y, penalty, n_steps)
    n, y = y.shape[-1], y.to(X.dtype)
    A, r = X - X[..., :1, :], (y - y.mean(-1, keepdim=True)).unsqueeze(-1)
    A = A - A.mean(-2, keepdim=True)
    lipschitz = torch.linalg.svdvals(A)[..., :1].unsqueeze(-1) ** 2 / n
    lipschitz = torch.where(lipschitz == 0, 1.0, lipschitz)
    w = torch.zeros(*X.shape[:-2], X.shape[-1], 1, dtype=X.dtype)
    for _ in range(n_steps):
        moved = w - A.mT @ (A @ w - r) / n / lipschitz
        w = soft_threshold(moved, penalty[..., None, None] / lipschitz)
    return w.squeeze(-1), (y.unsqueeze(-1) - X @ w).mean((-2, -1))


@right("lasso_ista")
def table_by_table(X, y, penalty, *, n_steps=1000):
    if X.ndim == 2:
        return ista(X, y, penalty, n_steps)
    if X.shape[:-1] != y.shape:
        raise ValueError("bad input")
    penalty = torch.as_tensor(penalty, dtype=X.dtype).expand(X.shape[0], *X.shape[1:-2])
    parts = [table_by_table(a, b, p, n_steps=n_steps) for a, b, p in zip(X, y, penalty, strict=True)]
    return torch.stack([w for w, _ in parts]), torch.stack([b for _, b in parts])


@right("lasso_ista")
def by_numpy(X, y, penalty, *, n_steps=1000):
    """In float64 and numpy, a table at a time; a column that hardly varies, for its size, is left out."""
    penalties = np.broadcast_to(examined(X, y, penalty, n_steps).double().numpy(), X.shape[:-2])
    w, b = np.zeros((*X.shape[:-2], X.shape[-1])), np.zeros(X.shape[:-2])
    for at in np.ndindex(*X.shape[:-2]):
        A, r = X[at].double().numpy(), y[at].double().numpy()
        varies = A.std(0) > 1e-12 * np.abs(A).max(0)
        if varies.any():
            C, n = (A - A.mean(0))[:, varies], len(r)
            lipschitz, found = np.linalg.eigvalsh(C.T @ C / n)[-1], np.zeros(varies.sum())
            for _ in range(n_steps):
                moved = found - C.T @ (C @ found - (r - r.mean())) / n / lipschitz
                found = np.sign(moved) * np.maximum(np.abs(moved) - penalties[at] / lipschitz, 0)
            w[(*at, varies)] = found
        b[at] = r.mean() - A.mean(0) @ w[at]
    return torch.tensor(w, dtype=X.dtype), torch.tensor(b, dtype=X.dtype)
