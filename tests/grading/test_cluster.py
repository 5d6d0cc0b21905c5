"""``mi grade --scheduler`` on a real Dask cluster of two workers here: as on one machine, also where one is killed."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils.course.paths import load_file

pytest.importorskip("distributed", reason="left out: Dask is not installed (`pip install -e .[cluster]`)")
pytestmark = pytest.mark.slow

submissions = load_file(Path(__file__).parents[1] / "tooling" / "submissions.py")
MINI, RIGHT, Submission = submissions.MINI, submissions.RIGHT, submissions.Submission
SQUARE = "def double(x):\n    return x ** 2"
SLEEPY = "import time\ntime.sleep(2)\ndef double(x):\n    return x + x"
PATIENCE = 400  # seconds, on however busy a machine


def mi(*arguments):
    return [sys.executable, "-m", "utils.course.cli", *arguments]


@pytest.fixture(scope="module")
def environment(course_environment):
    return lambda root: course_environment(root) | {"OMP_NUM_THREADS": "1", "MI_TIME_LIMIT": "5"}


@pytest.fixture(scope="module")
def courses(built_mini, tmp_path_factory, environment, zygote_of):
    """The same class three times: graded on this machine, and to be graded on the cluster, twice."""
    zygote_of().close()  # or the tests are left out
    here = tmp_path_factory.mktemp("here") / "course"
    shutil.copytree(built_mini, here)
    nbgrader = Path(sys.executable).with_name("nbgrader")
    for i in range(4):
        Submission(here, **RIGHT | {"double": SLEEPY}).hand_in(f"honest{i}")
        Submission(here, **RIGHT | {"double": SQUARE}).hand_in(f"partly{i}")
    Submission(here, **RIGHT | {"double": "import os\ndef double(x):\n    os._exit(0)"}).hand_in("exits")
    (here / "submitted" / "cut" / MINI).mkdir(parents=True)
    (here / "submitted" / "cut" / MINI / f"{MINI}.ipynb").write_text("{")
    subprocess.run([nbgrader, "generate_assignment", MINI, "--force"], cwd=here, env=environment(here), check=True)
    there, bereft = (shutil.copytree(here, here.with_name(name)) for name in ("there", "bereft"))
    done = subprocess.run(mi("grade", "01", "--seed", "5"), cwd=here, env=environment(here))
    assert done.returncode == 1  # for the one that can't be read
    return here, there, bereft


class Cluster:
    """A scheduler and two workers, as one starts them by hand."""

    def __init__(self, root, environment, log):
        self.environment, self.log = environment, log
        command = ["scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
        self.scheduler = self._start(root, *command)
        self.address = self._wait_for(r"Scheduler at:\s+(tcp://\S+)")
        command = ["worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard"]
        self.workers = [self._start(root, *command, "--name", name) for name in ("one", "two")]

    def _start(self, root, *command):
        with open(self.log, "a") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "dask", *command], cwd=root, env=self.environment, stdout=log, stderr=log
            )

    def _wait_for(self, pattern):
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := re.search(pattern, self.log.read_text()):
                return found[1]
            time.sleep(0.1)
        raise AssertionError(self.log.read_text())

    def close(self):
        for process in (*self.workers, self.scheduler):
            process.kill()
            process.wait()


@pytest.fixture
def cluster(tmp_path, environment):
    """Starts one on a course's folder."""
    started = []

    def start(root):
        started.append(Cluster(root, environment(root), tmp_path / "log"))
        return started[-1]

    yield start
    for one in started:
        one.close()


def verdicts(root):
    """All that is written down of all submissions, but for what depends on the clock."""
    found = {}
    for path in (root / ".mi" / "grading" / MINI).glob("*.json"):
        record = json.loads(path.read_text())
        assert record["written"]
        parts = json.loads(json.dumps(record["parts"]))
        for part in parts.values():
            part["seconds"] = 0
            for verdict in part["verdicts"]:
                verdict["seconds"] = 0
        found[path.stem] = parts
    return found


