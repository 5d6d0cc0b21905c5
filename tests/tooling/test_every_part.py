"""What every part of the course has, and what fits into one sitting."""

import builtins
import re

import nbformat
import pytest

from utils.course.build import read_masters
from utils.course.cells import names_used_and_made, sections
from utils.course.manifest import Part, parts
from utils.course.paths import solution_path

EACH_PART = pytest.mark.parametrize("part", parts(), ids=[part.key for part in parts()])
# Chapter 00 shows the tools and is not graded.
EACH_GRADED_PART = pytest.mark.parametrize(
    "part", [p for p in parts() if p.key != "00"], ids=[p.key for p in parts() if p.key != "00"]
)
SITTING, EXERCISES, WORDS = 180, 12, 7500


def cells_of(part: Part) -> list[nbformat.NotebookNode]:
    return nbformat.read(solution_path(part.chapter, part.name), as_version=4).cells


def prose_of(part: Part) -> str:
    """The text that a learner reads; answers to questions in words are not part of it."""
    cells = [c for c in cells_of(part) if c.cell_type == "markdown" and "nbgrader" not in c.metadata]
    return "\n\n".join(cell.source for cell in cells)


@EACH_PART
def test_a_part_fits_into_a_sitting(part):
    exercises = [e for e in part.exercises if not e.case]
    assert part.minutes <= SITTING, f"{part.minutes} minutes"
    assert len(exercises) <= EXERCISES
    assert len(prose_of(part).split()) <= WORDS, f"{len(prose_of(part).split())} words"


@EACH_GRADED_PART
def test_the_core_path_takes_about_half_the_time(part):
    assert 0.35 <= part.core_minutes / part.minutes <= 0.62, f"{part.core_minutes} of {part.minutes} minutes"


@EACH_GRADED_PART
def test_a_third_of_the_time_goes_into_analysis(part):
    analysis = part.reading + sum(e.minutes for e in part.exercises if e.case) + sum(q.minutes for q in part.questions)
    assert analysis >= part.minutes / 3


@EACH_GRADED_PART
def test_a_part_has_a_case_with_its_reasoning_a_box_of_conventions_and_a_summary(part):
    assert [e for e in part.exercises if e.case], "no case"
    assert any(e.case and e.name in part.core for e in part.exercises), "the core path leaves the case out"
    assert part.questions, "no question in words"
    prose = prose_of(part)
    assert re.search(r"^## Conventions$", prose, re.MULTILINE)
    assert re.search(r"^## Summary$", prose, re.MULTILINE)


@EACH_GRADED_PART
def test_predictions_are_kept_and_answered(part):
    code = "\n".join(cell.source for cell in cells_of(part) if cell.cell_type == "code")
    predicted = re.findall(r"^predict\(\s*\"([^\"]+)\", \.\.\.", code, re.MULTILINE)
    answered = re.findall(r"\boutcome\(\s*\"([^\"]+)\"", code)
    assert predicted, "nothing is predicted"
    assert len(set(predicted)) == len(predicted)
    assert set(predicted) == set(answered)


@EACH_PART
def test_only_the_build_states_hours(part):
    """Minutes are summed by the build; a sentence of our own would drift."""
    said = re.findall(r"\babout (?:an|one|two|three|four|five|six|\d+) hours?\b", prose_of(part).split("**Time.**")[0])
    assert not said


def on_the_core_path(part: Part) -> list[nbformat.NotebookNode]:
    """Code cells that a learner runs who leaves out each section whose exercises are all off the core path."""
    names = {item.name for item in (*part.exercises, *part.questions)}
    kept = []
    for cells in sections(cells_of(part)):
        here = {cell.metadata["nbgrader"]["grade_id"] for cell in cells if "nbgrader" in cell.metadata} & names
        if not here or here & set(part.core):
            kept += [cell for cell in cells if cell.cell_type == "code"]
    return kept


@EACH_PART
def test_the_core_path_runs_without_what_it_leaves_out(part):
    """Data, models and helpers that several sections need stand in the set-up cell."""
    known = set(dir(builtins)) | {e.name for e in part.exercises}
    for cell in on_the_core_path(part):
        used, made = names_used_and_made(cell.source)
        assert not used - known, f"cell {cell.id} needs {sorted(used - known)}, made in a section that is left out"
        known |= made


def test_titles_begin_with_the_parts_key():
    for name, built in read_masters().items():
        assert built.part.title.startswith(f"{built.part.key} · "), name
