"""Every exercise of the course: its checks reject what is wrong, with the right sentence, and accept what is right."""

import secrets

import pytest

from utils.course import feedback
from utils.course.catalogue import chapter_catalogue, right_answers, wrong_answers
from utils.course.manifest import chapters, exercises
from utils.course.runner import check_class, check_methods, run_checks

ALL = list(exercises().values())
SEEDS = [0, 1, secrets.randbelow(2**31)]


@pytest.fixture(params=ALL, ids=lambda e: e.name)
def each(request):
    return request.param


def run(exercise, obj):
    reports = [run_checks(exercise, obj, seed=seed) for seed in SEEDS]
    for report in reports:
        assert report.status != "broken", feedback.as_text(report)
    return reports


def test_reference_is_accepted(each):
    for report in run(each, each.reference):
        assert report.status == "passed", feedback.as_text(report)


def test_right_answers_are_accepted(each):
    answers = right_answers(each)
    assert answers, f"{each.name} needs at least one right answer in another style"
    for entry in answers:
        for report in run(each, entry.obj):
            assert report.status == "passed", f"{entry.name}\n{feedback.as_text(report)}"


def test_wrong_answers_are_rejected_with_their_own_sentence(each):
    answers = wrong_answers(each)
    assert len(answers) >= 4, f"{each.name} needs at least four wrong answers"
    assert len({e.sentence for e in answers}) == len(answers), "two wrong answers share a sentence"
    for entry in answers:
        for report in run(each, entry.obj):
            assert report.status == "failed", f"{entry.name} was accepted with seed {report.seed}"
            told = report.diagnosis.name if report.diagnosis else "nothing"
            assert told == entry.name, (
                f"{entry.name} was told {told}, with seed {report.seed}\n{feedback.as_text(report)}"
            )


def test_a_stub_is_not_attempted(each):
    def stub(*args, **kwargs):
        raise NotImplementedError

    assert run_checks(each, stub).status == "not attempted"


def test_an_answer_that_returns_nothing_is_rejected(each):
    assert run_checks(each, lambda *args, **kwargs: None).status == "failed"


def test_checks_explain_themselves(each):
    cls = check_class(each)
    titles = check_methods(cls)
    assert len(titles) == sum(name.startswith("test_") for name in vars(cls)), (
        f"two checks of {each.name} share a title"
    )
    assert all(method.__doc__ for method in titles.values()), f"a check of {each.name} has no docstring"


def test_every_entry_belongs_to_an_exercise():
    for chapter in chapters():
        strangers = {e.exercise for e in chapter_catalogue(chapter.name)} - {e.name for e in chapter.exercises}
        assert not strangers, f"{chapter.name}: entries for {', '.join(strangers)}, which are no exercises"


def test_there_are_exercises():
    assert ALL
