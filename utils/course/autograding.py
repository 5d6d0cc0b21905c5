"""Steps that this course adds to nbgrader: accidents in a notebook cost no honest points, and pages are short.

``nbgrader_config.py`` puts them into nbgrader's lists of preprocessors, and the export into its place.
"""

import csv
import html
import re
from collections.abc import Iterable
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_raw_cell
from nbgrader import utils
from nbgrader.api import Gradebook
from nbgrader.plugins.export import CsvExportPlugin
from nbgrader.preprocessors import NbGraderPreprocessor

from utils.course.cells import defined_names

KEPT = {"nbgrader": dict, "tags": list}  # of a cell's metadata
PICTURES = ("image/png", "image/jpeg", "image/gif", "image/webp")


def released_cells(step: NbGraderPreprocessor, resources: dict) -> list[NotebookNode]:
    """The cells of the notebook that a submission was made from, as they were handed out."""
    return _cells_in(step.parent.parent.coursedir.release_directory, step, resources)


def solution_cells(step: NbGraderPreprocessor, resources: dict) -> list[NotebookNode]:
    """The cells of the instructor's notebook."""
    return _cells_in(step.parent.parent.coursedir.source_directory, step, resources)


def _cells_in(directory: str, step: NbGraderPreprocessor, resources: dict) -> list[NotebookNode]:
    asked = resources["nbgrader"]
    folder = Path(step.parent.parent.coursedir.format_path(directory, ".", asked["assignment"]))
    return nbformat.read(folder / f"{asked['notebook']}.ipynb", as_version=4).cells


class RestoreCells(NbGraderPreprocessor):
    """Before anything else: every cell of the release is there once, with the release's nbgrader metadata.

    Students copy, delete and retype cells. nbgrader by itself gives nothing for an answer whose check is
    gone, and its remedy (``add_missing_cells``) drops a whole submission for a copied check cell.
    """

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        released = [cell for cell in released_cells(self, resources) if "nbgrader" in cell.metadata]
        notebook = new_notebook(cells=restored(plain(nb.cells), released))
        notebook.metadata.language_info = {"name": "python"}
        return notebook, resources


def plain(cells: Iterable[NotebookNode]) -> list[NotebookNode]:
    """A submission's cells as their text and what names them, so that nothing else in them is stumbled over."""
    kinds = {"code": new_code_cell, "markdown": new_markdown_cell, "raw": new_raw_cell}
    found, used = [], set()
    for number, cell in enumerate(cells):
        name, metadata = cell.get("id"), cell.metadata if isinstance(cell.metadata, dict) else {}
        if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) or name in used:
            name = f"cell-{number}"
        used.add(name)
        kept = {key: metadata[key] for key, kind in KEPT.items() if isinstance(metadata.get(key), kind)}
        found.append(kinds[cell.cell_type](cell.source, id=name, metadata=kept))
        if cell.cell_type == "markdown":
            found[-1].attachments = pictures(cell)
    return found


def pictures(cell: NotebookNode) -> dict[str, dict[str, str]]:
    """Of what is attached to a cell, the photographs and plots that students paste."""
    attached = cell.get("attachments")
    found = {}
    for name, kinds in attached.items() if isinstance(attached, dict) else ():
        for kind, data in kinds.items() if isinstance(kinds, dict) else ():
            if kind in PICTURES and isinstance(data, str) and re.fullmatch(r"[A-Za-z0-9+/=\s]+", data):
                found[name] = {kind: data}
    return found


def restored(cells: Iterable[NotebookNode], released: Iterable[NotebookNode]) -> list[NotebookNode]:
    """A submission's cells, with those of the release that it lacks put where they belong.

    Of a cell's copies the last one counts, as it does for the names that the copies define. A cell that has lost its
    name (some editors drop metadata) is known by the function or class that it defines. What was deleted comes back as
    it was handed out. All metadata are the release's (a tag can keep a cell from being run), and a locked cell, if it
    was moved before the answer that it checks, comes after it.
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
            mine.metadata = wanted.metadata
            place = next(i for i, cell in enumerate(cells) if cell is mine)
            if wanted.metadata.nbgrader.get("locked") and place < position:
                cells.insert(position - 1, cells.pop(place))
                continue
            position = place
        position += 1
    return cells


def expect_regular_file(path: Path, levels: int) -> None:
    """Refuse a submission that is a link, or lies behind one: it would be read, and shown, as the instructor.

    Args:
        path: The notebook.
        levels: How many of its parts, from the end, students have a say in.

    Raises:
        ValueError: If one of them is a link, or the notebook no ordinary file.
    """
    for part in (path, *path.parents[: levels - 1]):
        if part.is_symlink():
            raise ValueError(f"{part} is a link. A submission is a file of its own.")
    if not path.is_file():
        raise ValueError(f"{path} is no ordinary file.")


def is_question(cell: NotebookNode) -> bool:
    """Whether this is the answer to a question in words, graded by hand."""
    return cell.cell_type == "markdown" and utils.is_grade(cell) and utils.is_solution(cell)


class ShowRubrics(NbGraderPreprocessor):
    """After the run: model answer and rubric stand above each answer in words, and the page's top leads there."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        nb.cells = with_rubrics(nb.cells, solution_cells(self, resources))
        return nb, resources


