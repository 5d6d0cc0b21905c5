"""The course's packages before files that happen to have the same name; the way in for ``mi`` and for kernels.

A file ``utils.py`` or ``torch.py`` beside a notebook, or in a folder on PYTHONPATH, would be imported in the place of
the package. This module has a name that nothing else has.
"""

import os
import sys


def own_packages_first() -> None:
    """Move the working folder and PYTHONPATH behind what is installed, and import our ``utils`` before they count."""
    foreign = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    last = {"", *foreign, *map(os.path.abspath, foreign)}
    behind = [path for path in sys.path if path in last]
    sys.path[:] = [path for path in sys.path if path not in last]
    try:
        import utils  # noqa: F401
    finally:
        sys.path += behind


def main() -> int:
    """The command line, ``mi``."""
    own_packages_first()
    from utils.course.cli import main

    return main()
