"""What a learner meets in a live kernel: predictions, skipped exercises, stubs that are called."""

import json
import os
import shutil

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError

from utils.course import notebook

SETUP = """\
from utils.course import check, hint, outcome, predict, reference, start
from mini_references import triple as ours"""
STUB = "def triple(x):\n    raise NotImplementedError()"


@pytest.fixture
def run(mini, built_mini, course_environment):
    """Run cells in a fresh kernel of the mini course; what each of them printed or showed, or the error's text."""
    shutil.copytree(built_mini, mini, dirs_exist_ok=True)

    def run(*sources):
        notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(s) for s in (SETUP, *sources)])
        client = NotebookClient(notebook, kernel_name="python3", extra_arguments=["--IPKernelApp.log_level=ERROR"])
        stopped = None
        try:
            client.execute(env=course_environment(mini))
        except CellExecutionError as error:
            stopped = error
        run.stopped = stopped
        return [_text(cell) for cell in notebook.cells[1:]]

    run.log = mini / ".mi" / "progress.jsonl"
    return run


def _text(cell):
    texts = []
    for output in cell.outputs:
        texts.append(output.get("text") or "".join(output.get("data", {}).get("text/plain", "")))
        texts += output.get("traceback", [])
    return "\n".join(filter(None, texts)).strip()


def test_a_guess_is_kept_and_compared(run):
    said = run(
        'predict("width", 3)\noutcome("width", 4.5)',
        'predict("where", "end", options=["start", "end"])\noutcome("where", "start")\noutcome("where", "end")',
        'predict("unknown", ...)\noutcome("unknown", 3)',
        'predict("width", "wide")\npredict("where", "middle", options=["start", "end"])\noutcome("width", 3)',
    )
    assert run.stopped is None
    assert said[0] == "Your guess is kept: 3.\nYou guessed 3, and it is 4.5: 1.5 off."
    assert "You guessed 'end', and it is 'start'.\nYou guessed 'end', and so it is." in said[1]
    assert said[2] == "Your guess goes in place of the dots: a number. Or go on without one."
    assert "'wide' is no guess that can be compared: it should be a number." in said[3]
    assert "it should be one of 'start', 'end'" in said[3]
    events = [json.loads(line) for line in run.log.read_text().splitlines()]
    assert [(e["event"], e["exercise"], e["guess"]) for e in events] == [
        ("guess", "width", 3),
        ("guess", "where", "end"),
    ]


def test_a_stub_that_is_called_says_which_exercise_it_is(run):
    (_, _, said) = run('start("02a")', STUB, "triple(2)")
    assert run.stopped is not None
    assert "Exercise 2.1, triple, is not written yet" in said and 'triple = reference("triple")' in said
    assert "Traceback" not in said


def test_another_error_keeps_its_traceback(run):
    said = run('start("02a")', 'def helper():\n    raise NotImplementedError("no such operation")', "helper()")
    assert "no such operation" in said[2] and "helper()" in said[2]


@pytest.mark.skipif(notebook._glibc() is None, reason="another C library gives memory back as it likes")
def test_what_a_cell_has_freed_goes_back_to_the_system(run):
    resident = "print(int(open('/proc/self/statm').read().split()[1]) * 4)"
    fills = "kept, gone = [], []\nfor _ in range(3000):\n    gone.append(bytearray(10**5))\n    kept.append(bytes(999))"
    _, before, filled, after = run('start("02a")', resident, f"{fills}\n{resident}\ndel gone", resident)
    assert int(filled) - int(before) > 250_000  # kB
    assert int(after) - int(before) < 50_000


def test_an_unanswered_check_stops_and_a_skipped_one_does_not(run):
    run(STUB, "check(triple)")
    assert run.stopped is not None
    said = run(STUB, 'reference("triple") is ours', "check(triple)", "triple is ours, triple(2)")
    assert run.stopped is None
    assert "triple is skipped: from here on our reference stands in for it" in said[2]
    assert said[3] == "(True, 6)"


def test_a_wrong_answer_to_a_skipped_exercise_is_told_and_does_not_stop(run):
    said = run('reference("triple") is ours', "def triple(x):\n    return x", "check(triple)", "triple(2)")
    assert run.stopped is None
    assert "✗ triple" in said[2] and "skipped" in said[2] and said[3] == "6"


def test_a_right_answer_to_a_skipped_exercise_counts(run):
    said = run('reference("triple") is ours', "def triple(x):\n    return x * 3", "check(triple)", "triple is ours")
    assert "✓ triple" in said[2] and said[3] == "False"


def test_start_says_where_to_go_on(run):
    assert run('start("02b")') == [""]
    said = run("def ninefold(x):\n    return 9 * x", "check(ninefold)", 'start("02b")')
    assert "Part 02b: 1 of 2 exercises are passed. Go on with case 02b, does_it_grow" in said[2]


@pytest.mark.parametrize("wanted", ['"triple"', "triple", '"2.1"'])
def test_a_hint_takes_the_name_the_number_and_the_function(run, wanted):
    assert "Hint 1 of 2 for triple" in run(STUB, f"hint({wanted})")[1]


def test_while_nbgrader_runs_nothing_stands_in(run, monkeypatch):
    monkeypatch.setitem(os.environ, "NBGRADER_EXECUTION", "autograde")
    said = run('reference("triple") is ours', STUB, "check(triple)")
    assert run.stopped is not None and "not attempted" in said[2]
