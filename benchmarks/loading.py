"""Where the seconds of a process's first `load_course_model()` go.

    python benchmarks/loading.py

Each round is a fresh process that imports one thing after the other, so that a row shows what it adds to those above.
"""

import statistics
import subprocess
import sys

from tqdm import tqdm

ROUNDS = 5
STAGES = {
    "import torch": "import torch",
    "import transformers, as far as HookedTransformer needs it": "import transformers.modeling_utils",
    "import transformer_lens": "import transformer_lens",
    "the first load_course_model()": "from utils.models.course_model import load_course_model; load_course_model()",
    "the next": "load_course_model()",
}
TIMER = """
import time, warnings
warnings.simplefilter("ignore", DeprecationWarning)
for stage in {stages!r}:
    start = time.perf_counter()
    exec(stage)
    print(time.perf_counter() - start)
"""


def seconds_of_a_fresh_process() -> list[float]:
    """Of each stage, in order."""
    source = TIMER.format(stages=list(STAGES.values()))
    process = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=True)
    return [float(line) for line in process.stdout.split()]


def main() -> None:
    seconds_of_a_fresh_process()  # reads the files from the disk, once for all
    rounds = [seconds_of_a_fresh_process() for _ in tqdm(range(ROUNDS), unit="process")]
    for name, found in zip(STAGES, zip(*rounds, strict=True), strict=True):
        print(f"{name:58} {statistics.median(found):6.2f} s ({min(found):.2f} to {max(found):.2f})")


if __name__ == "__main__":
    main()
