"""The book's pages, as they are written for Sphinx: all that a part has, and what should be tried first folded away."""

import re
import sys

import pytest

from utils.course import paths
from utils.course.formulas import formula
from utils.course.manifest import parts

sys.path.insert(0, str(paths.ROOT / "docs/book"))
import demos  # noqa: E402

pages = paths.load_file(paths.ROOT / "docs/book/pages.py")
EACH_PART = pytest.mark.parametrize("part", parts(), ids=[part.key for part in parts()])
FORMULA = re.compile(r"\$\$(.+?)\$\$|(?<![\\$\w])\$([^$]+)\$", re.DOTALL)


@pytest.fixture(scope="module")
def made():
    """Each part's page, made once, and the pictures that it has saved."""
    found = {}

    def page(part):
        if part.key not in found:
            saved = {}
            notebook = pages.page(part, lambda name, data: saved.setdefault(name, data) and f"figures/{name}")
            found[part.key] = notebook, saved
        return found[part.key]

    return page


def outside_dropdowns(notebook):
    """What a reader sees without opening anything."""
    return "\n".join(cell.source for cell in notebook.cells if not cell.source.startswith("::::{dropdown}"))


@EACH_PART
def test_an_exercise_shows_its_stub_and_folds_hints_and_answer(part, made):
    notebook, _ = made(part)
    seen = outside_dropdowns(notebook)
    cells = [cell.source for cell in notebook.cells]
    for exercise in part.exercises:
        assert f"({pages.target(exercise)})=" in seen
        stub = next(i for i, cell in enumerate(cells) if re.match(rf"```python\n(def|class) {exercise.name}\b", cell))
        hints, answer = cells[stub + 1], cells[stub + 2]
        assert "NotImplementedError" in cells[stub]
        assert all(hint in hints for hint in exercise.hints)
        assert hints.count("{dropdown} Hint") == len(exercise.hints)
        assert f" {exercise.name}" in answer and "NotImplementedError" not in answer.partition("raise")[0]
        assert f"check({exercise.name})" not in cells
    assert "BEGIN SOLUTION" not in "\n".join(cells)


@EACH_PART
def test_the_answers_to_questions_are_folded(part, made):
    notebook, _ = made(part)
    assert "Rubric." not in outside_dropdowns(notebook)
    folded = [cell.source for cell in notebook.cells if cell.source.startswith("::::{dropdown} Write first")]
    assert len(folded) == len(part.questions)
    assert all("Rubric" in cell for cell in folded)


@EACH_PART
def test_every_figure_is_in_a_file_and_keeps_its_text(part, made):
    notebook, saved = made(part)
    html = "".join(o.get("data", {}).get("text/html", "") for c in notebook.cells for o in c.get("outputs", []))
    shown = re.findall(r"<img [^>]*>", html)
    assert "base64" not in html
    assert sorted(re.findall(r'src="figures/([^"]*)"', html)) == sorted(saved)
    assert len(shown) == len(saved) and all(re.search(r'alt="[^"]{20,}"', image) for image in shown)


@EACH_PART
def test_links_lead_to_parts_and_exercises_that_are_there(part, made):
    notebook, _ = made(part)
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    labels = {pages.target(exercise) for other in parts() for exercise in other.exercises}
    files = {f"../{other.chapter}/{other.name}.ipynb" for other in parts()}
    assert set(re.findall(r"\]\((\.\./[^)]*)\)", text)) <= files
    assert set(re.findall(r"\]\(#(exercise-[^)]*)\)", text)) <= labels


@EACH_PART
def test_every_formula_becomes_mathml(part, made):
    notebook, _ = made(part)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            prose = re.sub(r"^```.*?^```|`[^`]*`", "", cell.source, flags=re.DOTALL | re.MULTILINE)
            for block, inline in FORMULA.findall(prose):
                made_of = formula(block or inline, "block" if block else "inline")
                unknown = re.findall(r"<mi>\\\w+</mi>|\\[A-Za-z]+", re.sub(r"<annotation.*?</annotation>", "", made_of))
                assert not unknown, (block or inline, unknown)


def test_a_line_break_in_a_formula_does_not_begin_a_list():
    assert pages.Links()("so $a\n- b$ is") == "so $a - b$ is"


def test_code_and_formulas_and_links_are_left_alone():
    text = "`06b` and $06b$ and [06b](#x)\n\n```\n06b\n```\n# 06b\n"
    assert pages.Links()(text) == text
    assert pages.Links()("in 06b.") == "in [06b](06_superposition/06b_toy_models.ipynb)."


def test_without_npm_the_demos_that_need_a_library_are_left_out(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(demos, "NPM", tmp_path / "npm")
    monkeypatch.setattr(demos.shutil, "which", lambda name: None)
    assert demos.library() is None
    assert capsys.readouterr().out.count(".") == demos.LIBRARY.count(".") + 1  # one sentence
    demos.write(tmp_path / "demos", None)
    assert {"demo.js", "superposition.js"} <= {path.name for path in (tmp_path / "demos").iterdir()}
    assert not (tmp_path / "demos/runtime.js").exists()
    for chapter, name in demos.OF_CHAPTER.items():
        assert (f"Demo.{name}.open" in demos.opening(chapter, with_library=False)) == (name in demos.PLAIN)
        assert f"Demo.{name}.open" in demos.opening(chapter, with_library=True)
    assert demos.listed(False).count("](") == 1 and demos.listed(True).count("](") == len(demos.OF_CHAPTER)


def test_each_demo_names_a_part_that_explains_it():
    for chapter, name in demos.OF_CHAPTER.items():
        text = demos.opening(chapter, with_library=True)
        assert re.search(rf"\]\(\.\./{chapter}/", text), name
