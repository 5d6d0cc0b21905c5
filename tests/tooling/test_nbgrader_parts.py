"""A chapter of two notebooks through nbgrader: both are graded, one that is missing costs its own points."""

import csv
import shutil
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

CHAPTER = "02_pair"
ANSWERS = {
    "02a_first": {"triple": "def triple(x):\n    return x + x + x"},
    "02b_second": {
        "ninefold": "def ninefold(x):\n    return 9 * x",
        "does_it_grow": 'def does_it_grow():\n    return {"pairs": [(1, 2), (3, 4), (-1, 0)], "verdict": "yes"}',
    },
}


def hand_in(course, student, names=tuple(ANSWERS), keep_metadata=True):
    for name in names:
        notebook = nbformat.read(course / "chapters" / CHAPTER / f"{name}.ipynb", as_version=4)
        for cell in notebook.cells:
            cell.source = ANSWERS[name].get(cell.metadata.get("nbgrader", {}).get("grade_id"), cell.source)
            if not keep_metadata:
                cell.metadata = {}
        path = course / "submitted" / student / CHAPTER / f"{name}.ipynb"
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(notebook, path)


@pytest.fixture(scope="module")
def scores(built_mini, tmp_path_factory, course_environment):
    """Score of each student, as nbgrader exports it."""
    root = tmp_path_factory.mktemp("pair") / "course"
    shutil.copytree(built_mini, root)
    hand_in(root, "both")
    hand_in(root, "first_only", names=["02a_first"])
    hand_in(root, "no_metadata", keep_metadata=False)
    hand_in(root, "one_cut")
    cut = root / "submitted" / "one_cut" / CHAPTER / "02a_first.ipynb"
    cut.write_text(cut.read_text()[:500])
    for command in (["generate_assignment", CHAPTER, "--force"], ["autograde", CHAPTER], ["export"]):
        outcome = subprocess.run(
            [Path(sys.executable).with_name("nbgrader"), *command],
            cwd=root,
            env=course_environment(root) | {"OMP_NUM_THREADS": "1"},
            text=True,
            capture_output=True,
        )
        assert outcome.returncode == 0, outcome.stderr
    with open(root / "grades.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["student_id"]: row["status"] for row in rows}["one_cut"].endswith("could not be read or run: 02a_first")
    return {row["student_id"]: (float(row["score"]), float(row["max_score"])) for row in rows}


def test_both_notebooks_of_a_chapter_are_graded(scores):
    assert scores["both"] == (2 + 1 + 3, 8)  # the question in words, 2 points, is graded by hand


def test_a_missing_notebook_costs_its_own_points(scores):
    assert scores["first_only"] == (2, 8)


def test_right_answers_in_a_notebook_without_its_metadata_get_their_points(scores):
    assert scores["no_metadata"] == (6, 8)


def test_a_notebook_that_can_t_be_read_costs_its_own_points(scores):
    assert scores["one_cut"] == (4, 8)
