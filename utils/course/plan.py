"""What fits into a session, and the ways through the course that are shorter than all of it.

A session is cut from one part: some of its exercises, with their share of the reading, and breaks.
"""

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from utils.course.manifest import CourseError, Exercise, Part, Question, find_exercise, parts, questions

BREAK, WITHOUT_BREAK = 10, 60  # minutes
LONGEST = 180


@dataclass(frozen=True)
class Track:
    """A way through the course: of each of these parts a session; of its core path where ``minutes`` is None."""

    name: str
    keys: tuple[str, ...]
    minutes: int | None = None

    def sessions(self) -> list[tuple[Part, tuple[str, ...]]]:
        """Each part with the exercises and questions that are done of it."""
        return [(part, recommended(part, self.minutes)) for part in parts() if part.key in self.keys]

    def summary(self) -> str:
        """What it takes and where it leads, in a sentence."""
        work = sum(part.minutes_for(names) for part, names in self.sessions())
        how = "the core path" if self.minutes is None else f"a session of {self.minutes} minutes"
        return f"In {self.name}, about {round(work / 60)} hours: {how} of {', '.join(self.keys)}."


TRACKS = (
    Track(
        "a week",
        tuple(
            [
                "00",
                "01a",
                "01c",
                "01d",
                "02b",
                "02c",
                "03a",
                "03b",
                "04a",
                "04b",
                "05a",
                "05b",
                "06b",
                "07a",
                "07b",
                "08a",
                "08c",
                "09a",
                "10a",
            ]
        ),
    ),
    Track("a day", ("01c", "02b", "03a", "04a", "06b", "08a"), minutes=60),
)


def with_breaks(work: int) -> int:
    """Minutes of a session with so much work in it."""
    return work + BREAK * breaks(work)


def breaks(work: int) -> int:
    """How many breaks there are: none in the first hour, one in the second, and so on."""
    return max(0, work - 1) // WITHOUT_BREAK


def recommended(part: Part, minutes: int | None = None) -> tuple[str, ...]:
    """The exercises and questions of a session.

    Args:
        part: What it is cut from.
        minutes: How long it is, with breaks; what is most important comes in first, the core path before the rest. If
            not given, the session is the core path, or the whole part where there is none.
    """
    core = part.core or tuple(item.name for item in part.items)
    if minutes is None:
        return core
    chosen: list[str] = []
    cases = {e.name for e in part.exercises if e.case}
    for item in sorted(part.items, key=lambda item: _rank(item, core)):
        of_a_case = isinstance(item, Question) and item.name.startswith("case_")
        if with_breaks(part.minutes_for([*chosen, item.name])) <= minutes and (not of_a_case or cases & {*chosen}):
            chosen.append(item.name)
    if not chosen:
        raise CourseError(f"Nothing of part {part.key} fits into {minutes} minutes.")
    return tuple(chosen)


def _rank(item: Exercise | Question, core: Collection[str]) -> tuple[bool, bool, int]:
    return item.name not in core, isinstance(item, Question), -getattr(item, "importance", 0)


def named(part: Part, text: str) -> tuple[str, ...]:
    """Names of exercises and questions from what a person types: "4.1-4.6, case 04a, nothing_restores".

    Raises:
        CourseError: If one of them is not of this part.
    """
    names = [item.name for item in part.items]
    found: list[str] = []
    for piece in filter(None, re.split(r"\s*,\s*", text.strip())):
        start, _, end = piece.partition("-")
        first, last = _name(start), _name(end or start)
        for name in (first, last):
            if name not in names:
                raise CourseError(f"{name} is not in part {part.key}, and a session is cut from one part.")
        found += names[names.index(first) : names.index(last) + 1]
    return tuple(dict.fromkeys(found))


def _name(text: str) -> str:
    return text.strip() if text.strip() in questions() else find_exercise(text.strip()).name


@dataclass(frozen=True)
class Step:
    """One row of a session's plan: what is done, and how long it takes, reading included; a break has no id."""

    title: str
    minutes: int
    reading: int = 0
    items: tuple[Exercise | Question, ...] = ()
    id: str = ""


def schedule(steps: Sequence[Step]) -> list[tuple[int, Step]]:
    """Steps with the minute at which each begins; the breaks between those where they divide the time most evenly."""
    work = sum(step.minutes for step in steps)
    ends = [sum(step.minutes for step in steps[: i + 1]) for i in range(len(steps) - 1)]
    pauses = {
        min(range(len(ends)), key=lambda i: abs(ends[i] - work * k / (breaks(work) + 1)))
        for k in range(1, breaks(work) + 1)
        if ends
    }
    found, now = [], 0
    for i, step in enumerate(steps):
        found.append((now, step))
        now += step.minutes
        if i in pauses:
            found.append((now, Step("Break", BREAK)))
            now += BREAK
    return found
