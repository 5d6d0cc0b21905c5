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
        # By class, so that the tests of one exercise follow each other, and share what is ``known``.
        metafunc.parametrize("each", found, ids=[exercise.name for exercise in found], scope="class")


@pytest.fixture(scope="class")
def seeds(each, request):
    """Fixed, so that the suite says the same on every run, or ``--fresh-seeds N``: what is rejected is so on any."""
    if each.case:  # its check draws nothing: it runs the design that it is given
        return SEEDS[:1]
    return [secrets.randbelow(2**31) for _ in range(request.config.getoption("--fresh-seeds"))] or SEEDS


@pytest.fixture(scope="class")
def known(seeds):
    """By seed, how the wrong answers fare: it saves running each of them anew for every other one's diagnosis."""
    return {seed: {} for seed in seeds}


@pytest.fixture(scope="class")
def twice(each, seeds, request):
    """Seeds with which a wrong answer is run a second time for its own diagnosis: does it fare the same each time?

    The first of the fixed ones, and all fresh ones. A case's designs, whole experiments, with ``--fresh-seeds`` only.
    """
    return seeds if request.config.getoption("--fresh-seeds") else seeds[: 0 if each.case else 1]


def run(exercise, obj, known, entry="", twice=()):
    """Reports for all seeds; an ``entry`` of the catalogue is run once for both its roles, but ``twice`` with some."""
    reports = [
        run_checks(exercise, obj, seed=seed, known=found, entry="" if seed in twice else entry)
        for seed, found in known.items()
    ]
    for report in reports:
        assert report.status != "broken", feedback.as_text(report)
    return reports


class Catalogue:
    def test_reference_is_accepted(self, each, known):
        for report in run(each, each.reference, known):
            assert report.status == "passed", feedback.as_text(report)

    def test_right_answers_are_accepted(self, each, known):
        answers = right_answers(each)
        assert answers, f"{each.name} needs at least one right answer in another style"
        for entry in answers:
            for report in run(each, entry.obj, known):
                assert report.status == "passed", f"{entry.name}\n{feedback.as_text(report)}"

    def test_wrong_answers_are_rejected_with_their_own_sentence(self, each, known, twice):
        answers = wrong_answers(each)
        assert len(answers) >= 4, f"{each.name} needs at least four wrong answers"
        assert len({e.sentence for e in answers}) == len(answers), "two wrong answers share a sentence"
        for entry in answers:
            for report in run(each, entry.obj, known, entry.name, twice):
                assert report.status == "failed", f"{entry.name} was accepted with seed {report.seed}"
                told = report.diagnosis.name if report.diagnosis else "nothing"
                assert told == entry.name, (
                    f"{entry.name} was told {told}, with seed {report.seed}\n{feedback.as_text(report)}"
                )

    def test_a_stub_is_not_attempted(self, each):
        def stub(*args, **kwargs):
            raise NotImplementedError

        assert run_checks(each, stub).status == "not attempted"

    def test_an_answer_that_returns_nothing_is_rejected(self, each, known):
        seed = next(iter(known))
        assert run_checks(each, lambda *args, **kwargs: None, seed=seed, known=known[seed]).status == "failed"

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
