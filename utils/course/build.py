"""Masters and references in, solution notebooks and learner notebooks out.

    solutions/NN/NNx.md + utils  →  solutions/NN/NNx.ipynb (executed)  →  chapters/NN/NNx.ipynb, manifest.json

An executed notebook carries a digest of everything it was made from; one whose digest still holds is left alone.
"""

import ast
import hashlib
import os
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import replace
from pathlib import Path

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode

from utils.course import manifest, paths
from utils.course.cells import plain_python
from utils.course.manifest import Chapter, CourseError, Part
from utils.course.masters import Built, Master, MasterError
from utils.course.paths import release_path, solution_path

CELL_TIMEOUT = 600
# How ``utils.models.packaged`` says that a network is missing which the package index has.
MISSING_MODEL = re.compile(r"'([\w.-]+)' is not on this machine, so this part is left out; `mi models --fetch")
# Live widgets exist in a kernel only, under ids that are drawn anew each time; their text form is what is stored.
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"
WORKERS = 2


class BuildError(CourseError):
    """A notebook can't be built; the message says which, where and why."""


def masters() -> list[Path]:
    """All masters, in the order of the course: ``NN_name/NNx_part.md``, or ``NN_name/NN_name.md`` for a single part."""
    found = paths.SOLUTIONS.glob("[0-9][0-9]_*/[0-9][0-9]*_*.md")
    return sorted(path for path in found if re.fullmatch(rf"{path.parent.name[:2]}[a-z]?", path.stem.split("_")[0]))


def build(names: Iterable[str] = (), say: Callable[[str], None] = print) -> list[str]:
    """Bring everything that is out of date up to date; returns the names of the parts that were executed.

    Args:
        names: Names of the parts to build; all if empty.
        say: Receives one line for each step.
    """
    built = read_masters()
    write(paths.MANIFEST, manifest.dump(course_of(built)))
    chosen = {name: b for name, b in built.items() if not names or name in names}
    stale = {name: b for name, b in chosen.items() if not is_current(b)}
    done, start = [], time.monotonic()
    with ThreadPoolExecutor(WORKERS) as pool:
        jobs = {pool.submit(execute, b): name for name, b in stale.items()}
        for name in stale:
            say(f"… {name}: executing {sum(c.cell_type == 'code' for c in stale[name].notebook.cells)} cells")
        for job in as_completed(jobs):
            name = jobs[job]
            _expect_nothing_left_out(name, job.result())
            write(_solution(stale[name]), text_of(job.result()))
            done.append(name)
            say(f"✓ {name}: executed ({len(done)} of {len(stale)}, {time.monotonic() - start:.0f} s)")
    for name, b in chosen.items():
        changed = write(_release(b), release(b.part))
        say(f"{'✓' if changed else '='} {name}: learner's notebook {'written' if changed else 'unchanged'}")
    return sorted(done)


def check_build(say: Callable[[str], None] = print) -> list[str]:
    """Compare what is committed with what the masters give, without executing anything.

    Returns:
        One sentence for each thing out of date; empty if all is as it should be.
    """
    built = read_masters()
    wrong = []
    if not paths.MANIFEST.exists() or paths.MANIFEST.read_text(encoding="utf-8") != manifest.dump(course_of(built)):
        wrong.append(f"{_short(paths.MANIFEST)} is not what the masters give.")
    for name, b in built.items():
        solution, learners = _solution(b), _release(b)
        if not solution.exists():
            wrong.append(f"{_short(solution)} is missing.")
        elif not is_current(b):
            wrong.append(f"{_short(solution)} is older than its master or the code it runs.")
        elif not learners.exists() or learners.read_text(encoding="utf-8") != release(b.part):
            wrong.append(f"{_short(learners)} is not what {_short(solution)} gives.")
        else:
            say(f"= {name}: up to date")
    ours = {folder(b) for b in built.values() for folder in (_solution, _release)}
    found = [*paths.SOLUTIONS.glob("[0-9][0-9]_*/*.ipynb"), *paths.CHAPTERS.glob("[0-9][0-9]_*/*.ipynb")]
    return wrong + [f"{_short(path)} has no master." for path in sorted(set(found) - ours)]


def _solution(built: Built) -> Path:
    return solution_path(built.part.chapter, built.part.name)


def _release(built: Built) -> Path:
    return release_path(built.part.chapter, built.part.name)


def read_masters() -> dict[str, Built]:
    """Every master, parsed and with its references put in, by the part's name.

    Raises:
        MasterError: If a master is wrong, or two parts have an exercise or a question of the same name.
    """
    built: dict[str, Built] = {}
    owner: dict[str, str] = {}
    counted: Counter[str] = Counter()
    for path in masters():
        chapter = path.parent.name
        one = built[path.stem] = Master(path, exercises_before=counted[chapter]).build()
        counted[chapter] += sum(not e.case for e in one.part.exercises)
        for item in (*one.part.exercises, *one.part.questions):
            if item.name in owner:
                raise MasterError(f"{path}: {item.name} is in {owner[item.name]} already; names are unique.")
            owner[item.name] = path.stem
    return built


def course_of(built: dict[str, Built]) -> tuple[Chapter, ...]:
    """The parts, gathered into their chapters; a chapter's title stands in its first part."""
    found: dict[str, Chapter] = {}
    for b in built.values():
        so_far = found.get(b.part.chapter, Chapter(b.part.chapter, b.chapter_title, ()))
        found[b.part.chapter] = replace(so_far, parts=(*so_far.parts, b.part))
    return tuple(found.values())


