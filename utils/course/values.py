"""How the machinery copies, compares and words the values that go in and out of exercises."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_ENTRIES = 8


def snapshot(value: Any) -> Any:
    """Copy of ``value`` that later in-place changes can't reach; modules and other objects are passed through."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if isinstance(value, np.ndarray):
        return value.copy()
    if isinstance(value, Mapping):
        return {key: snapshot(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [snapshot(item) for item in value]
    return value


def tolerance(dtype: torch.dtype) -> tuple[float, float]:
    """(rtol, atol) that covers rounding in another order of operations, and no wrong formula.

    About a hundred times the spacing of the dtype, so that sums of a few hundred terms stay within it. For float64 the
    floor is wider, as libraries compute some functions less exactly than that; a wrong formula is off by far more.
    """
    if not dtype.is_floating_point and not dtype.is_complex:
        return 0.0, 0.0
    eps = torch.finfo(dtype).eps
    return max(100 * eps, 1e-10), max(50 * eps, 1e-11)


def same(a: Any, b: Any, rtol: float | None = None, atol: float | None = None) -> bool:
    """Whether two values are equal, numbers up to ``tolerance`` of the coarser dtype (NaN equals NaN)."""
    if isinstance(a, np.ndarray | np.generic):
        a = torch.as_tensor(np.asarray(a))
    if isinstance(b, np.ndarray | np.generic):
        b = torch.as_tensor(np.asarray(b))
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and bool(close_entries(a, b, rtol, atol).all())
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key], rtol, atol) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y, rtol, atol) for x, y in zip(a, b, strict=True))
    if _is_number(a) and _is_number(b):
        close = math.isclose(a, b, rel_tol=1e-6 if rtol is None else rtol, abs_tol=1e-9 if atol is None else atol)
        return close or (math.isnan(a) and math.isnan(b))
    return type(a) is type(b) and bool(a == b)


def close_entries(a: Tensor, b: Tensor, rtol: float | None = None, atol: float | None = None) -> Tensor:
    """Boolean tensor: where two tensors of one shape agree."""
    a, b = a.detach().cpu(), b.detach().cpu()
    default = max(tolerance(a.dtype), tolerance(b.dtype))
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    return torch.isclose(
        a.to(wide),
        b.to(wide),
        equal_nan=True,
        rtol=default[0] if rtol is None else rtol,
        atol=default[1] if atol is None else atol,
    )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def describe(value: Any, entries: bool = True) -> str:
    """A short text for a value: small ones whole (tensors only with ``entries``), large ones by type and shape."""
    if isinstance(value, Tensor):
        if entries and value.numel() <= MAX_ENTRIES and value.dim() <= 1:
            return f"{_row(value)} ({_kind(value)})"
        return (
            f"{_kind(value)} tensor of shape {tuple(value.shape)}"
            if entries
            else f"{_kind(value)} {tuple(value.shape)}"
        )
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array of shape {value.shape}"
    if isinstance(value, torch.Generator):
        return "a torch.Generator"
    if isinstance(value, torch.nn.Module):
        return f"a {type(value).__name__} module"
    if callable(value):
        return getattr(value, "__name__", type(value).__name__)
    if _holds_tensor(value):  # their repr would be long to make and to read
        return _container(value)
    text = repr(value)
    return text if len(text) <= 160 else f"{text[:150]} … ({type(value).__name__}, {len(text)} characters)"


def _holds_tensor(value: Any) -> bool:
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return any(isinstance(item, Tensor | np.ndarray) or _holds_tensor(item) for item in items)


def _container(value: Any) -> str:
    """The first two entries of a dict, list or tuple, and how many there are."""
    if isinstance(value, Mapping):
        parts, marks = [f"{key!r}: {describe(item)}" for key, item in list(value.items())[:2]], "{}"
    else:
        parts, marks = [describe(item) for item in value[:2]], "()" if isinstance(value, tuple) else "[]"
    more = [f"… {len(value)} entries"] if len(value) > 2 else []
    return f"{marks[0]}{', '.join(parts + more)}{marks[1]}"


def _kind(value: Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _number(value: Any) -> str:
    if isinstance(value, bool | int | complex):
        return str(value)
    return f"{value:.6g}"


def _row(value: Tensor) -> str:
    return "[" + ", ".join(_number(entry) for entry in value.detach().cpu().flatten().tolist()) + "]"


def first_difference(actual: Tensor, expected: Tensor, agree: Tensor) -> tuple[str, str, str]:
    """The row that holds the first differing entry, from both tensors, and a phrase on how much differs."""
    if not actual.dim():
        rows = [_number(actual.item()), _number(expected.item())]
    else:
        *row, column = (int(i) for i in (~agree).nonzero()[0])
        start = max(0, column - MAX_ENTRIES + 2)
        label = f"row {row[0] if len(row) == 1 else row} " if row else ""
        if actual.shape[-1] > MAX_ENTRIES:
            label += f"from entry {start} "
        rows = [
            f"{label}{'= ' if label else ''}{_row(t[tuple(row)][start : start + MAX_ENTRIES])}"
            for t in (actual, expected)
        ]
    gap = (actual.detach().cpu().to(torch.complex128) - expected.detach().cpu().to(torch.complex128)).abs()
    gap = gap[torch.isfinite(gap)]
    largest = f", the largest difference is {gap.max():.3g}" if gap.numel() and gap.max() > 0 else ""
    return rows[0], rows[1], f"{int((~agree).sum())} of {agree.numel()} entries differ{largest}"
