"""Writes what the graders found to where nbgrader keeps it, with nbgrader's own steps, so that all its pages work.

``GradeInWorker`` stands in nbgrader's list in the place of ``Execute``: ``nbgrader autograde`` and ``mi grade`` differ
only in who has graded before it comes to that.
"""

import atexit
import logging
import os
import re
import secrets
import shutil
import sqlite3
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import nbformat
from nbconvert.exporters import NotebookExporter
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell, new_output
from nbgrader.api import Gradebook
from nbgrader.converters import Autograde
from nbgrader.converters.base import NbGraderException
from nbgrader.coursedir import CourseDirectory
from nbgrader.preprocessors import NbGraderPreprocessor
from traitlets.config import Config
from traitlets.config.loader import PyFileConfigLoader

from utils.course import paths
from utils.course.autograding import PICTURES, released_cells
from utils.course.containment import Overtime, limited_time
from utils.course.manifest import Chapter, CourseError, Part, find_parts
from utils.grading.batch import modules, read_record, read_submission, write_record
from utils.grading.grader import Unprotected, Zygote
from utils.grading.submission import Verdict, cells_to_run, grade_part

SHOWN = 50_000  # characters of a cell of prose
RENDERING = 20  # seconds for the prose of one notebook; what is left after that is shown as it is

_found: dict[tuple[str, str], list[Verdict]] = {}  # what is graded already, by student and part
_unreadable: dict[tuple[str, str], str] = {}  # why a notebook can't be graded, by student and part
_zygotes: dict[str, Zygote] = {}  # of this process, by chapter


class ReadOrBlank(NotebookExporter):
    """Reads a submission's notebook, or a blank that says why it can't be read: then its own points are lost alone."""

    def from_filename(self, filename: str, resources: dict | None = None, **more: Any) -> tuple[str, dict]:
        if not self.parent._sanitizing:
            return super().from_filename(filename, resources, **more)
        asked, folders = resources["nbgrader"], self.parent.coursedir
        key = (asked["student"], asked["notebook"])
        _unreadable.pop(key, None)
        try:
            read_submission(Path(filename))
        except (ValueError, OSError) as error:
            _unreadable[key] = why = str(error)
            self.log.error("%s: %s could not be graded: %s", *key, why)
            release = Path(folders.format_path(folders.release_directory, ".", asked["assignment"]))
            return self.from_notebook_node(blank(release / f"{asked['notebook']}.ipynb", why), resources, **more)
        return super().from_filename(filename, resources, **more)


def blank(released: Path, why: str) -> NotebookNode:
    """The notebook as it was handed out, under a cell that says why it stands in place of the student's."""
    notebook = nbformat.read(released, as_version=4)
    text = f"**This notebook could not be graded:** {without_tags(why)}"
    notebook.cells.insert(0, new_markdown_cell(text, id="not-graded"))
    return notebook


def _not_graded(part: Part, status: str) -> list[Verdict]:
    return [Verdict(e.name, status, f"✗ {e.name}: the notebook could not be graded") for e in part.exercises]


