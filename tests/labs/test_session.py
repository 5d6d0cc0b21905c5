"""Sessions cut from the course's own parts: they run by themselves, and are to every tool the part itself."""

import builtins
import os
import re
import sys
from functools import cache

import nbformat
import pytest
from nbclient import NotebookClient

from utils.course import paths
from utils.course.autograding import plain, restored
from utils.course.cells import grade_id, names_used_and_made
from utils.course.cli import main
from utils.course.learner import collect_answers
from utils.course.manifest import CourseError, find_parts, parts
from utils.course.masters import END
from utils.course.paths import release_path, solution_path
from utils.course.plan import named, recommended
from utils.course.session import cut
from utils.grading.grader import Unprotected, Zygote
from utils.grading.submission import cells_to_run, grade_part

EACH_PART = pytest.mark.parametrize("part", parts(), ids=[part.key for part in parts()])


def part_of(key):
    (part,) = find_parts(key)
    return part


def cells_of(part, path=solution_path):
    return nbformat.read(path(part.chapter, part.name), as_version=4).cells


@cache
def session_of(key, text=None, minutes=None):
    part = part_of(key)
    return cut(part, named(part, text) if text else recommended(part, minutes))


def prose(session):
    return "\n\n".join(c.source for c in session.notebook.cells if c.cell_type == "markdown")


def answered(session):
    """The session's notebook with our answers in the exercises that are open."""
    ours = {cell.id: cell.source for cell in cells_of(session.part)}
    notebook = nbformat.from_dict(session.notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code" and grade_id(cell) in session.open:
            cell.source = ours[cell.id]
    return notebook


@EACH_PART
@pytest.mark.parametrize("minutes", [None, 60])
def test_a_session_has_all_that_it_uses(part, minutes):
    session = session_of(part.key, minutes=minutes)
    known = set(dir(builtins)) | set(session.open)
    setup = True  # the helpers in the set-up cell may wait for what comes later
    later = {name for c in session.notebook.cells if c.cell_type == "code" for name in names_used_and_made(c.source)[1]}
    for cell in (cell for cell in answered(session).cells if cell.cell_type == "code"):
        used, made = names_used_and_made(cell.source)
        assert not used - known - (later if setup else set()), f"{cell.id} needs {sorted(used - known)}"
        known |= made
        setup = False


@EACH_PART
def test_a_session_s_cells_are_the_part_s(part):
    session = session_of(part.key)
    released = {cell.id: cell for cell in cells_of(part, release_path)}
    ids = [cell.id for cell in session.notebook.cells]
    assert len(set(ids)) == len(ids)
    order = [id for id in released if id in ids]
    assert [id for id in ids if id in released] == order
    open_, given = set(session.open), set(session.given)
    assert not open_ & given
    for cell in session.notebook.cells:
        name = grade_id(cell)
        if name in given:
            assert cell.source == f'{name} = reference("{name}")' and cell.metadata == released[cell.id].metadata
        elif name:
            assert name.removeprefix("check_") in open_ and cell == released[cell.id]
    answers = [name for cell in session.notebook.cells if (name := grade_id(cell)) in open_]
    assert sorted(answers) == sorted(open_)
    assert f"check({session.open[0]})" in [cell.source for cell in session.notebook.cells]


@EACH_PART
def test_a_session_tells_no_answer(part):
    session = session_of(part.key)
    text = "\n".join(cell.source for cell in session.notebook.cells)
    assert END not in text and "Rubric." not in text


def test_the_first_page_says_what_is_open_given_and_left_out():
    session = session_of("04a", "4.1-4.3, 4.5")
    said = next(c.source for c in session.notebook.cells if c.source.startswith("**This session**"))
    assert "is cut from part 04a" in said and "Given, as our implementations: `normalized_patching_metric`" in said
    assert "Left out, and in the part for another day: *All patches*" in said
    assert re.search(r"\| 0:\d\d \| One patch \| read \d min; exercise 4.5 `patch_site` 20 min \|", said)
    assert "**Time.**" not in prose(session)
    setup = next(c for c in session.notebook.cells if "setup" in c.metadata.get("tags", []))
    assert 'start("04a", only=["run_with_hooks", "run_with_cache", "logit_difference", "patch_site"])' in setup.source


def test_the_plan_s_minutes_are_the_exercises_and_their_share_of_the_reading():
    for part in parts():
        session = session_of(part.key)
        assert sum(step.minutes for step in session.steps) == part.minutes_for(session.open)
        assert [item.name for step in session.steps for item in step.items if not hasattr(item, "case")] == [
            q.name for q in part.questions if q.name in session.open
        ]


def test_sections_without_an_open_exercise_go_with_what_belongs_to_them():
    session = session_of("04a", "4.1")
    kept = {section[0].source.splitlines()[0] for section in session.sections}
    assert "## Getting in: hooks" in kept and "## Summary" in kept
    assert not kept & {"## One patch", "## All patches", "### Two at once", "## Stretch", "## Questions"}


def test_a_question_that_is_not_asked_takes_its_text_along():
    with_, without = session_of("04a", "case 04a, case_04a_reasoning"), session_of("04a", "case 04a")
    assert "What would have changed your mind?" in prose(with_) and "Question 04a.1" in prose(with_)
    assert "What would have changed your mind?" not in prose(without) and "Question 04a.1" not in prose(without)
    assert "`case_04a_reasoning`" not in prose(without)


def test_what_a_session_needs_from_a_section_that_is_left_out_is_given_or_prepared():
    given = session_of("04a", "4.6")  # a sweep of patches, which goes by hooks
    assert "run_with_hooks" in given.given and "Getting in: hooks" in given.left_out
    prepared = session_of("01d")
    (index,) = (i for i, c in enumerate(prepared.notebook.cells) if c.id.startswith("prepared-"))
    assert prepared.notebook.cells[index + 1].metadata["jupyter"] == {"source_hidden": True}


def test_an_exercise_can_be_given_by_name():
    part = part_of("04a")
    session = cut(part, recommended(part), given=["run_with_hooks"])
    assert "run_with_hooks" in session.given and "run_with_hooks" not in session.open
    with pytest.raises(CourseError, match="needs an exercise that is open"):
        cut(part, ["patch_site"], given=["patch_site"])


def test_a_session_that_is_handed_in_is_the_part_to_the_grader():
    session = session_of("04a", "4.1-4.2")
    part, released = session.part, cells_of(session.part, release_path)
    cells = restored(plain(answered(session).cells), [cell for cell in released if "nbgrader" in cell.metadata])
    graded = [name for cell in cells if (name := grade_id(cell))]
    assert graded == [name for cell in released if (name := grade_id(cell))]
    assert len(part.exercises) == sum(f"check_{e.name}" in graded for e in part.exercises)


def test_mi_check_takes_a_session_for_the_part(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(paths, "STATE", tmp_path / ".mi")
    session = session_of("00", "0.1-0.2")
    path = tmp_path / "00_start_here.ipynb"
    nbformat.write(answered(session), path)
    namespace, failed = collect_answers(session.part, path)
    assert failed == {} and set(session.open) <= namespace.keys()
    assert main(["check", "00", "--notebook", str(path)]) == 1  # the rest is missing
    said = capsys.readouterr().out
    assert "✓ row_means" in said and "✓ record_activation" in said and "2 of 4 exercises" in said


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """The command writes to another folder's build."""
    written = {}
    monkeypatch.setattr("utils.course.build.write", lambda path, text: written.update({path.name: text}))
    return written


def test_the_command_writes_a_notebook_and_a_sheet(elsewhere, capsys):
    assert main(["session", "00", "--exercises", "0.1"]) == 0
    assert set(elsewhere) == {"00_start_here.ipynb", "sheet.html"}
    assert "1 open, 0 given" in capsys.readouterr().out
    notebook = nbformat.reads(elsewhere["00_start_here.ipynb"], as_version=4)
    assert nbformat.validate(notebook) is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["04"], "A session is cut from one part: 04a, 04b, 04c"),
        (["04a", "--exercises", "3.1"], "is not in part 04a"),
        (["04a", "--exercises", "4.1-4.8", "--minutes", "60"], "minutes, with reading and breaks: leave some out"),
    ],
)
def test_a_session_that_can_t_be_is_refused_in_a_sentence(elsewhere, capsys, arguments, message):
    assert main(["session", *arguments]) in (1, 2)
    assert message in capsys.readouterr().err
    assert elsewhere == {}


