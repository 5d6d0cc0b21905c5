"""The catalogue of wrong and right answers that stands beside a chapter's checks.

``tests/NN_name/answers_*.py`` fill it with two decorators::

    @wrong("causal_mask", "Your zeros are above the diagonal: each position sees only its own future.")
    def future_only(n_ctx, *, device="cpu"): ...

    @right("causal_mask")
    def double_loop(n_ctx, *, device="cpu"): ...

The repository's tests prove that every wrong answer is rejected, with its own sentence, and every right one accepted.
A learner whose answers equal those of a wrong one is told its sentence.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, wraps
from typing import Any

from utils.course.manifest import Exercise
from utils.course.paths import load_file, tests_folder

PRAISE = re.compile(r"(^|[.:;] )(The|Your|What you|the|your) [^.,:;]*\b(is|are|stay) right\b")


@dataclass(frozen=True)
class CatalogueEntry:
    exercise: str
    obj: Callable
    sentence: str | None

    @property
    def name(self) -> str:
        return self.obj.__name__

    @property
    def calls_the_rest_right(self) -> bool:
        """Whether the sentence says "your values are right, but …", which holds if nothing else went wrong."""
        return self.sentence is not None and PRAISE.search(self.sentence) is not None


def wrong(exercise: str, sentence: str) -> Callable[[Callable], Callable]:
    """Register a wrong answer to ``exercise``, with the sentence that tells a learner what it gets wrong and why."""
    return lambda obj: _register(obj, exercise, sentence)


def right(exercise: str) -> Callable[[Callable], Callable]:
    """Register a right answer in another style, which the checks have to accept."""
    return lambda obj: _register(obj, exercise, None)


def _register(obj: Callable, exercise: str, sentence: str | None) -> Callable:
    obj.__catalogue_entry__ = CatalogueEntry(exercise, obj, sentence)
    return obj


def made_once(make: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """A case's own design, made when it is first asked for: copies of it from then on.

    A catalogue's designs are ours in all parts but one, and a check hands over the same weights every time.
    """
    made = {}

    @wraps(make)
    def copied(*args: Any) -> dict[str, Any]:
        if not made:
            made.update(make(*args))
        return dict(made)

    return copied


@cache
def chapter_catalogue(chapter: str) -> tuple[CatalogueEntry, ...]:
    """All entries of one chapter, in the order of the files and of the definitions in them."""
    modules = [load_file(path) for path in sorted(tests_folder(chapter).glob("answers_*.py"))]
    # An answer imported into a second file, or a subclass that inherits the mark, is not an entry of its own.
    return tuple(
        value.__catalogue_entry__
        for module in modules
        for value in vars(module).values()
        if getattr(value, "__module__", None) == module.__name__ and "__catalogue_entry__" in vars(value)
    )


def wrong_answers(exercise: Exercise) -> list[CatalogueEntry]:
    return [e for e in chapter_catalogue(exercise.chapter) if e.exercise == exercise.name and e.sentence is not None]


def right_answers(exercise: Exercise) -> list[CatalogueEntry]:
    return [e for e in chapter_catalogue(exercise.chapter) if e.exercise == exercise.name and e.sentence is None]
