"""The built book: nothing is missing, nothing is fetched from elsewhere, and a browser has nothing to complain of."""

import re
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import browser
import pytest

from utils.course import paths
from utils.course.manifest import exercises, parts

pytestmark = pytest.mark.slow


class Page(HTMLParser):
    """What a page refers to and what can be referred to on it; formulas and text are counted."""

    def __init__(self, path):
        super().__init__()
        self.links, self.loaded, self.ids, self.count = [], [], set(), {}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.count[tag] = self.count.get(tag, 0) + 1
        self.ids |= {value for key, value in attributes.items() if key in ("id", "name") and value}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        elif tag in ("img", "script", "iframe", "source") and attributes.get("src"):
            self.loaded.append(attributes["src"])
        elif tag == "link" and attributes.get("href") and attributes.get("rel") != "canonical":
            self.loaded.append(attributes["href"])


@pytest.fixture(scope="module")
def book(built):
    """Where the book was built, and each of its pages by its path."""
    return built, {path.resolve(): Page(path) for path in built.rglob("*.html")}


def test_every_part_has_a_page_with_its_exercises(book):
    html, pages = book
    for part in parts():
        page = pages[html / part.chapter / f"{part.name}.html"]
        assert {f"exercise-{e.name.replace('_', '-').lower()}" for e in part.exercises} <= page.ids
        assert page.count["details"] >= 2 * len(part.exercises) + len(part.questions)
    functions = "".join(path.read_text(encoding="utf-8") for path in (html / "functions").glob("*.html"))
    assert [name for name, e in exercises().items() if f">{name}</span>" not in functions] == []


def test_every_link_inside_leads_somewhere(book):
    html, pages = book
    broken = []
    for path, page in pages.items():
        for link in page.links + page.loaded:
            address = urlsplit(link)
            if address.scheme or link.startswith("//"):
                continue
            target = (path.parent / unquote(address.path)).resolve() if address.path else path
            ids = pages[target].ids if target in pages else {unquote(address.fragment)}
            if not target.exists() or (address.fragment and unquote(address.fragment) not in ids):
                broken.append(f"{path.relative_to(html)}: {link}")
    assert broken == []


def test_nothing_is_loaded_from_elsewhere_and_no_path_of_this_machine_is_told(book):
    html, pages = book
    for path, page in pages.items():
        assert [s for s in page.loaded if urlsplit(s).scheme not in ("", "data") or s.startswith("//")] == []
        assert str(paths.ROOT) not in path.read_text(encoding="utf-8")
        assert str(html.parent) not in path.read_text(encoding="utf-8")


@pytest.mark.browser
def test_pages_load_without_a_word_in_the_console(book, driver, tmp_path):
    html, pages = book
    pictures = browser.pictures(tmp_path)
    for path in sorted(pages):
        driver.get(path.as_uri())
        told = [entry["message"] for entry in driver.get_log("browser")]
        assert told == [], (path.relative_to(html), told)
        unseen = "return [...document.images].filter(i => i.complete && !i.naturalWidth).map(i => i.src)"
        assert driver.execute_script(unseen) == [], path
    for theme in ("light", "dark"):
        driver.get((html / "06_superposition/06b_toy_models.html").as_uri())
        driver.execute_script(f"document.body.dataset.theme = '{theme}'")
        driver.save_screenshot(str(pictures / f"book-{theme}.png"))
        background = driver.execute_script("return getComputedStyle(document.body).backgroundColor")
        light = sum(map(int, re.findall(r"\d+", background)[:3])) > 384
        assert light == (theme == "light")
    driver.get((html / "search.html").as_uri() + "?q=orthogonal+matching+pursuit")
    found = "return document.querySelectorAll('#search-results li a').length"
    wait = pytest.importorskip("selenium.webdriver.support.ui").WebDriverWait
    wait(driver, 60).until(lambda d: d.execute_script(found) > 0)