class GradeInWorker(NbGraderPreprocessor):
    """The check cells get as output what came of the checks; not a line of the submission runs in this process."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        asked = resources["nbgrader"]
        released = released_cells(self, resources)
        key = (asked["student"], asked["notebook"])
        verdicts = _found[key] if key in _found else _grade_now(*key, nb.cells, released)
        resources["verdicts"] = {v.name: v for v in verdicts}
        fill_in(nb.cells, verdicts)
        nb.cells = harmless(nb.cells, released)
        return nb, resources


def _grade_now(
    student: str, name: str, cells: Sequence[NotebookNode], released: Sequence[NotebookNode]
) -> list[Verdict]:
    """For ``nbgrader autograde``, which comes with one notebook after another."""
    from utils.course.manifest import find_chapter

    (part,) = find_parts(name)
    if (student, name) in _unreadable:
        return _not_graded(part, "unreadable")
    if part.chapter not in _zygotes:
        unsafe = os.environ.get("MI_UNSAFE") == "1"
        zygote = _zygotes[part.chapter] = Zygote(part.chapter, modules(find_chapter(part.chapter)), unsafe)
        atexit.register(zygote.close)
    zygote = _zygotes[part.chapter]
    try:
        zygote.revive()
    except Unprotected as error:
        raise CourseError(str(error).replace("`--unsafe`", "`MI_UNSAFE=1` in the environment")) from None
    seed = secrets.randbelow(2**53)
    logging.getLogger("traitlets").info("Checking %s with seed %d", name, seed)
    verdicts = grade_part(part, cells_to_run(part, cells, released), lambda: zygote.spawn(0), seed)
    zygote.expect_alive()
    return verdicts


def fill_in(cells: Sequence[NotebookNode], verdicts: Sequence[Verdict]) -> None:
    """Write the verdicts into the check cells: a text for what passed, an error for what did not."""
    by_name = {verdict.name: verdict for verdict in verdicts}
    for cell in cells:
        if cell.cell_type != "code":
            continue
        cell.outputs = []
        name = str(cell.metadata.get("nbgrader", {}).get("grade_id", "")).removeprefix("check_")
        verdict = by_name.get(name)
        if verdict is None or not cell.metadata.nbgrader.get("grade"):
            continue
        if verdict.status == "passed":
            cell.outputs = [new_output("stream", name="stdout", text=verdict.text + "\n")]
        else:
            first, *lines = verdict.text.splitlines()
            cell.outputs = [
                new_output("error", ename="CheckFailed", evalue=first, traceback=[first, *lines]),
            ]


def harmless(cells: Sequence[NotebookNode], released: Sequence[NotebookNode]) -> list[NotebookNode]:
    """The cells, so that nothing in them runs on a page or hangs it: what a student wrote is shown as it is."""
    ours = {(cell.cell_type, cell.source) for cell in released}
    found, deadline = [], time.monotonic() + RENDERING
    for cell in cells:
        if "nbgrader" not in cell.metadata:
            cell.metadata = {}
        if (cell.cell_type, cell.source) not in ours:
            if cell.cell_type == "raw":
                cell = new_markdown_cell(cell.source, id=cell.id, metadata=cell.metadata)
            if cell.cell_type == "markdown":
                cell.source = without_tags(cell.source[:SHOWN])
                if time.monotonic() > deadline or not _can_be_rendered(cell):
                    cell.source = "".join(f"    {line}" for line in cell.source.splitlines(keepends=True))
        found.append(cell)
    return found


def without_tags(text: str) -> str:
    """Markdown in which no HTML is left, nor anything that stands for a letter, nor a link in a formula."""
    text = re.sub(r"&(?=#|\w+;)", "&amp;", text)
    text = re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text)
    return text.replace("\\href", "\\h\u200bref")


def _can_be_rendered(cell: NotebookNode) -> bool:
    """Whether the pages' own renderer makes harmless HTML of it, within a second: some texts keep it busy for hours."""
    started = time.thread_time()
    try:
        with limited_time(1):
            renderer = IPythonRenderer(escape=False, attachments=cell.get("attachments", {}))
            page = MarkdownWithMath(renderer=renderer).render(cell.source)
    except (Exception, Overtime):
        return False
    look = _Look()
    look.feed(page)
    return look.harmless and time.thread_time() - started < 1


class _Look(HTMLParser):
    """Whether a page has nothing in it that could run."""

    harmless = True

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        for name, value in attributes:
            target = re.match(r"([^/?#]*?):", value or "") if name in ("href", "src") else None
            image = name == "src" and any((value or "").startswith(f"data:{kind};base64,") for kind in PICTURES)
            if name.startswith("on") or (target and target[1].lower() not in ("http", "https", "mailto") and not image):
                self.harmless = False
        if tag in ("script", "style", "iframe", "object", "embed", "form", "svg", "math", "link", "meta", "base"):
            self.harmless = False


class KeepBroken(NbGraderPreprocessor):
    """After the scores are saved: where a check itself broke, there is none, and a person has to look.

    Nor is there one where the notebook can't be read, which tells it from one that was left blank.
    """

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        asked = resources["nbgrader"]
        statuses = {name: verdict.status for name, verdict in resources.get("verdicts", {}).items()}
        unread = "unreadable" in statuses.values()
        if unread or "broken" in statuses.values():
            with Gradebook(asked["db_url"]) as gradebook:
                found = gradebook.find_submission_notebook(asked["notebook"], asked["assignment"], asked["student"])
                for grade in found.grades:
                    broken = statuses.get(grade.name.removeprefix("check_")) == "broken"
                    if unread or broken:
                        grade.auto_score, grade.needs_manual_grade = None, broken
                gradebook.db.commit()
        return nb, resources


# ---------------------------------------------------------------- for ``mi grade``


