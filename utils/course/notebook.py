"""What a learner uses in a notebook: ``check``, ``hint``, ``reference``, ``predict`` and its answer, ``start``."""

import ctypes
import os
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import replace
from functools import cache
from types import TracebackType
from typing import Any

from utils.course import progress
from utils.course.manifest import Exercise, UnknownExercise, exercises, find_exercise, find_parts

LARGE = 4 * 2**20  # bytes
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # as glibc's malloc.h has them


class CheckFailed(Exception):
    """Stops the cell, and "Run All" with it, unless the answer passed; ``details`` holds the report in plain text."""

    def __init__(self, message: str, details: str):
        super().__init__(message)
        self.details = details

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of a traceback: nothing in a live notebook, which has shown the card."""
        return [] if _live() else self.details.splitlines()


def start(key: str, only: Collection[str] = ()) -> None:
    """Begin a part, or come back to it: say what is done and where to go on.

    In a live notebook, calling a stub then says which exercise it is and how to go on without it, and memory that a
    cell has freed goes back to the system.

    Args:
        key: The part, e.g. "01a".
        only: Names of the exercises that a session's notebook leaves open; all of the part's if not given.
    """
    (part,) = find_parts(key)
    if not _live():
        return
    if only:
        part = replace(part, exercises=tuple(e for e in part.exercises if e.name in only))
    _explain_stubs()
    _give_memory_back()
    done, following = progress.summary(part), progress.next_exercise(part)
    if following is None:
        print(f"Part {part.key}: every exercise is passed or skipped.")
    elif done["passed"] or following is not part.exercises[0]:
        print(
            f"Part {part.key}: {done['passed']} of {done['exercises']} exercises are passed. Go on with "
            f"{following.label}, {following.name}: run the cells above it (Run > Run All Above Selected Cell)."
        )


def check(answer: Callable | str, *, seed: int | None = None) -> None:
    """Check an answer, show what came of it, and raise ``CheckFailed`` unless it is right.

    An exercise that was skipped doesn't stop anything: while its answer is not right, our reference takes its place.

    Args:
        answer: Your function or class.
        seed: Seed of the random inputs, to repeat a failure; a fresh one if not given.
    """
    namespace = sys._getframe(1).f_globals
    exercise = _exercise_of(answer, namespace)
    if answer is exercise.reference:
        _meet_reference(exercise)
        return
    from utils.course import feedback  # with torch behind it: a hint or a look at the progress does without
    from utils.course.runner import run_checks

    report = run_checks(exercise, answer, seed=seed)
    skipped = _live() and progress.states().get(exercise.name, progress.NOTHING_YET).status == "skipped"
    if report.status == "passed" or (report.status == "failed" and not skipped):
        progress.record(report.status, exercise.name)
    if report.status == "not attempted" and skipped:
        _stand_in(exercise, namespace)
        return
    if _live() or report.status == "passed":
        _show(feedback.as_text(report), feedback.as_html(report))
    if report.status != "passed" and skipped:
        _stand_in(exercise, namespace)
    elif report.status != "passed":
        raise CheckFailed(feedback.headline(report), feedback.as_text(report))


def hint(exercise: str | Callable) -> None:
    """Show the next hint for an exercise, from a nudge to nearly the code; each call gives one more."""
    found = _named(exercise)
    name, seen = found.name, progress.states().get(found.name, progress.NOTHING_YET).hints
    if seen < len(found.hints):
        progress.record("hint", name)
        _show(f"Hint {seen + 1} of {len(found.hints)} for {name}: {found.hints[seen]}")
        return
    all_hints = "\n".join(f"{i}. {text}" for i, text in enumerate(found.hints, 1))
    _show(
        f"That was the last hint for {name}. All of them again:\n{all_hints}\n"
        f'`mi solution {name}` in a terminal shows our solution; {name} = reference("{name}") goes on with it.'
    )


def reference(exercise: str | Callable) -> Callable:
    """The course's own implementation, to go on with when an exercise has to wait."""
    found = _named(exercise)
    progress.record("skipped", found.name)
    return found.reference


def predict(name: str, guess: Any, options: Sequence[str] = ()) -> None:
    """Keep a guess, to be compared with what comes out. Nothing depends on it, and nobody grades it.

    Args:
        name: What is predicted; ``outcome`` with the same name answers.
        guess: A number, or one of the options; ``...`` stands where yours will go.
        options: What can be chosen from, unless the guess is a number.
    """
    choice = f"one of {', '.join(map(repr, options))}" if options else "a number"
    if guess is ...:
        print(f"Your guess goes in place of the dots: {choice}. Or go on without one.")
    elif (guess not in options) if options else not _is_number(guess):
        print(f"{guess!r} is no guess that can be compared: it should be {choice}.")
    elif progress.record("guess", name, guess=guess):
        print(f"Your guess is kept: {guess}.")


