"""Grades an honest class by ``mi grade``, with one worker and with several, and by nbgrader as it comes: how quickly.

    python benchmarks/grading.py 02b --students 40 --jobs 1 2 --stock 3

Every student hands in our own solution. The machine should have nothing else to do.
"""

import argparse
import csv
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from utils.course import paths
from utils.course.manifest import find_parts

# nbgrader's own steps, in a kernel; its folders alone are ours.
STOCK = """
c = get_config()
c.CourseDirectory.source_directory, c.CourseDirectory.release_directory = "solutions", "chapters"
c.CourseDirectory.ignore = ["*"]
c.Execute.timeout = 600
"""


def main() -> None:
    """Print a line for each way of grading."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", help="a part, as 02b")
    parser.add_argument("--students", type=int, default=40)
    parser.add_argument("--jobs", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--stock", type=int, default=0, help="grade so many by nbgrader as it comes, too")
    asked = parser.parse_args()
    (part,) = find_parts(asked.part)
    with tempfile.TemporaryDirectory(prefix="mi-class-") as folder:
        course = Path(folder) / "course"
        for source in (paths.CHAPTERS, paths.SOLUTIONS, paths.TESTS):
            shutil.copytree(source, course / source.name, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(paths.ROOT / "nbgrader_config.py", course)
        command(course, "nbgrader", "generate_assignment", part.chapter, "--force")
        for number in range(asked.students):
            target = course / "submitted" / f"student{number:03}" / part.chapter / f"{part.name}.ipynb"
            target.parent.mkdir(parents=True)
            shutil.copy(paths.solution_path(part.chapter, part.name), target)
        for jobs in asked.jobs:
            mi = (sys.executable, "-m", "utils.course.cli", "grade", part.chapter[:2])
            seconds = command(course, *mi, "--again", "--seed", "1", "--jobs", str(jobs))
            tell(course, f"{jobs} at a time", asked.students, seconds)
        (course / "nbgrader_config.py").write_text(STOCK)
        for number in range(asked.stock):
            words = ("autograde", part.chapter, f"--student=student{number:03}", "--force")
            tell(course, "nbgrader as it comes", 1, command(course, "nbgrader", *words))


def command(course: Path, *words: str) -> float:
    """Run it in the course's folder; how many seconds it took."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    here = {"MI_ROOT": str(course), "MI_STATE": str(course / ".mi"), "PYTHONPATH": str(paths.ROOT), "PATH": path}
    started = time.monotonic()
    done = subprocess.run(words, cwd=course, env=os.environ | here, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stdout + done.stderr)
    return time.monotonic() - started


def tell(course: Path, how: str, students: int, seconds: float) -> None:
    """Say how quickly submissions were graded, and what scores the gradebook has by now."""
    command(course, "nbgrader", "export")
    with open(course / "grades.csv", newline="") as file:
        scores = {float(row["score"]) for row in csv.DictReader(file) if row.get("status") != "nothing handed in"}
    rate = f"{seconds:.0f} s, {seconds / students:.2f} s each and {60 * students / seconds:.1f} a minute"
    print(f"{how}: {rate}; scores {sorted(scores)}", flush=True)


if __name__ == "__main__":
    main()
