"""Limits around other people's code: time, and what it prints."""

import _thread
import contextlib
import io
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

OUTPUT_LIMIT = 2000


TICK = 0.05  # seconds between two looks at the clock
AGAIN = 0.001  # seconds between two attempts to stop what is over its time
ASLEEP = 0.05  # code that computes for less than this share of its time waits for something
AROUND = 3  # limits of computing that a check may take in all, with what is not the learner's
PATIENCE = 10  # limits that may pass in all, on however busy a machine,
AT_LEAST = 60  # and seconds, for a small limit


class Overtime(BaseException):
    """A check ran out of time. Not an ``Exception``, so that a learner's ``except Exception`` lets it through."""


class Ended(BaseException):
    """An answer that is graded in another process has ended that process; the message says how."""


class Interrupted(KeyboardInterrupt):
    """A person pressed Ctrl-C; any other ``KeyboardInterrupt`` comes from the code that runs."""


class Clock:
    """What somebody else's code has used of its time.

    CPU time counts, not what a busy machine gives to others; only code that hardly computes, and so waits, is charged
    for the time that passes. Imports are free (the first use of a device can load hundreds of modules) and are not
    interrupted: a module that is loaded by half breaks whoever needs it next.

    Args:
        seconds: The limit.
        counting: Whether everything counts, or only what runs inside ``theirs``.
        cpu, wall: Where the two times are read.
    """

    def __init__(
        self,
        seconds: float,
        counting: bool = True,
        cpu: Callable[[], float] = time.thread_time,
        wall: Callable[[], float] = time.monotonic,
    ):
        self.seconds, self.depth, self.cpu, self.wall = seconds, int(counting), cpu, wall
        self.computed, self.passed, self.around = 0.0, 0.0, 0.0
        self.started = wall()
        self._last = cpu(), self.started

    @contextlib.contextmanager
    def theirs(self) -> Iterator[None]:
        """Count what runs inside."""
        self.advance()
        self.depth += 1
        try:
            yield
        finally:
            self.advance()
            self.depth -= 1

    def advance(self, importing: bool = False) -> None:
        """Count what was used since the last time."""
        now = self.cpu(), self.wall()
        computed, passed = now[0] - self._last[0], now[1] - self._last[1]
        self._last = now
        if not importing:
            self.around += computed
        if not importing and self.depth:
            self.computed, self.passed = self.computed + computed, self.passed + passed

    def is_over(self, importing: bool = False) -> bool:
        """Whether the code should be stopped now."""
        self.advance(importing)
        if self.wall() - self.started > max(PATIENCE * self.seconds, AT_LEAST):
            return True
        waits = self.passed > self.seconds and self.computed < ASLEEP * self.passed
        return not importing and (waits or self.computed > self.seconds or self.around > AROUND * self.seconds)


@contextlib.contextmanager
def limited_time(seconds: float, counting: bool = True, cpu: Callable[[], float] = time.thread_time) -> Iterator[Clock]:
    """Interrupt the block when its clock is over, and raise ``Overtime``.

    Works in the main thread (where notebooks, pytest and the shell run their code); elsewhere there is no way to
    interrupt Python code and the block runs without a limit.

    Args:
        seconds: The limit of the clock.
        counting: Whether everything counts, or only what runs inside the clock's ``theirs``.
        cpu: Where its computing time is read.
    """
    if threading.current_thread() is not threading.main_thread():
        yield Clock(seconds, counting)
    elif hasattr(signal, "setitimer"):
        with _alarm(Clock(seconds, counting, cpu)) as clock:
            yield clock
    else:
        with _interrupt_from_a_thread(Clock(seconds, counting, cpu=time.process_time)) as clock:
            yield clock


@contextlib.contextmanager
def _alarm(clock: Clock) -> Iterator[Clock]:
    outside = _caller()

    def ring(signum: int, frame: FrameType | None) -> None:
        # Never in the lines that switch the alarm off: the next ring comes soon enough.
        if clock.is_over(_importing(frame, outside)) and frame is not None and not _is_ours(frame):
            # A bare `except:` in a loop swallows the first; of many, one soon strikes outside its `try`.
            signal.setitimer(signal.ITIMER_REAL, AGAIN, AGAIN)
            raise Overtime

    previous = signal.signal(signal.SIGALRM, ring)
    tick = min(TICK, clock.seconds / 4)
    signal.setitimer(signal.ITIMER_REAL, tick, tick)
    try:
        yield clock
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextlib.contextmanager
def _interrupt_from_a_thread(clock: Clock) -> Iterator[Clock]:
    """For systems without alarms: as if Ctrl-C were pressed, once."""
    outside, main = _caller(), threading.main_thread().ident
    over, left = threading.Event(), threading.Event()

    def watch() -> None:
        while not left.wait(min(TICK, clock.seconds / 4)):
            if clock.is_over(_importing(sys._current_frames().get(main), outside)):
                over.set()
                _thread.interrupt_main()
                return

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        try:
            yield clock
        finally:
            left.set()
            watcher.join()
    except KeyboardInterrupt:
        if not over.is_set():
            raise
        raise Overtime from None


def _caller() -> FrameType:
    """The frame that opened the block."""
    frame = sys._getframe(1)
    while _is_ours(frame):
        frame = frame.f_back
    return frame


def _is_ours(frame: FrameType) -> bool:
    return frame.f_code.co_filename in (__file__, contextlib.__file__)


def _importing(frame: FrameType | None, outside: FrameType) -> bool:
    """Whether a module is being loaded somewhere between a frame and the one that opened the block."""
    while frame is not None and frame is not outside:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


@contextlib.contextmanager
def noted_interrupts() -> Iterator[None]:
    """For the duration, Ctrl-C raises ``Interrupted``, so that an answer that raises the same is told apart from it."""
    previous = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or not callable(previous):
        yield
        return

    def press(signum: int, frame: FrameType | None) -> None:
        try:
            previous(signum, frame)
        except KeyboardInterrupt:
            raise Interrupted from None

    signal.signal(signal.SIGINT, press)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


class BoundedText(io.StringIO):
    """Keeps the first ``limit`` characters written to it, so that a print in an endless loop fills no memory."""

    def __init__(self, limit: int):
        super().__init__()
        self.limit = limit

    def write(self, text: str) -> int:
        room = self.limit - self.tell()
        if room > 0:
            super().write(text[:room])
        return len(text)


@contextlib.contextmanager
def capture_output(target: io.TextIOBase) -> Iterator[None]:
    """Send prints, warnings, progress bars and log lines to ``target``.

    nbgrader gives no points to a cell with any output on stderr; a harmless warning must not cost an exercise.
    """
    handlers = _console_handlers()
    streams = [h.setStream(target) for h in handlers]
    try:
        with contextlib.redirect_stdout(target), contextlib.redirect_stderr(target):
            yield
    finally:
        for handler, stream in zip(handlers, streams, strict=True):
            handler.setStream(stream)


def _console_handlers() -> list[logging.StreamHandler]:
    """Handlers, of any logger, that hold today's stdout or stderr itself, and so escape a redirection."""
    loggers = [logging.getLogger(), *logging.Logger.manager.loggerDict.values()]
    handlers = {id(h): h for logger in loggers for h in getattr(logger, "handlers", ())}.values()
    held = [(h, vars(h).get("stream")) for h in handlers if isinstance(h, logging.StreamHandler)]
    return [handler for handler, stream in held if stream is sys.stderr or stream is sys.stdout]
