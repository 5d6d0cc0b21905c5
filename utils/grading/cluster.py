"""``mi grade --scheduler``: the same on a Dask cluster, for a course that outgrows one machine.

Dask brings tasks to its workers and results back, and hands a lost worker's tasks to the others. What grades is a
process of its own beside each of a worker's threads, as only a process's main thread can be interrupted when a check is
over its time. The workers see the same course, in the same folder, and run the same version of it, or they are told no.
"""

import contextlib
import hashlib
import json
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import utils
from utils.course import paths
from utils.course.manifest import Chapter, CourseError, find_chapter
from utils.course.runner import TIME_LIMIT
from utils.grading.batch import Graded, Task, grade_submission, modules, warm_up
from utils.grading.grader import Zygote

START_LIMIT = 30  # seconds until the scheduler has answered


@dataclass(frozen=True)
class Settings:
    """What has to be the same on all machines."""

    chapter: str
    course: str  # the fingerprint
    unsafe: bool
    time_limit: float


def fingerprint(chapter: Chapter) -> str:
    """Tells one version of the course from the next: its code, and the chapter's checks and notebooks."""
    total = hashlib.sha256()
    for folder, pattern in (
        (Path(utils.__file__).parent, "*.py"),
        (paths.tests_folder(chapter.name), "*.py"),
        (paths.CHAPTERS / chapter.name, "*.ipynb"),
    ):
        for path in sorted(folder.rglob(pattern)):
            total.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


# ---------------------------------------------------------------- where ``mi grade`` runs


def grade_on_cluster(
    tasks: Sequence[Task], chapter: Chapter, address: str, unsafe: bool
) -> Iterator[tuple[Task, Graded]]:
    """Grade on the workers of a scheduler, and give each submission's result as it comes.

    Raises:
        CourseError: If there is no Dask, no scheduler, or a worker that can't grade as this machine would.
    """
    try:
        from distributed import CancelledError, Client, KilledWorker, as_completed
    except ImportError:
        raise CourseError("Grading on a cluster needs Dask: `pip install -e .[cluster]` installs it.") from None
    try:
        client = Client(address, timeout=START_LIMIT)
    except (OSError, ValueError) as error:
        raise CourseError(f"No Dask scheduler answers at {address} ({error}).") from None
    settings = Settings(chapter.name, fingerprint(chapter), unsafe, TIME_LIMIT)
    with client:
        waiting = {client.submit(grade_beside, task, settings, pure=False): task for task in tasks}
        try:
            for future in as_completed(waiting):
                try:
                    yield waiting[future], future.result()
                except KilledWorker:
                    yield waiting[future], {"": {"broken": "each machine that graded it was lost"}}
                except CancelledError:
                    raise CourseError(f"The scheduler at {address} is gone. What is graded is kept.") from None
                except ImportError as error:
                    raise CourseError(f"A worker of the cluster lacks the course ({error}).") from None
                except CourseError:
                    raise
                except Exception as error:
                    yield waiting[future], {"": {"broken": f"{type(error).__name__}: {error}"}}
        finally:
            if client.status == "running":
                client.cancel(list(waiting))
                client.run(close_all, on_error="ignore")


# ---------------------------------------------------------------- in a worker of Dask


_beside: dict[int, "Beside"] = {}  # by thread


class Beside:
    """The process that grades for one thread of a Dask worker."""

    def __init__(self, settings: Settings):
        self.settings = settings
        self.process = subprocess.Popen(
            [sys.executable, "-m", "utils.grading.cluster", json.dumps(asdict(settings))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            env=os.environ | {"MI_TIME_LIMIT": str(settings.time_limit)},
        )

    def grade(self, task: Task) -> Graded:
        """Have one submission graded.

        Raises:
            CourseError: If this machine is not fit for it.
            EOFError: If the process has died.
        """
        try:
            self.process.stdin.write(json.dumps(asdict(task)) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError as error:
            raise EOFError from error
        line = self.process.stdout.readline()
        if not line.endswith("\n"):
            raise EOFError
        answer = json.loads(line)
        if "unfit" in answer:
            raise CourseError(answer["unfit"])
        return answer["graded"]

    def close(self) -> None:
        """Hang up; it ends by itself, whatever it is at."""
        for end in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(BrokenPipeError):  # it has ended before
                end.close()
        self.process.wait()


def grade_beside(task: Task, settings: Settings) -> Graded:
    """What Dask runs: pass the task on to this thread's process; one that dies of it twice has no second chance."""
    thread = threading.get_ident()
    for _ in range(2):
        beside = _beside.get(thread)
        if beside is None or beside.settings != settings:
            _close(thread)
            beside = _beside[thread] = Beside(settings)
        try:
            return beside.grade(task)
        except EOFError:
            if _beside.get(thread) is not beside:
                raise RuntimeError("the batch was broken off") from None
            _close(thread)
        except CourseError:
            _close(thread)
            raise
    raise RuntimeError("the grader itself died")


def _close(thread: int) -> None:
    beside = _beside.pop(thread, None)
    if beside is not None:
        beside.close()


def close_all() -> None:
    for thread in list(_beside):
        _close(thread)


# ---------------------------------------------------------------- the process beside it


def main() -> None:
    settings = Settings(**json.loads(sys.argv[1]))
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # whatever a library prints is no reply
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    opened: list[Zygote] = []
    threading.Thread(target=_read, args=(lines, opened), daemon=True).start()
    try:
        chapter = find_chapter(settings.chapter)
        if fingerprint(chapter) != settings.course:
            raise CourseError("it has another version of the course")
        zygote = Zygote(chapter.name, modules(chapter), settings.unsafe)
        opened.append(zygote)
        warm_up(chapter)
        zygote.wait()
        while True:
            task = Task(**json.loads(lines.get()))
            if not Path(task.folder).is_dir():
                raise CourseError(f"it does not see {task.folder}")
            graded = grade_submission(task, lambda: zygote.spawn(0))
            zygote.expect_alive()
            print(json.dumps({"graded": graded}), file=replies, flush=True)
    except CourseError as error:
        print(json.dumps({"unfit": f"{os.uname().nodename} can't grade: {error}"}), file=replies, flush=True)
        _end(opened)


def _read(lines: "queue.SimpleQueue[str]", opened: list[Zygote]) -> None:
    """Requests, until the Dask worker hangs up or is killed; then everything here ends, whatever it is at."""
    for line in sys.stdin:
        lines.put(line)
    _end(opened)


def _end(opened: list[Zygote]) -> None:
    for zygote in opened:
        zygote.close()
    os._exit(0)


if __name__ == "__main__":
    main()
