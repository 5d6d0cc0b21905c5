"""What the check of a case is written with: helpers that take a learner's experiment apart and run it again.

A case is an exercise whose function returns a design: a dict that says what was varied, how it was measured and what
follows from it. Its check runs the design again, and each helper here raises a ``Mismatch`` with a sentence for the
learner where the design does not hold::

    class TestWhatItLooksFor:
        exercise = "what_it_looks_for"

        def test_effect(self, answer):
            "the effect handed in is what your own measure gives"
            design = design_of(answer, KEYS, model)
            pairs = design["pairs"]
            expect_enough(pairs, 8, of="pairs")
            before = expect_function_of_input(design["measure"], [(model, first) for first, _ in pairs])
            after = expect_function_of_input(design["measure"], [(model, second) for _, second in pairs])
            expect_reported(design["effect"], [b - a for a, b in zip(before, after, strict=True)])
"""

import contextlib
import difflib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from scipy.special import stdtrit
from torch import Tensor, nn

from utils.course.checking import Answer, Mismatch, expect, plain
from utils.course.values import describe, is_number, same

Kind = str | tuple[str, ...]
CALLED_AGAIN = 12  # a measure that depends on more than its input gives it away in a few calls

_KINDS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "text": ("a text that says something", lambda value: isinstance(value, str) and bool(value.strip())),
    "number": ("a finite number", lambda value: _is_finite(value)),
    "list": ("a list", lambda value: isinstance(value, list | tuple)),
    "callable": ("a function", callable),
    "pair": (
        "a pair of finite numbers",
        lambda value: isinstance(value, list | tuple) and len(value) == 2 and all(_is_finite(plain(v)) for v in value),
    ),
}


def design_of(answer: Answer, keys: Mapping[str, Kind], *args: Any, **kwargs: Any) -> dict[str, Any]:
    """Call ``answer`` and take the design that it returns apart.

    Args:
        answer: The case's answer under test.
        keys: What kind of thing stands under each key: "text", "number", "list", "callable", "pair" (of numbers), or
            a tuple of words of which it must be one. A tensor or an array with dimensions counts as a list of rows.
        args, kwargs: What the answer is called with.

    Returns:
        The design with its keys in the order of ``keys``; functions run and report as calls of the answer do, numbers
        are Python's own, and pairs are tuples.

    Raises:
        Mismatch: If it is no dict, a key is missing, misspelt or unknown, or a value is of another kind.
    """
    design = answer(*args, **kwargs)
    answer.design = answer.last_call
    if not isinstance(design, Mapping):
        raise Mismatch(
            "A design is a dict, with what you varied, how you measured and what follows from it under its keys.",
            actual=type(design).__name__,
            returned=describe(design),
            expected=f"a dict with the keys {_listed(keys)}",
        )
    _expect_keys(design, keys)
    return {key: _of_kind(answer, key, kind, design[key]) for key, kind in keys.items()}


def _expect_keys(design: Mapping, keys: Mapping[str, Kind]) -> None:
    unknown = [key for key in design if key not in keys]
    for key in keys:
        if key not in design:
            near = difflib.get_close_matches(key, [u for u in unknown if isinstance(u, str)], n=1, cutoff=0.6)
            offer = f" It has {near[0]!r}: is that the one?" if near else ""
            raise Mismatch(
                f"Your design has no {key!r}.{offer}",
                actual=("missing", key, *near),
                returned=f"the keys {_listed(design)}",
                expected=f"the keys {_listed(keys)}",
            )
    if unknown:
        raise Mismatch(
            f"Nobody reads {unknown[0]!r}: a design has the keys {_listed(keys)} and no others.",
            actual=("unknown", unknown[0]),
            returned=f"the keys {_listed(design)}",
            expected=f"the keys {_listed(keys)}",
        )


def _of_kind(answer: Answer, key: str, kind: Kind, value: Any) -> Any:
    value = plain(value)
    if kind == "list" and isinstance(value, Tensor | np.ndarray):  # one with dimensions, as plain left it
        value = list(value)
    wanted, fits = (f"one of {_listed(kind)}", lambda v: v in kind) if isinstance(kind, tuple) else _KINDS[kind]
    if not fits(value):
        raise Mismatch(
            f"Under {key!r} your design needs {wanted}.",
            actual=(key, value if isinstance(value, str | int | float) else type(value).__name__),
            returned=f"{key!r}: {describe(value)}",
            expected=f"{key!r}: {wanted}",
        )
    if kind == "pair":
        return tuple(float(plain(number)) for number in value)
    return answer.with_parts(value, f"design[{key!r}]".replace("'", '"'))


@contextlib.contextmanager
def lent(*models: nn.Module) -> Iterator[None]:
    """For the duration, a learner's functions may run these models; afterwards they are as they were.

    A check may so keep its models from one run to the next, whatever was done to them.

    Raises:
        Mismatch: If nothing else was wrong, and a hook or a changed weight was left on one of them.
    """
    kept = [{name: weight.detach().clone() for name, weight in model.state_dict().items()} for model in models]
    try:
        yield
    finally:
        left = [name for model in models for name in _hooks_taken_off(model)]
        changed = [
            name for model, weights in zip(models, kept, strict=True) for name in _weights_restored(model, weights)
        ]
    for what, names in (("hooks", left), ("changed weights", changed)):
        names = list(dict.fromkeys(names))
        expect(
            not names,
            f"Your design leaves {what} on a model that it was lent: every later run is changed by them.",
            actual=what,
            returned=f"{what} at {', '.join(names[:3])}{' and elsewhere' if len(names) > 3 else ''}",
            expected=f"no {what}",
        )