def with_rubrics(cells: Iterable[NotebookNode], solution: Iterable[NotebookNode]) -> list[NotebookNode]:
    """A submission's cells with our answer above each answer in words; folded, so that the student's is read first."""
    ours = {cell.metadata.nbgrader.grade_id: cell.source for cell in solution if is_question(cell)}
    found, links = [], []
    for cell in cells:
        if is_question(cell) and cell.metadata.nbgrader.grade_id in ours:
            name = cell.metadata.nbgrader.grade_id
            links.append(f"[{name}](#{name})")
            text = f"<details><summary>Model answer and rubric of {name}</summary>\n\n{ours[name]}\n\n</details>"
            found.append(new_markdown_cell(text, id=f"rubric-{name}"[:64].replace("_", "-")))
        found.append(cell)
    top = [new_markdown_cell(f"**To be graded by hand:** {', '.join(links)}", id="by-hand")] if links else []
    return top + found


class ShortFeedback(NbGraderPreprocessor):
    """For feedback: an overview by exercise, then what the student wrote and what came of it; no unchanged prose."""

    def preprocess(self, nb: NotebookNode, resources: dict) -> tuple[NotebookNode, dict]:
        nb.cells = [overview(nb.cells), *only_their_own(nb.cells, released_cells(self, resources))]
        return nb, resources


def overview(cells: Iterable[NotebookNode]) -> NotebookNode:
    """A table of points by exercise, which takes the place of nbgrader's list of nameless test cells."""
    rows = []
    for cell in cells:
        if utils.is_grade(cell):
            grade, name = cell.metadata.nbgrader, cell.metadata.nbgrader.grade_id.removeprefix("check_")
            rows.append(
                f'<tr><td><a href="#{html.escape(grade.grade_id)}">{html.escape(name)}</a></td>'
                f'<td style="text-align:right">{float(grade.score or 0):g} of {float(grade.points):g}</td></tr>'
            )
    return new_markdown_cell(
        "<style>#toc {display: none}</style>\n"
        f"<table><thead><tr><th>exercise</th><th>points</th></tr></thead><tbody>{''.join(rows)}</tbody></table>",
        id="overview",
    )


def only_their_own(cells: Iterable[NotebookNode], released: Iterable[NotebookNode]) -> list[NotebookNode]:
    """Graded cells and answers with the boxes above them, and whatever the student has changed or added."""
    handed_out = {(cell.cell_type, cell.source) for cell in released if "nbgrader" not in cell.metadata}
    return [
        cell
        for cell in cells
        if "nbgrader" in cell.metadata
        or (cell.cell_type, cell.source) not in handed_out
        or cell.source.startswith("#### ")
    ]


class ExportWithStatus(CsvExportPlugin):
    """nbgrader's table of grades with a column that tells a blank submission from one that could not be read."""

    def export(self, gradebook: Gradebook) -> None:
        super().export(gradebook)
        path = Path(self.to or "grades.csv")
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, [*rows[0], "status"] if rows else ["status"])
            writer.writeheader()
            writer.writerows(
                row | {"status": status_of(gradebook, row["assignment"], row["student_id"])} for row in rows
            )


def status_of(gradebook: Gradebook, assignment: str, student: str) -> str:
    """What became of a student's submission, in words."""
    found = [s for s in gradebook.student_submissions(student) if s.assignment.name == assignment]
    if not found:
        return "nothing handed in"
    notebooks = found[0].notebooks
    unread = [n.name for n in notebooks if not any(grade.auto_score is not None for grade in n.grades)]
    if len(unread) == len(notebooks):
        return "not graded: could not be read or run"
    status = "to be graded by hand" if found[0].needs_manual_grade else "graded"
    return f"{status}; could not be read or run: {', '.join(unread)}" if unread else status
