"""Where the rooms of the course are, and how a file in one of them is loaded.

Two environment variables move them: ``MI_ROOT`` (the course's folder, where the code is installed elsewhere) and
``MI_STATE`` (the folder of the learner's progress).
"""

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

ROOT = Path(os.environ.get("MI_ROOT", Path(__file__).resolve().parents[2]))
CHAPTERS = ROOT / "chapters"
WORK = ROOT / "work"
SOLUTIONS = ROOT / "solutions"
TESTS = ROOT / "tests"
MANIFEST = CHAPTERS / "manifest.json"
STATE = Path(os.environ.get("MI_STATE", ROOT / ".mi"))


def master_path(chapter: str, part: str) -> Path:
    return SOLUTIONS / chapter / f"{part}.md"


def solution_path(chapter: str, part: str) -> Path:
    return SOLUTIONS / chapter / f"{part}.ipynb"


def release_path(chapter: str, part: str) -> Path:
    """The learner's notebook as it is handed out."""
    return CHAPTERS / chapter / f"{part}.ipynb"


def work_path(chapter: str, part: str) -> Path:
    """The learner's own copy of it, which nothing but the learner changes."""
    return WORK / chapter / f"{part}.ipynb"


def tests_folder(chapter: str) -> Path:
    return TESTS / chapter


def load_file(path: Path) -> ModuleType:
    """Import a Python file that lies in no package (a chapter's tests: their folders begin with a digit), once."""
    name = f"course_file.{path.parent.name}.{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        try:
            spec.loader.exec_module(module)
        except BaseException:
            del sys.modules[name]
            raise
    return sys.modules[name]
