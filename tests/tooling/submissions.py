"""Makes submissions: a released notebook of the mini course, filled in, laid where nbgrader looks for it."""

import copy
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

MINI = "01_mini"

RIGHT = {
    "double": "def double(x):\n    return x + x",
    "quadruple": "def quadruple(x):\n    return double(double(x))",
    "scaffolded": """\
def scaffolded(x, n):
    result = x + 1
    for _ in range(n):
        result = double(result)
    return result""",
    "Scale": """\
class Scale(nn.Module):
    def __init__(self, size):
        super().__init__()
        self.w = nn.Parameter(torch.ones(size))
        self.b = nn.Parameter(torch.zeros(size))

    def forward(self, x):
        return self.w * x + self.b""",
}
SPOKEN = "Because two times two is four."


class Submission:
    """One student's copy of the learner's notebook; a cell goes by its grade id or its id."""

    def __init__(self, course: Path, **sources: str):
        self.course = course
        self.notebook = nbformat.read(course / "chapters" / MINI / f"{MINI}.ipynb", as_version=4)
        self.fill(**sources)

    def cell(self, name: str) -> NotebookNode:
        return next(c for c in self.notebook.cells if name in (c.metadata.get("nbgrader", {}).get("grade_id"), c.id))

    def fill(self, **sources: str) -> "Submission":
        for name, source in sources.items():
            self.cell(name).source = source
        return self

    def insert_before(self, name: str, source: str) -> "Submission":
        self._insert(name, 0, new_code_cell(source))
        return self

    def duplicate(self, name: str) -> "Submission":
        """Copy a cell and paste it below itself, as JupyterLab does: with its metadata."""
        twin = copy.deepcopy(self.cell(name))
        twin.id = f"{twin.id}-copy"
        self._insert(name, 1, twin)
        return self

    def _insert(self, name: str, offset: int, cell: NotebookNode) -> None:
        position = next(i for i, c in enumerate(self.notebook.cells) if c is self.cell(name))
        self.notebook.cells.insert(position + offset, cell)

    def delete(self, *names: str) -> "Submission":
        gone = [id(self.cell(name)) for name in names]
        self.notebook.cells = [c for c in self.notebook.cells if id(c) not in gone]
        return self

    def write(self, path: Path) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        nbformat.write(self.notebook, path)
        return path

    def hand_in(self, student: str) -> Path:
        return self.write(self.course / "submitted" / student / MINI / f"{MINI}.ipynb")