def is_current(built: Built) -> bool:
    """Whether the committed solution notebook has exactly these cells and was executed with today's code."""
    path = _solution(built)
    if not path.exists():
        return False
    committed = nbformat.read(path, as_version=4)
    cells = [[(c.cell_type, c.id, c.source, c.metadata) for c in nb.cells] for nb in (committed, built.notebook)]
    return cells[0] == cells[1] and committed.metadata.get("made_from") == digest(built)


def digest(built: Built) -> str:
    """Hash of the notebook's cells and of all code in ``utils`` that they import, directly or not.

    The machinery (``utils.course``) is left out: it shows the boxes of checks, it computes no result.
    """
    found = hashlib.sha256()
    for cell in built.notebook.cells:
        found.update(cell.source.encode())
    code = "\n".join(plain_python(c.source) for c in built.notebook.cells if c.cell_type == "code")
    for path in sorted(imported_files(code)):
        text = path.read_text(encoding="utf-8")  # whatever the line ends of this clone are
        found.update(f"{path.relative_to(paths.ROOT).as_posix()}\0{text}".encode())
    return found.hexdigest()[:16]


def imported_files(code: str) -> set[Path]:
    """Files of ``utils`` that a piece of code imports, and those that these import in turn."""
    found: set[Path] = set()
    queue = [code]
    while queue:
        for node in ast.walk(ast.parse(queue.pop())):
            if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            elif isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            else:
                continue
            for name in names:
                path = _file_of(name)
                if path and path not in found:
                    found.add(path)
                    queue.append(path.read_text(encoding="utf-8"))
    return found


def _file_of(module: str) -> Path | None:
    if not module.startswith("utils.") or module.startswith("utils.course"):
        return None
    base = paths.ROOT.joinpath(*module.split("."))
    return next((p for p in (base.with_suffix(".py"), base / "__init__.py") if p.exists()), None)


def execute(built: Built) -> NotebookNode:
    """Run a notebook in a fresh kernel, in a folder of its own that is thrown away.

    Raises:
        BuildError: If a cell fails; the message gives the cell and the error.
    """
    nb = nbformat.from_dict(built.notebook)
    nb.metadata["made_from"] = digest(built)
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {
            "MI_ROOT": str(paths.ROOT),
            "MI_STATE": folder,
            "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
            "OMP_NUM_THREADS": "1",  # notebooks run side by side: threads would wait for each other
            "HF_HUB_OFFLINE": "1",  # a build downloads no models, so that it gives the same on every machine
        }
        client = NotebookClient(
            nb,
            timeout=CELL_TIMEOUT,
            kernel_name="python3",
            record_timing=False,
            store_widget_state=False,
            resources={"metadata": {"path": folder}},
            extra_arguments=["--IPKernelApp.log_level=ERROR"],  # no news of its sockets
        )
        try:
            client.execute(env=environment)
        except CellExecutionError as error:
            raise BuildError(
                f"{built.part.name}: a cell of the solution notebook failed.\n{_plain(str(error))}"
            ) from error
    for cell in nb.cells:
        if cell.cell_type == "code":
            cell.outputs = _joined(cell.outputs)
            for output in cell.outputs:
                output.get("data", {}).pop(WIDGET_VIEW, None)
    return nb


def _expect_nothing_left_out(name: str, nb: NotebookNode) -> None:
    """Expect no section to have been left out for want of a network that the package index has: it belongs in here."""
    for output in (output for cell in nb.cells if cell.cell_type == "code" for output in cell.outputs):
        if found := MISSING_MODEL.search(output.get("text", "")):
            raise BuildError(
                f"{name}: the section on {found[1]!r} was left out, as this machine does not have it, and what it "
                f"shows would be lost from the notebook. `mi models --fetch {found[1]}` gets it; then build again."
            )


def _joined(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Outputs with pieces of one stream put together: how a kernel cuts what is printed depends on the clock."""
    found: list[NotebookNode] = []
    for output in outputs:
        if output.output_type == "stream" and found and found[-1].get("name") == output.name:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def _plain(text: str) -> str:
    return re.sub(r"\x1b\[[0-9;]*m", "", text)


def text_of(nb: NotebookNode) -> str:
    """A notebook's file text, always the same for the same notebook."""
    return nbformat.writes(nb, version=4) + "\n"


def release(part: Part) -> str:
    """The learner's notebook that nbgrader makes of a committed solution notebook.

    This is ``nbgrader generate_assignment`` in a copy of the course folder and without the gradebook: a build has no
    business in an instructor's database.
    """
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory
    from nbgrader.preprocessors import SaveCells
    from traitlets.config.loader import PyFileConfigLoader

    with tempfile.TemporaryDirectory() as folder:
        course = Path(folder)
        (course / "solutions" / part.chapter).mkdir(parents=True)
        shutil.copy(solution_path(part.chapter, part.name), course / "solutions" / part.chapter)
        config = PyFileConfigLoader("nbgrader_config.py", path=str(paths.ROOT)).load_config()
        config.CourseDirectory.root = str(course)
        config.CourseDirectory.assignment_id = part.chapter
        config.GenerateAssignment.no_database = True
        converter = GenerateAssignment(coursedir=CourseDirectory(config=config), config=config)
        converter.preprocessors = [p for p in converter.preprocessors if p is not SaveCells]
        converter.log.setLevel("ERROR")
        converter.start()
        return (course / "chapters" / part.chapter / f"{part.name}.ipynb").read_text(encoding="utf-8")


def write(path: Path, text: str) -> bool:
    """Write a file if its text changes, all of it or nothing; returns whether it changed."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    path.parent.mkdir(parents=True, exist_ok=True)
    # A name of its own, so that two processes that write the same file don't take each other's away.
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with open(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
    return True


def _short(path: Path) -> str:
    return path.relative_to(paths.ROOT).as_posix()
