"""The ``mi`` command: check, hints, solutions, progress and models for learners; build for authors."""

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from utils.course import progress
from utils.course.manifest import Chapter, CourseError, Exercise, UnknownExercise, chapters, find_chapter, find_exercise
from utils.course.notebook import hint


def main(argv: Sequence[str] | None = None) -> int:
    """Run one ``mi`` command; returns the exit status (0 fine, 1 something failed, 2 wrong usage)."""
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except CourseError as error:
        print(f"mi: {error}", file=sys.stderr)
        return 2 if isinstance(error, UnknownExercise) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mi", description="The course's command line.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    check = add("check", _check, "check all exercises of a chapter's notebook, without running its experiments")
    check.add_argument("chapter", help="number of the chapter, e.g. 02")
    check.add_argument("--notebook", help="another file than the chapter's own notebook")
    for name, run, text in (
        ("hint", _hint, "show the next hint for an exercise"),
        ("solution", _solution, "print our solution of an exercise"),
        ("skip", _skip, "leave an exercise for later and go on"),
    ):
        add(name, run, text).add_argument("exercise", help="name of the exercise, e.g. causal_mask")
    add("progress", _progress, "show what is done and what comes next")
    models = add("models", _models, "list the models: what they are, how large, and where")
    models.add_argument("--fetch", metavar="NAME", help="get a pretrained model from the Hugging Face hub")
    train = add("train", _train, "train one of the course's models again, into build/models")
    train.add_argument("name", help="name of a training recipe, e.g. digits-cnn")
    train.add_argument("--seed", type=int, default=0, help="another seed than the shipped models' 0")
    train.add_argument("--ship", action="store_true", help="replace the shipped weights (for authors)")
    build = add("build", _build, "build solution and learner notebooks from the masters (for authors)")
    build.add_argument("chapters", nargs="*", help="numbers of the chapters to build; all if none is given")
    build.add_argument("--check", action="store_true", help="build nothing; fail if something is out of date")
    return parser


def _check(arguments: argparse.Namespace) -> int:
    from utils.course import feedback
    from utils.course.learner import collect_answers, missing_answer
    from utils.course.runner import run_checks

    chapter = find_chapter(arguments.chapter)
    namespace, failed = collect_answers(chapter, Path(arguments.notebook) if arguments.notebook else None)
    passed = points = 0
    for exercise in chapter.exercises:
        if exercise.name not in namespace:
            print(missing_answer(exercise, failed))
            continue
        if namespace[exercise.name] is exercise.reference:
            print(f"○ {exercise.name}: our reference, skipped")
            continue
        report = run_checks(exercise, namespace[exercise.name])
        if report.status in ("passed", "failed"):
            progress.record(report.status, exercise.name)
        print(feedback.as_text(report) if report.status in ("failed", "broken") else feedback.headline(report))
        passed, points = passed + (report.status == "passed"), points + exercise.points * (report.status == "passed")
    print(
        f"\nChapter {chapter.number}: {passed} of {len(chapter.exercises)} exercises, "
        f"{points} of {sum(e.points for e in chapter.exercises)} points"
    )
    return 0 if passed == len(chapter.exercises) else 1


def _hint(arguments: argparse.Namespace) -> int:
    hint(arguments.exercise)
    return 0


def _solution(arguments: argparse.Namespace) -> int:
    exercise = find_exercise(arguments.exercise)
    print(inspect.getsource(exercise.reference))
    return 0


def _skip(arguments: argparse.Namespace) -> int:
    exercise = find_exercise(arguments.exercise)
    progress.record("skipped", exercise.name)
    following = progress.next_exercise()
    print(f"{exercise.name} is skipped. " + (f"Next: {_line(following)}" if following else "Nothing is left to do."))
    return 0


def _progress(arguments: argparse.Namespace) -> int:
    standing = progress.states()
    for chapter in chapters():
        _print_chapter(chapter, standing)
    following = progress.next_exercise()
    print(f"next: {_line(following)}" if following else "Every exercise is passed or skipped.")
    return 0


_MARKS = {"passed": "✓", "tried": "✗", "skipped": "–", "open": "·"}


def _print_chapter(chapter: Chapter, standing: dict[str, progress.State]) -> None:
    counts = progress.summary(chapter)
    print(
        f"{chapter.title}: {counts['passed']} of {counts['exercises']} exercises, "
        f"{counts['points']} of {counts['of_points']} points"
    )
    for exercise in chapter.exercises:
        state = standing.get(exercise.name, progress.NOTHING_YET)
        hints = f", {state.hints} hint{'s' * (state.hints != 1)}" if state.hints else ""
        print(f"  {_MARKS[state.status]} {exercise.number:<5} {exercise.name:<28} {state.status}{hints}")


def _line(exercise: Exercise) -> str:
    return f"{exercise.number} {exercise.name} (chapters/{exercise.chapter}, about {exercise.minutes} minutes)"


def _models(arguments: argparse.Namespace) -> int:
    from utils.course import model_commands

    return model_commands.models(arguments.fetch)


def _train(arguments: argparse.Namespace) -> int:
    from utils.course import model_commands

    return model_commands.train(arguments.name, arguments.seed, arguments.ship)


def _build(arguments: argparse.Namespace) -> int:
    from utils.course.build import build, check_build, masters

    if arguments.check:
        wrong = check_build()
        print("\n".join([*wrong, "Run `mi build` and commit what it writes."]) if wrong else "everything is up to date")
        return 1 if wrong else 0
    names = {path.stem for path in masters()}
    chosen = [_pick(number, names) for number in arguments.chapters]
    build(chosen)
    return 0


def _pick(number: str, names: set[str]) -> str:
    found = [name for name in names if name == number or name.split("_")[0] == number.zfill(2)]
    if not found:
        raise UnknownExercise(f"There is no master for chapter {number!r}. There are {', '.join(sorted(names))}.")
    return found[0]


if __name__ == "__main__":
    sys.exit(main())
