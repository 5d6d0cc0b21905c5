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

import contextlib
import inspect
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MethodType
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from utils.course.containment import Clock, Ended, Interrupted, Overtime
from utils.course.values import (
    MAX_TEXT,
    article,
    close_entries,
    contrast,
    describe,
    first_difference,
    plain,
    same,
    snapshot,
)

CALLS_KEPT = 1000
DIFFERS = "The value differs."


class Mismatch(AssertionError):
    """A check's verdict that an answer is wrong: a sentence, and the value it is about.

    What the report needs to find the call that went wrong: ``value`` is the object itself, ``series`` the list that a
    check collected it in, with its place there, and ``call`` the call, where it is known. ``part`` says where in a
    larger result the value stands.
    """

    def __init__(self, note: str, *, actual: Any = None, returned: str = "", expected: str = ""):
        super().__init__(note)
        self.note, self.actual, self.returned, self.expected = note, snapshot(actual), returned, expected
        self.value, self.part = actual, ""
        self.series: tuple[list, int] | None = None
        self.call: Call | None = None

    def inside(self, part: str) -> "Mismatch":
        """The same mismatch, told as one of a part of a larger result."""
        self.part = f"{part} {self.part}"
        self.returned, self.expected = (f"{part}: {text}" if text else "" for text in (self.returned, self.expected))
        return self


class AnswerRaised(Exception):
    """The learner's own code raised; the cause is their exception. ``wanted`` names the kind that was asked for."""

    wanted = ""


class NotAttempted(Exception):
    """The stub is still a stub."""


@dataclass(eq=False)
class Call:
    text: str
    result: Any = None
    returned: bool = False


class Answer:
    """The function or class under test. Calling it calls the learner's code and keeps a record for the report.

    Args:
        obj: The learner's function or class.
        reference: Ours, which names the arguments; ``obj`` if not given.
        may_change_inputs: Whether changing an input in place is part of the exercise.
    """

    latest: list[tuple[str, Any]] = []  # the named arguments of the latest call of any answer

    def __init__(self, obj: Callable, reference: Callable | None = None, may_change_inputs: bool = False):
        self.obj = obj
        self.reference = reference if reference is not None else obj
        self.may_change_inputs = may_change_inputs
        self.clock: Clock | None = None  # what counts the time of the learner's code
        self.calls: deque[Call] = deque(maxlen=CALLS_KEPT)
        self.n_calls = 0
        self.design: Call | None = None  # of a case: the call that returned the design, whose parts are called later

    @property
    def last_call(self) -> Call | None:
        return self.calls[-1] if self.calls else None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        name = getattr(self.reference, "__name__", "answer")
        result = self._run(self.obj, name, self.reference, args, kwargs)
        made_module = inspect.isclass(self.reference) and isinstance(result, nn.Module)
        return ModuleAnswer(self, result, self.last_call.text) if made_module else result

    def with_parts(self, value: Any, label: str) -> Any:
        """``value`` with every function in it, also in lists and dicts, wrapped: calls of it run like the answer's."""
        if isinstance(value, Mapping):
            return {key: self.with_parts(item, f"{label}[{describe(key)}]") for key, item in value.items()}
        if isinstance(value, list | tuple):
            parts = [self.with_parts(item, f"{label}[{i}]") for i, item in enumerate(value)]
            return tuple(parts) if isinstance(value, tuple) else parts
        return AnswerPart(self, value, label) if callable(value) else value

    def _run(self, function: Callable, label: str, signature: Callable, args: tuple, kwargs: dict) -> Any:
        """Call the learner's ``function``, and expect that it leaves its inputs and the process's settings alone."""
        Answer.latest = named = _named_arguments(signature, args, kwargs)
        call = Call(f"{label}({_arguments_text(named)})")
        self.calls.append(call)
        self.n_calls += 1
        settings = getattr(function, "settings", _settings)  # an answer in another process tells of that one's
        before = snapshot([value for _, value in named]), _asks_for_gradients(named), settings()
        try:
            with self.clock.theirs() if self.clock else contextlib.nullcontext():
                call.result = function(*args, **kwargs)
        except (Mismatch, Overtime, Ended, Interrupted):  # a check's own function that the answer called; the time; …
            raise
        except BaseException as error:  # also sys.exit() and the like
            # A stub's NotImplementedError says nothing; PyTorch's, for an operation it lacks, says what is missing.
            untouched = isinstance(error, NotImplementedError) and not error.args
            raise (NotAttempted if untouched else AnswerRaised) from error
        call.returned = True
        try:
            if not self.may_change_inputs:
                _expect_unchanged(named, *before[:2])
            _expect_settings(before[2], settings())
        except Mismatch as mismatch:
            mismatch.call = call
            raise
        return call.result

    def call_of(self, mismatch: Mismatch) -> Call | None:
        """The call that returned the value a mismatch is about, as far as that can be told; the latest of several.

        In a case it is the one that returned the design, where nothing else is known.
        """
        if mismatch.call is not None:
            return mismatch.call
        if mismatch.series is not None:
            values, place = mismatch.series
            calls = list(self.calls)[-len(values) :]
            if len(calls) == len(values) and all(c.result is v for c, v in zip(calls, values, strict=True)):
                return calls[place]
        for belongs in (_holds, _shares_memory):
            for call in reversed(self.calls if mismatch.value is not None else ()):
                if call.returned and belongs(call.result, mismatch.value):
                    return call
        return self.design


