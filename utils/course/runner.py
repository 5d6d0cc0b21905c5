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
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch

import utils
from utils.course import paths
from utils.course.catalogue import CatalogueEntry, wrong_answers
from utils.course.checking import Answer, AnswerRaised, Call, Mismatch, NotAttempted
from utils.course.containment import (
    OUTPUT_LIMIT,
    BoundedText,
    Ended,
    Interrupted,
    Overtime,
    capture_output,
    limited_time,
    noted_interrupts,
)
from utils.course.manifest import Exercise, exercises
from utils.course.paths import load_file, tests_folder
from utils.course.values import describe, same, text_of

LIBRARIES = tuple({sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")})
COURSE = f"{Path(utils.__file__).parent}{os.sep}"
MACHINERY = f"{COURSE}course{os.sep}"
TIME_LIMIT = float(os.environ.get("MI_TIME_LIMIT", 20))  # seconds of computing that one check allows the answer
NUMBER = re.compile(r"-?\d+(\.\d+)?(e[-+]?\d+)?")
RUN = Answer._run.__code__
MAX_MESSAGE = 2000  # characters of an exception's message


@dataclass(frozen=True)
class Place:
    """Where in a check it went wrong: the lines of the tests, how many calls it had made, which part of the result.

    Of a case the calls don't count: there are as many as the design has trials.
    """

    lines: tuple[int, ...] = ()
    n_calls: int = 0
    part: str = ""


@dataclass(frozen=True)
class Failure:
    """One check that did not pass.

    ``kind`` is mismatch, raised, overtime, ended (its process did), not attempted, or broken (our own fault).

    ``call`` is the call that went wrong, or the last one where ``sure`` is false; ``is_result`` says whether
    ``returned`` tells of what the learner's code returned, or of something that the check found.
    """

    check: str
    kind: str
    call: Call | None
    note: str = ""
    returned: str = ""
    expected: str = ""
    actual: Any = None
    trace: str = ""
    place: Place = field(default_factory=Place)
    sure: bool = True
    is_result: bool = True

    def equals(self, other: "Failure") -> bool:
        """Whether both went wrong in the same check, at the same assertion and call, with the same values.

        Up to what a float32 constant or a guard such as ``+ 1e-8`` makes of a value: that is a habit, no other mistake.
        """
        if (self.check, self.kind, self.place) != (other.check, other.kind, other.place):
            return False
        mine, theirs = (f.note for f in (self, other))
        if self.actual is not None and other.actual is not None:  # then the numbers in the note follow from the values
            mine, theirs = (NUMBER.sub("#", note) for note in (mine, theirs))
        return mine == theirs and same(self.actual, other.actual, rtol=1e-5, atol=1e-6)


@dataclass(frozen=True)
class Report:
    """What came of all checks of one exercise; ``explained`` names the failed ones that the diagnosis accounts for."""

    exercise: Exercise
    seed: int
    total: int
    failures: list[Failure] = field(default_factory=list)
    diagnosis: CatalogueEntry | None = None
    explained: frozenset[str] = frozenset()
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

    @property
    def whole_diagnosis(self) -> bool:
        """Whether the diagnosis accounts for everything that failed."""
        return self.explained.issuperset(failure.check for failure in self.failures)

    @property
    def shown(self) -> Failure:
        """The failure to tell of: what is broken, else the first that the diagnosis explains, else the first."""
        for wanted in (lambda f: f.kind == "broken", lambda f: f.check in self.explained):
            for failure in self.failures:
                if wanted(failure):
                    return failure
        return self.failures[0]


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


@cache
def _known(case: str) -> Known:
    """How the catalogue's designs for a case fare: what is found out once holds, as a case's check draws nothing."""
    return {}


def run_checks(
    exercise: Exercise,
    obj: Any,
    seed: int | None = None,
    time_limit: float = TIME_LIMIT,
    diagnose: bool = True,
    known: Known | None = None,
    entry: str = "",
) -> Report:
    """Run all checks of ``exercise`` on ``obj``.

    Args:
        exercise: Which exercise.
        obj: The answer: a function or class.
        seed: Seed of the random inputs; fresh if not given. The report holds it.
        time_limit: Seconds that the answer may compute in each check, after which it is interrupted.
        diagnose: Whether to compare a failing answer with the catalogue of wrong answers.
        known: How the catalogue's wrong answers fare with this seed, by their names and the checks' titles, as far as
            that is known; what the comparison finds out is added. So many answers can be run with one seed quickly.
        entry: The answer's name, if it is one of those wrong answers; then what is known of it is not run again.
    """
    seed = secrets.randbelow(2**31) if seed is None else seed
    captured = BoundedText(OUTPUT_LIMIT)
    with noted_interrupts(), own_settings(), capture_output(captured):
        methods = check_methods(check_class(exercise))
        own = known.setdefault(entry, {}) if entry and known is not None else {}
        failures = list(_failures(exercise, obj, methods, seed, time_limit, own))
        report = Report(exercise, seed, len(methods), failures, output=_printed(obj, captured))
        if diagnose and report.status == "failed":
            if known is None:
                known = _known(exercise.name) if exercise.case else {}
            entry, explained = _diagnose(exercise, failures, methods, seed, time_limit, known)
            report = replace(report, diagnosis=entry, explained=explained)
    return report


def _printed(obj: Any, here: BoundedText) -> str:
    there = getattr(obj, "printed", None)
    return there if isinstance(there, str) else here.getvalue()


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
            with references_for_the_rest(exercise, obj), own_settings(), own_state(seed):
                known[title] = _run_one(exercise, obj, title, method, seed, time_limit)
        failure = known[title]
        if failure:
            yield failure
        if failure and failure.kind in ("not attempted", "overtime", "ended"):
            return


def _run_one(
    exercise: Exercise, obj: Any, title: str, method: Callable, seed: int, time_limit: float
) -> Failure | None:
    answer = Answer(obj, exercise.reference, exercise.may_change_inputs)
    # An answer in another process says what that one has computed, and begins and ends each check there.
    cpu, one_check = getattr(obj, "cpu_time", time.thread_time), getattr(obj, "one_check", None)
    around = one_check(title, seed) if one_check else contextlib.nullcontext()
    try:
        with around, limited_time(time_limit, counting=False, cpu=cpu) as answer.clock:
            _call_check(method, answer, exercise, seed)
    except Interrupted:
        raise
    except Mismatch as error:
        return _told(title, method, answer, error)
    except NotAttempted:
        return Failure(title, "not attempted", answer.last_call)
    except AnswerRaised as error:
        cause, place = error.__cause__, _place(method, answer, error)
        message = f"{type(cause).__name__}: {text_of(cause, str, MAX_MESSAGE)}".removesuffix(": ")
        return Failure(
            title,
            "raised",
            answer.last_call,
            _without_names(message, obj, exercise.name),
            returned=message,
            expected=error.wanted,
            trace=_learner_trace(cause),
            place=place,
        )
    except Overtime:
        return Failure(title, "overtime", answer.last_call, f"still running after {time_limit:g} seconds")
    except Ended as ended:
        return Failure(title, "ended", answer.last_call, str(ended))
    except BaseException as error:  # also a result that calls sys.exit() when it is looked at
        return _blame(exercise, title, method, seed, answer, error)
    return None


def _call_check(method: Callable, answer: Answer, exercise: Exercise, seed: int) -> None:
    offered = {"answer": answer, "reference": exercise.reference, "rng": torch.Generator().manual_seed(seed)}
    arguments = {name: offered[name] for name in inspect.signature(method).parameters if name != "self"}
    method(method.__globals__[method.__qualname__.split(".")[0]](), **arguments)


def _told(title: str, method: Callable, answer: Answer, error: Mismatch) -> Failure:
    """The failure that a mismatch tells of: with the call that it is about, where that can be told."""
    found = answer.call_of(error)
    call = found or answer.last_call
    is_result = found not in (None, answer.design) and error.call is None
    returned, expected = error.returned, error.expected
    if returned == expected:  # a check's own words for what does not make the difference
        returned, expected = "", ""
    if not returned and call is not None and call.returned:
        returned, is_result = describe(call.result), True
    return Failure(
        title,
        "mismatch",
        call,
        error.note,
        returned,
        expected,
        error.actual,
        place=_place(method, answer, error),
        sure=found is not None or answer.n_calls < 2,
        is_result=is_result,
    )


def _place(method: Callable, answer: Answer, error: BaseException) -> Place:
    """Where a check was when it raised: by its own lines, and those of the helpers beside it."""
    folder = Path(method.__code__.co_filename).parent
    lines, step = [], error.__traceback__
    while step is not None and step.tb_frame.f_code is not RUN:
        if Path(step.tb_frame.f_code.co_filename).parent == folder:
            lines.append(step.tb_lineno)
        step = step.tb_next
    return Place(tuple(lines), 0 if answer.design else answer.n_calls, getattr(error, "part", ""))


def _without_names(message: str, obj: Any, name: str) -> str:
    """An exception's message as it would be if the answer had the exercise's name, and every object one address."""
    own = getattr(obj, "__name__", None)
    message = re.sub(rf"\b{re.escape(own)}\b", name, message) if isinstance(own, str) and own else message
    return re.sub(r"\b0x[0-9a-f]+", "0x", message)


def _blame(
    exercise: Exercise, title: str, method: Callable, seed: int, answer: Answer, error: BaseException
) -> Failure:
    """A check stumbled: over something odd that the answer returned, unless it stumbles over the reference too."""
    text = f"{type(error).__name__}: {text_of(error, str)}"
    place = _place(method, answer, error)
    try:
        _call_check(method, Answer(exercise.reference, may_change_inputs=exercise.may_change_inputs), exercise, seed)
    except Exception:
        return Failure(title, "broken", answer.last_call, text, trace=traceback.format_exc(), place=place)
    result = answer.last_call.result if answer.last_call else None
    note = f"The check could do nothing with this result ({text})."
    return Failure(title, "mismatch", answer.last_call, note, describe(result), "", text, place=place)


def _diagnose(
    exercise: Exercise,
    failures: list[Failure],
    methods: dict[str, Callable],
    seed: int,
    time_limit: float,
    known: Known,
) -> tuple[CatalogueEntry | None, frozenset[str]]:
    """The wrong answer whose failures are all among these, value for value, and the checks that these are of.

    Of several, the one that explains most of them. A sentence that calls the rest right is for answers whose rest is.
    """
    failed = {failure.check for failure in failures}
    telling = {title: method for title, method in methods.items() if title in failed}
    others = {title: method for title, method in methods.items() if title not in failed}
    best, explained = None, frozenset()
    for entry in wrong_answers(exercise):
        theirs, shared = known.setdefault(entry.name, {}), []
        for failure in _failures(exercise, entry.obj, telling, seed, time_limit, theirs):
            if not any(failure.equals(mine) for mine in failures):
                break
            shared.append(failure.check)
        else:
            if entry.calls_the_rest_right and len(shared) < len(failed):
                continue
            # It has to pass what this answer passed, too; most entries are out before that costs anything.
            if len(shared) > len(explained) and not any(
                _failures(exercise, entry.obj, others, seed, time_limit, theirs)
            ):
                best, explained = entry, frozenset(shared)
    return best, explained


@cache
def references_beside(exercise: Exercise) -> dict[str, Callable]:
    """By name, the references of the chapter's other exercises."""
    return {e.name: e.reference for e in exercises().values() if e.chapter == exercise.chapter and e != exercise}


@contextlib.contextmanager
def references_for_the_rest(exercise: Exercise, obj: Any) -> Iterator[None]:
    """For the duration, every *other* exercise's name means its reference where the answer looks names up.

    So a mistake costs its own exercise only, also where later answers call the function that has it.
    """
    namespace, others = _namespace(obj), references_beside(exercise)
    saved = {name: namespace[name] for name in others if name in namespace}
    namespace.update(others)
    try:
        yield
    finally:
        for name in others:
            del namespace[name]
        namespace.update(saved)


@contextlib.contextmanager
def own_settings() -> Iterator[None]:
    """For the duration, the settings of the process are those that checks are written for; then the user's again.

    float32 on the processor, with gradients, and one thread: with several, small tensors on a busy machine take many
    times as long.
    """
    dtype, threads = torch.get_default_dtype(), torch.get_num_threads()
    plain = torch.inference_mode(False), torch.enable_grad(), torch.autocast("cpu", enabled=False)
    with plain[0], plain[1], plain[2], _default_device_is_the_processor():
        torch.set_default_dtype(torch.float32)
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_default_dtype(dtype)
            torch.set_num_threads(threads)


@contextlib.contextmanager
def _default_device_is_the_processor() -> Iterator[None]:
    processor = torch.device("cpu")
    # As a context it costs every later call of torch a little time, so it is only entered where it is needed.
    with contextlib.nullcontext() if torch.get_default_device() == processor else processor:
        try:
            yield
        finally:
            if torch.get_default_device() != processor:  # an answer changed it
                torch.set_default_device(None)


@contextlib.contextmanager
def own_state(seed: int) -> Iterator[None]:
    """For the duration, torch's random state is a function of the seed; afterwards it is as before.

    So a check leaves no trace in the numbers that a notebook draws, repeats with its seed even for an answer that draws
    from the global state, and notices an answer that seeds it: nobody else would choose such a seed.
    """
    with torch.random.fork_rng(devices=[]):
        # torch heeds a seed's lower 32 bits alone: turned, so that nothing here is drawn as a check's `rng` draws it.
        torch.default_generator.manual_seed(2**40 + (seed ^ 0xFFFFFFFF))
        yield


def _namespace(obj: Any) -> dict[str, Any]:
    """The global names that an answer looks names up in."""
    obj = inspect.unwrap(obj) if callable(obj) else obj
    if inspect.isclass(obj):
        for member in vars(obj).values():
            if inspect.isfunction(member):
                return member.__globals__
        return vars(sys.modules[obj.__module__]) if obj.__module__ in sys.modules else {}
    return getattr(obj, "__globals__", {})


def _learner_trace(error: BaseException) -> str:
    """The traceback from the learner's first line on.

    Without the frames of the machinery, of libraries and of the course's own functions, where some of the learner's
    are left.
    """
    if isinstance(told := getattr(error, "trace", None), str):  # of an answer in another process, which has told it
        return told
    readable = traceback.extract_tb(error.__traceback__)
    for left_out in (MACHINERY, LIBRARIES, (COURSE, str(paths.TESTS))):
        readable = [frame for frame in readable if not frame.filename.startswith(left_out)] or readable
    lines = "".join(traceback.format_list(readable))
    return re.sub(r'File "[^"]*ipykernel_[^"]*"', "your cell", lines)
