"""The page of latents in a real browser: nothing runs, nothing is loaded, and a reader finds the way."""

import os
import shutil
from pathlib import Path

import pytest
import torch

from utils.data.corpus import corpus, vocabulary
from utils.sae.dashboard import Card, Passage, card_of, feature_dashboard

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
MISSING = [name for name, path in (("Chromium", CHROMIUM), ("chromedriver", DRIVER)) if not path]
pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(MISSING), reason=f"{' and '.join(MISSING)} not installed")]

NASTY = (
    "<script>window.ran = 1</script>",
    "<img src=x onerror='window.ran = 1'>",
    '" onmouseover="window.ran = 1',
    "&",
)


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
                   "--window-size=1100,1400", f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):  # fmt: skip
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    yield driver
    driver.quit()


def opened(browser, tmp_path, page):
    path = tmp_path / "latents.html"
    path.write_text(page, encoding="utf-8")
    browser.get(path.as_uri())


def test_nothing_of_a_card_runs(browser, tmp_path):
    passage = Passage(NASTY, [1.0, 0.5, 0.0, 2.0])
    cards = [Card(text, text, text, [1, 2], {text: [passage]}) for text in NASTY]
    opened(browser, tmp_path, feature_dashboard(cards, NASTY[0]))
    for element in browser.find_elements(By.CSS_SELECTOR, "body *"):
        browser.execute_script("arguments[0].dispatchEvent(new MouseEvent('mouseover', {bubbles: true}))", element)
    assert browser.execute_script("return window.ran === undefined && document.scripts.length === 0")
    assert [e.text for e in browser.find_elements(By.CSS_SELECTOR, "section h2")] == [f"{t}: {t}" for t in NASTY]
    assert [e.text for e in browser.find_elements(By.CSS_SELECTOR, "section:first-of-type span")] == list(NASTY)


def test_a_page_about_documents_is_readable(browser, tmp_path):
    tokens = torch.as_tensor(corpus(60, 5)).long()
    generator = torch.Generator().manual_seed(0)
    words = vocabulary()
    cards = []
    for i, word in enumerate(("Monday", "the", "in")):
        acts = (tokens == words.index(word)) * (1 + torch.rand(tokens.shape, generator=generator))
        cards.append(card_of(f"latent {i}", f"the word {word}", acts, tokens, words))
    opened(browser, tmp_path, feature_dashboard(cards, "Three latents"))
    loaded = browser.execute_script("return performance.getEntriesByType('resource').map(entry => entry.name)")
    assert loaded == []
    links = browser.find_elements(By.CSS_SELECTOR, "nav a")
    assert [link.text for link in links] == ["latent 0", "latent 1", "latent 2"]
    links[2].click()
    top = browser.execute_script("return document.getElementById('latent-2').getBoundingClientRect().top")
    assert -5 < top < 1000
    assert browser.current_url.endswith("#latent-2")
    coloured = [
        span for span in browser.find_elements(By.CSS_SELECTOR, "#latent-0 span")
        if float(span.get_attribute("title")) > 0
    ]  # fmt: skip
    assert coloured and {span.text for span in coloured} == {"Monday"}
    heights = [bar.size["height"] for bar in browser.find_elements(By.CSS_SELECTOR, "#latent-0 .bars i")]
    assert len(heights) == 20 and max(heights) > 40
    folder = Path(os.environ.get("MI_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    browser.execute_script("window.scrollTo(0, 0)")
    browser.save_screenshot(str(folder / "dashboard of latents.png"))
