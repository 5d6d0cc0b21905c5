"""Forged submissions: the points that they gain from ``mi grade``, and from nbgrader's own way of grading, beside it.

The attempts are those of ``tests/grading/test_hostile.py``, and some with the notebook itself. Nothing in them is
solved, so that every point is forged. nbgrader's own way is its list of steps as it comes: a kernel with the
instructor's rights runs the whole notebook, checks and all. So run this on a machine that holds nothing of value.

    python benchmarks/hostile.py            # both; `ours` or `stock` for one of them
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from nbformat.v4 import new_output
from nbgrader.api import Gradebook

from utils.course.paths import load_file

HERE = Path(__file__).resolve().parents[1]
submissions = load_file(HERE / "tests" / "tooling" / "submissions.py")
hostile = load_file(HERE / "tests" / "grading" / "test_hostile.py")
MINI, RIGHT, Submission = submissions.MINI, submissions.RIGHT, submissions.Submission
HONEST, POINTS = "honest", 10

# nbgrader's settings for this course without its own steps; a kernel that hangs is given up after a minute.
STOCK = """
c = get_config()
c.CourseDirectory.course_id = "mechinterp"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "chapters"
c.CourseDirectory.ignore = ["*.pyc", "__pycache__", "*.md"]
c.Execute.timeout = 60
"""


def tagged(one):
    one.cell("check_double").metadata.tags = ["skip-execution"]


def moved(one):
    check = one.cell("check_double")
    one.notebook.cells.remove(check)
    one.notebook.cells.insert(0, check)
    check.metadata.tags = ["skip-execution"]


def with_a_result_of_its_own(one):
    tagged(one)
    one.cell("check_double").outputs = [new_output("execute_result", {"text/plain": "2"}, execution_count=1)]


def with_partial_credit(one):
    one.fill(double="import sys\ndef double(x):\n    sys.displayhook(2)\n    raise SystemExit")


def worth_more(one):
    one.cell("check_double").metadata.nbgrader.points = 200


def typed_over(one):
    one.fill(check_double="pass")


def said_to_be_no_check(one):
    one.cell("check_double").metadata.nbgrader |= {"grade": False, "locked": False}
    one.fill(check_double="pass")


NOTEBOOKS = {
    "its check tagged": tagged,
    "its check moved and tagged": moved,
    "its check with a result of its own": with_a_result_of_its_own,
    "a result displayed by the answer": with_partial_credit,
    "its check worth more": worth_more,
    "its check typed over": typed_over,
    "its check said to be none": said_to_be_no_check,
}


def hand_in_all(root: Path) -> dict[str, str]:
    """Lay out the class; returns students' names by attempt."""
    names = {}
    for number, (attempt, source) in enumerate(hostile.FORGED.items()):
        names[attempt] = f"forger{number:02}"
        Submission(root, double=hostile.filled(source, root)).hand_in(names[attempt])
    for number, (attempt, change) in enumerate(NOTEBOOKS.items()):
        names[attempt] = f"tamperer{number:02}"
        one = Submission(root, double=hostile.WRONG)
        change(one)
        one.hand_in(names[attempt])
    Submission(root, **RIGHT).hand_in("perfect")
    names[HONEST] = "perfect"
    return names


def run(root: Path, *command: str, check: bool = True) -> None:
    path = os.pathsep.join([str(root), str(HERE)])
    environment = os.environ | {"MI_ROOT": str(root), "MI_STATE": str(root / ".mi"), "PYTHONPATH": path}
    environment |= {"OMP_NUM_THREADS": "1", "MI_TIME_LIMIT": "2"}
    done = subprocess.run([sys.executable, "-m", *command], cwd=root, env=environment, text=True, capture_output=True)
    if check and done.returncode:
        raise RuntimeError(done.stdout + done.stderr)


def scores(root: Path) -> dict[str, float]:
    with Gradebook(f"sqlite:///{root / 'gradebook.db'}") as gradebook:
        return {one["student"]: one["score"] for one in gradebook.submission_dicts(MINI)}


def main(ways: list[str]) -> None:
    found, took = {}, {}
    with tempfile.TemporaryDirectory(prefix="mi-hostile-", ignore_cleanup_errors=True) as folder:
        built = Path(folder) / "built"
        shutil.copytree(HERE / "tests" / "tooling" / "mini_course", built)
        shutil.copy(HERE / "nbgrader_config.py", built)
        run(built, "utils.course.cli", "build")
        run(built, "nbgrader", "generate_assignment", MINI, "--force")
        for way in ways:
            root = shutil.copytree(built, Path(folder) / way)
            names = hand_in_all(root)
            started = time.monotonic()
            if way == "stock":
                (root / "nbgrader_config.py").write_text(STOCK)
                run(root, "nbgrader", "autograde", MINI, check=False)
            else:
                run(root, "utils.course.cli", "grade", "01", check=False)
            took[way] = time.monotonic() - started
            found[way] = scores(root)
    width = max(map(len, names))
    print(f"{'attempt':<{width}}  " + "".join(f"{way:>8}" for way in ways))
    for attempt, student in names.items():
        points = [found[way].get(student) for way in ways]
        print(f"{attempt:<{width}}  " + "".join(f"{'none' if p is None else f'{p:g}':>8}" for p in points))
    for way in ways:
        forged = [found[way].get(student) or 0 for attempt, student in names.items() if attempt != HONEST]
        print(
            f"\n{way}: {sum(p > 0 for p in forged)} of {len(forged)} attempts gained points, {sum(forged):g} together; "
            f"the honest one has {found[way].get(names[HONEST])} of {POINTS}; {took[way]:.0f} s"
        )


if __name__ == "__main__":
    main(sys.argv[1:] or ["ours", "stock"])
