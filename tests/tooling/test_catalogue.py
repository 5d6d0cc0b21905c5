"""Every exercise of the course: its checks reject what is wrong, with the right sentence, and accept what is right."""

import inspect
import secrets

import pytest

from utils.course import feedback
from utils.course.catalogue import chapter_catalogue, right_answers, wrong_answers
from utils.course.manifest import chapters
from utils.course.runner import check_class, check_methods, run_checks

SEEDS = [0, 1, 2]


def pytest_generate_tests(metafunc):
    if "each" in metafunc.fixturenames:
        found = metafunc.cls.chapter.exercises
        metafunc.parametrize("each", found, ids=[exercise.name for exercise in found])


@pytest.fixture
def seeds(each, request):
    """Fixed, so that the suite says the same on every run, or ``--fresh-seeds N``: what is rejected is so on any."""
    if each.case:  # its check draws nothing: it runs the design that it is given
        return SEEDS[:1]
    return [secrets.randbelow(2**31) for _ in range(request.config.getoption("--fresh-seeds"))] or SEEDS


def run(exercise, obj, known):
    """Reports for all seeds; ``known`` saves running each wrong answer anew for every other one's diagnosis."""
    reports = [run_checks(exercise, obj, seed=seed, known=found) for seed, found in known.items()]
    for report in reports:
        assert report.status != "broken", feedback.as_text(report)
    return reports


def nothing_known(seeds):
    return {seed: {} for seed in seeds}


class Catalogue:
    def test_reference_is_accepted(self, each, seeds):
        for report in run(each, each.reference, nothing_known(seeds)):
            assert report.status == "passed", feedback.as_text(report)

    def test_right_answers_are_accepted(self, each, seeds):
        answers = right_answers(each)
        assert answers, f"{each.name} needs at least one right answer in another style"
        for entry in answers:
            for report in run(each, entry.obj, nothing_known(seeds)):
                assert report.status == "passed", f"{entry.name}\n{feedback.as_text(report)}"

    def test_wrong_answers_are_rejected_with_their_own_sentence(self, each, seeds):
        answers = wrong_answers(each)
        assert len(answers) >= 4, f"{each.name} needs at least four wrong answers"
        assert len({e.sentence for e in answers}) == len(answers), "two wrong answers share a sentence"
        known = nothing_known(seeds)
        for entry in answers:
            for report in run(each, entry.obj, known):
                assert report.status == "failed", f"{entry.name} was accepted with seed {report.seed}"
                told = report.diagnosis.name if report.diagnosis else "nothing"
                assert told == entry.name, (
                    f"{entry.name} was told {told}, with seed {report.seed}\n{feedback.as_text(report)}"
                )

    def test_a_stub_is_not_attempted(self, each):
        def stub(*args, **kwargs):
            raise NotImplementedError

        assert run_checks(each, stub).status == "not attempted"

    def test_an_answer_that_returns_nothing_is_rejected(self, each):
        assert run_checks(each, lambda *args, **kwargs: None).status == "failed"

    def test_checks_explain_themselves(self, each):
        cls = check_class(each)
        titles = check_methods(cls)
        assert len(titles) == sum(name.startswith("test_") for name in vars(cls)), (
            f"two checks of {each.name} share a title"
        )
        assert all(method.__doc__ for method in titles.values()), f"a check of {each.name} has no docstring"
        draws = [title for title, method in titles.items() if "rng" in inspect.signature(method).parameters]
        assert not (each.case and draws), f"a case's check draws nothing, as its outcomes are kept: {draws}"

    def test_every_entry_belongs_to_an_exercise(self):
        names = {exercise.name for exercise in self.chapter.exercises}
        assert names, "this chapter has no exercises"
        strangers = {entry.exercise for entry in chapter_catalogue(self.chapter.name)} - names
        assert not strangers, f"entries for {', '.join(strangers)}, which are no exercises"


# A class for each chapter, so that two test processes can share the catalogue: pytest-xdist keeps a class together.
for chapter in chapters():
    name = f"TestChapter{chapter.name[:2]}"
    globals()[name] = type(name, (Catalogue,), {"chapter": chapter})