def write_to_gradebook(chapter: Chapter, students: Sequence[str]) -> None:
    """Bring students' recorded results into the gradebook and ``autograded/``, all of them or none."""
    config = _config()
    with tempfile.TemporaryDirectory(prefix="mi-gradebook-") as folder:
        place = Path(folder)
        address = config.CourseDirectory.get("db_url", f"sqlite:///{paths.ROOT / 'gradebook.db'}")
        if not address.startswith("sqlite:///"):
            _write(chapter, students, config, place, address)
        else:
            _write_in_one_pass(chapter, students, config, place, Path(address.removeprefix("sqlite:///")))
    for student in students:
        write_record(chapter, student, read_record(chapter, student) | {"written": True})


def _write_in_one_pass(chapter: Chapter, students: Sequence[str], config: Config, place: Path, original: Path) -> None:
    """Write into a copy, and put it back in one transaction, unless somebody has written meanwhile: then again."""
    if not original.exists():
        raise CourseError(f"There is no gradebook. `nbgrader generate_assignment {chapter.name} --force` makes it.")
    copy = place / "gradebook.db"
    while True:
        copy.unlink(missing_ok=True)
        with closing(sqlite3.connect(original, timeout=60)) as here, closing(sqlite3.connect(copy)) as there:
            here.backup(there)
            version = _version(original)
        _write(chapter, students, config, place, f"sqlite:///{copy}")
        with closing(sqlite3.connect(original, timeout=60)) as here, closing(sqlite3.connect(copy)) as there:
            if _version(original) == version:
                there.backup(here)
                return


def _version(path: Path) -> bytes:
    """What a database file counts its transactions with."""
    with path.open("rb") as file:
        return file.read(28)[24:]


def _write(chapter: Chapter, students: Sequence[str], config: Config, place: Path, address: str) -> None:
    settings = Config(config)
    settings.CourseDirectory.submitted_directory = str(place / "submitted")
    settings.CourseDirectory.db_url = address
    for student in students:
        folder = place / "submitted" / student / chapter.name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        record = read_record(chapter, student)
        _stage(chapter, student, record["parts"], folder)
        try:
            _take_in(chapter, student, settings)
        except NbGraderException:  # ours to look into; it must not keep the others out
            why = f"nbgrader does not take it; `nbgrader autograde {chapter.name} --student {student}` says why"
            print(f"  {student}: {why}")
            record["parts"] = {"": {"broken": why}}
            write_record(chapter, student, record)
            _stage(chapter, student, record["parts"], folder)
            _take_in(chapter, student, settings)
    _found.clear()


def _take_in(chapter: Chapter, student: str, settings: Config) -> None:
    course = CourseDirectory(config=settings, root=str(paths.ROOT))
    course.assignment_id, course.student_id = chapter.name, student
    step = Autograde(coursedir=course, config=settings)
    step.force = True
    step.log.setLevel(logging.CRITICAL)
    with warnings.catch_warnings():  # nbgrader's habits with its database
        warnings.simplefilter("ignore")
        step.start()


def _stage(chapter: Chapter, student: str, parts: dict, folder: Path) -> None:
    """Lay out the notebooks that nbgrader is to take: where one can't be read, a blank that says so."""
    for part in chapter.parts:
        found = parts.get(part.name, parts.get(""))
        if found is None:
            continue
        verdicts = [Verdict(**v) for v in found.get("verdicts", ())]
        source = paths.ROOT / "submitted" / student / chapter.name
        trouble = found.get("unreadable") or found.get("broken")
        if trouble:
            nbformat.write(blank(paths.release_path(chapter.name, part.name), trouble), folder / f"{part.name}.ipynb")
            verdicts = _not_graded(part, "broken" if "broken" in found else "unreadable")
        else:
            shutil.copyfile(source / f"{part.name}.ipynb", folder / f"{part.name}.ipynb", follow_symlinks=False)
        _found[student, part.name] = verdicts
    stamp = paths.ROOT / "submitted" / student / chapter.name / "timestamp.txt"
    if stamp.is_file() and not stamp.is_symlink() and stamp.stat().st_size < 1000:
        shutil.copyfile(stamp, folder / "timestamp.txt")


def _config() -> Config:
    """The settings that the ``nbgrader`` command would read."""
    os.environ["PATH"] = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", "")])
    return PyFileConfigLoader("nbgrader_config.py", path=str(paths.ROOT)).load_config()
