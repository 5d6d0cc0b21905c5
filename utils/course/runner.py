"""Runs an exercise's checks on an answer, without pytest, and finds out which misconception it shows.

The same pytest classes run under pytest in the repository's tests; here their methods are called directly, which takes
milliseconds, so that a notebook, the shell and a grader can afford it.
"""

import contextlib
import inspect
import os
import re
import secrets
import sys
import sysconfig
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import torch

from utils.course.catalogue import CatalogueEntry, wrong_answers
from utils.course.checking import Answer, AnswerRaised, Call, Mismatch, NotAttempted
from utils.course.containment import OUTPUT_LIMIT, BoundedText, Overtime, capture_output, limited_time
from utils.course.manifest import Exercise, exercises
from utils.course.paths import load_file, tests_folder
from utils.course.values import describe, same

LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
TIME_LIMIT = float(os.environ.get("MI_TIME_LIMIT", 20))  # seconds for one check


@dataclass(frozen=True)
class Failure:
    """One check that did not pass. ``kind`` is mismatch, raised, overtime, not attempted, or broken (our own fault)."""

    check: str
    kind: str
    call: Call | None
    note: str = ""
    returned: str = ""
    expected: str = ""
    actual: Any = None
    trace: str = ""

    def equals(self, other: "Failure") -> bool:
        """Whether both went wrong in the same check in the same way with the same values.

        Up to what a float32 constant or a guard such as ``+ 1e-8`` makes of a value: that is a habit, no other mistake.
        """
        if (self.check, self.kind) != (other.check, other.kind):
            return False
        if self.actual is None and other.actual is None:
            return self.note == other.note
        return same(self.actual, other.actual, rtol=1e-5, atol=1e-6)


@dataclass(frozen=True)
class Report:
    """What came of all checks of one exercise."""

    exercise: Exercise
    seed: int
    total: int
    failures: list[Failure] = field(default_factory=list)
    diagnosis: CatalogueEntry | None = None
    whole_diagnosis: bool = True
    output: str = ""

    @property
    def status(self) -> str:
        """passed, failed, not attempted, or broken (a fault of the course, not of the learner)."""
        kinds = {failure.kind for failure in self.failures}
        if "broken" in kinds:
            return "broken"
        if "not attempted" in kinds:
            return "not attempted"
        return "failed" if kinds else "passed"


@cache
def check_class(exercise: Exercise) -> type:
    """The pytest class in the chapter's tests whose ``exercise`` attribute names this exercise."""
    for path in sorted(tests_folder(exercise.chapter).glob("test_*.py")):
        if f'exercise = "{exercise.name}"' in path.read_text(encoding="utf-8"):
            for value in vars(load_file(path)).values():
                if inspect.isclass(value) and getattr(value, "exercise", None) == exercise.name:
                    return value
    raise LookupError(f'No check class in {tests_folder(exercise.chapter)} says exercise = "{exercise.name}".')


def check_methods(cls: type) -> dict[str, Callable]:
    """The class's test methods by title (the docstring's first line, or the name), in the order they are written."""
    methods = [m for name, m in vars(cls).items() if name.startswith("test_") and callable(m)]
    return {
        (inspect.getdoc(m) or m.__name__.removeprefix("test_").replace("_", " ")).splitlines()[0]: m for m in methods
    }


Known = dict[str, dict[str, Failure | None]]


def run_checks(
    exercise: Exercise,
    obj: Any,
    seed: int | None = None,
    time_limit: float = TIME_LIMIT,
    diagnose: bool = True,
    known: Known | None = None,
) -> Report:
    """Run all checks of ``exercise`` on ``obj``.

    Args:
        exercise: Which exercise.
        obj: The answer: a function or class.
        seed: Seed of the random inputs; fresh if not given. The report holds it.
        time_limit: Seconds for each check, after which it is interrupted.
        diagnose: Whether to compare a failing answer with the catalogue of wrong answers.
        known: How the catalogue's wrong answers fare with this seed, by their names and the checks' titles, as far as
            that is known; what the comparison finds out is added. So many answers can be run with one seed quickly.
    """
    seed = secrets.randbelow(2**31) if seed is None else seed
    methods = check_methods(check_class(exercise))
    captured = BoundedText(OUTPUT_LIMIT)
    with capture_output(captured):
        failures = list(_failures(exercise, obj, methods, seed, time_limit, {}))
        report = Report(exercise, seed, len(methods), failures, output=captured.getvalue())
        if diagnose and report.status == "failed":
            entry, whole = _diagnose(exercise, failures, methods, seed, time_limit, {} if known is None else known)
            report = replace(report, diagnosis=entry, whole_diagnosis=whole)
    return report


def _failures(
    exercise: Exercise,
    obj: Any,
    methods: dict[str, Callable],
    seed: int,
    time_limit: float,
    known: dict[str, Failure | None],
) -> Iterator[Failure]:
    """Run one check after the other, but for those whose outcome is ``known``, and add theirs to it."""
    for title, method in methods.items():
        if title not in known:
            with references_for_the_rest(exercise, obj), torch.enable_grad(), own_state(seed):
                known[title] = _run_one(exercise, obj, title, method, seed, time_limit)
        failure = known[title]
        if failure:
            yield failure
        if failure and failure.kind in ("not attempted", "overtime"):
            return


