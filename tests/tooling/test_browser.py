"""JupyterLab and nbgrader's page in a real browser: what a learner and an instructor see.

Needs selenium, Chromium and its driver, and installs none of them. The screenshots go to the folder that
``MI_SCREENSHOTS`` names, to be looked at by a person.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from utils.course.paths import load_file

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.expected_conditions import (  # noqa: E402
    element_to_be_clickable,
    presence_of_element_located,
)
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

HERE = Path(__file__).parent
submissions = load_file(HERE / "submissions.py")
server = load_file(HERE / "server.py")
MINI, RIGHT, SPOKEN = submissions.MINI, submissions.RIGHT, submissions.SPOKEN
Submission = submissions.Submission

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
DRIVER = shutil.which("chromedriver")
MISSING = [name for name, path in (("Chromium", CHROMIUM), ("chromedriver", DRIVER)) if not path]
pytestmark = [pytest.mark.browser, pytest.mark.skipif(bool(MISSING), reason=f"{' and '.join(MISSING)} not installed")]

PATIENCE = 120
OPTIONS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-sync",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--window-size=1280,1500",
)

# A notebook in which each kind of report is seen once.
WORK = {
    "double": "def double(x):\n    return x ** 2",
    "quadruple": "def quadruple(x):\n    print('a print')\n    return double(double(x))",
    "scaffolded": "def scaffolded(x, n):\n    return x.no_such_method()",
}

RUN_EVERY_CELL = """
const [theme, done] = arguments;
const moment = () => new Promise(resolve => setTimeout(resolve, 100));
(async () => {
  while (!window.jupyterapp) await moment();
  const app = window.jupyterapp;
  await app.restored;
  let panel;
  while (!(panel = [...app.shell.widgets('main')].find(widget => widget.sessionContext))) await moment();
  app.shell.activateById(panel.id);  // a window that nobody looks at may have the focus nowhere
  await panel.context.ready;
  await panel.sessionContext.ready;
  for (let i = 0; i < panel.content.widgets.length; i++) {
    panel.content.activeCellIndex = i;
    if (panel.content.activeCell.model.type === 'code') await app.commands.execute('notebook:run-cell');
  }
  panel.content.activeCellIndex = 0;
  while (theme && document.body.dataset.jpThemeName !== theme) await moment();
  return 'ran';
})().then(done, error => done(String(error)));
"""

CONTRASTS = """
const numbers = text => text.match(/[\\d.]+/g).map(Number);
const light = ([r, g, b]) => [r, g, b].map(v => v / 255)
  .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
  .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