class ModuleAnswer:
    """A module that the learner's class built. Calls, weights and gradients go through here, never around it."""

    def __init__(self, answer: Answer, module: nn.Module, label: str):
        self._answer, self._module, self._label = answer, module, label

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        label, names = f"module = {self._label}; module", MethodType(self._answer.reference.forward, self._module)
        return self._answer._run(self._module, label, names, args, kwargs)

    def method(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """Call another method than the module itself; the reference names its arguments."""
        elsewhere = getattr(type(self._module), "remote_method", None)  # of a module in another process
        if elsewhere:
            function = elsewhere(self._module, name)
        else:

            def function(*args: Any, **kwargs: Any) -> Any:
                return getattr(self._module, name)(*args, **kwargs)

        label = f"module = {self._label}; module.{name}"
        signature = MethodType(getattr(self._answer.reference, name), self._module)
        return self._answer._run(function, label, signature, args, kwargs)

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


class AnswerPart:
    """A function that the learner's answer returned. Its calls run, are recorded and fail as those of the answer."""

    def __init__(self, answer: Answer, function: Callable, label: str):
        self._answer, self._function, self.__name__ = answer, function, label

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self._answer._run(self._function, self.__name__, self._function, args, kwargs)

    @property
    def last_call(self) -> Call | None:
        return self._answer.last_call


def _settings() -> dict[str, Any]:
    """What holds for all code of the process, and is none of an answer's business."""
    return {
        "`torch.is_grad_enabled()`": torch.is_grad_enabled(),
        "`torch.get_default_dtype()`": torch.get_default_dtype(),
        "`torch.get_default_device()`": torch.get_default_device(),
        "the seed of torch's global random state": torch.initial_seed(),
    }


def _expect_settings(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Expect that a call left the settings alone; the runner puts them back."""
    for name, value in after.items():
        if value != before[name]:
            raise Mismatch(
                f"Your code changed {name} and left it so: all that runs afterwards computes something else. Use a "
                "`with` block that puts it back, or a generator of your own.",
                actual=name,
                returned="a change to the whole process",
            )


def _expect_unchanged(named: list[tuple[str, Any]], before: list[Any], asked: list[str]) -> None:
    """Expect that a call changed none of its arguments, nor which of them ask for gradients."""
    for (name, now), old in zip(named, before, strict=True):
        now = snapshot(now)
        if not same(now, old, rtol=0, atol=0):
            name, now, old = _innermost(name, now, old)
            found, was = _told_apart(now, old)
            raise Mismatch(
                f"Your function changed its input {_quoted(name)} in place; work on a copy "
                "(no `+=`, `x[...] =` or methods ending in `_` on an argument).",
                actual=("changed input", name),
                returned=f"{name}, afterwards: {found}",
                expected=f"{name}, as it was: {was}",
            )
    asks = _asks_for_gradients(named)
    if asks != asked:
        changed = sorted(set(asks) ^ set(asked))[0]
        raise Mismatch(
            f"Your function changed `requires_grad` of its input {_quoted(changed)}; ask a copy for gradients "
            "(`x.detach().clone().requires_grad_()`).",
            actual=("changed requires_grad", changed),
            returned=f"{changed}.requires_grad = {changed in asks}",
            expected=f"{changed}.requires_grad = {changed in asked}",
        )


def _innermost(name: str, a: Any, b: Any) -> tuple[str, Any, Any]:
    """Where two nested values differ, as one would write it, and what stands there."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        parts = [(f"{name}[{key!r}]", a[key], b[key]) for key in a]
    elif isinstance(a, list) and isinstance(b, list) and len(a) == len(b):
        parts = [(f"{name}[{i}]", *pair) for i, pair in enumerate(zip(a, b, strict=True))]
    else:
        return name, a, b
    return next(_innermost(*part) for part in parts if not same(*part[1:], rtol=0, atol=0))


def _told_apart(a: Any, b: Any) -> tuple[str, str]:
    """Two values as text, tensors of one shape by the first row that differs."""
    if isinstance(a, Tensor) and isinstance(b, Tensor) and a.shape == b.shape:
        return first_difference(a, b, close_entries(a, b, rtol=0, atol=0))[:2]
    return contrast(a, b)


def _quoted(name: str) -> str:
    return name if " " in name else f"`{name}`"


def _asks_for_gradients(named: Any) -> list[str]:
    """Names of the tensors, in nested arguments, that have ``requires_grad``."""
    found = []
    for name, value in named:
        if isinstance(value, Tensor):
            found += [name] if value.requires_grad else []
        elif isinstance(value, Mapping):
            found += _asks_for_gradients((f"{name}[{key!r}]", item) for key, item in value.items())
        elif isinstance(value, list | tuple):
            found += _asks_for_gradients((f"{name}[{i}]", item) for i, item in enumerate(value))
    return found


def _holds(result: Any, value: Any) -> bool:
    """Whether a result is this very object, or a dict, list or tuple that holds it."""
    if result is value:
        return True
    items = result.values() if isinstance(result, dict) else result if isinstance(result, list | tuple) else ()
    return any(_holds(item, value) for item in items)


def _shares_memory(result: Any, value: Any) -> bool:
    """Whether a tensor is, at least in part, the memory of a tensor in a result: a row of it, or it detached."""
    if isinstance(result, Tensor) and isinstance(value, Tensor):
        places = [
            t.untyped_storage().data_ptr() if t.layout is torch.strided and not t.is_meta else 0
            for t in (result, value)
        ]
        return places[0] == places[1] != 0
    items = result.values() if isinstance(result, dict) else result if isinstance(result, list | tuple) else ()
    return any(_shares_memory(item, value) for item in items)


def _named_arguments(function: Callable, args: Any, kwargs: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """The arguments of a call with their names; those that have none are told by their place."""
    names = _positional_names(function)[: len(args)]
    names += [_ordinal(i, "argument") for i in range(len(names), len(args))]
    return [*zip(names, args, strict=True), *kwargs.items()]


def _arguments_text(named: list[tuple[str, Any]]) -> str:
    """The arguments as one would write them, with the entries of short tensors where that does not take too long."""
    floats = sum(isinstance(value, Tensor) and value.is_floating_point() for _, value in named)
    whole = _written(named, entries=True)
    return whole if floats < 2 or len(whole) <= MAX_TEXT else _written(named, entries=False)


def _written(named: list[tuple[str, Any]], entries: bool) -> str:
    texts = [(name, describe(value, entries)) for name, value in named]
    return ", ".join(text if " " in name else f"{name}={text}" for name, text in texts)


def _ordinal(place: int, noun: str) -> str:
    words = ("first", "second", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth", "tenth")
    return f"the {words[place]} {noun}" if place < len(words) else f"{noun} number {place + 1}"


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


@dataclass(frozen=True)
class _Tolerance:
    """How ``expect_close`` compares, and what it says of a difference."""

    note: str
    rtol: float | None
    atol: float | None
    dtype: bool


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
        actual, expected: Tensors, arrays, numbers, strings, or lists, tuples and dicts of them.
        note: What it means when they differ, for the learner.
        rtol, atol: Wider tolerances, where an exercise's arithmetic needs them.
        dtype: Whether a tensor's dtype must be the expected one too.
    """
    _compare(actual, expected, _Tolerance(note, rtol, atol, dtype))


def _compare(actual: Any, expected: Any, how: _Tolerance) -> None:
    if isinstance(expected, np.ndarray) and isinstance(actual, np.ndarray | Tensor) and expected.dtype.kind in "biufc":
        actual, expected = torch.as_tensor(actual), torch.as_tensor(expected)
    if isinstance(expected, Tensor):
        _compare_tensors(actual, expected, how)
    elif isinstance(expected, Mapping):
        _compare_dicts(actual, expected, how)
    elif isinstance(expected, list | tuple):
        _compare_sequences(actual, expected, how)
    elif not same(plain(actual), plain(expected), how.rtol, how.atol):
        returned, wanted = contrast(actual, expected)
        raise Mismatch(how.note or DIFFERS, actual=actual, returned=returned, expected=wanted)


def _compare_part(actual: Any, expected: Any, how: _Tolerance, part: str, note: str = "") -> None:
    """Compare a part of a larger result; ``note`` is said where the check has none of its own."""
    try:
        _compare(actual, expected, replace(how, note=how.note or note))
    except Mismatch as mismatch:
        raise mismatch.inside(part) from None


def _compare_dicts(actual: Any, expected: Mapping, how: _Tolerance) -> None:
    _expect_kind(actual, expected, Mapping, "dict")
    if sorted(actual, key=str) != sorted(expected, key=str):
        returned, wanted = contrast(list(actual), list(expected))
        raise Mismatch(how.note or "The keys differ.", actual=actual, returned=returned, expected=wanted)
    for key in expected:
        _compare_part(actual[key], expected[key], how, f"[{key!r}]", f"The entry {key!r} differs.")


def _compare_sequences(actual: Any, expected: list | tuple, how: _Tolerance) -> None:
    kind = "tuple" if isinstance(expected, tuple) else "list"
    _expect_kind(actual, expected, list | tuple, kind)
    if len(actual) != len(expected):
        raise Mismatch(
            how.note or f"The result should have {len(expected)} entries, and has {len(actual)}.",
            actual=actual,
            returned=f"{len(actual)} entries: {describe(actual)}",
            expected=f"{len(expected)} entries: {describe(expected)}",
        )
    if kind == "list":
        _compare_entries(actual, expected, how)
        return
    parts = getattr(expected, "_fields", [_ordinal(i, "part") for i in range(len(expected))])
    for part, a, b in zip(parts, actual, expected, strict=True):
        _compare_part(a, b, how, part, f"{part[0].upper()}{part[1:]} of the returned tuple differs.")


def _compare_entries(actual: Any, expected: list, how: _Tolerance) -> None:
    """Compare two lists of one length; what is said is about the first entry that differs."""
    mismatches = {}
    for i, (a, b) in enumerate(zip(actual, expected, strict=True)):
        try:
            _compare_part(a, b, how, f"entry {i}")
        except Mismatch as mismatch:
            mismatches[i] = mismatch
    if mismatches:
        first, mismatch = next(iter(mismatches.items()))
        if not how.note:
            more = "" if mismatch.note == DIFFERS else f" {mismatch.note}"
            n, total = len(mismatches), len(expected)
            mismatch.note = f"{'The only entry differs' if total == 1 else f'{n} of {total} entries differ'}.{more}"
        mismatch.actual = snapshot(actual)
        mismatch.series = mismatch.series or (list(actual), first)
        raise mismatch


def _expect_kind(actual: Any, expected: Any, kind: Any, name: str) -> None:
    if not isinstance(actual, kind):
        raise Mismatch(
            f"The result should be a {name}, not {_article(actual)}.",
            actual=actual,
            returned=describe(actual),
            expected=describe(expected),
        )


def _compare_tensors(actual: Any, expected: Tensor, how: _Tolerance) -> None:
    expect_shape(actual, tuple(expected.shape))
    differing = ""
    if how.dtype and actual.dtype != expected.dtype:
        differing, note = "dtype", how.note or "The dtype should follow the inputs."
    elif actual.device != expected.device:
        differing, note = "device", "The result should be on the device of the inputs."
    if differing:
        returned, wanted = (str(getattr(t, differing)) for t in (actual, expected))
        mismatch = Mismatch(note, actual=returned, returned=returned, expected=wanted)
        mismatch.value = actual
        raise mismatch
    agree = close_entries(actual, expected, how.rtol, how.atol)
    if not bool(agree.all()):
        returned, wanted, summary = first_difference(actual, expected, agree)
        note = f"{how.note.rstrip('.')} ({summary})." if how.note else f"{summary[0].upper()}{summary[1:]}."
        raise Mismatch(note, actual=actual, returned=returned, expected=wanted)


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
        f"Bad input should raise {article(error.__name__)}, and this went through.",
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
    wanted = _gradients(reference, args, kwargs, weights)[0]
    found, inputs = _gradients(answer, args, kwargs, weights)
    names = _names_of(inputs, reference)
    cut = [names[i] for i, expected in wanted.items() if expected is not None and found[i] is None]
    if cut:
        raise Mismatch(
            f"No gradient reaches {' or '.join(map(_quoted, cut))}: something in your code cuts the graph "
            "(`detach`, `.data`, `.item()`, `torch.no_grad`, a new tensor made from numbers or a frozen copy).",
            actual=("cut graph", *cut),
            returned=f"no gradient for {', '.join(cut)}",
        )
    for i, expected in wanted.items():
        if expected is not None:
            expect_close(
                found[i], expected, note=f"The gradient for {_quoted(names[i])} differs.", rtol=rtol, atol=atol
            )


def _gradients(
    function: Callable, args: tuple, kwargs: dict, weights: Tensor
) -> tuple[dict[int, Tensor | None], list[Any]]:
    """Gradients of the weighted sum of the output, by position of the floating-point tensors; and the arguments."""
    args = [a.detach().clone().requires_grad_() if isinstance(a, Tensor) and a.is_floating_point() else a for a in args]
    out = function(*args, **kwargs)
    expect_shape(out, tuple(weights.shape))
    inputs = {i: a for i, a in enumerate(args) if isinstance(a, Tensor) and a.requires_grad}
    if not out.requires_grad:
        return dict.fromkeys(inputs), args
    try:
        found = torch.autograd.grad((out * weights).sum(), list(inputs.values()), allow_unused=True)
    except RuntimeError as error:  # the answer changed in place what autograd needs
        raise Mismatch(f"The result can't be differentiated: {error}", actual="no gradient") from error
    return dict(zip(inputs, found, strict=True)), args


def _names_of(arguments: list[Any], function: Callable) -> list[str]:
    """What the latest call of the answer named these arguments, also where a check's lambda stands between."""
    named = _named_arguments(function, arguments, {})
    return [next((n for n, v in Answer.latest if v is value), name) for name, value in named]


def _article(value: Any) -> str:
    if value is None:
        return "None (is a `return` missing?)"
    return article(type(value).__name__)
