"""``mi grade`` from end to end on the mini course: what nbgrader shows afterwards, and what a killed batch does."""

import csv
import json
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from utils.course.paths import load_file

submissions = load_file(Path(__file__).parents[1] / "tooling" / "submissions.py")
MINI, RIGHT, SPOKEN, Submission = (getattr(submissions, n) for n in ("MINI", "RIGHT", "SPOKEN", "Submission"))
SQUARE = "def double(x):\n    return x ** 2"
FULL = 10

HOSTILE = {
    "loops": RIGHT | {"double": "def double(x):\n    while True: pass"},
    "loops_in_c": RIGHT | {"double": "import re\ndef double(x):\n    re.match('(a+)+$', 'a' * 40 + 'b')"},
    "deaf": RIGHT
    | {
        "double": """
import signal, time
def double(x):
    signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
    while True: time.sleep(1)"""
    },
    "exits": RIGHT | {"double": "import os\ndef double(x):\n    os._exit(0)"},
    "floods": RIGHT | {"double": "def double(x):\n    print('x' * 10**8)\n    return 2 * x"},
    "forks": RIGHT | {"double": "import os\ndef double(x):\n    while True: os.fork()"},
    "threads": RIGHT
    | {
        "double": """
import threading, time
def double(x):
    for _ in range(10000): threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()"""
    },
    "fills_memory": RIGHT | {"double": "def double(x):\n    a = []\n    while True: a.append(torch.ones(2**22))"},
    "fills_disk": RIGHT
    | {
        "double": """
def double(x):
    for i in range(10**6): open(f'/scratch/{i}', 'wb').write(b'0' * 2**20)"""
    },
}
FLOODS = ("floods",)  # right, if loud


@pytest.fixture(scope="module")
def run(course_environment):
    def command(course, *arguments, check=True, **variables):
        environment = course_environment(course) | {"OMP_NUM_THREADS": "1"} | variables
        done = subprocess.run(arguments, cwd=course, env=environment, text=True, capture_output=True, timeout=500)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return command


def mi(*arguments):
    return [sys.executable, "-m", "utils.course.cli", *arguments]


def nbgrader(*arguments):
    return [Path(sys.executable).with_name("nbgrader"), *arguments]


@pytest.fixture(scope="module")
def new_course(built_mini, tmp_path_factory, run):
    def make(name):
        root = tmp_path_factory.mktemp(name) / "course"
        shutil.copytree(built_mini, root)
        run(root, *nbgrader("generate_assignment", MINI, "--force"))
        return root

    return make


@pytest.fixture(scope="module")
def course(new_course, run, zygote_of):
    """A class, hostile submissions between honest ones, graded once."""
    zygote_of().close()  # or the tests are left out
    root = new_course("class")
    Submission(root, **RIGHT, why_four=SPOKEN).hand_in("ada")
    Submission(root).hand_in("blank")
    Submission(root, **RIGHT | {"double": SQUARE}).hand_in("partly")
    Submission(root, **RIGHT | {"double": SQUARE}).hand_in("squarer")
    for name, answers in HOSTILE.items():
        Submission(root, **answers).hand_in(name)
    for name, text in {"cut": "{", "deep": "[" * 100_000, "latin": '{"cells": "\\xe9"}'}.items():
        path = root / "submitted" / name / MINI / f"{MINI}.ipynb"
        path.parent.mkdir(parents=True)
        path.write_bytes(text.encode("latin-1"))
    link = root / "submitted" / "link" / MINI
    link.mkdir(parents=True)
    (link / f"{MINI}.ipynb").symlink_to(root / "solutions" / MINI / f"{MINI}.ipynb")
    scripted = Submission(root, **RIGHT, why_four="<script>alert(1)</script> [x](javascript:alert(2)) `a<b`")
    scripted.hand_in("scripted")
    Submission(root, **RIGHT).hand_in("zoe")
    return root


@pytest.fixture(scope="module")
def graded(course, run):
    return run(course, *mi("grade", "01", "--seed", "7"), check=False, MI_TIME_LIMIT="3")


def scores(course, run):
    run(course, *nbgrader("export"))
    with open(course / "grades.csv", newline="") as file:
        return {row["student_id"]: float(row["score"]) for row in csv.DictReader(file)}


