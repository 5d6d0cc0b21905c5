"""What is written down, into nbgrader's gradebook: a submission that nbgrader does not take keeps no other one out."""

from pathlib import Path

import nbformat
import pytest
from nbgrader.converters.base import NbGraderException
from traitlets.config import Config

from utils.course import paths
from utils.course.manifest import find_chapter
from utils.course.paths import load_file
from utils.grading import gradebook
from utils.grading.batch import FORMAT, read_record, write_record

submissions = load_file(Path(__file__).parents[1] / "tooling" / "submissions.py")
MINI, RIGHT, Submission = submissions.MINI, submissions.RIGHT, submissions.Submission


@pytest.fixture
def chapter(mini, monkeypatch, tmp_path):
    monkeypatch.setattr(paths, "STATE", tmp_path / ".mi")
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    for student in ("ada", "odd", "zoe"):
        Submission(mini, **RIGHT).write(tmp_path / "submitted" / student / MINI / f"{MINI}.ipynb")
        verdict = {"name": "double", "status": "passed", "text": "✓", "diagnosis": "", "seconds": 0}
        record = {"format": FORMAT, "seed": 0, "written": False, "time": 0, "digest": ""}
        write_record(find_chapter("01"), student, record | {"parts": {MINI: {"verdicts": [verdict]}}})
    return find_chapter("01")


def test_a_submission_that_nbgrader_does_not_take_is_called_broken_and_the_others_are_taken(
    chapter, monkeypatch, tmp_path, capsys
):
    taken = []

    class Choosy:
        def __init__(self, coursedir, config):
            self.student, self.log = coursedir.student_id, gradebook.logging.getLogger("choosy")
            self.path = Path(config.CourseDirectory.submitted_directory) / self.student / MINI / f"{MINI}.ipynb"

        def start(self):
            first = nbformat.read(self.path, as_version=4).cells[0].source
            blank = "could not be graded" in first
            if self.student == "odd" and not blank:
                raise NbGraderException
            taken.append((self.student, blank))

    monkeypatch.setattr(gradebook, "Autograde", Choosy)
    gradebook._write(chapter, ["ada", "odd", "zoe"], Config(), tmp_path / "place", "sqlite:///none")
    assert taken == [("ada", False), ("odd", True), ("zoe", False)]
    assert "nbgrader does not take it" in read_record(chapter, "odd")["parts"][""]["broken"]
    assert "odd: nbgrader does not take it" in capsys.readouterr().out
