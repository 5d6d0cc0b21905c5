"""The progress file: what it says, and what survives when it is damaged."""

import pytest

from utils.course import progress
from utils.course.build import course_of, read_masters
from utils.course.manifest import dump, parts


@pytest.fixture(autouse=True)
def course(mini):
    (mini / "chapters").mkdir()
    (mini / "chapters" / "manifest.json").write_text(dump(course_of(read_masters())))
    return mini


def log(course):
    return course / ".mi" / "progress.jsonl"


def test_nothing_done_yet():
    assert progress.states() == {}
    assert progress.next_exercise().name == "double"


def test_a_pass_stays_a_pass():
    for event in ("failed", "hint", "passed", "failed", "skipped"):
        progress.record(event, "double")
    assert progress.states()["double"] == progress.State("passed", 1)
    counts = {"exercises": 4, "passed": 1, "points": 2, "of_points": 10, "in_words": 5}
    assert progress.summary(parts()[0]) == counts
    assert progress.next_exercise().name == "quadruple"


def test_trying_after_a_skip_puts_the_exercise_back_on_the_list():
    progress.record("skipped", "double")
    assert progress.next_exercise().name == "quadruple"
    progress.record("failed", "double")
    assert progress.next_exercise().name == "double"


@pytest.mark.parametrize("damage", [b'{"event": "pas', b"\xff\xfe\x00", b"null\n", b'{"event": 3}\n', b'["x"]\n'])
def test_a_damaged_line_costs_only_itself(course, damage):
    progress.record("passed", "double")
    with open(log(course), "ab") as file:
        file.write(damage)
    progress.record("passed", "quadruple")
    assert {name for name, state in progress.states().items() if state.status == "passed"} == {"double", "quadruple"}


def test_a_write_cut_off_anywhere_keeps_what_came_before(course):
    progress.record("passed", "double")
    progress.record("passed", "quadruple")
    whole = log(course).read_bytes()
    first = whole.index(b"\n") + 1
    for length in range(first, len(whole)):
        log(course).write_bytes(whole[:length])
        assert progress.states()["double"].status == "passed"


def test_a_folder_that_cannot_be_written_is_said_and_not_fatal(course, capsys):
    (course / ".mi").write_text("a file where the folder should be")
    progress.record("passed", "double")
    assert "could not be saved" in capsys.readouterr().out


def test_nothing_is_recorded_while_nbgrader_runs(monkeypatch):
    monkeypatch.setenv("NBGRADER_EXECUTION", "autograde")
    progress.record("passed", "double")
    assert progress.states() == {}
