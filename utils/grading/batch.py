"""``mi grade``: a class's submissions through the checks, in parallel, and into nbgrader's gradebook.

What a submission gets is written down as soon as it is known, in ``.mi/grading``; the gradebook and the autograded
notebooks follow from that alone. So a batch that is killed goes on where it was, and grades nobody twice.
"""

import contextlib
import gc
import hashlib
import json
import multiprocessing
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from pathlib import Path

import nbformat
import torch

from utils.course import paths
from utils.course.autograding import expect_regular_file, plain, restored
from utils.course.manifest import Chapter, CourseError
from utils.grading.grader import NoWorkers, Zygote
from utils.grading.submission import cells_to_run, grade_part
from utils.grading.worker import secret_seed

MAX_FILE = 32 * 2**20  # bytes of one notebook
FORMAT = 1  # of what is written down

Graded = dict[str, dict]  # by part: what became of a notebook


@dataclass(frozen=True)
class Task:
    """One student's submission of a chapter."""

    chapter: str
    student: str
    folder: str
    seed: int


def submissions(chapter: Chapter, student: str | None = None) -> list[Path]:
    """Folders of the chapter's submissions, by students' names."""
    found = sorted((paths.ROOT / "submitted").glob(f"*/{chapter.name}"))
    return [f for f in found if student in (None, f.parent.name) and not f.parent.name.startswith(".")]


def digest(folder: Path, chapter: Chapter) -> str:
    """What tells one hand-in of a student from the next."""
    total = hashlib.sha256()
    for part in chapter.parts:
        path = folder / f"{part.name}.ipynb"
        total.update(part.name.encode())
        if path.is_file() and not path.is_symlink():
            with path.open("rb") as file:
                total.update(file.read(MAX_FILE + 1))
    return total.hexdigest()


# ---------------------------------------------------------------- one submission


def read_submission(path: Path) -> list[nbformat.NotebookNode]:
    """A notebook's cells.

    Raises:
        ValueError: If it is none that can be graded; the message says why.
    """
    expect_regular_file(path, levels=3)
    if path.stat().st_size > MAX_FILE:
        raise ValueError(f"the file has more than {MAX_FILE >> 20} MB")
    try:
        notebook = nbformat.read(path, as_version=4)
        cells = notebook.cells
        if not all(isinstance(cell.source, str) and cell.cell_type in ("code", "markdown", "raw") for cell in cells):
            raise ValueError("a cell has no text")
        json.dumps(notebook)
        return plain(cells)
    except RecursionError:
        raise ValueError("it is nested too deep") from None
    except Exception as error:
        raise ValueError(f"it can't be read as a notebook ({type(error).__name__}: {str(error)[:200]})") from None


def grade_submission(task: Task, spawn: Callable) -> Graded:
    """Grade all notebooks of a submission; one that can't be read costs its own points alone."""
    from utils.course.manifest import find_chapter

    found: Graded = {}
    for part in find_chapter(task.chapter).parts:
        path, started = Path(task.folder) / f"{part.name}.ipynb", time.monotonic()
        if not path.exists() and not path.is_symlink():
            continue
        try:
            cells = read_submission(path)
        except (ValueError, OSError) as error:
            found[part.name] = {"unreadable": str(error).removeprefix(str(path)).strip(), "verdicts": []}
            continue
        released = nbformat.read(paths.release_path(part.chapter, part.name), as_version=4).cells
        cells = restored(cells, [cell for cell in released if "nbgrader" in cell.metadata])
        seed = secret_seed(task.seed, task.student)
        try:
            verdicts = grade_part(part, cells_to_run(part, cells, released), spawn, seed)
        except NoWorkers:
            raise
        except Exception as error:  # ours
            found[part.name] = {"broken": f"{type(error).__name__}: {error}", "verdicts": []}
            continue
        found[part.name] = {"verdicts": [asdict(v) for v in verdicts], "seconds": time.monotonic() - started}
    return found


# ---------------------------------------------------------------- many


_mine: dict[str, object] = {}


def _start_job(zygote: Zygote, slots: "multiprocessing.Queue[int]") -> None:
    _mine["zygote"], _mine["slot"] = zygote, slots.get()
    gc.freeze()  # or the first collection copies the memory of all that is loaded


