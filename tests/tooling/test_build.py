"""`mi build` and `mi build --check`: what they write, that they write it again the same, and what they notice."""

import json
import shutil

import nbformat
import pytest

from utils.course.cli import main

MINI = "01_mini"


@pytest.fixture
def course(mini, built_mini):
    shutil.copytree(built_mini, mini, dirs_exist_ok=True)
    return mini


def notebooks(root):
    return root / "solutions" / MINI / f"{MINI}.ipynb", root / "chapters" / MINI / f"{MINI}.ipynb"


def test_the_solution_notebook_is_executed(built_mini):
    solution = nbformat.read(notebooks(built_mini)[0], as_version=4)
    code = [c for c in solution.cells if c.cell_type == "code"]
    assert all(c.execution_count for c in code)
    assert any("an experiment: [4.0, 8.0]" in str(c.outputs) for c in code)
    assert any("all 2 checks passed" in str(c.outputs) for c in code)


def test_of_a_live_widget_only_its_text_is_stored(built_mini):
    for path in notebooks(built_mini):
        notebook = nbformat.read(path, as_version=4)
        assert "widgets" not in notebook.metadata and "widget-view" not in path.read_text()
    assert "IntSlider(value=3)" in notebooks(built_mini)[0].read_text()


def test_the_learners_notebook_has_stubs_checks_and_no_outputs(built_mini):
    learner = nbformat.read(notebooks(built_mini)[1], as_version=4)
    text = "\n".join(c.source for c in learner.cells)
    assert "return 2 * x" not in text and "SOLUTION" not in text and "2 \\cdot 2" not in text
    assert text.count("raise NotImplementedError()") == 4
    assert "# Given: the start\n    result = x + 1" in text
    assert "YOUR ANSWER HERE" in text
    assert all(not c.outputs and c.execution_count is None for c in learner.cells if c.cell_type == "code")


def test_no_other_file_reaches_the_learner(built_mini):
    found = sorted(p.name for p in (built_mini / "chapters").rglob("*") if p.is_file())
    assert found == [f"{MINI}.ipynb", "02a_first.ipynb", "02b_second.ipynb", "manifest.json"]
    assert not list(built_mini.glob("gradebook*"))


def test_everything_is_up_to_date_after_a_build(course):
    assert main(["build", "--check"]) == 0


def test_a_second_build_executes_nothing_and_writes_the_same_bytes(course, capsys):
    before = [p.read_bytes() for p in notebooks(course)]
    assert main(["build"]) == 0
    assert "executing" not in capsys.readouterr().out
    assert [p.read_bytes() for p in notebooks(course)] == before


def test_a_forced_rebuild_gives_the_same_bytes(course):
    before = [p.read_bytes() for p in notebooks(course)]
    for path in notebooks(course):
        path.unlink()
    assert main(["build"]) == 0
    assert [p.read_bytes() for p in notebooks(course)] == before


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (f"solutions/{MINI}/{MINI}.md", "The end.", "The very end.", "is older than its master"),
        (f"chapters/{MINI}/{MINI}.ipynb", "NotImplementedError", "ValueError", "is not what"),
        ("chapters/manifest.json", "What is x + x?", "What is x * x?", "manifest.json is not what the masters give"),
    ],
)
def test_check_notices_a_change(course, capsys, file, old, new, message):
    path = course / file
    path.write_text(path.read_text().replace(old, new))
    assert main(["build", "--check"]) == 1
    assert message in capsys.readouterr().out


def test_a_failing_cell_is_reported_and_nothing_is_overwritten(course, capsys):
    master = course / "solutions" / MINI / f"{MINI}.md"
    master.write_text(
        master.read_text().replace('print("an experiment:"', 'raise ValueError("boom")\nprint("an experiment:"')
    )
    before = [p.read_bytes() for p in notebooks(course)]
    assert main(["build"]) == 1
    message = capsys.readouterr().err
    assert "a cell of the solution notebook failed" in message and "boom" in message and "\x1b" not in message
    assert [p.read_bytes() for p in notebooks(course)] == before


def test_a_section_on_a_real_network_is_not_lost_for_want_of_it(course, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("MI_CACHE", str(tmp_path))
    section = """
from utils.models import catalogue
from utils.models.hub import ModelUnavailable

try:
    catalogue.load_model("smollm2-135m")
except ModelUnavailable as error:
    print(error)
print("an experiment:\""""
    master = course / "solutions" / MINI / f"{MINI}.md"
    master.write_text(master.read_text().replace('print("an experiment:"', section))
    before = [p.read_bytes() for p in notebooks(course)]
    assert main(["build"]) == 1
    assert "`mi models --fetch smollm2-135m` gets it; then build again" in capsys.readouterr().err
    assert [p.read_bytes() for p in notebooks(course)] == before


def test_an_unknown_chapter_is_named(course, capsys):
    assert main(["build", "07"]) == 2
    assert "no master for '07'. There are 01, 02a, 02b" in capsys.readouterr().err


def test_learner_and_solution_notebook_have_the_same_ids(built_mini):
    ids = [[c["id"] for c in json.loads(p.read_text())["cells"]] for p in notebooks(built_mini)]
    assert ids[0] == ids[1]
