"""Defines a submission's functions and answers calls of them. Runs in a process that is shut in, see ``world``."""

import contextlib
import copy
import hashlib
import importlib
import inspect
import linecache
import random
import socket
import sys
import types
from typing import Any

import numpy as np
import torch
from torch import nn

from utils.course.cells import plain_python
from utils.course.checking import _settings
from utils.course.containment import BoundedText, capture_output
from utils.course.runner import own_settings
from utils.grading.encoding import BadMessage
from utils.grading.peer import Gone, Peer, as_data, modes_of

OUTPUT_KEPT = 2000  # characters of what a submission prints


class Worker(Peer):
    """The end that runs the learner's code, in a namespace like a notebook's."""

    def __init__(self, connection: socket.socket):
        super().__init__(connection, is_worker=True)
        self.namespace: dict[str, Any] = {"__name__": "__main__", "display": print}
        self.printed = BoundedText(OUTPUT_KEPT)
        self.usual = _settings()

    def run(self) -> None:
        """Serve requests until the grader hangs up."""
        with contextlib.suppress(Gone), capture_output(self.printed):
            while True:
                header, blobs = self.receive()
                with own_settings():
                    self.serve(header, blobs)

    def more(self, header: dict) -> Any:
        return {
            "cell": self._cell,
            "answer": self._answer,
            "restore": self._restore,
            "reveal": self._reveal,
            "call module": self._call_module,
            "copy": self._copy,
            "settle": self._settle,
        }[header["kind"]]

    def told(self) -> dict:
        now = {name: str(value) for name, value in _settings().items()}
        return {"settings": now, "printed": self.printed.getvalue()}

    def _cell(self, header: dict) -> tuple[Any, dict]:
        """Run one cell; the result is what it raised, if anything."""
        source, name = plain_python(header["source"]), f"<{header['label']}>"
        linecache.cache[name] = (len(source), None, source.splitlines(keepends=True), name)
        try:
            exec(compile(source, name, "exec"), self.namespace)
        except (Gone, BadMessage):
            raise
        except BaseException as error:
            return str(as_data(error)["kinds"][0]) + ": " + as_data(error)["text"], self.told()
        return None, self.told()

    def _answer(self, header: dict) -> tuple[Any, dict]:
        """Begin a check: the answer of this name, "missing", or "reference" where it is the course's own."""
        self.printed.seek(0)
        self.printed.truncate()
        _seed(header["seed"])
        self.usual = _settings()
        if header["name"] not in self.namespace:
            return "missing", self.told()
        value = self.namespace[header["name"]]
        if value is getattr(importlib.import_module(header["module"]), header["name"], None):
            return "reference", self.told()
        if not callable(value):
            return f"{header['name']} is no function but {type(value).__name__}", self.told()
        return _Answer(value) if inspect.isclass(value) else value, self.told()

    def _restore(self, header: dict) -> tuple[Any, dict]:
        """Give the course's own implementations of exercises that are not graded here their bodies."""
        for module, name, source in header["sources"]:
            reveal(module, name, source)
        return None, {}

    def _reveal(self, header: dict) -> tuple[Any, dict]:
        """From here on the course's own implementation is what the name means."""
        self.namespace[header["name"]] = reveal(header["module"], header["name"], header["source"])
        return None, {}

    def _call_module(self, header: dict, module: nn.Module, args: list, kwargs: dict) -> tuple[Any, dict]:
        with modes_of(header):
            result = (getattr(module, header["method"]) if header["method"] else module)(*args, **kwargs)
        return result, self.told()

    def _settle(self, header: dict) -> tuple[Any, dict]:
        """The end of a check: look everywhere for what has changed."""
        self.table.thorough = True
        return None, {}

    def _copy(self, header: dict, module: nn.Module) -> tuple[Any, dict]:
        return copy.deepcopy(module), self.told()


class _Answer:
    """A class of the submission as a function that makes its objects, so that it crosses as one."""

    def __init__(self, cls: type):
        self.cls, self.__name__ = cls, cls.__name__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.cls(*args, **kwargs)


def _seed(seed: int) -> None:
    """Random state of the process: what a check's outcome may depend on depends on the seed alone."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)


def course_object(module: str, name: str) -> Any:
    return getattr(importlib.import_module(module), name)


def reveal(module: str, name: str, source: str) -> Any:
    """Give an object of the course, whose body was left out, its body; whoever has imported it has it, too."""
    home = importlib.import_module(module)
    old = getattr(home, name)
    filename = f"<{module}: {name}>"
    linecache.cache[filename] = (len(source), None, source.splitlines(keepends=True), filename)
    exec(compile(source, filename, "exec"), vars(home))
    new = getattr(home, name)
    setattr(home, name, _become(old, new))
    return old


def _become(old: Any, new: Any) -> Any:
    if not inspect.isclass(old):
        inner, body = inspect.unwrap(old), inspect.unwrap(new)
        inner.__code__, inner.__defaults__, inner.__kwdefaults__ = body.__code__, body.__defaults__, body.__kwdefaults__
        return old
    for key, value in vars(new).items():
        function = inspect.unwrap(value) if callable(value) else value
        for cell in (function.__closure__ or ()) if isinstance(function, types.FunctionType) else ():
            if cell.cell_contents is new:  # what a bare super() looks in
                cell.cell_contents = old
        if key not in ("__dict__", "__weakref__", "__module__", "__doc__"):
            setattr(old, key, value)
    return old


def secret_seed(seed: int, *about: str) -> int:
    """A seed of its own for each use, from which the seed can't be told."""
    return int.from_bytes(hashlib.sha256(repr((seed, *about)).encode()).digest()[:7], "little")


def main(connection: socket.socket) -> None:
    """What a fresh process does with its connection to the grader."""
    sys.argv = ["notebook"]
    Worker(connection).run()
