"""The `mi` command as a learner types it."""

import shutil
import subprocess
import sys

import nbformat
import pytest

from utils.course import progress
from utils.course.cli import main

MINI = "01_mini"


@pytest.fixture(autouse=True)
def course(mini, built_mini):
    shutil.copytree(built_mini, mini, dirs_exist_ok=True)
    return mini


def answer(course, **bodies):
    """Write answers into the learner's notebook, as source of whole cells."""
    path = course / "chapters" / MINI / f"{MINI}.ipynb"
    notebook = nbformat.read(path, as_version=4)
    for cell in notebook.cells:
        name = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = bodies.pop(name, cell.source)
    notebook.cells += [nbformat.v4.new_code_cell(source) for source in bodies.values()]
    nbformat.write(notebook, path)


def test_check_counts_and_reports_each_exercise(course, capsys):
    answer(
        course,
        double="def double(x):\n    return x * x",
        quadruple="def quadruple(x):\n    return double(double(x))",
        scaffolded="def scaffolded(x, n):\n    return oops",
    )
    assert main(["check", "1"]) == 1
    out = capsys.readouterr().out
    assert "You square the number" in out
    assert "✓ quadruple" in out
    assert "NameError" in out
    assert "○ Scale: not attempted" in out
    assert "Part 01: 1 of 4 exercises, 3 of 10 points" in out


def test_check_runs_no_experiment(course, capsys):
    answer(
        course,
        extra='open("ran", "w")\nx = 1',
        helper="import math\ndef helper(x):\n    return x + x",
        double="def double(x):\n    return helper(x)",
    )
    main(["check", "01"])
    assert "✓ double" in capsys.readouterr().out
    assert not (course / "ran").exists()


def test_a_cell_that_does_not_compile_costs_its_exercise_only(course, capsys):
    answer(course, double="def double(x:\n", quadruple="def quadruple(x):\n    return double(double(x))")
    main(["check", "01"])
    out = capsys.readouterr().out
    assert "✗ double: its cell failed: SyntaxError" in out
    assert "✓ quadruple" in out


def test_the_reference_is_no_answer(course, capsys):
    answer(course, double='double = reference("double")')
    main(["check", "01"])
    assert "double: our reference, skipped" in capsys.readouterr().out


def test_check_says_when_a_notebook_is_damaged(course, capsys):
    (course / "chapters" / MINI / f"{MINI}.ipynb").write_text('{"cells": [')
    assert main(["check", "01"]) == 1
    assert "can't be read as a notebook" in capsys.readouterr().err


def test_hints_climb_and_then_point_to_the_solution(capsys):
    texts = []
    for _ in range(3):
        main(["hint", "double"])
        texts.append(capsys.readouterr().out)
    assert texts[0].startswith("Hint 1 of 2") and texts[1].startswith("Hint 2 of 2")
    assert "last hint" in texts[2] and "mi solution double" in texts[2]


def test_solution_prints_the_reference(capsys):
    assert main(["solution", "quadruple"]) == 0
    assert "return double(double(x))" in capsys.readouterr().out


def test_progress_and_skip(course, capsys):
    answer(course, double="def double(x):\n    return x + x")
    main(["check", "01"])
    main(["skip", "quadruple"])
    capsys.readouterr()
    main(["progress", "01"])
    out = capsys.readouterr().out
    assert "1 of 4 exercises, 2 of 10 points, and 5 for answers in words" in out
    assert "✓* 1.1       double" in out and "–  1.2       quadruple" in out
    assert "next: 1.3 scaffolded" in out
    assert progress.next_exercise().name == "scaffolded"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["hint", "doubel"], "no exercise called 'doubel'. Did you mean double"),
        (["solution", "zzz"], "`mi progress` lists all"),
        (["check", "77"], "no chapter or part '77'. The parts are 01, 02a, 02b"),
    ],
)
def test_a_wrong_name_is_answered_with_the_right_one(capsys, arguments, message):
    assert main(arguments) == 2
    assert message in capsys.readouterr().err


def test_hints_and_progress_do_not_wait_for_torch(course, course_environment):
    code = "import sys\nfrom utils.course.cli import main\nmain(['progress'])\nprint('torch' in sys.modules)"
    outcome = subprocess.run(
        [sys.executable, "-c", code], env=course_environment(course), capture_output=True, text=True, check=True
    )
    assert outcome.stdout.splitlines()[-1] == "False"
