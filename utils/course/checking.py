"""What a check is written with: the answer under test, and expectations that explain themselves.

A check is a method of a plain pytest class that names its exercise. It may ask for three things by argument name:
``answer`` (the function or class under test), ``reference`` (ours) and ``rng`` (a freshly seeded generator)::

    class TestCausalMask:
        exercise = "causal_mask"

        def test_values(self, answer, reference):
            "zeros on and below the diagonal, -inf above"
            for n_ctx in (1, 2, 7):
                expect_close(answer(n_ctx), reference(n_ctx))

Everything of the learner's runs inside a call of ``answer`` (or of a module it made), so that a report can say what
was called, what came back, and whose fault an exception is.
"""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.course.values import close_entries, describe, first_difference, same, snapshot


class Mismatch(AssertionError):
    """A check's verdict that an answer is wrong: a sentence, and the value it is about."""

    def __init__(self, note: str, *, actual: Any = None, returned: str = "", expected: str = ""):
        super().__init__(note)
        self.note, self.actual, self.returned, self.expected = note, snapshot(actual), returned, expected


class AnswerRaised(Exception):
    """The learner's own code raised; the cause is their exception. ``wanted`` names the kind that was asked for."""

    wanted = ""


class NotAttempted(Exception):
    """The stub is still a stub."""


@dataclass
class Call:
    text: str
    result: Any = None
    returned: bool = False


class Answer:
    """The function or class under test. Calling it calls the learner's code and keeps a record for the report."""

    def __init__(self, obj: Callable, reference: Callable | None = None, may_change_inputs: bool = False):
        self.obj = obj
        self.reference = reference if reference is not None else obj
        self.may_change_inputs = may_change_inputs
        self.last_call: Call | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        result = self._run(self.obj, _call_text(self.reference, args, kwargs), args, kwargs)
        made_module = inspect.isclass(self.reference) and isinstance(result, nn.Module)
        return ModuleAnswer(self, result, self.last_call.text) if made_module else result

    def _run(self, function: Callable, text: str, args: tuple, kwargs: dict) -> Any:
        self.last_call = Call(text)
        before, settings, asked = snapshot([args, kwargs]), _settings(), _asks_for_gradients(args, kwargs)
        try:
            result = function(*args, **kwargs)
        except Exception as error:
            # A stub's NotImplementedError says nothing; PyTorch's, for an operation it lacks, says what is missing.
            untouched = isinstance(error, NotImplementedError) and not error.args
            raise (NotAttempted if untouched else AnswerRaised) from error
        self.last_call.result, self.last_call.returned = result, True
        if not self.may_change_inputs and not same(snapshot([args, kwargs]), before, rtol=0, atol=0):
            raise Mismatch(
                "Your function changed one of its inputs in place; work on a copy "
                "(no `+=`, `x[...] =` or methods ending in `_` on an argument).",
                actual="changed input",
            )
        if not self.may_change_inputs and _asks_for_gradients(args, kwargs) != asked:
            raise Mismatch(
                "Your function changed `requires_grad` of one of its inputs; ask a copy for gradients "
                "(`x.detach().clone().requires_grad_()`).",
                actual="changed requires_grad",
            )
        _expect_settings(settings)
        return result


class ModuleAnswer:
    """A module that the learner's class built. Calls, weights and gradients go through here, never around it."""

    def __init__(self, answer: Answer, module: nn.Module, label: str):
        self._answer, self._module, self._label = answer, module, label

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        arguments = _arguments_text(self._module.forward, args, kwargs)
        return self._answer._run(self._module, f"module = {self._label}; module({arguments})", args, kwargs)

    def state(self) -> dict[str, Tensor]:
        """Copies of all parameters and buffers by name."""
        return snapshot(self._module.state_dict())

    def parameter_names(self) -> list[str]:
        return [name for name, _ in self._module.named_parameters()]

    def load(self, state: dict[str, Tensor]) -> None:
        """Load weights; a name or shape that doesn't fit is a mismatch that lists the names."""
        own = self._module.state_dict()
        wanted = {name: tuple(value.shape) for name, value in state.items()}
        found = {name: tuple(value.shape) for name, value in own.items()}
        if wanted != found:
            differing = sorted(set(wanted.items()) ^ set(found.items()))
            first = differing[0][0]
            raise Mismatch(
                "The module's parameters must have the standard names and shapes.",
                actual=sorted(found.items()),
                returned=f"{first}: {found.get(first, 'missing')}",
                expected=f"{first}: {wanted.get(first, 'no such name')}",
            )
        self._module.load_state_dict(state)

    def parameters(self) -> list[Tensor]:
        return list(self._module.parameters())


