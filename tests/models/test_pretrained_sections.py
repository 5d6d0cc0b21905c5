"""The chapters' sections on GPT-2 run where it is in the cache: here a random one of few dimensions."""

import ast
from pathlib import Path

import nbformat
import pytest
from huggingface_hub import constants

from utils.course.learner import collect_answers
from utils.course.manifest import Part, parts
from utils.course.paths import load_file, solution_path

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
}


def code_cells(part: Part) -> list[str]:
    notebook = nbformat.read(solution_path(part.chapter, part.name), as_version=4)
    return [cell.source for cell in notebook.cells if cell.cell_type == "code"]


def test_every_section_is_here():
    found = {part.name for part in parts() if any("except ModelUnavailable" in cell for cell in code_cells(part))}
    # 01d's section is on ResNet-18 and photographs; 05a's functions have a test of their own on SmolLM2.
    assert found == SECTIONS.keys() | {"01d_would_noise_do", "05a_induction"}


@pytest.mark.parametrize("name", SECTIONS)
def test_the_section_runs(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    sizes = {"n_embd": 24, "n_layer": 3, "n_head": 3, "n_positions": 128, "vocab_size": 400}
    hub_cache.put_gpt2(tmp_path, "gpt2", hub_cache.random_gpt2(std=0.3, **sizes), WORDS)
    (part,) = (part for part in parts() if part.name == name)
    namespace, _ = collect_answers(part, solution_path(part.chapter, part.name))
    cells = code_cells(part)
    imports = [
        node
        for cell in cells
        if not cell.lstrip().startswith(("%", "!"))
        for node in ast.parse(cell).body
        if isinstance(node, ast.Import | ast.ImportFrom)
    ]
    exec(compile(ast.Module(imports, []), name, "exec"), namespace)
    (section,) = (cell for cell in cells if "except ModelUnavailable" in cell)
    capsys.readouterr()
    exec(compile(section, name, "exec"), namespace)
    said = capsys.readouterr().out
    assert "not on this machine" not in said and "nan" not in said
    for expected in SECTIONS[name]:
        assert expected in said, said
