"""Limits around other people's code: time, and what it prints."""

import _thread
import contextlib
import io
import logging
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

OUTPUT_LIMIT = 2000


class Overtime(BaseException):
    """A check ran out of time. Not an ``Exception``, so that a learner's ``except Exception`` lets it through."""


@contextlib.contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """Interrupt the block after ``seconds`` and raise ``Overtime``.

    Works in the main thread (where notebooks, pytest and the shell run their code); elsewhere there is no way to
    interrupt Python code and the block runs without a limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
    elif hasattr(signal, "setitimer"):
        with _alarm(seconds):
            yield
    else:
        with _interrupt_from_a_thread(seconds):
            yield


@contextlib.contextmanager
def _alarm(seconds: float) -> Iterator[None]:
    def ring(signum: int, frame: FrameType | None) -> None:
        # Never in the lines that switch the alarm off: the next ring comes soon enough.
        if frame is not None and frame.f_code.co_filename not in (__file__, contextlib.__file__):
            raise Overtime

    previous = signal.signal(signal.SIGALRM, ring)
    # It rings on, because a bare `except:` in a loop swallows the first; sooner or later one strikes outside its `try`.
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.01)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)


@contextlib.contextmanager
def _interrupt_from_a_thread(seconds: float) -> Iterator[None]:
    """For systems without alarms: as if Ctrl-C were pressed, once."""
    over = threading.Event()

    def interrupt() -> None:
        over.set()
        _thread.interrupt_main()

    timer = threading.Timer(seconds, interrupt)
    timer.daemon = True
    timer.start()
    try:
        yield
    except KeyboardInterrupt:
        if not over.is_set():
            raise
        raise Overtime from None
    finally:
        timer.cancel()


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
