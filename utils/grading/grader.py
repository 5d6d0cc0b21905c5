"""The grader's end: a submission's answers as objects that the checks can call, and what becomes of them.

The grader never runs a line of the submission. Whatever happens over there (an endless loop, a crash, nonsense in
reply) ends in a verdict on the exercise at hand; the next one gets a fresh worker.
"""

import contextlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from utils.course.checking import Mismatch, _settings
from utils.course.containment import Ended, Interrupted, Overtime, limited_time
from utils.course.manifest import CourseError, Exercise
from utils.course.runner import check_class
from utils.grading.encoding import BadMessage
from utils.grading.peer import Gone, Peer, RemoteError, RemoteFunction
from utils.grading.view import make_view, source_of
from utils.grading.worker import secret_seed
from utils.grading.world import STARTED

HERE = Path(__file__).parent
START_LIMIT = 300  # seconds for the zygote's imports, on however busy a machine
CONTAINER_MARKS = (Path("/.dockerenv"), Path("/run/.containerenv"))  # Docker's, Podman's
WORKER_LIMIT = 120  # seconds, likewise
PAUSES = (1, 5, 20)  # seconds, after which a worker that did not start is asked for again
SLOTS = 512  # more than graders work side by side


class Unprotected(CourseError):
    """A protection that this machine does not offer; nothing is graded without it unless one insists."""


class NoWorkers(Exception):
    """The zygote has died, and all workers with it."""


class Zygote:
    """The process that starts workers, and the view of the course that they see.

    Args:
        chapter: The chapter whose submissions are graded; its references are not in the view.
        modules: What to import once, ahead of all submissions.
        unsafe: Whether to go on with what is left of the protections of ``world`` where the machine lacks some.
        view: The course that the workers see; one without the answers if not given.
        walls: "own world", or, for tests, "in place" or None.
    """

    def __init__(
        self,
        chapter: str,
        modules: tuple[str, ...] = (),
        unsafe: bool = False,
        view: Path | None = None,
        walls: str | None = "own world",
    ):
        self.unsafe, self.landlock = unsafe, 0  # the kernel's version of it
        self.folder = tempfile.TemporaryDirectory(prefix="mi-grading-", ignore_cleanup_errors=True)
        place = Path(self.folder.name)
        (place / "staging").mkdir()
        os.chmod(place, 0o755)  # noqa: S103 (root's workers are somebody else)
        self.settings = {
            "view": str(view or make_view(place / "course", chapter)),
            "staging": str(place / "staging"),
            "modules": list(modules),
            "walls": walls,
        }
        self._start()

    def _start(self) -> None:
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process = subprocess.Popen(
            [sys.executable, "-I", str(HERE / "zygote.py"), json.dumps(self.settings)],
            stdin=theirs,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=_clean_environment(),
        )
        theirs.close()
        self.ready = False

    def wait(self) -> None:
        """Wait until it is ready.

        Raises:
            Unprotected: If the machine lacks a protection.
            CourseError: If it does not start.
        """
        if self.ready:
            return
        if not select.select([self.control], [], [], START_LIMIT)[0]:
            raise CourseError(f"The workers did not start within {START_LIMIT} seconds.")
        said = self.control.recv(2**16)
        answer = json.loads(said) if said else {"broken": "it ended before it said anything"}
        if "missing" in answer:
            if not self.unsafe:
                raise Unprotected(
                    f"This machine does not offer {answer['missing']}. Without it, code in a submission could read "
                    "your files and change grades. `--unsafe` grades all the same, with what is left of the walls: do "
                    f"it for students you trust, or on a machine that holds nothing else.{_container_s_part()}"
                )
            self._stop()
            self.settings["walls"] = "in place"
            self._start()
            return self.wait()
        if "broken" in answer:
            raise CourseError(f"The workers could not be started: {answer['broken']}")
        self.landlock = answer["landlock"]
        self.ready = True

    def protections(self) -> str:
        """Which of them are on, and which are off, in one line."""
        on = {"namespaces": self.settings["walls"] == "own world", "Landlock": bool(self.landlock)}
        text = f"protected by {', '.join([*(name for name in on if on[name]), 'seccomp', 'resource limits'])}"
        return text + "".join(f"; off: {name}" for name in on if not on[name])

    def spawn(self, slot: int) -> tuple[socket.socket, int]:
        """A fresh worker: the connection to it, and its process.

        A machine that is short of memory or processes for a moment is asked again.

        Args:
            slot: A number that no other worker has at this moment.

        Raises:
            NoWorkers: If the zygote has died.
            CourseError: If the machine goes on refusing; the message says what.
        """
        self.wait()
        for pause in (*PAUSES, None):
            mine, answer, pid = self._ask_for_worker(slot)
            if answer == STARTED:
                return mine, pid
            mine.close()
            self.expect_alive()
            if pause is None:
                raise CourseError(f"A worker could not be started: {answer.decode(errors='replace') or 'it ended'}.")
            time.sleep(pause)

    def _ask_for_worker(self, slot: int) -> tuple[socket.socket, bytes, int]:
        """A connection, what came over it first, and from which process: ``STARTED``, or why there is no worker."""
        mine, theirs = socket.socketpair()
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
        try:
            # An identity for each worker on this machine: what one of them uses up, no other one misses.
            request = {"slot": SLOTS * self.process.pid + slot}
            socket.send_fds(self.control, [json.dumps(request).encode()], [theirs.fileno()])
        except OSError:
            return mine, b"", 0
        finally:
            theirs.close()
        mine.settimeout(WORKER_LIMIT)
        try:
            answer, credentials, _, _ = mine.recvmsg(1000, socket.CMSG_SPACE(12))
        except TimeoutError:
            return mine, f"it said nothing for {WORKER_LIMIT} seconds".encode(), 0
        mine.settimeout(None)
        mine.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 0)
        return mine, answer, int.from_bytes(credentials[0][2][:4], sys.byteorder)

    def expect_alive(self) -> None:
        """What its workers have answered counts only if it is: they end with it.

        Raises:
            NoWorkers: If it has died.
        """
        poll = select.poll()
        poll.register(self.control, 0)
        if poll.poll(0):  # it has hung up
            raise NoWorkers("The process that starts workers has died.")

    def revive(self) -> None:
        """Start it anew if it has died. For the process that has started it, while nobody else uses it."""
        try:
            self.expect_alive()
        except NoWorkers:
            self._stop()
            self._start()
        self.wait()

    def close(self) -> None:
        self._stop()
        self.folder.cleanup()

    def _stop(self) -> None:
        self.control.close()
        self.process.kill()  # and with it, by the kernel, all that it has started
        self.process.wait()


