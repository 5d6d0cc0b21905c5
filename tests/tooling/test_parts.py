"""A chapter of two parts: what the build makes of it, and what a learner does with it."""

import shutil

import nbformat
import pytest

from utils.course import work
from utils.course.build import read_masters
from utils.course.cli import main
from utils.course.manifest import exercises, find_exercise, find_parts, parts
from utils.course.masters import MasterError, duration
from utils.course.paths import release_path, solution_path, work_path


@pytest.fixture
def course(mini, built_mini):
    shutil.copytree(built_mini, mini, dirs_exist_ok=True)
    return mini


def cells_of(key, kind="solution"):
    (part,) = find_parts(key)
    path = {"solution": solution_path, "release": release_path}[kind](part.chapter, part.name)
    return nbformat.read(path, as_version=4).cells


def master(course, key):
    return next((course / "solutions").glob(f"*/{key}_*.md"))


def test_exercises_are_numbered_through_the_chapter_and_cases_by_their_part(course):
    labels = {e.name: e.label for e in map(find_exercise, ("triple", "ninefold", "case 02b"))}
    assert labels == {"triple": "exercise 2.1", "ninefold": "exercise 2.2", "does_it_grow": "case 02b"}
    assert find_exercise("2.2").name == "ninefold" and find_exercise("exercise 2.1").name == "triple"


def test_a_part_goes_by_its_key_and_a_chapter_stands_for_its_parts(course):
    def names(text):
        return [part.name for part in find_parts(text)]

    assert names("02a") == names("2a") == names("02a_first") == ["02a_first"]
    assert names("02") == names("2") == names("02_pair") == ["02a_first", "02b_second"]
    assert names("01") == ["01_mini"]


def test_the_first_page_states_the_sum_of_all_minutes(course):
    for part in parts():
        stated = next(cell.source for cell in cells_of(part.key, "release") if cell.source.startswith("**Time.**"))
        assert stated.startswith(f"**Time.** About {duration(part.minutes)}: {duration(part.reading)} for reading")
        assert "for 1 case" in stated if any(e.case for e in part.exercises) else "case" not in stated.split("\n")[0]
    (second,) = find_parts("02b")
    assert second.minutes == 5 + 5 + 10 + 3
    assert second.core_minutes == 10 + 3  # the case, and its share of the reading: 5 * 10 / 18


def test_the_core_path_is_named(course):
    text = "\n".join(cell.source for cell in cells_of("02b", "release"))
    assert "**The core path**, with half the time (about 13 min): case 02b `does_it_grow`." in text


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("core: [triple]", "core: [tripel]", "core names tripel, which this part does not have"),
        ("reading: 5", "reading: long", "reading should be a whole number of minutes"),
        ("  core: [triple]\n", "", "its header needs `part:` with core and reading"),
    ],
)
def test_a_mistake_in_the_header_names_the_file(course, old, new, message):
    path = master(course, "02a")
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(MasterError, match=message) as caught:
        read_masters()
    assert "02a_first.md" in str(caught.value)


def test_a_folded_cell_arrives_closed_with_a_line_that_says_what_it_does(course):
    for kind in ("solution", "release"):
        cells = cells_of("02a", kind)
        (folded,) = (i for i, cell in enumerate(cells) if cell.metadata.get("jupyter") == {"source_hidden": True})
        assert cells[folded - 1].source.startswith("*Folded: computes it.")


def test_boxes_are_headings_so_that_the_table_of_contents_lists_them(course):
    headings = [cell.source.splitlines()[0] for cell in cells_of("02b") if cell.source.startswith("#### ")]
    assert headings == [
        "#### Exercise 2.2 · `ninefold`",
        "#### Case 02b · `does_it_grow`",
        "#### Question 02b.1 · `why_grow`",
    ]


def test_checking_a_chapter_checks_its_parts(course, capsys):
    assert main(["check", "02"]) == 1
    out = capsys.readouterr().out
    assert "Part 02a: 0 of 1 exercises, 0 of 2 points" in out and "Part 02b: 0 of 2 exercises, 0 of 4 points" in out
    assert main(["check", "02", "--notebook", "mine.ipynb"]) == 2
    assert "Say which part mine.ipynb is of: 02a, 02b" in capsys.readouterr().err


def test_building_one_part_leaves_the_others_alone(course, capsys):
    for key in ("02a", "02b"):
        path = master(course, key)
        path.write_text(path.read_text() + "\nOne more sentence.\n")
    assert main(["build", "02b"]) == 0
    assert "02a_first" not in capsys.readouterr().out
    assert main(["build", "--check"]) == 1
    out = capsys.readouterr().out
    assert "02a_first.ipynb is older than its master" in out and "02b_second: up to date" in out


def test_a_notebook_without_a_master_is_named(course, capsys):
    shutil.copy(release_path("02_pair", "02a_first"), release_path("02_pair", "02c_third"))
    assert main(["build", "--check"]) == 1
    assert "chapters/02_pair/02c_third.ipynb has no master" in capsys.readouterr().out


def test_the_answer_to_a_question_in_words_is_shown_with_its_rubric(course, capsys):
    assert main(["solution", "why_grow"]) == 0
    assert "three is more than one. **Rubric.**" in capsys.readouterr().out


class TestWork:
    """The learner's own notebooks."""

    def test_every_notebook_is_copied_once(self, course, capsys):
        assert main(["work"]) == 0
        assert "work/: 3 new, 0 as you left them" in capsys.readouterr().out
        assert main(["work"]) == 0
        assert capsys.readouterr().out == ""
        own = work_path("02_pair", "02a_first")
        assert own.read_bytes() == release_path("02_pair", "02a_first").read_bytes()

    def test_what_a_learner_wrote_is_checked_and_never_overwritten(self, course, capsys):
        work.prepare()
        own = work_path("02_pair", "02a_first")
        own.write_text(own.read_text().replace("raise NotImplementedError()", "return x + x + x"))
        mine = own.read_bytes()
        released = release_path("02_pair", "02a_first")
        released.write_text(released.read_text().replace("The first of two", "The first of three"))
        capsys.readouterr()
        assert main(["work"]) == 0
        assert "02a: the course has a newer notebook" in capsys.readouterr().out
        assert own.read_bytes() == mine
        assert main(["check", "02a"]) == 0

    def test_a_fresh_copy_sets_the_old_one_aside(self, course, capsys):
        work.prepare()
        own = work_path("02_pair", "02a_first")
        own.write_text("mine")
        assert main(["work", "--fresh", "02a"]) == 0
        assert own.read_bytes() == release_path("02_pair", "02a_first").read_bytes()
        (aside,) = own.parent.glob("02a_first-*.ipynb")
        assert aside.read_text() == "mine" and aside.name in capsys.readouterr().out


def test_no_exercise_has_a_name_that_a_check_s_cell_could_have():
    """The cell that checks ``name`` is called ``check_name``, for nbgrader, the gradebook and sessions."""
    assert not [name for name in exercises() if name.startswith("check_")]
