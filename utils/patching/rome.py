"""Rank-one model editing: an MLP's output matrix as a memory in which one entry is rewritten."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from utils.patching.hooks import run_with_cache, run_with_hooks


def rome_key_covariance(
    model: nn.Module, tokens: Int[Tensor, "n pos"], name: str, *, ridge: float = 1e-3, chunk: int = 64
) -> Float[Tensor, "d_mlp d_mlp"]:
    """How the keys of an MLP are spread: their second moment over all tokens of some documents.

    Args:
        model: Any module.
        tokens: Documents; every position counts as one key.
        name: Hook point of the MLP's hidden activations [batch, pos, d_mlp].
        ridge: Added to the diagonal, as a share of its mean, so that directions without any key have an inverse.
        chunk: How many documents are run at a time.

    Returns:
        The mean of k k^T over all keys k (their mean is not subtracted), plus the ridge; symmetric and positive
        definite, in the keys' dtype. Without a graph, so that no run is kept in memory.

    Raises:
        ValueError: If ``ridge`` is negative.

    Source: Meng et al. (2022), section 3.1: C = K K^T, here divided by the number of keys.
    """
    if ridge < 0:
        raise ValueError(f"ridge must not be negative, got {ridge}")
    total, count = 0.0, tokens.numel()
    with torch.no_grad():
        for part in tokens.split(chunk):
            keys = run_with_cache(model, part, [name])[1][name].flatten(0, 1)
            wide = keys.to(torch.promote_types(keys.dtype, torch.float32))  # in half precision the sum would overflow
            total = total + wide.T @ wide
    moment = total / count
    eye = torch.eye(len(moment), dtype=moment.dtype, device=moment.device)
    return (moment + ridge * moment.diagonal().mean() * eye).to(keys.dtype)


def rome_target_value(
    model: nn.Module,
    tokens: Int[Tensor, "batch pos"],
    subject: Int[Tensor, "batch"],
    ends: Int[Tensor, "batch"],
    target: int,
    name: str,
    *,
    keep: tuple[Int[Tensor, "n pos"], Int[Tensor, "n"], Int[Tensor, "n"]] | None = None,
    steps: int = 30,
    lr: float = 0.1,
    decay: float = 0.01,
    longest: float = 3.0,
) -> Float[Tensor, "d_model"]:
    """An MLP output at the subject's last token that makes the model say something else.

    The same new output is written at the subject of every prompt: the mean of the old ones over ``tokens``, plus a
    change, which is measured in lengths of that mean. The change is fitted with Adam from zero. The loss is the
    target's mean surprise, plus the mean KL(before || after) over the prompts to keep, plus ``decay`` times the
    change's squared length. After each of Adam's steps a change longer than ``longest`` is shortened to it, and the
    next step starts from the shortened one.

    The paper's own prompts to keep are one, "{subject} is a", and its divergence is KL(after || before).

    Args:
        model: Any module; its parameters get no gradients.
        tokens: Prompts about one subject that should end with the target.
        subject: Position of the subject's last token in each of them, counted from 0.
        ends: Where each prediction is read, counted from 0.
        target: The token to be said.
        name: Hook point of the MLP's output [batch, pos, d_model].
        keep: Prompts about the same subject, its positions and the ends, whose predictions should stay.
        steps, lr: Adam's steps and learning rate.
        decay, longest: What keeps the change short.

    Returns:
        The new output: the mean of the old ones, plus the change; without a graph.

    Raises:
        ValueError: If ``target`` is not in the vocabulary, if ``longest`` is not positive, or if a position is outside
            its prompts (negative ones are).
        RuntimeError: Under ``torch.inference_mode``, where nothing can be fitted.

    Source: Meng et al. (2022), equation 4.
    """
    # Given: the inputs are checked, and the old predictions of the prompts to keep are there.
    if torch.is_inference_mode_enabled():
        raise RuntimeError("a value is fitted with gradients: call this outside torch.inference_mode")
    for prompts, *places in [(tokens, subject, ends), *([] if keep is None else [keep])]:
        for at in places:
            if bool(((at < 0) | (at >= prompts.shape[1])).any()):
                raise ValueError(f"positions must be from 0 to {prompts.shape[1] - 1}, got {at.tolist()}")
    with torch.no_grad():
        logits, cache = run_with_cache(model, tokens, [name])
        if keep is not None:
            before = model(keep[0])[torch.arange(len(keep[0]), device=tokens.device), keep[2]].log_softmax(-1)
    if not 0 <= target < logits.shape[-1] or longest <= 0:
        raise ValueError(f"target {target} must be a token of the vocabulary and longest {longest} positive")
    # Yours: the old output, and the change, step by step.
    old = cache[name][torch.arange(len(tokens), device=tokens.device), subject].mean(0)
    change = torch.zeros_like(old, requires_grad=True)
    optimizer = torch.optim.Adam([change], lr=lr)

    def predictions(prompts: Tensor, at: Tensor, end: Tensor) -> Tensor:
        rows, value = torch.arange(len(prompts), device=prompts.device), old + old.norm() * change
        write = (name, lambda output: output.index_put((rows, at), value.expand(len(rows), -1)))
        return run_with_hooks(model, prompts, [write])[rows, end].log_softmax(-1)

    for _ in range(steps):
        with torch.enable_grad():
            loss = -predictions(tokens, subject, ends)[:, target].mean() + decay * change.square().sum()
            if keep is not None:
                loss = loss + (before.exp() * (before - predictions(*keep))).sum(-1).mean()
            (change.grad,) = torch.autograd.grad(loss, [change])
        optimizer.step()
        with torch.no_grad():
            change *= (longest / change.norm()).clamp(max=1.0)
    return (old + old.norm() * change).detach()


def rome_update(
    W_out: Float[Tensor, "d_mlp d_model"],
    b_out: Float[Tensor, "d_model"],
    covariance: Float[Tensor, "d_mlp d_mlp"],
    key: Float[Tensor, "d_mlp"],
    value: Float[Tensor, "d_model"],
) -> Float[Tensor, "d_mlp d_model"]:
    """The MLP output matrix that gives ``value`` for ``key`` and changes what other keys give as little as possible.

    "Little" is the mean squared change over keys with this covariance.

    Args:
        W_out, b_out: Output matrix and bias (zeros for an MLP that has none): the MLP writes key @ W_out + b_out.
        covariance: Second moment of the keys, invertible.
        key: The hidden activations that stand for the subject; a short one is a key, too.
        value: What the MLP shall write for them.

    Returns:
        The new matrix, in ``W_out``'s dtype; the change is of rank one.

    Raises:
        ValueError: If all entries of the key are zero.

    Source: Meng et al. (2022), equation 2, with keys as rows and the bias taken into account:
    W' = W + (C^-1 k) (v - k W - b)^T / (k^T C^-1 k).
    """
    if not bool(key.any()):
        raise ValueError("key is zero: no matrix can give it a value")
    dtype = torch.promote_types(W_out.dtype, torch.float32)  # linalg.solve has no half precision
    W, b, C, k, v = (x.to(dtype) for x in (W_out, b_out, covariance, key, value))
    direction = torch.linalg.solve(C, k)
    return (W + torch.outer(direction, v - k @ W - b) / (direction @ k)).to(W_out.dtype)