const under = element => {
  for (let e = element; e; e = e.parentElement) {
    const colour = numbers(getComputedStyle(e).backgroundColor);
    if (colour.length < 4 || colour[3] > 0) return colour;
  }
  return [255, 255, 255];
};
return [...arguments[0].querySelectorAll('strong, span, th, td')].map(element => {
  const style = getComputedStyle(element), back = under(element), opacity = Number(style.opacity);
  const front = numbers(style.color).slice(0, 3).map((v, i) => opacity * v + (1 - opacity) * back[i]);
  const [a, b] = [light(front), light(back)].sort((x, y) => y - x);
  return (a + 0.05) / (b + 0.05);
});
"""


@pytest.fixture(scope="module")
def course(built_mini, tmp_path_factory, course_environment):
    """A course with two graded submissions, one with an answer to be graded by hand."""
    root = tmp_path_factory.mktemp("browser") / "course"
    shutil.copytree(built_mini, root)
    Submission(root, **WORK).write(root / "work.ipynb")
    Submission(root, **RIGHT, why_four=SPOKEN).hand_in("ada")
    Submission(root, **WORK).hand_in("ben")
    for command in (["generate_assignment", "--force"], ["autograde"], ["generate_feedback"]):
        subprocess.run(
            [Path(sys.executable).with_name("nbgrader"), *command, MINI],
            cwd=root,
            check=True,
            env=course_environment(root),
            capture_output=True,
        )
    return root


@pytest.fixture(scope="module")
def jupyter(course, course_environment, tmp_path_factory):
    state = tmp_path_factory.mktemp("jupyter")
    with server.jupyter_server(course, course_environment(course), state) as running:
        settings = {
            "apputils-extension:notification": '{"fetchNews": "false", "checkForUpdates": false}',
            "notebook-extension:tracker": '{"windowingMode": "none"}',
        }
        for name, value in settings.items():
            running.put(f"lab/api/settings/@jupyterlab/{name}", {"raw": value})
        yield running


@pytest.fixture(scope="module")
def browser(jupyter, tmp_path_factory):
    """Chromium, signed in."""
    options = webdriver.ChromeOptions()
    options.binary_location = CHROMIUM
    for option in (*OPTIONS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(option)
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(DRIVER))
    driver.set_script_timeout(PATIENCE)
    driver.get(jupyter.page("login"))
    yield driver
    driver.quit()


@pytest.fixture
def screenshot(browser, tmp_path):
    folder = Path(os.environ.get("MI_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: browser.save_screenshot(str(folder / f"{name}.png"))


def wait_for(browser, condition):
    return WebDriverWait(browser, PATIENCE).until(condition)


@pytest.mark.parametrize("theme", ["JupyterLab Light", "JupyterLab Dark"])
def test_the_checks_cards_are_readable_in_jupyterlab(browser, jupyter, screenshot, theme):
    jupyter.put("lab/api/settings/@jupyterlab/apputils-extension:themes", {"raw": f'{{"theme": "{theme}"}}'})
    browser.get(jupyter.page("lab/tree/work.ipynb?reset"))
    assert browser.execute_async_script(RUN_EVERY_CELL, theme) == "ran"
    cards = browser.find_elements(By.CSS_SELECTOR, ".jp-OutputArea div[role=status]")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", cards[0])
    screenshot(f"jupyterlab {theme.split()[1].lower()}")
    text = "\n".join(card.text for card in cards)
    for part in (
        "✗ double: 2 of 2 checks failed",
        "You square the number.",
        "✓ quadruple: the check passed",
        "a print",
        "○ Scale: not attempted",
    ):
        assert part in text
    assert all(ratio >= 4.5 for card in cards for ratio in browser.execute_script(CONTRASTS, card))
    errors = [area.text for area in browser.find_elements(By.CSS_SELECTOR, "[data-mime-type$=stderr]")]
    assert errors == [
        f"CheckFailed: {verdict}"
        for verdict in (
            "✗ double: 2 of 2 checks failed",
            "✗ scaffolded: 2 of 2 checks failed",
            "○ Scale: not attempted",
        )
    ]


def test_the_validate_button_names_what_fails(browser, jupyter, screenshot):
    browser.get(jupyter.page("lab/tree/work.ipynb?reset"))
    assert browser.execute_async_script(RUN_EVERY_CELL, None) == "ran"
    browser.find_element(By.CSS_SELECTOR, ".validate-button").click()
    dialog = wait_for(browser, presence_of_element_located((By.CSS_SELECTOR, ".jp-Dialog")))
    wait_for(browser, lambda _: "Validation Results" in dialog.text)
    screenshot("validate")
    assert "✗ double: 2 of 2 checks failed" in dialog.text and "check(quadruple)" not in dialog.text


def test_the_assignment_is_on_nbgraders_page(browser, jupyter, screenshot):
    browser.get(jupyter.page("formgrader/manage_assignments"))
    row = wait_for(browser, presence_of_element_located((By.XPATH, f"//tr[contains(., '{MINI}')]")))
    screenshot("formgrader assignments")
    assert row.find_element(By.CSS_SELECTOR, ".num-submissions").text == "2"


def test_an_answer_is_graded_by_hand_on_nbgraders_page(browser, jupyter, screenshot):
    submitted = jupyter.json(f"formgrader/api/submitted_notebooks/{MINI}/{MINI}")
    ada = next(s["id"] for s in submitted if s["student"] == "ada")
    browser.get(jupyter.page(f"formgrader/submissions/{ada}"))
    score = wait_for(browser, element_to_be_clickable((By.CSS_SELECTOR, "#why_four.needs_manual_grade")))
    assert SPOKEN in browser.page_source
    score.send_keys("4", Keys.TAB)
    wait_for(browser, lambda _: jupyter.json(f"formgrader/api/submission/{MINI}/ada")["score"] == 14)
    screenshot("formgrader submission")
    assert not jupyter.json(f"formgrader/api/submission/{MINI}/ada")["needs_manual_grade"]


def test_the_feedback_page_is_readable(browser, course, screenshot):
    browser.get((course / "feedback" / "ben" / MINI / f"{MINI}.html").as_uri())
    screenshot("feedback")
    text = browser.find_element(By.TAG_NAME, "body").text
    assert "✗ double: 2 of 2 checks failed" in text and "You square the number." in text
