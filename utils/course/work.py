"""The learner's own place: a copy of every notebook in ``work``, made once and never overwritten.

The notebooks in ``chapters`` belong to the course: an update may change them. Those in ``work`` belong to the learner.
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path

from utils.course import paths
from utils.course.manifest import Part, parts
from utils.course.paths import release_path, work_path


def prepare(say: Callable[[str], None] = print) -> list[Part]:
    """Copy the notebooks that are not in ``work`` yet, and say which of the learner's the course has a newer one of.

    Returns:
        The parts whose notebooks were copied.
    """
    copied, copies = [], _copies()
    for part in parts():
        if not work_path(part.chapter, part.name).exists():
            _copy(part)
            copied.append(part)
        elif copies.get(part.name, _version(part)) != _version(part):
            say(f"{part.key}: the course has a newer notebook than the one you work in, which stays as it is.")
            say(f"     `mi work --fresh {part.key}` sets yours aside under another name and opens the new one.")
    if copied:
        kept = len(parts()) - len(copied)
        say(f"Your notebooks are in {paths.WORK.name}/: {len(copied)} new, {kept} as you left them.")
    return copied


def fresh(part: Part) -> tuple[Path, Path | None]:
    """Put the released notebook into ``work`` and set the learner's, if there is one, aside beside it.

    Returns:
        The new notebook, and where the learner's is now.
    """
    own, aside = work_path(part.chapter, part.name), None
    if own.exists():
        aside = own.with_name(f"{own.stem}-{time.strftime('%Y-%m-%d-%H%M%S')}.ipynb")
        own.rename(aside)
    _copy(part)
    return own, aside


def _copy(part: Part) -> None:
    own = work_path(part.chapter, part.name)
    own.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(release_path(part.chapter, part.name), own)
    paths.STATE.mkdir(parents=True, exist_ok=True)
    _record().write_text(json.dumps(_copies() | {part.name: _version(part)}, indent=1), encoding="utf-8")


def _record() -> Path:
    return paths.STATE / "work.json"


def _copies() -> dict[str, str]:
    """Which release each notebook in ``work`` was copied from, as far as that is still known."""
    try:
        found = json.loads(_record().read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _version(part: Part) -> str:
    """A digest of what a released notebook says and asks."""
    cells = json.loads(release_path(part.chapter, part.name).read_text(encoding="utf-8"))["cells"]
    return hashlib.sha256(json.dumps([cell["source"] for cell in cells]).encode()).hexdigest()[:16]
