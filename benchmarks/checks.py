"""Seconds that ``check`` takes in a live kernel, for every exercise of a part or of a chapter.

    python benchmarks/checks.py 02b

Defines the solution notebooks' answers in a fresh kernel, then times each ``check`` call three times. The very first
call (which loads the runner and the chapter's checks, after the set-up cell's imports) is reported apart.
"""

import json
import statistics
import sys

import nbformat
from jupyter_client.manager import start_new_kernel

from utils.course.manifest import find_parts
from utils.course.paths import solution_path

TIMER = """
import json as _json, time as _time
def _timed(name):
    start = _time.perf_counter()
    check(globals()[name])
    return _time.perf_counter() - start
"""


def run(client, source: str) -> str:
    """Execute a cell; returns what it printed."""
    printed = []

    def keep(message: dict) -> None:
        content = message["content"]
        if message["msg_type"] == "stream" and content["name"] == "stdout":
            printed.append(content["text"])
        if message["msg_type"] == "error":
            raise RuntimeError(content["evalue"])

    client.execute_interactive(source, output_hook=keep, timeout=600)
    return "".join(printed)


def main() -> None:
    parts = find_parts(sys.argv[1])
    names = [e.name for part in parts for e in part.exercises]
    notebooks = [nbformat.read(solution_path(part.chapter, part.name), as_version=4) for part in parts]
    cells = [cell for notebook in notebooks for cell in notebook.cells]
    manager, client = start_new_kernel(kernel_name="python3")
    try:
        for cell in cells:
            if "setup" in cell.metadata.get("tags", []) or cell.metadata.get("nbgrader", {}).get("grade_id") in names:
                run(client, cell.source)
        run(client, TIMER)
        first = json.loads(run(client, f"print(_json.dumps(_timed({names[0]!r})))").splitlines()[-1])
        times = {
            name: statistics.median(
                json.loads(run(client, f"print(_json.dumps(_timed({name!r})))").splitlines()[-1]) for _ in range(3)
            )
            for name in names
        }
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    for name, seconds in sorted(times.items(), key=lambda item: -item[1]):
        print(f"{seconds:8.3f} s  {name}")
    median, slowest = statistics.median(times.values()), max(times.values())
    print(f"{len(times)} exercises: first call {first:.2f} s; after it, median {median:.3f} s, slowest {slowest:.3f} s")


if __name__ == "__main__":
    main()