def outcome(name: str, value: Any) -> None:
    """Say how far off the guess of this name was, if there was one."""
    guess = progress.guesses().get(name)
    if guess is None:
        return
    if _is_number(value) and _is_number(guess):
        print(f"You guessed {guess:g}, and it is {value:.3g}: {abs(guess - value):.2g} off.")
    elif guess == value:
        print(f"You guessed {guess!r}, and so it is.")
    else:
        print(f"You guessed {guess!r}, and it is {value!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _named(exercise: str | Callable) -> Exercise:
    """The exercise that a learner means: by its name, or the function itself."""
    if isinstance(exercise, str):
        return find_exercise(exercise)
    return _exercise_of(exercise, sys._getframe(2).f_globals)


def _exercise_of(answer: Any, namespace: dict[str, Any]) -> Exercise:
    """The exercise an object answers: by the variable it is held in, else by its own name."""
    known = exercises()
    held = [name for name, value in namespace.items() if value is answer and name in known]
    if held:
        return known[held[0]]
    name = answer if isinstance(answer, str) else getattr(answer, "__name__", None)
    if name is None or isinstance(answer, str):
        raise UnknownExercise(
            "check wants the function or class itself, as in check(causal_mask)"
            + (f", without the quotes: check({name})." if name else f", not {answer!r}.")
        )
    return find_exercise(name)


def _meet_reference(exercise: Exercise) -> None:
    if not _live():
        message = f"○ {exercise.name}: our reference, not an answer of your own: skipped, no points"
        raise CheckFailed(message, message)
    _show(f"○ {exercise.name} is our reference now: skipped, no points. `mi progress` keeps it on your list.")


def _stand_in(exercise: Exercise, namespace: dict[str, Any]) -> None:
    namespace[exercise.name] = exercise.reference
    _show(
        f"○ {exercise.name} is skipped: from here on our reference stands in for it, until you write it, run its cell "
        "again and it passes."
    )


def _explain_stubs() -> None:
    """In a live notebook: a stub that is called says which exercise it is and how to go on, without a traceback."""
    shell = _shell()
    if shell is not None:
        shell.set_custom_exc((NotImplementedError,), _tell_of_a_stub)


def _give_memory_back() -> None:
    """In a live notebook on Linux: a large tensor's memory goes back to the system at once, the rest after each cell.

    The C library raises its own limit of what is large to 32 MB, and keeps what is smaller wherever something that
    still lives lies above: hundreds of megabytes in a part on a real network, and not the same in each run.
    """
    shell, libc = _shell(), _glibc()
    if shell is not None and libc is not None:
        libc.mallopt(M_MMAP_THRESHOLD, LARGE)
        libc.mallopt(M_TRIM_THRESHOLD, 16 * LARGE)
        shell.events.register("post_run_cell", _trim)  # once, however often the set-up cell is run


def _trim(*_: Any) -> None:
    _glibc().malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    """The C library, if it is glibc."""
    libc = ctypes.CDLL(None) if sys.platform == "linux" else None
    return libc if hasattr(libc, "malloc_trim") else None


def _tell_of_a_stub(shell: Any, kind: type, error: BaseException, tb: TracebackType, tb_offset: int | None = None):
    stub = None if error.args else _stub_in(tb)
    if stub is None:
        shell.showtraceback((kind, error, tb), tb_offset=tb_offset)
        return None
    message = (
        f"{stub.label.capitalize()}, {stub.name}, is not written yet, and this cell needs it. Write it, or go on with "
        f'our reference: {stub.name} = reference("{stub.name}")'
    )
    print(message, file=sys.stderr)
    return [message]


def _stub_in(tb: TracebackType) -> Exercise | None:
    """The exercise whose function, or whose class's method, raised."""
    while tb.tb_next is not None:
        tb = tb.tb_next
    frame = tb.tb_frame
    names = (frame.f_code.co_name, type(frame.f_locals.get("self")).__name__)
    return next((exercises()[name] for name in names if name in exercises()), None)


def _live() -> bool:
    """Whether a person sits before this notebook, and not nbgrader."""
    return not os.environ.get("NBGRADER_EXECUTION")


def _shell() -> Any:
    """IPython's shell, if this runs in a kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell if hasattr(shell, "kernel") else None


def _show(as_text: str, as_html: str | None = None) -> None:
    """Display in a notebook; print elsewhere."""
    shell = _shell()
    if as_html is None or shell is None:
        print(as_text)
    else:
        shell.display_pub.publish({"text/html": as_html, "text/plain": as_text})
