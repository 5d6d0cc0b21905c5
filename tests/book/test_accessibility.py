"""What axe-core finds to complain of on the book's pages, with both themes."""

import tarfile

import browser
import demos
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.browser]
AXE = "axe-core@4.14.1"
DEMOS = [f"{chapter}/index.html" for chapter in demos.OF_CHAPTER]
OTHERS = ["index.html", "glossary.html", "claims.html", "00_start_here/00_start_here.html"]
CHAPTERS = ["01_classical_attribution/01a_lasso_and_lime.html", "06_superposition/06b_toy_models.html"]
FIND = """
axe.run(document, { resultTypes: ["violations"] }).then((found) => arguments[0](found.violations
  .filter((one) => ["serious", "critical"].includes(one.impact))
  .map((one) => `${one.id}: ${one.nodes.slice(0, 3).map((node) => node.html.slice(0, 200)).join(" | ")}`)));
"""


@pytest.fixture(scope="module")
def axe():
    archive = demos.npm_package(AXE)
    if not archive:
        pytest.skip(f"the npm package {AXE} can't be had")
    with tarfile.open(archive) as files:
        return files.extractfile("package/axe.min.js").read().decode()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("page", DEMOS + OTHERS + CHAPTERS)
def test_no_serious_finding(built, driver, axe, page, theme):
    driver.get((built / page).as_uri())
    if page in DEMOS and driver.find_elements("css selector", ".demo"):
        browser.answered(driver)
    driver.execute_script(f"document.body.dataset.theme = '{theme}'")
    driver.execute_script(axe)
    driver.set_script_timeout(120)
    assert driver.execute_async_script(FIND) == []
