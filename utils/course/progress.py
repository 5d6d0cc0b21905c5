"""What a learner has done so far, in a small local file.

The file is a log with one JSON object a line, only ever appended to. A write that is cut off leaves one unreadable
line, which is passed over; everything before and after it stays.
"""

import json
import os
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from utils.course import paths
from utils.course.manifest import Exercise, Part, chapters

EVENTS = ("passed", "failed", "hint", "skipped", "guess")


def _log() -> Path:
    return paths.STATE / "progress.jsonl"


@dataclass(frozen=True)
class State:
    """One exercise's standing: passed, skipped, tried or open, and how many hints were read."""

    status: str
    hints: int


NOTHING_YET = State("open", 0)


def record(event: str, exercise: str, **more: str | float) -> bool:
    """Append an event; returns whether it could be saved.

    While nbgrader runs a notebook nothing is recorded: that is no learner's doing.
    """
    if os.environ.get("NBGRADER_EXECUTION"):
        return True
    line = json.dumps({"event": event, "exercise": exercise, **more, "time": round(time.time())})
    try:
        _append(_log(), line)
    except OSError as error:  # a full or read-only disk must not cost the learner the check itself
        print(f"Your progress could not be saved to {_log()}: {error.strerror}.")
        return False
    return True


def _append(log: Path, line: str) -> None:
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "ab+") as file:
        size = file.seek(0, os.SEEK_END)
        if size:
            file.seek(size - 1)
            if file.read(1) != b"\n":  # the last write was cut off: start on a line of our own
                line = "\n" + line
        file.write(f"{line}\n".encode())


def read() -> list[dict]:
    """All readable events, oldest first."""
    log = _log()
    return events_in(log.read_bytes()) if log.exists() else []


def events_in(text: bytes) -> list[dict]:
    """The readable events of a log, whoever wrote it."""
    events = []
    for line in text.splitlines():
        try:
            event = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(event, dict) and event.get("event") in EVENTS and isinstance(event.get("exercise"), str):
            events.append(event)
    return events


def states() -> dict[str, State]:
    """Standing of every exercise that has an event. A pass stays a pass; trying after a skip counts as tried."""
    hints, status = Counter(), {}
    for event in read():
        name = event["exercise"]
        if event["event"] == "guess":
            continue
        if event["event"] == "hint":
            hints[name] += 1
        elif status.get(name) != "passed":
            status[name] = {"passed": "passed", "failed": "tried", "skipped": "skipped"}[event["event"]]
    return {name: State(status.get(name, "open"), hints[name]) for name in status.keys() | hints.keys()}


def guesses() -> dict[str, str | float]:
    """The learner's last guess for each prediction that they made."""
    return {event["exercise"]: event["guess"] for event in read() if event["event"] == "guess" and "guess" in event}


def next_exercise(part: Part | None = None) -> Exercise | None:
    """The first exercise of a part, or of the course, that is neither passed nor skipped."""
    done = {name for name, state in states().items() if state.status in ("passed", "skipped")}
    wanted = part.exercises if part else (e for c in chapters() for e in c.exercises)
    return next((e for e in wanted if e.name not in done), None)


def summary(part: Part) -> dict[str, int]:
    """Counts and points of one part; the points for answers in words are given by people, and counted apart."""
    standing = states()
    passed = [e for e in part.exercises if standing.get(e.name, NOTHING_YET).status == "passed"]
    return {
        "exercises": len(part.exercises),
        "passed": len(passed),
        "points": sum(e.points for e in passed),
        "of_points": sum(e.points for e in part.exercises),
        "in_words": sum(q.points for q in part.questions),
    }