def _hooks_taken_off(model: nn.Module) -> list[str]:
    left = []
    for name, module in model.named_modules():
        hooks = (module._forward_hooks, module._forward_pre_hooks, module._backward_hooks, module._backward_pre_hooks)
        if any(hooks):
            left.append(name or type(module).__name__)
        for kind in hooks:
            kind.clear()
    return left


def _weights_restored(model: nn.Module, weights: Mapping[str, Tensor]) -> list[str]:
    now = model.state_dict()
    changed = [name for name, weight in weights.items() if not torch.equal(weight, now[name])]
    with torch.no_grad():
        for name in changed:
            now[name].copy_(weights[name])
    return changed


def expect_function_of_input(measure: Callable, items: Sequence[Any]) -> list[float]:
    """Expect one finite number for each item, and the same one when the last are called again, in the reverse order.

    A measure that counts its calls, draws random numbers or remembers the item before it depends on more than what it
    was given, and its numbers can't be compared.

    Args:
        measure: The learner's function, as ``design_of`` returns it.
        items: What to call it with: a tuple of arguments for each call, or the one argument.

    Returns:
        The number for each item, in the order of the items.
    """
    calls = [item if isinstance(item, tuple) else (item,) for item in items]
    try:
        values = [_number(measure(*call)) for call in calls]
        for i in reversed(range(len(calls))[-CALLED_AGAIN:]):
            again = _number(measure(*calls[i]))
            expect(
                math.isclose(again, values[i], rel_tol=1e-5, abs_tol=1e-6),
                "Called again with the same input, your measure gives another number: it depends on more than its "
                "arguments (a random draw, or what it was called with before).",
                returned=f"{again:.6g} the second time",
                expected=f"{values[i]:.6g}, as the first time",
            )
    except Mismatch as mismatch:
        mismatch.call = mismatch.call or getattr(measure, "last_call", None)
        raise
    return values


def _number(value: Any) -> float:
    value = plain(value)
    expect(
        isinstance(value, int | float) and math.isfinite(value),
        "A measure returns one finite number for each input.",
        actual=type(value).__name__,
        returned=describe(value),
        expected="a finite number",
    )
    return float(value)


def estimate(values: Sequence[float]) -> tuple[float, float]:
    """Mean over independent units, and the half-width of its 95 % confidence interval (Student's t, n - 1 degrees).

    Raises:
        Mismatch: If there are fewer than two values, as one says nothing about how much units differ.
    """
    numbers = [float(plain(value)) for value in values]
    n = len(numbers)
    if n < 2:
        raise Mismatch(
            f"An interval needs at least two independent units, and your design has {n}.", actual=("units", n)
        )
    mean = math.fsum(numbers) / n
    variance = math.fsum((number - mean) ** 2 for number in numbers) / (n - 1)
    return mean, float(stdtrit(n - 1, 0.975)) * math.sqrt(variance / n)


def expect_reported(
    reported: tuple[float, float], values: Sequence[float], *, of: str = "", atol: float = 1e-9
) -> None:
    """Expect the (mean, half-width) handed in to be what the design gives when it is run again.

    The mean within a tenth of the interval's half-width or a thousandth of itself, whichever is more. The half-width
    may be a fifth too small, which lets 1.96 pass for Student's t from 7 units on, and a bootstrap; and a tenth too
    large, which keeps the units' standard deviation out from 8 on.

    Args:
        reported: Mean and half-width of its 95 % interval, as the learner states them.
        values: What the re-run gives, one number for each independent unit.
        of: The design's key that is reported on, where it has several such numbers.
        atol: How far off a number may be in any case, in the effect's units, as another batch rounds otherwise.
    """
    mean, half_width = estimate(values)
    said_mean, said_half_width = (float(plain(number)) for number in reported)
    rounding = max(1e-3 * abs(mean), atol)
    key, for_key, of_key = (f"{of!r}: ", f" for {of!r}", f" of {of!r}") if of else ("", "", "")
    numbers = {
        "returned": f"{key}{said_mean:.6g} ± {said_half_width:.6g}",
        "expected": f"{key}{mean:.6g} ± {half_width:.6g}, from {len(values)} units",
    }
    expect(
        abs(said_mean - mean) <= max(0.1 * half_width, rounding),
        f"Run again, your design gives a mean of {mean:.4g} ± {half_width:.2g}{for_key}, and you report "
        f"{said_mean:.4g}.",
        actual=("mean", said_mean - mean),
        **numbers,
    )
    expect(
        0.8 * half_width - rounding <= said_half_width <= 1.1 * half_width + rounding,
        f"The mean{of_key} agrees. The half-width of its 95 % interval over {len(values)} units is {half_width:.3g}, "
        f"and you report {said_half_width:.3g}.",
        actual=("half-width", said_half_width - half_width),
        **numbers,
    )


def expect_enough(units: Sequence[Any], at_least: int, of: str = "units") -> None:
    """Expect at least so many units, and none of them twice: a copy adds no evidence.

    Args:
        units: Pairs, prompts, seeds: whatever was drawn independently.
        at_least: How many there must be.
        of: What they are called in the sentence, in the plural.
    """
    for i, unit in enumerate(units):
        first = next(j for j, other in enumerate(units) if same(unit, other))
        expect(
            first == i,
            f"Two of your {of} are the same (numbers {first + 1} and {i + 1}). A copy adds no evidence; it only makes "
            "the interval look narrower than it is.",
            actual=("copies", of),
            returned=describe(unit),
        )
    expect(
        len(units) >= at_least,
        f"Your design has {len(units)} {of}, and this question needs at least {at_least}: with fewer, an effect can't "
        "be told from chance.",
        actual=(of, len(units)),
        returned=f"{len(units)} {of}",
        expected=f"at least {at_least}",
    )


def _is_finite(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)


def _listed(keys: Any) -> str:
    return ", ".join(repr(key) for key in keys)