def _container_s_part() -> str:
    """Containers keep namespaces from those inside, unless they are told otherwise."""
    if any(path.exists() for path in CONTAINER_MARKS):
        return " It may be the container that withholds it: docs/docker/Dockerfile begins with how to start one."
    return ""


def _clean_environment() -> dict[str, str]:
    """What a worker may know: nothing of the instructor's environment."""
    threads = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
    course = {"NBGRADER_EXECUTION": "autograde", "MPLBACKEND": "agg"}
    return (
        {"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", "USER": "nobody", "PYTHONDONTWRITEBYTECODE": "1"}
        | threads
        | course
    )


class WorkerProcess(Peer):
    """The grader's end of one worker."""

    def __init__(self, connection: socket.socket, pid: int):
        super().__init__(connection, is_worker=False)
        self.pid = pid
        self.alive = True
        self.handle = os.pidfd_open(pid)
        self.usual = _settings()
        self.settings: dict[str, Any] = {}
        self.printed = ""
        self.verdict: BaseException | None = None
        self.undo: list[Callable[[], None]] = []
        self.used = self.cpu_seconds()

    def cpu_seconds(self) -> float:
        """What the process has computed, with all its threads: the kernel's word for it."""
        with contextlib.suppress(OSError):  # it has ended
            self.used = time.clock_gettime((~self.pid << 3) | 2)
        return self.used

    def ask(self, kind: str, *values: Any, **fields: Any) -> tuple[Any, dict]:
        if not self.alive:
            raise Ended("had ended before")
        outermost = self.depth == 0
        try:
            with torch.inference_mode(False):
                value, header = super().ask(kind, *values, **fields)
        except Gone as error:
            how = self._end()
            raise Ended(how) from error
        except BadMessage as error:
            if not outermost:
                raise
            self.kill()
            raise Mismatch(f"What your code hands over can't be taken: {error}.", actual="unreadable") from error
        except BaseException as error:
            told = isinstance(error, RemoteError) or any(error is thrown for thrown in self.thrown)
            if outermost and told:
                self.undo += self.table.left_otherwise()
                self._say_verdict()
            elif outermost:  # the time, or a person: nobody knows what it is in the middle of
                self.kill()
            raise
        if outermost:
            self.undo += self.table.left_otherwise()
            self._say_verdict()
        return value, header

    def _say_verdict(self) -> None:
        if self.verdict is not None:
            verdict, self.verdict = self.verdict, None
            raise verdict

    def raised(self, error: BaseException) -> None:
        if not isinstance(error, Exception):
            raise error
        if isinstance(error, Mismatch) and self.verdict is None:
            self.verdict = error

    def replied(self, header: dict) -> None:
        settings, printed = header.get("settings"), header.get("printed")
        if isinstance(settings, dict) and settings.keys() == self.usual.keys():
            self.settings = settings
        if isinstance(printed, str):
            self.printed = printed[:2000]

    def restore_models(self) -> bool:
        """Put the grader's models back to what they were; whether a call had left one otherwise."""
        if self.alive and self.depth == 0 and self.table.next:
            self.ask("settle")
        undo, self.undo = self.undo, []
        for step in reversed(undo):
            step()
        return bool(undo)

    def _end(self) -> str:
        """How it ended, in words."""
        self.kill()
        return "ended the process it ran in (an exit, a crash in compiled code, or more memory than there is)"

    def kill(self) -> None:
        if self.alive:
            self.cpu_seconds()
            self.alive = False
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self.handle, signal.SIGKILL)
            os.close(self.handle)
            self.connection.close()