def _job(task: Task) -> Graded:
    zygote, slot = _mine["zygote"], _mine["slot"]
    found = grade_submission(task, lambda: zygote.spawn(slot))
    zygote.expect_alive()
    return found


def grade_here(tasks: Sequence[Task], zygote: Zygote, jobs: int) -> Iterator[tuple[Task, Graded]]:
    """Grade in processes of this machine, and give each submission's result as it comes.

    A grader that dies (out of memory, say) takes the others of its pool with it, and the zygote all workers. What was
    being graded is graded again, one at a time, and the one that something dies of twice is called broken.
    """
    context = multiprocessing.get_context("fork")
    left, suspects = list(tasks), []
    while left:
        zygote.revive()
        careful, queue = bool(suspects), list(suspects or left)
        slots = context.Queue()
        for slot in range(jobs):
            slots.put(slot)
        waiting: dict[Future, Task] = {}
        with ProcessPoolExecutor(jobs, context, _start_job, (zygote, slots)) as pool:
            try:
                while queue or waiting:
                    while queue and len(waiting) < (1 if careful else 2 * jobs):
                        task = queue.pop(0)
                        waiting[pool.submit(_job, task)] = task
                    done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                    for future in done:
                        task = waiting[future]
                        try:
                            result = future.result()
                        except (BrokenProcessPool, NoWorkers):
                            if careful:
                                left.remove(task)
                                yield task, {"": {"broken": "the grader itself died"}}
                            raise
                        except Exception as error:
                            result = {"": {"broken": f"{type(error).__name__}: {error}"}}
                        del waiting[future]
                        left.remove(task)
                        yield task, result
                suspects = []
            except (BrokenProcessPool, NoWorkers):
                suspects = [task for task in (suspects if careful else waiting.values()) if task in left]


# ---------------------------------------------------------------- what is written down


def journal(chapter: Chapter) -> Path:
    return paths.STATE / "grading" / chapter.name


def write_whole(path: Path, text: str) -> None:
    """Write a file so that it is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    os.replace(file.name, path)


def read_record(chapter: Chapter, student: str) -> dict | None:
    """What is written down of a student's submission, if anything that can be read is."""
    try:
        record = json.loads((journal(chapter) / f"{student}.json").read_text(encoding="utf-8"))
        return record if record["format"] == FORMAT else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write_record(chapter: Chapter, student: str, record: dict) -> None:
    write_whole(journal(chapter) / f"{student}.json", json.dumps(record, indent=1))


# ---------------------------------------------------------------- the whole


def grade(
    chapter: Chapter,
    student: str | None = None,
    jobs: int | None = None,
    again: bool = False,
    seed: int | None = None,
    unsafe: bool = False,
    scheduler: str | None = None,
) -> int:
    """Grade a chapter's submissions; returns how many could not be graded.

    Args:
        chapter: Which.
        student: One student alone.
        jobs: How many at a time; as many as there are processors if not given.
        again: Grade also what is graded already.
        seed: To repeat a batch; a fresh one if not given.
        unsafe: Go on without protections that the machine does not offer.
        scheduler: The address of a Dask scheduler, to grade on its workers.
    """
    from utils.grading.gradebook import write_to_gradebook

    seed = secrets.randbelow(2**53) if seed is None else seed
    folders = submissions(chapter, student)
    if not folders:
        raise CourseError(f"There is nothing to grade: no folder submitted/{student or '*'}/{chapter.name}.")
    with _alone(chapter):
        new, unwritten = [], []
        for folder in folders:
            name = folder.parent.name
            record = None if again else read_record(chapter, name)
            if record is None or record["digest"] != digest(folder, chapter):
                new.append(Task(chapter.name, name, str(folder), seed))
            elif not record["written"]:
                unwritten.append(name)
        print(f"{chapter.name}: {len(new)} to grade, {len(folders) - len(new)} graded already, seed {seed}")
        progress = Progress(len(new))
        if unwritten:
            write_to_gradebook(chapter, unwritten)
        if new:
            jobs = min(jobs or os.cpu_count() or 1, len(new))
            if scheduler:
                from utils.grading.cluster import grade_on_cluster

                results = grade_on_cluster(new, chapter, scheduler, unsafe)
            else:
                results = grade_on_this_machine(new, chapter, jobs, unsafe)
            _keep(chapter, results, progress, write_to_gradebook)
        progress.end()
    return progress.failed