def processes(root):
    """Of a course's graders, those that run."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            if b"utils.grading" in (path / "cmdline").read_bytes() and os.readlink(path / "cwd") == str(root):
                found.append(path.name)
        except OSError:
            continue
    return found


def test_the_same_results_as_on_one_machine_and_nothing_left_behind(courses, cluster, environment):
    here, there, _ = courses
    running = cluster(there)
    command = mi("grade", "01", "--seed", "5", "--scheduler", running.address)
    done = subprocess.run(command, cwd=there, env=environment(there), text=True, capture_output=True, timeout=400)
    assert done.returncode == 1 and "cut: 01_mini: it can't be read" in done.stdout, done.stdout + done.stderr
    assert len(verdicts(here)) == 10
    assert verdicts(there) == verdicts(here)
    assert "Worker" in running.log.read_text()
    assert processes(there) == []


def test_a_worker_that_is_killed_in_the_middle_costs_nobody_anything(courses, cluster, environment):
    here, _, root = courses
    running = cluster(root)
    command = mi("grade", "01", "--seed", "5", "--scheduler", running.address)
    with subprocess.Popen(command, cwd=root, env=environment(root), stdout=subprocess.PIPE, text=True) as grading:
        end = time.monotonic() + PATIENCE
        while not list((root / ".mi" / "grading" / MINI).glob("*.json")):
            assert time.monotonic() < end and grading.poll() is None
            time.sleep(0.1)
        assert len(processes(root)) == 2  # both are at work
        running.workers[0].send_signal(signal.SIGKILL)
        done_by_then = len(list((root / ".mi" / "grading" / MINI).glob("*.json")))
        grading.communicate(timeout=400)
    assert done_by_then < 8
    assert running.workers[0].poll() == -signal.SIGKILL and running.workers[1].poll() is None
    assert verdicts(root) == verdicts(here)
    end = time.monotonic() + 20
    while processes(root) and time.monotonic() < end:  # what the killed one has started ends by itself
        time.sleep(0.2)
    assert processes(root) == []


def test_a_worker_with_another_course_is_not_asked(courses, cluster, environment, tmp_path):
    here, there, _ = courses
    other = shutil.copytree(here, tmp_path / "other")
    with open(other / "tests" / MINI / "test_mini.py", "a") as file:
        file.write("# changed\n")
    running = cluster(other)
    command = mi("grade", "01", "--again", "--scheduler", running.address)
    done = subprocess.run(command, cwd=there, env=environment(there), text=True, capture_output=True, timeout=400)
    assert done.returncode == 1 and "it has another version of the course" in done.stderr, done.stderr


def test_without_a_scheduler_there_is_one_sentence(courses, environment):
    here, *_ = courses
    command = mi("grade", "01", "--again", "--scheduler", "tcp://127.0.0.1:1")
    done = subprocess.run(command, cwd=here, env=environment(here), text=True, capture_output=True, timeout=400)
    assert done.returncode == 1 and done.stderr.startswith("mi: No Dask scheduler answers at tcp://127.0.0.1:1")
    assert len(done.stderr.splitlines()) == 1, done.stderr


def test_without_dask_there_is_one_sentence(courses, environment, tmp_path):
    here, *_ = courses
    (tmp_path / "distributed.py").write_text("raise ImportError('not here')")
    variables = environment(here)
    variables["PYTHONPATH"] = f"{tmp_path}{os.pathsep}{variables['PYTHONPATH']}"
    command = mi("grade", "01", "--again", "--scheduler", "tcp://127.0.0.1:1")
    done = subprocess.run(command, cwd=here, env=variables, text=True, capture_output=True, timeout=400)
    assert done.returncode == 1 and done.stderr.startswith("mi: Grading on a cluster needs Dask"), done.stderr