def _settings() -> dict[str, Any]:
    """What holds for all code of the process, and is none of an answer's business."""
    return {
        "`torch.is_grad_enabled()`": torch.is_grad_enabled(),
        "`torch.get_default_dtype()`": torch.get_default_dtype(),
        "the seed of torch's global random state": torch.initial_seed(),
    }


def _expect_settings(before: dict[str, Any]) -> None:
    """Expect that a call left the settings alone; the runner puts them back."""
    for name, value in _settings().items():
        if value != before[name]:
            raise Mismatch(
                f"Your code changed {name} and left it so: all that runs afterwards computes something else. Use a "
                "`with` block that puts it back, or a generator of your own.",
                actual=name,
                returned="a change to the whole process",
            )


def _asks_for_gradients(*values: Any) -> list[bool]:
    """Whether each tensor in nested arguments has ``requires_grad``."""
    found = []
    for value in values:
        if isinstance(value, Tensor):
            found.append(value.requires_grad)
        elif isinstance(value, Mapping):
            found += _asks_for_gradients(*value.values())
        elif isinstance(value, list | tuple):
            found += _asks_for_gradients(*value)
    return found


def _call_text(function: Callable, args: tuple, kwargs: dict) -> str:
    return f"{getattr(function, '__name__', 'answer')}({_arguments_text(function, args, kwargs)})"


def _arguments_text(function: Callable, args: tuple, kwargs: dict) -> str:
    names = _positional_names(function)[: len(args)]
    named = [*zip(names + [""] * (len(args) - len(names)), args, strict=True), *kwargs.items()]
    # The entries of one short tensor help to redo a case on paper; those of many hide the rest of the call.
    few = sum(isinstance(value, Tensor) for _, value in named) < 2
    return ", ".join((f"{name}=" if name else "") + describe(value, entries=few) for name, value in named)


def _positional_names(function: Callable) -> list[str]:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # some builtins have no signature
        return []
    return [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]


def expect(condition: Any, note: str, *, actual: Any = None, returned: str = "", expected: str = "") -> None:
    """Expect a property; ``note`` is the sentence for the learner if it does not hold."""
    if not bool(condition):
        raise Mismatch(
            note, actual=actual, returned=returned or ("" if actual is None else describe(actual)), expected=expected
        )


def expect_shape(actual: Any, shape: tuple[int, ...], note: str = "The result has the wrong shape.") -> None:
    """Expect a tensor of this shape."""
    if not isinstance(actual, Tensor):
        raise Mismatch(
            f"The result should be a tensor, not {_article(actual)}.",
            actual=actual,
            returned=describe(actual),
            expected=f"a tensor of shape {tuple(shape)}",
        )
    if tuple(actual.shape) != tuple(shape):
        raise Mismatch(note, actual=actual, returned=f"shape {tuple(actual.shape)}", expected=f"shape {tuple(shape)}")


def expect_close(
    actual: Any,
    expected: Any,
    *,
    note: str = "",
    rtol: float | None = None,
    atol: float | None = None,
    dtype: bool = False,
) -> None:
    """Expect the same value: type, shape, then entries (tolerance by dtype unless given; NaN equals NaN).

    Args:
        actual, expected: Tensors, numbers, strings, or lists, tuples and dicts of them.
        note: What it means when they differ, for the learner.
        rtol, atol: Wider tolerances, where an exercise's arithmetic needs them.
        dtype: Whether a tensor's dtype must be the expected one too.
    """
    if isinstance(expected, dict) and isinstance(actual, dict):
        if list(sorted(actual, key=str)) != list(sorted(expected, key=str)):
            raise Mismatch(
                note or "The keys differ.",
                actual=actual,
                returned=describe(list(actual)),
                expected=describe(list(expected)),
            )
        for key in expected:
            expect_close(
                actual[key],
                expected[key],
                note=note or f"The entry {key!r} differs.",
                rtol=rtol,
                atol=atol,
                dtype=dtype,
            )
    elif isinstance(expected, tuple) and isinstance(actual, tuple) and len(actual) == len(expected):
        for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
            expect_close(
                a, b, note=note or f"Part {i} of the returned tuple differs.", rtol=rtol, atol=atol, dtype=dtype
            )
    elif isinstance(expected, Tensor):
        expect_shape(actual, tuple(expected.shape))
        _expect_close_tensors(actual, expected, note, rtol, atol, dtype)
    elif isinstance(expected, list) and isinstance(actual, list | tuple) and len(actual) == len(expected):
        differing = [i for i, pair in enumerate(zip(actual, expected, strict=True)) if not same(*pair, rtol, atol)]
        if differing:
            first = differing[0]
            raise Mismatch(
                note or f"{len(differing)} of {len(expected)} entries differ.",
                actual=actual,
                returned=f"entry {first} = {describe(actual[first])}",
                expected=f"entry {first} = {describe(expected[first])}",
            )
    elif not same(_plain(actual), expected, rtol, atol):
        raise Mismatch(
            note or "The value differs.", actual=actual, returned=describe(actual), expected=describe(expected)
        )


