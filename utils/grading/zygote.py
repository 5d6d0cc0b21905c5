"""Starts workers quickly: enters the world once, imports the libraries once, and forks a clean process for each.

Run as a file, so that nothing of the course is imported before the world is entered. Its standard input is the control
socket: each message brings the socket of one worker to start.
"""

import contextlib
import gc
import json
import os
import socket
import sys
import tempfile
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent


def serve(control: socket.socket, walls: str | None, course: Path) -> None:
    """Fork a worker for each request, until the grader hangs up."""
    world = sys.modules["world"]
    while True:
        data, descriptors, _, _ = socket.recv_fds(control, 4096, 1)
        _reap()
        if not data:
            return
        connection = socket.socket(fileno=descriptors[0])
        try:
            if os.fork() == 0:
                _become_worker(world, connection, walls, json.loads(data)["slot"], course)
        except OSError as error:  # no memory, or too many processes, at the moment
            _say(connection, f"fork: {error.strerror}")
        connection.close()


def _become_worker(world, connection: socket.socket, walls: str | None, slot: int, course: Path) -> None:
    try:
        world.die_with_parent()
        if walls == "own world":
            world.shut_in(connection, slot)
        elif walls == "in place":
            scratch = Path(tempfile.mkdtemp(dir=course.parent))
            os.environ.update(dict.fromkeys(("HOME", "TMPDIR", "MPLCONFIGDIR"), str(scratch)))
            tempfile.tempdir = None
            world.shut_in_place(connection, course, scratch)
        else:
            world._keep_only({connection.fileno()})
            connection.sendall(world.STARTED)
    except BaseException as error:
        _say(connection, f"{type(error).__name__}: {error}")
        os._exit(0)
    try:
        from utils.grading.worker import main

        main(connection)
    finally:
        os._exit(0)


def _say(connection: socket.socket, why: str) -> None:
    """Tell the grader why there is no worker, if it is still there."""
    with contextlib.suppress(OSError):
        connection.sendall(why.encode()[:1000])


def _reap() -> None:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass


def preload(modules: list[str]) -> list[str]:
    """Import modules; what can't be imported is the submission's affair, later."""
    failed = []
    for name in modules:
        try:
            __import__(name)
        except Exception as error:
            failed.append(f"{name}: {error}")
    return failed


def main() -> None:
    settings = json.loads(sys.argv[1])
    control = socket.socket(fileno=os.dup(0))
    sys.path[:] = [path for path in sys.path if Path(path or ".").resolve() != HERE]
    import importlib.util

    spec = importlib.util.spec_from_file_location("world", HERE / "world.py")
    world = importlib.util.module_from_spec(spec)
    sys.modules["world"] = world
    spec.loader.exec_module(world)
    course, walls = settings["view"], settings["walls"]
    try:
        world.die_with_parent()
        if walls == "own world":
            world.enter(Path(settings["view"]), Path(settings["staging"]))
            course = "/course"
            os.environ.update(HOME="/scratch", TMPDIR="/scratch", MPLCONFIGDIR="/scratch/matplotlib")
        sys.path.insert(0, course)
        os.environ["MI_ROOT"], os.environ["MI_STATE"] = course, "/scratch/.mi"
        os.chdir(course)
        failed = preload(["utils.grading.worker", *settings["modules"]])
        import torch

        torch.set_num_threads(1)
        torch.ones(2, 2, device="meta").tril()  # the first use of this device loads hundreds of modules
        gc.collect()
        gc.freeze()  # or each worker's first collection copies the memory of all that is loaded
        answer = {"ready": True, "failed": failed, "landlock": world.landlock()}
    except world.Missing as missing:
        answer = {"missing": str(missing)}
    except BaseException:
        answer = {"broken": traceback.format_exc()[-3000:]}
    control.send(json.dumps(answer).encode())
    if "ready" in answer:
        serve(control, walls, Path(course))


if __name__ == "__main__":
    main()
