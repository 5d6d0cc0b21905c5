"""A part's page in the book: its executed solution notebook, with what a reader should try first folded away."""

import base64
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import nbformat
from nbformat.v4 import new_markdown_cell

from utils.course import paths
from utils.course.cells import grade_id
from utils.course.manifest import Exercise, Part, exercises, parts
from utils.course.masters import without_markers

# What prose may not be linked in: fenced and inline code, formulas, links, headings, HTML.
UNTOUCHED = re.compile(
    r"^(```|~~~|:::).*?^\1|`[^`]*`|\$\$.*?\$\$|\$[^$]+\$|!?\[[^\]]*\]\([^)]*\)|^#+ .*?$|<[^>]+>",
    re.DOTALL | re.MULTILINE,
)
PART = re.compile(r"\b(0\d|10)[a-e]\b")
INLINE = re.compile(r"(?<!\[)`([A-Za-z_]\w*)`(?!\])")
FOLDED = re.compile(r"\*Folded: (.*)\. A click on the dots below opens the code\.\*")


# Given the name and the bytes of a picture, where the page finds it.
SaveFigure = Callable[[str, bytes], str]


def page(part: Part, save_figure: SaveFigure) -> nbformat.NotebookNode:
    """The notebook that Sphinx turns into a part's page, from its solution and its learner's notebook."""
    notebook = nbformat.read(paths.solution_path(part.chapter, part.name), as_version=4)
    released = nbformat.read(paths.release_path(part.chapter, part.name), as_version=4)
    stubs = {grade_id(cell): cell.source for cell in released.cells if cell.cell_type == "code"}
    linked = Links(part)
    cells, fold = [], None
    for cell in notebook.cells:
        name = grade_id(cell)
        exercise = next((e for e in part.exercises if e.name == name), None)
        if exercise:
            cells += map(new_markdown_cell, _exercise(exercise, stubs[name], cell.source))
        elif name and cell.cell_type == "markdown":
            cells.append(
                new_markdown_cell(
                    _dropdown("Write first, then compare: our answer and the rubric", linked(cell.source))
                )
            )
        elif name:
            continue  # a check: its place is the learner's notebook
        elif found := FOLDED.fullmatch(cell.source.strip()):
            fold = found[1]
        elif cell.cell_type == "markdown":
            text = _box(cell.source, part) if cell.id.startswith("box-") else cell.source
            cells.append(new_markdown_cell(linked(text)))
        else:
            if "setup" in cell.metadata.get("tags", []):
                fold = "the set-up"
            cells.append(_code(cell, fold, save_figure))
            fold = None
    cells.insert(1, new_markdown_cell(_how_to_open(part)))
    return nbformat.v4.new_notebook(cells=cells, metadata=notebook.metadata)


class Links:
    """Makes links of other parts' names, and of an exercise's name where it is first mentioned on a page.

    Args:
        part: Whose page it is; None for a page of the book's first level.
    """

    def __init__(self, part: Part | None = None):
        self.up = "../" if part else ""
        self.named = {exercise.name for exercise in part.exercises} if part else set()
        self.pages = {other.key: other for other in parts() if other != part}
        self.exercises = exercises()

    def __call__(self, text: str) -> str:
        pieces, end = [], 0
        for found in UNTOUCHED.finditer(text):
            pieces += [self._parts(text[end : found.start()]), self._piece(found[0])]
            end = found.end()
        return "".join([*pieces, self._parts(text[end:])])

    def _parts(self, prose: str) -> str:
        return PART.sub(self.part, prose)

    def part(self, found: re.Match) -> str:
        other = self.pages.get(found[0])
        return f"[{found[0]}]({self.up}{other.chapter}/{other.name}.ipynb)" if other else found[0]

    def _piece(self, piece: str) -> str:
        if re.fullmatch(r"\$[^$]+\$", piece):
            return " ".join(piece.split("\n"))  # a line that begins with a minus would begin a list
        found = INLINE.fullmatch(piece)
        if not found or found[1] in self.named or found[1] not in self.exercises:
            return piece
        self.named.add(found[1])
        return f"[{piece}](#{target(self.exercises[found[1]])})"


def target(exercise: Exercise) -> str:
    """The label by which any page refers to an exercise."""
    return f"exercise-{exercise.name.replace('_', '-').lower()}"


def _how_to_open(part: Part) -> str:
    return (
        f":::{{admonition}} To work on this part\n:class: tip\n"
        f"`make lab`, then open `work/{part.chapter}/{part.name}.ipynb`. There your answers are checked, and a wrong "
        "one is told what it does. On this page each exercise has its hints and our answer, folded away.\n:::"
    )


def _box(text: str, part: Part) -> str:
    """An exercise's or question's box: a heading of the third level, with a label that others can refer to."""
    text = re.sub(r" · \d+ hints?: `hint\(.*\)`", "", text.replace("#### ", "### ", 1))
    text = re.sub(r" On your own: write first.*", "", text)
    exercise = next((e for e in part.exercises if f"· `{e.name}`" in text.splitlines()[0]), None)
    return f"({target(exercise)})=\n{text}" if exercise else text


def _exercise(exercise: Exercise, stub: str, solution: str) -> Iterator[str]:
    yield f"```python\n{stub.rstrip()}\n```"
    hints = ""
    for number in range(len(exercise.hints), 0, -1):
        hints = _dropdown(
            f"Hint {number}",
            exercise.hints[number - 1] + ("\n\n" + hints if hints else ""),
            depth=len(exercise.hints) - number,
        )
    if hints:
        yield hints
    answer = without_markers(solution)
    yield _dropdown("Try first, then compare: our answer", f"```python\n{answer}\n```")


def _dropdown(title: str, text: str, depth: int = 0) -> str:
    fence = ":" * (4 + depth)
    return f"{fence}{{dropdown}} {title}\n{text}\n{fence}"


def _code(cell: nbformat.NotebookNode, fold: str | None, save_figure: SaveFigure) -> nbformat.NotebookNode:
    cell.metadata = nbformat.NotebookNode(
        {"tags": ["hide-input"], "mystnb": {"code_prompt_show": f"Code: {fold}", "code_prompt_hide": "Fold the code"}}
        if fold
        else {}
    )
    for number, output in enumerate(cell.get("outputs", [])):
        html = output.get("data", {}).get("text/html")
        if html:
            output["data"] = nbformat.NotebookNode(
                {"text/html": _without_data(html, f"{cell.id}-{number}", save_figure)}
            )
    return cell


def _without_data(html: str, name: str, save_figure: SaveFigure) -> str:
    """The same HTML, its pictures in files."""
    count = 0

    def move(found: re.Match) -> str:
        nonlocal count
        count += 1
        kind = {"png": "png", "jpeg": "jpg", "svg+xml": "svg"}[found[1]]
        return f'src="{save_figure(f"{name}-{count}.{kind}", base64.b64decode(found[2]))}" loading="lazy"'

    return re.sub(r'src="data:image/([a-z+]+);base64,([^"]*)"', move, html)


def write(part: Part, source: Path, figures: Path) -> None:
    """Write a part's page into the book's sources, and its pictures to where the built book has them."""

    def save_figure(name: str, data: bytes) -> str:
        (figures / f"{part.key}-{name}").write_bytes(data)
        return f"../{figures.name}/{part.key}-{name}"

    folder = source / part.chapter
    folder.mkdir(parents=True, exist_ok=True)
    nbformat.write(page(part, save_figure), folder / f"{part.name}.ipynb")