def test_honest_ones_get_all_their_points_and_the_others_lose_their_own(course, graded, run):
    found = scores(course, run)
    assert {name: found[name] for name in ("ada", "zoe", "scripted")} == dict.fromkeys(("ada", "zoe", "scripted"), FULL)
    assert (found["blank"], found["partly"]) == (0, 8)
    assert {name: found[name] for name in HOSTILE} == {n: FULL if n in FLOODS else FULL - 2 for n in HOSTILE}
    assert [found[name] for name in ("cut", "deep", "latin", "link")] == [0, 0, 0, 0]


def test_the_report_names_what_could_not_be_graded(graded):
    assert graded.returncode == 1
    for name, why in {"cut": "can't be read", "deep": "nested too deep", "link": "is a link"}.items():
        (line,) = [line for line in graded.stdout.splitlines() if line.strip().startswith(f"{name}:")]
        assert why in line


def test_nobody_is_graded_twice(course, graded, run):
    again = run(course, *mi("grade", "01"))
    assert "0 to grade" in again.stdout
    Submission(course, **RIGHT).hand_in("partly")
    once_more = run(course, *mi("grade", "01"))
    assert "1 to grade" in once_more.stdout
    assert scores(course, run)["partly"] == FULL


def test_the_same_seed_gives_the_same_verdicts_to_the_last_character(course, graded, run):
    path = course / ".mi" / "grading" / MINI / "ada.json"
    before = json.loads(path.read_text())
    run(course, *mi("grade", "01", "--student", "ada", "--again", "--seed", "7"))
    after = json.loads(path.read_text())

    def verdicts(record):
        return [{**v, "seconds": 0} for v in record["parts"][MINI]["verdicts"]]

    assert verdicts(before) == verdicts(after)


def test_feedback_tells_why(course, graded, run):
    run(course, *nbgrader("generate_feedback", MINI, "--force"))

    def page(name):
        return (course / "feedback" / name / MINI / f"{MINI}.html").read_text()

    assert "could not be graded" in page("cut")
    assert "still running after 3 seconds" in page("loops")
    assert "ended the process" in page("exits")


def test_nothing_of_a_submission_runs_on_a_page(course, graded, run):
    run(course, *nbgrader("generate_feedback", MINI, "--force"))
    for path in (course / "autograded" / "scripted" / MINI, course / "feedback" / "scripted" / MINI):
        text = next(path.glob(f"{MINI}.*")).read_text()
        assert "alert(1)" in text  # shown,
        assert "<script>alert" not in text and 'href="javascript' not in text  # and not run


def test_the_report_names_mistakes_and_who_needs_a_look(course, graded, run):
    text = run(course, *mi("report", "01")).stdout
    assert re.search(r"double +\d+ of \d+ +squared \([12]\)", text)
    assert re.search(r"cut: 01_mini: it can't be read as a notebook", text)
    assert "loops: double: its code ended its process, or did not end" in text
    page = (course / "build" / "report_01.html").read_text()
    assert "You square the number." in page and "<script" not in page and "http" not in page


def test_nothing_is_left_behind(course, graded):
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            assert b"zygote.py" not in path.read_bytes() or str(course).encode() not in path.read_bytes()
        except OSError:
            continue


def gradebook(course):
    with sqlite3.connect(course / "gradebook.db") as database:
        rows = database.execute(
            "select s.id, a.name, g.auto_score, g.needs_manual_grade from grade g "
            "join submitted_notebook n on g.notebook_id = n.id join submitted_assignment sa on n.assignment_id = sa.id "
            "join student s on sa.student_id = s.id join base_cell a on g.cell_id = a.id order by 1, 2"
        ).fetchall()
    return rows


@pytest.mark.slow
def test_a_batch_that_is_killed_goes_on_to_the_same_gradebook(new_course, run, course_environment, zygote_of):
    zygote_of().close()
    root = new_course("killed")
    for i in range(12):
        Submission(root, **RIGHT | ({"double": SQUARE} if i % 3 == 0 else {})).hand_in(f"student{i:02}")
    other = root.with_name("undisturbed")
    shutil.copytree(root, other)
    run(other, *mi("grade", "01", "--seed", "3"))
    moments = random.Random(0)
    took = []
    for _ in range(20):
        started = time.monotonic()
        process = subprocess.Popen(
            mi("grade", "01", "--seed", "3"), cwd=root, env=course_environment(root), stdout=subprocess.DEVNULL
        )
        try:
            process.wait(moments.uniform(2, 25))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
        took.append(time.monotonic() - started)
        if gradebook(root):
            halves = {row[0] for row in gradebook(root) if row[2] is None and not row[3]}
            assert not halves, halves
    run(root, *mi("grade", "01", "--seed", "3"))
    assert gradebook(root) == gradebook(other)