def grade_on_this_machine(
    tasks: Sequence[Task], chapter: Chapter, jobs: int, unsafe: bool
) -> Iterator[tuple[Task, Graded]]:
    zygote = Zygote(chapter.name, modules(chapter), unsafe)
    try:
        warm_up(chapter)
        zygote.wait()
        print(f"  {zygote.protections()}")
        yield from grade_here(tasks, zygote, jobs)
    finally:
        zygote.close()


def _keep(chapter: Chapter, results: Iterator[tuple[Task, Graded]], progress: "Progress", write: Callable) -> None:
    """Write down each result as it comes, and some at a time into the gradebook."""
    finished: list[str] = []
    with contextlib.closing(results):
        for task, result in results:
            record = {"format": FORMAT, "seed": task.seed, "written": False, "parts": result, "time": time.time()}
            record["digest"] = digest(Path(task.folder), chapter)
            write_record(chapter, task.student, record)
            finished.append(task.student)
            progress.one_more(task.student, result)
            if len(finished) >= WRITTEN_AT_A_TIME:
                write(chapter, finished)
                finished = []
    if finished:
        write(chapter, finished)


WRITTEN_AT_A_TIME = 10


def modules(chapter: Chapter) -> tuple[str, ...]:
    """What the chapter's set-up cells import."""
    import ast

    found = {"torch", "numpy"}
    for part in chapter.parts:
        for cell in nbformat.read(paths.release_path(part.chapter, part.name), as_version=4).cells:
            if "setup" in cell.metadata.get("tags", []):
                for node in ast.walk(ast.parse(cell.source)):
                    if isinstance(node, ast.Import):
                        found |= {alias.name for alias in node.names}
                    elif isinstance(node, ast.ImportFrom) and node.module:  # what is imported may be a module itself
                        found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return tuple(sorted(found))


def warm_up(chapter: Chapter) -> None:
    """Load references, checks and catalogue once, before the graders are forked."""
    from utils.course.catalogue import chapter_catalogue
    from utils.course.runner import check_class

    for exercise in chapter.exercises:
        _ = exercise.reference
        check_class(exercise)
    chapter_catalogue(chapter.name)
    torch.ones(2, 2, device="meta").tril()  # the first use of this device loads hundreds of modules


@contextlib.contextmanager
def _alone(chapter: Chapter) -> Iterator[None]:
    """One batch of a chapter at a time."""
    from filelock import FileLock, Timeout

    journal(chapter).mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(journal(chapter) / ".lock", timeout=0):
            yield
    except Timeout:
        raise CourseError(f"{chapter.name} is being graded by another process.") from None


class Progress:
    """One line: how many are done, how many failed, how long it will take."""

    def __init__(self, total: int):
        self.total, self.done, self.failed, self.start = total, 0, 0, time.monotonic()
        self.names: list[str] = []

    def one_more(self, student: str, result: Graded) -> None:
        self.done += 1
        troubles = [
            f"{part or 'the submission'}: {found.get('unreadable') or found['broken']}"
            for part, found in result.items()
            if "unreadable" in found or "broken" in found
        ]
        if troubles:
            self.failed += 1
            self._line("")
            print(f"  {student}: {'; '.join(troubles)}")
        passed = time.monotonic() - self.start
        left = passed / self.done * (self.total - self.done)
        self._line(f"  {self.done} of {self.total} graded, {self.failed} with trouble, about {left:.0f} s left")

    def _line(self, text: str) -> None:
        if sys.stdout.isatty():
            print(f"\r\x1b[K{text}", end="", flush=True)

    def end(self) -> None:
        self._line("")
        if self.total:
            took = time.monotonic() - self.start
            print(f"  {self.done} graded in {took:.0f} s, {self.failed} with trouble")
