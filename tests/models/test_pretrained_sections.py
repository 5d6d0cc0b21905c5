"""The chapters' sections on real networks: on GPT-2 where it is in the cache, here a random one of few dimensions; and,
where the models of the package index are not there, with one sentence and without an error.
"""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from huggingface_hub import constants

from utils.course.learner import collect_answers
from utils.course.manifest import Part, parts
from utils.course.paths import load_file, solution_path
from utils.models import hub, packaged

hub_cache = load_file(Path(__file__).with_name("hub_cache.py"))

WORDS = [
    " Mary",
    " John",
    " Tom",
    " James",
    " Dan",
    " Paul",
    " Anna",
    " Kate",
    " Emma",
    " Paris",
    " Rome",
    " Berlin",
    " Eiffel",
    " Tower",
]
SECTIONS = {
    "02d_weights_sampling_cost": ("largest difference to transformer_lens", "loss by token", "next:"),
    "03a_reading_the_stream": ("GPT-2 small: ranks of Paris, Rome, Berlin by site", "GPT-2 small: own city"),
    "04b_tracing_and_ablating": (
        "logit difference",
        "replacing costs most",
        "P(Paris)",
        "restored at the                end",
    ),
    "05a_induction": ("loss without nothing", "loss without five others"),
    "05b_ioi": ("the receiver leads by", "S2 looks at S1:", "all thirteen", "movers"),
    "05c_found_automatically": ("edges; logit difference", "with another giver", "EAP", "exact"),
    "06a_bases_and_room": ("kurtosis", "families"),
    "07b_what_the_network_uses": ("Monday …, embedding", "January …, layer", "weekday sums right"),
}


GPT2 = ("load_gpt2_small()", 'load_model("gpt2")')  # what the cell that loads it says
INDEX = {
    'load_model("smollm2-135m")': "smollm2-135m",
    'load_image_classifier("efficientnet-lite0")': "efficientnet-lite0",
}


def code_cells(part: Part) -> list[str]:
    notebook = nbformat.read(solution_path(part.chapter, part.name), as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def index_section(part: Part) -> list[str]:
    """Code cells from the one that loads a model of the package index to the end of its section."""
    found: list[str] = []
    for cell in nbformat.read(solution_path(part.chapter, part.name), as_version=4).cells:
        if cell.cell_type == "markdown" and re.match(r"## ", cell.source) and found:
            break
        if cell.cell_type == "code" and (found or any(load in cell.source for load in INDEX)):
            found.append(cell.source)
    return found


def namespace_of(part: Part) -> dict:
    """What set-up, exercises and imports of a part leave behind, and the functions of its section on real networks."""
    namespace, _ = collect_answers(part, solution_path(part.chapter, part.name))
    imports = [
        node
        for cell in code_cells(part)
        if not cell.lstrip().startswith(("%", "!"))
        for node in ast.parse(cell).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    functions = [n for cell in index_section(part) for n in ast.parse(cell).body if isinstance(n, ast.FunctionDef)]
    exec(compile(ast.Module(imports + functions, []), part.name, "exec"), namespace)
    return namespace


ON_THE_INDEX = [part for part in parts() if index_section(part)]


def test_every_section_is_here():
    found = {part.name for part in parts() if any(load in cell for load in GPT2 for cell in code_cells(part))}
    assert found == SECTIONS.keys()
    on_the_index = "01d 01e 02d 03a 04b 05a 05b 05c 05d 06a 06b 06c 07a 07b 08a 08b 08c 08d 09a 09b 09c 10a 10b"
    assert [part.key for part in ON_THE_INDEX] == on_the_index.split()


@pytest.mark.parametrize("part", ON_THE_INDEX, ids=[part.key for part in ON_THE_INDEX])
def test_without_the_model_there_is_one_sentence(part, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("MI_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(hub, "hub_answers", lambda: False)
    first, *others = index_section(part)
    (name,) = (name for load, name in INDEX.items() if load in first)
    variable = next(
        n.targets[0].id for n in ast.parse(first).body if isinstance(n, ast.Assign) and ast.unparse(n.value) == "None"
    )
    namespace = namespace_of(part)
    capsys.readouterr()
    exec(compile(first, part.name, "exec"), namespace)
    with pytest.raises(hub.ModelUnavailable) as told:
        packaged.packaged_folder(name)
    assert capsys.readouterr().out == f"{told.value}\n" and namespace[variable] is None
    for cell in others:
        exec(compile(cell, part.name, "exec"), namespace)
        said = capsys.readouterr().out
        assert variable not in re.findall(r"\w+", cell) or not said, said


@pytest.mark.parametrize("name", SECTIONS)
def test_the_section_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    sizes = {"n_embd": 24, "n_layer": 5, "n_head": 4, "n_positions": 128, "vocab_size": 400}
    hub_cache.put_gpt2(tmp_path, "gpt2", hub_cache.random_gpt2(std=0.3, **sizes), WORDS)
    (part,) = (part for part in parts() if part.name == name)
    namespace = namespace_of(part)
    (section,) = (cell for cell in code_cells(part) if any(load in cell for load in GPT2))
    capsys.readouterr()
    exec(compile(section, name, "exec"), namespace)
    said = capsys.readouterr().out
    assert "not on this machine" not in said and "nan" not in said
    for expected in SECTIONS[name]:
        assert expected in said, said