@dataclass(frozen=True)
class Cell:
    """A cell of a submission that is run; ``exercise`` is the one that it answers, if any."""

    label: str
    source: str
    exercise: str | None = None
    setup: bool = False


class Session:
    """One notebook of a submission.

    Args:
        cells: What to run, in order.
        spawn: Starts a worker.
        known: Exercises of the chapter whose references may be there from the start.
        cell_limit: Seconds of computing for each cell.
        total_limit: Seconds of computing for the whole notebook.
    """

    def __init__(
        self,
        cells: list[Cell],
        spawn: Callable[[], tuple[socket.socket, int]],
        known: list[Exercise],
        cell_limit: float,
        total_limit: float,
    ):
        self.cells, self.spawn, self.known = list(cells), spawn, list(known)
        self.cell_limit, self.total_limit = cell_limit, total_limit
        self.revealed: list[Exercise] = []
        self.errors: dict[str, str] = {}  # by label
        self.dead: set[str] = set()  # cells that ended the process
        self.spent = 0.0
        self.worker: WorkerProcess | None = None

    def ready(self) -> WorkerProcess:
        """A worker that has run the cells and knows the references of what is graded already."""
        while self.worker is None or not self.worker.alive:
            self.close()
            if self.over():
                raise Overtime
            self.worker = WorkerProcess(*self.spawn())
            with contextlib.suppress(Ended, Overtime):
                self._prepare(self.worker)
        return self.worker

    def seconds(self) -> float:
        """What the notebook has computed so far."""
        return self.spent + (self.worker.cpu_seconds() if self.worker is not None else 0.0)

    def over(self) -> bool:
        """Whether it has used up its time."""
        return self.seconds() > self.total_limit

    def _prepare(self, worker: WorkerProcess) -> None:
        self._restore(worker, self.known)
        for cell in self.cells:
            if cell.label in self.dead:
                continue
            try:
                with limited_time(self.cell_limit, cpu=worker.cpu_seconds) as clock, clock.theirs():
                    error, header = worker.ask("cell", label=cell.label, source=cell.source)
            except Overtime:
                self._blame(cell, f"still running after {self.cell_limit:g} seconds")
                raise
            except Ended as ended:
                self._blame(cell, f"it {ended}")
                raise
            except Mismatch as nonsense:
                self._blame(cell, nonsense.note)
                raise Ended("talked nonsense") from nonsense
            if isinstance(error, str):
                self.errors[cell.label] = error
        for exercise in self.revealed:
            self._send_reference(worker, exercise)

    def _restore(self, worker: WorkerProcess, known: list[Exercise]) -> None:
        worker.ask("restore", sources=[[e.module, e.name, source_of(e)] for e in known])

    def lend(self, wanted: list[Exercise]) -> None:
        """Put references into the course that the worker sees; in the notebook their names mean what they meant."""
        new = [e for e in wanted if e not in self.known]
        self.known += new
        if new and self.worker is not None and self.worker.alive:
            with contextlib.suppress(Ended, Mismatch):
                self._restore(self.worker, new)

    def _send_reference(self, worker: WorkerProcess, exercise: Exercise) -> None:
        worker.ask("reveal", module=exercise.module, name=exercise.name, source=source_of(exercise))

    def _blame(self, cell: Cell, how: str) -> None:
        self.errors[cell.label] = how
        self.dead.add(cell.label)

    def answer(self, exercise: Exercise, seed: int) -> "RemoteAnswer | str":
        """The submission's answer, "reference" if it is ours, or why there is none."""
        found = self._fetch(exercise, seed)
        if isinstance(found, str):
            return found
        return RemoteAnswer(self, exercise, found)

    def _fetch(self, exercise: Exercise, seed: int) -> RemoteFunction | str:
        worker = self.ready()
        worker.forget()
        worker.settings = {}
        with limited_time(self.cell_limit, cpu=worker.cpu_seconds):
            found, header = worker.ask("answer", name=exercise.name, module=exercise.module, seed=seed)
        worker.replied(header)
        return found if isinstance(found, RemoteFunction) else str(found)

    def reveal(self, exercise: Exercise) -> None:
        """The exercise's score is fixed: from here on the submission may use our implementation."""
        self.revealed.append(exercise)
        if self.worker is not None and self.worker.alive:
            with contextlib.suppress(Ended, Mismatch):
                self._send_reference(self.worker, exercise)

    def close(self) -> None:
        if self.worker is not None:
            self.spent += self.worker.cpu_seconds()
            self.worker.kill()
            self.worker = None


