"""The list of all chapters, parts and exercises, which ``mi build`` writes from the masters.

Everything that a learner's session needs to know of an exercise (number, points, hints, where its reference lies) is
read from this one small file, so that a check starts without parsing a notebook.
"""

import difflib
import importlib
import json
import re
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass
from functools import cache

from utils.course import paths


@dataclass(frozen=True)
class Exercise:
    """One exercise, as its cell in the master describes it; a ``case`` asks for the design of an experiment."""

    name: str
    module: str
    chapter: str
    part: str
    number: str
    points: int
    difficulty: int
    importance: int
    minutes: int
    hints: tuple[str, ...]
    may_change_inputs: bool = False
    case: bool = False

    @property
    def reference(self) -> Callable:
        """The reference implementation; its module is imported on first use."""
        return getattr(importlib.import_module(self.module), self.name)

    @property
    def label(self) -> str:
        """What it is called in its box: "exercise 1.7" or "case 01a"."""
        return f"{'case' if self.case else 'exercise'} {self.number}"


@dataclass(frozen=True)
class Question:
    """One question that is answered in words and graded by hand."""

    name: str
    chapter: str
    part: str
    points: int
    minutes: int


@dataclass(frozen=True)
class Part:
    """One notebook, for one sitting: its exercises and questions in order, and how its time is spent.

    ``reading`` is the minutes for its prose and experiments; ``core`` names what a learner with half the time does.
    """

    name: str
    chapter: str
    title: str
    reading: int
    core: tuple[str, ...]
    exercises: tuple[Exercise, ...]
    questions: tuple[Question, ...]

    @property
    def key(self) -> str:
        """ "01a", or "00" for a chapter of one part."""
        return self.name.split("_")[0]

    @property
    def minutes(self) -> int:
        return self.reading + sum(item.minutes for item in (*self.exercises, *self.questions))

    @property
    def items(self) -> tuple[Exercise | Question, ...]:
        """Exercises, then questions."""
        return (*self.exercises, *self.questions)

    def minutes_for(self, names: Collection[str]) -> int:
        """Minutes of these exercises and questions, with their share of the reading."""
        some = sum(item.minutes for item in self.items if item.name in names)
        return some + round(self.reading * some / max(1, sum(item.minutes for item in self.items)))

    @property
    def core_minutes(self) -> int:
        return self.minutes_for(self.core)

    @property
    def points(self) -> int:
        return sum(item.points for item in (*self.exercises, *self.questions))


@dataclass(frozen=True)
class Chapter:
    """One chapter: folder name, title, and its parts in order."""

    name: str
    title: str
    parts: tuple[Part, ...]

    @property
    def number(self) -> str:
        return self.name[:2]

    @property
    def exercises(self) -> tuple[Exercise, ...]:
        return tuple(exercise for part in self.parts for exercise in part.exercises)


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
    return tuple(Chapter(c["name"], c["title"], tuple(_parse_part(p, c["name"]) for p in c["parts"])) for c in data)


def _parse_part(data: dict, chapter: str) -> Part:
    place = {"chapter": chapter, "part": data["name"]}
    exercises = tuple(Exercise(**{**e, **place, "hints": tuple(e["hints"])}) for e in data["exercises"])
    questions = tuple(Question(**q, **place) for q in data["questions"])
    given = {key: data[key] for key in ("name", "title", "reading")}
    return Part(**given, chapter=chapter, core=tuple(data["core"]), exercises=exercises, questions=questions)


def dump(course: tuple[Chapter, ...]) -> str:
    """The manifest's text; stable, so that a rebuild without a change writes the same bytes."""
    return json.dumps([_without_place(asdict(chapter)) for chapter in course], indent=1, ensure_ascii=False) + "\n"


def _without_place(data: dict) -> dict:
    """What lies inside a chapter or part need not say so again."""
    return {
        key: [_without_place(item) if isinstance(item, dict) else item for item in value]
        if isinstance(value, list | tuple)
        else value
        for key, value in data.items()
        if key not in ("chapter", "part")
    }


def parts() -> tuple[Part, ...]:
    """All parts, in the order of the course."""
    return tuple(part for chapter in chapters() for part in chapter.parts)


def exercises() -> dict[str, Exercise]:
    """All exercises by name, in the order of the course."""
    return {e.name: e for c in chapters() for e in c.exercises}


def questions() -> dict[str, Question]:
    """All questions in words by name, in the order of the course."""
    return {q.name: q for p in parts() for q in p.questions}


def find_exercise(text: str) -> Exercise:
    """The exercise of this name or number ("2.6", "case 04a"), or an error that offers the nearest names."""
    known = exercises()
    if text in known:
        return known[text]
    label = re.sub(r"^(exercise|case)\s+", "", text.strip().lower())
    for exercise in known.values():
        if exercise.number == label:
            return exercise
    near = difflib.get_close_matches(text, known, n=3, cutoff=0.5)
    offer = f" Did you mean {' or '.join(near)}?" if near else " `mi progress` lists all of them."
    raise UnknownExercise(f"There is no exercise called {text!r}.{offer}")


def find_chapter(text: str) -> Chapter:
    """The chapter with this number ("2" or "02") or folder name."""
    for chapter in chapters():
        if text in (chapter.name, chapter.number) or text.isdecimal() and text.zfill(2) == chapter.number:
            return chapter
    numbers = ", ".join(c.number for c in chapters())
    raise UnknownExercise(f"There is no chapter {text!r}. The chapters are {numbers}.")


def find_parts(text: str) -> tuple[Part, ...]:
    """The part of this key or name ("01a", "1a"), or all parts of a chapter ("01", "1", its folder's name)."""
    found = tuple(part for part in parts() if text in (part.name, part.key) or text.zfill(3) == part.key)
    if found:
        return found
    try:
        return find_chapter(text).parts
    except UnknownExercise:
        keys = ", ".join(part.key for part in parts())
        raise UnknownExercise(f"There is no chapter or part {text!r}. The parts are {keys}.") from None
