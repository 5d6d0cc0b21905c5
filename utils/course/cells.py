"""What can be told of a notebook's cell by reading it."""

import ast
import re
import symtable
from collections.abc import Sequence

from nbformat import NotebookNode

DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def plain_python(source: str) -> str:
    """A cell's source without IPython's own syntax: magics, shell commands, help. Lines keep their numbers."""
    lines = source.splitlines()
    return "\n".join("" if re.match(r"\s*[%!?]|\s*[\w.]+\?{1,2}\s*$", line) else line for line in lines)


def defined_names(source: str) -> set[str]:
    """Names of the functions and classes that a cell defines at its top level."""
    try:
        body = ast.parse(plain_python(source)).body
    except SyntaxError:
        return set()
    return {node.name for node in body if isinstance(node, DEFINITIONS)}


def only_defines(source: str) -> bool:
    """Whether a cell imports, defines and names constants, and does nothing else."""
    try:
        body = ast.parse(plain_python(source)).body
    except SyntaxError:
        return False
    return bool(body) and all(
        isinstance(node, (*DEFINITIONS, ast.Import, ast.ImportFrom))
        or (isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None and _calls_nothing(node.value))
        for node in body
    )


def _calls_nothing(value: ast.expr) -> bool:
    """Whether an expression is made of literals and names alone, or is a function."""
    work = (ast.Call, ast.Await, ast.Yield, ast.YieldFrom, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
    return isinstance(value, ast.Lambda) or not any(isinstance(node, work) for node in ast.walk(value))


def names_used_and_made(source: str) -> tuple[set[str], set[str]]:
    """Names that a cell takes from the notebook, in functions too, and those that it leaves there.

    A name that the cell binds anywhere at its top level counts as its own: the order of lines is what running tests.
    """
    top = symtable.symtable(plain_python(source), "cell", "exec")
    made = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_assigned() or symbol.is_imported()}
    used = {symbol.get_name() for symbol in top.get_symbols() if symbol.is_referenced()}
    tables = list(top.get_children())
    while tables:
        table = tables.pop()
        for symbol in table.get_symbols():
            own = symbol.is_assigned() or symbol.is_parameter()  # is_global is wrong in a function that is called "top"
            used |= {symbol.get_name()} if symbol.is_global() and symbol.is_referenced() and not own else set()
        tables += table.get_children()
    return used - made, made


def sections(cells: Sequence[NotebookNode]) -> list[list[NotebookNode]]:
    """A notebook's cells, divided at headings of the second level and below; the boxes of exercises divide nothing."""
    found: list[list[NotebookNode]] = [[]]
    for cell in cells:
        if cell.cell_type == "markdown" and re.match(r"##+ ", cell.source) and not cell.source.startswith("#### "):
            found.append([])
        found[-1].append(cell)
    return found


def grade_id(cell: NotebookNode) -> str | None:
    """nbgrader's name of a cell; None for any other cell, and where an editor has lost the metadata."""
    metadata = cell.metadata.get("nbgrader")
    name = metadata.get("grade_id") if isinstance(metadata, dict) else None
    return name if isinstance(name, str) else None


def boxed(cell: NotebookNode) -> str | None:
    """The exercise or question whose box a cell is."""
    found = re.match(r"#### (?:Exercise|Case|Question) \S+ · `(\w+)`\n", cell.source)
    return found[1] if found and cell.cell_type == "markdown" else None
