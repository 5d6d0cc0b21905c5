"""A headless Chromium that is on the machine already, for tests, timings and pictures of the book."""

import os
import shutil
import time
from pathlib import Path

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AVAILABLE = bool(CHROMIUM and shutil.which("chromedriver"))
QUIET = ("no-first-run", "disable-background-networking", "disable-component-update", "disable-sync")
# When the demo on a page last answered, in ms since the page was asked for; null before.
ANSWERED = "return Number(document.querySelector('.demo .step')?.dataset.at) || null"


def open_browser(width: int = 1300, height: int = 1000):
    """A selenium driver; whoever opens it calls its `quit`."""
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for argument in ("headless=new", "no-sandbox", "disable-gpu", f"window-size={width},{height}", *QUIET):
        options.add_argument(f"--{argument}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    return webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))


def answered(driver, after: float = 0, timeout: float = 60) -> float:
    """Wait until the page's demo has answered after this time, and say when it did."""
    end = time.monotonic() + timeout
    while not (at := driver.execute_script(ANSWERED)) or at <= after:
        if time.monotonic() > end:
            raise TimeoutError(driver.find_element("css selector", ".demo").text or "the demo shows nothing")
        time.sleep(0.02)
    return at


def open_demo(driver, html: Path, chapter: str) -> float:
    """Open a chapter's page, and say after how many ms its demo had answered."""
    driver.get((html / chapter / "index.html").as_uri())
    return answered(driver)


def pictures(otherwise: Path) -> Path:
    """The folder that MI_SCREENSHOTS names for the pictures that tests take, or another."""
    return Path(os.environ.get("MI_SCREENSHOTS", otherwise))
