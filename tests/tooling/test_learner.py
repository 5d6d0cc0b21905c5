"""Notebooks as editors and hosts save them, and cells as learners write them: `mi check` copes."""

import json
import shutil
import subprocess
import sys

import pytest

from utils.course.cli import main
from utils.course.paths import release_path

TRIPLE = "def triple(x):\n    return 3 * x"


@pytest.fixture
def notebook(mini, built_mini):
    """The released notebook of part 02a as JSON, to be changed and checked."""
    shutil.copytree(built_mini, mini, dirs_exist_ok=True)
    path = release_path("02_pair", "02a_first")
    content = json.loads(path.read_text())

    class Notebook:
        cells = content["cells"]
        root = mini

        def cell(self, grade_id):
            return next(c for c in self.cells if (c["metadata"].get("nbgrader") or {}).get("grade_id") == grade_id)

        def write(self, **fields):
            path.write_text(json.dumps(content | fields))
            return path

    found = Notebook()
    found.cell("triple")["source"] = TRIPLE
    return found


def passes(capsys):
    status = main(["check", "02a"])
    out = capsys.readouterr().out
    assert "✓ triple" in out, out
    return status == 0


@pytest.mark.parametrize("minor", [0, 4])
def test_cells_without_ids(notebook, capsys, minor):
    for cell in notebook.cells:
        cell.pop("id", None)
    notebook.write(nbformat_minor=minor)
    assert passes(capsys)


def test_metadata_that_says_null_or_is_lost(notebook, capsys):
    for cell in notebook.cells:
        if cell["cell_type"] == "code":
            cell["metadata"]["nbgrader"] = None
    notebook.write()
    assert passes(capsys)
    for cell in notebook.cells:
        cell["metadata"] = {}
    notebook.write()
    assert passes(capsys)


@pytest.mark.parametrize("magic", ["%%time\n", "%matplotlib inline\n", "triple?\n", "!ls\n"])
def test_magics_in_an_exercise(notebook, capsys, magic):
    notebook.cell("triple")["source"] = magic + TRIPLE
    notebook.write()
    assert passes(capsys)


def test_a_magic_in_the_set_up_cell(notebook, capsys):
    setup = next(c for c in notebook.cells if "setup" in c["metadata"].get("tags", []))
    setup["source"] = "%matplotlib inline\n" + "".join(setup["source"])
    notebook.write()
    assert passes(capsys)


def test_a_constant_in_a_cell_of_the_learners_own(notebook, capsys):
    notebook.cells.insert(3, {"cell_type": "code", "metadata": {}, "outputs": [], "execution_count": None,
                              "source": "FACTOR = 2 + 1\nplus = lambda a, b: a + b"})  # fmt: skip
    notebook.cell("triple")["source"] = "def triple(x):\n    return FACTOR * x"
    notebook.write()
    assert passes(capsys)


def test_a_set_up_cell_that_fails_is_named(notebook, capsys):
    setup = next(c for c in notebook.cells if "setup" in c["metadata"].get("tags", []))
    setup["source"] = "import no_such_library"
    notebook.write()
    main(["check", "02a"])
    assert "! the set-up cell failed" in capsys.readouterr().out


@pytest.mark.parametrize("leaving", ["import sys\nsys.exit(0)\n", "raise SystemExit\n", "quit()\n"])
def test_a_cell_that_leaves_costs_itself_only(notebook, capsys, leaving):
    notebook.cell("triple")["source"] = leaving + TRIPLE
    notebook.write()
    assert main(["check", "02a"]) == 1
    assert "✗ triple: its cell failed" in capsys.readouterr().out


def test_an_answer_that_leaves_when_called(notebook, capsys):
    notebook.cell("triple")["source"] = "import sys\ndef triple(x):\n    sys.exit(0)"
    notebook.write()
    assert main(["check", "02a"]) == 1
    assert "✗ triple" in capsys.readouterr().out


def test_a_report_can_be_sent_to_a_file_of_any_encoding(notebook, course_environment):
    notebook.write()
    environment = course_environment(notebook.root) | {"PYTHONIOENCODING": "cp1252", "PYTHONUTF8": "0"}
    outcome = subprocess.run(
        [sys.executable, "-m", "utils.course.cli", "check", "02a"], env=environment, capture_output=True
    )
    assert outcome.returncode == 0, outcome.stderr
    assert "✓ triple" in outcome.stdout.decode("utf-8")


def test_two_builds_at_once_write_whole_files(notebook, course_environment):
    """Each takes its temporary file for its own, whatever the other is at."""
    code = (
        "from pathlib import Path\nimport sys\nfrom utils.course.build import write\n"
        "for i in range(100): write(Path(sys.argv[1]), f'{i} {sys.argv[2]} ' * 1000)"
    )
    target = notebook.root / "shared.txt"
    runs = [
        subprocess.Popen([sys.executable, "-c", code, str(target), name], env=course_environment(notebook.root))
        for name in ("one", "two")
    ]
    assert [run.wait() for run in runs] == [0, 0]
    assert target.read_text() in {f"99 {name} " * 1000 for name in ("one", "two")}
    assert not list(notebook.root.glob(".shared*"))
