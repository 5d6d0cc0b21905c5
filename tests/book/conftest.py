"""The book, built once for all tests that look at it, and the browser that looks."""

import subprocess
import sys

import pytest

from utils.course import paths

sys.path.insert(0, str(paths.ROOT / "docs/book"))
import browser  # noqa: E402


@pytest.fixture(scope="session")
def built(tmp_path_factory):
    """Where the book was built."""
    out = tmp_path_factory.mktemp("book")
    command = [sys.executable, paths.ROOT / "docs/book/build.py", "--out", out]
    outcome = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "WARNING" not in outcome.stderr and "ERROR" not in outcome.stderr, outcome.stderr
    return out / "html"


@pytest.fixture(scope="session")
def driver():
    if not browser.AVAILABLE:
        pytest.skip("Chromium or chromedriver not installed")
    pytest.importorskip("selenium", reason="selenium is not installed")
    opened = browser.open_browser()
    yield opened
    opened.quit()
