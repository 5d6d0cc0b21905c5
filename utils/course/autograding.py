"""Steps that this course adds to nbgrader's autograding: accidents in a notebook cost no honest points.

``nbgrader_config.py`` puts them into nbgrader's list of preprocessors.
"""

from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbgrader import utils
from nbgrader.preprocessors import NbGraderPreprocessor

from utils.course.cells import defined_names


def released_cells(step: NbGraderPreprocessor, resources: dict) -> list[NotebookNode]:
    """The cells of the notebook that a submission was made from, as they were handed out."""
    course, asked = step.parent.parent.coursedir, resources["nbgrader"]
    folder = Path(course.format_path(course.release_directory, ".", asked["assignment"]))
    return nbformat.read(folder / f"{asked['notebook']}.ipynb", as_version=4).cells


class RestoreCells(NbGraderPreprocessor):
    """Before anything else: every cell of the release is there once, with the release's nbgrader metadata.

    Students copy, delete and retype cells. nbgrader by itself gives nothing for an answer whose check is
    gone, and its remedy (``add_missing_cells``) drops a whole submission for a copied check cell.
    """

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        nb.cells = restored(nb.cells, [c for c in released_cells(self, resources) if "nbgrader" in c.metadata])
        return nb, resources


def restored(cells: Iterable[NotebookNode], released: Iterable[NotebookNode]) -> list[NotebookNode]:
    """A submission's cells, with those of the release that it lacks put where they belong.

    Of a cell's copies the last one counts, as it does for the names that the copies define. A cell that has lost its
    name (some editors drop metadata) is known by the function or class that it defines. What was deleted comes back as
    it was handed out.
    """
    cells, found = list(cells), {}
    for cell in cells:
        metadata = cell.metadata.pop("nbgrader", None)
        if isinstance(metadata, dict) and isinstance(metadata.get("grade_id"), str):
            found[metadata["grade_id"]] = cell
    nameless = [cell for cell in cells if cell.cell_type == "code" and not any(cell is c for c in found.values())]
    defining = {name: cell for cell in nameless for name in defined_names(cell.source)}
    position = 0
    for wanted in released:
        name = wanted.metadata.nbgrader.grade_id
        mine = found.get(name, defining.get(name) if wanted.cell_type == "code" else None)
        if mine is None:
            cells.insert(position, wanted)
        else:
            mine.metadata["nbgrader"] = wanted.metadata.nbgrader
            position = next(i for i, cell in enumerate(cells) if cell is mine)
        position += 1
    return cells


class SkipExperiments(NbGraderPreprocessor):
    """Before the run: experiments as they were handed out are left out. They take minutes, and carry no points."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        skip_experiments(nb.cells, released_cells(self, resources))
        return nb, resources


def skip_experiments(cells: Iterable[NotebookNode], released: Iterable[NotebookNode]) -> None:
    """Tag the code cells that are neither graded nor set-up and have not been changed, so that they are not run.

    What a student has changed or added is run: an answer may need it.
    """
    experiments = {
        cell.source
        for cell in released
        if cell.cell_type == "code" and "nbgrader" not in cell.metadata and "setup" not in cell.metadata.get("tags", [])
    }
    for cell in cells:
        if cell.cell_type == "code" and "nbgrader" not in cell.metadata and cell.source in experiments:
            cell.metadata["tags"] = ["skip-execution"]


class IgnoreStderr(NbGraderPreprocessor):
    """After the run: output on stderr is output, and no verdict. The check's verdict is whether it raised."""

    def preprocess_cell(self, cell: NotebookNode, resources: dict, index: int) -> tuple[NotebookNode, dict]:
        if cell.cell_type == "code" and utils.is_grade(cell):
            for output in cell.outputs:
                if output.output_type == "stream":
                    output.name = "stdout"
        return cell, resources
