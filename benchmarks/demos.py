"""Time the book's live demos in a headless Chromium on one core: `python benchmarks/demos.py`, after `make book`.

For each demo: from asking for its page to the first answer, and from a change to the next answer, both in ms and the
median of five; and how much its page loads, in MB.
"""

import os
import statistics
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "docs/book"))

import browser  # noqa: E402
import demos  # noqa: E402

HTML = ROOT / "build/book/html"
REPEATS = 5
# What changes a demo's question, for each demo that answers questions.
TYPE = "const f = document.querySelector('.demo input[type=text]'); f.value = {}; f.dispatchEvent(new Event('input'))"
PICK = (
    "const s = document.querySelector('.demo select'); s.selectedIndex = {} + 1; s.dispatchEvent(new Event('change'))"
)
TURN = "const r = document.querySelector('.demo [type=range]'); r.value = {} + 2; r.dispatchEvent(new Event('input'))"
PROMPTS = [
    f"When {one} and {two} went to the shop, {two} gave a book to"
    for one, two in zip(
        ("Mary", "Anna", "Hannah", "Clara", "Nora"), ("John", "Paul", "Victor", "Felix", "Fred"), strict=True
    )
]
CHANGES = {
    "attention": [TYPE.format(repr(prompt)) for prompt in PROMPTS],
    "lens": [TYPE.format(repr(prompt)) for prompt in PROMPTS],
    "patching": [f"document.querySelectorAll('.demo .grid button')[{7 * i + 3}].click()" for i in range(REPEATS)],
    "steering": [TURN.format(i) for i in range(REPEATS)],
    "classifier": [PICK.format(i) for i in range(REPEATS)],
    "superposition": [PICK.format(i) for i in range(REPEATS)],
}
LOADED = "return [location.href, ...[...document.scripts].map((script) => script.src)]"


def measure(name: str, chapter: str) -> tuple[float, float, float]:
    first, later, loaded = [], [], 0.0
    for repeat in range(REPEATS):
        driver = browser.open_browser()
        try:
            first.append(browser.open_demo(driver, HTML, chapter))
            names = {Path(address.removeprefix("file://")) for address in driver.execute_script(LOADED)}
            loaded = sum(path.stat().st_size for path in names if path.exists()) / 1e6
            for change in CHANGES[name] if repeat == 0 else ():
                before = driver.execute_script(f"const before = performance.now(); {change}; return before")
                later.append(browser.answered(driver, before) - before)
        finally:
            driver.quit()
    return statistics.median(first), statistics.median(later), loaded


def main() -> None:
    os.sched_setaffinity(0, {0})
    print(f"{'demo':15}{'first answer':>14}{'later':>8}{'MB':>7}")
    for chapter, name in demos.OF_CHAPTER.items():
        first, later, loaded = measure(name, chapter)
        print(f"{name:15}{first:14.0f}{later:8.0f}{loaded:7.1f}")


if __name__ == "__main__":
    main()