@pytest.mark.slow
@pytest.mark.parametrize(("key", "text"), [("04a", None), ("01a", "1.3, 1.5, case 01a"), ("06b", None)])
def test_a_session_that_is_answered_runs_and_passes(key, text, tmp_path):
    session = session_of(key, text)
    notebook = answered(session)
    environment = os.environ | {
        "MI_ROOT": str(paths.ROOT),
        "MI_STATE": str(tmp_path / ".mi"),
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        "HF_HUB_OFFLINE": "1",
    }
    resources = {"metadata": {"path": str(tmp_path)}}
    quiet = ["--IPKernelApp.log_level=ERROR"]
    client = NotebookClient(notebook, kernel_name="python3", timeout=300, resources=resources, extra_arguments=quiet)
    client.execute(env=environment)
    shown = {c.source: str(c.outputs) for c in notebook.cells if c.cell_type == "code"}
    for exercise in (e for e in session.part.exercises if e.name in session.open):
        assert "passed" in shown[f"check({exercise.name})"]
    log = (tmp_path / ".mi" / "progress.jsonl").read_text()
    assert all(f'"skipped", "exercise": "{name}"' in log for name in session.given)


@pytest.mark.slow
def test_a_session_that_is_handed_in_is_graded_as_the_part():
    session = session_of("00", "0.1, 0.3")
    released = cells_of(session.part, release_path)
    cells = restored(plain(answered(session).cells), [cell for cell in released if "nbgrader" in cell.metadata])
    zygote = Zygote(session.part.chapter, ())
    try:
        zygote.wait()
        verdicts = grade_part(
            session.part, cells_to_run(session.part, cells, released), lambda: zygote.spawn(0), seed=1
        )
    except Unprotected as error:
        pytest.skip(f"left out: {error}")
    finally:
        zygote.close()
    found = {verdict.name: verdict.status for verdict in verdicts}
    left_out = {name: "not attempted" for name in found if name not in (*session.open, *session.given)}
    assert found == dict.fromkeys(session.open, "passed") | dict.fromkeys(session.given, "reference") | left_out
    assert "passed" in found.values() and "reference" in found.values()
