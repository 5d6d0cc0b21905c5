"""The three functions a learner uses in a notebook: ``check``, ``hint`` and ``reference``."""

import os
import sys
from collections.abc import Callable
from typing import Any

from utils.course import progress
from utils.course.manifest import Exercise, UnknownExercise, exercises, find_exercise


class CheckFailed(Exception):
    """Stops the cell, and "Run All" with it, unless the answer passed; ``details`` holds the report in plain text."""

    def __init__(self, message: str, details: str):
        super().__init__(message)
        self.details = details

    def _render_traceback_(self) -> list[str]:
        """What IPython prints in place of a traceback: nothing in a live notebook, which has shown the card."""
        return [] if _live() else self.details.splitlines()


def check(answer: Callable | str, *, seed: int | None = None) -> None:
    """Check an answer, show what came of it, and raise ``CheckFailed`` unless it is right.

    Args:
        answer: Your function or class.
        seed: Seed of the random inputs, to repeat a failure; a fresh one if not given.
    """
    exercise = _exercise_of(answer, sys._getframe(1).f_globals)
    if answer is exercise.reference:
        _meet_reference(exercise)
        return
    from utils.course import feedback  # with torch behind it: a hint or a look at the progress does without
    from utils.course.runner import run_checks

    report = run_checks(exercise, answer, seed=seed)
    if report.status in ("passed", "failed"):
        progress.record(report.status, exercise.name)
    if _live() or report.status == "passed":
        _show(feedback.as_text(report), feedback.as_html(report))
    if report.status != "passed":
        raise CheckFailed(feedback.headline(report), feedback.as_text(report))


def hint(name: str) -> None:
    """Show the next hint for an exercise, from a nudge to nearly the code; each call gives one more."""
    exercise = find_exercise(name)
    seen = progress.states().get(name, progress.NOTHING_YET).hints
    if seen < len(exercise.hints):
        progress.record("hint", name)
        _show(f"Hint {seen + 1} of {len(exercise.hints)} for {name}: {exercise.hints[seen]}")
        return
    all_hints = "\n".join(f"{i}. {text}" for i, text in enumerate(exercise.hints, 1))
    _show(
        f"That was the last hint for {name}. All of them again:\n{all_hints}\n"
        f'`mi solution {name}` in a terminal shows our solution; {name} = reference("{name}") goes on with it.'
    )


def reference(name: str) -> Callable:
    """The course's own implementation, to go on with when an exercise has to wait."""
    exercise = find_exercise(name)
    progress.record("skipped", exercise.name)
    return exercise.reference


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


def _live() -> bool:
    """Whether a person sits before this notebook, and not nbgrader."""
    return not os.environ.get("NBGRADER_EXECUTION")


def _show(as_text: str, as_html: str | None = None) -> None:
    """Display in a notebook; print elsewhere."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    if as_html is None or shell is None or not hasattr(shell, "kernel"):
        print(as_text)
    else:
        shell.display_pub.publish({"text/html": as_html, "text/plain": as_text})
