"""The models' modules import one another in one direction, imports inside functions included."""

import ast
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import utils.models

ROOT = Path(utils.models.__file__).parent


def imported(path: Path, modules: set[str]) -> set[str]:
    """The modules among ``modules`` that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found & modules


def in_order(graph: dict[str, set[str]]) -> list[str]:
    return list(TopologicalSorter(graph).static_order())


def test_no_module_of_the_models_imports_itself_by_way_of_others():
    paths = {".".join(path.relative_to(ROOT.parents[1]).with_suffix("").parts): path for path in ROOT.rglob("*.py")}
    graph = {name: imported(path, paths.keys() - {name}) for name, path in paths.items()}
    assert graph["utils.models.course_model_card"] >= {"utils.models.course_model", "utils.models.catalogue"}
    order = in_order(graph)
    assert order.index("utils.models.course_model") < order.index("utils.models.course_model_card")


def test_a_circle_would_be_found():
    with pytest.raises(CycleError):
        in_order({"a": {"b"}, "b": {"c"}, "c": {"a"}})
