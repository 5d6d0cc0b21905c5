"""The list of all chapters and exercises, which ``mi build`` writes from the masters.

Everything that a learner's session needs to know of an exercise (number, points, hints, where its reference lies) is
read from this one small file, so that a check starts without parsing a notebook.
"""

import difflib
import importlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache

from utils.course import paths


@dataclass(frozen=True)
class Exercise:
    """One exercise, as its cell in the master describes it."""

    name: str
    module: str
    chapter: str
    number: str
    points: int
    difficulty: int
    importance: int
    minutes: int
    hints: tuple[str, ...]
    may_change_inputs: bool = False

    @property
    def reference(self) -> Callable:
        """The reference implementation; its module is imported on first use."""
        return getattr(importlib.import_module(self.module), self.name)


@dataclass(frozen=True)
class Chapter:
    """One chapter: folder name, title, and its exercises in order."""

    name: str
    title: str
    exercises: tuple[Exercise, ...]

    @property
    def number(self) -> str:
        return self.name[:2]


class CourseError(Exception):
    """Something a person can mend; the message says what and how. It is shown without a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [f"{type(self).__name__}: {self}"]


class UnknownExercise(CourseError):
    """No exercise (or chapter) of this name; the message offers near ones."""


@cache
def chapters() -> tuple[Chapter, ...]:
    """All chapters of the manifest, in order."""
    try:
        text = paths.MANIFEST.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise CourseError(f"The list of exercises, {paths.MANIFEST}, is missing. `mi build` writes it.") from None
    return parse(json.loads(text))


def parse(data: list[dict]) -> tuple[Chapter, ...]:
    return tuple(
        Chapter(
            c["name"],
            c["title"],
            tuple(Exercise(**{**e, "hints": tuple(e["hints"]), "chapter": c["name"]}) for e in c["exercises"]),
        )
        for c in data
    )


def dump(course: tuple[Chapter, ...]) -> str:
    """The manifest's text; stable, so that a rebuild without a change writes the same bytes."""
    data = [
        {
            "name": c.name,
            "title": c.title,
            "exercises": [{key: value for key, value in asdict(e).items() if key != "chapter"} for e in c.exercises],
        }
        for c in course
    ]
    return json.dumps(data, indent=1, ensure_ascii=False) + "\n"


def exercises() -> dict[str, Exercise]:
    """All exercises by name, in the order of the course."""
    return {e.name: e for c in chapters() for e in c.exercises}


def find_exercise(name: str) -> Exercise:
    """The exercise of this name, or an error that offers the nearest names."""
    known = exercises()
    if name in known:
        return known[name]
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.5)
    offer = f" Did you mean {' or '.join(near)}?" if near else " `mi progress` lists all of them."
    raise UnknownExercise(f"There is no exercise called {name!r}.{offer}")


def find_chapter(text: str) -> Chapter:
    """The chapter with this number ("2" or "02") or folder name."""
    for chapter in chapters():
        if text in (chapter.name, chapter.number) or text.isdigit() and int(text) == int(chapter.number):
            return chapter
    numbers = ", ".join(c.number for c in chapters())
    raise UnknownExercise(f"There is no chapter {text!r}. The chapters are {numbers}.")
