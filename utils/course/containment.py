"""Limits around other people's code: time, and what it prints."""

import _thread
import contextlib
import io
import logging
import signal
import sys
import threading
from collections.abc import Iterator

OUTPUT_LIMIT = 2000


class Overtime(BaseException):
    """A check ran out of time. Not an ``Exception``, so that a learner's ``except Exception`` lets it through."""


@contextlib.contextmanager
def limited_time(seconds: float) -> Iterator[None]:
    """Interrupt the block after ``seconds``, the way Ctrl-C does, and raise ``Overtime``.

    Works in the main thread (where notebooks, pytest and the shell run their code); elsewhere there is no way to
    interrupt Python code and the block runs without a limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    finished, over, lock = threading.Event(), threading.Event(), threading.Lock()

    def interrupt() -> None:
        wait = seconds
        while not finished.wait(wait):
            with lock:
                if not finished.is_set():
                    over.set()
                    _interrupt_main_thread()
            wait = 1.0  # a bare `except:` in a loop may have swallowed the first one

    threading.Thread(target=interrupt, daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        if not over.is_set():
            raise
        raise Overtime from None
    finally:
        with lock:
            finished.set()


def _interrupt_main_thread() -> None:
    if hasattr(signal, "pthread_kill"):  # wakes a sleeping system call too
        signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    else:
        _thread.interrupt_main()


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