def _run_one(
    exercise: Exercise, obj: Any, title: str, method: Callable, seed: int, time_limit: float
) -> Failure | None:
    answer = Answer(obj, exercise.reference, exercise.may_change_inputs)
    try:
        with limited_time(time_limit):
            _call_check(method, answer, exercise, seed)
    except Mismatch as error:
        returned = error.returned or (
            describe(answer.last_call.result) if answer.last_call and answer.last_call.returned else ""
        )
        return Failure(title, "mismatch", answer.last_call, error.note, returned, error.expected, error.actual)
    except NotAttempted:
        return Failure(title, "not attempted", answer.last_call)
    except AnswerRaised as error:
        cause = error.__cause__
        note, trace = f"{type(cause).__name__}: {cause}", _learner_trace(cause)
        return Failure(title, "raised", answer.last_call, note, expected=error.wanted, trace=trace)
    except Overtime:
        return Failure(title, "overtime", answer.last_call, f"still running after {time_limit:.0f} seconds")
    except Exception as error:
        return _blame(exercise, title, method, seed, answer, error)
    return None


def _call_check(method: Callable, answer: Answer, exercise: Exercise, seed: int) -> None:
    offered = {"answer": answer, "reference": exercise.reference, "rng": torch.Generator().manual_seed(seed)}
    arguments = {name: offered[name] for name in inspect.signature(method).parameters if name != "self"}
    method(method.__globals__[method.__qualname__.split(".")[0]](), **arguments)


def _blame(exercise: Exercise, title: str, method: Callable, seed: int, answer: Answer, error: Exception) -> Failure:
    """A check stumbled: over something odd that the answer returned, unless it stumbles over the reference too."""
    text = f"{type(error).__name__}: {error}"
    try:
        _call_check(method, Answer(exercise.reference, may_change_inputs=exercise.may_change_inputs), exercise, seed)
    except Exception:
        return Failure(title, "broken", answer.last_call, text, trace=traceback.format_exc())
    result = answer.last_call.result if answer.last_call else None
    return Failure(
        title,
        "mismatch",
        answer.last_call,
        f"The check could do nothing with this result ({text}).",
        describe(result),
        "",
        text,
    )


def _diagnose(
    exercise: Exercise,
    failures: list[Failure],
    methods: dict[str, Callable],
    seed: int,
    time_limit: float,
    known: Known,
) -> tuple[CatalogueEntry | None, bool]:
    """The wrong answer whose failures are all among these, value for value; the one that explains most of them."""
    best, explained = None, 0
    for entry in wrong_answers(exercise):
        theirs, shared = known.setdefault(entry.name, {}), []
        for failure in _failures(exercise, entry.obj, methods, seed, time_limit, theirs):
            if not any(failure.equals(mine) for mine in failures):
                break
            shared.append(failure)
        else:
            if len(shared) > explained:
                best, explained = entry, len(shared)
    return best, explained == len(failures)


@contextlib.contextmanager
def references_for_the_rest(exercise: Exercise, obj: Any) -> Iterator[None]:
    """For the duration, every *other* exercise's name means its reference where the answer looks names up.

    So a mistake costs its own exercise only, also where later answers call the function that has it.
    """
    namespace = _namespace(obj)
    others = {
        e.name: e.reference for e in exercises().values() if e.chapter == exercise.chapter and e.name != exercise.name
    }
    saved = {name: namespace[name] for name in others if name in namespace}
    namespace.update(others)
    try:
        yield
    finally:
        for name in others:
            del namespace[name]
        namespace.update(saved)


@contextlib.contextmanager
def own_state(seed: int) -> Iterator[None]:
    """For the duration, torch's random state is a function of the seed; afterwards it and the dtype are as before.

    So a check leaves no trace in the numbers that a notebook draws, repeats with its seed even for an answer that draws
    from the global state, and notices an answer that seeds it: nobody else would choose such a seed.
    """
    dtype = torch.get_default_dtype()
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(2**40 + seed)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)


def _namespace(obj: Any) -> dict[str, Any]:
    obj = inspect.unwrap(obj) if callable(obj) else obj
    if inspect.isclass(obj):
        for member in vars(obj).values():
            if inspect.isfunction(member):
                return member.__globals__
        return vars(sys.modules[obj.__module__])
    return getattr(obj, "__globals__", {})


def _learner_trace(error: BaseException) -> str:
    """The traceback from the learner's first line on, without the frames of the machinery and of libraries."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if "utils/course" not in frame.filename.replace("\\", "/")]
    readable = [frame for frame in own if not frame.filename.startswith(LIBRARIES)]
    lines = "".join(traceback.format_list(readable or own))
    return re.sub(r'File "[^"]*ipykernel_[^"]*"', "your cell", lines)