class RemoteAnswer:
    """A submission's function or class, for ``run_checks``."""

    def __init__(self, session: Session, exercise: Exercise, function: RemoteFunction):
        self.session, self.exercise = session, exercise
        self.function: RemoteFunction | None = function
        self.__name__ = function.__name__
        self.printed = ""
        if hasattr(function, "__signature__"):
            self.__signature__ = function.__signature__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.function(*args, **kwargs)

    def settings(self) -> dict[str, Any]:
        return self.function._remote[0].settings

    def cpu_time(self) -> float:
        """Seconds that this process and the worker have computed."""
        worker = self.session.worker
        return time.thread_time() + (worker.cpu_seconds() if worker is not None else 0.0)

    @contextlib.contextmanager
    def one_check(self, title: str, seed: int) -> Iterator[None]:
        """What surrounds a check: a seed of its own over there, and models put back afterwards.

        Raises:
            Mismatch: If nothing else was wrong, and a model was left otherwise than it was handed over.
        """
        function = self.session._fetch(self.exercise, secret_seed(seed, self.exercise.name, title))
        if isinstance(function, str):
            raise Ended("is not there when it is looked up again")
        self.function = function
        worker = self.session.worker
        try:
            yield
        finally:
            littered = worker.restore_models()
            self.printed = worker.printed or self.printed
        may = self.exercise.may_change_inputs or getattr(check_class(self.exercise), "changes_models", False)
        if littered and not may:
            raise Mismatch(
                "Your function leaves a model otherwise than it was: weights, hooks, modes or settings of its parts.",
                actual="a changed model",
                returned="a changed model",
            )


__all__ = ["Cell", "Interrupted", "NoWorkers", "RemoteAnswer", "Session", "Unprotected", "Zygote"]
