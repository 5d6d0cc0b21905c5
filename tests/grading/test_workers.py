"""Workers that do not start, and a zygote that dies: nobody loses a point by it, and the reason is told."""

import array
import os
import socket
import threading
from pathlib import Path
from types import SimpleNamespace

import pytest

from utils.course.manifest import CourseError
from utils.course.paths import load_file
from utils.grading import grader
from utils.grading.batch import Task, grade_here
from utils.grading.grader import NoWorkers, Zygote
from utils.grading.world import STARTED

submissions = load_file(Path(__file__).parents[1] / "tooling" / "submissions.py")
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="an ordinary user has one identity")


@pytest.fixture
def answering(monkeypatch):
    """A zygote that gives these answers, one after the other, in place of workers."""
    monkeypatch.setattr(grader, "PAUSES", (0, 0))
    monkeypatch.setattr(grader, "WORKER_LIMIT", 1)

    def start(*answers):
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

        def serve():
            for answer in answers:
                _, ancillary, _, _ = theirs.recvmsg(4096, socket.CMSG_SPACE(4))
                connection = socket.socket(fileno=array.array("i", ancillary[0][2])[0])
                connection.sendall(answer)
                connection.close()

        threading.Thread(target=serve, daemon=True).start()
        zygote = Zygote.__new__(Zygote)
        zygote.control, zygote.ready, zygote.process = mine, True, SimpleNamespace(pid=1)
        zygote.other_end = theirs
        return zygote

    return start


def test_a_machine_that_is_short_of_memory_for_a_moment_is_asked_again(answering):
    refusal = b"fork: Cannot allocate memory"
    connection, pid = answering(refusal, refusal, STARTED).spawn(0)
    connection.close()
    assert pid == os.getpid()


def test_what_a_machine_goes_on_refusing_is_said(answering):
    with pytest.raises(CourseError, match="fork: Cannot allocate memory"):
        answering(*[b"fork: Cannot allocate memory"] * 3).spawn(0)


def test_a_zygote_that_has_died_is_told_from_a_machine_that_refuses(answering):
    zygote = answering()
    zygote.other_end.close()
    with pytest.raises(NoWorkers):
        zygote.spawn(0)


@as_root
def test_a_worker_that_fails_on_its_way_in_says_of_what(zygote_of, monkeypatch):
    monkeypatch.setattr(grader, "PAUSES", ())
    with pytest.raises(CourseError, match="OverflowError"):
        zygote_of().spawn(2**70)


@as_root
def test_no_two_workers_of_a_machine_have_one_identity(zygote_of):
    """Or what the code of one submission uses up (threads, say) the worker of another batch would miss."""
    zygotes = [zygote_of(), zygote_of()]
    workers = [zygote.spawn(slot) for zygote in zygotes for slot in (0, 1)]
    assert len({os.stat(f"/proc/{pid}").st_uid for _, pid in workers}) == 4
    for connection, _ in workers:
        connection.close()


def test_a_batch_outlives_its_zygote(mini, zygote_of, tmp_path):
    tasks = []
    for number in range(6):
        submission = submissions.Submission(mini, **submissions.RIGHT)
        path = submission.write(tmp_path / f"student{number}" / submissions.MINI / f"{submissions.MINI}.ipynb")
        tasks.append(Task(submissions.MINI, f"student{number}", str(path.parent), 0))
    zygote, found = zygote_of(), {}
    for task, result in grade_here(tasks, zygote, 2):
        if not found:
            zygote.process.kill()
        found[task.student] = [v["status"] for v in result[submissions.MINI]["verdicts"]]
    assert found == {task.student: ["passed"] * 4 for task in tasks}
