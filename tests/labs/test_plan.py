"""What fits into a session, and the ways through the course: hours that add up, and what the README says of them."""

import pytest

from utils.course.cli import main
from utils.course.manifest import CourseError, chapters, find_parts, parts
from utils.course.paths import ROOT
from utils.course.plan import BREAK, LONGEST, TRACKS, Step, breaks, named, recommended, schedule, with_breaks

WEEK, DAY = TRACKS
EACH_PART = pytest.mark.parametrize("part", parts(), ids=[part.key for part in parts()])


def part_of(key):
    (part,) = find_parts(key)
    return part


@EACH_PART
def test_every_part_has_a_session_of_three_hours_at_most(part):
    assert with_breaks(part.minutes_for(recommended(part))) <= LONGEST


@EACH_PART
@pytest.mark.parametrize("minutes", [45, 90, 150])
def test_a_session_keeps_to_its_time_and_takes_the_core_path_first(part, minutes):
    chosen = recommended(part, minutes)
    assert 0 < with_breaks(part.minutes_for(chosen)) <= minutes
    left = [e for e in part.exercises if e.name in part.core and e.name not in chosen]
    if any(e.name not in part.core for e in part.exercises if e.name in chosen):  # then no core exercise would fit
        assert all(with_breaks(part.minutes_for([*(set(chosen) & set(part.core)), e.name])) > minutes for e in left)


def test_reasoning_about_a_case_is_asked_only_with_the_case():
    for part in parts():
        chosen = recommended(part, 60)
        if any(name.startswith("case_") for name in chosen):
            assert any(e.case for e in part.exercises if e.name in chosen)


def test_nothing_fits_into_no_time():
    with pytest.raises(CourseError, match="Nothing of part 04a fits into 1 minutes"):
        recommended(part_of("04a"), 1)


def test_exercises_are_named_by_number_name_and_range():
    part = part_of("04a")
    first = [e.name for e in part.exercises[:3]]
    assert named(part, "4.1-4.3") == tuple(first)
    assert named(part, "4.3, 4.1,case 04a, nothing_restores")[:3] == (first[2], first[0], "what_the_last_word_carries")
    assert named(part, "4.1-4.2, 4.2") == tuple(first[:2])
    assert named(part, "") == ()
    with pytest.raises(CourseError, match="residual_stack is not in part 04a"):
        named(part, "3.1")
    with pytest.raises(CourseError, match="no exercise called '4.99'"):
        named(part, "4.1-4.99")


@pytest.mark.parametrize(("work", "expected"), [(60, 0), (61, 1), (120, 1), (121, 2), (180, 2)])
def test_there_is_a_break_in_each_hour_after_the_first(work, expected):
    assert breaks(work) == expected
    plan = schedule([Step(str(i), 1, id=str(i)) for i in range(work)])
    pauses = [i for i, (_, step) in enumerate(plan) if not step.id]
    assert len(pauses) == expected
    for before, after in zip([0, *pauses], [*pauses, len(plan)], strict=True):
        assert after - before <= 61


def test_a_plan_has_neither_gaps_nor_a_break_at_an_end():
    plan = schedule([Step("a", 50, id="a"), Step("b", 5, id="b"), Step("c", 40, id="c")])
    assert [(start, step.title) for start, step in plan] == [(0, "a"), (50, "Break"), (50 + BREAK, "b"), (65, "c")]
    assert schedule([Step("one", 170, id="one")]) == [(0, Step("one", 170, id="one"))]


class TestTracks:
    def test_they_name_parts_that_are_there(self):
        for track in TRACKS:
            assert [part.key for part, _ in track.sessions()] == list(track.keys)

    def test_the_week_is_about_thirty_hours_and_goes_through_every_chapter(self):
        minutes = sum(part.minutes_for(chosen) for part, chosen in WEEK.sessions())
        assert 26 <= minutes / 60 <= 33
        assert {part.chapter for part, _ in WEEK.sessions()} == {chapter.name for chapter in chapters()}

    def test_the_day_is_about_six_hours(self):
        minutes = sum(part.minutes_for(chosen) for part, chosen in DAY.sessions())
        assert 5.4 <= minutes / 60 <= 6.6

    @pytest.mark.parametrize("track", TRACKS, ids=lambda track: track.name)
    def test_the_readme_says_the_same(self, track):
        said = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
        assert track.summary() in said, f"the README should say: {track.summary()}"

    def test_progress_shows_them(self, capsys):
        assert main(["progress"]) == 0
        said = capsys.readouterr().out
        for track in TRACKS:
            assert track.summary() in said
