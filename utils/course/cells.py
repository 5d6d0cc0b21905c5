"""What can be told of a notebook's cell by reading it."""

import ast
import re

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
