"""How the machinery copies, compares and words the values that go in and out of exercises."""

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

MAX_ENTRIES = 8
MAX_TEXT = 160
DIGITS = (6, 9, 17)  # enough to read, to tell float32 values apart, and to tell float64 values apart


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
    """Whether two values are equal, numbers up to ``tolerance`` of the coarser dtype (NaN equals NaN).

    A numpy number equals the number that it holds, and the tensor without dimensions that holds it.
    """
    if {type(a), type(b)} & {bool, int, float, complex}:
        a, b = (plain(x) if isinstance(x, np.generic) else x for x in (a, b))
    a, b = _tensor(a), _tensor(b)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.shape == b.shape and (_identical(a, b) or bool(close_entries(a, b, rtol, atol).all()))
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        return a.keys() == b.keys() and all(same(a[key], b[key], rtol, atol) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(same(x, y, rtol, atol) for x, y in zip(a, b, strict=True))
    if is_number(a) and is_number(b):
        return _same_number(a, b, 1e-6 if rtol is None else rtol, 1e-9 if atol is None else atol)
    if type(a) is not type(b):
        return False
    try:
        return bool(a == b)
    except Exception:  # an object of the learner's, or of a library, that can't be compared, equals nothing
        return False


def _identical(a: Tensor, b: Tensor) -> bool:
    """Quickly, whether two tensors of one shape hold the same; where this can't tell, they are compared at leisure."""
    plain_memory = a.layout == b.layout == torch.strided and not a.is_meta and a.device == b.device
    return plain_memory and a.dtype == b.dtype and torch.equal(a, b)


def _same_number(a: int | float, b: int | float, rtol: float, atol: float) -> bool:
    try:
        return math.isclose(a, b, rel_tol=rtol, abs_tol=atol) or (math.isnan(a) and math.isnan(b))
    except OverflowError:  # an int too large for a float
        return a == b


def _tensor(value: Any) -> Any:
    """A numpy array or number as a tensor, where it holds what tensors hold; all else as it is."""
    if isinstance(value, np.ndarray | np.generic):
        return torch.as_tensor(np.asarray(value)) if value.dtype.kind in "biufc" else value.tolist()
    return value


def plain(value: Any) -> Any:
    """A zero-dimensional tensor or numpy number counts as the number it holds."""
    is_scalar = isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0
    return value.item() if is_scalar and not (isinstance(value, Tensor) and value.is_meta) else value


def close_entries(a: Tensor, b: Tensor, rtol: float | None = None, atol: float | None = None) -> Tensor:
    """Boolean tensor: where two tensors of one shape agree. On the device ``meta`` there are no values to compare."""
    if a.is_meta or b.is_meta:
        return torch.full(a.shape, a.device == b.device and a.dtype == b.dtype)
    a, b = a.detach().cpu(), b.detach().cpu()
    if rtol is None and atol is None and tolerance(a.dtype) == tolerance(b.dtype) == (0.0, 0.0):
        return a == b
    default = max(tolerance(a.dtype), tolerance(b.dtype))
    wide = torch.complex128 if a.is_complex() or b.is_complex() else torch.float64
    return torch.isclose(
        a.to(wide),
        b.to(wide),
        equal_nan=True,
        rtol=default[0] if rtol is None else rtol,
        atol=default[1] if atol is None else atol,
    )


def article(noun: str) -> str:
    """The noun with its indefinite article, by its first letter: a ValueError, an IndexError."""
    return f"an {noun}" if noun[:1].lower() in "aeiou" else f"a {noun}"


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def text_of(value: Any, to_text: Callable[[Any], str] = repr, limit: int = MAX_TEXT) -> str:
    """``repr`` (or ``str``) of a value that may be the learner's, cut at ``limit``; one that fails breaks nothing."""
    try:
        text = to_text(value)
    except (Exception, SystemExit) as error:
        if isinstance(value, int):
            return f"a number of more than {sys.get_int_max_str_digits()} digits"
        return f"{article(type(value).__name__)} that can't be printed ({type(error).__name__})"
    return text if len(text) <= limit else f"{text[: limit - 10]} … ({type(value).__name__}, {len(text)} characters)"


def describe(value: Any, entries: bool = True) -> str:
    """A short text for a value: small ones whole, large ones by type and shape.

    Args:
        value: Anything, also something that can't be printed.
        entries: Whether the entries of short floating-point tensors are of interest; those of others always are, as
            they are positions, tokens or masks.
    """
    try:
        return _describe(value, entries)
    except (Exception, SystemExit) as error:
        return f"{article(type(value).__name__)} that can't be described ({type(error).__name__})"


def _describe(value: Any, entries: bool) -> str:
    if isinstance(value, Tensor):
        return _describe_tensor(value, entries)
    if isinstance(value, np.ndarray):
        return f"{value.dtype} array of shape {value.shape}"
    if isinstance(value, torch.Generator):
        return "a torch.Generator"
    if isinstance(value, torch.nn.Module):
        return f"{article(type(value).__name__)} module"
    if isinstance(value, torch.optim.Optimizer):
        return f"the optimizer {type(value).__name__}"
    if callable(value):
        return str(getattr(value, "__name__", type(value).__name__))
    if _needs_words(value):
        return _container(value)
    return text_of(value)


def _describe_tensor(value: Tensor, entries: bool) -> str:
    kind = str(value.dtype).removeprefix("torch.")
    where = "" if value.device.type == "cpu" else f" on {value.device}"
    whole = not value.is_floating_point()
    short = value.numel() <= MAX_ENTRIES and value.dim() <= (2 if whole else 1) and not value.is_meta
    if short and (entries or whole or not value.dim()):
        return f"{_numbers(value.tolist())} ({kind}{where})"
    return f"{kind} tensor of shape {tuple(value.shape)}{where}" if entries else f"{kind} {tuple(value.shape)}{where}"


def _needs_words(value: Any) -> bool:
    """Whether a dict, list or tuple holds something whose ``repr`` would be long to make and to read."""
    items = value.values() if isinstance(value, Mapping) else value if isinstance(value, list | tuple) else ()
    return any(isinstance(item, Tensor | np.ndarray) or callable(item) or _needs_words(item) for item in items)


def _container(value: Any) -> str:
    """The first two entries of a dict, list or tuple, and how many there are."""
    if isinstance(value, Mapping):
        parts, marks = [f"{text_of(key)}: {describe(item)}" for key, item in list(value.items())[:2]], "{}"
    else:
        parts, marks = [describe(item) for item in value[:2]], "()" if isinstance(value, tuple) else "[]"
    more = [f"… {len(value)} entries"] if len(value) > 2 else []
    return f"{marks[0]}{', '.join(parts + more)}{marks[1]}"


def _numbers(value: Any, digits: int = DIGITS[0]) -> str:
    """Nested lists of numbers as text."""
    if isinstance(value, list):
        return f"[{', '.join(_numbers(item, digits) for item in value)}]"
    if isinstance(value, bool | int):
        return str(value)
    return f"{value:.{digits}g}"


def contrast(actual: Any, expected: Any) -> tuple[str, str]:
    """Texts for two values that differ, which differ as well."""
    actual, expected = plain(actual), plain(expected)
    texts = tuple(describe(value) for value in (actual, expected))
    if isinstance(actual, str) and isinstance(expected, str) and max(len(actual), len(expected)) > MAX_TEXT:
        both = zip(actual, expected, strict=False)
        first = next((i for i, (a, b) in enumerate(both) if a != b), min(len(actual), len(expected)))
        start = max(0, first - 20)
        texts = tuple(f"from character {start}: {value[start : start + 80]!r}" for value in (actual, expected))
    if texts[0] == texts[1]:
        texts = tuple(f"{describe(value)} ({type(value).__qualname__})" for value in (actual, expected))
    return texts if texts[0] != texts[1] else (f"{texts[0]}, another one that reads the same", texts[1])


def first_difference(actual: Tensor, expected: Tensor, agree: Tensor) -> tuple[str, str, str]:
    """The row that holds the first differing entry, from both tensors, and a phrase on how much differs.

    With as many digits as it takes for the two rows to differ.
    """
    if not actual.dim():
        label, rows = "", (actual.item(), expected.item())
    else:
        *row, column = (int(i) for i in (~agree).nonzero()[0])
        start = max(0, column - MAX_ENTRIES + 2)
        label = f"row {row[0] if len(row) == 1 else row} " if row else ""
        if actual.shape[-1] > MAX_ENTRIES:
            label += f"from entry {start} "
        label += "= " if label else ""
        rows = tuple(t.detach()[tuple(row)][start : start + MAX_ENTRIES].tolist() for t in (actual, expected))
    texts = [[_numbers(row, digits) for row in rows] for digits in DIGITS]
    returned, wanted = next((pair for pair in texts if pair[0] != pair[1]), texts[-1])
    gap = (actual.detach().cpu().to(torch.complex128) - expected.detach().cpu().to(torch.complex128)).abs()
    # Where only one of the two is NaN or infinite, the difference is no number, and the largest of the others no news.
    broken = int((~agree & ~torch.isfinite(gap)).sum())
    gap = gap[torch.isfinite(gap)]
    by = f"{gap.max():.3g}" if gap.numel() and gap.max() > 0 else ""
    if agree.numel() == 1:
        summary = "the value differs" + (", NaN or infinity on one side" if broken else f" by {by}" if by else "")
    else:
        largest = f", the largest difference is {by}" if by else ""
        largest = f", {broken} of them with NaN or infinity on one side" if broken else largest
        summary = f"{int((~agree).sum())} of {agree.numel()} entries differ{largest}"
    return f"{label}{returned}", f"{label}{wanted}", summary