def _expect_close_tensors(
    actual: Tensor, expected: Tensor, note: str, rtol: float | None, atol: float | None, dtype: bool
) -> None:
    if dtype and actual.dtype != expected.dtype:
        raise Mismatch(
            note or "The dtype should follow the inputs.",
            actual=str(actual.dtype),
            returned=str(actual.dtype),
            expected=str(expected.dtype),
        )
    if actual.device != expected.device:
        raise Mismatch(
            "The result should be on the device of the inputs.",
            actual=str(actual.device),
            returned=str(actual.device),
            expected=str(expected.device),
        )
    agree = close_entries(actual, expected, rtol, atol)
    if not bool(agree.all()):
        returned, wanted, summary = first_difference(actual, expected, agree)
        raise Mismatch(
            f"{note.rstrip('.')} ({summary})." if note else f"{summary[0].upper()}{summary[1:]}.",
            actual=actual,
            returned=returned,
            expected=wanted,
        )


def _plain(value: Any) -> Any:
    """A zero-dimensional tensor or numpy number counts as the number it holds."""
    return value.item() if isinstance(value, Tensor | np.ndarray | np.generic) and value.ndim == 0 else value


def expect_raises(error: type[Exception], answer: Callable, *args: Any, **kwargs: Any) -> None:
    """Expect bad input to be refused with ``error``; an answer that goes on regardless, or raises another, fails."""
    try:
        result = answer(*args, **kwargs)
    except AnswerRaised as raised:
        if isinstance(raised.__cause__, error):
            return
        raised.wanted = error.__name__
        raise
    raise Mismatch(
        f"Bad input should raise a {error.__name__}, and this went through.",
        actual=result,
        returned=describe(result),
        expected=f"{error.__name__}",
    )


def expect_same_gradients(
    answer: Callable,
    reference: Callable,
    *args: Any,
    rng: torch.Generator,
    rtol: float | None = None,
    atol: float | None = None,
    **kwargs: Any,
) -> None:
    """Expect the gradients of a random projection of the output to agree, for every floating-point tensor argument.

    A ``detach``, a ``.data``, a rounding or a ``torch.no_grad`` in the answer shows here and nowhere else.
    """
    expected_out = reference(*args, **kwargs).detach()
    weights = torch.randn(expected_out.shape, generator=rng, dtype=expected_out.dtype)
    names = _positional_names(reference)
    expected_gradients = _gradients(reference, args, kwargs, weights)
    for position, actual in _gradients(answer, args, kwargs, weights).items():
        expected = expected_gradients[position]
        name = names[position] if position < len(names) else f"argument {position + 1}"
        if expected is None:
            continue
        if actual is None:
            raise Mismatch(
                f"No gradient reaches {name}: something in your code cuts the graph "
                "(`detach`, `.data`, `.item()`, `torch.no_grad` or a new tensor made from numbers).",
                actual="cut graph",
            )
        expect_close(actual, expected, note=f"The gradient for {name} differs.", rtol=rtol, atol=atol)


def _gradients(function: Callable, args: tuple, kwargs: dict, weights: Tensor) -> dict[int, Tensor | None]:
    """Gradient of the weighted sum of the output, by position of the floating-point tensor arguments."""
    args = [a.detach().clone().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args]
    out = function(*args, **kwargs)
    expect_shape(out, tuple(weights.shape))
    inputs = {i: a for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad}
    if not out.requires_grad:
        return dict.fromkeys(inputs)
    try:
        found = torch.autograd.grad((out * weights).sum(), list(inputs.values()), allow_unused=True)
    except RuntimeError as error:  # the answer changed in place what autograd needs
        raise Mismatch(f"The result can't be differentiated: {error}", actual="no gradient") from error
    return dict(zip(inputs, found, strict=True))


def _article(value: Any) -> str:
    return "None (is a `return` missing?)" if value is None else f"a {type(value).__name__}"
