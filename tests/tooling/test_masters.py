"""What the build makes of a master: markers, ids, metadata, and errors that name a line."""

import json
import textwrap

import nbformat
import pytest
import torch

from utils.course import manifest
from utils.course.build import course_of, is_current, read_masters
from utils.course.masters import Master, MasterError


@pytest.fixture
def master(mini):
    return mini / "solutions" / "01_mini" / "01_mini.md"


def source_of(built, cell_id):
    return next(c.source for c in built.notebook.cells if c.id == cell_id)


def test_body_stands_between_markers(master):
    assert source_of(Master(master).build(), "double") == textwrap.dedent('''\
        def double(x: Tensor) -> Tensor:
            """Twice ``x``."""
            ### BEGIN SOLUTION
            return 2 * x
            ### END SOLUTION''')


def test_given_parts_stay_outside_the_markers(master):
    assert source_of(Master(master).build(), "scaffolded") == textwrap.dedent('''\
        def scaffolded(x: Tensor, n: int) -> Tensor:
            """``x`` plus one, doubled ``n`` times."""
            # Given: the start
            result = x + 1

            # Yours: double it n times
            ### BEGIN SOLUTION
            for _ in range(n):
                result = double(result)
            ### END SOLUTION

            # Given: hand it back
            return result''')


def test_a_given_method_has_no_markers(master):
    source = source_of(Master(master).build(), "Scale")
    init, forward = source.split("def forward")
    assert "BEGIN SOLUTION" not in init
    assert forward.count("BEGIN SOLUTION") == forward.count("END SOLUTION") == 1
    assert "self.w * x" in forward.split("BEGIN SOLUTION")[1]


def test_the_marked_source_computes_the_same(master):
    namespace = {}
    exec("import torch\nfrom torch import Tensor, nn", namespace)
    for name in ("double", "quadruple", "scaffolded", "Scale"):
        exec(source_of(Master(master).build(), name), namespace)
    assert namespace["scaffolded"](torch.tensor(1.0), 3) == 16
    assert namespace["quadruple"](torch.tensor(1.5)) == 6


def test_cell_ids_are_the_same_each_time_valid_and_unique(master):
    first, second = (Master(master).build().notebook for _ in range(2))
    ids = [c.id for c in first.cells]
    assert ids == [c.id for c in second.cells]
    assert len(set(ids)) == len(ids)
    nbformat.validate(first)


def test_an_insertion_in_one_section_leaves_the_ids_of_the_others(master):
    before = {c.source: c.id for c in Master(master).build().notebook.cells}
    master.write_text(master.read_text().replace("## Doubling", "## Doubling\n\nNew prose.\n\n+++\n"))
    after = {c.source: c.id for c in Master(master).build().notebook.cells}
    assert before["The end."] == after["The end."]
    assert (
        before[next(s for s in before if s.startswith("## More"))]
        == after[next(s for s in after if s.startswith("## More"))]
    )


def test_prose_is_divided_at_headings_and_not_inside_code(master):
    master.write_text(
        master.read_text().replace("The end.", "Before.\n\n## After\n\n```\n# no heading\n```\n\nThe end.")
    )
    cells = {c.id: c.source for c in Master(master).build().notebook.cells}
    assert cells["after-1"] == "## After\n\n```\n# no heading\n```\n\nThe end."
    assert "Before." in cells.values()


def test_exercises_are_numbered_in_order(master):
    exercises = Master(master).build().part.exercises
    assert [(e.number, e.name, e.points) for e in exercises] == [
        ("1.1", "double", 2),
        ("1.2", "quadruple", 3),
        ("1.3", "scaffolded", 1),
        ("1.4", "Scale", 4),
    ]


def test_manifest_survives_a_round_trip(master):
    course = course_of(read_masters())
    assert manifest.parse(json.loads(manifest.dump(course))) == course


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("mini_references.double", "mini_references.dubble", "no function or class called dubble"),
        ("mini_references.double", "no_such_module.double", "no module no_such_module"),
        ("points: 2", "points: two", "points of double should be a whole number from 1 to 20, not 'two'"),
        ("difficulty: 1\nimportance: 5", "difficulty: 9\nimportance: 5", "difficulty of double"),
        ("points: 2", "pints: 2", "missing points; unknown pints"),
        ('  - "What is x + x?"\n', "", "hints of double should be a list of at least two"),
        ("mini_references.quadruple", "mini_references.double", "double is an exercise of this part already"),
    ],
)
def test_a_mistake_in_the_metadata_names_the_line(master, old, new, message):
    text = master.read_text().replace(old, new, 1)
    master.write_text(text)
    with pytest.raises(MasterError, match=message) as caught:
        Master(master).build()
    line = int(str(caught.value).split(":")[1])
    assert "exercise:" in text.splitlines()[line - 1]


def test_a_question_without_points_names_the_line(master):
    master.write_text(master.read_text().replace('"points": 5, ', ""))
    with pytest.raises(MasterError, match="why_four: missing points") as caught:
        Master(master).build()
    assert "why_four" in master.read_text().splitlines()[int(str(caught.value).split(":")[1]) - 1]


def test_code_in_an_exercise_cell_is_refused(master):
    master.write_text(master.read_text().replace('  - "Multiply by 2."\n---\n', '  - "Multiply by 2."\n---\nx = 1\n'))
    with pytest.raises(MasterError, match="should be empty"):
        Master(master).build()


def test_two_chapters_cannot_share_a_name(mini, master):
    other = mini / "solutions" / "03_other"
    other.mkdir()
    (other / "03_other.md").write_text(master.read_text())
    with pytest.raises(MasterError, match="double is in 01_mini already"):
        read_masters()


def test_nothing_is_current_before_a_build(mini, master):
    assert not is_current(Master(master).build())
